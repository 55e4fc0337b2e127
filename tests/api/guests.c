// SPDX-License-Identifier: MIT
/*
 * Small real-mode guests through the public API: exits and their completion, signals,
 * memslots that change under a running guest, lifetimes. --device runs them on a host's KVM.
 */
#include "machine.h"
#include "process.h"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

#define RAM  0x8000 /* guest RAM from 0; above is nothing: MMIO in a real-mode segment */
#define CODE 0x1000

static void machine_make(struct machine *m, bool irqchip, const void *code, size_t n)
{
	struct kvm_sregs s;

	machine_create(m, RAM, irqchip);
	memcpy(m->ram + CODE, code, n);
	s = sregs_of(m);
	s.cs.base = s.cs.selector = 0;
	set_sregs(m, &s);
	set_regs(m, &(struct kvm_regs){.rip = CODE, .rflags = 2, .rsp = 0x800});
}

static void machine_open(struct machine *m, const void *code, size_t n)
{
	machine_make(m, false, code, n);
}

/* KVM_RUN must return 0 with this exit. */
#define RUN_TO(m, what, reason)                                 \
	do {                                                    \
		CHECK_EQ(what ": KVM_RUN", vcpu_run(m), 0);     \
		CHECK_EQ(what ": exit", (m)->run->exit_reason, reason); \
	} while (0)

#define GUEST(...) (const uint8_t[]){__VA_ARGS__}, sizeof((const uint8_t[]){__VA_ARGS__})
#define HLT 0xf4

static void test_hlt(void)
{
	struct machine m;

	machine_open(&m, GUEST(HLT, HLT));
	RUN_TO(&m, "hlt", KVM_EXIT_HLT);
	CHECK_EQ("hlt: rip", regs_of(&m).rip, CODE + 1);
	CHECK_EQ("hlt: if_flag", m.run->if_flag, 0);
	CHECK_EQ("hlt: apic_base", m.run->apic_base, 0xfee00900);
	RUN_TO(&m, "hlt again", KVM_EXIT_HLT);
	CHECK_EQ("hlt again: rip", regs_of(&m).rip, CODE + 2);
	machine_close(&m);
}

static void test_port(void)
{
	struct machine m;

	/* mov al,0x42; mov dx,0x3f8; out dx,al; in ax,dx; hlt */
	machine_open(&m, GUEST(0xb0, 0x42, 0xba, 0xf8, 0x03, 0xee, 0xed, HLT));
	RUN_TO(&m, "out", KVM_EXIT_IO);
	CHECK_EQ("out: direction", m.run->io.direction, KVM_EXIT_IO_OUT);
	CHECK_EQ("out: port", m.run->io.port, 0x3f8);
	CHECK_EQ("out: size", m.run->io.size, 1);
	CHECK_EQ("out: count", m.run->io.count, 1);
	CHECK_EQ("out: data", *io_data(&m), 0x42);
	RUN_TO(&m, "in", KVM_EXIT_IO);
	CHECK_EQ("in: direction", m.run->io.direction, KVM_EXIT_IO_IN);
	CHECK_EQ("in: size", m.run->io.size, 2);
	memcpy(io_data(&m), "\x34\x12", 2);
	RUN_TO(&m, "in done", KVM_EXIT_HLT);
	CHECK_EQ("in: ax", regs_of(&m).rax & 0xffff, 0x1234);
	machine_close(&m);
}

static void test_string_port(void)
{
	struct machine m;

	/* mov cx,10; mov di,0x600; mov dx,0x10; cld; rep insb; hlt */
	machine_open(&m, GUEST(0xb9, 10, 0, 0xbf, 0x00, 0x06, 0xba, 0x10, 0x00, 0xfc, 0xf3, 0x6c, HLT));
	RUN_TO(&m, "rep insb", KVM_EXIT_IO);
	CHECK_EQ("rep insb: count", m.run->io.count, 10);
	memcpy(io_data(&m), "0123456789", 10);
	RUN_TO(&m, "rep insb done", KVM_EXIT_HLT);
	CHECK_EQ("rep insb: memory", memcmp(m.ram + 0x600, "0123456789", 10), 0);
	CHECK_EQ("rep insb: cx", regs_of(&m).rcx & 0xffff, 0);
	CHECK_EQ("rep insb: di", regs_of(&m).rdi & 0xffff, 0x60a);
	machine_close(&m);
}

static void test_mmio(void)
{
	struct machine m;

	/* mov ax,0xbeef; mov [0x9000],ax; mov bx,[0x9004]; hlt */
	machine_open(&m, GUEST(0xb8, 0xef, 0xbe, 0xa3, 0x00, 0x90, 0x8b, 0x1e, 0x04, 0x90, HLT));
	RUN_TO(&m, "mmio write", KVM_EXIT_MMIO);
	CHECK_EQ("mmio write: address", m.run->mmio.phys_addr, 0x9000);
	CHECK_EQ("mmio write: len", m.run->mmio.len, 2);
	CHECK_EQ("mmio write: is_write", m.run->mmio.is_write, 1);
	CHECK_EQ("mmio write: data", memcmp(m.run->mmio.data, "\xef\xbe", 2), 0);
	CHECK_EQ("mmio write: rip is behind it", regs_of(&m).rip, CODE + 6);
	RUN_TO(&m, "mmio read", KVM_EXIT_MMIO);
	CHECK_EQ("mmio read: address", m.run->mmio.phys_addr, 0x9004);
	CHECK_EQ("mmio read: is_write", m.run->mmio.is_write, 0);
	CHECK_EQ("mmio read: rip is before it", regs_of(&m).rip, CODE + 6);
	memcpy(m.run->mmio.data, "\x0d\xf0", 2);
	m.run->mmio.phys_addr = 0x1234; /* no input: must be ignored */
	m.run->mmio.len = 77;
	m.run->immediate_exit = 1; /* completes, then stops before the next instruction */
	CHECK_EQ("mmio read, immediate_exit", vcpu_run(&m), -EINTR);
	m.run->immediate_exit = 0;
	CHECK_EQ("mmio read: bx", regs_of(&m).rbx & 0xffff, 0xf00d);
	CHECK_EQ("mmio read: rip moved", regs_of(&m).rip, CODE + 10);
	RUN_TO(&m, "mmio done", KVM_EXIT_HLT);
	machine_close(&m);
}

static void test_ioeventfd(void)
{
	struct machine m;
	struct kvm_ioeventfd e = {.addr = 0x50, .len = 1, .datamatch = 7};
	uint64_t count = 0;
	int fd = eventfd(0, EFD_NONBLOCK);

	/* mov al,7; out 0x50,al; out 0x50,al; inc ax; out 0x50,al; hlt */
	machine_open(&m, GUEST(0xb0, 7, 0xe6, 0x50, 0xe6, 0x50, 0x40, 0xe6, 0x50, HLT));
	e.fd = fd;
	e.flags = KVM_IOEVENTFD_FLAG_PIO | KVM_IOEVENTFD_FLAG_DATAMATCH;
	CHECK_EQ("ioeventfd", api->ioctl(m.vm, KVM_IOEVENTFD, &e), 0);
	CHECK_EQ("ioeventfd twice", api->ioctl(m.vm, KVM_IOEVENTFD, &e) < 0 ? -errno : 0, -EEXIST);
	RUN_TO(&m, "ioeventfd no match", KVM_EXIT_IO);
	CHECK_EQ("ioeventfd no match: data", *io_data(&m), 8);
	CHECK_EQ("ioeventfd: read", read(fd, &count, 8), 8);
	CHECK_EQ("ioeventfd: count", count, 2);
	e.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	CHECK_EQ("ioeventfd off", api->ioctl(m.vm, KVM_IOEVENTFD, &e), 0);
	CHECK_EQ("ioeventfd off again", api->ioctl(m.vm, KVM_IOEVENTFD, &e) < 0 ? -errno : 0, -ENOENT);
	RUN_TO(&m, "ioeventfd end", KVM_EXIT_HLT);
	machine_close(&m);
	close(fd);
}

static void test_coalesced(void)
{
	struct machine m;
	struct kvm_coalesced_mmio_zone z = {.addr = 0x9000, .size = 0x10};
	struct kvm_coalesced_mmio_ring *ring;

	/* mov al,1; mov [0x9000],al; mov [0x900f],al; mov [0x9010],al; hlt */
	machine_open(&m, GUEST(0xb0, 1, 0xa2, 0x00, 0x90, 0xa2, 0x0f, 0x90, 0xa2, 0x10, 0x90, HLT));
	ring = (void *)((uint8_t *)m.run + 2 * 4096);
	CHECK_EQ("coalesced", api->ioctl(m.vm, KVM_REGISTER_COALESCED_MMIO, &z), 0);
	RUN_TO(&m, "coalesced: outside", KVM_EXIT_MMIO);
	CHECK_EQ("coalesced: outside address", m.run->mmio.phys_addr, 0x9010);
	CHECK_EQ("coalesced: two in the ring", ring->last, 2);
	CHECK_EQ("coalesced: second", ring->coalesced_mmio[1].phys_addr, 0x900f);
	CHECK_EQ("coalesced: data", ring->coalesced_mmio[0].data[0], 1);
	CHECK_EQ("coalesced off", api->ioctl(m.vm, KVM_UNREGISTER_COALESCED_MMIO, &z), 0);
	RUN_TO(&m, "coalesced end", KVM_EXIT_HLT);
	machine_close(&m);
}

static void test_dirty(void)
{
	struct machine m;
	struct kvm_userspace_memory_region r = {.flags = KVM_MEM_LOG_DIRTY_PAGES, .memory_size = RAM};
	uint64_t bitmap = ~0ull;
	struct kvm_dirty_log log = {.dirty_bitmap = &bitmap};

	/* l: mov [0x3000],al; mov [0x5fff],ax; hlt; jmp l */
	machine_open(&m, GUEST(0xa2, 0x00, 0x30, 0xa3, 0xff, 0x5f, HLT, 0xeb, 0xf7));
	RUN_TO(&m, "dirty: before", KVM_EXIT_HLT);
	r.userspace_addr = (uint64_t)m.ram;
	CHECK_EQ("dirty: on", api->ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	for (int i = 0; i < 3; i++) {
		RUN_TO(&m, "dirty", KVM_EXIT_HLT);
		CHECK_EQ("dirty: get", api->ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
		CHECK_EQ("dirty: pages 3, 5 and 6", bitmap, 1 << 3 | 1 << 5 | 1 << 6);
	}
	CHECK_EQ("dirty: get", api->ioctl(m.vm, KVM_GET_DIRTY_LOG, &log), 0);
	CHECK_EQ("dirty: none", bitmap, 0);
	machine_close(&m);
}

/* ---- a second thread */

static struct machine *current;

static void on_signal(int sig)
{
	(void)sig;
	current->run->immediate_exit = 1;
}

static void test_signal(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct machine m;
	pthread_t t;
	void *r;

	machine_open(&m, GUEST(0xeb, 0xfe)); /* jmp $ */
	current = &m;
	sigaction(SIGUSR1, &sa, NULL);
	pthread_create(&t, NULL, run_thread, &m);
	sleep_ms(30);
	pthread_kill(t, SIGUSR1);
	pthread_join(t, &r);
	CHECK_EQ("signal: KVM_RUN", (long)r, -EINTR);
	CHECK_EQ("signal: rip", regs_of(&m).rip, CODE);
	machine_close(&m);
}

static void enable_lapic(struct machine *m)
{
	struct kvm_lapic_state s;
	uint32_t spiv = 0x1ff;

	must(api->ioctl(m->vcpu, KVM_GET_LAPIC, &s), "GET_LAPIC");
	memcpy(s.regs + 0xf0, &spiv, 4);
	must(api->ioctl(m->vcpu, KVM_SET_LAPIC, &s), "SET_LAPIC");
}

/* The guest sleeps, an interrupt wakes it, it spins: a signal must still end KVM_RUN. */
static void test_signal_after_halt(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	struct kvm_msi msi = {.address_lo = 0xfee00000, .data = 0x40};
	const uint16_t vector[2] = {CODE + 2, 0};
	struct timespec limit;
	struct machine m;
	pthread_t t;
	void *r;

	machine_make(&m, true, GUEST(0xfb, HLT, 0xeb, 0xfe)); /* sti; hlt; jmp $ */
	memcpy(m.ram + 4 * 0x40, vector, 4);
	enable_lapic(&m);
	current = &m;
	sigaction(SIGUSR1, &sa, NULL);
	pthread_create(&t, NULL, run_thread, &m);
	sleep_ms(30);
	CHECK_EQ("halt: wake up", api->ioctl(m.vm, KVM_SIGNAL_MSI, &msi), 1);
	sleep_ms(30);
	pthread_kill(t, SIGUSR1);
	clock_gettime(CLOCK_REALTIME, &limit);
	limit.tv_sec += 10;
	must(pthread_timedjoin_np(t, &r, &limit) ? -1 : 0, "halt: KVM_RUN goes on after a signal");
	CHECK_EQ("halt: KVM_RUN", (long)r, -EINTR);
	CHECK_EQ("halt: rip", regs_of(&m).rip, CODE + 2);
	machine_close(&m);
}

/* The guest reads a page until it is not RAM any more; then the read is MMIO. */
static void test_slot_deleted(void)
{
	struct kvm_userspace_memory_region r = {.slot = 1, .guest_phys_addr = 0x9000, .memory_size = 4096};
	struct machine m;
	uint8_t *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pthread_t t;
	void *result;

	/* l: mov al,[0x9000]; jmp l */
	machine_open(&m, GUEST(0xa0, 0x00, 0x90, 0xeb, 0xfb));
	r.userspace_addr = (uint64_t)page;
	CHECK_EQ("slot: add", api->ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	pthread_create(&t, NULL, run_thread, &m);
	sleep_ms(30);
	r.memory_size = 0;
	CHECK_EQ("slot: delete", api->ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	munmap(page, 4096); /* nobody may touch it now */
	pthread_join(t, &result);
	CHECK_EQ("slot: KVM_RUN", (long)result, 0);
	CHECK_EQ("slot: exit", m.run->exit_reason, KVM_EXIT_MMIO);
	CHECK_EQ("slot: address", m.run->mmio.phys_addr, 0x9000);
	machine_close(&m);
}

/* The client's mapping goes while the guest runs, then its descriptor. */
static void test_unmapped_while_running(void)
{
	struct kvm_userspace_memory_region r = {.memory_size = 0};
	struct machine m;
	pthread_t t;
	void *result;

	machine_open(&m, GUEST(0xfe, 0x06, 0x00, 0x07, 0xeb, 0xfa)); /* l: inc byte [0x700]; jmp l */
	pthread_create(&t, NULL, run_thread, &m);
	while (!__atomic_load_n(&m.ram[0x700], __ATOMIC_RELAXED))
		sleep_ms(1);
	api->munmap(m.run, 12288);
	api->close(m.vcpu);
	sleep_ms(20);
	/* Without its memory the guest cannot go on. */
	CHECK_EQ("unmapped: delete RAM", api->ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &r), 0);
	pthread_join(t, &result);
	CHECK_EQ("unmapped: KVM_RUN", (long)result, 0);
	api->close(m.vm);
	munmap(m.ram, RAM);
}

static void test_many(void)
{
	int fds = entries("/proc/self/fd"), tasks = entries("/proc/self/task");
	struct machine m[16];

	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 16; i++)
			machine_open(&m[i], GUEST(0xb0, 0x42, 0xe6, 0x10, HLT));
		for (int i = 0; i < 16; i++)
			RUN_TO(&m[i], "many", KVM_EXIT_IO);
		for (int i = 0; i < 16; i++)
			RUN_TO(&m[i], "many", KVM_EXIT_HLT);
		for (int i = 0; i < 16; i++)
			machine_close(&m[i]);
	}
	CHECK_EQ("many: descriptors left", entries("/proc/self/fd"), fds);
	CHECK_EQ("many: threads left", entries("/proc/self/task"), tasks);
}

/* A duplicate keeps the object; so does a mapping. */
static void test_lifetime(void)
{
	struct machine m;
	struct kvm_regs r;
	int copy, fds = entries("/proc/self/fd");

	machine_open(&m, GUEST(HLT, HLT, HLT));
	copy = fcntl(m.vcpu, F_DUPFD_CLOEXEC, 0);
	api->close(m.vcpu);
	api->close(m.vm);
	m.vcpu = copy;
	RUN_TO(&m, "lifetime: duplicate", KVM_EXIT_HLT);
	CHECK_EQ("lifetime: GET_REGS", api->ioctl(copy, KVM_GET_REGS, &r), 0);
	api->close(copy);
	api->close(m.sys);
	CHECK_EQ("lifetime: mapping", m.run->exit_reason, KVM_EXIT_HLT);
	api->munmap(m.run, 12288);
	munmap(m.ram, RAM);
	CHECK_EQ("lifetime: descriptors left", entries("/proc/self/fd"), fds);
}

static void test_sync_regs(void)
{
	struct machine m;

	machine_open(&m, GUEST(0x40, HLT)); /* inc ax; hlt */
	m.run->kvm_valid_regs = KVM_SYNC_X86_REGS;
	RUN_TO(&m, "sync", KVM_EXIT_HLT);
	CHECK_EQ("sync: rax", m.run->s.regs.regs.rax, 1);
	m.run->s.regs.regs.rip = CODE;
	m.run->s.regs.regs.rax = 41;
	m.run->kvm_dirty_regs = KVM_SYNC_X86_REGS;
	RUN_TO(&m, "sync", KVM_EXIT_HLT);
	CHECK_EQ("sync: rax", m.run->s.regs.regs.rax, 42);
	CHECK_EQ("sync: dirty is cleared", m.run->kvm_dirty_regs, 0);
	machine_close(&m);
}

static void test_stats(void)
{
	struct machine m;
	int fd;

	machine_open(&m, GUEST(HLT, 0xa3, 0x00, 0x90, HLT));
	fd = must(api->ioctl(m.vcpu, KVM_GET_STATS_FD, 0), "GET_STATS_FD");
	RUN_TO(&m, "stats", KVM_EXIT_HLT);
	RUN_TO(&m, "stats", KVM_EXIT_MMIO);
	RUN_TO(&m, "stats", KVM_EXIT_HLT);
	if (!api_is_device()) /* a host may emulate more than it must */
		CHECK_EQ("stats: insn_emulation", stat_value(fd, "insn_emulation"), 1);
	CHECK_EQ("stats: mmio_exits", stat_value(fd, "mmio_exits"), 1);
	CHECK_EQ("stats: none of this name", stat_value(fd, "nonsense"), ~0ull);
	api->close(fd);
	machine_close(&m);
}

/* Both vendors' hypercall instructions work: KVM_HC_VAPIC_POLL_IRQ gives 0, an unknown one -ENOSYS. */
static void test_hypercall(void)
{
	struct kvm_enable_cap quirks = {.cap = KVM_CAP_DISABLE_QUIRKS,
					.args = {KVM_X86_QUIRK_FIX_HYPERCALL_INSN}};
	struct machine m;

	if (api_is_device()) /* a host that is a guest itself may keep hypercalls for its own use */
		return;
	/* mov ax,1; vmcall; mov bx,ax; mov ax,1; vmmcall; mov cx,ax; mov eax,77; vmmcall; hlt */
	machine_open(&m, GUEST(0xb8, 1, 0, 0x0f, 0x01, 0xc1, 0x89, 0xc3, 0xb8, 1, 0, 0x0f, 0x01, 0xd9,
			       0x89, 0xc1, 0x66, 0xb8, 77, 0, 0, 0, 0x0f, 0x01, 0xd9, HLT));
	RUN_TO(&m, "hypercall", KVM_EXIT_HLT);
	CHECK_EQ("hypercall: rip", regs_of(&m).rip, CODE + 26);
	CHECK_EQ("hypercall: vmcall", regs_of(&m).rbx & 0xffff, 0);
	CHECK_EQ("hypercall: vmmcall", regs_of(&m).rcx & 0xffff, 0);
	CHECK_EQ("hypercall: unknown", (int)regs_of(&m).rax, -1000);
	CHECK_EQ("hypercall: one kind is left", memcmp(m.ram + CODE + 3, m.ram + CODE + 11, 3), 0);
	machine_close(&m);
	/* without the quirk, the foreign one is #UD: its vector leads to a HLT at 0x600 */
	machine_open(&m, GUEST(0x0f, 0x01, 0xc1, 0x0f, 0x01, 0xd9, HLT));
	must(api->ioctl(m.vm, KVM_ENABLE_CAP, &quirks), "DISABLE_QUIRKS");
	memcpy(m.ram + 6 * 4, "\x00\x06\x00\x00", 4);
	m.ram[0x600] = HLT;
	RUN_TO(&m, "no quirk", KVM_EXIT_HLT);
	CHECK_EQ("no quirk: #UD", regs_of(&m).rip, 0x601);
	machine_close(&m);
}

static void (*const tests[])(void) = {
	test_hlt, test_port, test_string_port, test_mmio, test_ioeventfd, test_coalesced,
	test_dirty, test_signal, test_signal_after_halt, test_slot_deleted, test_unmapped_while_running, test_many,
	test_lifetime, test_sync_regs, test_stats,
	test_hypercall,
};

int main(int argc, char **argv)
{
	api_args(argc, argv);
	for (size_t i = 0; i < sizeof(tests) / sizeof(tests[0]); i++)
		tests[i]();
	return api_done();
}
