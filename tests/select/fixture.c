/* SPDX-License-Identifier: MIT */
#include "tests/select/fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/certs.h"
#include "tests/support/waiters.h"

#define MOMENT (5 * SPOKE_MS)

/* ---- scenes ---- */

/* What the shared engine makes once and keeps. */
static void
warm_up(void)
{
    spoke_stream *a, *b;

    expect_rc(spoke_stream_pair(&a, &b, NULL, NULL), 0);
    expect_rc(spoke_stream_close(a), 0);
    expect_rc(spoke_stream_close(b), 0);
}

void
scene_open(struct scene *sc, enum way way)
{
    memset(sc, 0, sizeof *sc);
    sc->way = way;
    scratch_dir();
    test_tls();
    if (way == SHARED)
        warm_up();
    resources_take(&sc->before);
    sc->before.chunks += 2; /* where engines receive into, which the shared one keeps */
    if (way == OWNED)
        expect_rc(spoke_engine_open(&sc->e, NULL), 0);
    if (way == SIM) {
        expect_rc(spoke_sim_open(&sc->w, NULL), 0);
        expect_rc(spoke_sim_engine(sc->w, &sc->e), 0);
        spoke_sim_run(sc->w, NULL, NULL, SPOKE_MS); /* so that there is a past */
    }
}

void
scene_close(struct scene *sc)
{
    if (sc->way == OWNED)
        expect_rc(spoke_engine_close(sc->e), 0);
    if (sc->way == SIM) {
        struct spoke_sim_report report;

        expect_rc(spoke_sim_close(sc->w, &report), 0);
        cr_expect_eq(report.ops_left, 0);
        cr_expect_eq(report.handles_left, 0);
    }
    resources_settle(&sc->before);
}

spoke_ns
scene_in(const struct scene *sc, spoke_ns duration)
{
    return spoke_engine_now(sc->e) + duration;
}

struct later {
    pthread_t thread;
    bool threaded;
    void (*fn)(void *ctx);
    void *ctx;
};

static void *
later_main(void *argument)
{
    const struct timespec pause = {.tv_nsec = MOMENT};
    struct later *later = argument;

    nanosleep(&pause, NULL);
    later->fn(later->ctx);
    return NULL;
}

struct later *
scene_later(struct scene *sc, void (*fn)(void *ctx), void *ctx)
{
    struct later *later = calloc(1, sizeof *later);

    cr_assert_not_null(later);
    *later = (struct later){.threaded = sc->way == SHARED, .fn = fn, .ctx = ctx};
    if (later->threaded)
        cr_assert_eq(pthread_create(&later->thread, NULL, later_main, later), 0);
    else
        expect_rc(spoke_engine_after(sc->e, MOMENT, fn, ctx, NULL), 0);
    return later;
}

void
scene_joined(struct later *later)
{
    if (later->threaded)
        pthread_join(later->thread, NULL);
    free(later);
}

int
transport_of(const struct kind *kind)
{
    for (int i = INPROC; kind->url != NULL && i <= LAST_TRANSPORT; i++) {
        if (strcmp(kind->url, transport_name((enum transport)i)) == 0)
            return i;
    }
    return -1;
}

static bool
is_secure(const struct thing *t)
{
    int transport = transport_of(t->kind);

    return transport >= 0 && transport_has_tls((enum transport)transport);
}

/* ---- sockets ---- */

static void
connect_sockets(struct thing *t, int at_listener, int at_dialer)
{
    expect_rc(spoke_socket_open(&t->s[0], at_listener, t->sc->e), 0);
    expect_rc(spoke_socket_open(&t->s[1], at_dialer, t->sc->e), 0);
    for (int i = 0; i < 2 && is_secure(t); i++)
        expect_rc(spoke_socket_set_tls(t->s[i], test_tls()), 0);
    expect_rc(spoke_listen(t->s[0], t->url, NULL, 0), 0);
    expect_rc(spoke_dial(t->s[1], t->url, NULL, SPOKE_WAIT_FIRST), 0);
}

static int
close_socket(struct thing *t)
{
    return spoke_socket_close(t->s[0]);
}

static void
clean_sockets(struct thing *t)
{
    for (int i = 0; i < 2; i++) {
        if (t->context != NULL)
            (void)spoke_context_close(t->context);
        (void)spoke_socket_close(t->s[i]);
    }
}

static int
recv_now(spoke_socket *s)
{
    char text[16];
    size_t size = sizeof text;

    return spoke_recv_bytes(s, text, &size, SPOKE_DONTWAIT);
}

static void
open_pull(struct thing *t)
{
    connect_sockets(t, SPOKE_PULL, SPOKE_PUSH);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_SOCKET_RECV, .of.socket = t->s[0]};
}

static void
send_to(struct thing *t)
{
    (void)spoke_send_bytes(t->s[1], "x", 1, SPOKE_DONTWAIT);
}

static int
recv_from(struct thing *t)
{
    return recv_now(t->s[0]);
}

/* Nobody is there yet. */
static void
open_push(struct thing *t)
{
    expect_rc(spoke_socket_open(&t->s[0], SPOKE_PUSH, t->sc->e), 0);
    expect_rc(spoke_socket_open(&t->s[1], SPOKE_PULL, t->sc->e), 0);
    expect_rc(spoke_socket_set_int(t->s[0], SPOKE_OPT_SEND_QUEUE, 0), 0);
    expect_rc(spoke_listen(t->s[0], t->url, NULL, 0), 0);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_SOCKET_SEND, .of.socket = t->s[0]};
}

static void
dial_it(struct thing *t)
{
    (void)spoke_dial(t->s[1], t->url, NULL, 0);
}

static int
send_from(struct thing *t)
{
    return spoke_send_bytes(t->s[0], "x", 1, SPOKE_DONTWAIT);
}

/* ---- contexts ---- */

static void
open_rep_context(struct thing *t)
{
    connect_sockets(t, SPOKE_REP, SPOKE_REQ);
    expect_rc(spoke_context_open(&t->context, t->s[0]), 0);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_CONTEXT_RECV, .of.context = t->context};
}

static int
recv_in_context(struct thing *t)
{
    char text[16];
    size_t size = sizeof text;

    return spoke_context_recv_bytes(t->context, text, &size, SPOKE_DONTWAIT);
}

static int
close_context(struct thing *t)
{
    return spoke_context_close(t->context);
}

/* Its request waits to be answered. */
static void
open_req_context(struct thing *t)
{
    char text[16];
    size_t size = sizeof text;

    connect_sockets(t, SPOKE_REQ, SPOKE_REP);
    expect_rc(spoke_context_open(&t->context, t->s[0]), 0);
    expect_rc(spoke_context_send_bytes(t->context, "x", 1, 0), 0);
    expect_rc(spoke_recv_bytes(t->s[1], text, &size, 0), 0);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_CONTEXT_RECV, .of.context = t->context};
}

/* ---- streams ---- */

/* The defaults, with what it takes to meet there. */
static spoke_stream_config
config_of(const struct thing *t)
{
    spoke_stream_config config;

    spoke_stream_config_init(&config);
    if (is_secure(t))
        config.tls = test_tls();
    return config;
}

static void
connect_streams(struct thing *t)
{
    spoke_stream_config config = config_of(t);

    config.linger_ns = 0;
    if (t->url[0] == '\0') {
        expect_rc(spoke_stream_pair(&t->stream[0], &t->stream[1], &config, t->sc->e), 0);
        return;
    }
    expect_rc(spoke_stream_listen(&t->listener, t->url, &config, t->sc->e), 0);
    expect_rc(spoke_stream_listener_address(t->listener, t->url, sizeof t->url), 0);
    expect_rc(
        spoke_stream_dial(&t->stream[1], t->url, &config, t->sc->e, scene_in(t->sc, PATIENCE)), 0);
    expect_rc(spoke_stream_accept(t->listener, &t->stream[0], scene_in(t->sc, PATIENCE)), 0);
}

static void
clean_streams(struct thing *t)
{
    for (int i = 0; i < 2; i++) {
        if (t->stream[i] != NULL)
            (void)spoke_stream_close(t->stream[i]);
    }
    if (t->listener != NULL)
        expect_rc(spoke_stream_listener_close(t->listener), 0);
}

static int
close_stream(struct thing *t)
{
    return spoke_stream_close(t->stream[0]);
}

static void
open_reader(struct thing *t)
{
    connect_streams(t);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_STREAM_READ, .of.stream = t->stream[0]};
}

static int
write_now(spoke_stream *s)
{
    static const char zeros[4096];
    size_t done;

    (void)spoke_stream_set_write_deadline(s, SPOKE_NOW);
    return spoke_stream_write(s, zeros, sizeof zeros, &done);
}

static void
write_some(struct thing *t)
{
    (void)write_now(t->stream[1]);
}

static int
read_now(spoke_stream *s)
{
    char bytes[4096];
    size_t done;

    (void)spoke_stream_set_read_deadline(s, SPOKE_NOW);
    return spoke_stream_read(s, bytes, sizeof bytes, &done);
}

static int
read_some(struct thing *t)
{
    return read_now(t->stream[0]);
}

/* It is full, and stays so. */
static void
open_writer(struct thing *t)
{
    size_t which;

    connect_streams(t);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_STREAM_WRITE, .of.stream = t->stream[0]};
    for (int quiet = 0; quiet < 5; quiet++) { /* nothing on its way that makes room */
        while (write_now(t->stream[0]) == 0)
            quiet = 0;
        if (spoke_select(&t->c, 1, &which, NULL, scene_in(t->sc, 2 * SPOKE_MS)) == 0)
            quiet = 0;
        if (t->sc->way == SHARED)
            await_engine();
    }
}

static void
read_it_all(struct thing *t)
{
    while (read_now(t->stream[1]) == 0) {
    }
}

static int
write_from(struct thing *t)
{
    return write_now(t->stream[0]);
}

static void
open_listener(struct thing *t)
{
    spoke_stream_config config = config_of(t);

    expect_rc(spoke_stream_listen(&t->listener, t->url, &config, t->sc->e), 0);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_STREAM_ACCEPT, .of.listener = t->listener};
}

static void
dial_listener(struct thing *t)
{
    spoke_stream_config config = config_of(t);

    (void)spoke_stream_dial(&t->stream[1], t->url, &config, t->sc->e, SPOKE_NOW);
}

static int
accept_it(struct thing *t)
{
    return spoke_stream_accept(t->listener, &t->stream[0], SPOKE_NOW);
}

static int
close_listener(struct thing *t)
{
    return spoke_stream_listener_close(t->listener);
}

/* ---- muxes ---- */

static void
open_muxes(struct thing *t)
{
    spoke_mux_config config;

    connect_streams(t);
    spoke_mux_config_init(&config);
    for (int i = 0; i < 2; i++) {
        config.even = i == 1;
        expect_rc(spoke_mux_open(&t->mux[i], t->stream[i], &config), 0);
        t->stream[i] = NULL;
    }
    t->c = (spoke_select_case){.what = SPOKE_SELECT_MUX_ACCEPT, .of.mux = t->mux[0]};
}

static void
dial_mux(struct thing *t)
{
    (void)spoke_mux_dial(t->mux[1], &t->stream[1], NULL, 0, NULL, SPOKE_NOW);
}

static int
accept_from_mux(struct thing *t)
{
    return spoke_mux_accept(t->mux[0], &t->stream[0], NULL, SPOKE_NOW);
}

static int
close_mux(struct thing *t)
{
    return spoke_mux_close(t->mux[0], 0);
}

static void
clean_muxes(struct thing *t)
{
    clean_streams(t);
    for (int i = 0; i < 2; i++)
        expect_rc(spoke_mux_close(t->mux[i], 0), 0);
}

/* ---- sessions ---- */

static void
session_config(const struct thing *t, spoke_session_config *config)
{
    spoke_session_config_init(config);
    config->stream = config_of(t);
    config->mux.handshake_ns = 1000 * SPOKE_SECOND;
}

/* A peer has connected, and has not introduced itself. */
static void
open_session_listener(struct thing *t)
{
    spoke_session_config config;

    session_config(t, &config);
    expect_rc(spoke_session_listen(&t->session_listener, t->url, &config, t->sc->e), 0);
    expect_rc(spoke_stream_dial(&t->stream[1], t->url, &config.stream, t->sc->e,
                                scene_in(t->sc, PATIENCE)),
              0);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_SESSION_ACCEPT,
                               .of.session_listener = t->session_listener};
}

static void
introduce(struct thing *t)
{
    if (spoke_session_open(&t->session[1], t->stream[1], NULL) == 0)
        t->stream[1] = NULL;
}

static int
accept_session(struct thing *t)
{
    return spoke_session_accept(t->session_listener, &t->session[0], SPOKE_NOW);
}

static int
close_session_listener(struct thing *t)
{
    return spoke_session_listener_close(t->session_listener);
}

static void
open_sessions(struct thing *t, enum spoke_select_what what)
{
    spoke_session_config config;

    connect_streams(t);
    session_config(t, &config);
    for (int i = 0; i < 2; i++) {
        config.mux.even = i == 1;
        expect_rc(spoke_session_open(&t->session[i], t->stream[i], &config), 0);
        t->stream[i] = NULL;
    }
    t->c = (spoke_select_case){.what = what, .of.session = t->session[0]};
}

static void
open_for_receivers(struct thing *t)
{
    open_sessions(t, SPOKE_SELECT_SESSION_ACCEPT_RECEIVER);
}

static void
give_receiver(struct thing *t)
{
    (void)spoke_session_open_sender(t->session[1], &t->tx, NULL, NULL, SPOKE_NOW);
}

static int
accept_receiver(struct thing *t)
{
    return spoke_session_accept_receiver(t->session[0], &t->rx, NULL, SPOKE_NOW);
}

static void
open_for_senders(struct thing *t)
{
    open_sessions(t, SPOKE_SELECT_SESSION_ACCEPT_SENDER);
}

static void
give_sender(struct thing *t)
{
    (void)spoke_session_open_receiver(t->session[1], &t->rx, NULL, NULL, SPOKE_NOW);
}

static int
accept_sender(struct thing *t)
{
    return spoke_session_accept_sender(t->session[0], &t->tx, NULL, SPOKE_NOW);
}

static void
open_for_streams(struct thing *t)
{
    open_sessions(t, SPOKE_SELECT_SESSION_ACCEPT_STREAM);
}

static void
give_stream(struct thing *t)
{
    (void)spoke_session_open_stream(t->session[1], &t->stream[1], NULL, SPOKE_NOW);
}

static int
accept_stream(struct thing *t)
{
    return spoke_session_accept_stream(t->session[0], &t->stream[0], SPOKE_NOW);
}

static int
close_session(struct thing *t)
{
    return spoke_session_close(t->session[0], 0);
}

static void
clean_sessions(struct thing *t)
{
    if (t->tx != NULL)
        expect_rc(spoke_sender_close(t->tx), 0);
    if (t->rx != NULL)
        expect_rc(spoke_receiver_close(t->rx), 0);
    clean_streams(t);
    for (int i = 0; i < 2; i++) {
        if (t->session[i] != NULL)
            expect_rc(spoke_session_close(t->session[i], 0), 0);
    }
    if (t->session_listener != NULL)
        expect_rc(spoke_session_listener_close(t->session_listener), 0);
}

/* ---- channels ---- */

static void
open_receiver(struct thing *t)
{
    expect_rc(spoke_channel_pair(&t->rx, &t->tx, NULL, t->sc->e), 0);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_RECEIVER, .of.receiver = t->rx};
}

static int
send_on(spoke_sender *tx)
{
    spoke_msg *m;
    int rc;

    if (spoke_msg_from(&m, "x", 1) != 0)
        return SPOKE_ENOMEM;
    if ((rc = spoke_sender_send(tx, m, SPOKE_NOW)) != 0)
        spoke_msg_free(m);
    return rc;
}

static int
receive_on(spoke_receiver *rx)
{
    spoke_msg *m;
    int rc = spoke_receiver_recv(rx, &m, SPOKE_NOW);

    if (rc == 0)
        spoke_msg_free(m);
    return rc;
}

static void
send_to_receiver(struct thing *t)
{
    (void)send_on(t->tx);
}

static int
receive(struct thing *t)
{
    return receive_on(t->rx);
}

static int
close_receiver(struct thing *t)
{
    return spoke_receiver_close(t->rx);
}

/* It is full. */
static void
open_sender(struct thing *t)
{
    spoke_channel_config config;

    spoke_channel_config_init(&config);
    config.depth = 3;
    expect_rc(spoke_channel_pair(&t->rx, &t->tx, &config, t->sc->e), 0);
    while (send_on(t->tx) == 0) {
    }
    t->c = (spoke_select_case){.what = SPOKE_SELECT_SENDER, .of.sender = t->tx};
}

static void
make_room(struct thing *t)
{
    (void)receive_on(t->rx);
}

static int
send_it(struct thing *t)
{
    return send_on(t->tx);
}

static int
close_sender(struct thing *t)
{
    return spoke_sender_close(t->tx);
}

static void
clean_channel(struct thing *t)
{
    expect_rc(spoke_sender_close(t->tx), 0);
    expect_rc(spoke_receiver_close(t->rx), 0);
}

/* ---- descriptors ---- */

static void
open_fds(struct thing *t)
{
    cr_assert_eq(pipe2(t->fd, O_NONBLOCK | O_CLOEXEC), 0);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_FD_READ, .of.fd = t->fd[0]};
}

static void
write_fd(struct thing *t)
{
    (void)!write(t->fd[1], "x", 1);
}

static int
read_fd(struct thing *t)
{
    char byte;

    return read(t->fd[0], &byte, 1) == 1 ? 0 : SPOKE_EAGAIN;
}

static void
open_full_fds(struct thing *t)
{
    static const char zeros[4096];

    cr_assert_eq(pipe2(t->fd, O_NONBLOCK | O_CLOEXEC), 0);
    while (write(t->fd[1], zeros, sizeof zeros) > 0) {
    }
    t->c = (spoke_select_case){.what = SPOKE_SELECT_FD_WRITE, .of.fd = t->fd[1]};
}

static void
empty_fds(struct thing *t)
{
    char bytes[4096];

    while (read(t->fd[0], bytes, sizeof bytes) > 0) {
    }
}

static int
write_to_fd(struct thing *t)
{
    return write(t->fd[1], "x", 1) == 1 ? 0 : SPOKE_EAGAIN;
}

static void
clean_fds(struct thing *t)
{
    close(t->fd[0]);
    close(t->fd[1]);
}

/* ---- time ---- */

static void
open_time(struct thing *t)
{
    t->c = (spoke_select_case){.what = SPOKE_SELECT_TIME,
                               .of.when = scene_in(t->sc, 40 * SPOKE_MS * SPOKE_TEST_SLOWDOWN)};
}

static void
time_comes(struct thing *t)
{
    (void)t;
}

static int
time_has_come(struct thing *t)
{
    return spoke_engine_now(t->sc->e) >= t->c.of.when ? 0 : SPOKE_EAGAIN;
}

static void
clean_nothing(struct thing *t)
{
    (void)t;
}

/* ---- all of them ---- */

#define PULL(Name, Url)                                                                            \
    {                                                                                              \
        .name = (Name), .open = open_pull, .make = send_to, .use = recv_from,                      \
        .close = close_socket, .clean = clean_sockets, .url = (Url)                                \
    }
#define READER(Name, Url)                                                                          \
    {                                                                                              \
        .name = (Name), .open = open_reader, .make = write_some, .use = read_some,                 \
        .close = close_stream, .clean = clean_streams, .url = (Url)                                \
    }
#define WRITER(Name, Url)                                                                          \
    {                                                                                              \
        .name = (Name), .open = open_writer, .make = read_it_all, .use = write_from,               \
        .close = close_stream, .clean = clean_streams, .url = (Url)                                \
    }
#define LISTENER(Name, Url)                                                                        \
    {                                                                                              \
        .name = (Name), .open = open_listener, .make = dial_listener, .use = accept_it,            \
        .close = close_listener, .clean = clean_streams, .url = (Url)                              \
    }
#define MUX(Name, Url)                                                                             \
    {                                                                                              \
        .name = (Name), .open = open_muxes, .make = dial_mux, .use = accept_from_mux,              \
        .close = close_mux, .clean = clean_muxes, .url = (Url)                                     \
    }
#define SESSION_LISTENER(Name, Url)                                                                \
    {                                                                                              \
        .name = (Name), .open = open_session_listener, .make = introduce, .use = accept_session,   \
        .close = close_session_listener, .clean = clean_sessions, .url = (Url)                     \
    }
#define SESSION(Name, What, Url)                                                                   \
    {                                                                                              \
        .name = (Name), .open = open_for_##What##s, .make = give_##What, .use = accept_##What,     \
        .close = close_session, .clean = clean_sessions, .url = (Url)                              \
    }

/* What there is over a transport, which is a real one. */
#define OVER(Transport)                                                                            \
    PULL("socket-recv-" Transport, Transport), READER("reader-" Transport, Transport),             \
        WRITER("writer-" Transport, Transport), LISTENER("listener-" Transport, Transport),        \
        MUX("mux-" Transport, Transport),                                                          \
        SESSION_LISTENER("session-listener-" Transport, Transport),                                \
        SESSION("session-receiver-" Transport, receiver, Transport),                               \
        SESSION("session-sender-" Transport, sender, Transport),                                   \
        SESSION("session-stream-" Transport, stream, Transport)

const struct kind kinds[] = {
    PULL("socket-recv-inproc", "inproc://"),
    PULL("socket-recv-ipc", "ipc://@"),
    {.name = "socket-send",
     .open = open_push,
     .make = dial_it,
     .use = send_from,
     .close = close_socket,
     .clean = clean_sockets,
     .url = "inproc://"},
    {.name = "context-rep",
     .open = open_rep_context,
     .make = send_to,
     .use = recv_in_context,
     .close = close_context,
     .clean = clean_sockets,
     .url = "inproc://"},
    {.name = "context-req",
     .open = open_req_context,
     .make = send_to,
     .use = recv_in_context,
     .close = close_context,
     .clean = clean_sockets,
     .url = "ipc://@"},
    READER("reader-pair", ""),
    READER("reader-inproc", "inproc://"),
    READER("reader-ipc", "ipc://@"),
    WRITER("writer-pair", ""),
    WRITER("writer-ipc", "ipc://@"),
    LISTENER("listener-inproc", "inproc://"),
    LISTENER("listener-ipc", "ipc://@"),
    MUX("mux-pair", ""),
    MUX("mux-ipc", "ipc://@"),
    SESSION_LISTENER("session-listener-inproc", "inproc://"),
    SESSION_LISTENER("session-listener-ipc", "ipc://@"),
    SESSION("session-receiver-pair", receiver, ""),
    SESSION("session-receiver-ipc", receiver, "ipc://@"),
    SESSION("session-sender-pair", sender, ""),
    SESSION("session-stream-pair", stream, ""),
    SESSION("session-stream-ipc", stream, "ipc://@"),
    OVER("tcp"),
    OVER("tls"),
    OVER("ws"),
    OVER("wss"),
    {.name = "receiver",
     .open = open_receiver,
     .make = send_to_receiver,
     .use = receive,
     .close = close_receiver,
     .clean = clean_channel},
    {.name = "sender",
     .open = open_sender,
     .make = make_room,
     .use = send_it,
     .close = close_sender,
     .clean = clean_channel},
    {.name = "fd-read",
     .open = open_fds,
     .make = write_fd,
     .use = read_fd,
     .clean = clean_fds,
     .real = true},
    {.name = "fd-write",
     .open = open_full_fds,
     .make = empty_fds,
     .use = write_to_fd,
     .clean = clean_fds,
     .real = true},
    {.name = "time",
     .open = open_time,
     .make = time_comes,
     .use = time_has_come,
     .clean = clean_nothing},
};
const size_t kinds_count = sizeof kinds / sizeof *kinds;

const struct kind *
kind_of(const char *name)
{
    for (size_t i = 0; i < kinds_count; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    cr_assert_fail("no kind %s", name);
    return NULL;
}

void
thing_open(struct thing *t, struct scene *sc, const struct kind *kind)
{
    static int number;

    memset(t, 0, sizeof *t);
    t->kind = kind;
    t->sc = sc;
    if (transport_of(kind) >= 0)
        endpoint_fresh(t->url, (enum transport)transport_of(kind));
    else if (kind->url != NULL && kind->url[0] != '\0')
        snprintf(t->url, sizeof t->url, "%sselect-%d-%d", kind->url, (int)getpid(), number++);
    kind->open(t);
}

void
thing_close(struct thing *t)
{
    t->kind->clean(t);
}

struct criterion_test_params
plays(void)
{
    static struct play list[3 * sizeof kinds / sizeof *kinds];
    const char *backend = getenv("SPOKE_BACKEND");
    size_t count = 0;

    for (size_t i = 0; i < kinds_count; i++) {
        for (int way = OWNED; way <= SIM; way++) {
            /* Simulated worlds do not depend on the backend: they run once. */
            if (way == SIM && (kinds[i].real || transport_of(&kinds[i]) >= 0 ||
                               (backend != NULL && strcmp(backend, "poll") == 0)))
                continue;
            list[count++] = (struct play){(enum way)way, i};
        }
    }
    return (struct criterion_test_params){.size = sizeof list[0], .params = list, .length = count};
}

struct criterion_test_params
ways(void)
{
    static enum way list[] = {OWNED, SHARED, SIM};

    return (struct criterion_test_params){.size = sizeof list[0], .params = list, .length = 3};
}
