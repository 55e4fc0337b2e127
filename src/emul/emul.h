/* SPDX-License-Identifier: MIT */
/*
 * Exit-time emulation: the seed. A guest access found no RAM, or touched a port; the
 * processor stopped and handed over a struct fault with every translation it had proved.
 * emul_run() executes the same handler in the exit environment; what user space must do
 * leaves as fragments; emul_complete() takes the answer and goes on from the pending record,
 * without decoding, fetching or walking (SEED rules 11, 12; DESIGN.md law 4).
 */
#ifndef ANYKVM_EMUL_H
#define ANYKVM_EMUL_H

#include "cpu/cpu.h"
#include "cpu/env.h"

enum emul_gpa_mode { EMUL_GPA_OFF, EMUL_GPA_ON, EMUL_GPA_VERIFY }; /* ANYKVM_GPA */

/* In-process devices, given by kvm/. len 1..8. 0 = done, -EOPNOTSUPP = nobody there. */
struct emul_bus {
	int (*mmio_read)(void *opaque, gpa_t gpa, unsigned int len, void *data);
	int (*mmio_write)(void *opaque, gpa_t gpa, unsigned int len, const void *data);
	/* Does a write of any length to gpa ring a doorbell (zero-length ioeventfd)? NULL: none do. */
	bool (*doorbell)(void *opaque, gpa_t gpa);
	int (*pio_read)(void *opaque, u16 port, unsigned int len, void *data);
	int (*pio_write)(void *opaque, u16 port, unsigned int len, const void *data);
	void *opaque;
};

enum emul_result {
	EMUL_DONE,	/* the instruction (or this part of a REP) is complete: run the guest */
	EMUL_EXIT,	/* emul_fragment() says what user space must do */
	EMUL_EXCEPTION, /* cpu->exc is to be delivered */
	EMUL_FAIL,	/* cannot be emulated; cpu->fail says why */
	EMUL_RESTART,	/* record dropped (RIP was moved by user space): run the guest */
	EMUL_LEAVE,	/* done, and cpu->leave says what else (see STOP_LEAVE) */
};

/* What user space is asked for: KVM_EXIT_MMIO (len 1..8) or KVM_EXIT_IO. */
struct fragment {
	bool is_pio, is_write;
	u8 size;     /* PIO element size */
	u16 port;
	u32 count;   /* PIO elements; MMIO 1 */
	u32 len;     /* bytes: MMIO 1..8; PIO size * count <= 4096 */
	gpa_t gpa;
	const u8 *data; /* bytes to be written: point into the record; NULL for reads */
};

/* Counters of one vCPU: KVM's meanings and ours (SEED rule 35). Owner thread only. */
struct emul_stats {
	u64 insn_emulation, insn_emulation_fail, mmio_exits, io_exits;
	u64 gpa_hit, gpa_miss_stage, gpa_miss_page, gpa_miss_rights, gpa_miss_epoch;
	u64 complete_mmio, complete_pio;
	/* walks are in cpu->mmu.walks[] by class */
};

/* The suspended instruction. Self-contained: no pointer out of it. Allocated once per vCPU. */
struct pending;
struct env_exit;

struct emul {
	/* set at creation */
	struct emul_bus bus;
	enum emul_gpa_mode mode;
	bool outs_batch; /* false: one element per exit, as KVM (ANYKVM_OUTS_BATCH=0) */
	bool quirk_out_7e; /* OUT to port 0x7e advances RIP before its exit (KVM_X86_QUIRK_OUT_7E_INC_RIP) */
	bool trace;	/* one line per translation (ANYKVM_TRACE=emul; SEED rule 40) */
	/* cpu_exec; tests put handlers of their own */
	enum stop (*exec)(struct cpu *cpu, const struct insn *i, struct env *e);
	/* owner thread only */
	struct emul_stats stats;
	struct pending *pending;
	struct fragment fragment; /* what user space is asked for, while one waits */
	struct env_exit *taken; /* of an instruction that was taken over */
};

MUSTCHECK int emul_init(struct emul *em, const struct emul_bus *bus); /* 0, -ENOMEM; reads ANYKVM_GPA, ANYKVM_OUTS_BATCH */
void emul_free(struct emul *em);

/*
 * Run one instruction that stopped with `fault` (LEAVE_NPF, LEAVE_PIO). The fault is read,
 * never kept: what is needed later is copied into the record.
 */
MUSTCHECK enum emul_result emul_run(
	struct emul *em, struct cpu *cpu, const struct insn *insn, const struct fault *fault);

/*
 * The same for an instruction whose handler is under way and has done nothing yet but map what env
 * has pending: env becomes the exit env, the handler goes on in it. STOP_OK; else the handler must
 * end with that. Then emul_taken_over with what the handler returned: as emul_run.
 */
MUSTCHECK enum stop emul_take_over(struct emul *em, struct cpu *cpu, struct env *env,
	const struct insn *insn, const struct fault *fault);
MUSTCHECK enum emul_result emul_taken_over(struct emul *em, struct cpu *cpu, enum stop stop);

/*
 * A plain load of 1 to 8 bytes for which x has just been proved: if a device of ours answers, *v is
 * the value, and the instruction needs no record. false: nothing has happened, or not in this mode.
 */
MUSTCHECK bool emul_device_load(struct emul *em, const struct cpu *cpu, const struct xlat *x,
	unsigned int len, u64 *v);

/* The current fragment, after EMUL_EXIT. Bytes it points at belong to the record. */
static inline const struct fragment *emul_fragment(const struct emul *em)
{
	return &em->fragment;
}

/* Is a fragment waiting for its answer? */
bool emul_is_pending(const struct emul *em);

/* User space has given the registers other values (rule 27): what waits takes note. */
void emul_registers_set(struct emul *em);

/*
 * User space has answered: reply has exactly fragment.len bytes for a read, ignored for a
 * write; it is read once, so it may be memory that user space changes. Goes on with the instruction; never walks in mode on (law 4). If the linear RIP
 * was moved since, the record is dropped: EMUL_RESTART (rules 22, 27).
 */
MUSTCHECK enum emul_result emul_complete(struct emul *em, struct cpu *cpu, const void *reply);

/* Drop the record (vCPU reset). */
void emul_drop(struct emul *em);

/* One line for a failure: bytes, text of the instruction, RIP, GVA, GPA, rights, reason. */
void emul_explain(struct cpu *cpu, const struct insn *insn, const struct fault *fault, char *buf, size_t n);

#endif
