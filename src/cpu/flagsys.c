// SPDX-License-Identifier: MIT
/*
 * Instructions on the system flags: CLI STI CLAC STAC PUSHF POPF, and HLT. IOPL rules:
 * SDM 3A 5.8; virtual interrupts (CR4.VME, CR4.PVI): SDM 3A 20.3, 20.4.
 */
#include "cpu/system.h"

bool cpu_virtual_if(const struct cpu *cpu)
{
	if (cpu->cpl < 3 || cpu_iopl(cpu) == 3)
		return false;
	return cpu->cr4 & (cpu_v86(cpu) ? CR4_VME : CR4_PVI);
}

u64 flags_virtual(u64 eflags)
{
	return (eflags & ~EFL_IF) | EFL_IOPL | (eflags & EFL_VIF ? EFL_IF : 0);
}

void check_virtual_interrupt(struct cpu *cpu)
{
	u64 both = EFL_VIF | EFL_VIP;

	if ((cpu->eflags & both) != both || !cpu_virtual_if(cpu))
		return;
	cpu->event.pending = true;
	cpu->event.soft = cpu->event.is_irq = cpu->event.is_nmi = false;
	cpu->event.exc = (struct exception){.vector = EXC_GP, .has_error = true};
	cpu_request(cpu, REQ_EVENT);
}

enum stop exec_cli(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	if (cpu->cpl <= cpu_iopl(cpu)) {
		cpu->eflags &= ~EFL_IF;
		cpu_update(cpu);
		return STOP_OK;
	}
	if (!cpu_virtual_if(cpu))
		return cpu_gp(cpu, 0);
	cpu->eflags &= ~EFL_VIF;
	return STOP_OK;
}

/* The instruction behind STI still runs before an interrupt is taken (SDM 2B STI). */
enum stop exec_sti(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	if (cpu->cpl <= cpu_iopl(cpu)) {
		if (!(cpu->eflags & EFL_IF))
			cpu->shadow = true;
		cpu->eflags |= EFL_IF;
		cpu_update(cpu);
		return STOP_OK;
	}
	if (!cpu_virtual_if(cpu) || (cpu->eflags & EFL_VIP))
		return cpu_gp(cpu, 0);
	cpu->eflags |= EFL_VIF;
	return STOP_OK;
}

static enum stop set_ac(struct cpu *cpu, bool on)
{
	if (cpu->cpl)
		return cpu_ud(cpu);
	cpu->eflags = on ? cpu->eflags | EFL_AC : cpu->eflags & ~EFL_AC;
	cpu_update(cpu);
	return STOP_OK;
}

enum stop exec_clac(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return set_ac(cpu, false);
}

enum stop exec_stac(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	return set_ac(cpu, true);
}

/* What PUSHF stores: VM and RF as 0. In V86 with VME, VIF stands in for IF and IOPL reads 3. */
enum stop exec_pushf(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 v = cpu_eflags(cpu) & ~(EFL_VM | EFL_RF);
	struct access a;

	if (cpu_v86(cpu) && cpu_iopl(cpu) < 3) {
		if (!(cpu->cr4 & CR4_VME) || i->osz != 2)
			return cpu_gp(cpu, 0);
		v = flags_virtual(v);
	}
	TRY(stack_map_push(e, &a, 0, i->osz));
	TRY(env_begin(e));
	access_set(&a, v);
	TRY(env_flush(e, &a));
	stack_move(cpu, -(s64)i->osz);
	return STOP_OK;
}

#define POPF16 (EFL_ARITH | EFL_TF | EFL_DF | EFL_NT)
#define POPF32 (POPF16 | EFL_AC | EFL_ID)

static u64 popf_mask(const struct cpu *cpu, u8 osz)
{
	u64 mask = osz == 2 ? POPF16 : POPF32;

	if (cpu->cpl <= cpu_iopl(cpu))
		mask |= EFL_IF;
	if (cpu->cpl == 0)
		mask |= EFL_IOPL;
	return mask;
}

/* The V86 task's own IF is VIF. */
enum stop flags_pop_virtual(struct cpu *cpu, u64 image, u64 *eflags)
{
	u64 old = cpu_eflags(cpu);

	if ((image & EFL_TF) || ((image & EFL_IF) && (old & EFL_VIP)))
		return cpu_gp(cpu, 0);
	*eflags = (old & ~(POPF16 | EFL_VIF)) | (image & POPF16) | (image & EFL_IF ? EFL_VIF : 0);
	return STOP_OK;
}

enum stop exec_popf(struct cpu *cpu, const struct insn *i, struct env *e)
{
	bool vme = cpu_v86(cpu) && cpu_iopl(cpu) < 3;
	u64 mask = popf_mask(cpu, i->osz), v;
	struct access a;

	if (vme && (!(cpu->cr4 & CR4_VME) || i->osz != 2))
		return cpu_gp(cpu, 0);
	TRY(stack_map_pop(e, &a, 0, i->osz));
	TRY(env_begin(e));
	v = access_get(&a);
	if (vme)
		TRY(flags_pop_virtual(cpu, v, &v));
	else
		v = (cpu_eflags(cpu) & ~mask) | (v & mask);
	stack_move(cpu, i->osz);
	cpu_set_eflags(cpu, v & ~EFL_RF);
	return STOP_OK;
}

/* Retires, then the caller waits for what wakes a halted processor. */
enum stop exec_hlt(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	cpu->leave = LEAVE_HLT;
	return STOP_LEAVE;
}
