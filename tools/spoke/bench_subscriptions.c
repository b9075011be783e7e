/* SPDX-License-Identifier: MIT */
/* What a message from a PUB to one SUB costs each of them, in CPU time, when the SUB has 1 to
 * 100 000 subscriptions: of spoke and of the libraries that have both, in turn.
 *
 * Spoke's SUB filters what arrives, as NNG's does; ZeroMQ filters at the PUB, and looks again at
 * the SUB. */
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "bench_plan.h"

enum {
    TEXT_MAX = 24,
    STEPS = 4,
    CONTESTANTS_MAX = 4,
    MISSES = 15,      /* messages for nobody to each that is wanted */
    LIST_MAX = 10000, /* NNG has a list, which grows in the square of its length */
    SUBSCRIBE_SECONDS = 60,
};

static const unsigned steps[STEPS] = {1, 100, 10000, 100000};
static const char *const names[STEPS] = {"subscriptions-1", "subscriptions-100",
                                         "subscriptions-10000", "subscriptions-100000"};

/* What is noted of a run: the CPU time of each side, all messages wanted or few. */
enum cost { SUB_MATCH, SUB_MISS, PUB_MATCH, PUB_MISS, COSTS };

static const char *const metrics[COSTS] = {"sub_cpu_match", "sub_cpu_miss", "pub_cpu_match",
                                           "pub_cpu_miss"};

struct contestant {
    enum bench_kind kind;
    const char *program;
    const char *impl;
    const char *mode; /* "" if it has none */
    unsigned most;    /* subscriptions */
    double ns[STEPS][COSTS][BENCH_ROUNDS_MAX];
};

struct measurement {
    struct bench_plan *plan;
    struct bench_runner *runner;
    const char *transport;
    const char *wait;
    unsigned count;
    struct contestant contestants[CONTESTANTS_MAX];
};

static void
add(struct measurement *m, enum bench_kind kind, const char *program, const char *impl,
    const char *mode, unsigned most)
{
    struct contestant *c;

    if (m->count == CONTESTANTS_MAX || !bench_runner_has(m->runner, program))
        return;
    c = &m->contestants[m->count++];
    c->kind = kind;
    c->program = program;
    c->impl = impl;
    c->mode = mode;
    c->most = most;
}

static double
cpu_ns(const char *line, unsigned messages_each)
{
    return bench_line_number(line, "cpu_us") * 1e3 /
           (bench_line_number(line, "messages") * messages_each);
}

/* Costs per message that the PUB has sent.  NAN after a failure. */
static void
run_one(struct measurement *m, const struct contestant *c, unsigned step, unsigned misses,
        double *sub, double *pub)
{
    char count[TEXT_MAX], for_nobody[TEXT_MAX], duration[TEXT_MAX], limit[TEXT_MAX];
    const char *wait = c->kind == BENCH_PEER && strcmp(m->wait, "poll") != 0 ? "block" : m->wait;
    const char *args[] = {"--bench",  "fanout",    "--subscriptions", count,    "--misses",
                          for_nobody, "--seconds", duration,          "--wait", wait,
                          "--batch",  "64",        "--watchdog",      limit,    NULL,
                          NULL,       NULL};
    unsigned limit_s = (unsigned)(m->plan->seconds * 3) + SUBSCRIBE_SECONDS;
    struct bench_lines lines;

    snprintf(count, sizeof count, "%u", steps[step]);
    snprintf(for_nobody, sizeof for_nobody, "%u", misses);
    snprintf(duration, sizeof duration, "%.3f", m->plan->seconds);
    snprintf(limit, sizeof limit, "%u", limit_s);
    if (c->mode[0] != '\0') {
        args[14] = "--mode";
        args[15] = c->mode;
    }
    *sub = *pub = NAN;
    if (bench_runner_run(m->runner, c->program, m->transport, args, bench_plain_sockets,
                         limit_s + 5, &lines) == 0) {
        *sub = cpu_ns(lines.client, 1 + misses);
        *pub = cpu_ns(lines.server, 1 + misses);
    } else if (bench_runner_signal() == 0) {
        m->plan->failed++;
    }
}

static void
run_contestant(struct measurement *m, struct contestant *c, unsigned round)
{
    for (unsigned i = 0; i < STEPS && bench_goes_on(m->plan); i++) {
        double(*ns)[BENCH_ROUNDS_MAX] = c->ns[i];
        char text[160];
        for (unsigned j = 0; j < COSTS; j++)
            ns[j][round] = NAN;
        if (steps[i] > c->most)
            continue;
        snprintf(text, sizeof text, "subscriptions, %s: %u, round %u of %u, %s %s", m->transport,
                 steps[i], round + 1, m->plan->rounds, c->impl, c->mode);
        bench_progress(m->plan, text);
        run_one(m, c, i, 0, &ns[SUB_MATCH][round], &ns[PUB_MATCH][round]);
        run_one(m, c, i, MISSES, &ns[SUB_MISS][round], &ns[PUB_MISS][round]);
    }
}

static void
add_row(const struct measurement *m, struct contestant *c, unsigned step, unsigned cost,
        struct bench_rows *rows)
{
    struct bench_spread value = bench_spread_of(c->ns[step][cost], m->plan->rounds);
    struct bench_row *row;

    if (isnan(value.median) || (row = bench_rows_add(rows)) == NULL)
        return;
    row->bench = names[step];
    row->kind = c->kind;
    snprintf(row->impl, sizeof row->impl, "%s", c->impl);
    snprintf(row->transport, sizeof row->transport, "%s", m->transport);
    snprintf(row->via, sizeof row->via, "%s", m->transport);
    snprintf(row->mode, sizeof row->mode, "%s", c->mode);
    snprintf(row->wait, sizeof row->wait, "%s", m->wait);
    row->size = 64;
    row->metric = metrics[cost];
    row->unit = "ns";
    row->smaller_is_better = true;
    row->value = value;
    row->group = rows->groups;
}

static void
measure(struct measurement *m, struct bench_rows *rows)
{
    for (unsigned i = 0; i < m->plan->modes.count; i++)
        add(m, BENCH_SPOKE, "bench-spoke", "spoke", m->plan->modes.words[i], UINT32_MAX);
    if (m->plan->with_peers) {
        add(m, BENCH_PEER, "bench-peer-zeromq", "zeromq", "", UINT32_MAX);
        add(m, BENCH_PEER, "bench-peer-nng", "nng", "", LIST_MAX);
    }
    for (unsigned round = 0; round < m->plan->rounds; round++)
        for (unsigned i = 0; i < m->count && bench_goes_on(m->plan); i++)
            run_contestant(m, &m->contestants[round % 2 == 0 ? i : m->count - 1 - i], round);
    bench_progress(m->plan, NULL);
    if (!bench_goes_on(m->plan))
        return;
    for (unsigned cost = 0; cost < COSTS; cost++)
        for (unsigned i = 0; i < m->count; i++)
            for (unsigned step = 0; step < STEPS; step++)
                add_row(m, &m->contestants[i], step, cost, rows);
    bench_print_group(m->plan->table, rows, rows->groups);
    rows->groups++;
}

void
bench_subscriptions(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    const struct bench_list *transports = bench_transports(p, false);
    static struct measurement m;

    for (unsigned t = 0; t < transports->count && bench_goes_on(p); t++) {
        if (strcmp(transports->words[t], "inproc") == 0)
            continue;
        memset(&m, 0, sizeof m);
        m.plan = p;
        m.runner = r;
        m.transport = transports->words[t];
        m.wait = p->waits.count > 0 ? p->waits.words[0] : "block";
        measure(&m, rows);
    }
}
