#!/bin/sh
# SPDX-License-Identifier: MIT
# make lint: the other compiler has nothing to say either. Usage: lint.sh FLAGS... (CC is the other one)
bad=0 count=0
for c in $(find src vmm tools tests bench examples -name '*.c'); do
	extra= # guests are no programs of the host
	case $c in
	tests/guest/prot/*) extra='-m32 -DPROT32 -ffreestanding' ;;
	tests/guest/long/*) extra=-ffreestanding ;;
	esac
	${LINT_CC:-clang} "$@" $extra -fsyntax-only -Werror "$c" || bad=1
	count=$((count + 1))
done
[ $bad -eq 0 ] && echo "$count files without a warning"
exit $bad
