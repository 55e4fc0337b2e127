/* SPDX-License-Identifier: MIT */
/*
 * The native differential test: the same bytes with the same registers and memory, once on
 * the host CPU in a process of its own (ref.c), once as a guest of src/cpu (ours.c), both at
 * CPL 3 and at the same linear addresses. Both run until an exception: an instruction that
 * retires ends in the fault of what lies behind it (an absent page, or HLT). So the outcome
 * is always the same kind of thing: registers, exception, changed lines of memory.
 *
 *	gen.c     a row of insns.def -> instruction bytes, operands, a struct native_case
 *	values.c  edge and random values
 *	ref.c     the reference process
 *	ours.c    the guest, and which road the instruction took
 *	rows.c    rows that cannot be run here, with the reason
 *	main.c    the campaign: compare, replay, report
 */
#ifndef ANYKVM_NATIVE_TEST_H
#define ANYKVM_NATIVE_TEST_H

#include "base/base.h"
#include "x86/insn.h"

/* ---- linear addresses, the same on both sides ------------------------------------------ */

#define CODE_A	   0x40000000ul /* one page; the instruction ends where it ends; nothing behind */
#define CODE_B	   0x40100000ul /* two pages: instructions that cross, and HLT all around */
#define CODE_PAGES 3
#define DATA	   0x50000000ul /* DATA_RW pages to write, then one that is read-only; nothing around */
#define DATA_RW	   4
#define DATA_PAGES (DATA_RW + 1)
#define DATA_SIZE  (DATA_PAGES * PAGE_SIZE)
#define DATA_END   (DATA + DATA_SIZE)
#define OP_HLT_BYTE 0xf4

/*
 * Selectors, all of CPL 3. The first are Linux' own; the others are in the LDT that both sides
 * have for 16-bit code, whose offsets are 16 bits wide: it is in A or in B, and DATA is at 0.
 */
#define SEL_CODE64  0x33
#define SEL_CODE32  0x23
#define SEL_FLAT    0x2b /* data */
#define SEL_CODE_A  0x07
#define SEL_CODE_B  0x0f
#define SEL_WINDOW  0x17 /* data, 64 KiB from DATA */
#define SEL_STACK   0x1f /* 32-bit data (ESP is used), 4 GiB from DATA */
#define NR_LDT	    4
struct ldt_entry {
	u32 base, limit; /* limit: in bytes, or ~0 */
	bool code, big;	 /* big: D/B */
};
extern const struct ldt_entry ldt_entries[NR_LDT];
extern bool have_ldt; /* false: this host's kernel has no modify_ldt, and so no 16-bit code */
/* Base address of a selector's segment, FS and GS aside. */
u64 selector_base(u16 sel);

#define LINE	  64
#define NR_LINES  (DATA_SIZE / LINE)
#define MAX_LINES 96 /* lines that an outcome holds; more are only hashed */

/* ---- one case ------------------------------------------------------------------------- */

struct mstate {
	u64 gpr[16];
	u64 rip, rflags, fs_base, gs_base;
	u16 cs, ss, ds, es, fs, gs;
	u32 mxcsr;
	u8 fx[160]; /* FXSAVE64 image: x87 and MMX */
	u8 ymm[16][32];
};

#define MAX_POKES 8
struct poke {
	u16 off, len; /* into the window */
	u8 data[LINE];
};

struct native_case {
	u64 seed;
	u32 row; /* the row that it was made for */
	u8 len;
	u8 nr_pokes;
	u8 road; /* enum road_wanted */
	u8 mode; /* MODE_64; MODE_32, MODE_16: compatibility mode */
	bool decodes; /* as that row; else the bytes are #UD */
	u8 code[16];
	struct mstate in;
	struct poke pokes[MAX_POKES];
};

struct outcome {
	struct mstate s;
	u64 cr2, hash; /* hash: of all changed lines */
	u32 error;
	u16 vector;
	u16 nr_lines;
	struct line {
		u16 n;
		u8 data[LINE];
	} lines[MAX_LINES];
};

/* Vectors of an outcome beyond 31 */
#define VECTOR_SYSCALL 0x100 /* the reference tried a system call */
#define VECTOR_HANG    0x101 /* did not end */
#define VECTOR_DIED    0x102 /* the reference process is gone */
#define VECTOR_CRASH   0x104 /* ours: a host signal */
#define VECTOR_LEFT    0x103 /* ours: cpu_run left for another reason than an exception */

/* The window's content before every case, pokes aside. */
extern u8 pristine[DATA_SIZE];
void pristine_fill(void);

/* Lines of `window` that differ from pristine go to out; the window is made pristine again. */
void collect_lines(u8 *window, struct outcome *out);
void apply_pokes(u8 *window, const struct native_case *c);

/* ---- values.c ------------------------------------------------------------------------- */

struct rng {
	u64 s;
};
static inline u64 rnd(struct rng *r)
{
	u64 z = r->s += 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}
static inline u32 below(struct rng *r, u32 n)
{
	return (rnd(r) >> 32) * n >> 32;
}
static inline bool one_in(struct rng *r, u32 n)
{
	return !below(r, n);
}
u64 rnd_value(struct rng *r);			 /* an integer, often at an edge */
u64 rnd_address(struct rng *r, unsigned int len); /* where an operand of len bytes may lie */
u64 rnd_target(struct rng *r);			 /* where a branch may go */
u16 rnd_selector(struct rng *r);
void rnd_bytes(struct rng *r, void *p, unsigned int n); /* operand bytes: integers, floats */
void rnd_vectors(struct rng *r, struct mstate *s);
void rnd_x87(struct rng *r, struct mstate *s);
u32 rnd_mxcsr(struct rng *r);

/* ---- gen.c, rows.c -------------------------------------------------------------------- */

/* false: no bytes found that decode as this row. */
bool gen_case(struct native_case *c, u32 row, u64 seed, enum insn_mode mode);

/* NULL, or why user mode on this host cannot say what the row does. */
const char *row_excluded(u32 row, enum insn_mode mode);

/* ---- ref.c ---------------------------------------------------------------------------- */

#define BATCH 128
struct batch {
	u32 n;
	struct native_case c[BATCH];
	struct outcome out[BATCH];
};

/*
 * The reference process serves one batch after another out of shared memory. Its code uses
 * neither libc nor TLS after start. ref_main never returns.
 */
_Noreturn void ref_main(struct batch *b, int from_parent, int to_parent);

/* The LDT that reference processes inherit. */
bool ref_make_ldt(void);

/* ---- ours.c --------------------------------------------------------------------------- */

enum road_wanted {
	RUN_BLOCK,  /* cpu_run: fast handlers where there are any */
	RUN_TRANSLATED, /* cpu_run: the translator's code, fast handlers for all else */
	RUN_EXEC,   /* cpu_exec in the processor's environment */
	RUN_BOUNCE, /* cpu_exec, every operand through a bounce buffer, as for a device */
	NR_RUNS,
};
enum road {
	ROAD_TRANSLATED,
	ROAD_INLINE,	/* uop_*: inline-asm core or C of a fast handler */
	ROAD_UOP_THUNK, /* re-encoded thunk, called by a fast handler */
	ROAD_THUNK,	/* re-encoded thunk, exec_native */
	ROAD_HANDLER,	/* C handler */
	ROAD_NONE,	/* stopped before: #UD, fetch fault, a check of cpu_exec */
	NR_ROADS,
};

struct ours;
struct ours *ours_create(void);
enum road ours_run(struct ours *o, const struct native_case *c, struct outcome *out);
bool ours_has(const struct ours *o, unsigned int cpuf);
void ours_kick(struct ours *o); /* async-signal-safe */

#endif
