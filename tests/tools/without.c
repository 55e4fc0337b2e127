// SPDX-License-Identifier: MIT
/*
 * without CALL[:ARG=VALUE]... -- COMMAND...: runs the command where these system calls fail with
 * EPERM; with ARG (0 to 5), only when that argument's low 32 bits have this value. Numbers as in
 * <sys/syscall.h>, by name those below.
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const struct {
	const char *name;
	int nr;
} calls[] = {
#define CALL(name) {#name, SYS_##name}
	CALL(memfd_create), CALL(epoll_create1), CALL(eventfd2), CALL(timerfd_create), CALL(mmap),
	CALL(openat), CALL(fcntl), CALL(process_vm_readv), CALL(madvise), CALL(kcmp), CALL(preadv2),
};

static int number_of(const char *name, size_t len)
{
	for (size_t k = 0; k < sizeof(calls) / sizeof(*calls); k++)
		if (strlen(calls[k].name) == len && !memcmp(calls[k].name, name, len))
			return calls[k].nr;
	fprintf(stderr, "without: unknown call %s\n", name);
	exit(2);
}

static void forbid(const char *what)
{
	const char *colon = strchrnul(what, ':'), *value = strchr(colon, '=');
	unsigned int arg = *colon ? atoi(colon + 1) : 0;
	uint32_t want = value ? strtoul(value + 1, NULL, 0) : 0;
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number_of(what, colon - what), 0, 3),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args) + 8 * arg),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, want, 0, value ? 1 : 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog p = {sizeof(f) / sizeof(*f), f};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &p, 0, 0)) {
		perror("without: seccomp");
		exit(2);
	}
}

int main(int argc, char **argv)
{
	int k = 1;

	for (; k < argc && strcmp(argv[k], "--"); k++)
		forbid(argv[k]);
	if (k + 1 >= argc)
		return 2;
	execvp(argv[k + 1], argv + k + 1);
	perror(argv[k + 1]);
	return 2;
}
