// SPDX-License-Identifier: MIT
/* See machine.h. Only the public API, or the host's device behind the same calls. */
#include "machine.h"

#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>

#include "../api/api.h"

int machine_open_kvm(bool on_device)
{
	return (on_device ? &device : &library)->open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

static const struct api *calls(const struct machine *m)
{
	return m->on_device ? &device : &library;
}

long machine_ioctl(struct machine *m, int fd, unsigned long req, void *arg)
{
	long r = calls(m)->ioctl(fd, req, arg);

	return r < 0 ? -errno : r;
}

void *machine_ram(struct machine *m, uint64_t gpa, uint64_t len)
{
	return gpa <= RAM_SIZE && len <= RAM_SIZE - gpa ? m->ram + gpa : NULL;
}

void machine_kick(struct vcpu *v)
{
	if (v->running)
		pthread_kill(v->thread, SIGUSR1);
}

/* Ends the run, once; the first reason stays. */
void machine_stop(struct machine *m, const char *why, ...)
{
	va_list ap;

	pthread_mutex_lock(&m->lock);
	if (!m->done) {
		va_start(ap, why);
		vsnprintf(m->out->end, sizeof(m->out->end), why, ap);
		va_end(ap);
		m->done = true;
	}
	pthread_cond_broadcast(&m->over);
	pthread_mutex_unlock(&m->lock);
}

/* ---- what guests say */

static void copy_text(struct machine *m, char out[64], uint64_t gpa)
{
	const char *s = machine_ram(m, gpa, 64);

	snprintf(out, 64, "%.63s", s ? s : "(a name outside of RAM)");
}

static void add_report(struct machine *m, uint64_t gpa)
{
	struct report *r = machine_ram(m, gpa, sizeof(*r));
	struct transcript *t = m->out;
	struct line *l;

	if (!r)
		return;
	if (t->n == t->room) {
		t->room = t->room ? 2 * t->room : 256;
		t->line = realloc(t->line, t->room * sizeof(*t->line));
	}
	l = &t->line[t->n++];
	memcpy(l->test, t->test, sizeof(l->test));
	copy_text(m, l->name, r->name);
	l->got = r->got;
	l->want = r->want;
}

void exit_log_add(struct exit_log *log, struct exit_entry e)
{
	if (!log)
		return;
	if (log->n < LOG_ENTRIES)
		log->e[log->n] = e;
	log->n++;
}

/* ---- exits */

static void port_word(struct vcpu *v, uint16_t port, uint64_t value)
{
	struct machine *m = v->m;

	if (port == PORT_SERVICE) {
		service_call(v, value);
		return;
	}
	if (port == PORT_END) {
		machine_stop(m, "%s", "");
		return;
	}
	pthread_mutex_lock(&m->lock);
	if (port == PORT_TEST)
		copy_text(m, m->out->test, value);
	else if (port == PORT_REPORT)
		add_report(m, value);
	pthread_mutex_unlock(&m->lock);
}

static void exit_io(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	uint32_t n = run->io.size * run->io.count, value = 0;
	bool in = run->io.direction == KVM_EXIT_IO_IN;

	for (uint32_t k = 0; k < n; k++) {
		uint8_t *p = &v->m->ports[(run->io.port + k % run->io.size) & 63];

		if (in)
			data[k] = *p;
		else
			*p = data[k];
	}
	if (in || run->io.port < PORT_TEST || run->io.port > PORT_END)
		return;
	memcpy(&value, data, run->io.size);
	port_word(v, run->io.port, value);
}

static void exit_mmio(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	struct machine *m = v->m;
	uint64_t off = run->mmio.phys_addr - MMIO_BASE, value = 0;
	uint32_t len = run->mmio.len;

	if (off >= MMIO_SIZE || len > MMIO_SIZE - off) {
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
	} else if (run->mmio.is_write) {
		memcpy(m->device + off, run->mmio.data, len);
	} else {
		memcpy(run->mmio.data, m->device + off, len);
	}
	memcpy(&value, run->mmio.data, len);
	pthread_mutex_lock(&m->lock);
	exit_log_add(m->mmio_log,
		     (struct exit_entry){run->mmio.phys_addr, value, run->mmio.is_write, len});
	pthread_mutex_unlock(&m->lock);
}

static void exit_debug(struct vcpu *v)
{
	struct kvm_debug_exit_arch *d = &v->run->debug.arch;

	exit_log_add(v->debug_log, (struct exit_entry){d->pc, d->dr6, d->exception, 0});
	service_after_debug(v, d->exception == 3);
}

static void unknown_exit(struct vcpu *v)
{
	struct kvm_regs r = {0};
	struct kvm_run *run = v->run;

	machine_ioctl(v->m, v->fd, KVM_GET_REGS, &r);
	machine_stop(v->m, "vCPU %d: exit %u suberror %u rip %#llx rsp %#llx", v->id, run->exit_reason,
		     run->exit_reason == KVM_EXIT_INTERNAL_ERROR ? run->internal.suberror : 0, r.rip,
		     r.rsp);
}

static void handle_exit(struct vcpu *v)
{
	switch (v->run->exit_reason) {
	case KVM_EXIT_IO:
		exit_io(v);
		return;
	case KVM_EXIT_MMIO:
		exit_mmio(v);
		return;
	case KVM_EXIT_DEBUG:
		exit_debug(v);
		return;
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		service_irq_window(v);
		return;
	case KVM_EXIT_SET_TPR: /* logged as an access to nowhere */
		exit_log_add(v->m->mmio_log, (struct exit_entry){~0ull, v->run->cr8, 2, 0});
		return;
	case KVM_EXIT_INTR:
		return;
	case KVM_EXIT_HLT: /* only a mistake ends in HLT: guests finish by PORT_END */
	case KVM_EXIT_SHUTDOWN:
		if (v->run->exit_reason == KVM_EXIT_SHUTDOWN && service_shutdown(v))
			return;
		__attribute__((fallthrough));
	default:
		unknown_exit(v);
	}
}

/* ---- vCPU threads */

static __thread struct vcpu *own;

/* A library cannot see a signal as the kernel does: immediate_exit, as all VMMs set it. */
static void on_signal(int sig)
{
	(void)sig;
	if (own)
		own->run->immediate_exit = 1;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *v = arg;
	struct machine *m = v->m;
	int r;

	own = v;
	for (;;) {
		v->run->immediate_exit = 0;
		if (m->done) /* set before the last kick: not missed */
			return NULL;
		r = calls(m)->ioctl(v->fd, KVM_RUN, 0);
		if (r < 0 && errno != EINTR && errno != EAGAIN)
			machine_stop(m, "vCPU %d: KVM_RUN: %s", v->id, strerror(errno));
		else if (r == 0)
			handle_exit(v);
	}
}

int machine_start(struct vcpu *v)
{
	int r = -pthread_create(&v->thread, NULL, vcpu_thread, v);

	v->started = v->running = !r;
	if (r)
		machine_stop(v->m, "no thread for vCPU %d", v->id);
	return r;
}

static void vcpu_start(struct vcpu *v)
{
	struct kvm_regs regs = {.rip = IMAGE_BASE, .rflags = 2, .rsp = 0x7000};
	struct kvm_sregs s;

	if (v->id)
		return;
	machine_ioctl(v->m, v->fd, KVM_GET_SREGS, &s);
	s.cs.base = s.cs.selector = 0;
	if (machine_ioctl(v->m, v->fd, KVM_SET_SREGS, &s) ||
	    machine_ioctl(v->m, v->fd, KVM_SET_REGS, &regs))
		machine_stop(v->m, "SET_SREGS: %s", strerror(errno));
}

static void set_vendor(struct kvm_cpuid_entry2 *leaf0, uint32_t flags)
{
	static const char intel[] = "GenuntelineI", amd[] = "AuthcAMDenti"; /* EBX ECX EDX */
	const char *name = flags & IMAGE_INTEL ? intel : flags & IMAGE_AMD ? amd : NULL;

	if (name)
		memcpy(&leaf0->ebx, name, 12);
}

static void set_cpuid(struct vcpu *v)
{
	struct {
		struct kvm_cpuid2 h;
		struct kvm_cpuid_entry2 e[256];
	} c = {.h.nent = 256};

	if (machine_ioctl(v->m, v->m->sys, KVM_GET_SUPPORTED_CPUID, &c) < 0)
		return;
	for (uint32_t k = 0; k < c.h.nent; k++) {
		if (c.e[k].function == 0)
			set_vendor(&c.e[k], v->m->image->flags);
		if (c.e[k].function == 1) {
			c.e[k].ecx |= 1u << 24; /* TSC deadline: KVM_CAP_TSC_DEADLINE_TIMER */
			c.e[k].ebx = (c.e[k].ebx & 0xff00) | v->id << 24 | CPUS_MAX << 16;
		}
		if (c.e[k].function == 0xb)
			c.e[k].edx = v->id;
	}
	machine_ioctl(v->m, v->fd, KVM_SET_CPUID2, &c);
}

static void vcpu_create(struct machine *m, int id)
{
	struct vcpu *v = &m->cpu[id];
	size_t size = machine_ioctl(m, m->sys, KVM_GET_VCPU_MMAP_SIZE, NULL);

	v->m = m;
	v->id = id;
	v->window_vector = -1;
	v->fd = machine_ioctl(m, m->vm, KVM_CREATE_VCPU, (void *)(long)id);
	if (v->fd >= 0)
		v->run = calls(m)->mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->fd < 0 || v->run == MAP_FAILED) {
		machine_stop(m, "KVM_CREATE_VCPU: %s", strerror(errno));
		return;
	}
	set_cpuid(v);
	vcpu_start(v);
}

static void machine_create(struct machine *m)
{
	struct kvm_userspace_memory_region r = {.memory_size = RAM_SIZE};
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};

	m->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memcpy(m->ram + IMAGE_BASE, m->image->bytes, m->image->size);
	r.userspace_addr = (uint64_t)m->ram;
	m->vm = machine_ioctl(m, m->sys, KVM_CREATE_VM, NULL);
	if (m->vm < 0 || machine_ioctl(m, m->vm, KVM_SET_USER_MEMORY_REGION, &r))
		machine_stop(m, "KVM_CREATE_VM: %s", strerror(errno));
	if (m->image->flags & IMAGE_IRQCHIP &&
	    (machine_ioctl(m, m->vm, KVM_CREATE_IRQCHIP, NULL) ||
	     machine_ioctl(m, m->vm, KVM_CREATE_PIT2, &pit)))
		machine_stop(m, "KVM_CREATE_IRQCHIP: %s", strerror(errno));
	for (uint32_t k = 0; k < m->image->cpus; k++)
		vcpu_create(m, k);
}

static void machine_close(struct machine *m)
{
	size_t size = machine_ioctl(m, m->sys, KVM_GET_VCPU_MMAP_SIZE, NULL);

	for (uint32_t k = 0; k < m->image->cpus; k++) {
		calls(m)->munmap(m->cpu[k].run, size);
		calls(m)->close(m->cpu[k].fd);
	}
	calls(m)->close(m->vm);
	calls(m)->close(m->sys);
	munmap(m->ram, RAM_SIZE);
}

/* Until the guest has finished, or `seconds` have passed. */
static void wait_over(struct machine *m, unsigned int seconds)
{
	struct timespec t;
	int r = 0;

	clock_gettime(CLOCK_REALTIME, &t);
	t.tv_sec += seconds;
	pthread_mutex_lock(&m->lock);
	while (!m->done && !r)
		r = pthread_cond_timedwait(&m->over, &m->lock, &t);
	pthread_mutex_unlock(&m->lock);
	if (r) {
		struct kvm_regs g = {0};

		machine_stop(m, "no end after %u seconds", seconds);
		usleep(20000);
		for (uint32_t k = 0; k < m->image->cpus; k++) {
			machine_kick(&m->cpu[k]);
			usleep(20000);
			machine_ioctl(m, m->cpu[k].fd, KVM_GET_REGS, &g);
			printf("vCPU %u: rip %#llx rsp %#llx rax %#llx\n", k, g.rip, g.rsp, g.rax);
		}
	}
}

static void stop_threads(struct machine *m)
{
	m->kick_us = 0;
	for (uint32_t k = 0; k < m->image->cpus; k++) {
		struct vcpu *v = &m->cpu[k];

		if (!v->started)
			continue;
		machine_kick(v);
		pthread_join(v->thread, NULL);
	}
	if (m->kicker)
		pthread_join(m->kicker, NULL);
	while (m->poke_busy)
		usleep(1000);
}

void machine_run(struct machine *m, const struct image *image, bool on_device, unsigned int seconds,
	struct transcript *out)
{
	struct sigaction sa = {.sa_handler = on_signal};

	memset(m, 0, sizeof(*m));
	m->image = image;
	m->on_device = on_device;
	m->out = out;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->over, NULL);
	sigaction(SIGUSR1, &sa, NULL);
	m->sys = machine_open_kvm(on_device);
	machine_create(m);
	if (!m->done) {
		for (uint32_t k = 0; k < image->cpus; k++)
			if (!k || image->flags & IMAGE_IRQCHIP)
				machine_start(&m->cpu[k]);
		wait_over(m, seconds);
	}
	stop_threads(m);
	machine_close(m);
}
