// SPDX-License-Identifier: MIT
/* Memslots, snapshots and the dirty log (TESTING items 9, 11, 12, 25, 36, 55, 60). */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mem/mem.h"

#define PAGES(n) ((n)*PAGE_SIZE)

static u8 ram[PAGES(256)] __attribute__((aligned(4096)));
static struct mem *m;

static int setup(void **state)
{
	(void)state;
	m = mem_create();
	return m ? 0 : -1;
}

static int teardown(void **state)
{
	(void)state;
	mem_destroy(m);
	return 0;
}

static int set(u16 id, u16 flags, u64 at, u64 pages, unsigned int ram_page)
{
	return mem_set_slot(m, 0, id, flags, gpa(at), PAGES(pages), ram + PAGES(ram_page));
}

/* Rows run in order on one VM; the results are KVM's. */
static void set_slot_rules(void **state)
{
	static const struct {
		const char *what;
		u16 id, flags;
		u64 at, pages;
		unsigned int ram_page;
		int ret;
	} row[] = {
		{"delete nothing", 0, 0, 0, 0, 0, -EINVAL},
		{"create", 0, 0, 0x10000, 16, 0, 0},
		{"the same again", 0, 0, 0x10000, 16, 0, 0},
		{"another, above", 1, 0, 0x40000, 16, 16, 0},
		{"between, exact fit", 2, 0, 0x20000, 32, 32, 0},
		{"overlap its first page", 3, 0, 0xf000, 2, 64, -EEXIST},
		{"overlap its last page", 3, 0, 0x4f000, 2, 64, -EEXIST},
		{"inside", 3, 0, 0x11000, 1, 64, -EEXIST},
		{"around all", 3, 0, 0, 128, 64, -EEXIST},
		{"below, touching", 3, 0, 0xf000, 1, 64, 0},
		{"resize", 0, 0, 0x10000, 15, 0, -EINVAL},
		{"other backing", 0, 0, 0x10000, 16, 1, -EINVAL},
		{"toggle read-only", 0, MEM_READONLY, 0x10000, 16, 0, -EINVAL},
		{"toggle logging", 0, MEM_LOG_DIRTY, 0x10000, 16, 0, 0},
		{"move onto another", 0, 0, 0x40000, 16, 0, -EEXIST},
		{"move over itself", 1, 0, 0x41000, 16, 16, 0},
		{"move far", 0, 0, 0x10000000000, 16, 0, 0},
		{"alias of one hva", 4, 0, 0x10000, 16, 0, 0},
		{"delete", 1, 0, 0, 0, 0, 0},
		{"delete again", 1, 0, 0, 0, 0, -EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		int ret = set(row[i].id, row[i].flags, row[i].at, row[i].pages, row[i].ram_page);

		if (ret != row[i].ret)
			fail_msg("%s: %d, not %d", row[i].what, ret, row[i].ret);
	}
	assert_int_equal(mem_set_slot(m, MEM_SPACES, 0, 0, gpa(0), PAGE_SIZE, ram), -EINVAL);
}

/* Every page of many slots with holes is found, and nothing else. */
static void find(void **state)
{
	struct memslots *s;

	(void)state;
	for (unsigned int n = 0; n < 40; n++) { /* an id order that is not the gpa order */
		unsigned int k = n * 7 % 40;

		assert_int_equal(set(k, 0, PAGES(3 * k + 1), 2, 2 * k), 0);
	}
	s = mem_get(m, 0);
	assert_int_equal(s->nr, 40);
	for (unsigned int p = 0; p < 130; p++) {
		const struct memslot *x = memslot_find(s, gpa(PAGES(p) + 0xfff));

		if (p % 3 == 0 || p >= 120) {
			assert_null(x);
			continue;
		}
		assert_non_null(x);
		assert_int_equal(x->id, p / 3);
		assert_ptr_equal(mem_hva(s, gpa(PAGES(p)), 1, false),
			ram + PAGES(2 * (p / 3) + p % 3 - 1));
	}
	assert_null(memslot_find(s, gpa(~0ull)));
	mem_put(s);
	s = mem_get(m, 1);
	assert_null(memslot_find(s, gpa(PAGES(1))));
	mem_put(s);
}

/* The accessor stays inside one slot and knows read-only. */
static void accessor(void **state)
{
	static const struct {
		u64 at, len;
		bool write;
		s64 off; /* in ram, -1: no RAM */
	} row[] = {
		{0x1000, 1, true, 0},
		{0x1000, 0x2000, true, 0},
		{0x2fff, 1, true, 0x1fff},
		{0x2fff, 2, false, -1}, /* runs into the next slot */
		{0x1000, 0x2001, false, -1},
		{0x1000, ~0ull, false, -1},
		{0xfff, 2, false, -1},
		{0x3000, 8, false, 0x8000},
		{0x3000, 8, true, -1}, /* read-only */
		{0x4000, 1, false, -1},
		{~0ull, 1, false, -1},
	};
	struct memslots *s;

	(void)state;
	assert_int_equal(set(7, 0, 0x1000, 2, 0), 0);
	assert_int_equal(set(8, MEM_READONLY, 0x3000, 1, 8), 0);
	s = mem_get(m, 0);
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		u8 *p = mem_hva(s, gpa(row[i].at), row[i].len, row[i].write);

		if (p != (row[i].off < 0 ? NULL : ram + row[i].off))
			fail_msg("row %zu", i);
	}
	mem_put(s);
}

/* An old snapshot stays whole; the generation tells that it is old, in every space. */
static void snapshots(void **state)
{
	struct memslots *a, *b, *other;
	u32 g = mem_generation(m);

	(void)state;
	assert_int_equal(set(0, MEM_LOG_DIRTY, 0, 4, 0), 0);
	a = mem_get(m, 0);
	assert_int_not_equal(a->generation, g);
	assert_int_equal(a->generation, mem_generation(m));
	assert_int_equal(set(0, 0, 0, 0, 0), 0);
	b = mem_get(m, 0);
	other = mem_get(m, 1);
	assert_int_not_equal(a->generation, mem_generation(m));
	assert_int_equal(b->generation, mem_generation(m));
	assert_int_equal(other->generation, mem_generation(m));
	assert_non_null(mem_hva(a, gpa(0), 1, true));
	assert_null(mem_hva(b, gpa(0), 1, true));
	mem_mark_dirty(a, gpa(0)); /* its bitmap outlived the slot */
	assert_false(mem_needs_dirty(a, gpa(0)));
	mem_put(a);
	mem_put(b);
	mem_put(other);
	g = mem_generation(m);
	assert_int_equal(set(0, 0, 0, 0, 0), -EINVAL);
	assert_int_equal(mem_generation(m), g);
}

static void dirty_marks(void **state)
{
	struct memslots *s;
	u64 map[3];

	(void)state;
	assert_int_equal(set(5, MEM_LOG_DIRTY, 0x100000, 130, 0), 0);
	assert_int_equal(mem_get_dirty(m, 0, 5, NULL, false), 24);
	assert_int_equal(mem_get_dirty(m, 0, 6, NULL, false), -ENOENT);
	assert_int_equal(mem_get_dirty(m, 1, 5, NULL, false), -ENOENT);
	s = mem_get(m, 0);
	assert_true(mem_needs_dirty(s, gpa(0x100fff)));
	assert_false(mem_needs_dirty(s, gpa(0xfffff)));
	mem_mark_dirty(s, gpa(0x100fff));
	mem_mark_dirty(s, gpa(0x100000 + PAGES(63)));
	mem_mark_dirty(s, gpa(0x100000 + PAGES(129) + 5));
	mem_mark_dirty(s, gpa(0x100000 + PAGES(130)));
	assert_false(mem_needs_dirty(s, gpa(0x100000)));
	assert_int_equal(mem_get_dirty(m, 0, 5, map, false), 24);
	assert_int_equal(map[0], 1 | BIT(63));
	assert_int_equal(map[1], 0);
	assert_int_equal(map[2], 2);
	assert_int_equal(mem_get_dirty(m, 0, 5, map, true), 24);
	assert_int_equal(map[2], 2);
	assert_int_equal(mem_get_dirty(m, 0, 5, map, true), 24);
	assert_int_equal(map[0] | map[1] | map[2], 0);
	assert_true(mem_needs_dirty(s, gpa(0x100000)));
	mem_put(s);
}

/* The bitmap follows the slot through a move, and ends with the flag. */
static void dirty_life(void **state)
{
	struct memslots *s;
	u64 map;

	(void)state;
	assert_int_equal(set(0, MEM_LOG_DIRTY, 0, 8, 0), 0);
	s = mem_get(m, 0);
	mem_mark_dirty(s, gpa(0x1000));
	assert_int_equal(set(0, MEM_LOG_DIRTY, 0x100000, 8, 0), 0);
	mem_mark_dirty(s, gpa(0x2000)); /* a late writer with the old snapshot */
	mem_put(s);
	assert_int_equal(mem_get_dirty(m, 0, 0, &map, false), 8);
	assert_int_equal(map, 6);
	assert_int_equal(set(0, 0, 0x100000, 8, 0), 0);
	assert_int_equal(mem_get_dirty(m, 0, 0, &map, false), -ENOENT);
	assert_int_equal(set(0, MEM_LOG_DIRTY, 0x100000, 8, 0), 0);
	assert_int_equal(mem_get_dirty(m, 0, 0, &map, false), 8);
	assert_int_equal(map, 0);
}

static void dirty_clear_ranges(void **state)
{
	static const struct {
		u64 first;
		u32 n;
		int ret;
		u64 left[3];
	} row[] = {
		{0, 64, 0, {1, ~0ull, 3}},
		{64, 66, 0, {~0ull, 1, 1}},
		{128, 2, 0, {~0ull, ~0ull, 1}},
		{0, 130, 0, {1, 1, 0}},
		{130, 0, -EINVAL, {~0ull, ~0ull, 3}}, /* first is no multiple of 64 */
		{1, 64, -EINVAL, {~0ull, ~0ull, 3}},
		{0, 63, -EINVAL, {~0ull, ~0ull, 3}},
		{64, 67, -EINVAL, {~0ull, ~0ull, 3}},
		{192, 0, -EINVAL, {~0ull, ~0ull, 3}},
		{BIT(63), 64, -EINVAL, {~0ull, ~0ull, 3}},
		{0, 0, 0, {~0ull, ~0ull, 3}},
	};
	const u64 mask[3] = {~1ull, ~1ull, ~0ull};
	u8 odd[sizeof(mask) + 1]; /* user space may hand us any alignment */
	u64 map[3];

	(void)state;
	memcpy(odd + 1, mask, sizeof(mask));
	assert_int_equal(set(5, MEM_LOG_DIRTY, 0, 130, 0), 0);
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct memslots *s = mem_get(m, 0);

		for (unsigned int p = 0; p < 130; p++)
			mem_mark_dirty(s, gpa(PAGES(p)));
		mem_put(s);
		assert_int_equal(mem_clear_dirty(m, 0, 5, row[i].first, row[i].n, odd + 1),
			row[i].ret);
		assert_int_equal(mem_get_dirty(m, 0, 5, map, false), 24);
		if (memcmp(map, row[i].left, 24))
			fail_msg("row %zu", i);
	}
	assert_int_equal(mem_clear_dirty(m, 0, 4, 0, 64, mask), -ENOENT);
	assert_int_equal(mem_clear_dirty(m, 2, 5, 0, 64, mask), -ENOENT);
}

/* Readers against a writer: every mark survives, every snapshot is whole (TSan watches). */
#define READERS 3

static void *reader(void *arg)
{
	unsigned int id = (uintptr_t)arg;

	for (unsigned int p = id; p < 256; p += READERS) {
		for (int again = 0; again < 20; again++) {
			struct memslots *s = mem_get(m, 0);
			u8 *h = mem_hva(s, gpa(PAGES(p)), 8, true);

			if (h != ram + PAGES(p))
				abort();
			mem_mark_dirty(s, gpa(PAGES(p)));
			mem_put(s);
		}
	}
	return NULL;
}

static void concurrent(void **state)
{
	pthread_t t[READERS];
	u64 seen[4] = {0}, map[4];

	(void)state;
	assert_int_equal(set(0, MEM_LOG_DIRTY, 0, 256, 0), 0);
	for (uintptr_t i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, reader, (void *)i), 0);
	for (int i = 0; i < 200; i++) {
		assert_int_equal(set(1, 0, BIT(32) + PAGES(i), 1, 0), 0);
		assert_int_equal(mem_get_dirty(m, 0, 0, map, true), 32);
		for (int k = 0; k < 4; k++)
			seen[k] |= map[k];
	}
	for (int i = 0; i < READERS; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(mem_get_dirty(m, 0, 0, map, true), 32);
	for (int k = 0; k < 4; k++)
		assert_int_equal(seen[k] | map[k], ~0ull);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(set_slot_rules),
		T(find),
		T(accessor),
		T(snapshots),
		T(dirty_marks),
		T(dirty_life),
		T(dirty_clear_ranges),
		T(concurrent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
