// SPDX-License-Identifier: MIT
/*
 * The soft TLB: fill, look-up behind the inline compare, flushes. Three direct-mapped
 * tables, one for each enum mmu_attr, so that a change of CPL or EFLAGS.AC flushes nothing.
 * Not here: the walk (walk.c), and the inline compare itself, which the processor owns.
 *
 * What an entry knows:
 *
 *	info	the translation and the rights that the guest's tables proved; also of pages
 *		without RAM, so that a device page is walked once, not at every access
 *	hot	what may be done to the page without asking anybody: tag_r to read, tag_w to
 *		write, at host address gva + delta
 *
 * tag_w set implies: RAM in a writable slot, D set in the tables, marked in the dirty log,
 * not watched. Whoever takes one of these away drops tag_w: mmu_flush_writes when the log
 * is cleared, mmu_unwatch_writes when a page becomes watched, mmu_attach when slots change.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/hard.h"
#include "mmu/walk.h"
#include "x86/bits.h"

/* Bits that change what a walk finds; all others of these registers do not matter here. */
#define CR0_RULES  (CR0_PG | CR0_WP)
#define CR4_RULES                                                                          \
	(CR4_PSE | CR4_PAE | CR4_PGE | CR4_LA57 | CR4_PCIDE | CR4_SMEP | CR4_SMAP | CR4_PKE | CR4_PKS)
#define EFER_RULES (EFER_LMA | EFER_NXE)

/* ---- one entry, one table */

/* The victim's place of slot i. */
static inline unsigned int victim_index(unsigned int i)
{
	return TLB_SIZE + i % TLB_VICTIMS;
}

/* A tag that nothing in entry i can match: a page that hashes to slot 0, or to slot 1. */
static inline u64 tag_none(unsigned int i)
{
	return i && i != TLB_SIZE ? 0 : PAGE_SIZE;
}

static inline u64 region_bit(u64 va)
{
	u64 r = va >> 30;

	return BIT((r ^ r >> 6 ^ r >> 12) & 63);
}

static void entry_clear(struct tlb *t, unsigned int i)
{
	t->hot[i].tag_r = t->hot[i].tag_w = t->info[i].tag = tag_none(i);
	t->info[i].is_global = t->info[i].large = 0;
}

static void tlb_clear(struct tlb *t)
{
	memset(t->hot, 0, sizeof(t->hot));
	memset(t->info, 0, sizeof(t->info));
	entry_clear(t, 0);
	entry_clear(t, victim_index(0));
	t->large_regions = 0;
	t->last = 0;
	t->used = false;
}

/* Drop what MOV CR3 drops; `used` tells whether anything stayed. */
static void tlb_clear_nonglobal(struct tlb *t)
{
	t->used = false;
	for (unsigned int i = 0; i < TLB_ENTRIES; i++) {
		if (t->info[i].is_global)
			t->used = true;
		else
			entry_clear(t, i);
	}
}

/*
 * INVLPG. Of a large page any part may be here, while the part asked for is not; the size
 * of the page is not known either. So all large entries of the same 1G go.
 */
static void tlb_clear_page(struct tlb *t, u64 va)
{
	unsigned int i = tlb_index(va), v = victim_index(i);
	u64 left = 0;

	if (t->info[i].tag == (va & PAGE_MASK))
		entry_clear(t, i);
	if (t->info[v].tag == (va & PAGE_MASK))
		entry_clear(t, v);
	if (!(t->large_regions & region_bit(va)))
		return;
	for (i = 0; i < TLB_ENTRIES; i++) {
		if (!t->info[i].large)
			continue;
		if (t->info[i].tag >> 30 == va >> 30)
			entry_clear(t, i);
		else
			left |= region_bit(t->info[i].tag);
	}
	t->large_regions = left;
}

static void tlbs_clear(struct mmu *mmu)
{
	for (int a = 0; mmu->tlb && a < NR_MMU_ATTRS; a++)
		if (mmu->tlb[a].used)
			tlb_clear(&mmu->tlb[a]);
}

/* ---- where code was fetched from ---- */

static unsigned int fetched_bit(u64 va)
{
	u64 page = va >> PAGE_SHIFT;

	return (page ^ page >> 12 ^ page >> 24) % (8 * sizeof(((struct fetched *)0)->page));
}

void mmu_note_fetch(struct mmu *mmu, gva_t gva, enum mmu_attr attr)
{
	struct fetched *f = &mmu->fetched[gva.v >> 63];
	const struct tlb_info *info = &mmu->tlb[attr].info[tlb_index(gva.v)];
	bool known = info->tag == (gva.v & PAGE_MASK);
	unsigned int bit = fetched_bit(gva.v);

	f->page[bit / 64] |= BIT(bit % 64);
	if (!known || info->large)
		f->large |= region_bit(gva.v);
	if (!known || !info->is_global)
		f->private = true;
}

static void forget_fetched(struct fetched *f)
{
	*f = (struct fetched){.epoch = f->epoch + 1};
}

static bool was_fetched(const struct fetched *f, u64 va)
{
	unsigned int bit = fetched_bit(va);

	return (f->page[bit / 64] & BIT(bit % 64)) || (f->large & region_bit(va));
}

/* ---- flushes */

void mmu_flush(struct mmu *mmu)
{
	mmu->epoch++;
	forget_fetched(&mmu->fetched[0]);
	forget_fetched(&mmu->fetched[1]);
	tlbs_clear(mmu);
}

void mmu_flush_page(struct mmu *mmu, gva_t gva)
{
	struct fetched *f = &mmu->fetched[gva.v >> 63];

	mmu->epoch++;
	if (was_fetched(f, gva.v))
		forget_fetched(f);
	for (int a = 0; mmu->tlb && a < NR_MMU_ATTRS; a++)
		if (mmu->tlb[a].used)
			tlb_clear_page(&mmu->tlb[a], gva.v);
}

void mmu_mark_dirty(struct mmu *mmu, gpa_t gpa)
{
	const struct memslot *x = mem_mark_dirty(mmu->slots, gpa);

	if (unlikely(x) && mmu->dirtied)
		mmu->dirtied(mmu->opaque, x, (gpa.v - x->gpa.v) >> PAGE_SHIFT);
}

void mmu_flush_writes(struct mmu *mmu)
{
	for (int a = 0; mmu->tlb && a < NR_MMU_ATTRS; a++)
		for (unsigned int i = 0; mmu->tlb[a].used && i < TLB_ENTRIES; i++)
			mmu->tlb[a].hot[i].tag_w = tag_none(i);
}

void mmu_unwatch_writes(struct mmu *mmu, gpa_t page)
{
	for (int a = 0; mmu->tlb && a < NR_MMU_ATTRS; a++) {
		struct tlb *t = &mmu->tlb[a];

		for (unsigned int i = 0; t->used && i < TLB_ENTRIES; i++)
			if (t->info[i].gpa == (page.v & PAGE_MASK))
				t->hot[i].tag_w = tag_none(i);
	}
}

static bool same_keys(const struct paging *a, const struct paging *b)
{
	return !(a->efer & EFER_LMA) || ((a->pkru == b->pkru || !(a->cr4 & CR4_PKE)) &&
						(a->pkrs == b->pkrs || !(a->cr4 & CR4_PKS)));
}

/* Do both read and judge entries alike? CR3 and the PDPTEs apart. */
static bool same_rules(const struct paging *a, const struct paging *b)
{
	return !((a->cr0 ^ b->cr0) & CR0_RULES) && !((a->cr4 ^ b->cr4) & CR4_RULES) &&
		!((a->efer ^ b->efer) & EFER_RULES) && a->maxphyaddr == b->maxphyaddr &&
		same_keys(a, b);
}

static bool same_root(const struct paging *a, const struct paging *b)
{
	return a->cr3 == b->cr3 && !memcmp(a->pdptr, b->pdptr, sizeof(a->pdptr));
}

void mmu_set_paging(struct mmu *mmu, const struct paging *p, bool keep_global)
{
	struct paging old = mmu->paging;
	bool rules = same_rules(&old, p);

	mmu->paging = *p;
	/* something was written, but nothing that matters: MOV to CR0 with another TS, ... */
	if (rules && same_root(&old, p) &&
		(old.cr0 != p->cr0 || old.cr4 != p->cr4 || old.efer != p->efer ||
			old.pkru != p->pkru || old.pkrs != p->pkrs))
		return;
	if (!rules || !keep_global) {
		mmu_flush(mmu);
		return;
	}
	mmu->epoch++;
	for (int half = 0; half < 2; half++)
		if (mmu->fetched[half].private)
			forget_fetched(&mmu->fetched[half]);
	for (int a = 0; mmu->tlb && a < NR_MMU_ATTRS; a++)
		if (mmu->tlb[a].used)
			tlb_clear_nonglobal(&mmu->tlb[a]);
}

/* ---- life */

#define TLBS_SIZE ALIGN_UP(NR_MMU_ATTRS * sizeof(struct tlb), PAGE_SIZE)

/* Fresh pages are zeroes and need no clearing: most of a short guest's TLB is never touched. */
static struct tlb *tlbs_create(void)
{
	struct tlb *t = mmap(NULL, TLBS_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (t == MAP_FAILED)
		return NULL;
	for (int a = 0; a < NR_MMU_ATTRS; a++) {
		entry_clear(&t[a], 0);
		entry_clear(&t[a], TLB_SIZE);
	}
	return t;
}

int mmu_attach(struct mmu *mmu)
{
	if (mmu->slots && mmu->slots->generation == mem_generation(mmu->mem) &&
		mmu->tlb_generation == mmu->slots->generation && mmu->tlb_space == mmu->space)
		return 0;
	if (!mmu->tlb) {
		mmu->tlb = tlbs_create();
		if (!mmu->tlb)
			return -ENOMEM;
	}
	mem_put(mmu->slots);
	mmu->slots = mem_get(mmu->mem, mmu->space);
	if (mmu->tlb_generation != mmu->slots->generation || mmu->tlb_space != mmu->space)
		tlbs_clear(mmu);
	mmu->tlb_generation = mmu->slots->generation;
	mmu->tlb_space = mmu->space;
	return 0;
}

void mmu_detach(struct mmu *mmu)
{
	mem_put(mmu->slots);
	mmu->slots = NULL;
}

void mmu_free(struct mmu *mmu)
{
	mmu_detach(mmu);
	if (mmu->tlb)
		munmap(mmu->tlb, TLBS_SIZE);
	mmu->tlb = NULL;
}

/* ---- translation */

static inline void entry_copy(struct tlb *t, unsigned int to, unsigned int from)
{
	t->hot[to] = t->hot[from];
	t->info[to] = t->info[from];
}

/* Exchange a slot with its victim. An empty slot leaves an empty victim. */
static NOINLINE void victim_return(struct tlb *t, unsigned int i, unsigned int v)
{
	struct tlb_info info = t->info[i];
	struct tlb_hot hot = t->hot[i];

	entry_copy(t, i, v);
	t->info[v] = info;
	t->hot[v] = hot;
	if (info.tag == tag_none(i))
		entry_clear(t, v);
}

/* The slot of a page: if the page is a victim it comes back first. */
static inline unsigned int tlb_slot(struct tlb *t, u64 page)
{
	unsigned int i = tlb_index(page), v = victim_index(i);

	if (t->info[i].tag != page && t->info[v].tag == page)
		victim_return(t, i, v);
	return i;
}

static void tlb_fill(struct mmu *mmu, struct tlb *t, const struct walk *w)
{
	u64 page = w->gva.v & PAGE_MASK, frame = w->gpa.v & PAGE_MASK;
	unsigned int i = tlb_index(page);
	const struct memslot *slot;
	struct tlb_info *info = &t->info[i];
	struct tlb_hot *hot = &t->hot[i];
	u8 *hva;

	if (!OPT_TLB)
		entry_clear(t, t->last);
	else if (info->tag != page && info->tag != tag_none(i))
		entry_copy(t, victim_index(i), i);
	t->last = i;
	slot = memslot_find(mmu->slots, gpa(frame));
	hva = mem_hva(mmu->slots, gpa(frame), PAGE_SIZE, false);

	info->tag = page;
	info->gpa = frame;
	info->rights = w->rights;
	info->is_global = w->global;
	info->large = w->large;
	info->has_ram = !hva ? 0 : slot->flags & MEM_READONLY ? TLB_RAM_R : TLB_RAM_R | TLB_RAM_W;
	hot->delta = (u64)(uintptr_t)hva - page;
	hot->tag_r = hva && w->rights & MMU_R && OPT_TLB ? page : tag_none(i);
	hot->tag_w = tag_none(i);
	if (w->large)
		t->large_regions |= region_bit(page);
	t->used = true;
}

/* A write through the entry follows: log it, and open the short way if that was all. */
static bool tlb_allow_write(struct mmu *mmu, struct tlb *t, unsigned int i)
{
	gpa_t frame = gpa(t->info[i].gpa);

	if (!(t->info[i].has_ram & TLB_RAM_W))
		return false;
	mmu_mark_dirty(mmu, frame);
	if (OPT_TLB && !(mmu->watched && mmu->watched(mmu->opaque, frame)))
		t->hot[i].tag_w = t->info[i].tag;
	return true;
}

/*
 * Self-checking build: what an entry says must still be what the tables say. A guest that takes
 * rights away or moves a page flushes before it goes on there; more rights than we know are fine.
 * Another processor's changes may be seen late: nothing can be said then.
 */
static void entry_check(struct mmu *mmu, const struct tlb_info *info, enum mmu_attr attr)
{
	struct walk w = {
		.gva = gva(info->tag),
		.need = info->rights,
		.attr = attr,
		.class = WALK_VERIFY,
	};
	enum mmu_status st;

	if (__atomic_load_n(&mmu->shared, __ATOMIC_RELAXED))
		return;
	st = walk_run(mmu, &w);
	hard_check(st == MMU_OK && w.gpa.v == info->gpa);
}

/* What entry i proves of len bytes at gva. */
static inline struct xlat entry_xlat(const struct mmu *mmu, const struct tlb_info *info, gva_t gva,
	u16 len, enum mmu_attr attr)
{
	return (struct xlat){.gva = gva,
		.gpa = gpa(info->gpa | (gva.v & ~PAGE_MASK)),
		.epoch = mmu->epoch,
		.len = len,
		.rights = info->rights,
		.attr = attr | mmu->space << 4};
}

bool mmu_cached_device(struct mmu *mmu, gva_t gva, u16 len, enum mmu_attr attr, struct xlat *out)
{
	const struct tlb_info *info = &mmu->tlb[attr].info[tlb_index(gva.v)];

	if (info->tag != (gva.v & PAGE_MASK) || info->has_ram || !(info->rights & MMU_R))
		return false;
	*out = entry_xlat(mmu, info, gva, len, attr);
	return true;
}

enum mmu_status mmu_translate(struct mmu *mmu, gva_t gva, u16 len, u8 need, enum mmu_attr attr,
	enum walk_class c, struct xlat *out, u8 **hva, u32 *pferr)
{
	struct tlb *t = &mmu->tlb[attr];
	unsigned int i = tlb_slot(t, gva.v & PAGE_MASK);
	struct tlb_info *info = &t->info[i];

	if (info->tag != (gva.v & PAGE_MASK) || need & ~info->rights) {
		struct walk w = {.gva = gva, .need = need, .attr = attr, .class = c};
		enum mmu_status st = walk_run(mmu, &w);

		if (st != MMU_OK) {
			*pferr = w.pferr;
			return st;
		}
		tlb_fill(mmu, t, &w);
	}
	if (HARD)
		entry_check(mmu, info, attr);

	*out = entry_xlat(mmu, info, gva, len, attr);
	if (info->has_ram && (!(need & MMU_W) || tlb_allow_write(mmu, t, i)))
		*hva = (u8 *)(uintptr_t)(gva.v + t->hot[i].delta);
	else
		*hva = NULL;
	return MMU_OK;
}
