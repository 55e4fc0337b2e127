// SPDX-License-Identifier: MIT
/*
 * Interrupt chips and timers of a PC: the LAPIC's timer in its three modes (SDM 3A 11.5.4), IOAPIC
 * edges, levels and EOI (82093AA), the two PICs (8259A), the PIT's channels 0 and 2 (8254).
 */
#include "../lib/apic.h"

#define IOAPIC 0xfec00000
#define LEVEL  0x8000
#define MASKED 0x10000
#define REMOTE_IRR 0x4000

static volatile u32 count[256];
static volatile ulong last;
static volatile u32 in_handler_irr;
static volatile u32 lower_at; /* the handler takes the line down at this count; 0: never */
static volatile bool pic_eoi;
static u32 line;

static void on_irq(struct frame *f)
{
	count[f->vector]++;
	last = f->vector;
	VAR(u32, IOAPIC) = 0x10 + 2 * line; /* low word of the redirection entry */
	in_handler_irr = VAR(u32, IOAPIC + 0x10);
	if (lower_at && count[f->vector] >= lower_at)
		service(SVC_LINE, line, 0, 0, 0);
	if (pic_eoi) {
		if (f->vector >= 0x28)
			outb(0xa0, 0x20);
		outb(0x20, 0x20);
	} else {
		apic_write(APIC_EOI, 0);
	}
}

#define WAIT(what)                                                        \
	({                                                                \
		u64 start_ = rdtsc();                                     \
		while (!(what) && rdtsc() - start_ < 10000000000ull)      \
			asm volatile("pause");                            \
		(what);                                                   \
	})

static u32 ioapic_read(u32 reg)
{
	VAR(u32, IOAPIC) = reg;
	return VAR(u32, IOAPIC + 0x10);
}
static void ioapic_write(u32 reg, u32 v)
{
	VAR(u32, IOAPIC) = reg;
	VAR(u32, IOAPIC + 0x10) = v;
}
static void ioapic_pin(u32 pin, u32 lo)
{
	ioapic_write(0x11 + 2 * pin, 0);
	ioapic_write(0x10 + 2 * pin, lo);
}
static void set_line(u32 gsi, u32 level)
{
	service(SVC_LINE, gsi, level, 0, 0);
}
static void window(void)
{
	asm volatile("sti; nop; nop; nop; cli" ::: "memory");
}

/* ---- LAPIC timer */

static void test_oneshot(void)
{
	test_begin("LAPIC timer, one-shot");
	apic_write(APIC_TDCR, 0xb); /* divide by 1 */
	apic_write(APIC_TIMER, MASKED | 0x60);
	count[0x60] = 0;
	apic_write(APIC_TMICT, 0x7fffffff);
	u32 a = apic_read(APIC_TMCCT), b;

	WAIT((b = apic_read(APIC_TMCCT)) < a);
	check("it counts down", b < a && a <= 0x7fffffff, 1);
	apic_write(APIC_TMICT, 1000);
	check("masked: it reaches 0", WAIT(!apic_read(APIC_TMCCT)), 1);
	window();
	check("masked: no interrupt", count[0x60], 0);
	apic_write(APIC_TIMER, 0x60);
	apic_write(APIC_TMICT, 100000);
	asm volatile("sti");
	check("unmasked", WAIT(count[0x60] == 1), 1);
	for (volatile int k = 0; k < 10000; k++)
		;
	check("only once", count[0x60], 1);
	check("count stays 0", apic_read(APIC_TMCCT), 0);
	apic_write(APIC_TMICT, 20000000); /* 20 ms */
	apic_write(APIC_TMICT, 0);
	service(SVC_SLEEP, 30000, 0, 0, 0);
	asm volatile("cli");
	check("initial count 0 stops it", count[0x60], 1);
}

static void test_periodic(void)
{
	test_begin("LAPIC timer, periodic; HLT");
	count[0x61] = 0;
	apic_write(APIC_TIMER, 0x20000 | 0x61);
	apic_write(APIC_TMICT, 2000000); /* 2 ms at KVM's 1 GHz */
	for (int k = 0; k < 5; k++)
		asm volatile("sti; hlt; cli" ::: "memory");
	check("five HLTs, five interrupts", count[0x61] >= 5, 1);
	apic_write(APIC_TMICT, 0);
	window();
	u32 n = count[0x61];
	for (volatile int k = 0; k < 100000; k++)
		;
	window();
	check("stopped", count[0x61], n);
}

static void test_deadline(void)
{
	u64 t;

	test_begin("LAPIC timer, TSC deadline");
	count[0x62] = 0;
	apic_write(APIC_TIMER, 0x40000 | 0x62);
	asm volatile("mfence" ::: "memory");
	t = rdtsc() + 3000000;
	wrmsr(TSC_DEADLINE, t);
	check("armed, or over already", rdmsr(TSC_DEADLINE) == t || rdtsc() > t, 1);
	apic_write(APIC_TMICT, 12345);
	check("the initial count does not count here", apic_read(APIC_TMCCT), 0);
	asm volatile("sti; hlt; cli" ::: "memory");
	check("fired", count[0x62], 1);
	check("not too early", rdtsc() >= t, 1);
	check("disarmed", rdmsr(TSC_DEADLINE), 0);
	wrmsr(TSC_DEADLINE, 1);
	window();
	check("a deadline in the past fires at once", WAIT((window(), count[0x62] == 2)), 1);
	wrmsr(TSC_DEADLINE, rdtsc() + 100000000000ull);
	wrmsr(TSC_DEADLINE, 0);
	check("0 disarms", rdmsr(TSC_DEADLINE), 0);
	apic_write(APIC_TIMER, MASKED);
}

/* ---- interrupts in the middle of REP: registers exact, RF set (SDM 3A 17.3.1.1) */

#define REP_FROM 0x800000ul
#define REP_TO	 0x1000000ul
#define REP_SIZE 0x800000ul

static volatile ulong rep_ip;
static volatile u32 in_rep, bad_regs, no_rf;

static void on_timer(struct frame *f)
{
	ulong moved = REP_SIZE - f->cx;

	if (f->ip == rep_ip && f->cx && f->cx != REP_SIZE) {
		in_rep++;
		bad_regs += f->si != REP_FROM + moved || f->di != REP_TO + moved;
		no_rf += !(f->flags & RF);
	}
	apic_write(APIC_EOI, 0);
}

static void test_rep(void)
{
	ulong cx = 0, si = 0, di = 0;

	test_begin("timer interrupts in REP MOVSB");
	irq_hook = on_timer;
	apic_write(APIC_TIMER, 0x20000 | 0x64);
	apic_write(APIC_TMICT, 100000); /* 0.1 ms */
	for (int round = 0; round < 200 && in_rep < 3; round++)
		asm volatile("movq $1f, rep_ip; sti; 1: rep movsb; cli"
			     : "=c"(cx), "=S"(si), "=D"(di)
			     : "0"(REP_SIZE), "1"(REP_FROM), "2"(REP_TO)
			     : "memory");
	apic_write(APIC_TMICT, 0);
	window();
	irq_hook = on_irq;
	check("there were some", in_rep >= 3, 1);
	check("RCX, RSI, RDI agree", bad_regs, 0);
	check("RF was pushed", no_rf, 0);
	check("RCX at the end", cx, 0);
	check("RSI at the end", si, REP_FROM + REP_SIZE);
	check("RDI at the end", di, REP_TO + REP_SIZE);
}

/* ---- IOAPIC */

static void test_ioapic_edge(void)
{
	test_begin("IOAPIC, edge");
	line = 10;
	check("version: 24 pins", ioapic_read(1) >> 16 & 0xff, 23);
	ioapic_pin(10, 0x70);
	count[0x70] = 0;
	set_line(10, 1);
	window();
	check("rising edge", count[0x70], 1);
	window();
	check("high is no second edge", count[0x70], 1);
	set_line(10, 0);
	window();
	check("falling is none", count[0x70], 1);
	set_line(10, 1);
	set_line(10, 0);
	window();
	check("a pulse", count[0x70], 2);
	set_line(10, 1);
	set_line(10, 0);
	set_line(10, 1);
	set_line(10, 0);
	window();
	check("two pulses while it is pending: one", count[0x70], 3);
	ioapic_pin(10, MASKED | 0x70);
	set_line(10, 1);
	set_line(10, 0);
	window();
	check("masked", count[0x70], 3);
}

static void test_ioapic_level(void)
{
	test_begin("IOAPIC, level");
	ioapic_pin(10, LEVEL | 0x71);
	count[0x71] = 0;
	lower_at = 1;
	set_line(10, 1);
	window();
	check("once", count[0x71], 1);
	check("remote IRR in the handler", in_handler_irr & REMOTE_IRR, REMOTE_IRR);
	check("remote IRR after EOI", ioapic_read(0x24) & REMOTE_IRR, 0);
	lower_at = 5; /* until then it comes back at each EOI, before any other instruction */
	set_line(10, 1);
	window();
	check("line stays up: again after each EOI", count[0x71], 5);
	u32 n = count[0x71];

	window();
	check("line is down", count[0x71], n);
	ioapic_pin(10, MASKED | LEVEL | 0x71);
	set_line(10, 1);
	window();
	check("masked", count[0x71], n);
	lower_at = 1;
	ioapic_pin(10, LEVEL | 0x71);
	window();
	check("unmasked with the line up", count[0x71], n + 1);
	lower_at = 0;
	ioapic_pin(10, MASKED);
}

/* ---- PIC */

static void pic_init(void)
{
	outb(0x20, 0x11);
	outb(0x21, 0x20);
	outb(0x21, 4);
	outb(0x21, 1);
	outb(0xa0, 0x11);
	outb(0xa1, 0x28);
	outb(0xa1, 2);
	outb(0xa1, 1);
}

static void test_pic(void)
{
	test_begin("PIC through LINT0 as ExtINT");
	pic_init();
	apic_write(APIC_LINT0, 0x700);
	pic_eoi = true;
	outb(0x21, 0xff & ~(1 << 5) & ~(1 << 2));
	outb(0xa1, 0xff & ~(1 << 3));
	check("mask reads back", inb(0x21), 0xdb);
	count[0x25] = count[0x2b] = 0;
	set_line(5, 1);
	window();
	check("IRQ 5", count[0x25], 1);
	window();
	check("edge: once", count[0x25], 1);
	set_line(5, 0);
	set_line(11, 1);
	set_line(5, 1);
	window();
	check("IRQ 11 of the second", count[0x2b], 1);
	check("and IRQ 5", count[0x25], 2);
	check("IRQ 11 (cascade 2) goes before 5: 5 was the last", last, 0x25);
	set_line(5, 0);
	set_line(11, 0);
	outb(0x21, 0xff);
	set_line(5, 1);
	outb(0x20, 0x0a);
	check("masked: IRR", inb(0x20) >> 5 & 1, 1);
	window();
	check("masked: none", count[0x25], 2);
	outb(0x21, 0xff & ~(1 << 5));
	window();
	check("unmasked", count[0x25], 3);
	set_line(5, 0);
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
}

/* ---- PIT */

static u16 pit_count(u8 channel)
{
	outb(0x43, channel << 6); /* latch */
	u16 lo = inb(0x40 + channel);

	return lo | inb(0x40 + channel) << 8;
}

static void test_pit(void)
{
	u16 a;

	test_begin("PIT channel 0 through the PIC and the IOAPIC");
	outb(0x21, 0xfe);
	count[0x20] = 0;
	outb(0x43, 0x34); /* mode 2 */
	outb(0x40, 0xa9); /* 1193: 1 ms */
	outb(0x40, 0x04);
	asm volatile("sti");
	check("mode 2 by the PIC", WAIT(count[0x20] >= 3), 1);
	asm volatile("cli");
	a = pit_count(0);
	check("count stays within its reload value", a >= 1 && a <= 1193, 1);
	outb(0x21, 0xff);
	window();
	pic_eoi = false;
	line = 0; /* KVM's default routes: GSI 0 is pin 0 */
	count[0x73] = 0;
	ioapic_pin(0, 0x73);
	asm volatile("sti");
	check("pin 0 of the IOAPIC", WAIT(count[0x73] >= 3), 1);
	asm volatile("cli");
	outb(0x43, 0x30); /* mode 0: one interrupt, 55 ms from now; the window takes what was pending */
	outb(0x40, 0xff);
	outb(0x40, 0xff);
	window();
	count[0x73] = 0;
	asm volatile("sti");
	check("mode 0", WAIT(count[0x73] >= 1), 1);
	for (volatile int k = 0; k < 50000; k++)
		;
	asm volatile("cli");
	check("mode 0: once", count[0x73], 1);
	ioapic_pin(0, MASKED);

	test_begin("PIT channel 2 and port 61h");
	outb(0x61, inb(0x61) & ~3); /* gate off */
	outb(0x43, 0xb0);	    /* channel 2, mode 0 */
	outb(0x42, 0x00);
	outb(0x42, 0xff); /* 55 ms */
	outb(0x61, (inb(0x61) & ~3) | 1);
	check("output is low", inb(0x61) >> 5 & 1, 0);
	a = pit_count(2);
	check("gate on: it counts", WAIT(pit_count(2) != a), 1);
	check("output goes high", WAIT(inb(0x61) >> 5 & 1), 1);
	check("gate and speaker bits read back", inb(0x61) & 3, 1);
	outb(0x43, 0xe8); /* read back: status of channel 2 */
	check("status: output high, mode 0", inb(0x42) & 0x8e, 0x80);
	outb(0x61, 0);
}

void guest_main(void)
{
	traps_init();
	apic_on();
	irq_hook = on_irq;
	outb(0x21, 0xff);
	outb(0xa1, 0xff);
	test_oneshot();
	test_periodic();
	test_deadline();
	test_rep();
	test_ioapic_edge();
	test_ioapic_level();
	test_pic();
	test_pit();
}
