/* SPDX-License-Identifier: MIT */
/* The stranger that runs libnanomsg. */
#include "tests/interop/stranger.h"

#ifdef SPOKE_HAVE_NANOMSG

#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/reqrep.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/world.h"

/* Received, with its header on a raw socket; sent again as it is. */
static int
echo(int s, bool raw)
{
    void *body = NULL, *header = NULL;
    struct nn_iovec part = {&body, NN_MSG};
    struct nn_msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (raw) {
        message.msg_control = &header;
        message.msg_controllen = NN_MSG;
    }
    if (nn_recvmsg(s, &message, 0) < 0)
        return 1;
    return nn_sendmsg(s, &message, 0) < 0 ? 1 : 0;
}

static int
echo_for_ever(int s, bool raw)
{
    while (echo(s, raw) == 0) {
    }
    return 1;
}

static int
send_one(int s, const struct errand *e, uint32_t i)
{
    size_t size = stranger_size(e->many, i);
    void *body = nn_allocmsg(size, 0);

    if (body == NULL)
        return 1;
    pattern_fill(body, size, i);
    return nn_send(s, &body, NN_MSG, 0) < 0;
}

static int
receive_one(int s, const struct errand *e, uint32_t i)
{
    size_t size = stranger_size(e->many, i);
    void *body = NULL;
    int got = nn_recv(s, &body, NN_MSG, 0);

    if (got < 0)
        return 1;
    bool right = (size_t)got == size && pattern_holds(body, size, i);
    nn_freemsg(body);
    return !right;
}

static int
ask(int s, const struct errand *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        if (send_one(s, e, i) != 0 || receive_one(s, e, i) != 0)
            return 1;
    }
    return 0;
}

static int
source(int s, const struct errand *e)
{
    char word[8];

    for (uint32_t i = 0; i < e->count; i++) {
        if (send_one(s, e, i) != 0)
            return 1;
    }
    return nn_recv(s, word, sizeof word, 0) < 0;
}

static int
sink(int s, const struct errand *e)
{
    int failed = 0;

    for (uint32_t i = 0; i < e->count && !failed; i++)
        failed = receive_one(s, e, i);
    nn_send(s, failed ? "bad" : "good", 4, 0);
    return echo_for_ever(s, false);
}

static int
open_socket(const struct errand *e)
{
    int domain = e->deed == ECHO_RAW_REP ? AF_SP_RAW : AF_SP;

    switch (e->deed) {
    case ECHO_REP:
    case ECHO_RAW_REP: return nn_socket(domain, NN_REP);
    case ASK: return nn_socket(domain, NN_REQ);
    case ECHO_PAIR:
    case SOURCE:
    case SINK: return nn_socket(domain, NN_PAIR);
    case ASK_RAW: break;
    }
    return -1;
}

int
nanomsg_run(const struct errand *e)
{
    int s = open_socket(e);

    if (s < 0 || (e->listens ? nn_bind(s, e->url) : nn_connect(s, e->url)) < 0)
        return 3;
    switch (e->deed) {
    case ECHO_REP:
    case ECHO_PAIR: return echo_for_ever(s, false);
    case ECHO_RAW_REP: return echo_for_ever(s, true);
    case ASK: return ask(s, e);
    case SOURCE: return source(s, e);
    case SINK: return sink(s, e);
    case ASK_RAW: break;
    }
    return 3;
}

#else

int
nanomsg_run(const struct errand *e)
{
    (void)e;
    return 3;
}

#endif
