/* SPDX-License-Identifier: MIT */
/* Private to cpu/: what surrounds one instruction when TF, breakpoints or a debugger are in force. */
#ifndef ANYKVM_STEP_H
#define ANYKVM_STEP_H

#include "cpu/cpu.h"

/*
 * The instruction has retired with `stop` (STOP_OK or STOP_LEAVE). tf: EFLAGS.TF before it.
 * Takes the traps that follow it: single step, data breakpoints, the debugger's step.
 */
MUSTCHECK enum stop step_after(struct cpu *cpu, bool tf, enum stop stop);

/* What the instruction's completion makes of EFLAGS.RF, and of the TF before it. */
void step_rf(struct cpu *cpu);
bool step_tf(const struct cpu *cpu, bool tf_before);

/* cpu->exc was raised. true: it belongs to the debugger, cpu->leave is LEAVE_DEBUG. */
bool step_intercept(struct cpu *cpu);

/* Deliver cpu->event (KVM_INTERRUPT, KVM_SET_VCPU_EVENTS, traps of emulated instructions). */
MUSTCHECK enum stop cpu_inject(struct cpu *cpu);

#endif
