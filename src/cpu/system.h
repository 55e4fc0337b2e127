/* SPDX-License-Identifier: MIT */
/*
 * Private to cpu/: descriptors, segments, stacks of other privilege levels, event
 * delivery, task switches. The functions here prove and read; they change no register
 * unless their comment says "commit". Read exec.h before.
 */
#ifndef ANYKVM_SYSTEM_H
#define ANYKVM_SYSTEM_H

#include "cpu/exec.h"

/* ---- descriptors, SDM 3A 3.4.5, 3.5; descriptor.c ---- */

struct desc {
	u64 lo, hi; /* hi: second half of a 16-byte system descriptor in long mode, else 0 */
};

/* System descriptor types, SDM 3A 3.5 (with S = 0) */
enum desc_type {
	DESC_TSS16 = 1, DESC_LDT = 2, DESC_TSS16_BUSY = 3, DESC_CALL16 = 4, DESC_TASK = 5,
	DESC_INT16 = 6, DESC_TRAP16 = 7, DESC_TSS32 = 9, DESC_TSS32_BUSY = 11, DESC_CALL32 = 12,
	DESC_INT32 = 14, DESC_TRAP32 = 15,
};
/* Bits of the type of a code or data descriptor (S = 1) */
#define TYPE_ACCESSED	1
#define TYPE_WRITE	2 /* data */
#define TYPE_READ	2 /* code */
#define TYPE_DOWN	4 /* data: expand-down */
#define TYPE_CONFORMING 4 /* code */
#define TYPE_CODE	8
#define TSS_BUSY	2

/* Selector and error code bits */
#define SEL_RPL(s)  ((s) & 3)
#define SEL_TI	    4
#define SEL_NULL(s) (!((s) & ~3))
#define ERR_EXT	    1u
#define ERR_IDT	    2u

static inline u8 desc_type(const struct desc *d) { return (d->lo >> 40) & 15; }
static inline bool desc_s(const struct desc *d) { return d->lo >> 44 & 1; }
static inline u8 desc_dpl(const struct desc *d) { return (d->lo >> 45) & 3; }
static inline bool desc_p(const struct desc *d) { return d->lo >> 47 & 1; }
static inline bool desc_l(const struct desc *d) { return d->lo >> 53 & 1; }
static inline bool desc_db(const struct desc *d) { return d->lo >> 54 & 1; }
static inline bool desc_is_code(const struct desc *d)
{
	return desc_s(d) && (desc_type(d) & TYPE_CODE);
}
static inline bool desc_is_conforming(const struct desc *d)
{
	return desc_is_code(d) && (desc_type(d) & TYPE_CONFORMING);
}
static inline bool desc_is_writable(const struct desc *d)
{
	return desc_s(d) && !(desc_type(d) & TYPE_CODE) && (desc_type(d) & TYPE_WRITE);
}
static inline bool desc_is_readable(const struct desc *d)
{
	return desc_s(d) && (!(desc_type(d) & TYPE_CODE) || (desc_type(d) & TYPE_READ));
}
u64 desc_base(const struct desc *d);
u32 desc_limit(const struct desc *d);
static inline u16 gate_sel(const struct desc *d) { return d->lo >> 16; }
u64 gate_offset(const struct desc *d, bool long_mode, bool wide);

/* Error code that names a selector: SDM 3A 6.13. */
static inline u32 sel_error(u16 sel, u32 ext) { return (sel & 0xfffc) | ext; }

/*
 * Read the descriptor of sel from GDT or LDT. Beyond the limit, or no LDT: exception
 * `vector` with the selector as error code. desc_read_system: 16 bytes in long mode.
 */
MUSTCHECK enum stop desc_read(struct env *e, u16 sel, u8 vector, u32 ext, struct desc *d);
MUSTCHECK enum stop desc_read_system(struct env *e, u16 sel, u8 vector, u32 ext, struct desc *d);
/* Set the type bits (accessed, busy) in the table if they are clear; d is updated. */
MUSTCHECK enum stop desc_set_bits(struct env *e, u16 sel, struct desc *d, u8 bits);
MUSTCHECK enum stop desc_clear_busy(struct env *e, u16 sel);
/* Prove that the type byte can be written; needed when something else is committed before. */
MUSTCHECK enum stop desc_prove_bits(struct env *e, u16 sel, const struct desc *d, u8 bits);
/* Is the whole descriptor (8 or 16 bytes) of sel inside its table? */
bool desc_inside(const struct cpu *cpu, u16 sel, u32 size);
/* The segment register that descriptor d gives. */
struct segment seg_from_desc(u16 sel, const struct desc *d);

/* ---- segments; segment.c ---- */

struct segment seg_null(u16 sel, u8 dpl);
/* Real mode and V86 load of sel into a register that holds s now. */
struct segment seg_real(const struct cpu *cpu, const struct segment *s, u16 sel);
/* All checks of a load of seg (not CS); accessed bit set; *out is what to commit. */
MUSTCHECK enum stop seg_prepare(struct env *e, enum seg seg, u16 sel, struct segment *out);
/* Commit: after the loads of CS/SS/..., recompute what depends. */
static inline void seg_commit(struct cpu *cpu, enum seg seg, const struct segment *s)
{
	cpu->seg[seg] = *s;
}
/* Commit: outer return: data segments that the new CPL may not have become null, the base stays (SDM 3A 5.8.6). */
void seg_drop_inner(struct cpu *cpu, u8 cpl);

/* Linear address of [ea, +len) in segment s; error: of the #SS or #GP. m64: 64-bit addressing. */
MUSTCHECK enum stop seg_check(struct cpu *cpu, const struct segment *s, bool is_ss, bool m64, u64 ea,
	u32 len, u8 need, u32 error, u64 *linear);

/* ---- stacks, also those of another privilege level; frame.c ---- */

struct stack {
	struct segment ss;
	u64 sp;
	u64 mask;
	bool m64;
	u8 attr;   /* enum mmu_attr of its accesses */
	u32 error; /* error code of its #SS */
};
#define FRAME_MAX 160 /* a 32-bit call gate: 31 parameters, SS ESP CS EIP */
struct frame {
	u8 bytes[FRAME_MAX]; /* filled downwards from the end */
	u32 len, size;	     /* of all, of one item */
	u64 sp; /* new stack pointer, after frame_map */
	u32 nr;
	u32 at[11]; /* offset of each access in the frame */
	struct access a[11]; /* ten items (out of V86, error code), and one of them may wrap */
};

/* The stack in use. */
struct stack stack_current(const struct cpu *cpu);
/* A stack that ss:sp would give at privilege cpl in a code segment of mode m64. */
struct stack stack_make(const struct cpu *cpu, const struct segment *ss, u64 sp, u8 cpl, bool m64);
static inline void frame_init(struct frame *f) { f->len = 0; }
void frame_push(struct frame *f, u64 v, u32 size);
/* Prove the whole frame below s->sp. */
MUSTCHECK enum stop frame_map(struct env *e, const struct stack *s, struct frame *f);
/* After env_begin: write it. */
MUSTCHECK enum stop frame_store(struct env *e, struct frame *f);
/* Read n bytes, items of `size`, at s->sp + above. */
MUSTCHECK enum stop stack_read(
	struct env *e, const struct stack *s, u32 above, u32 n, u32 size, void *out);
/* s->sp + by under the mask; bits above it are those of s->sp. */
u64 stack_add(const struct stack *s, s64 by);

static inline enum mmu_attr attr_of_cpl(const struct cpu *cpu, u8 cpl)
{
	return cpl == 3 ? MMU_USER : cpu->eflags & EFL_AC ? MMU_KERNEL_AC : MMU_KERNEL;
}

/* SS:rSP of privilege level cpl from the TSS, all checks of an inner stack done (SDM 3A 5.8.5). */
MUSTCHECK enum stop tss_stack(struct env *e, u8 cpl, u32 ext, struct segment *ss, u64 *sp);
/* 64-bit TSS: RSP0..2 or, ist 1..7, IST. */
MUSTCHECK enum stop tss_stack_long(struct env *e, u8 cpl, u8 ist, u32 ext, u64 *rsp);

/* ---- code segments and returns; codeseg.c ---- */

/* Which privilege rules a far transfer has, SDM 2A CALL, JMP, RET; SDM 3A 5.8. */
enum cs_why {
	CS_DIRECT,    /* JMP, CALL to a code segment: CPL stays */
	CS_GATE_JUMP, /* JMP through a call gate */
	CS_GATE_CALL, /* CALL through a call gate: may go to an inner level */
	CS_RETURN,    /* RET, IRET: to the selector's RPL */
};
/* Check the code descriptor d of sel; *cs is what to commit (its RPL is the new CPL). Accessed bit set. */
MUSTCHECK enum stop cs_check(
	struct env *e, u16 sel, struct desc *d, enum cs_why why, struct segment *cs);
/* Null check, desc_read and cs_check. */
MUSTCHECK enum stop cs_prepare(struct env *e, u16 sel, enum cs_why why, struct segment *cs);
/* Is rip a valid offset in cs? else #GP(error). */
MUSTCHECK enum stop cs_check_rip(struct cpu *cpu, const struct segment *cs, u64 rip, u32 error);
/* SS of a return to privilege level cpl; to64: the target CS is 64-bit, where null is allowed. */
MUSTCHECK enum stop ss_prepare_return(
	struct env *e, u16 sel, u8 cpl, bool to64, struct segment *ss);
/* RSP after a return that popped rsp and SS. */
u64 return_rsp(const struct cpu *cpu, const struct segment *cs, const struct segment *ss, u64 rsp);
static inline bool cs_is_64(const struct cpu *cpu, const struct segment *cs)
{
	return cpu->long_mode && (cs->attr & SEGA_L);
}

/* ---- events; deliver.c ---- */

struct delivery {
	u8 vector;
	bool soft;	/* INT n, INT3, INTO: gate DPL is checked, EXT is 0 */
	bool has_error;
	u32 error;
	u64 rip;	/* to be pushed */
	u64 eflags;	/* to be pushed */
	u32 ext;	/* ERR_EXT or 0 */
};
/* One delivery, no double fault logic. Commits on STOP_OK: the new RIP is in cpu->next_rip. */
MUSTCHECK enum stop deliver_once(struct env *e, const struct delivery *d);
MUSTCHECK enum stop deliver_real(struct env *e, const struct delivery *d);
MUSTCHECK enum stop deliver_v86(struct env *e, const struct delivery *d); /* by the task's own IVT */
MUSTCHECK enum stop deliver_prot(struct env *e, const struct delivery *d);
MUSTCHECK enum stop deliver_long(struct env *e, const struct delivery *d);

/* ---- task switch; task.c ---- */

enum task_why { TASK_JMP, TASK_CALL, TASK_IRET, TASK_GATE };
/*
 * Switch to the TSS of sel (SDM 3A 7.3). rip: what is saved in the old TSS. Commits on
 * STOP_OK (new RIP in cpu->next_rip); faults while the new state is loaded are raised in the new task.
 */
MUSTCHECK enum stop task_switch(struct env *e, u16 sel, enum task_why why, u32 ext, bool has_error,
	u32 error, u64 rip);

/* ---- flags ---- */

/* Does VIF stand for IF: V86 with VME or CPL 3 with PVI, and IOPL below 3 (SDM 3A 20.3, 20.4)? */
bool cpu_virtual_if(const struct cpu *cpu);
/* What a V86 task sees and pushes then, and the new flags when it pops a 16-bit image. */
u64 flags_virtual(u64 eflags);
MUSTCHECK enum stop flags_pop_virtual(struct cpu *cpu, u64 image, u64 *eflags);
/* Behind a load of VIF and VIP: both at the beginning of an instruction are #GP(0) (SDM 3A 20.3.2). */
void check_virtual_interrupt(struct cpu *cpu);

/* Commit: take all bits of v; cpu_update is the caller's. */
static inline void eflags_store(struct cpu *cpu, u64 v)
{
	cpu->fl = eflags_to_image(v);
	cpu->eflags = (v & ~EFL_ARITH) | EFL_ONE;
}

/* ---- control registers; control.c ---- */

/* All that translation depends on: new values, checked by the setters below, committed together. */
MUSTCHECK enum stop control_set_cr0(struct cpu *cpu, u64 v);
MUSTCHECK enum stop control_set_cr3(struct cpu *cpu, u64 v);
MUSTCHECK enum stop control_set_cr4(struct cpu *cpu, u64 v);
MUSTCHECK enum stop control_set_efer(struct cpu *cpu, u64 v);
/* Bits of CR4 and EFER that the guest's CPUID allows. */
u64 control_cr4_valid(const struct cpu *cpu);
u64 control_efer_valid(const struct cpu *cpu);
u8 cpu_maxphyaddr(const struct cpu *cpu);

/* ---- ModRM operands of 16 bits or a register; sysregs.c ---- */

MUSTCHECK enum stop rm_read16(struct cpu *cpu, const struct insn *i, struct env *e, u16 *v);
/* Memory: 16 bits; register: operand size. */
MUSTCHECK enum stop rm_write16(struct cpu *cpu, const struct insn *i, struct env *e, u64 v);

/* ---- CPUID; cpuid.c ---- */

/* The table's entry, or NULL. No fallback, nothing dynamic. */
const struct cpuid_entry *cpuid_find(const struct cpu *cpu, u32 leaf, u32 subleaf);
/* One bit of the table: register 0..3 = EAX..EDX. */
bool cpuid_bit(const struct cpu *cpu, u32 leaf, u8 reg, u8 bit);
bool cpu_is_intel(const struct cpu *cpu);

#endif
