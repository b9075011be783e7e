/* SPDX-License-Identifier: MIT */
/* How a socket ends: in bounded time, with everything written that can be, and never twice. */
#include "tests/support/certs.h"
#include "tests/support/world.h"

WORLD_TEST(closing, what_was_sent_before_close_arrives, world_cases)
{
    enum { COUNT = 30 };
    struct world *w = world_open(c);

    /* Once from the dialer's side, once from the listener's. */
    for (int side = 0; side < 2; side++) {
        struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
        struct spoke_close_report report = {99, 99};
        cr_assert_eq(node_set_duration(b, SPOKE_OPT_LINGER, WORLD_PATIENCE), 0);
        cr_assert_eq(node_set_int(a, SPOKE_OPT_RECV_QUEUE, COUNT), 0);
        if (side == 0)
            world_connect(w, a, b);
        else
            world_connect(w, b, a);
        for (uint32_t i = 0; i < COUNT; i++)
            cr_assert_eq(node_send_pattern(b, 3000, i, 0), 0);
        int rc = node_close(b, &report);
        b->s = NULL;
        cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
        cr_assert_eq(report.messages, 0);
        cr_assert_eq(report.bytes, 0);
        for (uint32_t i = 0; i < COUNT; i++) {
            rc = node_expect(a, 3000, i);
            cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
        }
    }
    world_close(w);
}

WORLD_TEST(closing, lingering_ends_in_time_and_tells_what_is_left, world_cases)
{
    static const spoke_ns lingers[] = {0, 40 * SPOKE_MS};
    struct world *w = world_open(c);

    for (int i = 0; i < 2; i++) {
        struct node *a = world_add(w, SPOKE_PAIR);
        struct spoke_close_report report = {0};
        cr_assert_eq(node_set_duration(a, SPOKE_OPT_LINGER, lingers[i]), 0);
        for (uint32_t k = 0; k < 3; k++)
            cr_assert_eq(node_send_pattern(a, 100, k, 0), 0);
        spoke_ns begin = world_now(w);
        int rc = node_close(a, &report);
        spoke_ns took = world_now(w) - begin;
        a->s = NULL;
        cr_assert_eq(rc, SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
        cr_assert_eq(report.messages, 3);
        cr_assert_eq(report.bytes, 300);
        cr_assert(took >= lingers[i] && took < lingers[i] + WORLD_PATIENCE, "took %lld ns",
                  (long long)took);
    }
    world_close(w);
}

/* The peer does not read: what fits between is lost to the report, the rest is in it. */
WORLD_TEST(closing, a_peer_that_does_not_read_cannot_hold_a_close, world_cases)
{
    enum { COUNT = 100 };
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct spoke_close_report report = {0};
    uint32_t sent = 0;

    cr_assert_eq(node_set_int(a, SPOKE_OPT_RECV_QUEUE, 1), 0);
    cr_assert_eq(node_set_int(b, SPOKE_OPT_SEND_QUEUE, COUNT), 0);
    cr_assert_eq(node_set_size(b, SPOKE_OPT_SEND_QUEUE_BYTES, 1024 * 1024 * COUNT), 0);
    cr_assert_eq(node_set_duration(b, SPOKE_OPT_LINGER, 30 * SPOKE_MS), 0);
    world_connect(w, a, b);
    while (sent < COUNT && node_send_pattern(b, 300000, sent, SPOKE_DONTWAIT) == 0)
        sent++;
    spoke_ns begin = world_now(w);
    int rc = node_close(b, &report);
    b->s = NULL;
    cr_assert_lt(world_now(w) - begin, WORLD_PATIENCE / 2);
    cr_assert_eq(rc, SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
    cr_assert(report.messages > 0 && report.messages <= sent);
    cr_assert_leq(report.bytes, (uint64_t)sent * 300000);
    uint32_t got = 0;
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECV_TIMEOUT, 200 * SPOKE_MS), 0);
    while (node_expect(a, 300000, got) == 0)
        got++;
    cr_assert(got + report.messages <= sent, "%u came, %llu were reported, %u sent", got,
              (unsigned long long)report.messages, sent);
    world_close(w);
}

static int
close_and_report(struct node *n, void *ctx)
{
    return spoke_socket_close_report(n->s, ctx);
}

/* Its handle is gone; on whichever thread, that comes before anything else. */
static bool
has_begun_to_close(void *ctx)
{
    struct spoke_stats stats;
    const struct node *n = ctx;

    return spoke_socket_stats(n->s, &stats) == SPOKE_ECLOSED;
}

/* The peer goes away in the middle: then there is nothing to wait for, and it is told.  (On inproc
 * a message that was sent is the peer's.) */
WORLD_TEST(closing, what_a_peer_takes_with_it_is_in_the_report, world_cases_streams_threaded)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct spoke_close_report report = {0};
    uint64_t sent = 0;

    cr_assert_eq(node_set_int(a, SPOKE_OPT_RECV_QUEUE, 1), 0);
    cr_assert_eq(node_set_int(b, SPOKE_OPT_SEND_QUEUE, 0), 0);
    cr_assert_eq(node_set_duration(b, SPOKE_OPT_LINGER, WORLD_PATIENCE), 0);
    world_connect(w, a, b);
    for (int quiet = 0; quiet < 50; quiet++) { /* until the kernel takes no more either */
        for (; sent < 1000 && node_send_pattern(b, 300000, (uint32_t)sent, SPOKE_DONTWAIT) == 0;
             quiet = 0)
            sent++;
        world_settle(w);
    }
    cr_assert_lt(sent, 1000);
    spoke_ns begin = world_now(w);
    struct task *task = node_start(b, close_and_report, &report);
    cr_assert(world_until(w, has_begun_to_close, b, WORLD_PATIENCE));
    cr_assert_eq(node_close(a, NULL), 0);
    a->s = NULL;
    int rc = task_join(task);
    b->s = NULL;
    cr_assert_lt(world_now(w) - begin, WORLD_PATIENCE / 2);
    cr_assert_eq(rc, SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
    cr_assert(report.messages > 0 && report.messages <= sent, "%llu of %llu messages",
              (unsigned long long)report.messages, (unsigned long long)sent);
    cr_assert_gt(report.bytes, 0);
    world_close(w);
}

WORLD_TEST(closing, everything_is_refused_after_close, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_listener *l;
    spoke_msg *m = pattern_message(10, 1), *got = m;
    int value = 0;

    world_url(w, url);
    cr_assert_eq(node_listen(a, url, &l, 0), 0);
    cr_assert_eq(node_dial(b, url, NULL, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(node_send_pattern(b, 10, 0, 0), 0);
    world_pass(w, 5 * SPOKE_MS);
    cr_assert_eq(node_close(a, NULL), 0);

    cr_assert_eq(node_close(a, NULL), SPOKE_ECLOSED, "twice");
    cr_assert_eq(node_send(a, m, 0), SPOKE_ECLOSED);
    cr_assert(pattern_holds(spoke_msg_body(m), 10, 1), "it is still the caller's");
    cr_assert_eq(node_recv(a, &got, 0), SPOKE_ECLOSED, "also if there was a message");
    cr_assert_null(got);
    cr_assert_eq(node_recv(a, &got, SPOKE_DONTWAIT), SPOKE_ECLOSED);
    cr_assert_eq(node_sendv(a, &m, 1, 0), SPOKE_ECLOSED);
    cr_assert_eq(node_recvv(a, &got, 1, 0), SPOKE_ECLOSED);
    cr_assert_eq(node_dial(a, url, NULL, 0), SPOKE_ECLOSED);
    cr_assert_eq(node_listen(a, url, NULL, 0), SPOKE_ECLOSED);
    cr_assert_eq(node_listener_close(a, l), SPOKE_ECLOSED, "it went with its socket");
    cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, 1), SPOKE_ECLOSED);
    cr_assert_eq(node_get_int(a, SPOKE_OPT_SEND_QUEUE, &value), SPOKE_ECLOSED);
    cr_assert_eq(node_on_message(a, NULL, NULL), SPOKE_ECLOSED);
    cr_assert_eq(node_pipe_close(a, 1), SPOKE_ECLOSED);
    a->s = NULL;
    spoke_msg_free(m);
    world_close(w);
}

Test(closing, a_handle_that_never_was_is_closed)
{
    spoke_msg *m = (spoke_msg *)1;

    cr_assert_eq(spoke_socket_close(NULL), SPOKE_ECLOSED);
    cr_assert_eq(spoke_recv(NULL, &m, 0), SPOKE_ECLOSED);
    cr_assert_null(m);
    cr_assert_eq(spoke_engine_close(NULL), SPOKE_ECLOSED);
    cr_assert_eq(spoke_dialer_close(NULL), SPOKE_ECLOSED);
    cr_assert_eq(spoke_listener_close(NULL), SPOKE_ECLOSED);
}

/* A handle of one kind is none of another. */
WORLD_TEST(closing, a_handle_of_another_kind_is_closed, world_cases_owned)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_listener *l;
    spoke_dialer *d;
    int value;

    world_url(w, url);
    cr_assert_eq(node_listen(a, url, &l, 0), 0);
    cr_assert_eq(node_dial(a, url, &d, 0), 0);
    cr_assert_eq(spoke_socket_close((spoke_socket *)l), SPOKE_ECLOSED);
    cr_assert_eq(spoke_socket_close((spoke_socket *)a->e), SPOKE_ECLOSED);
    cr_assert_eq(spoke_listener_close((spoke_listener *)d), SPOKE_ECLOSED);
    cr_assert_eq(spoke_dialer_close((spoke_dialer *)a->s), SPOKE_ECLOSED);
    cr_assert_eq(spoke_engine_close((spoke_engine *)a->s), SPOKE_ECLOSED);
    cr_assert_eq(spoke_engine_post((spoke_engine *)l, NULL, NULL), SPOKE_ECLOSED);
    cr_assert_eq(spoke_socket_get_int((spoke_socket *)d, SPOKE_OPT_SEND_QUEUE, &value),
                 SPOKE_ECLOSED);
    cr_assert_eq(node_listener_close(a, l), 0, "it is open all the same");
    cr_assert_eq(node_dialer_close(a, d), 0);
    world_close(w);
}

static int
receive_one(struct node *n, void *ctx)
{
    spoke_msg *m;
    int rc = spoke_recv(n->s, &m, 0);

    (void)ctx;
    if (rc == 0)
        spoke_msg_free(m);
    return rc;
}

static int
send_until_refused(struct node *n, void *ctx)
{
    int rc = 0;

    (void)ctx;
    while (rc == 0)
        rc = spoke_send_bytes(n->s, "x", 1, 0);
    return rc;
}

WORLD_TEST(closing, a_close_releases_everybody_who_waits, world_cases_shared)
{
    enum { WAITERS = 4 };
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct task *tasks[2 * WAITERS];

    cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECV_TIMEOUT, SPOKE_FOREVER), 0);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_SEND_TIMEOUT, SPOKE_FOREVER), 0);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_LINGER, 0), 0);
    cr_assert_eq(node_set_int(b, SPOKE_OPT_RECV_QUEUE, 1), 0);
    world_connect(w, a, b);
    for (int i = 0; i < WAITERS; i++)
        tasks[i] = node_start(a, receive_one, NULL);
    for (int i = WAITERS; i < 2 * WAITERS; i++)
        tasks[i] = node_start(a, send_until_refused, NULL);
    world_pass(w, 50 * SPOKE_MS);
    spoke_ns begin = world_now(w);
    node_close(a, NULL);
    for (int i = 0; i < 2 * WAITERS; i++) {
        int rc = task_join(tasks[i]);
        cr_assert_eq(rc, SPOKE_ECLOSED, "%s %d: %s", i < WAITERS ? "receiver" : "sender", i,
                     spoke_error_name(rc));
    }
    cr_assert_lt(world_now(w) - begin, WORLD_PATIENCE);
    a->s = NULL;
    world_close(w);
}

static int
close_it(struct node *n, void *ctx)
{
    (void)ctx;
    return spoke_socket_close(n->s);
}

WORLD_TEST(closing, of_many_that_close_one_socket_one_does_it, world_cases_shared)
{
    enum { CLOSERS = 4, ROUNDS = 12 };
    struct world *w = world_open(c);
    struct node *b = world_add(w, SPOKE_REP);

    for (int round = 0; round < ROUNDS; round++) {
        struct node *a = world_add(w, SPOKE_REQ);
        struct task *tasks[CLOSERS];
        int closed = 0;
        world_connect(w, b, a);
        for (int i = 0; i < CLOSERS; i++)
            tasks[i] = node_start(a, close_it, NULL);
        for (int i = 0; i < CLOSERS; i++) {
            int rc = task_join(tasks[i]);
            cr_assert(rc == 0 || rc == SPOKE_ECLOSED, "%s", spoke_error_name(rc));
            closed += rc == 0;
        }
        a->s = NULL;
        cr_assert_eq(closed, 1);
    }
    world_close(w);
}

WORLD_TEST(closing, sockets_may_come_and_go, world_cases)
{
    struct world *w = world_open(c);

    for (uint32_t i = 0; i < 25; i++) {
        struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
        world_connect(w, a, b);
        cr_assert_eq(node_send_pattern(a, 100, i, 0), 0);
        cr_assert_eq(node_expect(b, 100, i), 0);
        cr_assert_eq(node_close(i % 2 == 0 ? a : b, NULL), 0);
        cr_assert_eq(node_close(i % 2 == 0 ? b : a, NULL), 0);
        a->s = b->s = NULL;
    }
    world_close(w);
}

WORLD_TEST(closing, an_engine_takes_its_sockets_with_it, world_cases_owned)
{
    struct world *w = world_open(c);
    char url[ENDPOINT_MAX];
    spoke_engine *e;
    spoke_socket *a, *b;
    spoke_msg *m;

    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&a, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_open(&b, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_set_tls(a, test_tls()), 0);
    cr_assert_eq(spoke_socket_set_tls(b, test_tls()), 0);
    world_url(w, url);
    cr_assert_eq(spoke_listen(a, url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(b, url, NULL, SPOKE_WAIT_FIRST), 0);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(spoke_send_bytes(b, "left behind", 11, 0), 0);
    cr_assert_eq(spoke_engine_close(e), 0);
    cr_assert_eq(spoke_recv(a, &m, 0), SPOKE_ECLOSED);
    cr_assert_eq(spoke_socket_close(b), SPOKE_ECLOSED);
    cr_assert_eq(spoke_engine_close(e), SPOKE_ECLOSED);
    world_close(w);
}

WORLD_TEST(closing, a_listener_takes_its_pipes_with_it_if_it_shall, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_REP), *b = world_add(w, SPOKE_REQ),
                *d = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];
    spoke_listener *l;

    world_connect(w, a, b);
    world_url(w, url);
    cr_assert_eq(node_set_bool(a, SPOKE_OPT_CLOSE_PIPES, true), 0);
    cr_assert_eq(node_listen(a, url, &l, 0), 0);
    if (transport_is_on_tcp(c->transport))
        cr_assert_eq(node_address(a, l, url), 0);
    cr_assert_eq(node_dial(d, url, NULL, 0), 0);
    world_wait_pipes(w, a, 2);
    world_wait_pipes(w, d, 1);
    cr_assert_eq(node_listener_close(a, l), 0);
    world_wait_pipes(w, d, 0);
    world_wait_pipes(w, a, 1);
    cr_assert_eq(node_stats(a).pipes_closed, 1);
    cr_assert_eq(node_stats(d).pipes_closed, 0);
    cr_assert_eq(node_stats(d).dials_attached, 1);
    world_close(w);
}
