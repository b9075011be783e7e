/* SPDX-License-Identifier: MIT */
/* PULL: everything of everybody, in turn, and never more than there is room for. */
#include <stdio.h>

#include "tests/protocols/fixture.h"

#define PUSH_NUMBER 80
#define PULL_NUMBER 81

ON_EVERY_STREAM(pull, speaks_the_bytes_of_the_specification)
{
    static const uint8_t push[] = {0, 'S', 'P', 0, 0, 0x50, 0, 0};
    static const uint8_t pull[] = {0, 'S', 'P', 0, 0, 0x51, 0, 0};
    static const uint8_t tick[] = {1, 0, 0, 0, 0, 0, 0, 0, 4, 't', 'i', 'c', 'k'};
    spoke_socket *s = open_socket(SPOKE_PULL);
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, pull, sizeof pull);
    cr_assert_eq(raw_send_bytes(&p, push, sizeof push, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, tick + skip, sizeof tick - skip, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send(&p, "", 0), RAW_OK);
    expect_text(s, "tick");
    expect_text(s, "");
    raw_close(&p);
    finish();
}

static void
ignore(spoke_socket *s, void *ctx)
{
    (void)s;
    (void)ctx;
}

ON_EVERY_TRANSPORT(pull, never_sends)
{
    for (int raw = 0; raw < 2; raw++) {
        spoke_socket *s = raw ? open_raw(SPOKE_PULL) : open_socket(SPOKE_PULL);
        spoke_socket *push = open_socket(SPOKE_PUSH);
        int fd;

        expect_send_error(s, SPOKE_ENOTSUP);
        connect_sockets(s, push, *t);
        expect_send_error(s, SPOKE_ENOTSUP);
        expect_recv_error(s, SPOKE_EAGAIN);
        cr_assert_eq(spoke_socket_on_writable(s, ignore, NULL), SPOKE_ENOTSUP);
        cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_SEND_FD, &fd), SPOKE_EOPTION);
    }
    finish();
}

ON_EVERY_TRANSPORT(pull, receives_from_everybody)
{
    enum { PUSHES = 3, COUNT = 100 };
    spoke_socket *pull = open_socket(SPOKE_PULL), *pushes[PUSHES];
    int next[PUSHES] = {0};
    char url[ENDPOINT_MAX], text[16];

    listen_on(pull, *t, url);
    for (int i = 0; i < PUSHES; i++) {
        pushes[i] = open_socket(SPOKE_PUSH);
        dial(pushes[i], url);
    }
    wait_pipes(pull, PUSHES);
    for (int n = 0; n < COUNT; n++) {
        for (int i = 0; i < PUSHES; i++) {
            snprintf(text, sizeof text, "%d %d", i, n);
            send_text(pushes[i], text);
        }
    }
    for (int n = 0; n < PUSHES * COUNT; n++) {
        int who, number;
        size_t size = sizeof text - 1;
        cr_assert_eq(spoke_recv_bytes(pull, text, &size, 0), 0);
        text[size] = '\0';
        cr_assert_eq(sscanf(text, "%d %d", &who, &number), 2);
        cr_assert_eq(number, next[who]++, "out of order: %s", text);
    }
    expect_recv_error(pull, SPOKE_EAGAIN);
    finish();
}

/* Goal: one that floods has its turn and no more.  Method: a hundred messages of one wait before
 * the other says something; that is not the last to come. */
ON_EVERY_STREAM(pull, gives_each_its_turn)
{
    spoke_socket *s = open_socket(SPOKE_PULL);
    char url[ENDPOINT_MAX], text[16];
    struct raw_peer flood, other;
    int place = 0;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 4), 0);
    watch_pipes(s);
    listen_on(s, *t, url);
    join(&flood, s, url, 1);
    join(&other, s, url, 2);
    raw_send_texts(&flood, "flood", 100);
    wait_arrived(s, 0, 1);
    raw_send_text(&other, "other");
    wait_arrived(s, 1, 1);
    do {
        size_t size = sizeof text - 1;
        cr_assert_eq(spoke_recv_bytes(s, text, &size, 0), 0);
        text[size] = '\0';
        place++;
    } while (strcmp(text, "other") != 0);
    cr_assert_leq(place, 20, "it came as number %d", place);
    raw_close(&flood);
    raw_close(&other);
    finish();
}

/* What came through a better endpoint overtakes what waits. */
ON_EVERY_TRANSPORT(pull, receives_from_the_best_priority_first)
{
    spoke_socket *pull = open_socket(SPOKE_PULL);
    spoke_socket *low = open_socket(SPOKE_PUSH), *high = open_socket(SPOKE_PUSH);

    cr_assert_eq(spoke_socket_set_int(pull, SPOKE_OPT_RECV_PRIORITY, 2), 0);
    connect_sockets(pull, low, *t);
    cr_assert_eq(spoke_socket_set_int(pull, SPOKE_OPT_RECV_PRIORITY, 1), 0);
    connect_sockets(pull, high, *t);
    send_text(low, "ABC");
    wait_counter(pull, recv_queue_high, 1);
    send_text(high, "DEF");
    wait_counter(pull, recv_queue_high, 2);
    expect_text(pull, "DEF");
    expect_text(pull, "ABC");
    finish();
}

/* The same where the queue is full and the peers are held back. */
ON_EVERY_STREAM(pull, lets_the_best_priority_in_first)
{
    spoke_socket *s = open_socket(SPOKE_PULL);
    char urls[2][ENDPOINT_MAX], text[16];
    struct raw_peer peers[2];
    int place = 0;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 2), 0);
    watch_pipes(s);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_PRIORITY, i == 0 ? 9 : 3), 0);
        listen_on(s, *t, urls[i]);
        join(&peers[i], s, urls[i], (uint64_t)i + 1);
    }
    raw_send_texts(&peers[0], "low", 50);
    wait_arrived(s, 0, 1);
    raw_send_texts(&peers[1], "high", 10);
    wait_arrived(s, 1, 1);
    for (int highs = 0; highs < 10; place++) {
        size_t size = sizeof text - 1;
        cr_assert_eq(spoke_recv_bytes(s, text, &size, 0), 0);
        text[size] = '\0';
        highs += strcmp(text, "high") == 0;
    }
    cr_assert_leq(place, 30, "the last of ten came as number %d", place);
    for (int i = place; i < 60; i++)
        expect_text(s, "low");
    raw_close(&peers[0]);
    raw_close(&peers[1]);
    finish();
}

/* Also from behind a queue that others have filled. */
ON_EVERY_STREAM(pull, lets_the_best_priority_pass_a_full_queue)
{
    spoke_socket *s = open_socket(SPOKE_PULL);
    char url[ENDPOINT_MAX];
    struct raw_peer peers[2];

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 50), 0);
    watch_pipes(s);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_PRIORITY, 9), 0);
    listen_on(s, *t, url);
    join(&peers[0], s, url, 1);
    raw_send_texts(&peers[0], "low", 60);
    wait_counter(s, recv_queue_high, 50);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_PRIORITY, 3), 0);
    listen_on(s, *t, url);
    join(&peers[1], s, url, 2);
    raw_send_text(&peers[1], "high");
    wait_arrived(s, 1, 1);
    expect_text(s, "low");
    expect_text(s, "high");
    for (int i = 0; i < 59; i++)
        expect_text(s, "low");
    raw_close(&peers[0]);
    raw_close(&peers[1]);
    finish();
}

/* Nothing is dropped: who sends too much has to wait, and the others do not notice. */
ON_EVERY_STREAM(pull, stops_reading_a_peer_that_floods)
{
    enum { SIZE = 60000 };
    spoke_socket *s = open_socket(SPOKE_PULL);
    static uint8_t bytes[SIZE];
    char url[ENDPOINT_MAX];
    struct raw_peer flood, other;
    uint32_t sent = 0, received = 0;
    spoke_msg *m;
    bool heard = false;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 8), 0);
    listen_on(s, *t, url);
    join(&flood, s, url, 1);
    join(&other, s, url, 2);
    uint8_t prefix[RAW_IPC_PREFIX_BYTES];
    size_t prefix_size = raw_prefix(&flood, prefix, SIZE);
    while (sent < 2000) { /* as far as it goes; what was cut off follows below */
        raw_put32(bytes, sent);
        if (raw_send_bytes(&flood, prefix, prefix_size, 100) != RAW_OK)
            break;
        if (raw_send_bytes(&flood, bytes, SIZE, 100) != RAW_OK)
            break;
        sent++;
    }
    cr_assert_lt(sent, 2000, "it never had to wait");
    cr_assert_leq(stats_of(s).recv_queue_high, 9);
    raw_send_text(&other, "me too");
    while (received < sent || !heard) {
        cr_assert_eq(spoke_recv(s, &m, 0), 0);
        if (text_is(m, "me too")) {
            heard = true;
        } else {
            cr_assert_eq(spoke_msg_size(m), SIZE);
            cr_assert_eq(raw_get32(spoke_msg_body(m)), received++);
        }
        spoke_msg_free(m);
    }
    raw_close(&flood);
    raw_close(&other);
    finish();
}

ON_EVERY_STREAM(pull, keeps_what_arrived_after_the_peer_has_left)
{
    spoke_socket *s = open_socket(SPOKE_PULL);
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(s, *t, url);
    join(&p, s, url, 1);
    raw_send_text(&p, "one");
    raw_send_text(&p, "two");
    wait_counter(s, recv_queue_high, 2);
    raw_close(&p);
    wait_pipes(s, 0);
    expect_text(s, "one");
    expect_text(s, "two");
    expect_recv_error(s, SPOKE_EAGAIN);
    finish();
}

ON_EVERY_TRANSPORT(pull, many_receivers_share_the_messages)
{
    enum { CALLS = 4 };
    spoke_socket *pull = open_socket(SPOKE_PULL), *push = open_socket(SPOKE_PUSH);
    struct waiting_call calls[CALLS];

    connect_sockets(pull, push, *t);
    for (int i = 0; i < CALLS; i++)
        start_call(&calls[i], pull, NULL);
    await_receivers(pull, CALLS);
    for (int i = 0; i < CALLS; i++)
        send_text(push, "share");
    for (int i = 0; i < CALLS; i++) {
        cr_assert_eq(end_call(&calls[i]), 0);
        cr_assert_str_eq(calls[i].received, "share");
    }
    expect_fd(pull, SPOKE_OPT_RECV_FD, false);
    finish();
}
