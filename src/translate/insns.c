// SPDX-License-Identifier: MIT
/*
 * One instruction as host code. Class N is encoded afresh with mirrors for its registers and
 * [EA + DELTA] for its memory operand: the host's instruction is the semantics. A few others
 * are written out. What has no case here is left to the interpreter.
 */
#include "translate/gen.h"

#define NOT_SIMPLE (RULE_X87 | RULE_MMX | RULE_CPL0 | RULE_PROT | RULE_BRANCH | RULE_ENDTB)

/* ---- class N ---- */

/* Operands as the host's encoding has them. */
struct native {
	const struct insn *i;
	const struct insn_row *row;
	u8 opcode;
	u8 ext;	       /* ModRM.reg, if it is no register */
	struct place {
		u8 guest;     /* register, or NO_HOST */
		u8 access;    /* ACC_* */
		bool vec;
		bool partial; /* a write leaves some of a general register */
	} reg, rm, vvvv, is4; /* where the encoding has them; is4: in the immediate */
	u8 count_reg;  /* operand in CL: GPR_RCX, or NO_HOST */
	u8 mem_access; /* ACC_* */
};

static bool is_high8(const struct insn *i, unsigned int k, unsigned int n)
{
	return insn_row(i)->opnd[k].size == SZ_b && !(i->flags & (INSN_REX | INSN_VEX)) && n >= 4 && n < 8;
}

static bool is_accumulator(const struct operand *o)
{
	return o->kind == OPND_FIX && o->fixed == GPR_RAX;
}

static bool set_gpr(struct native *n, struct place *p, unsigned int k, u8 guest)
{
	const struct operand *o = &n->row->opnd[k];

	*p = (struct place){guest, o->acc, .partial = insn_opnd_size(n->i, k) < 4};
	return is_accumulator(o) || !is_high8(n->i, k, guest);
}

static bool set_vec(struct native *n, struct place *p, unsigned int k, u8 guest)
{
	*p = (struct place){guest, n->row->opnd[k].acc, .vec = true};
	return true;
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
	return set_gpr(n, &n->rm, k, GPR_RAX);
}

/* 40 to 4F are FF in 64-bit mode. */
static bool set_inc_dec(struct native *n, unsigned int k)
{
	if (n->i->map || n->i->opcode < 0x40 || n->i->opcode > 0x4f)
		return false;
	n->opcode = 0xff;
	n->ext = n->i->opcode >> 3 & 1;
	return set_gpr(n, &n->rm, k, n->i->reg);
}

static bool set_operand(struct native *n, unsigned int k)
{
	const struct operand *o = &n->row->opnd[k];
	const struct insn *i = n->i;

	if ((i->flags & INSN_MEM) && (o->kind == OPND_E || o->kind == OPND_M || o->kind == OPND_W)) {
		n->mem_access = o->acc;
		return true;
	}
	switch (o->kind) {
	case OPND_NONE:
	case OPND_I:
	case OPND_ONE:
		return true;
	case OPND_E:
	case OPND_R:
		return set_gpr(n, &n->rm, k, i->rm);
	case OPND_Z:
		return set_inc_dec(n, k);
	case OPND_G:
		return set_gpr(n, &n->reg, k, i->reg);
	case OPND_B:
		return set_gpr(n, &n->vvvv, k, i->vvvv);
	case OPND_W:
	case OPND_U:
		return set_vec(n, &n->rm, k, i->rm);
	case OPND_V:
		return set_vec(n, &n->reg, k, i->reg);
	case OPND_H:
		return set_vec(n, &n->vvvv, k, i->vvvv);
	case OPND_L:
		return set_vec(n, &n->is4, k, i->imm2 >> 4 & 15);
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

static bool is_offered(const struct gen *g, const struct insn *i)
{
	const struct insn_row *row = insn_row(i);

	if ((row->rules & RULE_AVX2L) && (i->flags & INSN_L) && !g->cpu->features[CPUF_AVX2])
		return false;
	return !row->cpuf || g->cpu->features[row->cpuf];
}

static bool set_operands(struct native *n, const struct insn *i)
{
	const struct insn_row *row = insn_row(i);
	const struct place none = {.guest = NO_HOST};

	*n = (struct native){.i = i, .row = row, .opcode = i->opcode, .ext = i->modrm >> 3 & 7,
		.reg = none, .rm = none, .vvvv = none, .is4 = none, .count_reg = NO_HOST};
	if (row->cls != CLASS_N || (row->rules & NOT_SIMPLE) || (i->flags & INSN_MOFFS))
		return false;
	if (row->gpr_written | row->xmm_written || is_bit_string(i))
		return false;
	if (!i->map && i->opcode == 0x82 && !(i->flags & INSN_VEX)) /* 80's twin: #UD in the host's 64-bit mode */
		n->opcode = 0x80;
	for (unsigned int k = 0; k < ARRAY_SIZE(row->opnd); k++)
		if (!set_operand(n, k))
			return false;
	if (row->gpr_read & ~(n->count_reg == NO_HOST ? 0 : BIT(n->count_reg)))
		return false;
	return n->rm.guest != NO_HOST || n->mem_access;
}

static bool has_size(const struct insn_row *row, u8 size)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(row->opnd); k++)
		if (row->opnd[k].size == size)
			return true;
	return false;
}

static void emit_legacy(struct code *c, const struct native *n, u8 reg, u8 rm)
{
	static const u8 pp[] = {0, 0, 0xf3, 0xf2};
	const struct insn *i = n->i;
	unsigned int k = INSN_PP(i);
	struct opcode o = {i->flags & INSN_W ? 8 : has_size(n->row, SZ_b) ? 1 : 4, i->map, n->opcode};

	if (i->flags & INSN_LOCK)
		emit_bytes(c, 0xf0, 1);
	if (k == 1 || (i->osz == 2 && (has_size(n->row, SZ_v) || has_size(n->row, SZ_z))))
		emit_bytes(c, 0x66, 1);
	if (k > 1)
		emit_bytes(c, pp[k], 1);
	if (rm != NO_HOST)
		emit_reg(c, o, reg, rm);
	else
		emit_mem(c, o, reg, EA, DELTA, 0, 0);
}

static void emit_with_vex(struct code *c, const struct native *n, u8 reg, u8 rm, u8 vvvv)
{
	const struct insn *i = n->i;
	struct vex v = {i->map, n->opcode, INSN_PP(i), vvvv == NO_HOST ? 0 : vvvv, i->flags & INSN_W,
		i->flags & INSN_L};

	if (rm != NO_HOST)
		emit_vex_reg(c, v, reg, rm);
	else
		emit_vex_mem(c, v, reg, EA, DELTA);
}

static void emit_immediates(struct code *c, const struct native *n)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(n->row->opnd); k++)
		if (n->row->opnd[k].kind == OPND_I)
			emit_bytes(c, n->i->imm, insn_opnd_size(n->i, k));
	if (n->is4.guest != NO_HOST)
		emit_bytes(c, n->i->imm2 & 0xf0, 1);
}

/* Bring what it reads into the host's register; NO_HOST: none is needed before the operand is known. */
static u8 place_read(struct gen *g, const struct native *n, const struct place *p)
{
	if (p->guest == NO_HOST)
		return NO_HOST;
	if (p->vec && (p->access & ACC_R))
		gen_vec_get(g, p->guest, n->i->flags & INSN_VEX);
	if (p->vec)
		return p->guest;
	return (p->access & ACC_R) || p->partial ? gen_get(g, p->guest) : NO_HOST;
}

static u8 place_define(struct gen *g, const struct place *p, u8 host)
{
	return host == NO_HOST && p->guest != NO_HOST ? gen_def(g, p->guest) : host;
}

static void place_write(struct gen *g, const struct native *n, const struct place *p)
{
	if (p->guest == NO_HOST || !(p->access & ACC_W))
		return;
	if (p->vec)
		gen_vec_put(g, p->guest, n->i->flags & INSN_VEX);
	else
		gen_put(g, p->guest);
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

/* The memory operand, and #GP's condition for the interpreter. */
static void native_operand(struct gen *g, const struct native *n)
{
	unsigned int size = insn_mem_size(n->i);

	gen_operand(g, n->i, size, n->mem_access & ACC_W);
	if (!(n->row->rules & RULE_ALIGN))
		return;
	emit_reg(&g->c, (struct opcode){1, 0, 0xf6}, 0, EA); /* test */
	emit_bytes(&g->c, size - 1, 1);
	gen_miss_if(g, CC_NE);
}

static void emit_native(struct gen *g, const struct native *n, u8 reg, u8 rm, u8 vvvv)
{
	if (n->i->flags & INSN_VEX)
		emit_with_vex(&g->c, n, reg, rm, vvvv);
	else
		emit_legacy(&g->c, n, reg, rm);
	emit_immediates(&g->c, n);
}

static bool native(struct gen *g, const struct insn *i)
{
	struct native n;
	u8 reg, rm, vvvv;

	if (!is_offered(g, i) || !set_operands(&n, i))
		return false;
	if (n.row->rules & (RULE_SSE | RULE_AVX))
		gen_vec_begin(g, n.row->rules);
	if (n.count_reg != NO_HOST)
		gen_get_in(g, n.count_reg, RCX);
	if (n.row->xmm_read)
		gen_vec_get(g, 0, i->flags & INSN_VEX);
	reg = place_read(g, &n, &n.reg);
	rm = place_read(g, &n, &n.rm);
	vvvv = place_read(g, &n, &n.vvvv);
	place_read(g, &n, &n.is4);
	if (n.mem_access)
		native_operand(g, &n);
	reg = n.reg.guest == NO_HOST ? n.ext : place_define(g, &n.reg, reg);
	rm = place_define(g, &n.rm, rm);
	vvvv = place_define(g, &n.vvvv, vvvv);
	flags_before(g, n.row);
	emit_native(g, &n, reg, rm, vvvv);
	place_write(g, &n, &n.reg);
	place_write(g, &n, &n.rm);
	place_write(g, &n, &n.vvvv);
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
	struct address a;

	if (i->osz < 4)
		return false;
	a = gen_address(g, i);
	emit_mem(&g->c, (struct opcode){i->osz, 0, 0x8d}, gen_def(g, i->reg), a.base, a.index, a.scale, a.disp);
	gen_put(g, i->reg);
	return true;
}

/* Register of PUSH and POP, or NO_HOST. */
static u8 stack_reg(const struct gen *g, const struct insn *i)
{
	u8 kind = insn_row(i)->opnd[0].kind;

	if (i->osz != g->width || (i->flags & INSN_MEM))
		return NO_HOST;
	return kind == OPND_Z ? i->reg : kind == OPND_E ? i->rm : NO_HOST;
}

static void move_stack(struct gen *g, u8 base, s32 by)
{
	gen_lea(g, gen_def(g, GPR_RSP), base, NO_HOST, 0, by);
	gen_put(g, GPR_RSP);
}

/* What is pushed: a register, or R9 with the memory operand. */
static u8 pushed(struct gen *g, const struct insn *i)
{
	if (!(i->flags & INSN_MEM))
		return gen_get(g, stack_reg(g, i));
	gen_give_up(g, R9);
	gen_operand(g, i, g->width, false);
	emit_mem(&g->c, (struct opcode){g->width, 0, 0x8b}, R9, EA, DELTA, 0, 0);
	return R9;
}

static bool push(struct gen *g, const struct insn *i)
{
	u8 kind = insn_row(i)->opnd[0].kind, from = 0, sp;
	bool imm = kind == OPND_I;

	if (i->osz != g->width || (!imm && kind != OPND_Z && kind != OPND_E))
		return false;
	if (!imm)
		from = pushed(g, i);
	sp = gen_get(g, GPR_RSP);
	gen_lea(g, EA, sp, NO_HOST, 0, -g->width);
	gen_check(g, GPR_RSP, g->width, true);
	emit_mem(&g->c, (struct opcode){g->width, 0, imm ? 0xc7 : 0x89}, from, EA, DELTA, 0, 0);
	if (imm)
		emit_bytes(&g->c, i->imm, 4);
	move_stack(g, sp, -g->width);
	return true;
}

/* The value that EA points at goes to guest register n, RSP behind it; POP RSP has the value. */
static void pop_to(struct gen *g, u8 base, u8 n)
{
	gen_check(g, base, g->width, false);
	emit_mem(&g->c, (struct opcode){g->width, 0, 0x8b}, gen_def(g, n), EA, DELTA, 0, 0);
	if (n != GPR_RSP)
		move_stack(g, EA, g->width);
	gen_put(g, n);
}

static bool pop(struct gen *g, const struct insn *i)
{
	u8 n = stack_reg(g, i);

	if (n == NO_HOST)
		return false;
	gen_lea(g, EA, gen_get(g, GPR_RSP), NO_HOST, 0, 0);
	pop_to(g, GPR_RSP, n);
	return true;
}

static bool leave(struct gen *g, const struct insn *i)
{
	if (i->osz != g->width)
		return false;
	gen_lea(g, EA, gen_get(g, GPR_RBP), NO_HOST, 0, 0);
	pop_to(g, GPR_RBP, GPR_RBP);
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

static bool bswap(struct gen *g, const struct insn *i)
{
	u8 h;

	if (i->osz < 4)
		return false;
	h = gen_get(g, i->reg);
	emit_opcode(&g->c, (struct opcode){i->osz, 1, 0xc8 | (h & 7)}, 0, 0, h);
	gen_put(g, i->reg);
	return true;
}

/* ---- those that need RAX and RDX, which are no mirrors: MUL, DIV, CMPXCHG ---- */

/* RAX has a result and the host's flags are the guest's: RAX is the image again. */
static void take_back_rax(struct gen *g)
{
	emit_mov(&g->c, gen_def(g, GPR_RAX), RAX);
	gen_put(g, GPR_RAX);
	emit_bytes(&g->c, 0xb8, 1); /* mov eax, 0 */
	emit_bytes(&g->c, 0, 4);
	gen_flags_set(g);
	gen_flags_save(g);
}

/* Miss if the quotient may be too large, or there is none. by: the divisor */
static void check_quotient(struct gen *g, const struct insn *i, u8 by, bool is_signed)
{
	u8 high = gen_get(g, GPR_RDX);

	if (!is_signed) {
		emit_reg(&g->c, (struct opcode){i->osz, 0, 0x3b}, high, by);
		gen_miss_if(g, CC_AE);
		return;
	}
	/* RDX is RAX's sign, and the divisor neither 0 nor -1 */
	emit_reg(&g->c, (struct opcode){i->osz, 0, 0x8b}, T1, gen_get(g, GPR_RAX));
	emit_reg(&g->c, (struct opcode){i->osz, 0, 0xc1}, 7, T1);
	emit_bytes(&g->c, 8 * i->osz - 1, 1);
	emit_reg(&g->c, (struct opcode){i->osz, 0, 0x3b}, T1, high);
	gen_miss_if(g, CC_NE);
	emit_mem(&g->c, (struct opcode){i->osz, 0, 0x8d}, T1, by, NO_HOST, 0, 1);
	emit_reg(&g->c, (struct opcode){i->osz, 0, 0x83}, 7, T1); /* cmp */
	emit_bytes(&g->c, 1, 1);
	gen_miss_if(g, CC_BE);
}

/* RDX:RAX = RAX * operand; or RAX, RDX = RDX:RAX / operand, the rest */
static bool mul_div(struct gen *g, const struct insn *i)
{
	unsigned int op = insn_op(i);
	bool div = op == OP_DIV || op == OP_IDIV;
	u8 by;

	if (i->osz < 4 || i->opcode != 0xf7 || i->map)
		return false;
	if (i->flags & INSN_MEM) {
		by = R9;
		gen_give_up(g, by);
		gen_operand(g, i, i->osz, false);
		emit_mem(&g->c, (struct opcode){i->osz, 0, 0x8b}, by, EA, DELTA, 0, 0);
	} else {
		by = gen_get(g, i->rm);
	}
	gen_flags_lose(g);
	if (div)
		check_quotient(g, i, by, op == OP_IDIV);
	gen_get(g, GPR_RAX);
	gen_flags_need(g);
	emit_mov(&g->c, RAX, g->host_of[GPR_RAX]);
	if (div)
		emit_mov(&g->c, RDX, g->host_of[GPR_RDX]);
	emit_reg(&g->c, (struct opcode){i->osz, 0, 0xf7}, i->modrm >> 3 & 7, by);
	emit_mov(&g->c, gen_def(g, GPR_RDX), RDX);
	gen_put(g, GPR_RDX);
	take_back_rax(g);
	return true;
}

static bool cmpxchg(struct gen *g, const struct insn *i)
{
	bool mem = i->flags & INSN_MEM;
	u8 from, to;

	if (i->osz < 4 || i->opcode != 0xb1 || (!mem && i->rm == GPR_RAX))
		return false;
	from = gen_get(g, i->reg);
	gen_get(g, GPR_RAX);
	to = mem ? NO_HOST : gen_get(g, i->rm);
	if (mem) {
		g->spilled = true;
		gen_operand(g, i, i->osz, true);
		emit_store(&g->c, FLAGS, CPU, offsetof(struct cpu, fl));
	}
	emit_mov(&g->c, RAX, g->host_of[GPR_RAX]);
	if (i->flags & INSN_LOCK)
		emit_bytes(&g->c, 0xf0, 1);
	if (mem) {
		emit_mem(&g->c, (struct opcode){i->osz, 1, 0xb1}, from, EA, DELTA, 0, 0);
	} else {
		emit_reg(&g->c, (struct opcode){i->osz, 1, 0xb1}, from, to);
		gen_put(g, i->rm);
	}
	take_back_rax(g);
	return true;
}

bool gen_plain(struct gen *g, const struct insn *i)
{
	switch (insn_op(i)) {
	case OP_NOP:
	case OP_ENDBR:
		return true;
	case OP_PREFETCH:
	case OP_PREFETCHW:
		return is_offered(g, i);
	case OP_BSWAP:
		return bswap(g, i);
	case OP_IMUL:
		return native(g, i) || mul_div(g, i);
	case OP_MUL:
	case OP_DIV:
	case OP_IDIV:
		return mul_div(g, i);
	case OP_CMPXCHG:
		return cmpxchg(g, i);
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
