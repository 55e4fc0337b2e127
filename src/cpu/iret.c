// SPDX-License-Identifier: MIT
/* IRET in all its modes: SDM 2A IRET, SDM 3A 6.12.1, 6.14.3, 20.2.2 (V86). */
#include "cpu/system.h"

#include <string.h>

/* What IRET pops, widened. */
struct iret_frame {
	u64 rip, cs, eflags, rsp, ss;
};

static u64 item(const u8 *p, unsigned int k, unsigned int size)
{
	u64 v = 0;

	memcpy(&v, p + k * size, size);
	return v;
}

static enum stop pop_frame(struct env *e, const struct stack *s, u8 osz, struct iret_frame *f)
{
	u8 raw[24];

	TRY(stack_read(e, s, 0, 3 * osz, osz, raw));
	f->rip = item(raw, 0, osz);
	f->cs = item(raw, 1, osz);
	f->eflags = item(raw, 2, osz);
	return STOP_OK;
}

/* The rest of it, if the return is to an outer level, or from 64-bit mode. */
static enum stop pop_outer(struct env *e, const struct stack *s, u8 osz, struct iret_frame *f)
{
	u8 raw[16];

	TRY(stack_read(e, s, 3 * osz, 2 * osz, osz, raw));
	f->rsp = item(raw, 0, osz);
	f->ss = item(raw, 1, osz);
	return STOP_OK;
}

/* Commit, common: NMIs are no longer blocked (SDM 3A 6.7.1). */
static void unblock_nmi(struct cpu *cpu)
{
	if (!cpu->nmi_blocked)
		return;
	cpu->nmi_blocked = false;
	cpu->ops->nmi_unmasked(cpu);
}

static void merge_eflags(struct cpu *cpu, u64 v, u64 mask)
{
	eflags_store(cpu, (cpu_eflags(cpu) & ~mask) | (v & mask));
}

#define IRET16 (EFL_ARITH | EFL_TF | EFL_IF | EFL_DF | EFL_IOPL | EFL_NT)
#define IRET32 (IRET16 | EFL_RF | EFL_AC | EFL_ID)

/* Real mode, and V86 (where IOPL itself stays) with IOPL 3, or with VME. */
static enum stop iret_real(struct cpu *cpu, struct env *e, u8 osz)
{
	struct stack s = stack_current(cpu);
	u64 mask = osz == 2 ? IRET16 : IRET32;
	bool low = cpu_v86(cpu) && cpu_iopl(cpu) < 3;
	struct iret_frame f;

	if (low && !(osz == 2 && cpu_virtual_if(cpu)))
		return cpu_gp(cpu, 0);
	if (cpu_v86(cpu))
		mask &= ~EFL_IOPL;
	TRY(pop_frame(e, &s, osz, &f));
	if (f.rip > cpu->seg[SEG_CS].limit)
		return cpu_gp(cpu, 0);
	if (low) {
		TRY(flags_pop_virtual(cpu, f.eflags, &f.eflags));
		mask = ~0ull;
	}

	cpu->regs[GPR_RSP] = stack_add(&s, 3 * osz);
	cpu->seg[SEG_CS] = seg_real(cpu, &cpu->seg[SEG_CS], f.cs);
	cpu->next_rip = f.rip;
	merge_eflags(cpu, f.eflags, mask);
	unblock_nmi(cpu);
	cpu_update(cpu);
	return STOP_OK;
}

/* SDM 3A 20.2.2: the frame of a V86 task at CPL 0: EIP CS EFLAGS ESP SS ES DS FS GS. */
static enum stop iret_to_v86(struct cpu *cpu, struct env *e, const struct stack *s,
	const struct iret_frame *f)
{
	static const u8 order[] = {SEG_SS, SEG_ES, SEG_DS, SEG_FS, SEG_GS};
	u32 rest[6];

	TRY(stack_read(e, s, 12, sizeof(rest), 4, rest));
	if (f->rip > 0xffff)
		return cpu_gp(cpu, 0);

	eflags_store(cpu, f->eflags & EFL_VALID);
	cpu->regs[GPR_RSP] = rest[0];
	cpu->seg[SEG_CS] = seg_real(cpu, &cpu->seg[SEG_CS], f->cs);
	for (unsigned int k = 0; k < ARRAY_SIZE(order); k++)
		cpu->seg[order[k]] = seg_real(cpu, &cpu->seg[order[k]], rest[1 + k]);
	cpu->next_rip = (u16)f->rip;
	unblock_nmi(cpu);
	cpu_update(cpu);
	check_virtual_interrupt(cpu);
	return STOP_OK;
}

/* Flags that a return from privilege level cpl may change. */
static u64 iret_mask(const struct cpu *cpu, u8 osz)
{
	u64 mask = osz == 2 ? IRET16 : IRET32;

	if (cpu->cpl)
		mask &= ~EFL_IOPL;
	else if (osz > 2)
		mask |= EFL_VIF | EFL_VIP;
	if (cpu->cpl > cpu_iopl(cpu))
		mask &= ~EFL_IF;
	return mask;
}

static void commit_return(struct cpu *cpu, const struct iret_frame *f, const struct segment *cs,
	const struct segment *ss, u64 rsp, u8 osz)
{
	u8 cpl = SEL_RPL(f->cs), old = cpu->cpl;

	merge_eflags(cpu, f->eflags, iret_mask(cpu, osz));
	cpu->seg[SEG_CS] = *cs;
	cpu->seg[SEG_SS] = *ss;
	cpu->regs[GPR_RSP] = rsp;
	cpu->next_rip = f->rip;
	if (cpl > old)
		seg_drop_inner(cpu, cpl);
	unblock_nmi(cpu);
	cpu_update(cpu);
	check_virtual_interrupt(cpu);
}

static enum stop iret_prot(struct cpu *cpu, struct env *e, u8 osz)
{
	bool m64 = cpu->mode == MODE_64;
	struct stack s = stack_current(cpu);
	struct segment cs, ss = cpu->seg[SEG_SS];
	struct iret_frame f;
	u64 rsp;

	TRY(pop_frame(e, &s, osz, &f));
	if (m64)
		TRY(pop_outer(e, &s, osz, &f));
	if (!m64 && osz == 4 && (f.eflags & EFL_VM) && !cpu->cpl && !cpu->long_mode)
		return iret_to_v86(cpu, e, &s, &f);
	TRY(cs_prepare(e, f.cs, CS_RETURN, &cs));
	TRY(cs_check_rip(cpu, &cs, f.rip, 0));
	if (!m64 && SEL_RPL(f.cs) == cpu->cpl) {
		commit_return(cpu, &f, &cs, &ss, stack_add(&s, 3 * osz), osz);
		return STOP_OK;
	}
	if (!m64)
		TRY(pop_outer(e, &s, osz, &f));
	TRY(ss_prepare_return(e, f.ss, SEL_RPL(f.cs), cs_is_64(cpu, &cs), &ss));
	rsp = return_rsp(cpu, &cs, &ss, f.rsp);
	commit_return(cpu, &f, &cs, &ss, rsp, osz);
	return STOP_OK;
}

/* NT: return to the task that the back link of the TSS names. */
static enum stop iret_task(struct cpu *cpu, struct env *e)
{
	u16 link;

	TRY(env_read_system(e, cpu->tr.base, 2, &link));
	if (link & SEL_TI)
		return cpu_raise_error(cpu, EXC_TS, sel_error(link, 0));
	return task_switch(e, link, TASK_IRET, 0, false, 0, cpu->next_rip);
}

enum stop exec_iret(struct cpu *cpu, const struct insn *i, struct env *e)
{
	TRY(env_check_ac(e, SEG_SS, cpu->regs[GPR_RSP] & stack_mask(cpu), i->osz, i->osz));
	if (i->osz != 2)
		cpu->completion = DONE_IRET;
	if (!cpu_prot(cpu))
		return iret_real(cpu, e, i->osz);
	if (cpu->eflags & EFL_NT)
		return cpu->long_mode ? cpu_gp(cpu, 0) : iret_task(cpu, e);
	return iret_prot(cpu, e, i->osz);
}
