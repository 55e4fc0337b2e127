// SPDX-License-Identifier: MIT
/*
 * Runs a fuzz target without libFuzzer: first the kept corpus, then inputs made from it and from
 * a generator whose seed is printed. Seed and number of an input give it again.
 *
 *	fuzz_decode [-seconds N] [-runs N] [-seed N] [-from N] [FILE or FOLDER...]
 */
#include "fuzz.h"

#include <dirent.h>
#include <signal.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define CORPUS_MAX 4096
#define HANG_SECONDS 30

static struct {
	uint8_t *p;
	size_t n;
	char name[256];
} corpus[CORPUS_MAX];
static size_t nr_corpus;

/* the input that is being run */
static uint8_t input[FUZZ_MAX];
static size_t input_size;
static uint64_t seed, number;
static const char *program;

/* ---- crashes */

static void save(int sig)
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "%s-%llx-%llu.crash", program, (unsigned long long)seed,
		 (unsigned long long)number);
	f = fopen(path, "w");
	if (f) {
		fwrite(input, 1, input_size, f);
		fclose(f);
	}
	fprintf(stderr, "%s: signal %d, seed %#llx, input %llu of %zu bytes: saved as %s\n", program,
		sig, (unsigned long long)seed, (unsigned long long)number, input_size, path);
}

static void on_crash(int sig)
{
	save(sig);
	signal(sig, SIG_DFL);
	raise(sig);
}

static void on_hang(int sig)
{
	(void)sig;
	fprintf(stderr, "%s: one input takes %d s\n", program, HANG_SECONDS);
	save(0);
	abort();
}

#ifdef __SANITIZE_ADDRESS__
void __sanitizer_set_death_callback(void (*fn)(void));

static void on_death(void)
{
	save(0);
}
#endif

static void catch_crashes(void)
{
	static const int signals[] = {SIGABRT, SIGILL, SIGFPE, SIGBUS, SIGSEGV, SIGTRAP, SIGSYS};
	struct sigaction sa = {.sa_handler = on_crash, .sa_flags = SA_ONSTACK};

	for (size_t k = 0; k < sizeof(signals) / sizeof(signals[0]); k++)
		sigaction(signals[k], &sa, NULL);
	signal(SIGPROF, on_hang);
#ifdef __SANITIZE_ADDRESS__
	__sanitizer_set_death_callback(on_death);
#endif
}

static double seconds_of(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static double now(void)
{
	return seconds_of(CLOCK_MONOTONIC);
}

/* The timer of CPU time is set anew now and then; an input that never ends meets it. */
static void run_input(void)
{
	if (number % 256 == 0) {
		timer_t t;
		static timer_t hang;
		static bool have;
		struct sigevent e = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGPROF};
		struct itimerspec when = {.it_value = {HANG_SECONDS, 0}};

		if (!have && !timer_create(CLOCK_PROCESS_CPUTIME_ID, &e, &t)) {
			hang = t;
			have = true;
		}
		if (have)
			timer_settime(hang, 0, &when, NULL);
	}
	fuzz_one(input, input_size);
}

/* ---- inputs */

static uint64_t state;

static uint64_t rnd(void)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* Seed and number alone decide, so that any input can be made again. */
static void seed_input(void)
{
	state = (seed + number) * 0x9e3779b97f4a7c15ull | 1;
	rnd();
	rnd();
}

static void make_random(void)
{
	input_size = rnd() % (rnd() % 4 ? 300 : FUZZ_MAX);
	for (size_t k = 0; k < input_size; k++)
		input[k] = rnd() >> 24;
}

static void mutate(void)
{
	size_t c = rnd() % nr_corpus;

	input_size = corpus[c].n;
	memcpy(input, corpus[c].p, input_size);
	for (int n = rnd() % 16; n >= 0; n--) {
		size_t at = input_size ? rnd() % input_size : 0, from, len;

		switch (rnd() % 5) {
		case 0:
			input[at] ^= 1 << rnd() % 8;
			break;
		case 1:
			input[at] = rnd() >> 16;
			break;
		case 2: /* a piece of another one */
			c = rnd() % nr_corpus;
			from = corpus[c].n ? rnd() % corpus[c].n : 0;
			len = rnd() % (corpus[c].n - from + 1);
			len = len < FUZZ_MAX - at ? len : FUZZ_MAX - at;
			memcpy(input + at, corpus[c].p + from, len);
			input_size = at + len > input_size ? at + len : input_size;
			break;
		case 3: /* take bytes out */
			len = rnd() % 16;
			if (at + len < input_size) {
				memmove(input + at, input + at + len, input_size - at - len);
				input_size -= len;
			}
			break;
		default: /* append */
			for (len = rnd() % 32; len && input_size < FUZZ_MAX; len--)
				input[input_size++] = rnd() >> 24;
		}
	}
}

static void add_file(const char *path)
{
	struct stat st;
	FILE *f = fopen(path, "r");

	if (!f || fstat(fileno(f), &st) || !S_ISREG(st.st_mode) || nr_corpus == CORPUS_MAX) {
		if (f)
			fclose(f);
		return;
	}
	corpus[nr_corpus].p = malloc(FUZZ_MAX);
	corpus[nr_corpus].n = fread(corpus[nr_corpus].p, 1, FUZZ_MAX, f);
	snprintf(corpus[nr_corpus].name, sizeof(corpus[0].name), "%s", path);
	nr_corpus++;
	fclose(f);
}

static void add_path(const char *path)
{
	DIR *d = opendir(path);
	struct dirent *e;
	char file[600];

	if (!d) {
		add_file(path);
		return;
	}
	while ((e = readdir(d))) {
		snprintf(file, sizeof(file), "%s/%s", path, e->d_name);
		if (e->d_name[0] != '.')
			add_file(file);
	}
	closedir(d);
}

/* ---- */

static void run_corpus(void)
{
	for (size_t k = 0; k < nr_corpus; k++) {
		number = k;
		input_size = corpus[k].n;
		memcpy(input, corpus[k].p, input_size);
		run_input();
	}
}

static void run_made(uint64_t first, uint64_t runs, double seconds)
{
	double start = now(), end = start + seconds, last = start, cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
	uint64_t done;

	for (done = 0; done < runs; done++) {
		number = first + done;
		seed_input();
		if (nr_corpus && rnd() % 2)
			mutate();
		else
			make_random();
		run_input();
		last = done % 16 ? last : now();
		if (last > end)
			break;
	}
	last = now();
	cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu;
	printf("%s: seed %#llx, %zu kept inputs, %llu made, %.0f executions per second, %.0f per CPU second\n",
	       program, (unsigned long long)seed, nr_corpus, (unsigned long long)done,
	       done / (last - start + 1e-9), done / (cpu + 1e-9));
}

int main(int argc, char **argv)
{
	uint64_t runs = ~0ull, from = 0;
	double seconds = 5;

	program = strrchr(argv[0], '/') ? strrchr(argv[0], '/') + 1 : argv[0];
	seed = time(NULL) * 1000003ull ^ getpid();
	for (int k = 1; k < argc; k++) {
		if (k + 1 < argc && !strcmp(argv[k], "-seconds"))
			seconds = atof(argv[++k]);
		else if (k + 1 < argc && !strcmp(argv[k], "-runs"))
			runs = strtoull(argv[++k], NULL, 0);
		else if (k + 1 < argc && !strcmp(argv[k], "-seed"))
			seed = strtoull(argv[++k], NULL, 0);
		else if (k + 1 < argc && !strcmp(argv[k], "-from"))
			from = strtoull(argv[++k], NULL, 0);
		else
			add_path(argv[k]);
	}
	printf("%s: seed %#llx\n", program, (unsigned long long)seed);
	fflush(stdout);
	catch_crashes();
	run_corpus();
	run_made(from, runs, seconds);
	printf("1 passed, 0 failed\n");
	return 0;
}
