/* SPDX-License-Identifier: MIT */
/* Peers that mean harm, or seem to: the mux never crashes, holds no more than its configuration
 * allows, and says why it ended. */
#include <stdio.h>
#include <string.h>

#include "tests/mux/fixture.h"

#define BOTH_WIRES(Native) for (int Native = 0; (Native) < 2; (Native)++)

static size_t
put_number(uint8_t *to, uint64_t value)
{
    size_t n = 0;

    for (; value > 127; value >>= 7)
        to[n++] = (uint8_t)(value | 128);
    to[n++] = (uint8_t)value;
    return n;
}

/* One message with an id, and perhaps a number. */
static void
say_id(struct bench *x, uint8_t kind, uint64_t id, const uint64_t *number)
{
    uint8_t bytes[32] = {kind};
    size_t n = 1 + put_number(bytes + 1, id);

    if (number != NULL)
        n += put_number(bytes + n, *number);
    bench_say_bytes(x, bytes, n);
}

static const uint64_t window = 5;

/* The peer's last words may have an id of several bytes here: only the code of the end counts. */
static void
limited(struct bench *x)
{
    struct spoke_mux_end why;

    cr_assert_eq(spoke_mux_status(x->m, &why), 0);
    cr_assert_eq(why.code, SPOKE_ELIMIT, "%s: %s", spoke_error_name(why.code), why.text);
    cr_assert_eq(why.wire_code, SPOKE_MUX_LIMIT);
    bench_close(x);
}

/* A number without an end, at every place where there is one. */
Test(hostile, a_number_of_eleven_bytes)
{
    BOTH_WIRES(native)
    {
        for (int number = 1; number <= (native ? 0x0a : 6); number++) {
            uint8_t kind = (uint8_t)number;
            struct bench x;

            bench_open(&x, native, true, NULL);
            bench_say_bytes(&x, &kind, 1);
            bench_say(&x, "ffffffffffffffffffffff");
            bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
            bench_close(&x);
        }
    }
}

Test(hostile, the_largest_number_of_a_stream)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 ffffffffffffffffff01 05");
        cr_assert_eq(spoke_stream_close(s), 0);
        cr_assert(bench_is_open(&x));
        bench_say(&x, "01 01 05");
        bench_ended(&x, SPOKE_EPROTO);
        bench_close(&x);
    }
}

/* The peer says that it can hold 2^63 bytes: our own queue is the limit. */
Test(hostile, a_window_of_2_to_the_63)
{
    static uint8_t bytes[1 << 20];

    BOTH_WIRES(native)
    {
        spoke_stream_config narrow;
        spoke_stream *carrier, *s;
        struct spoke_mux_info info;
        spoke_mux_config config;
        struct bench x = {.native = native};
        size_t done, total = 0;

        /* A carrier that takes next to nothing. */
        spoke_stream_config_init(&narrow);
        narrow.window = 1000;
        spoke_mux_config_init(&config);
        config.wire = SPOKE_MUX_COMPATIBLE;
        config.even = true;
        config.send_queue_bytes = 100000;
        cr_assert_eq(spoke_sim_open(&x.w, NULL), 0);
        cr_assert_eq(spoke_sim_engine(x.w, &x.e), 0);
        spoke_memory_stats(&x.before);
        cr_assert_eq(spoke_stream_pair(&carrier, &x.raw, &narrow, x.e), 0);
        cr_assert_eq(spoke_stream_set_deadline(x.raw, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_open(&x.m, carrier, &config), 0);
        s = bench_accept(&x, "01 01 80808080808080808001");
        for (int i = 0; i < 100; i++) {
            if (write_now(s, bytes, sizeof bytes, &done) == 0)
                total += done;
        }
        cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
        cr_assert_leq(info.unsent, 100000);
        cr_assert_leq(total, 100000 + 1000 + 65536);
        /* Nothing is taken: the peer is dead after its time, though it talks. */
        for (int i = 0; i < 20; i++) {
            bench_say(&x, "00");
            bench_pass(&x, SPOKE_SECOND);
        }
        bench_ended(&x, SPOKE_EPEERDEAD);
        cr_assert_eq(spoke_stream_close(s), SPOKE_ETIMEDOUT, "what was written is lost");
        cr_assert_eq(spoke_mux_close(x.m, 0), 0);
        cr_assert_eq(spoke_stream_close(x.raw), 0);
        cr_assert_eq(spoke_sim_close(x.w, NULL), 0);
    }
}

Test(hostile, openings_without_end)
{
    BOTH_WIRES(native)
    {
        struct spoke_mux_info info;
        struct bench x;

        bench_open(&x, native, true, NULL);
        for (uint64_t i = 0; i < 1010; i++)
            say_id(&x, 1, 2 * i + 1, &window);
        cr_assert(bench_is_open(&x));
        cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
        cr_assert_eq(info.streams, 10, "as many as may wait");
        cr_assert_eq(info.refused, 1000);
        cr_assert_eq(info.windows, 0, "and nothing is held for them");
        say_id(&x, 1, 5001, &window);
        limited(&x);
    }
}

/* One that is accepted in between makes good for it. */
Test(hostile, refused_openings_count_anew_after_an_accepted_one)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s[2];
        uint64_t id = 1;

        bench_open(&x, native, true, NULL);
        for (int round = 0; round < 2; round++) {
            for (int i = 0; i < 900; i++, id += 2)
                say_id(&x, 1, id, &window);
            cr_assert_eq(spoke_mux_accept(x.m, &s[round], NULL, SPOKE_NOW), 0);
        }
        cr_assert(bench_is_open(&x));
        for (int i = 0; i < 2; i++)
            cr_assert_eq(spoke_stream_close(s[i]), 0);
        bench_close(&x);
    }
}

/* Opened and closed at once, again and again: four times max_streams in ten seconds. */
Test(hostile, openings_that_are_given_up_at_once)
{
    BOTH_WIRES(native)
    {
        spoke_mux_config config;
        struct bench x;
        uint64_t id = 1;

        spoke_mux_config_init(&config);
        config.max_streams = 10;
        bench_open(&x, native, true, &config);
        for (int round = 0; round < 3; round++) {
            for (int i = 0; i < 40; i++, id += 2) {
                say_id(&x, 1, id, &window);
                say_id(&x, 6, id, NULL);
            }
            cr_assert(bench_is_open(&x));
            bench_say(&x, "00");
            bench_pass(&x, 10100 * SPOKE_MS);
        }
        for (int i = 0; i < 41; i++, id += 2) {
            say_id(&x, 1, id, &window);
            say_id(&x, native ? 8 : 6, id, native ? &window : NULL);
        }
        limited(&x);
    }
}

/* Accepted ones that are reset count, too. */
Test(hostile, streams_that_are_reset_at_once)
{
    spoke_mux_config config;
    struct bench x;
    uint64_t id = 1;

    spoke_mux_config_init(&config);
    config.max_streams = 10;
    bench_open(&x, true, true, &config);
    for (int i = 0; i < 41; i++, id += 2) {
        spoke_stream *s;

        cr_assert(bench_is_open(&x));
        say_id(&x, 1, id, &window);
        cr_assert_eq(spoke_mux_accept(x.m, &s, NULL, SPOKE_NOW), 0);
        say_id(&x, 8, id, &window);
        cr_assert_eq(spoke_stream_close(s), 0);
    }
    limited(&x);
}

/* … after one byte, after two, and so on: nothing of them stays. */
Test(hostile, streams_that_are_reset_after_each_byte)
{
    struct spoke_memory_stats before, after;
    struct spoke_mux_info info;
    struct bench x;
    uint64_t id = 1;

    bench_open(&x, true, true, NULL);
    spoke_memory_stats(&before);
    for (int bytes = 0; bytes < 200; bytes++, id += 2) {
        char got[200];
        spoke_stream *s;
        size_t done = 0;

        say_id(&x, 1, id, &(uint64_t){300});
        cr_assert_eq(spoke_mux_accept(x.m, &s, NULL, SPOKE_NOW), 0);
        for (int i = 0; i < bytes; i++) {
            say_id(&x, 3, id, NULL);
            bench_say(&x, "0001 78");
        }
        say_id(&x, 8, id, &window);
        if (bytes > 0)
            cr_assert_eq(spoke_stream_read_full(s, got, (size_t)bytes, &done), 0);
        cr_assert_eq(done, (size_t)bytes, "what had come is read");
        cr_assert_eq(read_end(s), SPOKE_EABORTED);
        cr_assert_eq(spoke_stream_close(s), 0);
        (void)bench_hear(&x, (uint8_t[256]){0}, 256);
        cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
        cr_assert_eq(info.streams, 0);
        cr_assert_eq(info.windows, 0);
    }
    cr_assert(bench_is_open(&x));
    spoke_memory_stats(&after);
    cr_assert_leq(after.messages - before.messages, 1);
    cr_assert_leq(after.chunks - before.chunks, 2);
    bench_close(&x);
}

/* Lengths that nobody could hold: they are refused as they are read. */
Test(hostile, lengths_of_2_to_the_63)
{
    static const char *const said[] = {"07 01 05 80808080808080808001", /* metadata */
                                       "07 01 05 ffffffffffffffffff01", "07 01 05 8120"};

    for (size_t i = 0; i < sizeof said / sizeof said[0]; i++) {
        struct spoke_memory_stats before, after;
        struct bench x;

        bench_open(&x, true, true, NULL);
        spoke_memory_stats(&before);
        bench_say(&x, said[i]);
        spoke_memory_stats(&after);
        cr_assert_leq(after.chunk_bytes - before.chunk_bytes, 65536);
        bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
        bench_close(&x);
    }
}

/* Taken ones that are given up count, too, and data for them is a violation. */
Test(hostile, streams_that_are_taken_and_given_up)
{
    spoke_mux_config config;
    struct bench x;
    spoke_stream *s;
    uint64_t id = 1;

    spoke_mux_config_init(&config);
    config.max_streams = 10;
    bench_open(&x, true, true, &config);
    for (int i = 0; i < 41; i++, id += 2) {
        cr_assert(bench_is_open(&x));
        say_id(&x, 1, id, &window);
        cr_assert_eq(spoke_mux_take(x.m, &s, NULL, SPOKE_NOW), 0);
        say_id(&x, 8, id, &window);
        cr_assert_eq(read_end(s), SPOKE_EABORTED);
        cr_assert_eq(spoke_stream_close(s), 0);
    }
    limited(&x);
    bench_open(&x, true, true, NULL);
    bench_say(&x, "01 01 05");
    cr_assert_eq(spoke_mux_take(x.m, &s, NULL, SPOKE_NOW), 0);
    bench_say(&x, "03 01 0001 61");
    cr_assert_eq(read_end(s), SPOKE_EPROTO);
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
    bench_close(&x);
}

/* A megabyte of words without a use within ten seconds. */
static void
flood(bool native, const char *words, int times)
{
    struct bench x;
    spoke_stream *s;
    uint8_t bytes[64 * 16];
    size_t size = hex_bytes(words, bytes, 64);

    for (size_t n = size; n + size <= sizeof bytes; n += size)
        memcpy(bytes + n, bytes, size);
    size = sizeof bytes / size * size;
    bench_open(&x, native, true, NULL);
    s = bench_accept(&x, "01 01 05");
    for (int i = 0; i < times && bench_is_open(&x); i++) {
        static uint8_t heard[4096];

        bench_say_bytes(&x, bytes, size);
        (void)bench_hear(&x, heard, sizeof heard);
    }
    cr_assert(!bench_is_open(&x), "%s goes on and on", words);
    cr_assert_eq(read_end(s), SPOKE_ELIMIT);
    cr_assert_eq(spoke_stream_close(s), 0);
    limited(&x);
}

Test(hostile, a_flood_of_heartbeats)
{
    flood(false, "00", 1100);
    flood(true, "00", 1100);
}

Test(hostile, a_flood_of_credit)
{
    flood(false, "04 01 01", 1100);
    flood(true, "04 01 01", 1100);
}

Test(hostile, a_flood_of_pings)
{
    flood(true, "0b 0102030405060708", 1100);
}

/* … over a longer time it is no flood. */
Test(hostile, many_heartbeats_over_a_long_time)
{
    struct spoke_mux_info info;
    struct bench x;
    uint8_t bytes[1 << 16] = {0};

    bench_open(&x, false, true, NULL);
    for (int i = 0; i < 40; i++) {
        bench_say_bytes(&x, bytes, sizeof bytes);
        bench_pass(&x, SPOKE_SECOND);
    }
    cr_assert(bench_is_open(&x));
    cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
    cr_assert_eq(info.messages_in, 40 << 16);
    bench_close(&x);
}

/* Pings that are not answered yet are four at most. */
Test(hostile, pings_are_merged)
{
    struct bench x;

    bench_open(&x, true, true, NULL);
    bench_say(&x, "0b 0000000000000001 0b 0000000000000002 0b 0000000000000003 0b "
                  "0000000000000004 0b 0000000000000005 0b 0000000000000006");
    bench_hears(&x, "0c 0000000000000001 0c 0000000000000002 0c 0000000000000003 0c "
                    "0000000000000006");
    bench_close(&x);
}

/* Data of one byte each takes no more memory than its window, or little more. */
Test(hostile, data_of_one_byte)
{
    BOTH_WIRES(native)
    {
        struct spoke_memory_stats before, after;
        struct bench x;
        spoke_stream *s;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 05");
        spoke_memory_stats(&before);
        for (int i = 0; i < 60000; i++)
            bench_say(&x, "03 01 0001 78");
        cr_assert(bench_is_open(&x));
        spoke_memory_stats(&after);
        cr_assert_lt(after.messages - before.messages, 100);
        cr_assert_lt(after.chunk_bytes - before.chunk_bytes, 2 * 65536);
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

/* Pieces that are small beside the memory that they come in, for streams that nobody reads, keep
 * no more of it than a share of the budget.  What fills it up is for a stream that is read. */
Test(hostile, small_pieces_in_large_memory)
{
    static uint8_t said[65536], got[65536];
    const size_t piece = 5000;
    struct spoke_memory_stats before, after;
    spoke_mux_config config;
    spoke_stream *s[200];
    struct bench x;
    size_t done;

    spoke_mux_config_init(&config);
    config.backlog = 200;
    bench_open(&x, true, true, &config);
    for (unsigned i = 0; i < 200; i++) {
        char open[32];

        if (i < 64)
            snprintf(open, sizeof open, "01 %02x 05", 2 * i + 1);
        else
            snprintf(open, sizeof open, "01 %02x%02x 05", ((2 * i + 1) & 0x7f) | 0x80,
                     (2 * i + 1) >> 7);
        s[i] = bench_accept(&x, open);
    }
    spoke_memory_stats(&before);
    for (unsigned i = 1; i < 200; i++) {
        size_t at = 0, left;

        said[at++] = 3;
        if (i < 64) {
            said[at++] = (uint8_t)(2 * i + 1);
        } else {
            said[at++] = (uint8_t)(((2 * i + 1) & 0x7f) | 0x80);
            said[at++] = (uint8_t)((2 * i + 1) >> 7);
        }
        said[at++] = (uint8_t)(piece >> 8);
        said[at++] = (uint8_t)piece;
        at += piece;
        said[at++] = 3;
        said[at++] = 1;
        left = sizeof said - at - 2;
        said[at++] = (uint8_t)(left >> 8);
        said[at++] = (uint8_t)left;
        bench_say_bytes(&x, said, at + left);
        while (read_now(s[0], got, sizeof got, &done) == 0)
            left -= done;
        cr_assert_eq(left, 0);
    }
    cr_assert(bench_is_open(&x));
    spoke_memory_stats(&after);
    cr_assert_lt(after.chunk_bytes - before.chunk_bytes, (size_t)6 << 20);
    for (unsigned i = 1; i < 200; i++) {
        for (size_t left = piece; left > 0; left -= done)
            cr_assert_eq(read_now(s[i], got, sizeof got, &done), 0);
    }
    for (unsigned i = 0; i < 200; i++)
        cr_assert_eq(spoke_stream_close(s[i]), 0);
    bench_close(&x);
}

/* Data that is announced and comes byte by byte, each just in time: it is read as it comes, and the
 * peer lives. */
Test(hostile, data_that_takes_its_time)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;
        char byte;
        size_t done;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 05");
        bench_say(&x, "03 01 0014");
        for (int i = 0; i < 20; i++) {
            cr_assert_eq(read_now(s, &byte, 1, &done), SPOKE_EAGAIN);
            bench_pass(&x, 14 * SPOKE_SECOND);
            bench_say(&x, "78");
            cr_assert_eq(read_now(s, &byte, 1, &done), 0);
            cr_assert_eq(byte, 'x');
        }
        bench_say(&x, "03 01 0002 78");
        bench_pass(&x, 16 * SPOKE_SECOND);
        bench_ended(&x, SPOKE_EPEERDEAD);
        cr_assert_eq(read_now(s, &byte, 1, &done), 0, "what has come is read");
        cr_assert_eq(read_end(s), SPOKE_EPEERDEAD);
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

/* Whoever gives no credit keeps nobody from ending: a write ends at its deadline, and a close at
 * once. */
Test(hostile, credit_that_does_not_come)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;
        spoke_ns deadline;
        size_t done;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 05");
        deadline = spoke_engine_now(x.e) + 3 * SPOKE_SECOND;
        cr_assert_eq(spoke_stream_set_write_deadline(s, deadline), 0);
        cr_assert_eq(spoke_stream_write(s, "7 bytes", 7, &done), SPOKE_ETIMEDOUT);
        cr_assert_eq(done, 5);
        cr_assert(spoke_engine_now(x.e) >= deadline);
        cr_assert(spoke_engine_now(x.e) < deadline + SPOKE_SECOND);
        deadline = spoke_engine_now(x.e);
        cr_assert_eq(spoke_stream_close(s), 0);
        cr_assert_eq(spoke_engine_now(x.e), deadline, "it has not waited");
        cr_assert(bench_is_open(&x));
        bench_close(&x);
    }
}

/* Words for streams that are over cost nothing. */
Test(hostile, words_for_streams_that_are_over)
{
    BOTH_WIRES(native)
    {
        struct spoke_memory_stats before, after;
        struct bench x;
        spoke_stream *s;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 05");
        cr_assert_eq(spoke_stream_close(s), 0);
        spoke_memory_stats(&before);
        for (int i = 0; i < 1000; i++)
            bench_say(&x, "03 01 0004 61626364 05 01");
        spoke_memory_stats(&after);
        cr_assert_eq(after.messages, before.messages);
        cr_assert_eq(after.chunks, before.chunks);
        cr_assert(bench_is_open(&x));
        bench_close(&x);
    }
}

/* Metadata that is announced and does not come keeps one place of the backlog. */
Test(hostile, metadata_that_does_not_come)
{
    struct spoke_mux_info info;
    struct bench x;
    spoke_stream *s;

    bench_open(&x, true, true, NULL);
    bench_say(&x, "07 01 05 8020 61");
    cr_assert_eq(spoke_mux_accept(x.m, &s, NULL, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
    cr_assert_eq(info.waiting, 1);
    cr_assert_eq(spoke_stream_close(x.raw), 0);
    cr_assert(!bench_is_open(&x));
    bench_close(&x);
}

/* What the process allows is the limit of all muxes together. */
Test(hostile, no_more_memory_than_the_process_allows)
{
    spoke_stream *s[2], *none;
    struct spoke_mux_info info;
    struct bench x;

    spoke_mux_set_memory_limit(260 * 1024 + 4095);
    bench_open(&x, true, true, NULL);
    s[0] = bench_accept(&x, "01 01 05");
    bench_hears(&x, "02 01 808010");
    s[1] = bench_accept(&x, "01 03 05");
    bench_hears(&x, "02 03 8020"); /* the least that there is */
    bench_say(&x, "01 05 05");
    cr_assert_eq(spoke_mux_accept(x.m, &none, NULL, SPOKE_NOW), SPOKE_EAGAIN);
    bench_hears(&x, "08 05 04"); /* LIMIT */
    cr_assert_eq(spoke_mux_dial(x.m, &none, NULL, 0, NULL, SPOKE_NOW), SPOKE_ELIMIT);
    cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
    cr_assert_eq(info.windows, 260 * 1024);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_stream_close(s[i]), 0);
    s[0] = bench_accept(&x, "01 07 05");
    cr_assert_eq(spoke_stream_close(s[0]), 0);
    bench_close(&x);
    spoke_mux_set_memory_limit((size_t)1 << 30);
}

/* Whoever never reads: answers pile up as state, and the time to take some is limited. */
Test(hostile, a_peer_that_reads_nothing)
{
    spoke_stream_config narrow;
    spoke_mux_config config;
    spoke_stream *carrier;
    struct bench x = {.native = false};
    uint64_t id = 1;

    spoke_stream_config_init(&narrow);
    narrow.window = 100;
    spoke_mux_config_init(&config);
    config.wire = SPOKE_MUX_COMPATIBLE;
    config.even = true;
    config.max_streams = 10;
    spoke_memory_stats(&x.before);
    cr_assert_eq(spoke_sim_open(&x.w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(x.w, &x.e), 0);
    cr_assert_eq(spoke_stream_pair(&carrier, &x.raw, &narrow, x.e), 0);
    cr_assert_eq(spoke_stream_set_deadline(x.raw, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_open(&x.m, carrier, &config), 0);
    /* Our user accepts and closes all that it can: the peer does not hear of it. */
    for (int i = 0; i < 5000 && bench_is_open(&x); i++, id += 2) {
        spoke_stream *s;

        say_id(&x, 1, id, &window);
        if (spoke_mux_accept(x.m, &s, NULL, SPOKE_NOW) == 0)
            cr_assert_eq(spoke_stream_close(s), 0);
    }
    cr_assert(!bench_is_open(&x));
    cr_assert_lt(id, 2 * 1300);
    limited(&x);
}

/* The bytes of a good conversation, and one of them another: it ends, or goes on, and nothing is
 * left. */
Test(hostile, every_byte_changed)
{
    static const char words[] =
        "01 01 ff01 03 01 0002 6869 04 01 03 05 01 01 03 05 06 03 07 05 05 "
        "02 6869 08 05 07 0b 0102030405060708 09 01 00 06 01 0a 00 00 02 6f6b";
    uint8_t bytes[128];
    size_t size = hex_bytes(words, bytes, sizeof bytes);

    for (size_t at = 0; at < size; at++) {
        for (int value = 0; value < 256; value += 3) {
            struct bench x;
            spoke_stream *s[2] = {NULL};
            uint8_t right = bytes[at];

            bench_open(&x, true, true, NULL);
            bytes[at] = (uint8_t)value;
            bench_say_bytes(&x, bytes, 4);
            (void)spoke_mux_accept(x.m, &s[0], NULL, SPOKE_NOW);
            bench_say_bytes(&x, bytes + 4, size - 4);
            (void)spoke_mux_accept(x.m, &s[1], NULL, SPOKE_NOW);
            bytes[at] = right;
            for (int i = 0; i < 2; i++) {
                if (s[i] != NULL)
                    cr_assert_eq(spoke_stream_close(s[i]), 0);
            }
            bench_close(&x);
        }
    }
}
