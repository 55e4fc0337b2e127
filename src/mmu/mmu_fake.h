/* SPDX-License-Identifier: MIT */
/*
 * For tests of mmu/ only: guest memory that is an array, and a builder of page tables in
 * it for every mode. Page 0 up to FAKE_TABLES are the test's own; tables come after.
 */
#ifndef ANYKVM_MMU_FAKE_H
#define ANYKVM_MMU_FAKE_H

#include <stdlib.h>
#include <string.h>

#include "mmu/mmu.h"
#include "mmu/walk.h"
#include "x86/bits.h"

#define FAKE_PAGES  128
#define FAKE_TABLES 64 /* page number of the first table */

enum fake_mode { FAKE_OFF, FAKE_2LEVEL, FAKE_PAE, FAKE_4LEVEL, FAKE_5LEVEL };

struct fake {
	struct mmu mmu;
	enum fake_mode mode;
	u8 *ram;
	unsigned int next; /* page number of the next free table */
};

/* Change the flags of slot 0, which holds all memory. READONLY needs a delete before. */
static inline void fake_slot(struct fake *f, u16 flags)
{
	struct mem *m = f->mmu.mem;
	u64 size = FAKE_PAGES * PAGE_SIZE;

	if (f->mmu.slots && f->mmu.slots->nr && mem_set_slot(m, 0, 0, 0, gpa(0), 0, NULL))
		abort();
	if (mem_set_slot(m, 0, 0, flags, gpa(0), size, f->ram))
		abort();
	mem_put(f->mmu.slots);
	f->mmu.slots = mem_get(m, 0);
}

static inline void fake_init(struct fake *f)
{
	memset(f, 0, sizeof(*f));
	f->ram = aligned_alloc(PAGE_SIZE, FAKE_PAGES * PAGE_SIZE);
	f->mmu.mem = mem_create();
	fake_slot(f, 0);
}

static inline void fake_exit(struct fake *f)
{
	mem_put(f->mmu.slots);
	mem_destroy(f->mmu.mem);
	free(f->ram);
}

/* Levels that live in memory. */
static inline unsigned int fake_levels(enum fake_mode mode)
{
	return mode < FAKE_4LEVEL ? 2 : mode == FAKE_4LEVEL ? 4 : 5;
}

/* Drop all tables, keep the paging state. */
static inline void fake_mode_again(struct fake *f)
{
	memset(f->ram + FAKE_TABLES * PAGE_SIZE, 0, (FAKE_PAGES - FAKE_TABLES) * PAGE_SIZE);
	f->next = FAKE_TABLES + 1;
	for (u64 i = 0; f->mode == FAKE_PAE && i < 4; i++)
		f->mmu.paging.pdptr[i] = (f->next++ * PAGE_SIZE) | PTE_P;
}

/* Paging state of the mode, empty tables. */
static inline void fake_mode(struct fake *f, enum fake_mode mode)
{
	f->mode = mode;
	f->mmu.paging = (struct paging){
		.cr0 = CR0_PE | (mode == FAKE_OFF ? 0 : CR0_PG),
		.cr3 = FAKE_TABLES * PAGE_SIZE,
		.cr4 = (mode == FAKE_2LEVEL ? CR4_PSE : 0) | (mode >= FAKE_PAE ? CR4_PAE : 0) |
			(mode == FAKE_5LEVEL ? CR4_LA57 : 0),
		.efer = (mode >= FAKE_PAE ? EFER_NXE : 0) |
			(mode >= FAKE_4LEVEL ? EFER_LMA | EFER_LME : 0),
		.maxphyaddr = 46,
	};
	fake_mode_again(f);
}

/* Where the entry of this level for va is; makes the tables on the way. */
static inline void *fake_entry(struct fake *f, u64 va, unsigned int level)
{
	unsigned int bits = f->mode == FAKE_2LEVEL ? 10 : 9, l = fake_levels(f->mode);
	u64 table = f->mmu.paging.cr3, e;

	if (f->mode == FAKE_PAE)
		table = f->mmu.paging.pdptr[va >> 30 & 3] & ~(u64)PTE_P;
	for (;; l--) {
		u64 i = va >> (12 + bits * (l - 1)) & (BIT(bits) - 1);
		u32 *p4 = (u32 *)(f->ram + table) + i;
		u64 *p8 = (u64 *)(f->ram + table) + i;

		if (l == level)
			return bits == 10 ? (void *)p4 : p8;
		e = bits == 10 ? *p4 : *p8;
		if (!(e & PTE_P)) {
			e = f->next++ * PAGE_SIZE | PTE_P | PTE_W | PTE_U;
			if (bits == 10)
				*p4 = e;
			else
				*p8 = e;
		}
		table = e & BITS(51, 12);
	}
}

static inline u64 fake_read(struct fake *f, u64 va, unsigned int level)
{
	void *p = fake_entry(f, va, level);

	return f->mode == FAKE_2LEVEL ? *(u32 *)p : *(u64 *)p;
}

static inline void fake_write(struct fake *f, u64 va, unsigned int level, u64 e)
{
	void *p = fake_entry(f, va, level);

	if (f->mode == FAKE_2LEVEL)
		*(u32 *)p = e;
	else
		*(u64 *)p = e;
}

static inline void fake_entry_xor(struct fake *f, u64 va, unsigned int level, u64 bits)
{
	fake_write(f, va, level, fake_read(f, va, level) ^ bits);
}

/* Map the page of va to frame at a level; flags go into the leaf. */
static inline void fake_map(struct fake *f, u64 va, u64 frame, unsigned int level, u64 flags)
{
	if (f->mode == FAKE_2LEVEL && level == 2) /* PSE-36 */
		frame = (frame & 0xffc00000) | (frame >> 32 & 0xff) << 13;
	fake_write(f, va, level, frame | flags | (level > 1 ? PTE_PS : 0));
}

#endif
