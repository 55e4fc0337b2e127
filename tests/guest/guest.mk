# SPDX-License-Identifier: MIT
# Guests of our own, run through the public API by tests/guest/run.c. `make check-guest`; one of
# them alone: build/tests/guest/run -v build/tests/guest/long/paging.img; real-mode images on the
# host's KVM: run -d. A guest is one .S file (real/) or one .c file on lib/ (long/, prot/).
# They are built with Debian's gcc whatever CC is, and do not depend on HARD or SAN.

GUEST_CC     ?= gcc
GUEST_FLAGS  := -O1 -std=gnu11 -Wall -Wextra -ffreestanding -fno-pic -fno-stack-protector \
                -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing \
                -fno-builtin -fomit-frame-pointer -mno-red-zone
GUEST_C      := -mgeneral-regs-only
GUEST_LD     := -static -nostdlib -no-pie -Wl,--build-id=none,-z,norelro,--no-warn-rwx-segments \
                -Wl,-T,tests/guest/lib/image.ld
G            := $B/tests/guest

guest_names   = $(patsubst tests/guest/%,$G/%.img,$(sort $(basename $(wildcard tests/guest/$(1)/*.[cS]))))
GUEST_REAL   := $(call guest_names,real)
GUEST_PROT   := $(call guest_names,prot)
GUEST_LONG   := $(call guest_names,long)
GUEST_IMAGES := $(GUEST_REAL) $(GUEST_PROT) $(GUEST_LONG)

# vCPUs and devices of an image: FLAGS_name CPUS_name
CPUS_smc     := 2
CPUS_smp     := 2
FLAGS_smp    := 2
FLAGS_irq    := 2
FLAGS_priority := 2
FLAGS_syscall_intel := 4
FLAGS_syscall_amd := 8
guest_defs    = -DIMAGE_FLAGS=$(or $(FLAGS_$(1)),0) -DIMAGE_CPUS=$(or $(CPUS_$(1)),1)
GUEST_LIBS   := $(wildcard tests/guest/lib/* tests/guest/abi.h)

$(GUEST_REAL): $G/%.img: tests/guest/%.S $(GUEST_LIBS)
	$(call say,AS,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(GUEST_CC) $(GUEST_FLAGS) $(GUEST_LD) -o $(@:.img=.elf) $<
	$(Q)objcopy -O binary $(@:.img=.elf) $@

$(GUEST_PROT): $G/%.img: $(GUEST_LIBS)
	$(call say,CC,$(filter tests/guest/prot/%,$^))
	$(Q)mkdir -p $(@D)
	$(Q)$(GUEST_CC) -m32 -DPROT32 $(GUEST_FLAGS) $(GUEST_C) $(GUEST_LD) $(call guest_defs,$(*F)) \
		-o $(@:.img=.elf) tests/guest/lib/start.S $(filter tests/guest/prot/%,$^) \
		tests/guest/lib/lib.c
	$(Q)objcopy -O binary $(@:.img=.elf) $@

$(GUEST_LONG): $G/%.img: $(GUEST_LIBS)
	$(call say,CC,$(filter tests/guest/long/%,$^))
	$(Q)mkdir -p $(@D)
	$(Q)$(GUEST_CC) $(GUEST_FLAGS) $(GUEST_C) $(GUEST_LD) $(call guest_defs,$(*F)) \
		-o $(@:.img=.elf) tests/guest/lib/start.S $(filter tests/guest/long/%,$^) \
		tests/guest/lib/lib.c
	$(Q)objcopy -O binary $(@:.img=.elf) $@

$(foreach i,$(GUEST_PROT) $(GUEST_LONG),$(eval $i: $(wildcard $(i:$G/%.img=tests/guest/%).[cS])))

$G/run: $(patsubst %.c,$B/%.o,$(wildcard tests/guest/*.c)) $B/lib/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $^

.PHONY: check-guest
check-guest: $G/run $(GUEST_IMAGES)
	$(Q)$G/run $(GUEST_IMAGES)
