// SPDX-License-Identifier: MIT
/*
 * C13 and what goes with it: the match rule of SEED 7.3 with faults as no processor of ours
 * makes them: the emulator is given a fault by hand. On the world of harness.h.
 */
#include "harness.h"

GUEST(load, "mov " M "+0x10, %eax; hlt")
GUEST(next_page, "mov " M "+0x1010, %eax; hlt")

/* To the next second-stage fault. (The self-checking build leaves at every instruction.) */
static void run_to_fault(struct seed *s)
{
	for (unsigned int k = 0; k < 10; k++) {
		cpu_run(&s->g->cpu, &s->g->exit);
		if (s->g->exit.reason == LEAVE_NPF)
			return;
	}
	fail_msg("no fault");
}

/* To the first one of the program. */
static struct seed *to_fault(enum emul_gpa_mode mode, const u8 *code, size_t n)
{
	struct seed *s = seed_create(mode, false);

	seed_load(s, code, n, 64);
	run_to_fault(s);
	return s;
}

/* Emulate with this fault; the data must come from the right address. */
static void emulate(struct seed *s, const struct fault *f, u64 want_gpa)
{
	enum emul_result r = emul_run(&s->em, &s->g->cpu, &s->g->exit.insn, f);
	const struct fragment *fragment = emul_fragment(&s->em);

	assert_int_equal(r, EMUL_EXIT);
	assert_int_equal(fragment->gpa.v, want_gpa);
	assert_int_equal(fragment->len, 4);
	assert_int_equal(seed_complete(s), EMUL_DONE);
}

/*
 * A fetch (or a page-table page) faulted at an address with the operand's page offset; even
 * with the operand's own linear page the fault proves nothing about data (rule 3).
 */
static void refused(enum fault_stage stage)
{
	for (enum emul_gpa_mode mode = EMUL_GPA_OFF; mode <= EMUL_GPA_VERIFY; mode++) {
		struct seed *s = to_fault(mode, load_code, load_end - load_code);
		struct fault f = s->g->exit.fault;
		u64 misses = s->em.stats.gpa_miss_stage;

		f.stage = stage;
		f.gpa = gpa(G_N + 0x10);
		f.x[0].gpa = gpa(G_N + 0x10);
		emulate(s, &f, G_M + 0x10);
		assert_int_equal(seed_data_walks(s), 1); /* off and on */
		if (mode != EMUL_GPA_OFF)
			assert_int_equal(s->em.stats.gpa_miss_stage, misses + 1);
		seed_destroy(s);
	}
}

static void C13(void **state)
{
	(void)state;
	refused(FAULT_FETCH);
	refused(FAULT_TABLE);
}

/* One proved translation is changed; it must be refused for that reason, and a walk gives the address. */
static void off_rule(const u8 *code, size_t n, void (*spoil)(struct xlat *x), u64 want,
	u64 *(*miss)(struct emul_stats *))
{
	struct seed *s = to_fault(EMUL_GPA_ON, code, n);
	struct fault f = s->g->exit.fault;

	assert_int_equal(f.n, 1);
	spoil(&f.x[0]);
	emulate(s, &f, want);
	assert_int_equal(*miss(&s->em.stats), 1);
	assert_int_equal(s->em.stats.gpa_hit, 0);
	assert_int_equal(seed_data_walks(s), 1);
	seed_destroy(s);
}

static void spoil_page(struct xlat *x)
{
	x->gva.v -= PAGE_SIZE; /* same offset in another page */
	x->gpa = gpa(G_N + 0x10);
}

static void spoil_rights(struct xlat *x)
{
	x->rights = MMU_W;
	x->gpa = gpa(G_N + 0x10);
}

static void spoil_attr(struct xlat *x)
{
	x->attr = MMU_USER;
	x->gpa = gpa(G_N + 0x10);
}

static void spoil_epoch(struct xlat *x)
{
	x->epoch--;
	x->gpa = gpa(G_N + 0x10);
}

static u64 *miss_page(struct emul_stats *s) { return &s->gpa_miss_page; }
static u64 *miss_rights(struct emul_stats *s) { return &s->gpa_miss_rights; }
static u64 *miss_epoch(struct emul_stats *s) { return &s->gpa_miss_epoch; }

static void rule_page(void **state)
{
	(void)state;
	off_rule(next_page_code, next_page_end - next_page_code, spoil_page, G_M1 + 0x10, miss_page);
}

static void rule_rights(void **state)
{
	(void)state;
	off_rule(load_code, load_end - load_code, spoil_rights, G_M + 0x10, miss_rights);
	off_rule(load_code, load_end - load_code, spoil_attr, G_M + 0x10, miss_rights);
}

static void rule_epoch(void **state)
{
	(void)state;
	off_rule(load_code, load_end - load_code, spoil_epoch, G_M + 0x10, miss_epoch);
}

/*
 * INVLPG between the fault and its use: what was proved before is worth nothing. (In a VM the
 * fault is used at once; here the test stands between.)
 */
GUEST(invlpg, "mov " M "+0x10, %eax; invlpg " M "; mov " M "+0x20, %eax; hlt")

static void rule_invlpg(void **state)
{
	struct seed *s = to_fault(EMUL_GPA_ON, invlpg_code, invlpg_end - invlpg_code);
	struct fault old = s->g->exit.fault;

	(void)state;
	emulate(s, &old, G_M + 0x10);
	*seed_pte(s, 0x40001000) = G_N | 3;
	run_to_fault(s); /* INVLPG, then the next load's */
	emulate(s, &old, G_N + 0x20);
	assert_int_equal(s->em.stats.gpa_miss_epoch, 1);
	seed_destroy(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(C13),
		cmocka_unit_test(rule_page),
		cmocka_unit_test(rule_rights),
		cmocka_unit_test(rule_epoch),
		cmocka_unit_test(rule_invlpg),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
