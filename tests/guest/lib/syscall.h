/* SPDX-License-Identifier: MIT */
/*
 * SYSCALL, SYSENTER and their kin, SWAPGS, FSGSBASE, RDTSCP, RDPID (SDM 2B, APM 3). Where the
 * vendors differ the guest's CPUID decides: this runs as a guest of either, whatever the host is.
 */
#ifndef GUEST_SYSCALL_H
#define GUEST_SYSCALL_H

#include "paging.h"

#define NONCANON 0x800000000000ul
#define MSR_EFER 0xc0000080
#define STAR	 0xc0000081
#define LSTAR	 0xc0000082
#define CSTAR	 0xc0000083
#define FMASK	 0xc0000084
#define FS_BASE	 0xc0000100
#define GS_BASE	 0xc0000101
#define KGS_BASE 0xc0000102
#define TSC_AUX	 0xc0000103

static volatile ulong in_cs, in_ss, in_rcx, in_r11, in_flags, in_count;

/* The kernel's side of SYSCALL: notes what it finds, goes back as it came. */
__attribute__((naked, used)) static void entry64(void)
{
	asm volatile("movq %rcx, in_rcx; movq %r11, in_r11; pushfq; popq in_flags; incq in_count\n\t"
		     "xorl %eax, %eax; movw %cs, %ax; movq %rax, in_cs; movw %ss, %ax\n\t"
		     "movq %rax, in_ss; sysretq");
}

__attribute__((naked, used)) static void entry_compat(void)
{
	asm volatile("movq %rcx, in_rcx; movq $0xc0, in_cs; incq in_count; sysretl");
}

static ulong user_syscall(void)
{
	ulong rcx, r11, flags, cs, ss;

	asm volatile("pushfq; orl $0x4d5, (%%rsp); popfq; movl $0x77, %%ebx\n\t"
		     "syscall\n1: pushfq; popq %2; cld; movq %%cs, %3; movq %%ss, %4"
		     : "=&c"(rcx), "=&S"(r11), "=&D"(flags), "=&d"(cs), "=&b"(ss)
		     :: "rax", "r11", "memory");
	check("back: CS", cs, USER_CS);
	check("back: SS", ss, USER_DS);
	check("back: flags", flags & 0xcd5, 0x4d5);
	return 1;
}

static ulong user_only_syscall(void)
{
	TRY("syscall");
	return 1;
}

static void syscall_setup(void)
{
	wrmsr(STAR, (u64)0x20 << 48 | (u64)KERNEL_CS << 32);
	wrmsr(LSTAR, (ulong)entry64);
	wrmsr(CSTAR, (ulong)entry_compat);
	wrmsr(FMASK, IF | DF_FLAG | CF);
}

static void test_syscall(void)
{
	test_begin("SYSCALL, SYSRET");
	syscall_setup();
	in_count = 0;
	check("ran", user_run(user_syscall, IF | IOPL3), 1);
	check("entered once", in_count, 1);
	check("CS", in_cs, KERNEL_CS);
	check("SS", in_ss, KERNEL_DS);
	check("R11 has the flags", in_r11 & (IF | 0xcd5), IF | 0x4d5);
	check("FMASK", in_flags & (IF | DF_FLAG | CF), 0);
	check("flags that FMASK leaves", in_flags & 0xd4, 0xd4);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ul);
	user_run(user_only_syscall, 0);
	want_error("SYSCALL without EFER.SCE", UD, 0);
	TRY("sysretq", "c"(0), "a"(0));
	want_error("SYSRET without EFER.SCE", UD, 0);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
}

static ulong user_sysret(void)
{
	TRY("sysretq");
	return 2;
}

/*
 * At CPL 0 with RCX not canonical: Intel faults there, AMD goes to CPL 3 first and faults on the
 * fetch. The hook brings either back to CPL 0.
 */
static bool back_to_kernel(struct frame *f)
{
	f->ip = trap_resume;
	f->cs = KERNEL_CS;
	f->ss = KERNEL_DS;
	return true;
}

static void test_sysret(void)
{
	test_begin("SYSRET: faults");
	user_run(user_sysret, 0);
	want_error("at CPL 3", GP, 0);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) & ~1ul);
	user_run(user_sysret, 0);
	want_error("at CPL 3 without EFER.SCE", UD, 0);
	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
	trap_hook = back_to_kernel;
	TRY("sysretq", "c"(NONCANON));
	trap_hook = NULL;
	want_error("RCX not canonical", GP, 0);
	check("at CPL", traps[0].cs & 3, cpu_is_intel() ? 0 : 3);
	check("RIP", traps[0].ip, cpu_is_intel() ? try_ip : NONCANON);
}

/* ---- 32-bit code: SYSRET with a 32-bit operand, SYSCALL from compatibility mode */

asm(".text\n.code32\n"
    ".globl compat_code, compat_syscall\n"
    "compat_code: xorl %eax, %eax; decl %eax; movw %cs, %bx; movw %bx, %ax; int $0x80\n"
    "compat_syscall: movl $5, %eax; syscall; movl %ecx, %eax; int $0x80\n"
    ".code64\n");
extern char compat_code[], compat_syscall[];

__attribute__((naked)) static void to_compat(void)
{
	asm volatile("movl $compat_code, %ecx; movl $2, %r11d; sysretl");
}

static ulong user_to_compat(void)
{
	asm volatile("syscall" ::: "memory", "rcx", "r11");
	return 0;
}

static void test_compat(void)
{
	ulong r;

	test_begin("SYSRET to, and SYSCALL from, compatibility mode");
	wrmsr(LSTAR, (ulong)to_compat);
	check("32-bit code ran, CS", user_run(user_to_compat, 0) & 0xffffffff,
	      0xffff0000 | USER_CS32);
	syscall_setup();
	in_count = 0;
	nr_traps = 0;
	r = user_enter((void (*)(void))compat_syscall, 2, USER_STACK - 8, USER_CS32);
	if (cpu_is_intel()) {
		check("Intel: #UD", traps[0].vector, UD);
		return;
	}
	check("AMD: through CSTAR", in_count, 1);
	check("AMD: RCX", in_rcx, (ulong)compat_syscall + 7);
	check("AMD: and back in 32-bit code", r, in_rcx);
}

/* ---- SYSENTER: in long mode only Intel has it (APM 3 "SYSENTER"; SDM 2B "SYSENTER") */

#define SYSENTER_CS  0x174
#define SYSENTER_ESP 0x175
#define SYSENTER_EIP 0x176
#define SEL	     SPARE_SEL /* what the entry expects at SYSENTER_CS: six descriptors */
#define ESP0	     (STACK_TOP - 0x18000)

static volatile ulong in_rsp, exit64;

/* The kernel's side: back to RDX and RCX, which the caller has set, as exit64 says. */
__attribute__((naked, used)) static void sysenter_entry(void)
{
	asm volatile("movq %rsp, in_rsp; pushfq; popq in_flags; incq in_count; xorl %eax, %eax\n\t"
		     "movw %cs, %ax; movq %rax, in_cs; movw %ss, %ax; movq %rax, in_ss\n\t"
		     "cmpq $0, exit64; jne 1f; sysexitl\n1: sysexitq");
}

/* Both return CS | SS << 16 as they are behind the SYSENTER. */
asm(".text\n.code32\n"
    "compat_sysenter: movl $1f, %edx; movl %esp, %ecx; sysenter; ud2\n"
    "1: xorl %eax, %eax; movw %ss, %ax; shll $16, %eax; movw %cs, %ax; int $0x80\n"
    ".code64\n"
    "user64_sysenter: movl $1b, %edx; cmpl $0, exit64; je 3f; leaq 2f(%rip), %rdx\n"
    "3: movq %rsp, %rcx; sysenter; ud2\n"
    "2: xorl %eax, %eax; movw %ss, %ax; shll $16, %eax; movw %cs, %ax; int $0x80\n");
extern char compat_sysenter[], user64_sysenter[];

static ulong run_sysenter(const char *code, u16 cs, bool to64)
{
	exit64 = to64;
	in_count = nr_traps = trap_resume = 0;
	in_cs = in_ss = in_rsp = 0;
	return user_enter((void (*)(void))code, IF | IOPL3 | 2, USER_STACK - 8, cs);
}

static void want_entry(const char *name, ulong result, ulong sels)
{
	check(name, in_count, 1);
	check("CS at CPL 0", in_cs, SEL);
	check("SS at CPL 0", in_ss, SEL + 8);
	check("RSP", in_rsp, ESP0);
	check("IF is 0, IOPL stays", in_flags & (IF | IOPL3), IOPL3);
	check("back: CS and SS", result, sels);
	check("no trap", nr_traps, 0);
}

static void intel_sysenter(void)
{
	ulong back32 = (SEL + 16) | 3 | (ulong)((SEL + 24) | 3) << 16;
	ulong back64 = (SEL + 32) | 3 | (ulong)((SEL + 40) | 3) << 16;

	want_entry("from 64-bit code to 64-bit code", run_sysenter(user64_sysenter, USER_CS, true),
		   back64);
	want_entry("from 64-bit code to 32-bit code", run_sysenter(user64_sysenter, USER_CS, false),
		   back32);
	want_entry("from 32-bit code to 32-bit code", run_sysenter(compat_sysenter, USER_CS32, false),
		   back32);
	wrmsr(SYSENTER_CS, SEL | 3);
	want_entry("RPL of SYSENTER_CS is ignored", run_sysenter(compat_sysenter, USER_CS32, false),
		   back32);
	wrmsr(SYSENTER_CS, 0xabcd0000 | SEL);
	want_entry("its high bits, too", run_sysenter(compat_sysenter, USER_CS32, false), back32);
	TRY("sysexitq", "c"(ESP0), "d"(NONCANON));
	want_error("SYSEXIT to an address that is not canonical", GP, 0);
	TRY("sysexitq", "c"(NONCANON), "d"(0));
	want_error("SYSEXIT to a stack that is not canonical", GP, 0);
	wrmsr(SYSENTER_CS, 3);
	run_sysenter(compat_sysenter, USER_CS32, false);
	want_error("32-bit code: null CS", GP, 0);
	TRY("sysexitl", "c"(0), "d"(0));
	want_error("SYSEXIT: null CS", GP, 0);
}

static ulong user_sysexit(void)
{
	TRY("sysexitl");
	return 1;
}

static void test_sysenter(void)
{
	ulong missing = cpu_is_intel() ? GP : UD;

	test_begin("SYSENTER, SYSEXIT in long mode");
	for (unsigned int k = 0; k < 2; k++) {
		gdt_set(SEL + 32 * k, gdt[(k ? USER_CS : KERNEL_CS) >> 3]);
		gdt_set(SEL + 32 * k + 8, gdt[(k ? USER_DS : KERNEL_DS) >> 3]);
	}
	gdt_set(SEL + 16, gdt[USER_CS32 >> 3]);
	gdt_set(SEL + 24, gdt[USER_DS >> 3]);
	wrmsr(SYSENTER_CS, 0);
	run_sysenter(user64_sysenter, USER_CS, true);
	want_error("SYSENTER: #UD on AMD, #GP with CS 0 on Intel", missing, 0);
	TRY("sysexitl", "c"(0), "d"(0));
	want_error("SYSEXIT likewise", missing, 0);
	wrmsr(SYSENTER_ESP, ESP0);
	check("MSR 175h", rdmsr(SYSENTER_ESP), ESP0);
	wrmsr(SYSENTER_EIP, (ulong)sysenter_entry);
	wrmsr(SYSENTER_CS, SEL);
	user_run(user_sysexit, 0);
	want_error("SYSEXIT at CPL 3: #GP on AMD, too (seen on one; make check-native)", GP, 0);
	if (cpu_is_intel()) {
		intel_sysenter();
		return;
	}
	run_sysenter(user64_sysenter, USER_CS, true);
	want_error("AMD: 64-bit code", UD, 0);
	run_sysenter(compat_sysenter, USER_CS32, false);
	want_error("AMD: 32-bit code", UD, 0);
}

/* ---- bases */

static ulong user_swapgs(void)
{
	TRY("swapgs");
	return 1;
}

static void test_swapgs(void)
{
	ulong data[2] = {0x1111, 0x2222}, a, b;

	test_begin("SWAPGS");
	wrmsr(GS_BASE, (ulong)&data[0]);
	wrmsr(KGS_BASE, (ulong)&data[1]);
	asm volatile("movq %%gs:0, %0; swapgs; movq %%gs:0, %1" : "=&r"(a), "=&r"(b)::"memory");
	check("before", a, 0x1111);
	check("after", b, 0x2222);
	check("KERNEL_GS_BASE", rdmsr(KGS_BASE), (ulong)&data[0]);
	check("GS_BASE", rdmsr(GS_BASE), (ulong)&data[1]);
	user_run(user_swapgs, 0);
	want_error("at CPL 3", GP, 0);
	TRY("wrmsr", "c"(GS_BASE), "a"(0), "d"(NONCANON57 >> 32));
	want_error("GS_BASE not canonical", GP, 0);
	asm volatile("movw %w0, %%gs" ::"r"(KERNEL_DS));
	check("loading GS sets the low 32 bits of the base to 0", rdmsr(GS_BASE), 0);
}

static void test_fsgsbase(void)
{
	ulong v, cr4 = read_cr4();

	test_begin("FSGSBASE");
	if (!cpu_has(7, 0, EBX, 0))
		return;
	write_cr4(cr4 & ~CR4_FSGSBASE);
	TRY("rdfsbase %%rbx");
	want_error("without CR4.FSGSBASE", UD, 0);
	write_cr4(cr4 | CR4_FSGSBASE);
	asm volatile("wrfsbase %1; rdfsbase %0" : "=r"(v) : "r"(0x123456789abcul));
	check("64 bits", v, 0x123456789abc);
	check("MSR", rdmsr(FS_BASE), 0x123456789abc);
	asm volatile("rdfsbase %k0" : "=r"(v));
	check("32 bits", v, 0x56789abc);
	asm volatile("wrgsbase %k1; rdgsbase %0" : "=r"(v) : "r"(0xfedcba9876543210ul));
	check("32-bit write clears the rest", v, 0x76543210);
	TRY("wrfsbase %0", "r"(NONCANON57));
	want_error("not canonical", GP, 0);
	asm volatile("wrfsbase %0; wrgsbase %0" ::"r"(0ul));
	write_cr4(cr4);
}

static ulong user_rdtsc(void)
{
	TRY("rdtsc", "a"(0), "d"(0));
	return 1;
}

static void test_tsc(void)
{
	ulong v, cr4 = read_cr4();
	u64 a, b;
	u32 ecx;

	test_begin("RDTSC, RDTSCP, RDPID");
	a = rdtsc();
	for (volatile int k = 0; k < 100; k++)
		;
	b = rdtsc();
	check("it goes on", b > a, 1);
	write_cr4(cr4 | CR4_TSD);
	user_run(user_rdtsc, 0);
	want_error("CR4.TSD at CPL 3", GP, 0);
	TRY("rdtsc", "a"(0), "d"(0));
	want_none("CR4.TSD at CPL 0");
	write_cr4(cr4);
	wrmsr(0x10, 0x100000000000);
	a = rdtsc();
	check("written", a >> 36, 0x100000000000 >> 36);
	if (cpu_has(0x80000001, 0, EDX, 27)) {
		wrmsr(TSC_AUX, 0x4711);
		asm volatile("rdtscp" : "=c"(ecx)::"rax", "rdx");
		check("RDTSCP: ECX", ecx, 0x4711);
	}
	if (cpu_has(7, 0, ECX, 22)) {
		asm volatile("rdpid %0" : "=r"(v));
		check("RDPID", v, 0x4711);
	}
}

void guest_main(void)
{
	traps_init();
	test_syscall();
	test_sysret();
	test_compat();
	test_sysenter();
	test_swapgs();
	test_fsgsbase();
	test_tsc();
}

#endif
