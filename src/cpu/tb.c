// SPDX-License-Identifier: MIT
/*
 * Building and finding translation blocks. Fetch, decode, the physical hash, the bytes that
 * are compared at entry. How a block is run: interp.c.
 */
#include "cpu/interp.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "cpu/native.h"

#define HASH_BITS  16
#define HASH_SIZE  (1u << HASH_BITS)
#define MAX_INSN   15 /* bytes: SDM 2A 2.3.11 */
#define TB_MAX_SIZE \
	(sizeof(struct tb) + (TB_MAX_INSNS + 1) * (sizeof(struct uop) + sizeof(struct insn) + 8) + 64 * 8 + \
		TRANSLATION_MAX)

static void *map_zero(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

int tb_cache_create(struct cpu *cpu)
{
	struct tb_cache *c = map_zero(sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->hash = map_zero(HASH_SIZE * sizeof(*c->hash));
	c->arena = map_zero(TB_ARENA_SIZE);
	cpu->tbs = c;
	if (!c->hash || !c->arena) {
		tb_cache_destroy(cpu);
		return -ENOMEM;
	}
	return 0;
}

void tb_cache_destroy(struct cpu *cpu)
{
	struct tb_cache *c = cpu->tbs;

	if (!c)
		return;
	if (c->hash)
		munmap(c->hash, HASH_SIZE * sizeof(*c->hash));
	if (c->arena)
		munmap(c->arena, TB_ARENA_SIZE);
	if (c->code_pages)
		munmap(c->code_pages, c->nr_code_words * 8);
	munmap(c, sizeof(*c));
	cpu->tbs = NULL;
}

void tb_flush_all(struct cpu *cpu)
{
	struct tb_cache *c = cpu->tbs;

	if (!c->used) /* no block since the last time, and pages that need not be touched */
		return;
	memset(c->jc, 0, sizeof(c->jc));
	memset(c->hash, 0, HASH_SIZE * sizeof(*c->hash));
	memset(c->in_page, 0, sizeof(c->in_page));
	c->crossing = NULL;
	if (c->nr_code_words) /* pages that were not touched stay so */
		madvise(c->code_pages, c->nr_code_words * 8, MADV_DONTNEED);
	c->used = 0;
	if (cpu->translator)
		cpu->translator->flush(cpu->translator);
	c->cur = NULL;
	c->link = NULL;
	c->edge = NULL;
}

bool tb_page_has_code(void *opaque, gpa_t page)
{
	const struct cpu *cpu = opaque;
	const struct tb_cache *c = cpu->tbs;
	u64 pfn = page.v >> PAGE_SHIFT;

	return c && pfn / 64 < c->nr_code_words && (c->code_pages[pfn / 64] & BIT(pfn % 64));
}

/* ---- pages that have become data ---- */

#define PATIENCE 64u /* writes; each time that a page is given up it grows */

static u32 tb_hash(gpa_t gpa, u32 bits)
{
	u64 h = (gpa.v ^ ((u64)bits << 57)) * 0x9e3779b97f4a7c15ull;

	return h >> (64 - HASH_BITS);
}

/* Who still leads to it finds that its bytes have changed. */
static void kill_block(struct cpu *cpu, struct tb *tb)
{
	static const u64 never;

	tb->first = (const u8 *)&never;
	tb->copy0 = 1;
	tb->mask0 = ~0ull;
	if (cpu->translator)
		cpu->translator->forget(cpu->translator, tb);
}

/* Those of a page are in a list; another has all that cross into a second page. */
static struct tb **page_list(struct tb_cache *c, const struct tb *tb)
{
	return tb->hva2 ? &c->crossing : &c->in_page[(tb->gpa.v >> PAGE_SHIFT) % ARRAY_SIZE(c->in_page)];
}

static bool is_in_page(const struct tb *tb, u64 pfn, const u8 *hva)
{
	return tb->gpa.v >> PAGE_SHIFT == pfn ||
	       (tb->hva2 && !(((u64)tb->hva2 ^ (u64)hva) & PAGE_MASK));
}

static void leave_hash(struct tb_cache *c, const struct tb *tb)
{
	struct tb **link = &c->hash[tb_hash(tb->gpa, tb->mode_bits)];

	while (*link && *link != tb)
		link = &(*link)->hash_next;
	if (*link) /* or it was stale */
		*link = tb->hash_next;
}

static void give_up_list(struct cpu *cpu, struct tb **list, u64 pfn, const u8 *hva)
{
	struct tb *tb, **link;

	for (link = list; (tb = *link);)
		if (is_in_page(tb, pfn, hva)) {
			*link = tb->page_next;
			leave_hash(cpu->tbs, tb);
			kill_block(cpu, tb);
		} else {
			link = &tb->page_next;
		}
}

static void give_up_page(struct cpu *cpu, u64 pfn, const u8 *hva)
{
	struct tb_cache *c = cpu->tbs;

	give_up_list(cpu, &c->in_page[pfn % ARRAY_SIZE(c->in_page)], pfn, hva);
	give_up_list(cpu, &c->crossing, pfn, hva);
	c->code_pages[pfn / 64] &= ~BIT(pfn % 64);
}

bool tb_page_watched(void *opaque, gpa_t page)
{
	struct cpu *cpu = opaque;
	struct tb_cache *c = cpu->tbs;
	u64 pfn = page.v >> PAGE_SHIFT;
	unsigned int k = pfn % ARRAY_SIZE(c->patience);
	const u8 *hva;

	if (!tb_page_has_code(cpu, page))
		return false;
	if (++c->patience[k].writes < PATIENCE << c->patience[k].given_up)
		return true;
	c->patience[k].writes = 0;
	hva = mem_hva(cpu->mmu.slots, page, 1, false);
	if (c->cur && is_in_page(c->cur, pfn, hva)) /* it would not see that it changes itself */
		return true;
	if (c->patience[k].given_up < 20)
		c->patience[k].given_up++;
	give_up_page(cpu, pfn, hva);
	return false;
}

/* By mmap alone: a VMM's seccomp filter may leave malloc no brk. */
static bool grow_code_pages(struct tb_cache *c, u64 words)
{
	u64 *grown = map_zero(words * 8);

	if (!grown)
		return false;
	if (c->code_pages) {
		memcpy(grown, c->code_pages, c->nr_code_words * 8);
		munmap(c->code_pages, c->nr_code_words * 8);
	}
	c->code_pages = grown;
	c->nr_code_words = words;
	return true;
}

/* From now on stores to this page take the slow path. false: out of memory. */
static bool watch_page(struct cpu *cpu, gpa_t page)
{
	struct tb_cache *c = cpu->tbs;
	u64 pfn = page.v >> PAGE_SHIFT, words = ALIGN_UP(pfn / 64 + 1, 4096);

	if (tb_page_has_code(cpu, page))
		return true;
	if (pfn / 64 >= c->nr_code_words && !grow_code_pages(c, words))
		return false;
	c->code_pages[pfn / 64] |= BIT(pfn % 64);
	mmu_unwatch_writes(&cpu->mmu, gpa(page.v & PAGE_MASK));
	return true;
}

/* ---- fetch ---- */

struct fetch {
	gpa_t gpa;
	const u8 *hva;
	u32 left; /* bytes to the end of the page or of the segment */
};

static enum stop fetch_page(struct cpu *cpu, u64 linear, struct fetch *f)
{
	struct xlat x;
	u32 error = 0;
	u8 *hva;

	switch (mmu_translate(&cpu->mmu, gva(linear), 1, MMU_X,
		cpu->cpl == 3 ? MMU_USER : MMU_KERNEL, WALK_FETCH, &x, &hva, &error)) {
	case MMU_OK:
		break;
	case MMU_FAULT:
		cpu_raise_error(cpu, EXC_PF, error);
		cpu->exc.has_payload = true;
		cpu->exc.payload = linear;
		return STOP_EXC;
	case MMU_NONCANON:
		return cpu_gp(cpu, 0);
	}
	f->gpa = x.gpa;
	f->hva = hva;
	f->left = page_left(linear);
	if (hva)
		return STOP_OK;
	if (cpu->exit)
		cpu->exit->gpa = x.gpa;
	return STOP_NPF;
}

static enum stop fetch_start(struct cpu *cpu, u64 rip, struct fetch *f)
{
	const struct segment *cs = &cpu->seg[SEG_CS];
	u64 linear = rip;

	hard_check(!cpu->completing);
	if (cpu->mode != MODE_64) {
		if (rip > cs->limit)
			return cpu_gp(cpu, 0);
		linear = (u32)(rip + cs->base);
	}
	TRY(fetch_page(cpu, linear, f));
	if (cpu->mode != MODE_64)
		f->left = MIN((u64)f->left, cs->limit - rip + 1);
	return STOP_OK;
}

/*
 * TZCNT and LZCNT are BSF and BSR where CPUID does not have them: their F3 is ignored then
 * (SDM 2A "BSF", 2A "LZCNT").
 */
static void without_counts(const struct cpu *cpu, struct insn *i)
{
	static const u8 bsf[MAX_INSN] = {0x0f, 0xbc, 0xc0}, bsr[MAX_INSN] = {0x0f, 0xbd, 0xc0};
	unsigned int op = insn_op(i);
	struct insn old;

	if (op == OP_TZCNT ? cpu->features[CPUF_BMI1] : op != OP_LZCNT || cpu->features[CPUF_LZCNT])
		return;
	if (insn_decode(&old, MODE_64, op == OP_TZCNT ? bsf : bsr, MAX_INSN) != DECODE_OK)
		return;
	i->row = old.row;
	i->flags &= ~(3u << INSN_PP_SHIFT);
}

static enum decode_result decode(
	const struct cpu *cpu, struct insn *out, const u8 *bytes, unsigned int n)
{
	enum decode_result r = insn_decode(out, cpu->mode, bytes, n);

	if (r == DECODE_OK)
		without_counts(cpu, out);
	return r;
}

static enum stop decode_fault(struct cpu *cpu, enum decode_result r)
{
	return r == DECODE_LONG ? cpu_gp(cpu, 0) : cpu_ud(cpu);
}

/*
 * An instruction whose bytes do not end in the page of f. Joins both pages' bytes;
 * *second tells where the rest is. The second page is only asked for when it is needed.
 */
static enum stop fetch_crossing(
	struct cpu *cpu, u64 rip, const struct fetch *f, struct insn *out, struct fetch *second)
{
	u8 bytes[15];
	u32 n1 = MIN(f->left, 15u), n2;
	enum decode_result r;

	memcpy(bytes, f->hva, n1);
	TRY(fetch_start(cpu, cpu->mode == MODE_64 ? rip + n1 : (u32)(rip + n1), second));
	n2 = MIN(second->left, 15 - n1);
	memcpy(bytes + n1, second->hva, n2);
	r = decode(cpu, out, bytes, n1 + n2);
	if (r == DECODE_MORE)
		return cpu_gp(cpu, 0); /* the segment ends inside the instruction */
	return r == DECODE_OK ? STOP_OK : decode_fault(cpu, r);
}

enum stop tb_fetch_bytes(struct cpu *cpu, u64 rip, u8 *out, unsigned int n)
{
	struct fetch f;
	u32 part;

	for (; n; out += part, rip += part, n -= part) {
		TRY(fetch_start(cpu, rip, &f));
		part = MIN(f.left, n);
		memcpy(out, f.hva, part);
	}
	return STOP_OK;
}

enum stop tb_fetch_one(struct cpu *cpu, struct insn *out)
{
	struct fetch f, second;
	enum decode_result r;

	TRY(fetch_start(cpu, cpu->rip, &f));
	r = decode(cpu, out, f.hva, MIN(f.left, (u32)MAX_INSN));
	if (r == DECODE_MORE)
		return fetch_crossing(cpu, cpu->rip, &f, out, &second);
	return r == DECODE_OK ? STOP_OK : decode_fault(cpu, r);
}

/* ---- build ---- */

void *tb_alloc(struct cpu *cpu, size_t size)
{
	struct tb_cache *c = cpu->tbs;
	void *p = c->arena + c->used;

	c->used += ALIGN_UP(size, 32);
	return p;
}

static bool ends_tb(const struct insn *i)
{
	return insn_row(i)->rules & (RULE_BRANCH | RULE_ENDTB);
}

#define TB_MAX_BYTES 256

struct build {
	struct insn insn[TB_MAX_INSNS];
	u16 off[TB_MAX_INSNS];
	unsigned int n, len;
	u8 bytes[TB_MAX_BYTES + 8]; /* read once: another vCPU may be writing them */
};

/* Guest RAM: tests/tsan.supp names this function. */
static void read_code(struct build *b, const struct fetch *f, u32 n)
{
	memcpy(b->bytes, f->hva, n);
}

/* Decode from the page of f until a block-ending instruction or the page's end. */
static enum stop decode_block(struct cpu *cpu, const struct fetch *f, struct build *b,
	struct fetch *second)
{
	u32 left = MIN(f->left, TB_MAX_BYTES);
	enum decode_result r = DECODE_MORE;
	struct insn *i;

	second->hva = NULL;
	read_code(b, f, left);
	for (b->n = b->len = 0; b->n < TB_MAX_INSNS && b->len < left; b->n++) {
		i = &b->insn[b->n];
		r = decode(cpu, i, b->bytes + b->len, MIN(left - b->len, (u32)MAX_INSN));
		if (r != DECODE_OK)
			break;
		b->off[b->n] = b->len;
		b->len += i->len;
		if (ends_tb(i)) {
			b->n++;
			return STOP_OK;
		}
	}
	if (b->n)
		return STOP_OK;
	if (r != DECODE_MORE)
		return decode_fault(cpu, r);
	TRY(fetch_crossing(cpu, cpu->rip, f, &b->insn[0], second));
	b->off[0] = 0;
	b->n = 1;
	b->len = f->left;
	return STOP_OK;
}

static void copy_bytes(struct tb *tb, const struct fetch *f, const u8 *bytes, u64 *words)
{
	u32 in_page = f->gpa.v & (PAGE_SIZE - 1);
	u32 back = in_page > PAGE_SIZE - 8 ? in_page - (PAGE_SIZE - 8) : 0;
	u32 n = MIN(tb->len, 8u);

	tb->first = tb->hva - back;
	tb->mask0 = (n + back >= 8 ? ~0ull : BIT(8 * (n + back)) - 1) & ~(BIT(8 * back) - 1);
	tb->copy0 = load64(bytes) << (8 * back) & tb->mask0;
	tb->copy = words;
	tb->nr_words = tb->len > 8 ? (tb->len - 1) / 8 : 0;
	for (unsigned int k = 0; k < tb->nr_words; k++)
		words[k] = load64(bytes + MIN(8 * k + 8, tb->len - 8u));
}

/* 64-bit code and flat 32-bit code, where an operand needs no check but the TLB's. */
static bool is_translated(u32 bits)
{
	return bits == MODE_64 || (bits & ~(TBM_FS | TBM_GS)) == (MODE_32 | TBM_FLAT);
}

static bool has_room(const struct tb_cache *c)
{
	return c->used + TB_MAX_SIZE <= TB_ARENA_SIZE;
}

void tb_translate(struct cpu *cpu, struct tb *tb)
{
	tb->cold = 0;
	tb->uop[0].fn = tb->warm;
	if (has_room(cpu->tbs))
		cpu->translator->block(cpu->translator, cpu, tb);
}

/* Most blocks of a boot run a few times: to translate them takes longer. */
static void make_cold(struct cpu *cpu, struct tb *tb)
{
	tb->cold = cpu->translator->patience;
	tb->warm = tb->uop[0].fn;
	tb->uop[0].fn = uop_cold;
	if (!tb->cold)
		tb_translate(cpu, tb);
}

static struct tb *make_tb(struct cpu *cpu, const struct fetch *f, const struct build *b,
	const struct fetch *second, u32 bits)
{
	struct tb *tb = tb_alloc(cpu, sizeof(*tb) + (b->n + 1) * sizeof(struct uop));
	struct insn *insns = tb_alloc(cpu, b->n * sizeof(*insns));

	tb->gpa = f->gpa;
	tb->mode_bits = bits;
	tb->len = b->len;
	tb->n = b->n;
	tb->hva = f->hva;
	tb->hva2 = second->hva;
	tb->len2 = 0;
	if (second->hva) {
		tb->len2 = b->insn[0].len - b->len;
		memcpy(tb->copy2, second->hva, tb->len2);
	}
	tb->insn = insns;
	memcpy(insns, b->insn, b->n * sizeof(*insns));
	copy_bytes(tb, f, b->bytes, tb_alloc(cpu, 8 * (b->len / 8 + 1)));
	for (unsigned int k = 0; k < b->n; k++) {
		tb->uop[k] = (struct uop){.off = b->off[k], .k = k};
		uop_select(cpu, &tb->uop[k], &insns[k], bits);
	}
	tb->uop[b->n] = (struct uop){.fn = uop_end, .imm = b->n == 1 ? b->insn[0].len : b->len};
	tb->fn = NULL;
	tb->enter = cpu->translator ? cpu->translator->leave : NULL;
	tb->translation = NULL;
	tb->cold = 0;
	if (OPT_TRANSLATE && cpu->translator && is_translated(bits))
		make_cold(cpu, tb);
	return tb;
}

/* make_tb, or again after the thunk cache was flushed under it: older blocks hold stale thunks. */
static struct tb *make_current(struct cpu *cpu, const struct fetch *f, const struct build *b,
	const struct fetch *second, u32 bits)
{
	struct tb *tb = make_tb(cpu, f, b, second, bits);

	if (cpu->native->generation == cpu->tbs->native_generation)
		return tb;
	cpu->tbs->native_generation = cpu->native->generation;
	tb_flush_all(cpu);
	return make_tb(cpu, f, b, second, bits);
}

static enum stop build(struct cpu *cpu, const struct fetch *f, u32 bits, struct tb **out)
{
	struct tb_cache *c = cpu->tbs;
	struct tb **head = &c->hash[tb_hash(f->gpa, bits)];
	struct fetch second;
	struct build b;

	TRY(decode_block(cpu, f, &b, &second));
	if (!has_room(c) || (cpu->translator && cpu->translator->full))
		tb_flush_all(cpu);
	*out = make_current(cpu, f, &b, &second, bits);
	if (!watch_page(cpu, f->gpa) || (second.hva && !watch_page(cpu, second.gpa)))
		return cpu_fail(cpu, "out of memory");
	(*out)->hash_next = *head;
	*head = *out;
	(*out)->page_next = *page_list(c, *out);
	*page_list(c, *out) = *out;
	cpu->stat_tb_built++;
	return STOP_OK;
}

/* Is the second page of a crossing block still the one that this rip maps to? */
static bool second_page_same(struct cpu *cpu, const struct tb *tb)
{
	struct fetch f;

	return !tb->hva2 || (fetch_start(cpu, cpu->rip + tb->len, &f) == STOP_OK && f.hva == tb->hva2);
}

/* The block at f, or NULL. A stale one, whose code has changed, is dropped. */
static struct tb *find_hashed(struct cpu *cpu, const struct fetch *f, u32 bits)
{
	struct tb *tb, **link = &cpu->tbs->hash[tb_hash(f->gpa, bits)];

	for (; (tb = *link); link = &tb->hash_next) {
		if (tb->gpa.v != f->gpa.v || tb->mode_bits != bits || tb->len > f->left)
			continue;
		if (tb->hva == f->hva && tb_same(tb) && second_page_same(cpu, tb))
			return tb;
		*link = tb->hash_next;
		kill_block(cpu, tb);
		return NULL;
	}
	return NULL;
}

/* Self-checking build: decode again what is about to be run. Code that just changes may differ. */
static enum stop redecode(struct cpu *cpu, const struct fetch *f, const struct tb *tb)
{
	struct fetch second;
	struct build b;

	TRY(decode_block(cpu, f, &b, &second));
	hard_check((b.n == tb->n && b.len == tb->len &&
		!memcmp(b.insn, tb->insn, b.n * sizeof(b.insn[0]))) || !tb_same(tb));
	return STOP_OK;
}

enum stop tb_find(struct cpu *cpu, struct tb **out)
{
	u32 bits = cpu->tbs->salt[0] & TBM_KEY;
	struct fetch f;

	TRY(fetch_start(cpu, cpu->rip, &f));
	cpu->stat_tb_lookup++;
	*out = find_hashed(cpu, &f, bits);
	if (!*out)
		return build(cpu, &f, bits, out);
	return OPT_BLOCKS ? STOP_OK : redecode(cpu, &f, *out);
}
