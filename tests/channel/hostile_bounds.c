/* SPDX-License-Identifier: MIT */
/* Peers that want us to hold much: what is held for them keeps its limits, and is gone when the
 * session is. */
#include <string.h>

#include "tests/channel/bare.h"

/* ---- channels in channels in channels ---- */

/* A peer without any limits of its own: the bytes of a mux. */
struct raw {
    spoke_sim *w;
    spoke_engine *e;
    spoke_session *ss; /* its streams are even */
    spoke_stream *peer;
    struct spoke_memory_stats before;
};

static void
raw_open(struct raw *x, const spoke_session_config *config)
{
    static const uint8_t preface[16] = {'S', 'P', 'K', 'M', 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0};
    spoke_session_config own = *config;
    spoke_stream *a;
    size_t done;

    spoke_memory_stats(&x->before);
    cr_assert_eq(spoke_sim_open(&x->w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &x->e), 0);
    cr_assert_eq(spoke_stream_pair(&a, &x->peer, NULL, x->e), 0);
    cr_assert_eq(spoke_stream_set_deadline(x->peer, SPOKE_NOW), 0);
    own.mux.even = true;
    cr_assert_eq(spoke_session_open(&x->ss, a, &own), 0);
    cr_assert_eq(spoke_stream_write(x->peer, preface, sizeof preface, &done), 0);
}

static void
raw_close(struct raw *x)
{
    struct spoke_memory_stats after;

    cr_assert_eq(spoke_session_close(x->ss, 0), 0);
    cr_assert_eq(spoke_stream_close(x->peer), 0);
    cr_assert_eq(spoke_sim_close(x->w, NULL), 0);
    spoke_memory_stats(&after);
    cr_assert_eq(after.messages, x->before.messages);
    cr_assert_eq(after.chunks, x->before.chunks);
}

static uint8_t *
put_number(uint8_t *to, uint64_t number)
{
    for (; number >= 0x80; number >>= 7)
        *to++ = (uint8_t)(number | 0x80);
    *to++ = (uint8_t)number;
    return to;
}

static void
put_big(uint8_t *to, uint64_t number, size_t size)
{
    while (size > 0) {
        to[--size] = (uint8_t)number;
        number >>= 8;
    }
}

/* What is said, unless the session has ended; and what it answers is read, and forgotten. */
static void
raw_say(struct raw *x, const uint8_t *bytes, size_t size)
{
    static uint8_t heard[65536];
    size_t done;

    (void)spoke_stream_write(x->peer, bytes, size, &done);
    while (spoke_stream_read(x->peer, heard, sizeof heard, &done) == 0) {
    }
}

static void
raw_opens(struct raw *x, uint64_t id, const uint8_t *meta, size_t size)
{
    uint8_t bytes[64] = {7}, *at = put_number(bytes + 1, id);

    at = put_number(at, 1000); /* the window */
    at = put_number(at, size);
    memcpy(at, meta, size);
    raw_say(x, bytes, (size_t)(at - bytes) + size);
}

/* A channel for a message on the stream `parent`, on which the peer sends. */
static void
raw_opens_nested(struct raw *x, uint64_t id, uint64_t parent)
{
    uint8_t meta[] = {0xa3, 0x00, 0x02, 0x02, 0x1a, 0, 0, 0, 0, 0x03, 0x01};

    if (parent < 24) { /* numbers are as short as they can be */
        uint8_t least[] = {0xa3, 0x00, 0x02, 0x02, (uint8_t)parent, 0x03, 0x01};

        raw_opens(x, id, least, sizeof least);
    } else if (parent < 256) {
        uint8_t byte[] = {0xa3, 0x00, 0x02, 0x02, 0x18, (uint8_t)parent, 0x03, 0x01};

        raw_opens(x, id, byte, sizeof byte);
    } else {
        meta[4] = 0x19;
        put_big(meta + 5, parent, 2);
        memmove(meta + 7, meta + 9, 2);
        raw_opens(x, id, meta, sizeof meta - 2);
    }
}

/* A message on `parent` that carries it. */
static void
raw_names(struct raw *x, uint64_t parent, uint64_t id)
{
    uint8_t bytes[64] = {3}, *at = put_number(bytes + 1, parent);

    put_big(at, 20, 2);
    memcpy(at + 2, "\3\0\0\1\0\0\0\0\1\1\0\0", 12);
    put_big(at + 14, id, 8);
    raw_say(x, bytes, (size_t)(at - bytes) + 22);
}

#define DEEP 10000

/* Each message carries the next channel, and nobody takes any: there are no more than streams, and
 * no more memory than the session's. */
Test(hostile_bounds, channels_nested_ten_thousand_deep)
{
    static const uint8_t top[] = {0xa2, 0x00, 0x01, 0x03, 0x01};
    struct spoke_memory_stats now;
    struct spoke_session_info info;
    spoke_session_config config;
    spoke_receiver *rx;
    uint32_t most = 0;
    struct raw x;

    spoke_session_config_init(&config);
    raw_open(&x, &config);
    raw_opens(&x, 1, top, sizeof top);
    cr_assert_eq(spoke_session_accept_receiver(x.ss, &rx, NULL, SPOKE_NOW), 0);
    for (uint64_t level = 1; level <= DEEP; level++) {
        raw_opens_nested(&x, 2 * level + 1, 2 * level - 1);
        raw_names(&x, 2 * level - 1, 2 * level + 1);
        cr_assert_eq(spoke_session_get_info(x.ss, &info), 0);
        most = info.channels > most ? info.channels : most;
        cr_assert_leq(info.channels, 4096);
        cr_assert_leq(info.memory, config.memory);
        cr_assert_leq(info.unclaimed, (uint32_t)config.unclaimed_max);
    }
    cr_assert_eq(most, 4096, "as many as streams: %u", most);
    spoke_memory_stats(&now);
    cr_assert_leq(now.chunk_bytes - x.before.chunk_bytes, (uint64_t)config.memory);
    cr_assert_eq(spoke_receiver_close(rx), 0);
    (void)spoke_sim_run(x.w, NULL, NULL, SPOKE_SECOND);
    cr_assert_eq(spoke_session_get_info(x.ss, &info), 0);
    cr_assert_eq(info.channels, 0, "%u of them are left", info.channels);
    cr_assert_eq(info.memory, 0);
    raw_close(&x);
}

/* Openings for messages that never come, of channels that were never opened, or of none. */
Test(hostile_bounds, streams_that_refer_to_what_does_not_exist)
{
    struct spoke_session_info info;
    spoke_session_config config;
    struct spoke_mux_end why;
    uint64_t opened = 0;
    struct raw x;

    spoke_session_config_init(&config);
    raw_open(&x, &config);
    for (; opened < DEEP && spoke_session_status(x.ss, &why) == SPOKE_EAGAIN; opened++) {
        raw_opens_nested(&x, 2 * opened + 1, 2 * DEEP + 1);
        cr_assert_eq(spoke_session_get_info(x.ss, &info), 0);
        cr_assert_eq(info.channels, 0);
        cr_assert_eq(info.unclaimed, 0);
        cr_assert_leq(info.mux.streams, 1);
    }
    cr_assert_eq(opened, 1001, "after so many in a row it has ended: %u", (unsigned)opened);
    raw_close(&x);
}
