// SPDX-License-Identifier: MIT
/*
 * Descriptors: open, ioctl, mmap, munmap, read and close. A call on any other file costs a
 * compare or two before libc's: ioctl looks at the request's type, close and read at one bit
 * for the descriptor number, munmap at the range in which vCPUs are mapped.
 */
#include "shim/shim.h"

#include "anykvm.h"
#include "kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

/*
 * Before the first open of /dev/kvm no descriptor or mapping can be ours. A sanitizer's runtime
 * calls us so early that no code may run which it has instrumented (Makefile).
 */
static bool opened; /* atomic */

static int open_kvm(const char *path, int flags)
{
	__atomic_store_n(&opened, true, __ATOMIC_RELAXED);
	return anykvm_open(path, flags);
}

static bool any_ours(void)
{
	return unlikely(__atomic_load_n(&opened, __ATOMIC_RELAXED)) && object_any();
}

static bool takes_mode(int flags)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
}

static mode_t mode_of(int flags, va_list ap)
{
	return takes_mode(flags) ? va_arg(ap, mode_t) : 0;
}

#define OPEN(name)                                                                       \
	PUBLIC int name(const char *path, int flags, ...)                                \
	{                                                                                \
		va_list ap;                                                              \
		mode_t mode;                                                             \
                                                                                         \
		if (unlikely(is_dev_kvm(path)))                                          \
			return open_kvm(path, flags);                                    \
		va_start(ap, flags);                                                     \
		mode = mode_of(flags, ap);                                               \
		va_end(ap);                                                              \
		return REAL(name)(path, flags, mode);                                    \
	}
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                     \
	PUBLIC int name(int dir, const char *path, int flags, ...)                       \
	{                                                                                \
		va_list ap;                                                              \
		mode_t mode;                                                             \
                                                                                         \
		if (unlikely(is_dev_kvm(path)))                                          \
			return open_kvm(path, flags);                                    \
		va_start(ap, flags);                                                     \
		mode = mode_of(flags, ap);                                               \
		va_end(ap);                                                              \
		return REAL(name)(dir, path, flags, mode);                               \
	}
OPENAT(openat)
OPENAT(openat64)

/* What open becomes with _FORTIFY_SOURCE. */
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);
ssize_t __read_chk(int fd, void *buf, size_t n, size_t size);

#define OPEN_2(name)                                                                     \
	PUBLIC int name(const char *path, int flags)                                     \
	{                                                                                \
		return is_dev_kvm(path) ? open_kvm(path, flags) : REAL(name)(path, flags); \
	}
OPEN_2(__open_2)
OPEN_2(__open64_2)

#define OPENAT_2(name)                                                                   \
	PUBLIC int name(int dir, const char *path, int flags)                            \
	{                                                                                \
		return is_dev_kvm(path) ? open_kvm(path, flags)                          \
					: REAL(name)(dir, path, flags);                  \
	}
OPENAT_2(__openat_2)
OPENAT_2(__openat64_2)

PUBLIC int ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (_IOC_TYPE(req) == KVMIO) {
		if (req == KVM_RUN)
			shim_enter_run();
		else if (req == KVM_CREATE_VM)
			shim_catch_faults();
		return anykvm_ioctl(fd, req, arg);
	}
	return REAL(ioctl)(fd, req, arg);
}

PUBLIC void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	if (fd >= 0 && !(flags & MAP_ANONYMOUS) && any_ours())
		return anykvm_mmap(addr, len, prot, flags, fd, off);
	return REAL(mmap)(addr, len, prot, flags, fd, off);
}

PUBLIC void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return mmap(addr, len, prot, flags, fd, off);
}

PUBLIC int munmap(void *addr, size_t len)
{
	return any_ours() ? anykvm_munmap(addr, len) : REAL(munmap)(addr, len);
}

PUBLIC int close(int fd)
{
	return any_ours() && object_fd_seen(fd) ? anykvm_close(fd) : REAL(close)(fd);
}

/* The kernel's KVM files but the statistics have no read method. */
static bool unreadable(int fd)
{
	struct object *o;
	bool r;

	if (!any_ours() || !object_fd_seen(fd))
		return false;
	o = object_find(fd);
	if (!o)
		return false;
	r = o->kind != OBJECT_STATS;
	object_put(o);
	return r;
}

static ssize_t einval(void)
{
	errno = EINVAL;
	return -1;
}

PUBLIC ssize_t read(int fd, void *buf, size_t n)
{
	return unlikely(unreadable(fd)) ? einval() : REAL(read)(fd, buf, n);
}

PUBLIC ssize_t __read_chk(int fd, void *buf, size_t n, size_t size)
{
	return unlikely(unreadable(fd)) ? einval() : REAL(__read_chk)(fd, buf, n, size);
}
