// SPDX-License-Identifier: MIT
/*
 * Port I/O. The memory operand of INS and OUTS is proved, and OUTS's source read, before
 * the port is touched (SEED rule 14); INS and OUTS with REP leave in batches (rule 30).
 */
#include "cpu/exec.h"

#include <string.h>

#define BATCH_BYTES 1024 /* of one INS or OUTS exit, as KVM's INS */

/* Bit of the TSS's I/O permission map for each byte port (SDM 1 19.5.2). */
static enum stop check_bitmap(struct cpu *cpu, struct env *e, u16 port, unsigned int n)
{
	bool wide = cpu->tr.attr & 8;
	u16 base, bits;

	if (cpu->tr.unusable || !wide || cpu->tr.limit < 103)
		return cpu_gp(cpu, 0);
	TRY(env_read_system(e, cpu->tr.base + TSS_IOMAP, 2, &base));
	if (base + port / 8 + 1u > cpu->tr.limit)
		return cpu_gp(cpu, 0);
	TRY(env_read_system(e, cpu->tr.base + base + port / 8, 2, &bits));
	return bits >> (port & 7) & ((1u << n) - 1) ? cpu_gp(cpu, 0) : STOP_OK;
}

static enum stop check_port(struct cpu *cpu, struct env *e, u16 port, unsigned int n)
{
	if (cpu_real(cpu) || (!cpu_v86(cpu) && cpu->cpl <= cpu_iopl(cpu)))
		return STOP_OK;
	return check_bitmap(cpu, e, port, n);
}

/* Operand k is DX or an immediate byte. */
static u16 port_of(const struct cpu *cpu, const struct insn *i, unsigned int k)
{
	return insn_row(i)->opnd[k].kind == OPND_I ? (u8)i->imm : (u16)cpu->regs[GPR_RDX];
}

enum stop exec_in(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 v = 0;
	struct pio io = {
		.port = port_of(cpu, i, 1),
		.size = insn_opnd_size(i, 0),
		.in = true,
		.count = 1,
		.data = &v,
	};

	TRY(check_port(cpu, e, io.port, io.size));
	TRY(env_pio(e, &io));
	reg_set(cpu, GPR_RAX, io.size, v);
	return STOP_OK;
}

enum stop exec_out(struct cpu *cpu, const struct insn *i, struct env *e)
{
	u64 v = cpu->regs[GPR_RAX];
	struct pio io = {
		.port = port_of(cpu, i, 0),
		.size = insn_opnd_size(i, 1),
		.count = 1,
		.data = &v,
	};

	TRY(check_port(cpu, e, io.port, io.size));
	return env_pio(e, &io);
}

/* Elements from ea on that stay inside its page and the batch. */
static u32 batch_of(const struct cpu *cpu, u64 base, u64 ea, unsigned int n, u64 count)
{
	u64 linear = base + ea, room;

	if ((cpu->request & REQ_STEP) && cpu_stops_each(cpu))
		return 1;
	if (cpu->eflags & EFL_DF)
		room = (linear & (PAGE_SIZE - 1)) + n;
	else
		room = page_left(linear);
	count = MIN(count, BATCH_BYTES / n);
	return MAX(1ul, MIN(count, room / n));
}

struct io_string {
	unsigned int n;
	s64 step;
	bool rep;
	u64 count, ea;
};

static struct io_string io_start(
	const struct cpu *cpu, const struct insn *i, unsigned int k, enum reg pointer)
{
	unsigned int n = insn_opnd_size(i, k);
	bool rep = i->flags & (INSN_REP | INSN_REPNE);

	return (struct io_string){
		.n = n,
		.step = cpu->eflags & EFL_DF ? -(s64)n : n,
		.rep = rep,
		.count = rep ? zext(cpu->regs[GPR_RCX], i->asz) : 1,
		.ea = zext(cpu->regs[pointer], i->asz),
	};
}

static void io_commit(struct cpu *cpu, const struct insn *i, const struct io_string *s,
	enum reg pointer, u32 done)
{
	reg_set(cpu, pointer, i->asz, s->ea + s->step * done);
	if (!s->rep)
		return;
	reg_set(cpu, GPR_RCX, i->asz, s->count - done);
	if (s->count != done)
		exec_repeat(cpu);
}

static void reverse(u8 *data, u32 count, unsigned int n)
{
	u8 *low = data, *high = data + (count - 1) * n, t[4];

	for (; low < high; low += n, high -= n) {
		memcpy(t, low, n);
		memcpy(low, high, n);
		memcpy(high, t, n);
	}
}

enum stop exec_ins(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct io_string s = io_start(cpu, i, 0, GPR_RDI);
	u8 data[BATCH_BYTES];
	struct pio io = {.port = cpu->regs[GPR_RDX], .size = s.n, .in = true, .data = data};
	enum stop stop;
	u64 ea;

	TRY(check_port(cpu, e, io.port, io.size));
	if (!s.count)
		return STOP_OK;
	io.count = batch_of(cpu, cpu->ea_base[SEG_ES], s.ea, s.n, s.count);
	ea = s.step < 0 ? s.ea - (io.count - 1) * s.n : s.ea;
	TRY(env_prove(e, SEG_ES, ea, io.count * s.n, MMU_W));
	TRY(env_check_ac(e, SEG_ES, ea, s.n, s.n)); /* what the batch's write is not to ask again */
	TRY(env_pio(e, &io));
	ea = s.ea;
	if (s.step < 0) { /* the last element lies lowest; one write, as upwards (C37) */
		reverse(data, io.count, s.n);
		ea -= (io.count - 1) * s.n;
	}
	e->no_ac = true;
	stop = env_write(e, SEG_ES, ea, io.count * s.n, data);
	e->no_ac = false;
	if (stop != STOP_OK)
		return stop;
	io_commit(cpu, i, &s, GPR_RDI, io.count);
	return STOP_OK;
}

enum stop exec_outs(struct cpu *cpu, const struct insn *i, struct env *e)
{
	struct io_string s = io_start(cpu, i, 1, GPR_RSI);
	u8 data[BATCH_BYTES];
	struct pio io = {.port = cpu->regs[GPR_RDX], .size = s.n, .data = data};

	TRY(check_port(cpu, e, io.port, io.size));
	if (!s.count)
		return STOP_OK;
	io.count = e->outs_batch ? batch_of(cpu, cpu->ea_base[i->seg], s.ea, s.n, s.count) : 1;
	for (u32 k = 0; k < io.count; k++)
		TRY(env_read(e, i->seg, zext(s.ea + k * s.step, i->asz), s.n, data + k * s.n));
	TRY(env_pio(e, &io));
	io_commit(cpu, i, &s, GPR_RSI, io.count);
	return STOP_OK;
}
