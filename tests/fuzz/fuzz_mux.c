/* SPDX-License-Identifier: MIT */
/* Fuzz target: both wires of multiplexers.  A bare peer says any bytes, in pieces of any size,
 * while a user opens, accepts, reads, writes and closes streams.  The same bytes are decoded in one
 * piece and byte by byte, with the same outcome.  Whatever is said, windows and budgets hold, no
 * stream has more to read than its window, and nothing is left.
 *
 * Input: flags (below), then actions: what (one byte: its lowest 3 bits), which stream (its next 3
 * bits), and for what the peer says its size (two bytes, big-endian) and the bytes. */
/* Covers: runtime/stream/mux/wire.c runtime/stream/mux/in.c runtime/stream/mux/out.c
 * runtime/stream/mux/streams.c runtime/stream/mux/window.c runtime/stream/mux/mux.c */
#include <string.h>

#include <spoke/mux.h>

#include "runtime/stream/mux/wire.h"
#include "tests/fuzz/support/lab.h"

enum { COMPATIBLE = 1, DETECT = 2, EVEN = 4, IPC = 8, OWN_PREFACE = 16, NARROW = 32, DECIDE = 64 };
enum { SAY, SAY_MORE, ACCEPT, DIAL, READ, WRITE, CLOSE, OTHER };

#define STREAMS 8
#define BUDGET  ((size_t)256 * 1024)

static struct scene {
    struct lab lab;
    struct sim_handle *peer;
    spoke_stream_listener *listener;
    spoke_mux *m;
    spoke_stream *streams[STREAMS];
} x;

/* ---- the decoder by itself ---- */

struct digest {
    uint64_t sum;
    int rc;
};

static void
add(struct digest *d, uint64_t value)
{
    d->sum = (d->sum ^ value) * 0x100000001b3u;
}

static void
add_word(struct digest *d, const struct spk_mux_word *w)
{
    if (w->kind != SPK_MUX_PIECE) {
        add(d, w->kind);
        add(d, w->id);
        add(d, w->number);
        add(d, w->length);
        return;
    }
    MUST(w->size > 0);
    for (size_t i = 0; i < w->size; i++)
        add(d, w->data[i]);
}

static struct digest
decode(const uint8_t *data, size_t size, bool native, size_t step)
{
    struct digest d = {.sum = 1};
    struct spk_mux_decoder decoder;
    struct spk_mux_word w;

    spk_mux_decoder_init(&decoder, native);
    for (size_t from = 0; from < size && d.rc == 0; from += step) {
        const uint8_t *at = data + from, *end = data + (size - from < step ? size : from + step);

        while ((d.rc = spk_mux_decode(&decoder, &at, end, &w)) > 0)
            add_word(&d, &w);
        MUST(d.rc == SPOKE_EPROTO || at == end);
    }
    return d;
}

static void
decode_both_ways(const uint8_t *data, size_t size, bool native)
{
    struct digest whole = decode(data, size, native, size + 1);
    struct digest bytes = decode(data, size, native, 1);

    MUST(whole.sum == bytes.sum && whole.rc == bytes.rc);
}

/* ---- the scene ---- */

static uint64_t
decide(spoke_mux *m, const void *meta, size_t size, void *ctx)
{
    (void)m, (void)ctx;
    MUST(size <= SPOKE_MUX_META_MAX);
    return size > 0 ? ((const uint8_t *)meta)[0] & 1 : 0;
}

static void
open_all(uint8_t flags)
{
    spoke_mux_config config;
    spoke_sim_config world;
    spoke_stream *carrier;

    lab_config(&world, 1, 0);
    lab_open(&x.lab, &world);
    MUST(spoke_stream_listen(&x.listener, lab_url((flags & IPC) != 0), NULL, x.lab.engine) == 0);
    x.peer = lab_dial(&x.lab, (flags & IPC) != 0);
    lab_settle(&x.lab);
    MUST(spoke_stream_accept(x.listener, &carrier, SPOKE_NOW) == 0);
    spoke_mux_config_init(&config);
    config.wire = (flags & DETECT) != 0       ? SPOKE_MUX_DETECT
                  : (flags & COMPATIBLE) != 0 ? SPOKE_MUX_COMPATIBLE
                                              : SPOKE_MUX_NATIVE;
    config.even = (flags & EVEN) != 0;
    config.session_budget = BUDGET;
    config.max_streams = 16;
    config.window = (flags & NARROW) != 0 ? 100 : 0;
    MUST(spoke_mux_open(&x.m, carrier, &config) == 0);
    if ((flags & DECIDE) != 0)
        MUST(spoke_mux_on_open(x.m, decide, NULL) == 0);
    if (config.wire == SPOKE_MUX_NATIVE && (flags & OWN_PREFACE) == 0) {
        uint8_t preface[SPK_MUX_PREFACE_BYTES];
        const struct spk_mux_preface p = {
            .even = !config.even, .data_most = 65535, .max_streams = 4};

        spk_mux_write_preface(preface, &p);
        MUST(lab_write(x.peer, preface, sizeof preface) == sizeof preface);
    }
    lab_settle(&x.lab);
}

static void
close_all(void)
{
    struct spoke_mux_info info;

    for (int i = 0; i < STREAMS; i++) {
        if (x.streams[i] != NULL)
            (void)spoke_stream_close(x.streams[i]);
    }
    MUST(spoke_mux_get_info(x.m, &info) == 0);
    MUST(info.streams == info.waiting && info.windows == 0);
    MUST(spoke_mux_close(x.m, 0) == 0);
    MUST(spoke_stream_listener_close(x.listener) == 0);
    lab_hang_up(x.peer);
    lab_close(&x.lab);
}

static void
check_bounds(void)
{
    struct spoke_mux_stream_info one;
    struct spoke_mux_info info;
    struct spoke_mux_end why;

    MUST(spoke_mux_get_info(x.m, &info) == 0);
    MUST(info.windows <= BUDGET);
    MUST(info.waiting <= 10);
    MUST(info.is_open == (spoke_mux_status(x.m, &why) == SPOKE_EAGAIN));
    for (int i = 0; i < STREAMS; i++) {
        if (x.streams[i] != NULL && spoke_mux_get_stream_info(x.streams[i], &one) == 0)
            MUST(one.unread <= one.window || one.window == 0);
    }
}

/* A stream of the user's, for which there is a place. */
static void
keep(int at, spoke_stream *s)
{
    if (x.streams[at] != NULL)
        (void)spoke_stream_close(x.streams[at]);
    x.streams[at] = s;
    MUST(spoke_stream_set_deadline(s, SPOKE_NOW) == 0);
}

static void
use(int what, int at, struct input *in)
{
    static uint8_t bytes[5000];
    spoke_stream *s = x.streams[at];
    spoke_msg *meta;
    size_t done;

    switch (what) {
    case ACCEPT:
        if (spoke_mux_accept(x.m, &s, &meta, SPOKE_NOW) == 0) {
            spoke_msg_free(meta);
            keep(at, s);
        }
        return;
    case DIAL:
        if (spoke_mux_dial(x.m, &s, "name", (size_t)(at & 4), NULL, SPOKE_NOW) == 0)
            keep(at, s);
        return;
    default: break;
    }
    if (s == NULL)
        return;
    if (what == READ) {
        MUST((spoke_stream_read(s, bytes, 1 + input_byte(in), &done) == 0) == (done > 0));
    } else if (what == WRITE) {
        (void)spoke_stream_write(s, bytes, (size_t)input_byte(in) * 19, &done);
    } else if (what == CLOSE) {
        (void)spoke_stream_close(s);
        x.streams[at] = NULL;
    } else {
        switch (input_byte(in) % 5) {
        case 0: (void)spoke_stream_close_write(s); break;
        case 1: (void)spoke_stream_close_read(s); break;
        case 2: (void)spoke_stream_abort(s, 7); break;
        case 3: (void)spoke_mux_set_priority(s, at); break;
        default: (void)spoke_mux_go_away(x.m, 3, "enough"); break;
        }
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint8_t flags = input_byte(&in), heard[4096];

    decode_both_ways(in.at, in.left, (flags & COMPATIBLE) == 0);
    memset(&x, 0, sizeof x);
    open_all(flags);
    for (int i = 0; i < 64 && in.left > 0; i++) {
        uint8_t action = input_byte(&in);
        int what = action & 7;

        if (what <= SAY_MORE) {
            size_t most = input_word(&in);
            const uint8_t *bytes = input_bytes(&in, most, &size);

            (void)lab_write(x.peer, bytes, size);
        } else {
            use(what, action >> 3 & 7, &in);
        }
        lab_settle(&x.lab);
        while ((size = lab_read(x.peer, heard, sizeof heard)) > 0 && size != LAB_ENDED) {
        }
        lab_settle(&x.lab);
        check_bounds();
    }
    close_all();
    return 0;
}
