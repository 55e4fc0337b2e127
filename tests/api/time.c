// SPDX-License-Identifier: MIT
/*
 * Guest time: KVM_VCPU_TSC_OFFSET. Found by the KVM selftest system_counter_offset_test.
 * --device: a host's KVM; a PVM host keeps the offset 0.
 */
#include "real.h"

#include <x86intrin.h>

static long attr(struct machine *m, unsigned long req, uint32_t group, uint64_t nr, uint64_t *value)
{
	struct kvm_device_attr a = {.group = group, .attr = nr, .addr = (uint64_t)value};

	return api->ioctl(m->vcpu, req, &a) < 0 ? -errno : 0;
}

static uint64_t tsc_of(struct machine *m)
{
	struct kvm_regs r;

	jump(m, CODE);
	RUN_TO(m, "rdtsc", KVM_EXIT_HLT);
	r = regs_of(m);
	return r.rdx << 32 | (uint32_t)r.rax;
}

static void test_tsc_offset(void)
{
	const uint64_t offsets[] = {0, 1ull << 40, -(1ull << 40)};
	struct machine m;
	uint64_t got, a, b, t;

	machine_open(&m, GUEST(0x0f, 0x31 /* rdtsc */, HLT));
	if (attr(&m, KVM_HAS_DEVICE_ATTR, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, NULL)) {
		check(api_is_device(), "KVM_VCPU_TSC_OFFSET", 0, 1);
		machine_close(&m);
		return;
	}
	for (int i = 0; i < 3; i++) {
		uint64_t v = offsets[i];

		CHECK_EQ("set", attr(&m, KVM_SET_DEVICE_ATTR, 0, 0, &v), 0);
		a = __rdtsc() + v;
		t = tsc_of(&m);
		b = __rdtsc() + v;
		CHECK_EQ("guest's TSC is not early", (int64_t)(t - a) >= 0, 1);
		CHECK_EQ("guest's TSC is not late", (int64_t)(b - t) >= 0, 1);
		CHECK_EQ("get", attr(&m, KVM_GET_DEVICE_ATTR, 0, 0, &got), 0);
		CHECK_EQ("value", got, v);
	}
	CHECK_EQ("another attribute", attr(&m, KVM_HAS_DEVICE_ATTR, 0, 1, NULL), -ENXIO);
	CHECK_EQ("another group", attr(&m, KVM_SET_DEVICE_ATTR, 1, 0, &got), -ENXIO);
	CHECK_EQ("bad pointer", attr(&m, KVM_SET_DEVICE_ATTR, 0, 0, (uint64_t *)8), -EFAULT);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_tsc_offset();
	return api_done();
}
