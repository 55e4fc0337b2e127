# SPDX-License-Identifier: MIT
# Native differential test: every row of insns.def on the host CPU and as a guest.
# check-native is the full campaign; the slice is part of `make check`. SEED=n repeats a run.

NATIVE     := $B/tests/native
NATIVE_OBJ := $(patsubst %.c,$B/%.o,$(wildcard tests/native/*.c))

# The reference runs with FS, GS and the stack of its cases: nothing may be added to its code.
$(NATIVE)/ref.o $(NATIVE)/lines.o: CFLAGS += -fno-stack-protector -fno-sanitize=all \
	-fno-builtin

$(NATIVE)/native_diff: $(NATIVE_OBJ) $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -Wl,-z,now -Wl,--wrap=cpu_exec,--wrap=exec_native -o $@ $^

.PHONY: check-native check-native-slice check-planted
check-native: $(NATIVE)/native_diff
	$(Q)$< -m 64 -m 32 -m 16 -n 10000 $(if $(SEED),-s $(SEED))

check-native-slice: $(NATIVE)/native_diff
	$(Q)$< -m 64 -m 32 -m 16 -n 192 -t 20 $(if $(SEED),-s $(SEED))

# Five faults planted in a copy of the tree must each be found.
check-planted: $(NATIVE)/native_diff
	$(Q)tests/native/planted.sh $B
