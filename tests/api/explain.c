// SPDX-License-Identifier: MIT
/*
 * A failure of emulation explains itself once: bytes, instruction, RIP, GVA, GPA, rights, reason
 * on stderr; a guest that fails all the time does not flood it.
 */
#include "machine.h"

static char text[65536];

/* stderr into a file, until read back into text[]. */
static int capture_start(int *saved)
{
	char path[] = "/tmp/anykvm-explain-XXXXXX";
	int fd = must(mkstemp(path), "temporary file");

	unlink(path);
	*saved = dup(2);
	dup2(fd, 2);
	return fd;
}

/* Lines that were written. */
static int capture_end(int fd, int saved)
{
	ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	int lines = 0;

	text[n < 0 ? 0 : n] = 0;
	dup2(saved, 2);
	close(saved);
	close(fd);
	for (const char *p = text; (p = strchr(p, '\n')); p++)
		lines++;
	return lines;
}

static void run_fails(struct machine *m)
{
	m->run->exit_reason = 0;
	CHECK_EQ("KVM_RUN", api->ioctl(m->vcpu, KVM_RUN, 0), 0);
	CHECK_EQ("exit", m->run->exit_reason, KVM_EXIT_INTERNAL_ERROR);
	CHECK_EQ("suberror", m->run->internal.suberror, KVM_INTERNAL_ERROR_EMULATION);
}

static void set_rip(struct machine *m, uint64_t rip)
{
	struct kvm_vcpu_events none = {0};
	struct kvm_regs regs = {.rip = rip, .rflags = 2, .rax = 8};

	must(api->ioctl(m->vcpu, KVM_SET_REGS, &regs), "SET_REGS");
	must(api->ioctl(m->vcpu, KVM_SET_VCPU_EVENTS, &none), "SET_VCPU_EVENTS");
}

/* Protected mode without paging; the GDT is where no RAM is. */
static void protected_mode(struct machine *m)
{
	struct kvm_sregs s;

	must(api->ioctl(m->vcpu, KVM_GET_SREGS, &s), "GET_SREGS");
	s.cs = (struct kvm_segment){.limit = ~0u, .selector = 8, .type = 11, .present = 1, .db = 1,
				    .s = 1, .g = 1};
	s.gdt.base = 0x100000;
	s.gdt.limit = 0xff;
	s.cr0 |= 1;
	must(api->ioctl(m->vcpu, KVM_SET_SREGS, &s), "SET_SREGS");
}

static void test_explains_once(void)
{
	static const uint8_t code[] = {0x8e, 0xd8, 0xf4}; /* mov ds, ax; hlt */
	static const char *const parts[] = {
		"mov ds", "(8e d8)", "rip 0x1000", "gva 0x100008", "gpa 0x100008", "rights", "read",
		"descriptor table is not in RAM",
	};
	struct machine m;
	int fd, saved;

	machine_create(&m, 0x8000, false);
	memcpy(m.ram + 0x1000, code, sizeof(code));
	protected_mode(&m);
	fd = capture_start(&saved);
	for (int k = 0; k < 3; k++) {
		set_rip(&m, 0x1000);
		run_fails(&m);
	}
	CHECK_EQ("explained once", capture_end(fd, saved), 1);
	for (size_t k = 0; k < sizeof(parts) / sizeof(parts[0]); k++)
		CHECK_EQ(parts[k], !!strstr(text, parts[k]), true);
	if (failed)
		printf("%s", text);
	machine_close(&m);
}

static void test_flood(void)
{
	time_t start = time(NULL);
	struct machine m;
	int fd, saved, lines;

	machine_create(&m, 0x8000, false);
	protected_mode(&m);
	fd = capture_start(&saved);
	for (int k = 0; k < 2000; k++) {
		set_rip(&m, 0x200000 + 16 * k);
		run_fails(&m);
	}
	lines = capture_end(fd, saved);
	CHECK_EQ("some lines", lines > 0, true);
	CHECK_EQ("ten in a second", lines <= 10 * (time(NULL) - start + 2), true);
	machine_close(&m);
}

int main(void)
{
	test_explains_once();
	test_flood();
	return api_done();
}
