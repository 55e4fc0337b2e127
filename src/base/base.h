/* SPDX-License-Identifier: MIT */
/*
 * Integers, address types and the few macros that every folder uses.
 * Read this file first; it knows nothing of x86 or KVM.
 */
#ifndef ANYKVM_BASE_H
#define ANYKVM_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

/*
 * Guest addresses are structs in every build, so that mixing up the two
 * spaces is a compile error. gva_t is a linear address (SDM 3A 3.3), after
 * segmentation; gpa_t is guest-physical. Host addresses are plain pointers.
 */
typedef struct {
	u64 v;
} gva_t;
typedef struct {
	u64 v;
} gpa_t;

static inline gva_t gva(u64 v)
{
	return (gva_t){v};
}
static inline gpa_t gpa(u64 v)
{
	return (gpa_t){v};
}

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096ul
#define PAGE_MASK  (~(PAGE_SIZE - 1))

#define BIT(n)		 (1ull << (n))
#define BITS(hi, lo)	 ((~0ull >> (63 - (hi))) & ~(BIT(lo) - 1))
#define ARRAY_SIZE(a)	 (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)	 ((a) < (b) ? (a) : (b))
#define MAX(a, b)	 ((a) > (b) ? (a) : (b))
#define ALIGN_DOWN(x, a) ((x) & ~((u64)(a)-1))
#define ALIGN_UP(x, a)	 (((x) + (u64)(a)-1) & ~((u64)(a)-1))
#define container_of(ptr, type, member) \
	((type *)((char *)(ptr)-offsetof(type, member)))

#define likely(x)   __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define MUSTCHECK   __attribute__((warn_unused_result))
#define NOINLINE    __attribute__((noinline))
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define PRINTF(f, a)  __attribute__((format(printf, f, a)))
#define PUBLIC	    __attribute__((visibility("default")))

/* memcpy, without a call for what most accesses are. */
static inline void bytes_copy(void *to, const void *from, u32 n)
{
	if (likely(n == 4))
		__builtin_memcpy(to, from, 4);
	else if (n == 8)
		__builtin_memcpy(to, from, 8);
	else if (n == 1)
		__builtin_memcpy(to, from, 1);
	else
		__builtin_memcpy(to, from, n);
}

/* Bytes left in the page of address v, v included: 1..4096. */
static inline u32 page_left(u64 v)
{
	return PAGE_SIZE - (v & (PAGE_SIZE - 1));
}

/* Sign-extend the low `bytes` (1, 2, 4 or 8) bytes of v. */
static inline s64 sext(u64 v, unsigned int bytes)
{
	unsigned int s = 64 - 8 * bytes;

	return (s64)(v << s) >> s;
}

/* The low `bytes` (1, 2, 4 or 8) bytes of v, zero-extended. */
static inline u64 zext(u64 v, unsigned int bytes)
{
	unsigned int s = 64 - 8 * bytes;

	return v << s >> s;
}

#endif
