/* SPDX-License-Identifier: MIT */
/* Let system calls of this process, in all its threads, fail, or count them, from inside: a seccomp
 * filter turns them into SIGSYS, whose handler makes the call after all, or not.  A thread that
 * blocks SIGSYS, as the library's do, ends the process with such a call.  Cannot be taken back: use
 * it in a child. */
#ifndef TESTS_FAULT_INJECT_H
#define TESTS_FAULT_INJECT_H

#include <stdbool.h>

/* False where this processor is not supported. */
bool inject_is_supported(void);

/* Catch exactly these system calls, or all but these.  False if the kernel refuses. */
bool inject_only(const int *numbers, unsigned count);
bool inject_all_but(const int *numbers, unsigned count);

/* From now on: let the `when`-th call (from 1) of `number` fail with `error`. */
void inject_arm(int number, int when, int error);
void inject_disarm(void);
/* Has the armed failure happened? */
bool inject_fired(void);

/* How many calls were caught, and the last one's number. */
long inject_caught(int *last);

#endif
