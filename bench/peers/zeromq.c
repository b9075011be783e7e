/* SPDX-License-Identifier: MIT */
/* Adapter for ZeroMQ: PAIR (or REQ and REP, PUB and SUB, PUSH and PULL) sockets, one I/O thread,
 * which is its default and was the fastest here. Small bodies are built in place in a zmq_msg_t;
 * large ones are lent (zmq_msg_init_data), which saves a copy. */
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <zmq.h>

#include "../common/program.h"

/* Messages that may wait on each side.  The default is 1000; this gained a tenth over tcp and lost
 * nothing. */
enum { HIGH_WATER = 10000, LINGER_MS = 2000, SOCKETS_MAX = 4096 };

struct zeromq_link {
    struct bench_link link; /* first */
    void *socket;
};

static void *context; /* inproc needs one for both sides */

static int
complain(const char *call)
{
    fprintf(stderr, "bench: %s: %s\n", call, zmq_strerror(zmq_errno()));
    return -1;
}

static int
socket_type(const struct bench_link *l)
{
    if (l->options->work == BENCH_FANOUT)
        return l->side == BENCH_SERVER ? ZMQ_PUB : ZMQ_SUB;
    if (l->options->work == BENCH_PIPELINE)
        return l->side == BENCH_SERVER ? ZMQ_PUSH : ZMQ_PULL;
    if (l->options->pattern == BENCH_PAIR)
        return ZMQ_PAIR;
    return l->side == BENCH_SERVER ? ZMQ_REP : ZMQ_REQ;
}

static int
subscribe(struct zeromq_link *z)
{
    uint8_t topic[BENCH_TOPIC_SIZE];
    unsigned count = z->link.options->subscriptions;
    int rc = count == 0 ? zmq_setsockopt(z->socket, ZMQ_SUBSCRIBE, "", 0) : 0;

    for (unsigned i = 0; i < count && rc == 0; i++) {
        bench_topic_write(topic, i);
        rc = zmq_setsockopt(z->socket, ZMQ_SUBSCRIBE, topic, sizeof topic);
    }
    return rc == 0 ? 0 : complain("zmq_setsockopt");
}

static int
set_options(struct zeromq_link *z)
{
    int water = HIGH_WATER, linger = LINGER_MS;

    /* Both sides' queues and what is between them stay below the number of bodies to lend. */
    if (z->link.buffers != NULL)
        water = (int)bench_buffers_count(z->link.buffers) / 4;
    /* A PUB loses what is above it, and learns late what has left: the frame keeps it in bounds. */
    if (z->link.options->work == BENCH_FANOUT)
        water = 0;
    if (zmq_setsockopt(z->socket, ZMQ_SNDHWM, &water, sizeof water) != 0 ||
        zmq_setsockopt(z->socket, ZMQ_RCVHWM, &water, sizeof water) != 0 ||
        zmq_setsockopt(z->socket, ZMQ_LINGER, &linger, sizeof linger) != 0)
        return complain("zmq_setsockopt");
    return socket_type(&z->link) == ZMQ_SUB ? subscribe(z) : 0;
}

/* ZeroMQ writes "any port" with a star. */
static const char *
bind_address(const struct bench_options *o)
{
    return o->transport == BENCH_TCP ? "tcp://127.0.0.1:*" : o->address;
}

static int
zeromq_open(struct bench_link *l)
{
    struct zeromq_link *z = (struct zeromq_link *)l;
    char actual[256];
    size_t len = sizeof actual;

    if (context == NULL && (context = zmq_ctx_new()) == NULL)
        return complain("zmq_ctx_new");
    if (l->sibling == NULL && l->options->work == BENCH_FANOUT)
        zmq_ctx_set(context, ZMQ_MAX_SOCKETS, SOCKETS_MAX);
    if (l->options->work == BENCH_SURVEY) {
        fputs("bench: zeromq does not do surveys\n", stderr);
        return -1;
    }
    if ((z->socket = zmq_socket(context, socket_type(l))) == NULL)
        return complain("zmq_socket");
    if (l->size >= BENCH_LEND_MIN)
        l->buffers = bench_buffers_new(l->size, l->pattern);
    if (set_options(z) != 0)
        return -1;
    if (l->side == BENCH_CLIENT)
        return zmq_connect(z->socket, l->options->address) == 0 ? 0 : complain("zmq_connect");
    if (zmq_bind(z->socket, bind_address(l->options)) != 0)
        return complain("zmq_bind");
    if (zmq_getsockopt(z->socket, ZMQ_LAST_ENDPOINT, actual, &len) != 0)
        return complain("zmq_getsockopt");
    bench_ready(l, actual);
    return 0;
}

/* In a process that is both, the client ends the context, which waits for the server; of many
 * receivers the one that was opened first. */
static void
zeromq_close(struct bench_link *l)
{
    struct zeromq_link *z = (struct zeromq_link *)l;

    zmq_close(z->socket);
    if (l->sibling == NULL && (l->side == BENCH_CLIENT || l->options->role != BENCH_BOTH))
        zmq_ctx_term(context);
}

static int
send_one(struct zeromq_link *z, zmq_msg_t *m)
{
    int flags = bench_spins(&z->link) ? ZMQ_DONTWAIT : 0;
    unsigned turns = 0;

    while (zmq_msg_send(m, z->socket, flags) < 0) {
        if (zmq_errno() == EAGAIN)
            bench_spin(&turns);
        else if (zmq_errno() != EINTR)
            return complain("zmq_msg_send");
    }
    return 0;
}

static int
receive_one(struct zeromq_link *z, zmq_msg_t *m)
{
    int flags = bench_spins(&z->link) ? ZMQ_DONTWAIT : 0;
    unsigned turns = 0;

    zmq_msg_init(m);
    while (zmq_msg_recv(m, z->socket, flags) < 0) {
        if (zmq_errno() == EAGAIN)
            bench_spin(&turns);
        else if (zmq_errno() != EINTR)
            return complain("zmq_msg_recv");
    }
    return 0;
}

static int
new_message(struct zeromq_link *z, zmq_msg_t *m, uint64_t number, enum bench_phase phase)
{
    size_t size = z->link.size;
    void *body;

    if (z->link.buffers == NULL) {
        if (zmq_msg_init_size(m, bench_message_size(&z->link)) != 0)
            return complain("zmq_msg_init_size");
        bench_write_message(&z->link, zmq_msg_data(m), number, phase);
        return 0;
    }
    while ((body = bench_buffers_take(z->link.buffers)) == NULL)
        sched_yield();
    bench_renew_body(&z->link, body, number, phase);
    if (zmq_msg_init_data(m, body, size, bench_buffers_give, z->link.buffers) != 0)
        return complain("zmq_msg_init_data");
    return 0;
}

static int
zeromq_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    struct zeromq_link *z = (struct zeromq_link *)l;
    zmq_msg_t m;

    for (unsigned i = 0; i < count; i++)
        if (new_message(z, &m, first + i, phase) != 0 || send_one(z, &m) != 0)
            return -1;
    return 0;
}

static int
zeromq_receive(struct bench_link *l, struct bench_check *c)
{
    zmq_msg_t m;
    int rc;

    if (receive_one((struct zeromq_link *)l, &m) != 0)
        return -1;
    rc = bench_read_message(l, c, zmq_msg_data(&m), zmq_msg_size(&m));
    zmq_msg_close(&m);
    return rc;
}

static int
zeromq_echo(struct bench_link *l, struct bench_check *c)
{
    struct zeromq_link *z = (struct zeromq_link *)l;
    zmq_msg_t m;

    if (receive_one(z, &m) != 0 || bench_check_message(c, zmq_msg_data(&m), zmq_msg_size(&m)) != 0)
        return -1;
    return send_one(z, &m);
}

static const struct bench_adapter zeromq_adapter = {
    .name = "zeromq",
    .link_size = sizeof(struct zeromq_link),
    .open = zeromq_open,
    .close = zeromq_close,
    .send = zeromq_send,
    .receive = zeromq_receive,
    .echo = zeromq_echo,
};

int
main(int argc, char **argv)
{
    return bench_program_main(argc, argv, &zeromq_adapter);
}
