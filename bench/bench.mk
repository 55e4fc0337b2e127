# SPDX-License-Identifier: MIT
# The demo and the benchmark: both boot Debian's kernel.

.PHONY: demo bench
demo:
	$(Q)scripts/demo.sh $B

bench:
	$(Q)bench/boot.sh $B

$B/bench/until: bench/until.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -std=gnu11 -D_GNU_SOURCE -O2 -Wall -Wextra -o $@ $<
