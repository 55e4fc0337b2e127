# SPDX-License-Identifier: MIT
# The seed's cases (SEED 7.2): the T cases and the match rule on the processor alone (harness.c),
# the C cases on whole VMs (vmguest.c). `make check-seed` runs them; a case of names.txt without a
# passing test is a failure. `make seed` shows the walks.
SEED_T := $B/tests/seed/seed_t $B/tests/seed/seed_rule $B/tests/seed/seed_x
SEED_C := $(patsubst %.c,$B/%,$(wildcard tests/seed/seed_c_*.c))

$(SEED_T): $B/%: $B/%.o $B/tests/seed/harness.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka

$(SEED_C): $B/%: $B/%.o $B/tests/seed/vmguest.o $B/tests/seed/vmboot.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka

.PHONY: check-seed seed
check-seed: $(SEED_T) $(SEED_C) $B/tests/wx/wx
	$(Q)TEST_UNDER=$B/tests/wx/wx tests/seed/complete $(SEED_T) $(SEED_C)

seed: $B/tests/seed/seed_t
	$(Q)scripts/seed.sh $B

# Planted faults: each must be caught by a named test. Builds a copy of the tree.
.PHONY: seed-programs check-seed-planted
seed-programs: $(SEED_T) $(SEED_C)
check-seed-planted:
	$(Q)tests/seed/planted.sh
