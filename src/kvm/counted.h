/* SPDX-License-Identifier: MIT */
/*
 * Counted time (ANYKVM_CLOCK=instructions): the guest's time is the number of instructions that
 * it has executed, and a guest that halts skips to its next timer. Two runs of the same guest are
 * then the same run, interrupt by interrupt, as long as its VMM does the same: their counts can be
 * compared exactly. For machines of one vCPU.
 */
#ifndef ANYKVM_KVM_COUNTED_H
#define ANYKVM_KVM_COUNTED_H

#include "kvm/timers.h"
#include "kvm/vm.h"

#include <time.h>

struct cpu;

#define COUNTED_TSC_KHZ 1000000 /* the TSC counts nanoseconds */

/* Was it asked for? The same for all VMs of the process. */
bool counted_wanted(void);

/* NULL: no memory. */
struct counted *counted_create(void);
void counted_free(struct counted *c);

/* From now on this processor's instructions count. At its creation. */
void counted_follow(struct counted *c, struct cpu *cpu);

u64 counted_ns(struct counted *c); /* never steps back. Any thread */
u64 counted_realtime_ns(struct counted *c); /* CLOCK_REALTIME of the guest: begins at a fixed date */

/* As irq.h's ops arm and disarm. */
void counted_arm(struct counted *c, struct irq_timer *t, u64 deadline_ns);
void counted_disarm(struct counted *c, struct irq_timer *t);

/* Fire what is due. Owner of the vCPU, when cpu_run was left. */
void counted_fire(struct counted *c);
/* The vCPU is halted: go to the next timer and fire it. false: there is none. Owner. */
bool counted_skip(struct counted *c);

#endif
