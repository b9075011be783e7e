/* SPDX-License-Identifier: MIT */
/* What many streams of one multiplexer do; one stream by itself takes the place of a connection in
 * stream.c.
 *
 * Crowd: so many streams at a time on which the client always has something to write, by callbacks
 * that say when there is room, and the server reads what there is.  The server takes the time, once
 * each stream has brought something, and counts what each one brings meanwhile.
 *
 * Open: a stream is opened, which waits until the peer has accepted it, and closed; then the next.
 * Opens: the same without waiting, so many of them always under way: on an owned engine by
 * callbacks, on the shared one by a thread that looks after the oldest.
 *
 * Idle: what memory a stream takes at each end that has carried a byte and does nothing now; and
 * what it takes then with PART bytes that have come and nobody has read, on all of them at once. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/histogram.h"
#include "../common/program.h"
#include "link.h"

enum {
    IN_FLIGHT = 256,
    READ_BYTES = 64 * 1024,
    PART = 4096,               /* of the least window that there is */
    LOOK_NS = 5 * 1000 * 1000, /* at what the callbacks have done */
};

/* One end, in a process or thread of its own. */
struct side {
    struct bench_link link;
    struct spoke_bench_end end;
    struct bench_meter begin, finish;
    uint64_t messages; /* of some kind, in between */
    char more[256];    /* of the result line */
    atomic_bool done, failed;
    int rc;
};

static bool
owns_process(const struct side *s)
{
    return s->link.options->role != BENCH_BOTH;
}

/* In a process that is both the server meters the CPU time of all. */
static struct bench_meter
read_meter(const struct side *s)
{
    struct bench_meter m = bench_meter_read();

    if (!owns_process(s) && s->link.side == BENCH_CLIENT)
        m.cpu_us = 0;
    return m;
}

static double
seconds_of(const struct side *s)
{
    return (double)(s->finish.wall_ns - s->begin.wall_ns) / 1e9;
}

static void
fail(struct side *s, const char *call, int rc)
{
    spoke_bench_complain(call, rc);
    atomic_store(&s->failed, true);
}

/* Until the callbacks say that they are through. */
static int
wait_done(struct side *s)
{
    while (!atomic_load(&s->done) && !atomic_load(&s->failed)) {
        int rc = spoke_mux_wait(s->end.mux, spoke_engine_now(s->end.engine) + LOOK_NS);

        if (rc != SPOKE_ETIMEDOUT)
            return spoke_bench_complain("spoke_mux_wait", rc);
    }
    return atomic_load(&s->failed) ? -1 : 0;
}

/* Until the peer has had enough. */
static int
wait_end(struct side *s)
{
    int rc = spoke_mux_wait(s->end.mux, SPOKE_FOREVER);

    if (rc != 0)
        return spoke_bench_complain("spoke_mux_wait", rc);
    return atomic_load(&s->failed) ? -1 : 0;
}

/* ---- crowd ---- */

struct crowd;
struct member {
    struct crowd *crowd;
    spoke_stream *stream;
    uint64_t number; /* of the body that is being written */
    size_t at;       /* … so far */
    struct bench_check check;
    struct bench_cursor cursor;
    uint64_t bytes; /* while it counts */
};

enum stage { GATHERING, WARMING, COUNTING, OVER };

struct crowd {
    struct side *side;
    unsigned count, heard;
    struct member *members;
    uint8_t *buffer; /* of all: none waits with something in it */
    enum stage stage;
    uint64_t until_ns;
};

static void
crowd_init(struct crowd *c, struct side *s, size_t buffer_size)
{
    const struct bench_link *l = &s->link;

    *c = (struct crowd){.side = s, .count = l->options->connections};
    c->members = calloc(c->count, sizeof *c->members);
    c->buffer = malloc(buffer_size);
    if (c->members == NULL || c->buffer == NULL) {
        fputs("bench: no memory\n", stderr);
        exit(1);
    }
    for (unsigned i = 0; i < c->count; i++) {
        c->members[i].crowd = c;
        bench_check_init(&c->members[i].check, l->size, l->pattern, false);
        c->members[i].check.touches_all = l->options->touches_all;
    }
}

static void
crowd_fini(struct crowd *c)
{
    for (unsigned i = 0; i < c->count; i++) {
        if (c->members[i].stream != NULL)
            spoke_stream_close(c->members[i].stream);
    }
    free(c->members);
    free(c->buffer);
}

static int
crowd_add(struct crowd *c, unsigned i, spoke_stream_ready_f *fn)
{
    spoke_stream *s = c->members[i].stream;
    int rc = spoke_stream_set_deadline(s, SPOKE_NOW);

    if (rc == 0)
        rc = spoke_stream_on_ready(s, fn, &c->members[i]);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_stream_on_ready", rc);
}

/* Bodies one after the other, from where the last write has ended.  As on a connection by itself,
 * of what it took a few words are written anew, or all. */
static void
write_more(spoke_stream *stream, unsigned what, void *ctx)
{
    struct member *m = ctx;
    struct crowd *c = m->crowd;
    const struct bench_link *l = &c->side->link;
    size_t done;
    int rc;

    if ((what & SPOKE_STREAM_WRITABLE) == 0)
        return;
    do {
        bench_stamp(c->buffer, l->size, m->number, BENCH_HELLO);
        rc = spoke_stream_write(stream, c->buffer + m->at, l->size - m->at, &done);
        if (l->options->touches_all)
            memcpy(c->buffer + m->at, l->pattern + m->at, done);
        c->side->messages += done;
        if ((m->at += done) == l->size) {
            m->at = 0;
            m->number++;
        }
    } while (rc == 0);
    /* When the server has had enough the mux ends, and the stream may be closed. */
    if (rc != SPOKE_EAGAIN && rc != SPOKE_ECONNRESET && rc != SPOKE_EMUXCLOSED &&
        rc != SPOKE_ECLOSED)
        fail(c->side, "spoke_stream_write", rc);
}

static int
crowd_client(struct side *s)
{
    struct crowd crowd, *c = &crowd;
    int rc;

    crowd_init(c, s, s->link.size);
    memcpy(c->buffer, s->link.pattern, s->link.size);
    s->begin = read_meter(s);
    for (unsigned i = 0; i < c->count; i++) {
        rc = spoke_mux_dial(s->end.mux, &c->members[i].stream, NULL, 0, NULL, SPOKE_NOW);
        if (rc != 0)
            rc = spoke_bench_complain("spoke_mux_dial", rc);
        if (rc != 0 || crowd_add(c, i, write_more) != 0)
            exit(1); /* callbacks may have the rest */
    }
    rc = wait_end(s);
    s->finish = read_meter(s);
    crowd_fini(c);
    return rc;
}

/* Where the time is taken. */
static void
next_stage(struct crowd *c)
{
    struct side *s = c->side;
    uint64_t now = bench_now_ns(), seconds = (uint64_t)(s->link.options->seconds * 1e9);

    if (c->stage == GATHERING && c->heard == c->count) {
        c->stage = WARMING;
        c->until_ns = now + seconds / 4;
    } else if (c->stage == WARMING && now >= c->until_ns) {
        c->stage = COUNTING;
        c->until_ns = now + seconds;
        s->begin = read_meter(s);
    } else if (c->stage == COUNTING && now >= c->until_ns) {
        c->stage = OVER;
        s->finish = read_meter(s);
        atomic_store(&s->done, true);
    }
}

static void
read_more(spoke_stream *stream, unsigned what, void *ctx)
{
    struct member *m = ctx;
    struct crowd *c = m->crowd;
    size_t done;
    int rc = 0;

    if ((what & SPOKE_STREAM_READABLE) == 0)
        return;
    while (c->stage != OVER &&
           (rc = spoke_stream_read(stream, c->buffer, READ_BYTES, &done)) == 0) {
        c->heard += m->check.verified == 0 && m->cursor.at == 0;
        if (c->stage == COUNTING)
            m->bytes += done;
        if (bench_check_bytes(&m->check, &m->cursor, c->buffer, done) != 0) {
            atomic_store(&c->side->failed, true);
            return;
        }
    }
    next_stage(c);
    if (rc != 0 && rc != SPOKE_EAGAIN)
        fail(c->side, "spoke_stream_read", rc);
}

static void
print_shares(struct side *s, const struct crowd *c)
{
    uint64_t least = UINT64_MAX, most = 0;

    for (unsigned i = 0; i < c->count; i++) {
        uint64_t bytes = c->members[i].bytes;

        s->messages += bytes;
        least = bytes < least ? bytes : least;
        most = bytes > most ? bytes : most;
    }
    snprintf(s->more, sizeof s->more,
             ",\"bytes_per_s\":%.1f,\"least\":%" PRIu64 ",\"most\":%" PRIu64 ",\"share\":%.3f",
             (double)s->messages / seconds_of(s), least, most,
             least > 0 ? (double)most / (double)least : 1e9);
}

static int
crowd_server(struct side *s)
{
    struct crowd crowd, *c = &crowd;
    int rc;

    crowd_init(c, s, READ_BYTES);
    for (unsigned i = 0; i < c->count; i++) {
        rc = spoke_mux_accept(s->end.mux, &c->members[i].stream, NULL, SPOKE_FOREVER);
        if (rc != 0)
            rc = spoke_bench_complain("spoke_mux_accept", rc);
        if (rc != 0 || crowd_add(c, i, read_more) != 0)
            exit(1); /* callbacks may have the rest */
    }
    rc = wait_done(s);
    spoke_mux_close(s->end.mux, 0);
    s->end.mux = NULL;
    if (rc == 0)
        print_shares(s, c);
    crowd_fini(c);
    return rc;
}

/* ---- one after the other ---- */

static int
open_and_close(struct side *s)
{
    spoke_stream *stream;
    int rc = spoke_mux_dial(s->end.mux, &stream, NULL, 0, NULL, SPOKE_FOREVER);

    if (rc != 0)
        return spoke_bench_complain("spoke_mux_dial", rc);
    rc = spoke_stream_close(stream);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_stream_close", rc);
}

static int
open_client(struct side *s)
{
    static struct bench_histogram h;
    uint64_t last, now, until, seconds = (uint64_t)(s->link.options->seconds * 1e9);

    for (until = bench_now_ns() + seconds / 4; bench_now_ns() < until;)
        if (open_and_close(s) != 0)
            return -1;
    bench_histogram_init(&h);
    s->begin = read_meter(s);
    last = bench_now_ns();
    until = last + seconds;
    do {
        if (open_and_close(s) != 0)
            return -1;
        now = bench_now_ns();
        bench_histogram_add(&h, now - last);
        last = now;
    } while (now < until);
    s->finish = read_meter(s);
    s->messages = h.count;
    snprintf(s->more, sizeof s->more,
             ",\"p50_ns\":%" PRIu64 ",\"p99_ns\":%" PRIu64 ",\"p999_ns\":%" PRIu64,
             bench_histogram_quantile(&h, 0.5), bench_histogram_quantile(&h, 0.99),
             bench_histogram_quantile(&h, 0.999));
    return 0;
}

/* Each is read to its end, as a server does. */
static int
open_server(struct side *s)
{
    spoke_stream *stream;
    char byte;
    int rc;

    s->begin = read_meter(s);
    while ((rc = spoke_mux_accept(s->end.mux, &stream, NULL, SPOKE_FOREVER)) == 0) {
        size_t done;

        rc = spoke_stream_read(stream, &byte, 1, &done);
        if (rc != SPOKE_EOF && rc != SPOKE_ECONNRESET && rc != SPOKE_EMUXCLOSED)
            return spoke_bench_complain("spoke_stream_read", rc);
        spoke_stream_close(stream);
        s->messages++;
    }
    s->finish = read_meter(s);
    return rc == SPOKE_EMUXCLOSED ? 0 : spoke_bench_complain("spoke_mux_accept", rc);
}

/* ---- many under way ---- */

struct opens {
    struct side *side;
    unsigned left; /* under way, once the time is up */
    uint64_t begin_ns, until_ns;
};

static void on_opened(spoke_stream *stream, unsigned what, void *ctx);

static void
open_another(struct opens *o)
{
    spoke_stream *stream;
    int rc = spoke_mux_dial(o->side->end.mux, &stream, NULL, 0, NULL, SPOKE_NOW);

    if (rc == 0)
        rc = spoke_stream_on_ready(stream, on_opened, o);
    if (rc != 0)
        fail(o->side, "spoke_mux_dial", rc);
}

/* It has its outcome. */
static void
on_opened(spoke_stream *stream, unsigned what, void *ctx)
{
    struct opens *o = ctx;
    struct side *s = o->side;
    struct spoke_stream_info info;
    uint64_t now;
    int rc = spoke_stream_get_info(stream, &info);

    (void)what;
    if (rc == 0 && info.write_end != 0 && info.write_end != SPOKE_EPEERCLOSED)
        rc = info.write_end;
    if (rc != 0)
        fail(s, "the opening of a stream", rc);
    spoke_stream_close(stream);
    now = bench_now_ns();
    if (now >= o->until_ns) {
        if (o->left-- == IN_FLIGHT)
            s->finish = read_meter(s);
        if (o->left == 0)
            atomic_store(&s->done, true);
        return;
    }
    if (now >= o->begin_ns && s->messages++ == 0)
        s->begin = read_meter(s);
    open_another(o);
}

static int
opens_by_callbacks(struct opens *o)
{
    for (unsigned i = 0; i < IN_FLIGHT; i++)
        open_another(o);
    if (wait_done(o->side) != 0)
        exit(1); /* callbacks may have the rest */
    return 0;
}

/* The peer has accepted it, and closed it. */
static int
end_of(spoke_stream *stream)
{
    size_t done;
    char byte;
    int rc = spoke_stream_read(stream, &byte, 1, &done);

    spoke_stream_close(stream);
    return rc == SPOKE_EOF ? 0 : spoke_bench_complain("the opening of a stream", rc);
}

static int
opens_by_calls(struct opens *o)
{
    spoke_stream *streams[IN_FLIGHT] = {NULL};
    struct side *s = o->side;
    uint64_t now = 0;
    int rc = 0;

    for (unsigned i = 0; rc == 0 && now < o->until_ns; i = (i + 1) % IN_FLIGHT) {
        if (streams[i] != NULL) {
            rc = end_of(streams[i]);
            now = bench_now_ns();
            if (now >= o->begin_ns && s->messages++ == 0)
                s->begin = read_meter(s);
        }
        if (rc == 0 &&
            (rc = spoke_mux_dial(s->end.mux, &streams[i], NULL, 0, NULL, SPOKE_NOW)) != 0)
            rc = spoke_bench_complain("spoke_mux_dial", rc);
    }
    s->finish = read_meter(s);
    for (unsigned i = 0; i < IN_FLIGHT; i++)
        spoke_stream_close(streams[i]);
    return rc;
}

static int
opens_client(struct side *s)
{
    struct opens o = {.side = s, .left = IN_FLIGHT, .begin_ns = bench_now_ns()};
    int rc;

    o.begin_ns += (uint64_t)(s->link.options->seconds * 0.25e9);
    o.until_ns = o.begin_ns + (uint64_t)(s->link.options->seconds * 1e9);
    rc = s->end.engine != NULL ? opens_by_callbacks(&o) : opens_by_calls(&o);
    snprintf(s->more, sizeof s->more, ",\"rate\":%.1f", (double)s->messages / seconds_of(s));
    return rc;
}

static void
accept_all(spoke_mux *mux, void *ctx)
{
    struct side *s = ctx;
    spoke_stream *stream;
    int rc;

    while ((rc = spoke_mux_accept(mux, &stream, NULL, SPOKE_NOW)) == 0) {
        spoke_stream_close(stream);
        s->messages++;
    }
    if (rc != SPOKE_EAGAIN && rc != SPOKE_EMUXCLOSED && rc != SPOKE_ECLOSED)
        fail(s, "spoke_mux_accept", rc);
}

static int
accept_by_calls(struct side *s)
{
    spoke_stream *stream;
    int rc;

    while ((rc = spoke_mux_accept(s->end.mux, &stream, NULL, SPOKE_FOREVER)) == 0) {
        spoke_stream_close(stream);
        s->messages++;
    }
    return rc == SPOKE_EMUXCLOSED ? 0 : spoke_bench_complain("spoke_mux_accept", rc);
}

static int
opens_server(struct side *s)
{
    int rc;

    s->begin = read_meter(s);
    if (s->end.engine == NULL)
        rc = accept_by_calls(s);
    else if ((rc = spoke_mux_on_ready(s->end.mux, accept_all, s)) != 0)
        return spoke_bench_complain("spoke_mux_on_ready", rc);
    else
        rc = wait_end(s);
    s->finish = read_meter(s);
    return rc;
}

/* ---- idle ---- */

static spoke_stream **
new_streams(const struct side *s)
{
    spoke_stream **streams = calloc(s->link.options->connections + 1U, sizeof(spoke_stream *));

    if (streams == NULL) {
        fputs("bench: no memory\n", stderr);
        exit(1);
    }
    return streams;
}

/* The one that was there before the others is not counted, so that what is needed once is not. */
static void
note_memory(struct side *s, const char *key, uint64_t before)
{
    unsigned count = s->link.options->connections;
    uint64_t after = bench_private_bytes();
    size_t used = strlen(s->more);

    snprintf(s->more + used, sizeof s->more - used, ",\"%s\":%.1f", key,
             ((double)after - (double)before) / count);
    s->messages = count;
}

static int
write_parts(spoke_stream **streams, unsigned count)
{
    static uint8_t part[PART];
    size_t done;
    int rc = 0;

    for (unsigned i = 0; i <= count && rc == 0; i++) {
        memset(part, (int)(i % 251), sizeof part);
        rc = spoke_stream_write(streams[i], part, sizeof part, &done);
    }
    return rc;
}

/* Until they have all come: nobody reads any before. */
static int
wait_parts(struct side *s, spoke_stream **streams, unsigned count)
{
    struct spoke_stream_info info;
    int rc = 0;

    for (unsigned i = 0; i <= count && rc == 0;) {
        rc = spoke_stream_get_info(streams[i], &info);
        if (rc == 0 && info.unread >= PART)
            i++;
        else if (rc == 0 && info.read_end != 0)
            rc = info.read_end;
        else if (rc == 0)
            rc = spoke_mux_wait(s->end.mux, spoke_engine_now(s->end.engine) + LOOK_NS);
        rc = rc == SPOKE_ETIMEDOUT ? 0 : rc;
    }
    return rc;
}

static int
read_parts(spoke_stream **streams, unsigned count)
{
    static uint8_t part[PART];
    size_t done;
    int rc = 0;

    for (unsigned i = 0; i <= count && rc == 0; i++) {
        rc = spoke_stream_read_full(streams[i], part, sizeof part, &done);
        if (rc == 0 && (part[0] != i % 251 || part[PART - 1] != i % 251)) {
            fputs("bench: bytes of another stream\n", stderr);
            exit(1);
        }
    }
    return rc;
}

static int
idle_client(struct side *s)
{
    unsigned count = s->link.options->connections;
    spoke_stream **streams = new_streams(s);
    uint64_t before = 0;
    size_t done;
    char byte = 0;
    int rc = 0;

    for (unsigned i = 0; i <= count && rc == 0; i++) {
        rc = spoke_mux_dial(s->end.mux, &streams[i], NULL, 0, NULL, SPOKE_FOREVER);
        if (rc == 0)
            rc = spoke_stream_write(streams[i], "x", 1, &done);
        if (rc == 0)
            rc = spoke_stream_read(streams[i], &byte, 1, &done);
        if (i == 0)
            before = bench_private_bytes();
    }
    if (rc == 0) {
        note_memory(s, "memory_per_stream", before);
        rc = write_parts(streams, count);
    }
    if (rc == 0 && (rc = wait_parts(s, streams, count)) == 0) {
        note_memory(s, "active_per_stream", before);
        rc = read_parts(streams, count);
    }
    if (rc != 0)
        spoke_bench_complain("a stream", rc);
    for (unsigned i = 0; i <= count; i++)
        spoke_stream_close(streams[i]);
    free(streams);
    return rc == 0 ? 0 : -1;
}

static int
idle_server(struct side *s)
{
    unsigned count = s->link.options->connections;
    spoke_stream **streams = new_streams(s);
    uint64_t before = 0;
    size_t done;
    char byte;
    int rc = 0;

    for (unsigned i = 0; i <= count && rc == 0; i++) {
        rc = spoke_mux_accept(s->end.mux, &streams[i], NULL, SPOKE_FOREVER);
        if (rc == 0)
            rc = spoke_stream_read(streams[i], &byte, 1, &done);
        if (rc == 0)
            rc = spoke_stream_write(streams[i], &byte, 1, &done);
        if (i == 0)
            before = bench_private_bytes();
    }
    if (rc == 0) {
        note_memory(s, "memory_per_stream", before);
        rc = wait_parts(s, streams, count);
    }
    if (rc == 0) {
        note_memory(s, "active_per_stream", before);
        rc = read_parts(streams, count);
    }
    if (rc == 0)
        rc = write_parts(streams, count);
    if (rc != 0)
        spoke_bench_complain("a stream", rc);
    else
        rc = wait_end(s);
    for (unsigned i = 0; i <= count; i++)
        spoke_stream_close(streams[i]);
    free(streams);
    return rc == 0 ? 0 : -1;
}

/* ---- the works ---- */

static void
configure(spoke_mux_config *config, const struct bench_options *o)
{
    int count = o->work == BENCH_MUX_OPENS ? 2 * IN_FLIGHT : (int)o->connections + 1;

    spoke_mux_config_init(config);
    config->backlog = count;
    if (count > 256) /* what is so anyway, and its budget */
        config->max_streams = count;
    if (count > 4096)
        config->session_budget = (size_t)count * 16384;
}

static int
do_work(struct side *s)
{
    bool is_client = s->link.side == BENCH_CLIENT;

    switch (s->link.options->work) {
    case BENCH_MUX_CROWD: return is_client ? crowd_client(s) : crowd_server(s);
    case BENCH_MUX_OPEN: return is_client ? open_client(s) : open_server(s);
    case BENCH_MUX_OPENS: return is_client ? opens_client(s) : opens_server(s);
    default: return is_client ? idle_client(s) : idle_server(s);
    }
}

static void *
run_side(void *ctx)
{
    struct side *s = ctx;
    spoke_mux_config config;

    s->rc = -1;
    if (!owns_process(s) && s->link.side == BENCH_CLIENT)
        bench_wait_ready();
    configure(&config, s->link.options);
    if (spoke_bench_open_end(&s->end, &s->link) != 0)
        return NULL;
    if (spoke_bench_open_mux(&s->end, &s->link, &config) == 0)
        s->rc = do_work(s);
    spoke_bench_close_end(&s->end, SPOKE_SECOND);
    if (s->rc != 0 && !owns_process(s))
        exit(1); /* The other side would wait for ever. */
    return NULL;
}

static void
print_side(const struct side *s)
{
    const struct bench_options *o = s->link.options;

    printf("{\"bench\":\"%s\",\"impl\":\"spoke\",\"role\":\"%s\",\"transport\":\"%s\",\"mode\":"
           "\"%s\",\"wait\":\"%s\",\"size\":%zu,\"connections\":%u,\"messages\":%" PRIu64
           ",\"seconds\":%.6f,\"cpu_us\":%" PRIu64 "%s,\"errors\":0}\n",
           bench_work_name(o->work), bench_role_name(s->link.side),
           bench_transport_name(o->transport), bench_mode_name(o->mode), bench_wait_name(o->wait),
           o->size, o->connections, s->messages, seconds_of(s), s->finish.cpu_us - s->begin.cpu_us,
           s->more);
}

static void
side_init(struct side *s, const struct bench_options *o, enum bench_role role)
{
    s->link = (struct bench_link){.options = o, .side = role, .size = o->size};
    s->link.pattern = bench_pattern_new(o->size);
}

int
spoke_bench_mux(const struct bench_options *o)
{
    static struct side server, client;
    struct side *s = o->role == BENCH_CLIENT ? &client : &server;
    const bool is_both = o->role == BENCH_BOTH;
    pthread_t thread = 0;

    side_init(&server, o, BENCH_SERVER);
    side_init(&client, o, BENCH_CLIENT);
    if (is_both && pthread_create(&thread, NULL, run_side, &client) != 0) {
        fputs("bench: no thread\n", stderr);
        return 1;
    }
    run_side(s);
    if (is_both)
        pthread_join(thread, NULL);
    if (server.rc == 0 && client.rc == 0) {
        print_side(s);
        if (is_both)
            print_side(&client);
    }
    return server.rc == 0 && client.rc == 0 ? 0 : 1;
}
