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
#include <nng/supplemental/tls/tls.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/world.h"

#define HEARTBEAT_MS 200

static bool
is_over_ws(const struct errand *e)
{
    return strncmp(e->url, "ws", 2) == 0;
}

/* Over ws NNG 1.5 misses that a connection ends while no receive of the pipe's waits, and BUS has
 * none for a moment after each message: only a send finds out.  So who wants to know sends
 * something now and then: a ping, which the other end ignores. */
static bool
needs_heartbeats(const struct errand *e)
{
    return (e->deed == ECHO_BUS || e->deed == ASK_BUS) && is_over_ws(e);
}

static int
beat(nng_socket s)
{
    return nng_send(s, "??", PING, 0);
}

static int
echo_for_ever(nng_socket s, const struct errand *e)
{
    nng_msg *m;
    int rc;

    if (needs_heartbeats(e) && nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, HEARTBEAT_MS) != 0)
        return 3;
    while ((rc = nng_recvmsg(s, &m, 0)) == 0 || (rc == NNG_ETIMEDOUT && beat(s) == 0)) {
        if (rc == NNG_ETIMEDOUT)
            continue;
        if (e->raw && e->deed == ECHO_BUS)
            nng_msg_header_clear(m); /* it would keep the message from where it came from */
        if (nng_sendmsg(s, m, 0) != 0)
            break;
    }
    return 1;
}

/* The word in front of the i-th message on a raw socket, where there is one. */
static bool
header_word(const struct errand *e, uint32_t i, uint32_t *word)
{
    *word = e->deed == ASK_PAIR1 ? 0 : 0x80000000u | i; /* hops; an id */
    return e->raw && (e->deed == ASK_REQ || e->deed == ASK_SURVEYOR || e->deed == ASK_PAIR1);
}

static int
send_sized(nng_socket s, const struct errand *e, size_t size, uint32_t i)
{
    nng_msg *m;
    uint32_t word;

    if (nng_msg_alloc(&m, size) != 0)
        return 1;
    pattern_fill(nng_msg_body(m), size, i);
    if (header_word(e, i, &word) && nng_msg_header_append_u32(m, word) != 0)
        return 1;
    return nng_sendmsg(s, m, 0) != 0;
}

static int
send_one(nng_socket s, const struct errand *e, uint32_t i)
{
    return send_sized(s, e, stranger_size(e->many, i), i);
}

static int
receive_one(nng_socket s, const struct errand *e, uint32_t i)
{
    size_t size = stranger_size(e->many, i);
    nng_msg *m;
    uint32_t word, got;

    do {
        if (nng_recvmsg(s, &m, 0) != 0)
            return 1;
    } while (nng_msg_len(m) == PING && (nng_msg_free(m), true));
    bool right = nng_msg_len(m) == size && pattern_holds(nng_msg_body(m), size, i);
    if (header_word(e, i, &word) &&
        (nng_msg_header_trim_u32(m, &got) != 0 || (e->deed != ASK_PAIR1 && got != word)))
        right = false;
    nng_msg_free(m);
    return !right;
}

static int
ask_all(nng_socket s, const struct errand *e)
{
    for (uint32_t i = 0; i < e->count; i++) {
        if (send_one(s, e, i) != 0 || receive_one(s, e, i) != 0)
            return 1;
    }
    return 0;
}

/* Ask until there is an answer, each time with more patience.  A request or survey ends the one
 * before; answers that come late are known by their size. */
static int
reach(nng_socket s, const struct errand *e)
{
    nng_msg *m;
    int rc = NNG_ETIMEDOUT;

    for (int patience_ms = 20; rc == NNG_ETIMEDOUT; patience_ms *= 2) {
        if (patience_ms > LONGEST_PATIENCE_MS ||
            nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, patience_ms) != 0 ||
            send_sized(s, e, PING, 0) != 0)
            return 1;
        rc = nng_recvmsg(s, &m, 0);
    }
    if (rc != 0)
        return 1;
    nng_msg_free(m);
    return nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, NNG_DURATION_INFINITE);
}

/* The others wait until somebody is there. */
static bool
drops_what_nobody_hears(const struct errand *e)
{
    return e->deed == ASK_BUS || e->deed == ASK_SURVEYOR;
}

static atomic_uint connections, ended; /* there have been */

/* PAIR turns some away: these end without having been. */
static void
on_pipe(nng_pipe p, nng_pipe_ev event, void *ctx)
{
    (void)p, (void)ctx;
    if (event == NNG_PIPE_EV_ADD_POST)
        connections++;
    else
        ended++;
}

/* Send what costs the connection, and go on with the next.  The next request would take this one
 * back if it had not gone yet, so wait for what comes of it; and one that is raw could still go to
 * the old connection. */
static int
exceed(nng_socket s, const struct errand *e, size_t size)
{
    unsigned before = connections;

    if (send_sized(s, e, size, 0) != 0)
        return 1;
    for (int ms = 1; connections == before; ms++) {
        usleep(1000);
        if (needs_heartbeats(e) && ms % HEARTBEAT_MS == 0 && beat(s) != 0)
            return 1;
    }
    if (reach(s, e) != 0)
        return 1;
    while (e->deed == ASK_REQ && e->raw && connections - ended != 1)
        usleep(1000);
    return 0;
}

static int
ask(nng_socket s, const struct errand *e)
{
    if (e->deed == ASK_SURVEYOR && !e->raw &&
        nng_socket_set_ms(s, NNG_OPT_SURVEYOR_SURVEYTIME, 2 * LONGEST_PATIENCE_MS) != 0)
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
    return echo_for_ever(s, e);
}

/* What is over our limit comes behind the first round, and then behind every fourth: who has lost
 * the connection hears all the others meanwhile. */
static int
send_for_ever(nng_socket s, const struct errand *e)
{
    for (unsigned round = 0;; round++) {
        for (uint32_t i = 0; i < e->count; i++) {
            if (send_one(s, e, i) != 0)
                return 1;
            if (e->deed == PUBLISHES)
                usleep(1000);
        }
        if (e->over_ours && round % 4 == 0 && send_sized(s, e, OVER_OURS, 0) != 0)
            return 1;
    }
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
open_cooked(nng_socket *s, enum deed deed)
{
    switch (deed) {
    case ECHO_REP: return nng_rep0_open(s);
    case ASK_REQ: return nng_req0_open(s);
    case ECHO_RESPONDENT: return nng_respondent0_open(s);
    case ASK_SURVEYOR: return nng_surveyor0_open(s);
    case ECHO_PAIR:
    case ASK_PAIR:
    case SOURCE:
    case SINK: return nng_pair0_open(s);
    case ECHO_PAIR1:
    case ASK_PAIR1: return nng_pair1_open(s);
    case ECHO_BUS:
    case ASK_BUS: return nng_bus0_open(s);
    case PUSHES: return nng_push0_open(s);
    case PULLS: return nng_pull0_open(s);
    case PUBLISHES: return nng_pub0_open(s);
    case SUBSCRIBES: return open_sub(s);
    }
    return -1;
}

static int
open_raw(nng_socket *s, enum deed deed)
{
    switch (deed) {
    case ECHO_REP: return nng_rep0_open_raw(s);
    case ASK_REQ: return nng_req0_open_raw(s);
    case ECHO_RESPONDENT: return nng_respondent0_open_raw(s);
    case ASK_SURVEYOR: return nng_surveyor0_open_raw(s);
    case ECHO_PAIR:
    case ASK_PAIR:
    case SOURCE:
    case SINK: return nng_pair0_open_raw(s);
    case ECHO_PAIR1:
    case ASK_PAIR1: return nng_pair1_open_raw(s);
    case ECHO_BUS:
    case ASK_BUS: return nng_bus0_open_raw(s);
    case PUSHES: return nng_push0_open_raw(s);
    case PULLS: return nng_pull0_open_raw(s);
    case PUBLISHES: return nng_pub0_open_raw(s);
    case SUBSCRIBES: return nng_sub0_open_raw(s); /* which filters nothing */
    }
    return -1;
}

static int
make_tls(nng_tls_config **out, const struct errand *e)
{
    nng_tls_auth_mode mode = e->demands || !e->listens ? NNG_TLS_AUTH_MODE_REQUIRED
                                                       : NNG_TLS_AUTH_MODE_NONE;

    if (nng_tls_config_alloc(out, e->listens ? NNG_TLS_MODE_SERVER : NNG_TLS_MODE_CLIENT) != 0 ||
        (!e->listens && nng_tls_config_server_name(*out, STRANGER_KNOWS_US_AS) != 0) ||
        (strcmp(e->cert, "-") != 0 && nng_tls_config_cert_key_file(*out, e->cert, NULL) != 0))
        return 3;
    return nng_tls_config_ca_file(*out, e->ca) != 0 || nng_tls_config_auth_mode(*out, mode) != 0;
}

static int
meet(nng_socket s, const struct errand *e)
{
    bool secure = strncmp(e->url, "tls", 3) == 0 || strncmp(e->url, "wss", 3) == 0;
    nng_tls_config *tls = NULL;
    nng_listener l;
    nng_dialer d;

    if (secure && make_tls(&tls, e) != 0)
        return 3;
    if (e->listens)
        return nng_listener_create(&l, s, e->url) != 0 ||
               (secure && nng_listener_set_ptr(l, NNG_OPT_TLS_CONFIG, tls) != 0) ||
               nng_listener_start(l, 0) != 0;
    return nng_dialer_create(&d, s, e->url) != 0 ||
           (secure && nng_dialer_set_ptr(d, NNG_OPT_TLS_CONFIG, tls) != 0) ||
           nng_dialer_start(d, NNG_FLAG_NONBLOCK) != 0;
}

int
nng_run(const struct errand *e)
{
    nng_socket s;

    if ((e->raw ? open_raw(&s, e->deed) : open_cooked(&s, e->deed)) != 0 ||
        nng_socket_set_size(s, NNG_OPT_RECVMAXSZ, THEIR_LIMIT) != 0)
        return 3;
    nng_socket_set_ms(s, NNG_OPT_RECONNMINT, 10);
    nng_socket_set_int(s, NNG_OPT_RECVBUF, 128); /* a raw SUB drops what it has no room for */
    nng_pipe_notify(s, NNG_PIPE_EV_ADD_POST, on_pipe, NULL);
    nng_pipe_notify(s, NNG_PIPE_EV_REM_POST, on_pipe, NULL);
    if (meet(s, e) != 0)
        return 3;
    switch (e->deed) {
    case ECHO_REP:
    case ECHO_RESPONDENT:
    case ECHO_PAIR:
    case ECHO_PAIR1:
    case ECHO_BUS: return echo_for_ever(s, e);
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
nng_run(const struct errand *e)
{
    (void)e;
    return 3;
}

#endif
