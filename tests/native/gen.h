/* SPDX-License-Identifier: MIT */
/*
 * From a row of insns.def to a case: gen.c makes bytes that decode as that row,
 * place.c its operands. The decoder is asked where operands are; if it is wrong, the host's
 * outcome differs, for the bytes are what both sides run.
 */
#ifndef ANYKVM_NATIVE_GEN_H
#define ANYKVM_NATIVE_GEN_H

#include "native.h"

struct gen {
	struct rng r;
	const struct insn_row *row;
	u32 sel; /* the row's selector: x86/rows.h */
	enum insn_mode mode;
	u8 map, opcode;
	bool mem, has_modrm;
	bool p67;
	u8 b[32];
	u8 n;
	u8 disp_at, disp_size;
	struct insn i;
};

/*
 * Choose registers and memory so that g->i's operands lie where they should. May change the
 * displacement, immediate or moffs in g->b; g->i follows.
 */
void place_operands(struct gen *g, struct native_case *c);

#endif
