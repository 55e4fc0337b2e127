// SPDX-License-Identifier: MIT
/*
 * The in-process device bus. An access holds a reference to the snapshot that it searches;
 * no lock is held inside a device, so a device may access the bus again, and others may
 * add devices meanwhile. Removal waits until only the current snapshot is alive: an access that
 * began in an older one may still be inside the device.
 *
 * Most accesses meet no device and go on to user space. A bitmap of the places where devices
 * are answers those without snapshot and search.
 * Not here: the cut of an access into pieces of 8 bytes, user-space fragments (emul/).
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#include "mem/iobus.h"

#define IOBUS_MAX 1000 /* KVM's NR_IOBUS_DEVS */

struct range {
	u64 addr, len; /* len 0: any access that starts at addr */
	const struct iodev_ops *ops;
	void *dev;
};

/* Immutable but for refs. */
struct snapshot {
	u32 refs; /* under bus->lock; one of them is the bus's while it is current */
	u32 nr;
	struct range range[];
};

#define PLACES 512 /* bits; a place may stand for several parts of the address space */

struct places {
	u64 bits[PLACES / 64];
};

struct iobus {
	struct places places; /* atomic words, written under vm->lock: a clear bit means no device */
	pthread_mutex_t lock;
	pthread_cond_t drained; /* an old snapshot died */
	struct snapshot *cur;	/* under lock */
	u32 live;		/* under lock: snapshots alive, cur included */
};

/* ---- snapshots */

static struct snapshot *snapshot_alloc(u32 room)
{
	struct snapshot *s = malloc(sizeof(*s) + room * sizeof(s->range[0]));

	if (s) {
		s->refs = 1;
		s->nr = 0;
	}
	return s;
}

static struct snapshot *snapshot_get(struct iobus *b)
{
	struct snapshot *s;

	pthread_mutex_lock(&b->lock);
	s = b->cur;
	s->refs++;
	pthread_mutex_unlock(&b->lock);
	return s;
}

static void snapshot_put_locked(struct iobus *b, struct snapshot *s)
{
	if (--s->refs)
		return;
	free(s);
	b->live--;
	pthread_cond_broadcast(&b->drained);
}

static void snapshot_put(struct iobus *b, struct snapshot *s)
{
	pthread_mutex_lock(&b->lock);
	snapshot_put_locked(b, s);
	pthread_mutex_unlock(&b->lock);
}

/* Make s current. With wait, return when no access is in an older snapshot any more. */
static void iobus_publish(struct iobus *b, struct snapshot *s, bool wait)
{
	struct snapshot *old;

	pthread_mutex_lock(&b->lock);
	old = b->cur;
	b->cur = s;
	b->live++;
	snapshot_put_locked(b, old);
	while (wait && b->live > 1)
		pthread_cond_wait(&b->drained, &b->lock);
	pthread_mutex_unlock(&b->lock);
}

/* ---- the places */

/* Eight ports, or a page of memory. */
static inline u64 place_of(u64 addr)
{
	return addr < 0x10000 ? addr >> 3 : addr >> PAGE_SHIFT;
}

/* Devices like to begin at round addresses: the IOAPIC's bit must not be that of all of them. */
static inline unsigned int place_bit(u64 place)
{
	return (place ^ place >> 9) % PLACES;
}

static void places_add(struct places *p, const struct range *r)
{
	u64 end = r->addr + (r->len ? r->len - 1 : 0); /* its last byte */
	u64 first = place_of(r->addr), last = place_of(end);

	if ((r->addr < 0x10000) != (end < 0x10000) || last - first >= PLACES) {
		memset(p, 0xff, sizeof(*p));
		return;
	}
	for (u64 at = first; at <= last; at++)
		p->bits[place_bit(at) / 64] |= BIT(place_bit(at) % 64);
}

static void places_of(struct places *p, const struct snapshot *s)
{
	memset(p, 0, sizeof(*p));
	for (u32 i = 0; i < s->nr; i++)
		places_add(p, &s->range[i]);
}

static void places_publish(struct iobus *b, const struct places *p)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(p->bits); k++)
		__atomic_store_n(&b->places.bits[k], p->bits[k], __ATOMIC_RELEASE);
}

static inline bool place_has(const struct iobus *b, u64 addr)
{
	unsigned int at = place_bit(place_of(addr));

	return __atomic_load_n(&b->places.bits[at / 64], __ATOMIC_ACQUIRE) & BIT(at % 64);
}

static inline bool nobody_at(const struct iobus *b, u64 addr, unsigned int len)
{
	return !place_has(b, addr) && !place_has(b, addr + len - 1);
}

/* ---- the set of devices */

struct iobus *iobus_create(void)
{
	struct iobus *b = calloc(1, sizeof(*b));

	if (!b)
		return NULL;
	b->cur = snapshot_alloc(0);
	if (!b->cur) {
		free(b);
		return NULL;
	}
	b->live = 1;
	pthread_mutex_init(&b->lock, NULL);
	pthread_cond_init(&b->drained, NULL);
	return b;
}

/* A device may have several ranges; it is destroyed with its first. */
static bool seen_before(const struct snapshot *s, u32 i)
{
	for (u32 k = 0; k < i; k++)
		if (s->range[k].dev == s->range[i].dev)
			return true;
	return false;
}

void iobus_destroy(struct iobus *b)
{
	if (!b)
		return;
	for (u32 i = 0; i < b->cur->nr; i++)
		if (b->cur->range[i].ops->destroy && !seen_before(b->cur, i))
			b->cur->range[i].ops->destroy(b->cur->range[i].dev);
	free(b->cur);
	pthread_cond_destroy(&b->drained);
	pthread_mutex_destroy(&b->lock);
	free(b);
}

int iobus_add(struct iobus *b, u64 addr, u64 len, const struct iodev_ops *ops, void *dev)
{
	const struct snapshot *old = b->cur;
	struct places places;
	struct snapshot *s;

	if (old->nr >= IOBUS_MAX)
		return -ENOSPC;
	s = snapshot_alloc(old->nr + 1);
	if (!s)
		return -ENOMEM;
	for (; s->nr < old->nr; s->nr++)
		s->range[s->nr] = old->range[s->nr];
	s->range[s->nr++] = (struct range){addr, len, ops, dev};
	places_of(&places, s);
	iobus_publish(b, s, false);
	places_publish(b, &places);
	return 0;
}

static const struct iodev_ops *ops_of(const struct snapshot *s, const void *dev)
{
	for (u32 i = 0; i < s->nr; i++)
		if (s->range[i].dev == dev)
			return s->range[i].ops;
	return NULL;
}

/* Copy all ranges but those of dev; to and from may be one. */
static void copy_without(struct snapshot *to, const struct snapshot *from, const void *dev)
{
	u32 nr = 0;

	for (u32 i = 0; i < from->nr; i++)
		if (from->range[i].dev != dev)
			to->range[nr++] = from->range[i];
	to->nr = nr;
}

/* No memory for a new snapshot: wait until nobody is inside, and change the current one. */
static void remove_in_place(struct iobus *b, const void *dev)
{
	pthread_mutex_lock(&b->lock);
	while (b->live > 1 || b->cur->refs > 1) {
		pthread_mutex_unlock(&b->lock);
		sched_yield();
		pthread_mutex_lock(&b->lock);
	}
	copy_without(b->cur, b->cur, dev);
	pthread_mutex_unlock(&b->lock);
}

int iobus_remove(struct iobus *b, void *dev)
{
	const struct snapshot *old = b->cur;
	const struct iodev_ops *ops = ops_of(old, dev);
	struct snapshot *s;
	struct places places;

	if (!ops)
		return -ENOENT;
	s = snapshot_alloc(old->nr);
	if (s) {
		copy_without(s, old, dev);
		iobus_publish(b, s, true);
	} else {
		remove_in_place(b, dev);
	}
	places_of(&places, b->cur);
	places_publish(b, &places);
	if (ops->destroy)
		ops->destroy(dev);
	return 0;
}

/* ---- one access */

/* The differences wrap, so that a range may end at 2^64. */
static inline bool range_touches(const struct range *r, u64 addr, unsigned int len)
{
	if (!r->len)
		return r->addr == addr;
	return addr - r->addr < r->len || r->addr - addr < len;
}

bool iobus_has_any_length(struct iobus *b, u64 addr)
{
	struct snapshot *s = snapshot_get(b);
	bool found = false;

	for (u32 i = 0; i < s->nr && !found; i++)
		found = !s->range[i].len && s->range[i].addr == addr;
	snapshot_put(b, s);
	return found;
}

int iobus_read(struct iobus *b, u64 addr, unsigned int len, void *data)
{
	int ret = -EOPNOTSUPP;
	struct snapshot *s;

	if (nobody_at(b, addr, len))
		return ret;
	s = snapshot_get(b);
	for (u32 i = 0; ret && i < s->nr; i++) {
		const struct range *r = &s->range[i];

		if (range_touches(r, addr, len) && r->ops->read)
			ret = r->ops->read(r->dev, addr, len, data);
	}
	snapshot_put(b, s);
	return ret ? -EOPNOTSUPP : 0;
}

int iobus_write(struct iobus *b, u64 addr, unsigned int len, const void *data)
{
	int ret = -EOPNOTSUPP;
	struct snapshot *s;

	if (nobody_at(b, addr, len))
		return ret;
	s = snapshot_get(b);
	for (u32 i = 0; ret && i < s->nr; i++) {
		const struct range *r = &s->range[i];

		if (range_touches(r, addr, len) && r->ops->write)
			ret = r->ops->write(r->dev, addr, len, data);
	}
	snapshot_put(b, s);
	return ret ? -EOPNOTSUPP : 0;
}
