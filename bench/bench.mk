# SPDX-License-Identifier: MIT
# The demo and the benchmarks. All benchmarks together write $B/bench.json.

.PHONY: demo bench bench-boot bench-exits bench-kernels
demo:
	$(Q)scripts/demo.sh $B

bench: bench-boot bench-exits bench-kernels

bench-boot bench-exits bench-kernels: bench-%:
	$(Q)bench/$*.sh $B
	$(Q)bench/merge.sh $B

$B/bench/exits: $B/bench/exits.o $B/lib/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^

# Without libraries: it is a guest's only file.
$B/bench/kernels: bench/kernels.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -static -o $@ $<

# A boot sector: loaded at 0x7c00, 512 bytes.
$B/bench/tcg.img: bench/tcg.S
	$(call say,AS,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -m32 -c -o $(@D)/tcg.o $<
	$(Q)$(LD) -m elf_i386 --oformat binary -e 0x7c00 -Ttext 0x7c00 -o $@ $(@D)/tcg.o

$B/bench/until: bench/until.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -o $@ $<
