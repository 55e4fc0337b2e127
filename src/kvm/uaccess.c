// SPDX-License-Identifier: MIT
/*
 * Under the shim, whose SIGSEGV handler comes to uaccess_fault, a copy is one instruction, as in
 * the kernel; a program's seccomp filter need not know of it. Without that handler the kernel
 * copies for us: it knows which addresses are good.
 */
#include "kvm/uaccess.h"

#include "kvm/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <ucontext.h>
#include <unistd.h>

static bool caught; /* set once, before the first VM is made */

void uaccess_catch(void)
{
	__atomic_store_n(&caught, true, __ATOMIC_RELAXED);
}

/* MOVSB with REP stops at the bad byte, with RCX what is left (SDM 2B REP). */
u64 uaccess_move(void *dst, const void *src, u64 n);
extern const u8 uaccess_movsb[], uaccess_moved[];

asm(".pushsection .text\n"
    ".hidden uaccess_move, uaccess_movsb, uaccess_moved\n"
    ".globl uaccess_move, uaccess_movsb, uaccess_moved\n"
    ".type uaccess_move, @function\n"
    "uaccess_move: .cfi_startproc\n"
    "mov %rdx, %rcx\n"
    "uaccess_movsb: rep movsb\n"
    "uaccess_moved: mov %rcx, %rax\n"
    "ret\n"
    ".cfi_endproc\n"
    ".size uaccess_move, . - uaccess_move\n"
    ".popsection");

bool uaccess_fault(void *context)
{
	greg_t *rip = &((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];

	if (*rip != (greg_t)uaccess_movsb)
		return false;
	*rip = (greg_t)uaccess_moved;
	return true;
}

typedef ssize_t vm_copy(pid_t pid, const struct iovec *local, unsigned long nr_local,
	const struct iovec *remote, unsigned long nr_remote, unsigned long flags);

/* `copy` between `own` and `theirs`: 0, -EFAULT, or -EPERM where a sandbox forbids the call. */
static int kernel_copy(vm_copy *copy, void *own, u64 theirs, size_t n)
{
	struct iovec l = {own, n}, r = {(void *)theirs, n};
	ssize_t done = copy(getpid(), &l, 1, &r, 1, 0);

	if (done == (ssize_t)n)
		return 0;
	return done < 0 && (errno == ENOSYS || errno == EPERM) ? -EPERM : -EFAULT;
}

static int move(void *dst, const void *src, size_t n)
{
	return uaccess_move(dst, src, n) ? -EFAULT : 0;
}

static bool by_ourselves(size_t n)
{
	return !n || __atomic_load_n(&caught, __ATOMIC_RELAXED);
}

int copy_in(void *dst, u64 uptr, size_t n)
{
	int r = by_ourselves(n) ? -EPERM : kernel_copy(process_vm_readv, dst, uptr, n);

	return r == -EPERM ? move(dst, (void *)uptr, n) : r;
}

int copy_out(u64 uptr, const void *src, size_t n)
{
	int r = by_ourselves(n) ? -EPERM : kernel_copy(process_vm_writev, (void *)src, uptr, n);

	return r == -EPERM ? move((void *)uptr, src, n) : r;
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
