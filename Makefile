# SPDX-License-Identifier: MIT
# anykvm. Quiet; V=1 shows the commands. The targets are listed in doc/DESIGN.md 10.
# Variants, each with a build folder of its own: HARD=1, SAN=address,undefined, SAN=thread, CC=clang.

CC      ?= gcc
AR      ?= ar
PREFIX  ?= /usr/local
VERSION := 0.1.0

comma   := ,
variant := $(if $(HARD),-hard)$(if $(SAN),-$(subst $(comma),-,$(SAN)))$(if $(findstring clang,$(CC)),-clang)
B       := build$(variant)
Q       := $(if $(V),,@)
say      = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))

# Guest operands need not be aligned, and on x86 they need not be.
san     := -fsanitize=$(SAN) -fno-sanitize=alignment -fno-omit-frame-pointer

CPPFLAGS += -D_GNU_SOURCE -Isrc -Iinclude -DANYKVM_VERSION='"$(VERSION)"' $(if $(HARD),-DHARD=1)
CFLAGS   ?= -O2 -g
CFLAGS   += -std=gnu11 -Wall -Wextra -Werror=override-init -Wno-gnu-variable-sized-type-not-at-end -fPIC -fvisibility=hidden \
            -fno-strict-aliasing -pthread $(if $(SAN),$(san))
# The library is optimized as a whole, once (exits cost an eighth less); unit tests take its parts.
LTO      := $(if $(variant),,-flto=auto)
LDFLAGS  += -pthread $(if $(SAN),-fsanitize=$(SAN)) $(if $(LTO),-fno-lto)

# what a sanitizer finds makes the test fail
export UBSAN_OPTIONS ?= halt_on_error=1:print_stacktrace=1
export TSAN_OPTIONS  ?= suppressions=$(CURDIR)/tests/tsan.supp history_size=7

LIB_SRC  := $(filter-out %_test.c src/shim/%,$(wildcard src/*/*.c))
SHIM_SRC := $(filter-out %_test.c,$(wildcard src/shim/*.c))
UNIT_SRC := $(wildcard src/*/*_test.c vmm/*_test.c)
VMM_SRC  := $(filter-out %_test.c,$(wildcard vmm/*.c))
CMD_SRC  := $(strip $(wildcard tools/*.c) $(VMM_SRC))
OBJ       = $(patsubst %.c,$B/%.o,$(1))
UNIT     := $(patsubst %.c,$B/%,$(UNIT_SRC))
LIB_UNIT := $(filter $B/src/%,$(UNIT))
VMM_UNIT := $(filter $B/vmm/%,$(UNIT))

.PHONY: all
all: $B/libanykvm.a $B/libanykvm.so $B/libanykvm-preload.so $(if $(CMD_SRC),$B/anykvm)

$B/%.o: %.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

$(call OBJ,$(LIB_SRC)): CFLAGS += $(if $(LTO),$(LTO) -ffat-lto-objects)

# With all names, for the unit tests.
$B/libanykvm.a: $(call OBJ,$(LIB_SRC))
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$B/libanykvm.o: $(call OBJ,$(LIB_SRC))
	$(call say,LD,$@)
	$(Q)$(CC) $(if $(LTO),$(CFLAGS) $(LTO) -flinker-output=nolto-rel) -nostdlib -r -o $@ $^

$B/libanykvm.so: $B/libanykvm.o
	$(call say,LD,$@)
	$(Q)$(CC) -shared -Wl,-soname,libanykvm.so.0 $(LDFLAGS) -o $@ $^

# Hooks run before a sanitizer's runtime has started.
$(call OBJ,$(SHIM_SRC)): CFLAGS += $(if $(SAN),-fno-sanitize=all)

# For `anykvm PROGRAM`. Separate, so that linking libanykvm hooks nothing. The library's own calls
# of what it hooks are wrapped: they go to libc (src/shim/wrap.c).
$B/libanykvm-preload.so: $B/libanykvm.o $(call OBJ,$(SHIM_SRC))
	$(call say,LD,$@)
	$(Q)$(CC) -shared $(foreach f,open ioctl mmap munmap close read pthread_setcanceltype,-Wl$(comma)--wrap=$f) \
		$(LDFLAGS) -o $@ $^

# The archive that programs link: one object in which only the public names are left.
$B/lib/libanykvm.a: $B/libanykvm.o
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D) && objcopy --localize-hidden $< $(@D)/anykvm.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(@D)/anykvm.o

$B/anykvm: $(call OBJ,$(CMD_SRC)) $B/lib/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^

# ---- unit tests: src/mmu/walk_test.c -> $B/src/mmu/walk_test, run by check-unit
$(LIB_UNIT): $B/%: $B/%.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $B/libanykvm.a -lcmocka $(LDLIBS_$(notdir $@))
LDLIBS_decode_test := -lZydis

$(VMM_UNIT): $B/%: $B/%.o $(call OBJ,$(VMM_SRC)) $B/lib/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^ -lcmocka

.PHONY: check-unit
check-unit: $(UNIT)
	$(Q)tests/run $(UNIT)

# ---- further test and bench targets live beside their programs
-include $(wildcard tests/*/*.mk bench/*.mk)

# All that must hold before a commit (MORE_CHECKS: what CI adds); closes with `N passed, N failed`.
CHECKS := check-unit check-guest check-api check-boot check-seed check-seed-fuzz check-decode-slice check-native-slice check-shim check-tools check-hostile-quick check-golden check-fuzz-smoke
.PHONY: check
check: all examples deps headers lint shape
	$(Q)scripts/check.sh $(CHECKS) $(MORE_CHECKS)

# The same programs in builds that check themselves (doc/DESIGN.md 7).
VARIANT_CHECKS := check-unit check-api $(if $(wildcard tests/guest/*.mk),check-guest) check-seed
.PHONY: check-hard check-asan check-tsan
check-hard: export HARD = 1
check-asan: export SAN = address,undefined
check-tsan: export SAN = thread
check-hard check-asan check-tsan:
	$(Q)scripts/check.sh $(VARIANT_CHECKS)

.PHONY: examples
examples: $(patsubst %.c,$B/%,$(wildcard examples/*.c))
$B/examples/%: $B/examples/%.o $B/lib/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^

.PHONY: abi
abi:
	$(Q)scripts/abi.sh > $B/abi.tmp && mv $B/abi.tmp doc/ABI.md

.PHONY: shape deps headers lint differs
shape deps headers:
	$(Q)CC=$(CC) scripts/$@.sh
# the compiler that was not asked
lint:
	$(Q)LINT_CC=$(if $(findstring clang,$(CC)),gcc,clang) scripts/lint.sh $(CPPFLAGS) $(filter-out -f% -O2 -g,$(CFLAGS))
differs:
	$(Q)scripts/differs.sh > doc/DIFFERS.md

.PHONY: install
install: all
	$(Q)install -d $(addprefix $(DESTDIR)$(PREFIX)/,bin include lib/pkgconfig share/man/man1)
	$(Q)install -m 755 $B/anykvm $(DESTDIR)$(PREFIX)/bin/
	$(Q)install -m 644 include/anykvm.h $(DESTDIR)$(PREFIX)/include/
	$(Q)install -m 644 $B/lib/libanykvm.a $(DESTDIR)$(PREFIX)/lib/
	$(Q)install -m 755 $B/libanykvm.so $(DESTDIR)$(PREFIX)/lib/libanykvm.so.$(VERSION)
	$(Q)install -m 755 $B/libanykvm-preload.so $(DESTDIR)$(PREFIX)/lib/
	$(Q)ln -sf libanykvm.so.$(VERSION) $(DESTDIR)$(PREFIX)/lib/libanykvm.so.0
	$(Q)ln -sf libanykvm.so.0 $(DESTDIR)$(PREFIX)/lib/libanykvm.so
	$(Q)sed 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' anykvm.pc.in \
		> $(DESTDIR)$(PREFIX)/lib/pkgconfig/anykvm.pc
	$(Q)install -m 644 doc/anykvm.1 $(DESTDIR)$(PREFIX)/share/man/man1/

.PHONY: clean
clean:
	$(Q)rm -rf build build-*

-include $(shell find $(addprefix $B/,src vmm tools tests bench examples) -name '*.d' -type f 2>/dev/null)
