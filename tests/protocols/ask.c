/* SPDX-License-Identifier: MIT */
/* What REQ and SURVEYOR do alike: their ids, what they do with answers of every kind, sends that
 * fail, and the raw mode.  The rest is in req.c and survey.c. */
#include "tests/protocols/scene.h"

#include "runtime/memory/pool.h"

/* ---- the wire ---- */

static void
bytes_of_the_specification(int pattern, enum transport t)
{
    uint8_t question[] = {1, 0, 0, 0, 0, 0, 0, 0, 9, 0x80, 0, 0, 1, 'h', 'e', 'l', 'l', 'o'};
    uint8_t answer[] = {1, 0, 0, 0, 0, 0, 0, 0, 9, 0x80, 0, 0, 1, 'W', 'O', 'R', 'L', 'D'};
    const uint8_t ours[] = {0, 'S', 'P', 0, 0, pattern == SPOKE_REQ ? 0x30 : 0x62, 0, 0};
    const uint8_t theirs[] = {0, 'S', 'P', 0, 0, pattern == SPOKE_REQ ? 0x31 : 0x63, 0, 0};
    spoke_socket *s = open_asker(pattern);
    size_t skip = t == IPC ? 0 : 1; /* the type byte */
    char url[ENDPOINT_MAX];
    uint8_t bytes[sizeof question];
    struct raw_listener l;
    struct raw_peer p;

    endpoint_fresh(url, t);
    cr_assert_eq(raw_listen(&l, url), RAW_OK);
    dial(s, l.url);
    cr_assert_eq(raw_accept(&l, &p, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, ours, sizeof ours);
    cr_assert_eq(raw_send_bytes(&p, theirs, sizeof theirs, RAW_LIMIT_MS), RAW_OK);
    wait_pipes(s, 1);
    send_text(s, "hello");
    cr_assert_eq(raw_recv_bytes(&p, bytes, sizeof question - skip, RAW_LIMIT_MS), RAW_OK);
    cr_assert((bytes[9 - skip] & 0x80) != 0);
    memcpy(question + 9, bytes + 9 - skip, 4); /* the id, which is random */
    memcpy(answer + 9, bytes + 9 - skip, 4);
    cr_assert_arr_eq(bytes, question + skip, sizeof question - skip);
    cr_assert_eq(raw_send_bytes(&p, answer + skip, sizeof answer - skip, RAW_LIMIT_MS), RAW_OK);
    expect_text(s, "WORLD");
    raw_close(&p);
    raw_listener_close(&l);
    finish();
}
SAME_ON_EVERY_STREAM(req, speaks_the_bytes_of_the_specification, bytes_of_the_specification)
SAME_ON_EVERY_STREAM(survey, speaks_the_bytes_of_the_specification, bytes_of_the_specification)

/* mangos begins with the same number in every process. */
static void
random_start(int pattern, enum transport t)
{
    struct scene scene;
    uint32_t ids[4];

    set_scene(&scene, open_asker(pattern), t, 1);
    for (int i = 0; i < 4; i++) {
        send_text(scene.s, "next");
        ids[i] = raw_expect_request(&scene.peers[0], "next");
        if (i > 0)
            cr_assert_eq(ids[i], (ids[i - 1] + 1) | ID_BIT);
    }
    clear_scene(&scene, 1);

    /* 31 random bits: three sockets that begin alike are no accident. */
    int alike = 0;
    for (int i = 0; i < 3; i++) {
        struct scene other;
        set_scene(&other, open_asker(pattern), t, 1);
        send_text(other.s, "first");
        alike += raw_expect_request(&other.peers[0], "first") - ids[0] <= 4;
        raw_close(&other.peers[0]);
    }
    cr_assert_lt(alike, 3);
    finish();
}
SAME_ON_EVERY_STREAM(req, numbers_requests_from_a_random_start, random_start)
SAME_ON_EVERY_STREAM(survey, numbers_surveys_from_a_random_start, random_start)

/* ---- the next question ---- */

/* Goal: who waits for an answer that can no longer come is told so, and does not get another's. */
static void
new_one_cancels_waits(int pattern, enum transport t)
{
    struct waiting_call old[3], new;
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, open_asker(pattern), t, 1);
    send_text(scene.s, "old");
    uint32_t id = raw_expect_request(p, "old");
    for (int i = 0; i < 3; i++)
        start_call(&old[i], scene.s, NULL);
    await_receivers(scene.s, 3);
    send_text(scene.s, "new");
    start_call(&new, scene.s, NULL);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(end_call(&old[i]), SPOKE_ECANCELED, "%s", spoke_error_name(old[i].rc));
    raw_send_word(p, id, "late");
    raw_send_word(p, raw_expect_request(p, "new"), "for the new one");
    cr_assert_eq(end_call(&new), 0);
    cr_assert_str_eq(new.received, "for the new one");
    clear_scene(&scene, 1);
}

SAME_ON_EVERY_STREAM(req, a_new_request_cancels_those_who_wait_for_the_old_reply,
                     new_one_cancels_waits)
SAME_ON_EVERY_STREAM(survey, a_new_one_cancels_those_who_wait_for_answers_to_the_old_one,
                     new_one_cancels_waits)

/* Goal: a send that fails changes nothing.  Method: let its first, second … allocation fail while
 * another question is outstanding; that one is answered after all. */
static void
failed_send(int pattern, enum transport t)
{
    own_engine();
    spoke_socket *s = open_asker(pattern);
    spoke_socket *other = open_raw(pattern == SPOKE_REQ ? SPOKE_REP : SPOKE_RESPONDENT);
    int failures = 0;

    connect_sockets(other, s, t);
    for (int rc = SPOKE_ENOMEM; rc != 0; failures++) {
        spoke_msg *first, *m, *shared;
        send_text(s, "first");
        cr_assert_eq(spoke_recv(other, &first, 0), 0);
        cr_assert(text_is(first, "first"), "after %d failures", failures);
        cr_assert_eq(spoke_msg_new(&m, 100000), 0);
        shared = spoke_msg_dup(m); /* so that it must be cloned */
        spk_memory_fail_after((uint64_t)failures + 1);
        rc = spoke_send(s, m, SPOKE_DONTWAIT);
        spk_memory_fail_after(0);
        if (rc != 0) {
            cr_assert_eq(rc, SPOKE_ENOMEM, "%s", spoke_error_name(rc));
            cr_assert_eq(spoke_msg_size(m), 100000);
            cr_assert_eq(spoke_msg_header_size(m), 0);
            spoke_msg_free(m);
            cr_assert_eq(spoke_send(other, first, 0), 0);
            expect_text(s, "first");
        } else {
            spoke_msg_free(first);
        }
        spoke_msg_free(shared);
    }
    cr_assert_gt(failures, 1);
    finish();
}
SAME_ON_EVERY_TRANSPORT(req, a_send_that_fails_leaves_the_outstanding_request_alone, failed_send)
SAME_ON_EVERY_TRANSPORT(survey, a_send_that_fails_leaves_the_running_survey_alone, failed_send)

/* ---- answers ---- */

static void
unasked_answers(int pattern, enum transport t)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, watch_pipes(open_asker(pattern)), t, 1);
    raw_send_word(p, ID_BIT | 1, "while idle");
    wait_counter(scene.s, dropped_stale, 1);
    expect_recv_error(scene.s, SPOKE_ESTATE);
    send_text(scene.s, "old");
    uint32_t old = raw_expect_request(p, "old");
    send_text(scene.s, "question");
    uint32_t id = raw_expect_request(p, "question");
    uint32_t extra[] = {0x00000007, id}, far = (id ^ 0x40000000) | ID_BIT;

    raw_send_word(p, old, "old");
    raw_send_word(p, (id + 1) | ID_BIT, "future");
    raw_send_word(p, far, "unknown");
    raw_send_word(p, id & ~ID_BIT, "bit 31 clear");
    cr_assert_eq(raw_send_words(p, extra, 2, "extra words"), RAW_OK);
    raw_send_word(p, 0, "");
    wait_counter(scene.s, dropped_stale, 7);
    cr_assert_eq(pipe_stats_of(scene.s, 0).dropped_stale, 7);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    raw_send_word(p, id, "");
    expect_text(scene.s, "");
    cr_assert_eq(stats_of(scene.s).pipes_current, 1);
    cr_assert_eq(stats_of(scene.s).garbled, 0);
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(req, drops_replies_that_it_did_not_ask_for, unasked_answers)
SAME_ON_EVERY_STREAM(survey, drops_answers_to_what_it_did_not_ask, unasked_answers)

/* ---- raw ---- */

/* A REQ socket has one peer here, which thus gets all. */
static void
raw_any_header(int pattern, enum transport t)
{
    static const size_t sizes[] = {0, 3, 4, 5, 8, 64, 65, 1024, 1028};
    static uint8_t header[SPOKE_HEADER_MAX], bytes[SPOKE_HEADER_MAX + 4];
    int peers = pattern == SPOKE_REQ ? 1 : 2;
    struct scene scene;

    for (size_t i = 0; i < sizeof header; i++)
        header[i] = (uint8_t)(i * 7);
    set_scene(&scene, open_raw(pattern), t, peers);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        spoke_msg *m = new_text("body");
        cr_assert_eq(spoke_msg_header_append(m, header, sizes[i]), 0);
        cr_assert_eq(spoke_send(scene.s, m, 0), 0);
        for (int j = 0; j < peers; j++) {
            long size = raw_recv(&scene.peers[j], bytes, sizeof bytes, RAW_LIMIT_MS);
            cr_assert_eq(size, (long)sizes[i] + 4);
            cr_assert_arr_eq(bytes, header, sizes[i]);
            cr_assert_arr_eq(bytes + sizes[i], "body", 4);
        }
    }
    clear_scene(&scene, peers);
}
SAME_ON_EVERY_STREAM(req, raw_sends_any_header_as_it_is, raw_any_header)
SAME_ON_EVERY_STREAM(survey, raw_sends_any_header_to_all, raw_any_header)

static void
raw_split(int pattern, enum transport t)
{
    spoke_socket *s = open_raw(pattern);
    struct scene scene;
    uint32_t words[256];
    spoke_msg *m;

    expect_recv_error(s, SPOKE_EAGAIN); /* it has no states */
    expect_fd(s, SPOKE_OPT_RECV_FD, false);
    expect_fd(s, SPOKE_OPT_SEND_FD, true);
    set_scene(&scene, s, t, 1);
    for (size_t count = 1; count <= 256; count = count < 18 ? count + 1 : count + 238) {
        for (size_t i = 0; i < count; i++)
            words[i] = (uint32_t)(i + 1 < count ? i + 1 : ID_BIT | i);
        cr_assert_eq(raw_send_words(&scene.peers[0], words, count, "\200\201body"), RAW_OK);
        cr_assert_eq(spoke_recv(s, &m, 0), 0);
        cr_assert_eq(spoke_msg_header_size(m), 4 * count);
        for (size_t i = 0; i < count; i++)
            cr_assert_eq(header_word(m, i), words[i]);
        cr_assert(text_is(m, "\200\201body"));
        spoke_msg_free(m);
    }
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(req, raw_splits_a_reply_after_its_id, raw_split)
SAME_ON_EVERY_STREAM(survey, raw_splits_an_answer_after_its_id_and_has_no_states, raw_split)

static void
raw_answer_without_an_id(int pattern, enum transport t)
{
    static uint8_t zeros[2000];
    static const size_t sizes[] = {0, 3, 4, 7, 8, sizeof zeros};
    struct scene scene;

    set_scene(&scene, open_raw(pattern), t, 0);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        struct raw_peer p;
        join(&p, scene.s, scene.url, 1);
        cr_assert_eq(raw_send(&p, zeros, sizes[i]), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "%zu bytes", sizes[i]);
        wait_counter(scene.s, garbled, i + 1);
        wait_pipes(scene.s, 0);
        raw_close(&p);
    }
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    clear_scene(&scene, 0);
}
SAME_ON_EVERY_STREAM(req, raw_closes_the_pipe_of_a_reply_without_an_id, raw_answer_without_an_id)
SAME_ON_EVERY_STREAM(survey, raw_closes_the_pipe_of_an_answer_without_an_id,
                     raw_answer_without_an_id)
