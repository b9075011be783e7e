/* SPDX-License-Identifier: MIT */
/* Multiplexers beside what carries them: a round trip, what goes through, in calls of several
 * sizes, on one stream and on a thousand, how long it takes to open streams, and what they take of
 * memory, with nothing to do and with 4 KiB unread each.  In each round the carrier by itself and
 * the mux on it take turns. */
#include "bench_works.h"

enum {
    CROWD = 1000,
    IDLE = 10000,
    CALL = 64 * 1024, /* that the crowd writes at a time, if there is room */
};

enum { NOTHING, CARRIER_TRIP, CARRIER_RATE, CARRIER_CHUNKS };

static void
add_trips(struct bench_measurement *m, const char *mode)
{
    struct bench_work trip = {.bench = "mux-trip",
                              .impl = "carrier",
                              .word = "latency",
                              .pattern = "stream",
                              .key = "p50_ns",
                              .metric = "round_trip",
                              .unit = "us",
                              .scale = 1e-3,
                              .smaller_is_better = true,
                              .is_base = CARRIER_TRIP,
                              .beside = CARRIER_TRIP,
                              .size = 64,
                              .count = 1};

    bench_works_add(m, mode, &trip);
    trip.impl = "mux";
    trip.pattern = "mux";
    trip.is_base = NOTHING;
    bench_works_add(m, mode, &trip);
    trip.bench = trip.word = "mux-open";
    trip.pattern = NULL;
    trip.metric = "open_and_close";
    bench_works_add(m, mode, &trip);
}

static void
add_rates(struct bench_measurement *m, const char *mode, bool in_chunks)
{
    static const size_t usual[] = {16384, 65536, 262144, 1048576};
    const size_t *sizes = m->plan->sizes > 0 ? m->plan->size : usual;
    unsigned count = m->plan->sizes > 0 ? m->plan->sizes : sizeof usual / sizeof *usual;
    struct bench_work rate = {.bench = in_chunks ? "mux-rate-chunks" : "mux-rate",
                              .word = "throughput",
                              .key = "bytes_per_s",
                              .by_server = true,
                              .metric = "rate",
                              .unit = "byte/s",
                              .scale = 1,
                              .beside = in_chunks ? CARRIER_CHUNKS : CARRIER_RATE,
                              .count = 1};

    for (unsigned i = 0; i < count; i++) {
        rate.size = sizes[i];
        rate.impl = "carrier";
        rate.pattern = in_chunks ? "chunks" : "stream";
        rate.is_base = rate.beside;
        bench_works_add(m, mode, &rate);
        rate.impl = "mux";
        rate.pattern = in_chunks ? "mux-chunks" : "mux";
        rate.is_base = NOTHING;
        bench_works_add(m, mode, &rate);
    }
    if (in_chunks)
        return;
    rate.bench = "mux-1000";
    rate.word = "mux-crowd";
    rate.pattern = NULL;
    rate.count = CROWD;
    rate.also_key = rate.also_metric = "share";
    rate.also_unit = "x least";
    rate.counts_bytes = true;
    rate.size = CALL;
    bench_works_add(m, mode, &rate);
}

static void
add_opens(struct bench_measurement *m, const char *mode)
{
    const struct bench_work opens = {.bench = "mux-opens",
                                     .impl = "mux",
                                     .word = "mux-opens",
                                     .key = "rate",
                                     .metric = "opened_and_closed",
                                     .unit = "stream/s",
                                     .scale = 1,
                                     .size = 64,
                                     .count = 1};

    bench_works_add(m, mode, &opens);
}

/* Both ends are in one process over inproc: there is nothing to be told apart. */
static void
add_idle(struct bench_measurement *m, const char *mode)
{
    struct bench_work idle = {.bench = "mux-idle",
                              .impl = "mux",
                              .word = "mux-idle",
                              .key = "memory_per_stream",
                              .metric = "memory_opened",
                              .unit = "bytes",
                              .also_key = "memory_per_stream",
                              .also_metric = "memory_accepted",
                              .also_unit = "bytes",
                              .scale = 1,
                              .smaller_is_better = true,
                              .size = 64,
                              .count = m->plan->idle > 0 ? m->plan->idle : IDLE};

    if (bench_works_over(m, "inproc"))
        return;
    bench_works_add(m, mode, &idle);
    idle.bench = "mux-active";
    idle.key = idle.also_key = "active_per_stream";
    bench_works_add(m, mode, &idle);
}

static void
add_all(struct bench_measurement *m, const char *mode)
{
    add_trips(m, mode);
    add_rates(m, mode, false);
    if (bench_works_over(m, "inproc") || bench_works_over(m, "shm"))
        add_rates(m, mode, true);
    add_opens(m, mode);
    add_idle(m, mode);
}

void
bench_mux(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const struct bench_list waits = {3, {"block", "poll", "adaptive"}};

    bench_works("mux", p, r, rows, &waits, add_all);
}
