/* SPDX-License-Identifier: MIT */
/* Page tables of 64-bit guests. */
#ifndef GUEST_PAGING_H
#define GUEST_PAGING_H

#include "lib.h"

#define P    0x1ul
#define W    0x2ul
#define U    0x4ul
#define A    0x20ul
#define D    0x40ul
#define PS   0x80ul
#define G    0x100ul
#define NX   (1ul << 63)
#define PKEY(n) ((ulong)(n) << 59)
#define ADDR 0x000ffffffffff000ul
/* Not even with 57 bits, which is what counts for bases where the processor has LA57. */
#define NONCANON57 0x0100000000000000ul

/* Error code of #PF */
#define E_P 1
#define E_W 2
#define E_U 4
#define E_R 8
#define E_I 16
#define E_K 32

/*
 * The entry for va at this level (1 = PT, 2 = PD, 3, 4, 5) under CR3; tables above it are
 * made as needed, with all rights.
 */
static inline u64 *entry(ulong va, int level)
{
	u64 *t = (u64 *)(read_cr3() & ADDR);

	for (int l = read_cr4() & CR4_LA57 ? 5 : 4; l > level; l--) {
		u64 *e = &t[va >> (3 + 9 * l) & 511];

		if (!(*e & P))
			*e = (ulong)page_alloc() | P | W | U;
		t = (u64 *)(*e & ADDR);
	}
	return &t[va >> (3 + 9 * level) & 511];
}

/* Map va -> pa by one entry of this level. */
static inline u64 *map(ulong va, ulong pa, int level, ulong flags)
{
	u64 *e = entry(va, level);

	*e = pa | flags | (level > 1 ? PS : 0);
	invlpg(va);
	return e;
}

#endif
