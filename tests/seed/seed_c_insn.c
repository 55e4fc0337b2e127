// SPDX-License-Identifier: MIT
/* C cases of instructions with unusual operands (SEED 7.2). */
#include "vmguest.h"

static void set_rsp(struct vm *vm, uint64_t rsp)
{
	struct kvm_regs r = regs_of(&vm->m);

	r.rsp = rsp;
	set_regs(&vm->m, &r);
}

/* ---- ENTER whose push crosses pages of different kinds (kvm-unit-tests 20693e43) */

PROGRAM(c26, 64, "enter $8, $0\n" STOP);

static void enter(enum gpa_mode mode, uint64_t rsp, const char *events)
{
	struct vm *vm = vm_start(mode, LONG64, c26);
	uint64_t rbp = regs_of(&vm->m).rbp;
	struct kvm_regs r;

	set_rsp(vm, rsp);
	vm_run(vm);
	r = regs_of(&vm->m);
	CHECK(vm, "pushed", vm_peek(vm, rsp - 8), rbp);
	CHECK(vm, "rbp", r.rbp, rsp - 8);
	CHECK(vm, "rsp", r.rsp, rsp - 16);
	vm_finish(vm, events, 2);
}

static void C26(enum gpa_mode mode)
{
	enter(mode, 0x40002004, "W4@d0000ffc W4@d0010000"); /* MMIO, MMIO */
	enter(mode, 0x4000a004, "W4@d0040000");		    /* RAM, MMIO */
	enter(mode, 0x40008004, "W4@d0030ffc");		    /* MMIO, RAM */
}

/* ---- CALL through memory whose push has the operand's page offset (KVM list, 13 Jul 2023) */

PROGRAM(c27, 64, "mov $" S "+0x1000, %esp; call *" M "+0xff8; inc %ebx\n" STOP "c27_fn: ret");

/* dirty: the device's page has been written before, so the wrong page would take the push. */
static void collision(enum gpa_mode mode, bool dirty)
{
	struct vm *vm = vm_start(mode, LONG64, c27);
	uint64_t rbx = regs_of(&vm->m).rbx, fn = AT(c27, c27_fn);

	if (dirty)
		*vm_pte(vm, 0x40001000) |= 0x60;
	vm_poke(vm, 0x40001ff8, fn);
	vm_run(vm);
	CHECK(vm, "operand", vm_peek(vm, 0x40001ff8), fn);
	CHECK(vm, "rbx", regs_of(&vm->m).rbx, (uint32_t)rbx + 1);
	CHECK(vm, "rsp", regs_of(&vm->m).rsp, 0x4000d000);
	vm_finish(vm, "R8@d0000ff8", 2);
}

static void C27(enum gpa_mode mode)
{
	collision(mode, false);
	collision(mode, true);
}

PROGRAM(c28, 64, "mov $" S "+0x1000, %esp; .byte 0x48; lcall *" M "+0xff0\n c28_back: inc %ebx\n" STOP
	"c28_fn: lretq");

/* The stack's page is clean: it becomes dirty by the pushes, not by their proof (C14). */
static struct vm *call_far(enum gpa_mode mode, uint16_t sel)
{
	struct vm *vm = vm_start(mode, LONG64, c28);

	vm_poke(vm, 0x40001ff0, AT(c28, c28_fn));
	vm_poke(vm, 0x40001ff8, sel);
	*vm_pte(vm, 0x4000c000) &= ~0x60ul;
	return vm;
}

static void bad_selector(enum gpa_mode mode)
{
	struct vm *vm = call_far(mode, 0x1230);

	vm_run(vm);
	CHECK(vm, "A, D of the stack", *vm_pte(vm, 0x4000c000) & 0x60, 0);
	vm_finish(vm, "R8@d0000ff0 R2@d0000ff8 #13:1230", 1);
}

static void move_stack(struct vm *vm)
{
	*vm_pte(vm, 0x4000c000) = *vm_pte(vm, 0x40009000);
}

/*
 * Another processor gives the stack another page while the pointer is on its way: no byte is pushed
 * to a page that nobody would find dirty. The proof is void, the pushes are proved anew: one walk.
 */
static void moved_stack(enum gpa_mode mode)
{
	struct vm *vm = call_far(mode, 8);

	vm->between = move_stack;
	vm_run(vm);
	CHECK(vm, "pushed CS", vm_peek(vm, 0x40009ff8), 8);
	CHECK(vm, "walks", vm_stat(vm, "emul_walk_data"), mode == OFF ? 3 : 1);
	vm_end(vm, "R8@d0000ff0 R2@d0000ff8");
}

static void C28(enum gpa_mode mode)
{
	struct vm *vm = call_far(mode, 8);
	uint64_t rbx = regs_of(&vm->m).rbx, fn = AT(c28, c28_fn);

	vm_run(vm);
	CHECK(vm, "A, D of the stack", *vm_pte(vm, 0x4000c000) & 0x60, 0x60);
	CHECK(vm, "operand", vm_peek(vm, 0x40001ff0), fn);
	CHECK(vm, "pushed CS", vm_peek(vm, 0x4000cff8), 8);
	CHECK(vm, "pushed RIP", vm_peek(vm, 0x4000cff0), AT(c28, c28_back));
	CHECK(vm, "rbx", regs_of(&vm->m).rbx, (uint32_t)rbx + 1);
	vm_finish(vm, "R8@d0000ff0 R2@d0000ff8", 3);
	bad_selector(mode);
	moved_stack(mode);
}

/* ---- descriptor table registers (rule 32) */

PROGRAM(c39, 64, "sgdt " M "+0x10; sidt " M "+0x20; lgdt " M "+0x30; lidt " M "+0x40\n" STOP);

static void C39(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c39);
	struct kvm_sregs s = sregs_of(&vm->m);

	vm_poke(vm, 0x40001030, 0x57 | 0x7000 << 16);
	vm_poke(vm, 0x40001038, 0);
	vm_poke(vm, 0x40001040, 0x1f7 | 0x8000ul << 16);
	vm_poke(vm, 0x40001048, 0);
	vm_run(vm);
	CHECK(vm, "sgdt", vm_peek(vm, 0x40001010), s.gdt.limit | s.gdt.base << 16);
	CHECK(vm, "sidt", vm_peek(vm, 0x40001020), s.idt.limit | s.idt.base << 16);
	s = sregs_of(&vm->m);
	CHECK(vm, "lgdt limit", s.gdt.limit, 0x57);
	CHECK(vm, "lgdt base", s.gdt.base, 0x7000);
	CHECK(vm, "lidt limit", s.idt.limit, 0x1f7);
	CHECK(vm, "lidt base", s.idt.base, 0x8000);
	vm_finish(vm, "W8@d0000010 W2@d0000018 W8@d0000020 W2@d0000028 "
		"R8@d0000030 R2@d0000038 R8@d0000040 R2@d0000048", 4);
}

/* ---- the same instruction with its operand in RAM must do the same */

struct twin {
	struct vm *mmio, *ram;
};

/* Operands are relative to RBX: two MMIO pages, or two pages of RAM with the same bytes. */
static struct twin twin_run(enum gpa_mode mode, const uint8_t *code, size_t n)
{
	struct twin t = {vm_open(mode, LONG64, false), vm_open(mode, LONG64, false)};
	struct kvm_regs r = regs_of(&t.mmio->m);

	memset(vm_at(t.mmio, 0x40001600), 0, 64); /* XSAVE's header */
	memcpy(vm_at(t.ram, 0x40010000), vm_at(t.mmio, 0x40001000), 4096);
	memcpy(vm_at(t.ram, 0x40011000), vm_at(t.mmio, 0x40002000), 4096);
	vm_load_code(t.mmio, code, n);
	vm_load_code(t.ram, code, n);
	r.rbx = 0x40001000;
	set_regs(&t.mmio->m, &r);
	r.rbx = 0x40010000;
	set_regs(&t.ram->m, &r);
	vm_run(t.mmio);
	vm_run(t.ram);
	return t;
}

static void twin_finish(const struct twin *t, const char *events, uint64_t off)
{
	struct kvm_regs a = regs_of(&t->mmio->m), b = regs_of(&t->ram->m);
	struct kvm_xsave x, y;

	b.rbx = a.rbx;
	assert_memory_equal(&a, &b, sizeof(a));
	must(api->ioctl(t->mmio->m.vcpu, KVM_GET_XSAVE, &x), "GET_XSAVE");
	must(api->ioctl(t->ram->m.vcpu, KVM_GET_XSAVE, &y), "GET_XSAVE");
	memset((uint8_t *)&x + 16, 0, 8); /* FDP: where the operand was */
	memset((uint8_t *)&y + 16, 0, 8);
	assert_memory_equal(&x, &y, sizeof(x));
	assert_memory_equal(vm_at(t->mmio, 0x40001000), vm_at(t->ram, 0x40010000), 4096);
	assert_memory_equal(vm_at(t->mmio, 0x40002000), vm_at(t->ram, 0x40011000), 4096);
	vm_finish(t->ram, "", 0);
	vm_finish(t->mmio, events, off);
}

#define TWIN(name, events, off)                                                         \
	do {                                                                            \
		struct twin t_ = twin_run(mode, name##_code, name##_end - name##_code); \
		twin_finish(&t_, events, off);                                          \
	} while (0)

PROGRAM(c40_fld, 64, "fninit; flds (%rbx); fldl 8(%rbx); fldt 16(%rbx)\n" STOP);
PROGRAM(c40_fst, 64, "fninit; fldpi; fsts 0x40(%rbx); fstl 0x48(%rbx); fstpt 0x50(%rbx)\n" STOP);
PROGRAM(c40_movsd, 64, "movsd 8(%rbx), %xmm1; movsd %xmm1, 0x18(%rbx); movss %xmm2, 0x20(%rbx);"
	"movd 0x30(%rbx), %xmm4\n" STOP);
PROGRAM(c40_fxsave, 64, "fninit; fxsave64 0x200(%rbx)\n" STOP);
PROGRAM(c40_fxrstor, 64, "fninit; fldpi; fxsave64 0x400(%rbx); vzeroall; fninit; fxrstor64 0x400(%rbx)\n" STOP);
PROGRAM(c40_xsave, 64, "fninit; mov $7, %eax; xor %edx, %edx; xsave64 0x400(%rbx); vzeroall;"
	"xrstor64 0x400(%rbx)\n" STOP);
/* eight elements, VEX, over both pages, in the order of their index */
PROGRAM(c40_gather, 64, "vmovdqu 0x10080, %ymm1; vpcmpeqd %ymm2, %ymm2, %ymm2;"
	"vgatherdps %ymm2, (%rbx,%ymm1,1), %ymm0\n" STOP ".org 77b + 0x80\n"
	".long 0x10, 0x1010, 0x20, 0x1ffc, 0, 0xffc, 0x40, 0x1000\n");

static void C40(enum gpa_mode mode)
{
	TWIN(c40_fld, "R4@d0000000 R8@d0000008 R8@d0000010 R2@d0000018", 3);
	TWIN(c40_fst, "W4@d0000040 W8@d0000048 W8@d0000050 W2@d0000058", 3);
	TWIN(c40_movsd, "R8@d0000008 W8@d0000018 W4@d0000020 R4@d0000030", 4);
	/* bytes 416..511 of the image are not written (SDM 1 10.5.1) */
	TWIN(c40_fxsave, "W8@d0000200+52", 1);
	TWIN(c40_fxrstor, "W8@d0000400+52 R8@d0000400+64", 2);
	/* the header's XSTATE_BV, x87, MXCSR, XMM, YMM, XSTATE_BV; then XRSTOR: header, area */
	TWIN(c40_xsave, "R8@d0000600 W8@d0000400+3 W8@d0000420+16 W8@d0000418 W8@d00004a0+32 "
		"W8@d0000640+32 W8@d0000600 R8@d0000600+8 R8@d0000400+104", 9);
	TWIN(c40_gather, "R4@d0000010 R4@d0010010 R4@d0000020 R4@d0010ffc R4@d0000000 R4@d0000ffc "
		"R4@d0000040 R4@d0010000", 8);
}

/* ---- bit counts: KVM's tables have no prefix for them */

PROGRAM(c41_lzcnt, 64, "lzcnt 0x10(%rbx), %eax\n" STOP);
PROGRAM(c41_tzcnt, 64, "tzcnt 0x10(%rbx), %eax\n" STOP);
PROGRAM(c41_popcnt, 64, "popcnt 0x10(%rbx), %rax\n" STOP);

static void C41(enum gpa_mode mode)
{
	TWIN(c41_lzcnt, "R4@d0000010", 1);
	TWIN(c41_tzcnt, "R4@d0000010", 1);
	TWIN(c41_popcnt, "R8@d0000010", 1);
}

/* ---- a compare that fails writes the old value (SDM 2A CMPXCHG8B) */

PROGRAM(c46_8b, 64, "xor %eax, %eax; xor %edx, %edx; cmpxchg8b 0x20(%rbx)\n" STOP);
PROGRAM(c46_16b, 64, "xor %eax, %eax; xor %edx, %edx; cmpxchg16b 0x20(%rbx)\n" STOP);

static void C46(enum gpa_mode mode)
{
	TWIN(c46_8b, "R8@d0000020 W8@d0000020", 2);
	TWIN(c46_16b, "R8@d0000020 R8@d0000028 W8@d0000020 W8@d0000028", 2);
}

/* ---- a bit offset that leads to the next page */

PROGRAM(c47, 64, "mov $8*4096+3, %eax; bts %rax, (%rbx)\n" STOP);

static void C47(enum gpa_mode mode)
{
	TWIN(c47, "R8@d0010000 W8@d0010000", 2);
}

#define TESTS(T) T(C26) T(C27) T(C28) T(C39) T(C40) T(C41) T(C46) T(C47)
SEED_MAIN(TESTS)
