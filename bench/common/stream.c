/* SPDX-License-Identifier: MIT */
/* Small frames are packed into chunks and unpacked from them; a frame larger than a chunk is
 * written and read in pieces of one chunk, and read into the same memory again and again, which is
 * the fastest way for a kernel to copy. */
#include "stream.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net.h"

/* Who reads a byte stream does not know how it was written, and asks for as much as is worth it. */
enum { READ_MIN = 64 * 1024 };

int
raw_stream_complain(const char *call)
{
    fprintf(stderr, "bench: %s: %s\n", call, strerror(errno));
    return -1;
}

int
raw_stream_connect(struct raw_stream *s)
{
    const struct bench_options *o = s->link.options;
    char actual[BENCH_ADDRESS_MAX];
    int listener;

    if (s->link.side == BENCH_CLIENT) {
        s->fd = bench_net_connect(o->address);
        return s->fd < 0 ? -1 : 0;
    }
    listener = bench_net_listen(o->address, actual);
    if (listener < 0)
        return -1;
    bench_ready(&s->link, actual);
    s->fd = bench_net_accept(listener);
    close(listener);
    return s->fd < 0 ? -1 : 0;
}

/* A buffer for whole frames, filled with frames that only lack their numbers. */
static uint8_t *
new_frames(const struct raw_stream *s, size_t size)
{
    uint8_t *p = aligned_alloc(4096, (size + 4095) / 4096 * 4096);

    if (p == NULL) {
        fputs("bench: no memory\n", stderr);
        exit(1);
    }
    for (size_t at = 0; at + s->frame_size <= size; at += s->frame_size) {
        memset(p + at, 0, s->header_size);
        memcpy(p + at + s->header_size, s->link.pattern, s->link.size);
    }
    return p;
}

static size_t
size_of_header(const struct bench_options *o)
{
    if (bench_is_stream(o))
        return 0;
    return (o->transport == BENCH_IPC ? 9U : 8U) + (o->pattern == BENCH_REQ ? 4U : 0U);
}

static size_t
whole_frames(size_t frame, size_t chunk)
{
    return frame > chunk ? frame : chunk / frame * frame;
}

int
raw_stream_open(struct bench_link *l, const struct raw_io *io)
{
    struct raw_stream *s = (struct raw_stream *)l;
    const struct bench_options *o = l->options;

    s->io = io;
    s->fd = -1;
    s->header_size = size_of_header(o);
    s->frame_size = s->header_size + l->size;
    s->chunk_size = o->chunk_size < 4 * s->header_size ? 4 * s->header_size : o->chunk_size;
    s->in_size = s->chunk_size;
    if (o->work == BENCH_LATENCY || bench_is_stream(o))
        s->chunk_size = s->in_size = s->frame_size;
    if (o->work != BENCH_LATENCY && bench_is_stream(o) && s->in_size < READ_MIN)
        s->in_size = READ_MIN;
    for (unsigned i = 0; i < 2; i++)
        s->out[i] = new_frames(s, whole_frames(s->frame_size, s->chunk_size));
    s->in = new_frames(s, s->in_size < s->frame_size ? s->frame_size : s->in_size);
    return io->open(s);
}

void
raw_stream_close(struct bench_link *l)
{
    struct raw_stream *s = (struct raw_stream *)l;

    s->io->close(s);
    if (s->fd >= 0)
        close(s->fd);
    free(s->out[0]);
    free(s->out[1]);
    free(s->in);
}

int
raw_stream_flush(struct bench_link *l)
{
    struct raw_stream *s = (struct raw_stream *)l;
    const uint8_t *p = s->out[s->current];

    for (size_t at = 0, n; at < s->out_len; at += n) {
        n = s->out_len - at < s->chunk_size ? s->out_len - at : s->chunk_size;
        if (s->io->write_all(s, p + at, n) != 0)
            return -1;
    }
    s->current = !s->current;
    s->out_len = 0;
    return 0;
}

int
raw_stream_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    struct raw_stream *s = (struct raw_stream *)l;

    for (unsigned i = 0; i < count; i++) {
        bench_renew_body(l, s->out[s->current] + s->out_len + s->header_size, first + i, phase);
        s->out_len += s->frame_size;
        if (s->out_len + s->frame_size > s->chunk_size && raw_stream_flush(l) != 0)
            return -1;
    }
    return 0;
}

/* Take all whole frames from the buffer, keep the beginning of the next. */
static int
unpack(struct raw_stream *s, struct bench_check *c)
{
    size_t at = 0;

    for (; s->in_len - at >= s->frame_size; at += s->frame_size)
        if (bench_check_message(c, s->in + at + s->header_size, s->link.size) != 0)
            return -1;
    if (at != 0) {
        s->in_len -= at;
        memmove(s->in, s->in + at, s->in_len);
    }
    return 0;
}

static int
receive_small(struct raw_stream *s, struct bench_check *c)
{
    do {
        ssize_t n = s->io->read_some(s, s->in + s->in_len, s->in_size - s->in_len);
        if (n < 0)
            return -1;
        s->in_len += (size_t)n;
    } while (s->in_len < s->frame_size);
    return unpack(s, c);
}

/* A frame larger than a chunk: its header and number first, then pieces.  A word that is cut by two
 * pieces is not checked; where the cuts are differs from frame to frame. */
static int
receive_large(struct raw_stream *s, struct bench_check *c)
{
    size_t head = s->header_size + 8, got = 0;
    uint64_t word0, number;

    do {
        ssize_t n = s->io->read_some(s, s->in + got, s->chunk_size - got);
        if (n < 0)
            return -1;
        got += (size_t)n;
    } while (got < head);
    memcpy(&word0, s->in + s->header_size, 8);
    if (bench_check_word0(c, word0) != 0)
        return -1;
    number = bench_number(word0);
    if (c->touches_all)
        bench_check_touch(c, s->in + s->header_size, got - s->header_size);
    if (bench_check_is_sampled(number) &&
        bench_check_piece(c, number, s->in + s->header_size, 0, got - s->header_size) != 0)
        return -1;
    while (got < s->frame_size) {
        size_t left = s->frame_size - got;
        ssize_t n = s->io->read_some(s, s->in, left < s->chunk_size ? left : s->chunk_size);
        if (n < 0)
            return -1;
        if (c->touches_all)
            bench_check_touch(c, s->in, (size_t)n);
        if (bench_check_is_sampled(number) &&
            bench_check_piece(c, number, s->in, got - s->header_size, (size_t)n) != 0)
            return -1;
        got += (size_t)n;
    }
    return 0;
}

int
raw_stream_receive(struct bench_link *l, struct bench_check *c)
{
    struct raw_stream *s = (struct raw_stream *)l;

    return s->frame_size <= s->chunk_size ? receive_small(s, c) : receive_large(s, c);
}

int
raw_stream_echo(struct bench_link *l, struct bench_check *c)
{
    struct raw_stream *s = (struct raw_stream *)l;
    uint64_t number = bench_number(c->expected);

    /* One-way work begins with one echo, whose bytes may be gone by now: they are made again. */
    if (raw_stream_receive(l, c) != 0)
        return -1;
    if (l->options->work == BENCH_LATENCY)
        return s->io->write_all(s, s->in, s->frame_size);
    return raw_stream_send(l, number, c->phase, 1) == 0 ? raw_stream_flush(l) : -1;
}
