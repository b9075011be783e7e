/* SPDX-License-Identifier: MIT */
/* A connection moves into shared memory under traffic: every message arrives once, whole and in
 * order, whatever it overtakes or waits for on the way.  ipc moves in the middle, shm before the
 * first message. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "tests/support/world.h"

/* One direction; each message knows its number. */
struct stream {
    uint32_t sent, received, count, seed;
    uint32_t burst; /* so many at a time */
};

static size_t
size_of(uint32_t number)
{
    if (number % 41 == 40)
        return 300000; /* in the stream: longer than what a socket takes at once */
    return number % 7 == 6 ? 5000 + number : number % 300;
}

static int
send_some(struct node *n, void *ctx)
{
    struct stream *x = ctx;

    for (uint32_t i = 0; i < x->burst && x->sent < x->count; i++) {
        spoke_msg *m;
        int rc = spoke_msg_new(&m, size_of(x->sent));

        if (rc != 0)
            return rc;
        pattern_fill(spoke_msg_body(m), spoke_msg_size(m), x->seed + x->sent);
        if ((rc = spoke_send(n->s, m, SPOKE_DONTWAIT)) != 0) {
            spoke_msg_free(m);
            return rc == SPOKE_EAGAIN ? 0 : rc;
        }
        x->sent++;
    }
    return 0;
}

static int
receive_some(struct node *n, void *ctx)
{
    struct stream *x = ctx;
    spoke_msg *m;

    for (uint32_t i = 0; i < x->burst && spoke_recv(n->s, &m, SPOKE_DONTWAIT) == 0; i++) {
        bool right = x->received < x->count && spoke_msg_size(m) == size_of(x->received) &&
                     pattern_holds(spoke_msg_body(m), spoke_msg_size(m), x->seed + x->received);

        spoke_msg_free(m);
        if (!right)
            return SPOKE_EPROTO;
        x->received++;
    }
    return 0;
}

struct traffic {
    struct node *a, *b;
    struct stream there, back;
};

static void
exchange_some(struct traffic *x)
{
    cr_assert_eq(node_run(x->a, send_some, &x->there), 0);
    cr_assert_eq(node_run(x->b, send_some, &x->back), 0);
    cr_assert_eq(node_run(x->b, receive_some, &x->there), 0, "there, after %u", x->there.received);
    cr_assert_eq(node_run(x->a, receive_some, &x->back), 0, "back, after %u", x->back.received);
}

static bool
all_is_there(void *ctx)
{
    struct traffic *x = ctx;

    exchange_some(x);
    return x->there.received == x->there.count && x->back.received == x->back.count;
}

static bool
both_have_moved(void *ctx)
{
    struct traffic *x = ctx;

    return node_stats(x->a).pipes_shared == 1 && node_stats(x->b).pipes_shared == 1;
}

/* Two sockets that have something to say before they meet. */
static struct traffic
set_traffic(struct world *w, uint32_t count, uint32_t burst)
{
    struct traffic x = {.a = world_add(w, SPOKE_PAIR),
                        .b = world_add(w, SPOKE_PAIR),
                        .there = {.count = count, .seed = burst, .burst = burst},
                        .back = {.count = count, .seed = burst + 1000, .burst = 1 + burst / 2}};
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_run(x.a, send_some, &x.there), 0);
    cr_assert_eq(node_run(x.b, send_some, &x.back), 0);
    cr_assert_eq(node_listen(x.a, url, NULL, 0), 0);
    cr_assert_eq(node_dial(x.b, url, NULL, 0), 0);
    return x;
}

static void
end_traffic(struct traffic *x)
{
    struct spoke_stats a = node_stats(x->a), b = node_stats(x->b);

    cr_assert_eq(a.messages_received, x->back.count);
    cr_assert_eq(b.messages_received, x->there.count);
    cr_assert_eq(a.pipes_attached, 1, "the same connection all the time");
    cr_assert_eq(b.pipes_attached, 1);
    cr_assert_eq(node_close(x->a, NULL), 0);
    cr_assert_eq(node_close(x->b, NULL), 0);
    x->a->s = x->b->s = NULL;
}

static bool
moves(void)
{
    const char *when = getenv("SPOKE_UPGRADE");

    return when == NULL || strcmp(when, "off") != 0;
}

WORLD_TEST(moving, loses_nothing_under_traffic, world_cases_files)
{
    static const uint32_t bursts[] = {1, 2, 3, 5, 8, 13, 21, 34, 60, 100};
    struct world *w = world_open(c);

    for (size_t i = 0; i < sizeof bursts / sizeof bursts[0]; i++) {
        struct traffic x = set_traffic(w, 300, bursts[i]);

        cr_assert(world_until(w, all_is_there, &x, WORLD_PATIENCE), "%u and %u have come",
                  x.there.received, x.back.received);
        if (moves())
            cr_assert(world_until(w, both_have_moved, &x, WORLD_PATIENCE));
        end_traffic(&x);
    }
    world_close(w);
}

static int
nap(struct node *n, void *ctx)
{
    const struct timespec pause = {.tv_nsec = 3 * 1000 * 1000};

    (void)n, (void)ctx;
    nanosleep(&pause, NULL);
    return 0;
}

/* While one end does nothing the other one agrees, moves, and goes on. */
WORLD_TEST(moving, waits_for_an_end_that_is_slow, world_cases_files)
{
    struct world *w = world_open(c);

    for (int slow = 0; slow < 2; slow++) {
        struct traffic x = set_traffic(w, 150, 4);

        for (int i = 0; i < 60; i++) {
            cr_assert_eq(node_run(slow == 0 ? x.a : x.b, nap, NULL), 0);
            exchange_some(&x);
        }
        cr_assert(world_until(w, all_is_there, &x, WORLD_PATIENCE), "%u and %u have come",
                  x.there.received, x.back.received);
        end_traffic(&x);
    }
    world_close(w);
}

/* ---- many at once ---- */

#define SENDERS 20
#define EACH    100

struct crowd {
    struct node *pull, *push[SENDERS];
    uint32_t sent[SENDERS], received[SENDERS];
    uint32_t total;
};

struct turn {
    struct crowd *crowd;
    uint32_t who;
};

/* The first word says who, the second one which. */
static int
send_numbered(struct node *n, void *ctx)
{
    struct turn *turn = ctx;
    uint32_t *sent = &turn->crowd->sent[turn->who];

    for (int i = 0; i < 7 && *sent < EACH; i++) {
        uint32_t words[2] = {turn->who, *sent};
        spoke_msg *m;
        int rc = spoke_msg_new(&m, sizeof words + (*sent % 9 == 8 ? 20000 : *sent));

        if (rc != 0)
            return rc;
        memset(spoke_msg_body(m), (int)turn->who, spoke_msg_size(m));
        memcpy(spoke_msg_body(m), words, sizeof words);
        if ((rc = spoke_send(n->s, m, SPOKE_DONTWAIT)) != 0) {
            spoke_msg_free(m);
            return rc == SPOKE_EAGAIN ? 0 : rc;
        }
        ++*sent;
    }
    return 0;
}

static int
receive_numbered(struct node *n, void *ctx)
{
    struct crowd *crowd = ctx;
    uint32_t words[2];
    spoke_msg *m;

    while (spoke_recv(n->s, &m, SPOKE_DONTWAIT) == 0) {
        size_t size = spoke_msg_size(m);
        const uint8_t *body = spoke_msg_body(m);

        memcpy(words, body, sizeof words);
        bool right = words[0] < SENDERS && words[1] == crowd->received[words[0]] &&
                     size == sizeof words + (words[1] % 9 == 8 ? 20000 : words[1]) &&
                     (size == sizeof words || body[size - 1] == words[0]);

        spoke_msg_free(m);
        if (!right)
            return SPOKE_EPROTO;
        crowd->received[words[0]]++;
        crowd->total++;
    }
    return 0;
}

static bool
all_have_come(void *ctx)
{
    struct crowd *crowd = ctx;

    for (uint32_t i = 0; i < SENDERS; i++) {
        struct turn turn = {crowd, i};
        cr_assert_eq(node_run(crowd->push[i], send_numbered, &turn), 0);
    }
    cr_assert_eq(node_run(crowd->pull, receive_numbered, crowd), 0, "after %u", crowd->total);
    return crowd->total == SENDERS * EACH;
}

WORLD_TEST(moving, many_connections_at_once, world_cases_files)
{
    static struct crowd crowd;
    struct world *w = world_open(c);
    char url[ENDPOINT_MAX];

    crowd.pull = world_add(w, SPOKE_PULL);
    world_url(w, url);
    cr_assert_eq(node_listen(crowd.pull, url, NULL, 0), 0);
    for (int i = 0; i < SENDERS; i++) {
        crowd.push[i] = world_add(w, SPOKE_PUSH);
        cr_assert_eq(node_dial(crowd.push[i], url, NULL, 0), 0);
    }
    cr_assert(world_until(w, all_have_come, &crowd, WORLD_PATIENCE), "%u have come", crowd.total);
    for (int i = 0; i < SENDERS; i++)
        cr_assert_eq(crowd.received[i], EACH);
    if (moves() && c->transport == SHM)
        cr_assert_eq(node_stats(crowd.pull).pipes_shared, SENDERS);
    world_close(w);
}

/* ---- where there is none ---- */

static bool
has_failed(void *ctx)
{
    return node_stats(ctx).dials_failed > 0;
}

/* Simulated machines share no memory: shm says so, and closes the connection. */
Test(moving, shm_is_not_to_be_had_in_a_simulated_world)
{
    struct world *w = world_open(&(struct world_case){SHM, SIM});
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    world_url(w, url);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(node_dial(b, url, &d, 0), 0);
    cr_assert(world_until(w, has_failed, b, WORLD_PATIENCE));
    int error = node_dialer_stats(b, d).last_error;
    cr_assert_eq(error, SPOKE_ENOTSUP, "%s", spoke_error_name(error));
    cr_assert_eq(node_stats(a).pipes_attached, 0);
    cr_assert_eq(node_stats(b).pipes_attached, 0);
    world_close(w);
}
