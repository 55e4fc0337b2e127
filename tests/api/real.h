/* SPDX-License-Identifier: MIT */
/*
 * Guests in real mode whose exception v ends in a HLT at FAULT(v), so that a test reads from RIP
 * what its guest got.
 */
#ifndef TESTS_REAL_H
#define TESTS_REAL_H

#include "machine.h"

#define RAM	 0x8000 /* guest RAM from 0; above is nothing: MMIO in a real-mode segment */
#define CODE	 0x1000
#define FAULT(v) (0x600u + (v))
#define HLT	 0xf4
#define UD	 6
#define GP	 13

static int sys;

/* The VM and its memory; room for KVM_ENABLE_CAP and the like before the vCPU is made. */
static inline void machine_vm(struct machine *m, const void *code, size_t n)
{
	m->sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	m->ram_size = RAM;
	m->ram = pages(RAM);
	memcpy(m->ram + CODE, code, n);
	for (unsigned int v = 0; v < 32; v++) {
		m->ram[4 * v] = FAULT(v) & 0xff;
		m->ram[4 * v + 1] = FAULT(v) >> 8;
		m->ram[FAULT(v)] = HLT;
	}
	m->vm = must(api->ioctl(m->sys, KVM_CREATE_VM, 0), "CREATE_VM");
	set_slot(m, 0, 0, 0, RAM, m->ram);
}

static inline void machine_vcpu(struct machine *m)
{
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rsp = 0x800};
	struct kvm_sregs s;

	m->vcpu = must(api->ioctl(m->vm, KVM_CREATE_VCPU, 0), "CREATE_VCPU");
	m->run = map_run(m->vcpu);
	s = sregs_of(m);
	s.cs.base = s.cs.selector = 0;
	set_sregs(m, &s);
	set_regs(m, &regs);
}

static inline void machine_open(struct machine *m, const void *code, size_t n)
{
	machine_vm(m, code, n);
	machine_vcpu(m);
}

static inline void jump(struct machine *m, uint64_t rip)
{
	struct kvm_regs r = regs_of(m);

	r.rip = rip;
	must(api->ioctl(m->vcpu, KVM_SET_REGS, &r), "SET_REGS");
}

/* KVM_RUN must return 0 with this exit. */
#define RUN_TO(m, what, reason)                                         \
	do {                                                            \
		CHECK_EQ(what ": KVM_RUN", vcpu_run(m), 0);             \
		CHECK_EQ(what ": exit", (m)->run->exit_reason, reason); \
	} while (0)

/* ... a HLT that ends before rip. */
#define RUN_TO_HLT(m, what, rip_)                            \
	do {                                                 \
		RUN_TO(m, what, KVM_EXIT_HLT);               \
		CHECK_EQ(what ": rip", regs_of(m).rip, rip_); \
	} while (0)
#define RUN_TO_FAULT(m, what, v) RUN_TO_HLT(m, what, FAULT(v) + 1)

#define GUEST(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})

static inline long enable_cap(int fd, uint32_t cap, uint64_t arg)
{
	struct kvm_enable_cap c = {.cap = cap, .args = {arg}};

	return api->ioctl(fd, KVM_ENABLE_CAP, &c) < 0 ? -errno : 0;
}

static inline long msr_get(struct machine *m, uint32_t index, uint64_t *value)
{
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} x = {{.nmsrs = 1}, {.index = index}};
	long r = api->ioctl(m->vcpu, KVM_GET_MSRS, &x);

	*value = x.e.data;
	return r;
}

static inline long msr_set(struct machine *m, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e;
	} x = {{.nmsrs = 1}, {.index = index, .data = value}};

	return api->ioctl(m->vcpu, KVM_SET_MSRS, &x);
}

/* KVM_GET_SUPPORTED_CPUID; entries may be changed before they are set. */
static inline struct kvm_cpuid2 *supported_cpuid(void)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	c->nent = 256;
	must(api->ioctl(sys, KVM_GET_SUPPORTED_CPUID, c), "GET_SUPPORTED_CPUID");
	return c;
}

static inline struct kvm_cpuid_entry2 *cpuid_leaf(struct kvm_cpuid2 *c, uint32_t leaf, uint32_t index)
{
	for (uint32_t i = 0; i < c->nent; i++)
		if (c->entries[i].function == leaf && c->entries[i].index == index)
			return &c->entries[i];
	return NULL;
}

#endif
