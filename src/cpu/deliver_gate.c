// SPDX-License-Identifier: MIT
/*
 * One event through the IVT (real mode), a 16/32-bit gate, or a 64-bit gate:
 * SDM 3A 6.12, 6.14, 20.1.4, 20.3; SDM 2A INT n. Proves everything, then commits.
 */
#include "cpu/system.h"

#include <string.h>

/* Error code that names an IDT entry: SDM 3A 6.13. */
static u32 idt_error(const struct delivery *d)
{
	return d->vector * 8 | ERR_IDT | d->ext;
}

/* Through the interrupt vector table at `table`, clearing these flags. */
static enum stop deliver_ivt(struct env *e, const struct delivery *d, u64 table, u64 clear)
{
	struct cpu *cpu = e->cpu;
	struct stack s = stack_current(cpu);
	struct frame f;
	u16 target[2];

	TRY(env_read_system(e, table + d->vector * 4, 4, target));
	frame_init(&f);
	frame_push(&f, d->eflags, 2);
	frame_push(&f, cpu->seg[SEG_CS].sel, 2);
	frame_push(&f, d->rip, 2);
	TRY(frame_map(e, &s, &f));
	TRY(env_begin(e));
	TRY(frame_store(e, &f));

	cpu->regs[GPR_RSP] = f.sp;
	cpu->seg[SEG_CS] = seg_real(cpu, &cpu->seg[SEG_CS], target[1]);
	cpu->eflags &= ~clear;
	cpu->next_rip = target[0];
	cpu_update(cpu);
	return STOP_OK;
}

enum stop deliver_real(struct env *e, const struct delivery *d)
{
	struct cpu *cpu = e->cpu;

	if (d->vector * 4u + 3 > cpu->idtr.limit)
		return cpu_gp(cpu, idt_error(d));
	return deliver_ivt(e, d, cpu->idtr.base, EFL_IF | EFL_TF | EFL_AC | EFL_RF);
}

/* SDM 3A table 20-2, methods 5 and 6: below IOPL 3 the task's IF is VIF, and its IOPL reads 3. */
enum stop deliver_v86(struct env *e, const struct delivery *d)
{
	bool virtual = cpu_virtual_if(e->cpu);
	struct delivery own = *d;

	if (virtual)
		own.eflags = flags_virtual(d->eflags);
	return deliver_ivt(e, &own, 0, (virtual ? EFL_VIF : EFL_IF) | EFL_TF | EFL_RF);
}

/* Read and check the gate of d->vector. */
static enum stop gate_read(struct env *e, const struct delivery *d, struct desc *gate)
{
	struct cpu *cpu = e->cpu;
	u32 size = cpu->long_mode ? 16 : 8;
	u64 raw[2] = {0, 0};
	u8 type;

	if (d->vector * size + size - 1 > cpu->idtr.limit)
		return cpu_gp(cpu, idt_error(d));
	TRY(env_read_system(e, cpu->idtr.base + d->vector * size, size, raw));
	gate->lo = raw[0];
	gate->hi = (u32)raw[1];
	type = desc_type(gate);
	if (desc_s(gate) || (type & 6) != 6) {
		if (desc_s(gate) || type != DESC_TASK || cpu->long_mode)
			return cpu_gp(cpu, idt_error(d));
	} else if (cpu->long_mode && !(type & 8)) {
		return cpu_gp(cpu, idt_error(d));
	}
	if (d->soft && desc_dpl(gate) < cpu->cpl)
		return cpu_gp(cpu, idt_error(d));
	return desc_p(gate) ? STOP_OK : cpu_raise_error(cpu, EXC_NP, idt_error(d));
}

/* The handler's code segment and the privilege level it will run at. */
static enum stop handler_cs(struct env *e, u16 sel, u32 ext, struct segment *cs, u8 *cpl)
{
	struct cpu *cpu = e->cpu;
	struct desc d;

	if (SEL_NULL(sel))
		return cpu_gp(cpu, ext);
	TRY(desc_read(e, sel, EXC_GP, ext, &d));
	if (!desc_is_code(&d) || desc_dpl(&d) > cpu->cpl)
		return cpu_gp(cpu, sel_error(sel, ext));
	if (cpu->long_mode && (!desc_l(&d) || desc_db(&d)))
		return cpu_gp(cpu, sel_error(sel, ext));
	if (!desc_p(&d))
		return cpu_raise_error(cpu, EXC_NP, sel_error(sel, ext));
	*cpl = desc_is_conforming(&d) ? cpu->cpl : desc_dpl(&d);
	if (cpu_v86(cpu) && *cpl)
		return cpu_gp(cpu, sel_error(sel, ext));
	TRY(desc_set_bits(e, sel, &d, TYPE_ACCESSED));
	*cs = seg_from_desc((sel & ~3) | *cpl, &d);
	return STOP_OK;
}

/* SDM 3A 20.3.1: out of V86 the data segments are pushed and then null. */
static void push_v86_segments(const struct cpu *cpu, struct frame *f, u32 size)
{
	static const u8 order[] = {SEG_GS, SEG_FS, SEG_DS, SEG_ES};

	for (unsigned int k = 0; k < ARRAY_SIZE(order); k++)
		frame_push(f, cpu->seg[order[k]].sel, size);
}

static void drop_v86_segments(struct cpu *cpu)
{
	cpu->seg[SEG_ES] = cpu->seg[SEG_DS] = cpu->seg[SEG_FS] = cpu->seg[SEG_GS] = seg_null(0, 0);
}

static void build_frame(const struct cpu *cpu, const struct delivery *d, struct frame *f, u32 size,
	bool inner)
{
	frame_init(f);
	if (cpu_v86(cpu))
		push_v86_segments(cpu, f, size);
	if (inner) {
		frame_push(f, cpu->seg[SEG_SS].sel, size);
		frame_push(f, cpu->regs[GPR_RSP], size);
	}
	frame_push(f, d->eflags, size);
	frame_push(f, cpu->seg[SEG_CS].sel, size);
	frame_push(f, d->rip, size);
	if (d->has_error)
		frame_push(f, d->error, size);
}

/* Commit of a gate in protected or long mode. */
static void enter_handler(struct cpu *cpu, const struct desc *gate, const struct segment *cs, u64 rip)
{
	bool v86 = cpu_v86(cpu);

	cpu->seg[SEG_CS] = *cs;
	cpu->eflags &= ~(EFL_TF | EFL_NT | EFL_RF | EFL_VM);
	if (!(desc_type(gate) & 1)) /* interrupt gates have even types */
		cpu->eflags &= ~EFL_IF;
	if (v86)
		drop_v86_segments(cpu);
	cpu->next_rip = rip;
	cpu_update(cpu);
}

enum stop deliver_prot(struct env *e, const struct delivery *d)
{
	struct cpu *cpu = e->cpu;
	struct segment cs, ss = cpu->seg[SEG_SS];
	struct desc gate;
	struct stack s;
	struct frame f;
	u64 rip, sp;
	bool inner;
	u8 cpl;

	TRY(gate_read(e, d, &gate));
	if (desc_type(&gate) == DESC_TASK)
		return task_switch(e, gate_sel(&gate), TASK_GATE, d->ext, d->has_error, d->error,
			d->rip);
	TRY(handler_cs(e, gate_sel(&gate), d->ext, &cs, &cpl));
	inner = cpl < cpu->cpl;
	s = stack_current(cpu);
	s.error = d->ext;
	if (inner) {
		TRY(tss_stack(e, cpl, d->ext, &ss, &sp));
		s = stack_make(cpu, &ss, sp, cpl, false);
		s.error = sel_error(ss.sel, d->ext);
	}
	rip = gate_offset(&gate, false, desc_type(&gate) & 8);
	TRY(cs_check_rip(cpu, &cs, rip, d->ext));
	build_frame(cpu, d, &f, desc_type(&gate) & 8 ? 4 : 2, inner);
	TRY(frame_map(e, &s, &f));
	TRY(env_begin(e));
	TRY(frame_store(e, &f));

	cpu->regs[GPR_RSP] = f.sp;
	cpu->seg[SEG_SS] = ss;
	enter_handler(cpu, &gate, &cs, rip);
	return STOP_OK;
}

/* SDM 3A 6.14.2, 6.14.5: the stack frame is 16-byte aligned and always has SS:RSP. */
enum stop deliver_long(struct env *e, const struct delivery *d)
{
	struct cpu *cpu = e->cpu;
	struct segment cs, ss = cpu->seg[SEG_SS];
	u64 rip, sp = cpu->regs[GPR_RSP];
	struct desc gate;
	struct stack s;
	struct frame f;
	u8 cpl, ist;

	TRY(gate_read(e, d, &gate));
	TRY(handler_cs(e, gate_sel(&gate), d->ext, &cs, &cpl));
	ist = gate.lo >> 32 & 7;
	if (ist || cpl < cpu->cpl)
		TRY(tss_stack_long(e, cpl, ist, d->ext, &sp));
	if (cpl < cpu->cpl)
		ss = seg_null(cpl, cpl);
	s = stack_make(cpu, &ss, sp & ~15ull, cpl, true);
	s.error = d->ext;
	rip = gate_offset(&gate, true, true);
	TRY(cs_check_rip(cpu, &cs, rip, d->ext));
	build_frame(cpu, d, &f, 8, true);
	TRY(frame_map(e, &s, &f));
	TRY(env_begin(e));
	TRY(frame_store(e, &f));

	cpu->regs[GPR_RSP] = f.sp;
	cpu->seg[SEG_SS] = ss;
	enter_handler(cpu, &gate, &cs, rip);
	return STOP_OK;
}
