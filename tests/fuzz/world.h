/* SPDX-License-Identifier: MIT */
/*
 * A machine for the seed's fuzzing, on the public API: some pages of RAM, of a read-only slot,
 * of devices in user space; 16 linear pages that each sequence maps to them anew; code that
 * nobody can write; handlers that halt. The same sequence can run in several worlds:
 *
 *	off, on, verify	ANYKVM_GPA
 *	ram		every device is RAM
 *	forced		likewise, and every instruction goes through the exit-time emulator
 *
 * Devices remember what is written, so that all worlds must end in the same state.
 */
#ifndef TESTS_FUZZ_WORLD_H
#define TESTS_FUZZ_WORLD_H

#include <anykvm.h>

#include "gen.h"

#define RAM_SIZE  0x40000ul
#define CODE	  0x10000ul /* guest-physical */
#define CODE_LINEAR 0x2a1234567000ul /* far from all that a register is likely to hold */
#define CODE_SLOTS 64 /* pages from CODE_LINEAR on; a sequence's code is in one of them */
#define CODE_SIZE 256
#define POOL	  0x20000ul /* guest-physical RAM that sequences use */
#define POOL_PAGES 8
#define DEV	  0xd0000000ul
#define DEV_PAGES 5 /* 64 KiB apart; the last is the read-only slot, the last but one coalesced */
#define DEV_STEP  0x10000ul
#define LINEAR	  0x40000000ul
#define PAGES	  16
#define PML4	  0x1000ul
#define TRAPS	  0xa000ul /* 32 handlers, 16 bytes apart */

enum world_kind { WORLD_OFF, WORLD_ON, WORLD_VERIFY, WORLD_RAM, WORLD_FORCED, NR_WORLDS };

struct world {
	enum world_kind kind;
	int vm, vcpu, stats;
	struct kvm_run *run;
	struct kvm_coalesced_mmio_ring *ring;
	u8 *ram, *dev;
	/* of the current sequence */
	struct gen noise;	/* what user space does between exits */
	struct gen reply;	/* port reads; device reads if volatile */
	bool is_volatile;
	unsigned int exits;
	u64 exits_hash;		/* of all exits that user space saw */
	u32 reason;		/* of the last exit */
	bool stuck;		/* took too long */
};

/* What a sequence starts with. The same for all worlds. */
struct start {
	u64 pte[PAGES];
	u8 code[CODE_SIZE];
	struct kvm_regs regs;
	u64 cr0, cr3, cr4, fs, gs;
	u8 cpl;
	u8 fpu[512], ymm[256]; /* FXSAVE image, upper halves */
	u64 noise, reply;
	bool is_volatile;
	unsigned int n;
	struct insn insn[8];
	u16 at[8]; /* of the instructions in code[] */
};

extern const char *const world_names[NR_WORLDS];

struct world *world_create(enum world_kind kind);
void world_fill(struct world *w, u64 seed); /* contents of RAM pool and devices */
void world_copy(struct world *to, const struct world *from);
void world_run(struct world *w, const struct start *s);
/* Text of the first difference, or NULL. exits: user space must have seen the same, too. */
const char *world_differs(struct world *a, struct world *b, bool exits);
/* From a signal handler: let the running world give up. */
void world_interrupt(void);

#endif
