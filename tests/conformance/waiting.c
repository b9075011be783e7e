/* SPDX-License-Identifier: MIT */
/* Calls that wait, calls that do not, and the queues between them. */
#include "tests/support/world.h"

#include <poll.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/waiters.h"

WORLD_TEST(waiting, a_receive_times_out_when_its_time_is_up, world_cases)
{
    static const spoke_ns times[] = {0, SPOKE_MS, 30 * SPOKE_MS};
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    spoke_msg *m = (spoke_msg *)&times;

    world_connect(w, a, b);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECV_TIMEOUT, times[i]), 0);
        spoke_ns begin = world_now(w);
        int rc = node_recv(a, &m, 0);
        spoke_ns took = world_now(w) - begin;
        cr_assert_eq(rc, SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
        cr_assert_null(m);
        cr_assert(took >= times[i] && took < times[i] + WORLD_PATIENCE, "%lld ns", (long long)took);
    }
    cr_assert_eq(node_recv(a, &m, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    cr_assert_eq(node_send_pattern(b, 5, 1, 0), 0);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECV_TIMEOUT, SPOKE_FOREVER), 0);
    cr_assert_eq(node_expect(a, 5, 1), 0);
    world_close(w);
}

WORLD_TEST(waiting, a_send_times_out_and_leaves_the_message, world_cases)
{
    static const spoke_ns times[] = {0, 30 * SPOKE_MS};
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);

    cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, 1), 0);
    cr_assert_eq(node_send_pattern(a, 50, 0, 0), 0);
    for (int i = 0; i < 2; i++) {
        spoke_msg *m = pattern_message(60, 1);
        cr_assert_eq(node_set_duration(a, SPOKE_OPT_SEND_TIMEOUT, times[i]), 0);
        spoke_ns begin = world_now(w);
        int rc = node_send(a, m, 0);
        spoke_ns took = world_now(w) - begin;
        cr_assert_eq(rc, SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
        cr_assert(took >= times[i] && took < times[i] + WORLD_PATIENCE);
        cr_assert_eq(node_send(a, m, SPOKE_DONTWAIT), SPOKE_EAGAIN);
        cr_assert(pattern_holds(spoke_msg_body(m), 60, 1));
        spoke_msg_free(m);
    }
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_SEND_TIMEOUT, WORLD_PATIENCE), 0);
    world_connect(w, a, b);
    cr_assert_eq(node_send_pattern(a, 50, 2, 0), 0);
    cr_assert_eq(node_expect(b, 50, 0), 0);
    cr_assert_eq(node_expect(b, 50, 2), 0);
    world_close(w);
}

/* Without a peer the queue alone decides. */
WORLD_TEST(waiting, the_send_queue_holds_exactly_its_length, world_cases)
{
    static const int lengths[] = {0, 1, 2, 7, 128};
    struct world *w = world_open(c);

    for (int i = 0; i < 5; i++) {
        struct node *a = world_add(w, SPOKE_PAIR);
        struct spoke_close_report report = {99, 99};
        int taken = 0, length = -1;
        cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, lengths[i]), 0);
        cr_assert_eq(node_get_int(a, SPOKE_OPT_SEND_QUEUE, &length), 0);
        cr_assert_eq(length, lengths[i]);
        cr_assert_eq(node_set_duration(a, SPOKE_OPT_LINGER, 0), 0);
        while (taken < 1000 && node_send_pattern(a, 3, 0, SPOKE_DONTWAIT) == 0)
            taken++;
        cr_assert_eq(taken, lengths[i]);
        int rc = node_close(a, &report);
        a->s = NULL;
        cr_assert_eq(rc, taken == 0 ? 0 : SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
        cr_assert_eq(report.messages, (uint64_t)taken);
        cr_assert_eq(report.bytes, (uint64_t)taken * 3);
    }
    world_close(w);
}

WORLD_TEST(waiting, the_send_queue_is_bounded_in_bytes_too, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);
    int taken = 0;

    cr_assert_eq(node_set_size(a, SPOKE_OPT_SEND_QUEUE_BYTES, 100 * 1000), 0);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_LINGER, 0), 0);
    while (taken < 128 && node_send_pattern(a, 20000, 0, SPOKE_DONTWAIT) == 0)
        taken++;
    cr_assert_eq(taken, 5);
    struct node *b = world_add(w, SPOKE_PAIR);
    cr_assert_eq(node_set_size(b, SPOKE_OPT_SEND_QUEUE_BYTES, 10), 0);
    cr_assert_eq(node_set_duration(b, SPOKE_OPT_LINGER, 0), 0);
    cr_assert_eq(node_send_pattern(b, 5000, 0, SPOKE_DONTWAIT), 0, "one message always fits");
    cr_assert_eq(node_send_pattern(b, 1, 0, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    world_close(w);
}

/* Send until nothing has gone for a while, but at least so many; how many went. */
static uint32_t
send_until_full(struct world *w, struct node *n, size_t size, uint32_t least)
{
    uint32_t sent = 0;

    for (int idle = 0; idle < (sent < least ? 1000 : 20); idle++) {
        while (node_send_pattern(n, size, sent, SPOKE_DONTWAIT) == 0) {
            sent++;
            idle = 0;
            cr_assert_lt(sent, 100000, "no back-pressure");
        }
        world_pass(w, 2 * SPOKE_MS);
    }
    return sent;
}

/* Nobody receives: what is taken is bounded by both queues and what the transport holds. */
WORLD_TEST(waiting, a_reader_that_stops_stops_the_sender, world_cases)
{
    static const struct {
        int send, recv;
    } lengths[] = {{0, 0}, {1, 1}, {0, 5}, {5, 0}, {20, 30}};
    const size_t size = 100 * 1000;
    struct world *w = world_open(c);

    for (int i = 0; i < 5; i++) {
        struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
        cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, lengths[i].send), 0);
        cr_assert_eq(node_set_int(b, SPOKE_OPT_RECV_QUEUE, lengths[i].recv), 0);
        world_connect(w, a, b);
        uint32_t queues = (uint32_t)(lengths[i].send + lengths[i].recv);
        uint32_t sent = send_until_full(w, a, size, queues > 0 ? queues : 1);
        /* Loopback tcp, also below tls and ws, grows its buffers up to some megabytes, each side.
         * Over inproc as many as its queue holds are on their way before a reader that gets little
         * time has stopped the writer; through shared memory 4 MiB are lent, beside what is in the
         * ring.
         */
        uint32_t held = c->transport == TCP || c->transport >= TLS ? 150
                        : c->transport == INPROC                   ? (uint32_t)lengths[i].recv + 2
                                                                   : 60;
        cr_assert(sent >= queues && sent <= queues + held, "queues %d and %d: %u went",
                  lengths[i].send, lengths[i].recv, sent);
        cr_assert_gt(sent, 0);
        for (uint32_t k = 0; k < sent; k++)
            cr_assert_eq(node_expect(b, size, k), 0, "message %u", k);
        cr_assert_eq(node_send_pattern(a, size, sent, 0), 0, "it goes on");
        cr_assert_eq(node_expect(b, size, sent), 0);
        cr_assert_leq(node_stats(b).recv_queue_high, (uint64_t)lengths[i].recv + 1);
        cr_assert_eq(node_close(a, NULL), 0);
        cr_assert_eq(node_close(b, NULL), 0);
        a->s = b->s = NULL;
    }
    world_close(w);
}

WORLD_TEST(waiting, best_effort_drops_what_would_have_to_wait, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);

    cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, 3), 0);
    cr_assert_eq(node_set_bool(a, SPOKE_OPT_BEST_EFFORT, true), 0);
    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(node_send_pattern(a, 10, i, 0), 0);
    cr_assert_eq(node_stats(a).dropped_best_effort, 7);
    world_connect(w, a, b);
    for (uint32_t i = 0; i < 3; i++)
        cr_assert_eq(node_expect(b, 10, i), 0);
    cr_assert_eq(node_send_pattern(a, 10, 77, 0), 0);
    cr_assert_eq(node_expect(b, 10, 77), 0, "the dropped ones never come");
    world_close(w);
}

WORLD_TEST(waiting, messages_that_waited_too_long_are_dropped, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);

    cr_assert_eq(node_set_duration(a, SPOKE_OPT_SEND_EXPIRY, 20 * SPOKE_MS), 0);
    for (uint32_t i = 0; i < 3; i++)
        cr_assert_eq(node_send_pattern(a, 10, i, 0), 0);
    world_pass(w, 60 * SPOKE_MS);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_SEND_EXPIRY, 0), 0);
    cr_assert_eq(node_send_pattern(a, 10, 50, 0), 0, "this one keeps");
    world_connect(w, a, b);
    cr_assert_eq(node_expect(b, 10, 50), 0);
    cr_assert_eq(node_stats(a).dropped_expired, 3);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_SEND_EXPIRY, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(node_send_pattern(a, 10, 51, 0), 0);
    cr_assert_eq(node_expect(b, 10, 51), 0);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_SEND_EXPIRY, SPOKE_FOREVER), 0);
    cr_assert_eq(node_send_pattern(a, 10, 52, 0), 0);
    cr_assert_eq(node_expect(b, 10, 52), 0, "for ever is not in the past");
    world_close(w);
}

static bool
has_dropped_expired(void *ctx)
{
    return node_stats(ctx).dropped_expired == 1;
}

/* One message, sent on a socket with an expiry and on one without: neither knows of the other's. */
WORLD_TEST(waiting, an_expiry_is_not_shared, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR),
                *x = world_add(w, SPOKE_PAIR), *y = world_add(w, SPOKE_PAIR);
    spoke_msg *m;

    cr_assert_eq(node_set_duration(x, SPOKE_OPT_SEND_EXPIRY, 10 * SPOKE_MS), 0);
    cr_assert_eq(spoke_msg_from(&m, "long-lived", 10), 0);
    cr_assert_eq(node_send(a, spoke_msg_dup(m), 0), 0);
    cr_assert_eq(node_send(x, m, 0), 0);
    world_pass(w, 40 * SPOKE_MS);
    world_connect(w, a, b);
    world_connect(w, x, y);
    cr_assert_eq(node_recv(b, &m, 0), 0);
    cr_expect_eq(spoke_msg_size(m), 10);
    spoke_msg_free(m);
    cr_assert_eq(node_stats(a).dropped_expired, 0);
    cr_assert(world_until(w, has_dropped_expired, x, WORLD_PATIENCE));
    world_close(w);
}

struct descriptor {
    int fd;
    bool ready;
};

static bool
is_as_wanted(void *ctx)
{
    const struct descriptor *wanted = ctx;
    struct pollfd wait = {.fd = wanted->fd, .events = POLLIN};

    return (poll(&wait, 1, 0) == 1) == wanted->ready;
}

/* The descriptor becomes so, stays so while nothing happens, and is never wrong after a look. */
static void
check_descriptor(struct world *w, int fd, bool ready)
{
    struct descriptor wanted = {fd, ready};

    cr_assert(world_until(w, is_as_wanted, &wanted, WORLD_PATIENCE), "still %s",
              ready ? "quiet" : "readable");
    for (int i = 0; i < 3; i++) {
        cr_assert(is_as_wanted(&wanted), "no longer %s", ready ? "readable" : "quiet");
        world_pass(w, SPOKE_MS);
    }
}

WORLD_TEST(waiting, the_receive_descriptor_is_readable_while_there_is_a_message, world_cases_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    int fd = -1, again = -1;

    world_connect(w, a, b);
    cr_assert_eq(node_get_int(a, SPOKE_OPT_RECV_FD, &fd), 0);
    cr_assert_eq(node_get_int(a, SPOKE_OPT_RECV_FD, &again), 0);
    cr_assert_geq(fd, 0);
    cr_assert_eq(fd, again);
    check_descriptor(w, fd, false);
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 3; i++)
            cr_assert_eq(node_send_pattern(b, 10, i, 0), 0);
        for (uint32_t i = 0; i < 3; i++) {
            check_descriptor(w, fd, true);
            cr_assert_eq(node_expect(a, 10, i), 0);
        }
        check_descriptor(w, fd, false);
        spoke_msg *m;
        cr_assert_eq(node_recv(a, &m, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    }
    world_close(w);
}

/* A descriptor that is asked for late tells what is already there. */
WORLD_TEST(waiting, the_receive_descriptor_may_be_asked_for_late, world_cases_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    int fd = -1;

    world_connect(w, a, b);
    for (uint32_t i = 0; i < 2; i++)
        cr_assert_eq(node_send_pattern(b, 10, i, 0), 0);
    cr_assert_eq(node_expect(a, 10, 0), 0);
    cr_assert_eq(node_get_int(a, SPOKE_OPT_RECV_FD, &fd), 0);
    check_descriptor(w, fd, true);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    check_descriptor(w, fd, false);
    world_close(w);
}

/* Send whenever the descriptor says that there is room, which must then be true: tcp finds some
 * more a little later.  Returns how many messages were taken before it stayed quiet. */
static uint32_t
send_until_quiet(struct world *w, struct node *n, int fd, size_t size)
{
    struct descriptor readable = {fd, true};
    uint32_t sent = 0;

    for (int quiet = 0; quiet < 100; quiet++) {
        for (; is_as_wanted(&readable); quiet = 0)
            cr_assert_eq(node_send_pattern(n, size, sent++, SPOKE_DONTWAIT), 0, "after %u", sent);
        world_pass(w, SPOKE_MS);
    }
    return sent;
}

WORLD_TEST(waiting, the_send_descriptor_is_readable_while_there_is_room, world_cases_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    int fd = -1;

    cr_assert_eq(node_set_int(a, SPOKE_OPT_SEND_QUEUE, 2), 0);
    cr_assert_eq(node_set_int(b, SPOKE_OPT_RECV_QUEUE, 2), 0);
    cr_assert_eq(node_get_int(a, SPOKE_OPT_SEND_FD, &fd), 0);
    check_descriptor(w, fd, true);
    cr_assert_eq(node_send_pattern(a, 100000, 0, SPOKE_DONTWAIT), 0);
    check_descriptor(w, fd, true);
    cr_assert_eq(node_send_pattern(a, 100000, 1, SPOKE_DONTWAIT), 0);
    check_descriptor(w, fd, false);
    world_connect(w, a, b);
    check_descriptor(w, fd, true);
    cr_assert_eq(node_expect(b, 100000, 0), 0);
    cr_assert_eq(node_expect(b, 100000, 1), 0);
    uint32_t sent = send_until_quiet(w, a, fd, 100000);
    for (uint32_t i = 0; i < sent; i++)
        cr_assert_eq(node_expect(b, 100000, i), 0);
    check_descriptor(w, fd, true);
    world_close(w);
}

WORLD_TEST(waiting, a_replier_can_send_only_after_it_received, world_cases_real)
{
    struct world *w = world_open(c);
    struct node *rep = world_add(w, SPOKE_REP), *req = world_add(w, SPOKE_REQ);
    spoke_msg *m;
    int readable = -1;

    world_connect(w, rep, req);
    cr_assert_eq(node_send_pattern(rep, 1, 0, 0), SPOKE_ESTATE);
    cr_assert_eq(node_recv(req, &m, 0), SPOKE_ESTATE);
    cr_assert_eq(node_get_int(rep, SPOKE_OPT_RECV_FD, &readable), 0);
    check_descriptor(w, readable, false);
    cr_assert_eq(node_send_pattern(req, 1, 0, 0), 0);
    check_descriptor(w, readable, true);
    cr_assert_eq(node_expect(rep, 1, 0), 0);
    cr_assert_eq(node_send_pattern(rep, 1, 0, 0), 0);
    cr_assert_eq(node_expect(req, 1, 0), 0);
    check_descriptor(w, readable, false);
    world_close(w);
}

/* A wait of a simulated world ends when nothing could ever happen. */
Test(waiting, a_simulated_wait_without_hope_is_a_deadlock)
{
    const struct world_case c = {INPROC, SIM};
    struct world *w = world_open(&c);
    struct node *a = world_add(w, SPOKE_PAIR);
    spoke_msg *m;

    cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECV_TIMEOUT, SPOKE_FOREVER), 0);
    int rc = node_recv(a, &m, 0);
    cr_assert_eq(rc, SPOKE_EDEADLK, "%s", spoke_error_name(rc));
    world_close(w);
}

/* ---- no peers ---- */

static int
receive_and_free(struct node *n, void *ctx)
{
    spoke_msg *m;
    int rc = spoke_recv(n->s, &m, 0);

    (void)ctx;
    if (rc == 0)
        spoke_msg_free(m);
    return rc;
}

WORLD_TEST(waiting, without_peers_calls_may_fail_instead, world_cases)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    spoke_msg *m, *got = (spoke_msg *)1;

    cr_assert_eq(node_set_bool(a, SPOKE_OPT_FAIL_NO_PEERS, true), 0);
    m = pattern_message(10, 1);
    cr_assert_eq(node_send(a, m, 0), SPOKE_ENOPEER);
    cr_assert_eq(node_send(a, m, SPOKE_DONTWAIT), SPOKE_ENOPEER);
    cr_assert(pattern_holds(spoke_msg_body(m), 10, 1), "it is still the caller's");
    cr_assert_eq(node_recv(a, &got, 0), SPOKE_ENOPEER);
    cr_assert_null(got);
    cr_assert_eq(node_recv(a, &got, SPOKE_DONTWAIT), SPOKE_ENOPEER);
    world_connect(w, a, b);
    cr_assert_eq(node_send(a, m, 0), 0);
    cr_assert_eq(node_expect(b, 10, 1), 0);
    cr_assert_eq(node_recv(a, &got, SPOKE_DONTWAIT), SPOKE_EAGAIN);

    /* What a peer has left behind is still there. */
    cr_assert_eq(node_send_pattern(b, 20, 2, 0), 0);
    cr_assert_eq(node_close(b, NULL), 0);
    b->s = NULL;
    world_wait_pipes(w, a, 0);
    cr_assert_eq(node_expect(a, 20, 2), 0);
    cr_assert_eq(node_recv(a, &got, 0), SPOKE_ENOPEER);
    world_close(w);
}

WORLD_TEST(waiting, who_waits_is_told_that_the_last_peer_has_gone, world_cases_threaded)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);

    cr_assert_eq(node_set_bool(a, SPOKE_OPT_FAIL_NO_PEERS, true), 0);
    cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECV_TIMEOUT, SPOKE_FOREVER), 0);
    world_connect(w, a, b);
    struct task *task = node_start(a, receive_and_free, NULL);
    world_pass(w, 20 * SPOKE_MS);
    cr_assert_eq(node_close(b, NULL), 0);
    b->s = NULL;
    int rc = task_join(task);
    cr_assert_eq(rc, SPOKE_ENOPEER, "%s", spoke_error_name(rc));
    world_close(w);
}

/* ---- signals ---- */

static void
on_signal(int number)
{
    (void)number;
}

/* SIGALRM again and again, so that one of them finds the call asleep. */
static void
start_alarms(timer_t *timer, int flags)
{
    static const struct itimerspec often = {.it_interval = {.tv_nsec = 20000000},
                                            .it_value = {.tv_nsec = 20000000}};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = flags};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};

    cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
    cr_assert_eq(timer_create(CLOCK_MONOTONIC, &event, timer), 0);
    cr_assert_eq(timer_settime(*timer, 0, &often, NULL), 0);
}

/* One signal, to a thread that sleeps. */
struct alarm {
    pthread_t sleeper, thread;
    pid_t sleeper_tid;
};

static void *
run_alarm(void *argument)
{
    struct alarm *a = argument;

    return await_sleep(a->sleeper_tid) && pthread_kill(a->sleeper, SIGALRM) == 0 ? NULL : argument;
}

static void
start_one_alarm(struct alarm *a)
{
    struct sigaction action = {.sa_handler = on_signal};

    *a = (struct alarm){.sleeper = pthread_self(), .sleeper_tid = gettid()};
    cr_assert_eq(sigaction(SIGALRM, &action, NULL), 0);
    cr_assert_eq(pthread_create(&a->thread, NULL, run_alarm, a), 0);
}

static void
check_interruption(spoke_engine *e, int flags)
{
    spoke_socket *s;
    timer_t timer;
    spoke_msg *m;

    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 0), 0);
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_INTERRUPTIBLE, true), 0);
    start_alarms(&timer, flags);
    cr_assert_eq(spoke_recv(s, &m, 0), SPOKE_EINTR);
    cr_assert_null(m);
    cr_assert_eq(spoke_send_bytes(s, "a", 1, 0), SPOKE_EINTR);
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_INTERRUPTIBLE, false), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 100 * SPOKE_MS), 0);
    cr_assert_eq(spoke_recv(s, &m, 0), SPOKE_ETIMEDOUT, "signals are none of its business");
    cr_assert_eq(timer_delete(timer), 0);
    cr_assert_eq(spoke_socket_close(s), 0);
}

/* Also the first wait after a message, which has a receive to submit. */
Test(waiting, a_signal_handler_ends_a_wait_that_submits)
{
    spoke_engine *e;
    spoke_socket *a, *b;
    char url[ENDPOINT_MAX];
    struct alarm alarm;
    void *failed;
    spoke_msg *m;

    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&a, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_open(&b, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_set_bool(b, SPOKE_OPT_INTERRUPTIBLE, true), 0);
    cr_assert_eq(spoke_socket_set_duration(b, SPOKE_OPT_BUSY_POLL, SPOKE_WAIT_BLOCK), 0);
    cr_assert_eq(spoke_socket_set_duration(b, SPOKE_OPT_RECV_TIMEOUT, WORLD_PATIENCE), 0);
    cr_assert_eq(spoke_listen(a, url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(b, url, NULL, SPOKE_WAIT_FIRST), 0);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(spoke_send_bytes(a, "a", 1, 0), 0);
        cr_assert_eq(spoke_recv(b, &m, 0), 0);
        spoke_msg_free(m);
        start_one_alarm(&alarm);
        cr_assert_eq(spoke_recv(b, &m, 0), SPOKE_EINTR);
        pthread_join(alarm.thread, &failed);
        cr_assert_null(failed);
    }
    cr_assert_eq(spoke_engine_close(e), 0);
}

Test(waiting, a_signal_handler_ends_a_wait_that_is_interruptible)
{
    spoke_engine *e;

    check_interruption(NULL, 0);
    check_interruption(NULL, SA_RESTART);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    check_interruption(e, 0);
    check_interruption(e, SA_RESTART);
    cr_assert_eq(spoke_engine_close(e), 0);
}
