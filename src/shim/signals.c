// SPDX-License-Identifier: MIT
/*
 * The kernel ends KVM_RUN for every signal that is handled. Here each handler that the program
 * installs is called through a trampoline that tells kvm/ first. The kernel keeps the
 * program's flags and mask; queries are answered with the program's handler.
 *
 * SIGSEGV and SIGBUS have our own handler once a VM was made: guest memory that the
 * program has protected or unmapped ends KVM_RUN with EFAULT (kvm/fault.c), and so does a bad
 * pointer any ioctl (kvm/uaccess.c). SIGILL is ours where a CPUID was replaced (cpuid.c). All other faults are the program's, as if we were not there.
 *
 * pthread_cancel may end a thread anywhere that has asked for it; kvm/ has to know.
 */
#include "shim/shim.h"

#include "kvm/kvm.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

typedef void any_handler(int sig, siginfo_t *info, void *context);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static any_handler *handlers[NSIG]; /* what the trampoline calls */
static struct sigaction faults[NSIG]; /* the program's action of a signal that is caught */
static bool caught[NSIG];	      /* SIGSEGV, SIGBUS, SIGILL: the handler is on_fault */

static __thread unsigned int depth __attribute__((tls_model("initial-exec")));

void shim_enter_run(void)
{
	depth = 0;
}

static void call_program(int sig, siginfo_t *info, void *context)
{
	any_handler *h = __atomic_load_n(&handlers[sig], __ATOMIC_ACQUIRE);

	vcpu_note_signal();
	depth++;
	h(sig, info, context); /* a handler of one argument does not mind the others */
	depth--;
}

static bool has_handler(const struct sigaction *a)
{
	return a->sa_handler != SIG_DFL && a->sa_handler != SIG_IGN;
}

/* No handler of the program: what the kernel would do. The signal comes again, or is sent again. */
static void default_fault(int sig, const siginfo_t *info)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	bool sent = info->si_code <= 0;

	if (sent && faults[sig].sa_handler == SIG_IGN)
		return;
	REAL(sigaction)(sig, &dfl, NULL);
	if (sent)
		raise(sig);
}

static bool is_ours(int sig, void *addr, void *context)
{
	if (sig == SIGILL)
		return shim_answer_cpuid(context);
	return uaccess_fault(context) || (!depth && vcpu_memory_fault(addr, context));
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	int saved = errno;

	if (info->si_code > 0 && is_ours(sig, info->si_addr, context))
		return;
	if (has_handler(&faults[sig]))
		call_program(sig, info, context);
	else
		default_fault(sig, info);
	errno = saved;
}

static int install_fault(int sig)
{
	struct sigaction a = faults[sig];

	if (!has_handler(&a))
		a = (struct sigaction){.sa_flags = SA_ONSTACK};
	a.sa_sigaction = on_fault;
	a.sa_flags = (a.sa_flags & ~SA_RESETHAND) | SA_SIGINFO;
	return REAL(sigaction)(sig, &a, NULL);
}

/* The program's own handlers may call sigaction, too: none runs while we hold the lock. */
static void lock_actions(sigset_t *old)
{
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, old);
	pthread_mutex_lock(&lock);
}

static void unlock_actions(const sigset_t *old)
{
	pthread_mutex_unlock(&lock);
	pthread_sigmask(SIG_SETMASK, old, NULL);
}

/* With the lock. */
static bool catch(int sig)
{
	if (caught[sig])
		return true;
	REAL(sigaction)(sig, NULL, &faults[sig]);
	if (faults[sig].sa_sigaction == call_program)
		faults[sig].sa_sigaction = handlers[sig];
	caught[sig] = !install_fault(sig);
	return caught[sig];
}

void shim_catch_faults(void)
{
	sigset_t mask;

	lock_actions(&mask);
	if (catch(SIGSEGV) && catch(SIGBUS))
		uaccess_catch();
	unlock_actions(&mask);
}

void shim_catch_ud2(void)
{
	sigset_t mask;

	lock_actions(&mask);
	catch(SIGILL);
	unlock_actions(&mask);
}

static int change_fault(int sig, const struct sigaction *new, struct sigaction *old)
{
	if (old)
		*old = faults[sig];
	if (!new)
		return 0;
	faults[sig] = *new;
	__atomic_store_n(&handlers[sig], new->sa_sigaction, __ATOMIC_RELEASE);
	return install_fault(sig);
}

static int change(int sig, const struct sigaction *new, struct sigaction *old)
{
	any_handler *before = handlers[sig];
	struct sigaction a;
	int r;

	if (new && has_handler(new)) {
		a = *new;
		a.sa_sigaction = call_program;
		__atomic_store_n(&handlers[sig], new->sa_sigaction, __ATOMIC_RELEASE);
		new = &a;
	}
	r = REAL(sigaction)(sig, new, old);
	if (r && new)
		__atomic_store_n(&handlers[sig], before, __ATOMIC_RELEASE);
	if (!r && old && old->sa_sigaction == call_program)
		old->sa_sigaction = before;
	return r;
}

PUBLIC int sigaction(int sig, const struct sigaction *new, struct sigaction *old)
{
	struct sigaction in, out;
	sigset_t mask;
	int r;

	if (sig <= 0 || sig >= NSIG)
		return REAL(sigaction)(sig, new, old);
	if (new)
		in = *new; /* the two may be one object */
	lock_actions(&mask);
	if (caught[sig])
		r = change_fault(sig, new ? &in : NULL, &out);
	else
		r = change(sig, new ? &in : NULL, &out);
	unlock_actions(&mask);
	if (!r && old)
		*old = out;
	return r;
}

int __sigaction(int sig, const struct sigaction *new, struct sigaction *old);
sighandler_t __sysv_signal(int sig, sighandler_t handler);
sighandler_t bsd_signal(int sig, sighandler_t handler);

PUBLIC int __sigaction(int sig, const struct sigaction *new, struct sigaction *old)
{
	return sigaction(sig, new, old);
}

static sighandler_t simple(int sig, sighandler_t handler, int flags)
{
	struct sigaction a = {.sa_handler = handler, .sa_flags = flags}, old;

	sigemptyset(&a.sa_mask);
	if (!(flags & SA_NODEFER))
		sigaddset(&a.sa_mask, sig);
	return sigaction(sig, &a, &old) ? SIG_ERR : old.sa_handler;
}

PUBLIC sighandler_t signal(int sig, sighandler_t handler)
{
	return simple(sig, handler, SA_RESTART);
}

PUBLIC sighandler_t bsd_signal(int sig, sighandler_t handler)
{
	return simple(sig, handler, SA_RESTART);
}

PUBLIC sighandler_t ssignal(int sig, sighandler_t handler)
{
	return simple(sig, handler, SA_RESTART);
}

PUBLIC sighandler_t __sysv_signal(int sig, sighandler_t handler)
{
	return simple(sig, handler, SA_RESETHAND | SA_NODEFER);
}

PUBLIC sighandler_t sysv_signal(int sig, sighandler_t handler)
{
	return simple(sig, handler, SA_RESETHAND | SA_NODEFER);
}

PUBLIC int pthread_setcanceltype(int type, int *old)
{
	bool anywhere = type == PTHREAD_CANCEL_ASYNCHRONOUS;
	int r;

	if (anywhere)
		vcpu_note_cancel_type(true); /* it may end in the call */
	r = REAL(pthread_setcanceltype)(type, old);
	if (!anywhere && !r)
		vcpu_note_cancel_type(false);
	return r;
}
