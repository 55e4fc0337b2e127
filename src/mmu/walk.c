// SPDX-License-Identifier: MIT
/*
 * The guest page walk (SDM 3A 4.3 to 4.8): the only place that reads guest tables.
 * Not here: the soft TLB (tlb.c), what a second-stage fault does with a page that has no
 * RAM, PCIDs (every MOV CR3 drops our entries).
 *
 * One loop serves all modes. A linear address is cut from the top:
 *
 *	63     57       48       39       30       21       12           0
 *	+-------+--------+--------+--------+--------+--------+-----------+
 *	| sign  |   9    |   9    |   9    |   9    |   9    |  offset   |  8-byte entries
 *	+-------+--------+--------+--------+--------+--------+-----------+
 *	level       5        4        3        2        1
 *	5-level: CR3^
 *	4-level:          CR3^
 *	PAE:                     PDPTR[2]^                     32-bit addresses
 *	a page:                       1G       2M       4K
 *
 *	                          31         22         12           0
 *	                          +----------+----------+-----------+
 *	                          |    10    |    10    |  offset   |        4-byte entries
 *	                          +----------+----------+-----------+
 *	level                          2          1
 *	2-level:                    CR3^
 *	a page:                        4M        4K
 *
 * An entry is a HOLE (P = 0), a TABLE, a PAGE, or BAD (a reserved bit is set). The rights
 * of the address are the AND of R/W and U/S and the OR of XD over all entries. A and D bits are
 * set at the end, when the access is known to be allowed, by cmpxchg with the value
 * that was used; if an entry changed meanwhile, the walk starts again.
 */
#include "mem/mem.h"
#include "mmu/walk.h"
#include "x86/bits.h"

#define FRAME BITS(51, 12) /* of an entry that leads to a table, and of CR3 */

enum entry_kind { HOLE, TABLE, PAGE, BAD };

/* Where a walk starts, and the few things in which the paging modes differ. */
struct shape {
	u64 table;	/* gpa of the first table */
	u64 rsvd;	/* reserved in every present entry */
	u64 rsvd_large; /* reserved in a 2-level entry that maps 4M */
	u8 level;	/* of the first table */
	u8 bytes;	/* of an entry: 4 (10 index bits a level) or 8 (9 bits) */
	u8 large;	/* bit L: PS at level L makes a page */
};

/* The entries that a walk has used, from the top, and the AND and OR of all. */
struct trail {
	u64 at[5], entry[5];
	u64 and, or;
	u8 n;
};

/* ---- access to one entry */

/* *slot: where the table before was, most often the right one; NULL at first. */
static ALWAYS_INLINE bool entry_read(const struct mmu *mmu, const struct memslot **slot, u64 at,
	unsigned int bytes, u64 *e)
{
	const void *p = memslot_hva(*slot, gpa(at), bytes);

	if (unlikely(!p)) {
		*slot = memslot_find(mmu->slots, gpa(at));
		p = memslot_hva(*slot, gpa(at), bytes);
		if (!p)
			return false;
	}
	*e = bytes == 8 ? __atomic_load_n((const u64 *)p, __ATOMIC_ACQUIRE) :
			  __atomic_load_n((const u32 *)p, __ATOMIC_ACQUIRE);
	return true;
}

static bool entry_cmpxchg(void *p, unsigned int bytes, u64 old, u64 new)
{
	u32 old32 = old;

	if (bytes == 8)
		return __atomic_compare_exchange_n(
			(u64 *)p, &old, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	return __atomic_compare_exchange_n(
		(u32 *)p, &old32, new, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* ---- the modes */

/*
 * Reserved in a 4M page's entry (SDM 3A table 4-4): bit 21, and what PSE-36 does not use
 * of bits 20..13, which hold physical address bits 39..32.
 */
static u64 pse36_rsvd(unsigned int maxphyaddr)
{
	return BIT(21) | (maxphyaddr < 40 ? BITS(20, maxphyaddr - 32 + 13) : 0);
}

/* Fill s for gva. HOLE or TABLE, as the register that leads to the first table says. */
static enum entry_kind shape_init(struct shape *s, const struct paging *p, gva_t gva)
{
	if (!(p->cr4 & CR4_PAE)) {
		*s = (struct shape){.table = p->cr3 & BITS(31, 12),
			.rsvd_large = pse36_rsvd(p->maxphyaddr),
			.level = 2,
			.bytes = 4,
			.large = p->cr4 & CR4_PSE ? BIT(2) : 0};
		return TABLE;
	}

	s->rsvd = p->efer & EFER_NXE ? 0 : PTE_NX;
	s->rsvd_large = 0;
	s->bytes = 8;
	if (p->efer & EFER_LMA) {
		s->table = p->cr3 & FRAME;
		s->rsvd |= BITS(51, p->maxphyaddr);
		s->level = p->cr4 & CR4_LA57 ? 5 : 4;
		s->large = BIT(2) | BIT(3);
		return TABLE;
	}

	/* SDM 3A 4.4.1: the PDPTEs were checked when they were loaded; they hold no rights */
	s->table = p->pdptr[gva.v >> 30 & 3];
	s->rsvd |= BITS(62, p->maxphyaddr);
	s->level = 2;
	s->large = BIT(2);
	if (!(s->table & PTE_P))
		return HOLE;
	s->table &= FRAME;
	return TABLE;
}

static ALWAYS_INLINE enum entry_kind entry_kind(const struct shape *s, unsigned int bytes, u64 e,
	unsigned int level, unsigned int shift)
{
	u64 rsvd = s->rsvd;
	bool page = level == 1;

	if (!(e & PTE_P))
		return HOLE;
	if (unlikely(e & PTE_PS) && level > 1) {
		if (s->large & BIT(level)) {
			/* bit 12 is PAT; the rest below the frame must be 0 */
			rsvd |= bytes == 8 ? BITS(shift - 1, 13) : s->rsvd_large;
			page = true;
		} else if (bytes == 8) {
			rsvd |= PTE_PS; /* PML4E, PML5E; a PDE without CR4.PSE ignores it */
		}
	}
	if (unlikely(e & rsvd))
		return BAD;
	return page ? PAGE : TABLE;
}

/* Address of the first byte that a PAGE entry of this level maps, plus the offset in it. */
static inline u64 entry_gpa(const struct shape *s, u64 e, unsigned int shift, gva_t gva)
{
	u64 frame = e & BITS(51, shift);

	if (s->bytes == 4 && shift == 22)
		frame |= (e & BITS(20, 13)) << (32 - 13); /* PSE-36 */
	return frame | (gva.v & (BIT(shift) - 1));
}

/*
 * Go down from s->table. HOLE, BAD, or PAGE with *at, the address, and the trail.
 * `bytes` is a constant at each call: the compiler makes two loops of this one.
 */
static ALWAYS_INLINE enum entry_kind descend(const struct mmu *mmu, const struct shape *s,
	unsigned int bytes, gva_t gva, struct trail *t, u64 *at)
{
	const unsigned int index_bits = bytes == 8 ? 9 : 10;
	const u64 index_mask = BIT(index_bits) - 1;
	unsigned int level = s->level, shift = PAGE_SHIFT + (level - 1) * index_bits;
	u64 table = s->table;
	const struct memslot *slot = NULL;
	enum entry_kind kind;
	u64 e;

	t->n = 0;
	t->and = ~0ull;
	t->or = 0;
	for (;; level--, shift -= index_bits) {
		u64 where = table + (gva.v >> shift & index_mask) * bytes;

		/* TESTING item 44: no RAM where the table should be reads as "not present" */
		if (!entry_read(mmu, &slot, where, bytes, &e))
			return HOLE;
		kind = entry_kind(s, bytes, e, level, shift);
		if (kind == HOLE || kind == BAD)
			return kind;
		t->at[t->n] = where;
		t->entry[t->n++] = e;
		t->and &= e;
		t->or |= e;
		if (kind == PAGE)
			break;
		table = e & FRAME;
	}
	*at = entry_gpa(s, e, shift, gva);
	return PAGE;
}

/* ---- rights */

/* What PKRU takes away from user pages, PKRS from others, with the leaf's key (SDM 3A 4.6.2). */
static u8 pkey_denied(const struct paging *p, const struct trail *t, enum mmu_attr attr)
{
	bool user_page = t->and & PTE_U;
	u32 bits;

	if (likely(!(p->cr4 & (user_page ? CR4_PKE : CR4_PKS))) || !(p->efer & EFER_LMA))
		return 0;
	bits = (user_page ? p->pkru : p->pkrs) >> (t->entry[t->n - 1] >> 59 & 15) * 2;
	if (bits & 1) /* AD */
		return MMU_R | MMU_W;
	if (bits & 2 && (attr == MMU_USER || p->cr0 & CR0_WP)) /* WD */
		return MMU_W;
	return 0;
}

/* What the tables grant, protection keys apart (SDM 3A 4.6.1). */
static u8 table_rights(const struct paging *p, const struct trail *t, enum mmu_attr attr)
{
	bool user_page = t->and & PTE_U;
	u8 rights = MMU_R;

	if (t->and & PTE_W || (attr != MMU_USER && !(p->cr0 & CR0_WP)))
		rights |= MMU_W;
	if (!(t->or & PTE_NX))
		rights |= MMU_X;
	if (attr == MMU_USER)
		return user_page ? rights : 0;
	if (user_page && p->cr4 & CR4_SMEP)
		rights &= ~MMU_X;
	if (user_page && p->cr4 & CR4_SMAP && attr == MMU_KERNEL)
		rights &= MMU_X;
	return rights;
}

/* SDM 3A 4.7. bits: P, RSVD, PK. */
static enum mmu_status fault(const struct paging *p, struct walk *w, u32 bits)
{
	if (w->need & MMU_W)
		bits |= PF_W;
	if (w->attr == MMU_USER)
		bits |= PF_U;
	if (w->need & MMU_X &&
		(p->cr4 & CR4_SMEP || (p->cr4 & CR4_PAE && p->efer & EFER_NXE)))
		bits |= PF_I;
	w->pferr = bits;
	return MMU_FAULT;
}

/* ---- accessed and dirty */

/*
 * Set A in every entry of the trail and, for a write, D in the last one (SDM 3A 4.8); a proof
 * made ahead leaves the last one alone.
 * Entries in read-only memory stay as they are (SEED rule 25). False: an entry is not what the
 * walk used any more; those before it have their A bit, which hardware may set too.
 */
static bool trail_mark(struct mmu *mmu, const struct shape *s, const struct trail *t,
	bool write, bool ahead)
{
	for (int i = 0; i < t->n - ahead; i++) {
		u64 old = t->entry[i], new = old | PTE_A;
		void *p;

		if (write && i == t->n - 1)
			new |= PTE_D;
		if (new == old)
			continue;
		p = mem_hva(mmu->slots, gpa(t->at[i]), s->bytes, true);
		if (!p)
			continue;
		if (!entry_cmpxchg(p, s->bytes, old, new))
			return false;
		mmu_mark_dirty(mmu, gpa(t->at[i]));
	}
	return true;
}

/* ---- the walk */

/* A walk that only looks: it changes nothing. */
static bool walk_is_look(u8 class)
{
	return class == WALK_DEBUG || class == WALK_VERIFY;
}

static enum mmu_status walk_tables(struct mmu *mmu, struct walk *w)
{
	const struct paging *p = &mmu->paging;
	bool ahead = w->need & MMU_AHEAD, write = w->need & MMU_W && !ahead, dirty;
	enum entry_kind kind;
	struct shape s;
	struct trail t;
	u8 pk;

	do {
		kind = shape_init(&s, p, w->gva);
		if (kind == TABLE)
			kind = s.bytes == 8 ? descend(mmu, &s, 8, w->gva, &t, &w->gpa.v) :
					      descend(mmu, &s, 4, w->gva, &t, &w->gpa.v);
		if (kind != PAGE)
			return fault(p, w, kind == BAD ? PF_P | PF_RSVD : 0);

		pk = pkey_denied(p, &t, w->attr);
		w->rights = table_rights(p, &t, w->attr) & ~pk;
		if (unlikely(w->need & ~MMU_AHEAD & ~w->rights))
			return fault(p, w, w->need & pk ? PF_P | PF_PK : PF_P);

		dirty = t.entry[t.n - 1] & PTE_D;
		if (likely(t.and & PTE_A && (dirty || !write)))
			break;
	} while (!walk_is_look(w->class) && !trail_mark(mmu, &s, &t, write, ahead));

	if (ahead)
		w->rights |= MMU_AHEAD;
	else if (!dirty && !write)
		w->rights &= ~MMU_W;
	w->leaf = gpa(t.at[t.n - 1]);
	w->entry = t.entry[t.n - 1];
	w->global = t.entry[t.n - 1] & PTE_G && p->cr4 & CR4_PGE;
	w->large = t.n < s.level;
	return MMU_OK;
}

enum mmu_status walk_run(struct mmu *mmu, struct walk *w)
{
	const struct paging *p = &mmu->paging;

	if (!(p->cr0 & CR0_PG)) {
		w->gpa = gpa((u32)w->gva.v);
		w->rights = MMU_R | MMU_W | MMU_X;
		w->global = w->large = false;
		return MMU_OK;
	}
	if (!mmu_canonical(p, w->gva))
		return MMU_NONCANON;
	mmu->walks[w->class]++;
	return walk_tables(mmu, w);
}

enum mmu_status mmu_walk(struct mmu *mmu, gva_t gva, u16 len, u8 need, enum mmu_attr attr,
	enum walk_class c, struct xlat *out, u32 *pferr)
{
	struct walk w = {.gva = gva, .need = need, .attr = attr, .class = c};
	enum mmu_status st = walk_run(mmu, &w);

	if (st == MMU_OK)
		*out = (struct xlat){.gva = gva,
			.gpa = w.gpa,
			.epoch = mmu->epoch,
			.len = len,
			.rights = w.rights,
			.attr = attr | mmu->space << 4,
			.leaf = w.leaf,
			.entry = w.entry};
	else
		*pferr = w.pferr;
	return st;
}

bool mmu_set_dirty(struct mmu *mmu, const struct xlat *x)
{
	const unsigned int bytes = mmu->paging.cr4 & CR4_PAE ? 8 : 4;
	const struct memslot *slot = NULL;
	u64 old;
	void *p;

	do {
		if (!entry_read(mmu, &slot, x->leaf.v, bytes, &old) ||
			(old ^ x->entry) & ~(PTE_A | PTE_D))
			return false;
		p = mem_hva(mmu->slots, x->leaf, bytes, true);
		if (!p) /* read-only memory, as in trail_mark */
			return true;
	} while (!entry_cmpxchg(p, bytes, old, old | PTE_A | PTE_D));
	mmu_mark_dirty(mmu, x->leaf);
	return true;
}

bool mmu_load_pdptrs(struct mmu *mmu, struct paging *p)
{
	/* SDM 3A 4.4.1 and table 4-8: R/W, U/S and bits 8..5 do not exist here */
	const u64 rsvd = BITS(63, p->maxphyaddr) | BITS(8, 5) | BITS(2, 1);
	const struct memslot *slot = NULL;
	u64 e[4];

	for (unsigned int i = 0; i < 4; i++)
		if (!entry_read(mmu, &slot, (p->cr3 & BITS(31, 5)) + 8 * i, 8, &e[i]) ||
			(e[i] & PTE_P && e[i] & rsvd))
			return false;
	for (unsigned int i = 0; i < 4; i++)
		p->pdptr[i] = e[i];
	return true;
}
