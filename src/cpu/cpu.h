/* SPDX-License-Identifier: MIT */
/*
 * The software processor: one struct cpu per vCPU, cpu_run() until something must be
 * decided outside, cpu_exec() for one instruction in any environment. Knows nothing of
 * KVM; what it needs from above goes through struct cpu_ops.
 *
 * Read base/base.h, x86/insn.h, mmu/mmu.h before, cpu/env.h after.
 */
#ifndef ANYKVM_CPU_H
#define ANYKVM_CPU_H

#include "base/base.h"
#include "mmu/mmu.h"
#include "x86/bits.h"
#include "x86/insn.h"

struct cpu;
struct env;
struct native;
struct tb_cache;

/*
 * Why an instruction stopped. Whatever is not STOP_OK leaves registers, flags, RIP and
 * memory as they were before the instruction (of a REP: before the current iteration).
 */
enum stop {
	STOP_OK,   /* done; cpu->next_rip is where the guest goes on */
	STOP_EXC,  /* the guest gets the exception in cpu->exc */
	STOP_NPF,  /* cpu env: second-stage fault, described in the env's struct fault */
	STOP_PIO,  /* cpu env: intercepted port access, likewise */
	STOP_EXIT, /* exit env: a device of user space must answer first */
	STOP_FAIL, /* cannot be emulated; cpu->fail says why */
	STOP_LEAVE, /* done (next_rip is valid), but cpu_run must return: cpu->leave says why */
	STOP_USER, /* user space must answer an RDMSR or WRMSR first: likewise, cpu->leave */
};

/* Return early unless x gives STOP_OK. */
#define TRY(x)                              \
	do {                                \
		enum stop try_stop = (x);   \
		if (unlikely(try_stop))     \
			return try_stop;    \
	} while (0)

struct exception {
	u8 vector;
	bool has_error;
	bool has_payload; /* payload is CR2 (#PF) or the DR6 bits (#DB) */
	u32 error;
	u64 payload;
};

/* Segment register with its hidden part (SDM 3A 3.4.3). */
struct segment {
	u16 sel;
	u16 attr;  /* SEGA_*: descriptor bits 40..55 in VMX access-rights order */
	u32 limit; /* in bytes, granularity applied */
	u64 base;
	bool unusable; /* null selector was loaded, or never loaded */
};
#define SEGA_TYPE 0x000f
#define SEGA_S	  0x0010
#define SEGA_DPL(a) (((a) >> 5) & 3)
#define SEGA_P	  0x0080
#define SEGA_AVL  0x1000
#define SEGA_L	  0x2000
#define SEGA_DB	  0x4000
#define SEGA_G	  0x8000

struct desc_table {
	u64 base;
	u16 limit;
};

/*
 * Arithmetic flags as LAHF and SETO leave them in AX: 15 SF, 14 ZF, 12 AF, 10 PF, 9 = 1,
 * 8 CF, 7..0 OF (0 or 1). The threaded interpreter carries this image in a register; at
 * every other place it is in cpu->fl.
 */
#define FI_SF 0x8000u
#define FI_ZF 0x4000u
#define FI_AF 0x1000u
#define FI_PF 0x0400u
#define FI_CF 0x0100u
#define FI_OF 0x0001u
#define FI_ONE 0x0200u

/* Bits of cpu->request: atomic; set by anyone, cleared by the owner. */
#define REQ_KICK   BIT(0) /* leave cpu_run at once (immediate_exit, signal, slots changed) */
#define REQ_IRQ	   BIT(1) /* ask ops->irq_pending at the next instruction where IF allows it */
#define REQ_NMI	   BIT(2) /* cpu->nmi_pending is not 0 */
#define REQ_SMI	   BIT(3)
#define REQ_STEP   BIT(4) /* owner only: one instruction at a time (TF, shadow, breakpoints, debug) */
#define REQ_FLUSH  BIT(5) /* flush the TLB (dirty log cleared, by another thread) */
#define REQ_COUNT  BIT(7) /* owner only, for good: LEAVE_KICK when insns has reached insn_limit */
#define REQ_EVENT  BIT(6) /* owner only: cpu->event holds an event to be injected (KVM_INTERRUPT, VCPU_EVENTS) */

enum cpu_leave {
	LEAVE_EMULATED,	/* the emulator had taken an instruction over: ops know how it ended */
	LEAVE_NONE,	/* self-checking build: after each instruction; run on */
	LEAVE_KICK,	/* REQ_KICK was set (and has been cleared) */
	LEAVE_NPF,	/* second-stage fault, or forced emulation: exit->fault, exit->insn */
	LEAVE_PIO,	/* port access: exit->fault (proved translations), exit->insn */
	LEAVE_FETCH,	/* the code is not in RAM: exit->gpa */
	LEAVE_HLT,	/* HLT retired; RIP is behind it */
	LEAVE_SHUTDOWN, /* triple fault */
	LEAVE_FAIL,	/* exit->why; cpu->rip is the instruction */
	LEAVE_DEBUG,	/* KVM_GUESTDBG_*: exit->exc (#DB or #BP) */
	LEAVE_IRQ_WINDOW, /* ops said request_interrupt_window and the guest can take one */
	LEAVE_HYPERCALL, /* VMCALL/VMMCALL that ops did not handle */
	LEAVE_MSR_READ,	/* RDMSR/WRMSR that ops sends to user space: exit->msr */
	LEAVE_MSR_WRITE,
	LEAVE_EFAULT,	/* guest RAM whose host page is not accessible */
	LEAVE_TPR,	/* MOV CR8 lowered it and user space owns the APIC */
	LEAVE_VECTORING, /* exception delivery into memory without RAM (suberror 3) */
	LEAVE_RESET,	/* INIT etc. */
};

/* What a second-stage fault, or an intercepted port access, tells its handler. A value. */
enum fault_stage { FAULT_NONE, FAULT_FINAL, FAULT_TABLE, FAULT_FETCH, FAULT_PIO, FAULT_FORCED };
#define MAX_XLAT 20

struct fault {
	enum fault_stage stage;
	u8 access; /* MMU_R|MMU_W of the access that found no RAM */
	u8 n;	   /* translations in x[] */
	gpa_t gpa;
	gva_t gva;
	u16 len;
	struct xlat x[MAX_XLAT]; /* all that the processor proved in this attempt */
};

/* What cpu_run tells its caller. Filled completely for the members the reason names. */
struct cpu_exit {
	enum cpu_leave reason;
	struct insn insn;
	struct fault fault;
	struct exception exc;
	gpa_t gpa;
	u32 msr;
	const char *why;
};

/* Upward calls; all by the vCPU's own thread. Set at creation; only take_over and device_load may be NULL. */
struct cpu_ops {
	/* Vector to deliver now (acknowledged), or -1. */
	int (*irq_ack)(struct cpu *cpu);
	/* Would irq_ack give one now? Nothing changes. */
	bool (*irq_pending)(struct cpu *cpu);
	u8 (*get_tpr)(struct cpu *cpu); /* CR8 */
	void (*set_tpr)(struct cpu *cpu, u8 tpr);
	/* MSRs that cpu/ does not own (APIC, KVM's, MTRR...): STOP_OK or STOP_EXC (#GP raised by the
	   callee with cpu_gp). */
	enum stop (*rdmsr)(struct cpu *cpu, u32 index, u64 *value);
	enum stop (*wrmsr)(struct cpu *cpu, u32 index, u64 value);
	/* May the guest's instruction have this one? Asked of all MSRs, cpu/'s too. */
	bool (*msr_allowed)(struct cpu *cpu, u32 index, bool write);
	/* #GP is raised because the MSR is not allowed, or else by its owner: STOP_EXC, or STOP_USER
	   after setting cpu->leave. */
	enum stop (*msr_refused)(struct cpu *cpu, u32 index, bool write, bool allowed);
	enum stop (*hypercall)(struct cpu *cpu); /* arguments in registers; result in RAX */
	u64 (*host_to_guest_tsc)(struct cpu *cpu, u64 host_tsc);
	/*
	 * The processor cannot go on with i: no RAM (fault), or a port. STOP_OK: from now on e is the
	 * exit env, and what e->pending names has been mapped there. Another stop ends the handler.
	 * taken_over is called when the handler of such an instruction has returned `stop`; STOP_OK,
	 * or STOP_USER and cpu->leave. NULL: the instruction stops with STOP_NPF or STOP_PIO.
	 */
	enum stop (*take_over)(struct cpu *cpu, struct env *e, const struct insn *i,
		const struct fault *fault);
	enum stop (*taken_over)(struct cpu *cpu, enum stop stop);
	/*
	 * A load of len bytes, 1 to 8 and in one page, has found no RAM, only x: may a device of ours
	 * answer at once? true: *v is the value, zero-extended, the load is done. false: nothing has
	 * happened. NULL: never.
	 */
	bool (*device_load)(struct cpu *cpu, const struct xlat *x, unsigned int len, u64 *v);
	void (*paging_changed)(struct cpu *cpu); /* after any change of CR0/CR3/CR4/EFER by the guest */
	void (*nmi_unmasked)(struct cpu *cpu);
	void (*smm_changed)(struct cpu *cpu);
};

#define NR_VARIABLE_MTRR 8

struct cpu {
	/* --- hot: the threaded interpreter's first cache lines --- */
	u64 regs[NR_REGS]; /* [GPR_ZERO] is always 0; [GPR_RIP] is scratch of the interpreter */
	u64 rip;
	u64 next_rip;
	u64 fl;	     /* arithmetic flags, lahf/seto image (FI_*) */
	u64 eflags;  /* all other EFLAGS bits (bit 1 set); use cpu_eflags() for the whole */
	_Atomic u32 request; /* REQ_* */
	u32 request_mask;    /* owner only: which of them matter now (IF, shadow, NMI blocking) */
	u64 ea_base[8];	     /* segment bases that the current mode applies (0 for flat ones in 64-bit) */
	struct tlb *data_tlb; /* the soft TLB of data accesses at this CPL and AC */
	u8 cpl;
	u8 mode; /* enum insn_mode of CS */
	u8 flat; /* TBM_FLAT, TBM_FS, TBM_GS */
	bool long_mode; /* EFER.LMA */
	bool shadow;	/* interrupt shadow: STI or MOV SS was the last instruction */
	bool shadow_ss; /* ... it was MOV SS/POP SS: #DB is held back too */
	bool hv_halted;
	u64 ea_mask; /* linear addresses have 32 bits outside 64-bit mode */

	/* --- architectural state, owner thread only --- */
	struct segment seg[NR_SEGS];
	struct segment tr, ldtr;
	struct desc_table gdtr, idtr;
	u64 cr0, cr2, cr3, cr4, efer, xcr0;
	u32 pkru, pkrs;
	u64 dr[4], dr6, dr7;
	u64 star, lstar, cstar, fmask, kernel_gs_base;
	u64 sysenter_cs, sysenter_esp, sysenter_eip;
	u64 pat, tsc_aux, misc_enable, spec_ctrl, xss;
	u64 smbase;
	u32 mxcsr, host_mxcsr; /* the host's: of the thread that runs, set by who calls cpu_run */
	bool in_smm, smi_pending;
	bool smm_inside_nmi; /* NMIs were blocked already when SMM was entered */
	bool nmi_blocked;
	u8 nmi_pending; /* 0..2 */
	struct {
		u8 ymm[16][32];	 /* vector registers, whole */
		u8 fx[512];	 /* FXSAVE64 image: only its x87/MMX part (bytes 0..159) is in use */
	} fpu __attribute__((aligned(64)));

	/* --- one instruction's results --- */
	struct exception exc;	/* STOP_EXC */
	u64 data_hits;		/* DR6 bits of data breakpoints that its accesses hit */
	enum cpu_leave leave;	/* STOP_LEAVE */
	u32 leave_msr;
	gpa_t leave_gpa;	/* LEAVE_VECTORING: what was not RAM */
	const char *fail;	/* STOP_FAIL: static text */
	enum completion {	/* STOP_OK: what its traps depend on (step.c) */
		DONE_PLAIN,
		DONE_PART,	/* REP: an iteration, but not the last; RIP is where it was */
		DONE_EVENT,	/* INT n: went through the IDT, no single-step trap */
		DONE_IRET,	/* has loaded RF */
		DONE_TF_NOW,	/* SYSCALL, SYSRET: the new TF counts */
	} completion;

	/* --- event delivery --- */
	struct {
		bool pending;	/* to be delivered before the next instruction */
		bool soft;	/* INT n / INT3 / INTO: RIP is pushed behind it (next_rip given) */
		bool is_irq, is_nmi;
		struct exception exc;
		u8 insn_len;
	} event;
	bool guest_debug_step, guest_debug_hw, guest_debug_sw; /* KVM_SET_GUEST_DEBUG */
	bool guest_debug_block; /* ... no interrupt, NMI or SMI is taken */
	u64 guest_dr[4], guest_dr7;
	bool mwait_needs_cpuid; /* MONITOR and MWAIT are #UD unless CPUID has them (KVM's quirk is off) */
	bool mwait_by_msr; /* CPUID's MONITOR bit follows IA32_MISC_ENABLE[18] */
	bool irq_window; /* kvm_run->request_interrupt_window */
	bool force_emulation; /* ud2; "kvm" sends the next instruction to the emulator (force.c) */

	/* --- set at creation --- */
	const struct cpu_ops *ops;
	void *opaque;
	bool no_fix_hypercall; /* VMCALL on AMD, VMMCALL on Intel are #UD: not rewritten */
	u8 features[NR_CPUF]; /* 1 = the guest's CPUID has it; cpu_set_features */
	struct cpuid_entry *cpuid; /* owned by the creator; sorted as given */
	u32 nr_cpuid;

	struct mmu mmu;
	struct native *native;	/* thunk cache, cpu/native.h; allocated at the first run */
	struct tb_cache *tbs;	/* translation blocks, cpu/tb.h; likewise */
	struct translator *translator; /* cpu/tb.h; NULL: the interpreter alone. Owned */
	struct cpu_exit *exit;	/* cpu_run's out parameter, valid while it runs */
	u32 slots_generation;	/* of the snapshot that the blocks were built from */
	bool completing;	/* emul_complete is at work: no fetch, no decoding (law 4) */
	u64 insns;		/* guest instructions retired */
	u64 insn_limit;		/* REQ_COUNT */
	u64 random;		/* not 0: the state that RDRAND's numbers come from */
	u64 stat_tb_built, stat_tb_lookup;
};

struct cpuid_entry {
	u32 leaf, subleaf;
	bool has_subleaf;
	u32 eax, ebx, ecx, edx;
};

/* 0 or -ENOMEM. State is that of RESET (SDM 3A 10.1.1). Memory is mem's; nothing is run yet. */
MUSTCHECK int cpu_init(struct cpu *cpu, struct mem *mem, const struct cpu_ops *ops, void *opaque);
void cpu_free(struct cpu *cpu);
void cpu_reset(struct cpu *cpu, bool init); /* RESET, or INIT (keeps what INIT keeps) */

/* Recompute features[] and what depends on it after a change of cpuid[]. */
void cpu_set_features(struct cpu *cpu);
/* Guest's CPUID answer for leaf/subleaf as the instruction gives it (with OSXSAVE, XCR0 sizes...). */
void cpu_cpuid(struct cpu *cpu, u32 leaf, u32 subleaf, u32 out[4]);
/*
 * May the base of a segment or a table, or an MSR that holds an address, have this value? These
 * have the width of the processor, 57 bits with LA57, whatever CR4 says (kvm-unit-tests la57).
 */
bool cpu_canonical_base(const struct cpu *cpu, u64 base);

/*
 * Run until something must be decided outside; *exit says what. Owner thread; between
 * cpu_attach and cpu_detach.
 */
void cpu_run(struct cpu *cpu, struct cpu_exit *exit);
MUSTCHECK int cpu_attach(struct cpu *cpu); /* allocate caches, take the memory snapshot: 0 or -ENOMEM */
void cpu_detach(struct cpu *cpu);

/*
 * The host stopped this thread at an access to guest memory, maybe inside cpu_run. Finds the
 * guest instruction that did it: cpu->rip is its address, and all before it is done. false:
 * it cannot be found; the processor's state is lost. The thread must not go on in cpu_run.
 * Async-signal-safe.
 */
struct host_regs {
	u64 gpr[16]; /* RAX RCX RDX RBX RSP RBP RSI RDI R8.. */
	u64 rip, eflags;
	u64 addr; /* what could not be accessed */
	u32 mxcsr;
};
MUSTCHECK bool cpu_stopped_by_host(struct cpu *cpu, const struct host_regs *r);

/*
 * Execute one decoded instruction in environment e: checks of CPUID, CPL, mode, FPU
 * state; then the handler. STOP_OK: registers, flags and cpu->rip are updated.
 * The semantics of every instruction are here and nowhere else (law: one source).
 */
MUSTCHECK enum stop cpu_exec(struct cpu *cpu, const struct insn *i, struct env *e);

/*
 * Deliver cpu->exc (raised by the instruction at cpu->rip), an interrupt or NMI through
 * the IDT/IVT, with double and triple fault rules (SDM 3A 6.15). STOP_OK: the guest is
 * at its handler. STOP_LEAVE: LEAVE_SHUTDOWN, LEAVE_VECTORING, LEAVE_FAIL in cpu->leave.
 */
enum event_type { EVENT_EXC, EVENT_IRQ, EVENT_NMI, EVENT_SOFT };
MUSTCHECK enum stop cpu_deliver(struct cpu *cpu, enum event_type type, const struct exception *x);

/*
 * Whoever completed an instruction outside cpu_run (emul_run: EMUL_DONE) calls this once:
 * counts it, ends the interrupt shadow, queues the traps of TF and breakpoints behind it.
 */
void cpu_retire(struct cpu *cpu, bool tf); /* tf: EFLAGS.TF before the instruction */

/* SMM entry: save state, enter the handler. */
MUSTCHECK enum stop cpu_enter_smm(struct cpu *cpu);
void cpu_pend_smi(struct cpu *cpu);
/* Change the mode alone, registers as they are (KVM_SET_VCPU_EVENTS). Outside cpu_run and detached. */
void cpu_set_smm(struct cpu *cpu, bool on);

/* Raise: fill cpu->exc, return STOP_EXC. */
enum stop cpu_raise(struct cpu *cpu, u8 vector);
enum stop cpu_raise_error(struct cpu *cpu, u8 vector, u32 error);
static inline enum stop cpu_ud(struct cpu *cpu)
{
	return cpu_raise(cpu, EXC_UD);
}
static inline enum stop cpu_gp(struct cpu *cpu, u32 error)
{
	return cpu_raise_error(cpu, EXC_GP, error);
}
/* The instruction cannot be emulated: why is static text. */
enum stop cpu_fail(struct cpu *cpu, const char *why);

/* Whole EFLAGS in and out. cpu_set_eflags takes all bits as given and updates what depends on them. */
u64 cpu_eflags(const struct cpu *cpu);
void cpu_set_eflags(struct cpu *cpu, u64 v);
u64 eflags_to_image(u64 eflags);   /* arithmetic bits -> FI_* image */
u64 image_to_eflags(u64 image);

/*
 * Call after any change of CR0, CR3, CR4, EFER, PKRU, CS, SS, CPL, EFLAGS.AC/IF/TF/VM, DR7,
 * SMM, segment bases: recomputes mode, flat, ea_base, data_tlb, request_mask, REQ_STEP.
 * paging: the paging registers may have changed too (hands them to mmu/).
 */
void cpu_update(struct cpu *cpu);
void cpu_update_paging(struct cpu *cpu, bool keep_global);

static inline enum mmu_attr cpu_data_attr(const struct cpu *cpu)
{
	return cpu->cpl == 3 ? MMU_USER : cpu->eflags & EFL_AC ? MMU_KERNEL_AC : MMU_KERNEL;
}
static inline bool cpu_real(const struct cpu *cpu) { return !(cpu->cr0 & CR0_PE); }
static inline bool cpu_v86(const struct cpu *cpu) { return cpu->eflags & EFL_VM; }
static inline bool cpu_prot(const struct cpu *cpu) { return !cpu_real(cpu) && !cpu_v86(cpu); }
static inline u8 cpu_iopl(const struct cpu *cpu) { return (cpu->eflags >> 12) & 3; }

/* Does somebody look at each iteration of a REP: TF, breakpoints, a debugger? (RF and shadows do not.) */
bool cpu_stops_each(const struct cpu *cpu);

/* Must a REP end behind the current iteration? It is entered again for the rest. */
static inline bool cpu_rep_must_end(const struct cpu *cpu)
{
	u32 request = cpu->request & cpu->request_mask & ~REQ_COUNT;

	return unlikely(request) && (request != REQ_STEP || cpu_stops_each(cpu));
}

/* Set and clear request bits; any thread may set. */
static inline void cpu_request(struct cpu *cpu, u32 bits)
{
	__atomic_fetch_or((u32 *)&cpu->request, bits, __ATOMIC_SEQ_CST);
}
static inline void cpu_unrequest(struct cpu *cpu, u32 bits)
{
	__atomic_fetch_and((u32 *)&cpu->request, ~bits, __ATOMIC_SEQ_CST);
}

/* Guest TSC now. */
u64 cpu_tsc(struct cpu *cpu);

/*
 * RDMSR and WRMSR without the instruction: the processor's own MSRs (msrs.def and EFER, FS/GS base,
 * TSC read), all others through ops. STOP_EXC: #GP.
 */
MUSTCHECK enum stop cpu_rdmsr(struct cpu *cpu, u32 index, u64 *value);
MUSTCHECK enum stop cpu_wrmsr(struct cpu *cpu, u32 index, u64 value);

#endif
