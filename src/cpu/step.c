// SPDX-License-Identifier: MIT
/*
 * Traps behind an instruction (SDM 3A 6.9 priority 3, 17.3.1): #DB of TF and of data
 * breakpoints, or KVM_EXIT_DEBUG when a debugger of the VMM asked for them.
 */
#include "cpu/step.h"

static struct exception debug_trap(u64 bits)
{
	return (struct exception){.vector = EXC_DB, .has_payload = true, .payload = bits};
}

static enum stop leave_debug(struct cpu *cpu, u64 bits)
{
	cpu->exc = debug_trap(bits);
	cpu->leave = LEAVE_DEBUG;
	return STOP_LEAVE;
}

/* DR6 bits of the traps that this instruction has earned. MOV SS holds them back. */
static u64 trap_bits(struct cpu *cpu, bool tf)
{
	u64 bits = cpu->data_hits;

	if (cpu->shadow_ss)
		return 0;
	cpu->data_hits = 0;
	return bits | (tf ? DR6_BS : 0);
}

/* RF ends with the instruction; between iterations of a REP it is set (SDM 3A 17.3.1.1). */
void step_rf(struct cpu *cpu)
{
	if (cpu->completion == DONE_PART)
		cpu->eflags |= EFL_RF;
	else if (cpu->completion != DONE_IRET)
		cpu->eflags &= ~EFL_RF;
	if (cpu->completion == DONE_PART || (cpu->request & REQ_STEP))
		cpu_update(cpu); /* REQ_STEP is as it was while there was a shadow or RF */
}

/*
 * Does TF trap behind this instruction? TF as it was before counts, but an INT n has cleared it
 * for its handler (SDM 3A 17.3.1.4), and a kernel keeps the trap out of its SYSCALL entry by FMASK.
 */
bool step_tf(const struct cpu *cpu, bool tf_before)
{
	if (cpu->completion == DONE_EVENT)
		return false;
	return cpu->completion == DONE_TF_NOW ? cpu->eflags & EFL_TF : tf_before;
}

enum stop step_after(struct cpu *cpu, bool tf, enum stop stop)
{
	u64 bits = trap_bits(cpu, tf);
	struct exception x;

	if (cpu->guest_debug_step && (stop == STOP_OK || cpu->leave == LEAVE_HLT))
		return leave_debug(cpu, bits | DR6_BS);
	if (!bits)
		return stop;
	if (cpu->guest_debug_hw && (bits & 0xf))
		return leave_debug(cpu, bits);
	if (stop == STOP_LEAVE && cpu->leave != LEAVE_HLT) {
		cpu->event.pending = true; /* after whoever is called has done its part */
		cpu->event.exc = debug_trap(bits);
		cpu_request(cpu, REQ_EVENT);
		return stop;
	}
	cpu->event.pending = false; /* check_virtual_interrupt: that instruction is not begun */
	x = debug_trap(bits);
	return cpu_deliver(cpu, EVENT_EXC, &x);
}

bool step_intercept(struct cpu *cpu)
{
	bool bp = cpu->exc.vector == EXC_BP && cpu->guest_debug_sw;
	bool hw = cpu->exc.vector == EXC_DB && cpu->guest_debug_hw;

	if (!bp && !hw)
		return false;
	cpu->leave = LEAVE_DEBUG;
	return true;
}

/* The instruction was completed outside cpu_run: count it, take what follows it (SEED rule 29). */
void cpu_retire(struct cpu *cpu, bool tf)
{
	u64 bits;

	cpu->insns++;
	cpu->shadow = cpu->shadow_ss = false;
	step_rf(cpu);
	bits = trap_bits(cpu, step_tf(cpu, tf));
	if (cpu->guest_debug_step)
		bits |= DR6_BS;
	if (!bits || cpu->event.pending)
		return;
	cpu->event.pending = true;
	cpu->event.soft = cpu->event.is_irq = cpu->event.is_nmi = false;
	cpu->event.exc = debug_trap(bits);
	cpu_request(cpu, REQ_EVENT);
}

enum stop cpu_inject(struct cpu *cpu)
{
	struct exception x = cpu->event.exc;
	enum event_type type = cpu->event.is_nmi ? EVENT_NMI
			       : cpu->event.is_irq ? EVENT_IRQ
			       : cpu->event.soft ? EVENT_SOFT
						 : EVENT_EXC;

	cpu->event.pending = false;
	cpu_unrequest(cpu, REQ_EVENT);
	cpu->exc = x;
	if (type == EVENT_EXC && x.vector == EXC_DB && cpu->guest_debug_step) {
		cpu->leave = LEAVE_DEBUG;
		return STOP_LEAVE;
	}
	if (type == EVENT_SOFT)
		cpu->next_rip = cpu->rip + cpu->event.insn_len;
	return cpu_deliver(cpu, type, &x);
}
