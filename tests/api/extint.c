// SPDX-License-Identifier: MIT
/*
 * The 8259 of a VMM with a split irqchip: its interrupts reach the guest through LINT0 of the
 * in-kernel LAPIC, and only while LINT0 is ExtINT and not masked. QEMU asks for an interrupt window
 * as long as its 8259 has an interrupt, masked or not: the guest must go on meanwhile. Found by
 * moving a guest in its boot to another QEMU. --device: a host's KVM; on a PVM host the window that
 * the guest opens itself comes one exit later.
 */
#include "real.h"

#define LVT0 0x350
#define SPIV 0xf0
#define OUT  0xee /* out dx,al */

static void split_open(struct machine *m, const void *code, size_t n)
{
	struct kvm_cpuid2 *cpuid = supported_cpuid();
	struct kvm_sregs s;

	machine_vm(m, code, n);
	must(enable_cap(m->vm, KVM_CAP_SPLIT_IRQCHIP, 24), "SPLIT_IRQCHIP");
	machine_vcpu(m);
	must(api->ioctl(m->vcpu, KVM_SET_CPUID2, cpuid), "SET_CPUID2");
	s = sregs_of(m);
	s.apic_base |= 0xc00; /* x2APIC: registers by MSR */
	set_sregs(m, &s);
	free(cpuid);
}

static void set_lvt0(struct machine *m, uint32_t v)
{
	struct kvm_lapic_state l;

	must(api->ioctl(m->vcpu, KVM_GET_LAPIC, &l), "GET_LAPIC");
	memcpy(l.regs + LVT0, &v, 4);
	memcpy(l.regs + SPIV, &(uint32_t){0x1ff}, 4); /* enabled, else LINT0 stays masked */
	must(api->ioctl(m->vcpu, KVM_SET_LAPIC, &l), "SET_LAPIC");
}

static void test_window(void)
{
	struct kvm_interrupt irq = {.irq = 0x20};
	struct machine m;

	/* sti; nop; out dx,al; mov eax,0x700; mov ecx,0x835; xor edx,edx; wrmsr; nop; out dx,al */
	split_open(&m, GUEST(0xfb, 0x90, OUT, 0x66, 0xb8, 0x00, 0x07, 0, 0, 0x66, 0xb9, 0x35, 0x08,
			     0, 0, 0x66, 0x31, 0xd2, 0x0f, 0x30, 0x90, OUT, HLT));
	memcpy(m.ram + 4 * 0x20, "\x00\x06\x00\x00", 4); /* vector 0x20: hlt at 0x600 */
	set_lvt0(&m, 0x10700);
	m.run->request_interrupt_window = 1;
	RUN_TO(&m, "LINT0 masked: no window", KVM_EXIT_IO);
	CHECK_EQ("LINT0 masked: not ready", m.run->ready_for_interrupt_injection, 0);
	RUN_TO(&m, "the guest unmasks LINT0", KVM_EXIT_IRQ_WINDOW_OPEN);
	CHECK_EQ("at once", regs_of(&m).rip, CODE + 20);
	CHECK_EQ("ready", m.run->ready_for_interrupt_injection, 1);
	must(api->ioctl(m.vcpu, KVM_INTERRUPT, &irq), "KVM_INTERRUPT");
	m.run->request_interrupt_window = 0;
	m.ram[0x600] = OUT;
	RUN_TO(&m, "delivered", KVM_EXIT_IO);
	CHECK_EQ("its handler", regs_of(&m).rip & ~1ull, 0x600);
	machine_close(&m);
}

/* A vector that came before LINT0 was masked waits, and the guest goes on. */
static void test_waits(void)
{
	struct kvm_interrupt irq = {.irq = 0x20};
	struct machine m;

	split_open(&m, GUEST(0xfb, 0x90, OUT, OUT, HLT));
	memcpy(m.ram + 4 * 0x20, "\x00\x06\x00\x00", 4);
	m.ram[0x600] = OUT;
	set_lvt0(&m, 0x10700);
	must(api->ioctl(m.vcpu, KVM_INTERRUPT, &irq), "KVM_INTERRUPT");
	RUN_TO(&m, "masked", KVM_EXIT_IO);
	CHECK_EQ("masked: rip", regs_of(&m).rip & ~1ull, CODE + 2);
	set_lvt0(&m, 0x700);
	RUN_TO(&m, "unmasked", KVM_EXIT_IO);
	CHECK_EQ("unmasked: rip", regs_of(&m).rip & ~1ull, 0x600);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	test_window();
	test_waits();
	return api_done();
}
