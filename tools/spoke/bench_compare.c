/* SPDX-License-Identifier: MIT */
/* Runs the contestants of one work in turn, round after round, forwards and backwards, so that
 * whatever the machine does meanwhile happens to all of them; and turns their results into ratios
 * of the same round. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "bench_plan.h"
#include "tool.h"

enum {
    CONTESTANTS_MAX = 96,
    TEXT_MAX = 24,
    LARGE_BODY = 64 * 1024, /* from here on a batch is one message */
    RAW_KEPT = 3,           /* raw mechanisms that stay after a trial … */
    RAW_KEPT_OF_SIZE = 2,   /* … of each size, where a group has several */
    TRIALS = 2,
    SMALL_BODY = 64, /* what a large loan is beside */
};

/* One thing to measure. */
struct work {
    const char *word;        /* what the programs know it as */
    const char *title;       /* for the progress line */
    const char *bench;       /* the rows' name, one message a call */
    const char *bench_batch; /* and in batches, or of a stream in chunks */
    const char *receivers;   /* how many, as a number */
    bool is_latency;
    bool is_pattern; /* between two processes only, and the client receives; there is no raw program
                      */
    bool is_survey;  /* ZeroMQ has none; the server takes the time */
    bool is_lossy;   /* nanomsg loses most of it */
    bool is_ours;    /* other libraries have no part in it */
    bool
        is_loan; /* only in shared memory, and beside a small message; nor is there a raw program */
    bool is_handshake;   /* of tls+tcp, one connection after the other */
    bool has_edge;       /* measured over tls+tcp, ws and wss too, unless transports are named */
    bool is_stream;      /* of bytes, all of which are written and read */
    bool has_all_sizes;  /* in one group: the rate of a stream is that of its best size of a call */
    const char *pattern; /* sockets that are not the word's own, or none, or NULL */
};

/* One result, in the unit of the row. */
struct result {
    double value;
    double p50, p99, p999;
    double cpu_us_per_msg;
};

struct contestant {
    enum bench_kind kind;
    const char *program;
    const char *impl;
    const char *mode; /* "" if it has none */
    const char *wait; /* what it is told */
    const char *transport;
    const char *bench;      /* its row's name */
    const char *pattern;    /* as the work's, or another */
    const char *const *env; /* or NULL */
    size_t size;
    bool touches_all; /* every byte of a body is written and read: else it would come for nothing */
    bool is_measure;  /* what the others of its mode and batch are beside */
    char batch[TEXT_MAX];
    char chunk[TEXT_MAX];
    char detail[TEXT_MAX];
    bool is_out; /* a run failed, or faster ones of its kind were found */
    double trial;
    struct result results[BENCH_ROUNDS_MAX];
};

struct group {
    struct bench_plan *plan;
    struct bench_runner *runner;
    const struct work *work;
    bool is_latency;
    const char *transport;
    const char *wait;
    size_t size; /* of those who are being added */
    unsigned count;
    struct contestant contestants[CONTESTANTS_MAX];
};

/* ---- who takes part ---- */

static bool
is_shm(const struct group *g)
{
    return strcmp(g->transport, "shm") == 0;
}

static bool
in_memory(const struct group *g)
{
    return is_shm(g) || strcmp(g->transport, "inproc") == 0;
}

static struct contestant *
add(struct group *g, enum bench_kind kind, const char *program, const char *impl, const char *wait)
{
    struct contestant *c;

    if (g->count == CONTESTANTS_MAX || !bench_runner_has(g->runner, program))
        return NULL;
    c = &g->contestants[g->count++];
    *c = (struct contestant){
        .kind = kind, .program = program, .impl = impl, .mode = "", .wait = wait};
    c->transport = g->transport;
    c->bench = g->work->bench;
    c->pattern = g->work->pattern;
    c->size = g->size;
    c->touches_all = is_shm(g) || g->work->is_stream;
    strcpy(c->batch, "1");
    strcpy(c->chunk, "65536");
    return c;
}

/* Frames of WebSocket have no raw program: what is below them stands for it. */
static const char *
raw_transport(const struct group *g)
{
    if (strcmp(g->transport, "ws") == 0)
        return "tcp";
    return strcmp(g->transport, "wss") == 0 ? "tls+tcp" : g->transport;
}

static void
add_raw(struct group *g, const char *program, const char *detail, const char *chunk,
        const char *wait)
{
    struct contestant *c = add(g, BENCH_RAW, program, "raw", wait);

    if (c == NULL)
        return;
    c->transport = raw_transport(g);
    snprintf(c->chunk, sizeof c->chunk, "%s", chunk);
    if (g->is_latency || in_memory(g) || g->work->is_stream || g->work->is_handshake)
        snprintf(c->detail, sizeof c->detail, "%s", detail);
    else
        snprintf(c->detail, sizeof c->detail, "%s %ldK", detail, strtol(chunk, NULL, 10) / 1024);
}

/* The mechanisms for one waiting policy. */
static void
add_raws_waiting(struct group *g, const char *wait)
{
    static const char *const chunks[] = {"16384", "65536", "262144"};
    bool is_one, has_tls = bench_transport_has_tls(g->transport);

    if (in_memory(g)) {
        add_raw(g, is_shm(g) ? "bench-raw-shm" : "bench-raw-inproc",
                strcmp(wait, "block") == 0 ? "futex" : "spin", "65536", wait);
        return;
    }
    /* Of a stream the chunk is the size. */
    is_one = g->is_latency || g->work->is_stream || g->work->is_handshake;
    for (unsigned i = 0; i < (is_one ? 1 : sizeof chunks / sizeof *chunks); i++) {
        if (has_tls)
            add_raw(g, "bench-raw-tls", "OpenSSL", chunks[i], wait);
        else
            add_raw(g, "bench-raw-sockets", "calls", chunks[i], wait);
        if (!has_tls && (is_one || i > 0))
            add_raw(g, "bench-raw-uring", "uring", chunks[i], wait);
    }
}

/* Raw programs have no adaptive policy: the fastest is whichever wins, and for round trips that is
 * one that spins. */
static void
add_raws(struct group *g)
{
    bool is_adaptive = strcmp(g->wait, "adaptive") == 0;

    if (g->work->is_pattern || g->work->is_loan)
        return;
    if (!is_adaptive || !g->is_latency)
        add_raws_waiting(g, is_adaptive ? "block" : g->wait);
    if (is_adaptive)
        add_raws_waiting(g, "poll");
}

/* By which way spoke's messages go in a group. */
struct way {
    enum bench_kind kind;
    const char *impl;
    const char *transport;
    const char *const *env;
    size_t size;
    const char *detail; /* or "" */
    bool is_measure;
};

const char *const bench_plain_sockets[] = {"SPOKE_UPGRADE=off", NULL};
static const char *const moves[] = {"SPOKE_UPGRADE=on", NULL};

static struct contestant *
add_spoke(struct group *g, const struct way *way, const char *mode, const char *batch)
{
    struct contestant *c = add(g, way->kind, "bench-spoke", way->impl, g->wait);

    if (c == NULL)
        return NULL;
    c->mode = mode;
    c->transport = way->transport;
    c->env = way->env;
    c->size = way->size;
    c->touches_all |= way->env == moves;
    c->is_measure = way->is_measure;
    snprintf(c->batch, sizeof c->batch, "%s", batch);
    snprintf(c->detail, sizeof c->detail, "%s", way->detail);
    if (strcmp(batch, "1") != 0) {
        c->bench = g->work->bench_batch;
        snprintf(c->detail, sizeof c->detail, "batch %s", batch);
    }
    return c;
}

/* Where a message of a stream can go as it is, not copied at either end, that is another way. */
static void
add_chunks(struct group *g, const struct way *way, const char *mode)
{
    struct contestant *c = add_spoke(g, way, mode, "1");

    if (c == NULL)
        return;
    c->bench = g->work->bench_batch;
    c->pattern = "chunks";
    strcpy(c->detail, "chunks");
}

static void
add_spokes_by(struct group *g, const struct way *way)
{
    const struct bench_plan *p = g->plan;

    for (unsigned i = 0; i < p->modes.count; i++) {
        const char *mode = p->modes.words[i];
        if (g->is_latency || g->work->is_stream || g->work->is_handshake || g->size >= LARGE_BODY) {
            add_spoke(g, way, mode, "1");
            if (g->work->is_stream && !g->is_latency && in_memory(g))
                add_chunks(g, way, mode);
        } else if (p->batches.count > 0) {
            for (unsigned j = 0; j < p->batches.count; j++)
                add_spoke(g, way, mode, p->batches.words[j]);
        } else {
            add_spoke(g, way, mode, "1");
            if (strcmp(mode, "owned") == 0)
                add_spoke(g, way, mode, "256");
        }
    }
}

/* Between processes plain sockets take part beside shared memory.  Over ipc they are what is
 * judged, and what moves into shared memory by itself is shown beside.  What has one more layer is
 * beside the one without. */
static void
add_spokes(struct group *g)
{
    struct way judged = {BENCH_SPOKE, "spoke", g->transport, NULL, g->size, "", false};
    struct way moved = {BENCH_BESIDE, "spoke", "ipc", moves, g->size, "", false};
    struct way plain = {BENCH_BESIDE, "spoke-sockets", "ipc", bench_plain_sockets, g->size, "",
                        true};
    struct way below = {BENCH_BESIDE, "spoke-tcp", "tcp", NULL, g->size, "", true};
    struct way small = {BENCH_BESIDE, "spoke", g->transport, NULL, SMALL_BODY, "64 B", true};

    if (g->work->is_stream) {
        add_spokes_by(g, &judged); /* over ipc it stays on its socket */
        return;
    }
    if (strcmp(g->transport, "ipc") == 0) {
        add_spokes_by(g, &moved);
        plain.kind = BENCH_SPOKE;
        add_spokes_by(g, &plain);
        return;
    }
    add_spokes_by(g, &judged);
    if (strcmp(g->transport, "wss") == 0) {
        below.impl = "spoke-tls";
        below.transport = "tls+tcp";
    }
    if (g->work->is_loan)
        add_spokes_by(g, &small);
    else if (bench_transport_is_edge(g->transport) && !g->work->is_handshake)
        add_spokes_by(g, &below);
    else if (is_shm(g))
        add_spokes_by(g, &plain);
}

/* Peers know two ways to wait: their own, or being asked again and again without waiting. */
static const char *
wait_of_peers(const struct group *g)
{
    return strcmp(g->wait, "poll") == 0 ? "poll" : "block";
}

/* Who has shared memory, and the one that most would use if they had none. */
static void
add_peers_shm(struct group *g)
{
    struct contestant *c;

    if (!g->work->is_pattern)
        add(g, BENCH_PEER, "bench-peer-iceoryx", "iceoryx", wait_of_peers(g));
    if (g->work->is_survey)
        return;
    c = add(g, BENCH_PEER, "bench-peer-zeromq", "zeromq", wait_of_peers(g));
    if (c == NULL)
        return;
    c->transport = "ipc";
    snprintf(c->detail, sizeof c->detail, "over ipc");
}

static void
add_peers(struct group *g)
{
    const char *wait = wait_of_peers(g);

    if (is_shm(g)) {
        add_peers_shm(g);
        return;
    }
    if (bench_transport_has_tls(g->transport)) /* they have none, or another cipher */
        return;
    if (!g->work->is_survey && !bench_transport_is_edge(g->transport))
        add(g, BENCH_PEER, "bench-peer-zeromq", "zeromq", wait);
    /* NNG's surveys come to a standstill when it is asked without waiting. */
    add(g, BENCH_PEER, "bench-peer-nng", "nng", g->work->is_survey ? "block" : wait);
    if (g->work->is_lossy)
        return;
    add(g, BENCH_PEER, "bench-peer-nanomsg", "nanomsg", wait);
    if (g->runner->stand_in_dir[0] != '\0')
        add(g, BENCH_STAND_IN, "bench-peer-nanomsg", "spoke-nanomsg", wait);
}

/* ---- running ---- */

static void
show_progress(const struct group *g, const struct contestant *c, const char *step)
{
    char size[32], text[160];

    snprintf(text, sizeof text, "%s %s %s, wait %s: %s, %s %s %s", g->work->title, g->transport,
             bench_size_text(c->size, size), g->wait, step, c->impl, c->mode, c->detail);
    bench_progress(g->plan, text);
}

static struct result
read_result(const struct group *g, const struct bench_lines *lines)
{
    const char *asker = g->work->is_survey ? lines->server : lines->client;
    double cpu = bench_line_number(lines->server, "cpu_us") +
                 bench_line_number(lines->client, "cpu_us");

    if (!g->is_latency) {
        const char *receiver = g->work->is_pattern ? lines->client : lines->server;
        double messages = bench_line_number(receiver, "messages");
        const char *rate = g->work->is_stream ? "bytes_per_s" : "rate";
        return (struct result){.value = bench_line_number(receiver, rate),
                               .p50 = NAN,
                               .p99 = NAN,
                               .p999 = NAN,
                               .cpu_us_per_msg = cpu / messages};
    }
    return (struct result){.value = bench_line_number(asker, "p50_ns") / 1e3,
                           .p50 = bench_line_number(asker, "p50_ns") / 1e3,
                           .p99 = bench_line_number(asker, "p99_ns") / 1e3,
                           .p999 = bench_line_number(asker, "p999_ns") / 1e3,
                           .cpu_us_per_msg = cpu / bench_line_number(asker, "messages")};
}

/* The environment in which a program made for libnanomsg runs on spoke, and waits as the group
 * does. */
struct stand_in_env {
    char libraries[2 * 4096 + 128];
    char wait[TEXT_MAX];
    const char *list[3];
};

static const char *const *
stand_in_env(struct stand_in_env *e, const struct group *g)
{
    const char *libraries = getenv("LD_LIBRARY_PATH");

    snprintf(e->libraries, sizeof e->libraries, "LD_LIBRARY_PATH=%s%s%s", g->runner->stand_in_dir,
             libraries != NULL ? ":" : "", libraries != NULL ? libraries : "");
    snprintf(e->wait, sizeof e->wait, "SPOKE_WAIT=%s", g->wait);
    e->list[0] = e->libraries;
    e->list[1] = e->wait;
    e->list[2] = NULL;
    return e->list;
}

/* Whether the library that was meant has run: the loader may have found another one. */
static bool
is_right_library(const struct contestant *c, const struct bench_lines *lines)
{
    bool is_ours = c->kind == BENCH_SPOKE || c->kind == BENCH_BESIDE;
    char impl[TEXT_MAX * 2];

    if (c->kind == BENCH_RAW)
        return true;
    snprintf(impl, sizeof impl, "\"impl\":\"%s\"", is_ours ? "spoke" : c->impl);
    if (strstr(lines->server, impl) != NULL && strstr(lines->client, impl) != NULL)
        return true;
    tool_error("%s did not run on %s: check LD_LIBRARY_PATH and LD_PRELOAD", c->program, c->impl);
    return false;
}

static struct result
run_one(struct group *g, struct contestant *c, double seconds, const char *step)
{
    struct result none = {NAN, NAN, NAN, NAN, NAN};
    char size[TEXT_MAX], duration[TEXT_MAX];
    const char *args[] = {"--bench",
                          g->work->word,
                          "--size",
                          size,
                          "--seconds",
                          duration,
                          "--wait",
                          c->wait,
                          "--batch",
                          c->batch,
                          "--chunk",
                          c->chunk,
                          "--connections",
                          g->work->receivers,
                          "--touch",
                          c->touches_all ? "all" : "some",
                          NULL,
                          NULL,
                          NULL,
                          NULL,
                          NULL};
    struct bench_lines lines;
    static struct stand_in_env env;

    show_progress(g, c, step);
    snprintf(size, sizeof size, "%zu", c->size);
    snprintf(duration, sizeof duration, "%.3f", seconds);
    if (c->mode[0] != '\0') {
        args[16] = "--mode";
        args[17] = c->mode;
    }
    if (c->pattern != NULL) {
        const char **end = &args[c->mode[0] != '\0' ? 18 : 16];
        end[0] = "--pattern";
        end[1] = c->pattern;
    }
    if (bench_runner_run(g->runner, c->program, c->transport, args,
                         c->kind == BENCH_STAND_IN ? stand_in_env(&env, g) : c->env,
                         (unsigned)(seconds * 3) + 20, &lines) == 0 &&
        is_right_library(c, &lines))
        return read_result(g, &lines);
    if (bench_runner_signal() == 0) {
        c->is_out = true;
        g->plan->failed++;
    }
    return none;
}

static bool
is_better(const struct group *g, double a, double b)
{
    return g->is_latency ? a < b : a > b;
}

/* The slowest of a size, unless there are few.  Returns how many are too many still. */
static unsigned
drop_slowest_raw(struct group *g, size_t size)
{
    unsigned kept = g->work->has_all_sizes ? RAW_KEPT_OF_SIZE : RAW_KEPT, left = 0;
    struct contestant *worst = NULL;

    for (unsigned i = 0; i < g->count; i++) {
        struct contestant *c = &g->contestants[i];
        if (c->kind != BENCH_RAW || c->is_out || c->size != size)
            continue;
        left++;
        if (worst == NULL || is_better(g, worst->trial, c->trial))
            worst = c;
    }
    if (left <= kept)
        return 0;
    worst->is_out = true;
    return left - 1 - kept;
}

static bool
is_first_raw_of_size(const struct group *g, unsigned index)
{
    const struct contestant *c = &g->contestants[index];

    for (unsigned i = 0; i < index; i++)
        if (g->contestants[i].kind == BENCH_RAW && g->contestants[i].size == c->size)
            return false;
    return c->kind == BENCH_RAW;
}

static void
try_raws(struct group *g, bool is_first)
{
    double seconds = g->plan->seconds < 0.2 ? g->plan->seconds : 0.2;

    for (unsigned i = 0; i < g->count && bench_goes_on(g->plan); i++) {
        struct contestant *c = &g->contestants[i];
        double value;
        if (c->kind != BENCH_RAW || c->is_out)
            continue;
        value = run_one(g, c, seconds, "trial").value;
        if (is_first || is_better(g, value, c->trial))
            c->trial = value;
    }
}

/* Many raw mechanisms: try all shortly, keep the fastest few. */
static void
choose_raws(struct group *g)
{
    unsigned raws = 0, one_of_each = 0;

    for (unsigned i = 0; i < g->count; i++) {
        raws += g->contestants[i].kind == BENCH_RAW;
        one_of_each += is_first_raw_of_size(g, i);
    }
    if (raws <= (g->work->has_all_sizes ? one_of_each * RAW_KEPT_OF_SIZE : RAW_KEPT))
        return;
    for (unsigned n = 0; n < TRIALS; n++)
        try_raws(g, n == 0);
    for (unsigned i = 0; i < g->count; i++)
        while (drop_slowest_raw(g, g->contestants[i].size) > 0)
            continue;
}

static void
run_rounds(struct group *g)
{
    for (unsigned round = 0; round < g->plan->rounds; round++) {
        for (unsigned i = 0; i < g->count; i++) {
            struct contestant *c = &g->contestants[round % 2 == 0 ? i : g->count - 1 - i];
            char step[TEXT_MAX * 2];
            if (c->is_out || !bench_goes_on(g->plan))
                continue;
            snprintf(step, sizeof step, "round %u of %u", round + 1, g->plan->rounds);
            c->results[round] = run_one(g, c, g->plan->seconds, step);
        }
    }
}

/* ---- results ---- */

#define MEDIAN_OF(g, c, field) (median_field(g, c, offsetof(struct result, field)).median)

static struct bench_spread
median_field(const struct group *g, const struct contestant *c, size_t offset)
{
    double values[BENCH_ROUNDS_MAX];

    for (unsigned i = 0; i < g->plan->rounds; i++)
        memcpy(&values[i], (const char *)&c->results[i] + offset, sizeof values[i]);
    return bench_spread_of(values, g->plan->rounds);
}

/* Ratios of the same rounds. */
static struct bench_spread
ratio_to(const struct group *g, const struct contestant *c, const struct contestant *base)
{
    double values[BENCH_ROUNDS_MAX];

    if (base == NULL)
        return (struct bench_spread){NAN, NAN, NAN};
    for (unsigned i = 0; i < g->plan->rounds; i++)
        values[i] = c->results[i].value / base->results[i].value;
    return bench_spread_of(values, g->plan->rounds);
}

/* Who is meant; NULL or 0: any. */
struct whom {
    const char *impl;
    const char *mode;
    size_t size;
};

static bool
is_meant(const struct whom *w, const struct contestant *c)
{
    return (w->impl == NULL || strcmp(w->impl, c->impl) == 0) &&
           (w->mode == NULL || strcmp(w->mode, c->mode) == 0) &&
           (w->size == 0 || w->size == c->size);
}

/* The best of a kind by its median, or NULL. */
static const struct contestant *
best_among(const struct group *g, enum bench_kind kind, const struct whom *whom)
{
    const struct contestant *best = NULL;

    for (unsigned i = 0; i < g->count; i++) {
        const struct contestant *c = &g->contestants[i];
        if (c->kind != kind || c->is_out || !is_meant(whom, c))
            continue;
        if (best == NULL || is_better(g, MEDIAN_OF(g, c, value), MEDIAN_OF(g, best, value)))
            best = c;
    }
    return best;
}

static const struct contestant *
best_of(const struct group *g, enum bench_kind kind, const char *impl)
{
    const struct whom whom = {.impl = impl};

    return best_among(g, kind, &whom);
}

static const struct contestant *
best_raw_of_size(const struct group *g, size_t size)
{
    const struct whom whom = {.size = size};

    return best_among(g, BENCH_RAW, &whom);
}

/* Beside spoke in the same mode and batch, by the other way; or of all sizes beside raw of the
 * same. */
static struct bench_spread
ratio_beside(const struct group *g, const struct contestant *c)
{
    if (g->work->has_all_sizes)
        return ratio_to(g, c, c->kind == BENCH_SPOKE ? best_raw_of_size(g, c->size) : NULL);
    for (unsigned i = 0; i < g->count; i++) {
        const struct contestant *base = &g->contestants[i];
        if (base->is_measure && !base->is_out && !c->is_measure &&
            (c->kind == BENCH_SPOKE || c->kind == BENCH_BESIDE) &&
            strcmp(base->mode, c->mode) == 0 && strcmp(base->batch, c->batch) == 0)
            return ratio_to(g, c, base);
    }
    return ratio_to(g, c, NULL);
}

/* The lowest CPU time per message of any peer. */
static double
best_peer_cpu(const struct group *g)
{
    double best = NAN;

    for (unsigned i = 0; i < g->count; i++)
        if (g->contestants[i].kind == BENCH_PEER && !g->contestants[i].is_out)
            best = fmin(best,
                        MEDIAN_OF(g, &g->contestants[i], cpu_us_per_msg)); /* fmin ignores NAN */
    return best;
}

static bool
is_best_of_its_mode(const struct group *g, const struct contestant *c)
{
    const struct whom whom = {.mode = c->mode};

    return best_among(g, c->kind, &whom) == c;
}

static void
add_row(const struct group *g, const struct contestant *c, struct bench_rows *rows)
{
    struct bench_row *row = bench_rows_add(rows);

    if (row == NULL)
        return;
    row->bench = c->bench;
    row->kind = c->kind;
    snprintf(row->impl, sizeof row->impl, "%s", c->impl);
    snprintf(row->detail, sizeof row->detail, "%s", c->detail);
    snprintf(row->transport, sizeof row->transport, "%s", g->transport);
    snprintf(row->mode, sizeof row->mode, "%s", c->mode);
    snprintf(row->wait, sizeof row->wait, "%s", g->wait);
    snprintf(row->via, sizeof row->via, "%s", c->transport);
    row->size = c->size;
    row->metric = g->is_latency ? "round_trip" : "rate";
    row->unit = g->is_latency ? "us" : g->work->is_stream ? "byte/s" : "msg/s";
    row->smaller_is_better = g->is_latency;
    row->value = median_field(g, c, offsetof(struct result, value));
    row->p50 = MEDIAN_OF(g, c, p50);
    row->p99 = MEDIAN_OF(g, c, p99);
    row->p999 = MEDIAN_OF(g, c, p999);
    row->cpu_us_per_msg = MEDIAN_OF(g, c, cpu_us_per_msg);
    row->ratio_raw = ratio_to(g, c, best_of(g, BENCH_RAW, NULL));
    row->ratio_best_peer = ratio_to(g, c, best_of(g, BENCH_PEER, NULL));
    row->ratio_zeromq = ratio_to(g, c, best_of(g, BENCH_PEER, "zeromq"));
    row->ratio_nanomsg = ratio_to(g, c, best_of(g, BENCH_PEER, "nanomsg"));
    row->ratio_iceoryx = ratio_to(g, c, best_of(g, BENCH_PEER, "iceoryx"));
    row->ratio_beside = ratio_beside(g, c);
    row->is_best = g->work->has_all_sizes && is_best_of_its_mode(g, c);
    row->cpu_ratio_best_peer = row->cpu_us_per_msg / best_peer_cpu(g);
    row->group = rows->groups;
}

/* The fastest raw mechanism of a size stands for all of them. */
static void
add_rows(const struct group *g, struct bench_rows *rows)
{
    for (unsigned i = 0; i < g->count; i++) {
        const struct contestant *c = &g->contestants[i];
        if (!c->is_out && (c->kind != BENCH_RAW || c == best_raw_of_size(g, c->size)))
            add_row(g, c, rows);
    }
}

static void
run_group(struct group *g, const size_t *sizes, unsigned count, struct bench_rows *rows)
{
    for (unsigned i = 0; i < count; i++) {
        g->size = sizes[i];
        add_raws(g);
        add_spokes(g);
        if (g->plan->with_peers && !g->work->is_ours)
            add_peers(g);
    }
    choose_raws(g);
    run_rounds(g);
    bench_progress(g->plan, NULL);
    if (!bench_goes_on(g->plan))
        return; /* Half a group compares nothing. */
    add_rows(g, rows);
    bench_print_group(g->plan->table, rows, rows->groups);
    rows->groups++;
}

/* Patterns are between processes; a loan is of memory that is shared. */
static bool
has_transport(const struct work *work, const char *transport)
{
    if (work->is_loan)
        return strcmp(transport, "shm") == 0;
    if (work->is_handshake)
        return strcmp(transport, "tls+tcp") == 0;
    return !work->is_pattern || strcmp(transport, "inproc") != 0;
}

/* What was asked for, or what suits the work: patterns have no target but other libraries. */
static const size_t *
sizes_of(const struct bench_plan *p, const struct work *work, unsigned *count)
{
    static const size_t of_streams[] = {64, 1048576}, of_patterns[] = {64, 1024, 65536};
    static const size_t of_calls[] = {64, 1024, 16384, 65536, 262144, 1048576};

    if (p->sizes > 0) {
        *count = p->sizes;
        return p->size;
    }
    if (work->is_pattern) {
        *count = p->with_peers && !work->is_ours ? 3 : 1;
        return of_patterns;
    }
    if (work->has_all_sizes) {
        *count = sizeof of_calls / sizeof *of_calls;
        return of_calls;
    }
    if (work->is_loan) {
        *count = 1;
        return &of_streams[1];
    }
    *count = work->is_latency || work->is_handshake ? 1 : 2;
    return of_streams;
}

static void
compare_work(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows,
             const struct work *work)
{
    static const struct bench_list latency_waits = {3, {"block", "poll", "adaptive"}};
    static const struct bench_list throughput_waits = {2, {"block", "adaptive"}};
    static const struct bench_list handshake_waits = {1, {"block"}};
    const struct bench_list *transports = bench_transports(p, work->has_edge);
    const struct bench_list *waits = p->waits.count > 0                    ? &p->waits
                                     : work->is_handshake                  ? &handshake_waits
                                     : work->is_latency || work->is_stream ? &latency_waits
                                                                           : &throughput_waits;
    unsigned count, at_once;
    const size_t *sizes = sizes_of(p, work, &count);
    static struct group g;

    at_once = work->has_all_sizes ? count : 1;

    for (unsigned t = 0; t < transports->count; t++) {
        if (!has_transport(work, transports->words[t]))
            continue;
        for (unsigned s = 0; s < count; s += at_once) {
            for (unsigned w = 0; w < waits->count && bench_goes_on(p); w++) {
                memset(&g, 0, sizeof g);
                g.work = work;
                g.is_latency = work->is_latency;
                g.plan = p;
                g.runner = r;
                g.transport = transports->words[t];
                g.wait = waits->words[w];
                run_group(&g, &sizes[s], at_once, rows);
            }
        }
    }
}

/* PUB to as many SUB as were asked for. */
static void
compare_fanout(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const char *const names[][3] = {{"1", "fanout-1", "fanout-1-batch"},
                                           {"10", "fanout-10", "fanout-10-batch"},
                                           {"100", "fanout-100", "fanout-100-batch"},
                                           {"1000", "fanout-1000", "fanout-1000-batch"}};

    for (unsigned i = 0; i < p->subscribers.count; i++) {
        for (unsigned j = 0; j < sizeof names / sizeof *names; j++) {
            struct work work = {.word = "fanout",
                                .title = bench_title(names[j][1]),
                                .bench = names[j][1],
                                .bench_batch = names[j][2],
                                .receivers = names[j][0],
                                .is_pattern = true,
                                .is_lossy = true};
            if (strcmp(names[j][0], p->subscribers.words[i]) == 0)
                compare_work(p, r, rows, &work);
        }
    }
}

/* One member of a BUS, or of a STAR, to ten others.  NNG and nanomsg have BUS, and lose what comes
 * faster than their queues of 16 messages and of one: not all messages arrive at any rate. */
static void
compare_bus(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const struct work works[] = {{.word = "fanout",
                                         .title = "BUS",
                                         .bench = "bus-10",
                                         .bench_batch = "bus-10-batch",
                                         .receivers = "10",
                                         .is_pattern = true,
                                         .is_ours = true,
                                         .pattern = "bus"},
                                        {.word = "fanout",
                                         .title = "STAR",
                                         .bench = "star-10",
                                         .bench_batch = "star-10-batch",
                                         .receivers = "10",
                                         .is_pattern = true,
                                         .is_ours = true,
                                         .pattern = "star"}};

    for (size_t i = 0; i < sizeof works / sizeof *works; i++)
        compare_work(p, r, rows, &works[i]);
}

/* SURVEYOR and ten RESPONDENT. */
static void
compare_survey(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const struct work survey = {.word = "survey",
                                       .title = "survey",
                                       .bench = "survey-10",
                                       .receivers = "10",
                                       .is_latency = true,
                                       .is_pattern = true,
                                       .is_survey = true};

    compare_work(p, r, rows, &survey);
}

/* Bytes in place of messages: what raw does, too, but in memory, where its messages have the size
 * of a call. */
static void
compare_stream(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const struct work trip = {.word = "latency",
                                     .title = "stream, round trip",
                                     .bench = "stream-trip",
                                     .receivers = "1",
                                     .is_latency = true,
                                     .is_ours = true,
                                     .is_stream = true,
                                     .pattern = "stream"};
    static const struct work rate = {.word = "throughput",
                                     .title = "stream",
                                     .bench = "stream-rate",
                                     .bench_batch = "stream-rate-chunks",
                                     .receivers = "1",
                                     .is_ours = true,
                                     .is_stream = true,
                                     .has_all_sizes = true,
                                     .pattern = "stream"};

    compare_work(p, r, rows, &trip);
    compare_work(p, r, rows, &rate);
}

/* Connections with TLS, one after the other. */
static void
compare_handshake(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const struct work works[] = {{.word = "handshakes",
                                         .title = "full handshakes",
                                         .bench = "handshake",
                                         .receivers = "1",
                                         .is_ours = true,
                                         .is_handshake = true,
                                         .has_edge = true},
                                        {.word = "resumptions",
                                         .title = "resumed handshakes",
                                         .bench = "resumption",
                                         .receivers = "1",
                                         .is_ours = true,
                                         .is_handshake = true,
                                         .has_edge = true}};

    for (size_t i = 0; i < sizeof works / sizeof *works; i++)
        compare_work(p, r, rows, &works[i]);
}

void
bench_compare(struct bench_plan *p, struct bench_runner *r, struct bench_rows *rows)
{
    static const struct work latency = {.word = "latency",
                                        .title = "round trip",
                                        .bench = "latency",
                                        .receivers = "1",
                                        .is_latency = true,
                                        .has_edge = true};
    static const struct work throughput = {.word = "throughput",
                                           .title = "one-way",
                                           .bench = "throughput",
                                           .bench_batch = "throughput-batch",
                                           .receivers = "1",
                                           .has_edge = true};
    static const struct work pipeline = {.word = "pipeline",
                                         .title = "PUSH to PULL",
                                         .bench = "pipeline",
                                         .bench_batch = "pipeline-batch",
                                         .receivers = "1",
                                         .is_pattern = true};

    static const struct work loan = {.word = "loan",
                                     .title = "loan",
                                     .bench = "loan",
                                     .receivers = "1",
                                     .is_latency = true,
                                     .is_ours = true,
                                     .is_loan = true};

    if (p->latency)
        compare_work(p, r, rows, &latency);
    if (p->throughput)
        compare_work(p, r, rows, &throughput);
    if (p->handshake)
        compare_handshake(p, r, rows);
    if (p->pipeline)
        compare_work(p, r, rows, &pipeline);
    if (p->fanout)
        compare_fanout(p, r, rows);
    if (p->survey)
        compare_survey(p, r, rows);
    if (p->bus)
        compare_bus(p, r, rows);
    if (p->loan)
        compare_work(p, r, rows, &loan);
    if (p->stream)
        compare_stream(p, r, rows);
}
