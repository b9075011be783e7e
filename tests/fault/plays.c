/* SPDX-License-Identifier: MIT */
/* Every allocation of the library fails once, as in memory.c, under surveys, subscriptions,
 * contexts, a device, pipelines, buses, stars and pairs: each call gives a proper error or works
 * all the same, nothing is left, and the next attempt works.  In a simulated world: waiting for
 * what was lost takes no time. */
#include <stdio.h>
#include <string.h>

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/fault/shortage.h"
#include "tests/support/test.h"

#define TOO_MANY 20000
#define ATTEMPTS 50
#define HASTE    (100 * SPOKE_MS)
#define SOCKETS  4
#define SAID     (sizeof(uint32_t) + 5000) /* bytes of a large message */

/* ---- the stage: who plays opens sockets on it, and says numbers ---- */

struct stage {
    spoke_sim *w;
    spoke_engine *e;
    const char *url, *other_url;
    spoke_socket *sockets[SOCKETS];
    int count;
    spoke_context *contexts[2];
    uint32_t number; /* of the present exchange */
};

static int
add(struct stage *x, int pattern, spoke_socket **out)
{
    int rc = spoke_socket_open(out, pattern, x->e);

    if (rc != 0)
        return rc;
    x->sockets[x->count++] = *out;
    if ((rc = spoke_socket_set_duration(*out, SPOKE_OPT_RECV_TIMEOUT, HASTE)) != 0)
        return rc;
    if ((rc = spoke_socket_set_duration(*out, SPOKE_OPT_SEND_TIMEOUT, HASTE)) != 0)
        return rc;
    return spoke_socket_set_duration(*out, SPOKE_OPT_RECONNECT, SPOKE_MS);
}

static int
clear(struct stage *x)
{
    int rc = 0, first = 0;

    while (x->count > 0) {
        rc = spoke_socket_close(x->sockets[--x->count]);
        first = first != 0 ? first : rc;
    }
    memset(x->contexts, 0, sizeof x->contexts);
    return first;
}

/* Where to say it and to hear it: on a socket, or in a context of it. */
struct voice {
    spoke_socket *s;
    spoke_context *c;
};

static int
say(struct stage *x, struct voice to, uint32_t number)
{
    size_t size = x->number % 2 == 0 ? sizeof number : SAID;
    spoke_msg *m;
    int rc = spoke_msg_new(&m, size);

    if (rc != 0)
        return rc;
    memset(spoke_msg_body(m), (int)number & 0xff, size);
    memcpy(spoke_msg_body(m), &number, sizeof number);
    rc = to.c != NULL ? spoke_context_send(to.c, m, 0) : spoke_send(to.s, m, 0);
    if (rc != 0)
        spoke_msg_free(m);
    return rc;
}

static int
check(const spoke_msg *m, uint32_t *number)
{
    const uint8_t *body = spoke_msg_body(m);
    size_t size = spoke_msg_size(m);

    if (size != sizeof *number && size != SAID)
        return SPOKE_EPROTO;
    memcpy(number, body, sizeof *number);
    for (size_t i = sizeof *number; i < size; i++)
        if (body[i] != (*number & 0xff))
            return SPOKE_EPROTO;
    return 0;
}

/* Earlier numbers belong to exchanges that failed. */
static int
hear(struct voice from, uint32_t number)
{
    uint32_t found;
    spoke_msg *m;
    int rc;

    do {
        rc = from.c != NULL ? spoke_context_recv(from.c, &m, 0) : spoke_recv(from.s, &m, 0);
        if (rc != 0)
            return rc;
        rc = check(m, &found);
        spoke_msg_free(m);
    } while (rc == 0 && found < number);
    return rc == 0 && found != number ? SPOKE_EPROTO : rc;
}

/* ---- surveys: two respondents ---- */

static int
open_survey(struct stage *x)
{
    spoke_socket *s[3];
    int rc;

    if ((rc = add(x, SPOKE_SURVEYOR, &s[0])) != 0 ||
        (rc = spoke_socket_set_duration(s[0], SPOKE_OPT_SURVEY_TIME, HASTE)) != 0 ||
        (rc = spoke_listen(s[0], x->url, NULL, 0)) != 0)
        return rc;
    for (int i = 1; i < 3; i++)
        if ((rc = add(x, SPOKE_RESPONDENT, &s[i])) != 0 ||
            (rc = spoke_dial(s[i], x->url, NULL, SPOKE_WAIT_FIRST)) != 0)
            return rc;
    return 0;
}

static int
survey(struct stage *x)
{
    struct voice surveyor = {x->sockets[0], NULL};
    int rc = say(x, surveyor, x->number);

    for (int i = 1; i < 3 && rc == 0; i++) {
        struct voice respondent = {x->sockets[i], NULL};
        if ((rc = hear(respondent, x->number)) == 0)
            rc = say(x, respondent, x->number);
    }
    for (int i = 1; i < 3 && rc == 0; i++)
        rc = hear(surveyor, x->number);
    return rc;
}

/* ---- a topic for each exchange ---- */

static int
open_topics(struct stage *x)
{
    spoke_socket *pub, *sub;
    int rc;

    if ((rc = add(x, SPOKE_PUB, &pub)) != 0 || (rc = add(x, SPOKE_SUB, &sub)) != 0 ||
        (rc = spoke_listen(pub, x->url, NULL, 0)) != 0)
        return rc;
    return spoke_dial(sub, x->url, NULL, SPOKE_WAIT_FIRST);
}

/* The message before and the one after are nobody's. */
static int
publish(struct stage *x)
{
    struct voice pub = {x->sockets[0], NULL}, sub = {x->sockets[1], NULL};
    int rc, rc_end;

    rc = spoke_socket_set(sub.s, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, &x->number, sizeof x->number);
    if (rc != 0)
        return rc;
    if ((rc = say(x, pub, x->number + 1000000)) == 0 && (rc = say(x, pub, x->number)) == 0 &&
        (rc = say(x, pub, x->number + 2000000)) == 0)
        rc = hear(sub, x->number);
    rc_end = spoke_socket_set(sub.s, SPOKE_OPT_UNSUBSCRIBE, SPOKE_BYTES, &x->number,
                              sizeof x->number);
    return rc_end != 0 ? rc_end : rc;
}

/* ---- contexts: two that ask, two that answer, and a third that comes and goes ---- */

static int
open_contexts(struct stage *x)
{
    spoke_socket *rep, *req;
    int rc;

    if ((rc = add(x, SPOKE_REP, &rep)) != 0 || (rc = add(x, SPOKE_REQ, &req)) != 0 ||
        (rc = spoke_socket_set_duration(req, SPOKE_OPT_RETRY_TIME, 50 * SPOKE_MS)) != 0 ||
        (rc = spoke_listen(rep, x->url, NULL, 0)) != 0 ||
        (rc = spoke_dial(req, x->url, NULL, SPOKE_WAIT_FIRST)) != 0 ||
        (rc = spoke_context_open(&x->contexts[0], rep)) != 0)
        return rc;
    return spoke_context_open(&x->contexts[1], req);
}

/* Requests that were taken are asked until they are answered. */
static int
answer(struct stage *x, struct voice requester, struct voice replier, uint32_t number)
{
    int rc = SPOKE_ETIMEDOUT;

    for (int i = 0; i < ATTEMPTS && rc == SPOKE_ETIMEDOUT; i++) {
        rc = hear(replier, number);
        if (rc == 0)
            rc = say(x, replier, number);
        if (rc == 0 || rc == SPOKE_ETIMEDOUT)
            rc = hear(requester, number);
    }
    return rc == SPOKE_ETIMEDOUT ? SPOKE_EPROTO : rc;
}

static int
converse(struct stage *x)
{
    struct voice rep = {x->sockets[0], NULL}, rep_context = {NULL, x->contexts[0]};
    struct voice req = {x->sockets[1], NULL}, req_context = {NULL, x->contexts[1]};
    spoke_context *third;
    int rc = spoke_context_open(&third, x->sockets[1]);

    if (rc != 0)
        return rc;
    if ((rc = say(x, req, x->number)) == 0 && (rc = answer(x, req, rep, x->number)) == 0 &&
        (rc = say(x, req_context, ++x->number)) == 0)
        rc = answer(x, req_context, rep_context, x->number);
    int rc_close = spoke_context_close(third);
    return rc != 0 ? rc : rc_close;
}

/* ---- a device between a requester and a replier ---- */

static int
open_device(struct stage *x)
{
    spoke_socket *front, *back, *req, *rep;
    spoke_device *d;
    int rc;

    if ((rc = add(x, SPOKE_REP, &front)) != 0 || (rc = add(x, SPOKE_REQ, &back)) != 0 ||
        (rc = spoke_device_start(&d, front, back)) != 0 ||
        (rc = spoke_listen(front, x->url, NULL, 0)) != 0 ||
        (rc = spoke_listen(back, x->other_url, NULL, 0)) != 0)
        return rc;
    if ((rc = add(x, SPOKE_REQ, &req)) != 0 || (rc = add(x, SPOKE_REP, &rep)) != 0 ||
        (rc = spoke_socket_set_duration(req, SPOKE_OPT_RETRY_TIME, 50 * SPOKE_MS)) != 0 ||
        (rc = spoke_dial(req, x->url, NULL, SPOKE_WAIT_FIRST)) != 0)
        return rc;
    return spoke_dial(rep, x->other_url, NULL, SPOKE_WAIT_FIRST);
}

static int
relay(struct stage *x)
{
    struct voice req = {x->sockets[2], NULL}, rep = {x->sockets[3], NULL};
    int rc = say(x, req, x->number);

    return rc != 0 ? rc : answer(x, req, rep, x->number);
}

/* ---- patterns without states: two senders and one who takes, and who hears whom ---- */

/* So many sockets, of which the first listens. */
static int
open_around(struct stage *x, int listener, int dialers, int count)
{
    spoke_socket *s;
    int rc = add(x, listener, &s);

    if (rc == 0)
        rc = spoke_listen(s, x->url, NULL, 0);
    for (int i = 0; i < count && rc == 0; i++)
        if ((rc = add(x, dialers, &s)) == 0)
            rc = spoke_dial(s, x->url, NULL, SPOKE_WAIT_FIRST);
    return rc;
}

/* One says it, and the sockets of this mask hear it. */
static int
tell(struct stage *x, int from, unsigned to)
{
    int rc = say(x, (struct voice){x->sockets[from], NULL}, x->number);

    for (int i = 0; i < x->count && rc == 0; i++)
        if ((to & 1u << i) != 0)
            rc = hear((struct voice){x->sockets[i], NULL}, x->number);
    return rc;
}

static int
open_pipeline(struct stage *x)
{
    return open_around(x, SPOKE_PULL, SPOKE_PUSH, 2);
}

static int
collect(struct stage *x)
{
    int rc = tell(x, 1, 1);

    return rc != 0 ? rc : tell(x, 2, 1);
}

static int
open_bus(struct stage *x)
{
    return open_around(x, SPOKE_BUS, SPOKE_BUS, 2);
}

static int
ride(struct stage *x)
{
    int rc = tell(x, 0, 2 | 4);

    return rc != 0 ? rc : tell(x, 1, 1);
}

static int
open_star(struct stage *x)
{
    return open_around(x, SPOKE_STAR, SPOKE_STAR, 2);
}

static int
pass_on(struct stage *x)
{
    int rc = tell(x, 1, 1 | 4);

    return rc != 0 ? rc : tell(x, 0, 2 | 4);
}

static int
open_pair(struct stage *x)
{
    return open_around(x, SPOKE_PAIR1, SPOKE_PAIR1, 1);
}

static int
talk(struct stage *x)
{
    int rc = tell(x, 0, 2);

    return rc != 0 ? rc : tell(x, 1, 1);
}

/* ---- all of them, everywhere ---- */

static const struct play {
    const char *name;
    int (*open)(struct stage *x);
    int (*exchange)(struct stage *x);
} plays[] = {
    {"survey", open_survey, survey},       {"topics", open_topics, publish},
    {"contexts", open_contexts, converse}, {"device", open_device, relay},
    {"pipeline", open_pipeline, collect},  {"bus", open_bus, ride},
    {"star", open_star, pass_on},          {"pair1", open_pair, talk},
};
enum { PLAYS = sizeof plays / sizeof plays[0] };

static const char *const urls[][2] = {
    {"inproc://a", "inproc://b"},
    {"ipc:///a", "ipc:///b"},
    {"tcp://127.0.0.1:1", "tcp://127.0.0.1:2"},
};
enum { URLS = sizeof urls / sizeof urls[0] };

struct performance {
    int play, url;
};

static struct criterion_test_params
all_performances(void)
{
    static struct performance all[PLAYS * URLS];

    for (int i = 0; i < PLAYS * URLS; i++)
        all[i] = (struct performance){i % PLAYS, i / PLAYS};
    return (struct criterion_test_params){
        .size = sizeof all[0], .params = all, .length = sizeof all / sizeof all[0]};
}

static struct spoke_memory_stats before;

static void
open_stage(struct stage *x, const struct performance *p)
{
    memset(x, 0, sizeof *x);
    x->url = urls[p->url][0];
    x->other_url = urls[p->url][1];
    spoke_memory_stats(&before);
    cr_assert_eq(spoke_sim_open(&x->w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(x->w, &x->e), 0);
}

static void
close_stage(struct stage *x, const struct play *play, long n)
{
    struct spoke_memory_stats after;
    int rc = clear(x);

    cr_assert(rc == 0, "%s, allocation %ld: close: %s", play->name, n, spoke_error_name(rc));
    rc = spoke_sim_close(x->w, NULL);
    cr_assert(rc == 0, "%s, allocation %ld: something is left", play->name, n);
    spoke_memory_stats(&after);
    cr_assert(after.messages == before.messages && after.chunks == before.chunks &&
                  after.others == before.others,
              "%s, allocation %ld: %d messages, %d chunks and %d blocks are left", play->name, n,
              (int)(after.messages - before.messages), (int)(after.chunks - before.chunks),
              (int)(after.others - before.others));
}

static int
exchange(struct stage *x, const struct play *play)
{
    x->number++;
    (void)spoke_sim_run(x->w, NULL, NULL, 10 * SPOKE_MS); /* the listeners know their peers too */
    return play->exchange(x);
}

/* Whatever happened: in the end it works. */
static void
recover(struct stage *x, const struct play *play, long n)
{
    int rc = SPOKE_EAGAIN;

    for (int i = 0; i < ATTEMPTS && rc != 0 && rc != SPOKE_EPROTO; i++)
        rc = exchange(x, play);
    cr_assert(rc == 0, "%s, after allocation %ld failed: %s", play->name, n, spoke_error_name(rc));
}

/* What is short, or lost for that; a survey that nobody has heard of is over. */
static bool
is_proper(int rc)
{
    return rc == 0 || rc == SPOKE_ENOMEM || rc == SPOKE_ETIMEDOUT || rc == SPOKE_ECONNRESET ||
           rc == SPOKE_EOF || rc == SPOKE_ESTATE;
}

ParameterizedTestParameters(plays,
                            a_failed_allocation_from_open_to_the_first_exchange_leaves_nothing)
{
    return all_performances();
}

ParameterizedTest(struct performance *p, plays,
                  a_failed_allocation_from_open_to_the_first_exchange_leaves_nothing)
{
    const struct play *play = &plays[p->play];
    long failures = 0;

    shortage_fired = true;
    for (long n = 1; shortage_fired; n++) {
        struct stage x;

        cr_assert_lt(n, TOO_MANY);
        open_stage(&x, p);
        shortage_at(n);
        int rc = play->open(&x);
        if (rc == 0)
            rc = exchange(&x, play);
        shortage_end();
        cr_assert(is_proper(rc) && (rc == 0 || shortage_fired), "%s, allocation %ld: %s",
                  play->name, n, spoke_error_name(rc));
        if (rc != 0) {
            failures++;
            rc = clear(&x);
            cr_assert(rc == 0, "%s, allocation %ld: %s", play->name, n, spoke_error_name(rc));
            cr_assert_eq(play->open(&x), 0, "%s, after allocation %ld failed", play->name, n);
        }
        recover(&x, play, n);
        recover(&x, play, n); /* the other size */
        close_stage(&x, play, n);
    }
    cr_log_info("%s, %s: %ld failures", play->name, urls[p->url][0], failures);
    cr_assert_gt(failures, 5, "it was not tried");
}

ParameterizedTestParameters(plays, a_failed_allocation_in_an_exchange_loses_at_most_this_one)
{
    return all_performances();
}

ParameterizedTest(struct performance *p, plays,
                  a_failed_allocation_in_an_exchange_loses_at_most_this_one)
{
    const struct play *play = &plays[p->play];
    struct stage x;
    long tried = 0;

    open_stage(&x, p);
    cr_assert_eq(play->open(&x), 0);
    for (int size = 0; size < 2; size++) {
        shortage_fired = true;
        for (long n = 1; shortage_fired; n++) {
            cr_assert_lt(n, TOO_MANY);
            recover(&x, play, n);
            x.number += (x.number + (uint32_t)size) % 2; /* the size of the next one */
            shortage_at(n);
            int rc = exchange(&x, play);
            shortage_end();
            tried += shortage_fired;
            cr_assert(is_proper(rc) && (rc == 0 || shortage_fired), "%s, allocation %ld: %s",
                      play->name, n, spoke_error_name(rc));
        }
    }
    recover(&x, play, 0);
    close_stage(&x, play, 0);
    cr_log_info("%s, %s: %ld allocations", play->name, urls[p->url][0], tried);
    cr_assert_gt(tried, 5, "it was not tried");
}
