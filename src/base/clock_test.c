// SPDX-License-Identifier: MIT
/* base/clock.c: the kvmclock scale loses no precision at any TSC frequency. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/clock.h"

static void known_values(void **state)
{
	static const struct {
		u32 khz, mult;
		s8 shift;
	} row[] = {
		{ 1000000, 0x80000000, 1 },	/* 1 tick = 1 ns */
		{ 2000000, 0x80000000, 0 },
		{ 4000000, 0x80000000, -1 },
		{ 3000000, 0xaaaaaaaa, -1 },
		{ 500000, 0x80000000, 2 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		u32 mult;
		s8 shift;

		pvclock_scale(row[i].khz, &mult, &shift);
		assert_int_equal(mult, row[i].mult);
		assert_int_equal(shift, row[i].shift);
	}
}

/* An hour of ticks is an hour of nanoseconds within 4 us, and the top bit is used. */
static void any_frequency(void **state)
{
	(void)state;
	for (u64 khz = 1; khz <= UINT32_MAX; khz = khz * 5 / 4 + 1) {
		u64 ticks = khz * 1000 * 3600, want = 3600000000000ull, got;
		u32 mult;
		s8 shift;

		pvclock_scale((u32)khz, &mult, &shift);
		assert_true(mult & 0x80000000);
		got = pvclock_ns(ticks, mult, shift);
		assert_in_range(got, want - 4000, want + 1);
	}
}

static void zero_frequency(void **state)
{
	u32 mult = 0;
	s8 shift;

	(void)state;
	pvclock_scale(0, &mult, &shift);
	assert_true(mult & 0x80000000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(known_values),
		cmocka_unit_test(any_frequency),
		cmocka_unit_test(zero_frequency),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
