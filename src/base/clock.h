/* SPDX-License-Identifier: MIT */
/* Arithmetic of paravirtual clocks. Reads no clock. */
#ifndef ANYKVM_CLOCK_H
#define ANYKVM_CLOCK_H

#include "base/base.h"

/*
 * The fields tsc_to_system_mul and tsc_shift of a kvmclock page for a TSC of tsc_khz
 * (0 counts as 1): mult is in [2^31, 2^32), so no bit of precision is wasted.
 */
void pvclock_scale(u32 tsc_khz, u32 *mult, s8 *shift);

/* What the guest makes of them: TSC ticks to nanoseconds. */
u64 pvclock_ns(u64 ticks, u32 mult, s8 shift);

#endif
