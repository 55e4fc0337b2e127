// SPDX-License-Identifier: MIT
/*
 * How KVM_RUN is interrupted, and how a vCPU waits. The kernel ends KVM_RUN for every signal
 * that is handled; a library sees a signal only through its effects:
 *
 *   - the program's handler set kvm_run->immediate_exit (all current VMMs do);
 *   - the handler runs through the shim, which calls vcpu_note_signal();
 *   - a wait in ppoll() returned EINTR;
 *   - KVM_SET_SIGNAL_MASK: the signal is blocked on the thread, and pending;
 *   - pthread_cancel of a thread that may end anywhere (PTHREAD_CANCEL_ASYNCHRONOUS; only the shim
 *     knows): it shall end, but not with our locks.
 *
 * All but the second and third are polled by a timer while a vCPU is in the guest.
 */
#include "kvm/counted.h"
#include "kvm/event_thread.h"
#include "kvm/kvm.h"
#include "kvm/vcpu.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define WATCH_NS       2000000ull /* how long the guest may go on after immediate_exit was set */
#define SIGMASK_POLL_NS 5000000l

static __thread struct vcpu *running __attribute__((tls_model("initial-exec")));

void vcpu_set_running(struct vcpu *v)
{
	if (v)
		__atomic_store_n(&v->signalled, 0, __ATOMIC_RELAXED);
	running = v;
}

struct vcpu *vcpu_running(void)
{
	return running;
}

/* In a signal handler, where TSan's runtime may not be entered: it may be what was interrupted. */
__attribute__((no_sanitize("thread"))) void vcpu_note_signal(void)
{
	struct vcpu *v = running;

	if (!v)
		return;
	__atomic_store_n(&v->signalled, 1, __ATOMIC_RELAXED);
	__atomic_fetch_or((u32 *)&v->cpu.request, REQ_KICK, __ATOMIC_SEQ_CST); /* cpu_request */
}

/* Signal masks as KVM_SET_SIGNAL_MASK and the kernel have them; libc's calls leave out two. */
#define SETMASK 2 /* SIG_SETMASK */

static u64 set_signal_mask(u64 mask)
{
	u64 old = 0;

	syscall(SYS_rt_sigprocmask, SETMASK, &mask, &old, sizeof(mask));
	return old;
}

static bool masked_signal_pending(const struct vcpu *v)
{
	u64 pending = 0;

	syscall(SYS_rt_sigpending, &pending, sizeof(pending));
	return pending & ~v->sigmask;
}

bool vcpu_interrupted(struct vcpu *v)
{
	if (__atomic_load_n(&v->signalled, __ATOMIC_RELAXED))
		return true;
	if (__atomic_load_n(&v->run->immediate_exit, __ATOMIC_ACQUIRE))
		return true;
	return v->has_sigmask && masked_signal_pending(v);
}

/* ---- pthread_cancel */

__thread bool thread_ends_anywhere;

void vcpu_note_cancel_type(bool anywhere)
{
	thread_ends_anywhere = anywhere;
}

static void drop_all(void *arg)
{
	struct vcpu *v = arg;

	vcpu_set_running(NULL);
	__atomic_store_n(&v->asleep, 0, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&v->mutex);
	object_put(&v->obj);
}

/* What the thread has here is KVM_RUN's mutex and anykvm_ioctl's reference. */
void vcpu_may_end(struct vcpu *v)
{
	pthread_cleanup_push(drop_all, v);
	pthread_testcancel();
	pthread_cleanup_pop(0);
}

/* ---- waits */

static int sleep_once(struct vcpu *v, u64 mask)
{
	struct timespec slice = {0, SIGMASK_POLL_NS};
	bool look = v->has_sigmask || v->ends_anywhere;
	struct pollfd p = {.fd = v->wake_fd, .events = POLLIN};
	u64 count;

	if (syscall(SYS_ppoll, &p, 1, look ? &slice : NULL, &mask, sizeof(mask)) < 0)
		return errno == EINTR ? -EINTR : 0;
	syscall(SYS_read, v->wake_fd, &count, sizeof(count)); /* read() is a cancellation point */
	return 0;
}

/* In counted time a halted vCPU does not wait for its timers. */
static int wait_once(struct vcpu *v, u64 mask)
{
	struct counted *c = v->vm->counted;

	return c && counted_skip(c) ? 0 : sleep_once(v, mask);
}

/* With the program's signal mask: its cleanup handlers may run. */
static void may_end_waiting(struct vcpu *v, u64 mask)
{
	set_signal_mask(mask);
	vcpu_may_end(v);
	set_signal_mask(~0ull);
}

/*
 * All signals are blocked from the last look until ppoll unblocks them: none can slip in
 * between. `asleep` and the word that `ready` looks at are ordered against vcpu_kick.
 */
int vcpu_wait(struct vcpu *v, bool (*ready)(struct vcpu *v))
{
	u64 start = mono_ns(), old = set_signal_mask(~0ull);
	u64 mask = old | (v->has_sigmask ? v->sigmask : 0);
	int r = 0;

	__atomic_store_n(&v->asleep, 1, __ATOMIC_SEQ_CST);
	while (!r && !ready(v)) {
		r = vcpu_interrupted(v) ? -EINTR : wait_once(v, mask);
		if (v->ends_anywhere)
			may_end_waiting(v, old);
	}
	__atomic_store_n(&v->asleep, 0, __ATOMIC_SEQ_CST);
	set_signal_mask(old);
	v->stats.halt_wait_ns += mono_ns() - start;
	return r;
}

/* ---- the watch */

static bool in_guest(struct vcpu *v)
{
	return __atomic_load_n(&v->seq, __ATOMIC_SEQ_CST) & 1;
}

/* Kick who has to look at its signals; say whether anyone is in the guest. */
static bool watch_all(struct vm *vm)
{
	bool any = false, look = live_stats_due(vm);
	struct vcpu *v;

	for (unsigned int i = 0; (v = vm_vcpu(vm, i)); i++) {
		if (!in_guest(v))
			continue;
		any = true;
		if (look || __atomic_load_n(&v->run->immediate_exit, __ATOMIC_RELAXED) ||
		    __atomic_load_n(&v->has_sigmask, __ATOMIC_RELAXED) ||
		    __atomic_load_n(&v->ends_anywhere, __ATOMIC_RELAXED))
			cpu_request(&v->cpu, REQ_KICK);
	}
	return any;
}

void vm_watch_fire(struct irq_timer *t)
{
	struct vm *vm = container_of(t, struct vm, watch);

	if (!watch_all(vm)) {
		__atomic_store_n(&vm->watching, 0, __ATOMIC_SEQ_CST);
		/* One that entered just now may have seen the 1 that we took away. */
		if (!watch_all(vm) || __atomic_exchange_n(&vm->watching, 1, __ATOMIC_SEQ_CST))
			return;
	}
	event_arm(vm->events, t, mono_ns() + WATCH_NS);
}

void vcpu_watch(struct vcpu *v)
{
	struct vm *vm = v->vm;

	if (__atomic_load_n(&vm->watching, __ATOMIC_SEQ_CST) ||
	    __atomic_exchange_n(&vm->watching, 1, __ATOMIC_SEQ_CST))
		return;
	event_arm(vm->events, &vm->watch, mono_ns() + WATCH_NS);
}
