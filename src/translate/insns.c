// SPDX-License-Identifier: MIT
/*
 * One instruction as host code. Class N is encoded afresh with mirrors for its registers and
 * [EA + DELTA] for its memory operand: the host's instruction is the semantics. A few others
 * are written out. What has no case here is left to the interpreter.
 */
#include "translate/gen.h"

#define NOT_SIMPLE (RULE_MXCSR | RULE_X87 | RULE_MMX | RULE_ALIGN | RULE_SSE | RULE_AVX | RULE_CPL0 | \
		    RULE_PROT | RULE_BRANCH | RULE_ENDTB)

/* ---- class N ---- */

/* Operands as the host's encoding has them. */
struct native {
	const struct insn *i;
	const struct insn_row *row;
	u8 opcode;
	u8 ext;	       /* ModRM.reg, if it is no register */
	u8 reg, rm;    /* guest registers, or NO_HOST */
	u8 count_reg;  /* operand in CL: GPR_RCX, or NO_HOST */
	u8 mem_access; /* ACC_* */
	u8 reg_access, rm_access;
	bool reg_partial, rm_partial; /* a write leaves some of the register */
};

static bool is_high8(const struct insn *i, unsigned int k, unsigned int n)
{
	return insn_row(i)->opnd[k].size == SZ_b && !(i->flags & (INSN_REX | INSN_VEX)) && n >= 4 && n < 8;
}

static bool is_accumulator(const struct operand *o)
{
	return o->kind == OPND_FIX && o->fixed == GPR_RAX;
}

static bool set_rm(struct native *n, unsigned int k, u8 guest)
{
	n->rm = guest;
	n->rm_access = n->row->opnd[k].acc;
	n->rm_partial = insn_opnd_size(n->i, k) < 4;
	return !is_high8(n->i, k, guest) || is_accumulator(&n->row->opnd[k]);
}

static bool set_reg(struct native *n, unsigned int k, u8 guest)
{
	n->reg = guest;
	n->reg_access = n->row->opnd[k].acc;
	n->reg_partial = insn_opnd_size(n->i, k) < 4;
	return !is_high8(n->i, k, guest) || is_accumulator(&n->row->opnd[k]);
}

/* ADD eAX, imm and its kin are the host's 80 and 81, TEST is F6 and F7. */
static bool set_accumulator(struct native *n, unsigned int k)
{
	u8 op = n->i->opcode;

	if (n->i->map || k || n->row->opnd[1].kind != OPND_I)
		return false;
	if (op < 0x40) {
		n->opcode = 0x80 | (op & 1);
		n->ext = op >> 3;
	} else if ((op & 0xfe) == 0xa8) {
		n->opcode = 0xf6 | (op & 1);
		n->ext = 0;
	} else {
		return false;
	}
	return set_rm(n, k, GPR_RAX);
}

static bool set_operand(struct native *n, unsigned int k)
{
	const struct operand *o = &n->row->opnd[k];

	switch (o->kind) {
	case OPND_NONE:
	case OPND_I:
	case OPND_ONE:
		return true;
	case OPND_E:
	case OPND_M:
	case OPND_R:
		if (!(n->i->flags & INSN_MEM))
			return set_rm(n, k, n->i->rm);
		n->mem_access = o->acc;
		return true;
	case OPND_G:
		return set_reg(n, k, n->i->reg);
	case OPND_FIX:
		if (o->fixed == GPR_RAX)
			return set_accumulator(n, k);
		n->count_reg = o->fixed;
		return o->fixed == GPR_RCX && k == 1;
	default:
		return false;
	}
}

static bool is_bit_string(const struct insn *i)
{
	unsigned int op = insn_op(i);

	return (op == OP_BT || op == OP_BTS || op == OP_BTR || op == OP_BTC) &&
		(i->flags & INSN_MEM) && insn_row(i)->opnd[1].kind != OPND_I;
}

static bool set_operands(struct native *n, const struct insn *i)
{
	const struct insn_row *row = insn_row(i);

	*n = (struct native){.i = i, .row = row, .opcode = i->opcode, .ext = i->modrm >> 3 & 7,
		.reg = NO_HOST, .rm = NO_HOST, .count_reg = NO_HOST};
	if (row->cls != CLASS_N || (row->rules & NOT_SIMPLE) || (i->flags & (INSN_VEX | INSN_MOFFS)))
		return false;
	if (row->gpr_written | row->xmm_read | row->xmm_written || is_bit_string(i))
		return false;
	for (unsigned int k = 0; k < ARRAY_SIZE(row->opnd); k++)
		if (!set_operand(n, k))
			return false;
	if (row->gpr_read & ~(n->count_reg == NO_HOST ? 0 : BIT(n->count_reg)))
		return false;
	return n->rm != NO_HOST || n->mem_access;
}

static bool has_osz(const struct insn_row *row)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(row->opnd); k++)
		if (row->opnd[k].size == SZ_v || row->opnd[k].size == SZ_z)
			return true;
	return false;
}

static void emit_native(struct code *c, const struct native *n, u8 reg, u8 rm)
{
	static const u8 pp[] = {0, 0, 0xf3, 0xf2};
	const struct insn *i = n->i;
	unsigned int k = INSN_PP(i);
	struct opcode o = {i->flags & INSN_W ? 8 : 4, i->map, n->opcode};

	if (i->flags & INSN_LOCK)
		emit_bytes(c, 0xf0, 1);
	if (k == 1 || (i->osz == 2 && has_osz(n->row)))
		emit_bytes(c, 0x66, 1);
	if (k > 1)
		emit_bytes(c, pp[k], 1);
	if (rm != NO_HOST)
		emit_reg(c, o, reg, rm);
	else
		emit_mem(c, o, reg, EA, DELTA, 0, 0);
	for (k = 0; k < ARRAY_SIZE(n->row->opnd); k++)
		if (n->row->opnd[k].kind == OPND_I)
			emit_bytes(c, i->imm, insn_opnd_size(i, k));
}

static u8 mirror(struct gen *g, u8 guest, u8 access, bool partial)
{
	return (access & ACC_R) || partial ? gen_get(g, guest) : NO_HOST;
}

/*
 * Flags that it does not write, or may not, stay: they must be in the host's before. Those that it
 * leaves undefined may stay, too, but for AF, which the host sets or clears by the operands.
 */
static void flags_before(struct gen *g, const struct insn_row *row)
{
	bool all = (row->fl_written & FL_ALL) == FL_ALL && !(row->fl_undef & ~FL_AF);

	if (row->fl_read || (row->fl_written && !all))
		gen_flags_need(g);
}

static bool native(struct gen *g, const struct insn *i)
{
	struct native n;
	u8 reg, rm = NO_HOST;

	if (!set_operands(&n, i))
		return false;
	if (n.count_reg != NO_HOST)
		gen_get_in(g, n.count_reg, RCX);
	reg = n.reg == NO_HOST ? n.ext : mirror(g, n.reg, n.reg_access, n.reg_partial);
	if (n.rm != NO_HOST)
		rm = mirror(g, n.rm, n.rm_access, n.rm_partial);
	if (n.mem_access)
		gen_operand(g, i, insn_mem_size(i), n.mem_access & ACC_W);
	if (reg == NO_HOST)
		reg = gen_def(g, n.reg);
	if (n.rm != NO_HOST && rm == NO_HOST)
		rm = gen_def(g, n.rm);
	flags_before(g, n.row);
	emit_native(&g->c, &n, reg, rm);
	if (n.reg != NO_HOST && (n.reg_access & ACC_W))
		gen_put(g, n.reg);
	if (n.rm != NO_HOST && (n.rm_access & ACC_W))
		gen_put(g, n.rm);
	if (n.row->fl_written)
		gen_flags_set(g);
	return true;
}

/* ---- the others: MOV of constants, LEA, the stack, sign extension ---- */

static bool mov_const(struct gen *g, const struct insn *i)
{
	unsigned int n = i->reg;

	if (insn_row(i)->opnd[0].kind != OPND_Z || i->osz < 4 || insn_opnd_size(i, 0) < 4)
		return false;
	emit_const(&g->c, gen_def(g, n), i->osz == 8 ? (u64)i->imm : (u32)i->imm);
	gen_put(g, n);
	return true;
}

static bool lea(struct gen *g, const struct insn *i)
{
	s32 disp = g->tb->uop[g->k].disp;
	u8 base = NO_HOST, index = NO_HOST, to;

	if (i->asz != 8 || i->osz < 4)
		return false;
	if (i->rm == GPR_RIP)
		emit_load(&g->c, base = EA, CPU, offsetof(struct cpu, regs[GPR_RIP]));
	else if (i->rm != GPR_ZERO)
		base = gen_get(g, i->rm);
	if (i->index != GPR_ZERO)
		index = gen_get(g, i->index);
	to = gen_def(g, i->reg);
	emit_mem(&g->c, (struct opcode){i->osz, 0, 0x8d}, to, base, index, i->scale, disp);
	gen_put(g, i->reg);
	return true;
}

/* Register of PUSH and POP, or NO_HOST. */
static u8 stack_reg(const struct insn *i)
{
	u8 kind = insn_row(i)->opnd[0].kind;

	if (i->osz != 8 || (i->flags & INSN_MEM))
		return NO_HOST;
	return kind == OPND_Z ? i->reg : kind == OPND_E ? i->rm : NO_HOST;
}

static void move_stack(struct gen *g, u8 base, s32 by)
{
	emit_lea(&g->c, gen_def(g, GPR_RSP), base, NO_HOST, 0, by);
	gen_put(g, GPR_RSP);
}

static bool push(struct gen *g, const struct insn *i)
{
	bool imm = i->osz == 8 && insn_row(i)->opnd[0].kind == OPND_I;
	u8 n = stack_reg(i), from, sp;

	if (n == NO_HOST && !imm)
		return false;
	from = imm ? 0 : gen_get(g, n);
	sp = gen_get(g, GPR_RSP);
	emit_lea(&g->c, EA, sp, NO_HOST, 0, -8);
	gen_check(g, 8, true);
	emit_mem(&g->c, (struct opcode){8, 0, imm ? 0xc7 : 0x89}, from, EA, DELTA, 0, 0);
	if (imm)
		emit_bytes(&g->c, i->imm, 4);
	move_stack(g, sp, -8);
	return true;
}

/* The value that EA points at goes to guest register n, RSP to EA + 8; POP RSP has the value. */
static void pop_to(struct gen *g, u8 n)
{
	gen_check(g, 8, false);
	emit_mem(&g->c, (struct opcode){8, 0, 0x8b}, gen_def(g, n), EA, DELTA, 0, 0);
	if (n != GPR_RSP)
		move_stack(g, EA, 8);
	gen_put(g, n);
}

static bool pop(struct gen *g, const struct insn *i)
{
	u8 n = stack_reg(i);

	if (n == NO_HOST)
		return false;
	emit_mov(&g->c, EA, gen_get(g, GPR_RSP));
	pop_to(g, n);
	return true;
}

static bool leave(struct gen *g, const struct insn *i)
{
	if (i->osz != 8)
		return false;
	emit_mov(&g->c, EA, gen_get(g, GPR_RBP));
	pop_to(g, GPR_RBP);
	return true;
}

/* CWDE, CDQE; CDQ, CQO: the sign of RAX, by a shift that destroys flags */
static bool sign_extend(struct gen *g, const struct insn *i, bool to_dx)
{
	u8 a, to;

	if (i->osz < 4)
		return false;
	a = gen_get(g, GPR_RAX);
	if (!to_dx) {
		emit_reg(&g->c, (struct opcode){i->osz, i->osz == 4, i->osz == 4 ? 0xbf : 0x63}, a, a);
		gen_put(g, GPR_RAX);
		return true;
	}
	gen_flags_lose(g);
	to = gen_def(g, GPR_RDX);
	emit_reg(&g->c, (struct opcode){i->osz, 0, 0x8b}, to, a);
	emit_reg(&g->c, (struct opcode){i->osz, 0, 0xc1}, 7, to);
	emit_bytes(&g->c, 8 * i->osz - 1, 1);
	gen_put(g, GPR_RDX);
	return true;
}

bool gen_plain(struct gen *g, const struct insn *i)
{
	switch (insn_op(i)) {
	case OP_NOP:
	case OP_ENDBR:
		return true;
	case OP_LEA:
		return lea(g, i);
	case OP_PUSH:
		return push(g, i);
	case OP_POP:
		return pop(g, i);
	case OP_LEAVE:
		return leave(g, i);
	case OP_CBW:
		return sign_extend(g, i, false);
	case OP_CWD:
		return sign_extend(g, i, true);
	case OP_MOV:
		return mov_const(g, i) || native(g, i);
	default:
		return native(g, i);
	}
}
