/* SPDX-License-Identifier: MIT */
/* What `spoke bench` was asked to do, and the two ways of doing it. */
#ifndef TOOL_BENCH_PLAN_H
#define TOOL_BENCH_PLAN_H

#include "bench_rows.h"
#include "bench_run.h"

enum { BENCH_LIST_MAX = 16 };

struct bench_list {
    unsigned count;
    const char *words[BENCH_LIST_MAX];
};

struct bench_plan {
    bool latency;
    bool throughput;
    bool pipeline;
    bool fanout;
    bool survey;
    bool bus;
    bool loan;
    bool stream;
    bool mux;
    bool channel;
    bool handshake;
    bool connections;
    bool subscriptions;
    bool with_peers;
    unsigned rounds;
    double seconds; /* each run */
    unsigned idle;  /* connections, mux: how many idle ones; 0: as many as suit the transport */
    struct bench_list transports; /* empty: all that suit the work */
    struct bench_list modes;
    struct bench_list waits;       /* empty: those that suit the work */
    struct bench_list batches;     /* empty: those that suit the mode */
    struct bench_list subscribers; /* fanout: how many: 1, 10, 100, 1000 */
    unsigned sizes;                /* 0: those that suit the work */
    size_t size[BENCH_LIST_MAX];
    FILE *table;      /* where people read */
    bool is_terminal; /* stderr is one: show progress */
    unsigned failed;  /* runs that went wrong */
};

/* Latency, throughput, handshake, pipeline, fanout, survey, bus, loan and stream: raw (the first
 * two and the last), spoke and peers in turn. Adds rows and prints each group when it is done.
 * Stops early when a signal came. */
void bench_compare(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows);

/* Connections: how cost grows with their number. */
void bench_growth(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows);

/* Subscriptions: what a message costs, how many there may be. */
void bench_subscriptions(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows);

/* Multiplexers, beside their carriers. */
void bench_mux(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows);

/* Channels and ports, beside streams of a mux. */
void bench_channel(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows);

/* The environment in which ipc does not move into shared memory: what it is compared with, and
 * judged as, everywhere but in the rows that are called spoke. */
extern const char *const bench_plain_sockets[];

/* The transports to measure: those of the plan, or all.  Those of the network edge (tls+tcp, ws,
 * wss) are among all only for a work that `has_edge`: of the others they are measured if they are
 * named.
 */
const struct bench_list *bench_transports(const struct bench_plan *p, bool has_edge);

/* False once a signal came or nobody reads the table any more. */
bool bench_goes_on(const struct bench_plan *p);

/* Write what is being done over the previous such line, if there is a terminal.  NULL: take it
 * away. */
void bench_progress(const struct bench_plan *p, const char *text);

#endif
