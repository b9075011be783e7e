/* SPDX-License-Identifier: MIT */
/* The steady state: after a warm-up, a million requests and replies (on the shared engine a tenth)
 * take no memory from the allocator (there: no more than a few blocks), and no system call but the
 * engine's own.  SPOKE_STEADY_COUNT sets another number. */
#include "tests/fault/inject.h"
#include "tests/support/test.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#ifdef SPOKE_USE_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/process.h"

#define SHORT_RING ((size_t)128 * 1024)

/* Who talks: one thread that plays both sides, on an engine of its own or on the library's; or one
 * that asks and one that answers, which wait at the same time. */
enum callers { OWNED_BY_ONE, SHARED_BY_ONE, SHARED_BY_TWO };

struct steady {
    enum callers callers;
    pthread_t answering;
    spoke_engine *e; /* NULL: the library's */
    spoke_socket *req, *rep;
    size_t size;
    const char *url;
    long count;
};

static long
count_of_requests(void)
{
    const char *text = getenv("SPOKE_STEADY_COUNT");

    return text != NULL ? atol(text) : TEST_REPEATS(1000000);
}

/* The library's thread blocks all signals; SIGSYS there is ours, which counts.  Runs on it. */
static int
unblock_sigsys(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    sigset_t set;

    (void)s, (void)event, (void)ctx;
    sigemptyset(&set);
    sigaddset(&set, SIGSYS);
    return pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

static void *
answer(void *ctx)
{
    struct steady *t = ctx;
    spoke_msg *m;
    int rc;

    while ((rc = spoke_recv(t->rep, &m, 0)) == 0)
        CHILD_CHECK(spoke_send(t->rep, m, 0) == 0);
    CHILD_CHECK(rc == SPOKE_ECLOSED);
    return NULL;
}

static void
open_steady(struct steady *t)
{
    if (t->callers == OWNED_BY_ONE)
        CHILD_CHECK(spoke_engine_open(&t->e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&t->req, SPOKE_REQ, t->e) == 0);
    CHILD_CHECK(spoke_socket_open(&t->rep, SPOKE_REP, t->e) == 0);
    if (t->callers != OWNED_BY_ONE)
        CHILD_CHECK(spoke_socket_on_event(t->rep, unblock_sigsys, NULL) == 0);
    /* Longer rings get their memory when a clock says that much goes through them. */
    CHILD_CHECK(spoke_socket_set_size(t->req, SPOKE_OPT_SHM_RING, SHORT_RING) == 0);
    CHILD_CHECK(spoke_socket_set_size(t->rep, SPOKE_OPT_SHM_RING, SHORT_RING) == 0);
    CHILD_CHECK(spoke_listen(t->rep, t->url, NULL, 0) == 0);
    CHILD_CHECK(spoke_dial(t->req, t->url, NULL, SPOKE_WAIT_FIRST) == 0);
    if (t->callers == SHARED_BY_TWO)
        CHILD_CHECK(pthread_create(&t->answering, NULL, answer, t) == 0);
}

static void
close_steady(struct steady *t)
{
    CHILD_CHECK(spoke_socket_close(t->req) == 0);
    CHILD_CHECK(spoke_socket_close(t->rep) == 0);
    if (t->callers == SHARED_BY_TWO)
        CHILD_CHECK(pthread_join(t->answering, NULL) == 0);
    if (t->e != NULL)
        CHILD_CHECK(spoke_engine_close(t->e) == 0);
}

static void
run_steady(struct steady *t, long count)
{
    spoke_msg *m;

    for (long i = 0; i < count; i++) {
        CHILD_CHECK(spoke_msg_new(&m, t->size) == 0);
        memcpy(spoke_msg_body(m), &i, sizeof i);
        CHILD_CHECK(spoke_send(t->req, m, 0) == 0);
        if (t->callers != SHARED_BY_TWO) {
            CHILD_CHECK(spoke_recv(t->rep, &m, 0) == 0);
            CHILD_CHECK(spoke_send(t->rep, m, 0) == 0);
        }
        CHILD_CHECK(spoke_recv(t->req, &m, 0) == 0);
        CHILD_CHECK(spoke_msg_size(m) == t->size);
        CHILD_CHECK(memcmp(spoke_msg_body(m), &i, sizeof i) == 0);
        spoke_msg_free(m);
    }
}

/* Whether the allocator counts those on its large path: jemalloc, built with statistics. */
static bool
counts_large_allocs(void)
{
    bool counts = false;
#ifdef SPOKE_USE_JEMALLOC
    size_t size = sizeof counts;

    CHILD_CHECK(mallctl("config.stats", &counts, &size, NULL, 0) == 0);
#endif
    return counts;
}

/* Allocations on jemalloc's large path in this process, ever; 0 if it does not count them. */
static uint64_t
large_allocs(void)
{
    uint64_t count = 0;
#ifdef SPOKE_USE_JEMALLOC
    char name[64];
    uint64_t epoch = 1;
    size_t size = sizeof epoch;

    snprintf(name, sizeof name, "stats.arenas.%u.large.nmalloc", (unsigned)MALLCTL_ARENAS_ALL);
    CHILD_CHECK(mallctl("epoch", &epoch, &size, &epoch, size) == 0);
    if (counts_large_allocs())
        CHILD_CHECK(mallctl(name, &count, &size, NULL, 0) == 0);
#endif
    return count;
}

/* What a thread frees of another's goes home in batches.  So between each two threads some blocks
 * of each class are on their way, and it is chance when so many have been made: up to 32 small
 * ones, three threads, two classes; a large one is a batch alone.  However long it runs, no more.
 */
enum { ON_THE_WAY_HOME = 32 * 6 * 2, LARGE_ON_THE_WAY_HOME = 6 * 2 };

static int
count_memory(void *ctx)
{
    struct steady *t = ctx;
    struct spoke_memory_stats before, after;

    open_steady(t);
    run_steady(t, TEST_REPEATS(10000));
    spoke_memory_stats(&before);
    uint64_t large = large_allocs();
    run_steady(t, t->count);
    uint64_t more_large = large_allocs() - large;
    spoke_memory_stats(&after);
    fprintf(stderr, "steady: %s, %zu bytes, %ld requests: %llu allocations, %llu large ones\n",
            t->url, t->size, t->count,
            (unsigned long long)(after.system_allocs - before.system_allocs),
            (unsigned long long)more_large);
#ifndef SPOKE_SYSTEM_POOLS /* where every block is the allocator's, for the sanitizer */
    bool is_owned = t->callers == OWNED_BY_ONE;
    CHILD_CHECK(after.system_allocs - before.system_allocs <= (is_owned ? 0 : ON_THE_WAY_HOME));
    CHILD_CHECK(more_large <= (is_owned ? 0 : LARGE_ON_THE_WAY_HOME));
    CHILD_CHECK(!is_owned || after.idle_bytes <= before.idle_bytes);
#endif
    CHILD_CHECK(after.messages == before.messages);
    /* The one that an engine receives into while it spins comes and goes. */
    CHILD_CHECK(after.chunks <= before.chunks + 1);
    close_steady(t);
    return 0;
}

/* A receive queue that may become long has no memory for that while it is short. */
static int
exchange_with_long_queue(void *ctx)
{
    const char *url = ctx;
    spoke_engine *e;
    spoke_socket *from, *to;
    uint64_t large = 0;

    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&from, SPOKE_PAIR, e) == 0);
    CHILD_CHECK(spoke_socket_open(&to, SPOKE_PAIR, e) == 0);
    CHILD_CHECK(spoke_socket_set_int(to, SPOKE_OPT_RECV_QUEUE, 1 << 20) == 0);
    CHILD_CHECK(spoke_listen(to, url, NULL, 0) == 0);
    CHILD_CHECK(spoke_dial(from, url, NULL, SPOKE_WAIT_FIRST) == 0);
    for (int i = 0; i < 1000; i++) {
        char byte;
        size_t size = sizeof byte;

        if (i == 100)
            large = large_allocs();
        CHILD_CHECK(spoke_send_bytes(from, "x", 1, 0) == 0);
        CHILD_CHECK(spoke_recv_bytes(to, &byte, &size, 0) == 0 && size == 1);
    }
    CHILD_CHECK(large_allocs() == large);
    CHILD_CHECK(spoke_engine_close(e) == 0);
    return 0;
}

/* What an engine may call while messages flow; and, at the end, what belongs to a shared one: how
 * its callers sleep, that on poll a receive goes back and forth between them and the epoll, and
 * that who looks at shared memory looks at the bell now and then. */
static const int engine_calls[] = {
    SYS_io_uring_enter, SYS_recvfrom,   SYS_recvmsg,       SYS_sendto,
    SYS_sendmsg,        SYS_epoll_wait, SYS_epoll_pwait,   SYS_epoll_pwait2,
    SYS_read,           SYS_write,      SYS_clock_gettime, SYS_sched_yield,
    SYS_futex,          SYS_ppoll,      SYS_epoll_ctl,     SYS_poll,
};
enum { CALLS_OF_SHARED = 4 };

/* Catch all calls from now on but those. */
static void
catch_others(const struct steady *t)
{
    unsigned count = sizeof engine_calls / sizeof engine_calls[0];

    CHILD_CHECK(
        inject_all_but(engine_calls, t->e == NULL ? count : count - (unsigned)CALLS_OF_SHARED));
}

/* Give how many others there were. */
static long
run_and_count_others(struct steady *t)
{
    long caught = inject_caught(NULL);
    int last = 0;

    run_steady(t, t->count);
    long others = inject_caught(&last) - caught;
    if (others != 0)
        fprintf(stderr, "steady: the last other call is number %d\n", last);
    return others;
}

static int
count_calls(void *ctx)
{
    struct steady *t = ctx;
    struct spoke_engine_info before, after;

    open_steady(t);
    run_steady(t, TEST_REPEATS(10000));
    catch_others(t);
    CHILD_CHECK(spoke_engine_get_info(t->e, &before) == 0);
    long others = run_and_count_others(t);
    CHILD_CHECK(spoke_engine_get_info(t->e, &after) == 0);
    fprintf(stderr, "steady: %s, %zu bytes, %ld requests: %llu enters, %llu direct, %ld others\n",
            t->url, t->size, t->count, (unsigned long long)(after.enters - before.enters),
            (unsigned long long)(after.direct - before.direct), others);
    CHILD_CHECK(others == 0);
    /* A request and a reply are two messages: two sends and two receives at the very most. */
    CHILD_CHECK(after.enters - before.enters + after.direct - before.direct <=
                (uint64_t)t->count * 8);
    return 0;
}

static int
count_calls_on_shared(void *ctx)
{
    struct steady *t = ctx;
    long before;

    open_steady(t);
    run_steady(t, TEST_REPEATS(10000));
    catch_others(t);
    before = inject_caught(NULL);
    getppid(); /* one that is not on the list, to see that they are caught */
    CHILD_CHECK(inject_caught(NULL) == before + 1);
    long others = run_and_count_others(t);
    fprintf(stderr, "steady: shared, %s, %zu bytes, %ld requests: %ld others\n", t->url, t->size,
            t->count, others);
    CHILD_CHECK(others == 0);
    return 0;
}

static void
check_steady_of(enum callers callers, enum transport transport, size_t size, int (*child)(void *),
                long divisor)
{
    char url[ENDPOINT_MAX];
    struct steady t = {
        .callers = callers, .size = size, .url = url, .count = count_of_requests() / divisor};

    endpoint_fresh(url, transport);
    cr_assert_eq(child_run(child, &t, 100), 0);
}

static void
check_steady(enum transport transport, size_t size, int (*child)(void *), long divisor)
{
    check_steady_of(OWNED_BY_ONE, transport, size, child, divisor);
}

Test(steady, a_million_requests_take_no_memory_inproc)
{
    check_steady(INPROC, 64, count_memory, 1);
}

Test(steady, a_million_requests_take_no_memory_ipc)
{
    check_steady(IPC, 64, count_memory, 1);
}

Test(steady, larger_requests_take_no_memory)
{
    check_steady(IPC, 4000, count_memory, 10);
    check_steady(TCP, 60000, count_memory, 50);
    check_steady(IPC, 300000, count_memory, 500);
    check_steady(INPROC, 300000, count_memory, 50);
}

Test(steady, a_long_queue_takes_no_memory_while_it_is_short)
{
    if (!counts_large_allocs())
        cr_skip("the allocator does not count its large blocks");
    for (int t = INPROC; t <= TCP; t++) {
        char url[ENDPOINT_MAX];

        endpoint_fresh(url, (enum transport)t);
        cr_assert_eq(child_run(exchange_with_long_queue, url, 50), 0);
    }
}

Test(steady, requests_make_no_system_call_but_the_engines_own)
{
#ifdef SPOKE_SYSTEM_POOLS
    cr_skip("the sanitizer makes calls of its own");
#endif
    if (!inject_is_supported())
        cr_skip("not on this processor");
    check_steady(INPROC, 64, count_calls, 5);
    check_steady(IPC, 64, count_calls, 5);
    check_steady(IPC, 4000, count_calls, 10);
    check_steady(TCP, 64, count_calls, 10);
}

/* Goal: no more memory on the shared engine than is on its way between threads, whether its only
 * caller receives for itself, spinning or asleep, or two wait and are served by the library's
 * thread. */
Test(steady, requests_on_the_shared_engine_take_bounded_memory, .timeout = 240)
{
    for (int callers = SHARED_BY_ONE; callers <= SHARED_BY_TWO; callers++) {
        check_steady_of((enum callers)callers, IPC, 64, count_memory, 10);
        check_steady_of((enum callers)callers, INPROC, 64, count_memory, 20);
        check_steady_of((enum callers)callers, TCP, 60000, count_memory, 200);
        setenv("SPOKE_WAIT", "block", 1);
        check_steady_of((enum callers)callers, IPC, 64, count_memory, 50);
        unsetenv("SPOKE_WAIT");
    }
}

Test(steady, requests_on_the_shared_engine_make_no_system_call_but_its_own, .timeout = 240)
{
#ifdef SPOKE_SYSTEM_POOLS
    cr_skip("the sanitizer makes calls of its own");
#endif
    if (!inject_is_supported())
        cr_skip("not on this processor");
    for (int callers = SHARED_BY_ONE; callers <= SHARED_BY_TWO; callers++) {
        check_steady_of((enum callers)callers, INPROC, 64, count_calls_on_shared, 20);
        check_steady_of((enum callers)callers, IPC, 64, count_calls_on_shared, 20);
        check_steady_of((enum callers)callers, TCP, 4000, count_calls_on_shared, 50);
        setenv("SPOKE_WAIT", "block", 1);
        check_steady_of((enum callers)callers, IPC, 64, count_calls_on_shared, 50);
        unsetenv("SPOKE_WAIT");
    }
}

/* ---- one system call for each turn ---- */

static const int waiting_calls[] = {SYS_io_uring_enter, SYS_epoll_wait, SYS_epoll_pwait,
                                    SYS_epoll_pwait2};

static int
count_enters(void *ctx)
{
    struct steady *t = ctx;
    struct spoke_engine_info before, after;

    open_steady(t);
    run_steady(t, 100);
    CHILD_CHECK(inject_only(waiting_calls, sizeof waiting_calls / sizeof waiting_calls[0]));
    CHILD_CHECK(spoke_engine_get_info(t->e, &before) == 0);
    long caught = inject_caught(NULL);
    run_steady(t, t->count);
    long calls = inject_caught(NULL) - caught;
    CHILD_CHECK(spoke_engine_get_info(t->e, &after) == 0);
    fprintf(stderr, "steady: %s, %zu bytes: %llu turns, %ld calls that submit or wait\n", t->url,
            t->size, (unsigned long long)(after.turns - before.turns), calls);
    CHILD_CHECK(calls > 0);
    CHILD_CHECK((uint64_t)calls == after.enters - before.enters);
    CHILD_CHECK((uint64_t)calls <= after.turns - before.turns);
    return 0;
}

/* Goal: all that a turn submits goes into the kernel in one system call together with the wait, as
 * the kernel counts it.  Without spinning, which is many looks in one turn. */
Test(steady, a_turn_is_at_most_one_system_call)
{
    if (!inject_is_supported())
        cr_skip("not on this processor");
    setenv("SPOKE_WAIT", "block", 1);
    setenv("SPOKE_UPGRADE", "off", 1); /* what has moved into shared memory needs no call at all */
    check_steady(IPC, 64, count_enters, 200);
    check_steady(TCP, 60000, count_enters, 500);
    check_steady(IPC, 300000, count_enters, 2000);
}
