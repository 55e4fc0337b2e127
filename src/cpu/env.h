/* SPDX-License-Identifier: MIT */
/*
 * How an instruction sees the world. Every handler gets a struct env and does all its
 * memory and port accesses through it; the same handler runs in two environments:
 *
 *   cpu env  (cpu/env_cpu.c)    soft TLB, else the processor's walk. No RAM there: the
 *                               second-stage fault is recorded, the instruction stops.
 *   exit env (emul/env_exit.c)  proved translations first, else a counted walk; RAM,
 *                               in-kernel device, or a fragment for user space; a log
 *                               serves what has been done already.
 *
 * A handler runs in three steps:
 *
 *   1. env_map() each operand: segmentation, alignment, translation with all the rights
 *      that it will need (R|W for read-modify-write). May raise #GP #SS #AC #PF. No side effect.
 *   2. env_begin(): the barrier. All is proved; device reads happen here. Now a.p points at
 *      the bytes (guest RAM itself, or a.bounce).
 *   3. compute; store results at a.p and env_flush() each written operand (cannot fault);
 *      then commit registers, flags and cpu->next_rip. Nothing may stop after the first commit.
 *
 * A handler with dependent accesses repeats 1 and 2 as often as it needs before it commits;
 * it must not change registers in between: a replay starts from the beginning, and asks for
 * exactly the same accesses.
 */
#ifndef ANYKVM_ENV_H
#define ANYKVM_ENV_H

#include "cpu/cpu.h"

#define ACCESS_MAX   64 /* bytes of one struct access */
#define ENV_ACCESSES 20 /* operands between two barriers */

struct access {
	/* set by env_map from its arguments */
	gva_t gva;
	u16 len;
	u8 need; /* MMU_R | MMU_W */
	u8 attr; /* enum mmu_attr */
	bool system; /* implicit supervisor access: descriptor tables, IDT, TSS; never MMIO */
	/* set by the environment */
	u8 *p;	     /* the bytes, after env_begin */
	u16 log;     /* exit env: this access's place in the log */
	u8 nr_parts; /* 1, or 2 when it crosses a page */
	struct access_part {
		u8 *hva; /* guest RAM, or NULL: no RAM for this need */
		u16 len;
	} part[2];
	u8 bounce[ACCESS_MAX] __attribute__((aligned(64)));
};

struct pio {
	u16 port;
	u8 size;   /* 1, 2, 4 */
	bool in;
	u32 count; /* elements; > 1 only for INS/OUTS batches */
	void *data;
};

struct env_ops {
	/* Prove a->gva.. for a->need and fill parts. STOP_OK, STOP_EXC (#PF raised), STOP_FAIL. */
	enum stop (*map)(struct env *e, struct access *a);
	/* Barrier: STOP_OK and all mapped accesses' p are valid, or NPF / EXIT / FAIL. */
	enum stop (*begin)(struct env *e);
	/* The bytes at a->p are final: make them visible. */
	enum stop (*flush)(struct env *e, struct access *a);
	/* Port access, after the barrier that proved the memory operand. */
	enum stop (*pio)(struct env *e, struct pio *io);
	/*
	 * REP strings: host pointer to [gva, page end) if it is plain RAM for this need and the
	 * environment allows bulk work (the exit env does not), else NULL. Never stops; may fill
	 * the TLB. Written bytes must not reach past *len (in: wanted, out: allowed).
	 */
	u8 *(*ram)(struct env *e, gva_t gva, u8 need, u8 attr, u32 *len);
	/* A REP iteration has been committed: later accesses belong to a new unit (log, proved list).
	   false: stop here with RIP on the instruction (kick, or the environment wants to). */
	bool (*next_iteration)(struct env *e);
};

struct env {
	struct cpu *cpu;
	const struct env_ops *ops;
	void *state; /* the exit env's own; NULL in the cpu env */
	struct access *pending[ENV_ACCESSES]; /* mapped since the last barrier */
	u8 nr_pending;
	bool exact;	 /* devices may see the accesses: stack frames go item by item (env_exact) */
	bool outs_batch; /* OUTS with REP may move several elements in one pio */
	bool fixed;	 /* the handler has gone the cpu env's way: it cannot be taken over */
	bool no_ac;	 /* the accesses of this instruction are never alignment-checked */
	bool rest;	 /* what is mapped now goes on where the access before ended: one access
			    of the instruction (set by env_read, env_write for long ones) */
	bool ahead;	 /* what is mapped now may never be written (cpu env): A and D stay */
	bool locked;	 /* LOCK or XCHG: what it reads and writes must be guest RAM itself */
};

static inline bool env_exact(struct env *e)
{
	e->fixed = true;
	return e->exact;
}

/* Segmentation only: linear address of [seg:ea, +len) for need (R, W, X). #GP(0)/#SS(0) as SDM 3A 5.3. */
MUSTCHECK enum stop seg_linear(
	struct cpu *cpu, enum seg seg, u64 ea, u32 len, u8 need, u64 *linear);

/* Step 1 for a data operand at seg:ea. len <= ACCESS_MAX. align: 0, or the required alignment (#GP). */
MUSTCHECK enum stop env_map(struct env *e, struct access *a, enum seg seg, u64 ea, u32 len, u8 need);
MUSTCHECK enum stop env_map_aligned(
	struct env *e, struct access *a, enum seg seg, u64 ea, u32 len, u8 need, u32 align);
/* Step 1 for a linear address with explicit attr (no segmentation). */
MUSTCHECK enum stop env_map_linear(
	struct env *e, struct access *a, gva_t gva, u32 len, u8 need, enum mmu_attr attr);
/* Are alignment checks on: CPL 3, CR0.AM and EFLAGS.AC (SDM 3A 6.15, interrupt 17)? */
static inline bool alignment_checked(const struct cpu *cpu)
{
	return unlikely((cpu->cr0 & CR0_AM) && (cpu->eflags & EFL_AC) && cpu->cpl == 3);
}
/* #AC, if it is enabled, of an operand whose alignment its length does not tell. */
MUSTCHECK enum stop env_check_ac(struct env *e, enum seg seg, u64 ea, u32 len, u32 align);
/* Step 2. */
MUSTCHECK static inline enum stop env_begin(struct env *e)
{
	enum stop stop = e->ops->begin(e);

	e->nr_pending = 0;
	return stop;
}
/* Step 3; only for accesses with MMU_W. The only stop left is STOP_EXIT/STOP_FAIL of the exit env. */
MUSTCHECK enum stop env_flush(struct env *e, struct access *a);

/* All three steps for simple cases; any len (split at ACCESS_MAX, all proved first). */
MUSTCHECK enum stop env_read(struct env *e, enum seg seg, u64 ea, u32 len, void *out);
MUSTCHECK enum stop env_write(struct env *e, enum seg seg, u64 ea, u32 len, const void *in);
/* Only prove (probe) that [seg:ea, +len) can be accessed; any len. */
MUSTCHECK enum stop env_prove(struct env *e, enum seg seg, u64 ea, u32 len, u8 need);

/* Implicit supervisor accesses (GDT, LDT, IDT, TSS): MMU_KERNEL whatever the CPL; walks count as system. */
MUSTCHECK enum stop env_read_system(struct env *e, u64 linear, u32 len, void *out);
MUSTCHECK enum stop env_write_system(struct env *e, u64 linear, u32 len, const void *in);
MUSTCHECK enum stop env_prove_system(struct env *e, u64 linear, u32 len, u8 need);

MUSTCHECK enum stop env_pio(struct env *e, struct pio *io);

/*
 * Copy to or from guest RAM. Aligned 2, 4 and 8 bytes are one access, as other processors may
 * rely on (SDM 3A 9.1.1); in the self-checking build all others go byte by byte.
 */
void ram_copy(void *to, const void *from, u32 n);

/*
 * The cpu env: lives on the stack of one attempt. What is proved goes straight to *fault, the
 * caller's; its stage says whether a second-stage fault happened.
 *
 * With `insn` the exit-time emulator may take the instruction over where it is (cpu_ops.take_over):
 * at its first barrier or port access, when all that it has mapped is what the barrier is for.
 */
struct env_cpu {
	struct env env;
	struct fault *fault;
	const struct insn *insn; /* NULL: an instruction that finds no RAM stops */
	u32 maps;		 /* accesses mapped so far */
	bool begun;		 /* a barrier has been passed */
};
void env_cpu_init(struct env_cpu *e, struct cpu *cpu, struct fault *fault);
/* The same, but the first barrier stops with STOP_NPF: what the instruction maps is proved, no more. */
void env_probe_init(struct env_cpu *e, struct cpu *cpu, struct fault *fault);

#endif
