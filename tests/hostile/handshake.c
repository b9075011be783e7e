/* SPDX-License-Identifier: MIT */
/* The first eight bytes: wrong, missing, slow, foreign.  Only the connection that they came on is
 * closed. */
#include "tests/hostile/victim.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* Send these bytes first; the server closes, having said nothing but its own eight. */
static void
greet_and_be_closed(struct victim *v, const void *bytes, size_t size)
{
    struct raw_peer p;
    uint8_t theirs[RAW_HANDSHAKE_BYTES], ours[RAW_HANDSHAKE_BYTES];

    cr_assert_eq(raw_connect(&p, v->url, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, bytes, size, RAW_LIMIT_MS), RAW_OK);
    /* A close with unread bytes is a reset, which may overtake what was sent before. */
    if (raw_recv_bytes(&p, theirs, sizeof theirs, RAW_LIMIT_MS) == RAW_OK) {
        raw_header(ours, SPOKE_REP);
        cr_assert_arr_eq(theirs, ours, sizeof ours);
    }
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
}

HOSTILE_TEST(handshake, wrong_at_any_byte_closes_the_connection)
{
    static const uint8_t changes[] = {0x01, 0x80, 0xff};
    struct victim v;
    uint64_t failed = 0;

    victim_open(&v, *t);
    for (size_t i = 0; i < RAW_HANDSHAKE_BYTES; i++) {
        for (size_t k = 0; k < sizeof changes; k++) {
            uint8_t header[RAW_HANDSHAKE_BYTES];
            raw_header(header, SPOKE_REQ);
            header[i] ^= changes[k];
            greet_and_be_closed(&v, header, sizeof header);
            victim_await(&v, handshakes_failed, ++failed);
        }
        victim_check(&v);
    }
    cr_assert_eq(victim_stats(&v).pipes_attached, 1, "none of them became a pipe");
    victim_close(&v);
}

HOSTILE_TEST(handshake, a_peer_of_another_pattern_is_closed)
{
    static const uint16_t others[] = {0,  1,  16, 17, 32, 33,  47,   49,     50,     80,
                                      81, 96, 97, 98, 99, 112, 1600, 0x3000, 0x8030, 0xffff};
    struct victim v;

    victim_open(&v, *t);
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        uint8_t header[RAW_HANDSHAKE_BYTES];
        raw_header(header, others[i]);
        greet_and_be_closed(&v, header, sizeof header);
        victim_await(&v, handshakes_failed, i + 1);
    }
    cr_assert_eq(victim_stats(&v).pipes_attached, 1);
    victim_close(&v);
}

HOSTILE_TEST(handshake, cut_off_at_any_byte_leaves_nothing)
{
    struct victim v;
    uint8_t header[RAW_HANDSHAKE_BYTES];

    victim_open(&v, *t);
    raw_header(header, SPOKE_REQ);
    for (size_t size = 0; size < sizeof header; size++) {
        for (int way = 0; way < WAYS_TO_LEAVE; way++) {
            struct raw_peer p;
            cr_assert_eq(raw_connect(&p, v.url, RAW_LIMIT_MS), RAW_OK);
            cr_assert_eq(raw_send_bytes(&p, header, size, RAW_LIMIT_MS), RAW_OK);
            peer_leaves(&p, way);
        }
        victim_check(&v);
    }
    victim_await(&v, handshakes_failed, 3 * sizeof header - 2);
    cr_assert_eq(victim_stats(&v).pipes_attached, 1);
    victim_close(&v);
}

HOSTILE_TEST(handshake, one_that_is_never_finished_has_an_end)
{
    struct victim v;
    struct raw_peer peers[RAW_HANDSHAKE_BYTES];
    uint8_t header[RAW_HANDSHAKE_BYTES];

    victim_open(&v, *t);
    cr_assert_eq(spoke_listener_set_duration(v.l, SPOKE_OPT_HANDSHAKE_TIME, SPOKE_SECOND), 0);
    raw_header(header, SPOKE_REQ);
    for (size_t size = 0; size < sizeof header; size++) {
        cr_assert_eq(raw_connect(&peers[size], v.url, RAW_LIMIT_MS), RAW_OK);
        int rc = raw_send_bytes(&peers[size], header, size, RAW_LIMIT_MS);
        cr_assert(rc == RAW_OK || rc == RAW_EOF, "%d", rc); /* EOF: we were too slow */
    }
    victim_check(&v); /* the silent ones are in nobody's way */
    for (size_t size = 0; size < sizeof header; size++) {
        cr_assert_eq(raw_wait_eof(&peers[size], RAW_LIMIT_MS), RAW_OK);
        raw_close(&peers[size]);
    }
    victim_await(&v, handshakes_failed, sizeof header);
    victim_close(&v);
}

/* One timer for the whole handshake: a byte now and then does not prolong it. */
HOSTILE_TEST(handshake, dripping_does_not_prolong_it)
{
    struct victim v;
    struct raw_peer p;
    uint8_t header[RAW_HANDSHAKE_BYTES];
    int sent = 0;

    victim_open(&v, *t);
    cr_assert_eq(spoke_listener_set_duration(v.l, SPOKE_OPT_HANDSHAKE_TIME, SPOKE_SECOND), 0);
    raw_header(header, SPOKE_REQ);
    cr_assert_eq(raw_connect(&p, v.url, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_recv_bytes(&p, (uint8_t[8]){0}, 8, RAW_LIMIT_MS), RAW_OK);
    while (sent < 7 && raw_is_quiet(&p, 800) &&
           raw_send_bytes(&p, &header[sent], 1, RAW_LIMIT_MS) == RAW_OK)
        sent++;
    cr_assert_lt(sent, 7, "it was cut off before");
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
    victim_close(&v);
}

HOSTILE_TEST(handshake, one_byte_at_a_time_is_accepted)
{
    struct victim v;
    struct raw_peer p;
    uint8_t bytes[RAW_HANDSHAKE_BYTES + RAW_IPC_PREFIX_BYTES + 5], theirs[RAW_HANDSHAKE_BYTES];
    const uint8_t body[] = {0x80, 0, 0, 7, 'x'};
    uint8_t reply[16];

    victim_open(&v, *t);
    cr_assert_eq(raw_connect(&p, v.url, RAW_LIMIT_MS), RAW_OK);
    raw_header(bytes, SPOKE_REQ);
    size_t prefix = raw_prefix(&p, bytes + RAW_HANDSHAKE_BYTES, sizeof body);
    memcpy(bytes + RAW_HANDSHAKE_BYTES + prefix, body, sizeof body);
    for (size_t i = 0; i < RAW_HANDSHAKE_BYTES + prefix + sizeof body; i++) {
        cr_assert_eq(raw_send_bytes(&p, &bytes[i], 1, RAW_LIMIT_MS), RAW_OK);
        if (i % 3 == 0)
            victim_check(&v);
    }
    cr_assert_eq(raw_recv_bytes(&p, theirs, sizeof theirs, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_recv(&p, reply, sizeof reply, RAW_LIMIT_MS), (long)sizeof body);
    cr_assert_arr_eq(reply, body, sizeof body);
    raw_close(&p);
    victim_close(&v);
}

HOSTILE_TEST(handshake, greetings_of_other_protocols_are_closed)
{
    static const char *const greetings[] = {
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and the rest of a hello",
        "\xff\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00 a greeting of ZMTP",
        "EHLO localhost\r\n",
        "*1\r\n$4\r\nPING\r\n",
    };
    struct victim v;

    victim_open(&v, *t);
    for (size_t i = 0; i < sizeof greetings / sizeof greetings[0]; i++) {
        /* The TLS hello holds zero bytes: all of its eleven and more are sent. */
        size_t size = i == 3 || i == 4 ? 30 : strlen(greetings[i]);
        greet_and_be_closed(&v, greetings[i], size);
        victim_check(&v);
    }
    victim_await(&v, handshakes_failed, sizeof greetings / sizeof greetings[0]);
    victim_close(&v);
}

/* Header, two requests and the end, all in one piece: the requests are answered or lost, and then
 * it is over, in balance. */
HOSTILE_TEST(handshake, header_messages_and_end_in_one_piece)
{
    struct victim v;

    victim_open(&v, *t);
    uint64_t received = victim_stats(&v).messages_received;
    for (uint64_t round = 1; round <= 5; round++) {
        uint8_t bytes[128];
        struct raw_peer p;
        size_t size = RAW_HANDSHAKE_BYTES;
        cr_assert_eq(raw_connect(&p, v.url, RAW_LIMIT_MS), RAW_OK);
        raw_header(bytes, SPOKE_REQ);
        for (uint32_t i = 0; i < 2; i++) {
            size += raw_prefix(&p, bytes + size, 4);
            raw_put32(bytes + size, 0x80000000u + i);
            size += 4;
        }
        cr_assert_eq(raw_send_bytes(&p, bytes, size, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_end(&p), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
        raw_close(&p);
        victim_await(&v, messages_received, received + 2 * round);
        victim_await(&v, pipes_attached, round + 1);
    }
    victim_close(&v);
}

HOSTILE_TEST(handshake, a_header_and_an_immediate_end_are_balanced)
{
    struct victim v;
    uint8_t header[RAW_HANDSHAKE_BYTES];

    victim_open(&v, *t);
    raw_header(header, SPOKE_REQ);
    for (int i = 0; i < 100; i++) {
        struct raw_peer p;
        cr_assert_eq(raw_connect(&p, v.url, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_send_bytes(&p, header, sizeof header, RAW_LIMIT_MS), RAW_OK);
        if (i % 2 == 0)
            raw_close(&p);
        else
            raw_reset(&p);
    }
    victim_check(&v);
    victim_close(&v);
}

/* ---- from the other side: our dialer meets strangers, and goes on trying ---- */

/* A requester that dials a listener of ours, and how many of its attempts have failed. */
struct caller {
    spoke_socket *req;
    struct raw_listener l;
    uint64_t failed;
    struct resources before;
};

static void
caller_open(struct caller *c, enum transport transport)
{
    char url[ENDPOINT_MAX];
    spoke_socket *first;

    scratch_dir();
    cr_assert_eq(spoke_socket_open(&first, SPOKE_REQ, NULL), 0); /* starts the shared engine */
    cr_assert_eq(spoke_socket_close(first), 0);
    resources_take(&c->before);
    c->failed = 0;
    endpoint_fresh(url, transport);
    cr_assert_eq(raw_listen(&c->l, url), RAW_OK);
    cr_assert_eq(spoke_socket_open(&c->req, SPOKE_REQ, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(c->req, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_set_duration(c->req, SPOKE_OPT_RECV_TIMEOUT, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(spoke_dial(c->req, c->l.url, NULL, 0), 0);
}

/* A good listener at last: the requester is as good as new. */
static void
caller_close(struct caller *c)
{
    struct spoke_stats stats;
    struct raw_peer p;
    uint8_t request[16];
    char reply[8];
    size_t size = sizeof reply;

    cr_assert_eq(spoke_socket_stats(c->req, &stats), 0);
    cr_assert_eq(stats.pipes_attached, 0);
    cr_assert_eq(raw_accept_sp(&c->l, &p, SPOKE_REP, SPOKE_REQ), RAW_OK);
    cr_assert_eq(spoke_send_bytes(c->req, "ask", 3, 0), 0);
    cr_assert_eq(raw_recv(&p, request, sizeof request, RAW_LIMIT_MS), 7);
    cr_assert_eq(raw_send(&p, request, 7), RAW_OK);
    cr_assert_eq(spoke_recv_bytes(c->req, reply, &size, 0), 0);
    cr_assert_eq(spoke_socket_stats(c->req, &stats), 0);
    cr_assert_eq(stats.dials_failed, c->failed);
    cr_assert_eq(spoke_socket_close(c->req), 0);
    raw_close(&p);
    raw_listener_close(&c->l);
    resources_settle(&c->before);
}

HOSTILE_TEST(handshake, a_dialer_closes_what_is_wrong_at_any_byte)
{
    static const uint8_t changes[] = {0x01, 0x80, 0xff};
    struct caller c;
    struct raw_peer p;

    caller_open(&c, *t);
    for (size_t i = 0; i < RAW_HANDSHAKE_BYTES; i++) {
        for (size_t k = 0; k < sizeof changes; k++) {
            uint8_t header[RAW_HANDSHAKE_BYTES];
            raw_header(header, SPOKE_REP);
            header[i] ^= changes[k];
            cr_assert_eq(raw_accept(&c.l, &p, RAW_LIMIT_MS), RAW_OK);
            cr_assert_eq(raw_send_bytes(&p, header, sizeof header, RAW_LIMIT_MS), RAW_OK);
            cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "byte %zu", i);
            raw_close(&p);
            c.failed++;
        }
    }
    caller_close(&c);
}

HOSTILE_TEST(handshake, a_dialer_survives_one_that_is_cut_off_at_any_byte)
{
    uint8_t header[RAW_HANDSHAKE_BYTES];
    struct caller c;
    struct raw_peer p;

    caller_open(&c, *t);
    raw_header(header, SPOKE_REP);
    for (size_t size = 0; size < sizeof header; size++) {
        for (int way = 0; way < WAYS_TO_LEAVE; way++) {
            cr_assert_eq(raw_accept(&c.l, &p, RAW_LIMIT_MS), RAW_OK);
            cr_assert_eq(raw_send_bytes(&p, header, size, RAW_LIMIT_MS), RAW_OK);
            peer_leaves(&p, way);
            c.failed++;
        }
    }
    caller_close(&c);
}

HOSTILE_TEST(handshake, a_dialer_does_not_wait_for_one_for_ever)
{
    struct caller c;
    struct raw_peer p;
    char url[ENDPOINT_MAX];
    spoke_socket *req;
    struct raw_listener l;

    caller_open(&c, *t);
    endpoint_fresh(url, *t);
    cr_assert_eq(raw_listen(&l, url), RAW_OK);
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_HANDSHAKE_TIME, 100 * SPOKE_MS), 0);
    int rc = spoke_dial(req, l.url, NULL, SPOKE_WAIT_FIRST); /* it listens, and says nothing */
    cr_assert_eq(rc, SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
    cr_assert_eq(raw_accept(&l, &p, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    raw_close(&p);
    cr_assert_eq(spoke_socket_close(req), 0);
    raw_listener_close(&l);
    caller_close(&c);
}

HOSTILE_TEST(handshake, a_dialer_survives_bad_listeners)
{
    static const char *const greetings[] = {"",
                                            "\0SP",
                                            "HTTP/1.1 400 Bad Request\r\n\r\n",
                                            "\0SP\0\0\x30\0\0",
                                            "\0SP\1\0\x31\0\0",
                                            "\0SP\0\0\x31\0\1"};
    static const size_t sizes[] = {0, 3, 28, 8, 8, 8};
    char url[ENDPOINT_MAX];
    struct raw_listener l;
    struct raw_peer p;
    spoke_socket *req;
    struct spoke_stats stats;

    endpoint_fresh(url, *t);
    cr_assert_eq(raw_listen(&l, url), RAW_OK);
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    cr_assert_eq(spoke_dial(req, l.url, NULL, 0), 0);
    for (size_t i = 0; i < 6; i++) {
        cr_assert_eq(raw_accept(&l, &p, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(raw_send_bytes(&p, greetings[i], sizes[i], RAW_LIMIT_MS), RAW_OK);
        if (sizes[i] < 8)
            cr_assert_eq(raw_end(&p), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "greeting %zu", i);
        raw_close(&p);
    }
    cr_assert_eq(spoke_socket_stats(req, &stats), 0);
    cr_assert_eq(stats.pipes_attached, 0);
    cr_assert_eq(raw_accept_sp(&l, &p, SPOKE_REP, SPOKE_REQ), RAW_OK);
    cr_assert_eq(spoke_socket_stats(req, &stats), 0);
    cr_assert_geq(stats.dials_failed, 6);
    cr_assert_eq(spoke_send_bytes(req, "ask", 3, 0), 0);
    uint8_t request[16];
    cr_assert_eq(raw_recv(&p, request, sizeof request, RAW_LIMIT_MS), 7);
    raw_close(&p);
    raw_listener_close(&l);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_LINGER, 0), 0);
    spoke_socket_close(req);
}
