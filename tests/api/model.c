// SPDX-License-Identifier: MIT
/*
 * The CPU model as clients see it: KVM_GET_CPUID2 follows the processor's state, CR4 follows the
 * model. Found by the KVM selftests cpuid_test, set_sregs_test. --device: a host's KVM.
 */
#include "real.h"

#define OSXSAVE	     (1u << 27) /* CPUID.1:ECX */
#define CR4_OSXSAVE  (1ull << 18)
#define CR4_SMXE     (1ull << 14)
#define CR4_VME	     1ull

static struct kvm_cpuid2 *cpuid_of(struct machine *m)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));

	c->nent = 256;
	must(api->ioctl(m->vcpu, KVM_GET_CPUID2, c), "GET_CPUID2");
	return c;
}

static long set_cpuid(struct machine *m, struct kvm_cpuid2 *c)
{
	return api->ioctl(m->vcpu, KVM_SET_CPUID2, c) < 0 ? -errno : 0;
}

static void test_runtime_bits(void)
{
	struct kvm_cpuid2 *offered = supported_cpuid(), *now;
	struct kvm_sregs s;
	struct machine m;

	machine_open(&m, GUEST(HLT));
	cpuid_leaf(offered, 1, 0)->ecx &= ~OSXSAVE;
	CHECK_EQ("set", set_cpuid(&m, offered), 0);
	now = cpuid_of(&m);
	CHECK_EQ("entries", now->nent, offered->nent);
	CHECK_EQ("OSXSAVE is off", cpuid_leaf(now, 1, 0)->ecx & OSXSAVE, 0);
	free(now);
	must(api->ioctl(m.vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	s.cr4 |= CR4_OSXSAVE;
	CHECK_EQ("CR4.OSXSAVE", api->ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	now = cpuid_of(&m);
	CHECK_EQ("OSXSAVE is on", cpuid_leaf(now, 1, 0)->ecx & OSXSAVE, OSXSAVE);
	RUN_TO(&m, "run", KVM_EXIT_HLT);
	CHECK_EQ("what was read, after a run", set_cpuid(&m, now), 0);
	now->entries[1].eax ^= 1;
	CHECK_EQ("another table, after a run", set_cpuid(&m, now), -EINVAL);
	free(now);
	free(offered);
	machine_close(&m);
}

static void test_cr4(void)
{
	struct kvm_sregs s, after;
	struct machine m;

	machine_open(&m, GUEST(HLT));
	must(api->ioctl(m.vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	s.cr4 |= CR4_SMXE;
	CHECK_EQ("CR4.SMXE, no model yet", api->ioctl(m.vcpu, KVM_SET_SREGS, &s), -1);
	must(api->ioctl(m.vcpu, KVM_GET_SREGS, &after), "GET_SREGS");
	CHECK_EQ("refused: cr4 stays", after.cr4, s.cr4 & ~CR4_SMXE);
	s.cr4 = CR4_VME | CR4_OSXSAVE;
	CHECK_EQ("CR4.VME and OSXSAVE, no model yet", api->ioctl(m.vcpu, KVM_SET_SREGS, &s), 0);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_runtime_bits();
	test_cr4();
	return api_done();
}
