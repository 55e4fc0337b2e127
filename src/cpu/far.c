// SPDX-License-Identifier: MIT
/*
 * Far JMP, CALL and RET: direct, through call gates (16, 32, 64-bit) and to tasks.
 * SDM 2A CALL, JMP, RET; SDM 3A 5.8.2 - 5.8.6; codeseg.c has the privilege rules.
 */
#include "cpu/system.h"

#include <string.h>

struct far_target {
	u16 sel;
	u64 rip;
};

/*
 * The pointer lies in a device, so the emulator will go on from here: prove the pushes of a CALL
 * with it, that it need not walk for them (C28). They may still turn out to go elsewhere (a gate
 * to an inner level) or nowhere (a bad selector): A and D stay as they are, and a fault here
 * means nothing yet.
 */
static void prove_pushes(struct env *e, u8 size)
{
	struct stack s = stack_current(e->cpu);
	u8 before = e->nr_pending;
	struct frame f;

	frame_init(&f);
	frame_push(&f, 0, size);
	frame_push(&f, 0, size);
	e->ahead = true;
	(void)!frame_map(e, &s, &f);
	e->ahead = false;
	e->nr_pending = before;
}

static bool in_ram(const struct access *a)
{
	return a->part[0].hva && (a->nr_parts == 1 || a->part[1].hva);
}

/*
 * 9A and EA carry the pointer; FF /3 and /5 read it.
 * DIFFERS: with REX.W it is m16:64 as for Intel and KVM; AMD reads m16:32.
 */
static enum stop read_target(
	struct cpu *cpu, const struct insn *i, struct env *e, bool call, struct far_target *t)
{
	u8 size = i->osz;
	struct access a;

	if (!(i->flags & INSN_MEM)) {
		t->sel = i->imm2;
		t->rip = zext(i->imm, i->osz);
		return STOP_OK;
	}
	TRY(env_check_ac(e, i->seg, insn_ea(cpu, i), size + 2, size));
	e->no_ac = true; /* two operands in one */
	TRY(env_map(e, &a, i->seg, insn_ea(cpu, i), size + 2, MMU_R));
	e->no_ac = false;
	if (call && !env_exact(e) && !in_ram(&a))
		prove_pushes(e, i->osz);
	TRY(env_begin(e));
	t->rip = 0;
	memcpy(&t->rip, a.p, size);
	memcpy(&t->sel, a.p + size, 2);
	return STOP_OK;
}

static void commit_cs(struct cpu *cpu, const struct segment *cs, u64 rip)
{
	cpu->seg[SEG_CS] = *cs;
	cpu->next_rip = rip;
	cpu_update(cpu);
}

/* A return address of a CALL on the current stack, then the jump itself. */
static enum stop push_and_go(struct cpu *cpu, struct env *e, u8 size, const struct segment *cs, u64 rip)
{
	struct stack s = stack_current(cpu);
	struct frame f;

	TRY(env_check_ac(e, SEG_SS, (s.sp - size) & s.mask, size, size));
	frame_init(&f);
	frame_push(&f, cpu->seg[SEG_CS].sel, size);
	frame_push(&f, cpu->next_rip, size);
	TRY(frame_map(e, &s, &f));
	TRY(env_begin(e));
	TRY(frame_store(e, &f));
	cpu->regs[GPR_RSP] = f.sp;
	commit_cs(cpu, cs, rip);
	return STOP_OK;
}

static enum stop go(struct cpu *cpu, struct env *e, const struct insn *i, bool call,
	const struct segment *cs, u64 rip)
{
	TRY(cs_check_rip(cpu, cs, rip, 0));
	if (call)
		return push_and_go(cpu, e, i->osz, cs, rip);
	commit_cs(cpu, cs, rip);
	return STOP_OK;
}

/* The gate's parameters on the caller's stack, topmost first (SDM 3A 5.8.5). */
static enum stop push_params(struct cpu *cpu, struct env *e, struct frame *f, u32 count, u8 size)
{
	struct stack s = stack_current(cpu);
	u8 raw[31 * 4];

	TRY(stack_read(e, &s, 0, count * size, size, raw));
	f->len += count * size;
	memcpy(f->bytes + FRAME_MAX - f->len, raw, count * size);
	return STOP_OK;
}

/* SDM 3A 5.8.5: a call to an inner level: stack from the TSS, parameters copied. */
static enum stop call_inner(struct cpu *cpu, struct env *e, const struct desc *gate, u8 size,
	const struct segment *cs, u64 rip)
{
	u8 cpl = SEL_RPL(cs->sel);
	struct segment ss = seg_null(cpl, cpl);
	struct stack s;
	struct frame f;
	u64 sp;

	if (size == 8)
		TRY(tss_stack_long(e, cpl, 0, 0, &sp));
	else
		TRY(tss_stack(e, cpl, 0, &ss, &sp));
	s = stack_make(cpu, &ss, sp, cpl, size == 8);
	s.error = sel_error(ss.sel, 0);
	frame_init(&f);
	frame_push(&f, cpu->seg[SEG_SS].sel, size);
	frame_push(&f, cpu->regs[GPR_RSP], size);
	if (size != 8)
		TRY(push_params(cpu, e, &f, gate->lo >> 32 & 31, size));
	frame_push(&f, cpu->seg[SEG_CS].sel, size);
	frame_push(&f, cpu->next_rip, size);
	TRY(frame_map(e, &s, &f));
	TRY(env_begin(e));
	TRY(frame_store(e, &f));
	cpu->regs[GPR_RSP] = f.sp;
	cpu->seg[SEG_SS] = ss;
	commit_cs(cpu, cs, rip);
	return STOP_OK;
}

static enum stop call_gate(struct cpu *cpu, struct env *e, const struct desc *gate, bool call)
{
	u8 size = cpu->long_mode ? 8 : desc_type(gate) == DESC_CALL32 ? 4 : 2;
	u64 rip = gate_offset(gate, cpu->long_mode, size > 2);
	struct segment cs;

	TRY(cs_prepare(e, gate_sel(gate), call ? CS_GATE_CALL : CS_GATE_JUMP, &cs));
	TRY(cs_check_rip(cpu, &cs, rip, 0));
	if (!call) {
		commit_cs(cpu, &cs, rip);
		return STOP_OK;
	}
	if (SEL_RPL(cs.sel) < cpu->cpl)
		return call_inner(cpu, e, gate, size, &cs, rip);
	return push_and_go(cpu, e, size, &cs, rip);
}

/* A system descriptor: gate or TSS. */
static enum stop far_system(struct cpu *cpu, struct env *e, u16 sel, bool call)
{
	struct desc d;
	u8 type;

	TRY(desc_read_system(e, sel, EXC_GP, 0, &d));
	type = desc_type(&d);
	if (cpu->long_mode ? type != DESC_CALL32
			   : type != DESC_CALL16 && type != DESC_CALL32 && type != DESC_TASK &&
				type != DESC_TSS16 && type != DESC_TSS32)
		return cpu_gp(cpu, sel_error(sel, 0));
	if (desc_dpl(&d) < cpu->cpl || desc_dpl(&d) < SEL_RPL(sel))
		return cpu_gp(cpu, sel_error(sel, 0));
	if (!desc_p(&d))
		return cpu_raise_error(cpu, EXC_NP, sel_error(sel, 0));
	if (type == DESC_CALL16 || type == DESC_CALL32)
		return call_gate(cpu, e, &d, call);
	return task_switch(e, type == DESC_TASK ? gate_sel(&d) : sel, call ? TASK_CALL : TASK_JMP, 0,
		false, 0, cpu->next_rip);
}

static enum stop far_transfer(struct cpu *cpu, const struct insn *i, struct env *e, bool call)
{
	struct far_target t;
	struct segment cs;
	struct desc d;

	TRY(read_target(cpu, i, e, call, &t));
	if (!cpu_prot(cpu)) {
		cs = seg_real(cpu, &cpu->seg[SEG_CS], t.sel);
		return go(cpu, e, i, call, &cs, t.rip);
	}
	if (SEL_NULL(t.sel))
		return cpu_gp(cpu, 0);
	TRY(desc_read(e, t.sel, EXC_GP, 0, &d));
	if (!desc_s(&d))
		return far_system(cpu, e, t.sel, call);
	TRY(cs_check(e, t.sel, &d, CS_DIRECT, &cs));
	return go(cpu, e, i, call, &cs, t.rip);
}

enum stop exec_jmp_far(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return far_transfer(cpu, i, e, false);
}

enum stop exec_call_far(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return far_transfer(cpu, i, e, true);
}

static enum stop pop_pair(struct env *e, const struct stack *s, u32 above, u8 size, u64 *off, u64 *sel)
{
	u8 raw[16];

	TRY(stack_read(e, s, above, 2 * size, size, raw));
	*off = *sel = 0;
	memcpy(off, raw, size);
	memcpy(sel, raw + size, 2);
	return STOP_OK;
}

static enum stop ret_outer(struct cpu *cpu, struct env *e, const struct stack *s, u8 size, u32 drop,
	const struct segment *cs, u64 rip)
{
	u8 cpl = SEL_RPL(cs->sel);
	struct segment ss;
	struct stack outer;
	u64 rsp, sel;

	TRY(pop_pair(e, s, 2 * size + drop, size, &rsp, &sel));
	TRY(ss_prepare_return(e, sel, cpl, cs_is_64(cpu, cs), &ss));
	TRY(cs_check_rip(cpu, cs, rip, 0));
	outer = stack_make(cpu, &ss, return_rsp(cpu, cs, &ss, rsp), cpl, cs_is_64(cpu, cs));
	cpu->regs[GPR_RSP] = stack_add(&outer, drop);
	cpu->seg[SEG_SS] = ss;
	commit_cs(cpu, cs, rip);
	seg_drop_inner(cpu, cpl);
	cpu_update(cpu);
	return STOP_OK;
}

enum stop exec_ret_far(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u32 drop = i->opcode == 0xca ? (u16)i->imm : 0;
	struct stack s = stack_current(cpu);
	struct segment cs;
	u64 rip, sel;

	TRY(env_check_ac(e, SEG_SS, s.sp & s.mask, i->osz, i->osz));
	TRY(pop_pair(e, &s, 0, i->osz, &rip, &sel));
	if (cpu_prot(cpu))
		TRY(cs_prepare(e, sel, CS_RETURN, &cs));
	else
		cs = seg_real(cpu, &cpu->seg[SEG_CS], sel);
	if (cpu_prot(cpu) && SEL_RPL(sel) > cpu->cpl)
		return ret_outer(cpu, e, &s, i->osz, drop, &cs, rip);
	TRY(cs_check_rip(cpu, &cs, rip, 0));
	cpu->regs[GPR_RSP] = stack_add(&s, 2 * i->osz + drop);
	commit_cs(cpu, &cs, rip);
	return STOP_OK;
}
