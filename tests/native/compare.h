/* SPDX-License-Identifier: MIT */
/* Comparing two outcomes of one case: compare.c. */
#ifndef ANYKVM_NATIVE_COMPARE_H
#define ANYKVM_NATIVE_COMPARE_H

#include "native.h"

enum verdict {
	EQUAL,
	EQUAL_MASKED, /* but for undefined flags */
	EQUAL_OPEN,   /* both stopped in the middle of a PARTS row */
	DIFFERENT,
};

/* buf may be NULL; else the differences go there, a line each. */
enum verdict compare(const struct native_case *c, const struct outcome *host,
	const struct outcome *ours, char *buf, size_t size);

/* Did the instruction retire (rather than stop where it is)? */
bool outcome_retired(const struct native_case *c, const struct outcome *o);

#endif
