// SPDX-License-Identifier: MIT
/*
 * The debug registers: MOV DR (SDM 3A 17.2), and which breakpoints an access hits. Taking
 * the #DB is the business of whoever runs the instruction.
 */
#include "cpu/debug.h"
#include "cpu/system.h"

#define DR6_WRITABLE 0xe00full
#define DR7_WRITABLE 0xffff2bffull

static enum stop raise_bd(struct cpu *cpu)
{
	cpu_raise(cpu, EXC_DB);
	cpu->exc.has_payload = true;
	cpu->exc.payload = DR6_BD;
	return STOP_EXC;
}

static enum stop write_dr(struct cpu *cpu, unsigned int n, u64 v)
{
	if (n < 4) {
		cpu->dr[n] = v;
		return STOP_OK;
	}
	if (v >> 32)
		return cpu_gp(cpu, 0);
	if (n == 6)
		cpu->dr6 = (v & DR6_WRITABLE) | DR6_FIXED;
	else
		cpu->dr7 = (v & DR7_WRITABLE) | DR7_FIXED;
	cpu_update(cpu);
	return STOP_OK;
}

/* 0F 21: from DR, 0F 23: to DR. DR4 and DR5 are DR6 and DR7 unless CR4.DE. */
enum stop exec_mov_dr(struct cpu *cpu, const struct insn *i, struct env *e)
{
	unsigned int size = cpu->mode == MODE_64 ? 8 : 4, n = i->reg;

	(void)e;
	if (n > 7 || ((n == 4 || n == 5) && (cpu->cr4 & CR4_DE)))
		return cpu_ud(cpu);
	if (cpu->cpl)
		return cpu_gp(cpu, 0);
	if ((cpu->guest_debug_hw ? cpu->guest_dr7 : cpu->dr7) & DR7_GD)
		return raise_bd(cpu);
	if (n == 4 || n == 5)
		n += 2;
	if (i->opcode == 0x23)
		return write_dr(cpu, n, reg_get(cpu, i->rm, size));
	reg_set(cpu, i->rm, size, n < 4 ? cpu->dr[n] : n == 6 ? cpu->dr6 : cpu->dr7);
	return STOP_OK;
}

/* ---- breakpoints ---- */

static const u8 dr7_bytes[] = {1, 2, 8, 4};

static unsigned int bp_kind(u64 dr7, unsigned int n) { return dr7 >> (16 + 4 * n) & 3; }
static bool bp_enabled(u64 dr7, unsigned int n) { return dr7 >> (2 * n) & 3; }

/* R/W field: 0 execution, 1 writes, 2 port I/O (CR4.DE), 3 reads and writes. */
static bool bp_hit(u64 dr7, unsigned int n, u64 dr, u64 at, u32 len, unsigned int kinds)
{
	u64 bytes = dr7_bytes[dr7 >> (18 + 4 * n) & 3];
	u64 start = dr & ~(bytes - 1);

	if (!bp_enabled(dr7, n) || !(kinds >> bp_kind(dr7, n) & 1))
		return false;
	return at < start + bytes && start < at + len;
}

static u64 hits(const u64 *dr, u64 dr7, u64 at, u32 len, unsigned int kinds)
{
	u64 bits = 0;

	for (unsigned int n = 0; n < 4; n++)
		if (bp_hit(dr7, n, dr[n], at, len, kinds))
			bits |= BIT(n);
	return bits;
}

static const u64 *dr_in_force(const struct cpu *cpu, u64 *dr7)
{
	*dr7 = cpu->guest_debug_hw ? cpu->guest_dr7 : cpu->dr7;
	return cpu->guest_debug_hw ? cpu->guest_dr : cpu->dr;
}

/* Intel's processors hold instruction breakpoints back behind MOV SS too (SDM 3A 6.8.3), AMD's do not. */
static bool shadowed(const struct cpu *cpu)
{
	return cpu->shadow_ss && cpu_is_intel(cpu);
}

enum stop debug_check_fetch(struct cpu *cpu)
{
	u64 dr7, bits, linear = cpu->rip + cpu->ea_base[SEG_CS];
	const u64 *dr = dr_in_force(cpu, &dr7);

	if (!debug_dr7_enabled(dr7) || shadowed(cpu))
		return STOP_OK;
	if ((cpu->eflags & EFL_RF) && !cpu->guest_debug_hw)
		return STOP_OK;
	if (cpu->mode != MODE_64)
		linear = (u32)linear;
	bits = hits(dr, dr7, linear, 1, BIT(0));
	if (!bits)
		return STOP_OK;
	cpu_raise(cpu, EXC_DB);
	cpu->exc.has_payload = true;
	cpu->exc.payload = bits;
	return STOP_EXC;
}

u64 debug_check_data(const struct cpu *cpu, gva_t gva, u32 len, bool write)
{
	u64 dr7;
	const u64 *dr = dr_in_force(cpu, &dr7);

	return debug_dr7_enabled(dr7) ? hits(dr, dr7, gva.v, len, write ? BIT(1) | BIT(3) : BIT(3)) : 0;
}

u64 debug_check_port(const struct cpu *cpu, u16 port, u32 len)
{
	u64 dr7;
	const u64 *dr = dr_in_force(cpu, &dr7);

	if (!debug_dr7_enabled(dr7) || !(cpu->cr4 & CR4_DE))
		return 0;
	return hits(dr, dr7, port, len, BIT(2));
}
