// SPDX-License-Identifier: MIT
/*
 * As many memslots as KVM has. Found by the KVM selftests set_memory_region_test (one slot too many
 * was accepted) and memslot_perf_test (the time to add one grew with their number).
 * --device: a host's KVM.
 */
#include "real.h"

#define SLOTS 32764
#define AT(n) (0x100000ull + (n) * 0x2000ull)

static uint8_t *memory;

static long slot(struct machine *m, uint32_t id, uint64_t at, uint64_t size, uint32_t page)
{
	struct kvm_userspace_memory_region r = {id, 0, at, size, (uint64_t)memory + page * 0x1000ull};

	return api->ioctl(m->vm, KVM_SET_USER_MEMORY_REGION, &r) < 0 ? -errno : 0;
}

static double seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

/* Even ones first, so that the odd ones come between. */
static int add_all(struct machine *m)
{
	int bad = 0;

	for (int odd = 0; odd < 2; odd++)
		for (uint32_t id = 1 + odd; id < SLOTS; id += 2)
			bad += !!slot(m, id, AT(id), 0x1000, id);
	return bad;
}

static void test_limit(void)
{
	struct machine m;
	double start;

	machine_open(&m, GUEST(HLT));
	start = seconds();
	CHECK_EQ("all slots: refused", add_all(&m), 0);
	check(seconds() - start < 30, "all slots: seconds", seconds() - start, 30);
	CHECK_EQ("one too many", slot(&m, SLOTS, AT(SLOTS), 0x1000, 0), -EINVAL);
	CHECK_EQ("delete the one too many", slot(&m, SLOTS, AT(SLOTS), 0, 0), -EINVAL);
	CHECK_EQ("move", slot(&m, 7, AT(SLOTS + 1), 0x1000, 7), 0);
	CHECK_EQ("move onto another", slot(&m, 7, AT(8), 0x1000, 7), -EEXIST);
	CHECK_EQ("move onto two others", slot(&m, 9, AT(8) + 0x1000, 0x1000, 9), 0);
	CHECK_EQ("move by less than its size", slot(&m, 9, AT(8) + 0x800, 0x1000, 9), -EINVAL);
	CHECK_EQ("delete", slot(&m, 5, 0, 0, 0), 0);
	CHECK_EQ("delete again", slot(&m, 5, 0, 0, 0), -EINVAL);
	CHECK_EQ("a larger one where two are", slot(&m, 5, AT(10), 0x4000, 5), -EEXIST);
	CHECK_EQ("a larger one that ends in another", slot(&m, 5, AT(12) + 0x1000, 0x2000, 5), -EEXIST);
	CHECK_EQ("in the gap", slot(&m, 5, AT(12) + 0x1000, 0x1000, 5), 0);
	RUN_TO_HLT(&m, "the guest runs", CODE + 1);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	memory = pages((SLOTS + 8) * 0x1000ull);
	test_limit();
	return api_done();
}
