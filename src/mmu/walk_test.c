// SPDX-License-Identifier: MIT
/*
 * The guest page walk on an array of bytes: every mode and page size, reserved bits, and all
 * permutations of permission bits against a second model written from SDM 3A 4.6, 4.7
 * (TESTING items 44 to 48, 58, 59).
 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "mmu/mmu_fake.h"
#include "mmu/walk.h"

static struct fake f;

static int setup(void **state)
{
	(void)state;
	fake_init(&f);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fake_exit(&f);
	return 0;
}

static enum mmu_status walk(u64 va, u8 need, enum mmu_attr attr, struct xlat *x, u32 *err)
{
	return mmu_walk(&f.mmu, gva(va), 1, need, attr, WALK_CPU, x, err);
}

/* ---- geometry */

static void every_page_size(void **state)
{
	static const struct {
		enum fake_mode mode;
		unsigned int level;
		u64 va, frame, pa;
	} row[] = {
		{FAKE_2LEVEL, 1, 0x12345678, 0x89abc000, 0x89abc678},
		{FAKE_2LEVEL, 1, 0xffffffff, 0x00000000, 0x00000fff},
		{FAKE_2LEVEL, 2, 0x123fffff, 0x80000000, 0x803fffff},
		{FAKE_2LEVEL, 2, 0x12345678, 0xf40000000, 0xf40345678}, /* PSE-36 */
		{FAKE_PAE, 1, 0x12345678, 0xfedcba000, 0xfedcba678},
		{FAKE_PAE, 1, 0xffffffff, 0x1000, 0x1fff},
		{FAKE_PAE, 1, 0x7fffffff, 0x1000, 0x1fff},
		{FAKE_PAE, 2, 0xc01fffff, 0x3fa00000, 0x3fbfffff},
		{FAKE_4LEVEL, 1, 0x00007fffffffffff, 0x345678abc000, 0x345678abcfff},
		{FAKE_4LEVEL, 1, 0xffff800000000000, 0x5000, 0x5000},
		{FAKE_4LEVEL, 2, 0xffffffff81234567, 0x1000000, 0x1034567},
		{FAKE_4LEVEL, 3, 0xffff888012345678, 0x1040000000, 0x1052345678},
		{FAKE_5LEVEL, 1, 0x00ffffffffffffff, 0x345678abc000, 0x345678abcfff},
		{FAKE_5LEVEL, 1, 0xff00000000000000, 0x7000, 0x7000},
		{FAKE_5LEVEL, 2, 0xff12345678212345, 0x200000, 0x212345},
		{FAKE_5LEVEL, 3, 0x00923456789abcde, 0x40000000, 0x789abcde},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct xlat x;
		u32 err;

		fake_mode(&f, row[i].mode);
		assert_int_equal(walk(row[i].va, MMU_R, MMU_KERNEL, &x, &err), MMU_FAULT);
		assert_int_equal(err, 0);
		fake_map(&f, row[i].va, row[i].frame, row[i].level, PTE_P | PTE_W);
		f.mmu.epoch = 77;
		f.mmu.space = 1;
		assert_int_equal(mmu_walk(&f.mmu, gva(row[i].va), 1, MMU_R, MMU_KERNEL_AC,
					 WALK_DATA, &x, &err), MMU_OK);
		f.mmu.space = 0;
		if (x.gpa.v != row[i].pa)
			fail_msg("row %zu: %#lx, not %#lx", i, x.gpa.v, row[i].pa);
		assert_int_equal(x.gva.v, row[i].va);
		assert_int_equal(x.epoch, 77);
		assert_int_equal(x.len, 1);
		assert_int_equal(x.attr, MMU_KERNEL_AC | 1 << 4);
		assert_int_equal(x.rights, MMU_R | MMU_X); /* D is clear: no W yet */
	}
}

static void canonical(void **state)
{
	static const struct {
		u64 va;
		bool ok4, ok5;
	} row[] = {
		{0, true, true},
		{0x00007fffffffffff, true, true},
		{0x0000800000000000, false, true},
		{0xffff7fffffffffff, false, true},
		{0xffff800000000000, true, true},
		{0x00ffffffffffffff, false, true},
		{0x0100000000000000, false, false},
		{0xfeffffffffffffff, false, false},
		{0xff00000000000000, false, true},
		{~0ull, true, true},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		struct xlat x;
		u32 err;

		fake_mode(&f, FAKE_4LEVEL);
		assert_int_equal(mmu_canonical(&f.mmu.paging, gva(row[i].va)), row[i].ok4);
		assert_int_equal(walk(row[i].va, MMU_R, MMU_USER, &x, &err),
			row[i].ok4 ? MMU_FAULT : MMU_NONCANON);
		fake_mode(&f, FAKE_5LEVEL);
		assert_int_equal(mmu_canonical(&f.mmu.paging, gva(row[i].va)), row[i].ok5);
		assert_int_equal(walk(row[i].va, MMU_R, MMU_USER, &x, &err),
			row[i].ok5 ? MMU_FAULT : MMU_NONCANON);
		fake_mode(&f, FAKE_PAE);
		assert_true(mmu_canonical(&f.mmu.paging, gva(row[i].va)));
	}
}

/* Paging off: no table is read, nothing is counted (SEED rule 5). */
static void paging_off(void **state)
{
	struct xlat x;
	u32 err;

	(void)state;
	fake_mode(&f, FAKE_OFF);
	assert_int_equal(walk(0x1fffff123, MMU_W | MMU_R, MMU_USER, &x, &err), MMU_OK);
	assert_int_equal(x.gpa.v, 0xfffff123);
	assert_int_equal(x.rights, MMU_R | MMU_W | MMU_X);
	assert_int_equal(f.mmu.walks[WALK_CPU], 0);
	fake_mode(&f, FAKE_4LEVEL);
	assert_int_equal(walk(0, MMU_R, MMU_USER, &x, &err), MMU_FAULT);
	assert_int_equal(f.mmu.walks[WALK_CPU], 1);
}

/* ---- reserved bits */

/* The tables of SDM 3A 4.3 to 4.5 once more, as a predicate. */
static bool is_reserved(enum fake_mode mode, unsigned int level, bool page, unsigned int bit,
	unsigned int maxphyaddr, bool nxe)
{
	if (mode == FAKE_2LEVEL)
		return page && level == 2 &&
			(bit == 21 || (bit >= 13 && bit <= 20 && bit - 13 + 32 >= maxphyaddr));
	if (bit == 63)
		return !nxe;
	if (bit >= 52)
		return mode == FAKE_PAE;
	if (bit >= maxphyaddr)
		return true;
	if (level >= 4)
		return bit == 7;
	if (level == 3)
		return page && bit >= 13 && bit < 30;
	if (level == 2)
		return page && bit >= 13 && bit < 21;
	return false;
}

static void flip(void *entry, unsigned int bit)
{
	*((u8 *)entry + bit / 8) ^= 1 << bit % 8;
}

/* Flip each bit but P, and PS where it selects, in the entry of each level in turn. */
static void reserved_one(enum fake_mode mode, unsigned int leaf, unsigned int maxphyaddr, bool nxe)
{
	const u64 va = 0x345000;
	unsigned int top = fake_levels(mode), bits = mode == FAKE_2LEVEL ? 32 : 64;

	fake_mode(&f, mode);
	f.mmu.paging.maxphyaddr = maxphyaddr;
	f.mmu.paging.efer &= ~(u64)EFER_NXE;
	f.mmu.paging.efer |= nxe ? EFER_NXE : 0;
	fake_map(&f, va, 0, leaf, PTE_P | PTE_W);
	for (unsigned int level = leaf; level <= top; level++) {
		void *entry = fake_entry(&f, va, level);

		for (unsigned int bit = 1; bit < bits; bit++) {
			bool bad = is_reserved(mode, level, level == leaf, bit, maxphyaddr, nxe);
			enum mmu_status st;
			struct xlat x;
			u32 err = 0;

			if (bit == 7 && (level == 2 || level == 3))
				continue;
			flip(entry, bit);
			st = walk(va, MMU_R, MMU_KERNEL, &x, &err);
			if (bad != (st == MMU_FAULT && err == (PF_P | PF_RSVD)))
				fail_msg("mode %d level %u bit %u page at %u maxphy %u nxe %d: %d %#x",
					mode, level, bit, leaf, maxphyaddr, nxe, st, err);
			/* a hole has no reserved bits */
			flip(entry, 0);
			assert_int_equal(walk(va, MMU_R, MMU_USER, &x, &err), MMU_FAULT);
			assert_int_equal(err, PF_U);
			flip(entry, 0);
			flip(entry, bit);
		}
	}
}

static void reserved_bits(void **state)
{
	static const u8 maxphyaddr[] = {36, 39, 40, 46, 52};

	(void)state;
	for (unsigned int mode = FAKE_2LEVEL; mode <= FAKE_5LEVEL; mode++)
		for (unsigned int leaf = 1; leaf <= (mode >= FAKE_4LEVEL ? 3 : 2); leaf++)
			for (size_t m = 0; m < ARRAY_SIZE(maxphyaddr); m++)
				for (int nxe = 0; nxe < 2; nxe++)
					reserved_one(mode, leaf, maxphyaddr[m], nxe);
}

/* Without CR4.PSE a 2-level PDE's bit 7 is ignored: the entry leads to a table. */
static void ps_without_pse(void **state)
{
	struct xlat x;
	u32 err;

	(void)state;
	fake_mode(&f, FAKE_2LEVEL);
	f.mmu.paging.cr4 = 0;
	fake_map(&f, 0x5000, 0x7000, 1, PTE_P);
	fake_entry_xor(&f, 0x5000, 2, PTE_PS);
	assert_int_equal(walk(0x5abc, MMU_R, MMU_KERNEL, &x, &err), MMU_OK);
	assert_int_equal(x.gpa.v, 0x7abc);
}

static void pdptrs(void **state)
{
	static const struct {
		u64 e;
		bool ok;
	} row[] = {
		{0, true},
		{0x1001, true},
		{0xfffffffffffffffe, true}, /* not present: nothing else counts */
		{0x1001 | BIT(1), false},
		{0x1001 | BIT(2), false},
		{0x1001 | BIT(3) | BIT(4), true},
		{0x1001 | BIT(5), false},
		{0x1001 | BIT(8), false},
		{0x1001 | BIT(9) | BIT(11), true},
		{0x1001 | BIT(45), true},
		{0x1001 | BIT(46), false},
		{0x1001 | BIT(63), false},
	};
	struct paging p;

	(void)state;
	fake_mode(&f, FAKE_PAE);
	p = f.mmu.paging;
	p.cr3 = 0x8000 + 0xfe0 + 0x1f; /* 32-byte aligned; the low five bits are no address */
	for (size_t i = 0; i < ARRAY_SIZE(row); i++) {
		for (int k = 0; k < 4; k++) {
			memset(f.ram + 0x8fe0, 0, 32);
			memcpy(f.ram + 0x8fe0 + 8 * k, &row[i].e, 8);
			if (mmu_load_pdptrs(&f.mmu, &p) != row[i].ok)
				fail_msg("row %zu, PDPTE %d", i, k);
			if (row[i].ok)
				assert_int_equal(p.pdptr[k], row[i].e);
		}
	}
	p.cr3 = 0xfffff000;
	assert_false(mmu_load_pdptrs(&f.mmu, &p));
}

/* ---- permissions: each bit of n is one ingredient */

enum {
	LEAF_W, LEAF_U, LEAF_NX, LEAF_A, LEAF_D, DIR_W, DIR_U, DIR_NX, DIR_A,
	SET_WP, SET_SMEP, SET_SMAP, SET_NXE, SET_PKE, SET_PKS, KEY_AD, KEY_WD, NR_INGREDIENTS,
};
#define HAS(n, bit) ((n) >> (bit)&1)

/* SDM 3A 4.6.1, 4.6.2 as questions about one access; *pk: the key says no. */
static bool may(unsigned int n, u8 need, enum mmu_attr attr, bool *pk)
{
	bool user_page = HAS(n, LEAF_U) && HAS(n, DIR_U);
	bool writable = HAS(n, LEAF_W) && HAS(n, DIR_W);
	bool xd = HAS(n, SET_NXE) && (HAS(n, LEAF_NX) || HAS(n, DIR_NX));

	*pk = false;
	if (need == MMU_X) {
		if (attr == MMU_USER)
			return user_page && !xd;
		return !xd && !(HAS(n, SET_SMEP) && user_page);
	}
	if (HAS(n, user_page ? SET_PKE : SET_PKS)) {
		if (HAS(n, KEY_AD))
			*pk = true;
		if (need & MMU_W && HAS(n, KEY_WD) && (attr == MMU_USER || HAS(n, SET_WP)))
			*pk = true;
	}
	if (*pk)
		return false;
	if (attr == MMU_USER)
		return user_page && (writable || !(need & MMU_W));
	if (user_page && HAS(n, SET_SMAP) && attr == MMU_KERNEL)
		return false;
	return !(need & MMU_W) || writable || !HAS(n, SET_WP);
}

static u64 entry_bits(unsigned int n, unsigned int w, unsigned int u, unsigned int nx,
	unsigned int a)
{
	return PTE_P | HAS(n, w) * PTE_W | HAS(n, u) * PTE_U | HAS(n, a) * PTE_A |
		(HAS(n, nx) && HAS(n, SET_NXE)) * PTE_NX;
}

static void permission_one(unsigned int n, u8 need, enum mmu_attr attr)
{
	struct paging *p = &f.mmu.paging;
	u64 *leaf = fake_entry(&f, 0x345000, 1), *dir = fake_entry(&f, 0x345000, 2);
	u64 leaf_before, dir_before, a;
	bool pk, no, user_page = HAS(n, LEAF_U) && HAS(n, DIR_U);
	u32 err = 0, want, keys;
	struct xlat x;

	*leaf = leaf_before = entry_bits(n, LEAF_W, LEAF_U, LEAF_NX, LEAF_A) |
		HAS(n, LEAF_D) * PTE_D | 0x7000 | 5ull << 59;
	*dir = dir_before = entry_bits(n, DIR_W, DIR_U, DIR_NX, DIR_A) | (*dir & BITS(51, 12));
	p->cr0 = CR0_PE | CR0_PG | HAS(n, SET_WP) * CR0_WP;
	p->cr4 = CR4_PAE | HAS(n, SET_SMEP) * CR4_SMEP | HAS(n, SET_SMAP) * CR4_SMAP |
		HAS(n, SET_PKE) * CR4_PKE | HAS(n, SET_PKS) * CR4_PKS;
	p->efer = EFER_LMA | EFER_LME | HAS(n, SET_NXE) * EFER_NXE;
	keys = (HAS(n, KEY_AD) | HAS(n, KEY_WD) << 1) << 10;
	p->pkru = user_page ? keys : ~keys; /* the other register says the opposite */
	p->pkrs = user_page ? ~keys : keys;

	if (!may(n, need, attr, &pk)) {
		want = PF_P | (need & MMU_W ? PF_W : 0) | (attr == MMU_USER ? PF_U : 0) |
			(need == MMU_X && (HAS(n, SET_NXE) || HAS(n, SET_SMEP)) ? PF_I : 0) |
			(pk ? PF_PK : 0);
		if (walk(0x345678, need, attr, &x, &err) != MMU_FAULT || err != want)
			fail_msg("n %#x need %d attr %d: error %#x, not %#x", n, need, attr, err, want);
		assert_int_equal(*leaf, leaf_before);
		assert_int_equal(*dir, dir_before);
		return;
	}
	if (walk(0x345678, need, attr, &x, &err) != MMU_OK)
		fail_msg("n %#x need %d attr %d: error %#x", n, need, attr, err);
	a = need & MMU_W ? PTE_A | PTE_D : PTE_A;
	assert_int_equal(*leaf, leaf_before | a);
	assert_int_equal(*dir, dir_before | PTE_A);
	assert_int_equal(x.gpa.v, 0x7678);
	no = !may(n, MMU_R, attr, &pk);
	assert_int_equal(!(x.rights & MMU_R), no);
	no = !may(n, MMU_W | MMU_R, attr, &pk) || !(*leaf & PTE_D);
	assert_int_equal(!(x.rights & MMU_W), no);
	no = !may(n, MMU_X, attr, &pk);
	assert_int_equal(!(x.rights & MMU_X), no);
}

static void permissions(void **state)
{
	static const u8 need[] = {MMU_R, MMU_W | MMU_R, MMU_X};

	(void)state;
	fake_mode(&f, FAKE_4LEVEL);
	fake_map(&f, 0x345000, 0x7000, 1, PTE_P);
	for (unsigned int n = 0; n < 1u << NR_INGREDIENTS; n++)
		for (unsigned int attr = 0; attr < NR_MMU_ATTRS; attr++)
			for (size_t k = 0; k < ARRAY_SIZE(need); k++)
				permission_one(n, need[k], attr);
}

/* U/S and R/W count at every level; PAE and 2-level know SMEP, SMAP and WP too. */
static void every_level_counts(void **state)
{
	struct xlat x;
	u32 err;

	(void)state;
	for (unsigned int mode = FAKE_2LEVEL; mode <= FAKE_5LEVEL; mode++) {
		for (unsigned int level = 1; level <= fake_levels(mode); level++) {
			fake_mode(&f, mode);
			f.mmu.paging.cr0 |= CR0_WP;
			fake_map(&f, 0x345000, 0x7000, 1, PTE_P | PTE_W | PTE_U | PTE_D);
			assert_int_equal(walk(0x345000, 3, MMU_USER, &x, &err), MMU_OK);
			fake_entry_xor(&f, 0x345000, level, PTE_W);
			assert_int_equal(walk(0x345000, 3, MMU_USER, &x, &err), MMU_FAULT);
			assert_int_equal(err, PF_P | PF_W | PF_U);
			assert_int_equal(walk(0x345000, 3, MMU_KERNEL, &x, &err), MMU_FAULT);
			assert_int_equal(err, PF_P | PF_W);
			assert_int_equal(walk(0x345000, 1, MMU_USER, &x, &err), MMU_OK);
			assert_int_equal(x.rights & MMU_W, 0);
			f.mmu.paging.cr4 |= CR4_SMAP | CR4_SMEP;
			assert_int_equal(walk(0x345000, 1, MMU_KERNEL, &x, &err), MMU_FAULT);
			assert_int_equal(walk(0x345000, 4, MMU_KERNEL_AC, &x, &err), MMU_FAULT);
			assert_int_equal(err, PF_P | PF_I);
			fake_entry_xor(&f, 0x345000, level, PTE_U);
			assert_int_equal(walk(0x345000, 1, MMU_KERNEL, &x, &err), MMU_OK);
			assert_int_equal(walk(0x345000, 1, MMU_USER, &x, &err), MMU_FAULT);
			assert_int_equal(err, PF_P | PF_U);
			fake_entry_xor(&f, 0x345000, level, PTE_P);
			assert_int_equal(walk(0x345000, 1, MMU_USER, &x, &err), MMU_FAULT);
			assert_int_equal(err, PF_U);
		}
	}
}

/* ---- A and D bits, odd tables */

static void accessed_dirty(void **state)
{
	struct xlat x;
	u32 err;

	(void)state;
	for (unsigned int mode = FAKE_2LEVEL; mode <= FAKE_5LEVEL; mode++) {
		unsigned int top = fake_levels(mode), leaf = mode == FAKE_2LEVEL ? 1 : 2;

		fake_mode(&f, mode);
		fake_map(&f, 0x345000, 0, leaf, PTE_P | PTE_W);
		assert_int_equal(mmu_walk(&f.mmu, gva(0x345000), 1, 3, MMU_KERNEL, WALK_DEBUG,
					 &x, &err), MMU_OK);
		for (unsigned int l = leaf; l <= top; l++)
			assert_int_equal(fake_read(&f, 0x345000, l) & (PTE_A | PTE_D), 0);
		assert_int_equal(walk(0x345000, 1, MMU_KERNEL, &x, &err), MMU_OK);
		for (unsigned int l = leaf; l <= top; l++)
			assert_int_equal(fake_read(&f, 0x345000, l) & (PTE_A | PTE_D), PTE_A);
		assert_int_equal(x.rights & MMU_W, 0);
		assert_int_equal(walk(0x345000, 3, MMU_KERNEL, &x, &err), MMU_OK);
		assert_int_equal(fake_read(&f, 0x345000, leaf) & PTE_D, PTE_D);
		if (leaf < top)
			assert_int_equal(fake_read(&f, 0x345000, leaf + 1) & PTE_D, 0);
		assert_int_equal(x.rights & MMU_W, MMU_W);
	}
}

/* A write that is only proved leaves A and D alone; they are due when it comes, if the entry is still the same. */
static void proved_ahead(void **state)
{
	struct xlat x;
	u32 err;

	(void)state;
	for (unsigned int mode = FAKE_2LEVEL; mode <= FAKE_5LEVEL; mode++) {
		unsigned int leaf = mode == FAKE_2LEVEL ? 1 : 2;

		fake_mode(&f, mode);
		fake_map(&f, 0x345000, 0, leaf, PTE_P | PTE_U);
		assert_int_equal(walk(0x345000, MMU_W | MMU_AHEAD, MMU_USER, &x, &err), MMU_FAULT);
		assert_int_equal(err, PF_P | PF_W | PF_U);
		fake_map(&f, 0x345000, 0, leaf, PTE_P | PTE_W);
		assert_int_equal(walk(0x345000, MMU_W | MMU_AHEAD, MMU_KERNEL, &x, &err), MMU_OK);
		assert_int_equal(x.rights & (MMU_W | MMU_AHEAD), MMU_W | MMU_AHEAD);
		assert_int_equal(fake_read(&f, 0x345000, leaf) & (PTE_A | PTE_D), 0);
		fake_map(&f, 0x345000, 0, leaf, PTE_P); /* as another processor might */
		assert_false(mmu_set_dirty(&f.mmu, &x));
		assert_int_equal(fake_read(&f, 0x345000, leaf) & PTE_D, 0);
		fake_map(&f, 0x345000, 0, leaf, PTE_P | PTE_W);
		assert_true(mmu_set_dirty(&f.mmu, &x));
		assert_int_equal(fake_read(&f, 0x345000, leaf) & (PTE_A | PTE_D), PTE_A | PTE_D);
		assert_int_equal(walk(0x345000, 1, MMU_KERNEL, &x, &err), MMU_OK);
		assert_int_equal(x.rights & (MMU_W | MMU_AHEAD), MMU_W); /* already dirty */
	}
}

/* Tables in read-only memory work; their bits stay (SEED rule 25). No RAM: not present. */
static void tables_in_rom(void **state)
{
	struct xlat x;
	u32 err;

	(void)state;
	fake_mode(&f, FAKE_4LEVEL);
	fake_map(&f, 0x345000, 0x7000, 1, PTE_P | PTE_W);
	fake_slot(&f, MEM_READONLY);
	assert_int_equal(walk(0x345000, 3, MMU_KERNEL, &x, &err), MMU_OK);
	assert_int_equal(x.rights & 3, 3);
	assert_int_equal(fake_read(&f, 0x345000, 1) & (PTE_A | PTE_D), 0);
	assert_int_equal(fake_read(&f, 0x345000, 4) & PTE_A, 0);

	for (unsigned int level = 2; level <= 4; level++) {
		u64 *p = fake_entry(&f, 0x345000, level), e = *p;

		*p = 0xfee00000 | PTE_P | PTE_W | PTE_U;
		assert_int_equal(walk(0x345000, 3, MMU_USER, &x, &err), MMU_FAULT);
		assert_int_equal(err, PF_W | PF_U);
		*p = e;
	}
	f.mmu.paging.cr3 = 0xfee00000;
	assert_int_equal(walk(0x345000, MMU_X, MMU_KERNEL, &x, &err), MMU_FAULT);
	assert_int_equal(err, PF_I);
}

/* An A/D update is a write to guest memory: the dirty log shows the tables, all of them. */
static void tables_are_logged(void **state)
{
	struct xlat x;
	u64 map[FAKE_PAGES / 64];
	u32 err;
	s64 len;

	(void)state;
	fake_mode(&f, FAKE_4LEVEL);
	fake_map(&f, 0x345000, 0x7000, 1, PTE_P | PTE_W);
	fake_slot(&f, MEM_LOG_DIRTY);
	assert_int_equal(walk(0x345000, 1, MMU_KERNEL, &x, &err), MMU_OK);
	for (unsigned int level = 1; level <= 4; level++)
		assert_false(mem_needs_dirty(f.mmu.slots,
			gpa((u8 *)fake_entry(&f, 0x345000, level) - f.ram)));
	assert_true(mem_needs_dirty(f.mmu.slots, gpa(0x7000)));
	len = mem_get_dirty(f.mmu.mem, 0, 0, map, true);
	assert_int_equal(len, sizeof(map));
	assert_int_equal(walk(0x345000, 1, MMU_KERNEL, &x, &err), MMU_OK);
	len = mem_get_dirty(f.mmu.mem, 0, 0, map, true);
	assert_int_equal(len, sizeof(map));
	for (size_t i = 0; i < ARRAY_SIZE(map); i++)
		assert_int_equal(map[i], 0);
}

/* A table that is its own parent (TESTING 45): the same entry is used at all five levels. */
static void self_reference(void **state)
{
	struct xlat x;
	u32 err;
	u64 *e;

	(void)state;
	fake_mode(&f, FAKE_5LEVEL);
	e = (u64 *)(f.ram + (f.mmu.paging.cr3 & BITS(51, 12)));
	*e = f.mmu.paging.cr3 | PTE_P | PTE_W;
	assert_int_equal(walk(0x123, 3, MMU_KERNEL, &x, &err), MMU_OK);
	assert_int_equal(x.gpa.v, f.mmu.paging.cr3 + 0x123);
	assert_int_equal(*e & (PTE_A | PTE_D), PTE_A | PTE_D);
}

/*
 * Another vCPU rewrites the entry all the time (TESTING 48): A and D may only ever land in
 * the value that the walk used, never resurrect the one before.
 */
static void *rewriter(void *arg)
{
	u64 *e = arg, put = 0x7000 | PTE_P | PTE_W;
	static const u64 value[] = {0x7000 | PTE_P | PTE_W, 0, 0x9000 | PTE_P, 0xb000};

	for (unsigned int i = 0; i < 200000; i++) {
		u64 got = __atomic_exchange_n(e, value[i % 4], __ATOMIC_SEQ_CST);

		if ((got & ~(PTE_A | PTE_D)) != put)
			return "an entry came back";
		if (!(put & PTE_P) && got != put)
			return "a bit was set in a hole";
		if (!(put & PTE_W) && got & PTE_D)
			return "D was set in a read-only entry";
		put = value[i % 4];
	}
	return NULL;
}

static void racing_writer(void **state)
{
	pthread_t t;
	void *wrong;
	u64 *e;

	(void)state;
	fake_mode(&f, FAKE_4LEVEL);
	f.mmu.paging.cr0 |= CR0_WP;
	fake_map(&f, 0x345000, 0x7000, 1, PTE_P | PTE_W);
	e = fake_entry(&f, 0x345000, 1);
	assert_int_equal(pthread_create(&t, NULL, rewriter, e), 0);
	for (unsigned int i = 0; i < 200000; i++) {
		u8 need = i & 1 ? MMU_R | MMU_W : MMU_R;
		struct xlat x = {.gpa = {0}};
		u32 err;

		if (walk(0x345000, need, MMU_KERNEL, &x, &err) != MMU_OK)
			continue;
		assert_true(x.gpa.v == 0x7000 || (x.gpa.v == 0x9000 && need == MMU_R));
	}
	pthread_join(t, &wrong);
	if (wrong)
		fail_msg("%s", (char *)wrong);
}

/* walk_run tells the TLB whether an entry is global and part of a large page. */
static void global_large(void **state)
{
	struct walk w = {.gva = {0x345000}, .need = MMU_R};

	(void)state;
	for (unsigned int level = 1; level <= 3; level++) {
		for (int pge = 0; pge < 2; pge++) {
			fake_mode(&f, FAKE_4LEVEL);
			f.mmu.paging.cr4 |= pge ? CR4_PGE : 0;
			fake_map(&f, 0x345000, 0, level, PTE_P | PTE_G);
			assert_int_equal(walk_run(&f.mmu, &w), MMU_OK);
			assert_int_equal(w.global, pge);
			assert_int_equal(w.large, level > 1);
		}
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_page_size),
		T(canonical),
		T(paging_off),
		T(reserved_bits),
		T(ps_without_pse),
		T(pdptrs),
		T(permissions),
		T(every_level_counts),
		T(accessed_dirty), T(proved_ahead),
		T(tables_in_rom),
		T(tables_are_logged),
		T(self_reference),
		T(racing_writer),
		T(global_large),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
