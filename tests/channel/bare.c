/* SPDX-License-Identifier: MIT */
#include "tests/channel/bare.h"

#include <stdlib.h>
#include <string.h>

void
bare_open(struct bare *x, const spoke_session_config *config)
{
    spoke_session_config own;
    spoke_stream *a, *b;

    if (config == NULL)
        spoke_session_config_init(&own);
    else
        own = *config;
    spoke_memory_stats(&x->before);
    cr_assert_eq(spoke_sim_open(&x->w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &x->e), 0);
    cr_assert_eq(spoke_stream_pair(&a, &b, NULL, x->e), 0);
    own.mux.even = true;
    cr_assert_eq(spoke_session_open(&x->ss, a, &own), 0);
    cr_assert_eq(spoke_mux_open(&x->peer, b, NULL), 0);
}

void
bare_close(struct bare *x)
{
    struct spoke_session_info info;
    struct spoke_memory_stats after;

    cr_assert_eq(spoke_session_get_info(x->ss, &info), 0);
    cr_assert_eq(info.memory, 0);
    cr_assert_eq(spoke_session_close(x->ss, 0), 0);
    cr_assert_eq(spoke_mux_close(x->peer, 0), 0);
    cr_assert_eq(spoke_sim_close(x->w, NULL), 0);
    spoke_memory_stats(&after);
    cr_assert_eq(after.messages, x->before.messages);
    cr_assert_eq(after.chunks, x->before.chunks);
}

void
settle(struct bare *x)
{
    (void)spoke_sim_run(x->w, NULL, NULL, SPOKE_MS);
}

size_t
bytes_of(const char *hex, uint8_t *bytes, size_t size)
{
    size_t n = 0;

    for (; *hex != '\0'; hex++) {
        char digits[3] = {hex[0], hex[1], '\0'};

        if (*hex == ' ')
            continue;
        cr_assert_lt(n, size);
        bytes[n++] = (uint8_t)strtoul(digits, NULL, 16);
        hex++;
    }
    return n;
}

spoke_stream *
peer_opens(struct bare *x, const char *meta)
{
    uint8_t bytes[5000];
    spoke_stream *s;

    cr_assert_eq(
        spoke_mux_dial(x->peer, &s, bytes, bytes_of(meta, bytes, sizeof bytes), NULL, SPOKE_NOW),
        0);
    cr_assert_eq(spoke_stream_set_deadline(s, SPOKE_NOW), 0);
    settle(x);
    return s;
}

void
says(struct bare *x, spoke_stream *s, const char *hex)
{
    uint8_t bytes[2048];
    size_t size = bytes_of(hex, bytes, sizeof bytes), done;

    cr_assert_eq(spoke_stream_write(s, bytes, size, &done), 0);
    settle(x);
}

void
hears(spoke_stream *s, const char *hex)
{
    uint8_t expected[512], heard[512];
    size_t size = bytes_of(hex, expected, sizeof expected), done;
    int rc = spoke_stream_read_full(s, heard, size, &done);

    cr_assert_eq(rc, 0, "%s after %zu bytes of %s", spoke_error_name(rc), done, hex);
    cr_assert_arr_eq(heard, expected, size);
}

void
hears_error(spoke_stream *s, uint32_t code)
{
    struct spoke_stream_info info;
    uint8_t heard[1024];
    size_t n = 0, done, at = 0, size = 0;
    int rc;

    while ((rc = spoke_stream_read(s, heard + n, sizeof heard - n, &done)) == 0)
        n += done;
    cr_assert_eq(rc, SPOKE_EABORTED, "%s", spoke_error_name(rc));
    for (; at + 8 <= n; at += size) {
        size = 8 + ((size_t)heard[at + 6] << 8) + heard[at + 7];
        if (at + size == n)
            break;
    }
    cr_assert(at + 12 < n && heard[at] == 7, "no error is said");
    cr_assert_eq(heard[at + 11], code, "%u instead of %u: %.*s", heard[at + 11], code,
                 (int)(size - 12), (char *)heard + at + 12);
    cr_assert_eq(spoke_stream_get_info(s, &info), 0);
    cr_assert_eq(info.abort_code, code);
}

void
check_alive(struct bare *x)
{
    spoke_stream *s = peer_opens(x, SENDS);
    spoke_receiver *rx;

    cr_assert_eq(spoke_session_accept_receiver(x->ss, &rx, NULL, SPOKE_NOW), 0);
    says(x, s, HI CLOSE("01"));
    receive_text(rx, "hi");
    receive_end(rx, SPOKE_EOF);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    cr_assert_eq(spoke_stream_close(s), 0);
}
