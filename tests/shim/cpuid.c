// SPDX-License-Identifier: MIT
/*
 * CPUID in the program itself: says that there is VMX or SVM, whatever the host has, and nothing
 * else is another. No bytes are taken for a CPUID that are not one; the program's own SIGILL is
 * its own; no page is writable and executable.
 */
#include "guest.h"

#include <setjmp.h>

struct regs {
	uint32_t a, b, c, d;
};

static inline struct regs ask(uint32_t leaf, uint32_t sub)
{
	struct regs r = {.a = leaf, .c = sub};

	asm volatile("cpuid" : "+a"(r.a), "=b"(r.b), "+c"(r.c), "=d"(r.d));
	return r;
}

/* The processor's own answer: code that was no part of the program when it was loaded. */
static struct regs truth(uint32_t leaf, uint32_t sub)
{
	/* push rbx; mov eax,edi; mov ecx,esi; mov r8,rdx; cpuid; mov [r8..],eax ebx ecx edx; pop rbx; ret */
	static const uint8_t code[] = {0x53, 0x89, 0xf8, 0x89, 0xf1, 0x49, 0x89, 0xd0, 0x0f, 0xa2,
				       0x41, 0x89, 0x00, 0x41, 0x89, 0x58, 0x04, 0x41, 0x89, 0x48,
				       0x08, 0x41, 0x89, 0x50, 0x0c, 0x5b, 0xc3};
	static void (*fn)(uint32_t, uint32_t, struct regs *);
	struct regs r;

	if (!fn) {
		void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		memcpy(p, code, sizeof(code));
		must(mprotect(p, 4096, PROT_READ | PROT_EXEC), "mprotect");
		fn = (void (*)(uint32_t, uint32_t, struct regs *))p;
	}
	fn(leaf, sub, &r);
	return r;
}

static bool is_amd(void)
{
	uint32_t b = truth(0, 0).b;

	return !memcmp(&b, "Auth", 4) || !memcmp(&b, "Hygo", 4);
}

static void has_virtualization(void)
{
	bool amd = is_amd();
	struct regs r = ask(amd ? 0x80000001 : 1, 0);

	CHECK_EQ("VMX or SVM", (r.c & (amd ? 1u << 2 : 1u << 5)) != 0, 1);
}

/* Leaves that say the same at each time and on each processor. */
static void all_else_is_true(void)
{
	static const uint32_t leaves[][2] = {{0, 0}, {4, 0}, {7, 0}, {7, 1}, {0xd, 2}, {0x40000000, 0},
					     {0x80000000, 0}, {0x80000001, 0}, {0x80000002, 0},
					     {0x80000008, 0}, {0x12345678, 0}};
	const uint32_t svm = 1 << 2;

	for (size_t k = 0; k < sizeof(leaves) / sizeof(*leaves); k++) {
		struct regs got = ask(leaves[k][0], leaves[k][1]);
		struct regs want = truth(leaves[k][0], leaves[k][1]);

		if (leaves[k][0] == 0x80000001 && is_amd())
			want.c |= svm;
		check(!memcmp(&got, &want, sizeof(got)), "leaf", leaves[k][0], 0);
	}
}

/* 0f a2 in a constant and in a displacement. */
static void other_bytes_stay(void)
{
	uint32_t imm;
	uint64_t disp;

	asm volatile("mov $0x0ba20f11, %0" : "=r"(imm));
	CHECK_EQ("constant", imm, 0x0ba20f11);
	asm volatile("lea 0x00a20f00(%1), %0" : "=r"(disp) : "r"(0ul));
	CHECK_EQ("displacement", disp, 0x00a20f00);
}

static sigjmp_buf back;

static void on_ill(int sig)
{
	siglongjmp(back, sig);
}

static void its_own_ud2_is_its_own(void)
{
	struct sigaction a;
	int sig, status = 0;
	pid_t pid;

	CHECK_EQ("default", sigaction(SIGILL, NULL, &a), 0);
	CHECK_EQ("default", a.sa_handler == SIG_DFL, 1);
	signal(SIGILL, on_ill);
	has_virtualization();
	sig = sigsetjmp(back, 1);
	if (!sig)
		asm volatile("ud2");
	CHECK_EQ("SIGILL", sig, SIGILL);
	CHECK_EQ("its handler", signal(SIGILL, SIG_DFL) == on_ill, 1);
	has_virtualization();
	pid = fork();
	if (!pid) {
		has_virtualization();
		asm volatile("ud2");
		_exit(0);
	}
	waitpid(pid, &status, 0);
	CHECK_EQ("killed by", WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGILL);
}

static void never_writable_and_executable(void)
{
	FILE *f = fopen("/proc/self/maps", "r");
	char line[512];

	while (f && fgets(line, sizeof(line), f))
		check(!strstr(line, " rwx"), line, 1, 0);
	fclose(f);
}

int main(void)
{
	must(open("/dev/kvm", O_RDWR), "open"); /* what makes a program one of those that are changed */
	has_virtualization();
	all_else_is_true();
	other_bytes_stay();
	its_own_ud2_is_its_own();
	never_writable_and_executable();
	return done();
}
