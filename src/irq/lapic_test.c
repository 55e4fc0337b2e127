// SPDX-License-Identifier: MIT
/* LAPIC registers, priorities, EOI, APIC base, reset and the register page. */
#include "irq/irq_fake.h"

#include <errno.h>

static int inject(struct fake *f, unsigned int dest, u8 vector, bool trigger)
{
	struct irq_msg m = { .dest = dest, .vector = vector, .level = true, .trigger = trigger };

	return irq_deliver(f->c, &m);
}

static void reset_values(void **state) /* SDM 3A 10.4.7.1 */
{
	static const struct {
		u32 offset, bsp, ap;
	} row[] = {
		{ APIC_ID, 0, 0x01000000 },
		{ APIC_VERSION, 0x50014, 0x50014 },
		{ APIC_TPR, 0, 0 },
		{ APIC_LDR, 0, 0 },
		{ APIC_DFR, 0xffffffff, 0xffffffff },
		{ APIC_SPIV, 0xff, 0xff },
		{ APIC_LVTT, 0x10000, 0x10000 },
		{ APIC_LVT0, 0x700, 0x10000 },
		{ APIC_LVT1, 0x10000, 0x10000 },
		{ APIC_LVTERR, 0x10000, 0x10000 },
		{ APIC_TMICT, 0, 0 },
		{ APIC_TMCCT, 0, 0 },
		{ APIC_IRR, 0, 0 },
	};
	struct fake f;

	(void)state;
	fake_start(&f, IRQCHIP_FULL, 0, 2);
	lapic_reset(lapic_of(f.c, 0), false);
	lapic_reset(lapic_of(f.c, 1), false);
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		assert_int_equal(lr(lapic_of(f.c, 0), row[i].offset), row[i].bsp);
		assert_int_equal(lr(lapic_of(f.c, 1), row[i].offset), row[i].ap);
	}
	assert_int_equal(lapic_get_base(lapic_of(f.c, 0)), 0xfee00900);
	assert_int_equal(lapic_get_base(lapic_of(f.c, 1)), 0xfee00800);
	fake_stop(&f);
}

static void write_masks(void **state)
{
	static const struct {
		u32 offset, readback;
	} row[] = {
		{ APIC_ID, 0xff000000 },
		{ APIC_TPR, 0xff },
		{ APIC_LDR, 0xff000000 },
		{ APIC_DFR, 0xffffffff },
		{ APIC_SPIV, 0x3ff },
		{ APIC_LVTT, 0x700ff },
		{ APIC_LVTTHMR, 0x107ff },
		{ APIC_LVTPC, 0x107ff },
		{ APIC_LVT0, 0x1a7ff },
		{ APIC_LVT1, 0x1a7ff },
		{ APIC_LVTERR, 0x100ff },
		{ APIC_ICR2, 0xff000000 },
		{ APIC_TDCR, 0xb },
		{ APIC_VERSION, 0x50014 },
		{ APIC_PPR, 0xff }, /* of TPR above */
		{ APIC_ISR, 0 },
		{ APIC_IRR + 0x70, 0 },
	};
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++)
		lw(l, row[i].offset, 0xffffffff);
	for (size_t i = 0; i < ARRAY_SIZE(row); i++)
		assert_int_equal(lr(l, row[i].offset), row[i].readback);
	fake_stop(&f);
}

static void access_sizes(void **state)
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);
	u8 b[8] = { 0x10, 0, 0, 0, 0, 0, 0, 0 };

	(void)state;
	assert_int_equal(lapic_mmio_write(l, gpa(LAPIC_BASE + APIC_TPR), 1, b), 0);
	assert_int_equal(lapic_mmio_write(l, gpa(LAPIC_BASE + APIC_TPR + 4), 4, b), 0);
	assert_int_equal(lapic_mmio_write(l, gpa(LAPIC_BASE + APIC_TPR), 8, b), 0);
	assert_int_equal(lr(l, APIC_TPR), 0);
	assert_int_equal(lapic_mmio_read(l, gpa(LAPIC_BASE + APIC_VERSION + 2), 1, b), 0);
	assert_int_equal(b[0], 5);
	memset(b, 0xaa, 8);
	assert_int_equal(lapic_mmio_read(l, gpa(LAPIC_BASE + APIC_VERSION), 8, b), 0);
	assert_int_equal(b[0], 0);
	assert_int_equal(lapic_mmio_read(l, gpa(LAPIC_BASE + 0x1000), 4, b), -EOPNOTSUPP);
	assert_int_equal(lapic_mmio_write(l, gpa(LAPIC_BASE - 4), 4, b), -EOPNOTSUPP);
	fake_stop(&f);
}

static void priorities(void **state) /* SDM 3A 10.8.3, 10.8.4 */
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);

	(void)state;
	assert_int_equal(lapic_pending(l), -1);
	assert_int_equal(inject(&f, 0, 0x31, false), 1);
	assert_int_equal(inject(&f, 0, 0x35, false), 1);
	assert_int_equal(inject(&f, 0, 0xf2, false), 1);
	assert_int_equal(lapic_pending(l), 0xf2);
	assert_int_equal(lapic_ack(l), 0xf2);
	assert_int_equal(lr(l, APIC_PPR), 0xf0);
	assert_int_equal(lapic_pending(l), -1);
	f.kicks[0] = 0;
	lw(l, APIC_EOI, 0);
	assert_int_equal(f.kicks[0], 1); /* uncovered */
	assert_int_equal(lapic_ack(l), 0x35);
	assert_int_equal(lapic_pending(l), -1); /* same class */
	lw(l, APIC_EOI, 0);
	lapic_set_cr8(l, 3);
	assert_int_equal(lr(l, APIC_TPR), 0x30);
	assert_int_equal(lapic_pending(l), -1);
	f.kicks[0] = 0;
	lapic_set_cr8(l, 2);
	assert_int_equal(f.kicks[0], 1);
	assert_int_equal(lapic_get_cr8(l), 2);
	assert_int_equal(lapic_ack(l), 0x31);
	assert_int_equal(lapic_ack(l), -1);
	lw(l, APIC_TPR, 0x3f); /* same class as in service: the TPR shows whole */
	assert_int_equal(lr(l, APIC_PPR), 0x3f);
	lw(l, APIC_EOI, 0);
	lw(l, APIC_EOI, 0); /* nothing in service: no effect */
	assert_int_equal(lr(l, APIC_ISR + 0x10), 0);
	fake_stop(&f);
}

/* Every vector from 16 goes IRR -> ISR -> gone, and below 16 none does. */
static void every_vector(void **state)
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);

	(void)state;
	for (int v = 0; v < 256; v++) {
		u32 word = 16 * (v / 32), bit = 1u << (v % 32);
		bool legal = v >= 16;

		assert_int_equal(inject(&f, 0, (u8)v, v & 1), legal);
		assert_int_equal(lr(l, APIC_IRR + word), legal ? bit : 0);
		assert_int_equal(!!(lr(l, APIC_TMR + word) & bit), legal && (v & 1));
		assert_int_equal(lapic_ack(l), legal ? v : -1);
		assert_int_equal(lr(l, APIC_IRR + word), 0);
		assert_int_equal(lr(l, APIC_ISR + word), legal ? bit : 0);
		lw(l, APIC_EOI, 0);
		assert_int_equal(lr(l, APIC_ISR + word), 0);
	}
	fake_stop(&f);
}

static void errors(void **state) /* SDM 3A 10.5.3 */
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);

	(void)state;
	lw(l, APIC_LVTERR, 0xfe);
	inject(&f, 0, 3, false);
	assert_int_equal(lr(l, APIC_ESR), 0); /* not before a write */
	assert_int_equal(lapic_ack(l), 0xfe);
	lw(l, APIC_EOI, 0);
	inject(&f, 0, 4, false); /* same error again: no second interrupt */
	assert_int_equal(lapic_pending(l), -1);
	lw(l, APIC_ICR, 0x40000 | 5);
	lw(l, APIC_ESR, 0);
	assert_int_equal(lr(l, APIC_ESR), 0x60);
	lr(l, 0x040);
	lw(l, APIC_ESR, 0);
	assert_int_equal(lr(l, APIC_ESR), 0x80);
	lw(l, APIC_ESR, 0);
	assert_int_equal(lr(l, APIC_ESR), 0);
	lw(l, APIC_LVTERR, 2); /* an illegal vector for the error itself: no recursion */
	inject(&f, 0, 3, false);
	lw(l, APIC_ESR, 0);
	assert_int_equal(lr(l, APIC_ESR), 0x40);
	fake_stop(&f);
}

static void software_disable(void **state) /* SDM 3A 10.4.7.2 */
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);

	(void)state;
	inject(&f, 0, 0x40, false);
	lw(l, APIC_LVTERR, 0x50);
	lw(l, APIC_SPIV, 0xff);
	assert_int_equal(inject(&f, 0, 0x41, false), 0); /* blocked by the guest */
	assert_int_equal(lr(l, APIC_LVTERR), 0x10050);
	lw(l, APIC_LVTERR, 0x50);
	assert_int_equal(lr(l, APIC_LVTERR), 0x10050);
	assert_int_equal(lapic_ack(l), 0x40); /* what was pending stays */
	assert_false(lapic_accepts_pic(l));
	fake_stop(&f);
}

static void local_vector_table(void **state)
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);

	(void)state;
	lw(l, APIC_LVT1, 0x400);
	lapic_local_interrupt(l, LAPIC_LVT_LINT1);
	assert_int_equal(f.nmis[0], 1);
	lw(l, APIC_LVT1, 0x10400);
	lapic_local_interrupt(l, LAPIC_LVT_LINT1);
	assert_int_equal(f.nmis[0], 1);
	lw(l, APIC_LVT1, 0x200);
	lapic_local_interrupt(l, LAPIC_LVT_LINT1);
	assert_int_equal(f.smis[0], 1);
	lw(l, APIC_LVTPC, 0x61);
	lapic_local_interrupt(l, LAPIC_LVT_PMC);
	lapic_local_interrupt(l, LAPIC_LVT_PMC);
	assert_int_equal(lr(l, APIC_LVTPC), 0x10061); /* masks itself */
	assert_int_equal(lapic_ack(l), 0x61);
	assert_int_equal(lapic_ack(l), -1);
	fake_stop(&f);
}

/* ---- x2APIC ---- */

static void x2apic_registers(void **state) /* SDM 3A table 10-6 */
{
	static const struct {
		u32 msr;
		bool read, write; /* of zero */
	} row[] = {
		{ 0x802, 1, 0 }, { 0x803, 1, 0 }, { 0x808, 1, 1 }, { 0x809, 0, 0 },
		{ 0x80a, 1, 0 }, { 0x80b, 0, 1 }, { 0x80c, 0, 0 }, { 0x80d, 1, 0 }, { 0x80e, 0, 0 },
		{ 0x80f, 1, 1 }, { 0x810, 1, 0 }, { 0x817, 1, 0 }, { 0x818, 1, 0 },
		{ 0x827, 1, 0 }, { 0x828, 1, 1 }, { 0x830, 1, 1 }, { 0x831, 0, 0 },
		{ 0x832, 1, 1 }, { 0x837, 1, 1 }, { 0x838, 1, 1 }, { 0x839, 1, 0 },
		{ 0x83e, 1, 1 }, { 0x83f, 0, 1 }, { 0x800, 0, 0 }, { 0x840, 0, 0 },
		{ 0x8ff, 0, 0 }, { 0x900, 0, 0 }, { 0x7ff, 0, 0 },
	};
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);
	u64 v;

	(void)state;
	assert_false(lapic_msr_read(l, 0x802, &v)); /* not in xAPIC mode */
	assert_false(lapic_msr_write(l, 0x808, 0));
	fake_x2apic(l);
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		assert_int_equal(lapic_msr_read(l, row[i].msr, &v), row[i].read);
		assert_int_equal(lapic_msr_write(l, row[i].msr, 0), row[i].write);
		assert_false(row[i].msr != 0x830 && lapic_msr_write(l, row[i].msr, BIT(32)));
	}
	fake_stop(&f);
}

static void x2apic_reserved_bits(void **state)
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);
	u64 v;

	(void)state;
	fake_x2apic(l);
	assert_false(lapic_msr_write(l, 0x80b, 1));
	assert_false(lapic_msr_write(l, 0x828, 1));
	assert_false(lapic_msr_write(l, 0x808, 0x100));
	assert_false(lapic_msr_write(l, 0x83f, 0x100));
	assert_false(lapic_msr_write(l, 0x830, BIT(20)));
	assert_false(lapic_msr_write(l, 0x830, BIT(13)));
	assert_true(lapic_msr_write(l, 0x830, 0x500000045));
	assert_true(lapic_msr_read(l, 0x830, &v));
	assert_int_equal(v, 0x500000045);
	assert_true(lapic_msr_write(l, 0x83f, 0x46));
	assert_true(lapic_msr_read(l, 0x830, &v));
	assert_int_equal(v, 0x500000045); /* SELF IPI is apart */
	assert_int_equal(lapic_ack(l), 0x46);
	assert_true(lapic_msr_write(l, 0x80b, 0));
	/* the page reads as ones and ignores writes */
	assert_int_equal(lr(l, APIC_VERSION), 0xffffffff);
	lw(l, APIC_TPR, 0x50);
	assert_true(lapic_msr_read(l, 0x808, &v));
	assert_int_equal(v, 0);
	fake_stop(&f);
}

static void x2apic_identity(void **state)
{
	static const struct {
		u32 id, ldr;
	} row[] = { { 0, 1 }, { 5, 0x20 }, { 15, 0x8000 }, { 16, 0x10001 }, { 299, 0x120800 } };
	struct fake f;

	(void)state;
	fake_start(&f, IRQCHIP_FULL, 0, 300);
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct lapic *l = lapic_of(f.c, row[i].id);
		u64 v;

		fake_x2apic(l);
		assert_true(lapic_msr_read(l, 0x802, &v));
		assert_int_equal(v, row[i].id);
		assert_true(lapic_msr_read(l, 0x80d, &v));
		assert_int_equal(v, row[i].ldr);
		assert_int_equal(lapic_find(f.c, row[i].id), row[i].id);
	}
	assert_int_equal(lapic_find(f.c, 300), -1);
	fake_stop(&f);
}

/* ---- IA32_APIC_BASE (SDM 3A figure 10-27) ---- */

static void base_transitions(void **state)
{
	enum { OFF = 0, BAD = 0x400, X = 0x800, X2 = 0xc00 };
	static const struct {
		u32 from, to;
		bool guest, host;
	} row[] = {
		{ X, X2, 1, 1 }, { X, OFF, 1, 1 }, { X, X, 1, 1 }, { X, BAD, 0, 0 },
		{ X2, X, 0, 1 }, { X2, OFF, 1, 1 }, { X2, X2, 1, 1 }, { X2, BAD, 0, 0 },
		{ OFF, X, 1, 1 }, { OFF, X2, 0, 1 }, { OFF, OFF, 1, 1 }, { OFF, BAD, 0, 0 },
	};
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		u64 from = LAPIC_BASE | row[i].from, to = LAPIC_BASE | row[i].to;

		assert_true(lapic_set_base(l, from, true));
		assert_int_equal(lapic_set_base(l, to, false), row[i].guest);
		assert_int_equal(lapic_get_base(l), row[i].guest ? to : from);
		assert_true(lapic_set_base(l, from, true));
		assert_int_equal(lapic_set_base(l, to, true), row[i].host);
	}
	fake_stop(&f);
}

static void base_bits_and_address(void **state)
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);
	u32 v = 0;

	(void)state;
	assert_false(lapic_set_base(l, LAPIC_BASE | 0x800 | BIT(46), false));
	assert_false(lapic_set_base(l, LAPIC_BASE | 0x801, false));
	assert_false(lapic_set_base(l, LAPIC_BASE | 0xa00, false));
	lapic_set_features(l, 46, false, false);
	assert_false(lapic_set_base(l, LAPIC_BASE | 0xc00, false));
	assert_true(lapic_set_base(l, 0x12345000 | 0x900, false));
	assert_int_equal(lapic_mmio_read(l, gpa(LAPIC_BASE + APIC_VERSION), 4, &v), -EOPNOTSUPP);
	assert_int_equal(lapic_mmio_read(l, gpa(0x12345000 + APIC_VERSION), 4, &v), 0);
	assert_int_equal(v, 0x50014);
	fake_stop(&f);
}

static void disabled_by_base(void **state)
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);

	(void)state;
	inject(&f, 0, 0x40, false);
	assert_true(lapic_set_base(l, LAPIC_BASE | 0x100, false));
	assert_int_equal(lapic_pending(l), -1);
	assert_int_equal(inject(&f, 0, 0x41, false), -1);
	assert_true(lapic_accepts_pic(l));
	assert_int_equal(lr(l, APIC_VERSION), 0xffffffff);
	f.kicks[0] = 0;
	assert_true(lapic_set_base(l, LAPIC_BASE | 0x900, false));
	assert_int_equal(f.kicks[0], 1);
	assert_int_equal(lapic_pending(l), 0x40);
	fake_stop(&f);
}

static void init_keeps_identity(void **state) /* SDM 3A 10.4.7.3 */
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 2);
	u64 v;

	(void)state;
	l = lapic_of(f.c, 1);
	fake_x2apic(l);
	assert_true(lapic_msr_write(l, 0x808, 0x20));
	inject(&f, 1, 0x55, false);
	lapic_reset(l, true);
	assert_true(lapic_is_x2apic(l));
	assert_true(lapic_msr_read(l, 0x802, &v));
	assert_int_equal(v, 1);
	assert_true(lapic_msr_read(l, 0x80d, &v));
	assert_int_equal(v, 2);
	assert_int_equal(lapic_get_cr8(l), 0);
	assert_int_equal(lapic_pending(l), -1);
	lapic_reset(l, false);
	assert_false(lapic_is_x2apic(l));
	assert_int_equal(lr(l, APIC_ID), 0x01000000);
	fake_stop(&f);
}

/* ---- the register page ---- */

static void state_round_trip(void **state)
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 2), *m = lapic_of(f.c, 1);
	u8 a[LAPIC_PAGE_LEN], b[LAPIC_PAGE_LEN];

	(void)state;
	inject(&f, 0, 0x91, true);
	lapic_ack(l);
	inject(&f, 0, 0xa3, false);
	lw(l, APIC_TPR, 0x40);
	lw(l, APIC_LDR, 0x04000000);
	lw(l, APIC_LVTT, 0x200ef);
	lw(l, APIC_TDCR, 3);
	lw(l, APIC_TMICT, 1000000);
	f.ns += 400000;
	lapic_get_state(l, a);
	f.kicks[1] = 0;
	assert_int_equal(lapic_set_state(m, a), 0);
	assert_int_equal(f.kicks[1], 1);
	lapic_get_state(m, b);
	assert_memory_equal(a, b, LAPIC_PAGE_LEN);
	assert_int_equal(lr(m, APIC_TMCCT), 1000000 - 400000 / 16);
	assert_int_equal(lapic_ack(m), 0xa3);
	fake_stop(&f);
}

/* The reset state (LINT0 open though SPIV is disabled) survives: VMMs write it back. */
static void state_keeps_virtual_wire(void **state)
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 1);
	u8 page[LAPIC_PAGE_LEN];

	(void)state;
	lapic_reset(l, false);
	assert_true(lapic_accepts_pic(l));
	lapic_get_state(l, page);
	assert_int_equal(lapic_set_state(l, page), 0);
	assert_true(lapic_accepts_pic(l));
	assert_int_equal(lr(l, APIC_LVT0), 0x700);
	fake_stop(&f);
}

static void state_x2apic_id(void **state)
{
	struct fake f;
	struct lapic *l = fake_start(&f, IRQCHIP_FULL, 0, 6);
	u8 page[LAPIC_PAGE_LEN];

	(void)state;
	l = lapic_of(f.c, 5);
	fake_x2apic(l);
	lapic_get_state(l, page);
	assert_int_equal(page[APIC_ID + 3], 5);
	assert_int_equal(page[APIC_LDR], 0x20);
	assert_int_equal(lapic_set_state(l, page), 0);
	irqchip_set_x2apic_api(f.c, X2APIC_API_32BIT_IDS);
	assert_int_equal(lapic_set_state(l, page), -EINVAL);
	lapic_get_state(l, page);
	assert_int_equal(page[APIC_ID], 5);
	assert_int_equal(lapic_set_state(l, page), 0);
	fake_stop(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(reset_values),
		cmocka_unit_test(write_masks),
		cmocka_unit_test(access_sizes),
		cmocka_unit_test(priorities),
		cmocka_unit_test(every_vector),
		cmocka_unit_test(errors),
		cmocka_unit_test(software_disable),
		cmocka_unit_test(local_vector_table),
		cmocka_unit_test(x2apic_registers),
		cmocka_unit_test(x2apic_reserved_bits),
		cmocka_unit_test(x2apic_identity),
		cmocka_unit_test(base_transitions),
		cmocka_unit_test(base_bits_and_address),
		cmocka_unit_test(disabled_by_base),
		cmocka_unit_test(init_keeps_identity),
		cmocka_unit_test(state_round_trip),
		cmocka_unit_test(state_keeps_virtual_wire),
		cmocka_unit_test(state_x2apic_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
