# SPDX-License-Identifier: MIT
# The checklist of bad inputs. `make check-hostile` is the full size, check-hostile-quick part
# of make check; HOSTILE_ITEMS="h71 h65" runs some. Both compare what passed with names.txt.
HOSTILE := $(patsubst %.c,$B/%,$(wildcard tests/hostile/*.c))


LDFLAGS_oom := $(addprefix -Wl$(comma)--wrap=,malloc calloc realloc aligned_alloc mmap memfd_create \
	eventfd epoll_create1 timerfd_create ftruncate pthread_create)

$(HOSTILE): $B/%: $B/%.o $B/libanykvm.a
	$(call say,LD,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< $B/libanykvm.a $(LDFLAGS_$(notdir $@))

.PHONY: check-hostile check-hostile-quick
check-hostile: $(HOSTILE) $B/anykvm
	$(Q)HOSTILE=full ANYKVM_TOOL=$B/anykvm tests/hostile/complete $(HOSTILE)

check-hostile-quick: $(HOSTILE) $B/anykvm
	$(Q)ANYKVM_TOOL=$B/anykvm tests/hostile/complete $(HOSTILE)
