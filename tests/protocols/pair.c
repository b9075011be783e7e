/* SPDX-License-Identifier: MIT */
/* PAIR: one peer, messages both ways, a queue in front of it. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/protocols/fixture.h"

#include "tests/support/world.h"

#define PAIR_NUMBER 16

/* The queue is of this length, and a send finds out at once whether there is room. */
static spoke_socket *
open_with_queue(int length)
{
    spoke_socket *s = open_socket(SPOKE_PAIR);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, length), 0);
    return s;
}

/* Send numbered messages of `size` bytes until there is no room; returns how many were taken. */
static uint32_t
send_until_full(spoke_socket *s, uint32_t first, size_t size, uint32_t most)
{
    for (uint32_t i = 0; i < most; i++) {
        spoke_msg *m;
        cr_assert_eq(spoke_msg_new(&m, size), 0);
        memset(spoke_msg_body(m), 0, size);
        raw_put32(spoke_msg_body(m), first + i);
        int rc = spoke_send(s, m, SPOKE_DONTWAIT);
        if (rc == 0)
            continue;
        cr_assert_eq(rc, SPOKE_EAGAIN, "%s", spoke_error_name(rc));
        spoke_msg_free(m);
        return i;
    }
    return most;
}

/* ---- the wire ---- */

ON_EVERY_STREAM(pair, speaks_the_bytes_of_the_specification)
{
    static const uint8_t tick[] = {1, 0, 0, 0, 0, 0, 0, 0, 4, 't', 'i', 'c', 'k'};
    static const uint8_t nothing[] = {1, 0, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t hello[] = {0, 'S', 'P', 0, 0, 0x10, 0, 0};
    spoke_socket *s = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, hello, sizeof hello);
    cr_assert_eq(raw_send_bytes(&p, hello, sizeof hello, RAW_LIMIT_MS), RAW_OK);
    send_text(s, "tick");
    raw_expect_bytes(&p, tick + skip, sizeof tick - skip);
    send_text(s, "");
    raw_expect_bytes(&p, nothing + skip, sizeof nothing - skip);
    cr_assert_eq(raw_send_bytes(&p, tick + skip, sizeof tick - skip, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, nothing + skip, sizeof nothing - skip, RAW_LIMIT_MS), RAW_OK);
    expect_text(s, "tick");
    expect_text(s, "");
    raw_close(&p);
    finish();
}

ON_EVERY_TRANSPORT(pair, carries_messages_both_ways_in_order)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    char text[32];

    connect_sockets(a, b, *t);
    for (int i = 0; i < 1000; i += 50) {
        for (int j = i; j < i + 50; j++) {
            snprintf(text, sizeof text, "to b %d", j);
            send_text(a, text);
            snprintf(text, sizeof text, "to a %d", j);
            send_text(b, text);
        }
        for (int j = i; j < i + 50; j++) {
            snprintf(text, sizeof text, "to b %d", j);
            expect_text(b, text);
            snprintf(text, sizeof text, "to a %d", j);
            expect_text(a, text);
        }
    }
    finish();
}

/* Every byte depends on the message's number: none is lost, doubled or out of order. */
ON_EVERY_TRANSPORT(pair, carries_many_messages_of_random_length_intact)
{
    enum { COUNT = 100000, BATCH = 100 };
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    uint32_t seed = 4711;
    size_t sizes[BATCH];
    spoke_msg *m;

    connect_sockets(a, b, *t);
    for (uint32_t i = 0; i < COUNT; i += BATCH) {
        for (uint32_t j = 0; j < BATCH; j++) {
            seed = seed * 1664525 + 1013904223;
            sizes[j] = 1 + (seed >> 24) % 255;
            cr_assert_eq(spoke_msg_new(&m, sizes[j]), 0);
            pattern_fill(spoke_msg_body(m), sizes[j], i + j);
            cr_assert_eq(spoke_send(a, m, 0), 0);
        }
        for (uint32_t j = 0; j < BATCH; j++) {
            cr_assert_eq(spoke_recv(b, &m, 0), 0);
            cr_assert_eq(spoke_msg_size(m), sizes[j], "message %u", i + j);
            cr_assert(pattern_holds(spoke_msg_body(m), sizes[j], i + j), "message %u", i + j);
            spoke_msg_free(m);
        }
    }
    finish();
}

ON_EVERY_TRANSPORT(pair, carries_empty_messages)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);

    connect_sockets(a, b, *t);
    send_text(a, "");
    send_text(a, "after");
    expect_text(b, "");
    expect_text(b, "after");
    finish();
}

ON_EVERY_STREAM(pair, takes_a_message_of_the_limit_and_closes_above_it)
{
    spoke_socket *s = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX], bytes[101] = {0};
    struct raw_peer p;
    spoke_msg *m;

    cr_assert_eq(spoke_socket_set_size(s, SPOKE_OPT_MAX_RECV_SIZE, 100), 0);
    listen_on(s, *t, url);
    join(&p, s, url, 1);
    cr_assert_eq(raw_send(&p, bytes, 100), RAW_OK);
    cr_assert_eq(spoke_recv(s, &m, 0), 0);
    cr_assert_eq(spoke_msg_size(m), 100);
    spoke_msg_free(m);
    cr_assert_eq(raw_send(&p, bytes, 101), RAW_OK);
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    wait_counter(s, oversized, 1);
    raw_close(&p);
    finish();
}

/* ---- one peer ---- */

ON_EVERY_STREAM(pair, turns_a_second_peer_away_after_the_handshake)
{
    spoke_socket *s = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    struct raw_peer first, second;

    listen_on(s, *t, url);
    join(&first, s, url, 1);
    cr_assert_eq(raw_dial_sp(&second, url, PAIR_NUMBER, PAIR_NUMBER), RAW_OK);
    cr_assert_eq(raw_wait_eof(&second, RAW_LIMIT_MS), RAW_OK);
    wait_counter(s, refused, 1);
    cr_assert_eq(stats_of(s).pipes_current, 1);
    raw_send_text(&first, "still here");
    expect_text(s, "still here");
    send_text(s, "so am I");
    raw_expect(&first, NULL, 0, "so am I");
    raw_close(&first);
    raw_close(&second);
    finish();
}

ON_EVERY_STREAM(pair, is_not_disturbed_by_a_storm_of_others)
{
    spoke_socket *s = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    struct raw_peer first, other;

    listen_on(s, *t, url);
    join(&first, s, url, 1);
    for (int i = 0; i < 200; i++) {
        cr_assert_eq(raw_dial_sp(&other, url, PAIR_NUMBER, PAIR_NUMBER), RAW_OK);
        (void)raw_send_words(&other, NULL, 0, "let me in"); /* it may be closed already */
        if (i % 2 == 0)
            cr_assert_eq(raw_wait_eof(&other, RAW_LIMIT_MS), RAW_OK);
        raw_reset(&other);
        raw_send_text(&first, "ping");
        expect_text(s, "ping");
    }
    wait_counter(s, refused, 200);
    expect_recv_error(s, SPOKE_EAGAIN);
    raw_close(&first);
    finish();
}

ON_EVERY_TRANSPORT(pair, lets_the_next_dialer_take_over_when_the_peer_leaves)
{
    spoke_socket *s = open_socket(SPOKE_PAIR);
    spoke_socket *first = open_socket(SPOKE_PAIR), *second = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    listen_on(s, *t, url);
    dial(first, url);
    wait_pipes(s, 1);
    dial(second, url);
    send_text(first, "first");
    expect_text(s, "first");
    cr_assert_eq(spoke_socket_close(first), 0);
    wait_counter(s, pipes_attached,
                 2); /* what is sent before may go to a pipe that is being refused */
    send_text(second, "second");
    expect_text(s, "second");
    send_text(s, "welcome");
    expect_text(second, "welcome");
    finish();
}

/* What was read is not lost with its connection, also if nobody has asked for it yet.  All comes by
 * one write, so that the first message is not there before the last. */
static void
send_hundred(struct raw_peer *p, const char *large)
{
    uint8_t bytes[16384];
    size_t size = 0;

    for (int i = 0; i < 100; i++) {
        char text[16];
        const char *body = i % 30 == 29 ? large : text;
        snprintf(text, sizeof text, "%d", i);
        size += raw_prefix(p, bytes + size, strlen(body));
        memcpy(bytes + size, body, strlen(body));
        size += strlen(body);
    }
    cr_assert_eq(raw_send_bytes(p, bytes, size, RAW_LIMIT_MS), RAW_OK);
}

ON_EVERY_STREAM(pair, what_has_arrived_outlives_a_connection_that_breaks)
{
    for (int hang_up = 0; hang_up < 2; hang_up++) {
        spoke_socket *s = open_socket(SPOKE_PAIR);
        char url[ENDPOINT_MAX], text[16], large[600];
        struct raw_peer peer;
        spoke_msg *m;

        listen_on(s, *t, url);
        join(&peer, s, url, 1);
        memset(large, 'l', sizeof large);
        large[sizeof large - 1] = 0;
        send_hundred(&peer, large);
        cr_assert_eq(spoke_recv(s, &m, 0), 0);
        spoke_pipe_id pipe = spoke_msg_pipe(m);
        spoke_msg_free(m);
        if (hang_up == 0) {
            cr_assert_eq(spoke_pipe_close(s, pipe), 0);
        } else {
            raw_close(&peer);
            while (stats_of(s).pipes_current > 0)
                (void)spoke_send_bytes(s, "anyone?", 7, SPOKE_DONTWAIT);
        }
        wait_pipes(s, 0);
        for (int i = 1; i < 100; i++) {
            snprintf(text, sizeof text, "%d", i);
            expect_text(s, i % 30 == 29 ? large : text);
        }
        if (hang_up == 0)
            raw_close(&peer);
        finish();
    }
}

/* ---- the queue ---- */

ON_EVERY_TRANSPORT(pair, queues_for_a_peer_that_is_yet_to_come)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    char text[32];

    for (int i = 0; i < 128; i++) {
        snprintf(text, sizeof text, "%d", i);
        cr_assert_eq(spoke_send_bytes(a, text, strlen(text), SPOKE_DONTWAIT), 0);
    }
    expect_send_error(a, SPOKE_EAGAIN);
    cr_assert_eq(stats_of(a).send_queue_high, 128);
    connect_sockets(a, b, *t);
    for (int i = 0; i < 128; i++) {
        snprintf(text, sizeof text, "%d", i);
        expect_text(b, text);
    }
    send_text(a, "room again");
    expect_text(b, "room again");
    finish();
}

ON_EVERY_TRANSPORT(pair, takes_only_what_a_pipe_takes_when_the_queue_has_no_length)
{
    spoke_socket *a = open_with_queue(0), *b = open_socket(SPOKE_PAIR);

    expect_send_error(a, SPOKE_EAGAIN);
    connect_sockets(a, b, *t);
    cr_assert_eq(spoke_send_bytes(a, "taken", 5, SPOKE_DONTWAIT), 0);
    expect_text(b, "taken");
    cr_assert_eq(stats_of(a).send_queue_high, 0);
    finish();
}

Test(pair, bounds_its_queue_in_bytes)
{
    spoke_socket *s = open_socket(SPOKE_PAIR);

    cr_assert_eq(spoke_socket_set_size(s, SPOKE_OPT_SEND_QUEUE_BYTES, 100000), 0);
    uint32_t taken = send_until_full(s, 0, 10000, 128);
    cr_assert_geq(taken, 8);
    cr_assert_leq(taken, 10);
    finish();
}

Test(pair, times_out_or_drops_when_there_is_no_room)
{
    spoke_socket *s = open_with_queue(0);
    spoke_msg *m = new_text("kept");
    uint8_t word[] = {1, 2, 3, 4};

    cr_assert_eq(spoke_msg_header_append(m, word, sizeof word), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, 10 * SPOKE_MS), 0);
    cr_assert_eq(spoke_send(s, m, 0), SPOKE_ETIMEDOUT);
    cr_assert(text_is(m, "kept"));
    cr_assert_eq(spoke_msg_header_size(m), 4, "a failed send changes nothing");
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_BEST_EFFORT, true), 0);
    cr_assert_eq(spoke_send(s, m, 0), 0);
    cr_assert_eq(stats_of(s).dropped_best_effort, 1);
    finish();
}

/* Goal: what waits survives the peer.  Method: a peer that reads nothing; the queue fills behind
 * its pipe; the next peer gets the end of the series, whole and in order. */
ON_EVERY_STREAM(pair, keeps_what_waits_for_the_next_peer)
{
    enum { LENGTH = 16, SIZE = 60000 };
    spoke_socket *s = open_with_queue(LENGTH);
    char url[ENDPOINT_MAX];
    struct raw_peer idle, next;
    static uint8_t bytes[SIZE];

    listen_on(s, *t, url);
    join(&idle, s, url, 1);
    uint32_t sent = 0;
    for (int quiet = 0; quiet < 50; quiet++) { /* until the kernel's buffers are full too */
        uint32_t more = send_until_full(s, sent, SIZE, 1000);
        sent += more;
        quiet = more > 0 ? 0 : quiet;
        settle();
    }
    cr_assert_gt(sent, LENGTH);
    expect_fd(s, SPOKE_OPT_SEND_FD, false);
    raw_reset(&idle);
    wait_pipes(s, 0);
    join(&next, s, url, 1);
    for (uint32_t i = sent - LENGTH; i < sent; i++) {
        cr_assert_eq(raw_recv(&next, bytes, sizeof bytes, RAW_LIMIT_MS), SIZE);
        cr_assert_eq(raw_get32(bytes), i);
    }
    expect_fd(s, SPOKE_OPT_SEND_FD, true);
    send_text(s, "go on");
    raw_expect(&next, NULL, 0, "go on");
    raw_close(&next);
    finish();
}

ON_EVERY_TRANSPORT(pair, wakes_every_sender_that_waits_when_a_peer_comes)
{
    spoke_socket *a = open_with_queue(0), *b = open_socket(SPOKE_PAIR);
    struct waiting_call senders[4];
    char url[ENDPOINT_MAX];

    for (int i = 0; i < 4; i++)
        start_call(&senders[i], a, "same");
    await_senders(a, 4);
    listen_on(b, *t, url);
    dial(a, url);
    for (int i = 0; i < 4; i++)
        cr_assert_eq(end_call(&senders[i]), 0, "sender %d", i);
    for (int i = 0; i < 4; i++)
        expect_text(b, "same");
    finish();
}

ON_EVERY_TRANSPORT(pair, drops_what_has_expired_and_nothing_else)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);

    connect_sockets(b, a, *t);
    send_text(a, "before");
    cr_assert_eq(spoke_socket_set_duration(a, SPOKE_OPT_SEND_EXPIRY, 1), 0);
    send_text(a, "expired");
    cr_assert_eq(spoke_socket_set_duration(a, SPOKE_OPT_SEND_EXPIRY, 0), 0);
    send_text(a, "after");
    expect_text(b, "before");
    expect_text(b, "after");
    cr_assert_eq(stats_of(a).dropped_expired, 1);
    finish();
}

/* Goal: a call without patience still gets what is there. */
ON_EVERY_TRANSPORT(pair, does_at_once_what_it_can_whatever_the_time_limit)
{
    spoke_socket *a = open_with_queue(0), *b = open_socket(SPOKE_PAIR);

    connect_sockets(b, a, *t);
    cr_assert_eq(spoke_socket_set_duration(a, SPOKE_OPT_SEND_TIMEOUT, 0), 0);
    cr_assert_eq(spoke_socket_set_duration(b, SPOKE_OPT_RECV_TIMEOUT, 0), 0);
    for (int i = 0; i < 100; i++) {
        send_text(a, "now");
        expect_fd(b, SPOKE_OPT_RECV_FD, true);
        expect_text(b, "now");
    }
    finish();
}

Test(pair, says_at_the_close_what_was_not_delivered)
{
    struct spoke_close_report report;
    spoke_socket *s = open_socket(SPOKE_PAIR);

    send_text(s, "nobody");
    send_text(s, "ever");
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 20 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_close_report(s, &report), SPOKE_ETIMEDOUT);
    cr_assert_eq(report.messages, 2);
    cr_assert_eq(report.bytes, 10);
    finish();
}

ON_EVERY_TRANSPORT(pair, lingers_until_a_late_peer_has_everything)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];

    send_text(a, "last");
    send_text(a, "words");
    listen_on(b, *t, url);
    dial(a, url);
    cr_assert_eq(spoke_socket_set_duration(a, SPOKE_OPT_LINGER, PATIENCE), 0);
    cr_assert_eq(spoke_socket_close(a), 0);
    expect_text(b, "last");
    expect_text(b, "words");
    finish();
}

static void *
run_close(void *socket)
{
    return (void *)(intptr_t)spoke_socket_close(socket); /* NOLINT: an error, not a place */
}

/* The same for one who listens: whoever comes while it lingers is welcome. */
ON_EVERY_TRANSPORT(pair, listens_while_it_lingers)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    struct spoke_stats stats;
    pthread_t closer;
    void *result;

    send_text(a, "last");
    send_text(a, "words");
    listen_on(a, *t, url);
    cr_assert_eq(spoke_socket_set_duration(a, SPOKE_OPT_LINGER, PATIENCE), 0);
    cr_assert_eq(pthread_create(&closer, NULL, run_close, a), 0);
    while (spoke_socket_stats(a, &stats) == 0) /* until the close has begun */
        sleep_ms(1);
    dial(b, url);
    expect_text(b, "last");
    expect_text(b, "words");
    pthread_join(closer, &result);
    cr_assert_null(result, "everything was delivered");
    finish();
}

/* ---- receiving ---- */

ON_EVERY_STREAM(pair, keeps_what_arrived_after_the_peer_has_left)
{
    spoke_socket *s = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(s, *t, url);
    join(&p, s, url, 1);
    raw_send_text(&p, "one");
    raw_send_text(&p, "two");
    expect_fd(s, SPOKE_OPT_RECV_FD, true);
    raw_close(&p);
    wait_pipes(s, 0);
    expect_text(s, "one");
    expect_text(s, "two");
    expect_recv_error(s, SPOKE_EAGAIN);
    finish();
}

/* Goal: a flood costs its sender, not our memory.  Method: a short queue and nobody who reads. */
ON_EVERY_STREAM(pair, stops_reading_a_peer_that_floods)
{
    enum { LENGTH = 4, MOST = 400, SIZE = 60000 };
    spoke_socket *s = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    static uint8_t frame[RAW_IPC_PREFIX_BYTES + SIZE];
    struct raw_peer p;
    uint32_t sent = 0;
    spoke_msg *m;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, LENGTH), 0);
    listen_on(s, *t, url);
    join(&p, s, url, 1);
    size_t prefix = raw_prefix(&p, frame, SIZE);
    for (int rc = RAW_OK; rc == RAW_OK && sent < MOST; sent++) {
        raw_put32(frame + prefix, sent);
        rc = raw_send_bytes(&p, frame, prefix + SIZE, RAW_QUIET_MS);
        cr_assert(rc == RAW_OK || rc == RAW_TIMEOUT);
    }
    cr_assert_lt(sent, MOST, "24 MB went somewhere");
    struct spoke_memory_stats memory;
    spoke_memory_stats(&memory);
    cr_assert_leq(memory.messages, LENGTH + 3);
    for (uint32_t i = 0; i + 1 < sent; i++) {
        cr_assert_eq(spoke_recv(s, &m, 0), 0);
        cr_assert_eq(spoke_msg_size(m), SIZE);
        cr_assert_eq(raw_get32(spoke_msg_body(m)), i);
        spoke_msg_free(m);
    }
    raw_close(&p);
    finish();
}

/* Goal: a long queue is bounded in bytes all the same. */
ON_EVERY_STREAM(pair, stops_reading_when_what_waits_is_many_bytes)
{
    enum { BYTES = 200000, MOST = 400, SIZE = 60000 };
    spoke_socket *s = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    static uint8_t body[SIZE];
    struct spoke_memory_stats memory;
    struct raw_peer p;
    uint32_t sent = 0;
    spoke_msg *m;

    cr_assert_eq(spoke_socket_set_size(s, SPOKE_OPT_RECV_QUEUE_BYTES, BYTES), 0);
    listen_on(s, *t, url);
    join(&p, s, url, 1);
    for (int rc = RAW_OK; rc == RAW_OK && sent < MOST; sent++) {
        uint8_t prefix[RAW_IPC_PREFIX_BYTES];
        size_t size = raw_prefix(&p, prefix, SIZE);
        rc = raw_send_bytes(&p, prefix, size, RAW_QUIET_MS);
        if (rc == RAW_OK)
            rc = raw_send_bytes(&p, body, SIZE, RAW_QUIET_MS);
        cr_assert(rc == RAW_OK || rc == RAW_TIMEOUT);
    }
    cr_assert_lt(sent, MOST, "24 MB went somewhere");
    spoke_memory_stats(&memory);
    cr_assert_leq(memory.messages, BYTES / SIZE + 4);
    for (uint32_t i = 0; i + 1 < sent; i++) {
        cr_assert_eq(spoke_recv(s, &m, 0), 0);
        cr_assert_eq(spoke_msg_size(m), SIZE);
        spoke_msg_free(m);
    }
    raw_close(&p);
    finish();
}

/* ---- headers ---- */

ON_EVERY_TRANSPORT(pair, ignores_a_header_when_cooked_and_sends_it_when_raw)
{
    const uint32_t words[] = {0x01020304, 0x85060708};
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    spoke_socket *raw = open_raw(SPOKE_PAIR), *c = open_socket(SPOKE_PAIR);

    connect_sockets(a, b, *t);
    connect_sockets(raw, c, *t);
    cr_assert_eq(spoke_send(a, new_with_words(words, 2, "body"), 0), 0);
    expect_text(b, "body");
    cr_assert_eq(spoke_send(raw, new_with_words(words, 2, "body"), 0), 0);
    expect_text(c, "\1\2\3\4\205\6\7\10body");
    finish();
}

ON_EVERY_TRANSPORT(pair, leaves_a_shared_message_to_its_other_holders)
{
    const uint32_t word = 0x01020304;
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    spoke_msg *m = new_with_words(&word, 1, "shared");

    connect_sockets(a, b, *t);
    cr_assert_eq(spoke_send(a, spoke_msg_dup(m), 0), 0);
    cr_assert_eq(spoke_send(a, spoke_msg_dup(m), 0), 0);
    expect_text(b, "shared");
    expect_text(b, "shared");
    cr_assert(text_is(m, "shared"));
    cr_assert_eq(header_word(m, 0), word);
    spoke_msg_free(m);
    finish();
}

/* ---- descriptors ---- */

ON_EVERY_TRANSPORT(pair, descriptors_follow_what_would_not_wait)
{
    spoke_socket *a = open_with_queue(0), *b = open_socket(SPOKE_PAIR);

    expect_fd(a, SPOKE_OPT_SEND_FD, false);
    expect_fd(b, SPOKE_OPT_SEND_FD, true); /* there is room in its queue */
    expect_fd(b, SPOKE_OPT_RECV_FD, false);
    connect_sockets(a, b, *t);
    expect_fd(a, SPOKE_OPT_SEND_FD, true);
    send_text(a, "one");
    send_text(a, "two");
    expect_fd(b, SPOKE_OPT_RECV_FD, true);
    expect_text(b, "one");
    expect_fd(b, SPOKE_OPT_RECV_FD, true);
    expect_text(b, "two");
    expect_fd(b, SPOKE_OPT_RECV_FD, false);
    cr_assert_eq(spoke_socket_close(b), 0);
    expect_fd(a, SPOKE_OPT_SEND_FD, false);
    finish();
}
