/* SPDX-License-Identifier: MIT */
/* Random numbers, and random instructions made from the rows of the instruction table. */
#ifndef TESTS_FUZZ_GEN_H
#define TESTS_FUZZ_GEN_H

#include "x86/insn.h"

struct gen {
	u64 state;
};

u64 gen_next(struct gen *g);
static inline u32 gen_below(struct gen *g, u32 n)
{
	return (gen_next(g) >> 32) % n;
}
static inline bool gen_one_in(struct gen *g, u32 n)
{
	return !gen_below(g, n);
}

/*
 * One 64-bit instruction that a program may use: its length; its bytes in out, decoded in *i.
 * Left out: privileged ones, those whose result depends on time or chance, and short branches
 * (endless loops).
 */
unsigned int gen_insn(struct gen *g, u8 out[15], struct insn *i);

#endif
