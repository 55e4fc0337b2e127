// SPDX-License-Identifier: MIT
/*
 * 32-bit paging: 2 levels with 4K and 4M pages (SDM 3A 4.3), PAE with 4K and 2M pages and the
 * rules of its four PDPTEs (4.4), switched on and off in flat 32-bit code.
 */
#include "../lib/lib.h"

#define P  1ul
#define W  2ul
#define U  4ul
#define A  0x20ul
#define D  0x40ul
#define PS 0x80ul
#define NX (1ull << 63)

#define VA   0x40000000ul /* not identical: its own PDE, PDPTE */
#define DATA ((ulong)SCRATCH)

static u32 *pd, *pt;
static u64 *pdpt, *pae_pd, *pae_low, *pae_pt;
static ulong target;

static void probe_read(ulong va)
{
	TRY("movl (%0), %%ebx", "S"(va));
}
static void probe_write(ulong va)
{
	TRY("movl $0x5a5a5a5a, (%0)", "S"(va));
}
static void probe_jump(ulong va)
{
	TRY("jmp *%0", "S"(va));
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
static void probe_user(ulong (*fn)(void), ulong va)
{
	target = va;
	user_run(fn, 0);
}

static void set_pde(ulong v)
{
	pd[VA >> 22] = v;
	invlpg(VA);
}
static void set_pte(ulong v)
{
	pt[0] = v;
	invlpg(VA);
}

static void two_level_on(void)
{
	pd = page_alloc();
	pt = page_alloc();
	for (u32 k = 0; k < RAM_SIZE >> 22; k++)
		pd[k] = k << 22 | PS | P | W | U;
	write_cr4(CR4_PSE);
	write_cr3((ulong)pd);
	write_cr0(read_cr0() | CR0_PG | CR0_WP);
}

static void test_two_level(void)
{
	test_begin("2-level paging, 4K pages");
	VAR(u32, DATA) = 0x11223344;
	probe_read(VA);
	want_pf("no PDE: read", 0, VA);
	probe_write(VA + 5);
	want_pf("no PDE: write", 2, VA + 5);
	probe_user(user_read, VA);
	want_pf("no PDE: user", 4, VA);
	set_pde((ulong)pt | P | W | U);
	probe_jump(VA + 8);
	want_pf("no PTE: fetch has no bit of its own", 0, VA + 8);
	set_pte(DATA | P | W | U);
	check("value", VAR(u32, VA), 0x11223344);
	check("A of the PTE", pt[0] & (A | D), A);
	check("A of the PDE", pd[VA >> 22] & (A | D), A);
	VAR(u32, VA) = 5;
	check("D of the PTE only", pt[0] & pd[VA >> 22] & D, 0);
	check("D", pt[0] & D, D);
	set_pte(DATA | P | U);
	probe_write(VA);
	want_pf("read-only, WP", 3, VA);
	probe_user(user_write, VA);
	want_pf("read-only, user", 7, VA);
	write_cr0(read_cr0() & ~CR0_WP);
	probe_write(VA);
	want_none("read-only without WP");
	probe_user(user_write, VA);
	want_pf("read-only without WP, user", 7, VA);
	write_cr0(read_cr0() | CR0_WP);
	set_pte(DATA | P | W);
	probe_user(user_read, VA);
	want_pf("supervisor PTE", 5, VA);
	set_pte(DATA | P | W | U);
	set_pde((ulong)pt | P | W);
	probe_user(user_read, VA);
	want_pf("supervisor PDE", 5, VA);
	set_pde((ulong)pt | P | U);
	probe_user(user_write, VA);
	want_pf("read-only PDE", 7, VA);
	set_pde((ulong)pt | P | W | U);
	pt[0] = (DATA + 4096) | P | W;
	invlpg(VA + 17);
	VAR(u32, DATA + 4096) = 0x77;
	check("after INVLPG", VAR(u32, VA), 0x77);
}

static void test_4m(void)
{
	test_begin("2-level paging, 4M pages");
	set_pde(DATA | PS | P | W | U);
	VAR(u32, DATA + 0x3ffffc) = 0x99;
	check("the last word", VAR(u32, VA + 0x3ffffc), 0x99);
	check("A", pd[VA >> 22] & (A | D), A);
	VAR(u32, VA + 0x3ffffc) = 0x98;
	check("D", pd[VA >> 22] & D, D);
	check("written", VAR(u32, DATA + 0x3ffffc), 0x98);
	set_pde(DATA | PS | P);
	probe_write(VA + 0x3000);
	want_pf("read-only", 3, VA + 0x3000);
	set_pde(DATA | 1 << 21 | PS | P | W);
	probe_read(VA);
	want_pf("bit 21 is reserved", 9, VA);
	set_pde(DATA | 1 << 12 | PS | P | W);
	probe_read(VA);
	want_none("bit 12 is PAT");
	set_pde(1 << 17 | PS | P | W); /* PSE-36: 64 GiB * 16 */
	probe_read(VA);
	check("bit 17 is address bit 36: no memory there", nr_traps, 0);
	set_pde(0);
}

static void test_wrap(void)
{
	u32 *high = page_alloc();

	test_begin("linear addresses wrap at 4 GiB");
	pd[1023] = (ulong)high | P | W;
	high[1023] = DATA | P | W;
	VAR(u32, DATA + 0xffc) = 0x11223344;
	VAR(u32, 0) = 0x55667788;
	check("read across", VAR(u32, 0xfffffffe), 0x77881122);
	VAR(u32, 0xfffffffd) = 0xaabbccdd;
	check("write: below", VAR(u32, DATA + 0xffc), 0xbbccdd44);
	check("write: at 0", VAR(u8, 0), 0xaa);
	pd[1023] = 0;
	invlpg(0xfffff000);
}

static void paging_off(void)
{
	write_cr0(read_cr0() & ~CR0_PG);
}

static void pae_tables(void)
{
	pdpt = page_alloc();
	pae_pd = page_alloc();
	pae_low = page_alloc();
	pae_pt = page_alloc();
	for (u32 k = 0; k < RAM_SIZE >> 21; k++)
		pae_low[k] = k << 21 | PS | P | W | U;
	pdpt[0] = (ulong)pae_low | P;
	pdpt[1] = (ulong)pae_pd | P;
	pae_pd[0] = (ulong)pae_pt | P | W | U;
}

static void set_pae(u64 *e, u64 v)
{
	*e = v;
	invlpg(VA);
}

static void test_pae(void)
{
	test_begin("PAE, 4K and 2M pages");
	set_pae(&pae_pt[0], DATA | P | W | U);
	VAR(u32, DATA) = 0x31415926;
	check("value", VAR(u32, VA), 0x31415926);
	check("A", pae_pt[0] & pae_pd[0] & A, A);
	check("PDPTE has no A", pdpt[1], (ulong)pae_pd | P);
	probe_write(VA);
	check("D", pae_pt[0] & D, D);
	set_pae(&pae_pt[0], DATA | P | W | U | 1ull << 51);
	probe_read(VA);
	want_pf("PTE reserved bit", 9, VA);
	set_pae(&pae_pt[0], DATA | P | W | U | 1ull << 62);
	probe_read(VA);
	want_pf("PTE bit 62", 9, VA);
	set_pae(&pae_pt[0], DATA | P | W | U | NX);
	probe_read(VA);
	want_pf("NX without EFER.NXE", 9, VA);
	wrmsr(0xc0000080, 0x800);
	invlpg(VA);
	probe_read(VA);
	want_none("NX with EFER.NXE: read");
	probe_jump(VA);
	want_pf("NX: fetch", 0x11, VA);
	set_pae(&pae_pt[0], DATA | P | W | U);
	pae_pd[0] |= NX;
	invlpg(VA);
	probe_jump(VA);
	want_pf("NX of the PDE: fetch", 0x11, VA);
	probe_jump(VA + 0x1000);
	want_pf("not present: fetch has the I bit", 0x10, VA + 0x1000);
	set_pae(&pae_pd[1], DATA | PS | P | W);
	check("2M page", VAR(u32, VA + 0x200000), VAR(u32, DATA));
	probe_user(user_read, VA + 0x200000);
	want_pf("2M page: user", 5, VA + 0x200000);
	set_pae(&pae_pd[1], DATA | 1 << 13 | PS | P | W);
	invlpg(VA + 0x200000);
	probe_read(VA + 0x200000);
	want_pf("2M page: bit 13", 9, VA + 0x200000);
	wrmsr(0xc0000080, 0);
	pae_pd[0] &= ~NX;
	probe_read(0x80000000);
	want_pf("PDPTE not present", 0, 0x80000000);
}

/* The PDPTEs are loaded by MOV CR3 and by changes of CR0 and CR4 bits (SDM 3A 4.4.1). */
static void test_pdpte(void)
{
	ulong cr3 = read_cr3(), cr4 = read_cr4();
	u64 good = pdpt[1];

	test_begin("PDPTE loads");
	pdpt[2] = (ulong)pae_pd | P;
	write_cr3(cr3);
	check("MOV CR3 loads", VAR(u32, 0x80000000), VAR(u32, DATA));
	pdpt[2] = 0;
	write_cr4(cr4 | CR4_PGE);
	probe_read(0x80000000);
	want_pf("a change of CR4.PGE loads", 0, 0x80000000);
	pdpt[2] = (ulong)pae_pd | P;
	write_cr4(cr4);
	check("and again", VAR(u32, 0x80000000), VAR(u32, DATA));
	pdpt[1] = good | 2;
	TRY("movl %0, %%cr3", "r"(cr3));
	want_error("reserved bit: MOV CR3", GP, 0);
	check("the old ones hold", VAR(u32, VA), VAR(u32, DATA));
	TRY("movl %0, %%cr4", "r"(cr4 | CR4_PGE));
	want_error("reserved bit: MOV CR4", GP, 0);
	check("CR4 did not change", read_cr4(), cr4);
	pdpt[1] = good & ~P;
	pdpt[3] = 0xffffffff00000ffe; /* not present: all else is ignored */
	TRY("movl %0, %%cr3", "r"(cr3));
	want_none("not present: nothing is reserved");
	probe_read(VA);
	want_pf("not present", 0, VA);
	pdpt[1] = good;
	pdpt[3] = 0;
	write_cr3(cr3 | 0x18);
	check("CR3 keeps PCD and PWT", read_cr3(), cr3 | 0x18);
	write_cr3(cr3);
}

/* CR3[31:5]: the four PDPTEs need not start a page. */
static void test_pdpt_anywhere(void)
{
	u64 *p = (u64 *)((ulong)page_alloc() + 0x7e0);

	test_begin("PDPT inside a page");
	p[0] = pdpt[0];
	p[3] = pdpt[1];
	write_cr3((ulong)p);
	check("CR3", read_cr3(), (ulong)p);
	check("PDPTE 3", VAR(u32, VA + 0x80000000), VAR(u32, DATA));
	pdpt[0] |= 0x40;
	paging_off();
	write_cr3((ulong)pdpt); /* without paging nothing is read */
	TRY("movl %0, %%cr0", "r"(read_cr0() | CR0_PG));
	want_error("PG with a reserved bit in a PDPTE", GP, 0);
	check("PG stays off", read_cr0() & CR0_PG, 0);
	pdpt[0] &= ~0x40ull;
	write_cr0(read_cr0() | CR0_PG);
	check("on again", VAR(u32, VA), VAR(u32, DATA));
}

void guest_main(void)
{
	traps_init();
	two_level_on();
	test_two_level();
	test_4m();
	test_wrap();
	paging_off();
	pae_tables();
	write_cr3((ulong)pdpt);
	write_cr4(CR4_PAE);
	write_cr0(read_cr0() | CR0_PG | CR0_WP);
	test_pae();
	test_pdpte();
	test_pdpt_anywhere();
}
