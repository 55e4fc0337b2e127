# SPDX-License-Identifier: MIT
# Error messages of `anykvm boot`; the guest's init.

.PHONY: check-boot
check-boot: $B/anykvm
	$(Q)ANYKVM=$< tests/run tests/boot/errors.sh tests/boot/ends.sh

$B/boot/init: tests/boot/init.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -o $@ $<
