/* SPDX-License-Identifier: MIT */
/* Fuzz target: the wire of channels.  The peer is a mux whose openings and streams say any bytes,
 * in pieces of any size, while a user opens, accepts, sends, receives and takes what messages
 * carry. The same frames are decoded in one piece and byte by byte, with the same outcome. Whatever
 * is said, memory keeps its limit, the session lives, and nothing is left.
 *
 * Input: actions: what (one byte: its lowest 3 bits), which stream (its next 3 bits), and for what
 * the peer says its size (two bytes, big-endian) and the bytes. */
/* Covers: protocols/channel/frame.c protocols/channel/meta.c protocols/channel/wire_in.c
 * protocols/channel/wire_out.c protocols/channel/wire.c protocols/channel/roles.c
 * protocols/channel/carry.c */
#include <string.h>

#include <spoke/session.h>

#include "protocols/channel/frame.h"
#include "protocols/channel/meta.h"
#include "tests/fuzz/support/lab.h"

enum { OPEN, SAY, SAY_MORE, ACCEPT, OPEN_HERE, USE, CLOSE, CLOSE_HERE };

#define STREAMS 8
#define MEMORY  ((size_t)64 * 1024)

static struct scene {
    struct lab lab;
    spoke_session *ss;
    spoke_mux *peer;
    spoke_stream *streams[STREAMS]; /* the peer's */
    spoke_sender *senders[STREAMS];
    spoke_receiver *receivers[STREAMS];
} x;

/* ---- the decoder by itself ---- */

struct digest {
    uint64_t sum;
    int rc;
};

static void
add(struct digest *d, const void *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        d->sum = (d->sum ^ ((const uint8_t *)data)[i]) * 0x100000001b3u;
}

static void
add_event(struct digest *d, const struct spk_frame_decoder *decoder, int event)
{
    switch (event) {
    case SPK_FRAME_WHOLE:
    case SPK_FRAME_OF_MESSAGE:
        add(d, &decoder->frame.kind, 1);
        add(d, &decoder->frame.number, sizeof decoder->frame.number);
        add(d, &decoder->frame.size, sizeof decoder->frame.size);
        add(d, decoder->frame.text, strlen(decoder->frame.text));
        break;
    case SPK_FRAME_AN_ATTACHMENT: add(d, &decoder->attachment.id, 8); break;
    default:
        MUST(decoder->piece > 0 || decoder->last);
        add(d, decoder->data, decoder->piece);
        break;
    }
}

static struct digest
decode(const uint8_t *data, size_t size, size_t step)
{
    struct digest d = {.sum = 1};
    struct spk_frame_decoder decoder;

    spk_frame_decoder_init(&decoder, 1000);
    for (size_t from = 0; from < size && d.rc == 0; from += step) {
        const uint8_t *at = data + from, *end = data + (size - from < step ? size : from + step);

        while ((d.rc = spk_frame_decode(&decoder, &at, end)) > 0)
            add_event(&d, &decoder, d.rc);
        MUST(d.rc == SPOKE_EPROTO || at == end);
    }
    return d;
}

static void
decode_both_ways(const uint8_t *data, size_t size)
{
    struct digest whole = decode(data, size, size + 1), bytes = decode(data, size, 1);

    MUST(whole.sum == bytes.sum && whole.rc == bytes.rc);
}

/* What is understood is said in the same words, but for what is skipped. */
static void
decode_meta(const uint8_t *data, size_t size)
{
    uint8_t again[5000], twice[5000];
    struct spk_meta meta, same;
    size_t n;

    if (spk_meta_decode(data, size, &meta) != SPOKE_MUX_NONE)
        return;
    n = spk_meta_encode(again, sizeof again, &meta);
    MUST(n > 0 && spk_meta_decode(again, n, &same) == SPOKE_MUX_NONE);
    MUST(spk_meta_encode(twice, sizeof twice, &same) == n && memcmp(again, twice, n) == 0);
}

/* ---- the scene ---- */

static void
open_all(void)
{
    spoke_session_config config;
    spoke_sim_config world;
    spoke_stream *a, *b;

    lab_config(&world, 1, 0);
    lab_open(&x.lab, &world);
    spoke_session_config_init(&config);
    config.mux.even = true;
    config.channel.depth = 4;
    config.channel.max_message = MEMORY / 4;
    config.memory = MEMORY;
    config.backlog = 4;
    config.unclaimed_max = 4;
    MUST(spoke_stream_pair(&a, &b, NULL, x.lab.engine) == 0);
    MUST(spoke_session_open(&x.ss, a, &config) == 0);
    MUST(spoke_mux_open(&x.peer, b, NULL) == 0);
    lab_settle(&x.lab);
}

static void
close_all(void)
{
    for (int i = 0; i < STREAMS; i++) {
        if (x.streams[i] != NULL)
            (void)spoke_stream_close(x.streams[i]);
        if (x.senders[i] != NULL)
            (void)spoke_sender_close(x.senders[i]);
        if (x.receivers[i] != NULL)
            (void)spoke_receiver_close(x.receivers[i]);
    }
    MUST(spoke_session_close(x.ss, 0) == 0);
    MUST(spoke_mux_close(x.peer, 0) == 0);
    lab_close(&x.lab);
}

static void
check_bounds(void)
{
    struct spoke_session_info info;
    struct spoke_mux_end why;

    MUST(spoke_session_get_info(x.ss, &info) == 0);
    MUST(info.memory <= MEMORY);
    MUST(info.waiting <= 4 + 64 && info.unclaimed <= 4);
    MUST(spoke_session_status(x.ss, &why) == SPOKE_EAGAIN);
}

static void
peer_opens(int at, const uint8_t *meta, size_t size)
{
    spoke_stream *s;

    decode_meta(meta, size);
    if (x.streams[at] != NULL || spoke_mux_dial(x.peer, &s, meta, size, NULL, SPOKE_NOW) != 0)
        return;
    MUST(spoke_stream_set_deadline(s, SPOKE_NOW) == 0);
    x.streams[at] = s;
}

static void
peer_says(int at, const uint8_t *bytes, size_t size)
{
    static uint8_t heard[4096];
    size_t done;

    if (x.streams[at] == NULL)
        return;
    (void)spoke_stream_write(x.streams[at], bytes, size, &done);
    lab_settle(&x.lab);
    while (spoke_stream_read(x.streams[at], heard, sizeof heard, &done) == 0) {
    }
}

static void
accept_one(int at)
{
    spoke_stream *s;

    if (x.receivers[at] == NULL)
        (void)spoke_session_accept_receiver(x.ss, &x.receivers[at], NULL, SPOKE_NOW);
    if (x.senders[at] == NULL)
        (void)spoke_session_accept_sender(x.ss, &x.senders[at], NULL, SPOKE_NOW);
    if (spoke_session_accept_stream(x.ss, &s, SPOKE_NOW) == 0)
        (void)spoke_stream_close(s);
}

static void
open_here(int at)
{
    spoke_stream *s;
    spoke_msg *meta;

    if ((at & 1) != 0 && x.senders[at] == NULL)
        (void)spoke_session_open_sender(x.ss, &x.senders[at], NULL, NULL, SPOKE_NOW);
    else if (x.receivers[at] == NULL)
        (void)spoke_session_open_receiver(x.ss, &x.receivers[at], NULL, NULL, SPOKE_NOW);
    lab_settle(&x.lab);
    while (spoke_mux_accept(x.peer, &s, &meta, SPOKE_NOW) == 0) {
        spoke_msg_free(meta);
        MUST(spoke_stream_set_deadline(s, SPOKE_NOW) == 0);
        if (x.streams[at] == NULL)
            x.streams[at] = s;
        else
            (void)spoke_stream_close(s);
    }
}

static void
keep_what_came(spoke_msg *m, int at)
{
    int free_one = (at + 1) % STREAMS;

    for (size_t i = 0; i < spoke_msg_attachments(m); i++) {
        spoke_stream *s;

        if (x.receivers[free_one] == NULL &&
            spoke_msg_take_receiver(m, i, &x.receivers[free_one]) == 0)
            continue;
        if (x.senders[free_one] == NULL && spoke_msg_take_sender(m, i, &x.senders[free_one]) == 0)
            continue;
        if (spoke_msg_take_stream(m, i, &s) == 0)
            (void)spoke_stream_close(s);
    }
    spoke_msg_free(m);
}

static void
use(int at, uint8_t how)
{
    spoke_receiver *answers;
    spoke_msg *m;

    if (x.receivers[at] != NULL && spoke_receiver_recv(x.receivers[at], &m, SPOKE_NOW) == 0)
        keep_what_came(m, at);
    if (x.senders[at] == NULL || spoke_msg_new(&m, (size_t)how * 37) != 0)
        return;
    memset(spoke_msg_body(m), 0, spoke_msg_size(m));
    if ((how & 1) == 0) {
        if (spoke_sender_send(x.senders[at], m, SPOKE_NOW) != 0)
            spoke_msg_free(m);
    } else if (spoke_request(x.senders[at], m, &answers, NULL, SPOKE_NOW) != 0) {
        spoke_msg_free(m);
    } else {
        (void)spoke_receiver_close(answers);
    }
}

static void
close_one(int at, bool here)
{
    if (!here && x.streams[at] != NULL) {
        (void)spoke_stream_close(x.streams[at]);
        x.streams[at] = NULL;
    }
    if (here && x.senders[at] != NULL) {
        (void)spoke_sender_abort(x.senders[at], 300, "enough");
        x.senders[at] = NULL;
    }
    if (here && x.receivers[at] != NULL) {
        (void)spoke_receiver_close(x.receivers[at]);
        x.receivers[at] = NULL;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    decode_both_ways(data, size);
    decode_meta(data, size);
    memset(&x, 0, sizeof x);
    open_all();
    for (int i = 0; i < 64 && in.left > 0; i++) {
        uint8_t action = input_byte(&in);
        int what = action & 7, at = action >> 3 & 7;

        if (what <= SAY_MORE) {
            size_t most = input_word(&in);
            const uint8_t *bytes = input_bytes(&in, most, &size);

            if (what == OPEN)
                peer_opens(at, bytes, size);
            else
                peer_says(at, bytes, size);
        } else if (what == ACCEPT) {
            accept_one(at);
        } else if (what == OPEN_HERE) {
            open_here(at);
        } else if (what == USE) {
            use(at, input_byte(&in));
        } else {
            close_one(at, what == CLOSE_HERE);
        }
        lab_settle(&x.lab);
        check_bounds();
    }
    close_all();
    return 0;
}
