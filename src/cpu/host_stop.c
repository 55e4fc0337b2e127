// SPDX-License-Identifier: MIT
/*
 * Which guest instruction was it that the host stopped? In the slow path cpu->rip says so. A
 * fast handler has its uop in RSI, and its thunk runs with that uop in a saved register or in
 * the handler's frame: such a value is believed only if it points at a uop whose code the
 * host was in. Read cpu/interp.h before.
 */
#include "cpu/interp.h"

#include "cpu/native.h"
#include "cpu/native_build.h"

#define HANDLER_MAX 4096 /* bytes of code, more than any fast handler has, also with ASan's checks */
#define FRAME_WORDS 16	 /* of the handler's frame that are searched */

static bool in_arena(const struct cpu *cpu, const void *p)
{
	return (u64)p - (u64)cpu->tbs->arena < cpu->tbs->used;
}

/* There is much else in the arena: behind the uops of a block is uop_end. */
static bool is_uop(const struct cpu *cpu, u64 p)
{
	const struct uop *u = (const struct uop *)p, *end;
	const struct tb *tb;

	if (p % 8 || !in_arena(cpu, u) || u->k >= TB_MAX_INSNS)
		return false;
	tb = container_of(u - u->k, struct tb, uop[0]);
	if (!in_arena(cpu, tb) || u->k >= tb->n || tb->n > TB_MAX_INSNS)
		return false;
	end = &tb->uop[tb->n];
	return in_arena(cpu, end) && end->fn == uop_end;
}

static bool in_code(u64 rip, u64 fn, u64 max)
{
	return rip - fn < max;
}

static bool in_thunks(const struct cpu *cpu, u64 rip)
{
	return cpu->native && code_memory_has(&cpu->native->code, rip);
}

/* Keep the candidate whose thunk starts nearest below the place. */
static void consider(const struct cpu *cpu, u64 p, u64 rip, const struct uop **best)
{
	const struct uop *u = (const struct uop *)p;

	if (!is_uop(cpu, p) || !in_code(rip, (u64)u->native, THUNK_MAX))
		return;
	if (!*best || rip - (u64)u->native < rip - (u64)(*best)->native)
		*best = u;
}

/* The handler that called the thunk keeps its uop: in a register, or spilled. */
static const struct uop *thunk_caller(const struct cpu *cpu, const struct host_regs *r)
{
	const u64 *stack = (const u64 *)r->gpr[GPR_RSP];
	const struct uop *u = NULL;

	for (unsigned int i = 0; i < ARRAY_SIZE(r->gpr); i++)
		consider(cpu, r->gpr[i], r->rip, &u);
	for (unsigned int i = 0; i < FRAME_WORDS; i++)
		consider(cpu, stack[i], r->rip, &u);
	return u;
}

/* The interpreter's, also if the translator has put its own code there. */
static u64 handler_of(const struct uop *u)
{
	const struct tb *tb = container_of(u - u->k, struct tb, uop[0]);

	if (tb->cold && !u->k)
		return (u64)tb->warm;
	return (u64)(tb->fn ? tb->fn[u->k] : u->fn);
}

static const struct uop *handlers_uop(const struct cpu *cpu, const struct host_regs *r)
{
	const struct uop *best = NULL;

	for (unsigned int i = 0; i < ARRAY_SIZE(r->gpr); i++) {
		const struct uop *u = (const struct uop *)r->gpr[i];

		if (!is_uop(cpu, r->gpr[i]) || !in_code(r->rip, handler_of(u), HANDLER_MAX))
			continue;
		if (!best || r->rip - handler_of(u) < r->rip - handler_of(best))
			best = u;
	}
	return best;
}

static bool is_image(u64 v)
{
	const u64 flags = FI_SF | FI_ZF | FI_AF | FI_PF | FI_CF | FI_OF;

	return (v & ~flags) == FI_ONE;
}

/* For SAHF the image goes to RAX, and OF out of AL by an addition: 0x7f, or 0x80 if it was set. */
static bool is_image_in_sahf(u64 rax)
{
	return is_image(rax & ~0xffull) && ((u8)rax == 0x7f || (u8)rax == 0x80);
}

/*
 * The image is in RDX, the third argument, or was moved; an instruction that needs the old
 * flags has it on its way into the host's (SAHF), and one that sets all needs none.
 */
static u64 handlers_flags(const struct host_regs *r)
{
	u64 rax = r->gpr[GPR_RAX];

	if (is_image(r->gpr[GPR_RDX]))
		return r->gpr[GPR_RDX];
	if (is_image_in_sahf(rax))
		return (rax & ~0xffull) | ((u8)rax == 0x80 ? FI_OF : 0);
	for (unsigned int i = 0; i < ARRAY_SIZE(r->gpr); i++)
		if (is_image(r->gpr[i]))
			return r->gpr[i];
	return eflags_to_image(r->eflags);
}

static bool holds(const struct host_regs *r, u64 value)
{
	for (unsigned int i = 0; i < ARRAY_SIZE(r->gpr); i++)
		if (r->gpr[i] == value)
			return true;
	return false;
}

/*
 * A branch is done and its handler compares the next block with guest RAM, which is what
 * could not be read: the guest is at that block.
 */
static bool at_next_block(struct cpu *cpu, const struct host_regs *r)
{
	const struct tb_cache *c = cpu->tbs;

	for (unsigned int k = 0; k < JC_SIZE; k++) {
		const struct jc_entry *j = &c->jc[k];

		if (!j->tb || j->salt != jc_salt(c, j->rip) || !holds(r, j->rip))
			continue;
		if (r->addr - (u64)j->tb->first >= j->tb->len + 8u)
			continue;
		cpu->rip = j->rip;
		cpu->fl = handlers_flags(r);
		return true;
	}
	return false;
}

/* CALL and RET commit RSP before that; others can be done again. */
static bool before_commit(const struct cpu *cpu, const struct uop *u, const struct host_regs *r)
{
	const struct tb *tb = container_of(u - u->k, struct tb, uop[0]);
	unsigned int op = insn_op(&tb->insn[u->k]);
	u64 ea = cpu->regs[GPR_RSP];

	if (op == OP_CALL)
		ea -= 8;
	else if (op != OP_RET)
		return true;
	return r->addr - (ea + cpu->data_tlb->hot[tlb_index(ea)].delta) < 8;
}

static bool set_place(struct cpu *cpu, const struct uop *u, u64 fl)
{
	cpu->rip = cpu->regs[GPR_RIP] + u->off;
	cpu->fl = fl;
	cpu->insns -= container_of(u - u->k, struct tb, uop[0])->n - u->k;
	return true;
}

static bool find_place(struct cpu *cpu, const struct host_regs *r)
{
	const struct uop *u;
	u64 fl;

	if (in_thunks(cpu, r->rip)) {
		u = thunk_caller(cpu, r);
		return u && set_place(cpu, u, cpu->fl);
	}
	if (cpu->translator && code_memory_has(&cpu->translator->code, r->rip)) {
		u = cpu->translator->stopped(cpu->translator, cpu, r, &fl);
		return u && set_place(cpu, u, fl);
	}
	u = handlers_uop(cpu, r);
	if (u && before_commit(cpu, u, r))
		return set_place(cpu, u, handlers_flags(r));
	return at_next_block(cpu, r);
}

bool cpu_stopped_by_host(struct cpu *cpu, const struct host_regs *r)
{
	bool found = true;

	if (cpu->exit && cpu->tbs && !cpu->tbs->cur && cpu->tbs->in_thread)
		found = find_place(cpu, r);
	cpu->exit = NULL;
	if (cpu->tbs) {
		cpu->tbs->in_thread = false;
		cpu->tbs->cur = NULL;
		cpu->tbs->link = NULL;
		cpu->tbs->edge = NULL;
	}
	return found;
}
