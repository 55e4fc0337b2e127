// SPDX-License-Identifier: MIT
/*
 * Memslots: which guest-physical pages are RAM, and where in the host. Snapshots are
 * immutable and counted; a change builds new ones for all address spaces, so that one
 * generation number tells every reader whether its snapshot is current. One that no reader has is
 * changed in place: a client may add 32,764 slots one after the other.
 * Not here: checks of the ioctl's arguments (kvm/), devices (iobus.c).
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "mem/dirty.h"
#include "mem/mem.h"

struct mem {
	pthread_mutex_t lock; /* guards cur[] */
	struct memslots *cur[MEM_SPACES];
	u32 generation; /* atomic; equals that of every cur[] */
	/* writer only: where each slot of cur[] starts, plus 1; 0: there is none. Made at its first use. */
	u64 *start_of[MEM_SPACES];
};

/* ---- snapshots */

static struct memslots *slots_alloc(u32 room)
{
	struct memslots *s = malloc(sizeof(*s) + room * sizeof(s->slot[0]));

	if (s) {
		s->refs = 1;
		s->generation = 0;
		s->nr = s->nr_logged = 0;
		s->room = room;
	}
	return s;
}

/* Number of slots that start below gpa. */
static u32 slots_below(const struct memslots *s, u64 gpa)
{
	u32 lo = 0, hi = s->nr;

	while (lo < hi) {
		u32 mid = (lo + hi) / 2;

		if (s->slot[mid].gpa.v < gpa)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

/* A copy with room for more; it has references of its own to the bitmaps. */
static struct memslots *slots_copy(const struct memslots *old)
{
	struct memslots *s = slots_alloc(MAX(16u, old->nr + old->nr / 2));

	if (!s)
		return NULL;
	memcpy(s->slot, old->slot, old->nr * sizeof(s->slot[0]));
	s->nr = old->nr;
	s->nr_logged = old->nr_logged;
	for (u32 i = 0; s->nr_logged && i < s->nr; i++)
		dirty_get(s->slot[i].dirty);
	return s;
}

static void slots_remove(struct memslots *s, u32 at)
{
	struct memslot *x = &s->slot[at];

	s->nr_logged -= !!x->dirty;
	dirty_put(x->dirty);
	s->nr--;
	memmove(x, x + 1, (s->nr - at) * sizeof(*x));
}

static void slots_insert(struct memslots *s, const struct memslot *add)
{
	u32 at = slots_below(s, add->gpa.v);
	struct memslot *x = &s->slot[at];

	memmove(x + 1, x, (s->nr - at) * sizeof(*x));
	*x = *add;
	s->nr++;
	s->nr_logged += !!x->dirty;
	dirty_get(x->dirty);
}

void mem_put(struct memslots *s)
{
	if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (u32 i = 0; s->nr_logged && i < s->nr; i++)
		dirty_put(s->slot[i].dirty);
	free(s);
}

struct memslots *mem_get(struct mem *m, unsigned int as)
{
	struct memslots *s;

	/* The lock keeps a writer from dropping the last reference under our hands. */
	pthread_mutex_lock(&m->lock);
	s = m->cur[as];
	__atomic_fetch_add(&s->refs, 1, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&m->lock);
	return s;
}

u32 mem_generation(const struct mem *m)
{
	return __atomic_load_n(&m->generation, __ATOMIC_SEQ_CST); /* see vcpu_enter */
}

/* What is to become space i's snapshot: the current one if it is nobody else's, or a copy. */
static struct memslots *slots_to_change(struct mem *m, unsigned int i)
{
	struct memslots *s = m->cur[i];

	if (__atomic_load_n(&s->refs, __ATOMIC_ACQUIRE) == 1 && s->nr < s->room)
		return s;
	return slots_copy(s);
}

/* Drop what will not become current after all. */
static void forget(struct mem *m, struct memslots **next, unsigned int n)
{
	while (n--)
		if (next[n] != m->cur[n])
			mem_put(next[n]);
}

/* Under the lock: successors of all spaces, with the change made in space `as`. */
static bool slots_change(struct mem *m, struct memslots *next[MEM_SPACES], unsigned int as,
	const struct memslot *old, const struct memslot *add)
{
	u32 at = old ? old - m->cur[as]->slot : 0;

	for (unsigned int i = 0; i < MEM_SPACES; i++) {
		next[i] = slots_to_change(m, i);
		if (!next[i]) {
			forget(m, next, i);
			return false;
		}
	}
	if (old)
		slots_remove(next[as], at);
	if (add)
		slots_insert(next[as], add);
	return true;
}

/* The generation changes last: who sees the new one gets the new snapshots. */
static void slots_publish(struct mem *m, struct memslots *next[MEM_SPACES])
{
	u32 generation = m->generation + 1;

	for (int i = 0; i < MEM_SPACES; i++) {
		struct memslots *old = m->cur[i];

		next[i]->generation = generation;
		m->cur[i] = next[i];
		next[i] = old == m->cur[i] ? NULL : old;
	}
	__atomic_store_n(&m->generation, generation, __ATOMIC_SEQ_CST);
}

struct mem *mem_create(void)
{
	struct mem *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	pthread_mutex_init(&m->lock, NULL);
	for (int i = 0; i < MEM_SPACES; i++) {
		m->cur[i] = slots_alloc(0);
		if (!m->cur[i]) {
			mem_destroy(m);
			return NULL;
		}
	}
	return m;
}

void mem_destroy(struct mem *m)
{
	if (!m)
		return;
	for (int i = 0; i < MEM_SPACES; i++) {
		mem_put(m->cur[i]);
		free(m->start_of[i]);
	}
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* ---- changes */

/* For the writer and whoever holds off writers. */
static const struct memslot *slot_by_id(const struct mem *m, unsigned int as, u16 id)
{
	const u64 *start = m->start_of[as];

	if (!start || id >= MEM_SLOTS_MAX || !start[id])
		return NULL;
	return &m->cur[as]->slot[slots_below(m->cur[as], start[id] - 1)];
}

/* Does x overlap any slot but old, the one in whose place it comes? */
static bool slot_overlaps(const struct memslots *s, const struct memslot *x, const struct memslot *old)
{
	u32 n = slots_below(s, x->gpa.v);

	/* the last one that starts below it, and the first that does not; old may be either */
	for (u32 i = n, left = 2; i-- && left; left--)
		if (&s->slot[i] != old && x->gpa.v - s->slot[i].gpa.v < s->slot[i].size)
			return true;
	for (u32 i = n; i < s->nr && i < n + 2; i++)
		if (&s->slot[i] != old && s->slot[i].gpa.v - x->gpa.v < x->size)
			return true;
	return false;
}

/* The table of starts, with room for id: 0, -EINVAL or -ENOMEM. */
static int slot_table(struct mem *m, unsigned int as, u16 id)
{
	u64 *t;

	if (id >= MEM_SLOTS_MAX)
		return -EINVAL;
	if (m->start_of[as])
		return 0;
	t = calloc(MEM_SLOTS_MAX, sizeof(*t));
	if (!t)
		return -ENOMEM;
	m->start_of[as] = t;
	return 0;
}

/* In space `as`, put add (if not NULL) in the place of old (if not NULL). */
static int mem_replace(struct mem *m, unsigned int as, u16 id, const struct memslot *old,
	const struct memslot *add)
{
	struct memslots *next[MEM_SPACES]; /* afterwards those that they replace */
	bool ok;

	pthread_mutex_lock(&m->lock);
	ok = slots_change(m, next, as, old, add);
	if (ok) {
		m->start_of[as][id] = add ? add->gpa.v + 1 : 0;
		slots_publish(m, next);
	}
	pthread_mutex_unlock(&m->lock);
	for (int i = 0; ok && i < MEM_SPACES; i++)
		mem_put(next[i]);
	return ok ? 0 : -ENOMEM;
}

/* A new or changed slot keeps the bitmap of the old one, or gets a fresh one. */
static int slot_set_log(struct memslot *new, const struct memslot *old)
{
	new->dirty = NULL;
	if (!(new->flags & MEM_LOG_DIRTY))
		return 0;
	if (old && old->dirty) {
		new->dirty = old->dirty;
		dirty_get(new->dirty);
		return 0;
	}
	new->dirty = dirty_create(new->size >> PAGE_SHIFT);
	return new->dirty ? 0 : -ENOMEM;
}

int mem_set_slot(
	struct mem *m, unsigned int as, u16 id, u16 flags, gpa_t gpa, u64 size, u8 *hva)
{
	struct memslot new = {.id = id, .flags = flags, .gpa = gpa, .size = size, .hva = hva};
	const struct memslot *old;
	int err;

	if (as >= MEM_SPACES)
		return -EINVAL;
	err = slot_table(m, as, id);
	if (err)
		return err;
	old = slot_by_id(m, as, id);
	if (!size)
		return old ? mem_replace(m, as, id, old, NULL) : -EINVAL;

	if (old) {
		if (size != old->size || hva != old->hva ||
			((flags ^ old->flags) & MEM_READONLY))
			return -EINVAL;
		if (gpa.v == old->gpa.v && flags == old->flags)
			return 0;
	}
	if (slot_overlaps(m->cur[as], &new, old))
		return -EEXIST;

	err = slot_set_log(&new, old);
	if (!err)
		err = mem_replace(m, as, id, old, &new);
	dirty_put(new.dirty); /* the snapshots hold their own references */
	return err;
}

/* ---- look-ups */

const struct memslot *memslot_find(const struct memslots *s, gpa_t gpa)
{
	const struct memslot *x = s->slot;

	/* x is the last slot that may start at or below gpa; the loop has no taken branch inside */
	for (u32 n = s->nr; n > 1;) {
		u32 half = n / 2;

		x = x[half].gpa.v <= gpa.v ? x + half : x;
		n -= half;
	}
	return s->nr && gpa.v - x->gpa.v < x->size ? x : NULL;
}

u8 *mem_hva(const struct memslots *s, gpa_t gpa, u64 len, bool write)
{
	const struct memslot *x = memslot_find(s, gpa);

	return x && write && x->flags & MEM_READONLY ? NULL : memslot_hva(x, gpa, len);
}

const struct memslot *mem_mark_dirty(const struct memslots *s, gpa_t gpa)
{
	const struct memslot *x = memslot_find(s, gpa);

	if (x && x->dirty && dirty_set(x->dirty, (gpa.v - x->gpa.v) >> PAGE_SHIFT))
		return x;
	return NULL;
}

bool mem_needs_dirty(const struct memslots *s, gpa_t gpa)
{
	const struct memslot *x = memslot_find(s, gpa);

	return x && x->dirty && !dirty_test(x->dirty, (gpa.v - x->gpa.v) >> PAGE_SHIFT);
}

/* ---- the dirty log's ioctls */

/* For readers of any thread: they have the snapshot, but not the writer's table. */
static const struct memslot *slot_in(const struct memslots *s, u16 id)
{
	for (u32 i = 0; i < s->nr; i++)
		if (s->slot[i].id == id)
			return &s->slot[i];
	return NULL;
}

s64 mem_get_dirty(struct mem *m, unsigned int as, u16 id, void *out, bool clear)
{
	const struct memslot *x;
	struct memslots *s;
	s64 ret = -ENOENT;

	if (as >= MEM_SPACES)
		return -ENOENT;
	s = mem_get(m, as);
	x = slot_in(s, id);
	if (x && x->dirty) {
		ret = x->dirty->words * 8;
		if (out)
			dirty_read(x->dirty, out, clear);
	}
	mem_put(s);
	return ret;
}

/* KVM's rule: whole words, but for a range that ends with the slot. */
static bool clear_range_ok(u64 pages, u64 first, u32 n)
{
	return first <= pages && n <= pages - first && (n % 64 == 0 || n == pages - first);
}

int mem_clear_dirty(
	struct mem *m, unsigned int as, u16 id, u64 first, u32 n, const void *bitmap)
{
	const struct memslot *x;
	struct memslots *s;
	int ret = -ENOENT;

	if (first % 64)
		return -EINVAL;
	if (as >= MEM_SPACES)
		return -ENOENT;
	s = mem_get(m, as);
	x = slot_in(s, id);
	if (x && x->dirty) {
		ret = clear_range_ok(x->size >> PAGE_SHIFT, first, n) ? 0 : -EINVAL;
		if (!ret)
			dirty_clear(x->dirty, first / 64, (n + 63ull) / 64, bitmap);
	}
	mem_put(s);
	return ret;
}

int mem_clear_dirty_page(struct mem *m, unsigned int as, u16 id, u64 page)
{
	const struct memslot *x = as < MEM_SPACES ? slot_by_id(m, as, id) : NULL;
	u64 bit = BIT(page % 64);

	if (!x || !x->dirty)
		return -ENOENT;
	if (page >= x->size >> PAGE_SHIFT)
		return -EINVAL;
	dirty_clear(x->dirty, page / 64, 1, &bit);
	return 0;
}
