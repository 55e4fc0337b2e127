/* SPDX-License-Identifier: MIT */
/*
 * Memory for host code that we make: one memfd, one view to write and one to execute. Nothing is
 * ever writable and executable at one address; works under PR_SET_MDWE.
 */
#ifndef ANYKVM_CODE_MEMORY_H
#define ANYKVM_CODE_MEMORY_H

#include "base/base.h"

struct code_memory {
	u8 *rw, *rx; /* NULL: none could be had */
	u32 size;
	u32 used; /* bytes, from the start */
};

/* 0; -ENOMEM, -EMFILE, -ENFILE: may work later; -EPERM: the system lets nobody have such memory. */
MUSTCHECK int code_memory_create(struct code_memory *m, u32 size);
void code_memory_destroy(struct code_memory *m);

/* Is this host address in its code? */
static inline bool code_memory_has(const struct code_memory *m, u64 rip)
{
	return m->rx && rip - (u64)m->rx < m->size;
}

#endif
