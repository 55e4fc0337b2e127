// SPDX-License-Identifier: MIT
/*
 * Init of the guests that real VMMs boot: loads the modules of /modules in order, copies /in of
 * the disk (virtio-blk, ext4) to /out and reads it back, sends it through an echo server
 * (virtio-net, user networking), says what it saw, powers the machine off. Linked static.
 *
 *	test=disk	the disk only	test=net	the network only	(both without)
 *	test=none	neither
 *	test=ide	reads /dev/sda and writes it back inverted
 *	test=symbols	copies /proc/kallsyms to the disk
 *	test=count	see test_count(); count=N
 *	self=IP echo=IP:PORT	instead of what QEMU's user networking has
 *	end=reset	for a machine without ACPI: by the keyboard controller, say
 */
#include <arpa/inet.h>
#include <linux/fs.h>
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
#include <time.h>
#include <unistd.h>

#define SELF "10.0.2.15"
#define ECHO "10.0.2.100:7" /* guestfwd of the test script */
#define MAX_IN	  (8u << 20)

static uint8_t in[MAX_IN] __attribute__((aligned(4096))), back[MAX_IN] __attribute__((aligned(4096)));
static char cmdline[4096];

/* What follows `key` on the kernel's command line, or NULL. */
static const char *option(const char *key)
{
	const char *p = strstr(cmdline, key);

	return p ? p + strlen(key) : NULL;
}

static bool asked_for(const char *what)
{
	const char *p = option("test=");

	return p && !strncmp(p, what, strlen(what));
}

static bool asked(const char *what)
{
	return !option("test=") || asked_for(what);
}

/* The word after `key` on the command line, or `otherwise`. */
static void word(const char *key, const char *otherwise, char out[64])
{
	const char *p = option(key);

	snprintf(out, 64, "%s", p ? p : otherwise);
	out[strcspn(out, " \n")] = 0;
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

/* As modprobe does: "libata.dma=0" of the command line is "dma=0" for /lib/libata.ko. */
static const char *parameters(const char *file, char buf[64])
{
	char key[64];
	const char *p;

	snprintf(key, sizeof(key), " %.50s", strrchr(file, '/') + 1);
	key[strlen(key) - 2] = 0; /* the dot stays */
	p = option(key);
	snprintf(buf, 64, "%.*s", p ? (int)strcspn(p, " \n") : 0, p ? p : "");
	return buf;
}

static void load_modules(void)
{
	char line[256], buf[64];
	FILE *f = fopen("/modules", "r");

	while (f && fgets(line, sizeof(line), f)) {
		int fd;

		line[strcspn(line, "\n")] = 0;
		fd = open(line, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || (syscall(SYS_finit_module, fd, parameters(line, buf), 0) && errno != EEXIST))
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

static void copy_symbols(void)
{
	size_t n = read_file("/proc/kallsyms", in);

	if (mount_disk() && write_file("/mnt/symbols", in, n))
		printf("CLIENT symbols, %zu bytes\n", n);
	umount("/mnt");
}

/* Bypasses the page cache: each byte crosses the port. */
static void test_ide(void)
{
	ssize_t n = -1;
	bool ok;
	int fd = -1;

	for (int i = 0; i < 100 && (fd = open("/dev/sda", O_RDWR | O_DIRECT)) < 0; i++)
		usleep(100000);
	n = read(fd, in, MAX_IN);
	for (ssize_t i = 0; i < n; i++)
		in[i] = ~in[i];
	ok = n > 0 && pwrite(fd, in, n, 0) == n && !fsync(fd);
	ok = ok && pread(fd, back, n, 0) == n && !memcmp(in, back, n);
	printf("CLIENT ide %s, %zd bytes\n", ok ? "ok" : "FAILED", n);
	close(fd);
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
	char self[64];
	int tries = 100;

	while (ioctl(s, SIOCGIFFLAGS, &r) && --tries)
		usleep(100000);
	word(" self=", SELF, self);
	set_address(s, SIOCSIFADDR, self);
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

/*
 * The server of echo= hangs up first: kvmtool's user networking keeps a connection that the guest
 * ends first, and deadlocks on it when the device is reset.
 */
static void hang_up(int s)
{
	struct pollfd p = {.fd = s, .events = POLLIN};

	if (option(" echo="))
		poll(&p, 1, 10000);
	usleep(100000);
	close(s);
	usleep(100000);
}

static struct sockaddr_in echo_address(void)
{
	struct sockaddr_in a = {.sin_family = AF_INET};
	char where[64], *port;

	word(" echo=", ECHO, where);
	port = where + strcspn(where, ":");
	if (*port)
		*port++ = 0;
	a.sin_port = htons(atoi(port));
	inet_pton(AF_INET, where, &a.sin_addr);
	return a;
}

static void test_net(void)
{
	struct sockaddr_in a = echo_address();
	size_t n = 1u << 20, got = 0;
	int s = socket(AF_INET, SOCK_STREAM, 0);

	for (size_t i = 0; i < n; i++)
		in[i] = i * 2654435761u >> 13;
	memset(back, 0, n);
	if (net_up() && !connect(s, (struct sockaddr *)&a, sizeof(a)))
		got = echo(s, n);
	else
		printf("CLIENT connect: %s\n", strerror(errno));
	printf("CLIENT net %s, %zu bytes\n", got == n && !memcmp(in, back, n) ? "ok" : "FAILED", got);
	hang_up(s);
}

/* ---- test=count: a guest that is saved, moved and killed while it counts */

/* Some milliseconds in registers of every kind; the same for the same n. */
static double work(unsigned int n)
{
	long double x = n;
	double y = n, z = 1;
	uint64_t h = n;

	for (int i = 1; i < 20000; i++) {
		x = x * 0.999L + i;
		y = y * 0.5 + z / i;
		z += y * 1e-3;
		h = (h ^ i) * 0x9e3779b97f4a7c15u;
	}
	return (double)x + y + z + (double)(h >> 12);
}

/* The other processor's part: answers each number with its work. */
static void answer(int from, int to)
{
	unsigned int n;

	while (read(from, &n, sizeof(n)) == sizeof(n)) {
		double d = work(n);

		if (write(to, &d, sizeof(d)) != sizeof(d))
			break;
	}
	_exit(0);
}

static void step(unsigned int n, int to, int from, FILE *file)
{
	static struct timespec last;
	struct timespec now;
	double d = 0, own;

	if (write(to, &n, sizeof(n)) != sizeof(n))
		perror("write");
	own = work(n);
	if (read(from, &d, sizeof(d)) != sizeof(d) || d != own)
		printf("CLIENT work FAILED at %u\n", n);
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (now.tv_sec < last.tv_sec || (now.tv_sec == last.tv_sec && now.tv_nsec < last.tv_nsec))
		printf("CLIENT time FAILED at %u\n", n);
	last = now;
	if (n > 1000 && memcmp(in + n % 1000 * 4096, &(unsigned int){n - 1000}, sizeof(n)))
		printf("CLIENT memory FAILED at %u\n", n);
	memcpy(in + n % 1000 * 4096, &n, sizeof(n));
	fprintf(file, "%u\n", n);
	if (n % 8 == 0 && (fflush(file) || fsync(fileno(file))))
		perror("/mnt/count");
	printf("COUNT %u\n", n);
	usleep(1000);
}

/*
 * wait=SECTOR: until the VMM's side has written "go" there; a guest that was saved meanwhile finds
 * another disk then.
 */
static void wait_for_go(void)
{
	long sector = option("wait=") ? atol(option("wait=")) : 0;
	int fd = open("/dev/vda", O_RDONLY | O_DIRECT);

	for (int i = 0; i < 100 && fd < 0; i++, usleep(100000))
		fd = open("/dev/vda", O_RDONLY | O_DIRECT);
	printf("CLIENT waits\n");
	while (sector && pread(fd, back, 512, 512 * sector) == 512 && memcmp(back, "go", 2))
		usleep(10000);
	if (ioctl(fd, BLKFLSBUF))
		perror("BLKFLSBUF");
	close(fd);
}

/*
 * Counts to N on the console and in the disk's file; two processes must agree about each number's
 * work. The file goes on where an earlier run, which was killed, has left it.
 */
static void test_count(void)
{
	unsigned int first = 1, n = option("count=") ? atoi(option("count=")) : 100;
	int to[2], from[2];
	FILE *f;

	wait_for_go();
	if (!mount_disk() || !(f = fopen("/mnt/count", "a+")) || pipe(to) || pipe(from))
		return;
	while (fscanf(f, "%u\n", &first) == 1)
		first++;
	if (!fork())
		answer(to[0], from[1]);
	for (unsigned int i = first; i <= n; i++)
		step(i, to[1], from[0], f);
	fclose(f);
	umount("/mnt");
	printf("CLIENT count done, %u\n", n);
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
	if (asked_for("ide"))
		test_ide();
	if (asked_for("symbols"))
		copy_symbols();
	if (asked_for("count"))
		test_count();
	printf("CLIENT done\n");
	sync();
	reboot(option(" end=reset") ? RB_AUTOBOOT : RB_POWER_OFF);
	return 0;
}
