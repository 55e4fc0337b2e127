// SPDX-License-Identifier: MIT
/*
 * Many VMs in one process: ten run side by side, each its own guest; a hundred are made, run
 * and closed one after another, with every kind of irqchip, and what they took is given back:
 * descriptors, mappings, threads, memory. --device: a host's KVM.
 */
#include "machine.h"
#include "process.h"

#include <pthread.h>

#define NR_VMS	  10
#define NR_CYCLES 100
#define RAM	  0x10000
#define CODE	  0x1000
#define ROUNDS	  2000

/* mov $ROUNDS, %cx; 1: inc %bx; out %al, $0x80; loop 1b; hlt */
static const uint8_t code[] = {0xb9, ROUNDS & 0xff, ROUNDS >> 8, 0x43, 0xe6, 0x80, 0xe2, 0xfb, 0xf4};

static void start_at_code(struct machine *m, uint64_t bx)
{
	struct kvm_regs regs = {.rip = CODE, .rflags = 2, .rbx = bx};
	struct kvm_sregs s;

	memcpy(m->ram + CODE, code, sizeof(code));
	must(api->ioctl(m->vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
	s.cs.base = s.cs.selector = 0;
	must(api->ioctl(m->vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
	must(api->ioctl(m->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
}

/* To the HLT, counting the port's exits. */
static unsigned int run_to_hlt(struct machine *m)
{
	unsigned int exits = 0;

	while (!vcpu_run(m) && m->run->exit_reason == KVM_EXIT_IO)
		exits++;
	return m->run->exit_reason == KVM_EXIT_HLT ? exits : ~0u;
}

static void *one_of_ten(void *arg)
{
	struct machine m;
	unsigned long n = (unsigned long)arg;

	machine_create(&m, RAM, false);
	start_at_code(&m, n << 12);
	n = run_to_hlt(&m) == ROUNDS && regs_of(&m).rbx == (n << 12) + ROUNDS;
	machine_close(&m);
	return (void *)n;
}

static void ten_at_once(void)
{
	pthread_t t[NR_VMS];
	void *ok;

	for (unsigned long n = 0; n < NR_VMS; n++)
		pthread_create(&t[n], NULL, one_of_ten, (void *)n);
	for (unsigned int n = 0; n < NR_VMS; n++) {
		pthread_join(t[n], &ok);
		CHECK_EQ("a VM of ten", (long)ok, 1);
	}
}

struct usage {
	long fds, maps, threads, rss_kb;
};

static struct usage usage(void)
{
	struct usage u = {.fds = entries("/proc/self/fd"), .threads = entries("/proc/self/task")};
	FILE *f = fopen("/proc/self/maps", "r");
	long pages = 0, rss = 0;

	for (int c = getc(f); c != EOF; c = getc(f))
		u.maps += c == '\n';
	fclose(f);
	f = fopen("/proc/self/statm", "r");
	if (fscanf(f, "%ld %ld", &pages, &rss) != 2)
		rss = 0;
	fclose(f);
	u.rss_kb = rss * 4;
	return u;
}

static void split_irqchip(int vm)
{
	struct kvm_enable_cap c = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};

	must(api->ioctl(vm, KVM_ENABLE_CAP, &c), "KVM_CAP_SPLIT_IRQCHIP");
}

/* kind: 0 no irqchip, 1 split, 2 in-kernel with a PIT and a second vCPU that never runs */
static void cycle(unsigned int kind)
{
	struct kvm_pit_config pit = {0};
	struct machine m = {.ram_size = RAM, .ram = pages(RAM)};
	int second = -1;

	m.sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open");
	m.vm = must(api->ioctl(m.sys, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	if (kind == 1)
		split_irqchip(m.vm);
	if (kind == 2) {
		must(api->ioctl(m.vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
		must(api->ioctl(m.vm, KVM_CREATE_PIT2, &pit), "KVM_CREATE_PIT2");
	}
	set_slot(&m, 0, kind ? 0 : KVM_MEM_LOG_DIRTY_PAGES, 0, RAM, m.ram);
	m.vcpu = must(api->ioctl(m.vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
	if (kind == 2)
		second = must(api->ioctl(m.vm, KVM_CREATE_VCPU, 1), "KVM_CREATE_VCPU");
	m.run = map_run(m.vcpu);
	start_at_code(&m, 0);
	for (unsigned int i = 0; i < 10; i++)
		if (vcpu_run(&m) || m.run->exit_reason != KVM_EXIT_IO)
			CHECK_EQ("exit", m.run->exit_reason, KVM_EXIT_IO);
	if (second >= 0)
		api->close(second);
	machine_close(&m);
}

static void a_hundred_in_turn(void)
{
	struct usage before, after;

	for (unsigned int n = 0; n < 6; n++)
		cycle(n % 3);
	before = usage();
	for (unsigned int n = 0; n < NR_CYCLES; n++)
		cycle(n % 3);
	after = usage();
	CHECK_EQ("descriptors", after.fds, before.fds);
	CHECK_EQ("threads", after.threads, before.threads);
#ifdef __SANITIZE_ADDRESS__ /* its quarantine keeps what is freed: memory cannot be compared */
	return;
#endif
	check(after.maps <= before.maps + 2, "mappings", after.maps, before.maps);
	check(after.rss_kb <= before.rss_kb + 2048, "resident KB", after.rss_kb, before.rss_kb);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	ten_at_once();
	a_hundred_in_turn();
	return api_done();
}
