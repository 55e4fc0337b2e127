/* SPDX-License-Identifier: MIT */
/*
 * Private to translate/: the state of one run under construction.
 *
 *	RDI	struct cpu			RSI	the uop (of the last memory access, at least)
 *	RDX	flags image			R15	linear address of the block, as regs[GPR_RIP]
 *	R10	address of a memory operand	R13, R14	tag of its page, host minus guest address
 *	RAX, R11	scratch
 *
 * All other registers but RSP mirror guest registers, each written to struct cpu as soon as it
 * changes: so the run can be left at any instruction, and forgetting one costs nothing. The flags
 * are in RDX, in the host's, or in both; before anything can leave, they are in RDX.
 */
#ifndef ANYKVM_GEN_H
#define ANYKVM_GEN_H

#include "cpu/tb.h"
#include "translate/emit.h"

#define CPU   RDI
#define UOP   RSI
#define FLAGS RDX
#define RIP   R15
#define EA    R10
#define TAG   R13
#define DELTA R14

#define MISSES 8 /* one instruction's, at most */

/* A jump to the interpreter's handler. */
struct miss {
	u8 *jump;
	bool first; /* of the run's first uop, whose handler is elsewhere */
	bool fp;    /* MXCSR is the guest's */
};

/* An access to the page of the one before, most likely: what to do if not is out of line. */
struct elsewhere {
	u8 *jump, *back;
	u16 n;
	bool write, fp;
};

struct gen {
	struct code c;
	struct tb *tb;
	unsigned int first, k; /* uop where the run starts; uop that is being translated */
	unsigned int at;       /* uop that UOP points at */
	bool bmi2;
	const u8 *features; /* the guest's */
	u8 width; /* of an address: 8, or 4 in 32-bit code */
	bool image, live;      /* the flags are in FLAGS; in the host's */
	u8 host_of[16];	       /* mirror of a guest register, or NO_HOST */
	u8 guest_of[16];       /* what a host register mirrors, or NO_HOST */
	u16 busy;	       /* mirrors that this instruction needs */
	u16 age[16], clock;    /* of the mirrors */
	struct miss miss[2 * (2 * TB_MAX_INSNS + MISSES)]; /* a loop's body comes twice */
	unsigned int nr_miss;
	u16 xmm, ymm; /* host vector registers that hold the guest's of the same number, or all of it */
	bool sse, avx; /* their use has been checked */
	bool fp;       /* MXCSR is the guest's */
	u8 page_base; /* TAG and DELTA are those of an access by this guest register, or NO_HOST */
	bool page_write;
	struct elsewhere elsewhere[2 * TB_MAX_INSNS];
	unsigned int nr_elsewhere;
	u8 *exit[2 * (TB_MAX_INSNS * 2 + 3)]; /* of gen_loop_end */
	unsigned int nr_exits;
	const u8 *leave; /* code of gen_leave, as we write it */
};

/* ---- gen.c: registers, flags, memory operands ---- */

/* A mirror with the value of guest register n; or one that will be written as a whole. */
u8 gen_get(struct gen *g, unsigned int n);
u8 gen_def(struct gen *g, unsigned int n);
/* The value of guest register n in this host register. */
void gen_get_in(struct gen *g, unsigned int n, u8 h);
/* This host register is no mirror any more, nor becomes one in this instruction. */
void gen_give_up(struct gen *g, u8 h);
/* Its mirror has changed. */
void gen_put(struct gen *g, unsigned int n);
/* All that was a mirror there is one here. */
void gen_match(struct gen *g, const struct gen *there);

/* Code follows that may leave the run, or destroys the host's flags. */
void gen_flags_save(struct gen *g);
void gen_flags_lose(struct gen *g);
/* Code follows that reads flags, or changes only some. */
void gen_flags_need(struct gen *g);
/* The host's flags are the guest's new ones. */
void gen_flags_set(struct gen *g);

/* A memory operand's address in host registers, or NO_HOST. */
struct address {
	u8 base, index, scale;
	s32 disp; /* RIP-relative: from the block's start */
};
struct address gen_address(struct gen *g, const struct insn *i);
/* LEA in the width of an address. */
void gen_lea(struct gen *g, u8 to, u8 base, u8 index, u8 scale, s32 disp);
/*
 * EA = the instruction's memory operand, and check it; or check EA, whose base is a guest register:
 * [EA + DELTA] is RAM, n bytes.
 */
void gen_operand(struct gen *g, const struct insn *i, unsigned int n, bool write);
void gen_check(struct gen *g, u8 base, unsigned int n, bool write);
/* The code for accesses elsewhere, behind the run's last instruction. */
void gen_elsewhere(struct gen *g);

/* UOP points at the instruction: where it faults, and the handler that takes over from it. */
void gen_set_uop(struct gen *g);
/* To that handler if condition cc holds (the low half of Jcc's opcode). */
void gen_miss_if(struct gen *g, u8 cc);

/* A jump whose target is written later. */
u8 *gen_jump(struct gen *g, u8 cc); /* CC_ALWAYS: JMP */
void gen_land(struct gen *g, u8 *jump);
void gen_jump_to(struct gen *g, u8 cc, const u8 *to);
enum { CC_E = 4, CC_NE = 5, CC_A = 7, CC_ALWAYS = 16 };

/* ---- vector.c: vector registers and MXCSR ---- */

/* Check that instructions with these rules may run, and have MXCSR loaded if they need it. */
void gen_vec_begin(struct gen *g, u32 rules);
/* Host register n has the guest's value: 16 bytes, or all of it. */
void gen_vec_get(struct gen *g, u8 n, bool whole);
/* It has changed. */
void gen_vec_put(struct gen *g, u8 n, bool whole);
/* The run is left here. fp: is MXCSR the guest's? */
void gen_vec_end(struct gen *g, bool fp);

/* ---- branch.c: from block to block ---- */

/* The branch that ends the block. false: none, or not one of ours. */
bool gen_branch(struct gen *g, const struct insn *i);
/* Does the branch end a loop that is just this block? */
bool gen_is_loop(const struct gen *g, const struct insn *i);
/* That branch: on behind the block, or here, where the body starts again with mirrors as they are. */
void gen_loop_end(struct gen *g, const struct insn *i);
/* Out of line: to the loop of cpu_run. */
void gen_loop_exit(struct gen *g);
/* Behind the last instruction of a block that does not end in a branch. */
void gen_fall_through(struct gen *g);
/* How other blocks come here: compare the code's bytes; the uop's handler may be elsewhere. */
void gen_enter(struct gen *g, const u8 *start);
/* Shared by all: back to the loop, and the branch's slot takes the block found there. */
void gen_leave(struct code *c);

/* ---- insns.c ---- */

/* false: not one of ours. What was emitted is to be thrown away then. */
bool gen_plain(struct gen *g, const struct insn *i);

#endif
