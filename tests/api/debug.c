// SPDX-License-Identifier: MIT
/*
 * KVM_SET_GUEST_DEBUG: DR7.GD of the debugger, and KVM_GUESTDBG_BLOCKIRQ. Found by the KVM selftest
 * debug_regs. --device: a host's KVM; a PVM host does not do GD.
 */
#include "real.h"

#define VECTOR 0x20
#define EFL_IF (1 << 9)

static long guest_debug(struct machine *m, uint32_t control, uint64_t dr7)
{
	struct kvm_guest_debug d = {.control = control};

	d.arch.debugreg[7] = dr7;
	return api->ioctl(m->vcpu, KVM_SET_GUEST_DEBUG, &d) < 0 ? -errno : 0;
}

static void test_general_detect(void)
{
	struct machine m;

	machine_open(&m, GUEST(0x90, 0x0f, 0x21, 0xc0 /* mov %dr0,%eax */, HLT));
	CHECK_EQ("GD", guest_debug(&m, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP, 0x2400), 0);
	RUN_TO(&m, "GD", KVM_EXIT_DEBUG);
	CHECK_EQ("GD: exception", m.run->debug.arch.exception, 1);
	CHECK_EQ("GD: pc", m.run->debug.arch.pc, CODE + 1);
	CHECK_EQ("GD: dr6", m.run->debug.arch.dr6, 0xffff2ff0);
	CHECK_EQ("off", guest_debug(&m, 0, 0), 0);
	RUN_TO_HLT(&m, "off", CODE + 5);
	machine_close(&m);
}

/* An interrupt that could be taken stays outside while the debugger steps. */
static void test_block_irq(void)
{
	struct kvm_interrupt irq = {.irq = VECTOR};
	struct kvm_regs r;
	struct machine m;

	machine_vm(&m, GUEST(0x90, 0x90, 0x90, HLT));
	must(enable_cap(m.vm, KVM_CAP_SPLIT_IRQCHIP, 24), "split irqchip");
	machine_vcpu(&m);
	m.ram[4 * VECTOR + 1] = 0x7;
	m.ram[0x700] = 0xcf; /* iret */
	r = regs_of(&m);
	r.rflags |= EFL_IF;
	must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
	must(api->ioctl(m.vcpu, KVM_INTERRUPT, &irq), "INTERRUPT");
	guest_debug(&m, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ, 0x400);
	RUN_TO(&m, "step", KVM_EXIT_DEBUG);
	CHECK_EQ("blocked: pc", m.run->debug.arch.pc, CODE + 1);
	RUN_TO(&m, "step", KVM_EXIT_DEBUG);
	CHECK_EQ("blocked: pc", m.run->debug.arch.pc, CODE + 2);
	machine_close(&m);
}

static uint16_t pushed_ip(struct machine *m)
{
	uint16_t ip;

	memcpy(&ip, m->ram + (regs_of(m).rsp & 0xffff), 2);
	return ip;
}

/*
 * The guest's own INT3 is none of the debugger's: QEMU gives it back. The frame points behind it,
 * as if it had not been intercepted. Found by gdb on QEMU's stub: the kernel tests INT3 in its boot.
 */
static void test_int3(void)
{
	struct kvm_vcpu_events e;
	struct machine m;

	machine_open(&m, GUEST(0xcc, 0xcc, HLT));
	guest_debug(&m, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_SW_BP, 0x400);
	RUN_TO(&m, "int3", KVM_EXIT_DEBUG);
	CHECK_EQ("int3: pc", m.run->debug.arch.pc, CODE);
	e = events_of(&m);
	e.exception.injected = 1;
	e.exception.nr = 3;
	must(api->ioctl(m.vcpu, KVM_SET_VCPU_EVENTS, &e), "SET_VCPU_EVENTS");
	RUN_TO_FAULT(&m, "given back", 3);
	CHECK_EQ("given back: pushed", pushed_ip(&m), CODE + 1);
	jump(&m, CODE + 1);
	RUN_TO(&m, "second int3", KVM_EXIT_DEBUG);
	guest_debug(&m, KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP, 0x400);
	RUN_TO_FAULT(&m, "KVM_GUESTDBG_INJECT_BP", 3);
	CHECK_EQ("KVM_GUESTDBG_INJECT_BP: pushed", pushed_ip(&m), CODE + 2);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_general_detect();
	test_block_irq();
	test_int3();
	return api_done();
}
