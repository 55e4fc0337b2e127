// SPDX-License-Identifier: MIT
/* Items 36 and 39 to 43: memory slots under a guest, limits, the process around us, interrupts. */
#include "modes.h"

#include "../api/process.h"

#include <malloc.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

/* ---- 36: memory slots under a running guest */

static void slot_of(struct machine *m, uint32_t id, uint64_t gpa, uint64_t size, void *hva)
{
	struct kvm_userspace_memory_region r = {id, 0, gpa, size, (uint64_t)hva};

	CHECK_EQ("slot", iop(m->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
}

static int stop;  /* atomic */
static long runs; /* atomic: how often KVM_RUN returned, or its error */

static void *run_until_stopped(void *m)
{
	while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
		int r = vcpu_run(m);

		if (r && r != -EINTR) {
			__atomic_store_n(&runs, r, __ATOMIC_RELAXED);
			break;
		}
		__atomic_fetch_add(&runs, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void h36_slots_under_a_guest(void)
{
	uint8_t *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct machine m;
	pthread_t t;

	/* l: mov [0x9000],ax; mov bx,[0x9100]; jmp l: RAM or MMIO, as the moment will have it */
	machine_open(&m, GUEST(0xa3, 0x00, 0x90, 0x8b, 0x1e, 0x00, 0x91, 0xeb, 0xf7));
	slot_of(&m, 1, 0x9000, 4096, page);
	pthread_create(&t, NULL, run_until_stopped, &m);
	for (int k = 0; k < many(3000, 200) || !__atomic_load_n(&runs, __ATOMIC_RELAXED); k++) {
		slot_of(&m, 1, 0x20000, 4096, page);
		slot_of(&m, 1, 0x9000, 4096, page);
		slot_of(&m, 1, 0, 0, NULL);
		mprotect(page, 4096, PROT_NONE); /* nobody may touch it now */
		mprotect(page, 4096, PROT_READ | PROT_WRITE);
		slot_of(&m, 1, 0x9000, 4096, k & 1 ? page : page + 4096);
		slot_of(&m, 1, 0, 0, NULL);
		slot_of(&m, 1, 0x9000, 4096, page);
	}
	__atomic_store_n(&stop, 1, __ATOMIC_RELAXED);
	slot_of(&m, 1, 0, 0, NULL);
	pthread_join(t, NULL);
	CHECK_EQ("KVM_RUN", runs > 0, 1);
	machine_close(&m);
	munmap(page, 8192);
}

/* ---- 39: limits */

static int try_machine(void)
{
	int vm = api->ioctl(sys, KVM_CREATE_VM, 0), vcpu = -1, err;

	if (vm >= 0)
		vcpu = api->ioctl(vm, KVM_CREATE_VCPU, 0);
	err = vm < 0 || vcpu < 0 ? errno : 0;
	if (vcpu >= 0)
		api->close(vcpu);
	if (vm >= 0)
		api->close(vm);
	return err;
}

static void h39_limits(void)
{
	int fds = entries("/proc/self/fd"), maps;
	struct rlimit old, l;

	try_machine();
	maps = entries("/proc/self/map_files");
	getrlimit(RLIMIT_NOFILE, &old);
	for (int n = 0; n < 12; n++) {
		int err;

		l = (struct rlimit){fds - 3 + n, old.rlim_max};
		setrlimit(RLIMIT_NOFILE, &l);
		err = try_machine();
		setrlimit(RLIMIT_NOFILE, &old);
		check(!err || err == EMFILE, "few descriptors", err, EMFILE);
	}
	CHECK_EQ("descriptors left", entries("/proc/self/fd"), fds);
	CHECK_EQ("works again", try_machine(), 0);
	if (SANITIZED)
		return; /* their shadow does not fit into any limit */
	getrlimit(RLIMIT_AS, &old);
	for (int mb = 4; mb < 400; mb += 4) {
		int err;

		l = (struct rlimit){mb << 20, old.rlim_max};
		setrlimit(RLIMIT_AS, &l);
		err = try_machine();
		setrlimit(RLIMIT_AS, &old);
		check(!err || err == ENOMEM || err == EAGAIN, "little address space", err, ENOMEM);
	}
	CHECK_EQ("works again", try_machine(), 0);
	CHECK_EQ("mappings left", entries("/proc/self/map_files") <= maps + 4, 1);
}

static void h40_eventfd_closed_while_armed(void)
{
	for (int k = 0; k < many(200, 20); k++) {
		struct kvm_ioeventfd e = {.addr = 0x10, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO};
		struct kvm_irqfd irq = {.gsi = 4};
		struct kvm_pit_config pit = {0};
		struct kvm_pit_state2 state;
		struct machine m;
		uint64_t one = 1;
		int fd[2] = {eventfd(0, EFD_NONBLOCK), eventfd(0, EFD_NONBLOCK)};

		/* out 0x10,al; mov [0x9000],al */
		machine_vm(&m, RAM);
		CHECK_EQ("irqchip", io(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
		CHECK_EQ("PIT", iop(m.vm, KVM_CREATE_PIT2, &pit), 0);
		machine_add_vcpu(&m);
		e.fd = fd[0];
		irq.fd = fd[1];
		CHECK_EQ("ioeventfd", iop(m.vm, KVM_IOEVENTFD, &e), 0);
		CHECK_EQ("irqfd", iop(m.vm, KVM_IRQFD, &irq), 0);
		CHECK_EQ("signal", write(fd[1], &one, 8), 8);
		iop(m.vm, KVM_GET_PIT2, &state);
		state.channels[0].mode = 2;
		state.channels[0].count = 100; /* fires all the time */
		state.channels[0].count_load_time = 0;
		CHECK_EQ("PIT runs", iop(m.vm, KVM_SET_PIT2, &state), 0);
		close(fd[0]);
		close(fd[1]);
		if (k & 1)
			sleep_ms(1);
		machine_close(&m); /* with all of it armed */
	}
	check_neighbour();
}

/* ---- 41: the process has handlers, a filter and floating-point state of its own */

static volatile int segv;

static void on_segv(int sig, siginfo_t *info, void *context)
{
	(void)sig, (void)context;
	segv++;
	mprotect((void *)((uint64_t)info->si_addr & ~4095ull), 4096, PROT_READ | PROT_WRITE);
}

/* Leave vector, x87 and control state behind that the client would notice. */
CODE_TEXT(wild_fpu, 64,
	"pxor %xmm0, %xmm0; pcmpeqd %xmm1, %xmm1; movdqa %xmm1, %xmm7; fninit; fldpi; fldpi;"
	"movl $0x027f0000, 0x100000; fldcw 0x100002; movl $0xffc0, 0x100010; ldmxcsr 0x100010;"
	"std; out %al, $0x10; hlt")

static void check_fpu(struct machine *m)
{
	uint32_t mxcsr = 0x7f80, after; /* flush to zero, round to zero */
	uint16_t cw = 0x0c7f, cw_after;
	uint64_t flags;
	char before[512] __attribute__((aligned(16))), fx[512] __attribute__((aligned(16)));

	asm volatile("ldmxcsr %0; fldcw %1" : : "m"(mxcsr), "m"(cw));
	asm volatile("fxsave64 %0" : "=m"(before));
	CHECK_EQ("KVM_RUN", vcpu_run(m), 0);
	asm volatile("fxsave64 %0; stmxcsr %1; fnstcw %2; pushfq; pop %3"
		     : "=m"(fx), "=m"(after), "=m"(cw_after), "=r"(flags));
	CHECK_EQ("MXCSR", after & ~0x3f, mxcsr & ~0x3f);
	CHECK_EQ("x87 control word", cw_after, cw);
	CHECK_EQ("x87 tags", fx[4], before[4]);
	CHECK_EQ("direction flag", flags & 0x400, 0);
	mxcsr = 0x1f80;
	asm volatile("ldmxcsr %0; fninit" : : "m"(mxcsr));
}

static void h41_hosts_own_state(void)
{
	struct sigaction sa = {.sa_sigaction = on_segv, .sa_flags = SA_SIGINFO};
	char *mine = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int status;
	struct machine m;
	pid_t pid;

	sigaction(SIGSEGV, &sa, NULL);
	mode_open(&m, LONG, TEXT_OF(wild_fpu));
	check_fpu(&m);
	check_fpu(&m);
	*(volatile char *)mine = 1; /* the handler is still the program's */
	CHECK_EQ("the program's SIGSEGV", segv, 1);
	machine_close(&m);
	if (SANITIZED)
		return; /* their run-time makes calls of its own */
	pid = fork();
	if (!pid) {
		/* l: out 0x10,al; mov [0x9000],al; mov al,[0x9000]; jmp l */
		passed = failed = 0;
		machine_open(&m, GUEST(0xe6, 0x10, 0xa2, 0, 0x90, 0xa0, 0, 0x90, 0xeb, 0xf6));
		must(confine(), "seccomp");
		for (int k = 0; k < 3000; k++)
			check(!api->ioctl(m.vcpu, KVM_RUN, 0), "KVM_RUN", -1, 0);
		syscall(SYS_exit_group, failed != 0);
	}
	waitpid(pid, &status, 0);
	CHECK_EQ("under seccomp", status, 0);
}

static long rss_pages(void)
{
	FILE *f;
	long size, rss = 0;

	malloc_trim(0); /* what malloc keeps for later is no leak */
	f = fopen("/proc/self/statm", "r");

	if (fscanf(f, "%ld %ld", &size, &rss) != 2)
		rss = 0;
	fclose(f);
	return rss;
}

static void h42_no_growth(void)
{
	int fds = 0, maps = 0, rounds = many(64, 10);
	struct machine m[8];
	long rss = 0;

	for (int round = 0; round < rounds; round++) {
		for (size_t k = 0; k < COUNT(m); k++)
			machine_open(&m[k], GUEST(0xa2, 0, 0x90, HLT));
		for (size_t k = 0; k < COUNT(m); k++)
			RUN_TO(&m[k], "run", KVM_EXIT_MMIO);
		for (size_t k = 0; k < COUNT(m); k++)
			machine_close(&m[k]);
		if (round == 2) {
			fds = entries("/proc/self/fd");
			maps = entries("/proc/self/map_files");
			rss = rss_pages();
		}
	}
	CHECK_EQ("descriptors", entries("/proc/self/fd"), fds);
	if (SANITIZED)
		return;
	CHECK_EQ("threads", entries("/proc/self/task"), 3); /* with . and .. */
	CHECK_EQ("mappings", entries("/proc/self/map_files") <= maps + 2, 1);
	CHECK_EQ("resident pages", rss_pages() <= rss + 256, 1);
}

/* ---- 43: interrupts between processors */

#define CPUS 4
#define RUNS 0x500 /* byte per CPU: interrupts taken */

/*
 * Real mode with a flat ES for the APIC (unreal): send a fixed IPI, vector 0x40, to all
 * but self, over and over; the handler counts and ends the interrupt.
 */
CODE_TEXT(storm, 16,
	"movl $0xc4040, %es:0x300; hlt; jmp storm_code\n"
	".org storm_code + 0x40\n" /* the handler */
	"lock incw %ds:0x500; movl $0, %es:0xb0; iret")

static void start_cpu(struct machine *m, unsigned int k, const struct kvm_sregs *boot)
{
	struct kvm_regs regs = {.rip = CODE, .rflags = 0x202, .rsp = 0x700 + 0x40 * k};
	struct kvm_mp_state run = {KVM_MP_STATE_RUNNABLE};
	struct kvm_sregs s = *boot;
	struct kvm_lapic_state l;

	s.cs.base = s.cs.selector = 0;
	s.es.base = 0xfee00000;
	must(api->ioctl(m->vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
	must(api->ioctl(m->vcpu, KVM_SET_REGS, &regs), "SET_REGS");
	must(api->ioctl(m->vcpu, KVM_SET_MP_STATE, &run), "MP_STATE");
	must(api->ioctl(m->vcpu, KVM_GET_LAPIC, &l), "GET_LAPIC");
	memcpy(l.regs + 0xf0, &(uint32_t){0x1ff}, 4); /* software enable */
	must(api->ioctl(m->vcpu, KVM_SET_LAPIC, &l), "SET_LAPIC");
}

static void h43_interrupt_storm(void)
{
	struct machine m[CPUS];
	pthread_t t[CPUS];
	struct kvm_sregs boot;
	uint16_t count;

	machine_vm(&m[0], RAM);
	CHECK_EQ("irqchip", io(m[0].vm, KVM_CREATE_IRQCHIP, 0), 0);
	memcpy(m[0].ram + CODE, TEXT_OF(storm));
	memcpy(m[0].ram + 0x40 * 4, &(uint32_t){CODE + 0x40}, 4);
	for (int k = 0; k < CPUS; k++) {
		if (k)
			m[k] = m[0];
		m[k].vcpu = must(api->ioctl(m[0].vm, KVM_CREATE_VCPU, k), "vcpu");
		m[k].run = api->mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, m[k].vcpu, 0);
	}
	must(api->ioctl(m[0].vcpu, KVM_GET_SREGS, &boot), "GET_SREGS");
	boot.apic_base |= 0x800;
	for (int k = 0; k < CPUS; k++)
		start_cpu(&m[k], k, &boot);
	for (int k = 0; k < CPUS; k++)
		pthread_create(&t[k], NULL, run_thread, &m[k]);
	for (int n = 0; n < many(200, 30); n++) {
		struct kvm_msi msi = {.address_lo = 0xfee00000 | (n % CPUS) << 12, .data = 0x40};

		iop(m[0].vm, KVM_SIGNAL_MSI, &msi);
		sleep_ms(2);
	}
	for (int k = 0; k < CPUS; k++)
		__atomic_store_n(&m[k].run->immediate_exit, 1, __ATOMIC_RELEASE);
	kick_install(&m[0]);
	for (int k = 0; k < CPUS; k++) {
		void *r;

		for (int n = 0; pthread_tryjoin_np(t[k], &r); n++) {
			pthread_kill(t[k], SIGUSR1); /* ends a wait in HLT */
			sleep_ms(1);
		}
		CHECK_EQ("KVM_RUN", (long)r, -EINTR);
	}
	memcpy(&count, m[0].ram + RUNS, 2);
	printf("h43: %u interrupts\n", count);
	CHECK_EQ("interrupts were taken", count > 20, 1);
	for (int k = 1; k < CPUS; k++) {
		api->munmap(m[k].run, 12288);
		api->close(m[k].vcpu);
	}
	machine_close(&m[0]);
}

static const struct item items[] = {
	ITEM(h36_slots_under_a_guest), ITEM(h39_limits), ITEM(h40_eventfd_closed_while_armed),
	ITEM(h41_hosts_own_state), ITEM(h42_no_growth), ITEM(h43_interrupt_storm),
};

HOSTILE_MAIN(items)
