// SPDX-License-Identifier: MIT
/*
 * FXSAVE, FXRSTOR, XSAVE*, XRSTOR*: SDM 1 13, SDM 2. Not here: XCR0 and PKRU (xcr.c).
 * An area is proved as a whole first; only the bytes that the manual names are touched.
 */
#include "cpu/exec.h"
#include "cpu/fpu.h"

static bool is_wide(const struct insn *i)
{
	return i->flags & INSN_W;
}

/* XMM8-15 exist in 64-bit mode only, and are not touched outside. */
static unsigned int nr_vectors(const struct cpu *cpu)
{
	return cpu->mode == MODE_64 ? 16 : 8;
}

static u64 edx_eax(const struct cpu *cpu)
{
	return (u64)(u32)cpu->regs[GPR_RDX] << 32 | (u32)cpu->regs[GPR_RAX];
}

static enum stop check_align(struct cpu *cpu, const struct insn *i, u64 ea, u8 need, u32 align)
{
	u64 linear;

	TRY(seg_linear(cpu, i->seg, ea, 1, need, &linear));
	return linear & (align - 1) ? cpu_gp(cpu, 0) : STOP_OK;
}

/* ---- FXSAVE, FXRSTOR --------------------------------------------------------------------- */

static enum stop check_fxsr(struct cpu *cpu)
{
	return cpu->cr0 & (CR0_EM | CR0_TS) ? cpu_raise(cpu, EXC_NM) : STOP_OK;
}

/* APM 2 3.1.7: fast FXSAVE leaves out the XMM registers. */
static bool is_fast(const struct cpu *cpu)
{
	return (cpu->efer & EFER_FFXSR) && cpu->mode == MODE_64 && cpu->cpl == 0;
}

enum stop exec_fxsave(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 ea = insn_ea(cpu, i);
	u8 area[FX_XMM + 256];
	u32 mask = MXCSR_VALID, n = FX_XMM + (is_fast(cpu) ? 0 : 16 * nr_vectors(cpu));

	TRY(check_fxsr(cpu));
	TRY(check_align(cpu, i, ea, MMU_W, 16));
	fpu_put_x87(cpu, area, is_wide(i));
	memcpy(area + FX_MXCSR, &cpu->mxcsr, 4);
	memcpy(area + FX_MASK, &mask, 4);
	fpu_put_vectors(cpu, area + FX_XMM, 0, 16);
	TRY(env_prove(e, i->seg, ea, 512, MMU_W));
	return env_write(e, i->seg, ea, n, area);
}

enum stop exec_fxrstor(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 ea = insn_ea(cpu, i);
	u8 area[512];
	u32 mxcsr;

	TRY(check_fxsr(cpu));
	TRY(check_align(cpu, i, ea, MMU_R, 16));
	TRY(env_read(e, i->seg, ea, sizeof(area), area));
	memcpy(&mxcsr, area + FX_MXCSR, 4);
	if (mxcsr & ~MXCSR_VALID)
		return cpu_gp(cpu, 0);
	fpu_get_x87(cpu, area, is_wide(i));
	cpu->mxcsr = mxcsr;
	if (!is_fast(cpu))
		fpu_get_vectors(cpu, area + FX_XMM, 0, nr_vectors(cpu));
	return STOP_OK;
}

/* ---- XSAVE ---------------------------------------------------------------------------------- */

static enum stop check_xsave(struct cpu *cpu)
{
	if (!(cpu->cr4 & CR4_OSXSAVE))
		return cpu_ud(cpu);
	return cpu->cr0 & CR0_TS ? cpu_raise(cpu, EXC_NM) : STOP_OK;
}

/* One XSAVE-like instruction on its way. */
struct saving {
	struct env *e;
	const struct insn *i;
	u64 ea;
	u64 rfbm, xcomp;
	u64 write; /* components whose bytes are written */
	bool mxcsr;
	u8 area[XSAVE_EXT + 256 + 8]; /* components packed, whatever the format */
};

static enum stop put(struct saving *s, u32 offset, const void *p, u32 n)
{
	u64 ea = zext(s->ea + offset, s->i->asz);

	return env_write(s->e, s->i->seg, ea, n, p);
}

static enum stop put_legacy(struct saving *s)
{
	struct cpu *cpu = s->e->cpu;
	u32 mxcsr[2] = { cpu->mxcsr, MXCSR_VALID };

	if (s->write & XF_X87) {
		fpu_put_x87(cpu, s->area, is_wide(s->i));
		TRY(put(s, 0, s->area, FX_MXCSR));
		TRY(put(s, FX_ST, s->area + FX_ST, FX_XMM - FX_ST));
	}
	if (s->mxcsr)
		TRY(put(s, FX_MXCSR, mxcsr, sizeof(mxcsr)));
	if (!(s->write & XF_SSE))
		return STOP_OK;
	fpu_put_vectors(cpu, s->area, 0, 16);
	return put(s, FX_XMM, s->area, 16 * nr_vectors(cpu));
}

static enum stop put_extended(struct saving *s)
{
	struct cpu *cpu = s->e->cpu;
	u64 pkru = cpu->pkru;

	if (s->write & XF_AVX) {
		fpu_put_vectors(cpu, s->area, 1, 16);
		TRY(put(s, fpu_xsave_offset(cpu, 2, s->xcomp), s->area, 16 * nr_vectors(cpu)));
	}
	if (s->write & XF_PKRU)
		TRY(put(s, fpu_xsave_offset(cpu, 9, s->xcomp), &pkru, 8));
	return STOP_OK;
}

static enum stop start_saving(struct saving *s, u64 enabled)
{
	struct cpu *cpu = s->e->cpu;
	u32 end;

	TRY(check_xsave(cpu));
	s->ea = insn_ea(cpu, s->i);
	s->rfbm = enabled & edx_eax(cpu);
	TRY(check_align(cpu, s->i, s->ea, MMU_W, 64));
	end = fpu_xsave_end(cpu, s->rfbm, s->xcomp ? s->rfbm | XCOMP_COMPACT : 0);
	return env_prove(s->e, s->i->seg, s->ea, end, MMU_R | MMU_W);
}

/* XSAVE writes all that is asked for, XSAVEOPT what is in use (SDM 1 13.7, 13.9). */
static enum stop save_standard(struct cpu *cpu, const struct insn *i, struct env *e, bool optimise)
{
	struct saving s = { .e = e, .i = i };
	u64 used = fpu_in_use(cpu), bv;

	TRY(start_saving(&s, cpu->xcr0));
	TRY(env_read(e, i->seg, zext(s.ea + XSAVE_HEADER, i->asz), 8, &bv));
	s.write = optimise ? s.rfbm & used : s.rfbm;
	s.mxcsr = s.rfbm & (XF_SSE | XF_AVX);
	bv = (bv & ~s.rfbm) | (s.rfbm & used);
	TRY(put_legacy(&s));
	TRY(put_extended(&s));
	return put(&s, XSAVE_HEADER, &bv, 8);
}

enum stop exec_xsave(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return save_standard(cpu, i, e, false);
}

enum stop exec_xsaveopt(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return save_standard(cpu, i, e, true);
}

/* XSAVEC, XSAVES: here MXCSR belongs to SSE, in use if it is not 1F80 (SDM 1 13.10, 13.11). */
static enum stop save_compacted(struct cpu *cpu, const struct insn *i, struct env *e, u64 enabled)
{
	struct saving s = { .e = e, .i = i, .xcomp = XCOMP_COMPACT };
	u64 used = fpu_in_use(cpu) | (cpu->mxcsr != MXCSR_RESET ? XF_SSE : 0);
	u64 header[2];

	TRY(start_saving(&s, enabled));
	s.xcomp = s.rfbm | XCOMP_COMPACT;
	s.write = s.rfbm & used;
	s.mxcsr = s.write & XF_SSE;
	header[0] = s.write;
	header[1] = s.xcomp;
	TRY(put_legacy(&s));
	TRY(put_extended(&s));
	return put(&s, XSAVE_HEADER, header, sizeof(header));
}

enum stop exec_xsavec(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return save_compacted(cpu, i, e, cpu->xcr0);
}

enum stop exec_xsaves(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return save_compacted(cpu, i, e, cpu->xcr0 | cpu->xss);
}

/* ---- XRSTOR ----------------------------------------------------------------------------------- */

/* SDM 1 13.8.1, 13.8.2, 13.12: what makes a header bad. */
static bool header_is_good(const u64 h[8], u64 enabled, bool must_be_compacted)
{
	u64 rest = h[2] | h[3] | h[4] | h[5] | h[6] | h[7];
	bool compacted = h[1] & XCOMP_COMPACT;

	if (!compacted)
		return !must_be_compacted && !(h[0] & ~enabled) && !(h[1] | h[2]);
	return !(h[1] & ~XCOMP_COMPACT & ~enabled) && !(h[0] & ~h[1]) && !rest;
}

static void load_components(struct cpu *cpu, const struct insn *i, const u8 *area, const u64 h[8],
	u64 rfbm)
{
	u64 load = rfbm & h[0];
	u32 pkru = cpu->pkru;

	/* outside 64-bit mode registers 8-15 are not touched, initialised neither */
	static const u8 zero[256];
	unsigned int nr = nr_vectors(cpu);

	if (load & XF_X87)
		fpu_get_x87(cpu, area, is_wide(i));
	else if (rfbm & XF_X87)
		fpu_init_component(cpu, 0);
	if (rfbm & XF_SSE)
		fpu_get_vectors(cpu, load & XF_SSE ? area + FX_XMM : zero, 0, nr);
	if (rfbm & XF_AVX)
		fpu_get_vectors(cpu, load & XF_AVX ? area + fpu_xsave_offset(cpu, 2, h[1]) : zero,
			1, nr);
	if (rfbm & XF_PKRU) {
		cpu->pkru = 0;
		if (load & XF_PKRU)
			memcpy(&cpu->pkru, area + fpu_xsave_offset(cpu, 9, h[1]), 4);
	}
	if (cpu->pkru != pkru)
		cpu_update_paging(cpu, true);
}

static enum stop restore_area(struct cpu *cpu, const struct insn *i, struct env *e, u64 enabled,
	bool must_be_compacted)
{
	u8 area[XSAVE_MAX];
	u64 ea = insn_ea(cpu, i), h[8], rfbm = enabled & edx_eax(cpu);
	u32 mxcsr = MXCSR_RESET;
	bool compacted, with_mxcsr;

	TRY(check_xsave(cpu));
	TRY(check_align(cpu, i, ea, MMU_R, 64));
	TRY(env_read(e, i->seg, zext(ea + XSAVE_HEADER, i->asz), sizeof(h), h));
	if (!header_is_good(h, enabled, must_be_compacted))
		return cpu_gp(cpu, 0);
	TRY(env_read(e, i->seg, ea, fpu_xsave_end(cpu, rfbm & h[0], h[1]), area));
	compacted = h[1] & XCOMP_COMPACT;
	with_mxcsr = rfbm & (compacted ? XF_SSE : XF_SSE | XF_AVX);
	if (!compacted || (h[0] & XF_SSE))
		memcpy(&mxcsr, area + FX_MXCSR, 4);
	if (with_mxcsr && (mxcsr & ~MXCSR_VALID))
		return cpu_gp(cpu, 0);
	if (with_mxcsr)
		cpu->mxcsr = mxcsr;
	load_components(cpu, i, area, h, rfbm);
	return STOP_OK;
}

enum stop exec_xrstor(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return restore_area(cpu, i, e, cpu->xcr0, false);
}

enum stop exec_xrstors(struct cpu *cpu, const struct insn *i, struct env *e)
{
	return restore_area(cpu, i, e, cpu->xcr0 | cpu->xss, true);
}
