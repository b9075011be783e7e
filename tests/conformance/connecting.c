/* SPDX-License-Identifier: MIT */
/* Dialers and listeners: who may come first, how many, and what happens when one goes away. */
#include "tests/support/world.h"

#include <netinet/in.h>
#include <stdio.h>
#include <unistd.h>

/* A request goes round, whoever answers. */
static void
check_round_trip(struct node *req, struct node *rep, uint32_t seed)
{
    cr_assert_eq(node_send_pattern(req, 100, seed, 0), 0);
    int rc = node_expect(rep, 100, seed);
    cr_assert_eq(rc, 0, "request %u: %s", seed, spoke_error_name(rc));
    cr_assert_eq(node_send_pattern(rep, 50, seed, 0), 0);
    rc = node_expect(req, 50, seed);
    cr_assert_eq(rc, 0, "reply %u: %s", seed, spoke_error_name(rc));
}

WORLD_TEST(connecting, a_dialer_may_come_before_its_listener, world_cases)
{
    struct world *w = world_open(c);
    struct node *req = world_add(w, SPOKE_REQ), *rep = world_add(w, SPOKE_REP);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_dial(req, url, NULL, 0), 0);
    cr_assert_eq(node_send_pattern(req, 100, 1, 0), 0, "it waits in the queue");
    world_pass(w, 20 * SPOKE_MS);
    cr_assert_eq(node_stats(req).pipes_attached, 0);
    cr_assert_eq(node_listen(rep, url, NULL, 0), 0);
    cr_assert_eq(node_expect(rep, 100, 1), 0);
    cr_assert_eq(node_send_pattern(rep, 100, 2, 0), 0);
    cr_assert_eq(node_expect(req, 100, 2), 0);
    world_close(w);
}

WORLD_TEST(connecting, waiting_for_the_first_attempt_tells_how_it_went, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_dialer *d = NULL;

    world_url(w, url);
    int rc = node_dial(b, url, &d, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, SPOKE_ECONNREFUSED, "%s", spoke_error_name(rc));
    uint64_t dials = node_stats(b).dials;
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    world_pass(w, 50 * SPOKE_MS);
    cr_assert_eq(node_stats(b).dials, dials, "nothing of the failed one is left");
    cr_assert_eq(node_dial(b, url, &d, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(node_stats(b).pipes_current, 1);
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    world_close(w);
}

WORLD_TEST(connecting, a_dialer_comes_back_to_a_restarted_listener, world_cases)
{
    struct world *w = world_open(c);
    struct node *req = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_dial(req, url, NULL, 0), 0);
    for (uint32_t i = 0; i < 4; i++) {
        struct node *rep = world_add(w, SPOKE_REP);
        int rc = node_listen(rep, url, NULL, 0);
        cr_assert_eq(rc, 0, "start %u: %s", i, spoke_error_name(rc));
        world_wait_attached(w, req, i + 1);
        check_round_trip(req, rep, i);
        cr_assert_eq(node_close(rep, NULL), 0);
        rep->s = NULL;
        world_wait_pipes(w, req, 0);
    }
    world_close(w);
}

WORLD_TEST(connecting, one_socket_may_dial_and_listen_many_times, world_cases)
{
    enum { PEERS = 5 };
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *reqs[PEERS];
    char url[ENDPOINT_MAX];

    for (int i = 0; i < PEERS; i++) {
        reqs[i] = world_add(w, SPOKE_REQ);
        if (i % 2 == 0) {
            world_connect(w, rep, reqs[i]);
        } else {
            world_connect(w, reqs[i], rep);
        }
    }
    world_wait_pipes(w, rep, PEERS);
    for (uint32_t i = 0; i < 4 * PEERS; i++)
        check_round_trip(reqs[i % PEERS], rep, i);

    /* Several connections between the same two. */
    world_url(w, url);
    cr_assert_eq(node_listen(rep, url, NULL, 0), 0);
    cr_assert_eq(node_dial(reqs[0], url, NULL, 0), 0);
    cr_assert_eq(node_dial(reqs[0], url, NULL, 0), 0);
    world_wait_pipes(w, rep, PEERS + 2);
    for (uint32_t i = 0; i < 6; i++)
        check_round_trip(reqs[0], rep, i);
    world_close(w);
}

WORLD_TEST(connecting, requests_go_to_the_repliers_in_turn, world_cases)
{
    enum { REPLIERS = 3 };
    struct world *w = world_open(c);
    struct node *req = world_add(w, SPOKE_REQ), *reps[REPLIERS];

    for (int i = 0; i < REPLIERS; i++) {
        reps[i] = world_add(w, SPOKE_REP);
        world_connect(w, reps[i], req);
    }
    for (uint32_t i = 0; i < 6 * REPLIERS; i++)
        check_round_trip(req, reps[i % REPLIERS], i);
    for (int i = 0; i < REPLIERS; i++)
        cr_assert_eq(node_stats(reps[i]).messages_received, 6);
    world_close(w);
}

WORLD_TEST(connecting, only_one_listener_has_an_address, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_listener *l;

    world_url(w, url);
    cr_assert_eq(node_listen(a, url, &l, 0), 0);
    int rc = node_listen(b, url, NULL, 0);
    cr_assert_eq(rc, SPOKE_EADDRINUSE, "%s", spoke_error_name(rc));
    cr_assert_eq(node_listener_close(a, l), 0);
    rc = node_listen(b, url, NULL, 0);
    cr_assert_eq(rc, 0, "after the first has gone: %s", spoke_error_name(rc));
    world_close(w);
}

WORLD_TEST(connecting, pipes_outlive_their_listener, world_cases)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ),
                *late = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];
    spoke_listener *l;

    world_url(w, url);
    cr_assert_eq(node_listen(rep, url, &l, 0), 0);
    cr_assert_eq(node_dial(req, url, NULL, SPOKE_WAIT_FIRST), 0);
    check_round_trip(req, rep, 1);
    cr_assert_eq(node_listener_close(rep, l), 0);
    check_round_trip(req, rep, 2);
    int rc = node_dial(late, url, NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, SPOKE_ECONNREFUSED, "%s", spoke_error_name(rc));
    rc = node_listener_close(rep, l);
    cr_assert_eq(rc, SPOKE_ECLOSED, "%s", spoke_error_name(rc));
    check_round_trip(req, rep, 3);
    world_close(w);
}

WORLD_TEST(connecting, closing_a_dialer_closes_its_pipe_and_stops_it, world_cases)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    world_url(w, url);
    cr_assert_eq(node_listen(rep, url, NULL, 0), 0);
    cr_assert_eq(node_dial(req, url, &d, SPOKE_WAIT_FIRST), 0);
    check_round_trip(req, rep, 1);
    cr_assert_eq(node_dialer_close(req, d), 0);
    world_wait_pipes(w, rep, 0);
    world_wait_pipes(w, req, 0);
    uint64_t dials = node_stats(req).dials;
    world_pass(w, 50 * SPOKE_MS);
    cr_assert_eq(node_stats(req).dials, dials);
    cr_assert_eq(node_dialer_close(req, d), SPOKE_ECLOSED);
    cr_assert_eq(node_dial(req, url, NULL, SPOKE_WAIT_FIRST), 0);
    check_round_trip(req, rep, 2);
    world_close(w);
}

WORLD_TEST(connecting, a_dialer_may_be_closed_while_nobody_listens, world_cases)
{
    struct world *w = world_open(c);
    struct node *req = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    world_url(w, url);
    for (int i = 0; i < 20; i++) {
        cr_assert_eq(node_dial(req, url, &d, 0), 0);
        world_pass(w, i * SPOKE_MS / 2);
        cr_assert_eq(node_dialer_close(req, d), 0);
    }
    cr_assert_eq(node_dial(req, url, &d, 0), 0);
    world_close(w);
}

struct last_pipe {
    _Atomic spoke_pipe_id id;
    atomic_uint attached;
};

static int
note_pipe(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct last_pipe *last = ctx;

    (void)s;
    if (event->type == SPOKE_EVENT_ATTACHED) {
        atomic_store(&last->id, event->pipe);
        atomic_fetch_add(&last->attached, 1);
    }
    return 0;
}

struct told {
    struct last_pipe *last;
    uint32_t attached;
};

static bool
was_told(void *ctx)
{
    const struct told *wanted = ctx;

    return atomic_load(&wanted->last->attached) >= wanted->attached;
}

WORLD_TEST(connecting, a_pipe_that_is_closed_is_dialed_again, world_cases)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ);
    struct last_pipe last = {0};

    cr_assert_eq(node_on_event(rep, note_pipe, &last), 0);
    world_connect(w, rep, req);
    for (uint32_t i = 0; i < 3; i++) {
        check_round_trip(req, rep, i);
        struct told wanted = {&last, i + 1};
        cr_assert(world_until(w, was_told, &wanted, WORLD_PATIENCE), "no event");
        spoke_pipe_id id = atomic_load(&last.id);
        cr_assert_neq(id, 0);
        cr_assert_eq(id >> 31, 0);
        cr_assert_eq(node_pipe_close(rep, id), 0);
        world_wait_attached(w, rep, i + 2);
        world_wait_attached(w, req, i + 2);
        int rc = node_pipe_close(rep, id);
        cr_assert_eq(rc, SPOKE_ENOENT, "%s", spoke_error_name(rc));
    }
    check_round_trip(req, rep, 9);
    world_close(w);
}

WORLD_TEST(connecting, a_second_pair_peer_waits_for_the_first_to_leave, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR),
                *late = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(node_dial(b, url, NULL, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(node_dial(late, url, NULL, 0), 0);
    for (uint32_t i = 0; i < 20; i++) {
        cr_assert_eq(node_send_pattern(b, 10, i, 0), 0);
        cr_assert_eq(node_expect(a, 10, i), 0);
        world_pass(w, SPOKE_MS);
    }
    world_wait_refused(w, a);
    cr_assert_eq(node_stats(a).pipes_current, 1);
    cr_assert_eq(node_close(b, NULL), 0);
    b->s = NULL;
    world_wait_attached(w, a, 2); /* what is sent before may go to a pipe that is being refused */
    world_wait_pipes(w, late, 1);
    cr_assert_eq(node_send_pattern(late, 10, 99, 0), 0);
    cr_assert_eq(node_expect(a, 10, 99), 0);
    world_close(w);
}

WORLD_TEST(connecting, sockets_of_other_patterns_do_not_connect, world_cases)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *pair = world_add(w, SPOKE_PAIR),
                *rep2 = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_listen(rep, url, NULL, 0), 0);
    int rc = node_dial(pair, url, NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, SPOKE_EPEER, "%s", spoke_error_name(rc));
    rc = node_dial(rep2, url, NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, SPOKE_EPEER, "%s", spoke_error_name(rc));
    cr_assert_eq(node_stats(rep).pipes_attached, 0);
    cr_assert_eq(node_dial(req, url, NULL, SPOKE_WAIT_FIRST), 0);
    check_round_trip(req, rep, 1);
    world_close(w);
}

WORLD_TEST(connecting, max_pipes_turns_further_peers_away, world_cases)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *reqs[3];
    char url[ENDPOINT_MAX];

    cr_assert_eq(node_set_int(rep, SPOKE_OPT_MAX_PIPES, 2), 0);
    world_url(w, url);
    cr_assert_eq(node_listen(rep, url, NULL, 0), 0);
    for (int i = 0; i < 3; i++) {
        reqs[i] = world_add(w, SPOKE_REQ);
        cr_assert_eq(node_dial(reqs[i], url, NULL, i < 2 ? SPOKE_WAIT_FIRST : 0), 0);
    }
    world_wait_refused(w, rep);
    cr_assert_eq(node_stats(rep).pipes_current, 2);
    check_round_trip(reqs[0], rep, 1);
    check_round_trip(reqs[1], rep, 2);
    cr_assert_eq(node_close(reqs[0], NULL), 0);
    reqs[0]->s = NULL;
    check_round_trip(reqs[2], rep, 3);
    world_close(w);
}

struct dials_wanted {
    struct node *node;
    uint64_t count;
};

static bool
has_dialed(void *ctx)
{
    const struct dials_wanted *wanted = ctx;

    return node_stats(wanted->node).dials >= wanted->count;
}

static void
wait_dials(struct world *w, struct node *n, uint64_t count)
{
    struct dials_wanted wanted = {n, count};

    cr_assert(world_until(w, has_dialed, &wanted, WORLD_PATIENCE), "%llu of %llu attempts",
              (unsigned long long)node_stats(n).dials, (unsigned long long)count);
}

/* Attempts get rarer, up to the maximum: while one that does not wait longer makes 40 of them, one
 * that does makes a few.  There is chance in it, so the bounds are wide. */
WORLD_TEST(connecting, attempts_wait_longer_each_time_up_to_the_maximum, world_cases_streams)
{
    struct world *w = world_open(c);
    struct node *patient = world_add(w, SPOKE_REQ), *eager = world_add(w, SPOKE_REQ);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_set_duration(patient, SPOKE_OPT_RECONNECT, 4 * SPOKE_MS), 0);
    cr_assert_eq(node_set_duration(patient, SPOKE_OPT_RECONNECT_MAX, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(node_set_duration(eager, SPOKE_OPT_RECONNECT, 4 * SPOKE_MS), 0);
    cr_assert_eq(node_dial(patient, url, NULL, 0), 0);
    cr_assert_eq(node_dial(eager, url, NULL, 0), 0);
    spoke_ns begin = world_now(w);
    wait_dials(w, eager, 40);
    wait_dials(w, patient, 3);
    uint64_t few = node_stats(patient).dials, many = node_stats(eager).dials;
    uint64_t most = (uint64_t)((world_now(w) - begin) / (4 * SPOKE_MS)) + 10;
    cr_assert_leq(few, 25, "patient: %llu attempts", (unsigned long long)few);
    cr_assert_leq(many, most, "eager: %llu attempts", (unsigned long long)many);
    cr_assert_geq(node_stats(eager).dials_failed + 1, many);
    world_close(w);
}

WORLD_TEST(connecting, creating_and_starting_are_two_steps, world_cases_direct)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX], text[ENDPOINT_MAX];
    spoke_listener *l;
    spoke_dialer *d;
    size_t limit = 0;

    world_url(w, url);
    cr_assert_eq(spoke_listener_create(&l, a->s, url), 0);
    cr_assert_eq(spoke_dialer_create(&d, b->s, url), 0);
    cr_assert_eq(spoke_dialer_set_size(d, SPOKE_OPT_MAX_RECV_SIZE, 77), 0);
    cr_assert_eq(spoke_dialer_get_size(d, SPOKE_OPT_MAX_RECV_SIZE, &limit), 0);
    cr_assert_eq(limit, 77);
    cr_assert_eq(node_stats(b).dials, 0);
    cr_assert_eq(spoke_listener_start(l, 0), 0);
    cr_assert_eq(spoke_dialer_start(d, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(spoke_dialer_start(d, 0), SPOKE_ESTATE, "it has started");
    cr_assert_eq(spoke_listener_start(l, 0), SPOKE_ESTATE, "it has started");
    cr_assert_eq(spoke_dialer_get_string(d, SPOKE_OPT_URL, text, sizeof text), 0);
    cr_assert_str_eq(text, url);
    cr_assert_eq(spoke_listener_get_string(l, SPOKE_OPT_ADDRESS, text, sizeof text), 0);
    cr_assert_str_eq(text, url);
    cr_assert_eq(node_send_pattern(a, 77, 1, 0), 0);
    cr_assert_eq(node_expect(b, 77, 1), 0);
    world_close(w);
}

WORLD_TEST(connecting, one_that_was_created_and_never_started_is_no_burden, world_cases_direct)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_listener *l[2];
    spoke_dialer *d[2];

    world_url(w, url);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(spoke_listener_create(&l[i], a->s, url), 0);
        cr_assert_eq(spoke_dialer_create(&d[i], a->s, url), 0);
    }
    cr_assert_eq(spoke_listener_close(l[0]), 0);
    cr_assert_eq(spoke_dialer_close(d[0]), 0);
    world_close(w);
}

/* ---- the first attempt ---- */

struct wait_call {
    spoke_dialer *d;
    spoke_ns timeout_ns;
};

static int
call_wait(struct node *n, void *ctx)
{
    struct wait_call *call = ctx;

    (void)n;
    return spoke_dialer_wait(call->d, call->timeout_ns);
}

static int
node_dialer_wait(struct node *n, spoke_dialer *d, spoke_ns timeout_ns)
{
    struct wait_call call = {d, timeout_ns};

    return node_run(n, call_wait, &call);
}

WORLD_TEST(connecting, the_first_outcome_can_be_waited_for_later, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    world_url(w, url);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(node_dial(b, url, &d, 0), 0);
    int rc = node_dialer_wait(b, d, WORLD_PATIENCE);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(node_stats(b).pipes_current, 1);
    cr_assert_eq(node_dialer_wait(b, d, 0), 0, "it does not change any more");
    cr_assert_eq(node_dialer_wait(b, d, -1), SPOKE_EINVAL);
    cr_assert_eq(node_dialer_close(b, d), 0);
    cr_assert_eq(node_dialer_wait(b, d, 0), SPOKE_ECLOSED);
    world_close(w);
}

WORLD_TEST(connecting, a_dialer_whose_first_attempt_failed_goes_on, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    world_url(w, url);
    cr_assert_eq(node_dial(b, url, &d, 0), 0);
    int rc = node_dialer_wait(b, d, SPOKE_FOREVER);
    cr_assert_eq(rc, SPOKE_ECONNREFUSED, "%s", spoke_error_name(rc));
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    cr_assert_eq(node_dialer_wait(b, d, 0), SPOKE_ECONNREFUSED, "it is the first that counts");
    world_close(w);
}

/* Somebody accepts, and says nothing. */
WORLD_TEST(connecting, an_outcome_that_takes_its_time_is_not_there_yet, world_cases_tcp_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    struct sockaddr_in there = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof there;
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    cr_assert_eq(bind(fd, (struct sockaddr *)&there, sizeof there), 0);
    cr_assert_eq(listen(fd, 1), 0);
    cr_assert_eq(getsockname(fd, (struct sockaddr *)&there, &size), 0);
    snprintf(url, sizeof url, "tcp://127.0.0.1:%d", ntohs(there.sin_port));
    cr_assert_eq(node_dial(a, url, &d, 0), 0);
    cr_assert_eq(node_dialer_wait(a, d, 0), SPOKE_EAGAIN);
    spoke_ns begin = world_now(w);
    cr_assert_eq(node_dialer_wait(a, d, 20 * SPOKE_MS), SPOKE_ETIMEDOUT);
    cr_assert_geq(world_now(w) - begin, 20 * SPOKE_MS);
    cr_assert_eq(node_dialer_close(a, d), 0, "it goes on until then");
    close(fd);
    world_close(w);
}

WORLD_TEST(connecting, one_that_was_not_started_has_no_outcome, world_cases_direct)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_dialer *d;

    world_url(w, url);
    cr_assert_eq(spoke_dialer_create(&d, a->s, url), 0);
    cr_assert_eq(spoke_dialer_wait(d, SPOKE_FOREVER), SPOKE_ESTATE);
    world_close(w);
}

WORLD_TEST(connecting, dialing_may_wait_by_default, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_dialer *d = (spoke_dialer *)1;

    world_url(w, url);
    cr_assert_eq(node_set_bool(b, SPOKE_OPT_DIAL_ASYNC, false), 0);
    int rc = node_dial(b, url, &d, 0);
    cr_assert_eq(rc, SPOKE_ECONNREFUSED, "%s", spoke_error_name(rc));
    cr_assert_null(d);
    cr_assert_eq(node_listen(a, url, NULL, 0), 0);
    world_pass(w, 5 * SPOKE_MS);
    cr_assert_eq(node_stats(b).pipes_attached, 0, "nothing of the failed one is left");
    cr_assert_eq(node_dial(b, url, &d, 0), 0);
    cr_assert_eq(node_stats(b).pipes_current, 1);
    world_close(w);
}

/* ---- when a dialer comes back ---- */

static int
turn_away(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s, (void)ctx;
    return event->type == SPOKE_EVENT_ATTACHING ? SPOKE_EREFUSED : 0;
}

static struct node *
add_patient_dialer(struct world *w, const char *url, spoke_dialer **d)
{
    struct node *n = world_add(w, SPOKE_PAIR);

    cr_assert_eq(node_set_duration(n, SPOKE_OPT_RECONNECT, 10 * SPOKE_MS), 0);
    cr_assert_eq(node_set_duration(n, SPOKE_OPT_RECONNECT_MAX, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(node_dial(n, url, d, 0), 0);
    return n;
}

/* Both ends count it as a failure: the one whose user refuses, and the one that is hung up on right
 * after the handshake.  Without growth there would be some 40 attempts. */
WORLD_TEST(connecting, being_turned_away_is_a_failed_attempt, world_cases)
{
    struct world *w = world_open(c);
    struct node *server = world_add(w, SPOKE_PAIR), *friendly = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX], other[ENDPOINT_MAX];

    world_url(w, url);
    world_url(w, other);
    cr_assert_eq(node_on_event(server, turn_away, NULL), 0);
    cr_assert_eq(node_listen(server, url, NULL, 0), 0);
    cr_assert_eq(node_listen(friendly, other, NULL, 0), 0);
    struct node *unwelcome = add_patient_dialer(w, url, NULL);
    struct node *choosy = world_add(w, SPOKE_PAIR);
    cr_assert_eq(node_on_event(choosy, turn_away, NULL), 0);
    cr_assert_eq(node_set_duration(choosy, SPOKE_OPT_RECONNECT, 10 * SPOKE_MS), 0);
    cr_assert_eq(node_set_duration(choosy, SPOKE_OPT_RECONNECT_MAX, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(node_dial(choosy, other, NULL, 0), 0);
    world_pass(w, 400 * SPOKE_MS);
    wait_dials(w, unwelcome, 2);
    wait_dials(w, choosy, 2);
    uint64_t theirs = node_stats(unwelcome).dials, ours = node_stats(choosy).dials;
    cr_assert_leq(theirs, 20, "hung up on: %llu attempts", (unsigned long long)theirs);
    cr_assert_leq(ours, 20, "refusing: %llu attempts", (unsigned long long)ours);
    cr_assert_geq(node_stats(choosy).dials_failed + 1, ours);
    world_close(w);
}

struct grown {
    struct node *node;
    spoke_dialer *dialer;
};

static bool
has_grown(void *ctx)
{
    const struct grown *x = ctx;

    return node_dialer_stats(x->node, x->dialer).backoff_ns >= 320 * SPOKE_MS;
}

/* After a wait that has grown a pipe that lived brings it back to the first, from where it doubles
 * with each attempt again. */
WORLD_TEST(connecting, a_pipe_that_lived_makes_the_dialer_quick_again, world_cases_streams)
{
    struct world *w = world_open(c);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    spoke_dialer *d;
    struct node *dialer = add_patient_dialer(w, url, &d), *server = world_add(w, SPOKE_PAIR);
    struct grown x = {dialer, d};
    cr_assert(world_until(w, has_grown, &x, WORLD_PATIENCE));
    cr_assert_eq(node_listen(server, url, NULL, 0), 0);
    world_wait_attached(w, dialer, 1);
    world_pass(w, 30 * SPOKE_MS);
    uint64_t before = node_stats(dialer).dials; /* attempts may come before we hear of the end */
    cr_assert_eq(node_close(server, NULL), 0);
    server->s = NULL;
    world_wait_pipes(w, dialer, 0);
    wait_dials(w, dialer, before + 2);
    struct spoke_dialer_stats stats = node_dialer_stats(dialer, d);
    uint64_t attempts = stats.dials - before;
    cr_assert_leq(stats.backoff_ns, (10 * SPOKE_MS) << (attempts + 1), "%lld ms after %llu",
                  (long long)(stats.backoff_ns / SPOKE_MS), (unsigned long long)attempts);
    world_close(w);
}

/* 0 is short, but no busy loop; and it grows if it may. */
WORLD_TEST(connecting, a_wait_of_0_is_a_millisecond, world_cases_streams)
{
    struct world *w = world_open(c);
    struct node *eager = world_add(w, SPOKE_PAIR), *growing = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    world_url(w, url);
    cr_assert_eq(node_set_duration(eager, SPOKE_OPT_RECONNECT, 0), 0);
    cr_assert_eq(node_set_duration(growing, SPOKE_OPT_RECONNECT, 0), 0);
    cr_assert_eq(node_set_duration(growing, SPOKE_OPT_RECONNECT_MAX, SPOKE_SECOND), 0);
    spoke_ns begin = world_now(w);
    cr_assert_eq(node_dial(eager, url, NULL, 0), 0);
    cr_assert_eq(node_dial(growing, url, NULL, 0), 0);
    wait_dials(w, eager, 50);
    wait_dials(w, growing, 3);
    uint64_t many = node_stats(eager).dials, few = node_stats(growing).dials;
    uint64_t most = (uint64_t)((world_now(w) - begin) / SPOKE_MS) + 10;
    cr_assert_leq(many, most, "%llu attempts", (unsigned long long)many);
    cr_assert_leq(few, 50, "growing: %llu attempts", (unsigned long long)few);
    world_close(w);
}
