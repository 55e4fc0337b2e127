// SPDX-License-Identifier: MIT
/* The 8259A pair: priorities, EOI in all its forms, rotation, cascade, levels, spurious INTA. */
#include "irq/irq_fake.h"

#define BASE 0x20 /* vectors 20..27 of the master, 28..2f of the slave */

static struct fake f;

static int setup(void **state)
{
	(void)state;
	fake_start(&f, IRQCHIP_FULL, 0, 1);
	fake_pic_init(&f, BASE, 1);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_stop(&f);
	return 0;
}

static void again(void **state)
{
	teardown(state);
	setup(state);
}

static int raise(unsigned int line)
{
	return pic_set_line(f.c, IRQ_SOURCE_USER, line, true);
}
static int lower(unsigned int line)
{
	return pic_set_line(f.c, IRQ_SOURCE_USER, line, false);
}
static void pulse(unsigned int line)
{
	lower(line);
	raise(line);
}

static u8 isr(u16 port)
{
	pic_write(f.c, port, 0x0b);
	return pic_read(f.c, port);
}
static u8 irr(u16 port)
{
	pic_write(f.c, port, 0x0a);
	return pic_read(f.c, port);
}

#define EOI 0x20 /* non-specific */

/* Which vector comes first of two lines, in the order of the datasheet: 0 1 8..15 3..7. */
static void order(void **state)
{
	static const u8 by_priority[] = {0, 1, 8, 9, 10, 11, 12, 13, 14, 15, 3, 4, 5, 6, 7};

	(void)state;
	for (size_t a = 0; a < ARRAY_SIZE(by_priority); a++)
		pulse(by_priority[ARRAY_SIZE(by_priority) - 1 - a]);
	for (size_t a = 0; a < ARRAY_SIZE(by_priority); a++) {
		assert_true(pic_output(f.c));
		assert_int_equal(pic_ack(f.c), BASE + by_priority[a]);
		if (by_priority[a] >= 8)
			pic_write(f.c, 0xa0, EOI);
		pic_write(f.c, 0x20, EOI);
	}
	assert_false(pic_output(f.c));
}

/* What may interrupt a service: only what is higher, until its EOI. */
static void nesting(void **state)
{
	static const struct {
		u8 serving, comes;
		bool interrupts;
	} row[] = {
		{3, 1, true}, {3, 4, false}, {3, 3, false}, {0, 1, false},
		{7, 8, true}, /* the slave is line 2 */
		{1, 8, false}, {8, 9, false}, {9, 8, false}, /* fully nested: the cascade is busy */
		{9, 1, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		again(state);
		pulse(row[i].serving);
		assert_int_equal(pic_ack(f.c), BASE + row[i].serving);
		pulse(row[i].comes);
		assert_int_equal(pic_output(f.c), row[i].interrupts);
		if (row[i].serving >= 8)
			pic_write(f.c, 0xa0, EOI);
		pic_write(f.c, 0x20, EOI);
		if (!row[i].interrupts)
			assert_true(pic_output(f.c));
		assert_int_equal(pic_ack(f.c), BASE + row[i].comes);
	}
}

/* Special fully nested mode: a higher line of the slave interrupts its own service. */
static void special_fully_nested(void **state)
{
	(void)state;
	fake_pic_init(&f, BASE, 0x11);
	pulse(9);
	assert_int_equal(pic_ack(f.c), BASE + 9);
	pulse(10);
	assert_false(pic_output(f.c));
	pulse(8);
	assert_true(pic_output(f.c));
	assert_int_equal(pic_ack(f.c), BASE + 8);
}

/* An edge counts once, however long the line stays high; a level as long as it is high. */
static void edge_and_level(void **state)
{
	(void)state;
	assert_int_equal(raise(5), 1);
	assert_int_equal(raise(5), 1); /* no new edge: KVM reports it as delivered */
	assert_int_equal(pic_ack(f.c), BASE + 5);
	pic_write(f.c, 0x20, EOI);
	assert_false(pic_output(f.c));

	lower(5);
	pic_write(f.c, 0x4d0, 0x20);
	assert_int_equal(pic_read(f.c, 0x4d0), 0x20);
	raise(5);
	assert_int_equal(pic_ack(f.c), BASE + 5);
	pic_write(f.c, 0x20, EOI);
	assert_true(pic_output(f.c));
	lower(5);
	assert_false(pic_output(f.c));
}

/* Lines that a PC's chipset keeps edge-triggered. */
static void elcr_mask(void **state)
{
	(void)state;
	pic_write(f.c, 0x4d0, 0xff);
	pic_write(f.c, 0x4d1, 0xff);
	assert_int_equal(pic_read(f.c, 0x4d0), 0xf8);
	assert_int_equal(pic_read(f.c, 0x4d1), 0xde);
}

/* The line falls before INTA: IR7 of the half that asked, with nothing in service. */
static void spurious(void **state)
{
	(void)state;
	pic_write(f.c, 0x4d0, 0x20);
	pic_write(f.c, 0x4d1, 0x04);
	raise(5);
	lower(5);
	assert_int_equal(pic_ack(f.c), BASE + 7);
	assert_int_equal(isr(0x20), 0);
}

static void result(void **state)
{
	(void)state;
	pic_write(f.c, 0x21, 0x08);
	assert_int_equal(raise(3), -1);
	assert_false(pic_output(f.c));
	pic_write(f.c, 0x21, 0);
	assert_true(pic_output(f.c)); /* it waited */
	pulse(4);
	lower(4);
	assert_int_equal(raise(4), 0); /* still pending: coalesced */
}

/* A line is high while any of its sources drives it. */
static void sources(void **state)
{
	(void)state;
	pic_write(f.c, 0x4d0, 0x08);
	pic_set_line(f.c, IRQ_SOURCE_USER, 3, true);
	pic_set_line(f.c, IRQ_SOURCE_RESAMPLE, 3, true);
	pic_set_line(f.c, IRQ_SOURCE_USER, 3, false);
	assert_int_equal(irr(0x20), 0x08);
	pic_set_line(f.c, IRQ_SOURCE_RESAMPLE, 3, false);
	assert_int_equal(irr(0x20), 0);
}

/* OCW2, on a master that serves 1 and then 0: what is left of ISR, and who is highest after. */
static void ocw2(void **state)
{
	static const struct {
		u8 command, isr, first; /* first: of all lines raised at once */
	} row[] = {
		{0x20, 0x02, 0}, /* non-specific: the highest */
		{0x60, 0x02, 0}, {0x61, 0x01, 0}, {0x65, 0x03, 0}, /* specific */
		{0xa0, 0x02, 1}, /* rotate on non-specific: 0 becomes the lowest */
		{0xe1, 0x01, 2}, /* rotate on specific */
		{0xc4, 0x03, 5}, /* set priority */
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		again(state);
		for (unsigned int line = 2; line--;) {
			pulse(line);
			assert_int_equal(pic_ack(f.c), BASE + line);
		}
		pic_write(f.c, 0x20, row[i].command);
		assert_int_equal(isr(0x20), row[i].isr);
		pic_write(f.c, 0x20, 0x60);
		pic_write(f.c, 0x20, 0x61);
		for (unsigned int line = 0; line < 8; line++)
			if (line != 2)
				pulse(line);
		assert_int_equal(pic_ack(f.c), BASE + (row[i].first == 2 ? 3 : row[i].first));
	}
}

static void automatic_eoi(void **state)
{
	(void)state;
	fake_pic_init(&f, BASE, 3);
	pic_write(f.c, 0x20, 0x80); /* rotate in automatic EOI mode */
	pulse(1);
	assert_int_equal(pic_ack(f.c), BASE + 1);
	assert_int_equal(isr(0x20), 0);
	pulse(1);
	pulse(3);
	assert_int_equal(pic_ack(f.c), BASE + 3); /* 1 has become the lowest */
}

/* Special mask mode: a masked line that is in service blocks nobody. */
static void special_mask(void **state)
{
	(void)state;
	pulse(1);
	assert_int_equal(pic_ack(f.c), BASE + 1);
	pulse(4);
	pic_write(f.c, 0x21, 0x02);
	assert_false(pic_output(f.c));
	pic_write(f.c, 0x20, 0x68);
	assert_true(pic_output(f.c));
	pic_write(f.c, 0x20, 0x48);
	assert_false(pic_output(f.c));
}

/* A poll is an INTA that answers by the data bus, once. */
static void poll_command(void **state)
{
	(void)state;
	pulse(6);
	pic_write(f.c, 0x20, 0x0c);
	assert_int_equal(pic_read(f.c, 0x20), 0x86);
	assert_int_equal(isr(0x20), 0x40);
	pic_write(f.c, 0x20, 0x0c);
	assert_int_equal(pic_read(f.c, 0x20) & 0x80, 0);
}

/* ICW1 forgets masks, services and edges. */
static void reinitialise(void **state)
{
	(void)state;
	pulse(1);
	assert_int_equal(pic_ack(f.c), BASE + 1);
	pulse(3);
	pic_write(f.c, 0x21, 0xf0);
	fake_pic_init(&f, 0x50, 1);
	assert_int_equal(pic_read(f.c, 0x21), 0);
	assert_int_equal(isr(0x20) | irr(0x20), 0);
	assert_false(pic_output(f.c));
	pulse(3);
	assert_int_equal(pic_ack(f.c), 0x53);
}

/* Resampling hears of an EOI by GSI, on either half. */
static void acknowledged(void **state)
{
	(void)state;
	pulse(3);
	pulse(12);
	pic_ack(f.c);
	pic_write(f.c, 0xa0, EOI);
	pic_write(f.c, 0x20, EOI);
	assert_int_equal(f.acked[12], 1);
	assert_int_equal(f.acked[3], 0);
	pic_ack(f.c);
	pic_write(f.c, 0x20, EOI);
	assert_int_equal(f.acked[3], 1);
}

static void save_restore(void **state)
{
	struct pic_state s[2], wild;

	(void)state;
	pulse(3);
	pulse(9);
	assert_int_equal(pic_ack(f.c), BASE + 9);
	pic_get_state(f.c, false, &s[0]);
	pic_get_state(f.c, true, &s[1]);
	pic_write(f.c, 0x20, 0x11);
	pic_set_state(f.c, false, &s[0]);
	pic_set_state(f.c, true, &s[1]);
	pic_write(f.c, 0xa0, EOI);
	pic_write(f.c, 0x20, EOI);
	assert_int_equal(pic_ack(f.c), BASE + 3);

	memset(&wild, 0xff, sizeof(wild)); /* anything may come; the mask of ELCR is ours */
	pic_set_state(f.c, false, &wild);
	pic_get_state(f.c, false, &wild);
	assert_int_equal(wild.elcr_mask, 0xf8);
	assert_in_range(pic_ack(f.c), 0, 0xff + 7);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(order), TEST(nesting), TEST(special_fully_nested), TEST(edge_and_level),
		TEST(elcr_mask), TEST(spurious), TEST(result), TEST(sources), TEST(ocw2),
		TEST(automatic_eoi), TEST(special_mask), TEST(poll_command), TEST(reinitialise),
		TEST(acknowledged), TEST(save_restore),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
