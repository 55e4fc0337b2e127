# SPDX-License-Identifier: MIT
# The seed's cases (SEED 7.2): check-seed runs all that exist; check-seed-complete also
# counts a case of names.txt that has no test as a failure. `make seed` shows the walks.
SEED_PROGS := $B/tests/seed/seed_t $(if $(wildcard tests/seed/seed_c.c),$B/tests/seed/seed_c)

$(SEED_PROGS): $B/%: $B/%.o $B/tests/seed/harness.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka

.PHONY: check-seed check-seed-complete seed
check-seed: $(SEED_PROGS)
	$(Q)tests/run $(SEED_PROGS)

check-seed-complete: $(SEED_PROGS)
	$(Q)tests/seed/complete $(SEED_PROGS)

seed: $B/tests/seed/seed_t
	$(Q)V=1 $B/tests/seed/seed_t 2>/dev/null | grep '^T'
