// SPDX-License-Identifier: MIT
/*
 * The decoder against Zydis: linear sweeps over the code of ELF files, and random bytes in
 * three modes. Compared: whether it is #UD, length, the memory operand (segment, base, index,
 * scale, displacement, bytes, access), registers, immediates, flags and implicit registers.
 * Where the two mean to differ, compare.c says why; everything else is a failure.
 *
 * decode_sweep [-n RANDOM_PER_MODE] [-s SEED] [-c] [-v] [ELF...]
 * -c: goes on until every table row was hit; one that never was is a failure.
 */
#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "compare.h"

/* ---- sweeps -------------------------------------------------------------------------- */

static struct oracle oracles[3];
static unsigned long passed, failed, both_ud, ud_allowed;
static bool verbose;
static unsigned long hits[2048]; /* by row, of instructions that agree */

/* Returns the length to step by. */
static unsigned int one(enum insn_mode mode, const u8 *p, unsigned int n)
{
	struct oracle *z = &oracles[mode];
	struct ours o;

	switch (compare(mode, z, &o, p, n)) {
	case DIFFERENT:
		if (verbose || failed < 50)
			show(stdout, mode, z, &o, p);
		failed++;
		break;
	case BOTH_UD:
		both_ud++;
		passed++;
		return 1;
	case UD_ALLOWED:
		ud_allowed++;
		passed++;
		break;
	default:
		hits[o.i.row]++;
		passed++;
	}
	return ZYAN_SUCCESS(z->status) ? z->i.length : 1;
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

/* Our own speed over the same code, best of five. */
static void speed(const char *what, const u8 *p, size_t n)
{
	struct insn i;
	unsigned long insns = 0;
	double best = 1e9, t;
	unsigned int round;
	size_t at;

	for (round = 0; round < 5; round++) {
		t = now();
		for (at = 0, insns = 0; at + 32 < n; at += MAX(i.len, 1), insns++)
			if (insn_decode(&i, MODE_64, p + at, n - at) > DECODE_UD)
				i.len = 1;
		t = now() - t;
		best = MIN(best, t);
	}
	if (insns > 10000)
		printf("%s: %zu bytes, %lu instructions, %.1f ns each\n", what, n, insns,
			best * 1e9 / insns);
}

static void sweep_code(const char *what, const u8 *p, size_t n)
{
	size_t at;

	for (at = 0; at < n;)
		at += one(MODE_64, p + at, MIN(n - at, 64));
	speed(what, p, n);
}

static int sweep_elf(const char *path)
{
	const Elf64_Ehdr *eh;
	const Elf64_Shdr *sh;
	struct stat st;
	int fd = open(path, O_RDONLY), k;

	if (fd < 0 || fstat(fd, &st)) {
		perror(path);
		return 1;
	}
	eh = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (eh == MAP_FAILED || memcmp(eh->e_ident, ELFMAG, SELFMAG)) {
		fprintf(stderr, "%s: not ELF\n", path);
		return 1;
	}
	sh = (const void *)((const u8 *)eh + eh->e_shoff);
	for (k = 0; k < eh->e_shnum; k++)
		if ((sh[k].sh_flags & SHF_EXECINSTR) && sh[k].sh_type == SHT_PROGBITS)
			sweep_code(path, (const u8 *)eh + sh[k].sh_offset, sh[k].sh_size);
	munmap((void *)eh, st.st_size);
	return 0;
}

static u64 rng;

static u64 rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng * 0x2545f4914f6cdd1d;
}

/*
 * Random bytes alone hit few prefix combinations and rarely a map behind an escape: half of
 * the strings get up to three prefixes and an escape in front.
 */
static void random_bytes(u8 *p)
{
	static const u8 prefixes[] = {0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x36, 0x64, 0x40, 0x48,
		0x41, 0x4f, 0x44};
	u64 r = rnd();
	unsigned int k, n = 0, vex = (r >> 8 & 7) <= 2;

	for (k = 0; k < 32; k += 8) {
		u64 v = rnd();

		memcpy(p + k, &v, 8);
	}
	if (r & 1)
		return;
	if (!vex || !(r >> 16 & 7)) /* prefixes before VEX are mostly #UD */
		for (k = r >> 1 & 3; k; k--)
			p[n++] = prefixes[rnd() % sizeof(prefixes)];
	switch (r >> 8 & 7) {
	case 0:
		p[n++] = 0xc5;
		p[n] |= r & 0x800 ? 0xc0 : 0xf8;
		break;
	case 1:
	case 2:
		p[n++] = 0xc4;
		p[n] = (p[n] & 0xe0) | (1 + (r >> 24) % 3) | (r & 0x800 ? 0xc0 : 0);
		if (r & 0x1000)
			p[n + 1] |= 0x78; /* vvvv = 1111b */
		break;
	case 3:
	case 4:
		p[n] = 0x0f;
		break;
	case 5:
		p[n++] = 0x0f;
		p[n] = r & 0x800 ? 0x38 : 0x3a;
		break;
	}
}

static void sweep_random(enum insn_mode mode, unsigned long count)
{
	u8 p[32];

	while (count--) {
		random_bytes(p);
		one(mode, p, sizeof(p));
	}
}

static bool all_hit(void)
{
	for (unsigned int k = 1; k < nr_insn_rows; k++)
		if (!hits[k])
			return false;
	return true;
}

/* The rarest rows, such as F3 0F 1E F9, may be missing among ten million strings. */
static void sweep_until_all_hit(unsigned long count)
{
	for (unsigned int tries = 0; tries < 20 && !all_hit(); tries++)
		for (enum insn_mode mode = MODE_16; mode <= MODE_64; mode++)
			sweep_random(mode, count / 4);
}

/* Rows that nothing hit were not compared. */
static unsigned int coverage(void)
{
	unsigned int k, seen = 0;

	for (k = 1; k < nr_insn_rows; k++) {
		seen += !!hits[k];
		if (verbose && !hits[k])
			printf("row %u, %s: not seen\n", k, insn_rows[k].name);
	}
	printf("%u of %u table rows seen\n", seen, nr_insn_rows - 1);
	return nr_insn_rows - 1 - seen;
}

int main(int argc, char **argv)
{
	unsigned long random = 0;
	bool complete = false;
	int c, bad = 0;

	rng = (u64)time(NULL) * 0x9e3779b97f4a7c15;
	while ((c = getopt(argc, argv, "n:s:cv")) != -1) {
		if (c == 'n')
			random = strtoul(optarg, NULL, 0);
		else if (c == 's')
			rng = strtoull(optarg, NULL, 0);
		else if (c == 'c')
			complete = true;
		else if (c == 'v')
			verbose = true;
		else
			return 2;
	}
	rng |= 1;
	printf("seed %#llx\n", (unsigned long long)rng);
	for (c = MODE_16; c <= MODE_64; c++)
		oracle_init(&oracles[c], c);
	for (; optind < argc; optind++)
		bad |= sweep_elf(argv[optind]);
	for (c = MODE_16; c <= MODE_64; c++)
		sweep_random(c, random);
	if (complete)
		sweep_until_all_hit(random);
	failed += coverage() * complete;
	show_exceptions(stdout);
	printf("#UD in both: %lu; #UD here only, by the table: %lu\n", both_ud, ud_allowed);
	printf("%lu passed, %lu failed\n", passed, failed + bad);
	return failed || bad;
}
