// SPDX-License-Identifier: MIT
/*
 * The CPU model: what KVM_GET_SUPPORTED_CPUID offers (cpuid.def), and what a client has chosen
 * from it for one vCPU. The CPUID instruction itself is in cpu/.
 */
#include "cpu/fpu.h"
#include "kvm/ioctl.h"

#include <cpuid.h>
#include <errno.h>
#include <linux/kvm_para.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define ENTRIES_MAX 256 /* KVM_MAX_CPUID_ENTRIES */
#define GUEST_PHYS_BITS 46

enum { EAX, EBX, ECX, EDX };
enum source { HOST, OURS };

static const struct feature_bit {
	u32 leaf;
	u8 subleaf, reg, bit, source, cpuf;
} feature_bits[] = {
#define BIT_(leaf, subleaf, reg, bit, source, cpuf) {leaf, subleaf, reg, bit, source, CPUF_##cpuf},
#include "kvm/cpuid.def"
#undef BIT_
};

struct model {
	u32 nr;
	struct kvm_cpuid_entry2 e[64];
};

static u32 *reg_of(struct kvm_cpuid_entry2 *e, unsigned int reg)
{
	return reg == EAX ? &e->eax : reg == EBX ? &e->ebx : reg == ECX ? &e->ecx : &e->edx;
}

static void host_cpuid(u32 leaf, u32 subleaf, struct kvm_cpuid_entry2 *e)
{
	__cpuid_count(leaf, subleaf, e->eax, e->ebx, e->ecx, e->edx);
}

static u32 host_max_leaf(u32 leaf)
{
	struct kvm_cpuid_entry2 e;

	host_cpuid(leaf & 0xc0000000, 0, &e);
	return e.eax;
}

/* Registers of one host leaf, zeroes if the host does not have it. */
static void host_leaf(u32 leaf, u32 subleaf, struct kvm_cpuid_entry2 *e)
{
	memset(e, 0, sizeof(*e));
	if (leaf <= host_max_leaf(leaf))
		host_cpuid(leaf, subleaf, e);
}

static u32 find_maxphyaddr(void)
{
	struct kvm_cpuid_entry2 e;

	host_leaf(0x80000008, 0, &e);
	return e.eax ? MIN(e.eax & 0xff, GUEST_PHYS_BITS) : 36;
}

/* A feature is ours when no instruction of it is class U ("decodes, but is not implemented"). */
static void find_implemented(bool ok[NR_CPUF])
{
	memset(ok, true, NR_CPUF);
	for (unsigned int i = 0; i < nr_insn_rows; i++)
		if (insn_rows[i].cls == CLASS_U)
			ok[insn_rows[i].cpuf] = false;
	ok[CPUF_NONE] = true;
}

static u32 bits_of(const bool *ok, u32 leaf, u32 subleaf, unsigned int reg)
{
	struct kvm_cpuid_entry2 host;
	u32 mask = 0;

	host_leaf(leaf, subleaf, &host);
	for (size_t i = 0; i < ARRAY_SIZE(feature_bits); i++) {
		const struct feature_bit *f = &feature_bits[i];

		if (f->leaf != leaf || f->subleaf != subleaf || f->reg != reg || !ok[f->cpuf])
			continue;
		if (f->source == OURS || *reg_of(&host, reg) & BIT(f->bit))
			mask |= BIT(f->bit);
	}
	return mask;
}

static struct kvm_cpuid_entry2 *add(struct model *m, u32 leaf, u32 subleaf, bool indexed)
{
	struct kvm_cpuid_entry2 *e = &m->e[m->nr++];

	memset(e, 0, sizeof(*e));
	e->function = leaf;
	e->index = subleaf;
	e->flags = indexed ? KVM_CPUID_FLAG_SIGNIFCANT_INDEX : 0;
	return e;
}

static void add_features(struct model *m, const bool *ok, u32 leaf, u32 subleaf, bool indexed)
{
	struct kvm_cpuid_entry2 *e = add(m, leaf, subleaf, indexed);

	for (unsigned int r = EAX; r <= EDX; r++)
		*reg_of(e, r) = bits_of(ok, leaf, subleaf, r);
}

static void add_host(struct model *m, u32 leaf)
{
	struct kvm_cpuid_entry2 *e = add(m, leaf, 0, false), host;

	host_leaf(leaf, 0, &host);
	e->eax = host.eax;
	e->ebx = host.ebx;
	e->ecx = host.ecx;
	e->edx = host.edx;
}

static void set_text(struct kvm_cpuid_entry2 *e, const char text[12])
{
	memcpy(&e->ebx, text, 4);
	memcpy(&e->ecx, text + 4, 4);
	memcpy(&e->edx, text + 8, 4);
}

static void add_basic(struct model *m, const bool *ok)
{
	struct kvm_cpuid_entry2 host, *e;

	add_host(m, 0);
	m->e[0].eax = 0xd;
	host_leaf(1, 0, &host);
	add_features(m, ok, 1, 0, false);
	e = &m->e[m->nr - 1];
	e->eax = host.eax;	    /* family, model, stepping */
	e->ebx = host.ebx & 0xff00; /* CLFLUSH line; APIC ID and count are the client's */
	add(m, 2, 0, false);
	add(m, 4, 0, true);
	add_features(m, ok, 6, 0, false);
	add_features(m, ok, 7, 0, true);
	add(m, 0xa, 0, false); /* no performance monitoring */
	e = add(m, 0xb, 0, true);
	e->ecx = 0;
}

static void add_component(struct model *m, unsigned int n, u32 offset)
{
	struct kvm_cpuid_entry2 *e = add(m, 0xd, n, true);

	e->eax = fpu_xsave_size(n);
	e->ebx = offset;
}

/* The host runs SSE and AVX; PKRU is the MMU's. */
static u64 find_xcr0(const bool *ok)
{
	u32 leaf1 = bits_of(ok, 1, 0, ECX);
	struct kvm_cpuid_entry2 host;
	u64 xcr0 = XF_X87 | XF_SSE;

	if (!(leaf1 & BIT(26)))
		return XF_X87;
	host_leaf(0xd, 0, &host);
	if (leaf1 & BIT(28))
		xcr0 |= XF_AVX;
	return (xcr0 & host.eax) | (bits_of(ok, 7, 0, ECX) & BIT(3) ? XF_PKRU : 0);
}

/* XSAVE, standard format: legacy area and header, AVX's upper halves, PKRU (SDM 1 13.4). */
static void add_xsave(struct model *m, const bool *ok)
{
	u32 xcr0 = find_xcr0(ok);
	struct kvm_cpuid_entry2 *e = add(m, 0xd, 0, true);

	e->eax = xcr0;
	e->ebx = XSAVE_EXT; /* of XCR0 as it is at reset */
	e->ecx = xcr0 & XF_PKRU ? fpu_pkru_offset() + fpu_xsave_size(9) :
		 xcr0 & XF_AVX	? XSAVE_EXT + fpu_xsave_size(2) : XSAVE_EXT;
	add_features(m, ok, 0xd, 1, true);
	if (xcr0 & XF_AVX)
		add_component(m, 2, XSAVE_EXT);
	if (xcr0 & XF_PKRU)
		add_component(m, 9, fpu_pkru_offset());
}

static void add_hypervisor(struct model *m, const bool *ok)
{
	struct kvm_cpuid_entry2 *e = add(m, 0x40000000, 0, false);

	e->eax = 0x40000001;
	set_text(e, "KVMKVMKVM\0\0");
	add_features(m, ok, 0x40000001, 0, false);
	if (host_tsc_invariant())
		m->e[m->nr - 1].eax |= BIT(24); /* KVM_FEATURE_CLOCKSOURCE_STABLE_BIT */
}

static void add_extended(struct model *m, const bool *ok)
{
	struct kvm_cpuid_entry2 host, *e;
	u32 vendor_ebx = m->e[0].ebx;

	add_host(m, 0x80000000);
	e = &m->e[m->nr - 1];
	e->eax = 0x80000021;
	host_leaf(0x80000001, 0, &host);
	add_features(m, ok, 0x80000001, 0, false);
	e = &m->e[m->nr - 1];
	e->eax = host.eax;
	e->ebx = host.ebx;
	if (vendor_ebx != signature_INTEL_ebx)
		e->edx |= m->e[1].edx & 0x0183f3ff; /* AMD and Hygon repeat these (APM 3) */
	for (u32 leaf = 0x80000002; leaf <= 0x80000006; leaf++)
		add_host(m, leaf);
	e = add(m, 0x80000007, 0, false);
	e->edx = host_tsc_invariant() ? BIT(8) : 0;
	e = add(m, 0x80000008, 0, false);
	e->eax = 48 << 8 | find_maxphyaddr();
	add_features(m, ok, 0x80000021, 0, false);
}

static struct model model;
static pthread_once_t model_once = PTHREAD_ONCE_INIT;

static void build(void)
{
	bool ok[NR_CPUF];

	find_implemented(ok);
	add_basic(&model, ok);
	add_xsave(&model, ok);
	add_hypervisor(&model, ok);
	add_extended(&model, ok);
}

/* Asked once: below a hypervisor each CPUID is an exit to it, of microseconds. */
static const struct model *supported(void)
{
	pthread_once(&model_once, build);
	return &model;
}

static const struct kvm_cpuid_entry2 *find_in(const struct kvm_cpuid_entry2 *e, u32 n, u32 leaf, u32 subleaf)
{
	for (; n; n--, e++)
		if (e->function == leaf &&
		    (!(e->flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX) || e->index == subleaf))
			return e;
	return NULL;
}

static u32 supported_reg(u32 leaf, u32 subleaf, unsigned int reg)
{
	const struct model *m = supported();
	const struct kvm_cpuid_entry2 *e = find_in(m->e, m->nr, leaf, subleaf);

	return e ? *reg_of((struct kvm_cpuid_entry2 *)e, reg) : 0;
}

bool supported_cpuid_bit(u32 leaf, u32 subleaf, unsigned int reg, unsigned int bit)
{
	return supported_reg(leaf, subleaf, reg) & BIT(bit);
}

u64 supported_xcr0(void)
{
	return supported_reg(0xd, 0, EAX);
}

u32 host_maxphyaddr(void)
{
	return supported_reg(0x80000008, 0, EAX) & 0xff;
}

/* ---- ioctls */

static long give(struct ioc *c, const struct kvm_cpuid_entry2 *e, u32 n)
{
	struct kvm_cpuid2 *k = c->arg;

	if (k->nent < n)
		return -E2BIG;
	k->nent = n;
	return copy_out(c->uptr + sizeof(*k), e, n * sizeof(*e));
}

long sys_get_supported_cpuid(struct ioc *c)
{
	const struct model *m = supported();

	return give(c, m->e, m->nr);
}

/* What an interpreter could add beyond the host: KVM's own list. */
long sys_get_emulated_cpuid(struct ioc *c)
{
	static const struct kvm_cpuid_entry2 e[] = {
		{.function = 0, .eax = 7},
		{.function = 1, .ecx = BIT(22)}, /* MOVBE */
		{.function = 7, .flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX, .ecx = BIT(22)}, /* RDPID */
	};

	return give(c, e, ARRAY_SIZE(e));
}

bool vcpu_cpuid_bit(struct vcpu *v, u32 leaf, u32 subleaf, unsigned int reg, unsigned int bit)
{
	const struct kvm_cpuid_entry2 *e = find_in(v->cpuid, v->nr_cpuid, leaf, subleaf);

	return e && *reg_of((struct kvm_cpuid_entry2 *)e, reg) & BIT(bit);
}

/* Unless told to look, KVM has its features for guests that do not know of them. */
bool vcpu_has_pv(struct vcpu *v, unsigned int feature)
{
	return !v->enforce_pv || vcpu_cpuid_bit(v, KVM_CPUID_FEATURES, 0, EAX, feature);
}

static struct cpuid_entry *convert(const struct kvm_cpuid_entry2 *e, u32 n)
{
	struct cpuid_entry *r = calloc(n + 1, sizeof(*r));

	for (u32 i = 0; r && i < n; i++)
		r[i] = (struct cpuid_entry){
			.leaf = e[i].function,
			.subleaf = e[i].index,
			.has_subleaf = e[i].flags & KVM_CPUID_FLAG_SIGNIFCANT_INDEX,
			.eax = e[i].eax,
			.ebx = e[i].ebx,
			.ecx = e[i].ecx,
			.edx = e[i].edx,
		};
	return r;
}

/* Hand the chosen table to cpu/ and irq/. Without one cpu/ has the host's instructions. */
void vcpu_cpuid_changed(struct vcpu *v)
{
	bool none = !v->nr_cpuid;

	free(v->cpu.cpuid);
	v->cpu.cpuid = none ? NULL : convert(v->cpuid, v->nr_cpuid);
	v->cpu.nr_cpuid = v->cpu.cpuid ? v->nr_cpuid : 0;
	cpu_set_features(&v->cpu);
	if (v->lapic)
		lapic_set_features(v->lapic, v->cpu.mmu.paging.maxphyaddr,
				   none || vcpu_cpuid_bit(v, 1, 0, ECX, 21),
				   none || vcpu_cpuid_bit(v, 1, 0, ECX, 24));
}

/* The bits that follow the processor's state (OSXSAVE, size of the XSAVE area...) as they are now. */
static void update_runtime(struct vcpu *v, struct kvm_cpuid_entry2 *e, u32 n)
{
	u32 out[4];

	for (u32 i = 0; i < n; i++) {
		cpu_cpuid(&v->cpu, e[i].function, e[i].index, out);
		e[i].eax = out[EAX];
		e[i].ebx = out[EBX];
		e[i].ecx = out[ECX];
		e[i].edx = out[EDX];
	}
}

/* As given once, or as KVM_GET_CPUID2 shows it now. */
static bool same_table(struct vcpu *v, const struct kvm_cpuid_entry2 *e, u32 n)
{
	size_t size = n * sizeof(*e);
	struct kvm_cpuid_entry2 *now;
	bool same;

	if (n != v->nr_cpuid)
		return false;
	if (!n || !memcmp(e, v->cpuid, size))
		return true;
	now = malloc(size);
	if (!now)
		return false;
	memcpy(now, v->cpuid, size);
	update_runtime(v, now, n);
	same = !memcmp(e, now, size);
	free(now);
	return same;
}

/* Takes e. A guest that has run has looked at it: only the same again is accepted. */
static long set_table(struct vcpu *v, struct kvm_cpuid_entry2 *e, u32 n)
{
	if (v->has_run && !same_table(v, e, n)) {
		free(e);
		return -EINVAL;
	}
	free(v->cpuid);
	v->cpuid = e;
	v->nr_cpuid = n;
	vcpu_cpuid_changed(v);
	return 0;
}

long vcpu_set_cpuid2(struct ioc *c)
{
	u32 n = ((struct kvm_cpuid2 *)c->arg)->nent;
	struct kvm_cpuid_entry2 *e;
	int err;

	if (n > ENTRIES_MAX)
		return -E2BIG;
	e = dup_in(c->uptr + sizeof(struct kvm_cpuid2), n, sizeof(*e), &err);
	return e ? set_table(c->vcpu, e, n) : err;
}

/* The call of before KVM_SET_CPUID2: leaves without subleaves. */
long vcpu_set_cpuid(struct ioc *c)
{
	u32 n = ((struct kvm_cpuid *)c->arg)->nent;
	struct kvm_cpuid_entry2 *e;
	struct kvm_cpuid_entry *old;
	int err;

	if (n > ENTRIES_MAX)
		return -E2BIG;
	old = dup_in(c->uptr + sizeof(struct kvm_cpuid), n, sizeof(*old), &err);
	if (!old)
		return err;
	e = calloc(n + 1, sizeof(*e));
	for (u32 i = 0; e && i < n; i++)
		e[i] = (struct kvm_cpuid_entry2){
			.function = old[i].function,
			.eax = old[i].eax,
			.ebx = old[i].ebx,
			.ecx = old[i].ecx,
			.edx = old[i].edx,
		};
	free(old);
	return e ? set_table(c->vcpu, e, n) : -ENOMEM;
}

long vcpu_get_cpuid2(struct ioc *c)
{
	struct vcpu *v = c->vcpu;
	struct kvm_cpuid_entry2 *now = calloc(v->nr_cpuid + 1, sizeof(*now));
	long r;

	if (!now)
		return -ENOMEM;
	if (v->nr_cpuid)
		memcpy(now, v->cpuid, v->nr_cpuid * sizeof(*now));
	update_runtime(v, now, v->nr_cpuid);
	r = give(c, now, v->nr_cpuid);
	free(now);
	return r;
}
