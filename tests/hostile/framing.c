/* SPDX-License-Identifier: MIT */
/* Lengths that lie, messages that stop, connections that break in the middle. */
#include "tests/hostile/victim.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/waiters.h"

#define PATIENCE (10 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

/* A prefix that promises `length` bytes. */
static void
promise(struct raw_peer *p, uint64_t length)
{
    uint8_t prefix[RAW_IPC_PREFIX_BYTES];
    size_t size = raw_prefix(p, prefix, length);

    cr_assert_eq(raw_send_bytes(p, prefix, size, RAW_LIMIT_MS), RAW_OK);
}

HOSTILE_TEST(framing, a_length_over_the_limit_closes_the_pipe_at_once)
{
    static const uint64_t lengths[] = {1024 * 1024 + 1, 1u << 31,       UINT32_MAX,
                                       1ull << 32,      1ull << 40,     (1ull << 63) - 1,
                                       1ull << 63,      UINT64_MAX - 7, UINT64_MAX};
    struct victim v;

    victim_open(&v, *t);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct raw_peer p;
        victim_meet(&v, &p);
        victim_ask(&p, 1);
        promise(&p, lengths[i]);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "without a byte of the body");
        raw_close(&p);
        victim_await(&v, oversized, i + 1);
        victim_check(&v);
    }
    victim_close(&v);
}

HOSTILE_TEST(framing, a_message_at_the_limit_passes_and_one_byte_more_does_not)
{
    const size_t limit = 100000;
    uint8_t *body = calloc(1, limit + 1), *reply = malloc(limit);
    struct victim v;
    struct raw_peer p;

    victim_open(&v, *t);
    cr_assert_eq(spoke_listener_set_size(v.l, SPOKE_OPT_MAX_RECV_SIZE, limit), 0);
    raw_put32(body, 0x80000001u);
    victim_meet(&v, &p);
    cr_assert_eq(raw_send(&p, body, limit), RAW_OK);
    cr_assert_eq(raw_recv(&p, reply, limit, RAW_LIMIT_MS), (long)limit);
    (void)raw_send(&p, body, limit + 1); /* the server may hang up in the middle of it */
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
    victim_await(&v, oversized, 1);
    victim_close(&v);
    free(body);
    free(reply);
}

/* ---- idle timeout ---- */

static int
count_timed_out(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s;
    if (event->type == SPOKE_EVENT_DETACHED && event->reason == SPOKE_ETIMEDOUT)
        atomic_fetch_add((atomic_int *)ctx, 1);
    return 0;
}

/* Where a request of 100 000 bytes stops: in its prefix, behind it, and in the body, which is
 * received in two ways. */
HOSTILE_TEST(framing, a_message_that_stops_is_given_up)
{
    static const size_t cuts[] = {1, 7, 0, 10, 70000}; /* 0: the whole prefix */
    static uint8_t bytes[RAW_IPC_PREFIX_BYTES + 100000];
    static atomic_int timed_out;
    struct raw_peer p, silent;
    struct victim v;

    victim_open(&v, *t);
    cr_assert_eq(spoke_socket_on_event(v.rep, count_timed_out, &timed_out), 0);
    cr_assert_eq(spoke_listener_set_duration(v.l, SPOKE_OPT_IDLE_TIMEOUT, 30 * SPOKE_MS), 0);
    victim_meet(&v, &silent);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        victim_meet(&v, &p);
        victim_ask(&p, 1);
        size_t prefix = raw_prefix(&p, bytes, 100000);
        size_t count = cuts[i] == 0 ? prefix : cuts[i] < 9 ? cuts[i] : prefix + cuts[i];
        cr_assert_eq(raw_send_bytes(&p, bytes, count, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "cut %zu", cuts[i]);
        raw_close(&p);
        victim_await(&v, stalled, i + 1);
        victim_check(&v);
        for (int ms = 0; ms < PATIENCE / SPOKE_MS && atomic_load(&timed_out) <= (int)i; ms++)
            nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        cr_assert_eq(atomic_load(&timed_out), (int)i + 1, "it was told");
    }
    cr_assert_eq(victim_stats(&v).stalled, sizeof cuts / sizeof cuts[0]);
    victim_ask(&silent, 2); /* who has begun nothing may take its time */
    raw_close(&silent);
    victim_close(&v);
}

static long
now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Send a request in pieces, with pauses that together are longer than `idle_ms`.  False if the
 * machine made one of them too long. */
static bool
ask_slowly(struct raw_peer *p, long idle_ms)
{
    enum { PIECES = 8 };
    uint8_t bytes[RAW_IPC_PREFIX_BYTES + 40] = {0};
    size_t prefix = raw_prefix(p, bytes, 40), all = prefix + 40, done = 0;
    long longest = 0, last = now_ms();

    raw_put32(bytes + prefix, 0x80000001u);
    for (int i = 0; i < PIECES; i++) {
        size_t n = i == PIECES - 1 ? all - done : all / PIECES;
        if (raw_send_bytes(p, bytes + done, n, RAW_LIMIT_MS) != RAW_OK)
            return false;
        done += n;
        long now = now_ms();
        longest = now - last > longest ? now - last : longest;
        last = now;
        nanosleep(&(struct timespec){.tv_sec = idle_ms / 5 / 1000,
                                     .tv_nsec = idle_ms / 5 % 1000 * 1000000},
                  NULL);
    }
    return longest < idle_ms / 2;
}

/* A machine that does not come to it in time gets more time. */
HOSTILE_TEST(framing, a_message_that_comes_slowly_is_not)
{
    bool in_time = false;
    struct victim v;

    victim_open(&v, *t);
    for (long idle_ms = 200; idle_ms < 10000 && !in_time; idle_ms *= 2) {
        uint8_t reply[40];
        struct raw_peer p;
        cr_assert_eq(spoke_listener_set_duration(v.l, SPOKE_OPT_IDLE_TIMEOUT, idle_ms * SPOKE_MS),
                     0);
        victim_meet(&v, &p);
        in_time = ask_slowly(&p, idle_ms);
        if (in_time)
            cr_assert_eq(raw_recv(&p, reply, sizeof reply, RAW_LIMIT_MS), 40);
        raw_close(&p);
    }
    cr_assert(in_time, "the machine is too slow");
    victim_close(&v);
}

/* Time passes while nobody drives the engine; the rest of the message was there in time. */
Test(framing, an_owner_who_was_away_reads_before_giving_up)
{
    enum { SIZE = 5000 };
    static uint8_t bytes[RAW_IPC_PREFIX_BYTES + SIZE];
    uint8_t hello[RAW_HANDSHAKE_BYTES];
    char url[ENDPOINT_MAX];
    struct spoke_stats stats;
    struct raw_peer p;
    spoke_engine *e;
    spoke_socket *s;
    spoke_msg *m;

    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_IDLE_TIMEOUT, SPOKE_SECOND), 0);
    cr_assert_eq(spoke_listen(s, url, NULL, 0), 0);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    raw_header(hello, SPOKE_PAIR);
    cr_assert_eq(raw_send_bytes(&p, hello, sizeof hello, RAW_LIMIT_MS), RAW_OK);
    size_t all = raw_prefix(&p, bytes, SIZE) + SIZE, half = all / 2;
    for (int i = 0; i < 3; i++) {
        /* A whole message and half of another; the first shows that the second has begun. */
        cr_assert_eq(raw_send_bytes(&p, bytes, all, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_send_bytes(&p, bytes, half, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(spoke_recv(s, &m, 0), 0);
        spoke_msg_free(m);
        cr_assert_eq(spoke_recv(s, &m, SPOKE_DONTWAIT), SPOKE_EAGAIN);
        cr_assert_eq(raw_send_bytes(&p, bytes + half, all - half, RAW_LIMIT_MS), RAW_OK);
        nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 500000000}, NULL);
        int rc = spoke_recv(s, &m, 0);
        cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
        cr_assert_eq(spoke_msg_size(m), SIZE);
        spoke_msg_free(m);
    }
    cr_assert_eq(spoke_socket_stats(s, &stats), 0);
    cr_assert_eq(stats.stalled, 0);
    raw_close(&p);
    cr_assert_eq(spoke_engine_close(e), 0);
}

/* Without a limit, memory grows with what has arrived, not with what was promised. */
HOSTILE_TEST(framing, a_promise_costs_no_memory)
{
    enum { LIARS = 20 };
    static const uint8_t some[70000];
    struct victim v;
    struct raw_peer liars[LIARS];

    cr_assert_eq(setenv("SPOKE_UPGRADE", "off", 1), 0); /* segments take addresses, not memory */
    victim_open(&v, *t);
    cr_assert_eq(spoke_listener_set_size(v.l, SPOKE_OPT_MAX_RECV_SIZE, 0), 0);
    long resident = resources_resident_kib(), reserved = resources_virtual_kib();
    for (int i = 0; i < LIARS; i++) {
        victim_meet(&v, &liars[i]);
        promise(&liars[i], SPOKE_MSG_MAX - (uint64_t)i);
        cr_assert_eq(raw_send_bytes(&liars[i], some, i % 2 == 0 ? 10 : sizeof some, RAW_LIMIT_MS),
                     RAW_OK);
    }
    victim_await(&v, pipes_current, LIARS + 1);
    for (int i = 0; i < 50; i++)
        victim_check(&v);
    cr_assert_lt(resources_resident_kib() - resident, 64 * 1024);
    cr_assert_lt(resources_virtual_kib() - reserved, LIARS * 16 * 1024, "%ld KiB more",
                 resources_virtual_kib() - reserved);
    for (int i = 0; i < LIARS; i++)
        raw_close(&liars[i]);
    victim_close(&v);
}

/* … and what no message can be is refused even without a limit. */
HOSTILE_TEST(framing, impossible_lengths_are_refused_without_a_limit_too)
{
    static const uint64_t lengths[] = {1ull << 40, 1ull << 63, UINT64_MAX - 8, UINT64_MAX};
    struct victim v;

    victim_open(&v, *t);
    cr_assert_eq(spoke_listener_set_size(v.l, SPOKE_OPT_MAX_RECV_SIZE, 0), 0);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        struct raw_peer p;
        victim_meet(&v, &p);
        promise(&p, lengths[i]);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
        raw_close(&p);
        victim_check(&v);
    }
    victim_close(&v);
}

Test(framing, an_ipc_message_of_unknown_type_closes_the_pipe)
{
    static const uint8_t types[] = {0, 2, 3, 0x7f, 0x80, 255};
    struct victim v;

    victim_open(&v, IPC);
    for (size_t i = 0; i < sizeof types; i++) {
        struct raw_peer p;
        uint8_t frame[RAW_IPC_PREFIX_BYTES + 4];
        victim_meet(&v, &p);
        victim_ask(&p, 1);
        raw_prefix(&p, frame, 4);
        raw_put32(frame + RAW_IPC_PREFIX_BYTES, 0x80000002u);
        frame[0] = types[i];
        cr_assert_eq(raw_send_bytes(&p, frame, sizeof frame, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "type %u", types[i]);
        raw_close(&p);
        victim_await(&v, garbled, i + 1);
        victim_check(&v);
    }
    victim_close(&v);
}

/* A frame with a request of `body` bytes after its id. */
static size_t
make_frame(const struct raw_peer *p, uint8_t *frame, size_t body)
{
    size_t prefix = raw_prefix(p, frame, 4 + body);

    raw_put32(frame + prefix, 0x80000011u);
    memset(frame + prefix + 4, 'b', body);
    return prefix + 4 + body;
}

HOSTILE_TEST(framing, cut_off_at_any_byte_of_a_message_leaves_nothing)
{
    uint8_t frame[128];
    struct victim v;
    struct raw_peer p;

    victim_open(&v, *t);
    for (size_t cut = 0, size = 1; cut < size; cut++) {
        for (int way = 0; way < WAYS_TO_LEAVE; way++) {
            victim_meet(&v, &p);
            size = make_frame(&p, frame, 20);
            cr_assert_eq(raw_send_bytes(&p, frame, cut, RAW_LIMIT_MS), RAW_OK);
            peer_leaves(&p, way);
        }
        victim_check(&v);
    }
    uint64_t received = victim_stats(&v).messages_received;
    victim_check(&v);
    cr_assert_eq(victim_stats(&v).messages_received, received + 1, "no half message");
    victim_close(&v);
}

HOSTILE_TEST(framing, reset_at_any_byte_of_an_answer_leaves_nothing)
{
    uint8_t frame[128], taken[128];
    struct victim v;
    struct raw_peer p;

    victim_open(&v, *t);
    for (size_t cut = 0, size = 1; cut <= size; cut++) {
        victim_meet(&v, &p);
        size = make_frame(&p, frame, 20);
        cr_assert_eq(raw_send_bytes(&p, frame, size, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_recv_bytes(&p, taken, cut, RAW_LIMIT_MS), RAW_OK);
        cr_assert_arr_eq(taken, frame, cut);
        if (cut % 2 == 0)
            raw_reset(&p);
        else
            raw_close(&p);
        victim_check(&v);
    }
    victim_close(&v);
}

/* The same from the other side: whoever had the request breaks off anywhere in its answer.  The
 * request goes to the next connection, and one whole answer comes back. */
HOSTILE_TEST(framing, a_requester_survives_a_reset_at_any_byte_of_its_answer)
{
    uint8_t request[64], frame[RAW_IPC_PREFIX_BYTES + 64];
    char url[ENDPOINT_MAX], reply[64];
    struct raw_listener l;
    struct raw_peer p;
    struct spoke_stats stats;
    spoke_socket *req;
    static struct resources before;
    long whole = 0;

    scratch_dir();
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, NULL), 0); /* starts the shared engine */
    cr_assert_eq(spoke_socket_close(req), 0);
    resources_take(&before);
    endpoint_fresh(url, *t);
    cr_assert_eq(raw_listen(&l, url), RAW_OK);
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_dial(req, l.url, NULL, 0), 0);
    cr_assert_eq(spoke_send_bytes(req, "question", 8, 0), 0);
    uint64_t retries = 0;
    for (size_t cut = 0, all = 1; cut <= all; cut++, retries++) {
        cr_assert_eq(raw_accept_sp(&l, &p, SPOKE_REP, SPOKE_REQ), RAW_OK);
        whole = raw_recv(&p, request, sizeof request, RAW_LIMIT_MS);
        cr_assert_eq(whole, 12, "cut at %zu: %ld", cut, whole);
        cr_assert_arr_eq(request + 4, "question", 8);
        all = raw_prefix(&p, frame, 12);
        memcpy(frame + all, request, 12);
        all += 12;
        cr_assert_eq(raw_send_bytes(&p, frame, cut, RAW_LIMIT_MS), RAW_OK);
        if (cut < all && cut % 2 == 0)
            raw_reset(&p);
        else if (cut < all)
            raw_close(&p);
    }
    size_t size = sizeof reply;
    cr_assert_eq(spoke_recv_bytes(req, reply, &size, 0), 0);
    cr_assert_eq(size, 8);
    cr_assert_arr_eq(reply, "question", 8);
    cr_assert_eq(spoke_recv_bytes(req, reply, &size, SPOKE_DONTWAIT), SPOKE_ESTATE);
    cr_assert_eq(spoke_socket_stats(req, &stats), 0);
    cr_assert_eq(stats.retries, retries - 1);
    cr_assert_eq(stats.garbled + stats.dropped_stale, 0);
    cr_assert_eq(spoke_socket_close(req), 0);
    raw_close(&p);
    raw_listener_close(&l);
    resources_settle(&before);
}

/* Large answers, of which the peer takes some, and resets. */
HOSTILE_TEST(framing, reset_in_the_middle_of_large_messages_leaves_nothing)
{
    const size_t body = 1000 * 1000;
    uint8_t *frame = malloc(body + 64), *taken = malloc(body + 64);
    struct victim v;
    struct raw_peer p;

    victim_open(&v, *t);
    for (size_t cut = 1; cut < body; cut = cut * 3 + 1) {
        victim_meet(&v, &p);
        size_t size = make_frame(&p, frame, body);
        cr_assert_eq(raw_send_bytes(&p, frame, size, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_recv_bytes(&p, taken, cut, RAW_LIMIT_MS), RAW_OK);
        raw_reset(&p);
        victim_check(&v);

        victim_meet(&v, &p);
        cr_assert_eq(raw_send_bytes(&p, frame, cut, RAW_LIMIT_MS), RAW_OK);
        raw_reset(&p);
        victim_check(&v);
    }
    victim_close(&v);
    free(frame);
    free(taken);
}

HOSTILE_TEST(framing, a_message_may_be_split_at_any_byte)
{
    uint8_t frame[256], reply[256];
    struct victim v;
    struct raw_peer p;

    victim_open(&v, *t);
    victim_meet(&v, &p);
    /* Two messages in two pieces: the border is everywhere once. */
    size_t one = make_frame(&p, frame, 40), size = one + make_frame(&p, frame + one, 40);
    for (size_t cut = 1; cut < size; cut++) {
        cr_assert_eq(raw_send_bytes(&p, frame, cut, RAW_LIMIT_MS), RAW_OK);
        if (cut < one)
            victim_check(&v); /* whatever came has been read meanwhile */
        cr_assert_eq(raw_send_bytes(&p, frame + cut, size - cut, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_recv(&p, reply, sizeof reply, RAW_LIMIT_MS), 44, "cut at %zu", cut);
        cr_assert_eq(raw_recv(&p, reply, sizeof reply, RAW_LIMIT_MS), 44, "cut at %zu", cut);
        cr_assert_eq(raw_get32(reply), 0x80000011u);
        cr_assert_eq(reply[43], 'b');
    }
    raw_close(&p);
    victim_close(&v);
}

/* Thousands of small messages at once, from one peer: the other is served meanwhile. */
HOSTILE_TEST(framing, a_flood_in_one_piece_is_digested_in_pieces)
{
    enum { FLOOD = 20000 };
    struct victim v;
    struct raw_peer p;

    victim_open(&v, *t);
    victim_meet(&v, &p);
    uint8_t frame[32], *flood = malloc(FLOOD * sizeof frame);
    size_t one = make_frame(&p, frame, 3);
    for (size_t i = 0; i < FLOOD; i++)
        memcpy(flood + i * one, frame, one);
    uint64_t received = victim_stats(&v).messages_received;
    /* Its answers are not read; the server drops them or stops reading, and serves the others. */
    for (size_t done = 0; done < FLOOD * one;) {
        size_t piece = FLOOD * one - done < 100000 ? FLOOD * one - done : 100000;
        if (raw_send_bytes(&p, flood + done, piece, 200) != RAW_OK)
            break;
        done += piece;
        victim_check(&v);
    }
    victim_await(&v, messages_received, received + 1000);
    raw_close(&p);
    victim_close(&v);
    free(flood);
}

/* An empty message is a message where the pattern takes one, and garbage where it needs an id. */
HOSTILE_TEST(framing, an_empty_message_is_judged_by_the_pattern)
{
    struct victim v;
    struct raw_peer p;
    spoke_socket *pair;
    spoke_msg *m;
    char url[ENDPOINT_MAX];

    victim_open(&v, *t);
    victim_meet(&v, &p);
    promise(&p, 0);
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
    victim_await(&v, garbled, 1);

    endpoint_fresh(url, *t);
    cr_assert_eq(spoke_socket_open(&pair, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(pair, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(spoke_listen(pair, url, NULL, 0), 0);
    cr_assert_eq(raw_dial_sp(&p, url, SPOKE_PAIR, SPOKE_PAIR), RAW_OK);
    for (int i = 0; i < 3; i++) {
        promise(&p, 0);
        cr_assert_eq(spoke_recv(pair, &m, 0), 0);
        cr_assert_eq(spoke_msg_size(m), 0);
        spoke_msg_free(m);
    }
    raw_close(&p);
    cr_assert_eq(spoke_socket_close(pair), 0);
    victim_close(&v);
}

/* A PAIR whose peer never reads: the queue fills, sends wait, memory stays, and the close ends in
 * time. */
HOSTILE_TEST(framing, a_peer_that_never_reads_stops_the_sender_only)
{
    struct victim v;
    struct raw_peer p;
    spoke_socket *pair;
    char url[ENDPOINT_MAX];
    static const uint8_t body[10000];
    int sent = 0, rc = 0;

    victim_open(&v, *t);
    endpoint_fresh(url, *t);
    cr_assert_eq(spoke_socket_open(&pair, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(pair, SPOKE_OPT_SEND_TIMEOUT, 100 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_duration(pair, SPOKE_OPT_LINGER, 50 * SPOKE_MS), 0);
    cr_assert_eq(spoke_listen(pair, url, NULL, 0), 0);
    cr_assert_eq(raw_dial_sp(&p, url, SPOKE_PAIR, SPOKE_PAIR), RAW_OK);
    long resident = resources_resident_kib();
    do { /* an engine that was away for so long had no chance to make room */
        while (sent < 5000 && (rc = spoke_send_bytes(pair, body, sizeof body, 0)) == 0)
            sent++;
        cr_assert_eq(rc, SPOKE_ETIMEDOUT, "after %d: %s", sent, spoke_error_name(rc));
        await_engine();
    } while ((rc = spoke_send_bytes(pair, body, sizeof body, SPOKE_DONTWAIT)) == 0);
    cr_assert_eq(rc, SPOKE_EAGAIN, "%s", spoke_error_name(rc));
    cr_assert_lt(resources_resident_kib() - resident, 64 * 1024);
    victim_check(&v);
    struct timespec begin, end;
    struct spoke_close_report report;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    cr_assert_eq(spoke_socket_close_report(pair, &report), SPOKE_ETIMEDOUT);
    clock_gettime(CLOCK_MONOTONIC, &end);
    cr_assert_lt((end.tv_sec - begin.tv_sec) * SPOKE_SECOND, PATIENCE);
    cr_assert_gt(report.messages, 0);
    raw_close(&p);
    victim_close(&v);
}

/* Requests without end from a peer that does not read the answers. */
HOSTILE_TEST(framing, a_peer_that_never_reads_its_answers_is_alone_with_it)
{
    struct victim v;
    struct raw_peer p;
    uint8_t *frame = malloc(100064);

    victim_open(&v, *t);
    victim_meet(&v, &p);
    size_t size = make_frame(&p, frame, 100000);
    long resident = resources_resident_kib();
    for (int i = 0; i < 300; i++) {
        if (raw_send_bytes(&p, frame, size, 100) != RAW_OK)
            break; /* the server has stopped reading: also an answer */
        if (i % 10 == 0)
            victim_check(&v);
    }
    victim_check(&v);
    cr_assert_lt(resources_resident_kib() - resident, 64 * 1024);
    raw_close(&p);
    victim_close(&v);
    free(frame);
}

/* Descriptors that a peer pushes upon us are closed. */
Test(framing, descriptors_sent_along_are_not_kept)
{
    enum { PASSED = 10 };
    struct victim v;
    struct raw_peer p;
    uint8_t bytes[RAW_HANDSHAKE_BYTES];
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * PASSED)];
    } control;

    victim_open(&v, IPC);
    for (int round = 0; round < 4; round++) {
        int ends[2], passed[PASSED];
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        for (int i = 0; i < PASSED; i++)
            passed[i] = ends[1];
        cr_assert_eq(raw_connect(&p, v.url, RAW_LIMIT_MS), RAW_OK);
        raw_header(bytes, SPOKE_REQ);
        struct iovec part = {.iov_base = bytes, .iov_len = sizeof bytes};
        struct msghdr message = {.msg_iov = &part,
                                 .msg_iovlen = 1,
                                 .msg_control = control.space,
                                 .msg_controllen = sizeof control.space};
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof passed);
        memcpy(CMSG_DATA(header), passed, sizeof passed);
        cr_assert_eq(sendmsg(p.fd, &message, 0), (ssize_t)sizeof bytes);
        close(ends[1]);
        cr_assert_eq(raw_recv_bytes(&p, bytes, sizeof bytes, RAW_LIMIT_MS), RAW_OK);
        victim_ask(&p, 5);
        /* Our end sees the last copy of the other one go, while the connection lives. */
        struct timeval limit = {.tv_sec = 20};
        cr_assert_eq(setsockopt(ends[0], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
        cr_assert_eq(recv(ends[0], bytes, 1, 0), 0, "a copy is kept");
        close(ends[0]);
        victim_ask(&p, 6);
        raw_close(&p);
    }
    victim_close(&v);
}
