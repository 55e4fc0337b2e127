// SPDX-License-Identifier: MIT
/*
 * System management mode through the public API: KVM_SMI, the second address space, RSM, SMBASE,
 * KVM_VCPU_EVENTS' smi, an INIT that waits. SDM 3C 31, APM 2 10; api.rst KVM_CAP_X86_SMM.
 */
#include "machine.h"

#include <pthread.h>

#define RAM    0x8000
#define CODE   0x1000
#define SMRAM  0x30000 /* SMBASE after RESET */
#define SIZE   0x10000
#define ENTRY  0x8000
#define HLT    0xf4
#define MSR_SMBASE 0x9e

static uint8_t *smram;

/* Normal memory at 0, SMRAM at 0x30000 in the other space, and there the handler. */
static void open_all(struct machine *m, bool chip, const void *code, size_t n,
			 const void *handler, size_t handler_n)
{
	struct kvm_sregs s;

	machine_create(m, RAM, chip);
	smram = pages(SIZE);
	memcpy(m->ram + CODE, code, n);
	memcpy(smram + ENTRY, handler, handler_n);
	set_slot(m, 1 << 16, 0, SMRAM, SIZE, smram);
	s = sregs_of(m);
	s.cs.base = s.cs.selector = 0;
	s.ds.base = 0xfee00000; /* the LAPIC, where there is one */
	set_sregs(m, &s);
	set_regs(m, &(struct kvm_regs){.rip = CODE, .rflags = 2, .rsp = 0x800});
}

static void close_all(struct machine *m)
{
	machine_close(m);
	munmap(smram, SIZE);
}

static void set_smi(struct machine *m, bool smm, bool pending, bool latched_init)
{
	struct kvm_vcpu_events e = events_of(m);

	e.flags = KVM_VCPUEVENT_VALID_SMM;
	e.smi.smm = smm;
	e.smi.pending = pending;
	e.smi.smm_inside_nmi = 0;
	e.smi.latched_init = latched_init;
	CHECK_EQ("SET_VCPU_EVENTS smi", api->ioctl(m->vcpu, KVM_SET_VCPU_EVENTS, &e), 0);
}

static void smi(struct machine *m)
{
	CHECK_EQ("KVM_SMI", api->ioctl(m->vcpu, KVM_SMI, 0), 0);
}

/* KVM_RUN must return 0 with this exit, in SMM or not. */
#define RUN_TO(m, what, reason, inside)                                  \
	do {                                                             \
		CHECK_EQ(what ": KVM_RUN", vcpu_run(m), 0);              \
		CHECK_EQ(what ": exit", (m)->run->exit_reason, reason);  \
		CHECK_EQ(what ": in SMM", (m)->run->flags & KVM_RUN_X86_SMM, inside); \
		CHECK_EQ(what ": events", events_of(m).smi.smm, inside);\
	} while (0)

#define BYTES(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define RSM 0x0f, 0xaa
#define OUT 0xe6, 0x10 /* out 0x10,al */

static uint64_t saved(unsigned int at)
{
	uint64_t v;

	memcpy(&v, smram + at, 8);
	return v;
}

static void test_round_trip(void)
{
	struct machine m;

	/* hlt; inc ax; hlt      mov al,0x77; out; rsm */
	open_all(&m, false, BYTES(HLT, 0x40, HLT), BYTES(0xb0, 0x77, OUT, RSM));
	RUN_TO(&m, "before", KVM_EXIT_HLT, 0);
	smi(&m);
	CHECK_EQ("pending", events_of(&m).smi.pending, 1);
	RUN_TO(&m, "handler", KVM_EXIT_IO, 1);
	CHECK_EQ("not pending", events_of(&m).smi.pending, 0);
	CHECK_EQ("NMI blocked in SMM", events_of(&m).nmi.masked, 1);
	CHECK_EQ("data", *((uint8_t *)m.run + m.run->io.data_offset), 0x77);
	CHECK_EQ("rip", regs_of(&m).rip, ENTRY + 2);
	CHECK_EQ("revision", (uint32_t)saved(0xfefc), 0x20064);
	CHECK_EQ("saved rip", saved(0xff78), CODE + 1);
	RUN_TO(&m, "after", KVM_EXIT_HLT, 0);
	CHECK_EQ("ax is the interrupted one's", regs_of(&m).rax, 1);
	CHECK_EQ("rip", regs_of(&m).rip, CODE + 3);
	CHECK_EQ("NMI unblocked", events_of(&m).nmi.masked, 0);
	close_all(&m);
}

/* The same address in two spaces: RAM here, nothing there, and the other way round. */
static void test_spaces(void)
{
	struct machine m;
	uint8_t *both = pages(4096);

	/* mov al,cs:[0x3000]; hlt      mov al,cs:[0x1000] (0x31000); mov al,es:[0x2000]; rsm */
	open_all(&m, false, BYTES(0x2e, 0xa0, 0x00, 0x30, HLT),
		     BYTES(0x2e, 0xa0, 0x00, 0x10, OUT, 0x26, 0xa0, 0x00, 0x20, RSM));
	m.ram[0x3000] = 0x11;
	smram[0x1000] = 0x22;
	smi(&m);
	RUN_TO(&m, "in SMM", KVM_EXIT_IO, 1);
	CHECK_EQ("SMRAM", regs_of(&m).rax & 0xff, 0x22);
	RUN_TO(&m, "normal memory is not there", KVM_EXIT_MMIO, 1);
	CHECK_EQ("address", m.run->mmio.phys_addr, 0x2000);
	set_slot(&m, 1 << 16 | 1, 0, 0x2000, 4096, both);
	RUN_TO(&m, "outside", KVM_EXIT_HLT, 0);
	CHECK_EQ("normal memory", regs_of(&m).rax & 0xff, 0x11);
	set_slot(&m, 1 << 16 | 1, 0, 0x2000, 0, both);
	close_all(&m);
	munmap(both, 4096);
}

static void test_smbase(void)
{
	struct machine m;

	open_all(&m, false, BYTES(HLT), BYTES(RSM));
	CHECK_EQ("SMBASE after RESET", get_msr(&m, MSR_SMBASE), SMRAM);
	set_msr(&m, MSR_SMBASE, 0x40000);
	set_slot(&m, 1 << 16, 0, SMRAM, 0, smram);
	set_slot(&m, 1 << 16, 0, 0x40000, SIZE, smram);
	/* mov dword cs:[0xff00],0x50000 */
	memcpy(smram + ENTRY, BYTES(OUT, 0x2e, 0x66, 0xc7, 0x06, 0x00, 0xff, 0, 0, 5, 0, RSM));
	smi(&m);
	RUN_TO(&m, "moved", KVM_EXIT_IO, 1);
	RUN_TO(&m, "back", KVM_EXIT_HLT, 0);
	CHECK_EQ("SMBASE by the handler", get_msr(&m, MSR_SMBASE), 0x50000);
	CHECK_EQ("SMI_COUNT", get_msr(&m, 0x34), 1);
	close_all(&m);
}

static void test_events(void)
{
	struct machine m;
	struct kvm_sregs s;

	open_all(&m, false, BYTES(HLT, HLT), BYTES(HLT, OUT, RSM));
	set_smi(&m, false, true, false);
	RUN_TO(&m, "pending SMI restored", KVM_EXIT_HLT, 1);
	set_smi(&m, true, false, false); /* as it is */
	RUN_TO(&m, "SMM restored", KVM_EXIT_IO, 1);
	RUN_TO(&m, "RSM", KVM_EXIT_HLT, 0);
	set_smi(&m, true, false, false);
	s = sregs_of(&m);
	s.cs.base = SMRAM;
	set_sregs(&m, &s);
	set_regs(&m, &(struct kvm_regs){.rip = ENTRY, .rflags = 2});
	RUN_TO(&m, "code of the other space", KVM_EXIT_HLT, 1);
	CHECK_EQ("rip", regs_of(&m).rip, ENTRY + 1);
	close_all(&m);
}

/* ---- with the interrupt chips */

static void test_wakes(void)
{
	struct machine m;
	pthread_t t;
	void *r;

	open_all(&m, true, BYTES(0xfa, HLT, 0x40, OUT), BYTES(RSM)); /* cli; hlt; inc ax; out */
	pthread_create(&t, NULL, run_thread, &m);
	sleep_ms(20);
	/* another vCPU ioctl would wait for KVM_RUN: the SMI comes as an MSI would, by the APIC */
	struct kvm_msi msi = {.address_lo = 0xfee00000, .data = 2 << 8};

	CHECK_EQ("MSI of type SMI", api->ioctl(m.vm, KVM_SIGNAL_MSI, &msi), 1);
	while (pthread_tryjoin_np(t, &r)) { /* that one may have come before the HLT */
		sleep_ms(20);
		api->ioctl(m.vm, KVM_SIGNAL_MSI, &msi);
	}
	CHECK_EQ("wakes from HLT", (long)r, 0);
	CHECK_EQ("exit", m.run->exit_reason, KVM_EXIT_IO);
	CHECK_EQ("ax", regs_of(&m).rax & 0xffff, 1);
	close_all(&m);
}

/* mov dword [0x300],n: the ICR of the APIC at DS */
#define ICR(n) 0x66, 0xc7, 0x06, 0x00, 0x03, (n) & 0xff, (n) >> 8, 0, 0

static void test_ipi(void)
{
	struct machine m;

	open_all(&m, true, BYTES(ICR(0x4200), 0x40, OUT, HLT), BYTES(OUT, RSM));
	RUN_TO(&m, "SMI by IPI", KVM_EXIT_IO, 1);
	RUN_TO(&m, "goes on", KVM_EXIT_IO, 0);
	CHECK_EQ("ax", regs_of(&m).rax & 0xffff, 1);
	close_all(&m);
}

static void test_latched_init(void)
{
	struct machine m;
	struct kvm_sregs s;

	/* In SMM the segments are flat: DS is not the APIC, so the handler only says that it is there. */
	open_all(&m, true, BYTES(OUT), BYTES(OUT, OUT, RSM));
	smi(&m);
	RUN_TO(&m, "handler", KVM_EXIT_IO, 1);
	set_smi(&m, true, false, true);
	CHECK_EQ("latched", events_of(&m).smi.latched_init, 1);
	RUN_TO(&m, "INIT waits", KVM_EXIT_IO, 1);
	CHECK_EQ("latched", events_of(&m).smi.latched_init, 1);
	/* after RSM: INIT, and the boot processor starts at the reset vector, which is no RAM */
	CHECK_EQ("INIT taken: KVM_RUN", vcpu_run(&m), 0);
	CHECK_EQ("INIT taken: exit", m.run->exit_reason, KVM_EXIT_INTERNAL_ERROR);
	s = sregs_of(&m);
	CHECK_EQ("INIT taken: cs", s.cs.base, 0xffff0000);
	CHECK_EQ("INIT taken: out of SMM", events_of(&m).smi.smm, 0);
	close_all(&m);
}

static void (*const tests[])(void) = {
	test_round_trip, test_spaces, test_smbase, test_events, test_wakes, test_ipi,
	test_latched_init,
};

int main(int argc, char **argv)
{
	int smm, sys;

	api_args(argc, argv);
	sys = must(api->open("/dev/kvm", O_RDWR | O_CLOEXEC), "open /dev/kvm");
	smm = api->ioctl(sys, KVM_CHECK_EXTENSION, KVM_CAP_X86_SMM);
	CHECK_EQ("address spaces", api->ioctl(sys, KVM_CHECK_EXTENSION, KVM_CAP_MULTI_ADDRESS_SPACE),
		 smm ? 2 : 0);
	if (!api_is_device())
		CHECK_EQ("KVM_CAP_X86_SMM", smm, 1);
	for (size_t i = 0; smm && i < sizeof(tests) / sizeof(tests[0]); i++)
		tests[i]();
	return api_done();
}
