// SPDX-License-Identifier: MIT
/* A heap of deadlines and a list of descriptors behind one ppoll. */
#include "kvm/event_thread.h"

#include "kvm/vm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

struct event_thread {
	pthread_t thread;
	int wake; /* eventfd: the heap's top or the sources changed */
	pthread_mutex_t lock; /* all below */
	pthread_cond_t idle;  /* `busy` became NULL */
	bool stop, stopped, sleeping;
	u64 sleep_until; /* deadline of the current ppoll; ~0: none */
	/* binary heap of armed timers by deadline_ns; timer->pos = place + 1, 0 when not in it */
	struct irq_timer **heap;
	size_t nr, room;
	struct event_source *sources, *busy;
	size_t nr_sources;
};

/* ---- the heap */

static void heap_put(struct event_thread *t, size_t i, struct irq_timer *x)
{
	t->heap[i] = x;
	x->pos = i + 1;
}

static void heap_up(struct event_thread *t, size_t i, struct irq_timer *x)
{
	for (; i && t->heap[(i - 1) / 2]->deadline_ns > x->deadline_ns; i = (i - 1) / 2)
		heap_put(t, i, t->heap[(i - 1) / 2]);
	heap_put(t, i, x);
}

static void heap_down(struct event_thread *t, size_t i, struct irq_timer *x)
{
	for (size_t k; (k = 2 * i + 1) < t->nr; i = k) {
		if (k + 1 < t->nr && t->heap[k + 1]->deadline_ns < t->heap[k]->deadline_ns)
			k++;
		if (t->heap[k]->deadline_ns >= x->deadline_ns)
			break;
		heap_put(t, i, t->heap[k]);
	}
	heap_put(t, i, x);
}

static void heap_remove(struct event_thread *t, struct irq_timer *x)
{
	size_t i = x->pos - 1;
	struct irq_timer *last = t->heap[--t->nr];

	x->pos = 0;
	if (last == x)
		return;
	if (i && t->heap[(i - 1) / 2]->deadline_ns > last->deadline_ns)
		heap_up(t, i, last);
	else
		heap_down(t, i, last);
}

static bool heap_insert(struct event_thread *t, struct irq_timer *x)
{
	if (t->nr == t->room) {
		size_t room = t->room ? 2 * t->room : 16;
		struct irq_timer **h = realloc(t->heap, room * sizeof(*h));

		if (!h)
			return false;
		t->heap = h;
		t->room = room;
	}
	heap_up(t, t->nr++, x);
	return true;
}

/* ---- the thread */

static void wake(struct event_thread *t)
{
	u64 one = 1;
	ssize_t r = write(t->wake, &one, sizeof(one));

	(void)r; /* EAGAIN: it is awake already */
}

/* Fire what is due. Lock held; dropped around each call. */
static void fire_due(struct event_thread *t)
{
	u64 now = mono_ns();

	while (t->nr && t->heap[0]->deadline_ns <= now && !t->stop) {
		struct irq_timer *x = t->heap[0];

		heap_remove(t, x);
		pthread_mutex_unlock(&t->lock);
		x->fire(x);
		pthread_mutex_lock(&t->lock);
	}
}

/* Call the source of a descriptor that poll reported. Lock held; dropped around the call. */
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
	if (revents == -1)
		s->fd = ~s->fd; /* poll ignores it from now on; event_del finds it by pointer */
	pthread_cond_broadcast(&t->idle);
}

static size_t fill(struct event_thread *t, struct pollfd *p)
{
	size_t n = 0;

	p[n++] = (struct pollfd){.fd = t->wake, .events = POLLIN};
	for (struct event_source *s = t->sources; s; s = s->next)
		p[n++] = (struct pollfd){.fd = s->fd, .events = POLLIN};
	return n;
}

static void wait_for_events(struct event_thread *t, struct pollfd *p, size_t n)
{
	struct timespec ts, *timeout = NULL;
	u64 until = t->nr ? t->heap[0]->deadline_ns : ~0ull, now = mono_ns();
	int r;

	if (until != ~0ull) {
		u64 left = until > now ? until - now : 0;

		ts = (struct timespec){left / 1000000000, left % 1000000000};
		timeout = &ts;
	}
	t->sleep_until = until;
	t->sleeping = true;
	pthread_mutex_unlock(&t->lock);
	r = ppoll(p, n, timeout, NULL);
	pthread_mutex_lock(&t->lock);
	t->sleeping = false;
	if (r > 0 && p[0].revents) {
		u64 count;
		ssize_t got = read(t->wake, &count, sizeof(count));

		(void)got;
	}
	for (size_t i = 1; r > 0 && i < n; i++)
		if (p[i].revents)
			source_ready(t, p[i].fd, p[i].revents);
}

static void *event_main(void *arg)
{
	struct event_thread *t = arg;
	struct pollfd *p = NULL;
	size_t room = 0;

	prctl(PR_SET_TIMERSLACK, 1ul);
	pthread_mutex_lock(&t->lock);
	while (!t->stop) {
		fire_due(t);
		if (t->nr_sources + 1 > room) {
			struct pollfd *q = realloc(p, 2 * (t->nr_sources + 1) * sizeof(*p));

			if (q) {
				p = q;
				room = 2 * (t->nr_sources + 1);
			} else if (!room) {
				break;
			}
		}
		if (!t->stop && t->nr_sources + 1 <= room)
			wait_for_events(t, p, fill(t, p));
	}
	pthread_mutex_unlock(&t->lock);
	free(p);
	return NULL;
}

static bool start_thread(struct event_thread *t)
{
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&t->thread, NULL, event_main, t);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!r)
		pthread_setname_np(t->thread, "kvm-events");
	return !r;
}

struct event_thread *event_thread_start(struct vm *vm)
{
	struct event_thread *t = calloc(1, sizeof(*t));

	(void)vm;
	if (!t)
		return NULL;
	pthread_mutex_init(&t->lock, NULL);
	pthread_cond_init(&t->idle, NULL);
	t->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (t->wake >= 0 && start_thread(t))
		return t;
	t->stopped = true;
	event_thread_free(t);
	return NULL;
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
	free(t->heap);
	pthread_cond_destroy(&t->idle);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

void event_arm(struct event_thread *t, struct irq_timer *x, u64 deadline_ns)
{
	bool earlier = false;

	pthread_mutex_lock(&t->lock);
	if (x->pos)
		heap_remove(t, x);
	x->deadline_ns = deadline_ns;
	if (heap_insert(t, x))
		earlier = t->sleeping && deadline_ns < t->sleep_until;
	if (earlier)
		t->sleep_until = deadline_ns; /* woken once for it is enough */
	pthread_mutex_unlock(&t->lock);
	if (earlier)
		wake(t);
}

void event_disarm(struct event_thread *t, struct irq_timer *x)
{
	pthread_mutex_lock(&t->lock);
	if (x->pos)
		heap_remove(t, x);
	pthread_mutex_unlock(&t->lock);
}

void event_add(struct event_thread *t, struct event_source *s)
{
	pthread_mutex_lock(&t->lock);
	s->next = t->sources;
	t->sources = s;
	t->nr_sources++;
	pthread_mutex_unlock(&t->lock);
	wake(t);
}

void event_del(struct event_thread *t, struct event_source *s)
{
	pthread_mutex_lock(&t->lock);
	while (t->busy == s && !t->stopped)
		pthread_cond_wait(&t->idle, &t->lock);
	for (struct event_source **p = &t->sources; *p; p = &(*p)->next)
		if (*p == s) {
			*p = s->next;
			t->nr_sources--;
			break;
		}
	pthread_mutex_unlock(&t->lock);
	wake(t);
}
