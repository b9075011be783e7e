/* SPDX-License-Identifier: MIT */
/* RESPONDENT: the way back of an answer, how far it counts hops, and what it does with surveys and
 * surveyors of every kind.  What it shares with REP is in more detail in rep.c. */
#include <stdio.h>

#include "tests/protocols/fixture.h"

#include "runtime/memory/pool.h"

#define ID_BIT 0x80000000
#define ID     (ID_BIT | 1)

/* A RESPONDENT socket that listens, and so many plain surveyors, attached in order. */
struct scene {
    spoke_socket *s;
    char url[ENDPOINT_MAX];
    struct raw_peer peers[4];
};

static void
set_scene_with(struct scene *scene, spoke_socket *s, enum transport t, int peers)
{
    scene->s = s;
    listen_on(s, t, scene->url);
    for (int i = 0; i < peers; i++)
        join(&scene->peers[i], s, scene->url, (uint64_t)i + 1);
}

static void
set_scene(struct scene *scene, enum transport t, int peers)
{
    set_scene_with(scene, open_socket(SPOKE_RESPONDENT), t, peers);
}

static void
clear_scene(struct scene *scene, int peers)
{
    for (int i = 0; i < peers; i++)
        raw_close(&scene->peers[i]);
    finish();
}

static void
raw_survey(struct raw_peer *p, uint32_t id, const char *text)
{
    cr_assert_eq(raw_send_words(p, &id, 1, text), RAW_OK);
}

/* `hops` words, counting the id; each hop has a number of its own. */
static void
raw_survey_from_afar(struct raw_peer *p, size_t hops, const char *text)
{
    static uint32_t words[10000];

    cr_assert_leq(hops, sizeof words / sizeof *words);
    for (size_t i = 0; i < hops; i++)
        words[i] = (uint32_t)(i + 1 < hops ? i + 1 : ID);
    cr_assert_eq(raw_send_words(p, words, hops, text), RAW_OK);
}

static void
set_ttl(spoke_socket *s, int ttl)
{
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, ttl), 0);
}

/* It still answers this peer. */
static void
expect_service(struct scene *scene, struct raw_peer *p)
{
    const uint32_t id = ID;

    raw_survey(p, id, "service?");
    expect_text(scene->s, "service?");
    send_text(scene->s, "always");
    raw_expect(p, &id, 1, "always");
}

/* ---- the wire ---- */

ON_EVERY_STREAM(respondent, speaks_the_bytes_of_the_specification)
{
    static const uint8_t question[] = {1,    0, 0, 0, 0,   0,   0,   0,   9,
                                       0x80, 0, 0, 1, 'h', 'e', 'l', 'l', 'o'};
    static const uint8_t answer[] = {1,    0, 0, 0, 0,   0,   0,   0,   9,
                                     0x80, 0, 0, 1, 'W', 'O', 'R', 'L', 'D'};
    static const uint8_t surveyor[] = {0, 'S', 'P', 0, 0, 0x62, 0, 0};
    static const uint8_t respondent[] = {0, 'S', 'P', 0, 0, 0x63, 0, 0};
    spoke_socket *s = open_socket(SPOKE_RESPONDENT);
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */
    char url[ENDPOINT_MAX];
    uint8_t bytes[sizeof answer];
    struct raw_peer p;

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, surveyor, sizeof surveyor, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_recv_bytes(&p, bytes, sizeof respondent, RAW_LIMIT_MS), RAW_OK);
    cr_assert_arr_eq(bytes, respondent, sizeof respondent);
    cr_assert_eq(raw_send_bytes(&p, question + skip, sizeof question - skip, RAW_LIMIT_MS), RAW_OK);
    expect_text(s, "hello");
    send_text(s, "WORLD");
    cr_assert_eq(raw_recv_bytes(&p, bytes, sizeof answer - skip, RAW_LIMIT_MS), RAW_OK);
    cr_assert_arr_eq(bytes, answer + skip, sizeof answer - skip);
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(respondent, carries_the_backtrace_back_and_shows_none_of_it)
{
    const uint32_t words[] = {0x12345678, ID_BIT | 0x42};
    struct scene scene;

    set_scene(&scene, *t, 1);
    cr_assert_eq(raw_send_words(&scene.peers[0], words, 2, "from behind a device"), RAW_OK);
    expect_text(scene.s, "from behind a device"); /* and an empty header */
    send_text(scene.s, "back");
    raw_expect(&scene.peers[0], words, 2, "back");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(respondent, takes_empty_surveys_and_gives_empty_answers)
{
    const uint32_t id = ID;
    struct scene scene;

    set_scene(&scene, *t, 1);
    raw_survey(&scene.peers[0], id, "");
    expect_text(scene.s, "");
    send_text(scene.s, "");
    raw_expect(&scene.peers[0], &id, 1, "");
    clear_scene(&scene, 1);
}

/* ---- states ---- */

ON_EVERY_STREAM(respondent, refuses_to_send_without_a_survey)
{
    struct scene scene;

    set_scene(&scene, *t, 1);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, false);
    raw_survey(&scene.peers[0], ID, "arrived, not received");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_text(scene.s, "arrived, not received");
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    send_text(scene.s, "answer");
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(respondent, a_further_receive_abandons_the_survey)
{
    const uint32_t second = ID + 1;
    struct scene scene;

    set_scene(&scene, *t, 1);
    raw_survey(&scene.peers[0], ID, "first");
    raw_survey(&scene.peers[0], second, "second");
    expect_text(scene.s, "first");
    expect_text(scene.s, "second");
    expect_recv_error(scene.s, SPOKE_EAGAIN); /* one that fails does not */
    send_text(scene.s, "answer");
    raw_expect(&scene.peers[0], &second, 1, "answer");
    expect_send_error(scene.s, SPOKE_ESTATE);
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(respondent, answers_the_survey_that_it_received)
{
    const uint32_t same = ID; /* mangos: two surveyors begin alike */
    struct scene scene;

    set_scene(&scene, *t, 2);
    raw_survey(&scene.peers[0], same, "first");
    expect_text(scene.s, "first");
    raw_survey(&scene.peers[1], same, "second");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    send_text(scene.s, "to the first");
    raw_expect(&scene.peers[0], &same, 1, "to the first");
    expect_text(scene.s, "second");
    send_text(scene.s, "to the second");
    raw_expect(&scene.peers[1], &same, 1, "to the second");
    clear_scene(&scene, 2);
}

ON_EVERY_TRANSPORT(respondent, answers_any_number_of_surveyors)
{
    enum { COUNT = 5 };
    spoke_socket *s = open_socket(SPOKE_RESPONDENT), *others[COUNT];
    char url[ENDPOINT_MAX], text[COUNT][16];
    spoke_msg *m;

    for (int i = 0; i < COUNT; i++) { /* it dials them all */
        others[i] = open_socket(SPOKE_SURVEYOR);
        cr_assert_eq(spoke_socket_set_duration(others[i], SPOKE_OPT_SURVEY_TIME, 0), 0);
        listen_on(others[i], *t, url);
        dial(s, url);
        wait_pipes(others[i], 1);
        snprintf(text[i], sizeof text[i], "from %d", i);
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < COUNT; i++)
            send_text(others[i], text[i]);
        for (int i = 0; i < COUNT; i++) {
            cr_assert_eq(spoke_recv(s, &m, 0), 0);
            cr_assert_eq(spoke_send(s, m, 0), 0);
        }
        for (int i = 0; i < COUNT; i++)
            expect_text(others[i], text[i]);
    }
    finish();
}

/* ---- hops ---- */

ON_EVERY_STREAM(respondent, takes_as_many_words_as_its_limit_says)
{
    static const int limits[] = {8, 1, 2, 15, 16, 255}; /* the first is the default */
    struct scene scene;
    struct raw_peer *p = scene.peers;
    uint8_t bytes[2048];

    set_scene(&scene, *t, 1);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        size_t hops = (size_t)limits[i];
        if (i > 0)
            set_ttl(scene.s, limits[i]);
        raw_survey_from_afar(p, hops + 1, "too far");
        raw_survey_from_afar(p, hops, "just right");
        expect_text(scene.s, "just right");
        cr_assert_eq(stats_of(scene.s).dropped_ttl, i + 1);
        send_text(scene.s, "back");
        cr_assert_eq(raw_recv(p, bytes, sizeof bytes, RAW_LIMIT_MS), (long)(4 * hops + 4));
        for (size_t j = 0; j < hops; j++)
            cr_assert_eq(raw_get32(bytes + 4 * j), j + 1 < hops ? j + 1 : ID);
    }
    cr_assert_eq(stats_of(scene.s).garbled, 0);
    clear_scene(&scene, 1);
}

Test(respondent, checks_its_hop_limit)
{
    static const int wrong[] = {0, -1, 256, 1 << 20};
    spoke_socket *s = open_socket(SPOKE_RESPONDENT);
    int ttl = 0;

    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, 8);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, wrong[i]), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_size(s, SPOKE_OPT_TTL, 5), SPOKE_ETYPE);
    set_ttl(s, 255);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, 255);
    finish();
}

ON_EVERY_STREAM(respondent, drops_words_without_end_and_keeps_the_pipe)
{
    static uint8_t zeros[1 << 20];
    static const size_t hops[] = {9, 16, 256, 257, 10000};
    struct scene scene;

    set_scene(&scene, *t, 2);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(raw_send(&scene.peers[0], zeros, sizeof zeros), RAW_OK);
    for (size_t i = 0; i < sizeof hops / sizeof *hops; i++)
        raw_survey_from_afar(&scene.peers[0], hops[i], "too far");
    expect_service(&scene, &scene.peers[0]);
    expect_service(&scene, &scene.peers[1]);
    cr_assert_eq(stats_of(scene.s).dropped_ttl, 8);
    cr_assert_eq(stats_of(scene.s).pipes_attached, 2);
    clear_scene(&scene, 2);
}

/* ---- surveys that are none ---- */

ON_EVERY_STREAM(respondent, closes_the_pipe_of_a_survey_without_an_id)
{
    static const uint8_t bytes[] = {0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0};
    struct scene scene;

    set_scene(&scene, *t, 1);
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

ON_EVERY_STREAM(respondent, is_not_led_astray_by_pipe_numbers_in_a_backtrace)
{
    struct scene scene;
    spoke_msg *m;

    set_scene(&scene, *t, 2);
    raw_survey(&scene.peers[0], ID, "who am I");
    cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
    uint32_t victim = spoke_msg_pipe(m), forged[] = {victim, victim, ID};
    spoke_msg_free(m);
    cr_assert_eq(raw_send_words(&scene.peers[1], forged, 3, "forged"), RAW_OK);
    expect_text(scene.s, "forged");
    send_text(scene.s, "to the forger");
    raw_expect(&scene.peers[1], forged, 3, "to the forger");
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    clear_scene(&scene, 2);
}

/* ---- surveyors that leave, flood, and do not read ---- */

ON_EVERY_STREAM(respondent, drops_the_answer_to_a_surveyor_that_is_gone)
{
    struct scene scene;

    set_scene(&scene, *t, 2);
    raw_survey(&scene.peers[0], ID, "goodbye");
    expect_text(scene.s, "goodbye");
    raw_close(&scene.peers[0]);
    wait_pipes(scene.s, 1);
    send_text(scene.s, "too late");
    cr_assert_eq(stats_of(scene.s).dropped_no_peer, 1);
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_service(&scene, &scene.peers[1]);
    clear_scene(&scene, 2);
}

ON_EVERY_STREAM(respondent, drops_answers_to_a_surveyor_that_does_not_read)
{
    enum { SIZE = 60000, MOST = 4000 };
    static uint8_t bytes[SIZE];
    struct spoke_memory_stats memory;
    struct scene scene;
    int sent = 0;

    set_scene(&scene, *t, 2);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full < 20; sent++) {
        raw_survey(&scene.peers[0], ID, "more");
        expect_text(scene.s, "more");
        cr_assert_eq(spoke_send_bytes(scene.s, bytes, SIZE, 0), 0);
        if (sent % 50 == 0)
            expect_service(&scene, &scene.peers[1]);
    }
    cr_assert_lt(sent, MOST, "nothing was dropped");
    cr_assert_eq(stats_of(scene.s).pipes_current, 2);
    spoke_memory_stats(&memory);
    cr_assert_lt(memory.messages, 200);
    clear_scene(&scene, 2);
}

/* Goal: one that asks without end is held back, takes no more memory than the queue allows, and
 * others are served all the same. */
ON_EVERY_STREAM(respondent, holds_back_a_flood_and_serves_others)
{
    enum { FLOOD = 200 }; /* more than the queue, less than makes the kernel hold it back */
    struct spoke_memory_stats memory;
    struct scene scene;
    const uint32_t id = ID;
    spoke_msg *m;
    bool served = false;

    set_scene(&scene, *t, 2);
    for (int i = 0; i < FLOOD; i++)
        raw_survey(&scene.peers[0], ID, "flood");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    spoke_memory_stats(&memory);
    cr_assert_lt(memory.messages, 200);
    raw_survey(&scene.peers[1], ID, "and I?");
    for (int i = 0; i <= FLOOD && !served; i++) {
        cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
        served = text_is(m, "and I?");
        spoke_msg_free(m);
    }
    cr_assert(served);
    send_text(scene.s, "you too");
    raw_expect(&scene.peers[1], &id, 1, "you too");
    clear_scene(&scene, 2);
}

/* ---- raw ---- */

ON_EVERY_STREAM(respondent, raw_puts_its_pipe_in_front_of_the_backtrace)
{
    const uint32_t words[] = {0x12345678, ID};
    struct scene scene;
    spoke_msg *m;

    set_scene_with(&scene, open_raw(SPOKE_RESPONDENT), *t, 1);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    cr_assert_eq(raw_send_words(&scene.peers[0], words, 2, "survey"), RAW_OK);
    cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
    cr_assert_eq(spoke_msg_header_size(m), 12);
    cr_assert_eq(header_word(m, 0), spoke_msg_pipe(m));
    cr_assert_eq(header_word(m, 0) & ID_BIT, 0);
    cr_assert_eq(header_word(m, 1), words[0]);
    cr_assert_eq(header_word(m, 2), words[1]);
    cr_assert(text_is(m, "survey"));
    cr_assert_eq(spoke_send(scene.s, spoke_msg_dup(m), 0), 0);
    raw_expect(&scene.peers[0], words, 2, "survey");
    cr_assert_eq(spoke_send(scene.s, m, 0), 0); /* no states: twice is fine */
    raw_expect(&scene.peers[0], words, 2, "survey");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(respondent, raw_drops_what_has_no_way_back)
{
    static const size_t sizes[] = {0, 1, 3, 4, 5, 1028};
    static uint8_t header[SPOKE_HEADER_MAX];
    struct scene scene;

    set_scene_with(&scene, open_raw(SPOKE_RESPONDENT), *t, 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        spoke_msg *m = new_text("body");
        cr_assert_eq(spoke_msg_header_append(m, header, sizes[i]), 0);
        cr_assert_eq(spoke_send(scene.s, m, 0), 0);
        cr_assert_eq(stats_of(scene.s).dropped_no_peer, i + 1);
    }
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    clear_scene(&scene, 1);
}

/* ---- devices, by hand: raw sockets back to back ---- */

struct device {
    spoke_socket *front, *back; /* RESPONDENT, SURVEYOR */
};

static void
pass(spoke_socket *from, spoke_socket *to)
{
    spoke_msg *m;
    int rc = spoke_recv(from, &m, 0);

    cr_assert_eq(rc, 0, "%s", spoke_strerror(rc));
    cr_assert_eq(spoke_send(to, m, 0), 0);
}

/* Goal: two devices are two hops more.  Method: a surveyor, two devices, two respondents. */
ON_EVERY_TRANSPORT(respondent, answers_through_two_devices)
{
    spoke_socket *surveyor = open_socket(SPOKE_SURVEYOR), *ends[2];
    struct device devices[2];
    char url[ENDPOINT_MAX];

    for (int i = 0; i < 2; i++) {
        devices[i] = (struct device){open_raw(SPOKE_RESPONDENT), open_raw(SPOKE_SURVEYOR)};
        ends[i] = open_socket(SPOKE_RESPONDENT);
    }
    cr_assert_eq(spoke_socket_set_duration(surveyor, SPOKE_OPT_SURVEY_TIME, 0), 0);
    connect_sockets(devices[0].front, surveyor, *t);
    connect_sockets(devices[1].front, devices[0].back, *t);
    listen_on(devices[1].back, *t, url);
    for (int i = 0; i < 2; i++)
        dial(ends[i], url);
    wait_pipes(devices[1].back, 2);
    for (int i = 0; i < 3; i++) {
        send_text(surveyor, "question");
        pass(devices[0].front, devices[0].back);
        pass(devices[1].front, devices[1].back);
        for (int j = 0; j < 2; j++) {
            expect_text(ends[j], "question");
            send_text(ends[j], "answer");
        }
        for (int j = 0; j < 2; j++) {
            pass(devices[1].back, devices[1].front);
            pass(devices[0].back, devices[0].front);
            expect_text(surveyor, "answer");
        }
    }
    set_ttl(ends[0], 3);
    set_ttl(ends[1], 2);
    send_text(surveyor, "three words");
    pass(devices[0].front, devices[0].back);
    pass(devices[1].front, devices[1].back);
    expect_text(ends[0], "three words");
    wait_counter(ends[1], dropped_ttl, 1);
    finish();
}

/* A loop of devices ends when the hops are used up. */
ON_EVERY_TRANSPORT(respondent, a_loop_of_devices_is_ended_by_the_hop_limit)
{
    struct device d = {open_raw(SPOKE_RESPONDENT), open_raw(SPOKE_SURVEYOR)};
    spoke_socket *surveyor = open_socket(SPOKE_SURVEYOR);
    spoke_msg *m;
    int rounds = 0;

    connect_sockets(d.front, d.back, *t); /* it asks itself */
    connect_sockets(d.front, surveyor, *t);
    send_text(surveyor, "round");
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && stats_of(d.front).dropped_ttl == 0; i++) {
        if (spoke_recv(d.front, &m, SPOKE_DONTWAIT) == 0) {
            cr_assert_eq(spoke_send(d.back, m, 0), 0);
            rounds++;
        } else {
            sleep_ms(1);
        }
    }
    cr_assert_eq(rounds, 8);
    expect_recv_error(d.front, SPOKE_EAGAIN);
    finish();
}
