// SPDX-License-Identifier: MIT
/* C cases over all T cases, and over the paging modes (SEED 7.2). */
#include "vmguest.h"

#define MAX_POKES 8

struct seed_case {
	const char *name;
	unsigned int bits;
	const uint8_t *code, *end;
	uint64_t off;
	const char *events;
	struct {
		uint64_t at, value;
	} poke[MAX_POKES];
};

/* STOP instead of HLT: with interrupt chips in the library a HLT does not leave KVM_RUN. */
#define CASE(name, bits, text, off, events, ...) PROGRAM(name, bits, text "\n" STOP "hlt");
#include "cases.def"
#undef CASE

static const struct seed_case cases[] = {
#define CASE(name, bits, text, off, events, ...) \
	{#name, bits, name##_code, name##_end, off, events, {__VA_ARGS__}},
#include "cases.def"
#undef CASE
};

#define CASE(name, text, events, ...) PROGRAM(real_##name, 16, text "\n" STOP "hlt");
#include "real.def"
#undef CASE

static const struct seed_case real_cases[] = {
#define CASE(name, text, events, ...) \
	{#name, 16, real_##name##_code, real_##name##_end, 0, events, {__VA_ARGS__}},
#include "real.def"
#undef CASE
};

static bool is(const struct seed_case *c, const char *name)
{
	return !strcmp(c->name, name);
}

/* The APIC and the IOAPIC are met by these two. */
static struct vm *case_open(enum gpa_mode mode, enum cpu_mode m, const struct seed_case *c)
{
	struct vm *vm = vm_open(mode, m, is(c, "T50") || is(c, "T51"));

	vm_load_code(vm, c->code, c->end - c->code);
	return vm;
}

static void case_finish(struct vm *vm, const struct seed_case *c)
{
	vm_drop_addresses(vm);
	if (getenv("V"))
		printf("%s %s: %s\n", c->name, vm_mode_name(vm), vm->events);
	CHECK(vm, "insn_emulation_fail", vm_stat(vm, "insn_emulation_fail"), 0);
	vm_finish(vm, c->events, c->off);
}

static struct vm *run_case(enum gpa_mode mode, const struct seed_case *c)
{
	struct vm *vm = case_open(mode, c->bits == 32 ? COMPAT : LONG64, c);

	for (unsigned int k = 0; k < MAX_POKES && c->poke[k].at; k++)
		vm_poke(vm, c->poke[k].at, c->poke[k].value);
	return vm;
}

/* ---- A and D: D exactly where something was written; all tables are equal in all modes */

static bool was_written(struct vm *vm, const struct seed_case *c, const struct seed_page *p,
	const uint8_t *before)
{
	if (p->gpa < RAM_SIZE)
		return memcmp(before + p->gpa, vm->m.ram + p->gpa, 4096);
	if (p->gpa == G_L)
		return is(c, "T50");
	if (p->gpa == G_IOA)
		return is(c, "T51");
	return vm_device_written(vm, p->gpa);
}

static void check_dirty_bits(struct vm *vm, const struct seed_case *c, const uint8_t *before)
{
	const struct seed_page *p;

	for (p = seed_pages; p < seed_pages + NR_SEED_PAGES; p++) {
		uint64_t pte = *vm_pte(vm, p->linear);
		bool written = was_written(vm, c, p, before);

		if (!!(pte & 0x40) != written)
			fail_msg("%s %s: PTE of %#lx is %#lx, the page was %swritten", c->name,
				vm_mode_name(vm), p->linear, pte, written ? "" : "not ");
		if (written && !(pte & 0x20))
			fail_msg("%s: D without A", c->name);
	}
}

static void C14(enum gpa_mode mode)
{
	uint8_t *before = malloc(RAM_SIZE);

	for (unsigned int k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		struct vm *vm = run_case(mode, &cases[k]);

		memcpy(before, vm->m.ram, RAM_SIZE);
		vm_run(vm);
		check_dirty_bits(vm, &cases[k], before);
		case_finish(vm, &cases[k]);
	}
	free(before);
}

/* ---- verify over the whole list: a walk beside every translation that is taken over */

static void C45(enum gpa_mode mode)
{
	for (unsigned int k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		struct vm *vm = run_case(mode, &cases[k]);

		vm_run(vm);
		if (mode == VERIFY)
			assert_true(vm_stat(vm, "walk_verify") >= (cases[k].off ? 1 : 0));
		if (mode == OFF)
			CHECK(vm, "emul_gpa_hit", vm_stat(vm, "emul_gpa_hit"), 0);
		case_finish(vm, &cases[k]);
	}
}

/* ---- OUTS without batches, as KVM has it: T43 and T44 of the table's note (rule 30) */

static void run_unbatched(enum gpa_mode mode, const char *name, const char *events)
{
	for (unsigned int k = 0; k < sizeof(cases) / sizeof(cases[0]); k++) {
		struct seed_case c = cases[k];
		struct vm *vm;

		if (!is(&c, name))
			continue;
		c.events = events;
		vm = run_case(mode, &c);
		vm_run(vm);
		case_finish(vm, &c);
		return;
	}
	fail_msg("no case %s", name);
}

static void unbatched(enum gpa_mode mode)
{
	setenv("ANYKVM_OUTS_BATCH", "0", 1);
	run_unbatched(mode, "T43", "R1 OUT1x1 R1 OUT1x1 R1 OUT1x1");
	run_unbatched(mode, "T44", "OUT1x1*5");
	unsetenv("ANYKVM_OUTS_BATCH");
}

/* ---- real mode: no walks, the same exits */

static void C15(enum gpa_mode mode)
{
	for (unsigned int k = 0; k < sizeof(real_cases) / sizeof(real_cases[0]); k++) {
		const struct seed_case *c = &real_cases[k];
		struct vm *vm = case_open(mode, REAL, c);

		if (is(c, "T50"))
			set_msr(&vm->m, 0x1b, 0x8e900);
		for (unsigned int n = 0; n < MAX_POKES && c->poke[n].at; n++)
			memcpy(vm->dev + c->poke[n].at, &c->poke[n].value, 8);
		vm_run(vm);
		case_finish(vm, c);
	}
}

/* ---- every kind of page table */

PROGRAM(t02_64, 64, "mov " M "+0x10, %eax\n" STOP);
PROGRAM(t02_32, 32, "mov " M "+0x10, %eax\n" STOP);

static void C16(enum gpa_mode mode)
{
	static const struct {
		enum cpu_mode mode;
		const char *events;
	} kinds[] = {
		{LEGACY, "R4@d0000010"}, {LEGACY_4M, "R4@d0001010"}, {PAE, "R4@d0000010"},
		{PAE_2M, "R4@d0001010"}, {COMPAT, "R4@d0000010"}, {LONG64, "R4@d0000010"},
		{LONG_1G, "R4@c0001010"}, {LA57, "R4@d0000010"},
	};

	for (unsigned int k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		bool wide = kinds[k].mode == LONG64 || kinds[k].mode == LONG_1G || kinds[k].mode == LA57;
		struct vm *vm = vm_open(mode, kinds[k].mode, false);

		if (wide)
			vm_load(vm, t02_64);
		else
			vm_load(vm, t02_32);
		vm_run(vm);
		vm_finish(vm, kinds[k].events, 1);
	}
}

/*
 * 4 bytes at 0xfffffffe: the other half is at linear 0. By the segment's base: an offset that
 * wraps is #GP on the host's processors, with a limit of 4 GiB too.
 */

PROGRAM(c17_store, 32, "mov %eax, 0xffe\n" STOP);
PROGRAM(c17_load, 32, "mov 0xffe, %eax\n" STOP);

/* The last page is N's; the first is RAM, or M's if `device`. */
static struct vm *wrap_open(enum gpa_mode mode, enum cpu_mode m, bool device)
{
	struct vm *vm = vm_open(mode, m, false);
	uint8_t *ram = vm->m.ram;
	struct kvm_sregs s;

	if (m == PAE) {
		*(uint64_t *)(ram + 0x3000 + 3 * 8) = 0xd000 | 1;
		*(uint64_t *)(ram + 0xd000 + 511 * 8) = 0xe000 | 7;
		*(uint64_t *)(ram + 0xe000 + 511 * 8) = G_N | 3;
	} else {
		*(uint32_t *)(ram + 0x4000 + 1023 * 4) = 0xe000 | 7;
		*(uint32_t *)(ram + 0xe000 + 1023 * 4) = G_N | 3;
	}
	if (device)
		*(uint32_t *)(ram + 0xb000) = G_M | 3;
	s = sregs_of(&vm->m);
	s.ds.base = 0xfffff000;
	set_sregs(&vm->m, &s); /* PAE: loads the PDPTEs too */
	return vm;
}

static void wrap(enum gpa_mode mode, enum cpu_mode m)
{
	struct vm *vm = wrap_open(mode, m, false);
	uint32_t eax = regs_of(&vm->m).rax;

	vm_load(vm, c17_store);
	vm_run(vm);
	vm_expect(vm, "W2@d0020ffe");
	CHECK(vm, "RAM at 0", *(uint16_t *)vm->m.ram, eax >> 16);
	vm_finish(vm, "", 2);

	vm = wrap_open(mode, m, true);
	vm_load(vm, c17_store);
	vm_run(vm);
	vm_finish(vm, "W2@d0020ffe W2@d0000000", 2);

	vm = wrap_open(mode, m, true);
	vm_load(vm, c17_load);
	vm_run(vm);
	vm_finish(vm, "R2@d0020ffe R2@d0000000", 2);
}

static void C17(enum gpa_mode mode)
{
	wrap(mode, PAE);
	wrap(mode, LEGACY);
}

#define TESTS(T) T(C14) T(C15) T(C16) T(C17) T(C45) T(unbatched)
SEED_MAIN(TESTS)
