// SPDX-License-Identifier: MIT
/* The IOAPIC: registers, edges, levels with remote IRR and EOI, masks, saved state. */
#include "irq/irq_fake.h"

#define MASKED BIT(16)
#define LEVEL  BIT(15)
#define REMOTE BIT(14)
#define PIN    5

static struct fake f;
static struct lapic *l;

static int setup(void **state)
{
	(void)state;
	l = fake_start(&f, IRQCHIP_FULL, 0, 2);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_stop(&f);
	return 0;
}

static int line(bool level)
{
	return ioapic_set_line(f.c, IRQ_SOURCE_USER, PIN, level);
}

/* Takes the interrupt and ends it; its vector or -1. */
static int serve(void)
{
	int v = lapic_ack(l);

	if (v >= 0)
		lw(l, APIC_EOI, 0);
	return v;
}

static u32 reg(u32 index)
{
	u32 v;

	ioapic_write(f.c, 0, 4, &index);
	ioapic_read(f.c, 0x10, 4, &v);
	return v;
}

static void set_reg(u32 index, u32 v)
{
	ioapic_write(f.c, 0, 4, &index);
	ioapic_write(f.c, 0x10, 4, &v);
}

/* Read back of all ones (82093AA 3.2): what can be written. */
static void registers(void **state)
{
	static const struct {
		u32 index, after;
	} row[] = {
		{0x00, 0x0f000000}, {0x01, 0x00170011}, {0x02, 0x0f000000}, {0x03, 0},
		{0x0f, 0}, {0x40, 0}, {0xff, 0}, {0x11, 0xffffffff},
	};
	u32 v = 0x12345;
	u64 wide = ~0ull;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		set_reg(row[i].index, 0xffffffff);
		assert_int_equal(reg(row[i].index), row[i].after);
	}
	ioapic_write(f.c, 0, 4, &v); /* eight bits are a selector */
	ioapic_read(f.c, 0, 8, &wide);
	assert_int_equal(wide, 0x45);
	ioapic_read(f.c, 0x20, 4, &v);
	assert_int_equal(v, 0);
	for (unsigned int pin = 0; pin < IOAPIC_PINS; pin++)
		if (pin)
			assert_int_equal(fake_redir_read(&f, pin), MASKED);
}

/* An edge is sent once; what happens to it while the pin is masked is lost, as in KVM. */
static void edge(void **state)
{
	(void)state;
	assert_int_equal(line(true), -1); /* masked */
	line(false);
	fake_redir(&f, PIN, 0x41);
	assert_int_equal(serve(), -1);
	assert_int_equal(line(true), 1);
	assert_int_equal(line(true), 0);
	assert_int_equal(serve(), 0x41);
	assert_int_equal(serve(), -1);
	line(false);
	assert_int_equal(line(true), 1);
	assert_int_equal(serve(), 0x41);
}

/* A level is sent again after each EOI while it is high, and not before. */
static void level(void **state)
{
	(void)state;
	fake_redir(&f, PIN, 0x41 | LEVEL);
	assert_int_equal(line(true), 1);
	assert_true(fake_redir_read(&f, PIN) & REMOTE);
	assert_int_equal(line(true), -1);
	assert_int_equal(serve(), 0x41);
	assert_int_equal(f.acked[PIN], 1);
	assert_int_equal(lapic_ack(l), 0x41);
	line(false);
	lw(l, APIC_EOI, 0);
	assert_int_equal(serve(), -1);
	assert_false(fake_redir_read(&f, PIN) & REMOTE);
}

static void unmask_high_level(void **state)
{
	(void)state;
	fake_redir(&f, PIN, 0x41 | LEVEL | MASKED);
	line(true);
	assert_int_equal(serve(), -1);
	fake_redir(&f, PIN, 0x42 | LEVEL);
	assert_int_equal(lapic_ack(l), 0x42);
}

/* Systems clear a remote IRR that is stuck by making the pin edge-triggered for a moment. */
static void remote_irr_is_cleared_by_edge(void **state)
{
	(void)state;
	fake_redir(&f, PIN, 0x41 | LEVEL);
	line(true);
	fake_redir(&f, PIN, 0x41 | LEVEL); /* read-only: it stays */
	assert_true(fake_redir_read(&f, PIN) & REMOTE);
	fake_redir(&f, PIN, 0x41 | MASKED);
	assert_false(fake_redir_read(&f, PIN) & REMOTE);
}

/* A level that no LAPIC takes awaits no EOI. */
static void no_destination(void **state)
{
	(void)state;
	fake_redir(&f, PIN, 0x41 | LEVEL | 77ull << 56);
	assert_int_equal(line(true), -1);
	assert_false(fake_redir_read(&f, PIN) & REMOTE);
}

/* Where a message goes by its entry: bits of the vCPUs that have it. */
static void destinations(void **state)
{
	static const struct {
		u64 entry;
		unsigned int vcpus;
	} row[] = {
		{0x41, 1}, {0x41 | 1ull << 56, 2}, {0x41 | 0xffull << 56, 3},
		{0x41 | BIT(11) | 1ull << 56, 1}, {0x41 | BIT(11) | 2ull << 56, 2},
		{0x41 | BIT(11) | 3ull << 56, 3}, {0x41 | BIT(11), 0},
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		unsigned int got = 0;

		teardown(state);
		setup(state);
		for (unsigned int v = 0; v < 2; v++)
			lw(lapic_of(f.c, v), APIC_LDR, 1u << (24 + v));
		fake_redir(&f, PIN, row[i].entry);
		line(true);
		for (unsigned int v = 0; v < 2; v++)
			got |= (lapic_pending(lapic_of(f.c, v)) == 0x41) << v;
		assert_int_equal(got, row[i].vcpus);
	}
}

static void nmi_by_pin(void **state)
{
	(void)state;
	fake_redir(&f, PIN, IRQ_NMI << 8);
	assert_int_equal(line(true), 1);
	assert_int_equal(f.nmis[0], 1);
	assert_int_equal(serve(), -1);
}

/* A pin that was high and waiting is sent by the restored chip; one that was sent is not. */
static void save_restore(void **state)
{
	struct ioapic_state s;

	(void)state;
	fake_redir(&f, PIN, 0x41);
	line(true);
	assert_int_equal(serve(), 0x41);
	ioapic_get_state(f.c, &s);
	assert_int_equal(s.irr & 1u << PIN, 0);
	ioapic_set_state(f.c, &s);
	assert_int_equal(serve(), -1);
	s.irr = 1u << PIN;
	ioapic_set_state(f.c, &s);
	assert_int_equal(serve(), 0x41);
	assert_int_equal(s.base_address, IOAPIC_BASE);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(registers), TEST(edge), TEST(level), TEST(unmask_high_level),
		TEST(remote_irr_is_cleared_by_edge), TEST(no_destination), TEST(destinations),
		TEST(nmi_by_pin), TEST(save_restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
