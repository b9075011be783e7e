/* SPDX-License-Identifier: MIT */
/* Engines: how a thread drives its own, and how others reach it. */
#include "tests/support/world.h"

#include <errno.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/process.h"
#include "tests/support/raw_peer.h"
#include "tests/support/resources.h"

static spoke_engine *e;
static struct resources before;

static void
open_engine(void)
{
    scratch_dir();
    resources_take(&before);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
}

static void
close_engine(void)
{
    cr_assert_eq(spoke_engine_close(e), 0);
    resources_settle(&before);
}

TestSuite(engine, .init = open_engine, .fini = close_engine);

/* What ran, in order. */
static int log_size;
static int log_entries[64];

static void
log_entry(void *ctx)
{
    log_entries[log_size++] = (int)(intptr_t)ctx;
}

static void *
entry(int number)
{
    return (void *)(intptr_t)number; /* NOLINT: a number, not a place */
}

static void
stop_engine(void *ctx)
{
    log_entry(ctx);
    cr_assert_eq(spoke_engine_stop(e), 0);
}

Test(engine, posts_run_in_order_in_the_loop)
{
    for (int i = 0; i < 50; i++)
        cr_assert_eq(spoke_engine_post(e, log_entry, entry(i)), 0);
    cr_assert_eq(log_size, 0, "not inside the call");
    cr_assert_eq(spoke_engine_post(e, stop_engine, entry(50)), 0);
    cr_assert_eq(spoke_engine_run(e), 0);
    cr_assert_eq(log_size, 51);
    for (int i = 0; i < 51; i++)
        cr_assert_eq(log_entries[i], i);
}

static void *
post_and_stop(void *argument)
{
    usleep(20 * 1000);
    for (int i = 0; i < 10; i++) {
        if (spoke_engine_post(e, log_entry, entry(i)) != 0)
            return argument;
    }
    return spoke_engine_stop(e) == 0 ? NULL : argument;
}

Test(engine, other_threads_may_post_and_stop)
{
    pthread_t thread;
    void *failed;

    for (int round = 1; round <= 3; round++) {
        cr_assert_eq(pthread_create(&thread, NULL, post_and_stop, &log_size), 0);
        cr_assert_eq(spoke_engine_run(e), 0);
        pthread_join(thread, &failed);
        cr_assert_null(failed);
        cr_assert_geq(spoke_engine_poll(e, 0), 0);
        cr_assert_eq(log_size, 10 * round);
    }
}

Test(engine, a_stop_before_the_run_ends_it_at_once)
{
    cr_assert_eq(spoke_engine_stop(e), 0);
    cr_assert_eq(spoke_engine_run(e), 0);
    cr_assert_eq(spoke_engine_post(e, stop_engine, NULL), 0);
    cr_assert_eq(spoke_engine_run(e), 0);
    cr_assert_eq(log_size, 1);
}

static void
flag_it(void *ctx)
{
    *(bool *)ctx = true;
}

Test(engine, what_is_posted_to_an_engine_that_closes_runs)
{
    spoke_engine *other;
    bool ran = false;

    cr_assert_eq(spoke_engine_open(&other, NULL), 0);
    cr_assert_eq(spoke_engine_post(other, flag_it, &ran), 0);
    cr_assert_eq(spoke_engine_close(other), 0);
    cr_assert(ran);
    cr_assert_eq(spoke_engine_post(other, flag_it, &ran), SPOKE_ECLOSED);
    cr_assert_eq(spoke_engine_stop(other), SPOKE_ECLOSED);
    cr_assert_null(spoke_engine_backend(other));
}

Test(engine, timers_run_in_the_order_of_their_times)
{
    enum { COUNT = 6 };
    static const int delays_ms[COUNT] = {90, 30, 70, 0, 50, 30};
    spoke_ns earliest[COUNT], latest[COUNT]; /* a pause may come between any two calls */

    for (int i = 0; i < COUNT; i++) {
        earliest[i] = spoke_engine_now(e) + delays_ms[i] * SPOKE_MS;
        cr_assert_eq(spoke_engine_after(e, delays_ms[i] * SPOKE_MS, log_entry, entry(i), NULL), 0);
        latest[i] = spoke_engine_now(e) + delays_ms[i] * SPOKE_MS;
    }
    while (log_size < COUNT) {
        int seen = log_size;

        cr_assert_geq(spoke_engine_poll(e, WORLD_PATIENCE), 0);
        cr_assert_gt(log_size, seen, "a poll ends when one has run");
        for (int i = seen; i < log_size; i++)
            cr_assert_geq(spoke_engine_now(e), earliest[log_entries[i]], "not before its time");
    }
    for (int i = 1; i < COUNT; i++)
        cr_assert_leq(earliest[log_entries[i - 1]], latest[log_entries[i]], "place %d: %d", i,
                      log_entries[i]);
}

Test(engine, a_cancelled_timer_does_not_run)
{
    uint64_t ids[3];

    for (int i = 0; i < 3; i++)
        cr_assert_eq(spoke_engine_after(e, 5 * SPOKE_MS, log_entry, entry(i), &ids[i]), 0);
    cr_assert_eq(spoke_engine_cancel(e, ids[1]), 0);
    cr_assert_eq(spoke_engine_cancel(e, ids[1]), SPOKE_ENOENT);
    spoke_ns end = spoke_engine_now(e) + 30 * SPOKE_MS;
    while (spoke_engine_now(e) < end || log_size < 2)
        cr_assert_geq(spoke_engine_poll(e, 5 * SPOKE_MS), 0);
    cr_assert_eq(log_size, 2);
    cr_assert_eq(log_entries[0], 0);
    cr_assert_eq(log_entries[1], 2);
    cr_assert_eq(spoke_engine_cancel(e, ids[0]), SPOKE_ENOENT, "it has run");
    cr_assert_eq(spoke_engine_after(e, SPOKE_SECOND, log_entry, NULL, NULL), 0);
}

static int chained;

static void
set_the_next(void *ctx)
{
    (void)ctx;
    if (++chained < 100)
        cr_assert_eq(spoke_engine_after(e, chained % 2, set_the_next, NULL, NULL), 0);
    else
        cr_assert_eq(spoke_engine_stop(e), 0);
}

Test(engine, a_timer_may_set_the_next)
{
    cr_assert_eq(spoke_engine_after(e, 0, set_the_next, NULL, NULL), 0);
    cr_assert_eq(chained, 0, "not inside the call");
    cr_assert_eq(spoke_engine_run(e), 0);
    cr_assert_eq(chained, 100);
}

static void
log_number(void *ctx)
{
    (*(int *)ctx)++;
}

Test(engine, a_hundred_thousand_timers_are_no_burden)
{
    enum { TIMERS = 100000 };
    static uint64_t ids[TIMERS];
    int ran = 0, cancelled = 0;

    for (int i = 0; i < TIMERS; i++) {
        spoke_ns after = i % 3 == 0 ? 1000 * SPOKE_SECOND : (i * 7919 % 1000) * SPOKE_US;
        cr_assert_eq(spoke_engine_after(e, after, log_number, &ran, &ids[i]), 0);
    }
    for (int i = 0; i < TIMERS; i += 3, cancelled++)
        cr_assert_eq(spoke_engine_cancel(e, ids[i]), 0);
    while (ran < TIMERS - cancelled)
        cr_assert_geq(spoke_engine_poll(e, SPOKE_MS), 0);
    cr_assert_eq(ran, TIMERS - cancelled);
}

Test(engine, a_poll_waits_as_long_as_it_was_told)
{
    spoke_ns begin = spoke_engine_now(e);
    cr_assert_eq(spoke_engine_poll(e, 0), 0);
    cr_assert_lt(spoke_engine_now(e) - begin, WORLD_PATIENCE);

    begin = spoke_engine_now(e);
    cr_assert_eq(spoke_engine_poll(e, 30 * SPOKE_MS), 0);
    spoke_ns took = spoke_engine_now(e) - begin;
    cr_assert(took >= 29 * SPOKE_MS && took < WORLD_PATIENCE, "%lld ns", (long long)took);
    cr_assert_eq(spoke_engine_post(e, log_entry, NULL), 0);
    cr_assert_eq(spoke_engine_poll(e, WORLD_PATIENCE), 1);
}

static int rc_inside[3];

static void
call_from_inside(void *ctx)
{
    (void)ctx;
    rc_inside[0] = spoke_engine_run(e);
    rc_inside[1] = spoke_engine_poll(e, 0);
    rc_inside[2] = spoke_engine_close(e);
}

Test(engine, a_callback_may_not_drive_or_close_its_engine)
{
    cr_assert_eq(spoke_engine_post(e, call_from_inside, NULL), 0);
    cr_assert_eq(spoke_engine_poll(e, SPOKE_SECOND), 1);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(rc_inside[i], SPOKE_EDEADLK, "%d: %s", i, spoke_error_name(rc_inside[i]));
}

/* A loop of somebody else's, as an application has it: it sees work through one descriptor. */
static bool
is_readable(int fd, int limit_ms)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    return poll(&wait, 1, limit_ms) == 1;
}

/* Now and then it is readable once more for nothing; it must not stay so. */
static void
quiet(int fd)
{
    for (int i = 0; i < 20; i++) {
        cr_assert_geq(spoke_engine_poll(e, 0), 0);
        if (!is_readable(fd, 20))
            return;
    }
    cr_assert_fail("readable without work");
}

static void
foreign_loop(int fd, const int *counter, int wanted)
{
    while (*counter < wanted) {
        cr_assert(is_readable(fd, 5000 * SPOKE_TEST_SLOWDOWN), "work, and nothing to see");
        cr_assert_geq(spoke_engine_poll(e, 0), 0);
    }
}

static void
count_message(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)s;
    spoke_msg_free(m);
    (*(int *)ctx)++;
}

Test(engine, a_foreign_loop_sees_work_through_the_descriptor)
{
    spoke_socket *in, *out;
    char url[ENDPOINT_MAX];
    int received = 0, fd = spoke_engine_fd(e);
    pthread_t thread;
    void *failed;

    cr_assert_geq(fd, 0, "%s", spoke_error_name(fd));
    quiet(fd);
    cr_assert_eq(pthread_create(&thread, NULL, post_and_stop, &log_size), 0);
    foreign_loop(fd, &log_size, 10);
    pthread_join(thread, &failed);
    cr_assert_null(failed);
    quiet(fd);

    cr_assert_eq(spoke_engine_after(e, 10 * SPOKE_MS, log_entry, NULL, NULL), 0);
    foreign_loop(fd, &log_size, 11);
    quiet(fd);

    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_socket_open(&in, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_open(&out, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_socket_on_message(in, count_message, &received), 0);
    cr_assert_eq(spoke_listen(in, url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(out, url, NULL, 0), 0);
    for (int i = 1; i <= 20; i++) {
        cr_assert_eq(spoke_send_bytes(out, "x", 1, 0), 0);
        foreign_loop(fd, &received, i);
        quiet(fd);
    }
    cr_assert_eq(spoke_socket_close(out), 0);
    cr_assert_eq(spoke_socket_close(in), 0);
    resources_take(&before); /* the shared engine stays */
    before.fds_count++;
    before.threads++;
}

Test(engine, says_what_it_is)
{
    struct spoke_engine_info info;
    const char *wanted = getenv("SPOKE_BACKEND"), *masked = getenv("SPOKE_MASK_FEATURES");

    cr_assert_eq(spoke_engine_get_info(e, &info), 0);
    if (masked != NULL)
        cr_assert_eq(info.features & strtoul(masked, NULL, 0), 0);
    cr_assert_str_eq(info.backend, spoke_engine_backend(e));
    if (wanted != NULL)
        cr_assert_str_eq(info.backend, wanted);
    cr_assert_eq(info.why_not_uring == NULL, strcmp(info.backend, "uring") == 0);
    uint64_t turns = info.turns;
    for (int i = 0; i < 1000 && info.sleeps == 0; i++) { /* or its time is over before it does */
        cr_assert_geq(spoke_engine_poll(e, SPOKE_MS), 0);
        cr_assert_eq(spoke_engine_get_info(e, &info), 0);
    }
    cr_assert_gt(info.turns, turns);
    cr_assert_geq(info.sleeps, 1);
}

/* A request and its answer on an engine that may not use some of what the kernel offers. */
static void
check_masked(const char *backend, uint32_t mask)
{
    spoke_engine_config config;
    struct spoke_engine_info info;
    spoke_engine *other;
    spoke_socket *req, *rep;
    spoke_msg *m;
    char url[ENDPOINT_MAX];

    spoke_engine_config_init(&config);
    config.backend = backend;
    config.mask_features = mask;
    int rc = spoke_engine_open(&other, &config);
    cr_assert_eq(rc, 0, "%s, without %x: %s", backend, mask, spoke_error_name(rc));
    cr_assert_eq(spoke_engine_get_info(other, &info), 0);
    cr_assert_eq(info.features & mask, 0);
    cr_assert_str_eq(info.backend, backend);
    for (int transport = INPROC; transport <= SHM; transport++) {
        endpoint_fresh(url, (enum transport)transport);
        cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, other), 0);
        cr_assert_eq(spoke_socket_open(&rep, SPOKE_REP, other), 0);
        cr_assert_eq(spoke_socket_set_duration(rep, SPOKE_OPT_RECV_TIMEOUT, WORLD_PATIENCE), 0);
        cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_RECV_TIMEOUT, WORLD_PATIENCE), 0);
        cr_assert_eq(spoke_listen(rep, url, NULL, 0), 0);
        cr_assert_eq(spoke_dial(req, url, NULL, SPOKE_WAIT_FIRST), 0);
        for (uint32_t i = 0; i < 20; i++) {
            size_t size = i % 5 * 50000;
            cr_assert_eq(spoke_send(req, pattern_message(size, i), 0), 0);
            rc = spoke_recv(rep, &m, 0);
            cr_assert_eq(rc, 0, "%s: %s", url, spoke_error_name(rc));
            cr_assert_eq(spoke_send(rep, m, 0), 0);
            rc = spoke_recv(req, &m, 0);
            cr_assert_eq(rc, 0, "%s: %s", url, spoke_error_name(rc));
            cr_assert_eq(spoke_msg_size(m), size);
            cr_assert(pattern_holds(spoke_msg_body(m), size, i));
            spoke_msg_free(m);
        }
        cr_assert_eq(spoke_socket_close(req), 0);
        cr_assert_eq(spoke_socket_close(rep), 0);
    }
    cr_assert_eq(spoke_engine_close(other), 0);
}

/* By the kernel, which is asked itself: what the library makes of it is what is tested. */
static bool
uring_is_denied(void)
{
    struct io_uring_params params = {0};
    int fd = (int)syscall(SYS_io_uring_setup, 1, &params);

    if (fd < 0)
        return errno == EPERM || errno == EACCES || errno == ENOSYS;
    close(fd);
    return false;
}

Test(engine, every_feature_of_the_kernel_has_a_fallback)
{
    if (uring_is_denied())
        cr_skip("io_uring is denied here");
    for (uint32_t feature = 1; feature <= SPOKE_FEATURE_REGISTERED_RING; feature <<= 1)
        check_masked("uring", feature);
    check_masked("uring", ~0u);
    check_masked("uring", 0);
}

Test(engine, both_backends_can_be_asked_for)
{
    spoke_engine_config config;
    spoke_engine *other;

    check_masked("poll", 0);
    spoke_engine_config_init(&config);
    config.backend = "carrier-pigeon";
    int rc = spoke_engine_open(&other, &config);
    cr_assert_eq(rc, SPOKE_ENOTSUP, "%s", spoke_error_name(rc));
    cr_assert_null(other);
}

Test(engine, nonsense_in_its_configuration_is_refused)
{
    spoke_engine_config config;
    spoke_engine *other;

    spoke_engine_config_init(&config);
    config.entries = 100;
    cr_assert_eq(spoke_engine_open(&other, &config), SPOKE_EINVAL, "not a power of two");
    spoke_engine_config_init(&config);
    config.receive_chunks = 3;
    cr_assert_eq(spoke_engine_open(&other, &config), SPOKE_EINVAL, "not a power of two");
    spoke_engine_config_init(&config);
    config.busy_poll_ns = -7;
    cr_assert_eq(spoke_engine_open(&other, &config), SPOKE_EINVAL);
}

struct opened {
    spoke_engine *e;
    spoke_socket *s;
    int rc;
};

static void
open_socket_there(void *ctx)
{
    struct opened *opened = ctx;

    opened->rc = spoke_socket_open(&opened->s, SPOKE_PAIR, opened->e);
}

Test(engine, a_socket_may_wait_in_its_own_way)
{
    struct spoke_engine_info early, late;
    spoke_engine_config config;
    spoke_engine *own;
    spoke_socket *s;
    spoke_msg *m;

    spoke_engine_config_init(&config);
    config.busy_poll_ns = SPOKE_WAIT_BLOCK;
    cr_assert_eq(spoke_engine_open(&own, &config), 0);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, own), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 20 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_BUSY_POLL, SPOKE_WAIT_POLL), 0);
    struct opened other = {.e = own, .rc = -1};
    spoke_ns policy = -7;
    cr_assert_eq(spoke_engine_after(own, SPOKE_MS, open_socket_there, &other, NULL), 0);
    cr_assert_eq(spoke_engine_get_info(own, &early), 0);
    do
        cr_assert_eq(spoke_recv(s, &m, 0), SPOKE_ETIMEDOUT);
    while (other.rc == -1); /* where twenty milliseconds pass before a turn of the loop */
    cr_assert_eq(other.rc, 0);
    /* A pause of twenty milliseconds leaves no time to spin: then once more. */
    for (late = early; late.spins == early.spins;) {
        cr_assert_eq(spoke_recv(s, &m, 0), SPOKE_ETIMEDOUT);
        cr_assert_eq(spoke_engine_get_info(own, &late), 0);
    }
    cr_assert_eq(spoke_socket_get_duration(other.s, SPOKE_OPT_BUSY_POLL, &policy), 0);
    cr_assert_eq(policy, SPOKE_WAIT_BLOCK, "a socket opened meanwhile waits as the engine does");
    cr_assert_eq(spoke_socket_close(other.s), 0);
    cr_assert_eq(spoke_engine_get_info(own, &late), 0);
    cr_assert_eq(late.sleeps, early.sleeps);
    cr_assert_eq(spoke_engine_poll(own, SPOKE_MS), 0);
    cr_assert_eq(spoke_engine_get_info(own, &early), 0);
    cr_assert_eq(early.spins, late.spins, "the engine itself does not spin");
    cr_assert_eq(spoke_socket_close(s), 0);
    cr_assert_eq(spoke_engine_close(own), 0);
}

/* Each waiting policy carries messages; between two processes, so that there is something to wait
 * for. */
static int
echo_four(void *ctx)
{
    spoke_engine *own;
    spoke_socket *rep;
    spoke_msg *m;

    CHILD_CHECK(spoke_engine_open(&own, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&rep, SPOKE_REP, own) == 0);
    CHILD_CHECK(spoke_dial(rep, ctx, NULL, 0) == 0);
    for (int i = 0; i < 4 * 200; i++) {
        CHILD_CHECK(spoke_recv(rep, &m, 0) == 0);
        CHILD_CHECK(spoke_send(rep, m, 0) == 0);
    }
    CHILD_CHECK(spoke_recv(rep, &m, 0) == 0); /* the goodbye */
    return 0;
}

Test(engine, every_waiting_policy_carries_messages)
{
    static const spoke_ns policies[] = {SPOKE_WAIT_BLOCK, SPOKE_WAIT_ADAPTIVE, 20 * SPOKE_US,
                                        SPOKE_WAIT_POLL};
    spoke_socket *req;
    spoke_msg *m;
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, e), 0);
    cr_assert_eq(spoke_listen(req, url, NULL, 0), 0);
    pid_t child = child_start(echo_four, url);
    for (int p = 0; p < 4; p++) {
        cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_BUSY_POLL, policies[p]), 0);
        spoke_ns read_back = 7;
        cr_assert_eq(spoke_socket_get_duration(req, SPOKE_OPT_BUSY_POLL, &read_back), 0);
        cr_assert_eq(read_back, policies[p]);
        for (uint32_t i = 0; i < 200; i++) {
            cr_assert_eq(spoke_send(req, pattern_message(64, i), 0), 0);
            cr_assert_eq(spoke_recv(req, &m, 0), 0);
            cr_assert(pattern_holds(spoke_msg_body(m), 64, i));
            spoke_msg_free(m);
        }
    }
    cr_assert_eq(spoke_send_bytes(req, "bye", 3, 0), 0);
    for (int i = 0; i < 20; i++)
        cr_assert_geq(spoke_engine_poll(e, SPOKE_MS), 0);
    cr_assert_eq(child_wait(child, 10), 0);
}

/* A timer that a caller sets while the library's engine spins is not missed: here the one of a
 * request that nobody answers.  The peer is a plain socket, so that nothing else makes the engine
 * look. */
Test(engine, a_shared_engine_that_never_sleeps_minds_its_timers)
{
    struct raw_listener l;
    struct raw_peer peer;
    spoke_socket *req;
    uint8_t request[16];
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, IPC);
    cr_assert_eq(raw_listen(&l, url), RAW_OK);
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_BUSY_POLL, SPOKE_WAIT_POLL), 0);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_RETRY_TIME, 20 * SPOKE_MS), 0);
    cr_assert_eq(spoke_dial(req, url, NULL, 0), 0);
    cr_assert_eq(raw_accept_sp(&l, &peer, SPOKE_REP, SPOKE_REQ), RAW_OK);
    usleep(20 * 1000); /* everything about the connection is over, the engine spins */
    cr_assert_eq(spoke_send_bytes(req, "anybody?", 8, 0), 0);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(raw_recv(&peer, request, sizeof request, RAW_LIMIT_MS), 12, "time %d", i);
    cr_assert_eq(spoke_socket_close(req), 0);
    raw_close(&peer);
    raw_listener_close(&l);
    resources_take(&before); /* the shared engine stays */
    before.fds_count++;
    before.threads++;
}
