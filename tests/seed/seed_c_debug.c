// SPDX-License-Identifier: MIT
/* C29: single steps and breakpoints over instructions that end in user space (SEED rule 29). */
#include "vmguest.h"

#define EFL_TF_ 0x100

PROGRAM(c29, 64, "mov %eax, " M "+0x10\n c29_1: mov " M "+0x10, %eax\n c29_2: add %eax, " M "+0x20\n"
	"c29_3: out %al, $0x10\n c29_4: hlt\n c29_5: nop\n c29_6:" STOP);

static void debug_of_vmm(enum gpa_mode mode)
{
	struct kvm_guest_debug d = {.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP};
	struct vm *vm = vm_start(mode, LONG64, c29);
	char want[400];

	must(api->ioctl(vm->m.vcpu, KVM_SET_GUEST_DEBUG, &d), "SET_GUEST_DEBUG");
	for (unsigned int k = 0; k < 6; k++) {
		vm_run(vm);
		CHECK(vm, "exception", vm->m.run->debug.arch.exception, 1);
		CHECK(vm, "BS", vm->m.run->debug.arch.dr6 & 0x4000, 0x4000);
	}
	vm_run(vm);
	snprintf(want, sizeof(want),
		"W4@d0000010 DEBUG@%lx R4@d0000010 DEBUG@%lx R4@d0000020 W4@d0000020 DEBUG@%lx "
		"OUT1x1 DEBUG@%lx DEBUG@%lx DEBUG@%lx",
		AT(c29, c29_1), AT(c29, c29_2), AT(c29, c29_3), AT(c29, c29_4), AT(c29, c29_5),
		AT(c29, c29_6));
	vm_finish(vm, want, 4);
}

/* The handler of #DB notes where it came from, at R15. */
PROGRAM(c29_handler, 64, "mov (%rsp), %r14; mov %r14, (%r15); add $8, %r15; iretq");

static void trap_flag(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c29);
	const uint64_t want[] = {AT(c29, c29_1), AT(c29, c29_2), AT(c29, c29_3), AT(c29, c29_4),
		AT(c29, c29_5), AT(c29, c29_6)};
	struct kvm_regs r = regs_of(&vm->m);

	memcpy(vm->m.ram + TRAPS + 16, c29_handler_code, c29_handler_end - c29_handler_code);
	r.rflags |= EFL_TF_;
	r.r15 = DATA;
	set_regs(&vm->m, &r);
	vm_run(vm);
	vm_expect(vm, "W4@d0000010 R4@d0000010 R4@d0000020 W4@d0000020 OUT1x1");
	CHECK(vm, "steps", (regs_of(&vm->m).r15 - DATA) / 8, 6);
	for (unsigned int k = 0; k < 6; k++)
		CHECK(vm, "step", ((uint64_t *)(vm->m.ram + DATA))[k], want[k]);
	vm_finish(vm, "", 4);
}

/* A breakpoint on data that the emulator writes, then on data that it reads. */
static void breakpoint(enum gpa_mode mode, uint64_t dr7, const char *events, uint64_t rip, uint64_t off)
{
	struct kvm_debugregs d = {.db[0] = 0x40001010, .dr7 = dr7, .dr6 = 0xffff0ff0};
	struct vm *vm = vm_start(mode, LONG64, c29);
	struct kvm_regs r;

	must(api->ioctl(vm->m.vcpu, KVM_SET_DEBUGREGS, &d), "SET_DEBUGREGS");
	vm_run(vm);
	must(api->ioctl(vm->m.vcpu, KVM_GET_DEBUGREGS, &d), "GET_DEBUGREGS");
	r = regs_of(&vm->m);
	CHECK(vm, "B0", d.dr6 & 0xf, 1);
	CHECK(vm, "rip", vm_peek(vm, r.rsp), rip);
	vm_finish(vm, events, off);
}

static void C29(enum gpa_mode mode)
{
	debug_of_vmm(mode);
	trap_flag(mode);
	breakpoint(mode, 0x000d0001, "W4@d0000010 #1", AT(c29, c29_1), 1);
	breakpoint(mode, 0x000f0001, "W4@d0000010 #1", AT(c29, c29_1), 1);
}

#define TESTS(T) T(C29)
SEED_MAIN(TESTS)
