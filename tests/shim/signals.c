// SPDX-License-Identifier: MIT
/* Signals end KVM_RUN as they do in the kernel, and the program does not see how. */
#include "guest.h"

GUEST(spin, "1: inc %rax; jmp 1b")

static volatile sig_atomic_t handled;

static void count(int sig)
{
	(void)sig;
	handled++;
}

static void count_info(int sig, siginfo_t *info, void *context)
{
	(void)context;
	handled += info->si_signo == sig;
}

static void alarm_in(unsigned int ms)
{
	struct timespec t = {0, ms * 1000000l};
	struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
	struct itimerspec i = {.it_value = t};
	timer_t timer;

	must(timer_create(CLOCK_MONOTONIC, &e, &timer), "timer_create");
	must(timer_settime(timer, 0, &i, NULL), "timer_settime");
}

/* kvmtool: plain handlers and no immediate_exit. */
static void any_handled_signal_ends_the_run(const char *how)
{
	struct vm m;

	vm_open(&m, spin_code, spin_end - spin_code);
	handled = 0;
	alarm_in(20);
	CHECK_FAILS("KVM_RUN", ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	CHECK_EQ("exit reason", m.run->exit_reason, KVM_EXIT_INTR);
	check(handled == 1, how, handled, 1);
	vm_close(&m);
}

static void an_ignored_signal_does_not(void)
{
	struct vm m;
	uint64_t start;

	vm_open(&m, spin_code, spin_end - spin_code);
	handled = 0;
	signal(SIGUSR1, SIG_IGN);
	signal(SIGALRM, count);
	alarm_in(80);
	start = now_ms();
	if (!fork()) {
		for (int i = 0; i < 10; i++)
			kill(getppid(), SIGUSR1);
		_exit(0);
	}
	signal(SIGCHLD, SIG_IGN);
	CHECK_FAILS("KVM_RUN", ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	CHECK_EQ("ran to the alarm", now_ms() - start >= 60, 1);
	signal(SIGCHLD, SIG_DFL);
	while (wait(NULL) > 0)
		;
	vm_close(&m);
}

static void queries_show_the_programs_handler(void)
{
	struct sigaction a = {.sa_sigaction = count_info, .sa_flags = SA_SIGINFO | SA_RESTART}, old;

	CHECK_EQ("sigaction", sigaction(SIGUSR2, &a, NULL), 0);
	CHECK_EQ("query", sigaction(SIGUSR2, NULL, &old), 0);
	CHECK_EQ("handler", old.sa_sigaction == count_info, 1);
	CHECK_EQ("flags", old.sa_flags & (SA_SIGINFO | SA_RESTART), SA_SIGINFO | SA_RESTART);
	CHECK_EQ("signal returns it", (void *)signal(SIGUSR2, count) == (void *)count_info, 1);
	CHECK_EQ("and back", signal(SIGUSR2, SIG_DFL) == count, 1);
	CHECK_EQ("default", signal(SIGUSR2, SIG_DFL) == SIG_DFL, 1);
	CHECK_FAILS("SIGKILL", sigaction(SIGKILL, &a, NULL), EINVAL);
	CHECK_FAILS("no such signal", sigaction(99, &a, NULL), EINVAL);
	sigaction(SIGSEGV, NULL, &old);
	CHECK_EQ("SIGSEGV is the program's", old.sa_handler == SIG_DFL, 1);
}

/* QEMU without KVM_CAP_IMMEDIATE_EXIT: the signal is blocked but in KVM_RUN. */
static void the_signal_mask_of_kvm_run(void)
{
	struct {
		uint32_t len;
		uint8_t set[8];
	} k = {.len = 8}; /* struct kvm_signal_mask: all unblocked */
	sigset_t block, none;
	struct vm m;

	vm_open(&m, spin_code, spin_end - spin_code);
	sigemptyset(&block);
	sigaddset(&block, SIGALRM);
	sigprocmask(SIG_BLOCK, &block, &none);
	CHECK_EQ("KVM_SET_SIGNAL_MASK", ioctl(m.vcpu, KVM_SET_SIGNAL_MASK, &k), 0);
	alarm_in(20);
	CHECK_FAILS("KVM_RUN", ioctl(m.vcpu, KVM_RUN, 0), EINTR);
	sigpending(&none);
	CHECK_EQ("still pending", sigismember(&none, SIGALRM), 1);
	CHECK_EQ("taken", sigtimedwait(&block, NULL, &(struct timespec){0, 0}), SIGALRM);
	sigprocmask(SIG_UNBLOCK, &block, NULL);
	vm_close(&m);
}

int main(void)
{
	struct sigaction a = {.sa_sigaction = count_info, .sa_flags = SA_SIGINFO | SA_RESTART};

	signal(SIGALRM, count);
	any_handled_signal_ends_the_run("signal");
	sigaction(SIGALRM, &a, NULL);
	any_handled_signal_ends_the_run("sigaction");
	an_ignored_signal_does_not();
	queries_show_the_programs_handler();
	the_signal_mask_of_kvm_run();
	return done();
}
