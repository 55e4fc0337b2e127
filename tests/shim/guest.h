/* SPDX-License-Identifier: MIT */
/*
 * A 64-bit guest for programs that know nothing of anykvm: plain libc calls on /dev/kvm, as a
 * VMM makes them. Without the preload library the same program talks to the host's KVM.
 */
#ifndef TESTS_SHIM_GUEST_H
#define TESTS_SHIM_GUEST_H

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RAM_SIZE  (2ul << 20)
#define CODE	  0x10000ul
#define VICTIM	  0x40000ul /* the page that tests take away */
#define OTHER	  0x60000ul
#define STACK	  0x80000ul
#define PML4	  0x2000ul

#define GUEST(name, text)                                                           \
	extern const uint8_t name##_code[], name##_end[];                           \
	asm(".pushsection .rodata\n" #name "_code:\n" text "\n" #name "_end:\n"     \
	    ".popsection");

static unsigned int passed, failed;

static void check(bool ok, const char *what, long long got, long long want)
{
	if (ok) {
		passed++;
		return;
	}
	failed++;
	printf("FAIL %s: got %lld (%#llx), want %lld (%#llx)\n", what, got, got, want, want);
}

#define CHECK_EQ(what, got, want)                      \
	do {                                           \
		long long g_ = (got), w_ = (want);     \
		check(g_ == w_, what, g_, w_);         \
	} while (0)

#define CHECK_FAILS(what, call, err)                           \
	do {                                                   \
		errno = 0;                                     \
		CHECK_EQ(what, (long long)(call), -1);         \
		CHECK_EQ(what " errno", errno, err);           \
	} while (0)

static int must(int r, const char *what)
{
	if (r >= 0)
		return r;
	printf("FAIL %s: %s\n", what, strerror(errno));
	printf("%u passed, %u failed\n", passed, failed + 1);
	exit(1);
}

struct vm {
	int kvm, fd, vcpu;
	struct kvm_run *run;
	size_t run_size;
	uint8_t *ram;
};

static inline void long_mode(struct vm *m)
{
	uint64_t *pml4 = (uint64_t *)(m->ram + PML4), *pdpt = pml4 + 512, *pd = pdpt + 512;
	struct kvm_segment flat = {.limit = ~0u, .selector = 0x10, .type = 3, .present = 1,
				   .db = 1, .s = 1, .g = 1};
	struct kvm_sregs s;

	pml4[0] = (PML4 + 0x1000) | 3;
	pdpt[0] = (PML4 + 0x2000) | 3;
	pd[0] = 0x83;
	must(ioctl(m->vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.ds = s.es = s.fs = s.gs = s.ss = flat;
	s.cs = flat;
	s.cs.selector = 8;
	s.cs.type = 11;
	s.cs.l = 1;
	s.cs.db = 0;
	s.cr0 = 0x80000033;
	s.cr3 = PML4;
	s.cr4 = 0x620;
	s.efer = 0x500;
	must(ioctl(m->vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
}

static inline void set_cpuid(struct vm *m)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	c->nent = 256;
	must(ioctl(m->kvm, KVM_GET_SUPPORTED_CPUID, c), "KVM_GET_SUPPORTED_CPUID");
	must(ioctl(m->vcpu, KVM_SET_CPUID2, c), "KVM_SET_CPUID2");
	free(c);
}

/* chips: with interrupt chips in the kernel, where HLT waits inside KVM_RUN. */
static inline void vm_open_with(struct vm *m, const uint8_t *code, size_t len, bool chips)
{
	struct kvm_userspace_memory_region r = {.memory_size = RAM_SIZE};
	struct kvm_regs regs = {.rip = CODE, .rsp = STACK, .rbx = VICTIM, .rflags = 2};

	m->kvm = must(open("/dev/kvm", O_RDWR | O_CLOEXEC), "open");
	m->fd = must(ioctl(m->kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(m->ram == MAP_FAILED ? -1 : 0, "mmap");
	memcpy(m->ram + CODE, code, len);
	r.userspace_addr = (uintptr_t)m->ram;
	must(ioctl(m->fd, KVM_SET_USER_MEMORY_REGION, &r), "KVM_SET_USER_MEMORY_REGION");
	if (chips)
		must(ioctl(m->fd, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
	m->vcpu = must(ioctl(m->fd, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	m->run_size = must(ioctl(m->kvm, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	m->run = mmap(NULL, m->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, m->vcpu, 0);
	must(m->run == MAP_FAILED ? -1 : 0, "mmap of a vCPU");
	set_cpuid(m);
	long_mode(m);
	must(ioctl(m->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

static inline void vm_open(struct vm *m, const uint8_t *code, size_t len)
{
	vm_open_with(m, code, len, false);
}

static inline void vm_close(struct vm *m)
{
	munmap(m->run, m->run_size);
	close(m->vcpu);
	close(m->fd);
	close(m->kvm);
	munmap(m->ram, RAM_SIZE);
}

static inline uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ull + t.tv_nsec / 1000000;
}

static inline int done(void)
{
	printf("%u passed, %u failed\n", passed, failed);
	return failed ? 1 : 0;
}

#endif
