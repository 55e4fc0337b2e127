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

#include <signal.h>
#include <sys/time.h>

enum kind { OFF, SPLIT, ON };

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

struct state {
	struct kvm_regs regs;
	struct kvm_sregs2 sregs;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs;
	struct kvm_debugregs debug;
	struct kvm_mp_state mp;
	struct kvm_vcpu_events events;
	struct kvm_lapic_state lapic;
	struct kvm_irqchip chip[3];
	struct kvm_pit_state2 pit;
	struct kvm_clock_data clock;
	struct {
		struct kvm_msrs h;
		struct kvm_msr_entry e[512];
	} msrs;
	long tsc_khz;
};

static struct kvm_cpuid2 *cpuid;
static struct {
	struct kvm_msr_list h;
	uint32_t index[512];
} msr_list = {.h.nmsrs = 512};
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

#define GET(fd, name, what) must(api->ioctl(fd, KVM_GET_##name, what), "GET_" #name)
#define SET(fd, name, what) must(api->ioctl(fd, KVM_SET_##name, what), "SET_" #name)

static void save(struct machine *m, enum kind kind, struct state *s)
{
	memset(s, 0, sizeof(*s));
	s->tsc_khz = must(api->ioctl(m->vcpu, KVM_GET_TSC_KHZ, 0), "GET_TSC_KHZ");
	GET(m->vm, CLOCK, &s->clock);
	for (uint32_t i = 0; kind == ON && i < 3; i++) {
		s->chip[i].chip_id = i;
		GET(m->vm, IRQCHIP, &s->chip[i]);
	}
	if (kind == ON)
		GET(m->vm, PIT2, &s->pit);
	if (kind != OFF)
		GET(m->vcpu, LAPIC, &s->lapic);
	GET(m->vcpu, VCPU_EVENTS, &s->events);
	GET(m->vcpu, MP_STATE, &s->mp);
	GET(m->vcpu, REGS, &s->regs);
	GET(m->vcpu, SREGS2, &s->sregs);
	GET(m->vcpu, XSAVE, &s->xsave);
	GET(m->vcpu, XCRS, &s->xcrs);
	GET(m->vcpu, DEBUGREGS, &s->debug);
	s->msrs.h.nmsrs = msr_list.h.nmsrs;
	for (uint32_t i = 0; i < msr_list.h.nmsrs; i++)
		s->msrs.e[i].index = msr_list.index[i];
	CHECK_EQ("all MSRs are read", GET(m->vcpu, MSRS, &s->msrs), msr_list.h.nmsrs);
}

/* The PIT apart: it ticks as soon as it is set, and the chips are compared before. */
static void restore(struct machine *m, enum kind kind, struct state *s)
{
	must(api->ioctl(m->vcpu, KVM_SET_TSC_KHZ, s->tsc_khz), "SET_TSC_KHZ");
	s->clock.flags = 0;
	SET(m->vm, CLOCK, &s->clock);
	SET(m->vcpu, SREGS2, &s->sregs);
	SET(m->vcpu, REGS, &s->regs);
	SET(m->vcpu, XCRS, &s->xcrs);
	SET(m->vcpu, XSAVE, &s->xsave);
	CHECK_EQ("all MSRs are set", SET(m->vcpu, MSRS, &s->msrs), msr_list.h.nmsrs);
	for (uint32_t i = 0; kind == ON && i < 3; i++)
		SET(m->vm, IRQCHIP, &s->chip[i]);
	if (kind != OFF)
		SET(m->vcpu, LAPIC, &s->lapic);
	SET(m->vcpu, MP_STATE, &s->mp);
	s->events.flags |= KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR;
	SET(m->vcpu, VCPU_EVENTS, &s->events);
	SET(m->vcpu, DEBUGREGS, &s->debug);
}

/* What goes on by itself between two looks is left out: clocks, and what the LAPIC's timer changes. */
static void forget_time(struct state *s)
{
	static const uint32_t clocks[] = {0x10 /* TSC */, 0x3b /* TSC_ADJUST */};

	memset(s->lapic.regs + 0x390, 0, 4);			 /* its count */
	s->lapic.regs[0x200 + IRQ_TICK / 32 * 16] &= ~(1u << IRQ_TICK % 32); /* IRR */
	memset(s->lapic.regs + 0xa0, 0, 4);			 /* PPR */
	for (uint32_t i = 0; i < s->msrs.h.nmsrs; i++)
		for (size_t k = 0; k < sizeof(clocks) / 4; k++)
			if (s->msrs.e[i].index == clocks[k])
				s->msrs.e[i].data = 0;
	s->events.flags = 0;
	memset(&s->clock, 0, sizeof(s->clock));
	for (int i = 0; i < 3; i++)
		s->pit.channels[i].count_load_time = 0;
}

static void same(const char *what, const void *a, const void *b, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (((const uint8_t *)a)[i] != ((const uint8_t *)b)[i]) {
			printf("%s: byte %#zx: ", what, i);
			CHECK_EQ("restored", ((const uint8_t *)b)[i], ((const uint8_t *)a)[i]);
			return;
		}
	passed++;
}

static void compare(struct state *a, struct state *b)
{
	forget_time(a);
	forget_time(b);
#define SAME(field) same(#field, &a->field, &b->field, sizeof(a->field))
	SAME(regs), SAME(sregs), SAME(xsave), SAME(xcrs), SAME(debug), SAME(mp), SAME(events);
	SAME(lapic), SAME(chip), SAME(msrs), SAME(tsc_khz);
}

/* The source is gone before the guest goes on. */
static void move(struct machine *m, enum kind kind)
{
	struct machine to = {.ram = m->ram, .ram_size = m->ram_size};
	static struct state a, b;
	struct kvm_pit_state2 pit;

	m->run->immediate_exit = 1;
	CHECK_EQ("completed", vcpu_run(m), -EINTR);
	save(m, kind, &a);
	pit = a.pit;
	vm_make(&to, kind);
	restore(&to, kind, &a);
	a.pit = (struct kvm_pit_state2){0};
	save(&to, kind, &b);
	b.pit = a.pit;
	compare(&a, &b);
	if (kind == ON)
		SET(to.vm, PIT2, &pit);
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
	must(api->ioctl(sys, KVM_GET_MSR_INDEX_LIST, &msr_list), "GET_MSR_INDEX_LIST");
	for (enum kind kind = OFF; kind <= ON; kind++)
		test_kind(kind);
	return api_done();
}
