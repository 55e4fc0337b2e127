// SPDX-License-Identifier: MIT
/*
 * String instructions. One iteration is one unit: proved, done, committed (RSI, RDI, RCX).
 * With REP, plain RAM goes a page at a time by the host's own string instructions; only
 * what has no RAM behind it goes element by element.
 */
#include "cpu/exec.h"

#include <string.h>

/* Iterations in one cpu_exec before requests are looked at: bounds the latency of a kick. */
#define REP_BOUND 65536

struct string {
	unsigned int n;	 /* bytes of an element */
	s64 step;	 /* n or -n by DF */
	u64 si, di;	 /* effective addresses */
	bool rep;
	u64 count; /* iterations left; 1 without REP */
};

/* The element is the operand at DS:rSI or ES:rDI. */
static unsigned int element_size(const struct insn *i)
{
	const struct operand *o = insn_row(i)->opnd;
	unsigned int k = o[0].kind == OPND_X || o[0].kind == OPND_Y ? 0 : 1;

	return insn_opnd_size(i, k);
}

static struct string string_start(const struct cpu *cpu, const struct insn *i)
{
	unsigned int n = element_size(i);
	bool rep = i->flags & (INSN_REP | INSN_REPNE);

	return (struct string){
		.n = n,
		.step = cpu->eflags & EFL_DF ? -(s64)n : n,
		.si = zext(cpu->regs[GPR_RSI], i->asz),
		.di = zext(cpu->regs[GPR_RDI], i->asz),
		.rep = rep,
		.count = rep ? zext(cpu->regs[GPR_RCX], i->asz) : 1,
	};
}

#define USE_SI 1
#define USE_DI 2

/* Commit `done` iterations. */
static void string_advance(struct cpu *cpu, const struct insn *i, struct string *s, u64 done, int use)
{
	s->si = zext(s->si + s->step * done, i->asz);
	s->di = zext(s->di + s->step * done, i->asz);
	s->count -= done;
	if (use & USE_SI)
		reg_set(cpu, GPR_RSI, i->asz, s->si);
	if (use & USE_DI)
		reg_set(cpu, GPR_RDI, i->asz, s->di);
	if (s->rep)
		reg_set(cpu, GPR_RCX, i->asz, s->count);
}

/*
 * Elements of a bulk run at ea that stay inside the page, the segment's flat address space
 * and the address size; with *p the host address of the lowest byte. 0: no bulk here.
 */
static u64 bulk_run(struct env *e, const struct insn *i, const struct string *s, enum seg seg,
	u64 ea, u8 need, u64 max, u8 **p)
{
	u64 linear, room;
	u32 len;

	if (s->step < 0 || alignment_checked(e->cpu)) /* element by element */
		return 0;
	room = i->asz == 8 ? max * s->n : MIN(max * s->n, (1ull << (8 * i->asz)) - ea);
	if (room > PAGE_SIZE)
		room = PAGE_SIZE;
	if (room < s->n || seg_linear(e->cpu, seg, ea, room, need, &linear) != STOP_OK)
		return 0;
	len = MIN(room, page_left(linear));
	*p = e->ops->ram(e, gva(linear), need, cpu_data_attr(e->cpu), &len);
	return *p ? len / s->n : 0;
}

/* May a REP go on inside this call? */
static bool rep_goes_on(struct env *e, const struct string *s)
{
	return s->count && e->ops->next_iteration(e);
}

/* The instruction is complete, or will be entered again for the rest. */
static enum stop string_finish(struct cpu *cpu, const struct string *s)
{
	if (s->rep && s->count)
		exec_repeat(cpu);
	return STOP_OK;
}

/* ---- MOVS ---- */

static enum stop movs_one(struct env *e, const struct insn *i, const struct string *s)
{
	struct access from, to;

	TRY(env_map(e, &from, i->seg, s->si, s->n, MMU_R));
	TRY(env_map(e, &to, SEG_ES, s->di, s->n, MMU_W));
	TRY(env_begin(e));
	memmove(to.p, from.p, s->n); /* the element may reach into itself */
	return env_flush(e, &to);
}

/* Host addresses may overlap in either direction: the guest sees elements copied in order. */
static void copy_forward(u8 *to, const u8 *from, u64 elements, unsigned int n)
{
	if (to <= from || to >= from + elements * n) {
		memmove(to, from, elements * n);
		return;
	}
	for (u64 k = 0; k < elements * n; k += n)
		memmove(to + k, from + k, n);
}

static u64 movs_bulk(struct env *e, const struct insn *i, const struct string *s)
{
	u8 *from, *to;
	u64 n = bulk_run(e, i, s, i->seg, s->si, MMU_R, s->count, &from);

	if (n < 2)
		return 0;
	n = bulk_run(e, i, s, SEG_ES, s->di, MMU_W, n, &to);
	if (n < 2)
		return 0;
	copy_forward(to, from, n, s->n);
	return n;
}

/* ---- STOS ---- */

static enum stop stos_one(struct env *e, const struct insn *i, const struct string *s)
{
	struct access to;

	(void)i;
	TRY(env_map(e, &to, SEG_ES, s->di, s->n, MMU_W));
	TRY(env_begin(e));
	memcpy(to.p, &e->cpu->regs[GPR_RAX], s->n);
	return env_flush(e, &to);
}

static void fill(u8 *to, u64 v, u64 elements, unsigned int n)
{
	bool same = n == 1 || zext(v, n) == zext((u8)v * 0x0101010101010101ull, n);

	if (same) {
		memset(to, (u8)v, elements * n);
		return;
	}
	for (u64 k = 0; k < elements; k++)
		memcpy(to + k * n, &v, n);
}

static u64 stos_bulk(struct env *e, const struct insn *i, const struct string *s)
{
	u8 *to;
	u64 n = bulk_run(e, i, s, SEG_ES, s->di, MMU_W, s->count, &to);

	if (n >= 2)
		fill(to, e->cpu->regs[GPR_RAX], n, s->n);
	return n >= 2 ? n : 0;
}

/* ---- the loop of MOVS and STOS, which only end by the count ---- */

typedef enum stop one_fn(struct env *e, const struct insn *i, const struct string *s);
typedef u64 bulk_fn(struct env *e, const struct insn *i, const struct string *s);

static enum stop string_run(struct cpu *cpu, const struct insn *i, struct env *e, int use,
	one_fn *one, bulk_fn *bulk)
{
	struct string s = string_start(cpu, i);
	u64 done, total = 0;
	enum stop stop;

	if (!s.count)
		return STOP_OK;
	do {
		done = s.count > 1 ? bulk(e, i, &s) : 0;
		if (!done) {
			stop = one(e, i, &s);
			/* iterations before this one are committed: stopping here is legal */
			if (stop != STOP_OK)
				return stop;
			done = 1;
		}
		string_advance(cpu, i, &s, done, use);
		total += done;
	} while (total < REP_BOUND && rep_goes_on(e, &s));
	return string_finish(cpu, &s);
}

enum stop exec_movs(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return string_run(cpu, i, e, USE_SI | USE_DI, movs_one, movs_bulk);
}

enum stop exec_stos(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return string_run(cpu, i, e, USE_DI, stos_one, stos_bulk);
}

/* ---- LODS, CMPS, SCAS: element by element ---- */

enum stop exec_lods(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct string s = string_start(cpu, i);
	struct access from;
	u64 total = 0;

	if (!s.count)
		return STOP_OK;
	do {
		TRY(env_map(e, &from, i->seg, s.si, s.n, MMU_R));
		TRY(env_begin(e));
		reg_set(cpu, GPR_RAX, s.n, access_get(&from));
		string_advance(cpu, i, &s, 1, USE_SI);
	} while (++total < REP_BOUND && rep_goes_on(e, &s));
	return string_finish(cpu, &s);
}

/* Flags of a - b by the host's CMP. */
static u64 compare(u64 a, u64 b, unsigned int n)
{
	unsigned int up = 64 - 8 * n;
	u64 f, af;

	/* shifted to the top all flags but AF and PF are those of the narrow compare */
	asm("cmp %2, %1\n\tlahf\n\tseto %%al" : "=&a"(f) : "r"(a << up), "r"(b << up) : "cc");
	asm("cmpb %2, %1\n\tlahf\n\tseto %%al" : "=&a"(af) : "q"((u8)a), "q"((u8)b) : "cc");
	return ((u16)f & ~(u64)(FI_AF | FI_PF)) | ((u16)af & (FI_AF | FI_PF));
}

static bool repeat_ends(const struct insn *i, u64 fl)
{
	bool zf = fl & FI_ZF;

	return i->flags & INSN_REPNE ? zf : !zf;
}

static enum stop compare_run(struct cpu *cpu, const struct insn *i, struct env *e, bool two)
{
	struct string s = string_start(cpu, i);
	struct access a, b;
	u64 total = 0;
	bool end;

	if (!s.count)
		return STOP_OK;
	do {
		if (two)
			TRY(env_map(e, &a, i->seg, s.si, s.n, MMU_R));
		TRY(env_map(e, &b, SEG_ES, s.di, s.n, MMU_R));
		TRY(env_begin(e));
		cpu->fl = compare(two ? access_get(&a) : zext(cpu->regs[GPR_RAX], s.n),
			access_get(&b), s.n);
		string_advance(cpu, i, &s, 1, two ? USE_SI | USE_DI : USE_DI);
		end = s.rep && repeat_ends(i, cpu->fl);
	} while (!end && ++total < REP_BOUND && rep_goes_on(e, &s));
	return end ? STOP_OK : string_finish(cpu, &s);
}

enum stop exec_cmps(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return compare_run(cpu, i, e, true);
}

enum stop exec_scas(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return compare_run(cpu, i, e, false);
}
