/* SPDX-License-Identifier: MIT */
/*
 * Translation blocks: decoded straight-line code, keyed by the guest-physical address of
 * its first byte and by the decoding mode; so one block serves every alias of a page.
 * Private to one vCPU: no locks. Private to cpu/.
 *
 * Code changes: a block holds a copy of its bytes and compares it with guest RAM at every
 * entry. That one check covers stores by other vCPUs, by another alias and by the VMM's
 * devices. What is left, a store by this vCPU into the block that it is running, is seen by
 * tb_note_write, because pages with code have no tag_w in the soft TLB (mmu->watched).
 */
#ifndef ANYKVM_TB_H
#define ANYKVM_TB_H

#include "base/hard.h"
#include "cpu/code_memory.h"
#include "cpu/cpu.h"

#define TB_MAX_INSNS (OPT_BLOCKS ? 32 : 1)
#define JC_BITS	     12
#define JC_SIZE	     (1u << JC_BITS)

#define TB_ARENA_SIZE (96ul << 20) /* bytes for the blocks of a vCPU */

struct uop;
struct edge;
struct translation;

/*
 * Handler of one instruction in the threaded interpreter; fl is the flags image. Ends in
 * a call of the next one, or returns why the thread of handlers was left (enum stop).
 */
typedef u64 uop_fn(struct cpu *cpu, const struct uop *u, u64 fl);

/* What a handler needs, half a cache line; the whole struct insn is beside it in tb->insn[]. */
struct uop {
	uop_fn *fn;
	union {
		s64 imm;
		void (*native)(struct cpu *cpu, void *mem);
	};
	union {
		struct {
			u16 dst, src, base; /* registers as byte offsets into cpu->regs */
			u8 index;	    /* register number */
			u8 scale_seg;	    /* scale | enum seg << 4 */
		};
		struct tb *next; /* direct branch: where it went, if that is in the same page */
	};
	s32 disp; /* memory operand (base RIP: from the block's start), or fall-through */
	u8 off;	  /* of the instruction, from the block's first byte */
	u8 k;	  /* number of the instruction in its block */
	u8 len;
	u8 size; /* of the memory operand */
};
_Static_assert(sizeof(struct uop) == 32, "two uops share a cache line");

struct tb {
	gpa_t gpa;     /* of the first byte */
	u32 mode_bits; /* TBM_*: part of the key */
	u16 len;       /* bytes */
	u8 n;	       /* instructions */
	u8 nr_words;   /* words to compare beside the first */
	u8 cold;       /* it is translated when it has been entered so often by the interpreter */
	const u8 *hva; /* first byte in guest RAM */
	const u8 *first; /* address of the first word compared (inside the page) */
	u64 mask0, copy0;
	const u8 *hva2; /* last instruction crosses into this page, or NULL */
	u8 len2;	/* bytes there */
	u8 copy2[15];
	struct tb *hash_next, *page_next;
	const struct insn *insn; /* [n] */
	uop_fn *warm;		 /* uop[0].fn, which is uop_cold until then */
	uop_fn **fn;		 /* [n] the interpreter's handlers, if some were replaced; else NULL */
	const u8 *enter;	 /* the translator's: host code that checks the bytes and starts */
	struct translation *translation; /* the translator's; NULL: no edge leads here */
	const u64 *copy;	 /* [nr_words] */
	struct uop uop[];
};

/*
 * Who makes host code of a block (translate/): a handler that does the work of several, in place
 * of the first of them. The others stay, so that any instruction can be done by the interpreter's
 * handler, and the rest of the block after it.
 */
#define TRANSLATION_MAX 1024 /* bytes that it takes by tb_alloc for a block, beside fn */
struct translator {
	/* A block is worth it: replace what you can of uop[].fn; tb->fn then keeps all of them. */
	void (*block)(struct translator *t, struct cpu *cpu, struct tb *tb);
	/* The block that an edge of tb_cache.edge leads to has been found. */
	void (*link)(struct translator *t, struct edge *e, struct tb *tb);
	void (*forget)(struct translator *t, struct tb *tb); /* nobody may enter it any more */
	void (*flush)(struct translator *t); /* no block is left */
	/*
	 * The host has stopped the code: which uop was it, and the flags image? regs[GPR_RIP], insns
	 * and MXCSR are then as a handler has them.
	 */
	const struct uop *(*stopped)(
		struct translator *t, struct cpu *cpu, const struct host_regs *r, u64 *fl);
	void (*destroy)(struct translator *t);
	const u8 *leave; /* tb->enter of a block that nobody may enter */
	struct code_memory code;
	bool full;		 /* no room for a further block: flush */
	u8 shortest;		 /* run of instructions that is worth it */
	u8 patience;		 /* runs of a block in the interpreter before it is translated */
};

#define TBM_MODE 3	/* enum insn_mode */
#define TBM_SLOW BIT(2) /* every instruction through cpu_exec (#AC checks, HARD build) */
#define TBM_USER BIT(3) /* CPL 3: not part of a block's key, only of the jump cache's */
#define TBM_FLAT BIT(4) /* 32-bit code; CS, SS, DS, ES have base 0 and no limit, the stack is 32-bit */
#define TBM_FS	 BIT(5) /* with TBM_FLAT: FS has no limit either */
#define TBM_GS	 BIT(6)
#define TBM_KEY	 (TBM_MODE | TBM_SLOW | TBM_FLAT | TBM_FS | TBM_GS)

/* Virtual jump cache: rip -> block, valid for one (epoch of mmu->fetched, mode). */
struct jc_entry {
	u64 rip;
	u64 salt;
	struct tb *tb;
	u64 unused; /* an entry's place is its number shifted */
};

/*
 * Outside 64-bit mode rip is an offset into CS: each (base, limit) has a number of its own,
 * forgotten when another one takes its place here. 0 is 64-bit mode.
 */
#define CS_SLOTS   16
#define CS_ID_BITS 24

struct tb_cache {
	/* number of CS << 40 | epoch of mmu->fetched << 8 | TBM_* in force: for either half of addresses */
	u64 salt[2];
	struct {
		u64 base;
		u32 limit, id;
	} cs[CS_SLOTS];
	u32 cs_ids; /* given so far */
	struct tb *cur; /* block whose instruction is in the slow path */
	struct tb **link; /* slot of the branch that missed: takes the block found next */
	struct edge *edge; /* the same of translated code */
	u64 link_rip;
	bool written;	/* a store hit the block being run */
	bool in_thread; /* handlers run: cpu->rip is stale unless cur is set */
	u32 native_generation; /* of the thunks that the blocks point at */
	struct jc_entry jc[JC_SIZE];
	struct tb **hash;
	struct tb *in_page[1024], *crossing; /* blocks by page frame */
	u8 *arena;
	size_t used;
	u64 *code_pages; /* bitmap by page frame, grows; pages that have (had) blocks */
	u64 nr_code_words;
	struct {
		u32 writes;
		u8 given_up;
	} patience[1024]; /* with pages that hold code, by page frame */
};

MUSTCHECK int tb_cache_create(struct cpu *cpu); /* 0, -ENOMEM */
void tb_cache_destroy(struct cpu *cpu);
void tb_flush_all(struct cpu *cpu);

/*
 * The block for the current rip: found or built. STOP_OK and *out; STOP_EXC (fetch fault,
 * #UD of the first instruction); STOP_NPF: the code is not in RAM (cpu->exit->gpa is set).
 */
MUSTCHECK enum stop tb_find(struct cpu *cpu, struct tb **out);

/* Decode one instruction at rip for single-stepping; same results. */
MUSTCHECK enum stop tb_fetch_one(struct cpu *cpu, struct insn *out);
/* n bytes of code at rip. Stops as tb_fetch_one does. */
MUSTCHECK enum stop tb_fetch_bytes(struct cpu *cpu, u64 rip, u8 *out, unsigned int n);

/* May this page hold code that has been decoded? */
bool tb_page_has_code(void *cpu, gpa_t page);
/*
 * mmu->watched: the same, asked at each write that does not pass by the TLB. A page that is written
 * again and again has become data: its blocks are given up.
 */
bool tb_page_watched(void *cpu, gpa_t page);

/* A store of len bytes at host address hva went through the slow path. */
static inline void tb_note_write(struct cpu *cpu, const u8 *hva, u32 len)
{
	struct tb_cache *c = cpu->tbs;
	const struct tb *tb = c ? c->cur : NULL;

	if (tb && hva < tb->hva + tb->len && hva + len > tb->hva)
		c->written = true;
	if (tb && tb->hva2 && hva < tb->hva2 + tb->len2 && hva + len > tb->hva2)
		c->written = true;
}

static inline u64 jc_salt(const struct tb_cache *c, u64 rip)
{
	return c->salt[rip >> 63];
}

static inline unsigned int jc_index(u64 rip)
{
	return (rip ^ (rip >> JC_BITS)) & (JC_SIZE - 1);
}

static ALWAYS_INLINE u64 load64(const u8 *p)
{
	u64 v;

	__builtin_memcpy(&v, p, 8);
	return v;
}

/* Do the block's bytes in its first page equal its copy? No calls here: handlers stay leaves. */
static ALWAYS_INLINE bool tb_same_page(const struct tb *tb)
{
	const u8 *last = tb->hva + tb->len - 8, *p = tb->hva + 8;
	const u64 *copy = tb->copy, *end = copy + tb->nr_words;

	if (unlikely((load64(tb->first) ^ tb->copy0) & tb->mask0))
		return false;
	for (; copy < end; copy++, p += 8)
		if (unlikely(load64(p < last ? p : last) != *copy))
			return false;
	return true;
}

/* Blocks that cross a page are never chained: this is the whole check of those that do not. */
static ALWAYS_INLINE bool tb_same_inline(const struct tb *tb)
{
	return likely(!tb->len2) && tb_same_page(tb);
}

static inline bool tb_same(const struct tb *tb)
{
	return tb_same_page(tb) && (!tb->len2 || !__builtin_memcmp(tb->hva2, tb->copy2, tb->len2));
}

void *tb_alloc(struct cpu *cpu, size_t size); /* lives as long as the blocks */

/* Translate the block, which is cold. */
void tb_translate(struct cpu *cpu, struct tb *tb);

/* Choose handler and operands of uop number k of a block under construction (uop.c). */
void uop_select(struct cpu *cpu, struct uop *u, const struct insn *i, u32 mode_bits);

#endif
