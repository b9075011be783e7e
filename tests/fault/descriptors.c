/* SPDX-License-Identifier: MIT */
/* An engine that lacks a descriptor which it can do without. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "runtime/engine/engine.h"
#include "tests/support/endpoints.h"
#include "tests/support/process.h"
#include "tests/support/raw_peer.h"
#include "tests/support/test.h"

#define PATIENCE         (10 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)
#define DESCRIPTORS_MOST 256
#define MESSAGES         100
#define TRIES_MOST       500 /* times MESSAGES */

/* A caller that waits, and a thread that sends to it, then closes its socket. */
struct scene {
    spoke_socket *pull;
    struct raw_peer peer;
    int count;
    bool closes;
    atomic_int received;
};

static void
pause_a_millisecond(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

static void *
send_and_close(void *argument)
{
    struct scene *x = argument;

    for (int i = 0; i < x->count; i++) {
        pause_a_millisecond(); /* the receiver sleeps by then, or soon */
        CHILD_CHECK(raw_send(&x->peer, "hello", 5) == RAW_OK);
    }
    if (x->closes)
        for (int i = 0; i < TRIES_MOST * 100 && atomic_load(&x->received) < x->count; i++)
            pause_a_millisecond(); /* what nobody has received is lost with the socket */
    pause_a_millisecond();
    if (x->closes)
        CHILD_CHECK(spoke_socket_close(x->pull) == 0);
    return NULL;
}

static void
open_scene(struct scene *x, const char *url)
{
    CHILD_CHECK(spoke_socket_open(&x->pull, SPOKE_PULL, NULL) == 0);
    CHILD_CHECK(spoke_socket_set_duration(x->pull, SPOKE_OPT_RECV_TIMEOUT, PATIENCE) == 0);
    CHILD_CHECK(spoke_socket_set_duration(x->pull, SPOKE_OPT_BUSY_POLL, SPOKE_WAIT_BLOCK) == 0);
    CHILD_CHECK(spoke_listen(x->pull, url, NULL, 0) == 0);
    CHILD_CHECK(raw_dial_sp(&x->peer, url, SPOKE_PUSH, SPOKE_PULL) == RAW_OK);
    x->count = MESSAGES;
}

static void
receive_all(struct scene *x)
{
    pthread_t sender;
    spoke_msg *m;

    atomic_store(&x->received, 0);
    CHILD_CHECK(pthread_create(&sender, NULL, send_and_close, x) == 0);
    for (int i = 0; i < x->count; i++) {
        CHILD_CHECK(spoke_recv(x->pull, &m, 0) == 0);
        CHILD_CHECK(spoke_msg_size(m) == 5);
        spoke_msg_free(m);
        atomic_fetch_add(&x->received, 1);
    }
    if (x->closes)
        CHILD_CHECK(spoke_recv(x->pull, &m, 0) == SPOKE_ECLOSED);
    CHILD_CHECK(pthread_join(sender, NULL) == 0);
}

/* How often a caller has slept on the sockets themselves. */
static uint64_t
sleeps_on_sockets(struct spk_engine *e)
{
    uint64_t count;

    CHILD_CHECK(spk_engine_enter(e) == 0);
    count = e->polls;
    spk_engine_leave(e);
    return count;
}

/* The first limit at which the shared engine opens: all but the last descriptor are there, which is
 * the one that wakes callers who sleep on sockets. */
static struct spk_engine *
open_with_too_few(void)
{
    struct rlimit old, few;
    struct spk_engine *e = NULL;
    int rc = SPOKE_EMFILE, refused = 0;

    CHILD_CHECK(getrlimit(RLIMIT_NOFILE, &old) == 0);
    for (few = old, few.rlim_cur = 3; rc != 0; few.rlim_cur++) {
        CHILD_CHECK(few.rlim_cur < DESCRIPTORS_MOST);
        CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
        rc = spk_engine_default(&e);
        CHILD_CHECK(rc == 0 || rc == SPOKE_EMFILE);
        refused += rc != 0;
    }
    CHILD_CHECK(refused > 0);
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &old) == 0);
    return e;
}

static int
go_without(void *ctx)
{
    struct spk_engine *e = open_with_too_few();
    struct scene x = {.closes = true};

    CHILD_CHECK(e->poller_fd == -1);
    open_scene(&x, ctx);
    receive_all(&x);
    CHILD_CHECK(sleeps_on_sockets(e) == 0);
    raw_close(&x.peer);
    return 0;
}

/* The same with all descriptors: there callers do sleep on their sockets. */
static int
go_with(void *ctx)
{
    struct spk_engine *e;
    struct scene x = {.closes = false};

    CHILD_CHECK(spk_engine_default(&e) == 0);
    CHILD_CHECK(e->poller_fd >= 0);
    open_scene(&x, ctx);
    for (int i = 0; sleeps_on_sockets(e) == 0; i++) {
        CHILD_CHECK(i < TRIES_MOST);
        receive_all(&x);
    }
    x.closes = true;
    receive_all(&x);
    raw_close(&x.peer);
    return 0;
}

Test(descriptors, callers_sleep_otherwise_without_the_one_that_wakes_them)
{
    char url[ENDPOINT_MAX];
    cpu_set_t cpus;

    endpoint_fresh(url, IPC);
    cr_assert_eq(child_run(go_without, url, 60), 0);
    CPU_ZERO(&cpus);
    if (sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) < 2)
        cr_skip("on one CPU nobody sleeps on sockets anyway");
    cr_assert_eq(child_run(go_with, url, 60), 0);
}
