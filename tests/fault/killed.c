/* SPDX-License-Identifier: MIT */
/* Peers that are killed (SIGKILL) at random moments, a thousand times: the others go on, and no
 * memory, no descriptor and no socket file is left.  SPOKE_KILLS sets another number, SPOKE_SEED
 * repeats a run. */
#include "tests/support/test.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "tests/support/echo.h"
#include "tests/support/endpoints.h"
#include "tests/support/process.h"
#include "tests/support/random.h"
#include "tests/support/resources.h"

#define PATIENCE (10 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

static uint64_t dice;

static void
start_random(void)
{
    const char *text = getenv("SPOKE_SEED");

    dice = text != NULL ? (uint64_t)strtoul(text, NULL, 10)
                        : (uint64_t)time(NULL) ^ (uint64_t)getpid();
    cr_log_info("SPOKE_SEED=%llu", (unsigned long long)dice);
    dice |= 1;
}

static int
count_of_kills(void)
{
    const char *text = getenv("SPOKE_KILLS");

    return (text != NULL ? atoi(text) : TEST_REPEATS(1000)) / 4;
}

static void
nap_us(long us)
{
    const struct timespec pause = {.tv_sec = us / 1000000, .tv_nsec = us % 1000000 * 1000};

    nanosleep(&pause, NULL);
}

/* ---- the mortal peers: each in a process of its own, until it is killed ---- */

/* Asks without end, for messages of all sizes. */
static int
ask_for_ever(void *ctx)
{
    spoke_engine *e;
    spoke_socket *req;
    spoke_msg *m;

    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&req, SPOKE_REQ, e) == 0);
    CHILD_CHECK(spoke_dial(req, ctx, NULL, 0) == 0);
    for (;;) {
        uint32_t most = random_below(&dice, 4) == 0 ? 300000 : 500;

        CHILD_CHECK(spoke_msg_new(&m, random_below(&dice, most)) == 0);
        CHILD_CHECK(spoke_send(req, m, 0) == 0);
        if (random_below(&dice, 4) == 0)
            continue; /* the next one takes its place */
        CHILD_CHECK(spoke_recv(req, &m, 0) == 0);
        spoke_msg_free(m);
    }
}

/* The address may still be in the hands of the one before: the kernel takes its time with what was
 * in a ring of his. */
static int
listen_after_the_dead(spoke_socket *rep, const char *url)
{
    int rc = spoke_listen(rep, url, NULL, 0);

    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && rc != 0; i++) {
        nap_us(1000);
        rc = spoke_listen(rep, url, NULL, 0);
    }
    return rc;
}

static int
answer_for_ever(void *ctx)
{
    spoke_engine *e;
    spoke_socket *rep;
    spoke_msg *m;

    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&rep, SPOKE_REP, e) == 0);
    CHILD_CHECK(listen_after_the_dead(rep, ctx) == 0);
    for (;;) {
        CHILD_CHECK(spoke_recv(rep, &m, 0) == 0);
        CHILD_CHECK(spoke_send(rep, m, 0) == 0);
    }
}

/* ---- the survivors ---- */

static void
check_answered(spoke_socket *req)
{
    char buffer[8];
    size_t size = sizeof buffer;

    cr_assert_eq(spoke_send_bytes(req, "alive?", 6, 0), 0);
    int rc = spoke_recv_bytes(req, buffer, &size, 0);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(size, 6);
}

static uint64_t
pipes_of(spoke_socket *s)
{
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_stats(s, &stats), 0);
    return stats.pipes_current;
}

static void
await_pipes(spoke_socket *s, uint64_t count)
{
    for (spoke_ns waited = 0; pipes_of(s) != count; waited += SPOKE_MS) {
        cr_assert_lt(waited, PATIENCE, "%llu pipes", (unsigned long long)pipes_of(s));
        nap_us(1000);
    }
}

static void
server_outlives(enum transport transport)
{
    static struct resources before;
    spoke_socket *rep, *healthy;
    char url[ENDPOINT_MAX];
    int kills = count_of_kills();

    start_random();
    endpoint_fresh(url, transport);
    for (int round = 0; round < 2; round++) { /* the first is only to get warm */
        resources_take(&before);
        cr_assert_eq(spoke_socket_open(&rep, SPOKE_REP, NULL), 0);
        cr_assert_eq(spoke_socket_on_message(rep, echo, NULL), 0);
        cr_assert_eq(spoke_listen(rep, url, NULL, 0), 0);
        cr_assert_eq(spoke_socket_open(&healthy, SPOKE_REQ, NULL), 0);
        cr_assert_eq(spoke_socket_set_duration(healthy, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
        cr_assert_eq(spoke_dial(healthy, url, NULL, SPOKE_WAIT_FIRST), 0);
        for (int i = 0; i < (round == 0 ? 5 : kills); i++) {
            random_below(&dice, 2); /* so that each child's chances differ */
            pid_t child = child_start(ask_for_ever, url);
            nap_us(random_below(&dice, 10000 * SPOKE_TEST_SLOWDOWN));
            child_kill(child);
            if (i % 20 == 0)
                check_answered(healthy);
        }
        check_answered(healthy);
        await_pipes(rep, 1);
        cr_assert_eq(spoke_socket_close(healthy), 0);
        cr_assert_eq(spoke_socket_close(rep), 0);
    }
    resources_settle(&before);
}

Test(killed, requesters_leave_nothing_in_an_ipc_server)
{
    server_outlives(IPC);
}

Test(killed, requesters_leave_nothing_in_a_tcp_server)
{
    server_outlives(TCP);
}

/* The client owns its engine: one thread that asks, and is kept waiting by the dead. */
static void
client_outlives(enum transport transport)
{
    static struct resources before;
    spoke_engine *e;
    spoke_socket *req, *rep;
    spoke_msg *m;
    char url[ENDPOINT_MAX];
    int kills = count_of_kills(), answered = 0;

    start_random();
    endpoint_fresh(url, transport);
    resources_take(&before);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, e), 0);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    cr_assert_eq(spoke_dial(req, url, NULL, 0), 0);
    for (int i = 0; i < kills; i++) {
        pid_t child = child_start(answer_for_ever, url);
        spoke_ns now = spoke_engine_now(e), give_up = now + PATIENCE;
        spoke_ns end = now + random_below(&dice, 12000 * SPOKE_TEST_SLOWDOWN) * SPOKE_US;
        cr_assert_eq(
            spoke_socket_set_duration(req, SPOKE_OPT_RECV_TIMEOUT, SPOKE_MS * SPOKE_TEST_SLOWDOWN),
            0);
        /* Where starting takes longer than that, one in four lives until it has answered. */
        while ((now = spoke_engine_now(e)) < end || answered <= i / 4) {
            size_t size = random_below(&dice, 4) == 0 ? random_below(&dice, 300000) : 10;

            cr_assert_lt(now, give_up, "the peers hardly live");
            if (now >= end) /* however slow it is */
                cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
            cr_assert_eq(spoke_msg_new(&m, size), 0);
            int rc = spoke_send(req, m, 0);
            cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
            rc = spoke_recv(req, &m, 0);
            cr_assert(rc == 0 || rc == SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
            answered += rc == 0;
            spoke_msg_free(m);
        }
        child_kill(child);
    }
    cr_log_info("%d requests were answered", answered);

    /* One who is not killed takes the address over, answers, and takes its file away. */
    cr_assert_eq(spoke_socket_open(&rep, SPOKE_REP, e), 0);
    cr_assert_eq(spoke_socket_on_message(rep, echo, NULL), 0);
    int rc = listen_after_the_dead(rep, url);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    check_answered(req);
    cr_assert_eq(spoke_socket_close(rep), 0);
    cr_assert_eq(spoke_socket_close(req), 0);
    cr_assert_eq(spoke_engine_close(e), 0);
    resources_settle(&before);
    if (transport == IPC)
        cr_assert_eq(access(endpoint_path(url), F_OK), -1, "a socket file is left");
}

Test(killed, repliers_leave_nothing_in_an_ipc_client)
{
    client_outlives(IPC);
}

Test(killed, repliers_leave_nothing_in_a_tcp_client)
{
    client_outlives(TCP);
}
