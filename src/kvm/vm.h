/* SPDX-License-Identifier: MIT */
/*
 * One virtual machine. It lives until its descriptor, its vCPUs' descriptors and its
 * statistics descriptors are gone. Read kvm/object.h before, kvm/vcpu.h after.
 */
#ifndef ANYKVM_KVM_VM_H
#define ANYKVM_KVM_VM_H

#include "irq/irq.h"
#include "kvm/object.h"
#include "mem/iobus.h"
#include "mem/mem.h"

#include <linux/kvm.h>
#include <pthread.h>

#define VM_VCPUS_MAX	1024 /* KVM_CAP_MAX_VCPUS */
#define VM_VCPU_IDS_MAX 4096 /* KVM_CAP_MAX_VCPU_ID */
#define VM_SLOTS_MAX	MEM_SLOTS_MAX
#define VM_SPACES	MEM_SPACES /* KVM_CAP_MULTI_ADDRESS_SPACE: normal, SMM */

#define DISABLE_EXITS_VALID                                                      \
	(KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE | KVM_X86_DISABLE_EXITS_CSTATE)
#define QUIRKS_VALID                                                             \
	(KVM_X86_QUIRK_LINT0_REENABLED | KVM_X86_QUIRK_CD_NW_CLEARED |           \
	 KVM_X86_QUIRK_LAPIC_MMIO_HOLE | KVM_X86_QUIRK_OUT_7E_INC_RIP |          \
	 KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT | KVM_X86_QUIRK_FIX_HYPERCALL_INSN | \
	 KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS)

struct vcpu;
struct counted;
struct event_thread;
struct irqfd;
struct ioeventfd;
struct coalesced;
struct msr_filter;

/* kvmclock: guest nanoseconds as a linear function of the host's TSC (kvm/clock.c). */
struct vm_clock {
	u64 base_tsc; /* host TSC ... */
	u64 base_ns;  /* ... at which kvmclock showed this */
};

struct vm {
	struct object obj;
	u32 refs;	/* atomic: open objects that belong to the VM */
	const u32 *mine; /* 1 in the process that made the VM, 0 in its forked children */
	bool dead;	/* atomic: VM_BUG_ON fired, every ioctl is -EIO */

	/* set at creation */
	struct mem *mem;
	struct iobus *mmio, *pio;
	struct event_thread *events;
	struct counted *counted; /* NULL: guest time is the host's (kvm/counted.h) */
	struct kvm_coalesced_mmio_ring *ring; /* one page, shared with all clients: page 2 of vCPU maps */

	/*
	 * Memslot changes, dirty log. Held while waiting for vCPUs to leave the guest: no
	 * thread takes it between vcpu_enter and vcpu_leave.
	 */
	pthread_mutex_t slots_lock;
	struct msr_filter *msr_filter; /* atomic pointer; NULL: all allowed */
	u32 msr_exits; /* atomic: KVM_CAP_X86_USER_SPACE_MSR */
	u64 manual_dirty; /* KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 flags */

	pthread_mutex_t lock; /* all below */
	struct irqchip *chip; /* atomic pointer; once set, for good */
	u32 nr_vcpus;
	struct vcpu *vcpu[VM_VCPUS_MAX]; /* by creation; pointers are atomic, for good */
	u32 boot_cpu_id;
	u64 tss_addr, identity_map;
	u64 max_vcpu_id;
	u32 tsc_khz;	 /* of vCPUs to be created */
	u64 tsc_offset;	 /* last one that a vCPU's TSC was set to */
	bool tsc_set;	 /* ... by a client, not by creation */
	struct vm_clock clock;
	struct ioeventfd *ioeventfds;
	u32 doorbells; /* atomic: zero-length MMIO ones among them */
	struct coalesced *zones;
	u64 disabled_quirks;
	u64 dirty_ring_bytes; /* of each vCPU; 0: no dirty rings */
	bool exception_payload, triple_fault_event, exit_on_fail;
	bool keep_hlt; /* KVM_CAP_X86_DISABLE_EXITS: HLT waits in KVM_RUN without a LAPIC, too */
	bool hide_platform_info; /* KVM_CAP_MSR_PLATFORM_INFO was switched off */

	pthread_mutex_t irqfds_lock;
	struct irqfd *irqfds;

	pthread_mutex_t ring_lock; /* writes to the coalesced ring */

	u64 log_budget; /* atomic: second << 8 | lines in it (vm_may_log) */
	bool stats_written; /* atomic: to the file ANYKVM_STATS */
	u32 watching; /* atomic: the watch timer is armed (kvm/signal.c) */
	struct irq_timer watch;
	u64 live_due; /* when to look next whether somebody looks at the statistics; event thread */
};

/* KVM_CREATE_VM: descriptor or -errno. */
int vm_create(void);

static inline void vm_get(struct vm *vm)
{
	__atomic_fetch_add(&vm->refs, 1, __ATOMIC_RELAXED);
}
void vm_put(struct vm *vm);

/* We are wrong about this VM: say so once; it answers -EIO from now on. */
void vm_bug(struct vm *vm, const char *what);
#define VM_BUG_ON(cond, vm) (unlikely(cond) ? (vm_bug(vm, #cond), true) : false)

/* May a message that the guest has caused be printed? A few in a second for each VM. */
bool vm_may_log(struct vm *vm);

/* vCPU by creation number, or NULL; by KVM's id, or NULL. Any thread. */
struct vcpu *vm_vcpu(struct vm *vm, unsigned int index);
struct vcpu *vm_vcpu_by_id(struct vm *vm, u32 id);
static inline struct irqchip *vm_chip(struct vm *vm)
{
	return __atomic_load_n(&vm->chip, __ATOMIC_ACQUIRE);
}
static inline bool vm_has_pic(struct vm *vm)
{
	struct irqchip *c = vm_chip(vm);

	return c && !irqchip_is_split(c);
}

/*
 * Make every vCPU that is in the guest leave it or take the newest memory snapshot; with
 * `flush`, also drop its write translations. Returns when all have. Under slots_lock.
 */
void vm_sync_vcpus(struct vm *vm, bool flush);

/* dirty_ring.c */
#define DIRTY_RING_BYTES_MAX (65536 * sizeof(struct kvm_dirty_gfn))
long vm_enable_dirty_ring(struct vm *vm, u64 bytes);

/* msr_filter.c */
void msr_filter_free(struct msr_filter *f);
long vm_set_msr_exits(struct vm *vm, u64 reasons);

/* stats.c: to ANYKVM_STATS, once */
void vm_write_stats(struct vm *vm);

/* irqchip.c */
extern const struct irqchip_ops vm_irqchip_ops;
/* irqfd.c, ioeventfd.c, coalesced.c: at the VM's end */
void irqfds_free(struct vm *vm);
void irqfd_acked(struct vm *vm, unsigned int gsi);
void ioeventfds_free(struct vm *vm);
void coalesced_free(struct vm *vm);

/* clock.c */
u32 host_tsc_khz(void);	      /* calibrated once */
bool host_tsc_invariant(void);
bool host_time_counted(void); /* ANYKVM_CLOCK=instructions */
u64 mono_ns(void);	      /* CLOCK_MONOTONIC */
/* What the VM's time is made from: the host's TSC and clocks, or counted time. Any thread. */
u64 vm_tsc(const struct vm *vm); /* rdtsc, or its stand-in where the TSC is not invariant */
u64 vm_mono_ns(const struct vm *vm);
void vm_clock_init(struct vm *vm);
u64 vm_clock_ns(const struct vm *vm, u64 host_tsc); /* kvmclock at that time */

#endif
