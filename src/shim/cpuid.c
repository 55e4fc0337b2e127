// SPDX-License-Identifier: MIT
/*
 * VMX or SVM in the CPUID that the program asks itself. kvmtool executes CPUID before it opens
 * /dev/kvm and ends if the processor has neither. Where that is so, the CPUIDs of a program that
 * names /dev/kvm become UD2 (both have two bytes), and our SIGILL handler answers with the
 * host's CPUID and that bit. CPUID faulting would spare the UD2, but few hosts have it.
 *
 * Only the program's own code, not its libraries'; only instructions that decoding from the
 * start of their function (.eh_frame_hdr has all) arrives at. A page with one is replaced by a
 * copy that is written before it is mapped: no page is ever writable and executable.
 */
#include "shim/shim.h"

#include "x86/insn.h"

#include <elf.h>
#include <link.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#ifndef MFD_EXEC
#define MFD_EXEC 0x10u
#endif

#define VMX  BIT(5) /* CPUID.1:ECX (SDM 2A CPUID) */
#define SVM  BIT(2) /* CPUID.80000001:ECX (APM 3 E.4.2) */
#define LEN  2u	    /* of CPUID, and of UD2 */
#define MAX_SITES 64

struct regs {
	u32 a, b, c, d;
};

static const u8 cpuid_code[LEN] = {0x0f, 0xa2}, ud2_code[LEN] = {0x0f, 0x0b};
static const u8 *sites[MAX_SITES]; /* set before main */
static unsigned int nr_sites;

/* ---- the answer */

static void host_cpuid(struct regs *r)
{
	asm volatile("cpuid" : "+a"(r->a), "=b"(r->b), "+c"(r->c), "=d"(r->d));
}

/* AMD's and Hygon's processors have SVM, all others VMX. */
static bool is_amd(void)
{
	struct regs r = {0};

	host_cpuid(&r);
	return !memcmp(&r.b, "Auth", 4) || !memcmp(&r.b, "Hygo", 4);
}

/* What leaf has the bit in ECX, and which bit. */
static u32 virtualization_leaf(u32 *bit)
{
	bool amd = is_amd();

	*bit = amd ? SVM : VMX;
	return amd ? 0x80000001 : 1;
}

static bool host_has_virtualization(void)
{
	u32 bit;
	struct regs r = {.a = virtualization_leaf(&bit)};

	host_cpuid(&r);
	return r.c & bit;
}

static bool is_site(const u8 *rip)
{
	for (unsigned int k = 0; k < nr_sites; k++)
		if (sites[k] == rip)
			return true;
	return false;
}

bool shim_answer_cpuid(void *context)
{
	greg_t *g = ((ucontext_t *)context)->uc_mcontext.gregs;
	struct regs r = {.a = g[REG_RAX], .c = g[REG_RCX]};
	u32 bit, add;

	if (!is_site((const u8 *)g[REG_RIP]))
		return false;
	add = r.a == virtualization_leaf(&bit) ? bit : 0;
	host_cpuid(&r);
	g[REG_RAX] = r.a;
	g[REG_RBX] = r.b;
	g[REG_RCX] = r.c | add;
	g[REG_RDX] = r.d;
	g[REG_RIP] += LEN;
	return true;
}

/* ---- the program's functions */

/* The sorted table of .eh_frame_hdr in the one form that linkers write (LSB 5.0 Core 10.6.2). */
struct functions {
	u8 version, ptr_enc, count_enc, table_enc;
	s32 eh_frame;
	u32 nr;
	struct {
		s32 start, fde; /* from the header's own address */
	} f[];
};

static bool is_known_form(const struct functions *t)
{
	return t && t->version == 1 && t->count_enc == 3 && t->table_enc == 0x3b &&
	       (t->ptr_enc & 0xf) == 0xb;
}

/* The last function that begins at p or before it, or NULL. */
static const u8 *function_of(const struct functions *t, const u8 *p)
{
	s64 at = p - (const u8 *)t;
	u32 low = 0, high = t->nr;

	while (low < high) {
		u32 mid = low + (high - low) / 2;

		if (t->f[mid].start <= at)
			low = mid + 1;
		else
			high = mid;
	}
	return low ? (const u8 *)t + t->f[low - 1].start : NULL;
}

static bool is_cpuid(const struct functions *t, const u8 *p, const u8 *end)
{
	const u8 *q = function_of(t, p);
	struct insn i;

	if (!q)
		return false;
	for (; q < p; q += i.len)
		if (insn_decode(&i, MODE_64, q, MIN(end - q, 15)) != DECODE_OK)
			return false;
	return q == p && insn_decode(&i, MODE_64, p, end - p) == DECODE_OK && insn_op(&i) == OP_CPUID;
}

/* ---- the change */

/* The pages around p..p+LEN, with UD2 at p, in place of the old ones. */
static bool replace(const u8 *p)
{
	u8 *page = (u8 *)ALIGN_DOWN((u64)p, PAGE_SIZE);
	size_t len = ALIGN_UP((u64)p + LEN, PAGE_SIZE) - (u64)page;
	int fd = memfd_create("anykvm-cpuid", MFD_CLOEXEC | MFD_EXEC);
	bool ok;

	if (fd < 0) /* before Linux 6.3 */
		fd = memfd_create("anykvm-cpuid", MFD_CLOEXEC);
	ok = fd >= 0 && write(fd, page, len) == (ssize_t)len &&
	     pwrite(fd, ud2_code, LEN, p - page) == LEN &&
	     REAL(mmap)(page, len, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0) == page;
	if (fd >= 0)
		REAL(close)(fd);
	return ok;
}

static void change_segment(const struct functions *t, const u8 *start, size_t len)
{
	const u8 *end = start + len, *p = start;

	while (nr_sites < MAX_SITES && (p = memmem(p, end - p, cpuid_code, LEN))) {
		if (is_cpuid(t, p, end) && replace(p))
			sites[nr_sites++] = p;
		p++;
	}
}

static const ElfW(Phdr) *segment_of(const struct dl_phdr_info *info, u32 type)
{
	for (unsigned int k = 0; k < info->dlpi_phnum; k++)
		if (info->dlpi_phdr[k].p_type == type)
			return &info->dlpi_phdr[k];
	return NULL;
}

static bool names_dev_kvm(const struct dl_phdr_info *info)
{
	for (unsigned int k = 0; k < info->dlpi_phnum; k++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[k];

		if (p->p_type == PT_LOAD && !(p->p_flags & PF_W) &&
		    memmem((const u8 *)info->dlpi_addr + p->p_vaddr, p->p_filesz, "/dev/kvm",
			   sizeof("/dev/kvm")))
			return true;
	}
	return false;
}

static void change_program(const struct dl_phdr_info *info)
{
	const ElfW(Phdr) *eh = segment_of(info, PT_GNU_EH_FRAME);
	const struct functions *t = eh ? (const void *)(info->dlpi_addr + eh->p_vaddr) : NULL;

	if (!is_known_form(t))
		return;
	for (unsigned int k = 0; k < info->dlpi_phnum; k++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[k];

		if (p->p_type == PT_LOAD && p->p_flags == (PF_R | PF_X))
			change_segment(t, (const u8 *)info->dlpi_addr + p->p_vaddr, p->p_filesz);
	}
}

static int first_object(struct dl_phdr_info *info, size_t size, void *arg)
{
	(void)size, (void)arg;
	if (names_dev_kvm(info))
		change_program(info);
	return 1; /* the program comes before its libraries */
}

static __attribute__((constructor)) void begin(void)
{
	if (!host_has_virtualization()) {
		dl_iterate_phdr(first_object, NULL);
		if (nr_sites)
			shim_catch_ud2();
	}
}
