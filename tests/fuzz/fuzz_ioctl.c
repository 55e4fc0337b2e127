// SPDX-License-Identifier: MIT
/*
 * Sequences of calls of the whole API: every request on every kind of descriptor, structures that
 * are read and given back with bytes changed, small guests, the shared page overwritten, descriptors
 * duplicated and closed. Only what could make the fuzzer overwrite itself is kept in bounds:
 * host addresses of guest memory and of results.
 */
#include "fuzz.h"

#include <anykvm.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <unistd.h>

#include "kvm/kvm.h"

#define ARENA	(64u << 12)
#define SCRATCH 65536
#define VMS	2
#define VCPUS	3

enum kind { SYSTEM, VM, VCPU };

static const struct request {
	enum kind kind;
	unsigned long nr;
} requests[] = {
#define IOCTL(kind, request, direction, fn) {kind, request},
#include "kvm/ioctls.def"
#undef IOCTL
};
#define NR_REQUESTS (sizeof(requests) / sizeof(requests[0]))

static uint8_t *arena, *scratch;
static int sys, events[2];

struct world {
	int vm[VMS], vcpu[VMS][VCPUS];
	struct kvm_run *run[VMS][VCPUS];
	unsigned int cur_vm, cur_vcpu;
	unsigned int runs;
};

static struct kvm_run *volatile kick_run;

static void on_alarm(int sig)
{
	(void)sig;
	if (kick_run)
		__atomic_store_n(&kick_run->immediate_exit, 1, __ATOMIC_RELEASE);
	vcpu_note_signal(); /* as the preload library does: at once, not when the watch looks */
}

static void start(void)
{
	struct sigaction sa = {.sa_handler = on_alarm};

	sys = anykvm_open("/dev/kvm", O_RDWR | O_CLOEXEC);
	arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	scratch = mmap(NULL, SCRATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	events[0] = eventfd(0, EFD_NONBLOCK);
	events[1] = eventfd(0, EFD_NONBLOCK);
	FUZZ_CHECK(sys >= 0 && arena != MAP_FAILED && scratch != MAP_FAILED);
	sigaction(SIGALRM, &sa, NULL);
}

static int event_of(unsigned int n)
{
	return n % 8 == 7 ? -1 : n % 8 == 6 ? sys : events[n & 1];
}

/* Host addresses stay in our arena or scratch; the alarm stays unblocked. */
static void bound_argument(unsigned long nr, uint8_t *p)
{
	struct kvm_userspace_memory_region *r = (void *)p;
	uint64_t first = r->userspace_addr >> 12 & 63;

	switch (nr) {
	case KVM_SET_USER_MEMORY_REGION:
		r->userspace_addr = (uint64_t)arena + (first << 12) + (r->userspace_addr & 1);
		if (r->memory_size > ARENA - (first << 12))
			r->memory_size = ARENA - (first << 12);
		break;
	case KVM_GET_DIRTY_LOG:
	case KVM_CLEAR_DIRTY_LOG:
		memcpy(p + 8 + (nr == KVM_CLEAR_DIRTY_LOG ? 8 : 0), &(uint64_t){(uint64_t)scratch + 32768}, 8);
		break;
	case KVM_GET_DEVICE_ATTR:
	case KVM_HAS_DEVICE_ATTR:
		((struct kvm_device_attr *)p)->addr = (uint64_t)scratch + 32768;
		break;
	case KVM_IRQFD:
		((struct kvm_irqfd *)p)->fd = event_of(p[0]);
		((struct kvm_irqfd *)p)->resamplefd = event_of(p[13]);
		break;
	case KVM_IOEVENTFD:
		((struct kvm_ioeventfd *)p)->fd = event_of(p[20]);
		break;
	case KVM_SET_SIGNAL_MASK:
		p[4 + (SIGALRM - 1) / 8] &= ~(1 << (SIGALRM - 1) % 8);
		break;
	}
}

static int fd_of(struct world *w, enum kind kind)
{
	switch (kind) {
	case SYSTEM:
		return sys;
	case VM:
		return w->vm[w->cur_vm];
	default:
		return w->vcpu[w->cur_vm][w->cur_vcpu];
	}
}

static bool returns_fd(unsigned long nr)
{
	return nr == KVM_CREATE_VM || nr == KVM_CREATE_VCPU || nr == KVM_GET_STATS_FD ||
	       nr == KVM_CREATE_DEVICE;
}

static void run_vcpu(struct world *w)
{
	struct itimerval on = {{0, 60}, {0, 60}}, off = {0};
	struct kvm_run *run = w->run[w->cur_vm][w->cur_vcpu];
	int r;

	if (!run || ++w->runs > 12) /* most of the time is spent here */
		return;
	kick_run = run;
	run->immediate_exit = 0;
	setitimer(ITIMER_REAL, &on, NULL);
	r = anykvm_ioctl(w->vcpu[w->cur_vm][w->cur_vcpu], KVM_RUN, 0);
	FUZZ_CHECK(r == 0 || errno == EINTR || errno == EINVAL || errno == EAGAIN || errno == EBADF ||
		   errno == ENOMEM);
	setitimer(ITIMER_REAL, &off, NULL);
	kick_run = NULL;
}

/* The argument is the scratch buffer: what a GET has left there, a SET gives back. */
static void call(struct world *w, struct bytes *b)
{
	const struct request *q = &requests[take_uint8_t(b) % NR_REQUESTS];
	uint8_t how = take_uint8_t(b);
	unsigned long arg = (unsigned long)scratch;
	enum kind kind = how % 16 == 15 ? (how >> 4) % 3 : q->kind;
	int r;

	if (q->nr == KVM_RUN) {
		run_vcpu(w);
		return;
	}
	if (!(_IOC_DIR(q->nr) & (_IOC_READ | _IOC_WRITE)) || how % 32 == 14)
		arg = q->nr == KVM_SET_SIGNAL_MASK ? arg : take_number(b) % (how & 64 ? ~0ul : 4096);
	bound_argument(q->nr, scratch);
	r = anykvm_ioctl(fd_of(w, kind), q->nr, arg);
	if (r > 2 && returns_fd(q->nr))
		anykvm_close(r);
}

static void add_vm(struct world *w, unsigned int config)
{
	struct kvm_userspace_memory_region region = {.memory_size = ARENA, .userspace_addr = (uint64_t)arena};
	struct kvm_enable_cap split = {.cap = KVM_CAP_SPLIT_IRQCHIP, .args = {24}};
	struct kvm_pit_config pit = {0};
	int *vm = &w->vm[w->cur_vm];

	if (*vm >= 0)
		return;
	*vm = anykvm_ioctl(sys, KVM_CREATE_VM, 0);
	FUZZ_CHECK(*vm >= 0);
	anykvm_ioctl(*vm, KVM_SET_USER_MEMORY_REGION, &region);
	if (config & 1)
		anykvm_ioctl(*vm, KVM_CREATE_IRQCHIP, 0);
	if ((config & 3) == 3)
		anykvm_ioctl(*vm, KVM_CREATE_PIT2, &pit);
	if ((config & 3) == 2)
		anykvm_ioctl(*vm, KVM_ENABLE_CAP, &split);
}

static void add_vcpu(struct world *w, bool real)
{
	int *fd = &w->vcpu[w->cur_vm][w->cur_vcpu];
	struct kvm_regs regs = {.rip = 0x1000, .rflags = 2, .rsp = 0x800};
	struct kvm_mp_state run = {KVM_MP_STATE_RUNNABLE};
	struct kvm_sregs s;
	void *p;

	if (*fd >= 0 || w->vm[w->cur_vm] < 0)
		return;
	*fd = anykvm_ioctl(w->vm[w->cur_vm], KVM_CREATE_VCPU, w->cur_vcpu);
	if (*fd < 0)
		return;
	p = anykvm_mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	FUZZ_CHECK(p != MAP_FAILED);
	w->run[w->cur_vm][w->cur_vcpu] = p;
	if (!real || anykvm_ioctl(*fd, KVM_GET_SREGS, &s))
		return;
	s.cs.base = s.cs.selector = 0;
	anykvm_ioctl(*fd, KVM_SET_SREGS, &s);
	anykvm_ioctl(*fd, KVM_SET_REGS, &regs);
	anykvm_ioctl(*fd, KVM_SET_MP_STATE, &run);
}

static void drop_vcpu(struct world *w)
{
	int *fd = &w->vcpu[w->cur_vm][w->cur_vcpu];
	struct kvm_run **run = &w->run[w->cur_vm][w->cur_vcpu];

	if (*run)
		anykvm_munmap(*run, 12288);
	if (*fd >= 0)
		anykvm_close(*fd);
	*run = NULL;
	*fd = -1;
}

static void drop_vm(struct world *w)
{
	if (w->vm[w->cur_vm] >= 0)
		anykvm_close(w->vm[w->cur_vm]);
	w->vm[w->cur_vm] = -1;
}

static void write_shared(struct world *w, struct bytes *b)
{
	uint8_t *run = (uint8_t *)w->run[w->cur_vm][w->cur_vcpu];
	unsigned int at = take_uint16_t(b) % 12288;

	if (!run)
		return;
	take(b, run + at, at + 16 <= 12288 ? 1 + take_uint8_t(b) % 16 : 1);
}

static void step(struct world *w, struct bytes *b)
{
	unsigned int at;
	uint64_t one = 1;

	switch (take_uint8_t(b) % 16) {
	case 0:
	case 1:
		run_vcpu(w);
		break;
	case 2: /* change what is in the scratch buffer */
		at = take_uint8_t(b) * (take_uint8_t(b) % 16 + 1);
		take(b, scratch + at, 1 + take_uint8_t(b) % 16);
		break;
	case 3:
		at = take_uint8_t(b) & ~7u;
		one = take_number(b);
		memcpy(scratch + at, &one, 8);
		break;
	case 4: /* code and data of the guest */
		at = 0x1000 + take_uint8_t(b) % 64;
		take(b, arena + at, take_uint8_t(b) % 32);
		break;
	case 5:
		at = take_uint16_t(b) * 4 % (ARENA - 64);
		take(b, arena + at, take_uint8_t(b) % 32);
		break;
	case 6:
		write_shared(w, b);
		break;
	case 7:
		w->cur_vm = take_uint8_t(b) % VMS;
		w->cur_vcpu = take_uint8_t(b) % VCPUS;
		add_vm(w, take_uint8_t(b));
		add_vcpu(w, take_uint8_t(b) & 1);
		break;
	case 8:
		if (take_uint8_t(b) % 4 == 0)
			drop_vcpu(w);
		else if (take_uint8_t(b) % 4 == 0)
			drop_vm(w);
		break;
	case 9:
		if (write(events[take_uint8_t(b) & 1], &one, 8) < 0)
			FUZZ_CHECK(errno == EAGAIN);
		break;
	default:
		call(w, b);
	}
}

void fuzz_one(const uint8_t *data, size_t n)
{
	struct bytes b = {data, n};
	struct world w = {.vm = {-1, -1}};

	if (!arena)
		start();
	memset(w.vcpu, -1, sizeof(w.vcpu));
	memset(arena, 0, ARENA);
	memset(scratch, 0, 8192);
	add_vm(&w, take_uint8_t(&b));
	add_vcpu(&w, true);
	take(&b, arena + 0x1000, 1 + take_uint8_t(&b) % 48);
	for (int steps = 0; b.n && steps < 200; steps++)
		step(&w, &b);
	for (w.cur_vm = 0; w.cur_vm < VMS; w.cur_vm++) {
		for (w.cur_vcpu = 0; w.cur_vcpu < VCPUS; w.cur_vcpu++)
			drop_vcpu(&w);
		drop_vm(&w);
	}
}
