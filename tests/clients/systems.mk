# SPDX-License-Identifier: MIT
# Whole systems under Debian's QEMU. ACCEL=tcg compares with QEMU's own processor.
.PHONY: check-debian check-firmware
check-debian: $B/anykvm $B/libanykvm-preload.so $B/tests/wx/wx
	$(Q)tests/clients/debian.sh $B
check-firmware: $B/anykvm $B/libanykvm-preload.so $B/tests/wx/wx
	$(Q)tests/clients/firmware.sh $B
