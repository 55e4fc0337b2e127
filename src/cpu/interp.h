/* SPDX-License-Identifier: MIT */
/*
 * Private to the threaded interpreter: how handlers go on, reach memory and leave.
 *
 * While handlers run, regs[GPR_RIP] is the linear RIP of the block's first byte, cpu->rip
 * is stale, and the flags image travels as the argument fl. Handlers here are for the
 * flat memory of 64-bit and 32-bit systems and for registers in any mode; everything else is
 * uop_slow, which runs the instruction's one and only semantics, cpu_exec.
 */
#ifndef ANYKVM_INTERP_H
#define ANYKVM_INTERP_H

#include "base/hard.h"
#include "cpu/exec.h"
#include "cpu/tb.h"

/* Integers in guest RAM: at any address. */
typedef u16 ram16 __attribute__((aligned(1)));
typedef u32 ram32 __attribute__((aligned(1)));
typedef u64 ram64 __attribute__((aligned(1)));
typedef s16 ram16s __attribute__((aligned(1)));
typedef s32 ram32s __attribute__((aligned(1)));

#define NEXT(u, fl) return (u)[1].fn(cpu, (u) + 1, fl)

/* force.c: an exception was raised; with the prefix at RIP STOP_NPF, without STOP_EXC as before. */
MUSTCHECK enum stop force_emulation(struct cpu *cpu);

uop_fn uop_slow;
uop_fn uop_cold; /* first of a block that has not been translated yet */
uop_fn uop_end; /* behind the last instruction of a block that does not end in a branch */

/* The block for `rip` from the jump cache, or NULL (miss, changed code, request). */
static ALWAYS_INLINE struct tb *jc_lookup(struct cpu *cpu, u64 rip)
{
	struct tb_cache *c = cpu->tbs;
	struct jc_entry *j = &c->jc[jc_index(rip)];

	if (unlikely(cpu->request & cpu->request_mask))
		return NULL;
	if (unlikely(j->rip != rip || j->salt != jc_salt(c, rip) || !tb_same_inline(j->tb)))
		return NULL;
	return j->tb;
}

static ALWAYS_INLINE u64 enter_tb(struct cpu *cpu, struct tb *tb, u64 rip, u64 fl)
{
	cpu->regs[GPR_RIP] = rip;
	cpu->insns += tb->n;
	return tb->uop[0].fn(cpu, tb->uop, fl);
}

/* To the loop: the next block starts at rip. */
static ALWAYS_INLINE u64 leave_thread(struct cpu *cpu, u64 rip, u64 fl)
{
	cpu->rip = rip;
	cpu->fl = fl;
	return STOP_OK;
}

/* Continue at rip: chain to its block or leave to the loop. */
static ALWAYS_INLINE u64 goto_rip(struct cpu *cpu, u64 rip, u64 fl)
{
	struct tb *tb = OPT_CHAIN ? jc_lookup(cpu, rip) : NULL;

	return likely(tb) ? enter_tb(cpu, tb, rip, fl) : leave_thread(cpu, rip, fl);
}

/*
 * The same for a direct branch from the block at `start`. A target in the same page needs
 * no translation: *slot remembers its block.
 */
static ALWAYS_INLINE u64 goto_direct(
	struct cpu *cpu, struct tb *const *slot, u64 start, u64 rip, u64 fl)
{
	struct tb *tb = *slot;

	if (OPT_CHAIN && likely(tb && !(cpu->request & cpu->request_mask) && tb_same_page(tb)))
		return enter_tb(cpu, tb, rip, fl);
	if (!OPT_CHAIN || (start ^ rip) >= PAGE_SIZE)
		return goto_rip(cpu, rip, fl);
	cpu->tbs->link = (struct tb **)slot;
	cpu->tbs->link_rip = rip;
	return leave_thread(cpu, rip, fl);
}

/* The branch's taken and not-taken slots: its own uop and the uop_end behind it. */
#define TAKEN(u)     (&(u)->next)
#define NOT_TAKEN(u) (&(u)[1].next)

/* base + disp: nearly all operands of 64-bit code. The x form is for all others. */
static ALWAYS_INLINE u64 uop_ea(const struct cpu *cpu, const struct uop *u)
{
	return *(const u64 *)((const u8 *)cpu->regs + u->base) + (s64)u->disp;
}

static ALWAYS_INLINE u64 uop_eax(const struct cpu *cpu, const struct uop *u)
{
	return (uop_ea(cpu, u) + (cpu->regs[u->index] << (u->scale_seg & 3)) +
		cpu->ea_base[u->scale_seg >> 4]) & cpu->ea_mask;
}

/* Host address of n bytes at linear ea, if one compare proves it; else NULL. */
static ALWAYS_INLINE void *tlb_read(const struct cpu *cpu, u64 ea, unsigned int n)
{
	const struct tlb_hot *h = &cpu->data_tlb->hot[tlb_index(ea)];

	return likely((ea ^ h->tag_r) <= PAGE_SIZE - n) ? (void *)(ea + h->delta) : NULL;
}

static ALWAYS_INLINE void *tlb_write(const struct cpu *cpu, u64 ea, unsigned int n)
{
	const struct tlb_hot *h = &cpu->data_tlb->hot[tlb_index(ea)];

	return likely((ea ^ h->tag_w) <= PAGE_SIZE - n) ? (void *)(ea + h->delta) : NULL;
}

#define REGP(cpu, off) ((void *)((u8 *)(cpu)->regs + (off)))

/* Handler choosers, one per file; NULL: not mine, try the next. */
struct uop_choice {
	const struct cpu *cpu;
	const struct insn *i;
	const struct insn_row *row;
	bool eax; /* the operand needs uop_eax */
	bool mem; /* its memory operand needs no check but the TLB's */
	bool flat; /* TBM_FLAT */
};
uop_fn *uop_alu(const struct uop_choice *c, struct uop *u);
uop_fn *uop_move(const struct uop_choice *c, struct uop *u);
uop_fn *uop_branch(const struct uop_choice *c, struct uop *u);
uop_fn *uop_flags(const struct uop_choice *c, struct uop *u);
uop_fn *uop_string(const struct uop_choice *c, struct uop *u);
uop_fn *uop_native(struct cpu *cpu, const struct uop_choice *c, struct uop *u);

/* Byte offset in regs[] of general register n as an operand of `size` bytes. */
u16 uop_reg(const struct insn *i, unsigned int n, unsigned int size);

#endif
