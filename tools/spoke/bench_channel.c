/* SPDX-License-Identifier: MIT */
/* Channels beside a stream of the mux that carries them, and ports beside channels: a round trip
 * and what goes through of small messages, one a call; and, in the process, from thread to thread.
 */
#include "bench_works.h"

#include <string.h>

enum { MESSAGE = 64 };

enum { NOTHING, MUX_TRIP, MUX_RATE, CHANNEL_TRIP, CHANNEL_RATE };

static void
add_trips(struct bench_measurement *m, const char *mode)
{
    struct bench_work trip = {.bench = "channel-trip",
                              .impl = "mux",
                              .word = "latency",
                              .pattern = "mux",
                              .key = "p50_ns",
                              .metric = "round_trip",
                              .unit = "us",
                              .scale = 1e-3,
                              .smaller_is_better = true,
                              .is_base = MUX_TRIP,
                              .beside = MUX_TRIP,
                              .size = MESSAGE,
                              .count = 1};

    bench_works_add(m, mode, &trip);
    trip.impl = trip.pattern = "channel";
    trip.is_base = CHANNEL_TRIP;
    bench_works_add(m, mode, &trip);
    trip.bench = "port-trip";
    trip.impl = trip.pattern = "port";
    trip.is_base = NOTHING;
    trip.beside = CHANNEL_TRIP;
    bench_works_add(m, mode, &trip);
}

static void
add_rates(struct bench_measurement *m, const char *mode)
{
    struct bench_work rate = {.bench = "channel-rate",
                              .impl = "mux",
                              .word = "throughput",
                              .pattern = "mux",
                              .key = "rate",
                              .by_server = true,
                              .metric = "rate",
                              .unit = "message/s",
                              .scale = 1,
                              .is_base = MUX_RATE,
                              .beside = MUX_RATE,
                              .size = MESSAGE,
                              .count = 1};

    bench_works_add(m, mode, &rate);
    rate.impl = rate.pattern = "channel";
    rate.is_base = CHANNEL_RATE;
    bench_works_add(m, mode, &rate);
    rate.bench = "port-rate";
    rate.impl = rate.pattern = "port";
    rate.is_base = NOTHING;
    rate.beside = CHANNEL_RATE;
    bench_works_add(m, mode, &rate);
}

/* Without a session, which is what the shared engine is for: any thread may use any end. */
static void
add_pairs(struct bench_measurement *m, const char *mode)
{
    struct bench_work pair = {.bench = "channel-pair-64",
                              .impl = "channel",
                              .word = "throughput",
                              .pattern = "channel-pair",
                              .key = "rate",
                              .by_server = true,
                              .metric = "rate",
                              .unit = "message/s",
                              .scale = 1,
                              .size = MESSAGE,
                              .count = 1,
                              .depth = 64};

    if (!bench_works_over(m, "inproc") || strcmp(mode, "shared") != 0)
        return;
    bench_works_add(m, mode, &pair);
    pair.bench = "channel-pair-1024";
    pair.depth = 1024;
    bench_works_add(m, mode, &pair);
}

static void
add_all(struct bench_measurement *m, const char *mode)
{
    add_trips(m, mode);
    add_rates(m, mode);
    add_pairs(m, mode);
}

void
bench_channel(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const struct bench_list waits = {2, {"block", "adaptive"}};

    bench_works("channel", p, r, rows, &waits, add_all);
}
