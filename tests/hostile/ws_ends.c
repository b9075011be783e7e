/* SPDX-License-Identifier: MIT */
/* RFC 6455, 5.5.1 and 7: how a connection ends, which codes there are, and what comes behind. */
#include "tests/hostile/ws_rig.h"

#include <stdio.h>
#include <string.h>

static size_t
put_code(uint8_t payload[125], unsigned code, const char *reason, size_t size)
{
    payload[0] = (uint8_t)(code >> 8);
    payload[1] = (uint8_t)code;
    memcpy(payload + 2, reason, size);
    return size + 2;
}

ROLE_TEST(ws_ends, each_code_that_may_be_said_is_answered)
{
    static const unsigned codes[] = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010,
                                     1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999};
    uint8_t payload[125];
    char what[32];
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        for (size_t size = 0; size <= 123; size += 41) { /* of the reason */
            char reason[124];

            memset(reason, '*', sizeof reason);
            snprintf(what, sizeof what, "code %u, %zu bytes", codes[i], size);
            ws_rig_meet(&r);
            size_t n = put_code(payload, codes[i], reason, size);

            ws_rig_say(&r, FIN | CLOSE, payload, n);
            ws_rig_ends(&r, (int)codes[i], what);
        }
    }
    ws_rig_close(&r);
}

ROLE_TEST(ws_ends, codes_that_nobody_may_say)
{
    static const unsigned codes[] = {0,    1,    999,  1004, 1005, 1006, 1015, 1016,
                                     1100, 1999, 2000, 2999, 5000, 9999, 65535};
    uint8_t payload[125];
    char what[32];
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        for (size_t size = 0; size <= 5; size += 5) {
            snprintf(what, sizeof what, "code %u", codes[i]);
            ws_rig_meet(&r);
            size_t n = put_code(payload, codes[i], "hello", size);

            ws_rig_say(&r, FIN | CLOSE, payload, n);
            ws_rig_fails(&r, 1002, what);
        }
    }
    ws_rig_close(&r);
}

ROLE_TEST(ws_ends, payloads_of_no_code_of_half_a_code_and_of_no_text)
{
    static const struct {
        const char *what, *reason;
        size_t size;
    } bad[] = {
        {"ff", "\xff", 1},
        {"cut", "bye \xe2\x82", 6},
        {"a surrogate", "\xed\xa0\x80", 3},
        {"too long a slash", "\xc0\xaf", 2},
        {"in the middle", "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80 edited", 20},
    };
    uint8_t payload[125];
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    ws_rig_meet(&r);
    ws_rig_say(&r, FIN | CLOSE, "", 0);
    ws_rig_ends(&r, 1005, "no code");
    ws_rig_meet(&r);
    ws_rig_say(&r, FIN | CLOSE, "\x03", 1);
    ws_rig_fails(&r, 1002, "half a code");
    ws_rig_meet(&r);
    size_t n = put_code(payload, 1000, "\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5", 11);

    ws_rig_say(&r, FIN | CLOSE, payload, n);
    ws_rig_ends(&r, 1000, "text");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        ws_rig_meet(&r);
        n = put_code(payload, 1000, bad[i].reason, bad[i].size);
        ws_rig_say(&r, FIN | CLOSE, payload, n);
        ws_rig_fails(&r, 1002, bad[i].what);
    }
    ws_rig_close(&r);
}

/* ---- what comes behind ---- */

/* What is in front of a close arrives; nothing behind it is heard or answered. */
ROLE_TEST(ws_ends, behind_a_close_there_is_nothing)
{
    static const unsigned behind[] = {FIN | BINARY, FIN | PING, FIN | PONG, FIN | CLOSE,
                                      BINARY,       FIN | CONT, FIN | 3};
    uint8_t bytes[256];
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    for (size_t i = 0; i < sizeof behind / sizeof behind[0]; i++) {
        for (size_t step = 1; step < 256; step += 254) {
            size_t used;

            ws_rig_meet(&r);
            ws_rig_say(&r, FIN | BINARY, "in front", 8);
            ws_rig_echo(&r, "in front", 8);
            used = ws_rig_frame(&r, bytes, FIN | CLOSE, "\x03\xe8", 2);
            used += ws_rig_frame(&r, bytes + used, behind[i], "\x03\xe9", 2);
            ws_rig_chop(&r, bytes, used, step);
            ws_rig_ends(&r, 1000, "the first word counts");
        }
    }
    ws_rig_close(&r);
}

/* A message that is not whole is none; of a stream, what has come has come. */
ROLE_TEST(ws_ends, in_the_middle_of_a_message)
{
    struct ws_rig r;
    size_t size = 100;
    char text[100];

    ws_rig_open(&r, *role, false);
    ws_rig_meet(&r);
    ws_rig_say(&r, BINARY, "half a message", 14);
    ws_rig_say(&r, FIN | CLOSE, "\x03\xe8", 2);
    ws_rig_ends(&r, 1000, "between fragments");
    if (r.pair != NULL) {
        int rc = spoke_recv_bytes(r.pair, text, &size, SPOKE_DONTWAIT);

        cr_assert_eq(rc, SPOKE_EAGAIN, "%s", spoke_error_name(rc));
    }
    ws_rig_close(&r);
}

/* 256 KiB, a close and a ping in one go: all of the message arrives. */
ROLE_TEST(ws_ends, a_large_message_in_front)
{
    enum { SIZE = 256 * 1024 };
    static uint8_t message[SIZE], bytes[SIZE + 64];
    struct ws_rig r;
    size_t used, done;
    spoke_msg *m;

    memset(message, 'm', sizeof message);
    ws_rig_open(&r, *role, false);
    ws_rig_meet(&r);
    used = ws_rig_frame(&r, bytes, FIN | BINARY, message, SIZE);
    used += ws_rig_frame(&r, bytes + used, FIN | CLOSE, "\x03\xe8", 2);
    used += ws_rig_frame(&r, bytes + used, FIN | PING, "?", 1);
    ws_rig_chop(&r, bytes, used, used);
    if (r.pair != NULL) {
        cr_assert_eq(spoke_recv(r.pair, &m, 0), 0);
        cr_assert_eq(spoke_msg_size(m), SIZE);
        spoke_msg_free(m);
    } else {
        cr_assert_eq(spoke_stream_read_full(r.stream, bytes, SIZE, &done), 0);
        cr_assert_eq(memcmp(bytes, message, SIZE), 0);
    }
    ws_rig_ends(&r, 1000, "behind it");
    ws_rig_close(&r);
}
