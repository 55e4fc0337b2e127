// SPDX-License-Identifier: MIT
/*
 * The short way from a descriptor to its vCPU. object_find asks the kernel for the inode, a
 * system call at every exit; so each thread keeps the vCPU of its last ioctl, with a
 * reference, in a pocket.
 *
 * A descriptor's meaning changes when it is closed or overwritten, and a number's when we
 * give it out anew. Our own calls see all of that and empty the pockets (object_forget).
 * A program that closes behind our back (a raw system call) and then puts another vCPU's
 * descriptor at the same number is found out by the kernel's answer at every RECHECK-th use;
 * not by fstat, which a program's seccomp filter need not know.
 */
#include "kvm/object.h"

#include "base/hard.h"

#include <pthread.h>
#include <stdlib.h>

#define RECHECK (HARD ? 2u : 1024u)

/*
 * Whoever takes obj out owns its reference: the thread for the time of a call, object_forget
 * for good. What the thread puts back after object_forget has gone by is recognised by the
 * generation under which it was found.
 */
struct pocket {
	struct object *obj; /* atomic */
	/* owner thread and its signal handlers, which stay away while it is busy */
	int fd;
	u32 generation, uses;
	bool busy;
	struct pocket *next; /* under pockets.lock */
};

static struct {
	pthread_once_t once;
	pthread_key_t key; /* so that a thread's end empties its pocket */
	pthread_mutex_t lock;
	struct pocket *list;
	u32 generation; /* atomic: object_forget's calls */
} pockets = {.once = PTHREAD_ONCE_INIT, .lock = PTHREAD_MUTEX_INITIALIZER};

static __thread struct pocket *mine __attribute__((tls_model("initial-exec")));

static struct object *take(struct pocket *p)
{
	return __atomic_exchange_n(&p->obj, NULL, __ATOMIC_SEQ_CST);
}

static void empty(struct pocket *p)
{
	struct object *o = take(p);

	if (o)
		object_put(o);
}

/* ---- a thread's pocket */

static void pocket_free(void *arg)
{
	struct pocket *p = arg;

	pthread_mutex_lock(&pockets.lock);
	for (struct pocket **at = &pockets.list; *at; at = &(*at)->next)
		if (*at == p) {
			*at = p->next;
			break;
		}
	pthread_mutex_unlock(&pockets.lock);
	mine = NULL;
	empty(p);
	free(p);
}

static void make_key(void)
{
	if (pthread_key_create(&pockets.key, pocket_free))
		pockets.key = -1;
}

static struct pocket *pocket_create(void)
{
	struct pocket *p = calloc(1, sizeof(*p));

	pthread_once(&pockets.once, make_key);
	if (!p || pthread_setspecific(pockets.key, p)) {
		free(p);
		return NULL;
	}
	p->fd = -1;
	pthread_mutex_lock(&pockets.lock);
	p->next = pockets.list;
	pockets.list = p;
	pthread_mutex_unlock(&pockets.lock);
	mine = p;
	return p;
}

/* Against our own signal handlers only. */
static void set_busy(struct pocket *p, bool busy)
{
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
	*(volatile bool *)&p->busy = busy;
	__atomic_signal_fence(__ATOMIC_SEQ_CST);
}

/* ---- in and out */

struct object *object_take(int fd, u32 *generation)
{
	struct pocket *p = mine;
	struct object *o = NULL;

	*generation = __atomic_load_n(&pockets.generation, __ATOMIC_SEQ_CST);
	if (!p || p->busy)
		return object_find(fd);
	set_busy(p, true);
	if (p->fd == fd)
		o = take(p);
	if (o)
		*generation = p->generation;
	set_busy(p, false);
	if (o && ++p->uses % RECHECK == 0 && !object_is_still(o, fd)) {
		object_put(o);
		o = NULL;
	}
	return o ? o : object_find(fd);
}

void object_give(struct object *o, int fd, u32 generation)
{
	struct pocket *p = mine;

	if (o->kind != OBJECT_VCPU || (p && p->busy) || (!p && !(p = pocket_create()))) {
		object_put(o);
		return;
	}
	set_busy(p, true);
	p->fd = fd;
	p->generation = generation;
	o = __atomic_exchange_n(&p->obj, o, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&pockets.generation, __ATOMIC_SEQ_CST) != generation)
		empty(p);
	set_busy(p, false);
	if (o)
		object_put(o);
}

void object_forget(void)
{
	struct object *found[64];
	size_t n;

	__atomic_fetch_add(&pockets.generation, 1, __ATOMIC_SEQ_CST);
	do { /* released outside the lock: a VM may end here */
		n = 0;
		pthread_mutex_lock(&pockets.lock);
		for (struct pocket *p = pockets.list; p && n < ARRAY_SIZE(found); p = p->next)
			if ((found[n] = take(p)))
				n++;
		pthread_mutex_unlock(&pockets.lock);
		for (size_t i = 0; i < n; i++)
			object_put(found[i]);
	} while (n == ARRAY_SIZE(found));
}
