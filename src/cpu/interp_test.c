// SPDX-License-Identifier: MIT
/*
 * The threaded interpreter: chaining, requests, and code that changes under it
 * (TESTING.md 56: same page, next instruction, another alias, written by the VMM).
 */
#include "cpu/guest_test.h"

#include "base/hard.h"
#include "cpu/tb.h"

GUEST(sum, "xor %eax, %eax; mov $1000, %ecx; 1: add %rcx, %rax; dec %ecx; jnz 1b; hlt")
GUEST(calls, "mov $0, %eax; mov $10, %ecx; 1: call 2f; loop 1b; hlt; 2: add $3, %eax; ret")
GUEST(flags, "mov $0x7fffffff, %eax; add $1, %eax; seto %bl; sets %bh; setc %cl; setz %ch; "
	     "mov $5, %rdx; cmp $7, %rdx; setl %dl; pushf; pop %rsi; hlt")
GUEST(memory, "mov $0x100000, %rbx; movq $5, (%rbx); addq $7, (%rbx); mov (%rbx), %rax; "
	      "mov $2, %ecx; mov %rax, 8(%rbx,%rcx,8); movzbl 24(%rbx), %edx; "
	      "movl $0xfffffff0, 0xffc(%rbx); incl 0xffe(%rbx); mov 0xffe(%rbx), %esi; hlt")
GUEST(string, "mov $0x100000, %rdi; mov $0x5a, %al; mov $10000, %ecx; rep stosb; "
	      "mov $0x100000, %rsi; mov $0x180000, %rdi; mov $1250, %ecx; rep movsq; "
	      "mov $0x180000, %rsi; mov $0x100000, %rdi; mov $10000, %ecx; repe cmpsb; "
	      "sete %bl; hlt")
/* patches the immediate of the next instruction (b8 imm32 at 1f) */
GUEST(smc_next, "lea 1f(%rip), %rbx; mov $1, %edx; movl $0x1234, 1(%rbx); 1: mov $1, %eax; hlt")
/* calls a function, patches it through another alias of the page, calls it again */
GUEST(smc_alias, "call 2f; mov %eax, %esi; lea 2f(%rip), %rbx; mov $0xffff800000000000, %rdx; "
		 "movl $77, 1(%rbx,%rdx); call 2f; hlt; .balign 64; 2: mov $1, %eax; ret")
GUEST(spin, "1: inc %rax; jmp 1b")
GUEST(wait_patch, "1: mov $0, %eax; test %eax, %eax; jz 1b; hlt")
GUEST(div_zero, "xor %ecx, %ecx; mov $1, %eax; div %ecx; hlt")
GUEST(no_ram, "mov $0x40000000, %rbx; mov 0x10(%rbx), %eax; hlt")
GUEST(narrow, "mov $0x12345680, %eax; cbtw; mov %rax, %rbx; mov $0x8000, %eax; "
	      "mov $0x1111111111111111, %rdx; cwtd; hlt")
GUEST(misaligned, "mov $0x100000, %esi; mov $0x180002, %edi; mov $9, %ecx; rep movsl; hlt")
GUEST(ret_nowhere, "movabs $0x8000000000000000, %rax; push %rax; ret")
GUEST(jmp_nowhere, "movabs $0x8000000000000000, %rax; push %rax; jmp *(%rsp)")
GUEST(call_nowhere, "movabs $0x8000000000000000, %rax; push %rax; call *%rax")
GUEST(port, "mov $0x3f8, %dx; mov $0x41, %al; out %al, %dx; hlt")

GUEST(counts, "mov $0x50, %ebx; tzcnt %ebx, %eax; lzcnt %ebx, %edx; lzcnt 2f(%rip), %rsi; hlt; "
	      "2: .quad 0x100000000")

static void run_to_hlt(struct guest *g)
{
	assert_int_equal(guest_run(g), LEAVE_HLT);
}

/* f, in a page of its own, is called, overwritten in a loop, and called again */
GUEST(becomes_data, "call 2f; mov %eax, %esi; mov $1000, %ecx; 1: mov %ecx, 3f(%rip); dec %ecx; jnz 1b; "
		    "hlt; movl $77, 2f+1(%rip); call 2f; hlt; .org becomes_data_code + 4096; 2: mov $5, %eax; ret; "
		    ".balign 64; 3: .long 0")

static void code_becomes_data(void **state)
{
	struct guest *g = guest_create();
	gpa_t page = gpa(CODE + 0x1000);

	(void)state;
	guest_load(g, becomes_data);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RSI], 5);
	if (!HARD)
		assert_false(tb_page_has_code(&g->cpu, page));
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RAX], 77);
	if (!HARD)
		assert_true(tb_page_has_code(&g->cpu, page));
	guest_destroy(g);
}

/* MOV EAX, n: its first byte is the last of all, and what follows is at 0, where page 0 changes. */
static void behind_the_last_page(void **state)
{
	static const u64 tables[][2] = { /* the last 2M are RAM, too */
		{PAGES + 511 * 8, 0x8003}, {0x8000 + 511 * 8, 0x9003}, {0x9000 + 511 * 8, 0x200183}};
	struct guest *g = guest_create();

	(void)state;
	for (unsigned int k = 0; k < ARRAY_SIZE(tables); k++)
		*(u64 *)(g->ram + tables[k][0]) = tables[k][1];
	g->ram[0x3fffff] = 0xb8;
	memcpy(g->ram, "\x05\0\0\0\xf4", 5);
	memcpy(g->ram + 0x200000, "\x4d\0\0\0\xf4", 5);
	for (unsigned int k = 0; k < 3; k++) {
		if (k == 2) {
			*(u64 *)(g->ram + PAGES + 0x2000) ^= 0x200000;
			mmu_flush_page(&g->cpu.mmu, gva(0));
		}
		g->cpu.rip = ~0ull;
		run_to_hlt(g);
		assert_int_equal(g->cpu.regs[GPR_RAX], k == 2 ? 77 : 5);
	}
	guest_destroy(g);
}

GUEST(sets_if, "push $0x202; popf; nop; cli; sti; nop; hlt")

/* A debugger has blocked interrupts: IF does not let them in. */
static void blocked_by_a_debugger(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, sets_if);
	g->cpu.guest_debug_block = true;
	cpu_update(&g->cpu);
	g->irq = 0x20;
	cpu_request(&g->cpu, REQ_IRQ);
	run_to_hlt(g);
	assert_int_equal(g->irq, 0x20);
	guest_destroy(g);
}

static void counts_and_chains(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, sum);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RAX], 500500);
	assert_int_equal(g->cpu.rip, CODE + (sum_end - sum_code));
	assert_int_equal(g->cpu.insns, 2 + 3000 + 1);
	guest_destroy(g);
}

static void count_bits(bool has, u64 rax, u64 rdx, u64 rsi)
{
	struct guest *g = guest_create();

	g->cpu.features[CPUF_BMI1] = g->cpu.features[CPUF_LZCNT] = has;
	guest_load(g, counts);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RAX], rax);
	assert_int_equal(g->cpu.regs[GPR_RDX], rdx);
	assert_int_equal(g->cpu.regs[GPR_RSI], rsi);
	guest_destroy(g);
}

/* Linux's find_bit uses F3 0F BC on every processor: without BMI1 it is BSF. */
static void counts_without_cpuid_are_scans(void **state)
{
	(void)state;
	count_bits(false, 4, 6, 32);
	if (__builtin_cpu_supports("bmi2")) /* no processor has it without LZCNT and BMI1 */
		count_bits(true, 4, 25, 31);
}

GUEST(prefetchw, "mov $0x100000, %ebx; prefetchw (%rbx); mov $7, %eax; hlt")

/* Linux uses it on every 64-bit processor, QEMU's qemu64 has LM but not the bit of its own. */
static void prefetchw_needs_only_long_mode(void **state)
{
	struct cpuid_entry table[] = {
		{.leaf = 0, .eax = 1},
		{.leaf = 1, .edx = ~0u},
		{.leaf = 0x80000000, .eax = 0x80000001},
		{.leaf = 0x80000001, .edx = BIT(29)},
	};
	struct guest *g = guest_create();

	(void)state;
	g->cpu.cpuid = table;
	g->cpu.nr_cpuid = ARRAY_SIZE(table);
	cpu_set_features(&g->cpu);
	guest_load(g, prefetchw);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RAX], 7);
	guest_destroy(g);
}

GUEST(far_from, ".code16; inc %bx; cmp $5, %bx; jae 1f; ljmp $0x2000, $0; 1: hlt; .code64")
GUEST(far_to, ".code16; mov $7, %ax; hlt; .code64")

/* Two code segments, one offset: the jump cache must not take one for the other. */
static void code_segments_are_told_apart(void **state)
{
	struct guest *g = guest_create();
	struct segment *cs = &g->cpu.seg[SEG_CS];

	(void)state;
	memcpy(g->ram + CODE, far_from_code, far_from_end - far_from_code);
	memcpy(g->ram + 0x20000, far_to_code, far_to_end - far_to_code);
	cpu_reset(&g->cpu, false);
	cs->sel = CODE >> 4;
	cs->base = CODE;
	g->cpu.rip = 0;
	cpu_update_paging(&g->cpu, false);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RBX], 1);
	assert_int_equal(g->cpu.regs[GPR_RAX], 7);
	guest_destroy(g);
}


/* Every kind of operand that 32-bit code has fast handlers for, and an EIP-relative loop. */
GUEST(flat32, ".code32; mov $0x100000, %ebx; mov $5, %ecx; mov %ecx, (%ebx); "
	      "1: mov -0xffff0(%ebx,%ecx,4), %eax; add %ecx, 0x100040; lea 3(%eax,%ecx,2), %edx; "
	      "push %edx; push $-2; pop %esi; call 2f; pop %edi; add %edi, %ebp; dec %ecx; jnz 1b; "
	      "movzbl 0x100040, %edx; incl %fs:8(%ebx); "
	      "movsbl %fs:8(%ebx), %edi; mov $0xfffffff8, %esi; mov 0x100050(%esi), %cl; hlt; "
	      "2: push %ebp; mov %esp, %ebp; shll $1, 0x100044; leave; xor %esi, 0x100044; ret; .code64")

/* `open`: segments without a limit, as systems have them; else every access is checked. */
static void run_flat32(struct guest *g, bool open)
{
	struct cpu *cpu = &g->cpu;

	guest_load(g, flat32);
	for (unsigned int k = 0; k < NR_SEGS; k++) {
		cpu->seg[k] = (struct segment){.sel = 8 * k + 8, .limit = open ? ~0u : 0xfffffffe,
			.attr = SEGA_P | SEGA_S | SEGA_DB | SEGA_G | (k == SEG_CS ? 11 : 3)};
	}
	cpu->seg[SEG_FS].base = 0x40;
	cpu_update(cpu);
	assert_int_equal(!!cpu->flat, open);
	run_to_hlt(g);
}

static void flat_code_does_what_checked_code_does(void **state)
{
	struct guest *a = guest_create(), *b = guest_create();

	(void)state;
	run_flat32(a, true);
	run_flat32(b, false);
	assert_memory_equal(a->cpu.regs, b->cpu.regs, GPR_ZERO * sizeof(u64));
	assert_int_equal(a->cpu.fl, b->cpu.fl);
	assert_int_equal(a->cpu.insns, b->cpu.insns);
	assert_memory_equal(a->ram + DATA, b->ram + DATA, 0x1000);
	assert_memory_equal(a->ram + STACK - 64, b->ram + STACK - 64, 64);
	guest_destroy(a);
	guest_destroy(b);
}

static void calls_and_returns(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, calls);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RAX], 30);
	assert_int_equal(g->cpu.regs[GPR_RSP], STACK);
	guest_destroy(g);
}

/* CBW and CWD with a 66 prefix write 16 bits; they have no operand to tell their size. */
static void narrow_extensions(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, narrow);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RBX], 0x1234ff80);
	assert_int_equal(g->cpu.regs[GPR_RDX], 0x111111111111ffff);
	guest_destroy(g);
}

/* REP in bulk checks alignment as its single steps do: #AC at the first element. */
static void misaligned_strings(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, misaligned);
	g->cpu.cr0 |= CR0_AM;
	g->cpu.seg[SEG_CS].attr |= 3 << 5;
	g->cpu.seg[SEG_SS].attr |= 3 << 5;
	cpu_set_eflags(&g->cpu, EFL_ONE | EFL_AC);
	assert_int_equal(g->cpu.cpl, 3);
	assert_int_equal(guest_run(g), LEAVE_SHUTDOWN); /* there is no IDT */
	assert_int_equal(g->cpu.regs[GPR_RCX], 9);
	assert_int_equal(g->cpu.regs[GPR_RDI], 0x180002);
	guest_destroy(g);
}

/* #GP for a non-canonical target is the branch's own: nothing has moved (SDM 2B RET). */
static void check_nowhere(struct guest *g, u64 end, unsigned int len)
{
	assert_int_equal(guest_run(g), LEAVE_SHUTDOWN); /* there is no IDT */
	assert_int_equal(g->cpu.rip, CODE + end - len);
	assert_int_equal(g->cpu.regs[GPR_RSP], STACK - 8);
	guest_destroy(g);
}

static void branches_to_nowhere(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, ret_nowhere);
	check_nowhere(g, ret_nowhere_end - ret_nowhere_code, 1);
	g = guest_create();
	guest_load(g, jmp_nowhere);
	check_nowhere(g, jmp_nowhere_end - jmp_nowhere_code, 3);
	g = guest_create();
	guest_load(g, call_nowhere);
	check_nowhere(g, call_nowhere_end - call_nowhere_code, 2);
}

static void flags_are_the_hosts(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, flags);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RBX] & 0xffff, 0x0101);
	assert_int_equal(g->cpu.regs[GPR_RCX] & 0xffff, 0);
	assert_int_equal(g->cpu.regs[GPR_RDX] & 0xff, 1);
	assert_int_equal(g->cpu.regs[GPR_RSI], 0x93); /* 5 - 7: SF AF CF */
	guest_destroy(g);
}

static void memory_operands(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, memory);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RAX], 12);
	assert_int_equal(g->cpu.regs[GPR_RDX], 12);
	assert_int_equal(g->cpu.regs[GPR_RSI], 0x10000); /* crosses a page: 0xffff + 1 */
	guest_destroy(g);
}

static void strings_by_the_page(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, string);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RBX] & 0xff, 1);
	assert_int_equal(g->cpu.regs[GPR_RCX], 0);
	assert_int_equal(g->cpu.regs[GPR_RDI], DATA + 10000);
	assert_int_equal(g->ram[0x180000 + 9999], 0x5a);
	guest_destroy(g);
}

static void next_instruction_changed(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, smc_next);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RAX], 0x1234);
	guest_destroy(g);
}

static void changed_through_alias(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, smc_alias);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RSI], 1);
	assert_int_equal(g->cpu.regs[GPR_RAX], 77);
	guest_destroy(g);
}

#include <pthread.h>
#include <unistd.h>

static void *patch_later(void *arg)
{
	struct guest *g = arg;

	usleep(20000);
	*(volatile u8 *)(g->ram + CODE + 1) = 1; /* as a disk's DMA would */
	return NULL;
}

static void changed_by_the_vmm(void **state)
{
	struct guest *g = guest_create();
	pthread_t t;

	(void)state;
	guest_load(g, wait_patch);
	assert_int_equal(pthread_create(&t, NULL, patch_later, g), 0);
	run_to_hlt(g);
	assert_int_equal(g->cpu.regs[GPR_RAX], 1);
	pthread_join(t, NULL);
	guest_destroy(g);
}

static void *kick_later(void *arg)
{
	usleep(20000);
	cpu_request(&((struct guest *)arg)->cpu, REQ_KICK);
	return NULL;
}

static void endless_loop_is_kicked(void **state)
{
	struct guest *g = guest_create();
	pthread_t t;

	(void)state;
	guest_load(g, spin);
	assert_int_equal(pthread_create(&t, NULL, kick_later, g), 0);
	assert_int_equal(guest_run(g), LEAVE_KICK);
	assert_true(g->cpu.regs[GPR_RAX] > 1000);
	pthread_join(t, NULL);
	guest_destroy(g);
}

/* No IDT: #DE becomes a triple fault, and never a host exception (TESTING.md 71). */
static void division_by_zero(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, div_zero);
	g->cpu.idtr.limit = 0;
	assert_int_equal(guest_run(g), LEAVE_SHUTDOWN);
	guest_destroy(g);
}

/* T02's first half: the fault carries GPA, GVA and rights; nothing has changed. */
static void second_stage_fault(void **state)
{
	struct guest *g = guest_create();
	u64 *pdpt = (u64 *)(g->ram + PAGES + 0x1000);

	(void)state;
	pdpt[1] = 0x40000000 | 0x87; /* 1 GiB page, identity: no slot behind it */
	guest_load(g, no_ram);
	assert_int_equal(guest_run(g), LEAVE_NPF);
	assert_int_equal(g->exit.fault.stage, FAULT_FINAL);
	assert_int_equal(g->exit.fault.gpa.v, 0x40000010);
	assert_int_equal(g->exit.fault.n, 1);
	assert_int_equal(g->exit.fault.x[0].gva.v, 0x40000010);
	assert_int_equal(g->exit.fault.x[0].len, 4);
	assert_true(g->exit.fault.x[0].rights & MMU_R);
	assert_int_equal(g->cpu.rip, CODE + 7);
	assert_int_equal(g->cpu.regs[GPR_RAX], 0);
	guest_destroy(g);
}

static void port_access_leaves(void **state)
{
	struct guest *g = guest_create();

	(void)state;
	guest_load(g, port);
	assert_int_equal(guest_run(g), LEAVE_PIO);
	assert_int_equal(g->exit.fault.gpa.v, 0x3f8);
	assert_int_equal(insn_op(&g->exit.insn), OP_OUT);
	guest_destroy(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_and_chains),
	cmocka_unit_test(code_becomes_data),
		cmocka_unit_test(flat_code_does_what_checked_code_does),
		cmocka_unit_test(calls_and_returns),
		cmocka_unit_test(code_segments_are_told_apart),
		cmocka_unit_test(prefetchw_needs_only_long_mode),
		cmocka_unit_test(counts_without_cpuid_are_scans),
		cmocka_unit_test(narrow_extensions),
		cmocka_unit_test(branches_to_nowhere),
		cmocka_unit_test(misaligned_strings),
		cmocka_unit_test(flags_are_the_hosts),
		cmocka_unit_test(memory_operands),
		cmocka_unit_test(strings_by_the_page),
		cmocka_unit_test(next_instruction_changed),
		cmocka_unit_test(changed_through_alias),
		cmocka_unit_test(behind_the_last_page),
		cmocka_unit_test(blocked_by_a_debugger),
		cmocka_unit_test(changed_by_the_vmm),
		cmocka_unit_test(endless_loop_is_kicked),
		cmocka_unit_test(division_by_zero),
		cmocka_unit_test(second_stage_fault),
		cmocka_unit_test(port_access_leaves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
