/* SPDX-License-Identifier: MIT */
/* Many threads on one channel: each message comes once, those of one sender in order. */
#include "tests/channel/pair_fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define SENDERS   4
#define RECEIVERS 4
#define EACH      ((uint64_t)TEST_REPEATS(20000))

struct all {
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_ns deadline; /* nobody reaches it */
    atomic_bool over;
    atomic_ullong sent, received;
    atomic_ullong seen[SENDERS * EACH]; /* how often */
    _Atomic(const char *) wrong;
};
static struct all all;

struct worker {
    pthread_t thread;
    unsigned number;
};

static void
complain(const char *what)
{
    atomic_store(&all.wrong, what);
}

/* With and without waiting, as it comes. */
static void *
sends(void *argument)
{
    unsigned who = ((struct worker *)argument)->number;

    for (uint64_t i = 0; i < EACH; i++) {
        int rc = i % 5 == 0 ? send_number(all.tx, who * EACH + i, SPOKE_NOW) : SPOKE_EAGAIN;

        if (rc == SPOKE_EAGAIN)
            rc = send_number(all.tx, who * EACH + i, all.deadline);
        if (rc == 0)
            atomic_fetch_add(&all.sent, 1);
        else if (rc == SPOKE_EPEERCLOSED || rc == SPOKE_ECLOSED || rc == SPOKE_EABORTED)
            break;
        else
            complain(rc_name(rc));
    }
    return NULL;
}

static void *
receives(void *argument)
{
    uint64_t last[SENDERS] = {0}, number;
    int rc;

    (void)argument;
    for (unsigned turn = 0;; turn++) {
        rc = turn % 7 == 0 ? recv_number(all.rx, &number, SPOKE_NOW) : SPOKE_EAGAIN;
        if (rc == SPOKE_EAGAIN)
            rc = recv_number(all.rx, &number, all.deadline);
        if (rc != 0)
            break;
        if (number >= SENDERS * EACH) {
            complain("a number that was never sent");
            continue;
        }
        if (number % EACH + 1 <= last[number / EACH])
            complain("out of order");
        last[number / EACH] = number % EACH + 1;
        atomic_fetch_add(&all.seen[number], 1);
        atomic_fetch_add(&all.received, 1);
    }
    if (rc != SPOKE_EOF && rc != SPOKE_ECLOSED && rc != SPOKE_EABORTED)
        complain(rc_name(rc));
    return NULL;
}

/* What is said of it holds at every moment. */
static void *
looks(void *nothing)
{
    struct spoke_channel_info info;

    while (!atomic_load(&all.over)) {
        int rc = spoke_receiver_get_info(all.rx, &info);

        if (rc == 0 && (info.taken > info.sent || info.waiting > info.sent))
            complain("more is taken than was sent");
    }
    return nothing;
}

static void
start(struct worker *w, unsigned number, void *(*fn)(void *argument))
{
    w->number = number;
    cr_assert_eq(pthread_create(&w->thread, NULL, fn, w), 0);
}

static void
all_pass(size_t depth)
{
    struct worker w[SENDERS + RECEIVERS + 1];
    struct yard y;

    yard_open(&y, SHARED);
    memset(&all, 0, sizeof all);
    pair(&y, depth, &all.tx, &all.rx);
    all.deadline = SOON(&y) * 2;
    for (unsigned i = 0; i < SENDERS; i++)
        start(&w[i], i, sends);
    for (unsigned i = SENDERS; i < SENDERS + RECEIVERS; i++)
        start(&w[i], i, receives);
    start(&w[SENDERS + RECEIVERS], 0, looks);
    for (unsigned i = 0; i < SENDERS; i++)
        pthread_join(w[i].thread, NULL);
    expect_rc(spoke_sender_close(all.tx), 0);
    for (unsigned i = SENDERS; i < SENDERS + RECEIVERS; i++)
        pthread_join(w[i].thread, NULL);
    atomic_store(&all.over, true);
    pthread_join(w[SENDERS + RECEIVERS].thread, NULL);
    expect_rc(spoke_receiver_close(all.rx), 0);
    cr_assert_null(atomic_load(&all.wrong), "%s", atomic_load(&all.wrong));
    cr_assert_eq(atomic_load(&all.sent), SENDERS * EACH);
    for (uint64_t i = 0; i < SENDERS * EACH; i++)
        cr_assert_eq(atomic_load(&all.seen[i]), 1);
    yard_close(&y);
}

Test(channel_threads, each_message_once_and_in_order_depth_1)
{
    all_pass(1);
}

Test(channel_threads, each_message_once_and_in_order_depth_64)
{
    all_pass(64);
}

/* Closed in the middle of it: everybody is told, and nothing comes twice. */
static void
closed_in_between(unsigned round)
{
    struct worker w[SENDERS + RECEIVERS];
    struct yard y;

    yard_open(&y, SHARED);
    memset(&all, 0, sizeof all);
    pair(&y, round % 3, &all.tx, &all.rx);
    all.deadline = SOON(&y) * 2;
    for (unsigned i = 0; i < SENDERS; i++)
        start(&w[i], i, sends);
    for (unsigned i = SENDERS; i < SENDERS + RECEIVERS; i++)
        start(&w[i], i, receives);
    while (atomic_load(&all.received) < 20 * round)
        ;
    if (round % 4 == 0)
        expect_rc(spoke_sender_close(all.tx), 0);
    else if (round % 4 == 1)
        expect_rc(spoke_receiver_close(all.rx), 0);
    else if (round % 4 == 2)
        expect_rc(spoke_sender_abort(all.tx, 1, NULL), 0);
    else
        close_pair(all.tx, all.rx);
    for (unsigned i = 0; i < SENDERS + RECEIVERS; i++)
        pthread_join(w[i].thread, NULL);
    close_pair(all.tx, all.rx);
    cr_assert_null(atomic_load(&all.wrong), "%s", atomic_load(&all.wrong));
    for (uint64_t i = 0; i < SENDERS * EACH; i++)
        cr_assert_leq(atomic_load(&all.seen[i]), 1);
    if (round % 4 == 0) /* an end that loses nothing */
        cr_assert_eq(atomic_load(&all.sent), atomic_load(&all.received));
    yard_close(&y);
}

Test(channel_threads, closed_while_they_are_at_it)
{
    for (unsigned round = 0; round < TEST_REPEATS(48); round++)
        closed_in_between(round);
}

/* Channels come and go in the same memory while threads still use old handles. */
static _Atomic(spoke_sender *) latest_tx;
static _Atomic(spoke_receiver *) latest_rx;

static void *
calls_what_it_finds(void *argument)
{
    spoke_sender *tx = NULL;
    spoke_receiver *rx = NULL;
    uint64_t number;

    for (unsigned i = 0; !atomic_load(&all.over); i++) {
        if (i % 16 == 0) { /* and then it is old */
            tx = atomic_load(&latest_tx);
            rx = atomic_load(&latest_rx);
        }
        if (((struct worker *)argument)->number % 2 == 0)
            (void)send_number(tx, 1, SPOKE_NOW);
        else if (recv_number(rx, &number, SPOKE_NOW) == 0 && number != 1)
            complain("a number that was never sent");
    }
    return NULL;
}

Test(channel_threads, handles_outlive_channels)
{
    struct worker w[4];
    spoke_sender *tx;
    spoke_receiver *rx;
    spoke_socket *s;
    struct yard y;

    yard_open(&y, SHARED);
    memset(&all, 0, sizeof all);
    for (unsigned i = 0; i < 4; i++)
        start(&w[i], i, calls_what_it_finds);
    for (unsigned i = 0; i < TEST_REPEATS(4000); i++) {
        pair(&y, 1 + i % 5, &tx, &rx);
        atomic_store(&latest_tx, tx);
        atomic_store(&latest_rx, rx);
        for (unsigned k = 0; k < i % 7; k++)
            (void)send_number(tx, 1, SPOKE_NOW);
        if (i % 2 == 0)
            close_pair(tx, rx);
        expect_rc(spoke_receiver_close(rx), 0);
        expect_rc(spoke_sender_abort(tx, 1, NULL), 0);
        /* … and so do other things with handles. */
        expect_rc(spoke_socket_open(&s, SPOKE_PAIR, NULL), 0);
        expect_rc(spoke_socket_close(s), 0);
    }
    atomic_store(&all.over, true);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(w[i].thread, NULL);
    cr_assert_null(atomic_load(&all.wrong), "%s", atomic_load(&all.wrong));
    yard_close(&y);
}
