// SPDX-License-Identifier: MIT
/*
 * From block to block. A direct branch inside a page is a jump to the block it leads to once that
 * is known (struct edge), an indirect one asks the jump cache: as cpu/interp.h. RIP is the next
 * block's address then; who finds no block goes to common.leave.
 */
#include "translate/gen.h"

#define EDGE R8
#define TARGET R9 /* of an indirect branch, until all else has been done */

static void leave_if(struct gen *g, u8 cc)
{
	gen_jump_to(g, cc, g->m->common.leave);
}

static void test_requests(struct gen *g)
{
	emit_mem(&g->c, (struct opcode){4, 0, 0x8b}, T0, CPU, NO_HOST, 0, offsetof(struct cpu, request));
	emit_mem(&g->c, (struct opcode){4, 0, 0x85}, T0, CPU, NO_HOST, 0,
		offsetof(struct cpu, request_mask));
}

/* ---- the jump cache ---- */

#define JC_SHIFT 5
_Static_assert(sizeof(struct jc_entry) == 1 << JC_SHIFT, "");

/* T0 = offset of the jump cache's entry for RIP: as jc_index */
static void find_entry(struct gen *g)
{
	gen_rotate(g, T0, RIP, 64 - JC_SHIFT);
	gen_rotate(g, T1, RIP, JC_BITS - JC_SHIFT);
	emit_reg(&g->c, (struct opcode){4, 0, 0x33}, T0, T1);
	emit_reg(&g->c, (struct opcode){4, 0, 0x81}, 4, T0);
	emit_bytes(&g->c, (JC_SIZE - 1) << JC_SHIFT, 4);
}

/* Go to RIP, which is canonical, by the jump cache; all of the instruction has been done. */
static void go_indirect(struct gen *g)
{
	s32 jc = offsetof(struct tb_cache, jc);

	find_entry(g);
	emit_const(&g->c, T1, (u64)g->cpu->tbs);
	emit_mov(&g->c, R10, RIP);
	emit_reg(&g->c, (struct opcode){8, 0, 0xc1}, 5, R10); /* shr */
	emit_bytes(&g->c, 63, 1);
	emit_mem(&g->c, (struct opcode){8, 0, 0x8b}, R10, T1, R10, 3, offsetof(struct tb_cache, salt));
	emit_mem(&g->c, (struct opcode){8, 0, 0x3b}, R10, T1, T0, 0, jc + offsetof(struct jc_entry, salt));
	leave_if(g, CC_NE);
	emit_mem(&g->c, (struct opcode){8, 0, 0x3b}, RIP, T1, T0, 0, jc + offsetof(struct jc_entry, rip));
	leave_if(g, CC_NE);
	emit_mem(&g->c, (struct opcode){8, 0, 0x8b}, T0, T1, T0, 0, jc + offsetof(struct jc_entry, tb));
	emit_mem(&g->c, (struct opcode){4, 0, 0xff}, 4, T0, NO_HOST, 0, offsetof(struct tb, enter)); /* jmp */
}

/* ---- the block's bytes ---- */

static void compare_word(struct gen *g, u64 v, u64 mask, const u8 *at)
{
	s32 disp = at - g->tb->first;

	emit_const(&g->c, T1, v);
	if (mask == ~0ull) {
		emit_mem(&g->c, (struct opcode){8, 0, 0x3b}, T1, R10, NO_HOST, 0, disp);
		return;
	}
	emit_mem(&g->c, (struct opcode){8, 0, 0x33}, T1, R10, NO_HOST, 0, disp);
	emit_const(&g->c, T0, mask);
	emit_reg(&g->c, (struct opcode){8, 0, 0x85}, T1, T0);
}

/* As tb_same_page. changed: jumps for who has found a difference. */
static unsigned int compare_code(struct gen *g, u8 **changed)
{
	const struct tb *tb = g->tb;
	const u8 *last = tb->hva + tb->len - 8, *p = tb->hva + 8;
	unsigned int nr = 0;

	emit_const(&g->c, R10, (u64)tb->first);
	gen_mark(g);
	compare_word(g, tb->copy0, tb->mask0, tb->first);
	changed[nr++] = gen_jump(g, CC_NE);
	for (unsigned int k = 0; k < tb->nr_words; k++, p += 8) {
		compare_word(g, tb->copy[k], ~0ull, p < last ? p : last);
		changed[nr++] = gen_jump(g, CC_NE);
	}
	return nr;
}

static void add_insns(struct gen *g, s8 n)
{
	emit_reg(&g->c, (struct opcode){8, 0, 0x83}, 0, INSNS);
	emit_bytes(&g->c, (u8)n, 1);
}

/* ---- direct branches ---- */

/* A jump if cc holds along a new edge. */
static void take_edge(struct gen *g, u8 cc, bool forward)
{
	struct edge *e = &g->late->edge[g->nr_edges++];

	*e = (struct edge){.jump = gen_jump(g, cc), .forward = forward};
	for (unsigned int n = 0; n < 16; n++)
		e->host_of[n] = g->expected & BIT(n) ? NO_HOST : g->host_of[n];
}

static bool is_in_page(const struct gen *g, s64 rel)
{
	return (g->tb->gpa.v & ~PAGE_MASK) + (u64)rel < PAGE_SIZE;
}

/* To `rel` bytes behind the block's start, which RIP is `off` bytes behind already. */
static void go_direct(struct gen *g, s64 off, s64 rel)
{
	gen_lea(g, RIP, RIP, NO_HOST, 0, rel - off);
	if (is_in_page(g, rel))
		take_edge(g, CC_ALWAYS, rel > 0);
	else
		go_indirect(g);
}

void gen_fall_through(struct gen *g)
{
	gen_flags_save(g);
	go_direct(g, 0, g->tb->uop[g->k].imm);
}

static void jcc(struct gen *g, const struct insn *i)
{
	const struct uop *u = &g->tb->uop[g->k];
	u8 *taken;

	gen_flags_save(g);
	gen_flags_need(g);
	if (is_in_page(g, u->imm)) {
		gen_lea(g, RIP, RIP, NO_HOST, 0, u->imm);
		take_edge(g, i->opcode & 15, u->imm > 0);
		go_direct(g, u->imm, u->disp);
		return;
	}
	taken = gen_jump(g, i->opcode & 15);
	go_direct(g, 0, u->disp);
	gen_land(g, taken);
	go_direct(g, 0, u->imm);
}

void gen_edges(struct gen *g)
{
	struct cpu *cpu = g->cpu;

	for (unsigned int k = 0; k < g->nr_edges; k++) {
		struct edge *e = tb_alloc(cpu, sizeof(*e));

		*e = g->late->edge[k];
		e->unlinked = g->c.p;
		gen_land(g, e->jump);
		emit_const(&g->c, EDGE, (u64)e);
		gen_jump_to(g, CC_ALWAYS, g->m->common.leave_edge);
	}
}

static void lead(u8 *jump, const u8 *to)
{
	s32 distance = to - (jump + 4);

	__builtin_memcpy(jump, &distance, 4);
}

static bool has_mirrors(const struct edge *e, const struct translation *to)
{
	for (unsigned int n = 0; n < 16; n++)
		if (to->host_of[n] != NO_HOST && to->host_of[n] != e->host_of[n])
			return false;
	return true;
}

void edge_link(struct codegen *m, struct edge *e, struct translation *to)
{
	struct code_memory *code = &m->ops.code;
	struct gen g = {.c.p = code->rw + code->used};
	const u8 *enter = e->forward ? to->forward : to->chained;

	if (has_mirrors(e, to)) {
		lead(e->jump, enter);
	} else {
		lead(e->jump, g.c.p);
		gen_load_mirrors(&g.c, to->host_of, e->host_of);
		gen_jump_to(&g, CC_ALWAYS, enter);
		code->used = ALIGN_UP((u32)(g.c.p - code->rw), 16);
	}
	e->next = to->in;
	to->in = e;
}

void edges_unlink(struct translation *to)
{
	for (struct edge *e = to->in; e; e = e->next)
		lead(e->jump, e->unlinked);
	to->in = NULL;
}

/* ---- a loop of one block ---- */

bool gen_is_loop(const struct gen *g, const struct insn *i)
{
	return g->first == 0 && g->k && g->k + 1 == g->tb->n && insn_op(i) == OP_JCC && i->osz == g->width &&
	       !g->tb->uop[g->k].imm && !g->tb->len2;
}

/* What gen_enter does, but that the block is this one. Who may not go on leaves by gen_loop_exit. */
static void enter_again(struct gen *g)
{
	test_requests(g);
	g->late->exit[g->nr_exits++] = gen_jump(g, CC_NE);
	g->nr_exits += compare_code(g, g->late->exit + g->nr_exits);
	add_insns(g, g->tb->n);
	g->live = false;
}

void gen_loop_end(struct gen *g, const struct insn *i)
{
	u8 *taken;

	g->spilled = false; /* CMPXCHG's may be the instruction before */
	gen_flags_save(g);
	gen_flags_need(g);
	taken = gen_jump(g, i->opcode & 15);
	gen_vec_end(g, g->fp);
	go_direct(g, 0, g->tb->uop[g->k].disp);
	gen_land(g, taken);
	enter_again(g);
}

void gen_loop_exit(struct gen *g)
{
	for (unsigned int k = 0; k < g->nr_exits; k++)
		gen_land(g, g->late->exit[k]);
	gen_vec_end(g, g->fp);
	leave_if(g, CC_ALWAYS);
}

/* ---- calls and returns ---- */

/* [EA + DELTA], checked, takes the address of the next instruction. */
static void push_next(struct gen *g, const struct insn *i)
{
	u8 sp = gen_get(g, GPR_RSP);

	gen_lea(g, EA, sp, NO_HOST, 0, -g->width);
	gen_check(g, GPR_RSP, g->width, true);
	gen_lea(g, T0, RIP, NO_HOST, 0, g->tb->uop[g->k].off + i->len);
	emit_mem(&g->c, (struct opcode){g->width, 0, 0x89}, T0, EA, DELTA, 0, 0);
	gen_lea(g, gen_def(g, GPR_RSP), EA, NO_HOST, 0, 0);
	gen_put(g, GPR_RSP);
}

/* TARGET = register or memory operand. A target that is not canonical is the interpreter's. */
static void load_target(struct gen *g, const struct insn *i)
{
	gen_flags_lose(g);
	if (i->flags & INSN_MEM) {
		gen_operand(g, i, g->width, false);
		emit_mem(&g->c, (struct opcode){g->width, 0, 0x8b}, TARGET, EA, DELTA, 0, 0);
	} else {
		gen_lea(g, TARGET, gen_get(g, i->rm), NO_HOST, 0, 0);
	}
}

static void check_target(struct gen *g)
{
	if (g->width == 4)
		return;
	emit_mov(&g->c, T0, TARGET);
	emit_reg(&g->c, (struct opcode){8, 0, 0xc1}, 4, T0);
	emit_bytes(&g->c, 16, 1);
	emit_reg(&g->c, (struct opcode){8, 0, 0xc1}, 7, T0);
	emit_bytes(&g->c, 16, 1);
	emit_reg(&g->c, (struct opcode){8, 0, 0x3b}, T0, TARGET);
	gen_miss_if(g, CC_NE);
}

static bool jump(struct gen *g, const struct insn *i, bool call)
{
	bool relative = insn_row(i)->opnd[0].kind == OPND_J;

	gen_flags_lose(g);
	if (!relative) {
		gen_give_up(g, TARGET);
		load_target(g, i);
		check_target(g);
	}
	if (call)
		push_next(g, i);
	if (relative) {
		go_direct(g, 0, g->tb->uop[g->k].imm);
		return true;
	}
	emit_mov(&g->c, RIP, TARGET);
	go_indirect(g);
	return true;
}

static bool ret(struct gen *g)
{
	gen_give_up(g, TARGET);
	gen_lea(g, EA, gen_get(g, GPR_RSP), NO_HOST, 0, 0);
	gen_check(g, GPR_RSP, g->width, false);
	emit_mem(&g->c, (struct opcode){g->width, 0, 0x8b}, TARGET, EA, DELTA, 0, 0);
	check_target(g);
	gen_lea(g, EA, EA, NO_HOST, 0, g->width + g->tb->uop[g->k].imm);
	emit_store(&g->c, EA, CPU, offsetof(struct cpu, regs[GPR_RSP]));
	emit_mov(&g->c, RIP, TARGET);
	go_indirect(g);
	return true;
}

bool gen_branch(struct gen *g, const struct insn *i)
{
	if (i->osz != g->width)
		return false;
	switch (insn_op(i)) {
	case OP_JCC:
		jcc(g, i);
		return true;
	case OP_JMP:
		return jump(g, i, false);
	case OP_CALL:
		return jump(g, i, true);
	case OP_RET:
		return ret(g);
	default:
		return false;
	}
}

/* ---- into a block, and back to the loop ---- */

void gen_enter(struct gen *g)
{
	test_requests(g);
	leave_if(g, CC_NE);
}

/*
 * The block counts as entered before its bytes are read: if they cannot be, the guest is at its
 * first instruction.
 */
void gen_enter_forward(struct gen *g)
{
	add_insns(g, g->tb->n);
	g->nr_changed = compare_code(g, g->late->changed);
}

void gen_enter_changed(struct gen *g)
{
	for (unsigned int k = 0; k < g->nr_changed; k++)
		gen_land(g, g->late->changed[k]);
	add_insns(g, -g->tb->n);
	leave_if(g, CC_ALWAYS);
}

static void store_state(struct code *c)
{
	emit_store(c, INSNS, CPU, offsetof(struct cpu, insns));
	emit_store(c, RIP, CPU, offsetof(struct cpu, regs[GPR_RIP]));
}

static const u8 *common_leave(struct code *c)
{
	const u8 *start = c->p;

	emit_reg(c, (struct opcode){4, 0, 0x33}, EDGE, EDGE);
	return start;
}

static const u8 *common_leave_edge(struct code *c)
{
	const u8 *start = c->p;

	store_state(c);
	emit_load(c, T1, CPU, offsetof(struct cpu, tbs));
	emit_store(c, EDGE, T1, offsetof(struct tb_cache, edge));
	emit_store(c, RIP, T1, offsetof(struct tb_cache, link_rip));
	emit_store(c, RIP, CPU, offsetof(struct cpu, rip));
	emit_store(c, FLAGS, CPU, offsetof(struct cpu, fl));
	_Static_assert(STOP_OK == 0, "");
	emit_reg(c, (struct opcode){4, 0, 0x33}, RAX, RAX);
	emit_bytes(c, 0xc3, 1);
	return start;
}

/* The handler's arguments are cpu, in RDI, the uop, in RSI, and the flags image. */
static const u8 *common_handler(struct code *c)
{
	const u8 *start = c->p;

	_Static_assert(!offsetof(struct uop, fn), "");
	emit_load(c, T1, RSI, 0);
	return start;
}

static const u8 *common_handler_at(struct code *c)
{
	const u8 *start = c->p;

	store_state(c);
	emit_mov(c, RDX, FLAGS);
	emit_reg(c, (struct opcode){4, 0, 0xff}, 4, T1); /* jmp */
	return start;
}

void gen_common(struct codegen *m)
{
	struct code_memory *code = &m->ops.code;
	struct code c = {code->rw};

	m->common.leave = common_leave(&c);
	m->common.leave_edge = common_leave_edge(&c);
	m->common.handler = common_handler(&c);
	m->common.handler_at = common_handler_at(&c);
	code->used = ALIGN_UP((u32)(c.p - code->rw), 16);
}
