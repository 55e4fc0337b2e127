// SPDX-License-Identifier: MIT
/*
 * KVM_GET_STATS_FD as a tool reads it (api.rst 4.133): header, descriptors, names, data; and
 * ANYKVM_STATS=FILE. --device: the same of a host's KVM, which passes all but our own.
 */
#include "machine.h"

#include <sys/wait.h>

#define NAME_SIZE 48

/* KVM's, in its order (Linux 6.18), with type, unit, size. */
static const struct known {
	const char *name;
	uint32_t flags;
	int16_t exponent;
	uint16_t size;
} vcpu_stats[] = {
#define COUNT(name)   {#name, KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_NONE, 0, 1}
#define NS(name)      {#name, KVM_STATS_TYPE_CUMULATIVE | KVM_STATS_UNIT_SECONDS, -9, 1}
#define NS_HIST(name) {#name, KVM_STATS_TYPE_LOG_HIST | KVM_STATS_UNIT_SECONDS, -9, 32}
#define IS(name)      {#name, KVM_STATS_TYPE_INSTANT | KVM_STATS_UNIT_BOOLEAN, 0, 1}
	COUNT(halt_successful_poll), COUNT(halt_attempted_poll), COUNT(halt_poll_invalid),
	COUNT(halt_wakeup), NS(halt_poll_success_ns), NS(halt_poll_fail_ns), NS(halt_wait_ns),
	NS_HIST(halt_poll_success_hist), NS_HIST(halt_poll_fail_hist), NS_HIST(halt_wait_hist),
	IS(blocking), COUNT(pf_taken), COUNT(pf_fixed), COUNT(pf_emulate), COUNT(pf_spurious),
	COUNT(pf_fast), COUNT(pf_mmio_spte_created), COUNT(pf_guest), COUNT(tlb_flush),
	COUNT(invlpg), COUNT(exits), COUNT(io_exits), COUNT(mmio_exits), COUNT(signal_exits),
	COUNT(irq_window_exits), COUNT(nmi_window_exits), COUNT(l1d_flush), COUNT(halt_exits),
	COUNT(request_irq_exits), COUNT(irq_exits), COUNT(host_state_reload), COUNT(fpu_reload),
	COUNT(insn_emulation), COUNT(insn_emulation_fail), COUNT(hypercalls),
	COUNT(irq_injections), COUNT(nmi_injections), COUNT(req_event), COUNT(nested_run),
	COUNT(directed_yield_attempted), COUNT(directed_yield_successful),
	COUNT(preemption_reported), COUNT(preemption_other), IS(guest_mode),
	COUNT(notify_window_exits),
}, vm_stats[] = {
	COUNT(remote_tlb_flush), COUNT(remote_tlb_flush_requests), COUNT(mmu_shadow_zapped),
	COUNT(mmu_pte_write), COUNT(mmu_pde_zapped), COUNT(mmu_flooded), COUNT(mmu_recycled),
	COUNT(mmu_cache_miss),
};

struct desc {
	struct kvm_stats_desc d;
	char name[NAME_SIZE];
};
static struct kvm_stats_header header;
static struct desc *descs;

/* Exactly n bytes at this place of the file. */
static void read_at(int fd, void *to, size_t n, off_t at)
{
	CHECK_EQ("pread", pread(fd, to, n, at), n);
}

static void check_header(int fd, const char *id)
{
	char buf[NAME_SIZE];

	read_at(fd, &header, sizeof(header), 0);
	CHECK_EQ("name_size", header.name_size, NAME_SIZE);
	CHECK_EQ("id_offset", header.id_offset, sizeof(header));
	CHECK_EQ("desc_offset", header.desc_offset, sizeof(header) + NAME_SIZE);
	CHECK_EQ("data_offset", header.data_offset,
		 header.desc_offset + header.num_desc * sizeof(struct desc));
	read_at(fd, buf, sizeof(buf), header.id_offset);
	CHECK_EQ("id", strncmp(buf, id, sizeof(buf)), 0);
}

static void check_desc(const struct desc *d, uint32_t *data_end)
{
	uint32_t type = d->d.flags & KVM_STATS_TYPE_MASK;

	CHECK_EQ("type", type <= KVM_STATS_TYPE_MAX, true);
	CHECK_EQ("unit", (d->d.flags & KVM_STATS_UNIT_MASK) <= KVM_STATS_UNIT_MAX, true);
	CHECK_EQ("base", (d->d.flags & KVM_STATS_BASE_MASK) <= KVM_STATS_BASE_MAX, true);
	CHECK_EQ("name ends", memchr(d->name, 0, NAME_SIZE) && d->name[0], true);
	if (!api_is_device()) /* a host's need not be in the order of its descriptors */
		CHECK_EQ("offset", d->d.offset, *data_end);
	CHECK_EQ("alignment", d->d.offset % 8, 0);
	CHECK_EQ("size", d->d.size > 0 && (type >= KVM_STATS_TYPE_LINEAR_HIST || d->d.size == 1), true);
	if (*data_end < d->d.offset + 8 * d->d.size)
		*data_end = d->d.offset + 8 * d->d.size;
}

static void check_known(const struct known *k, const struct desc *d)
{
	CHECK_EQ(k->name, strcmp(k->name, d->name), 0);
	CHECK_EQ(k->name, d->d.flags & (KVM_STATS_TYPE_MASK | KVM_STATS_UNIT_MASK), k->flags);
	CHECK_EQ(k->name, d->d.exponent, k->exponent);
	CHECK_EQ(k->name, d->d.size, k->size);
}

static void check_file(int fd, const char *id, const struct known *k, size_t n)
{
	uint32_t data_end = 0;
	uint64_t word;

	check_header(fd, id);
	free(descs);
	descs = calloc(header.num_desc, sizeof(*descs));
	read_at(fd, descs, header.num_desc * sizeof(*descs), header.desc_offset);
	for (uint32_t i = 0; i < header.num_desc; i++)
		check_desc(&descs[i], &data_end);
	CHECK_EQ("number of statistics", header.num_desc >= n, true);
	for (size_t i = 0; i < n; i++)
		check_known(&k[i], &descs[i]);
	read_at(fd, &word, 8, header.data_offset + data_end - 8);
	CHECK_EQ("end of file", pread(fd, &word, 8, header.data_offset + data_end), 0);
}

static uint64_t value(int fd, const char *name)
{
	uint64_t v = ~0ull;

	for (uint32_t i = 0; i < header.num_desc; i++)
		if (!strncmp(descs[i].name, name, NAME_SIZE))
			read_at(fd, &v, 8, header.data_offset + descs[i].d.offset);
	return v;
}

/* Real mode: 1: in al, 0x10; mov [0x9000], al; jmp 1b. Above 0x8000 is no RAM. */
static void machine_start(struct machine *m)
{
	static const uint8_t code[] = {0xe4, 0x10, 0xa2, 0x00, 0x90, 0xeb, 0xf9};
	struct kvm_regs regs = {.rip = 0x1000, .rflags = 2};
	struct kvm_sregs s;

	machine_create(m, 0x8000, false);
	memcpy(m->ram + 0x1000, code, sizeof(code));
	must(api->ioctl(m->vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	s.cs.base = s.cs.selector = 0;
	must(api->ioctl(m->vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
	must(api->ioctl(m->vcpu, KVM_SET_REGS, &regs), "SET_REGS");
}

static void test_layout(void)
{
	struct machine m;
	char id[64];
	int fd;

	machine_start(&m);
	fd = must(api->ioctl(m.vm, KVM_GET_STATS_FD, 0), "VM's statistics");
	snprintf(id, sizeof(id), "kvm-%d", getpid());
	check_file(fd, id, vm_stats, sizeof(vm_stats) / sizeof(vm_stats[0]));
	api->close(fd);
	fd = must(api->ioctl(m.vcpu, KVM_GET_STATS_FD, 0), "vCPU's statistics");
	snprintf(id, sizeof(id), "kvm-%d/vcpu-0", getpid());
	check_file(fd, id, vcpu_stats, sizeof(vcpu_stats) / sizeof(vcpu_stats[0]));
	for (int k = 0; k < 6; k++)
		must(api->ioctl(m.vcpu, KVM_RUN, 0), "KVM_RUN");
	CHECK_EQ("mmio_exits", value(fd, "mmio_exits"), 3);
	if (!api_is_device()) { /* a host's hardware need not exit as often, or does more often */
		CHECK_EQ("io_exits", value(fd, "io_exits"), 3);
		CHECK_EQ("emul_walk_data", value(fd, "emul_walk_data"), 0);
		CHECK_EQ("emul_complete_pio", value(fd, "emul_complete_pio"), 3);
		CHECK_EQ("emul_complete_mmio", value(fd, "emul_complete_mmio"), 2);
	}
	api->close(fd);
	machine_close(&m);
}

/* A figure of the file that ANYKVM_STATS names; -1: none. */
static long file_value(const char *path, const char *name)
{
	char line[200], want[100];
	long v = -1;
	FILE *f = fopen(path, "r");

	snprintf(want, sizeof(want), "\"%s\": ", name);
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, want, strlen(want)))
			v = atol(line + strlen(want));
	if (f)
		fclose(f);
	return v;
}

/* In a child, which ends with the VM closed, or leaves it to exit(). */
static void test_file(bool closes)
{
	char path[] = "/tmp/anykvm-stats-XXXXXX";
	struct machine m;
	int status;
	pid_t pid;

	close(must(mkstemp(path), "temporary file"));
	unlink(path);
	fflush(stdout);
	pid = fork();
	if (pid == 0) {
		setenv("ANYKVM_STATS", path, 1);
		machine_start(&m);
		for (int k = 0; k < 4; k++)
			must(api->ioctl(m.vcpu, KVM_RUN, 0), "KVM_RUN");
		if (closes)
			machine_close(&m);
		exit(0);
	}
	waitpid(pid, &status, 0);
	CHECK_EQ("child", status, 0);
	CHECK_EQ("file: vcpus", file_value(path, "vcpus"), 1);
	CHECK_EQ("file: mmio_exits", file_value(path, "mmio_exits"), 2);
	CHECK_EQ("file: io_exits", file_value(path, "io_exits"), 2);
	CHECK_EQ("file: remote_tlb_flush", file_value(path, "remote_tlb_flush"), 0);
	CHECK_EQ("file: halt_wait_hist", file_value(path, "halt_wait_hist"), 0);
	CHECK_EQ("file: none", file_value(path, "nonsense"), -1);
	unlink(path);
}

int main(int argc, char **argv)
{
	api_args(argc, argv);
	test_layout();
	if (!api_is_device()) {
		test_file(true);
		test_file(false);
	}
	return api_done();
}
