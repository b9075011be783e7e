/* SPDX-License-Identifier: MIT */
/* What a process has used: wall clock, CPU time, memory. */
#ifndef BENCH_METER_H
#define BENCH_METER_H

#include <stdint.h>

/* Monotonic nanoseconds. */
uint64_t bench_now_ns(void);

/* CPU time of this process so far, user and kernel together, all threads. */
uint64_t bench_cpu_us(void);

/* This process's private pages, in bytes, without rings in shared memory.  0 if unknown. */
uint64_t bench_private_bytes(void);

/* The rings that this process writes: all pages that exist, also those that are reserved and that
 * nobody has touched, which no memory map shows.  Those of the peers are the peers'. */
uint64_t bench_ring_bytes(void);

/* One look at both clocks. */
struct bench_meter {
    uint64_t wall_ns;
    uint64_t cpu_us;
};

struct bench_meter bench_meter_read(void);

/* End the process with an error `seconds` from now, whatever its threads are stuck in. */
void bench_watchdog_start(unsigned seconds);

#endif
