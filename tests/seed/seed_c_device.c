// SPDX-License-Identifier: MIT
/* C cases of devices inside the library: ioeventfd, coalesced MMIO, the APIC (SEED 7.2). */
#include "vmguest.h"

#include <sys/eventfd.h>

/* ---- ioeventfd: exact address, exact length or any, datamatch (rule 23) */

struct event {
	int fd;
	struct kvm_ioeventfd arg;
};

static struct event event_open(struct vm *vm, uint64_t addr, uint32_t len, uint32_t flags, uint64_t match)
{
	struct event e = {.fd = eventfd(0, EFD_NONBLOCK)};

	e.arg = (struct kvm_ioeventfd){.addr = addr, .len = len, .flags = flags, .datamatch = match,
		.fd = e.fd};
	must(api->ioctl(vm->m.vm, KVM_IOEVENTFD, &e.arg), "IOEVENTFD");
	return e;
}

/* How often it was signalled. */
static uint64_t event_close(struct event *e)
{
	uint64_t n = 0;

	if (read(e->fd, &n, 8) != 8)
		n = 0;
	close(e->fd);
	return n;
}

static void one_event(enum gpa_mode mode, const uint8_t *code, size_t n, uint32_t len, uint32_t flags,
	uint64_t match, uint64_t signals, const char *events, uint64_t off)
{
	struct vm *vm = vm_open(mode, LONG64, false);
	struct event e = event_open(vm, G_M, len, flags, match);
	uint64_t emulated;

	vm_load_code(vm, code, n);
	vm_run(vm);
	CHECK(vm, "signals", event_close(&e), signals);
	emulated = vm_stat(vm, "insn_emulation");
	if (!len)
		CHECK(vm, "insn_emulation", emulated, 0);
	vm_finish(vm, events, off);
}

#define EVENT(name, len, flags, match, signals, events, off) \
	one_event(mode, name##_code, name##_end - name##_code, len, flags, match, signals, events, off)

PROGRAM(store1, 64, "mov %al, " M "\n" STOP);
PROGRAM(store2, 64, "mov %ax, " M "\n" STOP);
PROGRAM(store4, 64, "mov $0x1234, %eax; mov %eax, " M "\n" STOP);
PROGRAM(store8, 64, "mov %rcx, " M "\n" STOP);
PROGRAM(store16, 64, "movups %xmm1, " M "\n" STOP);
PROGRAM(store4_next, 64, "mov %eax, " M "+1\n" STOP);

static void C30(enum gpa_mode mode)
{
	EVENT(store4, 4, 0, 0, 1, "", 1);
	EVENT(store2, 4, 0, 0, 0, "W2@d0000000", 1);
	EVENT(store8, 4, 0, 0, 0, "W8@d0000000", 1);
	EVENT(store4_next, 4, 0, 0, 0, "W4@d0000001", 1);
	EVENT(store4, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, 0x1234, 1, "", 1);
	EVENT(store4, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, 0x1235, 0, "W4@d0000000", 1);
}

PROGRAM(rep_stos, 64, "mov $" M ", %edi; mov $16, %ecx; rep stosb\n" STOP);
PROGRAM(rep_movs, 64, "mov $" R ", %esi; mov $" M ", %edi; mov $4, %ecx; rep movsl\n" STOP);
PROGRAM(push_m, 64, "mov $" M "+8, %esp; push %rax\n" STOP);

/* One signal for the instruction, whatever it writes; its registers move as ever. */
static void C31(enum gpa_mode mode)
{
	EVENT(store1, 0, 0, 0, 1, "", 0);
	EVENT(store2, 0, 0, 0, 1, "", 0);
	EVENT(store4, 0, 0, 0, 1, "", 0);
	EVENT(store8, 0, 0, 0, 1, "", 0);
	EVENT(store16, 0, 0, 0, 1, "", 0);
	EVENT(rep_stos, 0, 0, 0, 1, "", 0);
	EVENT(rep_movs, 0, 0, 0, 1, "", 0);
	EVENT(push_m, 0, 0, 0, 1, "", 0);
}

/* Elsewhere than at its address it is no doorbell; a read is user space's. */
PROGRAM(c31_other, 64, "mov %eax, " M "+4; mov " M ", %ebx; mov $" M ", %esp; push %rax\n" STOP);

static void C31_other(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c31_other);
	struct event e = event_open(vm, G_M, 0, 0, 0);
	struct kvm_regs r;

	*vm_pte(vm, 0x40000000) = 0xd0090003; /* the page below M */
	vm_run(vm);
	r = regs_of(&vm->m);
	CHECK(vm, "rsp", r.rsp, 0x40000ff8);
	CHECK(vm, "signals", event_close(&e), 0);
	vm_finish(vm, "W4@d0000004 R4@d0000000 W8@d0090ff8", 3);
}

static void C32(enum gpa_mode mode)
{
	EVENT(store16, 8, 0, 0, 1, "W8@d0000008", 1);
}

/* ---- coalesced MMIO (rule 24) */

PROGRAM(c33, 64, "mov $171, %ecx; 1: mov %ecx, " M "+0x10; dec %ecx; jnz 1b\n" STOP);
PROGRAM(c33_cross, 64, "mov %eax, " M "+0xffe; mov %eax, " X "+0xffe; mov " M "+0x10, %ebx\n" STOP);

static struct kvm_coalesced_mmio_ring *zone(struct vm *vm, uint64_t gpa)
{
	struct kvm_coalesced_mmio_zone z = {.addr = gpa, .size = 4096};

	must(api->ioctl(vm->m.vm, KVM_REGISTER_COALESCED_MMIO, &z), "zone");
	return (void *)((uint8_t *)vm->m.run + 2 * 4096);
}

static void C33(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c33);
	struct kvm_coalesced_mmio_ring *ring = zone(vm, G_M);
	uint32_t value;

	vm_run(vm);
	CHECK(vm, "ring->last", ring->last, 169);
	for (unsigned int k = 0; k < 169; k++) {
		memcpy(&value, ring->coalesced_mmio[k].data, 4);
		CHECK(vm, "address", ring->coalesced_mmio[k].phys_addr, G_M + 0x10);
		CHECK(vm, "length", ring->coalesced_mmio[k].len, 4);
		CHECK(vm, "value", value, 171 - k);
	}
	CHECK(vm, "the last one's value", (uint32_t)vm_peek(vm, 0x40001010), 1);
	vm_finish(vm, "W4@d0000010*2", 171);

	vm = vm_start(mode, LONG64, c33_cross);
	ring = zone(vm, G_M);
	zone(vm, 0xd0040000);
	vm_run(vm);
	CHECK(vm, "ring->last", ring->last, 2); /* a read does not drain it */
	CHECK(vm, "address", ring->coalesced_mmio[0].phys_addr, G_M + 0xffe);
	CHECK(vm, "length", ring->coalesced_mmio[0].len, 2);
	CHECK(vm, "address", ring->coalesced_mmio[1].phys_addr, 0xd0040000);
	CHECK(vm, "length", ring->coalesced_mmio[1].len, 2);
	vm_finish(vm, "W2@d0010000 R4@d0000010", 5);
}

/* ---- an interrupt whose stack is a device (rule 31) */

PROGRAM(c42, 64, "mov $" M "+0x800, %esp\n" STOP "1: jmp 1b");

static void C42(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c42);
	struct kvm_sregs s = sregs_of(&vm->m);
	struct kvm_run *run = vm->m.run;

	s.idt.limit = 256 * 16 - 1;
	set_sregs(&vm->m, &s);
	*(uint64_t *)(vm->m.ram + IDT + 16 * 0x40) = TRAPS | 8 << 16 | 0x8e00ul << 32; /* IST 0 */
	vm_run(vm);
	must(api->ioctl(vm->m.vcpu, KVM_INTERRUPT, &(struct kvm_interrupt){0x40}), "INTERRUPT");
	vm_step(vm);
	CHECK(vm, "ndata", run->internal.ndata, 5);
	CHECK(vm, "vector", run->internal.data[0] & 0xff, 0x40);
	CHECK(vm, "gpa", run->internal.data[3], G_M + 0x7f8);
	CHECK(vm, "rsp", regs_of(&vm->m).rsp, 0x40001800);
	vm_finish(vm, "ERROR3", 0);
}

/* ---- the APIC is where IA32_APICBASE says (rule 38) */

#define MOVE_APIC "mov $0x1b, %ecx; mov $0xfec10900, %eax; xor %edx, %edx; wrmsr;"
PROGRAM(c43, 64, MOVE_APIC "mov " L "+0x30, %ebx\n" STOP);
PROGRAM(c43_new, 64, MOVE_APIC "mov " IOA "+0x30, %ebx\n" STOP);
PROGRAM(c43_before, 64, "mov " L "+0x30, %ebx\n" STOP);

static void apic_at(enum gpa_mode mode, const uint8_t *code, size_t n, uint32_t *ebx, const char *events)
{
	struct vm *vm = vm_open(mode, LONG64, true);

	vm_load_code(vm, code, n);
	*vm_pte(vm, 0x40022000) = 0xfec10003;
	vm_run(vm);
	*ebx = regs_of(&vm->m).rbx;
	vm_finish(vm, events, 1);
}

static void C43(enum gpa_mode mode)
{
	uint32_t version, moved, left;

	apic_at(mode, c43_before_code, c43_before_end - c43_before_code, &version, "");
	apic_at(mode, c43_new_code, c43_new_end - c43_new_code, &moved, "");
	apic_at(mode, c43_code, c43_end - c43_code, &left, "R4@fee00030");
	assert_int_equal(version & 0xff, 0x14);
	assert_int_equal(moved, version);
	assert_int_equal(left, 0x01010101 * 0u + (seed_pattern(0xfee00030) |
		seed_pattern(0xfee00031) << 8 | seed_pattern(0xfee00032) << 16 |
		(uint32_t)seed_pattern(0xfee00033) << 24));
}

/* ---- SMM: the other address space (rule 21) */

#define SMBASE 0x30000ul
PROGRAM(c44, 64, "mov " M "+0x20, %eax\n c44_next: mov " M "+0x24, %ebx\n" STOP);
PROGRAM(c44_smm, 16, "xor %edi, %edi; mov 0xd0000020(%edi), %eax; mov %eax, 0xd0020000(%edi);"
	"add %eax, 0xd0000ffe(%edi); rsm");

/* SMRAM, and RAM at M's address: in SMM only. */
static void smm_slots(struct vm *vm, uint8_t *smram, uint8_t *page)
{
	memcpy(smram + 0x8000, c44_smm_code, c44_smm_end - c44_smm_code);
	set_slot(&vm->m, 1 << 16, 0, SMBASE, 0x10000, smram);
	set_slot(&vm->m, 1 << 16 | 1, 0, G_M, 4096, page);
	*(uint32_t *)(page + 0x20) = 0x12345678;
	*(uint16_t *)(page + 0xffe) = 0x1111;
}

static void C44(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c44);
	uint8_t *smram = pages(0x10000), *page = pages(4096);
	uint32_t old = vm_peek(vm, 0x40001020);

	smm_slots(vm, smram, page);
	vm_step(vm); /* outside: M is a device */
	vm_expect(vm, "R4@d0000020");
	vm_answer(vm);
	must(api->ioctl(vm->m.vcpu, KVM_SMI, 0), "SMI");
	vm_step(vm); /* the load ends, the SMI is taken: N, after a load of RAM at M */
	vm_expect(vm, "W4@d0020000");
	CHECK(vm, "in SMM", vm->m.run->flags & KVM_RUN_X86_SMM, KVM_RUN_X86_SMM);
	CHECK(vm, "value", *(uint32_t *)vm->m.run->mmio.data, 0x12345678);
	vm_answer(vm);
	vm_run(vm); /* ADD: its first half is RAM in SMM; RSM; then M is a device again */
	CHECK(vm, "RAM of SMM", *(uint16_t *)(page + 0xffe), 0x1111 + 0x5678);
	CHECK(vm, "rax", regs_of(&vm->m).rax, old);
	CHECK(vm, "out of SMM", vm->m.run->flags & KVM_RUN_X86_SMM, 0);
	vm_finish(vm, "R2@d0001000 W2@d0001000 R4@d0000024", 2);
	munmap(smram, 0x10000);
	munmap(page, 4096);
}

/* User space ends SMM while the exit is outstanding: what is left goes to the other space. */
static void C44_left(enum gpa_mode mode)
{
	struct vm *vm = vm_start(mode, LONG64, c44);
	uint8_t *smram = pages(0x10000), *page = pages(4096);
	struct kvm_vcpu_events e;

	smm_slots(vm, smram, page);
	must(api->ioctl(vm->m.vcpu, KVM_SMI, 0), "SMI");
	vm_step(vm);
	vm_answer(vm);
	vm_step(vm);
	vm_answer(vm);
	vm_expect(vm, "W4@d0020000 R2@d0001000");
	e = events_of(&vm->m);
	e.flags = KVM_VCPUEVENT_VALID_SMM;
	e.smi.smm = 0;
	must(api->ioctl(vm->m.vcpu, KVM_SET_VCPU_EVENTS, &e), "SET_VCPU_EVENTS");
	vm_step(vm);
	vm_answer(vm);
	vm_step(vm);
	vm_answer(vm);
	CHECK(vm, "RAM of SMM", *(uint16_t *)(page + 0xffe), 0x1111);
	vm_finish(vm, "W2@d0000ffe W2@d0001000", 0);
	munmap(smram, 0x10000);
	munmap(page, 4096);
}

/* ---- what cannot be emulated: a descriptor table that is a device (rule 31) */

PROGRAM(c48, 64, "mov $7, %eax; mov %eax, %ds\n" STOP);

static struct vm *fail_open(enum gpa_mode mode, bool user, bool cap)
{
	struct vm *vm = vm_start(mode, LONG64, c48);
	struct kvm_sregs s;
	struct kvm_enable_cap on = {.cap = KVM_CAP_EXIT_ON_EMULATION_FAILURE, .args[0] = 1};

	if (cap)
		must(api->ioctl(vm->m.vm, KVM_ENABLE_CAP, &on), "ENABLE_CAP");
	if (user)
		vm_user(vm);
	s = sregs_of(&vm->m);
	s.ldt = (struct kvm_segment){.base = 0x40001000, .limit = 0xff, .selector = 0x28, .type = 2,
		.present = 1};
	set_sregs(&vm->m, &s);
	vm_run(vm);
	return vm;
}

static void fail_exit(enum gpa_mode mode, bool user, bool cap, const char *then)
{
	struct vm *vm = fail_open(mode, user, cap);
	struct kvm_run *run = vm->m.run;

	vm_expect(vm, "ERROR1");
	CHECK(vm, "flags", run->emulation_failure.flags, KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES);
	CHECK(vm, "ndata", run->emulation_failure.ndata, 8);
	CHECK(vm, "insn_size", run->emulation_failure.insn_size, 15);
	assert_memory_equal(run->emulation_failure.insn_bytes, "\x8e\xd8\xe6\xf1", 4);
	CHECK(vm, "rip", regs_of(&vm->m).rip, CODE + 5);
	vm_step(vm); /* re-entered as it is */
	vm_finish(vm, then, 0);
}

static void C48(enum gpa_mode mode)
{
	struct vm *vm = fail_open(mode, true, false);

	vm_finish(vm, "#6", 0);
	fail_exit(mode, false, false, "#6");
	fail_exit(mode, false, true, "ERROR1");
	fail_exit(mode, true, true, "ERROR1");
}

#define TESTS(T) \
	T(C30) T(C31) T(C31_other) T(C32) T(C33) T(C42) T(C43) T(C44) T(C44_left) T(C48)
SEED_MAIN(TESTS)
