/* SPDX-License-Identifier: MIT */
/* One walk and what it found; private to mmu/ (tlb.c needs more than struct xlat says). */
#ifndef ANYKVM_MMU_WALK_H
#define ANYKVM_MMU_WALK_H

#include "mmu/mmu.h"

/* Paging-structure entries, SDM 3A 4.3 to 4.5: the same bits at all levels. */
#define PTE_P  BIT(0)
#define PTE_W  BIT(1)
#define PTE_U  BIT(2)
#define PTE_A  BIT(5)
#define PTE_D  BIT(6)
#define PTE_PS BIT(7) /* PAT at level 1 */
#define PTE_G  BIT(8)
#define PTE_NX BIT(63)

struct walk {
	/* input */
	gva_t gva;
	u8 need; /* MMU_* */
	u8 attr; /* enum mmu_attr */
	u8 class; /* enum walk_class */
	/* output on MMU_OK */
	bool global, large;
	u8 rights;
	gpa_t gpa;
	gpa_t leaf; /* these two with MMU_AHEAD in rights: as in struct xlat */
	u64 entry;
	/* output on MMU_FAULT */
	u32 pferr;
};

/* mmu_walk's body. */
MUSTCHECK enum mmu_status walk_run(struct mmu *mmu, struct walk *w);

#endif
