// SPDX-License-Identifier: MIT
/* 4-level paging (SDM 3A 4.5 to 4.10): rights, error codes, A and D, sizes, PCID, PKU, SMAP. */
#include "../lib/paging.h"

#define VA     0x8000000000ul /* nothing is there before a test maps it */
#define NOBODY 0x123456789000ul
#define DATA   ((ulong)SCRATCH)
#define PAGE_2M 0x200000ul
#define PAGE_1G 0x40000000ul

static ulong target; /* of user-mode and fetch probes */

static void probe_read(ulong va)
{
	TRY("movl (%0), %%ebx", "S"(va));
}
static void probe_write(ulong va)
{
	TRY("movl $0x5a5a5a5a, (%0)", "S"(va));
}
static ulong user_read(void)
{
	probe_read(target);
	return 0;
}
static ulong user_write(void)
{
	probe_write(target);
	return 0;
}
static ulong user_fetch(void)
{
	TRY("jmp *%0", "S"(target)); /* to code that is `jmp 999f`, or faults */
	return 0;
}
static void probe_user(ulong (*fn)(void), ulong va)
{
	target = va;
	user_run(fn, 0);
}

/* One NOP sled that goes back: `jmp *trap_resume` at the start of a page. */
static void put_code(ulong pa)
{
	static const u8 jmp[] = {0xff, 0x24, 0x25};
	u32 where = (u32)(ulong)&trap_resume;

	memcpy((void *)pa, jmp, 3);
	memcpy((void *)(pa + 3), &where, 4);
}

static void probe_jump(ulong va)
{
	TRY("jmp *%0", "S"(va));
}

static void test_sizes(void)
{
	static const struct {
		const char *name;
		int level;
		ulong size;
	} t[] = {{"4K", 1, 4096}, {"2M", 2, PAGE_2M}, {"1G", 3, PAGE_1G}};

	for (unsigned int k = 0; k < ARRAY_SIZE(t); k++) {
		ulong va = VA + (k + 1) * 0x10000000000ul, off = DATA & (t[k].size - 1) & ~4095ul;
		u64 *e = map(va, DATA & ~(t[k].size - 1), t[k].level, P | W);

		test_begin(k == 0 ? "page of 4K" : k == 1 ? "page of 2M" : "page of 1G");
		VAR(u32, DATA) = 0x11223344;
		probe_read(va + off);
		want_none("read");
		check("A without D", *e & (A | D), A);
		check("value", VAR(u32, va + off), 0x11223344);
		for (int l = t[k].level + 1; l <= 4; l++)
			check("A in the levels above, no D", *entry(va, l) & (A | D), A);
		probe_write(va + off + 8);
		want_none("write");
		check("A and D", *e & (A | D), A | D);
		check("written", VAR(u32, DATA + 8), 0x5a5a5a5a);
		*e = 0;
		invlpg(va + off);
		probe_read(va + off + 16);
		want_pf("gone", 0, va + off + 16);
	}
	test_begin("1G page: both ends");
	map(VA, 0, 3, P | W);
	VAR(u8, RAM_SIZE - 1) = 0x77;
	check("last byte of RAM", VAR(u8, VA + RAM_SIZE - 1), 0x77);
	*entry(VA, 3) = 0;
	invlpg(VA);
	invlpg(VA + RAM_SIZE);
}

static void test_not_present(void)
{
	test_begin("not present");
	probe_read(NOBODY);
	want_pf("read", 0, NOBODY);
	probe_write(NOBODY + 5);
	want_pf("write", E_W, NOBODY + 5);
	probe_jump(NOBODY + 8);
	want_pf("fetch", E_I, NOBODY + 8);
	check("fetch: RIP is the target", traps[0].ip, NOBODY + 8);
	probe_user(user_read, NOBODY);
	want_pf("user read", E_U, NOBODY);
	probe_user(user_write, NOBODY);
	want_pf("user write", E_U | E_W, NOBODY);
	probe_user(user_fetch, NOBODY);
	want_pf("user fetch", E_U | E_I, NOBODY);
	map(VA, DATA, 1, P | W);
	for (int l = 1; l <= 4; l++) {
		*entry(VA, l) &= ~P;
		invlpg(VA);
		probe_read(VA);
		want_pf("each level", 0, VA);
		*entry(VA, l) |= P;
	}
	probe_read(VA);
	want_none("present again, without INVLPG");
}

static void test_rights(void)
{
	ulong cr0 = read_cr0();
	u64 *e = map(VA, DATA, 1, P | U);

	test_begin("R/W, U/S, CR0.WP");
	write_cr0(cr0 & ~CR0_WP);
	probe_write(VA);
	want_none("WP=0: supervisor writes");
	check("D", *e & D, D);
	write_cr0(cr0 | CR0_WP);
	*e &= ~D;
	invlpg(VA);
	probe_write(VA);
	want_pf("WP=1: it may not", E_P | E_W, VA);
	check("no D", *e & D, 0);
	probe_read(VA);
	want_none("it reads");
	probe_user(user_write, VA);
	want_pf("user write", E_P | E_W | E_U, VA);
	write_cr0(cr0 & ~CR0_WP);
	probe_user(user_write, VA);
	want_pf("user write, WP=0", E_P | E_W | E_U, VA);
	write_cr0(cr0);
	*e |= W;
	for (int l = 2; l <= 4; l++) {
		*entry(VA, l) &= ~W;
		invlpg(VA);
		probe_user(user_write, VA);
		want_pf("R/W at each level", E_P | E_W | E_U, VA);
		*entry(VA, l) = (*entry(VA, l) | W) & ~U;
		invlpg(VA);
		probe_user(user_read, VA);
		want_pf("U/S at each level", E_P | E_U, VA);
		*entry(VA, l) |= U;
		invlpg(VA);
	}
	probe_user(user_write, VA);
	want_none("all rights: user writes");
	TRY("lock addl $1, (%0)", "S"(VA));
	want_none("locked write");
	map(VA, DATA, 1, P);
	write_cr0(cr0 | CR0_WP);
	TRY("addl $1, (%0)", "S"(VA));
	want_pf("read-modify-write: reported as a write", E_P | E_W, VA);
	TRY("lock cmpxchgl %%ecx, (%0)", "S"(VA));
	want_pf("cmpxchg", E_P | E_W, VA);
	write_cr0(cr0);
}

static void test_nx(void)
{
	ulong code = DATA + 0x10000;

	test_begin("NX");
	put_code(code);
	map(VA, code, 1, P | NX);
	probe_jump(VA);
	want_pf("fetch", E_P | E_I, VA);
	probe_read(VA);
	want_none("read");
	map(VA, code, 1, P);
	probe_jump(VA);
	want_none("without NX");
	for (int l = 2; l <= 4; l++) {
		*entry(VA, l) |= NX;
		invlpg(VA);
		probe_jump(VA);
		want_pf("at each level", E_P | E_I, VA);
		*entry(VA, l) &= ~NX;
		invlpg(VA);
	}
	map(VA, code, 1, P | NX);
	wrmsr(0xc0000080, rdmsr(0xc0000080) & ~0x800ul);
	probe_read(VA);
	want_pf("bit 63 is reserved without EFER.NXE", E_P | E_R, VA);
	probe_jump(NOBODY);
	want_pf("no I bit without NXE and SMEP", 0, NOBODY);
	wrmsr(0xc0000080, rdmsr(0xc0000080) | 0x800);
}

static void test_reserved(void)
{
	test_begin("reserved bits");
	map(VA, DATA, 1, P | W | U | 1ul << 51);
	probe_read(VA);
	want_pf("PTE, address beyond MAXPHYADDR", E_P | E_R, VA);
	probe_user(user_write, VA);
	want_pf("user write", E_P | E_R | E_W | E_U, VA);
	map(VA, DATA, 1, P | W | U);
	for (int l = 2; l <= 4; l++) {
		*entry(VA, l) |= 1ul << 51;
		invlpg(VA);
		probe_read(VA);
		want_pf("each level", E_P | E_R, VA);
		*entry(VA, l) &= ~(1ul << 51);
		invlpg(VA);
	}
	*entry(VA, 4) |= PS;
	invlpg(VA);
	probe_read(VA);
	want_pf("PS in a PML4E", E_P | E_R, VA);
	*entry(VA, 4) &= ~PS;
	map(VA + PAGE_2M, 0x2000, 2, P | W);
	probe_read(VA + PAGE_2M);
	want_pf("2M page, address bit 13", E_P | E_R, VA + PAGE_2M);
	map(VA + PAGE_1G, PAGE_2M, 3, P | W);
	probe_read(VA + PAGE_1G);
	want_pf("1G page, address bit 21", E_P | E_R, VA + PAGE_1G);
	map(VA + PAGE_2M, 1ul << 12, 2, P | W); /* PAT */
	probe_read(VA + PAGE_2M);
	want_none("2M page, PAT");
	*entry(VA + PAGE_2M, 2) = 0;
	*entry(VA + PAGE_1G, 3) = 0;
	*entry(VA, 1) = 1ul << 51 | 0x7e; /* all but P */
	invlpg(VA);
	probe_read(VA);
	want_pf("not present: nothing is reserved", 0, VA);
}

static void test_smep_smap(void)
{
	ulong cr4 = read_cr4(), code = DATA + 0x10000;

	test_begin("SMEP, SMAP");
	put_code(code);
	/* the kernel's own pages must be supervisor pages now */
	map(VA, code, 1, P | W | U);
	for (int k = 0; k < 16; k++)
		entry(0, 2)[k] &= ~U;
	write_cr3(read_cr3());
	write_cr4(cr4 | CR4_SMEP);
	probe_jump(VA);
	want_pf("SMEP: fetch of a user page", E_P | E_I, VA);
	*entry(VA, 2) &= ~U;
	invlpg(VA);
	probe_jump(VA);
	want_none("SMEP: supervisor because of the PDE");
	*entry(VA, 2) |= U;
	write_cr4(cr4 | CR4_SMAP);
	invlpg(VA);
	probe_read(VA);
	want_pf("SMAP: read", E_P, VA);
	probe_write(VA + 64);
	want_pf("SMAP: write", E_P | E_W, VA + 64);
	probe_jump(VA);
	want_none("SMAP: fetch is not its business");
	asm volatile("stac");
	probe_read(VA);
	want_none("SMAP with AC: read");
	probe_write(VA + 64);
	want_none("SMAP with AC: write");
	asm volatile("clac");
	probe_read(VA);
	want_pf("SMAP after CLAC", E_P, VA);
	write_cr4(cr4);
	TRY("stac; clac");
	want_none("stac and clac without CR4.SMAP");
	for (int k = 0; k < 16; k++)
		entry(0, 2)[k] |= U;
	write_cr3(read_cr3());
}

/* The processor's own accesses are supervisor ones at CPL 3, and AC does not help them. */
static ulong user_load_ds(void)
{
	asm volatile("pushfq; orq %0, (%%rsp); popfq" ::"r"(AC_FLAG) : "memory");
	TRY("movw %w0, %%ds", "r"(USER_DS));
	return 0;
}

static void test_implicit(void)
{
	struct {
		u16 limit;
		ulong base;
	} __attribute__((packed)) p = {GDT_ENTRIES * 8 - 1, 0}, old;
	ulong cr4 = read_cr4(), page = VA + 0x100000;

	test_begin("implicit accesses");
	asm volatile("sgdt %0" : "=m"(old));
	p.base = page + ((ulong)gdt & 4095);
	map(page, (ulong)gdt & ~4095ul, 1, P | W);
	map(page + 4096, ((ulong)gdt & ~4095ul) + 4096, 1, P | W);
	asm volatile("lgdt %0" ::"m"(p));
	user_run(user_load_ds, 0);
	want_none("GDT on a supervisor page, used at CPL 3");
	*entry(page, 1) |= U;
	*entry(page + 4096, 1) |= U;
	invlpg(page);
	invlpg(page + 4096);
	user_run(user_load_ds, 0);
	want_none("GDT on a user page");
	asm volatile("lgdt %0" ::"m"(old));
	write_cr4(cr4);
}

#define PKRS 0x6e1

static void wrpkru(u32 v)
{
	asm volatile("wrpkru" ::"a"(v), "c"(0), "d"(0) : "memory");
}

static void test_pku(void)
{
	ulong cr0 = read_cr0(), cr4 = read_cr4();

	test_begin("protection keys");
	if (!cpu_has(7, 0, ECX, 3))
		return;
	TRY("wrpkru", "a"(0), "c"(0), "d"(0));
	want_trap("WRPKRU without CR4.PKE", UD);
	put_code(DATA + 0x10000);
	map(VA, DATA + 0x10000, 1, P | W | U | PKEY(5));
	write_cr4(cr4 | CR4_PKE);
	check("OSPKE", cpu_has(7, 0, ECX, 4), 1);
	TRY("wrpkru", "a"(0), "c"(1), "d"(0));
	want_error("WRPKRU, ECX != 0", GP, 0);
	TRY("rdpkru", "a"(0), "c"(1), "d"(0));
	want_error("RDPKRU, ECX != 0", GP, 0);
	wrpkru(1u << 10); /* AD of key 5 */
	probe_user(user_read, VA);
	want_pf("AD: user read", E_P | E_U | E_K, VA);
	probe_user(user_write, VA);
	want_pf("AD: user write", E_P | E_U | E_K | E_W, VA);
	probe_read(VA);
	want_pf("AD: supervisor read of a user page", E_P | E_K, VA);
	probe_user(user_fetch, VA);
	want_none("AD: fetch");
	wrpkru(2u << 10); /* WD */
	probe_user(user_read, VA);
	want_none("WD: user read");
	probe_user(user_write, VA);
	want_pf("WD: user write", E_P | E_U | E_K | E_W, VA);
	write_cr0(cr0 & ~CR0_WP);
	probe_write(VA + 64);
	want_none("WD: supervisor write, WP=0");
	write_cr0(cr0 | CR0_WP);
	probe_write(VA + 64);
	want_pf("WD: supervisor write, WP=1", E_P | E_K | E_W, VA + 64);
	*entry(VA, 1) &= ~W;
	invlpg(VA);
	probe_user(user_write, VA);
	want_pf("WD and read-only", E_P | E_U | E_K | E_W, VA);
	*entry(VA, 1) &= ~U;
	invlpg(VA);
	probe_read(VA);
	want_none("supervisor page: no keys");
	wrpkru(0);
	write_cr0(cr0);
	write_cr4(cr4);
}

/* Keys of supervisor pages (SDM 3A 4.6.2): IA32_PKRS, and no instruction of their own. */
static void test_pks(void)
{
	ulong cr0 = read_cr0(), cr4 = read_cr4();

	test_begin("protection keys of supervisor pages");
	TRY("wrmsr", "a"(0), "c"(PKRS), "d"(1));
	want_error("PKRS, upper half", GP, 0);
	wrmsr(PKRS, 3u << 10);
	check("PKRS", rdmsr(PKRS), 3u << 10);
	put_code(DATA + 0x10000);
	map(VA, DATA + 0x10000, 1, P | W | PKEY(5));
	probe_write(VA + 64);
	want_none("without CR4.PKS");
	write_cr4(cr4 | CR4_PKS);
	probe_read(VA);
	want_pf("AD: read", E_P | E_K, VA);
	write_cr0(cr0 & ~CR0_WP);
	probe_write(VA + 64);
	want_pf("AD: write, WP=0", E_P | E_K | E_W, VA + 64);
	probe_jump(VA);
	want_none("AD: fetch");
	probe_user(user_read, VA);
	want_pf("AD: user read", E_P | E_U | E_K, VA);
	wrmsr(PKRS, 2u << 10); /* WD */
	probe_write(VA + 64);
	want_none("WD: write, WP=0");
	write_cr0(cr0 | CR0_WP);
	probe_write(VA + 64);
	want_pf("WD: write, WP=1", E_P | E_K | E_W, VA + 64);
	probe_read(VA);
	want_none("WD: read");
	*entry(VA, 1) |= U;
	invlpg(VA);
	probe_write(VA + 64);
	want_none("user page: no such keys");
	wrmsr(PKRS, 0);
	write_cr0(cr0);
	write_cr4(cr4);
}

static void test_canonical(void)
{
	ulong end = 0x7ffffffff000;

	test_begin("canonical addresses");
	map(end, DATA, 1, P | W);
	probe_read(end + 0xffc);
	want_none("the last four bytes");
	probe_read(end + 0xffd);
	want_error("across 2^47", GP, 0);
	probe_read(0xffff800000000000ul);
	want_pf("the first of the upper half", 0, 0xffff800000000000ul);
	probe_read(0xffff7ffffffffffful);
	want_error("below it", GP, 0);
	probe_read(0xfffffffffffffffdul);
	check("across 2^64", traps[0].vector, PF);
	VAR(u8, DATA + 0xffe) = 0xeb; /* jmp +0x10, across the end */
	VAR(u8, DATA + 0xfff) = 0x10;
	TRY("jmp *%0", "S"(end + 0xffe));
	want_error("RIP beyond 2^47 by a branch", GP, 0);
	check("RIP", traps[0].ip == end + 0xffe || traps[0].ip == end + 0x1010, 1);
	*entry(end, 1) = 0;
	invlpg(end);
}

static void test_invlpg(void)
{
	ulong cr4 = read_cr4();

	test_begin("INVLPG, MOV CR3, global pages");
	VAR(u32, DATA) = 1;
	VAR(u32, DATA + 4096) = 2;
	map(VA, DATA, 1, P | W);
	check("first", VAR(u32, VA), 1);
	*entry(VA, 1) = (DATA + 4096) | P | W;
	invlpg(VA + 0x123);
	check("after INVLPG", VAR(u32, VA), 2);
	*entry(VA, 1) = DATA | P | W;
	write_cr3(read_cr3());
	check("after MOV CR3", VAR(u32, VA), 1);
	*entry(VA, 1) = (DATA + 4096) | P | W;
	write_cr4(cr4 ^ CR4_PGE);
	check("after a change of CR4.PGE", VAR(u32, VA), 2);
	write_cr4(cr4 | CR4_PGE);
	map(VA, DATA, 1, P | W | G);
	check("global", VAR(u32, VA), 1);
	*entry(VA, 1) = (DATA + 4096) | P | W | G;
	invlpg(VA);
	check("global: after INVLPG", VAR(u32, VA), 2);
	*entry(VA, 1) = DATA | P | W | G;
	write_cr4(cr4 & ~CR4_PGE);
	check("global: after CR4.PGE=0", VAR(u32, VA), 1);
	map(VA + PAGE_2M, 0, 2, P | W);
	VAR(u32, 0x1ff000) = 7;
	check("2M page", VAR(u32, VA + PAGE_2M + 0x1ff000), 7);
	*entry(VA + PAGE_2M, 2) = 0;
	invlpg(VA + PAGE_2M); /* another 4K part of the page */
	probe_read(VA + PAGE_2M + 0x1ff000);
	want_pf("2M page: INVLPG takes all parts", 0, VA + PAGE_2M + 0x1ff000);
	TRY("invlpg (%0)", "S"(0x8000000000000ul));
	want_none("INVLPG of an address that is not canonical");
	write_cr4(cr4);
}

struct invpcid {
	u64 pcid, addr;
};
#define INVPCID(type, pcid, addr) \
	TRY("invpcid %0, %1", "m"((struct invpcid){pcid, addr}), "r"((ulong)(type)))

/* A copy of the top table in which VA's slot is another. */
static ulong other_root(ulong pa)
{
	u64 *root = page_alloc();
	ulong cr3 = read_cr3();

	memcpy(root, (void *)(cr3 & ADDR), 4096);
	root[VA >> 39 & 511] = 0;
	write_cr3((ulong)root);
	map(VA, pa, 1, P | W);
	write_cr3(cr3);
	return (ulong)root;
}

static void test_pcid(void)
{
	ulong cr3 = read_cr3(), cr4 = read_cr4(), root, keep = 1ul << 63;

	test_begin("PCID, INVPCID");
	if (!cpu_has(1, 0, ECX, 17) || !cpu_has(7, 0, EBX, 10))
		return;
	map(VA, DATA, 1, P | W);
	root = other_root(DATA + 4096);
	write_cr3(cr3 | 0x18); /* PCD, PWT: not allowed to be a PCID at CR4.PCIDE = 1 */
	TRY("movq %0, %%cr4", "r"(cr4 | CR4_PCIDE));
	want_error("PCIDE with CR3[11:0] != 0", GP, 0);
	write_cr3(cr3);
	TRY("movq %0, %%cr3", "r"(cr3 | keep));
	want_error("CR3 bit 63 without PCIDE", GP, 0);
	INVPCID(0, 1, VA);
	want_error("INVPCID, PCID 1 without PCIDE", GP, 0);
	write_cr4(cr4 | CR4_PCIDE);
	check("PCID 0", VAR(u32, VA), 1);
	write_cr3(root | 1);
	check("PCID 1", VAR(u32, VA), 2);
	check("CR3 reads back", read_cr3(), root | 1);
	write_cr3(cr3 | keep);
	check("CR3 does not keep bit 63", read_cr3(), cr3);
	check("PCID 0 again", VAR(u32, VA), 1);
	*entry(VA, 1) = (DATA + 4096) | P | W;
	INVPCID(0, 0, VA);
	want_none("INVPCID 0");
	check("INVPCID, one address", VAR(u32, VA), 2);
	*entry(VA, 1) = DATA | P | W;
	INVPCID(1, 0, 0);
	check("INVPCID, one PCID", VAR(u32, VA), 1);
	*entry(VA, 1) = (DATA + 4096) | P | W;
	INVPCID(3, 0, 0);
	check("INVPCID, all but global", VAR(u32, VA), 2);
	*entry(VA, 1) = DATA | P | W;
	INVPCID(2, 0, 0);
	check("INVPCID, all", VAR(u32, VA), 1);
	INVPCID(4, 0, 0);
	want_error("INVPCID 4", GP, 0);
	INVPCID(0, 0x1000, VA);
	want_error("INVPCID, reserved bits", GP, 0);
	INVPCID(0, 0, NONCANON57);
	want_error("INVPCID, not canonical", GP, 0);
	/* An entry of PCID 1 that was changed meanwhile: MOV CR3 with bit 63 = 0 drops it. */
	write_cr3(root | 1);
	*entry(VA, 1) = DATA | P | W;
	write_cr3(cr3 | keep);
	write_cr3(root | 1);
	check("MOV CR3 without bit 63", VAR(u32, VA), 1);
	TRY("movq %0, %%cr0", "r"(read_cr0() & ~CR0_PG));
	want_error("PG off with PCIDE", GP, 0);
	write_cr3(cr3);
	write_cr4(cr4);
	TRY("movq %0, %%cr3", "r"(cr3 | 1ul << 51));
	want_error("CR3 beyond MAXPHYADDR", GP, 0);
}

/* A and D are not written when nothing changes, and not by a failed access. */
static void test_ad(void)
{
	u64 *e = map(VA, DATA, 1, P | W);

	test_begin("accessed and dirty bits");
	probe_user(user_read, VA);
	want_pf("no right", E_P | E_U, VA);
	check("leaf: no A", *e & A, 0);
	TRY("prefetcht0 (%0)", "S"(NOBODY));
	want_none("prefetch never faults");
	*e = DATA | P;
	invlpg(VA);
	TRY("cmpxchgl %%ecx, (%0)", "S"(VA), "a"(VAR(u32, DATA) + 1), "c"(0));
	check("cmpxchg writes even when unequal, WP=0: D", *e & D, nr_traps ? 0 : D);
	*e = DATA | P | W;
	invlpg(VA);
	TRY("movl (%0), %%ebx; movl %%ebx, (%0)", "S"(VA));
	check("read, then write", *e & (A | D), A | D);
	*e &= ~D;
	invlpg(VA);
	TRY("movl %%ebx, (%0)", "S"(VA));
	check("D set again after INVLPG", *e & D, D);
	/* the tables' own page: A of the entry that maps itself */
	map(VA + 4096, (ulong)entry(VA, 1) & ~4095ul, 1, P | W);
	check("PTE seen through a second mapping", VAR(u64, VA + 4096) & ~(A | D),
	      DATA | P | W);
}

void guest_main(void)
{
	traps_init();
	test_not_present();
	test_sizes();
	test_rights();
	test_nx();
	test_reserved();
	test_smep_smap();
	test_implicit();
	test_pku();
	test_pks();
	test_canonical();
	test_invlpg();
	test_pcid();
	test_ad();
}
