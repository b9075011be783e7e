/* SPDX-License-Identifier: MIT */
/* Callers that wait alone on the shared engine sleep on the sockets themselves, and nobody else
 * looks at these meanwhile, nor for a moment afterwards.  Nobody may notice, but in time. */
#include "tests/protocols/fixture.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>

#include "runtime/engine/engine.h"

static struct spk_engine *
engine(void)
{
    struct spk_engine *e;

    cr_assert_eq(spk_engine_default(&e), 0);
    return e;
}

static bool
somebody_sleeps_on_sockets(void)
{
    struct spk_engine *e = engine();
    bool is_there;

    cr_assert_eq(spk_engine_enter(e), 0);
    is_there = e->poller != NULL;
    spk_engine_leave(e);
    return is_there;
}

static spoke_socket *
open_blocking(void)
{
    spoke_socket *s = open_socket(SPOKE_PULL);

    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_BUSY_POLL, SPOKE_WAIT_BLOCK), 0);
    return s;
}

static void
open_with_peer(spoke_socket **s, struct raw_peer *p, char url[ENDPOINT_MAX])
{
    *s = open_blocking();
    listen_on(*s, IPC, url);
    join(p, *s, url, 1);
}

/* Receive in a thread of its own until that sleeps on the socket; it goes on with that. */
static void
wait_alone(struct waiting_call *call, spoke_socket *s, struct raw_peer *p)
{
    for (int i = 0; i < 1000; i++) {
        start_call(call, s, NULL);
        await_receivers(s, 1);
        if (somebody_sleeps_on_sockets())
            return;
        raw_send_text(p, "warm up");
        cr_assert_eq(end_call(call), 0);
    }
    cr_assert_fail("nobody sleeps on the sockets");
}

/* What most tests have: a socket, its one peer, and a caller that waits alone. */
struct alone {
    spoke_socket *s;
    struct raw_peer p;
    struct waiting_call call;
    char url[ENDPOINT_MAX];
};

static void
open_alone(struct alone *a)
{
    open_with_peer(&a->s, &a->p, a->url);
}

static void
start_alone(struct alone *a)
{
    wait_alone(&a->call, a->s, &a->p);
}

static void
expect_end(struct waiting_call *call, const char *text)
{
    cr_assert_eq(end_call(call), 0);
    cr_assert_str_eq(call->received, text);
}

static void
finish_with(struct raw_peer *p)
{
    raw_close(p);
    finish();
}

Test(alone, a_message_wakes_who_sleeps_on_its_socket)
{
    struct alone a;

    open_alone(&a);
    for (int i = 0; i < 100; i++) {
        start_alone(&a);
        raw_send_text(&a.p, "hello");
        expect_end(&a.call, "hello");
        cr_assert_not(somebody_sleeps_on_sockets());
    }
    finish_with(&a.p);
}

Test(alone, a_message_that_comes_in_pieces_arrives_whole)
{
    struct alone a;
    uint8_t bytes[RAW_IPC_PREFIX_BYTES + 5] = {1, [8] = 5, 'h', 'e', 'l', 'l', 'o'};

    open_alone(&a);
    start_alone(&a);
    for (size_t i = 0; i < sizeof bytes; i++) {
        cr_assert_eq(raw_send_bytes(&a.p, bytes + i, 1, RAW_LIMIT_MS), RAW_OK);
        sleep_ms(1);
    }
    expect_end(&a.call, "hello");
    finish_with(&a.p);
}

Test(alone, a_close_wakes_who_sleeps_on_a_socket)
{
    struct alone a;

    open_alone(&a);
    start_alone(&a);
    cr_assert_eq(spoke_socket_close(a.s), 0);
    cr_assert_eq(end_call(&a.call), SPOKE_ECLOSED);
    finish_with(&a.p);
}

Test(alone, a_time_limit_ends_the_sleep)
{
    struct alone a;
    spoke_ns before;

    open_alone(&a);
    start_alone(&a);
    raw_send_text(&a.p, "x");
    expect_end(&a.call, "x");
    cr_assert_eq(spoke_socket_set_duration(a.s, SPOKE_OPT_RECV_TIMEOUT, 50 * SPOKE_MS), 0);
    before = spk_engine_now(engine());
    start_call(&a.call, a.s, NULL);
    cr_assert_eq(end_call(&a.call), SPOKE_ETIMEDOUT);
    cr_assert_geq(spk_engine_now(engine()) - before, 50 * SPOKE_MS);
    finish_with(&a.p);
}

Test(alone, the_end_of_a_connection_is_seen_during_the_sleep)
{
    struct alone a;

    open_alone(&a);
    start_alone(&a);
    raw_close(&a.p);
    wait_pipes(a.s, 0);
    join(&a.p, a.s, a.url, 1);
    raw_send_text(&a.p, "again");
    expect_end(&a.call, "again");
    finish_with(&a.p);
}

Test(alone, the_end_of_a_connection_is_seen_after_the_sleep)
{
    struct alone a;

    open_alone(&a);
    start_alone(&a);
    raw_send_text(&a.p, "last");
    expect_end(&a.call, "last");
    raw_close(&a.p);
    wait_pipes(a.s, 0); /* nobody waits: the library's thread */
    finish_with(&a.p);
}

Test(alone, a_peer_is_told_at_once_that_its_connection_is_closed)
{
    struct alone a;
    uint8_t byte;

    open_alone(&a);
    watch_pipes(a.s);
    raw_close(&a.p);
    wait_pipes(a.s, 0);
    join(&a.p, a.s, a.url, 1);
    start_alone(&a);
    cr_assert_eq(spoke_pipe_close(a.s, watched_pipe(0)), 0);
    cr_assert_eq(raw_recv_bytes(&a.p, &byte, 1, RAW_LIMIT_MS), RAW_EOF);
    cr_assert_eq(spoke_socket_close(a.s), 0);
    cr_assert_eq(end_call(&a.call), SPOKE_ECLOSED);
    finish_with(&a.p);
}

Test(alone, a_peer_that_comes_during_the_sleep_is_heard)
{
    struct alone a;
    struct raw_peer other;

    open_alone(&a);
    start_alone(&a);
    join(&other, a.s, a.url, 2);
    raw_send_text(&other, "from the other");
    expect_end(&a.call, "from the other");
    raw_close(&other);
    finish_with(&a.p);
}

/* To see what the library does by itself: asking it anything would make it look. */
static int
recv_fd_of(spoke_socket *s)
{
    int fd;

    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_RECV_FD, &fd), 0);
    return fd;
}

static void
expect_readable(int fd)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    cr_assert_eq(poll(&wait, 1, (int)(PATIENCE / SPOKE_MS)), 1);
}

Test(alone, what_was_left_to_a_caller_that_stops_waiting_is_looked_after)
{
    struct alone a;
    int fd;

    open_alone(&a);
    fd = recv_fd_of(a.s);
    start_alone(&a);
    sleep_ms(30); /* longer than a lease: the library's thread sleeps without a limit */
    raw_send_text(&a.p, "x");
    expect_end(&a.call, "x");
    raw_send_text(&a.p, "later");
    expect_readable(fd);
    expect_text(a.s, "later");
    finish_with(&a.p);
}

Test(alone, what_was_left_to_a_caller_that_gives_up_is_looked_after)
{
    struct alone a;
    int fd;

    open_alone(&a);
    fd = recv_fd_of(a.s);
    start_alone(&a);
    raw_send_text(&a.p, "x");
    expect_end(&a.call, "x");
    cr_assert_eq(spoke_socket_set_duration(a.s, SPOKE_OPT_RECV_TIMEOUT, 50 * SPOKE_MS), 0);
    start_call(&a.call, a.s, NULL);
    cr_assert_eq(end_call(&a.call), SPOKE_ETIMEDOUT);
    raw_send_text(&a.p, "later");
    expect_readable(fd);
    expect_text(a.s, "later");
    finish_with(&a.p);
}

/* How many receives are left to callers because some wait for what they bring? */
static int
left_to_callers(void)
{
    struct spk_engine *e = engine();
    int count = 0;

    cr_assert_eq(spk_engine_enter(e), 0);
    SPK_LIST_EACH(link, &e->hot)
    {
        count += SPK_OWNER(link, struct spk_op, link)->awaited;
    }
    spk_engine_leave(e);
    return count;
}

Test(alone, a_receive_that_does_not_wait_looks_at_the_sockets)
{
    struct alone a;
    spoke_msg *m;
    int rc, left = 0, found = 0;

    open_alone(&a);
    for (int i = 0; i < 50; i++) {
        start_alone(&a);
        raw_send_text(&a.p, "x");
        expect_end(&a.call, "x");
        raw_send_text(&a.p, "y");
        left += left_to_callers();
        if ((rc = spoke_recv(a.s, &m, SPOKE_DONTWAIT)) == SPOKE_EAGAIN) {
            expect_text(a.s, "y"); /* the library's thread is about to bring it */
            continue;
        }
        cr_assert_eq(rc, 0);
        cr_assert(text_is(m, "y"));
        spoke_msg_free(m);
        found++;
    }
    /* It may have been too late for some, on a slow machine. */
    cr_assert_geq(found, left / 2, "%d of %d", found, left);
    finish_with(&a.p);
}

Test(alone, nothing_is_left_to_who_does_not_wait_any_more)
{
    struct alone a;
    spoke_msg *m;

    open_alone(&a);
    for (int i = 0; i < 10; i++) {
        start_alone(&a);
        raw_send_text(&a.p, "x");
        expect_end(&a.call, "x");
        if (i % 2 == 1) /* another way of not waiting */
            cr_assert_eq(spoke_socket_set_duration(a.s, SPOKE_OPT_RECV_TIMEOUT, 0), 0);
        for (int n = 0; n < 5; n++) {
            cr_assert_eq(spoke_recv(a.s, &m, i % 2 == 1 ? 0 : SPOKE_DONTWAIT),
                         i % 2 == 1 ? SPOKE_ETIMEDOUT : SPOKE_EAGAIN);
            raw_send_text(&a.p, "y");
            expect_fd(a.s, SPOKE_OPT_RECV_FD, true);
            cr_assert_eq(left_to_callers(), 0);
            expect_text(a.s, "y");
        }
        cr_assert_eq(spoke_socket_set_duration(a.s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    }
    finish_with(&a.p);
}

/* ---- two at a time ---- */

Test(alone, a_second_one_gets_its_messages_too)
{
    char url[ENDPOINT_MAX], other_url[ENDPOINT_MAX];
    struct waiting_call call, other_call;
    spoke_socket *s, *other;
    struct raw_peer p, other_p;

    open_with_peer(&s, &p, url);
    open_with_peer(&other, &other_p, other_url);
    for (int i = 0; i < 20; i++) {
        wait_alone(&call, s, &p);
        start_call(&other_call, other, NULL);
        await_receivers(other, 1);
        if (i % 2 == 0) { /* who sleeps otherwise first, then the other way round */
            raw_send_text(&other_p, "other");
            expect_end(&other_call, "other");
            raw_send_text(&p, "one");
            expect_end(&call, "one");
        } else {
            raw_send_text(&p, "one");
            expect_end(&call, "one");
            raw_send_text(&other_p, "other");
            expect_end(&other_call, "other");
        }
        for (int n = 0; n < 70; n++) { /* what two at a time have cost is forgotten */
            raw_send_text(&p, "x");
            expect_text(s, "x");
        }
    }
    raw_close(&other_p);
    finish_with(&p);
}

Test(alone, who_sleeps_on_sockets_brings_others_what_they_have)
{
    char url[ENDPOINT_MAX], other_url[ENDPOINT_MAX];
    struct waiting_call call;
    spoke_socket *s, *other;
    struct raw_peer p, other_p;

    open_with_peer(&s, &p, url);
    open_with_peer(&other, &other_p, other_url);
    for (int i = 0; i < 10; i++) {
        wait_alone(&call, other, &other_p);
        raw_send_text(&other_p, "x");
        expect_end(&call, "x"); /* left to callers */
        wait_alone(&call, s, &p);
        raw_send_text(&other_p, "for the other");
        expect_fd(other, SPOKE_OPT_RECV_FD, true);
        expect_text(other, "for the other");
        raw_send_text(&p, "one");
        expect_end(&call, "one");
    }
    raw_close(&other_p);
    finish_with(&p);
}

struct echo {
    spoke_socket *s;
    int count;
    pthread_t thread;
};

static void *
receive_all(void *argument)
{
    struct echo *echo = argument;
    spoke_msg *m;

    for (; echo->count > 0 && spoke_recv(echo->s, &m, 0) == 0; echo->count--)
        spoke_msg_free(m);
    return NULL;
}

Test(alone, threads_that_come_and_go_get_all_their_messages)
{
    enum { SOCKETS = 3, MESSAGES = 2000 };
    char url[ENDPOINT_MAX];
    struct echo echoes[SOCKETS];
    struct raw_peer p[SOCKETS];

    for (int i = 0; i < SOCKETS; i++) {
        echoes[i].count = MESSAGES;
        open_with_peer(&echoes[i].s, &p[i], url);
        cr_assert_eq(pthread_create(&echoes[i].thread, NULL, receive_all, &echoes[i]), 0);
    }
    for (int n = 0; n < MESSAGES; n++) {
        raw_send_text(&p[n % 2], "x"); /* two of them first, in turns */
        if (n >= MESSAGES / 2)
            raw_send_text(&p[2], "x");
    }
    for (int n = 0; n < MESSAGES; n++)
        raw_send_text(&p[n % 2], "x");
    for (int n = 0; n < MESSAGES / 2; n++)
        raw_send_text(&p[2], "x");
    for (int i = 0; i < SOCKETS; i++) {
        pthread_join(echoes[i].thread, NULL);
        cr_assert_eq(echoes[i].count, 0, "%d: %d are missing", i, echoes[i].count);
        raw_close(&p[i]);
    }
    finish();
}

/* ---- the rest ---- */

static void
do_nothing(int signal)
{
    (void)signal;
}

Test(alone, a_signal_ends_the_sleep_of_who_wants_that)
{
    struct alone a;
    struct sigaction action = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};

    cr_assert_eq(sigaction(SIGUSR2, &action, NULL), 0);
    open_alone(&a);
    start_alone(&a);
    pthread_kill(a.call.thread, SIGUSR2);
    sleep_ms(20);
    raw_send_text(&a.p, "went on");
    expect_end(&a.call, "went on");
    cr_assert_eq(spoke_socket_set_bool(a.s, SPOKE_OPT_INTERRUPTIBLE, true), 0);
    start_alone(&a);
    while (pthread_kill(a.call.thread, SIGUSR2) == 0 && somebody_sleeps_on_sockets())
        sleep_ms(10);
    cr_assert_eq(end_call(&a.call), SPOKE_EINTR);
    finish_with(&a.p);
}

/* Is the last receive that brought something among those that callers look after now? */
static bool
last_one_is_left_to_callers(void)
{
    struct spk_engine *e = engine();
    bool is_left;

    cr_assert_eq(spk_engine_enter(e), 0);
    is_left = e->hot_count > 0 &&
              e->polls - SPK_OWNER(e->hot.prev, struct spk_op, link)->hot_at < 3;
    spk_engine_leave(e);
    return is_left;
}

static void
exchange(spoke_socket *s, struct raw_peer *p, int count)
{
    struct waiting_call call;

    for (int i = 0; i < count; i++) {
        start_call(&call, s, NULL);
        await_receivers(s, 1);
        raw_send_text(p, "x");
        expect_end(&call, "x");
    }
}

Test(alone, idle_connections_do_not_keep_a_busy_one_from_it)
{
    enum { PEERS = 12 };
    char url[ENDPOINT_MAX];
    struct raw_peer p[PEERS];
    spoke_socket *s = open_blocking();

    listen_on(s, IPC, url);
    for (int i = 0; i < PEERS; i++) {
        join(&p[i], s, url, (uint64_t)i + 1);
        exchange(s, &p[i], 3);
    }
    exchange(s, &p[PEERS - 1], 80);
    for (int i = 0; i < 1000 && !last_one_is_left_to_callers(); i++)
        exchange(s, &p[PEERS - 1], 1);
    cr_assert(last_one_is_left_to_callers());
    for (int i = 0; i < PEERS; i++) {
        raw_send_text(&p[i], "still there");
        expect_text(s, "still there");
        raw_close(&p[i]);
    }
    finish();
}
