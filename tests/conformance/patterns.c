/* SPDX-License-Identifier: MIT */
/* The patterns that go one way, on every transport and in every mode: everything arrives, whole and
 * in order, at whom it is for. */
#include "tests/support/world.h"

#define NODES 3
#define ROUND 20

static size_t
size_of(uint32_t i)
{
    static const size_t sizes[] = {0, 1, 64, 128, 129, 5000, 100000};

    return sizes[i % (sizeof sizes / sizeof sizes[0])];
}

/* Messages go by turns, in the order in which the pullers came. */
WORLD_TEST(patterns, push_shares_out, world_cases)
{
    struct world *w = world_open(c);
    struct node *push = world_add(w, SPOKE_PUSH), *pulls[NODES];

    for (int i = 0; i < NODES; i++) {
        pulls[i] = world_add(w, SPOKE_PULL);
        world_connect(w, push, pulls[i]);
    }
    for (uint32_t i = 0; i < 5 * ROUND; i++) {
        cr_assert_eq(node_send_pattern(push, size_of(i), i, 0), 0, "message %u", i);
        int rc = node_expect(pulls[i % NODES], size_of(i), i);
        cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
    }
    world_close(w);
}

WORLD_TEST(patterns, pull_gathers, world_cases)
{
    struct world *w = world_open(c);
    struct node *pull = world_add(w, SPOKE_PULL), *pushes[NODES];

    for (int i = 0; i < NODES; i++) {
        pushes[i] = world_add(w, SPOKE_PUSH);
        world_connect(w, pull, pushes[i]);
    }
    for (uint32_t i = 0; i < 5 * ROUND; i++) {
        cr_assert_eq(node_send_pattern(pushes[i % NODES], size_of(i), i, 0), 0, "message %u", i);
        int rc = node_expect(pull, size_of(i), i);
        cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
    }
    world_close(w);
}

WORLD_TEST(patterns, pub_tells_every_sub, world_cases)
{
    struct world *w = world_open(c);
    struct node *pub = world_add(w, SPOKE_PUB), *subs[NODES];

    for (int i = 0; i < NODES; i++) {
        subs[i] = world_add(w, SPOKE_SUB);
        cr_assert_eq(node_set(subs[i], SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, "", 0), 0);
        world_connect(w, pub, subs[i]);
    }
    for (uint32_t first = 0; first < 5 * ROUND; first += ROUND) {
        for (uint32_t i = first; i < first + ROUND; i++)
            cr_assert_eq(node_send_pattern(pub, size_of(i), i, 0), 0, "message %u", i);
        for (int n = 0; n < NODES; n++) {
            for (uint32_t i = first; i < first + ROUND; i++) {
                int rc = node_expect(subs[n], size_of(i), i);
                cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
            }
        }
    }
    world_close(w);
}

/* Each hears its own topic: the first byte. */
WORLD_TEST(patterns, sub_hears_its_topic, world_cases)
{
    struct world *w = world_open(c);
    struct node *pub = world_add(w, SPOKE_PUB), *subs[NODES];
    char text[2] = "a";
    size_t size;

    for (int i = 0; i < NODES; i++) {
        subs[i] = world_add(w, SPOKE_SUB);
        text[0] = (char)('a' + i);
        cr_assert_eq(node_set(subs[i], SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, text, 1), 0);
        world_connect(w, pub, subs[i]);
    }
    for (int i = 0; i < ROUND * NODES; i++) {
        char sent[2] = {(char)('a' + i % NODES), (char)i};
        cr_assert_eq(node_send_bytes(pub, sent, sizeof sent, 0), 0);
    }
    for (int i = 0; i < ROUND * NODES; i++) {
        size = sizeof text;
        cr_assert_eq(node_recv_bytes(subs[i % NODES], text, &size, 0), 0);
        cr_assert_eq(size, 2);
        cr_assert_eq(text[0], 'a' + i % NODES);
        cr_assert_eq(text[1], i);
    }
    for (int i = 0; i < NODES; i++) {
        size = sizeof text;
        cr_assert_eq(node_recv_bytes(subs[i], text, &size, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    }
    world_close(w);
}
