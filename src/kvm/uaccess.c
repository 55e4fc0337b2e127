// SPDX-License-Identifier: MIT
/* The kernel copies for us: it knows which addresses are good. */
#include "kvm/uaccess.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

int copy_in(void *dst, u64 uptr, size_t n)
{
	struct iovec l = {dst, n}, r = {(void *)uptr, n};
	ssize_t got;

	if (!n)
		return 0;
	got = process_vm_readv(getpid(), &l, 1, &r, 1, 0);
	if (got == (ssize_t)n)
		return 0;
	if (got >= 0 || (errno != ENOSYS && errno != EPERM))
		return -EFAULT;
	memcpy(dst, (void *)uptr, n); /* forbidden by a sandbox: trust the pointer */
	return 0;
}

int copy_out(u64 uptr, const void *src, size_t n)
{
	struct iovec l = {(void *)src, n}, r = {(void *)uptr, n};
	ssize_t put;

	if (!n)
		return 0;
	put = process_vm_writev(getpid(), &l, 1, &r, 1, 0);
	if (put == (ssize_t)n)
		return 0;
	if (put >= 0 || (errno != ENOSYS && errno != EPERM))
		return -EFAULT;
	memcpy((void *)uptr, src, n);
	return 0;
}

void *dup_in(u64 uptr, size_t n, size_t size, int *err)
{
	void *p = calloc(n + 1, size);

	*err = -ENOMEM;
	if (!p)
		return NULL;
	*err = copy_in(p, uptr, n * size);
	if (!*err)
		return p;
	free(p);
	return NULL;
}
