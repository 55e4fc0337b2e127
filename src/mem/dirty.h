/* SPDX-License-Identifier: MIT */
/*
 * The dirty bitmap of one memslot; private to mem/. Bits are atomic. Successive snapshots
 * that hold the same slot share one bitmap; it lives as long as any of them.
 */
#ifndef ANYKVM_MEM_DIRTY_H
#define ANYKVM_MEM_DIRTY_H

#include "base/base.h"

struct dirty_log {
	u32 refs; /* atomic */
	u64 words;
	u64 bit[]; /* atomic; page i is bit i % 64 of word i / 64, KVM's layout */
};

struct dirty_log *dirty_create(u64 pages); /* one reference; NULL: out of memory */
void dirty_get(struct dirty_log *d);	   /* NULL is allowed here and in dirty_put */
void dirty_put(struct dirty_log *d);

bool dirty_set(struct dirty_log *d, u64 page); /* true: it was not set before */
bool dirty_test(const struct dirty_log *d, u64 page);

/* Copy all words to out (any alignment) and, with clear, clear what was copied. */
void dirty_read(struct dirty_log *d, void *out, bool clear);

/* Clear the bits set in n words of mask (any alignment), the first of which is word `first`. */
void dirty_clear(struct dirty_log *d, u64 first, u64 n, const void *mask);

#endif
