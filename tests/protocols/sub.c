/* SPDX-License-Identifier: MIT */
/* SUB: what a subscription lets in, what becomes of the rest, and of what there is no room for. */
#include <stdio.h>
#include <stdlib.h>

#include "tests/protocols/fixture.h"

#include "runtime/memory/pool.h"

#define PUB_NUMBER 32
#define SUB_NUMBER 33

static int
subscribe(spoke_socket *s, const char *topic)
{
    return spoke_socket_set_string(s, SPOKE_OPT_SUBSCRIBE, topic);
}

static int
unsubscribe(spoke_socket *s, const char *topic)
{
    return spoke_socket_set_string(s, SPOKE_OPT_UNSUBSCRIBE, topic);
}

static void
set_loss(spoke_socket *s, enum spoke_loss loss)
{
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_LOSS, (int)loss), 0);
}

/* ---- the wire ---- */

/* Nothing of the subscriptions is on it. */
ON_EVERY_STREAM(sub, speaks_the_bytes_of_the_specification)
{
    static const uint8_t pub[] = {0, 'S', 'P', 0, 0, 0x20, 0, 0};
    static const uint8_t sub[] = {0, 'S', 'P', 0, 0, 0x21, 0, 0};
    static const uint8_t tick[] = {1, 0, 0, 0, 0, 0, 0, 0, 4, 't', 'i', 'c', 'k'};
    spoke_socket *s = open_sub("t");
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, sub, sizeof sub);
    cr_assert_eq(raw_send_bytes(&p, pub, sizeof pub, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, tick + skip, sizeof tick - skip, RAW_LIMIT_MS), RAW_OK);
    expect_text(s, "tick");
    cr_assert_eq(subscribe(s, "more"), 0);
    cr_assert(raw_is_quiet(&p, RAW_QUIET_MS));
    raw_close(&p);
    finish();
}

/* ---- one way ---- */

ON_EVERY_TRANSPORT(sub, never_sends)
{
    for (int raw = 0; raw < 2; raw++) {
        spoke_socket *s = raw ? open_raw(SPOKE_SUB) : open_socket(SPOKE_SUB);
        spoke_socket *pub = open_socket(SPOKE_PUB);
        int fd;

        expect_send_error(s, SPOKE_ENOTSUP);
        connect_sockets(s, pub, *t);
        expect_send_error(s, SPOKE_ENOTSUP);
        expect_recv_error(s, SPOKE_EAGAIN);
        cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_SEND_FD, &fd), SPOKE_EOPTION);
    }
    finish();
}

/* ---- subscriptions ---- */

ON_EVERY_TRANSPORT(sub, receives_nothing_without_a_subscription)
{
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_sub(NULL);

    watch_pipes(sub);
    connect_sockets(pub, sub, *t);
    send_text(pub, "unheard");
    send_text(pub, "");
    wait_counter(sub, dropped_unwanted, 2);
    cr_assert_eq(pipe_stats_of(sub, 0).dropped_unwanted, 2);
    expect_recv_error(sub, SPOKE_EAGAIN);
    expect_fd(sub, SPOKE_OPT_RECV_FD, false);
    cr_assert_eq(spoke_socket_set_duration(sub, SPOKE_OPT_RECV_TIMEOUT, 10 * SPOKE_MS), 0);
    spoke_msg *m;
    cr_assert_eq(spoke_recv(sub, &m, 0), SPOKE_ETIMEDOUT);
    finish();
}

ON_EVERY_TRANSPORT(sub, receives_what_begins_with_a_subscription)
{
    for (int raw = 0; raw < 2; raw++) {
        spoke_socket *pub = open_socket(SPOKE_PUB);
        spoke_socket *sub = raw ? open_raw(SPOKE_SUB) : open_socket(SPOKE_SUB);

        cr_assert_eq(subscribe(sub, "weather.london"), 0);
        cr_assert_eq(subscribe(sub, "news"), 0);
        connect_sockets(pub, sub, *t);
        send_text(pub, "weather.london: rain");
        send_text(pub, "weather.lima: dry");
        send_text(pub, "weather.london");
        send_text(pub, "weather.londo");
        send_text(pub, "");
        send_text(pub, " news");
        send_text(pub, "newspaper");
        expect_text(sub, "weather.london: rain");
        expect_text(sub, "weather.london");
        expect_text(sub, "newspaper");
        expect_recv_error(sub, SPOKE_EAGAIN);
        cr_assert_eq(stats_of(sub).dropped_unwanted, 4);
    }
    finish();
}

ON_EVERY_TRANSPORT(sub, the_empty_subscription_lets_everything_in)
{
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_sub("");

    connect_sockets(pub, sub, *t);
    send_text(pub, "");
    send_text(pub, "anything");
    expect_text(sub, "");
    expect_text(sub, "anything");
    finish();
}

ON_EVERY_TRANSPORT(sub, topics_are_bytes)
{
    static const uint8_t topic[] = {0, 0xff, 0}, other[] = {0, 0xff, 1, 0};
    static const uint8_t hit[] = {0, 0xff, 0, 7};
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_socket(SPOKE_SUB);
    uint8_t bytes[8];
    size_t size = sizeof bytes;

    cr_assert_eq(spoke_socket_set(sub, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, topic, sizeof topic), 0);
    connect_sockets(pub, sub, *t);
    cr_assert_eq(spoke_send_bytes(pub, other, sizeof other, 0), 0);
    cr_assert_eq(spoke_send_bytes(pub, hit, sizeof hit, 0), 0);
    cr_assert_eq(spoke_recv_bytes(sub, bytes, &size, 0), 0);
    cr_assert_eq(size, sizeof hit);
    cr_assert_arr_eq(bytes, hit, sizeof hit);
    cr_assert_eq(spoke_socket_set(sub, SPOKE_OPT_UNSUBSCRIBE, SPOKE_BYTES, topic, sizeof topic), 0);
    finish();
}

/* A topic may be longer than what lies in the message itself. */
ON_EVERY_TRANSPORT(sub, topics_may_be_long)
{
    enum { SIZE = 100000 };
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_socket(SPOKE_SUB);
    char *topic = calloc(1, SIZE);
    spoke_msg *m;

    cr_assert_eq(spoke_socket_set(sub, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, topic, SIZE), 0);
    connect_sockets(pub, sub, *t);
    cr_assert_eq(spoke_send_bytes(pub, topic, SIZE - 1, 0), 0);
    cr_assert_eq(spoke_send_bytes(pub, topic, SIZE, 0), 0);
    cr_assert_eq(spoke_recv(sub, &m, 0), 0);
    cr_assert_eq(spoke_msg_size(m), SIZE);
    spoke_msg_free(m);
    free(topic);
    finish();
}

ON_EVERY_TRANSPORT(sub, subscribing_again_has_no_effect)
{
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_sub("a");

    cr_assert_eq(subscribe(sub, "a"), 0);
    connect_sockets(pub, sub, *t);
    send_text(pub, "a once");
    expect_text(sub, "a once");
    cr_assert_eq(unsubscribe(sub, "a"), 0);
    send_text(pub, "a twice");
    wait_counter(sub, dropped_unwanted, 1);
    expect_recv_error(sub, SPOKE_EAGAIN);
    cr_assert_eq(unsubscribe(sub, "a"), SPOKE_ENOENT);
    finish();
}

/* What nanomsg crashes of. */
Test(sub, unsubscribing_what_is_not_subscribed_is_an_error)
{
    spoke_socket *sub = open_socket(SPOKE_SUB);

    cr_assert_eq(unsubscribe(sub, "a"), SPOKE_ENOENT);
    cr_assert_eq(unsubscribe(sub, ""), SPOKE_ENOENT);
    cr_assert_eq(subscribe(sub, "abc"), 0);
    cr_assert_eq(unsubscribe(sub, "ab"), SPOKE_ENOENT);
    cr_assert_eq(unsubscribe(sub, "abcd"), SPOKE_ENOENT);
    cr_assert_eq(unsubscribe(sub, ""), SPOKE_ENOENT);
    cr_assert_eq(unsubscribe(sub, "abc"), 0);
    cr_assert_eq(unsubscribe(sub, "abc"), SPOKE_ENOENT);
    finish();
}

Test(sub, checks_its_options)
{
    spoke_socket *sub = open_socket(SPOKE_SUB), *pair = open_socket(SPOKE_PAIR);
    int loss = -1;
    char buffer[8];
    size_t size = sizeof buffer;

    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_SUBSCRIBE, 1), SPOKE_ETYPE);
    cr_assert_eq(spoke_socket_set_bool(sub, SPOKE_OPT_UNSUBSCRIBE, true), SPOKE_ETYPE);
    cr_assert_eq(spoke_socket_set(sub, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, NULL, 3), SPOKE_EINVAL);
    cr_assert_eq(spoke_socket_set(sub, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, NULL, 0), 0);
    cr_assert_eq(spoke_socket_get(sub, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, buffer, &size),
                 SPOKE_EWRITEONLY);
    cr_assert_eq(spoke_socket_get(sub, SPOKE_OPT_UNSUBSCRIBE, SPOKE_BYTES, buffer, &size),
                 SPOKE_EWRITEONLY);
    cr_assert_eq(subscribe(pair, "a"), SPOKE_EOPTION);
    cr_assert_eq(spoke_socket_get_int(sub, SPOKE_OPT_LOSS, &loss), 0);
    cr_assert_eq(loss, SPOKE_LOSS_NEWEST);
    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_LOSS, SPOKE_LOSS_BLOCK), 0);
    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_LOSS, SPOKE_LOSS_CONFLATE), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_LOSS, -1), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_get_int(sub, SPOKE_OPT_LOSS, &loss), 0);
    cr_assert_eq(loss, SPOKE_LOSS_BLOCK);
    cr_assert_eq(spoke_socket_set_int(pair, SPOKE_OPT_LOSS, 0), SPOKE_EOPTION);
    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_TOPIC_END, 0), SPOKE_EOPTION, "is PUB's");
    finish();
}

/* What has arrived has been judged. */
ON_EVERY_TRANSPORT(sub, a_subscription_does_not_bring_back_what_was_dropped)
{
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_sub(NULL);

    connect_sockets(pub, sub, *t);
    send_text(pub, "early");
    wait_counter(sub, dropped_unwanted, 1);
    cr_assert_eq(subscribe(sub, "e"), 0);
    expect_recv_error(sub, SPOKE_EAGAIN);
    send_text(pub, "evening");
    expect_text(sub, "evening");
    finish();
}

ON_EVERY_TRANSPORT(sub, unsubscribing_takes_what_waits)
{
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_sub("a");

    cr_assert_eq(subscribe(sub, "b"), 0);
    cr_assert_eq(subscribe(sub, "ab"), 0);
    connect_sockets(pub, sub, *t);
    send_text(pub, "b one");
    send_text(pub, "a one");
    send_text(pub, "ab stays");
    send_text(pub, "a two");
    send_text(pub, "b two");
    wait_counter(sub, recv_queue_high, 5);
    cr_assert_eq(unsubscribe(sub, "a"), 0);
    cr_assert_eq(stats_of(sub).dropped_unwanted, 2);
    expect_text(sub, "b one");
    expect_text(sub, "ab stays");
    expect_text(sub, "b two");
    send_text(pub, "b last");
    wait_counter(sub, recv_queue_high, 5);
    expect_fd(sub, SPOKE_OPT_RECV_FD, true);
    cr_assert_eq(unsubscribe(sub, "b"), 0);
    expect_fd(sub, SPOKE_OPT_RECV_FD, false);
    expect_recv_error(sub, SPOKE_EAGAIN);
    finish();
}

/* Also the one for which there was no room, and the connection is read on behind it. */
ON_EVERY_STREAM(sub, unsubscribing_takes_what_is_held_back)
{
    spoke_socket *sub = open_sub("a");
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    cr_assert_eq(subscribe(sub, "b"), 0);
    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_RECV_QUEUE, 2), 0);
    set_loss(sub, SPOKE_LOSS_BLOCK);
    watch_pipes(sub);
    listen_on(sub, *t, url);
    join(&p, sub, url, 1);
    raw_send_texts(&p, "a", 10);
    raw_send_texts(&p, "b", 2);
    wait_arrived(sub, 0, 3); /* two in the queue, one held */
    cr_assert_eq(unsubscribe(sub, "a"), 0);
    expect_text(sub, "b");
    expect_text(sub, "b");
    expect_recv_error(sub, SPOKE_EAGAIN);
    cr_assert_eq(stats_of(sub).dropped_unwanted, 10);
    cr_assert_eq(pipe_stats_of(sub, 0).dropped_unwanted, 10);
    raw_close(&p);
    finish();
}

ON_EVERY_TRANSPORT(sub, subscriptions_change_while_messages_flow)
{
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_sub("keep");
    char text[32];

    connect_sockets(pub, sub, *t);
    for (int i = 0; i < 500; i++) {
        snprintf(text, sizeof text, "topic %d", i);
        cr_assert_eq(subscribe(sub, text), 0);
        send_text(pub, text);
        send_text(pub, "keep");
        expect_text(sub, text);
        expect_text(sub, "keep");
        cr_assert_eq(unsubscribe(sub, text), 0);
    }
    finish();
}

/* ---- many ---- */

static int
topic_text(char text[32], uint32_t i)
{
    return snprintf(text, 32, "%08x.%u", i * 2654435761u, i % 10);
}

Test(sub, a_storm_of_subscriptions_leaves_nothing_behind)
{
    enum { COUNT = 20000 };
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_socket(SPOKE_SUB);
    char text[32];

    connect_sockets(pub, sub, INPROC);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < COUNT; i++) {
            topic_text(text, i);
            cr_assert_eq(subscribe(sub, text), 0);
        }
        for (uint32_t i = 0; i < 100; i++) {
            topic_text(text, i * 397); /* some are there, some not */
            send_text(pub, text);
            if (i * 397 < COUNT)
                expect_text(sub, text);
        }
        for (uint32_t i = 0; i < COUNT; i++) {
            topic_text(text, i);
            cr_assert_eq(unsubscribe(sub, text), 0);
        }
        cr_assert_eq(unsubscribe(sub, text), SPOKE_ENOENT);
    }
    finish();
}

Test(sub, a_subscription_without_memory_changes_nothing)
{
    own_engine();
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_sub("weather.london");
    int rc = SPOKE_ENOMEM, failures = 0;

    connect_sockets(pub, sub, INPROC);
    for (; rc != 0; failures++) {
        spk_memory_fail_after((uint64_t)failures + 1);
        rc = subscribe(sub, "weather.lima");
        spk_memory_fail_after(0);
        send_text(pub, "weather.london");
        expect_text(sub, "weather.london");
        send_text(pub, "weather.l");
        send_text(pub, "weather.lima");
        if (rc != 0) {
            cr_assert_eq(rc, SPOKE_ENOMEM);
            expect_recv_error(sub, SPOKE_EAGAIN);
        }
    }
    expect_text(sub, "weather.lima");
    cr_assert_gt(failures, 3);
    finish();
}

/* ---- publishers ---- */

ON_EVERY_TRANSPORT(sub, hears_every_publisher_in_its_order)
{
    enum { PUBS = 3, COUNT = 30 };
    spoke_socket *sub = open_sub(""), *pubs[PUBS];
    char url[ENDPOINT_MAX], text[16];
    int next[PUBS] = {0};

    listen_on(sub, *t, url);
    for (int i = 0; i < PUBS; i++) {
        pubs[i] = open_socket(SPOKE_PUB);
        dial(pubs[i], url);
        wait_pipes(pubs[i], 1);
    }
    wait_pipes(sub, PUBS);
    for (int n = 0; n < COUNT; n++) {
        for (int i = 0; i < PUBS; i++) {
            snprintf(text, sizeof text, "%d %d", i, n);
            send_text(pubs[i], text);
        }
    }
    for (int n = 0; n < PUBS * COUNT; n++) {
        int who, number;
        size_t size = sizeof text - 1;
        cr_assert_eq(spoke_recv_bytes(sub, text, &size, 0), 0);
        text[size] = '\0';
        cr_assert_eq(sscanf(text, "%d %d", &who, &number), 2);
        cr_assert_eq(number, next[who]++);
    }
    finish();
}

/* ---- no room ---- */

/* What nobody wants costs nothing but the reading: the publisher never has to wait. */
ON_EVERY_STREAM(sub, reads_on_what_it_does_not_want)
{
    spoke_socket *sub = open_sub("never");
    static char bytes[60000];
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    set_loss(sub, SPOKE_LOSS_BLOCK);
    listen_on(sub, *t, url);
    join(&p, sub, url, 1);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(raw_send(&p, bytes, sizeof bytes), RAW_OK);
    wait_counter(sub, dropped_unwanted, 1000);
    raw_send_text(&p, "never say never");
    expect_text(sub, "never say never");
    raw_close(&p);
    finish();
}

/* Two publishers: their turns hold nobody up. */
static void
overflow(enum transport t, enum spoke_loss loss)
{
    spoke_socket *sub = open_sub("");
    char url[ENDPOINT_MAX];
    struct raw_peer peers[2];

    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_RECV_QUEUE, 3), 0);
    set_loss(sub, loss);
    watch_pipes(sub);
    listen_on(sub, t, url);
    join(&peers[0], sub, url, 1);
    join(&peers[1], sub, url, 2);
    raw_send_texts(&peers[0], "old", 3);
    wait_counter(sub, recv_queue_high, 3);
    raw_send_texts(&peers[1], "new", 7);
    wait_counter(sub, dropped_recv_full, 7);
    for (int i = 0; i < 3; i++)
        expect_text(sub, loss == SPOKE_LOSS_NEWEST ? "old" : "new");
    expect_recv_error(sub, SPOKE_EAGAIN);
    cr_assert_eq(pipe_stats_of(sub, 0).dropped_recv_full, loss == SPOKE_LOSS_NEWEST ? 0 : 3);
    cr_assert_eq(pipe_stats_of(sub, 1).dropped_recv_full, loss == SPOKE_LOSS_NEWEST ? 7 : 4);
    raw_send_text(&peers[0], "room again");
    expect_text(sub, "room again");
    raw_close(&peers[0]);
    raw_close(&peers[1]);
    finish();
}

ON_EVERY_STREAM(sub, drops_the_newest_when_it_is_full)
{
    overflow(*t, SPOKE_LOSS_NEWEST);
}

ON_EVERY_STREAM(sub, drops_the_oldest_when_it_is_full_and_told_so)
{
    overflow(*t, SPOKE_LOSS_OLDEST);
}

ON_EVERY_STREAM(sub, reads_no_further_when_it_is_full_and_told_so)
{
    spoke_socket *sub = open_sub("");
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_RECV_QUEUE, 3), 0);
    set_loss(sub, SPOKE_LOSS_BLOCK);
    watch_pipes(sub);
    listen_on(sub, *t, url);
    join(&p, sub, url, 1);
    raw_send_texts(&p, "all", 100);
    wait_arrived(sub, 0, 4);
    cr_assert_eq(pipe_stats_of(sub, 0).messages_received, 4);
    for (int i = 0; i < 100; i++)
        expect_text(sub, "all");
    expect_recv_error(sub, SPOKE_EAGAIN);
    cr_assert_eq(stats_of(sub).dropped_recv_full, 0);
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(sub, without_a_queue_it_holds_one_message)
{
    spoke_socket *sub = open_sub("");
    char url[ENDPOINT_MAX];
    struct raw_peer peers[2];

    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_RECV_QUEUE, 0), 0);
    watch_pipes(sub);
    listen_on(sub, *t, url);
    join(&peers[0], sub, url, 1);
    join(&peers[1], sub, url, 2);
    raw_send_text(&peers[0], "first");
    wait_arrived(sub, 0, 1);
    raw_send_texts(&peers[1], "more", 3);
    wait_counter(sub, dropped_recv_full, 3);
    expect_text(sub, "first");
    expect_recv_error(sub, SPOKE_EAGAIN);
    raw_send_text(&peers[1], "next");
    expect_text(sub, "next");
    raw_close(&peers[0]);
    raw_close(&peers[1]);
    finish();
}

ON_EVERY_STREAM(sub, without_a_queue_it_reads_on_behind_what_it_wants_no_longer)
{
    spoke_socket *sub = open_sub("a");
    char url[ENDPOINT_MAX];
    struct raw_peer p;

    cr_assert_eq(subscribe(sub, "b"), 0);
    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_RECV_QUEUE, 0), 0);
    watch_pipes(sub);
    listen_on(sub, *t, url);
    join(&p, sub, url, 1);
    raw_send_text(&p, "a");
    wait_arrived(sub, 0, 1);
    expect_fd(sub, SPOKE_OPT_RECV_FD, true);
    cr_assert_eq(unsubscribe(sub, "a"), 0);
    expect_fd(sub, SPOKE_OPT_RECV_FD, false);
    raw_send_text(&p, "b");
    expect_text(sub, "b");
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(sub, drops_the_oldest_of_the_worst_priority)
{
    spoke_socket *sub = open_sub("");
    char urls[2][ENDPOINT_MAX];
    struct raw_peer peers[2];

    cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_RECV_QUEUE, 4), 0);
    set_loss(sub, SPOKE_LOSS_OLDEST);
    watch_pipes(sub);
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(spoke_socket_set_int(sub, SPOKE_OPT_RECV_PRIORITY, i == 0 ? 9 : 3), 0);
        listen_on(sub, *t, urls[i]);
        join(&peers[i], sub, urls[i], (uint64_t)i + 1);
    }
    raw_send_texts(&peers[0], "low", 4);
    wait_arrived(sub, 0, 4);
    raw_send_texts(&peers[1], "high", 2);
    wait_arrived(sub, 1, 2);
    raw_send_texts(&peers[0], "last", 1);
    wait_counter(sub, dropped_recv_full, 3);
    expect_text(sub, "high");
    expect_text(sub, "high");
    expect_text(sub, "low");
    expect_text(sub, "last");
    raw_close(&peers[0]);
    raw_close(&peers[1]);
    finish();
}

/* As many of the oldest as it takes for the newest to have room, in bytes. */
ON_EVERY_STREAM(sub, drops_the_oldest_until_there_is_room)
{
    spoke_socket *sub = open_sub("");
    uint8_t large[10000] = {0};
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    spoke_msg *m;

    cr_assert_eq(spoke_socket_set_size(sub, SPOKE_OPT_RECV_QUEUE_BYTES, 12000), 0);
    set_loss(sub, SPOKE_LOSS_OLDEST);
    watch_pipes(sub);
    listen_on(sub, *t, url);
    join(&p, sub, url, 1);
    raw_send_texts(&p, "small", 4);
    for (int i = 0; i < 10; i++)
        cr_assert_eq(raw_send(&p, large, sizeof large), RAW_OK);
    wait_arrived(sub, 0, 14); /* nothing holds the publisher up */
    for (int i = 0; i < 2; i++) {
        cr_assert_eq(spoke_recv(sub, &m, 0), 0);
        cr_assert_eq(spoke_msg_size(m), sizeof large);
        spoke_msg_free(m);
    }
    expect_recv_error(sub, SPOKE_EAGAIN);
    raw_close(&p);
    finish();
}

/* ---- callbacks ---- */

static void
close_socket(spoke_socket *s, spoke_msg *m, void *ctx)
{
    *(volatile bool *)ctx = true;
    spoke_msg_free(m);
    (void)unsubscribe(s, "");
    (void)spoke_socket_close(s);
}

ON_EVERY_TRANSPORT(sub, may_be_closed_by_what_it_hears)
{
    own_engine();
    spoke_socket *pub = open_socket(SPOKE_PUB), *sub = open_sub("");
    volatile bool heard = false;

    connect_sockets(pub, sub, *t);
    cr_assert_eq(spoke_socket_on_message(sub, close_socket, (void *)&heard), 0);
    for (int i = 0; i < 10; i++)
        send_text(pub, "the end");
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && !heard; i++)
        sleep_ms(1);
    cr_assert(heard);
    wait_pipes(pub, 0);
    send_text(pub, "nobody");
    finish();
}
