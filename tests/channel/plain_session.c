/* SPDX-License-Identifier: MIT */
/* Messages over sessions of every kind: what arrives, how much may be on its way, and the ends. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/channel/sessions.h"

static void
each_way(enum over over)
{
    struct sessions x;
    spoke_sender *tx, *tx2;
    spoke_receiver *rx, *rx2;

    sessions_open(&x, over, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    must_send(tx, "one");
    receive_text(rx, "one");
    cr_assert_eq(spoke_session_open_receiver(x.b, &rx2, NULL, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_session_accept_sender(x.a, &tx2, NULL, soon(&x)), 0);
    must_send(tx2, "two");
    receive_text(rx2, "two");
    cr_assert_eq(spoke_sender_close(tx), 0);
    cr_assert_eq(spoke_sender_close(tx2), 0);
    receive_end(rx, SPOKE_EOF);
    receive_end(rx2, SPOKE_EOF);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_receiver_close(rx2), 0);
    sessions_close(&x);
}

Test(session, a_message_each_way)
{
    OVER_EVERYTHING(over)
    {
        each_way((enum over)over);
    }
}

/* Of 0 bytes, of those that are copied, lent and cut into pieces. */
static const size_t sizes[] = {0, 1, 127, 128, 129, 4095, 4097, 65536, 70001, 300000, 5000000};

static spoke_msg *
pattern(size_t size)
{
    spoke_msg *m;
    uint8_t *body;

    cr_assert_eq(spoke_msg_new(&m, size), 0);
    body = spoke_msg_body(m);
    for (size_t i = 0; i < size; i++)
        body[i] = (uint8_t)(i * 7 + size);
    return m;
}

static void
check_pattern(spoke_msg *m, size_t size)
{
    const uint8_t *body = spoke_msg_body(m);
    size_t i;

    cr_assert_eq(spoke_msg_size(m), size);
    for (i = 0; i < size && body[i] == (uint8_t)(i * 7 + size); i++) {
    }
    cr_assert_eq(i, size, "byte %zu of %zu", i, size);
    spoke_msg_free(m);
}

Test(session, messages_of_every_size)
{
    OVER_EVERYTHING(over)
    {
        struct sessions x;
        spoke_sender *tx;
        spoke_receiver *rx;

        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        for (int round = 0; round < 2; round++) {
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
                cr_assert_eq(spoke_sender_send(tx, pattern(sizes[i]), SPOKE_FOREVER), 0);
            for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
                check_pattern(receive(rx), sizes[i]);
        }
        cr_assert_eq(spoke_sender_close(tx), 0);
        receive_end(rx, SPOKE_EOF);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        sessions_close(&x);
    }
}

#define MANY 2000

struct stream_of_messages {
    spoke_sender *tx;
    int rc;
};

static void *
send_many(void *ctx)
{
    struct stream_of_messages *s = ctx;

    for (uint32_t i = 0; i < MANY && s->rc == 0; i++) {
        spoke_msg *m;

        if ((s->rc = spoke_msg_from(&m, &i, sizeof i)) == 0)
            s->rc = spoke_sender_send(s->tx, m, SPOKE_FOREVER);
    }
    return NULL;
}

/* More than there is room for, in order, from another thread. */
Test(session, many_messages)
{
    for (int over = OVER_PAIR; over < OVER_SIM; over++) {
        struct stream_of_messages s = {.rc = 0};
        struct sessions x;
        spoke_receiver *rx;
        pthread_t thread;

        if (over == OVER_OWNED)
            continue;
        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &s.tx, &rx, NULL);
        cr_assert_eq(pthread_create(&thread, NULL, send_many, &s), 0);
        for (uint32_t i = 0; i < MANY; i++) {
            spoke_msg *m = receive(rx);
            uint32_t number;

            memcpy(&number, spoke_msg_body(m), sizeof number);
            cr_assert_eq(number, i);
            spoke_msg_free(m);
        }
        cr_assert_eq(pthread_join(thread, NULL), 0);
        cr_assert_eq(s.rc, 0);
        cr_assert_eq(spoke_sender_close(s.tx), 0);
        receive_end(rx, SPOKE_EOF);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        sessions_close(&x);
    }
}

static int
send_now(spoke_sender *tx)
{
    spoke_msg *m = text_message("x");
    int rc = spoke_sender_send(tx, m, SPOKE_NOW);

    if (rc != 0)
        spoke_msg_free(m);
    return rc;
}

/* Let both ends do what they have to. */
static void
settle(struct sessions *x)
{
    if (x->world != NULL)
        (void)spoke_sim_run(x->world, NULL, NULL, SPOKE_MS);
}

static void
fill(struct sessions *x, spoke_sender *tx, int count)
{
    for (int i = 0; i < count; i++) {
        cr_assert_eq(send_now(tx), 0, "message %d", i);
        settle(x);
    }
    cr_assert_eq(send_now(tx), SPOKE_EAGAIN);
}

/* The lesser depth of both ends is how many go ahead of the receiver. */
Test(session, the_receiver_says_how_many)
{
    spoke_channel_config four;
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;

    spoke_channel_config_init(&four);
    four.depth = 4;
    sessions_open(&x, OVER_SIM, NULL);
    cr_assert_eq(spoke_session_open_sender(x.a, &tx, NULL, NULL, SPOKE_NOW), 0);
    settle(&x);
    cr_assert_eq(send_now(tx), SPOKE_EAGAIN, "before it is accepted");
    cr_assert_eq(spoke_session_accept_receiver(x.b, &rx, &four, soon(&x)), 0);
    settle(&x);
    fill(&x, tx, 4);
    receive_text(rx, "x");
    receive_text(rx, "x");
    settle(&x);
    fill(&x, tx, 3); /* one waits here, in case that another has been received and it is not told */
    cr_assert_eq(spoke_sender_close(tx), 0);
    for (int i = 0; i < 5; i++)
        receive_text(rx, "x");
    receive_end(rx, SPOKE_EOF);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    sessions_close(&x);
}

/* A depth of 0 is 1 from process to process. */
Test(session, depth_0)
{
    spoke_channel_config none;
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;

    spoke_channel_config_init(&none);
    none.depth = 0;
    sessions_open(&x, OVER_SIM, NULL);
    cr_assert_eq(spoke_session_open_sender(x.a, &tx, &none, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_session_accept_receiver(x.b, &rx, &none, soon(&x)), 0);
    settle(&x);
    fill(&x, tx, 1);
    receive_text(rx, "x");
    settle(&x);
    fill(&x, tx, 1);
    receive_text(rx, "x");
    cr_assert_eq(spoke_receiver_close(rx), 0);
    settle(&x);
    cr_assert_eq(send_now(tx), SPOKE_EPEERCLOSED);
    cr_assert_eq(spoke_sender_close(tx), 0);
    sessions_close(&x);
}

/* What was taken before the receiver went is told, and what was not is not called taken. */
Test(session, who_goes_says_first_what_it_has)
{
    OVER_EVERYTHING(over)
    {
        struct spoke_channel_info info;
        struct sessions x;
        spoke_sender *tx;
        spoke_receiver *rx;
        int rc;

        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        must_send(tx, "one");
        receive_text(rx, "one");
        cr_assert_eq(spoke_receiver_close(rx), 0);
        cr_assert_eq(spoke_sender_sync(tx, soon(&x)), 0);
        cr_assert_eq(spoke_sender_close(tx), 0);

        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        must_send(tx, "one");
        must_send(tx, "two");
        receive_text(rx, "one");
        cr_assert_eq(spoke_receiver_close(rx), 0);
        rc = spoke_sender_sync(tx, soon(&x));
        cr_assert_eq(rc, SPOKE_EPEERCLOSED, "%s", spoke_strerror(rc));
        cr_assert_eq(spoke_sender_get_info(tx, &info), 0);
        cr_assert_eq(info.taken, 1);
        cr_assert_eq(spoke_sender_close(tx), 0);
        sessions_close(&x);
    }
}

Test(session, sync_waits_for_the_application)
{
    struct spoke_channel_info info;
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;

    sessions_open(&x, OVER_SIM, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    settle(&x);
    for (int i = 0; i < 3; i++)
        must_send(tx, "x");
    cr_assert_eq(spoke_sender_sync(tx, spoke_engine_now(x.e) + SPOKE_SECOND), SPOKE_ETIMEDOUT);
    receive_text(rx, "x");
    receive_text(rx, "x");
    cr_assert_eq(spoke_sender_sync(tx, spoke_engine_now(x.e) + SPOKE_SECOND), SPOKE_ETIMEDOUT);
    receive_text(rx, "x");
    cr_assert_eq(spoke_sender_sync(tx, spoke_engine_now(x.e) + SPOKE_SECOND), 0);
    cr_assert_eq(spoke_sender_get_info(tx, &info), 0);
    cr_assert_eq(info.sent, 3);
    cr_assert_eq(info.taken, 3);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    sessions_close(&x);
}

/* ---- ends ---- */

Test(session, an_abort_tells_why)
{
    OVER_EVERYTHING(over)
    {
        struct spoke_channel_info info;
        struct sessions x;
        spoke_sender *tx;
        spoke_receiver *rx;

        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        must_send(tx, "first");
        receive_text(rx, "first");
        cr_assert_eq(spoke_sender_abort(tx, 300, "no more ink"), 0);
        receive_end(rx, SPOKE_EABORTED);
        cr_assert_eq(spoke_receiver_get_info(rx, &info), 0);
        cr_assert_eq(info.abort_code, 300);
        cr_assert_str_eq(info.text, "no more ink");
        cr_assert_eq(spoke_receiver_close(rx), 0);
        sessions_close(&x);
    }
}

/* Also while a message is half on its way. */
Test(session, an_abort_behind_a_message_that_cannot_leave)
{
    spoke_channel_config narrow;
    spoke_session_config config;
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx, *other;
    spoke_sender *tx2;

    spoke_session_config_init(&config);
    config.memory = config.channel.max_message * 2;
    spoke_channel_config_init(&narrow);
    sessions_open(&x, OVER_SIM, &config);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    open_channel(&x, x.a, x.b, &tx2, &other, NULL);
    /* One message in the half of the memory that a channel may have; the next has to wait. */
    for (int i = 0; i < 3; i++)
        cr_assert_eq(spoke_sender_send(tx, pattern(12 << 20), SPOKE_FOREVER), 0);
    settle(&x);
    must_send(tx2, "the others go on");
    receive_text(other, "the others go on");
    cr_assert_eq(spoke_sender_abort(tx, 7, "stop"), 0);
    settle(&x);
    check_pattern(receive(rx), 12 << 20);
    receive_end(rx, SPOKE_EABORTED);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_receiver_close(other), 0);
    cr_assert_eq(spoke_sender_close(tx2), 0);
    sessions_close(&x);
}

Test(session, who_receives_gives_up)
{
    OVER_EVERYTHING(over)
    {
        struct sessions x;
        spoke_sender *tx;
        spoke_receiver *rx;
        int rc;

        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        must_send(tx, "unread");
        cr_assert_eq(spoke_receiver_close(rx), 0);
        do {
            spoke_msg *m = text_message("more");

            if ((rc = spoke_sender_send(tx, m, soon(&x))) != 0)
                spoke_msg_free(m);
        } while (rc == 0);
        cr_assert_eq(rc, SPOKE_EPEERCLOSED);
        cr_assert_eq(spoke_sender_close(tx), 0);
        sessions_close(&x);
    }
}

/* What has arrived can be received, then why there is no more. */
static void
session_ends(enum over over, bool at_this_side)
{
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
    int rc;

    sessions_open(&x, over, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    must_send(tx, "last words");
    must_send(tx, "…");
    receive_text(rx, "last words");
    cr_assert_eq(spoke_session_close(at_this_side ? x.b : x.a, 0), 0);
    while ((rc = spoke_receiver_recv(rx, &m, SPOKE_FOREVER)) == 0)
        spoke_msg_free(m);
    cr_assert_eq(rc, SPOKE_EMUXCLOSED, "%s: %s", over_names[over], spoke_error_name(rc));
    do {
        m = text_message("x");
        if ((rc = spoke_sender_send(tx, m, soon(&x))) != 0)
            spoke_msg_free(m);
    } while (rc == 0);
    cr_assert_eq(rc, SPOKE_EMUXCLOSED, "%s: %s", over_names[over], spoke_error_name(rc));
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_sender_close(tx), 0);
    sessions_close(&x);
}

Test(session, closed_at_either_side)
{
    OVER_EVERYTHING(over)
    {
        session_ends((enum over)over, true);
        session_ends((enum over)over, false);
    }
}

/* A message arrives, although its session is closed right after, if that gives it time. */
Test(session, lingers)
{
    OVER_EVERYTHING(over)
    {
        struct sessions x;
        spoke_sender *tx;
        spoke_receiver *rx;

        if (over == OVER_OWNED || over == OVER_SIM)
            continue;
        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        must_send(tx, "farewell");
        cr_assert_eq(spoke_sender_close(tx), 0);
        cr_assert_eq(spoke_session_close(x.a, SPOKE_MS), SPOKE_ETIMEDOUT, "nobody has taken it");
        receive_text(rx, "farewell");
        receive_end(rx, SPOKE_EOF);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        sessions_close(&x);
    }
}

Test(session, lingers_until_channels_have_ended)
{
    struct spoke_mux_end why;
    struct sessions x;
    spoke_sender *tx;
    spoke_receiver *rx;
    int rc;

    sessions_open(&x, OVER_TCP, NULL);
    open_channel(&x, x.a, x.b, &tx, &rx, NULL);
    must_send(tx, "farewell");
    cr_assert_eq(spoke_sender_close(tx), 0);
    receive_text(rx, "farewell");
    receive_end(rx, SPOKE_EOF);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    rc = spoke_session_close(x.a, 60 * SPOKE_SECOND);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(spoke_session_wait(x.b, soon(&x)), 0);
    cr_assert_eq(spoke_session_status(x.b, &why), 0);
    cr_assert_eq(why.code, 0, "%s", why.text);
    sessions_close(&x);
}

Test(session, byte_streams)
{
    struct sessions x;
    spoke_stream *a, *b;
    char text[8];
    size_t done;

    sessions_open(&x, OVER_PAIR, NULL);
    cr_assert_eq(spoke_session_open_stream(x.a, &a, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_session_accept_stream(x.b, &b, soon(&x)), 0);
    cr_assert_eq(spoke_stream_write(a, "abc", 3, &done), 0);
    cr_assert_eq(spoke_stream_read_full(b, text, 3, &done), 0);
    cr_assert_arr_eq(text, "abc", 3);
    cr_assert_eq(spoke_stream_close(a), 0);
    cr_assert_eq(spoke_stream_close(b), 0);
    sessions_close(&x);
}

/* Opened before anybody accepts, in order. */
Test(session, fifty_channels)
{
    struct sessions x;
    spoke_sender *tx[50];
    spoke_receiver *rx[50];
    char text[8];

    sessions_open(&x, OVER_IPC, NULL);
    for (int i = 0; i < 50; i++)
        cr_assert_eq(spoke_session_open_sender(x.a, &tx[i], NULL, NULL, SPOKE_NOW), 0);
    for (int i = 0; i < 50; i++)
        cr_assert_eq(spoke_session_accept_receiver(x.b, &rx[i], NULL, soon(&x)), 0);
    for (int i = 49; i >= 0; i--) {
        snprintf(text, sizeof text, "%d", i);
        must_send(tx[i], text);
    }
    for (int i = 0; i < 50; i++) {
        snprintf(text, sizeof text, "%d", i);
        receive_text(rx[i], text);
        cr_assert_eq(spoke_receiver_close(rx[i]), 0);
        cr_assert_eq(spoke_sender_close(tx[i]), 0);
    }
    sessions_close(&x);
}

Test(session, too_many_channels_wait)
{
    spoke_session_config config;
    struct sessions x;
    spoke_sender *tx[3];
    uint64_t code;
    spoke_sender *third;

    spoke_session_config_init(&config);
    config.backlog = 2;
    sessions_open(&x, OVER_PAIR, &config);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_session_open_sender(x.a, &tx[i], NULL, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_session_open_sender(x.a, &third, NULL, &code, soon(&x)), SPOKE_EREJECTED);
    cr_assert_eq(code, SPOKE_MUX_BACKLOG);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_sender_close(tx[i]), 0);
    sessions_close(&x);
}

/* One that is not read, and one that nobody has accepted: others go on, and so does what they
 * carry. */
Test(session, a_channel_that_stands_holds_up_no_other)
{
    OVER_EVERYTHING(over)
    {
        struct sessions x;
        spoke_sender *full, *alone, *tx, *answer;
        spoke_receiver *unread, *rx, *answers;
        spoke_msg *m;
        int rc;

        sessions_open(&x, (enum over)over, NULL);
        open_channel(&x, x.a, x.b, &full, &unread, NULL);
        do {
            cr_assert_eq(spoke_msg_new(&m, 10000), 0);
            rc = spoke_sender_send(full, m, SPOKE_NOW);
        } while (rc == 0);
        spoke_msg_free(m);
        cr_assert_eq(rc, SPOKE_EAGAIN);
        open_channel(&x, x.a, x.b, &tx, &rx, NULL);
        cr_assert_eq(spoke_session_open_sender(x.a, &alone, NULL, NULL, SPOKE_NOW), 0);
        for (int i = 0; i < 100; i++) {
            cr_assert_eq(spoke_request(tx, text_message("well?"), &answers, NULL, soon(&x)), 0);
            m = receive(rx);
            cr_assert_eq(spoke_msg_take_sender(m, 0, &answer), 0);
            spoke_msg_free(m);
            must_send(answer, "well");
            cr_assert_eq(spoke_sender_close(answer), 0);
            receive_text(answers, "well");
            receive_end(answers, SPOKE_EOF);
            cr_assert_eq(spoke_receiver_close(answers), 0);
        }
        cr_assert_eq(spoke_sender_close(tx), 0);
        cr_assert_eq(spoke_receiver_close(rx), 0);
        cr_assert_eq(spoke_sender_close(alone), 0);
        cr_assert_eq(spoke_sender_close(full), 0);
        cr_assert_eq(spoke_receiver_close(unread), 0);
        sessions_close(&x);
    }
}

/* Nobody accepts: the caller's time is over, and nothing is left of it. */
Test(session, an_opening_is_given_up)
{
    struct spoke_session_info info;
    struct sessions x;
    spoke_receiver *rx;
    spoke_sender *tx;

    sessions_open(&x, OVER_SIM, NULL);
    cr_assert_eq(
        spoke_session_open_sender(x.a, &tx, NULL, NULL, spoke_engine_now(x.e) + SPOKE_SECOND),
        SPOKE_ETIMEDOUT);
    settle(&x);
    cr_assert_eq(spoke_session_accept_receiver(x.b, &rx, NULL, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(spoke_session_get_info(x.b, &info), 0);
    cr_assert_eq(info.waiting, 0);
    cr_assert_eq(info.channels, 0);
    sessions_close(&x);
}
