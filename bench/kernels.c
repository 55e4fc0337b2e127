// SPDX-License-Identifier: MIT
/*
 * How fast a guest computes: small kernels, each timed by itself. The same static program runs on
 * the host, and as /init of a guest, where it ends with power-off. Prints `KERNEL name nanoseconds`:
 * the least of ROUNDS runs.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 3

static volatile uint64_t sink;
static uint32_t random_state = 1;

static uint32_t next_random(void)
{
	return random_state = random_state * 1664525 + 1013904223;
}

static __attribute__((noinline)) unsigned int fib(unsigned int n)
{
	return n < 2 ? n : fib(n - 1) + fib(n - 2);
}
static void run_fib(void)
{
	sink = fib(27);
}

static void run_sum(void)
{
	static volatile uint32_t v[4096];
	uint32_t s = 0;

	for (int r = 0; r < 1000; r++)
		for (int k = 0; k < 4096; k++)
			s += v[k] ^ (s >> 3);
	sink = s;
}

static void run_sieve(void)
{
	static uint8_t composite[1 << 20];
	unsigned int n = 0;

	memset(composite, 0, sizeof(composite));
	for (uint32_t p = 2; p < sizeof(composite); p++) {
		n += !composite[p];
		for (uint32_t k = 2 * p; !composite[p] && k < sizeof(composite); k += p)
			composite[k] = 1;
	}
	sink = n;
}

static int by_value(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}
static void run_qsort(void)
{
	static uint32_t v[1 << 16];

	for (size_t k = 0; k < 1 << 16; k++)
		v[k] = next_random();
	qsort(v, 1 << 16, sizeof(v[0]), by_value);
	sink = v[100];
}

/* Dependent loads over 4 MiB. */
static void run_chase(void)
{
	static uint32_t to[1 << 20];
	uint32_t at = 0;

	for (uint32_t k = 0; k < 1 << 20; k++)
		to[k] = (k * 2654435761u + 12345) & ((1 << 20) - 1);
	for (int k = 0; k < 2000000; k++)
		at = to[at] ^ (k & 1);
	sink = at;
}

static uint64_t rotate(uint64_t x, int n)
{
	return x << n | x >> (64 - n);
}
static void run_mix(void)
{
	uint64_t a = 1, b = 2, c = 3, d = 4;

	for (int k = 0; k < 3000000; k++) {
		a += b;
		d = rotate(d ^ a, 32);
		c += d;
		b = rotate(b ^ c, 24) + k;
	}
	sink = a + b + c + d;
}

/* A small virtual machine: an indirect jump for each step. */
static void run_switch(void)
{
	static uint8_t program[256];
	uint32_t acc = 0, pc = 0;

	for (int k = 0; k < 256; k++)
		program[k] = next_random() >> 24;
	for (int k = 0; k < 4000000; k++)
		switch (program[pc = (pc + 1) & 255] & 7) {
		case 0: acc += pc; break;
		case 1: acc ^= acc << 3; break;
		case 2: acc -= 7; break;
		case 3: acc *= 5; break;
		case 4: acc = ~acc; break;
		case 5: acc |= 1; break;
		case 6: acc ^= acc >> 5; break;
		default: acc += acc & 15;
		}
	sink = acc;
}

static void run_text(void)
{
	static char s[1 << 16];
	uint32_t h = 0;

	for (size_t k = 0; k < sizeof(s) - 1; k++)
		s[k] = 'a' + (next_random() >> 24) % 26;
	for (int r = 0; r < 20; r++)
		for (const char *p = s; *p; p++)
			h = h * 31 + (*p == 'q' ? 1 : *p);
	sink = h;
}

static void run_matmul(void)
{
	static double a[96][96], b[96][96], c[96][96];

	for (int i = 0; i < 96; i++)
		for (int j = 0; j < 96; j++) {
			a[i][j] = i + j;
			b[i][j] = i - j;
			c[i][j] = 0;
		}
	for (int i = 0; i < 96; i++)
		for (int k = 0; k < 96; k++)
			for (int j = 0; j < 96; j++)
				c[i][j] += a[i][k] * b[k][j];
	sink = c[10][10];
}

static void run_copy(void)
{
	static char from[1 << 20], to[1 << 20];

	for (int k = 0; k < 20; k++) {
		memcpy(to, from, sizeof(to));
		from[k] = to[k + 1] + 1;
	}
	sink = to[5];
}

static void run_getppid(void)
{
	for (int k = 0; k < 20000; k++)
		sink += getppid();
}

static const struct {
	const char *name;
	void (*run)(void);
} kernels[] = {
	{"fib", run_fib}, {"sum", run_sum}, {"sieve", run_sieve}, {"qsort", run_qsort},
	{"chase", run_chase}, {"mix", run_mix}, {"switch", run_switch}, {"text", run_text},
	{"matmul", run_matmul}, {"copy", run_copy}, {"getppid", run_getppid},
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

int main(void)
{
	if (getpid() == 1)
		sleep(2); /* until the guest's kernel has settled on a clock */
	for (size_t k = 0; k < sizeof(kernels) / sizeof(kernels[0]); k++) {
		uint64_t least = ~0ull;

		for (int r = 0; r < ROUNDS; r++) {
			uint64_t start = now(), t;

			kernels[k].run();
			t = now() - start;
			least = t < least ? t : least;
		}
		printf("KERNEL %s %llu\n", kernels[k].name, (unsigned long long)least);
		fflush(stdout);
	}
	if (getpid() == 1)
		reboot(RB_POWER_OFF);
	return 0;
}
