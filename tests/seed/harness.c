// SPDX-License-Identifier: MIT
/* See harness.h. */
#include "harness.h"

#include <stdio.h>

static u8 *device_byte(struct seed *s, u64 g)
{
	if (g >= DEV_GPA && g < DEV_GPA + DEV_SIZE - 2 * PAGE_SIZE)
		return s->dev + (g - DEV_GPA);
	if ((g & PAGE_MASK) == G_IOA)
		return s->dev + DEV_SIZE - 2 * PAGE_SIZE + (g - G_IOA);
	assert_true((g & PAGE_MASK) == G_L);
	return s->dev + DEV_SIZE - PAGE_SIZE + (g - G_L);
}

u8 *seed_at(struct seed *s, u64 linear)
{
	const struct seed_page *p = seed_page_of(linear);
	u64 g;

	assert_non_null(p);
	g = p->gpa | (linear & ~PAGE_MASK);
	return g < RAM_SIZE ? s->g->ram + g : device_byte(s, g);
}

void seed_poke(struct seed *s, u64 linear, u64 value)
{
	for (unsigned int k = 0; k < 8; k++)
		*seed_at(s, linear + k) = value >> (8 * k);
}

u64 seed_peek(struct seed *s, u64 linear)
{
	u64 v = 0;

	for (unsigned int k = 0; k < 8; k++)
		v |= (u64)*seed_at(s, linear + k) << (8 * k);
	return v;
}

/* ---- the in-process bus: the pages L and IOA are devices, and there may be an ioeventfd */

static int bus_mmio(struct seed *s, u64 g, unsigned int len, void *data, bool write)
{
	s->bus_calls++;
	if (write && s->event_len && g == s->event_gpa && len == s->event_len) {
		s->event_hits++;
		return 0;
	}
	if ((g & PAGE_MASK) != G_L && (g & PAGE_MASK) != G_IOA)
		return -1;
	if (write)
		memcpy(device_byte(s, g), data, len);
	else
		memcpy(data, device_byte(s, g), len);
	return 0;
}
static int bus_mmio_read(void *opaque, gpa_t g, unsigned int len, void *data)
{
	return bus_mmio(opaque, g.v, len, data, false);
}
static int bus_mmio_write(void *opaque, gpa_t g, unsigned int len, const void *data)
{
	return bus_mmio(opaque, g.v, len, (void *)data, true);
}

/* Port 0x60 is in-process: reads give 0x5a. */
static int bus_pio_read(void *opaque, u16 port, unsigned int len, void *data)
{
	(void)opaque;
	if (port != 0x60)
		return -1;
	memset(data, 0x5a, len);
	return 0;
}
static int bus_pio_write(void *opaque, u16 port, unsigned int len, const void *data)
{
	(void)opaque, (void)len, (void)data;
	return port == 0x60 ? 0 : -1;
}

/* ---- memory */

static void map_pages(struct seed *s)
{
	u64 *pdpt = (u64 *)(s->g->ram + PAGES + 0x1000), *pd = (u64 *)(s->g->ram + PD_HIGH),
	    *pt = (u64 *)(s->g->ram + PT_HIGH);

	pdpt[1] = PD_HIGH | 7;
	pd[0] = PT_HIGH | 7;
	for (unsigned int k = 0; k < NR_SEED_PAGES; k++)
		pt[(seed_pages[k].linear >> 12) & 511] = seed_pages[k].gpa | seed_pages[k].flags;
}

u64 *seed_pte(struct seed *s, u64 linear)
{
	return (u64 *)(s->g->ram + PT_HIGH) + ((linear >> 12) & 511);
}

static void add_slots(struct seed *s)
{
	struct mem *m = s->g->mem;

	if (s->ram_world) {
		assert_int_equal(mem_set_slot(m, 0, 1, 0, gpa(DEV_GPA), DEV_SIZE - 2 * PAGE_SIZE,
			s->dev), 0);
		assert_int_equal(mem_set_slot(m, 0, 4, 0, gpa(G_IOA), PAGE_SIZE,
			s->dev + DEV_SIZE - 2 * PAGE_SIZE), 0);
		assert_int_equal(mem_set_slot(m, 0, 2, 0, gpa(G_L), PAGE_SIZE,
			s->dev + DEV_SIZE - PAGE_SIZE), 0);
	} else {
		assert_int_equal(mem_set_slot(m, 0, 3, MEM_READONLY, gpa(G_ROM), PAGE_SIZE,
			s->rom), 0);
	}
}

void seed_slots_changed(struct seed *s)
{
	cpu_detach(&s->g->cpu);
	assert_int_equal(cpu_attach(&s->g->cpu), 0);
}

/* ---- descriptors: flat segments, a TSS with one stack, a gate for each exception */

static void put(u8 *p, u64 v)
{
	memcpy(p, &v, 8);
}

static void make_tables(struct seed *s)
{
	struct cpu *cpu = &s->g->cpu;
	u8 *ram = s->g->ram;

	put(ram + GDT + 0x08, 0x00af9b000000ffff); /* 64-bit code */
	put(ram + GDT + 0x10, 0x00cf93000000ffff); /* data */
	put(ram + GDT + 0x18, 0x00cf9b000000ffff); /* 32-bit code */
	put(ram + GDT + 0x20, 0x00008b0000000067 | TSS << 16);
	put(ram + GDT + 0x28, 0);
	put(ram + TSS + 36, IST);
	for (unsigned int v = 0; v < 32; v++) {
		u64 at = TRAPS + 16 * v;

		put(ram + IDT + 16 * v, (at & 0xffff) | 8ul << 16 | 0x8e01ul << 32 | (at >> 16) << 48);
		ram[at] = 0xf4;
	}
	cpu->gdtr = (struct desc_table){.base = GDT, .limit = 0x2f};
	cpu->idtr = (struct desc_table){.base = IDT, .limit = 32 * 16 - 1};
	cpu->tr = (struct segment){.sel = 0x20, .attr = 0x8b, .limit = 0x67, .base = TSS};
}

static void set_registers(struct cpu *cpu)
{
	for (unsigned int k = 0; k < 16; k++)
		cpu->regs[k] = 0x1122334455667788ul * (k + 1);
	cpu->regs[GPR_RSP] = 0x4000c800;
	cpu->regs[GPR_RDX] = 0x3f8;
	for (unsigned int k = 0; k < sizeof(cpu->fpu.ymm); k++)
		((u8 *)cpu->fpu.ymm)[k] = seed_pattern(k + 7);
	cpu->cr4 |= CR4_OSXSAVE;
	cpu->xcr0 = 7;
	cpu_update_paging(cpu, false);
}

struct seed *seed_create(enum emul_gpa_mode mode, bool ram_world)
{
	struct seed *s = calloc(1, sizeof(*s));
	struct emul_bus bus = {
		.mmio_read = bus_mmio_read,
		.mmio_write = bus_mmio_write,
		.pio_read = bus_pio_read,
		.pio_write = bus_pio_write,
		.opaque = s,
	};

	s->g = guest_create();
	s->ram_world = ram_world;
	s->max_fragments = 10000;
	assert_int_equal(posix_memalign((void **)&s->dev, PAGE_SIZE, DEV_SIZE), 0);
	assert_int_equal(posix_memalign((void **)&s->rom, PAGE_SIZE, PAGE_SIZE), 0);
	for (unsigned int k = 0; k < DEV_SIZE; k++)
		s->dev[k] = seed_pattern(k);
	for (unsigned int k = 0x180000; k < 0x1b0000; k++)
		s->g->ram[k] = seed_pattern(k + 3);
	memcpy(s->rom, s->dev + 0x60000, PAGE_SIZE);
	map_pages(s);
	add_slots(s);
	seed_slots_changed(s);
	make_tables(s);
	set_registers(&s->g->cpu);
	assert_int_equal(emul_init(&s->em, &bus), 0);
	s->em.mode = mode;
	s->em.outs_batch = true;
	return s;
}

void seed_destroy(struct seed *s)
{
	emul_free(&s->em);
	guest_destroy(s->g);
	free(s->dev);
	free(s->rom);
	free(s);
}

void seed_load(struct seed *s, const u8 *code, size_t n, unsigned int bits)
{
	struct cpu *cpu = &s->g->cpu;

	memcpy(s->g->ram + CODE, code, n);
	if (bits == 32) {
		cpu->seg[SEG_CS] = (struct segment){.sel = 0x18, .attr = 0xc09b, .limit = ~0u};
		for (unsigned int k = 0; k < 16; k++)
			cpu->regs[k] = (u32)cpu->regs[k];
	}
	cpu_update(cpu);
}

/* ---- user space */

static void note(struct seed *s, const char *fmt, ...)
{
	size_t n = strlen(s->events);
	va_list ap;

	if (n + 40 > sizeof(s->events))
		return;
	if (n)
		s->events[n++] = ' ';
	va_start(ap, fmt);
	vsnprintf(s->events + n, sizeof(s->events) - n, fmt, ap);
	va_end(ap);
}

static void note_fragment(struct seed *s, const struct fragment *f)
{
	if (f->is_pio)
		note(s, "%s%ux%u", f->is_write ? "OUT" : "IN", f->size, f->count);
	else
		note(s, "%c%u", f->is_write ? 'W' : 'R', f->len);
}

static void answer(struct seed *s, const struct fragment *f, u8 *reply)
{
	memset(reply, 0xee, PAGE_SIZE);
	if (f->is_pio) {
		for (u32 k = 0; k < f->len && !f->is_write; k++)
			reply[k] = seed_pattern(s->pio_seed++);
		return;
	}
	assert_true(f->len >= 1 && f->len <= 8);
	if (f->is_write)
		memcpy(device_byte(s, f->gpa.v), f->data, f->len);
	else
		memcpy(reply, device_byte(s, f->gpa.v), f->len);
}

enum emul_result seed_complete(struct seed *s)
{
	u8 reply[PAGE_SIZE];

	s->last = *emul_fragment(&s->em);
	answer(s, &s->last, reply);
	return emul_complete(&s->em, &s->g->cpu, reply);
}

/* false: leave the loop. */
static bool outcome(struct seed *s, enum emul_result r)
{
	while (r == EMUL_EXIT) {
		s->last = *emul_fragment(&s->em);
		note_fragment(s, &s->last);
		if (++s->fragments > s->max_fragments || (s->hook && !s->hook(s, &s->last))) {
			s->left = true;
			return false;
		}
		r = seed_complete(s);
	}
	if (r == EMUL_EXCEPTION)
		return cpu_deliver(&s->g->cpu, EVENT_EXC, &s->g->cpu.exc) == STOP_OK;
	if (r == EMUL_FAIL) {
		s->failed = true;
		note(s, "FAIL");
		return false;
	}
	return r != EMUL_LEAVE;
}

static void note_end(struct seed *s)
{
	struct cpu *cpu = &s->g->cpu;
	u64 rip = cpu->rip;

	s->stopped_at = rip;
	s->vector = -1;
	if (rip < TRAPS || rip >= TRAPS + 32 * 16)
		return;
	s->vector = (rip - TRAPS) / 16;
	memcpy(&s->error, s->g->ram + IST - 48, 4);
	note(s, "#%d", s->vector);
}

void seed_run(struct seed *s)
{
	struct guest *g = s->g;

	for (unsigned int k = 0; k < 100000; k++) {
		cpu_run(&g->cpu, &g->exit);
		switch (g->exit.reason) {
		case LEAVE_NPF:
		case LEAVE_PIO:
			if (!outcome(s, emul_run(&s->em, &g->cpu, &g->exit.insn, &g->exit.fault)))
				return;
			break;
		case LEAVE_HLT:
			note_end(s);
			return;
		case LEAVE_KICK:
		case LEAVE_NONE:
			break;
		default:
			note(s, "LEAVE%d%s%s", g->exit.reason, g->exit.why ? ":" : "",
				g->exit.why ? g->exit.why : "");
			return;
		}
	}
	note(s, "ENDLESS");
}

u64 seed_data_walks(const struct seed *s)
{
	return s->g->cpu.mmu.walks[WALK_DATA];
}
