// SPDX-License-Identifier: MIT
/*
 * insns.def and ops.def made into arrays: the rows, their selectors, the lower-case names.
 * Nothing is decided here; the words of the table's columns are defined here.
 */
#include "x86/rows.h"

/*
 * "ADD" to "add" by the compiler: a name is written once, in upper case, because enum
 * insn_op needs it so, and the preprocessor cannot change case.
 */
#define CH(s, i)  ((i) < sizeof(s) ? (s)[(i) < sizeof(s) ? (i) : 0] : 0)
#define LC(s, i)  (CH(s, i) >= 'A' && CH(s, i) <= 'Z' ? CH(s, i) + 32 : CH(s, i))
#define LC4(s, i) LC(s, i), LC(s, i + 1), LC(s, i + 2), LC(s, i + 3)

static const char op_names[NR_OPS][20] = {
#define OP(name) {LC4(#name, 0), LC4(#name, 4), LC4(#name, 8), LC4(#name, 12), LC4(#name, 16)},
#include "x86/ops.def"
#undef OP
};

/* The words of the sel column. */
enum {
	NP = 1, P66 = 2, PF3 = 4, PF2 = 8,
	MEM = SEL_MEM, REG = SEL_REG, X8 = SEL_X8, X16 = SEL_X16, NEXT = SEL_NEXT,
	g0 = 1 << 8, g1 = 2 << 8, g2 = 3 << 8, g3 = 4 << 8,
	g4 = 5 << 8, g5 = 6 << 8, g6 = 7 << 8, g7 = 8 << 8,
	rm0 = 1 << 12, rm1 = 2 << 12, rm2 = 3 << 12, rm3 = 4 << 12,
	rm4 = 5 << 12, rm5 = 6 << 12, rm6 = 7 << 12, rm7 = 8 << 12,
};

/* The rules column. */
enum {
	NO64 = RULE_NO64, ONLY64 = RULE_ONLY64, LOCK = RULE_LOCK, D64 = RULE_D64, F64 = RULE_F64,
	CPL0 = RULE_CPL0, PROT = RULE_PROT, ALIGN = RULE_ALIGN, SSE = RULE_SSE, AVX = RULE_AVX,
	MMX = RULE_MMX, X87 = RULE_X87, MXCSR = RULE_MXCSR, X87NW = RULE_X87NW, REP = RULE_REP,
	VL0 = RULE_VL0, VL1 = RULE_VL1, NOVVVV = RULE_NOVVVV, W0 = RULE_W0, W1 = RULE_W1,
	BRANCH = RULE_BRANCH, ENDTB = RULE_ENDTB, UNDEFDST = RULE_UNDEFDST, AVX2L = RULE_AVX2L,
	PARTS = RULE_PARTS,
};

/* Flags and implicit registers. */
enum { cf = FL_CF, pf = FL_PF, af = FL_AF, zf = FL_ZF, sf = FL_SF, of = FL_OF, all = FL_ALL };
enum {
	ax = BIT(GPR_RAX), cx = BIT(GPR_RCX), dx = BIT(GPR_RDX), bx = BIT(GPR_RBX),
	si = BIT(GPR_RSI), di = BIT(GPR_RDI),
};
#define FL(r, w, u) .fl_read = (r), .fl_written = (w), .fl_undef = (u)
#define GPR(r, w)   .gpr_read = (r), .gpr_written = (w)
#define XMM(r, w)   .xmm_read = (r), .xmm_written = (w)

/* The operands column. */
#define ACC_N  0
#define ACC_RW (ACC_R | ACC_W)
#define OPERAND(kind, sz, acc) {OPND_##kind, SZ_##sz, ACC_##acc, 0}
#define E(sz, acc)    OPERAND(E, sz, acc)
#define G(sz, acc)    OPERAND(G, sz, acc)
#define Z(sz, acc)    OPERAND(Z, sz, acc)
#define M(sz, acc)    OPERAND(M, sz, acc)
#define R(sz, acc)    OPERAND(R, sz, acc)
#define B(sz, acc)    OPERAND(B, sz, acc)
#define S(sz, acc)    OPERAND(S, sz, acc)
#define C(sz, acc)    OPERAND(C, sz, acc)
#define D(sz, acc)    OPERAND(D, sz, acc)
#define O(sz, acc)    OPERAND(O, sz, acc)
#define X(sz, acc)    OPERAND(X, sz, acc)
#define Y(sz, acc)    OPERAND(Y, sz, acc)
#define F(sz, acc)    OPERAND(F, sz, acc)
#define V(sz, acc)    OPERAND(V, sz, acc)
#define W(sz, acc)    OPERAND(W, sz, acc)
#define U(sz, acc)    OPERAND(U, sz, acc)
#define H(sz, acc)    OPERAND(H, sz, acc)
#define L(sz, acc)    OPERAND(L, sz, acc)
#define P(sz, acc)    OPERAND(P, sz, acc)
#define Q(sz, acc)    OPERAND(Q, sz, acc)
#define N(sz, acc)    OPERAND(N, sz, acc)
#define VSIB(sz, acc) OPERAND(VSIB, sz, acc)
#define ST(acc)	      OPERAND(ST, t, acc)
#define I(sz)	      OPERAND(I, sz, R)
#define J(sz)	      OPERAND(J, sz, R)
#define A(sz)	      OPERAND(A, sz, R)
#define IS(sz)	      {OPND_I, SZ_##sz, ACC_R, OPND_I_SIGNED}
#define CONST1	      {OPND_ONE, SZ_b, ACC_R, 0}
#define FIX(sz, reg, acc) {OPND_FIX, SZ_##sz, ACC_##acc, GPR_R##reg}
#define FIXSEG(seg, acc)  {OPND_FIXSEG, SZ_w, ACC_##acc, SEG_##seg}
#define OPERANDS(...)	  {__VA_ARGS__}

const struct insn_row insn_rows[] = {
	[0] = {.name = op_names[OP_INVALID], .op = OP_INVALID, .cls = CLASS_UD},
#define ROW(map_, opcode_, sel_, name_, cls_, cpuf_, rules_, ops_, ...)                         \
	{.name = op_names[OP_##name_], .op = OP_##name_, .cls = CLASS_##cls_,                   \
	 .cpuf = CPUF_##cpuf_, .rules = (rules_), .opnd = OPERANDS ops_, __VA_ARGS__},
#include "x86/insns.def"
#undef ROW
};

const unsigned int nr_insn_rows = ARRAY_SIZE(insn_rows);

const struct row_sel insn_sels[] = {
	[0] = {0, 0, SEL_NEXT},
#define ROW(map_, opcode_, sel_, ...) {MAP_##map_, (opcode_), (sel_)},
#include "x86/insns.def"
#undef ROW
};
