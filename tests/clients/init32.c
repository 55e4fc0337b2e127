// SPDX-License-Identifier: MIT
/*
 * Init of a 32-bit guest, without a C library: sleeps once (a timer interrupt), computes with the x87,
 * powers the machine off.
 */
#include <linux/reboot.h>

/* Linux' numbers for i386: the headers for -m32 need not be here */
enum { SYS_write = 4, SYS_reboot = 88, SYS_nanosleep = 162 };

struct timespec32 {
	int sec, nsec;
};

static int call(int nr, int a, int b, int c, int d)
{
	int r;

	__asm__ volatile("int $0x80" : "=a"(r) : "0"(nr), "b"(a), "c"(b), "d"(c), "S"(d) : "memory");
	return r;
}

static void say(const char *s)
{
	int n = 0;

	while (s[n])
		n++;
	call(SYS_write, 1, (int)(long)s, n, 0);
}

/* e, by its series, is between two fractions. */
static int compute(void)
{
	volatile long double e = 1, term = 1;

	for (int i = 1; i < 30; i++) {
		term /= i;
		e += term;
	}
	return e > 2.7182818284590452L && e < 2.7182818284590453L;
}

void _start(void)
{
	struct timespec32 t = {0, 20000000};

	say("CLIENT init32\n");
	if (call(SYS_nanosleep, (int)(long)&t, 0, 0, 0) == 0)
		say("CLIENT slept\n");
	if (compute())
		say("CLIENT computed\n");
	call(SYS_reboot, (int)LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
	for (;;)
		;
}
