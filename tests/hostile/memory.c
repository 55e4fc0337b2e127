// SPDX-License-Identifier: MIT
/* Items 44 to 60: guest memory and page tables that are not as they should be. */
#include "modes.h"

#define P   1ull
#define W   2ull
#define U   4ull
#define A   0x20ull
#define D   0x40ull
#define NX  (1ull << 63)

#define ERROR_CODE(m) ((uint32_t)get64(m, IST - 48))

static void add_slot(struct machine *m, uint32_t id, uint32_t flags, uint64_t gpa, uint64_t size,
		     void *hva)
{
	struct kvm_userspace_memory_region r = {id, flags, gpa, size, (uint64_t)hva};

	CHECK_EQ("slot", iop(m->vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
}

static void *new_page(size_t n)
{
	return mmap(NULL, n * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static uint64_t cr2_of(struct machine *m)
{
	struct kvm_sregs s;

	must(api->ioctl(m->vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	return s.cr2;
}

static void change_sregs(struct machine *m, uint64_t cr0, uint64_t cr4, uint64_t cr3)
{
	struct kvm_sregs s;

	must(api->ioctl(m->vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	s.cr0 |= cr0;
	s.cr4 |= cr4;
	if (cr3)
		s.cr3 = cr3;
	must(api->ioctl(m->vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
}

/* A read of the data page, and a write to it. */
CODE_TEXT(read_data, 64, "mov 0x100000, %eax; hlt")
CODE_TEXT(write_data, 64, "movl $0x12345678, 0x100ffc; hlt")
CODE_TEXT(write_split, 64, "movabs $0x1122334455667788, %rax; mov %rax, 0x100ffc; hlt")

static void h44_tables_outside_ram(void)
{
	static const uint64_t nowhere[] = {HOLE, MMIO, 0xfee00000, 0x3ffffff000};
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(read_data));
	for (size_t k = 0; k < COUNT(nowhere); k++) {
		put64(&m, PD + 8 * 2, nowhere[k] | P | W); /* a page table for 0x400000 */
		mode_start(&m, LONG);
		memcpy(m.ram + TEXT + 3, &(uint32_t){0x400000}, 4);
		EXPECT_TRAP(&m, "page table", 14);
		CHECK_EQ("CR2", cr2_of(&m), 0x400000);
		mode_start(&m, LONG);
		change_sregs(&m, 0, 0, nowhere[k]);
		CHECK_EQ("CR3: KVM_RUN", run_for(&m, 200), 0);
		check(m.run->exit_reason == KVM_EXIT_SHUTDOWN ||
		      m.run->exit_reason == KVM_EXIT_INTERNAL_ERROR, "CR3: exit",
		      m.run->exit_reason, KVM_EXIT_SHUTDOWN);
	}
	machine_close(&m);
}

CODE_TEXT(read_self, 64,
	"movabs $0xfffffffffffff000, %rbx; mov (%rbx), %rax;"
	"movabs $0xffffffffffe00000, %rbx; mov (%rbx), %rcx; hlt")

static void h45_self_reference(void)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(read_self));
	put64(&m, PML4 + 8 * 511, PML4 | 3);
	EXPECT_TRAP(&m, "self map", -1);
	CHECK_EQ("PML4[0]", regs_of(&m).rax & ~A, (PDPT | 7));
	CHECK_EQ("PDPT[0]", regs_of(&m).rcx & ~A, (PD | 7));
	/* Every entry of the only table, at all levels, is the table itself; LA57 where there is. */
	for (unsigned int k = 0; k < 512; k++)
		put64(&m, TEXT + 8 * k, TEXT | 7);
	for (int levels = 4; levels <= 5; levels++) {
		struct kvm_sregs s;

		mode_start(&m, LONG);
		must(api->ioctl(m.vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
		s.cr3 = TEXT;
		s.cr4 |= levels == 5 ? 1 << 12 : 0;
		if (!iop(m.vcpu, KVM_SET_SREGS, &s))
			CHECK_EQ("all is one page", run_for(&m, 100) <= 0, 1);
	}
	machine_close(&m);
}

static void pte_case(const char *what, uint64_t entry, uint32_t error)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(read_data));
	set_pte(&m, DATA, entry);
	EXPECT_TRAP(&m, "reserved", 14);
	check(ERROR_CODE(&m) == error, what, ERROR_CODE(&m), error);
	machine_close(&m);
}

static void h46_reserved_bits(void)
{
	struct machine m;
	struct kvm_sregs s;

	pte_case("bit 51", DATA | 7 | 1ull << 51, 9);
	pte_case("not present", 0, 0);
	mode_open(&m, LONG, TEXT_OF(read_data));
	put64(&m, PML4 + 8, PDPT | 0x87); /* PS in a PML4 entry */
	memcpy(m.ram + TEXT, "\x48\xbb\0\0\0\0\x80\0\0\0\x48\x8b\x03\xf4", 14); /* mov rax,[2^39] */
	EXPECT_TRAP(&m, "PS in PML4E", 14);
	CHECK_EQ("PS in PML4E", ERROR_CODE(&m), 9);
	mode_load(&m, TEXT_OF(read_data));
	mode_start(&m, LONG);
	must(api->ioctl(m.vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	s.efer &= ~0x800ull;
	must(api->ioctl(m.vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
	set_pte(&m, DATA, DATA | 7 | NX);
	EXPECT_TRAP(&m, "NX without NXE", 14);
	CHECK_EQ("NX without NXE", ERROR_CODE(&m), 9);
	put64(&m, PD + 8 * 8, 8ull << 21 | 0x2087); /* 2 MiB page: bit 13 */
	mode_start(&m, LONG);
	memcpy(m.ram + TEXT + 3, &(uint32_t){8 << 21}, 4);
	EXPECT_TRAP(&m, "2M page unaligned", 14);
	machine_close(&m);
}

static void h47_accessed_bits_where_they_cannot_go(void)
{
	uint8_t *table = new_page(1);
	struct machine m;

	/* The page table in a read-only slot. */
	mode_open(&m, LONG, TEXT_OF(write_data));
	memcpy(table, m.ram + PT, 4096);
	add_slot(&m, 1, KVM_MEM_READONLY, 0x800000, 4096, table);
	put64(&m, PD, 0x800000 | 7);
	EXPECT_TRAP(&m, "read-only table", -1);
	CHECK_EQ("it is unchanged", memcmp(table, m.ram + PT, 4096), 0);
	CHECK_EQ("written", (uint32_t)get64(&m, 0x100ffc), 0x12345678);
	/* The page that is executed is the page table, and maps itself. */
	mode_load(&m, TEXT_OF(read_data));
	memcpy(m.ram + TEXT + 0x800, TEXT_OF(read_data));
	for (unsigned int k = 0; k < 256; k++)
		put64(&m, TEXT + 8 * k, k << 12 | 7);
	for (unsigned int k = 256; k < 264; k++)
		memcpy(m.ram + TEXT + 8 * k, m.ram + TEXT + 0x800 + 8 * (k - 256), 8);
	put64(&m, PD, TEXT | 7);
	memcpy(m.ram + TEXT + 0x800, "\xa1\0\0\x08\0\0\0\0\0\xf4", 10); /* mov eax,[0x80000] */
	mode_start(&m, LONG);
	{
		struct kvm_regs r = regs_of(&m);

		r.rip = TEXT + 0x800;
		must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
	}
	EXPECT_TRAP(&m, "table is the code", -1);
	CHECK_EQ("A was set", get64(&m, TEXT + 8 * 0x80) & A, A);
	machine_close(&m);
}

/* l: mov [0x100000],al; invlpg [0x100000]; cmpb $0,0x101000; je l; hlt */
CODE_TEXT(touch, 64, "1: mov %al, 0x100000; invlpg 0x100000; cmpb $0, 0x101000; je 1b; hlt")

static void h48_accessed_bit_race(void)
{
	struct kvm_userspace_memory_region r = {.flags = KVM_MEM_LOG_DIRTY_PAGES, .memory_size = BIG};
	uint64_t bitmap[BIG / 4096 / 64], *pte;
	struct kvm_dirty_log log = {.dirty_bitmap = bitmap};
	int rounds = many(2000000, 100000);
	struct machine m;
	pthread_t t;
	void *result;

	mode_open(&m, LONG, TEXT_OF(touch));
	r.userspace_addr = (uint64_t)m.ram;
	CHECK_EQ("log", iop(m.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	pte = (uint64_t *)(m.ram + PT) + 256;
	__atomic_store_n(pte, DATA | 7, __ATOMIC_SEQ_CST);
	pthread_create(&t, NULL, run_thread, &m);
	for (int k = 0; k < rounds; k++) {
		__atomic_fetch_add(pte, 1ull << 52, __ATOMIC_SEQ_CST); /* bits 52 to 58 are free */
		__atomic_fetch_and(pte, ~(A | D | 1ull << 59), __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(m.ram + 0x101000, 1, __ATOMIC_SEQ_CST);
	pthread_join(t, &result);
	CHECK_EQ("KVM_RUN", (long)result, 0);
	CHECK_EQ("no update was lost", (*pte >> 52) & 127, rounds & 127);
	CHECK_EQ("GET_DIRTY_LOG", iop(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	CHECK_EQ("the table is dirty", bitmap[0] >> (PT >> 12) & 1, 1);
	CHECK_EQ("the page is dirty", bitmap[4] & 1, 1);
	machine_close(&m);
}

CODE_TEXT(rmw_mmio, 64, "mov $5, %eax; add %eax, 0x100010; mov 0x100010, %ecx; hlt")

static void h49_table_changed_between_exits(void)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(rmw_mmio));
	set_pte(&m, DATA, MMIO | 7);
	RUN_TO(&m, "read", KVM_EXIT_MMIO);
	CHECK_EQ("read: gpa", m.run->mmio.phys_addr, MMIO + 0x10);
	set_pte(&m, DATA, (MMIO + 0x5000) | 7);
	memcpy(m.run->mmio.data, "\x10\0\0\0", 4);
	RUN_TO(&m, "write", KVM_EXIT_MMIO);
	CHECK_EQ("write", m.run->mmio.is_write, 1);
	CHECK_EQ("write: the address of the read", m.run->mmio.phys_addr, MMIO + 0x10);
	CHECK_EQ("write: data", m.run->mmio.data[0], 0x15);
	set_pte(&m, DATA, 0);
	RUN_TO(&m, "cached or gone", KVM_EXIT_MMIO);
	machine_close(&m);
}

CODE_TEXT(jump_hole, 64, "mov $0x20000000, %eax; jmp *%rax")
CODE_TEXT(jump_end, 64, "movabs $0x7fffffffffff, %rax; jmp *%rax")
CODE_TEXT(jump_noncanonical, 64, "movabs $0x800000000000, %rax; jmp *%rax")
CODE_TEXT(jump_4g, 32, "mov $0xffffffff, %eax; jmp *%eax")

static void fetch_case(const char *what, enum mode mode, const void *code, size_t n)
{
	struct machine m;

	mode_open(&m, mode, code, n);
	CHECK_EQ("KVM_RUN", run_for(&m, 200), 0);
	check(m.run->exit_reason == KVM_EXIT_INTERNAL_ERROR, what, m.run->exit_reason,
	      KVM_EXIT_INTERNAL_ERROR);
	CHECK_EQ("again", run_for(&m, 50) <= 0, 1);
	machine_close(&m);
}

static void h50_fetch_from_nowhere(void)
{
	struct machine m;

	fetch_case("MMIO", LONG, TEXT_OF(jump_hole));
	fetch_case("4 GiB", PROT32, TEXT_OF(jump_4g));
	trap_case("beyond 2^47", LONG, TEXT_OF(jump_noncanonical), 13);
	/* The last byte below 2^47 is a page of RAM; the instruction wraps into the hole. */
	mode_open(&m, LONG, TEXT_OF(jump_end));
	put64(&m, PML4 + 8 * 255, PDPT | 7);
	put64(&m, PDPT + 8 * 511, PD | 7);
	put64(&m, PD + 8 * 511, 0x200000 | 0x87);
	m.ram[0x3fffff] = 0x90;
	EXPECT_TRAP(&m, "end of the lower half", 13);
	machine_close(&m);
}

static void crossing(const char *what, uint64_t second, int vector, uint32_t error)
{
	struct machine m;
	struct kvm_regs r;

	mode_open(&m, LONG, GUEST(HLT));
	memcpy(m.ram + 0x20ffa, "\x48\xb8\1\2\3\4\5\6\7\x08\xf4", 11); /* mov rax,imm64; hlt */
	set_pte(&m, 0x21000, second);
	r = regs_of(&m);
	r.rip = 0x20ffa;
	must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
	CHECK_EQ("KVM_RUN", run_to_halt(&m, 100), 0);
	check(trap_of(&m) == vector, what, trap_of(&m), vector);
	if (vector == 14) {
		check(ERROR_CODE(&m) == error, what, ERROR_CODE(&m), error);
		check(cr2_of(&m) == 0x21000, what, cr2_of(&m), 0x21000);
	} else if (vector < 0 && m.run->exit_reason == KVM_EXIT_HLT) {
		CHECK_EQ("crossing: result", regs_of(&m).rax, 0x0807060504030201);
	}
	machine_close(&m);
}

CODE_TEXT(long_insn, 64, ".fill 15, 1, 0x66; nop; hlt")
CODE_TEXT(longest_insn, 64, ".fill 14, 1, 0x66; nop; hlt")

static void h51_instruction_across_pages(void)
{
	crossing("both there", 0x21000 | 7, -1, 0);
	crossing("not present", 0, 14, 0x10);
	crossing("no execute", 0x21000 | 7 | NX, 14, 0x11);
	crossing("second page elsewhere is MMIO", MMIO | 7, -1, 0);
	trap_case("16 bytes", LONG, TEXT_OF(long_insn), 13);
	trap_case("15 bytes", LONG, TEXT_OF(longest_insn), -1);
}

static void h52_operand_splits(void)
{
	uint8_t *page = new_page(1);
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(write_split));
	set_pte(&m, DATA + 4096, 0);
	EXPECT_TRAP(&m, "RAM, not present", 14);
	CHECK_EQ("no partial write", (uint32_t)get64(&m, 0x100ffc), 0);
	CHECK_EQ("CR2", cr2_of(&m), 0x101000);

	set_pte(&m, DATA + 4096, MMIO | 7);
	mode_start(&m, LONG);
	RUN_TO(&m, "RAM, MMIO", KVM_EXIT_MMIO);
	CHECK_EQ("MMIO half", m.run->mmio.phys_addr, MMIO);
	CHECK_EQ("MMIO half: len", m.run->mmio.len, 4);
	CHECK_EQ("MMIO half: data", memcmp(m.run->mmio.data, "\x44\x33\x22\x11", 4), 0);
	CHECK_EQ("RAM half", (uint32_t)get64(&m, 0x100ffc), 0x55667788);

	set_pte(&m, DATA, (MMIO + 0x7000) | 7);
	mode_start(&m, LONG);
	RUN_TO(&m, "MMIO, MMIO", KVM_EXIT_MMIO);
	CHECK_EQ("first", m.run->mmio.phys_addr, MMIO + 0x7ffc);
	RUN_TO(&m, "MMIO, MMIO", KVM_EXIT_MMIO);
	CHECK_EQ("second", m.run->mmio.phys_addr, MMIO);

	add_slot(&m, 1, 0, BIG, 4096, page); /* another slot right behind the first */
	memcpy(m.ram + TEXT + 10, "\x48\x89\x04\x25\xfc\xff\x3f\x00\xf4", 9);
	mode_start(&m, LONG);
	EXPECT_TRAP(&m, "slot, slot", -1);
	CHECK_EQ("first slot", memcmp(m.ram + BIG - 4, "\x88\x77\x66\x55", 4), 0);
	CHECK_EQ("second slot", memcmp(page, "\x44\x33\x22\x11", 4), 0);
	machine_close(&m);
}

CODE_TEXT(lock_mmio, 64,
	"lock incl 0x20000000; xor %eax, %eax; xor %edx, %edx; mov $1, %ebx; mov $2, %ecx;"
	"lock cmpxchg16b 0x20000010; lock xadd %rax, 0x20000ffc; hlt")
CODE_TEXT(lock_split, 64,
	"mov $3, %eax; lock xadd %rax, 0x100ffc; lock incl 0x100ffe; lock btsl $31, 0x100fff; hlt")

static void h53_locked_mmio_and_splits(void)
{
	struct machine m;
	uint64_t low;

	mode_open(&m, LONG, TEXT_OF(lock_mmio));
	CHECK_EQ("MMIO", run_to_halt(&m, 100), 0);
	CHECK_EQ("it ended", m.run->exit_reason, KVM_EXIT_HLT);
	machine_close(&m);
	mode_open(&m, LONG, TEXT_OF(lock_split));
	EXPECT_TRAP(&m, "page split", -1);
	memcpy(&low, m.ram + 0x100ffc, 8);
	CHECK_EQ("value", low, 3 + 0x10000 + (1ull << 55));
	machine_close(&m);
}

/* xsetbv 7; mask: lanes 0 to 3 only; the others would be on the page that is not there */
CODE_TEXT(masked, 64,
	"mov %cr4, %rax; or $0x40000, %eax; mov %rax, %cr4; xor %ecx, %ecx; xor %edx, %edx;"
	"mov $7, %eax; xsetbv; vpcmpeqd %xmm1, %xmm1, %xmm1;"
	"vmaskmovps 0x100ff0, %ymm1, %ymm0; vpmaskmovd %ymm0, %ymm1, 0x100ff0;"
	"vpcmpeqd %ymm1, %ymm1, %ymm1; vmaskmovps 0x100ff0, %ymm1, %ymm0; hlt")
CODE_TEXT(evex, 64, ".byte 0x62, 0xf1, 0x7c, 0x48, 0x10, 0x04, 0x25, 0, 0, 0x10, 0; hlt")

static void h54_masked_vectors(void)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(masked));
	set_pte(&m, DATA + 4096, 0);
	EXPECT_TRAP(&m, "only the last access faults", 14);
	CHECK_EQ("CR2", cr2_of(&m), 0x101000);
	CHECK_EQ("RIP is the last", get64(&m, IST - 40) > TEXT + 40, 1);
	machine_close(&m);
	trap_case("AVX-512 is not offered", LONG, TEXT_OF(evex), 6);
}

/* Stores to addresses that a generator gives: al = 1 byte each, rcx of them. */
CODE_TEXT(stores, 64,
	"1: imul $1103515245, %rbx, %rbx; add $12345, %rbx; mov %rbx, %rax; shr $10, %rax;"
	"and $0x0fffff, %eax; mov %ax, 0x200000(%rax); dec %ecx; jnz 1b; hlt")

static void h55_dirty_log_complete(void)
{
	struct kvm_userspace_memory_region r = {.flags = KVM_MEM_LOG_DIRTY_PAGES, .memory_size = BIG};
	uint64_t bitmap[16], want[16] = {0}, x = 7;
	struct kvm_dirty_log log = {.dirty_bitmap = bitmap};
	struct machine m;
	struct kvm_regs regs;

	mode_open(&m, LONG, TEXT_OF(stores));
	r.userspace_addr = (uint64_t)m.ram;
	CHECK_EQ("log", iop(m.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	for (int round = 0; round < many(200, 20); round++) {
		memset(want, 0, sizeof(want));
		mode_start(&m, LONG);
		regs = regs_of(&m);
		regs.rbx = x;
		regs.rcx = 40;
		must(api->ioctl(m.vcpu, KVM_SET_REGS, &regs), "SET_REGS");
		for (int k = 0; k < 40; k++) {
			uint64_t at;

			x = x * 1103515245 + 12345;
			at = 0x200000 + (x >> 10 & 0xfffff);
			want[at >> 18] |= 1ull << (at >> 12 & 63);
			want[(at + 1) >> 18] |= 1ull << ((at + 1) >> 12 & 63);
		}
		EXPECT_TRAP(&m, "stores", -1);
		CHECK_EQ("GET_DIRTY_LOG", iop(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
		CHECK_EQ("data pages", memcmp(bitmap + 8, want + 8, 8 * sizeof(want[0])), 0);
	}
	machine_close(&m);
}

/* ---- 56: code that changes */

CODE_TEXT(smc_next, 64, "movb $0x42, 1f+1(%rip); 1: mov $0, %al; movb $0x43, 2f+1(%rip); jmp 2f; 2: mov $0, %bl; hlt")
/* the same page at another address: 0x21000 -> TEXT */
CODE_TEXT(smc_alias, 64,
	"mov $2, %ecx; 1: mov $0x11, %al; movb $0x77, 0x21006; dec %ecx; jnz 1b; hlt")
/* l: call the function at DATA until it returns 2 */
CODE_TEXT(smc_other, 64, "mov $0x100000, %ebx; 1: call *%rbx; cmp $2, %al; jne 1b; hlt")

static void h56_self_modifying_code(void)
{
	struct machine m;
	pthread_t t;
	void *r;

	mode_open(&m, LONG, TEXT_OF(smc_next));
	EXPECT_TRAP(&m, "next instruction", -1);
	CHECK_EQ("this page", regs_of(&m).rax & 0xff, 0x42);
	CHECK_EQ("after a jump", regs_of(&m).rbx & 0xff, 0x43);
	mode_load(&m, TEXT_OF(smc_alias));
	set_pte(&m, 0x21000, TEXT | 7);
	mode_start(&m, LONG);
	EXPECT_TRAP(&m, "alias", -1);
	CHECK_EQ("alias", regs_of(&m).rax & 0xff, 0x77);
	machine_close(&m);

	/* The VMM writes, as a device's DMA or another processor does. */
	mode_open(&m, LONG, TEXT_OF(smc_other));
	memcpy(m.ram + DATA, "\xb0\x01\xc3", 3); /* mov al,1; ret */
	pthread_create(&t, NULL, run_thread, &m);
	sleep_ms(20);
	__atomic_store_n(m.ram + DATA + 1, 2, __ATOMIC_SEQ_CST);
	pthread_join(t, &r);
	CHECK_EQ("from outside", (long)r, 0);
	CHECK_EQ("from outside", m.run->exit_reason, KVM_EXIT_HLT);
	/* The walk's own update: bit A turns 07 (pop es: #UD) of a PTE into 27 (daa: #UD). */
	mode_load(&m, TEXT_OF(read_data));
	mode_start(&m, LONG);
	EXPECT_TRAP(&m, "tables as code", -1);
	machine_close(&m);
}

/* ---- 57: cached translations */

#define SWAP "movq $0x102007, 0x7800;" /* PTE of 0x100000 */
CODE_TEXT(flush_invlpg, 64, "mov 0x100000, %al;" SWAP "invlpg 0x100000; mov 0x100000, %bl; hlt")
CODE_TEXT(flush_cr3, 64, "mov 0x100000, %al;" SWAP "mov %cr3, %rcx; mov %rcx, %cr3; mov 0x100000, %bl; hlt")
CODE_TEXT(flush_pge, 64,
	"mov 0x100000, %al;" SWAP "mov %cr4, %rcx; xor $0x80, %ecx; mov %rcx, %cr4; mov 0x100000, %bl; hlt")
CODE_TEXT(flush_paging, 64,
	"mov 0x100000, %al;" SWAP "mov %cr0, %rcx; mov %rcx, %rdx; btr $16, %rdx; mov %rdx, %cr0;"
	"mov %rcx, %cr0; invlpg 0x100000; mov 0x100000, %bl; hlt")

static void flush_case(const char *what, const void *code, size_t n)
{
	struct machine m;

	mode_open(&m, LONG, code, n);
	m.ram[DATA] = 1;
	m.ram[0x102000] = 2;
	EXPECT_TRAP(&m, "flush", -1);
	check((regs_of(&m).rax & 0xff) == 1, what, regs_of(&m).rax & 0xff, 1);
	check((regs_of(&m).rbx & 0xff) == 2, what, regs_of(&m).rbx & 0xff, 2);
	machine_close(&m);
}

static void h57_flushes(void)
{
	flush_case("INVLPG", TEXT_OF(flush_invlpg));
	flush_case("CR3", TEXT_OF(flush_cr3));
	flush_case("CR4.PGE", TEXT_OF(flush_pge));
	flush_case("CR0", TEXT_OF(flush_paging));
}

/* ---- 58: who may */

CODE_TEXT(stac_read, 64, "stac; mov 0x100000, %eax; clac; mov 0x100000, %eax; hlt")
CODE_TEXT(jump_data, 64, "mov $0x100000, %eax; jmp *%rax")
CODE_TEXT(load_ds, 64, "mov $0x2b, %eax; mov %eax, %ds; mov 0x2000, %eax; hlt")

static void right_case(const char *what, const void *code, size_t n, uint64_t cr0, uint64_t cr4,
		       uint64_t pte, int vector)
{
	struct machine m;

	mode_open(&m, LONG, code, n);
	for (unsigned int k = 0; k < 256; k++) /* kernel pages below 1 MiB */
		set_pte(&m, k << 12, k << 12 | 3);
	set_pte(&m, DATA, DATA | pte);
	m.ram[DATA] = HLT;
	change_sregs(&m, cr0, cr4, 0);
	CHECK_EQ("KVM_RUN", run_to_halt(&m, 10), 0);
	check(trap_of(&m) == vector, what, trap_of(&m), vector);
	machine_close(&m);
}

static void h58_rights(void)
{
	struct machine m;

	right_case("WP off", TEXT_OF(write_data), 0, 0, P | U, -1);
	right_case("WP", TEXT_OF(write_data), 1 << 16, 0, P | U, 14);
	right_case("SMEP off", TEXT_OF(jump_data), 0, 0, P | W | U, -1);
	right_case("SMEP", TEXT_OF(jump_data), 0, 1 << 20, P | W | U, 14);
	right_case("SMAP off", TEXT_OF(read_data), 0, 0, P | W | U, -1);
	right_case("SMAP", TEXT_OF(read_data), 0, 1 << 21, P | W | U, 14);
	right_case("SMAP, STAC, CLAC", TEXT_OF(stac_read), 0, 1 << 21, P | W | U, 14);
	right_case("NX", TEXT_OF(jump_data), 0, 0, P | W | NX, 14);
	/* At CPL 3 the processor reads a GDT that the program may not read. */
	mode_open(&m, LONG_USER, TEXT_OF(load_ds));
	set_pte(&m, GDT, GDT | 3);
	EXPECT_TRAP(&m, "the program's own read", 14);
	CHECK_EQ("CR2", cr2_of(&m), GDT);
	machine_close(&m);
}

CODE_TEXT(pdptr, 32,
	"movl $0, 0x2a00; mov 0x100000, %eax; invlpg 0x100000; mov 0x100000, %eax; hlt;"
	"mov %cr3, %eax; mov %eax, %cr3; hlt")

static void h59_pdptr(void)
{
	struct machine m;

	mode_open(&m, PAE32, TEXT_OF(pdptr));
	EXPECT_TRAP(&m, "the old PDPTEs still hold", -1);
	CHECK_EQ("KVM_RUN", run_for(&m, 200), 0);
	CHECK_EQ("after the reload nothing is mapped", m.run->exit_reason, KVM_EXIT_SHUTDOWN);
	mode_open(&m, PAE32, TEXT_OF(pdptr));
	memcpy(m.ram + TEXT, "\xc7\x05\0\x2a\0\0\x07\x60\0\0\x0f\x20\xd8\x0f\x22\xd8\xf4", 17);
	EXPECT_TRAP(&m, "reserved bits in a PDPTE", 13);
	machine_close(&m);
}

CODE_TEXT(two_gpas, 64, "movb $0x5a, 0x800000; mov 0x100000, %al; lock incb 0x100000; mov 0x800000, %bl; hlt")

static void h60_two_slots_one_memory(void)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(two_gpas));
	add_slot(&m, 1, 0, 0x800000, 4096, m.ram + DATA);
	EXPECT_TRAP(&m, "alias", -1);
	CHECK_EQ("one way", regs_of(&m).rax & 0xff, 0x5a);
	CHECK_EQ("the other", regs_of(&m).rbx & 0xff, 0x5b);
	machine_close(&m);
}

static const struct item items[] = {
	ITEM(h44_tables_outside_ram), ITEM(h45_self_reference), ITEM(h46_reserved_bits),
	ITEM(h47_accessed_bits_where_they_cannot_go), ITEM(h48_accessed_bit_race),
	ITEM(h49_table_changed_between_exits), ITEM(h50_fetch_from_nowhere),
	ITEM(h51_instruction_across_pages), ITEM(h52_operand_splits),
	ITEM(h53_locked_mmio_and_splits), ITEM(h54_masked_vectors), ITEM(h55_dirty_log_complete),
	ITEM(h56_self_modifying_code), ITEM(h57_flushes), ITEM(h58_rights), ITEM(h59_pdptr),
	ITEM(h60_two_slots_one_memory),
};

HOSTILE_MAIN(items)
