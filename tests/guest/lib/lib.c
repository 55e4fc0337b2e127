// SPDX-License-Identifier: MIT
/* See lib.h. Built for 64 and for 32 bits. */
#include "apic.h"

struct trap traps[TRAPS_MAX];
volatile unsigned int nr_traps;
volatile ulong trap_resume, try_ip;
bool (*trap_hook)(struct frame *f);
void (*irq_hook)(struct frame *f);
bool x2apic;
u64 idt[512] __attribute__((aligned(16)));
struct tss tss __attribute__((aligned(16)));
static ulong next_page = POOL;

/* ---- reports */

void test_begin(const char *name)
{
	outl(PORT_TEST, (u32)(ulong)name);
}

void check(const char *name, u64 got, u64 want)
{
	struct report r = {.name = (u32)(ulong)name, .got = got, .want = want};

	outl(PORT_REPORT, (u32)(ulong)&r);
}

void guest_end(void)
{
	for (;;)
		outl(PORT_END, 0);
}

static long service_do(volatile struct service *s)
{
	outl(PORT_SERVICE, (u32)(ulong)s);
	return s->ret;
}

long service(unsigned int op, u64 a, u64 b, u64 c, u64 d)
{
	struct service s = {.op = op, .a = a, .b = b, .c = c, .d = d};

	return service_do(&s);
}

long service_cpu(unsigned int op, unsigned int cpu, u64 a, u64 b)
{
	struct service s = {.op = op, .cpu = cpu, .a = a, .b = b};

	return service_do(&s);
}

/* ---- traps */

static void unexpected(const struct frame *f)
{
	check("unexpected trap: vector", f->vector, ~0ul);
	check("unexpected trap: error", f->error, ~0ul);
	check("unexpected trap: rip", f->ip, ~0ul);
	check("unexpected trap: cr2", read_cr2(), ~0ul);
	guest_end();
}

static void trap_log(const struct frame *f)
{
	struct trap *t = &traps[nr_traps % TRAPS_MAX];

	*t = (struct trap){.vector = f->vector, .error = f->error, .ip = f->ip, .cs = f->cs,
			   .flags = f->flags, .frame = (ulong)f,
			   .ax = f->ax, .cx = f->cx, .si = f->si, .di = f->di};
#ifdef PROT32
	if (f->cs & 3 || f->flags & VM_FLAG) {
		t->sp = f->sp;
		t->ss = f->ss;
	}
#else
	t->sp = f->sp;
	t->ss = f->ss;
#endif
	t->cr2 = read_cr2();
	if (f->vector == DB) {
		t->dr6 = read_dr6();
		write_dr6(0);
	}
	nr_traps = nr_traps + 1;
}

static bool is_fault(ulong vector)
{
	return vector < 32 && vector != DB && vector != NMI && vector != BP && vector != OF;
}

/* An instruction breakpoint would hit again behind the IRET: RF. TF ends where TRY's code ends. */
static void debug_resume(struct frame *f)
{
	f->flags |= RF;
	if (trap_resume && f->ip == trap_resume)
		f->flags &= ~TF;
}

void trap_entry(struct frame *f);
void trap_entry(struct frame *f)
{
	if (f->vector == USER_EXIT)
		user_return(f->ax);
	if (irq_hook && f->vector >= 32) {
		irq_hook(f);
		return;
	}
	trap_log(f);
	if (trap_hook && trap_hook(f))
		return;
	if (f->vector == DB)
		debug_resume(f);
	if (!is_fault(f->vector))
		return;
	if (trap_resume) {
		f->ip = trap_resume;
		f->flags &= ~TF;
	} else if ((f->cs & 3) == 3) {
		user_return(~0ul);
	} else {
		unexpected(f);
	}
}

void idt_set(unsigned int vector, ulong handler, u16 sel, u8 type, u8 dpl, u8 ist)
{
	u64 lo = (handler & 0xffff) | (u64)sel << 16 | (u64)ist << 32 |
		 (u64)(type | dpl << 5 | 0x80) << 40 | (u64)(handler >> 16 & 0xffff) << 48;
#ifdef PROT32
	idt[vector] = lo;
#else
	idt[2 * vector] = lo;
	idt[2 * vector + 1] = handler >> 32;
#endif
}

u64 gdt_desc(u32 base, u32 limit, u8 access, u8 flags)
{
	return (limit & 0xffff) | (u64)(base & 0xffffff) << 16 | (u64)access << 40 |
	       (u64)(limit >> 16 & 0xf) << 48 | (u64)flags << 52 | (u64)(base >> 24) << 56;
}

void gdt_set(u16 sel, u64 desc)
{
	gdt[sel >> 3] = desc;
}

static void tss_init(void)
{
#ifdef PROT32
	tss.esp0 = STACK_TOP - 0x10000;
	tss.ss0 = KERNEL_DS;
#else
	tss.rsp[0] = STACK_TOP - 0x10000;
	for (int k = 0; k < 7; k++)
		tss.ist[k] = IST_STACK - 4096 * k;
#endif
	tss.iomap = sizeof(tss);
	gdt_set(TSS_SEL, gdt_desc((ulong)&tss, sizeof(tss) - 1, 0x89, 0));
	asm volatile("ltr %w0" ::"r"(TSS_SEL));
}

void traps_init(void)
{
	struct {
		u16 limit;
		ulong base;
	} __attribute__((packed)) p = {(sizeof(ulong) == 8 ? 4096 : 2048) - 1, (ulong)idt};
	u16 cs;

	asm volatile("mov %%cs, %w0" : "=r"(cs));
	for (int k = 0; k < 256; k++)
		idt_set(k, (ulong)trap_stubs + 16 * k, cs, 14,
			k == BP || k == OF || k == USER_EXIT ? 3 : 0, 0);
	asm volatile("lidt %0" ::"m"(p));
	tss_init();
}

void want_trap(const char *name, ulong vector)
{
	check(name, nr_traps == 1 ? traps[0].vector : nr_traps ? 1000 + nr_traps : 999, vector);
}

void want_error(const char *name, ulong vector, ulong error)
{
	want_trap(name, vector);
	if (nr_traps)
		check(name, traps[0].error, error);
}

void want_pf(const char *name, ulong error, ulong cr2)
{
	want_error(name, PF, error);
	if (nr_traps)
		check(name, traps[0].cr2, cr2);
}

void want_none(const char *name)
{
	check(name, nr_traps ? 1000 + traps[0].vector : 0, 0);
}

/* ---- CPL 3 */

static ulong (*user_fn)(void);

static void user_first(void)
{
	ulong r = user_fn();

	asm volatile("int %0" ::"N"(USER_EXIT), "a"(r));
	__builtin_unreachable();
}

ulong user_run(ulong (*fn)(void), ulong flags)
{
	ulong r;

	user_fn = fn;
	r = user_enter(user_first, flags | 2, USER_STACK - sizeof(ulong),
		       sizeof(ulong) == 8 ? USER_CS : USER_CS32);
#ifdef PROT32
	asm volatile("mov %0, %%ds; mov %0, %%es" ::"r"(KERNEL_DS));
#endif
	return r;
}

/* ---- the rest */

bool cpu_has(u32 leaf, u32 sub, unsigned int reg, unsigned int bit)
{
	u32 v[4];

	cpuid(leaf & 0x80000000, 0, v);
	if (v[EAX] < leaf)
		return false;
	cpuid(leaf, sub, v);
	return v[reg] >> bit & 1;
}

bool cpu_is_intel(void)
{
	u32 v[4];

	cpuid(0, 0, v);
	return v[EBX] == 0x756e6547;
}

void *memcpy(void *d, const void *s, size_t n)
{
	for (size_t k = 0; k < n; k++)
		((volatile u8 *)d)[k] = ((const u8 *)s)[k];
	return d;
}

void *memset(void *d, int c, size_t n)
{
	for (size_t k = 0; k < n; k++)
		((volatile u8 *)d)[k] = c;
	return d;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;

	for (; n; n--, x++, y++)
		if (*x != *y)
			return *x - *y;
	return 0;
}

void *page_alloc(void)
{
	void *p = (void *)next_page;

	next_page += 4096;
	return memset(p, 0, 4096);
}
