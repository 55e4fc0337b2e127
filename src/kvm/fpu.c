// SPDX-License-Identifier: MIT
/*
 * x87, SSE and AVX state between struct cpu and KVM's two pictures of it: struct kvm_fpu and
 * the XSAVE area in standard format (SDM 1 13.4).
 */
#include "kvm/ioctl.h"

#include <errno.h>
#include <string.h>

#define MXCSR_MASK    0xffffu
#define MXCSR_DEFAULT 0x1f80u
#define FX_MXCSR      24
#define FX_MXCSR_MASK 28
#define FX_ST	      32
#define FX_XMM	      160
#define XSAVE_BV      512
#define XSAVE_HEADER  64
#define XSAVE_YMM     576

#define XF_X87 1u
#define XF_SSE 2u
#define XF_AVX 4u

/* FXSAVE's first bytes; the registers follow at 32. */
struct fx_head {
	u16 fcw, fsw;
	u8 ftw, pad;
	u16 fop;
	u64 fip, fdp;
};

long vcpu_get_fpu(struct ioc *c)
{
	struct kvm_fpu *f = c->arg;
	const struct cpu *cpu = &c->vcpu->cpu;
	struct fx_head h;

	memcpy(&h, cpu->fpu.fx, sizeof(h));
	memcpy(f->fpr, cpu->fpu.fx + FX_ST, sizeof(f->fpr));
	f->fcw = h.fcw;
	f->fsw = h.fsw;
	f->ftwx = h.ftw;
	f->last_opcode = h.fop;
	f->last_ip = h.fip;
	f->last_dp = h.fdp;
	for (int i = 0; i < 16; i++)
		memcpy(f->xmm[i], cpu->fpu.ymm[i], 16);
	f->mxcsr = cpu->mxcsr;
	return 0;
}

long vcpu_set_fpu(struct ioc *c)
{
	const struct kvm_fpu *f = c->arg;
	struct cpu *cpu = &c->vcpu->cpu;
	struct fx_head h = {
		.fcw = f->fcw,
		.fsw = f->fsw,
		.ftw = f->ftwx,
		.fop = f->last_opcode,
		.fip = f->last_ip,
		.fdp = f->last_dp,
	};

	memcpy(cpu->fpu.fx, &h, sizeof(h));
	memcpy(cpu->fpu.fx + FX_ST, f->fpr, sizeof(f->fpr));
	for (int i = 0; i < 16; i++)
		memcpy(cpu->fpu.ymm[i], f->xmm[i], 16);
	cpu->mxcsr = f->mxcsr & MXCSR_MASK;
	return 0;
}

long vcpu_get_xsave(struct ioc *c)
{
	u8 *area = c->arg;
	const struct cpu *cpu = &c->vcpu->cpu;
	u32 mask = MXCSR_MASK;
	u64 bv = supported_xcr0();

	memcpy(area, cpu->fpu.fx, FX_MXCSR);
	memcpy(area + FX_MXCSR, &cpu->mxcsr, 4);
	memcpy(area + FX_MXCSR_MASK, &mask, 4);
	memcpy(area + FX_ST, cpu->fpu.fx + FX_ST, FX_XMM - FX_ST);
	for (int i = 0; i < 16; i++)
		memcpy(area + FX_XMM + 16 * i, cpu->fpu.ymm[i], 16);
	memcpy(area + XSAVE_BV, &bv, sizeof(bv));
	for (int i = 0; i < 16 && bv & XF_AVX; i++)
		memcpy(area + XSAVE_YMM + 16 * i, cpu->fpu.ymm[i] + 16, 16);
	return 0;
}

static void x87_in(struct cpu *cpu, const u8 *area, bool present)
{
	const struct fx_head initial = {.fcw = 0x37f};

	memset(cpu->fpu.fx, 0, FX_XMM);
	if (!present) {
		memcpy(cpu->fpu.fx, &initial, sizeof(initial));
		return;
	}
	memcpy(cpu->fpu.fx, area, FX_MXCSR);
	memcpy(cpu->fpu.fx + FX_ST, area + FX_ST, FX_XMM - FX_ST);
}

/* A component that XSTATE_BV does not name gets its initial state (SDM 1 13.8.1). */
static void xsave_in(struct cpu *cpu, const u8 *area, u64 bv)
{
	x87_in(cpu, area, bv & XF_X87);
	cpu->mxcsr = MXCSR_DEFAULT;
	if (bv & (XF_SSE | XF_AVX)) {
		memcpy(&cpu->mxcsr, area + FX_MXCSR, 4);
		cpu->mxcsr &= MXCSR_MASK;
	}
	memset(cpu->fpu.ymm, 0, sizeof(cpu->fpu.ymm));
	for (int i = 0; i < 16; i++) {
		if (bv & XF_SSE)
			memcpy(cpu->fpu.ymm[i], area + FX_XMM + 16 * i, 16);
		if (bv & XF_AVX)
			memcpy(cpu->fpu.ymm[i] + 16, area + XSAVE_YMM + 16 * i, 16);
	}
}

long vcpu_set_xsave(struct ioc *c)
{
	const u8 *area = c->arg;
	u64 header[XSAVE_HEADER / 8];

	memcpy(header, area + XSAVE_BV, sizeof(header));
	if (header[0] & ~supported_xcr0())
		return -EINVAL;
	for (size_t i = 1; i < ARRAY_SIZE(header); i++) /* XCOMP_BV and the reserved rest */
		if (header[i])
			return -EINVAL;
	xsave_in(&c->vcpu->cpu, area, header[0]);
	return 0;
}

long vcpu_get_xcrs(struct ioc *c)
{
	struct kvm_xcrs *x = c->arg;

	x->nr_xcrs = 1;
	x->xcrs[0].xcr = 0;
	x->xcrs[0].value = c->vcpu->cpu.xcr0;
	return 0;
}

/* SDM 1 13.3: x87 always; AVX needs SSE. */
static bool xcr0_valid(u64 v)
{
	return v & XF_X87 && !(v & ~supported_xcr0()) && !(v & XF_AVX && !(v & XF_SSE));
}

long vcpu_set_xcrs(struct ioc *c)
{
	const struct kvm_xcrs *x = c->arg;

	if (x->nr_xcrs > KVM_MAX_XCRS || x->flags)
		return -EINVAL;
	for (u32 i = 0; i < x->nr_xcrs; i++) {
		if (x->xcrs[i].xcr)
			continue;
		if (!xcr0_valid(x->xcrs[i].value))
			return -EINVAL;
		c->vcpu->cpu.xcr0 = x->xcrs[i].value;
		cpu_update(&c->vcpu->cpu);
		return 0;
	}
	return 0;
}
