// SPDX-License-Identifier: MIT
/*
 * A running guest moves to a fresh VM, again and again: all that KVM_GET_* says goes into another VM
 * by KVM_SET_*, must be read there again the same, and the guest goes on: with the in-kernel
 * interrupt chips, the split and none. The guest counts, reads a device, halts, and is interrupted by
 * PIT, LAPIC timer and KVM_INTERRUPT; it is moved at any of its exits, in HLT, and with an access to a
 * device or an injected interrupt still under way (completed first, api.rst on KVM_RUN).
 * SEED=N repeats the moments.
 */
#include "real.h"
#include "state.h"

#include <signal.h>
#include <sys/time.h>

#define MOVES	 60
#define MMIO	 0x9000
#define IRQ_PIC	 0x20
#define IRQ_TICK 0x21

/* In the guest's memory: */
#define IN_KIND	 0x6c0
#define IN_XMM	 0x6d0 /* where the guest writes XMM3, which it has loaded from behind it, once */
#define IN_COUNT 0x700 /* of its loop */
#define IN_ECHO	 0x704 /* what the device has said */
#define IN_IRQS	 0x708 /* IRQ_PIC, IRQ_TICK */

__asm__(".pushsection .rodata; .code16; guest:;"
	"movw $0x1000 + on_pic - guest, 0x80; movw $0x1000 + on_tick - guest, 0x84;"
	"movups 0x6e0, %xmm3; fld1; mov $0x12345, %eax; mov %eax, %dr1;"
	"cmpb $0, 0x6c0; je loop;"
	"xor %edx, %edx; mov $0x80f, %ecx; mov $0x1ff, %eax; wrmsr;"   /* SPIV: on */
	"mov $0x832, %ecx; mov $0x20021, %eax; wrmsr;"		       /* timer: periodic, IRQ_TICK */
	"mov $0x83e, %ecx; mov $0xb, %eax; wrmsr; mov $0x838, %ecx; mov $500000, %eax; wrmsr;"
	"mov $0x835, %ecx; mov $0x700, %eax; wrmsr;"		       /* LINT0: ExtINT */
	"cmpb $2, 0x6c0; jne loop;"
	"mov $0x11, %al; out %al, $0x20; mov $0x20, %al; out %al, $0x21;" /* 8259: vector 0x20 */
	"mov $4, %al; out %al, $0x21; mov $1, %al; out %al, $0x21; mov $0xfe, %al; out %al, $0x21;"
	"mov $0x34, %al; out %al, $0x43; mov $0, %al; out %al, $0x40; mov $4, %al; out %al, $0x40;"
	"loop: sti; incl 0x700; mov 0x700, %eax; mov $0x10, %dx; out %eax, %dx;"
	"mov 0x9000, %ebx; mov %ebx, 0x704; movups %xmm3, 0x6d0;"
	"testb $7, %al; jnz loop; hlt; jmp loop;"
	"on_pic: incl 0x708; push %ax; mov $0x20, %al; out %al, $0x20; pop %ax; iret;"
	"on_tick: incl 0x70c; push %eax; push %ecx; push %edx; mov $0x80b, %ecx; xor %eax, %eax;"
	"xor %edx, %edx; wrmsr; pop %edx; pop %ecx; pop %eax; iret;"
	"guest_end: .code64; .popsection");
extern const uint8_t guest[], guest_end[];

static struct kvm_cpuid2 *cpuid;
static const char *const names[] = {"off", "split", "on"};

static uint32_t word(const struct machine *m, size_t at)
{
	uint32_t v;

	memcpy(&v, m->ram + at, 4);
	return v;
}

/* A VM around memory that is there already; nothing but the chips' kind is decided here. */
static void vm_make(struct machine *m, enum kind kind)
{
	m->sys = sys;
	m->vm = must(api->ioctl(sys, KVM_CREATE_VM, 0), "CREATE_VM");
	if (kind == SPLIT)
		must(enable_cap(m->vm, KVM_CAP_SPLIT_IRQCHIP, 24), "SPLIT_IRQCHIP");
	if (kind == ON) {
		must(api->ioctl(m->vm, KVM_CREATE_IRQCHIP, 0), "CREATE_IRQCHIP");
		must(api->ioctl(m->vm, KVM_CREATE_PIT2, &(struct kvm_pit_config){0}), "CREATE_PIT2");
	}
	set_slot(m, 0, 0, 0, RAM, m->ram);
	m->vcpu = must(api->ioctl(m->vm, KVM_CREATE_VCPU, 0), "CREATE_VCPU");
	m->run = map_run(m->vcpu);
	must(api->ioctl(m->vcpu, KVM_SET_CPUID2, cpuid), "SET_CPUID2");
}

static void vm_unmake(struct machine *m)
{
	api->munmap(m->run, 12288);
	api->close(m->vcpu);
	api->close(m->vm);
}

/* The source is gone before the guest goes on. */
static void move(struct machine *m, enum kind kind)
{
	struct machine to = {.ram = m->ram, .ram_size = m->ram_size};
	static struct state s;

	m->run->immediate_exit = 1;
	CHECK_EQ("completed", vcpu_run(m), -EINTR);
	state_save(m->vm, m->vcpu, kind, &s);
	vm_make(&to, kind);
	state_restore(to.vm, to.vcpu, kind, &s);
	vm_unmake(m);
	*m = to;
}

/* ---- the VMM */

static struct kvm_run *volatile running; /* NULL: none, between two VMs */

static void on_alarm(int sig)
{
	struct kvm_run *run = running;

	(void)sig;
	if (run)
		run->immediate_exit = 1;
}

static void guest_load(struct machine *m, enum kind kind)
{
	struct kvm_sregs s;

	memset(m->ram, 0, RAM);
	memcpy(m->ram + CODE, guest, guest_end - guest);
	m->ram[IN_KIND] = kind;
	memcpy(m->ram + IN_XMM + 16, "what XMM3 has in", 16);
	s = sregs_of(m);
	s.cs.base = s.cs.selector = 0;
	s.cr4 |= 0x200; /* OSFXSR */
	if (kind != OFF)
		s.apic_base |= 0xc00; /* x2APIC */
	set_sregs(m, &s);
	set_regs(m, &(struct kvm_regs){.rip = CODE, .rflags = 2, .rsp = 0x600});
}

/* One exit. The number of interrupts given to the guest grows in *given. */
static void serve(struct machine *m, enum kind kind, uint32_t *n, uint32_t *given)
{
	int r;

	running = m->run;
	if (kind != ON && m->run->ready_for_interrupt_injection && rand() % 4 == 0) {
		must(api->ioctl(m->vcpu, KVM_INTERRUPT, &(struct kvm_interrupt){IRQ_PIC}), "INTERRUPT");
		++*given;
		m->run->immediate_exit = rand() % 4 == 0; /* it stays under way */
	}
	m->run->request_interrupt_window = kind != ON && rand() % 8 == 0;
	r = vcpu_run(m);
	m->run->immediate_exit = 0;
	if (r == -EINTR)
		return;
	CHECK_EQ("KVM_RUN", r, 0);
	if (m->run->exit_reason == KVM_EXIT_IO && m->run->io.port == 0x10)
		CHECK_EQ("the guest counts on", *(uint32_t *)io_data(m), ++*n);
	else if (m->run->exit_reason == KVM_EXIT_MMIO)
		memcpy(m->run->mmio.data, n, 4);
	else if (m->run->exit_reason != KVM_EXIT_IRQ_WINDOW_OPEN && m->run->exit_reason != KVM_EXIT_IO)
		CHECK_EQ("exit", m->run->exit_reason, KVM_EXIT_HLT);
}

static void test_kind(enum kind kind)
{
	struct machine m = {.ram = pages(RAM), .ram_size = RAM};
	struct itimerval often = {{0, 3000}, {0, 3000}}, never = {0};
	uint32_t n = 0, given = 0, ticks = 0, pit = 0;

	vm_make(&m, kind);
	guest_load(&m, kind);
	setitimer(ITIMER_REAL, &often, NULL);
	for (int k = 0; k < MOVES && !failed; k++) {
		ticks = word(&m, IN_IRQS + 4);
		pit = word(&m, IN_IRQS);
		for (int exits = rand() % 40; exits >= 0; exits--)
			serve(&m, kind, &n, &given);
		while (!failed && ((kind != OFF && word(&m, IN_IRQS + 4) == ticks) ||
				   (kind == ON && word(&m, IN_IRQS) == pit)))
			serve(&m, kind, &n, &given); /* the timers go on */
		running = NULL;
		move(&m, kind);
	}
	for (uint32_t end = n + 2; n < end && !failed;)
		serve(&m, kind, &n, &given);
	running = NULL;
	setitimer(ITIMER_REAL, &never, NULL);
	CHECK_EQ("XMM3", memcmp(m.ram + IN_XMM, m.ram + IN_XMM + 16, 16), 0);
	if (kind != ON) /* one may be under way */
		CHECK_EQ("each interrupt came once", given - word(&m, IN_IRQS) <= 1, 1);
	CHECK_EQ("the device's answer", n - word(&m, IN_ECHO) <= 1, 1);
	if (failed)
		printf("irqchip %s, after %u, %u of %u interrupts\n", names[kind], n,
		       word(&m, IN_IRQS), given);
	vm_unmake(&m);
	munmap(m.ram, RAM);
}

int main(int argc, char **argv)
{
	const char *seed = getenv("SEED");
	struct sigaction sa = {.sa_handler = on_alarm};

	api_args(argc, argv);
	sigaction(SIGALRM, &sa, NULL);
	srand(seed ? atoi(seed) : getpid());
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	cpuid = supported_cpuid();
	state_init(sys);
	for (enum kind kind = OFF; kind <= ON; kind++)
		test_kind(kind);
	return api_done();
}
