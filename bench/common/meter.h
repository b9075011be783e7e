/* SPDX-License-Identifier: MIT */
/* What a process has used: wall clock, CPU time, memory. */
#ifndef BENCH_METER_H
#define BENCH_METER_H

#include <stdbool.h>
#include <stdint.h>

/* Monotonic nanoseconds. */
uint64_t bench_now_ns(void);

/* CPU time of this process so far, user and kernel together, all threads. */
uint64_t bench_cpu_us(void);

/* Memory that this process alone would give back if it ended: its private pages, in bytes; with
 * what it shares with others, too.  0 if unknown. */
uint64_t bench_memory_bytes(bool with_shared);

/* One look at both clocks. */
struct bench_meter {
    uint64_t wall_ns;
    uint64_t cpu_us;
};

struct bench_meter bench_meter_read(void);

/* End the process with an error `seconds` from now, whatever its threads are stuck in. */
void bench_watchdog_start(unsigned seconds);

#endif
