# SPDX-License-Identifier: MIT
# The subcommands of anykvm that look at the host and at running machines.

$B/tests/tools/without: $B/tests/tools/without.o
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $<

.PHONY: check-tools
check-tools: $B/tests/tools/without $B/anykvm $B/libanykvm-preload.so
	$(Q)tests/tools/doctor.sh $B/anykvm $B/tests/tools/without
