// SPDX-License-Identifier: MIT
/* XCR0, XSAVE and its kin, FXSAVE (SDM 1 13): layouts, initial states, faults; PKRU among them. */
#include "../lib/paging.h"

#define KEY_VA 0x400000000000ul /* nothing else is there */

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
	map(KEY_VA, SCRATCH, 1, P | W | U | PKEY(1));
	VAR(u32, (u8 *)&other + offset) = 4; /* AD of key 1 */
	wrpkru(0);
	TRY("movl (%0), %%ebx", "S"(KEY_VA));
	want_none("key 1, PKRU 0");
	xrstor(PKRU);
	TRY("movl (%0), %%ebx", "S"(KEY_VA));
	want_pf("key 1 by XRSTOR", E_P | E_K, KEY_VA);
	other.bv = 0;
	xrstor(PKRU);
	check("bit clear in XSTATE_BV: initial", rdpkru(), 0);
	TRY("movl (%0), %%ebx", "S"(KEY_VA));
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
	if (!cpu_has(1, 0, ECX, 26))
		return;
	test_xcr0();
	if (!cpu_has(0xd, 0, EAX, 2))
		return;
	test_xsave();
	test_xsavec();
	if (cpu_has(0xd, 0, EAX, 9))
		test_xsave_pkru();
}
