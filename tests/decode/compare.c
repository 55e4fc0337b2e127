// SPDX-License-Identifier: MIT
/*
 * One instruction as our decoder and as Zydis see it. See decode_sweep.c.
 */
#include <stdio.h>

#include "compare.h"

/* ---- what is meant to differ --------------------------------------------------------- */

/* Instruction sets that Zydis knows and we give as #UD: their CPUID bits are never set. */
static const struct {
	ZydisISASet first, last;
} foreign[] = {
	/* AVX-512, mask instructions under VEX included: length only */
	{ZYDIS_ISA_SET_AVX512BW_128, ZYDIS_ISA_SET_AVX512_VPOPCNTDQ_512},
	{ZYDIS_ISA_SET_KNCE, ZYDIS_ISA_SET_KNC_PF_HINT},	 /* Knights Corner */
	{ZYDIS_ISA_SET_PADLOCK_ACE, ZYDIS_ISA_SET_PADLOCK_RNG},	 /* VIA */
	{ZYDIS_ISA_SET_AMX_BF16, ZYDIS_ISA_SET_AMX_TILE},
	{ZYDIS_ISA_SET_AMD3DNOW, ZYDIS_ISA_SET_AMD_INVLPGB},	 /* 3DNow!, INVLPGB */
	{ZYDIS_ISA_SET_KEYLOCKER, ZYDIS_ISA_SET_KEYLOCKER_WIDE},
	{ZYDIS_ISA_SET_SGX, ZYDIS_ISA_SET_SGX_ENCLV},
	{ZYDIS_ISA_SET_AVX_GFNI, ZYDIS_ISA_SET_AVX_VNNI},
	{ZYDIS_ISA_SET_TDX, ZYDIS_ISA_SET_UINTR},		 /* and TSXLDTRK */
	{ZYDIS_ISA_SET_CET, ZYDIS_ISA_SET_CET},
	{ZYDIS_ISA_SET_CLZERO, ZYDIS_ISA_SET_CLZERO},
	{ZYDIS_ISA_SET_ENQCMD, ZYDIS_ISA_SET_ENQCMD},
	{ZYDIS_ISA_SET_FMA4, ZYDIS_ISA_SET_FMA4},
	{ZYDIS_ISA_SET_GFNI, ZYDIS_ISA_SET_HRESET},
	{ZYDIS_ISA_SET_LWP, ZYDIS_ISA_SET_LWP},
	{ZYDIS_ISA_SET_MCOMMIT, ZYDIS_ISA_SET_MCOMMIT},
	{ZYDIS_ISA_SET_MONITORX, ZYDIS_ISA_SET_MONITORX},
	{ZYDIS_ISA_SET_MOVDIR, ZYDIS_ISA_SET_MOVDIR},
	{ZYDIS_ISA_SET_PCONFIG, ZYDIS_ISA_SET_PCONFIG},
	{ZYDIS_ISA_SET_PT, ZYDIS_ISA_SET_PT},
	{ZYDIS_ISA_SET_RDPRU, ZYDIS_ISA_SET_RDPRU},
	{ZYDIS_ISA_SET_RTM, ZYDIS_ISA_SET_RTM},
	{ZYDIS_ISA_SET_SERIALIZE, ZYDIS_ISA_SET_SERIALIZE},
	{ZYDIS_ISA_SET_SNP, ZYDIS_ISA_SET_SNP},
	{ZYDIS_ISA_SET_SSE4A, ZYDIS_ISA_SET_SSE4A},
	{ZYDIS_ISA_SET_TBM, ZYDIS_ISA_SET_TBM},
	/* VEX.256 forms of what we have with VEX.128: CPUID.7:ECX[9], [10] */
	{ZYDIS_ISA_SET_VAES, ZYDIS_ISA_SET_VAES},
	{ZYDIS_ISA_SET_VPCLMULQDQ, ZYDIS_ISA_SET_VPCLMULQDQ},
	{ZYDIS_ISA_SET_WAITPKG, ZYDIS_ISA_SET_WAITPKG},
	{ZYDIS_ISA_SET_XOP, ZYDIS_ISA_SET_XOP},
};
_Static_assert(ARRAY_SIZE(foreign) <= 36, "the list of what Zydis alone knows is closed");

static bool is_foreign(ZydisISASet set)
{
	unsigned int k;

	for (k = 0; k < ARRAY_SIZE(foreign); k++)
		if (set >= foreign[k].first && set <= foreign[k].last)
			return true;
	return false;
}

static bool sib_disp32(const struct insn *i, const struct oracle *z)
{
	return (z->i.raw.sib.base == 5) && (z->i.raw.modrm.mod == 0) && i->rm == GPR_ZERO;
}

static bool always(const struct insn *i, const struct oracle *z)
{
	(void)i;
	(void)z;
	return true;
}

static bool operand_size_2(const struct insn *i, const struct oracle *z)
{
	(void)z;
	return i->osz == 2;
}

static bool count_is_1(const struct insn *i, const struct oracle *z)
{
	(void)z;
	return i->map == 0 && (i->opcode == 0xd0 || i->opcode == 0xd1);
}

/* Single instructions. OP_INVALID: any. */
static const struct {
	enum insn_op op;
	const char *what;
	bool (*when)(const struct insn *i, const struct oracle *z);
} exceptions[] = {
	/* LEA has no segment (SDM 2A "LEA"); ours is computed all the same */
	{OP_LEA, "segment", always},
	/* SDM 2B "MOVSXD": 63 /r with 66 is MOVSXD r16, r/m16 */
	{OP_MOVSXD, "memory size", operand_size_2},
	{OP_MOVSXD, "register size", operand_size_2},
	/* SDM 2A table 2-5: SIB.base 101b with mod 00b is disp32 whatever REX.B is; Zydis 4.0
	   forgets that under 67. Seen on hardware. */
	{OP_INVALID, "base", sib_disp32},
	/* SDM 2B "SBB": AF is set according to the result */
	{OP_SBB, "flags undefined", always},
	/* SDM 2B "RCL", "SAL": OF is defined for a count of 1 */
	{OP_INVALID, "flags undefined", count_is_1},
	/* SDM 2A "BEXTR": CF and OF are cleared */
	{OP_BEXTR, "flags undefined", always},
	/* SDM 2B "PTEST", 2C "VTESTPD": OF, AF, PF, SF are cleared, in the VEX forms too */
	{OP_VPTEST, "flags written", always},
	{OP_VTESTPS, "flags written", always},
	{OP_VTESTPD, "flags written", always},
	/* SDM 2B "PUSHF", "POPF", "NOP": operands listed by one side only */
	{OP_PUSHF, "number of operands", always},
	{OP_POPF, "number of operands", always},
	{OP_NOP, "number of operands", always},
	{OP_ENDBR, "number of operands", always},
	{OP_NOP, "register", always},
	{OP_NOP, "register size", always},
	/* SDM 2A "LAR", "LSL": the selector is a word, r32 and r64 are ways to write it */
	{OP_LAR, "register size", always},
	{OP_LSL, "register size", always},
	/* SDM 2B "MOVMSKPS": the upper bits are zero: r64 in 64-bit mode is r32 */
	{OP_VMOVMSKPS, "register size", always},
	{OP_VMOVMSKPD, "register size", always},
	/* SDM 2C "VZEROUPPER": writes ymm, which Zydis does not list */
	{OP_VZEROUPPER, "implicit vector registers", always},
	{OP_VZEROALL, "implicit vector registers", always},
};
_Static_assert(ARRAY_SIZE(exceptions) <= 30, "goal: none");

static bool is_exception(const struct insn *i, const struct oracle *z, const char *what)
{
	unsigned int k;

	for (k = 0; k < ARRAY_SIZE(exceptions); k++)
		if ((!exceptions[k].op || exceptions[k].op == insn_op(i)) &&
			exceptions[k].what == what && exceptions[k].when(i, z))
			return true;
	return false;
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

static const char *compare_address(const struct insn *i, const ZydisDecodedOperandMem *m)
{
	if (ZydisRegisterGetId(m->segment) != i->seg)
		return "segment";
	if (i->flags & INSN_MOFFS)
		return zext(m->disp.value, i->asz) == (u64)i->imm ? NULL : "moffs";
	if (reg_number(m->base) != i->rm)
		return "base";
	if (reg_number(m->index) != i->index)
		return "index";
	if (m->scale > 1 && m->scale != 1 << i->scale)
		return "scale";
	return m->disp.value == i->disp ? NULL : "displacement";
}

static const char *compare_memory(const struct insn *i, const struct oracle *z)
{
	const ZydisDecodedOperand *m = mem_operand(z);
	int k = insn_mem_opnd(i);
	const char *diff;

	if (!m || k < 0)
		return !m == (k < 0) ? NULL : "presence of a memory operand";
	diff = compare_address(i, &m->mem);
	if (diff && !is_exception(i, z, diff))
		return diff;
	if (insn_row(i)->opnd[k].size == SZ_0)
		return NULL;
	if (acc_of(m) != insn_mem_acc(i))
		return "memory access";
	if (insn_row(i)->opnd[k].size == SZ_xs)
		return NULL;
	return m->size == 8 * insn_mem_size(i) ? NULL : "memory size";
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
		diff = compare_operand(i, k, &z->op[k]);
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
		compare_memory, compare_operands, compare_flags, compare_implicit};
	const char *diff;
	unsigned int k;

	if (i->len != z->i.length)
		return "length";
	if (insn_row(i)->cls == CLASS_UD)
		return NULL;
	for (k = 0; k < ARRAY_SIZE(parts); k++) {
		diff = parts[k](i, z);
		if (diff && !is_exception(i, z, diff))
			return diff;
	}
	return NULL;
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
		if (is_foreign(z->i.meta.isa_set))
			return FOREIGN;
		o->why = "#UD here only";
		return DIFFERENT;
	}
	if (!valid) {
		if (insn_row(&o->i)->cls == CLASS_UD)
			return BOTH_UD;
		o->why = "#UD in Zydis only";
		return DIFFERENT;
	}
	if (is_foreign(z->i.meta.isa_set) && insn_row(&o->i)->cls != CLASS_UD) {
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
	/* Without their CPUID bits these are NOPs (SDM 2B "NOP"). */
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
