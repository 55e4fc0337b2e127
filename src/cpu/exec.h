/* SPDX-License-Identifier: MIT */
/*
 * Private to cpu/: what instruction handlers share. A handler is found by mnemonic
 * (enum insn_op) in the table of exec.c, which includes handlers_*.def; it follows the
 * three steps of env.h. On entry cpu->rip is the instruction, cpu->next_rip the one
 * behind it; a handler that branches sets next_rip.
 */
#ifndef ANYKVM_EXEC_H
#define ANYKVM_EXEC_H

#include "cpu/env.h"

typedef enum stop exec_fn(struct cpu *cpu, const struct insn *i, struct env *e);

/* Effective address of i's ModRM or moffs operand, truncated to the address size; no segment base. */
static inline u64 insn_ea(const struct cpu *cpu, const struct insn *i)
{
	u64 base, ea;

	if (i->flags & INSN_MOFFS)
		return zext((u64)i->imm, i->asz);
	base = i->rm == GPR_RIP ? cpu->next_rip : cpu->regs[i->rm];
	ea = base + (cpu->regs[i->index] << i->scale) + (s64)i->disp;
	return zext(ea, i->asz);
}

/* General register n of size 1, 2, 4, 8. high8: AH..BH rules of a byte register without REX. */
u64 reg_get(const struct cpu *cpu, unsigned int n, unsigned int size);
void reg_set(struct cpu *cpu, unsigned int n, unsigned int size, u64 v); /* size 4 zero-extends */
u64 reg8_get(const struct cpu *cpu, const struct insn *i, unsigned int n);
void reg8_set(struct cpu *cpu, const struct insn *i, unsigned int n, u8 v);

/*
 * Operand k of i as an integer of up to 8 bytes (register, memory, immediate). opnd_map does
 * step 1 for a memory operand (nothing for others), opnd_get after env_begin reads, opnd_put
 * stores (memory: + env_flush).
 */
struct opnd {
	const struct operand *o;
	unsigned int size;
	bool is_mem;
	struct access a;
};
MUSTCHECK enum stop opnd_map_mem(struct env *e, const struct insn *i, struct opnd *o);
MUSTCHECK static inline enum stop opnd_map(
	struct env *e, const struct insn *i, unsigned int k, struct opnd *o)
{
	const struct operand *r = &insn_row(i)->opnd[k];

	o->o = r;
	o->size = insn_opnd_size(i, k);
	o->is_mem = r->kind == OPND_M || r->kind == OPND_O ||
		(r->kind == OPND_E && (i->flags & INSN_MEM));
	return o->is_mem ? opnd_map_mem(e, i, o) : STOP_OK;
}

/* One load or store for the usual sizes: what was stored in parts is slow to load as a whole. */
static inline u64 access_get(const struct access *a)
{
	u64 v = 0;
	u32 v4;

	if (likely(a->len == 4)) {
		__builtin_memcpy(&v4, a->p, 4);
		return v4;
	}
	if (a->len >= 8)
		__builtin_memcpy(&v, a->p, 8);
	else
		__builtin_memcpy(&v, a->p, a->len);
	return v;
}
static inline void access_set(struct access *a, u64 v)
{
	if (likely(a->len == 4))
		__builtin_memcpy(a->p, &v, 4);
	else if (a->len >= 8)
		__builtin_memcpy(a->p, &v, 8);
	else
		__builtin_memcpy(a->p, &v, a->len);
}
u64 opnd_get_reg(const struct cpu *cpu, const struct insn *i, const struct opnd *o);
void opnd_put_reg(struct cpu *cpu, const struct insn *i, const struct opnd *o, u64 v);
static inline u64 opnd_get(const struct cpu *cpu, const struct insn *i, const struct opnd *o)
{
	return o->is_mem ? access_get(&o->a) : opnd_get_reg(cpu, i, o);
}
MUSTCHECK static inline enum stop opnd_put(
	struct env *e, const struct insn *i, struct opnd *o, u64 v)
{
	if (o->is_mem) {
		access_set(&o->a, v);
		return env_flush(e, &o->a);
	}
	opnd_put_reg(e->cpu, i, o, v);
	return STOP_OK;
}
/* Stack: address mask by SS.B / mode; the width of pushes is the caller's. */
u64 stack_mask(const struct cpu *cpu);
/* Step 1 for a push of n bytes below the current RSP - below; sets *ea. Does not move RSP. */
MUSTCHECK enum stop stack_map_push(struct env *e, struct access *a, u32 below, u32 n);
MUSTCHECK enum stop stack_map_pop(struct env *e, struct access *a, u32 above, u32 n);
void stack_move(struct cpu *cpu, s64 by); /* RSP += by under the mask */

/* Load a segment register other than CS with all checks, and commit it (segment.c). */
MUSTCHECK enum stop seg_load(struct env *e, enum seg seg, u16 sel);

/* A REP has iterations left: RIP stays on the instruction. */
static inline void exec_repeat(struct cpu *cpu)
{
	cpu->next_rip = cpu->rip;
	cpu->completion = DONE_PART;
}

/* next_rip = target after the checks of a near branch (limit, canonical: #GP(0)). osz 2: truncated to 16 bits. */
MUSTCHECK enum stop branch_to(struct cpu *cpu, const struct insn *i, u64 target);

/* Condition code cc (0..15) against the flags image. */
bool cond_true(u64 fl, unsigned int cc);

/* Class N rows, cpu/native.c: run i by the host's own instruction. */
exec_fn exec_native;

#define HANDLER(op, fn) exec_fn fn;
#include "cpu/handlers_int.def"
#include "cpu/handlers_system.def"
#include "cpu/handlers_fpu.def"
#undef HANDLER

#endif
