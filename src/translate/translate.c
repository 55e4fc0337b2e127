// SPDX-License-Identifier: MIT
/*
 * Runs of translatable instructions in a block, and the memory of their code. What becomes of an
 * instruction is in insns.c.
 */
#include "translate/translate.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/hard.h"
#include "cpu/interp.h"
#include "translate/gen.h"

#define CODE_SIZE  (64u << 20)
#define INSN_MAX   256u /* bytes of host code for one instruction, its part of the jumps included */
#define BLOCK_MAX  (2 * TB_MAX_INSNS * INSN_MAX + 4096u) /* a loop's body comes twice */
#define LOOP_ALIGN 64
#define PATIENCE   16
#define MARK_MIN   16u	/* bytes of host code with one struct mark, at least */
#define MAX_MARKS  (CODE_SIZE / MARK_MIN)

static struct codegen *codegen_of(struct translator *t)
{
	return container_of(t, struct codegen, ops);
}

static const u8 *executable(const struct codegen *m, const u8 *p)
{
	return p - m->ops.code.rw + m->ops.code.rx;
}

/* ---- one run ---- */

/* The interpreter goes on at uop k. */
static void jump_to_handler(struct gen *g, unsigned int k)
{
	emit_const(&g->c, RSI, (u64)&g->tb->uop[k]);
	if (k == g->first) { /* there we are ourselves */
		emit_const(&g->c, T1, (u64)g->tb->fn[k]);
		gen_jump_to(g, CC_ALWAYS, g->m->common.handler_at);
	} else {
		gen_jump_to(g, CC_ALWAYS, g->m->common.handler);
	}
}

/* Where an instruction goes that finds no RAM. */
static void land_misses(struct gen *g)
{
	for (unsigned int k = 0; k < g->nr_misses; k++) {
		const struct miss first = g->late->miss[k];

		if (!first.jump)
			continue;
		for (unsigned int j = k; j < g->nr_misses; j++) {
			struct miss *m = &g->late->miss[j];

			if (!m->jump || m->k != first.k || m->fp != first.fp)
				continue;
			gen_land(g, m->jump);
			m->jump = NULL;
		}
		gen_vec_end(g, first.fp);
		jump_to_handler(g, first.k);
	}
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

	if (g->c.p > g->limit)
		return false;
	g->busy = 0;
	g->spilled = false;
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
	while ((g->c.p - g->m->ops.code.rw) % LOOP_ALIGN)
		emit_bytes(&g->c, 0x90, 1);
	head = *g;
	if (!make_body(g))
		return false;
	if (g->page_base != head.page_base || g->page_write < head.page_write) {
		head.page_base = NO_HOST; /* the second time round it would be another's */
		*g = head;
		if (!make_body(g))
			return false;
	}
	gen_load_mirrors(&g->c, head.host_of, g->host_of);
	gen_jump_to(g, CC_ALWAYS, head.c.p);
	gen_loop_exit(g);
	return true;
}

/* The run's way out: by the branch, behind the last instruction, or to the uop that is not ours. */
static void leave_run(struct gen *g)
{
	struct gen before = *g;

	if (g->k < g->tb->n && gen_is_loop(g, &g->tb->insn[g->k])) {
		gen_expect_no_more(g);
		if (make_loop(g)) {
			g->k++;
			return;
		}
		*g = before;
	}
	gen_vec_end(g, g->fp);
	g->fp = false;
	if (g->k == g->tb->n) {
		gen_fall_through(g);
	} else if (translatable(g, gen_branch)) {
		g->k++;
	} else {
		gen_flags_save(g);
		jump_to_handler(g, g->k);
	}
}

/* How the interpreter comes to the run. */
static const u8 *enter_from_handler(struct gen *g, const u8 *body)
{
	const u8 *start = g->c.p;

	emit_mov(&g->c, FLAGS, RDX);
	emit_load(&g->c, INSNS, CPU, offsetof(struct cpu, insns));
	emit_load(&g->c, RIP, CPU, offsetof(struct cpu, regs[GPR_RIP]));
	gen_load_mirrors(&g->c, g->wanted, NULL);
	gen_jump_to(g, CC_ALWAYS, body);
	return executable(g->m, start);
}

/* How a block comes here that has asked the jump cache. */
static const u8 *enter_alone(struct gen *g, const u8 *chained)
{
	const u8 *start = g->c.p;

	gen_load_mirrors(&g->c, g->wanted, NULL);
	gen_jump_to(g, CC_ALWAYS, chained);
	return executable(g->m, start);
}

/* From here on emit what is rarely run. Returns where the rest ends. */
static u8 *turn_cold(struct gen *g)
{
	u8 *hot = g->c.p;

	g->c.p = g->m->ops.code.rw + g->m->cold;
	return hot;
}

static void commit(struct gen *g, const u8 *hot)
{
	struct code_memory *code = &g->m->ops.code;

	g->m->nr_marks = g->nr_marks;
	g->m->cold = g->c.p - code->rw;
	code->used = ALIGN_UP((u32)(hot - code->rw), 16);
}

static struct gen start_run(struct codegen *m, struct cpu *cpu, struct tb *tb, unsigned int k, struct late *late)
{
	struct gen g = {.c.p = m->ops.code.rw + m->ops.code.used, .m = m, .cpu = cpu, .tb = tb, .late = late,
		.first = k, .k = k, .image = true, .page_base = NO_HOST, .nr_marks = m->nr_marks,
		.width = (tb->mode_bits & TBM_FLAT) ? 4 : 8};

	g.limit = g.c.p + BLOCK_MAX - 4 * INSN_MAX;
	memset(g.host_of, NO_HOST, sizeof(g.host_of));
	memset(g.guest_of, NO_HOST, sizeof(g.guest_of));
	memset(g.wanted, NO_HOST, sizeof(g.wanted));
	return g;
}

/* Translate from the body's first instruction on. false: not worth it, nothing was emitted. */
static bool make_body_of_run(struct gen *g)
{
	struct gen before = *g;

	keep_handlers(g->cpu, g->tb);
	while (g->k < g->tb->n && translatable(g, gen_plain))
		g->k++;
	leave_run(g);
	if (g->k == g->first || (g->k < g->tb->n && g->k < g->first + g->m->ops.shortest)) {
		before.k = g->k;
		*g = before;
		return false;
	}
	return true;
}

static void out_of_line(struct gen *g)
{
	gen_elsewhere(g);
	land_misses(g);
	gen_edges(g);
}

/* A run in the middle of a block, or of one that crosses a page. Returns where it ends: k if there is none. */
static unsigned int run(struct codegen *m, struct cpu *cpu, struct tb *tb, unsigned int k)
{
	struct late late;
	struct gen g = start_run(m, cpu, tb, k, &late);
	const u8 *body = g.c.p, *hot;

	if (!make_body_of_run(&g))
		return g.k;
	hot = turn_cold(&g);
	out_of_line(&g);
	tb->uop[k].fn = (uop_fn *)enter_from_handler(&g, body);
	commit(&g, hot);
	return g.k;
}

/* The block's beginning, which others come to: with the mirrors of whoever comes now. */
static unsigned int run_first(struct codegen *m, struct cpu *cpu, struct tb *tb)
{
	struct late late;
	struct gen g = start_run(m, cpu, tb, 0, &late);
	const u8 *chained = g.c.p, *forward, *body, *hot;
	bool made;

	tb->translation = tb_alloc(cpu, sizeof(*tb->translation));
	gen_enter(&g);
	forward = g.c.p;
	gen_enter_forward(&g);
	body = g.c.p;
	if (cpu->tbs->edge)
		gen_expect(&g, cpu->tbs->edge);
	made = make_body_of_run(&g);
	if (!made)
		jump_to_handler(&g, 0);
	tb->enter = enter_alone(&g, chained);
	hot = turn_cold(&g);
	gen_enter_changed(&g);
	if (made) {
		out_of_line(&g);
		tb->uop[0].fn = (uop_fn *)enter_from_handler(&g, body);
	}
	*tb->translation = (struct translation){.chained = chained, .forward = forward};
	memcpy(tb->translation->host_of, g.wanted, sizeof(g.wanted));
	commit(&g, hot);
	return g.k;
}

/* ---- the translator ---- */

static bool has_room(const struct codegen *m, u32 n)
{
	u32 size = m->ops.code.size;

	return m->ops.code.used + n <= size / 2 && m->cold + n <= size && m->nr_marks + n / MARK_MIN <= MAX_MARKS;
}

static void block(struct translator *t, struct cpu *cpu, struct tb *tb)
{
	struct codegen *m = codegen_of(t);
	unsigned int k = 0;

	if (!has_room(m, BLOCK_MAX)) {
		t->full = true;
		return;
	}
	if (!tb->len2)
		k = run_first(m, cpu, tb) + 1;
	for (; k < tb->n; k++)
		k = run(m, cpu, tb, k);
}

static void link(struct translator *t, struct edge *e, struct tb *tb)
{
	struct codegen *m = codegen_of(t);

	if (!tb->translation)
		return;
	if (has_room(m, BLOCK_MAX))
		edge_link(m, e, tb->translation);
	else
		t->full = true;
}

static void forget(struct translator *t, struct tb *tb)
{
	struct codegen *m = codegen_of(t);

	if (tb->translation)
		edges_unlink(tb->translation);
	tb->translation = NULL;
	tb->enter = executable(m, m->common.leave);
}

static void flush(struct translator *t)
{
	struct codegen *m = codegen_of(t);

	gen_common(m);
	m->cold = t->code.size / 2;
	t->leave = executable(m, m->common.leave);
	m->nr_marks = 0;
	t->full = false;
}

/* The last mark at or before this place. */
static const struct mark *find_mark(const struct codegen *m, u32 at)
{
	u32 low = 0, high = m->nr_marks;

	while (high - low > 1) {
		u32 mid = low + (high - low) / 2;

		if (m->mark[mid].at <= at)
			low = mid;
		else
			high = mid;
	}
	return high ? &m->mark[low] : NULL;
}

static const struct uop *stopped(struct translator *t, struct cpu *cpu, const struct host_regs *r, u64 *fl)
{
	const struct mark *mark = find_mark(codegen_of(t), r->rip - (u64)t->code.rx);

	if (!mark)
		return NULL;
	cpu->regs[GPR_RIP] = r->gpr[RIP];
	cpu->insns = r->gpr[INSNS];
	if (mark->fp)
		cpu->mxcsr = r->mxcsr;
	*fl = mark->fl ? cpu->fl : r->gpr[FLAGS];
	return (const struct uop *)(cpu->tbs->arena + mark->uop);
}

static void destroy(struct translator *t)
{
	struct codegen *m = codegen_of(t);

	code_memory_destroy(&t->code);
	munmap(m->mark, MAX_MARKS * sizeof(*m->mark));
	free(m);
}

static const struct translator ops = {.block = block, .link = link, .forget = forget, .flush = flush,
	.stopped = stopped, .destroy = destroy, .shortest = 2, .patience = PATIENCE};

static int allocate(struct codegen *m)
{
	m->mark = mmap(NULL, MAX_MARKS * sizeof(*m->mark), PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m->mark == MAP_FAILED)
		return -ENOMEM;
	return code_memory_create(&m->ops.code, CODE_SIZE);
}

int translator_create(struct cpu *cpu)
{
	struct codegen *m = OPT_TRANSLATE ? malloc(sizeof(*m)) : NULL;
	int r;

	if (!m)
		return OPT_TRANSLATE ? -ENOMEM : 0;
	*m = (struct codegen){.ops = ops};
	r = allocate(m);
	if (r) {
		if (m->mark != MAP_FAILED)
			munmap(m->mark, MAX_MARKS * sizeof(*m->mark));
		free(m);
		return r == -EPERM ? 0 : r;
	}
	flush(&m->ops);
	cpu->translator = &m->ops;
	return 0;
}
