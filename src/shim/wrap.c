// SPDX-License-Identifier: MIT
/* What the library's own objects reach under the names that files.c and signals.c hook. */
#include "shim/shim.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

int __wrap_open(const char *path, int flags, ...);
int __wrap_ioctl(int fd, unsigned long req, ...);
void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off);
int __wrap_munmap(void *addr, size_t len);
int __wrap_close(int fd);
ssize_t __wrap_read(int fd, void *buf, size_t n);
int __wrap_pthread_setcanceltype(int type, int *old);

int __wrap_open(const char *path, int flags, ...)
{
	return REAL(open)(path, flags); /* the library creates no files */
}

int __wrap_ioctl(int fd, unsigned long req, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, req);
	arg = va_arg(ap, void *);
	va_end(ap);
	return REAL(ioctl)(fd, req, arg);
}

void *__wrap_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t off)
{
	return REAL(mmap)(addr, len, prot, flags, fd, off);
}

int __wrap_munmap(void *addr, size_t len)
{
	return REAL(munmap)(addr, len);
}

int __wrap_close(int fd)
{
	return REAL(close)(fd);
}

ssize_t __wrap_read(int fd, void *buf, size_t n)
{
	return REAL(read)(fd, buf, n);
}

int __wrap_pthread_setcanceltype(int type, int *old)
{
	return REAL(pthread_setcanceltype)(type, old);
}
