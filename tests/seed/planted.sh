#!/bin/sh
# SPDX-License-Identifier: MIT
# Plants faults, one at a time, in a copy of the tree: each must be caught by a test of the seed
# (or a unit test) that has a name. Prints which. `make check-seed-planted`; not part of check.
top=$(cd "$(dirname "$0")/../.." && pwd)
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cd "$top" || exit 1
tar cf - --exclude=.git --exclude='build*' . | tar xf - -C "$copy"
cd "$copy" || exit 1
passed=0 failed=0

# Build all programs; a build that fails would hide the fault.
build() {
	${MAKE:-make} -s -j2 seed-programs build/src/mmu/tlb_test build/src/emul/translate_test \
		>"$copy/build.log" 2>&1 || { tail -n 20 "$copy/build.log"; return 1; }
}

# Names of the tests that fail, programs that die included.
failing() {
	for t in build/tests/seed/seed_* build/src/mmu/tlb_test build/src/emul/translate_test; do
		case $t in *.[od]) continue ;; esac
		out=$(timeout 120 "$t" 2>&1) && continue
		names=$(printf '%s\n' "$out" | sed -n 's/^\[  FAILED  \] \([A-Za-z0-9_]*\)$/\1/p' | sort -u)
		[ -n "$names" ] || names="(the end of $(basename "$t"))"
		printf '%s ' $names
	done
}

# plant TEXT FILE SED-SCRIPT
plant() {
	cp "$2" "$copy/saved"
	sed -i "$3" "$2"
	if cmp -s "$2" "$copy/saved"; then
		echo "not planted, $2 has changed: $1"
		failed=$((failed + 1))
		return
	fi
	if build; then names=$(failing); else names=; fi
	if [ -n "$names" ]; then
		echo "caught: $1: $names"
		passed=$((passed + 1))
	else
		echo "NOT CAUGHT: $1"
		failed=$((failed + 1))
	fi
	cp "$copy/saved" "$2"
}

build || exit 1
names=$(failing)
[ -z "$names" ] || { echo "fails without a planted fault: $names"; exit 1; }

plant "a translation matched by page offset only" src/emul/translate.c \
	's/((x->gva.v ^ w->gva.v) & PAGE_MASK)/((x->gva.v ^ w->gva.v) \& ~PAGE_MASK)/'
plant "a completion that walks" src/emul/pending.c \
	'/^bool pending_perform/,/^}/s/^\twhile/\tif (cpu->completing)\n\t\tpending_walk_off(em, cpu, l, 0);\n\twhile/'
plant "a log entry replayed twice" src/emul/env_exit.c \
	's/^\ta->log = rec->pos++;/\ta->log = rec->pos;\n\trec->pos += !known || rec->pos;/'
plant "rights not compared" src/emul/translate.c \
	's/(x->rights & w->need) != w->need || //'
plant "an epoch not bumped by INVLPG" src/mmu/tlb.c \
	'/^void mmu_flush_page/,/^}/s/mmu->epoch++;//'
plant "a fragment that points into kvm_run" src/kvm/run.c \
	'/^static int complete/,/^}/s/v->pio_data/(u8 *)v->run + (v->run->io.data_offset \& 0xfff)/'
plant "a fragment whose kind is that of kvm_run" src/kvm/run.c \
	'/^static int complete/,/^}/s/if (emul_fragment(&v->emul)->is_pio)/if (v->run->exit_reason == KVM_EXIT_IO)/'

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
