// SPDX-License-Identifier: MIT
/* Questions about the path /dev/kvm: it exists, is a character device, and anyone may use it. */
#include "shim/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#define KVM_MODE  (S_IFCHR | 0666)
#define KVM_MAJOR 10 /* misc devices; KVM's minor is fixed (Linux admin-guide/devices.txt) */
#define KVM_MINOR 232

static int answer_access(int mode)
{
	if (mode & ~(R_OK | W_OK | X_OK))
		errno = EINVAL;
	else if (mode & X_OK)
		errno = EACCES;
	else
		return 0;
	return -1;
}

#define ACCESS(name)                                                              \
	PUBLIC int name(const char *path, int mode)                               \
	{                                                                         \
		return is_dev_kvm(path) ? answer_access(mode) : REAL(name)(path, mode); \
	}
ACCESS(access)
ACCESS(euidaccess)
ACCESS(eaccess)

PUBLIC int faccessat(int dir, const char *path, int mode, int flags)
{
	return is_dev_kvm(path) ? answer_access(mode) : REAL(faccessat)(dir, path, mode, flags);
}

static int answer_stat(struct stat *st)
{
	*st = (struct stat){
		.st_mode = KVM_MODE,
		.st_nlink = 1,
		.st_ino = KVM_MINOR,
		.st_rdev = makedev(KVM_MAJOR, KVM_MINOR),
		.st_blksize = PAGE_SIZE,
	};
	return 0;
}

/* struct stat64 is struct stat on x86-64. */
#define STAT(name, type)                                                          \
	PUBLIC int name(const char *path, type *st)                               \
	{                                                                         \
		return is_dev_kvm(path) ? answer_stat((struct stat *)st)          \
					: REAL(name)(path, st);                   \
	}
STAT(stat, struct stat)
STAT(lstat, struct stat)
STAT(stat64, struct stat64)
STAT(lstat64, struct stat64)

#define FSTATAT(name, type)                                                       \
	PUBLIC int name(int dir, const char *path, type *st, int flags)           \
	{                                                                         \
		return is_dev_kvm(path) ? answer_stat((struct stat *)st)          \
					: REAL(name)(dir, path, st, flags);       \
	}
FSTATAT(fstatat, struct stat)
FSTATAT(fstatat64, struct stat64)

/* The names that programs linked before glibc 2.33 have. */
int __xstat(int ver, const char *path, struct stat *st);
int __lxstat(int ver, const char *path, struct stat *st);
int __xstat64(int ver, const char *path, struct stat64 *st);
int __lxstat64(int ver, const char *path, struct stat64 *st);
int __fxstatat(int ver, int dir, const char *path, struct stat *st, int flags);
int __fxstatat64(int ver, int dir, const char *path, struct stat64 *st, int flags);

#define XSTAT(name, type)                                                         \
	PUBLIC int name(int ver, const char *path, type *st)                      \
	{                                                                         \
		return is_dev_kvm(path) ? answer_stat((struct stat *)st)          \
					: REAL(name)(ver, path, st);              \
	}
XSTAT(__xstat, struct stat)
XSTAT(__lxstat, struct stat)
XSTAT(__xstat64, struct stat64)
XSTAT(__lxstat64, struct stat64)

#define FXSTATAT(name, type)                                                      \
	PUBLIC int name(int ver, int dir, const char *path, type *st, int flags)  \
	{                                                                         \
		return is_dev_kvm(path) ? answer_stat((struct stat *)st)          \
					: REAL(name)(ver, dir, path, st, flags);  \
	}
FXSTATAT(__fxstatat, struct stat)
FXSTATAT(__fxstatat64, struct stat64)

PUBLIC int statx(int dir, const char *path, int flags, unsigned int mask, struct statx *st)
{
	if (!is_dev_kvm(path))
		return REAL(statx)(dir, path, flags, mask, st);
	*st = (struct statx){
		.stx_mask = STATX_BASIC_STATS,
		.stx_blksize = PAGE_SIZE,
		.stx_nlink = 1,
		.stx_mode = KVM_MODE,
		.stx_ino = KVM_MINOR,
		.stx_rdev_major = KVM_MAJOR,
		.stx_rdev_minor = KVM_MINOR,
	};
	return 0;
}
