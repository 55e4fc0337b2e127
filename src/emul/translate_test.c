// SPDX-License-Identifier: MIT
/* The match rule of SEED 7.3 as a table: what may serve, and why the rest may not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "emul/emul_impl.h"

#define M 0x7f0000001000ul /* linear page */
#define G 0xfe001000ul	   /* its GPA */

static const struct row {
	const char *what;
	enum fault_stage stage;
	struct xlat x;
	struct xlat_want w;
	enum xlat_match match;
	u64 gpa;
} rows[] = {
#define X(at, r, a, e) {.gva = {M + (at)}, .gpa = {G + (at)}, .epoch = e, .len = 4, .rights = r, .attr = a}
#define W(at, n, nd, a, e) {.gva = {at}, .len = n, .need = nd, .attr = a, .epoch = e}
#define RW (MMU_R | MMU_W)
	{"same bytes", FAULT_FINAL, X(0x10, RW, 0, 7), W(M + 0x10, 4, MMU_R, 0, 7), XLAT_HIT, G + 0x10},
	{"other bytes of the page", FAULT_FINAL, X(0x10, RW, 0, 7), W(M + 0xff8, 8, RW, 0, 7), XLAT_HIT,
		G + 0xff8},
	{"offset 0", FAULT_FINAL, X(0x10, RW, 0, 7), W(M, 1, RW, 0, 7), XLAT_HIT, G},
	{"port access", FAULT_PIO, X(0x10, RW, 0, 7), W(M + 0x20, 4, MMU_R, 0, 7), XLAT_HIT, G + 0x20},
	{"T23: equal offset, other page", FAULT_FINAL, X(0xff8, RW, 0, 7),
		W(M + 0x5ff8, 8, RW, 0, 7), XLAT_PAGE, 0},
	{"next page", FAULT_FINAL, X(0xff8, RW, 0, 7), W(M + 0x1000, 8, RW, 0, 7), XLAT_PAGE, 0},
	{"page 0 is an ordinary page (rule 38)", FAULT_FINAL, X(0, RW, 0, 7), W(0, 1, MMU_R, 0, 7),
		XLAT_PAGE, 0},
	{"equal low 32 bits", FAULT_FINAL, X(0, RW, 0, 7), W((u32)M, 1, MMU_R, 0, 7), XLAT_PAGE, 0},
	{"crosses the page's end", FAULT_FINAL, X(0xffc, RW, 0, 7), W(M + 0xffd, 4, MMU_R, 0, 7),
		XLAT_PAGE, 0},
	{"T05 rule 8: write needs a proved write", FAULT_FINAL, X(0, MMU_R, 0, 7),
		W(M, 4, RW, 0, 7), XLAT_RIGHTS, 0},
	{"C07: user access by a kernel proof", FAULT_FINAL, X(0, RW, MMU_KERNEL, 7),
		W(M, 4, MMU_R, MMU_USER, 7), XLAT_RIGHTS, 0},
	{"C08: AC was set when it was proved", FAULT_FINAL, X(0, RW, MMU_KERNEL_AC, 7),
		W(M, 4, MMU_R, MMU_KERNEL, 7), XLAT_RIGHTS, 0},
	{"C44: other address space", FAULT_FINAL, X(0, RW, 0, 7), W(M, 4, MMU_R, 1 << 4, 7),
		XLAT_RIGHTS, 0},
	{"epoch went on", FAULT_FINAL, X(0, RW, 0, 7), W(M, 4, MMU_R, 0, 8), XLAT_EPOCH, 0},
	{"C13: fault of a fetch, equal offset", FAULT_FETCH, X(0x10, RW, 0, 7),
		W(M + 0x10, 4, MMU_R, 0, 7), XLAT_STAGE, 0},
	{"rule 3: fault of a page table", FAULT_TABLE, X(0x10, RW, 0, 7),
		W(M + 0x10, 4, MMU_R, 0, 7), XLAT_STAGE, 0},
	{"no fault at all", FAULT_NONE, X(0x10, RW, 0, 7), W(M + 0x10, 4, MMU_R, 0, 7), XLAT_STAGE, 0},
};

static void test_match_rule(void **state)
{
	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(rows); k++) {
		const struct row *r = &rows[k];
		gpa_t g = {0};

		if (xlat_match(&r->x, r->stage, &r->w, &g) != r->match)
			fail_msg("%s", r->what);
		if (r->match == XLAT_HIT && g.v != r->gpa)
			fail_msg("%s: gpa %#lx", r->what, (unsigned long)g.v);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_match_rule),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
