// SPDX-License-Identifier: MIT
/* Fast handlers of near control transfer in 64-bit and flat 32-bit code: the ends of blocks. */
#include "cpu/interp.h"

/*
 * imm: target, disp: fall-through, both relative to the block's first byte, so that a block
 * works under every alias of its page. Indirect targets that are not canonical take the
 * slow path: the branch itself faults.
 * A is the type of an address: EIP and ESP wrap at 4 GiB in 32-bit code.
 */
#define A8 ram64
#define A4 ram32
#define JCC(n, cc, cond)                                                                  \
	static u64 jcc##n##_##cc(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		u64 start = cpu->regs[GPR_RIP];                                           \
		if (cond)                                                                 \
			return goto_direct(cpu, TAKEN(u), start, (A##n)(start + u->imm), fl); \
		return goto_direct(                                                       \
			cpu, NOT_TAKEN(u), start, (A##n)(start + (s64)u->disp), fl);      \
	}
#define SF_NE_OF (!!(fl & FI_SF) != (fl & FI_OF))
#define JCCS(n)                                                                           \
	JCC(n, 0, fl & FI_OF) JCC(n, 1, !(fl & FI_OF))                                    \
	JCC(n, 2, fl & FI_CF) JCC(n, 3, !(fl & FI_CF))                                    \
	JCC(n, 4, fl & FI_ZF) JCC(n, 5, !(fl & FI_ZF))                                    \
	JCC(n, 6, fl & (FI_CF | FI_ZF)) JCC(n, 7, !(fl & (FI_CF | FI_ZF)))                \
	JCC(n, 8, fl & FI_SF) JCC(n, 9, !(fl & FI_SF))                                    \
	JCC(n, 10, fl & FI_PF) JCC(n, 11, !(fl & FI_PF))                                  \
	JCC(n, 12, SF_NE_OF) JCC(n, 13, !SF_NE_OF)                                        \
	JCC(n, 14, (fl & FI_ZF) || SF_NE_OF) JCC(n, 15, !((fl & FI_ZF) || SF_NE_OF))
JCCS(8)
JCCS(4)

#define JCC_ROW(n)                                                                        \
	{jcc##n##_0, jcc##n##_1, jcc##n##_2, jcc##n##_3, jcc##n##_4, jcc##n##_5, jcc##n##_6, \
		jcc##n##_7, jcc##n##_8, jcc##n##_9, jcc##n##_10, jcc##n##_11, jcc##n##_12, \
		jcc##n##_13, jcc##n##_14, jcc##n##_15}
static uop_fn *const jcc[2][16] = {JCC_ROW(8), JCC_ROW(4)};

/* Canonical with 48 bits is canonical with 57, too: all others are rare. */
static ALWAYS_INLINE bool target_ok(u64 target)
{
	return likely((u64)((s64)(target << 16) >> 16) == target);
}

/*
 * CALL pushes the address of the next instruction. A target from memory is read before the
 * stack is written, in case they overlap.
 */
#define BRANCHES(n)                                                                       \
	static u64 jmp##n##_rel(struct cpu *cpu, const struct uop *u, u64 fl)             \
	{                                                                                 \
		u64 start = cpu->regs[GPR_RIP];                                           \
		return goto_direct(cpu, TAKEN(u), start, (A##n)(start + u->imm), fl);     \
	}                                                                                 \
	static ALWAYS_INLINE bool push##n##_next(struct cpu *cpu, const struct uop *u)    \
	{                                                                                 \
		A##n sp = cpu->regs[GPR_RSP] - n, *p = tlb_write(cpu, sp, n);             \
		if (unlikely(!p))                                                         \
			return false;                                                     \
		*p = cpu->regs[GPR_RIP] + u->off + u->len;                                \
		cpu->regs[GPR_RSP] = sp;                                                  \
		return true;                                                              \
	}                                                                                 \
	static u64 call##n##_rel(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		u64 start = cpu->regs[GPR_RIP];                                           \
		if (unlikely(!push##n##_next(cpu, u)))                                    \
			return uop_slow(cpu, u, fl);                                      \
		return goto_direct(cpu, TAKEN(u), start, (A##n)(start + u->imm), fl);     \
	}                                                                                 \
	static u64 ret##n##_near(struct cpu *cpu, const struct uop *u, u64 fl)            \
	{                                                                                 \
		A##n sp = cpu->regs[GPR_RSP], *p = tlb_read(cpu, sp, n);                  \
		if (unlikely(!p || !target_ok(*p)))                                       \
			return uop_slow(cpu, u, fl);                                      \
		cpu->regs[GPR_RSP] = (A##n)(sp + n + u->imm);                             \
		return goto_rip(cpu, *p, fl);                                             \
	}                                                                                 \
	static u64 jmp##n##_r(struct cpu *cpu, const struct uop *u, u64 fl)               \
	{                                                                                 \
		A##n target = *(A##n *)REGP(cpu, u->src);                                 \
		return target_ok(target) ? goto_rip(cpu, target, fl) : uop_slow(cpu, u, fl); \
	}                                                                                 \
	static u64 jmp##n##_m(struct cpu *cpu, const struct uop *u, u64 fl)               \
	{                                                                                 \
		A##n *p = tlb_read(cpu, uop_eax(cpu, u), n);                              \
		return likely(p) && target_ok(*p) ? goto_rip(cpu, *p, fl) : uop_slow(cpu, u, fl); \
	}                                                                                 \
	static u64 call##n##_r(struct cpu *cpu, const struct uop *u, u64 fl)              \
	{                                                                                 \
		A##n target = *(A##n *)REGP(cpu, u->src);                                 \
		if (unlikely(!target_ok(target) || !push##n##_next(cpu, u)))                                    \
			return uop_slow(cpu, u, fl);                                      \
		return goto_rip(cpu, target, fl);                                         \
	}                                                                                 \
	static u64 call##n##_m(struct cpu *cpu, const struct uop *u, u64 fl)              \
	{                                                                                 \
		A##n *m = tlb_read(cpu, uop_eax(cpu, u), n), target = m ? *m : 0;         \
		if (unlikely(!m || !target_ok(target) || !push##n##_next(cpu, u)))                              \
			return uop_slow(cpu, u, fl);                                      \
		return goto_rip(cpu, target, fl);                                         \
	}
BRANCHES(8)
BRANCHES(4)

static uop_fn *choose_indirect(const struct uop_choice *c, struct uop *u, uop_fn *r, uop_fn *m)
{
	if (c->i->flags & INSN_MEM)
		return c->mem ? m : NULL;
	u->src = 8 * c->i->rm;
	return r;
}

#define BY_WIDTH(name, form) (c->flat ? name##4##form : name##8##form)

uop_fn *uop_branch(const struct uop_choice *c, struct uop *u)
{
	unsigned int op = insn_op(c->i);
	bool relative = c->row->opnd[0].kind == OPND_J;

	if (c->flat ? c->i->osz != 4 : c->cpu->mode != MODE_64 || c->i->osz != 8)
		return NULL;
	if (relative) {
		u->next = NULL;
		u->disp = u->off + c->i->len;
		u->imm = u->disp + c->i->imm;
	}
	switch (op) {
	case OP_JCC:
		return jcc[c->flat][c->i->opcode & 15];
	case OP_JMP:
		return relative ? BY_WIDTH(jmp, _rel) : choose_indirect(c, u, BY_WIDTH(jmp, _r), BY_WIDTH(jmp, _m));
	case OP_CALL:
		return relative ? BY_WIDTH(call, _rel) : choose_indirect(c, u, BY_WIDTH(call, _r), BY_WIDTH(call, _m));
	case OP_RET:
		u->imm = c->row->opnd[0].kind == OPND_I ? (u16)c->i->imm : 0;
		return BY_WIDTH(ret, _near);
	default:
		return NULL;
	}
}
