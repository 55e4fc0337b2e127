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
u64 insn_ea(const struct cpu *cpu, const struct insn *i);

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
MUSTCHECK enum stop opnd_map(struct env *e, const struct insn *i, unsigned int k, struct opnd *o);
u64 opnd_get(const struct cpu *cpu, const struct insn *i, const struct opnd *o);
MUSTCHECK enum stop opnd_put(struct env *e, const struct insn *i, struct opnd *o, u64 v);

/* Stack: address mask by SS.B / mode; the width of pushes is the caller's. */
u64 stack_mask(const struct cpu *cpu);
/* Step 1 for a push of n bytes below the current RSP - below; sets *ea. Does not move RSP. */
MUSTCHECK enum stop stack_map_push(struct env *e, struct access *a, u32 below, u32 n);
MUSTCHECK enum stop stack_map_pop(struct env *e, struct access *a, u32 above, u32 n);
void stack_move(struct cpu *cpu, s64 by); /* RSP += by under the mask */

/* Load a segment register other than CS with all checks, and commit it (segment.c). */
MUSTCHECK enum stop seg_load(struct env *e, enum seg seg, u16 sel);

static inline u64 access_get(const struct access *a)
{
	u64 v = 0;

	__builtin_memcpy(&v, a->p, MIN(a->len, 8));
	return v;
}
static inline void access_set(struct access *a, u64 v)
{
	__builtin_memcpy(a->p, &v, MIN(a->len, 8));
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
