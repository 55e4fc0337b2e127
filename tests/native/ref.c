// SPDX-License-Identifier: MIT
/*
 * The reference process. Every case starts by a return from a signal handler, which loads all
 * registers at once, and ends by the next signal, which saves them: no stub of our own is in
 * between. The handler runs on an alternate stack and uses neither libc nor TLS (FS and GS
 * are the case's); this file is built without stack protector and sanitizers.
 *
 * What the signal frame does not carry (DS, ES, FS, GS and the two bases) is loaded here. A
 * seccomp filter turns every system call of a case into a signal.
 */
#include "native.h"

#include <asm/ldt.h>
#include <asm/prctl.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

static struct {
	struct batch *b;
	u32 at;
	bool running;
	int from, to;
	u8 *code, *data; /* writable views */
	struct native_case *current, *last_alarm;
	u32 avx_offset;
} ref;

/* ---- no libc from here ----------------------------------------------------------------- */

static long sys3(long nr, long a, long b, long c)
{
	long r;

	asm volatile("syscall" : "=a"(r) : "0"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
	return r;
}

static void copy(void *to, const void *from, unsigned long n)
{
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(n) : : "memory");
}

static void fill(void *to, u8 v, unsigned long n)
{
	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(v) : "memory");
}

/* Writable view of linear address `rip` of the code pages. */
static u8 *code_view(u64 rip)
{
	return ref.code + (rip < CODE_B ? rip - CODE_A : rip - CODE_B + PAGE_SIZE);
}

#define GET_SEG(name) ({ u16 v_; asm volatile("mov %%" #name ", %0" : "=r"(v_)); v_; })
#define SET_SEG(name, v) asm volatile("mov %0, %%" #name : : "r"((u16)(v)))

static u64 get_base(bool gs)
{
	u64 v;

	if (gs)
		asm volatile("rdgsbase %0" : "=r"(v));
	else
		asm volatile("rdfsbase %0" : "=r"(v));
	return v;
}

/* A selector load may change the base: bases last. */
static void load_segments(const struct mstate *s)
{
	SET_SEG(ds, s->ds);
	SET_SEG(es, s->es);
	SET_SEG(fs, s->fs);
	SET_SEG(gs, s->gs);
	asm volatile("wrfsbase %0" : : "r"(s->fs_base));
	asm volatile("wrgsbase %0" : : "r"(s->gs_base));
}

static void save_segments(struct mstate *s)
{
	s->ds = GET_SEG(ds);
	s->es = GET_SEG(es);
	s->fs = GET_SEG(fs);
	s->gs = GET_SEG(gs);
	s->fs_base = get_base(false);
	s->gs_base = get_base(true);
}

static const u8 gpr_of_greg[16] = {
	REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
	REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15,
};

/* The frame's XSAVE area, standard format (SDM 1 13.4). */
static void load_vectors(u8 *x, const struct mstate *s)
{
	u64 bv;

	copy(&bv, x + 512, 8);
	bv = (bv & BIT(9)) | 7; /* AVX-512: initial; PKRU stays */
	copy(x + 512, &bv, 8);
	copy(x, s->fx, 24);
	copy(x + 24, &s->mxcsr, 4);
	copy(x + 32, s->fx + 32, 128);
	for (unsigned int n = 0; n < 16; n++) {
		copy(x + 160 + 16 * n, s->ymm[n], 16);
		copy(x + ref.avx_offset + 16 * n, s->ymm[n] + 16, 16);
	}
}

static void save_vectors(const u8 *x, struct mstate *s)
{
	static const u16 init_cw = 0x37f;
	u64 bv;

	copy(&bv, x + 512, 8);
	fill(s->fx, 0, sizeof(s->fx));
	fill(s->ymm, 0, sizeof(s->ymm));
	copy(&s->mxcsr, x + 24, 4);
	copy(s->fx, &init_cw, 2);
	if (bv & 1) {
		copy(s->fx, x, 24);
		copy(s->fx + 32, x + 32, 128);
	}
	for (unsigned int n = 0; n < 16; n++) {
		if (bv & 2)
			copy(s->ymm[n], x + 160 + 16 * n, 16);
		if (bv & 4)
			copy(s->ymm[n] + 16, x + ref.avx_offset + 16 * n, 16);
	}
}

#define EFL_USER 0x254dd5ul /* what a case may find and leave: arithmetic, TF, DF, AC, RF, NT, ID */

static void load_case(ucontext_t *uc, const struct native_case *c)
{
	greg_t *g = uc->uc_mcontext.gregs;
	u64 selectors = c->in.cs | (u64)c->in.ss << 48;

	apply_pokes(ref.data, c);
	copy(code_view(selector_base(c->in.cs) + c->in.rip), c->code, c->len);
	for (unsigned int n = 0; n < 16; n++)
		g[gpr_of_greg[n]] = c->in.gpr[n];
	g[REG_RIP] = c->in.rip;
	g[REG_EFL] = (g[REG_EFL] & ~EFL_USER) | (c->in.rflags & EFL_USER);
	g[REG_CSGSFS] = selectors;
	load_vectors((u8 *)uc->uc_mcontext.fpregs, &c->in);
	load_segments(&c->in);
	ref.current = ref.b->c + ref.at;
	ref.running = true;
}

static void save_case(const ucontext_t *uc, struct outcome *out, int sig)
{
	const greg_t *g = uc->uc_mcontext.gregs;
	const struct native_case *c = ref.current;

	save_segments(&out->s);
	for (unsigned int n = 0; n < 16; n++)
		out->s.gpr[n] = g[gpr_of_greg[n]];
	out->s.rip = g[REG_RIP];
	out->s.rflags = g[REG_EFL];
	out->s.cs = g[REG_CSGSFS];
	out->s.ss = (u64)g[REG_CSGSFS] >> 48;
	out->vector = sig == SIGSYS ? VECTOR_SYSCALL : sig == SIGVTALRM ? VECTOR_HANG : g[REG_TRAPNO];
	out->error = g[REG_ERR];
	out->cr2 = g[REG_CR2];
	save_vectors((const u8 *)uc->uc_mcontext.fpregs, &out->s);
	fill(code_view(selector_base(c->in.cs) + c->in.rip), OP_HLT_BYTE, c->len);
	collect_lines(ref.data, out);
	ref.running = false;
}

/* Wait for a batch whose first case is to be run next. */
static void next_batch(void)
{
	u8 go;

	if (sys3(SYS_read, ref.from, (long)&go, 1) != 1)
		sys3(SYS_exit_group, 0, 0, 0);
	ref.at = 0;
}

/* A case that does not end has seen two alarms. */
static bool is_first_alarm(int sig)
{
	bool first = sig == SIGVTALRM && ref.running && ref.last_alarm != ref.current;

	if (sig != SIGVTALRM)
		return false;
	if (first || !ref.running)
		ref.last_alarm = ref.running ? ref.current : NULL;
	return first || !ref.running;
}

__attribute__((used)) static void on_signal(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;

	(void)si;
	if (is_first_alarm(sig))
		return;
	if (ref.running) {
		save_case(uc, &ref.b->out[ref.at], sig);
		ref.last_alarm = NULL;
		if (++ref.at == ref.b->n) {
			sys3(SYS_write, ref.to, (long)"", 1);
			next_batch();
		}
	} else {
		next_batch();
	}
	load_case(uc, &ref.b->c[ref.at]);
}

/* A case may leave AC, NT and ID set: the handler starts without, and rt_sigreturn keeps its NT and ID. */
asm(".text\n"
    "signal_entry:\n"
    "	pushfq\n"
    "	andl $~0x244100, (%rsp)\n"
    "	popfq\n"
    "	jmp on_signal\n"
    "signal_return:\n"
    "	mov $15, %eax\n"
    "	syscall\n");
void signal_entry(void);
void signal_return(void);

/* ---- start: libc may be used ------------------------------------------------------------- */

static void *map_at(u64 linear, int fd, u64 offset, u64 size, int prot)
{
	int flags = MAP_SHARED | MAP_POPULATE | (linear ? MAP_FIXED_NOREPLACE : 0);
	void *p = mmap((void *)linear, size, prot, flags, fd, offset);

	if (p == MAP_FAILED)
		_exit(2);
	return p;
}

static void map_memory(void)
{
	int fd = memfd_create("native-test", MFD_CLOEXEC);
	u64 code = CODE_PAGES * PAGE_SIZE;

	if (fd < 0 || ftruncate(fd, code + DATA_SIZE))
		_exit(2);
	ref.code = map_at(0, fd, 0, code, PROT_READ | PROT_WRITE);
	ref.data = map_at(0, fd, code, DATA_SIZE, PROT_READ | PROT_WRITE);
	memset(ref.code, OP_HLT_BYTE, code);
	memcpy(ref.data, pristine, DATA_SIZE);
	map_at(CODE_A, fd, 0, PAGE_SIZE, PROT_READ | PROT_EXEC);
	map_at(CODE_B, fd, PAGE_SIZE, 2 * PAGE_SIZE, PROT_READ | PROT_EXEC);
	map_at(DATA, fd, code, DATA_RW * PAGE_SIZE, PROT_READ | PROT_WRITE);
	map_at(DATA + DATA_RW * PAGE_SIZE, fd, code + DATA_RW * PAGE_SIZE, PAGE_SIZE, PROT_READ);
	mlock((void *)CODE_A, PAGE_SIZE);
	mlock((void *)CODE_B, 2 * PAGE_SIZE);
	mlock((void *)DATA, DATA_SIZE);
	for (u64 k = 0; k < DATA_RW; k++) /* dirty and present in the linear view, too */
		*(volatile u8 *)(DATA + k * PAGE_SIZE) = pristine[k * PAGE_SIZE];
}

/* The kernel's struct: no libc wrapper, whose restorer needs none of our care but is unknown. */
struct ksigaction {
	void (*handler)(void);
	unsigned long flags;
	void (*restorer)(void);
	u64 mask;
};

#define SA_RESTORER 0x04000000ul

static void handle_signals(void)
{
	static const u8 signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGSYS, SIGVTALRM};
	static u8 stack[1 << 16] __attribute__((aligned(64)));
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof(stack)};
	struct ksigaction sa = {
		.handler = signal_entry,
		.flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTORER,
		.restorer = signal_return,
		.mask = BIT(SIGVTALRM - 1),
	};

	sigaltstack(&ss, NULL);
	for (unsigned int k = 0; k < sizeof(signals); k++)
		syscall(SYS_rt_sigaction, signals[k], &sa, NULL, 8);
}

/* Only what the handler needs, and only by the 64-bit entry: int 0x80 has numbers of its own. */
static void restrict_syscalls(void)
{
#define ALLOW(nr) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 1), \
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		ALLOW(SYS_read), ALLOW(SYS_write), ALLOW(SYS_rt_sigreturn), ALLOW(SYS_exit_group),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
	};
	struct sock_fprog prog = {.len = sizeof(code) / sizeof(code[0]), .filter = code};

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &prog, 0, 0))
		_exit(2);
}

static u32 avx_offset(void)
{
	u32 a = 0xd, b, c = 2, d;

	asm volatile("cpuid" : "+a"(a), "=b"(b), "+c"(c), "=d"(d));
	return b;
}

bool ref_make_ldt(void)
{
	for (unsigned int k = 0; k < NR_LDT; k++) {
		const struct ldt_entry *l = &ldt_entries[k];
		struct user_desc d = {
			.entry_number = k,
			.base_addr = l->base,
			.limit = l->limit == ~0u ? 0xfffff : l->limit,
			.limit_in_pages = l->limit == ~0u,
			.seg_32bit = l->big,
			.contents = l->code ? MODIFY_LDT_CONTENTS_CODE : MODIFY_LDT_CONTENTS_DATA,
		};

		if (syscall(SYS_modify_ldt, 1, &d, sizeof(d)))
			return false;
	}
	return true;
}

_Noreturn void ref_main(struct batch *b, int from_parent, int to_parent)
{
	struct itimerval every = {.it_interval = {.tv_sec = 2}, .it_value = {.tv_sec = 2}};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	ref.b = b;
	ref.from = from_parent;
	ref.to = to_parent;
	ref.avx_offset = avx_offset();
	map_memory();
	handle_signals();
	setitimer(ITIMER_VIRTUAL, &every, NULL);
	restrict_syscalls();
	asm volatile("ud2");
	__builtin_unreachable();
}
