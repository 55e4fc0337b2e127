// SPDX-License-Identifier: MIT
/*
 * Operands and instructions across pages whose frames are not neighbours: RAM, nothing, MMIO;
 * code whose second page faults; 15 bytes and one more.
 */
#include "../lib/paging.h"

#define VA   0x8000000000ul
#define ONE  (SCRATCH + 0x10000ul)
#define TWO  (SCRATCH + 0x30000ul) /* not behind ONE */

static struct exit_log mmio;

/* Pages VA and VA + 4096. */
static void pages(ulong first, ulong second)
{
	*entry(VA, 1) = first ? first | P | W | U : 0;
	*entry(VA + 4096, 1) = second ? second | P | W | U : 0;
	invlpg(VA);
	invlpg(VA + 4096);
}

static void test_ram(void)
{
	u8 old[16];

	test_begin("operands: RAM and other RAM");
	pages(ONE, TWO);
	for (int n = 1; n < 8; n++) {
		ulong at = VA + 4096 - n, got;

		memset((void *)(ONE + 4080), 0, 16);
		memset((void *)(TWO), 0, 16);
		VAR(u64, at) = 0x1122334455667788;
		check("store: first half", VAR(u8, ONE + 4095), 0x1122334455667788 >> (8 * (n - 1)) & 0xff);
		check("store: second half", VAR(u8, TWO), 0x1122334455667788 >> (8 * n) & 0xff);
		check("load", VAR(u64, at), 0x1122334455667788);
		asm volatile("lock addq %1, (%0)" ::"r"(at), "r"(0x1111ul) : "memory");
		check("lock add", VAR(u64, at), 0x1122334455667788 + 0x1111);
		asm volatile("xchgq %0, (%1)" : "=r"(got) : "r"(at), "0"(0x55ul) : "memory");
		check("xchg", VAR(u64, at), 0x55);
		check("xchg: the old one", got, 0x1122334455667788 + 0x1111);
	}
	memcpy(old, (void *)(VA + 4090), 16);
	asm volatile("movups %0, %%xmm0; movups %%xmm0, %1"
		     : : "m"(old), "m"(VAR(u8, VA + 4087)) : "memory");
	check("movups: first", memcmp((void *)(ONE + 4087), old, 9), 0);
	check("movups: second", memcmp((void *)TWO, old + 9, 7), 0);
	asm volatile("movq %%rsp, %%rbx; leaq 12(%0), %%rsp; pushq $0x12345678; popq %%rax;"
		     "movq %%rbx, %%rsp; movq %%rax, %1"
		     : : "r"(VA + 4088), "m"(VAR(u64, ONE)) : "rax", "rbx", "memory");
	check("push and pop across", VAR(u64, ONE), 0x12345678);
}

static void test_not_present(void)
{
	test_begin("operands: RAM, then nothing");
	pages(ONE, 0);
	memset((void *)(ONE + 4088), 0x77, 8);
	TRY("movq $-1, (%0)", "S"(VA + 4093));
	want_pf("store", E_W, VA + 4096);
	check("nothing was written", VAR(u64, ONE + 4088), 0x7777777777777777);
	TRY("addl $1, (%0)", "S"(VA + 4094));
	want_pf("add", E_W, VA + 4096);
	TRY("lock cmpxchgq %%rcx, (%0)", "S"(VA + 4094));
	want_pf("lock cmpxchg", E_W, VA + 4096);
	TRY("movl (%0), %%ebx", "S"(VA + 4095));
	want_pf("load", 0, VA + 4096);
	pages(0, TWO);
	TRY("movl (%0), %%ebx", "S"(VA + 4095));
	want_pf("load, the first is missing", 0, VA + 4095);
	pages(0, 0);
	TRY("movl (%0), %%ebx", "S"(VA + 4093));
	want_pf("load, both missing", 0, VA + 4093);
	pages(ONE, TWO);
	*entry(VA + 4096, 1) &= ~W;
	invlpg(VA + 4096);
	write_cr0(read_cr0() | CR0_WP);
	TRY("movq $-1, (%0)", "S"(VA + 4093));
	want_pf("the second is read-only", E_P | E_W, VA + 4096);
	check("nothing was written", VAR(u64, ONE + 4088), 0x7777777777777777);
	write_cr0(read_cr0() & ~CR0_WP);
}

static void test_mmio(void)
{
	test_begin("operands: RAM and MMIO");
	pages(ONE, MMIO_BASE + 0x1000);
	mmio.n = 0;
	service(SVC_MMIO_LOG, (ulong)&mmio, 0, 0, 0);
	VAR(u64, VA + 4093) = 0x1122334455667788;
	check("store: one exit", mmio.n, 1);
	check("store: address", mmio.e[0].at, MMIO_BASE + 0x1000);
	check("store: length", mmio.e[0].len, 5);
	check("store: bytes", mmio.e[0].value, 0x1122334455);
	check("store: RAM half", VAR(u8, ONE + 4095), 0x66);
	check("load", VAR(u64, VA + 4093), 0x1122334455667788);
	check("load: an exit", mmio.n, 2);
	asm volatile("addl $0x01010101, (%0)" ::"r"(VA + 4094) : "memory");
	check("add: read and write", mmio.n, 4);
	check("add", VAR(u32, VA + 4094), 0x45566778);
	pages(MMIO_BASE, MMIO_BASE + 0x5000);
	mmio.n = 0;
	VAR(u32, VA + 4095) = 0xdeadbeef;
	check("MMIO and other MMIO: two exits", mmio.n, 2);
	check("first", mmio.e[0].at, MMIO_BASE + 0xfff);
	check("second", mmio.e[1].at, MMIO_BASE + 0x5000);
	check("second: bytes", mmio.e[1].value, 0xdeadbe);
	pages(MMIO_BASE, 0);
	mmio.n = 0;
	TRY("movl $-1, (%0)", "S"(VA + 4094));
	want_pf("MMIO, then nothing", E_W, VA + 4096);
	check("no exit", mmio.n, 0);
	pages(MMIO_BASE + 0x1000, ONE);
	VAR(u32, VA + 4094) = 0x99887766;
	check("MMIO then RAM: RAM half", VAR(u16, ONE), 0x9988);
	check("MMIO then RAM: MMIO half", mmio.e[mmio.n - 1].value, 0x7766);
	service(SVC_MMIO_LOG, 0, 0, 0, 0);
}

/* ---- code */

/* Puts code so that its first n bytes are on page VA, and an indirect jump back behind it. */
static ulong place(const u8 *code, unsigned int len, unsigned int n)
{
	static const u8 back[] = {0xff, 0x24, 0x25};
	ulong at = VA + 4096 - n, p = at;
	u32 where = (u32)(ulong)&trap_resume;

	memcpy((void *)p, code, len);
	memcpy((void *)(p + len), back, 3);
	memcpy((void *)(p + len + 3), &where, 4);
	return at;
}

static const u8 mov_imm[10] = {0x48, 0xbb, 1, 2, 3, 4, 5, 6, 7, 8}; /* movabs rbx */


static void test_code(void)
{
	test_begin("code across pages");
	for (unsigned int n = 1; n < 10; n++) {
		ulong at, seen;

		pages(ONE, TWO);
		at = place(mov_imm, sizeof(mov_imm), n);
		nr_traps = 0;
		asm volatile("movq $999f, trap_resume; jmp *%1; 999: movq $0, trap_resume"
			     : "=b"(seen) : "r"(at) : "memory");
		want_none("both there");
		check("ran", seen, 0x0807060504030201);
		*entry(VA + 4096, 1) = 0;
		invlpg(VA + 4096);
		TRY("jmp *%0", "S"(at));
		want_pf("the second is missing", E_I, VA + 4096);
		check("RIP is the instruction", traps[0].ip, at);
		*entry(VA + 4096, 1) = TWO | P | NX;
		invlpg(VA + 4096);
		TRY("jmp *%0", "S"(at));
		want_pf("the second is NX", E_P | E_I, VA + 4096);
	}
	/* the second page changes: another frame with another immediate */
	pages(ONE, TWO);
	place(mov_imm, sizeof(mov_imm), 4);
	memcpy((void *)(TWO + 0x1000), (void *)TWO, 64);
	VAR(u8, TWO + 0x1000 + 5) = 0x88;
	{
		ulong a, b;

		asm volatile("movq $999f, trap_resume; jmp *%1; 999: movq $0, trap_resume"
			     : "=b"(a) : "r"(VA + 4092) : "memory");
		*entry(VA + 4096, 1) = (TWO + 0x1000) | P | W;
		invlpg(VA + 4096);
		asm volatile("movq $999f, trap_resume; jmp *%1; 999: movq $0, trap_resume"
			     : "=b"(b) : "r"(VA + 4092) : "memory");
		check("first frame", a >> 56, 8);
		check("second frame", b >> 56, 0x88);
	}
	/* an instruction that ends exactly at the page's end does not touch the next */
	pages(ONE, 0);
	VAR(u8, ONE + 4095) = 0x0b; /* ud2 */
	VAR(u8, ONE + 4094) = 0x0f;
	TRY("jmp *%0", "S"(VA + 4094));
	want_trap("ends at the boundary", UD);
	VAR(u8, ONE + 4095) = 0x90;
	TRY("jmp *%0", "S"(VA + 4095));
	want_pf("the next one", E_I, VA + 4096);
	check("its RIP", traps[0].ip, VA + 4096);
}

static void test_length(void)
{
	u8 code[32];

	test_begin("15 bytes");
	pages(ONE, TWO);
	memset(code, 0x66, sizeof(code));
	code[14] = 0x90;
	TRY("jmp *%0", "S"(place(code, 15, 15)));
	want_none("14 prefixes and NOP, up to the boundary");
	TRY("jmp *%0", "S"(place(code, 15, 7)));
	want_none("the same across it");
	memset(code, 0x66, sizeof(code));
	code[15] = 0x90;
	TRY("jmp *%0", "S"(place(code, 16, 16)));
	want_error("16 bytes", GP, 0);
	check("RIP", traps[0].ip, VA + 4096 - 16);
	TRY("jmp *%0", "S"(place(code, 16, 3)));
	want_error("16 bytes across the boundary", GP, 0);
	pages(ONE, 0);
	memset((void *)(ONE + 4096 - 20), 0x66, 20);
	TRY("jmp *%0", "S"(VA + 4096 - 15));
	check("15 prefixes, then nothing: #GP or #PF", traps[0].vector, GP);
	TRY("jmp *%0", "S"(VA + 4096 - 14));
	want_pf("14 prefixes, then nothing", E_I, VA + 4096);
}

void guest_main(void)
{
	traps_init();
	write_cr4(read_cr4() | CR4_OSFXSR);
	test_ram();
	test_not_present();
	test_mmio();
	test_code();
	test_length();
}
