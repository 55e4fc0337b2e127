/* SPDX-License-Identifier: MIT */
/* A virtual machine for one guest image: machine.c runs it, service.c does what it asks for. */
#ifndef GUEST_MACHINE_H
#define GUEST_MACHINE_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "abi.h"

#define CPUS_MAX 4

struct image {
	const char *name;
	uint8_t *bytes;
	size_t size;
	uint32_t flags, cpus;
};

/* One line of what a guest said. */
struct line {
	char test[64], name[64];
	uint64_t got, want;
};

struct transcript {
	struct line *line;
	unsigned int n, room;
	char test[64]; /* the current one */
	char end[160]; /* why the guest stopped; empty: by itself */
};

struct machine;

struct vcpu {
	struct machine *m;
	int id, fd;
	struct kvm_run *run;
	pthread_t thread;
	_Atomic bool started, running;
	/* SVC_SHUTDOWN: state to go back to, and the caller's record */
	bool shutdown_wanted;
	struct kvm_regs back_regs;
	struct kvm_sregs back_sregs;
	struct service *back;
	struct exit_log *debug_log;
	uint32_t debug_control;
	int window_vector; /* SVC_IRQ_WINDOW, or -1 */
};

struct machine {
	const struct image *image;
	bool on_device; /* the host's KVM */
	int sys, vm;
	uint8_t *ram;
	struct vcpu cpu[CPUS_MAX];
	pthread_mutex_t lock; /* transcript and services */
	pthread_cond_t over;
	_Atomic bool done;
	struct transcript *out;
	uint8_t device[MMIO_SIZE], ports[64];
	struct exit_log *mmio_log;
	/* SVC_KICK */
	_Atomic unsigned int kick_us, kick_cpu;
	pthread_t kicker;
	/* SVC_POKE */
	_Atomic bool poke_busy;
};

int machine_open_kvm(bool on_device); /* a system descriptor, or -1 with errno */
void machine_run(struct machine *m, const struct image *image, bool on_device, unsigned int seconds,
	struct transcript *out);

/* An ioctl, on the library or the host's KVM: its result, or -errno. */
long machine_ioctl(struct machine *m, int fd, unsigned long req, void *arg);
void machine_stop(struct machine *m, const char *why, ...) __attribute__((format(printf, 2, 3)));
int machine_start(struct vcpu *v); /* its thread: 0 or -errno */
void machine_kick(struct vcpu *v);
/* Guest RAM [gpa, +len), or NULL when it is not there. */
void *machine_ram(struct machine *m, uint64_t gpa, uint64_t len);

void service_call(struct vcpu *v, uint64_t gpa);
bool service_shutdown(struct vcpu *v); /* KVM_EXIT_SHUTDOWN: was it wanted? */
void service_irq_window(struct vcpu *v);
void service_after_debug(struct vcpu *v, bool is_int3);
void exit_log_add(struct exit_log *log, struct exit_entry e);

#endif
