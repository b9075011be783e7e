/* SPDX-License-Identifier: MIT */
/* Signals that ask the program to end: instead of dying it leaves its waits, cleans up, and dies
 * then. */
#ifndef TOOLS_SPOKE_STOP_H
#define TOOLS_SPOKE_STOP_H

#include <stdbool.h>

/* Catch SIGINT, SIGTERM and SIGHUP; a second one of a kind kills at once.  SIGPIPE is ignored:
 * writes fail with EPIPE.  Gives a descriptor that becomes readable, and stays so, when one
 * arrived; -1: errno. */
int stop_init(void);

/* Between these two calls new threads are started with the signals blocked: the main thread gets
 * them, and its system calls are interrupted. */
void stop_hold(void);
void stop_release(void);

/* The signal that arrived, or 0. */
int stop_signal(void);

/* As if `signal` had arrived. */
void stop_with(int signal);

/* End by the signal that arrived, so that whoever started us sees it; returns if none did. */
void stop_finish(void);

#endif
