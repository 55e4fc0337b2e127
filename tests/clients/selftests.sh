#!/bin/sh
# SPDX-License-Identifier: MIT
# make check-selftests: the KVM selftests of Debian's linux-source-6.1, unmodified, under the launcher.
# A line for each test, and `N passed, N failed` at the end. A test of the core set (core.txt's place:
# $CORE) may not skip; another may, for a reason of $SKIPS, which says why real KVM skips too.
#
# selftests.sh LAUNCHER BUILD_DIR [core | TEST...]; LINUX_SOURCE=FILE.deb: instead of apt-get download
set -eu
launcher=$(realpath "$1") dir=$2
shift 2
package=linux-source-6.1
src=linux-source-6.1/tools/testing/selftests/kvm
mkdir -p "$dir"
cd "$dir"

# issue 5's core set: no nested virtualization, Hyper-V, Xen, PMU, SEV, AMX
CORE="set_memory_region_test dirty_log_test demand_paging_test kvm_page_table_test
kvm_create_max_vcpus kvm_binary_stats_test rseq_test steal_time system_counter_offset_test
memslot_modification_stress_test memslot_perf_test x86_64/cpuid_test x86_64/cr4_cpuid_sync_test
x86_64/get_msr_index_features x86_64/fix_hypercall_test x86_64/kvm_clock_test x86_64/kvm_pv_test
x86_64/max_vcpuid_cap_test x86_64/monitor_mwait_test x86_64/platform_info_test
x86_64/set_boot_cpu_id x86_64/set_sregs_test x86_64/smm_test x86_64/state_test
x86_64/sync_regs_test x86_64/tsc_msrs_test x86_64/userspace_io_test x86_64/userspace_msr_exit_test
x86_64/xapic_ipi_test x86_64/xapic_state_test x86_64/debug_regs"

# What the others may skip for, and when real KVM does.
SKIPS='nested|NESTED|VMX|SVM|svm: a KVM without nested virtualization
HYPERV|Hyper-V: a KVM without Hyper-V
XEN: a KVM without CONFIG_KVM_XEN
PMU|PERF|PDCM|pmu: a KVM without a virtual PMU
SEV|MOVE_ENC: a host without SEV
AMX|XTILE|XFD: a host without AMX
XSAVES|XSS: a host without XSAVES
TSC_CONTROL: a host without TSC scaling
CMCI: not on AMD
nx_huge_pages|NX: no page-table pages to split
host_cpu_is_intel|is_intel_cpu: not on AMD
page_idle|pagemap|IDLE_PAGE_TRACKING: a host kernel without page_idle
MAX_PHYS|memory: not enough memory'

# Left out, with the reason.
LEFT_OUT='x86_64/emulator_error_test wants FLD on MMIO to be impossible; it is possible here
x86_64/hyperv_clock asks for Hyper-V'"'"'s CPUID, there or not
x86_64/hyperv_features enables Hyper-V, there or not
x86_64/nx_huge_pages_test is a helper of nx_huge_pages_test.sh
hardware_disable_test tests the kernel module'"'"'s unloading'

fetch() {
	if [ -n "${LINUX_SOURCE:-}" ]; then
		cp "$LINUX_SOURCE" ./source.deb
	else
		(mkdir -p deb && cd deb && apt-get download -qq "$package") >&2
		mv deb/*.deb source.deb
	fi
}

# The system's own linux-libc-dev of 6.1 has the headers. Two tests are not complete in themselves:
# steal_time does not include <linux/stddef.h>, dirty_log_test wants a macro under its later name.
unpack_and_build() {
	[ -e source.deb ] || fetch
	dpkg-deb --fsys-tarfile source.deb | tar -xO ./usr/src/$package.tar.xz | tar -xJ --wildcards \
		"$package/tools/testing/selftests/kvm/*" "$package/tools/testing/selftests/rseq/*" \
		"$package/tools/testing/selftests/*.h" "$package/tools/testing/selftests/*.mk" \
		"$package/tools/include/*" "$package/tools/arch/x86/include/*" "$package/tools/build/*" \
		"$package/tools/lib/rbtree.c" "$package/tools/scripts/*" \
		"$package/lib/rbtree.c" "$package/scripts/subarch.include"
	env -u MAKELEVEL -u MAKEFLAGS -u MFLAGS make -k -j"$(nproc)" -C "$src" >build.log 2>&1 \
		EXTRA_CFLAGS='-include linux/stddef.h -DTEST_ASSERT_EQ=ASSERT_EQ' || {
		tail -n 20 build.log
		return 1
	}
	touch built
}

if [ ! -e built ]; then unpack_and_build; fi
cd "$src"

# as long as the measurements of a test that measures may be, in seconds
arguments() {
	case $1 in
	memslot_perf_test) echo "-l 1" ;;
	esac
}

is_core() {
	for core in $CORE; do [ "$core" = "$1" ] && return 0; done
	return 1
}

left_out() {
	printf '%s\n' "$LEFT_OUT" | sed -n "s|^$1 ||p"
}

# the reason of SKIPS that a skipped test's output matches
skip_reason() {
	printf '%s\n' "$SKIPS" | while IFS= read -r line; do
		printf '%s\n' "$1" | grep -qE -- "${line%%: *}" && echo "${line#*: }" && break
	done
}

if [ "$*" = core ]; then
	tests=$CORE
elif [ $# -gt 0 ]; then
	tests=$*
else
	tests="$CORE $(find . -type f -perm -u+x ! -name '*.sh' ! -name '*.so' | sed 's|^\./||' | sort)"
fi
passed=0 failed=0 skipped=0 seen=' '
for t in $tests; do
	case $seen in *" $t "*) continue ;; esac
	seen="$seen$t "
	reason=$(left_out "$t")
	if [ -n "$reason" ]; then
		printf '%-44s left out: %s\n' "$t" "$reason"
		continue
	fi
	start=$(date +%s)
	# shellcheck disable=SC2046 # arguments are words
	out=$(timeout -k 5 "${TIMEOUT:-240}" "$launcher" "./$t" $(arguments "$t") 2>&1 </dev/null) &&
		rc=0 || rc=$?
	time="$(($(date +%s) - start)) s"
	line=$(printf '%s\n' "$out" | grep -E 'SKIP|skipp' | tail -n 1)
	if [ $rc -eq 0 ]; then
		passed=$((passed + 1))
		printf '%-44s pass (%s)\n' "$t" "$time"
		continue
	fi
	reason=
	if [ $rc -eq 4 ] && ! is_core "$t"; then reason=$(skip_reason "$line" || true); fi
	if [ -n "$reason" ]; then
		skipped=$((skipped + 1))
		printf '%-44s skip: %s [%s]\n' "$t" "$reason" "${line#1..0 # SKIP - }"
	else
		failed=$((failed + 1))
		printf '%-44s FAIL (%s, exit status %d)\n' "$t" "$time" "$rc"
		printf '%s\n' "$out" | tail -n 15 | sed 's/^/    /'
	fi
done
[ "$skipped" -eq 0 ] || echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
