// SPDX-License-Identifier: MIT
/*
 * The campaign: for every row batches of cases, both sides, verdicts, and the figures.
 *
 * native_diff [-n CASES_PER_ROW] [-t SECONDS] [-s SEED] [-j JOBS] [-r ROW|NAME] [-c CASE] [-m BITS] [-l] [-x]
 *   -s  seed of the campaign; printed, random by default
 *   -t  stop after so many seconds, all rows having had about the same number of cases
 *   -c  one case (with -r): the seed printed with a difference
 *   -m  64: 64-bit mode (default), 32, 16: compatibility mode; given again: one after the other
 *   -l  list the rows and what each has had
 *   -x  stop at the first difference
 *
 * A difference is run again with a new reference process and a new guest, to tell those that one
 * case makes from those that need what ran before it. Both are failures.
 */
#include "compare.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAX_ROWS 4096
#define MAX_JOBS 64

struct row_stat {
	u64 cases, retired, masked, open, failed, unconfirmed, ud;
	bool ungenerated;
};

/* Shared by all workers; each row belongs to one of them. */
static struct stats {
	struct row_stat row[MAX_ROWS];
	u64 roads[MAX_JOBS][NR_ROADS];
	u32 shown, shown_once;
} *stats;

static struct {
	u64 n, seed, only_case;
	unsigned int jobs;
	double seconds;
	const char *only;
	enum insn_mode mode; /* of the current run */
	enum insn_mode modes[3];
	unsigned int nr_modes;
	bool list, one_case, stop_at_first;
} opt = {.n = 10000};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

static void *shared(size_t n)
{
	void *p = mmap(NULL, n, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED) {
		perror("mmap");
		exit(2);
	}
	return p;
}

/* ---- the reference, as its parent sees it --------------------------------------------------- */

struct reference {
	pid_t pid;
	int to, from;
	struct batch *b;
};

static void ref_start(struct reference *r)
{
	int down[2], up[2];

	if (pipe(down) || pipe(up)) {
		perror("pipe");
		exit(2);
	}
	r->pid = fork();
	if (r->pid < 0) {
		perror("fork");
		exit(2);
	}
	if (!r->pid) {
		close(down[1]);
		close(up[0]);
		ref_main(r->b, down[0], up[1]);
	}
	close(down[0]);
	close(up[1]);
	r->to = down[1];
	r->from = up[0];
}

static void ref_stop(struct reference *r)
{
	close(r->to);
	close(r->from);
	kill(r->pid, SIGKILL);
	waitpid(r->pid, NULL, 0);
}

static int wait_readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	double end = now() + 60;
	int n;

	do
		n = poll(&p, 1, 1000);
	while ((n == 0 || (n < 0 && errno == EINTR)) && now() < end);
	return n;
}

/* Runs the batch. A reference that dies leaves VECTOR_DIED in its case and the rest. */
static void ref_run(struct reference *r)
{
	u8 done;

	for (unsigned int k = 0; k < r->b->n; k++)
		r->b->out[k].vector = VECTOR_DIED;
	if (write(r->to, "", 1) == 1 && wait_readable(r->from) == 1 && read(r->from, &done, 1) == 1)
		return;
	ref_stop(r);
	ref_start(r);
}

/* ---- reports ---------------------------------------------------------------------------------- */

static void print_state(const struct native_case *c)
{
	const u64 *g = c->in.gpr;

	for (unsigned int k = 0; k < 16; k += 4)
		printf("    r%-2u in   %016llx %016llx %016llx %016llx\n", k, (unsigned long long)g[k],
			(unsigned long long)g[k + 1], (unsigned long long)g[k + 2],
			(unsigned long long)g[k + 3]);
	printf("    rflags %06llx mxcsr %04x x87 cw %02x%02x sw %02x%02x tag %02x fs %llx gs %llx\n",
		(unsigned long long)c->in.rflags, c->in.mxcsr, c->in.fx[1], c->in.fx[0], c->in.fx[3],
		c->in.fx[2], c->in.fx[4], (unsigned long long)c->in.fs_base,
		(unsigned long long)c->in.gs_base);
	for (unsigned int k = 0; k < c->nr_pokes; k++) {
		printf("    memory %lx:", DATA + c->pokes[k].off);
		for (unsigned int j = 0; j < c->pokes[k].len; j++)
			printf(" %02x", c->pokes[k].data[j]);
		printf("\n");
	}
}

static void print_vectors(const struct native_case *c)
{
	for (unsigned int k = 0; k < 8; k++) {
		printf("    st%u in   ", k);
		for (unsigned int j = 0; j < 10; j++)
			printf("%02x", c->in.fx[32 + 16 * k + j]);
		printf("  ymm%u, %u in ", 2 * k, 2 * k + 1);
		for (unsigned int j = 0; j < 64; j++)
			printf("%02x%s", c->in.ymm[2 * k + j / 32][j % 32], j == 31 ? " " : "");
		printf("\n");
	}
}

static void report(const struct native_case *c, const struct outcome *host,
	const struct outcome *ours)
{
	static const char *const mode_option[] = {[MODE_16] = "-m 16 ", [MODE_32] = "-m 32 ", [MODE_64] = ""};
	static const char *const runs[] = {"block", "translated", "exec", "bounce"};
	static char diff[1 << 16];
	char text[96] = "#UD";
	struct insn i;

	diff[0] = 0;
	compare(c, host, ours, diff, sizeof(diff));
	if (insn_decode(&i, c->mode, c->code, c->len) == DECODE_OK)
		insn_text(&i, text, sizeof(text));
	printf("DIFFERENCE row %u %s (%s):", c->row, insn_rows[c->row].name, runs[c->road]);
	for (unsigned int k = 0; k < c->len; k++)
		printf(" %02x", c->code[k]);
	printf("  %s\n    rip %llx; replay: %s-r %u -c %llu\n", text, (unsigned long long)c->in.rip,
		mode_option[c->mode], c->row, (unsigned long long)c->seed);
	print_state(c);
	if (opt.one_case)
		print_vectors(c);
	printf("    vector host %x (cr2 %llx) ours %x (cr2 %llx)\n%s", host->vector,
		(unsigned long long)host->cr2, ours->vector, (unsigned long long)ours->cr2, diff);
	fflush(stdout);
}

/* ---- one worker --------------------------------------------------------------------------------- */

struct worker {
	unsigned int id;
	struct reference ref;
	struct ours *ours;
	struct outcome out;
};

static struct ours *volatile watched;
static volatile u64 progress;

/* A guest that has made no progress between two alarms is kicked. */
static void on_alarm(int sig)
{
	static u64 last;

	(void)sig;
	if (watched && last == progress)
		ours_kick(watched);
	last = progress;
}

static sigjmp_buf crashed;

/* A host exception in our own process: the worst of all differences. */
static void on_crash(int sig)
{
	siglongjmp(crashed, sig);
}

static enum road run_ours(struct worker *w, const struct native_case *c, struct outcome *out)
{
	enum road road;
	int sig = sigsetjmp(crashed, 0);

	if (sig) {
		memset(out, 0, sizeof(*out));
		out->vector = VECTOR_CRASH;
		out->error = sig;
		w->ours = ours_create();
		return ROAD_NONE;
	}
	progress++;
	watched = w->ours;
	road = ours_run(w->ours, c, out);
	watched = NULL;
	return road;
}

/* The same case with nothing left over from others: does it still differ? */
static bool confirm(struct worker *w, const struct native_case *c)
{
	struct native_case again = *c;

	ref_stop(&w->ref);
	ref_start(&w->ref);
	w->ours = ours_create(); /* the old one is kept: a rare event, and nothing may be shared */
	w->ref.b->n = 1;
	w->ref.b->c[0] = again;
	ref_run(&w->ref);
	run_ours(w, &again, &w->out);
	if (compare(&again, &w->ref.b->out[0], &w->out, NULL, 0) != DIFFERENT)
		return false;
	if (stats->row[c->row].failed < 2 && __atomic_add_fetch(&stats->shown, 1, __ATOMIC_RELAXED) <= 60)
		report(&again, &w->ref.b->out[0], &w->out);
	return true;
}

static void judge(struct worker *w, const struct native_case *c, const struct outcome *host)
{
	struct row_stat *s = &stats->row[c->row];
	enum road road = run_ours(w, c, &w->out);
	enum verdict v = compare(c, host, &w->out, NULL, 0);
	struct native_case copy;
	struct outcome first;

	s->cases++;
	s->retired += outcome_retired(c, host);
	s->ud += !c->decodes;
	s->masked += v == EQUAL_MASKED;
	s->open += v == EQUAL_OPEN;
	stats->roads[w->id][road]++;
	if (v != DIFFERENT)
		return;
	copy = *c;
	first = w->out;
	if (s->failed >= 3 || confirm(w, &copy)) { /* three are proof enough: no more fresh starts */
		s->failed++;
		return;
	}
	s->unconfirmed++;
	s->failed++;
	if (__atomic_add_fetch(&stats->shown_once, 1, __ATOMIC_RELAXED) <= 5) {
		printf("not confirmed by a fresh start: ");
		report(&copy, host, &first);
	}
}

static u64 case_seed(u32 row, u64 n)
{
	struct rng r = {.s = opt.seed ^ (u64)row << 40 ^ n};

	return rnd(&r);
}

static void run_batch(struct worker *w, u32 row, u64 first, u64 n)
{
	static struct batch done;
	struct batch *b = w->ref.b;

	b->n = 0;
	for (u64 k = 0; k < n; k++)
		if (gen_case(&b->c[b->n], row, opt.one_case ? opt.only_case : case_seed(row, first + k), opt.mode))
			b->n++;
	stats->row[row].ungenerated |= b->n < n;
	if (!b->n)
		return;
	ref_run(&w->ref);
	done.n = b->n;
	memcpy(done.c, b->c, b->n * sizeof(b->c[0]));
	memcpy(done.out, b->out, b->n * sizeof(b->out[0]));
	for (unsigned int k = 0; k < done.n; k++)
		judge(w, &done.c[k], &done.out[k]);
}

static bool wanted(u32 row)
{
	char *end;

	if (!opt.only)
		return true;
	if (strtoul(opt.only, &end, 10) == row && !*end)
		return true;
	return !strcmp(opt.only, insn_rows[row].name);
}

static void catch_crashes(void)
{
	static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP};
	struct sigaction sa = {.sa_handler = on_crash, .sa_flags = SA_NODEFER};

	for (unsigned int k = 0; k < ARRAY_SIZE(signals); k++)
		sigaction(signals[k], &sa, NULL);
}

static void work(struct worker *w)
{
	struct itimerval every = {.it_interval = {.tv_sec = 2}, .it_value = {.tv_sec = 2}};
	double end = now() + opt.seconds;

	w->ref.b = shared(sizeof(*w->ref.b));
	w->ours = ours_create();
	if (!w->ours) {
		fprintf(stderr, "out of memory\n");
		exit(2);
	}
	ref_start(&w->ref);
	signal(SIGVTALRM, on_alarm);
	catch_crashes();
	signal(SIGPIPE, SIG_IGN);
	setitimer(ITIMER_VIRTUAL, &every, NULL);
	for (u64 first = 0; first < opt.n; first += BATCH)
		for (u32 row = 0; row < nr_insn_rows; row++) {
			if (row % opt.jobs != w->id || !wanted(row) || row_excluded(row, opt.mode) ||
				!ours_has(w->ours, insn_rows[row].cpuf))
				continue;
			if ((opt.seconds && now() > end) || (opt.stop_at_first && stats->shown))
				break;
			run_batch(w, row, first, MIN(opt.n - first, BATCH));
		}
	ref_stop(&w->ref);
	exit(0);
}

/* ---- the end -------------------------------------------------------------------------------------- */

static void list_rows(const struct ours *o)
{
	for (u32 row = 0; row < nr_insn_rows; row++) {
		const struct row_stat *s = &stats->row[row];

		if (wanted(row) && !row_excluded(row, opt.mode) && ours_has(o, insn_rows[row].cpuf))
			printf("row %4u %-16s %8llu cases %8llu retired %6llu #UD %6llu masked "
			       "%6llu failed %4llu unconfirmed\n", row, insn_rows[row].name,
				(unsigned long long)s->cases, (unsigned long long)s->retired,
				(unsigned long long)s->ud, (unsigned long long)s->masked,
				(unsigned long long)s->failed, (unsigned long long)s->unconfirmed);
	}
}

/* Rows with this reason, by name. */
static void list_excluded(const char *why, bool names)
{
	unsigned int n = 0;

	for (u32 row = 0; row < nr_insn_rows; row++)
		n += row_excluded(row, opt.mode) == why;
	printf("  %3u rows: %s", n, why);
	for (u32 row = 0; names && row < nr_insn_rows; row++)
		if (row_excluded(row, opt.mode) == why)
			printf(" %s", insn_rows[row].name);
	printf("\n");
}

/* Rows whose CPUID bit this host lacks, so that our guest lacks it, too. */
static void list_absent(const struct ours *o)
{
	unsigned int n = 0;

	for (u32 row = 0; row < nr_insn_rows; row++)
		n += !row_excluded(row, opt.mode) && !ours_has(o, insn_rows[row].cpuf);
	printf("  %3u rows: not on this host", n);
	for (u32 row = 0; row < nr_insn_rows; row++)
		if (!row_excluded(row, opt.mode) && !ours_has(o, insn_rows[row].cpuf))
			printf(" %s", insn_rows[row].name);
	printf("\n");
}

static void print_excluded(const struct ours *o)
{
	const char *seen[32], *why;
	unsigned int n = 0, k;

	printf("rows that are not run:\n");
	for (u32 row = 0; row < nr_insn_rows; row++) {
		why = row_excluded(row, opt.mode);
		for (k = 0; k < n && seen[k] != why; k++)
			;
		if (!why || k < n || n == ARRAY_SIZE(seen))
			continue;
		seen[n++] = why;
		list_excluded(why, true);
	}
	list_absent(o);
}

struct total {
	u64 rows, least, cases, retired, masked, open, failed, unconfirmed, ud, masked_rows;
};

static struct total add_up(const struct ours *o)
{
	struct total t = {.least = ~0ull};

	for (u32 row = 0; row < nr_insn_rows; row++) {
		const struct row_stat *s = &stats->row[row];

		if (!wanted(row) || row_excluded(row, opt.mode) || !ours_has(o, insn_rows[row].cpuf))
			continue;
		t.rows++;
		t.least = MIN(t.least, s->cases);
		t.cases += s->cases;
		t.retired += s->retired;
		t.masked += s->masked;
		t.open += s->open;
		t.masked_rows += s->masked > 0;
		t.failed += s->failed;
		t.unconfirmed += s->unconfirmed;
		t.ud += s->ud;
		if (s->ungenerated) {
			printf("row %u %s: no bytes found for some cases\n", row, insn_rows[row].name);
			t.failed++;
		}
	}
	return t;
}

static struct total summary(double seconds)
{
	static const char *const names[] = {"translated code", "inline core or fast handler", "re-encoded thunk (fast)",
		"re-encoded thunk (exec_native)", "C handler", "stopped before any (#UD, #GP, fetch)"};
	struct ours *o = ours_create();
	struct total t;
	u64 n;

	if (opt.list)
		list_rows(o);
	print_excluded(o);
	t = add_up(o);
	printf("%llu rows, at least %llu cases each; %llu cases in %.0f s: %llu retired, %llu ended in "
	       "an exception, %llu of them #UD by a broken rule\n", (unsigned long long)t.rows,
		(unsigned long long)t.least, (unsigned long long)t.cases, seconds,
		(unsigned long long)t.retired, (unsigned long long)(t.cases - t.retired),
		(unsigned long long)t.ud);
	for (unsigned int r = 0; r < NR_ROADS; r++) {
		n = 0;
		for (unsigned int j = 0; j < opt.jobs; j++)
			n += stats->roads[j][r];
		printf("  %10llu by %s\n", (unsigned long long)n, names[r]);
	}
	printf("masked: undefined flags in %llu cases of %llu rows; memory and order of faults of %llu cases "
	       "that stopped in a PARTS row\ndifferences that a fresh start did not confirm: %llu\n",
		(unsigned long long)t.masked, (unsigned long long)t.masked_rows,
		(unsigned long long)t.open, (unsigned long long)t.unconfirmed);
	return t;
}

static enum insn_mode mode_of_bits(int bits)
{
	return bits == 16 ? MODE_16 : bits == 32 ? MODE_32 : MODE_64;
}

static void parse(int argc, char **argv)
{
	int c;

	opt.seed = time(NULL);
	while ((c = getopt(argc, argv, "n:t:s:j:r:c:m:lx")) > 0) {
		switch (c) {
		case 'n': opt.n = strtoull(optarg, NULL, 0); break;
		case 't': opt.seconds = strtod(optarg, NULL); break;
		case 's': opt.seed = strtoull(optarg, NULL, 0); break;
		case 'j': opt.jobs = strtoul(optarg, NULL, 0); break;
		case 'r': opt.only = optarg; break;
		case 'c':
			opt.only_case = strtoull(optarg, NULL, 0);
			opt.one_case = true;
			opt.n = opt.jobs = 1;
			break;
		case 'm':
			if (opt.nr_modes < ARRAY_SIZE(opt.modes))
				opt.modes[opt.nr_modes++] = mode_of_bits(atoi(optarg));
			break;
		case 'l': opt.list = true; break;
		case 'x': opt.stop_at_first = true; break;
		default:
			fprintf(stderr, "usage: native_diff [-n CASES_PER_ROW] [-t SECONDS] [-s SEED] "
					"[-j JOBS] [-r ROW|NAME] [-c CASE] [-m 64|32|16] [-l] [-x]\n");
			exit(2);
		}
	}
	if (!opt.nr_modes)
		opt.modes[opt.nr_modes++] = MODE_64;
	if (!opt.jobs)
		opt.jobs = sysconf(_SC_NPROCESSORS_ONLN);
	opt.jobs = MAX(1u, MIN(opt.jobs, MAX_JOBS));
}

static bool run_workers(void)
{
	pid_t pids[MAX_JOBS];
	bool ok = true;
	int status;

	for (unsigned int k = 0; k < opt.jobs; k++) {
		pids[k] = fork();
		if (!pids[k])
			work(&(struct worker){.id = k});
	}
	for (unsigned int k = 0; k < opt.jobs; k++) {
		waitpid(pids[k], &status, 0);
		if (status) {
			printf("worker %u ended with status %x\n", k, status);
			ok = false;
		}
	}
	return ok;
}

static struct total run_mode(enum insn_mode mode)
{
	double start = now();
	struct total t;
	bool ok;

	opt.mode = mode;
	if (mode == MODE_16 && !have_ldt) {
		printf("16-bit mode: not run, this host's kernel has no modify_ldt\n");
		return (struct total){0};
	}
	memset(stats, 0, sizeof(*stats));
	printf("%u-bit mode:\n", mode == MODE_64 ? 64 : mode == MODE_32 ? 32 : 16);
	fflush(stdout);
	ok = run_workers();
	t = summary(now() - start);
	t.failed += !ok || !t.cases;
	return t;
}

int main(int argc, char **argv)
{
	u64 passed = 0, failed = 0;
	struct total t;

	parse(argc, argv);
	if (!(getauxval(AT_HWCAP2) & 2)) {
		printf("skipped: this host's user mode has no WRFSBASE\n0 passed, 1 failed\n");
		return 1;
	}
	printf("seed %llu, %u jobs\n", (unsigned long long)opt.seed, opt.jobs);
	pristine_fill();
	stats = shared(sizeof(*stats));
	have_ldt = ref_make_ldt();
	for (unsigned int k = 0; k < opt.nr_modes; k++) {
		t = run_mode(opt.modes[k]);
		passed += t.cases - MIN(t.cases, t.failed);
		failed += t.failed;
	}
	printf("%llu passed, %llu failed\n", (unsigned long long)passed, (unsigned long long)failed);
	return failed || !passed;
}
