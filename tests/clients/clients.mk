# SPDX-License-Identifier: MIT
# Real clients, unmodified. check-clients: all that is here. check-qemu: the machines; -smoke: one.

$B/clients/init: tests/clients/init.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -o $@ $<

$B/clients/initrd: $B/clients/init $B/boot/init tests/clients/initrd.sh
	$(call say,GEN,$@)
	$(Q)scripts/guest.sh $B/demo $B/boot/init
	$(Q)cp $B/demo/vmlinuz $B/clients/vmlinuz
	$(Q)tests/clients/initrd.sh $B/demo $B/clients/init $@

QEMU_NEEDS := $B/anykvm $B/libanykvm-preload.so $B/clients/initrd $B/tests/wx/wx
.PHONY: check-clients check-qemu check-qemu-smoke check-migrate check-kill check-gdb check-i386
check-qemu: $(QEMU_NEEDS)
	$(Q)tests/clients/qemu.sh $B all

check-qemu-smoke: $(QEMU_NEEDS)
	$(Q)TCG=0 tests/clients/qemu.sh $B microvm:on:1:host

# Guests that are watched while they run; the random moments are those of the seed that is printed
check-migrate check-kill check-gdb check-i386: check-%: $(QEMU_NEEDS)
	$(Q)tests/clients/$*.sh $B

check-clients:
	$(Q)SHOW='^(machine|pc|q35|microvm|[0-9]+ kills)' scripts/check.sh check-moved check-qemu check-migrate check-kill check-gdb check-i386
