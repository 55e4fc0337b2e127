// SPDX-License-Identifier: MIT
/*
 * The seed by chance: random instructions on random mappings of RAM, a read-only slot, devices
 * and nothing, with random interruptions. Every world must end in the same state: off, on and
 * verify with the same exits, and the same as where the devices are RAM, there also with each
 * instruction sent through the exit-time emulator (SEED rules 7, 27, 33; issue 3).
 *
 * seed_fuzz [SEED [COUNT [FIRST]]]: sequences FIRST.. of SEED; 20,000 of a random seed if not
 * given. To repeat a failure: the printed SEED, 1, the printed number; SHOW=1 prints all exits.
 */
#include "world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/time.h>

#include "x86/bits.h"

/*
 * Sequences after which memory is filled anew. Each of them has its code elsewhere: what it
 * leaves in memory, a return address, leads the next into nothing, not into the midst of an
 * instruction, where the forced world's prefix would be seen.
 */
#define EPOCH CODE_SLOTS
#define NX    (1ull << 63)

static struct world *worlds[NR_WORLDS];
static u64 seed;
static unsigned int failed, stuck, exits;

/* ---- a sequence */

static u64 random_pte(struct gen *g)
{
	u64 flags = 1 | 2 * !!gen_below(g, 7) | 4 * !!gen_below(g, 5) | 0x20 * gen_one_in(g, 2) |
		0x40 * gen_one_in(g, 2);
	u32 kind = gen_below(g, 20);

	if (kind == 0)
		return 0;
	if (kind < 9)
		return (POOL + gen_below(g, POOL_PAGES) * PAGE_SIZE) | flags | NX;
	return (DEV + gen_below(g, DEV_PAGES) * DEV_STEP) | flags | NX;
}

/* Near a page's end, at its start, anywhere in it. */
static u64 random_pointer(struct gen *g)
{
	u64 page = LINEAR + gen_below(g, PAGES) * PAGE_SIZE;

	switch (gen_below(g, 4)) {
	case 0:
		return page + PAGE_SIZE - gen_below(g, 40);
	case 1:
		return page + gen_below(g, 16);
	case 2:
		return page + 64 * gen_below(g, 64);
	default:
		return page + gen_below(g, PAGE_SIZE);
	}
}

static u64 random_register(struct gen *g)
{
	u32 kind = gen_below(g, 20);

	if (kind < 14)
		return random_pointer(g);
	return kind < 18 ? gen_below(g, 40) : gen_next(g);
}

static void random_registers(struct gen *g, struct kvm_regs *r)
{
	__u64 *reg[] = {&r->rax, &r->rbx, &r->rdx, &r->rsi, &r->rdi, &r->rbp, &r->r8, &r->r9,
		&r->r10, &r->r11, &r->r12, &r->r13, &r->r14, &r->r15, &r->rsp, &r->rcx};

	for (unsigned int k = 0; k < ARRAY_SIZE(reg); k++)
		*reg[k] = random_register(g);
	if (gen_below(g, 3))
		r->rsp = random_pointer(g) & ~7ull;
	if (gen_below(g, 8))
		r->rcx = gen_below(g, 24);
	r->rflags = EFL_ONE | (gen_next(g) & EFL_ARITH) | 3 << 12;
	if (gen_one_in(g, 4))
		r->rflags |= EFL_DF;
	if (gen_one_in(g, 12))
		r->rflags |= EFL_AC;
}

static void random_fpu(struct gen *g, u8 fx[512])
{
	for (unsigned int k = 0; k < 512; k++)
		fx[k] = gen_next(g);
	memset(fx, 0, 32);
	memset(fx + 416, 0, 96);
	fx[0] = 0x7f;
	fx[1] = 3;
	fx[25] = 0x1f;
	fx[24] = 0x80;
	for (unsigned int k = 0; k < 8; k++) /* 80-bit registers in 16 bytes */
		memset(fx + 32 + 16 * k + 10, 0, 6);
}

/*
 * Undefined flags may be the host's of some moment: a CMP follows who leaves any, so that
 * nothing can depend on them.
 */
static void random_code(struct gen *g, struct start *s)
{
	static const u8 cmp_esp_esp[2] = {0x39, 0xe4};
	unsigned int at = 0;
	u8 bytes[15];

	memset(s->code, 0xf4, sizeof(s->code));
	s->n = 1 + gen_below(g, 6);
	for (unsigned int k = 0; k < s->n; k++) {
		at += 5; /* the prefix of the forced world */
		s->at[k] = at;
		gen_insn(g, bytes, &s->insn[k]);
		memcpy(s->code + at, bytes, s->insn[k].len);
		at += s->insn[k].len;
		if (!insn_row(&s->insn[k])->fl_undef)
			continue;
		memcpy(s->code + at, cmp_esp_esp, 2);
		at += 2;
	}
}

static void make_sequence(struct start *s, u64 number)
{
	struct gen g = {seed ^ number * 0xda942042e4dd58b5ull};

	memset(s, 0, sizeof(*s));
	for (unsigned int k = 0; k < PAGES; k++)
		s->pte[k] = random_pte(&g);
	random_registers(&g, &s->regs);
	s->regs.rip = CODE_LINEAR + number % CODE_SLOTS * PAGE_SIZE;
	s->cpl = 3 * gen_one_in(&g, 3);
	s->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_PG | CR0_AM * gen_one_in(&g, 4);
	s->cr3 = PML4 | (number & 1) << 4; /* another value: the TLB is flushed */
	s->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE |
		CR4_SMAP * gen_one_in(&g, 4);
	s->fs = gen_one_in(&g, 2) ? 0 : gen_below(&g, PAGE_SIZE);
	s->gs = gen_one_in(&g, 2) ? 0 : -(u64)gen_below(&g, PAGE_SIZE);
	random_fpu(&g, s->fpu);
	for (unsigned int k = 0; k < sizeof(s->ymm); k++)
		s->ymm[k] = gen_next(&g);
	s->is_volatile = gen_one_in(&g, 5);
	s->noise = gen_next(&g);
	s->reply = gen_next(&g);
	random_code(&g, s);
}

/* ---- what can be compared */

/*
 * A guest that can tell the prefix from the NOP in its place: it sets TF and steps through it,
 * reads its own code, or jumps into it.
 */
static bool sees_prefix(const struct start *s)
{
	for (unsigned int k = 0; k < s->n; k++)
		if (insn_op(&s->insn[k]) == OP_POPF || insn_op(&s->insn[k]) == OP_IRET ||
			s->insn[k].rm == GPR_RIP ||
			insn_row(&s->insn[k])->opnd[0].kind == OPND_J)
			return true;
	return false;
}

static void report(const struct start *s, u64 number, const struct world *a, const struct world *b,
	const char *what)
{
	char text[96];

	failed++;
	printf("FAIL seed %llu number %llu: %s and %s differ: %s (exits %u and %u, CPL %u%s)\n",
		(unsigned long long)seed, (unsigned long long)number, world_names[a->kind],
		world_names[b->kind], what, a->exits, b->exits, s->cpl,
		s->is_volatile ? ", volatile" : "");
	for (unsigned int k = 0; k < s->n; k++) {
		printf("   %4x:", s->at[k]);
		for (unsigned int j = 0; j < s->insn[k].len; j++)
			printf(" %02x", s->code[s->at[k] + j]);
		printf("  %s\n", insn_text(&s->insn[k], text, sizeof(text)));
	}
	fflush(stdout);
}

static void compare(const struct start *s, u64 number)
{
	struct world *off = worlds[WORLD_OFF];
	bool bad = false;

	for (int k = WORLD_ON; k < NR_WORLDS && !bad; k++) {
		const char *d;

		if (k >= WORLD_RAM && s->is_volatile)
			break;
		if (k == WORLD_FORCED && sees_prefix(s))
			break;
		d = world_differs(off, worlds[k], k <= WORLD_VERIFY);
		if (d)
			report(s, number, off, worlds[k], d);
		bad = d;
	}
}

static bool any_stuck(void)
{
	for (int k = 0; k < NR_WORLDS; k++)
		if (worlds[k]->stuck)
			return true;
	return false;
}

static void fuzz(u64 number, bool show)
{
	struct start s;

	make_sequence(&s, number);
	for (int k = 0; k < NR_WORLDS; k++)
		world_run(worlds[k], &s);
	exits += worlds[WORLD_ON]->exits;
	if (any_stuck())
		stuck++;
	else if (show)
		compare(&s, number);
	for (int k = 1; k < NR_WORLDS; k++) /* one difference shall not bring the next */
		world_copy(worlds[k], worlds[0]);
}

static void start_epoch(u64 number)
{
	for (int k = 0; k < NR_WORLDS; k++)
		world_fill(worlds[k], seed + number / EPOCH);
}

static void tick(int sig)
{
	(void)sig;
	world_interrupt();
}

/* Whoever runs at two ticks in a row is stuck: a tick in between clears nothing, so be generous. */
static void start_clock(void)
{
	struct itimerval t = {{0, 500000}, {0, 500000}};
	struct sigaction sa = {.sa_handler = tick};

	sigaction(SIGVTALRM, &sa, NULL);
	setitimer(ITIMER_VIRTUAL, &t, NULL);
}

int main(int argc, char **argv)
{
	u64 count = argc > 2 ? strtoull(argv[2], NULL, 0) : 20000;
	u64 first = argc > 3 ? strtoull(argv[3], NULL, 0) : 0;

	if (argc > 1)
		seed = strtoull(argv[1], NULL, 0);
	else if (getrandom(&seed, sizeof(seed), 0) != sizeof(seed))
		return 1;
	printf("seed %llu\n", (unsigned long long)seed);
	fflush(stdout);
	for (int k = 0; k < NR_WORLDS; k++)
		worlds[k] = world_create(k);
	start_clock();
	for (u64 n = first / EPOCH * EPOCH; n < first + count && failed < 20; n++) {
		if (n % EPOCH == 0)
			start_epoch(n);
		fuzz(n, n >= first);
	}
	printf("%u exits, %u sequences without an end\n", exits, stuck);
	printf("%llu passed, %u failed\n", (unsigned long long)count - failed, failed);
	return failed ? 1 : 0;
}
