/* SPDX-License-Identifier: MIT */
/* REQ: its states, what it does with replies of every kind, and how a request survives those who
 * had it.  What it shares with SURVEYOR is in ask.c. */
#include <spoke/sim.h>

#include "tests/protocols/scene.h"

static void
set_retry(spoke_socket *s, spoke_ns retry_ns)
{
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RETRY_TIME, retry_ns), 0);
}

/* The whole of it, so that the socket is idle again. */
static void
exchange(struct scene *scene, struct raw_peer *p)
{
    send_text(scene->s, "question");
    raw_send_word(p, raw_expect_request(p, "question"), "answer");
    expect_text(scene->s, "answer");
}

/* ---- the wire ---- */

ON_EVERY_TRANSPORT(req, gets_the_reply_to_its_request)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);

    connect_sockets(rep, req, *t);
    for (int i = 0; i < 200; i++) {
        send_text(req, "ping");
        expect_text(rep, "ping");
        send_text(rep, i % 2 == 0 ? "pong" : "");
        expect_text(req, i % 2 == 0 ? "pong" : "");
    }
    cr_assert_eq(stats_of(req).retries, 0);
    cr_assert_eq(stats_of(req).dropped_stale, 0);
    finish();
}

/* The limit counts the words in front too. */
ON_EVERY_STREAM(req, exceeds_a_limit_with_its_id)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);
    char text[98];

    memset(text, 'x', 97);
    text[97] = '\0';
    set_retry(req, 0);
    cr_assert_eq(spoke_socket_set_size(rep, SPOKE_OPT_MAX_RECV_SIZE, 100), 0);
    connect_sockets(rep, req, *t);
    send_text(req, text + 1);
    expect_text(rep, text + 1);
    send_text(rep, "small enough");
    expect_text(req, "small enough");
    send_text(req, text);
    wait_counter(rep, oversized, 1);
    spoke_msg *m;
    cr_assert_eq(spoke_recv(req, &m, 0), SPOKE_ECONNRESET);
    finish();
}

/* ---- states ---- */

ON_EVERY_TRANSPORT(req, refuses_to_receive_without_a_request)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);

    expect_recv_error(req, SPOKE_ESTATE);
    connect_sockets(rep, req, *t);
    expect_recv_error(req, SPOKE_ESTATE);
    send_text(req, "ping");
    expect_recv_error(req, SPOKE_EAGAIN);
    expect_text(rep, "ping");
    send_text(rep, "pong");
    expect_text(req, "pong");
    expect_recv_error(req, SPOKE_ESTATE);
    finish();
}

ON_EVERY_STREAM(req, a_new_request_takes_the_place_of_an_outstanding_one)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
    send_text(scene.s, "old");
    uint32_t old = raw_expect_request(p, "old");
    send_text(scene.s, "new");
    uint32_t new = raw_expect_request(p, "new");
    cr_assert_neq(old, new);
    raw_send_word(p, old, "to the old one");
    wait_counter(scene.s, dropped_stale, 1);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    raw_send_word(p, new, "to the new one");
    expect_text(scene.s, "to the new one");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(req, a_new_request_drops_a_reply_that_nobody_received)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
    send_text(scene.s, "old");
    raw_send_word(p, raw_expect_request(p, "old"), "unread");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    send_text(scene.s, "new");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    raw_send_word(p, raw_expect_request(p, "new"), "read");
    expect_text(scene.s, "read");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(req, one_reply_ends_the_wait_of_all)
{
    struct waiting_call calls[3];
    struct scene scene;
    struct raw_peer *p = scene.peers;
    int replies = 0;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(p, "question");
    for (int i = 0; i < 3; i++)
        start_call(&calls[i], scene.s, NULL);
    await_receivers(scene.s, 3);
    raw_send_word(p, id, "one");
    for (int i = 0; i < 3; i++) {
        int rc = end_call(&calls[i]);
        cr_assert(rc == 0 || rc == SPOKE_ESTATE, "%s", spoke_error_name(rc));
        replies += rc == 0;
    }
    cr_assert_eq(replies, 1);
    clear_scene(&scene, 1);
}

/* ---- replies ---- */

ON_EVERY_STREAM(req, closes_the_pipe_of_a_reply_without_an_id)
{
    for (size_t size = 0; size < 4; size++) {
        struct scene scene;
        set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
        send_text(scene.s, "question");
        uint32_t id = raw_expect_request(&scene.peers[0], "question");
        cr_assert_eq(raw_send(&scene.peers[0], "\200\0\0", size), RAW_OK);
        cr_assert_eq(raw_wait_eof(&scene.peers[0], RAW_LIMIT_MS), RAW_OK, "%zu bytes", size);
        wait_counter(scene.s, garbled, 1);
        wait_pipes(scene.s, 0);
        join(&scene.peers[1], scene.s, scene.url, 1);
        cr_assert_eq(raw_expect_request(&scene.peers[1], "question"), id);
        raw_send_word(&scene.peers[1], id, "answer");
        expect_text(scene.s, "answer");
        raw_close(&scene.peers[0]);
        raw_close(&scene.peers[1]);
    }
    finish();
}

/* Goal: nobody can answer what nobody has been asked.  Method: requests that take each other's
 * place fill the pipe of a peer that does not read; it knows what number the last one must have. */
ON_EVERY_STREAM(req, drops_a_reply_to_a_request_that_has_not_gone_out)
{
    enum { SIZE = 60000, COUNT = 400 };
    static uint8_t bytes[SIZE + 4];
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, watch_pipes(open_asker(SPOKE_REQ)), *t, 1);
    send_text(scene.s, "first");
    uint32_t first = raw_expect_request(p, "first"), last = (first + COUNT) | ID_BIT;
    for (int i = 0; i < COUNT; i++)
        cr_assert_eq(spoke_send_bytes(scene.s, bytes, SIZE, 0), 0);
    raw_send_word(p, last, "guessed");
    wait_counter(scene.s, dropped_stale, 1);
    cr_assert_eq(pipe_stats_of(scene.s, 0).dropped_stale, 1);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    do
        cr_assert_eq(raw_recv(p, bytes, sizeof bytes, RAW_LIMIT_MS), SIZE + 4);
    while (raw_get32(bytes) != last);
    raw_send_word(p, last, "known");
    expect_text(scene.s, "known");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(req, takes_the_first_of_two_replies)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(p, "question");
    raw_send_word(p, id, "first");
    raw_send_word(p, id, "second");
    wait_counter(scene.s, dropped_stale, 1);
    expect_text(scene.s, "first");
    expect_recv_error(scene.s, SPOKE_ESTATE);
    raw_send_word(p, id, "third");
    wait_counter(scene.s, dropped_stale, 2);
    exchange(&scene, p);
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(req, takes_the_reply_from_any_peer)
{
    struct scene scene;

    set_scene(&scene, watch_pipes(open_asker(SPOKE_REQ)), *t, 2);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(&scene.peers[0], "question");
    raw_send_word(&scene.peers[1], id, "from the other");
    expect_text(scene.s, "from the other");
    raw_send_word(&scene.peers[0], id, "too late");
    wait_counter(scene.s, dropped_stale, 1);
    cr_assert_eq(pipe_stats_of(scene.s, 0).dropped_stale, 1);
    cr_assert_eq(pipe_stats_of(scene.s, 1).dropped_stale, 0);
    clear_scene(&scene, 2);
}

/* ---- peers that come and go ---- */

ON_EVERY_TRANSPORT(req, sends_its_request_as_soon_as_a_peer_comes)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);
    char url[ENDPOINT_MAX];

    send_text(req, "never mind");
    send_text(req, "early");
    expect_recv_error(req, SPOKE_EAGAIN);
    listen_on(rep, *t, url);
    dial(req, url);
    expect_text(rep, "early");
    send_text(rep, "bird");
    expect_text(req, "bird");
    cr_assert_eq(stats_of(req).retries, 0);
    finish();
}

ON_EVERY_STREAM(req, resends_at_once_to_another_when_the_peer_is_lost)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 2);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(&scene.peers[0], "question");
    raw_reset(&scene.peers[0]);
    cr_assert_eq(raw_expect_request(&scene.peers[1], "question"), id, "same bytes, same id");
    cr_assert_eq(stats_of(scene.s).retries, 1);
    raw_send_word(&scene.peers[1], id, "answer");
    expect_text(scene.s, "answer");
    clear_scene(&scene, 2);
}

ON_EVERY_STREAM(req, resends_to_the_next_peer_when_the_only_one_is_lost)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(&scene.peers[0], "question");
    raw_close(&scene.peers[0]);
    wait_pipes(scene.s, 0);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    join(&scene.peers[0], scene.s, scene.url, 1);
    cr_assert_eq(raw_expect_request(&scene.peers[0], "question"), id);
    raw_send_word(&scene.peers[0], id, "answer");
    expect_text(scene.s, "answer");
    clear_scene(&scene, 1);
}

/* Goal: a lost peer that no longer has the request changes nothing. */
ON_EVERY_STREAM(req, does_not_resend_for_a_peer_that_had_something_else)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 2);
    exchange(&scene, &scene.peers[0]);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(&scene.peers[1], "question");
    raw_reset(&scene.peers[0]);
    wait_pipes(scene.s, 1);
    cr_assert(raw_is_quiet(&scene.peers[1], RAW_QUIET_MS));
    raw_send_word(&scene.peers[1], id, "answer");
    expect_text(scene.s, "answer");
    cr_assert_eq(stats_of(scene.s).retries, 0);
    clear_scene(&scene, 2);
}

ON_EVERY_STREAM(req, fails_the_receive_when_the_peer_is_lost_and_retry_is_off)
{
    struct waiting_call call;
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 2);
    set_retry(scene.s, 0);
    send_text(scene.s, "question");
    (void)raw_expect_request(&scene.peers[0], "question");
    start_call(&call, scene.s, NULL);
    await_receivers(scene.s, 1);
    raw_close(&scene.peers[0]);
    cr_assert_eq(end_call(&call), SPOKE_ECONNRESET, "%s", spoke_error_name(call.rc));
    expect_recv_error(scene.s, SPOKE_ESTATE);
    cr_assert(raw_is_quiet(&scene.peers[1], RAW_QUIET_MS));

    send_text(scene.s, "question");
    (void)raw_expect_request(&scene.peers[1], "question");
    raw_close(&scene.peers[1]);
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true); /* or who polls would never know */
    expect_recv_error(scene.s, SPOKE_ECONNRESET);
    expect_recv_error(scene.s, SPOKE_ESTATE);
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    clear_scene(&scene, 2);
}

ON_EVERY_STREAM(req, waits_for_a_first_peer_even_if_retry_is_off)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 0);
    set_retry(scene.s, 0);
    send_text(scene.s, "question");
    join(&scene.peers[0], scene.s, scene.url, 1);
    raw_send_word(&scene.peers[0], raw_expect_request(&scene.peers[0], "question"), "answer");
    expect_text(scene.s, "answer");
    clear_scene(&scene, 1);
}

/* ---- the retry timer ---- */

ON_EVERY_STREAM(req, resends_to_a_peer_that_is_silent_for_the_retry_time)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
    set_retry(scene.s, 30 * SPOKE_MS);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(p, "question");
    for (int i = 0; i < 3; i++)
        cr_assert_eq(raw_expect_request(p, "question"), id, "same bytes, same id");
    raw_send_word(p, id, "answer");
    expect_text(scene.s, "answer");
    cr_assert_geq(stats_of(scene.s).retries, 3);
    uint8_t waste[64];
    while (raw_recv(p, waste, sizeof waste, RAW_QUIET_MS) >
           0) { /* one may have crossed the reply */
    }
    cr_assert(raw_is_quiet(p, RAW_QUIET_MS), "an answered request is not sent again");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(req, lets_every_peer_have_a_try_at_a_silent_request)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 3);
    set_retry(scene.s, 50 * SPOKE_MS);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(&scene.peers[0], "question");
    for (int i = 1; i < 4; i++)
        cr_assert_eq(raw_expect_request(&scene.peers[i % 3], "question"), id);
    raw_send_word(&scene.peers[2], id, "answer");
    expect_text(scene.s, "answer");
    clear_scene(&scene, 3);
}

ON_EVERY_STREAM(req, never_resends_to_a_silent_peer_when_retry_is_off)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
    set_retry(scene.s, 0);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(&scene.peers[0], "question");
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    raw_send_word(&scene.peers[0], id, "answer");
    expect_text(scene.s, "answer");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(req, applies_a_new_retry_time_to_the_next_request)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
    send_text(scene.s, "patient");
    (void)raw_expect_request(p, "patient");
    set_retry(scene.s, 20 * SPOKE_MS);
    cr_assert(raw_is_quiet(p, RAW_QUIET_MS));
    send_text(scene.s, "restless");
    uint32_t id = raw_expect_request(p, "restless");
    set_retry(scene.s, 60 * SPOKE_SECOND);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(raw_expect_request(p, "restless"), id);
    clear_scene(&scene, 1);
}

Test(req, checks_its_retry_time)
{
    spoke_socket *s = open_socket(SPOKE_REQ);
    spoke_ns retry_ns = 0;

    cr_assert_eq(spoke_socket_get_duration(s, SPOKE_OPT_RETRY_TIME, &retry_ns), 0);
    cr_assert_eq(retry_ns, 60 * SPOKE_SECOND);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RETRY_TIME, -1), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RETRY_TIME, 5), SPOKE_ETYPE);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, 5), SPOKE_EOPTION);
    cr_assert_eq(spoke_socket_get_duration(s, SPOKE_OPT_RETRY_TIME, &retry_ns), 0);
    cr_assert_eq(retry_ns, 60 * SPOKE_SECOND);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RETRY_TIME, SPOKE_FOREVER), 0);
    send_text(s, "question"); /* with the longest of all timers */
    cr_assert_eq(spoke_socket_set_duration(open_socket(SPOKE_REP), SPOKE_OPT_RETRY_TIME, 1),
                 SPOKE_EOPTION);
    finish();
}

/* Goal: the default is a minute.  Method: virtual time and a replier that does not answer. */
Test(req, asks_again_after_a_minute)
{
    spoke_engine *here, *there;
    spoke_socket *req, *rep;
    spoke_sim *w;

    cr_assert_eq(spoke_sim_open(&w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(w, &here), 0);
    cr_assert_eq(spoke_sim_engine(w, &there), 0);
    cr_assert_eq(spoke_socket_open(&req, SPOKE_REQ, here), 0);
    cr_assert_eq(spoke_socket_open(&rep, SPOKE_REP, there), 0);
    cr_assert_eq(spoke_listen(rep, "tcp://127.0.0.1:5000", NULL, 0), 0);
    cr_assert_eq(spoke_dial(req, "tcp://127.0.0.1:5000", NULL, 0), 0);
    cr_assert_eq(spoke_send_bytes(req, "question", 8, 0), 0);
    spoke_ns times[3];
    for (int i = 0; i < 3; i++) {
        spoke_msg_free(recv_message(rep));
        times[i] = spoke_sim_now(w);
    }
    for (int i = 1; i < 3; i++) {
        cr_assert_geq(times[i] - times[i - 1], 60 * SPOKE_SECOND - 10 * SPOKE_MS);
        cr_assert_leq(times[i] - times[i - 1], 60 * SPOKE_SECOND + 10 * SPOKE_MS);
    }
    cr_assert_eq(spoke_send_bytes(rep, "answer", 6, 0), 0);
    spoke_msg *m = recv_message(req);
    cr_assert(text_is(m, "answer"));
    spoke_msg_free(m);
    cr_assert_eq(spoke_sim_close(w, NULL), 0);
}

/* Goal: an expiry is for others; a request that could not go out in time, or has to go out again,
 * does. */
ON_EVERY_STREAM(req, does_not_let_requests_expire)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 0);
    cr_assert_eq(spoke_socket_set_duration(scene.s, SPOKE_OPT_SEND_EXPIRY, SPOKE_MS), 0);
    send_text(scene.s, "question");
    sleep_ms(20);
    join(&scene.peers[0], scene.s, scene.url, 1);
    (void)raw_expect_request(&scene.peers[0], "question");
    raw_close(&scene.peers[0]);
    wait_pipes(scene.s, 0);
    join(&scene.peers[0], scene.s, scene.url, 1);
    raw_send_word(&scene.peers[0], raw_expect_request(&scene.peers[0], "question"), "answer");
    expect_text(scene.s, "answer");
    cr_assert_eq(stats_of(scene.s).dropped_expired, 0);
    clear_scene(&scene, 1);
}

/* ---- load balancing ---- */

ON_EVERY_STREAM(req, asks_its_peers_by_turns)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 3);
    for (int i = 0; i < 30; i++)
        exchange(&scene, &scene.peers[i % 3]);
    clear_scene(&scene, 3);
}

ON_EVERY_STREAM(req, keeps_taking_turns_when_a_peer_leaves)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 3);
    for (int i = 0; i < 3; i++)
        exchange(&scene, &scene.peers[i]);
    raw_close(&scene.peers[1]);
    wait_pipes(scene.s, 2);
    for (int i = 0; i < 6; i++)
        exchange(&scene, &scene.peers[i % 2 == 0 ? 0 : 2]);
    clear_scene(&scene, 3);
}

/* ---- headers ---- */

ON_EVERY_STREAM(req, replaces_a_header_that_the_user_left)
{
    const uint32_t words[] = {0x01020304, 0x85060708};
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 1);
    cr_assert_eq(spoke_send(scene.s, new_with_words(words, 2, "question"), 0), 0);
    raw_send_word(p, raw_expect_request(p, "question"), "answer");
    expect_text(scene.s, "answer");
    clear_scene(&scene, 1);
}

ON_EVERY_TRANSPORT(req, leaves_a_shared_message_to_its_other_holders)
{
    spoke_socket *req[2], *rep[2];
    spoke_msg *m = new_text("to both");

    for (int i = 0; i < 2; i++) {
        req[i] = open_socket(SPOKE_REQ);
        rep[i] = open_socket(SPOKE_REP);
        connect_sockets(rep[i], req[i], *t);
        cr_assert_eq(spoke_send(req[i], spoke_msg_dup(m), 0), 0);
    }
    for (int i = 0; i < 2; i++) {
        expect_text(rep[i], "to both");
        send_text(rep[i], "thanks");
        expect_text(req[i], "thanks");
    }
    cr_assert(text_is(m, "to both"));
    cr_assert_eq(spoke_msg_header_size(m), 0);
    spoke_msg_free(m);
    finish();
}

/* ---- the rest of the cooked mode ---- */

ON_EVERY_STREAM(req, descriptors_say_when_the_reply_is_there)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, open_asker(SPOKE_REQ), *t, 0);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    join(p, scene.s, scene.url, 1);
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(p, "question");
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    raw_send_word(p, id, "answer");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    expect_text(scene.s, "answer");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    clear_scene(&scene, 1);
}

Test(req, says_at_the_close_that_a_request_never_went_out)
{
    struct spoke_close_report report;
    spoke_socket *s = open_socket(SPOKE_REQ);

    send_text(s, "nobody");
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 20 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_close_report(s, &report), SPOKE_ETIMEDOUT);
    cr_assert_eq(report.messages, 1);
    finish();
}

/* ---- raw ---- */

/* Inproc hands over header and body as they were sent: what a raw peer puts where must not matter.
 */
Test(req, raw_splits_after_the_id_wherever_the_sender_split)
{
    const uint32_t id = ID_BIT | 5;
    spoke_socket *req = open_raw(SPOKE_REQ), *rep = open_raw(SPOKE_REP);
    uint8_t words[] = {0, 0, 0, 9, 0x80, 0, 0, 5, 'b', 'o', 'd', 'y'};
    spoke_msg *m, *reply;

    connect_sockets(rep, req, INPROC);
    cr_assert_eq(spoke_send(req, new_with_words(&id, 1, "hello"), 0), 0);
    cr_assert_eq(spoke_recv(rep, &m, 0), 0);
    for (size_t split = 0; split <= sizeof words; split++) {
        cr_assert_eq(spoke_msg_from(&reply, words + split, sizeof words - split), 0);
        cr_assert_eq(spoke_msg_header_append(reply, spoke_msg_header(m), 4), 0);
        cr_assert_eq(spoke_msg_header_append(reply, words, split), 0);
        cr_assert_eq(spoke_send(rep, reply, 0), 0);
        cr_assert_eq(spoke_recv(req, &reply, 0), 0);
        cr_assert_eq(spoke_msg_header_size(reply), 8, "split at %zu", split);
        cr_assert_arr_eq(spoke_msg_header(reply), words, 8);
        cr_assert(text_is(reply, "body"));
        spoke_msg_free(reply);
    }
    spoke_msg_free(m);
    finish();
}

/* The same for a cooked socket: what follows the id is body. */
Test(req, finds_the_body_wherever_the_sender_split)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_raw(SPOKE_REP);
    spoke_msg *m;

    connect_sockets(rep, req, INPROC);
    for (size_t split = 0; split <= 8; split++) {
        send_text(req, "question");
        cr_assert_eq(spoke_recv(rep, &m, 0), 0);
        cr_assert_eq(spoke_msg_header_size(m), 8);
        uint8_t words[12]; /* the pipe, the id, the body */
        memcpy(words, spoke_msg_header(m), 8);
        memcpy(words + 8, "body", 4);
        spoke_msg_free(m);
        cr_assert_eq(spoke_msg_from(&m, words + 4 + split, 8 - split), 0);
        cr_assert_eq(spoke_msg_header_append(m, words, 4 + split), 0);
        cr_assert_eq(spoke_send(rep, m, 0), 0);
        expect_text(req, "body");
    }
    finish();
}

ON_EVERY_STREAM(req, raw_has_no_states_and_no_ids)
{
    uint32_t words[] = {7, ID_BIT | 9};
    spoke_socket *s = open_raw(SPOKE_REQ);
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    spoke_msg *m;

    expect_recv_error(s, SPOKE_EAGAIN);
    listen_on(s, *t, url);
    join(&p, s, url, 1);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(spoke_send(s, new_with_words(words, 2, "one of three"), 0), 0);
        raw_expect(&p, words, 2, "one of three");
    }
    for (int i = 0; i < 3; i++)
        cr_assert_eq(raw_send_words(&p, words, 2, "unasked"), RAW_OK);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(spoke_recv(s, &m, 0), 0);
        cr_assert(text_is(m, "unasked"));
        spoke_msg_free(m);
    }
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(req, raw_queues_without_peers_and_takes_turns_with_them)
{
    uint32_t words[] = {7, ID_BIT | 9};
    spoke_socket *s = open_raw(SPOKE_REQ);
    char url[ENDPOINT_MAX];
    struct raw_peer peers[2];

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 2), 0);
    expect_fd(s, SPOKE_OPT_SEND_FD, true);
    cr_assert_eq(spoke_send(s, new_with_words(words, 2, "a"), 0), 0);
    cr_assert_eq(spoke_send(s, new_with_words(words, 2, "b"), 0), 0);
    expect_fd(s, SPOKE_OPT_SEND_FD, false);
    expect_send_error(s, SPOKE_EAGAIN);
    listen_on(s, *t, url);
    join(&peers[0], s, url, 1);
    raw_expect(&peers[0], words, 2, "a");
    raw_expect(&peers[0], words, 2, "b");
    expect_fd(s, SPOKE_OPT_SEND_FD, true);
    join(&peers[1], s, url, 2);
    for (int i = 0; i < 6; i++)
        cr_assert_eq(spoke_send(s, new_with_words(words, 2, "c"), 0), 0);
    for (int i = 0; i < 6; i++)
        raw_expect(&peers[i % 2], words, 2, "c");
    raw_close(&peers[0]);
    raw_close(&peers[1]);
    finish();
}

/* Goal: looking whether a send would wait does not use up a turn. */
ON_EVERY_STREAM(req, raw_takes_turns_while_its_descriptor_is_watched)
{
    uint32_t word = ID_BIT | 9;
    spoke_socket *s = open_raw(SPOKE_REQ);
    char url[ENDPOINT_MAX];
    struct raw_peer peers[2];

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 0), 0);
    expect_fd(s, SPOKE_OPT_SEND_FD, false);
    listen_on(s, *t, url);
    join(&peers[0], s, url, 1);
    join(&peers[1], s, url, 2);
    for (int i = 0; i < 8; i++) {
        expect_fd(s, SPOKE_OPT_SEND_FD, true);
        cr_assert_eq(spoke_send(s, new_with_words(&word, 1, "turn"), SPOKE_DONTWAIT), 0);
        raw_expect(&peers[i % 2], &word, 1, "turn");
    }
    raw_close(&peers[0]);
    raw_close(&peers[1]);
    wait_pipes(s, 0);
    expect_fd(s, SPOKE_OPT_SEND_FD, false);
    finish();
}

/* Goal: one peer that reads nothing does not hold up the others. */
ON_EVERY_STREAM(req, raw_passes_by_a_peer_that_is_busy)
{
    enum { SIZE = 60000, COUNT = 300 };
    spoke_socket *s = open_raw(SPOKE_REQ);
    static uint8_t bytes[SIZE];
    char url[ENDPOINT_MAX];
    struct raw_peer idle, busy;
    int arrived = 0;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 0), 0);
    listen_on(s, *t, url);
    join(&idle, s, url, 1);
    join(&busy, s, url, 2);
    for (int i = 0; i < COUNT; i++) {
        spoke_msg *m;
        cr_assert_eq(spoke_msg_new(&m, SIZE), 0);
        memset(spoke_msg_body(m), 0x80, SIZE);
        int rc = spoke_send(s, m, 0);
        cr_assert_eq(rc, 0, "message %d: %s", i, spoke_strerror(rc));
        while (!raw_is_quiet(&busy, 0) && raw_recv(&busy, bytes, SIZE, RAW_LIMIT_MS) == SIZE)
            arrived++;
    }
    while (raw_recv(&busy, bytes, SIZE, RAW_QUIET_MS) == SIZE)
        arrived++;
    cr_assert_gt(arrived, COUNT / 2);
    cr_assert_eq(stats_of(s).pipes_current, 2);
    raw_close(&idle);
    raw_close(&busy);
    finish();
}
