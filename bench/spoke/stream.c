/* SPDX-License-Identifier: MIT */
/* Spoke's streams, connections or streams of a mux, through public headers only, in two ways: reads
 * and writes of the user's memory, which takes the place of a socket in the very program that is
 * the floor; and chunks, messages that the sender writes in place and the receiver reads where they
 * have arrived. */
#include <stdio.h>
#include <stdlib.h>

#include "../common/net.h"
#include "../common/stream.h"
#include "link.h"

static int
accept_one(struct spoke_bench_end *end, const struct bench_link *l,
           const spoke_stream_config *config)
{
    char actual[BENCH_ADDRESS_MAX];
    spoke_stream_listener *listener;
    int rc = spoke_stream_listen(&listener, l->options->address, config, end->engine);

    if (rc != 0)
        return spoke_bench_complain("spoke_stream_listen", rc);
    rc = spoke_stream_listener_address(listener, actual, sizeof actual);
    if (rc == 0) {
        bench_ready(l, actual);
        rc = spoke_stream_accept(listener, &end->stream, SPOKE_FOREVER);
    }
    spoke_stream_listener_close(listener);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_stream_accept", rc);
}

static int
connect_end(struct spoke_bench_end *end, const struct bench_link *l)
{
    spoke_stream_config config;
    int rc;

    spoke_stream_config_init(&config);
    config.busy_poll_ns = spoke_bench_wait(l->options);
    if (spoke_bench_tls(&config.tls, l->options) != 0)
        return -1;
    if (l->side == BENCH_SERVER)
        return accept_one(end, l, &config);
    rc = spoke_stream_dial(&end->stream, l->options->address, &config, end->engine, SPOKE_FOREVER);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_stream_dial", rc);
}

int
spoke_bench_open_end(struct spoke_bench_end *end, const struct bench_link *l)
{
    if (spoke_bench_engine(&end->engine, l->options) != 0)
        return -1;
    if (connect_end(end, l) == 0)
        return 0;
    if (end->engine != NULL)
        spoke_engine_close(end->engine);
    return -1;
}

int
spoke_bench_open_mux(struct spoke_bench_end *end, const struct bench_link *l,
                     spoke_mux_config *config)
{
    int rc;

    config->even = l->side == BENCH_SERVER;
    rc = spoke_mux_open(&end->mux, end->stream, config);
    if (rc != 0)
        return spoke_bench_complain("spoke_mux_open", rc);
    end->stream = NULL;
    return 0;
}

/* The client opens a stream, the server accepts it. */
static int
open_stream_of_mux(struct spoke_bench_end *end, const struct bench_link *l)
{
    spoke_mux_config config;
    int rc;

    spoke_mux_config_init(&config);
    if (spoke_bench_open_mux(end, l, &config) != 0)
        return -1;
    if (l->side == BENCH_CLIENT)
        rc = spoke_mux_dial(end->mux, &end->stream, NULL, 0, NULL, SPOKE_FOREVER);
    else
        rc = spoke_mux_accept(end->mux, &end->stream, NULL, SPOKE_FOREVER);
    return rc == 0 ? 0 : spoke_bench_complain("a stream of the mux", rc);
}

void
spoke_bench_close_end(struct spoke_bench_end *end, spoke_ns linger_ns)
{
    if (end->stream != NULL)
        spoke_stream_close(end->stream);
    if (end->mux != NULL)
        spoke_mux_close(end->mux, linger_ns);
    if (end->engine != NULL)
        spoke_engine_close(end->engine);
}

/* A connection, or a stream of a mux on one. */
static int
open_end(struct spoke_bench_end *end, const struct bench_link *l)
{
    if (spoke_bench_open_end(end, l) != 0)
        return -1;
    if (!spoke_bench_is_mux(l->options) || open_stream_of_mux(end, l) == 0)
        return 0;
    spoke_bench_close_end(end, 0);
    return -1;
}

static void
close_end(struct spoke_bench_end *end)
{
    spoke_bench_close_end(end, SPOKE_SECOND);
}

/* ---- in place of a socket ---- */

struct stream_link {
    struct raw_stream raw; /* first */
    struct spoke_bench_end end;
};

static int
stream_io_open(struct raw_stream *s)
{
    return open_end(&((struct stream_link *)s)->end, &s->link);
}

static void
stream_io_close(struct raw_stream *s)
{
    close_end(&((struct stream_link *)s)->end);
}

static ssize_t
stream_io_read(struct raw_stream *s, void *data, size_t size)
{
    size_t done;
    int rc = spoke_stream_read(((struct stream_link *)s)->end.stream, data, size, &done);

    return rc == 0 ? (ssize_t)done : spoke_bench_complain("spoke_stream_read", rc);
}

static int
stream_io_write(struct raw_stream *s, const void *data, size_t size)
{
    size_t done;
    int rc = spoke_stream_write(((struct stream_link *)s)->end.stream, data, size, &done);

    return rc == 0 ? 0 : spoke_bench_complain("spoke_stream_write", rc);
}

static const struct raw_io stream_io = {
    .open = stream_io_open,
    .close = stream_io_close,
    .read_some = stream_io_read,
    .write_all = stream_io_write,
};

static int
stream_open(struct bench_link *l)
{
    return raw_stream_open(l, &stream_io);
}

const struct bench_adapter spoke_bench_stream = {
    .name = "spoke",
    .link_size = sizeof(struct stream_link),
    .open = stream_open,
    .close = raw_stream_close,
    .send = raw_stream_send,
    .flush = raw_stream_flush,
    .receive = raw_stream_receive,
    .echo = raw_stream_echo,
};

/* ---- chunks ---- */

struct chunk_link {
    struct bench_link link; /* first */
    struct spoke_bench_end end;
    struct bench_cursor cursor; /* of what arrives */
};

static int
chunk_open(struct bench_link *l)
{
    return open_end(&((struct chunk_link *)l)->end, l);
}

static void
chunk_close(struct bench_link *l)
{
    close_end(&((struct chunk_link *)l)->end);
}

static int
send_chunk(struct chunk_link *p, uint64_t number, enum bench_phase phase)
{
    spoke_msg *m;
    size_t done;
    int rc = spoke_stream_loan(p->end.stream, p->link.size, &m);

    if (rc != 0)
        return spoke_bench_complain("spoke_stream_loan", rc);
    bench_write_message(&p->link, spoke_msg_body(m), number, phase);
    rc = spoke_stream_write_chunk(p->end.stream, m, &done);
    if (rc == 0)
        return 0;
    spoke_msg_free(m);
    return spoke_bench_complain("spoke_stream_write_chunk", rc);
}

static int
chunk_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (send_chunk((struct chunk_link *)l, first + i, phase) != 0)
            return -1;
    return 0;
}

/* As many as bring the rest of a body: the next wait must not be for one that has come. */
static int
chunk_receive(struct bench_link *l, struct bench_check *c)
{
    struct chunk_link *p = (struct chunk_link *)l;
    spoke_msg *m;
    int rc;

    do {
        if ((rc = spoke_stream_read_chunk(p->end.stream, &m)) != 0)
            return spoke_bench_complain("spoke_stream_read_chunk", rc);
        rc = bench_check_bytes(c, &p->cursor, spoke_msg_body(m), spoke_msg_size(m));
        spoke_msg_free(m);
    } while (rc == 0 && p->cursor.at != 0);
    return rc;
}

static int
chunk_echo(struct bench_link *l, struct bench_check *c)
{
    uint64_t number = bench_number(c->expected);

    if (chunk_receive(l, c) != 0)
        return -1;
    return send_chunk((struct chunk_link *)l, number, c->phase);
}

const struct bench_adapter spoke_bench_chunks = {
    .name = "spoke",
    .link_size = sizeof(struct chunk_link),
    .open = chunk_open,
    .close = chunk_close,
    .send = chunk_send,
    .receive = chunk_receive,
    .echo = chunk_echo,
};
