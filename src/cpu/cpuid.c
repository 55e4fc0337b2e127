// SPDX-License-Identifier: MIT
/*
 * CPUID: answers from the table that KVM_SET_CPUID2 gave, with KVM's fallbacks and the bits
 * that follow the processor's state; and features[], which gates instructions.
 */
#include "cpu/fpu.h"
#include "cpu/system.h"
#include "cpu/tb.h"

#include <cpuid.h>
#include <string.h>

enum { EAX, EBX, ECX, EDX };

/* Where each CPUF_* bit is. */
static const struct {
	u32 leaf;
	u8 subleaf, reg, bit;
} where[NR_CPUF] = {
	[CPUF_X87] = {1, 0, EDX, 0},
	[CPUF_TSC] = {1, 0, EDX, 4},
	[CPUF_MSR] = {1, 0, EDX, 5},
	[CPUF_CX8] = {1, 0, EDX, 8},
	[CPUF_SEP] = {1, 0, EDX, 11},
	[CPUF_CMOV] = {1, 0, EDX, 15},
	[CPUF_CLFLUSH] = {1, 0, EDX, 19},
	[CPUF_MMX] = {1, 0, EDX, 23},
	[CPUF_FXSR] = {1, 0, EDX, 24},
	[CPUF_SSE] = {1, 0, EDX, 25},
	[CPUF_SSE2] = {1, 0, EDX, 26},
	[CPUF_SSE3] = {1, 0, ECX, 0},
	[CPUF_PCLMUL] = {1, 0, ECX, 1},
	[CPUF_MONITOR] = {1, 0, ECX, 3},
	[CPUF_VMX] = {1, 0, ECX, 5},
	[CPUF_SMX] = {1, 0, ECX, 6},
	[CPUF_SSSE3] = {1, 0, ECX, 9},
	[CPUF_FMA] = {1, 0, ECX, 12},
	[CPUF_CX16] = {1, 0, ECX, 13},
	[CPUF_SSE41] = {1, 0, ECX, 19},
	[CPUF_SSE42] = {1, 0, ECX, 20},
	[CPUF_MOVBE] = {1, 0, ECX, 22},
	[CPUF_POPCNT] = {1, 0, ECX, 23},
	[CPUF_AES] = {1, 0, ECX, 25},
	[CPUF_XSAVE] = {1, 0, ECX, 26},
	[CPUF_AVX] = {1, 0, ECX, 28},
	[CPUF_F16C] = {1, 0, ECX, 29},
	[CPUF_RDRAND] = {1, 0, ECX, 30},
	[CPUF_FSGSBASE] = {7, 0, EBX, 0},
	[CPUF_BMI1] = {7, 0, EBX, 3},
	[CPUF_AVX2] = {7, 0, EBX, 5},
	[CPUF_BMI2] = {7, 0, EBX, 8},
	[CPUF_INVPCID] = {7, 0, EBX, 10},
	[CPUF_RDSEED] = {7, 0, EBX, 18},
	[CPUF_ADX] = {7, 0, EBX, 19},
	[CPUF_SMAP] = {7, 0, EBX, 20},
	[CPUF_CLFLUSHOPT] = {7, 0, EBX, 23},
	[CPUF_CLWB] = {7, 0, EBX, 24},
	[CPUF_SHA] = {7, 0, EBX, 29},
	[CPUF_PKU] = {7, 0, ECX, 3},
	[CPUF_RDPID] = {7, 0, ECX, 22},
	[CPUF_XSAVEOPT] = {0xd, 1, EAX, 0},
	[CPUF_XSAVEC] = {0xd, 1, EAX, 1},
	[CPUF_XSAVES] = {0xd, 1, EAX, 3},
	[CPUF_LAHF64] = {0x80000001, 0, ECX, 0},
	[CPUF_SVM] = {0x80000001, 0, ECX, 2},
	[CPUF_LZCNT] = {0x80000001, 0, ECX, 5},
	[CPUF_PREFETCHW] = {0x80000001, 0, EDX, 29}, /* LM will do (APM 3 "PREFETCHW") */
	[CPUF_SYSCALL] = {0x80000001, 0, EDX, 11},
	[CPUF_RDTSCP] = {0x80000001, 0, EDX, 27},
};

const struct cpuid_entry *cpuid_find(const struct cpu *cpu, u32 leaf, u32 subleaf)
{
	for (u32 k = 0; k < cpu->nr_cpuid; k++) {
		const struct cpuid_entry *c = &cpu->cpuid[k];

		if (c->leaf == leaf && (!c->has_subleaf || c->subleaf == subleaf))
			return c;
	}
	return NULL;
}

static u32 entry_reg(const struct cpuid_entry *c, u8 reg)
{
	const u32 v[4] = {c->eax, c->ebx, c->ecx, c->edx};

	return v[reg];
}

bool cpuid_bit(const struct cpu *cpu, u32 leaf, u8 reg, u8 bit)
{
	const struct cpuid_entry *c = cpuid_find(cpu, leaf, 0);

	return c && (entry_reg(c, reg) >> bit & 1);
}

/* "GenuineIntel"; without a table, and for all others, AMD's rules hold. */
bool cpu_is_intel(const struct cpu *cpu)
{
	const struct cpuid_entry *c = cpuid_find(cpu, 0, 0);

	return c && c->ebx == 0x756e6547 && c->edx == 0x49656e69 && c->ecx == 0x6c65746e;
}

bool cpu_canonical_base(const struct cpu *cpu, u64 base)
{
	unsigned int unused = cpuid_bit(cpu, 7, ECX, 16) ? 64 - 57 : 64 - 48;

	return (u64)((s64)(base << unused) >> unused) == base;
}

static bool ask_host(unsigned int f)
{
	unsigned int v[4];

	if (f == CPUF_VMX || f == CPUF_SVM || f == CPUF_SMX)
		return false;
	if (!__get_cpuid_count(where[f].leaf, where[f].subleaf, &v[0], &v[1], &v[2], &v[3]))
		return false;
	return v[where[f].reg] >> where[f].bit & 1;
}

/*
 * A VMM that never gave a table gets the host's instructions, but no virtualization. Asked once: where
 * we are in a virtual machine ourselves, CPUID is an exit.
 */
static u64 host_features(void)
{
	static u64 known; /* atomic; 0: not yet, for every host has some */
	u64 set = __atomic_load_n(&known, __ATOMIC_RELAXED);

	for (unsigned int f = CPUF_NONE + 1; !(set & BIT(CPUF_NONE)) && f < NR_CPUF; f++)
		set |= ask_host(f) ? BIT(f) : 0;
	set |= BIT(CPUF_NONE);
	__atomic_store_n(&known, set, __ATOMIC_RELAXED);
	return set;
}

static bool table_feature(const struct cpu *cpu, unsigned int f)
{
	const struct cpuid_entry *c = cpuid_find(cpu, where[f].leaf, where[f].subleaf);

	return c && (entry_reg(c, where[f].reg) >> where[f].bit & 1);
}

/* Features whose instructions the host runs: what it does not have would be its own #UD. */
static u64 native_features(void)
{
	static u64 known; /* atomic; 0: not yet */
	u64 set = __atomic_load_n(&known, __ATOMIC_RELAXED);

	for (unsigned int k = 0; !(set & BIT(CPUF_AVX2)) && k < nr_insn_rows; k++)
		if (insn_rows[k].cls == CLASS_N)
			set |= BIT(insn_rows[k].cpuf);
	set |= BIT(CPUF_AVX2); /* RULE_AVX2L */
	__atomic_store_n(&known, set, __ATOMIC_RELAXED);
	return set;
}
_Static_assert(NR_CPUF <= 64, "a feature has a bit");

void cpu_set_features(struct cpu *cpu)
{
	u64 host = host_features(), wanted = ~native_features() | host;

	for (unsigned int f = CPUF_NONE + 1; f < NR_CPUF; f++)
		cpu->features[f] = cpu->nr_cpuid ? table_feature(cpu, f) && wanted & BIT(f) : !!(host & BIT(f));
	if (cpu->mmu.paging.maxphyaddr != cpu_maxphyaddr(cpu))
		cpu_update_paging(cpu, false);
	if (cpu->tbs)
		tb_flush_all(cpu); /* blocks were decoded for the old ones */
}

/* ---- the instruction's answer ---- */

static void put_bit(u32 *v, unsigned int bit, bool on)
{
	*v = (*v & ~(u32)BIT(bit)) | (u32)on << bit;
}

static void leaf1(struct cpu *cpu, u32 out[4])
{
	u64 apic_base;

	put_bit(&out[ECX], 27, cpu->cr4 & CR4_OSXSAVE);
	if (cpu->mwait_by_msr)
		put_bit(&out[ECX], 3, cpu->misc_enable & BIT(18));
	if (cpu->ops->rdmsr(cpu, MSR_APIC_BASE, &apic_base) == STOP_OK && !(apic_base & BIT(11)))
		put_bit(&out[EDX], 9, false);
}

/* Leaf D tells what XSAVE does, whatever a table says: QEMU asks the host where PKRU is. */
static void leaf_d(struct cpu *cpu, u32 subleaf, u32 out[4])
{
	u64 compacted = cpu->xcr0 | cpu->xss | XCOMP_COMPACT;

	if (subleaf == 0)
		out[EBX] = fpu_xsave_end(cpu, cpu->xcr0, 0);
	else if (subleaf == 1 && (out[EAX] & 0xa)) /* XSAVEC, XSAVES */
		out[EBX] = fpu_xsave_end(cpu, cpu->xcr0 | cpu->xss, compacted);
	else if (subleaf > 1 && out[EAX] && fpu_xsave_size(subleaf))
		out[EBX] = fpu_xsave_offset(cpu, subleaf, 0);
}

static void dynamic_bits(struct cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
	if (leaf == 1)
		leaf1(cpu, out);
	else if (leaf == 7 && subleaf == 0)
		put_bit(&out[ECX], 4, cpu->cr4 & CR4_PKE);
	else if (leaf == 0xd)
		leaf_d(cpu, subleaf, out);
}

static void copy_entry(const struct cpuid_entry *c, u32 out[4])
{
	out[EAX] = c->eax;
	out[EBX] = c->ebx;
	out[ECX] = c->ecx;
	out[EDX] = c->edx;
}

/* Intel answers a leaf beyond the limit with the highest basic leaf (SDM 2A CPUID). */
static const struct cpuid_entry *out_of_range(const struct cpu *cpu, u32 leaf, u32 subleaf)
{
	const struct cpuid_entry *basic = cpuid_find(cpu, 0, 0), *class;

	if (!basic || !cpu_is_intel(cpu))
		return NULL;
	class = cpuid_find(cpu, leaf & 0x80000000, 0);
	if (class && leaf <= class->eax)
		return NULL;
	return cpuid_find(cpu, basic->eax, subleaf);
}

/* Topology leaves: a level that is not there still names the processor (SDM 2A CPUID 0BH). */
static void absent_topology_level(const struct cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
	const struct cpuid_entry *c = cpuid_find(cpu, leaf, 1);

	if (!c)
		return;
	out[ECX] = subleaf & 0xff;
	out[EDX] = c->edx;
}

void cpu_cpuid(struct cpu *cpu, u32 leaf, u32 subleaf, u32 out[4])
{
	const struct cpuid_entry *c = cpuid_find(cpu, leaf, subleaf);

	memset(out, 0, 4 * sizeof(*out));
	if (!c)
		c = out_of_range(cpu, leaf, subleaf);
	if (c) {
		copy_entry(c, out);
		dynamic_bits(cpu, c->leaf, subleaf, out);
	} else if (leaf == 0xb || leaf == 0x1f) {
		absent_topology_level(cpu, leaf, subleaf, out);
	}
}

enum stop exec_cpuid(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u32 out[4];

	(void)i, (void)e;
	cpu_cpuid(cpu, cpu->regs[GPR_RAX], cpu->regs[GPR_RCX], out);
	cpu->regs[GPR_RAX] = out[EAX];
	cpu->regs[GPR_RBX] = out[EBX];
	cpu->regs[GPR_RCX] = out[ECX];
	cpu->regs[GPR_RDX] = out[EDX];
	return STOP_OK;
}
