// SPDX-License-Identifier: MIT
/* The 8254: counting modes, access modes, latches, the ticks of channel 0 and their reinjection. */
#include "irq/irq_fake.h"

#include <errno.h>

#define HZ 1193182ull

static struct fake f;

static int setup(void **state)
{
	(void)state;
	fake_start(&f, IRQCHIP_FULL, 0, 1);
	fake_pic_init(&f, 0x20, 1);
	return pit_create(f.c, 0, NULL);
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

/* Let so many PIT clocks pass, and half a clock. */
static void clocks(u64 n)
{
	f.ns += (2 * n + 1) * 500000000 / HZ;
	fake_run(&f);
}

static void load(unsigned int ch, u8 mode, u16 count)
{
	pit_write(f.c, 0x43, (u8)(ch << 6 | 0x30 | mode << 1));
	pit_write(f.c, 0x40 + ch, (u8)count);
	pit_write(f.c, 0x40 + ch, (u8)(count >> 8));
}

static u16 read_word(unsigned int ch)
{
	u8 low = pit_read(f.c, 0x40 + ch);

	return (u16)(low | pit_read(f.c, 0x40 + ch) << 8);
}

static bool out(unsigned int ch)
{
	pit_write(f.c, 0x43, (u8)(0xe0 | 2u << ch));
	return pit_read(f.c, 0x40 + ch) >> 7;
}

/* Counter and output of channel 2, so many clocks after its load. */
static void modes(void **state)
{
	static const struct {
		u8 mode;
		u16 count;
		u64 clocks;
		u16 counter;
		bool out;
	} row[] = {
		{0, 1000, 10, 990, false}, {0, 1000, 999, 1, false}, {0, 1000, 1000, 0, true},
		{0, 1000, 1003, 0xfffd, true}, {0, 0, 1, 0xffff, false},
		{1, 1000, 10, 990, true}, {1, 1000, 1000, 0, false},
		{2, 1000, 10, 990, false}, {2, 1000, 1010, 990, false},
		{3, 1000, 10, 980, true}, {3, 1000, 499, 2, true}, {3, 1000, 510, 980, false},
		{3, 1000, 1010, 980, true},
		{4, 1000, 10, 990, true}, {4, 1000, 1000, 0, false}, {4, 1000, 1001, 0xffff, true},
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		again(state);
		pit_write(f.c, 0x61, 1); /* gate */
		load(2, row[i].mode, row[i].count);
		clocks(row[i].clocks);
		assert_int_equal(read_word(2), row[i].counter);
		assert_int_equal(out(2), row[i].out);
	}
}

/* What is read, byte by byte, of a counter of 0x1234 by access mode (control word bits 5:4). */
static void access_modes(void **state)
{
	static const struct {
		u8 control, write[2], read[2];
	} row[] = {
		{0x10, {0x34, 0x34}, {0x34, 0x34}},
		{0x20, {0x12, 0x12}, {0x00, 0x12}},
		{0x30, {0x34, 0x12}, {0x34, 0x12}},
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		again(state);
		pit_write(f.c, 0x43, 0x80 | row[i].control);
		pit_write(f.c, 0x42, row[i].write[0]);
		if (row[i].control == 0x30)
			pit_write(f.c, 0x42, row[i].write[1]);
		if (row[i].control == 0x20)
			assert_int_equal(pit_read(f.c, 0x42), row[i].read[1]);
		else
			assert_int_equal(pit_read(f.c, 0x42), row[i].read[0]);
		assert_int_equal(pit_read(f.c, 0x42), row[i].read[1]);
	}
}

/* A latched count stays until it is read; a second latch before that changes nothing. */
static void latches(void **state)
{
	(void)state;
	load(2, 0, 5000);
	clocks(100);
	pit_write(f.c, 0x43, 0x80);
	clocks(100);
	pit_write(f.c, 0x43, 0x80);
	assert_int_equal(read_word(2), 4900);
	assert_in_range(read_word(2), 4795, 4801);

	pit_write(f.c, 0x43, 0xc8); /* read back: count and status of channel 2 */
	clocks(100);
	assert_int_equal(pit_read(f.c, 0x42), 0x30); /* word access, mode 0, output low */
	assert_in_range(read_word(2), 4795, 4801);
}

/* The gate of channel 2 at port 61: its rise restarts, and the output is bit 5. */
static void gate(void **state)
{
	(void)state;
	load(2, 1, 1000);
	clocks(5000);
	assert_int_equal(pit_read(f.c, 0x61) & 0x21, 0);
	pit_write(f.c, 0x61, 3);
	clocks(10);
	assert_int_equal(pit_read(f.c, 0x61) & 0x23, 0x23);
	assert_int_equal(read_word(2), 990);
	pit_write(f.c, 0x61, 3); /* still high: no edge */
	clocks(10);
	assert_in_range(read_word(2), 979, 980);
}

static unsigned int take(void)
{
	unsigned int n = 0;

	while (pic_output(f.c)) {
		pic_ack(f.c);
		pic_write(f.c, 0x20, 0x20);
		n++;
	}
	return n;
}

/* Ticks of channel 0 in so many clocks, taken one by one. */
static void ticks(void **state)
{
	static const struct {
		u8 mode;
		u16 count;
		unsigned int periods, ticks;
	} row[] = {
		{0, 1000, 5, 1}, {4, 1000, 5, 1}, {2, 1000, 5, 5}, {3, 1000, 5, 5},
		{5, 1000, 5, 0}, {2, 0, 3, 3},
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		unsigned int n = 0;

		again(state);
		load(0, row[i].mode, row[i].count);
		for (unsigned int k = 0; k < row[i].periods; k++) {
			clocks(row[i].count ? row[i].count : 0x10000);
			n += take();
		}
		assert_int_equal(n, row[i].ticks);
	}
}

/* They do not drift: after an hour of 1 kHz the next tick is where it was to be. */
static void no_drift(void **state)
{
	(void)state;
	load(0, 2, 1193);
	f.ns += 3600ull * 1000000000;
	fake_run(&f);
	take();
	assert_non_null(f.queue);
	assert_int_equal((f.queue->deadline_ns - 1000) * HZ / 1000000000 % 1193, 0);
}

/* Late ticks come one after the other with reinjection, as one without. */
static void reinjection(void **state)
{
	for (unsigned int on = 0; on < 2; on++) {
		again(state);
		pit_set_reinject(f.c, on);
		assert_int_equal(pit_get_reinject(f.c), on);
		load(0, 2, 1000);
		clocks(10000);
		assert_int_equal(take(), on ? 10 : 1);
	}
}

static unsigned int taken;

static void take_at_once(struct fake *fake)
{
	fake->on_kick = NULL;
	taken += take();
	fake->on_kick = take_at_once;
}

/* The guest acknowledges a tick before its pulse has ended: the next one is an edge all the same. */
static void fast_guest(void **state)
{
	(void)state;
	taken = 0;
	f.on_kick = take_at_once;
	load(0, 2, 1000);
	clocks(10000);
	assert_int_equal(taken, 10);
	clocks(3000);
	assert_int_equal(taken, 13);
}

static struct pic_state seen;

static void save_master(struct fake *fake)
{
	pic_get_state(fake->c, 0, &seen);
}

/* A state that is read in the middle of a pulse: where it is restored nobody would end the pulse. */
static void pulse_is_no_state(void **state)
{
	(void)state;
	f.on_kick = save_master;
	load(0, 2, 1000);
	clocks(1000);
	assert_int_equal(seen.irr & 1, 1);
	assert_int_equal(seen.last_irr & 1, 0);
}

/* Unmasking the line forgets what was late. */
static void unmasked(void **state)
{
	(void)state;
	load(0, 2, 1000);
	clocks(3000);
	pic_write(f.c, 0x21, 1);
	pic_write(f.c, 0x21, 0);
	assert_int_equal(take(), 1);
}

static void hpet_legacy(void **state)
{
	struct pit_state s;

	(void)state;
	load(0, 2, 1000);
	pit_get_state(f.c, &s);
	s.flags |= PIT_FLAGS_HPET_LEGACY;
	pit_set_state(f.c, &s);
	clocks(5000);
	assert_int_equal(take(), 0);
	pit_get_state(f.c, &s);
	assert_int_equal(s.flags, PIT_FLAGS_HPET_LEGACY);
}

/* Anything may come by KVM_SET_PIT2. */
static void wild_state(void **state)
{
	struct pit_state s;

	(void)state;
	memset(&s, 0xff, sizeof(s));
	pit_set_state(f.c, &s);
	clocks(100000);
	for (u16 port = 0x40; port < 0x44; port++) {
		pit_write(f.c, port, 0xff);
		pit_read(f.c, port);
	}
	pit_get_state(f.c, &s);
	for (unsigned int i = 0; i < 3; i++)
		assert_in_range(s.channels[i].count, 1, 0x10000);
}

static void creation(void **state)
{
	struct fake split;

	(void)state;
	assert_int_equal(pit_create(f.c, 0, NULL), -EEXIST);
	fake_start(&split, IRQCHIP_SPLIT, 24, 1);
	assert_int_equal(pit_create(split.c, 0, NULL), -ENOENT);
	assert_false(pit_exists(split.c));
	fake_stop(&split);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(modes), TEST(access_modes), TEST(latches), TEST(gate), TEST(ticks),
		TEST(no_drift), TEST(reinjection), TEST(fast_guest), TEST(pulse_is_no_state), TEST(unmasked), TEST(hpet_legacy),
		TEST(wild_state), TEST(creation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
