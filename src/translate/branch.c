// SPDX-License-Identifier: MIT
/*
 * From block to block. A direct branch inside a page has a slot for the block it leads to, an
 * indirect one asks the jump cache: as cpu/interp.h. What comes along to the next block's gen_enter
 * is R8, the slot's address or 0, and RIP; who finds no block goes to gen_leave with the same.
 */
#include "translate/gen.h"

#define SLOT R8
#define TARGET R9 /* of an indirect branch, until all else has been done */

static void leave_if(struct gen *g, u8 cc)
{
	gen_jump_to(g, cc, g->leave);
}

static void load32(struct gen *g, u8 to, s32 at)
{
	emit_mem(&g->c, (struct opcode){4, 0, 0x8b}, to, CPU, NO_HOST, 0, at);
}

static void test_requests(struct gen *g)
{
	load32(g, RAX, offsetof(struct cpu, request));
	emit_mem(&g->c, (struct opcode){4, 0, 0x85}, RAX, CPU, NO_HOST, 0,
		offsetof(struct cpu, request_mask));
}

/* jmp [block + enter] */
static void enter_block(struct gen *g, u8 block)
{
	emit_mem(&g->c, (struct opcode){4, 0, 0xff}, 4, block, NO_HOST, 0, offsetof(struct tb, enter));
}

/* ---- the jump cache ---- */

/* R10 = the jump cache's entry for RIP; R11 = 0: it is valid */
static void find_entry(struct gen *g)
{
	struct code *c = &g->c;

	_Static_assert(sizeof(struct jc_entry) == 24, "multiplied by 24 here");
	emit_mov(c, R10, RIP);
	emit_reg(c, (struct opcode){8, 0, 0xc1}, 5, R10);
	emit_bytes(c, JC_BITS, 1);
	emit_reg(c, (struct opcode){8, 0, 0x33}, R10, RIP);
	emit_reg(c, (struct opcode){4, 0, 0x81}, 4, R10);
	emit_bytes(c, JC_SIZE - 1, 4);
	emit_lea(c, R10, R10, R10, 1, 0);
	emit_load(c, R11, CPU, offsetof(struct cpu, tbs));
	emit_lea(c, R10, R11, R10, 3, offsetof(struct tb_cache, jc));
	emit_load(c, RAX, R11, offsetof(struct tb_cache, salt));
	emit_mem(c, (struct opcode){8, 0, 0x33}, RAX, R10, NO_HOST, 0, offsetof(struct jc_entry, salt));
	emit_mov(c, R11, RIP);
	emit_mem(c, (struct opcode){8, 0, 0x33}, R11, R10, NO_HOST, 0, offsetof(struct jc_entry, rip));
	emit_reg(c, (struct opcode){8, 0, 0x0b}, R11, RAX);
}

/* Go to RIP, which is canonical, by the jump cache; all of the instruction has been done. */
static void go_indirect(struct gen *g)
{
	find_entry(g);
	emit_reg(&g->c, (struct opcode){4, 0, 0x33}, SLOT, SLOT);
	emit_reg(&g->c, (struct opcode){8, 0, 0x85}, R11, R11);
	leave_if(g, CC_NE);
	test_requests(g);
	leave_if(g, CC_NE);
	emit_load(&g->c, RAX, R10, offsetof(struct jc_entry, tb));
	enter_block(g, RAX);
}

/* ---- the block's bytes ---- */

static void compare_word(struct gen *g, u64 v, u64 mask, const u8 *at)
{
	s32 disp = at - g->tb->first;

	emit_const(&g->c, R11, v);
	if (mask == ~0ull) {
		emit_mem(&g->c, (struct opcode){8, 0, 0x3b}, R11, R10, NO_HOST, 0, disp);
		return;
	}
	emit_mem(&g->c, (struct opcode){8, 0, 0x33}, R11, R10, NO_HOST, 0, disp);
	emit_const(&g->c, RAX, mask);
	emit_reg(&g->c, (struct opcode){8, 0, 0x85}, R11, RAX);
}

/* As tb_same_page. changed: jumps for who has found a difference. */
static unsigned int compare_code(struct gen *g, u8 **changed)
{
	const struct tb *tb = g->tb;
	const u8 *last = tb->hva + tb->len - 8, *p = tb->hva + 8;
	unsigned int nr = 0;

	emit_const(&g->c, R10, (u64)tb->first);
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
	emit_mem(&g->c, (struct opcode){8, 0, 0x83}, 0, CPU, NO_HOST, 0, offsetof(struct cpu, insns));
	emit_bytes(&g->c, (u8)n, 1);
}

/* ---- direct branches ---- */

/* To `rel` bytes behind the block's start. slot: offset from UOP. */
static void go_direct(struct gen *g, s32 slot, s64 rel)
{
	gen_lea(g, RIP, RIP, NO_HOST, 0, rel);
	if ((g->tb->gpa.v & ~PAGE_MASK) + (u64)rel >= PAGE_SIZE) {
		go_indirect(g);
		return;
	}
	emit_lea(&g->c, SLOT, UOP, NO_HOST, 0, slot);
	test_requests(g);
	leave_if(g, CC_NE);
	emit_load(&g->c, RAX, SLOT, 0);
	emit_reg(&g->c, (struct opcode){8, 0, 0x85}, RAX, RAX);
	leave_if(g, CC_E);
	enter_block(g, RAX);
}

#define TAKEN_SLOT     ((s32)offsetof(struct uop, next))
#define NOT_TAKEN_SLOT ((s32)(sizeof(struct uop) + offsetof(struct uop, next)))

void gen_fall_through(struct gen *g)
{
	gen_flags_save(g);
	gen_set_uop(g);
	go_direct(g, TAKEN_SLOT, g->tb->uop[g->k].imm);
}

static bool jcc(struct gen *g, const struct insn *i)
{
	const struct uop *u = &g->tb->uop[g->k];
	u8 *taken;

	gen_flags_save(g);
	gen_set_uop(g);
	gen_flags_need(g);
	taken = gen_jump(g, i->opcode & 15);
	go_direct(g, NOT_TAKEN_SLOT, u->disp);
	gen_land(g, taken);
	go_direct(g, TAKEN_SLOT, u->imm);
	return true;
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
	g->exit[g->nr_exits++] = gen_jump(g, CC_NE);
	g->nr_exits += compare_code(g, g->exit + g->nr_exits);
	add_insns(g, g->tb->n);
	emit_lea(&g->c, UOP, UOP, NO_HOST, 0, -(s32)(g->k * sizeof(struct uop)));
	g->at = 0;
	g->live = false;
}

void gen_loop_end(struct gen *g, const struct insn *i)
{
	u8 *taken;

	gen_flags_save(g);
	gen_set_uop(g);
	gen_flags_need(g);
	taken = gen_jump(g, i->opcode & 15);
	gen_vec_end(g, g->fp);
	go_direct(g, NOT_TAKEN_SLOT, g->tb->uop[g->k].disp);
	gen_land(g, taken);
	enter_again(g);
}

void gen_loop_exit(struct gen *g)
{
	for (unsigned int k = 0; k < g->nr_exits; k++)
		gen_land(g, g->exit[k]);
	gen_vec_end(g, g->fp);
	emit_lea(&g->c, SLOT, UOP, NO_HOST, 0, TAKEN_SLOT);
	leave_if(g, CC_ALWAYS);
}

/* ---- calls and returns ---- */

/* [EA + DELTA], checked, takes the address of the next instruction. */
static void push_next(struct gen *g, const struct insn *i)
{
	u8 sp = gen_get(g, GPR_RSP);

	gen_lea(g, EA, sp, NO_HOST, 0, -g->width);
	gen_check(g, GPR_RSP, g->width, true);
	gen_lea(g, RAX, RIP, NO_HOST, 0, g->tb->uop[g->k].off + i->len);
	emit_mem(&g->c, (struct opcode){g->width, 0, 0x89}, RAX, EA, DELTA, 0, 0);
	emit_store(&g->c, EA, CPU, offsetof(struct cpu, regs[GPR_RSP]));
}

/* TARGET = register or memory operand. A target that is not canonical is the interpreter's. */
static void load_target(struct gen *g, const struct insn *i)
{
	gen_flags_lose(g);
	if (i->flags & INSN_MEM) {
		gen_operand(g, i, g->width, false);
		emit_mem(&g->c, (struct opcode){g->width, 0, 0x8b}, TARGET, EA, DELTA, 0, 0);
	} else {
		gen_set_uop(g);
		gen_lea(g, TARGET, gen_get(g, i->rm), NO_HOST, 0, 0);
	}
}

static void check_target(struct gen *g)
{
	if (g->width == 4)
		return;
	emit_mov(&g->c, RAX, TARGET);
	emit_reg(&g->c, (struct opcode){8, 0, 0xc1}, 4, RAX);
	emit_bytes(&g->c, 16, 1);
	emit_reg(&g->c, (struct opcode){8, 0, 0xc1}, 7, RAX);
	emit_bytes(&g->c, 16, 1);
	emit_reg(&g->c, (struct opcode){8, 0, 0x3b}, RAX, TARGET);
	gen_miss_if(g, CC_NE);
}

static bool jump(struct gen *g, const struct insn *i, bool call)
{
	bool relative = insn_row(i)->opnd[0].kind == OPND_J;

	gen_flags_lose(g);
	gen_give_up(g, TARGET);
	if (!relative) {
		load_target(g, i);
		check_target(g);
	}
	gen_set_uop(g);
	if (call)
		push_next(g, i);
	if (relative) {
		go_direct(g, TAKEN_SLOT, g->tb->uop[g->k].imm);
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
		return jcc(g, i);
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

/*
 * The block counts as entered before its bytes are read: if they cannot be, the guest is at its
 * first instruction.
 */
void gen_enter(struct gen *g, const u8 *start)
{
	u8 *changed[TB_MAX_INSNS * 2 + 2];
	unsigned int nr;

	emit_store(&g->c, RIP, CPU, offsetof(struct cpu, regs[GPR_RIP]));
	emit_const(&g->c, UOP, (u64)g->tb->uop);
	add_insns(g, g->tb->n);
	nr = compare_code(g, changed);
	if (start)
		gen_jump_to(g, CC_ALWAYS, start);
	else
		emit_bytes(&g->c, 0x26ff, 2); /* jmp [rsi] */
	for (unsigned int k = 0; k < nr; k++)
		gen_land(g, changed[k]);
	add_insns(g, -g->tb->n);
	leave_if(g, CC_ALWAYS);
}

void gen_leave(struct code *c)
{
	emit_load(c, RAX, CPU, offsetof(struct cpu, tbs));
	emit_store(c, SLOT, RAX, offsetof(struct tb_cache, link));
	emit_store(c, RIP, RAX, offsetof(struct tb_cache, link_rip));
	emit_store(c, RIP, CPU, offsetof(struct cpu, rip));
	emit_store(c, FLAGS, CPU, offsetof(struct cpu, fl));
	_Static_assert(STOP_OK == 0, "");
	emit_reg(c, (struct opcode){4, 0, 0x33}, RAX, RAX);
	emit_bytes(c, 0xc3, 1);
}
