/* SPDX-License-Identifier: MIT */
#include "tests/mux/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

size_t
hex_bytes(const char *hex, uint8_t *bytes, size_t size)
{
    size_t n = 0;

    for (; *hex != '\0'; hex++) {
        char digits[3] = {hex[0], hex[1], '\0'};
        char *end;

        if (*hex == ' ')
            continue;
        cr_assert_lt(n, size);
        bytes[n++] = (uint8_t)strtoul(digits, &end, 16);
        cr_assert_eq(*end, '\0', "not hex: %s", hex);
        hex++;
    }
    return n;
}

void
bench_open_silent(struct bench *x, const spoke_mux_config *config)
{
    spoke_stream_config wide;
    spoke_stream *carrier;

    spoke_memory_stats(&x->before);
    spoke_stream_config_init(&wide);
    wide.window = (size_t)64 << 20;
    cr_assert_eq(spoke_sim_open(&x->w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &x->e), 0);
    cr_assert_eq(spoke_stream_pair(&carrier, &x->raw, &wide, x->e), 0);
    cr_assert_eq(spoke_stream_set_deadline(x->raw, SPOKE_NOW), 0);
    x->native = config == NULL || config->wire == SPOKE_MUX_NATIVE;
    cr_assert_eq(spoke_mux_open(&x->m, carrier, config), 0);
    cr_assert_eq(spoke_stream_close(carrier), 0, "it is the mux's");
}

void
bench_open(struct bench *x, bool native, bool even, const spoke_mux_config *config)
{
    spoke_mux_config own;

    if (config != NULL)
        own = *config;
    else
        spoke_mux_config_init(&own);
    own.wire = native ? SPOKE_MUX_NATIVE : SPOKE_MUX_COMPATIBLE;
    own.even = even;
    bench_open_silent(x, &own);
    if (!native)
        return;
    if (own.max_streams == 0)
        bench_hears(x, even ? PREFACE_EVEN : PREFACE_ODD);
    else
        (void)bench_hear(x, (uint8_t[16]){0}, 16);
    bench_say(x, even ? PREFACE_ODD : PREFACE_EVEN);
    bench_hears(x, "0b 0000000000000001");
    bench_say(x, "0c 0000000000000001");
}

void
bench_close(struct bench *x)
{
    struct spoke_memory_stats after;

    cr_assert_eq(spoke_mux_close(x->m, 0), 0);
    cr_assert_eq(spoke_stream_close(x->raw), 0);
    cr_assert_eq(spoke_sim_close(x->w, NULL), 0);
    spoke_memory_stats(&after);
    cr_assert_eq(after.messages, x->before.messages);
    cr_assert_eq(after.chunks, x->before.chunks);
}

void
bench_say_bytes(struct bench *x, const void *bytes, size_t size)
{
    size_t done;

    (void)spoke_stream_write(x->raw, bytes, size, &done); /* an ended mux hears nothing */
}

void
bench_say(struct bench *x, const char *hex)
{
    uint8_t bytes[1024];

    bench_say_bytes(x, bytes, hex_bytes(hex, bytes, sizeof bytes));
}

size_t
bench_hear(struct bench *x, uint8_t *bytes, size_t size)
{
    size_t total = 0, done;

    while (total < size && spoke_stream_read(x->raw, bytes + total, size - total, &done) == 0)
        total += done;
    return total;
}

void
bench_hears(struct bench *x, const char *hex)
{
    uint8_t expected[1024], heard[1024];
    size_t size = hex_bytes(hex, expected, sizeof expected);
    size_t n = bench_hear(x, heard, sizeof heard);
    char text[3 * 64 + 1] = "";

    for (size_t i = 0; i < n && i < 64; i++)
        snprintf(text + 3 * i, 4, "%02x ", heard[i]);
    cr_assert(n == size && memcmp(heard, expected, size) == 0, "expected %s, heard %s(%zu)", hex,
              text, n);
}

void
bench_pass(struct bench *x, spoke_ns time)
{
    (void)spoke_sim_run(x->w, NULL, NULL, time);
}

bool
bench_is_open(struct bench *x)
{
    struct spoke_mux_end why;

    return spoke_mux_status(x->m, &why) == SPOKE_EAGAIN;
}

void
bench_ended(struct bench *x, int code)
{
    struct spoke_mux_end why;

    cr_assert_eq(spoke_mux_status(x->m, &why), 0, "it has not ended");
    cr_assert_eq(why.code, code, "%s instead of %s: %s", spoke_error_name(why.code),
                 spoke_error_name(code), why.text);
    cr_assert_neq(why.text[0], '\0');
}

void
bench_broken(struct bench *x, int code, uint64_t wire_code)
{
    uint8_t heard[65536];
    size_t n, i;

    bench_ended(x, code);
    n = bench_hear(x, heard, sizeof heard);
    cr_assert_eq(read_end(x->raw), SPOKE_EOF, "the carrier is not closed");
    if (!x->native)
        return;
    /* 0a, last id (one byte in these tests), code, length, text: the last words. */
    for (i = n; i > 0; i--) {
        if (n - i >= 4 && heard[i] == 0x0a && heard[i + 2] == wire_code &&
            heard[i + 3] == n - i - 4)
            return;
    }
    cr_assert(n >= 4 && heard[0] == 0x0a && heard[2] == wire_code && heard[3] == n - 4,
              "no goodbye with code %d", (int)wire_code);
}

spoke_stream *
bench_accept(struct bench *x, const char *open)
{
    spoke_stream *s;

    bench_say(x, open);
    cr_assert_eq(spoke_mux_accept(x->m, &s, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_stream_set_deadline(s, SPOKE_NOW), 0);
    return s;
}

spoke_stream *
bench_dial(struct bench *x, const char *open, const char *accept)
{
    spoke_stream *s;

    cr_assert_eq(spoke_mux_dial(x->m, &s, NULL, 0, NULL, SPOKE_NOW), 0);
    cr_assert_eq(spoke_stream_set_deadline(s, SPOKE_NOW), 0);
    bench_hears(x, open);
    bench_say(x, accept);
    return s;
}

int
read_now(spoke_stream *s, void *bytes, size_t size, size_t *done)
{
    cr_assert_eq(spoke_stream_set_read_deadline(s, SPOKE_NOW), 0);
    return spoke_stream_read(s, bytes, size, done);
}

int
write_now(spoke_stream *s, const void *bytes, size_t size, size_t *done)
{
    cr_assert_eq(spoke_stream_set_write_deadline(s, SPOKE_NOW), 0);
    return spoke_stream_write(s, bytes, size, done);
}

int
read_end(spoke_stream *s)
{
    static uint8_t bytes[65536];
    size_t done;
    int rc;

    while ((rc = read_now(s, bytes, sizeof bytes, &done)) == 0) {
    }
    return rc;
}

int
write_end(spoke_stream *s)
{
    size_t done;

    return write_now(s, "x", 1, &done);
}
