// SPDX-License-Identifier: MIT
/*
 * Instructions on random state and memory: any mode, random registers and flags, pages that are
 * RAM, device or nothing; device replies are random. The processor and the exit-time emulator
 * without kvm/. Memory is restored by the dirty log, which is thereby checked too.
 */
#include "fuzz.h"

#include <errno.h>
#include <signal.h>
#include <sys/time.h>

#include "cpu/guest_test.h"
#include "emul/emul.h"
#include "x86/bits.h"

#define GDT   0x7000ul
#define IDT64 0x8000ul
#define IDT32 0x8800ul
#define TSS   0x9000ul
#define TRAPS 0xa000ul
#define IST   0x90000ul
#define WORDS (RAM_SIZE / PAGE_SIZE / 64)

static struct guest *g;
static struct emul em;
static u8 *golden; /* RAM as every input finds it */
static struct bytes *replies;

static int bus_read(void *opaque, gpa_t where, unsigned int len, void *data)
{
	(void)opaque;
	if (where.v & 0x1000) /* half of the devices are in user space */
		return -EOPNOTSUPP;
	take(replies, data, len);
	return 0;
}

static int bus_write(void *opaque, gpa_t where, unsigned int len, const void *data)
{
	(void)opaque, (void)len, (void)data;
	return where.v & 0x1000 ? -EOPNOTSUPP : 0;
}

static int bus_in(void *opaque, u16 port, unsigned int len, void *data)
{
	return bus_read(opaque, gpa(port << 12), len, data);
}

static int bus_out(void *opaque, u16 port, unsigned int len, const void *data)
{
	return bus_write(opaque, gpa(port << 12), len, data);
}

static bool bus_doorbell(void *opaque, gpa_t where)
{
	(void)opaque;
	return (where.v & 0xf000) == 0x3000;
}

static void on_alarm(int sig)
{
	(void)sig;
	if (g)
		cpu_request(&g->cpu, REQ_KICK);
}

static void put(u64 at, u64 v)
{
	memcpy(golden + at, &v, 8);
}

/* Tables as in tests/hostile/modes.h, but in a GPA space of 4 MiB RAM and devices above. */
static void make_golden(void)
{
	static const u64 gdt[] = {
		0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cf9b000000ffff, 0x00009b000000ffff,
		0x00cff3000000ffff, 0x00affb000000ffff, 0x00cffb000000ffff, 0x00008b0000000067 | TSS << 16,
	};

	golden = malloc(RAM_SIZE);
	memcpy(golden, g->ram, RAM_SIZE);
	memcpy(golden + GDT, gdt, sizeof(gdt));
	for (u64 v = 0; v < 32; v++) {
		u64 at = TRAPS + 16 * v;

		golden[at] = 0xf4;
		put(IDT64 + 16 * v, at | 8 << 16 | 0xee01ull << 32);
		put(IDT32 + 8 * v, at | 0x18 << 16 | 0xee00ull << 32);
		memcpy(golden + 4 * v, &(u32){at}, 4);
	}
	put(TSS + 36, IST);
	put(TSS + 4, IST | 0x10ull << 32);
	for (u64 k = 2; k < 64; k++) /* PD: devices from 4 MiB on, some holes */
		put(PAGES + 0x2000 + 8 * k, k % 8 == 7 ? 0 : k << 21 | 0x87);
	put(PAGES + 0x2000 + 8, 0x3000 | 7); /* the second 2 MiB by 4K pages */
	for (u64 k = 0; k < 512; k++)
		put(0x3000 + 8 * k, k % 16 == 5 ? 0 : k % 16 == 6 ? 0xd0000000 | k << 12 | 7 :
						      (0x200000 + (k << 12)) | (k % 16 == 7 ? 5 : 7));
	memcpy(g->ram, golden, RAM_SIZE);
}

static void start(void)
{
	struct emul_bus bus = {.mmio_read = bus_read, .mmio_write = bus_write, .doorbell = bus_doorbell,
		.pio_read = bus_in, .pio_write = bus_out};
	struct itimerval t = {{0, 100}, {0, 100}};
	struct sigaction sa = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};

	g = guest_create();
	make_golden();
	FUZZ_CHECK(!emul_init(&em, &bus));
	FUZZ_CHECK(!mem_set_slot(g->mem, 0, 0, MEM_LOG_DIRTY, gpa(0), RAM_SIZE, g->ram));
	FUZZ_CHECK(!cpu_attach(&g->cpu));
	sigaction(SIGALRM, &sa, NULL);
	setitimer(ITIMER_REAL, &t, NULL);
}

static void restore_memory(void)
{
	static unsigned int runs;
	u64 bitmap[WORDS];

	FUZZ_CHECK(mem_get_dirty(g->mem, 0, 0, bitmap, true) == sizeof(bitmap));
	for (unsigned int k = 0; k < WORDS; k++)
		for (u64 w = bitmap[k]; w; w &= w - 1) {
			u64 at = (k * 64ull + __builtin_ctzll(w)) * PAGE_SIZE;

			memcpy(g->ram + at, golden + at, PAGE_SIZE);
		}
	mmu_flush_writes(&g->cpu.mmu);
	if (++runs % 64 == 0) /* a page that was written and is not in the log? */
		FUZZ_CHECK(!memcmp(g->ram, golden, RAM_SIZE));
}

/* Written by us, as a VMM does; restored by hand. */
static void poke(u64 at, const void *p, size_t n)
{
	memcpy(g->ram + at, p, n);
	mem_mark_dirty(g->cpu.mmu.slots, gpa(at));
	mem_mark_dirty(g->cpu.mmu.slots, gpa(at + n - 1));
}

static void set_segment(enum seg s, u16 sel, u16 attr, u64 base)
{
	g->cpu.seg[s] = (struct segment){.sel = sel, .attr = attr, .limit = ~0u, .base = base};
}

enum { REAL, PROT16, PROT32, V86, LONG, LONG_USER, COMPAT, PAE, MODES };

static void set_mode(struct bytes *b, unsigned int mode)
{
	static const u16 code[] = {0x9b, 0x9b, 0xc09b, 0xf3, 0xa09b, 0xa0fb, 0xc0fb, 0xc09b};
	static const u16 data[] = {0x93, 0x93, 0xc093, 0xf3, 0xc093, 0xc0f3, 0xc0f3, 0xc093};
	static const u16 cs[] = {0, 0x20, 0x18, 0, 8, 0x33, 0x3b, 0x18};
	struct cpu *cpu = &g->cpu;
	bool wide = mode >= LONG && mode <= COMPAT;

	cpu->efer = wide ? EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE : 0;
	cpu->cr0 = CR0_ET | CR0_NE | (mode ? CR0_PE : 0) | (wide ? CR0_PG : 0);
	cpu->cr4 = CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | (wide ? CR4_PAE : 0);
	cpu->cr4 |= take_uint32_t(b) & (CR4_SMEP | CR4_SMAP | CR4_PGE | CR4_UMIP | CR4_DE | CR4_TSD | CR4_FSGSBASE);
	cpu->cr0 |= take_uint32_t(b) & (CR0_WP | CR0_AM | CR0_TS | CR0_EM | CR0_MP);
	cpu->xcr0 = 7;
	cpu->cr3 = PAGES;
	for (unsigned int s = 0; s < NR_SEGS; s++)
		set_segment(s, data[mode] == 0x93 ? 0 : 0x10, data[mode], 0);
	set_segment(SEG_CS, cs[mode], code[mode], 0);
	if (mode == REAL || mode == V86)
		for (unsigned int s = 0; s < NR_SEGS; s++)
			cpu->seg[s].limit = 0xffff;
	if (mode == LONG_USER || mode == COMPAT)
		for (unsigned int s = 0; s < NR_SEGS; s++)
			if (s != SEG_CS)
				set_segment(s, 0x2b, 0xc0f3, s == SEG_FS ? take_uint32_t(b) : 0);
	cpu->gdtr = (struct desc_table){.base = GDT, .limit = 0x4f};
	cpu->idtr = (struct desc_table){.base = mode == REAL ? 0 : wide ? IDT64 : IDT32,
		.limit = mode == REAL ? 0x3ff : wide ? 0x1ff : 0xff};
	cpu->tr = (struct segment){.sel = 0x40, .attr = 0x8b, .limit = 0x67, .base = TSS};
}

static void set_state(struct bytes *b)
{
	static const u64 somewhere[] = {DATA, 0x200000, 0x205000 - 3, 0x206ff8, 0x3ffff0, 0x401000, 0xe00000};
	unsigned int mode = take_uint8_t(b) % MODES;
	struct cpu *cpu = &g->cpu;
	u64 flags = EFL_ONE;

	cpu_reset(cpu, false);
	memset(cpu->features, 1, sizeof(cpu->features));
	set_mode(b, mode);
	for (unsigned int k = 0; k < 16; k++) {
		u8 how = take_uint8_t(b);

		cpu->regs[k] = how & 1 ? somewhere[how % ARRAY_SIZE(somewhere)] + (s8)take_uint8_t(b)
				       : take_number(b);
		if (mode != LONG && mode != LONG_USER)
			cpu->regs[k] = (u32)cpu->regs[k];
	}
	if (take_uint8_t(b) % 4)
		cpu->regs[GPR_RSP] = mode == REAL || mode == V86 ? 0xf000 : STACK - take_uint8_t(b);
	take(b, cpu->fpu.ymm, 64);
	flags |= take_uint32_t(b) & (FL_ALL | EFL_DF | EFL_AC | EFL_NT | EFL_IF | 3 << 12);
	flags |= take_uint8_t(b) % 8 ? 0 : EFL_TF;
	flags |= mode == V86 ? EFL_VM : 0;
	cpu->rip = mode == REAL || mode == V86 ? 0xc000 : CODE;
	cpu_set_eflags(cpu, flags);
	if (take_uint8_t(b) % 16 == 0) {
		cpu->dr[0] = DATA;
		cpu->dr[1] = cpu->rip + 2;
		cpu->dr7 = 0x400 | (take_uint32_t(b) & 0xffff00ff);
	}
	cpu_update_paging(cpu, false);
	cpu_update(cpu);
}

static void set_memory(struct bytes *b)
{
	u8 code[64];
	u64 v;

	take(b, code, 1 + take_uint8_t(b) % sizeof(code));
	poke(CODE, code, sizeof(code));
	poke(0xc000, code, sizeof(code));
	for (unsigned int k = take_uint8_t(b) % 4; k; k--) {
		v = take_number(b);
		poke(0x3000 + 8 * (take_uint16_t(b) % 512), &v, 8);
	}
	for (unsigned int k = take_uint8_t(b) % 8; k; k--) {
		v = take_number(b);
		poke(DATA + take_uint8_t(b), &v, 8);
	}
}

/* An exit's answer; registers may be changed meanwhile, as a VMM may. */
static enum emul_result answer(struct bytes *b)
{
	static u8 reply[PAGE_SIZE];
	const struct fragment f = *emul_fragment(&em);

	FUZZ_CHECK(f.len >= 1 && f.len <= (f.is_pio ? PAGE_SIZE : 8));
	FUZZ_CHECK(!f.is_pio || f.len == f.size * f.count);
	take(b, reply, MIN(f.len, 64u));
	if (take_uint8_t(b) % 32 == 0) {
		g->cpu.regs[take_uint8_t(b) & 15] = take_number(b);
		emul_registers_set(&em);
	}
	return emul_complete(&em, &g->cpu, reply);
}

/* false: the end. */
static bool outcome(struct bytes *b, enum emul_result r, unsigned int *budget)
{
	while (r == EMUL_EXIT && --*budget)
		r = answer(b);
	switch (r) {
	case EMUL_EXIT:
		emul_drop(&em);
		return false;
	case EMUL_EXCEPTION:
		return cpu_deliver(&g->cpu, EVENT_EXC, &g->cpu.exc) == STOP_OK;
	case EMUL_DONE:
	case EMUL_RESTART:
		return true;
	default:
		return false;
	}
}

static void run(struct bytes *b)
{
	unsigned int budget = 200, kicks = 0;

	while (--budget) {
		cpu_run(&g->cpu, &g->exit);
		FUZZ_CHECK(g->cpu.regs[GPR_ZERO] == 0);
		switch (g->exit.reason) {
		case LEAVE_NPF:
		case LEAVE_PIO:
			if (!outcome(b, emul_run(&em, &g->cpu, &g->exit.insn, &g->exit.fault), &budget))
				return;
			break;
		case LEAVE_KICK:
			if (++kicks == 2)
				return;
			break;
		case LEAVE_HLT:
			if (b->n < 16)
				return;
			set_state(b);
			break;
		case LEAVE_DEBUG:
		case LEAVE_TPR:
		case LEAVE_IRQ_WINDOW:
			break;
		default:
			return;
		}
	}
}

void fuzz_one(const uint8_t *data, size_t n)
{
	struct bytes b = {data, n};
	u8 k;

	if (!g)
		start();
	replies = &b;
	k = take_uint8_t(&b);
	em.mode = k & 1 ? EMUL_GPA_ON : EMUL_GPA_OFF;
	g->cpu.guest_debug_step = !(k >> 1 & 7);
	set_state(&b);
	set_memory(&b);
	run(&b);
	g->cpu.guest_debug_step = false;
	g->irq = -1;
	restore_memory();
}
