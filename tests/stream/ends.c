/* SPDX-License-Identifier: MIT */
/* How a stream ends: a half of it, both, in order, by force, with something unread or unsent. */
#include "tests/stream/fixture.h"

#include <stdlib.h>
#include <string.h>

PLACE_TEST(stream_ends, a_half_is_closed_and_the_other_is_not, places)
{
    struct ends d;

    ends_open(&d, p, NULL);
    write_text(d.end[0], "last words");
    expect_rc(spoke_stream_close_write(d.end[0]), 0);
    expect_text(d.end[1], "last words");
    expect_rc(read_one(d.end[1]), SPOKE_EOF);
    expect_rc(read_one(d.end[1]), SPOKE_EOF);
    for (uint64_t i = 0; i < 5; i++) {
        write_bytes(d.end[1], i, 3000);
        read_bytes(d.end[0], i, 3000);
    }
    expect_rc(spoke_stream_close_write(d.end[1]), 0);
    expect_rc(read_one(d.end[0]), SPOKE_EOF);
    ends_close(&d);
}

PLACE_TEST(stream_ends, what_was_written_before_the_close_arrives, places)
{
    struct ends d;
    size_t done;
    uint8_t bytes[100];

    for (int side = 0; side < 2; side++) {
        ends_open(&d, p, NULL);
        write_bytes(d.end[side], 0, 30000);
        expect_rc(spoke_stream_close(d.end[side]), 0);
        read_bytes(d.end[!side], 0, 30000);
        expect_rc(spoke_stream_read_full(d.end[!side], bytes, sizeof bytes, &done), SPOKE_EOF);
        cr_assert_eq(done, 0);
        ends_close(&d);
    }
}

/* A read that wants more than comes gets what came. */
PLACE_TEST(stream_ends, a_full_read_ends_early, places)
{
    struct ends d;
    uint8_t bytes[100];
    size_t done = 99, all = 0;

    ends_open(&d, p, NULL);
    write_bytes(d.end[0], 0, 60);
    for (spoke_ns end = stage_in(&d.st, PATIENCE); all < 60 && stage_now(&d.st) < end;) {
        expect_rc(spoke_stream_set_read_deadline(d.end[1], stage_in(&d.st, 20 * SPOKE_MS)), 0);
        expect_rc(spoke_stream_read_full(d.end[1], bytes, 80 - all, &done), SPOKE_ETIMEDOUT);
        cr_assert(bytes_hold(bytes, done, all));
        all += done; /* some, where not all had come in time */
    }
    cr_assert_eq(all, 60, "%zu", all);
    expect_rc(spoke_stream_set_read_deadline(d.end[1], SPOKE_FOREVER), 0);
    write_bytes(d.end[0], 0, 70);
    expect_rc(spoke_stream_close_write(d.end[0]), 0);
    expect_rc(spoke_stream_read_full(d.end[1], bytes, 80, &done), SPOKE_EOF);
    cr_assert_eq(done, 70);
    ends_close(&d);
}

/* Who leaves bytes unread does not lose those that it has written. */
PLACE_TEST(stream_ends, a_close_with_something_unread_loses_nothing, places)
{
    struct ends d;
    uint8_t byte;
    size_t done;

    if (p->over == OVER_PAIR || p->over == OVER_FD)
        return; /* whose windows are too small for this, and the same code as others */
    ends_open(&d, p,
              &(spoke_stream_config){.window = 4 << 20, .linger_ns = PATIENCE, .ipc_mode = -1});
    write_bytes(d.end[0], 7, 20000);
    stage_pass(&d.st, 5 * SPOKE_MS);
    write_bytes(d.end[1], 0, 50000);
    expect_rc(spoke_stream_close(d.end[1]), 0);
    stage_pass(&d.st, 5 * SPOKE_MS);
    read_bytes(d.end[0], 0, 50000);
    expect_rc(spoke_stream_read(d.end[0], &byte, 1, &done), SPOKE_EOF);
    ends_close(&d);
}

static bool
peer_is_closed(void *ctx)
{
    return write_one(ctx) == SPOKE_EPEERCLOSED;
}

PLACE_TEST(stream_ends, the_peer_learns_that_nobody_reads, places)
{
    struct ends d;

    for (int whole = 0; whole < 2; whole++) {
        if (is_over_tcp(p) && !whole)
            continue; /* only after the close */
        ends_open(&d, p, NULL);
        write_text(d.end[0], "thrown away");
        stage_pass(&d.st, 3 * SPOKE_MS);
        expect_rc(whole ? spoke_stream_close(d.end[1]) : spoke_stream_close_read(d.end[1]), 0);
        cr_assert(stage_until(&d.st, peer_is_closed, d.end[0]));
        if (!whole) { /* the other way is as it was */
            write_text(d.end[1], "still");
            expect_text(d.end[0], "still");
            expect_rc(read_one(d.end[1]), SPOKE_ERDCLOSED);
        }
        ends_close(&d);
    }
}

static void
close_read_of(void *ctx)
{
    (void)spoke_stream_close_read(ctx);
}

static void
close_write_of(void *ctx)
{
    (void)spoke_stream_close_write(ctx);
}

/* Our own, and the peer's, while a call waits. */
PLACE_TEST(stream_ends, a_half_that_is_closed_ends_who_waits_at_it, places)
{
    struct later *later;
    struct ends d;
    void *bytes = calloc(1, 64 << 20);
    size_t done;

    cr_assert_not_null(bytes);
    ends_open(&d, p, &(spoke_stream_config){.linger_ns = SPOKE_MS, .ipc_mode = -1});
    later = stage_after(&d.st, 10 * SPOKE_MS, close_write_of, d.end[0]);
    expect_rc(read_one(d.end[1]), SPOKE_EOF);
    stage_joined(later);
    later = stage_after(&d.st, 10 * SPOKE_MS, close_read_of, d.end[0]);
    expect_rc(read_one(d.end[0]), SPOKE_ERDCLOSED);
    stage_joined(later);
    ends_close(&d);
    if (is_over_tcp(p))
        goto end;
    ends_open(&d, p, &(spoke_stream_config){.linger_ns = SPOKE_MS, .ipc_mode = -1});
    later = stage_after(&d.st, 10 * SPOKE_MS, close_read_of, d.end[1]);
    expect_rc(spoke_stream_write(d.end[0], bytes, 64 << 20, &done), SPOKE_EPEERCLOSED);
    stage_joined(later);
    (void)spoke_stream_close(d.end[0]);
    ends_close(&d);
end:
    free(bytes);
}

/* Bytes that have arrived can be read whatever became of the peer. */
PLACE_TEST(stream_ends, what_arrived_before_the_end_can_be_read, places)
{
    struct ends d;
    spoke_msg *m;

    ends_open(&d, p, NULL);
    for (int i = 0; i < 3; i++)
        write_text(d.end[0], "piece.");
    stage_pass(&d.st, 3 * SPOKE_MS);
    expect_text(d.end[1], "pie");
    expect_rc(spoke_stream_close(d.end[0]), 0);
    stage_pass(&d.st, 3 * SPOKE_MS);
    expect_text(d.end[1], "ce.piece.");
    expect_rc(spoke_stream_read_chunk(d.end[1], &m), 0);
    cr_assert_eq(spoke_msg_size(m), 6);
    expect_rc(spoke_stream_unread(d.end[1], m), 0);
    expect_text(d.end[1], "piece.");
    expect_rc(read_one(d.end[1]), SPOKE_EOF);
    ends_close(&d);
}

/* ---- abort ---- */

static bool
has_ended(void *ctx)
{
    return read_now(ctx) != SPOKE_EAGAIN;
}

PLACE_TEST(stream_ends, abort, places)
{
    struct spoke_stream_info info;
    struct ends d;
    bool by_frames = p->over == OVER_INPROC || p->over == OVER_SHM || p->over == OVER_PAIR;
    int wanted = by_frames ? SPOKE_EABORTED : is_over_tcp(p) ? SPOKE_ECONNRESET : SPOKE_EOF;

    ends_open(&d, p, NULL);
    expect_rc(spoke_stream_abort(d.end[0], 0x123456789abcdef0u), 0);
    expect_rc(spoke_stream_abort(d.end[0], 3), 0);
    expect_rc(read_one(d.end[0]), SPOKE_EABORTED);
    expect_rc(write_one(d.end[0]), SPOKE_EABORTED);
    cr_assert(stage_until(&d.st, has_ended, d.end[1]));
    for (int i = 0; i < 2; i++)
        expect_rc(read_one(d.end[1]), wanted);
    if (by_frames) {
        expect_rc(write_one(d.end[1]), SPOKE_EABORTED);
        expect_rc(spoke_stream_get_info(d.end[1], &info), 0);
        cr_assert_eq(info.abort_code, 0x123456789abcdef0u);
        cr_assert_eq(info.read_end, SPOKE_EABORTED);
        cr_assert_eq(info.write_end, SPOKE_EABORTED);
    } else {
        int rc = write_one(d.end[1]);
        cr_assert(rc == SPOKE_EPEERCLOSED || rc == SPOKE_ECONNRESET, "%s", name_of(rc));
    }
    ends_close(&d);
}

PLACE_TEST(stream_ends, an_abort_leaves_what_had_arrived, places)
{
    struct ends d;

    if (is_over_tcp(p) || p->over == OVER_IPC || p->over == OVER_FD)
        return; /* the kernel's matter */
    ends_open(&d, p, NULL);
    write_text(d.end[0], "had arrived");
    stage_pass(&d.st, 5 * SPOKE_MS);
    expect_text(d.end[1], "had ");
    expect_rc(spoke_stream_abort(d.end[0], 1), 0);
    stage_pass(&d.st, 5 * SPOKE_MS);
    expect_text(d.end[1], "arrived");
    expect_rc(read_one(d.end[1]), SPOKE_EABORTED);
    ends_close(&d);
}

static void
abort_it(void *ctx)
{
    (void)spoke_stream_abort(ctx, 5);
}

PLACE_TEST(stream_ends, an_abort_ends_who_waits, places)
{
    struct later *later;
    struct ends d;
    void *bytes = calloc(1, 64 << 20);
    size_t done;
    int rc;

    cr_assert_not_null(bytes);
    for (int writes = 0; writes < 2; writes++) {
        for (int side = 0; side < 2; side++) {
            ends_open(&d, p, &(spoke_stream_config){.linger_ns = SPOKE_MS, .ipc_mode = -1});
            later = stage_after(&d.st, 10 * SPOKE_MS, abort_it, d.end[side]);
            rc = writes ? spoke_stream_write(d.end[0], bytes, 64 << 20, &done) : read_one(d.end[0]);
            cr_assert(side == 0 ? rc == SPOKE_EABORTED
                                : rc == SPOKE_EABORTED || rc == SPOKE_ECONNRESET ||
                                      rc == SPOKE_EOF || rc == SPOKE_EPEERCLOSED ||
                                      (rc == 0 && p->way == SIM), /* where the wind takes it */
                      "%s", name_of(rc));
            stage_joined(later);
            (void)spoke_stream_close(d.end[0]);
            ends_close(&d);
        }
    }
    free(bytes);
}

/* ---- linger ---- */

/* Nobody reads: what the peer has no room for is lost, in time, and told where it is known. */
PLACE_TEST(stream_ends, a_peer_that_does_not_read_cannot_hold_a_close, places)
{
    struct ends d;
    spoke_ns begin;
    uint64_t sent;
    int rc;

    ends_open(&d, p, &(spoke_stream_config){.linger_ns = 50 * SPOKE_MS, .ipc_mode = -1});
    sent = fill_up(&d.st, d.end[0]);
    cr_assert_gt(sent, 0);
    begin = stage_now(&d.st);
    rc = spoke_stream_close(d.end[0]);
    cr_assert(rc == 0 || rc == SPOKE_ETIMEDOUT, "%s", name_of(rc));
    cr_assert_lt(stage_now(&d.st) - begin, PATIENCE / 2);
    if (rc == 0) { /* then all of it arrives */
        read_bytes(d.end[1], 0, sent);
        expect_rc(read_one(d.end[1]), SPOKE_EOF);
    }
    ends_close(&d);
}
