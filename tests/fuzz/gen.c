// SPDX-License-Identifier: MIT
/* See gen.h. Bytes are composed from a row's selectors; the decoder has the last word. */
#include "gen.h"

#include "x86/rows.h"

u64 gen_next(struct gen *g)
{
	u64 z = g->state += 0x9e3779b97f4a7c15ull; /* splitmix64 */

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

struct bytes {
	u8 *p;
	unsigned int n;
};

static void put(struct bytes *b, u8 v)
{
	if (b->n < 15)
		b->p[b->n++] = v;
}

/* One of the set's prefixes: bit 0 none, 1 = 66, 2 = F3, 3 = F2. */
static unsigned int pick_pp(struct gen *g, unsigned int set)
{
	unsigned int k;

	do
		k = gen_below(g, 4);
	while (!(set & (1u << k)));
	return k;
}

static void put_prefixes(struct gen *g, struct bytes *b, const struct insn_row *r, u32 sel)
{
	static const u8 pp[4] = {0, 0x66, 0xf3, 0xf2};
	static const u8 segs[] = {0x64, 0x65, 0x36};
	unsigned int k = SEL_PP(sel) ? pick_pp(g, SEL_PP(sel)) : 0;

	if (k)
		put(b, pp[k]);
	else if (gen_one_in(g, 6))
		put(b, 0x66);
	if ((r->rules & RULE_REP) && gen_below(g, 3))
		put(b, gen_one_in(g, 2) ? 0xf3 : 0xf2);
	if ((r->rules & RULE_LOCK) && gen_one_in(g, 4))
		put(b, 0xf0);
	if (gen_one_in(g, 12))
		put(b, segs[gen_below(g, 3)]);
	if (gen_one_in(g, 20))
		put(b, 0x67);
	if (gen_one_in(g, 2))
		put(b, 0x40 | gen_below(g, 16));
}

static u8 pick_opcode(struct gen *g, const struct row_sel *s)
{
	unsigned int n = s->sel & SEL_X16 ? 16 : s->sel & SEL_X8 ? 8 : 1;

	return s->opcode + gen_below(g, n);
}

static void put_legacy(struct gen *g, struct bytes *b, const struct insn_row *r,
	const struct row_sel *s)
{
	put_prefixes(g, b, r, s->sel);
	if (s->map != MAP_ONE)
		put(b, 0x0f);
	if (s->map == MAP_L38 || s->map == MAP_L3A)
		put(b, s->map == MAP_L38 ? 0x38 : 0x3a);
	put(b, pick_opcode(g, s));
}

static void put_vex(struct gen *g, struct bytes *b, const struct insn_row *r, const struct row_sel *s)
{
	unsigned int pp = SEL_PP(s->sel) ? pick_pp(g, SEL_PP(s->sel)) : gen_below(g, 4);
	unsigned int w = r->rules & RULE_W1 ? 1 : r->rules & RULE_W0 ? 0 : gen_below(g, 2);
	unsigned int l = r->rules & RULE_VL1 ? 1 : r->rules & RULE_VL0 ? 0 : gen_below(g, 2);
	unsigned int v = r->rules & RULE_NOVVVV ? 15 : gen_below(g, 16);

	put(b, 0xc4);
	put(b, gen_below(g, 8) << 5 | (s->map - MAP_V0F + 1));
	put(b, w << 7 | v << 3 | l << 2 | pp);
	put(b, pick_opcode(g, s));
}

static void put_modrm(struct gen *g, struct bytes *b, u32 sel)
{
	bool reg = (sel & SEL_REG) || (!(sel & SEL_MEM) && gen_one_in(g, 4));
	unsigned int mod = reg ? 3 : gen_below(g, 3);
	unsigned int r = SEL_G(sel) ? SEL_G(sel) - 1 : gen_below(g, 8);
	unsigned int rm = SEL_RM(sel) ? SEL_RM(sel) - 1 : gen_below(g, 8);

	put(b, mod << 6 | r << 3 | rm);
	if (mod != 3 && rm == 4) /* SIB: most often without index */
		put(b, gen_below(g, 4) << 6 | (gen_below(g, 4) ? 4 : gen_below(g, 8)) << 3 |
			gen_below(g, 8));
}

/* Displacement, immediate: what the decoder takes of it. Small numbers stay near the page. */
static void put_rest(struct gen *g, struct bytes *b)
{
	bool small = gen_below(g, 4);

	put(b, gen_next(g));
	for (unsigned int k = 0; k < 9; k++)
		put(b, small ? 0 : gen_next(g));
}

static bool wanted(const struct insn *i)
{
	const struct insn_row *r = insn_row(i);

	if ((r->rules & RULE_CPL0) || r->cls == CLASS_UD || r->cls == CLASS_U)
		return false;
	switch (insn_op(i)) {
	case OP_JCC:
	case OP_LOOP:
	case OP_LOOPE:
	case OP_LOOPNE:
	case OP_JCXZ:
	case OP_RDTSC:
	case OP_RDTSCP:
	case OP_RDPMC:
	case OP_RDRAND:
	case OP_RDSEED:
	case OP_SYSCALL:
	case OP_SYSENTER:
	case OP_VMCALL:
	case OP_VMMCALL:
	case OP_MONITOR:
	case OP_MWAIT:
	case OP_XSETBV:
	case OP_INT1:
		return false;
	case OP_JMP:
		return i->flags & INSN_MEM;
	default:
		return true;
	}
}

unsigned int gen_insn(struct gen *g, u8 out[15], struct insn *i)
{
	for (;;) {
		unsigned int k = 1 + gen_below(g, nr_insn_rows - 1);
		const struct row_sel *s = &insn_sels[k];
		struct bytes b = {.p = out};

		if (s->map >= MAP_V0F)
			put_vex(g, &b, &insn_rows[k], s);
		else
			put_legacy(g, &b, &insn_rows[k], s);
		put_modrm(g, &b, s->sel);
		put_rest(g, &b);
		if (insn_decode(i, MODE_64, out, b.n) == DECODE_OK && wanted(i))
			return i->len;
	}
}
