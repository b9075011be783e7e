/* SPDX-License-Identifier: MIT */
/* Goal: whatever two users do with their muxes, and whatever happens to the carrier, each stream
 * brings its bytes in order and once, windows hold, and both ends come to an end.  Method: two
 * muxes over tcp of the simulated world, with torn and delayed transfers, in some runs also a reset
 * or no memory; users who do things by chance, and a model that knows what each stream has carried.
 * Every byte tells its stream, its direction and its place. */
#include <stdlib.h>
#include <string.h>

#include "runtime/engine/handle.h"
#include "runtime/stream/mux/mux.h"
#include "tests/mux/fixture.h"

#define STREAMS 60
#define ACTIONS 400

struct end {
    spoke_stream *s; /* NULL: not there yet, or closed */
    uint64_t written, read;
    bool ended;   /* wrote its last byte: the other one will read exactly these */
    bool at_end;  /* has read the peer's end */
    bool was_cut; /* closed or aborted with something unsent or unread: the peer gets a prefix */
};

struct stream {
    uint64_t id;
    struct end ends[2]; /* at the odd mux, at the even one */
};

struct model {
    spoke_sim *w;
    spoke_engine *engines[2];
    spoke_mux *muxes[2];
    spoke_mux *outer[2]; /* that carry them; NULL: tcp does */
    struct stream streams[STREAMS];
    int count;
    uint64_t seed, random;
    bool breaks; /* the carrier may be lost */
};

static struct model x;

static uint32_t
chance(uint32_t below)
{
    x.random = x.random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(x.random >> 33) % below;
}

static uint8_t
byte_of(const struct stream *s, int from, uint64_t at)
{
    return (uint8_t)(s->id * 37 + (uint64_t)from * 101 + at * 7 + (at >> 8));
}

/* ---- what users do ---- */

static void
open_one(int side)
{
    struct spoke_mux_stream_info info;
    struct stream *s = &x.streams[x.count];
    spoke_stream *got;
    int rc;

    if (x.count == STREAMS)
        return;
    rc = spoke_mux_dial(x.muxes[side], &got, NULL, 0, NULL, SPOKE_NOW);
    if (rc != 0) {
        cr_assert(rc == SPOKE_ELIMIT ||
                      (x.breaks && (rc == SPOKE_EMUXCLOSED || rc == SPOKE_ENOMEM)),
                  "seed %d: %s", (int)x.seed, spoke_error_name(rc));
        return;
    }
    cr_assert_eq(spoke_mux_get_stream_info(got, &info), 0);
    memset(s, 0, sizeof *s);
    s->id = info.id;
    s->ends[side].s = got;
    cr_assert_eq(spoke_stream_set_deadline(got, SPOKE_NOW), 0);
    x.count++;
}

static void
accept_one(int side)
{
    struct spoke_mux_stream_info info;
    spoke_stream *got;

    if (spoke_mux_accept(x.muxes[side], &got, NULL, SPOKE_NOW) != 0)
        return;
    cr_assert_eq(spoke_stream_set_deadline(got, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_get_stream_info(got, &info), 0);
    for (int i = 0; i < x.count; i++) {
        if (x.streams[i].id == info.id) {
            cr_assert_null(x.streams[i].ends[side].s, "seed %d", (int)x.seed);
            x.streams[i].ends[side].s = got;
            return;
        }
    }
    cr_assert_fail("seed %d: a stream that nobody has opened", (int)x.seed);
}

static void
write_some(struct stream *s, int side)
{
    static uint8_t bytes[40000];
    struct end *end = &s->ends[side];
    size_t size = chance(4) == 0 ? 1 + chance(sizeof bytes) : 1 + chance(200), done;

    if (end->s == NULL || end->ended)
        return;
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_of(s, side, end->written + i);
    (void)spoke_stream_write(end->s, bytes, size, &done);
    end->written += done;
}

static void
read_some(struct stream *s, int side)
{
    static uint8_t bytes[40000];
    struct end *end = &s->ends[side], *from = &s->ends[!side];
    size_t done;
    int rc;

    if (end->s == NULL)
        return;
    rc = spoke_stream_read(end->s, bytes, 1 + chance(sizeof bytes), &done);
    for (size_t i = 0; i < done; i++)
        cr_assert_eq(bytes[i], byte_of(s, !side, end->read + i),
                     "seed %d: stream %d byte %d is another", (int)x.seed, (int)s->id,
                     (int)(end->read + i));
    end->read += done;
    cr_assert_leq(end->read, from->written, "seed %d: more than was written", (int)x.seed);
    if (rc == SPOKE_EOF && !end->at_end) {
        end->at_end = true;
        cr_assert(from->ended || from->was_cut, "seed %d: an end too soon", (int)x.seed);
        if (!from->was_cut && !end->was_cut)
            cr_assert_eq(end->read, from->written, "seed %d: stream %d ended after %d of %d bytes",
                         (int)x.seed, (int)s->id, (int)end->read, (int)from->written);
    }
}

static void
close_one(struct stream *s, int side)
{
    struct spoke_stream_info info;
    struct end *end = &s->ends[side];

    if (end->s == NULL)
        return;
    /* What comes is lost from here on; what was written still leaves, unless something was unread:
     * then the peer is told that it was cut. */
    if (spoke_stream_get_info(end->s, &info) == 0)
        end->was_cut |= info.unread > 0 || info.write_end != 0;
    end->ended = true;
    (void)spoke_stream_close(end->s);
    end->s = NULL;
}

static void
act(void)
{
    struct stream *s = x.count > 0 ? &x.streams[chance((uint32_t)x.count)] : NULL;
    int side = (int)chance(2);

    switch (chance(20)) {
    case 0: open_one(side); return;
    case 1:
    case 2: accept_one(side); return;
    default: break;
    }
    if (s == NULL)
        return;
    switch (chance(30)) {
    case 0:
        if (s->ends[side].s != NULL && spoke_stream_close_write(s->ends[side].s) == 0)
            s->ends[side].ended = true;
        break;
    case 1: close_one(s, side); break;
    case 2:
        if (chance(4) == 0 && s->ends[side].s != NULL) {
            s->ends[side].was_cut = s->ends[side].ended = true;
            cr_assert_eq(spoke_stream_abort(s->ends[side].s, 5), 0);
        }
        break;
    case 3:
        if (chance(4) == 0 && s->ends[side].s != NULL)
            (void)spoke_stream_close_read(s->ends[side].s);
        break;
    default:
        if (chance(2) == 0)
            write_some(s, side);
        else
            read_some(s, side);
    }
}

/* ---- what must always be so ---- */

/* What a writer may send, and what waits at both ends, is no more than the reader's window. */
static void
check_windows(void)
{
    struct spk_mux *m[2];

    for (int side = 0; side < 2; side++) {
        size_t windows = 0;

        if ((m[side] = spk_handle_peek(x.muxes[side], SPK_HANDLE_MUX)) == NULL || m[side]->ended)
            return;
        SPK_LIST_EACH(link, &m[side]->streams)
        windows += SPK_OWNER(link, struct spk_mux_stream, of_all)->window;
        cr_assert_eq(windows, m[side]->windows, "seed %d", (int)x.seed);
        cr_assert_leq(windows, m[side]->config.session_budget);
    }
    for (int side = 0; side < 2; side++) {
        SPK_LIST_EACH(link, &m[side]->streams)
        {
            const struct spk_mux_stream *to = SPK_OWNER(link, struct spk_mux_stream, of_all);
            const struct spk_mux_stream *from = spk_mux_find(m[!side], to->id);
            size_t held = to->owed + (to->conn != NULL ? to->conn->input_size : 0);

            if (!to->registered || !to->established || to->peer_ended)
                continue;
            if (to->conn == NULL || to->conn->read.shut) /* what comes is thrown away */
                continue;
            cr_assert_leq(held + to->in_room, to->window, "seed %d", (int)x.seed);
            if (from != NULL && from->established)
                cr_assert_leq(from->credit + from->out_size + held, to->window, "seed %d",
                              (int)x.seed);
        }
    }
}

/* ---- a run ---- */

static bool
is_connected(void *s)
{
    struct spoke_mux_stream_info info;

    return spoke_mux_get_stream_info(s, &info) != 0 || info.credit > 0;
}

/* The carrier is itself a stream of a mux. */
static void
put_on_mux(spoke_stream *ends[2])
{
    spoke_mux_config config;

    spoke_mux_config_init(&config);
    config.peer_timeout_ns = 0;
    config.window = 1 + chance(60000);
    for (int i = 0; i < 2; i++) {
        config.even = i == 1;
        cr_assert_eq(spoke_mux_open(&x.outer[i], ends[i], &config), 0);
    }
    cr_assert_eq(spoke_mux_dial(x.outer[1], &ends[1], NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_accept(x.outer[0], &ends[0], NULL, SPOKE_FOREVER), 0);
    (void)spoke_sim_run(x.w, is_connected, ends[1], SPOKE_FOREVER);
}

static void
open_all(bool native)
{
    spoke_sim_config config;
    spoke_mux_config own;
    spoke_stream *ends[2];
    spoke_stream_listener *l;

    spoke_sim_config_init(&config);
    config.seed = x.seed;
    config.short_read = config.short_write = 300;
    config.delay = 20;
    config.enobufs = 20;
    config.overflow = 10;
    config.buffer_bytes = 1u << (6 + chance(11));
    cr_assert_eq(spoke_sim_open(&x.w, &config), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_sim_engine(x.w, &x.engines[i]), 0);
    cr_assert_eq(spoke_stream_listen(&l, "tcp://127.0.0.1:4000", NULL, x.engines[1]), 0);
    cr_assert_eq(
        spoke_stream_dial(&ends[0], "tcp://127.0.0.1:4000", NULL, x.engines[0], SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_accept(l, &ends[1], SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
    if (x.seed % 3 == 0)
        put_on_mux(ends);
    spoke_mux_config_init(&own);
    own.wire = native ? SPOKE_MUX_NATIVE : SPOKE_MUX_COMPATIBLE;
    own.window = 1 + chance(60000);
    own.send_queue_bytes = 1 + chance(100000);
    own.eager_credit = chance(4) == 0;
    own.backlog = 1 + (int)chance(10);
    own.peer_timeout_ns = 0;
    for (int i = 0; i < 2; i++) {
        own.even = i == 1;
        cr_assert_eq(spoke_mux_open(&x.muxes[i], ends[i], &own), 0);
    }
    if (x.breaks) {
        config.reset = chance(2) == 0 ? 20 : 0;
        config.enomem = config.reset == 0 ? 5 : 0;
        spoke_sim_set_faults(x.w, &config);
    }
}

/* Everybody ends their half, and reads what there is to the end. */
static void
finish_all(void)
{
    for (int i = 0; i < x.count; i++) {
        for (int side = 0; side < 2; side++) {
            struct end *end = &x.streams[i].ends[side];

            if (end->s != NULL && spoke_stream_close_write(end->s) == 0)
                end->ended = true;
        }
    }
    for (int round = 0; round < 3000; round++) {
        bool any = false;

        (void)spoke_sim_run(x.w, NULL, NULL, SPOKE_MS);
        for (int side = 0; side < 2; side++)
            accept_one(side);
        for (int i = 0; i < x.count; i++) {
            for (int side = 0; side < 2; side++) {
                struct end *end = &x.streams[i].ends[side];
                struct spoke_stream_info info;

                if (end->s == NULL)
                    continue;
                read_some(&x.streams[i], side);
                cr_assert_eq(spoke_stream_get_info(end->s, &info), 0);
                if (info.write_end == 0 && spoke_stream_close_write(end->s) == 0)
                    end->ended = true;
                if (info.read_end != 0 && info.unread == 0 && info.unsent == 0)
                    close_one(&x.streams[i], side);
                else
                    any = true;
            }
        }
        check_windows();
        if (!any)
            return;
    }
    cr_assert_fail("seed %d: a stream does not come to its end", (int)x.seed);
}

static void
run(uint64_t seed)
{
    struct spoke_memory_stats before, after;
    struct spoke_mux_end why;

    memset(&x, 0, sizeof x);
    x.seed = seed;
    x.random = seed * 0x9e3779b97f4a7c15u;
    x.breaks = seed % 5 == 4;
    spoke_memory_stats(&before);
    open_all(seed % 2 == 0);
    for (int i = 0; i < ACTIONS; i++) {
        act();
        if (chance(3) == 0)
            (void)spoke_sim_run(x.w, NULL, NULL, (spoke_ns)chance(100) * SPOKE_US);
        check_windows();
    }
    finish_all();
    for (int side = 0; side < 2; side++) {
        int rc = spoke_mux_status(x.muxes[side], &why);

        if (!x.breaks)
            cr_assert_eq(rc, SPOKE_EAGAIN, "seed %d: %s", (int)seed, why.text);
        else if (rc == 0)
            cr_assert_neq(why.code, SPOKE_EPROTO, "seed %d: %s", (int)seed, why.text);
    }
    cr_assert_eq(spoke_mux_close(x.muxes[0], SPOKE_SECOND), 0);
    (void)spoke_sim_run(x.w, NULL, NULL, SPOKE_MS);
    cr_assert_eq(spoke_mux_close(x.muxes[1], 0), 0);
    for (int side = 0; side < 2 && x.outer[side] != NULL; side++)
        cr_assert_eq(spoke_mux_close(x.outer[side], 0), 0);
    cr_assert_eq(spoke_sim_close(x.w, NULL), 0);
    spoke_memory_stats(&after);
    cr_assert_eq(after.messages, before.messages, "seed %d", (int)seed);
    cr_assert_eq(after.chunks, before.chunks, "seed %d", (int)seed);
}

/* SPOKE_SEED=n runs that one only, SPOKE_SEEDS=n so many. */
Test(model, every_stream_brings_its_bytes_once_and_ends)
{
    const char *one = getenv("SPOKE_SEED"), *many = getenv("SPOKE_SEEDS");
    uint64_t count = many != NULL ? strtoull(many, NULL, 10) : TEST_REPEATS(400);

    if (one != NULL) {
        run(strtoull(one, NULL, 10));
        return;
    }
    for (uint64_t seed = 1; seed <= count; seed++)
        run(seed);
}
