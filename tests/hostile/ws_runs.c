/* SPDX-License-Identifier: MIT */
/* Many small messages at once: a socket puts their frames together, and takes them apart, by runs.
 * The peer sees, and sends, nothing but frames, one behind the other. */
#include "tests/hostile/ws_rig.h"

#include "tests/support/world.h"

enum { COUNT = 700, BYTES_MOST = COUNT * 130 + 64 * 1024 };

static const enum ws_role sockets[] = {ROLE_LISTENS, ROLE_DIALS};

/* Of the `i`-th message in the `round`-th run, most as long as the shortest head can say: a round
 * has more bytes than are gathered in one place, and each another place where that is full. */
static size_t
size_of(int round, int i)
{
    if (i == 0)
        return (size_t)round * 11;
    return i % 97 == 0 ? (size_t)i % 7 : 100 + (size_t)i % 26;
}

static void
send_all(spoke_socket *s, spoke_msg **messages, int count)
{
    for (int sent = 0, n; sent < count; sent += n) {
        n = spoke_sendv(s, messages + sent, count - sent, 0);
        cr_assert_gt(n, 0, "%d", n);
    }
}

/* The peer gets this message; with a mask of its own if a client sends it, else without. */
static void
expect_frame(struct ws_rig *r, size_t size, int i)
{
    static uint8_t got[300000];
    unsigned first;
    long n = ws_recv_frame(&r->p, &first, got, sizeof got, RAW_LIMIT_MS);

    cr_assert_eq(n, (long)size, "message %d: %ld of %zu", i, n, size);
    cr_assert_eq(first, FIN | BINARY);
    cr_assert(pattern_holds(got, size, (uint32_t)i), "message %d", i);
}

static void
expect_message(struct ws_rig *r, size_t size, int i)
{
    spoke_msg *m;
    int rc = spoke_recv(r->pair, &m, 0);

    cr_assert_eq(rc, 0, "message %d: %s", i, spoke_error_name(rc));
    cr_assert_eq(spoke_msg_size(m), size, "message %d", i);
    cr_assert(pattern_holds(spoke_msg_body(m), size, (uint32_t)i), "message %d", i);
    spoke_msg_free(m);
}

Test(ws_runs, leave_whole_wherever_what_is_gathered_ends)
{
    spoke_msg *messages[COUNT];
    struct ws_rig r;

    for (size_t role = 0; role < 2; role++) {
        ws_rig_open(&r, sockets[role], false);
        ws_rig_meet(&r);
        for (int round = 0; round < 12; round++) {
            for (int i = 0; i < COUNT; i++)
                messages[i] = pattern_message(size_of(round, i), (uint32_t)i);
            send_all(r.pair, messages, COUNT);
            for (int i = 0; i < COUNT; i++)
                expect_frame(&r, size_of(round, i), i);
        }
        ws_rig_leave(&r);
        ws_rig_close(&r);
    }
}

/* Around 125, where the head grows; around what is gathered no more but goes from where it is, or
 * (masked) from a place of its own. */
Test(ws_runs, large_ones_between_small_ones_stay_in_their_place)
{
    static const size_t sizes[] = {5,  124,  125,  126,  127,   0,   4095, 3,     4096,   64,
                                   64, 4097, 1000, 8192, 65535, 125, 1,    65536, 200000, 2};
    enum { SIZES = sizeof sizes / sizeof sizes[0] };
    spoke_msg *messages[2 * SIZES];
    struct ws_rig r;

    for (size_t role = 0; role < 2; role++) {
        ws_rig_open(&r, sockets[role], false);
        ws_rig_meet(&r);
        for (int i = 0; i < 2 * SIZES; i++) /* each of them behind small ones, too */
            messages[i] = pattern_message(i % 2 == 0 ? sizes[i / 2] : 64, (uint32_t)i);
        send_all(r.pair, messages, 2 * SIZES);
        for (int i = 0; i < 2 * SIZES; i++)
            expect_frame(&r, i % 2 == 0 ? sizes[i / 2] : 64, i);
        ws_rig_leave(&r);
        ws_rig_close(&r);
    }
}

/* The peer reads nothing until no more is taken, asks, and then finds the answer between two
 * messages. */
Test(ws_runs, a_pong_goes_between_those_that_are_gathered)
{
    enum { SIZE = 100 };
    static uint8_t got[256];
    struct ws_rig r;

    for (size_t role = 0; role < 2; role++) {
        int sent = 0, seen = 0, pongs = 0, rc;
        unsigned first;
        long n;

        ws_rig_open(&r, sockets[role], false);
        ws_rig_meet(&r);
        do {
            spoke_msg *m = pattern_message(SIZE, (uint32_t)sent);

            if ((rc = spoke_send(r.pair, m, SPOKE_DONTWAIT)) != 0)
                spoke_msg_free(m);
            else
                sent++;
        } while (rc == 0);
        cr_assert_eq(rc, SPOKE_EAGAIN, "%s", spoke_error_name(rc));
        ws_rig_say(&r, FIN | PING, "now", 3);
        while (seen < sent || pongs == 0) {
            n = ws_recv_frame(&r.p, &first, got, sizeof got, RAW_LIMIT_MS);
            if (first == (FIN | PONG)) {
                cr_assert_eq(n, 3);
                cr_assert_arr_eq(got, "now", 3);
                pongs++;
                continue;
            }
            cr_assert_eq(n, SIZE, "message %d: %ld", seen, n);
            cr_assert_eq(first, FIN | BINARY);
            cr_assert(pattern_holds(got, SIZE, (uint32_t)seen++));
        }
        cr_assert_eq(seen, sent);
        cr_assert_eq(pongs, 1);
        ws_rig_leave(&r);
        ws_rig_close(&r);
    }
}

/* What the peer sends in pieces of any size, so that a run ends within a head, a key or a body. */
Test(ws_runs, arrive_whole_wherever_a_piece_ends)
{
    static const size_t steps[] = {131, 1009, 4093, 65536, BYTES_MOST};
    static uint8_t bytes[BYTES_MOST];
    uint8_t body[256];
    struct ws_rig r;

    for (size_t role = 0; role < 2; role++) {
        ws_rig_open(&r, sockets[role], false);
        ws_rig_meet(&r);
        for (int round = 0; round < 5; round++) {
            size_t size = 0;

            for (int i = 0; i < COUNT; i++) {
                pattern_fill(body, size_of(round, i), (uint32_t)i);
                size += ws_rig_frame(&r, bytes + size, FIN | BINARY, body, size_of(round, i));
                if (i % 100 == 50)
                    size += ws_rig_frame(&r, bytes + size, FIN | PONG, "unasked", 7);
            }
            ws_rig_chop(&r, bytes, size, steps[round]);
            for (int i = 0; i < COUNT; i++)
                expect_message(&r, size_of(round, i), i);
        }
        ws_rig_leave(&r);
        ws_rig_close(&r);
    }
}
