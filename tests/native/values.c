// SPDX-License-Identifier: MIT
/* Edge and random values of operands: integers, addresses, selectors, floats, x87 state. */
#include "native.h"

#include "x86/bits.h"

#include <string.h>

/* ---- integers ---------------------------------------------------------------------------- */

static u64 rnd_edge(struct rng *r)
{
	static const u8 width[] = {8, 16, 32, 64};
	unsigned int n = width[below(r, 4)];
	u64 v = below(r, 2) ? 1ull << (n - 1) : n == 64 ? 0 : 1ull << n;

	return v + (s64)below(r, 5) - 2;
}

u64 rnd_value(struct rng *r)
{
	switch (below(r, 8)) {
	case 0:
		return rnd_edge(r);
	case 1:
		return (s64)below(r, 256) - 128;
	case 2:
		return 1ull << below(r, 64);
	case 3:
		return ~0ull << below(r, 64);
	case 4:
		return rnd(r) >> below(r, 64);
	case 5:
		return DATA + below(r, DATA_SIZE);
	default:
		return rnd(r);
	}
}

/* ---- addresses --------------------------------------------------------------------------- */

/* Rarely: nothing mapped, not canonical, the supervisor's half, and the edges of all these. */
static u64 rnd_bad_address(struct rng *r, unsigned int len)
{
	switch (below(r, 8)) {
	case 0:
		return DATA - 1 - below(r, len + 16);
	case 1:
		return DATA_END - below(r, len + 1) + below(r, 16);
	case 2:
		return (1ull << 47) - below(r, len + 2);
	case 3:
		return ~0ull << 47 | below(r, 64);
	case 4:
		return -(u64)below(r, len + 2);
	case 5:
		return below(r, 64);
	case 6:
		return CODE_A + below(r, 2 * PAGE_SIZE);
	default:
		return rnd(r);
	}
}

u64 rnd_address(struct rng *r, unsigned int len)
{
	u64 page = DATA + below(r, DATA_RW) * PAGE_SIZE;

	switch (below(r, 16)) {
	case 0:
		return rnd_bad_address(r, len);
	case 1: /* into the read-only page, or across its edge */
		return DATA + DATA_RW * PAGE_SIZE - below(r, len + 2) +
			(below(r, 2) ? 0 : below(r, 256));
	case 2: /* across a page */
	case 3:
		return page + PAGE_SIZE - 1 - below(r, len + 1);
	case 4: /* across a line */
		return page + below(r, 64) * LINE - 1 - below(r, len + 1) + LINE;
	case 5:
	case 6:
	case 7:
		return page + below(r, PAGE_SIZE - 64);
	default:
		return (page + below(r, PAGE_SIZE)) & ~(len & (len - 1) ? 63ull : len - 1ull);
	}
}

u64 rnd_target(struct rng *r)
{
	switch (below(r, 8)) {
	case 0:
		return DATA + below(r, DATA_SIZE);
	case 1:
		return CODE_A + PAGE_SIZE + below(r, 1u << 20);
	case 2:
		return CODE_B + 64 + below(r, 2 * PAGE_SIZE - 128); /* HLT */
	case 3:
		return rnd(r) >> (17 + below(r, 17)); /* not where a PIE's text or libc could be: high bits */
	case 4:
		return 0x8000000000000000ull | rnd(r) >> 4;
	case 5:
		return ~0ull << 47 | rnd(r) >> 24;
	default:
		return below(r, 1u << 31) | 1u << 29;
	}
}

/* Linux' descriptors that both sides have; others are beyond the limit or in no LDT. */
u16 rnd_selector(struct rng *r)
{
	static const u8 known[] = {0, 0x08, 0x10, 0x18, 0x20, 0x28, 0x28, 0x28, 0x30, 0x30, 0x60, 0x70};

	if (one_in(r, 8))
		return rnd(r) | 0x84;
	return known[below(r, sizeof(known))] | (below(r, 4) ? 3 : below(r, 4));
}

/* ---- floats and vectors -------------------------------------------------------------------- */

static u32 rnd_float(struct rng *r)
{
	static const u32 edge[] = {
		0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001,
		0xffc12345, 1, 0x807fffff, 0x00800000, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x5f000000,
		0xdf000000, 0x4f800000, 0x3f000000, 0x40490fdb, 0x33800000, 0x4b000001,
	};
	u32 v = rnd(r);

	switch (below(r, 4)) {
	case 0:
		return edge[below(r, ARRAY_SIZE(edge))];
	case 1: /* near one another: additions round */
		return (v & 0x80ffffff) | (112 + below(r, 32)) << 23;
	default:
		return v;
	}
}

static u64 rnd_double(struct rng *r)
{
	static const u64 edge[] = {
		0, 1ull << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000,
		0xfff0000000000000, 0x7ff8000000000000, 0x7ff0000000000001, 0xfff8123456789abc, 1,
		0x800fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff, 0x41e0000000000000,
		0xc1e0000000000000, 0x43e0000000000000, 0xc3e0000000000000, 0x3fe0000000000000,
		0x47efffffe0000000, 0x36a0000000000000, 0x3810000000000000, 0x4330000000000001,
	};
	u64 v = rnd(r);

	switch (below(r, 4)) {
	case 0:
		return edge[below(r, ARRAY_SIZE(edge))];
	case 1:
		return (v & 0x800fffffffffffff) | (u64)(1008 + below(r, 32)) << 52;
	default:
		return v;
	}
}

/* Double extended, with the encodings that no processor since the 387 makes. */
static void rnd_extended(struct rng *r, u8 *p)
{
	static const u16 exponent[] = {0, 1, 0x3ffe, 0x3fff, 0x4000, 0x403e, 0x403f, 0x7ffe, 0x7fff};
	u64 m = rnd(r) | 1ull << 63;
	u16 e = below(r, 0x8000);

	if (below(r, 2))
		e = 0x3fff + below(r, 80) - 40;
	else if (below(r, 2))
		e = exponent[below(r, ARRAY_SIZE(exponent))];
	if (one_in(r, 4))
		m = 1ull << 63 | rnd(r) >> below(r, 64);
	if (one_in(r, 4))
		m = ~0ull << below(r, 63);
	if (one_in(r, 12))
		m = rnd(r) >> below(r, 64);
	if (one_in(r, 8))
		m = e = 0;
	e |= below(r, 2) << 15;
	memcpy(p, &m, 8);
	memcpy(p + 8, &e, 2);
}

void rnd_bytes(struct rng *r, void *p, unsigned int n)
{
	u8 *b = p, one[16];
	unsigned int kind = below(r, 8), k, step;
	u64 v;

	for (k = 0; k < n; k += step) {
		step = kind == 1 ? 4 : kind == 7 ? 10 : 8;
		v = kind == 1 ? rnd_float(r) : kind == 2 || kind == 3 ? rnd_double(r) :
			kind < 6 ? rnd(r) : rnd_value(r);
		memcpy(one, &v, 8);
		if (kind == 7)
			rnd_extended(r, one);
		memcpy(b + k, one, MIN(step, n - k));
	}
}

void rnd_vectors(struct rng *r, struct mstate *s)
{
	unsigned int n;

	for (n = 0; n < 16; n++)
		rnd_bytes(r, s->ymm[n], 32);
	if (one_in(r, 4)) /* equal ones, for comparisons */
		memcpy(s->ymm[below(r, 16)], s->ymm[below(r, 16)], 32);
}

u32 rnd_mxcsr(struct rng *r)
{
	u32 v = 0x1f80;

	if (below(r, 2))
		v |= rnd(r) & 0xe07f; /* rounding, flush, denormals, flags */
	if (one_in(r, 6))
		v &= ~(rnd(r) & 0x1f80);
	return v;
}

void rnd_x87(struct rng *r, struct mstate *s)
{
	u16 cw = 0x37f, sw = below(r, 8) << 11, fop = 0;
	u8 tag = rnd(r);
	u64 fip = 0, fdp = 0;

	if (below(r, 2))
		cw = (cw & ~0xf00) | (rnd(r) & 0xf00); /* precision, rounding */
	if (one_in(r, 4))
		cw &= ~(rnd(r) & 0x3f);
	if (below(r, 2))
		sw |= rnd(r) & 0x4700; /* condition codes */
	if (one_in(r, 4))
		sw |= rnd(r) & 0x3f;
	if (one_in(r, 4))
		sw |= 0x40; /* SF */
	if (sw & ~cw & 0x3f) /* pending: only some of the time, or nothing else is seen */
		sw = one_in(r, 4) ? sw | 0x8080 : sw & ~(~cw & 0x3f);
	if (below(r, 2))
		tag = below(r, 2) ? 0xff : 0;
	if (sw & 0x80) { /* else AMD neither loads nor stores the pointers: see compare.c */
		fop = rnd(r) & 0x7ff;
		fip = rnd(r) >> 17;
		fdp = rnd(r) >> 17;
	}
	memset(s->fx, 0, sizeof(s->fx));
	memcpy(s->fx, &cw, 2);
	memcpy(s->fx + 2, &sw, 2);
	s->fx[4] = tag;
	memcpy(s->fx + 6, &fop, 2);
	memcpy(s->fx + 8, &fip, 8);
	memcpy(s->fx + 16, &fdp, 8);
	for (unsigned int n = 0; n < 8; n++)
		rnd_extended(r, s->fx + 32 + 16 * n);
}
