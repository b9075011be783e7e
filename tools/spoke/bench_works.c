/* SPDX-License-Identifier: MIT */
/* Runs works in turn, forwards in one round and backwards in the next, and compares what came out:
 * ratios are those of one round. */
#include "bench_works.h"

#include <math.h>
#include <string.h>

enum { TEXT_MAX = 24, OPEN_SECONDS = 40 };

bool
bench_works_over(const struct bench_measurement *m, const char *transport)
{
    return strcmp(m->transport, transport) == 0;
}

void
bench_works_add(struct bench_measurement *m, const char *mode, const struct bench_work *like)
{
    struct bench_work *w;

    if (m->count == BENCH_WORKS_MAX)
        return;
    w = &m->works[m->count++];
    *w = *like;
    w->mode = mode;
}

/* ---- running ---- */

static int
run_program(struct bench_measurement *m, const struct bench_work *w, struct bench_lines *lines)
{
    char size[TEXT_MAX], count[TEXT_MAX], duration[TEXT_MAX], limit[TEXT_MAX], depth[TEXT_MAX];
    unsigned limit_s = (unsigned)(m->plan->seconds * 3) + OPEN_SECONDS, last = 16;
    const char *args[BENCH_ARGS_MAX] = {
        "--bench", w->word, "--mode",        w->mode, "--wait",    m->wait,  "--size",     size,
        "--touch", "all",   "--connections", count,   "--seconds", duration, "--watchdog", limit};

    snprintf(size, sizeof size, "%zu", w->size);
    snprintf(count, sizeof count, "%u", w->count);
    snprintf(duration, sizeof duration, "%.3f", m->plan->seconds);
    snprintf(limit, sizeof limit, "%u", limit_s);
    snprintf(depth, sizeof depth, "%u", w->depth);
    if (w->pattern != NULL) {
        args[last++] = "--pattern";
        args[last++] = w->pattern;
    }
    if (w->depth > 0) {
        args[last++] = "--depth";
        args[last++] = depth;
    }
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
run_one(struct bench_measurement *m, struct bench_work *w, unsigned round)
{
    struct bench_lines lines;
    char text[160];

    snprintf(text, sizeof text, "%s, %s, wait %s: round %u of %u, %s %s %s", m->what, m->transport,
             m->wait, round + 1, m->plan->rounds, w->bench, w->impl, w->mode);
    bench_progress(m->plan, text);
    w->value[round] = w->also[round] = w->cpu[round] = NAN;
    if (run_program(m, w, &lines) == 0) {
        const char *line = w->by_server ? lines.server : lines.client;

        w->value[round] = bench_line_number(line, w->key) * w->scale;
        if (w->also_key != NULL)
            w->also[round] = bench_line_number(lines.server, w->also_key);
        w->cpu[round] = cpu_us(&lines);
    } else if (bench_runner_signal() == 0) {
        m->plan->failed++;
    }
}

/* ---- results ---- */

static struct bench_spread
spread_of(const struct bench_measurement *m, const double *values)
{
    double copy[BENCH_ROUNDS_MAX];

    memcpy(copy, values, m->plan->rounds * sizeof *copy);
    return bench_spread_of(copy, m->plan->rounds);
}

static bool
is_better(const struct bench_measurement *m, const struct bench_work *a, const struct bench_work *b)
{
    double x = spread_of(m, a->value).median, y = spread_of(m, b->value).median;

    return isnan(y) || (a->smaller_is_better ? x < y : x > y);
}

/* What it is compared with, at the size that is best for that, or NULL. */
static const struct bench_work *
base_of(const struct bench_measurement *m, const struct bench_work *w)
{
    const struct bench_work *best = NULL;

    for (unsigned i = 0; i < m->count && w->beside != 0; i++) {
        const struct bench_work *base = &m->works[i];

        if (base->is_base == w->beside && strcmp(base->mode, w->mode) == 0 &&
            (best == NULL || is_better(m, base, best)))
            best = base;
    }
    return best;
}

/* Of several sizes only the best is shown. */
static bool
is_best_size(const struct bench_measurement *m, const struct bench_work *w)
{
    for (unsigned i = 0; i < m->count; i++) {
        const struct bench_work *other = &m->works[i];

        if (other != w && strcmp(other->bench, w->bench) == 0 &&
            strcmp(other->impl, w->impl) == 0 && strcmp(other->mode, w->mode) == 0 &&
            (is_better(m, other, w) || (other < w && !is_better(m, w, other))))
            return false;
    }
    return true;
}

static struct bench_row *
add_row(const struct bench_measurement *m, const struct bench_work *w, const char *metric,
        const char *unit, const double *values, struct bench_rows *rows)
{
    struct bench_spread value = spread_of(m, values);
    struct bench_row *row;

    if (isnan(value.median) || (row = bench_rows_add(rows)) == NULL)
        return NULL;
    row->bench = w->bench;
    row->kind = w->is_base != 0 && w->is_base == w->beside ? BENCH_BESIDE : BENCH_SPOKE;
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
add_rows(const struct bench_measurement *m, const struct bench_work *w, struct bench_rows *rows)
{
    const struct bench_work *base = base_of(m, w);
    struct bench_row *row = add_row(m, w, w->metric, w->unit, w->value, rows);
    double ratio[BENCH_ROUNDS_MAX];

    if (row != NULL && base != NULL) {
        for (unsigned i = 0; i < m->plan->rounds; i++)
            ratio[i] = w->value[i] / base->value[i];
        row->ratio_raw = bench_spread_of(ratio, m->plan->rounds);
    }
    if (row != NULL && w->counts_bytes)
        row->cpu_us_per_msg = spread_of(m, w->cpu).median * (double)w->size;
    else if (row != NULL && w->count == 1)
        row->cpu_us_per_msg = spread_of(m, w->cpu).median;
    if (w->also_key != NULL)
        add_row(m, w, w->also_metric, w->also_unit, w->also, rows);
}

/* ---- all of it ---- */

static void
measure(struct bench_measurement *m, struct bench_rows *rows)
{
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
bench_works(const char *what, struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows,
            const struct bench_list *waits,
            void (*add)(struct bench_measurement *m, const char *mode))
{
    const struct bench_list *transports = bench_transports(p, false);
    static struct bench_measurement m;

    if (p->waits.count > 0)
        waits = &p->waits;
    for (unsigned t = 0; t < transports->count; t++) {
        for (unsigned w = 0; w < waits->count && bench_goes_on(p); w++) {
            memset(&m, 0, sizeof m);
            m.what = what;
            m.plan = p;
            m.runner = r;
            m.transport = transports->words[t];
            m.wait = waits->words[w];
            for (unsigned i = 0; i < p->modes.count; i++)
                add(&m, p->modes.words[i]);
            measure(&m, rows);
        }
    }
}
