// SPDX-License-Identifier: MIT
/* Mirrors of guest registers, flags, memory operands. Read gen.h before. */
#include "translate/gen.h"

static const u8 pool[] = {RCX, RBX, RBP, R8, R9, R12};

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
	if (g->guest_of[h] != NO_HOST)
		g->host_of[g->guest_of[h]] = NO_HOST;
	g->guest_of[h] = NO_HOST;
}

u8 gen_def(struct gen *g, unsigned int n)
{
	u8 h = g->host_of[n];

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
	u8 h = gen_def(g, n);

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

void gen_match(struct gen *g, const struct gen *there)
{
	for (unsigned int n = 0; n < 16; n++)
		if (there->host_of[n] != NO_HOST && g->host_of[n] != there->host_of[n])
			emit_load(&g->c, there->host_of[n], CPU, reg_at(n));
}

/* ---- flags ---- */

void gen_flags_save(struct gen *g)
{
	if (!g->image)
		emit_bytes(&g->c, 0xd0b70fc0900f9f, 7); /* lahf; seto al; movzx edx, ax */
	g->image = true;
}

void gen_flags_lose(struct gen *g)
{
	gen_flags_save(g);
	g->live = false;
}

void gen_flags_need(struct gen *g)
{
	if (!g->live)
		emit_bytes(&g->c, 0x9e7f04d089, 5); /* mov eax, edx; add al, 127; sahf */
	g->live = true;
}

void gen_flags_set(struct gen *g)
{
	g->live = true;
	g->image = false;
}

/* ---- memory operands ---- */

void gen_set_uop(struct gen *g)
{
	if (g->at != g->k)
		emit_lea(&g->c, UOP, UOP, NO_HOST, 0, (g->k - g->at) * sizeof(struct uop));
	g->at = g->k;
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
	g->miss[g->nr_miss++] = (struct miss){gen_jump(g, cc), g->k == g->first, g->fp};
}

/* to = EA >> n; flags are destroyed */
static void shift_ea(struct gen *g, u8 to, u8 n)
{
	if (g->bmi2) { /* rorx to, EA, n: what comes in from above is masked away */
		emit_bytes(&g->c, 0xc4, 1);
		emit_bytes(&g->c, (to & 8 ? 0 : 0x80) | 0x40 | (EA & 8 ? 0 : 0x20) | 3, 1);
		emit_bytes(&g->c, 0xf0fb, 2);
		emit_bytes(&g->c, 0xc0 | (to & 7) << 3 | (EA & 7), 1);
		emit_bytes(&g->c, n, 1);
		return;
	}
	emit_mov(&g->c, to, EA);
	emit_reg(&g->c, (struct opcode){8, 0, 0xc1}, 5, to);
	emit_bytes(&g->c, n, 1);
}

#define HOT_SHIFT 5
_Static_assert(sizeof(struct tlb_hot) == 1 << HOT_SHIFT && !offsetof(struct tlb, hot), "");

/* RAX = the hot entry of EA: as tlb_index */
static void find_hot(struct gen *g)
{
	shift_ea(g, RAX, PAGE_SHIFT - HOT_SHIFT);
	shift_ea(g, R11, PAGE_SHIFT - HOT_SHIFT + TLB_BITS);
	emit_reg(&g->c, (struct opcode){4, 0, 0x33}, RAX, R11);
	emit_reg(&g->c, (struct opcode){4, 0, 0x81}, 4, RAX);
	emit_bytes(&g->c, (TLB_SIZE - 1) << HOT_SHIFT, 4);
	emit_mem(&g->c, (struct opcode){8, 0, 0x03}, RAX, CPU, NO_HOST, 0, offsetof(struct cpu, data_tlb));
}

/* Flags: above, if EA and n bytes are not all in the page of TAG. */
static void compare_page(struct gen *g, unsigned int n)
{
	emit_mov(&g->c, R11, EA);
	emit_reg(&g->c, (struct opcode){8, 0, 0x33}, R11, TAG);
	emit_reg(&g->c, (struct opcode){8, 0, 0x81}, 7, R11); /* cmp */
	emit_bytes(&g->c, PAGE_SIZE - n, 4);
}

/* As tlb_read and tlb_write of cpu/interp.h. */
static void look_up(struct gen *g, unsigned int n, bool write)
{
	find_hot(g);
	emit_load(&g->c, TAG, RAX, write ? offsetof(struct tlb_hot, tag_w) : offsetof(struct tlb_hot, tag_r));
	emit_load(&g->c, DELTA, RAX, offsetof(struct tlb_hot, delta));
	compare_page(g, n);
	gen_miss_if(g, CC_A);
}

/* What may be written may be read. */
void gen_check(struct gen *g, u8 base, unsigned int n, bool write)
{
	gen_flags_lose(g);
	gen_set_uop(g);
	if (base == NO_HOST || base != g->page_base || (write && !g->page_write)) {
		look_up(g, n, write);
		g->page_base = base;
		g->page_write = write;
		return;
	}
	compare_page(g, n);
	g->elsewhere[g->nr_elsewhere].jump = gen_jump(g, CC_A);
	g->elsewhere[g->nr_elsewhere].back = g->c.p;
	g->elsewhere[g->nr_elsewhere].n = n;
	g->elsewhere[g->nr_elsewhere].fp = g->fp;
	g->elsewhere[g->nr_elsewhere++].write = g->page_write;
}

void gen_elsewhere(struct gen *g)
{
	for (unsigned int k = 0; k < g->nr_elsewhere; k++) {
		const struct elsewhere *e = &g->elsewhere[k];

		gen_land(g, e->jump);
		g->fp = e->fp;
		look_up(g, e->n, e->write);
		gen_jump_to(g, CC_ALWAYS, e->back);
	}
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
