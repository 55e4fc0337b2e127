/* SPDX-License-Identifier: MIT */
/*
 * A guest of one page of code for the seed's cases: a mini run loop on cpu_run, emul_run
 * and emul_complete, without kvm/. The same program can run in a world where every device
 * page is RAM; that is the oracle: registers, memory, page tables and device contents
 * must come out equal.
 */
#ifndef ANYKVM_SEED_HARNESS_H
#define ANYKVM_SEED_HARNESS_H

#include "cpu/guest_test.h"
#include "emul/emul.h"
#include "layout.h"


struct seed {
	struct guest *g;
	struct emul em;
	bool ram_world; /* every device page is RAM */
	u8 *dev;	/* contents of the devices: 1 MiB from DEV_GPA; IOA and L at its end */
	u8 *rom;	/* the read-only slot */
	char events[4096];
	unsigned int fragments, max_fragments;
	u32 pio_seed;
	int vector;	/* exception that ended the program, or -1 */
	u32 error;
	u64 stopped_at; /* RIP behind the HLT that ended it */
	/* called with each fragment, before it is answered; false: leave seed_run */
	bool (*hook)(struct seed *s, const struct fragment *f);
	struct fragment last;
	bool failed, left;
	u64 bus_calls, event_gpa, event_len; /* an ioeventfd: swallows writes of this length */
	unsigned int event_hits;
};

struct seed *seed_create(enum emul_gpa_mode mode, bool ram_world);
void seed_destroy(struct seed *s);
void seed_load(struct seed *s, const u8 *code, size_t n, unsigned int bits);
void seed_poke(struct seed *s, u64 linear, u64 value); /* 8 bytes, device or RAM */
u64 seed_peek(struct seed *s, u64 linear);
u64 *seed_pte(struct seed *s, u64 linear);
u8 *seed_at(struct seed *s, u64 linear); /* where the byte's contents are */
void seed_slots_changed(struct seed *s);
void seed_run(struct seed *s);	  /* to HLT, an exception, a failure or the hook's wish */
/* Answer the current fragment and go on with the instruction only: what emul_complete says. */
enum emul_result seed_complete(struct seed *s);
u64 seed_data_walks(const struct seed *s); /* data and prove */

#endif
