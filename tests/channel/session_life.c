/* SPDX-License-Identifier: MIT */
/* How sessions come and go: listeners, peers that are none, engines that close. */
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "tests/channel/sessions.h"

#define URL "inproc://session-life"

static spoke_ns
late(spoke_engine *e)
{
    return spoke_engine_now(e) + 60 * SPOKE_SECOND;
}

struct gate {
    int asked;
};

static int
only_the_second(void *ctx, spoke_stream *carrier)
{
    struct gate *g = ctx;

    (void)carrier;
    return ++g->asked == 2 ? 0 : SPOKE_EPERM;
}

/* A peer that says nothing, and one that is turned away, hold up nobody. */
Test(session_life, a_listener_lets_in_whom_it_likes)
{
    spoke_session_config config;
    spoke_session_listener *l;
    spoke_session *a, *b;
    spoke_stream *turned_away;
    struct gate g = {0};
    size_t done;
    char c;
    int rc;

    spoke_session_config_init(&config);
    config.authenticate = only_the_second;
    config.ctx = &g;
    cr_assert_eq(spoke_session_listen(&l, URL, &config, NULL), 0);
    cr_assert_eq(spoke_session_accept(l, &b, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(spoke_stream_dial(&turned_away, URL, NULL, NULL, late(NULL)), 0);
    rc = spoke_stream_read(turned_away, &c, 1, &done);
    cr_assert_eq(rc, SPOKE_EOF, "%s", spoke_error_name(rc));
    cr_assert_eq(spoke_stream_close(turned_away), 0);
    cr_assert_eq(spoke_session_dial(&a, URL, NULL, NULL, late(NULL)), 0);
    cr_assert_eq(spoke_session_accept(l, &b, late(NULL)), 0);
    cr_assert_eq(spoke_session_close(a, 0), 0);
    cr_assert_eq(spoke_session_wait(b, late(NULL)), 0);
    cr_assert_eq(spoke_session_close(b, 0), 0);
    cr_assert_eq(spoke_session_close(b, 0), 0, "once more");
    cr_assert_eq(spoke_session_listener_close(l), 0);
    cr_assert_eq(spoke_session_listener_close(l), 0);
    cr_assert_eq(spoke_session_accept(l, &b, SPOKE_NOW), SPOKE_ECLOSED);
}

/* Beside one that never introduces itself, and until its time is over. */
Test(session_life, silent_peers)
{
    spoke_session_config config;
    spoke_session_listener *l;
    spoke_session *a, *b;
    spoke_stream *silent, *wrong;
    size_t done;
    char c;

    spoke_session_config_init(&config);
    config.mux.handshake_ns = 3 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN;
    config.backlog = 3;
    cr_assert_eq(spoke_session_listen(&l, URL, &config, NULL), 0);
    cr_assert_eq(spoke_stream_dial(&silent, URL, NULL, NULL, late(NULL)), 0);
    cr_assert_eq(spoke_stream_dial(&wrong, URL, NULL, NULL, late(NULL)), 0);
    cr_assert_eq(spoke_stream_write(wrong, "GET / HTTP/1.1\r\n", 16, &done), 0);
    cr_assert_eq(spoke_session_dial(&a, URL, NULL, NULL, late(NULL)), 0);
    cr_assert_eq(spoke_session_accept(l, &b, late(NULL)), 0);
    while (spoke_stream_read(silent, &c, 1, &done) == 0) {
    }
    while (spoke_stream_read(wrong, &c, 1, &done) == 0) {
    }
    cr_assert_eq(spoke_session_accept(l, &b, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(spoke_session_close(a, 0), 0);
    cr_assert_eq(spoke_session_listener_close(l), 0);
    cr_assert_eq(spoke_stream_close(silent), 0);
    cr_assert_eq(spoke_stream_close(wrong), 0);
}

Test(session_life, nobody_listens)
{
    spoke_session *a;

    cr_assert_eq(spoke_session_dial(&a, "inproc://nobody", NULL, NULL, late(NULL)),
                 SPOKE_ECONNREFUSED);
    cr_assert_null(a);
    cr_assert_eq(spoke_session_dial(&a, "inproc://nobody", NULL, NULL, SPOKE_NOW), SPOKE_EAGAIN);
}

Test(session_life, configurations)
{
    spoke_session_config config;
    spoke_session_listener *l;

    spoke_session_config_init(&config);
    config.memory = 2 * config.channel.max_message - 1;
    cr_assert_eq(spoke_session_listen(&l, URL, &config, NULL), SPOKE_ERANGE);
    spoke_session_config_init(&config);
    config.backlog = 0;
    cr_assert_eq(spoke_session_listen(&l, URL, &config, NULL), SPOKE_ERANGE);
    spoke_session_config_init(&config);
    config.channel.depth = SPOKE_CHANNEL_DEPTH_MAX + 1;
    cr_assert_eq(spoke_session_listen(&l, URL, &config, NULL), SPOKE_ERANGE);
}

/* The handle's descriptor says when something waits. */
Test(session_life, told_by_a_descriptor)
{
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    struct pollfd p = {.events = POLLIN};

    sessions_open(&x, OVER_PAIR, NULL);
    p.fd = spoke_session_fd(x.b);
    cr_assert_geq(p.fd, 0);
    cr_assert_eq(poll(&p, 1, 0), 0);
    cr_assert_eq(spoke_session_open_sender(x.a, &tx, NULL, NULL, SPOKE_NOW), 0);
    cr_assert_eq(poll(&p, 1, 60000), 1);
    cr_assert_eq(spoke_session_accept_receiver(x.b, &rx, NULL, SPOKE_NOW), 0);
    cr_assert_eq(poll(&p, 1, 0), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    cr_assert_eq(spoke_session_close(x.a, 0), 0);
    cr_assert_eq(poll(&p, 1, 60000), 1);
    sessions_close(&x);
}

static void
count_call(spoke_session_listener *l, void *ctx)
{
    (void)l;
    __atomic_add_fetch((int *)ctx, 1, __ATOMIC_SEQ_CST);
}

static int
calls_until(int *calls, int wanted)
{
    spoke_ns limit = late(NULL);

    while (__atomic_load_n(calls, __ATOMIC_SEQ_CST) < wanted && spoke_engine_now(NULL) < limit)
        (void)usleep(1000);
    return __atomic_load_n(calls, __ATOMIC_SEQ_CST);
}

/* So do those of listeners; their callback comes once, and again after an accept found nothing. */
Test(session_life, listeners_tell_of_sessions)
{
    spoke_session_listener *l;
    spoke_session *a[3], *b[3];
    struct pollfd p = {.events = POLLIN};
    int calls = 0;

    cr_assert_eq(spoke_session_listen(&l, URL, NULL, NULL), 0);
    p.fd = spoke_session_listener_fd(l);
    cr_assert_geq(p.fd, 0);
    cr_assert_eq(spoke_session_listener_fd(l), p.fd);
    cr_assert_eq(poll(&p, 1, 0), 0);
    cr_assert_eq(spoke_session_listener_on_ready(l, count_call, &calls), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_session_dial(&a[i], URL, NULL, NULL, late(NULL)), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(poll(&p, 1, 60000), 1);
        cr_assert_eq(spoke_session_accept(l, &b[i], late(NULL)), 0);
    }
    cr_assert_eq(poll(&p, 1, 0), 0);
    cr_assert_eq(calls_until(&calls, 1), 1);
    cr_assert_eq(spoke_session_accept(l, &b[2], SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(spoke_session_dial(&a[2], URL, NULL, NULL, late(NULL)), 0);
    cr_assert_eq(calls_until(&calls, 2), 2);
    cr_assert_eq(poll(&p, 1, 60000), 1);
    /* It ends before anybody has accepted it. */
    cr_assert_eq(spoke_session_close(a[2], 0), 0);
    while (poll(&p, 1, 0) == 1)
        (void)usleep(1000);
    cr_assert_eq(spoke_session_accept(l, &b[2], SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(spoke_session_listener_on_ready(l, NULL, NULL), 0);
    cr_assert_eq(spoke_session_dial(&a[2], URL, NULL, NULL, late(NULL)), 0);
    cr_assert_eq(spoke_session_accept(l, &b[2], late(NULL)), 0);
    cr_assert_eq(calls_until(&calls, 0), 2);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(spoke_session_close(a[i], 0), 0);
        cr_assert_eq(spoke_session_close(b[i], 0), 0);
    }
    cr_assert_eq(spoke_session_listener_close(l), 0);
    cr_assert_eq(spoke_session_listener_fd(l), SPOKE_ECLOSED);
    cr_assert_eq(spoke_session_listener_on_ready(l, NULL, NULL), SPOKE_ECLOSED);
}

/* Those that end before they are accepted leave their places to others. */
Test(session_life, places_of_the_backlog_come_back)
{
    spoke_session_config config;
    spoke_session_listener *l;
    spoke_session *a, *b;

    spoke_session_config_init(&config);
    config.backlog = 1;
    cr_assert_eq(spoke_session_listen(&l, URL, &config, NULL), 0);
    for (int i = 0; i < 5; i++) {
        cr_assert_eq(spoke_session_dial(&a, URL, NULL, NULL, late(NULL)), 0);
        if (i < 4)
            cr_assert_eq(spoke_session_close(a, 0), 0);
    }
    cr_assert_eq(spoke_session_accept(l, &b, late(NULL)), 0);
    cr_assert_eq(spoke_session_status(b, &(struct spoke_mux_end){0}), SPOKE_EAGAIN, "it goes on");
    cr_assert_eq(spoke_session_close(a, 0), 0);
    cr_assert_eq(spoke_session_close(b, 0), 0);
    cr_assert_eq(spoke_session_listener_close(l), 0);
}

/* Everything is open, also what messages carry, and half of a message is under way. */
Test(session_life, the_engine_closes)
{
    struct spoke_memory_stats before, after;
    spoke_sender *tx, *inner_tx;
    spoke_receiver *rx, *inner_rx;
    spoke_stream *a, *b, *mine, *theirs;
    spoke_session *one, *other;
    spoke_session_config config;
    spoke_engine *e;
    spoke_msg *m;

    spoke_memory_stats(&before);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    spoke_session_config_init(&config);
    cr_assert_eq(spoke_stream_pair(&a, &b, NULL, e), 0);
    cr_assert_eq(spoke_session_open(&one, a, &config), 0);
    config.mux.even = true;
    cr_assert_eq(spoke_session_open(&other, b, &config), 0);
    cr_assert_eq(spoke_session_open_sender(one, &tx, NULL, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_session_accept_receiver(other, &rx, NULL, late(e)), 0);
    m = text_message("all of it");
    cr_assert_eq(spoke_channel_pair(&inner_rx, &inner_tx, NULL, e), 0);
    cr_assert_eq(spoke_msg_attach_receiver(m, inner_rx), 0);
    cr_assert_eq(spoke_stream_pair(&mine, &theirs, NULL, e), 0);
    cr_assert_eq(spoke_msg_attach_stream(m, theirs, SPOKE_ATTACHED_BOTH), 0);
    cr_assert_eq(spoke_sender_send(tx, m, late(e)), 0);
    spoke_msg_free(receive(rx));
    m = text_message("unread");
    cr_assert_eq(spoke_channel_pair(&inner_rx, &inner_tx, NULL, e), 0);
    cr_assert_eq(spoke_msg_attach_sender(m, inner_tx), 0);
    cr_assert_eq(spoke_sender_send(tx, m, late(e)), 0);
    cr_assert_eq(spoke_msg_new(&m, 5 << 20), 0);
    memset(spoke_msg_body(m), 0, 5 << 20);
    cr_assert_eq(spoke_sender_send(tx, m, late(e)), 0);
    (void)spoke_engine_poll(e, 0);
    cr_assert_eq(spoke_engine_close(e), 0);
    cr_assert_eq(spoke_sender_close(tx), 0, "its handle is closed");
    spoke_memory_stats(&after);
    cr_assert_eq(after.messages, before.messages);
    cr_assert_eq(after.chunks, before.chunks);
}

/* How often calls on this engine have looked for what they wait for without sleeping. */
static uint64_t
spins(spoke_engine *e)
{
    struct spoke_engine_info info;

    cr_assert_eq(spoke_engine_get_info(e, &info), 0);
    return info.spins;
}

static void
receive_nothing(spoke_engine *e, spoke_receiver *rx)
{
    spoke_msg *m;

    cr_assert_eq(spoke_receiver_recv(rx, &m, spoke_engine_now(e) + 5 * SPOKE_MS), SPOKE_ETIMEDOUT);
}

Test(session_life, channels_wait_as_their_carrier_does)
{
    static const spoke_ns waits[] = {SPOKE_WAIT_BLOCK, SPOKE_MS};

    for (int spinning = 0; spinning < 2; spinning++) {
        spoke_engine_config engine;
        spoke_stream_config stream;
        spoke_session_config config;
        spoke_engine *e;
        spoke_session *a, *b;
        spoke_stream *s, *t;
        spoke_sender *tx;
        spoke_receiver *rx;
        uint64_t before;

        spoke_engine_config_init(&engine);
        engine.busy_poll_ns = waits[!spinning];
        cr_assert_eq(spoke_engine_open(&e, &engine), 0);
        spoke_stream_config_init(&stream);
        stream.busy_poll_ns = waits[spinning];
        spoke_session_config_init(&config);
        cr_assert_eq(spoke_stream_pair(&s, &t, &stream, e), 0);
        cr_assert_eq(spoke_session_open(&a, s, &config), 0);
        config.mux.even = true;
        cr_assert_eq(spoke_session_open(&b, t, &config), 0);
        cr_assert_eq(spoke_session_open_receiver(a, &rx, NULL, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_session_accept_sender(b, &tx, NULL, late(e)), 0);
        before = spins(e);
        receive_nothing(e, rx);
        cr_assert_eq(spins(e) > before, spinning == 1, "%d", spinning);
        cr_assert_eq(spoke_session_close(a, 0), 0);
        cr_assert_eq(spoke_session_close(b, 0), 0);
        spoke_sender_close(tx);
        spoke_receiver_close(rx);
        cr_assert_eq(spoke_engine_close(e), 0);
    }
}
