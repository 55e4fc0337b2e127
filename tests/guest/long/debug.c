// SPDX-License-Identifier: MIT
/*
 * Single-stepping, breakpoints (SDM 3A 17.2, 17.3), MOV SS (6.8.3), and a debugger in the VMM
 * (api.rst, KVM_SET_GUEST_DEBUG).
 */
#include "../lib/paging.h"

#define BS	 0x4000ul
#define BD	 0x2000ul
#define NOT_MAPPED 0x8000000000ul

#define DBG_ENABLE 1
#define DBG_STEP   2
#define DBG_SW	   0x10000
#define DBG_HW	   0x20000

static volatile ulong step_ip; /* address of STEP's code */
static u64 watched[8] __attribute__((aligned(64)));
static struct exit_log exits;

/* The code with TF set: a #DB behind each instruction, up to the end of the code. */
#define STEP(code, ...)                                                               \
	TRY("movq $997f, step_ip; pushfq; orl $0x100, (%%rsp); popfq\n997:" code, ##__VA_ARGS__)

/* The k-th trap is a single-step #DB `off` bytes into the code. */
static void want_step(const char *name, unsigned int k, ulong off)
{
	check(name, traps[k].vector, DB);
	check(name, traps[k].ip - step_ip, off);
	check(name, traps[k].dr6 & (BS | BD | 15), BS);
}

static void test_tf_plain(void)
{
	test_begin("TF: plain instructions");
	STEP("nop; movl %%eax, %%ebx; addl $5, %%ebx");
	check("count", nr_traps, 3);
	want_step("nop", 0, 1);
	want_step("mov", 1, 3);
	want_step("add", 2, 6);
	check("pushed TF", traps[0].flags & TF, TF);
	check("no RF behind a trap", traps[0].flags & RF, 0);
	STEP("jmp 1f; ud2; 1: nop");
	check("count", nr_traps, 2);
	want_step("jmp", 0, 4);
	STEP("pushq %%rax; popq %%rbx; call 1f; 1: addq $8, %%rsp");
	check("push, pop, call, add", nr_traps, 4);
	want_step("call", 2, 7);
	STEP("cpuid", "a"(0));
	want_trap("cpuid", DB);
	STEP("rdtsc", "a"(0));
	want_trap("rdtsc", DB);
	STEP("outb %%al, $0x80");
	want_trap("out", DB);
	STEP("movq %%cr0, %%rbx; movq %%rbx, %%cr0");
	check("mov cr0", nr_traps, 2);
	want_step("mov cr0", 1, 6);
}

static void test_tf_memory(void)
{
	test_begin("TF: memory, devices, faults");
	VAR(u32, MMIO_BASE) = 0x12345678;
	STEP("movl (%0), %%ebx; movl %%ebx, 4(%0); lock addl $1, (%0)", "S"((ulong)MMIO_BASE));
	check("MMIO read, write, both", nr_traps, 3);
	want_step("MMIO read", 0, 2);
	want_step("MMIO write", 1, 5);
	check("done once", VAR(u32, MMIO_BASE), 0x12345679);
	STEP("movq (%0), %%rbx; nop", "S"(NOT_MAPPED));
	check("a fault has no single-step trap", nr_traps, 1);
	check("#PF", traps[0].vector, PF);
	check("#PF pushes TF", traps[0].flags & TF, TF);
}

static void test_tf_rep(void)
{
	u8 *s = (u8 *)SCRATCH;

	test_begin("TF: REP");
	s[0] = 1, s[1] = 2, s[2] = 3;
	STEP("movl $3, %%ecx; movl $0x400000, %%esi; movl $0x400100, %%edi; rep movsb", "c"(0), "S"(0),
	     "D"(0));
	asm volatile("" ::: "rcx", "rsi", "rdi");
	check("count", nr_traps, 6);
	want_step("after one", 3, 15);
	want_step("after two", 4, 15);
	want_step("after all", 5, 17);
	check("bytes", s[0x102], 3);
	STEP("rep stosb", "c"(0ul), "D"(s), "a"(0));
	want_trap("RCX = 0", DB);
}

static void test_tf_flags(void)
{
	test_begin("TF: POPF, IRET, INT, MOV SS");
	STEP("pushq $2; popfq; nop; nop");
	check("POPF clears TF: a last trap behind it", nr_traps, 2);
	want_step("popf", 1, 3);
	TRY("pushfq; orl $0x100, (%%rsp); movq $997f, step_ip; popfq; 997: nop; pushq $2; popfq");
	want_step("POPF sets TF: one instruction later", 0, 1);
	TRY("movq $997f, step_ip; movq %%rsp, %%rbx; pushq $0x10; pushq %%rbx; pushq $0x102;"
	    "pushq $8; pushq $997f; iretq; nop; 997: nop; pushq $2; popfq");
	want_step("IRET sets TF: one instruction later", 0, 1);
	STEP("int $0x50; nop; nop");
	check("INT n: no trap of its own", traps[0].vector, 0x50);
	check("INT n: pushed TF", traps[0].flags & TF, TF);
	want_step("INT n: behind the instruction after IRET", 1, 3);
	STEP("movl %%ss, %%ebx; movl %%ebx, %%ss; nop; nop");
	check("MOV SS: one trap less", nr_traps, 3);
	want_step("MOV SS: behind the next one", 1, 5);
	STEP("sti; cli");
	check("STI holds nothing back", nr_traps, 2);
	want_step("STI", 0, 1);
	STEP("int3; nop");
	check("INT3", traps[0].vector, BP);
	want_step("INT3", 1, 2);
}

/* ---- SYSCALL looks at TF when it is over (FMASK may clear it), so does SYSRET */

__attribute__((naked, used)) static void syscall_entry(void)
{
	asm volatile("nop; sysretq");
}

static ulong user_step_syscall(void)
{
	asm volatile("pushfq; orl $0x100, (%%rsp); popfq\n"
		     "syscall\n"
		     "1: nop\n"
		     "pushfq; andl $~0x100, (%%rsp); popfq" ::
			     : "rcx", "r11", "memory");
	return 6;
}

static void test_tf_syscall(void)
{
	u64 lstar = (ulong)syscall_entry;

	test_begin("TF: SYSCALL and SYSRET");
	wrmsr(0xc0000081, (u64)0x20 << 48 | (u64)KERNEL_CS << 32);
	wrmsr(0xc0000082, lstar);
	wrmsr(0xc0000084, TF);
	nr_traps = 0;
	check("ran", user_run(user_step_syscall, 0), 6);
	check("FMASK has TF: the first trap is behind SYSRET", traps[0].vector, DB);
	check("at CPL 3", traps[0].cs, USER_CS);
	check("FMASK has TF: count", nr_traps, 5);
	wrmsr(0xc0000084, 0);
	nr_traps = 0;
	user_run(user_step_syscall, 0);
	check("FMASK without TF: at the entry", traps[0].ip, lstar);
	check("then behind the NOP", traps[1].ip, lstar + 1);
	check("FMASK without TF: count", nr_traps, 7);
}

/* ---- DR0 to DR7 */

#define DR7_L(n) (1ul << (2 * (n)))
#define DR7_RW(n, rw, len) ((ulong)((rw) | (len) << 2) << (16 + 4 * (n)))
enum { RW_X, RW_W, RW_IO, RW_RW };
enum { LEN1, LEN2, LEN8, LEN4 };

static void watch(unsigned int n, ulong at, unsigned int rw, unsigned int len)
{
	switch (n) {
	case 0: write_dr0(at); break;
	case 1: write_dr1(at); break;
	case 2: write_dr2(at); break;
	default: write_dr3(at); break;
	}
	write_dr7(DR7_L(n) | DR7_RW(n, rw, len) | 0x400);
}

static void want_hit(const char *name, ulong bits)
{
	want_trap(name, DB);
	check(name, traps[0].dr6 & (BS | BD | 15), bits);
}

static void test_data(void)
{
	ulong w = (ulong)watched;

	test_begin("data breakpoints");
	watch(1, w + 8, RW_W, LEN4);
	TRY("movl $1, 8(%0); nop", "S"(w));
	want_hit("write", 2);
	check("behind the instruction", traps[0].ip, try_ip + 7);
	TRY("movl 8(%0), %%ebx", "S"(w));
	want_none("read of a write breakpoint");
	TRY("movb $1, 7(%0)", "S"(w));
	want_none("one byte below");
	TRY("movb $1, 12(%0)", "S"(w));
	want_none("one byte above");
	TRY("movw $1, 7(%0)", "S"(w));
	want_hit("overlaps the first byte", 2);
	TRY("movq $1, 4(%0)", "S"(w));
	want_hit("a wide write over it", 2);
	TRY("movb $1, 11(%0)", "S"(w));
	want_hit("the last byte", 2);
	watch(2, w + 16, RW_RW, LEN8);
	TRY("movb 23(%0), %%bl", "S"(w));
	want_hit("8 bytes: read of the last", 4);
	TRY("pushq 16(%0); popq %%rbx", "S"(w));
	want_hit("push m: read", 4);
	TRY("lock addl $1, 16(%0)", "S"(w));
	want_hit("locked", 4);
	TRY("leaq 16(%0), %%rbx; prefetcht0 16(%0)", "S"(w));
	want_none("lea, prefetch");
	watch(0, w, RW_W, LEN1);
	STEP("movb $1, (%0)", "S"(w));
	want_hit("with TF: both bits", BS | 1);
	watch(3, w + 3, RW_W, LEN1);
	TRY("rep stosb", "c"(8ul), "D"(w), "a"(7));
	want_hit("rep stosb", 8);
	watch(0, NOT_MAPPED, RW_RW, LEN1);
	TRY("movb (%0), %%bl", "S"(NOT_MAPPED));
	want_trap("a fault comes first", PF);
	write_dr7(0x400);
	TRY("movl $1, 8(%0)", "S"(w));
	want_none("all off");
	check("DR6 as written by the handler", read_dr6(), 0xffff0ff0);
}

static void test_rep_stops(void)
{
	test_begin("data breakpoint in the middle of REP");
	memset(watched, 0, sizeof(watched));
	watch(3, (ulong)watched + 3, RW_W, LEN1);
	trap_resume = 0;
	nr_traps = 0;
	asm volatile("movl $8, %%ecx; movq %0, %%rdi; movb $7, %%al; rep stosb" ::"r"(watched)
		     : "rcx", "rdi", "rax", "memory");
	want_hit("once", 8);
	check("RCX there", traps[0].cx, 4);
	check("all written in the end", watched[0], 0x0707070707070707);
	write_dr7(0x400);
}

static void test_code(void)
{
	test_begin("instruction breakpoints, RF");
	TRY("movq $997f, %%rbx; movq %%rbx, %%db0; movl $0x401, %%ebx; movq %%rbx, %%db7;"
	    "movq $997f, step_ip; nop; 997: nop; nop");
	want_hit("hit", 1);
	check("before the instruction", traps[0].ip, step_ip);
	check("pushed RF is 0", traps[0].flags & RF, 0);
	write_dr7(0x400);
	TRY("movq $997f, %%rbx; movq %%rbx, %%db0; movl $0x401, %%ebx; movq %%rbx, %%db7;"
	    "movq $997f, step_ip; pushfq; orl $0x10000, (%%rsp); movq %%rsp, %%rbx;"
	    "popq %%rbx; pushq $0x10; leaq 8(%%rsp), %%rax; pushq %%rax; pushq %%rbx; pushq $8;"
	    "pushq $997f; iretq; 997: nop; nop", "a"(0));
	want_none("IRET with RF: skipped once");
	write_dr7(0x400);
	TRY("movq $997f, %%rbx; movq %%rbx, %%db0; movl $0x401, %%ebx; movq %%rbx, %%db7;"
	    "movq $997f, step_ip; movl %%ss, %%ebx; movl %%ebx, %%ss; 997: nop; nop");
	if (cpu_is_intel())
		want_none("behind MOV SS: Intel holds it back");
	else
		want_hit("behind MOV SS: AMD does not", 1);
	write_dr7(0x400);
}

static bool map_it(struct frame *f)
{
	if (f->vector != PF)
		return false;
	map(NOT_MAPPED, SCRATCH, 1, P | W);
	return true; /* restart */
}

static void test_code_fault(void)
{
	test_begin("RF of a fault");
	trap_hook = map_it;
	TRY("movq $997f, %%rbx; movq %%rbx, %%db0; movl $0x401, %%ebx; movq %%rbx, %%db7;"
	    "movq $997f, step_ip; 997: movq (%0), %%rbx", "S"(NOT_MAPPED));
	trap_hook = NULL;
	write_dr7(0x400);
	check("#DB, #PF, no second #DB", nr_traps, 2);
	check("first #DB", traps[0].vector, DB);
	check("then #PF", traps[1].vector, PF);
	check("#PF pushes RF", traps[1].flags & RF, RF);
	*entry(NOT_MAPPED, 1) = 0;
	invlpg(NOT_MAPPED);
}

static void test_io_gd(void)
{
	ulong cr4 = read_cr4();

	test_begin("I/O breakpoints, GD, DR4 and DR5");
	write_cr4(cr4 | CR4_DE);
	watch(1, 0x80, RW_IO, LEN1);
	TRY("outb %%al, $0x80", "a"(0));
	want_hit("out", 2);
	TRY("inb $0x80, %%al; nop", "a"(0));
	want_hit("in", 2);
	TRY("outb %%al, $0x81", "a"(0));
	want_none("another port");
	write_dr7(0x400);
	TRY(".byte 0x0f, 0x21, 0xe3"); /* mov rbx, dr4 */
	want_trap("DR4 with DE", UD);
	write_cr4(cr4 & ~CR4_DE);
	TRY(".byte 0x0f, 0x21, 0xe3");
	want_none("DR4 without DE is DR6");
	write_cr4(cr4);
	write_dr7(0x2400);
	TRY("movq %%db0, %%rbx");
	want_hit("GD", BD);
	check("GD: before the instruction", traps[0].ip, try_ip);
	check("GD is cleared by the #DB", read_dr7(), 0x400);
	TRY("movq %0, %%db7", "r"(1ul << 32));
	want_error("DR7, upper half", GP, 0);
	TRY("movq %0, %%db6", "r"(1ul << 32));
	want_error("DR6, upper half", GP, 0);
	write_dr6(~0u);
	check("DR6: fixed bits", read_dr6() & ~0xe00ful, 0xffff0ff0);
	write_dr6(0);
}

/* A data breakpoint of MOV SS waits for the next instruction, even if that is INT3 (6.8.3). */
static void test_mov_ss(void)
{
	test_begin("data breakpoint of MOV SS");
	watched[4] = KERNEL_DS;
	watch(0, (ulong)&watched[4], RW_RW, LEN2);
	TRY("movq $997f, step_ip; movw (%0), %%ss; 997: nop; nop", "S"(&watched[4]));
	want_hit("delivered", 1);
	check("behind the next instruction", traps[0].ip, step_ip + 1);
	TRY("movq $997f, step_ip; movw (%0), %%ss; 997: int3; nop", "S"(&watched[4]));
	write_dr7(0x400);
	check("INT3: two traps", nr_traps, 2);
	check("INT3: #DB at the handler's first instruction", traps[0].ip,
	      (ulong)trap_stubs + 16 * BP);
	check("INT3: its bits", traps[0].dr6 & 15, 1);
	check("INT3: the #BP itself", traps[1].vector, BP);
	watch(0, (ulong)&watched[4], RW_RW, LEN2);
	TRY("movq $997f, step_ip; movw (%0), %%ss; .byte 0xf1; 997: nop", "S"(&watched[4]));
	write_dr7(0x400);
	want_hit("INT1: one #DB for both", 1);
	check("INT1: behind it", traps[0].ip, step_ip);
}

/* ---- a debugger in the VMM: exits, and the guest sees nothing */

static void test_guest_step(void)
{
	struct service on = {.op = SVC_DEBUG, .a = DBG_ENABLE | DBG_STEP, .d = (ulong)&exits};
	struct service off = {.op = SVC_DEBUG};

	test_begin("KVM_GUESTDBG_SINGLESTEP");
	exits.n = 0;
	nr_traps = 0;
	asm volatile("movq $1f, step_ip; movl %0, %%eax; movw %2, %%dx; outl %%eax, %%dx\n"
		     "1: nop; movl %1, %%eax; pushfq; popq %%rbx; outl %%eax, %%dx" ::"r"(
			     (u32)(ulong)&on),
		     "r"((u32)(ulong)&off), "i"(PORT_SERVICE)
		     : "rax", "rbx", "rdx", "memory");
	check("guest sees no trap", nr_traps, 0);
	check("one exit for each", exits.n, 5);
	check("after OUT", exits.e[0].at, step_ip);
	check("after NOP", exits.e[1].at, step_ip + 1);
	check("vector", exits.e[1].kind, DB);
	check("DR6.BS", exits.e[1].value & BS, BS);
	check("guest's DR6", read_dr6(), 0xffff0ff0);
}

static void test_guest_bp(void)
{
	ulong code, bx;

	test_begin("KVM_GUESTDBG_USE_HW_BP, USE_SW_BP");
	asm volatile("movq $1f, %0; jmp 2f; 1: movl $77, %%eax; ret; 2:" : "=r"(code));
	exits.n = 0;
	nr_traps = 0;
	service(SVC_DEBUG, DBG_ENABLE | DBG_HW, 0x401, code, (ulong)&exits);
	asm volatile("call *%1" : "=a"(bx) : "r"(code) : "memory");
	check("ran", bx, 77);
	check("exits", exits.n, 1);
	check("pc", exits.e[0].at, code);
	check("DR6", exits.e[0].value & 15, 1);
	check("guest sees no trap", nr_traps, 0);
	exits.n = 0;
	service(SVC_DEBUG, DBG_ENABLE | DBG_HW, 0x401 | DR7_RW(0, RW_W, LEN8), (ulong)watched,
		(ulong)&exits);
	asm volatile("movq $1f, step_ip; movb $5, 3(%0); 1: nop" ::"r"(watched) : "memory");
	check("data: exits", exits.n, 1);
	check("data: pc behind", exits.e[0].at, step_ip);
	exits.n = 0;
	service(SVC_DEBUG, DBG_ENABLE | DBG_SW, 0, 0, (ulong)&exits);
	asm volatile("movq $1f, step_ip; 1: int3; nop" ::: "memory");
	check("int3: exits", exits.n, 1);
	check("int3: pc", exits.e[0].at, step_ip);
	check("int3: vector", exits.e[0].kind, BP);
	service(SVC_DEBUG, 0, 0, 0, 0);
	TRY("int3");
	want_trap("int3 is the guest's again", BP);
}

void guest_main(void)
{
	traps_init();
	test_tf_plain();
	test_tf_memory();
	test_tf_rep();
	test_tf_flags();
	test_tf_syscall();
	test_data();
	test_rep_stops();
	test_code();
	test_code_fault();
	test_io_gd();
	test_mov_ss();
	test_guest_step();
	test_guest_bp();
}
