// SPDX-License-Identifier: MIT
/*
 * `anykvm boot`: files are read and checked first, then the machine is made,
 * loaded and started; the main thread carries the terminal's input and waits
 * for the end.
 */
#include "vmm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <time.h>
#include <unistd.h>

/* All that a run reads before there is a machine. */
struct job {
	struct options o;
	struct image img;
	u8 *initrd;
	size_t initrd_len;
	struct plan plan;
	FILE *stats;
	int signals; /* signalfd */
};

/* Where all goes; only then is the initrd read, which may be too large. */
static int job_plan(struct job *j)
{
	const struct options *o = &j->o;
	int fd = -1, r;

	if (o->initrd) {
		fd = file_open(o->initrd, "initrd", &j->initrd_len);
		if (fd < 0)
			return -1;
	}
	r = plan_make(&j->plan, &j->img, j->initrd_len, strlen(o->append), o->memory);
	if (fd < 0)
		return r;
	if (r == 0)
		r = file_load(fd, o->initrd, "initrd", &j->initrd, j->initrd_len);
	close(fd);
	return r;
}

static int job_open(struct job *j)
{
	const struct options *o = &j->o;

	if (image_open(&j->img, o->kernel) < 0 || job_plan(j) < 0)
		return -1;
	if (o->stats) {
		j->stats = fopen(o->stats, "we");
		if (!j->stats)
			return vmm_error("cannot write %s: %s", o->stats, strerror(errno));
	}
	return 0;
}

static void job_close(struct job *j)
{
	image_close(&j->img);
	free(j->initrd);
	if (j->stats)
		fclose(j->stats);
	if (j->signals >= 0)
		close(j->signals);
}

/* Signals that end the run become input of the main loop. Threads inherit the mask. */
static int catch_signals(struct job *j)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGQUIT);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN); /* a closed output does not end the guest */
	j->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return j->signals < 0 ? vmm_error("signalfd: %s", strerror(errno)) : 0;
}

static int set_entry(struct machine *m, const struct plan *p)
{
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	int fd = m->vcpu[0].fd;

	if (m->api->ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
		return vmm_error("KVM_GET_SREGS: %s", strerror(errno));
	plan_registers(p, &regs, &sregs);
	if (m->api->ioctl(fd, KVM_SET_SREGS, &sregs) < 0)
		return vmm_error("KVM_SET_SREGS: %s", strerror(errno));
	if (m->api->ioctl(fd, KVM_SET_REGS, &regs) < 0)
		return vmm_error("KVM_SET_REGS: %s", strerror(errno));
	return 0;
}

static void end_now(struct machine *m, enum end how, const char *why)
{
	pthread_mutex_lock(&m->lock);
	machine_end(m, how, "%s", why);
	pthread_mutex_unlock(&m->lock);
}

/* Typed bytes that the UART has not taken yet. */
struct input {
	u8 buf[256];
	size_t first, n;
	bool closed;
};

static void input_step(struct machine *m, struct input *in, bool readable)
{
	ssize_t got;

	if (in->n == 0 && readable) {
		got = term_read(in->buf, sizeof(in->buf));
		if (got == TERM_QUIT)
			end_now(m, END_QUIT, "");
		in->closed = got == 0;
		in->first = 0;
		in->n = got > 0 ? got : 0;
	}
	if (in->n) {
		size_t took = machine_input(m, in->buf + in->first, in->n);

		in->first += took;
		in->n -= took;
	}
}

/* Until the machine has ended. Bytes that the guest has no room for wait and try every 10 ms. */
static int main_loop(struct machine *m, struct job *j)
{
	struct input in = {.n = 0};
	struct signalfd_siginfo si;

	while (m->end == END_NOT) {
		struct pollfd p[] = {
			{.fd = m->end_event, .events = POLLIN},
			{.fd = j->signals, .events = POLLIN},
			{.fd = in.closed || in.n ? -1 : STDIN_FILENO, .events = POLLIN},
		};

		if (poll(p, 3, in.n ? 10 : -1) < 0 && errno != EINTR)
			end_now(m, END_FAILURE, "poll failed");
		if (p[1].revents && read(j->signals, &si, sizeof(si)) == (ssize_t)sizeof(si)) {
			end_now(m, END_SIGNAL, strsignal(si.ssi_signo));
			return si.ssi_signo;
		}
		input_step(m, &in, p[2].revents != 0);
	}
	return 0;
}

/* Says how it ended; the exit status. */
static int report_end(const struct machine *m, int sig)
{
	enum end how = m->end;

	switch (how) {
	case END_RESTART:
		vmm_error("the guest asked for a restart");
		return STATUS_OK;
	case END_SIGNAL:
		vmm_error("ended by signal: %s", m->why);
		return 128 + sig;
	case END_TRIPLE:
		vmm_error("%s", m->why);
		return STATUS_TRIPLE;
	case END_INTERNAL:
		vmm_error("%s", m->why);
		return STATUS_INTERNAL;
	case END_FAILURE:
		if (*m->why)
			vmm_error("%s", m->why);
		return STATUS_FAILURE;
	default:
		return STATUS_OK;
	}
}

static int run(struct machine *m, struct job *j)
{
	double start = clock_seconds(CLOCK_MONOTONIC);
	int sig = 0, status;

	plan_load(&j->plan, &j->img, j->initrd, j->o.append, &m->ram);
	acpi_build(ram_at(&m->ram, ACPI_RSDP, ACPI_END - ACPI_RSDP), m->cpus);
	if (set_entry(m, &j->plan) < 0)
		return STATUS_FAILURE;
	term_setup();
	if (machine_start(m) == 0)
		sig = main_loop(m, j);
	machine_stop(m);
	term_restore();
	status = report_end(m, sig);
	if (j->stats &&
	    stats_write(m, j->stats, j->o.stats, clock_seconds(CLOCK_MONOTONIC) - start) < 0 &&
	    status == STATUS_OK)
		status = STATUS_FAILURE;
	return status;
}

static int boot(struct job *j)
{
	const struct options *o = &j->o;
	struct machine m;
	int status = STATUS_FAILURE;

	if (job_open(j) < 0 || catch_signals(j) < 0)
		return STATUS_FAILURE;
	if (machine_create(&m, o->device ? &api_device : &api_library, o->device, o->memory,
			   o->cpus) == 0)
		status = run(&m, j);
	machine_destroy(&m);
	return status;
}

int boot_main(int argc, char **argv)
{
	struct job j = {.signals = -1};
	int status;

	if (options_parse(&j.o, argc, argv) < 0)
		return STATUS_USAGE;
	if (j.o.help) {
		options_help(stdout);
		return STATUS_OK;
	}
	status = boot(&j);
	job_close(&j);
	return status;
}
