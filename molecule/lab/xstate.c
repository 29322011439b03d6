/* Copyright (c) 2026, the indestructible.block authors
 * SPDX-License-Identifier: GPL-3.0-or-later
 *
 * Preloaded into User-Mode Linux. Its kernels before 6.13 keep a process's extended registers in 2696 bytes; on processors
 * whose state is larger (AMX) the host's kernel refuses to take back fewer bytes than it has (EFAULT) and no process starts.
 * So widen what is set: the state as it is, with the part that UML knows laid over it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

long ptrace(enum __ptrace_request request, ...)
{
	static long (*real)(enum __ptrace_request, ...);
	static char whole[65536] __attribute__((aligned(64)));
	struct iovec wide = { whole, sizeof(whole) }, *given;
	va_list arguments;
	pid_t pid;
	void *address, *data;

	va_start(arguments, request);
	pid = va_arg(arguments, pid_t);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);
	if (!real)
		real = dlsym(RTLD_NEXT, "ptrace");
	given = data;
	if (request != PTRACE_SETREGSET || (long)address != NT_X86_XSTATE ||
	    real(PTRACE_GETREGSET, pid, address, &wide) < 0 || wide.iov_len <= given->iov_len)
		return real(request, pid, address, data);
	memcpy(whole, given->iov_base, given->iov_len);
	return real(request, pid, address, &wide);
}
