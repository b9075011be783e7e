/* SPDX-License-Identifier: MIT */
/* What every call on the two ends of a channel gives. */
#include "tests/channel/pair_fixture.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "protocols/channel/channel.h"
#include "tests/support/process.h"

/* ---- order and the end ---- */

WAY_TEST(channel_pair, messages_come_in_order_then_the_end, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    uint64_t number;

    yard_open(&y, *way);
    pair(&y, 64, &tx, &rx);
    for (uint64_t i = 0; i < 50; i++)
        expect_rc(send_number(tx, i, SPOKE_NOW), 0);
    expect_rc(spoke_sender_close(tx), 0);
    for (uint64_t i = 0; i < 50; i++) {
        expect_rc(recv_number(rx, &number, SPOKE_NOW), 0);
        cr_assert_eq(number, i);
    }
    for (int i = 0; i < 3; i++)
        expect_rc(recv_nothing(rx, i == 0 ? SPOKE_NOW : SPOKE_FOREVER), SPOKE_EOF);
    expect_rc(spoke_receiver_close(rx), 0);
    yard_close(&y);
}

static void
depth_is_exact(enum way way, size_t depth)
{
    struct yard y;
    struct spoke_channel_info info;
    spoke_sender *tx;
    spoke_receiver *rx;
    uint64_t number, sent = 0, received = 0;

    yard_open(&y, way);
    pair(&y, depth, &tx, &rx);
    while (sent < depth)
        expect_rc(send_number(tx, sent++, SPOKE_NOW), 0);
    expect_rc(send_number(tx, sent, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(send_number(tx, sent, yard_in(&y, SPOKE_MS)), SPOKE_ETIMEDOUT);
    for (int i = 0; i < 3; i++) { /* room for one after each */
        expect_rc(recv_number(rx, &number, SPOKE_NOW), 0);
        cr_assert_eq(number, received++);
        expect_rc(send_number(tx, sent++, SPOKE_NOW), 0);
        expect_rc(send_number(tx, sent, SPOKE_NOW), SPOKE_EAGAIN);
    }
    expect_rc(spoke_sender_get_info(tx, &info), 0);
    cr_assert_eq(info.sent, sent);
    cr_assert_eq(info.taken, received);
    cr_assert_eq(info.waiting, depth);
    cr_assert_eq(info.depth, depth);
    while (received < sent) {
        expect_rc(recv_number(rx, &number, SPOKE_NOW), 0);
        cr_assert_eq(number, received++);
    }
    expect_rc(recv_nothing(rx, SPOKE_NOW), SPOKE_EAGAIN);
    close_pair(tx, rx);
    yard_close(&y);
}

WAY_TEST(channel_pair, depth_1_is_exact, ways)
{
    depth_is_exact(*way, 1);
}

WAY_TEST(channel_pair, depth_3_is_exact, ways)
{
    depth_is_exact(*way, 3);
}

WAY_TEST(channel_pair, depth_64_is_exact, ways)
{
    depth_is_exact(*way, 64);
}

WAY_TEST(channel_pair, the_greatest_depth_is_exact, ways)
{
    depth_is_exact(*way, SPOKE_CHANNEL_DEPTH_MAX);
}

/* ---- what is wrong with a call ---- */

WAY_TEST(channel_pair, wrong_arguments, ways)
{
    spoke_channel_config config;
    static spoke_value_type unchecked;
    struct spoke_channel_info info;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m, *got;
    char text[257];

    yard_open(&y, *way);
    spoke_channel_config_init(&config);
    cr_assert_eq(config.depth, 64);
    cr_assert_eq(config.max_message, SPOKE_CHANNEL_MESSAGE_MAX);
    cr_assert_null(config.type);
    config.depth = SPOKE_CHANNEL_DEPTH_MAX + 1;
    expect_rc(spoke_channel_pair(&rx, &tx, &config, y.e), SPOKE_ERANGE);
    cr_assert(rx == NULL && tx == NULL);
    spoke_channel_config_init(&config);
    config.max_message = (size_t)SPOKE_MSG_MAX + 1;
    expect_rc(spoke_channel_pair(&rx, &tx, &config, y.e), SPOKE_ERANGE);
    spoke_channel_config_init(&config);
    config.type = &unchecked;
    expect_rc(spoke_channel_pair(&rx, &tx, &config, y.e), SPOKE_EINVAL);
    expect_rc(spoke_channel_pair(NULL, &tx, NULL, y.e), SPOKE_EINVAL);
    expect_rc(spoke_channel_pair(&rx, NULL, NULL, y.e), SPOKE_EINVAL);

    expect_rc(spoke_channel_pair(&rx, &tx, NULL, y.e), 0);
    m = message("mine");
    expect_rc(spoke_sender_send(tx, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_sender_send(tx, m, -1), SPOKE_EINVAL);
    expect_rc(spoke_sender_send(NULL, m, SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_sender_send((spoke_sender *)(void *)rx, m, SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_sender_sync(tx, -1), SPOKE_EINVAL);
    expect_rc(spoke_receiver_recv(rx, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_receiver_recv(rx, &got, -1), SPOKE_EINVAL);
    cr_assert_null(got);
    spoke_msg_free(m);
    expect_rc(spoke_sender_close(NULL), SPOKE_EINVAL);
    expect_rc(spoke_receiver_close(NULL), SPOKE_EINVAL);
    expect_rc(spoke_sender_get_info(tx, NULL), SPOKE_EINVAL);
    expect_rc(spoke_receiver_get_info(NULL, &info), SPOKE_ECLOSED);
    memset(text, 'x', 256);
    text[256] = '\0';
    expect_rc(spoke_sender_abort(tx, 1, text), SPOKE_EINVAL);
    text[255] = '\0';
    expect_rc(spoke_sender_abort(tx, 1, text), 0);
    expect_rc(spoke_receiver_get_info(rx, &info), 0);
    cr_assert_str_eq(info.text, text);
    expect_rc(spoke_receiver_close(rx), 0);
    yard_close(&y);
}

WAY_TEST(channel_pair, size_and_header_of_a_message, ways)
{
    spoke_channel_config config;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m, *got;

    yard_open(&y, *way);
    spoke_channel_config_init(&config);
    config.max_message = 4;
    config.depth = 1;
    expect_rc(spoke_channel_pair(&rx, &tx, &config, y.e), 0);
    expect_rc(send_text(tx, "12345", SPOKE_FOREVER), SPOKE_EMSGSIZE);
    expect_rc(send_text(tx, "1234", SPOKE_FOREVER), 0);
    m = message("abcd");
    expect_rc(spoke_msg_header_append(m, "head", 4), 0);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(spoke_msg_header_size(m), 4, "after an error it is as it was");
    cr_assert_eq(memcmp(spoke_msg_header(m), "head", 4), 0);
    expect_text(rx, "1234");
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    expect_rc(spoke_receiver_recv(rx, &got, SPOKE_NOW), 0);
    cr_assert(is_text(got, "abcd"));
    cr_assert_eq(spoke_msg_header_size(got), 0);

    /* Others may have the body, not the header. */
    m = spoke_msg_dup(got);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    expect_text(rx, "abcd");
    expect_rc(spoke_msg_header_append(got, "more", 4), 0);
    m = spoke_msg_dup(got);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), SPOKE_ESHARED);
    cr_assert_eq(spoke_msg_header_size(m), 4);
    spoke_msg_free(m);
    spoke_msg_free(got);
    expect_rc(send_text(tx, "", SPOKE_NOW), 0);
    expect_text(rx, "");
    close_pair(tx, rx);
    yard_close(&y);
}

/* ---- deadlines ---- */

WAY_TEST(channel_pair, deadlines, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_ns then;

    yard_open(&y, *way);
    pair(&y, 1, &tx, &rx);
    expect_rc(recv_nothing(rx, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(recv_nothing(rx, 1), SPOKE_ETIMEDOUT);
    then = yard_in(&y, 5 * SPOKE_MS);
    expect_rc(recv_nothing(rx, then), SPOKE_ETIMEDOUT);
    cr_assert_geq(spoke_engine_now(y.e), then);
    expect_rc(send_text(tx, "one", 1), 0); /* what can be done at once is done */
    expect_rc(send_text(tx, "two", 1), SPOKE_ETIMEDOUT);
    expect_rc(send_text(tx, "two", SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(spoke_sender_sync(tx, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(spoke_sender_sync(tx, 1), SPOKE_ETIMEDOUT);
    then = yard_in(&y, 5 * SPOKE_MS);
    expect_rc(send_text(tx, "two", then), SPOKE_ETIMEDOUT);
    cr_assert_geq(spoke_engine_now(y.e), then);
    spoke_msg *m;
    expect_rc(spoke_receiver_recv(rx, &m, 1), 0);
    cr_assert(is_text(m, "one"));
    spoke_msg_free(m);
    expect_rc(spoke_sender_sync(tx, 1), 0);
    close_pair(tx, rx);
    yard_close(&y);
}

/* ---- who waits is told ---- */

static void
close_sender(void *tx)
{
    (void)spoke_sender_close(tx);
}

static void
close_receiver(void *rx)
{
    (void)spoke_receiver_close(rx);
}

static void
abort_sender(void *tx)
{
    (void)spoke_sender_abort(tx, 7, "the reason");
}

static void
send_late(void *tx)
{
    (void)send_text(tx, "late", SPOKE_NOW);
}

static void
take_late(void *rx)
{
    spoke_msg *m;

    if (spoke_receiver_recv(rx, &m, SPOKE_NOW) == 0)
        spoke_msg_free(m);
}

WAY_TEST(channel_pair, a_message_wakes_who_receives, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    struct later *later;

    yard_open(&y, *way);
    pair(&y, 4, &tx, &rx);
    later = yard_later(&y, rx, send_late, tx);
    expect_text(rx, "late");
    yard_joined(later);
    close_pair(tx, rx);
    yard_close(&y);
}

WAY_TEST(channel_pair, room_wakes_who_sends, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    struct later *later;

    yard_open(&y, *way);
    pair(&y, 1, &tx, &rx);
    expect_rc(send_text(tx, "first", SPOKE_NOW), 0);
    later = yard_later(&y, tx, take_late, rx);
    expect_rc(send_text(tx, "second", SOON(&y)), 0);
    yard_joined(later);
    expect_text(rx, "second");
    close_pair(tx, rx);
    yard_close(&y);
}

/* A call waits at one side, a handle is closed: what the call gives. */
static void
closing_wakes(enum way way, bool sends, bool syncs, void (*closes)(void *), bool closes_sender,
              int wanted)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    struct later *later;

    yard_open(&y, way);
    pair(&y, 1, &tx, &rx);
    if (sends || syncs)
        expect_rc(send_text(tx, "first", SPOKE_NOW), 0);
    later = yard_later(&y, sends || syncs ? (void *)tx : rx, closes,
                       closes_sender ? (void *)tx : rx);
    if (sends)
        expect_rc(send_text(tx, "second", SOON(&y)), wanted);
    else if (syncs)
        expect_rc(spoke_sender_sync(tx, SOON(&y)), wanted);
    else
        expect_rc(recv_nothing(rx, SOON(&y)), wanted);
    yard_joined(later);
    close_pair(tx, rx);
    yard_close(&y);
}

WAY_TEST(channel_pair, closing_wakes_who_waits, ways)
{
    closing_wakes(*way, false, false, close_sender, true, SPOKE_EOF);
    closing_wakes(*way, false, false, abort_sender, true, SPOKE_EABORTED);
    closing_wakes(*way, false, false, close_receiver, false, SPOKE_ECLOSED);
    closing_wakes(*way, true, false, close_receiver, false, SPOKE_EPEERCLOSED);
    closing_wakes(*way, true, false, close_sender, true, SPOKE_ECLOSED);
    closing_wakes(*way, true, false, abort_sender, true, SPOKE_ECLOSED);
    closing_wakes(*way, false, true, close_sender, true, SPOKE_ECLOSED);
    closing_wakes(*way, false, true, close_receiver, false, SPOKE_EPEERCLOSED);
}

WAY_TEST(channel_pair, sync_waits_until_all_is_taken, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    struct later *later;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_sender_sync(tx, SPOKE_NOW), 0);
    expect_rc(send_text(tx, "one", SPOKE_NOW), 0);
    expect_rc(send_text(tx, "two", SPOKE_NOW), 0);
    expect_text(rx, "one");
    expect_rc(spoke_sender_sync(tx, SPOKE_NOW), SPOKE_EAGAIN);
    later = yard_later(&y, tx, take_late, rx);
    expect_rc(spoke_sender_sync(tx, SOON(&y)), 0);
    yard_joined(later);
    close_pair(tx, rx);
    yard_close(&y);
}

/* Dropped is not taken. */
WAY_TEST(channel_pair, what_a_closing_receiver_drops_is_not_taken, ways)
{
    struct spoke_channel_info info;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    for (int i = 0; i < 3; i++)
        expect_rc(send_text(tx, "one", SPOKE_NOW), 0);
    expect_text(rx, "one");
    expect_rc(spoke_receiver_close(rx), 0);
    expect_rc(spoke_sender_sync(tx, SPOKE_FOREVER), SPOKE_EPEERCLOSED);
    expect_rc(spoke_sender_get_info(tx, &info), 0);
    cr_assert_eq(info.sent, 3);
    cr_assert_eq(info.taken, 1);
    cr_assert_eq(info.waiting, 0);
    cr_assert_eq(info.end, SPOKE_EPEERCLOSED);
    expect_rc(send_text(tx, "four", SPOKE_NOW), SPOKE_EPEERCLOSED);
    expect_rc(spoke_sender_close(tx), 0);
    yard_close(&y);
}

/* ---- the end of ends ---- */

WAY_TEST(channel_pair, an_abort_drops_and_says_why, ways)
{
    struct spoke_channel_info info;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_receiver_get_info(rx, &info), 0);
    cr_assert_eq(info.end, 0);
    expect_rc(send_text(tx, "one", SPOKE_NOW), 0);
    expect_rc(send_text(tx, "two", SPOKE_NOW), 0);
    expect_text(rx, "one");
    expect_rc(spoke_sender_abort(tx, 12345, "no paper"), 0);
    for (int i = 0; i < 2; i++)
        expect_rc(recv_nothing(rx, SPOKE_FOREVER), SPOKE_EABORTED);
    expect_rc(spoke_receiver_get_info(rx, &info), 0);
    cr_assert_eq(info.end, SPOKE_EABORTED);
    cr_assert_eq(info.abort_code, 12345);
    cr_assert_str_eq(info.text, "no paper");
    cr_assert_eq(info.sent, 2);
    cr_assert_eq(info.taken, 1);
    cr_assert_eq(info.waiting, 0);
    expect_rc(spoke_receiver_close(rx), 0);
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_sender_abort(tx, 0, NULL), 0);
    expect_rc(recv_nothing(rx, SPOKE_NOW), SPOKE_EABORTED);
    expect_rc(spoke_receiver_close(rx), 0);
    yard_close(&y);
}

WAY_TEST(channel_pair, stale_handles_are_closed_for_ever, ways)
{
    struct spoke_channel_info info;
    struct yard y;
    spoke_sender *tx, *other_tx;
    spoke_receiver *rx, *other_rx;
    spoke_msg *m;
    uint64_t count;

    yard_open(&y, *way);
    pair(&y, 1, &tx, &rx);
    close_pair(tx, rx);
    pair(&y, 1, &other_tx, &other_rx); /* perhaps in the same memory, with the same slots */
    for (int i = 0; i < 2; i++) {
        expect_rc(send_text(tx, "nobody", SPOKE_FOREVER), SPOKE_ECLOSED);
        expect_rc(recv_nothing(rx, SPOKE_FOREVER), SPOKE_ECLOSED);
        expect_rc(spoke_sender_sync(tx, SPOKE_FOREVER), SPOKE_ECLOSED);
        expect_rc(spoke_sender_get_info(tx, &info), SPOKE_ECLOSED);
        expect_rc(spoke_receiver_get_info(rx, &info), SPOKE_ECLOSED);
        expect_rc(spoke_sender_fd(tx), SPOKE_ECLOSED);
        expect_rc(spoke_receiver_fd(rx), SPOKE_ECLOSED);
        expect_rc(spoke_sender_on_ready(tx, NULL, NULL), SPOKE_ECLOSED);
        expect_rc(spoke_receiver_on_ready(rx, NULL, NULL), SPOKE_ECLOSED);
        expect_rc(spoke_channel_copy(tx, other_rx, &count, SPOKE_FOREVER), SPOKE_ECLOSED);
        expect_rc(spoke_channel_copy(other_tx, rx, &count, SPOKE_FOREVER), SPOKE_ECLOSED);
        m = message("nobody");
        expect_rc(spoke_msg_attach_sender(m, tx), SPOKE_ECLOSED);
        expect_rc(spoke_msg_attach_receiver(m, rx), SPOKE_ECLOSED);
        cr_assert_eq(spoke_msg_attachments(m), 0);
        spoke_msg_free(m);
        expect_rc(spoke_sender_close(tx), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        expect_rc(spoke_sender_abort(tx, 1, NULL), 0);
    }
    expect_rc(send_text(other_tx, "somebody", SPOKE_NOW), 0);
    expect_text(other_rx, "somebody");
    close_pair(other_tx, other_rx);
    yard_close(&y);
}

/* A call that comes late with an old handle finds memory that is about to be another channel: it
 * must leave everything there as it is. */
Test(channel_pair, who_comes_late_changes_nothing)
{
    struct spk_channel *ch;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
    bool tell;

    yard_open(&y, SHARED);
    pair(&y, 1, &tx, &rx);
    expect_rc(send_text(tx, "one", SPOKE_NOW), 0);
    expect_text(rx, "one"); /* now there is room that the sender has not seen yet */
    expect_rc(spk_channel_enter(tx, SPK_SENDS, &ch), 0);
    spk_channel_leave(ch);
    m = message("late");
    cr_assert_eq(ch->limit_seen, 1);
    expect_rc(spk_channel_push(ch, &y, m, &tell), SPOKE_ECLOSED);
    cr_assert_eq(ch->limit_seen, 1);
    cr_assert_not(tell);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    cr_assert_eq(ch->tail_seen, 1);
    cr_assert_null(spk_channel_pop(ch, &y, &tell));
    cr_assert_eq(ch->tail_seen, 1);
    expect_text(rx, "late");
    close_pair(tx, rx);
    yard_close(&y);
}

WAY_TEST(channel_pair, an_engine_closes_with_its_channels, ways)
{
    struct yard y;
    spoke_sender *tx, *carried_tx;
    spoke_receiver *rx, *carried_rx;
    spoke_msg *m, *kept;

    if (*way == SHARED)
        return; /* it stays */
    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    pair(&y, 8, &carried_tx, &carried_rx);
    expect_rc(send_text(carried_tx, "inside", SPOKE_NOW), 0);
    m = message("with a receiver");
    expect_rc(spoke_msg_attach_receiver(m, carried_rx), 0);
    expect_rc(spoke_sender_send(tx, m, SPOKE_NOW), 0);
    kept = message("with a sender");
    expect_rc(spoke_msg_attach_sender(kept, carried_tx), 0);
    expect_rc(spoke_engine_close(y.e), 0);
    y.e = NULL;
    expect_rc(send_text(tx, "nobody", SPOKE_FOREVER), SPOKE_ECLOSED);
    expect_rc(recv_nothing(rx, SPOKE_FOREVER), SPOKE_ECLOSED);
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_receiver_close(rx), 0);
    spoke_msg_free(kept);
    if (*way == OWNED)
        expect_rc(spoke_engine_open(&y.e, NULL), 0); /* perhaps in the same memory */
    yard_close(&y);
}

static void *
calls_elsewhere(void *ends)
{
    void **end = ends;
    spoke_msg *m;
    bool right = send_text(end[0], "x", SPOKE_NOW) == SPOKE_EWRONGTHREAD &&
                 spoke_receiver_recv(end[1], &m, SPOKE_NOW) == SPOKE_EWRONGTHREAD &&
                 spoke_sender_close(end[0]) == SPOKE_EWRONGTHREAD;

    return right ? NULL : "not SPOKE_EWRONGTHREAD";
}

Test(channel_pair, an_owned_engine_has_one_thread)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    pthread_t thread;
    void *wrong;

    yard_open(&y, OWNED);
    pair(&y, 8, &tx, &rx);
    void *ends[] = {tx, rx};
    cr_assert_eq(pthread_create(&thread, NULL, calls_elsewhere, ends), 0);
    pthread_join(thread, &wrong);
    cr_assert_null(wrong, "%s", (char *)wrong);
    close_pair(tx, rx);
    yard_close(&y);
}

struct inherited {
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *m;
};

static int
use_in_child(void *ctx)
{
    struct inherited *x = ctx;
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_msg *got;

    child_is_confined(); /* its parent has other threads */
    CHILD_CHECK(send_text(x->tx, "x", SPOKE_NOW) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_receiver_recv(x->rx, &got, SPOKE_NOW) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_sender_close(x->tx) == SPOKE_EFORKED);
    spoke_msg_free(x->m);
    CHILD_CHECK(spoke_channel_pair(&rx, &tx, NULL, NULL) == 0);
    CHILD_CHECK(send_text(tx, "child", SPOKE_NOW) == 0);
    CHILD_CHECK(spoke_receiver_recv(rx, &got, SPOKE_NOW) == 0);
    spoke_msg_free(got);
    CHILD_CHECK(spoke_sender_close(tx) == 0 && spoke_receiver_close(rx) == 0);
    return 0;
}

/* The child has neither the engine nor the ends; what a message carries it lets go, and nothing of
 * the parent's. */
WAY_TEST(channel_pair, a_fork_has_no_channels, ways_real)
{
    struct yard y;
    spoke_sender *tx, *answer;
    spoke_receiver *rx, *answers;
    spoke_msg *m;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    pair(&y, 8, &answer, &answers);
    expect_rc(send_text(tx, "before", SPOKE_NOW), 0);
    m = message("carries");
    expect_rc(spoke_msg_attach_sender(m, answer), 0);
    cr_assert_eq(child_run(use_in_child, &(struct inherited){tx, rx, m}, 20), 0);
    yard_settle(&y);
    expect_rc(recv_nothing(answers, SPOKE_NOW), SPOKE_EAGAIN);
    expect_text(rx, "before");
    spoke_msg_free(m);
    expect_rc(recv_nothing(answers, SOON(&y)), SPOKE_EOF);
    expect_rc(spoke_receiver_close(answers), 0);
    close_pair(tx, rx);
    yard_close(&y);
}
