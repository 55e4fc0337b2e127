// SPDX-License-Identifier: MIT
/*
 * Self-modifying code (SDM 3A 11.6, 8.1.3): the very next instruction, the same page, through a
 * second linear address, by string instructions, across pages; by another vCPU and by the VMM
 * while the code runs; through page tables.
 */
#include "../lib/paging.h"

#define VA   0x8000000000ul
#define CODE (SCRATCH + 0x20000ul)
#define ROUNDS 20 /* with the other processor, which may have to wait for a host CPU */

/* mov eax, imm32; ret */
static void put_mov(ulong at, u32 imm)
{
	VAR(u8, at) = 0xb8;
	VAR(u32, at + 1) = imm;
	VAR(u8, at + 5) = 0xc3;
}

static u32 call(ulong at)
{
	u32 eax;

	asm volatile("call *%1" : "=a"(eax) : "r"(at) : "memory");
	return eax;
}

static void test_again(void)
{
	test_begin("code that was run is changed");
	for (u32 k = 0; k < 20; k++) {
		put_mov(CODE, k);
		check("each time", call(CODE), k);
	}
	for (u32 k = 0; k < 20; k++) {
		VAR(u8, CODE + 1) = k + 100;
		check("one byte", call(CODE), k + 100);
	}
}

static void test_next(void)
{
	ulong eax;

	test_begin("the next instruction");
	for (int round = 0; round < 3; round++) {
		asm volatile("movb $1, 1f + 1; movb $2, 1f + 1; 1: movl $3, %%eax; movl $3, 1b + 1"
			     : "=a"(eax) :: "memory");
		check("immediate of the next one", eax, 2);
		asm volatile("xorl %%eax, %%eax; movb $0x48, 1f; movw $0xc0ff, 1f + 1; movb $0x90, 1f;"
			     "1: nop; nop; nop; movb $0x90, 1b; movw $0x9090, 1b + 1"
			     : "=a"(eax) :: "memory");
		check("an instruction that was not there (inc eax)", eax, 1);
		asm volatile("xorl %%eax, %%eax; movl $3, %%ecx;"
			     "1: addl $1, %%eax; addb $1, 1b + 2; loop 1b; movb $1, 1b + 2"
			     : "=a"(eax) :: "rcx", "memory");
		check("a loop that changes itself", eax, 1 + 2 + 3);
		asm volatile("leaq 1f + 1(%%rip), %%rdi; movl $4, %%ecx; movl $7, %%eax; cld;"
			     "rep stosb; 1: movl $0, %%eax; movl $0, 1b + 1"
			     : "=a"(eax) :: "rcx", "rdi", "memory");
		check("by rep stosb", eax, 0x07070707);
	}
}

static void test_push(void)
{
	ulong rax;

	test_begin("the next instruction, by PUSH and by an 8-byte store across it");
	asm volatile("movq %%rsp, %%rbx; leaq 1f + 10(%%rip), %%rsp; movabsq $0x1122334455667788, %%rax;"
		     "pushq %%rax; 1: movabsq $0, %%rax; movq %%rbx, %%rsp"
		     : "=a"(rax) :: "rbx", "memory");
	check("push", rax, 0x1122334455667788);
	asm volatile("lock xchgl %%ecx, 1f + 1; 1: movl $0, %%eax" : "=a"(rax) : "c"(0x1234) : "memory");
	check("xchg", rax, 0x1234);
	asm volatile("movd %1, %%xmm0; movd %%xmm0, 1f + 1; 1: movl $0, %%eax"
		     : "=a"(rax) : "r"(0x4321) : "memory");
	check("movd", rax, 0x4321);
}

static void test_alias(void)
{
	test_begin("through a second linear address");
	map(VA, CODE, 1, P | W);
	map(VA + 0x5000, CODE, 1, P | W);
	put_mov(CODE, 1);
	check("by the first", call(VA), 1);
	for (u32 k = 2; k < 8; k++) {
		put_mov(VA + 0x5000, k);
		check("written by the second", call(VA), k);
		put_mov(VA, k + 50);
		check("run by the second", call(VA + 0x5000), k + 50);
	}
	test_begin("through page tables");
	put_mov(CODE + 0x1000, 0x1000);
	*entry(VA, 1) = (CODE + 0x1000) | P | W;
	invlpg(VA);
	check("another frame", call(VA), 0x1000);
	*entry(VA, 1) = CODE | P | W;
	write_cr3(read_cr3());
	check("and back", call(VA), 57);
}

static void test_crossing(void)
{
	test_begin("code across pages is changed");
	map(VA, CODE, 1, P | W);
	map(VA + 0x1000, CODE + 0x4000, 1, P | W);
	for (int n = 1; n < 6; n++) {
		ulong at = VA + 0x1000 - n;

		put_mov(at, 0x01020304);
		check("before", call(at), 0x01020304);
		put_mov(at, 0x11121314);
		check("all bytes", call(at), 0x11121314);
		VAR(u8, CODE + 0x4000 + (n == 5 ? 0 : 4 - n)) = n == 5 ? 0xc3 : 0x55;
		check("the byte on the second page", call(at), n == 5 ? 0x11121314 : 0x55121314);
	}
	/* a write whose first half is the end of one page and whose second is code */
	put_mov(VA + 0x1000, 1);
	check("before", call(VA + 0x1000), 1);
	VAR(u64, VA + 0xffc) = 0x000007b890909090; /* nop x4, mov eax, 7 (4 bytes of it) */
	check("behind", call(VA + 0x1000), 7);
	check("from the nops", call(VA + 0xffc), 7);
}

static void test_smaller(void)
{
	/* code, then data, then code: no leftovers */
	test_begin("code becomes data and code again");
	for (u32 k = 0; k < 200; k++) {
		put_mov(CODE + 64, k);
		if (call(CODE + 64) != k) {
			check("round", k, ~0u);
			return;
		}
		for (int b = 0; b < 6; b++)
			VAR(u8, CODE + 64 + b) += 1;
	}
	check("200 rounds", 200, 200);
}

/* ---- the VMM writes guest memory while the guest runs that code */

static void test_vmm(void)
{
	ulong n = 0;

	test_begin("written by the VMM while the guest runs it");
	/* 1: dec rcx; jz 2f; jmp 1b  -> jmp becomes ret */
	static const u8 loop[] = {0x48, 0xff, 0xc0, 0x48, 0x39, 0xc8, 0x74, 0x02, 0xeb, 0xf6, 0xc3};

	memcpy((void *)CODE, loop, sizeof(loop));
	service(SVC_POKE, CODE + 8, 0xc3, 20000, 0);
	asm volatile("call *%1" : "=a"(n) : "r"(CODE), "a"(0ul), "c"(~0ul) : "memory");
	check("it came out, and not by the count", n != ~0ul, 1);
	/* from outside between two runs, by a service (as DMA would) */
	put_mov(CODE, 0x10);
	check("before", call(CODE), 0x10);
	service(SVC_POKE, CODE + 1, 0x20, 0, 0);
	for (ulong k = 0; k < 100000000 && call(CODE) == 0x10; k++)
		;
	check("after", call(CODE), 0x20);
}

/* ---- another vCPU */

static volatile u32 turn, seen, stop;
static u8 other_stack[4096] __attribute__((aligned(16)));

/* Cross-modifying code with the handshake of SDM 3A 8.1.3: wait, CPUID, run. */
static void other_cpu(void)
{
	u32 my = 0, v[4];

	while (!stop) {
		while (turn == my && !stop)
			asm volatile("pause");
		cpuid(0, 0, v);
		seen = call(CODE);
		my = turn;
		asm volatile("" ::: "memory");
		VAR(u32, CODE + 0x1000) = my;
	}
	for (;;)
		asm volatile("pause");
}

static void test_other_cpu(void)
{
	test_begin("written by another vCPU");
	put_mov(CODE, 0);
	stop = turn = 0;
	VAR(u32, CODE + 0x1000) = 0;
	check("start", service_cpu(SVC_START, 1, (ulong)other_cpu, (ulong)other_stack + 4088), 0);
	for (u32 k = 1; k <= ROUNDS; k++) {
		put_mov(CODE, k * 3);
		turn = k;
		while (VAR(u32, CODE + 0x1000) != k)
			asm volatile("pause");
		check("it runs what was written", seen, k * 3);
	}
	/* without a handshake: a loop that only a store from here can end */
	put_mov(CODE, 0);
	VAR(u16, CODE) = 0xfeeb; /* jmp . */
	turn = ROUNDS + 1;
	for (int k = 0; k < 200000; k++)
		asm volatile("pause");
	check("it is in the loop", VAR(u32, CODE + 0x1000), ROUNDS);
	VAR(u16, CODE) = 0x01eb; /* jmp +1, to the ret behind the immediate */
	VAR(u8, CODE + 3) = 0xc3;
	while (VAR(u32, CODE + 0x1000) != ROUNDS + 1)
		asm volatile("pause");
	check("a loop ended from outside", VAR(u32, CODE + 0x1000), ROUNDS + 1);
	stop = 1;
}

void guest_main(void)
{
	traps_init();
	write_cr4(read_cr4() | CR4_OSFXSR);
	test_again();
	test_next();
	test_push();
	test_alias();
	test_crossing();
	test_smaller();
	test_vmm();
	test_other_cpu();
}
