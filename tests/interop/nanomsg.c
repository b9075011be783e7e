/* SPDX-License-Identifier: MIT */
/* The stranger that runs libnanomsg. */
#include "tests/interop/stranger.h"

#ifdef SPOKE_HAVE_NANOMSG

#include <endian.h>
#include <nanomsg/bus.h>
#include <nanomsg/nn.h>
#include <nanomsg/pair.h>
#include <nanomsg/pipeline.h>
#include <nanomsg/pubsub.h>
#include <nanomsg/reqrep.h>
#include <nanomsg/survey.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* ---- raw requests: their header travels in a control block, behind its size ---- */

#define ID_BYTES 4u

static void
make_id(uint8_t id[ID_BYTES], uint32_t i)
{
    uint32_t word = htobe32(0x80000000u | i);

    memcpy(id, &word, ID_BYTES);
}

static int
send_raw(int s, const struct errand *e, uint32_t i)
{
    union {
        struct nn_cmsghdr header;
        uint8_t bytes[NN_CMSG_SPACE(sizeof(size_t) + ID_BYTES)];
    } control = {.header = {.cmsg_len = NN_CMSG_LEN(sizeof(size_t) + ID_BYTES),
                            .cmsg_level = PROTO_SP,
                            .cmsg_type = SP_HDR}};
    uint8_t *data = NN_CMSG_DATA(&control.header);
    size_t size = stranger_size(e->many, i), id_size = ID_BYTES;
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
    return !right;
}

static int
ask(int s, const struct errand *e)
{
    bool raw = e->deed == ASK_RAW || e->deed == SURVEY_RAW;

    for (uint32_t i = 0; i < e->count; i++) {
        if ((raw ? send_raw(s, e, i) : send_one(s, e, i)) != 0 ||
            (raw ? receive_raw(s, e, i) : receive_one(s, e, i)) != 0)
            return 1;
    }
    return 0;
}

static int
ask_when_told(int s, const struct errand *e)
{
    char word[8];

    return nn_recv(s, word, sizeof word, 0) < 0 ? 1 : ask(s, e);
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
give(int s, const struct errand *e)
{
    do {
        for (uint32_t i = 0; i < e->count; i++) {
            if (send_one(s, e, i) != 0)
                return 1;
            if (e->deed == PUBLISHES)
                usleep(1000);
        }
    } while (e->deed == PUBLISHES);
    pause();
    return 1;
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
    bool raw = e->deed == ECHO_RAW_REP || e->deed == ASK_RAW || e->deed == ECHO_RAW_RESPONDENT ||
               e->deed == SURVEY_RAW;
    int domain = raw ? AF_SP_RAW : AF_SP;

    switch (e->deed) {
    case ECHO_REP:
    case ECHO_RAW_REP: return nn_socket(domain, NN_REP);
    case ASK:
    case ASK_RAW: return nn_socket(domain, NN_REQ);
    case ECHO_RESPONDENT:
    case ECHO_RAW_RESPONDENT: return nn_socket(domain, NN_RESPONDENT);
    case SURVEY:
    case SURVEY_RAW: return nn_socket(domain, NN_SURVEYOR);
    case ECHO_PAIR:
    case SOURCE:
    case SINK: return nn_socket(domain, NN_PAIR);
    case ECHO_BUS:
    case ASK_BUS: return nn_socket(domain, NN_BUS);
    case ECHO_PAIR1: return -1;
    case PUSHES: return nn_socket(domain, NN_PUSH);
    case PULLS: return nn_socket(domain, NN_PULL);
    case PUBLISHES: return nn_socket(domain, NN_PUB);
    case SUBSCRIBES: return subscribe(nn_socket(domain, NN_SUB));
    }
    return -1;
}

/* A survey is for those who are there: wait until somebody is. */
static int
survey(int s, const struct errand *e)
{
    int deadline_ms = 30000;

    if (e->deed == SURVEY &&
        nn_setsockopt(s, NN_SURVEYOR, NN_SURVEYOR_DEADLINE, &deadline_ms, sizeof deadline_ms) < 0)
        return 1;
    while (nn_get_statistic(s, NN_STAT_CURRENT_CONNECTIONS) == 0)
        poll(NULL, 0, 5);
    return ask(s, e);
}

int
nanomsg_run(const struct errand *e)
{
    int s = open_socket(e);

    if (s < 0 || (e->listens ? nn_bind(s, e->url) : nn_connect(s, e->url)) < 0)
        return 3;
    switch (e->deed) {
    case ECHO_REP:
    case ECHO_RESPONDENT:
    case ECHO_PAIR:
    case ECHO_PAIR1:
    case ECHO_BUS: return echo_for_ever(s, false);
    case ASK_BUS: return ask_when_told(s, e);
    case ECHO_RAW_RESPONDENT:
    case ECHO_RAW_REP: return echo_for_ever(s, true);
    case ASK:
    case ASK_RAW: return ask(s, e);
    case SURVEY:
    case SURVEY_RAW: return survey(s, e);
    case SOURCE: return source(s, e);
    case SINK: return sink(s, e);
    case PUSHES:
    case PUBLISHES: return give(s, e);
    case PULLS:
    case SUBSCRIBES: return take(s, e);
    }
    return 3;
}

#else

/* A survey is for those who are there: wait until somebody is. */
static int
survey(int s, const struct errand *e)
{
    int deadline_ms = 30000;

    if (e->deed == SURVEY &&
        nn_setsockopt(s, NN_SURVEYOR, NN_SURVEYOR_DEADLINE, &deadline_ms, sizeof deadline_ms) < 0)
        return 1;
    while (nn_get_statistic(s, NN_STAT_CURRENT_CONNECTIONS) == 0)
        poll(NULL, 0, 5);
    return ask(s, e);
}

int
nanomsg_run(const struct errand *e)
{
    (void)e;
    return 3;
}

#endif
