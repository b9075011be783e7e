/* SPDX-License-Identifier: MIT */
/* PUSH: whose turn it is, what waits and for whom, and that it never receives. */
#include <stdio.h>

#include "tests/protocols/fixture.h"

#define PUSH_NUMBER 80
#define PULL_NUMBER 81

static spoke_socket *
open_with_queue(int length)
{
    spoke_socket *s = open_socket(SPOKE_PUSH);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, length), 0);
    return s;
}

/* A PUSH that listens, once for each of these priorities, and a plain peer at each. */
struct scene {
    spoke_socket *s;
    struct raw_peer peers[4];
    int count;
};

static void
set_scene(struct scene *scene, int pattern, enum transport t, const int *priorities, int count)
{
    *scene = (struct scene){.s = open_socket(pattern), .count = count};
    watch_pipes(scene->s);
    for (int i = 0; i < count; i++) {
        char url[ENDPOINT_MAX];
        cr_assert_eq(
            spoke_socket_set_int(scene->s, SPOKE_OPT_SEND_PRIORITY, priorities ? priorities[i] : 8),
            0);
        listen_on(scene->s, t, url);
        join(&scene->peers[i], scene->s, url, (uint64_t)i + 1);
    }
}

static void
clear_scene(struct scene *scene)
{
    for (int i = 0; i < scene->count; i++)
        raw_close(&scene->peers[i]);
    finish();
}

/* ---- the wire ---- */

ON_EVERY_STREAM(push, speaks_the_bytes_of_the_specification)
{
    static const uint8_t push[] = {0, 'S', 'P', 0, 0, 0x50, 0, 0};
    static const uint8_t pull[] = {0, 'S', 'P', 0, 0, 0x51, 0, 0};
    static const uint8_t tick[] = {1, 0, 0, 0, 0, 0, 0, 0, 4, 't', 'i', 'c', 'k'};
    static const uint8_t nothing[] = {1, 0, 0, 0, 0, 0, 0, 0, 0};
    spoke_socket *s = open_socket(SPOKE_PUSH);
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, push, sizeof push);
    cr_assert_eq(raw_send_bytes(&p, pull, sizeof pull, RAW_LIMIT_MS), RAW_OK);
    wait_pipes(s, 1);
    send_text(s, "tick");
    send_text(s, "");
    raw_expect_bytes(&p, tick + skip, sizeof tick - skip);
    raw_expect_bytes(&p, nothing + skip, sizeof nothing - skip);
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(push, talks_to_pull_only)
{
    static const uint16_t others[] = {PUSH_NUMBER, 16, 32, 33, 48, 49, 98, 112, 0, 0xffff};
    spoke_socket *s = open_socket(SPOKE_PUSH);
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(s, *t, url);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        cr_assert_eq(raw_dial_sp(&p, url, others[i], PUSH_NUMBER), RAW_OK);
        cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK, "%u", others[i]);
        raw_close(&p);
    }
    cr_assert_eq(stats_of(s).pipes_attached, 0);
    finish();
}

/* ---- one way ---- */

static void
ignore(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)s;
    (void)ctx;
    spoke_msg_free(m);
}

ON_EVERY_TRANSPORT(push, never_receives)
{
    for (int raw = 0; raw < 2; raw++) {
        spoke_socket *s = raw ? open_raw(SPOKE_PUSH) : open_socket(SPOKE_PUSH);
        spoke_socket *pull = open_socket(SPOKE_PULL);
        int fd;

        expect_recv_error(s, SPOKE_ENOTSUP);
        connect_sockets(s, pull, *t);
        expect_recv_error(s, SPOKE_ENOTSUP);
        cr_assert_eq(spoke_socket_on_message(s, ignore, NULL), SPOKE_ENOTSUP);
        cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_RECV_FD, &fd), SPOKE_EOPTION);
        expect_fd(s, SPOKE_OPT_SEND_FD, true);
    }
    finish();
}

/* What nanomsg dies of. */
ON_EVERY_STREAM(push, discards_what_a_peer_says)
{
    struct scene scene;

    set_scene(&scene, SPOKE_PUSH, *t, NULL, 1);
    for (int i = 0; i < 100; i++)
        raw_send_text(&scene.peers[0], i % 2 == 0 ? "nobody asked" : "");
    wait_counter(scene.s, dropped_unwanted, 100);
    send_text(scene.s, "all the same");
    raw_expect(&scene.peers[0], NULL, 0, "all the same");
    raw_close(&scene.peers[0]);
    wait_pipes(scene.s, 0);
    finish();
}

/* ---- whose turn it is ---- */

/* Strict alternation, in the order of connecting, also when one leaves. */
ON_EVERY_STREAM(push, takes_turns)
{
    struct scene scene;

    set_scene(&scene, SPOKE_PUSH, *t, NULL, 3);
    for (int i = 0; i < 30; i++) {
        send_text(scene.s, "next");
        raw_expect(&scene.peers[i % 3], NULL, 0, "next");
    }
    raw_close(&scene.peers[1]);
    wait_pipes(scene.s, 2);
    for (int i = 0; i < 10; i++) {
        send_text(scene.s, "next");
        raw_expect(&scene.peers[i % 2 == 0 ? 0 : 2], NULL, 0, "next");
    }
    for (int i = 0; i < 3; i += 2)
        cr_assert(raw_is_quiet(&scene.peers[i], RAW_QUIET_MS));
    clear_scene(&scene);
}

ON_EVERY_TRANSPORT(push, gives_each_message_to_one_peer)
{
    enum { PULLS = 3, COUNT = 300 };
    spoke_socket *push = open_socket(SPOKE_PUSH), *pulls[PULLS];
    char text[16];

    for (int i = 0; i < PULLS; i++) {
        pulls[i] = open_socket(SPOKE_PULL);
        connect_sockets(push, pulls[i], *t);
    }
    for (int i = 0; i < COUNT; i++) {
        snprintf(text, sizeof text, "%d", i);
        send_text(push, text);
        expect_text(pulls[i % PULLS], text);
    }
    for (int i = 0; i < PULLS; i++)
        expect_recv_error(pulls[i], SPOKE_EAGAIN);
    finish();
}

ON_EVERY_STREAM(push, goes_to_the_best_priority)
{
    static const int priorities[] = {16, 2, 1, 2};
    struct scene scene;

    set_scene(&scene, SPOKE_PUSH, *t, priorities, 4);
    for (int i = 0; i < 4; i++) {
        send_text(scene.s, "best");
        raw_expect(&scene.peers[2], NULL, 0, "best");
    }
    raw_close(&scene.peers[2]);
    wait_pipes(scene.s, 3);
    for (int i = 0; i < 4; i++) {
        send_text(scene.s, "second best");
        raw_expect(&scene.peers[i % 2 == 0 ? 1 : 3], NULL, 0, "second best");
    }
    raw_close(&scene.peers[1]);
    raw_close(&scene.peers[3]);
    wait_pipes(scene.s, 1);
    send_text(scene.s, "worst");
    raw_expect(&scene.peers[0], NULL, 0, "worst");
    clear_scene(&scene);
}

/* Send a large message; which of the two peers gets it? */
static int
send_to_one(struct scene *scene, uint64_t sent[2])
{
    static char bytes[60000];

    cr_assert_eq(spoke_send_bytes(scene->s, bytes, sizeof bytes, 0), 0);
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN; i++) {
        for (int which = 0; which < 2; which++) {
            uint64_t now = pipe_stats_of(scene->s, (size_t)which).messages_sent;
            if (now == sent[which])
                continue;
            cr_assert_eq(now, ++sent[which]);
            return which;
        }
        sleep_ms(1); /* it waits in the queue */
    }
    cr_assert_fail("it went to nobody");
    return -1;
}

ON_EVERY_STREAM(push, goes_to_the_next_priority_while_the_best_is_busy)
{
    static const int priorities[] = {1, 2};
    struct scene scene;
    uint64_t sent[2] = {0};

    set_scene(&scene, SPOKE_PUSH, *t, priorities, 2);
    for (int i = 0; send_to_one(&scene, sent) == 0; i++)
        cr_assert_lt(i, 10000);
    cr_assert_gt(sent[0], 1);
    clear_scene(&scene);
}

/* Peer 0 reads nothing: it has its turns until it is full, none then. */
ON_EVERY_STREAM(push, passes_by_a_peer_that_is_busy)
{
    static char bytes[60000];
    struct scene scene;
    uint64_t sent[2] = {0};
    int in_a_row = 0;

    set_scene(&scene, SPOKE_PUSH, *t, NULL, 2);
    for (int i = 0; in_a_row < 20; i++) {
        cr_assert_lt(i, 10000);
        if (send_to_one(&scene, sent) == 1) {
            in_a_row++;
            cr_assert_eq(raw_recv(&scene.peers[1], bytes, sizeof bytes, RAW_LIMIT_MS),
                         (long)sizeof bytes);
        } else {
            in_a_row = 0;
        }
    }
    cr_assert_gt(sent[0], 1);
    clear_scene(&scene);
}

/* The same for the other pattern that sends to one of many. */
ON_EVERY_STREAM(push, is_not_the_only_one_with_priorities)
{
    static const int priorities[] = {9, 3};
    struct scene scene;

    set_scene(&scene, SPOKE_REQ, *t, priorities, 2);
    for (int i = 0; i < 3; i++) {
        send_text(scene.s, "question");
        raw_send_word(&scene.peers[1], raw_expect_request(&scene.peers[1], "question"), "answer");
        expect_text(scene.s, "answer");
    }
    clear_scene(&scene);
}

Test(push, checks_its_priorities)
{
    spoke_socket *s = open_socket(SPOKE_PUSH);
    spoke_dialer *d;
    spoke_listener *l;
    int value;

    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_SEND_PRIORITY, &value), 0);
    cr_assert_eq(value, 8);
    for (int bad = -1; bad <= 17; bad += bad == 0 ? 17 : 1) {
        cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_PRIORITY, bad), SPOKE_ERANGE, "%d",
                     bad);
        cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_PRIORITY, bad), SPOKE_ERANGE, "%d",
                     bad);
    }
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_SEND_PRIORITY, true), SPOKE_ETYPE);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_PRIORITY, 3), 0);
    cr_assert_eq(spoke_dialer_create(&d, s, "tcp://127.0.0.1:9"), 0);
    cr_assert_eq(spoke_dialer_get_int(d, SPOKE_OPT_SEND_PRIORITY, &value), 0);
    cr_assert_eq(value, 3, "the socket's default is where it starts");
    cr_assert_eq(spoke_dialer_set_int(d, SPOKE_OPT_SEND_PRIORITY, 16), 0);
    cr_assert_eq(spoke_dialer_set_int(d, SPOKE_OPT_SEND_PRIORITY, 17), SPOKE_ERANGE);
    cr_assert_eq(spoke_listener_create(&l, s, "tcp://127.0.0.1:0"), 0);
    cr_assert_eq(spoke_listener_set_int(l, SPOKE_OPT_SEND_PRIORITY, 1), 0);
    cr_assert_eq(spoke_listener_get_int(l, SPOKE_OPT_SEND_PRIORITY, &value), 0);
    cr_assert_eq(value, 1);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_SEND_PRIORITY, &value), 0);
    cr_assert_eq(value, 3);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_LOSS, 0), SPOKE_EOPTION, "it loses nothing");
    finish();
}

/* ---- the queue ---- */

ON_EVERY_TRANSPORT(push, queues_for_a_peer_that_is_yet_to_come)
{
    spoke_socket *push = open_socket(SPOKE_PUSH), *pull = open_socket(SPOKE_PULL);
    char text[16];

    for (int i = 0; i < 128; i++) {
        snprintf(text, sizeof text, "%d", i);
        cr_assert_eq(spoke_send_bytes(push, text, strlen(text), SPOKE_DONTWAIT), 0);
    }
    expect_send_error(push, SPOKE_EAGAIN);
    expect_fd(push, SPOKE_OPT_SEND_FD, false);
    connect_sockets(push, pull, *t);
    for (int i = 0; i < 128; i++) {
        snprintf(text, sizeof text, "%d", i);
        expect_text(pull, text);
    }
    expect_fd(push, SPOKE_OPT_SEND_FD, true);
    finish();
}

ON_EVERY_TRANSPORT(push, without_a_queue_and_a_peer_it_says_so_at_once)
{
    spoke_socket *push = open_with_queue(0), *pull = open_socket(SPOKE_PULL);
    char url[ENDPOINT_MAX];

    expect_send_error(push, SPOKE_EAGAIN);
    listen_on(push, *t, url);
    dial(pull, url);
    wait_pipes(push, 1);
    send_text(push, "taken");
    expect_text(pull, "taken");
    cr_assert_eq(spoke_socket_close(pull), 0);
    wait_pipes(push, 0);
    expect_send_error(push, SPOKE_EAGAIN);
    pull = open_socket(SPOKE_PULL);
    dial(pull, url);
    wait_pipes(push, 1);
    send_text(push, "again");
    expect_text(pull, "again");
    finish();
}

/* What waited is not the pipe's: the others get it, all of it and in order. */
ON_EVERY_STREAM(push, what_waits_goes_to_the_others)
{
    enum { LENGTH = 16, SIZE = 60000 };
    spoke_socket *s = open_with_queue(LENGTH);
    static uint8_t bytes[SIZE];
    char url[ENDPOINT_MAX];
    struct raw_peer idle, next;
    uint32_t sent = 0;

    listen_on(s, *t, url);
    join(&idle, s, url, 1);
    for (int quiet = 0; quiet < 50; quiet++) { /* until the kernel's buffers are full too */
        for (raw_put32(bytes, sent); spoke_send_bytes(s, bytes, SIZE, SPOKE_DONTWAIT) == 0;
             raw_put32(bytes, ++sent))
            quiet = 0;
        settle();
    }
    cr_assert_gt(sent, LENGTH);
    join(&next, s, url, 2);
    for (uint32_t i = sent - LENGTH; i < sent; i++) {
        cr_assert_eq(raw_recv(&next, bytes, sizeof bytes, RAW_LIMIT_MS), SIZE);
        cr_assert_eq(raw_get32(bytes), i);
    }
    send_text(s, "go on");
    raw_expect(&next, NULL, 0, "go on");
    raw_close(&idle);
    raw_close(&next);
    finish();
}

ON_EVERY_TRANSPORT(push, wakes_every_sender_that_waits_when_a_peer_comes)
{
    spoke_socket *push = open_with_queue(0), *pull = open_socket(SPOKE_PULL);
    struct waiting_call senders[4];

    for (int i = 0; i < 4; i++)
        start_call(&senders[i], push, "same");
    await_senders(push, 4);
    connect_sockets(push, pull, *t);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(end_call(&senders[i]), 0);
        expect_text(pull, "same");
    }
    finish();
}

Test(push, times_out_or_drops_when_there_is_no_room)
{
    spoke_socket *s = open_with_queue(1);

    send_text(s, "waits");
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, 10 * SPOKE_MS), 0);
    cr_assert_eq(spoke_send_bytes(s, "too many", 8, 0), SPOKE_ETIMEDOUT);
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_BEST_EFFORT, true), 0);
    send_text(s, "dropped");
    cr_assert_eq(stats_of(s).dropped_best_effort, 1);
    finish();
}

ON_EVERY_TRANSPORT(push, drops_what_has_expired_and_nothing_else)
{
    spoke_socket *push = watch_pipes(open_socket(SPOKE_PUSH)), *pull = open_socket(SPOKE_PULL);

    send_text(push, "stays");
    cr_assert_eq(spoke_socket_set_duration(push, SPOKE_OPT_SEND_EXPIRY, 1), 0);
    send_text(push, "expires");
    cr_assert_eq(spoke_socket_set_duration(push, SPOKE_OPT_SEND_EXPIRY, 0), 0);
    send_text(push, "stays too");
    connect_sockets(push, pull, *t);
    expect_text(pull, "stays");
    expect_text(pull, "stays too");
    cr_assert_eq(stats_of(push).dropped_expired, 1);
    cr_assert_eq(pipe_stats_of(push, 0).dropped_expired, 1);
    finish();
}

Test(push, says_at_the_close_what_was_not_delivered)
{
    spoke_socket *s = open_socket(SPOKE_PUSH);
    struct spoke_close_report report;

    send_text(s, "one");
    send_text(s, "three");
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 10 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_close_report(s, &report), SPOKE_ETIMEDOUT);
    cr_assert_eq(report.messages, 2);
    cr_assert_eq(report.bytes, 8);
    finish();
}

/* ---- headers ---- */

ON_EVERY_TRANSPORT(push, ignores_a_header_when_cooked_and_sends_it_when_raw)
{
    spoke_socket *push = open_socket(SPOKE_PUSH), *pull = open_socket(SPOKE_PULL);
    spoke_socket *raw_push = open_raw(SPOKE_PUSH), *raw_pull = open_raw(SPOKE_PULL);
    const uint32_t word = 0x41424344;

    connect_sockets(push, pull, *t);
    cr_assert_eq(spoke_send(push, new_with_words(&word, 1, "body"), 0), 0);
    expect_text(pull, "body");
    connect_sockets(raw_push, raw_pull, *t);
    cr_assert_eq(spoke_send(raw_push, new_with_words(&word, 1, "body"), 0), 0);
    expect_text(raw_pull, "ABCDbody");
    finish();
}

ON_EVERY_TRANSPORT(push, leaves_a_shared_message_to_its_other_holders)
{
    spoke_socket *push = open_socket(SPOKE_PUSH), *pull = open_socket(SPOKE_PULL);
    const uint32_t word = 0x41424344;
    spoke_msg *m = new_with_words(&word, 1, "shared");

    connect_sockets(push, pull, *t);
    cr_assert_eq(spoke_send(push, spoke_msg_dup(m), 0), 0);
    expect_text(pull, "shared");
    cr_assert(text_is(m, "shared"));
    cr_assert_eq(header_word(m, 0), word);
    spoke_msg_free(m);
    finish();
}
