/* SPDX-License-Identifier: MIT */
/* Framed messages over one stream with nothing in between: the floor that every library is compared
 * with.
 *
 * Frames have as many bytes as the Scalability Protocols' own (ipc 9 + body, tcp 8 + body, 4 more
 * for a request), but the receiver knows their size and parses nothing.  Where byte streams are
 * compared (`--pattern stream`) there is nothing but bodies, one in each call of write_all.  How
 * bytes get in and out is the adapter's: plain calls, io_uring, or spoke's own streams. */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include <sys/types.h>

#include "program.h"

struct raw_stream;

/* How bytes move.  0 or more bytes, or -1 after a message on stderr; an end of file counts as an
 * error. */
struct raw_io {
    int (*open)(struct raw_stream *s); /* listen and call bench_ready(), or connect */
    void (*close)(struct raw_stream *s);

    /* Read what there is, at least one byte. */
    ssize_t (*read_some)(struct raw_stream *s, void *data, size_t size);

    /* Write everything.  `data` stays untouched until the next call of write_all or read_some. */
    int (*write_all)(struct raw_stream *s, const void *data, size_t size);
};

struct raw_stream {
    struct bench_link link; /* first */
    const struct raw_io *io;
    int fd;             /* of raw_stream_connect(), closed by raw_stream_close(); else -1 */
    size_t header_size; /* of a frame, or 0 */
    size_t frame_size;
    size_t chunk_size;
    uint8_t *out[2];  /* what is written: one is filled while the kernel may still read the other */
    unsigned current; /* the one that is filled */
    size_t out_len;   /* bytes in it */
    uint8_t *in;      /* what has been read: the beginning of a frame, or several */
    size_t in_size;
    size_t in_len;
};

/* The adapter's calls. */
int raw_stream_open(struct bench_link *l, const struct raw_io *io);
void raw_stream_close(struct bench_link *l);
int raw_stream_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count);
int raw_stream_flush(struct bench_link *l);
int raw_stream_receive(struct bench_link *l, struct bench_check *c);
int raw_stream_echo(struct bench_link *l, struct bench_check *c);

/* For raw_io.open: s->fd, a connected socket.  0 or -1. */
int raw_stream_connect(struct raw_stream *s);

/* Say which call failed, for raw_io functions.  Always -1. */
int raw_stream_complain(const char *call);

#endif
