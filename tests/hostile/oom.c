// SPDX-License-Identifier: MIT
/*
 * Item 38: every allocation fails once. The library's calls of the functions below are wrapped at
 * link time (hostile.mk); the n-th fails, for n = 1, 2, ... until one whole life of a machine
 * makes fewer. Each call then fails cleanly or works; nothing is leaked, nothing dies.
 */
#include "modes.h"

#include "../api/process.h"

#include <stdarg.h>
#include <sys/eventfd.h>

static int left = -1, calls; /* < 0: none fails */
static const char *failing;

/* Atomic: the event thread allocates too. */
static bool fails(const char *what)
{
	__atomic_fetch_add(&calls, 1, __ATOMIC_RELAXED);
	if (__atomic_load_n(&left, __ATOMIC_RELAXED) < 0)
		return false;
	if (__atomic_sub_fetch(&left, 1, __ATOMIC_RELAXED) != -1)
		return false;
	failing = what;
	errno = ENOMEM;
	return true;
}

#define WRAP(type, name, bad, params, args)      \
	type __real_##name params;               \
	type __wrap_##name params;               \
	type __wrap_##name params                \
	{                                        \
		return fails(#name) ? (bad) : __real_##name args; \
	}

WRAP(void *, malloc, NULL, (size_t n), (n))
WRAP(void *, calloc, NULL, (size_t n, size_t size), (n, size))
WRAP(void *, realloc, NULL, (void *p, size_t n), (p, n))
WRAP(void *, aligned_alloc, NULL, (size_t a, size_t n), (a, n))
WRAP(void *, mmap, MAP_FAILED, (void *p, size_t n, int prot, int flags, int fd, off_t off),
     (p, n, prot, flags, fd, off))
WRAP(int, memfd_create, -1, (const char *name, unsigned int flags), (name, flags))
WRAP(int, eventfd, -1, (unsigned int count, int flags), (count, flags))
WRAP(int, epoll_create1, -1, (int flags), (flags))
WRAP(int, timerfd_create, -1, (int clock, int flags), (clock, flags))
WRAP(int, ftruncate, -1, (int fd, off_t size), (fd, size))

int __real_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *a, void *(*f)(void *), void *arg)
{
	return fails("pthread_create") ? EAGAIN : __real_pthread_create(t, a, f, arg);
}

/* ---- a machine's life, all of it */

static uint8_t *ram;

static bool step(const char *what, long r)
{
	if (r >= 0)
		return true;
	check(errno == ENOMEM || errno == EAGAIN || errno == EMFILE, what, errno, ENOMEM);
	return false;
}

static bool configure_vm(int vm)
{
	struct kvm_userspace_memory_region r = {.flags = KVM_MEM_LOG_DIRTY_PAGES, .memory_size = RAM,
						.userspace_addr = (uint64_t)ram};
	struct kvm_coalesced_mmio_zone z = {.addr = 0x10000, .size = 0x100};
	struct kvm_pit_config pit = {0};
	struct {
		struct kvm_irq_routing h;
		struct kvm_irq_routing_entry e;
	} routes = {{.nr = 1}, {.gsi = 3, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {2, 3}}};

	return step("memory", api->ioctl(vm, KVM_SET_USER_MEMORY_REGION, &r)) &&
	       step("irqchip", api->ioctl(vm, KVM_CREATE_IRQCHIP, 0)) &&
	       step("PIT", api->ioctl(vm, KVM_CREATE_PIT2, &pit)) &&
	       step("routes", api->ioctl(vm, KVM_SET_GSI_ROUTING, &routes)) &&
	       step("zone", api->ioctl(vm, KVM_REGISTER_COALESCED_MMIO, &z));
}

static bool add_events(int vm, int fd)
{
	struct kvm_ioeventfd e = {.addr = 0x30, .len = 1, .fd = fd, .flags = KVM_IOEVENTFD_FLAG_PIO};
	struct kvm_irqfd irq = {.fd = fd, .gsi = 3};

	return step("ioeventfd", api->ioctl(vm, KVM_IOEVENTFD, &e)) &&
	       step("irqfd", api->ioctl(vm, KVM_IRQFD, &irq));
}

static bool run_vcpu(int vcpu, struct kvm_run *run)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rsp = 0x800};
	struct kvm_sregs s;
	bool ok;
	long r = 0;

	if (!c)
		return false;
	c->nent = 256;
	ok = step("supported CPUID", api->ioctl(sys, KVM_GET_SUPPORTED_CPUID, c)) &&
	     step("CPUID", api->ioctl(vcpu, KVM_SET_CPUID2, c)) &&
	     step("GET_SREGS", api->ioctl(vcpu, KVM_GET_SREGS, &s));
	s.cs.base = s.cs.selector = 0;
	ok = ok && step("SET_SREGS", api->ioctl(vcpu, KVM_SET_SREGS, &s)) &&
	     step("SET_REGS", api->ioctl(vcpu, KVM_SET_REGS, &regs));
	for (int k = 0; ok && k < 3; k++) {
		r = api->ioctl(vcpu, KVM_RUN, 0);
		ok = step("KVM_RUN", r);
		if (ok && run->exit_reason == KVM_EXIT_INTERNAL_ERROR)
			ok = false; /* no memory for code in the middle of an instruction */
	}
	if (ok)
		CHECK_EQ("exit", run->exit_reason, KVM_EXIT_IO);
	free(c);
	return ok;
}

static bool live_vcpu(int vm)
{
	int vcpu = api->ioctl(vm, KVM_CREATE_VCPU, 0), stats;
	struct kvm_run *run;
	bool ok = false;

	if (!step("CREATE_VCPU", vcpu))
		return false;
	run = api->mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (step("mmap", run == MAP_FAILED ? -1 : 0)) {
		ok = run_vcpu(vcpu, run);
		api->munmap(run, 12288);
	}
	stats = api->ioctl(vcpu, KVM_GET_STATS_FD, 0);
	if (step("stats", stats))
		api->close(stats);
	api->close(vcpu);
	return ok;
}

static bool live(int fd)
{
	uint64_t bitmap[1];
	struct kvm_dirty_log log = {.dirty_bitmap = bitmap};
	int vm = api->ioctl(sys, KVM_CREATE_VM, 0);
	bool ok;

	if (!step("CREATE_VM", vm))
		return false;
	ok = configure_vm(vm) && add_events(vm, fd) && live_vcpu(vm) &&
	     step("dirty log", api->ioctl(vm, KVM_GET_DIRTY_LOG, &log));
	api->close(vm);
	return ok;
}

static void h38_every_allocation_fails(void)
{
	int fd = eventfd(0, EFD_NONBLOCK), before, total, worked = 0;

	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	/* addps xmm0,xmm1; movups [0x600],xmm0; mov [0x9000],al; out 0x30,al; out 0x10,al */
	memcpy(ram + CODE, "\x90\xa2\x00\x90\xe6\x30\x8b\x0e\x00\x06\x0f\xaf\xc1\xa3\x00\x90\xe6\x10", 18);
	CHECK_EQ("nothing fails", live(fd), 1);
	before = entries("/proc/self/fd");
	calls = 0;
	CHECK_EQ("nothing fails", live(fd), 1);
	total = calls;
	for (int n = 0; n < total + 2; n++) {
		failing = "nothing";
		__atomic_store_n(&left, n, __ATOMIC_RELAXED);
		worked += live(fd);
		__atomic_store_n(&left, -1, __ATOMIC_RELAXED);
		check(entries("/proc/self/fd") == before, failing, entries("/proc/self/fd"), before);
	}
	printf("h38: %d allocations, %d could be done without\n", total, worked - 2);
	CHECK_EQ("several failed", total > 20, 1);
	CHECK_EQ("afterwards", live(fd), 1);
	close(fd);
	check_neighbour();
}

static const struct item items[] = {ITEM(h38_every_allocation_fails)};

HOSTILE_MAIN(items)
