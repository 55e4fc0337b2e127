// SPDX-License-Identifier: MIT
/*
 * Rows of which the host's user mode cannot be the reference, each with its reason. Whatever
 * is not named here runs, privileged instructions too: their #GP and #UD are compared.
 */
#include "native.h"

#include "x86/rows.h"

#include <string.h>

static const struct {
	u16 op;
	const char *why;
} excluded[] = {
	{OP_SYSCALL, "enters the host's kernel"},
	{OP_SYSENTER, "enters the host's kernel"},
	{OP_CPUID, "answers are the VMM's, not the host's"},
	{OP_XGETBV, "XCR0 is the VMM's"},
	{OP_RDPKRU, "PKRU guards the reference's own memory"},
	{OP_WRPKRU, "PKRU guards the reference's own memory"},
	{OP_RDTSC, "not deterministic"},
	{OP_RDTSCP, "not deterministic"},
	{OP_RDPMC, "not deterministic"},
	{OP_RDRAND, "not deterministic"},
	{OP_RDSEED, "not deterministic"},
	{OP_RDPID, "the host's processor number"},
	{OP_SGDT, "UMIP: the host's kernel emulates it"},
	{OP_SIDT, "UMIP: the host's kernel emulates it"},
	{OP_SMSW, "UMIP: the host's kernel emulates it"},
	{OP_SLDT, "UMIP: the host's kernel emulates it"},
	{OP_STR, "UMIP: the host's kernel emulates it"},
	{OP_INT1, "a host that is a VM gets the wrong RIP (KVM on SVM puts the #DB back as a fault)"},
	{OP_VMCALL, "goes to the host's own hypervisor"},
	{OP_VMMCALL, "goes to the host's own hypervisor"},
	{OP_UD_EVEX, "the guest has no AVX-512, the host may"},
};

/* 0F 0D with a register: a NOP for Intel, #UD for AMD (APM 3 "PREFETCH"); ours is Intel's. */
static bool is_prefetch_nop(u32 row)
{
	return insn_rows[row].op == OP_NOP && insn_sels[row].map == MAP_L0F && insn_sels[row].opcode == 0x0d;
}

/* XCHG R8, rAX and CMPXCHG16B are chosen by a bit of REX. */
static bool needs_rex(u32 row)
{
	const struct insn_row *r = &insn_rows[row];

	return r->op == OP_CMPXCHG16B || (r->op == OP_XCHG && insn_sels[row].map == MAP_ONE &&
		insn_sels[row].opcode == 0x90);
}

const char *row_excluded(u32 row, enum insn_mode mode)
{
	const struct insn_row *r = &insn_rows[row];

	if (r->op == OP_INVALID)
		return "the row of invalid bytes";
	if (is_prefetch_nop(row))
		return "a matter of the vendor (0F 0D with a register)";
	if (mode == MODE_64 && (r->rules & RULE_NO64))
		return "not in 64-bit mode";
	if (mode != MODE_64 && ((r->rules & RULE_ONLY64) || needs_rex(row)))
		return "only in 64-bit mode";
	for (unsigned int k = 0; k < ARRAY_SIZE(excluded); k++)
		if (excluded[k].op == r->op)
			return excluded[k].why;
	return NULL;
}
