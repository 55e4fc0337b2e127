// SPDX-License-Identifier: MIT
/*
 * Guest memory that the program takes away: KVM_RUN fails with EFAULT, RIP is at the
 * instruction, nothing of it has happened; when the memory is back the guest goes on.
 * SIGSEGV and SIGBUS of the program's own are its own.
 */
#include "guest.h"

#include <setjmp.h>

/* One guest each: an exit before the instruction, which is executed over and over. */
#define CASE(name, insn) GUEST(name, "1: out %al, $0x80; " #name "_insn: " insn "; jmp 1b")
#define FOR_EACH_CASE(X)                                                                    \
	X(load1, "mov (%rbx), %al") X(load2, "mov (%rbx), %ax")                             \
	X(load4, "mov 8(%rbx), %eax") X(load8, "mov (%rbx,%rcx), %rax")                     \
	X(store1, "mov %al, (%rbx)") X(store8, "mov %rax, 16(%rbx)")                        \
	X(store_imm, "movl $5, (%rbx)") X(movzx, "movzbl (%rbx), %eax")                     \
	X(movsx, "movslq (%rbx), %rax") X(add_load, "add (%rbx), %rax")                     \
	X(add_store, "add %rax, (%rbx)") X(add_imm, "addl $1, (%rbx)")                      \
	X(inc, "incq (%rbx)") X(neg, "negl (%rbx)") X(cmp, "cmp %eax, (%rbx)")              \
	X(cmp_imm, "cmpb $3, (%rbx)") X(test, "testb $3, (%rbx)")                           \
	X(adc, "adc %rax, (%rbx)") X(shl, "shll $3, (%rbx)") X(imul, "imul (%rbx), %rax")   \
	X(bt, "btl $3, (%rbx)") X(bts, "lock btsl $3, (%rbx)") X(cmov, "cmovz (%rbx), %rax") \
	X(setcc, "setz (%rbx)") X(xadd, "lock xadd %rax, (%rbx)") X(xchg, "xchg %rax, (%rbx)") \
	X(cmpxchg, "lock cmpxchg %rcx, (%rbx)") X(push_mem, "push (%rbx); pop %rax")        \
	X(popcnt, "popcnt (%rbx), %rax") X(bswap_load, "movbe (%rbx), %rax")                \
	X(movups, "movups (%rbx), %xmm0") X(movups_store, "movups %xmm0, (%rbx)")           \
	X(addps, "addps (%rbx), %xmm0") X(fld, "fldl (%rbx); fstp %st(0)")                  \
	X(stos, "mov %rbx, %rdi; mov $8, %ecx; rep stosb") X(crossing, "mov -4(%rbx), %rax")              \
	X(jump_mem, "push %rdx; lea 3f(%rip), %rdx; jmp 2f; 3: pop %rdx; jmp 1b; 2: cmpl $0, (%rbx)")
FOR_EACH_CASE(CASE)
GUEST(on_stack, "1: out %al, $0x80; mov %rsp, %rdx; lea 0x800(%rbx), %rsp; call 2f; mov %rdx, %rsp; "
		"jmp 1b; 2: ret")
GUEST(code, "1: out %al, $0x80; call *%rbx; jmp 1b")

static int run_to_exit(struct vm *m)
{
	int r = ioctl(m->vcpu, KVM_RUN, 0);

	return r ? -errno : m->run->exit_reason == KVM_EXIT_IO ? 0 : (int)m->run->exit_reason;
}

static void get(struct vm *m, struct kvm_regs *r)
{
	must(ioctl(m->vcpu, KVM_GET_REGS, r), "KVM_GET_REGS");
}

/* Not the ones that set all flags: what they had before is nobody's business. */
static bool keeps_flags(const uint8_t *insn)
{
	unsigned int op = insn[0] >= 0x40 && insn[0] < 0x50 ? insn[1] : insn[0];

	return (op >= 0x88 && op <= 0x8b) || op == 0xc7 || op == 0xff || op == 0x63 || op == 0x11;
}

/* Twice with the page, without it, and with it again. where: 0, or RIP must be there. */
static void one_case(const char *name, const uint8_t *code, size_t len, uint64_t where, int prot)
{
	struct kvm_regs before, after;
	struct vm m;
	int r;

	vm_open(&m, code, len);
	check(!run_to_exit(&m), name, 0, 0);
	r = run_to_exit(&m);
	check(!r, name, r, 0);
	r = run_to_exit(&m);
	check(!r, name, r, 0);
	get(&m, &before);
	must(mprotect(m.ram + VICTIM, 4096, prot), "mprotect");
	r = run_to_exit(&m);
	check(r == -EFAULT, name, r, -EFAULT);
	get(&m, &after);
	if (where)
		check(after.rip == where, name, after.rip, where);
	if (where)
		check(after.rsp == before.rsp && after.rax == before.rax, name, after.rax, before.rax);
	if (where && keeps_flags(where - CODE + code))
		check(after.rflags == before.rflags, name, after.rflags, before.rflags);
	r = run_to_exit(&m);
	check(r == -EFAULT, name, r, -EFAULT);
	must(mprotect(m.ram + VICTIM, 4096, PROT_READ | PROT_WRITE), "mprotect");
	r = run_to_exit(&m);
	check(!r, name, r, 0);
	r = run_to_exit(&m);
	check(!r, name, r, 0);
	vm_close(&m);
}

#define RUN_CASE(name, insn)                                                               \
	do {                                                                               \
		extern const uint8_t name##_insn[];                                        \
		bool keeps_place = strstr(insn, ";") == NULL;                              \
		one_case(#name, name##_code, name##_end - name##_code,                     \
			 keeps_place ? CODE + (name##_insn - name##_code) : 0, PROT_NONE); \
	} while (0);

static void memory_that_is_gone(void)
{
	FOR_EACH_CASE(RUN_CASE)
	one_case("stack", on_stack_code, on_stack_end - on_stack_code, 0, PROT_NONE);
	one_case("write-protected", store8_code, store8_end - store8_code, 0, PROT_READ);
}

static void code_that_is_gone(void)
{
	struct vm m;
	int r;

	vm_open(&m, code_code, code_end - code_code);
	m.ram[VICTIM] = 0xc3;
	for (int i = 0; i < 3; i++)
		run_to_exit(&m);
	must(mprotect(m.ram + VICTIM, 4096, PROT_NONE), "mprotect");
	r = run_to_exit(&m);
	check(r == -EFAULT, "code", r, -EFAULT);
	must(mprotect(m.ram + VICTIM, 4096, PROT_READ | PROT_WRITE), "mprotect");
	r = run_to_exit(&m);
	check(!r, "code goes on", r, 0);
	vm_close(&m);
}

/* A memslot over nothing at all. */
static void memory_that_never_was(void)
{
	struct vm m;
	int r;

	vm_open(&m, load8_code, load8_end - load8_code);
	munmap(m.ram + VICTIM, 4096);
	run_to_exit(&m);
	r = run_to_exit(&m);
	check(r == -EFAULT, "unmapped", r, -EFAULT);
	vm_close(&m);
}

/* ---- the program's own faults */

static sigjmp_buf back;
static volatile void *fault_address;

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	fault_address = info->si_addr;
	siglongjmp(back, sig);
}

static void its_own_faults_reach_the_program(void)
{
	struct sigaction a = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
	volatile char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sigaction old;
	int sig;

	sigaction(SIGSEGV, &a, NULL);
	sigaction(SIGSEGV, NULL, &old);
	CHECK_EQ("its handler", old.sa_sigaction == on_fault, 1);
	sig = sigsetjmp(back, 1);
	if (!sig)
		*page = 1;
	CHECK_EQ("SIGSEGV", sig, SIGSEGV);
	CHECK_EQ("address", fault_address == page, 1);
	one_case("with a handler", load8_code, load8_end - load8_code, 0, PROT_NONE);
	signal(SIGSEGV, SIG_DFL);
}

static void without_a_handler_it_dies(void)
{
	volatile char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	pid_t pid = fork();

	if (!pid)
		*page = 1;
	waitpid(pid, &status, 0);
	CHECK_EQ("killed by", WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGSEGV);
	pid = fork();
	if (!pid) {
		kill(getpid(), SIGBUS);
		_exit(0);
	}
	waitpid(pid, &status, 0);
	CHECK_EQ("killed by", WIFSIGNALED(status) ? WTERMSIG(status) : 0, SIGBUS);
}

int main(void)
{
	memory_that_is_gone();
	code_that_is_gone();
	memory_that_never_was();
	its_own_faults_reach_the_program();
	without_a_handler_it_dies();
	return done();
}
