/* SPDX-License-Identifier: MIT */
/* Private to native*.c: from a decoded instruction to the bytes of its thunk. */
#ifndef ANYKVM_NATIVE_BUILD_H
#define ANYKVM_NATIVE_BUILD_H

#include "cpu/native.h"

#define THUNK_MAX 1536 /* VZEROALL loads and stores sixteen registers */

/* Bytes written to out (at most THUNK_MAX); 0: this form has no encoding in 64-bit mode. */
unsigned int native_build(u8 *out, const struct insn *i);

/* Reduce i to what its thunk depends on: two instructions with equal keys share one. */
void native_key(struct insn *key, const struct insn *i);

#endif
