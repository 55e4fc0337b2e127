/* SPDX-License-Identifier: MIT */
/*
 * A whole VM for the seed's C cases (SEED 7.2): the public API only, the pages of layout.h, and a
 * user space whose devices remember what was written. A test is a function that runs in the
 * modes off, on and verify; what vm_finish sees at the end of each guest must be the same in all
 * (SEED rule 7), and the walks those of the table.
 */
#ifndef ANYKVM_SEED_VMGUEST_H
#define ANYKVM_SEED_VMGUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../api/machine.h"
#include "layout.h"

#define RAM_SIZE (2ul << 20)
#define CODE	 0x10000ul
#define DATA	 0x100000ul
#define REAL_BASE 0x80000ul /* REAL: the segment of DS, ES and SS; real.def has its pages */
#define STOP	 "out %al, $0xf1\n" /* ends a program, with interrupt chips too */
#define STOP_PORT 0xf1

/* Code as asm text; further labels in it are looked up with AT(label). */
#define PROGRAM(name, bits, text)                                                          \
	extern const uint8_t name##_code[], name##_end[];                                  \
	asm(".pushsection .rodata\n.code" #bits "\n" #name "_code: 77:\n" text "\n" #name   \
	    "_end:\n.code64\n.popsection")
#define AT(name, label) ({ extern const uint8_t label[]; CODE + (label - name##_code); })

enum gpa_mode { OFF, ON, VERIFY, NR_GPA_MODES };

enum cpu_mode {
	LONG64,	   /* 4-level paging */
	LA57,	   /* 5-level */
	LONG_1G,   /* the region of layout.h is one page of 1 GiB, at GPA 0xc0000000 */
	COMPAT,	   /* 32-bit code under LONG64's tables */
	PAE,	   /* 32 bits, PAE, 4K pages */
	PAE_2M,	   /* the region's first 2 MiB are one page, at GPA 0xd0000000 */
	LEGACY,	   /* 32 bits, two levels, 4K pages */
	LEGACY_4M, /* the region's first 4 MiB are one page, at GPA 0xd0000000 */
	REAL,
};

struct vm {
	struct machine m;
	enum gpa_mode gpa_mode;
	enum cpu_mode cpu_mode;
	int stats;
	uint8_t *dev; /* contents of the devices, 1 MiB from DEV_GPA */
	uint8_t *rom;
	char events[8192]; /* since the last vm_expect */
	unsigned int io_seed;
	uint64_t dirty[4];  /* bit n: user space was asked to write page n of dev (vm_device_written) */
	bool ended;
	/* called between each exit that waits for an answer and the answer; NULL: nothing */
	void (*between)(struct vm *vm);
};

/* Reset state: flat segments of that mode, registers with patterns, code at CODE. */
struct vm *vm_open(enum gpa_mode mode, enum cpu_mode cpu_mode, bool chip);
#define vm_load(vm, name) vm_load_code(vm, name##_code, name##_end - name##_code)
void vm_load_code(struct vm *vm, const uint8_t *code, size_t n);
#define vm_start(mode, cpu_mode, name)                           \
	({                                                       \
		struct vm *vm_ = vm_open(mode, cpu_mode, false); \
		vm_load(vm_, name);                              \
		vm_;                                             \
	})
void vm_user(struct vm *vm); /* go on at CPL 3 */

/* One KVM_RUN: its result; what it came back with is noted in events. Nothing is answered. */
int vm_step(struct vm *vm);
void vm_answer(struct vm *vm); /* what user space's devices say to the exit */
void vm_run(struct vm *vm);    /* until the program stops, or something other than I/O */

/* Events since the last call must be these: "R4@d0000010 W4@... IN1x10 #14:3 DEBUG@10007". Repeats: "W8*3",
   "W8@d0000000+3" at rising addresses. */
void vm_expect(struct vm *vm, const char *events);
uint64_t vm_stat(struct vm *vm, const char *name);
/* emul_walk_data must be this in mode off, 0 in the others (and nothing proved by walks of its own). */
void vm_walks(struct vm *vm, uint64_t off);
/* "R4@d0000010" -> "R4": where only the kind matters. */
void vm_drop_addresses(struct vm *vm);
/* Both, and the final state is kept for the comparison of the modes. Closes the VM. */
void vm_finish(struct vm *vm, const char *events, uint64_t off);
void vm_end(struct vm *vm, const char *events); /* the same, whatever has been walked */

uint8_t *vm_at(struct vm *vm, uint64_t linear); /* where the byte's contents are */
uint64_t vm_peek(struct vm *vm, uint64_t linear);
void vm_poke(struct vm *vm, uint64_t linear, uint64_t value); /* 8 bytes */
uint64_t *vm_pte(struct vm *vm, uint64_t linear); /* LONG64, LA57, COMPAT, PAE */
bool vm_device_written(const struct vm *vm, uint64_t gpa);

#define CHECK(vm, what, got, want)                                                       \
	do {                                                                             \
		unsigned long long g_ = (got), w_ = (want);                              \
		if (g_ != w_)                                                            \
			fail_msg("%s: " what " is %#llx, not %#llx", vm_mode_name(vm), g_, w_); \
	} while (0)
const char *vm_mode_name(const struct vm *vm);

struct seed_test {
	const char *name;
	void (*fn)(enum gpa_mode mode);
};
int seed_main(int argc, char **argv, const struct seed_test *tests, unsigned int n);

/* The file's tests: #define TESTS(T) T(C01) T(C02) ... */
#define SEED_ROW(name) {#name, name},
#define SEED_MAIN(TESTS)                                                             \
	int main(int argc, char **argv)                                              \
	{                                                                            \
		static const struct seed_test tests[] = {TESTS(SEED_ROW)};           \
                                                                                     \
		return seed_main(argc, argv, tests, sizeof(tests) / sizeof(tests[0])); \
	}

#endif
