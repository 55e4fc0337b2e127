// SPDX-License-Identifier: MIT
/* base/base.h's arithmetic: the macros and helpers that every folder relies on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/base.h"

static void bits_are_inclusive(void **state)
{
	(void)state;
	assert_int_equal(BITS(63, 0), ~0ull);
	assert_int_equal(BITS(51, 12), 0x000ffffffffff000ull);
	assert_int_equal(BITS(3, 3), 8);
}

static void extension(void **state)
{
	(void)state;
	assert_int_equal(sext(0x80, 1), -128);
	assert_int_equal(sext(0x180, 1), -128);
	assert_int_equal(zext(0x1234567890abcdef, 4), 0x90abcdef);
	assert_int_equal(sext(0x8000000000000000, 8), (s64)0x8000000000000000);
}

static void pages(void **state)
{
	(void)state;
	assert_int_equal(page_left(0x1000), 4096);
	assert_int_equal(page_left(0x1fff), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bits_are_inclusive),
		cmocka_unit_test(extension),
		cmocka_unit_test(pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
