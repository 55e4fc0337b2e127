// SPDX-License-Identifier: MIT
/*
 * Segment and descriptor-table registers as instructions see them: MOV Sreg, LDS and its
 * kin, LGDT/SGDT.., LLDT/LTR.., and the checks LAR LSL VERR VERW ARPL. SDM 2A, 2B; SDM 3A 5.10.
 */
#include "cpu/system.h"

#include <string.h>

enum stop rm_read16(struct cpu *cpu, const struct insn *i, struct env *e, u16 *v)
{
	if (i->flags & INSN_MEM)
		return env_read(e, i->seg, insn_ea(cpu, i), 2, v);
	*v = reg_get(cpu, i->rm, 2);
	return STOP_OK;
}

enum stop rm_write16(struct cpu *cpu, const struct insn *i, struct env *e, u64 v)
{
	if (i->flags & INSN_MEM)
		return env_write(e, i->seg, insn_ea(cpu, i), 2, &v);
	reg_set(cpu, i->rm, i->osz, zext(v, i->osz));
	return STOP_OK;
}

/* ---- loads and stores of segment registers ---- */

/* 8C: from Sreg, 8E: to Sreg. */
enum stop exec_mov_sreg(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u16 sel;

	if (i->reg >= NR_SEGS || (i->opcode == 0x8e && i->reg == SEG_CS))
		return cpu_ud(cpu);
	if (i->opcode == 0x8c)
		return rm_write16(cpu, i, e, cpu->seg[i->reg].sel);
	TRY(rm_read16(cpu, i, e, &sel));
	TRY(seg_load(e, i->reg, sel));
	if (i->reg == SEG_SS) {
		cpu->shadow = cpu->shadow_ss = true;
		cpu_update(cpu);
	}
	return STOP_OK;
}

static enum stop load_far_pointer(struct cpu *cpu, const struct insn *i, struct env *e, enum seg seg)
{
	u8 raw[10], size = i->osz;
	u64 off = 0;
	u16 sel;

	TRY(env_check_ac(e, i->seg, insn_ea(cpu, i), size + 2, size));
	e->no_ac = true; /* two operands in one */
	TRY(env_read(e, i->seg, insn_ea(cpu, i), size + 2, raw));
	e->no_ac = false;
	memcpy(&off, raw, size);
	memcpy(&sel, raw + size, 2);
	TRY(seg_load(e, seg, sel));
	reg_set(cpu, i->reg, size, off);
	return STOP_OK;
}

enum stop exec_les(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return load_far_pointer(cpu, i, e, SEG_ES);
}
enum stop exec_lds(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return load_far_pointer(cpu, i, e, SEG_DS);
}
enum stop exec_lss(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return load_far_pointer(cpu, i, e, SEG_SS);
}
enum stop exec_lfs(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return load_far_pointer(cpu, i, e, SEG_FS);
}
enum stop exec_lgs(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return load_far_pointer(cpu, i, e, SEG_GS);
}

/* ---- GDTR, IDTR ---- */

static enum stop load_table(struct cpu *cpu, const struct insn *i, struct env *e, struct desc_table *t)
{
	bool m64 = cpu->mode == MODE_64;
	u64 base = 0;
	u16 limit;
	u8 raw[10];

	TRY(env_read(e, i->seg, insn_ea(cpu, i), m64 ? 10 : 6, raw));
	memcpy(&limit, raw, 2);
	memcpy(&base, raw + 2, m64 ? 8 : 4);
	if (!cpu_canonical_base(cpu, base))
		return cpu_gp(cpu, 0);
	/* SDM 2A LGDT: with a 16-bit operand size the base has 24 bits */
	t->base = !m64 && i->osz == 2 ? base & 0xffffff : base;
	t->limit = limit;
	return STOP_OK;
}

static enum stop store_table(
	struct cpu *cpu, const struct insn *i, struct env *e, const struct desc_table *t)
{
	u8 raw[10];

	if (cpu->cpl && (cpu->cr4 & CR4_UMIP))
		return cpu_gp(cpu, 0);
	memcpy(raw, &t->limit, 2);
	memcpy(raw + 2, &t->base, 8);
	return env_write(e, i->seg, insn_ea(cpu, i), cpu->mode == MODE_64 ? 10 : 6, raw);
}

enum stop exec_lgdt(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return load_table(cpu, i, e, &cpu->gdtr);
}
enum stop exec_lidt(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return load_table(cpu, i, e, &cpu->idtr);
}
enum stop exec_sgdt(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return store_table(cpu, i, e, &cpu->gdtr);
}
enum stop exec_sidt(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return store_table(cpu, i, e, &cpu->idtr);
}

/* ---- LDTR, TR ---- */

static enum stop store_selector(struct cpu *cpu, const struct insn *i, struct env *e, u16 sel)
{
	if (cpu->cpl && (cpu->cr4 & CR4_UMIP))
		return cpu_gp(cpu, 0);
	return rm_write16(cpu, i, e, sel);
}

enum stop exec_sldt(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return store_selector(cpu, i, e, cpu->ldtr.sel);
}
enum stop exec_str(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return store_selector(cpu, i, e, cpu->tr.sel);
}

enum stop exec_lldt(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct desc d;
	u16 sel;

	TRY(rm_read16(cpu, i, e, &sel));
	if (SEL_NULL(sel)) {
		cpu->ldtr = seg_null(sel, 0);
		return STOP_OK;
	}
	if (sel & SEL_TI)
		return cpu_gp(cpu, sel_error(sel, 0));
	TRY(desc_read_system(e, sel, EXC_GP, 0, &d));
	if (desc_s(&d) || desc_type(&d) != DESC_LDT)
		return cpu_gp(cpu, sel_error(sel, 0));
	if (!desc_p(&d))
		return cpu_raise_error(cpu, EXC_NP, sel_error(sel, 0));
	if (!cpu_canonical_base(cpu, desc_base(&d)))
		return cpu_gp(cpu, sel_error(sel, 0));
	cpu->ldtr = seg_from_desc(sel, &d);
	return STOP_OK;
}

enum stop exec_ltr(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct desc d;
	u16 sel;

	TRY(rm_read16(cpu, i, e, &sel));
	if (SEL_NULL(sel))
		return cpu_gp(cpu, 0);
	if (sel & SEL_TI)
		return cpu_gp(cpu, sel_error(sel, 0));
	TRY(desc_read_system(e, sel, EXC_GP, 0, &d));
	if (desc_s(&d) ||
		(desc_type(&d) != DESC_TSS32 && (cpu->long_mode || desc_type(&d) != DESC_TSS16)))
		return cpu_gp(cpu, sel_error(sel, 0));
	if (!desc_p(&d))
		return cpu_raise_error(cpu, EXC_NP, sel_error(sel, 0));
	if (!cpu_canonical_base(cpu, desc_base(&d)))
		return cpu_gp(cpu, sel_error(sel, 0));
	TRY(desc_set_bits(e, sel, &d, TSS_BUSY));
	cpu->tr = seg_from_desc(sel, &d);
	return STOP_OK;
}

/* ---- questions about selectors: only ZF answers, nothing but the operand can fault ---- */

static void set_zf(struct cpu *cpu, bool zf)
{
	cpu->fl = zf ? cpu->fl | FI_ZF : cpu->fl & ~(u64)FI_ZF;
}

static bool visible(const struct cpu *cpu, u16 sel, const struct desc *d)
{
	return desc_is_conforming(d) || desc_dpl(d) >= MAX(cpu->cpl, SEL_RPL(sel));
}

/* *ok: the descriptor exists. */
static enum stop ask(struct env *e, u16 sel, struct desc *d, bool *ok)
{
	*ok = !SEL_NULL(sel) && desc_inside(e->cpu, sel, 8);
	return *ok ? desc_read(e, sel, EXC_GP, 0, d) : STOP_OK;
}

/* System types with which LAR and LSL are content: bit n = type n (SDM 2A LAR, LSL). */
#define LAR_TYPES  0x1a3e
#define LAR_TYPES64 0x1a04
#define LSL_TYPES  0x0a0e
#define LSL_TYPES64 0x0a04

static enum stop lar_or_lsl(struct cpu *cpu, const struct insn *i, struct env *e, u32 types,
	struct desc *d, bool *ok)
{
	u16 sel;

	TRY(rm_read16(cpu, i, e, &sel));
	TRY(ask(e, sel, d, ok));
	if (*ok && !desc_s(d) && !(types >> desc_type(d) & 1))
		*ok = false;
	if (*ok && !visible(cpu, sel, d))
		*ok = false;
	return STOP_OK;
}

enum stop exec_lar(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct desc d;
	bool ok;

	TRY(lar_or_lsl(cpu, i, e, cpu->long_mode ? LAR_TYPES64 : LAR_TYPES, &d, &ok));
	if (ok)
		reg_set(cpu, i->reg, i->osz, d.lo >> 32 & (i->osz == 2 ? 0xff00 : 0xffff00));
	set_zf(cpu, ok);
	return STOP_OK;
}

enum stop exec_lsl(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct desc d;
	bool ok;

	TRY(lar_or_lsl(cpu, i, e, cpu->long_mode ? LSL_TYPES64 : LSL_TYPES, &d, &ok));
	if (ok)
		reg_set(cpu, i->reg, i->osz, zext(desc_limit(&d), i->osz));
	set_zf(cpu, ok);
	return STOP_OK;
}

static enum stop verify(struct cpu *cpu, const struct insn *i, struct env *e, bool write)
{
	struct desc d;
	bool ok;
	u16 sel;

	TRY(rm_read16(cpu, i, e, &sel));
	TRY(ask(e, sel, &d, &ok));
	ok = ok && visible(cpu, sel, &d) && (write ? desc_is_writable(&d) : desc_is_readable(&d));
	set_zf(cpu, ok);
	return STOP_OK;
}

enum stop exec_verr(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return verify(cpu, i, e, false);
}
enum stop exec_verw(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return verify(cpu, i, e, true);
}

enum stop exec_arpl(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u16 src = reg_get(cpu, i->reg, 2), dst;
	struct access a;
	bool raise;

	if (i->flags & INSN_MEM) {
		TRY(env_map(e, &a, i->seg, insn_ea(cpu, i), 2, MMU_R));
		TRY(env_begin(e));
		dst = access_get(&a);
	} else {
		dst = reg_get(cpu, i->rm, 2);
	}
	raise = SEL_RPL(dst) < SEL_RPL(src);
	if (raise)
		dst = (dst & ~3) | SEL_RPL(src);
	if (!(i->flags & INSN_MEM)) {
		reg_set(cpu, i->rm, 2, dst);
	} else if (raise) { /* else it is not even asked whether it may be written */
		TRY(env_map(e, &a, i->seg, insn_ea(cpu, i), 2, MMU_R | MMU_W));
		TRY(env_begin(e));
		access_set(&a, dst);
		TRY(env_flush(e, &a));
	}
	set_zf(cpu, raise);
	return STOP_OK;
}
