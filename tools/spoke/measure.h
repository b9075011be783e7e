/* SPDX-License-Identifier: MIT */
/* What it costs on this machine to wake somebody, and what spinning instead saves. */
#ifndef TOOLS_SPOKE_MEASURE_H
#define TOOLS_SPOKE_MEASURE_H

#include <stdbool.h>

struct measured {
    bool done;              /* else nothing below holds: no threads or descriptors to be had */
    double futex_wake_us;   /* through a futex: one thread wakes another, on another CPU if there is
                               one */
    double eventfd_wake_us; /* through an eventfd */
    double socket_block_us; /* 64 bytes there and back through a unix socket, both sides sleep */
    bool can_spin;          /* two CPUs; else the rest does not hold */
    double socket_spin_us;  /* the same, neither sleeps */
    double break_even_us;   /* what one wake-up costs more than spinning: spin as long, no longer */
};

/* Measure between two threads of this process.  Takes a few tenths of a second, at most about five.
 */
void measure(struct measured *out);

#endif
