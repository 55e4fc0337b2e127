# SPDX-License-Identifier: MIT
# The checklist of bad inputs. `make check-hostile` is the full size, check-hostile-quick part
# of make check, check-hostile-san the full size under ASan, UBSan and TSan; HOSTILE_ITEMS="h71 h65"
# runs some. All compare what passed with names.txt.
HOSTILE := $(patsubst %.c,$B/%,$(wildcard tests/hostile/*.c))
HOSTILE_NEEDS := $(HOSTILE) $B/anykvm $B/libanykvm-preload.so

LDFLAGS_oom := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc aligned_alloc mmap memfd_create \
	eventfd epoll_create1 timerfd_create ftruncate pthread_create)

$(HOSTILE): $B/%: $B/%.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $B/libanykvm.a $(LDFLAGS_$(notdir $@))

.PHONY: check-hostile check-hostile-quick check-hostile-san
check-hostile: $(HOSTILE_NEEDS)
	$(Q)HOSTILE=full ANYKVM_TOOL=$B/anykvm tests/hostile/complete $(HOSTILE)

check-hostile-quick: $(HOSTILE_NEEDS)
	$(Q)ANYKVM_TOOL=$B/anykvm tests/hostile/complete $(HOSTILE)

check-hostile-san:
	$(Q)$(MAKE) -s SAN=address,undefined check-hostile
	$(Q)$(MAKE) -s SAN=thread check-hostile
