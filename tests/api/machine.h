/* SPDX-License-Identifier: MIT */
/* One VM with one vCPU and RAM from 0, as the tests of the public API use it. */
#ifndef TESTS_MACHINE_H
#define TESTS_MACHINE_H

#include "api.h"

#include <time.h>

struct machine {
	int sys, vm, vcpu;
	uint8_t *ram;
	size_t ram_size;
	struct kvm_run *run;
};

static inline void *pages(size_t size)
{
	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static inline void set_slot(struct machine *m, uint32_t id, uint32_t flags, uint64_t at,
			    uint64_t size, void *memory)
{
	struct kvm_userspace_memory_region r = {id, flags, at, size, (uint64_t)memory};

	must(api->ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &r), "memory");
}

static inline struct kvm_run *map_run(int vcpu)
{
	void *run = api->mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);

	must(run == MAP_FAILED ? -1 : 0, "mmap");
	return run;
}

/* chip: with in-kernel interrupt chips. */
static inline void machine_create(struct machine *m, size_t ram_size, bool chip)
{
	m->sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	m->ram_size = ram_size;
	m->ram = pages(ram_size);
	m->vm = must(api->ioctl(m->sys, KVM_CREATE_VM, 0), "CREATE_VM");
	if (chip)
		must(api->ioctl(m->vm, KVM_CREATE_IRQCHIP, 0), "CREATE_IRQCHIP");
	set_slot(m, 0, 0, 0, ram_size, m->ram);
	m->vcpu = must(api->ioctl(m->vm, KVM_CREATE_VCPU, 0), "CREATE_VCPU");
	m->run = map_run(m->vcpu);
}

static inline void machine_close(struct machine *m)
{
	api->munmap(m->run, 12288);
	api->close(m->vcpu);
	api->close(m->vm);
	api->close(m->sys);
	munmap(m->ram, m->ram_size);
}

static inline int vcpu_run(struct machine *m)
{
	int r = api->ioctl(m->vcpu, KVM_RUN, 0);

	return r < 0 ? -errno : r;
}

/* A thread's main. */
static inline void *run_thread(void *m)
{
	return (void *)(long)vcpu_run(m);
}

static inline struct kvm_regs regs_of(struct machine *m)
{
	struct kvm_regs r;

	must(api->ioctl(m->vcpu, KVM_GET_REGS, &r), "GET_REGS");
	return r;
}

static inline void set_regs(struct machine *m, const struct kvm_regs *r)
{
	must(api->ioctl(m->vcpu, KVM_SET_REGS, r), "SET_REGS");
}

static inline struct kvm_sregs sregs_of(struct machine *m)
{
	struct kvm_sregs s;

	must(api->ioctl(m->vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	return s;
}

static inline void set_sregs(struct machine *m, const struct kvm_sregs *s)
{
	must(api->ioctl(m->vcpu, KVM_SET_SREGS, s), "SET_SREGS");
}

static inline struct kvm_vcpu_events events_of(struct machine *m)
{
	struct kvm_vcpu_events e;

	must(api->ioctl(m->vcpu, KVM_GET_VCPU_EVENTS, &e), "GET_VCPU_EVENTS");
	return e;
}

static inline uint64_t get_msr(struct machine *m, uint32_t index)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} a = {.head.nmsrs = 1, .e.index = index};

	must(api->ioctl(m->vcpu, KVM_GET_MSRS, &a) - 1, "GET_MSRS");
	return a.e.data;
}

static inline void set_msr(struct machine *m, uint32_t index, uint64_t value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} a = {.head.nmsrs = 1, .e = {.index = index, .data = value}};

	must(api->ioctl(m->vcpu, KVM_SET_MSRS, &a) - 1, "SET_MSRS");
}

static inline uint8_t *io_data(struct machine *m)
{
	return (uint8_t *)m->run + m->run->io.data_offset;
}

/* A value of KVM_GET_STATS_FD's file, or ~0. */
static inline uint64_t stat_value(int fd, const char *name)
{
	struct kvm_stats_header h;
	uint64_t v = ~0ull;

	if (pread(fd, &h, sizeof(h), 0) != sizeof(h))
		return v;
	for (uint32_t i = 0; i < h.num_desc; i++) {
		struct {
			struct kvm_stats_desc d;
			char name[256];
		} d = {0};
		size_t size = sizeof(d.d) + h.name_size;

		if (pread(fd, &d, size, h.desc_offset + i * size) != (ssize_t)size ||
		    strcmp(d.name, name))
			continue;
		if (pread(fd, &v, 8, h.data_offset + d.d.offset) != 8)
			v = ~0ull;
	}
	return v;
}

static inline void sleep_ms(int ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000l}, NULL);
}

#endif
