// SPDX-License-Identifier: MIT
/*
 * until MARKER FILE COMMAND...: runs the command, copies its output, and writes
 * to FILE the CPU seconds that its process had used when MARKER came out. The
 * output goes on to the end; exits with the command's status.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static double cpu_seconds(pid_t pid)
{
	struct timespec ts = {0};
	clockid_t clock;

	if (clock_getcpuclockid(pid, &clock) == 0)
		clock_gettime(clock, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static pid_t start(char **argv, int *out)
{
	int p[2];
	pid_t pid;

	if (pipe(p) < 0 || (pid = fork()) < 0) {
		perror("until");
		return -1;
	}
	if (pid == 0) {
		dup2(p[1], 1);
		dup2(p[1], 2);
		close(p[0]);
		close(p[1]);
		execvp(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}
	close(p[1]);
	*out = p[0];
	return pid;
}

static int record(const char *path, double seconds)
{
	FILE *f = fopen(path, "w");

	if (!f || fprintf(f, "%.2f\n", seconds) < 0 || fclose(f)) {
		perror(path);
		return -1;
	}
	return 0;
}

/* Copies `in` to stdout until it ends; 1 if the marker was in it, on one line. */
static int copy(int in, pid_t pid, const char *marker, const char *path)
{
	char line[4096], c;
	size_t n = 0;
	int seen = 0;

	while (read(in, &c, 1) == 1) {
		putchar(c);
		if (c == '\n') {
			fflush(stdout);
			n = 0;
			continue;
		}
		if (n < sizeof(line) - 1)
			line[n++] = c;
		line[n] = 0;
		if (!seen && n >= strlen(marker) && !strcmp(line + n - strlen(marker), marker))
			seen = record(path, cpu_seconds(pid)) == 0 ? 1 : -1;
	}
	fflush(stdout);
	return seen;
}

int main(int argc, char **argv)
{
	int out, status, seen;
	pid_t pid;

	if (argc < 4) {
		fprintf(stderr, "usage: until MARKER FILE COMMAND...\n");
		return 2;
	}
	unlink(argv[2]);
	pid = start(argv + 3, &out);
	if (pid < 0)
		return 1;
	seen = copy(out, pid, argv[1], argv[2]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (seen != 1)
		fprintf(stderr, "until: the command ended without %s\n", argv[1]);
	if (WIFSIGNALED(status))
		return 128 + WTERMSIG(status);
	return WEXITSTATUS(status) ? WEXITSTATUS(status) : seen == 1 ? 0 : 1;
}
