/* SPDX-License-Identifier: MIT */
/* Peers on tcp that vanish without a word, as with a pulled cable: nothing of what is sent to them
 * arrives any more, so their kernel says nothing either, neither an acknowledgement nor an end.  A
 * filter on the peer's descriptor does that to one connection, and needs no rights. */
#include <linux/filter.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/raw_peer.h"
#include "tests/support/test.h"

#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

static void
vanish(const struct raw_peer *p)
{
    struct sock_filter nothing[] = {BPF_STMT(BPF_RET | BPF_K, 0)};
    struct sock_fprog filter = {.len = 1, .filter = nothing};

    cr_assert_eq(setsockopt(p->fd, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter), 0);
}

/* What became of the pipes of a socket. */
struct fate {
    atomic_int ended;
    atomic_int reason; /* of the last one */
};

static int
note_end(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct fate *fate = ctx;

    (void)s;
    if (event->type == SPOKE_EVENT_DETACHED) {
        atomic_store(&fate->reason, event->reason);
        atomic_fetch_add(&fate->ended, 1);
    }
    return 0;
}

static spoke_socket *
open_socket(int protocol, struct fate *fate)
{
    spoke_socket *s;

    cr_assert_eq(spoke_socket_open(&s, protocol, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 0), 0);
    cr_assert_eq(spoke_socket_on_event(s, note_end, fate), 0);
    return s;
}

static void
listen_on(spoke_socket *s, char url[ENDPOINT_MAX])
{
    endpoint_fresh(url, TCP);
    cr_assert_eq(spoke_listen(s, url, NULL, 0), 0);
}

static void
await(spoke_socket *s, size_t offset, uint64_t wanted, const char *name)
{
    const struct timespec pause = {.tv_nsec = 1000000};
    struct spoke_stats stats;
    uint64_t value = 0;

    for (spoke_ns waited = 0; waited < PATIENCE; waited += pause.tv_nsec) {
        cr_assert_eq(spoke_socket_stats(s, &stats), 0);
        memcpy(&value, (const char *)&stats + offset, sizeof value);
        if (value == wanted)
            return;
        nanosleep(&pause, NULL);
    }
    cr_assert(false, "%s is %llu, not %llu", name, (unsigned long long)value,
              (unsigned long long)wanted);
}
#define AWAIT(Socket, Counter, Wanted)                                                             \
    await((Socket), offsetof(struct spoke_stats, Counter), (Wanted), #Counter)

static void
await_end(const struct fate *fate)
{
    for (spoke_ns waited = 0; atomic_load(&fate->ended) == 0; waited += SPOKE_MS) {
        cr_assert_lt(waited, PATIENCE, "the pipe stays");
        nanosleep(&(struct timespec){.tv_nsec = SPOKE_MS}, NULL);
    }
}

/* Nothing is sent: the kernel's probes find out.  Who is silent but there stays. */
Test(vanished, a_silent_peer_is_missed)
{
    struct fate fate = {0};
    spoke_socket *s = open_socket(SPOKE_REP, &fate);
    struct raw_peer gone, silent;
    char url[ENDPOINT_MAX], reply[16];
    const uint32_t id = 0x80000001u;

    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_TCP_KEEPALIVE_TIME, SPOKE_SECOND), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_TCP_USER_TIMEOUT, SPOKE_SECOND), 0);
    listen_on(s, url);
    cr_assert_eq(raw_dial_sp(&silent, url, SPOKE_REQ, SPOKE_REP), RAW_OK);
    cr_assert_eq(raw_dial_sp(&gone, url, SPOKE_REQ, SPOKE_REP), RAW_OK);
    AWAIT(s, pipes_current, 2);
    vanish(&gone);
    await_end(&fate);
    cr_assert_eq(atomic_load(&fate.reason), SPOKE_ETIMEDOUT);
    AWAIT(s, pipes_current, 1);
    cr_assert_eq(raw_send_words(&silent, &id, 1, "question"), RAW_OK);
    spoke_msg *m;
    cr_assert_eq(spoke_recv(s, &m, 0), 0);
    cr_assert_eq(spoke_send(s, m, 0), 0);
    cr_assert_eq(raw_recv(&silent, reply, sizeof reply, RAW_LIMIT_MS), 12);
    raw_close(&gone);
    raw_close(&silent);
    cr_assert_eq(spoke_socket_close(s), 0);
}

/* Something was sent: no probes then; the acknowledgement is what does not come.  Without the
 * option the kernel goes on for a quarter of an hour. */
Test(vanished, a_peer_that_acknowledges_nothing_is_given_up)
{
    static const spoke_ns timeouts[] = {0, 500 * SPOKE_MS};
    struct fate fates[2] = {0};
    struct raw_peer peers[2];
    spoke_socket *s[2];
    char url[ENDPOINT_MAX];

    for (int i = 0; i < 2; i++) {
        s[i] = open_socket(SPOKE_PUSH, &fates[i]);
        cr_assert_eq(spoke_socket_set_bool(s[i], SPOKE_OPT_TCP_KEEPALIVE, false), 0);
        cr_assert_eq(spoke_socket_set_duration(s[i], SPOKE_OPT_TCP_USER_TIMEOUT, timeouts[i]), 0);
        listen_on(s[i], url);
        cr_assert_eq(raw_dial_sp(&peers[i], url, SPOKE_PULL, SPOKE_PUSH), RAW_OK);
        AWAIT(s[i], pipes_current, 1);
        vanish(&peers[i]);
        cr_assert_eq(spoke_send_bytes(s[i], "lost", 4, 0), 0, "nobody can know yet");
    }
    await_end(&fates[1]);
    cr_assert_eq(atomic_load(&fates[1].reason), SPOKE_ETIMEDOUT);
    AWAIT(s[1], pipes_current, 0);
    cr_assert_eq(atomic_load(&fates[0].ended), 0);
    for (int i = 0; i < 2; i++) {
        raw_close(&peers[i]);
        cr_assert_eq(spoke_socket_close(s[i]), 0);
    }
}

/* A request that went to it goes to another peer when it is given up, before its retry time is
 * over. */
Test(vanished, a_request_goes_elsewhere)
{
    struct fate fate = {0};
    spoke_socket *s = open_socket(SPOKE_REQ, &fate);
    struct raw_peer gone, other;
    char url[ENDPOINT_MAX], answer[16];
    size_t size = sizeof answer;
    uint8_t request[16];

    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RETRY_TIME, 3600 * SPOKE_SECOND), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_TCP_USER_TIMEOUT, 500 * SPOKE_MS), 0);
    listen_on(s, url);
    cr_assert_eq(raw_dial_sp(&gone, url, SPOKE_REP, SPOKE_REQ), RAW_OK);
    AWAIT(s, pipes_current, 1);
    vanish(&gone);
    cr_assert_eq(spoke_send_bytes(s, "question", 8, 0), 0);
    cr_assert_eq(raw_dial_sp(&other, url, SPOKE_REP, SPOKE_REQ), RAW_OK);
    cr_assert_eq(raw_recv(&other, request, sizeof request, (int)(PATIENCE / SPOKE_MS)), 12);
    await_end(&fate);
    cr_assert_eq(atomic_load(&fate.reason), SPOKE_ETIMEDOUT);
    cr_assert_eq(raw_send(&other, request, 12), RAW_OK);
    cr_assert_eq(spoke_recv_bytes(s, answer, &size, 0), 0);
    cr_assert_eq(size, 8);
    raw_close(&gone);
    raw_close(&other);
    cr_assert_eq(spoke_socket_close(s), 0);
}
