// SPDX-License-Identifier: MIT
/*
 * Runs a program none of whose pages may ever be writable and executable: wx PROGRAM ARGS... Since
 * Linux 6.3 the kernel refuses them, to the program's children too. Besides, until the program ends
 * a process that is not its child looks at its mappings, and kills it if there is one. All else
 * (process id, status, signals) is as without.
 */
#include "../api/maps.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LOOK_EVERY_MS 100 /* at last: a look takes a third of a millisecond of QEMU's maps */

static void watch(pid_t pid, int pidfd)
{
	struct pollfd end = {.fd = pidfd, .events = POLLIN};
	char path[32], line[512];
	int lines, ms = 1;

	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	while (!poll(&end, 1, ms)) {
		if (maps_find_wx_in(path, line, sizeof(line), &lines)) {
			fprintf(stderr, "FAIL writable and executable: %s", line);
			kill(pid, SIGKILL);
			return;
		}
		ms = ms < LOOK_EVERY_MS ? 2 * ms : ms;
	}
}

/* A grandchild, which the program never waits for; in a session of its own, for it ends a moment later. */
static void start_watch(void)
{
	pid_t pid = getpid(), child;
	int pidfd = syscall(SYS_pidfd_open, pid, 0);

	child = fork();
	if (pidfd < 0 || child < 0) {
		perror("wx");
		exit(1);
	}
	if (!child) {
		setsid();
		if (!fork())
			watch(pid, pidfd);
		_exit(0);
	}
	waitpid(child, NULL, 0);
	close(pidfd);
}

int main(int argc, char **argv)
{
	if (argc < 2)
		return 2;
	start_watch();
	maps_forbid_wx();
	execvp(argv[1], argv + 1);
	perror(argv[1]);
	return 127;
}
