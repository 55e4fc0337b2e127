// SPDX-License-Identifier: MIT
/*
 * Self-check of insns.def: every row must be possible, and none may hide another. A mistake
 * in a row is a wrong instruction in three engines, so impossible ones are caught here.
 */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "x86/rows.h"

static bool has_kind(const struct insn_row *r, unsigned int kind)
{
	unsigned int k;

	for (k = 0; k < ARRAY_SIZE(r->opnd); k++)
		if (r->opnd[k].kind == kind)
			return true;
	return false;
}

#define ROWS(r, s, i)                                                                           \
	for (i = 1; i < nr_insn_rows && (r = &insn_rows[i], s = &insn_sels[i], true); i++)
#define CHECK(cond)                                                                             \
	do {                                                                                    \
		if (!(cond))                                                                    \
			fail_msg("row %u, %s, map %u opcode %02x: %s", i, r->name, s->map,      \
				s->opcode, #cond);                                              \
	} while (0)

static void no_row_hides_another(void **state)
{
	(void)state;
	assert_int_equal(insn_rows_clash, 0);
}

static void every_op_has_a_row(void **state)
{
	u8 seen[NR_OPS] = {[OP_INVALID] = 1};
	unsigned int i, op;

	(void)state;
	for (i = 1; i < nr_insn_rows; i++)
		seen[insn_rows[i].op] = 1;
	for (op = 0; op < NR_OPS; op++)
		if (!seen[op])
			fail_msg("op %u has no row", op);
}

static void names_are_lower_case(void **state)
{
	const struct insn_row *r;
	const struct row_sel *s;
	const char *c;
	unsigned int i;

	(void)state;
	assert_string_equal(insn_rows[0].name, "invalid");
	ROWS (r, s, i) {
		CHECK(r->name[0]);
		for (c = r->name; *c; c++)
			CHECK(islower(*c) || isdigit(*c) || *c == '_');
	}
}

static void operands_are_possible(void **state)
{
	const struct insn_row *r;
	const struct row_sel *s;
	unsigned int i, k, mems;

	(void)state;
	ROWS (r, s, i) {
		for (k = 0, mems = 0; k < ARRAY_SIZE(r->opnd); k++) {
			const struct operand *o = &r->opnd[k];

			CHECK(k == 0 || !o->kind || r->opnd[k - 1].kind);
			CHECK(!o->kind == !o->size);
			CHECK(o->acc || !o->kind || o->size == SZ_0);
			CHECK(o->size != SZ_0 || !o->acc);
			CHECK(o->kind != OPND_FIX || o->fixed < 16);
			CHECK(o->kind != OPND_FIXSEG || o->fixed < NR_SEGS);
			switch (o->kind) {
			case OPND_I:
			case OPND_J:
			case OPND_A:
			case OPND_L:
			case OPND_ONE:
				CHECK(o->acc == ACC_R);
				break;
			case OPND_E:
			case OPND_M:
			case OPND_O:
			case OPND_W:
			case OPND_Q:
			case OPND_VSIB:
			case OPND_R:
			case OPND_U:
			case OPND_N:
				mems++;
			}
		}
		CHECK(mems <= 1); /* one ModRM.rm */
	}
}

static void vex_columns_agree(void **state)
{
	const struct insn_row *r;
	const struct row_sel *s;
	unsigned int i;

	(void)state;
	ROWS (r, s, i) {
		bool vex = s->map >= MAP_V0F;
		bool uses_vvvv = has_kind(r, OPND_H) || has_kind(r, OPND_B);

		if (r->op == OP_UD_EVEX)
			continue;
		CHECK(vex || !(r->rules & (RULE_AVX | RULE_VL0 | RULE_VL1 | RULE_NOVVVV |
						  RULE_W0 | RULE_W1 | RULE_AVX2L)));
		CHECK(vex || !uses_vvvv);
		CHECK(!vex || !(r->rules & (RULE_SSE | RULE_MMX | RULE_LOCK | RULE_D64)));
		CHECK(!vex || !!(r->rules & RULE_AVX) != !!(r->rules & RULE_PROT));
		CHECK(!vex || uses_vvvv == !(r->rules & RULE_NOVVVV));
		CHECK(!vex || SEL_PP(s->sel) || (s->sel & SEL_NEXT));
		CHECK((r->rules & (RULE_VL0 | RULE_VL1)) != (RULE_VL0 | RULE_VL1));
		CHECK((r->rules & (RULE_W0 | RULE_W1)) != (RULE_W0 | RULE_W1));
		CHECK(!(r->rules & RULE_AVX2L) || r->cpuf == CPUF_AVX);
	}
}

static void rules_agree(void **state)
{
	const struct insn_row *r;
	const struct row_sel *s;
	unsigned int i;
	bool vec, mmx;

	(void)state;
	ROWS (r, s, i) {
		vec = has_kind(r, OPND_V) || has_kind(r, OPND_W) || has_kind(r, OPND_U) ||
		      has_kind(r, OPND_H) || r->xmm_read || r->xmm_written;
		mmx = has_kind(r, OPND_P) || has_kind(r, OPND_Q) || has_kind(r, OPND_N);
		CHECK(!vec || (r->rules & (RULE_SSE | RULE_AVX)));
		CHECK(!mmx || (r->rules & RULE_MMX));
		CHECK(!has_kind(r, OPND_ST) || (r->rules & RULE_X87));
		CHECK(!(r->rules & RULE_X87NW) || (r->rules & RULE_X87));
		CHECK(!(r->rules & RULE_MXCSR) || (r->rules & (RULE_SSE | RULE_AVX)));
		CHECK((r->rules & (RULE_NO64 | RULE_ONLY64)) != (RULE_NO64 | RULE_ONLY64));
		CHECK((r->rules & (RULE_D64 | RULE_F64)) != (RULE_D64 | RULE_F64));
		CHECK(!(r->rules & RULE_LOCK) || (r->opnd[0].acc & ACC_W));
		CHECK(!(r->rules & (RULE_BRANCH | RULE_REP | RULE_CPL0)) ||
			r->cls != CLASS_N);
		CHECK(!has_kind(r, OPND_J) || (r->rules & RULE_BRANCH));
		CHECK((r->fl_undef & ~r->fl_written) == 0);
		CHECK(((r->fl_read | r->fl_written) & ~FL_ALL) == 0);
	}
}

/* A native instruction sees no guest address, no RSP by itself and no segment register. */
static void native_rows_are_native(void **state)
{
	const struct insn_row *r;
	const struct row_sel *s;
	unsigned int i;

	(void)state;
	ROWS (r, s, i) {
		if (r->cls != CLASS_N)
			continue;
		CHECK(!has_kind(r, OPND_X) && !has_kind(r, OPND_Y) && !has_kind(r, OPND_F));
		CHECK(!has_kind(r, OPND_S) && !has_kind(r, OPND_FIXSEG));
		CHECK(!has_kind(r, OPND_C) && !has_kind(r, OPND_D) && !has_kind(r, OPND_VSIB));
		CHECK(!((r->gpr_read | r->gpr_written) & (BIT(GPR_RSP) | BIT(GPR_RSI) |
								 BIT(GPR_RDI))));
		CHECK(!(r->rules & (RULE_D64 | RULE_F64 | RULE_ENDTB)));
	}
}

/* SDM 2B, 2C "Legacy SSE version: memory operand must be aligned" (SDM 1 table 15-6). */
static void alignment(void **state)
{
	const struct insn_row *r;
	const struct row_sel *s;
	unsigned int i, k;

	(void)state;
	ROWS (r, s, i) {
		bool may_skip = strstr(r->name, "movu") || strstr(r->name, "movdqu") ||
				strstr(r->name, "lddqu") || strstr(r->name, "pcmpestr") ||
				strstr(r->name, "pcmpistr");

		if (!(r->rules & RULE_SSE) || r->cls != CLASS_N || (s->sel & SEL_REG))
			continue;
		for (k = 0; k < ARRAY_SIZE(r->opnd); k++) {
			const struct operand *o = &r->opnd[k];

			if (o->kind != OPND_W && o->kind != OPND_M)
				continue;
			CHECK(((o->size == SZ_x || o->size == SZ_dq) && !may_skip) ==
				!!(r->rules & RULE_ALIGN));
		}
	}
}

/* The decoder steps from these rows to the next one by a bit the maps do not know. */
static void next_rows_follow(void **state)
{
	static const u16 pairs[][2] = {
		{OP_CMPXCHG8B, OP_CMPXCHG16B}, {OP_VZEROUPPER, OP_VZEROALL}, {OP_XCHG, OP_NOP},
		{OP_XCHG, OP_PAUSE},
	};
	const struct insn_row *r;
	const struct row_sel *s;
	unsigned int i, k, n = 0;

	(void)state;
	ROWS (r, s, i) {
		if (!(s->sel & SEL_NEXT) || r->op == OP_UD_EVEX)
			continue;
		n++;
		CHECK(insn_sels[i - 1].opcode == s->opcode);
		for (k = 0; k < ARRAY_SIZE(pairs); k++)
			if (pairs[k][1] == r->op)
				CHECK(insn_rows[i - 1].op == pairs[k][0]);
	}
	assert_int_equal(n, ARRAY_SIZE(pairs));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_row_hides_another),
		cmocka_unit_test(every_op_has_a_row),
		cmocka_unit_test(names_are_lower_case),
		cmocka_unit_test(operands_are_possible),
		cmocka_unit_test(vex_columns_agree),
		cmocka_unit_test(rules_agree),
		cmocka_unit_test(native_rows_are_native),
		cmocka_unit_test(alignment),
		cmocka_unit_test(next_rows_follow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
