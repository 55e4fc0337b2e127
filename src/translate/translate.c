// SPDX-License-Identifier: MIT
/*
 * Runs of translatable instructions in a block, and the memory of their code. What becomes of an
 * instruction is in insns.c.
 */
#include "translate/translate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/hard.h"
#include "cpu/interp.h"
#include "translate/gen.h"

#define CODE_SIZE (64u << 20)
#define INSN_MAX  256u /* bytes of host code for one instruction, its part of the jumps included */
#define PROLOGUE  8u   /* bytes, for who comes from an interpreter's handler */
#define BLOCK_MAX (2 * TB_MAX_INSNS * INSN_MAX + 4096u) /* a loop's body comes twice */

/* ---- one run ---- */

/* jmp [rsi]: struct uop starts with its handler */
static void jump_to_handler(struct gen *g)
{
	_Static_assert(!offsetof(struct uop, fn), "");
	emit_bytes(&g->c, 0x26ff, 2);
}

/* Where instructions of this kind go that find no RAM: to the interpreter's handlers. */
static void land_misses(struct gen *g, bool of_first, bool fp, uop_fn *first)
{
	bool any = false;

	for (unsigned int k = 0; k < g->nr_miss; k++)
		if (g->miss[k].first == of_first && g->miss[k].fp == fp) {
			gen_land(g, g->miss[k].jump);
			any = true;
		}
	if (!any)
		return;
	gen_vec_end(g, fp);
	if (!of_first) {
		jump_to_handler(g);
		return;
	}
	emit_const(&g->c, RAX, (u64)first);
	emit_bytes(&g->c, 0xe0ff, 2); /* jmp rax */
}

static void end_run(struct gen *g, uop_fn *first)
{
	gen_elsewhere(g);
	for (unsigned int kind = 0; kind < 4; kind++)
		land_misses(g, kind & 1, kind & 2, first);
}

/* Are the TLB's checks all that its memory operand needs? (plain_memory of cpu/uop.c) */
static bool operand_is_plain(const struct gen *g, const struct uop *u, const struct insn *i)
{
	s64 from_start = i->rm == GPR_RIP ? u->off + i->len : 0;

	if (!(i->flags & INSN_MEM))
		return true;
	if (i->asz != g->width || (i->flags & INSN_MOFFS) || u->disp != i->disp + from_start)
		return false;
	if (g->width == 8)
		return true;
	return i->seg == SEG_FS	  ? g->tb->mode_bits & TBM_FS
	       : i->seg == SEG_GS ? g->tb->mode_bits & TBM_GS
				  : i->seg != SEG_CS;
}

static bool translatable(struct gen *g, bool (*emit)(struct gen *g, const struct insn *i))
{
	struct gen before = *g;

	g->busy = 0;
	if (operand_is_plain(g, &g->tb->uop[g->k], &g->tb->insn[g->k]) && emit(g, &g->tb->insn[g->k]))
		return true;
	*g = before;
	return false;
}

static void keep_handlers(struct cpu *cpu, struct tb *tb)
{
	if (tb->fn)
		return;
	tb->fn = tb_alloc(cpu, tb->n * sizeof(tb->fn[0]));
	for (unsigned int k = 0; k < tb->n; k++)
		tb->fn[k] = tb->uop[k].fn;
}

/* The loop's body once more, with the mirrors and the page that are there. */
static bool make_body(struct gen *g)
{
	for (g->k = 0; g->k + 1 < g->tb->n; g->k++)
		if (!translatable(g, gen_plain))
			return false;
	gen_loop_end(g, &g->tb->insn[g->k]);
	return true;
}

/*
 * A loop of one block comes twice: for whoever comes to it, and again for who comes from its end and
 * has the mirrors already. false: it cannot be made, and what was emitted is to be thrown away.
 */
static bool make_loop(struct gen *g)
{
	struct gen head;

	gen_loop_end(g, &g->tb->insn[g->k]);
	head = *g;
	if (!make_body(g))
		return false;
	if (g->page_base != head.page_base || g->page_write < head.page_write) {
		head.page_base = NO_HOST; /* the second time round it would be another's */
		*g = head;
		if (!make_body(g))
			return false;
	}
	gen_match(g, &head);
	gen_jump_to(g, CC_ALWAYS, head.c.p);
	gen_loop_exit(g);
	return true;
}

/* The run's way out: by the branch, behind the last instruction, or to the uop that is not ours. */
static void leave_run(struct gen *g)
{
	struct gen before = *g;

	if (g->k < g->tb->n && gen_is_loop(g, &g->tb->insn[g->k]) && make_loop(g)) {
		g->k++;
		return;
	}
	*g = before;
	gen_vec_end(g, g->fp);
	g->fp = false;
	if (g->k == g->tb->n) {
		gen_fall_through(g);
	} else if (translatable(g, gen_branch)) {
		g->k++;
	} else {
		gen_flags_save(g);
		gen_set_uop(g);
		jump_to_handler(g);
	}
}

/* Translate from uop k on. Returns where the run ends: k if there is none. */
static unsigned int run(struct translator *t, struct cpu *cpu, struct tb *tb, unsigned int k)
{
	u8 *start = t->code.rw + t->code.used;
	struct gen g = {.c.p = start, .tb = tb, .first = k, .k = k, .at = k, .image = true,
		.leave = t->code.rw, .bmi2 = __builtin_cpu_supports("bmi2"), .page_base = NO_HOST,
		.features = cpu->features, .width = (tb->mode_bits & TBM_FLAT) ? 4 : 8};

	memset(g.host_of, NO_HOST, sizeof(g.host_of));
	memset(g.guest_of, NO_HOST, sizeof(g.guest_of));
	emit_load(&g.c, RIP, CPU, offsetof(struct cpu, regs[GPR_RIP])); /* PROLOGUE */
	while (g.k < tb->n && translatable(&g, gen_plain))
		g.k++;
	leave_run(&g);
	if (g.k == k || (g.k < tb->n && g.k < k + t->shortest))
		return g.k;
	keep_handlers(cpu, tb);
	end_run(&g, tb->fn[k]);
	tb->uop[k].fn = (uop_fn *)(t->code.rx + t->code.used);
	t->code.used = ALIGN_UP(t->code.used + (u32)(g.c.p - start), 16);
	return g.k;
}

/* How blocks that end in a translated branch come to this one. */
static void make_enter(struct translator *t, struct tb *tb)
{
	u8 *start = t->code.rw + t->code.used;
	struct gen g = {.c.p = start, .tb = tb, .leave = t->code.rw};
	const u8 *first = (const u8 *)tb->uop[0].fn;

	gen_enter(&g, code_memory_has(&t->code, (u64)first) ? first - t->code.rx + t->code.rw + PROLOGUE : NULL);
	tb->enter = t->code.rx + t->code.used;
	t->code.used = ALIGN_UP(t->code.used + (u32)(g.c.p - start), 16);
}

/* ---- the translator ---- */

static void block(struct translator *t, struct cpu *cpu, struct tb *tb)
{
	if (t->code.used + BLOCK_MAX > t->code.size) {
		t->full = true;
		return;
	}
	for (unsigned int k = 0; k < tb->n; k++)
		k = run(t, cpu, tb, k);
	if (!tb->len2)
		make_enter(t, tb);
}

static void flush(struct translator *t)
{
	struct code c = {t->code.rw};

	gen_leave(&c);
	t->leave = t->code.rx;
	t->code.used = ALIGN_UP((u32)(c.p - t->code.rw), 16);
	t->full = false;
}

static void destroy(struct translator *t)
{
	code_memory_destroy(&t->code);
	free(t);
}

int translator_create(struct cpu *cpu)
{
	struct translator *t = OPT_TRANSLATE ? malloc(sizeof(*t)) : NULL;
	int r;

	if (!t)
		return OPT_TRANSLATE ? -ENOMEM : 0;
	*t = (struct translator){.block = block, .flush = flush, .destroy = destroy, .shortest = 2};
	r = code_memory_create(&t->code, CODE_SIZE);
	if (r) {
		free(t);
		return r == -EPERM ? 0 : r;
	}
	flush(t);
	cpu->translator = t;
	return 0;
}
