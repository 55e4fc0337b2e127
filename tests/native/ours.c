// SPDX-License-Identifier: MIT
/*
 * Our side: a guest whose page tables map the test's linear addresses as ref.c maps them, with
 * Linux' descriptors. Every exception goes through the IDT to a HLT at CPL 0, where cpu_run
 * leaves and the frame on the kernel stack says what happened.
 *
 * Which road an instruction took is seen from outside: the linker's --wrap puts a counter in
 * front of cpu_exec and exec_native; what was run by neither was a fast handler of the block.
 */
#include "native.h"

#include "cpu/debug.h"
#include "cpu/exec.h"
#include "cpu/native.h"
#include "cpu/tb.h"
#include "translate/translate.h"

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define KERNEL	 0xffff800000000000ul /* linear: all RAM, supervisor only */
#define RAM_SIZE (1ul << 20)
enum {
	G_PML4 = 0x1000, G_PDPT = 0x2000, G_PD = 0x3000, G_PT_CODE = 0x4000, G_PT_DATA = 0x5000,
	G_KPDPT = 0x6000, G_KPD = 0x7000, G_GDT = 0x8000, G_IDT = 0x9000, G_TSS = 0xa000,
	G_HANDLERS = 0xb000, G_STACK = 0xd000, /* top */
	G_LDT = 0xe000, G_CODE = 0x10000, G_DATA = 0x20000,
};

struct ours {
	struct cpu cpu;
	struct cpu_exit exit;
	struct mem *mem;
	u8 *ram;
	bool bounce;
	struct ours *translated; /* the same with a translator */
};

/* ---- which road --------------------------------------------------------------------------- */

static struct {
	u64 rip;
	bool exec, native, checked;
} seen;

enum stop __real_cpu_exec(struct cpu *cpu, const struct insn *i, struct env *e);
enum stop __real_exec_native(struct cpu *cpu, const struct insn *i, struct env *e);
enum stop __wrap_cpu_exec(struct cpu *cpu, const struct insn *i, struct env *e);
enum stop __wrap_exec_native(struct cpu *cpu, const struct insn *i, struct env *e);

enum stop __wrap_cpu_exec(struct cpu *cpu, const struct insn *i, struct env *e)
{
	bool first = cpu->cpl == 3 && cpu->rip == seen.rip && !seen.exec;
	enum stop stop = __real_cpu_exec(cpu, i, e);

	if (first) {
		seen.exec = true;
		seen.checked = stop == STOP_EXC && (cpu->exc.vector == EXC_UD ||
			cpu->exc.vector == EXC_NM || (insn_row(i)->rules & RULE_CPL0));
	}
	return stop;
}

enum stop __wrap_exec_native(struct cpu *cpu, const struct insn *i, struct env *e)
{
	if (cpu->cpl == 3 && cpu->rip == seen.rip)
		seen.native = true;
	return __real_exec_native(cpu, i, e);
}

static enum road road_taken(const struct ours *o)
{
	const struct jc_entry *j = &o->cpu.tbs->jc[jc_index(seen.rip)];
	const struct native *n = o->cpu.native;
	const u8 *fn;

	if (seen.native)
		return ROAD_THUNK;
	if (seen.exec)
		return seen.checked ? ROAD_NONE : ROAD_HANDLER;
	if (j->rip != seen.rip || !j->tb)
		return ROAD_NONE;
	if (o->cpu.translator && code_memory_has(&o->cpu.translator->code, (u64)j->tb->uop[0].fn))
		return ROAD_TRANSLATED;
	fn = (const u8 *)(uintptr_t)j->tb->uop[0].native;
	return code_memory_has(&n->code, (u64)fn) ? ROAD_UOP_THUNK : ROAD_INLINE;
}

/* ---- the environment that bounces ------------------------------------------------------------ */

static struct env_ops bounce_ops;
static const struct env_ops *cpu_ops;

static enum stop bounce_begin(struct env *e)
{
	for (unsigned int k = 0; k < e->nr_pending; k++) {
		if (!e->pending[k]->system)
			e->pending[k]->p = e->pending[k]->bounce;
	}
	return cpu_ops->begin(e);
}

static u8 *bounce_ram(struct env *e, gva_t gva, u8 need, u8 attr, u32 *len)
{
	(void)e, (void)gva, (void)need, (void)attr, (void)len;
	return NULL;
}

static void bounce_init(struct env_cpu *e)
{
	cpu_ops = e->env.ops;
	bounce_ops = *cpu_ops;
	bounce_ops.begin = bounce_begin;
	bounce_ops.ram = bounce_ram;
	e->env.ops = &bounce_ops;
}

/* ---- creation ----------------------------------------------------------------------------- */

static int no_irq(struct cpu *cpu)
{
	(void)cpu;
	return -1;
}
static bool no_irq_pending(struct cpu *cpu)
{
	(void)cpu;
	return false;
}
static u8 no_tpr(struct cpu *cpu)
{
	(void)cpu;
	return 0;
}
static void ignore_tpr(struct cpu *cpu, u8 tpr)
{
	(void)cpu, (void)tpr;
}
static enum stop no_rdmsr(struct cpu *cpu, u32 index, u64 *value)
{
	(void)index, (void)value;
	return cpu_gp(cpu, 0);
}
static enum stop no_wrmsr(struct cpu *cpu, u32 index, u64 value)
{
	(void)index, (void)value;
	return cpu_gp(cpu, 0);
}
static enum stop no_hypercall(struct cpu *cpu)
{
	return cpu_ud(cpu);
}
static u64 same_tsc(struct cpu *cpu, u64 host)
{
	(void)cpu;
	return host;
}
static void nothing(struct cpu *cpu)
{
	(void)cpu;
}

static const struct cpu_ops ops = {
	.irq_ack = no_irq, .irq_pending = no_irq_pending, .get_tpr = no_tpr,
	.set_tpr = ignore_tpr, .rdmsr = no_rdmsr, .wrmsr = no_wrmsr,
	.hypercall = no_hypercall, .host_to_guest_tsc = same_tsc, .paging_changed = nothing,
	.nmi_unmasked = nothing, .smm_changed = nothing,
};

#define PTE_P  1ull
#define PTE_W  2ull
#define PTE_U  4ull
#define PTE_PS 0x80ull
#define PTE_NX BIT(63)
#define PTE_AD 0x60ull

static u64 *table(struct ours *o, u64 gpa)
{
	return (u64 *)(o->ram + gpa);
}

static void make_tables(struct ours *o)
{
	u64 up = PTE_P | PTE_W | PTE_U | PTE_AD;

	table(o, G_PML4)[0] = G_PDPT | up;
	table(o, G_PML4)[256] = G_KPDPT | up;
	table(o, G_KPDPT)[0] = G_KPD | up;
	table(o, G_KPD)[0] = PTE_P | PTE_W | PTE_PS | PTE_AD;
	table(o, G_PDPT)[1] = G_PD | up;
	table(o, G_PD)[0] = G_PT_CODE | up;
	table(o, G_PD)[(DATA - CODE_A) >> 21] = G_PT_DATA | up;
	table(o, G_PT_CODE)[0] = G_CODE | PTE_P | PTE_U | PTE_AD;
	for (unsigned int k = 0; k < 2; k++)
		table(o, G_PT_CODE)[((CODE_B - CODE_A) >> 12) + k] =
			(G_CODE + (k + 1) * PAGE_SIZE) | PTE_P | PTE_U | PTE_AD;
	for (unsigned int k = 0; k < DATA_PAGES; k++)
		table(o, G_PT_DATA)[k] = (G_DATA + k * PAGE_SIZE) | PTE_P | PTE_U | PTE_NX |
			PTE_AD | (k < DATA_RW ? PTE_W : 0);
}

static u64 ldt_descriptor(const struct ldt_entry *l)
{
	u64 limit = l->limit == ~0u ? 0xfffff : l->limit, base = l->base;
	u64 flags = (l->code ? 0xfb : 0xf3) | (l->big ? 0x4000 : 0) | (l->limit == ~0u ? 0x8000 : 0);

	return (limit & 0xffff) | (base & 0xffffff) << 16 | flags << 40 | (limit >> 16) << 48 | base >> 24 << 56;
}

/* Linux' GDT as user mode can see it; the rest of its entries is never selected by a case. */
static void make_descriptors(struct ours *o)
{
	static const u64 gdt[16] = {
		0, 0x00cf9b000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff,
		0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff,
	};
	u64 tss_rsp0 = KERNEL + G_STACK;

	memcpy(o->ram + G_GDT, gdt, sizeof(gdt));
	for (unsigned int k = 0; k < NR_LDT; k++)
		table(o, G_LDT)[k] = ldt_descriptor(&ldt_entries[k]);
	memcpy(o->ram + G_TSS + 4, &tss_rsp0, 8);
	o->ram[G_TSS + 102] = 0x68; /* no I/O bitmap: all ports #GP */
	memset(o->ram + G_HANDLERS, OP_HLT_BYTE, 256 * 16);
	for (unsigned int v = 0; v < 256; v++) {
		u64 at = KERNEL + G_HANDLERS + v * 16, dpl = v == 3 || v == 4 ? 3 : 0;
		u64 *gate = table(o, G_IDT + v * 16);

		gate[0] = (at & 0xffff) | 0x10 << 16 | (0x8eull | dpl << 5) << 40 |
			(at >> 16 & 0xffff) << 48;
		gate[1] = at >> 32;
	}
}

/* The host's vendor and features, for what depends on them; no virtualization. */
static bool set_cpuid(struct cpu *cpu)
{
	static const u32 leaves[][2] = {
		{0, 0}, {1, 0}, {7, 0}, {0xd, 0}, {0xd, 1}, {0xd, 2}, {0x80000000, 0}, {0x80000001, 0},
		{0x80000008, 0},
	};
	struct cpuid_entry *c = calloc(ARRAY_SIZE(leaves), sizeof(*c));

	if (!c)
		return false;
	for (unsigned int k = 0; k < ARRAY_SIZE(leaves); k++) {
		c[k].leaf = leaves[k][0];
		c[k].subleaf = leaves[k][1];
		c[k].has_subleaf = c[k].leaf == 7 || c[k].leaf == 0xd;
		__cpuid_count(c[k].leaf, c[k].subleaf, c[k].eax, c[k].ebx, c[k].ecx, c[k].edx);
	}
	c[1].ecx &= ~0x60u;
	c[7].ecx &= ~4u;
	cpu->cpuid = c;
	cpu->nr_cpuid = ARRAY_SIZE(leaves);
	cpu_set_features(cpu);
	return true;
}

static void set_up_cpu(struct ours *o)
{
	struct cpu *cpu = &o->cpu;

	cpu->cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG;
	cpu->cr3 = G_PML4;
	cpu->cr4 = CR4_PAE | CR4_OSFXSR | CR4_OSXMMEXCPT | CR4_OSXSAVE | CR4_FSGSBASE | CR4_UMIP;
	cpu->efer = EFER_LME | EFER_LMA | EFER_NXE | EFER_SCE;
	cpu->xcr0 = 7;
	cpu->gdtr = (struct desc_table){.base = KERNEL + G_GDT, .limit = 127};
	cpu->idtr = (struct desc_table){.base = KERNEL + G_IDT, .limit = 4095};
	cpu->tr = (struct segment){.sel = 0x40, .attr = SEGA_P | 0xb, .limit = 0x67,
		.base = KERNEL + G_TSS};
	cpu->ldtr = (struct segment){.unusable = true, .attr = 2};
	if (have_ldt)
		cpu->ldtr = (struct segment){.sel = 0x50, .attr = SEGA_P | 2, .limit = 8 * NR_LDT - 1,
			.base = KERNEL + G_LDT};
	cpu_update_paging(cpu, false);
}

/* With a cold TLB every fast handler takes the slow path: a replay must not begin with one. */
static void warm_tlb(struct cpu *cpu)
{
	struct xlat x;
	u32 error;
	u8 *hva;

	for (u64 a = DATA; a < DATA_END; a += PAGE_SIZE) {
		u8 need = a < DATA + DATA_RW * PAGE_SIZE ? MMU_R | MMU_W : MMU_R;

		if (mmu_translate(&cpu->mmu, gva(a), 1, need, MMU_USER, WALK_CPU, &x, &hva, &error))
			abort();
	}
}

static struct ours *create(bool translated)
{
	struct ours *o = aligned_alloc(64, ALIGN_UP(sizeof(*o), 64));

	if (!o)
		return NULL;
	memset(o, 0, sizeof(*o));
	o->ram = mmap(NULL, RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	o->mem = mem_create();
	if (o->ram == MAP_FAILED || !o->mem)
		return NULL;
	if (mem_set_slot(o->mem, 0, 0, 0, gpa(0), RAM_SIZE, o->ram))
		return NULL;
	if (cpu_init(&o->cpu, o->mem, &ops, o) || !set_cpuid(&o->cpu) || cpu_attach(&o->cpu))
		return NULL;
	if (translated && translator_create(&o->cpu))
		return NULL;
	if (o->cpu.translator) {
		o->cpu.translator->shortest = 1;
		o->cpu.translator->patience = 0;
	}
	make_tables(o);
	make_descriptors(o);
	memset(o->ram + G_CODE, OP_HLT_BYTE, CODE_PAGES * PAGE_SIZE);
	memcpy(o->ram + G_DATA, pristine, DATA_SIZE);
	set_up_cpu(o);
	warm_tlb(&o->cpu);
	return o;
}

struct ours *ours_create(void)
{
	struct ours *o = create(false);

	if (o)
		o->translated = create(true);
	return o && o->translated ? o : NULL;
}

bool ours_has(const struct ours *o, unsigned int cpuf)
{
	return !cpuf || o->cpu.features[cpuf];
}

void ours_kick(struct ours *o)
{
	cpu_request(&o->cpu, REQ_KICK);
	cpu_request(&o->translated->cpu, REQ_KICK);
}

/* ---- one case ------------------------------------------------------------------------------ */

static struct segment user_segment(u16 sel)
{
	struct segment s = {.sel = sel, .limit = ~0u, .base = selector_base(sel)};

	switch (sel) {
	case SEL_CODE_A:
	case SEL_CODE_B:
		s.attr = 0xfb;
		s.limit = 0xffff;
		break;
	case SEL_WINDOW:
		s.attr = 0xf3;
		s.limit = 0xffff;
		break;
	case SEL_STACK:
		s.attr = 0xc0f3;
		break;
	case SEL_CODE64:
		s.attr = 0xa0fb;
		break;
	case SEL_CODE32:
		s.attr = 0xc0fb;
		break;
	case SEL_FLAT:
		s.attr = 0xc0f3;
		break;
	default:
		s.unusable = true;
	}
	return s;
}

static void load_case(struct cpu *cpu, const struct mstate *s)
{
	memcpy(cpu->regs, s->gpr, sizeof(s->gpr));
	cpu->rip = s->rip;
	cpu->seg[SEG_CS] = user_segment(s->cs);
	cpu->seg[SEG_SS] = user_segment(s->ss);
	cpu->seg[SEG_DS] = user_segment(s->ds);
	cpu->seg[SEG_ES] = user_segment(s->es);
	cpu->seg[SEG_FS] = user_segment(s->fs);
	cpu->seg[SEG_GS] = user_segment(s->gs);
	cpu->seg[SEG_FS].base = s->fs_base;
	cpu->seg[SEG_GS].base = s->gs_base;
	cpu->mxcsr = s->mxcsr;
	memcpy(cpu->fpu.fx, s->fx, sizeof(s->fx));
	memcpy(cpu->fpu.ymm, s->ymm, sizeof(s->ymm));
	cpu->shadow = cpu->shadow_ss = false;
	cpu->event.pending = false;
	cpu->dr6 = DR6_FIXED;
	cpu_unrequest(cpu, REQ_KICK | REQ_EVENT);
	cpu_set_eflags(cpu, s->rflags);
}

static enum stop exec_once(struct ours *o)
{
	struct cpu *cpu = &o->cpu;
	struct env_cpu e;
	struct insn i;

	if (cpu->request & REQ_KICK)
		return STOP_FAIL;
	TRY(tb_fetch_one(cpu, &i));
	env_cpu_init(&e, cpu, &o->exit.fault);
	if (o->bounce)
		bounce_init(&e);
	return cpu_exec(cpu, &i, &e.env);
}

/* The processor as exit-time emulation drives it: no blocks. */
static void run_exec(struct ours *o)
{
	struct cpu *cpu = &o->cpu;
	enum stop stop;

	cpu->exit = &o->exit;
	do {
		stop = exec_once(o);
		if (stop == STOP_EXC)
			stop = cpu_deliver(cpu, EVENT_EXC, &cpu->exc);
	} while (stop == STOP_OK);
	cpu->exit = NULL;
	o->exit.reason = stop == STOP_LEAVE ? cpu->leave
			 : cpu->request & REQ_KICK ? LEAVE_KICK : LEAVE_FAIL;
	o->exit.why = cpu->fail;
}

static void save_exception(struct ours *o, struct outcome *out)
{
	struct cpu *cpu = &o->cpu;
	const u64 *f = (const u64 *)(o->ram + (cpu->regs[GPR_RSP] - KERNEL));

	if (o->exit.reason != LEAVE_HLT || cpu->cpl != 0) {
		out->vector = o->exit.reason == LEAVE_KICK ? VECTOR_HANG : VECTOR_LEFT;
		out->error = o->exit.reason;
		return;
	}
	out->vector = (cpu->rip - 1 - (KERNEL + G_HANDLERS)) / 16;
	out->cr2 = cpu->cr2;
	out->error = 0;
	if (cpu->regs[GPR_RSP] == KERNEL + G_STACK - 48)
		out->error = *f++;
	out->s.rip = f[0];
	out->s.cs = f[1];
	out->s.rflags = f[2];
	out->s.gpr[GPR_RSP] = f[3];
	out->s.ss = f[4];
}

static void save_case(struct ours *o, struct outcome *out)
{
	struct cpu *cpu = &o->cpu;

	memcpy(out->s.gpr, cpu->regs, sizeof(out->s.gpr));
	out->s.rip = cpu->rip;
	out->s.rflags = cpu_eflags(cpu);
	out->s.cs = cpu->seg[SEG_CS].sel;
	out->s.ss = cpu->seg[SEG_SS].sel;
	save_exception(o, out);
	out->s.ds = cpu->seg[SEG_DS].sel;
	out->s.es = cpu->seg[SEG_ES].sel;
	out->s.fs = cpu->seg[SEG_FS].sel;
	out->s.gs = cpu->seg[SEG_GS].sel;
	out->s.fs_base = cpu->seg[SEG_FS].base;
	out->s.gs_base = cpu->seg[SEG_GS].base;
	out->s.mxcsr = cpu->mxcsr;
	memcpy(out->s.fx, cpu->fpu.fx, sizeof(out->s.fx));
	memset(out->s.fx + 24, 0, 8);
	memcpy(out->s.ymm, cpu->fpu.ymm, sizeof(out->s.ymm));
}

static u8 *code_view(struct ours *o, u64 rip)
{
	return o->ram + G_CODE + (rip < CODE_B ? rip - CODE_A : rip - CODE_B + PAGE_SIZE);
}

enum road ours_run(struct ours *o, const struct native_case *c, struct outcome *out)
{
	bool in_blocks = c->road == RUN_BLOCK || c->road == RUN_TRANSLATED;

	if (c->road == RUN_TRANSLATED)
		o = o->translated;
	apply_pokes(o->ram + G_DATA, c);
	memcpy(code_view(o, selector_base(c->in.cs) + c->in.rip), c->code, c->len);
	if (c->seed % 32 == 0)
		mmu_flush(&o->cpu.mmu);
	load_case(&o->cpu, &c->in);
	memset(&seen, 0, sizeof(seen));
	seen.rip = c->in.rip;
	o->bounce = c->road == RUN_BOUNCE;
	if (in_blocks)
		cpu_run(&o->cpu, &o->exit);
	else
		run_exec(o);
	save_case(o, out);
	memset(code_view(o, selector_base(c->in.cs) + c->in.rip), OP_HLT_BYTE, c->len);
	collect_lines(o->ram + G_DATA, out);
	return in_blocks ? road_taken(o)
	       : seen.native	    ? ROAD_THUNK
	       : seen.exec && !seen.checked ? ROAD_HANDLER
				    : ROAD_NONE;
}
