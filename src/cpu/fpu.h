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

/* XSAVE components (SDM 1 13.1) and where things are in an area (13.4) */
#define XF_X87	BIT(0)
#define XF_SSE	BIT(1)
#define XF_AVX	BIT(2)
#define XF_PKRU BIT(9)
#define XF_ALL	(XF_X87 | XF_SSE | XF_AVX | XF_PKRU)

#define XSAVE_HEADER 512
#define XSAVE_EXT    576 /* first extended component */
#define XSAVE_MAX    4096
#define XCOMP_COMPACT BIT(63)

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

static inline void fx_set_cw(struct cpu *cpu, u16 v)
{
	v = (v & 0x1f3f) | 0x40; /* reserved bits, as the processor reads them back */
	memcpy(cpu->fpu.fx + FX_CW, &v, 2);
}
/* ES and B follow from flags and masks. */
static inline void fx_set_sw(struct cpu *cpu, u16 v)
{
	v &= ~(FSW_ES | FSW_B);
	if (v & ~fx_cw(cpu) & FSW_EXCEPTIONS)
		v |= FSW_ES | FSW_B;
	memcpy(cpu->fpu.fx + FX_SW, &v, 2);
}

/* Components that are not in their initial state (SDM 1 13.6). */
u64 fpu_in_use(const struct cpu *cpu);

/* The state of component n (a bit number) becomes its initial one. MXCSR is not part of any. */
void fpu_init_component(struct cpu *cpu, unsigned int n);
/* FNINIT's state; x87 only. */
void fpu_init_x87(struct cpu *cpu);
/* Any MMX instruction but EMMS: TOP = 0, all registers valid (SDM 1 9.5.1). */
void fpu_enter_mmx(struct cpu *cpu);

/* Offset of extended component n (>= 2) in an area of this guest; xcomp 0: standard format. */
u32 fpu_xsave_offset(const struct cpu *cpu, unsigned int n, u64 xcomp);
/* Where PKRU is in the standard format, unless the guest's CPUID says otherwise. */
u32 fpu_pkru_offset(void);
/* Bytes of component n (>= 2), 0 if we do not have it. */
u32 fpu_xsave_size(unsigned int n);
/* Bytes of an area that holds the components of mask. */
u32 fpu_xsave_end(const struct cpu *cpu, u64 mask, u64 xcomp);

/*
 * Component n to and from its place in an area. wide: 64-bit pointers in the x87 part.
 * nr: registers that the mode can reach, 8 or 16; the others stay as they are.
 */
void fpu_put_x87(const struct cpu *cpu, u8 *area, bool wide);
void fpu_get_x87(struct cpu *cpu, const u8 *area, bool wide);
void fpu_put_vectors(const struct cpu *cpu, u8 *to, unsigned int half, unsigned int nr);
void fpu_get_vectors(struct cpu *cpu, const u8 *from, unsigned int half, unsigned int nr);

/*
 * Whole state as a standard-format XSAVE image of 4096 bytes (KVM_GET/SET_XSAVE), with the
 * components of valid. fpu_set_xsave: 0, or -EINVAL for a compacted image, reserved header bytes
 * or other components, with nothing changed. MXCSR is masked, never believed.
 */
void fpu_get_xsave(const struct cpu *cpu, void *area4096, u64 valid);
MUSTCHECK int fpu_set_xsave(struct cpu *cpu, const void *area4096, u64 valid);

#endif
