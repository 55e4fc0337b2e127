# SPDX-License-Identifier: MIT
# Fuzzing of the seed: `make check-seed-fuzz` runs 20,000 sequences of a random seed, which it
# prints; the long run is `build/tests/fuzz/seed_fuzz SEED 1000000`.
FUZZ_SEED := $B/tests/fuzz/seed_fuzz

$(FUZZ_SEED): $(addprefix $B/tests/fuzz/,seed_fuzz.o world.o gen.o) $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^

.PHONY: check-seed-fuzz
check-seed-fuzz: $(FUZZ_SEED)
	$(Q)$(FUZZ_SEED)
