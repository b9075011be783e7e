/* SPDX-License-Identifier: MIT */
/* Adapter for nanomsg: PAIR (or REQ and REP, PUSH and PULL, SURVEYOR and RESPONDENT) sockets,
 * messages built in place and passed without a copy (NN_MSG).  No fanout: its PUB keeps one message
 * for each subscriber and loses the others, so there is no rate at which all arrive.
 *
 * The same program runs on the library that stands in for libnanomsg, if the loader finds that one
 * first; it says so in its results. */
#include <dlfcn.h>
#include <errno.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/pipeline.h>
#include <nanomsg/reqrep.h>
#include <nanomsg/survey.h>
#include <nanomsg/tcp.h>
#include <stdio.h>

#include "../common/net.h"
#include "../common/program.h"

/* Bytes that may wait on each side.  The default is 128 KiB; more made no work here slower and
 * inproc faster. */
enum { BUFFER_BYTES = 4 << 20 };

struct nanomsg_link {
    struct bench_link link; /* first */
    int socket;
};

static int
complain(const char *call)
{
    fprintf(stderr, "bench: %s: %s\n", call, nn_strerror(nn_errno()));
    return -1;
}

static int
socket_protocol(const struct bench_link *l)
{
    if (l->options->work == BENCH_PIPELINE)
        return l->side == BENCH_SERVER ? NN_PUSH : NN_PULL;
    if (l->options->work == BENCH_SURVEY)
        return l->side == BENCH_SERVER ? NN_SURVEYOR : NN_RESPONDENT;
    if (l->options->pattern == BENCH_PAIR)
        return NN_PAIR;
    return l->side == BENCH_SERVER ? NN_REP : NN_REQ;
}

static int
set_options(const struct nanomsg_link *n)
{
    int bytes = BUFFER_BYTES, no_limit = -1, yes = 1, ms = BENCH_SURVEY_MS;

    if (nn_setsockopt(n->socket, NN_SOL_SOCKET, NN_SNDBUF, &bytes, sizeof bytes) != 0 ||
        nn_setsockopt(n->socket, NN_SOL_SOCKET, NN_RCVBUF, &bytes, sizeof bytes) != 0 ||
        nn_setsockopt(n->socket, NN_SOL_SOCKET, NN_RCVMAXSIZE, &no_limit, sizeof no_limit) != 0 ||
        nn_setsockopt(n->socket, NN_TCP, NN_TCP_NODELAY, &yes, sizeof yes) != 0)
        return complain("nn_setsockopt");
    if (socket_protocol(&n->link) == NN_SURVEYOR &&
        nn_setsockopt(n->socket, NN_SURVEYOR, NN_SURVEYOR_DEADLINE, &ms, sizeof ms) != 0)
        return complain("nn_setsockopt");
    return 0;
}

static int
nanomsg_open(struct bench_link *l)
{
    struct nanomsg_link *n = (struct nanomsg_link *)l;
    const char *address = l->options->address;
    char actual[BENCH_ADDRESS_MAX];

    if (l->options->work == BENCH_FANOUT) {
        fputs("bench: nanomsg does not do fanout\n", stderr);
        return -1;
    }
    n->socket = nn_socket(AF_SP, socket_protocol(l));
    if (n->socket < 0)
        return complain("nn_socket");
    if (set_options(n) != 0)
        return -1;
    if (l->side == BENCH_CLIENT)
        return nn_connect(n->socket, address) >= 0 ? 0 : complain("nn_connect");
    if (bench_has_port(l->options)) {
        if (bench_net_choose_port(address, actual) != 0)
            return -1;
        address = actual;
    }
    if (nn_bind(n->socket, address) < 0)
        return complain("nn_bind");
    bench_ready(l, address);
    return 0;
}

static void
nanomsg_close(struct bench_link *l)
{
    bench_settle(l);
    nn_close(((struct nanomsg_link *)l)->socket);
}

static int
send_one(struct nanomsg_link *n, void *m)
{
    int flags = bench_spins(&n->link) ? NN_DONTWAIT : 0;
    unsigned turns = 0;

    while (nn_send(n->socket, &m, NN_MSG, flags) < 0) {
        if (nn_errno() == EAGAIN)
            bench_spin(&turns);
        else if (nn_errno() != EINTR)
            return complain("nn_send");
    }
    return 0;
}

/* The length, or -1. */
static int
receive_one(struct nanomsg_link *n, void **m)
{
    int flags = bench_spins(&n->link) ? NN_DONTWAIT : 0, len;
    unsigned turns = 0;

    while ((len = nn_recv(n->socket, m, NN_MSG, flags)) < 0) {
        if (nn_errno() == EAGAIN)
            bench_spin(&turns);
        else if (nn_errno() != EINTR)
            return complain("nn_recv");
    }
    return len;
}

static int
nanomsg_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        void *m = nn_allocmsg(l->size, 0);
        if (m == NULL)
            return complain("nn_allocmsg");
        bench_fill(m, l->pattern, l->size, first + i, phase);
        if (send_one((struct nanomsg_link *)l, m) != 0)
            return -1;
    }
    return 0;
}

static int
nanomsg_receive(struct bench_link *l, struct bench_check *c)
{
    void *m;
    int len = receive_one((struct nanomsg_link *)l, &m), rc;

    if (len < 0)
        return -1;
    rc = bench_check_message(c, m, (size_t)len);
    nn_freemsg(m);
    return rc;
}

static int
nanomsg_echo(struct bench_link *l, struct bench_check *c)
{
    struct nanomsg_link *n = (struct nanomsg_link *)l;
    void *m;
    int len = receive_one(n, &m);

    if (len < 0 || bench_check_message(c, m, (size_t)len) != 0)
        return -1;
    return send_one(n, m);
}

static struct bench_adapter nanomsg_adapter = {
    .name = "nanomsg",
    .link_size = sizeof(struct nanomsg_link),
    .open = nanomsg_open,
    .close = nanomsg_close,
    .send = nanomsg_send,
    .receive = nanomsg_receive,
    .echo = nanomsg_echo,
};

int
main(int argc, char **argv)
{
    /* Nobody else brings that function with him. */
    if (dlsym(RTLD_DEFAULT, "spoke_socket_open") != NULL)
        nanomsg_adapter.name = "spoke-nanomsg";
    return bench_program_main(argc, argv, &nanomsg_adapter);
}
