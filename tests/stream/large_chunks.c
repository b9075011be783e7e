/* SPDX-License-Identifier: MIT */
/* Messages that are larger than what may be on its way are written in pieces, however much a stream
 * has carried before; those that are not go whole. */
#include <stdio.h>
#include <string.h>

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/test.h"

#define PIECE    ((size_t)16 * 1024)
#define LARGE    ((size_t)1024 * 1024)
#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

struct ends {
    spoke_engine *engine;
    spoke_stream *writer, *reader;
    uint64_t written, read; /* bytes */
    uint8_t buffer[PIECE];
};

static uint8_t
byte_at(uint64_t place)
{
    return (uint8_t)(place * 7 + place / 251);
}

static void
open_ends(struct ends *d, enum transport transport, size_t window)
{
    spoke_stream_config config;
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX];

    memset(d, 0, sizeof *d);
    spoke_stream_config_init(&config);
    config.window = window;
    endpoint_fresh(url, transport);
    cr_assert_eq(spoke_engine_open(&d->engine, NULL), 0);
    cr_assert_eq(spoke_stream_listen(&l, url, &config, d->engine), 0);
    cr_assert_eq(spoke_stream_dial(&d->writer, url, &config, d->engine,
                                   spoke_engine_now(d->engine) + PATIENCE),
                 0);
    cr_assert_eq(spoke_stream_accept(l, &d->reader, spoke_engine_now(d->engine) + PATIENCE), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
}

static void
close_ends(struct ends *d)
{
    cr_assert_eq(spoke_stream_close(d->writer), 0);
    cr_assert_eq(spoke_stream_close(d->reader), 0);
    cr_assert_eq(spoke_engine_close(d->engine), 0);
}

/* Read all that has been written. */
static void
catch_up(struct ends *d)
{
    while (d->read < d->written) {
        size_t done;
        cr_assert_eq(
            spoke_stream_set_read_deadline(d->reader, spoke_engine_now(d->engine) + PATIENCE), 0);
        cr_assert_eq(spoke_stream_read(d->reader, d->buffer, sizeof d->buffer, &done), 0);
        for (size_t i = 0; i < done; i++)
            cr_assert_eq(d->buffer[i], byte_at(d->read + i), "byte %llu",
                         (unsigned long long)(d->read + i));
        d->read += done;
    }
}

/* Write a message whole, or with `deadline` SPOKE_NOW a part of it; *done is how much. */
static int
write_message(struct ends *d, size_t size, spoke_ns deadline, size_t *done)
{
    spoke_msg *m;
    int rc;

    cr_assert_eq(spoke_msg_new(&m, size), 0);
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)spoke_msg_body(m))[i] = byte_at(d->written + i);
    cr_assert_eq(spoke_stream_set_write_deadline(d->writer, deadline), 0);
    rc = spoke_stream_write_chunk(d->writer, m, done);
    d->written += *done;
    if (rc != 0)
        spoke_msg_free(m);
    return rc;
}

static void
carry(enum transport transport)
{
    static struct ends d;
    size_t done;

    open_ends(&d, transport, 4 * PIECE);
    /* More than four times what follows, as small messages, all of which have been read. */
    while (d.written < 5 * LARGE) {
        cr_assert_eq(write_message(&d, PIECE, spoke_engine_now(d.engine) + PATIENCE, &done), 0);
        cr_assert_eq(done, PIECE);
        catch_up(&d);
    }
    cr_assert_eq(write_message(&d, LARGE, SPOKE_NOW, &done), SPOKE_EAGAIN);
    cr_assert_gt(done, 0, "nothing of it was written");
    cr_assert_leq(done, 4 * PIECE);
    catch_up(&d);
    close_ends(&d);
}

/* As large as the window, and so larger than a message of a socket that is told nothing else. */
static void
carry_whole(enum transport transport)
{
    static struct ends d;
    size_t done;

    open_ends(&d, transport, 2 * LARGE);
    while (spoke_engine_poll(d.engine, 0) > 0) { /* the window is known */
    }
    cr_assert_eq(write_message(&d, 2 * LARGE, spoke_engine_now(d.engine) + PATIENCE, &done), 0);
    cr_assert_eq(done, 2 * LARGE);
    catch_up(&d);
    close_ends(&d);
}

Test(stream_large_chunks, whole_inproc)
{
    carry_whole(INPROC);
}

Test(stream_large_chunks, whole_shm)
{
    carry_whole(SHM);
}

Test(stream_large_chunks, inproc)
{
    carry(INPROC);
}

Test(stream_large_chunks, shm)
{
    carry(SHM);
}
