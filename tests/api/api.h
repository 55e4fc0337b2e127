/* SPDX-License-Identifier: MIT */
/* Test programs of the public API: the same calls against the library or a host's device. */
#ifndef TESTS_API_H
#define TESTS_API_H

#include <anykvm.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

struct api {
	int (*open)(const char *path, int flags);
	int (*ioctl)(int fd, unsigned long req, ...);
	void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t off);
	int (*munmap)(void *addr, size_t len);
	int (*close)(int fd);
};

static int device_open(const char *path, int flags)
{
	return open(path, flags);
}

static const struct api library = {anykvm_open, anykvm_ioctl, anykvm_mmap, anykvm_munmap,
				   anykvm_close};
static const struct api device = {device_open, ioctl, mmap, munmap, close};
static const struct api *api = &library;

static unsigned int passed, failed;

/* `--device`: the host's /dev/kvm. */
static inline void api_args(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--device"))
		api = &device;
}

static inline bool api_is_device(void)
{
	return api == &device;
}

static inline void check(bool ok, const char *what, long long got, long long want)
{
	if (ok) {
		passed++;
		return;
	}
	failed++;
	printf("FAIL %s: got %lld (%#llx), want %lld (%#llx)\n", what, got, got, want, want);
}

#define CHECK_EQ(what, got, want)                      \
	do {                                           \
		long long g_ = (got), w_ = (want);     \
		check(g_ == w_, what, g_, w_);         \
	} while (0)

/* A call that must succeed with r >= 0, for what follows depends on it. */
static inline int must(int r, const char *what)
{
	if (r >= 0)
		return r;
	printf("FAIL %s: %s\n", what, strerror(errno));
	printf("%u passed, %u failed\n", passed, failed + 1);
	exit(1);
}

static inline int api_done(void)
{
	printf("%u passed, %u failed\n", passed, failed);
	return failed ? 1 : 0;
}

#endif
