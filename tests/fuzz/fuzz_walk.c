// SPDX-License-Identifier: MIT
/*
 * The walker, the soft TLB and the memory slots: random slots over one arena, random table
 * entries, random paging state. Host pointers stay inside their slot, and what the TLB says
 * after a flush is what a walk says.
 */
#include "fuzz.h"

#include "mem/mem.h"
#include "mmu/mmu.h"
#include "x86/bits.h"

#define ARENA_PAGES 64
#define ARENA_SIZE  (ARENA_PAGES * PAGE_SIZE)

struct world {
	struct mem *mem;
	struct mmu mmu;
	u8 *arena;
};

static u64 take_gpa(struct bytes *b)
{
	u64 v = take_number(b);

	return v & 1 ? (v >> 1 & 127) << PAGE_SHIFT : v & BITS(51, 12);
}

static u64 take_gva(struct bytes *b)
{
	u64 v = take_number(b);

	return take_uint8_t(b) & 3 ? v & 0x3fffff : v;
}

static void set_slot(struct world *w, struct bytes *b)
{
	u16 id = take_uint8_t(b) % 8, flags = take_uint8_t(b) & 3;
	u64 first = take_uint8_t(b) % ARENA_PAGES, pages = take_uint8_t(b) % (ARENA_PAGES - first + 1);
	u64 at = take_gpa(b);

	if (at + pages * PAGE_SIZE < at)
		return;
	(void)!mem_set_slot(w->mem, take_uint8_t(b) & 1, id, flags, gpa(at), pages * PAGE_SIZE,
		w->arena + first * PAGE_SIZE);
	FUZZ_CHECK(!mmu_attach(&w->mmu));
}

/* Table entries: mostly to where tables are. */
static void write_entry(struct world *w, struct bytes *b)
{
	u64 at = take_uint16_t(b) % (ARENA_SIZE / 8) * 8, e = take_number(b);

	if (e & 1)
		e = take_uint8_t(b) % 64 * PAGE_SIZE | (e & 0xfff) | (e & BIT(63));
	memcpy(w->arena + at, &e, 8);
}

static void set_paging(struct world *w, struct bytes *b)
{
	struct paging p = {
		.cr0 = CR0_PE | (take_uint8_t(b) & 1 ? CR0_PG : 0) | (take_uint8_t(b) & 1 ? CR0_WP : 0),
		.cr3 = take_uint8_t(b) & 1 ? take_number(b) & BITS(51, 0) : take_uint8_t(b) % 64 * PAGE_SIZE,
		.cr4 = take_uint32_t(b) & (CR4_PAE | CR4_PSE | CR4_PGE | CR4_SMEP | CR4_SMAP | CR4_LA57),
		.pkru = take_uint32_t(b),
		.maxphyaddr = 36 + take_uint8_t(b) % 17,
	};

	if ((p.cr4 & CR4_PAE) && take_uint8_t(b) & 1)
		p.efer = EFER_LME | EFER_LMA;
	p.efer |= take_uint8_t(b) & 1 ? EFER_NXE : 0;
	if (!(p.efer & EFER_LMA))
		p.cr3 = (u32)p.cr3;
	if ((p.cr4 & CR4_PAE) && !(p.efer & EFER_LMA) && (p.cr0 & CR0_PG))
		(void)!mmu_load_pdptrs(&w->mmu, &p);
	mmu_set_paging(&w->mmu, &p, take_uint8_t(b) & 1);
}

/* A host pointer may only lead to the slot's own bytes. */
static void check_pointer(struct world *w, const u8 *hva, gpa_t g, u64 len)
{
	const struct memslot *s = memslot_find(w->mmu.slots, g);

	FUZZ_CHECK(s && hva == s->hva + (g.v - s->gpa.v));
	FUZZ_CHECK(hva >= w->arena && hva + len <= w->arena + ARENA_SIZE);
}

static void translate(struct world *w, struct bytes *b)
{
	static const u8 needs[] = {MMU_R, MMU_R | MMU_W, MMU_X};
	gva_t v = gva(take_gva(b));
	u8 need = needs[take_uint8_t(b) % 3];
	u16 len = 1 + take_uint8_t(b) % MIN(page_left(v.v), 64u);
	enum mmu_attr attr = take_uint8_t(b) % NR_MMU_ATTRS;
	struct xlat x = {0}, y = {0};
	u32 error = 0, error2 = 0;
	enum mmu_status s, s2;
	u8 *hva = NULL;

	s = mmu_translate(&w->mmu, v, len, need, attr, WALK_CPU, &x, &hva, &error);
	if (s == MMU_OK) {
		FUZZ_CHECK((x.rights & need) == need && x.gva.v == v.v);
		if (hva) {
			check_pointer(w, hva, x.gpa, len);
			if (need & MMU_W)
				FUZZ_CHECK(mem_hva(w->mmu.slots, x.gpa, len, true) == hva);
		}
	}
	if (!(take_uint8_t(b) & 1))
		return;
	mmu_flush(&w->mmu);
	s = mmu_walk(&w->mmu, v, len, need, attr, WALK_DATA, &x, &error);
	s2 = mmu_translate(&w->mmu, v, len, need, attr, WALK_CPU, &y, &hva, &error2);
	/* The walk may have set A and D bits in an entry of another level of its own tables. */
	if (s == MMU_OK && s2 == MMU_OK && x.gpa.v != y.gpa.v) {
		s = mmu_walk(&w->mmu, v, len, need, attr, WALK_DATA, &x, &error);
		mmu_flush(&w->mmu);
		s2 = mmu_translate(&w->mmu, v, len, need, attr, WALK_CPU, &y, &hva, &error2);
		FUZZ_CHECK(s != MMU_OK || s2 != MMU_OK || x.gpa.v == y.gpa.v);
	}
}

static void dirty(struct world *w, struct bytes *b)
{
	static u64 bitmap[64];
	u16 id = take_uint8_t(b) % 8;
	s64 n = mem_get_dirty(w->mem, 0, id, NULL, false);

	FUZZ_CHECK(n < (s64)sizeof(bitmap));
	if (n >= 0)
		FUZZ_CHECK(mem_get_dirty(w->mem, 0, id, bitmap, take_uint8_t(b) & 1) == n);
	(void)!mem_clear_dirty(w->mem, 0, id, take_number(b) & 0xffffffffc0, take_uint8_t(b), bitmap);
	mmu_flush_writes(&w->mmu);
}

static void accessor(struct world *w, struct bytes *b)
{
	gpa_t g = gpa(take_gpa(b) + take_uint8_t(b));
	u64 len = take_number(b);
	bool write = take_uint8_t(b) & 1;
	u8 *p = mem_hva(w->mmu.slots, g, len, write);

	if (p && len) {
		check_pointer(w, p, g, len);
		mem_mark_dirty(w->mmu.slots, g);
		FUZZ_CHECK(!mem_needs_dirty(w->mmu.slots, g));
	}
}

static void step(struct world *w, struct bytes *b)
{
	switch (take_uint8_t(b) % 10) {
	case 0:
		set_slot(w, b);
		break;
	case 1:
	case 2:
	case 3:
		write_entry(w, b);
		break;
	case 4:
		set_paging(w, b);
		break;
	case 5:
		mmu_flush_page(&w->mmu, gva(take_gva(b)));
		break;
	case 6:
		dirty(w, b);
		break;
	case 7:
		accessor(w, b);
		break;
	default:
		translate(w, b);
	}
}

void fuzz_one(const uint8_t *data, size_t n)
{
	static u8 *arena;
	struct bytes b = {data, n};
	struct world w = {.mem = mem_create()};
	struct paging off = {.cr0 = CR0_PE, .maxphyaddr = 46};

	if (!arena)
		arena = aligned_alloc(PAGE_SIZE, ARENA_SIZE);
	w.arena = arena;
	memset(arena, 0, ARENA_SIZE);
	w.mmu.mem = w.mem;
	FUZZ_CHECK(!mem_set_slot(w.mem, 0, 0, 0, gpa(0), 32 * PAGE_SIZE, arena));
	FUZZ_CHECK(!mmu_attach(&w.mmu));
	mmu_set_paging(&w.mmu, &off, false);
	while (b.n)
		step(&w, &b);
	mmu_free(&w.mmu);
	mem_destroy(w.mem);
}
