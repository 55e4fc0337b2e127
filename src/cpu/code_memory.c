// SPDX-License-Identifier: MIT
#include "cpu/code_memory.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

/* Since Linux 6.3 a memfd must say whether it may be executed; before, the flag is unknown. */
static int code_memfd(void)
{
	int fd = memfd_create("anykvm-code", MFD_CLOEXEC | MFD_EXEC);

	return fd >= 0 ? fd : memfd_create("anykvm-code", MFD_CLOEXEC);
}

static u8 *map(int fd, u32 size, int prot)
{
	void *p = mmap(NULL, size, prot, MAP_SHARED, fd, 0);

	return p == MAP_FAILED ? NULL : p;
}

static int error(void)
{
	return errno == EMFILE || errno == ENFILE || errno == ENOMEM ? -errno : -EPERM;
}

int code_memory_create(struct code_memory *m, u32 size)
{
	int fd = code_memfd(), r = 0;

	*m = (struct code_memory){.size = size};
	if (fd >= 0 && !ftruncate(fd, size)) {
		m->rw = map(fd, size, PROT_READ | PROT_WRITE);
		m->rx = m->rw ? map(fd, size, PROT_READ | PROT_EXEC) : NULL;
	}
	if (!m->rx)
		r = error();
	if (fd >= 0)
		close(fd);
	if (r)
		code_memory_destroy(m);
	return r;
}

void code_memory_destroy(struct code_memory *m)
{
	if (m->rw)
		munmap(m->rw, m->size);
	if (m->rx)
		munmap(m->rx, m->size);
	m->rw = m->rx = NULL;
	m->used = 0;
}
