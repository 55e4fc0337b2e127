// SPDX-License-Identifier: MIT
/*
 * The soft TLB: what is walked again and what is not, who may write without asking, and
 * what each flush drops (TESTING items 47, 55 to 57, 60; DESIGN.md law 5).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "base/hard.h"
#include "mmu/mmu_fake.h"

#define VA 0x345000ull

static struct fake f;
static u64 watched_page;

static bool watched(void *opaque, gpa_t page)
{
	assert_ptr_equal(opaque, &f);
	return page.v == watched_page;
}

static int setup(void **state)
{
	(void)state;
	fake_init(&f);
	fake_mode(&f, FAKE_4LEVEL);
	f.mmu.watched = watched;
	f.mmu.opaque = &f;
	watched_page = ~0ull;
	return mmu_attach(&f.mmu);
}

static int teardown(void **state)
{
	(void)state;
	mmu_free(&f.mmu);
	fake_exit(&f);
	return 0;
}

/* One access at va: its host address, NULL for no RAM, (void *)-1 for a fault. */
static u8 *touch_as(u64 va, u8 need, enum mmu_attr attr)
{
	u32 err = 0, epoch = f.mmu.epoch;
	struct xlat x;
	u8 *hva;

	if (mmu_translate(&f.mmu, gva(va), 4, need, attr, WALK_CPU, &x, &hva, &err) != MMU_OK)
		return (u8 *)-1;
	assert_int_equal(x.gva.v, va);
	assert_int_equal(x.len, 4);
	assert_int_equal(x.epoch, epoch);
	assert_int_equal(x.attr, attr);
	assert_int_equal(x.rights & need, need);
	if (hva)
		assert_int_equal(x.gpa.v, hva - f.ram);
	return hva;
}

static u8 *touch(u64 va, u8 need)
{
	return touch_as(va, need, MMU_KERNEL);
}

/* The processor's inline compare. */
static bool hit_r(u64 va, unsigned int n, enum mmu_attr attr)
{
	return (va ^ f.mmu.tlb[attr].hot[tlb_index(va)].tag_r) <= 4096 - n;
}

static bool hit_w(u64 va, unsigned int n, enum mmu_attr attr)
{
	return (va ^ f.mmu.tlb[attr].hot[tlb_index(va)].tag_w) <= 4096 - n;
}

static u64 walks(void)
{
	return f.mmu.walks[WALK_CPU];
}

#define MAP(va, pa, flags) fake_map(&f, va, pa, 1, PTE_P | (flags))
#define assert_walks(n) assert_int_equal(walks(), n)
#define RW (MMU_R | MMU_W)

/* ---- the inline compare */

/* In a TLB that nobody has cleared yet: a NULL pointer's fault leaves nothing that would hit. */
static void page_0_of_a_fresh_tlb(void **state)
{
	(void)state;
	assert_ptr_equal(touch(0x10, MMU_R), (u8 *)-1);
	assert_false(hit_r(0x10, 4, MMU_KERNEL));
	assert_false(hit_w(0x10, 4, MMU_KERNEL));
}

static void empty_never_hits(void **state)
{
	u64 va = 1;

	(void)state;
	for (int i = 0; i < 1000000; i++) {
		va = va * 6364136223846793005ull + 1442695040888963407ull;
		u64 ea = i & 1 ? va : va >> 40; /* low addresses too: page 0, page 1 */

		assert_false(hit_r(ea, 1, MMU_KERNEL) || hit_w(ea, 1, MMU_USER));
		assert_int_not_equal(f.mmu.tlb[0].info[tlb_index(ea)].tag, ea & PAGE_MASK);
	}
}

static void inline_hit(void **state)
{
	const u64 va[] = {0, 0x1000, VA, 0xffffffff81000000, 0xfffffffffffff000};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(va); i++) {
		struct tlb_hot *h = &f.mmu.tlb[MMU_KERNEL].hot[tlb_index(va[i])];

		MAP(va[i], 0x7000, PTE_W);
		assert_ptr_equal(touch(va[i] + 0x123, RW), f.ram + 0x7123);
		assert_int_equal(hit_r(va[i], 8, MMU_KERNEL), OPT_TLB);
		assert_int_equal(hit_w(va[i] + 0xff8, 8, MMU_KERNEL), OPT_TLB);
		assert_false(hit_r(va[i] + 0xff9, 8, MMU_KERNEL)); /* would cross */
		assert_false(hit_w(va[i] + 0xfff, 2, MMU_KERNEL));
		assert_false(hit_r(va[i] ^ 0x8000, 1, MMU_KERNEL));
		assert_false(hit_r(va[i], 1, MMU_USER) || hit_r(va[i], 1, MMU_KERNEL_AC));
		assert_ptr_equal((u8 *)(uintptr_t)(va[i] + h->delta), f.ram + 0x7000);
	}
}

/* ---- what is walked */

static void hit_does_not_walk(void **state)
{
	(void)state;
	MAP(VA, 0x7000, PTE_W | PTE_U);
	assert_ptr_equal(touch(VA, MMU_R), f.ram + 0x7000);
	assert_walks(1);
	for (int i = 0; i < 5; i++) {
		touch(VA + i * 8, MMU_R);
		touch(VA + i * 8, MMU_X);
	}
	assert_walks(1);
	assert_false(hit_w(VA, 1, MMU_KERNEL));
	touch(VA, RW); /* D was clear: walk once more to set it */
	assert_walks(2);
	assert_int_equal(fake_read(&f, VA, 1) & PTE_D, PTE_D);
	touch(VA, RW);
	touch(VA, MMU_R);
	assert_walks(2);
	touch_as(VA, RW, MMU_USER); /* a table of its own; all rights at once: D is set */
	touch_as(VA, MMU_R, MMU_USER);
	assert_walks(3);
	assert_int_equal(f.mmu.walks[WALK_DATA] + f.mmu.walks[WALK_FETCH], 0);
}

/* Law 5: a page without RAM is walked once; so is a read-only slot that is written. */
static void no_ram(void **state)
{
	(void)state;
	MAP(VA, 0xfee00000, PTE_W);
	for (int i = 0; i < 3; i++)
		assert_null(touch(VA + 0x30, RW));
	assert_null(touch(VA + 0x30, MMU_R));
	assert_walks(1);
	assert_false(hit_r(VA, 1, MMU_KERNEL) || hit_w(VA, 1, MMU_KERNEL));

	MAP(VA + 0x1000, 0x7000, PTE_W);
	fake_slot(&f, MEM_READONLY);
	assert_int_equal(mmu_attach(&f.mmu), 0);
	for (int i = 0; i < 3; i++) {
		assert_null(touch(VA + 0x1000, RW));
		assert_ptr_equal(touch(VA + 0x1000, MMU_R), f.ram + 0x7000);
		assert_ptr_equal(touch(VA + 0x1000, MMU_X), f.ram + 0x7000);
	}
	assert_walks(2);
	assert_int_equal(hit_r(VA + 0x1000, 1, MMU_KERNEL), OPT_TLB);
	assert_false(hit_w(VA + 0x1000, 1, MMU_KERNEL));
}

/* A fault leaves no entry, and an entry does not outlive a fault's need. */
static void faults(void **state)
{
	struct xlat x;
	u8 *hva;
	u32 err;

	(void)state;
	f.mmu.paging.cr0 |= CR0_WP;
	assert_ptr_equal(touch(VA, MMU_R), (u8 *)-1);
	MAP(VA, 0x7000, PTE_D);
	assert_ptr_equal(touch(VA, MMU_R), f.ram + 0x7000);
	assert_int_equal(mmu_translate(&f.mmu, gva(VA), 1, RW, MMU_KERNEL, WALK_CPU, &x, &hva, &err),
		MMU_FAULT);
	assert_int_equal(err, PF_P | PF_W);
	assert_int_equal(mmu_translate(&f.mmu, gva(BIT(47)), 1, RW, MMU_KERNEL, WALK_CPU, &x, &hva,
				 &err), MMU_NONCANON);
	assert_int_equal(hit_r(VA, 1, MMU_KERNEL), OPT_TLB);
	assert_false(hit_w(VA, 1, MMU_KERNEL));
}

/* Execute-only by protection key, or a user page under SMAP: fetched, but never read. */
static void execute_only(void **state)
{
	(void)state;
	f.mmu.paging.cr4 |= CR4_SMAP;
	MAP(VA, 0x7000, PTE_U | PTE_W | PTE_D);
	assert_ptr_equal(touch(VA, MMU_X), f.ram + 0x7000);
	assert_false(hit_r(VA, 1, MMU_KERNEL));
	assert_ptr_equal(touch(VA, MMU_R), (u8 *)-1);
	assert_ptr_equal(touch_as(VA, RW, MMU_KERNEL_AC), f.ram + 0x7000);
	assert_false(hit_r(VA, 1, MMU_KERNEL) || hit_w(VA, 1, MMU_KERNEL));
}

static void paging_off_is_cached(void **state)
{
	(void)state;
	fake_mode(&f, FAKE_OFF);
	assert_ptr_equal(touch(0x7123, RW), f.ram + 0x7123);
	assert_int_equal(hit_w(0x7123, 4, MMU_KERNEL), OPT_TLB);
	assert_null(touch(0xfffffff0, MMU_X));
	assert_walks(0);
}

/* ---- who may write without asking */

static void watch(void **state)
{
	(void)state;
	MAP(VA, 0x7000, PTE_W);
	MAP(VA + 0x1000, 0x7000, PTE_W); /* an alias */
	MAP(VA + 0x2000, 0x8000, PTE_W);
	watched_page = 0x7000;
	assert_ptr_equal(touch(VA, RW), f.ram + 0x7000);
	assert_false(hit_w(VA, 1, MMU_KERNEL));
	watched_page = ~0ull;
	assert_non_null(touch(VA, RW));
	assert_non_null(touch(VA + 0x1000, RW));
	assert_non_null(touch_as(VA + 0x2000, RW, MMU_KERNEL_AC));
	assert_int_equal(hit_w(VA, 1, MMU_KERNEL), OPT_TLB);
	mmu_unwatch_writes(&f.mmu, gpa(0x7000));
	assert_false(hit_w(VA, 1, MMU_KERNEL) || hit_w(VA + 0x1000, 1, MMU_KERNEL));
	assert_int_equal(hit_w(VA + 0x2000, 1, MMU_KERNEL_AC), OPT_TLB);
	assert_walks(3);
	touch(VA, RW);
	assert_int_equal(walks(), !OPT_TLB ? 4 : 3);
}

static void dirty_log(void **state)
{
	u64 map[FAKE_PAGES / 64], epoch;
	s64 n;

	(void)state;
	fake_slot(&f, MEM_LOG_DIRTY);
	assert_int_equal(mmu_attach(&f.mmu), 0);
	MAP(VA, 0x7000, PTE_W | PTE_D | PTE_A);
	touch(VA, MMU_R);
	n = mem_get_dirty(f.mmu.mem, 0, 0, map, true);
	assert_int_equal(n, sizeof(map));
	assert_int_equal(map[0], 0); /* tables are above page 63 */
	touch(VA, RW);
	assert_int_equal(hit_w(VA, 1, MMU_KERNEL), OPT_TLB);
	n = mem_get_dirty(f.mmu.mem, 0, 0, map, true);
	assert_int_equal(map[0], BIT(7));

	epoch = f.mmu.epoch;
	mmu_flush_writes(&f.mmu);
	assert_false(hit_w(VA, 1, MMU_KERNEL));
	assert_int_equal(hit_r(VA, 1, MMU_KERNEL), OPT_TLB);
	assert_int_equal(f.mmu.epoch, epoch); /* translations are still true */
	touch(VA, RW);
	n = mem_get_dirty(f.mmu.mem, 0, 0, map, true);
	assert_int_equal(map[0], BIT(7));
	assert_walks(1);
}

/* ---- flushes: three pages, each touched by kernel and user; which are walked again? */

enum { SMALL, LARGE, GLOBAL, NR_PAGES };
static const u64 page_va[NR_PAGES] = {0x400000, 0x40200000, 0xffffffff81000000};

static void fill_all(void)
{
	fake_mode_again(&f);
	fake_map(&f, page_va[SMALL], 0x7000, 1, PTE_P | PTE_W | PTE_U | PTE_D);
	fake_map(&f, page_va[LARGE], 0, 2, PTE_P | PTE_W | PTE_U | PTE_D);
	fake_map(&f, page_va[GLOBAL], 0x9000, 1, PTE_P | PTE_W | PTE_U | PTE_D | PTE_G);
	mmu_flush(&f.mmu);
	for (int k = 0; k < NR_PAGES; k++)
		for (int a = 0; a < NR_MMU_ATTRS; a++)
			touch_as(page_va[k], RW, a);
}

static void assert_kept(const char *what, bool small, bool large, bool global)
{
	const bool kept[NR_PAGES] = {small, large, global};

	for (int k = 0; k < NR_PAGES && OPT_TLB; k++) {
		for (int a = 0; a < NR_MMU_ATTRS; a++) {
			u64 before = walks();

			if (hit_r(page_va[k], 1, a) != kept[k] || hit_w(page_va[k], 1, a) != kept[k])
				fail_msg("%s: page %d attr %d: hot", what, k, a);
			touch_as(page_va[k], MMU_R, a);
			if ((walks() == before) != kept[k])
				fail_msg("%s: page %d attr %d: walk", what, k, a);
		}
	}
}

static void paging_changes(void **state)
{
	enum { CR0, CR3, CR4, EFER, PKRU, PKRS };
	static const struct {
		const char *what;
		int reg;
		u64 flip;
		bool keep_global, small, global;
		u32 epochs;
	} row[] = {
		{"MOV CR3, same value", CR3, 0, true, false, true, 1},
		{"MOV CR3, another PCID", CR3, 5, true, false, true, 1},
		{"MOV CR3 without PGE", CR3, 0, false, false, false, 1},
		{"CR0.WP", CR0, CR0_WP, true, false, false, 1},
		{"CR0.TS", CR0, CR0_TS, true, true, true, 0},
		{"CR0.TS, keep_global false", CR0, CR0_TS, false, true, true, 0},
		{"CR4.PGE", CR4, CR4_PGE, true, false, false, 1},
		{"CR4.SMEP", CR4, CR4_SMEP, true, false, false, 1},
		{"CR4.OSXSAVE", CR4, CR4_OSXSAVE, true, true, true, 0},
		{"EFER.NXE", EFER, EFER_NXE, true, false, false, 1},
		{"EFER.SCE", EFER, EFER_SCE, true, true, true, 0},
		{"PKRU, PKE off", PKRU, 4, true, true, true, 0},
		{"PKRS, PKS off", PKRS, 4, true, true, true, 0},
	};
	struct paging p;

	(void)state;
	f.mmu.paging.cr4 |= CR4_PGE;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct paging was = f.mmu.paging;
		u32 epoch;

		fill_all();
		assert_kept("filled", true, true, true);
		epoch = f.mmu.epoch;
		p = was;
		p.cr0 ^= row[i].reg == CR0 ? row[i].flip : 0;
		p.cr3 ^= row[i].reg == CR3 ? row[i].flip : 0;
		p.cr4 ^= row[i].reg == CR4 ? row[i].flip : 0;
		p.efer ^= row[i].reg == EFER ? row[i].flip : 0;
		p.pkru ^= row[i].reg == PKRU ? row[i].flip : 0;
		p.pkrs ^= row[i].reg == PKRS ? row[i].flip : 0;
		mmu_set_paging(&f.mmu, &p, row[i].keep_global);
		assert_memory_equal(&f.mmu.paging, &p, sizeof(p));
		assert_int_equal(f.mmu.epoch, epoch + row[i].epochs);
		assert_kept(row[i].what, row[i].small, row[i].small, row[i].global);
		mmu_set_paging(&f.mmu, &was, false);
	}
	f.mmu.paging.cr4 |= CR4_PKE | CR4_PKS;
	p = f.mmu.paging;
	fill_all();
	f.mmu.epoch = ~0u; /* wraps */
	p.pkru = 4;
	mmu_set_paging(&f.mmu, &p, true);
	assert_kept("PKRU", false, false, false);
	assert_int_equal(f.mmu.epoch, 0);
	fill_all();
	p.pkrs = 4;
	mmu_set_paging(&f.mmu, &p, true);
	assert_kept("PKRS", false, false, false);
}

static void flush_all(void)
{
	mmu_flush(&f.mmu);
}

static void move_cr3(void)
{
	struct paging p = f.mmu.paging;

	mmu_set_paging(&f.mmu, &p, true);
}

static void invlpg_small(void)
{
	mmu_flush_page(&f.mmu, gva(page_va[SMALL]));
}

static void invlpg_near(void)
{
	mmu_flush_page(&f.mmu, gva(page_va[SMALL] + 0x1000));
}

static void invlpg_large(void)
{
	mmu_flush_page(&f.mmu, gva(page_va[LARGE] + 0x1ff000));
}

static void invlpg_global(void)
{
	mmu_flush_page(&f.mmu, gva(page_va[GLOBAL]));
}

/* Has what was noted become unsure? */
static bool forgets(u64 noted, void (*event)(void))
{
	unsigned int half = noted >> 63;
	u32 here, there;

	mmu_flush(&f.mmu);
	fill_all();
	here = f.mmu.fetched[half].epoch;
	there = f.mmu.fetched[!half].epoch;
	mmu_note_fetch(&f.mmu, gva(noted), MMU_KERNEL);
	event();
	assert_int_equal(f.mmu.fetched[!half].epoch, there + (event == flush_all)); /* nothing is there */
	return f.mmu.fetched[half].epoch != here;
}

static void fetched_code(void **state)
{
	(void)state;
	f.mmu.paging.cr4 |= CR4_PGE;
	assert_true(forgets(page_va[SMALL], flush_all));
	assert_true(forgets(page_va[GLOBAL], flush_all));
	assert_true(forgets(page_va[SMALL], move_cr3));
	assert_true(forgets(page_va[LARGE], move_cr3));
	assert_true(forgets(page_va[GLOBAL] + 0x7000, move_cr3)); /* the TLB does not know it */
	assert_true(forgets(page_va[SMALL] + 0xfff, invlpg_small));
	assert_true(forgets(page_va[GLOBAL], invlpg_global));
	assert_true(forgets(page_va[LARGE], invlpg_large)); /* another part of it */
	assert_false(forgets(page_va[LARGE], invlpg_small));
	assert_false(forgets(page_va[GLOBAL], invlpg_small));
	if (HARD) /* the TLB knows one page */
		return;
	assert_false(forgets(page_va[GLOBAL], move_cr3));
	assert_false(forgets(page_va[SMALL], invlpg_near));
}

static void flush_page(void **state)
{
	u32 epoch;

	(void)state;
	f.mmu.paging.cr4 |= CR4_PGE;
	fill_all();
	mmu_flush_page(&f.mmu, gva(page_va[SMALL] + 0xfff));
	assert_kept("INVLPG small", false, true, true);
	fill_all();
	mmu_flush_page(&f.mmu, gva(page_va[SMALL] + 0x1000));
	assert_kept("INVLPG next to it", true, true, true);
	fill_all();
	epoch = f.mmu.epoch;
	mmu_flush_page(&f.mmu, gva(page_va[LARGE] + 0x1ff000)); /* a part that is not cached */
	assert_kept("INVLPG large", true, false, true);
	assert_int_equal(f.mmu.epoch, epoch + 1);
	fill_all();
	mmu_flush_page(&f.mmu, gva(page_va[GLOBAL]));
	assert_kept("INVLPG global", true, true, false);
	fill_all();
	mmu_flush(&f.mmu);
	assert_kept("flush", false, false, false);
}

/* Two large pages of one region: the second INVLPG finds the second's parts, too. */
static void flush_large_twice(void **state)
{
	const u64 a = 0x40000000, b = 0xc0000000000; /* different 1G, maybe one hash */

	(void)state;
	fake_map(&f, a, 0, 3, PTE_P | PTE_W | PTE_D);
	fake_map(&f, b, 0, 2, PTE_P | PTE_W | PTE_D);
	for (unsigned int i = 0; i < 3; i++) {
		touch(a + 0x5000, RW);
		touch(b + 0x7000, RW);
		mmu_flush_page(&f.mmu, gva(a + 0x3fffffff));
		assert_false(hit_r(a + 0x5000, 1, MMU_KERNEL));
		assert_int_equal(hit_r(b + 0x7000, 1, MMU_KERNEL), OPT_TLB);
		mmu_flush_page(&f.mmu, gva(b));
		assert_false(hit_r(b + 0x7000, 1, MMU_KERNEL));
	}
}

/* ---- victims: two pages of one slot, by turns */

#define OTHER_VA (VA ^ 0x401000) /* tlb_index is the same */

/* VA has been driven out of its slot; it may be written without asking. */
static void make_victim(u64 flags)
{
	fake_mode_again(&f);
	MAP(VA, 0x7000, PTE_W | flags);
	MAP(OTHER_VA, 0x9000, PTE_W | flags);
	mmu_flush(&f.mmu);
	touch(VA, RW);
	touch(OTHER_VA, RW);
}

static void victim_returns(void **state)
{
	(void)state;
	assert_int_equal(tlb_index(VA), tlb_index(OTHER_VA));
	make_victim(0);
	for (int i = 0; i < 5; i++) {
		assert_ptr_equal(touch(VA + 4, RW), f.ram + 0x7004);
		assert_int_equal(hit_w(VA, 1, MMU_KERNEL), OPT_TLB);
		assert_false(hit_r(OTHER_VA, 1, MMU_KERNEL));
		assert_ptr_equal(touch(OTHER_VA, RW), f.ram + 0x9000);
		assert_false(hit_w(VA, 1, MMU_KERNEL));
	}
	assert_int_equal(walks(), OPT_TLB ? 2 : 12);
	mmu_flush_page(&f.mmu, gva(OTHER_VA)); /* the slot is empty, the victim stays */
	touch(VA, RW);
	assert_int_equal(walks(), OPT_TLB ? 2 : 13);
	touch(OTHER_VA, RW);
	assert_int_equal(walks(), OPT_TLB ? 3 : 14);
}

static void victims_are_flushed(void **state)
{
	struct paging p;
	u64 before;

	(void)state;
	f.mmu.paging.cr4 |= CR4_PGE;
	p = f.mmu.paging;
	for (int how = 0; how < 4; how++) {
		make_victim(how == 3 ? PTE_G : 0);
		if (how == 0)
			mmu_flush(&f.mmu);
		else if (how == 1)
			mmu_flush_page(&f.mmu, gva(VA));
		else
			mmu_set_paging(&f.mmu, &p, true);
		before = walks();
		touch(VA, MMU_R);
		assert_int_equal(walks() - before, how == 3 && OPT_TLB ? 0 : 1);
	}
	for (int how = 0; how < 2; how++) {
		make_victim(0);
		if (how == 0)
			mmu_flush_writes(&f.mmu);
		else
			mmu_unwatch_writes(&f.mmu, gpa(0x7000));
		assert_ptr_equal(touch(VA, MMU_R), f.ram + 0x7000);
		assert_int_equal(hit_r(VA, 1, MMU_KERNEL), OPT_TLB);
		assert_false(hit_w(VA, 1, MMU_KERNEL));
	}
}

static void victim_of_large_page(void **state)
{
	u64 before;

	(void)state;
	fake_map(&f, VA, 0, 2, PTE_P | PTE_W | PTE_D);
	MAP(OTHER_VA, 0x9000, PTE_W);
	touch(VA, RW);
	touch(OTHER_VA, RW);
	mmu_flush_page(&f.mmu, gva(VA ^ 0x1000)); /* another part of it */
	before = walks();
	touch(VA, MMU_R);
	assert_int_equal(walks() - before, 1);
}

/* New slots: host pointers go, the epoch stays (SEED 7.3: slots are not in it). */
static void attach(void **state)
{
	struct mem *m = f.mmu.mem;
	u32 epoch = f.mmu.epoch;

	(void)state;
	MAP(VA, BIT(32), PTE_W);
	assert_null(touch(VA, RW));
	mmu_detach(&f.mmu);
	assert_null(f.mmu.slots);
	assert_int_equal(mmu_attach(&f.mmu), 0);
	assert_null(touch(VA, RW));
	assert_walks(1); /* nothing changed meanwhile */
	assert_int_equal(mem_set_slot(m, 0, 1, 0, gpa(BIT(32)), PAGE_SIZE, f.ram), 0);
	assert_null(touch(VA, RW)); /* the old snapshot is in force until the next attach */
	assert_int_equal(mmu_attach(&f.mmu), 0);
	{
		struct xlat x;
		u32 err;
		u8 *hva;

		assert_int_equal(mmu_translate(&f.mmu, gva(VA), 1, RW, MMU_KERNEL, WALK_CPU, &x,
					 &hva, &err), MMU_OK);
		assert_ptr_equal(hva, f.ram);
	}
	assert_walks(2);
	assert_int_equal(f.mmu.epoch, epoch);

	f.mmu.space = 1; /* SMM: no slots there, so no tables either */
	assert_int_equal(mmu_attach(&f.mmu), 0);
	assert_false(hit_r(VA, 1, MMU_KERNEL));
	assert_int_equal(f.mmu.slots->nr, 0);
	assert_ptr_equal(touch(VA, RW), (u8 *)-1);
	f.mmu.space = 0;
	assert_int_equal(mmu_attach(&f.mmu), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(empty_never_hits), T(page_0_of_a_fresh_tlb),
		T(inline_hit),
		T(hit_does_not_walk),
		T(no_ram),
		T(faults),
		T(execute_only),
		T(paging_off_is_cached),
		T(watch),
		T(dirty_log),
		T(paging_changes),
		T(fetched_code),
		T(flush_page),
		T(flush_large_twice),
		T(victim_returns),
		T(victims_are_flushed),
		T(victim_of_large_page),
		T(attach),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
