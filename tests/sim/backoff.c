/* SPDX-License-Identifier: MIT */
/* When dialers and listeners try again, by the virtual clock: chance keeps them apart. */
#include <stdio.h>

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/test.h"

#define COUNT 20
#define FIRST (10 * SPOKE_MS)

/* When something failed first, and when what came of the next attempt. */
struct attempts {
    spoke_sim *w;
    const void *endpoint;
    int count;
    spoke_ns at[2];
};

static void
note(struct attempts all[COUNT], const void *endpoint, bool failed)
{
    for (int i = 0; i < COUNT; i++) {
        struct attempts *a = &all[i];
        if (a->endpoint == endpoint && a->count < 2 && (failed || a->count > 0))
            a->at[a->count++] = spoke_sim_now(a->w);
    }
}

static int
on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s;
    if (event->type == SPOKE_EVENT_DIAL_FAILED)
        note(ctx, event->dialer, true);
    if (event->type == SPOKE_EVENT_ACCEPT_FAILED || event->type == SPOKE_EVENT_ATTACHED)
        note(ctx, event->listener, event->type == SPOKE_EVENT_ACCEPT_FAILED);
    return 0;
}

static spoke_sim *
open_world(uint32_t emfile)
{
    spoke_sim_config config;
    spoke_sim *w;

    spoke_sim_config_init(&config);
    config.latency_min_ns = config.latency_max_ns = 0;
    config.emfile = emfile;
    cr_assert_eq(spoke_sim_open(&w, &config), 0);
    return w;
}

static void
set_waits(spoke_socket *s, spoke_ns most)
{
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT, FIRST), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT_MAX, most), 0);
}

/* How many waits are different from all before, and each between the bounds. */
static int
count_different(const struct attempts all[COUNT], spoke_ns least, spoke_ns most)
{
    int different = 0;

    for (int i = 0; i < COUNT; i++) {
        spoke_ns wait = all[i].at[1] - all[i].at[0];
        int same = 0;
        if (all[i].count < 2)
            continue;
        cr_assert(wait >= least && wait <= most, "%lld ns", (long long)wait);
        for (int k = 0; k < i; k++)
            same += all[k].count == 2 && all[k].at[1] - all[k].at[0] == wait;
        different += same == 0;
    }
    return different;
}

/* All dialers lose the same server at the same time. */
static int
different_first_waits(spoke_ns most_ns, spoke_ns least, spoke_ns most)
{
    spoke_sim *w = open_world(0);
    struct attempts all[COUNT] = {{0}};
    spoke_engine *e;
    spoke_socket *s;

    cr_assert_eq(spoke_sim_engine(w, &e), 0);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_REQ, e), 0);
    set_waits(s, most_ns);
    cr_assert_eq(spoke_socket_on_event(s, on_event, all), 0);
    for (int i = 0; i < COUNT; i++) {
        spoke_dialer *d;
        cr_assert_eq(spoke_dial(s, "tcp://127.0.0.1:5555", &d, 0), 0);
        all[i] = (struct attempts){.w = w, .endpoint = d};
    }
    spoke_sim_run(w, NULL, NULL, 3 * FIRST);
    for (int i = 0; i < COUNT; i++)
        cr_assert_eq(all[i].count, 2, "dialer %d", i);
    int different = count_different(all, least, most);
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
    return different;
}

Test(backoff, dialers_come_back_together_if_their_wait_is_fixed)
{
    cr_assert_eq(different_first_waits(0, FIRST, FIRST), 1);
    cr_assert_eq(different_first_waits(FIRST, FIRST, FIRST), 1);
}

Test(backoff, dialers_whose_wait_may_grow_come_back_one_by_one)
{
    cr_assert_geq(different_first_waits(SPOKE_SECOND, FIRST, 2 * FIRST), COUNT / 2);
    cr_assert_geq(different_first_waits(FIRST + SPOKE_MS, FIRST, FIRST + SPOKE_MS), COUNT / 2);
}

/* Of those that want the next free descriptor not always the same one is first. */
Test(backoff, listeners_without_descriptors_try_again_one_by_one)
{
    spoke_sim *w = open_world(500);
    struct attempts all[COUNT] = {{0}};
    spoke_engine *e;
    spoke_socket *server, *client;

    cr_assert_eq(spoke_sim_engine(w, &e), 0);
    cr_assert_eq(spoke_socket_open(&server, SPOKE_REP, e), 0);
    cr_assert_eq(spoke_socket_open(&client, SPOKE_REQ, e), 0);
    set_waits(client, 0);
    cr_assert_eq(spoke_socket_on_event(server, on_event, all), 0);
    for (int i = 0; i < COUNT; i++) {
        char url[64];
        spoke_listener *l;
        snprintf(url, sizeof url, "tcp://127.0.0.1:%d", 5000 + i);
        while (spoke_listen(server, url, &l, 0) != 0)
            ; /* it needs a descriptor too */
        all[i] = (struct attempts){.w = w, .endpoint = l};
        cr_assert_eq(spoke_dial(client, url, NULL, 0), 0);
    }
    spoke_sim_run(w, NULL, NULL, 2 * SPOKE_SECOND);
    cr_assert_geq(count_different(all, 50 * SPOKE_MS, 150 * SPOKE_MS), COUNT / 4);
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}
