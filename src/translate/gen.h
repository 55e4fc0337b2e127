/* SPDX-License-Identifier: MIT */
/*
 * Private to translate/: the state of one run under construction.
 *
 *	RDI	struct cpu			RAX	flags image
 *	R15	linear address of the block	R12	instructions retired, with the block's own
 *	R10	address of a memory operand	R13, R14	tag of its page, host minus guest address
 *	RDX, R11	scratch
 *
 * All other registers but RSP mirror guest registers, each written to struct cpu as soon as it
 * changes: so the run can be left at any instruction, and forgetting one costs nothing. The flags
 * are in RAX, in the host's, or in both; before anything can leave, they are in RAX. R12 and R15
 * are stored in struct cpu only where the translated code is left (gen_common).
 */
#ifndef ANYKVM_GEN_H
#define ANYKVM_GEN_H

#include "cpu/tb.h"
#include "translate/emit.h"

#define CPU   RDI
#define FLAGS RAX
#define INSNS R12
#define RIP   R15
#define EA    R10
#define TAG   R13
#define DELTA R14
#define T0    RDX
#define T1    R11

/* An access to guest RAM, which the host may stop: the code from here on is that of the uop. */
struct mark {
	u32 at; /* from the start of the code */
	u32 uop : 30; /* from the start of the arena */
	u32 fl : 1;   /* the flags image is in cpu->fl, not in FLAGS */
	u32 fp : 1;   /* MXCSR is the guest's */
};
_Static_assert(TB_ARENA_SIZE < 1u << 30, "a uop's place in it has 30 bits");

/*
 * A direct branch to a block of the same page, as a jump: to `unlinked`, where cpu_run's loop looks
 * for the block, or to the block, or to code that loads the mirrors which the block wants.
 */
struct edge {
	u8 *jump; /* its distance, as we write it */
	const u8 *unlinked;
	struct edge *next; /* of those that lead to the same block */
	bool forward;	   /* in the page: requests are looked for elsewhere in any loop */
	u8 host_of[16];	   /* mirrors that it comes with */
};

/* How a block is entered. */
struct translation {
	const u8 *chained; /* by an edge, with the mirrors it wants; as we write it */
	const u8 *forward; /* the same by one that goes forward */
	struct edge *in;
	u8 host_of[16]; /* mirrors that it wants */
};

/* Code that all blocks share, as we write it. */
struct common {
	const u8 *leave_edge; /* to cpu_run's loop at RIP; R8: the edge that leads there */
	const u8 *leave;      /* the same without an edge */
	const u8 *handler;    /* to the handler of the uop in RSI */
	const u8 *handler_at; /* that is in R11 */
};

/* The only struct translator that there is. */
struct codegen {
	struct translator ops;
	struct common common;
	u32 cold; /* in code: what is rarely run is apart, from the middle to here */
	struct mark *mark; /* in order */
	u32 nr_marks;
};

#define CHECKS 3 /* of one instruction, at most: IDIV's; those of its memory operands are among them */
#define ACCESSES 2 /* to memory: PUSH's of memory */
#define MISSES 8 /* once in a run: those of gen_vec_begin */

/* What is emitted behind a run, or only then known; counted in struct gen. */
struct late {
	/* A jump to the interpreter's handler. fp: MXCSR is the guest's. */
	struct miss {
		u8 *jump;
		u8 k;
		bool fp;
	} miss[2 * (CHECKS * TB_MAX_INSNS + MISSES)]; /* a loop's body comes twice */
	/* An access to the page of the one before, most likely: what to do if not. */
	struct elsewhere {
		u8 *jump, *back;
		u16 n;
		u8 k;
		bool write, fp;
	} elsewhere[2 * ACCESSES * TB_MAX_INSNS];
	u8 *exit[2 * (TB_MAX_INSNS * 2 + 3)];	/* of gen_loop_end */
	u8 *changed[TB_MAX_INSNS * 2 + 2];	/* of gen_enter */
	struct edge edge[8];
};

struct gen {
	struct code c;
	const u8 *limit; /* no instruction is begun behind it */
	struct codegen *m;
	struct cpu *cpu;
	struct tb *tb;
	struct late *late;
	unsigned int nr_misses, nr_elsewhere, nr_exits, nr_changed, nr_edges, nr_marks;
	unsigned int first, k; /* uop where the run starts; uop that is being translated */
	u8 width; /* of an address: 8, or 4 in 32-bit code */
	bool image, live;      /* the flags are in FLAGS; in the host's */
	bool spilled;	       /* they are in cpu->fl, too, when this instruction's operand is accessed */
	u8 host_of[16];	       /* mirror of a guest register, or NO_HOST */
	u8 guest_of[16];       /* what a host register mirrors, or NO_HOST */
	u16 expected;	       /* guest registers whose mirror comes along, if anyone needs it */
	u8 wanted[16];	       /* of those that were needed: where, or NO_HOST */
	u16 busy;	       /* mirrors that this instruction needs */
	u16 age[16], clock;    /* of the mirrors */
	u16 xmm, ymm; /* host vector registers that hold the guest's of the same number, or all of it */
	bool sse, avx; /* their use has been checked */
	bool fp;       /* MXCSR is the guest's */
	u8 page_base; /* TAG and DELTA are those of an access by this guest register, or NO_HOST */
	bool page_write;
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
/* The mirrors of an edge come along. */
void gen_expect(struct gen *g, const struct edge *e);
/* Forget those that nobody has needed: who does not come by that edge does not have them. */
void gen_expect_no_more(struct gen *g);
/* Load the mirrors of `to` that are not those of `from`; NULL: that are none. */
void gen_load_mirrors(struct code *c, const u8 *to, const u8 *from);

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

/* to = from, rotated right by n bits. Flags are destroyed. */
void gen_rotate(struct gen *g, u8 to, u8 from, u8 n);
/* To the instruction's handler if condition cc holds (the low half of Jcc's opcode). */
void gen_miss_if(struct gen *g, u8 cc);
/* The code from here on accesses guest RAM for the instruction. */
void gen_mark(struct gen *g);

/* A jump whose target is written later. */
u8 *gen_jump(struct gen *g, u8 cc); /* CC_ALWAYS: JMP */
void gen_land(struct gen *g, u8 *jump);
void gen_jump_to(struct gen *g, u8 cc, const u8 *to);
enum { CC_AE = 3, CC_E, CC_NE, CC_BE, CC_A, CC_ALWAYS = 16 };

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
/* How other blocks come here: look for requests; compare the code's bytes. */
void gen_enter(struct gen *g);
void gen_enter_forward(struct gen *g);
/* Out of line: what gen_enter does if it finds a difference. */
void gen_enter_changed(struct gen *g);
/* Out of line: where edges lead before they are linked. */
void gen_edges(struct gen *g);
/* Make the code that all share, at the start. */
void gen_common(struct codegen *m);
/* Lead an edge to a block, or back to cpu_run's loop. */
void edge_link(struct codegen *m, struct edge *e, struct translation *to);
void edges_unlink(struct translation *to);

/* ---- insns.c ---- */

/* false: not one of ours. What was emitted is to be thrown away then. */
bool gen_plain(struct gen *g, const struct insn *i);

#endif
