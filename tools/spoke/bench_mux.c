/* SPDX-License-Identifier: MIT */
/* Multiplexers beside what carries them: a round trip, what goes through, in calls of several
 * sizes, on one stream and on a thousand, how long it takes to open streams, and what they take of
 * memory.  In each round the carrier by itself and the mux on it take turns; ratios are those of
 * one round. */
#include <math.h>
#include <string.h>

#include "bench_plan.h"

enum {
    TEXT_MAX = 24,
    WORKS_MAX = 160,
    CROWD = 1000,
    IDLE = 10000,
    CALL = 64 * 1024, /* that the crowd writes at a time, if there is room */
    OPEN_SECONDS = 40,
};

/* What a result is compared with: the best of that metric of its mode. */
enum beside { NOTHING, CARRIER_TRIP, CARRIER_RATE, CARRIER_CHUNKS, BASES };

/* One program with its arguments. */
struct work {
    const char *bench; /* the row's */
    const char *impl;
    const char *mode;
    const char *word, *pattern; /* the program's; pattern NULL: none */
    const char *key;            /* of its result line; what is measured */
    bool by_server;             /* … whose */
    const char *metric, *unit;
    double scale;
    bool smaller_is_better;
    bool is_crowd;
    enum beside is_base, beside;
    size_t size;
    unsigned count;
    double value[BENCH_ROUNDS_MAX], other[BENCH_ROUNDS_MAX], cpu[BENCH_ROUNDS_MAX];
};

struct measurement {
    struct bench_plan *plan;
    struct bench_runner *runner;
    const char *transport;
    const char *wait;
    unsigned count;
    struct work works[WORKS_MAX];
};

/* ---- what there is to do ---- */

static bool
is_transport(const struct measurement *m, const char *transport)
{
    return strcmp(m->transport, transport) == 0;
}

static struct work *
add(struct measurement *m, const char *mode, const struct work *like)
{
    struct work *w;

    if (m->count == WORKS_MAX)
        return NULL;
    w = &m->works[m->count++];
    *w = *like;
    w->mode = mode;
    return w;
}

static void
add_trips(struct measurement *m, const char *mode)
{
    struct work trip = {.bench = "mux-trip",
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

    add(m, mode, &trip);
    trip.impl = "mux";
    trip.pattern = "mux";
    trip.is_base = NOTHING;
    add(m, mode, &trip);
    trip.bench = trip.word = "mux-open";
    trip.pattern = NULL;
    trip.metric = "open_and_close";
    add(m, mode, &trip);
}

static void
add_rates(struct measurement *m, const char *mode, bool in_chunks)
{
    static const size_t usual[] = {16384, 65536, 262144, 1048576};
    const size_t *sizes = m->plan->sizes > 0 ? m->plan->size : usual;
    unsigned count = m->plan->sizes > 0 ? m->plan->sizes : sizeof usual / sizeof *usual;
    struct work rate = {.bench = in_chunks ? "mux-rate-chunks" : "mux-rate",
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
        add(m, mode, &rate);
        rate.impl = "mux";
        rate.pattern = in_chunks ? "mux-chunks" : "mux";
        rate.is_base = NOTHING;
        add(m, mode, &rate);
    }
    if (in_chunks)
        return;
    rate.bench = "mux-1000";
    rate.word = "mux-crowd";
    rate.pattern = NULL;
    rate.count = CROWD;
    rate.is_crowd = true;
    rate.size = CALL;
    add(m, mode, &rate);
}

static void
add_opens(struct measurement *m, const char *mode)
{
    const struct work opens = {.bench = "mux-opens",
                               .impl = "mux",
                               .word = "mux-opens",
                               .key = "rate",
                               .metric = "opened_and_closed",
                               .unit = "stream/s",
                               .scale = 1,
                               .size = 64,
                               .count = 1};

    add(m, mode, &opens);
}

/* Both ends are in one process over inproc: there is nothing to be told apart. */
static void
add_idle(struct measurement *m, const char *mode)
{
    struct work idle = {.bench = "mux-idle",
                        .impl = "mux",
                        .word = "mux-idle",
                        .key = "memory_per_stream",
                        .metric = "memory_opened",
                        .unit = "bytes",
                        .scale = 1,
                        .smaller_is_better = true,
                        .size = 64,
                        .count = m->plan->idle > 0 ? m->plan->idle : IDLE};

    if (!is_transport(m, "inproc"))
        add(m, mode, &idle);
}

/* ---- running ---- */

static int
run_program(struct measurement *m, const struct work *w, struct bench_lines *lines)
{
    char size[TEXT_MAX], count[TEXT_MAX], duration[TEXT_MAX], limit[TEXT_MAX];
    unsigned limit_s = (unsigned)(m->plan->seconds * 3) + OPEN_SECONDS;
    const char *args[] = {"--bench",       w->word,     "--mode",    w->mode,   "--wait",
                          m->wait,         "--size",    size,        "--touch", "all",
                          "--connections", count,       "--seconds", duration,  "--watchdog",
                          limit,           "--pattern", w->pattern,  NULL};

    snprintf(size, sizeof size, "%zu", w->size);
    snprintf(count, sizeof count, "%u", w->count);
    snprintf(duration, sizeof duration, "%.3f", m->plan->seconds);
    snprintf(limit, sizeof limit, "%u", limit_s);
    if (w->pattern == NULL)
        args[16] = NULL;
    return bench_runner_run(m->runner, "bench-spoke", m->transport, args, NULL, limit_s + 5, lines);
}

/* Of both sides, for each byte, stream or round trip; NAN where it is not told. */
static double
cpu_us(const struct bench_lines *lines)
{
    double of_server = bench_line_number(lines->server, "cpu_us"),
           of_client = bench_line_number(lines->client, "cpu_us"),
           messages = bench_line_number(lines->server, "messages"),
           sent = bench_line_number(lines->client, "messages");

    if (messages == 0) /* of round trips who asks counts */
        messages = sent;
    return of_server / messages + (sent > 0 ? of_client / sent : 0);
}

static void
run_one(struct measurement *m, struct work *w, unsigned round)
{
    struct bench_lines lines;
    char text[160];

    snprintf(text, sizeof text, "mux, %s, wait %s: round %u of %u, %s %s %s", m->transport, m->wait,
             round + 1, m->plan->rounds, w->bench, w->impl, w->mode);
    bench_progress(m->plan, text);
    w->value[round] = w->other[round] = w->cpu[round] = NAN;
    if (run_program(m, w, &lines) == 0) {
        const char *line = w->by_server ? lines.server : lines.client;

        w->value[round] = bench_line_number(line, w->key) * w->scale;
        w->other[round] = w->is_crowd ? bench_line_number(line, "share")
                                      : bench_line_number(lines.server, w->key);
        w->cpu[round] = cpu_us(&lines);
    } else if (bench_runner_signal() == 0) {
        m->plan->failed++;
    }
}

/* ---- results ---- */

static struct bench_spread
spread_of(const struct measurement *m, const double *values)
{
    double copy[BENCH_ROUNDS_MAX];

    memcpy(copy, values, m->plan->rounds * sizeof *copy);
    return bench_spread_of(copy, m->plan->rounds);
}

static bool
is_better(const struct measurement *m, const struct work *a, const struct work *b)
{
    double x = spread_of(m, a->value).median, y = spread_of(m, b->value).median;

    return isnan(y) || (a->smaller_is_better ? x < y : x > y);
}

/* The carrier at the size that is best for it, or NULL. */
static const struct work *
base_of(const struct measurement *m, const struct work *w)
{
    const struct work *best = NULL;

    for (unsigned i = 0; i < m->count && w->beside != NOTHING; i++) {
        const struct work *base = &m->works[i];

        if (base->is_base == w->beside && strcmp(base->mode, w->mode) == 0 &&
            (best == NULL || is_better(m, base, best)))
            best = base;
    }
    return best;
}

/* Of several sizes only the best is shown. */
static bool
is_best_size(const struct measurement *m, const struct work *w)
{
    for (unsigned i = 0; i < m->count; i++) {
        const struct work *other = &m->works[i];

        if (other != w && strcmp(other->bench, w->bench) == 0 &&
            strcmp(other->impl, w->impl) == 0 && strcmp(other->mode, w->mode) == 0 &&
            (is_better(m, other, w) || (other < w && !is_better(m, w, other))))
            return false;
    }
    return true;
}

static struct bench_row *
add_row(const struct measurement *m, const struct work *w, const char *metric, const char *unit,
        const double *values, struct bench_rows *rows)
{
    struct bench_spread value = spread_of(m, values);
    struct bench_row *row;

    if (isnan(value.median) || (row = bench_rows_add(rows)) == NULL)
        return NULL;
    row->bench = w->bench;
    row->kind = w->is_base != NOTHING ? BENCH_BESIDE : BENCH_SPOKE;
    snprintf(row->impl, sizeof row->impl, "%s", w->impl);
    snprintf(row->transport, sizeof row->transport, "%s", m->transport);
    snprintf(row->via, sizeof row->via, "%s", m->transport);
    snprintf(row->mode, sizeof row->mode, "%s", w->mode);
    snprintf(row->wait, sizeof row->wait, "%s", m->wait);
    row->size = w->size;
    row->metric = metric;
    row->unit = unit;
    row->smaller_is_better = w->smaller_is_better;
    row->value = value;
    row->group = rows->groups;
    return row;
}

static void
add_rows(const struct measurement *m, const struct work *w, struct bench_rows *rows)
{
    const struct work *base = base_of(m, w);
    struct bench_row *row = add_row(m, w, w->metric, w->unit, w->value, rows);
    double ratio[BENCH_ROUNDS_MAX];

    if (row != NULL && base != NULL) {
        for (unsigned i = 0; i < m->plan->rounds; i++)
            ratio[i] = w->value[i] / base->value[i];
        row->ratio_raw = bench_spread_of(ratio, m->plan->rounds);
    }
    if (row != NULL && w->count == 1)
        row->cpu_us_per_msg = spread_of(m, w->cpu).median;
    if (w->is_crowd) {
        if (row != NULL) /* bytes, there: of its calls */
            row->cpu_us_per_msg = spread_of(m, w->cpu).median * (double)w->size;
        add_row(m, w, "share", "x least", w->other, rows);
    } else if (strcmp(w->bench, "mux-idle") == 0) {
        add_row(m, w, "memory_accepted", w->unit, w->other, rows);
    }
}

static void
measure(struct measurement *m, struct bench_rows *rows)
{
    for (unsigned i = 0; i < m->plan->modes.count; i++) {
        const char *mode = m->plan->modes.words[i];

        add_trips(m, mode);
        add_rates(m, mode, false);
        if (is_transport(m, "inproc") || is_transport(m, "shm"))
            add_rates(m, mode, true);
        add_opens(m, mode);
        add_idle(m, mode);
    }
    for (unsigned round = 0; round < m->plan->rounds; round++)
        for (unsigned i = 0; i < m->count && bench_goes_on(m->plan); i++)
            run_one(m, &m->works[round % 2 == 0 ? i : m->count - 1 - i], round);
    bench_progress(m->plan, NULL);
    if (!bench_goes_on(m->plan))
        return;
    for (unsigned i = 0; i < m->count; i++)
        if (is_best_size(m, &m->works[i]))
            add_rows(m, &m->works[i], rows);
    bench_print_group(m->plan->table, rows, rows->groups);
    rows->groups++;
}

void
bench_mux(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const struct bench_list all = {3, {"block", "poll", "adaptive"}};
    const struct bench_list *waits = p->waits.count > 0 ? &p->waits : &all;
    static struct measurement m;

    for (unsigned t = 0; t < p->transports.count; t++) {
        for (unsigned w = 0; w < waits->count && bench_goes_on(p); w++) {
            memset(&m, 0, sizeof m);
            m.plan = p;
            m.runner = r;
            m.transport = p->transports.words[t];
            m.wait = waits->words[w];
            measure(&m, rows);
        }
    }
}
