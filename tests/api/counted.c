// SPDX-License-Identifier: MIT
/*
 * Counted time (src/kvm/counted.h): two runs of one guest are the same run, whatever the machine
 * does meanwhile and whether the emulator walks or not. The guest takes 8 ticks of a PIT in a
 * loop and 8 more in HLT, reads a device at each, and leaves what it saw in its memory.
 */
#include "real.h"

#include <linux/kvm.h>
#include <pthread.h>

#define SEEN	0x5000
#define TICK_NS 1000000u /* 1193 periods of the PIT's 1193182 Hz, to a thousandth */
#define TICKS	8

/* ds:0 is the base. SEEN: ticks, loops, TSC at begin, after the loop, at the end, RDRAND. */
asm(".code16\n"
    "counted_code:\n"
    "	mov $0x11, %al; out %al, $0x20; mov $0x20, %al; out %al, $0x21\n" /* PIC: base 0x20 */
    "	mov $4, %al; out %al, $0x21; mov $1, %al; out %al, $0x21\n"
    "	mov $0xfe, %al; out %al, $0x21\n"
    "	mov $0x34, %al; out %al, $0x43; mov $0xa9, %al; out %al, $0x40; mov $4, %al; out %al, $0x40\n"
    "	rdtsc; mov %eax, 0x5008; sti\n"
    "1:	incl 0x5004; cmpl $8, 0x5000; jb 1b\n"
    "	rdtsc; mov %eax, 0x500c\n"
    "2:	hlt; cmpl $16, 0x5000; jb 2b\n"
    "	rdtsc; mov %eax, 0x5010; rdrand %ecx; mov %ecx, 0x5014\n"
    "	out %al, $0x99\n"
    "counted_tick:\n"
    "	push %ax; mov 0x9000, %al; incl 0x5000; mov $0x20, %al; out %al, $0x20; pop %ax; iret\n"
    "counted_end:\n"
    ".code64\n");
extern const uint8_t counted_code[], counted_tick[], counted_end[];

struct seen {
	uint32_t ticks, loops, begin, middle, end, random;
};

struct result {
	struct seen seen;
	uint64_t insns, reads;
};

/* Something else to do for the host's processors. */
static int busy; /* atomic */

static void *disturb(void *arg)
{
	while (__atomic_load_n(&busy, __ATOMIC_RELAXED))
		;
	return arg;
}

/* IRQ0 comes through the PIC and LINT0, which KVM leaves open in the boot processor's APIC. */
static void open_guest(struct machine *m)
{
	struct kvm_pit_config pit = {0};
	size_t n = counted_end - counted_code;
	uint16_t tick = CODE + (counted_tick - counted_code);

	machine_vm(m, counted_code, n);
	must(api->ioctl(m->vm, KVM_CREATE_IRQCHIP, 0), "CREATE_IRQCHIP");
	must(api->ioctl(m->vm, KVM_CREATE_PIT2, &pit), "CREATE_PIT2");
	m->ram[4 * 0x20] = tick;
	m->ram[4 * 0x20 + 1] = tick >> 8;
	m->ram[4 * 0x20 + 2] = m->ram[4 * 0x20 + 3] = 0;
	machine_vcpu(m);
}

static struct result run_guest(const char *gpa)
{
	struct result r = {0};
	struct machine m;
	int stats;

	setenv("ANYKVM_GPA", gpa, 1);
	open_guest(&m);
	do { /* the device at 0x9000 answers how often it was asked */
		CHECK_EQ("KVM_RUN", vcpu_run(&m), 0);
		memcpy(m.run->mmio.data, &r.reads, 8);
		r.reads += m.run->exit_reason == KVM_EXIT_MMIO;
	} while (m.run->exit_reason == KVM_EXIT_MMIO);
	CHECK_EQ("the guest has come to its end", m.run->exit_reason, KVM_EXIT_IO);
	memcpy(&r.seen, m.ram + SEEN, sizeof(r.seen));
	stats = must(api->ioctl(m.vcpu, KVM_GET_STATS_FD, 0), "GET_STATS_FD");
	r.insns = stat_value(stats, "cpu_insns");
	close(stats);
	machine_close(&m);
	return r;
}

static void test_same(void)
{
	struct result a = run_guest("on"), b;
	pthread_t t[2];

	busy = 1;
	for (int i = 0; i < 2; i++)
		must(-pthread_create(&t[i], NULL, disturb, NULL), "thread");
	for (int i = 0; i < 3; i++) {
		b = run_guest(i ? "on" : "off");
		CHECK_EQ("the same run", memcmp(&a, &b, sizeof(a)), 0);
		CHECK_EQ("instructions", b.insns, a.insns);
		CHECK_EQ("loops", b.seen.loops, a.seen.loops);
		CHECK_EQ("RDRAND", b.seen.random, a.seen.random);
	}
	__atomic_store_n(&busy, 0, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

static bool near(uint64_t got, uint64_t want)
{
	return got >= want - want / 100 - TICK_NS && got <= want + want / 100 + TICK_NS;
}

/* The TSC counts nanoseconds: four for an instruction, and those that the guest slept. */
static void test_rate(void)
{
	struct result r = run_guest("on");

	CHECK_EQ("ticks", r.seen.ticks, 2 * TICKS);
	CHECK_EQ("ticks of the loop", near(r.seen.middle - r.seen.begin, TICKS * TICK_NS), 1);
	CHECK_EQ("ticks of sleep", near(r.seen.end - r.seen.middle, TICKS * TICK_NS), 1);
	CHECK_EQ("loops of 3 instructions", near(r.seen.loops * 12ull, TICKS * TICK_NS), 1);
	CHECK_EQ("each tick read the device", r.reads, 2 * TICKS);
}

static void test_one_vcpu(void)
{
	struct machine m;

	open_guest(&m);
	CHECK_EQ("second vCPU", api->ioctl(m.vm, KVM_CREATE_VCPU, 1) < 0 ? -errno : 0, -EINVAL);
	machine_close(&m);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	if (api_is_device()) /* a host's KVM has no such clock */
		return api_done();
	setenv("ANYKVM_CLOCK", "instructions", 1);
	test_same();
	test_rate();
	test_one_vcpu();
	return api_done();
}
