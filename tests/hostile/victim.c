/* SPDX-License-Identifier: MIT */
#include "tests/hostile/victim.h"

#include <string.h>
#include <time.h>

#include "tests/support/echo.h"

#define PATIENCE (10 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

struct criterion_test_params
victim_transports(void)
{
    static enum transport transports[] = {IPC, TCP};

    return (struct criterion_test_params){
        .size = sizeof transports[0], .params = transports, .length = 2};
}

/* Server and client, listening and connected. */
static void
open_sockets(struct victim *v, enum transport transport)
{
    int rc;

    cr_assert_eq(spoke_socket_open(&v->rep, SPOKE_REP, NULL), 0);
    cr_assert_eq(spoke_socket_open(&v->client, SPOKE_REQ, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(v->client, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_on_message(v->rep, echo, NULL), 0);
    endpoint_fresh(v->url, transport);
    rc = spoke_listen(v->rep, v->url, &v->l, 0);
    cr_assert_eq(rc, 0, "listen %s: %s", v->url, spoke_error_name(rc));
    rc = spoke_dial(v->client, v->url, NULL, SPOKE_WAIT_FIRST);
    cr_assert_eq(rc, 0, "dial %s: %s", v->url, spoke_error_name(rc));
    victim_await(v, pipes_current, 1);
    victim_check(v);
}

void
victim_open(struct victim *v, enum transport transport)
{
    scratch_dir();
    open_sockets(v, transport); /* once in vain: the shared engine makes what it keeps */
    cr_assert_eq(spoke_socket_close(v->client), 0);
    cr_assert_eq(spoke_socket_close(v->rep), 0);
    resources_take(&v->before);
    open_sockets(v, transport);
}

void
victim_check(struct victim *v)
{
    static uint32_t number;
    char buffer[64] = "";
    size_t size = sizeof buffer;

    number++;
    cr_assert_eq(spoke_send_bytes(v->client, &number, sizeof number, 0), 0);
    int rc = spoke_recv_bytes(v->client, buffer, &size, 0);
    cr_assert_eq(rc, 0, "the healthy client: %s", spoke_error_name(rc));
    cr_assert_eq(size, sizeof number);
    cr_assert_arr_eq(buffer, &number, sizeof number);
}

struct spoke_stats
victim_stats(struct victim *v)
{
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_stats(v->rep, &stats), 0);
    return stats;
}

static uint64_t
counter_at(struct victim *v, size_t offset)
{
    struct spoke_stats stats = victim_stats(v);
    uint64_t value;

    memcpy(&value, (const char *)&stats + offset, sizeof value);
    return value;
}

void
victim_await_at(struct victim *v, size_t offset, uint64_t value, const char *name)
{
    const struct timespec pause = {.tv_nsec = 200 * 1000};

    for (spoke_ns waited = 0; counter_at(v, offset) < value; waited += pause.tv_nsec) {
        cr_assert_lt(waited, PATIENCE, "%s: %llu, wanted %llu", name,
                     (unsigned long long)counter_at(v, offset), (unsigned long long)value);
        nanosleep(&pause, NULL);
    }
}

static void
await_only_client(struct victim *v)
{
    const struct timespec pause = {.tv_nsec = 200 * 1000};

    for (spoke_ns waited = 0; victim_stats(v).pipes_current > 1; waited += pause.tv_nsec) {
        cr_assert_lt(waited, PATIENCE, "%llu pipes are left",
                     (unsigned long long)victim_stats(v).pipes_current);
        nanosleep(&pause, NULL);
    }
}

void
victim_close(struct victim *v)
{
    victim_check(v);
    await_only_client(v);
    struct spoke_stats stats;
    cr_assert_eq(spoke_socket_stats(v->client, &stats), 0);
    cr_expect_eq(stats.pipes_attached, 1, "the healthy client was disconnected");
    cr_expect_eq(spoke_socket_close(v->client), 0);
    cr_expect_eq(spoke_socket_close(v->rep), 0);
    resources_settle(&v->before);
}

void
victim_meet(struct victim *v, struct raw_peer *p)
{
    cr_assert_eq(raw_dial_sp(p, v->url, SPOKE_REQ, SPOKE_REP), RAW_OK);
}

void
victim_ask(struct raw_peer *p, uint32_t id)
{
    const uint32_t word = id | 0x80000000u;
    uint8_t reply[64];

    cr_assert_eq(raw_send_words(p, &word, 1, "question"), RAW_OK);
    cr_assert_eq(raw_recv(p, reply, sizeof reply, RAW_LIMIT_MS), 4 + 8);
    cr_assert_eq(raw_get32(reply), word);
    cr_assert_arr_eq(reply + 4, "question", 8);
}

void
peer_leaves(struct raw_peer *p, int way)
{
    if (way == 0) {
        raw_reset(p);
        return;
    }
    if (way == 2) {
        raw_end(p);
        cr_assert_eq(raw_wait_eof(p, RAW_LIMIT_MS), RAW_OK, "a half-close is a close");
    }
    raw_close(p);
}
