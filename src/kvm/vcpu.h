/* SPDX-License-Identifier: MIT */
/*
 * One vCPU: the processor, its LAPIC, the shared kvm_run pages and the state that KVM adds.
 * Belongs to its VM and is freed with it; the descriptor only keeps the VM alive.
 */
#ifndef ANYKVM_KVM_VCPU_H
#define ANYKVM_KVM_VCPU_H

#include "cpu/cpu.h"
#include "emul/emul.h"
#include "kvm/vm.h"

#include <setjmp.h>

#define VCPU_PAGES 3 /* kvm_run, port I/O data, coalesced ring */
#define NR_MC_BANKS 32
#define MCG_CAP_SUPPORTED (BIT(24) | BIT(8)) /* SER_P, CTL_P; the bank count is the client's */
#define GUESTDBG_VALID                                                                      \
	(KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_USE_HW_BP |           \
	 KVM_GUESTDBG_USE_SW_BP | KVM_GUESTDBG_INJECT_BP | KVM_GUESTDBG_INJECT_DB |         \
	 KVM_GUESTDBG_BLOCKIRQ)
#define KVM_CLOCK_VALID_FLAGS \
	(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

/* vcpu->todo: atomic; what another thread asks of the owner. */
#define TODO_INIT  (1u << 0)
#define TODO_SIPI  (1u << 1)
#define TODO_CLOCK (1u << 2) /* write the kvmclock page anew */
#define TODO_SMI   (1u << 3)

enum msr_slot {
#define MSR(index, name, flags, reset, wmask) MSR_SLOT_##name,
#include "kvm/msrs.def"
	NR_MSR_SLOTS,
};

struct vcpu {
	struct cpu cpu;	  /* owner: whoever holds the mutex */
	struct emul emul; /* likewise */
	struct object obj;

	/* set at creation */
	struct vm *vm;
	u32 id;	   /* KVM's vcpu_id = APIC ID */
	u32 index; /* number in vm->vcpu[] and in irq/ */
	bool bsp;
	struct lapic *lapic;  /* NULL: no in-kernel APIC */
	struct kvm_run *run;  /* our own alias: survives the client's munmap */
	u8 *pio_data;	      /* page 1 of it */

	pthread_mutex_t mutex; /* one ioctl at a time; all below */
	struct cpu_exit exit;
	enum emul_result emulated; /* LEAVE_EMULATED */
	u32 mp_state;
	u8 sipi_vector;
	int ext_vector; /* KVM_INTERRUPT with a split irqchip; -1 none */
	u64 apic_base;	/* without in-kernel APIC */
	u8 cr8;		/* likewise */
	bool has_run;
	int eoi_exit; /* vector for KVM_EXIT_IOAPIC_EOI; -1 none */
	struct kvm_cpuid_entry2 *cpuid; /* as given to KVM_SET_CPUID2 */
	u32 nr_cpuid;
	u64 msr[NR_MSR_SLOTS]; /* plain MSRs */
	u64 mtrr_fixed[11], mtrr_var[2 * NR_VARIABLE_MTRR];
	u64 mcg_cap, mc_bank[NR_MC_BANKS][4];
	struct kvm_guest_debug debug;
	bool tpr_reporting;
	struct msr_wait { /* a guest's RDMSR or WRMSR is with the client (msr_filter.c) */
		bool active, write;
		u8 len;
		u32 reason; /* KVM_MSR_EXIT_REASON_* */
		u64 rip;
	} msr_wait;
	struct dirty_ring { /* KVM_CAP_DIRTY_LOG_RING */
		struct kvm_dirty_gfn *gfn; /* our alias; the client writes to it, too */
		u32 size;		   /* entries, a power of two; 0: no ring */
		u32 next;		   /* atomic: to be written next; by the owner */
		u32 reset;		   /* atomic: to be reset next; under slots_lock */
		u32 nr_aside;
		struct kvm_dirty_gfn *aside; /* for which there was no room */
	} dirty;
	u64 sigmask; /* KVM_SET_SIGNAL_MASK: bit n - 1 = signal n */
	bool has_sigmask;

	/* guest time: guest TSC = host TSC * tsc_ratio / 2^48 + tsc_offset */
	bool enforce_pv; /* KVM_CAP_ENFORCE_PV_FEATURE_CPUID */
	u32 tsc_khz;
	u64 tsc_ratio, tsc_offset;
	u64 tsc_adjust;
	u64 time_msr, wall_msr, steal_msr;
	gpa_t time_page;  /* kvmclock page of this vCPU */
	bool time_on, time_stopped;
	u32 time_version;
	struct steal {
		u32 tid;
		u64 run_delay; /* of that thread, in ns, when last read ... */
		u64 read_at;   /* ... at this host TSC */
	} steal;

	/* any thread, atomic */
	u32 todo;	/* TODO_* */
	u32 nmi_queued; /* NMIs not yet given to the processor: 0..2 */
	u32 seq;	/* odd: in the guest, with a memory snapshot. Counts up at each enter and leave */
	u32 seq_waiters;
	u32 asleep;	/* waits on wake_fd */
	bool ends_anywhere; /* the thread in KVM_RUN may be cancelled anywhere (signal.c) */
	u32 signalled;	/* a signal handler ran on the thread since KVM_RUN began */
	int wake_fd;	/* eventfd; -1 until first needed */

	/* a fault in guest memory: the way out of KVM_RUN (fault.c). Owner thread */
	jmp_buf fault_exit;
	u16 host_fcw;
	bool fault_lost; /* the instruction could not be found */

	struct vcpu_stats {
		u64 exits, signal_exits, irq_window_exits, halt_exits, halt_wakeup, halt_wait_ns;
		u64 hypercalls, irq_injections, nmi_injections, request_irq_exits;
		u64 directed_yield_attempted, directed_yield_successful;
	} stats;
	struct stats_page *stats_page; /* NULL until KVM_GET_STATS_FD */
	struct live_stats *live; /* in our memfd, for other processes (stats.c) */
	u32 runs_unseen; /* KVM_RUNs since it was written; owner */
};

static inline struct vcpu *vcpu_of(struct cpu *cpu)
{
	return cpu->opaque;
}

/* KVM_CREATE_VCPU: descriptor or -errno. */
int vcpu_create(struct vm *vm, u64 id);
void vcpu_free(struct vcpu *v); /* from vm_put, or after a failed creation */

/* Into the guest: newest memory snapshot; 0 or -ENOMEM. Out of it: none. Owner. */
MUSTCHECK int vcpu_enter(struct vcpu *v);
void vcpu_leave(struct vcpu *v);

/* Another thread has work for this vCPU: set request bits (REQ_*) and wake it from a wait. */
void vcpu_kick(struct vcpu *v, u32 requests);
void vcpu_ask(struct vcpu *v, u32 todo);
void vcpu_queue_nmi(struct vcpu *v);

/* Reset by INIT or by KVM's own creation. Owner. */
void vcpu_reset(struct vcpu *v, bool init);

/* KVM_RUN. */
int vcpu_run(struct vcpu *v);

/* run.c <-> signal.c: waits; the time during which signals interrupt us */
/* stats.c: statistics for other processes. Owner: now; after a KVM_RUN, if it is time. */
size_t live_stats_size(void);
void live_stats_write(struct vcpu *v);
void live_stats_after_run(struct vcpu *v);
/* Event thread: does somebody look, so that vCPUs in the guest should write theirs? */
bool live_stats_due(struct vm *vm);

int vcpu_wait(struct vcpu *v, bool (*ready)(struct vcpu *v)); /* 0 or -EINTR */
bool vcpu_interrupted(struct vcpu *v);
void vcpu_set_running(struct vcpu *v); /* this thread is in KVM_RUN of v; NULL: of none */
extern __thread bool thread_ends_anywhere __attribute__((tls_model("initial-exec")));
void vcpu_may_end(struct vcpu *v); /* outside the guest: if the thread is cancelled, it ends here */
struct vcpu *vcpu_running(void);
void vcpu_watch(struct vcpu *v);
void vm_watch_fire(struct irq_timer *t);

/* fault.c: remember what KVM_RUN's host state must be; tidy up after a fault: -EFAULT */
void fault_prepare(struct vcpu *v);
int fault_finish(struct vcpu *v);

/* Is there an interrupt or event that ends a wait? Owner. */
bool vcpu_has_interrupt(struct vcpu *v);
bool vcpu_can_take_irq(struct vcpu *v); /* IF and no shadow */
bool vcpu_ready_for_injection(struct vcpu *v);

/* cpu_ops.c */
extern const struct cpu_ops vcpu_cpu_ops;
extern const struct emul_bus vcpu_bus; /* opaque is to be set */
u64 vcpu_tsc(struct vcpu *v, u64 host_tsc);
u64 vcpu_get_cr8(struct vcpu *v);
void vcpu_set_cr8(struct vcpu *v, u64 cr8);
u64 vcpu_get_apic_base(struct vcpu *v);
MUSTCHECK bool vcpu_set_apic_base(struct vcpu *v, u64 base, bool host);

/* msr.c; host: by ioctl, not by the guest. false = no such MSR or a bad value. */
void vcpu_msr_reset(struct vcpu *v, bool init);
MUSTCHECK bool vcpu_msr_get(struct vcpu *v, u32 index, u64 *value, bool host);
MUSTCHECK bool vcpu_msr_set(struct vcpu *v, u32 index, u64 value, bool host);
bool vcpu_msr_known(u32 index);

/* msr_filter.c */
bool vcpu_msr_allowed(struct vcpu *v, u32 index, bool write);
bool vcpu_msr_exits(struct vcpu *v, u32 reason); /* ... to the client, when refused for this reason */
int vcpu_exit_msr(struct vcpu *v);
MUSTCHECK bool vcpu_complete_msr(struct vcpu *v); /* false: cpu.leave says what came of it */

/* clock.c */
void vcpu_tsc_init(struct vcpu *v);
int vcpu_set_tsc_khz(struct vcpu *v, u32 khz);
void vcpu_set_tsc(struct vcpu *v, u64 value, bool host);
void vcpu_write_time(struct vcpu *v);	   /* kvmclock page, if on. Between enter and leave */
/* Guest RAM, for the vCPU's own thread, in the guest or out of it. false: no RAM. */
bool vcpu_guest_read(struct vcpu *v, gpa_t where, void *data, size_t n);
bool vcpu_guest_write(struct vcpu *v, gpa_t where, const void *data, size_t n);

/* steal.c */
void vcpu_steal_on(struct vcpu *v); /* the MSR was written */
void vcpu_steal(struct vcpu *v);    /* KVM_RUN begins */
void vm_write_wall_clock(struct vcpu *v, gpa_t where);

/* cpuid.c */
void vcpu_cpuid_changed(struct vcpu *v);
bool vcpu_cpuid_bit(struct vcpu *v, u32 leaf, u32 subleaf, unsigned int reg, unsigned int bit);
bool vcpu_has_pv(struct vcpu *v, unsigned int feature); /* KVM_FEATURE_* */
bool supported_cpuid_bit(u32 leaf, u32 subleaf, unsigned int reg, unsigned int bit);
u32 host_maxphyaddr(void); /* of guests: min(host, 46) */
u64 supported_xcr0(void);

/* regs.c */
void regs_get(struct vcpu *v, struct kvm_regs *r);
void regs_set(struct vcpu *v, const struct kvm_regs *r);
void sregs_get(struct vcpu *v, struct kvm_sregs *s);
int sregs_set(struct vcpu *v, const struct kvm_sregs *s);
void events_get(struct vcpu *v, struct kvm_vcpu_events *e);
int events_set(struct vcpu *v, const struct kvm_vcpu_events *e);
void debug_changed(struct vcpu *v);

/* dirty_ring.c */
int dirty_ring_init(struct vcpu *v); /* 0 or -ENOMEM */
void dirty_ring_free(struct vcpu *v);
void vcpu_dirtied(struct vcpu *v, unsigned int space, u16 slot, u64 page);
void dirty_ring_catch_up(struct vcpu *v);
bool dirty_ring_full(struct vcpu *v);

/* stats.c */
void vcpu_publish_stats(struct vcpu *v);

#endif
