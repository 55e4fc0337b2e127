// SPDX-License-Identifier: MIT
/* Items 74 to 78: ports, MMIO, coalesced writes, interrupt chips. */
#include "modes.h"

#include <sys/eventfd.h>

#define PAGE_SIZE 4096 /* for KVM_COALESCED_MMIO_MAX */

static void set_rip(struct machine *m, uint64_t rip)
{
	struct kvm_regs r = regs_of(m);

	r.rip = rip;
	must(api->ioctl(m->vcpu, KVM_SET_REGS, &r), "SET_REGS");
}

/* ---- 74: ports */

CODE_TEXT(outs_many, 64, "cld; mov $5000, %ecx; mov $0x200000, %esi; mov $0x10, %edx; rep outsl; hlt")
CODE_TEXT(ins_many, 64, "cld; mov $5000, %ecx; mov $0x200002, %edi; mov $0x10, %edx; rep insw; hlt")
CODE_TEXT(port_wrap, 64, "mov $0xffff, %edx; in %dx, %eax; out %eax, %dx; hlt")
CODE_TEXT(ins_back, 64, "std; mov $100, %ecx; mov $0x200064, %edi; mov $0x10, %edx; rep insl; hlt")

static void string_io(const char *what, const void *code, size_t n, unsigned int bytes)
{
	struct machine m;
	unsigned int sum = 0;

	mode_open(&m, LONG, code, n);
	while (run_for(&m, 200) == 0 && m.run->exit_reason == KVM_EXIT_IO) {
		uint32_t len = m.run->io.size * m.run->io.count;

		CHECK_EQ("size", m.run->io.size == 1 || m.run->io.size == 2 || m.run->io.size == 4, 1);
		CHECK_EQ("it fits into the page", len <= 4096, 1);
		CHECK_EQ("offset", m.run->io.data_offset, 4096);
		memset(io_data(&m), 0x5a, len);
		sum += len;
		/* none of these is an input */
		m.run->io.count = ~0u;
		m.run->io.size = 3;
		m.run->io.data_offset = ~0ull;
		m.run->io.direction ^= 1;
		m.run->io.port ^= 0x55;
		if (failed)
			break;
	}
	check(m.run->exit_reason == KVM_EXIT_HLT, what, m.run->exit_reason, KVM_EXIT_HLT);
	check(sum == bytes, what, sum, bytes);
	machine_close(&m);
}

static void h74_port_io(void)
{
	struct machine m;

	string_io("REP OUTSD", TEXT_OF(outs_many), 20000);
	string_io("REP INSW", TEXT_OF(ins_many), 10000);
	string_io("REP INSD backwards", TEXT_OF(ins_back), 400);
	mode_open(&m, LONG, TEXT_OF(port_wrap));
	RUN_TO(&m, "IN of 4 at 0xffff", KVM_EXIT_IO);
	CHECK_EQ("port", m.run->io.port, 0xffff);
	CHECK_EQ("size", m.run->io.size, 4);
	RUN_TO(&m, "OUT of 4 at 0xffff", KVM_EXIT_IO);
	RUN_TO(&m, "end", KVM_EXIT_HLT);
	machine_close(&m);
}

/* ---- 75, 76: MMIO */

CODE_TEXT(mmio_sizes, 64,
	"mov %al, 0x20000000; mov %ax, 0x20000001; mov %eax, 0x20000003; mov %rax, 0x20000007;"
	"movups %xmm0, 0x20000ff9; fxsave64 0x20002000; fxrstor64 0x20002000; movq %xmm0, 0x20000005; hlt")
CODE_TEXT(mmio_read, 64, "mov 0x20000000, %rax; mov 0x20000008, %rbx; hlt")

static void h75_mmio_fragments(void)
{
	struct machine m;
	struct kvm_regs r;
	int exits = 0;

	mode_open(&m, LONG, TEXT_OF(mmio_sizes));
	while (run_for(&m, 200) == 0 && m.run->exit_reason == KVM_EXIT_MMIO && exits < 1000) {
		CHECK_EQ("1 to 8 bytes", m.run->mmio.len >= 1 && m.run->mmio.len <= 8, 1);
		CHECK_EQ("inside a page", (m.run->mmio.phys_addr & 4095) + m.run->mmio.len <= 4096, 1);
		memset(m.run->mmio.data, 0, 8);
		m.run->mmio.len = 200; /* no input */
		m.run->mmio.is_write ^= 1;
		exits++;
	}
	check(exits > 100, "fragments", exits, 100);
	machine_close(&m);

	/* Registers are set while an exit is outstanding; the read is dropped, not misplaced. */
	mode_open(&m, LONG, TEXT_OF(mmio_read));
	RUN_TO(&m, "read", KVM_EXIT_MMIO);
	memset(m.run->mmio.data, 0x11, 8);
	set_rip(&m, TEXT + 8);
	RUN_TO(&m, "the second instruction", KVM_EXIT_MMIO);
	CHECK_EQ("gpa", m.run->mmio.phys_addr, 0x20000008);
	CHECK_EQ("RAX was not loaded", regs_of(&m).rax, 0);
	/* State taken and given back between exit and completion. */
	r = regs_of(&m);
	must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
	memset(m.run->mmio.data, 0x22, 8);
	RUN_TO(&m, "end", KVM_EXIT_HLT);
	CHECK_EQ("RBX", regs_of(&m).rbx, 0x2222222222222222);
	machine_close(&m);

	/* Never completed: the vCPU is destroyed with the exit outstanding. */
	mode_open(&m, LONG, TEXT_OF(mmio_read));
	RUN_TO(&m, "read", KVM_EXIT_MMIO);
	machine_close(&m);
}

static void h76_address_changed_by_vmm(void)
{
	struct machine m;

	mode_open(&m, LONG, TEXT_OF(mmio_read));
	RUN_TO(&m, "read", KVM_EXIT_MMIO);
	m.run->mmio.phys_addr = TEXT;
	m.run->exit_reason = 99;
	memset(m.run->mmio.data, 0x33, 8);
	RUN_TO(&m, "next", KVM_EXIT_MMIO);
	CHECK_EQ("the access was the one that began", regs_of(&m).rax, 0x3333333333333333);
	CHECK_EQ("gpa", m.run->mmio.phys_addr, 0x20000008);
	machine_close(&m);
}

CODE_TEXT(ring_fill, 64, "mov $1000, %ecx; 1: mov %ecx, 0x20000000; dec %ecx; jnz 1b; hlt")

static void h77_coalesced_ring(void)
{
	static const uint32_t wild[] = {170, 171, 4096, 0x7fffffff, 0x80000000, 0xffffffff};
	struct kvm_coalesced_mmio_zone z = {.addr = 0x20000000, .size = 0x1000};
	struct kvm_coalesced_mmio_ring *ring;
	struct machine m;
	uint32_t before;

	mode_open(&m, LONG, TEXT_OF(ring_fill));
	ring = (void *)((uint8_t *)m.run + 8192);
	CHECK_EQ("zone", iop(m.vm, KVM_REGISTER_COALESCED_MMIO, &z), 0);
	RUN_TO(&m, "full", KVM_EXIT_MMIO);
	before = ring->last;
	CHECK_EQ("169 fit", before, KVM_COALESCED_MMIO_MAX - 1);
	for (size_t k = 0; k < COUNT(wild); k++) {
		ring->first = wild[k] % 2 ? wild[k] : 0;
		ring->last = wild[k];
		CHECK_EQ("KVM_RUN", run_for(&m, 100), 0);
		CHECK_EQ("it goes to user space", m.run->exit_reason, KVM_EXIT_MMIO);
		CHECK_EQ("the index is as we left it", ring->last, wild[k]);
	}
	ring->first = ring->last = 0;
	RUN_TO(&m, "a ring again", KVM_EXIT_MMIO);
	CHECK_EQ("used", ring->last, KVM_COALESCED_MMIO_MAX - 1);
	machine_close(&m);
	check_neighbour();
}

/* ---- 78: interrupt chips */

CODE_TEXT(apic_wild, 64,
	"mov $0xfee00000, %ebx; mov $0xfec00000, %ebp;"
	"movl $0x1ff, 0xf0(%rbx);"		   /* enable */
	"movl $0, 0x3e0(%rbx); movl $0x20040, 0x320(%rbx); movl $1, 0x380(%rbx);" /* 1 tick, periodic */
	"movl $0xffffffff, 0x3e0(%rbx); movl $0, 0x380(%rbx); movl $1, 0x380(%rbx);"
	"movl $0xff000000, 0x310(%rbx); movl $0x4041, 0x300(%rbx);" /* IPI to everyone */
	"movl $0xc4500, 0x300(%rbx); movl $0xc46ff, 0x300(%rbx); movl $0x40400, 0x300(%rbx);" /* INIT, SIPI, NMI self */
	"movl $0x4000, 0x300(%rbx); mov $1000, %ecx; 1: movl $0, 0xb0(%rbx); loop 1b;" /* vector 0; EOIs */
	"xor %ecx, %ecx; 2: mov %ecx, 0x20(%rbx,%rcx); mov 0x20(%rbx,%rcx), %eax; add $0x10, %ecx; cmp $0xfc0, %ecx; jb 2b;"
	"movl $0x10, (%rbp); movl $0xa030, 0x10(%rbp); movl $0x11, (%rbp); movl $0xff000000, 0x10(%rbp);"
	"mov $64, %ecx; 3: mov %ecx, (%rbp); movl $0xffffffff, 0x10(%rbp); mov 0x10(%rbp), %eax; loop 3b;"
	"mov $0x34, %al; out %al, $0x43; xor %eax, %eax; out %al, $0x40; out %al, $0x40;" /* count 0 */
	"mov $0x30, %al; out %al, $0x43; mov $1, %al; out %al, $0x40;"
	"mov $0xff, %al; out %al, $0x43; in $0x40, %al; out %al, $0x20; out %al, $0x21; out %al, $0xa0; "
	"out %al, $0xf4; hlt")

static void h78_interrupt_chips(void)
{
	struct kvm_irq_level line = {{0}, 1};
	struct kvm_lapic_state lapic;
	struct machine m;

	open_chips(&m, TEXT_OF(apic_wild));
	CHECK_EQ("KVM_RUN", run_for(&m, 100) <= 0, 1);
	machine_close(&m);

	/* Every pin to itself, level, all ones; lines go up and down from outside. */
	open_chips(&m, GUEST(0xfb, 0xeb, 0xfe));
	for (int round = 0; round < 50; round++) {
		struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_IOAPIC};

		iop(m.vm, KVM_GET_IRQCHIP, &chip);
		for (int pin = 0; pin < KVM_IOAPIC_NUM_PINS; pin++)
			chip.chip.ioapic.redirtbl[pin].bits = (0x8000ull | (0x20 + pin)) ^ (uint64_t)round << 8;
		chip.chip.ioapic.irr = ~0u;
		iop(m.vm, KVM_SET_IRQCHIP, &chip);
		for (unsigned int gsi = 0; gsi < 30; gsi++)
			for (int level = 1; level >= 0; level--) {
				line.irq = gsi;
				line.level = level;
				iop(m.vm, KVM_IRQ_LINE, &line);
			}
		memset(&lapic, round * 37, sizeof(lapic));
		iop(m.vcpu, KVM_SET_LAPIC, &lapic);
		CHECK_EQ("KVM_RUN", run_for(&m, 2) <= 0, 1);
		mode_start(&m, LONG);
	}
	machine_close(&m);
	check_neighbour();
}

static const struct item items[] = {
	ITEM(h74_port_io), ITEM(h75_mmio_fragments), ITEM(h76_address_changed_by_vmm),
	ITEM(h77_coalesced_ring), ITEM(h78_interrupt_chips),
};

HOSTILE_MAIN(items)
