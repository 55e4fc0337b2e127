/* SPDX-License-Identifier: MIT */
/*
 * A fuzz target is one function, fuzz_one. driver.c calls it with the kept corpus and with
 * inputs that it makes; with -fsanitize=fuzzer (clang) libFuzzer calls it instead.
 * An input is a script: the target takes bytes until there are none.
 */
#ifndef TESTS_FUZZ_H
#define TESTS_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FUZZ_MAX 4096 /* bytes of an input */

void fuzz_one(const uint8_t *data, size_t n);

/* A broken promise: as loud as a sanitizer. */
#define FUZZ_CHECK(cond)                                                       \
	do {                                                                   \
		if (!(cond)) {                                                 \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond); \
			abort();                                               \
		}                                                              \
	} while (0)

#ifdef FUZZ_LIBFUZZER
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	fuzz_one(data, n);
	return 0;
}
#endif

/* What is left of the input; reads beyond the end give zeroes. */
struct bytes {
	const uint8_t *p;
	size_t n;
};

static inline void take(struct bytes *b, void *out, size_t n)
{
	size_t have = n < b->n ? n : b->n;

	memset(out, 0, n);
	if (have)
		memcpy(out, b->p, have);
	b->p += have;
	b->n -= have;
}

#define TAKE(type)                                        \
	static inline type take_##type(struct bytes *b)   \
	{                                                 \
		type v;                                   \
		take(b, &v, sizeof(v));                   \
		return v;                                 \
	}
TAKE(uint8_t)
TAKE(uint16_t)
TAKE(uint32_t)
TAKE(uint64_t)

/* A number that is interesting more often than chance would have it. */
static inline uint64_t take_number(struct bytes *b)
{
	uint8_t k = take_uint8_t(b);

	switch (k & 7) {
	case 0:
		return k >> 3;
	case 1:
		return take_uint8_t(b);
	case 2:
		return take_uint16_t(b);
	case 3:
		return take_uint32_t(b);
	case 4:
		return 1ull << (take_uint8_t(b) & 63);
	case 5:
		return (1ull << (take_uint8_t(b) & 63)) - 1 - (k >> 3 & 1);
	case 6:
		return -(uint64_t)(take_uint8_t(b));
	default:
		return take_uint64_t(b);
	}
}

#endif
