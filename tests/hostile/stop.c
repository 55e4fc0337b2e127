// SPDX-License-Identifier: MIT
/*
 * Item 69: a guest that never ends by itself can always be stopped, soon. And while such guests
 * run, no page of the process is writable and executable. With --device it is a VMM under the
 * launcher: its handler of the signal does nothing, so that the signal alone stops the guest.
 *
 * Measured from the signal to the end of KVM_RUN, once by the clock and once in CPU time of
 * the guest's thread: on a busy machine the first also measures the others. Judged is the second.
 */
#include "modes.h"

/* ---- guests without an end */

CODE_TEXT(jump_self, 64, "jmp .")
CODE_TEXT(jump_two, 64, "1: jmp 2f; .skip 5000; 2: jmp 1b")
CODE_TEXT(call_ret, 64, "1: call 2f; jmp 1b; 2: ret")
CODE_TEXT(rep_long, 64, "mov $-1, %rcx; mov $0x400000, %esi; mov $0x800000, %edi; cld; rep movsb; hlt")
CODE_TEXT(rep_scan, 64, "mov $-1, %rcx; mov $0x400000, %edi; mov $1, %al; cld; repne scasb; hlt")
/* #PF, whose handler returns to the same */
CODE_TEXT(fault_loop, 64, "mov 0x100000, %eax; hlt")
/* #DB after every instruction; handler IRETs */
CODE_TEXT(step_loop, 64, "pushfq; orl $0x100, (%rsp); popfq; 1: nop; jmp 1b")
CODE_TEXT(ud_loop, 64, "ud2")
CODE_TEXT(invlpg_loop, 64, "1: invlpg 0x100000; mov %cr3, %rax; mov %rax, %cr3; jmp 1b")
CODE_TEXT(smc_loop, 64, "1: incb 2f+1(%rip); 2: mov $0, %al; jmp 1b")
/* CPL 3, EFLAGS.AC, CR0.AM: the handler runs at CPL 3 on a stack that is not aligned, where the
   delivery of #AC raises #AC on hardware (XSA-156); here it is the handler that raises it */
CODE_TEXT(ac_loop, 32, "pushf; orl $0x40000, (%esp); popf; mov $0x80001, %esp; mov 0x100001, %eax; hlt")
/* the same with a data breakpoint on the stack: the delivery of #DB raises #DB */
CODE_TEXT(db_loop, 64,
	"mov $0x8fff8, %eax; mov %rax, %dr0; mov $0xf0303, %eax; mov %rax, %dr7; mov %eax, 0x8fff8; hlt")

struct endless {
	const char *name;
	enum mode mode;
	const uint8_t *code, *end;
	int vector;	      /* its handler is... */
	const char *handler;  /* ... this */
	size_t n;
};
#define IRETQ	    "\x48\xcf", 2
#define POP_IRETQ   "\x48\x83\xc4\x08\x48\xcf", 6 /* drop the error code first */
#define AC_AGAIN    "\xbc\x01\x00\x08\x00\xa1\x01\x00\x10\x00", 10 /* mov $0x80001, %esp; mov 0x100001, %eax */
#define NO_HANDLER  0, NULL, 0
#define LOOP(name, mode, ...) {#name, mode, name##_code, name##_end, __VA_ARGS__}

static const struct endless guests[] = {
	LOOP(jump_self, LONG, NO_HANDLER), LOOP(jump_two, LONG, NO_HANDLER),
	LOOP(call_ret, LONG, NO_HANDLER), LOOP(jump_self, REAL, NO_HANDLER),
	LOOP(rep_long, LONG, NO_HANDLER), LOOP(rep_scan, LONG, NO_HANDLER),
	LOOP(fault_loop, LONG, 14, POP_IRETQ), LOOP(step_loop, LONG, 1, IRETQ),
	LOOP(ud_loop, LONG, 6, IRETQ), LOOP(invlpg_loop, LONG, NO_HANDLER),
	LOOP(smc_loop, LONG, NO_HANDLER), LOOP(ac_loop, PROT32, 17, AC_AGAIN),
	LOOP(db_loop, LONG, 1, IRETQ),
};

/* Linear memory from 4 MiB on is one 2 MiB page of zeroes, over and over. */
static void map_endless(struct machine *m)
{
	const uint64_t pdpt = 0x94000, pd = 0x95000;

	for (unsigned int k = 0; k < 512; k++) {
		put64(m, pd + 8 * k, 0x200000 | 0x87);
		put64(m, pdpt + 8 * k, pd | 7);
	}
	for (unsigned int k = 2; k < 512; k++)
		put64(m, PD + 8 * k, 0x200000 | 0x87);
	for (unsigned int k = 1; k < 512; k++)
		put64(m, PDPT + 8 * k, pd | 7);
	for (unsigned int k = 1; k < 256; k++)
		put64(m, PML4 + 8 * k, pdpt | 7);
}

static void user_sregs(struct machine *m)
{
	struct kvm_sregs s;

	must(api->ioctl(m->vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	s.cr0 |= 1 << 18;
	set_segments(&s, segment(SEL_UCODE32, 11, 3, 1, 0), segment(SEL_UDATA, 3, 3, 1, 0));
	must(api->ioctl(m->vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
	for (unsigned int v = 0; v < 32; v++)
		memcpy(m->ram + IDT32 + 8 * v + 2, &(uint16_t){SEL_UCODE32}, 2);
}

static void open_endless(struct machine *m, const struct endless *e)
{
	mode_open(m, e->mode, e->code, e->end - e->code);
	map_endless(m);
	set_pte(m, DATA, e->code == fault_loop_code ? 0 : DATA | 7);
	if (e->handler)
		memcpy(m->ram + TRAPS + 16 * e->vector, e->handler, e->n);
	if (e->code == ac_loop_code)
		user_sregs(m);
}

/* ---- one kick */

#ifdef __SANITIZE_THREAD__
#define TSAN true
#else
#define TSAN false
#endif
#define ENTER_NS 1000000u /* CPU time after which the thread is in the guest */

struct lap {
	uint64_t wall, cpu;
};

struct runner {
	struct machine *m;
	pthread_t thread;
	int result;
	uint64_t start_cpu, end_wall, end_cpu;
	int running; /* atomic */
};

static void *runner_main(void *arg)
{
	struct runner *r = arg;

	r->start_cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
	__atomic_store_n(&r->running, 1, __ATOMIC_RELEASE);
	r->result = vcpu_run(r->m);
	r->end_cpu = now_ns(CLOCK_THREAD_CPUTIME_ID);
	r->end_wall = now_ns(CLOCK_MONOTONIC);
	return NULL;
}

static void no_kick(int sig)
{
	(void)sig;
}

/*
 * A signal that comes before KVM_RUN does not stop it by itself, as in the kernel. And TSan's runtime
 * (gcc 12) loses one that meets a thread's first setjmp, where it makes the place to keep it in.
 */
static void wait_until_in_guest(const struct runner *r, clockid_t clock)
{
	if (!api_is_device() && !TSAN)
		return;
	while (now_ns(clock) < r->start_cpu + ENTER_NS)
		usleep(100);
}

static struct lap kick_once(struct machine *m, int after_us)
{
	struct runner r = {.m = m};
	struct lap lap;
	uint64_t start_wall, start_cpu;
	clockid_t clock;

	kick_install(m);
	if (api_is_device())
		signal(SIGUSR1, no_kick);
	m->run->immediate_exit = 0;
	pthread_create(&r.thread, NULL, runner_main, &r);
	while (!__atomic_load_n(&r.running, __ATOMIC_ACQUIRE))
		sched_yield();
	pthread_getcpuclockid(r.thread, &clock);
	wait_until_in_guest(&r, clock);
	usleep(after_us);
	start_cpu = now_ns(clock);
	start_wall = now_ns(CLOCK_MONOTONIC);
	pthread_kill(r.thread, SIGUSR1);
	pthread_join(r.thread, NULL);
	CHECK_EQ("KVM_RUN", r.result, -EINTR);
	lap.wall = r.end_wall > start_wall ? r.end_wall - start_wall : 0;
	lap.cpu = r.end_cpu > start_cpu ? r.end_cpu - start_cpu : 0;
	return lap;
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void report(const char *name, const char *clock, uint64_t *v, int n)
{
	int late = 0;

	qsort(v, n, sizeof(*v), by_size);
	for (int k = 0; k < n; k++)
		late += v[k] > 10000000;
	printf("h69 %-12s %-4s p50 %6.2f ms  p99 %6.2f  p99.9 %6.2f  most %6.2f  %d of %d above 10 ms\n",
	       name, clock, v[n / 2] / 1e6, v[n * 99 / 100] / 1e6, v[n * 999 / 1000] / 1e6,
	       v[n - 1] / 1e6, late, n);
}

static void stop_guest(const struct endless *e, int tries)
{
	uint64_t wall[1000], cpu[1000];
	int late = 0;
	struct machine m;

	open_endless(&m, e);
	for (int k = 0; k < tries; k++) {
		struct lap l = kick_once(&m, 200 + k * 37 % 3000);

		wall[k] = l.wall;
		cpu[k] = l.cpu;
		late += l.cpu > 10000000;
		check(l.cpu < 100000000, e->name, l.cpu, 100000000);
	}
	/* others may keep the thread from its kick: more than a few say that it is us */
	check(late <= 1 + tries / 100, e->name, late, 0);
	report(e->name, "wall", wall, tries);
	report(e->name, "CPU", cpu, tries);
	machine_close(&m);
}

static void stop_guests(void)
{
	for (size_t k = 0; k < COUNT(guests); k++)
		stop_guest(&guests[k], many(1000, SANITIZED ? 5 : 10));
	check_neighbour();
}

static void h69_always_stoppable(void)
{
	stop_guests();
}

static void h69_by_signal_alone(void)
{
	stop_guests();
}

/* ---- no page is ever writable and executable */

static void check_maps(void)
{
	char line[512];
	int lines;

	check(!maps_find_wx(line, sizeof(line), &lines), line, 1, 0);
	CHECK_EQ("maps were read", lines > 5, 1);
}

static void wx_pages(void)
{
	for (size_t k = 0; k < COUNT(guests); k++) {
		struct machine m;
		struct runner r = {.m = &m};

		open_endless(&m, &guests[k]);
		kick_install(&m);
		pthread_create(&r.thread, NULL, runner_main, &r);
		for (int n = 0; n < 20; n++) {
			check_maps();
			usleep(300);
		}
		pthread_kill(r.thread, SIGUSR1);
		pthread_join(r.thread, NULL);
		machine_close(&m);
	}
}

static const struct item items[] = {ITEM(h69_always_stoppable), ITEM(wx_pages)};
static const struct item launched[] = {ITEM(h69_by_signal_alone), ITEM(wx_pages)};

int main(int argc, char **argv)
{
	api_args(argc, argv);
	return api_is_device() ? hostile_main(argc, argv, launched, COUNT(launched)) :
				 hostile_main(argc, argv, items, COUNT(items));
}
