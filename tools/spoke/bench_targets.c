/* SPDX-License-Identifier: MIT */
/* The performance targets as a table: which rows a target speaks about, what they are compared
 * with, and the limit. */
#include <fnmatch.h>
#include <math.h>
#include <string.h>

#include "bench_rows.h"

enum against {
    RAW,
    ZEROMQ,
    NANOMSG,
    ICEORYX,
    BEST_PEER,
    CPU_OF_BEST_PEER,
    BEST_OF_RAW,
    CARRIER,
    MUX,
    CHANNEL,
    BESIDE,
    ABSOLUTE
};

struct target {
    const char *name;
    const char *bench;     /* with * for any end */
    const char *transport; /* these four: NULL = any, then each row is judged by itself */
    const char *mode;
    const char *wait;
    size_t size; /* 0 = any */
    const char *metric;
    enum against against;
    bool is_ceiling; /* at most `limit`, else at least */
    double limit;
};

static const char latency[] = "latency", stream[] = "throughput", batch[] = "throughput-batch";
static const char loan[] = "loan";
static const char owned[] = "owned", shared[] = "shared";
static const char block[] = "block", spin[] = "poll", adaptive[] = "adaptive";
static const char trip[] = "round_trip", rate[] = "rate";

static const struct target targets[] = {
    {"P1", latency, "ipc", owned, block, 64, trip, RAW, true, 1.15},
    {"P2", latency, "ipc", owned, spin, 64, trip, RAW, true, 1.20},
    {"P3", latency, "tcp", owned, spin, 64, trip, RAW, true, 1.15},
    {"P4", latency, "ipc", shared, adaptive, 64, trip, ZEROMQ, true, 0.25},
    {"P4b", latency, "ipc", shared, block, 64, trip, RAW, true, 1.35},
    {"P4b", latency, "ipc", shared, block, 64, trip, ZEROMQ, true, 0.90},
    {"P5", latency, "shm", owned, spin, 64, trip, RAW, true, 2},
    {"P5", latency, "shm", owned, spin, 64, trip, ICEORYX, true, 0.25},
    {"P6", latency, "shm", owned, block, 64, trip, RAW, true, 1.15},
    {"P7", loan, "shm", owned, NULL, 1048576, trip, BESIDE, true, 1.20},
    {"P8", batch, "ipc", owned, NULL, 64, rate, ZEROMQ, false, 8},
    {"P9", stream, "ipc", shared, NULL, 64, rate, ZEROMQ, false, 3},
    {"P10", batch, "tcp", owned, NULL, 64, rate, ZEROMQ, false, 5},
    {"P11", batch, "shm", owned, NULL, 64, rate, ZEROMQ, false, 10},
    {"P12", batch, "inproc", owned, NULL, 64, rate, ZEROMQ, false, 5},
    {"P12", stream, "inproc", shared, NULL, 64, rate, ZEROMQ, false, 5},
    {"P13", stream, "ipc", NULL, NULL, 1048576, rate, RAW, false, 0.90},
    {"P13", stream, "ipc", NULL, NULL, 1048576, rate, BEST_PEER, false, 1},
    {"P13", stream, "tcp", NULL, NULL, 1048576, rate, RAW, false, 0.90},
    {"P13", stream, "tcp", NULL, NULL, 1048576, rate, BEST_PEER, false, 1},
    {"P14", "fanout-100", "ipc", NULL, NULL, 64, rate, ZEROMQ, false, 3},
    {"P14", "fanout-100-batch", "ipc", NULL, NULL, 64, rate, ZEROMQ, false, 3},
    {"P15", "connections", "ipc", NULL, NULL, 0, "memory_per_connection", ABSOLUTE, true, 4096},
    {"P15", "connections", "tcp", NULL, NULL, 0, "memory_per_connection", ABSOLUTE, true, 4096},
    {"P15", "connections", NULL, NULL, NULL, 0, "round_trip_growth", ABSOLUTE, true, 1.20},
    {"P16", latency, "ipc", NULL, adaptive, 64, trip, NANOMSG, true, 0.50},
    {"P16", latency, "tcp", NULL, adaptive, 64, trip, NANOMSG, true, 0.50},
    {"P16", stream, "ipc", NULL, adaptive, 64, rate, NANOMSG, false, 3},
    {"P16", stream, "tcp", NULL, adaptive, 64, rate, NANOMSG, false, 3},
    {"P17", latency, NULL, NULL, block, 0, trip, CPU_OF_BEST_PEER, true, 1},
    {"P17", stream, NULL, NULL, block, 0, rate, CPU_OF_BEST_PEER, true, 1},
    {"P17", batch, NULL, NULL, block, 0, rate, CPU_OF_BEST_PEER, true, 1},
    {"P18", "pipeline*", NULL, NULL, NULL, 0, rate, BEST_PEER, false, 1},
    {"P18", "fanout-*", NULL, NULL, NULL, 0, rate, BEST_PEER, false, 1},
    {"P18", "survey-*", NULL, NULL, NULL, 0, trip, BEST_PEER, true, 1},
    {"P19", "pipes", NULL, NULL, NULL, 0, "cpu_growth", ABSOLUTE, true, 1.20},
    {"P20", latency, "shm", NULL, NULL, 0, trip, BESIDE, true, 1},
    {"P20", stream, "shm", NULL, NULL, 0, rate, BESIDE, false, 1},
    {"P20", batch, "shm", NULL, NULL, 0, rate, BESIDE, false, 1},
    {"N1", stream, "tls+tcp", NULL, NULL, 65536, rate, RAW, false, 0.90},
    {"N1", stream, "tls+tcp", NULL, NULL, 1048576, rate, RAW, false, 0.90},
    {"N2", latency, "tls+tcp", NULL, NULL, 64, trip, RAW, true, 1.20},
    {"N3", "handshake", NULL, NULL, NULL, 0, rate, RAW, false, 0.90},
    {"N3", "resumption", NULL, NULL, NULL, 0, rate, RAW, false, 0.90},
    {"N4", "throughput*", "ws", NULL, NULL, 64, rate, BESIDE, false, 0.70},
    {"N5", "throughput*", "ws", NULL, NULL, 64, rate, BEST_PEER, false, 3},
    {"N6", "connections", "wss", NULL, NULL, 0, "memory_per_connection", ABSOLUTE, true, 20480},
    {"S1", "stream-trip", NULL, NULL, NULL, 64, trip, RAW, true, 1.15},
    {"S2", "stream-rate*", NULL, NULL, NULL, 0, rate, BEST_OF_RAW, false, 0.95},
    {"M1", "mux-rate*", NULL, NULL, NULL, 0, rate, CARRIER, false, 0.8},
    {"M2", "mux-1000", NULL, NULL, NULL, 0, rate, CARRIER, false, 0.7},
    {"M3", "mux-1000", NULL, NULL, NULL, 0, "share", ABSOLUTE, true, 1.5},
    {"M4", "mux-trip", NULL, NULL, NULL, 0, trip, CARRIER, true, 1.3},
    {"M5", "mux-idle", NULL, NULL, NULL, 0, NULL, ABSOLUTE, true, 2048},
    {"M6", "mux-open", NULL, NULL, NULL, 0, NULL, CARRIER, true, 2},
    {"M7", "mux-opens", NULL, NULL, NULL, 0, NULL, ABSOLUTE, false, 200000},
    {"C1", "channel-trip", NULL, NULL, NULL, 64, trip, MUX, true, 1.5},
    {"C2", "channel-pair-*", NULL, NULL, NULL, 64, rate, ABSOLUTE, false, 5e6},
    {"C3", "port-trip", NULL, NULL, NULL, 64, trip, CHANNEL, true, 1.2},
    {"C3", "port-rate", NULL, NULL, NULL, 64, rate, CHANNEL, false, 1 / 1.2},
};

static bool
is_word(const char *wanted, const char *word)
{
    return wanted == NULL || strcmp(wanted, word) == 0;
}

static bool
speaks_about(const struct target *t, const struct bench_row *row)
{
    enum bench_kind kind = t->against == NANOMSG ? BENCH_STAND_IN : BENCH_SPOKE;

    return row->kind == kind && fnmatch(t->bench, row->bench, 0) == 0 &&
           is_word(t->transport, row->transport) && is_word(t->mode, row->mode) &&
           is_word(t->wait, row->wait) && is_word(t->metric, row->metric) &&
           (t->size == 0 || t->size == row->size);
}

static double
measured(const struct target *t, const struct bench_row *row)
{
    switch (t->against) {
    case RAW:
    case CARRIER:
    case MUX:
    case CHANNEL: return row->ratio_raw.median;
    case BEST_OF_RAW: return row->is_best ? row->ratio_raw.median : NAN;
    case ZEROMQ: return row->ratio_zeromq.median;
    case NANOMSG: return row->ratio_nanomsg.median;
    case ICEORYX: return row->ratio_iceoryx.median;
    case BESIDE: return row->ratio_beside.median;
    case BEST_PEER: return row->ratio_best_peer.median;
    case CPU_OF_BEST_PEER: return row->cpu_ratio_best_peer;
    case ABSOLUTE: break;
    }
    return row->value.median;
}

static const char *
against_text(const struct target *t, const struct bench_row *row)
{
    static const char *const texts[] = {"x raw",
                                        "x ZeroMQ",
                                        "x nanomsg",
                                        "x iceoryx",
                                        "x best peer",
                                        "x CPU time of best peer",
                                        "x raw at its best",
                                        "x the carrier",
                                        "x a stream of the mux",
                                        "x a channel"};

    if (t->against == BESIDE && strcmp(row->transport, "ws") == 0)
        return "x our tcp";
    if (t->against == BESIDE)
        return strcmp(t->bench, loan) == 0 ? "x 64 B" : "x our sockets";
    return t->against == ABSOLUTE ? row->unit : texts[t->against];
}

/* 1 if missed. */
static unsigned
print_verdict(FILE *f, const struct target *t, const struct bench_row *row)
{
    double value = measured(t, row);
    bool is_met = t->is_ceiling ? value <= t->limit : value >= t->limit;
    char size[32];

    fprintf(f, "  %-4s %-6s  %s, %s, %s, %s%s%s, wait %s: %.3g %s (%s %g)\n", t->name,
            is_met ? "met" : "MISSED", bench_title(row->bench), row->transport,
            bench_size_text(row->size, size), row->mode[0] != '\0' ? row->mode : row->impl,
            row->detail[0] != '\0' ? ", " : "", row->detail, row->wait, value, against_text(t, row),
            t->is_ceiling ? "at most" : "at least", t->limit);
    return !is_met;
}

unsigned
bench_print_targets(FILE *f, const struct bench_rows *rows)
{
    unsigned judged = 0, missed = 0;

    for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
        for (unsigned j = 0; j < rows->count; j++) {
            if (!speaks_about(&targets[i], &rows->rows[j]) ||
                isnan(measured(&targets[i], &rows->rows[j])))
                continue;
            if (judged++ == 0)
                fputs("\ntargets that this run decides\n", f);
            missed += print_verdict(f, &targets[i], &rows->rows[j]);
        }
    }
    if (judged > 0)
        fprintf(f, "  %u of %u met\n", judged - missed, judged);
    return missed;
}
