/* SPDX-License-Identifier: MIT */
/* Forks while other threads are in the middle of something: the child finds a library that works,
 * and the parent's handles dead. */
#include "tests/support/test.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "runtime/memory/pool.h"
#include "tests/support/endpoints.h"
#include "tests/support/process.h"

/* ThreadSanitizer ends a child of several threads that starts another one. */
#ifdef SPOKE_TINY_RUNNER
#define THREADS_AFTER_FORK false
#else
#define THREADS_AFTER_FORK true
#endif

#define CHILD_LIMIT_S (10 * SPOKE_TEST_SLOWDOWN)

/* Two sockets, connected by `url`, and a message from one to the other; 0 or an error. */
static int
live(spoke_engine *e, const char *url)
{
    spoke_socket *a = NULL, *b = NULL;
    char buffer[8];
    size_t size = sizeof buffer;
    int rc = spoke_socket_open(&a, SPOKE_PAIR, e);

    if (rc == 0)
        rc = spoke_socket_open(&b, SPOKE_PAIR, e);
    if (rc == 0) /* waits for the name, where there are names */
        rc = spoke_dial(b, url, NULL, 0);
    if (rc == 0)
        rc = spoke_listen(a, url, NULL, 0);
    if (rc == 0)
        rc = spoke_send_bytes(b, "hello", 5, 0);
    if (rc == 0)
        rc = spoke_recv_bytes(a, buffer, &size, 0);
    if (rc == 0 && (size != 5 || memcmp(buffer, "hello", 5) != 0))
        rc = SPOKE_EPROTO;
    if (a != NULL)
        (void)spoke_socket_close(a);
    if (b != NULL)
        (void)spoke_socket_close(b);
    return rc;
}

static int
live_owned(const char *url)
{
    spoke_engine *e;
    int rc = spoke_engine_open(&e, NULL);

    if (rc != 0)
        return rc;
    rc = live(e, url);
    (void)spoke_engine_close(e);
    return rc;
}

/* ---- what another thread does at the fork ---- */

struct work {
    char url[ENDPOINT_MAX];
    bool shared;
    atomic_bool stop;
    int rc;
    pthread_t thread;
};

static void *
run_work(void *ctx)
{
    struct work *work = ctx;

    do
        work->rc = work->shared ? live(NULL, work->url) : live_owned(work->url);
    while (work->rc == 0 && !atomic_load(&work->stop));
    return NULL;
}

static void
start_work(struct work *work, enum transport transport, bool shared, bool once)
{
    memset(work, 0, sizeof *work);
    work->shared = shared;
    atomic_init(&work->stop, once);
    endpoint_fresh(work->url, transport);
    cr_assert_eq(pthread_create(&work->thread, NULL, run_work, work), 0);
}

static void
end_work(struct work *work)
{
    atomic_store(&work->stop, true);
    pthread_join(work->thread, NULL);
    cr_assert_eq(work->rc, 0, "the parent: %s", spoke_error_name(work->rc));
}

/* ---- in the child ---- */

struct parent {
    spoke_engine *e;
    spoke_socket *s;
    char url[ENDPOINT_MAX]; /* in use by the parent, if it is a name */
};

static void
nothing(void *ctx)
{
    (void)ctx;
}

static int
be_a_child(void *ctx)
{
    struct parent *parent = ctx;
    struct spoke_engine_info info;
    uint64_t id;

    child_is_confined(); /* what the parent's other threads held is nobody's here */
    CHILD_CHECK(spoke_send_bytes(parent->s, "x", 1, 0) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_socket_close(parent->s) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_engine_post(parent->e, nothing, NULL) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_engine_stop(parent->e) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_engine_get_info(parent->e, &info) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_engine_after(parent->e, 0, nothing, NULL, &id) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_engine_fd(parent->e) == SPOKE_EFORKED);
    for (int i = 0; i < 2; i++)
        CHILD_CHECK(live_owned(parent->url) == 0);
    if (THREADS_AFTER_FORK)
        CHILD_CHECK(live(NULL, parent->url) == 0);
    else /* it would take a thread of the parent's that had just ended for a leak */
        syscall(SYS_exit_group, 0);
    return 0;
}

static void
open_parent(struct parent *parent)
{
    cr_assert_eq(spoke_engine_open(&parent->e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&parent->s, SPOKE_PAIR, parent->e), 0);
    endpoint_fresh(parent->url, INPROC);
    cr_assert_eq(spoke_listen(parent->s, parent->url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(parent->s, "inproc://nobody-is-there", NULL, 0), 0);
}

static void
close_parent(struct parent *parent)
{
    cr_assert_eq(spoke_socket_close(parent->s), 0);
    cr_assert_eq(spoke_engine_close(parent->e), 0);
}

Test(forked, a_child_of_a_busy_process_has_a_library_that_works)
{
    enum { WORKERS = 3, CHILDREN = 60 };
    struct work workers[WORKERS];
    struct parent parent;

#ifdef __SANITIZE_ADDRESS__
    /* Seen in a debugger: the child waits for ever in malloc() for a lock of the sanitizer's, which
     * another thread of its parent held. */
    cr_skip("a child of a busy process waits for a lock of AddressSanitizer's allocator for ever");
#endif
    /* ThreadSanitizer does not see liburing unmap a ring, and takes the next one for a race. */
    if (!THREADS_AFTER_FORK)
        setenv("SPOKE_BACKEND", "poll", 1);
    open_parent(&parent);
    for (int i = 0; i < WORKERS; i++)
        start_work(&workers[i], i == 1 ? IPC : INPROC, i == 2, false);
    for (int i = 0; i < CHILDREN; i++)
        cr_assert_eq(child_run(be_a_child, &parent, CHILD_LIMIT_S), 0, "child %d", i);
    for (int i = 0; i < WORKERS; i++)
        end_work(&workers[i]);
    close_parent(&parent);
}

/* ---- a thread that is stopped in its n-th allocation ---- */

static struct {
    atomic_int left;
    atomic_bool stopped;
} pause_at;

/* Long enough for a fork that does not wait; one that waits cannot be waited for. */
static bool
pause_there(void *ctx)
{
    const struct timespec time = {.tv_nsec = 10 * 1000 * 1000 * SPOKE_TEST_SLOWDOWN};

    (void)ctx;
    if (atomic_fetch_sub(&pause_at.left, 1) == 1) {
        atomic_store(&pause_at.stopped, true);
        nanosleep(&time, NULL);
    }
    return false;
}

/* Whether the work made so many allocations. */
static bool
fork_in_allocation(struct parent *parent, int n, enum transport transport, bool shared)
{
    struct work work;

    atomic_store(&pause_at.stopped, false);
    atomic_store(&pause_at.left, n);
    spk_memory_set_fault(pause_there, NULL);
    start_work(&work, transport, shared, true);
    while (!atomic_load(&pause_at.stopped) && pthread_tryjoin_np(work.thread, NULL) != 0)
        usleep(100);
    if (!atomic_load(&pause_at.stopped)) {
        spk_memory_set_fault(NULL, NULL);
        return false;
    }
    pid_t child = child_start(be_a_child, parent);
    spk_memory_set_fault(NULL, NULL);
    cr_assert_eq(child_wait(child, CHILD_LIMIT_S), 0, "allocation %d", n);
    end_work(&work);
    return true;
}

Test(forked, a_child_does_not_inherit_what_another_thread_was_in_the_middle_of)
{
    static const enum transport transports[] = {INPROC, TCP};
    struct parent parent;

    open_parent(&parent);
    for (int i = 0; i < 2; i++) {
        int n = 1;
        while (fork_in_allocation(&parent, n, transports[i], false))
            n++;
        cr_assert_gt(n, 10, "%d allocations", n);
    }
    close_parent(&parent);
}

/* The first one to need the library's own engine starts it: here another thread, at the fork. */
static int
fork_while_the_shared_engine_starts(void *ctx)
{
    struct parent *parent = ctx;

    open_parent(parent);
    CHILD_CHECK(fork_in_allocation(parent, 4, INPROC, true));
    close_parent(parent);
    return 0;
}

Test(forked, a_child_starts_its_own_shared_engine_whoever_was_starting_the_parents)
{
    struct parent parent;

    if (!THREADS_AFTER_FORK)
        cr_skip("ThreadSanitizer ends a child that starts threads");
    cr_assert_eq(child_run(fork_while_the_shared_engine_starts, &parent, 30), 0);
}

/* A callback that forks: the child has the parent's engine on its stack, and may not use it. */
static atomic_int verdict = -100;

static void
fork_inside(void *ctx)
{
    atomic_store(&verdict, child_run(be_a_child, ctx, CHILD_LIMIT_S));
}

Test(forked, a_callback_may_fork)
{
    struct parent parent;

    open_parent(&parent);
    cr_assert_eq(spoke_engine_post(parent.e, fork_inside, &parent), 0);
    cr_assert_eq(spoke_engine_poll(parent.e, SPOKE_SECOND), 1);
    cr_assert_eq(atomic_load(&verdict), 0);
    close_parent(&parent);
}
