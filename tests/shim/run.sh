#!/bin/sh
# SPDX-License-Identifier: MIT
# The test programs under the launcher, and what the launcher says. Usage: run.sh ANYKVM PROGRAM...
anykvm=$(realpath "$1")
shift
dir=$(mktemp -d) || exit 1
trap 'rm -rf "$dir"' EXIT
passed=0 failed=0

result() {
	if [ "$2" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAIL $1: $3"; fi
}

# expect NAME STATUS TEXT COMMAND...: TEXT is part of the output
expect() {
	name=$1 status=$2 text=$3
	shift 3
	out=$("$@" 2>&1 < /dev/null)
	rc=$?
	case $out in *"$text"*) ok=ok ;; *) ok= ;; esac
	[ $rc -eq "$status" ] || ok=
	result "$name" "$ok" "status $rc, output: $out"
}

for t in "$@"; do
	out=$(timeout 60 "$anykvm" "$t" 2>&1)
	line=$(printf '%s\n' "$out" | grep -E '^[0-9]+ passed, [0-9]+ failed$' | tail -n 1)
	if [ -z "$line" ]; then
		printf '%s\n' "$out"
		result "$t" "" "no result"
		continue
	fi
	[ "${line#*, }" = "0 failed" ] || printf '%s\n' "$out"
	passed=$((passed + ${line%% *}))
	f=${line#*, }
	failed=$((failed + ${f%% *}))
done

expect "arguments and status" 7 "a b" "$anykvm" sh -c 'echo "$@"; exit 7' sh a b
expect "in children, across exec" 0 "character special file" \
	"$anykvm" sh -c 'sh -c "exec stat -c %F /dev/kvm"'
expect "after --" 0 "" "$anykvm" -- true
printf '#!/bin/sh\necho script\n' > "$dir/script"
chmod +x "$dir/script"
expect "a script" 0 "script" "$anykvm" "$dir/script"
expect "no such program" 127 "no such program" "$anykvm" "$dir/none"
expect "not executable" 126 "Permission denied" "$anykvm" /etc/passwd
cp /bin/true "$dir/suid"
chmod u+s "$dir/suid"
expect "setuid" 126 "setuid" "$anykvm" "$dir/suid"
printf 'int main(void) { return 0; }\n' > "$dir/x.c"
${CC:-cc} -static -o "$dir/static" "$dir/x.c" && expect "static" 126 "statically linked" \
	"$anykvm" "$dir/static"
mkdir -p "$dir/p/bin" "$dir/p/lib"
cp "$anykvm" "$dir/p/bin/"
expect "no library" 126 "cannot find libanykvm-preload.so" "$dir/p/bin/anykvm" true
cp "${anykvm%/*}/libanykvm-preload.so" "$dir/p/lib/"
expect "installed" 0 "$dir/p/lib/libanykvm-preload.so" "$dir/p/bin/anykvm" sh -c 'echo $LD_PRELOAD'
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
