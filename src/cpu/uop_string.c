// SPDX-License-Identifier: MIT
/*
 * Fast handlers of REP STOS and REP MOVS in 64-bit code: what the TLB has is filled or copied a page
 * at a time by the host's own instruction; all else is cpu_exec's.
 */
#include "cpu/interp.h"

/*
 * The host's string instruction, upwards or downwards. The flags image is in RDX and the uop in some
 * register: there they are looked for if the host stops it (host_stop.c).
 */
#define HOST_REP(insn) \
	do { \
		if (down) \
			asm volatile("std; rep " insn "; cld" : "+D"(to), "+c"(count), "+S"(from) \
				     : "a"(v), "d"(fl), "r"(u) : "memory"); \
		else \
			asm volatile("rep " insn : "+D"(to), "+c"(count), "+S"(from) \
				     : "a"(v), "d"(fl), "r"(u) : "memory"); \
	} while (0)

/* The same for elements of n bytes. */
#define HOST_STRING(op) \
	do { \
		if (n == 1) \
			HOST_REP(op "b"); \
		else if (n == 2) \
			HOST_REP(op "w"); \
		else if (n == 4) \
			HOST_REP(op "l"); \
		else \
			HOST_REP(op "q"); \
	} while (0)

static ALWAYS_INLINE void host_stos(void *to, u64 v, u64 count, unsigned int n, bool down,
	const struct uop *u, u64 fl)
{
	const void *from = NULL;

	HOST_STRING("stos");
}

static ALWAYS_INLINE void host_movs(void *to, const void *from, u64 count, unsigned int n, bool down,
	const struct uop *u, u64 fl)
{
	u64 v = 0;

	HOST_STRING("movs");
}

/* Elements from ea on that are in its page; 0: the first one crosses its end. */
static ALWAYS_INLINE u64 in_page(u64 ea, u64 count, unsigned int n, bool down)
{
	u64 room = page_left(ea) / n;

	return MIN(count, down && room ? (ea & ~PAGE_MASK) / n + 1 : room);
}

/* Address of the lowest byte. */
static ALWAYS_INLINE u64 lowest(u64 ea, u64 run, unsigned int n, bool down)
{
	return down ? ea - (run - 1) * n : ea;
}

/* Somebody wants to be looked at, or there is nothing that the TLB has: the slow path's. */
static ALWAYS_INLINE bool may_go_on(const struct cpu *cpu, const void *p)
{
	return likely(p && !(cpu->request & cpu->request_mask));
}

/* Registers are those of what is left whenever the loop begins: an iteration can be done again. */
static ALWAYS_INLINE u64 rep_stos(struct cpu *cpu, const struct uop *u, u64 fl, unsigned int n)
{
	bool down = cpu->eflags & EFL_DF;

	while (cpu->regs[GPR_RCX]) {
		u64 to = cpu->regs[GPR_RDI], run = in_page(to, cpu->regs[GPR_RCX], n, down);
		u8 *p = run ? tlb_write(cpu, lowest(to, run, n, down), run * n) : NULL;

		if (!may_go_on(cpu, p))
			return uop_slow(cpu, u, fl);
		host_stos(p + (down ? (run - 1) * n : 0), cpu->regs[GPR_RAX], run, n, down, u, fl);
		cpu->regs[GPR_RDI] += down ? -(run * n) : run * n;
		cpu->regs[GPR_RCX] -= run;
	}
	NEXT(u, fl);
}

static ALWAYS_INLINE u64 rep_movs(struct cpu *cpu, const struct uop *u, u64 fl, unsigned int n)
{
	bool down = cpu->eflags & EFL_DF;

	while (cpu->regs[GPR_RCX]) {
		u64 to = cpu->regs[GPR_RDI], from = cpu->regs[GPR_RSI];
		u64 run = in_page(to, in_page(from, cpu->regs[GPR_RCX], n, down), n, down);
		const u8 *src = run ? tlb_read(cpu, lowest(from, run, n, down), run * n) : NULL;
		u8 *dst = src ? tlb_write(cpu, lowest(to, run, n, down), run * n) : NULL;
		u64 last = down ? (run - 1) * n : 0;

		if (!may_go_on(cpu, dst))
			return uop_slow(cpu, u, fl);
		host_movs(dst + last, src + last, run, n, down, u, fl);
		cpu->regs[GPR_RDI] += down ? -(run * n) : run * n;
		cpu->regs[GPR_RSI] += down ? -(run * n) : run * n;
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
