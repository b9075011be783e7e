/* SPDX-License-Identifier: MIT */
/* SURVEYOR: its survey goes to everybody, and ends in time; what it does with those who send more
 * than their share.  What it shares with REQ is in ask.c. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <spoke/sim.h>

#include "tests/protocols/scene.h"

#include "runtime/memory/pool.h"

/* The time of a survey that is to end soon, and has to go out before. */
#define TO_GO_OUT ((350 + 50 * SPOKE_TEST_SLOWDOWN) * SPOKE_MS)

static void
set_survey_time(spoke_socket *s, spoke_ns survey_ns)
{
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SURVEY_TIME, survey_ns), 0);
}

/* Send a survey, which these peers get; returns its id. */
static uint32_t
survey(struct scene *scene, int peers, const char *text)
{
    uint32_t id = 0;

    send_text(scene->s, text);
    for (int i = 0; i < peers; i++) {
        uint32_t got = raw_expect_request(&scene->peers[i], text);
        cr_assert(i == 0 || got == id, "the same for all");
        id = got;
    }
    return id;
}

static void
expect_recv_wait(spoke_socket *s, int error)
{
    spoke_msg *m;
    int rc = spoke_recv(s, &m, 0);

    cr_assert_eq(rc, error, "%s instead of %s", spoke_error_name(rc), spoke_error_name(error));
    cr_assert_null(m);
}

/* ---- the wire ---- */

/* 96 and 97 were an older pattern of this name. */
ON_EVERY_STREAM(survey, refuses_other_patterns)
{
    static const uint16_t others[] = {98, 96, 97, 49, 0, 0xffff};
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 0);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct raw_peer p;
        cr_assert_eq(raw_dial_sp(&p, scene.url, others[i], 98), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
        raw_close(&p);
    }
    wait_counter(scene.s, handshakes_failed, 6);
    clear_scene(&scene, 0);
}

/* ---- a survey ---- */

ON_EVERY_TRANSPORT(survey, gets_an_answer_from_everybody_who_gives_one)
{
    enum { COUNT = 5 };
    spoke_socket *s = open_socket(SPOKE_SURVEYOR), *others[COUNT];
    char url[ENDPOINT_MAX];

    listen_on(s, *t, url);
    for (int i = 0; i < COUNT; i++) {
        others[i] = open_socket(SPOKE_RESPONDENT);
        dial(others[i], url);
    }
    wait_pipes(s, COUNT);
    set_survey_time(s, PATIENCE);
    for (int round = 0; round < 20; round++) {
        int seen = 0;
        send_text(s, "who is there");
        for (int i = 0; i < COUNT; i++) {
            char name[2] = {(char)('0' + i), '\0'};
            expect_text(others[i], "who is there");
            if (i != round % COUNT) /* one of them is silent */
                send_text(others[i], name);
        }
        for (int i = 0; i + 1 < COUNT; i++) {
            spoke_msg *m;
            int rc = spoke_recv(s, &m, 0);
            cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
            cr_assert_eq(spoke_msg_size(m), 1);
            cr_assert_eq(spoke_msg_header_size(m), 0);
            seen |= 1 << (*(char *)spoke_msg_body(m) - '0');
            spoke_msg_free(m);
        }
        cr_assert_eq(seen, 31 & ~(1 << round % COUNT));
        expect_recv_error(s, SPOKE_EAGAIN);
    }
    finish();
}

Test(survey, refuses_to_receive_without_a_survey)
{
    spoke_socket *s = open_socket(SPOKE_SURVEYOR);

    expect_recv_error(s, SPOKE_ESTATE);
    expect_recv_wait(s, SPOKE_ESTATE);
    finish();
}

/* Without peers, and without room for anything. */
Test(survey, never_waits_to_send)
{
    spoke_socket *s = open_socket(SPOKE_SURVEYOR);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 0), 0);
    for (int i = 0; i < 200; i++)
        cr_assert_eq(spoke_send_bytes(s, "anybody", 7, SPOKE_DONTWAIT), 0);
    expect_recv_error(s, SPOKE_EAGAIN);
    cr_assert_eq(spoke_socket_close(s), 0, "nothing waits");
    finish();
}

/* It was for those who were there. */
ON_EVERY_STREAM(survey, is_not_sent_to_those_who_come_later_or_again)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 1);
    uint32_t id = survey(&scene, 1, "question");
    join(&scene.peers[1], scene.s, scene.url, 2);
    cr_assert(raw_is_quiet(&scene.peers[1], RAW_QUIET_MS));
    raw_close(&scene.peers[0]);
    wait_pipes(scene.s, 1);
    join(&scene.peers[0], scene.s, scene.url, 2);
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    raw_send_word(&scene.peers[0], id, "all the same");
    expect_text(scene.s, "all the same");
    clear_scene(&scene, 2);
}

ON_EVERY_STREAM(survey, keeps_the_answers_of_those_who_leave)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 2);
    uint32_t id = survey(&scene, 2, "question");
    raw_send_word(&scene.peers[0], id, "goodbye");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    raw_close(&scene.peers[0]);
    wait_pipes(scene.s, 1);
    expect_text(scene.s, "goodbye");
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    clear_scene(&scene, 2);
}

ON_EVERY_STREAM(survey, a_new_one_takes_the_place_of_the_old_one)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 1);
    uint32_t old = survey(&scene, 1, "old");
    raw_send_word(p, old, "unread");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    uint32_t new = survey(&scene, 1, "new");
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    raw_send_word(p, old, "stale");
    wait_counter(scene.s, dropped_stale, 1);
    raw_send_word(p, new, "fresh");
    expect_text(scene.s, "fresh");
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    clear_scene(&scene, 1);
}

/* ---- the deadline ---- */

ON_EVERY_STREAM(survey, the_deadline_ends_the_wait_of_all)
{
    struct waiting_call calls[3];
    struct scene scene;

    set_scene(&scene, watch_pipes(open_asker(SPOKE_SURVEYOR)), *t, 1);
    set_survey_time(scene.s, TO_GO_OUT);
    uint32_t id = survey(&scene, 1, "question");
    for (int i = 0; i < 3; i++)
        start_call(&calls[i], scene.s, NULL);
    for (int i = 0; i < 3; i++) {
        int rc = end_call(&calls[i]); /* one that began too late may learn it otherwise */
        cr_assert(rc == SPOKE_ETIMEDOUT || rc == SPOKE_ESTATE, "%s", spoke_error_name(rc));
    }
    expect_recv_error(scene.s, SPOKE_ESTATE);
    raw_send_word(&scene.peers[0], id, "too late");
    wait_counter(scene.s, dropped_stale, 1);
    cr_assert_eq(pipe_stats_of(scene.s, 0).dropped_stale, 1);
    expect_recv_error(scene.s, SPOKE_ESTATE);
    clear_scene(&scene, 1);
}

/* In virtual time, exactly: nobody is late by accident. */
struct virtual_pair {
    spoke_sim *w;
    spoke_socket *surveyor, *respondent;
};

static void
open_virtual(struct virtual_pair *v)
{
    spoke_engine *here, *there;

    cr_assert_eq(spoke_sim_open(&v->w, NULL), 0);
    cr_assert_eq(spoke_sim_engine(v->w, &here), 0);
    cr_assert_eq(spoke_sim_engine(v->w, &there), 0);
    cr_assert_eq(spoke_socket_open(&v->surveyor, SPOKE_SURVEYOR, here), 0);
    cr_assert_eq(spoke_socket_open(&v->respondent, SPOKE_RESPONDENT, there), 0);
    cr_assert_eq(spoke_listen(v->surveyor, "tcp://127.0.0.1:5000", NULL, 0), 0);
    cr_assert_eq(spoke_dial(v->respondent, "tcp://127.0.0.1:5000", NULL, SPOKE_WAIT_FIRST), 0);
    while (stats_of(v->surveyor).pipes_current == 0)
        cr_assert_geq(spoke_sim_step(v->w), 0);
}

static void
pass_virtual(struct virtual_pair *v, spoke_ns duration)
{
    spoke_ns until = spoke_sim_now(v->w) + duration;

    (void)spoke_sim_run(v->w, NULL, NULL, duration);
    cr_assert_geq(spoke_sim_now(v->w), until);
}

Test(survey, lasts_a_second_unless_told_otherwise)
{
    struct virtual_pair v;
    spoke_ns value;

    open_virtual(&v);
    cr_assert_eq(spoke_socket_get_duration(v.surveyor, SPOKE_OPT_SURVEY_TIME, &value), 0);
    cr_assert_eq(value, SPOKE_SECOND);
    for (int i = 1; i < 4; i++) {
        spoke_ns begun = spoke_sim_now(v.w);
        cr_assert_eq(spoke_send_bytes(v.surveyor, "question", 8, 0), 0);
        expect_recv_wait(v.surveyor, SPOKE_ETIMEDOUT);
        cr_assert_geq(spoke_sim_now(v.w) - begun, i * SPOKE_SECOND);
        cr_assert_leq(spoke_sim_now(v.w) - begun, i * SPOKE_SECOND + SPOKE_MS);
        expect_recv_wait(v.surveyor, SPOKE_ESTATE);
        set_survey_time(v.surveyor, (i + 1) * SPOKE_SECOND);
    }
    cr_assert_eq(spoke_sim_close(v.w, NULL), 0);
}

/* Goal: whoever did not wait learns of the deadline once.  Answers that nobody took are gone. */
Test(survey, says_once_that_it_is_over)
{
    struct virtual_pair v;

    open_virtual(&v);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(spoke_send_bytes(v.surveyor, "question", 8, 0), 0);
        cr_assert_eq(spoke_send(v.respondent, recv_message(v.respondent), 0), 0);
        pass_virtual(&v, 500 * SPOKE_MS);
        if (i == 1) /* it was there */
            spoke_msg_free(recv_message(v.surveyor));
        pass_virtual(&v, 600 * SPOKE_MS);
        expect_recv_error(v.surveyor, SPOKE_ETIMEDOUT);
        expect_recv_error(v.surveyor, SPOKE_ESTATE);
    }
    cr_assert_eq(spoke_sim_close(v.w, NULL), 0);
}

/* Goal: one that has no end has none, also if the one before had.  (mangos leaves the timer on.) */
Test(survey, has_no_end_if_its_time_is_0)
{
    struct virtual_pair v;

    open_virtual(&v);
    cr_assert_eq(spoke_send_bytes(v.surveyor, "short", 5, 0), 0);
    set_survey_time(v.surveyor, 0);
    cr_assert_eq(spoke_send_bytes(v.surveyor, "endless", 7, 0), 0);
    spoke_msg_free(recv_message(v.respondent));
    spoke_msg *m = recv_message(v.respondent);
    pass_virtual(&v, 3600 * SPOKE_SECOND);
    expect_recv_error(v.surveyor, SPOKE_EAGAIN);
    cr_assert_eq(spoke_send(v.respondent, m, 0), 0);
    m = recv_message(v.surveyor);
    cr_assert(text_is(m, "endless"));
    spoke_msg_free(m);
    cr_assert_eq(spoke_sim_close(v.w, NULL), 0);
}

/* Each survey has its own deadline, not what is left of the one before. */
Test(survey, a_new_one_has_all_its_time)
{
    struct virtual_pair v;

    open_virtual(&v);
    cr_assert_eq(spoke_send_bytes(v.surveyor, "first", 5, 0), 0);
    pass_virtual(&v, 900 * SPOKE_MS);
    cr_assert_eq(spoke_send_bytes(v.surveyor, "second", 6, 0), 0);
    pass_virtual(&v, 900 * SPOKE_MS);
    expect_recv_error(v.surveyor, SPOKE_EAGAIN);
    pass_virtual(&v, 200 * SPOKE_MS);
    expect_recv_error(v.surveyor, SPOKE_ETIMEDOUT);
    cr_assert_eq(spoke_send_bytes(v.surveyor, "third", 5, 0), 0);
    pass_virtual(&v, 1100 * SPOKE_MS);
    cr_assert_eq(spoke_send_bytes(v.surveyor, "fourth", 6, 0), 0);
    expect_recv_error(v.surveyor, SPOKE_EAGAIN); /* the end of the third is not its own */
    cr_assert_eq(spoke_sim_close(v.w, NULL), 0);
}

Test(survey, goes_on_when_a_receive_gives_up_earlier)
{
    struct virtual_pair v;

    open_virtual(&v);
    cr_assert_eq(spoke_socket_set_duration(v.surveyor, SPOKE_OPT_RECV_TIMEOUT, 100 * SPOKE_MS), 0);
    cr_assert_eq(spoke_send_bytes(v.surveyor, "question", 8, 0), 0);
    expect_recv_wait(v.surveyor, SPOKE_ETIMEDOUT);
    expect_recv_wait(v.surveyor, SPOKE_ETIMEDOUT);
    cr_assert_eq(spoke_send(v.respondent, recv_message(v.respondent), 0), 0);
    spoke_msg *m = recv_message(v.surveyor);
    cr_assert(text_is(m, "question"));
    spoke_msg_free(m);
    cr_assert_eq(spoke_sim_close(v.w, NULL), 0);
}

Test(survey, a_late_answer_is_counted_and_never_given_to_another)
{
    struct virtual_pair v;

    open_virtual(&v);
    cr_assert_eq(spoke_send_bytes(v.surveyor, "first", 5, 0), 0);
    spoke_msg *late = recv_message(v.respondent);
    pass_virtual(&v, 1100 * SPOKE_MS);
    cr_assert_eq(spoke_send_bytes(v.surveyor, "second", 6, 0), 0);
    pass_virtual(&v, 100 * SPOKE_MS);
    cr_assert_eq(spoke_send(v.respondent, late, 0), 0, "it is sent all the same");
    expect_recv_wait(v.surveyor, SPOKE_ETIMEDOUT);
    cr_assert_eq(stats_of(v.surveyor).dropped_stale, 1);
    cr_assert_eq(spoke_sim_close(v.w, NULL), 0);
}

/* Goal: the deadline holds although nobody has turned the engine since.  Method: an answer is
 * there; then the owner does something else until the time is up. */
ON_EVERY_TRANSPORT(survey, gives_nothing_after_its_deadline_to_an_owner_who_was_away)
{
    const struct timespec away = {.tv_nsec = TO_GO_OUT};

    own_engine();
    spoke_socket *s = open_socket(SPOKE_SURVEYOR), *other = open_socket(SPOKE_RESPONDENT);
    connect_sockets(s, other, *t);
    set_survey_time(s, TO_GO_OUT);
    send_text(s, "question");
    expect_text(other, "question");
    send_text(other, "answer");
    for (int i = 0; i < 100 && stats_of(s).recv_queue_high == 0; i++)
        sleep_ms(1);
    nanosleep(&away, NULL);
    expect_recv_error(s, SPOKE_ETIMEDOUT);
    expect_recv_error(s, SPOKE_ESTATE);
    finish();
}

Test(survey, checks_its_options)
{
    static const int wrong[] = {0, -1, 256, 1 << 20};
    spoke_socket *s = open_socket(SPOKE_SURVEYOR);
    spoke_ns value;
    int ttl;

    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SURVEY_TIME, -1), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SURVEY_TIME, 5), SPOKE_ETYPE);
    cr_assert_eq(spoke_socket_get_duration(s, SPOKE_OPT_SURVEY_TIME, &value), 0);
    cr_assert_eq(value, SPOKE_SECOND);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RETRY_TIME, 1), SPOKE_EOPTION);
    set_survey_time(s, SPOKE_FOREVER);
    send_text(s, "with the longest of all timers");
    expect_recv_error(s, SPOKE_EAGAIN);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, 8);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, wrong[i]), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, 255), 0);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, 255);
    cr_assert_eq(spoke_socket_set_duration(open_socket(SPOKE_RESPONDENT), SPOKE_OPT_SURVEY_TIME, 1),
                 SPOKE_EOPTION);
    finish();
}

/* ---- answers that are none ---- */

ON_EVERY_STREAM(survey, closes_the_pipe_of_an_answer_without_an_id)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 1);
    uint32_t id = survey(&scene, 1, "question");
    for (size_t size = 0; size < 4; size++) {
        struct raw_peer p;
        join(&p, scene.s, scene.url, 2);
        cr_assert_eq(raw_send(&p, "\200\0\0", size), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "%zu bytes", size);
        wait_counter(scene.s, garbled, size + 1);
        wait_pipes(scene.s, 1);
        raw_close(&p);
    }
    raw_send_word(&scene.peers[0], id, "answer");
    expect_text(scene.s, "answer");
    clear_scene(&scene, 1);
}

/* Goal: one who answers without end fills nothing but its share, whether it comes first or later,
 * and the socket takes no more memory than its queue allows. */
ON_EVERY_STREAM(survey, a_flood_leaves_the_others_their_share)
{
    enum { QUEUE = 16, FLOOD = 2000 };
    struct spoke_memory_stats memory;
    struct scene scene;
    int count[3] = {0};

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 0);
    scene.s = watch_pipes(open_socket(SPOKE_SURVEYOR));
    set_survey_time(scene.s, 0);
    cr_assert_eq(spoke_socket_set_int(scene.s, SPOKE_OPT_RECV_QUEUE, QUEUE), 0);
    listen_on(scene.s, *t, scene.url);
    for (int i = 0; i < 3; i++)
        join(&scene.peers[i], scene.s, scene.url, (uint64_t)i + 1);
    uint32_t id = survey(&scene, 3, "question");
    for (int i = 0; i < FLOOD; i++)
        raw_send_word(&scene.peers[0], id, "0");
    wait_counter(scene.s, dropped_recv_full, FLOOD - QUEUE);
    for (int i = 0; i < 4; i++)
        raw_send_word(&scene.peers[1], id, "1");
    wait_counter(scene.s, dropped_recv_full, FLOOD - QUEUE + 4);
    for (int i = 0; i < 8; i++) /* more than its share of 5 */
        raw_send_word(&scene.peers[2], id, "2");
    wait_counter(scene.s, dropped_recv_full, FLOOD - QUEUE + 4 + 8);
    raw_send_word(&scene.peers[0], id, "0");
    wait_counter(scene.s, dropped_recv_full, FLOOD - QUEUE + 4 + 8 + 1);
    spoke_memory_stats(&memory);
    cr_assert_lt(memory.messages, 2 * QUEUE);
    cr_assert_eq(stats_of(scene.s).recv_queue_high, QUEUE);
    cr_assert_eq(pipe_stats_of(scene.s, 0).dropped_recv_full, FLOOD + 1 - 7);
    cr_assert_eq(pipe_stats_of(scene.s, 1).dropped_recv_full, 0);
    cr_assert_eq(pipe_stats_of(scene.s, 2).dropped_recv_full, 8 - 5);
    for (int i = 0; i < QUEUE; i++) {
        spoke_msg *m;
        cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
        count[*(char *)spoke_msg_body(m) - '0']++;
        spoke_msg_free(m);
    }
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    cr_assert_eq(count[1], 4);
    cr_assert_eq(count[2], 5);
    cr_assert_eq(count[0], 7);
    raw_send_word(&scene.peers[0], id, "there is room again");
    expect_text(scene.s, "there is room again");
    clear_scene(&scene, 3);
}

/* The same where bytes are the limit: one answer always fits. */
ON_EVERY_STREAM(survey, bounds_its_answers_in_bytes)
{
    enum { SIZE = 100000, COUNT = 50 };
    static uint8_t bytes[SIZE + 4];
    struct spoke_memory_stats memory;
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 2);
    cr_assert_eq(spoke_socket_set_size(scene.s, SPOKE_OPT_RECV_QUEUE_BYTES, 5 * SIZE), 0);
    uint32_t id = survey(&scene, 2, "question");
    raw_put32(bytes, id);
    for (int i = 0; i < COUNT; i++)
        cr_assert_eq(raw_send(&scene.peers[0], bytes, sizeof bytes), RAW_OK);
    wait_counter(scene.s, dropped_recv_full, COUNT - 5);
    spoke_memory_stats(&memory);
    cr_assert_lt(memory.messages, 10);
    raw_send_word(&scene.peers[1], id, "little");
    wait_counter(scene.s, dropped_recv_full, COUNT - 4);
    int little = 0;
    for (int i = 0; i < 5; i++) {
        spoke_msg *m;
        cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
        little += text_is(m, "little");
        spoke_msg_free(m);
    }
    cr_assert_eq(little, 1);
    clear_scene(&scene, 2);
}

ON_EVERY_TRANSPORT(survey, takes_one_answer_at_a_time_if_its_queue_has_no_length)
{
    spoke_socket *s = open_asker(SPOKE_SURVEYOR), *other = open_socket(SPOKE_RESPONDENT);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 0), 0);
    connect_sockets(s, other, *t);
    for (int i = 0; i < 3; i++) {
        send_text(s, "question");
        expect_text(other, "question");
        send_text(other, "answer");
        expect_text(s, "answer");
    }
    finish();
}

/* ---- peers that do not read ---- */

/* Goal: one that does not read loses surveys, and only it does. */
ON_EVERY_STREAM(survey, drops_copies_for_a_peer_that_does_not_read)
{
    enum { SIZE = 60000, MOST = 4000 };
    static uint8_t bytes[SIZE + 4];
    struct spoke_memory_stats memory;
    struct scene scene;
    int sent = 0;

    set_scene(&scene, watch_pipes(open_asker(SPOKE_SURVEYOR)), *t, 2);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full < 20; sent++) {
        cr_assert_eq(spoke_send_bytes(scene.s, bytes, SIZE, SPOKE_DONTWAIT), 0);
        cr_assert_eq(raw_recv(&scene.peers[1], bytes, sizeof bytes, RAW_LIMIT_MS), SIZE + 4);
        raw_send_word(&scene.peers[1], raw_get32(bytes), "here");
        expect_text(scene.s, "here");
    }
    cr_assert_lt(sent, MOST, "nothing was dropped");
    cr_assert_eq(stats_of(scene.s).dropped_peer_full, 20);
    cr_assert_eq(pipe_stats_of(scene.s, 0).dropped_peer_full, 20);
    cr_assert_eq(pipe_stats_of(scene.s, 1).dropped_peer_full, 0);
    cr_assert_eq(stats_of(scene.s).pipes_current, 2);
    spoke_memory_stats(&memory);
    cr_assert_lt(memory.messages, 200);
    for (int i = 0; i < sent - 20; i++) /* what waited arrives, in order, when it reads at last */
        cr_assert_eq(raw_recv(&scene.peers[0], bytes, sizeof bytes, RAW_LIMIT_MS), SIZE + 4);
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    (void)survey(&scene, 2, "are you back");
    clear_scene(&scene, 2);
}

/* Goal: what can no longer be answered in time is not sent.  Method: surveys fill the pipe of a
 * peer that reads when all but the last are over. */
ON_EVERY_STREAM(survey, does_not_send_what_is_over)
{
    enum { SIZE = 60000, MOST = 1000 };
    static uint8_t bytes[SIZE + 4];
    struct spoke_stats stats;
    struct scene scene;
    uint64_t sent = 0, arrived = 0;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 1);
    set_survey_time(scene.s, SPOKE_MS);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full == 0; sent++)
        cr_assert_eq(spoke_send_bytes(scene.s, bytes, SIZE, SPOKE_DONTWAIT), 0);
    set_survey_time(scene.s, 0);
    sleep_ms(20);
    do { /* until it is known of each what became of it */
        if (!raw_is_quiet(&scene.peers[0], 1)) {
            cr_assert_eq(raw_recv(&scene.peers[0], bytes, sizeof bytes, RAW_LIMIT_MS), SIZE + 4);
            arrived++;
        }
        stats = stats_of(scene.s);
    } while (arrived + stats.dropped_peer_full + stats.dropped_expired < sent);
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    cr_assert_eq(arrived + stats.dropped_peer_full + stats.dropped_expired, sent);
    cr_assert_gt(arrived, 0);
    cr_assert_gt(stats.dropped_expired, 0);
    (void)survey(&scene, 1, "in time");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(survey, the_close_reports_copies_that_never_went_out)
{
    enum { SIZE = 60000, MOST = 1000 };
    static uint8_t bytes[SIZE];
    struct spoke_close_report report;
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 1);
    for (int i = 0; i < MOST && stats_of(scene.s).dropped_peer_full == 0; i++)
        cr_assert_eq(spoke_send_bytes(scene.s, bytes, SIZE, SPOKE_DONTWAIT), 0);
    cr_assert_eq(spoke_socket_set_duration(scene.s, SPOKE_OPT_LINGER, 20 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_close_report(scene.s, &report), SPOKE_ETIMEDOUT);
    cr_assert_geq(report.messages, 64);
    cr_assert_geq(report.bytes, 64 * (SIZE + 4));
    clear_scene(&scene, 1);
}

/* ---- messages ---- */

ON_EVERY_STREAM(survey, replaces_a_header_that_the_user_left)
{
    const uint32_t words[] = {0x01020304, 0x85060708};
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 2);
    cr_assert_eq(spoke_send(scene.s, new_with_words(words, 2, "question"), 0), 0);
    for (int i = 0; i < 2; i++)
        raw_send_word(&scene.peers[i], raw_expect_request(&scene.peers[i], "question"), "answer");
    expect_text(scene.s, "answer");
    expect_text(scene.s, "answer");
    clear_scene(&scene, 2);
}

ON_EVERY_TRANSPORT(survey, leaves_a_shared_message_to_its_other_holders)
{
    spoke_socket *s = open_socket(SPOKE_SURVEYOR), *others[3];
    spoke_msg *m = new_text("to all"), *got;
    char url[ENDPOINT_MAX];

    listen_on(s, *t, url);
    for (int i = 0; i < 3; i++) {
        others[i] = open_socket(SPOKE_RESPONDENT);
        dial(others[i], url);
    }
    wait_pipes(s, 3);
    set_survey_time(s, 0);
    for (int round = 0; round < 2; round++) {
        cr_assert_eq(spoke_send(s, spoke_msg_dup(m), 0), 0);
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(spoke_recv(others[i], &got, 0), 0);
            cr_assert(text_is(got, "to all"));
            cr_assert_eq(spoke_msg_make_unique(&got), 0); /* everyone may write on its own */
            memset(spoke_msg_body(got), '0' + i, 6);
            cr_assert_eq(spoke_send(others[i], got, 0), 0);
        }
        for (int i = 0; i < 3; i++) {
            cr_assert_eq(spoke_recv(s, &got, 0), 0);
            cr_assert_eq(spoke_msg_size(got), 6);
            spoke_msg_free(got);
        }
        cr_assert(text_is(m, "to all"));
        cr_assert_eq(spoke_msg_header_size(m), 0);
    }
    spoke_msg_free(m);
    finish();
}

static struct {
    long count, fail_at;
} fault;

static bool
fail_once(void *ctx)
{
    (void)ctx;
    return ++fault.count == fault.fail_at;
}

/* What arrives without memory for it is dropped and counted, or its pipe is closed. */
ON_EVERY_TRANSPORT(survey, an_answer_that_there_is_no_memory_for_is_lost)
{
    own_engine();
    spoke_socket *s = open_socket(SPOKE_SURVEYOR), *other = open_socket(SPOKE_RESPONDENT);
    int failures = 0, lost = 0;

    connect_sockets(s, other, *t);
    set_survey_time(s, 0); /* else the question may not go out in time */
    for (bool failed = true; failed; failures++) {
        spoke_context *c = open_context(s); /* whose queue has no memory yet */
        spoke_msg *m = NULL;

        cr_assert_eq(spoke_context_set_duration(c, SPOKE_OPT_RECV_TIMEOUT,
                                                50 * SPOKE_MS * SPOKE_TEST_SLOWDOWN),
                     0);
        context_send_text(c, "question");
        expect_text(other, "question");
        fault.count = 0;
        fault.fail_at = failures + 1;
        spk_memory_set_fault(fail_once, NULL);
        int rc = spoke_send_bytes(other, "answer", 6, 0);
        cr_assert(rc == 0 || rc == SPOKE_ENOMEM, "%s", spoke_error_name(rc));
        if (rc == 0)
            rc = spoke_context_recv(c, &m, 0);
        else
            rc = SPOKE_ETIMEDOUT;
        spk_memory_set_fault(NULL, NULL);
        failed = fault.count >= fault.fail_at;
        cr_assert(rc == 0 || rc == SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
        if (rc != 0 && !failed) { /* the time was up before it was looked at: again */
            failed = true;
            failures--;
        } else {
            lost += rc != 0;
        }
        spoke_msg_free(m);
        cr_assert_eq(spoke_context_close(c), 0);
        wait_pipes(s, 1);
        wait_pipes(other, 1);
    }
    cr_assert_gt(lost, 0);
    finish();
}

/* ---- descriptors ---- */

ON_EVERY_STREAM(survey, descriptors_say_when_an_answer_is_there_and_when_it_is_over)
{
    struct scene scene;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 1);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true); /* to learn that no survey runs */
    uint32_t id = survey(&scene, 1, "question");
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    raw_send_word(&scene.peers[0], id, "answer");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    expect_text(scene.s, "answer");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    set_survey_time(scene.s, TO_GO_OUT);
    (void)survey(&scene, 1, "short");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    expect_recv_error(scene.s, SPOKE_ETIMEDOUT);
    clear_scene(&scene, 1);
}

static void
count_answer(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)s;
    atomic_fetch_add((atomic_int *)ctx, text_is(m, "answer"));
    spoke_msg_free(m);
}

/* A callback gets the answers, and hears nothing of the deadline. */
ON_EVERY_STREAM(survey, a_callback_gets_the_answers)
{
    struct scene scene;
    atomic_int count = 0;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 2);
    cr_assert_eq(spoke_socket_on_message(scene.s, count_answer, &count), 0);
    for (int round = 1; round < 4; round++) {
        uint32_t id = survey(&scene, 2, "question");
        for (int i = 0; i < 2; i++)
            raw_send_word(&scene.peers[i], id, "answer");
        for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && count < 2 * round; i++)
            sleep_ms(1);
        cr_assert_eq(count, 2 * round);
    }
    set_survey_time(scene.s, TO_GO_OUT);
    uint32_t id = survey(&scene, 2, "short");
    sleep_ms((int)(TO_GO_OUT / SPOKE_MS));
    settle(); /* and the engine knows that it is over */
    raw_send_word(&scene.peers[0], id, "late");
    wait_counter(scene.s, dropped_stale, 1);
    cr_assert_eq(count, 6);
    expect_recv_error(scene.s, SPOKE_ESTATE);
    clear_scene(&scene, 2);
}

/* ---- contexts ---- */

ON_EVERY_STREAM(survey, contexts_have_surveys_of_their_own)
{
    struct scene scene;
    spoke_context *c[2];
    uint32_t ids[2];

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 2);
    for (int i = 0; i < 2; i++) {
        c[i] = open_context(scene.s);
        context_expect_recv_error(c[i], SPOKE_ESTATE);
        context_send_text(c[i], "question");
        for (int j = 0; j < 2; j++)
            ids[i] = raw_expect_request(&scene.peers[j], "question");
    }
    expect_recv_error(scene.s, SPOKE_ESTATE);
    for (int j = 0; j < 2; j++) {
        raw_send_word(&scene.peers[j], ids[1], "to the second");
        raw_send_word(&scene.peers[j], ids[0], "to the first");
    }
    for (int j = 0; j < 2; j++) {
        context_expect_text(c[0], "to the first");
        context_expect_text(c[1], "to the second");
    }
    cr_assert_eq(spoke_context_close(c[0]), 0);
    raw_send_word(&scene.peers[0], ids[0], "closed");
    wait_counter(scene.s, dropped_stale, 1);
    raw_send_word(&scene.peers[0], ids[1], "open");
    context_expect_text(c[1], "open");
    clear_scene(&scene, 2);
}

/* Goal: who does not read its answers holds up nobody. */
ON_EVERY_STREAM(survey, a_context_that_does_not_read_holds_up_nobody)
{
    struct scene scene;
    spoke_context *c[2];
    uint32_t ids[2];

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 1);
    for (int i = 0; i < 2; i++) {
        c[i] = open_context(scene.s);
        context_send_text(c[i], "question");
        ids[i] = raw_expect_request(&scene.peers[0], "question");
    }
    for (int i = 0; i < 500; i++)
        raw_send_word(&scene.peers[0], ids[0], "unread");
    wait_counter(scene.s, dropped_recv_full, 500 - 128);
    raw_send_word(&scene.peers[0], ids[1], "read");
    context_expect_text(c[1], "read");
    cr_assert_eq(spoke_context_close(c[0]), 0); /* with its answers */
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(survey, contexts_have_deadlines_of_their_own)
{
    struct waiting_call calls[2];
    struct scene scene;
    spoke_context *c[2];
    uint32_t id = 0;

    set_scene(&scene, open_asker(SPOKE_SURVEYOR), *t, 1);
    for (int i = 0; i < 2; i++) {
        c[i] = open_context(scene.s);
        cr_assert_eq(
            spoke_context_set_duration(c[i], SPOKE_OPT_SURVEY_TIME, i == 0 ? TO_GO_OUT : 0), 0);
        context_send_text(c[i], "question");
        id = raw_expect_request(&scene.peers[0], "question");
        start_context_call(&calls[i], c[i]);
    }
    int rc = end_call(&calls[0]);
    cr_assert_eq(rc, SPOKE_ETIMEDOUT, "%s", spoke_error_name(rc));
    raw_send_word(&scene.peers[0], id, "in time");
    cr_assert_eq(end_call(&calls[1]), 0, "%s", spoke_error_name(calls[1].rc));
    cr_assert_str_eq(calls[1].received, "in time");
    clear_scene(&scene, 1);
}
