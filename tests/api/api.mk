# SPDX-License-Identifier: MIT
# Programs on the public API. `make check-api`; on a host's KVM: build/tests/api/errno --device

API_TESTS := $(patsubst %.c,$B/%,$(wildcard tests/api/*.c))

$(API_TESTS): $B/%: $B/%.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $B/libanykvm.a

.PHONY: check-api
check-api: $(API_TESTS)
	$(Q)tests/run $(API_TESTS)
