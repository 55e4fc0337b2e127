// SPDX-License-Identifier: MIT
/*
 * Init of the guests that real VMMs boot: loads the modules of /modules in order, copies /in of
 * the disk (virtio-blk, ext4) to /out and reads it back, sends it through an echo server
 * (virtio-net, user networking), says what it saw, powers the machine off. Linked static.
 *
 *	test=disk	the disk only	test=net	the network only	(both without)
 *	test=none	neither
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <net/route.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ECHO_HOST "10.0.2.100" /* guestfwd of the test script */
#define ECHO_PORT 7
#define MAX_IN	  (8u << 20)

static uint8_t in[MAX_IN], back[MAX_IN];
static char cmdline[4096];

static bool asked(const char *what)
{
	const char *p = strstr(cmdline, "test=");

	return !p || !strncmp(p + 5, what, strlen(what));
}

static void setup(void)
{
	int fd;

	mkdir("/proc", 0755);
	mkdir("/dev", 0755);
	mkdir("/mnt", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	fd = open("/dev/console", O_RDWR);
	dup2(fd, 0);
	dup2(fd, 1);
	dup2(fd, 2);
	setvbuf(stdout, NULL, _IONBF, 0);
	fd = open("/proc/cmdline", O_RDONLY);
	if (read(fd, cmdline, sizeof(cmdline) - 1) < 0)
		perror("/proc/cmdline");
	close(fd);
}

static void load_modules(void)
{
	char line[256];
	FILE *f = fopen("/modules", "r");

	while (f && fgets(line, sizeof(line), f)) {
		int fd;

		line[strcspn(line, "\n")] = 0;
		fd = open(line, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) && errno != EEXIST))
			printf("CLIENT module %s: %s\n", line, strerror(errno));
		close(fd);
	}
}

static size_t read_file(const char *path, uint8_t *buf)
{
	size_t n = 0;
	ssize_t r = 1;
	int fd = open(path, O_RDONLY);

	while (fd >= 0 && r > 0 && n < MAX_IN) {
		r = read(fd, buf + n, MAX_IN - n);
		n += r > 0 ? r : 0;
	}
	close(fd);
	return n;
}

static bool write_file(const char *path, const uint8_t *buf, size_t n)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	bool ok = fd >= 0 && write(fd, buf, n) == (ssize_t)n && !fsync(fd);

	close(fd);
	return ok;
}

static bool mount_disk(void)
{
	for (int i = 0; i < 100; i++) {
		if (!mount("/dev/vda", "/mnt", "ext4", 0, NULL))
			return true;
		usleep(100000);
	}
	printf("CLIENT mount: %s\n", strerror(errno));
	return false;
}

/* Unmounted in between: what is compared comes from the disk. */
static void test_disk(void)
{
	size_t n;
	bool ok;

	if (!mount_disk())
		return;
	n = read_file("/mnt/in", in);
	ok = n && write_file("/mnt/out", in, n);
	umount("/mnt");
	ok = ok && mount_disk() && read_file("/mnt/out", back) == n && !memcmp(in, back, n);
	umount("/mnt");
	printf("CLIENT disk %s, %zu bytes\n", ok ? "ok" : "FAILED", n);
}

static void set_address(int s, unsigned long what, const char *ip)
{
	struct ifreq r = {.ifr_name = "eth0"};
	struct sockaddr_in *a = (struct sockaddr_in *)&r.ifr_addr;

	a->sin_family = AF_INET;
	inet_pton(AF_INET, ip, &a->sin_addr);
	if (ioctl(s, what, &r))
		printf("CLIENT address: %s\n", strerror(errno));
}

static bool net_up(void)
{
	int s = socket(AF_INET, SOCK_DGRAM, 0);
	struct ifreq r = {.ifr_name = "eth0"};
	int tries = 100;

	while (ioctl(s, SIOCGIFFLAGS, &r) && --tries)
		usleep(100000);
	set_address(s, SIOCSIFADDR, "10.0.2.15");
	set_address(s, SIOCSIFNETMASK, "255.255.255.0");
	r.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (ioctl(s, SIOCSIFFLAGS, &r))
		printf("CLIENT eth0: %s\n", strerror(errno));
	close(s);
	return tries;
}

/* Send and receive at once: the echo's buffers are smaller than the data. */
static size_t echo(int s, size_t n)
{
	size_t sent = 0, got = 0;

	while (got < n) {
		struct pollfd p = {.fd = s, .events = POLLIN | (sent < n ? POLLOUT : 0)};
		ssize_t r;

		if (poll(&p, 1, 20000) <= 0)
			break;
		if (p.revents & POLLOUT) {
			r = send(s, in + sent, n - sent, MSG_DONTWAIT);
			sent += r > 0 ? r : 0;
		}
		if (!(p.revents & (POLLIN | POLLHUP)))
			continue;
		r = recv(s, back + got, n - got, 0);
		if (r <= 0)
			break;
		got += r;
	}
	return got;
}

static void test_net(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(ECHO_PORT)};
	size_t n = 1u << 20, got = 0;
	int s = socket(AF_INET, SOCK_STREAM, 0);

	for (size_t i = 0; i < n; i++)
		in[i] = i * 2654435761u >> 13;
	memset(back, 0, n);
	inet_pton(AF_INET, ECHO_HOST, &a.sin_addr);
	if (net_up() && !connect(s, (struct sockaddr *)&a, sizeof(a)))
		got = echo(s, n);
	else
		printf("CLIENT connect: %s\n", strerror(errno));
	printf("CLIENT net %s, %zu bytes\n", got == n && !memcmp(in, back, n) ? "ok" : "FAILED", got);
	close(s);
}

int main(void)
{
	setup();
	load_modules();
	printf("CLIENT init, %ld processors\n", sysconf(_SC_NPROCESSORS_ONLN));
	if (asked("disk"))
		test_disk();
	if (asked("net"))
		test_net();
	printf("CLIENT done\n");
	sync();
	reboot(RB_POWER_OFF);
	return 0;
}
