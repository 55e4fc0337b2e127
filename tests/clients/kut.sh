#!/bin/sh
# SPDX-License-Identifier: MIT
# A built kvm-unit-tests checkout (x86_64) under Debian's QEMU and the launcher: a line for each
# entry of its x86/unittests.cfg with (PASS/FAIL/SKIP lines, wall time, processor time), and
# `N passed, N failed` at the end. As the suite's own runner does, it skips an entry whose `check`
# does not hold, and one that QEMU refuses to start.
#
# kut.sh DIR [ENTRY...]
#	LAUNCHER=build/anykvm, or empty: QEMU on the host's own KVM
#	ACCEL=kvm, or tcg (with LAUNCHER empty)
#	LOGS=build/kut	the output of each entry, ENTRY.log
#	JOBS=2		entries at the same time
#	TIMEOUT=	seconds for each, instead of the entry's own (90 if it has none)
#	VMX=1		also the entries for nested VMX, which is not offered
#	ANYKVM_FORCE_EMULATION=1	the forced-emulation prefix is on; 0: those parts skip
#	ANYKVM_GPA=off	prints the emulator's walks without proved translations
set -eu
dir=$(realpath "$1")
shift
LAUNCHER=${LAUNCHER-build/anykvm}
[ -z "$LAUNCHER" ] || LAUNCHER=$(realpath "$LAUNCHER")
LOGS=${LOGS:-build/kut}
ACCEL=${ACCEL:-kvm}
mkdir -p "$LOGS"
LOGS=$(realpath "$LOGS")
ANYKVM_FORCE_EMULATION=${ANYKVM_FORCE_EMULATION-1}
export LAUNCHER LOGS ACCEL ANYKVM_FORCE_EMULATION

# name|file|smp|arguments|QEMU's options|timeout|checks
entries() {
	awk '
	function out() {
		if (name != "" && arch != "i386")
			print name "|" file "|" smp "|" args "|" opts "|" timeout "|" check
		name = file = args = opts = arch = timeout = check = ""
		smp = 1
	}
	/^\[/ { out(); name = $0; gsub(/[][]/, "", name); next }
	/^[a-z_]+ *= */ {
		key = $1
		value = $0
		sub(/^[a-z_]+ *= */, "", value)
		if (key == "file") file = value
		else if (key == "smp") smp = value
		else if (key == "test_args") { gsub(/^["'\'']|["'\'']$/, "", value); args = value }
		else if (key == "qemu_params" || key == "extra_params") opts = value
		else if (key == "arch") arch = value
		else if (key == "timeout") timeout = value
		else if (key == "check") check = value
	}
	END { out() }' "$dir/x86/unittests.cfg"
}

# What a file that a `check` names holds. Of the module's parameters only the host's KVM has
# files; for ours: no PMU and no VMware backdoor, unknown MSRs #GP, any MAXPHYADDR up to the host's.
parameter() {
	case ${LAUNCHER:+ours}$1 in
	ours*/enable_pmu | ours*/enable_vmware_backdoor | ours*/ignore_msrs) echo N ;;
	ours*/allow_smaller_maxphyaddr) echo Y ;;
	*) cat "$1" 2>/dev/null || echo nothing ;;
	esac
}

# The first of `path=value`... that does not hold.
unmet() {
	for c; do
		is=$(parameter "${c%%=*}")
		[ "$is" = "${c#*=}" ] || { echo "${c%%=*} is $is, not ${c#*=}" && return; }
	done
}

count() { grep -c "^$1" "$log" || true; }

# QEMU's own exit status is 1 too: it said something, and no guest did.
refused() {
	grep -q '^qemu-system' "$log" && ! grep -q '^enabling apic\|^PASS\|^SUMMARY\|^.*: *[0-9]' "$log"
}

row() { printf '%-44s %-8s (%s) %s\n' "$name" "$@"; }

run_entry() {
	IFS='|' read -r name file smp args opts timeout checks <<-EOF
		$1
	EOF
	# shellcheck disable=SC2086 # checks are words
	why=$(unmet $checks)
	[ -z "$why" ] || { row skip - "$why" && return; }
	args=$(printf '%s' "$args" | sed "s/\`date +%s\`/$(date +%s)/")
	log=$LOGS/$name.log
	start=$(date +%s)
	set -- qemu-system-x86_64 -no-reboot -nodefaults -global kvm-pit.lost_tick_policy=discard \
		-device pc-testdev -device isa-debug-exit,iobase=0xf4,iosize=0x4 -display none \
		-serial stdio -device pci-testdev -machine "accel=$ACCEL" -kernel "$dir/x86/$file" \
		-smp "$smp"
	# shellcheck disable=SC2086 # options are words
	[ -z "$args" ] || set -- "$@" -append "$args"
	# shellcheck disable=SC2086
	ANYKVM_STATS=$LOGS/$name.stats timeout -k 5 "${TIMEOUT:-${timeout:-90}}" \
		${LAUNCHER:+"$LAUNCHER"} "$@" $opts >"$log" 2>&1 </dev/null && rc=0 || rc=$?
	times >"$LOGS/$name.times" # not in a pipe: a subshell has had no children
	cpu=$(tail -n 1 "$LOGS/$name.times" | awk -F '[ms ]+' '{ print int(60 * ($1 + $3) + $2 + $4) }')
	counts="$(count PASS)/$(count FAIL)/$(count SKIP), $(($(date +%s) - start)) s, cpu $cpu s"
	why=$(grep -aE '^(SKIP|FAIL|ABORT|Unhandled|qemu|anykvm|KVM internal)|assert' "$log" |
		grep -av '^qemu-system.*warning' | head -n 1 | cut -c1-110)
	case $rc in # isa-debug-exit: twice the test's own status, + 1
	1) result=pass ;;
	3) result=FAIL ;;
	124 | 137) result=TIMEOUT ;;
	77) result=skip ;;
	255) result=ABORT ;;
	0) result=RESET ;;
	*) result="STATUS-$rc" ;;
	esac
	if [ "$rc" -eq 1 ] && refused; then
		result=skip
	elif [ "$result" = pass ]; then
		why=
	fi
	row "$result" "$counts" "$why"
}

if [ "${KUT_ENTRY:-}" ]; then
	run_entry "$KUT_ENTRY"
	exit 0
fi

wanted() {
	entries | while IFS= read -r line; do
		name=${line%%|*}
		if [ $# -gt 0 ]; then
			case " $* " in *" $name "*) printf '%s\n' "$line" ;; esac
		else
			case $name in
			vmx*) [ -z "${VMX:-}" ] || printf '%s\n' "$line" ;;
			*) printf '%s\n' "$line" ;;
			esac
		fi
	done
}

table=$LOGS/table
rm -f "$LOGS"/*.stats
wanted "$@" | tr '\n' '\0' |
	xargs -0 -P "${JOBS:-2}" -I{} env KUT_ENTRY={} "$0" "$dir" | tee "$table"

# Sum over all entries of a counter of ANYKVM_STATS' files; "unknown" if none of them has it.
walks() {
	cat "$LOGS"/*.stats 2>/dev/null | tr -d '",:' |
		awk -v n="$1" '$1 == n { s += $2; k++ } END { print k ? s + 0 : "unknown" }'
}
if ls "$LOGS"/*.stats >/dev/null 2>&1; then
	echo "emulator's walks for data: $(walks emul_walk_data), to prove: $(walks emul_walk_prove)," \
		"emulated: $(walks insn_emulation) (ANYKVM_GPA=${ANYKVM_GPA:-on})"
fi
passed=$(grep -cE '^[^ ]+ +pass ' "$table" || true)
skipped=$(grep -cE '^[^ ]+ +skip ' "$table" || true)
failed=$(($(wc -l <"$table") - passed - skipped))
echo "$skipped skipped"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
