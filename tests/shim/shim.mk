# SPDX-License-Identifier: MIT
# Programs that know nothing of anykvm, under the launcher. On a host's KVM: run them without it.

SHIM_TESTS := $(patsubst %.c,$B/%,$(wildcard tests/shim/*.c))

$(SHIM_TESTS): $B/%: $B/%.o
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $<

.PHONY: check-shim
check-shim: $(SHIM_TESTS) $B/anykvm $B/libanykvm-preload.so
	$(Q)tests/shim/run.sh $B/anykvm $(SHIM_TESTS)
