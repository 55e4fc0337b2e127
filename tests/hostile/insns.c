// SPDX-License-Identifier: MIT
/* Items 61 to 73: instructions and exceptions that a guest may throw at us. */
#include "modes.h"

/* ---- 61, 62: everything, everywhere */

static const enum mode all_modes[] = {REAL, PROT16, PROT32, V86, LONG, LONG_USER, PAE32};

/* Run what is there to any end within a time slice; only the kinds of exit are judged. */
static void run_anything(struct machine *m, const char *what)
{
	for (int k = 0; k < 20; k++) {
		int r = run_for(m, 10);

		if (r == -EINTR)
			return;
		check(!r, what, r, 0);
		switch (m->run->exit_reason) {
		case KVM_EXIT_MMIO:
		case KVM_EXIT_IO:
			memset(m->run->mmio.data, k, 8);
			continue;
		case KVM_EXIT_HLT:
		case KVM_EXIT_SHUTDOWN:
		case KVM_EXIT_INTERNAL_ERROR:
		case KVM_EXIT_SET_TPR:
			return;
		default:
			check(false, what, m->run->exit_reason, KVM_EXIT_HLT);
			return;
		}
	}
}

struct privileged {
	const char *name;
	uint8_t code[8];
	uint8_t n;
	bool v86_gp; /* in V86 mode (IOPL 0) it is #GP too, not #UD */
};

static const struct privileged privileged[] = {
	{"hlt", {0xf4}, 1, true}, {"cli", {0xfa}, 1, true}, {"sti", {0xfb}, 1, true},
	{"in al,dx", {0xec}, 1, true}, {"out 0x80,al", {0xe6, 0x80}, 2, true},
	{"insb", {0x6c}, 1, true}, {"outsb", {0x6e}, 1, true}, {"clts", {0x0f, 0x06}, 2, true},
	{"invd", {0x0f, 0x08}, 2, true}, {"wbinvd", {0x0f, 0x09}, 2, true},
	{"mov cr0,rax", {0x0f, 0x22, 0xc0}, 3, true}, {"mov rax,cr3", {0x0f, 0x20, 0xd8}, 3, true},
	{"mov dr7,rax", {0x0f, 0x23, 0xf8}, 3, true}, {"wrmsr", {0x0f, 0x30}, 2, true},
	{"rdmsr", {0x0f, 0x32}, 2, true}, {"lgdt", {0x0f, 0x01, 0x10}, 3, true},
	{"lidt", {0x0f, 0x01, 0x18}, 3, true}, {"lmsw", {0x0f, 0x01, 0xf0}, 3, true},
	{"invlpg", {0x0f, 0x01, 0x38}, 3, true}, {"ltr", {0x0f, 0x00, 0xd8}, 3, false},
	{"lldt", {0x0f, 0x00, 0xd0}, 3, false}, {"swapgs", {0x0f, 0x01, 0xf8}, 3, false},
};

static void privilege_case(enum mode mode, const struct privileged *p)
{
	int want = 13;

	if (mode == V86 && !p->v86_gp)
		want = 6;
	trap_case(p->name, mode, p->code, p->n, want);
}

static void h61_every_opcode_in_every_mode(void)
{
	int step = many(1, SANITIZED ? 29 : 11);
	struct machine m;
	char what[64];

	for (size_t k = 0; k < COUNT(privileged); k++) {
		privilege_case(LONG_USER, &privileged[k]);
		privilege_case(V86, &privileged[k]);
	}
	trap_case("sysret", LONG_USER, GUEST(0x0f, 0x07), 13);
	mode_open(&m, REAL, GUEST(HLT));
	for (size_t k = 0; k < COUNT(all_modes); k++)
		for (int op = 0; op < 3 * 256; op += step) {
			static const uint8_t modrm[] = {0x05, 0xc3, 0x18, 0x3d, 0xd1};
			uint8_t code[16] = {op, modrm[op % 5], 0x00, 0x80, 0x04, 0, 0x90, HLT};

			if (op >= 256) /* 0F xx: register and memory forms by turns */
				memcpy(code, (uint8_t[]){0x0f, op, modrm[op / 256 + op % 3]}, 3);
			snprintf(what, sizeof(what), "mode %d opcode %d", all_modes[k], op);
			mode_load(&m, code, sizeof(code));
			mode_start(&m, all_modes[k]);
			run_anything(&m, what);
			make_tables(&m);
		}
	machine_close(&m);
	check_neighbour();
}

static void h62_all_prefixes(void)
{
	static const uint8_t prefixes[] = {0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x36, 0x3e, 0x26, 0x64,
					   0x65, 0x48, 0x4f, 0xc5, 0xc4, 0x62, 0x8f};
	uint64_t x = 0x243f6a8885a308d3ull;
	struct machine m;
	char what[64];

	trap_case("lock nop", LONG, GUEST(0xf0, 0x90), 6);
	trap_case("lock with a register", LONG, GUEST(0xf0, 0x01, 0xc0), 6);
	trap_case("REX, then 66: REX does not count", LONG,
		  GUEST(0x48, 0x66, 0xb8, 0x34, 0x12, HLT), -1);
	trap_case("66 and VEX", LONG, GUEST(0x66, 0xc5, 0xf8, 0x28, 0xc0), 6);
	trap_case("XOP", LONG, GUEST(0x8f, 0xe8, 0x78, 0xc0, 0xc0, 0x01), 6);
	mode_open(&m, REAL, GUEST(HLT));
	for (int k = 0; k < many(20000, SANITIZED ? 300 : 600); k++) {
		uint8_t code[24];
		size_t n = 0;

		for (int p = x % 6; p >= 0; p--) {
			code[n++] = prefixes[(x >> 8) % COUNT(prefixes)];
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		}
		for (; n < sizeof(code); n++) {
			code[n] = x >> 16;
			x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		}
		snprintf(what, sizeof(what), "prefixes %d", k);
		mode_load(&m, code, sizeof(code));
		mode_start(&m, all_modes[k % COUNT(all_modes)]);
		run_anything(&m, what);
		make_tables(&m);
	}
	machine_close(&m);
	check_neighbour();
}

/* ---- 63 to 67 */

CODE_TEXT(bt_far, 64,
	"movabs $0x7fffffffffffffff, %rax; bt %rax, 0x100000; bts %rax, 0x100000; hlt")
CODE_TEXT(bt_minus, 64, "mov $-1, %rax; bts %rax, 0x100008; mov $-64, %rcx; btc %rcx, 0x100008; hlt")
CODE_TEXT(wrap32, 64, "mov $0xffffffff, %esi; addr32 lodsw; hlt")
/* SP wraps in 16 bits; DI too */
CODE_TEXT(wrap16, 16, "cld; mov $0xfffe, %di; mov $0x1234, %ax; mov $4, %cx; rep stosw; hlt")

static void h63_far_bits_and_wraps(void)
{
	struct machine m;

	/* 2^63 - 1 bits from 0x100000 is 2^60 - 1 bytes away: not canonical */
	trap_case("BT with 2^63 - 1", LONG, TEXT_OF(bt_far), 13);
	mode_open(&m, LONG, TEXT_OF(bt_minus));
	EXPECT_TRAP(&m, "BTS with -1", -1);
	CHECK_EQ("bit -1 is bit 63 of the quadword before", get64(&m, 0x100000), 1ull << 63 | 1);
	machine_close(&m);
	/* 0xffffffff is not in the guest's 1 GiB */
	trap_case("LODSW at 2^32 - 1", LONG, TEXT_OF(wrap32), 14);
	mode_open(&m, REAL, TEXT_OF(wrap16));
	EXPECT_TRAP(&m, "DI wraps", -1);
	CHECK_EQ("DI", regs_of(&m).rdi & 0xffff, 6);
	CHECK_EQ("after the wrap", memcmp(m.ram, "\x34\x12\x34\x12\x34\x12", 6), 0);
	machine_close(&m);
}

CODE_TEXT(enter31, 64, "mov $0x81000, %rbp; mov $0x80000, %rsp; enter $0x20, $31; hlt")
CODE_TEXT(enter_fault, 64, "mov $0x81000, %rbp; mov $0x30080, %rsp; enter $0x20, $31; hlt")
CODE_TEXT(iret_fault, 64, "mov $0x100ff0, %rsp; iretq")
CODE_TEXT(call_fault, 32, "mov $0x100004, %esp; lcall $0x18, $0x10010; hlt")

CODE_TEXT(iret_v86, 32, "iretl")

/* IRET to V86 from a 16-bit stack in MMIO that wraps in the middle of the last item, GS. */
static void iret_wrapping_stack(void)
{
	static const uint32_t frame[9] = {0x1100, 0, 0x20002, 0xf000, 1, 2, 3, 4, 0x50005};
	struct machine m;
	struct kvm_regs r;
	struct kvm_sregs s;
	int exits = 0;

	mode_open(&m, PROT32, TEXT_OF(iret_v86));
	s = sregs_of(&m);
	s.ss = segment(SEL_DATA, 3, 0, 0, 0);
	s.ss.base = MMIO;
	s.ss.limit = 0xffff;
	s.ss.g = 0;
	set_sregs(&m, &s);
	r = regs_of(&m);
	r.rsp = 0x10000 - sizeof(frame) + 2;
	set_regs(&m, &r);
	memcpy(m.ram + 0x1100, "\xeb\xfe", 2); /* jmp . */
	while (run_for(&m, 20) == 0 && m.run->exit_reason == KVM_EXIT_MMIO && exits++ < 40)
		for (uint32_t k = 0; k < m.run->mmio.len; k++)
			m.run->mmio.data[k] = ((const uint8_t *)frame)[
				(uint16_t)(m.run->mmio.phys_addr + k - r.rsp) % sizeof(frame)];
	s = sregs_of(&m);
	CHECK_EQ("IRET to V86: FS", s.fs.selector, 4);
	CHECK_EQ("IRET to V86: GS", s.gs.selector, 5);
	machine_close(&m);
}

static void h64_faults_half_way(void)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(enter31));
	EXPECT_TRAP(&m, "ENTER 31", -1);
	CHECK_EQ("RSP", regs_of(&m).rsp, 0x80000 - 8 - 31 * 8 - 0x20);
	CHECK_EQ("RBP", regs_of(&m).rbp, 0x80000 - 8);
	mode_load(&m, TEXT_OF(enter_fault));
	set_pte(&m, 0x2f000, 0);
	mode_start(&m, LONG);
	EXPECT_TRAP(&m, "ENTER into nothing", 14);
	CHECK_EQ("RSP is as before", get64(&m, IST - 16), 0x30080);
	CHECK_EQ("RBP is as before", regs_of(&m).rbp, 0x81000);
	mode_load(&m, TEXT_OF(iret_fault));
	set_pte(&m, DATA + 4096, 0);
	mode_start(&m, LONG);
	EXPECT_TRAP(&m, "IRET half in nothing", 14);
	CHECK_EQ("RSP is as before", get64(&m, IST - 16), 0x100ff0);
	machine_close(&m);
	mode_open(&m, PAE32, TEXT_OF(call_fault));
	set_pte(&m, DATA - 4096, 0);
	/* the second push is on the page below; the handler's stack is there as well */
	CHECK_EQ("far CALL", run_to_halt(&m, 10), 0);
	CHECK_EQ("nothing was pushed", (uint32_t)get64(&m, DATA), 0);
	machine_close(&m);
	iret_wrapping_stack();
}

/* All of the lower half but its first 2 MiB is one 2 MiB page: a REP can go on for days. */
static void map_everything(struct machine *m)
{
	const uint64_t pdpt = 0x94000, pd = 0x95000;

	for (unsigned int k = 0; k < 512; k++) {
		put64(m, pd + 8 * k, 0x200000 | 0x87);
		put64(m, pdpt + 8 * k, pd | 7);
	}
	for (unsigned int k = 1; k < 512; k++) {
		put64(m, PD + 8 * k, 0x200000 | 0x87);
		put64(m, PDPT + 8 * k, pd | 7);
	}
	for (unsigned int k = 1; k < 256; k++)
		put64(m, PML4 + 8 * k, pdpt | 7);
}

CODE_TEXT(rep_lods, 64, "cld; mov $-1, %rcx; mov $0x200000, %esi; rep lodsb; hlt")
CODE_TEXT(rep_stos, 64, "cld; mov $-1, %rcx; mov $0x200000, %edi; rep stosq; hlt")
CODE_TEXT(rep_cmps, 64, "cld; mov $-1, %rcx; mov $0x200000, %esi; mov %esi, %edi; repe cmpsb; hlt")
CODE_TEXT(rep_movs_over, 64, "cld; mov $-1, %rcx; mov $0x200000, %esi; lea 1(%rsi), %rdi; rep movsb; hlt")
CODE_TEXT(rep_mmio, 64, "cld; mov $-1, %rcx; mov $0x20000ff8, %edi; mov $0x200000, %esi; rep movsw; hlt")
CODE_TEXT(rep_ins, 64, "cld; mov $-1, %rcx; mov $0x200ffc, %edi; mov $0x10, %edx; rep insl; hlt")

static void rep_case(const char *what, const void *code, size_t n, uint64_t start, int step)
{
	struct machine m;
	struct kvm_regs r;
	uint64_t done, before = 0;

	mode_open(&m, LONG, code, n);
	map_everything(&m);
	for (int k = 0; k < 3; k++) {
		int ret = run_for(&m, 20);

		check(ret == -EINTR, what, ret, -EINTR);
		r = regs_of(&m);
		done = -1 - r.rcx; /* iterations: 2^64 - 1 to begin with */
		check(r.rip > TEXT && r.rip < TEXT + 64, what, r.rip, TEXT);
		check(done > before, what, done, before + 1);
		check((r.rsi > DATA * 2 ? r.rsi : r.rdi) == start + done * step, what,
		      r.rsi > DATA * 2 ? r.rsi : r.rdi, start + done * step);
		before = done;
	}
	machine_close(&m);
}

/* Each element reaches into itself: the copies are of 1, then 2 bytes further on. */
CODE_TEXT(movs_overlap, 64,
	"cld; movq $0x04030201, 0x200000; mov $0x200000, %esi; lea 1(%rsi), %rdi; movsw; movsw; hlt")

static void h65_rep_2_64(void)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(movs_overlap));
	EXPECT_TRAP(&m, "MOVSW over itself", -1);
	CHECK_EQ("MOVSW over itself", get64(&m, 0x200000), 0x0402020101 & 0xffffffffff);
	machine_close(&m);

	rep_case("LODSB", TEXT_OF(rep_lods), 0x200000, 1);
	rep_case("STOSQ", TEXT_OF(rep_stos), 0x200000, 8);
	rep_case("CMPSB", TEXT_OF(rep_cmps), 0x200000, 1);
	rep_case("MOVSB, overlapping", TEXT_OF(rep_movs_over), 0x200000, 1);
	mode_open(&m, LONG, TEXT_OF(rep_mmio));
	for (int k = 0; k < 10; k++) {
		RUN_TO(&m, "REP to MMIO", KVM_EXIT_MMIO);
		CHECK_EQ("REP to MMIO: gpa", m.run->mmio.phys_addr, 0x20000ff8 + 2 * k);
		CHECK_EQ("REP to MMIO: len", m.run->mmio.len, 2);
	}
	machine_close(&m);
	mode_open(&m, LONG, TEXT_OF(rep_ins));
	for (int k = 0; k < 10; k++) {
		RUN_TO(&m, "REP INS", KVM_EXIT_IO);
		CHECK_EQ("REP INS: fits into its page", m.run->io.count * m.run->io.size <= 4096, 1);
		CHECK_EQ("REP INS: RCX", ~regs_of(&m).rcx <= 4096 * 10, 1);
	}
	machine_close(&m);
}

/* MOV SS holds a #DB of the next instruction back; TF and a breakpoint report together. */
CODE_TEXT(mov_ss_int3, 64,
	"mov $0x100000, %eax; mov %rax, %dr0; mov $0x303, %eax; mov %rax, %dr7; mov %ss, %ax;"
	"mov %ax, %ss; int3; nop; hlt")
CODE_TEXT(sti_shadow, 64, "pushfq; orq $0x100, (%rsp); sti; popfq; nop; nop; hlt")

static void h66_events_at_once(void)
{
	struct kvm_interrupt irq = {40};
	struct kvm_regs r;
	struct machine m;

	trap_case("MOV SS, INT3", LONG, TEXT_OF(mov_ss_int3), 3);
	mode_open(&m, LONG, TEXT_OF(sti_shadow));
	put64(&m, IDT64 + 16 * 2, get64(&m, IDT64 + 16 * 2));
	EXPECT_TRAP(&m, "TF after POPF", 1);
	CHECK_EQ("behind one instruction", get64(&m, IST - 40) > TEXT + 10, 1);
	/* An interrupt and an NMI are injected before a breakpointed instruction. */
	mode_load(&m, GUEST(0xcc, HLT));
	mode_start(&m, LONG);
	r = regs_of(&m);
	r.rflags |= 0x300;
	must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
	must(api->ioctl(m.vcpu, KVM_NMI, 0), "NMI");
	must(api->ioctl(m.vcpu, KVM_INTERRUPT, &irq), "INTERRUPT");
	CHECK_EQ("KVM_RUN", run_for(&m, 200), 0);
	check(m.run->exit_reason == KVM_EXIT_HLT || m.run->exit_reason == KVM_EXIT_SHUTDOWN,
	      "ended", m.run->exit_reason, KVM_EXIT_HLT); /* the IDT has no vector 40: #GP */
	machine_close(&m);
}

CODE_TEXT(popf_user, 64, "pushq $-1; popfq; pushfq; pop %rax; cli")
CODE_TEXT(popf_tf, 64, "pushfq; orl $0x100, (%rsp); popfq; nop; hlt")
CODE_TEXT(popf_ac, 64, "pushfq; orl $0x40000, (%rsp); popfq; mov 0x100001, %eax; hlt")
CODE_TEXT(iret_rf, 64, "pushq $0x10; pushq $0x80000; pushq $0x10102; pushq $8; lea 1f(%rip), %rax; push %rax; iretq; 1: nop; hlt")

static void h67_flags(void)
{
	struct machine m;

	/* all ones: AC and TF too; at CPL 3 neither IF nor IOPL changes: #DB after the next one */
	trap_case("POPF at CPL 3", LONG_USER, TEXT_OF(popf_user), 1);
	trap_case("POPF sets TF", LONG, TEXT_OF(popf_tf), 1);
	mode_open(&m, LONG_USER, TEXT_OF(popf_ac));
	EXPECT_TRAP(&m, "AC without CR0.AM", 13); /* HLT at CPL 3: it got there */
	machine_close(&m);
	mode_open(&m, LONG_USER, TEXT_OF(popf_ac));
	{
		struct kvm_sregs s;

		must(api->ioctl(m.vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
		s.cr0 |= 1 << 18;
		must(api->ioctl(m.vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
	}
	EXPECT_TRAP(&m, "AC with CR0.AM", 17);
	machine_close(&m);
	trap_case("IRET sets TF and RF", LONG, TEXT_OF(iret_rf), 1);
}

/* ---- 68 to 70 */

CODE_TEXT(triple, 64, "movq $0, 0x3000; movq $0, 0x3080; lidt 0x100000; ud2")

static void h68_triple_fault(void)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(triple));
	RUN_TO(&m, "triple fault", KVM_EXIT_SHUTDOWN);
	for (int k = 0; k < 10; k++)
		CHECK_EQ("run again", run_for(&m, 50) <= 0, 1);
	make_tables(&m);
	mode_load(&m, GUEST(HLT));
	mode_start(&m, LONG);
	RUN_TO(&m, "reset by the VMM", KVM_EXIT_HLT);
	machine_close(&m);
	check_neighbour();
}

CODE_TEXT(nest, 64, "1: int $0x20; jmp 1b")

static void h70_nmi_init_sipi(void)
{
	struct kvm_mp_state mp = {KVM_MP_STATE_INIT_RECEIVED};
	int rounds = many(200, 30);
	struct machine m;
	pthread_t t;
	void *r;

	mode_open(&m, LONG, GUEST(0xeb, 0xfe));
	memcpy(m.ram + TRAPS + 16 * 2, "\x48\xff\x04\x25\0\0\x10\0\x48\xcf", 10); /* inc [DATA]; iretq */
	pthread_create(&t, NULL, run_thread, &m);
	kick_install(&m);
	sleep_ms(10);
	m.run->immediate_exit = 1;
	pthread_join(t, &r);
	CHECK_EQ("KVM_RUN", (long)r, -EINTR);
	m.run->immediate_exit = 0;
	for (int k = 0; k < rounds; k++) {
		must(api->ioctl(m.vcpu, KVM_NMI, 0), "NMI");
		must(api->ioctl(m.vcpu, KVM_NMI, 0), "NMI");
		must(api->ioctl(m.vcpu, KVM_NMI, 0), "NMI");
		CHECK_EQ("KVM_RUN", run_for(&m, 1), -EINTR);
	}
	CHECK_EQ("two of three NMIs are remembered", get64(&m, DATA), 2 * rounds);
	machine_close(&m);

	machine_vm(&m, RAM);
	CHECK_EQ("irqchip", io(m.vm, KVM_CREATE_IRQCHIP, 0), 0);
	machine_add_vcpu(&m);
	CHECK_EQ("INIT", iop(m.vcpu, KVM_SET_MP_STATE, &mp), 0);
	must(api->ioctl(m.vcpu, KVM_NMI, 0), "NMI");
	m.run->immediate_exit = 1;
	CHECK_EQ("waits for SIPI", vcpu_run(&m), -EINTR);
	mp.mp_state = KVM_MP_STATE_SIPI_RECEIVED;
	CHECK_EQ("SIPI", iop(m.vcpu, KVM_SET_MP_STATE, &mp), 0);
	mp.mp_state = 99;
	CHECK_EQ("99", iop(m.vcpu, KVM_SET_MP_STATE, &mp), -EINVAL);
	machine_close(&m);
}

/* ---- 71 to 73 */

CODE_TEXT(div0, 64, "xor %ecx, %ecx; div %ecx; hlt")
CODE_TEXT(div_over, 64, "mov $5, %edx; mov $5, %ecx; div %ecx; hlt")
CODE_TEXT(idiv_min, 64, "movabs $0x8000000000000000, %rax; cqo; mov $-1, %rcx; idiv %rcx; hlt")
CODE_TEXT(idiv_min32, 32, "mov $0x80000000, %eax; cdq; mov $-1, %ecx; idiv %ecx; hlt")
CODE_TEXT(idiv_min8, 16, "mov $0x8000, %ax; mov $-1, %cl; idiv %cl; hlt")
CODE_TEXT(div_mem, 64, "mov $1, %edx; divq 0x100000; hlt")
CODE_TEXT(aam0, 32, "aam $0; hlt")

static void h71_div_overflow(void)
{
	trap_case("DIV by 0", LONG, TEXT_OF(div0), 0);
	trap_case("DIV overflow", LONG, TEXT_OF(div_over), 0);
	trap_case("IDIV INT64_MIN / -1", LONG, TEXT_OF(idiv_min), 0);
	trap_case("IDIV INT32_MIN / -1", PROT32, TEXT_OF(idiv_min32), 0);
	trap_case("IDIV -32768 / -1", REAL, TEXT_OF(idiv_min8), 0);
	trap_case("DIV by memory 0", LONG, TEXT_OF(div_mem), 0);
	trap_case("DIV at CPL 3", LONG_USER, TEXT_OF(idiv_min), 0);
	trap_case("AAM 0", PROT32, TEXT_OF(aam0), 0);
}

CODE_TEXT(sse_div0, 64,
	"movl $0x1d80, 0x100000; ldmxcsr 0x100000; xorps %xmm0, %xmm0; movl $0x3f800000, 0x100010;"
	"movss 0x100010, %xmm1; divss %xmm0, %xmm1; hlt")
CODE_TEXT(x87_div0, 64, "fninit; movw $0x37b, 0x100000; fldcw 0x100000; fld1; fldz; fdivrp; fwait; hlt")
CODE_TEXT(mxcsr_bad, 64, "movl $0x10000, 0x100000; ldmxcsr 0x100000; hlt")
CODE_TEXT(fxrstor_bad, 64, "movl $-1, 0x100018; fxrstor 0x100000; hlt")
CODE_TEXT(denormal, 64,
	"movl $0x9fc0, 0x100000; ldmxcsr 0x100000; movl $1, 0x100010; movss 0x100010, %xmm0;"
	"addss %xmm0, %xmm0; movd %xmm0, %eax; hlt")

static void h72_floating_point(void)
{
	uint32_t before, after;
	struct machine m;

	asm volatile("stmxcsr %0" : "=m"(before));
	trap_case("unmasked SSE", LONG, TEXT_OF(sse_div0), 19);
	trap_case("unmasked x87", LONG, TEXT_OF(x87_div0), 16);
	trap_case("LDMXCSR", LONG, TEXT_OF(mxcsr_bad), 13);
	trap_case("FXRSTOR", LONG, TEXT_OF(fxrstor_bad), 13);
	mode_open(&m, LONG, TEXT_OF(denormal));
	EXPECT_TRAP(&m, "FTZ, DAZ", -1);
	CHECK_EQ("denormals are zero", regs_of(&m).rax & 0xffffffff, 0);
	machine_close(&m);
	asm volatile("stmxcsr %0" : "=m"(after));
	CHECK_EQ("our own MXCSR", after & ~0x3f, before & ~0x3f);
}

/* What no emulator does: VMASKMOV-like oddities do work; these do not exist in our CPUID. */
static void h73_unknown_at_cpl3(void)
{
	static const uint8_t codes[][8] = {
		{0x62, 0xf1, 0x7c, 0x48, 0x58, 0xc0},	   /* vaddps zmm */
		{0xc4, 0xe2, 0x7b, 0x49, 0xc0},		   /* tilezero */
		{0x0f, 0x01, 0xcf},			   /* enclu-like */
		{0x66, 0x0f, 0x38, 0xf8, 0x00},		   /* movdir64b */
		{0xf3, 0x0f, 0xc7, 0xf0},		   /* senduipi-like */
		{0x0f, 0x04}, {0x0f, 0xff, 0xc0}, {0x0f, 0xb9, 0xc0}, {0xd6},
		{0x0f, 0x0b, 'k', 'v', 'm', 0x90},	   /* the forced-emulation prefix is off */
	};

	for (size_t k = 0; k < COUNT(codes); k++)
		trap_case("unknown", LONG_USER, codes[k], sizeof(codes[k]), 6);
	check_neighbour();
}

static const struct item items[] = {
	ITEM(h61_every_opcode_in_every_mode), ITEM(h62_all_prefixes), ITEM(h63_far_bits_and_wraps),
	ITEM(h64_faults_half_way), ITEM(h65_rep_2_64), ITEM(h66_events_at_once), ITEM(h67_flags),
	ITEM(h68_triple_fault), ITEM(h70_nmi_init_sipi), ITEM(h71_div_overflow),
	ITEM(h72_floating_point), ITEM(h73_unknown_at_cpl3),
};

HOSTILE_MAIN(items)
