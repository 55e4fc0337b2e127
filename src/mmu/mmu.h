/* SPDX-License-Identifier: MIT */
/*
 * The guest's MMU: page walk (SDM 3A 4), translation values, soft TLB.
 * Read mem/mem.h before. Usable and tested on an array of bytes: no CPU needed.
 */
#ifndef ANYKVM_MMU_H
#define ANYKVM_MMU_H

#include "base/base.h"
#include "mem/mem.h"
#include "x86/bits.h"

/* Rights, also "need" of an access. */
#define MMU_R BIT(0)
#define MMU_W BIT(1)
#define MMU_X BIT(2)
#define MMU_AHEAD BIT(3) /* with MMU_W, of a walk: the write may never come, A and D of the page stay */

/* On whose behalf: one soft TLB for each of the first three. */
enum mmu_attr {
	MMU_KERNEL,    /* supervisor, SMAP in force (EFLAGS.AC = 0), and all implicit system accesses */
	MMU_KERNEL_AC, /* supervisor with EFLAGS.AC = 1: user pages are reachable despite SMAP */
	MMU_USER,      /* CPL 3 */
	NR_MMU_ATTRS,
};

/* Why a walk was done; counted per class (DESIGN.md 9). */
enum walk_class {
	WALK_CPU,    /* the processor's own: soft TLB misses for data */
	WALK_FETCH,  /* instruction fetch */
	WALK_DATA,   /* exit-time emulator, data operand: the seed's number */
	WALK_PROVE,  /* exit-time emulator, proof made ahead of the access */
	WALK_SYSTEM, /* exit-time emulator, implicit access: descriptor tables, TSS */
	WALK_CPU_SYSTEM, /* the processor's own for those: soft TLB misses */
	WALK_VERIFY, /* ANYKVM_GPA=verify and HARD cross-checks: sets no A/D bits */
	WALK_DEBUG,  /* KVM_TRANSLATE, messages: sets no A/D bits, not a guest access */
	NR_WALK_CLASSES,
};

/*
 * One proved translation: a value that is passed by const pointer, never a field of the
 * vCPU (SEED rules 1, 2, 4).
 */
struct xlat {
	gva_t gva; /* first byte of the access in this page */
	gpa_t gpa;
	u32 epoch;   /* mmu epoch when proved */
	u16 len;     /* bytes inside this page */
	u8 rights;   /* MMU_* that the guest walk proved (may be more than was asked) */
	u8 attr;     /* enum mmu_attr | space << 4 */
	/* with MMU_AHEAD in rights: the entry whose A and D the write has to set, and what it was */
	gpa_t leaf;
	u64 entry;
};

/* All that a walk depends on besides memory. A value; set by mmu_set_paging only. */
struct paging {
	u64 cr0, cr3, cr4, efer;
	u64 pdptr[4];	/* PAE: loaded by mmu_load_pdptrs at MOV CR3 etc. */
	u32 pkru, pkrs;
	u8 maxphyaddr;	/* 36..52 */
};

/* #PF error code bits, SDM 3A 4.7 */
#define PF_P	BIT(0)
#define PF_W	BIT(1)
#define PF_U	BIT(2)
#define PF_RSVD BIT(3)
#define PF_I	BIT(4)
#define PF_PK	BIT(5)

enum mmu_status {
	MMU_OK,
	MMU_FAULT,   /* #PF: *pferr is the error code; CR2 is the gva asked for */
	MMU_NONCANON, /* the address is not canonical: #GP or #SS is the caller's choice */
};

/*
 * Soft TLB, direct mapped by page number hash. Hot part: what the interpreter's inline
 * lookup reads. A slot is valid for an access of n bytes at ea iff
 *	(ea ^ tag) <= 4096 - n		(tag, validity and page crossing in one compare)
 * An empty slot holds the tag of a page that hashes elsewhere, so it never matches.
 * tag_r is set only for pages whose RAM may be read directly; tag_w only for pages that
 * may be written directly: writable, D set, not read-only, not (still to be) dirty-logged,
 * no watched code in it. A translation to a page without RAM sets only info[].
 */
#define TLB_BITS 10
#define TLB_SIZE (1u << TLB_BITS)
/*
 * Behind the slots stand the victims: translations that another page has driven out of its slot.
 * Only the slow path finds them (two hot pages of one slot would walk by turns otherwise).
 */
#define TLB_VICTIMS 64u
#define TLB_ENTRIES (TLB_SIZE + TLB_VICTIMS)

#define TLB_RAM_R BIT(0)
#define TLB_RAM_W BIT(1)

struct tlb_hot {
	u64 tag_r, tag_w;
	u64 delta; /* host address = gva + delta */
	u64 unused; /* an entry's place is its number shifted */
};
_Static_assert(sizeof(struct tlb_hot) == 32, "");
struct tlb_info {
	u64 tag;   /* page address | 0 */
	u64 gpa;   /* page address */
	u8 rights; /* MMU_R/W/X proved; MMU_W only when D has been set */
	u8 is_global;
	u8 has_ram; /* 0 no RAM here, TLB_RAM_R read-only slot, TLB_RAM_R | TLB_RAM_W */
	u8 large;   /* part of a 2M/4M/1G page */
};
struct tlb {
	struct tlb_hot hot[TLB_ENTRIES];
	struct tlb_info info[TLB_ENTRIES];
	bool used; /* something was filled since the last flush */
	u16 last;  /* entry filled last: the only one in the self-checking build */
	u64 large_regions; /* bit hash(1G region): it may have entries that are `large` */
};

static inline unsigned int tlb_index(u64 ea)
{
	u64 p = ea >> PAGE_SHIFT;

	return (p ^ (p >> TLB_BITS)) & (TLB_SIZE - 1);
}

struct mmu {
	/* set at creation */
	struct mem *mem;
	bool (*watched)(void *opaque, gpa_t page); /* may this page hold watched code? NULL: never */
	/* a page of a logged slot was clean and is dirty now. NULL: nobody wants to know */
	void (*dirtied)(void *opaque, const struct memslot *slot, u64 page);
	void *opaque;
	bool shared; /* atomic: other processors may change these page tables (mmu_set_shared) */
	/* owner thread only */
	struct memslots *slots; /* reference held while the vCPU runs: mmu_attach/mmu_detach */
	u8 space;		/* address space in use (1 in SMM) */
	u32 epoch;		/* grows when any proved translation may have become stale */
	/* where code was fetched from, in the lower and in the upper half of the address space */
	struct fetched {
		u32 epoch;    /* grows when any page noted by mmu_note_fetch may be elsewhere */
		bool private; /* one of them is not global */
		u64 large;    /* 1G regions with large ones, by hash */
		u64 page[64]; /* by hash */
	} fetched[2];
	struct paging paging;
	u64 walks[NR_WALK_CLASSES];
	struct tlb *tlb; /* [NR_MMU_ATTRS]; allocated by mmu_attach */
	u32 tlb_generation; /* memory generation and space that the TLB's host pointers are of */
	u8 tlb_space;
};

/*
 * 0 or -ENOMEM. Takes the current snapshot of `space`; drops the TLB (the epoch stays: slots are
 * no part of a translation) if it is not that of the last attach. May be repeated without
 * mmu_detach, to refresh the snapshot or after a change of `space`.
 */
MUSTCHECK int mmu_attach(struct mmu *mmu);
/* Drop the snapshot reference (keeps the TLB arrays). */
void mmu_detach(struct mmu *mmu);
/* Another processor is there: a translation may be stale until it has asked for a flush. Any thread. */
static inline void mmu_set_shared(struct mmu *mmu)
{
	__atomic_store_n(&mmu->shared, true, __ATOMIC_RELAXED);
}
void mmu_free(struct mmu *mmu);

/*
 * Take the new paging state: bumps epoch and flushes what SDM 3A 4.10.4 demands: everything,
 * unless only CR3 changed and keep_global (CR4.PGE, MOV CR3) lets global entries stay.
 * A change of nothing but bits that no walk depends on (CR0.TS, CR4.OSXSAVE, PKRU without
 * CR4.PKE, PKRS without CR4.PKS, ...) flushes nothing and keeps the epoch; the same values again do flush.
 */
void mmu_set_paging(struct mmu *mmu, const struct paging *p, bool keep_global);

/*
 * PAE with paging on: read the four PDPTEs at p->cr3 into p->pdptr. false: reserved bits set
 * or no RAM (#GP), p is unchanged.
 */
MUSTCHECK bool mmu_load_pdptrs(struct mmu *mmu, struct paging *p);

void mmu_flush(struct mmu *mmu);	 /* all entries, all attrs; bumps epoch */
/* INVLPG: all attrs, global or not, all parts of a large page; bumps epoch */
void mmu_flush_page(struct mmu *mmu, gva_t gva);
/*
 * Somebody remembers where the code at gva is, as long as fetched[gva >> 63].epoch stays: an INVLPG of
 * another page leaves it alone, and MOV CR3 does if all are global.
 */
void mmu_note_fetch(struct mmu *mmu, gva_t gva, enum mmu_attr attr);
/* mem_mark_dirty on the snapshot in use, for the owner's writes. */
void mmu_mark_dirty(struct mmu *mmu, gpa_t gpa);
void mmu_flush_writes(struct mmu *mmu); /* drop every tag_w (dirty log cleared) */
/* Drop tag_w of every entry that maps this page. */
void mmu_unwatch_writes(struct mmu *mmu, gpa_t page);

/*
 * Walk the guest's page tables for one access inside one page (gva..gva+len must not cross).
 * The only function that reads guest page-table entries; counts one walk of class c if
 * paging is on. need: MMU_R, MMU_W|MMU_R or MMU_X. Sets A, and D if need has W, atomically
 * (never for WALK_DEBUG and WALK_VERIFY). MMU_OK: *out is complete (rights: all that the tables grant for
 * attr; W only if D is set now). A table without RAM behind it is a not-present fault; a table in
 * read-only memory works, its A/D bits stay. No TLB is read or written.
 */
MUSTCHECK enum mmu_status mmu_walk(struct mmu *mmu, gva_t gva, u16 len, u8 need,
	enum mmu_attr attr, enum walk_class c, struct xlat *out, u32 *pferr);

/*
 * The processor's translation: TLB hit or mmu_walk and fill. On MMU_OK *out is the proved
 * translation and *hva the host address of the byte, or NULL when there is no RAM for this
 * need (no slot; read-only slot and need has W). A write through *hva is already marked dirty.
 * Fills tag_r and, if nothing is left to do at the next write, tag_w. Not for WALK_DEBUG.
 */
MUSTCHECK enum mmu_status mmu_translate(struct mmu *mmu, gva_t gva, u16 len, u8 need,
	enum mmu_attr attr, enum walk_class c, struct xlat *out, u8 **hva, u32 *pferr);

/*
 * Does the TLB know that the page has no RAM and may be read? Then *out is the proved translation of
 * len bytes at gva, which must not cross a page. Walks nothing, fills nothing.
 */
MUSTCHECK bool mmu_cached_device(struct mmu *mmu, gva_t gva, u16 len, enum mmu_attr attr, struct xlat *out);

/*
 * A write that was proved by a walk with MMU_AHEAD has come: its A and D bits are due. False: the
 * entry has changed since, it must be proved anew.
 */
bool mmu_set_dirty(struct mmu *mmu, const struct xlat *x);

/* Is gva canonical under this paging state (48 or 57 bits)? Always true outside long mode. */
static inline bool mmu_canonical(const struct paging *p, gva_t gva)
{
	unsigned int unused = p->cr4 & CR4_LA57 ? 64 - 57 : 64 - 48;

	return !(p->efer & EFER_LMA) || (u64)((s64)(gva.v << unused) >> unused) == gva.v;
}

#endif
