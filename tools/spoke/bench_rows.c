/* SPDX-License-Identifier: MIT */
/* Rows as a table for people and as JSON for programs. */
#include "bench_rows.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct bench_row *
bench_rows_add(struct bench_rows *rows)
{
    static const struct bench_spread none = {NAN, NAN, NAN};
    struct bench_row *row;

    if (rows->count == BENCH_ROWS_MAX)
        return NULL;
    row = &rows->rows[rows->count++];
    memset(row, 0, sizeof *row);
    row->value = row->ratio_raw = row->ratio_best_peer = row->ratio_zeromq = row->ratio_nanomsg =
        row->ratio_iceoryx = row->ratio_beside = none;
    row->p50 = row->p99 = row->p999 = row->cpu_us_per_msg = row->cpu_ratio_best_peer = NAN;
    return row;
}

static int
compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

struct bench_spread
bench_spread_of(double *values, unsigned n)
{
    unsigned kept = 0;

    for (unsigned i = 0; i < n; i++)
        if (!isnan(values[i]))
            values[kept++] = values[i];
    if (kept == 0)
        return (struct bench_spread){NAN, NAN, NAN};
    qsort(values, kept, sizeof *values, compare);
    return (struct bench_spread){
        .median = (values[(kept - 1) / 2] + values[kept / 2]) / 2,
        .min = values[0],
        .max = values[kept - 1],
    };
}

const char *
bench_size_text(size_t size, char text[32])
{
    if (size >= 1U << 20 && size % (1U << 20) == 0)
        snprintf(text, 32, "%zu MiB", size >> 20);
    else if (size >= 1U << 10 && size % (1U << 10) == 0)
        snprintf(text, 32, "%zu KiB", size >> 10);
    else
        snprintf(text, 32, "%zu B", size);
    return text;
}

const char *
bench_title(const char *bench)
{
    if (strcmp(bench, "latency") == 0)
        return "round trip";
    if (strcmp(bench, "loan") == 0)
        return "round trip of a loan";
    if (strncmp(bench, "throughput", 10) == 0)
        return "one-way stream";
    if (strcmp(bench, "handshake") == 0)
        return "full handshakes of TLS";
    if (strcmp(bench, "resumption") == 0)
        return "resumed handshakes of TLS";
    if (strcmp(bench, "stream-trip") == 0)
        return "round trip of a byte stream";
    if (strncmp(bench, "stream-rate", 11) == 0)
        return "byte stream";
    if (strcmp(bench, "survey-10") == 0)
        return "survey of 10 RESPONDENT";
    if (strncmp(bench, "bus", 3) == 0)
        return "BUS to 10 members";
    if (strncmp(bench, "star", 4) == 0)
        return "STAR to 10 members";
    if (strncmp(bench, "pipeline", 8) == 0)
        return "PUSH to PULL";
    if (strncmp(bench, "fanout-1000", 11) == 0)
        return "PUB to 1000 SUB";
    if (strncmp(bench, "fanout-100", 10) == 0)
        return "PUB to 100 SUB";
    if (strncmp(bench, "fanout-10", 9) == 0)
        return "PUB to 10 SUB";
    if (strncmp(bench, "fanout-1", 8) == 0)
        return "PUB to 1 SUB";
    if (strncmp(bench, "subscriptions", 13) == 0)
        return "PUB to a SUB with many subscriptions";
    if (strcmp(bench, "mux-trip") == 0)
        return "round trip on a stream of a mux";
    if (strcmp(bench, "mux-open") == 0)
        return "a stream of a mux, opened and closed";
    if (strncmp(bench, "mux-rate", 8) == 0)
        return "one stream of a mux";
    if (strcmp(bench, "mux-1000") == 0)
        return "1000 streams of a mux";
    if (strcmp(bench, "mux-opens") == 0)
        return "streams of a mux, opened and closed without waiting";
    if (strcmp(bench, "mux-idle") == 0)
        return "idle streams of a mux";
    if (strcmp(bench, "mux-active") == 0)
        return "streams of a mux with 4 KiB unread";
    if (strcmp(bench, "channel-trip") == 0)
        return "round trip on channels";
    if (strcmp(bench, "channel-rate") == 0)
        return "one-way on a channel";
    if (strcmp(bench, "channel-pair-64") == 0)
        return "a channel of depth 64 from thread to thread";
    if (strcmp(bench, "channel-pair-1024") == 0)
        return "a channel of depth 1024 from thread to thread";
    if (strcmp(bench, "port-trip") == 0)
        return "round trip on ports";
    if (strcmp(bench, "port-rate") == 0)
        return "one-way on a port";
    if (strcmp(bench, "connections") == 0)
        return "idle connections";
    return "busy connections";
}

bool
bench_is_latency(const struct bench_row *row)
{
    return strcmp(row->bench, "latency") == 0 || strcmp(row->bench, "loan") == 0 ||
           strcmp(row->bench, "stream-trip") == 0 || strncmp(row->bench, "survey", 6) == 0;
}

bool
bench_is_handshake(const struct bench_row *row)
{
    return strcmp(row->bench, "handshake") == 0 || strcmp(row->bench, "resumption") == 0;
}

bool
bench_is_growth(const struct bench_row *row)
{
    return strcmp(row->bench, "connections") == 0 || strncmp(row->bench, "pipes", 5) == 0 ||
           strncmp(row->bench, "subscriptions", 13) == 0;
}

bool
bench_is_of_works(const struct bench_row *row)
{
    return strncmp(row->bench, "mux", 3) == 0 || strncmp(row->bench, "channel", 7) == 0 ||
           strncmp(row->bench, "port-", 5) == 0;
}

bool
bench_is_stream_rate(const struct bench_row *row)
{
    return strncmp(row->bench, "stream-rate", 11) == 0;
}

double
bench_cpu_us_per_mib(const struct bench_row *row)
{
    if (!bench_is_stream_rate(row))
        return NAN;
    return row->cpu_us_per_msg * (1 << 20) / (double)row->size;
}

/* ---- table ---- */

/* A number with three or four figures, or a dash. */
static void
print_number(FILE *f, int width, double value)
{
    int digits = fabs(value) < 10 ? 2 : fabs(value) < 100 ? 1 : 0;

    if (isnan(value))
        fprintf(f, "%*s", width, "-");
    else
        fprintf(f, "%*.*f", width, digits, value);
}

static void
print_ratio(FILE *f, const struct bench_spread *ratio)
{
    char text[40] = "-";

    int digits = ratio->median < 0.1 ? 4 : ratio->median < 10 ? 2 : 1;

    if (!isnan(ratio->median))
        snprintf(text, sizeof text, "%.*f (%.*f-%.*f)", digits, ratio->median, digits, ratio->min,
                 digits, ratio->max);
    fprintf(f, "  %-20s", text);
}

static void
print_name(FILE *f, const struct bench_row *row)
{
    char name[64];

    snprintf(name, sizeof name, "%s%s%s%s%s", row->impl, row->mode[0] != '\0' ? " " : "", row->mode,
             row->detail[0] != '\0' ? ", " : "", row->detail);
    fprintf(f, "  %-30s", name);
}

/* The last column, which only some groups have. */
static const char *
beside_title(const struct bench_row *row)
{
    if (strcmp(row->bench, "loan") == 0)
        return "  x 64 B (spread)";
    if (strncmp(row->bench, "stream", 6) == 0)
        return "";
    if (strcmp(row->transport, "ipc") == 0 || strcmp(row->transport, "shm") == 0)
        return "  x sockets (spread)";
    if (strcmp(row->transport, "wss") == 0)
        return "  x our tls+tcp";
    return strcmp(row->transport, "ws") == 0 || strcmp(row->transport, "tls+tcp") == 0
               ? "  x our tcp (spread)"
               : "";
}

static void
print_beside(FILE *f, const struct bench_row *row)
{
    if (!isnan(row->ratio_beside.median))
        print_ratio(f, &row->ratio_beside);
    fputc('\n', f);
}

static void
print_latency_row(FILE *f, const struct bench_row *row)
{
    print_name(f, row);
    print_number(f, 9, row->p50);
    print_number(f, 9, row->p99);
    print_number(f, 9, row->p999);
    print_number(f, 11, row->cpu_us_per_msg);
    print_ratio(f, &row->ratio_raw);
    print_ratio(f, &row->ratio_best_peer);
    print_beside(f, row);
}

static void
print_throughput_row(FILE *f, const struct bench_row *row)
{
    print_name(f, row);
    print_number(f, 11, row->value.median / 1e3);
    print_number(f, 9, row->value.median * (double)row->size / 1e9);
    print_number(f, 18, row->cpu_us_per_msg);
    print_ratio(f, &row->ratio_raw);
    print_ratio(f, &row->ratio_best_peer);
    print_beside(f, row);
}

static void
print_handshake_row(FILE *f, const struct bench_row *row)
{
    print_name(f, row);
    print_number(f, 11, row->value.median);
    print_number(f, 11, row->cpu_us_per_msg);
    print_ratio(f, &row->ratio_raw);
    fputc('\n', f);
}

/* Ratios are to raw at its best, and with as much in a call. */
static void
print_stream_row(FILE *f, const struct bench_row *row)
{
    char size[32];

    fprintf(f, "  %-8s", bench_size_text(row->size, size));
    print_name(f, row);
    print_number(f, 9, row->value.median / (1 << 20));
    print_number(f, 12, bench_cpu_us_per_mib(row));
    print_ratio(f, &row->ratio_raw);
    print_beside(f, row);
}

static void
print_growth_row(FILE *f, const struct bench_row *row)
{
    char text[40];

    snprintf(text, sizeof text, "(%.4g-%.4g)", row->value.min, row->value.max);
    fprintf(f, "  %-20s %-11s %-7s %-24s %10.4g %-19s %s\n", row->bench, row->impl, row->mode,
            row->metric, row->value.median, row->unit, text);
}

/* These are of several kinds: each row says which. */
static void
print_work_row(FILE *f, const struct bench_row *row)
{
    char size[32];
    bool is_rate = strcmp(row->unit, "byte/s") == 0;
    bool is_count = strcmp(row->unit, "message/s") == 0;

    fprintf(f, "  %-18s %-8s %-7s %-18s ", row->bench, row->impl, row->mode, row->metric);
    print_number(f, 10,
                 is_rate    ? row->value.median / (1 << 20)
                 : is_count ? row->value.median / 1e3
                            : row->value.median);
    fprintf(f, " %-9s %-8s",
            is_rate    ? "MiB/s"
            : is_count ? "1000 m/s"
                       : row->unit,
            is_rate ? bench_size_text(row->size, size) : "");
    print_number(f, 10, row->cpu_us_per_msg);
    print_ratio(f, &row->ratio_raw);
    fputc('\n', f);
}

static void
print_heading(FILE *f, const struct bench_row *row)
{
    char size[32];

    if (bench_is_of_works(row)) {
        bool is_mux = strncmp(row->bench, "mux", 3) == 0;

        fprintf(f, "\n%s, %s, wait %s\n  %-18s %-8s %-7s %-18s %10s %-9s %-8s%10s  %s\n",
                is_mux ? "multiplexers" : "channels and ports", row->transport, row->wait, "", "",
                "", "", "", "", is_mux ? "a call" : "", "CPU us",
                is_mux ? "x carrier (spread)" : "x mux, x channel (spread)");
        return;
    }

    if (bench_is_stream_rate(row)) {
        fprintf(f, "\n%s, %s, wait %s\n  %-8s  %-30s%9s%12s  %-20s  %-20s\n",
                bench_title(row->bench), row->transport, row->wait, "a call", "", "MiB/s",
                "CPU us/MiB", "x best raw (spread)", "x raw, same call");
        return;
    }
    if (bench_is_handshake(row)) {
        fprintf(f, "\n%s, %s, wait %s\n  %-30s%11s%11s  %-20s\n", bench_title(row->bench),
                row->transport, row->wait, "", "a second", "CPU us", "x raw (spread)");
        return;
    }
    fprintf(f, "\n%s, %s, %s, wait %s\n", bench_title(row->bench), row->transport,
            bench_size_text(row->size, size), row->wait);
    if (bench_is_growth(row))
        return;
    if (bench_is_latency(row))
        fprintf(f, "  %-30s%9s%9s%9s%11s  %-20s  %-20s%s\n", "", "p50 us", "p99", "p99.9",
                "CPU us/msg", "x raw (spread)", "x best peer (spread)", beside_title(row));
    else
        fprintf(f, "  %-30s%11s%9s%18s  %-20s  %-20s%s\n", "", "1000 msg/s", "GB/s", "CPU us/msg",
                "x raw (spread)", "x best peer (spread)", beside_title(row));
}

void
bench_print_group(FILE *f, const struct bench_rows *rows, unsigned group)
{
    bool has_heading = false;

    for (unsigned i = 0; i < rows->count; i++) {
        const struct bench_row *row = &rows->rows[i];
        if (row->group != group)
            continue;
        if (!has_heading)
            print_heading(f, row);
        has_heading = true;
        if (bench_is_growth(row))
            print_growth_row(f, row);
        else if (bench_is_of_works(row))
            print_work_row(f, row);
        else if (bench_is_latency(row))
            print_latency_row(f, row);
        else if (bench_is_stream_rate(row))
            print_stream_row(f, row);
        else if (bench_is_handshake(row))
            print_handshake_row(f, row);
        else
            print_throughput_row(f, row);
    }
    fflush(f);
}

/* ---- JSON ---- */

static void
print_json_number(FILE *f, const char *key, double value)
{
    if (isfinite(value))
        fprintf(f, ",\"%s\":%.6g", key, value);
    else
        fprintf(f, ",\"%s\":null", key);
}

/* All texts are our own words: nothing in them needs escaping. */
static void
print_json_row(FILE *f, const struct bench_row *row)
{
    fprintf(f, "{\"bench\":\"%s\",\"impl\":\"%s\",\"transport\":\"%s\",\"mode\":", row->bench,
            row->impl, row->via);
    if (row->mode[0] != '\0')
        fprintf(f, "\"%s\"", row->mode);
    else
        fputs("null", f);
    fprintf(f, ",\"wait\":\"%s\",\"size\":%zu,\"metric\":\"%s\",\"unit\":\"%s\"", row->wait,
            row->size, row->metric, row->unit);
    print_json_number(f, "median", row->value.median);
    print_json_number(f, "min", row->value.min);
    print_json_number(f, "max", row->value.max);
    print_json_number(f, "p50", row->p50);
    print_json_number(f, "p99", row->p99);
    print_json_number(f, "p999", row->p999);
    print_json_number(f, "cpu_us_per_msg", row->cpu_us_per_msg);
    print_json_number(f, "ratio_raw", row->ratio_raw.median);
    print_json_number(f, "ratio_best_peer", row->ratio_best_peer.median);
    print_json_number(f, "ratio_beside", row->ratio_beside.median);
    print_json_number(f, "cpu_us_per_mib", bench_cpu_us_per_mib(row));
    fputc('}', f);
}

void
bench_print_json(FILE *f, const struct bench_rows *rows)
{
    fputs("[", f);
    for (unsigned i = 0; i < rows->count; i++) {
        fputs(i == 0 ? "\n" : ",\n", f);
        print_json_row(f, &rows->rows[i]);
    }
    fputs("\n]\n", f);
}
