// SPDX-License-Identifier: MIT
/*
 * anykvm PROGRAM ARGS...: run PROGRAM with the preload library. The variable stays in its
 * environment, so its children have it too. What cannot be preloaded is refused with a line.
 */
#include "launch.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../vmm/vmm.h"

#define PRELOAD	      "libanykvm-preload.so"
#define CANNOT_RUN    126 /* as shells say it */
#define NOT_FOUND     127
#define INTERPRETERS  4 /* a script's interpreter may be a script */

/* Beside the command (the build folder), or in PREFIX/lib when it is in PREFIX/bin. */
bool find_preload(char *out, size_t size)
{
	static const char *const places[] = {"%s/" PRELOAD, "%s/../lib/" PRELOAD};
	char self[PATH_MAX], try[PATH_MAX + 64], *slash;
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		return false;
	self[n] = 0;
	slash = strrchr(self, '/');
	if (!slash)
		return false;
	*slash = 0;
	for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
		char *real;

		snprintf(try, sizeof(try), places[i], self);
		real = realpath(try, NULL);
		if (!real)
			continue;
		snprintf(out, size, "%s", real);
		free(real);
		return true;
	}
	return false;
}

/*
 * Ours comes last: what is preloaded already sees the program's calls first, as if we were the
 * kernel. A sanitizer's runtime insists on it.
 */
static bool set_preload(void)
{
	const char *old = getenv("LD_PRELOAD");
	char lib[PATH_MAX], value[PATH_MAX + 4096];

	if (!find_preload(lib, sizeof(lib))) {
		vmm_error("cannot find %s beside this command or in ../lib", PRELOAD);
		return false;
	}
	if (strpbrk(lib, " :")) {
		vmm_error("%s: a path with a blank or a colon cannot be preloaded", lib);
		return false;
	}
	if (old && strstr(old, lib))
		return true; /* anykvm under anykvm */
	snprintf(value, sizeof(value), "%s%s%s", old ? old : "", old && *old ? ":" : "", lib);
	return !setenv("LD_PRELOAD", value, 1);
}

/* The file that execvp would run, or NULL with errno set. */
static char *find_program(const char *name)
{
	const char *path = getenv("PATH"), *end;
	static char file[PATH_MAX];

	if (strchr(name, '/'))
		return access(name, F_OK) ? NULL : strcpy(file, name);
	for (; path; path = *end ? end + 1 : NULL) {
		end = strchrnul(path, ':');
		snprintf(file, sizeof(file), "%.*s%s%s", (int)(end - path), path,
			 end == path ? "" : "/", name);
		if (!access(file, X_OK))
			return file;
	}
	errno = ENOENT;
	return NULL;
}

static bool has_privileges(const char *file)
{
	struct stat st;

	if (stat(file, &st))
		return false;
	return st.st_mode & (S_ISUID | S_ISGID) || getxattr(file, "security.capability", NULL, 0) > 0;
}

/* Why this ELF file cannot be preloaded, or NULL. */
static const char *elf_obstacle(int fd, const Elf64_Ehdr *e)
{
	char interp[64] = "";

	if (e->e_ident[EI_CLASS] != ELFCLASS64 || e->e_machine != EM_X86_64)
		return "is not an x86-64 program";
	for (unsigned int i = 0; i < e->e_phnum && !*interp; i++) {
		Elf64_Phdr p;

		if (pread(fd, &p, sizeof(p), e->e_phoff + i * sizeof(p)) != sizeof(p))
			break;
		if (p.p_type == PT_INTERP &&
		    pread(fd, interp, p.p_filesz < sizeof(interp) ? p.p_filesz : sizeof(interp) - 1,
			  p.p_offset) <= 0)
			break;
	}
	if (!*interp)
		return "is statically linked; only dynamically linked programs can be preloaded";
	return strstr(interp, "ld-linux-x86-64") ? NULL : "is not linked with the GNU C library";
}

/* "#!/bin/sh -e" -> "/bin/sh" in place, or NULL. */
static char *interpreter_of(char *text)
{
	char *end;

	if (strncmp(text, "#!", 2))
		return NULL;
	text += 2 + strspn(text + 2, " \t");
	end = text + strcspn(text, " \t\r\n");
	*end = 0;
	return *text ? text : NULL;
}

/* 0, or the exit status after a message. */
static int check_program(const char *file, unsigned int depth)
{
	union {
		char text[256];
		Elf64_Ehdr elf;
	} head = {.text = ""};
	const char *why = NULL;
	char *interp;
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return 0; /* execute permission without read permission: the kernel decides */
	n = read(fd, &head, sizeof(head) - 1);
	if (n >= (ssize_t)sizeof(head.elf) && !memcmp(head.text, ELFMAG, SELFMAG))
		why = elf_obstacle(fd, &head.elf);
	close(fd);
	if (!why && has_privileges(file))
		why = "is setuid, setgid or has capabilities; the dynamic linker preloads nothing into it";
	if (why) {
		vmm_error("%s %s", file, why);
		return CANNOT_RUN;
	}
	interp = interpreter_of(head.text);
	return interp && depth < INTERPRETERS ? check_program(interp, depth + 1) : 0;
}

int launch(char **argv)
{
	const char *file = find_program(argv[0]);
	int status;

	if (!file) {
		vmm_error("%s: %s", argv[0], errno == ENOENT ? "no such program or subcommand "
				"(see anykvm --help)" : strerror(errno));
		return NOT_FOUND;
	}
	status = check_program(file, 0);
	if (status)
		return status;
	if (!set_preload())
		return CANNOT_RUN;
	execvp(argv[0], argv);
	vmm_error("%s: %s", argv[0], strerror(errno));
	return CANNOT_RUN;
}
