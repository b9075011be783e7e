/* SPDX-License-Identifier: MIT */
/* Adapter for NNG: PAIR version 0 (or REQ and REP, PUB and SUB, PUSH and PULL, SURVEYOR and
 * RESPONDENT) sockets, messages built in place and passed without a copy. */
#include <nng/nng.h>
#include <nng/protocol/pair0/pair.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/pubsub0/sub.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/protocol/survey0/respond.h>
#include <nng/protocol/survey0/survey.h>
#include <stdio.h>

#include "../common/net.h"
#include "../common/program.h"

/* Messages that may wait on each side.  The default is none, 8192 the most it takes. */
enum { QUEUE_LENGTH = 4096, QUEUE_LENGTH_LARGE = 16 };

struct nng_link {
    struct bench_link link; /* first */
    nng_socket socket;
};

static int
complain(const char *call, int rc)
{
    fprintf(stderr, "bench: %s: %s\n", call, nng_strerror(rc));
    return -1;
}

static int
open_socket(struct nng_link *n)
{
    bool is_server = n->link.side == BENCH_SERVER;

    if (n->link.options->work == BENCH_FANOUT)
        return is_server ? nng_pub0_open(&n->socket) : nng_sub0_open(&n->socket);
    if (n->link.options->work == BENCH_PIPELINE)
        return is_server ? nng_push0_open(&n->socket) : nng_pull0_open(&n->socket);
    if (n->link.options->work == BENCH_SURVEY)
        return is_server ? nng_surveyor0_open(&n->socket) : nng_respondent0_open(&n->socket);
    if (n->link.options->pattern == BENCH_PAIR)
        return nng_pair0_open(&n->socket);
    return is_server ? nng_rep0_open(&n->socket) : nng_req0_open(&n->socket);
}

static int
subscribe(struct nng_link *n)
{
    uint8_t topic[BENCH_TOPIC_SIZE];
    unsigned count = n->link.options->subscriptions;
    int rc = count == 0 ? nng_socket_set(n->socket, NNG_OPT_SUB_SUBSCRIBE, "", 0) : 0;

    for (unsigned i = 0; i < count && rc == 0; i++) {
        bench_topic_write(topic, i);
        rc = nng_socket_set(n->socket, NNG_OPT_SUB_SUBSCRIBE, topic, sizeof topic);
    }
    return rc;
}

static int
set_options(struct nng_link *n)
{
    int length = n->link.size >= BENCH_LEND_MIN ? QUEUE_LENGTH_LARGE : QUEUE_LENGTH, rc;

    /* Sockets that lack a queue refuse its length, and that is well. */
    rc = nng_socket_set_int(n->socket, NNG_OPT_SENDBUF, length);
    if (rc == 0 || rc == NNG_ENOTSUP)
        rc = nng_socket_set_int(n->socket, NNG_OPT_RECVBUF, length);
    if (rc != 0 && rc != NNG_ENOTSUP)
        return complain("nng_socket_set_int", rc);
    if (n->link.options->work == BENCH_FANOUT && n->link.side == BENCH_CLIENT &&
        (rc = subscribe(n)) != 0)
        return complain("nng_socket_set", rc);
    if (n->link.options->work == BENCH_SURVEY && n->link.side == BENCH_SERVER &&
        (rc = nng_socket_set_ms(n->socket, NNG_OPT_SURVEYOR_SURVEYTIME, BENCH_SURVEY_MS)) != 0)
        return complain("nng_socket_set_ms", rc);
    rc = nng_socket_set_size(n->socket, NNG_OPT_RECVMAXSZ, 0);
    return rc == 0 ? 0 : complain("nng_socket_set_size", rc);
}

static int
listen_at(struct nng_link *n)
{
    const char *address = n->link.options->address;
    char actual[BENCH_ADDRESS_MAX];
    int rc;

    if (bench_has_port(n->link.options)) {
        if (bench_net_choose_port(address, actual) != 0)
            return -1;
        address = actual;
    }
    if ((rc = nng_listen(n->socket, address, NULL, 0)) != 0)
        return complain("nng_listen", rc);
    bench_ready(&n->link, address);
    return 0;
}

static int
nng_link_open(struct bench_link *l)
{
    struct nng_link *n = (struct nng_link *)l;
    int rc = open_socket(n);

    if (rc != 0)
        return complain("nng open", rc);
    if (set_options(n) != 0)
        return -1;
    if (l->side == BENCH_SERVER)
        return listen_at(n);
    rc = nng_dial(n->socket, l->options->address, NULL, 0);
    return rc == 0 ? 0 : complain("nng_dial", rc);
}

static void
nng_link_close(struct bench_link *l)
{
    bench_settle(l);
    nng_close(((struct nng_link *)l)->socket);
}

static int
send_one(struct nng_link *n, nng_msg *m)
{
    int flags = bench_spins(&n->link) ? NNG_FLAG_NONBLOCK : 0, rc;
    unsigned turns = 0;

    while ((rc = nng_sendmsg(n->socket, m, flags)) != 0) {
        if (rc != NNG_EAGAIN)
            return complain("nng_sendmsg", rc);
        bench_spin(&turns);
    }
    return 0;
}

static int
receive_one(struct nng_link *n, nng_msg **m)
{
    int flags = bench_spins(&n->link) ? NNG_FLAG_NONBLOCK : 0, rc;
    unsigned turns = 0;

    while ((rc = nng_recvmsg(n->socket, m, flags)) != 0) {
        if (rc != NNG_EAGAIN)
            return complain("nng_recvmsg", rc);
        bench_spin(&turns);
    }
    return 0;
}

static int
nng_link_send(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        nng_msg *m;
        int rc = nng_msg_alloc(&m, bench_message_size(l));
        if (rc != 0)
            return complain("nng_msg_alloc", rc);
        bench_write_message(l, nng_msg_body(m), first + i, phase);
        if (send_one((struct nng_link *)l, m) != 0)
            return -1;
    }
    return 0;
}

static int
nng_link_receive(struct bench_link *l, struct bench_check *c)
{
    nng_msg *m;
    int rc;

    if (receive_one((struct nng_link *)l, &m) != 0)
        return -1;
    rc = bench_read_message(l, c, nng_msg_body(m), nng_msg_len(m));
    nng_msg_free(m);
    return rc;
}

static int
nng_link_echo(struct bench_link *l, struct bench_check *c)
{
    struct nng_link *n = (struct nng_link *)l;
    nng_msg *m;

    if (receive_one(n, &m) != 0 || bench_check_message(c, nng_msg_body(m), nng_msg_len(m)) != 0)
        return -1;
    return send_one(n, m);
}

static const struct bench_adapter nng_adapter = {
    .name = "nng",
    .link_size = sizeof(struct nng_link),
    .open = nng_link_open,
    .close = nng_link_close,
    .send = nng_link_send,
    .receive = nng_link_receive,
    .echo = nng_link_echo,
};

int
main(int argc, char **argv)
{
    return bench_program_main(argc, argv, &nng_adapter);
}
