/* SPDX-License-Identifier: MIT */
/* The patterns in which everybody speaks, on every transport and in every mode: surveys and their
 * answers, a bus, a star, a pair of version 1. */
#include "tests/support/world.h"

#define NODES 3
#define ROUND 20

static size_t
size_of(uint32_t i)
{
    static const size_t sizes[] = {0, 1, 64, 128, 129, 5000, 100000};

    return sizes[i % (sizeof sizes / sizeof sizes[0])];
}

static void
send_one(struct node *from, uint32_t i)
{
    int rc = node_send_pattern(from, size_of(i), i, 0);

    cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
}

/* The next one that it receives. */
static void
expect_one(struct node *to, uint32_t i)
{
    int rc = node_expect(to, size_of(i), i);

    cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
}

static void
expect_nothing(struct node *n)
{
    spoke_msg *m;

    cr_assert_eq(node_recv(n, &m, SPOKE_DONTWAIT), SPOKE_EAGAIN);
}

/* ---- SURVEYOR and RESPONDENT ---- */

static struct node *
open_survey(struct world *w, struct node *respondents[NODES])
{
    struct node *surveyor = world_add(w, SPOKE_SURVEYOR);

    cr_assert_eq(node_set_duration(surveyor, SPOKE_OPT_SURVEY_TIME, WORLD_PATIENCE), 0);
    for (int i = 0; i < NODES; i++) {
        respondents[i] = world_add(w, SPOKE_RESPONDENT);
        world_connect(w, surveyor, respondents[i]);
    }
    return surveyor;
}

/* One answers after the other, so that the order is known. */
WORLD_TEST(both_ways, a_survey_is_answered_by_all, world_cases)
{
    struct world *w = world_open(c);
    struct node *respondents[NODES], *surveyor = open_survey(w, respondents);

    for (uint32_t i = 0; i < 2 * ROUND; i++) {
        send_one(surveyor, i);
        for (uint32_t n = 0; n < NODES; n++)
            expect_one(respondents[n], i);
        for (uint32_t n = 0; n < NODES; n++) {
            send_one(respondents[n], i + n + 1);
            expect_one(surveyor, i + n + 1);
        }
    }
    world_close(w);
}

/* The wait of a receive would leave the survey as it is. */
WORLD_TEST(both_ways, a_survey_ends_in_time, world_cases)
{
    const spoke_ns time = 20 * SPOKE_MS;
    struct world *w = world_open(c);
    struct node *respondents[NODES], *surveyor = open_survey(w, respondents);
    spoke_msg *m;

    cr_assert_eq(node_recv(surveyor, &m, 0), SPOKE_ESTATE);
    cr_assert_eq(node_set_duration(surveyor, SPOKE_OPT_SURVEY_TIME, time), 0);
    spoke_ns begin = world_now(w);
    send_one(surveyor, 0);
    cr_assert_eq(node_recv(surveyor, &m, 0), SPOKE_ETIMEDOUT);
    cr_assert_geq(world_now(w) - begin, time);
    cr_assert_eq(node_recv(surveyor, &m, 0), SPOKE_ESTATE, "it is over, and that is told once");
    world_close(w);
}

static bool
has_dropped_stale(void *ctx)
{
    return node_stats(ctx).dropped_stale > 0;
}

WORLD_TEST(both_ways, an_answer_to_the_survey_before_is_dropped, world_cases)
{
    struct world *w = world_open(c);
    struct node *respondents[NODES], *surveyor = open_survey(w, respondents);

    send_one(surveyor, 1);
    expect_one(respondents[0], 1);
    send_one(surveyor, 2);
    send_one(respondents[0], 3);
    cr_assert(world_until(w, has_dropped_stale, surveyor, WORLD_PATIENCE));
    expect_one(respondents[0], 2);
    send_one(respondents[0], 4);
    expect_one(surveyor, 4);
    world_close(w);
}

/* ---- BUS ---- */

/* Everybody is everybody's neighbour; what came back would be taken for the next one's. */
WORLD_TEST(both_ways, a_bus_reaches_all_but_the_sender, world_cases)
{
    struct world *w = world_open(c);
    struct node *nodes[NODES];

    for (int i = 0; i < NODES; i++) {
        nodes[i] = world_add(w, SPOKE_BUS);
        for (int other = 0; other < i; other++)
            world_connect(w, nodes[other], nodes[i]);
    }
    for (uint32_t i = 0; i < 5 * ROUND; i++) {
        send_one(nodes[i % NODES], i);
        for (uint32_t other = 1; other < NODES; other++)
            expect_one(nodes[(i + other) % NODES], i);
    }
    world_settle(w);
    for (int i = 0; i < NODES; i++)
        expect_nothing(nodes[i]);
    world_close(w);
}

WORLD_TEST(both_ways, a_bus_passes_nothing_on, world_cases)
{
    struct world *w = world_open(c);
    struct node *ends[2] = {world_add(w, SPOKE_BUS), world_add(w, SPOKE_BUS)},
                *middle = world_add(w, SPOKE_BUS);

    world_connect(w, middle, ends[0]);
    world_connect(w, middle, ends[1]);
    for (uint32_t i = 0; i < ROUND; i++) {
        send_one(ends[i % 2], i);
        expect_one(middle, i);
    }
    send_one(middle, ROUND); /* what was passed on would come before this */
    for (int i = 0; i < 2; i++)
        expect_one(ends[i], ROUND);
    world_close(w);
}

/* ---- STAR ---- */

/* The leaves and the hub speak by turns. */
WORLD_TEST(both_ways, a_star_passes_on_and_does_not_echo, world_cases)
{
    struct world *w = world_open(c);
    struct node *nodes[NODES + 1];

    nodes[0] = world_add(w, SPOKE_STAR);
    for (int i = 1; i <= NODES; i++) {
        nodes[i] = world_add(w, SPOKE_STAR);
        world_connect(w, nodes[0], nodes[i]);
    }
    for (uint32_t i = 0; i < 5 * ROUND; i++) {
        send_one(nodes[i % (NODES + 1)], i);
        for (uint32_t other = 1; other <= NODES; other++)
            expect_one(nodes[(i + other) % (NODES + 1)], i);
    }
    world_settle(w);
    for (int i = 0; i <= NODES; i++)
        expect_nothing(nodes[i]);
    world_close(w);
}

/* ---- PAIR1 ---- */

WORLD_TEST(both_ways, a_pair_exchanges_messages, world_cases)
{
    struct world *w = world_open(c);
    struct node *ends[2] = {world_add(w, SPOKE_PAIR1), world_add(w, SPOKE_PAIR1)};

    world_connect(w, ends[0], ends[1]);
    for (uint32_t first = 0; first < 5 * ROUND; first += ROUND) {
        for (uint32_t i = first; i < first + ROUND; i++)
            send_one(ends[i % 2], i);
        for (uint32_t i = first; i < first + ROUND; i++)
            expect_one(ends[(i + 1) % 2], i);
    }
    world_close(w);
}

WORLD_TEST(both_ways, a_pair_turns_the_second_away_while_it_has_the_first, world_cases)
{
    struct world *w = world_open(c);
    struct node *pair = world_add(w, SPOKE_PAIR1), *first = world_add(w, SPOKE_PAIR1),
                *second = world_add(w, SPOKE_PAIR1);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_listen(pair, url, NULL, 0), 0);
    cr_assert_eq(node_dial(first, url, NULL, 0), 0);
    world_wait_attached(w, pair, 1);
    cr_assert_eq(node_dial(second, url, NULL, 0), 0);
    world_wait_refused(w, pair);
    for (uint32_t i = 0; i < ROUND; i++) {
        send_one(i % 2 == 0 ? pair : first, i);
        expect_one(i % 2 == 0 ? first : pair, i);
    }
    cr_assert_eq(node_close(first, NULL), 0);
    first->s = NULL;
    world_wait_attached(w, pair, 2);
    send_one(pair, 1);
    expect_one(second, 1);
    send_one(second, 2);
    expect_one(pair, 2);
    world_close(w);
}
