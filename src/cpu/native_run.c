// SPDX-License-Identifier: MIT
/*
 * Runs class N instructions through their thunks: operand checks that keep host exceptions
 * away, the three steps of env.h, and the floating-point rules.
 *
 * SIMD: the thunk runs with all exceptions masked and MXCSR's other control bits the
 * guest's; the flags that it raised decide afterwards. x87: the guest's control word is
 * loaded as it is. An unmasked exception only sets FSW.ES, FXSAVE does not wait (SDM 1
 * 8.3.12), and FNINIT follows before anything of ours could: no host #MF.
 *
 * DIFFERS: with MXCSR.UM clear, an exact denormal result does not raise #XM (SDM 1 11.5.2.5).
 * With OM clear, PE beside OE is that of the masked result. Unmasked exceptions of DPPS and
 * DPPD are looked for once, not after each of their steps.
 */
#include "cpu/exec.h"
#include "cpu/fpu.h"
#include "cpu/native.h"

#include <string.h>
#include <xmmintrin.h>

/* ---- no host #DE ---------------------------------------------------------------------- */

static bool div_fits(const struct cpu *cpu, unsigned int size, u64 divisor)
{
	unsigned __int128 n;

	if (size == 1)
		return (u16)cpu->regs[GPR_RAX] / divisor <= 0xff;
	n = (unsigned __int128)reg_get(cpu, GPR_RDX, size) << 8 * size | reg_get(cpu, GPR_RAX, size);
	return n / divisor <= zext(~0ull, size);
}

static bool idiv_fits(const struct cpu *cpu, unsigned int size, u64 value)
{
	unsigned __int128 u;
	__int128 n, q, limit = (__int128)1 << (8 * size - 1);
	s64 divisor = sext(value, size);

	if (size == 1) {
		n = (s16)cpu->regs[GPR_RAX];
	} else {
		u = (unsigned __int128)(__int128)sext(cpu->regs[GPR_RDX], size) << 8 * size;
		n = (__int128)(u | reg_get(cpu, GPR_RAX, size));
	}
	/* -2^127 / -1 does not fit __int128 either; nothing by -1 fits but what its negation does */
	if (divisor == -1)
		return n > -limit && n <= limit;
	q = n / divisor;
	return q >= -limit && q < limit;
}

/* SDM 2A "DIV", "IDIV": #DE if the divisor is 0 or the quotient does not fit. */
static enum stop check_division(struct cpu *cpu, const struct insn *i, const void *mem)
{
	unsigned int size = insn_opnd_size(i, 0);
	bool is_idiv = insn_op(i) == OP_IDIV;
	u64 divisor = 0;

	if (mem)
		memcpy(&divisor, mem, size);
	else
		divisor = size == 1 ? reg8_get(cpu, i, i->rm) : reg_get(cpu, i->rm, size);
	if (!divisor)
		return cpu_raise(cpu, EXC_DE);
	if (is_idiv ? idiv_fits(cpu, size, divisor) : div_fits(cpu, size, divisor))
		return STOP_OK;
	return cpu_raise(cpu, EXC_DE);
}

/* ---- what a thunk may have to give back -------------------------------------------------- */

struct saved {
	u64 regs[16], fl;
	u32 mxcsr;
	u8 ymm[16][32], fx[512];
};

static void save(struct saved *s, const struct cpu *cpu)
{
	memcpy(s->regs, cpu->regs, sizeof(s->regs));
	s->fl = cpu->fl;
	s->mxcsr = cpu->mxcsr;
	memcpy(s->ymm, cpu->fpu.ymm, sizeof(s->ymm));
	memcpy(s->fx, cpu->fpu.fx, sizeof(s->fx));
}

/* All but MXCSR: its flags stay after #XM. */
static void restore(struct cpu *cpu, const struct saved *s)
{
	memcpy(cpu->regs, s->regs, sizeof(s->regs));
	cpu->fl = s->fl;
	memcpy(cpu->fpu.ymm, s->ymm, sizeof(s->ymm));
	memcpy(cpu->fpu.fx, s->fx, sizeof(s->fx));
}

/* ---- SIMD exceptions: SDM 1 11.5 ---------------------------------------------------------- */

/* Control bits for the run. Flush-to-zero has no effect while underflow is unmasked (SDM 1 10.2.3.3). */
static u32 run_mxcsr(u32 guest)
{
	u32 v = (guest & (MXCSR_RC | MXCSR_FTZ | MXCSR_DAZ)) | MXCSR_MASKS;

	return guest & MXCSR_UM ? v : v & ~MXCSR_FTZ;
}

/*
 * Flags that the run raised go to the guest's MXCSR; if one is unmasked, an invalid,
 * denormal or divide-by-zero operand hides what the result would have raised.
 */
static enum stop mxcsr_after(struct cpu *cpu, u32 raised)
{
	u32 unmasked = raised & ~(cpu->mxcsr >> 7) & MXCSR_FLAGS;

	if (unmasked & MXCSR_PRE)
		raised &= MXCSR_PRE;
	cpu->mxcsr |= raised & MXCSR_FLAGS;
	if (!unmasked)
		return STOP_OK;
	return cpu_raise(cpu, cpu->cr4 & CR4_OSXMMEXCPT ? EXC_XM : EXC_UD);
}

static u32 run_simd(struct cpu *cpu, native_fn *fn, void *mem)
{
	u32 host = _mm_getcsr(), raised;

	_mm_setcsr(run_mxcsr(cpu->mxcsr));
	fn(cpu, mem);
	raised = _mm_getcsr();
	_mm_setcsr(host);
	return raised;
}

/* ---- x87 and MMX ---------------------------------------------------------------------------- */

/* Environment pointers are ours: FXSAVE would store the host's. */
static void set_pointers(struct cpu *cpu, const struct insn *i)
{
	u16 opcode = (i->opcode & 7) << 8 | i->modrm;
	u64 fip = cpu->rip, fdp = insn_ea(cpu, i);

	memcpy(cpu->fpu.fx + FX_FOP, &opcode, 2);
	memcpy(cpu->fpu.fx + FX_FIP, &fip, 8);
	if (i->flags & INSN_MEM)
		memcpy(cpu->fpu.fx + FX_FDP, &fdp, 8);
}

/* SDM 1 8.1.8: control instructions leave the pointers alone. MMX instructions do, too. */
static bool is_control(const struct insn *i)
{
	if (i->map || i->opcode < 0xd8 || i->opcode > 0xdf)
		return true;
	switch (insn_op(i)) {
	case OP_FLDCW:
	case OP_FNSTCW:
	case OP_FNSTSW:
	case OP_FNCLEX:
	case OP_FNENI:
	case OP_FNDISI:
	case OP_FNSETPM:
		return true;
	default:
		return false;
	}
}

/* Returns the MXCSR flags that were raised (CVTPI2PS and the like). */
static u32 run_fx(struct cpu *cpu, const struct insn *i, native_fn *fn, void *mem)
{
	u8 pointers[FX_MXCSR - FX_FOP];
	u32 host = _mm_getcsr(), mxcsr = run_mxcsr(cpu->mxcsr);
	u16 host_cw;

	memcpy(pointers, cpu->fpu.fx + FX_FOP, sizeof(pointers));
	memset(cpu->fpu.fx + FX_FOP, 0, sizeof(pointers));
	memcpy(cpu->fpu.fx + FX_MXCSR, &mxcsr, 4);
	__asm__ volatile("fnstcw %0" : "=m"(host_cw));
	fn(cpu, mem);
	__asm__ volatile("fninit; fldcw %0" : : "m"(host_cw));
	_mm_setcsr(host);
	memcpy(&mxcsr, cpu->fpu.fx + FX_MXCSR, 4);
	if (insn_op(i) == OP_FNINIT)
		memset(pointers, 0, sizeof(pointers));
	memcpy(cpu->fpu.fx + FX_FOP, pointers, sizeof(pointers));
	return mxcsr;
}

/* An unmasked exception other than inexact: nothing was stored or popped (SDM 1 8.7). */
static bool x87_suppressed(const struct cpu *cpu)
{
	u16 cw = fx_cw(cpu), sw = fx_sw(cpu);

	return sw & ~cw & (FSW_EXCEPTIONS & ~FSW_PE);
}

/* ---- calling a thunk ------------------------------------------------------------------------ */

/* The rare case: something is unmasked, so the result may have to be taken back. */
static enum stop call_unmasked(struct cpu *cpu, const struct insn *i, native_fn *fn, void *mem)
{
	bool writes = mem && (insn_mem_acc(i) & ACC_W);
	unsigned int n = mem ? MIN(insn_mem_size(i), 64) : 0;
	u8 copy[64] __attribute__((aligned(64)));
	struct saved before;
	bool is_fx = insn_row(i)->rules & (RULE_X87 | RULE_MMX);
	enum stop stop;

	save(&before, cpu);
	if (n)
		memcpy(copy, mem, n);
	stop = mxcsr_after(cpu, is_fx ? run_fx(cpu, i, fn, n ? copy : NULL)
				      : run_simd(cpu, fn, n ? copy : NULL));
	if (stop)
		restore(cpu, &before);
	else if (writes)
		memcpy(mem, copy, n);
	return stop;
}

static bool all_masked(const struct cpu *cpu)
{
	return (cpu->mxcsr & MXCSR_MASKS) == MXCSR_MASKS;
}

enum stop native_call(
	struct cpu *cpu, const struct insn *i, native_fn *fn, void *mem, bool *stored)
{
	u32 rules = insn_row(i)->rules;
	u32 raised;

	*stored = true;
	if (native_is_plain(i)) {
		fn(cpu, mem);
		return STOP_OK;
	}
	if ((rules & RULE_MXCSR) && !all_masked(cpu))
		return call_unmasked(cpu, i, fn, mem);
	if (!(rules & (RULE_X87 | RULE_MMX))) {
		cpu->mxcsr |= run_simd(cpu, fn, mem) & MXCSR_FLAGS;
		return STOP_OK;
	}
	raised = run_fx(cpu, i, fn, mem);
	if (rules & RULE_MXCSR)
		cpu->mxcsr |= raised & MXCSR_FLAGS;
	if (!is_control(i) && insn_op(i) != OP_FNINIT) {
		set_pointers(cpu, i);
		*stored = !x87_suppressed(cpu);
	}
	return STOP_OK;
}

/* ---- exec_native ---------------------------------------------------------------------------- */

/* BT mem, reg: the offset is signed and reaches beyond the operand (SDM 2A "BT"). */
static u64 bit_string_ea(const struct cpu *cpu, const struct insn *i, u64 ea)
{
	s64 offset = sext(cpu->regs[i->reg], i->osz);

	/* units of osz bytes: 16, 32 or 64 bits */
	offset = (offset >> (i->osz == 8 ? 6 : i->osz == 4 ? 5 : 4)) * i->osz;
	return zext(ea + offset, i->asz);
}

static u64 operand_ea(const struct cpu *cpu, const struct insn *i)
{
	u64 ea = insn_ea(cpu, i);

	switch (insn_op(i)) {
	case OP_BT:
	case OP_BTS:
	case OP_BTR:
	case OP_BTC:
		return insn_row(i)->opnd[1].kind == OPND_G ? bit_string_ea(cpu, i, ea) : ea;
	default:
		return ea;
	}
}

static enum stop map_operand(struct env *e, const struct insn *i, struct access *a)
{
	u32 size = insn_mem_size(i);
	unsigned int acc = insn_mem_acc(i);
	u8 need = (acc & ACC_R ? MMU_R : 0) | (acc & ACC_W ? MMU_W : 0);
	u64 ea = operand_ea(e->cpu, i);

	if (insn_row(i)->rules & RULE_ALIGN)
		TRY(env_map_aligned(e, a, i->seg, ea, size, need, size));
	else
		TRY(env_map(e, a, i->seg, ea, size, need));
	return env_begin(e);
}

/* Results go to a bounce buffer: its commit may still stop, so registers can be taken back. */
static enum stop run_bounced(
	struct cpu *cpu, const struct insn *i, struct env *e, native_fn *fn, struct access *a)
{
	struct saved before;
	bool stored;
	enum stop stop;

	save(&before, cpu);
	TRY(native_call(cpu, i, fn, a->p, &stored));
	if (!stored)
		return STOP_OK;
	stop = env_flush(e, a);
	if (stop) {
		restore(cpu, &before);
		cpu->mxcsr = before.mxcsr;
	}
	return stop;
}

static enum stop run_memory(struct cpu *cpu, const struct insn *i, struct env *e, native_fn *fn)
{
	struct access a;
	bool stored;

	TRY(map_operand(e, i, &a));
	if (insn_op(i) == OP_DIV || insn_op(i) == OP_IDIV)
		TRY(check_division(cpu, i, a.p));
	if ((a.need & MMU_W) && a.p == a.bounce)
		return run_bounced(cpu, i, e, fn, &a);
	TRY(native_call(cpu, i, fn, a.p, &stored));
	return (a.need & MMU_W) && stored ? env_flush(e, &a) : STOP_OK;
}

enum stop exec_native(struct cpu *cpu, const struct insn *i, struct env *e)
{
	native_fn *fn = native_get(cpu->native, i);
	bool stored;

	if (!fn)
		return cpu_fail(cpu, "no executable memory for host instructions");
	if (i->flags & INSN_MEM)
		return run_memory(cpu, i, e, fn);
	if (insn_op(i) == OP_DIV || insn_op(i) == OP_IDIV)
		TRY(check_division(cpu, i, NULL));
	return native_call(cpu, i, fn, NULL, &stored);
}
