/* SPDX-License-Identifier: MIT */
/* Copies from and to the client's memory that answer -EFAULT instead of a signal. */
#ifndef ANYKVM_KVM_UACCESS_H
#define ANYKVM_KVM_UACCESS_H

#include "base/base.h"

/* 0 or -EFAULT (then dst is undefined). */
MUSTCHECK int copy_in(void *dst, u64 uptr, size_t n);
MUSTCHECK int copy_out(u64 uptr, const void *src, size_t n);

/* A calloc'ed array of n elements copied in. NULL with *err = -ENOMEM or -EFAULT; n = 0 gives a valid pointer. */
void *dup_in(u64 uptr, size_t n, size_t size, int *err);

#endif
