// SPDX-License-Identifier: MIT
/*
 * The first and only process of the test and demo guests. Linked static: the
 * initramfs needs nothing else. It prints a marker that says how long the
 * kernel took, runs what the kernel command line asks for, powers the machine off.
 *
 *	demo=marker	nothing more (the default)
 *	demo=stress	stressapptest on 64 MB for secs=N seconds (20)
 *	demo=reboot	restart instead of power off
 *	demo=echo	copy one line from the console back to it
 *	demo=cpus	print the number of processors that are up
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Reads a small file as a string; empty if it cannot be read. */
static const char *file_text(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, buf, size - 1);

	buf[n > 0 ? n : 0] = 0;
	if (fd >= 0)
		close(fd);
	return buf;
}

/* Value of `key` (with its '=') on the kernel command line, else `dflt`. */
static const char *option(const char *key, const char *dflt)
{
	static char line[4096];
	char *save, *word;

	file_text("/proc/cmdline", line, sizeof(line));
	for (word = strtok_r(line, " \n", &save); word; word = strtok_r(NULL, " \n", &save))
		if (!strncmp(word, key, strlen(key)))
			return word + strlen(key);
	return dflt;
}

static void mount_all(void)
{
	mkdir("/proc", 0755);
	mkdir("/sys", 0755);
	mkdir("/dev", 0755);
	mkdir("/tmp", 01777);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("sysfs", "/sys", "sysfs", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
}

/* An initramfs without device nodes leaves init without a console. */
static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR);

	if (fd < 0)
		return;
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	if (fd > 2)
		close(fd);
}

static void run_stress(void)
{
	char secs[16];
	int status = -1;
	pid_t pid;

	snprintf(secs, sizeof(secs), "%s", option("secs=", "20"));
	pid = fork();
	if (pid == 0) {
		execl("/bin/stressapptest", "stressapptest", "-s", secs, "-M", "64", "-m", "1",
		      (char *)NULL);
		perror("/bin/stressapptest");
		_exit(127);
	}
	if (pid > 0)
		waitpid(pid, &status, 0);
	if (WIFEXITED(status))
		printf("ANYKVM-STRESS-STATUS %d\n", WEXITSTATUS(status));
	else
		printf("ANYKVM-STRESS-STATUS killed by signal %d\n", WTERMSIG(status));
}

static void echo_line(void)
{
	char line[256];

	printf("ANYKVM-ECHO-READY\n");
	if (fgets(line, sizeof(line), stdin))
		printf("ANYKVM-ECHO %s", line);
}

int main(void)
{
	const char *demo;
	char uptime[64];

	mount_all();
	open_console();
	setvbuf(stdout, NULL, _IONBF, 0);
	file_text("/proc/uptime", uptime, sizeof(uptime));
	uptime[strcspn(uptime, " ")] = 0;
	printf("ANYKVM-INIT-REACHED %s\n", uptime);
	demo = strdup(option("demo=", "marker"));
	if (!strcmp(demo, "stress"))
		run_stress();
	else if (!strcmp(demo, "echo"))
		echo_line();
	else if (!strcmp(demo, "cpus"))
		printf("ANYKVM-CPUS %ld\n", sysconf(_SC_NPROCESSORS_ONLN));
	sync();
	reboot(strcmp(demo, "reboot") ? RB_POWER_OFF : RB_AUTOBOOT);
	return 0;
}
