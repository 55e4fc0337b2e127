// SPDX-License-Identifier: MIT
/* Fast handlers of data movement: MOV and its kin, LEA, CMOVcc, SETcc, PUSH, POP, LEAVE. */
#include "cpu/interp.h"

#define T1 u8
#define T2 ram16
#define T4 ram32
#define T8 ram64

/* Write a register of `size` bytes; 4 bytes clear the upper half. */
static ALWAYS_INLINE void put(void *reg, unsigned int size, u64 v)
{
	if (size >= 4)
		*(u64 *)reg = zext(v, size);
	else
		__builtin_memcpy(reg, &v, size);
}

/*
 * A plain load from a page without RAM, when the translation is known and the device is one of the
 * machine's own: no environment is needed for that. In all other cases the usual road, also when the
 * block has to be left (counted time looks at its timers behind each device access). Writes the
 * register itself: no handler may have a variable whose address is known, or its last call is none.
 */
static NOINLINE bool device_load(struct cpu *cpu, const struct uop *u, u64 ea, unsigned int size)
{
	struct xlat x;
	u64 v;

	if (!OPT_TAKE_OVER || !cpu->ops->device_load || cpu->request & cpu->request_mask ||
		page_left(ea) < size ||
		!mmu_cached_device(&cpu->mmu, gva(ea), size, cpu_data_attr(cpu), &x) ||
		!cpu->ops->device_load(cpu, &x, size, &v))
		return false;
	put(REGP(cpu, u->dst), size, v);
	return true;
}

#define MOV(size)                                                                         \
	static u64 mov##size##_rr(struct cpu *cpu, const struct uop *u, u64 fl)           \
	{                                                                                 \
		put(REGP(cpu, u->dst), size, *(T##size *)REGP(cpu, u->src));              \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 mov##size##_ri(struct cpu *cpu, const struct uop *u, u64 fl)           \
	{                                                                                 \
		put(REGP(cpu, u->dst), size, u->imm);                                     \
		NEXT(u, fl);                                                              \
	}
#define MOV_MEM(size, x)                                                                  \
	static NOINLINE u64 mov##size##_rm##x##_miss(                                        \
		struct cpu *cpu, const struct uop *u, u64 fl)                             \
	{                                                                                 \
		if (!device_load(cpu, u, uop_ea##x(cpu, u), size))                           \
			return uop_slow(cpu, u, fl);                                      \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 mov##size##_rm##x(struct cpu *cpu, const struct uop *u, u64 fl)           \
	{                                                                                 \
		T##size *p = tlb_read(cpu, uop_ea##x(cpu, u), size);                         \
		if (unlikely(!p))                                                         \
			return mov##size##_rm##x##_miss(cpu, u, fl);                         \
		put(REGP(cpu, u->dst), size, *p);                                         \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 mov##size##_mr##x(struct cpu *cpu, const struct uop *u, u64 fl)           \
	{                                                                                 \
		T##size *p = tlb_write(cpu, uop_ea##x(cpu, u), size);                        \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		*p = *(T##size *)REGP(cpu, u->src);                                       \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 mov##size##_mi##x(struct cpu *cpu, const struct uop *u, u64 fl)           \
	{                                                                                 \
		T##size *p = tlb_write(cpu, uop_ea##x(cpu, u), size);                        \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		*p = u->imm;                                                              \
		NEXT(u, fl);                                                              \
	}
MOV(1) MOV_MEM(1, ) MOV_MEM(1, x)
MOV(2) MOV_MEM(2, ) MOV_MEM(2, x)
MOV(4) MOV_MEM(4, ) MOV_MEM(4, x)
MOV(8) MOV_MEM(8, ) MOV_MEM(8, x)

/* MOVZX and MOVSX: destination size d, source type S. */
#define EXTEND(name, d, S, n)                                                             \
	static u64 name##_r(struct cpu *cpu, const struct uop *u, u64 fl)                 \
	{                                                                                 \
		put(REGP(cpu, u->dst), d, (s64)*(S *)REGP(cpu, u->src));                  \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 name##_m(struct cpu *cpu, const struct uop *u, u64 fl)                 \
	{                                                                                 \
		S *p = tlb_read(cpu, uop_eax(cpu, u), n);                                  \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		put(REGP(cpu, u->dst), d, (s64)*p);                                       \
		NEXT(u, fl);                                                              \
	}
EXTEND(movzx4_1, 4, u8, 1)
EXTEND(movzx4_2, 4, ram16, 2)
EXTEND(movsx4_1, 4, s8, 1)
EXTEND(movsx4_2, 4, ram16s, 2)
EXTEND(movsx8_1, 8, s8, 1)
EXTEND(movsx8_2, 8, ram16s, 2)
EXTEND(movsx8_4, 8, ram32s, 4)

/* LEA: disp is from the block's start when the base is RIP; imm is the address mask. */
static u64 lea_any(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 ea = uop_ea(cpu, u) + (cpu->regs[u->index] << (u->scale_seg & 3));

	put(REGP(cpu, u->dst), u->size, ea & u->imm);
	NEXT(u, fl);
}

static u64 lea8_b(struct cpu *cpu, const struct uop *u, u64 fl)
{
	*(u64 *)REGP(cpu, u->dst) = uop_ea(cpu, u);
	NEXT(u, fl);
}

static u64 xchg8_rr(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 *a = REGP(cpu, u->dst), *b = REGP(cpu, u->src), v = *a;

	*a = *b;
	*b = v;
	NEXT(u, fl);
}

static u64 nop(struct cpu *cpu, const struct uop *u, u64 fl)
{
	NEXT(u, fl);
}

/* ---- conditions: one handler per condition code, so that each branch predicts on its own ---- */

#define CC_SF_NE_OF (!!(fl & FI_SF) != (fl & FI_OF))
#define FOR_EACH_CC(X)                                                                    \
	X(0, fl & FI_OF) X(1, !(fl & FI_OF)) X(2, fl & FI_CF) X(3, !(fl & FI_CF))         \
	X(4, fl & FI_ZF) X(5, !(fl & FI_ZF)) X(6, fl & (FI_CF | FI_ZF))                   \
	X(7, !(fl & (FI_CF | FI_ZF))) X(8, fl & FI_SF) X(9, !(fl & FI_SF))                \
	X(10, fl & FI_PF) X(11, !(fl & FI_PF)) X(12, CC_SF_NE_OF) X(13, !CC_SF_NE_OF)     \
	X(14, (fl & FI_ZF) || CC_SF_NE_OF) X(15, !((fl & FI_ZF) || CC_SF_NE_OF))

#define SETCC(cc, cond)                                                                   \
	static u64 setcc##cc##_r(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		*(u8 *)REGP(cpu, u->dst) = !!(cond);                                      \
		NEXT(u, fl);                                                              \
	}
FOR_EACH_CC(SETCC)

/* CMOVcc r32 clears the upper half also when the condition is false (SDM 2A CMOVcc). */
#define CMOVCC(cc, cond)                                                                  \
	static u64 cmov4_##cc##_rr(struct cpu *cpu, const struct uop *u, u64 fl)          \
	{                                                                                 \
		u64 *d = REGP(cpu, u->dst);                                               \
		*d = (u32)((cond) ? *(u64 *)REGP(cpu, u->src) : *d);                      \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 cmov8_##cc##_rr(struct cpu *cpu, const struct uop *u, u64 fl)          \
	{                                                                                 \
		u64 *d = REGP(cpu, u->dst);                                               \
		*d = (cond) ? *(u64 *)REGP(cpu, u->src) : *d;                             \
		NEXT(u, fl);                                                              \
	}
FOR_EACH_CC(CMOVCC)

#define SETCC_ROW(cc, cond) setcc##cc##_r,
#define CMOV4_ROW(cc, cond) cmov4_##cc##_rr,
#define CMOV8_ROW(cc, cond) cmov8_##cc##_rr,
static uop_fn *const setcc_r[16] = {FOR_EACH_CC(SETCC_ROW)};
static uop_fn *const cmov_rr[2][16] = {{FOR_EACH_CC(CMOV4_ROW)}, {FOR_EACH_CC(CMOV8_ROW)}};

/* ---- stack of 64-bit and of flat 32-bit code ---- */

#define STACK(n)                                                                          \
	static u64 push##n##_r(struct cpu *cpu, const struct uop *u, u64 fl)              \
	{                                                                                 \
		T##n sp = cpu->regs[GPR_RSP] - n, *p = tlb_write(cpu, sp, n);             \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		*p = *(T##n *)REGP(cpu, u->src);                                          \
		cpu->regs[GPR_RSP] = sp;                                                  \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 push##n##_i(struct cpu *cpu, const struct uop *u, u64 fl)              \
	{                                                                                 \
		T##n sp = cpu->regs[GPR_RSP] - n, *p = tlb_write(cpu, sp, n);             \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		*p = u->imm;                                                              \
		cpu->regs[GPR_RSP] = sp;                                                  \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 pop##n##_r(struct cpu *cpu, const struct uop *u, u64 fl)               \
	{                                                                                 \
		T##n sp = cpu->regs[GPR_RSP], *p = tlb_read(cpu, sp, n);                  \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		cpu->regs[GPR_RSP] = (T##n)(sp + n);                                      \
		*(u64 *)REGP(cpu, u->dst) = *p;                                           \
		NEXT(u, fl);                                                              \
	}                                                                                 \
	static u64 leave##n(struct cpu *cpu, const struct uop *u, u64 fl)                 \
	{                                                                                 \
		T##n sp = cpu->regs[GPR_RBP], *p = tlb_read(cpu, sp, n);                  \
		if (unlikely(!p))                                                         \
			return uop_slow(cpu, u, fl);                                      \
		cpu->regs[GPR_RSP] = (T##n)(sp + n);                                      \
		cpu->regs[GPR_RBP] = *p;                                                  \
		NEXT(u, fl);                                                              \
	}
STACK(8)
STACK(4)

/* CBW, CWDE, CDQE and CWD, CDQ, CQO. */
static u64 cdqe(struct cpu *cpu, const struct uop *u, u64 fl)
{
	cpu->regs[GPR_RAX] = (s64)(s32)cpu->regs[GPR_RAX];
	NEXT(u, fl);
}
static u64 cwde(struct cpu *cpu, const struct uop *u, u64 fl)
{
	cpu->regs[GPR_RAX] = (u32)(s32)(s16)cpu->regs[GPR_RAX];
	NEXT(u, fl);
}
static u64 cqo(struct cpu *cpu, const struct uop *u, u64 fl)
{
	cpu->regs[GPR_RDX] = (s64)cpu->regs[GPR_RAX] >> 63;
	NEXT(u, fl);
}
static u64 cdq(struct cpu *cpu, const struct uop *u, u64 fl)
{
	cpu->regs[GPR_RDX] = (u32)((s32)cpu->regs[GPR_RAX] >> 31);
	NEXT(u, fl);
}

/* ---- choice ---- */

#define MOV_ROW(size)                                                                     \
	{mov##size##_rr, mov##size##_ri, mov##size##_rm, mov##size##_mr, mov##size##_mi,  \
		mov##size##_rmx, mov##size##_mrx, mov##size##_mix}
static uop_fn *const mov_table[4][8] = {MOV_ROW(1), MOV_ROW(2), MOV_ROW(4), MOV_ROW(8)};

static uop_fn *choose_mov(const struct uop_choice *c, struct uop *u)
{
	const struct operand *a = &c->row->opnd[0], *b = &c->row->opnd[1];
	unsigned int size = insn_opnd_size(c->i, 0), k = __builtin_ctz(size | 16);
	bool mem = c->i->flags & INSN_MEM;
	bool to_mem = mem && (a->kind == OPND_E || a->kind == OPND_O || a->kind == OPND_M);

	if (!size || size > 8)
		return NULL;
	if (!to_mem)
		u->dst = a->kind == OPND_FIX ? 8 * a->fixed
					     : uop_reg(c->i, a->kind == OPND_E ? c->i->rm : c->i->reg, size);
	if (b->kind == OPND_I)
		return mov_table[k][!to_mem ? 1 : c->eax ? 7 : 4];
	if (!(mem && !to_mem))
		u->src = b->kind == OPND_FIX ? 8 * b->fixed
					     : uop_reg(c->i, b->kind == OPND_E ? c->i->rm : c->i->reg, size);
	return mov_table[k][!mem ? 0 : (to_mem ? 3 : 2) + (c->eax ? 3 : 0)];
}

static uop_fn *choose_extend(const struct uop_choice *c, struct uop *u, bool is_signed)
{
	unsigned int d = insn_opnd_size(c->i, 0), s = insn_opnd_size(c->i, 1);
	bool mem = c->i->flags & INSN_MEM;

	u->dst = 8 * c->i->reg;
	if (!mem)
		u->src = uop_reg(c->i, c->i->rm, s);
	if (d < 4)
		return NULL;
	if (!is_signed && s < 4)
		return s == 1 ? (mem ? movzx4_1_m : movzx4_1_r) : (mem ? movzx4_2_m : movzx4_2_r);
	if (d == 4 && s < 4)
		return s == 1 ? (mem ? movsx4_1_m : movsx4_1_r) : (mem ? movsx4_2_m : movsx4_2_r);
	if (d == 8 && is_signed)
		return s == 1	? (mem ? movsx8_1_m : movsx8_1_r)
		       : s == 2 ? (mem ? movsx8_2_m : movsx8_2_r)
				: (mem ? movsx8_4_m : movsx8_4_r);
	return NULL;
}

static uop_fn *choose_lea(const struct uop_choice *c, struct uop *u)
{
	if (c->i->asz == 2 || c->i->osz == 2)
		return NULL;
	u->dst = 8 * c->i->reg;
	u->size = c->i->osz;
	if (c->i->asz == 8 && c->i->osz == 8 && u->index == GPR_ZERO)
		return lea8_b;
	u->imm = c->i->asz == 8 ? ~0ull : 0xffffffff;
	return lea_any;
}

static uop_fn *choose_push(const struct uop_choice *c, struct uop *u)
{
	const struct operand *o = &c->row->opnd[0];

	if (c->i->flags & INSN_MEM)
		return NULL;
	if (o->kind == OPND_I) {
		u->imm = c->i->imm;
		return c->flat ? push4_i : push8_i;
	}
	if (o->kind != OPND_Z && o->kind != OPND_E)
		return NULL;
	u->src = 8 * (o->kind == OPND_Z ? c->i->reg : c->i->rm);
	return c->flat ? push4_r : push8_r;
}

static uop_fn *choose_pop(const struct uop_choice *c, struct uop *u)
{
	const struct operand *o = &c->row->opnd[0];

	if ((c->i->flags & INSN_MEM) || (o->kind != OPND_Z && o->kind != OPND_E))
		return NULL;
	u->dst = 8 * (o->kind == OPND_Z ? c->i->reg : c->i->rm);
	return c->flat ? pop4_r : pop8_r;
}

/* The stack of flat code, in its full width. */
static uop_fn *choose_stack(const struct uop_choice *c, struct uop *u)
{
	if (c->flat ? c->i->osz != 4 : c->i->osz != 8)
		return NULL;
	switch (insn_op(c->i)) {
	case OP_PUSH:
		return choose_push(c, u);
	case OP_POP:
		return choose_pop(c, u);
	case OP_LEAVE:
		return c->flat ? leave4 : leave8;
	default:
		return NULL;
	}
}

uop_fn *uop_move(const struct uop_choice *c, struct uop *u)
{
	bool mem = c->i->flags & INSN_MEM;

	u->imm = c->i->imm;
	switch (insn_op(c->i)) {
	case OP_NOP:
	case OP_ENDBR:
		return nop;
	case OP_CBW:
		return c->i->osz == 8 ? cdqe : c->i->osz == 4 ? cwde : NULL;
	case OP_CWD:
		return c->i->osz == 8 ? cqo : c->i->osz == 4 ? cdq : NULL;
	case OP_MOV:
		return mem && !c->mem ? NULL : choose_mov(c, u);
	case OP_MOVZX:
		return mem && !c->mem ? NULL : choose_extend(c, u, false);
	case OP_MOVSX:
	case OP_MOVSXD:
		return mem && !c->mem ? NULL : choose_extend(c, u, true);
	case OP_SETCC:
		u->dst = uop_reg(c->i, c->i->rm, 1);
		return mem ? NULL : setcc_r[c->i->opcode & 15];
	case OP_CMOVCC:
		u->dst = 8 * c->i->reg;
		u->src = 8 * c->i->rm;
		return mem || c->i->osz == 2 ? NULL : cmov_rr[c->i->osz == 8][c->i->opcode & 15];
	case OP_XCHG:
		u->dst = 8 * c->i->reg;
		u->src = c->row->opnd[0].kind == OPND_E ? 8 * c->i->rm : 8 * GPR_RAX;
		return mem || c->i->osz != 8 || insn_opnd_size(c->i, 0) != 8 ? NULL : xchg8_rr;
	case OP_LEA:
		return c->flat || c->cpu->mode == MODE_64 ? choose_lea(c, u) : NULL;
	default:
		return c->flat || c->cpu->mode == MODE_64 ? choose_stack(c, u) : NULL;
	}
}
