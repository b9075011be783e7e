/* SPDX-License-Identifier: MIT */
/* The traps that the Go multiplexer has, M1 to M12: that we have none of them. */
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/engine/handle.h"
#include "runtime/stream/mux/mux.h"
#include "tests/mux/fixture.h"

#define BOTH_WIRES(Native) for (int Native = 0; (Native) < 2; (Native)++)

static spoke_mux_config
usual(void)
{
    spoke_mux_config config;

    spoke_mux_config_init(&config);
    return config;
}

/* The whole conversation of docs/wire.md, at the odd end: what it says is what Mutagen's says. */
Test(golden, the_odd_end_says_the_golden_bytes)
{
    spoke_mux_config config = usual();
    struct bench x;
    spoke_stream *s;
    uint8_t bytes[8];
    size_t done;

    config.eager_credit = true;
    bench_open(&x, false, false, &config);
    s = bench_dial(&x, "01 01 ff ff 03", "02 01 ff ff 03");
    cr_assert_eq(write_now(s, "hi", 2, &done), 0);
    bench_hears(&x, "03 01 00 02 68 69");
    bench_say(&x, "04 01 02 03 01 00 03 79 6f 21");
    cr_assert_eq(read_now(s, bytes, sizeof bytes, &done), 0);
    cr_assert(done == 3 && memcmp(bytes, "yo!", 3) == 0);
    bench_hears(&x, "04 01 03");
    cr_assert_eq(spoke_stream_close_write(s), 0);
    bench_hears(&x, "05 01");
    bench_say(&x, "06 01");
    cr_assert_eq(read_end(s), SPOKE_EOF);
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_hears(&x, "06 01");
    bench_pass(&x, 5100 * SPOKE_MS);
    bench_hears(&x, "00");
    bench_pass(&x, 5 * SPOKE_SECOND);
    bench_hears(&x, "00");
    bench_close(&x);
}

Test(golden, the_even_end_says_the_golden_bytes)
{
    spoke_mux_config config = usual();
    struct bench x;
    spoke_stream *s;
    uint8_t bytes[8];
    size_t done;

    config.eager_credit = true;
    bench_open(&x, false, true, &config);
    s = bench_accept(&x, "01 01 ff ff 03");
    bench_hears(&x, "02 01 ff ff 03");
    bench_say(&x, "03 01 00 02 68 69");
    cr_assert_eq(read_now(s, bytes, sizeof bytes, &done), 0);
    cr_assert(done == 2 && memcmp(bytes, "hi", 2) == 0);
    bench_hears(&x, "04 01 02");
    cr_assert_eq(write_now(s, "yo!", 3, &done), 0);
    bench_hears(&x, "03 01 00 03 79 6f 21");
    bench_say(&x, "04 01 03 05 01");
    cr_assert_eq(read_end(s), SPOKE_EOF);
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_hears(&x, "06 01");
    bench_say(&x, "06 01 00 00");
    cr_assert(bench_is_open(&x));
    bench_close(&x);
}

Test(golden, a_refusal_says_the_golden_bytes)
{
    spoke_mux_config config = usual();
    struct bench x;
    spoke_stream *first, *second;

    config.backlog = 1;
    bench_open(&x, false, true, &config); /* who refuses */
    bench_say(&x, "01 01 ffff03  01 03 ffff03");
    bench_hears(&x, "06 03");
    bench_say(&x, "06 03 06 01");
    cr_assert_eq(spoke_mux_accept(x.m, &first, NULL, SPOKE_NOW), SPOKE_EAGAIN);
    bench_close(&x);

    bench_open(&x, false, false, NULL); /* who is refused */
    cr_assert_eq(spoke_mux_dial(x.m, &first, NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_mux_dial(x.m, &second, NULL, 0, NULL, SPOKE_NOW), 0);
    bench_hears(&x, "01 01 ffff03  01 03 ffff03");
    bench_say(&x, "06 03");
    bench_hears(&x, "06 03");
    cr_assert_eq(read_end(second), SPOKE_EREJECTED);
    cr_assert_eq(spoke_stream_close(first), 0);
    bench_hears(&x, "06 01");
    cr_assert_eq(spoke_stream_close(second), 0);
    bench_hears(&x, "");
    bench_close(&x);
}

/* ---- the traps ---- */

Test(traps, M1_a_read_of_nothing_says_nothing)
{
    BOTH_WIRES(native)
    {
        spoke_mux_config config = usual();
        struct bench x;
        spoke_stream *s;
        size_t done;

        config.eager_credit = true;
        bench_open(&x, native, true, &config);
        s = bench_accept(&x, "01 01 05");
        bench_hears(&x, native ? "02 01 808010" : "02 01 ffff03");
        cr_assert_eq(read_now(s, "", 0, &done), 0);
        bench_say(&x, "03 01 0001 78");
        cr_assert_eq(read_now(s, "", 0, &done), 0);
        bench_hears(&x, "");
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

struct opener {
    spoke_mux *m;
    int failed;
};

static void *
open_many(void *ctx)
{
    struct opener *o = ctx;

    for (int i = 0; i < 20; i++) {
        spoke_stream *s;

        o->failed += spoke_mux_dial(o->m, &s, NULL, 0, NULL, SPOKE_FOREVER) != 0;
        if (s != NULL)
            o->failed += spoke_stream_close(s) != 0;
    }
    return NULL;
}

static void *
accept_all(void *ctx)
{
    spoke_stream *s;
    spoke_mux *m = ctx;

    while (spoke_mux_accept(m, &s, NULL, SPOKE_FOREVER) == 0)
        (void)spoke_stream_close(s);
    return NULL;
}

/* 16 threads open streams at once: their openings leave in the order of their numbers, or the peer
 * would end it all. */
Test(traps, M2_many_that_open_at_once_keep_the_order)
{
    spoke_mux_config config = usual();
    spoke_stream *ends[2];
    spoke_mux *muxes[2];
    struct opener openers[16];
    pthread_t threads[17];

    config.backlog = 1000;
    cr_assert_eq(spoke_stream_pair(&ends[0], &ends[1], NULL, NULL), 0);
    for (int i = 0; i < 2; i++) {
        config.even = i == 1;
        cr_assert_eq(spoke_mux_open(&muxes[i], ends[i], &config), 0);
    }
    cr_assert_eq(pthread_create(&threads[16], NULL, accept_all, muxes[1]), 0);
    for (int i = 0; i < 16; i++) {
        openers[i] = (struct opener){.m = muxes[0]};
        cr_assert_eq(pthread_create(&threads[i], NULL, open_many, &openers[i]), 0);
    }
    for (int i = 0; i < 16; i++) {
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
        cr_assert_eq(openers[i].failed, 0);
    }
    cr_assert_eq(spoke_mux_close(muxes[0], 0), 0);
    cr_assert_eq(pthread_join(threads[16], NULL), 0);
    cr_assert_eq(spoke_mux_close(muxes[1], 0), 0);
}

/* Half of a message is half of a message: it is read, and nobody waits for the rest. */
Test(traps, M3_data_is_delivered_as_it_comes)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s, *other;
        uint8_t bytes[8];
        size_t done;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 05");
        other = bench_accept(&x, "01 03 05");
        bench_say(&x, "03 01 ff00 61");
        cr_assert_eq(read_now(s, bytes, sizeof bytes, &done), 0);
        cr_assert(done == 1 && bytes[0] == 'a');
        cr_assert_eq(read_now(s, bytes, sizeof bytes, &done), SPOKE_EAGAIN);
        cr_assert_eq(spoke_stream_set_read_deadline(s, spoke_engine_now(x.e) + SPOKE_MS), 0);
        cr_assert_eq(spoke_stream_read(s, bytes, sizeof bytes, &done), SPOKE_ETIMEDOUT);
        cr_assert_eq(write_now(other, "on", 2, &done), 0);
        bench_say(&x, "62");
        cr_assert_eq(read_now(s, bytes, sizeof bytes, &done), 0);
        cr_assert(done == 1 && bytes[0] == 'b');
        /* Closed in the middle of it: the rest is dropped. */
        cr_assert_eq(spoke_stream_close(s), 0);
        for (int i = 0; i < 0xff00 - 2; i += 64) {
            uint8_t more[64] = {0};

            bench_say_bytes(&x, more, (size_t)(0xff00 - 2 - i < 64 ? 0xff00 - 2 - i : 64));
        }
        bench_say(&x, "03 03 0002 6869");
        cr_assert_eq(read_now(other, bytes, sizeof bytes, &done), 0);
        cr_assert_eq(done, 2);
        cr_assert_eq(spoke_stream_close(other), 0);
        bench_close(&x);
    }
}

Test(traps, M4_a_deadline_in_the_future_ends_the_expiry)
{
    struct bench x;
    spoke_stream *s;
    uint8_t bytes[8];
    size_t done;

    bench_open(&x, false, true, NULL);
    s = bench_accept(&x, "01 01 05");
    bench_say(&x, "03 01 0001 61");
    cr_assert_eq(spoke_stream_set_deadline(s, 1), 0);
    bench_pass(&x, SPOKE_MS);
    cr_assert_eq(spoke_stream_read(s, bytes, sizeof bytes, &done), SPOKE_ETIMEDOUT);
    cr_assert_eq(spoke_stream_write(s, "x", 1, &done), SPOKE_ETIMEDOUT);
    cr_assert_eq(spoke_stream_set_deadline(s, spoke_engine_now(x.e) + SPOKE_SECOND), 0);
    cr_assert_eq(spoke_stream_read(s, bytes, sizeof bytes, &done), 0);
    cr_assert_eq(spoke_stream_write(s, "x", 1, &done), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_close(&x);
}

/* A carrier that ends without a goodbye is a lost connection to every stream. */
Test(traps, M5_streams_know_that_the_carrier_was_lost)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 05");
        cr_assert_eq(spoke_stream_close(x.raw), 0);
        cr_assert_eq(read_end(s), SPOKE_ECONNRESET);
        cr_assert_eq(write_end(s), SPOKE_ECONNRESET);
        bench_ended(&x, SPOKE_ECONNRESET);
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

/* … and a mux that lingers hands everything over before it goes. */
Test(traps, M5_a_close_that_lingers_loses_nothing)
{
    struct bench x;
    spoke_stream *s;
    uint8_t bytes[64];
    size_t done;

    bench_open(&x, true, true, NULL);
    s = bench_accept(&x, "01 01 64");
    bench_hears(&x, "02 01 808010");
    cr_assert_eq(write_now(s, "tail", 4, &done), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
    /* The peer answers when it hears the goodbye: nobody else turns the world meanwhile. */
    cr_assert_eq(spoke_stream_close_write(x.raw), 0);
    bench_hears(&x, "03 01 0004 7461696c 06 01");
    cr_assert_eq(read_now(x.raw, bytes, sizeof bytes, &done), SPOKE_EOF);
    bench_close(&x);
}

Test(traps, M6_what_has_arrived_can_be_read_after_the_carrier_died)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;
        uint8_t bytes[8];
        size_t done;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 05");
        bench_say(&x, "03 01 0002 6869");
        cr_assert_eq(spoke_stream_close(x.raw), 0);
        cr_assert_eq(read_now(s, bytes, 1, &done), 0);
        cr_assert_eq(bytes[0], 'h');
        cr_assert_eq(read_now(s, bytes, 8, &done), 0);
        cr_assert(done == 1 && bytes[0] == 'i');
        cr_assert_eq(read_end(s), SPOKE_ECONNRESET);
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

/* Any byte is life: also the slow middle of a message. */
Test(traps, M7_a_slow_peer_is_not_a_dead_one)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 05");
        bench_say(&x, "03 01 0100");
        for (int i = 0; i < 20; i++) {
            bench_pass(&x, 14 * SPOKE_SECOND);
            cr_assert(bench_is_open(&x), "after %d bytes", i);
            bench_say(&x, "78");
        }
        bench_pass(&x, 15100 * SPOKE_MS);
        bench_ended(&x, SPOKE_EPEERDEAD);
        cr_assert_eq(read_end(s), SPOKE_EPEERDEAD);
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

/* Native: only when there was nothing else to say. */
Test(traps, M7_a_heartbeat_is_sent_when_nothing_else_was)
{
    struct bench x;
    spoke_stream *s;
    size_t done;

    bench_open(&x, true, true, NULL);
    s = bench_accept(&x, "01 01 7f");
    bench_hears(&x, "02 01 808010");
    for (int i = 0; i < 5; i++) {
        bench_pass(&x, 4 * SPOKE_SECOND);
        cr_assert_eq(write_now(s, "x", 1, &done), 0);
        bench_hears(&x, "03 01 0001 78");
        bench_say(&x, "00");
    }
    bench_pass(&x, 5100 * SPOKE_MS);
    bench_hears(&x, "00");
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_close(&x);
}

/* Compatible: always, as the Go program counts nothing else. */
Test(traps, M7_a_compatible_peer_gets_every_heartbeat)
{
    struct bench x;
    spoke_stream *s;
    size_t done;

    bench_open(&x, false, true, NULL);
    s = bench_accept(&x, "01 01 7f");
    bench_hears(&x, "02 01 ffff03");
    bench_pass(&x, 4900 * SPOKE_MS);
    cr_assert_eq(write_now(s, "x", 1, &done), 0);
    bench_hears(&x, "03 01 0001 78");
    bench_pass(&x, 200 * SPOKE_MS);
    bench_hears(&x, "00");
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_close(&x);
}

/* Who did not look for a while has not heard: what has come meanwhile is life, too. */
Test(traps, M7_an_engine_that_was_not_driven_does_not_take_its_peer_for_dead)
{
    spoke_mux_config config = usual();
    struct spoke_mux_end why;
    spoke_stream *carrier;
    spoke_engine *e;
    spoke_mux *m;
    uint8_t preface[16];
    int fds[2];

    config.even = true;
    config.heartbeat_ns = 20 * SPOKE_MS;
    config.peer_timeout_ns = 60 * SPOKE_MS;
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    cr_assert_eq(spoke_stream_from_fd(&carrier, fds[0], NULL, e), 0);
    cr_assert_eq(spoke_mux_open(&m, carrier, &config), 0);
    cr_assert_eq(write(fds[1], preface, hex_bytes(PREFACE_ODD, preface, sizeof preface)), 16);
    for (int i = 0; i < 5; i++) { /* however long each pause is: something came in it */
        usleep(70000);
        cr_assert_eq(write(fds[1], "", 1), 1); /* a heartbeat */
        cr_assert_geq(spoke_engine_poll(e, 0), 0);
        cr_assert_eq(spoke_mux_status(m, &why), SPOKE_EAGAIN, "%s", why.text);
    }
    cr_assert_eq(spoke_engine_close(e), 0);
    close(fds[1]);
}

Test(traps, M8_an_abort_is_not_an_end)
{
    struct spoke_stream_info info;
    struct bench x;
    spoke_stream *s;

    bench_open(&x, true, true, NULL);
    s = bench_accept(&x, "01 01 05");
    bench_hears(&x, "02 01 808010");
    cr_assert_eq(spoke_stream_abort(s, 300), 0);
    bench_hears(&x, "08 01 ac02");
    cr_assert_eq(read_end(s), SPOKE_EABORTED);
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_hears(&x, "");
    s = bench_accept(&x, "01 03 05");
    bench_hears(&x, "02 03 808010");
    bench_say(&x, "03 03 0002 6869 08 03 ac02");
    cr_assert_eq(read_end(s), SPOKE_EABORTED);
    cr_assert_eq(write_end(s), SPOKE_EABORTED);
    cr_assert_eq(spoke_stream_get_info(s, &info), 0);
    cr_assert_eq(info.abort_code, 300);
    cr_assert_eq(info.bytes_read, 2, "what came before can be read");
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_hears(&x, ""); /* no answer to a reset */
    bench_close(&x);
}

/* A close with something unread says that it is lost. */
Test(traps, M8_a_close_with_something_unread_is_not_an_end)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 05");
        bench_hears(&x, native ? "02 01 808010" : "02 01 ffff03");
        bench_say(&x, "03 01 0002 6869");
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_hears(&x, native ? "08 01 0c" : "06 01");
        bench_close(&x);
    }
}

/* It counts against max_streams until its user closes it, and shows. */
Test(traps, M9_a_stream_that_the_peer_closed_is_there_until_it_is_closed)
{
    spoke_mux_config config = usual();
    struct spoke_mux_info info;
    struct bench x;
    spoke_stream *s;

    config.max_streams = 1;
    BOTH_WIRES(native)
    {
        bench_open(&x, native, true, &config);
        s = bench_accept(&x, "01 01 05");
        (void)bench_hear(&x, (uint8_t[64]){0}, 64);
        bench_say(&x, "06 01");
        cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
        cr_assert_eq(info.streams, 1);
        bench_say(&x, "01 03 05");
        bench_hears(&x, native ? "08 03 04" : "06 03");
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_hears(&x, "06 01");
        s = bench_accept(&x, "01 05 05");
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

static uint64_t
refuse_with_300(spoke_mux *m, const void *meta, size_t size, void *ctx)
{
    (void)m, (void)ctx;
    cr_assert_eq(size, 3);
    cr_assert_eq(memcmp(meta, "who", 3), 0);
    return 300;
}

/* Native: why a stream was refused is told. */
Test(traps, M10_reasons_to_refuse_are_told_apart)
{
    spoke_mux_config config = usual();
    struct bench x;

    config.backlog = 1;
    bench_open(&x, true, true, &config);
    bench_say(&x, "01 01 05 01 03 05");
    bench_hears(&x, "08 03 01"); /* BACKLOG */
    bench_say(&x, "08 01 00");
    cr_assert_eq(spoke_mux_on_open(x.m, refuse_with_300, NULL), 0);
    bench_say(&x, "07 05 05 03 77686f");
    bench_hears(&x, "");
    bench_pass(&x, SPOKE_MS);
    bench_hears(&x, "08 05 ac02"); /* the application's */
    cr_assert_eq(spoke_mux_on_open(x.m, NULL, NULL), 0);
    cr_assert_eq(spoke_mux_go_away(x.m, 0, NULL), 0);
    bench_hears(&x, "0a 00 00 00");
    bench_say(&x, "01 07 05");
    bench_close(&x);
}

/* Who reads byte by byte does not say so for every byte. */
Test(traps, M11_credit_is_given_back_in_large_pieces)
{
    BOTH_WIRES(native)
    {
        spoke_mux_config config = usual();
        struct bench x;
        spoke_stream *s;
        uint8_t byte;
        size_t done;

        config.window = 64;
        bench_open(&x, native, true, &config);
        s = bench_accept(&x, "01 01 05");
        bench_hears(&x, "02 01 40");
        bench_say(&x, "03 01 0028");
        for (int i = 0; i < 40; i++)
            bench_say(&x, "78");
        for (int i = 0; i < 31; i++)
            cr_assert_eq(read_now(s, &byte, 1, &done), 0);
        bench_hears(&x, "");
        cr_assert_eq(read_now(s, &byte, 1, &done), 0);
        bench_hears(&x, "04 01 20");
        /* The peer has sent all that it may: it is told sooner. */
        bench_say(&x, "03 01 0038");
        for (int i = 0; i < 56; i++)
            bench_say(&x, "78");
        for (int i = 0; i < 8; i++)
            cr_assert_eq(read_now(s, &byte, 1, &done), 0);
        bench_hears(&x, "04 01 08");
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

Test(traps, M12_two_odd_ends_know_at_once)
{
    spoke_stream *ends[2];
    spoke_mux *muxes[2];
    struct spoke_mux_end why;
    spoke_sim *w;
    spoke_engine *e;

    cr_assert_eq(spoke_sim_open(&w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(w, &e), 0);
    cr_assert_eq(spoke_stream_pair(&ends[0], &ends[1], NULL, e), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_mux_open(&muxes[i], ends[i], NULL), 0);
    (void)spoke_sim_run(w, NULL, NULL, SPOKE_MS);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(spoke_mux_status(muxes[i], &why), 0);
        cr_assert_neq(why.code, 0);
        cr_assert_eq(spoke_mux_close(muxes[i], 0), 0);
    }
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}

/* ---- numbers ---- */

/* The last number is used, and then there are none. */
Test(traps, numbers_are_used_up_and_not_used_again)
{
    BOTH_WIRES(native)
    {
        struct spk_mux *inside;
        struct bench x;
        spoke_stream *s, *none;

        bench_open(&x, native, false, NULL);
        inside = spk_handle_peek(x.m, SPK_HANDLE_MUX);
        inside->next_id = UINT64_MAX;
        s = bench_dial(&x,
                       native ? "01 ffffffffffffffffff01 808010" : "01 ffffffffffffffffff01 ffff03",
                       "02 ffffffffffffffffff01 05");
        cr_assert_eq(spoke_mux_dial(x.m, &none, NULL, 0, NULL, SPOKE_NOW), SPOKE_EEXHAUSTED);
        cr_assert_null(none);
        bench_say(&x, "03 ffffffffffffffffff01 0001 78");
        cr_assert(bench_is_open(&x));
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}
