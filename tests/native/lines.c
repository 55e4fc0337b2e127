// SPDX-License-Identifier: MIT
/*
 * The LDT. The window of guest memory: its content before a case, and what a case has changed. Both
 * sides run this code on memory of their own; like ref.c it uses no libc.
 */
#include "native.h"

const struct ldt_entry ldt_entries[NR_LDT] = {
	{CODE_A, 0xffff, true, false},
	{CODE_B, 0xffff, true, false},
	{DATA, 0xffff, false, false},
	{DATA, ~0u, false, true},
};

bool have_ldt;

u64 selector_base(u16 sel)
{
	return sel & 4 && sel >> 3 < NR_LDT ? ldt_entries[sel >> 3].base : 0;
}

u8 pristine[DATA_SIZE] __attribute__((aligned(64)));

/* Random bytes, but every fourth 256 bytes all alike: strings must find equal elements too. */
void pristine_fill(void)
{
	struct rng r = {.s = 1};

	for (unsigned int k = 0; k < DATA_SIZE; k++) {
		if (k % 1024 < 256)
			pristine[k] = k / 1024;
		else
			pristine[k] = rnd(&r);
	}
}

static void copy(void *to, const void *from, unsigned long n)
{
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

void apply_pokes(u8 *window, const struct native_case *c)
{
	for (unsigned int k = 0; k < c->nr_pokes; k++)
		copy(window + c->pokes[k].off, c->pokes[k].data, c->pokes[k].len);
}

static bool same_line(const u64 *a, const u64 *b)
{
	u64 x = 0;

	for (unsigned int k = 0; k < LINE / 8; k++)
		x |= a[k] ^ b[k];
	return !x;
}

static u64 hash_line(u64 h, const u64 *p)
{
	for (unsigned int k = 0; k < LINE / 8; k++)
		h = (h ^ p[k]) * 0x9e3779b97f4a7c15ull, h ^= h >> 29;
	return h;
}

void collect_lines(u8 *window, struct outcome *out)
{
	out->nr_lines = 0;
	out->hash = 0;
	for (unsigned int n = 0; n < NR_LINES; n++) {
		u64 *at = (u64 *)(window + n * LINE);

		if (same_line(at, (u64 *)(pristine + n * LINE)))
			continue;
		out->hash = hash_line(out->hash + n, at);
		if (out->nr_lines < MAX_LINES) {
			out->lines[out->nr_lines].n = n;
			copy(out->lines[out->nr_lines].data, at, LINE);
		}
		out->nr_lines++;
		copy(at, pristine + n * LINE, LINE);
	}
}
