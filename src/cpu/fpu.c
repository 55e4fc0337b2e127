// SPDX-License-Identifier: MIT
/*
 * Floating-point and vector state as components, and their place in XSAVE areas
 * (SDM 1 13). The instructions are in fpu_xsave.c.
 */
#include "cpu/fpu.h"

#include "cpu/exec.h"

#include <cpuid.h>
#include <errno.h>

/* CPUID leaf D, subleaf n of the guest, or NULL. */
static const struct cpuid_entry *leaf_d(const struct cpu *cpu, u32 n)
{
	for (u32 k = 0; k < cpu->nr_cpuid; k++)
		if (cpu->cpuid[k].leaf == 0xd && cpu->cpuid[k].subleaf == n)
			return &cpu->cpuid[k];
	return NULL;
}

static bool all_zero(const u8 *p, size_t n)
{
	for (size_t k = 0; k < n; k++)
		if (p[k])
			return false;
	return true;
}

static bool x87_is_initial(const struct cpu *cpu)
{
	return fx_cw(cpu) == 0x37f && all_zero(cpu->fpu.fx + FX_SW, FX_MXCSR - FX_SW) &&
		all_zero(cpu->fpu.fx + FX_ST, FX_XMM - FX_ST);
}

u64 fpu_in_use(const struct cpu *cpu)
{
	u64 used = XF_X87;

	if (x87_is_initial(cpu))
		used = 0;
	for (unsigned int n = 0; n < 16; n++) {
		if (!all_zero(cpu->fpu.ymm[n], 16))
			used |= XF_SSE;
		if (!all_zero(cpu->fpu.ymm[n] + 16, 16))
			used |= XF_AVX;
	}
	if (cpu->pkru)
		used |= XF_PKRU;
	return used;
}

void fpu_init_x87(struct cpu *cpu)
{
	memset(cpu->fpu.fx, 0, FX_MXCSR);
	fx_set_cw(cpu, 0x37f);
}

void fpu_init_component(struct cpu *cpu, unsigned int n)
{
	switch (n) {
	case 0:
		memset(cpu->fpu.fx, 0, FX_XMM);
		fx_set_cw(cpu, 0x37f);
		break;
	case 1:
	case 2:
		for (unsigned int k = 0; k < 16; k++)
			memset(cpu->fpu.ymm[k] + 16 * (n - 1), 0, 16);
		break;
	case 9:
		cpu->pkru = 0;
		break;
	}
}

void fpu_enter_mmx(struct cpu *cpu)
{
	unsigned int top = fx_sw(cpu) >> 11 & 7;
	u8 st[8][16];

	/* the image is in stack order: ST(0) is physical register TOP */
	memcpy(st, cpu->fpu.fx + FX_ST, sizeof(st));
	for (unsigned int k = 0; k < 8; k++)
		memcpy(cpu->fpu.fx + FX_ST + 16 * ((k + top) & 7), st[k], 16);
	fx_set_sw(cpu, fx_sw(cpu) & ~0x3800);
	cpu->fpu.fx[FX_TAG] = 0xff;
}

/* ---- layout ---------------------------------------------------------------------------- */

u32 fpu_xsave_size(unsigned int n)
{
	return n == 2 ? 256 : n == 9 ? 8 : 0;
}

/*
 * The host's, because clients take it from the host's CPUID (QEMU), not from what
 * KVM_GET_SUPPORTED_CPUID says; behind AVX on a host without protection keys.
 */
u32 fpu_pkru_offset(void)
{
	u32 size, offset, ecx, edx;

	if (__get_cpuid_count(0xd, 9, &size, &offset, &ecx, &edx) && size == 8)
		return offset;
	return XSAVE_EXT + 256;
}

static u32 standard_offset(const struct cpu *cpu, unsigned int n)
{
	const struct cpuid_entry *c = leaf_d(cpu, n);

	if (n == 2)
		return XSAVE_EXT;
	/* a table may say anything: behind AVX and inside the area */
	if (c && c->ebx >= XSAVE_EXT + 256 && c->ebx <= XSAVE_MAX - 8)
		return c->ebx;
	return fpu_pkru_offset();
}

u32 fpu_xsave_offset(const struct cpu *cpu, unsigned int n, u64 xcomp)
{
	u32 at = XSAVE_EXT;

	if (!(xcomp & XCOMP_COMPACT))
		return standard_offset(cpu, n);
	for (unsigned int k = 2; k < n; k++)
		if (xcomp & BIT(k))
			at += fpu_xsave_size(k);
	return at;
}

u32 fpu_xsave_end(const struct cpu *cpu, u64 mask, u64 xcomp)
{
	u32 end = XSAVE_EXT;

	for (unsigned int n = 2; n < 10; n++)
		if (mask & BIT(n))
			end = MAX(end, fpu_xsave_offset(cpu, n, xcomp) + fpu_xsave_size(n));
	return end;
}

/* Without REX.W the pointers are 16:32; selectors are not kept (CPUID.7:EBX[13]). */
void fpu_put_x87(const struct cpu *cpu, u8 *area, bool wide)
{
	memcpy(area, cpu->fpu.fx, FX_MXCSR);
	if (!wide) {
		memset(area + FX_FIP + 4, 0, 4);
		memset(area + FX_FDP + 4, 0, 4);
	}
	memcpy(area + FX_ST, cpu->fpu.fx + FX_ST, FX_XMM - FX_ST);
	for (unsigned int k = 0; k < 8; k++)
		memset(area + FX_ST + 16 * k + 10, 0, 6);
}

void fpu_get_x87(struct cpu *cpu, const u8 *area, bool wide)
{
	u16 cw, sw;

	memcpy(cpu->fpu.fx, area, FX_MXCSR);
	memcpy(&cw, area + FX_CW, 2);
	memcpy(&sw, area + FX_SW, 2);
	fx_set_cw(cpu, cw);
	fx_set_sw(cpu, sw);
	cpu->fpu.fx[FX_TAG + 1] = 0;
	cpu->fpu.fx[FX_FOP + 1] &= 7;
	if (!wide) {
		memset(cpu->fpu.fx + FX_FIP + 4, 0, 4);
		memset(cpu->fpu.fx + FX_FDP + 4, 0, 4);
	}
	memcpy(cpu->fpu.fx + FX_ST, area + FX_ST, FX_XMM - FX_ST);
	for (unsigned int k = 0; k < 8; k++)
		memset(cpu->fpu.fx + FX_ST + 16 * k + 10, 0, 6);
}

void fpu_put_vectors(const struct cpu *cpu, u8 *to, unsigned int half, unsigned int nr)
{
	for (unsigned int k = 0; k < nr; k++)
		memcpy(to + 16 * k, cpu->fpu.ymm[k] + 16 * half, 16);
}

void fpu_get_vectors(struct cpu *cpu, const u8 *from, unsigned int half, unsigned int nr)
{
	for (unsigned int k = 0; k < nr; k++)
		memcpy(cpu->fpu.ymm[k] + 16 * half, from + 16 * k, 16);
}

/* ---- KVM_GET/SET_XSAVE --------------------------------------------------------------------- */

void fpu_get_xsave(const struct cpu *cpu, void *area4096, u64 valid)
{
	u32 mask = MXCSR_VALID;
	u8 *area = area4096;

	memset(area, 0, XSAVE_MAX);
	fpu_put_x87(cpu, area, true);
	memcpy(area + FX_MXCSR, &cpu->mxcsr, 4);
	memcpy(area + FX_MASK, &mask, 4);
	fpu_put_vectors(cpu, area + FX_XMM, 0, 16);
	memcpy(area + XSAVE_HEADER, &valid, 8);
	if (valid & XF_AVX)
		fpu_put_vectors(cpu, area + XSAVE_EXT, 1, 16);
	if (valid & XF_PKRU)
		memcpy(area + fpu_xsave_offset(cpu, 9, 0), &cpu->pkru, 4);
}

int fpu_set_xsave(struct cpu *cpu, const void *area4096, u64 valid)
{
	const u8 *area = area4096;
	u64 bv;

	memcpy(&bv, area + XSAVE_HEADER, 8);
	if ((bv & ~valid) || !all_zero(area + XSAVE_HEADER + 8, 56))
		return -EINVAL;
	for (unsigned int n = 0; n < 10; n++)
		fpu_init_component(cpu, n);
	cpu->mxcsr = MXCSR_RESET;
	if (bv & XF_X87)
		fpu_get_x87(cpu, area, true);
	if (bv & (XF_SSE | XF_AVX))
		memcpy(&cpu->mxcsr, area + FX_MXCSR, 4);
	cpu->mxcsr &= MXCSR_VALID;
	if (bv & XF_SSE)
		fpu_get_vectors(cpu, area + FX_XMM, 0, 16);
	if (bv & XF_AVX)
		fpu_get_vectors(cpu, area + XSAVE_EXT, 1, 16);
	if (bv & XF_PKRU)
		memcpy(&cpu->pkru, area + fpu_xsave_offset(cpu, 9, 0), 4);
	cpu_update_paging(cpu, true);
	return 0;
}

/* VZEROUPPER, VZEROALL: registers 8 to 15 only in 64-bit mode (SDM 2C "VZEROALL"): not the host's. */
enum stop exec_vzero(struct cpu *cpu, const struct insn *i, struct env *e)
{
	unsigned int keep = insn_op(i) == OP_VZEROUPPER ? 16 : 0;

	(void)e;
	for (unsigned int n = 0; n < (cpu->mode == MODE_64 ? 16 : 8); n++)
		memset(cpu->fpu.ymm[n] + keep, 0, 32 - keep);
	return STOP_OK;
}
