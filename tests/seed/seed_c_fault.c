// SPDX-License-Identifier: MIT
/* C cases of faults and rights: what the guest may not do reaches no device (SEED 7.2). */
#include "vmguest.h"

#define CR4_SMAP_ (1ul << 21)
#define CR4_PKE_  (1ul << 22)

static void cr2_is(struct vm *vm, uint64_t cr2)
{
	CHECK(vm, "cr2", sregs_of(&vm->m).cr2, cr2);
}

static void add_cr4(struct vm *vm, uint64_t bits)
{
	struct kvm_sregs s = sregs_of(&vm->m);

	s.cr4 |= bits;
	set_sregs(&vm->m, &s);
}

static void add_rflags(struct vm *vm, uint64_t bits)
{
	struct kvm_regs r = regs_of(&vm->m);

	r.rflags |= bits;
	set_regs(&vm->m, &r);
}

/* The emulator was not even asked. */
static void not_emulated(struct vm *vm)
{
	CHECK(vm, "insn_emulation", vm_stat(vm, "insn_emulation"), 0);
	CHECK(vm, "mmio_exits", vm_stat(vm, "mmio_exits"), 0);
}

PROGRAM(c04, 64, "mov %eax, " RO "+0x10\n" STOP);
PROGRAM(c05, 64, "add %eax, " RO "+0x10\n" STOP);

static void C04(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c04);

	vm_run(vm);
	cr2_is(vm, 0x4001b010);
	not_emulated(vm);
	vm_finish(vm, "#14:3", 0);
}

static void C05(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c05);

	vm_run(vm);
	cr2_is(vm, 0x4001b010);
	not_emulated(vm);
	vm_finish(vm, "#14:3", 0);
}

PROGRAM(c06, 64, "mov %eax, " MN "+0xffe\n" STOP);
PROGRAM(c06_lapic, 64, "mov %eax, " L "+0xffe\n" STOP);

/* The first part is user space's, then an in-kernel device's (a coalesced zone, an APIC). */
static void C06(enum gpa_mode mode)
{
	struct kvm_coalesced_mmio_zone zone = {.addr = G_MN, .size = 4096};
	struct kvm_coalesced_mmio_ring *ring;
	struct vm *vm = vm_start(mode, LONG64, c06);

	vm_run(vm);
	cr2_is(vm, 0x40019000);
	vm_finish(vm, "#14:2", 0);

	vm = vm_start(mode, LONG64, c06);
	must(api->ioctl(vm->m.vm, KVM_REGISTER_COALESCED_MMIO, &zone), "zone");
	ring = (void *)((uint8_t *)vm->m.run + 2 * 4096);
	vm_run(vm);
	cr2_is(vm, 0x40019000);
	CHECK(vm, "writes in the ring", ring->last, 0);
	vm_finish(vm, "#14:2", 0);

	vm = vm_open(mode, LONG64, true);
	vm_load(vm, c06_lapic);
	vm_run(vm);
	cr2_is(vm, 0x40017000);
	not_emulated(vm);
	vm_finish(vm, "#14:2", 0);
}

PROGRAM(load_m, 64, "mov " M "+0x10, %eax\n" STOP);
PROGRAM(store_m, 64, "mov %eax, " M "+0x10\n" STOP);
PROGRAM(load_um, 64, "mov " UM "+0x10, %eax\n" STOP);
PROGRAM(store_um, 64, "mov %eax, " UM "+0x10\n" STOP);

static void C07(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, load_m);

	vm_user(vm);
	vm_run(vm);
	cr2_is(vm, 0x40001010);
	vm_finish(vm, "#14:5", 0);

	vm = vm_start(mode, LONG64, store_m);
	vm_user(vm);
	vm_run(vm);
	vm_finish(vm, "#14:7", 0);

	vm = vm_start(mode, LONG64, load_um); /* and where it may */
	vm_user(vm);
	vm_run(vm);
	vm_finish(vm, "R4@d0080010", 1);
}

#define EFL_AC_ 0x40000

static void C08(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, load_um);

	add_cr4(vm, CR4_SMAP_);
	vm_run(vm);
	cr2_is(vm, 0x40020010);
	vm_finish(vm, "#14:1", 0);

	vm = vm_start(mode, LONG64, load_um);
	add_cr4(vm, CR4_SMAP_);
	add_rflags(vm, EFL_AC_);
	vm_run(vm);
	vm_finish(vm, "R4@d0080010", 1);
}

/* The page has key 1, which may not be written: WRPKRU, then the access. */
#define NO_WRITE "xor %ecx, %ecx; xor %edx, %edx; mov $8, %eax; wrpkru;"
PROGRAM(c09_store, 64, NO_WRITE "mov %eax, " UM "+0x10\n" STOP);
PROGRAM(c09_add, 64, NO_WRITE "add %eax, " UM "+0x10\n" STOP);
PROGRAM(c09_load, 64, NO_WRITE "mov " UM "+0x10, %eax\n" STOP);

static void pkru(enum gpa_mode mode, const uint8_t *code, size_t n, bool user, const char *events,
	uint64_t off)
{
	struct vm *vm = vm_open(mode, LONG64, false);

	vm_load_code(vm, code, n);
	add_cr4(vm, CR4_PKE_);
	*vm_pte(vm, 0x40020000) |= 1ul << 59;
	if (user)
		vm_user(vm);
	vm_run(vm);
	if (!off)
		cr2_is(vm, 0x40020010);
	vm_finish(vm, events, off);
}

static void C09(enum gpa_mode mode)
{
	pkru(mode, c09_store_code, c09_store_end - c09_store_code, false, "#14:23", 0);
	pkru(mode, c09_store_code, c09_store_end - c09_store_code, true, "#14:27", 0);
	pkru(mode, c09_add_code, c09_add_end - c09_add_code, true, "#14:27", 0);
	pkru(mode, c09_load_code, c09_load_end - c09_load_code, true, "R4@d0080010", 1);
}

/*
 * The page table itself is MMIO. KVM would take its PTE's GPA, which has the operand's page
 * offset, for the operand's.
 */
PROGRAM(c10_load, 64, "mov 0x40802010, %eax\n" STOP);
PROGRAM(c10_store, 64, "mov %eax, 0x40802010\n" STOP);

static void table_in_mmio(enum gpa_mode mode, const uint8_t *code, size_t n, const char *events)
{
	struct vm *vm = vm_open(mode, LONG64, false);

	vm_load_code(vm, code, n);
	*(uint64_t *)(vm->m.ram + PD_HIGH + 4 * 8) = G_M1 | 7;
	vm_run(vm);
	cr2_is(vm, 0x40802010);
	not_emulated(vm);
	vm_finish(vm, events, 0);
}

static void C10(enum gpa_mode mode)
{
	table_in_mmio(mode, c10_load_code, c10_load_end - c10_load_code, "#14:0");
	table_in_mmio(mode, c10_store_code, c10_store_end - c10_store_code, "#14:2");
}

/* A page table in read-only memory: A and D stay as they are, nobody exits for them. */
static void table_in_rom(enum gpa_mode mode, const uint8_t *code, size_t n, const char *events)
{
	struct vm *vm = vm_open(mode, LONG64, false);
	uint64_t *pte = (uint64_t *)(vm->rom + 2 * 8);

	vm_load_code(vm, code, n);
	*(uint64_t *)(vm->m.ram + PD_HIGH + 4 * 8) = G_ROM | 7;
	*pte = G_M | 3;
	vm_run(vm);
	CHECK(vm, "PTE", *pte, G_M | 3);
	vm_finish(vm, events, 1);
}

static void C11(enum gpa_mode mode)
{
	table_in_rom(mode, c10_load_code, c10_load_end - c10_load_code, "R4@d0000010");
	table_in_rom(mode, c10_store_code, c10_store_end - c10_store_code, "W4@d0000010");
}

PROGRAM(c12, 64, "mov $" M "+0x10, %eax; jmp *%rax");

static void C12(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c12);
	struct kvm_run *run = vm->m.run;

	vm_run(vm);
	CHECK(vm, "rip", regs_of(&vm->m).rip, 0x40001010);
	CHECK(vm, "ndata", run->emulation_failure.ndata, 6);
	CHECK(vm, "flags", run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES, 0);
	vm_finish(vm, "ERROR1", 0);
}

/* ---- INS proves its destination before it touches the port (rule 14) */

PROGRAM(c35, 64, "mov $" RN "+0x1000, %edi; insb\n" STOP);

static void C35(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c35);

	vm_run(vm);
	cr2_is(vm, 0x4001e000);
	CHECK(vm, "port exits", vm_stat(vm, "io_exits"), 1); /* the STOP */
	vm_finish(vm, "#14:2", 0);
}

PROGRAM(c36, 64, "mov $" RN "+0xff0, %edi; mov $0x20, %ecx; rep insb\n" STOP);

static void C36(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c36);
	struct kvm_regs r;

	vm_run(vm);
	r = regs_of(&vm->m);
	cr2_is(vm, 0x4001e000);
	CHECK(vm, "rcx", r.rcx, 0x10);
	CHECK(vm, "rdi", r.rdi, 0x4001e000);
	for (unsigned int k = 0; k < 16; k++)
		CHECK(vm, "byte", *vm_at(vm, 0x4001dff0 + k), seed_pattern(k));
	vm_finish(vm, "IN1x16 #14:2", 1);
}

PROGRAM(c37, 64, "mov $" R "+0x103, %edi; mov $4, %ecx; std; rep insb; cld\n" STOP);

static void C37(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c37);

	vm_run(vm);
	CHECK(vm, "rdi", regs_of(&vm->m).rdi, 0x400100ff);
	for (unsigned int k = 0; k < 4; k++)
		CHECK(vm, "byte", *vm_at(vm, 0x40010103 - k), seed_pattern(k));
	vm_finish(vm, "IN1x4", 1);
}

PROGRAM(c38, 64, "mov $" RN "+0x1000, %edi; xor %ecx, %ecx; rep stosb; mov $" M ", %edi; rep stosl;"
	"mov $0xd0000000, %edi; mov $0x3f8, %edx; rep insb\n" STOP);

static void C38(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c38);

	vm_run(vm);
	CHECK(vm, "rcx", regs_of(&vm->m).rcx, 0);
	CHECK(vm, "rdi", regs_of(&vm->m).rdi, 0xd0000000);
	vm_finish(vm, "", 0);
}

/* ---- PUSHA whose fifth push leaves the stack segment: four have been made (rule 17) */

PROGRAM(c34, 32, "pushal\n" STOP);

static void user_stack(struct vm *vm, uint64_t base, uint32_t limit, uint64_t esp)
{
	struct kvm_sregs s;
	struct kvm_regs r;

	vm_user(vm);
	s = sregs_of(&vm->m);
	s.ss.base = base;
	s.ss.limit = limit;
	s.ss.g = 0;
	set_sregs(&vm->m, &s);
	r = regs_of(&vm->m);
	r.rsp = esp;
	set_regs(&vm->m, &r);
}

static void C34(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, PAE, c34);
	struct kvm_regs r;
	uint32_t esp;

	user_stack(vm, 0x40020000, 0xfff, 0x10);
	vm_run(vm);
	r = regs_of(&vm->m); /* the frame on the inner stack: error, EIP, CS, EFLAGS, ESP, SS */
	memcpy(&esp, vm->m.ram + r.rsp + 16, 4);
	CHECK(vm, "esp", esp, 0x10);
	vm_finish(vm, "W4@d008000c W4@d0080008 W4@d0080004 W4@d0080000 #12:0", 4);

	/* all eight, where there is room */
	vm = vm_start(mode, PAE, c34);
	user_stack(vm, 0x40020000, 0xfff, 0x20);
	vm_run(vm);
	CHECK(vm, "esp", regs_of(&vm->m).rsp, 0);
	vm_expect(vm, "W4@d008001c W4@d0080018 W4@d0080014 W4@d0080010 W4@d008000c W4@d0080008 "
		"W4@d0080004 W4@d0080000");
	vm_finish(vm, "", 8);
}

#define TESTS(T)                                                                         \
	T(C04) T(C05) T(C06) T(C07) T(C08) T(C09) T(C10) T(C11) T(C12) T(C34) T(C35) T(C36) \
	T(C37) T(C38)
SEED_MAIN(TESTS)
