// SPDX-License-Identifier: MIT
/*
 * `anykvm boot`, but that its guest moves to a fresh VM, MOVES times at random moments, wherever the
 * processor is then: all that KVM_GET_* says goes there by KVM_SET_*, the memory is copied, and the
 * fresh VM gets the descriptors and the kvm_run of the old one, which is gone: the VMM does not notice.
 * Arguments as of anykvm boot. moved.sh compares what its guest says.
 */
#include "../../vmm/vmm.h"
#include "../api/state.h"

#include <signal.h>
#include <stdarg.h>
#include <sys/time.h>

#define BOOT_US 3000000 /* of processor time, that the moves are spread over */

static struct kvm_api moving; /* the library's, but for KVM_RUN */
static struct machine *machine;
static int moves, moved;
static atomic_bool due;

static void next_moment(void)
{
	long us;

	due = false;
	if (moved >= moves)
		return;
	us = 1 + rand() % (BOOT_US * 2 / moves);
	setitimer(ITIMER_PROF, &(struct itimerval){.it_value = {us / 1000000, us % 1000000}}, NULL);
}

static void on_moment(int sig)
{
	(void)sig;
	due = true;
	machine->vcpu[0].run->immediate_exit = 1;
}

static void copy_ram(const struct ram *to, const struct ram *from)
{
	static const u8 zero[4096];

	for (u64 at = 0; at < from->size; at += sizeof(zero))
		if (memcmp(from->host + at, zero, sizeof(zero)))
			memcpy(to->host + at, from->host + at, sizeof(zero));
}

/* The old VM's numbers become the fresh one's, and its memory is left to `fresh`. */
static void take_over(struct machine *m, struct machine *fresh)
{
	struct vcpu *v = &m->vcpu[0];
	struct ram ram = m->ram;

	anykvm_close(v->fd);
	anykvm_close(m->vm);
	must(dup2(fresh->vm, m->vm), "dup2");
	must(dup2(fresh->vcpu[0].fd, v->fd), "dup2");
	if (anykvm_mmap(v->run, v->run_len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, v->fd,
			0) != v->run)
		must(-1, "mmap");
	m->ram = fresh->ram;
	fresh->ram = ram;
}

static void move(struct machine *m)
{
	struct machine fresh;
	static struct state s;

	state_save(m->vm, m->vcpu[0].fd, ON, &s);
	must(machine_create(&fresh, &api_library, NULL, m->ram.size, 1), "machine_create");
	copy_ram(&fresh.ram, &m->ram);
	state_restore(fresh.vm, fresh.vcpu[0].fd, ON, &s);
	take_over(m, &fresh);
	machine_destroy(&fresh);
	fprintf(stderr, "move %d, at rip %#llx\n", ++moved, (unsigned long long)s.regs.rip);
	next_moment();
}

/* Moves when KVM_RUN has been left for it, with nothing under way. */
static int moving_ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;
	int r;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	while ((r = anykvm_ioctl(fd, req, arg)) < 0 && errno == EINTR && req == KVM_RUN && due)
		move(machine);
	return r;
}

/* In the place of vmm/vcpu.c's (ld --wrap) */
void *__real_vcpu_thread(void *vcpu);
void *__wrap_vcpu_thread(void *vcpu)
{
	struct vcpu *v = vcpu;

	machine = v->m;
	moving = *machine->api;
	moving.ioctl = moving_ioctl;
	machine->api = &moving;
	state_init(machine->sys);
	next_moment();
	return __real_vcpu_thread(vcpu);
}

int main(int argc, char **argv)
{
	const char *n = getenv("MOVES"), *seed = getenv("SEED");
	struct sigaction sa = {.sa_handler = on_moment, .sa_flags = SA_RESTART};
	int status;

	moves = n ? atoi(n) : 10;
	srand(seed ? atoi(seed) : getpid());
	sigaction(SIGPROF, &sa, NULL);
	status = boot_main(argc, argv);
	fprintf(stderr, "moved %d times: %u passed, %u failed\n", moved, passed, failed);
	return status || failed;
}
