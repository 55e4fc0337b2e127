// SPDX-License-Identifier: MIT
/* The table of objects: the library's only mutable global (DESIGN.md law 11). */
#include "kvm/object.h"

#include "base/cancel.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 8u
#endif

static struct {
	pthread_mutex_t lock;
	struct object *bucket[64];
	u32 nr;		 /* atomic: published objects */
	u32 nr_lingering; /* atomic */
	u64 seen[1024];	 /* atomic: bit n: descriptor n may be ours */
	u64 map_start, map_end; /* atomic */
} table = {.lock = PTHREAD_MUTEX_INITIALIZER};

static struct object **bucket_of(ino_t ino)
{
	return &table.bucket[ino % ARRAY_SIZE(table.bucket)];
}

bool object_any(void)
{
	return __atomic_load_n(&table.nr, __ATOMIC_RELAXED);
}

static u64 *seen_word(int fd)
{
	return fd >= 0 && (size_t)fd / 64 < ARRAY_SIZE(table.seen) ? &table.seen[fd / 64] : NULL;
}

bool object_fd_seen(int fd)
{
	const u64 *w = seen_word(fd);

	if (!w)
		return fd >= 0 && object_any();
	return __atomic_load_n(w, __ATOMIC_RELAXED) >> (fd % 64) & 1;
}

static void fd_note(int fd)
{
	u64 *w = seen_word(fd);

	if (w && !object_fd_seen(fd))
		__atomic_fetch_or(w, BIT(fd % 64), __ATOMIC_RELAXED);
}

void object_fd_forget(int fd)
{
	u64 *w = seen_word(fd);

	if (w && object_fd_seen(fd))
		__atomic_fetch_and(w, ~BIT(fd % 64), __ATOMIC_RELAXED);
}

void object_note_mapping(const void *addr, size_t len)
{
	u64 start = (u64)addr, end = start + len;

	pthread_mutex_lock(&table.lock);
	if (!table.map_end || start < table.map_start)
		__atomic_store_n(&table.map_start, start, __ATOMIC_RELAXED);
	if (end > table.map_end)
		__atomic_store_n(&table.map_end, end, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&table.lock);
}

bool object_may_be_mapped(const void *addr, size_t len)
{
	return (u64)addr < __atomic_load_n(&table.map_end, __ATOMIC_RELAXED) &&
	       (u64)addr + len > __atomic_load_n(&table.map_start, __ATOMIC_RELAXED);
}

/* ---- life */

int fd_reopen(int fd, int flags)
{
	char path[32];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = open(path, flags);
	return r < 0 ? -errno : r;
}

static int make_memfd(const char *name)
{
	int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	return fd < 0 ? -errno : fd;
}

/*
 * Sealed in size: a client's ftruncate must not turn our own mapping into SIGBUS. Each vCPU's
 * size is another one, so that object_is_still needs no other system call than ioctl.
 */
static int set_size(struct object *o, int fd, size_t size)
{
	if (o->kind == OBJECT_VCPU)
		size += 1 + o->ino % (PAGE_SIZE - 1);
	o->size = size;
	return ftruncate(fd, size) || fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) ? -errno : 0;
}

int object_create(struct object *o, enum object_kind kind, const char *name, size_t size,
	void (*release)(struct object *o))
{
	struct stat st;
	int fd = make_memfd(name), own, r;

	if (fd < 0)
		return fd;
	if (fstat(fd, &st)) {
		close(fd);
		return -EIO;
	}
	*o = (struct object){
		.kind = kind,
		.own = -1,
		.dev = st.st_dev,
		.ino = st.st_ino,
		.release = release,
		.refs = 1,
	};
	r = set_size(o, fd, size);
	if (r) {
		close(fd);
		return r;
	}
	/*
	 * Leases count descriptions that were opened; memfd_create's own does not count
	 * itself. Without /proc we keep it, and every explicit close is taken for the last.
	 */
	own = fd_reopen(fd, O_RDWR | O_CLOEXEC);
	if (own >= 0)
		close(fd);
	o->own = own >= 0 ? own : fd;
	return 0;
}

bool object_is_still(const struct object *o, int fd)
{
	int size; /* less the file's position, which is 0 in a descriptor of ours */

	return !ioctl(fd, FIONREAD, &size) && (size_t)size == o->size;
}

void object_destroy(struct object *o)
{
	if (o->own >= 0)
		close(o->own);
	o->own = -1;
}

int object_open(struct object *o, int flags)
{
	int fd = fd_reopen(o->own, flags & (O_ACCMODE | O_CLOEXEC));

	if (fd == -EMFILE || fd == -ENFILE)
		return fd;
	if (fd < 0)
		fd = fcntl(o->own, flags & O_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
	if (fd < 0)
		return -errno;
	object_forget();
	pthread_mutex_lock(&table.lock);
	if (!o->published) {
		struct object **b = bucket_of(o->ino);

		o->next = *b;
		*b = o;
		o->published = true;
		__atomic_fetch_add(&table.nr, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&table.lock);
	fd_note(fd);
	return fd;
}

struct object *object_find(int fd)
{
	struct object *o;
	struct stat st;

	if (fd < 0 || fstat(fd, &st))
		return NULL;
	pthread_mutex_lock(&table.lock);
	for (o = *bucket_of(st.st_ino); o; o = o->next)
		if (o->ino == st.st_ino && o->dev == st.st_dev && !o->closed)
			break;
	if (o)
		o->refs++;
	pthread_mutex_unlock(&table.lock);
	if (o)
		fd_note(fd);
	return o;
}

void object_put(struct object *o)
{
	bool last;
	int state;

	pthread_mutex_lock(&table.lock);
	last = !--o->refs;
	pthread_mutex_unlock(&table.lock);
	if (!last || !o->release)
		return;
	state = cancel_off();
	o->release(o);
	cancel_back(state);
}

/* Is `own` still our file? A program may have closed descriptors that it does not know. */
static bool own_is_ours(const struct object *o)
{
	struct stat st;

	return o->own >= 0 && !fstat(o->own, &st) && st.st_ino == o->ino && st.st_dev == o->dev;
}

/* A write lease is granted only if no other description of the file is open. */
static bool unused(const struct object *o)
{
	if (!own_is_ours(o))
		return true;
	if (!fcntl(o->own, F_SETLEASE, F_WRLCK)) {
		fcntl(o->own, F_SETLEASE, F_UNLCK);
		return true;
	}
	return errno != EAGAIN; /* no leases here: take it for the last */
}

/* Under the table's lock. */
static void set_lingering(struct object *o, bool on)
{
	if (o->lingering != on)
		__atomic_fetch_add(&table.nr_lingering, on ? 1 : -1, __ATOMIC_RELAXED);
	o->lingering = on;
}

void object_reap(struct object *o)
{
	bool drop = false, last;

	object_forget();
	if (!o->release)
		return;
	last = unused(o);
	pthread_mutex_lock(&table.lock);
	set_lingering(o, !last && !o->closed);
	if (last && o->published && !o->closed) {
		struct object **b = bucket_of(o->ino);

		while (*b != o)
			b = &(*b)->next;
		*b = o->next;
		o->closed = drop = true;
		__atomic_fetch_sub(&table.nr, 1, __ATOMIC_RELAXED);
	}
	pthread_mutex_unlock(&table.lock);
	if (drop)
		object_put(o);
}

void object_sweep(void)
{
	struct object *found[64];
	size_t n = 0;

	if (!__atomic_load_n(&table.nr_lingering, __ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&table.lock);
	for (size_t i = 0; i < ARRAY_SIZE(table.bucket); i++)
		for (struct object *o = table.bucket[i]; o; o = o->next)
			if (o->lingering && n < ARRAY_SIZE(found)) {
				o->refs++;
				found[n++] = o;
			}
	pthread_mutex_unlock(&table.lock);
	while (n--) {
		object_reap(found[n]);
		object_put(found[n]);
	}
}

void object_each(enum object_kind kind, void (*fn)(struct object *o))
{
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	if (pthread_mutex_timedlock(&table.lock, &until))
		return;
	for (size_t i = 0; i < ARRAY_SIZE(table.bucket); i++)
		for (struct object *o = table.bucket[i]; o; o = o->next)
			if (o->kind == kind)
				fn(o);
	pthread_mutex_unlock(&table.lock);
}
