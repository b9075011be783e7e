/* SPDX-License-Identifier: MIT */
/* Handshakes by a REQ that dials and a REP that listens: a dialer for each connection. */
#include <stdio.h>
#include <string.h>

#include "../common/handshakes.h"
#include "../common/net.h"
#include "link.h"

struct spoke_shaker {
    struct bench_shaker shaker; /* first */
    spoke_engine *engine;       /* NULL: the shared one */
    spoke_socket *socket;
    spoke_dialer *dialer;
};

static int
on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct spoke_shaker *p = ctx;
    size_t size = sizeof p->shaker.resumed;

    if (event->type != SPOKE_EVENT_ATTACHING)
        return 0;
    return spoke_pipe_get(s, event->pipe, SPOKE_OPT_TLS_RESUMED, SPOKE_BOOL, &p->shaker.resumed,
                          &size);
}

static int
open_side(struct bench_shaker *s)
{
    struct spoke_shaker *p = (struct spoke_shaker *)s;
    struct bench_link link = {.options = s->options, .side = s->options->role};
    bool is_server = s->options->role == BENCH_SERVER;
    char actual[BENCH_ADDRESS_MAX];

    if (spoke_bench_open(&p->engine, &p->socket, is_server ? SPOKE_REP : SPOKE_REQ, s->options) !=
        0)
        return -1;
    if (!is_server) {
        int rc = spoke_socket_on_event(p->socket, on_event, p);

        return rc == 0 ? 0 : spoke_bench_complain("spoke_socket_on_event", rc);
    }
    if (spoke_bench_listen(p->socket, s->options, actual, sizeof actual) != 0)
        return -1;
    bench_ready(&link, actual);
    return 0;
}

static void
close_side(struct bench_shaker *s)
{
    struct spoke_shaker *p = (struct spoke_shaker *)s;

    spoke_bench_close(p->engine, p->socket);
}

static int
connect_side(struct bench_shaker *s)
{
    struct spoke_shaker *p = (struct spoke_shaker *)s;
    int rc;

    if (s->options->role == BENCH_SERVER) /* which accepts by itself */
        return 0;
    rc = spoke_dial(p->socket, s->options->address, &p->dialer, SPOKE_WAIT_FIRST);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_dial", rc);
}

static void
hang_up(struct bench_shaker *s)
{
    if (s->options->role == BENCH_CLIENT)
        spoke_dialer_close(((struct spoke_shaker *)s)->dialer);
}

static int
send_bytes(struct bench_shaker *s, const void *data, size_t size)
{
    spoke_msg *m;
    int rc = spoke_msg_new(&m, size);

    if (rc != 0)
        return spoke_bench_complain("spoke_msg_new", rc);
    memcpy(spoke_msg_body(m), data, size);
    if ((rc = spoke_send(((struct spoke_shaker *)s)->socket, m, 0)) == 0)
        return 0;
    spoke_msg_free(m);
    return spoke_bench_complain("spoke_send", rc);
}

static int
receive_bytes(struct bench_shaker *s, void *data, size_t size)
{
    spoke_msg *m;
    int rc = spoke_recv(((struct spoke_shaker *)s)->socket, &m, 0);

    if (rc != 0)
        return spoke_bench_complain("spoke_recv", rc);
    if (spoke_msg_size(m) != size)
        rc = spoke_bench_complain("spoke_recv", SPOKE_EMSGSIZE);
    else
        memcpy(data, spoke_msg_body(m), size);
    spoke_msg_free(m);
    return rc;
}

int
spoke_bench_handshakes(const struct bench_options *o)
{
    static const struct bench_shaker_ops ops = {
        .name = "spoke",
        .open = open_side,
        .close = close_side,
        .connect = connect_side,
        .hang_up = hang_up,
        .send = send_bytes,
        .receive = receive_bytes,
    };
    struct spoke_shaker shaker = {0};

    return bench_handshakes_run(&ops, &shaker.shaker, o);
}
