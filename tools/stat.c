// SPDX-License-Identifier: MIT
/*
 * anykvm stat: live counters of running VMs, as kvm_stat shows them. Each vCPU's memfd, found in
 * /proc/PID/fd, holds its statistics in KVM_GET_STATS_FD's format behind kvm_run and the two pages
 * after it. Each look opens and closes it anew: an open one would hide that the VM has ended.
 */
#include "launch.h"

#include <anykvm.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../vmm/vmm.h"

#define MEMFD	   "/memfd:kvm-vcpu:"
#define FILE_AT	   64 /* of the statistics; before them the time until which somebody looks */
#define FILE_MAX   (64u << 10)
#define VCPUS_MAX  4096
#define EVENTS_MAX 256
#define NAME_MAX_  64
#define LOOK_NS	   3000000000ull

struct event {
	char name[NAME_MAX_];
	uint64_t total, before;
};

static struct {
	long only; /* this process; 0: all */
	off_t at;  /* of the statistics in a vCPU's file */
	ino_t seen[VCPUS_MAX];
	unsigned int vcpus, vms, nr;
	struct event event[EVENTS_MAX];
} look;

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void nap(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

static void add(const char *name, uint64_t value)
{
	unsigned int k = 0;

	while (k < look.nr && strcmp(look.event[k].name, name))
		k++;
	if (k == EVENTS_MAX)
		return;
	if (k == look.nr) {
		snprintf(look.event[k].name, NAME_MAX_, "%s", name);
		look.nr++;
	}
	look.event[k].total += value;
}

/* What is in a file of another process may be anything. */
static void add_file(const uint8_t *p, size_t n)
{
	struct kvm_stats_header h;
	char name[NAME_MAX_];
	uint64_t value;

	memcpy(&h, p, sizeof(h));
	if (h.name_size >= NAME_MAX_ || h.num_desc > EVENTS_MAX)
		return;
	for (uint32_t k = 0; k < h.num_desc; k++) {
		struct kvm_stats_desc d;
		size_t at = h.desc_offset + k * (sizeof(d) + h.name_size);

		if (at + sizeof(d) + h.name_size > n)
			return;
		memcpy(&d, p + at, sizeof(d));
		memcpy(name, p + at + sizeof(d), h.name_size);
		name[h.name_size] = 0;
		at = (size_t)h.data_offset + d.offset;
		if ((d.flags & KVM_STATS_TYPE_MASK) != KVM_STATS_TYPE_CUMULATIVE || d.size != 1 ||
		    at + sizeof(value) > n)
			continue;
		memcpy(&value, p + at, sizeof(value));
		add(name, value);
	}
}

static bool is_new(int fd)
{
	struct stat st;

	if (fstat(fd, &st) || look.vcpus == VCPUS_MAX)
		return false;
	for (unsigned int k = 0; k < look.vcpus; k++)
		if (look.seen[k] == st.st_ino)
			return false;
	look.seen[look.vcpus++] = st.st_ino;
	return true;
}

static void look_at_vcpu(const char *path)
{
	static uint8_t file[FILE_MAX];
	uint64_t until = now_ns() + LOOK_NS;
	int fd = open(path, O_RDWR | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return;
	if (is_new(fd)) {
		n = pwrite(fd, &until, sizeof(until), look.at);
		n = n > 0 ? pread(fd, file, sizeof(file), look.at + FILE_AT) : 0;
		if (n > (ssize_t)sizeof(struct kvm_stats_header))
			add_file(file, n);
	}
	close(fd);
}

static void look_at_process(const char *pid)
{
	char path[64], name[512];
	unsigned int before = look.vcpus;
	struct dirent *e;
	DIR *d;

	snprintf(path, sizeof(path), "/proc/%.16s/fd", pid);
	d = opendir(path);
	while (d && (e = readdir(d))) {
		ssize_t n;

		snprintf(path, sizeof(path), "/proc/%.16s/fd/%.16s", pid, e->d_name);
		n = readlink(path, name, sizeof(name) - 1);
		if (n > (ssize_t)strlen(MEMFD) && !memcmp(name, MEMFD, strlen(MEMFD)))
			look_at_vcpu(path);
	}
	if (d)
		closedir(d);
	look.vms += look.vcpus > before;
}

static void look_around(void)
{
	char pid[24];
	struct dirent *e;
	DIR *d;

	look.vcpus = look.vms = 0;
	for (unsigned int k = 0; k < look.nr; k++) {
		look.event[k].before = look.event[k].total;
		look.event[k].total = 0;
	}
	if (look.only) {
		snprintf(pid, sizeof(pid), "%ld", look.only);
		look_at_process(pid);
		return;
	}
	d = opendir("/proc");
	while (d && (e = readdir(d)))
		if (isdigit((unsigned char)e->d_name[0]))
			look_at_process(e->d_name);
	if (d)
		closedir(d);
}

static int by_total(const void *a, const void *b)
{
	uint64_t x = ((const struct event *)a)->total, y = ((const struct event *)b)->total;

	return x < y ? 1 : x > y ? -1 : 0;
}

/* Is it one of the events that %Total adds up? Not time, not instructions. */
static bool counts(const struct event *e)
{
	return strcmp(e->name, "cpu_insns") && !strstr(e->name, "_ns");
}

static void show_event(const struct event *e, uint64_t sum, double seconds)
{
	printf("%-28s %16llu ", e->name, (unsigned long long)e->total);
	if (counts(e))
		printf("%7.1f", 100.0 * e->total / sum);
	else
		printf("%7s", "");
	printf(" %12.0f\n", e->total > e->before ? (e->total - e->before) / seconds : 0.0);
}

static void show(double seconds)
{
	uint64_t sum = 0;

	qsort(look.event, look.nr, sizeof(look.event[0]), by_total);
	for (unsigned int k = 0; k < look.nr; k++)
		sum += counts(&look.event[k]) ? look.event[k].total : 0;
	if (isatty(STDOUT_FILENO))
		fputs("\033[H\033[J", stdout);
	printf("anykvm: %u process%s, %u vCPU%s\n", look.vms, look.vms == 1 ? "" : "es", look.vcpus,
	       look.vcpus == 1 ? "" : "s");
	printf("%-28s %16s %7s %12s\n", "Event", "Total", "%Total", "CurAvg/s");
	for (unsigned int k = 0; k < look.nr; k++)
		if (look.event[k].total)
			show_event(&look.event[k], sum, seconds);
	fflush(stdout);
}

static int watch(bool once)
{
	uint64_t last, now;

	look_around(); /* says that we look: what it finds may be old */
	nap(200);
	look_around();
	for (last = now_ns(); look.vcpus; last = now) {
		nap(1000);
		now = now_ns();
		look_around();
		if (look.vcpus)
			show((now - last) / 1e9);
		if (look.vcpus && once)
			return STATUS_OK;
	}
	if (look.only)
		vmm_error("process %ld has no VM of anykvm, or is another user's", look.only);
	else
		vmm_error("no VM of anykvm is running");
	return STATUS_FAILURE;
}

static bool parse(int argc, char **argv, bool *once)
{
	for (int k = 1; k < argc; k++) {
		if (!strcmp(argv[k], "-1") || !strcmp(argv[k], "--once"))
			*once = true;
		else if ((!strcmp(argv[k], "-p") || !strcmp(argv[k], "--pid")) && k + 1 < argc)
			look.only = strtol(argv[++k], NULL, 10);
		else
			return false;
		if (look.only < 0)
			return false;
	}
	return true;
}

int stat_main(int argc, char **argv)
{
	bool once = false;
	int kvm;

	if (!parse(argc, argv, &once)) {
		fputs("usage: anykvm stat [-1] [-p PID]\n", stderr);
		return STATUS_USAGE;
	}
	kvm = anykvm_open("/dev/kvm", O_RDWR | O_CLOEXEC);
	look.at = anykvm_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	anykvm_close(kvm);
	return watch(once);
}
