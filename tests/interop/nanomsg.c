/* SPDX-License-Identifier: MIT */
/* The stranger that runs libnanomsg. */
#include "tests/interop/stranger.h"

#ifdef SPOKE_HAVE_NANOMSG

#include <endian.h>
#include <errno.h>
#include <nanomsg/bus.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/pipeline.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <nanomsg/survey.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/world.h"

/* Received, and sent again as it is, `with_header` where that says whom it goes to. */
static int
echo(int s, bool with_header)
{
    void *body = NULL, *header = NULL;
    struct nn_iovec part = {&body, NN_MSG};
    struct nn_msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (with_header) {
        message.msg_control = &header;
        message.msg_controllen = NN_MSG;
    }
    if (nn_recvmsg(s, &message, 0) < 0)
        return 1;
    return nn_sendmsg(s, &message, 0) < 0 ? 1 : 0;
}

static int
echo_for_ever(int s, bool with_header)
{
    while (echo(s, with_header) == 0) {
    }
    return 1;
}

static int
send_sized(int s, size_t size, uint32_t seed)
{
    void *body = nn_allocmsg(size, 0);

    if (body == NULL)
        return 1;
    pattern_fill(body, size, seed);
    return nn_send(s, &body, NN_MSG, 0) < 0;
}

static int
send_one(int s, const struct errand *e, uint32_t i)
{
    return send_sized(s, stranger_size(e->many, i), i);
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
    return got == (int)PING ? receive_one(s, e, i) : !right;
}

/* ---- raw requests: their header travels in a control block, behind its size ---- */

#define ID_BYTES 4u

static void
make_id(uint8_t id[ID_BYTES], uint32_t i)
{
    uint32_t word = htobe32(0x80000000u | i);

    memcpy(id, &word, ID_BYTES);
}

static int
send_raw(int s, size_t size, uint32_t i)
{
    union {
        struct nn_cmsghdr header;
        uint8_t bytes[NN_CMSG_SPACE(sizeof(size_t) + ID_BYTES)];
    } control = {.header = {.cmsg_len = NN_CMSG_LEN(sizeof(size_t) + ID_BYTES),
                            .cmsg_level = PROTO_SP,
                            .cmsg_type = SP_HDR}};
    uint8_t *data = NN_CMSG_DATA(&control.header);
    size_t id_size = ID_BYTES;
    void *body = nn_allocmsg(size, 0);
    struct nn_iovec part = {&body, NN_MSG};
    struct nn_msghdr message = {.msg_iov = &part,
                                .msg_iovlen = 1,
                                .msg_control = &control,
                                .msg_controllen = sizeof control};

    if (body == NULL)
        return 1;
    pattern_fill(body, size, i);
    memcpy(data, &id_size, sizeof id_size);
    make_id(data + sizeof id_size, i);
    return nn_sendmsg(s, &message, 0) < 0;
}

static int
receive_raw(int s, const struct errand *e, uint32_t i)
{
    size_t size = stranger_size(e->many, i), id_size = 0;
    void *body = NULL, *control = NULL;
    struct nn_iovec part = {&body, NN_MSG};
    struct nn_msghdr message = {
        .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = NN_MSG};
    uint8_t id[ID_BYTES];
    int got = nn_recvmsg(s, &message, 0);

    if (got < 0)
        return 1;
    const uint8_t *data = NN_CMSG_DATA(control);
    memcpy(&id_size, data, sizeof id_size);
    make_id(id, i);
    bool right = (size_t)got == size && pattern_holds(body, size, i) && id_size == ID_BYTES &&
                 memcmp(data + sizeof id_size, id, ID_BYTES) == 0;
    nn_freemsg(body);
    nn_freemsg(control);
    return got == (int)PING ? receive_raw(s, e, i) : !right;
}

/* Only they have an id in front. */
static bool
has_id(const struct errand *e)
{
    return e->raw && (e->deed == ASK_REQ || e->deed == ASK_SURVEYOR);
}

/* The others wait until somebody is there. */
static bool
drops_what_nobody_hears(const struct errand *e)
{
    return e->deed == ASK_BUS || e->deed == ASK_SURVEYOR;
}

static int
ask_one(int s, const struct errand *e, size_t size, uint32_t i)
{
    return has_id(e) ? send_raw(s, size, i) : send_sized(s, size, i);
}

static int
set_patience(int s, int ms)
{
    return nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVTIMEO, &ms, sizeof ms) < 0;
}

/* Ask until there is an answer, each time with more patience.  A request or survey ends the one
 * before; answers that come late are known by their size. */
static int
reach(int s, const struct errand *e)
{
    void *body = NULL;
    int got = -1;

    for (int patience_ms = 20; got < 0; patience_ms *= 2) {
        if (patience_ms > LONGEST_PATIENCE_MS || set_patience(s, patience_ms) != 0 ||
            ask_one(s, e, PING, 0) != 0)
            return 1;
        got = nn_recv(s, &body, NN_MSG, 0);
        if (got < 0 && nn_errno() != ETIMEDOUT)
            return 1;
    }
    nn_freemsg(body);
    return set_patience(s, -1);
}

static int
ask_all(int s, const struct errand *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        if (ask_one(s, e, stranger_size(e->many, i), i) != 0 ||
            (has_id(e) ? receive_raw(s, e, i) : receive_one(s, e, i)) != 0)
            return 1;
    }
    return 0;
}

/* How many connections there have been. */
static uint64_t
connections(int s)
{
    return nn_get_statistic(s, NN_STAT_ESTABLISHED_CONNECTIONS) +
           nn_get_statistic(s, NN_STAT_ACCEPTED_CONNECTIONS);
}

/* Send what costs the connection, and go on with the next.  The next request would take this one
 * back if it had not gone yet, so wait for what comes of it; and one that is raw could still go to
 * the old connection. */
static int
exceed(int s, const struct errand *e, size_t size)
{
    uint64_t before = connections(s);

    if (ask_one(s, e, size, 0) != 0)
        return 1;
    while (connections(s) == before)
        usleep(1000);
    if (reach(s, e) != 0)
        return 1;
    while (nn_get_statistic(s, NN_STAT_CURRENT_CONNECTIONS) != 1)
        usleep(1000);
    return 0;
}

static int
ask(int s, const struct errand *e)
{
    int deadline_ms = 2 * LONGEST_PATIENCE_MS;

    if (e->deed == ASK_SURVEYOR && !e->raw &&
        nn_setsockopt(s, NN_SURVEYOR, NN_SURVEYOR_DEADLINE, &deadline_ms, sizeof deadline_ms) < 0)
        return 1;
    if ((drops_what_nobody_hears(e) && reach(s, e) != 0) || ask_all(s, e) != 0)
        return 11;
    if (e->over_ours && (exceed(s, e, OVER_OURS) != 0 || ask_all(s, e) != 0))
        return 12;
    if (e->over_theirs && (exceed(s, e, PROVOCATION) != 0 || ask_all(s, e) != 0))
        return 13;
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

/* What is over our limit comes behind the first round, and then behind every fourth: who has lost
 * the connection hears all the others meanwhile. */
static int
send_for_ever(int s, const struct errand *e)
{
    for (unsigned round = 0;; round++) {
        for (uint32_t i = 0; i < e->count; i++) {
            if (send_one(s, e, i) != 0)
                return 1;
            if (e->deed == PUBLISHES)
                usleep(1000);
        }
        if (e->over_ours && round % 4 == 0 && send_sized(s, OVER_OURS, 0) != 0)
            return 1;
    }
}

static int
take(int s, const struct errand *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        if (receive_one(s, e, i) != 0)
            return 1;
    }
    return 0;
}

static int
subscribe(int s)
{
    return nn_setsockopt(s, NN_SUB, NN_SUB_SUBSCRIBE, "", 0) < 0 ? -1 : s;
}

static int
open_socket(const struct errand *e)
{
    int domain = e->raw ? AF_SP_RAW : AF_SP;

    switch (e->deed) {
    case ECHO_REP: return nn_socket(domain, NN_REP);
    case ASK_REQ: return nn_socket(domain, NN_REQ);
    case ECHO_RESPONDENT: return nn_socket(domain, NN_RESPONDENT);
    case ASK_SURVEYOR: return nn_socket(domain, NN_SURVEYOR);
    case ECHO_PAIR:
    case ASK_PAIR:
    case SOURCE:
    case SINK: return nn_socket(domain, NN_PAIR);
    case ECHO_BUS:
    case ASK_BUS: return nn_socket(domain, NN_BUS);
    case ECHO_PAIR1:
    case ASK_PAIR1: return -1;
    case PUSHES: return nn_socket(domain, NN_PUSH);
    case PULLS: return nn_socket(domain, NN_PULL);
    case PUBLISHES: return nn_socket(domain, NN_PUB);
    case SUBSCRIBES: return subscribe(nn_socket(domain, NN_SUB));
    }
    return -1;
}

int
nanomsg_run(const struct errand *e)
{
    int s = open_socket(e), limit = (int)THEIR_LIMIT, reconnect_ms = 10;

    if (s < 0 || nn_setsockopt(s, NN_SOL_SOCKET, NN_RCVMAXSIZE, &limit, sizeof limit) < 0 ||
        nn_setsockopt(s, NN_SOL_SOCKET, NN_RECONNECT_IVL, &reconnect_ms, sizeof reconnect_ms) < 0 ||
        (e->listens ? nn_bind(s, e->url) : nn_connect(s, e->url)) < 0)
        return 3;
    switch (e->deed) {
    case ECHO_REP:
    case ECHO_RESPONDENT: return echo_for_ever(s, e->raw);
    case ECHO_PAIR:
    case ECHO_PAIR1:
    case ECHO_BUS: return echo_for_ever(s, false);
    case ASK_REQ:
    case ASK_SURVEYOR:
    case ASK_PAIR:
    case ASK_PAIR1:
    case ASK_BUS: return ask(s, e);
    case SOURCE: return source(s, e);
    case SINK: return sink(s, e);
    case PUSHES:
    case PUBLISHES: return send_for_ever(s, e);
    case PULLS:
    case SUBSCRIBES: return take(s, e);
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
