// SPDX-License-Identifier: MIT
/*
 * The virtual machine: file descriptors, memory, interrupt chips, devices and
 * its end. What a vCPU does is in vcpu.c, what a port does in bus.c.
 */
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#define UART_IRQ     4
#define TSS_AT	     0xfffbd000ul /* three pages that KVM may need on Intel */
#define IDENTITY_AT  0xfffbc000ul
#define CPUID_MAX    256
#define IOAPIC_PINS  24

static void uart_emit(void *ctx, u8 byte)
{
	(void)ctx;
	term_write(byte);
}

static void uart_irq(void *ctx, bool level)
{
	struct machine *m = ctx;
	struct kvm_irq_level irq = {.irq = UART_IRQ, .level = level};

	if (m->api->ioctl(m->vm, KVM_IRQ_LINE, &irq) < 0)
		machine_end(m, END_FAILURE, "KVM_IRQ_LINE: %s", strerror(errno));
}

static int open_kvm(struct machine *m, const char *device)
{
	const char *name = device ? device : "/dev/kvm";
	int version;

	m->sys = m->api->open(name, O_RDWR | O_CLOEXEC);
	if (m->sys < 0)
		return vmm_error("cannot open %s: %s", name, strerror(errno));
	version = m->api->ioctl(m->sys, KVM_GET_API_VERSION, 0);
	if (version < 0)
		return vmm_error("%s is not a KVM device: %s", name, strerror(errno));
	if (version != KVM_API_VERSION)
		return vmm_error("%s: KVM API version %d, not %d", name, version, KVM_API_VERSION);
	return 0;
}

static int check_capabilities(struct machine *m)
{
	static const struct {
		int cap;
		const char *name;
	} need[] = {
		{KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
		{KVM_CAP_PIT2, "KVM_CAP_PIT2"},
		{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
		{KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
		{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
		{KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
		{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
	};
	size_t i;
	int max;

	for (i = 0; i < sizeof(need) / sizeof(*need); i++)
		if (m->api->ioctl(m->sys, KVM_CHECK_EXTENSION, need[i].cap) <= 0)
			return vmm_error("this KVM lacks %s", need[i].name);
	max = m->api->ioctl(m->sys, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	if (max <= 0)
		max = 4; /* Documentation/virt/kvm/api.rst 4.7 */
	if (m->cpus > max)
		return vmm_error("--cpus %d: this KVM takes at most %d", m->cpus, max);
	return 0;
}

/* One ioctl of the VM whose failure ends the story. */
static int vm_ioctl(struct machine *m, const char *name, unsigned long req, unsigned long arg)
{
	if (m->api->ioctl(m->vm, req, arg) < 0)
		return vmm_error("%s: %s", name, strerror(errno));
	return 0;
}
#define VM_IOCTL(m, req, arg) vm_ioctl(m, #req, req, (unsigned long)(arg))

static void add_route(struct kvm_irq_routing *r, u32 gsi, u32 chip, u32 pin)
{
	r->entries[r->nr++] = (struct kvm_irq_routing_entry){
		.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP, .u.irqchip = {chip, pin},
	};
}

/* The routes of a PC: pins are GSIs, but the PIT's interrupt 0 comes in at pin 2 (MADT). */
static int set_routes(struct machine *m)
{
	union {
		struct kvm_irq_routing r;
		u8 room[sizeof(struct kvm_irq_routing) +
			(16 + IOAPIC_PINS) * sizeof(struct kvm_irq_routing_entry)];
	} u = {0};
	u32 gsi;

	for (gsi = 0; gsi < 8; gsi++)
		add_route(&u.r, gsi, KVM_IRQCHIP_PIC_MASTER, gsi);
	for (; gsi < 16; gsi++)
		add_route(&u.r, gsi, KVM_IRQCHIP_PIC_SLAVE, gsi - 8);
	add_route(&u.r, 0, KVM_IRQCHIP_IOAPIC, 2);
	for (gsi = 1; gsi < IOAPIC_PINS; gsi++)
		if (gsi != 2)
			add_route(&u.r, gsi, KVM_IRQCHIP_IOAPIC, gsi);
	return VM_IOCTL(m, KVM_SET_GSI_ROUTING, &u);
}

static int create_chips(struct machine *m)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	u64 identity = IDENTITY_AT;

	if (VM_IOCTL(m, KVM_SET_TSS_ADDR, TSS_AT) < 0)
		return -1;
	if (m->api->ioctl(m->sys, KVM_CHECK_EXTENSION, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0 &&
	    VM_IOCTL(m, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0)
		return -1;
	if (VM_IOCTL(m, KVM_CREATE_IRQCHIP, 0) < 0 || VM_IOCTL(m, KVM_CREATE_PIT2, &pit) < 0)
		return -1;
	return set_routes(m);
}

static int add_memslot(struct machine *m, u32 slot, u64 gpa, u64 len, u8 *host)
{
	struct kvm_userspace_memory_region r = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = len,
		.userspace_addr = (uintptr_t)host,
	};

	return len ? VM_IOCTL(m, KVM_SET_USER_MEMORY_REGION, &r) : 0;
}

static int create_ram(struct machine *m, u64 memory)
{
	struct ram *r = &m->ram;
	void *p = mmap(NULL, memory, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return vmm_error("cannot allocate %lluM of guest memory: %s", memory / MIB,
				 strerror(errno));
	*r = (struct ram){.host = p, .size = memory, .low = ram_low(memory)};
	if (add_memslot(m, 0, 0, r->low, r->host) < 0)
		return -1;
	return add_memslot(m, 1, HIGH_RAM_START, r->size - r->low, r->host + r->low);
}

static int get_cpuid(struct machine *m)
{
	m->cpuid = calloc(1, sizeof(*m->cpuid) + CPUID_MAX * sizeof(m->cpuid->entries[0]));
	if (!m->cpuid)
		return vmm_error("no memory");
	m->cpuid->nent = CPUID_MAX;
	if (m->api->ioctl(m->sys, KVM_GET_SUPPORTED_CPUID, m->cpuid) < 0)
		return vmm_error("KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
	return 0;
}

static int create_vcpus(struct machine *m)
{
	int i;

	m->vcpu = calloc(m->cpus, sizeof(*m->vcpu));
	if (!m->vcpu)
		return vmm_error("no memory");
	for (i = 0; i < m->cpus; i++)
		m->vcpu[i].fd = -1;
	for (i = 0; i < m->cpus; i++)
		if (vcpu_create(&m->vcpu[i], m, i) < 0)
			return -1;
	return 0;
}

int machine_create(struct machine *m, const struct kvm_api *api, const char *device, u64 memory,
		   int cpus)
{
	*m = (struct machine){.api = api, .sys = -1, .vm = -1, .cpus = cpus};
	pthread_mutex_init(&m->lock, NULL);
	m->uart.emit = uart_emit;
	m->uart.irq = uart_irq;
	m->uart.ctx = m;
	uart_reset(&m->uart);
	rtc_reset(&m->rtc);
	m->end_event = eventfd(0, EFD_CLOEXEC);
	if (m->end_event < 0)
		return vmm_error("eventfd: %s", strerror(errno));
	if (open_kvm(m, device) < 0 || check_capabilities(m) < 0)
		return -1;
	m->vm = api->ioctl(m->sys, KVM_CREATE_VM, 0);
	if (m->vm < 0)
		return vmm_error("KVM_CREATE_VM: %s", strerror(errno));
	if (create_chips(m) < 0 || create_ram(m, memory) < 0 || get_cpuid(m) < 0)
		return -1;
	return create_vcpus(m);
}

void machine_destroy(struct machine *m)
{
	int i;

	for (i = 0; m->vcpu && i < m->cpus; i++)
		vcpu_destroy(&m->vcpu[i]);
	free(m->vcpu);
	free(m->cpuid);
	if (m->vm >= 0)
		m->api->close(m->vm);
	if (m->sys >= 0)
		m->api->close(m->sys);
	if (m->ram.host)
		munmap(m->ram.host, m->ram.size);
	if (m->end_event >= 0)
		close(m->end_event);
	pthread_mutex_destroy(&m->lock);
}

int machine_start(struct machine *m)
{
	int i, r;

	vcpu_kick_setup();
	for (i = 0; i < m->cpus; i++) {
		r = pthread_create(&m->vcpu[i].thread, NULL, vcpu_thread, &m->vcpu[i]);
		if (r)
			return vmm_error("cannot start a thread for vCPU %d: %s", i, strerror(r));
		m->vcpu[i].started = true;
	}
	return 0;
}

void machine_stop(struct machine *m)
{
	int i;

	/* a no-op when it has ended: this is for a start that failed halfway */
	pthread_mutex_lock(&m->lock);
	machine_end(m, END_FAILURE, "%s", "");
	pthread_mutex_unlock(&m->lock);
	for (i = 0; i < m->cpus; i++)
		if (m->vcpu[i].started)
			vcpu_kick(&m->vcpu[i]);
	for (i = 0; i < m->cpus; i++)
		if (m->vcpu[i].started)
			pthread_join(m->vcpu[i].thread, NULL);
}

void machine_end(struct machine *m, enum end how, const char *fmt, ...)
{
	u64 one = 1;
	va_list ap;

	if (m->end != END_NOT)
		return;
	va_start(ap, fmt);
	vsnprintf(m->why, sizeof(m->why), fmt, ap);
	va_end(ap);
	m->end = how;
	if (write(m->end_event, &one, sizeof(one)) < 0)
		vmm_error("eventfd: %s", strerror(errno));
}

size_t machine_input(struct machine *m, const u8 *data, size_t n)
{
	size_t done = 0;

	pthread_mutex_lock(&m->lock);
	while (done < n && uart_room(&m->uart))
		uart_receive(&m->uart, data[done++]);
	pthread_mutex_unlock(&m->lock);
	return done;
}
