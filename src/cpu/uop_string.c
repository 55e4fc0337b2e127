// SPDX-License-Identifier: MIT
/*
 * Fast handlers of REP STOS and REP MOVS in 64-bit code, upwards: what the TLB has is filled or
 * copied a page at a time by the host's own instruction; all else, and the rest, is cpu_exec's.
 */
#include "cpu/interp.h"

#define MAX_RUNS 16 /* pages before requests are looked at, by the slow path */

static ALWAYS_INLINE void host_stos(void *to, u64 v, u64 count, unsigned int n)
{
	if (n == 1)
		asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(v) : "memory");
	else if (n == 2)
		asm volatile("rep stosw" : "+D"(to), "+c"(count) : "a"(v) : "memory");
	else if (n == 4)
		asm volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(v) : "memory");
	else
		asm volatile("rep stosq" : "+D"(to), "+c"(count) : "a"(v) : "memory");
}

static ALWAYS_INLINE void host_movs(void *to, const void *from, u64 count, unsigned int n)
{
	if (n == 1)
		asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
	else if (n == 2)
		asm volatile("rep movsw" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
	else if (n == 4)
		asm volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
	else
		asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

/* Elements up to the end of the page; 0: the first one crosses it. */
static ALWAYS_INLINE u64 in_page(u64 ea, u64 count, unsigned int n)
{
	return MIN(count, (PAGE_SIZE - (ea & ~PAGE_MASK)) / n);
}

/* Registers are those of what is left whenever the loop begins: an iteration can be done again. */
static ALWAYS_INLINE u64 rep_stos(struct cpu *cpu, const struct uop *u, u64 fl, unsigned int n)
{
	for (unsigned int k = 0; cpu->regs[GPR_RCX]; k++) {
		u64 to = cpu->regs[GPR_RDI], run = in_page(to, cpu->regs[GPR_RCX], n);
		void *p = run ? tlb_write(cpu, to, run * n) : NULL;

		if (unlikely(!p || k == MAX_RUNS || (cpu->eflags & EFL_DF)))
			return uop_slow(cpu, u, fl);
		host_stos(p, cpu->regs[GPR_RAX], run, n);
		cpu->regs[GPR_RDI] += run * n;
		cpu->regs[GPR_RCX] -= run;
	}
	NEXT(u, fl);
}

static ALWAYS_INLINE u64 rep_movs(struct cpu *cpu, const struct uop *u, u64 fl, unsigned int n)
{
	for (unsigned int k = 0; cpu->regs[GPR_RCX]; k++) {
		u64 to = cpu->regs[GPR_RDI], from = cpu->regs[GPR_RSI];
		u64 run = in_page(to, in_page(from, cpu->regs[GPR_RCX], n), n);
		const void *src = run ? tlb_read(cpu, from, run * n) : NULL;
		void *dst = src ? tlb_write(cpu, to, run * n) : NULL;

		if (unlikely(!dst || k == MAX_RUNS || (cpu->eflags & EFL_DF)))
			return uop_slow(cpu, u, fl);
		host_movs(dst, src, run, n);
		cpu->regs[GPR_RDI] += run * n;
		cpu->regs[GPR_RSI] += run * n;
		cpu->regs[GPR_RCX] -= run;
	}
	NEXT(u, fl);
}

#define SIZE(n) \
	static u64 rep_stos##n(struct cpu *cpu, const struct uop *u, u64 fl) \
	{ \
		return rep_stos(cpu, u, fl, n); \
	} \
	static u64 rep_movs##n(struct cpu *cpu, const struct uop *u, u64 fl) \
	{ \
		return rep_movs(cpu, u, fl, n); \
	}
SIZE(1)
SIZE(2)
SIZE(4)
SIZE(8)

uop_fn *uop_string(const struct uop_choice *c, struct uop *u)
{
	static uop_fn *const stos[] = {rep_stos1, rep_stos2, rep_stos4, rep_stos8};
	static uop_fn *const movs[] = {rep_movs1, rep_movs2, rep_movs4, rep_movs8};
	const struct insn *i = c->i;
	unsigned int op = insn_op(i), k;

	(void)u;
	if ((op != OP_STOS && op != OP_MOVS) || c->cpu->mode != MODE_64 || i->asz != 8)
		return NULL;
	if (!(i->flags & (INSN_REP | INSN_REPNE)) || (op == OP_MOVS && i->seg >= SEG_FS))
		return NULL;
	k = __builtin_ctz(insn_opnd_size(i, op == OP_STOS ? 0 : 1));
	return op == OP_STOS ? stos[k] : movs[k];
}
