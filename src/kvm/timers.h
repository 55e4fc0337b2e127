/* SPDX-License-Identifier: MIT */
/* Armed timers, the earliest first: a binary heap. Its user holds a lock around each call. */
#ifndef ANYKVM_KVM_TIMERS_H
#define ANYKVM_KVM_TIMERS_H

#include "irq/irq.h"

struct timers {
	struct irq_timer **heap; /* by deadline_ns; timer->pos = place + 1, 0 when not armed */
	size_t nr, room;
};

MUSTCHECK bool timers_init(struct timers *t); /* false: no memory */
void timers_free(struct timers *t);

/* NULL: none is armed. */
static inline struct irq_timer *timers_first(const struct timers *t)
{
	return t->nr ? t->heap[0] : NULL;
}

/* Arm, or move one that is armed. false: no memory, it is not armed. */
bool timers_arm(struct timers *t, struct irq_timer *x, u64 deadline_ns);
void timers_disarm(struct timers *t, struct irq_timer *x); /* may be disarmed already */

#endif
