// SPDX-License-Identifier: MIT
/* See world.h. */
#include "world.h"

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "x86/bits.h"

#define GDT  0x7000ul
#define IDT  0x8000ul
#define TSS  0x9000ul
#define IST  0xf000ul
#define MAX_EXITS 4000
#define NX (1ull << 63)

const char *const world_names[NR_WORLDS] = {"off", "on", "verify", "ram", "forced"};
static struct world *volatile running;

static bool devices_are_ram(const struct world *w)
{
	return w->kind >= WORLD_RAM;
}

/* ---- the machine */

static void must(int r, const char *what)
{
	if (r < 0)
		err(1, "%s", what);
}

static void set_slot(struct world *w, u32 slot, u64 gpa, void *hva, u64 size, u32 flags)
{
	struct kvm_userspace_memory_region r = {slot, flags, gpa, size, (uintptr_t)hva};

	must(anykvm_ioctl(w->vm, KVM_SET_USER_MEMORY_REGION, &r), "memory slot");
}

static void set_slots(struct world *w)
{
	struct kvm_coalesced_mmio_zone zone = {.addr = DEV + (DEV_PAGES - 2) * DEV_STEP,
		.size = PAGE_SIZE};
	u32 last = DEV_PAGES - 1;

	set_slot(w, 0, 0, w->ram, RAM_SIZE, 0);
	for (u32 k = 0; k < DEV_PAGES && devices_are_ram(w); k++)
		set_slot(w, 1 + k, DEV + k * DEV_STEP, w->dev + k * PAGE_SIZE, PAGE_SIZE, 0);
	if (devices_are_ram(w))
		return;
	set_slot(w, 1, DEV + last * DEV_STEP, w->dev + last * PAGE_SIZE, PAGE_SIZE, KVM_MEM_READONLY);
	must(anykvm_ioctl(w->vm, KVM_REGISTER_COALESCED_MMIO, &zone), "coalesced zone");
}

static void put64(struct world *w, u64 at, u64 v)
{
	memcpy(w->ram + at, &v, 8);
}

/*
 * Low memory is mapped for the processor's tables; LINEAR's page table is at 0x5000. For each sequence
 * anew: one of the kernel's that finds the GDT would leave a shutdown for every later exception.
 */
static void make_tables(struct world *w)
{
	put64(w, PML4, 0x2000 | 7);
	put64(w, 0x2000, 0x3000 | 7);
	put64(w, 0x2008, 0x4000 | 7);
	put64(w, 0x3000, 0x6000 | 7);
	put64(w, 0x4000, 0x5000 | 7);
	put64(w, 0x6000 + 8 * (GDT >> 12), GDT | 3 | NX);
	put64(w, 0x6000 + 8 * (IDT >> 12), IDT | 1 | NX);
	put64(w, 0x6000 + 8 * (TSS >> 12), TSS | 3 | NX);
	put64(w, 0x6000 + 8 * (TRAPS >> 12), TRAPS | 1);
	put64(w, 0x6000 + 8 * ((IST - 1) >> 12), (IST - 0x1000) | 3 | NX);
	put64(w, PML4 + 8 * (CODE_LINEAR >> 39 & 511), 0x11000 | 7);
	put64(w, 0x11000 + 8 * (CODE_LINEAR >> 30 & 511), 0x12000 | 7);
	put64(w, 0x12000 + 8 * (CODE_LINEAR >> 21 & 511), 0x13000 | 7);
	put64(w, GDT + 0x08, 0x00af9b000000ffff); /* kernel code, data; user data, code */
	put64(w, GDT + 0x10, 0x00cf93000000ffff);
	put64(w, GDT + 0x18, 0x00cff3000000ffff);
	put64(w, GDT + 0x20, 0x00affb000000ffff);
	put64(w, GDT + 0x28, 0x00008b0000000067 | TSS << 16);
	put64(w, TSS + 36, IST);
	for (u64 v = 0; v < 32; v++) {
		u64 at = TRAPS + 16 * v;

		put64(w, IDT + 16 * v, (at & 0xffff) | 8ull << 16 | 0x8e01ull << 32 | (at >> 16) << 48);
		w->ram[at] = 0xf4;
	}
}

static void set_cpuid(struct world *w, int kvm)
{
	struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + 256 * sizeof(c->entries[0]));
	struct kvm_xcrs x = {.nr_xcrs = 1, .xcrs[0].value = 7};

	c->nent = 256;
	must(anykvm_ioctl(kvm, KVM_GET_SUPPORTED_CPUID, c), "KVM_GET_SUPPORTED_CPUID");
	must(anykvm_ioctl(w->vcpu, KVM_SET_CPUID2, c), "KVM_SET_CPUID2");
	must(anykvm_ioctl(w->vcpu, KVM_SET_XCRS, &x), "KVM_SET_XCRS");
	free(c);
}

static void *pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

struct world *world_create(enum world_kind kind)
{
	static const char *const modes[NR_WORLDS] = {"off", "on", "verify", "on", "on"};
	struct world *w = calloc(1, sizeof(*w));
	int kvm = anykvm_open("/dev/kvm", O_RDWR | O_CLOEXEC);

	setenv("ANYKVM_GPA", modes[kind], 1);
	setenv("ANYKVM_FORCE_EMULATION", kind == WORLD_FORCED ? "1" : "0", 1);
	w->kind = kind;
	w->ram = pages(RAM_SIZE);
	w->dev = pages(DEV_PAGES * PAGE_SIZE);
	w->vm = anykvm_ioctl(kvm, KVM_CREATE_VM, 0ul);
	must(w->vm, "KVM_CREATE_VM");
	set_slots(w);
	w->vcpu = anykvm_ioctl(w->vm, KVM_CREATE_VCPU, 0ul);
	must(w->vcpu, "KVM_CREATE_VCPU");
	w->run = anykvm_mmap(NULL, 3 * PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, w->vcpu, 0);
	if (w->run == MAP_FAILED)
		err(1, "kvm_run");
	w->ring = (void *)((u8 *)w->run + KVM_COALESCED_MMIO_PAGE_OFFSET * PAGE_SIZE);
	w->stats = anykvm_ioctl(w->vcpu, KVM_GET_STATS_FD, 0ul);
	must(w->stats, "KVM_GET_STATS_FD");
	set_cpuid(w, kvm);
	anykvm_close(kvm);
	return w;
}

void world_fill(struct world *w, u64 seed)
{
	struct gen g = {seed};

	for (u64 at = POOL; at < POOL + POOL_PAGES * PAGE_SIZE; at += 8)
		put64(w, at, gen_next(&g));
	for (u64 at = 0; at < DEV_PAGES * PAGE_SIZE; at += 8) {
		u64 v = gen_next(&g);

		memcpy(w->dev + at, &v, 8);
	}
	memset(w->ram + IST - 0x1000, 0, 0x1000);
}

void world_copy(struct world *to, const struct world *from)
{
	memcpy(to->ram, from->ram, RAM_SIZE);
	memcpy(to->dev, from->dev, DEV_PAGES * PAGE_SIZE);
}

/* ---- a sequence's start */

/* The code's page table: only this sequence's page is there. */
static void map_code(struct world *w, u64 linear)
{
	memset(w->ram + 0x13000, 0, PAGE_SIZE);
	put64(w, 0x13000 + 8 * (linear >> 12 & 511), CODE | 5);
}

static void write_code(struct world *w, const struct start *s)
{
	static const u8 nop[5] = {0x0f, 0x1f, 0x44, 0, 0}, ud2_kvm[5] = {0x0f, 0x0b, 'k', 'v', 'm'};

	memcpy(w->ram + CODE, s->code, CODE_SIZE);
	for (unsigned int k = 0; k < s->n; k++)
		memcpy(w->ram + CODE + s->at[k] - 5, w->kind == WORLD_FORCED ? ud2_kvm : nop, 5);
}

static struct kvm_segment segment(u16 sel, u8 type, u8 dpl, bool l)
{
	return (struct kvm_segment){.selector = sel | dpl, .limit = ~0u, .type = type, .present = 1,
		.dpl = dpl, .s = 1, .l = l, .db = !l, .g = 1};
}

static void set_state(struct world *w, const struct start *s)
{
	struct kvm_segment data = segment(s->cpl ? 0x18 : 0x10, 3, s->cpl, false);
	struct kvm_vcpu_events ev = {.flags = KVM_VCPUEVENT_VALID_SHADOW};
	struct kvm_sregs r;
	struct kvm_xsave x;

	must(anykvm_ioctl(w->vcpu, KVM_GET_SREGS, &r), "KVM_GET_SREGS");
	r.cs = segment(s->cpl ? 0x20 : 0x08, 11, s->cpl, true);
	r.ds = r.es = r.fs = r.gs = r.ss = data;
	r.fs.base = s->fs;
	r.gs.base = s->gs;
	r.tr = (struct kvm_segment){.base = TSS, .limit = 0x67, .selector = 0x28, .type = 11, .present = 1};
	r.ldt = (struct kvm_segment){.unusable = 1};
	r.gdt = (struct kvm_dtable){.base = GDT, .limit = 0x37};
	r.idt = (struct kvm_dtable){.base = IDT, .limit = 32 * 16 - 1};
	r.cr0 = s->cr0;
	r.cr2 = 0;
	r.cr3 = s->cr3;
	r.cr4 = s->cr4;
	r.efer = 0xd00; /* NXE, LMA, LME */
	memset(r.interrupt_bitmap, 0, sizeof(r.interrupt_bitmap));
	must(anykvm_ioctl(w->vcpu, KVM_SET_SREGS, &r), "KVM_SET_SREGS");
	must(anykvm_ioctl(w->vcpu, KVM_SET_REGS, &s->regs), "KVM_SET_REGS");
	must(anykvm_ioctl(w->vcpu, KVM_SET_VCPU_EVENTS, &ev), "KVM_SET_VCPU_EVENTS");
	memset(&x, 0, sizeof(x));
	memcpy(x.region, s->fpu, sizeof(s->fpu));
	x.region[512 / 4] = 7; /* XSTATE_BV */
	memcpy(x.region + 576 / 4, s->ymm, sizeof(s->ymm));
	must(anykvm_ioctl(w->vcpu, KVM_SET_XSAVE, &x), "KVM_SET_XSAVE");
}

/* ---- user space */

static void hash(struct world *w, u64 v)
{
	w->exits_hash = (w->exits_hash ^ v) * 0x100000001b3;
}

static u8 *device(struct world *w, u64 gpa, u32 len)
{
	u64 page = (gpa - DEV) / DEV_STEP, off = gpa & (PAGE_SIZE - 1);

	if (gpa < DEV || page >= DEV_PAGES || (gpa - DEV) % DEV_STEP >= PAGE_SIZE || off + len > PAGE_SIZE)
		errx(1, "%s: access to gpa %#llx of %u bytes", world_names[w->kind],
			(unsigned long long)gpa, len);
	return w->dev + page * PAGE_SIZE + off;
}

static void drain(struct world *w)
{
	u32 at = w->ring->first;

	for (; at != w->ring->last; at = (at + 1) % KVM_COALESCED_MMIO_MAX) {
		const struct kvm_coalesced_mmio *m = &w->ring->coalesced_mmio[at];

		memcpy(device(w, m->phys_addr, m->len), m->data, m->len);
		hash(w, m->phys_addr);
		hash(w, m->len);
	}
	w->ring->first = at;
}

static void answer_mmio(struct world *w)
{
	struct kvm_run *r = w->run;
	u8 *at = device(w, r->mmio.phys_addr, r->mmio.len);
	u64 data = 0;

	hash(w, r->mmio.phys_addr);
	hash(w, r->mmio.len << 1 | r->mmio.is_write);
	if (r->mmio.is_write) {
		memcpy(at, r->mmio.data, r->mmio.len);
		memcpy(&data, r->mmio.data, r->mmio.len);
		hash(w, data);
		return;
	}
	data = w->is_volatile ? gen_next(&w->reply) : ~0ull;
	memcpy(r->mmio.data, &data, 8);
	if (!w->is_volatile)
		memcpy(r->mmio.data, at, r->mmio.len);
}

/* Bytes in a row, so that it does not matter how many come at once. */
static void answer_port(struct world *w)
{
	struct kvm_run *r = w->run;
	u8 *p = (u8 *)r + r->io.data_offset;

	hash(w, r->io.port << 8 | r->io.size << 1 | r->io.direction);
	for (u32 k = 0; k < r->io.size * r->io.count; k++)
		if (r->io.direction == KVM_EXIT_IO_IN)
			p[k] = gen_next(&w->reply);
		else
			hash(w, p[k]);
}

/* Things that must make no difference. */
static void make_noise(struct world *w)
{
	struct kvm_vcpu_events ev;
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	char buf[256];

	switch (gen_below(&w->noise, 24)) {
	case 0:
		w->run->immediate_exit = 1;
		break;
	case 1:
		must(anykvm_ioctl(w->vcpu, KVM_GET_REGS, &regs), "KVM_GET_REGS");
		must(anykvm_ioctl(w->vcpu, KVM_SET_REGS, &regs), "KVM_SET_REGS");
		break;
	case 2:
		must(anykvm_ioctl(w->vcpu, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
		must(anykvm_ioctl(w->vcpu, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
		break;
	case 3:
		must(anykvm_ioctl(w->vcpu, KVM_GET_VCPU_EVENTS, &ev), "KVM_GET_VCPU_EVENTS");
		must(anykvm_ioctl(w->vcpu, KVM_SET_VCPU_EVENTS, &ev), "KVM_SET_VCPU_EVENTS");
		break;
	case 4:
		if (pread(w->stats, buf, sizeof(buf), 0) <= 0)
			err(1, "statistics");
		break;
	}
}

static void show_exit(struct world *w)
{
	struct kvm_regs r;

	must(anykvm_ioctl(w->vcpu, KVM_GET_REGS, &r), "KVM_GET_REGS");
	printf("%s: exit %u rip %llx rcx %llx rsi %llx rdi %llx rflags %llx", world_names[w->kind], w->reason,
		r.rip, r.rcx, r.rsi, r.rdi, r.rflags);
	if (w->reason == KVM_EXIT_MMIO)
		printf(" gpa %llx len %u%s", w->run->mmio.phys_addr, w->run->mmio.len,
			w->run->mmio.is_write ? " write" : "");
	if (w->reason == KVM_EXIT_IO)
		printf(" port %x size %u count %u", w->run->io.port, w->run->io.size,
			w->run->io.count);
	puts("");
}

/* One KVM_RUN: true if the sequence goes on. */
static bool run_once(struct world *w)
{
	int r = anykvm_ioctl(w->vcpu, KVM_RUN, 0ul);

	/*
	 * The ring is emptied at exits only: where in a REP an interruption takes effect differs
	 * between off and on, and with it when a full ring would begin to exit.
	 */
	if (r < 0 && errno == EINTR) {
		w->run->immediate_exit = 0;
		return !w->stuck;
	}
	drain(w);
	if (r < 0)
		err(1, "%s: KVM_RUN", world_names[w->kind]);
	w->reason = w->run->exit_reason;
	if (getenv("SHOW"))
		show_exit(w);
	if (++w->exits > MAX_EXITS)
		w->stuck = true;
	if (w->reason == KVM_EXIT_MMIO)
		answer_mmio(w);
	else if (w->reason == KVM_EXIT_IO)
		answer_port(w);
	else
		return false;
	make_noise(w);
	return !w->stuck;
}

void world_interrupt(void)
{
	struct world *w = running;

	if (!w)
		return;
	w->stuck = true;
	w->run->immediate_exit = 1;
}

/* Leave nothing outstanding: the next sequence may start at the same RIP. */
static void give_up(struct world *w)
{
	struct kvm_regs r = {.rip = TRAPS, .rflags = 2};

	w->run->immediate_exit = 1;
	must(anykvm_ioctl(w->vcpu, KVM_SET_REGS, &r), "KVM_SET_REGS");
	while (anykvm_ioctl(w->vcpu, KVM_RUN, 0ul) == 0)
		;
	w->run->immediate_exit = 0;
	drain(w);
}

void world_run(struct world *w, const struct start *s)
{
	w->noise.state = s->noise;
	w->reply.state = s->reply;
	w->is_volatile = s->is_volatile;
	w->exits = w->reason = 0;
	w->exits_hash = 1;
	w->stuck = false;
	make_tables(w);
	memcpy(w->ram + 0x5000, s->pte, sizeof(s->pte));
	map_code(w, s->regs.rip);
	write_code(w, s);
	set_state(w, s);
	running = w;
	while (run_once(w))
		;
	running = NULL;
	if (w->stuck)
		give_up(w);
}

/* ---- comparison */

static const char *text(const char *what, u64 at)
{
	static char buf[100];

	snprintf(buf, sizeof(buf), what, (unsigned long long)at);
	return buf;
}

static const char *bytes_differ(const char *what, const u8 *a, const u8 *b, u64 from, u64 to)
{
	if (!memcmp(a + from, b + from, to - from))
		return NULL;
	while (a[from] == b[from])
		from++;
	return text(what, from);
}

static const char *registers_differ(struct world *a, struct world *b)
{
	struct kvm_regs ra, rb;
	struct kvm_sregs sa, sb;
	struct kvm_xsave xa, xb;

	must(anykvm_ioctl(a->vcpu, KVM_GET_REGS, &ra), "KVM_GET_REGS");
	must(anykvm_ioctl(b->vcpu, KVM_GET_REGS, &rb), "KVM_GET_REGS");
	if (memcmp(&ra, &rb, sizeof(ra)))
		return bytes_differ("kvm_regs at byte %#llx", (u8 *)&ra, (u8 *)&rb, 0, sizeof(ra));
	must(anykvm_ioctl(a->vcpu, KVM_GET_SREGS, &sa), "KVM_GET_SREGS");
	must(anykvm_ioctl(b->vcpu, KVM_GET_SREGS, &sb), "KVM_GET_SREGS");
	if (memcmp(&sa, &sb, sizeof(sa)))
		return bytes_differ("kvm_sregs at byte %#llx", (u8 *)&sa, (u8 *)&sb, 0, sizeof(sa));
	must(anykvm_ioctl(a->vcpu, KVM_GET_XSAVE, &xa), "KVM_GET_XSAVE");
	must(anykvm_ioctl(b->vcpu, KVM_GET_XSAVE, &xb), "KVM_GET_XSAVE");
	return bytes_differ("kvm_xsave at byte %#llx", (u8 *)&xa, (u8 *)&xb, 0, sizeof(xa));
}

const char *world_differs(struct world *a, struct world *b, bool exits)
{
	const char *d;

	if (a->stuck || b->stuck)
		return NULL;
	if (a->reason != b->reason)
		return text("last exit, in the second %llu", b->reason);
	if (exits && (a->exits != b->exits || a->exits_hash != b->exits_hash))
		return text("exits, in the second %llu", b->exits);
	d = registers_differ(a, b);
	if (!d)
		d = bytes_differ("RAM at %#llx", a->ram, b->ram, 0, CODE);
	if (!d)
		d = bytes_differ("RAM at %#llx", a->ram, b->ram, CODE + PAGE_SIZE, RAM_SIZE);
	return d ? d : bytes_differ("devices at %#llx", a->dev, b->dev, 0, DEV_PAGES * PAGE_SIZE);
}
