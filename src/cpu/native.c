// SPDX-License-Identifier: MIT
/*
 * The thunk cache: an open-addressing table from normalised instruction to thunk, and its
 * code memory. Not here: how a thunk is made (native_build.c), how it is run (native_run.c).
 */
#include "cpu/native.h"

#include "base/log.h"
#include "cpu/native_build.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define CODE_SIZE (1u << 20)
#define NR_SLOTS  (1u << 14)
#define MAX_USED  (NR_SLOTS * 3 / 4)

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

struct native_slot {
	struct insn key;
	native_fn *fn; /* NULL: free */
};

/* Since Linux 6.3 a memfd must say whether it may be executed; before, the flag is unknown. */
static int code_memfd(void)
{
	int fd = memfd_create("anykvm-native", MFD_CLOEXEC | MFD_EXEC);

	return fd >= 0 ? fd : memfd_create("anykvm-native", MFD_CLOEXEC);
}

/* Two views of one memory: works under PR_SET_MDWE, and no page is ever W and X. */
static bool map_code(struct native *n)
{
	int fd = code_memfd();
	void *rw = MAP_FAILED, *rx = MAP_FAILED;
	int err;

	if (fd >= 0 && !ftruncate(fd, CODE_SIZE)) {
		rw = mmap(NULL, CODE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		rx = mmap(NULL, CODE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0);
	}
	err = errno;
	if (fd >= 0)
		close(fd);
	if (rw != MAP_FAILED && rx != MAP_FAILED) {
		n->rw = rw;
		n->rx = rx;
		return true;
	}
	if (rw != MAP_FAILED)
		munmap(rw, CODE_SIZE);
	if (rx != MAP_FAILED)
		munmap(rx, CODE_SIZE);
	errno = err;
	return false;
}

struct native *native_create(void)
{
	struct native *n = calloc(1, sizeof(*n));

	if (!n)
		return NULL;
	n->slots = calloc(NR_SLOTS, sizeof(*n->slots));
	if (!n->slots) {
		free(n);
		return NULL;
	}
	if (map_code(n))
		return n;
	if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) { /* that can get better */
		int err = errno;

		native_destroy(n);
		errno = err;
		return NULL;
	}
	log_once("no executable memory: only the interpreter's own cores can run");
	return n;
}

void native_destroy(struct native *n)
{
	if (!n)
		return;
	if (n->rw) {
		munmap(n->rw, CODE_SIZE);
		munmap(n->rx, CODE_SIZE);
	}
	free(n->slots);
	free(n);
}

static unsigned int hash(const struct insn *key)
{
	u64 w[4], h;

	_Static_assert(sizeof(w) == sizeof(*key), "whole key");
	memcpy(w, key, sizeof(w));
	h = w[0] * 0x9e3779b97f4a7c15ull ^ w[1];
	h = h * 0xff51afd7ed558ccdull ^ w[2];
	h = h * 0xc4ceb9fe1a85ec53ull ^ w[3];
	h *= 0x9e3779b97f4a7c15ull;
	return h >> 50 & (NR_SLOTS - 1);
}

static struct native_slot *find(struct native *n, const struct insn *key)
{
	unsigned int k = hash(key);

	while (n->slots[k].fn && memcmp(&n->slots[k].key, key, sizeof(*key)))
		k = (k + 1) & (NR_SLOTS - 1);
	return &n->slots[k];
}

static void flush(struct native *n)
{
	memset(n->slots, 0, NR_SLOTS * sizeof(*n->slots));
	n->used = 0;
	n->nr = 0;
	n->nr_flushes++;
	n->generation++;
}

static native_fn *add(struct native *n, const struct insn *key)
{
	struct native_slot *slot;
	unsigned int len;

	if (n->used + THUNK_MAX > CODE_SIZE || n->nr >= MAX_USED)
		flush(n);
	slot = find(n, key);
	len = native_build(n->rw + n->used, key);
	if (!len)
		return NULL;
	slot->key = *key;
	slot->fn = (native_fn *)(uintptr_t)(n->rx + n->used);
	n->used = ALIGN_UP(n->used + len, 16);
	n->nr++;
	return slot->fn;
}

native_fn *native_get(struct native *n, const struct insn *i)
{
	struct insn key;
	struct native_slot *slot;

	if (!n || !n->rw)
		return NULL;
	native_key(&key, i);
	slot = find(n, &key);
	return slot->fn ? slot->fn : add(n, &key);
}
