/* SPDX-License-Identifier: MIT */
/* What `spoke bench` has measured, one row per program and work, and the ways to show it: table,
 * JSON, page, targets. */
#ifndef TOOL_BENCH_ROWS_H
#define TOOL_BENCH_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum { BENCH_ROUNDS_MAX = 101, BENCH_ROWS_MAX = 2048 };

/* A stand-in is another library's program on our library: it is compared with its own.  Beside is
 * spoke by another way than the one that is judged: through sockets beside shared memory, with a
 * small message beside a large one. */
enum bench_kind { BENCH_RAW, BENCH_SPOKE, BENCH_PEER, BENCH_STAND_IN, BENCH_BESIDE };

/* Median and spread over rounds; NAN where nothing was measured. */
struct bench_spread {
    double median;
    double min;
    double max;
};

struct bench_row {
    const char *bench; /* latency, throughput, handshake, resumption, pipeline, fanout-N, bus-10,
                          star-10 (these also …-batch), survey-10, loan, stream-trip, stream-rate,
                          stream-rate-chunks, connections, pipes-N, pipes, subscriptions-N,
                          mux-trip, mux-open, mux-rate, mux-rate-chunks, mux-1000, mux-opens,
                          mux-idle, mux-active, channel-trip, channel-rate, channel-pair-N,
                          port-trip, port-rate */
    enum bench_kind kind;
    char impl[16];     /* raw, spoke, zeromq … */
    char detail[24];   /* for people: which raw mechanism, how many per batch */
    char transport[8]; /* of the group */
    char via[8];       /* of this row: sockets take part where shared memory is measured */
    char mode[8];      /* owned, shared, or empty */
    char wait[12];
    size_t size;
    const char *metric;
    const char *unit;
    bool smaller_is_better;
    struct bench_spread value;
    double p50, p99, p999; /* medians over rounds, in `unit`; NAN for rates */
    double cpu_us_per_msg;
    struct bench_spread ratio_raw; /* of works (bench_works.h): to what they are beside */
    struct bench_spread ratio_best_peer;
    struct bench_spread ratio_zeromq;
    struct bench_spread ratio_nanomsg;
    struct bench_spread ratio_iceoryx;
    struct bench_spread ratio_beside; /* to the plain sockets, to the small message, or of a stream
                                         to raw with as much in a call */
    bool is_best;                     /* of its mode in the group, which has several sizes */
    double cpu_ratio_best_peer;
    unsigned group; /* rows of one group were measured in one interleaved run */
};

struct bench_rows {
    unsigned count;
    unsigned groups;
    struct bench_row rows[BENCH_ROWS_MAX];
};

/* A new row, all numbers NAN; NULL when there are too many. */
struct bench_row *bench_rows_add(struct bench_rows *rows);

/* Median, smallest and largest of `n` numbers, those that are NAN left out.  Sorts them. */
struct bench_spread bench_spread_of(double *values, unsigned n);

/* Print the rows of group `group` with a heading. */
void bench_print_group(FILE *f, const struct bench_rows *rows, unsigned group);

/* All rows as a JSON array. */
void bench_print_json(FILE *f, const struct bench_rows *rows);

/* One self-contained page: drawings first, the numbers after them. */
void bench_print_html(FILE *f, const struct bench_rows *rows);

/* The project's performance targets that these rows decide, each met or missed.  Returns how many
 * were missed. */
unsigned bench_print_targets(FILE *f, const struct bench_rows *rows);

/* What a row is about: a time, a rate, or how something grows. */
bool bench_is_latency(const struct bench_row *row);
bool bench_is_growth(const struct bench_row *row);
bool bench_is_handshake(const struct bench_row *row);
bool bench_is_of_works(const struct bench_row *row); /* bench_works.h */

/* A rate of bytes, in groups that have all sizes of a call. */
bool bench_is_stream_rate(const struct bench_row *row);

/* CPU time of both sides in us; NAN where it is not of stream rates. */
double bench_cpu_us_per_mib(const struct bench_row *row);

/* "64 B", "1 MiB". */
const char *bench_size_text(size_t size, char text[32]);

/* "latency", then what it means for people: "round trip". */
const char *bench_title(const char *bench);

#endif
