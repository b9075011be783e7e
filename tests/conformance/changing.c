/* SPDX-License-Identifier: MIT */
/* Options that another thread changes while messages flow: whatever they are, they hold for what
 * comes after, and no message is lost, damaged or doubled for it. */
#include "tests/support/world.h"

#include <string.h>

#define ROUNDS  TEST_REPEATS(4000)
#define LONGEST 3000
#define DIALERS 6

static size_t
size_of(uint32_t i)
{
    static const size_t sizes[] = {4, 60, 300, LONGEST};

    return sizes[i % (sizeof sizes / sizeof sizes[0])];
}

/* ---- a thread that changes options ---- */

struct change {
    const char *name;
    enum spoke_type type;
    int expected; /* what such a set gives */
    int64_t values[5];
    int count;
};

/* Of every pattern that is tried here, none of which loses anything by its limits. */
static const struct change common[] = {
    {SPOKE_OPT_SEND_QUEUE, SPOKE_INT, SPOKE_ETOOLATE, {0, 1, 128, 5000}, 4},
    {SPOKE_OPT_RECV_QUEUE, SPOKE_INT, SPOKE_ETOOLATE, {0, 1, 128, 5000}, 4},
    {SPOKE_OPT_SEND_QUEUE_BYTES, SPOKE_SIZE, 0, {1, 500, 8 << 20}, 3},
    {SPOKE_OPT_RECV_QUEUE_BYTES, SPOKE_SIZE, 0, {1, 500, 8 << 20}, 3},
    {SPOKE_OPT_MAX_RECV_SIZE, SPOKE_SIZE, 0, {LONGEST + 100, 0, 1 << 20}, 3},
    {SPOKE_OPT_SEND_TIMEOUT, SPOKE_DURATION, 0, {0, 1, SPOKE_MS, WORLD_PATIENCE}, 4},
    {SPOKE_OPT_RECV_TIMEOUT, SPOKE_DURATION, 0, {0, 1, SPOKE_MS, WORLD_PATIENCE}, 4},
    {SPOKE_OPT_SEND_PRIORITY, SPOKE_INT, 0, {1, 2, 8, 16}, 4},
    {SPOKE_OPT_RECV_PRIORITY, SPOKE_INT, 0, {1, 2, 8, 16}, 4},
    {SPOKE_OPT_LINGER, SPOKE_DURATION, 0, {0, SPOKE_MS, WORLD_PATIENCE}, 3},
};

static const struct change hops[] = {
    {SPOKE_OPT_TTL, SPOKE_INT, 0, {1, 2, 8, 255}, 4},
};

static const struct change losses[] = {
    {SPOKE_OPT_LOSS, SPOKE_INT, 0, {0, 1, 2, 3, 4}, 5},
    {SPOKE_OPT_TOPIC_SIZE, SPOKE_SIZE, 0, {0, 1, 4, 1000}, 4},
    {SPOKE_OPT_TOPIC_END, SPOKE_INT, 0, {-1, 0, 255}, 3},
};

/* Of a subscriber.  SUBSCRIBE and UNSUBSCRIBE come by turns. */
static const struct change listening[] = {
    {SPOKE_OPT_LOSS, SPOKE_INT, 0, {0, 1, 2}, 3},
    {SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, 0, {0}, 1},
    {SPOKE_OPT_UNSUBSCRIBE, SPOKE_BYTES, 0, {0}, 1},
};

#define CHANGES(list) list, (int)(sizeof list / sizeof list[0])

struct changer {
    pthread_t thread;
    atomic_bool quit;
    const struct change *changes[4];
    spoke_socket *of[4];
    int counts[4], lists;
    spoke_dialer *dialer; /* may be NULL */
    const char *url;      /* to dial again and again; may be NULL */
    const char *failed;   /* the option that gave something else … */
    int rc;               /* … and what */
};

static void
add_changes(struct changer *x, spoke_socket *s, const struct change *changes, int count)
{
    x->of[x->lists] = s;
    x->changes[x->lists] = changes;
    x->counts[x->lists++] = count;
}

static int
set_number(spoke_socket *s, const struct change *change, int64_t value)
{
    switch (change->type) {
    case SPOKE_INT: return spoke_socket_set_int(s, change->name, (int)value);
    case SPOKE_SIZE: return spoke_socket_set_size(s, change->name, (size_t)value);
    case SPOKE_DURATION: return spoke_socket_set_duration(s, change->name, value);
    default: return spoke_socket_set(s, change->name, SPOKE_BYTES, "another", 7);
    }
}

static void
note_result(struct changer *x, const char *name, int rc, int expected)
{
    if (rc == expected || x->failed != NULL)
        return;
    x->failed = name;
    x->rc = rc;
}

static void
change_all(struct changer *x, uint32_t round)
{
    for (int list = 0; list < x->lists; list++) {
        for (int i = 0; i < x->counts[list]; i++) {
            const struct change *change = &x->changes[list][i];
            int64_t value = change->values[(round + (uint32_t)i) % (uint32_t)change->count];

            note_result(x, change->name, set_number(x->of[list], change, value), change->expected);
        }
    }
    if (x->dialer != NULL)
        note_result(x, "the dialer's",
                    spoke_dialer_set_int(x->dialer, SPOKE_OPT_SEND_PRIORITY, 1 + (int)(round % 16)),
                    0);
}

static void *
run_changes(void *argument)
{
    const struct timespec pause = {.tv_nsec = 20 * 1000};
    struct changer *x = argument;

    for (uint32_t round = 0; !atomic_load(&x->quit); round++) {
        change_all(x, round);
        if (x->url != NULL && round < DIALERS)
            note_result(x, "dial", spoke_dial(x->of[0], x->url, NULL, 0), 0);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void
start_changes(struct changer *x)
{
    cr_assert_eq(pthread_create(&x->thread, NULL, run_changes, x), 0);
}

static void
end_changes(struct changer *x)
{
    atomic_store(&x->quit, true);
    pthread_join(x->thread, NULL);
    cr_assert_null(x->failed, "%s: %s", x->failed, spoke_error_name(x->rc));
}

/* ---- messages, whatever the timeouts are just now ---- */

static bool
is_later(int rc)
{
    return rc == SPOKE_ETIMEDOUT || rc == SPOKE_EAGAIN;
}

static int
send_number(spoke_socket *s, uint32_t number)
{
    spoke_msg *m;
    int rc = spoke_msg_new(&m, size_of(number));

    if (rc != 0)
        return rc;
    pattern_fill(spoke_msg_body(m), size_of(number), number);
    memcpy(spoke_msg_body(m), &number, sizeof number);
    while (is_later(rc = spoke_send(s, m, 0)))
        ;
    if (rc != 0)
        spoke_msg_free(m);
    return rc;
}

/* The next one that comes. */
static uint32_t
expect_any(spoke_socket *s)
{
    uint8_t expected[LONGEST];
    uint32_t number;
    spoke_msg *m;
    int rc;

    while (is_later(rc = spoke_recv(s, &m, 0)))
        ;
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_geq(spoke_msg_size(m), sizeof number);
    memcpy(&number, spoke_msg_body(m), sizeof number);
    cr_assert_eq(spoke_msg_size(m), size_of(number), "message %u", number);
    pattern_fill(expected, sizeof expected, number);
    memcpy(expected, &number, sizeof number);
    cr_assert_eq(memcmp(spoke_msg_body(m), expected, size_of(number)), 0, "message %u", number);
    spoke_msg_free(m);
    return number;
}

struct sender {
    pthread_t thread;
    spoke_socket *s;
    int rc;
};

static void *
send_all(void *argument)
{
    struct sender *sender = argument;

    for (uint32_t i = 0; i < ROUNDS && sender->rc == 0; i++)
        sender->rc = send_number(sender->s, i);
    return NULL;
}

static void
start_sender(struct sender *sender, spoke_socket *s)
{
    *sender = (struct sender){.s = s};
    cr_assert_eq(pthread_create(&sender->thread, NULL, send_all, sender), 0);
}

static void
end_sender(struct sender *sender)
{
    pthread_join(sender->thread, NULL);
    cr_assert_eq(sender->rc, 0, "%s", spoke_error_name(sender->rc));
}

static void
expect_no_loss(struct node *n)
{
    struct spoke_stats stats = node_stats(n);

    cr_assert_eq(stats.dropped_lost + stats.dropped_peer_full + stats.dropped_recv_full +
                     stats.dropped_conflated + stats.dropped_expired + stats.dropped_ttl +
                     stats.dropped_stale + stats.garbled + stats.oversized +
                     stats.disconnected_slow + stats.pipes_closed,
                 0);
}

/* ---- one way ---- */

/* Meanwhile further pipes come, with the priorities of the moment. */
WORLD_TEST(changing, nothing_is_lost_between_push_and_pull, world_cases_shared)
{
    static bool seen[ROUNDS];
    struct world *w = world_open(c);
    struct node *push = world_add(w, SPOKE_PUSH), *pull = world_add(w, SPOKE_PULL);
    struct changer changer = {.quit = false};
    struct sender sender;
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_listen(pull, url, NULL, 0), 0);
    cr_assert_eq(node_dial(push, url, &changer.dialer, SPOKE_WAIT_FIRST), 0);
    changer.url = url;
    add_changes(&changer, push->s, CHANGES(common));
    add_changes(&changer, pull->s, CHANGES(common));
    start_changes(&changer);
    start_sender(&sender, push->s);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        uint32_t number = expect_any(pull->s);
        cr_assert_lt(number, ROUNDS);
        cr_assert(!seen[number], "message %u came twice", number);
        seen[number] = true;
    }
    end_sender(&sender);
    end_changes(&changer);
    expect_no_loss(push);
    expect_no_loss(pull);
    world_close(w);
}

/* What was to be lost when the connection was made is none: that stays so, whatever later ones
 * would lose. */
WORLD_TEST(changing, a_subscriber_that_is_waited_for_gets_all_in_order, world_cases_shared)
{
    struct world *w = world_open(c);
    struct node *pub = world_add(w, SPOKE_PUB), *sub = world_add(w, SPOKE_SUB);
    struct changer changer = {.quit = false};
    struct sender sender;

    cr_assert_eq(node_set_int(pub, SPOKE_OPT_LOSS, SPOKE_LOSS_BLOCK), 0);
    cr_assert_eq(node_set_int(sub, SPOKE_OPT_LOSS, SPOKE_LOSS_BLOCK), 0);
    cr_assert_eq(node_set(sub, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, "", 0), 0);
    world_connect(w, pub, sub);
    add_changes(&changer, pub->s, CHANGES(common));
    add_changes(&changer, sub->s, CHANGES(common));
    add_changes(&changer, pub->s, CHANGES(losses));
    add_changes(&changer, sub->s, CHANGES(listening));
    start_changes(&changer);
    start_sender(&sender, pub->s);
    for (uint32_t i = 0; i < ROUNDS; i++)
        cr_assert_eq(expect_any(sub->s), i);
    end_sender(&sender);
    end_changes(&changer);
    expect_no_loss(pub);
    expect_no_loss(sub);
    world_close(w);
}

/* ---- to and fro ---- */

static void
converse(const struct world_case *c, int pattern, int peer)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, pattern), *b = world_add(w, peer);
    struct changer changer = {.quit = false};

    if (pattern == SPOKE_SURVEYOR)
        cr_assert_eq(node_set_duration(a, SPOKE_OPT_SURVEY_TIME, SPOKE_FOREVER), 0);
    world_connect(w, b, a);
    add_changes(&changer, a->s, CHANGES(common));
    add_changes(&changer, b->s, CHANGES(common));
    if (pattern != SPOKE_REQ)
        add_changes(&changer, a->s, CHANGES(hops));
    add_changes(&changer, b->s, CHANGES(hops));
    start_changes(&changer);
    for (uint32_t i = 0; i < ROUNDS / 4; i++) {
        cr_assert_eq(send_number(a->s, i), 0);
        cr_assert_eq(expect_any(b->s), i);
        cr_assert_eq(send_number(b->s, i + 1), 0);
        cr_assert_eq(expect_any(a->s), i + 1);
    }
    end_changes(&changer);
    expect_no_loss(a);
    expect_no_loss(b);
    world_close(w);
}

WORLD_TEST(changing, requests_are_answered, world_cases_shared)
{
    converse(c, SPOKE_REQ, SPOKE_REP);
}

WORLD_TEST(changing, surveys_are_answered, world_cases_shared)
{
    converse(c, SPOKE_SURVEYOR, SPOKE_RESPONDENT);
}

WORLD_TEST(changing, members_of_a_star_hear_each_other, world_cases_shared)
{
    converse(c, SPOKE_STAR, SPOKE_STAR);
}

WORLD_TEST(changing, the_ends_of_a_pair_hear_each_other, world_cases_shared)
{
    converse(c, SPOKE_PAIR1, SPOKE_PAIR1);
}
