// SPDX-License-Identifier: MIT
#include "../lib/lib.h"
void guest_main(void)
{
	traps_init();
	test_begin("a");
	check("x", 1, 1);
	TRY("ud2");
	want_trap("ud2", UD);
}
