/* SPDX-License-Identifier: MIT */
/* Frames, good and bad, from a client: what is delivered, what is answered, and with which word a
 * connection ends.  The bad ones cost their connection alone. */
#include "tests/hostile/victim.h"

#include <stdlib.h>
#include <string.h>

#include "tests/support/ws_peer.h"

#define REP "rep.sp.nanomsg.org"

enum { CONT = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10, FIN = 0x80 };

static void
meet(struct victim *v, struct raw_peer *p)
{
    int rc = ws_open(p, v->url, REP);

    cr_assert_eq(rc, RAW_OK, "%d", rc);
}

static void
expect_close(struct raw_peer *p, int code, const char *what)
{
    int got = ws_wait_close(p, RAW_LIMIT_MS);

    cr_assert_eq(got, code, "%s: %d", what, got);
    cr_assert_eq(raw_wait_eof(p, RAW_LIMIT_MS), RAW_OK, "%s", what);
    raw_close(p);
}

/* A frame, or what a test makes of its bytes. */
static void
expect_violation(struct victim *v, const void *bytes, size_t size, int code, const char *what)
{
    struct raw_peer p;

    meet(v, &p);
    cr_assert_eq(raw_send_bytes(&p, bytes, size, RAW_LIMIT_MS), RAW_OK);
    expect_close(&p, code, what);
}

static void
expect_echo(struct raw_peer *p, const uint8_t *message, size_t size)
{
    uint8_t *reply = malloc(size + 1);
    unsigned first;
    long n = ws_recv_frame(p, &first, reply, size + 1, RAW_LIMIT_MS);

    cr_assert_eq(n, (long)size, "%ld of %zu", n, size);
    cr_assert_eq(first, FIN | BINARY);
    cr_assert(memcmp(reply, message, size) == 0);
    free(reply);
}

static void
put_request(uint8_t *message, size_t size, uint32_t id)
{
    raw_put32(message, id | 0x80000000u);
    for (size_t i = 4; i < size; i++)
        message[i] = (uint8_t)(i * 7 + id);
}

Test(ws_frames, every_length_and_every_encoding_of_it)
{
    static const size_t sizes[] = {4,    5,     124,   125,   126,   127,    128,    129,
                                   1000, 65534, 65535, 65536, 65537, 300000, 1048576};
    uint8_t *message = malloc(1 << 20);
    struct raw_peer p;
    struct victim v;

    victim_open(&v, WS);
    meet(&v, &p);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        put_request(message, sizes[i], (uint32_t)i);
        cr_assert_eq(ws_send_frame(&p, FIN | BINARY, message, sizes[i], true), RAW_OK);
        expect_echo(&p, message, sizes[i]);
    }
    raw_close(&p);
    victim_close(&v);
    free(message);
}

Test(ws_frames, many_in_one_piece_and_one_in_many)
{
    enum { COUNT = 200, SIZE = 60 };
    static uint8_t bytes[COUNT * (SIZE + 6)], message[SIZE];
    struct raw_peer p;
    struct victim v;
    size_t size = 0;

    victim_open(&v, WS);
    meet(&v, &p);
    for (uint32_t i = 0; i < COUNT; i++) {
        put_request(message, SIZE, i);
        size += ws_frame(bytes + size, FIN | BINARY, message, SIZE, true);
    }
    cr_assert_eq(raw_send_bytes(&p, bytes, size, RAW_LIMIT_MS), RAW_OK);
    for (uint32_t i = 0; i < COUNT; i++) {
        put_request(message, SIZE, i);
        expect_echo(&p, message, SIZE);
    }
    for (uint32_t i = 0; i < 3; i++) { /* byte by byte */
        put_request(message, SIZE, i);
        size = ws_frame(bytes, FIN | BINARY, message, SIZE, true);
        for (size_t at = 0; at < size; at++)
            cr_assert_eq(raw_send_bytes(&p, bytes + at, 1, RAW_LIMIT_MS), RAW_OK);
        expect_echo(&p, message, SIZE);
    }
    raw_close(&p);
    victim_close(&v);
}

/* Any cut, empty parts too, and pings between them. */
Test(ws_frames, fragments_are_put_together)
{
    static uint8_t message[70000], reply[256];
    static const size_t parts[][4] = {{1, 1, 1, 1},     {0, 4, 0, 0},         {0, 0, 0, 9},
                                      {126, 1, 300, 2}, {40000, 0, 29999, 1}, {4, 65536, 0, 0}};
    struct raw_peer p;
    struct victim v;
    unsigned first;

    victim_open(&v, WS);
    meet(&v, &p);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        size_t at = 0, size = parts[i][0] + parts[i][1] + parts[i][2] + parts[i][3];
        put_request(message, size, (uint32_t)i);
        for (int k = 0; k < 4; k++) {
            unsigned opcode = (k == 0 ? BINARY : CONT) | (k == 3 ? FIN : 0);
            cr_assert_eq(ws_send_frame(&p, opcode, message + at, parts[i][k], true), RAW_OK);
            at += parts[i][k];
            if (k == 1) {
                cr_assert_eq(ws_send_frame(&p, FIN | PING, "between", 7, true), RAW_OK);
                cr_assert_eq(ws_send_frame(&p, FIN | PONG, "x", 1, true), RAW_OK);
                cr_assert_eq(ws_recv_frame(&p, &first, reply, sizeof reply, RAW_LIMIT_MS), 7);
                cr_assert_eq(first, FIN | PONG);
                cr_assert_arr_eq(reply, "between", 7);
            }
        }
        expect_echo(&p, message, size);
    }
    raw_close(&p);
    victim_close(&v);
}

Test(ws_frames, each_violation_has_its_word)
{
    static const struct {
        const char *what;
        int code;
        size_t size;
        uint8_t bytes[24];
    } bad[] = {
        {"unmasked", 1002, 6, {0x82, 4, 0x80, 0, 0, 1}},
        {"RSV1", 1002, 2, {0xc2, 0x84}},
        {"RSV2", 1002, 2, {0xa2, 0x84}},
        {"RSV3", 1002, 2, {0x92, 0x84}},
        {"opcode 3", 1002, 2, {0x83, 0x80}},
        {"opcode 4", 1002, 2, {0x84, 0x80}},
        {"opcode 5", 1002, 2, {0x85, 0x80}},
        {"opcode 6", 1002, 2, {0x86, 0x80}},
        {"opcode 7", 1002, 2, {0x87, 0x80}},
        {"opcode 11", 1002, 2, {0x8b, 0x80}},
        {"opcode 12", 1002, 2, {0x8c, 0x80}},
        {"opcode 13", 1002, 2, {0x8d, 0x80}},
        {"opcode 14", 1002, 2, {0x8e, 0x80}},
        {"opcode 15", 1002, 2, {0x8f, 0x80}},
        {"a lone continuation", 1002, 6, {0x80, 0x80, 0, 0, 0, 0}},
        {"a lone continuation that goes on", 1002, 6, {0x00, 0x80, 0, 0, 0, 0}},
        {"a new message within one", 1002, 13, {0x02, 0x81, 0, 0, 0, 0, 9, 0x82, 0x80, 0, 0, 0, 0}},
        {"a fragmented ping", 1002, 2, {0x09, 0x80}},
        {"a fragmented close", 1002, 2, {0x08, 0x80}},
        {"a long ping", 1002, 2, {0x89, 0xfe}},
        {"a very long ping", 1002, 2, {0x89, 0xff}},
        {"a length in too many bytes", 1002, 8, {0x82, 0xfe, 0, 125, 0, 0, 0, 0}},
        {"the same of 8", 1002, 14, {0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0}},
        {"bit 63", 1002, 14, {0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
        {"2^63 - 1", 1009, 14, {0x82, 0xff, 0x7f, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0}},
        {"over the limit", 1009, 14, {0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1, 0, 0, 0, 0}},
        {"text", 1003, 7, {0x81, 0x81, 0, 0, 0, 0, 'a'}},
        {"a close of one byte", 1002, 7, {0x88, 0x81, 0, 0, 0, 0, 3}},
        {"code 0", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 0, 0}},
        {"code 999", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 3, 0xe7}},
        {"code 1004", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 3, 0xec}},
        {"code 1005", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 3, 0xed}},
        {"code 1006", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 3, 0xee}},
        {"code 1015", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 3, 0xf7}},
        {"code 1016", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 3, 0xf8}},
        {"code 2999", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 0x0b, 0xb7}},
        {"code 5000", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 0x13, 0x88}},
        {"code 65535", 1002, 8, {0x88, 0x82, 0, 0, 0, 0, 0xff, 0xff}},
        {"a reason that is no text", 1002, 9, {0x88, 0x83, 0, 0, 0, 0, 3, 0xe8, 0xff}},
        {"half a character", 1002, 9, {0x88, 0x83, 0, 0, 0, 0, 3, 0xe8, 0xc3}},
        {"no request", 1002, 7, {0x82, 0x81, 0, 0, 0, 0, 'x'}},
    };
    const size_t count = sizeof bad / sizeof bad[0];
    struct victim v;

    victim_open(&v, WS);
    for (size_t i = 0; i < count; i++)
        expect_violation(&v, bad[i].bytes, bad[i].size, bad[i].code, bad[i].what);
    cr_assert_eq(victim_stats(&v).pipes_attached, count + 1);
    cr_assert_eq(victim_stats(&v).oversized, 2);
    victim_close(&v);
}

Test(ws_frames, a_close_is_answered_with_its_code)
{
    static const struct {
        int code;
        size_t size;
        uint8_t payload[8];
    } good[] = {
        {1005, 0, {0}},
        {1000, 2, {3, 0xe8}},
        {1001, 2, {3, 0xe9}},
        {1003, 2, {3, 0xeb}},
        {1007, 2, {3, 0xef}},
        {1011, 2, {3, 0xf3}},
        {1014, 2, {3, 0xf6}},
        {3000, 2, {0x0b, 0xb8}},
        {4999, 2, {0x13, 0x87}},
        {1000, 5, {3, 0xe8, 'b', 'y', 'e'}},
        {1000, 4, {3, 0xe8, 0xc3, 0xa4}},
    };
    struct raw_peer p;
    struct victim v;

    victim_open(&v, WS);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        meet(&v, &p);
        cr_assert_eq(ws_send_frame(&p, FIN | CLOSE, good[i].payload, good[i].size, true), RAW_OK);
        /* What comes behind it is nobody's. */
        cr_assert_eq(ws_send_frame(&p, FIN | BINARY, "\x80\0\0\1no", 6, true), RAW_OK);
        expect_close(&p, good[i].code, "close");
    }
    victim_close(&v);
}

Test(ws_frames, whom_we_leave_is_told_and_need_not_answer)
{
    struct raw_peer going, listens, left;
    spoke_listener *second;
    char url[ENDPOINT_MAX];
    struct victim v;

    victim_open(&v, WS);
    endpoint_fresh(url, WS);
    cr_assert_eq(spoke_listen(v.rep, url, &second, 0), 0);
    cr_assert_eq(spoke_listener_set_bool(second, SPOKE_OPT_CLOSE_PIPES, true), 0);
    cr_assert_eq(ws_open(&going, url, REP), RAW_OK);
    victim_await(&v, pipes_current, 2);
    cr_assert_eq(spoke_listener_close(second), 0);
    expect_close(&going, 1001, "going away");
    meet(&v, &listens);
    victim_await(&v, pipes_current, 2);
    cr_assert_eq(spoke_socket_set_int(v.rep, SPOKE_OPT_MAX_PIPES, 2), 0);
    meet(&v, &left);
    expect_close(&left, 1013, "too many");
    raw_close(&listens);
    victim_close(&v);
}

Test(ws_frames, the_limit_is_on_the_sum)
{
    static uint8_t part[1000] = {0x80, 0, 0, 1};
    struct raw_peer p;
    struct victim v;

    victim_open(&v, WS);
    cr_assert_eq(spoke_listener_set_size(v.l, SPOKE_OPT_MAX_RECV_SIZE, 10000), 0);
    meet(&v, &p);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(ws_send_frame(&p,
                                   i == 0   ? BINARY
                                   : i == 9 ? FIN
                                            : 0,
                                   part, 1000, true),
                     RAW_OK);
    uint8_t reply[10001];
    unsigned first;
    cr_assert_eq(ws_recv_frame(&p, &first, reply, sizeof reply, RAW_LIMIT_MS), 10000);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(ws_send_frame(&p, i == 0 ? BINARY : 0, part, 1000, true), RAW_OK);
    /* The head alone is enough. */
    cr_assert_eq(raw_send_bytes(&p, "\x80\x81\0\0\0\0", 6, RAW_LIMIT_MS), RAW_OK);
    expect_close(&p, 1009, "sum");
    victim_await(&v, oversized, 1);
    victim_close(&v);
}

Test(ws_frames, endless_empty_fragments_have_an_end)
{
    static uint8_t bytes[2000 * 6];
    struct raw_peer p;
    struct victim v;
    size_t size = 0;

    victim_open(&v, WS);
    meet(&v, &p);
    for (int i = 0; i < 2000; i++)
        size += ws_frame(bytes + size, i == 0 ? BINARY : CONT, "", 0, true);
    (void)raw_send_bytes(&p, bytes, size, RAW_LIMIT_MS);
    expect_close(&p, 1008, "empty");
    victim_close(&v);
}

/* Whoever does not read our pongs gets the latest; nothing grows. */
Test(ws_frames, a_ping_flood_costs_no_memory)
{
    enum { COUNT = 20000 };
    static uint8_t bytes[64 * 131];
    uint8_t payload[125];
    struct raw_peer p;
    struct victim v;
    unsigned first, pongs = 0;
    uint32_t latest = 0;
    long n;

    victim_open(&v, WS);
    meet(&v, &p);
    for (uint32_t i = 0; i < COUNT;) {
        size_t size = 0;
        for (int k = 0; k < 64; k++, i++) {
            memset(payload, 'p', sizeof payload);
            raw_put32(payload, i + 1);
            size += ws_frame(bytes + size, FIN | PING, payload, sizeof payload, true);
        }
        cr_assert_eq(raw_send_bytes(&p, bytes, size, RAW_LIMIT_MS), RAW_OK);
        latest = i;
    }
    victim_check(&v);
    do {
        n = ws_recv_frame(&p, &first, payload, sizeof payload, RAW_LIMIT_MS);
        cr_assert_eq(n, 125);
        cr_assert_eq(first, FIN | PONG);
        pongs++;
    } while (raw_get32(payload) != latest);
    cr_assert_leq(pongs, latest);
    cr_assert_eq(ws_send_frame(&p, FIN | BINARY, "\x80\0\0\1ok", 6, true), RAW_OK);
    expect_echo(&p, (const uint8_t *)"\x80\0\0\1ok", 6);
    raw_close(&p);
    victim_close(&v);
}

Test(ws_frames, text_is_a_message_if_it_may_be)
{
    /* Four bytes of a request's id are no text: a PAIR takes it. */
    static const struct {
        const char *what, *bytes;
        size_t size;
        bool fine;
    } texts[] = {
        {"ascii", "hello", 5, true},
        {"empty", "", 0, true},
        {"two bytes", "\xc3\xa4", 2, true},
        {"three bytes", "\xe2\x82\xac", 3, true},
        {"four bytes", "\xf0\x9f\x98\x80", 4, true},
        {"the last character", "\xf4\x8f\xbf\xbf", 4, true},
        {"beyond it", "\xf4\x90\x80\x80", 4, false},
        {"a half of a pair", "\xed\xa0\x80", 3, false},
        {"too long", "\xc0\xaf", 2, false},
        {"too long, three", "\xe0\x80\x80", 3, false},
        {"too long, four", "\xf0\x80\x80\x80", 4, false},
        {"a middle", "\x80", 1, false},
        {"cut", "\xe2\x82", 2, false},
        {"no first byte", "\xff", 1, false},
    };
    spoke_socket *pair;
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    endpoint_fresh(url, WS);
    cr_assert_eq(spoke_socket_open(&pair, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_socket_set_bool(pair, SPOKE_OPT_WS_RECV_TEXT, true), 0);
    cr_assert_eq(spoke_socket_set_bool(pair, SPOKE_OPT_WS_SEND_TEXT, true), 0);
    cr_assert_eq(spoke_socket_set_duration(pair, SPOKE_OPT_RECV_TIMEOUT, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(spoke_socket_set_duration(pair, SPOKE_OPT_SEND_TIMEOUT, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(spoke_listen(pair, url, NULL, 0), 0);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        for (size_t cut = 0; cut <= texts[i].size; cut++) { /* in two parts */
            char got[16];
            uint8_t reply[16];
            size_t size = sizeof got;
            unsigned first;
            cr_assert_eq(ws_open(&p, url, "pair.sp.nanomsg.org"), RAW_OK);
            cr_assert_eq(ws_send_frame(&p, TEXT, texts[i].bytes, cut, true), RAW_OK);
            cr_assert_eq(
                ws_send_frame(&p, FIN | CONT, texts[i].bytes + cut, texts[i].size - cut, true),
                RAW_OK);
            if (!texts[i].fine) {
                expect_close(&p, 1007, texts[i].what);
                continue;
            }
            cr_assert_eq(spoke_recv_bytes(pair, got, &size, 0), 0, "%s", texts[i].what);
            cr_assert_eq(size, texts[i].size);
            cr_assert(memcmp(got, texts[i].bytes, size) == 0);
            cr_assert_eq(spoke_send_bytes(pair, got, size, 0), 0);
            cr_assert_eq(ws_recv_frame(&p, &first, reply, sizeof reply, RAW_LIMIT_MS), (long)size);
            cr_assert_eq(first, FIN | TEXT);
            cr_assert_eq(ws_send_frame(&p, FIN | CLOSE, "", 0, true), RAW_OK);
            expect_close(&p, 1005, "bye");
        }
    }
    cr_assert_eq(spoke_socket_close(pair), 0);
}

Test(ws_frames, long_messages_leave_in_frames_of_the_size_that_is_set)
{
    enum { SIZE = 100000, FRAME = 16384 };
    static uint8_t message[SIZE], reply[SIZE];
    struct raw_peer p;
    struct victim v;
    unsigned first;
    size_t have = 0;
    long n;

    victim_open(&v, WS);
    cr_assert_eq(spoke_listener_set_size(v.l, SPOKE_OPT_WS_FRAME_SIZE, FRAME), 0);
    cr_assert_eq(spoke_listener_set_size(v.l, SPOKE_OPT_WS_FRAME_SIZE, 100), SPOKE_ERANGE);
    meet(&v, &p);
    put_request(message, SIZE, 3);
    cr_assert_eq(ws_send_frame(&p, FIN | BINARY, message, SIZE, true), RAW_OK);
    do {
        n = ws_recv_frame(&p, &first, reply + have, SIZE - have, RAW_LIMIT_MS);
        cr_assert(n > 0 && n <= FRAME, "%ld", n);
        cr_assert_eq(first & 0xf, have == 0 ? BINARY : CONT);
        have += (size_t)n;
    } while ((first & FIN) == 0);
    cr_assert_eq(have, SIZE);
    cr_assert(memcmp(message, reply, SIZE) == 0);
    raw_close(&p);
    victim_close(&v);
}

/* A length that lies costs what has come, not what was said. */
Test(ws_frames, what_is_announced_is_not_reserved)
{
    static const uint8_t head[] = {0x82, 0xff, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0};
    struct raw_peer p;
    struct victim v;

    victim_open(&v, WS);
    cr_assert_eq(spoke_listener_set_size(v.l, SPOKE_OPT_MAX_RECV_SIZE, 0), 0);
    meet(&v, &p);
    cr_assert_eq(raw_send_bytes(&p, head, sizeof head, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, "some of it", 10, RAW_LIMIT_MS), RAW_OK);
    victim_check(&v);
    struct spoke_memory_stats memory;
    spoke_memory_stats(&memory);
    cr_assert_lt(memory.chunk_bytes, (uint64_t)16 << 20);
    cr_assert(raw_is_quiet(&p, RAW_QUIET_MS));
    raw_close(&p);
    victim_close(&v);
}

Test(ws_frames, a_message_that_stops_is_given_up)
{
    static uint8_t message[1000] = {0x80, 0, 0, 1}, bytes[1100];
    static const size_t cuts[] = {1, 5, 8, 100};
    struct raw_peer p;
    struct victim v;

    victim_open(&v, WS);
    cr_assert_eq(spoke_listener_set_duration(v.l, SPOKE_OPT_IDLE_TIMEOUT, 30 * SPOKE_MS), 0);
    ws_frame(bytes, FIN | BINARY, message, sizeof message, true);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        meet(&v, &p);
        cr_assert_eq(raw_send_bytes(&p, bytes, cuts[i], RAW_LIMIT_MS), RAW_OK);
        expect_close(&p, 1008, "stopped");
        victim_await(&v, stalled, i + 1);
    }
    victim_close(&v);
}

Test(ws_frames, properties_are_what_the_peer_said)
{
    char text[1024], place[160], value[1024];
    spoke_socket *pair;
    struct raw_peer p;
    char url[ENDPOINT_MAX];
    spoke_msg *m;

    endpoint_fresh(url, WS);
    ws_place(place, url);
    cr_assert_eq(spoke_socket_open(&pair, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_listen(pair, url, NULL, 0), 0);
    cr_assert_eq(raw_connect(&p, place, RAW_LIMIT_MS), RAW_OK);
    size_t size = ws_request(text, sizeof text, "/a/path?who=me", "pair.sp.nanomsg.org",
                             "X-Token: secret\r\nX-Empty:\r\n");
    cr_assert_eq(raw_send_bytes(&p, text, size, RAW_LIMIT_MS), RAW_OK);
    cr_assert_gt(ws_read_head(&p, text, sizeof text, RAW_LIMIT_MS), 0);
    cr_assert_eq(ws_send_frame(&p, FIN | BINARY, "hi", 2, true), RAW_OK);
    cr_assert_eq(spoke_recv(pair, &m, 0), 0);
    size = sizeof value;
    cr_assert_eq(
        spoke_pipe_get(pair, spoke_msg_pipe(m), SPOKE_OPT_WS_TARGET, SPOKE_STRING, value, &size),
        0);
    cr_assert_str_eq(value, "/a/path?who=me");
    size = sizeof value;
    cr_assert_eq(
        spoke_pipe_get(pair, spoke_msg_pipe(m), SPOKE_OPT_WS_FIELDS, SPOKE_STRING, value, &size),
        0);
    cr_assert_not_null(strstr(value, "\nX-Token: secret\nX-Empty: \n"), "%s", value);
    cr_assert_eq(
        spoke_pipe_get(pair, spoke_msg_pipe(m), SPOKE_OPT_WS_TARGET, SPOKE_INT, value, &size),
        SPOKE_ETYPE);
    spoke_msg_free(m);
    raw_close(&p);
    cr_assert_eq(spoke_socket_close(pair), 0);
}

/* Goal: an end within a frame, at whatever byte, delivers nothing, and each byte may come alone.
 * Method: messages with heads of each size; their whole head and a few bytes more are tried. */
Test(ws_frames, a_frame_may_end_at_any_byte_and_come_byte_by_byte)
{
    static const size_t sizes[] = {20, 300, 70000};
    static uint8_t message[70000], bytes[70014];
    struct raw_peer p;
    struct victim v;

    victim_open(&v, WS);
    uint64_t before = victim_stats(&v).messages_received;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        put_request(message, sizes[i], (uint32_t)i);
        size_t size = ws_frame(bytes, FIN | BINARY, message, sizes[i], true);
        for (size_t cut = 1; cut < size; cut += cut < 40 ? 1 : 9973) {
            meet(&v, &p);
            cr_assert_eq(raw_send_bytes(&p, bytes, cut, RAW_LIMIT_MS), RAW_OK);
            peer_leaves(&p, (int)(cut % WAYS_TO_LEAVE));
        }
        meet(&v, &p);
        for (size_t at = 0; at < 40 && at < size; at++)
            cr_assert_eq(raw_send_bytes(&p, bytes + at, 1, RAW_LIMIT_MS), RAW_OK);
        if (size > 40)
            cr_assert_eq(raw_send_bytes(&p, bytes + 40, size - 40, RAW_LIMIT_MS), RAW_OK);
        expect_echo(&p, message, sizes[i]);
        raw_close(&p);
    }
    cr_assert_eq(victim_stats(&v).messages_received - before, 3);
    victim_close(&v);
}

/* Control frames, too: what is cut is not answered. */
Test(ws_frames, a_ping_and_a_close_may_end_at_any_byte)
{
    static const unsigned opcodes[] = {PING, PONG, CLOSE};
    uint8_t bytes[16];
    struct raw_peer p;
    struct victim v;

    victim_open(&v, WS);
    for (size_t i = 0; i < 3; i++) {
        size_t size = ws_frame(bytes, FIN | opcodes[i], "\x03\xe8more", 6, true);
        for (size_t cut = 1; cut < size; cut++) {
            uint8_t answer;
            meet(&v, &p);
            cr_assert_eq(raw_send_bytes(&p, bytes, cut, RAW_LIMIT_MS), RAW_OK);
            cr_assert_eq(raw_end(&p), RAW_OK);
            cr_assert_eq(raw_recv_bytes(&p, &answer, 1, RAW_LIMIT_MS), RAW_EOF);
            raw_close(&p);
        }
    }
    victim_close(&v);
}

/* ---- the other role: frames from a listener ---- */

Test(ws_frames, a_dialer_refuses_masks_and_comes_back)
{
    char url[ENDPOINT_MAX], place[160];
    struct raw_listener l;
    struct raw_peer p;
    spoke_socket *pair;
    uint8_t got[16];
    unsigned first;
    spoke_msg *m;

    endpoint_fresh(url, WS);
    ws_place(place, url);
    cr_assert_eq(raw_listen(&l, place), RAW_OK);
    cr_assert_eq(spoke_socket_open(&pair, SPOKE_PAIR, NULL), 0);
    cr_assert_eq(spoke_socket_set_duration(pair, SPOKE_OPT_RECONNECT, SPOKE_MS), 0);
    cr_assert_eq(spoke_dial(pair, url, NULL, 0), 0);
    cr_assert_eq(ws_accept(&l, &p, NULL), RAW_OK);
    cr_assert_eq(ws_send_frame(&p, FIN | BINARY, "x", 1, true), RAW_OK);
    expect_close(&p, 1002, "masked");
    cr_assert_eq(ws_accept(&l, &p, NULL), RAW_OK); /* after an orderly close it comes back, too */
    cr_assert_eq(ws_send_frame(&p, FIN | CLOSE, "\x03\xe8", 2, false), RAW_OK);
    expect_close(&p, 1000, "closed");
    cr_assert_eq(ws_accept(&l, &p, NULL), RAW_OK);
    cr_assert_eq(ws_send_frame(&p, FIN | BINARY, "hello", 5, false), RAW_OK);
    cr_assert_eq(spoke_recv(pair, &m, 0), 0);
    cr_assert_eq(spoke_msg_size(m), 5);
    cr_assert_eq(spoke_send(pair, m, 0), 0);
    cr_assert_eq(ws_recv_frame(&p, &first, got, sizeof got, RAW_LIMIT_MS), 5);
    cr_assert_arr_eq(got, "hello", 5);
    raw_close(&p);
    raw_listener_close(&l);
    cr_assert_eq(spoke_socket_close(pair), 0);
}
