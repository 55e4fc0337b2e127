// SPDX-License-Identifier: MIT
/*
 * The clock and CMOS memory of a PC (Motorola MC146818A): time of the host in
 * UTC, 24 hours, BCD. It has no interrupt, and the guest cannot set the clock.
 */
#include "vmm.h"

#include <string.h>
#include <time.h>

#define REG_A 0x0a
#define REG_B 0x0b
#define REG_C 0x0c
#define REG_D 0x0d
#define CENTURY 0x32
#define REG_A_32KHZ 0x26 /* divider on, rate 1024 Hz, no update in progress */
#define REG_B_24H   0x02
#define REG_D_VALID 0x80

void rtc_reset(struct rtc *r)
{
	memset(r, 0, sizeof(*r));
	r->cmos[REG_A] = REG_A_32KHZ;
	r->cmos[REG_B] = REG_B_24H;
}

static u8 bcd(int n)
{
	return n / 10 << 4 | n % 10;
}

u8 rtc_read(struct rtc *r, unsigned int port, time_t now)
{
	struct tm t;

	if (port == 0)
		return 0xff; /* the index register is write-only */
	gmtime_r(&now, &t);
	switch (r->index) {
	case 0:	      return bcd(t.tm_sec);
	case 2:	      return bcd(t.tm_min);
	case 4:	      return bcd(t.tm_hour);
	case 6:	      return bcd(t.tm_wday + 1);
	case 7:	      return bcd(t.tm_mday);
	case 8:	      return bcd(t.tm_mon + 1);
	case 9:	      return bcd(t.tm_year % 100);
	case CENTURY: return bcd((t.tm_year + 1900) / 100);
	case REG_C:   return 0;
	case REG_D:   return REG_D_VALID;
	}
	return r->cmos[r->index];
}

void rtc_write(struct rtc *r, unsigned int port, u8 v)
{
	if (port == 0)
		r->index = v & 0x7f; /* bit 7 masks NMI: there is none */
	else if (r->index == REG_A)
		r->cmos[REG_A] = v & 0x7f;
	else if (r->index == REG_B)
		r->cmos[REG_B] = (v & 0xf8) | REG_B_24H; /* stays BCD, 24 hours */
	else
		r->cmos[r->index] = v;
}
