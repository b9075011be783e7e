/* SPDX-License-Identifier: MIT */
/* PUB: everything to everybody, in order; and what a slow subscriber loses, how, and who is told.
 */
#include <stdio.h>
#include <sys/socket.h>

#include "tests/protocols/fixture.h"

#include "runtime/memory/pool.h"

#define PUB_NUMBER 32
#define SUB_NUMBER 33
#define SIZE       60000 /* of a message that fills a connection before long */

/* A PUB, and a SUB that reads no further when its queue, of one message, is full. */
struct scene {
    spoke_socket *pub, *slow;
    char url[ENDPOINT_MAX];
    uint32_t sent;
};

static void
set_scene(struct scene *scene, enum transport t, enum spoke_loss loss, int queue)
{
    *scene = (struct scene){.pub = open_socket(SPOKE_PUB), .slow = open_sub("")};
    cr_assert_eq(spoke_socket_set_int(scene->pub, SPOKE_OPT_SEND_QUEUE, queue), 0);
    cr_assert_eq(spoke_socket_set_int(scene->pub, SPOKE_OPT_LOSS, (int)loss), 0);
    cr_assert_eq(spoke_socket_set_int(scene->slow, SPOKE_OPT_LOSS, SPOKE_LOSS_BLOCK), 0);
    cr_assert_eq(spoke_socket_set_int(scene->slow, SPOKE_OPT_RECV_QUEUE, 1), 0);
    watch_pipes(scene->pub);
    listen_on(scene->pub, t, scene->url);
    dial(scene->slow, scene->url);
    wait_pipes(scene->pub, 1);
    wait_pipes(scene->slow, 1);
}

/* A message with a topic, its first byte, and a number behind that. */
static int
send_number(struct scene *scene, uint8_t topic, uint32_t number)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_new(&m, SIZE), 0);
    uint8_t *body = spoke_msg_body(m);
    memset(body, 0, SIZE);
    body[0] = topic;
    raw_put32(body + 1, number);
    int rc = spoke_send(scene->pub, m, SPOKE_DONTWAIT);
    if (rc != 0)
        spoke_msg_free(m);
    else
        scene->sent++;
    return rc;
}

static uint32_t
next_number(spoke_socket *sub)
{
    spoke_msg *m;
    int rc = spoke_recv(sub, &m, 0);

    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(spoke_msg_size(m), SIZE);
    uint32_t number = raw_get32((uint8_t *)spoke_msg_body(m) + 1);
    spoke_msg_free(m);
    return number;
}

/* Number messages until so many have been dropped. */
static void
send_until_dropped(struct scene *scene, uint64_t most)
{
    while (stats_of(scene->pub).dropped_peer_full < most) {
        cr_assert_lt(scene->sent, 10000u);
        cr_assert_eq(send_number(scene, 'n', scene->sent), 0);
    }
}

/* ---- the wire ---- */

ON_EVERY_STREAM(pub, speaks_the_bytes_of_the_specification)
{
    static const uint8_t pub[] = {0, 'S', 'P', 0, 0, 0x20, 0, 0};
    static const uint8_t sub[] = {0, 'S', 'P', 0, 0, 0x21, 0, 0};
    static const uint8_t tick[] = {1, 0, 0, 0, 0, 0, 0, 0, 4, 't', 'i', 'c', 'k'};
    spoke_socket *s = open_socket(SPOKE_PUB);
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, pub, sizeof pub);
    cr_assert_eq(raw_send_bytes(&p, sub, sizeof sub, RAW_LIMIT_MS), RAW_OK);
    wait_pipes(s, 1);
    send_text(s, "tick");
    raw_expect_bytes(&p, tick + skip, sizeof tick - skip);
    raw_close(&p);
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

ON_EVERY_TRANSPORT(pub, never_receives)
{
    for (int raw = 0; raw < 2; raw++) {
        spoke_socket *s = raw ? open_raw(SPOKE_PUB) : open_socket(SPOKE_PUB);
        spoke_socket *sub = open_sub("");

        expect_recv_error(s, SPOKE_ENOTSUP);
        connect_sockets(s, sub, *t);
        expect_recv_error(s, SPOKE_ENOTSUP);
        cr_assert_eq(spoke_socket_on_message(s, ignore, NULL), SPOKE_ENOTSUP);
    }
    finish();
}

/* What nanomsg dies of.  And an end is noticed. */
ON_EVERY_STREAM(pub, discards_what_a_peer_says)
{
    spoke_socket *s = watch_pipes(open_socket(SPOKE_PUB));
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(s, *t, url);
    join(&p, s, url, 1);
    raw_send_texts(&p, "nobody asked", 100);
    raw_send_texts(&p, "", 100);
    wait_counter(s, dropped_unwanted, 200);
    cr_assert_eq(pipe_stats_of(s, 0).dropped_unwanted, 200);
    send_text(s, "all the same");
    raw_expect(&p, NULL, 0, "all the same");
    raw_close(&p);
    wait_pipes(s, 0);
    finish();
}

/* ---- everybody ---- */

ON_EVERY_TRANSPORT(pub, does_not_mind_if_nobody_listens)
{
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_sub("");

    for (int i = 0; i < 1000; i++)
        cr_assert_eq(spoke_send_bytes(pub, "unheard", 7, SPOKE_DONTWAIT), 0);
    expect_fd(pub, SPOKE_OPT_SEND_FD, true);
    connect_sockets(pub, sub, *t);
    send_text(pub, "heard");
    expect_text(sub, "heard");
    cr_assert_eq(stats_of(pub).messages_sent, 1001);
    finish();
}

ON_EVERY_TRANSPORT(pub, tells_everybody_everything_in_order)
{
    enum { SUBS = 5, COUNT = 300 };
    spoke_socket *pub = open_socket(SPOKE_PUB), *subs[SUBS];
    char url[ENDPOINT_MAX], text[16];

    listen_on(pub, *t, url);
    for (int i = 0; i < SUBS; i++) {
        subs[i] = open_sub("");
        dial(subs[i], url);
        wait_pipes(pub, (uint64_t)i + 1);
    }
    for (int n = 0; n < COUNT; n += 50) {
        for (int k = n; k < n + 50; k++) {
            snprintf(text, sizeof text, "%d", k);
            send_text(pub, text);
        }
        for (int i = 0; i < SUBS; i++) {
            for (int k = n; k < n + 50; k++) {
                snprintf(text, sizeof text, "%d", k);
                expect_text(subs[i], text);
            }
        }
    }
    for (int i = 0; i < SUBS; i++)
        expect_recv_error(subs[i], SPOKE_EAGAIN);
    finish();
}

Test(pub, one_body_serves_all)
{
    enum { SUBS = 16, BODY = 1000000 };
    own_engine();
    spoke_socket *pub = open_socket(SPOKE_PUB), *subs[SUBS];
    struct spoke_memory_stats before, after;
    spoke_msg *m;

    for (int i = 0; i < SUBS; i++) {
        subs[i] = open_sub("");
        connect_sockets(pub, subs[i], INPROC);
    }
    spoke_memory_stats(&before);
    cr_assert_eq(spoke_msg_new(&m, BODY), 0);
    const void *body = memset(spoke_msg_body(m), 7, BODY);
    cr_assert_eq(spoke_send(pub, m, 0), 0);
    sleep_ms(10);
    spoke_memory_stats(&after);
    cr_assert_eq(after.chunks, before.chunks + 1);
    for (int i = 0; i < SUBS; i++) {
        cr_assert_eq(spoke_recv(subs[i], &m, 0), 0);
        cr_assert_eq(spoke_msg_body(m), body);
        cr_assert_eq(spoke_msg_size(m), BODY);
        spoke_msg_free(m);
    }
    finish();
}

ON_EVERY_TRANSPORT(pub, ignores_a_header_when_cooked_and_sends_it_when_raw)
{
    const uint32_t word = 0x41424344;

    for (int raw = 0; raw < 2; raw++) {
        spoke_socket *pub = raw ? open_raw(SPOKE_PUB) : open_socket(SPOKE_PUB), *subs[2];
        for (int i = 0; i < 2; i++) {
            subs[i] = open_sub("");
            connect_sockets(pub, subs[i], *t);
        }
        spoke_msg *m = new_with_words(&word, 1, "body");
        cr_assert_eq(spoke_send(pub, spoke_msg_dup(m), 0), 0);
        for (int i = 0; i < 2; i++)
            expect_text(subs[i], raw ? "ABCDbody" : "body");
        cr_assert(text_is(m, "body"));
        cr_assert_eq(header_word(m, 0), word);
        spoke_msg_free(m);
    }
    finish();
}

ON_EVERY_TRANSPORT(pub, subscribers_come_and_go)
{
    spoke_socket *pub = open_socket(SPOKE_PUB), *stays = open_sub("");
    char url[ENDPOINT_MAX];

    listen_on(pub, *t, url);
    dial(stays, url);
    wait_pipes(pub, 1);
    for (int i = 0; i < 30; i++) {
        spoke_socket *goes = open_sub("");
        dial(goes, url);
        wait_pipes(pub, 2);
        send_text(pub, "hello");
        expect_text(goes, "hello");
        expect_text(stays, "hello");
        cr_assert_eq(spoke_socket_close(goes), 0);
        send_text(pub, "good-bye");
        expect_text(stays, "good-bye");
        wait_pipes(pub, 1);
    }
    finish();
}

/* ---- the slow ---- */

/* The others get everything meanwhile. */
ON_EVERY_TRANSPORT(pub, a_slow_one_loses_the_newest)
{
    struct scene scene;
    spoke_socket *fast = open_sub("");

    set_scene(&scene, *t, SPOKE_LOSS_NEWEST, 4);
    dial(fast, scene.url);
    wait_pipes(scene.pub, 2);
    while (stats_of(scene.pub).dropped_peer_full == 0) {
        cr_assert_lt(scene.sent, 10000u);
        cr_assert_eq(send_number(&scene, 'n', scene.sent), 0);
        cr_assert_eq(next_number(fast), scene.sent - 1);
    }
    for (uint32_t i = 0; i + 1 < scene.sent; i++)
        cr_assert_eq(next_number(scene.slow), i);
    expect_recv_error(scene.slow, SPOKE_EAGAIN);
    cr_assert_eq(pipe_stats_of(scene.pub, 0).dropped_peer_full, 1);
    cr_assert_eq(pipe_stats_of(scene.pub, 0).messages_sent, scene.sent - 1);
    cr_assert_eq(pipe_stats_of(scene.pub, 1).dropped_peer_full, 0);
    send_text(scene.pub, "room again");
    expect_text(scene.slow, "room again");
    finish();
}

/* It gets the beginning, which its connection had taken, and the end. */
/* All that is there, read behind the engine's back. */
static size_t
read_all(struct raw_peer *p)
{
    static uint8_t bytes[65536];
    size_t all = 0;
    ssize_t n;

    while ((n = recv(p->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        all += (size_t)n;
    return all;
}

/* Nothing but sends turns this engine, and there is always one who can take them. */
ON_EVERY_STREAM(pub, finds_by_sending_that_a_slow_one_reads_again)
{
    own_engine();
    struct scene scene = {.pub = open_socket(SPOKE_PUB)};
    struct raw_peer slow, quick;
    size_t heard = 0;

    cr_assert_eq(spoke_socket_set_int(scene.pub, SPOKE_OPT_SEND_QUEUE, 1), 0);
    listen_on(scene.pub, *t, scene.url);
    join(&slow, scene.pub, scene.url, 1);
    join(&quick, scene.pub, scene.url, 2);
    while (stats_of(scene.pub).dropped_peer_full == 0) {
        cr_assert_eq(spoke_send_bytes(scene.pub, (uint8_t[SIZE]){0}, SIZE, 0), 0);
        read_all(&quick);
    }
    while (read_all(&slow) > 0)
        ;
    for (int i = 0; i < 1000 && heard == 0; i++) {
        cr_assert_eq(spoke_send_bytes(scene.pub, "news", 4, 0), 0);
        read_all(&quick);
        heard = read_all(&slow);
    }
    cr_assert_gt(heard, 0);
    raw_close(&slow);
    raw_close(&quick);
    finish();
}

ON_EVERY_TRANSPORT(pub, a_slow_one_loses_the_oldest)
{
    struct scene scene;
    uint32_t gaps = 0, before = UINT32_MAX;

    set_scene(&scene, *t, SPOKE_LOSS_OLDEST, 4);
    send_until_dropped(&scene, 1);
    for (uint32_t i = 0; i + 1 < scene.sent; i++) {
        uint32_t number = next_number(scene.slow);
        gaps += number != before + 1;
        before = number;
    }
    expect_recv_error(scene.slow, SPOKE_EAGAIN);
    cr_assert_eq(gaps, 1);
    cr_assert_eq(before, scene.sent - 1);
    cr_assert_eq(pipe_stats_of(scene.pub, 0).dropped_peer_full, 1);
    finish();
}

ON_EVERY_TRANSPORT(pub, everybody_waits_for_a_slow_one)
{
    struct scene scene;
    spoke_socket *fast = open_sub("");
    struct waiting_call sender;
    uint32_t slow_has = 0, fast_has = 0;
    int blocked = 0;

    set_scene(&scene, *t, SPOKE_LOSS_BLOCK, 4);
    dial(fast, scene.url);
    wait_pipes(scene.pub, 2);
    while (blocked < 50) { /* what the connection takes in the meantime is no end */
        if (send_number(&scene, 'n', scene.sent) == 0) {
            blocked = 0;
            cr_assert_eq(next_number(fast), fast_has++);
        } else {
            blocked++;
            settle();
        }
    }
    expect_fd(scene.pub, SPOKE_OPT_SEND_FD, false);
    start_call(&sender, scene.pub, "patience");
    for (; slow_has < scene.sent; slow_has++)
        cr_assert_eq(next_number(scene.slow), slow_has);
    cr_assert_eq(end_call(&sender), 0);
    expect_text(scene.slow, "patience");
    expect_text(fast, "patience");
    cr_assert_eq(fast_has, scene.sent);
    expect_fd(scene.pub, SPOKE_OPT_SEND_FD, true);
    cr_assert_eq(stats_of(scene.pub).dropped_peer_full, 0);
    finish();
}

/* When it goes away, nobody waits for it any more. */
ON_EVERY_TRANSPORT(pub, nobody_waits_for_one_that_has_gone)
{
    struct scene scene;
    struct waiting_call sender;
    int blocked = 0;

    set_scene(&scene, *t, SPOKE_LOSS_BLOCK, 1);
    while (blocked < 50) {
        if (send_number(&scene, 'n', scene.sent) == 0) {
            blocked = 0;
        } else {
            blocked++;
            settle();
        }
    }
    start_call(&sender, scene.pub, "at last");
    await_senders(scene.pub, 1);
    cr_assert_eq(spoke_socket_close(scene.slow), 0);
    cr_assert_eq(end_call(&sender), 0);
    wait_pipes(scene.pub, 0);
    wait_lost(scene.pub, 1);
    finish();
}

/* Of each topic it gets the last in the end, and never an older one after a newer one. */
ON_EVERY_TRANSPORT(pub, a_slow_one_gets_the_latest_of_each_topic)
{
    enum { TOPICS = 3 };
    struct scene scene;
    uint32_t last[TOPICS] = {0}, received = 0;
    spoke_msg *m;

    set_scene(&scene, *t, SPOKE_LOSS_CONFLATE, 128);
    cr_assert_eq(spoke_socket_set_size(scene.pub, SPOKE_OPT_TOPIC_SIZE, 1), 0);
    while (stats_of(scene.pub).dropped_conflated < 30) {
        cr_assert_lt(scene.sent, 10000u);
        cr_assert_eq(send_number(&scene, (uint8_t)('a' + scene.sent % TOPICS), scene.sent + 1), 0);
    }
    for (int i = 1; i <= TOPICS; i++) /* the end of the story */
        cr_assert_eq(send_number(&scene, (uint8_t)('a' + scene.sent % TOPICS), 1000000), 0);
    while (last[0] + last[1] + last[2] < 3000000u) {
        cr_assert_eq(spoke_recv(scene.slow, &m, 0), 0);
        const uint8_t *body = spoke_msg_body(m);
        uint32_t *before = &last[body[0] - 'a'], number = raw_get32(body + 1);
        cr_assert_gt(number, *before);
        *before = number;
        received++;
        spoke_msg_free(m);
    }
    uint64_t conflated = stats_of(scene.pub).dropped_conflated;
    cr_assert_eq(received + conflated, scene.sent);
    cr_assert_eq(pipe_stats_of(scene.pub, 0).dropped_conflated, conflated);
    cr_assert_eq(stats_of(scene.pub).dropped_peer_full, 0);
    finish();
}

/* More topics than the queue has places: then the oldest go. */
ON_EVERY_TRANSPORT(pub, conflation_is_bounded_too)
{
    struct scene scene;
    int64_t before = -1;

    set_scene(&scene, *t, SPOKE_LOSS_CONFLATE, 4);
    cr_assert_eq(spoke_socket_set_size(scene.pub, SPOKE_OPT_TOPIC_SIZE, 5),
                 0); /* with the number */
    send_until_dropped(&scene, 10);
    for (uint32_t i = 0; i + 10 < scene.sent; i++) {
        uint32_t number = next_number(scene.slow);
        cr_assert_gt(number, before);
        before = number;
    }
    expect_recv_error(scene.slow, SPOKE_EAGAIN);
    cr_assert_eq(before, scene.sent - 1);
    cr_assert_eq(stats_of(scene.pub).dropped_conflated, 0);
    finish();
}

/* Without a topic all are one, and the last counts; a topic may also end with a certain byte. */
ON_EVERY_TRANSPORT(pub, a_topic_may_have_an_end)
{
    for (int end = 0; end < 2; end++) {
        struct scene scene;
        uint32_t waiting = end ? 2 : 1; /* topics, and so messages, at the most */
        set_scene(&scene, *t, SPOKE_LOSS_CONFLATE, 4);
        if (end) {
            cr_assert_eq(spoke_socket_set_size(scene.pub, SPOKE_OPT_TOPIC_SIZE, SIZE_MAX), 0);
            cr_assert_eq(spoke_socket_set_int(scene.pub, SPOKE_OPT_TOPIC_END, 0), 0);
        }
        /* send_number() puts a 0 behind its topic: the first byte of a number below 2^24. */
        while (stats_of(scene.pub).dropped_conflated < 10)
            cr_assert_eq(send_number(&scene, (uint8_t)('a' + scene.sent % 2), scene.sent), 0);
        for (uint32_t i = 0, before = 0; i + 10 < scene.sent; i++) {
            uint32_t number = next_number(scene.slow);
            if (i + 10 + waiting >= scene.sent) /* what waited: the latest of each */
                cr_assert_geq(number, scene.sent - waiting);
            cr_assert(i == 0 || number > before);
            before = number;
        }
        expect_recv_error(scene.slow, SPOKE_EAGAIN);
        cr_assert_eq(stats_of(scene.pub).dropped_peer_full, 0);
    }
    finish();
}

ON_EVERY_TRANSPORT(pub, a_slow_one_is_thrown_out)
{
    struct scene scene;
    spoke_socket *fast = open_sub("");
    uint32_t fast_has = 0;
    spoke_msg *m;

    set_scene(&scene, *t, SPOKE_LOSS_DISCONNECT, 4);
    dial(fast, scene.url);
    wait_pipes(scene.pub, 2);
    while (stats_of(scene.pub).disconnected_slow == 0) {
        cr_assert_lt(scene.sent, 10000u);
        cr_assert_eq(send_number(&scene, 'n', scene.sent), 0);
        cr_assert_eq(next_number(fast), fast_has++);
    }
    /* It reads what there is, up to the end, comes back, and starts anew. */
    cr_assert_eq(spoke_socket_set_duration(scene.slow, SPOKE_OPT_RECV_TIMEOUT, 10 * SPOKE_MS), 0);
    while (stats_of(scene.pub).pipes_attached < 3) {
        if (spoke_recv(scene.slow, &m, 0) == 0)
            spoke_msg_free(m);
    }
    cr_assert_eq(spoke_socket_set_duration(scene.slow, SPOKE_OPT_RECV_TIMEOUT, PATIENCE), 0);
    cr_assert_eq(stats_of(scene.pub).disconnected_slow, 1);
    send_text(scene.pub, "welcome back");
    expect_text(fast, "welcome back");
    for (bool back = false; !back; spoke_msg_free(m)) {
        cr_assert_eq(spoke_recv(scene.slow, &m, 0), 0);
        back = text_is(m, "welcome back");
    }
    finish();
}

/* What a listener says holds for its own. */
ON_EVERY_TRANSPORT(pub, each_listener_has_a_way_of_its_own)
{
    struct scene scene;
    spoke_socket *other = open_sub("");
    char url[ENDPOINT_MAX];
    spoke_listener *l;
    int loss;

    set_scene(&scene, *t, SPOKE_LOSS_NEWEST, 4);
    endpoint_fresh(url, *t);
    cr_assert_eq(spoke_listener_create(&l, scene.pub, url), 0);
    cr_assert_eq(spoke_listener_set_int(l, SPOKE_OPT_LOSS, SPOKE_LOSS_DISCONNECT), 0);
    cr_assert_eq(spoke_listener_set_int(l, SPOKE_OPT_LOSS, 5), SPOKE_ERANGE);
    cr_assert_eq(spoke_listener_get_int(l, SPOKE_OPT_LOSS, &loss), 0);
    cr_assert_eq(loss, SPOKE_LOSS_DISCONNECT);
    cr_assert_eq(spoke_listener_start(l, 0), 0);
    cr_assert_eq(spoke_socket_set_int(other, SPOKE_OPT_LOSS, SPOKE_LOSS_BLOCK), 0);
    cr_assert_eq(spoke_socket_set_int(other, SPOKE_OPT_RECV_QUEUE, 1), 0);
    dial(other, url);
    wait_pipes(scene.pub, 2);
    while (stats_of(scene.pub).disconnected_slow == 0 ||
           pipe_stats_of(scene.pub, 0).dropped_peer_full == 0) {
        cr_assert_lt(scene.sent, 10000u);
        cr_assert_eq(send_number(&scene, 'n', scene.sent), 0);
    }
    struct spoke_pipe_stats stats;
    cr_assert_eq(spoke_pipe_stats(scene.pub, watched_pipe(0), &stats), 0, "that one is still here");
    finish();
}

Test(pub, checks_its_options)
{
    spoke_socket *s = open_socket(SPOKE_PUB);
    struct spoke_pipe_stats stats;
    char topic[300] = "x";
    size_t size = sizeof topic, value;
    int end;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TOPIC_END, -2), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TOPIC_END, 256), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TOPIC_END, &end), 0);
    cr_assert_eq(end, -1);
    cr_assert_eq(spoke_socket_set_size(s, SPOKE_OPT_TOPIC_SIZE, 12), 0);
    cr_assert_eq(spoke_socket_get_size(s, SPOKE_OPT_TOPIC_SIZE, &value), 0);
    cr_assert_eq(value, 12);
    cr_assert_eq(spoke_socket_set(s, SPOKE_OPT_LOSS_TOPIC, SPOKE_BYTES, topic, 256), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_string(s, SPOKE_OPT_LOSS_TOPIC, "$lost"), 0);
    cr_assert_eq(spoke_socket_get(s, SPOKE_OPT_LOSS_TOPIC, SPOKE_BYTES, topic, &size), 0);
    cr_assert_eq(size, 5);
    cr_assert_arr_eq(topic, "$lost", 5);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_LOSS, 5), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, ""), SPOKE_EOPTION);
    cr_assert_eq(spoke_pipe_stats(s, 4711, &stats), SPOKE_ENOENT);
    cr_assert_eq(spoke_pipe_stats(s, 4711, NULL), SPOKE_EINVAL);
    cr_assert_eq(spoke_listen(s, "inproc://started", NULL, 0), 0);
    cr_assert_eq(spoke_socket_set_string(s, SPOKE_OPT_LOSS_TOPIC, ""), SPOKE_ETOOLATE);
    finish();
}

/* ---- receipts ---- */

struct account {
    uint64_t received, told;
};

/* Receive up to the next number: it comes behind as many as there were received or told of. */
static void
take_number(struct scene *scene, struct account *account)
{
    for (;;) {
        spoke_msg *m;
        cr_assert_eq(spoke_recv(scene->slow, &m, 0), 0);
        const uint8_t *body = spoke_msg_body(m);
        size_t size = spoke_msg_size(m);
        if (size == SIZE) {
            account->received++;
            cr_assert_eq(account->received + account->told, raw_get32(body + 1) + 1,
                         "a gap that it was not told of");
            spoke_msg_free(m);
            return;
        }
        cr_assert_eq(size, 5 + 16);
        cr_assert_arr_eq(body, "$lost", 5);
        account->told += raw_get32(body + 9);
        cr_assert_eq(raw_get32(body + 17), account->told, "and so many ever");
        spoke_msg_free(m);
    }
}

/* Goal: a subscriber of the topic learns how many it missed, and where; others never see it.
 * Method: it stops reading, twice, until ten more were dropped, and reads on. */
static void
missed(enum transport t, enum spoke_loss loss)
{
    struct scene scene = {.pub = open_socket(SPOKE_PUB), .slow = open_sub("")};
    struct account account = {0};

    cr_assert_eq(spoke_socket_set_string(scene.pub, SPOKE_OPT_LOSS_TOPIC, "$lost"), 0);
    cr_assert_eq(spoke_socket_set_int(scene.pub, SPOKE_OPT_SEND_QUEUE, 4), 0);
    cr_assert_eq(spoke_socket_set_int(scene.pub, SPOKE_OPT_LOSS, (int)loss), 0);
    cr_assert_eq(spoke_socket_set_int(scene.slow, SPOKE_OPT_LOSS, SPOKE_LOSS_BLOCK), 0);
    cr_assert_eq(spoke_socket_set_int(scene.slow, SPOKE_OPT_RECV_QUEUE, 1), 0);
    connect_sockets(scene.pub, scene.slow, t);
    for (uint64_t dropped = 10; dropped <= 20; dropped += 10) {
        send_until_dropped(&scene, dropped);
        while (account.received + dropped < scene.sent)
            take_number(&scene, &account);
        cr_assert_eq(send_number(&scene, 'n', scene.sent), 0);
        take_number(&scene, &account);
        cr_assert_eq(account.told, dropped);
    }
    finish();
}

ON_EVERY_TRANSPORT(pub, tells_how_many_of_the_newest_were_lost_and_where)
{
    missed(*t, SPOKE_LOSS_NEWEST);
}

ON_EVERY_TRANSPORT(pub, tells_how_many_of_the_oldest_were_lost_and_where)
{
    missed(*t, SPOKE_LOSS_OLDEST);
}

/* ---- the end ---- */

struct reader {
    spoke_socket *s;
    uint32_t left;
    pthread_t thread;
};

static void *
read_on(void *ctx)
{
    struct reader *reader = ctx;
    spoke_msg *m;

    while (reader->left > 0 && spoke_recv(reader->s, &m, 0) == 0) {
        spoke_msg_free(m);
        reader->left--;
    }
    return NULL;
}

ON_EVERY_TRANSPORT(pub, lingers_until_a_slow_one_has_everything)
{
    struct scene scene;

    set_scene(&scene, *t, SPOKE_LOSS_NEWEST, 4);
    send_until_dropped(&scene, 1);
    struct reader reader = {.s = scene.slow, .left = scene.sent - 1};
    cr_assert_eq(spoke_socket_set_duration(scene.pub, SPOKE_OPT_LINGER, PATIENCE), 0);
    cr_assert_eq(pthread_create(&reader.thread, NULL, read_on, &reader), 0);
    cr_assert_eq(spoke_socket_close(scene.pub), 0);
    pthread_join(reader.thread, NULL);
    cr_assert_eq(reader.left, 0);
    finish();
}

/* Whether the time is up, or the slow one has gone meanwhile. */
ON_EVERY_TRANSPORT(pub, says_at_the_close_what_was_not_delivered)
{
    for (int gone = 0; gone < 2; gone++) {
        struct scene scene;
        struct spoke_close_report report = {0};

        set_scene(&scene, *t, SPOKE_LOSS_NEWEST, 4);
        send_until_dropped(&scene, 1);
        cr_assert_eq(spoke_socket_set_duration(scene.pub, SPOKE_OPT_LINGER, gone ? PATIENCE : 0),
                     0);
        if (gone) /* its messages are lost before or during the close, as it happens */
            cr_assert_eq(spoke_socket_close(scene.slow), 0);
        int rc = spoke_socket_close_report(scene.pub, &report);
        cr_assert(rc == SPOKE_ETIMEDOUT || (gone && rc == 0), "%s", spoke_error_name(rc));
        cr_assert(rc == 0 || report.messages >= 4, "%llu", (unsigned long long)report.messages);
        cr_assert_lt(report.messages, scene.sent);
        (void)spoke_socket_close(scene.slow);
    }
    finish();
}

/* ---- no memory ---- */

/* Goal: a send either fails and changes nothing, or was taken, whatever that costs a connection.
 * Method: its first, second … allocation fails. */
ON_EVERY_TRANSPORT(pub, a_send_without_memory_fails_or_costs_a_connection)
{
    own_engine();
    int failures = 0, rc = SPOKE_ENOMEM;

    for (uint64_t lost = 1; rc != 0 || lost > 0; failures++) {
        const uint32_t word = 1;
        spoke_socket *pub = open_socket(SPOKE_PUB), *subs[2];
        for (int i = 0; i < 2; i++) {
            subs[i] = open_sub("");
            connect_sockets(pub, subs[i], *t);
        }
        spoke_msg *m = new_with_words(&word, 1, "body"), *other = spoke_msg_dup(m);
        spk_memory_fail_after((uint64_t)failures + 1);
        rc = spoke_send(pub, m, SPOKE_DONTWAIT);
        spk_memory_fail_after(0);
        lost = stats_of(pub).dropped_lost;
        if (rc != 0) {
            cr_assert_eq(rc, SPOKE_ENOMEM, "%s", spoke_error_name(rc));
            cr_assert(text_is(m, "body"));
            cr_assert_eq(header_word(m, 0), word);
            spoke_msg_free(m);
        } else {
            wait_counter(pub, pipes_attached, 2 + lost); /* who was thrown out is back */
        }
        spoke_msg_free(other);
        for (int i = 0; i < 2; i++)
            (void)spoke_socket_close(subs[i]);
        (void)spoke_socket_close(pub);
        cr_assert_lt(failures, 20);
    }
    cr_assert_gt(failures, 1);
    finish();
}
