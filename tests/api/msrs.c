// SPDX-License-Identifier: MIT
/*
 * MSRs that go to the client: KVM_CAP_X86_USER_SPACE_MSR and KVM_X86_SET_MSR_FILTER (api.rst).
 * Found by the KVM selftest userspace_msr_exit_test. --device: a host's KVM.
 */
#include "real.h"

#define MSR_LSTAR    0xc0000082
#define MSR_TSC_AUX  0xc0000103
#define MSR_APICBASE 0x1b
#define MSR_FLUSH_CMD 0x10b
#define MSR_NONE     0x474f4f00
#define ALL_REASONS                                                      \
	(KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN |       \
	 KVM_MSR_EXIT_REASON_FILTER)

#define WORD(v) (v) & 0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (v) >> 24
#define RDMSR(index) 0x66, 0xb9, WORD(index), 0x0f, 0x32 /* mov $index,%ecx; rdmsr */
#define WRMSR(index, lo, hi)                                                      \
	0x66, 0xb9, WORD(index), 0x66, 0xb8, WORD(lo), 0x66, 0xba, WORD(hi), 0x0f, 0x30
#define RDMSR_AT 6  /* offsets of the instructions proper */
#define WRMSR_AT 18

static void check_exit(struct machine *m, uint32_t index, uint32_t reason, uint32_t at)
{
	CHECK_EQ("msr exit: index", m->run->msr.index, index);
	CHECK_EQ("msr exit: why", m->run->msr.reason, reason);
	CHECK_EQ("msr exit: error", m->run->msr.error, 0);
	CHECK_EQ("msr exit: rip stays", regs_of(m).rip, CODE + at);
}

static void test_unknown(void)
{
	struct machine m;

	machine_open(&m, GUEST(RDMSR(MSR_NONE), WRMSR(MSR_NONE, 5, 7), RDMSR(MSR_NONE), HLT));
	RUN_TO_FAULT(&m, "unknown MSR without exits", GP);
	jump(&m, CODE);
	CHECK_EQ("reasons", enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, ALL_REASONS), 0);
	RUN_TO(&m, "read", KVM_EXIT_X86_RDMSR);
	check_exit(&m, MSR_NONE, KVM_MSR_EXIT_REASON_UNKNOWN, RDMSR_AT);
	m.run->msr.data = 0x1122334455667788;
	RUN_TO(&m, "write", KVM_EXIT_X86_WRMSR);
	check_exit(&m, MSR_NONE, KVM_MSR_EXIT_REASON_UNKNOWN, RDMSR_AT + 2 + WRMSR_AT);
	CHECK_EQ("written", m.run->msr.data, 7ull << 32 | 5);
	RUN_TO(&m, "read again", KVM_EXIT_X86_RDMSR);
	CHECK_EQ("a write leaves rax", regs_of(&m).rax, 5);
	m.run->msr.data = 0x1122334455667788;
	RUN_TO(&m, "done", KVM_EXIT_HLT);
	CHECK_EQ("read: rax", regs_of(&m).rax, 0x55667788);
	CHECK_EQ("read: rdx", regs_of(&m).rdx, 0x11223344);
	machine_close(&m);
}

/* Linux 6.1's KVM knows no IA32_FLUSH_CMD and does not offer L1D_FLUSH (CPUID 7.EDX[28]) to go with it. */
static void test_flush_cmd(void)
{
	struct machine m;

	machine_open(&m, GUEST(RDMSR(MSR_FLUSH_CMD), WRMSR(MSR_FLUSH_CMD, 1, 0)));
	RUN_TO_FAULT(&m, "RDMSR of FLUSH_CMD", GP);
	jump(&m, CODE + RDMSR_AT + 2);
	RUN_TO_FAULT(&m, "WRMSR of FLUSH_CMD", GP);
	machine_close(&m);
}

static void test_error(void)
{
	struct machine m;

	machine_open(&m, GUEST(RDMSR(MSR_NONE), HLT));
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN);
	RUN_TO(&m, "read", KVM_EXIT_X86_RDMSR);
	m.run->msr.error = 1;
	RUN_TO_FAULT(&m, "answered with an error", GP);
	CHECK_EQ("pushed rip", m.ram[0x7fa] | m.ram[0x7fb] << 8, CODE + RDMSR_AT);
	machine_close(&m);
}

/* KVM_RUN with immediate_exit only completes. */
static void test_immediate_exit(void)
{
	struct machine m;

	machine_open(&m, GUEST(RDMSR(MSR_NONE), HLT));
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN);
	RUN_TO(&m, "read", KVM_EXIT_X86_RDMSR);
	m.run->msr.data = 3;
	m.run->immediate_exit = 1;
	CHECK_EQ("completed", vcpu_run(&m), -EINTR);
	CHECK_EQ("completed: rip", regs_of(&m).rip, CODE + RDMSR_AT + 2);
	CHECK_EQ("completed: rax", regs_of(&m).rax, 3);
	machine_close(&m);
}

/* A value that a known MSR does not take: only with KVM_MSR_EXIT_REASON_INVAL. */
static void test_invalid(void)
{
	struct machine m;

	machine_open(&m, GUEST(WRMSR(MSR_APICBASE, 0xffffffff, 0xffffffff), HLT));
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_UNKNOWN);
	RUN_TO_FAULT(&m, "invalid value", GP);
	jump(&m, CODE);
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_INVAL);
	RUN_TO(&m, "invalid value", KVM_EXIT_X86_WRMSR);
	check_exit(&m, MSR_APICBASE, KVM_MSR_EXIT_REASON_INVAL, WRMSR_AT);
	RUN_TO(&m, "invalid value: done", KVM_EXIT_HLT);
	machine_close(&m);
}

static long set_filter(struct machine *m, uint32_t flags, uint32_t range_flags, uint32_t base,
		       uint32_t n, void *bitmap)
{
	struct kvm_msr_filter f = {
		.flags = flags,
		.ranges = {{.flags = range_flags, .base = base, .nmsrs = n, .bitmap = bitmap}},
	};

	return api->ioctl(m->vm, KVM_X86_SET_MSR_FILTER, &f) < 0 ? -errno : 0;
}

static void test_filter(void)
{
	uint8_t none[8] = {0}, all[8] = {0xff};
	struct machine m;

	machine_open(&m, GUEST(WRMSR(MSR_LSTAR, 0x123, 0), RDMSR(MSR_LSTAR), HLT));
	CHECK_EQ("filter", set_filter(&m, 0, KVM_MSR_FILTER_READ, MSR_LSTAR, 1, none), 0);
	RUN_TO_FAULT(&m, "refused read", GP);
	enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, ALL_REASONS);
	jump(&m, CODE);
	RUN_TO(&m, "refused read", KVM_EXIT_X86_RDMSR);
	check_exit(&m, MSR_LSTAR, KVM_MSR_EXIT_REASON_FILTER, WRMSR_AT + 2 + RDMSR_AT);
	m.run->msr.data = 0x456;
	RUN_TO(&m, "answered", KVM_EXIT_HLT);
	CHECK_EQ("answered: rax", regs_of(&m).rax, 0x456);

	jump(&m, CODE);
	CHECK_EQ("filter", set_filter(&m, KVM_MSR_FILTER_DEFAULT_DENY,
				      KVM_MSR_FILTER_READ, MSR_LSTAR, 1, all), 0);
	RUN_TO(&m, "the write is refused", KVM_EXIT_X86_WRMSR);
	CHECK_EQ("the write: data", m.run->msr.data, 0x123);
	RUN_TO(&m, "the read is allowed", KVM_EXIT_HLT);
	CHECK_EQ("the read: rax", regs_of(&m).rax, 0x123);
	machine_close(&m);
}

static void test_filter_arguments(void)
{
	uint8_t none[0x600] = {0};
	struct machine m;

	machine_open(&m, GUEST(HLT));
#define ROW(want, ...) CHECK_EQ(#__VA_ARGS__, set_filter(&m, __VA_ARGS__), want)
	ROW(-EINVAL, 2, KVM_MSR_FILTER_READ, 0, 1, none);
	ROW(-EINVAL, 0, 4, 0, 1, none);
	ROW(-EINVAL, 0, 0, 0, 1, none);
	ROW(-EINVAL, 0, KVM_MSR_FILTER_READ, 0, 0x600 * 8 + 1, none);
	ROW(-EINVAL, KVM_MSR_FILTER_DEFAULT_DENY, 0, 0, 0, NULL);
	ROW(-EFAULT, 0, KVM_MSR_FILTER_READ, 0, 1, (void *)8);
	ROW(0, 0, KVM_MSR_FILTER_READ, 0, 0x600 * 8, none);
	ROW(0, 0, 0, 0, 0, NULL);
#undef ROW
	CHECK_EQ("reasons", enable_cap(m.vm, KVM_CAP_X86_USER_SPACE_MSR, 8), -EINVAL);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_unknown();
	test_flush_cmd();
	test_error();
	test_immediate_exit();
	test_invalid();
	test_filter();
	test_filter_arguments();
	return api_done();
}
