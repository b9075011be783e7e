/* SPDX-License-Identifier: MIT */
/* Channels without depth: a send waits until its message is taken. */
#include "tests/channel/pair_fixture.h"

#include <pthread.h>
#include <stdatomic.h>

#include "protocols/channel/channel.h"

struct party {
    spoke_sender *tx;
    spoke_receiver *rx;
    int rc;
};

static void
take_one(void *ctx)
{
    struct party *p = ctx;
    spoke_msg *m;

    if ((p->rc = spoke_receiver_recv(p->rx, &m, SPOKE_NOW)) == 0)
        spoke_msg_free(m);
}

static void
send_now(void *ctx)
{
    struct party *p = ctx;

    p->rc = send_text(p->tx, "now", SPOKE_NOW);
}

WAY_TEST(channel_rendezvous, a_send_waits_until_it_is_taken, ways)
{
    struct spoke_channel_info info;
    struct yard y;
    struct party p;
    struct later *later;

    yard_open(&y, *way);
    pair(&y, 0, &p.tx, &p.rx);
    expect_rc(send_text(p.tx, "nobody", SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(send_text(p.tx, "nobody", yard_in(&y, SPOKE_MS)), SPOKE_ETIMEDOUT);
    expect_rc(recv_nothing(p.rx, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(spoke_sender_get_info(p.tx, &info), 0);
    cr_assert(info.sent == 0 && info.waiting == 0 && info.depth == 0);
    later = yard_later(&y, p.tx, take_one, &p);
    expect_rc(send_text(p.tx, "taken", SOON(&y)), 0);
    yard_joined(later);
    expect_rc(p.rc, 0);
    expect_rc(spoke_sender_sync(p.tx, SPOKE_NOW), 0);
    expect_rc(spoke_receiver_get_info(p.rx, &info), 0);
    cr_assert(info.sent == 1 && info.taken == 1 && info.waiting == 0);
    close_pair(p.tx, p.rx);
    yard_close(&y);
}

WAY_TEST(channel_rendezvous, a_send_that_does_not_wait_needs_who_does, ways)
{
    struct yard y;
    struct party p;
    struct later *later;

    yard_open(&y, *way);
    pair(&y, 0, &p.tx, &p.rx);
    later = yard_later(&y, p.rx, send_now, &p);
    expect_text(p.rx, "now");
    yard_joined(later);
    expect_rc(p.rc, 0);
    close_pair(p.tx, p.rx);
    yard_close(&y);
}

static void
close_tx(void *ctx)
{
    (void)spoke_sender_close(((struct party *)ctx)->tx);
}

static void
abort_tx(void *ctx)
{
    (void)spoke_sender_abort(((struct party *)ctx)->tx, 1, NULL);
}

static void
close_rx(void *ctx)
{
    (void)spoke_receiver_close(((struct party *)ctx)->rx);
}

static void
break_rx(void *ctx)
{
    struct spk_channel *ch;

    if (spk_channel_enter(((struct party *)ctx)->rx, SPK_RECEIVES, &ch) == 0) {
        spk_channel_break(ch, SPOKE_EDECODE, SPOKE_MUX_DECODE, NULL);
        spk_channel_leave(ch);
    }
}

/* What it waits with is the sender's again, whoever ends the channel. */
WAY_TEST(channel_rendezvous, the_end_gives_back_what_was_not_taken, ways)
{
    static const struct {
        void (*fn)(void *ctx);
        int wanted, received;
    } ends[] = {{close_tx, SPOKE_ECLOSED, SPOKE_EOF},
                {abort_tx, SPOKE_ECLOSED, SPOKE_EABORTED},
                {close_rx, SPOKE_EPEERCLOSED, SPOKE_ECLOSED},
                {break_rx, SPOKE_EABORTED, SPOKE_EDECODE}};
    struct spoke_channel_info info;
    struct yard y;
    struct party p;
    struct later *later;
    spoke_msg *m;

    yard_open(&y, *way);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        pair(&y, 0, &p.tx, &p.rx);
        m = message("mine");
        later = yard_later(&y, p.tx, ends[i].fn, &p);
        expect_rc(spoke_sender_send(p.tx, m, SOON(&y)), ends[i].wanted);
        yard_joined(later);
        cr_assert(is_text(m, "mine"));
        spoke_msg_free(m);
        expect_rc(recv_nothing(p.rx, SPOKE_NOW), ends[i].received);
        if (spoke_sender_get_info(p.tx, &info) == 0)
            cr_assert(info.sent == 0 && info.taken == 0 && info.waiting == 0);
        close_pair(p.tx, p.rx);
    }
    yard_close(&y);
}

/* ---- threads ---- */

struct waiting {
    pthread_t thread;
    spoke_sender *tx;
    spoke_ns deadline;
    int rc;
};

static void *
send_and_wait(void *argument)
{
    struct waiting *w = argument;

    w->rc = send_text(w->tx, "patient", w->deadline);
    return NULL;
}

/* The first to send gives up; the second one waited for its place. */
Test(channel_rendezvous, who_gives_up_makes_room)
{
    struct waiting first, second;
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, SHARED);
    pair(&y, 0, &tx, &rx);
    first = (struct waiting){.tx = tx, .deadline = yard_in(&y, 2 * SPOKE_SECOND)};
    second = (struct waiting){.tx = tx, .deadline = SOON(&y)};
    cr_assert_eq(pthread_create(&first.thread, NULL, send_and_wait, &first), 0);
    cr_assert(await_calls(tx, 1));
    cr_assert_eq(pthread_create(&second.thread, NULL, send_and_wait, &second), 0);
    pthread_join(first.thread, NULL);
    expect_rc(first.rc, SPOKE_ETIMEDOUT);
    expect_text(rx, "patient");
    pthread_join(second.thread, NULL);
    expect_rc(second.rc, 0);
    close_pair(tx, rx);
    yard_close(&y);
}

struct ready {
    struct party p;
    atomic_int calls, sent;
};

static void
on_sender(spoke_sender *tx, void *ctx)
{
    struct ready *r = ctx;

    atomic_fetch_add(&r->calls, 1);
    if (send_text(tx, "ready", SPOKE_NOW) == 0)
        atomic_fetch_add(&r->sent, 1);
}

/* There is room when somebody waits, and not before: else it would be called for ever. */
Test(channel_rendezvous, a_sender_is_ready_while_somebody_receives)
{
    struct ready r = {0};
    struct yard y;

    yard_open(&y, SHARED);
    pair(&y, 0, &r.p.tx, &r.p.rx);
    expect_rc(spoke_sender_on_ready(r.p.tx, on_sender, &r), 0);
    yard_settle(&y);
    cr_assert_eq(atomic_load(&r.calls), 0);
    expect_rc(send_text(r.p.tx, "nobody", SPOKE_NOW), SPOKE_EAGAIN);
    yard_settle(&y);
    cr_assert_eq(atomic_load(&r.calls), 0);
    expect_text(r.p.rx, "ready");
    yard_settle(&y);
    cr_assert_eq(atomic_load(&r.sent), 1);
    cr_assert_leq(atomic_load(&r.calls), 2);
    expect_rc(spoke_sender_on_ready(r.p.tx, NULL, NULL), 0);
    close_pair(r.p.tx, r.p.rx);
    yard_close(&y);
}

static void
on_receiver(spoke_receiver *rx, void *ctx)
{
    spoke_msg *m;

    (void)ctx;
    while (spoke_receiver_recv(rx, &m, SPOKE_NOW) == 0) /* then it is told again */
        spoke_msg_free(m);
}

WAY_TEST(channel_rendezvous, a_callback_takes_what_a_send_waits_with, ways)
{
    struct yard y;
    spoke_sender *tx;
    spoke_receiver *rx;

    yard_open(&y, *way);
    pair(&y, 0, &tx, &rx);
    expect_rc(spoke_receiver_on_ready(rx, on_receiver, NULL), 0);
    for (int i = 0; i < 10; i++)
        expect_rc(send_text(tx, "taken", SOON(&y)), 0);
    close_pair(tx, rx);
    yard_close(&y);
}

/* Each is taken by one, and nobody is left. */
struct crowd {
    spoke_sender *tx;
    spoke_receiver *rx;
    atomic_ullong sent_sum, received_sum;
    atomic_int sent, wrong;
    spoke_ns deadline;
};

static void *
crowd_sends(void *argument)
{
    struct crowd *c = argument;
    int rc;

    for (uint64_t i = 1; i <= TEST_REPEATS(2000); i++) {
        spoke_ns deadline = i % 3 == 0   ? SPOKE_NOW
                            : i % 3 == 1 ? spoke_engine_now(NULL) + 50 * SPOKE_US
                                         : c->deadline;

        if ((rc = send_number(c->tx, i, deadline)) == 0) {
            atomic_fetch_add(&c->sent_sum, i);
            atomic_fetch_add(&c->sent, 1);
        } else if (rc != (deadline == SPOKE_NOW ? SPOKE_EAGAIN : SPOKE_ETIMEDOUT) ||
                   deadline == c->deadline) {
            atomic_fetch_add(&c->wrong, 1);
        }
    }
    return NULL;
}

static void *
crowd_receives(void *argument)
{
    struct crowd *c = argument;
    uint64_t number;
    int rc;

    for (unsigned i = 0;; i++) {
        spoke_ns deadline = i % 2 == 0 ? c->deadline : spoke_engine_now(NULL) + 50 * SPOKE_US;

        rc = recv_number(c->rx, &number, deadline);
        if (rc == 0)
            atomic_fetch_add(&c->received_sum, number);
        else if (rc == SPOKE_EOF)
            return NULL;
        else if (rc != SPOKE_ETIMEDOUT || deadline == c->deadline)
            atomic_fetch_add(&c->wrong, 1);
    }
}

Test(channel_rendezvous, many_threads)
{
    struct crowd c = {0};
    pthread_t threads[6];
    struct yard y;

    yard_open(&y, SHARED);
    pair(&y, 0, &c.tx, &c.rx);
    c.deadline = SOON(&y) * 2;
    for (int i = 0; i < 6; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, i < 3 ? crowd_sends : crowd_receives, &c),
                     0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    expect_rc(spoke_sender_close(c.tx), 0);
    for (int i = 3; i < 6; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&c.wrong), 0);
    cr_assert_gt(atomic_load(&c.sent), 0);
    cr_assert_eq(atomic_load(&c.sent_sum), atomic_load(&c.received_sum));
    expect_rc(spoke_receiver_close(c.rx), 0);
    yard_close(&y);
}
