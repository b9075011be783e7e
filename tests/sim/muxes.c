/* SPDX-License-Identifier: MIT */
/* Goal: whatever two users do with their muxes, and whatever happens to the carrier, each stream
 * brings its bytes in order and once, windows hold, and both ends come to an end.  Method: two
 * muxes in a storm (storm.h), over tcp, ipc, inproc, or a stream of further muxes; users who do
 * things by chance, and a model that knows what each stream has carried.  In some runs the carrier
 * is lost, an end is killed, or closes its mux or its engine with everything in use.  Every byte
 * tells its stream, its direction and its place. */
#include <string.h>

#include "runtime/engine/handle.h"
#include "runtime/stream/mux/mux.h"
#include "tests/sim/storm.h"

#define STREAMS 60
#define ACTIONS 800

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
    struct storm storm;
    int machines[2];
    spoke_mux *muxes[2];
    spoke_mux *outer[2]; /* that carry them; NULL: the carrier is of the world */
    struct stream streams[STREAMS];
    int count;
    bool breaks;      /* the muxes may end */
    bool gone[2];     /* this side has */
    bool disturbable; /* nobody has ended anything on purpose yet */
};

static struct model x;

/* What has been seen, in all runs. */
static struct {
    uint64_t streams, bytes, whole, broken; /* streams, and bytes read; ends in order, with all */
} seen;                                     /* bytes; muxes that have ended */

#define holds(Condition, ...) storm_holds(&x.storm, Condition, __VA_ARGS__)

static uint32_t
chance(uint32_t below)
{
    return (uint32_t)storm_below(&x.storm, below);
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

    if (x.count == STREAMS || x.gone[side])
        return;
    rc = spoke_mux_dial(x.muxes[side], &got, NULL, 0, NULL, SPOKE_NOW);
    if (rc != 0) {
        holds(rc == SPOKE_ELIMIT || (x.breaks && (rc == SPOKE_EMUXCLOSED || rc == SPOKE_ENOMEM)),
              "%s", spoke_error_name(rc));
        return;
    }
    cr_assert_eq(spoke_mux_get_stream_info(got, &info), 0);
    memset(s, 0, sizeof *s);
    s->id = info.id;
    s->ends[side].s = got;
    cr_assert_eq(spoke_stream_set_deadline(got, SPOKE_NOW), 0);
    x.count++;
    seen.streams++;
}

static void
accept_one(int side)
{
    struct spoke_mux_stream_info info;
    spoke_stream *got;

    if (x.gone[side] || spoke_mux_accept(x.muxes[side], &got, NULL, SPOKE_NOW) != 0)
        return;
    cr_assert_eq(spoke_stream_set_deadline(got, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_get_stream_info(got, &info), 0);
    for (int i = 0; i < x.count; i++) {
        if (x.streams[i].id == info.id) {
            holds(x.streams[i].ends[side].s == NULL, "stream %d comes twice", (int)info.id);
            x.streams[i].ends[side].s = got;
            return;
        }
    }
    holds(false, "a stream that nobody has opened");
}

static void
write_some(struct stream *s, int side)
{
    static uint8_t bytes[40000];
    struct end *end = &s->ends[side];
    bool narrow = x.storm.config.buffer_bytes != 0 && x.storm.config.buffer_bytes < 1024;
    size_t size = chance(4) == 0 ? 1 + chance(narrow ? 1000 : sizeof bytes) : 1 + chance(200), done;

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
        holds(bytes[i] == byte_of(s, !side, end->read + i), "stream %d byte %d is another",
              (int)s->id, (int)(end->read + i));
    end->read += done;
    seen.bytes += done;
    holds(end->read <= from->written, "more than was written");
    if (rc == SPOKE_EOF && !end->at_end) {
        end->at_end = true;
        holds(from->ended || from->was_cut, "an end too soon");
        seen.whole += !from->was_cut && !end->was_cut;
        if (!from->was_cut && !end->was_cut)
            holds(end->read == from->written, "stream %d ended after %d of %d bytes", (int)s->id,
                  (int)end->read, (int)from->written);
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
            holds(spoke_stream_abort(s->ends[side].s, 5) == 0, "an abort failed");
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

/* ---- what happens to them ---- */

/* Its handles are gone with it; what it had written may never arrive. */
static void
leave(int side)
{
    x.gone[side] = true;
    for (int i = 0; i < x.count; i++)
        x.streams[i].ends[side].s = NULL;
}

/* Once in a run: a process dies, an engine closes under all of it, or a mux does at either level.
 */
static void
disturb(void)
{
    int side = (int)chance(2);

    x.disturbable = false;
    switch (chance(4)) {
    case 0:
        leave(side);
        storm_kill(&x.storm, x.machines[side]);
        break;
    case 1:
        leave(side);
        cr_assert_eq(spoke_engine_close(x.storm.machines[x.machines[side]]), 0);
        x.storm.machines[x.machines[side]] = NULL;
        break;
    case 2:
        if (x.outer[side] != NULL)
            cr_assert_eq(spoke_mux_close(x.outer[side], 0), 0);
        break;
    default:
        x.gone[side] = true; /* its streams are there, and have to be closed */
        cr_assert_eq(spoke_mux_close(x.muxes[side], 0), 0);
    }
}

/* ---- what must always be so ---- */

static struct spk_mux *
mux_of(int side)
{
    struct spk_mux *m = spk_handle_peek(x.muxes[side], SPK_HANDLE_MUX);

    return m == NULL || m->ended ? NULL : m;
}

/* What was given to the streams of a mux is what it counts, and no more than it may give. */
static void
check_sum(const struct spk_mux *m)
{
    size_t windows = 0;

    SPK_LIST_EACH(link, &m->streams)
    windows += SPK_OWNER(link, struct spk_mux_stream, of_all)->window;
    holds(windows == m->windows, "%zu bytes of windows, and %zu are counted", windows, m->windows);
    holds(windows <= m->config.session_budget, "%zu bytes of windows", windows);
}

/* What a writer may send, and what waits at both ends, is no more than the reader's window. */
static void
check_stream(const struct spk_mux_stream *to, const struct spk_mux *writers)
{
    const struct spk_mux_stream *from = writers != NULL ? spk_mux_find(writers, to->id) : NULL;
    size_t held = to->owed + (to->conn != NULL ? to->conn->input_size : 0);

    if (!to->registered || !to->established || to->peer_ended)
        return;
    if (to->conn == NULL || to->conn->read.shut) /* what comes is thrown away */
        return;
    holds(held + to->in_room <= to->window, "stream %d: %zu and %zu of %zu", (int)to->id, held,
          (size_t)to->in_room, (size_t)to->window);
    if (from != NULL && from->established)
        holds(from->credit + from->out_size + held <= to->window, "stream %d: %zu of %zu",
              (int)to->id, (size_t)(from->credit + from->out_size + held), (size_t)to->window);
}

static void
check_windows(void)
{
    struct spk_mux *m[2] = {mux_of(0), mux_of(1)};

    for (int side = 0; side < 2; side++) {
        if (m[side] == NULL)
            continue;
        check_sum(m[side]);
        SPK_LIST_EACH(link, &m[side]->streams)
        check_stream(SPK_OWNER(link, struct spk_mux_stream, of_all), m[!side]);
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
    (void)spoke_sim_run(x.storm.w, is_connected, ends[1], SPOKE_FOREVER);
}

static void
connect_all(spoke_stream *ends[2])
{
    spoke_engine **machines = x.storm.machines;
    spoke_stream_listener *l;

    cr_assert_eq(spoke_stream_listen(&l, x.storm.url, NULL, machines[x.machines[1]]), 0);
    cr_assert_eq(
        spoke_stream_dial(&ends[0], x.storm.url, NULL, machines[x.machines[0]], SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_accept(l, &ends[1], SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
}

static void
open_all(void)
{
    spoke_mux_config own;
    spoke_stream *ends[2];

    for (int i = 0; i < 2; i++)
        x.machines[i] = storm_machine(&x.storm);
    storm_end(&x.storm); /* there would be nothing to be seen of muxes that are not connected */
    connect_all(ends);
    if (chance(3) == 0)
        put_on_mux(ends);
    spoke_mux_config_init(&own);
    own.peer_timeout_ns = 0;
    own.wire = chance(2) == 0 ? SPOKE_MUX_NATIVE : SPOKE_MUX_COMPATIBLE;
    own.window = 1 + chance(60000);
    own.send_queue_bytes = 1 + chance(100000);
    own.eager_credit = chance(4) == 0;
    own.backlog = 1 + (int)chance(10);
    if (chance(8) == 0) { /* some wait too long for each other */
        own.heartbeat_ns = SPOKE_MS;
        own.peer_timeout_ns = 4 * SPOKE_MS;
        x.breaks = true;
    }
    for (int i = 0; i < 2; i++) {
        own.even = i == 1;
        cr_assert_eq(spoke_mux_open(&x.muxes[i], ends[i], &own), 0);
    }
    storm_again(&x.storm);
    x.storm.calm = false;
}

/* Ends its half, and reads what there is to the end.  Gives whether it has come to that. */
static bool
finish_one(struct stream *s, int side)
{
    struct end *end = &s->ends[side];
    struct spoke_stream_info info;

    if (end->s == NULL)
        return true;
    read_some(s, side);
    cr_assert_eq(spoke_stream_get_info(end->s, &info), 0);
    if (info.write_end == 0 && spoke_stream_close_write(end->s) == 0)
        end->ended = true;
    if (info.read_end == 0 || info.unread > 0 || (info.unsent > 0 && mux_of(side) != NULL))
        return false;
    close_one(s, side);
    return true;
}

static void
finish_all(void)
{
    storm_end(&x.storm);
    for (int round = 0; round < 60000; round++) {
        bool all = true;

        (void)spoke_sim_run(x.storm.w, NULL, NULL, SPOKE_MS);
        for (int side = 0; side < 2; side++)
            accept_one(side);
        for (int i = 0; i < x.count; i++) {
            for (int side = 0; side < 2; side++)
                all &= finish_one(&x.streams[i], side);
        }
        check_windows();
        if (all)
            return;
    }
    holds(false, "a stream does not come to its end");
}

/* Nobody has broken the protocol, and nothing has ended for no reason. */
static void
check_status(int side)
{
    struct spoke_mux_end why;
    int rc = x.gone[side] ? SPOKE_ECLOSED : spoke_mux_status(x.muxes[side], &why);

    if (x.gone[side])
        return;
    holds(rc == SPOKE_EAGAIN || x.breaks, "%s: %s", spoke_error_name(rc), why.text);
    seen.broken += rc == 0;
    holds(rc != 0 || why.code != SPOKE_EPROTO, "%s", why.text);
}

static void
close_muxes(spoke_mux *muxes[2], spoke_ns linger)
{
    for (int side = 0; side < 2; side++) {
        int rc = muxes[side] == NULL ? 0 : spoke_mux_close(muxes[side], side == 0 ? linger : 0);

        holds(rc == 0 || (x.breaks && rc == SPOKE_ETIMEDOUT), "%s", spoke_error_name(rc));
        (void)spoke_sim_run(x.storm.w, NULL, NULL, SPOKE_MS);
    }
}

static uint64_t
run(const char *test, uint64_t seed)
{
    uint32_t when;

    memset(&x, 0, sizeof x);
    storm_open(&x.storm, test, seed);
    if (chance(2) == 0) /* most would be lost before they have done much */
        x.storm.config.reset = x.storm.config.enomem = 0;
    x.disturbable = x.storm.kills;
    x.breaks = x.storm.config.reset > 0 || x.storm.config.enomem > 0 || x.storm.kills;
    open_all();
    when = chance(ACTIONS);
    for (uint32_t i = 0; i < ACTIONS; i++) {
        if (i == when && x.disturbable)
            disturb();
        act();
        if (chance(3) == 0)
            storm_pass(&x.storm, (spoke_ns)chance(200) * SPOKE_US);
        check_windows();
    }
    finish_all();
    for (int side = 0; side < 2; side++)
        check_status(side);
    storm_again(&x.storm);
    close_muxes(x.muxes, SPOKE_SECOND);
    close_muxes(x.outer, 0);
    return storm_close(&x.storm);
}

Test(sim_muxes, every_stream_brings_its_bytes_once_and_ends)
{
    storm_for_each_seed_connected("every_stream_brings_its_bytes_once_and_ends", run);
    cr_log_info("%d streams, %d KiB; %d ends in order, %d muxes that were lost", (int)seen.streams,
                (int)(seen.bytes / 1024), (int)seen.whole, (int)seen.broken);
}
