/* SPDX-License-Identifier: MIT */
/*
 * Guest-physical memory: memslots, dirty log, and the one function that turns a GPA
 * into a host pointer. Knows nothing of page tables, CPUs or KVM ioctls; kvm/ does the
 * argument checks of KVM_SET_USER_MEMORY_REGION and calls mem_set_slot.
 *
 * The set of slots is an immutable snapshot (struct memslots). A reader takes a
 * reference to the current one and may use the host pointers that it got from it until
 * it drops the reference. A writer builds a new snapshot and publishes it.
 */
#ifndef ANYKVM_MEM_H
#define ANYKVM_MEM_H

#include "base/base.h"

#define MEM_SPACES 2 /* address spaces: 0 normal, 1 SMM (KVM_CAP_MULTI_ADDRESS_SPACE) */
#define MEM_SLOTS_MAX 32764

#define MEM_READONLY  BIT(0) /* a write finds no RAM */
#define MEM_LOG_DIRTY BIT(1)

/* One slot; immutable but for the dirty bitmap's bits. */
struct memslot {
	u16 id;	   /* KVM's slot number */
	u16 flags; /* MEM_* */
	gpa_t gpa;
	u64 size;  /* bytes, a multiple of 4096 */
	u8 *hva;
	struct dirty_log *dirty; /* NULL unless MEM_LOG_DIRTY; shared by successive snapshots */
};

/* Snapshot of one address space, sorted by gpa. Immutable as long as a reader has it. */
struct memslots {
	u32 refs;	/* atomic */
	u32 generation; /* grows with every change of the VM's slots */
	u32 nr, room;
	u32 nr_logged; /* slots with a dirty log */
	struct memslot slot[];
};

struct mem; /* all guest-physical memory of a VM; thread-safe */

struct mem *mem_create(void); /* NULL: out of memory */
void mem_destroy(struct mem *m);

/*
 * Add, change, move (other gpa) or delete (size 0) slot `id` of address space `as`.
 * Caller serialises (vm->lock) and has validated alignment and limits. Returns 0,
 * -EEXIST (overlap), -EINVAL (delete of a slot that is not there; change of size, hva or
 * MEM_READONLY in place) or -ENOMEM: KVM's codes. Readers go on with the old snapshot
 * until they take a new one; see mem_generation.
 */
MUSTCHECK int mem_set_slot(
	struct mem *m, unsigned int as, u16 id, u16 flags, gpa_t gpa, u64 size, u8 *hva);

/* Current generation; one acquire load. Differs from snapshot->generation when stale. */
u32 mem_generation(const struct mem *m);

/* Take / drop a reference to the current snapshot of address space `as`. Any thread. */
struct memslots *mem_get(struct mem *m, unsigned int as);
void mem_put(struct memslots *s);

/* The slot that contains gpa, or NULL. Binary search. */
const struct memslot *memslot_find(const struct memslots *s, gpa_t gpa);

/*
 * The checked accessor (law 6): host pointer to [gpa, gpa+len), which must lie inside one
 * slot, or NULL if there is no RAM. write: also NULL for a read-only slot; the caller marks
 * the page dirty with mem_mark_dirty after writing (or before handing the pointer out).
 */
u8 *mem_hva(const struct memslots *s, gpa_t gpa, u64 len, bool write);

/* The same for a slot already found (NULL: no RAM); for readers that stay in one slot. */
static inline u8 *memslot_hva(const struct memslot *x, gpa_t gpa, u64 len)
{
	u64 off;

	if (!x)
		return NULL;
	off = gpa.v - x->gpa.v;
	return off < x->size && len <= x->size - off ? x->hva + off : NULL;
}

/*
 * Set the dirty bit of gpa's page if its slot is logged. Any thread. Returns the slot if the bit
 * was not set before, else NULL.
 */
const struct memslot *mem_mark_dirty(const struct memslots *s, gpa_t gpa);

/* Does the page of gpa need a mem_mark_dirty at its next write? (slot is logged, bit clear) */
bool mem_needs_dirty(const struct memslots *s, gpa_t gpa);

/*
 * KVM_GET_DIRTY_LOG: copy the bitmap (ceil(pages/64)*8 bytes) to out and, with clear, clear
 * it. Returns bytes, -ENOENT (no such slot, or it is not logged), or bytes needed if out is
 * NULL. After a clear the caller must make all vCPUs drop their write translations.
 */
s64 mem_get_dirty(struct mem *m, unsigned int as, u16 id, void *out, bool clear);

/*
 * KVM_CLEAR_DIRTY_LOG: clear the bits that are set in `bitmap` for pages first..first+n.
 * 0, -ENOENT or -EINVAL (range). Same duty for the caller.
 */
MUSTCHECK int mem_clear_dirty(
	struct mem *m, unsigned int as, u16 id, u64 first, u32 n, const void *bitmap);

/* The same for one page, by whoever serialises changes of slots: 0, -ENOENT or -EINVAL. */
MUSTCHECK int mem_clear_dirty_page(struct mem *m, unsigned int as, u16 id, u64 page);

#endif
