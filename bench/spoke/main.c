/* SPDX-License-Identifier: MIT */
/* Adapter for spoke itself, through its public headers only: PAIR (or REQ and REP, PUB and SUB,
 * BUS, STAR, PUSH and PULL, SURVEYOR and RESPONDENT) sockets on an owned or the shared engine, one
 * message per call or batches.  Small bodies are written into the message, large ones are lent, or
 * written where shared memory is. */
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#include "../common/net.h"
#include "../common/program.h"
#include "link.h"

enum { BATCH_MAX = 1024, LENT_BATCH_MAX = 16 };

struct spoke_link {
    struct bench_link link; /* first */
    spoke_engine *engine;   /* NULL: the shared one */
    spoke_socket *socket;
    spoke_msg *batch[BATCH_MAX];
};

static int
socket_pattern(const struct bench_link *l)
{
    if (l->options->pattern == BENCH_BUS)
        return SPOKE_BUS;
    if (l->options->pattern == BENCH_STAR)
        return SPOKE_STAR;
    if (l->options->work == BENCH_FANOUT)
        return l->side == BENCH_SERVER ? SPOKE_PUB : SPOKE_SUB;
    if (l->options->work == BENCH_PIPELINE)
        return l->side == BENCH_SERVER ? SPOKE_PUSH : SPOKE_PULL;
    if (l->options->work == BENCH_SURVEY)
        return l->side == BENCH_SERVER ? SPOKE_SURVEYOR : SPOKE_RESPONDENT;
    if (l->options->pattern == BENCH_PAIR)
        return SPOKE_PAIR;
    return l->side == BENCH_SERVER ? SPOKE_REP : SPOKE_REQ;
}

static int
connect_sides(struct spoke_link *p)
{
    char actual[BENCH_ADDRESS_MAX];
    int rc;

    if (p->link.side == BENCH_SERVER) {
        if (spoke_bench_listen(p->socket, p->link.options, actual, sizeof actual) != 0)
            return -1;
        bench_ready(&p->link, actual);
        return 0;
    }
    rc = spoke_dial(p->socket, p->link.options->address, NULL, 0);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_dial", rc);
}

static int
spoke_link_open(struct bench_link *l)
{
    struct spoke_link *p = (struct spoke_link *)l;

    if (l->sibling != NULL)
        p->engine = ((struct spoke_link *)l->sibling)->engine;
    if (spoke_bench_open(&p->engine, &p->socket, socket_pattern(l), l->options) != 0)
        return -1;
    if (l->size >= BENCH_LEND_MIN && l->options->transport != BENCH_SHM)
        l->buffers = bench_buffers_new(l->size, l->pattern);
    return connect_sides(p);
}

static void
spoke_link_close(struct bench_link *l)
{
    struct spoke_link *p = (struct spoke_link *)l;

    spoke_bench_close(l->sibling != NULL ? NULL : p->engine, p->socket);
}

static void
give_body(void *body, size_t size, void *buffers)
{
    (void)size;
    bench_buffers_give(body, buffers);
}

static int
new_message(struct spoke_link *p, spoke_msg **m, uint64_t number, enum bench_phase phase)
{
    size_t size = p->link.size;
    void *body;
    int rc;

    if (p->link.buffers == NULL) {
        size = bench_message_size(&p->link);
        if (spoke_bench_loans(p->link.options))
            rc = spoke_loan(p->socket, size, m);
        else
            rc = spoke_msg_new(m, size);
        if (rc != 0)
            return spoke_bench_complain("a new message", rc);
        bench_write_message(&p->link, spoke_msg_body(*m), number, phase);
        return 0;
    }
    /* They come back when they have been written, which on an owned engine is our own work. */
    while ((body = bench_buffers_take(p->link.buffers)) == NULL) {
        if (p->engine == NULL)
            sched_yield();
        else if ((rc = spoke_engine_poll(p->engine, SPOKE_MS)) < 0)
            return spoke_bench_complain("spoke_engine_poll", rc);
    }
    bench_renew_body(&p->link, body, number, phase);
    rc = spoke_msg_wrap(m, body, size, give_body, p->link.buffers);
    return rc == 0 ? 0 : spoke_bench_complain("spoke_msg_wrap", rc);
}

static int
send_one(struct spoke_link *p, spoke_msg *m)
{
    int rc = spoke_send(p->socket, m, 0);

    if (rc == 0)
        return 0;
    spoke_msg_free(m);
    return spoke_bench_complain("spoke_send", rc);
}

static int
send_batch(struct spoke_link *p, int count)
{
    int sent = 0;

    while (sent < count) {
        int rc = spoke_sendv(p->socket, p->batch + sent, count - sent, 0);
        if (rc < 0)
            return spoke_bench_complain("spoke_sendv", rc);
        sent += rc;
    }
    return 0;
}

/* A batch must not need more bodies than there are to lend. */
static unsigned
batch_size(const struct spoke_link *p)
{
    unsigned batch = p->link.options->batch;

    return p->link.size >= BENCH_LEND_MIN && batch > LENT_BATCH_MAX ? LENT_BATCH_MAX : batch;
}

static int
spoke_link_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    struct spoke_link *p = (struct spoke_link *)l;
    unsigned batch = batch_size(p), filled = 0;

    for (unsigned i = 0; i < count; i++) {
        if (new_message(p, &p->batch[filled], first + i, phase) != 0)
            return -1;
        if (batch == 1) {
            if (send_one(p, p->batch[0]) != 0)
                return -1;
        } else if (++filled == batch || i + 1 == count) {
            if (send_batch(p, (int)filled) != 0)
                return -1;
            filled = 0;
        }
    }
    return 0;
}

static int
check_and_free(const struct bench_link *l, struct bench_check *c, spoke_msg *m)
{
    int rc = bench_read_message(l, c, spoke_msg_body(m), spoke_msg_size(m));

    spoke_msg_free(m);
    return rc;
}

static int
spoke_link_receive(struct bench_link *l, struct bench_check *c)
{
    struct spoke_link *p = (struct spoke_link *)l;
    int count, rc = 0;

    if (l->options->batch == 1) {
        rc = spoke_recv(p->socket, &p->batch[0], 0);
        return rc == 0 ? check_and_free(l, c, p->batch[0]) : spoke_bench_complain("spoke_recv", rc);
    }
    count = spoke_recvv(p->socket, p->batch, (int)l->options->batch, 0);
    if (count < 0)
        return spoke_bench_complain("spoke_recvv", count);
    for (int i = 0; i < count; i++)
        rc |= check_and_free(l, c, p->batch[i]);
    return rc;
}

static int
spoke_link_echo(struct bench_link *l, struct bench_check *c)
{
    struct spoke_link *p = (struct spoke_link *)l;
    spoke_msg *m;
    int rc = spoke_recv(p->socket, &m, 0);

    if (rc != 0)
        return spoke_bench_complain("spoke_recv", rc);
    if (bench_check_message(c, spoke_msg_body(m), spoke_msg_size(m)) != 0) {
        spoke_msg_free(m);
        return -1;
    }
    return send_one(p, m);
}

/* An owned engine is this thread's work. */
static int
spoke_link_wait_input(struct bench_link *l, int fd, int ms)
{
    struct spoke_link *p = (struct spoke_link *)l;
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}};
    int rc = 0;

    if (p->engine != NULL) {
        if ((rc = spoke_engine_poll(p->engine, 0)) < 0)
            return spoke_bench_complain("spoke_engine_poll", rc);
        fds[1].fd = spoke_engine_fd(p->engine);
    }
    if (rc == 0 && ms > 0 && poll(fds, 2, ms) < 0 && errno != EINTR) {
        fprintf(stderr, "bench: poll: %s\n", strerror(errno));
        return -1;
    }
    return 0;
}

static int
other_work(const struct bench_options *o)
{
    if (o->work == BENCH_LOAN)
        return spoke_bench_loan(o);
    if (o->work == BENCH_HANDSHAKES || o->work == BENCH_RESUMPTIONS)
        return spoke_bench_handshakes(o);
    return o->work >= BENCH_MUX_CROWD ? spoke_bench_mux(o) : spoke_bench_connections(o);
}

static const struct bench_adapter spoke_adapter;

static const struct bench_adapter *
choose_adapter(const struct bench_options *o)
{
    if (o->pattern == BENCH_CHUNKS || o->pattern == BENCH_MUX_CHUNKS)
        return &spoke_bench_chunks;
    if (bench_is_channel(o))
        return &spoke_bench_channel;
    return bench_is_stream(o) ? &spoke_bench_stream : &spoke_adapter;
}

static const struct bench_adapter spoke_adapter = {
    .name = "spoke",
    .link_size = sizeof(struct spoke_link),
    .open = spoke_link_open,
    .close = spoke_link_close,
    .send = spoke_link_send,
    .receive = spoke_link_receive,
    .echo = spoke_link_echo,
    .wait_input = spoke_link_wait_input,
    .choose = choose_adapter,
    .other = other_work,
};

int
main(int argc, char **argv)
{
    return bench_program_main(argc, argv, &spoke_adapter);
}
