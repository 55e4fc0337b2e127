// SPDX-License-Identifier: MIT
/*
 * A second processor by INIT and SIPI (SDM 3A 8.4, 11.12), IPIs, LOCK, TLB shoot-down (4.10.5);
 * first with xAPICs, then with x2APICs.
 */
#include "../lib/apic.h"
#include "../lib/paging.h"

#define PING 0x41
#define PONG 0x42
#define SHOOT 0x43
#define VA   0x8000000000ul
#define DATA ((ulong)SCRATCH)
#define ROUNDS 50

extern char ap_start[];
extern volatile u32 ap_cr0, ap_edx;
extern u8 ap_idt[10];
void ap_main(void);

static volatile u32 ap_alive, ap_id, pings, pongs, shot, nmis, job, done, self_ipis;
static volatile u64 counter, shared[2] __attribute__((aligned(16)));
static volatile u32 ap_reads, ap_sees;

static void on_irq(struct frame *f)
{
	switch (f->vector) {
	case PING:
		pings++;
		apic_write(APIC_EOI, 0);
		apic_icr(0, PONG);
		return;
	case PONG:
		pongs++;
		break;
	case SHOOT:
		invlpg(VA);
		shot++;
		break;
	default:
		self_ipis++;
	}
	apic_write(APIC_EOI, 0);
}

static bool on_nmi(struct frame *f)
{
	if (f->vector == NMI)
		nmis++;
	return f->vector == NMI;
}

static void add_many(u32 n)
{
	u64 three = 3;

	for (u32 k = 0; k < n; k++) {
		asm volatile("lock incq %0" : "+m"(counter)::"memory");
		asm volatile("lock xaddq %1, %0" : "+m"(shared[0]), "+r"(three)::"memory");
		three = 3;
	}
	for (u32 k = 0; k < n;) {
		u64 old = shared[1];

		if (__sync_bool_compare_and_swap(&shared[1], old, old + 1))
			k++;
	}
}

enum { JOB_NONE, JOB_ADD, JOB_READ, JOB_X2APIC };

void ap_main(void)
{
	apic_on();
	ap_id = x2apic ? apic_read(APIC_ID) : apic_read(APIC_ID) >> 24;
	ap_alive++;
	asm volatile("sti");
	for (;;) {
		asm volatile("pause");
		switch (job) {
		case JOB_ADD:
			add_many(5000);
			break;
		case JOB_READ:
			ap_sees = VAR(u32, VA);
			ap_reads++;
			continue;
		case JOB_X2APIC:
			wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0x400);
			break;
		default:
			continue;
		}
		job = JOB_NONE;
		done++;
	}
}

/* Bounded waits, so that a failure is a report and no hang. */
#define WAIT(what)                                                        \
	({                                                                \
		u64 start_ = rdtsc();                                     \
		while (!(what) && rdtsc() - start_ < 20000000000ull)      \
			asm volatile("pause");                            \
		(what);                                                   \
	})

static void start_ap(void)
{
	u8 *page = (u8 *)0x1000;
	u32 at = (u32)(ulong)ap_start;

	page[0] = 0xea; /* ljmp 0:ap_start */
	page[1] = at;
	page[2] = at >> 8;
	page[3] = page[4] = 0;
	asm volatile("sidt %0" : "=m"(ap_idt));
	apic_icr(1, ICR_INIT);
	apic_icr(1, ICR_SIPI | 1);
}

static void test_start(const char *name)
{
	u32 before = ap_alive;

	test_begin(name);
	start_ap();
	check("it came up", WAIT(ap_alive != before), 1);
	check("APIC ID", ap_id, 1);
	check("CR0 after INIT: PE and PG off", ap_cr0 & 0x80000001, 0);
	check("EDX after INIT: family", ap_edx != 0, 1);
	apic_icr(1, ICR_SIPI | 1); /* a running processor ignores it */
	check("once", ap_alive, before + 1);
}

static void test_ipi(const char *name)
{
	test_begin(name);
	pings = pongs = 0;
	asm volatile("sti");
	for (u32 k = 1; k <= ROUNDS; k++) {
		apic_icr(1, PING);
		if (!WAIT(pongs == k))
			break;
	}
	check("pings", pings, ROUNDS);
	check("pongs", pongs, ROUNDS);
	self_ipis = 0;
	apic_icr(0, ICR_SELF | 0x55);
	asm volatile("nop; nop");
	check("self", self_ipis, 1);
	pings = pongs = 0;
	apic_icr(0, ICR_OTHERS | PING);
	check("all but self", WAIT(pongs == 1) && pings == 1, 1);
	nmis = 0;
	apic_icr(1, ICR_NMI);
	check("NMI", WAIT(nmis == 1), 1);
	asm volatile("cli");
}

static void test_lock(void)
{
	test_begin("LOCK on two processors");
	counter = shared[0] = shared[1] = 0;
	done = 0;
	job = JOB_ADD;
	add_many(5000);
	check("it ended", WAIT(done == 1), 1);
	check("lock inc", counter, 10000);
	check("lock xadd", shared[0], 30000);
	check("lock cmpxchg", shared[1], 10000);
}

static void test_shootdown(void)
{
	u32 stale = 0;

	test_begin("TLB shoot-down");
	VAR(u32, DATA) = 100;
	VAR(u32, DATA + 4096) = 101;
	map(VA, DATA, 1, P | W);
	shot = 0;
	job = JOB_READ;
	asm volatile("sti");
	for (u32 k = 1; k <= 30; k++) {
		u32 seen = ap_reads;

		WAIT(ap_reads > seen + 1);
		*entry(VA, 1) = (DATA + (k & 1) * 4096) | P | W;
		apic_icr(1, SHOOT);
		if (!WAIT(shot == k))
			break;
		seen = ap_reads;
		WAIT(ap_reads > seen + 1);
		stale += ap_sees != 100 + (k & 1);
	}
	asm volatile("cli");
	job = JOB_NONE;
	check("acknowledged", shot, 30);
	check("nothing stale behind it", stale, 0);
}

static void test_x2apic(void)
{
	test_begin("x2APIC");
	done = 0;
	job = JOB_X2APIC;
	check("other processor", WAIT(done == 1), 1);
	wrmsr(MSR_APIC_BASE, rdmsr(MSR_APIC_BASE) | 0x400);
	x2apic = true;
	check("ID", apic_read(APIC_ID), 0);
	check("version", apic_read(0x30) & 0xff, 0x14);
	check("LDR", apic_read(0xd0), 1);
	TRY("wrmsr", "c"(0x802), "a"(5), "d"(0));
	want_error("ID is read-only", GP, 0);
	TRY("rdmsr", "c"(0x80b), "a"(0), "d"(0));
	want_error("EOI is write-only", GP, 0);
	TRY("wrmsr", "c"(0x80b), "a"(1), "d"(0));
	want_error("EOI takes only 0", GP, 0);
	TRY("wrmsr", "c"(0x80e), "a"(0), "d"(0));
	want_error("no DFR", GP, 0);
	TRY("wrmsr", "c"(MSR_APIC_BASE), "a"(0xfee00900), "d"(0));
	want_error("back to xAPIC", GP, 0);
	self_ipis = 0;
	asm volatile("sti");
	wrmsr(0x83f, 0x56);
	asm volatile("nop; nop; cli");
	check("SELF IPI", self_ipis, 1);
}

void guest_main(void)
{
	traps_init();
	apic_on();
	irq_hook = on_irq;
	trap_hook = on_nmi;
	check("this is processor 0", apic_read(APIC_ID) >> 24, 0);
	check("the first has BSP", rdmsr(MSR_APIC_BASE) >> 8 & 1, 1);
	test_start("INIT and SIPI");
	test_ipi("IPIs, xAPIC");
	test_lock();
	test_shootdown();
	test_start("INIT and SIPI again");
	test_ipi("IPIs after that");
	test_x2apic();
	test_ipi("IPIs, x2APIC");
	test_shootdown();
	test_start("INIT and SIPI by x2APIC");
}
