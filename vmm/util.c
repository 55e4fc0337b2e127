// SPDX-License-Identifier: MIT
/* Messages, files, numbers: what several files of vmm/ need. */
#include "vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

int vmm_error(const char *fmt, ...)
{
	char line[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	fprintf(stderr, "anykvm: %s\n", line);
	return -1;
}

static int read_all(int fd, u8 *buf, size_t size)
{
	while (size) {
		ssize_t n = read(fd, buf, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			errno = n ? errno : ENODATA;
			return -1;
		}
		buf += n;
		size -= n;
	}
	return 0;
}

static int check_file(int fd, const char *path, const char *what, size_t *size)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return vmm_error("%s %s: %s", what, path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return vmm_error("%s %s is a directory", what, path);
	if (!S_ISREG(st.st_mode))
		return vmm_error("%s %s is not a regular file", what, path);
	if (st.st_size == 0)
		return vmm_error("%s %s is empty", what, path);
	*size = st.st_size;
	return 0;
}

int file_open(const char *path, const char *what, size_t *size)
{
	/* O_NONBLOCK: a FIFO is refused, not waited for */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return vmm_error("cannot open %s %s: %s", what, path, strerror(errno));
	if (check_file(fd, path, what, size) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

int file_load(int fd, const char *path, const char *what, u8 **data, size_t size)
{
	*data = malloc(size);
	if (!*data)
		return vmm_error("%s %s: no memory for its %zu bytes", what, path, size);
	if (read_all(fd, *data, size) == 0)
		return 0;
	vmm_error("cannot read %s %s: %s", what, path, strerror(errno));
	free(*data);
	*data = NULL;
	return -1;
}

int parse_size(const char *s, u64 *size)
{
	unsigned long long n;
	u64 unit = MIB;
	char *end;

	if (*s < '0' || *s > '9')
		return -1;
	errno = 0;
	n = strtoull(s, &end, 10);
	if (errno)
		return -1;
	switch (*end) {
	case 'k': case 'K': unit = KIB; end++; break;
	case 'm': case 'M': unit = MIB; end++; break;
	case 'g': case 'G': unit = GIB; end++; break;
	}
	if (*end || n > UINT64_MAX / unit)
		return -1;
	*size = n * unit;
	return 0;
}

double clock_seconds(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}
