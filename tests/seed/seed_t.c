// SPDX-License-Identifier: MIT
/*
 * T01-T52 (SEED 7.2). Each program runs in the modes off, on and verify and in the world
 * where the devices are RAM; it passes if user space saw the expected exits, the walks are
 * the table's, and all four worlds end in the same state, A/D bits of all tables included (C14).
 */
#include "harness.h"

#include <stdio.h>

#define CASE(name, bits, text, off, events, ...)                                   \
	asm(".pushsection .rodata\n.code" #bits "\n" #name "_code: 77:\n" text "\nhlt\n" \
	    #name "_end:\n.code64\n.popsection");                                   \
	extern const u8 name##_code[], name##_end[];
#include "cases.def"
#undef CASE

#define MAX_POKES 8

static const struct seed_case {
	const char *name;
	unsigned int bits;
	const u8 *code, *end;
	u64 off;
	const char *events;
	struct {
		u64 at, value;
	} poke[MAX_POKES];
} cases[] = {
#define CASE(name, bits, text, off, events, ...) \
	{#name, bits, name##_code, name##_end, off, events, {__VA_ARGS__}},
#include "cases.def"
#undef CASE
};

/* "W8*3 R1" -> "W8 W8 W8 R1" */
static void expand(const char *in, char *out)
{
	char word[16];
	int n, k, used;

	for (*out = 0; sscanf(in, "%15[^* ]%n", word, &used) == 1; in += used + (in[used] == ' ')) {
		in += used;
		used = 0;
		n = 1;
		if (*in == '*')
			(void)!sscanf(in, "*%d%n", &n, &used);
		for (k = 0; k < n; k++)
			sprintf(out + strlen(out), "%s%s", *out ? " " : "", word);
	}
}

static struct seed *run_case(const struct seed_case *c, enum emul_gpa_mode mode, bool ram_world)
{
	struct seed *s = seed_create(mode, ram_world);

	for (unsigned int k = 0; k < MAX_POKES; k++)
		if (c->poke[k].at)
			seed_poke(s, c->poke[k].at, c->poke[k].value);
	seed_load(s, c->code, c->end - c->code, c->bits);
	seed_run(s);
	return s;
}

static void same_state(const struct seed_case *c, const char *mode, struct seed *a, struct seed *b)
{
	if (memcmp(a->g->cpu.regs, b->g->cpu.regs, GPR_ZERO * sizeof(u64)))
		fail_msg("%s %s: registers differ", c->name, mode);
	if (a->g->cpu.rip != b->g->cpu.rip)
		fail_msg("%s %s: rip %#llx, not %#llx", c->name, mode,
			(unsigned long long)a->g->cpu.rip, (unsigned long long)b->g->cpu.rip);
	if (cpu_eflags(&a->g->cpu) != cpu_eflags(&b->g->cpu))
		fail_msg("%s %s: flags %#llx, not %#llx", c->name, mode,
			(unsigned long long)cpu_eflags(&a->g->cpu),
			(unsigned long long)cpu_eflags(&b->g->cpu));
	if (memcmp(&a->g->cpu.fpu, &b->g->cpu.fpu, sizeof(a->g->cpu.fpu)))
		fail_msg("%s %s: vector state differs", c->name, mode);
	for (unsigned int k = 0; k < RAM_SIZE; k++)
		if (a->g->ram[k] != b->g->ram[k])
			fail_msg("%s %s: RAM differs at %#x: %02x, not %02x", c->name, mode, k,
				a->g->ram[k], b->g->ram[k]);
	for (unsigned int k = 0; k < DEV_SIZE; k++)
		if (a->dev[k] != b->dev[k])
			fail_msg("%s %s: device differs at %#x: %02x, not %02x", c->name, mode, k,
				a->dev[k], b->dev[k]);
}

static void check(const struct seed_case *c, const char *mode, struct seed *s, const char *want,
	u64 walks)
{
	if (strcmp(s->events, want))
		fail_msg("%s %s: events \"%s\", not \"%s\"%s", c->name, mode, s->events, want,
			s->failed ? s->g->cpu.fail : "");
	if (s->g->cpu.mmu.walks[WALK_DATA] != walks)
		fail_msg("%s %s: %llu walks, not %llu", c->name, mode,
			(unsigned long long)s->g->cpu.mmu.walks[WALK_DATA],
			(unsigned long long)walks);
	if (walks == 0 && s->g->cpu.mmu.walks[WALK_PROVE])
		fail_msg("%s %s: %llu proving walks", c->name, mode,
			(unsigned long long)s->g->cpu.mmu.walks[WALK_PROVE]);
	if (s->stopped_at < CODE || s->stopped_at > CODE + 0x200)
		fail_msg("%s %s: ended at %#llx", c->name, mode, (unsigned long long)s->stopped_at);
	for (unsigned int k = 0; k < PAGE_SIZE; k++)
		if (s->rom[k] != seed_pattern(G_ROM - DEV_GPA + k))
			fail_msg("%s %s: read-only memory was written", c->name, mode);
}

static void test_case(void **state)
{
	const struct seed_case *c = *state;
	char want[4096];
	struct seed *ram = run_case(c, EMUL_GPA_ON, true);
	struct seed *off = run_case(c, EMUL_GPA_OFF, false);
	struct seed *on = run_case(c, EMUL_GPA_ON, false);
	struct seed *verify = run_case(c, EMUL_GPA_VERIFY, false);

	expand(c->events, want);
	check(c, "off", off, want, c->off);
	check(c, "on", on, want, 0);
	check(c, "verify", verify, want, 0);
	same_state(c, "off", off, ram);
	same_state(c, "on", on, ram);
	same_state(c, "verify", verify, ram);
	if (on->g->cpu.mmu.walks[WALK_CPU] > off->g->cpu.mmu.walks[WALK_CPU])
		fail_msg("%s: the walk only moved to the processor", c->name);
	if (off->g->cpu.mmu.walks[WALK_DATA] && !verify->g->cpu.mmu.walks[WALK_VERIFY])
		fail_msg("%s: nothing was verified", c->name);
	if (getenv("V"))
		printf("%s %llu %llu %llu %llu %s\n", c->name,
			(unsigned long long)off->g->cpu.mmu.walks[WALK_DATA],
			(unsigned long long)on->g->cpu.mmu.walks[WALK_DATA],
			(unsigned long long)off->g->cpu.mmu.walks[WALK_CPU],
			(unsigned long long)on->g->cpu.mmu.walks[WALK_CPU], c->events);
	seed_destroy(ram);
	seed_destroy(off);
	seed_destroy(on);
	seed_destroy(verify);
}

int main(int argc, char **argv)
{
	static struct CMUnitTest tests[ARRAY_SIZE(cases)];

	for (unsigned int k = 0; k < ARRAY_SIZE(cases); k++)
		tests[k] = (struct CMUnitTest){
			.name = cases[k].name,
			.test_func = test_case,
			.initial_state = (void *)&cases[k],
		};
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
