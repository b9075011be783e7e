/* SPDX-License-Identifier: MIT */
/* The stranger that runs NNG. */
#include "tests/interop/stranger.h"

#ifdef SPOKE_HAVE_NNG

#include <nng/nng.h>
#include <nng/protocol/bus0/bus.h>
#include <nng/protocol/pair0/pair.h>
#include <nng/protocol/pair1/pair.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/protocol/pubsub0/pub.h>
#include <nng/protocol/pubsub0/sub.h>
#include <nng/protocol/reqrep0/rep.h>
#include <nng/protocol/reqrep0/req.h>
#include <nng/protocol/survey0/respond.h>
#include <nng/protocol/survey0/survey.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/world.h"

static int
echo_for_ever(nng_socket s)
{
    nng_msg *m;

    while (nng_recvmsg(s, &m, 0) == 0) {
        if (nng_sendmsg(s, m, 0) != 0)
            break;
    }
    return 1;
}

static bool
is_raw(const struct errand *e)
{
    return e->deed == ASK_RAW || e->deed == SURVEY_RAW;
}

static int
send_one(nng_socket s, const struct errand *e, uint32_t i)
{
    size_t size = stranger_size(e->many, i);
    nng_msg *m;

    if (nng_msg_alloc(&m, size) != 0)
        return 1;
    pattern_fill(nng_msg_body(m), size, i);
    if (is_raw(e) && nng_msg_header_append_u32(m, 0x80000000u | i) != 0)
        return 1;
    return nng_sendmsg(s, m, 0) != 0;
}

static int
receive_one(nng_socket s, const struct errand *e, uint32_t i)
{
    size_t size = stranger_size(e->many, i);
    nng_msg *m;
    uint32_t id = 0x80000000u | i;

    if (nng_recvmsg(s, &m, 0) != 0)
        return 1;
    bool right = nng_msg_len(m) == size && pattern_holds(nng_msg_body(m), size, i);
    if (is_raw(e) && (nng_msg_header_trim_u32(m, &id) != 0 || id != (0x80000000u | i)))
        right = false;
    nng_msg_free(m);
    return !right;
}

static int
ask(nng_socket s, const struct errand *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        if (send_one(s, e, i) != 0 || receive_one(s, e, i) != 0)
            return 1;
    }
    return 0;
}

static int
ask_when_told(nng_socket s, const struct errand *e)
{
    nng_msg *m;

    if (nng_recvmsg(s, &m, 0) != 0)
        return 1;
    nng_msg_free(m);
    return ask(s, e);
}

static int
source(nng_socket s, const struct errand *e)
{
    nng_msg *m;

    for (uint32_t i = 0; i < e->count; i++) {
        if (send_one(s, e, i) != 0)
            return 1;
    }
    return nng_recvmsg(s, &m, 0) != 0;
}

static int
sink(nng_socket s, const struct errand *e)
{
    int failed = 0;
    char word[8];

    for (uint32_t i = 0; i < e->count && !failed; i++)
        failed = receive_one(s, e, i);
    strcpy(word, failed ? "bad" : "good");
    nng_send(s, word, 4, 0);
    return echo_for_ever(s);
}

static int
give(nng_socket s, const struct errand *e)
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
take(nng_socket s, const struct errand *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        if (receive_one(s, e, i) != 0)
            return 1;
    }
    return 0;
}

static int
open_sub(nng_socket *s)
{
    int rc = nng_sub0_open(s);

    return rc != 0 ? rc : nng_socket_set(*s, NNG_OPT_SUB_SUBSCRIBE, "", 0);
}

static int
open_socket(nng_socket *s, const struct errand *e)
{
    switch (e->deed) {
    case ECHO_REP: return nng_rep0_open(s);
    case ECHO_RAW_REP: return nng_rep0_open_raw(s);
    case ASK: return nng_req0_open(s);
    case ASK_RAW: return nng_req0_open_raw(s);
    case ECHO_RESPONDENT: return nng_respondent0_open(s);
    case ECHO_RAW_RESPONDENT: return nng_respondent0_open_raw(s);
    case SURVEY: return nng_surveyor0_open(s);
    case SURVEY_RAW: return nng_surveyor0_open_raw(s);
    case ECHO_PAIR:
    case SOURCE:
    case SINK: return nng_pair0_open(s);
    case ECHO_PAIR1: return nng_pair1_open(s);
    case ECHO_BUS:
    case ASK_BUS: return nng_bus0_open(s);
    case PUSHES: return nng_push0_open(s);
    case PULLS: return nng_pull0_open(s);
    case PUBLISHES: return nng_pub0_open(s);
    case SUBSCRIBES: return open_sub(s);
    }
    return -1;
}

static atomic_bool somebody; /* is there */

static void
on_pipe(nng_pipe p, nng_pipe_ev event, void *ctx)
{
    (void)p, (void)event, (void)ctx;
    somebody = true;
}

/* A survey is for those who are there: wait until somebody is. */
static int
survey(nng_socket s, const struct errand *e)
{
    if (e->deed == SURVEY && nng_socket_set_ms(s, NNG_OPT_SURVEYOR_SURVEYTIME, 30000) != 0)
        return 1;
    while (!somebody)
        poll(NULL, 0, 5);
    return ask(s, e);
}

int
nng_run(const struct errand *e)
{
    nng_socket s;

    if (open_socket(&s, e) != 0)
        return 3;
    nng_socket_set_ms(s, NNG_OPT_RECONNMINT, 10);
    nng_pipe_notify(s, NNG_PIPE_EV_ADD_POST, on_pipe, NULL);
    if ((e->listens ? nng_listen(s, e->url, NULL, 0)
                    : nng_dial(s, e->url, NULL, NNG_FLAG_NONBLOCK)) != 0)
        return 3;
    switch (e->deed) {
    case ECHO_REP:
    case ECHO_RAW_REP:
    case ECHO_RESPONDENT:
    case ECHO_RAW_RESPONDENT:
    case ECHO_PAIR:
    case ECHO_PAIR1:
    case ECHO_BUS: return echo_for_ever(s);
    case ASK_BUS: return ask_when_told(s, e);
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

static atomic_bool somebody; /* is there */

static void
on_pipe(nng_pipe p, nng_pipe_ev event, void *ctx)
{
    (void)p, (void)event, (void)ctx;
    somebody = true;
}

/* A survey is for those who are there: wait until somebody is. */
static int
survey(nng_socket s, const struct errand *e)
{
    if (e->deed == SURVEY && nng_socket_set_ms(s, NNG_OPT_SURVEYOR_SURVEYTIME, 30000) != 0)
        return 1;
    while (!somebody)
        poll(NULL, 0, 5);
    return ask(s, e);
}

int
nng_run(const struct errand *e)
{
    (void)e;
    return 3;
}

#endif
