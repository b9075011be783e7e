/* SPDX-License-Identifier: MIT */
/* Many streams at once: one that nobody reads holds up none of the others, each gets its share, and
 * one that idles costs little. */
#include <stdlib.h>
#include <string.h>

#include "runtime/stream/mux/mux.h"
#include "tests/mux/fixture.h"
#include "tests/support/world.h"

#define STREAMS_MOST 10000

static spoke_stream *dialed[STREAMS_MOST], *accepted[STREAMS_MOST];
static size_t in[STREAMS_MOST], out[STREAMS_MOST];

struct crowd {
    spoke_sim *w;
    spoke_engine *a, *b;
    spoke_mux *odd, *even;
    int count;
};

/* More streams, from the first of these on. */
static void
crowd_grow(struct crowd *x, int count)
{
    for (int i = x->count; i < count; i++) {
        cr_assert_eq(spoke_mux_dial(x->odd, &dialed[i], NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_accept(x->even, &accepted[i], NULL, SPOKE_FOREVER), 0);
        cr_assert_eq(spoke_stream_set_deadline(dialed[i], SPOKE_NOW), 0);
        cr_assert_eq(spoke_stream_set_deadline(accepted[i], SPOKE_NOW), 0);
    }
    x->count = count;
    (void)spoke_sim_run(x->w, NULL, NULL, SPOKE_MS);
}

/* Over tcp of the simulated world. */
static void
crowd_open(struct crowd *x, int count, const spoke_mux_config *config)
{
    spoke_stream_listener *l;
    spoke_mux_config own = *config;
    spoke_stream *ends[2];
    char url[64];

    x->count = 0;
    cr_assert_eq(spoke_sim_open(&x->w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &x->a), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &x->b), 0);
    cr_assert_eq(spoke_stream_listen(&l, "tcp://127.0.0.1:4000", NULL, x->b), 0);
    cr_assert_eq(spoke_stream_listener_address(l, url, sizeof url), 0);
    cr_assert_eq(spoke_stream_dial(&ends[0], url, NULL, x->a, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_accept(l, &ends[1], SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
    cr_assert_eq(spoke_mux_open(&x->odd, ends[0], &own), 0);
    own.even = true;
    cr_assert_eq(spoke_mux_open(&x->even, ends[1], &own), 0);
    crowd_grow(x, count);
}

static void
crowd_close(struct crowd *x)
{
    for (int i = 0; i < x->count; i++) {
        (void)spoke_stream_close(dialed[i]);
        (void)spoke_stream_close(accepted[i]);
    }
    cr_assert_eq(spoke_mux_close(x->odd, 0), 0);
    cr_assert_eq(spoke_mux_close(x->even, 0), 0);
    cr_assert_eq(spoke_sim_close(x->w, NULL), 0);
}

/* Everybody writes what there is room for, and what has come is read, but not of those before
 * `first`. */
static void
go_round(struct crowd *x, int first, spoke_ns step)
{
    static uint8_t bytes[65536];
    size_t done;

    for (int i = 0; i < x->count; i++) {
        if (spoke_stream_write(dialed[i], bytes, sizeof bytes, &done) == 0)
            out[i] += done;
    }
    (void)spoke_sim_run(x->w, NULL, NULL, step);
    for (int i = first; i < x->count; i++) {
        while (spoke_stream_read(accepted[i], bytes, sizeof bytes, &done) == 0)
            in[i] += done;
    }
}

/* Goal: no deadlock.  A thousand streams, one unread: the others go on. */
Test(crowd, one_of_a_thousand_that_is_not_read_holds_up_no_other)
{
    for (int native = 0; native < 2; native++) {
        spoke_mux_config config;
        struct spoke_mux_info info;
        struct crowd x;
        size_t least = SIZE_MAX;

        spoke_mux_config_init(&config);
        config.wire = native ? SPOKE_MUX_NATIVE : SPOKE_MUX_COMPATIBLE;
        config.max_streams = 1000;
        memset(in, 0, sizeof in);
        memset(out, 0, sizeof out);
        crowd_open(&x, 1000, &config);
        for (int round = 0; round < 3000 && least >= SIZE_MAX / 2; round++) {
            go_round(&x, 1, 200 * SPOKE_US);
            least = in[1];
            for (int i = 1; i < 1000; i++)
                least = in[i] < least ? in[i] : least;
            if (least < 100000) /* more than any window was */
                least = SIZE_MAX;
        }
        cr_assert_geq(least, 100000);
        cr_assert_neq(least, SIZE_MAX, "some stream was held up");
        cr_assert_eq(in[0], 0);
        cr_assert_leq(out[0], 65536 + 65536, "it got as far as its window and queue");
        cr_assert_eq(spoke_mux_get_info(x.even, &info), 0);
        cr_assert_leq(info.windows, (size_t)65 << 20);
        crowd_close(&x);
    }
}

/* Goal: each that always has something to write gets the same. */
Test(crowd, busy_streams_get_equal_shares)
{
    spoke_mux_config config;
    struct crowd x;
    size_t least = SIZE_MAX, most = 0;

    spoke_mux_config_init(&config);
    memset(in, 0, sizeof in);
    crowd_open(&x, 100, &config);
    /* Often enough that the carrier always has something to take. */
    for (int round = 0; round < 5000; round++)
        go_round(&x, 0, 20 * SPOKE_US);
    for (int i = 0; i < 100; i++) {
        least = in[i] < least ? in[i] : least;
        most = in[i] > most ? in[i] : most;
    }
    cr_assert_gt(least, 200000);
    cr_assert_leq(most, least + least / 2, "from %zu to %zu bytes", least, most);
    crowd_close(&x);
}

static size_t
window_of(spoke_stream *s)
{
    struct spoke_mux_stream_info info;

    cr_assert_eq(spoke_mux_get_stream_info(s, &info), 0);
    return info.window;
}

/* Goal: what one stream's window has grown to while it was alone does not stay with it.  Those that
 * come later and find little left get as much as the others, and so do their bytes. */
Test(crowd, a_window_that_grew_while_alone_shrinks_for_others)
{
    enum { STREAMS = 40, WINDOW = 32768 };
    spoke_mux_config config;
    struct spoke_mux_info info;
    struct crowd x;
    size_t least = SIZE_MAX, most = 0;

    spoke_mux_config_init(&config);
    config.max_streams = STREAMS;
    config.session_budget = STREAMS * (WINDOW + SPK_MUX_LEAST_WINDOW);
    crowd_open(&x, 1, &config);
    for (int round = 0; round < 2000; round++)
        go_round(&x, 0, 10 * SPOKE_US);
    cr_assert_geq(window_of(accepted[0]), 8 * WINDOW, "it has not grown");
    crowd_grow(&x, STREAMS);
    cr_assert_lt(window_of(accepted[STREAMS - 1]), WINDOW, "there was enough for all");
    for (int round = 0; round < 3000; round++)
        go_round(&x, 0, 20 * SPOKE_US);
    for (int i = 0; i < STREAMS; i++) {
        cr_assert_geq(window_of(accepted[i]), WINDOW, "stream %d", i);
        cr_assert_leq(window_of(accepted[i]), 2 * WINDOW, "stream %d", i);
    }
    cr_assert_eq(spoke_mux_get_info(x.even, &info), 0);
    cr_assert_leq(info.windows, config.session_budget);
    memset(in, 0, sizeof in);
    for (int round = 0; round < 1000; round++)
        go_round(&x, 0, 20 * SPOKE_US);
    for (int i = 0; i < STREAMS; i++) {
        least = in[i] < least ? in[i] : least;
        most = in[i] > most ? in[i] : most;
    }
    cr_assert_gt(least, 200000);
    cr_assert_leq(most, least + least / 2, "from %zu to %zu bytes", least, most);
    crowd_close(&x);
}

/* Goal: the last streams that fit have what the first have, also if the windows are what limits
 * their number. */
Test(crowd, every_stream_has_the_same_window)
{
    for (int count = 256; count <= 1000; count += 744) {
        struct spoke_mux_stream_info first, last;
        spoke_mux_config config;
        struct crowd x;

        spoke_mux_config_init(&config);
        config.max_streams = count;
        crowd_open(&x, count, &config);
        cr_assert_eq(spoke_mux_get_stream_info(accepted[0], &first), 0);
        for (int i = 1; i < count; i++) {
            cr_assert_eq(spoke_mux_get_stream_info(accepted[i], &last), 0);
            cr_assert_eq(last.window, first.window, "of stream %d of %d", i, count);
        }
        cr_assert_geq(first.window, count == 256 ? 262144u : 60000u);
        crowd_close(&x);
    }
}

/* Goal: a small write is not behind all the bytes of a large one.  The large one is written without
 * end; the small one arrives after at most a queue of the carrier and some turns. */
Test(crowd, a_word_gets_past_a_flood)
{
    static uint8_t flood[65536];
    spoke_mux_config config;
    struct crowd x;
    size_t done, behind = 0;
    uint8_t byte;

    spoke_mux_config_init(&config);
    crowd_open(&x, 2, &config);
    for (int i = 0; i < 100; i++) {
        (void)spoke_stream_write(dialed[0], flood, sizeof flood, &done);
        (void)spoke_sim_run(x.w, NULL, NULL, 50 * SPOKE_US);
        while (spoke_stream_read(accepted[0], flood, sizeof flood, &done) == 0) {
        }
    }
    (void)spoke_stream_write(dialed[0], flood, sizeof flood, &done);
    cr_assert_eq(spoke_stream_write(dialed[1], "!", 1, &done), 0);
    while (spoke_stream_read(accepted[1], &byte, 1, &done) == SPOKE_EAGAIN) {
        cr_assert_eq(spoke_sim_step(x.w), 1);
        (void)spoke_stream_write(dialed[0], flood, sizeof flood, &done);
        while (spoke_stream_read(accepted[0], flood, sizeof flood, &done) == 0)
            behind += done;
    }
    /* The world's tcp holds 64 KiB each way, the batch before it 64 KiB and the turn 16. */
    cr_assert_leq(behind, (size_t)512 * 1024, "%zu bytes went in front", behind);
    crowd_close(&x);
}

/* Goal: an idle stream takes 2 KiB at most, both of its ends here together 4. */
Test(crowd, ten_thousand_idle_streams_take_little_memory)
{
    spoke_mux_config config;
    struct spoke_memory_stats before, after;
    struct crowd x;
    size_t done;

    spoke_mux_config_init(&config);
    config.max_streams = STREAMS_MOST;
    config.session_budget = (size_t)128 << 20;
    spoke_memory_stats(&before);
    crowd_open(&x, STREAMS_MOST, &config);
    spoke_memory_stats(&after);
    cr_assert_lt(after.messages - before.messages, 100);
    cr_assert_lt(after.chunk_bytes - before.chunk_bytes, (size_t)4 << 20);
    /* They are all of use. */
    for (int i = 0; i < STREAMS_MOST; i += 997) {
        char byte = 0;

        cr_assert_eq(spoke_stream_write(dialed[i], "x", 1, &done), 0);
        (void)spoke_sim_run(x.w, NULL, NULL, SPOKE_MS);
        cr_assert_eq(spoke_stream_read(accepted[i], &byte, 1, &done), 0);
        cr_assert_eq(byte, 'x');
    }
    crowd_close(&x);
}

/* What one takes, of objects that are no messages: the ends of streams that the library has. */
Test(crowd, an_idle_stream_is_small)
{
    cr_assert_leq(sizeof(struct spk_mux_stream) + sizeof(struct spk_conn) + 2 * sizeof(void *),
                  2048);
}

/* A window that is too small for the way grows, as far as the budget goes. */
Test(crowd, windows_grow_with_the_way)
{
    struct spoke_mux_stream_info one;
    struct spoke_mux_info info;
    spoke_mux_config config;
    struct crowd x;

    spoke_mux_config_init(&config);
    config.window = 8192;
    config.max_window = 128 * 1024;
    crowd_open(&x, 1, &config);
    for (int round = 0; round < 2000; round++)
        go_round(&x, 0, 10 * SPOKE_US);
    cr_assert_eq(spoke_mux_get_stream_info(accepted[0], &one), 0);
    cr_assert_gt(one.window, 8192);
    cr_assert_leq(one.window, 128 * 1024);
    cr_assert_eq(spoke_mux_get_info(x.even, &info), 0);
    cr_assert_eq(info.windows, one.window);
    crowd_close(&x);
}

/* ---- what leaves together, and what does not wait ---- */

static uint64_t
writes_of(spoke_mux *m)
{
    struct spoke_mux_info info;

    cr_assert_eq(spoke_mux_get_info(m, &info), 0);
    return info.writes;
}

static size_t
unsent_of(spoke_mux *m)
{
    struct spoke_mux_info info;

    cr_assert_eq(spoke_mux_get_info(m, &info), 0);
    return info.unsent;
}

/* Goal: what waits for the carrier is bounded by the queue, not by how many write; and each of them
 * gets on all the same. */
Test(crowd, a_thousand_writers_share_one_queue)
{
    static uint8_t bytes[65536];
    spoke_mux_config config;
    struct crowd x;
    size_t done, most = 0;

    spoke_mux_config_init(&config);
    config.max_streams = 1000;
    memset(in, 0, sizeof in);
    crowd_open(&x, 1000, &config);
    for (int round = 0; round < 20; round++) { /* nobody reads: all that can wait does */
        for (int i = 0; i < 1000; i++)
            (void)spoke_stream_write(dialed[i], bytes, sizeof bytes, &done);
        most = unsent_of(x.odd) > most ? unsent_of(x.odd) : most;
    }
    cr_assert_gt(most, 300000);
    /* 4 KiB for each that had nothing there, and a turn for the few that were told. */
    cr_assert_leq(most, 327740 + 1000 * 4096 + 40 * SPK_MUX_TURN_BYTES, "%zu bytes", most);
    for (int round = 0; round < 3000 && in[999] < 200000; round++)
        go_round(&x, 0, 200 * SPOKE_US);
    for (int i = 0; i < 1000; i++)
        cr_assert_geq(in[i], 100000, "stream %d has brought %zu bytes", i, in[i]);
    crowd_close(&x);
}

/* Those of a crowd that write in callbacks, as long as they want to. */
struct writer {
    spoke_mux *mux;
    size_t sent, most; /* `most`: that waited for the carrier then */
    bool stopped;
};

static void
write_what_fits(spoke_stream *s, unsigned what, void *ctx)
{
    static uint8_t bytes[65536];
    struct writer *writer = ctx;
    size_t done, unsent;

    if ((what & SPOKE_STREAM_WRITABLE) == 0 || writer->stopped)
        return;
    while (spoke_stream_write(s, bytes, sizeof bytes, &done) == 0)
        writer->sent += done;
    unsent = unsent_of(writer->mux);
    writer->most = unsent > writer->most ? unsent : writer->most;
}

static void
start_writers(struct crowd *x, struct writer *writers)
{
    for (int i = 0; i < x->count; i++) {
        writers[i] = (struct writer){.mux = x->odd};
        cr_assert_eq(spoke_stream_on_ready(dialed[i], write_what_fits, &writers[i]), 0);
    }
}

static void
read_all(struct crowd *x, int rounds)
{
    static uint8_t bytes[65536];
    size_t done;

    for (int round = 0; round < rounds; round++) {
        (void)spoke_sim_run(x->w, NULL, NULL, 100 * SPOKE_US);
        for (int i = 0; i < x->count; i++) {
            while (spoke_stream_read(accepted[i], bytes, sizeof bytes, &done) == 0) {
            }
        }
    }
}

/* Goal: as many are told that there is room as there is room for, so that the queue keeps its size.
 */
Test(crowd, callbacks_of_a_crowd_fill_the_queue_once)
{
    static struct writer writers[200];
    spoke_mux_config config;
    struct crowd x;
    size_t most = 0;

    spoke_mux_config_init(&config);
    crowd_open(&x, 200, &config);
    start_writers(&x, writers);
    read_all(&x, 200); /* the few bytes that each may write at first have left */
    for (int i = 0; i < 200; i++)
        writers[i].most = 0;
    read_all(&x, 200);
    for (int i = 0; i < 200; i++)
        most = writers[i].most > most ? writers[i].most : most;
    cr_assert_gt(most, 150000);
    cr_assert_leq(most, 327740 + 10 * SPK_MUX_TURN_BYTES, "%zu bytes", most);
    crowd_close(&x);
}

/* Goal: those that are told and do not write hold up nobody behind them in the line. */
Test(crowd, who_is_told_and_does_not_write_is_passed_over)
{
    static struct writer writers[200];
    size_t sent[200];
    spoke_mux_config config;
    struct crowd x;

    spoke_mux_config_init(&config);
    crowd_open(&x, 200, &config);
    start_writers(&x, writers);
    read_all(&x, 100);
    for (int i = 0; i < 190; i++)
        writers[i].stopped = true;
    for (int i = 190; i < 200; i++)
        sent[i] = writers[i].sent;
    read_all(&x, 200);
    for (int i = 190; i < 200; i++)
        cr_assert_gt(writers[i].sent, sent[i] + 400000, "stream %d", i);
    crowd_close(&x);
}

/* Goal: who writes a little, and again as soon as that has left, gets no more of the carrier than
 * those that wait in the line for their turns. */
Test(crowd, who_comes_often_for_a_little_stands_in_the_line_too)
{
    static struct writer writers[200];
    static uint8_t bytes[65536];
    spoke_mux_config config;
    struct crowd x;
    size_t least = SIZE_MAX, most = 0, little = 0, done;

    spoke_mux_config_init(&config);
    crowd_open(&x, 201, &config);
    x.count = 200; /* the last one writes for itself */
    start_writers(&x, writers);
    read_all(&x, 200);
    for (int i = 0; i < 200; i++)
        writers[i].sent = 0;
    for (int round = 0; round < 20000; round++) {
        struct spoke_mux_stream_info info;

        cr_assert_eq(spoke_mux_get_stream_info(dialed[200], &info), 0);
        if (info.unsent == 0 && spoke_stream_write(dialed[200], bytes, 4096, &done) == 0)
            little += done;
        (void)spoke_sim_run(x.w, NULL, NULL, 5 * SPOKE_US);
        if (round % 20 == 0)
            read_all(&x, 1);
        while (spoke_stream_read(accepted[200], bytes, sizeof bytes, &done) == 0) {
        }
    }
    for (int i = 0; i < 200; i++) {
        least = writers[i].sent < least ? writers[i].sent : least;
        most = writers[i].sent > most ? writers[i].sent : most;
    }
    cr_assert_gt(least, 200000);
    cr_assert_geq(little, least / 2, "%zu bytes, of others %zu", little, least);
    cr_assert_leq(little, most + most / 4, "%zu bytes, of others %zu", little, most);
    x.count = 201;
    crowd_close(&x);
}

/* Goal: what goes past the queue, straight from the user's memory, is cut anywhere by a carrier
 * that takes a part, and arrives as it was; his memory is his again at once. */
Test(crowd, bytes_past_the_queue_arrive_as_they_were_written)
{
    static uint8_t bytes[300000], got[300000];
    spoke_mux_config config;
    struct crowd x;
    size_t sent = 0, read = 0, done;

    spoke_mux_config_init(&config);
    config.window = 1 << 20;
    crowd_open(&x, 1, &config);
    for (int round = 0; round < 10000 && read < 4 * sizeof bytes; round++) {
        if (sent < 4 * sizeof bytes) {
            size_t size = sizeof bytes - sent % sizeof bytes;

            for (size_t i = 0; i < size; i++)
                bytes[i] = (uint8_t)((sent + i) * 2654435761u >> 13);
            if (spoke_stream_write(dialed[0], bytes, size, &done) == 0)
                sent += done;
            memset(bytes, 0xee, size);
        }
        (void)spoke_sim_run(x.w, NULL, NULL, 20 * SPOKE_US);
        while (spoke_stream_read(accepted[0], got, sizeof got, &done) == 0) {
            for (size_t i = 0; i < done; i++)
                cr_assert_eq(got[i], (uint8_t)((read + i) * 2654435761u >> 13), "byte %zu",
                             read + i);
            read += done;
        }
    }
    cr_assert_eq(read, 4 * sizeof bytes);
    crowd_close(&x);
}

/* Goal: openings of one callback leave in one write, and the first at once. */
static uint64_t writes_in_callback;

static void
open_some(spoke_mux *m, void *ctx)
{
    spoke_stream *stream;

    (void)ctx;
    while (spoke_mux_accept(m, &stream, NULL, SPOKE_NOW) == 0)
        cr_assert_eq(spoke_stream_close(stream), 0);
    for (int i = 1; i <= 20; i++)
        cr_assert_eq(spoke_mux_dial(m, &dialed[i], NULL, 0, NULL, SPOKE_NOW), 0);
    writes_in_callback = writes_of(m);
}

Test(crowd, openings_of_a_callback_leave_together)
{
    spoke_mux_config config;
    spoke_stream *stream;
    struct crowd x;
    uint64_t before;

    spoke_mux_config_init(&config);
    config.backlog = 100;
    crowd_open(&x, 1, &config);
    before = writes_of(x.odd);
    cr_assert_eq(spoke_mux_on_ready(x.odd, open_some, NULL), 0);
    cr_assert_eq(spoke_mux_dial(x.even, &stream, NULL, 0, NULL, SPOKE_NOW), 0);
    (void)spoke_sim_run(x.w, NULL, NULL, SPOKE_MS);
    cr_assert_eq(writes_in_callback, before + 1, "the first at once, the others not yet");
    cr_assert_eq(writes_of(x.odd), before + 2);
    for (int i = 1; i <= 20; i++)
        cr_assert_eq(spoke_mux_accept(x.even, &accepted[i], NULL, SPOKE_NOW), 0, "stream %d", i);
    x.count = 21;
    cr_assert_eq(spoke_stream_close(stream), 0);
    crowd_close(&x);
}

/* Goal: what was held back in a callback is not lost when the mux is closed there. */
static void
write_and_close(spoke_mux *m, void *ctx)
{
    size_t done;

    (void)ctx;
    for (int i = 0; i < 3; i++)
        cr_assert_eq(spoke_stream_write(dialed[0], "abc", 3, &done), 0);
    cr_assert_eq(spoke_mux_close(m, 0), 0);
}

Test(crowd, what_a_callback_has_written_leaves_before_the_mux_is_closed)
{
    spoke_mux_config config;
    spoke_stream *stream;
    struct crowd x;
    char got[16];
    size_t done;

    spoke_mux_config_init(&config);
    crowd_open(&x, 1, &config);
    cr_assert_eq(spoke_mux_on_ready(x.odd, write_and_close, NULL), 0);
    cr_assert_eq(spoke_mux_dial(x.even, &stream, NULL, 0, NULL, SPOKE_NOW), 0);
    (void)spoke_sim_run(x.w, NULL, NULL, SPOKE_MS);
    cr_assert_eq(spoke_stream_read(accepted[0], got, sizeof got, &done), 0);
    cr_assert_eq(done, 9);
    cr_assert_arr_eq(got, "abcabcabc", 9);
    cr_assert_eq(spoke_stream_close(stream), 0);
    crowd_close(&x);
}

/* Goal: credit that waits for that of others does not hold up who needs it: one of many streams
 * writes window after window, the others say nothing. */
Test(crowd, credit_comes_in_time_if_nobody_else_needs_any)
{
    static uint8_t bytes[65536];
    spoke_mux_config config;
    struct crowd x;
    size_t sent = 0, read = 0, done;

    spoke_mux_config_init(&config);
    config.window = config.max_window = 65536;
    crowd_open(&x, 40, &config);
    for (int round = 0; round < 10000 && read < 2000000; round++) {
        if (spoke_stream_write(dialed[7], bytes, sizeof bytes, &done) == 0)
            sent += done;
        (void)spoke_sim_run(x.w, NULL, NULL, 100 * SPOKE_US);
        while (spoke_stream_read(accepted[7], bytes, sizeof bytes, &done) == 0)
            read += done;
    }
    cr_assert_geq(read, 2000000, "stuck after %zu of %zu bytes", read, sent);
    crowd_close(&x);
}
