/* SPDX-License-Identifier: MIT */
/*
 * The self-checking build, `make HARD=1` (DESIGN.md 7): what is rare becomes the only way, and
 * what must hold is checked. HARD is a constant in plain conditions, so that every build
 * compiles both sides. The only place with #if.
 */
#ifndef ANYKVM_HARD_H
#define ANYKVM_HARD_H

#include "base/base.h"

#ifndef HARD
#define HARD 0
#endif

/* Does a call in tail position become a jump? Not with sanitizers and at -O0. */
#if defined(__has_feature)
#define HAS_FEATURE(x) __has_feature(x)
#else
#define HAS_FEATURE(x) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(__OPTIMIZE__) || \
	HAS_FEATURE(address_sanitizer) || HAS_FEATURE(thread_sanitizer)
#define TAIL_CALLS 0
#else
#define TAIL_CALLS 1
#endif

/* The optimisations: one switch for each. */
enum {
	OPT_TLB = !HARD,    /* more than one entry; accesses that pass by mmu_translate */
	OPT_DIRECT = !HARD, /* handlers work on guest RAM itself, not in a buffer filled by bytes */
	OPT_BULK = !HARD,   /* REP goes a page at a time, and on to its next iteration at all */
	OPT_BLOCKS = !HARD, /* decoded code is kept, and a block has more than one instruction */
	OPT_TAKE_OVER = !HARD, /* the emulator goes on where the processor found no RAM */
	OPT_UOPS = !HARD,   /* fast handlers and thunks in blocks, beside cpu_exec */
	OPT_TRANSLATE = !HARD && TAIL_CALLS, /* host code for runs of instructions */
	OPT_CHAIN = !HARD && TAIL_CALLS, /* a block leads into the next without the loop */
};

/* A law that only the self-checking build looks after. Ends the process: it is for tests. */
void hard_failed(const char *what, const char *file, int line) __attribute__((noreturn, cold));
#define hard_check(cond)                                             \
	do {                                                         \
		if (HARD && unlikely(!(cond)))                       \
			hard_failed(#cond, __FILE__, __LINE__);      \
	} while (0)

#endif
