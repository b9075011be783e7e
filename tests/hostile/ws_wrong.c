/* SPDX-License-Identifier: MIT */
/* RFC 6455, 5.1 to 5.5: what nobody may send, each behind a message that is answered and in front
 * of one that is not. */
#include "tests/hostile/ws_rig.h"

#include <stdio.h>
#include <string.h>

/* A good message and its answer, then this frame alone, so many octets at a time; then nothing is
 * answered any more. */
static void
try_frame(struct ws_rig *r, unsigned first, const void *payload, size_t size, size_t step, int code)
{
    uint8_t bytes[512];
    char what[32];
    size_t used = 0;

    snprintf(what, sizeof what, "%02x with %zu bytes", first, size);
    ws_rig_meet(r);
    ws_rig_say(r, FIN | TEXT, "before", 6);
    ws_rig_echo(r, "before", 6);
    used += ws_rig_frame(r, bytes, first, payload, size);
    used += ws_rig_frame(r, bytes + used, FIN | PING, "?", 1);
    used += ws_rig_frame(r, bytes + used, FIN | TEXT, "behind", 6);
    ws_rig_chop(r, bytes, used, step);
    ws_rig_fails(r, code, what);
}

ROLE_TEST(ws_wrong, reserved_bits)
{
    static const unsigned opcodes[] = {TEXT, BINARY, CONT, CLOSE, PING, PONG};
    struct ws_rig r;

    ws_rig_open(&r, *role, true);
    for (unsigned bits = 1; bits <= 7; bits++) {
        for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0]; i++) {
            try_frame(&r, FIN | bits << 4 | opcodes[i], "x", 0, 1000, 1002);
            try_frame(&r, FIN | bits << 4 | opcodes[i], "payload", 7, 1, 1002);
        }
    }
    ws_rig_close(&r);
}

ROLE_TEST(ws_wrong, reserved_opcodes)
{
    static const unsigned opcodes[] = {3, 4, 5, 6, 7, 11, 12, 13, 14, 15};
    struct ws_rig r;

    ws_rig_open(&r, *role, true);
    for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0]; i++) {
        for (unsigned fin = 0; fin <= FIN; fin += FIN) {
            try_frame(&r, fin | opcodes[i], "", 0, 1000, 1002);
            try_frame(&r, fin | opcodes[i], "reserved", 8, 1, 1002);
        }
    }
    ws_rig_close(&r);
}

ROLE_TEST(ws_wrong, words_of_control_are_short_and_whole)
{
    static const unsigned opcodes[] = {CLOSE, PING, PONG};
    static const uint8_t long_one[126];
    struct ws_rig r;

    ws_rig_open(&r, *role, true);
    for (size_t i = 0; i < sizeof opcodes / sizeof opcodes[0]; i++) {
        try_frame(&r, opcodes[i], "", 0, 1000, 1002); /* the first fragment of one */
        try_frame(&r, opcodes[i], "\x03\xe8", 2, 1, 1002);
        try_frame(&r, FIN | opcodes[i], long_one, sizeof long_one, 1000, 1002);
        try_frame(&r, FIN | opcodes[i], long_one, sizeof long_one, 1, 1002);
    }
    ws_rig_close(&r);
}

/* The wrong way round: what a client sends is masked, what a server sends is not. */
ROLE_TEST(ws_wrong, masks)
{
    static const unsigned firsts[] = {FIN | TEXT, FIN | BINARY, TEXT, FIN | PING, FIN | CLOSE};
    uint8_t bytes[64];
    struct ws_rig r;

    ws_rig_open(&r, *role, true);
    for (size_t i = 0; i < sizeof firsts / sizeof firsts[0]; i++) {
        for (size_t step = 1; step < 64; step += 50) {
            ws_rig_meet(&r);
            size_t n = ws_frame(bytes, firsts[i], "\x03\xe8", 2, *role == ROLE_DIALS);

            ws_rig_chop(&r, bytes, n, step);
            ws_rig_fails(&r, 1002, "masks");
        }
    }
    ws_rig_close(&r);
}

/* A length that fits into fewer bytes, or into no number of 63 bits. */
ROLE_TEST(ws_wrong, lengths)
{
    static const struct {
        const char *what;
        size_t size;
        uint8_t bytes[10];
    } heads[] = {
        {"125 in 2 bytes", 4, {0x82, 126, 0, 125}},
        {"0 in 2 bytes", 4, {0x82, 126, 0, 0}},
        {"65535 in 8 bytes", 10, {0x82, 127, 0, 0, 0, 0, 0, 0, 0xff, 0xff}},
        {"0 in 8 bytes", 10, {0x82, 127, 0, 0, 0, 0, 0, 0, 0, 0}},
        {"2^63", 10, {0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}},
        {"2^64 - 1", 10, {0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255}},
    };
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        uint8_t bytes[14] = {0};

        memcpy(bytes, heads[i].bytes, heads[i].size);
        if (*role != ROLE_DIALS)
            bytes[1] |= 0x80;
        ws_rig_meet(&r);
        ws_rig_chop(&r, bytes, heads[i].size + (*role != ROLE_DIALS ? 4 : 0), i % 2 == 0 ? 1 : 14);
        ws_rig_fails(&r, 1002, heads[i].what);
    }
    ws_rig_close(&r);
}

/* Fragments that begin nothing, go on with nothing, or come in between. */
ROLE_TEST(ws_wrong, fragments_out_of_order)
{
    static const struct {
        const char *what;
        int count, good;    /* of `good` first ones a message is made, which comes back */
        unsigned frames[4]; /* with "part " each */
    } orders[] = {
        {"a continuation of nothing", 1, 0, {FIN | CONT}},
        {"one that goes on", 1, 0, {CONT}},
        {"one that goes on, and ends", 2, 0, {CONT, FIN | CONT}},
        {"behind a whole message", 2, 1, {FIN | TEXT, FIN | CONT}},
        {"behind a whole message, and goes on", 2, 1, {FIN | TEXT, CONT}},
        {"behind one of two parts", 3, 2, {TEXT, FIN | CONT, CONT}},
        {"the same, and then a message", 4, 2, {BINARY, FIN | CONT, CONT, FIN | TEXT}},
        {"two that begin", 2, 0, {TEXT, TEXT}},
        {"two that begin, the second whole", 2, 0, {TEXT, FIN | TEXT}},
        {"another kind begins", 2, 0, {TEXT, FIN | BINARY}},
        {"the other way", 2, 0, {BINARY, FIN | TEXT}},
        {"in the third part", 3, 0, {TEXT, CONT, BINARY}},
    };
    struct ws_rig r;

    ws_rig_open(&r, *role, true);
    for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
        for (size_t step = 1; step < 100; step += 98) {
            uint8_t bytes[128];
            size_t used = 0;

            ws_rig_meet(&r);
            for (int k = 0; k < orders[i].count; k++) {
                if (k == orders[i].good && k > 0) {
                    ws_rig_chop(&r, bytes, used, step);
                    ws_rig_echo(&r, "part part ", 5 * (size_t)k);
                    used = 0;
                }
                used += ws_rig_frame(&r, bytes + used, orders[i].frames[k], "part ", 5);
            }
            ws_rig_chop(&r, bytes, used, step);
            ws_rig_fails(&r, 1002, orders[i].what);
        }
    }
    ws_rig_close(&r);
}
