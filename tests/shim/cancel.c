// SPDX-License-Identifier: MIT
/*
 * Threads that are cancelled (pthread_cancel) while they are in KVM_RUN or in other calls. The
 * kernel's KVM_RUN ends for it, and what the thread had is free again. Needed by the KVM selftest
 * xapic_ipi_test, whose vCPU threads may be cancelled anywhere.
 */
#include "guest.h"

#include <pthread.h>
#include <sys/eventfd.h>

#define STORMS 100
#define AGAIN  0x100 /* in each guest's page: an exit */

GUEST(looping, "1: jmp 1b")
GUEST(halting, "sti; hlt")
GUEST(calling, "1: out %al, $0x11; jmp 1b")
GUEST(again, "out %al, $0x12")
#define CODE_OF(name) name##_code, name##_end - name##_code

static int run(struct vm *m)
{
	return ioctl(m->vcpu, KVM_RUN, 0) < 0 ? -errno : 0;
}

static void sleep_us(long us)
{
	nanosleep(&(struct timespec){us / 1000000, us % 1000000 * 1000}, NULL);
}

static void *run_and_pause(struct vm *m, int type)
{
	pthread_setcanceltype(type, &type);
	run(m);
	for (;;)
		pause();
	return NULL;
}

static void *ends_anywhere(void *m)
{
	return run_and_pause(m, PTHREAD_CANCEL_ASYNCHRONOUS);
}

static void *ends_in_pause(void *m)
{
	return run_and_pause(m, PTHREAD_CANCEL_DEFERRED);
}

static void expect_cancelled(const char *what, pthread_t t)
{
	void *r;

	pthread_join(t, &r);
	CHECK_EQ(what, r == PTHREAD_CANCELED, true);
}

/* The vCPU can be used and runs again; so does another VM's. */
static void expect_free(struct vm *m)
{
	struct kvm_regs regs = {.rip = CODE + AGAIN, .rsp = STACK, .rflags = 2};
	struct kvm_mp_state on = {KVM_MP_STATE_RUNNABLE};
	struct vm other;

	memcpy(m->ram + CODE + AGAIN, CODE_OF(again));
	ioctl(m->vcpu, KVM_SET_MP_STATE, &on); /* unknown without interrupt chips */
	must(ioctl(m->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	CHECK_EQ("the vCPU again", run(m), 0);
	CHECK_EQ("the vCPU again: exit", m->run->exit_reason, KVM_EXIT_IO);
	vm_open(&other, CODE_OF(again));
	CHECK_EQ("another VM", run(&other), 0);
	CHECK_EQ("another VM: exit", other.run->exit_reason, KVM_EXIT_IO);
	vm_close(&other);
}

static void open_looping(struct vm *m)
{
	vm_open(m, CODE_OF(looping));
}

static void open_halting(struct vm *m)
{
	vm_open_with(m, CODE_OF(halting), true);
}

/* A processor that nobody has started waits in KVM_RUN, too. */
static void open_unstarted(struct vm *m)
{
	struct kvm_mp_state off = {KVM_MP_STATE_UNINITIALIZED};

	open_halting(m);
	must(ioctl(m->vcpu, KVM_SET_MP_STATE, &off), "KVM_SET_MP_STATE");
}

/* Each OUT writes to an eventfd. */
static void open_ringing(struct vm *m)
{
	struct kvm_ioeventfd bell = {.addr = 0x11, .len = 1, .flags = KVM_IOEVENTFD_FLAG_PIO};

	vm_open(m, CODE_OF(calling));
	bell.fd = must(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd");
	must(ioctl(m->fd, KVM_IOEVENTFD, &bell), "KVM_IOEVENTFD");
	close(bell.fd);
}

static void test_anywhere(const char *what, void (*start)(struct vm *m))
{
	struct vm m;
	pthread_t t;

	start(&m);
	pthread_create(&t, NULL, ends_anywhere, &m);
	sleep_us(50000);
	CHECK_EQ("pthread_cancel", pthread_cancel(t), 0);
	expect_cancelled(what, t);
	expect_free(&m);
	vm_close(&m);
}

static void nothing(int sig)
{
	(void)sig;
}

/* KVM_RUN is no cancellation point, whatever is called in it: such a thread ends later, in pause(). */
static void test_deferred(const char *what, void (*start)(struct vm *m))
{
	struct sigaction sa = {.sa_handler = nothing};
	struct vm m;
	pthread_t t;

	start(&m);
	sigaction(SIGUSR1, &sa, NULL);
	pthread_create(&t, NULL, ends_in_pause, &m);
	sleep_us(50000);
	pthread_cancel(t);
	sleep_us(50000);
	pthread_kill(t, SIGUSR1);
	expect_cancelled(what, t);
	expect_free(&m);
	vm_close(&m);
}

/* Calls of all lengths: exits to the thread, a short wait for memory slots, a new VM. */
static void *busy(void *arg)
{
	struct vm *m = arg;
	struct kvm_regs r;
	int type;

	pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &type);
	for (;;) {
		struct kvm_userspace_memory_region s = {1, 0, RAM_SIZE, 0x1000, (uintptr_t)m->ram};

		run(m);
		ioctl(m->vcpu, KVM_GET_REGS, &r);
		ioctl(m->fd, KVM_SET_USER_MEMORY_REGION, &s);
		s.memory_size = 0;
		ioctl(m->fd, KVM_SET_USER_MEMORY_REGION, &s);
		close(ioctl(m->kvm, KVM_CREATE_VM, 0));
	}
	return NULL;
}

static void test_storm(void)
{
	struct vm m;
	pthread_t t;

	vm_open(&m, CODE_OF(calling));
	for (int k = 0; k < STORMS; k++) {
		pthread_create(&t, NULL, busy, &m);
		sleep_us(100 + k * 7919 % 1000);
		pthread_cancel(t);
		expect_cancelled("storm", t);
	}
	expect_free(&m);
	vm_close(&m);
}

int main(void)
{
	alarm(50); /* a lock that nobody will give back */
	test_anywhere("in a loop", open_looping);
	test_anywhere("in HLT", open_halting);
	test_anywhere("not started", open_unstarted);
	test_deferred("deferred, in a loop", open_looping);
	test_deferred("deferred, ringing", open_ringing);
	test_storm();
	return done();
}
