// SPDX-License-Identifier: MIT
/*
 * One instruction as our decoder and as Zydis see it. See decode_sweep.c.
 */
#include <stdio.h>
#include <string.h>

#include "compare.h"

/* ---- what is meant to differ --------------------------------------------------------- */

/*
 * A difference is a failure unless a row of one of the two tables below allows it; each row
 * cites the manual and counts its uses, which are printed. The first table is about length
 * and memory operands, the second about registers, flags and implicit operands.
 */
struct exception {
	enum insn_op op;  /* OP_INVALID: any */
	const char *what; /* the difference, as compare_*() names it */
	bool (*when)(const struct insn *i, const struct oracle *z);
	const char *manual;
	unsigned long used;
};

static bool always(const struct insn *i, const struct oracle *z)
{
	(void)i, (void)z;
	return true;
}

static bool operand_size_2(const struct insn *i, const struct oracle *z)
{
	(void)z;
	return i->osz == 2;
}

static bool sib_disp32(const struct insn *i, const struct oracle *z)
{
	return z->i.raw.sib.base == 5 && z->i.raw.modrm.mod == 0 && i->rm == GPR_ZERO;
}

static bool is_f3(const struct insn *i, const struct oracle *z)
{
	(void)z;
	return INSN_PP(i) == 2;
}

static bool count_is_1(const struct insn *i, const struct oracle *z)
{
	(void)z;
	return i->map == 0 && (i->opcode == 0xd0 || i->opcode == 0xd1);
}

/* Size letter of the explicit memory operand. */
static u8 mem_letter(const struct insn *i)
{
	int k = insn_mem_opnd(i);

	return k < 0 ? SZ_NONE : insn_row(i)->opnd[k].size;
}

static bool no_data(const struct insn *i, const struct oracle *z)
{
	(void)z;
	return mem_letter(i) == SZ_0;
}

static bool xsave_area(const struct insn *i, const struct oracle *z)
{
	(void)z;
	return mem_letter(i) == SZ_xs;
}

/* ---- instruction sets: #UD here, because their CPUID bits are never set ---- */

#define FOREIGN_WHEN(name, ...)                                                          \
	static bool name(const struct insn *i, const struct oracle *z)                   \
	{                                                                                \
		static const ZydisISASet set[][2] = {__VA_ARGS__};                       \
		(void)i;                                                                 \
		return in_sets(z->i.meta.isa_set, set, ARRAY_SIZE(set));                 \
	}
#define ONE(s)	  {ZYDIS_ISA_SET_##s, ZYDIS_ISA_SET_##s}
#define FROM(s, t) {ZYDIS_ISA_SET_##s, ZYDIS_ISA_SET_##t}

static bool in_sets(ZydisISASet s, const ZydisISASet (*set)[2], unsigned int n)
{
	for (unsigned int k = 0; k < n; k++)
		if (s >= set[k][0] && s <= set[k][1])
			return true;
	return false;
}

FOREIGN_WHEN(avx512, FROM(AVX512BW_128, AVX512_VPOPCNTDQ_512)) /* opmask forms under VEX too */
FOREIGN_WHEN(knc, FROM(KNCE, KNC_PF_HINT))
FOREIGN_WHEN(padlock, FROM(PADLOCK_ACE, PADLOCK_RNG))
FOREIGN_WHEN(amx, FROM(AMX_BF16, AMX_TILE))
FOREIGN_WHEN(amd_3dnow, FROM(AMD3DNOW, AMD_INVLPGB))
FOREIGN_WHEN(amd_vector, ONE(FMA4), ONE(SSE4A), ONE(XOP))
FOREIGN_WHEN(amd_general, ONE(LWP), ONE(TBM))
FOREIGN_WHEN(amd_system, ONE(CLZERO), ONE(MCOMMIT), ONE(MONITORX), ONE(RDPRU), ONE(SNP))
FOREIGN_WHEN(keylocker, FROM(KEYLOCKER, KEYLOCKER_WIDE))
FOREIGN_WHEN(sgx, FROM(SGX, SGX_ENCLV))
FOREIGN_WHEN(gfni, FROM(AVX_GFNI, AVX_VNNI), FROM(GFNI, HRESET)) /* VNNI, HRESET */
FOREIGN_WHEN(vex256, ONE(VAES), ONE(VPCLMULQDQ))
FOREIGN_WHEN(tdx, FROM(TDX, UINTR)) /* and TSXLDTRK */
FOREIGN_WHEN(cet, ONE(CET))
FOREIGN_WHEN(intel_stores, ONE(ENQCMD), ONE(MOVDIR))
FOREIGN_WHEN(intel_system, ONE(PCONFIG), ONE(PT), ONE(RTM), ONE(SERIALIZE), ONE(WAITPKG))

#define UD_HERE "#UD here only"
#define IN_SDM2 "\"#UD if its CPUID bit is 0\""

static struct exception memory_exceptions[] = {
	{OP_INVALID, UD_HERE, avx512, "SDM 2A 2.7.11, AVX-512: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, knc, "SDM 2D A.3: Knights Corner's opcodes are reserved", 0},
	{OP_INVALID, UD_HERE, padlock, "SDM 2D A.3: VIA PadLock's opcodes are reserved", 0},
	{OP_INVALID, UD_HERE, amx, "SDM 1 18.3, AMX: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, amd_3dnow, "APM 3 D.2, 3DNow!, INVLPGB: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, amd_vector, "APM 4, 6, FMA4, SSE4A, XOP: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, amd_general, "APM 3, LWP, TBM: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, amd_system, "APM 3 CLZERO, MCOMMIT, MONITORX, RDPRU, PSMASH: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, keylocker, "SDM 2A AESENC128KL: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, sgx, "SDM 3D 36, ENCLU: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, gfni, "SDM 2A GF2P8MULB, HRESET, 2C VPDPBUSD: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, vex256, "SDM 2A AESENC, 2B PCLMULQDQ: VEX.256 needs VAES, VPCLMULQDQ", 0},
	{OP_INVALID, UD_HERE, tdx, "SDM 2B SEAMCALL, 2C UIRET, XSUSLDTRK: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, cet, "SDM 1 17, CET: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, intel_stores, "SDM 2A ENQCMD, 2B MOVDIR64B: " IN_SDM2, 0},
	{OP_INVALID, UD_HERE, intel_system,
		"SDM 2B PCONFIG, PTWRITE, SERIALIZE, 2C XBEGIN, UMONITOR: " IN_SDM2, 0},
	{OP_LEA, "segment", always, "SDM 2A LEA: no segment; ours is computed all the same", 0},
	{OP_MOVSXD, "memory size", operand_size_2, "SDM 2B MOVSXD: 66 63 /r is r16, r/m16", 0},
	{OP_INVALID, "base", sib_disp32,
		"SDM 2A table 2-5: SIB.base 101b, mod 00b is disp32 whatever REX.B is", 0},
	{OP_INVALID, "displacement", sib_disp32, "the same; Zydis 4.0 forgets it under 67", 0},
	{OP_INVALID, "memory access", no_data,
		"SDM 2 LEA, INVLPG, NOP, PREFETCHh, CLFLUSH: an address, no data", 0},
	{OP_INVALID, "memory size", no_data, "the same", 0},
	{OP_INVALID, "memory size", xsave_area, "SDM 1 13.4: the size is XCR0's, not the opcode's", 0},
};
_Static_assert(ARRAY_SIZE(memory_exceptions) <= 30, "goal: none");

static struct exception other_exceptions[] = {
	{OP_XCHG, "number of operands", is_f3, "SDM 2B XCHG: 90 with REX.B, F3 or not; as the host has it", 0},
	{OP_SBB, "flags undefined", always, "SDM 2B SBB: AF is set by the result", 0},
	{OP_INVALID, "flags undefined", count_is_1, "SDM 2B RCL, SAL: OF is defined for a count of 1", 0},
	{OP_BEXTR, "flags undefined", always, "SDM 2A BEXTR: CF and OF are cleared", 0},
	{OP_VPTEST, "flags written", always, "SDM 2B PTEST: OF, AF, PF, SF are cleared", 0},
	{OP_VTESTPS, "flags written", always, "SDM 2C VTESTPD: OF, AF, PF, SF are cleared", 0},
	{OP_VTESTPD, "flags written", always, "the same", 0},
	{OP_PUSHF, "number of operands", always, "SDM 2B PUSHF: the operand is implicit", 0},
	{OP_POPF, "number of operands", always, "SDM 2B POPF: the operand is implicit", 0},
	{OP_NOP, "number of operands", always, "SDM 2B NOP: operands are not used", 0},
	{OP_NOP, "register", always, "the same", 0},
	{OP_NOP, "register size", always, "the same", 0},
	{OP_ENDBR, "number of operands", always, "SDM 2A ENDBR64: a NOP without CET", 0},
	{OP_LAR, "register size", always, "SDM 2A LAR: the selector is a word", 0},
	{OP_LSL, "register size", always, "SDM 2A LSL: the selector is a word", 0},
	{OP_VMOVMSKPS, "register size", always, "SDM 2B MOVMSKPS: upper bits are zero", 0},
	{OP_VMOVMSKPD, "register size", always, "the same", 0},
	{OP_VZEROUPPER, "implicit vector registers", always, "SDM 2C VZEROUPPER: writes all ymm", 0},
	{OP_VZEROALL, "implicit vector registers", always, "the same", 0},
};

static bool allowed_by(struct exception *x, unsigned int n, const struct insn *i,
	const struct oracle *z, const char *what)
{
	for (; n; n--, x++)
		if (!strcmp(x->what, what) && (!x->op || x->op == insn_op(i)) && x->when(i, z)) {
			x->used++;
			return true;
		}
	return false;
}

/* Of an instruction set that is #UD here? */
static bool is_foreign(const struct insn *i, const struct oracle *z)
{
	for (unsigned int k = 0; k < ARRAY_SIZE(memory_exceptions); k++)
		if (!strcmp(memory_exceptions[k].what, UD_HERE) && memory_exceptions[k].when(i, z))
			return true;
	return false;
}

/* What differs, or NULL if nothing does or a table allows it. */
static const char *judge(const struct insn *i, const struct oracle *z, const char *what)
{
	if (!what ||
		allowed_by(memory_exceptions, ARRAY_SIZE(memory_exceptions), i, z, what) ||
		allowed_by(other_exceptions, ARRAY_SIZE(other_exceptions), i, z, what))
		return NULL;
	return what;
}

static void show_table(FILE *f, const char *title, const struct exception *x, unsigned int n)
{
	fprintf(f, "%s: %u exceptions\n", title, n);
	for (; n; n--, x++)
		fprintf(f, "%12lu  %s: %s\n", x->used, x->what, x->manual);
}

void show_exceptions(FILE *f)
{
	show_table(f, "length and memory operand", memory_exceptions, ARRAY_SIZE(memory_exceptions));
	show_table(f, "other operands, flags", other_exceptions, ARRAY_SIZE(other_exceptions));
}

/* ---- memory -------------------------------------------------------------------------- */

static int reg_number(ZydisRegister r)
{
	switch (r) {
	case ZYDIS_REGISTER_NONE:
		return GPR_ZERO;
	case ZYDIS_REGISTER_EIP:
	case ZYDIS_REGISTER_RIP:
		return GPR_RIP;
	default:
		return ZydisRegisterGetId(r);
	}
}

static const ZydisDecodedOperand *mem_operand(const struct oracle *z)
{
	unsigned int k;

	for (k = 0; k < z->i.operand_count_visible; k++)
		if (z->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			z->op[k].visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT)
			return &z->op[k];
	return NULL;
}

static unsigned int acc_of(const ZydisDecodedOperand *op)
{
	return (op->actions & ZYDIS_OPERAND_ACTION_MASK_READ ? ACC_R : 0) |
	       (op->actions & ZYDIS_OPERAND_ACTION_MASK_WRITE ? ACC_W : 0);
}

static const char *compare_segment(const struct insn *i, const ZydisDecodedOperand *m)
{
	return ZydisRegisterGetId(m->mem.segment) == i->seg ? NULL : "segment";
}

static const char *compare_base(const struct insn *i, const ZydisDecodedOperand *m)
{
	if (i->flags & INSN_MOFFS)
		return zext(m->mem.disp.value, i->asz) == (u64)i->imm ? NULL : "moffs";
	return reg_number(m->mem.base) == i->rm ? NULL : "base";
}

static const char *compare_address(const struct insn *i, const ZydisDecodedOperand *m)
{
	if (i->flags & INSN_MOFFS)
		return NULL;
	if (reg_number(m->mem.index) != i->index)
		return "index";
	if (m->mem.scale > 1 && m->mem.scale != 1 << i->scale)
		return "scale";
	return m->mem.disp.value == i->disp ? NULL : "displacement";
}

static const char *compare_access(const struct insn *i, const ZydisDecodedOperand *m)
{
	return acc_of(m) == insn_mem_acc(i) ? NULL : "memory access";
}

static const char *compare_size(const struct insn *i, const ZydisDecodedOperand *m)
{
	return m->size == 8 * insn_mem_size(i) ? NULL : "memory size";
}

static const char *compare_memory(const struct insn *i, const struct oracle *z)
{
	static const char *(*const parts[])(const struct insn *, const ZydisDecodedOperand *) = {
		compare_segment, compare_base, compare_address, compare_access, compare_size};
	const ZydisDecodedOperand *m = mem_operand(z);
	const char *diff = NULL;

	if (!m || insn_mem_opnd(i) < 0)
		return !m == (insn_mem_opnd(i) < 0) ? NULL : "presence of a memory operand";
	for (unsigned int k = 0; k < ARRAY_SIZE(parts) && !diff; k++)
		diff = judge(i, z, parts[k](i, m));
	return diff;
}

/* The memory operand at rSI or rDI (`id`), which Zydis lists as implicit. */
static const ZydisDecodedOperand *string_operand(const struct oracle *z, int id)
{
	for (unsigned int k = 0; k < z->i.operand_count; k++)
		if (z->op[k].type == ZYDIS_OPERAND_TYPE_MEMORY &&
			z->op[k].visibility != ZYDIS_OPERAND_VISIBILITY_EXPLICIT &&
			ZydisRegisterGetId(z->op[k].mem.base) == id)
			return &z->op[k];
	return NULL;
}

static const char *compare_element(const struct insn *i, unsigned int k, const struct oracle *z)
{
	const struct operand *o = &insn_row(i)->opnd[k];
	bool source = o->kind == OPND_X;
	const ZydisDecodedOperand *m = string_operand(z, source ? GPR_RSI : GPR_RDI);

	if (!m)
		return "presence of a memory operand";
	if (ZydisRegisterGetId(m->mem.segment) != (source ? i->seg : SEG_ES))
		return "segment";
	if (acc_of(m) != o->acc)
		return "memory access";
	return m->size == 8 * insn_opnd_size(i, k) ? NULL : "memory size";
}

/* The elements of string instructions. */
static const char *compare_strings(const struct insn *i, const struct oracle *z)
{
	const struct insn_row *row = insn_row(i);
	const char *diff = NULL;

	for (unsigned int k = 0; k < ARRAY_SIZE(row->opnd) && !diff; k++)
		if (row->opnd[k].kind == OPND_X || row->opnd[k].kind == OPND_Y)
			diff = judge(i, z, compare_element(i, k, z));
	return diff;
}

/* ---- other operands ------------------------------------------------------------------ */

/* Register number of a register operand as the row's letter has it; -1: not a register. */
static int reg_of(const struct insn *i, const struct operand *o)
{
	switch (o->kind) {
	case OPND_G:
	case OPND_Z:
	case OPND_S:
	case OPND_C:
	case OPND_D:
	case OPND_V:
	case OPND_P:
		return i->reg;
	case OPND_E:
	case OPND_R:
	case OPND_W:
	case OPND_U:
	case OPND_Q:
	case OPND_N:
		return i->flags & INSN_MEM ? -1 : i->rm;
	case OPND_B:
	case OPND_H:
		return i->vvvv;
	case OPND_L:
		return i->imm2 >> 4;
	case OPND_FIX:
	case OPND_FIXSEG:
		return o->fixed;
	default:
		return -1;
	}
}

static bool is_gpr(ZydisRegister r)
{
	ZydisRegisterClass c = ZydisRegisterGetClass(r);

	return c >= ZYDIS_REGCLASS_GPR8 && c <= ZYDIS_REGCLASS_GPR64;
}

/*
 * Our access may add R to what Zydis has: a destination that keeps part of its old value
 * (head comment of insns.def).
 */
static const char *compare_reg(
	const struct insn *i, unsigned int k, const ZydisDecodedOperand *z)
{
	const struct operand *o = &insn_row(i)->opnd[k];
	int r = reg_of(i, o);

	if (o->kind == OPND_F)
		return NULL;
	if (r < 0)
		return "kind of operand";
	/* Zydis numbers AH..BH 4-7, SPL..DIL 8-11, R8B.. 12- */
	if (ZydisRegisterGetClass(z->reg.value) == ZYDIS_REGCLASS_GPR8 && r >= 4 &&
		o->kind != OPND_FIX && (i->flags & INSN_REX))
		r += 4;
	if (ZydisRegisterGetId(z->reg.value) != r)
		return "register";
	if (is_gpr(z->reg.value) && insn_opnd_size(i, k) * 8 != z->size)
		return "register size";
	return (acc_of(z) & ~o->acc) || ((o->acc & ~acc_of(z)) & ACC_W) ? "register access" : NULL;
}

static const char *compare_imm(
	const struct insn *i, unsigned int k, const ZydisDecodedOperand *z)
{
	const struct operand *o = &insn_row(i)->opnd[k];
	u64 ours = i->imm;

	if (o->kind == OPND_ONE)
		return z->imm.value.u == 1 ? NULL : "immediate";
	if (o->kind != OPND_I && o->kind != OPND_J)
		return "kind of operand";
	if (insn_op(i) == OP_ENTER && k)
		ours = i->imm2;
	if (o->kind == OPND_J || o->fixed == OPND_I_SIGNED || o->size == SZ_z)
		return z->imm.value.u == ours ? NULL : "immediate";
	return zext(z->imm.value.u ^ ours, insn_opnd_size(i, k)) ? "immediate" : NULL;
}

static const char *compare_operand(
	const struct insn *i, unsigned int k, const ZydisDecodedOperand *z)
{
	switch (z->type) {
	case ZYDIS_OPERAND_TYPE_REGISTER:
		return compare_reg(i, k, z);
	case ZYDIS_OPERAND_TYPE_IMMEDIATE:
		return compare_imm(i, k, z);
	case ZYDIS_OPERAND_TYPE_POINTER:
		return z->ptr.segment != i->imm2 || z->ptr.offset != i->imm ? "far pointer" : NULL;
	default:
		return NULL;
	}
}

static const char *compare_operands(const struct insn *i, const struct oracle *z)
{
	const struct insn_row *row = insn_row(i);
	const char *diff = NULL;
	unsigned int k;

	if (row->rules & (RULE_X87 | RULE_REP))
		return NULL; /* Zydis lists ST0 and rSI, rDI otherwise */
	for (k = 0; k < z->i.operand_count_visible && !diff; k++) {
		if (k >= ARRAY_SIZE(row->opnd) || !row->opnd[k].kind)
			return "number of operands";
		diff = judge(i, z, compare_operand(i, k, &z->op[k]));
	}
	if (!diff && k < ARRAY_SIZE(row->opnd) && row->opnd[k].kind)
		return "number of operands";
	return diff;
}

/* ---- flags and implicit registers of native rows ------------------------------------- */

static const char *compare_flags(const struct insn *i, const struct oracle *z)
{
	const struct insn_row *row = insn_row(i);
	const ZydisAccessedFlags *f = z->i.cpu_flags;
	u32 written = f->modified | f->set_0 | f->set_1 | f->undefined;

	if (row->cls != CLASS_N)
		return NULL;
	if ((written & FL_ALL) != row->fl_written)
		return "flags written";
	if (f->undefined & FL_ALL & ~row->fl_undef)
		return "flags undefined";
	/* ours may read more: one row for 16 conditions, and counts that may be 0 */
	return f->tested & FL_ALL & ~row->fl_read ? "flags read" : NULL;
}

struct implicit {
	u16 gpr[4], xmm[4]; /* by ACC_R, ACC_W */
};

static void add_implicit(struct implicit *m, const ZydisDecodedOperand *op)
{
	int id = ZydisRegisterGetId(op->reg.value);
	unsigned int a = acc_of(op);

	if (ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_XMM) {
		m->xmm[ACC_R] |= a & ACC_R ? BIT(id) : 0;
		m->xmm[ACC_W] |= a & ACC_W ? BIT(id) : 0;
	} else if (is_gpr(op->reg.value)) {
		if (ZydisRegisterGetClass(op->reg.value) == ZYDIS_REGCLASS_GPR8)
			id &= 3; /* AH */
		m->gpr[ACC_R] |= a & ACC_R ? BIT(id) : 0;
		m->gpr[ACC_W] |= a & ACC_W ? BIT(id) : 0;
	}
}

static const char *compare_implicit(const struct insn *i, const struct oracle *z)
{
	const struct insn_row *row = insn_row(i);
	struct implicit m = {0};
	unsigned int k;

	if (row->cls != CLASS_N)
		return NULL;
	for (k = z->i.operand_count_visible; k < z->i.operand_count; k++)
		if (z->op[k].type == ZYDIS_OPERAND_TYPE_REGISTER)
			add_implicit(&m, &z->op[k]);
	/* The rows count the CL of a shift here too; LAHF keeps AL. */
	if (m.gpr[ACC_R] & ~row->gpr_read || m.gpr[ACC_W] != row->gpr_written)
		return "implicit registers";
	if (m.xmm[ACC_R] != row->xmm_read || m.xmm[ACC_W] != row->xmm_written)
		return "implicit vector registers";
	return NULL;
}

/* ---- all of it ----------------------------------------------------------------------- */

static const char *compare_all(const struct insn *i, const struct oracle *z)
{
	static const char *(*const parts[])(const struct insn *, const struct oracle *) = {
		compare_memory, compare_strings, compare_operands, compare_flags, compare_implicit};
	const char *diff = NULL;

	if (i->len != z->i.length)
		return "length";
	if (i->map != (unsigned int)z->i.opcode_map && insn_row(i)->cls != CLASS_UD)
		return "opcode map";
	if (insn_row(i)->cls == CLASS_UD)
		return NULL; /* UD0, UD1, EVEX: no operand is looked at before #UD */
	for (unsigned int k = 0; k < ARRAY_SIZE(parts) && !diff; k++)
		diff = judge(i, z, parts[k](i, z));
	return diff;
}

enum verdict compare(
	enum insn_mode mode, struct oracle *z, struct ours *o, const u8 *p, unsigned int n)
{
	bool valid;

	o->why = NULL;
	o->result = insn_decode(&o->i, mode, p, n);
	z->status = ZydisDecoderDecodeFull(&z->dec, p, MIN(n, 15u), &z->i, z->op);
	valid = ZYAN_SUCCESS(z->status);
	if (o->result != DECODE_OK) {
		if (!valid)
			return BOTH_UD;
		o->why = judge(&o->i, z, UD_HERE);
		return o->why ? DIFFERENT : UD_ALLOWED;
	}
	if (!valid) {
		if (insn_row(&o->i)->cls == CLASS_UD)
			return BOTH_UD;
		o->why = "#UD in Zydis only";
		return DIFFERENT;
	}
	if (is_foreign(&o->i, z) && insn_row(&o->i)->cls != CLASS_UD) {
		o->why = "not #UD here";
		return DIFFERENT;
	}
	o->why = compare_all(&o->i, z);
	return o->why ? DIFFERENT : SAME;
}

void oracle_init(struct oracle *z, enum insn_mode mode)
{
	static const struct {
		ZydisMachineMode mode;
		ZydisStackWidth stack;
	} modes[] = {
		[MODE_16] = {ZYDIS_MACHINE_MODE_LEGACY_16, ZYDIS_STACK_WIDTH_16},
		[MODE_32] = {ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32},
		[MODE_64] = {ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64},
	};

	ZydisDecoderInit(&z->dec, modes[mode].mode, modes[mode].stack);
	/* Without their CPUID bits these are NOPs (SDM 2B "NOP"): Zydis is told so. */
	ZydisDecoderEnableMode(&z->dec, ZYDIS_DECODER_MODE_MPX, ZYAN_FALSE);
	ZydisDecoderEnableMode(&z->dec, ZYDIS_DECODER_MODE_CET, ZYAN_FALSE);
	ZydisDecoderEnableMode(&z->dec, ZYDIS_DECODER_MODE_CLDEMOTE, ZYAN_FALSE);
}

void show(FILE *f, enum insn_mode mode, const struct oracle *z, const struct ours *o, const u8 *p)
{
	static const char *const modes[] = {"16", "32", "64"};
	char ours[96] = "#UD", theirs[96] = "#UD";
	ZydisFormatter fmt;
	unsigned int k;

	if (o->result == DECODE_OK)
		insn_text(&o->i, ours, sizeof(ours));
	ZydisFormatterInit(&fmt, ZYDIS_FORMATTER_STYLE_INTEL);
	if (ZYAN_SUCCESS(z->status))
		ZydisFormatterFormatInstruction(&fmt, &z->i, z->op, z->i.operand_count_visible,
			theirs, sizeof(theirs), 0, NULL);
	fprintf(f, "%s: %s bit: ", o->why, modes[mode]);
	for (k = 0; k < 15; k++)
		fprintf(f, "%02x", p[k]);
	fprintf(f, ": %u \"%s\", Zydis %u \"%s\" (status %x)\n", o->i.len, ours,
		ZYAN_SUCCESS(z->status) ? z->i.length : 0, theirs, z->status);
}
