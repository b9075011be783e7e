/* SPDX-License-Identifier: MIT */
/* The steady state: after a warm-up, a million requests and replies take no memory from the
 * allocator, and no system call but the engine's own.  SPOKE_STEADY_COUNT sets another number. */
#include "tests/fault/inject.h"
#include "tests/support/test.h"

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

struct steady {
    spoke_engine *e;
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

static void
open_steady(struct steady *t)
{
    CHILD_CHECK(spoke_engine_open(&t->e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&t->req, SPOKE_REQ, t->e) == 0);
    CHILD_CHECK(spoke_socket_open(&t->rep, SPOKE_REP, t->e) == 0);
    CHILD_CHECK(spoke_listen(t->rep, t->url, NULL, 0) == 0);
    CHILD_CHECK(spoke_dial(t->req, t->url, NULL, SPOKE_WAIT_FIRST) == 0);
}

static void
run_steady(struct steady *t, long count)
{
    spoke_msg *m;

    for (long i = 0; i < count; i++) {
        CHILD_CHECK(spoke_msg_new(&m, t->size) == 0);
        memcpy(spoke_msg_body(m), &i, sizeof i);
        CHILD_CHECK(spoke_send(t->req, m, 0) == 0);
        CHILD_CHECK(spoke_recv(t->rep, &m, 0) == 0);
        CHILD_CHECK(spoke_send(t->rep, m, 0) == 0);
        CHILD_CHECK(spoke_recv(t->req, &m, 0) == 0);
        CHILD_CHECK(spoke_msg_size(m) == t->size);
        CHILD_CHECK(memcmp(spoke_msg_body(m), &i, sizeof i) == 0);
        spoke_msg_free(m);
    }
}

/* Allocations on jemalloc's large path in this process, ever. */
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
    if (mallctl(name, &count, &size, NULL, 0) != 0)
        count = 0; /* built without statistics */
#endif
    return count;
}

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
    CHILD_CHECK(after.system_allocs == before.system_allocs);
    CHILD_CHECK(more_large == 0);
#endif
    CHILD_CHECK(after.messages == before.messages);
    /* The one that an engine receives into while it spins comes and goes. */
    CHILD_CHECK(after.chunks <= before.chunks + 1);
    CHILD_CHECK(after.idle_bytes <= before.idle_bytes);
    CHILD_CHECK(spoke_engine_close(t->e) == 0);
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

/* What an engine may call while messages flow. */
static const int engine_calls[] = {
    SYS_io_uring_enter, SYS_recvfrom,   SYS_recvmsg,       SYS_sendto,
    SYS_sendmsg,        SYS_epoll_wait, SYS_epoll_pwait,   SYS_epoll_pwait2,
    SYS_read,           SYS_write,      SYS_clock_gettime, SYS_sched_yield,
};

static int
count_calls(void *ctx)
{
    struct steady *t = ctx;
    struct spoke_engine_info before, after;
    int last = 0;

    open_steady(t);
    run_steady(t, TEST_REPEATS(10000));
    CHILD_CHECK(inject_all_but(engine_calls, sizeof engine_calls / sizeof engine_calls[0]));
    CHILD_CHECK(spoke_engine_get_info(t->e, &before) == 0);
    long caught = inject_caught(NULL);
    run_steady(t, t->count);
    long others = inject_caught(&last) - caught;
    CHILD_CHECK(spoke_engine_get_info(t->e, &after) == 0);
    fprintf(stderr, "steady: %s, %zu bytes, %ld requests: %llu enters, %llu direct, %ld others\n",
            t->url, t->size, t->count, (unsigned long long)(after.enters - before.enters),
            (unsigned long long)(after.direct - before.direct), others);
    if (others != 0)
        fprintf(stderr, "steady: the last other call is number %d\n", last);
    CHILD_CHECK(others == 0);
    /* A request and a reply are two messages: two sends and two receives at the very most. */
    CHILD_CHECK(after.enters - before.enters + after.direct - before.direct <=
                (uint64_t)t->count * 8);
    return 0;
}

static void
check_steady(enum transport transport, size_t size, int (*child)(void *), long divisor)
{
    char url[ENDPOINT_MAX];
    struct steady t = {.size = size, .url = url, .count = count_of_requests() / divisor};

    endpoint_fresh(url, transport);
    cr_assert_eq(child_run(child, &t, 100), 0);
}

Test(steady, a_million_requests_take_no_memory_inproc, .timeout = 110)
{
    check_steady(INPROC, 64, count_memory, 1);
}

Test(steady, a_million_requests_take_no_memory_ipc, .timeout = 110)
{
    check_steady(IPC, 64, count_memory, 1);
}

Test(steady, larger_requests_take_no_memory, .timeout = 110)
{
    check_steady(IPC, 4000, count_memory, 10);
    check_steady(TCP, 60000, count_memory, 50);
    check_steady(IPC, 300000, count_memory, 500);
    check_steady(INPROC, 300000, count_memory, 50);
}

Test(steady, a_long_queue_takes_no_memory_while_it_is_short, .timeout = 60)
{
    for (int t = INPROC; t <= TCP; t++) {
        char url[ENDPOINT_MAX];

        endpoint_fresh(url, (enum transport)t);
        cr_assert_eq(child_run(exchange_with_long_queue, url, 50), 0);
    }
}

Test(steady, requests_make_no_system_call_but_the_engines_own, .timeout = 110)
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
Test(steady, a_turn_is_at_most_one_system_call, .timeout = 110)
{
    if (!inject_is_supported())
        cr_skip("not on this processor");
    setenv("SPOKE_WAIT", "block", 1);
    check_steady(IPC, 64, count_enters, 200);
    check_steady(TCP, 60000, count_enters, 500);
    check_steady(IPC, 300000, count_enters, 2000);
}
