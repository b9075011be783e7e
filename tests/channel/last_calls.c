/* SPDX-License-Identifier: MIT */
/* What a callback on the shared engine uses may be freed once its object is closed, or it has been
 * taken away: those calls wait for one that runs. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/channel/sessions.h"

#define LATE (60 * SPOKE_SECOND)
#define NAP  (50 * 1000) /* us: that a callback takes when its object is being closed */

struct stage {
    atomic_int begun, ended; /* callbacks */
    atomic_bool over;        /* it is being closed, or taken away */
    void *object;            /* that has the callback */
    spoke_stream *streams[4];
    atomic_bool parted; /* those that were joined */
    spoke_mux *mux;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_socket *socket;
    struct sessions sessions;
    pthread_t thread;
};

static void
take_part(struct stage *s)
{
    const spoke_ns late = spoke_engine_now(NULL) + LATE;

    atomic_fetch_add(&s->begun, 1);
    while (!atomic_load(&s->over) && spoke_engine_now(NULL) < late)
        usleep(1000);
    usleep(NAP);
    atomic_fetch_add(&s->ended, 1);
}

/* ---- streams ---- */

static void
on_stream(spoke_stream *stream, unsigned what, void *ctx)
{
    (void)stream;
    (void)what;
    take_part(ctx);
}

static void
stream_begins(struct stage *s)
{
    cr_assert_eq(spoke_stream_pair(&s->streams[0], &s->streams[1], NULL, NULL), 0);
    s->object = s->streams[0];
    cr_assert_eq(spoke_stream_on_ready(s->object, on_stream, s), 0);
}

static int
stream_goes_quiet(struct stage *s)
{
    return spoke_stream_on_ready(s->object, NULL, NULL);
}

static int
stream_closes(struct stage *s)
{
    return spoke_stream_close(s->object);
}

static void
stream_ends(struct stage *s)
{
    (void)spoke_stream_close(s->object);
    cr_assert_eq(spoke_stream_close(s->streams[1]), 0);
}

static int
stream_is_taken(struct stage *s)
{
    return spoke_mux_open(&s->mux, s->object, NULL);
}

static void
on_joined(void *ctx, const struct spoke_stream_report *report)
{
    (void)report;
    atomic_store((atomic_bool *)ctx, true);
}

static int
stream_is_joined(struct stage *s)
{
    cr_assert_eq(spoke_stream_pair(&s->streams[2], &s->streams[3], NULL, NULL), 0);
    return spoke_stream_join(s->object, s->streams[2], on_joined, &s->parted);
}

static void
taken_stream_ends(struct stage *s)
{
    cr_assert_eq(spoke_mux_close(s->mux, 0), 0);
    cr_assert_eq(spoke_stream_close(s->streams[1]), 0);
}

static void
joined_stream_ends(struct stage *s)
{
    const spoke_ns late = spoke_engine_now(NULL) + LATE;

    for (int i = 0; i < 4; i++)
        cr_assert_eq(spoke_stream_close(s->streams[i]), 0);
    while (!atomic_load(&s->parted) && spoke_engine_now(NULL) < late)
        usleep(1000);
    cr_assert(atomic_load(&s->parted));
}

/* ---- listeners of streams ---- */

static void
on_accept(spoke_stream_listener *l, void *ctx)
{
    (void)l;
    take_part(ctx);
}

static void
listener_begins(struct stage *s)
{
    spoke_stream_listener *l;

    cr_assert_eq(spoke_stream_listen(&l, "inproc://last-calls", NULL, NULL), 0);
    s->object = l;
    cr_assert_eq(spoke_stream_listener_on_ready(l, on_accept, s), 0);
    cr_assert_eq(spoke_stream_dial(&s->streams[0], "inproc://last-calls", NULL, NULL, SPOKE_NOW),
                 0);
}

static int
listener_goes_quiet(struct stage *s)
{
    return spoke_stream_listener_on_ready(s->object, NULL, NULL);
}

static int
listener_closes(struct stage *s)
{
    return spoke_stream_listener_close(s->object);
}

static void
listener_ends(struct stage *s)
{
    (void)spoke_stream_listener_close(s->object);
    cr_assert_eq(spoke_stream_close(s->streams[0]), 0);
}

/* ---- muxes ---- */

static void
on_mux_ready(spoke_mux *mux, void *ctx)
{
    (void)mux;
    take_part(ctx);
}

static uint64_t
on_mux_open(spoke_mux *mux, const void *meta, size_t meta_size, void *ctx)
{
    (void)mux;
    (void)meta;
    (void)meta_size;
    take_part(ctx);
    return SPOKE_MUX_NONE;
}

static void
on_mux_closed(spoke_mux *mux, const struct spoke_mux_end *why, void *ctx)
{
    (void)mux;
    (void)why;
    take_part(ctx);
}

static spoke_mux *
muxes_begin(struct stage *s)
{
    spoke_stream *ends[2];
    spoke_mux_config config;
    spoke_mux *mux;

    spoke_mux_config_init(&config);
    cr_assert_eq(spoke_stream_pair(&ends[0], &ends[1], NULL, NULL), 0);
    cr_assert_eq(spoke_mux_open(&mux, ends[0], &config), 0);
    config.even = true;
    cr_assert_eq(spoke_mux_open(&s->mux, ends[1], &config), 0);
    s->object = mux;
    return mux;
}

static void
open_stream(struct stage *s)
{
    cr_assert_eq(spoke_mux_dial(s->mux, &s->streams[0], NULL, 0, NULL, SPOKE_NOW), 0);
}

static void
mux_ready_begins(struct stage *s)
{
    cr_assert_eq(spoke_mux_on_ready(muxes_begin(s), on_mux_ready, s), 0);
    open_stream(s);
}

static void
mux_open_begins(struct stage *s)
{
    cr_assert_eq(spoke_mux_on_open(muxes_begin(s), on_mux_open, s), 0);
    open_stream(s);
}

static void
mux_closed_begins(struct stage *s)
{
    cr_assert_eq(spoke_mux_on_closed(muxes_begin(s), on_mux_closed, s), 0);
    open_stream(s);
    cr_assert_eq(spoke_mux_close(s->mux, 0), 0);
}

static int
mux_ready_goes_quiet(struct stage *s)
{
    return spoke_mux_on_ready(s->object, NULL, NULL);
}

static int
mux_open_goes_quiet(struct stage *s)
{
    return spoke_mux_on_open(s->object, NULL, NULL);
}

static int
mux_closed_goes_quiet(struct stage *s)
{
    return spoke_mux_on_closed(s->object, NULL, NULL);
}

static int
mux_closes(struct stage *s)
{
    return spoke_mux_close(s->object, 0);
}

static void
mux_ends(struct stage *s)
{
    (void)spoke_mux_close(s->object, 0);
    (void)spoke_mux_close(s->mux, 0);
    cr_assert_eq(spoke_stream_close(s->streams[0]), 0);
}

/* ---- channels ---- */

static void
on_sender(spoke_sender *tx, void *ctx)
{
    (void)tx;
    take_part(ctx);
}

static void
on_receiver(spoke_receiver *rx, void *ctx)
{
    (void)rx;
    take_part(ctx);
}

static void
sender_begins(struct stage *s)
{
    cr_assert_eq(spoke_channel_pair(&s->rx, &s->tx, NULL, NULL), 0);
    cr_assert_eq(spoke_sender_on_ready(s->tx, on_sender, s), 0);
}

static void
receiver_begins(struct stage *s)
{
    cr_assert_eq(spoke_channel_pair(&s->rx, &s->tx, NULL, NULL), 0);
    cr_assert_eq(spoke_receiver_on_ready(s->rx, on_receiver, s), 0);
    must_send(s->tx, "it");
}

static int
sender_goes_quiet(struct stage *s)
{
    return spoke_sender_on_ready(s->tx, NULL, NULL);
}

static int
sender_closes(struct stage *s)
{
    return spoke_sender_close(s->tx);
}

static int
sender_aborts(struct stage *s)
{
    return spoke_sender_abort(s->tx, 1, "no more");
}

static int
receiver_goes_quiet(struct stage *s)
{
    return spoke_receiver_on_ready(s->rx, NULL, NULL);
}

static int
receiver_closes(struct stage *s)
{
    return spoke_receiver_close(s->rx);
}

static void
channel_ends(struct stage *s)
{
    (void)spoke_sender_close(s->tx);
    (void)spoke_receiver_close(s->rx);
}

/* ---- sessions ---- */

static void
on_session(spoke_session *ss, void *ctx)
{
    (void)ss;
    take_part(ctx);
}

static void
session_begins(struct stage *s)
{
    sessions_open(&s->sessions, OVER_INPROC, NULL);
    cr_assert_eq(spoke_session_on_ready(s->sessions.a, on_session, s), 0);
    cr_assert_eq(spoke_session_close(s->sessions.b, 0), 0);
}

static int
session_goes_quiet(struct stage *s)
{
    return spoke_session_on_ready(s->sessions.a, NULL, NULL);
}

static int
session_closes(struct stage *s)
{
    return spoke_session_close(s->sessions.a, 0);
}

static void
session_ends(struct stage *s)
{
    sessions_close(&s->sessions);
}

/* ---- listeners of sessions ---- */

static void
on_session_accept(spoke_session_listener *l, void *ctx)
{
    (void)l;
    take_part(ctx);
}

static int
authenticate(void *ctx, spoke_stream *carrier)
{
    (void)carrier;
    take_part(ctx);
    return 0;
}

static void *
dial_session(void *ctx)
{
    struct stage *s = ctx;

    /* The other end may go while this begins. */
    (void)spoke_session_dial(&s->sessions.a, "inproc://last-calls", NULL, NULL,
                             spoke_engine_now(NULL) + LATE);
    return NULL;
}

static void
listen_for_sessions(struct stage *s, bool asks)
{
    spoke_session_config config;
    spoke_session_listener *l;

    spoke_session_config_init(&config);
    if (asks)
        config.authenticate = authenticate;
    config.ctx = s;
    cr_assert_eq(spoke_session_listen(&l, "inproc://last-calls", &config, NULL), 0);
    if (!asks)
        cr_assert_eq(spoke_session_listener_on_ready(l, on_session_accept, s), 0);
    s->object = l;
    cr_assert_eq(pthread_create(&s->thread, NULL, dial_session, s), 0);
}

static void
session_listener_begins(struct stage *s)
{
    listen_for_sessions(s, false);
}

static void
authentication_begins(struct stage *s)
{
    listen_for_sessions(s, true);
}

static int
session_listener_goes_quiet(struct stage *s)
{
    return spoke_session_listener_on_ready(s->object, NULL, NULL);
}

static int
session_listener_closes(struct stage *s)
{
    return spoke_session_listener_close(s->object);
}

static void
session_listener_ends(struct stage *s)
{
    (void)spoke_session_listener_close(s->object);
    cr_assert_eq(pthread_join(s->thread, NULL), 0);
    if (s->sessions.a != NULL)
        cr_assert_eq(spoke_session_close(s->sessions.a, 0), 0);
}

/* ---- sockets ---- */

static void
on_message(spoke_socket *socket, spoke_msg *m, void *ctx)
{
    (void)socket;
    spoke_msg_free(m);
    take_part(ctx);
}

static void
on_writable(spoke_socket *socket, void *ctx)
{
    (void)socket;
    take_part(ctx);
}

static void
on_undelivered(spoke_socket *socket, spoke_msg *m, int reason, void *ctx)
{
    (void)socket;
    (void)reason;
    spoke_msg_free(m);
    take_part(ctx);
}

static int
on_event(spoke_socket *socket, const struct spoke_event *event, void *ctx)
{
    (void)socket;
    (void)event;
    take_part(ctx);
    return 0;
}

static void
sockets_begin(struct stage *s)
{
    cr_assert_eq(spoke_socket_open(&s->socket, SPOKE_PAIR, NULL), 0);
    s->object = s->socket;
    cr_assert_eq(spoke_listen(s->object, "inproc://last-calls", NULL, 0), 0);
    cr_assert_eq(spoke_socket_open(&s->socket, SPOKE_PAIR, NULL), 0);
}

static void
connect_sockets(struct stage *s)
{
    cr_assert_eq(spoke_dial(s->socket, "inproc://last-calls", NULL, 0), 0);
}

static void
message_begins(struct stage *s)
{
    sockets_begin(s);
    cr_assert_eq(spoke_socket_on_message(s->object, on_message, s), 0);
    connect_sockets(s);
    cr_assert_eq(spoke_send_bytes(s->socket, "it", 2, 0), 0);
}

static void
writable_begins(struct stage *s)
{
    int rc;

    sockets_begin(s);
    while ((rc = spoke_send_bytes(s->object, "it", 2, SPOKE_DONTWAIT)) == 0) {
    }
    cr_assert_eq(rc, SPOKE_EAGAIN);
    cr_assert_eq(spoke_socket_on_writable(s->object, on_writable, s), 0);
    connect_sockets(s);
}

/* Nobody is there, and the message has no time. */
static void
undelivered_begins(struct stage *s)
{
    sockets_begin(s);
    cr_assert_eq(spoke_socket_on_undelivered(s->object, on_undelivered, s), 0);
    cr_assert_eq(spoke_socket_set_bool(s->object, SPOKE_OPT_BEST_EFFORT, true), 0);
    while (atomic_load(&s->begun) == 0)
        cr_assert_eq(spoke_send_bytes(s->object, "it", 2, 0), 0);
}

static void
event_begins(struct stage *s)
{
    sockets_begin(s);
    cr_assert_eq(spoke_socket_on_event(s->object, on_event, s), 0);
    connect_sockets(s);
}

static int
message_goes_quiet(struct stage *s)
{
    return spoke_socket_on_message(s->object, NULL, NULL);
}

static int
writable_goes_quiet(struct stage *s)
{
    return spoke_socket_on_writable(s->object, NULL, NULL);
}

static int
event_goes_quiet(struct stage *s)
{
    return spoke_socket_on_event(s->object, NULL, NULL);
}

static int
undelivered_goes_quiet(struct stage *s)
{
    return spoke_socket_on_undelivered(s->object, NULL, NULL);
}

static int
socket_closes(struct stage *s)
{
    return spoke_socket_close(s->object);
}

static void
sockets_end(struct stage *s)
{
    (void)spoke_socket_close(s->object);
    (void)spoke_socket_close(s->socket);
}

/* ---- all of them ---- */

static const struct act {
    const char *name;
    void (*begins)(struct stage *s);
    int (*last)(struct stage *s); /* no callback after this */
    void (*ends)(struct stage *s);
} acts[] = {
    {"a stream's taken away", stream_begins, stream_goes_quiet, stream_ends},
    {"a stream closed", stream_begins, stream_closes, stream_ends},
    {"a stream taken over", stream_begins, stream_is_taken, taken_stream_ends},
    {"a stream joined", stream_begins, stream_is_joined, joined_stream_ends},
    {"a listener's taken away", listener_begins, listener_goes_quiet, listener_ends},
    {"a listener closed", listener_begins, listener_closes, listener_ends},
    {"a mux's on_ready taken away", mux_ready_begins, mux_ready_goes_quiet, mux_ends},
    {"a mux closed in on_ready", mux_ready_begins, mux_closes, mux_ends},
    {"a mux's on_open taken away", mux_open_begins, mux_open_goes_quiet, mux_ends},
    {"a mux closed in on_open", mux_open_begins, mux_closes, mux_ends},
    {"a mux's on_closed taken away", mux_closed_begins, mux_closed_goes_quiet, mux_ends},
    {"a mux closed in on_closed", mux_closed_begins, mux_closes, mux_ends},
    {"a sender's taken away", sender_begins, sender_goes_quiet, channel_ends},
    {"a sender closed", sender_begins, sender_closes, channel_ends},
    {"a sender aborted", sender_begins, sender_aborts, channel_ends},
    {"a receiver's taken away", receiver_begins, receiver_goes_quiet, channel_ends},
    {"a receiver closed", receiver_begins, receiver_closes, channel_ends},
    {"a session's taken away", session_begins, session_goes_quiet, session_ends},
    {"a session closed", session_begins, session_closes, session_ends},
    {"a session listener's taken away", session_listener_begins, session_listener_goes_quiet,
     session_listener_ends},
    {"a session listener closed", session_listener_begins, session_listener_closes,
     session_listener_ends},
    {"a session listener closed in authenticate", authentication_begins, session_listener_closes,
     session_listener_ends},
    {"a socket's on_message taken away", message_begins, message_goes_quiet, sockets_end},
    {"a socket closed in on_message", message_begins, socket_closes, sockets_end},
    {"a socket's on_writable taken away", writable_begins, writable_goes_quiet, sockets_end},
    {"a socket's on_undelivered taken away", undelivered_begins, undelivered_goes_quiet,
     sockets_end},
    {"a socket's on_event taken away", event_begins, event_goes_quiet, sockets_end},
};

Test(last_calls, are_over_when_what_ends_them_returns)
{
    for (size_t i = 0; i < sizeof acts / sizeof *acts; i++) {
        const struct act *act = &acts[i];
        const spoke_ns late = spoke_engine_now(NULL) + LATE;
        struct stage s = {.object = NULL};
        int begun;

        act->begins(&s);
        while (atomic_load(&s.begun) == 0 && spoke_engine_now(NULL) < late)
            usleep(1000);
        cr_assert_gt(atomic_load(&s.begun), 0, "%s", act->name);
        atomic_store(&s.over, true);
        cr_assert_eq(act->last(&s), 0, "%s", act->name);
        begun = atomic_load(&s.begun);
        cr_assert_eq(atomic_load(&s.ended), begun, "%s: one still runs", act->name);
        usleep(NAP);
        cr_assert_eq(atomic_load(&s.begun), begun, "%s: and another", act->name);
        act->ends(&s);
    }
}

/* ---- others instead ---- */

enum { CHANGES = TEST_REPEATS(40000) };

struct role {
    int number; /* 0: nobody's */
    atomic_uint calls;
    atomic_bool wrong;
};

static void
play(void *ctx, int number)
{
    struct role *r = ctx;

    if (r == NULL)
        abort();
    if (r->number != number)
        atomic_store(&r->wrong, true);
    atomic_fetch_add(&r->calls, 1);
}

static void
first_stream(spoke_stream *stream, unsigned what, void *ctx)
{
    char byte;
    size_t done;

    (void)what;
    play(ctx, 1);
    (void)spoke_stream_read(stream, &byte, 1, &done); /* so that it is called again */
}

static void
second_stream(spoke_stream *stream, unsigned what, void *ctx)
{
    char byte;
    size_t done;

    (void)what;
    play(ctx, 2);
    (void)spoke_stream_read(stream, &byte, 1, &done);
}

static void
first_sender(spoke_sender *tx, void *ctx)
{
    (void)tx;
    play(ctx, 1);
}

static void
second_sender(spoke_sender *tx, void *ctx)
{
    (void)tx;
    play(ctx, 2);
}

static bool
all_played(struct role *roles)
{
    return atomic_load(&roles[0].calls) > 0 && atomic_load(&roles[1].calls) > 0;
}

/* A callback gets what was given with it, however the change falls into its call. */
Test(last_calls, each_has_its_own_context)
{
    struct role roles[2] = {{.number = 1}, {.number = 2}};
    spoke_stream *a, *b;
    spoke_sender *tx;
    spoke_receiver *rx;
    const spoke_ns late = spoke_engine_now(NULL) + LATE;

    cr_assert_eq(spoke_stream_pair(&a, &b, NULL, NULL), 0);
    cr_assert_eq(spoke_stream_set_deadline(a, SPOKE_NOW), 0);
    cr_assert_eq(spoke_channel_pair(&rx, &tx, NULL, NULL), 0);
    for (int i = 0; i < CHANGES || (!all_played(roles) && spoke_engine_now(NULL) < late); i++) {
        cr_assert_eq(spoke_stream_on_ready(a, first_stream, &roles[0]), 0);
        cr_assert_eq(spoke_sender_on_ready(tx, first_sender, &roles[0]), 0);
        cr_assert_eq(spoke_stream_on_ready(a, second_stream, &roles[1]), 0);
        cr_assert_eq(spoke_sender_on_ready(tx, second_sender, &roles[1]), 0);
        cr_assert_eq(spoke_stream_on_ready(a, NULL, NULL), 0);
        cr_assert_eq(spoke_sender_on_ready(tx, NULL, NULL), 0);
    }
    cr_assert(all_played(roles));
    cr_assert_not(atomic_load(&roles[0].wrong));
    cr_assert_not(atomic_load(&roles[1].wrong));
    cr_assert_eq(spoke_stream_close(a), 0);
    cr_assert_eq(spoke_stream_close(b), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
}
