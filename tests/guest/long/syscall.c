// SPDX-License-Identifier: MIT
/*
 * SYSCALL and its kin, SWAPGS, FSGSBASE, RDTSCP, RDPID (SDM 2B, APM 3), XSAVE and XCR0 (SDM 1 13).
 * Where the vendors differ the guest's CPUID decides.
 */
#include "../lib/paging.h"

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

static ulong user_sysenter(void)
{
	TRY("sysenter");
	return 1;
}

static void test_sysenter(void)
{
	test_begin("SYSENTER, SYSEXIT in 64-bit mode");
	wrmsr(0x174, 0);
	user_run(user_sysenter, 0);
	want_error("SYSENTER: #UD on AMD, #GP with CS 0 on Intel", cpu_is_intel() ? GP : UD, 0);
	TRY("sysexitl", "c"(0), "d"(0));
	want_error("SYSEXIT likewise", cpu_is_intel() ? GP : UD, 0);
	wrmsr(0x175, 0x12345678);
	check("MSR 175h", rdmsr(0x175), 0x12345678);
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

/* ---- XSAVE */

struct xsave {
	u8 legacy[512];
	u64 bv, comp, zero[6];
	u8 avx[256];
	u8 more[4096 - 832];
} __attribute__((aligned(64)));

static struct xsave area, other;

static void xsetbv(u32 v)
{
	asm volatile("xsetbv" ::"c"(0), "a"(v), "d"(0) : "memory");
}

static ulong user_xsetbv(void)
{
	TRY("xsetbv", "c"(0), "a"(3), "d"(0));
	return 1;
}

static void test_xcr0(void)
{
	static const struct {
		const char *name;
		u32 value;
	} bad[] = {{"0", 0}, {"SSE without x87", 2}, {"AVX without SSE", 5}, {"bit 63..", 0x40000000}};
	ulong cr4 = read_cr4();
	u32 v[4];

	test_begin("XSETBV, XGETBV, OSXSAVE");
	write_cr4(cr4 & ~CR4_OSXSAVE);
	check("CPUID.OSXSAVE off", cpu_has(1, 0, ECX, 27), 0);
	TRY("xgetbv", "c"(0), "a"(0), "d"(0));
	want_error("XGETBV without OSXSAVE", UD, 0);
	TRY("xsetbv", "c"(0), "a"(3), "d"(0));
	want_error("XSETBV without OSXSAVE", UD, 0);
	write_cr4(cr4 | CR4_OSXSAVE | CR4_OSFXSR);
	check("CPUID.OSXSAVE on", cpu_has(1, 0, ECX, 27), 1);
	for (unsigned int k = 0; k < ARRAY_SIZE(bad); k++) {
		TRY("xsetbv", "c"(0), "a"(bad[k].value), "d"(0));
		want_error(bad[k].name, GP, 0);
	}
	TRY("xsetbv", "c"(1), "a"(3), "d"(0));
	want_error("XCR1", GP, 0);
	TRY("xgetbv", "c"(7), "a"(0), "d"(0));
	want_error("XGETBV 7", GP, 0);
	user_run(user_xsetbv, 0);
	want_error("XSETBV at CPL 3", GP, 0);
	xsetbv(3);
	cpuid(0xd, 0, v);
	check("size for x87 and SSE", v[EBX], 576);
	if (!(v[EAX] & 4))
		return;
	TRY("vxorps %%ymm0, %%ymm0, %%ymm0");
	want_error("AVX without XCR0[2]", UD, 0);
	xsetbv(7);
	cpuid(0xd, 0, v);
	check("size with AVX", v[EBX], 832);
	TRY("vxorps %%ymm0, %%ymm0, %%ymm0");
	want_none("AVX");
}

static void load_pattern(void)
{
	for (unsigned int k = 0; k < 256; k++)
		area.legacy[160 + k] = k ^ 0x5a;
	for (unsigned int k = 0; k < 256; k++)
		area.avx[k] = k ^ 0xa5;
	*(u16 *)area.legacy = 0x37f;
	*(u32 *)(area.legacy + 24) = 0x1f80;
	area.bv = 7;
	asm volatile("xrstor %0" ::"m"(area), "a"(7), "d"(0) : "memory");
}

static void test_xsave(void)
{
	test_begin("XSAVE, XRSTOR");
	load_pattern();
	memset(&other, 0xee, sizeof(other));
	memset(&other.bv, 0, 64);
	asm volatile("xsave %0" : "+m"(other) : "a"(6), "d"(0) : "memory");
	check("XSTATE_BV", other.bv & 6, 6);
	check("XMM", memcmp(other.legacy + 160, area.legacy + 160, 256), 0);
	check("upper halves", memcmp(other.avx, area.avx, 256), 0);
	check("x87 was not asked for", other.legacy[32], 0xee);
	check("nothing beyond", other.more[0], 0xee);
	asm volatile("vzeroupper");
	asm volatile("xsave %0" : "+m"(other) : "a"(2), "d"(0) : "memory");
	check("AVX was not asked for: old bytes stay", other.avx[5], area.avx[5]);
	area.bv = 2;
	asm volatile("xrstor %0" ::"m"(area), "a"(6), "d"(0) : "memory");
	memset(&other.bv, 0, 64);
	asm volatile("xsave %0" : "+m"(other) : "a"(6), "d"(0) : "memory");
	check("bit clear in XSTATE_BV: initial", other.bv & 4 ? other.avx[5] : 0, 0);
	area.bv = 7;
	TRY("xrstor 8(%0)", "S"(&area), "a"(7), "d"(0));
	want_error("not aligned to 64", GP, 0);
	TRY("xsave 16(%0)", "S"(&other), "a"(7), "d"(0));
	want_error("xsave not aligned to 64", GP, 0);
	area.bv = 1u << 20;
	TRY("xrstor (%0)", "S"(&area), "a"(7), "d"(0));
	want_error("XSTATE_BV with a bit not in XCR0", GP, 0);
	area.bv = 7;
	area.comp = 1;
	TRY("xrstor (%0)", "S"(&area), "a"(7), "d"(0));
	want_error("XCOMP_BV in the standard format", GP, 0);
	area.comp = 0;
	*(u32 *)(area.legacy + 24) = 0x80001f80;
	TRY("xrstor (%0)", "S"(&area), "a"(7), "d"(0));
	want_error("MXCSR reserved bits", GP, 0);
	*(u32 *)(area.legacy + 24) = 0x1f80;
	write_cr0(read_cr0() | CR0_TS);
	TRY("xsave (%0)", "S"(&other), "a"(7), "d"(0));
	want_error("CR0.TS", NM, 0);
	write_cr0(read_cr0() & ~CR0_TS);
}

static void test_xsavec(void)
{
	test_begin("XSAVEC, XSAVEOPT, FXSAVE");
	if (cpu_has(0xd, 1, EAX, 1)) {
		load_pattern();
		memset(&other, 0, sizeof(other));
		asm volatile("xsavec %0" : "+m"(other) : "a"(4), "d"(0) : "memory");
		check("XSAVEC: XCOMP_BV", other.comp, 1ul << 63 | 4);
		check("XSAVEC: compacted", memcmp(other.avx, area.avx, 256), 0);
		asm volatile("vzeroupper; xrstor %0" ::"m"(other), "a"(4), "d"(0) : "memory");
		memset(&other, 0, sizeof(other));
		asm volatile("xsave %0" : "+m"(other) : "a"(4), "d"(0) : "memory");
		check("XRSTOR of it", memcmp(other.avx, area.avx, 256), 0);
	}
	if (cpu_has(0xd, 1, EAX, 0)) {
		load_pattern();
		memset(&other, 0, sizeof(other));
		asm volatile("xsaveopt %0" : "+m"(other) : "a"(4), "d"(0) : "memory");
		check("XSAVEOPT", other.bv & 4 ? memcmp(other.avx, area.avx, 256) : 1, 0);
	}
	load_pattern();
	memset(&other, 0, sizeof(other));
	asm volatile("fxsave64 %0" : "+m"(other)::"memory");
	check("FXSAVE: XMM", memcmp(other.legacy + 160, area.legacy + 160, 256), 0);
	check("FXSAVE: MXCSR", *(u32 *)(other.legacy + 24), 0x1f80);
	TRY("fxsave64 8(%0)", "S"(&other));
	want_error("FXSAVE not aligned to 16", GP, 0);
	*(u32 *)(other.legacy + 24) = 0x80000000;
	TRY("fxrstor64 (%0)", "S"(&other));
	want_error("FXRSTOR, MXCSR reserved bits", GP, 0);
}

#define PKRU	 0x200 /* component 9 */
#define PKRU_VAL 0x55555554u

static void xsave(u32 mask)
{
	asm volatile("xsave %0" : "+m"(other) : "a"(mask), "d"(0) : "memory");
}

static void xrstor(u32 mask)
{
	asm volatile("xrstor %0" ::"m"(other), "a"(mask), "d"(0) : "memory");
}

static u32 rdpkru(void)
{
	u32 v;

	asm volatile("rdpkru" : "=a"(v) : "c"(0) : "rdx", "memory");
	return v;
}

static void wrpkru(u32 v)
{
	asm volatile("wrpkru" ::"a"(v), "c"(0), "d"(0) : "memory");
}

/* Where CPUID says that PKRU is, in either format (SDM 1 13.4.2, 13.4.3). */
static void test_pkru_places(u32 offset)
{
	u8 *bytes = (u8 *)&other;

	memset(&other, 0xee, sizeof(other));
	memset(&other.bv, 0, 64);
	xsave(PKRU);
	check("XSTATE_BV", other.bv, PKRU);
	check("in its place", VAR(u32, bytes + offset), PKRU_VAL);
	check("the rest of it is 0", VAR(u32, bytes + offset + 4), 0);
	check("nothing before it", VAR(u64, bytes + 832 - 8), 0xeeeeeeeeeeeeeeee);
	check("nothing behind it", VAR(u64, bytes + offset + 8), 0xeeeeeeeeeeeeeeee);
	if (!cpu_has(0xd, 1, EAX, 1))
		return;
	asm volatile("xsavec %0" : "+m"(other) : "a"(PKRU), "d"(0) : "memory");
	check("XSAVEC: alone it comes first", VAR(u32, other.avx), PKRU_VAL);
	wrpkru(0);
	xrstor(PKRU);
	check("XRSTOR of the compacted format", rdpkru(), PKRU_VAL);
	asm volatile("xsavec %0" : "+m"(other) : "a"(PKRU | 4), "d"(0) : "memory");
	check("XSAVEC: behind AVX", VAR(u32, other.more), PKRU_VAL);
	memset(&other, 0, sizeof(other));
}

static void test_xsave_pkru(void)
{
	u32 v[4], offset;

	test_begin("XSAVE, XRSTOR of PKRU");
	cpuid(0xd, 9, v);
	offset = v[EBX];
	check("CPUID: size", v[EAX], 8);
	check("CPUID: offset", offset >= 832 && offset <= sizeof(other) - 16, 1);
	write_cr4(read_cr4() | CR4_PKE);
	check("OSPKE", cpu_has(7, 0, ECX, 4), 1);
	xsetbv(7 | PKRU);
	cpuid(0xd, 0, v);
	check("CPUID: area", v[EBX], offset + 8);
	check("CPUID: largest area", v[ECX], offset + 8);
	wrpkru(PKRU_VAL);
	test_pkru_places(offset);
	xsave(PKRU);
	wrpkru(0);
	xrstor(PKRU);
	check("XRSTOR", rdpkru(), PKRU_VAL);
	map(NONCANON / 2, SCRATCH, 1, P | W | U | PKEY(1));
	VAR(u32, (u8 *)&other + offset) = 4; /* AD of key 1 */
	wrpkru(0);
	TRY("movl (%0), %%ebx", "S"(NONCANON / 2));
	want_none("key 1, PKRU 0");
	xrstor(PKRU);
	TRY("movl (%0), %%ebx", "S"(NONCANON / 2));
	want_pf("key 1 by XRSTOR", E_P | E_K, NONCANON / 2);
	other.bv = 0;
	xrstor(PKRU);
	check("bit clear in XSTATE_BV: initial", rdpkru(), 0);
	TRY("movl (%0), %%ebx", "S"(NONCANON / 2));
	want_none("and with it the page's rights");
	xsetbv(7);
	wrpkru(PKRU_VAL);
	other.bv = 0;
	xsave(PKRU);
	check("not in XCR0: not saved", other.bv, 0);
	wrpkru(0);
	write_cr4(read_cr4() & ~CR4_PKE);
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
	if (cpu_has(1, 0, ECX, 26)) {
		test_xcr0();
		if (cpu_has(0xd, 0, EAX, 2)) {
			test_xsave();
			test_xsavec();
			if (cpu_has(0xd, 0, EAX, 9))
				test_xsave_pkru();
		}
	}
}
