/* SPDX-License-Identifier: MIT */
/* The page: pictures that can be read without their numbers, then the numbers.  No scripts, nothing
 * fetched, light or dark as the reader prefers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_rows.h"

enum {
    NAME_WIDTH = 190,  /* of the labels left of the bars */
    NUMBER_WIDTH = 62, /* of the number between label and bar */
    PLOT_WIDTH = 620,
    BAR_HEIGHT = 16,
    BAR_STEP = 24,
    AXIS_HEIGHT = 26,
};

static const char head[] =
    "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>spoke bench</title>\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><style>\n"
    ":root{color-scheme:light dark;--ink:#1d2733;--soft:#6b7785;--line:#d9dee4;--page:#fff;"
    "--raw:#9aa5b1;--spoke:#d9480f;--peer:#4c7bd9}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--soft:#97a3b0;--line:#333c47;--page:#"
    "14181d;"
    "--raw:#6d7985;--spoke:#ff8a4c;--peer:#7ba4f5}}\n"
    "body{font:16px/1.5 "
    "system-ui,sans-serif;color:var(--ink);background:var(--page);max-width:860px;"
    "margin:2rem auto;padding:0 1rem}\n"
    "h1{margin-bottom:0}h2{margin-top:2.5rem}h3{margin:1.6rem 0 .3rem;font-size:1rem}"
    "p,figcaption{color:var(--soft);margin:.2rem "
    "0}figure{margin:0}svg{width:100%;height:auto;display:block}\n"
    "text{fill:var(--ink);font:13px system-ui,sans-serif}.soft{fill:var(--soft);font-size:12px}"
    ".grid{stroke:var(--line)}.one{stroke:var(--ink);stroke-width:2;stroke-dasharray:4 3}\n"
    ".raw{fill:var(--raw);stroke:var(--raw)}.spoke{fill:var(--spoke);stroke:var(--spoke)}"
    ".peer{fill:var(--peer);stroke:var(--peer)}.bar{stroke:none}.faint{opacity:.3}"
    ".path{fill:none;stroke-width:2}"
    ".soft{paint-order:stroke;stroke:var(--page);stroke-width:4px;stroke-linejoin:round}\n"
    ".key{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin:0 .35em 0 1em}\n"
    "table{border-collapse:collapse;font-size:13px;width:100%}td,th{padding:.15rem "
    ".5rem;text-align:right;"
    "border-bottom:1px solid var(--line)}td:first-child,th:first-child{text-align:left}"
    "details{margin-top:2rem;overflow-x:auto}\n"
    "</style></head><body>\n<h1>spoke bench</h1>\n";

static const char key[] =
    "<p><span class=\"key\" style=\"background:var(--raw);margin-left:0\"></span>the bare kernel, "
    "at its fastest"
    "<span class=\"key\" style=\"background:var(--spoke)\"></span>spoke"
    "<span class=\"key\" style=\"background:var(--peer)\"></span>other libraries</p>\n";

static const char *
class_of(const struct bench_row *row)
{
    static const char *const names[] = {"raw", "spoke", "peer", "spoke", "spoke"};

    return names[row->kind];
}

static bool
is_throughput(const struct bench_row *row)
{
    return strncmp(row->bench, "throughput", 10) == 0 || strncmp(row->bench, "pipeline", 8) == 0 ||
           strncmp(row->bench, "fanout", 6) == 0 || strncmp(row->bench, "bus", 3) == 0 ||
           strncmp(row->bench, "star", 4) == 0 || bench_is_stream_rate(row);
}

/* ---- the parts of a drawing ---- */

static void
open_svg(FILE *f, int height, const char *label)
{
    fprintf(f, "<svg viewBox=\"0 0 %d %d\" role=\"img\" aria-label=\"%s\">\n",
            NAME_WIDTH + PLOT_WIDTH + 20, height, label);
}

static void
draw_text(FILE *f, double x, double y, const char *anchor, const char *class, const char *text)
{
    fprintf(f, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">%s</text>\n", x, y,
            anchor, class, text);
}

/* A row's name, `room` left of the bars. */
static void
draw_name(FILE *f, int y, const struct bench_row *row, int room)
{
    char text[112], size[32];

    bench_size_text(row->size, size);
    snprintf(text, sizeof text, "%s%s%s%s%s%s%s", bench_is_stream_rate(row) ? size : "",
             bench_is_stream_rate(row) ? " " : "", row->kind == BENCH_RAW ? "kernel" : row->impl,
             row->mode[0] != '\0' ? " " : "", row->mode, row->detail[0] != '\0' ? ", " : "",
             row->detail);
    draw_text(f, NAME_WIDTH - 8 - room, y + BAR_HEIGHT - 3, "end", "", text);
}

static void
draw_bar(FILE *f, int y, double from, double to, const char *class, const char *extra)
{
    fprintf(
        f,
        "<rect x=\"%.1f\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\" class=\"bar %s %s\"/>\n",
        NAME_WIDTH + from, y, fmax(to - from, 1), BAR_HEIGHT, class, extra);
}

static void
draw_line(FILE *f, double x, int from, int to, const char *class)
{
    fprintf(f, "<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\" class=\"%s\"/>\n", x, x, from, to,
            class);
}

/* A scale of powers of ten, in microseconds. */
struct log_scale {
    double low; /* log10 of the left and the right edge */
    double high;
};

static double
log_x(const struct log_scale *s, double value)
{
    double x = (log10(value) - s->low) / (s->high - s->low);

    return fmin(fmax(x, 0), 1) * PLOT_WIDTH;
}

static void
duration_text(char text[32], double us)
{
    if (us < 1)
        snprintf(text, 32, "%g ns", us * 1e3);
    else if (us < 1e3)
        snprintf(text, 32, "%g µs", us);
    else if (us < 1e6)
        snprintf(text, 32, "%g ms", us / 1e3);
    else
        snprintf(text, 32, "%g s", us / 1e6);
}

/* "1.85 k", "144 M": three digits. */
static const char *
scaled_text(char text[24], double value)
{
    static const char *const letters[] = {"", "k", "M", "G", "T"};
    int step = 0;

    for (; value >= 999.5 && step < 4; step++)
        value /= 1000;
    snprintf(text, 24, "%.*f %s", value < 9.995 ? 2 : value < 99.95 ? 1 : 0, value, letters[step]);
    return text;
}

static void
draw_log_axis(FILE *f, const struct log_scale *s, int bottom)
{
    for (double p = ceil(s->low); p <= s->high + 1e-9; p++) {
        char text[32];
        double x = NAME_WIDTH + log_x(s, pow(10, p));
        draw_line(f, x, 0, bottom, "grid");
        duration_text(text, pow(10, p));
        draw_text(f, x, bottom + 18, "middle", "soft", text);
    }
}

/* ---- round trips ---- */

/* One scale for the whole page, so that drawings can be compared. */
static struct log_scale
latency_scale(const struct bench_rows *rows)
{
    double low = INFINITY, high = 1e-3;

    for (unsigned i = 0; i < rows->count; i++) {
        if (!bench_is_latency(&rows->rows[i]))
            continue;
        low = fmin(low, rows->rows[i].p50);
        high = fmax(high, rows->rows[i].p999);
    }
    return (struct log_scale){floor(log10(low)), fmax(ceil(log10(high)), floor(log10(low)) + 1)};
}

static unsigned
rows_in_group(const struct bench_rows *rows, unsigned group)
{
    unsigned n = 0;

    for (unsigned i = 0; i < rows->count; i++)
        n += rows->rows[i].group == group;
    return n;
}

static void
draw_latency_row(FILE *f, const struct log_scale *s, const struct bench_row *row, int y)
{
    const char *class = class_of(row);
    char text[32];

    if (row->p50 < 999.5)
        snprintf(text, sizeof text, "%.3g µs", row->p50);
    else
        snprintf(text, sizeof text, "%.3g ms", row->p50 / 1e3);
    draw_name(f, y, row, NUMBER_WIDTH);
    draw_text(f, NAME_WIDTH - 8, y + BAR_HEIGHT - 3, "end", "soft", text);
    draw_bar(f, y, 0, log_x(s, row->p50), class, "");
    draw_bar(f, y, log_x(s, row->p50), log_x(s, row->p99), class, "faint");
    draw_line(f, NAME_WIDTH + log_x(s, row->p999), y, y + BAR_HEIGHT, class);
}

static void
draw_heading(FILE *f, const struct bench_row *row)
{
    static const struct {
        const char *wait;
        const char *meaning;
    } meanings[] = {
        {"block", "who waits sleeps"},
        {"poll", "who waits never sleeps"},
        {"adaptive", "spoke decides when to sleep; the kernel at its best, others as they are"},
    };
    char size[32];
    const char *meaning = "";

    for (size_t i = 0; i < sizeof meanings / sizeof *meanings; i++)
        if (strcmp(meanings[i].wait, row->wait) == 0)
            meaning = meanings[i].meaning;
    fprintf(f, "<h3>%s, %s, %s: %s</h3>\n", row->transport,
            bench_is_stream_rate(row) ? "bytes in calls of several sizes"
                                      : bench_size_text(row->size, size),
            row->wait, meaning);
}

static void
draw_latency_group(FILE *f, const struct bench_rows *rows, unsigned group,
                   const struct log_scale *s)
{
    int y = 4, bottom = (int)rows_in_group(rows, group) * BAR_STEP + 4;
    bool is_open = false;

    for (unsigned i = 0; i < rows->count; i++) {
        const struct bench_row *row = &rows->rows[i];
        if (row->group != group || !bench_is_latency(row))
            continue;
        if (!is_open) {
            draw_heading(f, row);
            open_svg(f, bottom + AXIS_HEIGHT, "round-trip time, shorter is better");
            draw_log_axis(f, s, bottom);
        }
        is_open = true;
        draw_latency_row(f, s, row, y);
        y += BAR_STEP;
    }
    if (is_open)
        fputs("</svg>\n", f);
}

static void
draw_latency(FILE *f, const struct bench_rows *rows)
{
    struct log_scale s = latency_scale(rows);

    fputs("<h2>Round trips</h2>\n<p>There and back again; shorter is better. A full bar ends where "
          "half of all round trips "
          "were done, its pale end where 99 of 100 were, the tick where 999 of 1000 were; the "
          "number is the first of these. Each "
          "line of the scale is ten "
          "times the one before.</p>\n",
          f);
    fputs(key, f);
    for (unsigned g = 0; g < rows->groups; g++)
        draw_latency_group(f, rows, g, &s);
}

/* ---- one-way streams ---- */

static double
bytes_per_s(const struct bench_row *row)
{
    return bench_is_stream_rate(row) ? row->value.median : row->value.median * (double)row->size;
}

static void
draw_throughput_group(FILE *f, const struct bench_rows *rows, unsigned group)
{
    int y = 4, bottom = (int)rows_in_group(rows, group) * BAR_STEP + 4;
    double best = 0;
    bool is_open = false;

    for (unsigned i = 0; i < rows->count; i++)
        if (rows->rows[i].group == group && is_throughput(&rows->rows[i]))
            best = fmax(best, rows->rows[i].value.median);
    for (unsigned i = 0; i < rows->count; i++) {
        const struct bench_row *row = &rows->rows[i];
        char text[64], rate[24], bytes[24];
        if (row->group != group || !is_throughput(row))
            continue;
        if (!is_open) {
            draw_heading(f, row);
            open_svg(f, bottom + 4, "how much per second, longer is better");
        }
        is_open = true;
        draw_name(f, y, row, 0);
        draw_bar(f, y, 0, row->value.median / best * (PLOT_WIDTH - 170), class_of(row), "");
        snprintf(text, sizeof text, "%s %s/s, %sB/s",
                 scaled_text(rate, bytes_per_s(row) / (double)row->size),
                 bench_is_stream_rate(row) ? "call" : "msg", scaled_text(bytes, bytes_per_s(row)));
        draw_text(f, NAME_WIDTH + row->value.median / best * (PLOT_WIDTH - 170) + 8,
                  y + BAR_HEIGHT - 3, "start", "soft", text);
        y += BAR_STEP;
    }
    if (is_open)
        fputs("</svg>\n", f);
}

static void
draw_throughput(FILE *f, const struct bench_rows *rows)
{
    fputs("<h2>One-way streams</h2>\n<p>As much as goes through, one sender, one receiver unless "
          "it says otherwise; "
          "longer is better.</p>\n",
          f);
    fputs(key, f);
    for (unsigned g = 0; g < rows->groups; g++)
        draw_throughput_group(f, rows, g);
}

/* ---- one-way streams by size ---- */

enum { CURVE_HEIGHT = 260, CURVES_MAX = 16 };

/* Bytes per second of one contestant over sizes: the scale goes from 1 MB/s to 100 GB/s and from 8
 * B to 64 MiB. */
static double
curve_x(const struct bench_row *row)
{
    return NAME_WIDTH + (log2((double)row->size) - 3) / 23 * PLOT_WIDTH;
}

static double
curve_y(const struct bench_row *row)
{
    double y = (log10(bytes_per_s(row)) - 6) / 5;

    return (1 - fmin(fmax(y, 0), 1)) * CURVE_HEIGHT + 8;
}

static bool
is_same_work(const struct bench_row *a, const struct bench_row *b)
{
    return strcmp(bench_title(a->bench), bench_title(b->bench)) == 0;
}

static bool
is_same_contestant(const struct bench_row *a, const struct bench_row *b)
{
    return is_same_work(a, b) && strcmp(a->impl, b->impl) == 0 && strcmp(a->mode, b->mode) == 0 &&
           strcmp(a->wait, b->wait) == 0 && strcmp(a->transport, b->transport) == 0 &&
           is_throughput(a) && is_throughput(b) &&
           (a->kind != BENCH_SPOKE ||
            (!bench_is_stream_rate(a) && (a->size >= 65536 || b->size >= 65536)) ||
            strcmp(a->bench, b->bench) == 0);
}

static bool
is_first_of_curve(const struct bench_rows *rows, unsigned index)
{
    for (unsigned i = 0; i < index; i++)
        if (is_same_contestant(&rows->rows[i], &rows->rows[index]))
            return false;
    return is_throughput(&rows->rows[index]);
}

/* A curve's name, at the height of its right end. */
struct label {
    double x;
    double y;
    const struct bench_row *row;
};

/* Returns where its name belongs. */
static struct label
draw_curve(FILE *f, const struct bench_rows *rows, unsigned first)
{
    const struct bench_row *start = &rows->rows[first], *last = start;

    fprintf(f, "<polyline class=\"path %s\" style=\"fill:none\" points=\"", class_of(start));
    for (unsigned i = first; i < rows->count; i++) {
        if (!is_same_contestant(start, &rows->rows[i]))
            continue;
        last = &rows->rows[i];
        fprintf(f, "%.1f,%.1f ", curve_x(last), curve_y(last));
    }
    fputs("\"/>\n", f);
    for (unsigned i = first; i < rows->count; i++)
        if (is_same_contestant(start, &rows->rows[i]))
            fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" class=\"%s\"/>\n",
                    curve_x(&rows->rows[i]), curve_y(&rows->rows[i]), class_of(start));
    return (struct label){curve_x(last) + 8, curve_y(last) + 4, start};
}

static int
compare_labels(const void *a, const void *b)
{
    double x = ((const struct label *)a)->y, y = ((const struct label *)b)->y;

    return (x > y) - (x < y);
}

/* From top to bottom, each at least a line below the one before. */
static void
draw_labels(FILE *f, struct label *labels, unsigned count)
{
    double lowest = 0;

    qsort(labels, count, sizeof *labels, compare_labels);
    for (unsigned i = 0; i < count; i++) {
        const struct bench_row *row = labels[i].row;
        char text[80];
        labels[i].y = fmax(labels[i].y, lowest);
        lowest = labels[i].y + 14;
        snprintf(text, sizeof text, "%s %s%s%s", row->kind == BENCH_RAW ? "kernel" : row->impl,
                 row->mode, row->kind == BENCH_SPOKE && row->detail[0] != '\0' ? ", " : "",
                 row->kind == BENCH_SPOKE ? row->detail : "");
        draw_text(f, labels[i].x, labels[i].y, "start", "soft", text);
    }
}

static void
draw_size_axis(FILE *f)
{
    static const struct {
        const char *text;
        double size;
    } sizes[] = {
        {"64 B", 64}, {"1 KiB", 1024}, {"16 KiB", 16384}, {"64 KiB", 65536}, {"1 MiB", 1048576}};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        draw_text(f, NAME_WIDTH + (log2(sizes[i].size) - 3) / 23 * PLOT_WIDTH, CURVE_HEIGHT + 26,
                  "middle", "soft", sizes[i].text);
}

static void
draw_curve_axes(FILE *f)
{
    static const char *const speeds[] = {"100 GB/s", "10 GB/s", "1 GB/s",
                                         "100 MB/s", "10 MB/s", "1 MB/s"};

    for (int i = 0; i < 6; i++) {
        int y = i * CURVE_HEIGHT / 5 + 8;
        fprintf(f, "<line x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\" class=\"grid\"/>\n", NAME_WIDTH,
                NAME_WIDTH + PLOT_WIDTH, y, y);
        draw_text(f, NAME_WIDTH - 8, y + 4, "end", "soft", speeds[i]);
    }
    draw_size_axis(f);
}

static bool
is_same_drawing(const struct bench_row *a, const struct bench_row *b)
{
    return is_same_work(a, b) && is_throughput(a) && is_throughput(b) &&
           strcmp(a->transport, b->transport) == 0 && strcmp(a->wait, b->wait) == 0;
}

/* Whether row `lead` is the first of its drawing, and that has several sizes. */
static bool
leads_drawing(const struct bench_rows *rows, unsigned lead,
              bool (*is_same)(const struct bench_row *a, const struct bench_row *b))
{
    bool has_sizes = false;

    for (unsigned i = 0; i < rows->count; i++) {
        if (!is_same(&rows->rows[lead], &rows->rows[i]))
            continue;
        if (i < lead)
            return false;
        has_sizes |= rows->rows[i].size != rows->rows[lead].size;
    }
    return has_sizes;
}

/* One drawing for each transport and waiting policy that was measured with several sizes. */
static void
draw_curves(FILE *f, const struct bench_rows *rows)
{
    for (unsigned lead = 0; lead < rows->count; lead++) {
        struct label labels[CURVES_MAX];
        unsigned count = 0;
        if (!leads_drawing(rows, lead, is_same_drawing))
            continue;
        fprintf(f, "<h3>%s, %s: by size of %s, higher is better</h3>\n", rows->rows[lead].transport,
                rows->rows[lead].wait,
                bench_is_stream_rate(&rows->rows[lead]) ? "what is written in a call" : "message");
        open_svg(f, CURVE_HEIGHT + 36, "bytes per second by size");
        draw_curve_axes(f);
        for (unsigned i = lead; i < rows->count && count < CURVES_MAX; i++)
            if (is_same_drawing(&rows->rows[lead], &rows->rows[i]) && is_first_of_curve(rows, i))
                labels[count++] = draw_curve(f, rows, i);
        draw_labels(f, labels, count);
        fputs("</svg>\n", f);
    }
}

/* ---- shared memory beside sockets, by size ---- */

/* The scale of the crossover drawing: a message costs from 1/16 to 4 times what it costs through
 * sockets. */
enum { CROSS_LOW = -4, CROSS_HIGH = 2 };

/* What a message costs in shared memory beside plain sockets; NAN for other rows. */
static double
cross_cost(const struct bench_row *row)
{
    double ratio = row->ratio_beside.median;

    if (row->kind != BENCH_SPOKE || strcmp(row->transport, "shm") != 0 ||
        strcmp(row->bench, "loan") == 0 || bench_is_stream_rate(row) || !isfinite(ratio))
        return NAN;
    return row->smaller_is_better ? ratio : 1 / ratio;
}

static double
cross_y(double cost)
{
    double y = (log2(cost) - CROSS_LOW) / (CROSS_HIGH - CROSS_LOW);

    return (1 - fmin(fmax(y, 0), 1)) * CURVE_HEIGHT + 8;
}

/* Whether two rows are points of one curve.  From some size on a batch is one message: its curve
 * ends there. */
static bool
is_same_cross(const struct bench_row *a, const struct bench_row *b)
{
    return strcmp(a->bench, b->bench) == 0 && strcmp(a->mode, b->mode) == 0 &&
           strcmp(a->wait, b->wait) == 0 && isfinite(cross_cost(a)) && isfinite(cross_cost(b));
}

static bool
is_same_cross_drawing(const struct bench_row *a, const struct bench_row *b)
{
    return is_same_work(a, b) && strcmp(a->wait, b->wait) == 0 && isfinite(cross_cost(a)) &&
           isfinite(cross_cost(b));
}

static struct label
draw_cross_curve(FILE *f, const struct bench_rows *rows, unsigned first)
{
    const struct bench_row *start = &rows->rows[first], *last = start;

    fprintf(f, "<polyline class=\"path spoke\" style=\"fill:none%s\" points=\"",
            strcmp(start->mode, "shared") == 0 ? ";stroke-dasharray:6 3" : "");
    for (unsigned i = first; i < rows->count; i++) {
        if (!is_same_cross(start, &rows->rows[i]))
            continue;
        last = &rows->rows[i];
        fprintf(f, "%.1f,%.1f ", curve_x(last), cross_y(cross_cost(last)));
    }
    fputs("\"/>\n", f);
    for (unsigned i = first; i < rows->count; i++)
        if (is_same_cross(start, &rows->rows[i]))
            fprintf(f, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3.5\" class=\"spoke\"/>\n",
                    curve_x(&rows->rows[i]), cross_y(cross_cost(&rows->rows[i])));
    return (struct label){curve_x(last) + 8, cross_y(cross_cost(last)) + 4, start};
}

static void
draw_cross_axes(FILE *f)
{
    for (int p = CROSS_LOW; p <= CROSS_HIGH; p++) {
        double y = cross_y(exp2(p));
        char text[16];
        fprintf(f, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\" class=\"%s\"/>\n", NAME_WIDTH,
                NAME_WIDTH + PLOT_WIDTH, y, y, p == 0 ? "one" : "grid");
        snprintf(text, sizeof text, p < 0 ? "1/%d" : "%d", 1 << abs(p));
        draw_text(f, NAME_WIDTH - 8, y + 4, "end", "soft", text);
    }
    draw_size_axis(f);
}

/* All curves of one work and waiting policy, whose first row is `lead`, if it has several sizes. */
static void
draw_cross(FILE *f, const struct bench_rows *rows, unsigned lead)
{
    const struct bench_row *first = &rows->rows[lead];
    struct label labels[CURVES_MAX] = {0};
    unsigned count = 0;

    fprintf(f, "<h3>%s, %s: cost of a message in shared memory beside sockets, by its size</h3>\n",
            bench_title(first->bench), first->wait);
    open_svg(f, CURVE_HEIGHT + 36, "cost in shared memory beside sockets by size of message");
    draw_cross_axes(f);
    for (unsigned i = lead; i < rows->count && count < CURVES_MAX; i++) {
        bool is_new = is_same_cross_drawing(first, &rows->rows[i]);
        for (unsigned j = lead; j < i && is_new; j++)
            is_new = !is_same_cross(&rows->rows[j], &rows->rows[i]);
        if (is_new)
            labels[count++] = draw_cross_curve(f, rows, i);
    }
    draw_labels(f, labels, count);
    fputs("</svg>\n", f);
}

static void
draw_crossover(FILE *f, const struct bench_rows *rows)
{
    bool has_heading = false;

    for (unsigned i = 0; i < rows->count; i++) {
        if (!leads_drawing(rows, i, is_same_cross_drawing))
            continue;
        if (!has_heading)
            fputs("<h2>Shared memory beside sockets</h2>\n<p>What a message costs in shared "
                  "memory, as "
                  "a part of what it costs through a unix socket: the time of a round trip, or of "
                  "one "
                  "message of a stream. Below the dashed line shared memory is faster. Every byte "
                  "was "
                  "written by the sender and read by the receiver.</p>\n",
                  f);
        has_heading = true;
        draw_cross(f, rows, i);
    }
}

/* ---- ratios ---- */

/* So that shorter is always better beside the kernel, and longer always better beside others. */
static double
cost(const struct bench_row *row, double ratio, bool is_cost)
{
    return row->smaller_is_better == is_cost ? ratio : 1 / ratio;
}

static const char *
short_title(const struct bench_row *row)
{
    if (bench_is_stream_rate(row))
        return "stream";
    if (strcmp(row->bench, "stream-trip") == 0)
        return "stream trip";
    return bench_is_latency(row) ? "round trip" : "one-way";
}

static void
draw_ratio_row(FILE *f, const struct bench_row *row, double value, double full, int y)
{
    char text[96], size[32];

    snprintf(text, sizeof text, "%s %s %s %s", short_title(row), row->transport,
             bench_size_text(row->size, size), row->wait);
    draw_text(f, NAME_WIDTH + 60, y + BAR_HEIGHT - 3, "end", "", text);
    fprintf(f,
            "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"%d\" rx=\"2\" class=\"bar spoke\"/>\n",
            NAME_WIDTH + 68, y, fmax(fmin(value / full, 1) * (PLOT_WIDTH - 240), 1), BAR_HEIGHT);
    snprintf(text, sizeof text, "%.2f ×, %s%s%s", value, row->mode,
             row->detail[0] != '\0' ? ", " : "", row->detail);
    /* Not under the dashed line, which is at 1. */
    draw_text(f, NAME_WIDTH + 74 + fmin(fmax(value, 1) / full, 1) * (PLOT_WIDTH - 240),
              y + BAR_HEIGHT - 3, "start", "soft", text);
}

static double
ratio_of(const struct bench_row *row, bool to_raw)
{
    double ratio = to_raw ? row->ratio_raw.median : row->ratio_best_peer.median;

    if (row->kind != BENCH_SPOKE || (!bench_is_latency(row) && !is_throughput(row)))
        return NAN;
    return cost(row, ratio, to_raw);
}

static void
draw_ratios(FILE *f, const struct bench_rows *rows, bool to_raw)
{
    double full = to_raw ? 2 : 1;
    int y = 4;
    unsigned n = 0;

    for (unsigned i = 0; i < rows->count; i++) {
        double value = ratio_of(&rows->rows[i], to_raw);
        if (!isfinite(value))
            continue;
        n++;
        full = fmax(full, fmin(value, to_raw ? 5 : 20));
    }
    if (n == 0)
        return;
    if (to_raw)
        fputs("<h2>Beside the bare kernel</h2>\n<p>How many times the cost of the smallest program "
              "that does the same "
              "without a library. The dashed line is that program: shorter is better.</p>\n",
              f);
    else
        fputs("<h2>Beside the best other library</h2>\n<p>How many times faster than the fastest "
              "of them. The dashed line "
              "is that library: longer is better.</p>\n",
              f);
    open_svg(f, (int)n * BAR_STEP + 8, "ratios");
    for (unsigned i = 0; i < rows->count; i++) {
        double value = ratio_of(&rows->rows[i], to_raw);
        if (!isfinite(value))
            continue;
        draw_ratio_row(f, &rows->rows[i], value, full, y);
        y += BAR_STEP;
    }
    draw_line(f, NAME_WIDTH + 68 + 1 / full * (PLOT_WIDTH - 240), 0, y, "one");
    fputs("</svg>\n", f);
}

/* ---- numbers ---- */

static void
print_cell(FILE *f, double value)
{
    if (isfinite(value))
        fprintf(f, "<td>%.4g</td>", value);
    else
        fputs("<td>–</td>", f);
}

static void
print_numbers(FILE *f, const struct bench_rows *rows)
{
    fputs("<details><summary>The "
          "numbers</summary><table>\n<tr><th>work</th><th>who</th><th>median</th><th>min</th>"
          "<th>max</th><th>unit</th><th>p99</th><th>p99.9</th><th>CPU µs/msg</th><th>× "
          "raw</th><th>× best peer</th></tr>\n",
          f);
    for (unsigned i = 0; i < rows->count; i++) {
        const struct bench_row *row = &rows->rows[i];
        char size[32];
        fprintf(f, "<tr><td>%s %s %s %s</td><td>%s %s %s</td>", row->bench, row->transport,
                bench_size_text(row->size, size), row->wait, row->impl, row->mode, row->detail);
        print_cell(f, row->value.median);
        print_cell(f, row->value.min);
        print_cell(f, row->value.max);
        fprintf(f, "<td>%s (%s)</td>", row->unit, row->metric);
        print_cell(f, row->p99);
        print_cell(f, row->p999);
        print_cell(f, row->cpu_us_per_msg);
        print_cell(f, row->ratio_raw.median);
        print_cell(f, row->ratio_best_peer.median);
        fputs("</tr>\n", f);
    }
    fputs("</table></details>\n", f);
}

static bool
has_work(const struct bench_rows *rows, bool (*is_work)(const struct bench_row *))
{
    for (unsigned i = 0; i < rows->count; i++)
        if (is_work(&rows->rows[i]))
            return true;
    return false;
}

void
bench_print_html(FILE *f, const struct bench_rows *rows)
{
    char date[64] = "";
    time_t now = time(NULL);
    struct tm tm;

    if (gmtime_r(&now, &tm) != NULL)
        strftime(date, sizeof date, "%Y-%m-%d %H:%M UTC", &tm);
    fputs(head, f);
    fprintf(f,
            "<p>%s. Everything was measured in turn on one machine; compare the lengths, not the "
            "clock.</p>\n",
            date);
    if (has_work(rows, bench_is_latency))
        draw_latency(f, rows);
    if (has_work(rows, is_throughput)) {
        draw_throughput(f, rows);
        draw_curves(f, rows);
    }
    draw_crossover(f, rows);
    draw_ratios(f, rows, true);
    draw_ratios(f, rows, false);
    print_numbers(f, rows);
    fputs("</body></html>\n", f);
}
