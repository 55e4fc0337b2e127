/* SPDX-License-Identifier: MIT */
/*
 * For the unit tests of this folder: a VM that is a settable clock, a queue of timers and
 * a record of what the chips asked for.
 */
#ifndef ANYKVM_IRQ_FAKE_H
#define ANYKVM_IRQ_FAKE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "irq/irq_impl.h"

#define FAKE_VCPUS 300

struct fake {
	struct irqchip *c;
	u64 ns;
	struct irq_timer *queue; /* unsorted */
	unsigned int kicks[FAKE_VCPUS], nmis[FAKE_VCPUS], smis[FAKE_VCPUS], inits[FAKE_VCPUS];
	int sipi[FAKE_VCPUS];	  /* vector + 1, 0: none */
	int eoi_exit;		  /* vector + 1 */
	unsigned int acked[IRQ_GSI_MAX];
	void (*on_acked)(struct fake *f, unsigned int gsi);
	void (*on_kick)(struct fake *f); /* the vCPU is faster than who kicks it */
	unsigned int fires;
};

static inline void fake_kick(void *vm, unsigned int v)
{
	struct fake *f = vm;

	__atomic_fetch_add(&f->kicks[v], 1, __ATOMIC_RELAXED);
	if (f->on_kick)
		f->on_kick(f);
}
static inline void fake_nmi(void *vm, unsigned int v)
{
	((struct fake *)vm)->nmis[v]++;
}
static inline void fake_smi(void *vm, unsigned int v)
{
	((struct fake *)vm)->smis[v]++;
}
static inline void fake_init(void *vm, unsigned int v)
{
	((struct fake *)vm)->inits[v]++;
}
static inline void fake_sipi(void *vm, unsigned int v, u8 vector)
{
	((struct fake *)vm)->sipi[v] = vector + 1;
}
static inline void fake_eoi_exit(void *vm, unsigned int v, u8 vector)
{
	(void)v;
	((struct fake *)vm)->eoi_exit = vector + 1;
}
static inline void fake_acked(void *vm, unsigned int gsi)
{
	struct fake *f = vm;

	__atomic_fetch_add(&f->acked[gsi], 1, __ATOMIC_RELAXED);
	if (f->on_acked)
		f->on_acked(f, gsi);
}
static inline u64 fake_now(void *vm)
{
	return __atomic_load_n(&((struct fake *)vm)->ns, __ATOMIC_RELAXED);
}
/* A TSC of 2 GHz that was 0 at time 0. */
static inline u64 fake_tsc_ns(void *vm, unsigned int v, u64 tsc)
{
	(void)vm;
	(void)v;
	return tsc / 2;
}

static pthread_mutex_t fake_lock = PTHREAD_MUTEX_INITIALIZER;

/* pos is 1 while queued. */
static inline void fake_unlink(struct fake *f, struct irq_timer *t)
{
	if (!t->pos)
		return;
	if (t->prev)
		t->prev->next = t->next;
	else
		f->queue = t->next;
	if (t->next)
		t->next->prev = t->prev;
	t->pos = 0;
}
static inline void fake_disarm(void *vm, struct irq_timer *t)
{
	pthread_mutex_lock(&fake_lock);
	fake_unlink(vm, t);
	pthread_mutex_unlock(&fake_lock);
}
static inline void fake_arm(void *vm, struct irq_timer *t, u64 deadline_ns)
{
	struct fake *f = vm;

	pthread_mutex_lock(&fake_lock);
	fake_unlink(f, t);
	t->deadline_ns = deadline_ns;
	t->pos = 1;
	t->prev = NULL;
	t->next = f->queue;
	if (t->next)
		t->next->prev = t;
	f->queue = t;
	pthread_mutex_unlock(&fake_lock);
}

/* Earliest timer due at f->ns, unlinked, or NULL. */
static inline struct irq_timer *fake_due(struct fake *f)
{
	struct irq_timer *best = NULL;

	pthread_mutex_lock(&fake_lock);
	for (struct irq_timer *t = f->queue; t; t = t->next)
		if (t->deadline_ns <= fake_now(f) &&
			(!best || t->deadline_ns < best->deadline_ns))
			best = t;
	if (best)
		fake_unlink(f, best);
	pthread_mutex_unlock(&fake_lock);
	return best;
}
static inline void fake_run(struct fake *f)
{
	struct irq_timer *t;

	while ((t = fake_due(f))) {
		f->fires++;
		t->fire(t);
	}
}
static inline void fake_advance(struct fake *f, u64 ns)
{
	__atomic_fetch_add(&f->ns, ns, __ATOMIC_RELAXED);
	fake_run(f);
}

static const struct irqchip_ops fake_ops = {
	.kick = fake_kick,
	.nmi = fake_nmi,
	.smi = fake_smi,
	.init = fake_init,
	.sipi = fake_sipi,
	.eoi_exit = fake_eoi_exit,
	.acked = fake_acked,
	.now_ns = fake_now,
	.tsc_deadline_ns = fake_tsc_ns,
	.arm = fake_arm,
	.disarm = fake_disarm,
};

/* A chip with n LAPICs, software-enabled; vCPU 0 is the BSP; x2APIC and TSC deadline exist. */
static inline struct lapic *fake_start(
	struct fake *f, enum irqchip_kind kind, unsigned int pins, unsigned int n)
{
	memset(f, 0, sizeof(*f));
	f->ns = 1000;
	f->c = irqchip_create(kind, pins, &fake_ops, f);
	for (unsigned int i = 0; i < n; i++) {
		struct lapic *l = lapic_create(f->c, i, i, i == 0);
		u32 spiv = 0x1ff;

		lapic_set_features(l, 46, true, true);
		assert_int_equal(lapic_mmio_write(l, gpa(LAPIC_BASE + APIC_SPIV), 4, &spiv), 0);
	}
	return lapic_of(f->c, 0);
}
static inline void fake_stop(struct fake *f)
{
	irqchip_destroy(f->c);
}

static inline void lw(struct lapic *l, u32 offset, u32 v)
{
	assert_int_equal(lapic_mmio_write(l, gpa(LAPIC_BASE + offset), 4, &v), 0);
}
static inline u32 lr(struct lapic *l, u32 offset)
{
	u32 v;

	assert_int_equal(lapic_mmio_read(l, gpa(LAPIC_BASE + offset), 4, &v), 0);
	return v;
}
static inline void fake_x2apic(struct lapic *l)
{
	assert_true(lapic_set_base(l, lapic_get_base(l) | APIC_BASE_X2APIC, false));
}

/* Write redirection entry `pin`. */
static inline void fake_redir(struct fake *f, unsigned int pin, u64 e)
{
	for (u32 half = 0; half < 2; half++) {
		u32 select = 0x10 + 2 * pin + (1 - half), v = (u32)(e >> (half ? 0 : 32));

		ioapic_write(f->c, 0x00, 4, &select);
		ioapic_write(f->c, 0x10, 4, &v);
	}
}
static inline u64 fake_redir_read(struct fake *f, unsigned int pin)
{
	u64 e = 0;

	for (u32 half = 0; half < 2; half++) {
		u32 select = 0x10 + 2 * pin + half, v;

		ioapic_write(f->c, 0x00, 4, &select);
		ioapic_read(f->c, 0x10, 4, &v);
		e |= (u64)v << (32 * half);
	}
	return e;
}

/* Initialise the PICs as a PC does: vectors from `base`, all lines unmasked. */
static inline void fake_pic_init(struct fake *f, u8 base, u8 icw4)
{
	pic_write(f->c, 0x20, 0x11);
	pic_write(f->c, 0x21, base);
	pic_write(f->c, 0x21, 4);
	pic_write(f->c, 0x21, icw4);
	pic_write(f->c, 0xa0, 0x11);
	pic_write(f->c, 0xa1, base + 8);
	pic_write(f->c, 0xa1, 2);
	pic_write(f->c, 0xa1, 1);
	pic_write(f->c, 0x21, 0);
	pic_write(f->c, 0xa1, 0);
}

#endif
