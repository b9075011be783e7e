/* SPDX-License-Identifier: MIT */
/* What REP and RESPONDENT do alike: their states, the way back of an answer, how far they count
 * hops, and what they do with questions and peers of every kind.  The rest is in rep.c and
 * respondent.c. */
#include "tests/protocols/scene.h"

static void
set_scene_of(struct scene *scene, int pattern, enum transport t, int peers)
{
    set_scene(scene, watch_pipes(open_socket(pattern)), t, peers);
}

/* ---- the wire ---- */

static void
bytes_of_the_specification(int pattern, enum transport t)
{
    static const uint8_t question[] = {1,    0, 0, 0, 0,   0,   0,   0,   9,
                                       0x80, 0, 0, 1, 'h', 'e', 'l', 'l', 'o'};
    static const uint8_t answer[] = {1,    0, 0, 0, 0,   0,   0,   0,   9,
                                     0x80, 0, 0, 1, 'W', 'O', 'R', 'L', 'D'};
    const uint8_t theirs[] = {0, 'S', 'P', 0, 0, pattern == SPOKE_REP ? 0x30 : 0x62, 0, 0};
    const uint8_t ours[] = {0, 'S', 'P', 0, 0, pattern == SPOKE_REP ? 0x31 : 0x63, 0, 0};
    spoke_socket *s = open_socket(pattern);
    size_t skip = t == IPC ? 0 : 1; /* the type byte */
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(s, t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, theirs, sizeof theirs, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, ours, sizeof ours);
    cr_assert_eq(raw_send_bytes(&p, question + skip, sizeof question - skip, RAW_LIMIT_MS), RAW_OK);
    expect_text(s, "hello");
    send_text(s, "WORLD");
    raw_expect_bytes(&p, answer + skip, sizeof answer - skip);
    raw_close(&p);
    finish();
}
SAME_ON_EVERY_STREAM(rep, speaks_the_bytes_of_the_specification, bytes_of_the_specification)
SAME_ON_EVERY_STREAM(respondent, speaks_the_bytes_of_the_specification, bytes_of_the_specification)

static void
backtrace(int pattern, enum transport t)
{
    const uint32_t words[] = {0x12345678, ID_BIT | 0x42};
    struct scene scene;

    set_scene_of(&scene, pattern, t, 1);
    cr_assert_eq(raw_send_words(&scene.peers[0], words, 2, "from behind a device"), RAW_OK);
    expect_text(scene.s, "from behind a device"); /* and an empty header */
    send_text(scene.s, "back");
    raw_expect(&scene.peers[0], words, 2, "back");
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(rep, carries_the_backtrace_back, backtrace)
SAME_ON_EVERY_STREAM(respondent, carries_the_backtrace_back_and_shows_none_of_it, backtrace)

static void
empty_messages(int pattern, enum transport t)
{
    const uint32_t id = ID;
    struct scene scene;

    set_scene_of(&scene, pattern, t, 1);
    raw_send_word(&scene.peers[0], id, "");
    expect_text(scene.s, "");
    send_text(scene.s, "");
    raw_expect(&scene.peers[0], &id, 1, "");
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(rep, takes_empty_requests_and_gives_empty_replies, empty_messages)
SAME_ON_EVERY_STREAM(respondent, takes_empty_surveys_and_gives_empty_answers, empty_messages)

/* ---- states ---- */

static void
send_without_a_question(int pattern, enum transport t)
{
    struct scene scene;

    set_scene_of(&scene, pattern, t, 1);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, false);
    raw_send_word(&scene.peers[0], ID, "arrived, not received");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_text(scene.s, "arrived, not received");
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    send_text(scene.s, "answer");
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(rep, refuses_to_send_without_a_request, send_without_a_question)
SAME_ON_EVERY_STREAM(respondent, refuses_to_send_without_a_survey, send_without_a_question)

static void
further_receive(int pattern, enum transport t)
{
    const uint32_t second = ID + 1;
    struct scene scene;

    set_scene_of(&scene, pattern, t, 1);
    raw_send_word(&scene.peers[0], ID, "first");
    raw_send_word(&scene.peers[0], second, "second");
    expect_text(scene.s, "first");
    expect_text(scene.s, "second");
    expect_recv_error(scene.s, SPOKE_EAGAIN); /* one that fails does not */
    send_text(scene.s, "answer");
    raw_expect(&scene.peers[0], &second, 1, "answer");
    expect_send_error(scene.s, SPOKE_ESTATE);
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(rep, a_further_receive_abandons_the_request, further_receive)
SAME_ON_EVERY_STREAM(respondent, a_further_receive_abandons_the_survey, further_receive)

/* Goal: the way back is that of the question received, not of the last one that arrived, also if
 * both have the same id.  (With mangos two surveyors begin alike.) */
static void
way_back(int pattern, enum transport t)
{
    const uint32_t first = ID;
    struct scene scene;

    set_scene_of(&scene, pattern, t, 2);
    for (uint32_t second = first; second <= first + 1; second++) {
        raw_send_word(&scene.peers[0], first, "first");
        expect_text(scene.s, "first");
        raw_send_word(&scene.peers[1], second, "second");
        expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
        send_text(scene.s, "to the first");
        raw_expect(&scene.peers[0], &first, 1, "to the first");
        expect_text(scene.s, "second");
        send_text(scene.s, "to the second");
        raw_expect(&scene.peers[1], &second, 1, "to the second");
    }
    clear_scene(&scene, 2);
}
SAME_ON_EVERY_STREAM(rep, answers_the_request_that_it_received, way_back)
SAME_ON_EVERY_STREAM(respondent, answers_the_survey_that_it_received, way_back)

/* ---- hops ---- */

static void
words_up_to_the_limit(int pattern, enum transport t)
{
    static const int limits[] = {8, 1, 2, 15, 16, 255}; /* the first is the default */
    struct scene scene;
    struct raw_peer *p = scene.peers;
    uint8_t bytes[2048];

    set_scene_of(&scene, pattern, t, 1);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        size_t hops = (size_t)limits[i];
        if (i > 0)
            set_ttl(scene.s, limits[i]); /* holds for the next message */
        raw_ask_from_afar(p, hops + 1, "too far");
        raw_ask_from_afar(p, hops, "just right");
        expect_text(scene.s, "just right");
        cr_assert_eq(stats_of(scene.s).dropped_ttl, i + 1);
        send_text(scene.s, "back");
        cr_assert_eq(raw_recv(p, bytes, sizeof bytes, RAW_LIMIT_MS), (long)(4 * hops + 4));
        for (size_t j = 0; j < hops; j++)
            cr_assert_eq(raw_get32(bytes + 4 * j), j + 1 < hops ? j + 1 : ID);
    }
    cr_assert_eq(stats_of(scene.s).pipes_current, 1);
    cr_assert_eq(stats_of(scene.s).garbled, 0);
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(rep, takes_as_many_words_as_its_limit_says, words_up_to_the_limit)
SAME_ON_EVERY_STREAM(respondent, takes_as_many_words_as_its_limit_says, words_up_to_the_limit)

static void
check_hop_limit(int pattern)
{
    static const int wrong[] = {0, -1, 256, 1 << 20};
    spoke_socket *s = open_socket(pattern);
    int ttl = 0;

    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, 8);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, wrong[i]), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_size(s, SPOKE_OPT_TTL, 5), SPOKE_ETYPE);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, 8);
    set_ttl(s, 255);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, 255);
    cr_assert_eq(spoke_socket_set_int(open_socket(SPOKE_PAIR), SPOKE_OPT_TTL, 5), SPOKE_EOPTION);
    finish();
}

Test(rep, checks_its_hop_limit)
{
    check_hop_limit(SPOKE_REP);
}

Test(respondent, checks_its_hop_limit)
{
    check_hop_limit(SPOKE_RESPONDENT);
}

static void
words_without_end(int pattern, enum transport t)
{
    static uint8_t zeros[1 << 20];
    static const size_t hops[] = {9, 16, 256, 257, 10000};
    struct scene scene;

    set_scene_of(&scene, pattern, t, 2);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(raw_send(&scene.peers[0], zeros, sizeof zeros), RAW_OK);
    for (size_t i = 0; i < sizeof hops / sizeof *hops; i++)
        raw_ask_from_afar(&scene.peers[0], hops[i], "too far");
    expect_service(&scene, &scene.peers[0]);
    expect_service(&scene, &scene.peers[1]);
    cr_assert_eq(stats_of(scene.s).dropped_ttl, 8);
    cr_assert_eq(pipe_stats_of(scene.s, 0).dropped_ttl, 8);
    cr_assert_eq(pipe_stats_of(scene.s, 1).dropped_ttl, 0);
    cr_assert_eq(stats_of(scene.s).pipes_attached, 2);
    clear_scene(&scene, 2);
}
SAME_ON_EVERY_STREAM(rep, drops_words_without_end_and_keeps_the_pipe, words_without_end)
SAME_ON_EVERY_STREAM(respondent, drops_words_without_end_and_keeps_the_pipe, words_without_end)

/* ---- questions that are none ---- */

static void
question_without_an_id(int pattern, enum transport t)
{
    static const uint8_t bytes[] = {0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0};
    struct scene scene;

    set_scene_of(&scene, pattern, t, 1);
    for (size_t size = 0; size <= sizeof bytes; size++) {
        struct raw_peer p;
        join(&p, scene.s, scene.url, 2);
        cr_assert_eq(raw_send(&p, bytes, size), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "%zu bytes", size);
        wait_counter(scene.s, garbled, size + 1);
        wait_pipes(scene.s, 1);
        raw_close(&p);
        join(&p, scene.s, scene.url, 2); /* the same one comes back */
        expect_service(&scene, &p);
        raw_close(&p);
        wait_pipes(scene.s, 1);
    }
    expect_service(&scene, &scene.peers[0]);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(rep, closes_the_pipe_of_a_request_without_an_id, question_without_an_id)
SAME_ON_EVERY_STREAM(respondent, closes_the_pipe_of_a_survey_without_an_id, question_without_an_id)

static void
forged_numbers(int pattern, enum transport t)
{
    struct scene scene;
    spoke_msg *m;

    set_scene_of(&scene, pattern, t, 2);
    raw_send_word(&scene.peers[0], ID, "who am I");
    cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
    uint32_t victim = spoke_msg_pipe(m), forged[] = {victim, victim, ID};
    cr_assert_neq(victim, 0);
    spoke_msg_free(m);
    cr_assert_eq(raw_send_words(&scene.peers[1], forged, 3, "forged"), RAW_OK);
    expect_text(scene.s, "forged");
    send_text(scene.s, "to the forger");
    raw_expect(&scene.peers[1], forged, 3, "to the forger");
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    clear_scene(&scene, 2);
}
SAME_ON_EVERY_STREAM(rep, is_not_led_astray_by_pipe_numbers_in_a_backtrace, forged_numbers)
SAME_ON_EVERY_STREAM(respondent, is_not_led_astray_by_pipe_numbers_in_a_backtrace, forged_numbers)

/* ---- peers that leave, and that do not read ---- */

static void
peer_that_is_gone(int pattern, enum transport t)
{
    struct scene scene;

    set_scene_of(&scene, pattern, t, 2);
    raw_send_word(&scene.peers[0], ID, "goodbye");
    expect_text(scene.s, "goodbye");
    raw_close(&scene.peers[0]);
    wait_pipes(scene.s, 1);
    send_text(scene.s, "too late");
    cr_assert_eq(stats_of(scene.s).dropped_no_peer, 1);
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_service(&scene, &scene.peers[1]);
    clear_scene(&scene, 2);
}
SAME_ON_EVERY_STREAM(rep, drops_the_reply_to_a_peer_that_is_gone, peer_that_is_gone)
SAME_ON_EVERY_STREAM(respondent, drops_the_answer_to_a_surveyor_that_is_gone, peer_that_is_gone)

/* Goal: who asks and never reads loses answers, and only he does. */
static void
peer_that_does_not_read(int pattern, enum transport t)
{
    enum { SIZE = 60000, MOST = 4000 };
    static uint8_t bytes[SIZE];
    struct spoke_memory_stats memory;
    struct scene scene;
    int sent = 0;

    set_scene_of(&scene, pattern, t, 2);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full < 20; sent++) {
        raw_send_word(&scene.peers[0], ID, "more");
        expect_text(scene.s, "more");
        cr_assert_eq(spoke_send_bytes(scene.s, bytes, SIZE, 0), 0);
        if (sent % 50 == 0)
            expect_service(&scene, &scene.peers[1]);
    }
    cr_assert_lt(sent, MOST, "nothing was dropped");
    cr_assert_eq(pipe_stats_of(scene.s, 0).dropped_peer_full, 20);
    cr_assert_eq(pipe_stats_of(scene.s, 1).dropped_peer_full, 0);
    expect_service(&scene, &scene.peers[1]);
    cr_assert_eq(stats_of(scene.s).pipes_current, 2);
    spoke_memory_stats(&memory);
    cr_assert_lt(memory.messages, 200);
    clear_scene(&scene, 2);
}
SAME_ON_EVERY_STREAM(rep, drops_replies_to_a_peer_that_does_not_read, peer_that_does_not_read)
SAME_ON_EVERY_STREAM(respondent, drops_answers_to_a_surveyor_that_does_not_read,
                     peer_that_does_not_read)

/* ---- raw ---- */

static void
raw_pipe_in_front(int pattern, enum transport t)
{
    const uint32_t words[] = {0x12345678, ID};
    struct scene scene;
    spoke_msg *m;

    set_scene(&scene, open_raw(pattern), t, 1);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    cr_assert_eq(raw_send_words(&scene.peers[0], words, 2, "question"), RAW_OK);
    cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
    cr_assert_eq(spoke_msg_header_size(m), 12);
    cr_assert_eq(header_word(m, 0), spoke_msg_pipe(m));
    cr_assert_eq(header_word(m, 0) & ID_BIT, 0);
    cr_assert_eq(header_word(m, 1), words[0]);
    cr_assert_eq(header_word(m, 2), words[1]);
    cr_assert(text_is(m, "question"));
    cr_assert_eq(spoke_send(scene.s, spoke_msg_dup(m), 0), 0);
    raw_expect(&scene.peers[0], words, 2, "question");
    cr_assert_eq(spoke_msg_header_size(m), 12, "the other reference is as it was");
    cr_assert_eq(spoke_send(scene.s, m, 0), 0); /* no states: twice is fine */
    raw_expect(&scene.peers[0], words, 2, "question");
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(rep, raw_puts_its_pipe_in_front_of_the_backtrace, raw_pipe_in_front)
SAME_ON_EVERY_STREAM(respondent, raw_puts_its_pipe_in_front_of_the_backtrace, raw_pipe_in_front)

static void
raw_without_a_way_back(int pattern, enum transport t)
{
    static const size_t sizes[] = {0, 1, 3, 4, 5, 64, 1024, 1028};
    static uint8_t header[SPOKE_HEADER_MAX];
    struct scene scene;
    uint64_t dropped = 0;

    set_scene(&scene, open_raw(pattern), t, 1);
    for (int fill = 0; fill < 256; fill += 255) { /* pipe 0, and one beyond all numbers */
        memset(header, fill, sizeof header);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            spoke_msg *m = new_text("body");
            cr_assert_eq(spoke_msg_header_append(m, header, sizes[i]), 0);
            cr_assert_eq(spoke_send(scene.s, m, 0), 0);
            cr_assert_eq(stats_of(scene.s).dropped_no_peer, ++dropped);
        }
    }
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    clear_scene(&scene, 1);
}
SAME_ON_EVERY_STREAM(rep, raw_drops_what_has_no_way_back, raw_without_a_way_back)
SAME_ON_EVERY_STREAM(respondent, raw_drops_what_has_no_way_back, raw_without_a_way_back)
