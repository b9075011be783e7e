/* SPDX-License-Identifier: MIT */
/* What nobody takes is closed with the message. */
#include "tests/channel/pair_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <unistd.h>

static bool
has_ended(void *rx)
{
    struct spoke_channel_info info;

    return spoke_receiver_get_info(rx, &info) == 0 && info.end != 0;
}

static bool
has_nobody(void *tx)
{
    struct spoke_channel_info info;

    return spoke_sender_get_info(tx, &info) == 0 && info.end != 0;
}

WAY_TEST(channel_unclaimed, each_kind_is_closed, ways_real)
{
    struct spoke_stream_info info;
    struct yard y;
    spoke_sender *a_tx, *b_tx;
    spoke_receiver *a_rx, *b_rx;
    spoke_stream *s[2];
    spoke_msg *m, *other;
    size_t done;
    int end, before, rc;
    char c;

    yard_open(&y, *way);
    pair(&y, 8, &a_tx, &a_rx);
    pair(&y, 8, &b_tx, &b_rx);
    expect_rc(spoke_stream_pair(&s[0], &s[1], NULL, y.e), 0);
    before = open_descriptors();
    m = message("");
    expect_rc(send_text(a_tx, "before", SPOKE_NOW), 0);
    expect_rc(send_text(b_tx, "unread", SPOKE_NOW), 0);
    expect_rc(spoke_msg_attach_sender(m, a_tx), 0);
    expect_rc(spoke_msg_attach_receiver(m, b_rx), 0);
    expect_rc(spoke_msg_attach_stream(m, s[1], SPOKE_ATTACHED_READS), 0);
    expect_rc(spoke_msg_attach_pipe(m, SPOKE_ATTACHED_READS, &end), 0);
    other = spoke_msg_dup(m);
    spoke_msg_free(m);
    yard_settle(&y);
    cr_assert_not(has_ended(a_rx), "there is another reference");
    cr_assert_eq(open_descriptors(), before + 2);
    spoke_msg_free(other);
    cr_assert_eq(open_descriptors(), before + 1);
    yard_until(&y, has_ended, a_rx);
    yard_until(&y, has_nobody, b_tx);
    expect_text(a_rx, "before"); /* what was sent already comes first */
    expect_rc(recv_nothing(a_rx, SPOKE_NOW), SPOKE_EOF);
    expect_rc(send_text(b_tx, "x", SPOKE_NOW), SPOKE_EPEERCLOSED);
    expect_rc(spoke_stream_set_deadline(s[0], SOON(&y)), 0);
    rc = spoke_stream_read(s[0], &c, 1, &done);
    expect_rc(rc, SPOKE_EABORTED);
    expect_rc(spoke_stream_get_info(s[0], &info), 0);
    cr_assert_eq(info.abort_code, SPOKE_MUX_CANCELED);
    expect_rc(spoke_stream_close(s[0]), 0);
    close(end);
    expect_rc(spoke_receiver_close(a_rx), 0);
    expect_rc(spoke_sender_close(b_tx), 0);
    yard_close(&y);
}

/* In a queue that nobody reads any more. */
WAY_TEST(channel_unclaimed, a_closing_receiver_drops_with_all_that_is_attached, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx, *answers;

    yard_open(&y, *way);
    for (int i = 0; i < 2; i++) {
        pair(&y, 8, &tx, &rx);
        expect_rc(spoke_request(tx, message("ask"), &answers, NULL, SPOKE_NOW), 0);
        expect_rc(recv_nothing(answers, SPOKE_NOW), SPOKE_EAGAIN);
        if (i == 0)
            expect_rc(spoke_receiver_close(rx), 0);
        else
            expect_rc(spoke_sender_abort(tx, 1, NULL), 0);
        expect_rc(recv_nothing(answers, SOON(&y)), SPOKE_EOF);
        expect_rc(spoke_receiver_close(answers), 0);
        close_pair(tx, rx);
    }
    yard_close(&y);
}

/* The last reference goes on another thread, or in a callback of the engine. */
static void *
frees(void *m)
{
    spoke_msg_free(m);
    return NULL;
}

static void
frees_now(void *m)
{
    spoke_msg_free(m);
}

WAY_TEST(channel_unclaimed, on_any_thread, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
    pthread_t thread;

    yard_open(&y, *way);
    for (int i = 0; i < 2; i++) {
        pair(&y, 8, &tx, &rx);
        m = message("");
        expect_rc(spoke_msg_attach_sender(m, tx), 0);
        if (i == 0) {
            cr_assert_eq(pthread_create(&thread, NULL, frees, m), 0);
            pthread_join(thread, NULL);
        } else if (*way != SHARED) {
            expect_rc(spoke_engine_post(y.e, frees_now, m), 0);
        } else {
            spoke_msg_free(m);
        }
        expect_rc(recv_nothing(rx, SOON(&y)), SPOKE_EOF);
        expect_rc(spoke_receiver_close(rx), 0);
    }
    yard_close(&y);
}

/* An end that waits in a message may be taken by any thread. */
static void *
takes(void *m)
{
    spoke_sender *tx;
    const char *wrong = NULL;

    if (spoke_msg_take_sender(m, 0, &tx) != 0 || send_text(tx, "from a thread", SPOKE_NOW) != 0 ||
        spoke_sender_close(tx) != 0)
        wrong = "it cannot be used";
    spoke_msg_free(m);
    return (void *)(uintptr_t)wrong;
}

Test(channel_unclaimed, taken_on_another_thread)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
    pthread_t thread;
    void *wrong;

    yard_open(&y, SHARED);
    pair(&y, 8, &tx, &rx);
    m = message("");
    expect_rc(spoke_msg_attach_sender(m, tx), 0);
    cr_assert_eq(pthread_create(&thread, NULL, takes, m), 0);
    pthread_join(thread, &wrong);
    cr_assert_null(wrong);
    expect_text(rx, "from a thread");
    expect_rc(recv_nothing(rx, SPOKE_NOW), SPOKE_EOF);
    expect_rc(spoke_receiver_close(rx), 0);
    yard_close(&y);
}

/* A message that carries a receiver, in whose channel waits a message that carries … */
#define NESTED 10000

WAY_TEST(channel_unclaimed, nested_ten_thousand_deep, ways)
{
    spoke_channel_config config;
    struct yard y;
    spoke_sender *tx, *inner;
    spoke_receiver *rx;
    spoke_msg *m;

    yard_open(&y, *way);
    spoke_channel_config_init(&config);
    config.depth = 1;
    expect_rc(spoke_channel_pair(&rx, &inner, &config, y.e), 0);
    for (int i = 0; i < NESTED; i++) {
        m = message("");
        expect_rc(spoke_msg_attach_receiver(m, rx), 0);
        expect_rc(spoke_channel_pair(&rx, &tx, &config, y.e), 0);
        expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
        expect_rc(spoke_sender_close(tx), 0);
    }
    cr_assert_not(has_nobody(inner));
    expect_rc(spoke_receiver_close(rx), 0);
    yard_until(&y, has_nobody, inner);
    expect_rc(spoke_sender_close(inner), 0);
    yard_close(&y);
}

/* … all of it there when the engine closes. */
WAY_TEST(channel_unclaimed, nested_when_the_engine_closes, ways)
{
    struct yard y;
    spoke_sender *tx, *inner;
    spoke_receiver *rx;
    spoke_msg *m;

    if (*way == SHARED)
        return; /* it stays */
    yard_open(&y, *way);
    pair(&y, 1, &inner, &rx);
    for (int i = 0; i < 100; i++) {
        m = message("");
        expect_rc(spoke_msg_attach_receiver(m, rx), 0);
        pair(&y, 1, &tx, &rx);
        expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    }
    yard_close(&y);
}
