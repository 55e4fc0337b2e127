// SPDX-License-Identifier: MIT
/*
 * A heap of deadlines and a list of descriptors behind one epoll_pwait. A VMM may forbid
 * itself (and with it this thread) most system calls once it has set up its machine: the
 * loop makes no other calls than epoll_pwait, timerfd_settime, read, write and futex.
 */
#include "kvm/event_thread.h"

#include "kvm/eventfd.h"
#include "kvm/timers.h"
#include "kvm/vm.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

struct event_thread {
	pthread_t thread;
	int epoll, timer; /* CLOCK_MONOTONIC timerfd: the heap's top */
	int wake; /* eventfd: the end */
	pthread_mutex_t lock; /* all below */
	pthread_cond_t idle;  /* `busy` became NULL; `started` was set */
	bool started, stop, stopped, sleeping;
	u64 timer_at; /* what `timer` is set to; ~0: not */
	struct timers timers;
	struct event_source *sources, *busy;
};

/* ---- the thread */

static void wake(struct event_thread *t)
{
	eventfd_raise(t->wake);
}

/* Fire what is due. Lock held; dropped around each call. */
static void fire_due(struct event_thread *t)
{
	u64 now = mono_ns();
	struct irq_timer *x;

	while ((x = timers_first(&t->timers)) && x->deadline_ns <= now && !t->stop) {
		timers_disarm(&t->timers, x);
		pthread_mutex_unlock(&t->lock);
		x->fire(x);
		pthread_mutex_lock(&t->lock);
	}
}

static void forget_fd(struct event_thread *t, int fd);

/* Call the source of a descriptor that has input. Lock held; dropped around the call. */
static void source_ready(struct event_thread *t, int fd, short revents)
{
	struct event_source *s = t->sources;

	while (s && s->fd != fd)
		s = s->next;
	if (!s)
		return;
	t->busy = s;
	pthread_mutex_unlock(&t->lock);
	if (!s->ready(s, revents))
		revents = -1;
	pthread_mutex_lock(&t->lock);
	t->busy = NULL;
	if (revents == -1) {
		forget_fd(t, fd);
		s->fd = ~s->fd; /* event_del finds it by pointer */
	}
	pthread_cond_broadcast(&t->idle);
}

/* Lock held. */
static void set_timer(struct event_thread *t, u64 deadline)
{
	struct itimerspec when = {{0, 0}, {deadline / 1000000000, MAX(deadline % 1000000000, 1u)}};

	if (!timerfd_settime(t->timer, TFD_TIMER_ABSTIME, &when, NULL))
		t->timer_at = deadline;
}

/* The wake or timer descriptor: take its count. */
static void drain(struct event_thread *t, int fd)
{
	u64 count;
	ssize_t got = read(fd, &count, sizeof(count));

	(void)got;
	if (fd == t->timer)
		t->timer_at = ~0ull;
}

static void wait_for_events(struct event_thread *t)
{
	const struct irq_timer *first = timers_first(&t->timers);
	struct epoll_event e[16];
	int n;

	if (first && first->deadline_ns < t->timer_at)
		set_timer(t, first->deadline_ns);
	t->sleeping = true;
	pthread_mutex_unlock(&t->lock);
	n = epoll_pwait(t->epoll, e, ARRAY_SIZE(e), -1, NULL);
	pthread_mutex_lock(&t->lock);
	t->sleeping = false;
	for (int i = 0; i < n; i++) {
		if (e[i].data.fd == t->wake || e[i].data.fd == t->timer)
			drain(t, e[i].data.fd);
		else
			source_ready(t, e[i].data.fd, e[i].events);
	}
}

static void *event_main(void *arg)
{
	struct event_thread *t = arg;

	pthread_mutex_lock(&t->lock);
	t->started = true;
	pthread_cond_broadcast(&t->idle);
	while (!t->stop) {
		fire_due(t);
		if (!t->stop)
			wait_for_events(t);
	}
	pthread_mutex_unlock(&t->lock);
	return NULL;
}

static bool watch_fd(struct event_thread *t, int fd)
{
	struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};

	return fd >= 0 && !epoll_ctl(t->epoll, EPOLL_CTL_ADD, fd, &e);
}

static void forget_fd(struct event_thread *t, int fd)
{
	epoll_ctl(t->epoll, EPOLL_CTL_DEL, fd, NULL);
}

static int start_thread(struct event_thread *t)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&t->thread, NULL, event_main, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r)
		return -ENOMEM;
	pthread_setname_np(t->thread, "kvm-events");
	/* libc's start of a thread makes calls that a filter may not know */
	pthread_mutex_lock(&t->lock);
	while (!t->started)
		pthread_cond_wait(&t->idle, &t->lock);
	pthread_mutex_unlock(&t->lock);
	return 0;
}

static int open_descriptors(struct event_thread *t)
{
	t->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (t->epoll < 0)
		return -errno;
	t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->wake < 0)
		return -errno;
	t->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (t->timer < 0)
		return -errno;
	return watch_fd(t, t->wake) && watch_fd(t, t->timer) ? 0 : -ENOMEM;
}

int event_thread_start(struct event_thread **out)
{
	struct event_thread *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->idle, NULL);
	t->timer_at = ~0ull;
	t->epoll = t->wake = t->timer = -1;
	r = timers_init(&t->timers) ? open_descriptors(t) : -ENOMEM;
	if (!r)
		r = start_thread(t);
	if (!r) {
		*out = t;
		return 0;
	}
	event_thread_free(t);
	return r;
}

void event_thread_stop(struct event_thread *t)
{
	pthread_mutex_lock(&t->lock);
	t->stop = true;
	pthread_mutex_unlock(&t->lock);
	wake(t);
	if (!t->stopped)
		pthread_join(t->thread, NULL);
	t->stopped = true;
}

void event_thread_free(struct event_thread *t)
{
	if (t->wake >= 0)
		close(t->wake);
	if (t->timer >= 0)
		close(t->timer);
	if (t->epoll >= 0)
		close(t->epoll);
	timers_free(&t->timers);
	pthread_cond_destroy(&t->idle);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void event_arm(struct event_thread *t, struct irq_timer *x, u64 deadline_ns)
{
	pthread_mutex_lock(&t->lock);
	if (timers_arm(&t->timers, x, deadline_ns) && t->sleeping && deadline_ns < t->timer_at)
		set_timer(t, deadline_ns);
	pthread_mutex_unlock(&t->lock);
}

void event_disarm(struct event_thread *t, struct irq_timer *x)
{
	pthread_mutex_lock(&t->lock);
	timers_disarm(&t->timers, x);
	pthread_mutex_unlock(&t->lock);
}

bool event_add(struct event_thread *t, struct event_source *s)
{
	bool ok;

	pthread_mutex_lock(&t->lock);
	s->next = t->sources; /* before the descriptor can be reported */
	t->sources = s;
	ok = watch_fd(t, s->fd);
	if (!ok)
		t->sources = s->next;
	pthread_mutex_unlock(&t->lock);
	return ok;
}

void event_del(struct event_thread *t, struct event_source *s)
{
	pthread_mutex_lock(&t->lock);
	while (t->busy == s && !t->stopped)
		pthread_cond_wait(&t->idle, &t->lock);
	for (struct event_source **p = &t->sources; *p; p = &(*p)->next)
		if (*p == s) {
			*p = s->next;
			if (s->fd >= 0)
				forget_fd(t, s->fd);
			break;
		}
	pthread_mutex_unlock(&t->lock);
}
