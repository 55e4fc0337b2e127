// SPDX-License-Identifier: MIT
/*
 * The thunk cache: an open-addressing table from normalised instruction to thunk, and its
 * code. Not here: how a thunk is made (native_build.c), how it is run (native_run.c).
 */
#include "cpu/native.h"

#include "base/log.h"
#include "cpu/native_build.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define CODE_SIZE (1u << 20)
#define NR_SLOTS  (1u << 14)
#define MAX_USED  (NR_SLOTS * 3 / 4)

struct native_slot {
	struct insn key;
	native_fn *fn; /* NULL: free */
};

struct native *native_create(void)
{
	struct native *n = calloc(1, sizeof(*n));
	int r;

	if (!n)
		return NULL;
	n->slots = calloc(NR_SLOTS, sizeof(*n->slots));
	if (!n->slots) {
		free(n);
		return NULL;
	}
	r = code_memory_create(&n->code, CODE_SIZE);
	if (r == -EPERM) {
		log_once("no executable memory: only the interpreter's own cores can run");
	} else if (r) { /* that can get better */
		native_destroy(n);
		errno = -r;
		return NULL;
	}
	return n;
}

void native_destroy(struct native *n)
{
	if (!n)
		return;
	code_memory_destroy(&n->code);
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
	n->code.used = 0;
	n->nr = 0;
	n->nr_flushes++;
	n->generation++;
}

static native_fn *add(struct native *n, const struct insn *key)
{
	struct native_slot *slot;
	unsigned int len;

	if (n->code.used + THUNK_MAX > CODE_SIZE || n->nr >= MAX_USED)
		flush(n);
	slot = find(n, key);
	len = native_build(n->code.rw + n->code.used, key);
	if (!len)
		return NULL;
	slot->key = *key;
	slot->fn = (native_fn *)(uintptr_t)(n->code.rx + n->code.used);
	n->code.used = ALIGN_UP(n->code.used + len, 16);
	n->nr++;
	return slot->fn;
}

native_fn *native_get(struct native *n, const struct insn *i)
{
	struct insn key;
	struct native_slot *slot;

	if (!n || !n->code.rw)
		return NULL;
	native_key(&key, i);
	slot = find(n, &key);
	return slot->fn ? slot->fn : add(n, &key);
}
