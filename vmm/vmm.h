/* SPDX-License-Identifier: MIT */
/*
 * vmm: `anykvm boot`, a small virtual machine monitor for one Linux guest with
 * a serial console. It is written against the KVM API only, so it runs on
 * libanykvm and on a /dev/kvm alike, and it is the library's first example.
 * Nothing in src/ is included here.
 *
 * Read in this order: boot.c (the story), image.c and load.c (the kernel in
 * memory), machine.c and vcpu.c (KVM), bus.c and the devices behind it.
 */
#ifndef VMM_VMM_H
#define VMM_VMM_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <asm/bootparam.h>
#include <linux/kvm.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define KIB 1024ull
#define MIB (1024 * KIB)
#define GIB (1024 * MIB)

#define MAX_CPUS 240		 /* APIC ids below 255, and the IOAPIC wants one */
#define LOW_RAM_END (3 * GIB)	 /* RAM beyond goes above 4 GiB: devices live between */
#define HIGH_RAM_START (4 * GIB)

/* Exit statuses of the command. Signals end it with 128 + their number. */
enum status {
	STATUS_OK = 0,	       /* power-off, restart, Ctrl-A x */
	STATUS_FAILURE = 1,    /* the host or a file failed us */
	STATUS_USAGE = 2,      /* the command line is wrong */
	STATUS_TRIPLE = 3,     /* the guest shut its processor down */
	STATUS_INTERNAL = 4,   /* KVM gave the guest up */
};

/* ---- api.c: the KVM calls, of the library or of a device */

struct kvm_api {
	int (*open)(const char *path, int flags);
	int (*ioctl)(int fd, unsigned long req, ...);
	void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t off);
	int (*munmap)(void *addr, size_t len);
	int (*close)(int fd);
};
extern const struct kvm_api api_library; /* libanykvm */
extern const struct kvm_api api_device;	 /* the host kernel */

/* ---- util.c */

/* Prints "anykvm: ..." to stderr and returns -1. */
int vmm_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Opens a regular file that is not empty; `what` names it in messages. Its descriptor or -1. */
int file_open(const char *path, const char *what, size_t *size);
/* Reads all of it into memory of its own. 0 or -1. */
int file_load(int fd, const char *path, const char *what, u8 **data, size_t size);
/* "512M", "2G", "65536K"; a plain number counts MiB. 0 or -1 (silent). */
int parse_size(const char *s, u64 *size);
/* Seconds of CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, ... */
double clock_seconds(clockid_t id);

/* ---- options.c */

struct options {
	const char *kernel, *initrd, *append;
	const char *device; /* NULL: the library */
	const char *stats;
	u64 memory;
	int cpus;
	bool help;
};
/* argv[0] is the subcommand. 0, or -1 after a message. */
int options_parse(struct options *o, int argc, char **argv);
void options_help(FILE *to);

/* ---- image.c: a bzImage, checked */

struct image {
	const char *path;
	u8 *file;
	size_t size;
	struct setup_header hdr; /* as far as the kernel's protocol has it, else 0 */
	size_t code, code_len;	 /* the part that is loaded, in the file */
};
/* Reads and checks a kernel. 0, or -1 after a message; the image is then empty. */
int image_open(struct image *img, const char *path);
void image_close(struct image *img);

/* ---- load.c: where everything lies in guest memory */

struct ram {
	u8 *host;
	u64 size, low; /* `low` bytes from 0, the rest from HIGH_RAM_START */
};
struct plan {
	u64 kernel, kernel_end; /* the area the kernel needs to unpack itself */
	u64 initrd, initrd_len;
};
/* Decides and checks the layout before there is any memory. 0 or -1 after a message. */
int plan_make(struct plan *p, const struct image *img, size_t initrd_len, size_t cmdline_len,
	      u64 memory);
/* Writes kernel, initrd, command line, boot_params, page tables, GDT, as plan_make() said. */
void plan_load(const struct plan *p, const struct image *img, const u8 *initrd,
	       const char *cmdline, const struct ram *ram);
/* The state in which the 64-bit entry point is entered. `s` holds the reset state on entry. */
void plan_registers(const struct plan *p, struct kvm_regs *r, struct kvm_sregs *s);
/* Host address of `len` bytes at `gpa`, or NULL when they are not all RAM. */
void *ram_at(const struct ram *ram, u64 gpa, u64 len);
u64 ram_low(u64 memory);

/* ---- acpi.c */

#define ACPI_RSDP   0xe0000ull
#define ACPI_END    0x100000ull
#define ACPI_SCI    9
#define PORT_PM1_EVT 0x600
#define PORT_PM1_CNT 0x604
#define PORT_PM_TMR  0x608
#define PORT_RESET   0xcf9
#define ACPI_S5_TYPE 5
/* Writes all tables to `host`, which is ACPI_RSDP in the guest. Returns the bytes used. */
size_t acpi_build(u8 *host, int cpus);

/* ---- uart.c: 16550A */

#define UART_FIFO 16
struct uart {
	/* set at creation */
	void (*emit)(void *ctx, u8 byte);
	void (*irq)(void *ctx, bool level);
	void *ctx;
	/* registers */
	u8 ier, fcr, lcr, mcr, scr, dll, dlm, lsr, msr;
	u8 fifo[UART_FIFO];
	unsigned int first, count;
	bool thre; /* a THRE interrupt is due */
	bool line; /* level last given to irq() */
};
void uart_reset(struct uart *u);
u8 uart_read(struct uart *u, unsigned int reg);
void uart_write(struct uart *u, unsigned int reg, u8 v);
/* Bytes that uart_receive() will take now. */
unsigned int uart_room(const struct uart *u);
void uart_receive(struct uart *u, u8 byte);

/* ---- rtc.c: MC146818 clock and CMOS */

struct rtc {
	u8 index;
	u8 cmos[128];
};
void rtc_reset(struct rtc *r);
u8 rtc_read(struct rtc *r, unsigned int port, time_t now);
void rtc_write(struct rtc *r, unsigned int port, u8 v);

/* ---- machine.c, vcpu.c, bus.c */

enum end {
	END_NOT = 0,
	END_POWEROFF,
	END_RESTART,
	END_QUIT,     /* Ctrl-A x */
	END_SIGNAL,
	END_TRIPLE,
	END_INTERNAL,
	END_FAILURE,
};

#define EXIT_KINDS 40
struct vcpu {
	struct machine *m;
	int id, fd;
	struct kvm_run *run;
	size_t run_len;
	pthread_t thread;
	bool started;
	u64 exits[EXIT_KINDS]; /* by exit reason; the last one counts all unknown */
};

struct machine {
	const struct kvm_api *api;
	struct ram ram;
	int sys, vm;
	int cpus;
	struct vcpu *vcpu;
	struct kvm_cpuid2 *cpuid;

	/* under lock: devices and the end */
	pthread_mutex_t lock;
	struct uart uart;
	struct rtc rtc;
	u16 pm1_enable, pm1_control;
	char why[256]; /* message of the end, may be empty */

	_Atomic int end;  /* enum end; written once, under lock */
	int end_event;	  /* eventfd, written at the end */
};

/* Creates VM, memory, chips and vCPUs. 0, or -1 after a message; destroy it in both cases. */
int machine_create(struct machine *m, const struct kvm_api *api, const char *device, u64 memory,
		   int cpus);
void machine_destroy(struct machine *m);
/* Starts the vCPUs' threads. 0, or -1 after a message. */
int machine_start(struct machine *m);
/* Asks the vCPUs' threads to end and waits for them. */
void machine_stop(struct machine *m);
/* Records how it ended; the first caller wins. `fmt` may be "". Lock held. */
void machine_end(struct machine *m, enum end how, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Gives terminal input to the UART, as much as it takes; returns how much. */
size_t machine_input(struct machine *m, const u8 *data, size_t n);
int vcpu_create(struct vcpu *v, struct machine *m, int id);
void vcpu_destroy(struct vcpu *v);
void *vcpu_thread(void *vcpu);
/* Installs the handler of the signal that interrupts KVM_RUN. */
void vcpu_kick_setup(void);
void vcpu_kick(struct vcpu *v);
const char *vcpu_exit_name(unsigned int reason);

/* One port access of `len` bytes (1, 2, 4) at `data`. Lock held. */
void bus_port(struct machine *m, u16 port, bool write, u8 *data, unsigned int len);

/* ---- term.c */

#define TERM_QUIT (-2)
/* Raw mode if stdin is our terminal; it is restored at exit() and when a fatal signal comes. */
void term_setup(void);
void term_restore(void);
/*
 * Reads input for the guest: bytes, 0 at the end of file, -1 when there is nothing now,
 * TERM_QUIT after Ctrl-A x.
 */
ssize_t term_read(u8 *buf, size_t n);
void term_write(u8 byte);
/* Filters `n` typed bytes in place for Ctrl-A commands; the number that is left, or TERM_QUIT. */
ssize_t term_filter(u8 *buf, size_t n, bool *prefix);

/* ---- stats.c */

/* Writes one flat JSON object; see anykvm(1). 0 or -1 after a message. Threads have ended. */
int stats_write(struct machine *m, FILE *f, const char *path, double wall);

/* ---- boot.c */
int boot_main(int argc, char **argv);

#endif
