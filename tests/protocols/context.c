/* SPDX-License-Identifier: MIT */
/* Contexts: conversations that share a socket and nothing else.  What one is about is in the tests
 * of its pattern; here is that there are several, whom a wake-up concerns, and how they end. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/protocols/fixture.h"

#include "runtime/memory/pool.h"

#define ID_BIT 0x80000000

/* A REQ socket that listens, with contexts, and so many plain repliers. */
struct scene {
    spoke_socket *s;
    spoke_context *c[4];
    char url[ENDPOINT_MAX];
    struct raw_peer peers[4];
};

static void
set_scene(struct scene *scene, enum transport t, int peers)
{
    scene->s = open_socket(SPOKE_REQ);
    listen_on(scene->s, t, scene->url);
    for (int i = 0; i < peers; i++)
        join(&scene->peers[i], scene->s, scene->url, (uint64_t)i + 1);
    for (int i = 0; i < 4; i++)
        scene->c[i] = open_context(scene->s);
}

static void
clear_scene(struct scene *scene, int peers)
{
    for (int i = 0; i < peers; i++)
        raw_close(&scene->peers[i]);
    finish();
}

static void
set_retry(spoke_context *c, spoke_ns retry_ns)
{
    cr_assert_eq(spoke_context_set_duration(c, SPOKE_OPT_RETRY_TIME, retry_ns), 0);
}

/* ---- requests ---- */

ON_EVERY_STREAM(context, gets_the_reply_to_its_own_request)
{
    static const char *const texts[] = {"zero", "one", "two", "three"};
    struct scene scene;
    struct raw_peer *p = scene.peers;
    uint32_t ids[4];

    set_scene(&scene, *t, 1);
    for (int i = 0; i < 4; i++) {
        context_send_text(scene.c[i], texts[i]);
        ids[i] = raw_expect_request(p, texts[i]);
        for (int j = 0; j < i; j++)
            cr_assert_neq(ids[i], ids[j]);
    }
    for (int i = 3; i >= 0; i--) { /* the last first */
        for (int j = 0; j <= i; j++)
            context_expect_recv_error(scene.c[j], SPOKE_EAGAIN);
        raw_send_word(p, ids[i], texts[i]);
        context_expect_text(scene.c[i], texts[i]);
        context_expect_recv_error(scene.c[i], SPOKE_ESTATE);
    }
    for (int i = 0; i < 4; i++) /* once only */
        raw_send_word(p, ids[i], texts[i]);
    wait_counter(scene.s, dropped_stale, 4);
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(context, leaves_the_sockets_own_conversation_alone)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, *t, 1);
    context_expect_recv_error(scene.c[0], SPOKE_ESTATE);
    send_text(scene.s, "own");
    uint32_t own = raw_expect_request(p, "own");
    context_expect_recv_error(scene.c[0], SPOKE_ESTATE);
    context_send_text(scene.c[0], "other");
    uint32_t other = raw_expect_request(p, "other");
    context_send_text(scene.c[0], "another"); /* takes the other's place only */
    uint32_t another = raw_expect_request(p, "another");
    raw_send_word(p, other, "to the other");
    wait_counter(scene.s, dropped_stale, 1);
    raw_send_word(p, another, "to another");
    context_expect_text(scene.c[0], "to another");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false); /* it is about the own one */
    raw_send_word(p, own, "to the own one");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    expect_text(scene.s, "to the own one");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(context, a_new_request_cancels_those_who_wait_in_it_and_nobody_else)
{
    struct waiting_call calls[2], other, own;
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, *t, 1);
    send_text(scene.s, "own");
    uint32_t own_id = raw_expect_request(p, "own");
    context_send_text(scene.c[0], "old");
    (void)raw_expect_request(p, "old");
    context_send_text(scene.c[1], "other");
    uint32_t other_id = raw_expect_request(p, "other");
    start_call(&own, scene.s, NULL);
    start_context_call(&calls[0], scene.c[0]);
    start_context_call(&calls[1], scene.c[0]);
    start_context_call(&other, scene.c[1]);
    await_receivers(scene.s, 1);
    await_context_receivers(scene.c[0], 2);
    await_context_receivers(scene.c[1], 1);
    context_send_text(scene.c[0], "new");
    uint32_t new_id = raw_expect_request(p, "new");
    for (int i = 0; i < 2; i++)
        cr_assert_eq(end_call(&calls[i]), SPOKE_ECANCELED, "%s", spoke_error_name(calls[i].rc));
    raw_send_word(p, other_id, "to the other");
    cr_assert_eq(end_call(&other), 0, "%s", spoke_error_name(other.rc));
    cr_assert_str_eq(other.received, "to the other");
    raw_send_word(p, own_id, "to the own one");
    cr_assert_eq(end_call(&own), 0, "%s", spoke_error_name(own.rc));
    raw_send_word(p, new_id, "to the new one");
    context_expect_text(scene.c[0], "to the new one");
    clear_scene(&scene, 1);
}

/* Goal: every request of a lost peer goes to another, whosever it was, but for those that are not
 * to be repeated. */
ON_EVERY_STREAM(context, resends_all_requests_that_a_lost_peer_had)
{
    struct scene scene;
    bool seen[4] = {false};
    uint32_t ids[4];

    set_scene(&scene, *t, 1);
    set_retry(scene.c[3], 0);
    for (int i = 0; i < 4; i++) {
        context_send_text(scene.c[i], "question");
        ids[i] = raw_expect_request(&scene.peers[0], "question");
    }
    join(&scene.peers[1], scene.s, scene.url, 2);
    raw_close(&scene.peers[0]);
    for (int n = 0; n < 3; n++) {
        uint32_t id = raw_expect_request(&scene.peers[1], "question");
        for (int i = 0; i < 4; i++)
            seen[i] |= id == ids[i];
        raw_send_word(&scene.peers[1], id, "answer");
    }
    cr_assert(seen[0] && seen[1] && seen[2] && !seen[3]);
    for (int i = 0; i < 3; i++)
        context_expect_text(scene.c[i], "answer");
    context_expect_recv_error(scene.c[3], SPOKE_ECONNRESET);
    context_expect_recv_error(scene.c[3], SPOKE_ESTATE);
    cr_assert_eq(stats_of(scene.s).retries, 3);
    clear_scene(&scene, 2);
}

ON_EVERY_STREAM(context, asks_again_after_its_own_retry_time)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, *t, 1);
    set_retry(scene.c[1], 20 * SPOKE_MS);
    context_send_text(scene.c[0], "patient");
    (void)raw_expect_request(p, "patient");
    context_send_text(scene.c[1], "restless");
    uint32_t id = raw_expect_request(p, "restless");
    for (int i = 0; i < 3; i++)
        cr_assert_eq(raw_expect_request(p, "restless"), id);
    clear_scene(&scene, 1);
}

ON_EVERY_TRANSPORT(context, requests_wait_for_the_first_peer)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);
    spoke_context *c[3];
    char url[ENDPOINT_MAX];
    spoke_msg *m;

    for (int i = 0; i < 3; i++) {
        c[i] = open_context(req);
        context_send_text(c[i], i == 0 ? "given up" : "early");
    }
    cr_assert_eq(spoke_context_close(c[0]), 0);
    listen_on(rep, *t, url);
    dial(req, url);
    for (int i = 1; i < 3; i++) {
        cr_assert_eq(spoke_recv(rep, &m, 0), 0);
        cr_assert(text_is(m, "early"));
        cr_assert_eq(spoke_send(rep, m, 0), 0);
    }
    context_expect_text(c[1], "early");
    context_expect_text(c[2], "early");
    cr_assert_eq(stats_of(req).retries, 0);
    finish();
}

Test(context, the_close_reports_requests_that_never_went_out)
{
    struct spoke_close_report report;
    spoke_socket *s = open_socket(SPOKE_REQ);

    for (int i = 0; i < 3; i++)
        context_send_text(open_context(s), "nobody");
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 20 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_close_report(s, &report), SPOKE_ETIMEDOUT);
    cr_assert_eq(report.messages, 3);
    finish();
}

/* What was asked while the socket lingers still goes out. */
ON_EVERY_TRANSPORT(context, requests_go_out_while_the_socket_lingers)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);
    char url[ENDPOINT_MAX];

    listen_on(rep, *t, url);
    for (int i = 0; i < 3; i++)
        context_send_text(open_context(req), "last words");
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_LINGER, PATIENCE), 0);
    dial(req, url);
    cr_assert_eq(spoke_socket_close(req), 0);
    for (int i = 0; i < 3; i++)
        expect_text(rep, "last words");
    finish();
}

/* Goal: the cost of a reply does not depend on how many wait.  Method: many, answered in disorder.
 */
ON_EVERY_TRANSPORT(context, a_thousand_on_one_socket)
{
    enum { COUNT = 1000 };
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_raw(SPOKE_REP);
    static spoke_context *c[COUNT];
    static spoke_msg *requests[COUNT];
    char text[16];

    cr_assert_eq(spoke_socket_set_int(rep, SPOKE_OPT_RECV_QUEUE, COUNT), 0);
    connect_sockets(rep, req, *t);
    for (int i = 0; i < COUNT; i++) {
        c[i] = open_context(req);
        snprintf(text, sizeof text, "%d", i);
        context_send_text(c[i], text);
        cr_assert_eq(spoke_recv(rep, &requests[i], 0), 0);
    }
    for (int i = 0; i < COUNT; i++) {
        int n = (int)((unsigned)i * 387 % COUNT); /* each once */
        cr_assert_eq(spoke_send(rep, requests[n], 0), 0);
        snprintf(text, sizeof text, "%d", n);
        context_expect_text(c[n], text);
    }
    finish();
}

/* ---- replies ---- */

ON_EVERY_TRANSPORT(context, answers_the_request_that_it_received)
{
    spoke_socket *rep = open_socket(SPOKE_REP), *req[3];
    spoke_context *c[2];
    char url[ENDPOINT_MAX];

    listen_on(rep, *t, url);
    for (int i = 0; i < 2; i++)
        c[i] = open_context(rep);
    for (int i = 0; i < 3; i++) {
        req[i] = open_socket(SPOKE_REQ);
        dial(req[i], url);
        wait_pipes(rep, (uint64_t)i + 1);
    }
    send_text(req[0], "to the first");
    context_expect_text(c[0], "to the first");
    send_text(req[1], "to the second");
    context_expect_text(c[1], "to the second");
    send_text(req[2], "to the socket");
    expect_text(rep, "to the socket");
    context_send_text(c[1], "from the second");
    expect_text(req[1], "from the second");
    send_text(rep, "from the socket");
    expect_text(req[2], "from the socket");
    context_send_text(c[0], "from the first");
    expect_text(req[0], "from the first");
    for (int i = 0; i < 2; i++)
        cr_assert_eq(spoke_context_send_bytes(c[i], "", 0, 0), SPOKE_ESTATE);
    expect_send_error(rep, SPOKE_ESTATE);
    finish();
}

ON_EVERY_STREAM(context, each_request_wakes_one_of_those_who_wait)
{
    const uint32_t ids[] = {ID_BIT | 1, ID_BIT | 2, ID_BIT | 3};
    spoke_socket *rep = open_socket(SPOKE_REP);
    struct waiting_call calls[3];
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(rep, *t, url);
    join(&p, rep, url, 1);
    for (int i = 0; i < 2; i++)
        start_context_call(&calls[i], open_context(rep));
    start_call(&calls[2], rep, NULL);
    await_receivers(rep, 3); /* the protocol has one list for all */
    for (int i = 0; i < 3; i++)
        cr_assert_eq(raw_send_words(&p, &ids[i], 1, i == 0 ? "a" : i == 1 ? "b" : "c"), RAW_OK);
    char all[4] = "";
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(end_call(&calls[i]), 0, "%s", spoke_error_name(calls[i].rc));
        cr_assert_eq(strlen(calls[i].received), 1);
        strcat(all, calls[i].received);
    }
    cr_assert(strchr(all, 'a') && strchr(all, 'b') && strchr(all, 'c'), "%s", all);
    raw_close(&p);
    finish();
}

/* Goal: a request that woke somebody who then leaves is not forgotten.  Method: two wait; one is
 * closed just as the request comes. */
ON_EVERY_TRANSPORT(context, a_request_outlives_the_context_that_it_woke)
{
    spoke_socket *rep = open_socket(SPOKE_REP), *req = open_socket(SPOKE_REQ);

    connect_sockets(rep, req, *t);
    for (int i = 0; i < TEST_REPEATS(160); i++) {
        spoke_context *c[2] = {open_context(rep), open_context(rep)};
        struct waiting_call calls[2];
        for (int j = 0; j < 2; j++)
            start_context_call(&calls[j], c[j]);
        if (i % 2 == 0)
            sleep_ms(1);
        send_text(req, "anybody");
        cr_assert_eq(spoke_context_close(c[0]), 0);
        if (end_call(&calls[0]) == 0) { /* then the other waits on */
            cr_assert_eq(spoke_context_close(c[1]), 0);
            cr_assert_eq(end_call(&calls[1]), SPOKE_ECLOSED);
            continue;
        }
        cr_assert_eq(calls[0].rc, SPOKE_ECLOSED, "%s", spoke_error_name(calls[0].rc));
        cr_assert_eq(end_call(&calls[1]), 0, "round %d: %s", i, spoke_error_name(calls[1].rc));
        cr_assert_eq(spoke_context_close(c[1]), 0);
    }
    finish();
}

/* ---- ends ---- */

ON_EVERY_STREAM(context, its_close_ends_its_own_conversation_only)
{
    struct waiting_call calls[3];
    struct scene scene;
    struct raw_peer *p = scene.peers;
    uint32_t ids[2];

    set_scene(&scene, *t, 1);
    for (int i = 0; i < 2; i++) {
        context_send_text(scene.c[i], "question");
        ids[i] = raw_expect_request(p, "question");
    }
    start_context_call(&calls[0], scene.c[0]);
    start_context_call(&calls[1], scene.c[0]);
    start_context_call(&calls[2], scene.c[1]);
    await_context_receivers(scene.c[0], 2);
    await_context_receivers(scene.c[1], 1);
    cr_assert_eq(spoke_context_close(scene.c[0]), 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(end_call(&calls[i]), SPOKE_ECLOSED, "%s", spoke_error_name(calls[i].rc));
    context_expect_recv_error(scene.c[0], SPOKE_ECLOSED);
    cr_assert_eq(spoke_context_send_bytes(scene.c[0], "", 0, 0), SPOKE_ECLOSED);
    cr_assert_eq(spoke_context_close(scene.c[0]), SPOKE_ECLOSED);
    raw_send_word(p, ids[0], "too late");
    wait_counter(scene.s, dropped_stale, 1);
    raw_send_word(p, ids[1], "in time");
    cr_assert_eq(end_call(&calls[2]), 0, "%s", spoke_error_name(calls[2].rc));
    cr_assert_str_eq(calls[2].received, "in time");
    clear_scene(&scene, 1);
}

ParameterizedTestParameters(context, the_sockets_close_ends_all)
{
    static int patterns[] = {SPOKE_REQ, SPOKE_REP, SPOKE_SURVEYOR, SPOKE_RESPONDENT};

    return cr_make_param_array(int, patterns, 4);
}

ParameterizedTest(int *pattern, context, the_sockets_close_ends_all)
{
    spoke_socket *s = open_socket(*pattern);
    struct waiting_call calls[5];
    spoke_context *c[4];

    for (int i = 0; i < 4; i++) {
        c[i] = open_context(s);
        cr_assert_eq(spoke_context_set_duration(c[i], SPOKE_OPT_RECV_TIMEOUT, SPOKE_FOREVER), 0);
        if (*pattern == SPOKE_SURVEYOR)
            cr_assert_eq(spoke_context_set_duration(c[i], SPOKE_OPT_SURVEY_TIME, 0), 0);
        if (*pattern == SPOKE_REQ || *pattern == SPOKE_SURVEYOR)
            context_send_text(c[i], "question");
    }
    for (int i = 0; i < 5; i++) /* two of them in one */
        start_context_call(&calls[i], c[i % 4]);
    for (int i = 0; i < 4; i++)
        await_context_receivers(c[i], i == 0 ? 2 : 1);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 0), 0);
    (void)spoke_socket_close(s);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(end_call(&calls[i]), SPOKE_ECLOSED, "%s", spoke_error_name(calls[i].rc));
    for (int i = 0; i < 4; i++) {
        context_expect_recv_error(c[i], SPOKE_ECLOSED);
        cr_assert_eq(spoke_context_close(c[i]), SPOKE_ECLOSED);
    }
    finish();
}

static void
close_it(void *ctx)
{
    (void)spoke_context_close(ctx);
}

/* Goal: whoever waits on an owned engine turns it, and may find its context closed by a callback.
 */
Test(context, may_be_closed_by_a_callback_while_its_owner_waits)
{
    spoke_engine *e;
    spoke_socket *s;
    spoke_context *c;
    spoke_msg *m;

    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_REP, e), 0);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(spoke_context_open(&c, s), 0);
        cr_assert_eq(spoke_engine_after(e, i * SPOKE_MS, close_it, c, NULL), 0);
        cr_assert_eq(spoke_context_recv(c, &m, 0), SPOKE_ECLOSED);
        cr_assert_null(m);
    }
    cr_assert_eq(spoke_engine_close(e), 0);
    finish();
}

ON_EVERY_TRANSPORT(context, works_on_an_owned_engine)
{
    own_engine();
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);
    spoke_context *ask[3], *answer[3];

    connect_sockets(rep, req, *t);
    for (int i = 0; i < 3; i++) {
        ask[i] = open_context(req);
        answer[i] = open_context(rep);
    }
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 3; i++) {
            context_send_text(ask[i], i == 0 ? "a" : i == 1 ? "b" : "c");
            context_expect_text(answer[i], i == 0 ? "a" : i == 1 ? "b" : "c");
        }
        for (int i = 2; i >= 0; i--) {
            context_send_text(answer[i], i == 0 ? "A" : i == 1 ? "B" : "C");
            context_expect_text(ask[i], i == 0 ? "A" : i == 1 ? "B" : "C");
        }
    }
    finish();
}

Test(context, of_an_owned_engine_is_its_owners)
{
    struct waiting_call call;

    own_engine();
    spoke_context *c = open_context(open_socket(SPOKE_REP));
    start_context_call(&call, c);
    cr_assert_eq(end_call(&call), SPOKE_EWRONGTHREAD, "%s", spoke_error_name(call.rc));
    context_expect_recv_error(c, SPOKE_EAGAIN);
    finish();
}

/* ---- threads ---- */

#define THREADS 4
#define ROUNDS  TEST_REPEATS(2000)

struct worker {
    pthread_t thread;
    spoke_context *c;
    int index, error, done;
};

static void *
ask_for_ever(void *ctx)
{
    struct worker *w = ctx;
    char text[32], reply[32];

    for (int i = 0; i < ROUNDS && w->error == 0; i++) {
        size_t size = sizeof reply;
        int length = snprintf(text, sizeof text, "%d asks %d", w->index, i);
        w->error = spoke_context_send_bytes(w->c, text, (size_t)length, 0);
        if (w->error == 0)
            w->error = spoke_context_recv_bytes(w->c, reply, &size, 0);
        if (w->error == 0 && (size != (size_t)length || memcmp(text, reply, size) != 0))
            w->error = SPOKE_EPROTO; /* somebody else's */
        w->done += w->error == 0;
    }
    return NULL;
}

static void *
answer_for_ever(void *ctx)
{
    struct worker *w = ctx;
    spoke_msg *m;

    while ((w->error = spoke_context_recv(w->c, &m, 0)) == 0) {
        w->done++;
        if ((w->error = spoke_context_send(w->c, m, 0)) != 0)
            spoke_msg_free(m);
    }
    return NULL;
}

/* Goal: threads with a context each never get each other's messages. */
ON_EVERY_TRANSPORT(context, threads_with_one_each_share_two_sockets)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);
    struct worker asking[THREADS], answering[THREADS];
    int answered = 0;

    connect_sockets(rep, req, *t);
    cr_assert_eq(spoke_socket_set_duration(rep, SPOKE_OPT_RECV_TIMEOUT, SPOKE_FOREVER), 0);
    for (int i = 0; i < THREADS; i++) {
        answering[i] = (struct worker){.c = open_context(rep), .index = i};
        asking[i] = (struct worker){.c = open_context(req), .index = i};
        cr_assert_eq(pthread_create(&answering[i].thread, NULL, answer_for_ever, &answering[i]), 0);
        cr_assert_eq(pthread_create(&asking[i].thread, NULL, ask_for_ever, &asking[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(asking[i].thread, NULL);
        cr_assert_eq(asking[i].error, 0, "%s", spoke_error_name(asking[i].error));
        cr_assert_eq(asking[i].done, ROUNDS);
    }
    cr_assert_eq(spoke_socket_close(rep), 0); /* all that it sent has been received */
    for (int i = 0; i < THREADS; i++) {
        pthread_join(answering[i].thread, NULL);
        cr_assert_eq(answering[i].error, SPOKE_ECLOSED, "%s", spoke_error_name(answering[i].error));
        answered += answering[i].done;
    }
    cr_assert_eq(answered, THREADS * ROUNDS);
    cr_assert_eq(stats_of(req).dropped_stale, 0);
    finish();
}

static void *
open_and_close(void *ctx)
{
    struct worker *w = ctx;
    spoke_socket *s = (spoke_socket *)(void *)w->c;

    for (int i = 0; w->error == 0; i++) {
        spoke_context *c;
        spoke_msg *m;
        if ((w->error = spoke_context_open(&c, s)) != 0)
            break;
        w->error = spoke_context_send_bytes(c, "question", 8, 0);
        if (w->error == 0 && i % 3 != 0 && (w->error = spoke_context_recv(c, &m, 0)) == 0)
            spoke_msg_free(m);
        int rc = spoke_context_close(c);
        w->error = w->error != 0 ? w->error : rc;
        w->done++;
    }
    return NULL;
}

/* Contexts come and go in all threads, until the socket goes. */
ON_EVERY_TRANSPORT(context, come_and_go_on_many_threads)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);
    struct worker workers[THREADS], server = {.c = open_context(rep)};

    connect_sockets(rep, req, *t);
    cr_assert_eq(spoke_context_set_duration(server.c, SPOKE_OPT_RECV_TIMEOUT, SPOKE_FOREVER), 0);
    cr_assert_eq(pthread_create(&server.thread, NULL, answer_for_ever, &server), 0);
    for (int i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.c = (spoke_context *)(void *)req};
        cr_assert_eq(pthread_create(&workers[i].thread, NULL, open_and_close, &workers[i]), 0);
    }
    sleep_ms(200);
    cr_assert_eq(spoke_socket_set_duration(req, SPOKE_OPT_LINGER, 0), 0);
    (void)spoke_socket_close(req);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(workers[i].thread, NULL);
        cr_assert_eq(workers[i].error, SPOKE_ECLOSED, "%s", spoke_error_name(workers[i].error));
    }
    (void)spoke_socket_close(rep); /* some replies found nobody */
    pthread_join(server.thread, NULL);
    cr_assert_eq(server.error, SPOKE_ECLOSED);
    finish();
}

/* ---- options and errors ---- */

Test(context, has_its_own_timeouts_and_begins_with_the_sockets)
{
    spoke_socket *s = open_socket(SPOKE_REQ);
    spoke_ns value = 0;

    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 7), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, 8), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RETRY_TIME, 9), 0);
    spoke_context *c = open_context(s);
    cr_assert_eq(spoke_context_get_duration(c, SPOKE_OPT_RECV_TIMEOUT, &value), 0);
    cr_assert_eq(value, 7);
    cr_assert_eq(spoke_context_get_duration(c, SPOKE_OPT_SEND_TIMEOUT, &value), 0);
    cr_assert_eq(value, 8);
    cr_assert_eq(spoke_context_get_duration(c, SPOKE_OPT_RETRY_TIME, &value), 0);
    cr_assert_eq(value, 9);
    cr_assert_eq(spoke_context_set_duration(c, SPOKE_OPT_RETRY_TIME, 10), 0);
    cr_assert_eq(spoke_socket_get_duration(s, SPOKE_OPT_RETRY_TIME, &value), 0);
    cr_assert_eq(value, 9);
    cr_assert_eq(spoke_context_set_duration(c, SPOKE_OPT_RECV_TIMEOUT, 0), 0);
    context_send_text(c, "nobody");
    spoke_msg *m;
    cr_assert_eq(spoke_context_recv(c, &m, 0), SPOKE_ETIMEDOUT);
    cr_assert_eq(spoke_context_set_duration(c, SPOKE_OPT_RECV_TIMEOUT, 20 * SPOKE_MS), 0);
    cr_assert_eq(spoke_context_recv(c, &m, 0), SPOKE_ETIMEDOUT);
    context_expect_recv_error(c, SPOKE_EAGAIN);
    finish();
}

Test(context, refuses_options_that_are_not_its_own)
{
    spoke_socket *s = open_socket(SPOKE_REP);
    spoke_context *c = open_context(s);
    spoke_ns value = 1;
    size_t small = 1;
    int number;

    cr_assert_eq(spoke_context_set_int(c, SPOKE_OPT_TTL, 3), SPOKE_EOPTION);
    cr_assert_eq(spoke_context_set_duration(c, SPOKE_OPT_RETRY_TIME, 3), SPOKE_EOPTION);
    cr_assert_eq(spoke_context_set_duration(c, SPOKE_OPT_SURVEY_TIME, 3), SPOKE_EOPTION);
    cr_assert_eq(spoke_context_set_bool(c, SPOKE_OPT_RAW, true), SPOKE_EOPTION);
    cr_assert_eq(spoke_context_get_int(c, SPOKE_OPT_TTL, &number), SPOKE_EOPTION);
    cr_assert_eq(spoke_context_get_int(c, SPOKE_OPT_RECV_FD, &number), SPOKE_EOPTION);
    cr_assert_eq(spoke_context_set_int(c, SPOKE_OPT_RECV_TIMEOUT, 3), SPOKE_ETYPE);
    cr_assert_eq(spoke_context_get_int(c, SPOKE_OPT_RECV_TIMEOUT, &number), SPOKE_ETYPE);
    cr_assert_eq(spoke_context_set_duration(c, SPOKE_OPT_RECV_TIMEOUT, -1), SPOKE_ERANGE);
    cr_assert_eq(spoke_context_get(c, SPOKE_OPT_RECV_TIMEOUT, SPOKE_DURATION, &value, &small),
                 SPOKE_ETYPE);
    cr_assert_eq(spoke_context_set(c, NULL, SPOKE_INT, &number, sizeof number), SPOKE_EINVAL);
    cr_assert_eq(spoke_context_set(c, "x", SPOKE_INT, NULL, 4), SPOKE_EINVAL);
    cr_assert_eq(spoke_context_get(c, "x", SPOKE_INT, &number, NULL), SPOKE_EINVAL);
    cr_assert_eq(spoke_context_close(c), 0);
    cr_assert_eq(spoke_context_set_duration(c, SPOKE_OPT_RECV_TIMEOUT, 1), SPOKE_ECLOSED);
    cr_assert_eq(spoke_context_get_duration(c, SPOKE_OPT_RECV_TIMEOUT, &value), SPOKE_ECLOSED);
    finish();
}

Test(context, exists_for_cooked_sockets_of_four_patterns)
{
    static const int patterns[] = {SPOKE_REQ, SPOKE_REP, SPOKE_SURVEYOR, SPOKE_RESPONDENT};
    spoke_context *c = (spoke_context *)&patterns;
    spoke_msg *m = new_text("message");

    cr_assert_eq(spoke_context_open(&c, open_socket(SPOKE_PAIR)), SPOKE_ENOTSUP);
    cr_assert_null(c);
    cr_assert_eq(spoke_context_open(NULL, open_socket(SPOKE_REQ)), SPOKE_EINVAL);
    cr_assert_eq(spoke_context_open(&c, NULL), SPOKE_ECLOSED);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(spoke_context_open(&c, open_raw(patterns[i])), SPOKE_ENOTSUP);
        spoke_socket *s = open_socket(patterns[i]);
        c = open_context(s);
        cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_RAW, true), 0);
        cr_assert_eq(spoke_context_send(c, m, 0), SPOKE_ENOTSUP);
        context_expect_recv_error(c, SPOKE_ENOTSUP);
        cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_RAW, false), 0);
        context_expect_recv_error(c, patterns[i] % 2 == 0 ? SPOKE_ESTATE : SPOKE_EAGAIN);
    }
    cr_assert_eq(spoke_context_send(c, NULL, 0), SPOKE_EINVAL);
    cr_assert_eq(spoke_context_send(c, m, 64), SPOKE_EINVAL);
    cr_assert_eq(spoke_context_recv(c, NULL, 0), SPOKE_EINVAL);
    spoke_msg *out;
    cr_assert_eq(spoke_context_recv(c, &out, SPOKE_MORE), SPOKE_EINVAL);
    cr_assert_eq(spoke_context_send_bytes(c, NULL, 1, 0), SPOKE_EINVAL);
    cr_assert_eq(spoke_context_recv_bytes(c, NULL, NULL, 0), SPOKE_EINVAL);
    cr_assert_eq(spoke_context_close(NULL), SPOKE_ECLOSED);
    cr_assert_eq(spoke_context_close((spoke_context *)(void *)open_socket(SPOKE_REQ)),
                 SPOKE_ECLOSED, "a socket is no context");
    spoke_msg_free(m);
    finish();
}

ON_EVERY_STREAM(context, fails_at_once_when_the_last_peer_has_gone)
{
    struct waiting_call calls[2];
    struct scene scene;

    set_scene(&scene, *t, 1);
    cr_assert_eq(spoke_socket_set_bool(scene.s, SPOKE_OPT_FAIL_NO_PEERS, true), 0);
    for (int i = 0; i < 2; i++) {
        context_send_text(scene.c[i], "question");
        (void)raw_expect_request(&scene.peers[0], "question");
        start_context_call(&calls[i], scene.c[i]);
        await_context_receivers(scene.c[i], 1);
    }
    raw_close(&scene.peers[0]);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(end_call(&calls[i]), SPOKE_ENOPEER, "%s", spoke_error_name(calls[i].rc));
    cr_assert_eq(spoke_context_send_bytes(scene.c[2], "", 0, 0), SPOKE_ENOPEER);
    clear_scene(&scene, 0);
}

/* ---- out of memory ---- */

/* Goal: opening and sending fail cleanly.  Method: let the first, second … allocation fail. */
ParameterizedTestParameters(context, needs_memory_to_open_and_fails_without_a_trace)
{
    static int patterns[] = {SPOKE_REQ, SPOKE_REP, SPOKE_SURVEYOR, SPOKE_RESPONDENT};

    return cr_make_param_array(int, patterns, 4);
}

ParameterizedTest(int *pattern, context, needs_memory_to_open_and_fails_without_a_trace)
{
    own_engine();
    spoke_socket *s = open_socket(*pattern);
    spoke_context *c = NULL;
    int failures = 0;

    for (int rc = SPOKE_ENOMEM; rc != 0; failures++) {
        spk_memory_fail_after((uint64_t)failures + 1);
        rc = spoke_context_open(&c, s);
        spk_memory_fail_after(0);
        cr_assert(rc == 0 || (rc == SPOKE_ENOMEM && c == NULL), "%s", spoke_error_name(rc));
    }
    cr_assert_geq(failures, 3);
    cr_assert_eq(spoke_context_close(c), 0);
    finish();
}

ON_EVERY_TRANSPORT(context, a_send_that_fails_leaves_the_outstanding_request_alone)
{
    own_engine();
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_raw(SPOKE_REP);
    int failures = 0;

    connect_sockets(rep, req, *t);
    for (int rc = SPOKE_ENOMEM; rc != 0; failures++) {
        spoke_context *c = open_context(req);
        spoke_msg *first, *m, *other;
        context_send_text(c, "first");
        cr_assert_eq(spoke_recv(rep, &first, 0), 0);
        cr_assert_eq(spoke_msg_new(&m, 100000), 0);
        other = spoke_msg_dup(m); /* so that it must be cloned */
        spk_memory_fail_after((uint64_t)failures + 1);
        rc = spoke_context_send(c, m, SPOKE_DONTWAIT);
        spk_memory_fail_after(0);
        if (rc != 0) {
            cr_assert_eq(rc, SPOKE_ENOMEM, "%s", spoke_error_name(rc));
            spoke_msg_free(m);
            cr_assert_eq(spoke_send(rep, first, 0), 0);
            context_expect_text(c, "first");
        } else {
            spoke_msg_free(first);
        }
        spoke_msg_free(other);
        cr_assert_eq(spoke_context_close(c), 0);
    }
    cr_assert_gt(failures, 1);
    finish();
}
