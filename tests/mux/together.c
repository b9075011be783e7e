/* SPDX-License-Identifier: MIT */
/* Two muxes with each other: what users do with them. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/mux/fixture.h"
#include "tests/support/process.h"
#include "tests/support/world.h"

#define BOTH_WIRES(Native) for (int Native = 0; (Native) < 2; (Native)++)

/* Two muxes in the simulated world: everything that is said is heard when the world turns. */
struct two {
    spoke_sim *w;
    spoke_engine *e;
    spoke_mux *odd, *even;
};

static void
two_open(struct two *t, bool native, const spoke_mux_config *config)
{
    spoke_mux_config own;
    spoke_stream *ends[2];

    if (config != NULL)
        own = *config;
    else
        spoke_mux_config_init(&own);
    own.wire = native ? SPOKE_MUX_NATIVE : SPOKE_MUX_COMPATIBLE;
    cr_assert_eq(spoke_sim_open(&t->w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(t->w, &t->e), 0);
    cr_assert_eq(spoke_stream_pair(&ends[0], &ends[1], NULL, t->e), 0);
    own.even = false;
    cr_assert_eq(spoke_mux_open(&t->odd, ends[0], &own), 0);
    own.even = true;
    cr_assert_eq(spoke_mux_open(&t->even, ends[1], &own), 0);
}

static void
two_close(struct two *t)
{
    cr_assert_eq(spoke_mux_close(t->odd, 0), 0);
    cr_assert_eq(spoke_mux_close(t->even, 0), 0);
    cr_assert_eq(spoke_sim_close(t->w, NULL), 0);
}

static void
turn(struct two *t)
{
    (void)spoke_sim_run(t->w, NULL, NULL, SPOKE_MS);
}

/* One stream, both its ends; neither waits. */
static void
two_streams(struct two *t, spoke_stream **dialed, spoke_stream **accepted)
{
    cr_assert_eq(spoke_mux_dial(t->odd, dialed, NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_accept(t->even, accepted, NULL, SPOKE_FOREVER), 0);
    turn(t);
    cr_assert_eq(spoke_stream_set_deadline(*dialed, SPOKE_NOW), 0);
    cr_assert_eq(spoke_stream_set_deadline(*accepted, SPOKE_NOW), 0);
}

static void
expect_text(spoke_stream *s, const char *text)
{
    char bytes[256];
    size_t done;

    cr_assert_eq(spoke_stream_read(s, bytes, sizeof bytes, &done), 0);
    cr_assert_eq(done, strlen(text));
    cr_assert_eq(memcmp(bytes, text, done), 0);
}

static void
write_text(spoke_stream *s, const char *text)
{
    size_t done;

    cr_assert_eq(spoke_stream_write(s, text, strlen(text), &done), 0);
    cr_assert_eq(done, strlen(text));
}

static void
close_both(spoke_stream *a, spoke_stream *b)
{
    cr_assert_eq(spoke_stream_close(a), 0);
    cr_assert_eq(spoke_stream_close(b), 0);
}

/* ---- opening ---- */

Test(mux, either_end_opens_streams)
{
    BOTH_WIRES(native)
    {
        spoke_stream *a, *b, *c, *d;
        struct two t;

        two_open(&t, native, NULL);
        two_streams(&t, &a, &b);
        write_text(a, "from the odd end");
        turn(&t);
        expect_text(b, "from the odd end");
        cr_assert_eq(spoke_mux_dial(t.even, &c, NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_accept(t.odd, &d, NULL, SPOKE_FOREVER), 0);
        write_text(d, "to the even end");
        turn(&t);
        expect_text(c, "to the even end");
        close_both(a, b);
        close_both(c, d);
        two_close(&t);
    }
}

Test(mux, metadata_comes_with_the_stream)
{
    static uint8_t large[SPOKE_MUX_META_MAX + 1];
    spoke_stream *a, *b;
    spoke_msg *meta;
    struct two t;

    memset(large, 'm', sizeof large);
    two_open(&t, true, NULL);
    for (size_t size = 0; size <= SPOKE_MUX_META_MAX; size += 512) {
        cr_assert_eq(spoke_mux_dial(t.odd, &a, large, size, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_accept(t.even, &b, &meta, SPOKE_FOREVER), 0);
        if (size == 0) {
            cr_assert_null(meta);
        } else {
            cr_assert_eq(spoke_msg_size(meta), size);
            cr_assert_eq(memcmp(spoke_msg_body(meta), large, size), 0);
            spoke_msg_free(meta);
        }
        close_both(a, b);
    }
    cr_assert_eq(spoke_mux_dial(t.odd, &a, large, sizeof large, NULL, SPOKE_NOW), SPOKE_EMSGSIZE);
    two_close(&t);
    two_open(&t, false, NULL);
    cr_assert_eq(spoke_mux_dial(t.odd, &a, "x", 1, NULL, SPOKE_NOW), SPOKE_ENOTSUP);
    two_close(&t);
}

static uint64_t
refuse(spoke_mux *m, const void *meta, size_t size, void *ctx)
{
    (void)m, (void)meta, (void)size;
    return *(uint64_t *)ctx;
}

Test(mux, a_dial_tells_why_it_was_refused)
{
    struct spoke_mux_info info;
    uint64_t reason = SPOKE_MUX_NOT_PERMITTED, code;
    spoke_stream *a;
    struct two t;

    two_open(&t, true, NULL);
    cr_assert_eq(spoke_mux_on_open(t.even, refuse, &reason), 0);
    cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, &code, SPOKE_FOREVER), SPOKE_EREJECTED);
    cr_assert_eq(code, SPOKE_MUX_NOT_PERMITTED);
    cr_assert_null(a);
    reason = SPOKE_MUX_NONE;
    cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, &code, spoke_engine_now(t.e) + SPOKE_SECOND),
                 SPOKE_ETIMEDOUT);
    cr_assert_null(a);
    turn(&t);
    cr_assert_eq(spoke_mux_get_info(t.even, &info), 0);
    cr_assert_eq(info.waiting, 0, "who has given up does not wait");
    cr_assert_eq(info.refused, 1);
    two_close(&t);
}

Test(mux, a_stream_that_was_refused_says_so)
{
    struct spoke_stream_info info;
    uint64_t reason = 1234;
    spoke_stream *a;
    struct two t;

    two_open(&t, true, NULL);
    cr_assert_eq(spoke_mux_on_open(t.even, refuse, &reason), 0);
    cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
    turn(&t);
    cr_assert_eq(read_end(a), SPOKE_EREJECTED);
    cr_assert_eq(write_end(a), SPOKE_EREJECTED);
    cr_assert_eq(spoke_stream_get_info(a, &info), 0);
    cr_assert_eq(info.abort_code, 1234);
    cr_assert_eq(spoke_stream_close(a), 0);
    two_close(&t);
}

/* The peer that opens is told later, when it is known whether what it wants can be had. */
Test(mux, a_stream_that_was_taken_is_answered_later)
{
    BOTH_WIRES(native)
    {
        struct spoke_mux_info info;
        struct spoke_stream_info known;
        spoke_stream *a, *b;
        struct two t;

        two_open(&t, native, NULL);
        cr_assert_eq(
            spoke_mux_dial(t.odd, &a, native ? "x" : NULL, native ? 1 : 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_take(t.even, &b, NULL, SPOKE_FOREVER), 0);
        turn(&t);
        cr_assert_eq(write_end(a), SPOKE_EAGAIN, "it knows nothing yet");
        cr_assert_eq(write_end(b), SPOKE_EAGAIN);
        cr_assert_eq(read_end(b), SPOKE_EAGAIN);
        cr_assert_eq(spoke_mux_get_info(t.even, &info), 0);
        cr_assert_eq(info.waiting, 0);
        cr_assert_eq(info.streams, 1);
        cr_assert_eq(info.accepted, 0);
        cr_assert_eq(spoke_mux_confirm(a), SPOKE_ESTATE);
        cr_assert_eq(spoke_mux_confirm(b), 0);
        cr_assert_eq(spoke_mux_confirm(b), SPOKE_ESTATE);
        turn(&t);
        cr_assert_eq(spoke_stream_set_deadline(a, SPOKE_NOW), 0);
        cr_assert_eq(spoke_stream_set_deadline(b, SPOKE_NOW), 0);
        write_text(a, "there"), write_text(b, "back");
        turn(&t);
        expect_text(a, "back"), expect_text(b, "there");
        close_both(a, b);
        cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_take(t.even, &b, NULL, SPOKE_FOREVER), 0);
        cr_assert_eq(spoke_stream_abort(b, SPOKE_MUX_CONNECT_FAILED), 0);
        turn(&t);
        cr_assert_eq(write_end(a), SPOKE_EREJECTED);
        cr_assert_eq(spoke_stream_get_info(a, &known), 0);
        cr_assert_eq(known.abort_code, native ? SPOKE_MUX_CONNECT_FAILED : SPOKE_MUX_NONE);
        cr_assert_eq(spoke_mux_confirm(b), SPOKE_EABORTED);
        close_both(a, b);
        cr_assert_eq(spoke_mux_get_info(t.even, &info), 0);
        cr_assert_eq(info.accepted, 1);
        cr_assert_eq(info.refused, 1);
        cr_assert_eq(info.streams, 0);
        two_close(&t);
    }
}

Test(mux, a_stream_that_was_taken_and_closed_was_refused)
{
    struct spoke_stream_info known;
    spoke_stream *a, *b;
    struct two t;

    two_open(&t, true, NULL);
    cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_take(t.even, &b, NULL, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_close(b), 0);
    cr_assert_eq(spoke_mux_confirm(b), SPOKE_ECLOSED);
    turn(&t);
    cr_assert_eq(write_end(a), SPOKE_EREJECTED);
    cr_assert_eq(spoke_stream_get_info(a, &known), 0);
    cr_assert_eq(known.abort_code, SPOKE_MUX_REFUSED);
    cr_assert_eq(spoke_stream_close(a), 0);
    two_close(&t);
}

/* Whoever has taken it learns that nobody wants it any more. */
Test(mux, a_stream_that_was_taken_may_be_given_up_by_its_opener)
{
    BOTH_WIRES(native)
    {
        spoke_stream *a, *b;
        struct two t;

        two_open(&t, native, NULL);
        cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_take(t.even, &b, NULL, SPOKE_FOREVER), 0);
        cr_assert_eq(spoke_stream_close(a), 0);
        turn(&t);
        cr_assert_eq(read_end(b), SPOKE_EABORTED);
        cr_assert_eq(write_end(b), SPOKE_EABORTED);
        cr_assert_eq(spoke_mux_confirm(b), SPOKE_EABORTED);
        cr_assert_eq(spoke_stream_close(b), 0);
        cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_take(t.even, &b, NULL, SPOKE_FOREVER), 0);
        cr_assert_eq(spoke_mux_close(t.odd, 0), 0);
        turn(&t);
        cr_assert_neq(spoke_mux_confirm(b), 0, "the mux is gone");
        cr_assert_neq(spoke_mux_confirm(b), SPOKE_ENOTSUP);
        close_both(a, b);
        two_close(&t);
    }
}

/* A half may be closed before the answer, and a goodbye lets who was taken have one. */
Test(mux, a_stream_that_was_taken_is_served_after_a_goodbye)
{
    spoke_stream *a, *b;
    struct two t;

    two_open(&t, true, NULL);
    cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_take(t.even, &b, NULL, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_close_write(a), 0);
    cr_assert_eq(spoke_mux_go_away(t.even, SPOKE_MUX_NONE, NULL), 0);
    turn(&t);
    cr_assert_eq(spoke_mux_confirm(b), 0);
    turn(&t);
    cr_assert_eq(spoke_stream_set_deadline(a, SPOKE_NOW), 0);
    cr_assert_eq(spoke_stream_set_deadline(b, SPOKE_NOW), 0);
    cr_assert_eq(read_end(b), SPOKE_EOF);
    write_text(b, "the last");
    turn(&t);
    expect_text(a, "the last");
    close_both(a, b);
    turn(&t);
    cr_assert_eq(spoke_mux_wait(t.even, SPOKE_NOW), 0, "all is over");
    two_close(&t);
}

/* Everything but the write is possible before the outcome, and the window of the other end is
 * obeyed. */
Test(mux, a_stream_that_is_not_accepted_yet_waits)
{
    BOTH_WIRES(native)
    {
        spoke_stream *a, *b;
        struct two t;
        size_t done;

        two_open(&t, native, NULL);
        cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(write_end(a), SPOKE_EAGAIN);
        cr_assert_eq(read_end(a), SPOKE_EAGAIN);
        cr_assert_eq(spoke_stream_set_write_deadline(a, spoke_engine_now(t.e) + SPOKE_MS), 0);
        cr_assert_eq(spoke_stream_write(a, "x", 1, &done), SPOKE_ETIMEDOUT);
        cr_assert_eq(spoke_mux_accept(t.even, &b, NULL, SPOKE_NOW), 0);
        turn(&t);
        cr_assert_eq(spoke_stream_set_deadline(a, SPOKE_NOW), 0);
        cr_assert_eq(spoke_stream_set_deadline(b, SPOKE_NOW), 0);
        write_text(a, "now");
        turn(&t);
        expect_text(b, "now");
        close_both(a, b);
        cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_stream_close_write(a), 0);
        cr_assert_eq(spoke_mux_accept(t.even, &b, NULL, SPOKE_FOREVER), 0);
        turn(&t);
        cr_assert_eq(read_end(b), SPOKE_EOF, "it was closed before it was accepted");
        close_both(a, b);
        cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_stream_abort(a, 7), 0);
        cr_assert_eq(read_end(a), SPOKE_EABORTED);
        turn(&t);
        cr_assert_eq(spoke_mux_accept(t.even, &b, NULL, SPOKE_NOW), SPOKE_EAGAIN);
        cr_assert_eq(spoke_stream_close(a), 0);
        cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_stream_close(a), 0, "before it was accepted");
        turn(&t);
        cr_assert_eq(spoke_mux_accept(t.even, &b, NULL, SPOKE_NOW), SPOKE_EAGAIN);
        two_close(&t);
    }
}

Test(mux, no_more_streams_than_the_peer_allows)
{
    spoke_mux_config config;
    spoke_stream *streams[3], *none;
    uint64_t code;
    struct two t;

    spoke_mux_config_init(&config);
    config.max_streams = 3;
    two_open(&t, true, &config);
    turn(&t);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(spoke_mux_dial(t.odd, &streams[i], NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_dial(t.odd, &none, NULL, 0, &code, SPOKE_NOW), SPOKE_ELIMIT);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(spoke_stream_close(streams[i]), 0);
    cr_assert_eq(spoke_mux_dial(t.odd, &none, NULL, 0, &code, SPOKE_NOW), 0);
    cr_assert_eq(spoke_stream_close(none), 0);
    two_close(&t);
}

/* ---- halves ---- */

Test(mux, a_half_that_is_closed_ends_after_what_was_written)
{
    BOTH_WIRES(native)
    {
        spoke_stream *a, *b;
        struct two t;

        two_open(&t, native, NULL);
        two_streams(&t, &a, &b);
        write_text(a, "last");
        cr_assert_eq(spoke_stream_close_write(a), 0);
        cr_assert_eq(spoke_stream_close_write(a), 0);
        cr_assert_eq(write_end(a), SPOKE_EWRCLOSED);
        turn(&t);
        expect_text(b, "last");
        cr_assert_eq(read_end(b), SPOKE_EOF);
        write_text(b, "the other half goes on");
        turn(&t);
        expect_text(a, "the other half goes on");
        close_both(a, b);
        two_close(&t);
    }
}

Test(mux, who_reads_no_more_lets_the_writer_know)
{
    spoke_stream *a, *b;
    struct two t;
    size_t done;

    two_open(&t, true, NULL);
    two_streams(&t, &a, &b);
    cr_assert_eq(spoke_stream_close_read(b), 0);
    turn(&t);
    cr_assert_eq(write_end(a), SPOKE_EPEERCLOSED);
    write_text(b, "still");
    turn(&t);
    expect_text(a, "still");
    close_both(a, b);
    two_close(&t);

    /* The compatible wire has no word for it: what comes is thrown away, as over tcp. */
    two_open(&t, false, NULL);
    two_streams(&t, &a, &b);
    cr_assert_eq(spoke_stream_close_read(b), 0);
    for (int i = 0; i < 10; i++) {
        static uint8_t bytes[65535];

        cr_assert_eq(spoke_stream_write(a, bytes, sizeof bytes, &done), 0);
        cr_assert_gt(done, 0);
        turn(&t);
    }
    close_both(a, b);
    two_close(&t);
}

Test(mux, a_close_ends_the_peers_halves)
{
    BOTH_WIRES(native)
    {
        spoke_stream *a, *b;
        struct two t;

        two_open(&t, native, NULL);
        two_streams(&t, &a, &b);
        write_text(a, "last");
        cr_assert_eq(spoke_stream_close(a), 0);
        turn(&t);
        expect_text(b, "last");
        cr_assert_eq(read_end(b), SPOKE_EOF);
        cr_assert_eq(write_end(b), SPOKE_EPEERCLOSED);
        cr_assert_eq(spoke_stream_close(b), 0);
        two_close(&t);
    }
}

/* ---- flow ---- */

/* A writer gets as far as the window, and on when it was read. */
Test(mux, a_window_that_is_full_holds_up_its_writer_only)
{
    BOTH_WIRES(native)
    {
        static uint8_t bytes[1 << 20];
        spoke_mux_config config;
        spoke_stream *a, *b, *c, *d;
        size_t done, total = 0;
        struct two t;

        spoke_mux_config_init(&config);
        config.window = 5000;
        two_open(&t, native, &config);
        two_streams(&t, &a, &b);
        two_streams(&t, &c, &d);
        cr_assert_eq(spoke_stream_write(a, bytes, sizeof bytes, &done), 0);
        cr_assert_eq(done, 5000);
        turn(&t);
        cr_assert_eq(write_end(a), SPOKE_EAGAIN);
        write_text(c, "not held up");
        turn(&t);
        expect_text(d, "not held up");
        for (int i = 0; i < 100; i++) {
            cr_assert_eq(spoke_stream_read(b, bytes, 3000, &done), 0);
            total += done;
            turn(&t);
            (void)spoke_stream_write(a, bytes, sizeof bytes, &done);
            turn(&t);
        }
        cr_assert_gt(total, 100000);
        close_both(a, b);
        close_both(c, d);
        two_close(&t);
    }
}

Test(mux, a_window_of_nothing_lets_nothing_through)
{
    BOTH_WIRES(native)
    {
        spoke_mux_config config;
        spoke_stream *a, *b;
        struct two t;
        size_t done;

        spoke_mux_config_init(&config);
        config.window = SPOKE_MUX_NO_INPUT;
        two_open(&t, native, &config);
        two_streams(&t, &a, &b);
        cr_assert_eq(write_end(a), SPOKE_EAGAIN);
        cr_assert_eq(spoke_stream_set_write_deadline(a, spoke_engine_now(t.e) + SPOKE_SECOND), 0);
        cr_assert_eq(spoke_stream_write(a, "x", 1, &done), SPOKE_ETIMEDOUT);
        cr_assert_eq(done, 0);
        cr_assert_eq(spoke_stream_close(a), 0, "works at once");
        turn(&t);
        cr_assert_eq(read_end(b), SPOKE_EOF);
        cr_assert_eq(spoke_stream_close(b), 0);
        two_close(&t);
    }
}

Test(mux, messages_go_and_come_without_a_copy)
{
    spoke_stream *a, *b;
    spoke_msg *m, *got;
    struct two t;
    size_t done, total = 0;

    two_open(&t, true, NULL);
    two_streams(&t, &a, &b);
    m = pattern_message(50000, 7);
    cr_assert_eq(spoke_stream_write_chunk(a, m, &done), 0);
    cr_assert_eq(done, 50000);
    turn(&t);
    uint8_t all[50000];
    while (spoke_stream_read_chunk(b, &got) == 0) {
        memcpy(all + total, spoke_msg_body(got), spoke_msg_size(got));
        total += spoke_msg_size(got);
        spoke_msg_free(got);
    }
    cr_assert_eq(total, 50000);
    cr_assert(pattern_holds(all, total, 7));
    close_both(a, b);
    two_close(&t);
}

/* Goal: what is written next is not put behind the user's own memory.  Method: a carrier that is
 * full, so that both wait. */
Test(mux, the_users_own_memory_is_only_read)
{
    static uint8_t memory[2000], bytes[100000], heard[200000];
    spoke_stream_config narrow;
    spoke_mux_config config;
    spoke_stream *carrier, *s;
    struct bench x = {.native = false};
    spoke_msg *m;
    size_t done;

    memset(memory, 'm', sizeof memory);
    spoke_stream_config_init(&narrow);
    narrow.window = 1000;
    spoke_mux_config_init(&config);
    config.wire = SPOKE_MUX_COMPATIBLE;
    config.even = true;
    spoke_memory_stats(&x.before);
    cr_assert_eq(spoke_sim_open(&x.w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(x.w, &x.e), 0);
    cr_assert_eq(spoke_stream_pair(&carrier, &x.raw, &narrow, x.e), 0);
    cr_assert_eq(spoke_stream_set_deadline(x.raw, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_open(&x.m, carrier, &config), 0);
    s = bench_accept(&x, "01 01 ffffff7f");
    cr_assert_eq(spoke_stream_write(s, bytes, sizeof bytes, &done), 0);
    cr_assert_eq(done, sizeof bytes);
    cr_assert_eq(spoke_msg_wrap(&m, memory, sizeof memory, NULL, NULL), 0);
    cr_assert_eq(spoke_msg_trim_back(m, 500), 0);
    cr_assert_eq(spoke_stream_write_chunk(s, m, &done), 0);
    cr_assert_eq(done, 1500);
    write_text(s, "behind it");
    for (size_t i = 0; i < sizeof memory; i++)
        cr_assert_eq(memory[i], 'm');
    done = bench_hear(&x, heard, sizeof heard);
    cr_assert_gt(done, 101509);
    cr_assert_eq(memcmp(heard + done - 9 - 1, "mbehind it", 10), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_close(&x);
}

/* Bytes that were read too far are the mux's first. */
Test(mux, what_was_given_back_to_the_carrier_is_read_first)
{
    spoke_stream *ends[2], *a, *b;
    spoke_mux_config config;
    uint8_t bytes[64];
    size_t done, rest;
    spoke_msg *m;
    struct two t;

    spoke_mux_config_init(&config);
    cr_assert_eq(spoke_sim_open(&t.w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(t.w, &t.e), 0);
    cr_assert_eq(spoke_stream_pair(&ends[0], &ends[1], NULL, t.e), 0);
    write_text(ends[0], "hello");
    cr_assert_eq(spoke_mux_open(&t.odd, ends[0], &config), 0);
    cr_assert_eq(spoke_mux_dial(t.odd, &a, "meta", 4, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_stream_set_deadline(ends[1], SPOKE_NOW), 0);
    for (done = 0; spoke_stream_read(ends[1], bytes + done, sizeof bytes - done, &rest) == 0;)
        done += rest;
    cr_assert_eq(memcmp(bytes, "helloSPKM", 9), 0);
    cr_assert_eq(spoke_msg_from(&m, bytes + 5, done - 5), 0);
    cr_assert_eq(spoke_stream_unread(ends[1], m), 0);
    config.even = true;
    cr_assert_eq(spoke_mux_open(&t.even, ends[1], &config), 0);
    cr_assert_eq(spoke_mux_accept(t.even, &b, &m, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_msg_size(m), 4);
    spoke_msg_free(m);
    close_both(a, b);
    two_close(&t);
}

/* ---- priorities ---- */

/* The carrier is full, and bytes of both wait: the order in which they leave shows at its end. */
Test(mux, a_higher_priority_goes_first_and_a_lower_one_too)
{
    static uint8_t bytes[200000];
    struct spoke_mux_info info = {0};
    spoke_mux_config config;
    struct bench x;
    spoke_stream *low, *high;
    size_t done, highs = 0, first_low = 0;
    uint8_t head[4];

    spoke_mux_config_init(&config);
    config.send_queue_bytes = 1 << 20;
    bench_open(&x, false, true, &config);
    low = bench_accept(&x, "01 01 ffffff7f");
    high = bench_accept(&x, "01 03 ffffff7f");
    bench_hears(&x, "02 01 ffff03 02 03 ffff03");
    cr_assert_eq(spoke_mux_set_priority(low, 0), 0);
    cr_assert_eq(spoke_mux_set_priority(high, 7), 0);
    cr_assert_eq(spoke_mux_set_priority(high, 8), SPOKE_ERANGE);
    cr_assert_eq(spoke_mux_set_priority(x.raw, 1), SPOKE_ENOTSUP);
    while (info.unsent < 100000) {
        cr_assert_eq(spoke_stream_write(low, bytes, sizeof bytes, &done), 0);
        cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
    }
    cr_assert_eq(spoke_stream_write(high, bytes, sizeof bytes, &done), 0);
    cr_assert_eq(done, sizeof bytes);
    while (spoke_stream_read_full(x.raw, head, sizeof head, &done) == 0) {
        size_t size = (size_t)head[2] << 8 | head[3];

        cr_assert_eq(head[0], 3);
        cr_assert_leq(size, 16384);
        highs += head[1] == 3;
        if (head[1] == 1 && highs > 0 && first_low == 0)
            first_low = highs;
        cr_assert_eq(spoke_stream_read_full(x.raw, bytes, size, &done), 0);
    }
    cr_assert_eq(highs, 13, "%d", (int)highs);
    cr_assert_eq(first_low, 7, "%d", (int)first_low);
    close_both(low, high);
    bench_close(&x);
}

/* ---- pings, addresses, counts ---- */

Test(mux, a_ping_measures_the_way)
{
    spoke_ns rtt;
    struct two t;

    two_open(&t, true, NULL);
    for (int i = 0; i < 10; i++) {
        cr_assert_eq(spoke_mux_ping(t.odd, &rtt, SPOKE_FOREVER), 0);
        cr_assert_gt(rtt, 0);
    }
    two_close(&t);
    two_open(&t, false, NULL);
    cr_assert_eq(spoke_mux_ping(t.odd, &rtt, SPOKE_FOREVER), SPOKE_ENOTSUP);
    two_close(&t);
}

Test(mux, a_ping_that_nobody_answers_times_out)
{
    spoke_ns rtt;
    struct bench x;

    bench_open(&x, true, true, NULL);
    cr_assert_eq(spoke_mux_ping(x.m, &rtt, spoke_engine_now(x.e) + SPOKE_SECOND), SPOKE_ETIMEDOUT);
    cr_assert_eq(spoke_mux_ping(x.m, &rtt, SPOKE_NOW), SPOKE_EAGAIN);
    bench_hears(&x, "0b 0000000000000002");
    bench_say(&x, "0c 0000000000000002");
    bench_hears(&x, "0b 0000000000000003"); /* … who asked meanwhile */
    bench_close(&x);
}

Test(mux, addresses_tell_the_carrier_and_the_number)
{
    spoke_stream *a, *b;
    char url[64];
    struct two t;

    two_open(&t, true, NULL);
    two_streams(&t, &a, &b);
    cr_assert_eq(spoke_mux_address(t.odd, url, sizeof url), 0);
    cr_assert_str_eq(url, "mux+inproc://#odd");
    cr_assert_eq(spoke_mux_address(t.even, url, sizeof url), 0);
    cr_assert_str_eq(url, "mux+inproc://#even");
    cr_assert_eq(spoke_mux_address(t.even, url, 5), SPOKE_ERANGE);
    cr_assert_eq(spoke_stream_address(a, SPOKE_LOCAL, url, sizeof url), 0);
    cr_assert_str_eq(url, "mux+inproc://#1");
    cr_assert_eq(spoke_stream_address(b, SPOKE_REMOTE, url, sizeof url), 0);
    cr_assert_str_eq(url, "mux+inproc://#1");
    close_both(a, b);
    two_close(&t);
}

Test(mux, counts_what_goes_through)
{
    struct spoke_mux_stream_info one;
    struct spoke_mux_info info;
    spoke_stream *a, *b;
    struct two t;

    two_open(&t, true, NULL);
    two_streams(&t, &a, &b);
    write_text(a, "12345");
    turn(&t);
    cr_assert_eq(spoke_mux_get_info(t.odd, &info), 0);
    cr_assert(info.is_open && info.streams == 1 && info.opened == 1 && info.data_out == 5 &&
              info.peer_max_streams == 256 && info.wire == SPOKE_MUX_NATIVE && info.rtt_ns > 0);
    cr_assert_eq(info.windows, 256 * 1024);
    cr_assert_eq(spoke_mux_get_info(t.even, &info), 0);
    cr_assert(info.accepted == 1 && info.data_in == 5 && info.streams == 1);
    cr_assert_eq(spoke_mux_get_stream_info(b, &one), 0);
    cr_assert(one.id == 1 && !one.opened_here && one.unread == 5 && one.data_in == 5 &&
              one.window == 256 * 1024 && one.credit == 256 * 1024 && one.priority == 3);
    cr_assert_eq(spoke_mux_get_stream_info(a, &one), 0);
    cr_assert(one.opened_here && one.data_out == 5 && one.credit == 256 * 1024 - 5 &&
              one.turns == 1);
    close_both(a, b);
    two_close(&t);
}

/* ---- the end ---- */

Test(mux, a_goodbye_lets_streams_finish)
{
    struct spoke_mux_end why;
    struct spoke_mux_info info;
    spoke_stream *a, *b, *none;
    struct two t;

    two_open(&t, true, NULL);
    two_streams(&t, &a, &b);
    cr_assert_eq(spoke_mux_go_away(t.even, 0, "moved"), 0);
    turn(&t);
    cr_assert_eq(spoke_mux_get_info(t.odd, &info), 0);
    cr_assert(info.peer_leaves && !info.leaves);
    cr_assert_eq(spoke_mux_dial(t.odd, &none, NULL, 0, NULL, SPOKE_NOW), SPOKE_EMUXCLOSED);
    cr_assert_eq(spoke_mux_dial(t.even, &none, NULL, 0, NULL, SPOKE_NOW), SPOKE_EMUXCLOSED);
    write_text(a, "still");
    turn(&t);
    expect_text(b, "still");
    cr_assert_eq(spoke_mux_status(t.odd, &why), SPOKE_EAGAIN);
    close_both(a, b);
    turn(&t);
    cr_assert_eq(spoke_mux_status(t.odd, &why), 0);
    cr_assert_eq(why.code, 0, "%s", why.text);
    cr_assert_eq(why.origin, SPOKE_MUX_PEER);
    cr_assert_str_eq(why.text, "moved");
    cr_assert_eq(spoke_mux_status(t.even, &why), 0);
    cr_assert_eq(why.code, 0, "%s", why.text);
    cr_assert_eq(spoke_mux_wait(t.even, SPOKE_FOREVER), 0);
    two_close(&t);
}

/* What the peer has not looked at is refused, and may be tried elsewhere. */
Test(mux, a_goodbye_refuses_what_nobody_has_accepted)
{
    spoke_stream *a, *b;
    struct spoke_stream_info info;
    struct two t;

    two_open(&t, true, NULL);
    two_streams(&t, &a, &b);
    close_both(a, b);
    cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
    turn(&t);
    cr_assert_eq(spoke_mux_go_away(t.even, 0, NULL), 0);
    turn(&t);
    cr_assert_eq(read_end(a), SPOKE_EREJECTED);
    cr_assert_eq(spoke_stream_get_info(a, &info), 0);
    cr_assert_eq(info.abort_code, SPOKE_MUX_GOING_AWAY);
    cr_assert_eq(spoke_stream_close(a), 0);
    two_close(&t);
}

Test(mux, a_close_ends_the_streams_of_both_ends)
{
    BOTH_WIRES(native)
    {
        struct spoke_mux_end why;
        spoke_stream *a, *b, *none;
        struct two t;

        two_open(&t, native, NULL);
        two_streams(&t, &a, &b);
        cr_assert_eq(spoke_mux_close(t.odd, 0), 0);
        cr_assert_eq(spoke_mux_close(t.odd, 0), 0);
        cr_assert_eq(spoke_mux_status(t.odd, &why), SPOKE_ECLOSED);
        cr_assert_eq(read_end(a), SPOKE_EMUXCLOSED);
        cr_assert_eq(write_end(a), SPOKE_EMUXCLOSED);
        turn(&t);
        cr_assert_eq(read_end(b), SPOKE_ECONNRESET);
        cr_assert_eq(write_end(b), SPOKE_ECONNRESET);
        cr_assert_eq(spoke_mux_accept(t.even, &none, NULL, SPOKE_FOREVER), SPOKE_EMUXCLOSED);
        cr_assert_eq(spoke_mux_dial(t.even, &none, NULL, 0, NULL, SPOKE_NOW), SPOKE_EMUXCLOSED);
        close_both(a, b);
        two_close(&t);
    }
}

/* The peer's streams are ended by its user: who lingers waits for it. */
Test(mux, a_close_that_lingers_waits_for_the_streams)
{
    BOTH_WIRES(native)
    {
        struct spoke_mux_end why;
        spoke_stream *a, *b;
        struct two t;

        two_open(&t, native, NULL);
        two_streams(&t, &a, &b);
        write_text(a, "tail");
        cr_assert_eq(spoke_stream_close(a), 0);
        cr_assert_eq(spoke_mux_close(t.odd, SPOKE_SECOND), 0);
        turn(&t);
        expect_text(b, "tail");
        cr_assert_eq(read_end(b), SPOKE_EOF);
        cr_assert_eq(spoke_mux_status(t.even, &why), 0);
        cr_assert_eq(why.code, native ? 0 : SPOKE_EOF, "%s", why.text);
        cr_assert_eq(spoke_stream_close(b), 0);
        two_close(&t);
    }
}

Test(mux, a_linger_that_is_too_short_says_so)
{
    spoke_stream *a, *b;
    struct two t;

    two_open(&t, true, NULL);
    two_streams(&t, &a, &b);
    cr_assert_eq(spoke_mux_close(t.odd, SPOKE_SECOND), SPOKE_ETIMEDOUT);
    cr_assert_eq(read_end(a), SPOKE_EMUXCLOSED);
    close_both(a, b);
    two_close(&t);
}

Test(mux, an_engine_that_closes_takes_its_muxes_with_it)
{
    spoke_stream *ends[2], *s;
    spoke_mux_config config;
    spoke_mux *muxes[2];
    spoke_engine *e;

    spoke_mux_config_init(&config);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_stream_pair(&ends[0], &ends[1], NULL, e), 0);
    cr_assert_eq(spoke_mux_open(&muxes[0], ends[0], &config), 0);
    config.even = true;
    cr_assert_eq(spoke_mux_open(&muxes[1], ends[1], &config), 0);
    cr_assert_eq(spoke_mux_dial(muxes[0], &s, NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_engine_close(e), 0);
    cr_assert_eq(spoke_mux_close(muxes[0], SPOKE_SECOND), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
}

/* ---- opening it ---- */

Test(mux, what_cannot_be_a_carrier_is_refused)
{
    spoke_mux_config config;
    spoke_stream *a, *b;
    spoke_mux *m;

    cr_assert_eq(spoke_stream_pair(&a, &b, NULL, NULL), 0);
    spoke_mux_config_init(&config);
    config.heartbeat_ns = config.peer_timeout_ns / 2;
    cr_assert_eq(spoke_mux_open(&m, a, &config), SPOKE_ERANGE);
    spoke_mux_config_init(&config);
    config.max_streams = 100000;
    cr_assert_eq(spoke_mux_open(&m, a, &config), SPOKE_ERANGE);
    cr_assert_eq(spoke_mux_open(&m, NULL, NULL), SPOKE_ECLOSED);
    cr_assert_eq(spoke_mux_open(NULL, a, NULL), SPOKE_EINVAL);
    cr_assert_eq(spoke_stream_close_write(a), 0);
    cr_assert_eq(spoke_mux_open(&m, a, NULL), SPOKE_ESTATE);
    cr_assert_eq(spoke_mux_open(&m, b, NULL), SPOKE_EPEERCLOSED);
    cr_assert_null(m);
    close_both(a, b);
    cr_assert_eq(spoke_mux_open(&m, a, NULL), SPOKE_ECLOSED);
}

/* A mux on a stream of a mux, four deep. */
Test(mux, muxes_carry_muxes)
{
    spoke_mux *odd[5], *even[5], *none;
    spoke_stream *a, *b;
    spoke_mux_config config;
    struct two t;
    int depth;

    spoke_mux_config_init(&config);
    two_open(&t, true, NULL);
    odd[0] = t.odd;
    even[0] = t.even;
    for (depth = 1; depth <= SPOKE_MUX_DEPTH; depth++) {
        cr_assert_eq(spoke_mux_dial(odd[depth - 1], &a, NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_accept(even[depth - 1], &b, NULL, SPOKE_FOREVER), 0);
        turn(&t);
        if (depth == SPOKE_MUX_DEPTH)
            break;
        config.even = false;
        cr_assert_eq(spoke_mux_open(&odd[depth], a, &config), 0);
        config.even = true;
        cr_assert_eq(spoke_mux_open(&even[depth], b, &config), 0);
    }
    cr_assert_eq(spoke_mux_open(&none, a, NULL), SPOKE_ELIMIT);
    cr_assert_eq(spoke_stream_set_deadline(a, SPOKE_NOW), 0);
    cr_assert_eq(spoke_stream_set_deadline(b, SPOKE_NOW), 0);
    write_text(a, "from far below");
    turn(&t);
    expect_text(b, "from far below");
    /* The outermost goes, and all the others with it. */
    cr_assert_eq(spoke_mux_close(t.odd, 0), 0);
    turn(&t);
    cr_assert_eq(read_end(a), SPOKE_EMUXCLOSED);
    cr_assert_eq(read_end(b), SPOKE_ECONNRESET);
    close_both(a, b);
    for (depth = 1; depth < SPOKE_MUX_DEPTH; depth++) {
        cr_assert_eq(spoke_mux_close(odd[depth], 0), 0);
        cr_assert_eq(spoke_mux_close(even[depth], 0), 0);
    }
    two_close(&t);
}

/* ---- without waiting ---- */

struct told {
    int ready, closed;
    spoke_stream *last;
    struct spoke_mux_end why;
};

static void
on_ready(spoke_mux *m, void *ctx)
{
    struct told *told = ctx;
    spoke_stream *s;

    told->ready++;
    while (spoke_mux_accept(m, &s, NULL, SPOKE_NOW) == 0)
        told->last = s;
}

static void
on_closed(spoke_mux *m, const struct spoke_mux_end *why, void *ctx)
{
    struct told *told = ctx;

    told->closed++;
    told->why = *why;
    cr_assert_eq(spoke_mux_close(m, 0), 0);
}

Test(mux, callbacks_tell_of_streams_and_of_the_end)
{
    struct told told = {0};
    spoke_stream *a;
    struct two t;

    two_open(&t, true, NULL);
    cr_assert_eq(spoke_mux_on_ready(t.even, on_ready, &told), 0);
    cr_assert_eq(spoke_mux_on_closed(t.even, on_closed, &told), 0);
    turn(&t);
    cr_assert_eq(told.ready, 0);
    for (int i = 1; i <= 3; i++) {
        cr_assert_eq(spoke_mux_dial(t.odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
        turn(&t);
        cr_assert_eq(told.ready, i);
        close_both(a, told.last);
    }
    cr_assert_eq(spoke_mux_close(t.odd, 0), 0);
    turn(&t);
    cr_assert_eq(told.closed, 1);
    two_close(&t);
}

/* A stream that was dialed without waiting becomes a carrier where its outcome is told. */
static void
on_outcome(spoke_stream *s, unsigned what, void *ctx)
{
    spoke_mux **m = ctx;

    (void)what;
    cr_assert_eq(spoke_mux_open(m, s, NULL), 0);
    cr_assert_eq(spoke_stream_close(s), 0, "it is the mux's: its handle is closed");
}

Test(mux, a_stream_may_become_a_carrier_in_its_own_callback)
{
    spoke_stream *ends[2], *a, *b;
    spoke_mux_config config;
    spoke_mux *odd = NULL;
    struct two t;

    two_open(&t, true, NULL);
    cr_assert_eq(spoke_mux_close(t.odd, 0), 0);
    cr_assert_eq(spoke_mux_close(t.even, 0), 0);
    spoke_mux_config_init(&config);
    config.even = true;
    cr_assert_eq(spoke_stream_pair(&ends[0], &ends[1], NULL, t.e), 0);
    cr_assert_eq(spoke_stream_on_ready(ends[0], on_outcome, &odd), 0);
    cr_assert_eq(spoke_mux_open(&t.even, ends[1], &config), 0);
    turn(&t);
    cr_assert_not_null(odd);
    t.odd = odd;
    two_streams(&t, &a, &b);
    write_text(a, "there");
    turn(&t);
    expect_text(b, "there");
    close_both(a, b);
    two_close(&t);
}

Test(mux, a_descriptor_tells_of_streams)
{
    spoke_stream *ends[2], *a, *b;
    spoke_mux_config config;
    spoke_mux *odd, *even;

    spoke_mux_config_init(&config);
    cr_assert_eq(spoke_stream_pair(&ends[0], &ends[1], NULL, NULL), 0);
    cr_assert_eq(spoke_mux_open(&odd, ends[0], &config), 0);
    config.even = true;
    cr_assert_eq(spoke_mux_open(&even, ends[1], &config), 0);
    struct pollfd fd = {.fd = spoke_mux_fd(even), .events = POLLIN};
    cr_assert_geq(fd.fd, 0);
    cr_assert_eq(poll(&fd, 1, 0), 0);
    cr_assert_eq(spoke_mux_dial(odd, &a, NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(poll(&fd, 1, 10000), 1);
    cr_assert_eq(spoke_mux_accept(even, &b, NULL, SPOKE_NOW), 0);
    cr_assert_eq(poll(&fd, 1, 0), 0);
    close_both(a, b);
    cr_assert_eq(spoke_mux_close(odd, 0), 0);
    cr_assert_eq(poll(&fd, 1, 10000), 1);
    cr_assert_eq(spoke_mux_close(even, 0), 0);
}

/* ---- over every transport, from threads ---- */

static void *
echo_streams(void *ctx)
{
    spoke_mux *m = ctx;
    static uint8_t bytes[30000];
    spoke_stream *s;
    size_t n, done;

    while (spoke_mux_accept(m, &s, NULL, SPOKE_FOREVER) == 0) {
        while (spoke_stream_read(s, bytes, sizeof bytes, &n) == 0)
            (void)spoke_stream_write(s, bytes, n, &done);
        (void)spoke_stream_close(s);
    }
    return NULL;
}

struct source {
    spoke_stream *s;
    uint8_t *bytes;
    size_t size;
    int rc;
};

static void *
write_all(void *ctx)
{
    struct source *source = ctx;
    size_t done;

    source->rc = spoke_stream_write(source->s, source->bytes, source->size, &done);
    if (source->rc == 0)
        source->rc = spoke_stream_close_write(source->s);
    return NULL;
}

/* A megabyte there and back, while both go on at a time. */
static void
transfer(spoke_mux *from)
{
    static uint8_t bytes[1 << 20], back[1 << 20];
    struct source source = {.bytes = bytes, .size = sizeof bytes};
    pthread_t thread;
    size_t done;

    pattern_fill(bytes, sizeof bytes, 3);
    cr_assert_eq(spoke_mux_dial(from, &source.s, NULL, 0, NULL, SPOKE_FOREVER), 0);
    cr_assert_eq(pthread_create(&thread, NULL, write_all, &source), 0);
    cr_assert_eq(spoke_stream_read_full(source.s, back, sizeof back, &done), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(source.rc, 0);
    cr_assert(pattern_holds(back, sizeof back, 3));
    cr_assert_eq(spoke_stream_read(source.s, back, 1, &done), SPOKE_EOF);
    cr_assert_eq(spoke_stream_close(source.s), 0);
}

/* Who is at the other end of the carrier is at the other end of its streams. */
static void
same_peer(spoke_mux *from, spoke_mux *to, bool is_known)
{
    struct spoke_stream_info info;
    spoke_stream *a, *b;

    cr_assert_eq(spoke_mux_dial(from, &a, NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_accept(to, &b, NULL, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_get_info(b, &info), 0);
    if (is_known)
        cr_assert_eq(info.pid, getpid());
    close_both(a, b);
}

static void
over(const char *url, bool native, bool dialer_opens)
{
    spoke_stream_listener *l;
    spoke_mux_config config;
    spoke_stream *ends[2];
    spoke_mux *dialed, *accepted;
    char address[256];
    pthread_t thread;

    spoke_mux_config_init(&config);
    config.wire = native ? SPOKE_MUX_NATIVE : SPOKE_MUX_COMPATIBLE;
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, NULL), 0);
    cr_assert_eq(spoke_stream_listener_address(l, address, sizeof address), 0);
    cr_assert_eq(spoke_stream_dial(&ends[0], address, NULL, NULL, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_accept(l, &ends[1], SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_mux_open(&dialed, ends[0], &config), 0);
    config.even = true;
    cr_assert_eq(spoke_mux_open(&accepted, ends[1], &config), 0);
    same_peer(dialed, accepted, strncmp(url, "ipc", 3) == 0);
    cr_assert_eq(pthread_create(&thread, NULL, echo_streams, dialer_opens ? accepted : dialed), 0);
    transfer(dialer_opens ? dialed : accepted);
    cr_assert_eq(spoke_mux_close(dialed, 10 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN), 0);
    cr_assert_eq(spoke_mux_close(accepted, 0), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
}

Test(mux, carries_over_every_transport)
{
    static const char *const urls[] = {"tcp://127.0.0.1:0", "ipc://@spoke-test-mux-%d",
                                       "inproc://mux", "shm://@spoke-test-mux-shm-%d"};

    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        char url[64];

        snprintf(url, sizeof url, urls[i], (int)getpid());
        for (int way = 0; way < 4; way++)
            over(url, way & 1, way & 2);
    }
}

/* Dial, and stay until killed. */
static int
stay(void *url)
{
    spoke_stream *s;
    spoke_engine *e;

    child_is_confined();
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_stream_dial(&s, url, NULL, e, SPOKE_FOREVER) == 0);
    return spoke_engine_run(e);
}

/* Goal: a carrier that was accepted and is lost without a word is not taken for one that nobody has
 * accepted yet, for it has no handle either.  Method: the listener still counts right. */
Test(mux, ends_with_a_carrier_whose_peer_is_killed)
{
    spoke_stream_listener *l;
    spoke_engine *e;
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, SHM);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, e), 0);
    for (int round = 0; round < 3; round++) {
        pid_t pid = child_start(stay, url);
        struct spoke_mux_end why;
        spoke_stream *carrier;
        spoke_mux *m;

        cr_assert_eq(spoke_stream_accept(l, &carrier, SPOKE_FOREVER), 0);
        cr_assert_eq(spoke_mux_open(&m, carrier, NULL), 0);
        child_kill(pid);
        cr_assert_eq(spoke_mux_wait(m, SPOKE_FOREVER), 0);
        cr_assert_eq(spoke_mux_status(m, &why), 0);
        cr_assert_eq(why.code, SPOKE_ECONNRESET);
        cr_assert_eq(spoke_mux_close(m, 0), 0);
    }
    cr_assert_eq(spoke_stream_listener_close(l), 0);
    cr_assert_eq(spoke_engine_close(e), 0);
}
