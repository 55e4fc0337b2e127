# SPDX-License-Identifier: MIT
# Sourced by the tests of `anykvm boot`: kernels made of a header and next to nothing behind it, in $dir.

# poke FILE OFFSET BYTES(as of printf): the fields of the setup header (boot.rst)
poke() {
	printf "$3" | dd of="$dir/$1" bs=1 seek=$(($2)) conv=notrunc status=none
}

# A kernel that passes all checks: 64 KiB of code, wants 16 MiB at 16 MiB.
make_kernel() {
	head -c $((1024 + 65536)) /dev/zero > "$dir/$1"
	poke "$1" 0x1f1 '\001'			# setup_sects
	poke "$1" 0x1f4 '\000\020\000\000'	# syssize
	poke "$1" 0x1fe '\125\252\353\152HdrS\017\002'	# boot_flag, jump, magic, 2.15
	poke "$1" 0x211 '\001'			# loadflags: LOADED_HIGH
	poke "$1" 0x22c '\377\377\377\177'	# initrd_addr_max
	poke "$1" 0x230 '\000\000\040\000\001'	# kernel_alignment, relocatable
	poke "$1" 0x236 '\001'			# xloadflags: XLF_KERNEL_64
	poke "$1" 0x238 '\377\007\000\000'	# cmdline_size
	poke "$1" 0x248 '\000\002\000\000\000\376\000\000'	# payload: 0x200, 0xfe00 bytes
	poke "$1" 0x258 '\000\000\000\001'	# pref_address
	poke "$1" 0x260 '\000\000\000\001'	# init_size
}
