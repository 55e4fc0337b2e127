// SPDX-License-Identifier: MIT
/*
 * A vCPU: its CPUID and start-up state, its thread, and what is done with each
 * exit of KVM_RUN. The first vCPU starts at the kernel's entry point (set by
 * boot.c), the others wait in KVM for INIT and SIPI.
 */
#include "vmm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define KICK_SIGNAL SIGUSR1
/* SDM 4, table 2-2 */
#define MSR_MISC_ENABLE	  0x1a0
#define MSR_MTRR_DEF_TYPE 0x2ff

static _Thread_local struct kvm_run *my_run;

static void on_kick(int sig)
{
	(void)sig;
	if (my_run)
		__atomic_store_n(&my_run->immediate_exit, 1, __ATOMIC_RELEASE);
}

void vcpu_kick_setup(void)
{
	struct sigaction sa = {.sa_handler = on_kick};

	sigaction(KICK_SIGNAL, &sa, NULL);
}

/*
 * The flag alone would not wake a KVM that sleeps in HLT; the signal alone
 * could arrive before the thread has entered KVM_RUN.
 */
void vcpu_kick(struct vcpu *v)
{
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_RELEASE);
	pthread_kill(v->thread, KICK_SIGNAL);
}

/* Bits that number n things. */
static int bits_for(int n)
{
	int b = 0;

	while (1 << b < n)
		b++;
	return b;
}

/* Extended topology (SDM 2A CPUID, leaf 0BH): one thread a core, all cores in one package. */
static void cpuid_topology(struct kvm_cpuid_entry2 *e, int id, int cpus)
{
	e->eax = e->ebx = 0;
	e->ecx = e->index;
	e->edx = id;
	if (e->index == 0) {
		e->ebx = 1;
		e->ecx |= 1 << 8;
	} else if (e->index == 1) {
		e->eax = bits_for(cpus);
		e->ebx = cpus;
		e->ecx |= 2 << 8;
	}
}

/* Puts what depends on the vCPU into one leaf. */
static void cpuid_patch(struct kvm_cpuid_entry2 *e, int id, int cpus, bool deadline)
{
	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0xffff) | 1u << bits_for(cpus) << 16 | (u32)id << 24;
		e->edx = (e->edx & ~(1u << 28)) | (u32)(cpus > 1) << 28; /* HTT */
		if (deadline)
			e->ecx |= 1 << 24; /* KVM_GET_SUPPORTED_CPUID leaves this one to us */
		break;
	case 4: /* deterministic cache parameters: cores in the package */
		e->eax = (e->eax & 0x03ffffff) | ((1u << bits_for(cpus)) - 1) << 26;
		break;
	case 0xb:
	case 0x1f:
		cpuid_topology(e, id, cpus);
		break;
	case 0x80000008: /* APM 3 E.4.7: cores in the package */
		e->ecx = (e->ecx & ~0xf0ffu) | (u32)bits_for(cpus) << 12 | (cpus - 1);
		break;
	case 0x8000001e: /* APM 3 E.4.17 */
		e->eax = id;
		e->ebx = id & 0xff;
		e->ecx = 0;
		break;
	}
}

static int set_cpuid(struct vcpu *v)
{
	struct machine *m = v->m;
	size_t len = sizeof(*m->cpuid) + m->cpuid->nent * sizeof(m->cpuid->entries[0]);
	struct kvm_cpuid2 *c = malloc(len);
	bool deadline;
	u32 i;
	int r;

	if (!c)
		return vmm_error("no memory");
	memcpy(c, m->cpuid, len);
	deadline = m->api->ioctl(m->sys, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	for (i = 0; i < c->nent; i++)
		cpuid_patch(&c->entries[i], v->id, m->cpus, deadline);
	r = m->api->ioctl(v->fd, KVM_SET_CPUID2, c);
	if (r < 0)
		vmm_error("KVM_SET_CPUID2: %s", strerror(errno));
	free(c);
	return r < 0 ? -1 : 0;
}

/*
 * What firmware would have set: fast strings, MTRRs on with write-back for all.
 * A KVM without these MSRs runs Linux as well, so a refusal is no error.
 */
static void set_msrs(struct vcpu *v)
{
	union {
		struct kvm_msrs msrs;
		u8 room[sizeof(struct kvm_msrs) + 2 * sizeof(struct kvm_msr_entry)];
	} u = {.msrs.nmsrs = 2};

	u.msrs.entries[0] = (struct kvm_msr_entry){.index = MSR_MISC_ENABLE, .data = 1};
	u.msrs.entries[1] = (struct kvm_msr_entry){.index = MSR_MTRR_DEF_TYPE,
						   .data = 1 << 11 | 6};
	(void)v->m->api->ioctl(v->fd, KVM_SET_MSRS, &u);
}

int vcpu_create(struct vcpu *v, struct machine *m, int id)
{
	int len = m->api->ioctl(m->sys, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *p;

	v->m = m;
	v->id = id;
	v->fd = m->api->ioctl(m->vm, KVM_CREATE_VCPU, (unsigned long)id);
	if (v->fd < 0)
		return vmm_error("KVM_CREATE_VCPU %d: %s", id, strerror(errno));
	if (len < (int)sizeof(*v->run))
		return vmm_error("KVM_GET_VCPU_MMAP_SIZE: %d", len);
	p = m->api->mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (p == MAP_FAILED)
		return vmm_error("cannot map vCPU %d: %s", id, strerror(errno));
	v->run = p;
	v->run_len = len;
	if (set_cpuid(v) < 0)
		return -1;
	set_msrs(v);
	return 0;
}

void vcpu_destroy(struct vcpu *v)
{
	if (v->run)
		v->m->api->munmap(v->run, v->run_len);
	if (v->fd >= 0)
		v->m->api->close(v->fd);
}

const char *vcpu_exit_name(unsigned int reason)
{
	static const char *const names[EXIT_KINDS] = {
		[KVM_EXIT_UNKNOWN] = "unknown", [KVM_EXIT_EXCEPTION] = "exception",
		[KVM_EXIT_IO] = "io", [KVM_EXIT_HYPERCALL] = "hypercall",
		[KVM_EXIT_DEBUG] = "debug", [KVM_EXIT_HLT] = "hlt", [KVM_EXIT_MMIO] = "mmio",
		[KVM_EXIT_IRQ_WINDOW_OPEN] = "irq_window", [KVM_EXIT_SHUTDOWN] = "shutdown",
		[KVM_EXIT_FAIL_ENTRY] = "fail_entry", [KVM_EXIT_INTR] = "intr",
		[KVM_EXIT_SET_TPR] = "set_tpr", [KVM_EXIT_TPR_ACCESS] = "tpr_access",
		[KVM_EXIT_NMI] = "nmi", [KVM_EXIT_INTERNAL_ERROR] = "internal_error",
		[KVM_EXIT_SYSTEM_EVENT] = "system_event", [KVM_EXIT_IOAPIC_EOI] = "ioapic_eoi",
		[KVM_EXIT_X86_RDMSR] = "rdmsr", [KVM_EXIT_X86_WRMSR] = "wrmsr",
		[EXIT_KINDS - 1] = "other",
	};

	return reason < EXIT_KINDS ? names[reason] : NULL;
}

static u64 get_rip(struct vcpu *v)
{
	struct kvm_regs r;

	return v->m->api->ioctl(v->fd, KVM_GET_REGS, &r) < 0 ? 0 : r.rip;
}

static void exit_io(struct vcpu *v)
{
	struct kvm_run *r = v->run;
	u8 *data = (u8 *)r + r->io.data_offset;
	u32 i;

	for (i = 0; i < r->io.count; i++)
		bus_port(v->m, r->io.port, r->io.direction == KVM_EXIT_IO_OUT,
			 data + i * r->io.size, r->io.size);
}

/* No device of ours is memory-mapped. */
static void exit_mmio(struct vcpu *v)
{
	if (!v->run->mmio.is_write)
		memset(v->run->mmio.data, 0xff, sizeof(v->run->mmio.data));
}

/* The bytes at RIP as text: KVM's own, else what memory holds there. */
static void insn_text(struct vcpu *v, u64 rip, char *text)
{
	struct kvm_run *r = v->run;
	struct kvm_translation t = {.linear_address = rip};
	const u8 *bytes = NULL;
	u32 n = 0, i;

	if (r->emulation_failure.suberror == KVM_INTERNAL_ERROR_EMULATION &&
	    r->emulation_failure.ndata >= 3 &&
	    r->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) {
		bytes = r->emulation_failure.insn_bytes;
		n = r->emulation_failure.insn_size;
	}
	if (!n && v->m->api->ioctl(v->fd, KVM_TRANSLATE, &t) == 0 && t.valid) {
		n = 4096 - t.physical_address % 4096;
		bytes = ram_at(&v->m->ram, t.physical_address, n);
	}
	*text = 0;
	for (i = 0; bytes && i < n && i < 15; i++)
		text += sprintf(text, " %02x", bytes[i]);
}

static void exit_internal(struct vcpu *v)
{
	u64 rip = get_rip(v);
	char bytes[15 * 3 + 1];

	insn_text(v, rip, bytes);
	machine_end(v->m, END_INTERNAL,
		    "KVM internal error %u on vCPU %d at RIP %#llx, instruction bytes%s",
		    v->run->internal.suberror, v->id, (unsigned long long)rip,
		    *bytes ? bytes : " unknown");
}

static void exit_system_event(struct vcpu *v)
{
	u32 type = v->run->system_event.type;

	if (type == KVM_SYSTEM_EVENT_SHUTDOWN)
		machine_end(v->m, END_POWEROFF, "%s", "");
	else if (type == KVM_SYSTEM_EVENT_RESET)
		machine_end(v->m, END_RESTART, "%s", "");
	else
		machine_end(v->m, END_INTERNAL, "the guest crashed (system event %u)", type);
}

static void handle_exit(struct vcpu *v)
{
	struct machine *m = v->m;
	u32 reason = v->run->exit_reason;

	v->exits[vcpu_exit_name(reason) ? reason : EXIT_KINDS - 1]++;
	switch (reason) {
	case KVM_EXIT_IO:
		exit_io(v);
		break;
	case KVM_EXIT_MMIO:
		exit_mmio(v);
		break;
	case KVM_EXIT_INTR:
		break;
	case KVM_EXIT_SHUTDOWN:
		machine_end(m, END_TRIPLE, "guest triple fault on vCPU %d at RIP %#llx", v->id,
			    (unsigned long long)get_rip(v));
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		exit_system_event(v);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		exit_internal(v);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		machine_end(m, END_INTERNAL, "KVM cannot enter the guest: hardware reason %#llx",
			    (unsigned long long)v->run->fail_entry.hardware_entry_failure_reason);
		break;
	default:
		machine_end(m, END_INTERNAL, "unexpected KVM exit %u on vCPU %d at RIP %#llx",
			    reason, v->id, (unsigned long long)get_rip(v));
	}
}

void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	struct machine *m = v->m;
	int r, err;

	my_run = v->run;
	while (m->end == END_NOT) {
		r = m->api->ioctl(v->fd, KVM_RUN, 0);
		err = errno;
		/* EINTR: a signal; EAGAIN: an INIT or SIPI arrived at a waiting processor */
		if (r < 0 && (err == EINTR || err == EAGAIN))
			continue;
		pthread_mutex_lock(&m->lock);
		if (r < 0)
			machine_end(m, END_FAILURE, "KVM_RUN on vCPU %d at RIP %#llx: %s", v->id,
				    (unsigned long long)get_rip(v), strerror(err));
		else
			handle_exit(v);
		pthread_mutex_unlock(&m->lock);
	}
	my_run = NULL;
	return NULL;
}
