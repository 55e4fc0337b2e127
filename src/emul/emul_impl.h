/* SPDX-License-Identifier: MIT */
/*
 * Private to emul/: the match rule, the pending record and the exit environment.
 *
 *   translate.c   may this proved translation serve this access? (SEED 7.3)
 *   pending.c     the record: what one instruction has asked for and what it got
 *   env_exit.c    struct env_ops on top of both
 *   emul.c        emul_run, emul_complete: passes over the handler
 *   selfcheck.c   what the self-checking build does around a pass
 */
#ifndef ANYKVM_EMUL_IMPL_H
#define ANYKVM_EMUL_IMPL_H

#include "emul/emul.h"

/* ---- translate.c ---- */

/* One part (inside one page) of an access. */
struct xlat_want {
	gva_t gva;
	u16 len;
	u8 need; /* MMU_* */
	u8 attr; /* enum mmu_attr | space << 4, as in struct xlat */
	u32 epoch;
};

/* In the order in which a candidate is examined: a later one came closer. */
enum xlat_match { XLAT_STAGE, XLAT_PAGE, XLAT_RIGHTS, XLAT_EPOCH, XLAT_HIT };

/*
 * The one match rule: may x, which came with a fault of this stage, serve w? On XLAT_HIT
 * *out is the address of w's first byte. No page-offset test, no opcode flag, no REP flag.
 */
enum xlat_match xlat_match(
	const struct xlat *x, enum fault_stage stage, const struct xlat_want *w, gpa_t *out);

/* ---- pending.c ---- */

#define LOG_ENTRIES 1100	/* a REP OUTS batch of 1,024 elements; XSAVE and ENTER need far less */
#define LOG_BYTES   (3 * 4096)	/* a pio page, the memory side of it, and as much again */
#define MAX_PROVED  (MAX_XLAT + 12)

enum log_kind { LOG_MEM, LOG_SYSTEM, LOG_PIO };

#define LOG_READ   BIT(0) /* read has been begun: rdata is valid */
#define LOG_WRITE  BIT(1) /* write is final: wdata is valid unless it went to RAM at once */
#define LOG_REST   BIT(2) /* goes on where the entry before ended: same write (rule 18), same walk */
#define LOG_DIRECT BIT(3) /* the handler works on guest RAM itself (atomic): cannot be replayed */
#define LOG_USER   BIT(4) /* no RAM and no device took the next piece: it is user space's */

/* One mapped operand or port access of the current unit. */
struct log_entry {
	gva_t gva;
	gpa_t gpa[2];	   /* of the first byte in each page, as proved */
	u16 len, len0;	   /* bytes, bytes in the first page */
	u16 rdata, wdata;  /* offsets in struct pending.data */
	u16 rdone, wdone;  /* bytes that have been read, delivered */
	u16 port;
	u8 kind, need, attr, flags;
	u8 size; /* LOG_PIO: element */
};

/*
 * The suspended instruction (SEED rule 11). A value: no pointer out of it, none into it
 * but struct fragment.data between emul_fragment and the next call.
 */
struct pending {
	struct insn insn;
	bool active;	/* a fragment waits for its answer */
	bool finished;	/* the handler is through; only deliveries are left, then `result` */
	bool moved;	/* user space has changed registers while the exit was outstanding */
	bool retracted;	/* a proof made ahead did not hold: a walk instead, also at completion */
	bool begun;	/* this unit has touched something */
	bool wrote;	/* ... and has a final write in the log */
	bool holds_rip;	/* finished, but RIP advances only with the completion (rule 30) */
	bool doorbell;	/* a write that only rings one: rule 23 */
	bool rung;	/* ... and has */
	bool shadow, shadow_ss, tf; /* cpu's, before the instruction */
	u8 result;	/* enum emul_result, when finished */
	u8 leave;	/* enum cpu_leave for EMUL_LEAVE */
	u8 stage;	/* enum fault_stage of the fault that brought x[] */
	u8 nr_hints, nr_x; /* x[]: first those of the fault, then our own */
	u32 leave_msr;
	gpa_t bell;
	struct exception exc; /* for EMUL_EXCEPTION */
	u32 epoch;	/* of x[]; they outlive epoch bumps while the exit is outstanding (C20) */
	u64 rip;	/* cpu's, before the instruction */
	u32 units;	/* REP iterations finished since emul_run */
	u64 linear_rip; /* when the exit was taken */
	struct xlat x[MAX_PROVED];
	u16 pos, nr;	/* next entry that the handler will ask for; entries known */
	u16 cur;	/* entry of the current fragment */
	bool cur_write;
	u16 nr_bytes;	/* of data[] in use */
	struct log_entry log[LOG_ENTRIES];
	u8 data[LOG_BYTES];
};

/* A pass over the handler: the exit environment's state. */
struct env_exit {
	struct env *env; /* its owner's, or the cpu env that was taken over */
	struct cpu *cpu;
	struct emul *em;
	struct pending *rec;
	bool failed_replay; /* the handler asked for something that is not in the log */
};

/* One pass over the handler, from the entry registers. */
MUSTCHECK enum stop emul_pass(struct emul *em, struct cpu *cpu, bool *failed_replay);

bool emul_is_string_io(const struct insn *i); /* INS, OUTS */
/* Make env the exit environment; what it has pending stays. */
void env_exit_init(struct env_exit *e, struct emul *em, struct env *env, struct cpu *cpu);

/* The address of w's first byte: from the record, else by a walk that is noted there. */
MUSTCHECK enum stop emul_translate(struct env_exit *e, const struct xlat_want *w, gpa_t *out);

/* hints: take the fault's translations over. */
void pending_start(struct pending *rec, const struct insn *insn, const struct fault *fault,
	bool hints, u32 epoch);
/* A new unit (REP iteration): the log is empty again, the proved translations stay. */
void pending_next_unit(struct pending *rec);
/* n bytes of data[], or -1. */
static inline int pending_alloc(struct pending *rec, u32 n)
{
	int at = rec->nr_bytes;

	if (rec->nr_bytes + n > LOG_BYTES)
		return -1;
	rec->nr_bytes += n;
	return at;
}
/* Index of the first entry with a final but undelivered write, or -1. */
int pending_first_undelivered(const struct pending *rec);
static inline int pending_undelivered(const struct pending *rec)
{
	return rec->wrote ? pending_first_undelivered(rec) : -1;
}
/* The write of l is final; its bytes are at data[at]. */
static inline void pending_write(struct pending *rec, struct log_entry *l, int at)
{
	l->wdata = at;
	l->flags |= LOG_WRITE;
	rec->wrote = true;
}

/*
 * Do what is left of l's read or write: RAM, in-process devices. true: all done. false: the
 * next piece is user space's (pending_piece).
 */
bool pending_perform(struct emul *em, struct cpu *cpu, struct log_entry *l, bool write);
/* Mode off: the walk that performing l from byte `done` on costs (SEED rule 6). */
void pending_walk_off(struct emul *em, struct cpu *cpu, const struct log_entry *l, u32 done);
static inline void pending_walk(
	struct emul *em, struct cpu *cpu, const struct log_entry *l, u32 done)
{
	if (em->mode == EMUL_GPA_OFF)
		pending_walk_off(em, cpu, l, done);
}
/* The piece of l that comes next. */
void pending_piece(const struct pending *rec, const struct log_entry *l, bool write,
	struct fragment *out);

/* Elements of 1, 2 or 4 bytes in so many bytes; a shift, as every port access asks. */
static inline u32 pio_elements(u32 bytes, u8 size)
{
	return bytes >> (size >> 1);
}

/* ---- selfcheck.c ---- */

void selfcheck_copy(struct cpu *to, const struct cpu *from);
/* The pass that started at `entry` has ended in `stop`: do it again, nothing may differ. */
void selfcheck_replay(struct emul *em, struct cpu *cpu, const struct cpu *entry, enum stop stop);
u64 selfcheck_walks(const struct cpu *cpu);

/* Guest RAM at [g, g+n) has just been written through hva. */
void ram_written(struct cpu *cpu, gpa_t g, const u8 *hva, u32 n);

#endif
