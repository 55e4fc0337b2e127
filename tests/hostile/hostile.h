/* SPDX-License-Identifier: MIT */
/*
 * The checklist of bad inputs: 90 items, each a named function in one of this folder's
 * programs (names.txt has them all). Every item runs in a process of its own: what kills
 * it is seen, and it cannot harm the next.
 */
#ifndef TESTS_HOSTILE_H
#define TESTS_HOSTILE_H

#include "../api/machine.h"
#include "../api/maps.h"

#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

struct item {
	const char *name;
	void (*run)(void);
};
#define ITEM(name) {#name, name}

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* Under a sanitizer everything takes longer, and some limits make no sense. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif
#define ITEM_SECONDS (SANITIZED ? 600 : 150) /* for the full sizes, on a busy machine */

/* HOSTILE=full: the numbers that are claimed; else a quick run. */
static inline int many(int full, int quick)
{
	const char *s = getenv("HOSTILE");

	return s && !strcmp(s, "full") ? full : quick;
}

static inline uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

/* ---- machines */

#define RAM  0x8000 /* of machine_open: RAM from 0; above is nothing: MMIO in a real-mode segment */
#define CODE 0x1000

static int sys; /* a descriptor of /dev/kvm for what needs no machine */

/* The VM's errno, or the result: what a row of the golden table compares. */
static inline long io(int fd, unsigned long req, unsigned long arg)
{
	long r = api->ioctl(fd, req, arg);

	return r < 0 ? -errno : r;
}
#define iop(fd, req, ptr) io(fd, req, (unsigned long)(ptr))

/* A VM with RAM from 0, and its vCPU; apart, for what comes in between. */
static inline void machine_vm(struct machine *m, size_t size)
{
	m->sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	m->ram_size = size;
	m->ram = pages(size);
	m->vm = must(api->ioctl(m->sys, KVM_CREATE_VM, 0), "CREATE_VM");
	set_slot(m, 0, 0, 0, size, m->ram);
}

static inline void machine_add_vcpu(struct machine *m)
{
	m->vcpu = must(api->ioctl(m->vm, KVM_CREATE_VCPU, 0), "CREATE_VCPU");
	m->run = map_run(m->vcpu);
}

/* A VM with all in-kernel devices and a vCPU. */
static inline void open_full(struct machine *m)
{
	struct kvm_pit_config pit = {0};

	machine_vm(m, RAM);
	CHECK_EQ("irqchip", io(m->vm, KVM_CREATE_IRQCHIP, 0), 0);
	CHECK_EQ("PIT", iop(m->vm, KVM_CREATE_PIT2, &pit), 0);
	machine_add_vcpu(m);
}

/* Real mode, code at 0:0x1000, stack below 0x800. */
static inline void machine_open(struct machine *m, const void *code, size_t n)
{
	struct kvm_sregs s;

	machine_create(m, RAM, false);
	memcpy(m->ram + CODE, code, n);
	s = sregs_of(m);
	s.cs.base = s.cs.selector = 0;
	set_sregs(m, &s);
	set_regs(m, &(struct kvm_regs){.rip = CODE, .rflags = 2, .rsp = 0x800});
}

/* KVM_RUN must return 0 with this exit. */
#define RUN_TO(m, what, reason)                                 \
	do {                                                    \
		CHECK_EQ(what ": KVM_RUN", vcpu_run(m), 0);     \
		CHECK_EQ(what ": exit", (m)->run->exit_reason, reason); \
	} while (0)

struct call {
	unsigned long req;
	const char *name;
};
#define CALL(req) {req, #req}

#define GUEST(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define HLT 0xf4

#define BAD_PTR ((void *)8)

static inline void child_main(const struct item *i)
{
	maps_forbid_wx();
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	i->run();
	if (!passed && !failed)
		printf("checked nothing\n");
	fflush(stdout);
	exit(failed || !passed); /* not _exit: a leak checker may look */
}

static inline int wait_for_item(pid_t pid)
{
	int status;

	for (int ms = 0; ms < ITEM_SECONDS * 1000; ms += 2) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return status;
		sleep_ms(2);
	}
	printf("still running after %d s\n", ITEM_SECONDS);
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return status;
}

static inline bool run_item(const struct item *i)
{
	uint64_t start = now_ns(CLOCK_MONOTONIC);
	int status;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid)
		child_main(i);
	status = wait_for_item(pid);
	if (getenv("V"))
		printf("%s: %d ms\n", i->name, (int)((now_ns(CLOCK_MONOTONIC) - start) / 1000000));
	if (!status) {
		printf("ok %s\n", i->name);
		return true;
	}
	if (WIFSIGNALED(status))
		printf("FAILED %s: killed by %s\n", i->name, strsignal(WTERMSIG(status)));
	else
		printf("FAILED %s: exit status %d\n", i->name, WEXITSTATUS(status));
	return false;
}

/* All items, or those whose names begin with an argument, after `--device` if it is there. */
static inline int hostile_main(int argc, char **argv, const struct item *items, size_t n)
{
	unsigned int good = 0, bad = 0;

	api_args(argc, argv);
	if (api_is_device()) {
		argc--;
		argv++;
	}
	for (size_t k = 0; k < n; k++) {
		bool wanted = argc < 2;

		for (int a = 1; a < argc; a++)
			wanted |= !strncmp(items[k].name, argv[a], strlen(argv[a]));
		if (!wanted)
			continue;
		if (run_item(&items[k]))
			good++;
		else
			bad++;
	}
	printf("%u passed, %u failed\n", good, bad);
	return bad != 0;
}

#define HOSTILE_MAIN(items)                                     \
	int main(int argc, char **argv)                         \
	{                                                       \
		return hostile_main(argc, argv, items, COUNT(items)); \
	}

/* ---- kicks: SIGUSR1 or the alarm sets immediate_exit, as VMMs' handlers do */

static struct kvm_run *volatile kick_run;

static inline void on_kick(int sig)
{
	(void)sig;
	if (kick_run)
		__atomic_store_n(&kick_run->immediate_exit, 1, __ATOMIC_RELEASE);
}

static inline void kick_install(struct machine *m)
{
	struct sigaction sa = {.sa_handler = on_kick};

	kick_run = m->run;
	sigaction(SIGUSR1, &sa, NULL);
	sigaction(SIGVTALRM, &sa, NULL);
	sigaction(SIGALRM, &sa, NULL);
}

static inline void set_timer(int which, int ms)
{
	struct itimerval t = {.it_value = {ms / 1000, ms % 1000 * 1000}};

	setitimer(which, &t, NULL);
}

/* KVM_RUN that ends after `ms` of CPU time at the latest; if it waits, after a while. */
static inline int run_for(struct machine *m, int ms)
{
	int r;

	kick_install(m);
	m->run->immediate_exit = 0;
	set_timer(ITIMER_VIRTUAL, ms);
	set_timer(ITIMER_REAL, ms * 10 + 10);
	r = vcpu_run(m);
	set_timer(ITIMER_VIRTUAL, 0);
	set_timer(ITIMER_REAL, 0);
	m->run->immediate_exit = 0;
	return r;
}

/* Another VM in this process still works. */
static inline void check_neighbour(void)
{
	struct machine m;

	machine_open(&m, GUEST(0xb0, 0x42, 0xe6, 0x10, HLT));
	CHECK_EQ("another VM", vcpu_run(&m), 0);
	CHECK_EQ("another VM: exit", m.run->exit_reason, KVM_EXIT_IO);
	CHECK_EQ("another VM: data", *io_data(&m), 0x42);
	machine_close(&m);
}

#endif
