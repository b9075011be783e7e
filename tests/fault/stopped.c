/* SPDX-License-Identifier: MIT */
/* A peer in shared memory that is stopped (SIGSTOP) and goes on later: nothing is lost, whoever
 * sends to it is held back, and others are served meanwhile.  Their segments are small: what finds
 * no room there comes in pieces. */
#include "tests/support/test.h"

#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "tests/support/echo.h"
#include "tests/support/endpoints.h"
#include "tests/support/process.h"
#include "tests/support/resources.h"

#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)
#define MESSAGES ((uint32_t)3000)
#define STOP_MS  100

static const size_t sizes[] = {4, 100, 6000, 4, 90000, 2000, 30000, 8};

static spoke_msg *
new_message(uint32_t serial)
{
    spoke_msg *m;

    if (spoke_msg_new(&m, sizes[serial % 8]) != 0)
        return NULL;
    memset(spoke_msg_body(m), (int)(serial * 5), spoke_msg_size(m));
    memcpy(spoke_msg_body(m), &serial, sizeof serial);
    return m;
}

static bool
is_message(const spoke_msg *m, uint32_t serial)
{
    const uint8_t *body = spoke_msg_body(m);

    if (spoke_msg_size(m) != sizes[serial % 8] || memcmp(body, &serial, sizeof serial) != 0)
        return false;
    for (size_t i = sizeof serial; i < spoke_msg_size(m); i++)
        if (body[i] != (uint8_t)(serial * 5))
            return false;
    return true;
}

static int
make_small(spoke_socket *s)
{
    int rc = spoke_socket_set_size(s, SPOKE_OPT_SHM_SEGMENT, 64 * 1024);

    if (rc == 0)
        rc = spoke_socket_set_size(s, SPOKE_OPT_SHM_RING, 16 * 1024);
    if (rc == 0)
        rc = spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE);
    return rc != 0 ? rc : spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, PATIENCE);
}

/* ---- the other process ---- */

static spoke_socket *
meet(spoke_engine **e, int protocol, const char *url)
{
    spoke_socket *s;

    CHILD_CHECK(spoke_engine_open(e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&s, protocol, *e) == 0);
    CHILD_CHECK(make_small(s) == 0);
    CHILD_CHECK(spoke_dial(s, url, NULL, SPOKE_WAIT_FIRST) == 0);
    return s;
}

static int
send_all(void *ctx)
{
    spoke_engine *e;
    spoke_socket *s = meet(&e, SPOKE_PUSH, ctx);

    for (uint32_t i = 0; i < MESSAGES; i++) {
        spoke_msg *m = new_message(i);
        CHILD_CHECK(m != NULL && spoke_send(s, m, 0) == 0);
    }
    CHILD_CHECK(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, PATIENCE) == 0);
    CHILD_CHECK(spoke_socket_close(s) == 0);
    CHILD_CHECK(spoke_engine_close(e) == 0);
    return 0;
}

static int
receive_all(void *ctx)
{
    spoke_engine *e;
    spoke_socket *s = meet(&e, SPOKE_PULL, ctx);
    spoke_msg *m;

    for (uint32_t i = 0; i < MESSAGES; i++) {
        CHILD_CHECK(spoke_recv(s, &m, 0) == 0);
        CHILD_CHECK(is_message(m, i));
        spoke_msg_free(m);
    }
    CHILD_CHECK(spoke_engine_close(e) == 0);
    return 0;
}

/* ---- ours: one socket for that process, and two that talk beside it ---- */

struct scene {
    spoke_socket *s, *ask, *answer;
    char url[ENDPOINT_MAX], beside[ENDPOINT_MAX];
};

static void
scene_open(struct scene *x, int protocol)
{
    endpoint_fresh(x->url, IPC);
    endpoint_fresh(x->beside, IPC);
    cr_assert_eq(spoke_socket_open(&x->s, protocol, NULL), 0);
    cr_assert_eq(spoke_socket_open(&x->ask, SPOKE_REQ, NULL), 0);
    cr_assert_eq(spoke_socket_open(&x->answer, SPOKE_REP, NULL), 0);
    cr_assert_eq(make_small(x->s), 0);
    cr_assert_eq(make_small(x->ask), 0);
    cr_assert_eq(spoke_socket_on_message(x->answer, echo, NULL), 0);
    cr_assert_eq(spoke_listen(x->s, x->url, NULL, 0), 0);
    cr_assert_eq(spoke_listen(x->answer, x->beside, NULL, 0), 0);
    cr_assert_eq(spoke_dial(x->ask, x->beside, NULL, SPOKE_WAIT_FIRST), 0);
}

static void
scene_close(struct scene *x)
{
    cr_assert_eq(spoke_socket_close(x->s), 0);
    cr_assert_eq(spoke_socket_close(x->ask), 0);
    cr_assert_eq(spoke_socket_close(x->answer), 0);
}

static long
now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* While the other process stands still. */
static void
talk_beside_it(struct scene *x)
{
    long end = now_ms() + STOP_MS;

    for (uint32_t i = 0; i < 20 || now_ms() < end; i++) {
        spoke_msg *m = new_message(i), *reply = NULL;
        cr_assert_not_null(m);
        cr_assert_eq(spoke_send(x->ask, m, 0), 0);
        int rc = spoke_recv(x->ask, &reply, 0);
        cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
        cr_assert(is_message(reply, i));
        spoke_msg_free(reply);
    }
}

static uint64_t
shared(spoke_socket *s)
{
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_stats(s, &stats), 0);
    return stats.pipes_shared;
}

Test(stopped, a_sender_loses_nothing)
{
    struct scene x;
    bool moved = false;
    spoke_msg *m;

    scene_open(&x, SPOKE_PULL);
    pid_t child = child_start(send_all, x.url);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        int rc = spoke_recv(x.s, &m, 0);
        cr_assert_eq(rc, 0, "message %u: %s", i, spoke_error_name(rc));
        cr_assert(is_message(m, i), "message %u", i);
        spoke_msg_free(m);
        if (i % 1000 != 500)
            continue;
        cr_assert_eq(kill(child, SIGSTOP), 0);
        talk_beside_it(&x);
        moved |= shared(x.s) == 1; /* when all has come it may be gone */
        cr_assert_eq(kill(child, SIGCONT), 0);
    }
    cr_assert(moved, "it was in shared memory");
    cr_assert_eq(child_wait(child, 20), 0);
    scene_close(&x);
}

Test(stopped, a_receiver_loses_nothing_and_holds_back_who_sends)
{
    uint32_t sent = 0, ahead;
    bool moved = false;
    struct scene x;

    scene_open(&x, SPOKE_PUSH);
    pid_t child = child_start(receive_all, x.url);
    while (sent < MESSAGES) {
        spoke_msg *m = new_message(sent);
        cr_assert_not_null(m);
        int rc = spoke_send(x.s, m, 0);
        cr_assert_eq(rc, 0, "message %u: %s", sent, spoke_error_name(rc));
        if (++sent % 1000 != 500)
            continue;
        cr_assert_eq(kill(child, SIGSTOP), 0);
        for (ahead = 0; sent < MESSAGES; ahead++, sent++) {
            m = new_message(sent);
            if (spoke_send(x.s, m, SPOKE_DONTWAIT) != 0) {
                spoke_msg_free(m);
                break;
            }
        }
        cr_assert_lt(ahead, 400, "it is not held back");
        talk_beside_it(&x);
        moved |= shared(x.s) == 1; /* when all has been sent it may be gone */
        cr_assert_eq(kill(child, SIGCONT), 0);
    }
    cr_assert(moved, "it was in shared memory");
    cr_assert_eq(child_wait(child, 20), 0);
    scene_close(&x);
}
