/* SPDX-License-Identifier: MIT */
/* RESPONDENT: many surveyors, floods and devices.  What it shares with REP is in answer.c, and in
 * more detail in rep.c. */
#include <stdio.h>

#include "tests/protocols/scene.h"

/* ---- many surveyors, and one that asks without end ---- */

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

    set_scene(&scene, open_socket(SPOKE_RESPONDENT), *t, 2);
    for (int i = 0; i < FLOOD; i++)
        raw_send_word(&scene.peers[0], ID, "flood");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    spoke_memory_stats(&memory);
    cr_assert_lt(memory.messages, 200);
    raw_send_word(&scene.peers[1], ID, "and I?");
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

/* ---- devices, by hand: raw sockets back to back ---- */

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
