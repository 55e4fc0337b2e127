// SPDX-License-Identifier: MIT
/*
 * An eventfd cannot be re-opened, so its O_NONBLOCK is the client's: reads say RWF_NOWAIT. Called in
 * KVM_RUN, and so no cancellation points: not by libc's functions.
 */
#include "kvm/eventfd.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

int eventfd_hold(int fd)
{
	char path[32], what[64];
	ssize_t n;
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (own < 0)
		return -errno;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", own);
	n = readlink(path, what, sizeof(what) - 1);
	what[MAX(n, 0)] = 0;
	if (n < 0 || !strcmp(what, "anon_inode:[eventfd]")) /* without /proc: believe it */
		return own;
	close(own);
	return -EINVAL;
}

bool eventfd_same(int a, int b)
{
	pid_t me = getpid();

	return syscall(SYS_kcmp, me, me, KCMP_FILE, a, b) == 0;
}

void eventfd_raise(int fd)
{
	u64 one = 1;

	syscall(SYS_write, fd, &one, sizeof(one)); /* EAGAIN: full, and thus readable already */
}

bool eventfd_drain(int fd)
{
	u64 count;
	struct iovec v = {&count, sizeof(count)};
	long r = syscall(SYS_preadv2, fd, &v, 1l, -1l, 0l, (long)RWF_NOWAIT);

	if (r < 0 && errno == EOPNOTSUPP)
		r = syscall(SYS_read, fd, &count, sizeof(count));
	return r == sizeof(count);
}
