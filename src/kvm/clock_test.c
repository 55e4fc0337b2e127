// SPDX-License-Identifier: MIT
/* Guest time: TSC scale and offset, what a write of the TSC means, the kvmclock page. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "kvm/ioctl.h"

#define RAM  0x10000ul
#define PAGE 0x3010ul /* of the kvmclock */

static struct vm *vm;
static struct vcpu *cpu[2];
static u8 *ram;

/* As much of a VM as clock.c looks at. */
static int setup(void **state)
{
	(void)state;
	vm = calloc(1, sizeof(*vm));
	ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	vm->mem = mem_create();
	pthread_mutex_init(&vm->lock, NULL);
	assert_int_equal(mem_set_slot(vm->mem, 0, 0, 0, gpa(0), RAM, ram), 0);
	vm->tsc_khz = host_tsc_khz();
	vm_clock_init(vm);
	for (unsigned int i = 0; i < 2; i++) {
		cpu[i] = aligned_alloc(64, ALIGN_UP(sizeof(struct vcpu), 64));
		memset(cpu[i], 0, sizeof(struct vcpu));
		cpu[i]->vm = vm;
		vcpu_tsc_init(cpu[i]);
		vm->vcpu[vm->nr_vcpus++] = cpu[i];
	}
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	free(cpu[0]);
	free(cpu[1]);
	mem_destroy(vm->mem);
	munmap(ram, RAM);
	free(vm);
	return 0;
}

static u64 second(void) /* of the host's TSC */
{
	return (u64)host_tsc_khz() * 1000;
}

/* All start at 0 and together. */
static void start(void **state)
{
	u64 t = vm_tsc(vm);

	(void)state;
	assert_in_range(vcpu_tsc(cpu[0], t), 0, 10 * second());
	assert_int_equal(vcpu_tsc(cpu[0], t), vcpu_tsc(cpu[1], t));
}

/* A new frequency: the TSC goes on from where it is, at that rate. */
static void frequency(void **state)
{
	const u32 host = host_tsc_khz(), khz[] = {1000, 1000000, host, host + 1, 3999999, host * 3};
	u64 t, before, rate;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(khz); i++) {
		before = vcpu_tsc(cpu[0], vm_tsc(vm));
		assert_int_equal(vcpu_set_tsc_khz(cpu[0], khz[i]), 0);
		t = vm_tsc(vm);
		assert_in_range(vcpu_tsc(cpu[0], t), before, before + 100 * (u64)khz[i] * 1000);
		rate = vcpu_tsc(cpu[0], t + 1000 * second()) - vcpu_tsc(cpu[0], t);
		assert_in_range(rate, 1000000ull * khz[i] - khz[i], 1000000ull * khz[i] + khz[i]);
	}
	assert_int_equal(vcpu_set_tsc_khz(cpu[0], 0), 0); /* the host's */
	assert_int_equal(cpu[0]->tsc_khz, host);
	if (host < UINT32_MAX / 256) {
		assert_int_equal(vcpu_set_tsc_khz(cpu[0], host * 256), -EINVAL);
		assert_int_equal(cpu[0]->tsc_khz, host);
	}
}

/* A client's write: near to what the last one would be now, or 0, it means that one. */
static void client_writes(void **state)
{
	static const struct {
		s64 ms; /* after the other vCPU's TSC */
		bool same;
	} row[] = {
		{0, true}, {-900, true}, {900, true}, {-1500, false}, {5000, false}, {3600000, false},
	};

	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		s64 ahead;
		u64 t;

		teardown(state);
		setup(state);
		vcpu_set_tsc(cpu[0], 1000 * second(), true);
		t = vm_tsc(vm);
		assert_in_range(vcpu_tsc(cpu[0], t), 1000 * second(), 1010 * second());
		vcpu_set_tsc(cpu[1], vcpu_tsc(cpu[0], t) + row[i].ms * (s64)host_tsc_khz(), true);
		ahead = vcpu_tsc(cpu[1], t) - vcpu_tsc(cpu[0], t);
		if (row[i].same)
			assert_int_equal(ahead, 0);
		else
			assert_true(labs(ahead / (s64)host_tsc_khz() - row[i].ms) < 1000);
		assert_true(cpu[1]->todo & TODO_CLOCK);
	}
	vcpu_set_tsc(cpu[1], 0, true);
	assert_int_equal(cpu[1]->tsc_offset, vm->tsc_offset);
}

/* The first write is no second one: also in the VM's first second it is meant as it is. */
static void first_write(void **state)
{
	(void)state;
	vcpu_set_tsc(cpu[0], second() / 2, true);
	assert_true(vcpu_tsc(cpu[0], vm_tsc(vm)) >= second() / 2);
	vcpu_set_tsc(cpu[1], second() / 4, true);
	assert_int_equal(cpu[1]->tsc_offset, cpu[0]->tsc_offset);
}

/* The guest's write is its own vCPU's, and TSC_ADJUST follows. */
static void guest_writes(void **state)
{
	u64 offset = cpu[0]->tsc_offset, other = vm->tsc_offset;

	(void)state;
	vcpu_set_tsc(cpu[0], 5000 * second(), false);
	assert_int_equal(cpu[0]->tsc_adjust, cpu[0]->tsc_offset - offset);
	assert_int_equal(vm->tsc_offset, other);
	assert_int_equal(cpu[1]->tsc_offset, other);
}

struct page { /* struct pvclock_vcpu_time_info */
	u32 version, pad0;
	u64 tsc_timestamp, system_time;
	u32 mul;
	s8 shift;
	u8 flags, pad[2];
};

/* What the guest computes from its page is the VM's clock, at any frequency and later too. */
static void clock_page(void **state)
{
	const u32 host = host_tsc_khz(), khz[] = {host, 1000000, 2500000, host * 2};
	struct page p;
	u32 version = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(khz); i++) {
		assert_int_equal(vcpu_set_tsc_khz(cpu[0], khz[i]), 0);
		cpu[0]->time_page = gpa(PAGE);
		cpu[0]->time_on = true;
		cpu[0]->time_stopped = i == 1;
		vcpu_write_time(cpu[0]);
		memcpy(&p, ram + PAGE, sizeof(p));
		assert_int_equal(p.version & 1, 0);
		assert_int_equal(p.version, version + 2);
		version = p.version;
		assert_int_equal(p.flags & 2, i == 1 ? 2 : 0); /* guest was stopped: said once */
		for (u64 s = 0; s < 3; s++) {
			u64 t = vm_tsc(vm) + s * 1000 * second(), now = vm_clock_ns(vm, t);
			u64 guest = p.system_time +
				pvclock_ns(vcpu_tsc(cpu[0], t) - p.tsc_timestamp, p.mul, p.shift);

			assert_in_range(guest, now - 2000 * (s + 1), now + 2000 * (s + 1));
		}
	}
	cpu[0]->time_page = gpa(RAM);
	vcpu_write_time(cpu[0]);
	assert_false(cpu[0]->time_on);
}

static void set_and_get(void **state)
{
	struct kvm_clock_data d = {.clock = 77000000000ull};
	struct ioc c = {.vm = vm, .arg = &d};
	const u64 want = d.clock;

	(void)state;
	assert_int_equal(vm_set_clock(&c), 0);
	assert_true(cpu[0]->todo & TODO_CLOCK);
	assert_int_equal(vm_get_clock(&c), 0);
	assert_in_range(d.clock, want, want + 10000000000ull);
	d.clock = want;
	d.flags = KVM_CLOCK_REALTIME;
	d.realtime -= 3600 * 1000000000ull; /* saved an hour ago */
	assert_int_equal(vm_set_clock(&c), 0);
	assert_int_equal(vm_get_clock(&c), 0);
	assert_in_range(d.clock, want + 3600 * 1000000000ull, want + 3620 * 1000000000ull);
	d.flags = 0x100;
	assert_int_equal(vm_set_clock(&c), -EINVAL);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(start), TEST(frequency), TEST(client_writes), TEST(first_write), TEST(guest_writes),
		TEST(clock_page), TEST(set_and_get),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
