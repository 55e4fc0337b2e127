// SPDX-License-Identifier: MIT
/* The GSI routing table: what is a valid table, where a GSI goes, MSI messages. */
#include "irq/irq_fake.h"

#include <errno.h>

static struct fake f;

static int setup(void **state)
{
	(void)state;
	fake_start(&f, IRQCHIP_FULL, 0, 2);
	fake_pic_init(&f, 0x20, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_stop(&f);
	return 0;
}

#define CHIP(g, c, p) {.gsi = (g), .kind = IRQ_ROUTE_CHIP, .chip = (c), .pin = (p)}
#define MSI(g, a, d)  {.gsi = (g), .kind = IRQ_ROUTE_MSI, .msi_address = (a), .msi_data = (d)}
#define IOAPIC	      IRQ_CHIP_IOAPIC

static void valid_tables(void **state)
{
	static const struct {
		struct irq_route r[2];
		size_t n;
		int full, split;
	} row[] = {
		{{CHIP(0, 0, 0)}, 0, 0, 0},
		{{CHIP(4095, IOAPIC, 23)}, 1, 0, -EINVAL},
		{{CHIP(4096, IOAPIC, 0)}, 1, -EINVAL, -EINVAL},
		{{CHIP(0, IOAPIC, 24)}, 1, -EINVAL, -EINVAL},
		{{CHIP(0, 0, 7)}, 1, 0, -EINVAL},
		{{CHIP(0, 1, 8)}, 1, -EINVAL, -EINVAL},
		{{CHIP(0, 3, 0)}, 1, -EINVAL, -EINVAL},
		{{{.gsi = 0, .kind = 0}}, 1, -EINVAL, -EINVAL},
		{{{.gsi = 0, .kind = 3}}, 1, -EINVAL, -EINVAL},
		{{MSI(7, 0xfee00000, 0x41)}, 1, 0, 0},
		{{CHIP(5, 0, 5), CHIP(5, IOAPIC, 5)}, 2, 0, -EINVAL},
		{{CHIP(5, IOAPIC, 5), CHIP(5, IOAPIC, 6)}, 2, -EINVAL, -EINVAL},
		{{CHIP(5, IOAPIC, 5), MSI(5, 0xfee00000, 0x41)}, 2, -EINVAL, -EINVAL},
		{{MSI(5, 0xfee00000, 0x41), MSI(5, 0xfee00000, 0x42)}, 2, -EINVAL, -EINVAL},
	};
	struct fake split;

	(void)state;
	fake_start(&split, IRQCHIP_SPLIT, 24, 1);
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		assert_int_equal(irq_set_routes(f.c, row[i].r, row[i].n), row[i].full);
		assert_int_equal(irq_set_routes(split.c, row[i].r, row[i].n), row[i].split);
	}
	fake_stop(&split);
}

/* A table that is refused leaves the old one. */
static void refused(void **state)
{
	static const struct irq_route bad[] = {MSI(3, 0xfee00000, 0x50), CHIP(4096, IOAPIC, 0)};

	(void)state;
	assert_int_equal(irq_set_routes(f.c, bad, 2), -EINVAL);
	assert_int_equal(route_gsi(f.c, IOAPIC, 3), 3);
}

/* KVM's default: GSI n is IOAPIC pin n and, below 16, PIC line n; others go nowhere. */
static void defaults(void **state)
{
	(void)state;
	for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++)
		assert_int_equal(route_gsi(f.c, IOAPIC, pin), pin);
	for (unsigned int pin = 0; pin < 16; pin++)
		assert_int_equal(route_gsi(f.c, pin / 8, pin % 8), pin);
	assert_int_equal(irq_set_line(f.c, IRQ_SOURCE_USER, 24, true), -1);
	assert_int_equal(irq_set_line(f.c, IRQ_SOURCE_USER, 0xffffffff, true), -1);
	fake_redir(&f, 4, 0x44);
	assert_int_equal(irq_set_line(f.c, IRQ_SOURCE_USER, 4, true), 2); /* both chips took it */
	assert_true(pic_output(f.c));
	assert_int_equal(lapic_pending(lapic_of(f.c, 0)), 0x44);
}

/* Address and data to message (SDM 3A 10.11): which vCPUs get what. */
static void msi(void **state)
{
	static const struct {
		u64 address;
		u32 data;
		int result, v0, v1; /* pending vectors */
	} row[] = {
		{0xfee00000, 0x41, 1, 0x41, -1}, {0xfee01000, 0x41, 1, -1, 0x41},
		{0xfeeff000, 0x41, 2, 0x41, 0x41}, {0xfee02000, 0x41, -1, -1, -1},
		{0xfee01000, 0x441, 1, -1, -1},	  /* NMI: no vector */
		{0xfee03004, 0x41, 2, 0x41, 0x41}, /* logical */
		{0xfee0200c, 0x41, 1, -1, 0x41},   /* hint: one of the set */
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		teardown(state);
		setup(state);
		for (unsigned int v = 0; v < 2; v++)
			lw(lapic_of(f.c, v), APIC_LDR, 1u << (24 + v));
		assert_int_equal(irq_send_msi(f.c, row[i].address, row[i].data), row[i].result);
		assert_int_equal(lapic_pending(lapic_of(f.c, 0)), row[i].v0);
		assert_int_equal(lapic_pending(lapic_of(f.c, 1)), row[i].v1);
	}
}

/*
 * An xAPIC ID is writable, and all that have it are meant; but with 32-bit IDs the vCPU of that
 * number alone (api.rst, KVM_CAP_X2APIC_API).
 */
static void msi_aliased_id(void **state)
{
	(void)state;
	lw(lapic_of(f.c, 1), APIC_ID, 0);
	assert_int_equal(irq_send_msi(f.c, 0xfee00000, 0x41), 2);
	assert_int_equal(lapic_pending(lapic_of(f.c, 0)), 0x41);
	assert_int_equal(lapic_pending(lapic_of(f.c, 1)), 0x41);
	assert_int_equal(irq_send_msi(f.c, 0xfee01000, 0x42), -1);
	irqchip_set_x2apic_api(f.c, X2APIC_API_32BIT_IDS);
	assert_int_equal(irq_send_msi(f.c, 0xfee00000, 0x43), 1);
	assert_int_equal(lapic_pending(lapic_of(f.c, 1)), 0x41);
}

/* With 32-bit IDs bits 63..40 of the address belong to the ID, and 39..32 must be 0. */
static void msi_32bit(void **state)
{
	(void)state;
	assert_int_equal(irq_send_msi(f.c, 0x1fee00000, 0x41), 1); /* ignored without the flag */
	irqchip_set_x2apic_api(f.c, X2APIC_API_32BIT_IDS);
	assert_int_equal(irq_send_msi(f.c, 0x1fee00000, 0x41), -EINVAL);
	assert_int_equal(irq_send_msi(f.c, 0x100fee00000, 0x41), -1); /* ID 0x100 is nobody's */
}

static void msi_route(void **state)
{
	static const struct irq_route t[] = {CHIP(2, IOAPIC, 2), MSI(9, 0xfee00000, 0x51)};
	struct irq_route r;

	(void)state;
	assert_int_equal(irq_set_routes(f.c, t, 2), 0);
	assert_false(irq_msi_route(f.c, 2, &r));
	assert_false(irq_msi_route(f.c, 3, &r));
	assert_false(irq_msi_route(f.c, 4000, &r));
	assert_true(irq_msi_route(f.c, 9, &r));
	assert_int_equal(r.msi_data, 0x51);
	assert_int_equal(irq_set_line(f.c, IRQ_SOURCE_USER, 9, false), -1);
	assert_int_equal(irq_set_line(f.c, IRQ_SOURCE_USER, 9, true), 1);
	assert_int_equal(lapic_pending(lapic_of(f.c, 0)), 0x51);
	assert_int_equal(route_gsi(f.c, IOAPIC, 3), -1);
}

/* Split chip: an EOI leaves for user space if a level route of its pins has the vector. */
static void split_eoi(void **state)
{
	static const struct irq_route t[] = {
		MSI(1, 0xfee00000, 0x41), MSI(2, 0xfee00000, 0x42 | BIT(15)),
		MSI(30, 0xfee00000, 0x43 | BIT(15)),
	};
	struct fake split;
	struct lapic *l = fake_start(&split, IRQCHIP_SPLIT, 24, 1);

	(void)state;
	assert_int_equal(irq_set_routes(split.c, t, 3), 0);
	for (u8 v = 0x41; v <= 0x43; v++) {
		split.eoi_exit = 0;
		irq_send_msi(split.c, 0xfee00000, v | BIT(15));
		assert_int_equal(lapic_ack(l), v);
		lw(l, APIC_EOI, 0);
		assert_int_equal(split.eoi_exit, v == 0x42 ? v + 1 : 0);
	}
	fake_stop(&split);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(valid_tables), TEST(refused), TEST(defaults), TEST(msi), TEST(msi_aliased_id),
		TEST(msi_32bit), TEST(msi_route), TEST(split_eoi),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
