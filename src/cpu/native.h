/* SPDX-License-Identifier: MIT */
/*
 * Class N instructions: the host's own instruction is the semantics. A thunk is a few
 * bytes of host code, made once per distinct instruction, that loads the registers which
 * the table row names, runs the re-encoded instruction, and stores what it writes. It sees
 * host pointers only, never a guest address.
 *
 * One cache per vCPU, owner thread only: no locks. Its memory is a memfd with one view to
 * write and one to execute; nothing is ever writable and executable at one address.
 */
#ifndef ANYKVM_NATIVE_H
#define ANYKVM_NATIVE_H

#include "cpu/code_memory.h"
#include "cpu/cpu.h"

/* mem: host address of the memory operand's bytes, NULL if the instruction has none. */
typedef void native_fn(struct cpu *cpu, void *mem);

struct native {
	u32 generation;	  /* grows when all thunks are thrown away: cached pointers are stale then */
	u32 nr, nr_flushes;
	struct code_memory code;
	struct native_slot *slots;
};

/*
 * NULL: out of memory. Where the system refuses executable mappings it succeeds, and
 * native_get gives NULL for every instruction.
 */
struct native *native_create(void);
void native_destroy(struct native *n);

/*
 * The thunk of class N instruction i (flags, vector and general registers go from and to
 * struct cpu), or NULL: no executable memory, or this form has no host encoding. May flush
 * the cache; then generation changes. A thunk alone is the whole instruction only if
 * native_is_plain(i) and the caller does what exec_native does: the checks of cpu_exec,
 * DIV and IDIV operands, bit offsets into memory, alignment.
 */
native_fn *native_get(struct native *n, const struct insn *i);

/* Neither x87/MMX state nor MXCSR: the thunk may be called directly. */
static inline bool native_is_plain(const struct insn *i)
{
	return !(insn_row(i)->rules & (RULE_X87 | RULE_MMX | RULE_MXCSR));
}

/*
 * Call fn, the thunk of i, with floating point set up as its row wants it. STOP_EXC: an
 * unmasked SIMD exception; registers and memory are unchanged. *stored: false if an
 * unmasked x87 exception suppressed the store to mem; then it must not be flushed.
 */
MUSTCHECK enum stop native_call(
	struct cpu *cpu, const struct insn *i, native_fn *fn, void *mem, bool *stored);

#endif
