/* SPDX-License-Identifier: MIT */
/* The local APIC of guests with IMAGE_IRQCHIP: xAPIC by memory, x2APIC by MSR (SDM 3A 11). */
#ifndef GUEST_APIC_H
#define GUEST_APIC_H

#include "lib.h"

#define APIC_ID	   0x20
#define APIC_TPR   0x80
#define APIC_PPR   0xa0
#define APIC_EOI   0xb0
#define APIC_SVR   0xf0
#define APIC_ISR   0x100
#define APIC_IRR   0x200
#define APIC_ICR   0x300
#define APIC_ICR2  0x310
#define APIC_TIMER 0x320
#define APIC_LINT0 0x350
#define APIC_TMICT 0x380
#define APIC_TMCCT 0x390
#define APIC_TDCR  0x3e0

#define ICR_SELF   0x40000
#define ICR_OTHERS 0xc0000
#define ICR_NMI	   0x400
#define ICR_INIT   0x4500
#define ICR_SIPI   0x4600

#define MSR_APIC_BASE 0x1b
#define TSC_DEADLINE  0x6e0

extern bool x2apic;

static inline u32 apic_read(u32 reg)
{
	return x2apic ? (u32)rdmsr(0x800 + (reg >> 4)) : VAR(u32, 0xfee00000 + reg);
}
static inline void apic_write(u32 reg, u32 v)
{
	if (x2apic)
		wrmsr(0x800 + (reg >> 4), v);
	else
		VAR(u32, 0xfee00000 + reg) = v;
}
/* dest: the target's APIC ID (physical), ignored with a shorthand. */
static inline void apic_icr(u32 dest, u32 v)
{
	if (x2apic) {
		wrmsr(0x830, (u64)dest << 32 | v);
		return;
	}
	apic_write(APIC_ICR2, dest << 24);
	apic_write(APIC_ICR, v);
	while (apic_read(APIC_ICR) & 0x1000)
		;
}
static inline bool apic_bit(u32 reg, unsigned int vector)
{
	return apic_read(reg + (vector >> 5) * 16) >> (vector & 31) & 1;
}
static inline void apic_on(void)
{
	apic_write(APIC_SVR, 0x1ff);
}

/* Called instead of the trap log for vectors of 32 and more, if set. */
extern void (*irq_hook)(struct frame *f);

#endif
