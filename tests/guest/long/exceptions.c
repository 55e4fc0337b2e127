// SPDX-License-Identifier: MIT
/*
 * Each exception of 64-bit mode with its error code, saved RIP, CR2 (SDM 3A 6.15); what becomes
 * of exceptions during delivery (6.15 #DF); stacks of handlers (6.14); call gates (5.8.3.1).
 */
#include "../lib/paging.h"

#define NONCANON 0x800000000000ul

static void want_fault(const char *name, ulong vector, ulong error)
{
	want_error(name, vector, error);
	check(name, traps[0].ip, try_ip);
	check(name, traps[0].flags >> 16 & 1, 1); /* faults push RF */
}

static void test_de_bp_of_ud(void)
{
	test_begin("#DE #BP #OF #UD");
	TRY("divl %2", "a"(1), "d"(0), "r"(0));
	want_fault("div by 0", DE, 0);
	TRY("idivl %2", "a"(0x80000000), "d"(~0u), "r"(-1));
	want_fault("idiv overflow", DE, 0);
	TRY("divb %b1", "a"(0x1000), "r"(1));
	want_fault("div quotient too large", DE, 0);
	TRY("int3");
	want_error("int3", BP, 0);
	check("int3: behind it", traps[0].ip, try_ip + 1);
	check("int3: no RF", traps[0].flags & RF, 0);
	TRY("int $4");
	want_error("int 4", OF, 0);
	check("int 4: behind it", traps[0].ip, try_ip + 2);
	TRY(".byte 0xf1"); /* INT1 */
	want_error("int1", DB, 0);
	check("int1: behind it", traps[0].ip, try_ip + 1);
	TRY("ud2");
	want_fault("ud2", UD, 0);
	TRY(".byte 0xce");
	want_fault("into in 64-bit mode", UD, 0);
	TRY(".byte 0x62, 0x00"); /* EVEX, not BOUND; P1 bit 2 must be 1 */
	check("bound in 64-bit mode", traps[0].vector, UD);
	TRY(".byte 0x06");
	want_fault("push es in 64-bit mode", UD, 0);
	TRY(".byte 0xf0, 0x01, 0xc0"); /* lock add eax, eax */
	want_fault("lock with a register", UD, 0);
	TRY(".byte 0xf0, 0x8b, 0x03"); /* lock mov eax, [rbx] */
	want_fault("lock mov", UD, 0);
	TRY(".byte 0x8e, 0xc8");
	want_fault("mov cs", UD, 0);
}

static void test_nm_mf_xm(void)
{
	ulong cr0 = read_cr0(), cr4 = read_cr4();
	u32 mxcsr = 0x1f80, unmasked = 0x1d80; /* zero divide */
	u16 cw = 0x37b;

	test_begin("#NM #MF #XM");
	write_cr0((cr0 & ~CR0_MP) | CR0_TS);
	TRY("fnop");
	want_fault("x87 with TS", NM, 0);
	TRY("fwait");
	want_none("fwait with TS, without MP");
	write_cr0(cr0 | CR0_TS | CR0_MP);
	TRY("fwait");
	want_fault("fwait with TS and MP", NM, 0);
	write_cr0((cr0 & ~CR0_TS) | CR0_EM);
	TRY("fnop");
	want_fault("x87 with EM", NM, 0);
	write_cr4(cr4 | CR4_OSFXSR | CR4_XMM);
	TRY("xorps %%xmm0, %%xmm0");
	want_fault("SSE with EM", UD, 0);
	write_cr0((cr0 & ~CR0_EM) | CR0_TS);
	TRY("xorps %%xmm0, %%xmm0");
	want_fault("SSE with TS", NM, 0);
	write_cr0(cr0 & ~(CR0_EM | CR0_TS));
	TRY("xorps %%xmm0, %%xmm0");
	want_none("SSE");
	write_cr4(cr4 & ~CR4_OSFXSR);
	TRY("xorps %%xmm0, %%xmm0");
	want_fault("SSE without OSFXSR", UD, 0);

	write_cr0((read_cr0() | CR0_NE) & ~CR0_TS);
	TRY("fninit; fldcw %0; fld1; fldz; fdivrp; nop", "m"(cw));
	want_none("x87 zero divide: not yet");
	TRY("fwait");
	want_fault("x87 zero divide: at the next one", MF, 0);
	TRY("fnstsw 0x400000; fninit");
	want_none("x87: those that do not wait");

	write_cr4(cr4 | CR4_OSFXSR | CR4_XMM);
	asm volatile("ldmxcsr %0" ::"m"(unmasked));
	TRY("xorps %%xmm1, %%xmm1; pcmpeqd %%xmm0, %%xmm0; psrld $25, %%xmm0;"
	    "cvtdq2ps %%xmm0, %%xmm0; divps %%xmm1, %%xmm0");
	want_error("SSE zero divide", XM, 0);
	asm volatile("ldmxcsr %0" ::"m"(unmasked));
	write_cr4((cr4 | CR4_OSFXSR) & ~CR4_XMM);
	TRY("divps %%xmm1, %%xmm0");
	want_fault("SSE zero divide without OSXMMEXCPT", UD, 0);
	TRY("ldmxcsr %0", "m"((const u32){0x10000}));
	want_fault("ldmxcsr, reserved bit", GP, 0);
	write_cr4(cr4 | CR4_OSFXSR | CR4_XMM);
	asm volatile("ldmxcsr %0" ::"m"(mxcsr));
	write_cr0(cr0);
	write_cr4(cr4);
}

static void test_gp(void)
{
	ulong cr0 = read_cr0(), cr4 = read_cr4();

	test_begin("#GP");
	TRY("movq (%0), %%rbx", "S"(NONCANON));
	want_fault("read, not canonical", GP, 0);
	TRY("jmp *%0", "r"(NONCANON));
	check("jump, not canonical", nr_traps == 1 ? traps[0].vector : 99, GP);
	TRY("movw %w0, %%es", "r"(GDT_ENTRIES * 8 + 3));
	want_fault("selector beyond the GDT", GP, GDT_ENTRIES * 8);
	TRY("movw %w0, %%es", "r"(0x1f));
	want_fault("selector in no LDT", GP, 0x1c);
	TRY("movw %w0, %%ds", "r"(TSS_SEL));
	want_fault("system descriptor in DS", GP, TSS_SEL);
	TRY("movw %w0, %%ss", "r"(KERNEL_CS));
	want_fault("code in SS", GP, KERNEL_CS);
	TRY("movw %w0, %%ss", "r"(USER_DS));
	want_fault("SS with another DPL", GP, USER_DS & ~3);
	TRY("movq %0, %%cr0", "r"(cr0 & ~1ul));
	want_fault("PG without PE", GP, 0);
	TRY("movq %0, %%cr0", "r"(cr0 & ~CR0_PG));
	want_fault("PG off in 64-bit mode", GP, 0);
	TRY("movq %0, %%cr0", "r"(cr0 | 1ul << 40));
	want_fault("CR0 reserved bit", GP, 0);
	TRY("movq %0, %%cr4", "r"(cr4 | 1ul << 40));
	want_fault("CR4 reserved bit", GP, 0);
	TRY("movq %0, %%cr4", "r"(cr4 & ~CR4_PAE));
	want_fault("PAE off in long mode", GP, 0);
	TRY("movq %0, %%cr4", "r"(cr4 ^ CR4_LA57));
	want_fault("LA57 in long mode", GP, 0);
	TRY("movq %0, %%cr8", "r"(16ul));
	want_fault("CR8 16", GP, 0);
	TRY("movq %0, %%cr1", "r"(0ul));
	want_fault("CR1", UD, 0);
	TRY("wrmsr", "c"(0xc0000080), "a"(~0u), "d"(0));
	want_fault("EFER reserved bits", GP, 0);
	TRY("wrmsr", "c"(0xc0000082), "a"(0), "d"(NONCANON57 >> 32));
	want_fault("LSTAR not canonical", GP, 0);
	TRY("rdmsr", "c"(0x1234567));
	want_fault("no such MSR", GP, 0);
	TRY("pushq %0; popfq; iretq", "r"(NT | 2));
	check("iret with NT", traps[0].vector, GP);
	check("iret with NT: error", traps[0].error, 0);
	asm volatile("pushq $2; popfq");
	TRY("movaps %%xmm0, 1(%%rsp)");
	check("movaps, not aligned (or #UD without OSFXSR)", traps[0].vector, UD);
	write_cr4(cr4 | CR4_OSFXSR);
	TRY("movaps %%xmm0, 1(%%rsp)");
	want_fault("movaps, not aligned", GP, 0);
	TRY("cmpxchg16b 8(%0)", "r"((ulong)SCRATCH));
	want_fault("cmpxchg16b, not aligned", GP, 0);
	write_cr4(cr4);
}

static void test_ss_np(void)
{
	test_begin("#SS #NP");
	gdt_set(SPARE_SEL, gdt_desc(0, 0xfffff, 0x13, 0xc)); /* data, not present */
	TRY("movw %w0, %%ds", "r"(SPARE_SEL));
	want_fault("DS not present", NP, SPARE_SEL);
	TRY("movw %w0, %%ss", "r"(SPARE_SEL));
	want_fault("SS not present", SS, SPARE_SEL);
	nr_traps = 0;
	asm volatile("movq %%rbp, %%rbx; movq $1f, trap_resume; movq %0, %%rbp\n\t"
		     "movq (%%rbp), %%rax\n"
		     "1: movq $0, trap_resume; movq %%rbx, %%rbp" ::"r"(NONCANON)
		     : "rax", "rbx", "memory");
	want_error("[rbp] not canonical", SS, 0);
}

/* TRY leaves RBP and RSP as the faulting code had them; these put them back themselves. */
static void test_stack_noncanonical(void)
{
	test_begin("#SS: push through a stack that is not canonical");
	idt_set(SS, (ulong)trap_stubs + 16 * SS, KERNEL_CS, 14, 0, 1);
	nr_traps = 0;
	asm volatile("movq %%rsp, %%rbx\n\t"
		     "movq $1f, trap_resume\n\t"
		     "movq %0, %%rsp\n\t"
		     "pushq %%rax\n"
		     "1: movq %%rbx, %%rsp\n\t"
		     "movq $0, trap_resume" ::"r"(NONCANON + 8)
		     : "rbx", "memory");
	want_error("push", SS, 0);
	check("push: RSP as it was", traps[0].sp, NONCANON + 8);
	check("push: IST", (traps[0].frame & ~4095ul), (ulong)IST_STACK - 4096);
	idt_set(SS, (ulong)trap_stubs + 16 * SS, KERNEL_CS, 14, 0, 0);
}

static ulong user_ac(void)
{
	ulong v = SCRATCH;

	asm volatile("pushfq; orq %0, (%%rsp); popfq" ::"r"(AC_FLAG) : "memory");
	TRY("movl 1(%0), %%ebx", "r"(v));
	return 1;
}

static void test_ac(void)
{
	ulong cr0 = read_cr0();

	test_begin("#AC");
	write_cr0(cr0 | CR0_AM);
	check("ran", user_run(user_ac, 0), 1);
	want_fault("CPL 3", AC, 0);
	write_cr0(cr0);
	user_run(user_ac, 0);
	want_none("CPL 3 without CR0.AM");
	write_cr0(cr0 | CR0_AM);
	asm volatile("pushfq; orq %0, (%%rsp); popfq" ::"r"(AC_FLAG) : "memory");
	TRY("movl 1(%0), %%ebx", "r"((ulong)SCRATCH));
	want_none("CPL 0");
	asm volatile("pushq $2; popfq");
	write_cr0(cr0);
}

/* ---- exceptions during delivery */

static void gate_present(unsigned int vector, bool on)
{
	idt[2 * vector] = on ? idt[2 * vector] | 1ul << 47 : idt[2 * vector] & ~(1ul << 47);
}

static void test_delivery(void)
{
	test_begin("exceptions during delivery, double fault");
	gate_present(UD, false);
	TRY("ud2");
	want_fault("#UD, gate not present: #NP", NP, UD * 8 + 3);
	gate_present(UD, true);
	gate_present(0x50, false);
	TRY("int $0x50");
	want_fault("int, gate not present: #NP", NP, 0x50 * 8 + 2);
	gate_present(0x50, true);
	idt[2 * 0x51] &= ~(0xful << 40);
	TRY("int $0x51");
	want_fault("int, no gate: #GP", GP, 0x51 * 8 + 2);
	idt_set(0x51, (ulong)trap_stubs + 16 * 0x51, KERNEL_DS, 14, 0, 0);
	TRY("int $0x51");
	want_fault("int, gate to data: #GP", GP, KERNEL_DS);
	idt_set(UD, (ulong)trap_stubs + 16 * UD, KERNEL_DS, 14, 0, 0);
	TRY("ud2");
	want_fault("#UD, gate to data: #GP with EXT", GP, KERNEL_DS | 1);
	idt_set(UD, (ulong)trap_stubs + 16 * UD, KERNEL_CS, 14, 0, 0);

	gate_present(GP, false);
	TRY("movq (%0), %%rbx", "S"(NONCANON));
	want_error("#GP then #NP: #DF", DF, 0);
	gate_present(GP, true);
	gate_present(PF, false);
	TRY("movq (%0), %%rbx", "S"(0x123456789000));
	want_error("#PF then #NP: #DF", DF, 0);
	check("#DF: CR2 of the page fault", read_cr2(), 0x123456789000);
	gate_present(PF, true);
	gate_present(DE, false);
	TRY("divl %2", "a"(1), "d"(0), "r"(0));
	want_error("#DE then #NP: #DF", DF, 0);
	gate_present(DE, true);
}

/* Code that must end in KVM_EXIT_SHUTDOWN; the harness puts the registers back. */
#define SHUTDOWN(name, code, ...)                                                            \
	do {                                                                                 \
		struct service s_ = {.op = SVC_SHUTDOWN};                                    \
		asm volatile("movq $1f, %0\n\tmovl %1, %%eax\n\tmovw %2, %%dx\n\t"           \
			     "outl %%eax, %%dx\n\t" code "\n1:"                              \
			     : "+m"(s_.a)                                                    \
			     : "r"((u32)(ulong)&s_), "i"(PORT_SERVICE), ##__VA_ARGS__       \
			     : "rax", "rdx", "memory");                                     \
		check(name, VAR(long, &s_.ret), 1);                                          \
	} while (0)

static void test_shutdown(void)
{
	const u8 no_idt[10] = {0};

	test_begin("triple fault");
	SHUTDOWN("IDT of no size", "lidt %3; ud2", "m"(no_idt));
	TRY("ud2");
	want_trap("and everything works again", UD);
	gate_present(DF, false);
	gate_present(GP, false);
	SHUTDOWN("#DF cannot be delivered", "movl $1, %%eax; shlq $47, %%rax; movq (%%rax), %%rax");
	gate_present(GP, true);
	gate_present(DF, true);
}

/* ---- stacks */

static ulong user_ud(void)
{
	TRY("ud2");
	return 2;
}

static void test_stacks(void)
{
	ulong f;

	test_begin("TSS stack switch, IST");
	check("ran", user_run(user_ud, IF), 2);
	want_fault("#UD at CPL 3", UD, 0);
	check("CS", traps[0].cs, USER_CS);
	check("SS", traps[0].ss, USER_DS);
	check("RSP", traps[0].sp > USER_STACK - 4096 && traps[0].sp < USER_STACK, 1);
	check("IF was saved", traps[0].flags & IF, IF);
	f = traps[0].frame + sizeof(struct frame);
	check("frame is at RSP0", f, tss.rsp[0]);
	idt_set(UD, (ulong)trap_stubs + 16 * UD, KERNEL_CS, 14, 0, 3);
	tss.ist[2] += 5; /* is aligned down */
	TRY("ud2");
	want_fault("IST 3 at CPL 0", UD, 0);
	check("frame is at IST3", traps[0].frame + sizeof(struct frame), tss.ist[2] - 5);
	user_run(user_ud, 0);
	check("frame is at IST3, from CPL 3", traps[0].frame + sizeof(struct frame), tss.ist[2] - 5);
	tss.ist[2] -= 5;
	idt_set(UD, (ulong)trap_stubs + 16 * UD, KERNEL_CS, 14, 0, 0);
	TRY("pushq $0; ud2; popq %%rbx");
	check("without IST: aligned to 16", (traps[0].frame + sizeof(struct frame)) & 15, 0);
	check("saved RSP is exact", traps[0].sp - traps[0].frame - sizeof(struct frame) < 16, 1);
	asm volatile("addq $8, %rsp"); /* the popq was skipped */
}

/* ---- call gates: 64-bit, from CPL 3 to 0 and back */

struct farptr {
	u32 off;
	u16 sel;
} __attribute__((packed));

static volatile ulong gate_cs, gate_ss, gate_rsp, gate_frame[4];

__attribute__((naked, used)) static void gate_target(void)
{
	asm volatile("movq %cs, %rax; movq %rax, gate_cs; movq %ss, %rax; movq %rax, gate_ss\n\t"
		     "movq %rsp, gate_rsp\n\t"
		     "movq (%rsp), %rax; movq %rax, gate_frame; movq 8(%rsp), %rax\n\t"
		     "movq %rax, gate_frame + 8; movq 16(%rsp), %rax; movq %rax, gate_frame + 16\n\t"
		     "movq 24(%rsp), %rax; movq %rax, gate_frame + 24\n\t"
		     "lretq");
}

static const struct farptr through_gate = {0x12345678, SPARE_SEL | 3};

static ulong user_call_gate(void)
{
	ulong cs, sp;

	asm volatile("movq %%rsp, %1; lcall *%2; movq %%cs, %0"
		     : "=&r"(cs), "=&r"(sp)
		     : "m"(through_gate)
		     : "rax", "memory");
	check("gate: RSP in the frame", gate_frame[2], sp);
	return cs;
}

static void gate_set(u16 sel, ulong target, u16 cs, u8 dpl, bool present)
{
	gdt_set(sel, (target & 0xffff) | (u64)cs << 16 | 0x0cul << 40 | (u64)dpl << 45 |
			     (u64)present << 47 | (target >> 16 & 0xffff) << 48);
	gdt_set(sel + 8, target >> 32);
}

static ulong user_gate_fault(void)
{
	TRY("lcall *%0", "m"(through_gate));
	return 3;
}

static void test_call_gate(void)
{
	test_begin("call gate to CPL 0, far return");
	gate_set(SPARE_SEL, (ulong)gate_target, KERNEL_CS, 3, true);
	check("back at CPL 3", user_run(user_call_gate, IOPL3), USER_CS);
	check("CS inside", gate_cs, KERNEL_CS);
	check("SS inside is null", gate_ss, 0);
	check("frame at RSP0", gate_rsp, tss.rsp[0] - 32);
	check("pushed CS", gate_frame[1], USER_CS);
	check("pushed SS", gate_frame[3], USER_DS);
	gate_set(SPARE_SEL, (ulong)gate_target, KERNEL_CS, 0, true);
	check("ran", user_run(user_gate_fault, 0), 3);
	want_fault("gate's DPL 0", GP, SPARE_SEL);
	gate_set(SPARE_SEL, (ulong)gate_target, KERNEL_CS, 3, false);
	user_run(user_gate_fault, 0);
	want_fault("gate not present", NP, SPARE_SEL);
	gate_set(SPARE_SEL, (ulong)gate_target, KERNEL_CS32, 3, true);
	user_run(user_gate_fault, 0);
	want_fault("gate to 32-bit code", GP, KERNEL_CS32);
	gate_set(SPARE_SEL, (ulong)gate_target, KERNEL_DS, 3, true);
	user_run(user_gate_fault, 0);
	want_fault("gate to data", GP, KERNEL_DS);
	gate_set(SPARE_SEL, NONCANON, KERNEL_CS, 3, true);
	user_run(user_gate_fault, 0);
	want_error("gate to an address that is not canonical", GP, 0);
}

/* ---- privileged instructions at CPL 3, I/O permission */

#define USER_TRY(fn, code, ...)              \
	static ulong fn(void)                \
	{                                    \
		TRY(code, ##__VA_ARGS__);    \
		return 4;                    \
	}
USER_TRY(user_hlt, "hlt")
USER_TRY(user_cli, "cli")
USER_TRY(user_cr0, "movq %%cr0, %%rbx")
USER_TRY(user_dr7, "movq %%db7, %%rbx")
USER_TRY(user_lgdt, "lgdt 0x8000")
USER_TRY(user_invlpg, "invlpg 0x8000")
USER_TRY(user_wrmsr, "wrmsr", "c"(0x10), "a"(0), "d"(0))
USER_TRY(user_out, "outb %%al, $0x83", "a"(0))
USER_TRY(user_int_kernel, "int $0x50")
USER_TRY(user_int3, "int3")
USER_TRY(user_sgdt, "sgdt -32(%%rsp)")
USER_TRY(user_str, "strl %%ebx")

static void test_user(void)
{
	static const struct {
		const char *name;
		ulong (*fn)(void);
	} t[] = {{"hlt", user_hlt}, {"cli", user_cli}, {"mov cr0", user_cr0}, {"mov dr7", user_dr7},
		 {"lgdt", user_lgdt}, {"invlpg", user_invlpg}, {"wrmsr", user_wrmsr}};
	ulong cr4 = read_cr4();

	test_begin("privileged instructions at CPL 3");
	for (unsigned int k = 0; k < ARRAY_SIZE(t); k++) {
		check("ran", user_run(t[k].fn, 0), 4);
		want_fault(t[k].name, GP, 0);
	}
	user_run(user_int_kernel, 0);
	want_fault("int, gate's DPL 0", GP, 0x50 * 8 + 2);
	user_run(user_int3, 0);
	want_trap("int3, gate's DPL 3", BP);
	user_run(user_cli, IOPL3);
	want_none("cli with IOPL 3");
	user_run(user_sgdt, 0);
	want_none("sgdt without UMIP");
	if (cpu_has(7, 0, ECX, 2)) {
		write_cr4(cr4 | CR4_UMIP);
		user_run(user_sgdt, 0);
		want_fault("sgdt with UMIP", GP, 0);
		user_run(user_str, 0);
		want_fault("str with UMIP", GP, 0);
		write_cr4(cr4);
	}
	test_begin("I/O permission bitmap");
	user_run(user_out, 0);
	want_fault("no bitmap", GP, 0);
	user_run(user_out, IOPL3);
	want_none("IOPL 3");
	tss.iomap = offsetof(struct tss, bits);
	user_run(user_out, 0);
	want_none("bit 0");
	tss.bits[0x83 / 8] |= 1 << (0x83 & 7);
	user_run(user_out, 0);
	want_fault("bit 1", GP, 0);
	tss.iomap = sizeof(tss);
}

void guest_main(void)
{
	traps_init();
	test_de_bp_of_ud();
	test_nm_mf_xm();
	test_gp();
	test_ss_np();
	test_stack_noncanonical();
	test_ac();
	test_delivery();
	test_shutdown();
	test_stacks();
	test_call_gate();
	test_user();
}
