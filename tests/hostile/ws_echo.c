/* SPDX-License-Identifier: MIT */
/* RFC 6455, 5.2 to 5.6: messages of every length, whole, in fragments and in octets; pings and
 * pongs, also between fragments. */
#include "tests/hostile/ws_rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MOST ((size_t)16 << 20)

/* Bytes, or characters of one byte. */
static uint8_t *
new_message(size_t size, bool text)
{
    uint8_t *message = malloc(size + 1);

    cr_assert_not_null(message);
    for (size_t i = 0; i < size; i++)
        message[i] = (uint8_t)(text ? ' ' + (i * 7 + i / 95) % 95 : i * 7 + i / 251);
    return message;
}

static unsigned
kind_of(bool text)
{
    return text ? TEXT : BINARY;
}

/* A whole message in one frame, so many octets at a time. */
static void
say_whole(struct ws_rig *r, bool text, const uint8_t *message, size_t size, size_t step)
{
    uint8_t *bytes = malloc(size + 14);

    cr_assert_not_null(bytes);
    size = ws_rig_frame(r, bytes, FIN | kind_of(text), message, size);
    ws_rig_chop(r, bytes, size, step);
    free(bytes);
}

/* In fragments of so many bytes, which may be in one piece. */
static void
say_fragments(struct ws_rig *r, bool text, const uint8_t *message, size_t size, size_t fragment,
              size_t step)
{
    size_t count = size / fragment + 1, used = 0;
    uint8_t *bytes = malloc(size + count * 14);

    cr_assert_not_null(bytes);
    for (size_t at = 0; at < size; at += fragment) {
        size_t n = fragment < size - at ? fragment : size - at;

        used += ws_rig_frame(r, bytes + used,
                             (at == 0 ? kind_of(text) : CONT) | (at + n == size ? FIN : 0u),
                             message + at, n);
    }
    ws_rig_chop(r, bytes, used, step);
    free(bytes);
}

/* ---- whole ---- */

ROLE_TEST(ws_echo, text_and_binary_of_every_encoding_of_the_length)
{
    static const size_t sizes[] = {0, 1, 125, 126, 127, 128, 65535, 65536, 65537};
    struct ws_rig r;

    for (int text = 0; text < 2; text++) {
        ws_rig_open(&r, *role, text);
        ws_rig_meet(&r);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            uint8_t *message = new_message(sizes[i], text);

            say_whole(&r, text, message, sizes[i], sizes[i] + 14);
            ws_rig_echo(&r, message, sizes[i]);
            say_whole(&r, text, message, sizes[i], 997);
            ws_rig_echo(&r, message, sizes[i]);
            free(message);
        }
        ws_rig_leave(&r);
        ws_rig_close(&r);
    }
}

ROLE_TEST(ws_echo, each_length_up_to_300_in_one_connection)
{
    struct ws_rig r;

    for (int text = 0; text < 2; text++) {
        uint8_t *message = new_message(300, text);

        ws_rig_open(&r, *role, text);
        ws_rig_meet(&r);
        for (size_t size = 0; size <= 300; size++) {
            say_whole(&r, text, message, size, size + 14);
            ws_rig_echo(&r, message, size);
        }
        ws_rig_leave(&r);
        ws_rig_close(&r);
        free(message);
    }
}

/* A frame of each encoding, an octet at a time. */
ROLE_TEST(ws_echo, octet_by_octet)
{
    static const size_t sizes[] = {0, 7, 125, 126, 500, 65536};
    struct ws_rig r;

    for (int text = 0; text < 2; text++) {
        ws_rig_open(&r, *role, text);
        ws_rig_meet(&r);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            uint8_t *message = new_message(sizes[i], text);

            say_whole(&r, text, message, sizes[i], 1);
            ws_rig_echo(&r, message, sizes[i]);
            free(message);
        }
        ws_rig_leave(&r);
        ws_rig_close(&r);
    }
}

/* ---- large ---- */

/* A stream's reader and its peer are one thread here: what comes back must fit between them. */
static size_t
most_of(enum ws_role role)
{
    return role == ROLE_STREAM ? (size_t)256 << 10 : MOST;
}

ROLE_TEST(ws_echo, large_messages_whole_in_fragments_and_in_pieces)
{
    static const size_t sizes[] = {64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20};
    static const size_t fragments[] = {64, 1024, 65536, 1 << 20};
    static const size_t steps[] = {128, 2048};
    struct ws_rig r;

    for (int text = 0; text < 2; text++) {
        uint8_t *message = new_message(MOST, text);

        ws_rig_open(&r, *role, text);
        ws_rig_meet(&r);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && sizes[i] <= most_of(*role); i++) {
            say_whole(&r, text, message, sizes[i], sizes[i] + 14);
            ws_rig_echo(&r, message, sizes[i]);
        }
        for (size_t i = 0; i < sizeof fragments / sizeof fragments[0]; i++) {
            size_t size = most_of(*role) < (4 << 20) ? most_of(*role) : 4 << 20;

            say_fragments(&r, text, message, size, fragments[i], 1 << 20);
            ws_rig_echo(&r, message, size);
        }
        for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
            size_t size = most_of(*role) < (1 << 20) ? most_of(*role) : 1 << 20;

            say_whole(&r, text, message, size, steps[i]);
            ws_rig_echo(&r, message, size);
        }
        ws_rig_leave(&r);
        ws_rig_close(&r);
        free(message);
    }
}

ROLE_TEST(ws_echo, a_thousand_of_each_size)
{
    static const size_t sizes[] = {0, 16, 64, 256, 1024, 4096};
    struct ws_rig r;

    for (int text = 0; text < 2; text++) {
        ws_rig_open(&r, *role, text);
        ws_rig_meet(&r);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            uint8_t *message = new_message(sizes[i], text);

            for (int n = 0; n < TEST_REPEATS(1000); n++) {
                say_whole(&r, text, message, sizes[i], sizes[i] + 14);
                ws_rig_echo(&r, message, sizes[i]);
            }
            free(message);
        }
        ws_rig_leave(&r);
        ws_rig_close(&r);
    }
}

/* ---- pings ---- */

ROLE_TEST(ws_echo, a_ping_of_every_size_is_answered_with_its_payload)
{
    uint8_t payload[125], bytes[125 + 14];
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    ws_rig_meet(&r);
    for (size_t size = 0; size <= sizeof payload; size++) {
        for (size_t i = 0; i < size; i++)
            payload[i] = (uint8_t)(size * 3 + i * 5 + 0xfe); /* no text */
        size_t n = ws_rig_frame(&r, bytes, FIN | PING, payload, size);

        ws_rig_chop(&r, bytes, n, size % 3 == 0 ? 1 : n);
        ws_rig_pong(&r, payload, size);
    }
    ws_rig_say(&r, FIN | BINARY, "after", 5);
    ws_rig_echo(&r, "after", 5);
    ws_rig_leave(&r);
    ws_rig_close(&r);
}

ROLE_TEST(ws_echo, a_pong_that_nobody_asked_for_is_none_of_our_business)
{
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    ws_rig_meet(&r);
    ws_rig_say(&r, FIN | PONG, "", 0);
    ws_rig_say(&r, FIN | PONG, "unsolicited", 11);
    ws_rig_say(&r, FIN | PING, "asked", 5);
    ws_rig_pong(&r, "asked", 5);
    ws_rig_say(&r, FIN | PONG, "asked", 5);
    ws_rig_say(&r, FIN | BINARY, "after", 5);
    ws_rig_echo(&r, "after", 5);
    ws_rig_leave(&r);
    ws_rig_close(&r);
}

/* Of several pings that nobody waited for, at least the last one is answered (5.5.3), none twice,
 * and in their order. */
ROLE_TEST(ws_echo, ten_pings_in_one_piece)
{
    uint8_t bytes[10 * 20], got[126];
    unsigned first, last;
    struct ws_rig r;

    ws_rig_open(&r, *role, false);
    ws_rig_meet(&r);
    for (size_t step = 1; step <= sizeof bytes; step += sizeof bytes - 1) {
        size_t used = 0;

        for (unsigned char i = 1; i <= 10; i++)
            used += ws_rig_frame(&r, bytes + used, FIN | PING, &i, 1);
        ws_rig_chop(&r, bytes, used, step);
        last = 0;
        do {
            cr_assert_eq(ws_recv_frame(&r.p, &first, got, sizeof got, RAW_LIMIT_MS), 1);
            cr_assert_eq(first, FIN | PONG);
            cr_assert_gt(got[0], last, "%d behind %u", got[0], last);
            last = got[0];
        } while (last < 10);
    }
    ws_rig_say(&r, FIN | BINARY, "after", 5);
    ws_rig_echo(&r, "after", 5);
    ws_rig_leave(&r);
    ws_rig_close(&r);
}

/* ---- fragments ---- */

ROLE_TEST(ws_echo, a_message_cut_anywhere)
{
    static const size_t pieces[] = {1, 2, 3, 7, 124, 125, 126, 127, 299};
    static const size_t steps[] = {1, 11, 100000};
    struct ws_rig r;

    for (int text = 0; text < 2; text++) {
        uint8_t *message = new_message(300, text);

        ws_rig_open(&r, *role, text);
        ws_rig_meet(&r);
        for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
            for (size_t k = 0; k < sizeof steps / sizeof steps[0]; k++) {
                say_fragments(&r, text, message, 300, pieces[i], steps[k]);
                ws_rig_echo(&r, message, 300);
            }
        }
        ws_rig_leave(&r);
        ws_rig_close(&r);
        free(message);
    }
}

/* Words of control come between the parts of a message, and are obeyed at once.  (A stream reads on
 * when its user does.) */
ROLE_TEST(ws_echo, pings_between_fragments)
{
    struct ws_rig r;

    for (int step = 0; step < 2; step++) {
        uint8_t bytes[512];
        size_t used = 0;

        ws_rig_open(&r, *role, true);
        ws_rig_meet(&r);
        ws_rig_say(&r, TEXT, "one ", 4);
        ws_rig_take(&r, "one ", 4);
        ws_rig_say(&r, FIN | PING, "1", 1);
        ws_rig_pong(&r, "1", 1); /* although the message is not whole */
        ws_rig_say(&r, CONT, "", 0);
        ws_rig_say(&r, CONT, "two ", 4);
        ws_rig_take(&r, "two ", 4);
        ws_rig_say(&r, FIN | PING, "2", 1);
        ws_rig_pong(&r, "2", 1);
        ws_rig_say(&r, FIN | PONG, "3", 1);
        ws_rig_say(&r, FIN, "three", 5);
        if (*role == ROLE_STREAM)
            ws_rig_echo(&r, "three", 5);
        else
            ws_rig_echo(&r, "one two three", 13);
        /* The same in one piece, or octet by octet: the pong is in front of what comes back. */
        used += ws_rig_frame(&r, bytes + used, TEXT, "four ", 5);
        used += ws_rig_frame(&r, bytes + used, FIN | PING, "4", 1);
        used += ws_rig_frame(&r, bytes + used, FIN, "five", 4);
        ws_rig_chop(&r, bytes, used, step == 0 ? used : 1);
        ws_rig_take(&r, "four five", 9);
        ws_rig_pong(&r, "4", 1);
        if (*role != ROLE_STREAM)
            ws_rig_echo(&r, "four five", 9);
        ws_rig_leave(&r);
        ws_rig_close(&r);
    }
}

/* ---- what a client owes ---- */

/* Each frame of a dialer's is masked, by a key that is its own. */
Test(ws_echo, a_dialer_masks_every_frame_anew)
{
    enum { COUNT = 50 };
    uint8_t keys[COUNT][4], head[6], body[5];
    struct ws_rig r;

    ws_rig_open(&r, ROLE_DIALS, false);
    ws_rig_meet(&r);
    for (int i = 0; i < COUNT; i++) {
        cr_assert_eq(spoke_send_bytes(r.pair, "hello", 5, 0), 0);
        cr_assert_eq(raw_recv_bytes(&r.p, head, sizeof head, RAW_LIMIT_MS), RAW_OK);
        cr_assert_eq(head[0], FIN | BINARY);
        cr_assert_eq(head[1], 0x80 | 5);
        cr_assert_eq(raw_recv_bytes(&r.p, body, sizeof body, RAW_LIMIT_MS), RAW_OK);
        for (int k = 0; k < 5; k++)
            cr_assert_eq(body[k] ^ head[2 + k % 4], "hello"[k]);
        memcpy(keys[i], head + 2, 4);
        for (int k = 0; k < i; k++)
            cr_assert_neq(memcmp(keys[i], keys[k], 4), 0, "a key comes back");
    }
    ws_rig_leave(&r);
    ws_rig_close(&r);
}
