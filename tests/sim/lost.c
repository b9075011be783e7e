/* SPDX-License-Identifier: MIT */
/* What is lost with a connection is counted once, and what was written in its last moment is not:
 * in a simulated world whose cancelled writes go through all the same. */
#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/test.h"

#define WORLDS TEST_REPEATS(200)
#define SENT   40

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

Test(sim_lost, a_message_is_lost_or_arrives_and_not_both)
{
    uint32_t exact = 0;

    for (uint64_t seed = 1; seed <= WORLDS; seed++) {
        struct pipeline x = {.pipe = 0};
        struct spoke_stats stats;

        open_pipeline(&x, seed);
        uint32_t arrived = lose_some(&x, (int)(seed % 20));
        cr_assert_eq(spoke_socket_stats(x.push, &stats), 0);
        cr_assert_leq(arrived + stats.dropped_lost, SENT, "seed %d: %u arrived, %d are lost",
                      (int)seed, arrived, (int)stats.dropped_lost);
        cr_assert_gt(stats.dropped_lost, 0u, "seed %d", (int)seed);
        exact += arrived + stats.dropped_lost == SENT;
        cr_assert_eq(spoke_sim_close(x.w, NULL), 0);
    }
    cr_assert_gt(exact, WORLDS / 4);
}
