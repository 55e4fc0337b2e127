// SPDX-License-Identifier: MIT
/* The decoder: total, never beyond its n bytes, and its answer does not depend on more. */
#include "fuzz.h"

#include "x86/insn.h"

static void one_mode(enum insn_mode mode, const uint8_t *p, unsigned int n)
{
	struct insn i, again;
	char text[96];
	uint8_t *exact;
	enum decode_result r, r2;

	memset(&i, 0xa5, sizeof(i));
	r = insn_decode(&i, mode, p, n);
	FUZZ_CHECK(r == DECODE_OK || r == DECODE_UD || r == DECODE_MORE || r == DECODE_LONG);
	if (r == DECODE_MORE)
		FUZZ_CHECK(n < 15 && ((uint8_t *)&i)[0] == 0xa5 && ((uint8_t *)&i)[31] == 0xa5);
	if (r != DECODE_OK)
		return;
	FUZZ_CHECK(i.len >= 1 && i.len <= 15 && i.len <= n);
	FUZZ_CHECK(i.row < nr_insn_rows);
	insn_text(&i, text, sizeof(text));
	FUZZ_CHECK(strnlen(text, sizeof(text)) < sizeof(text));
	/* The same bytes alone, at the end of their allocation. */
	exact = malloc(i.len);
	memcpy(exact, p, i.len);
	memset(&again, 0, sizeof(again));
	r2 = insn_decode(&again, mode, exact, i.len);
	FUZZ_CHECK(r2 == DECODE_OK && !memcmp(&again, &i, sizeof(i)));
	if (i.len > 1) {
		r2 = insn_decode(&again, mode, exact, i.len - 1);
		FUZZ_CHECK(r2 == DECODE_MORE);
	}
	free(exact);
}

void fuzz_one(const uint8_t *data, size_t n)
{
	for (size_t at = 0; at < n; at += 1 + data[at] % 16)
		for (int mode = MODE_16; mode <= MODE_64; mode++)
			one_mode(mode, data + at, n - at < 24 ? n - at : 24);
}
