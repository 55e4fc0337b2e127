// SPDX-License-Identifier: MIT
/* What a program can ask of the path /dev/kvm and of the descriptors behind it, by every name. */
#include "guest.h"

GUEST(spin, "1: inc %rax; jmp 1b")

int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);

static void opens(const char *what, int fd)
{
	CHECK_EQ(what, ioctl(fd, KVM_GET_API_VERSION, 0), KVM_API_VERSION);
	CHECK_EQ(what, close(fd), 0);
	CHECK_FAILS("closed", ioctl(fd, KVM_GET_API_VERSION, 0), EBADF);
}

static void opened_by_any_name(void)
{
	opens("open", open("/dev/kvm", O_RDWR | O_CLOEXEC));
	opens("open O_RDONLY", open("/dev/kvm", O_RDONLY));
	opens("open64", open64("/dev/kvm", O_RDWR));
	opens("openat", openat(AT_FDCWD, "/dev/kvm", O_RDWR));
	opens("openat64", openat64(-1, "/dev/kvm", O_RDWR));
	opens("__open_2", __open_2("/dev/kvm", O_RDWR));
	opens("__open64_2", __open64_2("/dev/kvm", O_RDWR));
	opens("__openat_2", __openat_2(AT_FDCWD, "/dev/kvm", O_RDWR));
	opens("__openat64_2", __openat64_2(AT_FDCWD, "/dev/kvm", O_RDWR));
}

static void looks_like_the_device(void)
{
	struct statx x;
	struct stat st;

	CHECK_EQ("access", access("/dev/kvm", R_OK | W_OK), 0);
	CHECK_EQ("euidaccess", euidaccess("/dev/kvm", R_OK | W_OK), 0);
	CHECK_EQ("faccessat", faccessat(AT_FDCWD, "/dev/kvm", R_OK | W_OK, AT_EACCESS), 0);
	CHECK_EQ("stat", stat("/dev/kvm", &st), 0);
	CHECK_EQ("is a character device", S_ISCHR(st.st_mode), 1);
	CHECK_EQ("10, 232", st.st_rdev, makedev(10, 232));
	memset(&st, 0, sizeof(st));
	CHECK_EQ("lstat", lstat("/dev/kvm", &st), 0);
	CHECK_EQ("lstat: device", S_ISCHR(st.st_mode), 1);
	memset(&st, 0, sizeof(st));
	CHECK_EQ("fstatat", fstatat(AT_FDCWD, "/dev/kvm", &st, 0), 0);
	CHECK_EQ("fstatat: device", S_ISCHR(st.st_mode), 1);
	CHECK_EQ("statx", statx(AT_FDCWD, "/dev/kvm", 0, STATX_BASIC_STATS, &x), 0);
	CHECK_EQ("statx: device", S_ISCHR(x.stx_mode) && x.stx_rdev_minor == 232, 1);
	CHECK_FAILS("another path", access("/dev/kvm-no-such", F_OK), ENOENT);
	CHECK_FAILS("another path", open("/dev/kvm-no-such", O_RDWR), ENOENT);
}

static void refuses_what_kvm_refuses(void)
{
	struct vm m;
	char byte;

	vm_open(&m, spin_code, spin_end - spin_code);
	CHECK_FAILS("read of /dev/kvm", read(m.kvm, &byte, 1), EINVAL);
	CHECK_FAILS("read of a VM", read(m.fd, &byte, 1), EINVAL);
	CHECK_FAILS("read of a vCPU", read(m.vcpu, &byte, 1), EINVAL);
	CHECK_FAILS("mmap of /dev/kvm", mmap(NULL, 4096, PROT_READ, MAP_SHARED, m.kvm, 0), ENODEV);
	CHECK_FAILS("unknown request", ioctl(m.kvm, _IO(KVMIO, 0xfe), 0), EINVAL);
	vm_close(&m);
}

/* dup, and a close that no hook sees. */
static void duplicates_work(void)
{
	struct vm m;
	int d, e;

	vm_open(&m, spin_code, spin_end - spin_code);
	d = dup(m.vcpu);
	e = fcntl(m.fd, F_DUPFD_CLOEXEC, 100);
	close(m.vcpu);
	m.vcpu = d;
	m.run->immediate_exit = 1;
	CHECK_FAILS("duplicate runs", ioctl(d, KVM_RUN, 0), EINTR);
	CHECK_EQ("duplicate of the VM", ioctl(e, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY), 1);
	CHECK_EQ("dup2 over it", dup2(0, e), e);
	close(e);
	vm_close(&m);
}

static int child_result(const struct vm *m)
{
	struct kvm_regs r;
	int kvm;

	if (ioctl(m->vcpu, KVM_GET_REGS, &r) != -1 || errno != EIO)
		return 1;
	if (ioctl(m->fd, KVM_CHECK_EXTENSION, KVM_CAP_USER_MEMORY) != -1 || errno != EIO)
		return 2;
	kvm = open("/dev/kvm", O_RDWR);
	if (ioctl(kvm, KVM_CREATE_VM, 0) < 0)
		return 3;
	close(m->vcpu);
	close(m->fd);
	return 0;
}

static void a_forked_child_has_no_part_in_it(void)
{
	struct kvm_regs r;
	struct vm m;
	int status = -1;
	pid_t pid;

	vm_open(&m, spin_code, spin_end - spin_code);
	pid = fork();
	if (!pid)
		_exit(child_result(&m));
	waitpid(pid, &status, 0);
	CHECK_EQ("child", status, 0);
	CHECK_EQ("parent goes on", ioctl(m.vcpu, KVM_GET_REGS, &r), 0);
	vm_close(&m);
}

/* Descriptors of the program itself are where they were before. */
static void nothing_is_left(void)
{
	struct vm m;
	int before = dup(0), after;

	close(before);
	for (int i = 0; i < 3; i++) {
		vm_open(&m, spin_code, spin_end - spin_code);
		vm_close(&m);
	}
	after = dup(0);
	close(after);
	CHECK_EQ("lowest free descriptor", after <= before + 1, 1); /* /dev/kvm's own stays */
}

int main(void)
{
	opened_by_any_name();
	looks_like_the_device();
	refuses_what_kvm_refuses();
	duplicates_work();
	a_forked_child_has_no_part_in_it();
	nothing_is_left();
	return done();
}
