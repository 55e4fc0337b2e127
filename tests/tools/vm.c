// SPDX-License-Identifier: MIT
/*
 * A VM to look at. vm count N: N exits by OUT, then waits; vm spin: a guest that never exits. Says
 * "ready" when it is there; ends with its standard input.
 */
#include "../api/real.h"

#include <pthread.h>

static void *until_eof(void *arg)
{
	char c;

	while (read(0, &c, 1) > 0)
		;
	(void)arg;
	_exit(0);
}

int main(int argc, char **argv)
{
	bool spin = argc == 2 && !strcmp(argv[1], "spin");
	int n = argc == 3 ? atoi(argv[2]) : 0;
	struct machine m;
	pthread_t t;

	api_args(1, argv);
	machine_open(&m, GUEST(0xee, 0xeb, 0xfd)); /* l: out dx,al; jmp l */
	if (spin)
		memcpy(m.ram + CODE, (uint8_t[]){0x40, 0xeb, 0xfd}, 3); /* l: inc ax; jmp l */
	for (int k = 0; k < n; k++)
		must(api->ioctl(m.vcpu, KVM_RUN, 0), "KVM_RUN");
	pthread_create(&t, NULL, until_eof, NULL);
	puts("ready");
	fflush(stdout);
	if (spin)
		must(api->ioctl(m.vcpu, KVM_RUN, 0), "KVM_RUN");
	for (;;)
		pause();
}
