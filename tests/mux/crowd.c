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

/* Over tcp of the simulated world. */
static void
crowd_open(struct crowd *x, int count, const spoke_mux_config *config)
{
    spoke_stream_listener *l;
    spoke_mux_config own = *config;
    spoke_stream *ends[2];
    char url[64];

    x->count = count;
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
    for (int i = 0; i < count; i++) {
        cr_assert_eq(spoke_mux_dial(x->odd, &dialed[i], NULL, 0, NULL, SPOKE_NOW), 0);
        cr_assert_eq(spoke_mux_accept(x->even, &accepted[i], NULL, SPOKE_FOREVER), 0);
        cr_assert_eq(spoke_stream_set_deadline(dialed[i], SPOKE_NOW), 0);
        cr_assert_eq(spoke_stream_set_deadline(accepted[i], SPOKE_NOW), 0);
    }
    (void)spoke_sim_run(x->w, NULL, NULL, SPOKE_MS);
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
