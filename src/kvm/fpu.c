// SPDX-License-Identifier: MIT
/*
 * x87, SSE and AVX state between struct cpu and KVM's two pictures of it: struct kvm_fpu and
 * the XSAVE area in standard format (SDM 1 13.4).
 */
#include "cpu/fpu.h"
#include "kvm/ioctl.h"

#include <errno.h>
#include <string.h>

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
	cpu->mxcsr = f->mxcsr & MXCSR_VALID;
	return 0;
}

long vcpu_get_xsave(struct ioc *c)
{
	fpu_get_xsave(&c->vcpu->cpu, c->arg, supported_xcr0());
	return 0;
}

long vcpu_set_xsave(struct ioc *c)
{
	return fpu_set_xsave(&c->vcpu->cpu, c->arg, supported_xcr0());
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
