/* SPDX-License-Identifier: MIT */
/* Whose thread and whose process: calls from a stranger are refused, and change nothing. */
#include "tests/support/world.h"

#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/support/process.h"

/* ThreadSanitizer ends a child of several threads that starts another one. */
#ifdef SPOKE_TINY_RUNNER
#define THREADS_AFTER_FORK 0
#else
#define THREADS_AFTER_FORK 1
#endif

struct stranger {
    spoke_engine *e;
    spoke_socket *a, *b;
    spoke_listener *l;
    spoke_dialer *d;
    int wrong; /* calls that were not refused as they should be */
};

static void
never(void *ctx)
{
    (void)ctx;
}

static void *
call_from_elsewhere(void *argument)
{
    struct stranger *stranger = argument;
    spoke_socket *fresh = NULL;
    spoke_dialer *d = NULL;
    spoke_listener *l = NULL;
    spoke_msg *m = NULL, *mine = pattern_message(10, 1);
    struct spoke_stats stats;
    spoke_ns wait = 0;
    uint64_t id = 0;
    int value = 0;
    size_t size = sizeof value;
    int results[] = {
        spoke_send_bytes(stranger->a, "x", 1, 0),
        spoke_recv(stranger->a, &m, 0),
        spoke_recv(stranger->a, &m, SPOKE_DONTWAIT),
        spoke_send(stranger->a, mine, SPOKE_DONTWAIT),
        spoke_sendv(stranger->a, &mine, 1, 0),
        spoke_recvv(stranger->a, &m, 1, 0),
        spoke_listen(stranger->a, "inproc://from-elsewhere", NULL, 0),
        spoke_dial(stranger->a, "inproc://from-elsewhere", NULL, 0),
        spoke_socket_get_int(stranger->a, SPOKE_OPT_SEND_QUEUE, &value),
        spoke_socket_set_int(stranger->a, SPOKE_OPT_SEND_QUEUE, 1),
        spoke_socket_on_message(stranger->a, NULL, NULL),
        spoke_socket_on_writable(stranger->a, NULL, NULL),
        spoke_socket_on_event(stranger->a, NULL, NULL),
        spoke_pipe_close(stranger->a, 1),
        spoke_pipe_get(stranger->a, 1, SPOKE_OPT_URL, SPOKE_STRING, &value, &size),
        spoke_dialer_create(&d, stranger->a, "inproc://from-elsewhere"),
        spoke_listener_create(&l, stranger->a, "inproc://from-elsewhere"),
        spoke_dialer_get_duration(stranger->d, SPOKE_OPT_RECONNECT, &wait),
        spoke_dialer_set_duration(stranger->d, SPOKE_OPT_RECONNECT, 1),
        spoke_dialer_start(stranger->d, 0),
        spoke_dialer_close(stranger->d),
        spoke_listener_get_duration(stranger->l, SPOKE_OPT_HANDSHAKE_TIME, &wait),
        spoke_listener_start(stranger->l, 0),
        spoke_listener_close(stranger->l),
        spoke_engine_fd(stranger->e),
        spoke_engine_after(stranger->e, 0, never, NULL, &id),
        spoke_engine_cancel(stranger->e, 1),
        spoke_socket_stats(stranger->a, &stats),
        spoke_socket_close(stranger->a),
        spoke_socket_open(&fresh, SPOKE_PAIR, stranger->e),
        spoke_engine_poll(stranger->e, 0),
        spoke_engine_run(stranger->e),
        spoke_engine_close(stranger->e),
    };

    for (size_t i = 0; i < sizeof results / sizeof results[0]; i++) {
        if (results[i] != SPOKE_EWRONGTHREAD) {
            fprintf(stderr, "call %zu: %s\n", i, spoke_error_name(results[i]));
            stranger->wrong++;
        }
    }
    spoke_msg_free(mine); /* a refused send leaves it */
    return NULL;
}

WORLD_TEST(ownership, a_call_from_another_thread_is_refused, world_cases_owned)
{
    struct world *w = world_open(c);
    struct node *a = world_add(w, SPOKE_PAIR), *b = world_add(w, SPOKE_PAIR);
    struct stranger stranger = {.e = a->e, .a = a->s, .b = b->s};
    char url[ENDPOINT_MAX];
    pthread_t thread;

    world_url(w, url);
    cr_assert_eq(node_listen(a, url, &stranger.l, 0), 0);
    cr_assert_eq(node_dial(b, url, &stranger.d, SPOKE_WAIT_FIRST), 0);
    world_wait_pipes(w, a, 1);
    cr_assert_eq(pthread_create(&thread, NULL, call_from_elsewhere, &stranger), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(stranger.wrong, 0);
    cr_assert_eq(node_send_pattern(b, 10, 1, 0), 0);
    cr_assert_eq(node_expect(a, 10, 1), 0);
    world_close(w);
}

static void
do_nothing(void *ctx)
{
    (void)ctx;
}

/* In the child: the parent's handles are dead, and new ones work. */
static int
use_after_fork(void *ctx)
{
    struct node **nodes = ctx;
    struct node *a = nodes[0];
    spoke_msg *m;
    spoke_engine *e;
    spoke_socket *x, *y;
    struct spoke_stats stats;
    int value;

    CHILD_CHECK(spoke_send_bytes(a->s, "x", 1, 0) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_recv(a->s, &m, 0) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_recv(a->s, &m, SPOKE_DONTWAIT) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_dial(a->s, "inproc://in-the-child", NULL, 0) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_listen(a->s, "inproc://in-the-child", NULL, 0) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_socket_get_int(a->s, SPOKE_OPT_SEND_QUEUE, &value) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_socket_stats(a->s, &stats) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_socket_close(nodes[1]->s) == SPOKE_EFORKED);
    if (a->e != NULL) {
        CHILD_CHECK(spoke_engine_poll(a->e, 0) == SPOKE_EFORKED);
        CHILD_CHECK(spoke_engine_close(a->e) == SPOKE_EFORKED);
        CHILD_CHECK(spoke_engine_stop(a->e) == SPOKE_EFORKED);
        CHILD_CHECK(spoke_engine_post(a->e, do_nothing, NULL) == SPOKE_EFORKED);
    }
    for (int owned = THREADS_AFTER_FORK ? 0 : 1; owned < 2; owned++) {
        e = NULL;
        CHILD_CHECK(!owned || spoke_engine_open(&e, NULL) == 0);
        CHILD_CHECK(spoke_socket_open(&x, SPOKE_PAIR, e) == 0);
        CHILD_CHECK(spoke_socket_open(&y, SPOKE_PAIR, e) == 0);
        CHILD_CHECK(spoke_listen(x, "inproc://in-the-child", NULL, 0) == 0);
        CHILD_CHECK(spoke_dial(y, "inproc://in-the-child", NULL, SPOKE_WAIT_FIRST) == 0);
        CHILD_CHECK(spoke_send_bytes(y, "hello", 5, 0) == 0);
        CHILD_CHECK(spoke_recv(x, &m, 0) == 0);
        CHILD_CHECK(spoke_msg_size(m) == 5);
        spoke_msg_free(m);
        CHILD_CHECK(spoke_socket_close(x) == 0);
        CHILD_CHECK(spoke_socket_close(y) == 0);
        CHILD_CHECK(e == NULL || spoke_engine_close(e) == 0);
    }
    return 0;
}

WORLD_TEST(ownership, a_child_gets_a_clear_error_and_its_parent_goes_on, world_cases_real)
{
    struct world *w = world_open(c);
    struct node *nodes[2] = {world_add(w, SPOKE_PAIR), world_add(w, SPOKE_PAIR)};
    char url[ENDPOINT_MAX];
    struct stat status;

    world_url(w, url);
    cr_assert_eq(node_listen(nodes[0], url, NULL, 0), 0);
    cr_assert_eq(node_dial(nodes[1], url, NULL, SPOKE_WAIT_FIRST), 0);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(node_send_pattern(nodes[1], 1000, i, 0), 0);
        if (world_mode(w) != OWNED_TWO) /* whose engines' threads a fork would not copy */
            cr_assert_eq(child_run(use_after_fork, nodes, 15), 0);
        cr_assert_eq(node_expect(nodes[0], 1000, i), 0);
    }
    if (c->transport == IPC || c->transport == SHM)
        cr_assert_eq(lstat(endpoint_path(url), &status), 0, "the child left the socket file");
    world_close(w);
    if (c->transport == IPC || c->transport == SHM)
        cr_assert_eq(lstat(endpoint_path(url), &status), -1, "the parent removed it");
}
