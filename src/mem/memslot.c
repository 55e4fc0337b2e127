// SPDX-License-Identifier: MIT
/*
 * Memslots: which guest-physical pages are RAM, and where in the host. Snapshots are
 * immutable and counted; a change builds new ones for all address spaces, so that one
 * generation number tells every reader whether its snapshot is current.
 * Not here: checks of the ioctl's arguments (kvm/), devices (iobus.c).
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "mem/dirty.h"
#include "mem/mem.h"

struct mem {
	pthread_mutex_t lock; /* guards cur[]; held for a few instructions only */
	struct memslots *cur[MEM_SPACES];
	u32 generation; /* atomic; equals that of every cur[] */
};

/* ---- snapshots */

static struct memslots *slots_alloc(u32 room)
{
	struct memslots *s = malloc(sizeof(*s) + room * sizeof(s->slot[0]));

	if (s) {
		s->refs = 1;
		s->generation = 0;
		s->nr = 0;
	}
	return s;
}

/* Append a slot; the snapshot takes a reference of its own to the bitmap. */
static void slots_append(struct memslots *s, const struct memslot *slot)
{
	dirty_get(slot->dirty);
	s->slot[s->nr++] = *slot;
}

/* A copy without slot id (none if -1) and with add (if not NULL) in its place. */
static struct memslots *slots_copy(
	const struct memslots *old, int without, const struct memslot *add)
{
	struct memslots *s = slots_alloc(old->nr + 1);

	if (!s)
		return NULL;
	for (u32 i = 0; i < old->nr; i++) {
		if (old->slot[i].id == without)
			continue;
		if (add && add->gpa.v < old->slot[i].gpa.v) {
			slots_append(s, add);
			add = NULL;
		}
		slots_append(s, &old->slot[i]);
	}
	if (add)
		slots_append(s, add);
	return s;
}

void mem_put(struct memslots *s)
{
	if (!s || __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (u32 i = 0; i < s->nr; i++)
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

/* Make next[] the current snapshots. The generation changes last: who sees it gets them. */
static void mem_publish(struct mem *m, struct memslots *next[MEM_SPACES])
{
	u32 generation = m->generation + 1;
	struct memslots *old[MEM_SPACES];

	pthread_mutex_lock(&m->lock);
	for (int i = 0; i < MEM_SPACES; i++) {
		next[i]->generation = generation;
		old[i] = m->cur[i];
		m->cur[i] = next[i];
	}
	__atomic_store_n(&m->generation, generation, __ATOMIC_SEQ_CST);
	pthread_mutex_unlock(&m->lock);

	for (int i = 0; i < MEM_SPACES; i++)
		mem_put(old[i]);
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
	for (int i = 0; i < MEM_SPACES; i++)
		mem_put(m->cur[i]);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* ---- changes */

static const struct memslot *slot_by_id(const struct memslots *s, u16 id)
{
	for (u32 i = 0; i < s->nr; i++)
		if (s->slot[i].id == id)
			return &s->slot[i];
	return NULL;
}

/* Does any slot but the one with this id overlap it? */
static bool slot_overlaps(const struct memslots *s, const struct memslot *x)
{
	for (u32 i = 0; i < s->nr; i++) {
		const struct memslot *o = &s->slot[i];

		if (o->id != x->id && x->gpa.v - o->gpa.v < o->size)
			return true;
		if (o->id != x->id && o->gpa.v - x->gpa.v < x->size)
			return true;
	}
	return false;
}

/* Build the successors of all spaces, with the change in space `as`; publish or undo. */
static int mem_replace(struct mem *m, unsigned int as, u16 id, const struct memslot *add)
{
	struct memslots *next[MEM_SPACES];

	for (unsigned int i = 0; i < MEM_SPACES; i++) {
		next[i] = i == as ? slots_copy(m->cur[i], id, add) :
				    slots_copy(m->cur[i], -1, NULL);
		if (!next[i]) {
			while (i--)
				mem_put(next[i]);
			return -ENOMEM;
		}
	}
	mem_publish(m, next);
	return 0;
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
	old = slot_by_id(m->cur[as], id);
	if (!size)
		return old ? mem_replace(m, as, id, NULL) : -EINVAL;

	if (old) {
		if (size != old->size || hva != old->hva ||
			((flags ^ old->flags) & MEM_READONLY))
			return -EINVAL;
		if (gpa.v == old->gpa.v && flags == old->flags)
			return 0;
	}
	if (slot_overlaps(m->cur[as], &new))
		return -EEXIST;

	err = slot_set_log(&new, old);
	if (!err)
		err = mem_replace(m, as, id, &new);
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

void mem_mark_dirty(const struct memslots *s, gpa_t gpa)
{
	const struct memslot *x = memslot_find(s, gpa);

	if (x && x->dirty)
		dirty_set(x->dirty, (gpa.v - x->gpa.v) >> PAGE_SHIFT);
}

bool mem_needs_dirty(const struct memslots *s, gpa_t gpa)
{
	const struct memslot *x = memslot_find(s, gpa);

	return x && x->dirty && !dirty_test(x->dirty, (gpa.v - x->gpa.v) >> PAGE_SHIFT);
}

/* ---- the dirty log's ioctls */

s64 mem_get_dirty(struct mem *m, unsigned int as, u16 id, void *out, bool clear)
{
	const struct memslot *x;
	struct memslots *s;
	s64 ret = -ENOENT;

	if (as >= MEM_SPACES)
		return -ENOENT;
	s = mem_get(m, as);
	x = slot_by_id(s, id);
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
	x = slot_by_id(s, id);
	if (x && x->dirty) {
		ret = clear_range_ok(x->size >> PAGE_SHIFT, first, n) ? 0 : -EINVAL;
		if (!ret)
			dirty_clear(x->dirty, first / 64, (n + 63ull) / 64, bitmap);
	}
	mem_put(s);
	return ret;
}
