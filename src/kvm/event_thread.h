/* SPDX-License-Identifier: MIT */
/*
 * The one thread of a VM that waits in its stead: for deadlines (LAPIC and PIT timers) and for
 * descriptors (irqfds). Made with all signals blocked; takes no lock of vm or vCPU itself.
 */
#ifndef ANYKVM_KVM_EVENT_THREAD_H
#define ANYKVM_KVM_EVENT_THREAD_H

#include "irq/irq.h"

struct event_thread;

struct event_source { /* a descriptor to be polled for input */
	int fd;
	/* From the thread, with no lock held; false: POLLIN is not wanted any more (descriptor went bad). */
	bool (*ready)(struct event_source *s, short revents);
	struct event_source *next; /* the thread's */
};

MUSTCHECK int event_thread_start(struct event_thread **out); /* 0, -ENOMEM, -EMFILE, -ENFILE */
void event_thread_stop(struct event_thread *t);		/* returns when the thread has ended */
void event_thread_free(struct event_thread *t);

/* As irq.h's ops arm and disarm. Any thread, also under locks of irq/. */
void event_arm(struct event_thread *t, struct irq_timer *timer, u64 deadline_ns);
void event_disarm(struct event_thread *t, struct irq_timer *timer);

/* Any thread but the event thread itself. del returns when s->ready is not running any more. */
MUSTCHECK bool event_add(struct event_thread *t, struct event_source *s); /* false: no memory */
void event_del(struct event_thread *t, struct event_source *s);

#endif
