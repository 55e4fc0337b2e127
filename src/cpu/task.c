// SPDX-License-Identifier: MIT
/*
 * Hardware task switches with 16-bit and 32-bit TSSs: SDM 3A 7. Everything that can be
 * refused is checked and proved before the old task is saved; what goes wrong while the
 * new task's segments are loaded is a fault of the new task (SDM 3A 7.3).
 */
#include "cpu/system.h"

#include <string.h>

struct tss32 {
	u32 link, esp0, ss0, esp1, ss1, esp2, ss2, cr3, eip, eflags;
	u32 gpr[8];
	u32 seg[6]; /* ES CS SS DS FS GS: the encoding's order */
	u32 ldt;
	u16 trap, iomap;
};
_Static_assert(sizeof(struct tss32) == 104, "SDM 3A figure 7-2");

struct tss16 {
	u16 link, sp0, ss0, sp1, ss1, sp2, ss2, ip, flags;
	u16 gpr[8];
	u16 seg[4];
	u16 ldt;
};
_Static_assert(sizeof(struct tss16) == 44, "SDM 3A figure 7-10");

/* A task's state, whatever its TSS looks like. */
struct task {
	bool wide, trap;
	u32 cr3, eip, eflags, gpr[8];
	u16 seg[6], ldt;
};

struct task_request {
	u16 sel;
	enum task_why why;
	u32 ext;
	bool has_error;
	u32 error;
	u32 rip; /* of the old task */
};

static bool tss_is_wide(u16 attr_or_type) { return attr_or_type & 8; }

static enum stop check_target(struct env *e, const struct task_request *r, struct desc *d)
{
	struct cpu *cpu = e->cpu;
	u8 vector = r->why == TASK_IRET ? EXC_TS : EXC_GP, busy = r->why == TASK_IRET ? TSS_BUSY : 0;
	u32 error = sel_error(r->sel, r->ext);

	if (SEL_NULL(r->sel) || (r->sel & SEL_TI))
		return cpu_raise_error(cpu, vector, error);
	TRY(desc_read(e, r->sel, vector, r->ext, d));
	if (desc_s(d) || (desc_type(d) & ~8) != (DESC_TSS16 | busy))
		return cpu_raise_error(cpu, vector, error);
	if (!desc_p(d))
		return cpu_raise_error(cpu, EXC_NP, error);
	if (desc_limit(d) < (tss_is_wide(desc_type(d)) ? 0x67 : 0x2b))
		return cpu_raise_error(cpu, EXC_TS, error);
	return STOP_OK;
}

static enum stop read_task(struct env *e, const struct desc *d, struct task *t)
{
	struct tss32 t32;
	struct tss16 t16;

	memset(t, 0, sizeof(*t));
	t->wide = tss_is_wide(desc_type(d));
	if (t->wide) {
		TRY(env_read_system(e, desc_base(d), sizeof(t32), &t32));
		t->cr3 = t32.cr3;
		t->eip = t32.eip;
		t->eflags = t32.eflags;
		t->trap = t32.trap & 1;
		t->ldt = t32.ldt;
		memcpy(t->gpr, t32.gpr, sizeof(t->gpr));
		for (unsigned int k = 0; k < 6; k++)
			t->seg[k] = t32.seg[k];
		return STOP_OK;
	}
	TRY(env_read_system(e, desc_base(d), sizeof(t16), &t16));
	t->eip = t16.ip;
	t->eflags = t16.flags;
	t->ldt = t16.ldt;
	for (unsigned int k = 0; k < 8; k++)
		t->gpr[k] = t16.gpr[k] | 0xffff0000;
	memcpy(t->seg, t16.seg, sizeof(t16.seg));
	return STOP_OK;
}

/* The old TSS gets EIP to GS (IP to DS): what the processor writes there, SDM 3A 7.2.1. */
static enum stop save_task(struct env *e, u64 eflags, u32 rip)
{
	struct cpu *cpu = e->cpu;
	struct tss32 t32;
	struct tss16 t16;

	if (tss_is_wide(cpu->tr.attr)) {
		t32.eip = rip;
		t32.eflags = eflags;
		for (unsigned int k = 0; k < 8; k++)
			t32.gpr[k] = cpu->regs[k];
		for (unsigned int k = 0; k < 6; k++)
			t32.seg[k] = cpu->seg[k].sel;
		return env_write_system(e, cpu->tr.base + offsetof(struct tss32, eip),
			offsetof(struct tss32, ldt) - offsetof(struct tss32, eip), &t32.eip);
	}
	t16.ip = rip;
	t16.flags = eflags;
	for (unsigned int k = 0; k < 8; k++)
		t16.gpr[k] = cpu->regs[k];
	for (unsigned int k = 0; k < 4; k++)
		t16.seg[k] = cpu->seg[k].sel;
	return env_write_system(e, cpu->tr.base + offsetof(struct tss16, ip),
		offsetof(struct tss16, ldt) - offsetof(struct tss16, ip), &t16.ip);
}

static enum stop prove_old(struct env *e)
{
	struct cpu *cpu = e->cpu;
	u32 size = tss_is_wide(cpu->tr.attr) ? sizeof(struct tss32) : sizeof(struct tss16);

	if (cpu->tr.limit < size - 1)
		return cpu_raise_error(cpu, EXC_TS, sel_error(cpu->tr.sel, 0));
	return env_prove_system(e, cpu->tr.base, size, MMU_R | MMU_W);
}

/* All writes to memory: old state, busy bits, back link. Proved before. */
static enum stop write_tables(struct env *e, const struct task_request *r, struct desc *d)
{
	struct cpu *cpu = e->cpu;
	u64 eflags = cpu_eflags(cpu);
	bool nest = r->why == TASK_CALL || r->why == TASK_GATE;
	u16 link = cpu->tr.sel;

	if (r->why == TASK_IRET)
		eflags &= ~EFL_NT;
	if (!nest)
		TRY(desc_clear_busy(e, cpu->tr.sel));
	TRY(save_task(e, eflags, r->rip));
	if (nest)
		TRY(env_write_system(e, desc_base(d), 2, &link));
	return desc_set_bits(e, r->sel, d, TSS_BUSY);
}

/* Commit the part that cannot fail; segments hold selectors only until they are loaded. */
static void enter_task(struct cpu *cpu, const struct task_request *r, const struct desc *d,
	const struct task *t)
{
	bool nest = r->why == TASK_CALL || r->why == TASK_GATE;
	u64 eflags = t->wide ? t->eflags & EFL_VALID : (t->eflags & 0x7fd7);

	cpu->tr = seg_from_desc(r->sel, d);
	cpu->cr0 |= CR0_TS;
	cpu->mmu.paging.cr0 |= CR0_TS;
	cpu->dr7 &= ~0x155ull; /* local breakpoints */
	if (nest)
		eflags |= EFL_NT;
	eflags_store(cpu, eflags);
	for (unsigned int k = 0; k < 8; k++)
		cpu->regs[k] = t->gpr[k];
	for (unsigned int k = 0; k < NR_SEGS; k++)
		cpu->seg[k] = seg_null(t->seg[k], SEL_RPL(t->seg[SEG_CS]));
	cpu->ldtr = seg_null(t->ldt, 0);
	cpu->rip = cpu->next_rip = t->eip;
	cpu_update(cpu);
}

/* Faults of segment loads in a task switch: #TS in place of #GP. */
static enum stop as_ts(struct cpu *cpu, enum stop stop, u32 ext)
{
	if (stop == STOP_EXC && cpu->exc.vector == EXC_GP)
		cpu->exc.vector = EXC_TS;
	if (stop == STOP_EXC && cpu->exc.vector != EXC_PF)
		cpu->exc.error |= ext;
	return stop;
}

static enum stop load_ldtr(struct env *e, u16 sel)
{
	struct cpu *cpu = e->cpu;
	struct desc d;

	if (SEL_NULL(sel))
		return STOP_OK;
	if (sel & SEL_TI)
		return cpu_raise_error(cpu, EXC_TS, sel_error(sel, 0));
	TRY(desc_read(e, sel, EXC_TS, 0, &d));
	if (desc_s(&d) || desc_type(&d) != DESC_LDT || !desc_p(&d))
		return cpu_raise_error(cpu, EXC_TS, sel_error(sel, 0));
	cpu->ldtr = seg_from_desc(sel, &d);
	return STOP_OK;
}

static enum stop load_segments(struct env *e, const struct task *t)
{
	static const u8 data[] = {SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	struct cpu *cpu = e->cpu;
	struct segment cs;

	TRY(load_ldtr(e, t->ldt));
	if (cpu_v86(cpu)) {
		for (unsigned int k = 0; k < NR_SEGS; k++)
			cpu->seg[k] = seg_real(cpu, &cpu->seg[k], t->seg[k]);
		return STOP_OK;
	}
	TRY(seg_load(e, SEG_SS, t->seg[SEG_SS]));
	for (unsigned int k = 0; k < ARRAY_SIZE(data); k++)
		TRY(seg_load(e, data[k], t->seg[data[k]]));
	TRY(cs_prepare(e, t->seg[SEG_CS], CS_RETURN, &cs));
	cpu->seg[SEG_CS] = cs;
	return STOP_OK;
}

static enum stop push_error(struct env *e, const struct task *t, u32 error)
{
	struct cpu *cpu = e->cpu;
	struct stack s = stack_current(cpu);
	struct frame f;

	frame_init(&f);
	frame_push(&f, error, t->wide ? 4 : 2);
	TRY(frame_map(e, &s, &f));
	TRY(env_begin(e));
	TRY(frame_store(e, &f));
	cpu->regs[GPR_RSP] = f.sp;
	return STOP_OK;
}

static enum stop start_task(struct env *e, const struct task_request *r, const struct task *t)
{
	struct cpu *cpu = e->cpu;

	if (t->wide && (cpu->cr0 & CR0_PG))
		TRY(control_set_cr3(cpu, t->cr3));
	TRY(as_ts(cpu, load_segments(e, t), r->ext));
	cpu_update(cpu);
	TRY(cs_check_rip(cpu, &cpu->seg[SEG_CS], t->eip, r->ext));
	if (r->has_error)
		TRY(push_error(e, t, r->error));
	if (!t->trap) {
		check_virtual_interrupt(cpu);
		return STOP_OK;
	}
	cpu_raise(cpu, EXC_DB);
	cpu->exc.has_payload = true;
	cpu->exc.payload = DR6_BT;
	return STOP_EXC;
}

enum stop task_switch(struct env *e, u16 sel, enum task_why why, u32 ext, bool has_error, u32 error,
	u64 rip)
{
	struct task_request r = {sel, why, ext, has_error, error, (u32)rip};
	struct task t;
	struct desc d;

	TRY(check_target(e, &r, &d));
	TRY(read_task(e, &d, &t));
	TRY(prove_old(e));
	TRY(desc_prove_bits(e, sel, &d, TSS_BUSY));
	if (why == TASK_CALL || why == TASK_GATE)
		TRY(env_prove_system(e, desc_base(&d), 2, MMU_W));
	TRY(write_tables(e, &r, &d));
	enter_task(e->cpu, &r, &d, &t);
	return start_task(e, &r, &t);
}
