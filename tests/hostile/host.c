// SPDX-License-Identifier: MIT
/*
 * Items 13 and 37: guest memory that the host does not give. Runs as an ordinary client of
 * /dev/kvm under the launcher (--device: without it the host's own KVM, if there is one), whose library
 * catches such faults.
 */
#include "modes.h"

#include <pthread.h>

static void *shared(size_t n)
{
	return mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void add_slot(struct machine *m, uint64_t gpa, uint64_t size, void *hva)
{
	struct kvm_userspace_memory_region r = {1, 0, gpa, size, (uint64_t)hva};

	CHECK_EQ("slot", iop(m->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
}

CODE_TEXT(read_far, 64, "mov 0x800000, %rax; hlt")
CODE_TEXT(write_far, 64, "movq $5, 0x800000; hlt")
CODE_TEXT(add_far, 64, "mov $3, %eax; add %eax, 0x800000; hlt")
CODE_TEXT(lock_far, 64, "lock incq 0x800000; hlt")
CODE_TEXT(rep_far, 64, "cld; mov $0x800000, %edi; mov $600, %ecx; rep stosq; hlt")
CODE_TEXT(down_far, 64, "std; mov $0x800ff8, %edi; mov $500, %ecx; rep stosq; cld; hlt")
CODE_TEXT(copy_far, 64, "cld; mov $0x6000, %esi; mov $0x800000, %edi; mov $600, %ecx; rep movsb; hlt")
/* a length that looks like an image of flags */
CODE_TEXT(flags_far, 64, "cld; mov $0x800000, %edi; mov $512, %ecx; stc; rep stosq; jc 1f; ud2; 1: hlt")
CODE_TEXT(cmpxchg_far, 64, "mov $3, %eax; cmp $4, %eax; lock cmpxchg %ecx, 0x800000; hlt")
CODE_TEXT(fx_far, 64, "fxsave 0x800000; hlt")
CODE_TEXT(push_far, 64, "mov $0x800008, %esp; push %rax; hlt")
CODE_TEXT(jump_far, 64, "mov $0x800000, %eax; jmp *%rax")
CODE_TEXT(table_far, 64, "movq $0x800007, 0x6010; mov 0x400000, %eax; hlt")

static const struct {
	const char *name;
	const uint8_t *code, *end;
	bool lands; /* without a fault it ends at the HLT */
} programs[] = {
#define PROGRAM(name, lands) {#name, name##_code, name##_end, lands}
	PROGRAM(read_far, true), PROGRAM(write_far, true), PROGRAM(add_far, true),
	PROGRAM(lock_far, true), PROGRAM(rep_far, true), PROGRAM(fx_far, true),
	PROGRAM(down_far, true), PROGRAM(copy_far, true), PROGRAM(flags_far, true),
	PROGRAM(cmpxchg_far, true),
	PROGRAM(push_far, true), PROGRAM(jump_far, false), PROGRAM(table_far, false),
};

static void h13_memslot_over_nothing(void)
{
	for (size_t k = 0; k < COUNT(programs); k++) {
		struct machine m;
		int r;

		mode_open(&m, LONG, programs[k].code, programs[k].end - programs[k].code);
		add_slot(&m, 0x800000, 4096, (void *)0x10000); /* nothing is mapped there */
		for (int n = 0; n < 3; n++) {
			r = run_for(&m, 200);
			check(r == -EFAULT, programs[k].name, r, -EFAULT);
		}
		machine_close(&m);
	}
	check_neighbour();
}

/* The page goes away and comes back; the guest goes on where it was. */
static void away_and_back(size_t k, const char *what, void (*take)(uint8_t *), void (*give)(uint8_t *))
{
	uint8_t *page = shared(8192);
	struct machine m;
	int r;

	mode_open(&m, LONG, programs[k].code, programs[k].end - programs[k].code);
	add_slot(&m, 0x800000, 8192, page);
	if (programs[k].lands) { /* once with it, so that everything is cached */
		EXPECT_TRAP(&m, "first", -1);
		mode_start(&m, LONG);
	}
	take(page);
	r = run_for(&m, 200);
	check(r == -EFAULT, what, r, -EFAULT);
	check_neighbour();
	r = run_for(&m, 200);
	check(r == -EFAULT, what, r, -EFAULT);
	give(page);
	if (programs[k].lands)
		EXPECT_TRAP(&m, "it goes on", -1);
	machine_close(&m);
	munmap(page, 8192);
}

static void protect(uint8_t *p)
{
	mprotect(p, 8192, PROT_NONE);
}

static void unprotect(uint8_t *p)
{
	mprotect(p, 8192, PROT_READ | PROT_WRITE);
}

static void unmap(uint8_t *p)
{
	munmap(p, 8192);
}

static void map_again(uint8_t *p)
{
	mmap(p, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
}

static int file;

static void truncate_file(uint8_t *p)
{
	mmap(p, 8192, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
	(void)!ftruncate(file, 0); /* SIGBUS */
}

static void extend_file(uint8_t *p)
{
	(void)p;
	(void)!ftruncate(file, 8192);
}

static void h37_memory_taken_away(void)
{
	file = memfd_create("hostile", 0);
	for (size_t k = 0; k < COUNT(programs); k++) {
		away_and_back(k, programs[k].name, protect, unprotect);
		away_and_back(k, programs[k].name, unmap, map_again);
		(void)!ftruncate(file, 8192);
		away_and_back(k, programs[k].name, truncate_file, extend_file);
	}
	close(file);
}

/*
 * The code of a loop goes away while it runs: it goes on with the flags of its last instruction. If it had
 * those before, it would end.
 */
CODE_TEXT(spin_far, 64, "mov $0x800000, %eax; mov $0x6000, %ebx; mov $7, %ecx; movq $0xa9, (%rbx); jmp *%rax")
CODE_TEXT(spin, 64, "1: mov $5, %eax; cmp %eax, %eax; lock cmpxchg %ecx, (%rbx); jnz 1b; hlt")

/* Data goes away behind an inexact division: MXCSR tells of it still. */
CODE_TEXT(divide_far, 64, "mov %cr4, %rax; or $0x200, %eax; mov %rax, %cr4; movl $0x1f80, 0x6000;"
			  "mov $3, %eax; cvtsi2ss %eax, %xmm1; mov $1, %eax; cvtsi2ss %eax, %xmm2;"
			  "1: ldmxcsr 0x6000; movaps %xmm2, %xmm0; divss %xmm1, %xmm0; mov 0x800000, %eax;"
			  "stmxcsr 0x6008; testb $0x20, 0x6008; jnz 1b; hlt")

static void *protect_soon(void *page)
{
	usleep(50000);
	protect(page);
	return NULL;
}

/* A loop runs on and on, though a page that it needs goes away time and again. */
static void take_from_loop(const uint8_t *code, const uint8_t *end)
{
	uint8_t *page = shared(8192);
	struct machine m;
	pthread_t t;
	int r;

	memcpy(page, spin_code, spin_end - spin_code);
	mode_open(&m, LONG, code, end - code);
	add_slot(&m, 0x800000, 8192, page);
	for (int k = 0; k < 4; k++) {
		pthread_create(&t, NULL, protect_soon, page);
		do
			r = run_for(&m, 500);
		while (r == -EINTR);
		check(r == -EFAULT, "stopped", r, -EFAULT);
		pthread_join(t, NULL);
		unprotect(page);
		r = run_for(&m, 20);
		check(r == -EINTR, "it goes on", r, -EINTR);
	}
	machine_close(&m);
	munmap(page, 8192);
}

static void h37_loop_taken_away(void)
{
	take_from_loop(spin_far_code, spin_far_end);
	take_from_loop(divide_far_code, divide_far_end);
}

static const struct item items[] = {ITEM(h13_memslot_over_nothing), ITEM(h37_memory_taken_away),
	ITEM(h37_loop_taken_away)};

HOSTILE_MAIN(items)
