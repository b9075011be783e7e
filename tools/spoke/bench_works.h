/* SPDX-License-Identifier: MIT */
/* Works that are compared with each other within a round: programs that take turns, and the row, or
 * two, that each makes of what it found out. */
#ifndef TOOL_BENCH_WORKS_H
#define TOOL_BENCH_WORKS_H

#include "bench_plan.h"

enum { BENCH_WORKS_MAX = 160 };

/* One program with its arguments. */
struct bench_work {
    const char *bench; /* the row's */
    const char *impl;
    const char *mode;
    const char *word, *pattern; /* the program's; pattern NULL: none */
    const char *key;            /* of its result line; what is measured */
    bool by_server;             /* … whose */
    const char *metric, *unit;
    double scale;
    bool smaller_is_better;
    const char *also_key, *also_metric,
        *also_unit;    /* of the server's line: one more row; or NULL */
    bool counts_bytes; /* … of calls with `size` each */
    /* What a result is compared with: the best of that mode whose `is_base` is our `beside`, which
     * are numbers of the caller's.  0: nothing.  One that is compared with itself is no more than a
     * base. */
    unsigned is_base, beside;
    size_t size;
    unsigned count; /* connections; CPU time is told of one */
    unsigned depth; /* of channels; 0: what the program takes */
    double value[BENCH_ROUNDS_MAX], also[BENCH_ROUNDS_MAX], cpu[BENCH_ROUNDS_MAX];
};

struct bench_measurement {
    const char *what; /* for who looks on */
    struct bench_plan *plan;
    struct bench_runner *runner;
    const char *transport;
    const char *wait;
    unsigned count;
    struct bench_work works[BENCH_WORKS_MAX];
};

/* Is what is measured now this transport? */
bool bench_works_over(const struct bench_measurement *m, const char *transport);

/* One more thing to do, `like` that one. */
void bench_works_add(struct bench_measurement *m, const char *mode, const struct bench_work *like);

/* For each transport of the plan and each of `waits`, unless the plan has its own: what `add` finds
 * to do there in each mode, as one group of rows. */
void bench_works(const char *what, struct bench_plan *p, struct bench_runner *r,
                 struct bench_rows *rows, const struct bench_list *waits,
                 void (*add)(struct bench_measurement *m, const char *mode));

#endif
