// SPDX-License-Identifier: MIT
/* Mirrors of guest registers, flags, memory operands. Read gen.h before. */
#include "translate/gen.h"

static const u8 pool[] = {RCX, RBX, RBP, RSI, R8, R9};

/* ---- mirrors ---- */

static s32 reg_at(unsigned int n)
{
	return offsetof(struct cpu, regs) + 8 * n;
}

/* A host register: free, or the one that has not been used for longest. */
static u8 choose(const struct gen *g)
{
	u8 best = NO_HOST;

	for (unsigned int k = 0; k < ARRAY_SIZE(pool); k++) {
		u8 h = pool[k];

		if (g->busy & BIT(h))
			continue;
		if (g->guest_of[h] == NO_HOST)
			return h;
		if (best == NO_HOST || g->age[h] < g->age[best])
			best = h;
	}
	return best;
}

static u8 take(struct gen *g, u8 h)
{
	g->busy |= BIT(h);
	g->age[h] = ++g->clock;
	return h;
}

static void forget(struct gen *g, u8 h)
{
	if (g->guest_of[h] != NO_HOST) {
		g->host_of[g->guest_of[h]] = NO_HOST;
		g->expected &= ~BIT(g->guest_of[h]);
	}
	g->guest_of[h] = NO_HOST;
}

/* n's value is needed: if it has been expected only, it is wanted now. */
static void need(struct gen *g, unsigned int n)
{
	if (g->expected & BIT(n))
		g->wanted[n] = g->host_of[n];
	g->expected &= ~BIT(n);
}

u8 gen_def(struct gen *g, unsigned int n)
{
	u8 h = g->host_of[n];

	g->expected &= ~BIT(n);
	if (h != NO_HOST)
		return take(g, h);
	h = choose(g);
	forget(g, h);
	g->guest_of[h] = n;
	g->host_of[n] = h;
	return take(g, h);
}

u8 gen_get(struct gen *g, unsigned int n)
{
	bool known = g->host_of[n] != NO_HOST;
	u8 h;

	need(g, n);
	h = gen_def(g, n);
	if (!known)
		emit_load(&g->c, h, CPU, reg_at(n));
	return h;
}

void gen_give_up(struct gen *g, u8 h)
{
	forget(g, h);
	g->busy |= BIT(h);
}

void gen_get_in(struct gen *g, unsigned int n, u8 h)
{
	u8 from = g->host_of[n];

	need(g, n);
	if (from != h) {
		forget(g, h);
		if (from != NO_HOST) {
			emit_mov(&g->c, h, from);
			forget(g, from);
		} else {
			emit_load(&g->c, h, CPU, reg_at(n));
		}
		g->guest_of[h] = n;
		g->host_of[n] = h;
	}
	take(g, h);
}

void gen_put(struct gen *g, unsigned int n)
{
	emit_store(&g->c, g->host_of[n], CPU, reg_at(n));
}

void gen_expect(struct gen *g, const struct edge *e)
{
	for (unsigned int n = 0; n < 16; n++) {
		u8 h = e->host_of[n];

		if (h == NO_HOST)
			continue;
		g->host_of[n] = h;
		g->guest_of[h] = n;
		g->expected |= BIT(n);
	}
}

void gen_expect_no_more(struct gen *g)
{
	for (unsigned int n = 0; n < 16; n++)
		if (g->expected & BIT(n))
			forget(g, g->host_of[n]);
}

void gen_load_mirrors(struct code *c, const u8 *to, const u8 *from)
{
	for (unsigned int n = 0; n < 16; n++)
		if (to[n] != NO_HOST && (!from || to[n] != from[n]))
			emit_load(c, to[n], CPU, reg_at(n));
}

/* ---- flags ---- */

void gen_flags_save(struct gen *g)
{
	if (!g->image)
		emit_bytes(&g->c, 0xc0900f9f, 4); /* lahf; seto al */
	g->image = true;
}

void gen_flags_lose(struct gen *g)
{
	gen_flags_save(g);
	g->live = false;
}

/* OF is what overflows if it is added to 127. */
static void restore_flags(struct code *c)
{
	emit_bytes(c, 0xd8b60f44, 4); /* movzx r11d, al */
	emit_bytes(c, 0x7fc38041, 4); /* add r11b, 127 */
	emit_bytes(c, 0x9e, 1);	      /* sahf */
}

void gen_flags_need(struct gen *g)
{
	if (!g->live)
		restore_flags(&g->c);
	g->live = true;
}

void gen_flags_set(struct gen *g)
{
	g->live = true;
	g->image = false;
}

/* ---- memory operands ---- */

void gen_mark(struct gen *g)
{
	const struct uop *u = &g->tb->uop[g->k];

	g->m->mark[g->nr_marks++] = (struct mark){g->c.p - g->m->ops.code.rw,
		(const u8 *)u - g->cpu->tbs->arena, g->spilled, g->fp};
}

u8 *gen_jump(struct gen *g, u8 cc)
{
	if (cc == CC_ALWAYS)
		emit_bytes(&g->c, 0xe9, 1);
	else
		emit_bytes(&g->c, 0x800f | cc << 8, 2);
	emit_bytes(&g->c, 0, 4);
	return g->c.p - 4;
}

void gen_land(struct gen *g, u8 *jump)
{
	s32 distance = g->c.p - (jump + 4);

	__builtin_memcpy(jump, &distance, 4);
}

void gen_jump_to(struct gen *g, u8 cc, const u8 *to)
{
	u8 *jump = gen_jump(g, cc);
	s32 distance = to - (jump + 4);

	__builtin_memcpy(jump, &distance, 4);
}

void gen_miss_if(struct gen *g, u8 cc)
{
	g->late->miss[g->nr_misses++] = (struct miss){gen_jump(g, cc), g->k, g->fp};
}

void gen_rotate(struct gen *g, u8 to, u8 from, u8 n)
{
	if (__builtin_cpu_supports("bmi2")) { /* rorx */
		emit_vex_reg(&g->c, (struct vex){.map = 3, .byte = 0xf0, .pp = 3, .w = true}, to, from);
	} else {
		emit_mov(&g->c, to, from);
		emit_reg(&g->c, (struct opcode){8, 0, 0xc1}, 1, to);
	}
	emit_bytes(&g->c, n, 1);
}

#define HOT_SHIFT 5
_Static_assert(sizeof(struct tlb_hot) == 1 << HOT_SHIFT && !offsetof(struct tlb, hot), "");

/* T0 = the hot entry of EA: as tlb_index */
static void find_hot(struct gen *g)
{
	gen_rotate(g, T0, EA, PAGE_SHIFT - HOT_SHIFT); /* what comes in from below is masked away */
	gen_rotate(g, T1, EA, PAGE_SHIFT - HOT_SHIFT + TLB_BITS);
	emit_reg(&g->c, (struct opcode){4, 0, 0x33}, T0, T1);
	emit_reg(&g->c, (struct opcode){4, 0, 0x81}, 4, T0);
	emit_bytes(&g->c, (TLB_SIZE - 1) << HOT_SHIFT, 4);
	emit_mem(&g->c, (struct opcode){8, 0, 0x03}, T0, CPU, NO_HOST, 0, offsetof(struct cpu, data_tlb));
}

/* Flags: above, if EA and n bytes are not all in the page of TAG. */
static void compare_page(struct gen *g, unsigned int n)
{
	emit_mov(&g->c, T1, EA);
	emit_reg(&g->c, (struct opcode){8, 0, 0x33}, T1, TAG);
	emit_reg(&g->c, (struct opcode){8, 0, 0x81}, 7, T1); /* cmp */
	emit_bytes(&g->c, PAGE_SIZE - n, 4);
}

/* As tlb_read and tlb_write of cpu/interp.h. */
static void look_up(struct gen *g, unsigned int n, bool write)
{
	find_hot(g);
	emit_load(&g->c, TAG, T0, write ? offsetof(struct tlb_hot, tag_w) : offsetof(struct tlb_hot, tag_r));
	emit_load(&g->c, DELTA, T0, offsetof(struct tlb_hot, delta));
	compare_page(g, n);
	gen_miss_if(g, CC_A);
}

/* What may be written may be read. */
void gen_check(struct gen *g, u8 base, unsigned int n, bool write)
{
	struct elsewhere *e;

	gen_flags_lose(g);
	if (base == NO_HOST || base != g->page_base || (write && !g->page_write)) {
		look_up(g, n, write);
		g->page_base = base;
		g->page_write = write;
		gen_mark(g);
		return;
	}
	compare_page(g, n);
	e = &g->late->elsewhere[g->nr_elsewhere++];
	*e = (struct elsewhere){.jump = gen_jump(g, CC_A), .back = g->c.p, .n = n, .k = g->k,
		.write = g->page_write, .fp = g->fp};
	e->back = g->c.p;
	gen_mark(g);
}

void gen_elsewhere(struct gen *g)
{
	unsigned int end = g->k;

	for (unsigned int k = 0; k < g->nr_elsewhere; k++) {
		const struct elsewhere *e = &g->late->elsewhere[k];

		gen_land(g, e->jump);
		g->fp = e->fp;
		g->k = e->k;
		look_up(g, e->n, e->write);
		gen_jump_to(g, CC_ALWAYS, e->back);
	}
	g->k = end;
}

void gen_lea(struct gen *g, u8 to, u8 base, u8 index, u8 scale, s32 disp)
{
	emit_mem(&g->c, (struct opcode){g->width, 0, 0x8d}, to, base, index, scale, disp);
}

struct address gen_address(struct gen *g, const struct insn *i)
{
	struct address a = {NO_HOST, NO_HOST, i->scale, g->tb->uop[g->k].disp};

	if (i->rm == GPR_RIP)
		a.base = RIP;
	else if (i->rm != GPR_ZERO)
		a.base = gen_get(g, i->rm);
	if (i->index != GPR_ZERO)
		a.index = gen_get(g, i->index);
	return a;
}

void gen_operand(struct gen *g, const struct insn *i, unsigned int n, bool write)
{
	struct address a = gen_address(g, i);

	gen_flags_lose(g);
	gen_lea(g, EA, a.base, a.index, a.scale, a.disp);
	if (i->seg >= SEG_FS)
		emit_mem(&g->c, (struct opcode){g->width, 0, 0x03}, EA, CPU, NO_HOST, 0,
			offsetof(struct cpu, ea_base) + 8 * i->seg);
	gen_check(g, i->seg >= SEG_FS ? NO_HOST : i->rm, n, write);
}
