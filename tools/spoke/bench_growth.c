/* SPDX-License-Identifier: MIT */
/* How cost grows with the number of connections of one socket: memory and round-trip time with many
 * idle ones, and CPU time per request with 1 to 1000 busy ones.  Spoke only: it is compared with
 * itself. */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "bench_plan.h"

enum {
    TEXT_MAX = 24,
    STEPS = 4,
    OPEN_SECONDS = 60,
    OPEN_SECONDS_TLS = 240, /* each shakes hands */
    IDLE = 10000,
    IDLE_SHM = 1000, /* each has several descriptors, and memory at both ends */
};

/* ipc in shared memory: shown beside, the targets are about sockets. */
static const char *const moves[] = {"SPOKE_UPGRADE=now", NULL};

static const unsigned busy[STEPS] = {1, 10, 100, 1000};

/* What a run is about; the words are the plan's. */
struct growth {
    struct bench_plan *plan;
    struct bench_runner *runner;
    struct bench_rows *rows;
    const char *transport;
    const char *mode;
    const char *wait;
    unsigned idle;
    enum bench_kind kind;
    const char *impl;
    const char *const *env;
};

static int
run_one(struct growth *g, const char *bench, unsigned connections, unsigned round,
        struct bench_lines *lines)
{
    char count[TEXT_MAX], duration[TEXT_MAX], limit[TEXT_MAX], text[160];
    const char *args[] = {"--bench", bench,   "--connections", count,   "--seconds",  duration,
                          "--mode",  g->mode, "--wait",        g->wait, "--watchdog", limit,
                          NULL};
    unsigned limit_s = (unsigned)(g->plan->seconds * 6) +
                       (bench_transport_has_tls(g->transport) ? OPEN_SECONDS_TLS : OPEN_SECONDS);
    int rc;

    snprintf(count, sizeof count, "%u", connections);
    snprintf(duration, sizeof duration, "%.3f", g->plan->seconds);
    snprintf(limit, sizeof limit, "%u", limit_s);
    snprintf(text, sizeof text, "%s, %s, %s: %u connections, round %u of %u", bench, g->transport,
             g->mode, connections, round + 1, g->plan->rounds);
    bench_progress(g->plan, text);
    rc = bench_runner_run(g->runner, "bench-spoke", g->transport, args, g->env, limit_s + 5, lines);
    if (rc != 0 && bench_runner_signal() == 0)
        g->plan->failed++;
    return rc;
}

static void
add_row(struct growth *g, const char *bench, const char *metric, const char *unit, double *values,
        unsigned n)
{
    struct bench_row *row = bench_rows_add(g->rows);

    if (row == NULL)
        return;
    row->bench = bench;
    row->kind = g->kind;
    snprintf(row->impl, sizeof row->impl, "%s", g->impl);
    snprintf(row->transport, sizeof row->transport, "%s", g->transport);
    snprintf(row->via, sizeof row->via, "%s", g->transport);
    snprintf(row->mode, sizeof row->mode, "%s", g->mode);
    snprintf(row->wait, sizeof row->wait, "%s", g->wait);
    row->size = 64;
    row->metric = metric;
    row->unit = unit;
    row->smaller_is_better = true;
    row->value = bench_spread_of(values, n);
    row->group = g->rows->groups;
}

static void
measure_idle(struct growth *g)
{
    double memory[BENCH_ROUNDS_MAX], one[BENCH_ROUNDS_MAX], many[BENCH_ROUNDS_MAX],
        growth[BENCH_ROUNDS_MAX];
    unsigned n = 0;

    for (unsigned round = 0; round < g->plan->rounds; round++) {
        struct bench_lines lines;
        if (run_one(g, "connections", g->idle, round, &lines) != 0)
            return;
        if (g->env == moves && bench_line_number(lines.server, "moved") < g->idle + 1) {
            g->plan->failed++; /* other figures than the row's name says */
            return;
        }
        memory[n] = (bench_line_number(lines.server, "memory_many") -
                     bench_line_number(lines.server, "memory_one") +
                     bench_line_number(lines.client, "rings")) /
                    g->idle;
        one[n] = bench_line_number(lines.client, "p50_one_ns") / 1e3;
        many[n] = bench_line_number(lines.client, "p50_many_ns") / 1e3;
        growth[n] = many[n] / one[n];
        n++;
    }
    add_row(g, "connections", "memory_per_connection", "bytes", memory, n);
    add_row(g, "connections", "round_trip_one", "us", one, n);
    add_row(g, "connections", "round_trip_many", "us", many, n);
    add_row(g, "connections", "round_trip_growth", "x one connection", growth, n);
}

/* How much dearer a request is with some number of connections than with a smaller one: the worst
 * case.  1 or less: never dearer.  Not simply 1000 beside 1: one connection has one request at a
 * time and pays for every wake-up alone, which would hide much. */
static double
worst_growth(const double cpu[STEPS])
{
    double worst = 0;

    for (unsigned more = 1; more < STEPS; more++)
        for (unsigned fewer = 0; fewer < more; fewer++)
            worst = fmax(worst, cpu[more] / cpu[fewer]);
    return worst;
}

static void
measure_busy(struct growth *g)
{
    static const char *const names[STEPS] = {"pipes-1", "pipes-10", "pipes-100", "pipes-1000"};
    double cpu[STEPS][BENCH_ROUNDS_MAX], growth[BENCH_ROUNDS_MAX];
    unsigned n = 0;

    for (unsigned round = 0; round < g->plan->rounds; round++, n++) {
        double now[STEPS];
        for (unsigned i = 0; i < STEPS; i++) {
            struct bench_lines lines;
            if (run_one(g, "pipes", busy[i], round, &lines) != 0)
                return;
            now[i] = bench_line_number(lines.server, "cpu_us") /
                     bench_line_number(lines.server, "messages");
            cpu[i][n] = now[i];
        }
        growth[n] = worst_growth(now);
    }
    for (unsigned i = 0; i < STEPS; i++)
        add_row(g, names[i], "cpu_per_request", "us", cpu[i], n);
    add_row(g, "pipes", "cpu_growth", "x fewer connections", growth, n);
}

/* The same connections after they have moved.  Busy ones are what shm's are. */
static void
measure_moved(struct growth *g)
{
    struct growth moved = *g;

    moved.kind = BENCH_BESIDE;
    moved.impl = "spoke-moved";
    moved.env = moves;
    moved.idle = g->plan->idle > 0 ? g->plan->idle : IDLE_SHM;
    measure_idle(&moved);
}

static void
measure(struct growth *g)
{
    measure_idle(g);
    if (bench_goes_on(g->plan) && strcmp(g->transport, "ipc") == 0)
        measure_moved(g);
    if (bench_goes_on(g->plan))
        measure_busy(g);
    bench_progress(g->plan, NULL);
    if (!bench_goes_on(g->plan))
        return;
    bench_print_group(g->plan->table, g->rows, g->rows->groups);
    g->rows->groups++;
}

void
bench_growth(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const char shm[] = "shm";
    const struct bench_list *transports = bench_transports(p, true);
    const char *wait = p->waits.count > 0 ? p->waits.words[0] : "block";

    for (unsigned t = 0; t < transports->count; t++) {
        const char *transport = transports->words[t];
        bool is_ipc = strcmp(transport, "ipc") == 0;

        if (strcmp(transport, "inproc") == 0)
            continue;
        for (unsigned m = 0; m < p->modes.count && bench_goes_on(p); m++) {
            struct growth g = {.plan = p,
                               .runner = r,
                               .rows = rows,
                               .transport = transport,
                               .mode = p->modes.words[m],
                               .wait = wait,
                               .kind = BENCH_SPOKE,
                               .impl = "spoke",
                               .env = is_ipc ? bench_plain_sockets : NULL,
                               .idle = p->idle > 0                   ? p->idle
                                       : strcmp(transport, shm) == 0 ? IDLE_SHM
                                                                     : IDLE};
            measure(&g);
        }
    }
}
