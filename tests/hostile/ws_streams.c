/* SPDX-License-Identifier: MIT */
/* What a peer does to a stream over ws: each violation has its word and ends that stream alone,
 * what it has sent before can be read, and nothing grows. */
#include <stdlib.h>
#include <string.h>

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/resources.h"
#include "tests/support/test.h"
#include "tests/support/ws_peer.h"

#define PROTOCOL "spoke-stream.1"
#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

enum { CONT = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10, FIN = 0x80 };

/* A listener, and two ends of a good stream on it. */
struct place {
    spoke_stream_listener *l;
    spoke_stream *good[2];
    char url[ENDPOINT_MAX];
    struct resources before;
};

static spoke_ns
soon(void)
{
    return spoke_engine_now(NULL) + PATIENCE;
}

static spoke_stream *
accept_one(struct place *p)
{
    spoke_stream *s;

    cr_assert_eq(spoke_stream_accept(p->l, &s, soon()), 0);
    cr_assert_eq(spoke_stream_set_deadline(s, soon()), 0);
    return s;
}

static void
open_streams(struct place *p)
{
    endpoint_fresh(p->url, WS);
    cr_assert_eq(spoke_stream_listen(&p->l, p->url, NULL, NULL), 0);
    cr_assert_eq(spoke_stream_dial(&p->good[0], p->url, NULL, NULL, soon()), 0);
    p->good[1] = accept_one(p);
}

static void
check_good(struct place *p)
{
    char text[4];
    size_t done;

    for (int way = 0; way < 2; way++) {
        cr_assert_eq(spoke_stream_set_deadline(p->good[way], soon()), 0);
        cr_assert_eq(spoke_stream_write(p->good[way], "well", 4, &done), 0);
        cr_assert_eq(spoke_stream_set_deadline(p->good[1 - way], soon()), 0);
        cr_assert_eq(spoke_stream_read_full(p->good[1 - way], text, 4, &done), 0);
        cr_assert_arr_eq(text, "well", 4);
    }
}

static void
close_streams(struct place *p)
{
    check_good(p);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_stream_close(p->good[i]), 0);
    cr_assert_eq(spoke_stream_listener_close(p->l), 0);
}

static void
place_open(struct place *p)
{
    scratch_dir();
    open_streams(p); /* once in vain: the shared engine makes what it keeps */
    close_streams(p);
    resources_take(&p->before);
    open_streams(p);
}

static void
place_close(struct place *p)
{
    close_streams(p);
    resources_settle(&p->before);
}

static spoke_stream *
meet(struct place *p, struct raw_peer *raw)
{
    cr_assert_eq(ws_open(raw, p->url, PROTOCOL), RAW_OK);
    return accept_one(p);
}

/* These bytes and nothing more, then that, for ever. */
static void
expect_bytes_then(spoke_stream *s, const void *bytes, size_t size, int end, const char *what)
{
    char got[16];
    size_t done;

    cr_assert_leq(size, sizeof got);
    cr_assert_eq(spoke_stream_read_full(s, got, size, &done), 0, "%s", what);
    cr_assert(memcmp(got, bytes, size) == 0, "%s", what);
    for (int i = 0; i < 2; i++) {
        int rc = spoke_stream_read(s, got, sizeof got, &done);
        cr_assert_eq(rc, end, "%s: %s", what, spoke_error_name(rc));
    }
    cr_assert_eq(spoke_stream_close(s), 0, "%s", what);
}

static void
expect_close(struct raw_peer *raw, int code, const char *what)
{
    int got = ws_wait_close(raw, RAW_LIMIT_MS);

    cr_assert_eq(got, code, "%s: %d", what, got);
    cr_assert_eq(raw_wait_eof(raw, RAW_LIMIT_MS), RAW_OK, "%s", what);
    raw_close(raw);
}

static const struct violation {
    const char *what;
    int code, end;
    size_t size;
    uint8_t bytes[16];
} violations[] = {
    {"unmasked", 1002, SPOKE_EPROTO, 3, {0x82, 1, 'x'}},
    {"RSV1", 1002, SPOKE_EPROTO, 2, {0xc2, 0x84}},
    {"RSV2", 1002, SPOKE_EPROTO, 2, {0xa2, 0x84}},
    {"RSV3", 1002, SPOKE_EPROTO, 2, {0x92, 0x84}},
    {"opcode 3", 1002, SPOKE_EPROTO, 2, {0x83, 0x80}},
    {"opcode 15", 1002, SPOKE_EPROTO, 2, {0x8f, 0x80}},
    {"a lone continuation", 1002, SPOKE_EPROTO, 6, {0x80, 0x80, 0, 0, 0, 0}},
    {"a fragmented ping", 1002, SPOKE_EPROTO, 2, {0x09, 0x80}},
    {"a long ping", 1002, SPOKE_EPROTO, 2, {0x89, 0xfe}},
    {"a length in too many bytes", 1002, SPOKE_EPROTO, 4, {0x82, 0xfe, 0, 125}},
    {"bit 63", 1002, SPOKE_EPROTO, 10, {0x82, 0xff, 0x80}},
    {"text", 1003, SPOKE_EPROTO, 6, {0x81, 0x80, 0, 0, 0, 0}},
    {"a close of one byte", 1002, SPOKE_EPROTO, 7, {0x88, 0x81, 0, 0, 0, 0, 3}},
    {"a close without a code", 1005, SPOKE_EOF, 6, {0x88, 0x80, 0, 0, 0, 0}},
    {"a close", 1001, SPOKE_EOF, 8, {0x88, 0x82, 0, 0, 0, 0, 3, 0xe9}},
};

Test(ws_streams, each_violation_has_its_word_behind_what_came_before)
{
    struct place p;

    place_open(&p);
    for (size_t i = 0; i < sizeof violations / sizeof violations[0]; i++) {
        const struct violation *v = &violations[i];
        struct raw_peer raw;
        spoke_stream *s = meet(&p, &raw);

        cr_assert_eq(ws_send_frame(&raw, FIN | BINARY, "before", 6, true), RAW_OK);
        cr_assert_eq(raw_send_bytes(&raw, v->bytes, v->size, RAW_LIMIT_MS), RAW_OK);
        expect_bytes_then(s, "before", 6, v->end, v->what);
        expect_close(&raw, v->code, v->what);
    }
    place_close(&p);
}

/* Goal: a frame that ends early gives what has come of it, and then no end that could be believed.
 * Method: each byte of a frame with a small head, and of the longest head. */
Test(ws_streams, a_frame_may_end_at_any_byte)
{
    static const uint8_t longest[] = {0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255,
                                      255,  0,    0,    0,   0,   'a', 'b', 'c', 'd'};
    uint8_t small[16];
    size_t small_size = ws_frame(small, FIN | BINARY, "abcdef", 6, true);
    struct place p;

    place_open(&p);
    for (int k = 0; k < 2; k++) {
        const uint8_t *bytes = k == 0 ? small : longest;
        size_t head = k == 0 ? 6 : 14, most = k == 0 ? small_size - 1 : sizeof longest;

        for (size_t cut = 1; cut <= most; cut++) {
            struct raw_peer raw;
            spoke_stream *s = meet(&p, &raw);

            cr_assert_eq(raw_send_bytes(&raw, bytes, cut, RAW_LIMIT_MS), RAW_OK);
            cr_assert_eq(raw_end(&raw), RAW_OK);
            expect_bytes_then(s, "abcdef", cut > head ? cut - head : 0, SPOKE_ETRUNCATED, "cut");
            raw_close(&raw);
        }
    }
    place_close(&p);
}

Test(ws_streams, an_empty_frame_ends_one_direction_and_many_end_all)
{
    static uint8_t bytes[2000 * 6];
    struct raw_peer raw;
    spoke_stream *s;
    struct place p;
    uint8_t got[8];
    unsigned first;
    size_t size = 0, done;

    place_open(&p);
    s = meet(&p, &raw);
    cr_assert_eq(ws_send_frame(&raw, FIN | BINARY, "", 0, true), RAW_OK);
    cr_assert_eq(spoke_stream_read(s, got, 1, &done), SPOKE_EOF);
    cr_assert_eq(spoke_stream_write(s, "still", 5, &done), 0);
    cr_assert_eq(ws_recv_frame(&raw, &first, got, sizeof got, RAW_LIMIT_MS), 5);
    cr_assert_eq(spoke_stream_close(s), 0);
    expect_close(&raw, 1000, "the other direction");
    s = meet(&p, &raw);
    for (int i = 0; i < 2000; i++)
        size += ws_frame(bytes + size, i == 0 ? BINARY : CONT, "", 0, true);
    (void)raw_send_bytes(&raw, bytes, size, RAW_LIMIT_MS);
    expect_bytes_then(s, "", 0, SPOKE_EPROTO, "empty");
    expect_close(&raw, 1008, "empty");
    place_close(&p);
}

/* Whoever does not read our pongs gets the latest. */
Test(ws_streams, a_ping_flood_costs_no_memory)
{
    enum { COUNT = 20000 };
    struct spoke_memory_stats before, after;
    uint8_t payload[125] = {0}, got[8];
    struct raw_peer raw;
    spoke_stream *s;
    struct place p;
    unsigned first;
    uint32_t latest = 0;
    size_t done;

    place_open(&p);
    s = meet(&p, &raw);
    spoke_memory_stats(&before);
    for (uint32_t i = 1; i <= COUNT; i++) { /* a reader is needed: a stream takes what is read */
        raw_put32(payload, i);
        cr_assert_eq(ws_send_frame(&raw, FIN | PING, payload, sizeof payload, true), RAW_OK);
        if (i % 100 == 0) {
            cr_assert_eq(ws_send_frame(&raw, FIN | BINARY, "x", 1, true), RAW_OK);
            cr_assert_eq(spoke_stream_read(s, got, 1, &done), 0);
        }
    }
    spoke_memory_stats(&after);
    cr_assert_lt(after.chunk_bytes, before.chunk_bytes + (256u << 10));
    do {
        cr_assert_eq(ws_recv_frame(&raw, &first, payload, sizeof payload, RAW_LIMIT_MS), 125);
        cr_assert_eq(first, FIN | PONG);
        cr_assert_gt(raw_get32(payload), latest);
        latest = raw_get32(payload);
    } while (latest < COUNT);
    cr_assert_eq(spoke_stream_close(s), 0);
    expect_close(&raw, 1000, "closed");
    place_close(&p);
}

/* The other role. */
Test(ws_streams, a_dialer_refuses_masks)
{
    struct raw_listener l;
    struct raw_peer raw;
    char place[160], url[ENDPOINT_MAX];
    spoke_stream *s;

    endpoint_fresh(url, WS);
    ws_place(place, url);
    cr_assert_eq(raw_listen(&l, place), RAW_OK);
    for (int masked = 0; masked < 2; masked++) {
        cr_assert_eq(spoke_stream_dial(&s, url, NULL, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_stream_set_deadline(s, soon()), 0);
        cr_assert_eq(ws_accept(&l, &raw, NULL), RAW_OK);
        cr_assert_eq(ws_send_frame(&raw, FIN | BINARY, "before", 6, false), RAW_OK);
        cr_assert_eq(ws_send_frame(&raw, masked ? FIN | BINARY : FIN | CLOSE, "", 0, masked == 1),
                     RAW_OK);
        expect_bytes_then(s, "before", 6, masked ? SPOKE_EPROTO : SPOKE_EOF, "from a listener");
        expect_close(&raw, masked ? 1002 : 1005, "from a listener");
    }
    raw_listener_close(&l);
}
