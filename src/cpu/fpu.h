/* SPDX-License-Identifier: MIT */
/*
 * Floating-point and vector state: its layout, XSAVE images, and the handlers of the
 * instructions that save, restore or mask it. The state itself is struct cpu's fpu, mxcsr,
 * xcr0 and pkru.
 */
#ifndef ANYKVM_FPU_H
#define ANYKVM_FPU_H

#include "cpu/cpu.h"

#include <string.h>

/* MXCSR, SDM 1 10.2.3 */
#define MXCSR_FLAGS 0x003fu
#define MXCSR_PRE   0x0007u /* invalid, denormal, divide by zero: found before the result */
#define MXCSR_DAZ   0x0040u
#define MXCSR_UM    0x0800u
#define MXCSR_MASKS 0x1f80u
#define MXCSR_RC    0x6000u
#define MXCSR_FTZ   0x8000u
#define MXCSR_VALID 0xffffu
#define MXCSR_RESET 0x1f80u

/* x87 status word, SDM 1 8.1.3 */
#define FSW_EXCEPTIONS 0x003fu
#define FSW_PE	       0x0020u
#define FSW_ES	       0x0080u
#define FSW_B	       0x8000u

/* FXSAVE image, SDM 1 10.5.1 */
#define FX_CW	 0
#define FX_SW	 2
#define FX_TAG	 4
#define FX_FOP	 6
#define FX_FIP	 8
#define FX_FDP	 16
#define FX_MXCSR 24
#define FX_MASK	 28
#define FX_ST	 32
#define FX_XMM	 160

/* XSAVE components (SDM 1 13.1) */
#define XF_X87	BIT(0)
#define XF_SSE	BIT(1)
#define XF_AVX	BIT(2)
#define XF_PKRU BIT(9)
#define XF_ALL	(XF_X87 | XF_SSE | XF_AVX | XF_PKRU)

#define XSAVE_AVX_OFFSET  576 /* standard format */
#define XSAVE_PKRU_OFFSET 2688
#define XSAVE_LEGACY	  576 /* FXSAVE area and header */

static inline u16 fx_cw(const struct cpu *cpu)
{
	u16 v;

	memcpy(&v, cpu->fpu.fx + FX_CW, 2);
	return v;
}
static inline u16 fx_sw(const struct cpu *cpu)
{
	u16 v;

	memcpy(&v, cpu->fpu.fx + FX_SW, 2);
	return v;
}

/* Components that this guest may enable in XCR0: by its CPUID features. */
u64 fpu_xcr0_valid(const struct cpu *cpu);
/* Bytes of an XSAVE area, legacy part and header included, for the components in mask. */
u32 fpu_xsave_size(u64 mask, bool compacted);

/* RESET state of everything (SDM 3A table 9-1); INIT keeps it: the caller's business. */
void fpu_init(struct cpu *cpu);

/*
 * Whole state as a standard-format XSAVE image of 4096 bytes (KVM_GET/SET_XSAVE); all of
 * XF_ALL is in use in XSTATE_BV. fpu_set_xsave: 0, or -EINVAL for a compacted image, reserved header
 * bytes or unknown components, with nothing changed. MXCSR is masked, never believed.
 */
void fpu_get_xsave(const struct cpu *cpu, void *area4096);
MUSTCHECK int fpu_set_xsave(struct cpu *cpu, const void *area4096);

#endif
