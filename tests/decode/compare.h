/* SPDX-License-Identifier: MIT */
/* One instruction as our decoder and as Zydis see it. See decode_sweep.c. */
#ifndef ANYKVM_TESTS_DECODE_COMPARE_H
#define ANYKVM_TESTS_DECODE_COMPARE_H

#include <stdio.h>
#include <Zydis/Zydis.h>

#include "x86/insn.h"

enum verdict {
	SAME,
	BOTH_UD,
	UD_ALLOWED, /* #UD here only, which a row of compare.c's table allows */
	DIFFERENT,
};

struct oracle {
	ZydisDecoder dec;
	/* output */
	ZyanStatus status;
	ZydisDecodedInstruction i;
	ZydisDecodedOperand op[ZYDIS_MAX_OPERAND_COUNT];
};

struct ours {
	enum decode_result result;
	struct insn i;
	const char *why; /* what differs, else NULL */
};

void oracle_init(struct oracle *z, enum insn_mode mode);
enum verdict compare(
	enum insn_mode mode, struct oracle *z, struct ours *o, const u8 *p, unsigned int n);
void show_exceptions(FILE *f); /* the tables, with how often each row was used */
void show(FILE *f, enum insn_mode mode, const struct oracle *z, const struct ours *o,
	const u8 *p);

#endif
