# SPDX-License-Identifier: MIT
# The seed's rows that need a PC's devices (SEED.md 8), for seed.sh to source: Debian's QEMU, unmodified,
# with Debian's cloud kernel. Each row twice, with the proved translations off and on; `linux` prints it.
scripts/packages.sh qemu-system-x86
${MAKE:-make} -s "$build/clients/initrd" "$build/libanykvm-preload.so"

# qemu NAME WANTED INITRD APPEND ARGS...: both runs of a row; WANTED must come out of each
qemu() {
	name=$1 wanted=$2 initrd=$3 append=$4
	shift 4
	for gpa in off on; do
		rm -f "$dir/$name-$gpa.json"
		head -c 262144 /dev/urandom > "$dir/ide.img"
		ANYKVM_GPA=$gpa ANYKVM_STATS=$dir/$name-$gpa.json timeout 900 "$build/anykvm" \
			qemu-system-x86_64 -accel kvm -m 512 -nodefaults -display none -no-reboot -serial stdio \
			-kernel "$dir/vmlinuz" -initrd "$initrd" -append "$append" "$@" \
			< /dev/null > "$dir/$name-$gpa.log" 2>&1 || status=$?
		if [ "${status:-0}" -ne 0 ] || ! grep -q "$wanted" "$dir/$name-$gpa.log"; then
			tail -n 20 "$dir/$name-$gpa.log" >&2
			die "QEMU's run $name-$gpa ended with status ${status:-0}, without $wanted"
		fi
	done
}

# stress TITLE NAME KVM-OFF KVM-ON APPEND ARGS...: a row with stressapptest
stress() {
	title=$1 name=$2 was_off=$3 was_on=$4 append=$5
	shift 5
	qemu "$name" "ANYKVM-STRESS-STATUS 0" "$dir/initrd" \
		"$append console=ttyS0 demo=stress secs=$secs" "$@"
	linux "$title" "$name" "$was_off" "$was_on"
}

printf '%-30s %19s %21s %19s\n' "" "emulator's" "processor's" "KVM 6.1, measured"
printf '%-30s %9s %9s %10s %10s %9s %9s\n' "QEMU, stressapptest ${secs} s" off on off on off on
stress "pc without VGA" qemu-pc 1085 0 "" -M pc -vga none
stress "the same, x2APIC off" qemu-xapic 6764 0 "" -M pc -vga none -cpu qemu64,-x2apic
stress "the same, irqchip off" qemu-off 13132 0 "" -M pc,kernel-irqchip=off -vga none
stress "the same, HPET" qemu-hpet 24435 0 clocksource=hpet -M pc -vga none
stress "pc with a VGA text console" qemu-vga 61736 35120 console=tty0 -M pc -vga std
qemu qemu-ide "CLIENT ide ok, 262144" "$build/clients/initrd" \
	"console=ttyS0 test=ide libata.dma=0" -M pc -vga none \
	-drive "if=none,id=d,format=raw,file=$dir/ide.img" -device ide-hd,drive=d
linux "256 KiB of IDE in PIO mode" qemu-ide 67187 66058
