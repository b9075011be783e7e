/* SPDX-License-Identifier: MIT */
/* What a peer may not say (docs/wire.md, V1 to V18), one test each, on both wires: the mux ends, a
 * native one says why, the carrier is closed, its streams give SPOKE_EPROTO.  And what looks alike
 * and is allowed. */
#include <string.h>

#include "tests/mux/fixture.h"

#define BOTH_WIRES(Native) for (int Native = 0; (Native) < 2; (Native)++)

/* The peer says this and is gone; `even`: the mux is. */
static void
breaks(bool native, bool even, const char *before, const char *last)
{
    struct bench x;

    bench_open(&x, native, even, NULL);
    bench_say(&x, before);
    cr_assert(bench_is_open(&x), "before: %s", before);
    bench_say(&x, last);
    bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
    bench_close(&x);
}

/* The same after a stream was accepted from the peer (id 1), or by it (id 1, of ours). */
static void
breaks_accepted(bool native, bool is_ours, const char *before, const char *last)
{
    struct bench x;
    spoke_stream *s;

    bench_open(&x, native, !is_ours, NULL);
    s = is_ours ? bench_dial(&x, native ? "01 01 808010" : "01 01 ffff03", "02 01 ffff03")
                : bench_accept(&x, "01 01 ffff03");
    bench_say(&x, before);
    cr_assert(bench_is_open(&x), "before: %s", before);
    bench_say(&x, last);
    bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
    (void)read_end(s);
    cr_assert_eq(spoke_stream_close(s), 0);
    bench_close(&x);
}

static void
goes_on(bool native, bool even, const char *words)
{
    struct bench x;

    bench_open(&x, native, even, NULL);
    bench_say(&x, words);
    cr_assert(bench_is_open(&x), "%s", words);
    bench_close(&x);
}

Test(rules, V1_an_unknown_kind)
{
    breaks(false, true, "", "07");
    breaks(true, true, "", "0f");
}

Test(rules, V2_a_number_of_more_than_64_bits)
{
    BOTH_WIRES(native)
    {
        breaks(native, true, "01 808080808080808080", "80");
        breaks(native, true, "01 ffffffffffffffffff", "02");
        breaks(native, true, "01 01 ffffffffffffffffff", "7f");
    }
}

/* A number that the end of the carrier cuts is a lost connection. */
Test(rules, V2_a_number_that_is_cut)
{
    BOTH_WIRES(native)
    {
        struct bench x;

        bench_open(&x, native, true, NULL);
        bench_say(&x, "01 80");
        cr_assert_eq(spoke_stream_close_write(x.raw), 0);
        bench_ended(&x, native ? SPOKE_ECONNRESET : SPOKE_EOF);
        bench_close(&x);
    }
}

Test(rules, V3_the_stream_0)
{
    static const char *const rows[] = {"01 00", "02 00", "03 00", "04 00", "05 00", "06 00"};

    BOTH_WIRES(native)
    {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            breaks(native, true, "", rows[i]);
    }
}

Test(rules, V4_an_opening_with_a_number_of_ours)
{
    BOTH_WIRES(native)
    {
        breaks(native, true, "", "01 02 01");
        breaks(native, false, "", "01 01 01");
    }
}

Test(rules, V5_an_opening_with_a_number_that_was_used)
{
    BOTH_WIRES(native)
    {
        breaks(native, true, "01 03 01", "01 03 01");
        breaks(native, true, "01 03 01", "01 01 01");
        breaks(native, true, "01 03 01 06 03", "01 03 01"); /* also one that is gone */
    }
}

Test(rules, V5_gaps_are_allowed)
{
    BOTH_WIRES(native)
    goes_on(native, true, "01 01 01  01 07 01  01 ff01 01  01 ffffffffffffffffff01 01");
}

Test(rules, V6_an_acceptance_of_a_stream_of_its_own)
{
    BOTH_WIRES(native)
    breaks(native, true, "01 01 01", "02 01 01");
}

Test(rules, V7_a_word_for_a_stream_that_the_peer_never_opened)
{
    static const char *const rows[] = {"03 03 0001 78", "04 03 01", "05 03", "06 03"};

    BOTH_WIRES(native)
    {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            breaks(native, true, "01 01 01", rows[i]);
    }
    breaks(true, true, "01 01 01", "08 03 00");
    breaks(true, true, "01 01 01", "09 03 00");
}

Test(rules, V8_a_word_for_a_stream_that_we_never_opened)
{
    static const char *const rows[] = {"02 02 01", "03 02 0001 78", "04 02 01", "05 02", "06 02"};

    BOTH_WIRES(native)
    {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
            breaks(native, true, "", rows[i]);
    }
    breaks(true, true, "", "08 02 00");
    breaks(true, true, "", "09 02 00");
}

Test(rules, V9_an_acceptance_twice)
{
    BOTH_WIRES(native)
    breaks_accepted(native, true, "", "02 01 01");
}

Test(rules, V10_a_word_for_a_stream_that_the_peer_has_closed)
{
    static const char *const rows[] = {"03 01 0001 78", "04 01 01", "05 01"};

    BOTH_WIRES(native)
    {
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            breaks_accepted(native, false, "06 01", rows[i]);
            breaks_accepted(native, true, "06 01", rows[i]);
        }
        breaks_accepted(native, true, "06 01", "02 01 01");
    }
    breaks_accepted(true, false, "06 01", "09 01 00");
}

Test(rules, V11_data_of_no_bytes)
{
    BOTH_WIRES(native)
    breaks_accepted(native, false, "", "03 01 0000");
}

Test(rules, V12_data_before_the_acceptance)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;

        breaks(native, true, "01 01 01", "03 01 0001 78"); /* ours */
        bench_open(&x, native, false, NULL);               /* the peer's */
        cr_assert_eq(spoke_mux_dial(x.m, &s, NULL, 0, NULL, SPOKE_NOW), 0);
        bench_say(&x, "03 01 0001 78");
        bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
        cr_assert_eq(read_end(s), SPOKE_EPROTO);
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

Test(rules, V13_data_and_an_end_after_the_end)
{
    BOTH_WIRES(native)
    {
        breaks_accepted(native, false, "05 01", "03 01 0001 78");
        breaks_accepted(native, false, "05 01", "05 01");
    }
}

Test(rules, V14_more_data_than_the_window_allows)
{
    spoke_mux_config config;

    spoke_mux_config_init(&config);
    config.window = 10;
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;
        uint8_t bytes[16];
        size_t done;

        bench_open(&x, native, true, &config);
        s = bench_accept(&x, "01 01 00");
        bench_hears(&x, "02 01 0a");
        bench_say(&x, "03 01 0006 313233343536 03 01 0004 37383930");
        cr_assert(bench_is_open(&x));
        bench_say(&x, "03 01 0001");
        bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
        cr_assert_eq(read_now(s, bytes, sizeof bytes, &done), 0, "what came before is there");
        cr_assert_eq(done, 10);
        cr_assert_eq(read_end(s), SPOKE_EPROTO);
        cr_assert_eq(write_end(s), SPOKE_EPROTO);
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

Test(rules, V15_a_credit_of_nothing)
{
    BOTH_WIRES(native)
    breaks_accepted(native, false, "", "04 01 00");
}

Test(rules, V16_a_credit_or_an_end_before_the_acceptance)
{
    static const char *const rows[] = {"04 01 01", "05 01", "09 01 00"};

    BOTH_WIRES(native)
    {
        for (size_t i = 0; i < (native ? 3 : 2); i++) {
            struct bench x;
            spoke_stream *s;

            bench_open(&x, native, false, NULL);
            cr_assert_eq(spoke_mux_dial(x.m, &s, NULL, 0, NULL, SPOKE_NOW), 0);
            bench_say(&x, rows[i]);
            bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
            cr_assert_eq(spoke_stream_close(s), 0);
            bench_close(&x);
        }
    }
}

/* … which the opener may say of its own stream. */
Test(rules, V16_the_opener_may_give_credit_and_end_before_the_acceptance)
{
    BOTH_WIRES(native)
    {
        struct bench x;
        spoke_stream *s;
        size_t done;

        bench_open(&x, native, true, NULL);
        s = bench_accept(&x, "01 01 02 04 01 03 05 01");
        cr_assert_eq(read_end(s), SPOKE_EOF);
        cr_assert_eq(write_now(s, "123456", 6, &done), 0);
        cr_assert_eq(done, 5, "2 of the opening, 3 more");
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

Test(rules, V17_credit_beyond_64_bits)
{
    BOTH_WIRES(native)
    {
        breaks_accepted(native, false, "04 01 01", "04 01 ffffffffffffffffff01");
        breaks(native, true, "01 01 ffffffffffffffffff01", "04 01 01");
    }
}

Test(rules, V18_a_close_twice)
{
    BOTH_WIRES(native)
    {
        breaks_accepted(native, false, "06 01", "06 01");
        breaks_accepted(native, true, "06 01", "06 01");
    }
    breaks_accepted(true, false, "06 01", "08 01 00");
}

Test(rules, stop_reading_twice)
{
    breaks_accepted(true, false, "09 01 00", "09 01 00");
    breaks_accepted(true, false, "05 01 09 01 05", "05 01");
}

/* Known but closed here: whatever was under way is read and dropped. */
Test(rules, words_for_a_stream_that_was_closed_here_are_dropped)
{
    BOTH_WIRES(native)
    {
        for (int is_ours = 0; is_ours < 2; is_ours++) {
            struct spoke_mux_info info;
            struct bench x;
            spoke_stream *s;

            bench_open(&x, native, !is_ours, NULL);
            s = is_ours ? bench_dial(&x, native ? "01 01 808010" : "01 01 ffff03", "02 01 05")
                        : bench_accept(&x, "01 01 05");
            cr_assert_eq(spoke_stream_close(s), 0);
            bench_say(&x, "03 01 0003 616263  04 01 ffffffffffffffffff01 04 01 01 05 01 05 01");
            bench_say(&x, "06 01 06 01");
            if (is_ours)
                bench_say(&x, "02 01 01");
            if (native)
                bench_say(&x, "08 01 00 08 01 07 09 01 00 09 01 00");
            cr_assert(bench_is_open(&x));
            cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
            cr_assert_eq(info.dropped, 3);
            cr_assert_eq(info.streams, 0);
            bench_close(&x);
        }
    }
}

/* … also of one that was refused, and one that the peer has reset. */
Test(rules, words_for_a_stream_that_was_refused_or_reset_are_dropped)
{
    spoke_mux_config config;

    spoke_mux_config_init(&config);
    config.backlog = 1;
    BOTH_WIRES(native)
    {
        struct bench x;

        bench_open(&x, native, true, &config);
        bench_say(&x, "01 01 05 01 03 05");
        bench_hears(&x, native ? "08 03 01" : "06 03");
        bench_say(&x, "03 03 0003 616263 04 03 01 05 03 05 03 06 03 06 03");
        cr_assert(bench_is_open(&x));
        if (native) {
            bench_say(&x, "08 01 05 03 01 0001 78 08 01 05 06 01");
            cr_assert(bench_is_open(&x));
        }
        bench_close(&x);
    }
}

/* ---- prefaces ---- */

static void
preface_breaks(const char *preface)
{
    spoke_mux_config config;
    struct bench x;

    spoke_mux_config_init(&config);
    config.even = true;
    bench_open_silent(&x, &config);
    bench_hears(&x, PREFACE_EVEN);
    bench_say(&x, preface);
    bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
    bench_close(&x);
}

Test(rules, a_preface_that_is_none)
{
    preface_breaks("00");                                    /* a compatible peer */
    preface_breaks("53504b4e");                              /* another magic */
    preface_breaks("53504b4d 00 00 0000 00000100 00000000"); /* version 0 */
    preface_breaks("53504b4d 01 00 0001 00000100 00000000"); /* no data to speak of */
    preface_breaks(PREFACE_EVEN);                            /* M12: both have the same numbers */
}

Test(rules, a_preface_of_a_later_version)
{
    spoke_mux_config config;
    struct bench x;

    spoke_mux_config_init(&config);
    config.even = true;
    bench_open_silent(&x, &config);
    bench_hears(&x, PREFACE_EVEN);
    bench_say(&x, "53504b4d ff fc 0400 00000001 ffffffff");
    bench_hears(&x, "0b 0000000000000001");
    cr_assert(bench_is_open(&x));
    bench_close(&x);
}

/* The native end waits five seconds for it. */
Test(rules, a_preface_that_is_cut)
{
    spoke_mux_config config;
    struct bench x;

    spoke_mux_config_init(&config);
    config.even = true;
    bench_open_silent(&x, &config);
    bench_hears(&x, PREFACE_EVEN);
    bench_say(&x, "53504b4d 01 00 00");
    bench_pass(&x, 4900 * SPOKE_MS);
    cr_assert(bench_is_open(&x));
    bench_pass(&x, 200 * SPOKE_MS);
    bench_broken(&x, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL);
    bench_close(&x);
}

/* A native end that comes to a compatible one is an unknown kind to it. */
Test(rules, a_native_peer_of_a_compatible_end)
{
    breaks(false, true, "", "53504b4d");
}

Test(rules, the_wire_is_the_peers_if_it_is_to_be_detected)
{
    BOTH_WIRES(native)
    {
        spoke_mux_config config;
        struct spoke_mux_info info;
        struct bench x;
        spoke_stream *s;

        spoke_mux_config_init(&config);
        config.even = true;
        config.wire = SPOKE_MUX_DETECT;
        bench_open_silent(&x, &config);
        bench_hears(&x, "");
        bench_pass(&x, 10 * SPOKE_SECOND);
        bench_hears(&x, "");
        cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
        cr_assert_eq(info.wire, SPOKE_MUX_DETECT);
        if (native) {
            bench_say(&x, "53");
            bench_hears(&x, PREFACE_EVEN);
            bench_say(&x, "504b4d 01 00 0000 00000100 00000000");
            bench_hears(&x, "0b 0000000000000001");
            bench_say(&x, "0c 0000000000000001");
        }
        s = bench_accept(&x, "01 01 05");
        bench_hears(&x, native ? "02 01 808010" : "02 01 ffff03");
        cr_assert_eq(spoke_mux_get_info(x.m, &info), 0);
        cr_assert_eq(info.wire, native ? SPOKE_MUX_NATIVE : SPOKE_MUX_COMPATIBLE);
        cr_assert_eq(spoke_stream_close(s), 0);
        bench_close(&x);
    }
}

/* ---- pings ---- */

Test(rules, an_answer_that_nobody_asked_for)
{
    breaks(true, true, "", "0c 0000000000000001");
    breaks(true, true, "", "0c 0000000000000000");
}

Test(rules, an_opening_after_the_goodbye)
{
    breaks(true, true, "0a 00 00 00", "01 01 01");
}
