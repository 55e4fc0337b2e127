# SPDX-License-Identifier: MIT
# Real clients, unmodified. check-clients: all machines of QEMU. check-qemu-smoke: one of them.

$B/clients/init: tests/clients/init.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -o $@ $<

$B/clients/initrd: $B/clients/init $B/boot/init tests/clients/initrd.sh
	$(call say,GEN,$@)
	$(Q)scripts/guest.sh $B/demo $B/boot/init
	$(Q)cp $B/demo/vmlinuz $B/clients/vmlinuz
	$(Q)tests/clients/initrd.sh $B/demo $B/clients/init $@

QEMU_NEEDS := $B/anykvm $B/libanykvm-preload.so $B/clients/initrd
.PHONY: check-clients check-qemu-smoke
check-clients: $(QEMU_NEEDS)
	$(Q)tests/clients/qemu.sh $B all

check-qemu-smoke: $(QEMU_NEEDS)
	$(Q)TCG=0 tests/clients/qemu.sh $B microvm:on:1:host

# Guests that are watched while they run; each prints the seed that repeats its moments.
.PHONY: check-migrate
check-migrate: $(QEMU_NEEDS)
	$(Q)tests/clients/migrate.sh $B
