/* SPDX-License-Identifier: MIT */
/* Descriptors and callbacks that say when a call need not wait. */
#include "tests/channel/pair_fixture.h"

#include <poll.h>
#include <stdatomic.h>
#include <unistd.h>

static bool
is_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

struct level {
    int fd;
    bool on;
};

static bool
is_at(void *ctx)
{
    struct level *l = ctx;

    return is_readable(l->fd) == l->on;
}

static void
expect_level(struct yard *y, int fd, bool on)
{
    yard_until(y, is_at, &(struct level){fd, on});
}

WAY_TEST(channel_ready, a_descriptor_is_readable_while_a_receive_need_not_wait, ways_real)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    int fd, before;

    yard_open(&y, *way);
    before = open_descriptors();
    pair(&y, 2, &tx, &rx);
    fd = spoke_receiver_fd(rx);
    cr_assert_geq(fd, 0);
    cr_assert_eq(spoke_receiver_fd(rx), fd);
    cr_assert_not(is_readable(fd));
    for (int i = 0; i < 3; i++) {
        expect_rc(send_text(tx, "one", SPOKE_NOW), 0);
        expect_level(&y, fd, true);
        expect_rc(send_text(tx, "two", SPOKE_NOW), 0);
        expect_text(rx, "one");
        cr_assert(is_readable(fd));
        expect_text(rx, "two");
        cr_assert_not(is_readable(fd));
    }
    expect_rc(spoke_sender_close(tx), 0);
    expect_level(&y, fd, true);
    expect_rc(recv_nothing(rx, SPOKE_NOW), SPOKE_EOF);
    cr_assert(is_readable(fd), "the end stays");
    expect_rc(spoke_receiver_close(rx), 0);
    cr_assert_eq(open_descriptors(), before);
    yard_close(&y);
}

WAY_TEST(channel_ready, a_descriptor_is_readable_while_a_send_need_not_wait, ways_real)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    int fd;

    yard_open(&y, *way);
    pair(&y, 1, &tx, &rx);
    fd = spoke_sender_fd(tx);
    cr_assert_geq(fd, 0);
    cr_assert(is_readable(fd));
    for (int i = 0; i < 3; i++) {
        expect_rc(send_text(tx, "one", SPOKE_NOW), 0);
        cr_assert_not(is_readable(fd));
        expect_rc(send_text(tx, "two", SPOKE_NOW), SPOKE_EAGAIN);
        expect_text(rx, "one");
        expect_level(&y, fd, true);
    }
    expect_rc(send_text(tx, "one", SPOKE_NOW), 0);
    expect_rc(spoke_receiver_close(rx), 0);
    expect_level(&y, fd, true);
    expect_rc(send_text(tx, "two", SPOKE_NOW), SPOKE_EPEERCLOSED);
    expect_rc(spoke_sender_close(tx), 0);
    yard_close(&y);
}

/* The descriptor goes with its handle, however long the other end lives. */
WAY_TEST(channel_ready, a_closed_end_has_no_descriptor, ways_real)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    int before;

    yard_open(&y, *way);
    pair(&y, 1, &tx, &rx);
    before = open_descriptors();
    cr_assert_geq(spoke_receiver_fd(rx), 0);
    cr_assert_geq(spoke_sender_fd(tx), 0);
    expect_rc(spoke_receiver_close(rx), 0);
    cr_assert_eq(open_descriptors(), before + 1);
    expect_rc(spoke_sender_close(tx), 0);
    cr_assert_eq(open_descriptors(), before);
    yard_close(&y);
}

Test(channel_ready, a_simulated_engine_has_no_descriptors)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, SIM);
    pair(&y, 1, &tx, &rx);
    expect_rc(spoke_receiver_fd(rx), SPOKE_ENOTSUP);
    expect_rc(spoke_sender_fd(tx), SPOKE_ENOTSUP);
    close_pair(tx, rx);
    yard_close(&y);
}

/* ---- callbacks ---- */

struct told {
    atomic_int calls, received, end;
    int take; /* messages at a call; -1: all */
    bool closes;
};

static void
on_receiver(spoke_receiver *rx, void *ctx)
{
    struct told *t = ctx;
    spoke_msg *m;
    int rc = 0;

    atomic_fetch_add(&t->calls, 1);
    for (int i = 0; t->take < 0 || i < t->take; i++) {
        if ((rc = spoke_receiver_recv(rx, &m, SPOKE_NOW)) != 0)
            break;
        spoke_msg_free(m);
        atomic_fetch_add(&t->received, 1);
    }
    if (rc == SPOKE_EAGAIN || rc == 0)
        return;
    atomic_store(&t->end, rc);
    if (t->closes)
        (void)spoke_receiver_close(rx);
}

static bool
has_received_3(void *ctx)
{
    return atomic_load(&((struct told *)ctx)->received) == 3;
}

static bool
has_ended(void *ctx)
{
    return atomic_load(&((struct told *)ctx)->end) != 0;
}

WAY_TEST(channel_ready, a_callback_takes_what_comes_and_closes, ways)
{
    struct told t = {.take = -1, .closes = true};
    struct spoke_channel_info info;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    expect_rc(spoke_receiver_on_ready(rx, on_receiver, &t), 0);
    yard_settle(&y);
    cr_assert_eq(atomic_load(&t.calls), 0, "there is nothing yet");
    for (int i = 0; i < 3; i++) {
        expect_rc(send_text(tx, "x", SPOKE_NOW), 0);
        yard_settle(&y);
    }
    yard_until(&y, has_received_3, &t);
    expect_rc(spoke_sender_close(tx), 0);
    yard_until(&y, has_ended, &t);
    yard_settle(&y);
    expect_rc(atomic_load(&t.end), SPOKE_EOF);
    expect_rc(spoke_receiver_get_info(rx, &info), SPOKE_ECLOSED);
    yard_close(&y);
}

/* Once at first, and then not before a receive gave SPOKE_EAGAIN. */
WAY_TEST(channel_ready, a_callback_is_told_once, ways)
{
    struct told t = {.take = 1};
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    pair(&y, 8, &tx, &rx);
    expect_rc(send_text(tx, "x", SPOKE_NOW), 0);
    expect_rc(send_text(tx, "y", SPOKE_NOW), 0);
    expect_rc(spoke_receiver_on_ready(rx, on_receiver, &t), 0);
    yard_settle(&y);
    expect_rc(send_text(tx, "z", SPOKE_NOW), 0);
    yard_settle(&y);
    cr_assert_eq(atomic_load(&t.calls), 1);
    expect_text(rx, "y");
    expect_text(rx, "z");
    expect_rc(recv_nothing(rx, SPOKE_NOW), SPOKE_EAGAIN);
    yard_settle(&y);
    cr_assert_eq(atomic_load(&t.calls), 1);
    expect_rc(send_text(tx, "again", SPOKE_NOW), 0);
    yard_settle(&y);
    cr_assert_eq(atomic_load(&t.calls), 2);
    expect_rc(recv_nothing(rx, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(spoke_receiver_on_ready(rx, NULL, NULL), 0);
    expect_rc(send_text(tx, "unwatched", SPOKE_NOW), 0);
    yard_settle(&y);
    cr_assert_eq(atomic_load(&t.calls), 2);
    expect_text(rx, "unwatched");
    close_pair(tx, rx);
    yard_close(&y);
}

struct source {
    atomic_int calls;
    atomic_ullong sent;
    atomic_int end, waits;
};

static void
on_sender(spoke_sender *tx, void *ctx)
{
    struct source *s = ctx;
    int rc;

    atomic_fetch_add(&s->calls, 1);
    if (send_number(tx, 0, SPOKE_FOREVER) == SPOKE_EDEADLK)
        atomic_store(&s->waits, 1);
    else
        atomic_fetch_add(&s->sent, 1);
    while ((rc = send_number(tx, 1, SPOKE_NOW)) == 0)
        atomic_fetch_add(&s->sent, 1);
    if (rc != SPOKE_EAGAIN)
        atomic_store(&s->end, rc);
}

static bool
has_stopped(void *ctx)
{
    return atomic_load(&((struct source *)ctx)->end) != 0;
}

WAY_TEST(channel_ready, a_callback_fills_what_room_there_is, ways)
{
    struct source s = {0};
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;
    uint64_t number;

    yard_open(&y, *way);
    pair(&y, 2, &tx, &rx);
    expect_rc(spoke_sender_on_ready(tx, on_sender, &s), 0);
    for (int i = 0; i < 20; i++)
        expect_rc(recv_number(rx, &number, SOON(&y)), 0);
    yard_settle(&y);
    cr_assert_eq(atomic_load(&s.sent), 22);
    expect_rc(spoke_receiver_close(rx), 0);
    yard_until(&y, has_stopped, &s);
    expect_rc(atomic_load(&s.end), SPOKE_EPEERCLOSED);
    expect_rc(spoke_sender_close(tx), 0);
    yard_close(&y);
}
