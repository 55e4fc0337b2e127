# SPDX-License-Identifier: MIT
# The decoder against Zydis (libzydis-dev). VMLINUX=path names an uncompressed kernel to sweep;
# without it check-decode fetches Debian's cloud kernel.

DECODE     := $B/tests/decode
DECODE_ELF := $(firstword $(wildcard /lib/x86_64-linux-gnu/libc.so.6 /lib64/libc.so.6)) /bin/bash
VMLINUX    ?= $(DECODE)/vmlinux

DECODE_OBJ := $(call OBJ,tests/decode/decode_sweep.c tests/decode/compare.c)

$(DECODE)/decode_sweep: $(DECODE_OBJ) $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lZydis

$(DECODE)/vmlinux:
	$(call say,GET,$@)
	$(Q)tests/decode/vmlinux.sh $@

.PHONY: check-decode check-decode-slice
check-decode: $(DECODE)/decode_sweep $(VMLINUX)
	$(Q)$(DECODE)/decode_sweep -c -n 10000000 $(VMLINUX) $(DECODE_ELF)

check-decode-slice: $(DECODE)/decode_sweep
	$(Q)$(DECODE)/decode_sweep -n 300000 $(DECODE_ELF)
