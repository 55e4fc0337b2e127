// SPDX-License-Identifier: MIT
/*
 * Fast handlers of what a kernel does to its flags all the time: PUSHF, POPF, CLI, STI, CLAC, STAC,
 * CLD, STD, CLC, STC, CMC; and SWAPGS. Only the common case (64-bit, CPL 0); all checks and all
 * else are cpu_exec's.
 */
#include "cpu/interp.h"

static u64 pushf8(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 sp = cpu->regs[GPR_RSP] - 8;
	ram64 *p = tlb_write(cpu, sp, 8);

	if (unlikely(!p))
		return uop_slow(cpu, u, fl);
	*p = (cpu->eflags & ~(EFL_ARITH | EFL_RF | EFL_VM)) | EFL_ONE | (fl >> 8 & 0xd5) |
		(fl & FI_OF) << 11;
	cpu->regs[GPR_RSP] = sp;
	NEXT(u, fl);
}

static void set_if(struct cpu *cpu, bool on)
{
	cpu->eflags = on ? cpu->eflags | EFL_IF : cpu->eflags & ~EFL_IF;
	if (on && likely(!cpu->guest_debug_block))
		cpu->request_mask |= REQ_IRQ;
	else
		cpu->request_mask &= ~REQ_IRQ;
}

/* Flags whose change has no consequence but those of set_if. */
#define POPF_EASY (EFL_ARITH | EFL_IF | EFL_DF | EFL_ID | EFL_ONE)

static u64 popf8(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 sp = cpu->regs[GPR_RSP], v;
	ram64 *p = tlb_read(cpu, sp, 8);

	if (unlikely(!p || cpu->cpl))
		return uop_slow(cpu, u, fl);
	v = *p;
	if (unlikely((v ^ cpu->eflags) & ~POPF_EASY))
		return uop_slow(cpu, u, fl);
	cpu->eflags = (v & ~EFL_ARITH) | EFL_ONE;
	set_if(cpu, v & EFL_IF);
	cpu->regs[GPR_RSP] = sp + 8;
	NEXT(u, ((v & 0xd5) | EFL_ONE) << 8 | (v >> 11 & 1));
}

static u64 cli(struct cpu *cpu, const struct uop *u, u64 fl)
{
	if (unlikely(cpu->cpl))
		return uop_slow(cpu, u, fl);
	set_if(cpu, false);
	NEXT(u, fl);
}

/*
 * STI holds interrupts back for one instruction. Here: none is pending, and the next instruction is
 * in the block, so that it runs before the next look.
 */
static u64 sti(struct cpu *cpu, const struct uop *u, u64 fl)
{
	if (unlikely(cpu->cpl || (cpu->request & REQ_IRQ) || u[1].fn == uop_end))
		return uop_slow(cpu, u, fl);
	set_if(cpu, true);
	NEXT(u, fl);
}

static u64 swapgs(struct cpu *cpu, const struct uop *u, u64 fl)
{
	u64 base = cpu->seg[SEG_GS].base;

	if (unlikely(cpu->cpl))
		return uop_slow(cpu, u, fl);
	cpu->seg[SEG_GS].base = cpu->ea_base[SEG_GS] = cpu->kernel_gs_base;
	cpu->kernel_gs_base = base;
	NEXT(u, fl);
}

static u64 set_ac(struct cpu *cpu, const struct uop *u, u64 fl, u64 ac)
{
	if (unlikely(cpu->cpl))
		return uop_slow(cpu, u, fl);
	cpu->eflags = (cpu->eflags & ~EFL_AC) | ac;
	cpu->data_tlb = &cpu->mmu.tlb[cpu_data_attr(cpu)];
	NEXT(u, fl);
}

static u64 clac(struct cpu *cpu, const struct uop *u, u64 fl)
{
	return set_ac(cpu, u, fl, 0);
}

static u64 stac(struct cpu *cpu, const struct uop *u, u64 fl)
{
	return set_ac(cpu, u, fl, EFL_AC);
}

static u64 cld(struct cpu *cpu, const struct uop *u, u64 fl)
{
	cpu->eflags &= ~EFL_DF;
	NEXT(u, fl);
}

static u64 std(struct cpu *cpu, const struct uop *u, u64 fl)
{
	cpu->eflags |= EFL_DF;
	NEXT(u, fl);
}

static u64 clc(struct cpu *cpu, const struct uop *u, u64 fl)
{
	NEXT(u, fl & ~(u64)FI_CF);
}

static u64 stc(struct cpu *cpu, const struct uop *u, u64 fl)
{
	NEXT(u, fl | FI_CF);
}

static u64 cmc(struct cpu *cpu, const struct uop *u, u64 fl)
{
	NEXT(u, fl ^ FI_CF);
}

uop_fn *uop_flags(const struct uop_choice *c, struct uop *u)
{
	bool smap = c->row->cpuf && c->cpu->features[c->row->cpuf];

	(void)u;
	switch (insn_op(c->i)) {
	case OP_CLD:
		return cld;
	case OP_STD:
		return std;
	case OP_CLC:
		return clc;
	case OP_STC:
		return stc;
	case OP_CMC:
		return cmc;
	default:
		break;
	}
	if (c->cpu->mode != MODE_64)
		return NULL;
	switch (insn_op(c->i)) {
	case OP_PUSHF:
		return c->i->osz == 8 ? pushf8 : NULL;
	case OP_POPF:
		return c->i->osz == 8 ? popf8 : NULL;
	case OP_CLI:
		return cli;
	case OP_STI:
		return sti;
	case OP_SWAPGS:
		return swapgs;
	case OP_CLAC:
		return smap ? clac : NULL;
	case OP_STAC:
		return smap ? stac : NULL;
	default:
		return NULL;
	}
}
