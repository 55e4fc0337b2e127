// SPDX-License-Identifier: MIT
/* C cases of KVM_RUN's contract: completion, immediate_exit, registers, slots, threads (SEED 7.2). */
#include "vmguest.h"

#include <pthread.h>

/* ---- immediate_exit: the operation is finished first, no further instruction runs */

static void run_immediately(struct vm *vm)
{
	vm->m.run->immediate_exit = 1;
	vm_step(vm);
	vm->m.run->immediate_exit = 0;
}

PROGRAM(c01, 64, "mov " M "+0x10, %eax\n c01_next: inc %ebx\n" STOP);

static void C01(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c01);
	uint64_t rbx = regs_of(&vm->m).rbx;

	vm_step(vm);
	CHECK(vm, "rip at the exit", regs_of(&vm->m).rip, CODE);
	vm_answer(vm);
	run_immediately(vm);
	vm_expect(vm, "R4@d0000010 EINTR");
	CHECK(vm, "rax", regs_of(&vm->m).rax, (uint32_t)vm_peek(vm, 0x40001010));
	CHECK(vm, "rip", regs_of(&vm->m).rip, AT(c01, c01_next));
	CHECK(vm, "rbx", regs_of(&vm->m).rbx, rbx);
	vm_run(vm);
	CHECK(vm, "rbx", regs_of(&vm->m).rbx, (uint32_t)rbx + 1);
	vm_finish(vm, "", 1);
}

PROGRAM(c02, 64, "mov %eax, " M "+0xffd\n c02_next: inc %ebx\n" STOP);

static void C02(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c02);
	uint64_t rbx = regs_of(&vm->m).rbx;

	vm_step(vm);
	vm_answer(vm);
	CHECK(vm, "rip at the last write's first piece", regs_of(&vm->m).rip, AT(c02, c02_next));
	run_immediately(vm);
	vm_answer(vm);
	vm_expect(vm, "W3@d0000ffd W1@d0010000");
	run_immediately(vm);
	vm_expect(vm, "EINTR");
	CHECK(vm, "rbx", regs_of(&vm->m).rbx, rbx);
	vm_run(vm);
	vm_finish(vm, "", 2);
}

PROGRAM(t05, 64, "add %eax, " M "+0x20\n t05_next: inc %ebx\n" STOP);

static void C03(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, t05);
	uint64_t rbx = regs_of(&vm->m).rbx;

	vm_step(vm);
	vm_answer(vm);
	run_immediately(vm);
	vm_answer(vm);
	vm_expect(vm, "R4@d0000020 W4@d0000020");
	run_immediately(vm);
	vm_expect(vm, "EINTR");
	CHECK(vm, "rip", regs_of(&vm->m).rip, AT(t05, t05_next));
	CHECK(vm, "rbx", regs_of(&vm->m).rbx, rbx);
	vm_run(vm);
	vm_finish(vm, "", 2);
}

/* ---- memory slots change while the exit is outstanding (rule 21) */

static void C18(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, t05);
	uint32_t eax = regs_of(&vm->m).rax, old = vm_peek(vm, 0x40001020);
	uint8_t *page = pages(4096);

	vm_step(vm);
	vm_answer(vm);
	set_slot(&vm->m, 5, 0, G_M, 4096, page);
	vm_run(vm);
	CHECK(vm, "RAM that came", *(uint32_t *)(page + 0x20), old + eax);
	vm_finish(vm, "R4@d0000020", 2);
	munmap(page, 4096);
}

PROGRAM(t19, 64, "add %eax, " M "+0xffe\n" STOP);

static void C19(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, t19);
	uint8_t *page = pages(4096);

	set_slot(&vm->m, 5, 0, G_M1, 4096, page);
	vm_step(vm);
	vm_answer(vm);
	set_slot(&vm->m, 5, 0, G_M1, 0, page);
	vm_run(vm);
	CHECK(vm, "RAM that went", *(uint16_t *)page, 0);
	vm_finish(vm, "R2@d0000ffe R2@d0010000 W2@d0000ffe W2@d0010000", 4);
	munmap(page, 4096);
}

/* ---- another vCPU changes the page's PTE meanwhile */

/* PTE of M to N's page, then an IPI (vector 0x40) to APIC 0 and a wait for its answer. */
PROGRAM(c20_other, 64, "movl $0xd0020003, 0x6008; movl $0x4040, " L "+0x300\n" STOP
	"1: cmpl $0, 0x100000; je 1b\n" STOP);
PROGRAM(c20, 64, "sti; add %eax, " M "+0x20; mov " M "+0x24, %ebx; cli\n" STOP);
PROGRAM(c20_ipi, 64, "invlpg " M "; movl $1, 0x100000; movl $0, " L "+0xb0; iretq");

static void start_other(struct vm *vm, struct vm *other)
{
	struct kvm_sregs s = sregs_of(&vm->m);
	struct kvm_regs r = regs_of(&vm->m);

	*other = *vm;
	other->m.vcpu = must(api->ioctl(vm->m.vm, KVM_CREATE_VCPU, 1), "CREATE_VCPU");
	other->m.run = map_run(other->m.vcpu);
	must(api->ioctl(other->m.vcpu, KVM_SET_MP_STATE,
		&(struct kvm_mp_state){KVM_MP_STATE_RUNNABLE}), "SET_MP_STATE");
	s.apic_base = sregs_of(&other->m).apic_base;
	set_sregs(&other->m, &s);
	r.rip = CODE + 0x400;
	r.rsp = 0x80000;
	set_regs(&other->m, &r);
	memcpy(vm->m.ram + CODE + 0x400, c20_other_code, c20_other_end - c20_other_code);
}

static void ipi_gate(struct vm *vm, uint64_t at)
{
	memcpy(vm->m.ram + at, c20_ipi_code, c20_ipi_end - c20_ipi_code);
	*(uint64_t *)(vm->m.ram + IDT + 16 * 0x40) =
		(at & 0xffff) | 8 << 16 | 0x8e01ul << 32 | at >> 16 << 48;
}

static void enable_apic(struct vm *vm)
{
	struct kvm_lapic_state a;
	struct kvm_sregs s = sregs_of(&vm->m);

	must(api->ioctl(vm->m.vcpu, KVM_GET_LAPIC, &a), "GET_LAPIC");
	a.regs[0xf0] = 0xff;
	a.regs[0xf1] = 1;
	must(api->ioctl(vm->m.vcpu, KVM_SET_LAPIC, &a), "SET_LAPIC");
	s.idt.limit = 256 * 16 - 1;
	set_sregs(&vm->m, &s);
}

static void C20(enum gpa_mode mode)
{
	struct vm *vm = vm_open(mode, LONG64, true), other;

	vm_load(vm, c20);
	ipi_gate(vm, 0xc000);
	enable_apic(vm);
	start_other(vm, &other);
	vm_step(vm);
	vm_answer(vm);
	vm_step(&other); /* the shoot-down has begun: PTE changed, IPI sent */
	vm_expect(&other, "");
	vm_run(vm);
	vm_step(&other);
	CHECK(vm, "answer to the IPI", *(uint32_t *)(vm->m.ram + 0x100000), 1);
	api->munmap(other.m.run, 12288);
	api->close(other.m.vcpu);
	/* ADD 2, MOV 1, the handler's EOI 1 */
	vm_finish(vm, "R4@d0000020 W4@d0000020 R4@d0020024", 4);
}

/* ---- KVM_SET_REGS while the exit is outstanding (rules 22, 27) */

PROGRAM(t02, 64, "mov " M "+0x10, %eax\n" STOP);

static void C21(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, t02);
	struct kvm_regs r;

	vm_step(vm);
	vm_answer(vm);
	r = regs_of(&vm->m);
	set_regs(&vm->m, &r);
	vm_run(vm);
	CHECK(vm, "rax", regs_of(&vm->m).rax, (uint32_t)vm_peek(vm, 0x40001010));
	vm_finish(vm, "R4@d0000010", 1);
}

PROGRAM(c22_load, 64, "mov " M "+0x10, %eax\n" STOP ".skip 32, 0xcc\n c22_load_new: inc %ebx\n" STOP);
PROGRAM(c22_in, 64, "in %dx, %eax\n" STOP ".skip 32, 0xcc\n c22_in_new: inc %ebx\n" STOP);
PROGRAM(c22_out, 64, "out %eax, %dx\n" STOP ".skip 32, 0xcc\n c22_out_new: inc %ebx\n" STOP);

static void move_rip(enum gpa_mode mode, const uint8_t *code, size_t n, uint64_t to,
	const char *events, uint64_t off)
{
	struct vm *vm = vm_open(mode, LONG64, false);
	struct kvm_regs r, before = regs_of(&vm->m);

	vm_load_code(vm, code, n);
	vm_step(vm);
	vm_answer(vm);
	r = regs_of(&vm->m);
	r.rip = to;
	set_regs(&vm->m, &r);
	vm_run(vm);
	r = regs_of(&vm->m);
	CHECK(vm, "rax", r.rax, before.rax);
	CHECK(vm, "rbx", r.rbx, (uint32_t)before.rbx + 1);
	CHECK(vm, "rip", r.rip, to + 2);
	vm_finish(vm, events, off);
}

#define MOVE_RIP(name, events, off) \
	move_rip(mode, name##_code, name##_end - name##_code, AT(name, name##_new), events, off)

static void C22(enum gpa_mode mode)
{
	MOVE_RIP(c22_load, "R4@d0000010", 1);
	MOVE_RIP(c22_in, "IN4x1", 0);
	MOVE_RIP(c22_out, "OUT4x1", 0);
}

/* KVM's userspace_io_test: RCX changed between the exit of REP INSB and its completion. */
PROGRAM(c23, 64, "mov $" R ", %edi; rep insb\n" STOP);

static void change_rcx(enum gpa_mode mode, uint64_t from, uint64_t to)
{
	struct vm *vm = vm_start(mode, LONG64, c23);
	struct kvm_regs r = regs_of(&vm->m);
	uint64_t batches = 1;
	uint8_t after;

	r.rcx = from;
	set_regs(&vm->m, &r);
	after = *vm_at(vm, 0x40010000 + (to & 0xfff));
	vm_step(vm);
	vm_answer(vm);
	r = regs_of(&vm->m);
	CHECK(vm, "rcx at the exit", r.rcx, from);
	r.rcx = to;
	set_regs(&vm->m, &r);
	while (!vm_step(vm) && !vm->ended && batches++ < 10000)
		vm_answer(vm);
	r = regs_of(&vm->m);
	CHECK(vm, "rcx", r.rcx, 0);
	CHECK(vm, "rdi", r.rdi, 0x40010000 + to);
	for (unsigned int k = 0; k < to; k++)
		CHECK(vm, "byte", *vm_at(vm, 0x40010000 + k), seed_pattern(k));
	if (to < 4096)
		CHECK(vm, "byte behind", *vm_at(vm, 0x40010000 + to), after);
	vm->events[0] = 0; /* how it is cut into batches is C36's and T47's business */
	vm_finish(vm, "", batches);
}

static void C23(enum gpa_mode mode)
{
	change_rcx(mode, 2, 1);
	change_rcx(mode, 3, 8192);
}

/* ---- nothing but data is read back from kvm_run */

static void scribble(struct vm *vm)
{
	struct kvm_run *run = vm->m.run;
	uint8_t data[8];

	memcpy(data, run->mmio.data, 8);
	if (run->exit_reason == KVM_EXIT_IO) {
		memset(&run->io, 0xff, sizeof(run->io));
	} else {
		run->mmio.phys_addr = 0x1234567890;
		run->mmio.len = 255;
		run->mmio.is_write ^= 1;
		memcpy(run->mmio.data, data, 8);
	}
	run->exit_reason = 0xdead;
	run->ready_for_interrupt_injection = 0xff;
}

PROGRAM(c24, 64, "mov " M "+0x10, %eax; add %eax, " M "+0x20; movups %xmm1, " M "+0xff8;"
	"mov $" R ", %edi; mov $10, %ecx; rep insb; in %dx, %eax; out %eax, %dx; xchg %eax, " M "\n" STOP);
#define C24_EVENTS "R4@d0000010 R4@d0000020 W4@d0000020 W8@d0000ff8 W8@d0010000 IN1x10 IN4x1 " \
	"OUT4x1 R4@d0000000 W4@d0000000"

static void C24(enum gpa_mode mode)
{
	struct vm *plain = vm_start(mode, LONG64, c24), *vm = vm_start(mode, LONG64, c24);
	struct kvm_regs a, b;

	vm_run(plain);
	vm->between = scribble;
	vm_run(vm);
	a = regs_of(&plain->m);
	b = regs_of(&vm->m);
	assert_memory_equal(&a, &b, sizeof(a));
	assert_memory_equal(plain->m.ram, vm->m.ram, RAM_SIZE);
	assert_memory_equal(plain->dev, vm->dev, DEV_SIZE);
	vm_finish(plain, C24_EVENTS, 8);
	vm_finish(vm, C24_EVENTS, 8);
}

/* ---- the second piece is completed by another thread, the first one's stack is gone */

static void *step_thread(void *vm)
{
	vm_step(vm);
	vm_answer(vm);
	return NULL;
}

static void step_on_own_stack(struct vm *vm)
{
	size_t size = 1 << 20;
	void *stack = pages(size);
	pthread_attr_t attr;
	pthread_t t;

	pthread_attr_init(&attr);
	pthread_attr_setstack(&attr, stack, size);
	assert_int_equal(pthread_create(&t, &attr, step_thread, vm), 0);
	pthread_join(t, NULL);
	memset(stack, 0xdd, size);
	munmap(stack, size);
	pthread_attr_destroy(&attr);
}

PROGRAM(c25, 64, "movups %xmm3, " M "+0xff8; add %eax, " M "+0xffe; enter $8, $0\n" STOP);

static void C25(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c25), *same = vm_start(mode, LONG64, c25);
	struct kvm_regs r = regs_of(&vm->m);

	r.rsp = 0x40002004; /* ENTER's push lies in two MMIO pages */
	set_regs(&vm->m, &r);
	set_regs(&same->m, &r);
	for (unsigned int k = 0; k < 8; k++)
		step_on_own_stack(vm);
	vm_run(vm);
	vm_run(same);
	assert_memory_equal(vm->dev, same->dev, DEV_SIZE);
#define C25_EVENTS "W8@d0000ff8 W8@d0010000 R2@d0000ffe R2@d0010000 W2@d0000ffe W2@d0010000 " \
	"W4@d0000ffc W4@d0010000"
	vm_finish(vm, C25_EVENTS, 8);
	vm_finish(same, C25_EVENTS, 8);
}

#define TESTS(T) T(C01) T(C02) T(C03) T(C18) T(C19) T(C20) T(C21) T(C22) T(C23) T(C24) T(C25)
SEED_MAIN(TESTS)
