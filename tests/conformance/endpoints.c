/* SPDX-License-Identifier: MIT */
/* What a dialer or listener tells of itself: its counters, and how it is doing. */
#include <pthread.h>
#include <string.h>

#include "tests/support/world.h"

#define LONG (1000 * SPOKE_SECOND) /* no test takes so long */

/* Whom world_until() waits for. */
struct watched {
    struct node *n;
    spoke_dialer *d;
    spoke_listener *l;
    uint64_t count;
};

static bool
has_failed(void *ctx)
{
    struct watched *watched = ctx;

    return node_dialer_stats(watched->n, watched->d).dials_failed >= watched->count;
}

static bool
has_pipe(void *ctx)
{
    struct watched *watched = ctx;

    return node_dialer_stats(watched->n, watched->d).pipe != 0;
}

static bool
has_pipes(void *ctx)
{
    struct watched *watched = ctx;

    return node_listener_stats(watched->n, watched->l).pipes_current == watched->count;
}

static bool
has_refused(void *ctx)
{
    struct watched *watched = ctx;

    return node_listener_stats(watched->n, watched->l).refused >= watched->count;
}

static bool
has_bad_handshake(void *ctx)
{
    struct watched *watched = ctx;

    return watched->l != NULL ? node_listener_stats(watched->n, watched->l).handshakes_failed > 0
                              : node_dialer_stats(watched->n, watched->d).handshakes_failed > 0;
}

static bool
last_error_is(void *ctx)
{
    struct watched *watched = ctx;

    return node_listener_stats(watched->n, watched->l).last_error == -(int)watched->count;
}

static void
await(struct world *w, bool (*done)(void *ctx), struct watched watched)
{
    cr_assert(world_until(w, done, &watched, WORLD_PATIENCE));
}

/* A peer of `n` at a listener of its own. */
static void
add_peer(struct world *w, struct node *n, struct node *peer, spoke_listener **l, spoke_dialer **d)
{
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_listen(n, url, l, 0), 0);
    cr_assert_eq(node_dial(peer, url, d, 0), 0);
    await(w, has_pipe, (struct watched){.n = peer, .d = *d});
    await(w, has_pipes, (struct watched){.n = n, .l = *l, .count = 1});
}

WORLD_TEST(endpoints, each_counts_what_is_its_own, world_cases)
{
    struct world *w = world_open(c);
    struct node *pull = world_add(w, SPOKE_PULL), *push[2];
    spoke_listener *l[2];
    spoke_dialer *d[2];

    for (int i = 0; i < 2; i++) {
        push[i] = world_add(w, SPOKE_PUSH);
        cr_assert_eq(node_set_duration(push[i], SPOKE_OPT_RECONNECT, 70 * SPOKE_MS), 0);
        add_peer(w, pull, push[i], &l[i], &d[i]);
    }
    for (uint32_t i = 0; i < 8; i++) {
        cr_assert_eq(node_send_pattern(push[i < 3 ? 0 : 1], 10, i, 0), 0);
        cr_assert_eq(node_expect(pull, 10, i), 0);
    }
    for (int i = 0; i < 2; i++) {
        struct spoke_listener_stats here = node_listener_stats(pull, l[i]);
        struct spoke_dialer_stats there = node_dialer_stats(push[i], d[i]);
        uint64_t messages = i == 0 ? 3 : 5;
        cr_assert_eq(here.accepts, 1);
        cr_assert_eq(here.pipes_attached, 1);
        cr_assert_eq(here.pipes_current, 1);
        cr_assert_eq(here.messages_received, messages);
        cr_assert_eq(here.messages_sent, 0);
        cr_assert_eq(here.accepts_failed + here.handshakes_failed + here.refused, 0);
        cr_assert_eq(here.last_error, 0);
        cr_assert_eq(there.dials, 1);
        cr_assert_eq(there.connects, 1);
        cr_assert_eq(there.pipes_attached, 1);
        cr_assert_eq(there.messages_sent, messages);
        cr_assert_eq(there.messages_received, 0);
        cr_assert_eq(there.dials_failed + there.handshakes_failed + there.refused, 0);
        cr_assert_eq(there.last_error, 0);
        cr_assert_geq(there.since_dial_ns, 0);
        cr_assert_eq(there.until_dial_ns, -1, "it has a pipe");
        cr_assert_eq(there.backoff_ns, 70 * SPOKE_MS);
    }
    cr_assert_eq(node_stats(pull).accepts, 2, "the socket has the sum");
    cr_assert_eq(node_stats(pull).pipes_attached, 2);
    world_close(w);
}

WORLD_TEST(endpoints, pipes_that_are_gone_still_count, world_cases)
{
    struct world *w = world_open(c);
    struct node *pull = world_add(w, SPOKE_PULL), *push = world_add(w, SPOKE_PUSH);
    spoke_listener *l;
    spoke_dialer *d;

    cr_assert_eq(node_set_duration(push, SPOKE_OPT_RECONNECT, 10 * SPOKE_MS), 0);
    add_peer(w, pull, push, &l, &d);
    for (uint32_t i = 0; i < 3; i++) {
        spoke_pipe_id before = node_dialer_stats(push, d).pipe;
        cr_assert_eq(node_send_pattern(push, 10, i, 0), 0);
        cr_assert_eq(node_expect(pull, 10, i), 0);
        cr_assert_eq(node_pipe_close(push, before), 0);
        do {
            await(w, has_pipe, (struct watched){.n = push, .d = d});
        } while (node_dialer_stats(push, d).pipe == before);
    }
    cr_assert_eq(node_dialer_stats(push, d).messages_sent, 3);
    cr_assert_eq(node_dialer_stats(push, d).pipes_attached, 4);
    cr_assert_eq(node_dialer_stats(push, d).connects, 4);
    await(w, has_pipes, (struct watched){.n = pull, .l = l, .count = 1});
    cr_assert_eq(node_listener_stats(pull, l).messages_received, 3);
    cr_assert_eq(node_dialer_close(push, d), 0);
    await(w, has_pipes, (struct watched){.n = pull, .l = l, .count = 0});
    cr_assert_eq(node_listener_stats(pull, l).messages_received, 3);
    cr_assert_eq(node_listener_stats(pull, l).pipes_attached, 4);
    world_close(w);
}

WORLD_TEST(endpoints, a_dialer_tells_what_it_waits_for, world_cases_streams)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    struct spoke_dialer_stats stats;
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    world_url(w, url);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECONNECT, LONG), 0);
    cr_assert_eq(node_dial(a, url, &d, 0), 0);
    await(w, has_failed, (struct watched){.n = a, .d = d, .count = 1});
    stats = node_dialer_stats(a, d);
    cr_assert_eq(stats.dials, 1);
    cr_assert_eq(stats.connects, 0);
    cr_assert_eq(stats.pipes_attached, 0);
    cr_assert_eq(stats.pipe, 0);
    cr_assert_eq(stats.last_error, SPOKE_ECONNREFUSED, "%s", spoke_error_name(stats.last_error));
    cr_assert_geq(stats.since_dial_ns, 0);
    cr_assert(stats.until_dial_ns > 0 && stats.until_dial_ns <= LONG, "%lld",
              (long long)stats.until_dial_ns);
    cr_assert_eq(stats.backoff_ns, LONG);
    world_pass(w, 5 * SPOKE_MS);
    struct spoke_dialer_stats later = node_dialer_stats(a, d);
    cr_assert_geq(later.since_dial_ns, stats.since_dial_ns + 5 * SPOKE_MS);
    cr_assert_leq(later.until_dial_ns, stats.until_dial_ns - 5 * SPOKE_MS);
    world_close(w);
}

WORLD_TEST(endpoints, a_dialer_tells_how_far_its_waits_have_grown, world_cases_streams)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct spoke_dialer_stats stats;
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    world_url(w, url);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECONNECT, 4 * SPOKE_MS), 0);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECONNECT_MAX, 30 * SPOKE_MS), 0);
    cr_assert_eq(node_dial(a, url, &d, 0), 0);
    await(w, has_failed, (struct watched){.n = a, .d = d, .count = 4});
    stats = node_dialer_stats(a, d);
    cr_assert_eq(stats.backoff_ns, 30 * SPOKE_MS, "%lld", (long long)stats.backoff_ns);
    cr_assert_geq(stats.dials, stats.dials_failed);
    cr_assert_leq(stats.dials, stats.dials_failed + 1);
    cr_assert_leq(stats.until_dial_ns, 30 * SPOKE_MS);
    cr_assert_eq(node_listen(b, url, NULL, 0), 0);
    await(w, has_pipe, (struct watched){.n = a, .d = d});
    stats = node_dialer_stats(a, d);
    cr_assert_eq(stats.last_error, 0);
    cr_assert_eq(stats.dials, stats.dials_failed + stats.pipes_attached);
    cr_assert_eq(stats.dials, node_stats(a).dials);
    cr_assert_eq(stats.dials_failed, node_stats(a).dials_failed);
    world_close(w);
}

static int
turn_away_three(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    atomic_int *left = ctx;

    (void)s;
    return event->type == SPOKE_EVENT_ATTACHING && atomic_fetch_sub(left, 1) > 0 ? SPOKE_EREFUSED
                                                                                 : 0;
}

WORLD_TEST(endpoints, who_is_turned_away_is_counted_where_that_happened, world_cases)
{
    struct world *w = world_open(c);

    for (int side = 0; side < 2; side++) {
        /* No PAIR: its listener turns a second one away by itself, while the first has not gone. */
        struct node *a = world_add(w, SPOKE_BUS), *b = world_add(w, SPOKE_BUS);
        static atomic_int left;
        spoke_listener *l;
        spoke_dialer *d;
        atomic_store(&left, 3);
        cr_assert_eq(node_set_duration(b, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
        cr_assert_eq(node_on_event(side == 0 ? a : b, turn_away_three, &left), 0);
        char url[ENDPOINT_MAX];
        world_url(w, url);
        cr_assert_eq(node_listen(a, url, &l, 0), 0);
        cr_assert_eq(node_dial(b, url, &d, 0), 0);
        while (atomic_load(&left) >= 0)
            world_pass(w, SPOKE_MS);
        await(w, has_pipe, (struct watched){.n = b, .d = d});
        struct spoke_listener_stats here = node_listener_stats(a, l);
        struct spoke_dialer_stats there = node_dialer_stats(b, d);
        cr_assert_eq(here.refused, side == 0 ? 3 : 0);
        cr_assert_eq(there.refused, side == 0 ? 0 : 3);
        cr_assert_geq(here.accepts, 4);
        cr_assert_geq(there.connects, 4);
        cr_assert_eq(node_stats(a).refused, here.refused);
        cr_assert_eq(node_stats(b).refused, there.refused);
        if (side == 0)
            cr_assert_eq(here.last_error, SPOKE_EREFUSED, "%s", spoke_error_name(here.last_error));
        else
            cr_assert_geq(there.dials_failed, 3);
    }
    world_close(w);
}

WORLD_TEST(endpoints, a_full_socket_turns_away_at_its_listener, world_cases)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *late = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];
    spoke_listener *l;

    world_url(w, url);
    cr_assert_eq(node_set_int(rep, SPOKE_OPT_MAX_PIPES, 1), 0);
    cr_assert_eq(node_listen(rep, url, &l, 0), 0);
    cr_assert_eq(node_dial(world_add(w, SPOKE_REQ), url, NULL, 0), 0);
    await(w, has_pipes, (struct watched){.n = rep, .l = l, .count = 1});
    cr_assert_eq(node_dial(late, url, NULL, 0), 0);
    await(w, has_refused, (struct watched){.n = rep, .l = l, .count = 1});
    await(w, last_error_is, (struct watched){.n = rep, .l = l, .count = -SPOKE_ELIMIT});
    cr_assert_eq(node_listener_stats(rep, l).pipes_current, 1);
    cr_assert_eq(node_listener_stats(rep, l).pipes_attached, 1);
    world_close(w);
}

WORLD_TEST(endpoints, a_failed_handshake_is_counted_at_both_ends, world_cases_streams)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *pair = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_listener *l;
    spoke_dialer *d;

    world_url(w, url);
    cr_assert_eq(node_set_duration(pair, SPOKE_OPT_RECONNECT, LONG), 0);
    cr_assert_eq(node_listen(rep, url, &l, 0), 0);
    cr_assert_eq(node_dial(pair, url, &d, 0), 0);
    await(w, has_bad_handshake, (struct watched){.n = rep, .l = l});
    await(w, last_error_is, (struct watched){.n = rep, .l = l, .count = -SPOKE_EPEER});
    await(w, has_bad_handshake, (struct watched){.n = pair, .d = d});
    await(w, has_failed, (struct watched){.n = pair, .d = d, .count = 1});
    struct spoke_listener_stats here = node_listener_stats(rep, l);
    struct spoke_dialer_stats there = node_dialer_stats(pair, d);
    cr_assert_eq(here.accepts, 1);
    cr_assert_eq(here.handshakes_failed, 1);
    cr_assert_eq(here.pipes_attached, 0);
    cr_assert_eq(there.dials, 1);
    cr_assert_eq(there.connects, 1);
    cr_assert_eq(there.handshakes_failed, 1);
    cr_assert_eq(there.pipes_attached, 0);
    cr_assert_neq(there.last_error, 0);
    world_close(w);
}

/* ---- without a world ---- */

static bool
is_all_0(const void *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (((const uint8_t *)bytes)[i] != 0)
            return false;
    return true;
}

static void
check_dialer_error(spoke_dialer *d, int expected)
{
    struct spoke_dialer_stats stats;

    memset(&stats, 0xff, sizeof stats);
    int rc = spoke_dialer_stats(d, &stats);
    cr_assert_eq(rc, expected, "%s", spoke_error_name(rc));
    cr_assert(is_all_0(&stats, sizeof stats));
}

static void
check_listener_error(spoke_listener *l, int expected)
{
    struct spoke_listener_stats stats;

    memset(&stats, 0xff, sizeof stats);
    int rc = spoke_listener_stats(l, &stats);
    cr_assert_eq(rc, expected, "%s", spoke_error_name(rc));
    cr_assert(is_all_0(&stats, sizeof stats));
}

Test(endpoints, tell_of_themselves_before_they_are_started_and_not_once_closed)
{
    char url[ENDPOINT_MAX];
    struct spoke_dialer_stats here;
    struct spoke_listener_stats there;
    spoke_socket *s;
    spoke_dialer *d;
    spoke_listener *l;
    char scheme[16];

    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, NULL), 0);
    for (int i = 0; i < 4; i++) {
        const char *name = transport_name((enum transport)i);
        endpoint_fresh(url, (enum transport)i);
        cr_assert_eq(spoke_listener_create(&l, s, url), 0);
        cr_assert_eq(spoke_dialer_create(&d, s, url), 0);
        cr_assert_eq(spoke_listener_stats(l, &there), 0);
        cr_assert_eq(there.accepts + there.accepts_failed + there.pipes_attached, 0);
        cr_assert_eq(there.pipes_current, 0);
        cr_assert_eq(there.last_error, 0);
        cr_assert_eq(spoke_dialer_stats(d, &here), 0);
        cr_assert_eq(here.dials + here.dials_failed + here.connects + here.pipes_attached, 0);
        cr_assert_eq(here.last_error, 0);
        cr_assert_eq(here.since_dial_ns, -1);
        cr_assert_eq(here.until_dial_ns, -1);
        cr_assert_eq(here.backoff_ns, 100 * SPOKE_MS);
        cr_assert_eq(spoke_dialer_get_string(d, SPOKE_OPT_SCHEME, scheme, sizeof scheme), 0);
        cr_assert_str_eq(scheme, name);
        cr_assert_eq(spoke_listener_get_string(l, SPOKE_OPT_SCHEME, scheme, sizeof scheme), 0);
        cr_assert_str_eq(scheme, name);
        cr_assert_eq(spoke_dialer_set_string(d, SPOKE_OPT_SCHEME, "ipc"), SPOKE_EREADONLY);
        cr_assert_eq(spoke_listener_set_string(l, SPOKE_OPT_SCHEME, "ipc"), SPOKE_EREADONLY);

        cr_assert_eq(spoke_dialer_stats(d, NULL), SPOKE_EINVAL);
        cr_assert_eq(spoke_listener_stats(l, NULL), SPOKE_EINVAL);
        check_dialer_error((spoke_dialer *)l, SPOKE_ECLOSED);
        check_listener_error((spoke_listener *)d, SPOKE_ECLOSED);
        check_dialer_error((spoke_dialer *)s, SPOKE_ECLOSED);
        cr_assert_eq(spoke_dialer_close(d), 0);
        cr_assert_eq(spoke_listener_close(l), 0);
        check_dialer_error(d, SPOKE_ECLOSED);
        check_listener_error(l, SPOKE_ECLOSED);
    }
    cr_assert_eq(spoke_socket_get_string(s, SPOKE_OPT_SCHEME, scheme, sizeof scheme),
                 SPOKE_EOPTION);
    cr_assert_eq(spoke_listener_create(&l, s, url), 0);
    cr_assert_eq(spoke_socket_close(s), 0);
    check_listener_error(l, SPOKE_ECLOSED);
    check_dialer_error(NULL, SPOKE_ECLOSED);
    check_listener_error(NULL, SPOKE_ECLOSED);
}

struct asked {
    spoke_listener *l;
    int result;
};

static void *
ask_from_elsewhere(void *ctx)
{
    struct asked *asked = ctx;
    struct spoke_listener_stats stats;

    asked->result = spoke_listener_stats(asked->l, &stats);
    return NULL;
}

Test(endpoints, tell_only_the_owner_of_their_engine)
{
    spoke_engine *e;
    spoke_socket *s;
    struct asked asked = {0};
    pthread_t thread;

    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_listen(s, "inproc://stats", &asked.l, 0), 0);
    cr_assert_eq(pthread_create(&thread, NULL, ask_from_elsewhere, &asked), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(asked.result, SPOKE_EWRONGTHREAD, "%s", spoke_error_name(asked.result));
    cr_assert_eq(spoke_engine_close(e), 0);
}

/* Several threads ask while connections come and go. */
struct asker {
    spoke_dialer *d;
    spoke_listener *l;
    atomic_bool stop;
    atomic_int wrong;
};

static void *
ask_again_and_again(void *ctx)
{
    struct asker *asker = ctx;
    uint64_t dials = 0, accepts = 0;

    while (!atomic_load(&asker->stop)) {
        struct spoke_dialer_stats there = {0};
        struct spoke_listener_stats here = {0};
        if (spoke_dialer_stats(asker->d, &there) != 0 ||
            spoke_listener_stats(asker->l, &here) != 0 || there.dials < dials ||
            here.accepts < accepts || here.pipes_attached > here.accepts ||
            here.pipes_current > here.pipes_attached)
            atomic_fetch_add(&asker->wrong, 1);
        dials = there.dials;
        accepts = here.accepts;
    }
    return NULL;
}

Test(endpoints, tell_any_thread_while_connections_come_and_go)
{
    struct asker asker = {0};
    struct spoke_dialer_stats stats = {0};
    char url[ENDPOINT_MAX];
    spoke_socket *a, *b;
    pthread_t threads[2];

    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_socket_open(&a, SPOKE_BUS, NULL), 0);
    cr_assert_eq(spoke_socket_open(&b, SPOKE_BUS, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(b, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    cr_assert_eq(spoke_listen(a, url, &asker.l, 0), 0);
    cr_assert_eq(spoke_dial(b, url, &asker.d, SPOKE_WAIT_FIRST), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, ask_again_and_again, &asker), 0);
    while (stats.pipes_attached < 10) {
        cr_assert_eq(spoke_dialer_stats(asker.d, &stats), 0);
        if (stats.pipe != 0)
            (void)spoke_pipe_close(b, stats.pipe);
    }
    atomic_store(&asker.stop, true);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    cr_assert_eq(atomic_load(&asker.wrong), 0, "what only grows has shrunk, or does not add up");
    cr_assert_eq(spoke_socket_close(a), 0);
    cr_assert_eq(spoke_socket_close(b), 0);
}
