// SPDX-License-Identifier: MIT
/* Items 84 to 87: files that our own tools read, and code that is translated over and over. */
#include "modes.h"

#include <sys/stat.h>

/* ---- 84, 85: our own tools' files */

static int run_tool(const char *kernel, const char *initrd)
{
	const char *tool = getenv("ANYKVM_TOOL");
	int status = -1;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		int null = open("/dev/null", O_RDWR);

		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		alarm(3); /* an image may run, and do nothing */
		execl(tool, "anykvm", "boot", "--kernel", kernel, initrd ? "--initrd" : NULL, initrd, NULL);
		_exit(126);
	}
	waitpid(pid, &status, 0);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM ? 0 : status;
}

static void write_file(const char *path, const void *data, size_t n)
{
	FILE *f = fopen(path, "w");

	if (n)
		fwrite(data, 1, n, f);
	fclose(f);
}

/* A bzImage's header with one field after another out of its mind: refused, not believed. */
static void h84_kernel_images(void)
{
	static const uint16_t fields[] = {0x1f1, 0x1f4, 0x1fe, 0x200, 0x202, 0x206, 0x211, 0x214, 0x218,
					  0x21c, 0x224, 0x228, 0x22c, 0x230, 0x236, 0x248, 0x24c, 0x258, 0x260};
	char path[] = "/tmp/anykvm-hostile-XXXXXX";
	uint8_t *image = calloc(1, 65536);
	int fd = mkstemp(path), status;

	close(fd);
	if (!getenv("ANYKVM_TOOL")) {
		check(false, "ANYKVM_TOOL is not set", 0, 1);
		return;
	}
	for (size_t n = 0; n < 65536; n = n ? n * 3 : 1) {
		write_file(path, image, n);
		status = run_tool(path, NULL);
		check(WIFEXITED(status) && WEXITSTATUS(status) && WEXITSTATUS(status) < 100,
		      "zeroes", status, 256);
	}
	for (size_t k = 0; k < COUNT(fields); k++) {
		memset(image, 0, 65536);
		image[0x1f1] = 1;
		memcpy(image + 0x1f4, "\x10\0\0\0", 4);
		memcpy(image + 0x1fe, "\x55\xaa\xeb\x6aHdrS\x0f\x02", 10);
		image[0x211] = 1;
		memcpy(image + 0x22c, "\xff\xff\xff\x7f", 4);
		memset(image + 0x400, HLT, 4096);
		memset(image + 0x600, HLT, 4096);
		memset(image + fields[k], 0xff, 4);
		write_file(path, image, k & 1 ? 65536 : 0x300);
		status = run_tool(path, k & 2 ? "/dev/null" : NULL);
		check(WIFEXITED(status) && WEXITSTATUS(status) < 100, "header field", status, fields[k]);
	}
	status = run_tool("/", NULL);
	check(WIFEXITED(status) && WEXITSTATUS(status), "a folder", status, 256);
	unlink(path);
	free(image);
}

/* We write no snapshot files; a snapshot is what the VMM reads and gives back. All of it flipped. */
static void h85_snapshot_flipped(void)
{
	static const struct {
		unsigned long get, set;
		size_t size;
	} parts[] = {
		{KVM_GET_REGS, KVM_SET_REGS, sizeof(struct kvm_regs)},
		{KVM_GET_SREGS, KVM_SET_SREGS, sizeof(struct kvm_sregs)},
		{KVM_GET_FPU, KVM_SET_FPU, sizeof(struct kvm_fpu)},
		{KVM_GET_XSAVE, KVM_SET_XSAVE, 1024},
		{KVM_GET_XCRS, KVM_SET_XCRS, sizeof(struct kvm_xcrs)},
		{KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, sizeof(struct kvm_debugregs)},
		{KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, sizeof(struct kvm_vcpu_events)},
		{KVM_GET_LAPIC, KVM_SET_LAPIC, sizeof(struct kvm_lapic_state)},
		{KVM_GET_MP_STATE, KVM_SET_MP_STATE, sizeof(struct kvm_mp_state)},
	};
	uint8_t good[4096], bad[4096];
	struct machine m;

	open_chips(&m, GUEST(0xf3, 0x0f, 0x58, 0xc0, 0xd9, 0xe8, 0x90, 0xeb, 0xf7));
	for (size_t p = 0; p < COUNT(parts); p++) {
		size_t step = many(1, parts[p].size > 300 ? 67 : 11) * (SANITIZED ? 4 : 1);

		for (size_t k = 0; k < parts[p].size; k += step) {
			mode_start(&m, LONG);
			memset(good, 0, sizeof(good));
			CHECK_EQ("get", iop(m.vcpu, parts[p].get, good), 0);
			memcpy(bad, good, sizeof(bad));
			bad[k] ^= 1 << (k * 5 & 7);
			if (!iop(m.vcpu, parts[p].set, bad))
				m.run->immediate_exit = 0;
			CHECK_EQ("KVM_RUN", run_for(&m, 1) <= 0, 1);
			iop(m.vcpu, parts[p].set, good);
		}
	}
	machine_close(&m);
	check_neighbour();
}

/* ---- 86, 87: translated code */

/* Each turn writes another immediate into the next instruction. */
CODE_TEXT(smc_storm, 64,
	"mov $20000, %ecx; 1: mov %cl, 2f+1(%rip); 2: mov $0, %al; add %al, %bl; mov %ch, 3f+1(%rip);"
	"3: mov $0, %ah; dec %ecx; jnz 1b; hlt")
/* calls into 4 MiB full of RETs, every 16 bytes another block */
CODE_TEXT(many_blocks, 64, "mov $0x200000, %ebx; 1: call *%rbx; add $16, %ebx; cmp $0x3ffff0, %ebx; jb 1b; hlt")

static void h86_code_cache_storm(void)
{
	struct machine m;
	uint8_t sum = 0;

	mode_open(&m, LONG, TEXT_OF(smc_storm));
	for (int k = 20000; k; k--)
		sum += k;
	EXPECT_TRAP(&m, "self-modifying", -1);
	CHECK_EQ("every byte was seen", regs_of(&m).rbx & 0xff, sum);
	mode_load(&m, TEXT_OF(many_blocks));
	for (int round = 0; round < many(8, 2); round++) {
		for (unsigned int at = 0x200000; at < BIG; at += 16) {
			memset(m.ram + at, 0x90, 16);
			memcpy(m.ram + at + (round & 7), "\xff\xc0\xc3", 3); /* inc eax; ret */
		}
		mode_start(&m, LONG);
		EXPECT_TRAP(&m, "blocks", -1);
		CHECK_EQ("all ran", regs_of(&m).rax, (BIG - 0x200000) / 16 - 1);
	}
	machine_close(&m);
}

/* Every instruction of one block faults once; each time the page is brought in, and it goes on. */
CODE_TEXT(all_fault, 64,
	"mov 0x100000, %eax; add %eax, 0x101000; addl $1, 0x102000; push 0x103000; pop 0x104000;"
	"mov %rax, 0x105000; cmp %al, 0x106000; xchg %ebx, 0x107000; movups 0x108000, %xmm0;"
	"movups %xmm0, 0x109000; imul $3, 0x10a000, %ecx; incl 0x10b000; lock addl $2, 0x10c000;"
	"cmova 0x10d000, %edx; movzbl 0x10e000, %esi; sete 0x10f000; divl 0x110000; call *0x111000;"
	"fldl 0x112000; movsbl 0x113000, %edi; hlt")

static void h87_every_instruction_faults(void)
{
	struct machine m;
	uint64_t page, rip, last = 0;
	int faults = 0;

	mode_open(&m, LONG, TEXT_OF(all_fault));
	put64(&m, 0x111000, 0x600);
	m.ram[0x600] = 0xc3;
	put64(&m, 0x110000, 1 << 20);
	for (page = DATA; page < DATA + 0x20000; page += 4096)
		set_pte(&m, page, 0);
	while (run_for(&m, 200) == 0 && trap_of(&m) == 14 && faults < 100) {
		struct kvm_sregs s;
		struct kvm_regs r = regs_of(&m);

		must(api->ioctl(m.vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
		rip = get64(&m, IST - 40);
		CHECK_EQ("forward", rip > last, 1);
		CHECK_EQ("one page each", s.cr2, DATA + 4096ull * faults);
		last = rip;
		set_pte(&m, s.cr2, s.cr2 | 7);
		r.rip = rip;
		r.rsp = get64(&m, IST - 16);
		r.rflags = get64(&m, IST - 24);
		s.ss = s.ds;
		must(api->ioctl(m.vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
		must(api->ioctl(m.vcpu, KVM_SET_REGS, &r), "SET_REGS");
		faults++;
	}
	CHECK_EQ("faults", faults, 20);
	CHECK_EQ("end", m.run->exit_reason, KVM_EXIT_HLT);
	CHECK_EQ("end", trap_of(&m), -1);
	CHECK_EQ("lock add", (uint32_t)get64(&m, 0x10c000), 2);
	machine_close(&m);
}

static const struct item items[] = {
	ITEM(h84_kernel_images), ITEM(h85_snapshot_flipped), ITEM(h86_code_cache_storm),
	ITEM(h87_every_instruction_faults),
};

HOSTILE_MAIN(items)
