// SPDX-License-Identifier: MIT
/* kvmclock's scale: nanoseconds = ((ticks << shift) * mult) >> 32, shift may be negative. */
#include "base/clock.h"

#define NS_PER_SEC 1000000000ull

/*
 * ns per tick = 10^9 / hz = 2^shift * mult / 2^32, so mult = 10^9 * 2^(32-shift) / hz. Find
 * the shift that brings 2^-shift * 10^9 / hz into [1/2, 1): then mult has 32 bits.
 */
void pvclock_scale(u32 tsc_khz, u32 *mult, s8 *shift)
{
	u64 hz = (u64)(tsc_khz ? tsc_khz : 1) * 1000, ns = NS_PER_SEC;
	int s = 0;

	while (ns >= hz) {
		hz <<= 1;
		s++;
	}
	while (2 * ns < hz) {
		ns <<= 1;
		s--;
	}
	*mult = (u32)(((unsigned __int128)ns << 32) / hz);
	*shift = (s8)s;
}

u64 pvclock_ns(u64 ticks, u32 mult, s8 shift)
{
	ticks = shift < 0 ? ticks >> -shift : ticks << shift;
	return (u64)(((unsigned __int128)ticks * mult) >> 32);
}
