// SPDX-License-Identifier: MIT
/*
 * Instructions that others' tests found wrong: kvm-unit-tests' realmode (CBW and CWD with a 16-bit
 * operand in a block). --device: a host's KVM.
 */
#include "real.h"

static void test_cbw_cwd(void)
{
	struct kvm_regs r;
	struct machine m;

	machine_open(&m, GUEST(0x66, 0xb8, 0xfe, 0x00, 0x34, 0x12, /* mov $0x123400fe,%eax */
			       0x98,				   /* cbw */
			       0x66, 0x89, 0xc3,		   /* mov %eax,%ebx */
			       0x66, 0xba, 0x00, 0x00, 0x78, 0x56, /* mov $0x56780000,%edx */
			       0x99,				   /* cwd */
			       0x66, 0x89, 0xd1,		   /* mov %edx,%ecx */
			       0x66, 0x98,			   /* cwde */
			       0x66, 0x99,			   /* cdq */
			       HLT));
	RUN_TO(&m, "cbw", KVM_EXIT_HLT);
	r = regs_of(&m);
	CHECK_EQ("cbw", r.rbx, 0x1234fffe);
	CHECK_EQ("cwd", r.rcx, 0x5678ffff);
	CHECK_EQ("cwde", r.rax, 0xfffffffe);
	CHECK_EQ("cdq", r.rdx, 0xffffffff);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_cbw_cwd();
	return api_done();
}
