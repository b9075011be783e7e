/* SPDX-License-Identifier: MIT */
/* Host names: who looks them up, how long that may take, and who waits for it meanwhile.
 *
 * This program brings a resolver of its own, which knows a few names under .test and asks the C
 * library about everything else; no test asks a name server. */
#include "tests/support/world.h"

#include <dlfcn.h>
#include <netdb.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/support/process.h"
#include "tests/support/resources.h"

/* ---- the resolver ---- */

static atomic_bool resolver_held; /* slow.test gets its answer when this is false */
static atomic_int lookups, answers, unmasked, most_at_once;

typedef int resolve_f(const char *host, const char *port, const struct addrinfo *hints,
                      struct addrinfo **found);

static int
look_up(const char *host, const char *port, const struct addrinfo *hints, struct addrinfo **found)
{
    resolve_f *next;

    *(void **)&next = dlsym(RTLD_NEXT, "getaddrinfo");
    return next(host, port, hints, found);
}

static int
look_up_both(const char *port, const struct addrinfo *hints, struct addrinfo **found)
{
    int error = look_up("::1", port, hints, found);

    return error != 0 ? error : look_up("127.0.0.1", port, hints, &(*found)->ai_next);
}

static void
look_at_signals(void)
{
    sigset_t mask;

    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (sigismember(&mask, SIGTERM) == 0 || sigismember(&mask, SIGALRM) == 0)
        atomic_fetch_add(&unmasked, 1);
}

static void
count_lookup(void)
{
    int at_once = atomic_fetch_add(&lookups, 1) + 1 - atomic_load(&answers);
    int most = atomic_load(&most_at_once);

    while (at_once > most && !atomic_compare_exchange_weak(&most_at_once, &most, at_once))
        ;
}

int
getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
            struct addrinfo **found)
{
    struct addrinfo plain = *hints;
    int error;

    plain.ai_flags &= ~AI_ADDRCONFIG; /* a machine without a network has 127.0.0.1 too */
    if (host == NULL || strstr(host, ".test") == NULL)
        return look_up(host, port, &plain, found);
    count_lookup();
    look_at_signals();
    while (strcmp(host, "slow.test") == 0 && atomic_load(&resolver_held))
        usleep(1000);
    if (strcmp(host, "nowhere.test") == 0)
        error = EAI_NONAME;
    else if (strcmp(host, "twofold.test") == 0)
        error = look_up_both(port, &plain, found);
    else
        error = look_up("127.0.0.1", port, &plain, found);
    atomic_fetch_add(&answers, 1);
    return error;
}

static void
hold_resolver(void)
{
    atomic_store(&resolver_held, true);
}

/* Let it answer all that it was asked. */
static void
release_resolver(void)
{
    atomic_store(&resolver_held, false);
    while (atomic_load(&answers) < atomic_load(&lookups))
        usleep(1000);
}

static void
wait_for_lookup(int count)
{
    while (atomic_load(&lookups) < count)
        usleep(1000);
}

/* Let `e` go on until `count` names have been looked up. */
static void
poll_until_answered(spoke_engine *e, int count)
{
    while (atomic_load(&answers) < count)
        cr_assert_geq(spoke_engine_poll(e, SPOKE_MS), 0);
}

/* ---- what becomes of names ---- */

WORLD_TEST(names, a_listener_may_have_one, world_cases_tcp)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    spoke_listener *l;

    int rc = node_listen(a, "tcp://localhost:0", &l, 0);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(node_address(a, l, url), 0);
    rc = node_dial(b, url, NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, 0, "%s: %s", url, spoke_error_name(rc));
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    world_close(w);
}

WORLD_TEST(names, a_dialer_may_have_one, world_cases_tcp)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX], named[ENDPOINT_MAX];
    spoke_listener *l;

    cr_assert_eq(node_listen(a, "tcp://*:0", &l, 0), 0);
    cr_assert_eq(node_address(a, l, url), 0);
    snprintf(named, sizeof named, "tcp://localhost%s", strrchr(url, ':'));
    int rc = node_dial(b, named, NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, 0, "%s: %s", named, spoke_error_name(rc));
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    world_close(w);
}

WORLD_TEST(names, one_that_nobody_knows_has_its_own_error, world_cases_tcp)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);

    int rc = node_listen(a, "tcp://nowhere.test:5555", NULL, 0);
    cr_assert_eq(rc, SPOKE_EHOST, "listen: %s", spoke_error_name(rc));
    rc = node_dial(a, "tcp://nowhere.test:5555", NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, SPOKE_EHOST, "dial: %s", spoke_error_name(rc));
    world_close(w);
}

/* A dialer to whom nobody listens goes on asking: the name may appear one day. */
WORLD_TEST(names, a_dialer_asks_again_at_each_attempt, world_cases_tcp_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);

    cr_assert_eq(node_set_duration(a, SPOKE_OPT_RECONNECT, 2 * SPOKE_MS), 0);
    cr_assert_eq(node_dial(a, "tcp://nowhere.test:5555", NULL, 0), 0);
    for (int i = 0; i < 1000 && atomic_load(&lookups) < 3; i++)
        world_pass(w, 5 * SPOKE_MS);
    cr_assert_geq(atomic_load(&lookups), 3);
    cr_assert_eq(atomic_load(&unmasked), 0, "signals are left to the application's threads");
    world_close(w);
}

WORLD_TEST(names, all_addresses_of_one_are_tried, world_cases_tcp_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX], named[ENDPOINT_MAX];
    spoke_listener *l;

    /* Nobody listens on the first one, ::1. */
    cr_assert_eq(node_listen(a, "tcp://127.0.0.1:0", &l, 0), 0);
    cr_assert_eq(node_address(a, l, url), 0);
    snprintf(named, sizeof named, "tcp://twofold.test%s", strrchr(url, ':'));
    int rc = node_dial(b, named, NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    world_close(w);
}

WORLD_TEST(names, a_listener_takes_one_address_of_several_and_no_other_when_it_is_taken,
           world_cases_tcp_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    char url[ENDPOINT_MAX], named[ENDPOINT_MAX];
    spoke_listener *l;

    cr_assert_eq(node_listen(a, "tcp://twofold.test:0", &l, 0), 0);
    cr_assert_eq(node_address(a, l, url), 0);
    cr_assert_eq(strncmp(url, "tcp://127.0.0.1:", 16), 0, "%s", url);
    snprintf(named, sizeof named, "tcp://twofold.test%s", strrchr(url, ':'));
    int rc = node_listen(b, named, NULL, 0);
    cr_assert_eq(rc, SPOKE_EADDRINUSE, "%s", spoke_error_name(rc));
    world_close(w);
}

/* ---- how long it takes ---- */

static int
listen_slowly(struct node *n, void *ctx)
{
    (void)ctx;
    return spoke_listen(n->s, "tcp://slow.test:0", NULL, 0);
}

/* While one socket waits for a name, the others on its engine carry messages. */
WORLD_TEST(names, a_lookup_for_a_listener_keeps_nobody_waiting, world_cases_shared)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR),
                *slow = world_add(w, SPOKE_PAIR);

    world_connect(w, a, b);
    hold_resolver();
    struct task *task = node_start(slow, listen_slowly, NULL);
    wait_for_lookup(1);
    for (uint32_t i = 0; i < 100; i++) {
        cr_assert_eq(node_send_pattern(b, 100, i, 0), 0);
        cr_assert_eq(node_expect(a, 100, i), 0);
    }
    cr_assert_eq(node_set_int(slow, SPOKE_OPT_MAX_PIPES, 3), 0, "its own socket too");
    cr_assert_eq(atomic_load(&answers), 0, "all that while it was looked up");
    release_resolver();
    cr_assert_eq(task_join(task), 0);
    world_close(w);
}

static void
release_later(void *ctx)
{
    (void)ctx;
    atomic_store(&resolver_held, false);
}

/* The owner waits by driving its engine, as in every call that waits. */
Test(names, an_owned_engine_goes_on_during_a_lookup)
{
    spoke_engine *e;
    spoke_socket *s;

    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, e), 0);
    hold_resolver();
    cr_assert_eq(spoke_engine_after(e, 20 * SPOKE_MS, release_later, NULL, NULL), 0);
    int rc = spoke_listen(s, "tcp://slow.test:0", NULL, 0);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(spoke_engine_close(e), 0);
}

static void
listen_in_a_callback(void *ctx)
{
    *(int *)ctx = spoke_listen(*((spoke_socket **)ctx + 1), "tcp://slow.test:0", NULL, 0);
}

Test(names, a_callback_may_not_wait_for_one)
{
    struct {
        int rc;
        spoke_socket *s;
    } there = {.rc = 1};
    spoke_engine *e;

    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&there.s, SPOKE_PAIR, e), 0);
    hold_resolver();
    cr_assert_eq(spoke_engine_post(e, listen_in_a_callback, &there), 0);
    cr_assert_eq(spoke_engine_poll(e, SPOKE_SECOND), 1);
    cr_assert_eq(there.rc, SPOKE_EDEADLK, "%s", spoke_error_name(there.rc));
    release_resolver();
    cr_assert_eq(spoke_socket_close(there.s), 0, "nothing is left of the listener");
    cr_assert_eq(spoke_engine_close(e), 0);
}

WORLD_TEST(names, a_lookup_has_the_time_of_a_handshake, world_cases_tcp_real)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR);

    cr_assert_eq(node_set_duration(a, SPOKE_OPT_HANDSHAKE_TIME, 30 * SPOKE_MS), 0);
    hold_resolver();
    int rc = node_listen(a, "tcp://slow.test:0", NULL, 0);
    cr_assert_eq(rc, SPOKE_ETIMEDOUT, "listen: %s", spoke_error_name(rc));
    rc = node_dial(a, "tcp://slow.test:5555", NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, SPOKE_ETIMEDOUT, "dial: %s", spoke_error_name(rc));
    spoke_ns begin = world_now(w);
    cr_assert_eq(node_close(a, NULL), 0);
    a->s = NULL;
    cr_assert_lt(world_now(w) - begin, WORLD_PATIENCE, "a close does not wait for it");
    release_resolver();
    world_close(w);
}

WORLD_TEST(names, a_close_ends_the_wait_for_one, world_cases_shared)
{
    struct world *w = world_open(c);
    struct node *slow = world_add(w, SPOKE_PAIR);

    hold_resolver();
    struct task *task = node_start(slow, listen_slowly, NULL);
    wait_for_lookup(1);
    world_pass(w, 5 * SPOKE_MS);
    cr_assert_eq(node_close(slow, NULL), 0);
    int rc = task_join(task);
    cr_assert_eq(rc, SPOKE_ECLOSED, "%s", spoke_error_name(rc));
    slow->s = NULL;
    cr_assert_eq(atomic_load(&answers), 0);
    release_resolver();
    world_close(w);
}

/* The answer finds neither the dialer nor its engine, whose memory another one has by then. */
Test(names, an_engine_may_close_during_a_lookup)
{
    struct resources before;

    resources_take(&before);
    hold_resolver();
    for (int i = 0; i < 3; i++) {
        spoke_engine *e;
        spoke_socket *s;
        cr_assert_eq(spoke_engine_open(&e, NULL), 0);
        cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, e), 0);
        cr_assert_eq(spoke_dial(s, "tcp://slow.test:5555", NULL, 0), 0);
        wait_for_lookup(i + 1);
        if (i == 2) {
            release_resolver();
            cr_assert_geq(spoke_engine_poll(e, 20 * SPOKE_MS), 0);
        }
        cr_assert_eq(spoke_engine_close(e), 0);
    }
    resources_settle(&before); /* the last of the threads has ended */
}

/* ---- many at once ---- */

#define THREADS 8  /* that look up names, of a process: runtime/engine/engine.h */
#define DIALERS 40 /* that ask for one, each once: what is refused waits for an hour */

static spoke_socket *
dial_slow_names(spoke_engine *e)
{
    spoke_socket *s;

    cr_assert_eq(spoke_socket_open(&s, SPOKE_REQ, e), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT, 3600 * SPOKE_SECOND), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_HANDSHAKE_TIME, 3600 * SPOKE_SECOND), 0);
    for (int i = 0; i < DIALERS; i++)
        cr_assert_eq(spoke_dial(s, "tcp://slow.test:1", NULL, 0), 0);
    return s;
}

Test(names, a_few_are_looked_up_at_a_time_and_the_others_wait_for_their_turn)
{
    struct resources before;
    spoke_engine *e;

    resources_take(&before);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    hold_resolver();
    dial_slow_names(e);
    wait_for_lookup(THREADS);
    usleep(20000);
    cr_assert_eq(atomic_load(&lookups), THREADS);
    release_resolver();
    poll_until_answered(e, DIALERS);
    cr_assert_leq(atomic_load(&most_at_once), THREADS);
    cr_assert_eq(spoke_engine_close(e), 0);
    resources_settle(&before);
}

/* Whoever waits in vain for those before it is not looked up later, for nobody. */
Test(names, what_nobody_waits_for_any_more_has_no_turn)
{
    struct resources before;
    spoke_engine *e;
    spoke_socket *s, *other;

    resources_take(&before);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    hold_resolver();
    s = dial_slow_names(e);
    wait_for_lookup(THREADS);
    cr_assert_eq(spoke_socket_open(&other, SPOKE_REQ, e), 0);
    cr_assert_eq(spoke_dial(other, "tcp://fast.test:1", NULL, 0), 0);
    cr_assert_eq(spoke_socket_close(s), 0);
    release_resolver();
    poll_until_answered(e, THREADS + 1);
    cr_assert_eq(spoke_engine_close(e), 0);
    resources_settle(&before); /* the threads have ended, so they have nothing to do */
    cr_assert_eq(atomic_load(&lookups), THREADS + 1);
}

/* The threads that look up are the parent's, and so are the names that wait for them.  (Under
 * ThreadSanitizer a child may not start threads.) */
#ifndef SPOKE_TINY_RUNNER
static int
look_up_in_a_child(void *ctx)
{
    spoke_engine *e;
    spoke_socket *s;
    int before = atomic_load(&lookups);

    (void)ctx;
    child_is_confined(); /* to what other threads of its parent had in hand */
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&s, SPOKE_PAIR, e) == 0);
    CHILD_CHECK(spoke_listen(s, "tcp://fast.test:0", NULL, 0) == 0);
    CHILD_CHECK(spoke_engine_close(e) == 0);
    CHILD_CHECK(atomic_load(&lookups) == before + 1);
    return 0;
}

Test(names, a_child_has_threads_of_its_own_for_them)
{
    spoke_engine *e;

    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    hold_resolver();
    dial_slow_names(e);
    wait_for_lookup(THREADS);
    cr_assert_eq(child_run(look_up_in_a_child, NULL, 20), 0);
    release_resolver();
    poll_until_answered(e, DIALERS);
    cr_assert_eq(spoke_engine_close(e), 0);
}
#endif
