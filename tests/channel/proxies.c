/* SPDX-License-Identifier: MIT */
/* Chains over two sessions, and what becomes of them when a connection is lost. */
#include <pthread.h>
#include <string.h>

#include "tests/channel/sessions.h"

struct copy {
    spoke_sender *tx;
    spoke_receiver *rx;
    uint64_t count;
    int rc;
};

static void *
copy(void *ctx)
{
    struct copy *c = ctx;

    c->rc = spoke_channel_copy(c->tx, c->rx, &c->count, SPOKE_FOREVER);
    (void)spoke_sender_close(c->tx);
    return NULL;
}

/* Requests go through a copy between two sessions, and answers come back around it. */
Test(proxies, four_requests_through_a_copy)
{
    struct sessions x, y;
    struct copy c = {.rc = 1};
    spoke_sender *tx, *answer;
    spoke_receiver *rx, *answers;
    pthread_t thread;

    sessions_open(&x, OVER_TCP, NULL);
    sessions_open(&y, OVER_IPC, NULL);
    open_channel(&x, x.a, x.b, &tx, &c.rx, NULL);
    open_channel(&y, y.a, y.b, &c.tx, &rx, NULL);
    cr_assert_eq(pthread_create(&thread, NULL, copy, &c), 0);
    for (int i = 0; i < 4; i++) {
        spoke_msg *m;

        cr_assert_eq(spoke_request(tx, text_message("ping"), &answers, NULL, SPOKE_FOREVER), 0);
        m = receive(rx);
        cr_assert_eq(spoke_msg_take_sender(m, 0, &answer), 0);
        spoke_msg_free(m);
        must_send(answer, "pong");
        cr_assert_eq(spoke_sender_close(answer), 0);
        receive_text(answers, "pong");
        receive_end(answers, SPOKE_EOF);
        cr_assert_eq(spoke_receiver_close(answers), 0);
    }
    cr_assert_eq(spoke_sender_close(tx), 0);
    receive_end(rx, SPOKE_EOF);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(c.rc, 0);
    cr_assert_eq(c.count, 4);
    cr_assert_eq(spoke_receiver_close(c.rx), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    sessions_close(&y);
    sessions_close(&x);
}

/* A stream that came over one session goes on over another. */
Test(proxies, a_byte_stream_over_two_sessions)
{
    struct sessions x, y;
    spoke_sender *tx, *tx2;
    spoke_receiver *rx, *rx2;
    spoke_stream *mine, *theirs, *there;
    spoke_msg *m = text_message("");
    char text[8];
    size_t done;

    sessions_open(&x, OVER_SHM, NULL);
    sessions_open(&y, OVER_TCP, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    open_channel(&y, y.a, y.b, &tx2, &rx2, NULL);
    cr_assert_eq(spoke_stream_pair(&mine, &theirs, NULL, NULL), 0);
    cr_assert_eq(spoke_msg_attach_stream(m, theirs, SPOKE_ATTACHED_BOTH), 0);
    cr_assert_eq(spoke_sender_send(tx, m, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_sender_send(tx2, receive(rx), SPOKE_FOREVER), 0);
    m = receive(rx2);
    cr_assert_eq(spoke_msg_take_stream(m, 0, &there), 0);
    spoke_msg_free(m);
    cr_assert_eq(spoke_stream_write(mine, "there", 5, &done), 0);
    cr_assert_eq(spoke_stream_read_full(there, text, 5, &done), 0);
    cr_assert_arr_eq(text, "there", 5);
    cr_assert_eq(spoke_stream_write(there, "back", 4, &done), 0);
    cr_assert_eq(spoke_stream_read_full(mine, text, 4, &done), 0);
    cr_assert_arr_eq(text, "back", 4);
    /* The session in the middle ends: an error here, and no end. */
    cr_assert_eq(spoke_session_close(y.a, 0), 0);
    cr_assert_eq(spoke_stream_read(mine, text, 1, &done), SPOKE_EABORTED);
    cr_assert_eq(spoke_stream_close(mine), 0);
    cr_assert_eq(spoke_stream_close(there), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    cr_assert_eq(spoke_sender_close(tx2), 0);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_receiver_close(rx2), 0);
    sessions_close(&y);
    sessions_close(&x);
}

/* ---- a connection that is lost ---- */

/* A session whose carrier goes through our hands. */
struct wire_tap {
    spoke_session *a, *b;
    spoke_stream *ours[2];
};

static void
on_done(void *ctx, const struct spoke_stream_report *report)
{
    (void)ctx, (void)report;
}

static void
tap(struct wire_tap *w)
{
    spoke_session_config config;
    spoke_stream *ends[2];

    spoke_session_config_init(&config);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_stream_pair(&ends[i], &w->ours[i], NULL, NULL), 0);
    cr_assert_eq(spoke_stream_join(w->ours[0], w->ours[1], on_done, NULL), 0);
    cr_assert_eq(spoke_session_open(&w->a, ends[0], &config), 0);
    config.mux.even = true;
    cr_assert_eq(spoke_session_open(&w->b, ends[1], &config), 0);
}

/* In each state a channel can be in, both ends hear of it. */
Test(proxies, a_connection_is_lost)
{
    struct spoke_mux_end why;
    struct sessions now = {.over = OVER_PAIR};
    spoke_sender *tx[3], *inner, *early;
    spoke_receiver *rx[3], *answers;
    struct wire_tap w;
    spoke_msg *m;
    int rc;

    tap(&w);
    for (int i = 0; i < 3; i++)
        open_channel(&now, w.a, w.b, &tx[i], &rx[i], NULL);
    must_send(tx[0], "arrived");
    cr_assert_eq(spoke_request(tx[1], text_message("?"), &answers, NULL, SPOKE_FOREVER), 0);
    m = receive(rx[1]);
    cr_assert_eq(spoke_msg_take_sender(m, 0, &inner), 0);
    spoke_msg_free(m);
    receive_text(rx[0], "arrived");
    must_send(tx[2], "all");
    cr_assert_eq(spoke_sender_close(tx[2]), 0);
    receive_text(rx[2], "all");
    receive_end(rx[2], SPOKE_EOF); /* nothing can happen to this one */
    cr_assert_eq(spoke_session_open_sender(w.a, &early, NULL, NULL, SPOKE_NOW), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_stream_abort(w.ours[i], 1), 0);
    cr_assert_eq(spoke_session_wait(w.a, soon(&now)), 0);
    cr_assert_eq(spoke_session_wait(w.b, soon(&now)), 0);
    cr_assert_eq(spoke_session_status(w.a, &why), 0);
    cr_assert_neq(why.code, 0);
    for (int i = 0; i < 2; i++) {
        receive_end(rx[i], why.code);
        m = text_message("x");
        rc = spoke_sender_send(tx[i], m, soon(&now));
        cr_assert_eq(rc, why.code, "%s", spoke_error_name(rc));
        spoke_msg_free(m);
    }
    receive_end(rx[2], SPOKE_EOF);
    receive_end(answers, why.code);
    m = text_message("x"); /* nobody has accepted it, and nobody has rejected it */
    cr_assert_eq(spoke_sender_send(early, m, soon(&now)), why.code);
    spoke_msg_free(m);
    cr_assert_eq(spoke_sender_close(early), 0);
    cr_assert_eq(spoke_session_open_sender(w.a, &tx[2], NULL, NULL, SPOKE_NOW), SPOKE_EMUXCLOSED);
    cr_assert_eq(spoke_receiver_close(answers), 0);
    cr_assert_eq(spoke_session_accept_receiver(w.b, &answers, NULL, SPOKE_NOW), SPOKE_EMUXCLOSED);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(spoke_receiver_close(rx[i]), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_sender_close(tx[i]), 0);
    cr_assert_eq(spoke_sender_close(inner), 0);
    cr_assert_eq(spoke_session_close(w.a, 0), 0);
    cr_assert_eq(spoke_session_close(w.b, 0), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_stream_close(w.ours[i]), 0);
}
