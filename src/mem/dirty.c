// SPDX-License-Identifier: MIT
/*
 * Dirty bitmaps. They know pages of a slot, not guest addresses: memslot.c translates.
 *
 * A page is marked before (or while) it is written, and a bit is fetched before the
 * vCPUs drop their write translations; both races end with the bit in one of the two
 * bitmaps around the write, as KVM_GET_DIRTY_LOG demands.
 */
#include <stdlib.h>
#include <string.h>

#include "mem/dirty.h"

struct dirty_log *dirty_create(u64 pages)
{
	u64 words = (pages + 63) / 64;
	struct dirty_log *d = calloc(1, sizeof(*d) + words * sizeof(d->bit[0]));

	if (!d)
		return NULL;
	d->refs = 1;
	d->words = words;
	return d;
}

void dirty_get(struct dirty_log *d)
{
	if (d)
		__atomic_fetch_add(&d->refs, 1, __ATOMIC_RELAXED);
}

void dirty_put(struct dirty_log *d)
{
	if (d && __atomic_sub_fetch(&d->refs, 1, __ATOMIC_ACQ_REL) == 0)
		free(d);
}

bool dirty_test(const struct dirty_log *d, u64 page)
{
	return __atomic_load_n(&d->bit[page / 64], __ATOMIC_RELAXED) & BIT(page % 64);
}

bool dirty_set(struct dirty_log *d, u64 page)
{
	u64 bit = BIT(page % 64);

	/* The test spares the locked operation in the usual case. */
	return !dirty_test(d, page) &&
	       !(__atomic_fetch_or(&d->bit[page / 64], bit, __ATOMIC_SEQ_CST) & bit);
}

void dirty_read(struct dirty_log *d, void *out, bool clear)
{
	for (u64 i = 0; i < d->words; i++) {
		u64 v = __atomic_load_n(&d->bit[i], __ATOMIC_RELAXED);

		if (v && clear)
			v = __atomic_exchange_n(&d->bit[i], 0, __ATOMIC_SEQ_CST);
		memcpy((u8 *)out + 8 * i, &v, 8);
	}
}

void dirty_clear(struct dirty_log *d, u64 first, u64 n, const void *mask)
{
	for (u64 i = 0; i < n; i++) {
		u64 m;

		memcpy(&m, (const u8 *)mask + 8 * i, 8);
		if (m)
			__atomic_fetch_and(&d->bit[first + i], ~m, __ATOMIC_SEQ_CST);
	}
}
