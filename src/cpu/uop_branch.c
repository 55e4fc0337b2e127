// SPDX-License-Identifier: MIT
/* Fast handlers of near control transfer in 64-bit mode: the ends of blocks. */
#include "cpu/interp.h"

/*
 * imm: target, disp: fall-through, both relative to the block's first byte, so that a block
 * works under every alias of its page. A non-canonical RIP is found by the next fetch.
 */
#define JCC(cc, cond)                                                                     \
	static u64 jcc##cc(struct cpu *cpu, const struct uop *u, u64 fl)                  \
	{                                                                                 \
		u64 start = cpu->regs[GPR_RIP];                                           \
		if (cond)                                                                 \
			return goto_direct(cpu, TAKEN(u), start, start + u->imm, fl);     \
		return goto_direct(cpu, NOT_TAKEN(u), start, start + (s64)u->disp, fl);   \
	}
#define SF_NE_OF (!!(fl & FI_SF) != (fl & FI_OF))

JCC(0, fl & FI_OF)
JCC(1, !(fl & FI_OF))
JCC(2, fl & FI_CF)
JCC(3, !(fl & FI_CF))
JCC(4, fl & FI_ZF)
JCC(5, !(fl & FI_ZF))
JCC(6, fl & (FI_CF | FI_ZF))
JCC(7, !(fl & (FI_CF | FI_ZF)))
JCC(8, fl & FI_SF)
JCC(9, !(fl & FI_SF))
JCC(10, fl & FI_PF)
JCC(11, !(fl & FI_PF))
JCC(12, SF_NE_OF)
JCC(13, !SF_NE_OF)
JCC(14, (fl & FI_ZF) || SF_NE_OF)
JCC(15, !((fl & FI_ZF) || SF_NE_OF))

static uop_fn *const jcc[16] = {jcc0, jcc1, jcc2, jcc3, jcc4, jcc5, jcc6, jcc7, jcc8, jcc9,
	jcc10, jcc11, jcc12, jcc13, jcc14, jcc15};

static u64 jmp_rel(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 start = cpu->regs[GPR_RIP];

	return goto_direct(cpu, TAKEN(u), start, start + u->imm, fl);
}

/* Push the address of the next instruction; NULL: slow path. */
static ALWAYS_INLINE ram64 *push_return(struct cpu *cpu, u64 *sp)
{
	*sp = cpu->regs[GPR_RSP] - 8;
	return tlb_write(cpu, *sp, 8);
}

static u64 call_rel(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 sp, start = cpu->regs[GPR_RIP];
	ram64 *p = push_return(cpu, &sp);

	if (unlikely(!p))
		return uop_slow(cpu, u, fl);
	*p = start + u->off + u->len;
	cpu->regs[GPR_RSP] = sp;
	return goto_direct(cpu, TAKEN(u), start, start + u->imm, fl);
}

static u64 ret_near(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 sp = cpu->regs[GPR_RSP];
	ram64 *p = tlb_read(cpu, sp, 8);

	if (unlikely(!p))
		return uop_slow(cpu, u, fl);
	cpu->regs[GPR_RSP] = sp + 8 + u->imm;
	return goto_rip(cpu, *p, fl);
}

static u64 jmp_r(struct cpu *cpu, const struct uop *u, u64 fl)
{
	return goto_rip(cpu, *(u64 *)REGP(cpu, u->src), fl);
}

static u64 jmp_m(struct cpu *cpu, const struct uop *u, u64 fl)
{
	ram64 *p = tlb_read(cpu, uop_eax(cpu, u), 8);

	return likely(p) ? goto_rip(cpu, *p, fl) : uop_slow(cpu, u, fl);
}

static u64 call_r(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 sp, target = *(u64 *)REGP(cpu, u->src);
	ram64 *p = push_return(cpu, &sp);

	if (unlikely(!p))
		return uop_slow(cpu, u, fl);
	*p = cpu->regs[GPR_RIP] + u->off + u->len;
	cpu->regs[GPR_RSP] = sp;
	return goto_rip(cpu, target, fl);
}

static u64 call_m(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 sp, target;
	ram64 *p = push_return(cpu, &sp), *m = tlb_read(cpu, uop_eax(cpu, u), 8);

	if (unlikely(!p || !m))
		return uop_slow(cpu, u, fl);
	target = *m;
	*p = cpu->regs[GPR_RIP] + u->off + u->len;
	cpu->regs[GPR_RSP] = sp;
	return goto_rip(cpu, target, fl);
}

static uop_fn *choose_indirect(const struct uop_choice *c, struct uop *u, uop_fn *r, uop_fn *m)
{
	if (c->i->flags & INSN_MEM)
		return c->mem ? m : NULL;
	u->src = 8 * c->i->rm;
	return r;
}

uop_fn *uop_branch(const struct uop_choice *c, struct uop *u)
{
	unsigned int op = insn_op(c->i);
	bool relative = c->row->opnd[0].kind == OPND_J;

	if (c->cpu->mode != MODE_64 || c->i->osz != 8)
		return NULL;
	if (relative) {
		u->next = NULL;
		u->disp = u->off + c->i->len;
		u->imm = u->disp + c->i->imm;
	}
	switch (op) {
	case OP_JCC:
		return jcc[c->i->opcode & 15];
	case OP_JMP:
		return relative ? jmp_rel : choose_indirect(c, u, jmp_r, jmp_m);
	case OP_CALL:
		return relative ? call_rel : choose_indirect(c, u, call_r, call_m);
	case OP_RET:
		u->imm = c->row->opnd[0].kind == OPND_I ? (u16)c->i->imm : 0;
		return ret_near;
	default:
		return NULL;
	}
}
