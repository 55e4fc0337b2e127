// SPDX-License-Identifier: MIT
/* Dirty bitmaps: layout, fetching with and without clearing, partial clearing, lifetime, races. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "mem/dirty.h"

/* KVM's layout: page i is bit i % 8 of byte i / 8; whole words of 64 bits. */
static void layout(void **state)
{
	static const struct {
		u64 pages, words, page, byte;
		u8 bit;
	} row[] = {
		{1, 1, 0, 0, 0x01}, {64, 1, 63, 7, 0x80}, {65, 2, 64, 8, 0x01},
		{1000, 16, 777, 97, 0x02},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct dirty_log *d = dirty_create(row[i].pages);
		u8 out[16 * 8 + 1], want[16 * 8] = {0};

		assert_int_equal(d->words, row[i].words);
		assert_false(dirty_test(d, row[i].page));
		dirty_set(d, row[i].page);
		dirty_set(d, row[i].page);
		assert_true(dirty_test(d, row[i].page));
		want[row[i].byte] = row[i].bit;
		dirty_read(d, out + 1, false); /* any alignment */
		assert_memory_equal(out + 1, want, 8 * d->words);
		dirty_read(d, out + 1, true);
		assert_memory_equal(out + 1, want, 8 * d->words);
		dirty_read(d, out + 1, false);
		want[row[i].byte] = 0;
		assert_memory_equal(out + 1, want, 8 * d->words);
		dirty_put(d);
	}
}

static void clear_some(void **state)
{
	struct dirty_log *d = dirty_create(192);
	u64 mask[2] = {0x0f, 1}, out[3];

	(void)state;
	for (u64 p = 0; p < 192; p++)
		dirty_set(d, p);
	dirty_clear(d, 1, 2, mask);
	dirty_read(d, out, false);
	assert_int_equal(out[0], ~0ull);
	assert_int_equal(out[1], ~0xfull);
	assert_int_equal(out[2], ~1ull);
	dirty_put(d);
}

/* Snapshots share a bitmap; it lives as long as any (a sanitizer sees whether it is so). */
static void lifetime(void **state)
{
	struct dirty_log *d = dirty_create(64);

	(void)state;
	dirty_get(d);
	dirty_put(d);
	dirty_set(d, 5);
	assert_true(dirty_test(d, 5));
	dirty_put(d);
	dirty_get(NULL);
	dirty_put(NULL);
}

#define RACES 20000

static void *marker(void *arg)
{
	for (u64 i = 0; i < RACES; i++)
		dirty_set(arg, i % 128);
	return NULL;
}

/* A mark that comes while the bitmap is fetched is in this bitmap or in the next: none is lost. */
static void marked_while_fetched(void **state)
{
	struct dirty_log *d = dirty_create(128);
	u64 out[2], seen[2] = {0, 0};
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, marker, d), 0);
	for (unsigned int i = 0; i < 1000; i++) {
		dirty_read(d, out, true);
		seen[0] |= out[0];
		seen[1] |= out[1];
	}
	pthread_join(t, NULL);
	dirty_read(d, out, true);
	assert_int_equal(seen[0] | out[0], ~0ull);
	assert_int_equal(seen[1] | out[1], ~0ull);
	dirty_put(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(layout),
		cmocka_unit_test(clear_some),
		cmocka_unit_test(lifetime),
		cmocka_unit_test(marked_while_fetched),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
