/* SPDX-License-Identifier: MIT */
/* What is lost is counted once, and told of: with a connection, in a simulated world whose
 * cancelled writes go through all the same, and with time. */
#include <string.h>

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/sim/storm.h"

#define SENT 40

struct pipeline {
    spoke_sim *w;
    spoke_socket *push, *pull;
    spoke_pipe_id pipe; /* of the pusher's */
};

static int
on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct pipeline *x = ctx;

    (void)s;
    if (event->type == SPOKE_EVENT_ATTACHED)
        x->pipe = event->pipe;
    return 0;
}

static void
open_pipeline(struct pipeline *x, uint64_t seed)
{
    spoke_sim_config config;
    spoke_engine *near, *far;

    spoke_sim_config_init(&config);
    config.seed = seed;
    config.buffer_bytes = 500;
    config.cancel_race = 1000;
    cr_assert_eq(spoke_sim_open(&x->w, &config), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &near), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &far), 0);
    cr_assert_eq(spoke_socket_open(&x->push, SPOKE_PUSH, near), 0);
    cr_assert_eq(spoke_socket_open(&x->pull, SPOKE_PULL, far), 0);
    cr_assert_eq(spoke_socket_on_event(x->push, on_event, x), 0);
    cr_assert_eq(spoke_listen(x->push, "tcp://127.0.0.1:5", NULL, 0), 0);
    cr_assert_eq(spoke_dial(x->pull, "tcp://127.0.0.1:5", NULL, 0), 0);
    cr_assert_eq(spoke_sim_run(x->w, NULL, NULL, SPOKE_SECOND), 0);
    cr_assert_neq(x->pipe, 0u);
}

/* The connection ends after so many steps; how many of the messages arrive? */
static uint32_t
lose_some(struct pipeline *x, int steps)
{
    char body[100] = "";
    spoke_msg *m;
    uint32_t arrived = 0;

    for (int i = 0; i < SENT; i++)
        cr_assert_eq(spoke_send_bytes(x->push, body, sizeof body, SPOKE_DONTWAIT), 0);
    for (int i = 0; i < steps; i++)
        (void)spoke_sim_step(x->w);
    cr_assert_eq(spoke_pipe_close(x->push, x->pipe), 0);
    cr_assert_eq(spoke_sim_run(x->w, NULL, NULL, 10 * SPOKE_MS), 0);
    while (spoke_recv(x->pull, &m, SPOKE_DONTWAIT) == 0) {
        spoke_msg_free(m);
        arrived++;
    }
    return arrived;
}

/* How often both together are all that was sent: not always, what the world had taken is lost
 * without a trace. */
static uint64_t exact;

static uint64_t
lose_a_connection(const char *test, uint64_t seed)
{
    struct pipeline x = {.pipe = 0};
    struct spoke_stats stats;

    (void)test;
    open_pipeline(&x, seed);
    uint32_t arrived = lose_some(&x, (int)(seed % 20));
    cr_assert_eq(spoke_socket_stats(x.push, &stats), 0);
    cr_assert_leq(arrived + stats.dropped_lost, SENT, "%u arrived, %d are lost\n%s", arrived,
                  (int)stats.dropped_lost, storm_replay());
    cr_assert_gt(stats.dropped_lost, 0u, "%s", storm_replay());
    exact += arrived + stats.dropped_lost == SENT;
    cr_assert_eq(spoke_sim_close(x.w, NULL), 0, "%s", storm_replay());
    return arrived;
}

Test(sim_lost, a_message_is_lost_or_arrives_and_not_both)
{
    uint64_t seeds = storm_each_seed("a_message_is_lost_or_arrives_and_not_both",
                                     lose_a_connection);

    if (seeds >= STORM_SEEDS)
        cr_assert_gt(exact, seeds / 4);
}

/* ---- receipts for what has expired ---- */

struct account {
    uint32_t received, told;
};

static uint64_t
get64(const uint8_t *bytes)
{
    uint64_t value = 0;

    for (int i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

static void
read_all(spoke_sim *w, spoke_socket *sub, struct account *account)
{
    spoke_msg *m;

    (void)spoke_sim_run(w, NULL, NULL, 5 * SPOKE_MS);
    while (spoke_recv(sub, &m, SPOKE_DONTWAIT) == 0) {
        const uint8_t *body = spoke_msg_body(m);

        if (spoke_msg_size(m) == 5 + 16 && memcmp(body, "$lost", 5) == 0) {
            account->told += (uint32_t)get64(body + 5);
            cr_assert_eq(get64(body + 13), account->told, "and so many ever");
        } else {
            account->received++;
        }
        spoke_msg_free(m);
        (void)spoke_sim_run(w, NULL, NULL, SPOKE_MS);
    }
}

/* Goal: what expires while it waits is told of, whatever is lost besides.  Method: a subscriber
 * that does not read for so long; before that, and after it, it does. */
static void
tells_of_expired(enum spoke_loss loss)
{
    struct account account = {0};
    struct spoke_stats stats;
    spoke_socket *pub, *sub;
    spoke_engine *e;
    uint32_t sent = 0;
    spoke_sim *w;

    cr_assert_eq(spoke_sim_open(&w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(w, &e), 0);
    cr_assert_eq(spoke_socket_open(&pub, SPOKE_PUB, e), 0);
    cr_assert_eq(spoke_socket_open(&sub, SPOKE_SUB, e), 0);
    cr_assert_eq(spoke_socket_set_int(pub, SPOKE_OPT_LOSS, (int)loss), 0);
    cr_assert_eq(spoke_socket_set_int(pub, SPOKE_OPT_SEND_QUEUE, 4), 0);
    cr_assert_eq(spoke_socket_set_string(pub, SPOKE_OPT_LOSS_TOPIC, "$lost"), 0);
    cr_assert_eq(spoke_socket_set_duration(pub, SPOKE_OPT_SEND_EXPIRY, 10 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_LOSS, SPOKE_LOSS_BLOCK), 0);
    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_RECV_QUEUE, 1), 0);
    cr_assert_eq(spoke_socket_set(sub, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, "", 0), 0);
    cr_assert_eq(spoke_listen(pub, "inproc://lost", NULL, 0), 0);
    cr_assert_eq(spoke_dial(sub, "inproc://lost", NULL, SPOKE_WAIT_FIRST), 0);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 5 + 10 * round; i++, sent++)
            cr_assert_eq(spoke_send_bytes(pub, "news", 4, SPOKE_DONTWAIT), 0);
        (void)spoke_sim_run(w, NULL, NULL, 20 * SPOKE_MS);
        read_all(w, sub, &account);
        cr_assert_eq(spoke_send_bytes(pub, "news", 4, SPOKE_DONTWAIT), 0);
        sent++;
        read_all(w, sub, &account);
        cr_assert_eq(account.received + account.told, sent, "round %d: %u received, %u told of",
                     round, account.received, account.told);
    }
    cr_assert_eq(spoke_socket_stats(pub, &stats), 0);
    cr_assert_gt(stats.dropped_expired, 0u);
    cr_assert_gt(stats.dropped_peer_full, 0u);
    cr_assert_eq(stats.dropped_expired + stats.dropped_peer_full, account.told);
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}

Test(sim_lost, what_expires_is_told_of_where_the_newest_are_lost)
{
    tells_of_expired(SPOKE_LOSS_NEWEST);
}

Test(sim_lost, what_expires_is_told_of_where_the_oldest_are_lost)
{
    tells_of_expired(SPOKE_LOSS_OLDEST);
}
