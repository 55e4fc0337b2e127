// SPDX-License-Identifier: MIT
/*
 * The x87 environment in memory: FLDENV, FNSTENV, FNSAVE, FRSTOR in their four formats
 * (SDM 1 8.1.10), and LDMXCSR, STMXCSR. All other x87 instructions are native.
 */
#include "cpu/exec.h"
#include "cpu/fpu.h"

/* What an environment holds, whatever its format. */
struct x87_env {
	u16 cw, sw, tag, fop;
	u32 fip, fdp;
};

static unsigned int top(const struct cpu *cpu)
{
	return fx_sw(cpu) >> 11 & 7;
}

/* Tag of a register that is not empty: 0 valid, 1 zero, 2 special (SDM 1 8.1.7). */
static unsigned int classify(const u8 *st)
{
	u64 mantissa;
	u16 exponent;

	memcpy(&mantissa, st, 8);
	memcpy(&exponent, st + 8, 2);
	exponent &= 0x7fff;
	if (exponent == 0)
		return mantissa ? 2 : 1;
	return exponent != 0x7fff && mantissa >> 63 ? 0 : 2;
}

static u16 full_tag(const struct cpu *cpu)
{
	u16 tag = 0;

	for (unsigned int r = 0; r < 8; r++) {
		unsigned int st = (r - top(cpu)) & 7, t = 3;

		if (cpu->fpu.fx[FX_TAG] & BIT(r))
			t = classify(cpu->fpu.fx + FX_ST + 16 * st);
		tag |= t << 2 * r;
	}
	return tag;
}

static u8 short_tag(u16 tag)
{
	u8 v = 0;

	for (unsigned int r = 0; r < 8; r++)
		if ((tag >> 2 * r & 3) != 3)
			v |= BIT(r);
	return v;
}

static struct x87_env get_env(const struct cpu *cpu)
{
	struct x87_env v = { .cw = fx_cw(cpu), .sw = fx_sw(cpu), .tag = full_tag(cpu) };

	memcpy(&v.fop, cpu->fpu.fx + FX_FOP, 2);
	memcpy(&v.fip, cpu->fpu.fx + FX_FIP, 4);
	memcpy(&v.fdp, cpu->fpu.fx + FX_FDP, 4);
	return v;
}

static void set_env(struct cpu *cpu, const struct x87_env *v)
{
	u64 fip = v->fip, fdp = v->fdp;
	u16 fop = v->fop & 0x7ff;
	u8 st[8][16];
	unsigned int old = top(cpu), new = v->sw >> 11 & 7;

	fx_set_cw(cpu, v->cw);
	fx_set_sw(cpu, v->sw);
	cpu->fpu.fx[FX_TAG] = short_tag(v->tag);
	memcpy(cpu->fpu.fx + FX_FOP, &fop, 2);
	memcpy(cpu->fpu.fx + FX_FIP, &fip, 8);
	memcpy(cpu->fpu.fx + FX_FDP, &fdp, 8);
	/* registers stay where they are physically; the image is in stack order */
	memcpy(st, cpu->fpu.fx + FX_ST, sizeof(st));
	for (unsigned int k = 0; k < 8; k++)
		memcpy(cpu->fpu.fx + FX_ST + 16 * ((k + old - new) & 7), st[k], 16);
}

/* ---- formats: figures 8-9 to 8-12 --------------------------------------------------------- */

/* Selectors are not kept: 0 (CPUID.7:EBX[13]). */
static void pack32(u32 m[7], const struct x87_env *v, bool real)
{
	m[0] = 0xffff0000 | v->cw;
	m[1] = 0xffff0000 | v->sw;
	m[2] = 0xffff0000 | v->tag;
	m[3] = real ? 0xffff0000 | (u16)v->fip : v->fip;
	m[4] = real ? (v->fip >> 16 << 12) | v->fop : (u32)v->fop << 16;
	m[5] = real ? 0xffff0000 | (u16)v->fdp : v->fdp;
	m[6] = real ? v->fdp >> 16 << 12 : 0xffff0000;
}

static void unpack32(const u32 m[7], struct x87_env *v, bool real)
{
	v->cw = m[0];
	v->sw = m[1];
	v->tag = m[2];
	v->fip = real ? (u16)m[3] | (m[4] >> 12 & 0xffff) << 16 : m[3];
	v->fop = real ? m[4] & 0x7ff : m[4] >> 16 & 0x7ff;
	v->fdp = real ? (u16)m[5] | (m[6] >> 12 & 0xffff) << 16 : m[5];
}

static void pack16(u16 m[7], const struct x87_env *v, bool real)
{
	m[0] = v->cw;
	m[1] = v->sw;
	m[2] = v->tag;
	m[3] = v->fip;
	m[4] = real ? (v->fip >> 16 & 15) << 12 | v->fop : 0;
	m[5] = v->fdp;
	m[6] = real ? (v->fdp >> 16 & 15) << 12 : 0;
}

static void unpack16(const u16 m[7], struct x87_env *v, bool real)
{
	v->cw = m[0];
	v->sw = m[1];
	v->tag = m[2];
	v->fip = m[3] | (real ? (u32)(m[4] >> 12) << 16 : 0);
	v->fop = real ? m[4] & 0x7ff : 0;
	v->fdp = m[5] | (real ? (u32)(m[6] >> 12) << 16 : 0);
}

static unsigned int env_size(const struct insn *i)
{
	return i->osz == 2 ? 14 : 28;
}

static void pack(const struct cpu *cpu, const struct insn *i, u8 *area)
{
	struct x87_env v = get_env(cpu);
	bool real = !cpu_prot(cpu);
	u32 m32[7];
	u16 m16[7];

	if (i->osz == 2) {
		pack16(m16, &v, real);
		memcpy(area, m16, sizeof(m16));
	} else {
		pack32(m32, &v, real);
		memcpy(area, m32, sizeof(m32));
	}
}

static void unpack(struct cpu *cpu, const struct insn *i, const u8 *area)
{
	struct x87_env v;
	bool real = !cpu_prot(cpu);
	u32 m32[7];
	u16 m16[7];

	memcpy(m32, area, env_size(i));
	memcpy(m16, area, sizeof(m16));
	if (i->osz == 2)
		unpack16(m16, &v, real);
	else
		unpack32(m32, &v, real);
	set_env(cpu, &v);
}

/* ---- instructions ---------------------------------------------------------------------------- */

/* Images of words or doublewords: that is the alignment they want (SDM 3A table 6-7). */
static enum stop check_ac(const struct insn *i, struct env *e)
{
	u32 align = i->osz == 2 ? 2 : 4;

	TRY(env_check_ac(e, i->seg, insn_ea(e->cpu, i), align, align));
	e->no_ac = true; /* not the pieces of the image once more */
	return STOP_OK;
}

enum stop exec_fldenv(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u8 area[28];

	TRY(check_ac(i, e));
	TRY(env_read(e, i->seg, insn_ea(cpu, i), env_size(i), area));
	unpack(cpu, i, area);
	return STOP_OK;
}

/* Masks all exceptions afterwards. */
enum stop exec_fnstenv(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u8 area[28];

	TRY(check_ac(i, e));
	pack(cpu, i, area);
	TRY(env_write(e, i->seg, insn_ea(cpu, i), env_size(i), area));
	fx_set_cw(cpu, fx_cw(cpu) | FSW_EXCEPTIONS);
	fx_set_sw(cpu, fx_sw(cpu));
	return STOP_OK;
}

enum stop exec_fnsave(struct cpu *cpu, const struct insn *i, struct env *e)
{
	unsigned int n = env_size(i);
	u8 area[108];

	TRY(check_ac(i, e));
	pack(cpu, i, area);
	for (unsigned int k = 0; k < 8; k++)
		memcpy(area + n + 10 * k, cpu->fpu.fx + FX_ST + 16 * k, 10);
	TRY(env_write(e, i->seg, insn_ea(cpu, i), n + 80, area));
	/* FNINIT leaves the data registers; only their order in our image changes with TOP */
	set_env(cpu, &(struct x87_env){ .cw = 0x37f, .tag = 0xffff });
	return STOP_OK;
}

enum stop exec_frstor(struct cpu *cpu, const struct insn *i, struct env *e)
{
	unsigned int n = env_size(i);
	u8 area[108];

	TRY(check_ac(i, e));
	TRY(env_read(e, i->seg, insn_ea(cpu, i), n + 80, area));
	unpack(cpu, i, area);
	for (unsigned int k = 0; k < 8; k++)
		memcpy(cpu->fpu.fx + FX_ST + 16 * k, area + n + 10 * k, 10);
	return STOP_OK;
}

enum stop exec_ldmxcsr(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u32 v;

	TRY(env_read(e, i->seg, insn_ea(cpu, i), 4, &v));
	if (v & ~MXCSR_VALID)
		return cpu_gp(cpu, 0);
	cpu->mxcsr = v;
	return STOP_OK;
}

enum stop exec_stmxcsr(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return env_write(e, i->seg, insn_ea(cpu, i), 4, &cpu->mxcsr);
}

/* FWAIT: #NM only if both MP and TS are set; then a pending exception (SDM 3A 2.5). */
enum stop exec_fwait(struct cpu *cpu, const struct insn *i, struct env *e)
{
	(void)i, (void)e;
	if ((cpu->cr0 & (CR0_MP | CR0_TS)) == (CR0_MP | CR0_TS))
		return cpu_raise(cpu, EXC_NM);
	return fx_sw(cpu) & ~fx_cw(cpu) & FSW_EXCEPTIONS ? cpu_raise(cpu, EXC_MF) : STOP_OK;
}
