// SPDX-License-Identifier: MIT
/* Items 28 to 35: lifetimes, descriptors, forks, two threads, kicks. */
#include "modes.h"

#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>

static void h28_close_vm_first(void)
{
	struct machine m;

	machine_open(&m, GUEST(0xe6, 0x10, HLT));
	api->close(m.vm);
	RUN_TO(&m, "after close", KVM_EXIT_IO);
	RUN_TO(&m, "completion", KVM_EXIT_HLT);
	CHECK_EQ("GET_REGS", regs_of(&m).rip, CODE + 3);
	api->munmap(m.run, 12288);
	api->close(m.vcpu);
	munmap(m.ram, m.ram_size);
}

/* On a busy machine a thread may take long to get there. */
static void wait_until_inside(struct machine *m)
{
	for (int ms = 0; ms < 10000 && !__atomic_load_n(&m->ram[0x600], __ATOMIC_ACQUIRE); ms++)
		sleep_ms(1);
	CHECK_EQ("the guest runs", m->ram[0x600], 1);
}

static void h29_close_vcpu_while_running(void)
{
	struct machine m;
	pthread_t t;
	void *r;

	machine_open(&m, GUEST(0xc6, 0x06, 0x00, 0x06, 1, 0xeb, 0xfe)); /* mov byte [0x600], 1; jmp $ */
	kick_install(&m);
	pthread_create(&t, NULL, run_thread, &m);
	wait_until_inside(&m);
	CHECK_EQ("close", api->close(m.vcpu), 0);
	sleep_ms(20);
	pthread_kill(t, SIGUSR1);
	pthread_join(t, &r);
	CHECK_EQ("KVM_RUN", (long)r, -EINTR);
	CHECK_EQ("the number is free", io(m.vcpu, KVM_RUN, 0), -EBADF);
	api->munmap(m.run, 12288);
	api->close(m.vm);
	check_neighbour();
}

static void h30_munmap_while_running(void)
{
	struct machine m;
	struct kvm_run *other;
	pthread_t t;
	void *r;

	/* mov al, 1; l: mov [0x600], al; jmp l */
	machine_open(&m, GUEST(0xb0, 1, 0xa2, 0x00, 0x06, 0xeb, 0xfb));
	pthread_create(&t, NULL, run_thread, &m);
	wait_until_inside(&m);
	CHECK_EQ("munmap", api->munmap(m.run, 12288), 0);
	sleep_ms(20);
	other = api->mmap(NULL, 12288, PROT_READ | PROT_WRITE, MAP_SHARED, m.vcpu, 0);
	__atomic_store_n(&other->immediate_exit, 1, __ATOMIC_RELEASE);
	pthread_join(t, &r);
	CHECK_EQ("KVM_RUN", (long)r, -EINTR);
	m.run = other;
	machine_close(&m);
}

static void h31_fork(void)
{
	struct kvm_userspace_memory_region region = {.slot = 3};
	struct machine m;
	struct kvm_regs r;
	int status;
	pid_t pid;

	machine_open(&m, GUEST(HLT));
	pid = fork();
	if (!pid) {
		passed = failed = 0;
		CHECK_EQ("child: RUN", io(m.vcpu, KVM_RUN, 0), -EIO);
		CHECK_EQ("child: GET_REGS", iop(m.vcpu, KVM_GET_REGS, &r), -EIO);
		CHECK_EQ("child: memslot", iop(m.vm, KVM_SET_USER_MEMORY_REGION, &region), -EIO);
		CHECK_EQ("child: CREATE_VCPU", io(m.vm, KVM_CREATE_VCPU, 1), -EIO);
		CHECK_EQ("child: system", io(sys, KVM_GET_API_VERSION, 0), 12);
		if (!SANITIZED) /* TSan allows no threads after a fork */
			check_neighbour(); /* and it can have a VM of its own */
		api->close(m.vcpu);
		api->close(m.vm);
		fflush(stdout);
		_exit(failed);
	}
	waitpid(pid, &status, 0);
	CHECK_EQ("child", status, 0);
	RUN_TO(&m, "parent", KVM_EXIT_HLT);
	machine_close(&m);
}

/* Send a descriptor to ourselves. */
static int pass_fd(int fd)
{
	char control[CMSG_SPACE(sizeof(int))] = {0}, byte = 0;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int s[2], got;

	socketpair(AF_UNIX, SOCK_DGRAM, 0, s);
	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
			      .cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	must(sendmsg(s[0], &msg, 0), "sendmsg");
	must(recvmsg(s[1], &msg, 0), "recvmsg");
	memcpy(&got, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(got));
	close(s[0]);
	close(s[1]);
	return got;
}

static void h32_descriptors(void)
{
	struct machine m;
	int passed_fd, copy, status;
	pid_t pid;
	char number[16];

	machine_open(&m, GUEST(HLT, HLT, HLT));
	CHECK_EQ("vm CLOEXEC", fcntl(m.vm, F_GETFD), FD_CLOEXEC);
	CHECK_EQ("vcpu CLOEXEC", fcntl(m.vcpu, F_GETFD), FD_CLOEXEC);
	copy = dup(m.vcpu);
	CHECK_EQ("dup: RUN", io(copy, KVM_RUN, 0), 0);
	passed_fd = pass_fd(m.vcpu);
	CHECK_EQ("SCM_RIGHTS: RUN", io(passed_fd, KVM_RUN, 0), 0);
	CHECK_EQ("dup3 CLOEXEC", dup3(copy, 200, O_CLOEXEC), 200);
	/* Another program that inherits it finds a file that knows no ioctl. */
	snprintf(number, sizeof(number), "%d", copy);
	pid = fork();
	if (!pid) {
		execl("/proc/self/exe", "lifecycle", "--inherited", number, NULL);
		_exit(9);
	}
	waitpid(pid, &status, 0);
	CHECK_EQ("exec", status, 0);
	api->close(copy);
	api->close(passed_fd);
	api->close(200);
	RUN_TO(&m, "the first still works", KVM_EXIT_HLT);
	machine_close(&m);
}

static int inherited(const char *number)
{
	int fd = atoi(number);
	struct kvm_regs r;

	sys = must(api->open("/dev/kvm", O_RDWR), "open");
	CHECK_EQ("ioctl", iop(fd, KVM_GET_REGS, &r), -ENOTTY);
	CHECK_EQ("close", api->close(fd), 0);
	check_neighbour();
	return failed;
}

static void h33_two_threads_one_vcpu(void)
{
	struct machine m;
	pthread_t t[4];
	void *r;

	machine_open(&m, GUEST(0xeb, 0xfe));
	kick_install(&m);
	for (int k = 0; k < 4; k++)
		pthread_create(&t[k], NULL, run_thread, &m);
	sleep_ms(30);
	__atomic_store_n(&m.run->immediate_exit, 1, __ATOMIC_RELEASE);
	for (int k = 0; k < 4; k++) {
		pthread_join(t[k], &r);
		CHECK_EQ("KVM_RUN", (long)r, -EINTR);
	}
	machine_close(&m);
}

/* A signal may arrive at every instruction of the way in and out: no exit lost, none twice. */
static void h34_kick_race(void)
{
	struct itimerval t = {{0, 100}, {0, 100}}, off = {0};
	int want = many(20000, 3000), got = 0, kicked = 0;
	struct machine m;
	uint16_t last = 0;

	/* l: inc ax; out 0x10,ax; jmp l */
	machine_open(&m, GUEST(0x40, 0xe7, 0x10, 0xeb, 0xfb));
	kick_install(&m);
	signal(SIGALRM, on_kick);
	setitimer(ITIMER_REAL, &t, NULL);
	while ((got < want || kicked < want / 100) && !failed) {
		int r = vcpu_run(&m);
		uint16_t ax;

		m.run->immediate_exit = 0;
		if (r == -EINTR) {
			kicked++;
			continue;
		}
		memcpy(&ax, io_data(&m), 2);
		check(!r && m.run->exit_reason == KVM_EXIT_IO, "KVM_RUN", r, 0);
		CHECK_EQ("each number once", ax, (uint16_t)(last + 1));
		last = ax;
		got++;
	}
	setitimer(ITIMER_REAL, &off, NULL);
	signal(SIGALRM, SIG_DFL);
	printf("h34: %d exits, %d kicked\n", got, kicked);
	machine_close(&m);
}

/* The machine's memory lives on when its process is killed; the next one goes on with it. */
static void h35_killed_and_again(void)
{
	uint8_t *shared = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	volatile uint32_t *counter = (uint32_t *)(shared + 0x600);
	int rounds = many(60, 8);

	for (int k = 0; k < rounds; k++) {
		struct kvm_userspace_memory_region r = {.memory_size = RAM,
							.userspace_addr = (uint64_t)shared};
		uint32_t before = *counter;
		struct machine m;
		pid_t pid = fork();

		if (!pid) {
			/* l: inc dword [0x600]; jmp l */
			machine_open(&m, GUEST(HLT));
			memcpy(shared + CODE, "\x66\xff\x06\x00\x06\xeb\xf9", 7);
			r.memory_size = 0;
			iop(m.vm, KVM_SET_USER_MEMORY_REGION, &r);
			r.memory_size = RAM;
			iop(m.vm, KVM_SET_USER_MEMORY_REGION, &r);
			vcpu_run(&m);
			_exit(0);
		}
		for (int n = 0; n < 4000 && *counter == before; n++)
			sleep_ms(1);
		usleep(k * 37 % 1000);
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		CHECK_EQ("it ran", *counter != before, 1);
	}
	check_neighbour();
	munmap(shared, RAM);
}

static const struct item items[] = {
	ITEM(h28_close_vm_first), ITEM(h29_close_vcpu_while_running),
	ITEM(h30_munmap_while_running), ITEM(h31_fork), ITEM(h32_descriptors),
	ITEM(h33_two_threads_one_vcpu), ITEM(h34_kick_race), ITEM(h35_killed_and_again),
};

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "--inherited"))
		return inherited(argv[2]);
	return hostile_main(argc, argv, items, COUNT(items));
}
