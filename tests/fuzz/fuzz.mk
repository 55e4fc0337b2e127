# SPDX-License-Identifier: MIT
# Fuzz targets: fuzz_NAME.c is one function, driver.c runs it. `make check-fuzz` under ASan and
# UBSan for FUZZ_SECS each; check-fuzz-smoke a few seconds of the plain build. With clang's
# libclang-rt: make CC=clang libfuzzer, then build-libfuzzer/fuzz_decode tests/fuzz/corpus/decode
FUZZ_NAMES := decode exec walk ioctl irq
FUZZ := $(FUZZ_NAMES:%=$B/tests/fuzz/fuzz_%)
FUZZ_SECS ?= 60
FUZZ_SMOKE_SECS ?= 3

$(FUZZ): $B/tests/fuzz/%: $B/tests/fuzz/%.o $B/tests/fuzz/driver.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka

.PHONY: check-fuzz check-fuzz-here check-fuzz-smoke libfuzzer
check-fuzz:
	$(Q)$(MAKE) -s SAN=address,undefined check-fuzz-here

check-fuzz-here: $(FUZZ)
	$(Q)tests/fuzz/run $(FUZZ_SECS) $(FUZZ)

check-fuzz-smoke: $(FUZZ)
	$(Q)tests/fuzz/run $(FUZZ_SMOKE_SECS) $(FUZZ)

libfuzzer:
	$(Q)mkdir -p build-libfuzzer
	$(Q)for n in $(FUZZ_NAMES); do $(CC) $(CPPFLAGS) -O1 -g -std=gnu11 -DFUZZ_LIBFUZZER -pthread \
		-fno-strict-aliasing -fsanitize=fuzzer,address,undefined -o build-libfuzzer/fuzz_$$n \
		tests/fuzz/fuzz_$$n.c $(LIB_SRC) -lcmocka || exit 1; done
