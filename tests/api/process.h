/* SPDX-License-Identifier: MIT */
/* What the process of a test has, and what it forbids itself. */
#ifndef TESTS_PROCESS_H
#define TESTS_PROCESS_H

#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Of /proc/self/fd, task, map_files; with . and .. */
static inline int entries(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	while (d && readdir(d))
		n++;
	if (d)
		closedir(d);
	return n;
}

/* On pain of death, every system call but those of a VMM's loop (the list is solo5's). < 0: errno */
static inline int confine(void)
{
	static const int allowed[] = {
		SYS_ioctl, SYS_read, SYS_write, SYS_pread64, SYS_pwrite64, SYS_epoll_pwait,
		SYS_timerfd_settime, SYS_clock_gettime, SYS_exit_group, SYS_rt_sigreturn, SYS_futex,
		SYS_mmap, SYS_mprotect, SYS_munmap, SYS_madvise, SYS_rt_sigprocmask, SYS_exit, SYS_close,
	};
	enum { N = sizeof(allowed) / sizeof(*allowed) };
	struct sock_filter f[N + 3];
	struct sock_fprog p = {N + 3, f};

	f[0] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (int k = 0; k < N; k++)
		f[1 + k] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, allowed[k], N - k, 0);
	f[N + 1] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	f[N + 2] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &p);
}

#endif
