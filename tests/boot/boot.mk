# SPDX-License-Identifier: MIT
# `anykvm boot`: its error messages, its guests' ends; the guest's init.

.PHONY: check-boot
check-boot: $B/anykvm $B/tests/wx/wx
	$(Q)TEST_UNDER=$B/tests/wx/wx ANYKVM=$< tests/run tests/boot/errors.sh tests/boot/ends.sh

$B/boot/init: tests/boot/init.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -o $@ $<

# The guest moves to another VM in the middle of its boot.
$B/tests/boot/moved: $B/tests/boot/moved.o $(call OBJ,$(VMM_SRC)) $B/lib/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -Wl,--wrap=vcpu_thread -o $@ $^

.PHONY: check-moved
check-moved: $B/anykvm $B/tests/boot/moved $B/boot/init
	$(Q)scripts/guest.sh $B/demo $B/boot/init
	$(Q)tests/boot/moved.sh $B
