// SPDX-License-Identifier: MIT
/*
 * Runs guest images and says which of their checks hold: run [-v] [-d] [-t SECONDS] IMAGE...
 * Images that never leave real mode run on the host's /dev/kvm too (or only there: -d), and what
 * they see must be the same. Meanwhile no page of this process may be writable and executable.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../api/maps.h"
#include "machine.h"

static unsigned int passed, failed;
static bool verbose;
static unsigned int seconds = 60;

static void fail(const char *image, const char *what)
{
	printf("FAIL %s: %s\n", image, what);
	failed++;
}

static uint32_t word(const struct image *i, size_t at)
{
	uint32_t v;

	memcpy(&v, i->bytes + at, 4);
	return v;
}

static bool image_load(struct image *i, const char *path)
{
	FILE *f = fopen(path, "rb");
	const char *slash = strstr(path, "guest/");

	i->name = slash ? slash + 6 : path;
	i->bytes = calloc(1, RAM_SIZE / 2);
	i->size = f ? fread(i->bytes, 1, RAM_SIZE / 2, f) : 0;
	if (f)
		fclose(f);
	if (i->size < 16 || word(i, 4) != IMAGE_MAGIC) {
		fail(i->name, "no guest image");
		return false;
	}
	i->flags = word(i, 8);
	i->cpus = word(i, 12);
	return i->cpus && i->cpus <= CPUS_MAX;
}

static void run_on(const struct image *i, bool on_device, struct transcript *t)
{
	struct machine *m = calloc(1, sizeof(*m));

	memset(t, 0, sizeof(*t));
	machine_run(m, i, on_device, seconds, t);
	free(m);
}

/* Each check of the guest, and that it came to its end. */
static void judge(const struct image *i, const struct transcript *t)
{
	const char *test = "";

	for (unsigned int k = 0; k < t->n; k++) {
		const struct line *l = &t->line[k];

		if (verbose && strcmp(test, l->test))
			printf("     %s: %s\n", i->name, l->test);
		test = l->test;
		if (l->got == l->want) {
			passed++;
			continue;
		}
		printf("FAIL %s: %s: %s: got %#llx, want %#llx\n", i->name, l->test, l->name,
		       (unsigned long long)l->got, (unsigned long long)l->want);
		failed++;
	}
	if (t->end[0]) {
		printf("FAIL %s: ended in \"%s\": %s\n", i->name, t->test, t->end);
		failed++;
	} else if (!t->n) {
		fail(i->name, "reported nothing");
	}
}

static bool line_same(const struct line *a, const struct line *b)
{
	return !strcmp(a->test, b->test) && !strcmp(a->name, b->name) && a->got == b->got;
}

/* The host's KVM must have seen the same. */
static void compare(const struct image *i, const struct transcript *a, const struct transcript *b)
{
	unsigned int n = a->n < b->n ? a->n : b->n;

	for (unsigned int k = 0; k < n; k++) {
		const struct line *x = &a->line[k], *y = &b->line[k];

		if (line_same(x, y)) {
			passed++;
			continue;
		}
		printf("FAIL %s: %s: %s: /dev/kvm has %s: %#llx, we have %#llx\n", i->name, x->test,
		       x->name, y->name, (unsigned long long)y->got, (unsigned long long)x->got);
		failed++;
	}
	if (strcmp(a->end, b->end) || a->n != b->n) {
		printf("FAIL %s: /dev/kvm ended in \"%s\" %s after %u checks, we after %u\n", i->name,
		       b->test, b->end, b->n, a->n);
		failed++;
	}
}

static bool device_usable(void)
{
	static int state = -1;
	int fd;

	if (state >= 0)
		return state;
	fd = machine_open_kvm(true);
	state = fd >= 0;
	if (fd < 0)
		printf("skip: comparison with the host: /dev/kvm: %s\n", strerror(errno));
	else
		close(fd);
	return state;
}

static void run_image(const char *path, bool only_device)
{
	struct transcript ours, host;
	struct image i;

	if (!image_load(&i, path))
		return;
	run_on(&i, only_device, &ours);
	judge(&i, &ours);
	if (!only_device && i.flags & IMAGE_REAL && device_usable()) {
		run_on(&i, true, &host);
		compare(&i, &ours, &host);
		free(host.line);
	}
	free(ours.line);
	free(i.bytes);
}

/* ---- W^X */

#define LOOK_EVERY_US 2000

static struct watch {
	pthread_t thread;
	bool end; /* atomic */
	unsigned int looks;
	char found[512]; /* a mapping */
} watch;

static void *watch_maps(void *arg)
{
	struct watch *w = arg;
	char line[512];
	int lines;

	for (; !__atomic_load_n(&w->end, __ATOMIC_RELAXED); usleep(LOOK_EVERY_US)) {
		bool found = maps_find_wx(line, sizeof(line), &lines);

		w->looks += lines > 5;
		if (found && !w->found[0])
			strcpy(w->found, line);
	}
	return NULL;
}

static void watch_start(void)
{
	if (!maps_forbid_wx())
		printf("W^X is not enforced: no PR_SET_MDWE before Linux 6.3\n");
	if (pthread_create(&watch.thread, NULL, watch_maps, &watch))
		fail("W^X", "no thread");
}

static void watch_stop(void)
{
	__atomic_store_n(&watch.end, true, __ATOMIC_RELAXED);
	pthread_join(watch.thread, NULL);
	if (watch.found[0])
		fail("W^X", watch.found);
	else if (!watch.looks)
		fail("W^X", "nobody looked");
	else
		passed++;
	if (verbose)
		printf("     W^X: %u looks\n", watch.looks);
}

int main(int argc, char **argv)
{
	bool only_device = false;
	int opt;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((opt = getopt(argc, argv, "vdt:")) != -1) {
		if (opt == 't')
			seconds = atoi(optarg);
		verbose |= opt == 'v';
		only_device |= opt == 'd';
	}
	verbose |= getenv("V") && *getenv("V");
	watch_start();
	for (int k = optind; k < argc; k++)
		run_image(argv[k], only_device);
	watch_stop();
	printf("%u passed, %u failed\n", passed, failed);
	return failed ? 1 : 0;
}
