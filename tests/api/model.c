// SPDX-License-Identifier: MIT
/*
 * The CPU model as clients see it: KVM_GET_CPUID2 follows the processor's state, CR4 and KVM's own
 * MSRs and hypercalls follow the model, quirks can be switched off. Found by the KVM selftests
 * cpuid_test, set_sregs_test, monitor_mwait_test, platform_info_test, kvm_pv_test,
 * fix_hypercall_test. --device: a host's KVM; a PVM host emulates real mode, without MONITOR.
 */
#include "real.h"

#include <signal.h>
#include <sys/time.h>

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

/* ---- what the MMU does itself: LA57, protection keys, UMIP, whatever the host has */

#define LEAF7_ECX (1u << 2 | 1u << 3 | 1u << 16) /* UMIP, PKU, LA57 */
#define OSPKE	  (1u << 4)
#define PKRU	  0x200ull /* XSAVE's component 9 */
#define CR4_PKE	  (1ull << 22)
#define RDPKRU	  0x66, 0x31, 0xc9, 0x0f, 0x01, 0xee /* xor %ecx,%ecx; rdpkru */
#define BV	  64 /* XSTATE_BV, the area taken as 8-byte words */

static long set_xcr0(struct machine *m, uint64_t v)
{
	struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs[0].value = v};

	return api->ioctl(m->vcpu, KVM_SET_XCRS, &x) < 0 ? -errno : 0;
}

static uint32_t guest_pkru(struct machine *m)
{
	jump(m, CODE);
	RUN_TO_HLT(m, "RDPKRU", CODE + 7);
	return regs_of(m).rax;
}

static void test_xsave_pkru(struct machine *m, uint32_t offset)
{
	uint64_t area[512], area2[512];
	uint32_t *at = (uint32_t *)((char *)area + offset);

	CHECK_EQ("GET_XSAVE", api->ioctl(m->vcpu, KVM_GET_XSAVE, area), 0);
	CHECK_EQ("XSTATE_BV", area[BV] & PKRU, PKRU);
	CHECK_EQ("PKRU at reset", *at, 0);
	*at = 0x55555554;
	CHECK_EQ("SET_XSAVE", api->ioctl(m->vcpu, KVM_SET_XSAVE, area), 0);
	CHECK_EQ("guest's PKRU", guest_pkru(m), 0x55555554);
	*at = 0;
	CHECK_EQ("GET_XSAVE2", api->ioctl(m->vcpu, KVM_GET_XSAVE2, area2), 0);
	CHECK_EQ("GET_XSAVE again", api->ioctl(m->vcpu, KVM_GET_XSAVE, area), 0);
	CHECK_EQ("read back", *at, 0x55555554);
	CHECK_EQ("both the same", memcmp(area, area2, sizeof(area)), 0);
	area[BV] &= ~PKRU;
	CHECK_EQ("SET_XSAVE without it", api->ioctl(m->vcpu, KVM_SET_XSAVE, area), 0);
	CHECK_EQ("its initial state", guest_pkru(m), 0);
}

static void test_system_features(void)
{
	struct kvm_cpuid2 *c = supported_cpuid(), *now;
	struct kvm_cpuid_entry2 *pkru = cpuid_leaf(c, 0xd, 9);
	struct kvm_sregs s;
	struct machine m;

	CHECK_EQ("LA57, PKU, UMIP", cpuid_leaf(c, 7, 0)->ecx & LEAF7_ECX, LEAF7_ECX);
	CHECK_EQ("leaf D: PKRU", cpuid_leaf(c, 0xd, 0)->eax & PKRU, PKRU);
	CHECK_EQ("leaf D.9", !pkru, 0);
	CHECK_EQ("leaf D.9: size", pkru->eax, 8);
	CHECK_EQ("leaf D: largest area", cpuid_leaf(c, 0xd, 0)->ecx, pkru->ebx + 8);
	machine_open(&m, GUEST(RDPKRU, HLT));
	CHECK_EQ("set", set_cpuid(&m, c), 0);
	CHECK_EQ("XCR0 with PKRU", set_xcr0(&m, PKRU | 3), 0);
	CHECK_EQ("XCR0 with what is not there", set_xcr0(&m, 0x403), -EINVAL);
	s = sregs_of(&m);
	s.cr4 |= CR4_PKE;
	set_sregs(&m, &s);
	now = cpuid_of(&m);
	CHECK_EQ("OSPKE", cpuid_leaf(now, 7, 0)->ecx & OSPKE, OSPKE);
	CHECK_EQ("leaf D: area", cpuid_leaf(now, 0xd, 0)->ebx, pkru->ebx + 8);
	free(now);
	test_xsave_pkru(&m, pkru->ebx);
	machine_close(&m);
	/* QEMU copies the place from the host's CPUID: nothing, if the host has no such keys */
	pkru->ebx = 0;
	machine_open(&m, GUEST(HLT));
	CHECK_EQ("set without a place", set_cpuid(&m, c), 0);
	now = cpuid_of(&m);
	CHECK_EQ("the guest sees where it is", cpuid_leaf(now, 0xd, 9)->ebx >= 832, 1);
	free(now);
	free(c);
	machine_close(&m);
}

#define MONITOR	     0x0f, 0x01, 0xc8
#define MWAIT	     0x0f, 0x01, 0xc9
#define CPUID_SSE3   1u
#define CPUID_MWAIT  (1u << 3) /* CPUID.1:ECX */
#define MISC_ENABLE  0x1a0
#define MISC_MWAIT   (1ull << 18)

static void test_mwait(void)
{
	struct kvm_cpuid2 *c = supported_cpuid();
	struct machine m;

	machine_open(&m, GUEST(MONITOR, MWAIT, HLT));
	cpuid_leaf(c, 1, 0)->ecx = (cpuid_leaf(c, 1, 0)->ecx & ~CPUID_MWAIT) | CPUID_SSE3;
	CHECK_EQ("set", set_cpuid(&m, c), 0);
	RUN_TO_HLT(&m, "no CPUID bit, quirk", CODE + 7);
	CHECK_EQ("quirks", enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2, 1u << 20), -EINVAL);
	CHECK_EQ("quirks", enable_cap(m.vm, KVM_CAP_DISABLE_QUIRKS2,
				      KVM_X86_QUIRK_MWAIT_NEVER_UD_FAULTS |
				      KVM_X86_QUIRK_MISC_ENABLE_NO_MWAIT), 0);
	jump(&m, CODE);
	RUN_TO_FAULT(&m, "no CPUID bit, no quirk: MONITOR", UD);
	jump(&m, CODE + 3);
	RUN_TO_FAULT(&m, "no CPUID bit, no quirk: MWAIT", UD);
	CHECK_EQ("MISC_ENABLE", msr_set(&m, MISC_ENABLE, MISC_MWAIT), 1);
	jump(&m, CODE);
	RUN_TO_HLT(&m, "CPUID bit by MISC_ENABLE", CODE + 7);
	free(c);
	machine_close(&m);
}

#define MSR_PLATFORM_INFO 0xce
#define WORD(v) (v) & 0xff, (v) >> 8 & 0xff, (v) >> 16 & 0xff, (v) >> 24
#define RDMSR(index) 0x66, 0xb9, WORD(index), 0x0f, 0x32 /* mov $index,%ecx; rdmsr */

static void test_platform_info(void)
{
	struct machine m;
	uint64_t v;

	machine_open(&m, GUEST(RDMSR(MSR_PLATFORM_INFO), HLT));
	CHECK_EQ("client's write", msr_set(&m, MSR_PLATFORM_INFO, 0xff00), 1);
	RUN_TO_HLT(&m, "read", CODE + 9);
	CHECK_EQ("value", regs_of(&m).rax, 0xff00);
	CHECK_EQ("off", enable_cap(m.vm, KVM_CAP_MSR_PLATFORM_INFO, 0), 0);
	jump(&m, CODE);
	RUN_TO_FAULT(&m, "read when off", GP);
	CHECK_EQ("client's read when off", msr_get(&m, MSR_PLATFORM_INFO, &v), 1);
	CHECK_EQ("client's value", v, 0xff00);
	machine_close(&m);
}

#define MSR_KVM_SYSTEM_TIME 0x12
#define MSR_KVM_STEAL_TIME  0x4b564d03
#define KVM_FEATURES	    0x40000001
#define SCHED_YIELD	    11
#define ENOSYS_KVM	    1000

static void test_pv(void)
{
	struct kvm_cpuid2 *c = supported_cpuid();
	const uint8_t *hypercall = c->entries[0].ebx == 0x756e6547 /* Genu */ ?
				   (const uint8_t *)"\x0f\x01\xc1" : (const uint8_t *)"\x0f\x01\xd9";
	struct machine m;

	machine_open(&m, GUEST(RDMSR(MSR_KVM_SYSTEM_TIME), HLT, RDMSR(MSR_KVM_STEAL_TIME), HLT,
			       0x66, 0xb8, WORD(SCHED_YIELD), 0, 0, 0, HLT));
	memcpy(m.ram + CODE + 24, hypercall, 3);
	cpuid_leaf(c, KVM_FEATURES, 0)->eax = 0;
	CHECK_EQ("set", set_cpuid(&m, c), 0);
	RUN_TO_HLT(&m, "without the features, not enforced", CODE + 9);
	CHECK_EQ("enforce", enable_cap(m.vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1), 0);
	jump(&m, CODE);
	RUN_TO_FAULT(&m, "system time without its feature", GP);
	jump(&m, CODE + 9);
	RUN_TO_FAULT(&m, "steal time without its feature", GP);
	jump(&m, CODE + 18);
	RUN_TO_HLT(&m, "hypercall", CODE + 28);
	CHECK_EQ("hypercall without its feature", (int32_t)regs_of(&m).rax, -ENOSYS_KVM);
	free(c);
	machine_close(&m);
}

#define SEND_IPI 10
#define VECTOR	 0x20

/* Interrupts by hypercall: RBX and RCX are a bitmap of APIC IDs from RDX on, RSI is the ICR. */
static void test_send_ipi(void)
{
	struct kvm_cpuid2 *c = supported_cpuid();
	const uint8_t *hypercall = c->entries[0].ebx == 0x756e6547 /* Genu */ ?
				   (const uint8_t *)"\x0f\x01\xc1" : (const uint8_t *)"\x0f\x01\xd9";
	struct kvm_lapic_state apic;
	struct kvm_regs r;
	struct machine m;

	machine_vm(&m, GUEST(0, 0, 0, 0xe6, 0x11 /* out %al,$0x11 */, 0, 0, 0, 0xe6, 0x12));
	must(api->ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), "CREATE_IRQCHIP");
	machine_vcpu(&m);
	CHECK_EQ("set", set_cpuid(&m, c), 0);
	memcpy(m.ram + CODE, hypercall, 3);
	memcpy(m.ram + CODE + 5, hypercall, 3);
	memcpy(m.ram + FAULT(0), "\xe6\x10\xcf", 3); /* the handler: out %al,$0x10; iret */
	m.ram[4 * VECTOR] = FAULT(0) & 0xff;
	m.ram[4 * VECTOR + 1] = FAULT(0) >> 8;
	must(api->ioctl(m.vcpu, KVM_GET_LAPIC, &apic), "GET_LAPIC");
	apic.regs[0xf1] |= 1; /* SVR: enabled */
	must(api->ioctl(m.vcpu, KVM_SET_LAPIC, &apic), "SET_LAPIC");
	r = regs_of(&m);
	r.rflags |= 1 << 9; /* IF */
	r.rax = SEND_IPI;
	r.rbx = 1;
	r.rcx = r.rdx = 0;
	r.rsi = VECTOR;
	set_regs(&m, &r);
	RUN_TO(&m, "IPI", KVM_EXIT_IO);
	CHECK_EQ("IPI: handler", m.run->io.port, 0x10);
	CHECK_EQ("IPI: one has it", (uint32_t)regs_of(&m).rax, 1);
	RUN_TO(&m, "IPI: back", KVM_EXIT_IO);
	r = regs_of(&m);
	r.rip = CODE + 5;
	r.rax = SEND_IPI;
	r.rdx = 0xffffffff;
	r.rbx = 0xffffffff;
	r.rsi = 0;
	set_regs(&m, &r);
	RUN_TO(&m, "to nobody", KVM_EXIT_IO);
	CHECK_EQ("to nobody", (uint32_t)regs_of(&m).rax, 0);
	free(c);
	machine_close(&m);
}

/* The call of before KVM_SET_CPUID2. */
static void test_old_table(void)
{
	struct kvm_cpuid *old = calloc(1, sizeof(*old) + 2 * sizeof(old->entries[0]));
	struct kvm_cpuid2 *now;
	struct machine m;

	machine_open(&m, GUEST(0x0f, 0xa2, 0xee, HLT)); /* cpuid; out dx,al */
	old->nent = 2;
	old->entries[0] = (struct kvm_cpuid_entry){.function = 0, .eax = 1, .ebx = 5, .padding = 9};
	old->entries[1] = (struct kvm_cpuid_entry){.function = 1, .eax = 0x1234, .edx = 0x10};
	CHECK_EQ("KVM_SET_CPUID", api->ioctl(m.vcpu, KVM_SET_CPUID, old), 0);
	now = cpuid_of(&m);
	CHECK_EQ("eax", cpuid_leaf(now, 1, 0)->eax, 0x1234);
	CHECK_EQ("edx", cpuid_leaf(now, 1, 0)->edx & 0x10, 0x10);
	CHECK_EQ("no subleaf", cpuid_leaf(now, 1, 0)->flags, 0);
	CHECK_EQ("padding", cpuid_leaf(now, 0, 0)->padding[0], 0);
	RUN_TO(&m, "the guest's", KVM_EXIT_IO);
	CHECK_EQ("the guest's", (uint32_t)regs_of(&m).rbx, 5);
	old->entries[1].eax = 0x1235;
	CHECK_EQ("another, after a run", api->ioctl(m.vcpu, KVM_SET_CPUID, old) < 0 ? -errno : 0, -EINVAL);
	free(now);
	free(old);
	machine_close(&m);
}

static void on_alarm(int sig)
{
	(void)sig;
}

/* HLT without interrupt chips: waits in KVM_RUN for an interrupt that the VMM gives. */
static void test_hlt_stays(void)
{
	struct itimerval soon = {.it_value.tv_usec = 50000};
	struct sigaction a = {.sa_handler = on_alarm};
	struct kvm_interrupt irq = {.irq = 0x20};
	struct machine m;

	machine_vm(&m, GUEST(0xfb, HLT, 0xee, HLT)); /* sti; hlt; out dx,al; hlt */
	memcpy(m.ram + 4 * irq.irq, "\x00\x07\x00\x00", 4);
	m.ram[0x700] = 0xcf; /* iret */
	CHECK_EQ("offered", api->ioctl(m.vm, KVM_CHECK_EXTENSION, KVM_CAP_X86_DISABLE_EXITS) &
		 KVM_X86_DISABLE_EXITS_HLT, KVM_X86_DISABLE_EXITS_HLT);
	must(enable_cap(m.vm, KVM_CAP_X86_DISABLE_EXITS, KVM_X86_DISABLE_EXITS_HLT), "X86_DISABLE_EXITS");
	machine_vcpu(&m);
	sigaction(SIGALRM, &a, NULL);
	setitimer(ITIMER_REAL, &soon, NULL);
	CHECK_EQ("waits", vcpu_run(&m), -EINTR);
	CHECK_EQ("behind HLT", regs_of(&m).rip, CODE + 2);
	must(api->ioctl(m.vcpu, KVM_INTERRUPT, &irq), "KVM_INTERRUPT");
	RUN_TO(&m, "goes on", KVM_EXIT_IO);
	CHECK_EQ("too late", enable_cap(m.vm, KVM_CAP_X86_DISABLE_EXITS, 0) < 0 ? -errno : 0, -EINVAL);
	setitimer(ITIMER_REAL, &soon, NULL);
	CHECK_EQ("waits again", vcpu_run(&m), -EINTR);
	machine_close(&m);
}

/*
 * The TSC deadline needs an in-kernel LAPIC: a capability says so, never this list (api.rst). Found by
 * QEMU with irqchip=off and -cpu max, whose own LAPIC has none: the guest waited for it for ever.
 */
static void test_tsc_deadline(void)
{
	struct kvm_cpuid2 *c = supported_cpuid();

	CHECK_EQ("CPUID.1:ECX[24]", cpuid_leaf(c, 1, 0)->ecx >> 24 & 1, 0);
	CHECK_EQ("KVM_CAP_TSC_DEADLINE_TIMER",
		 api->ioctl(sys, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER), 1);
	free(c);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_runtime_bits();
	test_tsc_deadline();
	test_old_table();
	test_hlt_stays();
	test_cr4();
	if (!api_is_device())
		test_system_features();
	test_mwait();
	test_platform_info();
	test_pv();
	test_send_ipi();
	return api_done();
}
