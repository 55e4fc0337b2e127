# SPDX-License-Identifier: MIT
# The subcommands of anykvm that look at the host and at running machines.

$B/tests/tools/without: $B/tests/tools/without.o
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $<

$B/tests/tools/vm: $B/tests/tools/vm.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $B/libanykvm.a

.PHONY: check-tools check-doctor check-stat
check-tools:
	$(Q)scripts/check.sh check-doctor check-stat

check-doctor: $B/tests/tools/without $B/anykvm $B/libanykvm-preload.so
	$(Q)tests/tools/doctor.sh $B/anykvm $B/tests/tools/without

check-stat: $B/tests/tools/vm $B/anykvm
	$(Q)tests/tools/stat.sh $B/anykvm $B/tests/tools/vm
