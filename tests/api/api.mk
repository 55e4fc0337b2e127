# SPDX-License-Identifier: MIT
# Programs on the public API. `make check-api`; on a host's KVM: build/tests/api/errno --device

API_TESTS := $(patsubst %.c,$B/%,$(wildcard tests/api/*.c))

$(API_TESTS): $B/%: $B/%.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $B/libanykvm.a

# golden.sh compares errno's rows with golden.txt
.PHONY: check-api check-golden
check-api: $(API_TESTS) $B/tests/wx/wx
	$(Q)TEST_UNDER=$B/tests/wx/wx tests/run $(API_TESTS)

check-golden: $B/tests/api/errno
	$(Q)tests/api/golden.sh $<
