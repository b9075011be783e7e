/* SPDX-License-Identifier: MIT */
/* Devices: what goes together, that everything comes through once and nothing else does, and that
 * it ends well. */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/protocols/fixture.h"

#include "tests/support/world.h"

static spoke_device *
start(spoke_socket *a, spoke_socket *b)
{
    spoke_device *d;
    int rc = spoke_device_start(&d, a, b);

    cr_assert_eq(rc, 0, "%s", spoke_strerror(rc));
    return d;
}

static struct spoke_device_stats
stop(spoke_device *d)
{
    struct spoke_device_stats stats;
    int rc = spoke_device_stop(d, &stats);

    cr_assert_eq(rc, 0, "%s", spoke_strerror(rc));
    return stats;
}

/* Goal: it passes on so many, and no more.  A star passes on by itself: its device may see a
 * message after its peers do. */
static void
stop_after(spoke_device *d, uint64_t messages)
{
    struct spoke_device_stats stats;

    for (int i = 0; i < 5000; i++) {
        cr_assert_eq(spoke_device_get_stats(d, &stats), 0);
        if (stats.there.messages >= messages)
            break;
        sleep_ms(1);
    }
    sleep_ms(20);
    cr_assert_eq(stop(d).there.messages, messages);
}

/* Two sockets in a device, both listening. */
struct relay {
    spoke_socket *a, *b;
    spoke_device *d;
    char url_a[ENDPOINT_MAX], url_b[ENDPOINT_MAX];
};

static void
open_relay(struct relay *r, enum transport t, int pattern_a, int pattern_b)
{
    r->a = open_socket(pattern_a);
    r->b = open_socket(pattern_b);
    listen_on(r->a, t, r->url_a);
    r->d = NULL;
    /* One is raw before it listens, the other is made so. */
    cr_assert_eq(spoke_device_start(&r->d, r->a, r->b), SPOKE_ETOOLATE);
    cr_assert_eq(spoke_socket_close(r->a), 0);
    r->a = open_raw(pattern_a);
    listen_on(r->a, t, r->url_a);
    r->d = start(r->a, r->b);
    listen_on(r->b, t, r->url_b);
}

/* Both sides know of it then: a BUS or a STAR says nothing to whom it does not know yet. */
static spoke_socket *
join_relay(int pattern, spoke_socket *relay, const char *url)
{
    uint64_t pipes = stats_of(relay).pipes_current;
    spoke_socket *s = open_socket(pattern);

    dial(s, url);
    wait_pipes(s, 1);
    wait_pipes(relay, pipes + 1);
    return s;
}

/* ---- what goes together ---- */

static bool
goes_together(int a, int b)
{
    return a == b ? a != SPOKE_REQ && a != SPOKE_REP
                  : (a == SPOKE_REQ && b == SPOKE_REP) || (a == SPOKE_REP && b == SPOKE_REQ);
}

Test(device, takes_the_pairs_that_go_together_and_refuses_the_others)
{
    static const int patterns[] = {SPOKE_PAIR, SPOKE_PAIR1, SPOKE_REQ,
                                   SPOKE_REP,  SPOKE_BUS,   SPOKE_STAR};
    enum { COUNT = sizeof patterns / sizeof *patterns };

    for (int i = 0; i < COUNT; i++) {
        for (int j = 0; j < COUNT; j++) {
            spoke_socket *a, *b;
            spoke_device *d = (spoke_device *)&d;
            bool raw;

            cr_assert_eq(spoke_socket_open(&a, patterns[i], NULL), 0);
            cr_assert_eq(spoke_socket_open(&b, patterns[j], NULL), 0);
            bool fits = goes_together(patterns[i], patterns[j]);
            int rc = spoke_device_start(&d, a, b);
            cr_assert_eq(rc, fits ? 0 : SPOKE_ENOTSUP, "%d and %d: %s", patterns[i], patterns[j],
                         spoke_error_name(rc));
            cr_assert_eq(d == NULL, !fits);
            cr_assert_eq(spoke_socket_get_bool(b, SPOKE_OPT_RAW, &raw), 0);
            cr_assert_eq(raw, fits, "nothing changes if it is refused");
            if (fits)
                (void)stop(d);
            /* Alone, in both ways to say so. */
            fits = goes_together(patterns[i], patterns[i]);
            rc = spoke_device_start(&d, a, j % 2 == 0 ? NULL : a);
            cr_assert_eq(rc, fits ? 0 : SPOKE_ENOTSUP, "%d alone", patterns[i]);
            if (fits)
                (void)stop(d);
            cr_assert_eq(spoke_device_start(&d, NULL, a), rc);
            if (fits)
                (void)stop(d);
            cr_assert_eq(spoke_socket_close(a), 0);
            cr_assert_eq(spoke_socket_close(b), 0);
        }
    }
    finish();
}

static void
ignore_message(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)s;
    (void)ctx;
    spoke_msg_free(m);
}

Test(device, says_what_is_wrong_with_a_socket)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR),
                 *c = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    struct spoke_device_stats stats;
    spoke_device *d, *other;

    cr_assert_eq(spoke_device_start(NULL, a, b), SPOKE_EINVAL);
    cr_assert_eq(spoke_device_start(&d, NULL, NULL), SPOKE_ECLOSED);
    cr_assert_null(d);
    cr_assert_eq(spoke_socket_on_message(b, ignore_message, NULL), 0);
    cr_assert_eq(spoke_device_start(&d, a, b), SPOKE_EBUSY);
    cr_assert_eq(spoke_socket_on_message(b, NULL, NULL), 0);
    listen_on(b, INPROC, url);
    cr_assert_eq(spoke_device_start(&d, a, b), SPOKE_ETOOLATE);
    d = start(a, c);
    cr_assert_eq(spoke_device_start(&other, a, NULL), SPOKE_EBUSY);
    cr_assert_eq(spoke_device_start(&other, b, c), SPOKE_ETOOLATE);
    cr_assert_null(other);
    cr_assert_eq(spoke_device_get_stats(d, NULL), SPOKE_EINVAL);
    cr_assert_eq(spoke_socket_set_bool(a, SPOKE_OPT_RAW, false), SPOKE_ETOOLATE);
    (void)stop(d);
    cr_assert_eq(spoke_device_stop(d, &stats), SPOKE_ECLOSED);
    cr_assert_eq(spoke_device_get_stats(d, &stats), SPOKE_ECLOSED);
    cr_assert_eq(spoke_device_stop(NULL, NULL), SPOKE_ECLOSED);
    cr_assert_eq(spoke_socket_close(c), 0);
    cr_assert_eq(spoke_device_start(&d, a, c), SPOKE_ECLOSED);
    cr_assert_eq(spoke_device_start(&d, c, a), SPOKE_ECLOSED);
    finish();
}

Test(device, keeps_its_sockets_from_being_received_from)
{
    spoke_socket *a = open_socket(SPOKE_PAIR), *b = open_socket(SPOKE_PAIR);
    struct waiting_call call;

    start_call(&call, a, NULL);
    await_receivers(a, 1);
    spoke_device *d = start(a, b);
    cr_assert_eq(end_call(&call), SPOKE_ESTATE);
    expect_recv_error(a, SPOKE_ESTATE);
    expect_recv_error(b, SPOKE_ESTATE);
    cr_assert_eq(spoke_socket_on_message(a, ignore_message, NULL), SPOKE_ESTATE);
    (void)stop(d);
    expect_recv_error(a, SPOKE_EAGAIN);
    cr_assert_eq(spoke_socket_on_message(a, ignore_message, NULL), 0);
    finish();
}

/* ---- requests and replies ---- */

ON_EVERY_TRANSPORT(device, passes_requests_one_way_and_replies_back)
{
    for (int swapped = 0; swapped < 2; swapped++) {
        struct relay r;

        open_relay(&r, *t, swapped ? SPOKE_REQ : SPOKE_REP, swapped ? SPOKE_REP : SPOKE_REQ);
        spoke_socket *client = swapped ? join_relay(SPOKE_REQ, r.b, r.url_b)
                                       : join_relay(SPOKE_REQ, r.a, r.url_a);
        spoke_socket *server = swapped ? join_relay(SPOKE_REP, r.a, r.url_a)
                                       : join_relay(SPOKE_REP, r.b, r.url_b);
        for (int i = 0; i < 100; i++) {
            send_text(client, "question");
            expect_text(server, "question");
            send_text(server, "the answer");
            expect_text(client, "the answer");
        }
        struct spoke_device_stats stats = stop(r.d);
        struct spoke_device_way *requests = swapped ? &stats.back : &stats.there,
                                *replies = swapped ? &stats.there : &stats.back;
        cr_assert_eq(requests->messages, 100);
        cr_assert_eq(requests->bytes, 800);
        cr_assert_eq(replies->messages, 100);
        cr_assert_eq(replies->bytes, 1000);
        cr_assert_eq(requests->dropped + replies->dropped, 0);
    }
    finish();
}

/* Goal: under load each request comes through three devices once, and so does its reply.  Method:
 * several clients at once, each with numbered requests that are never sent again; a server that
 * ticks off what it has seen. */
enum { CLIENTS = 4 };

struct client {
    pthread_t thread;
    spoke_socket *s;
    uint32_t index, requests;
    int rc;
};

static void *
run_client(void *ctx)
{
    struct client *c = ctx;

    for (uint32_t i = 0; i < c->requests && c->rc == 0; i++) {
        uint32_t number = c->index * c->requests + i, reply = 0;
        size_t size = sizeof reply;

        if ((c->rc = spoke_send_bytes(c->s, &number, sizeof number, 0)) == 0 &&
            (c->rc = spoke_recv_bytes(c->s, &reply, &size, 0)) == 0 &&
            (size != sizeof reply || reply != number))
            c->rc = SPOKE_EPROTO;
    }
    return NULL;
}

ON_EVERY_TRANSPORT(device, passes_each_of_many_requests_once_through_a_chain_of_three)
{
    enum { DEVICES = 3, REQUESTS = 10000 / CLIENTS };
    static bool seen[CLIENTS * REQUESTS];
    struct client clients[CLIENTS];
    struct relay r[DEVICES];
    spoke_socket *server = open_socket(SPOKE_REP);
    char url[ENDPOINT_MAX];

    for (int i = 0; i < DEVICES; i++) {
        open_relay(&r[i], *t, SPOKE_REP, SPOKE_REQ);
        if (i > 0)
            connect_sockets(r[i].a, r[i - 1].b, *t);
    }
    listen_on(server, *t, url);
    dial(r[DEVICES - 1].b, url);
    wait_pipes(server, 1);
    for (uint32_t i = 0; i < CLIENTS; i++) {
        clients[i] = (struct client){
            .s = join_relay(SPOKE_REQ, r[0].a, r[0].url_a), .index = i, .requests = REQUESTS};
        cr_assert_eq(spoke_socket_set_duration(clients[i].s, SPOKE_OPT_RETRY_TIME, 0), 0);
        cr_assert_eq(pthread_create(&clients[i].thread, NULL, run_client, &clients[i]), 0);
    }
    for (int i = 0; i < CLIENTS * REQUESTS; i++) {
        spoke_msg *m = recv_message(server);
        uint32_t number;

        cr_assert_eq(spoke_msg_size(m), sizeof number);
        memcpy(&number, spoke_msg_body(m), sizeof number);
        cr_assert_lt(number, CLIENTS * REQUESTS);
        cr_assert_not(seen[number], "request %u came twice", number);
        seen[number] = true;
        cr_assert_eq(spoke_send(server, m, 0), 0);
    }
    for (int i = 0; i < CLIENTS; i++) {
        pthread_join(clients[i].thread, NULL);
        cr_assert_eq(clients[i].rc, 0, "client %d: %s", i, spoke_strerror(clients[i].rc));
    }
    expect_recv_error(server, SPOKE_EAGAIN);
    for (int i = 0; i < DEVICES; i++) {
        struct spoke_device_stats stats = stop(r[i].d);

        cr_assert_eq(stats.there.messages, CLIENTS * REQUESTS);
        cr_assert_eq(stats.back.messages, CLIENTS * REQUESTS);
    }
    finish();
}

/* Goal: what a server behind a device says wrongly harms nobody else. */
ON_EVERY_STREAM(device, goes_on_after_replies_to_nobody)
{
    struct relay r;
    struct raw_peer server;
    uint32_t words[2] = {0x01234567, 0x80000001};
    uint8_t bytes[64];

    open_relay(&r, *t, SPOKE_REP, SPOKE_REQ);
    spoke_socket *client = join_relay(SPOKE_REQ, r.a, r.url_a);
    join(&server, r.b, r.url_b, 1);
    cr_assert_eq(raw_send_words(&server, words, 2, "no such pipe"), RAW_OK);
    words[0] = 0x80000001; /* the id alone: the first word is no pipe */
    cr_assert_eq(raw_send_words(&server, words, 1, "nobody"), RAW_OK);
    wait_counter(r.a, dropped_no_peer, 2);
    cr_assert_eq(raw_send(&server, "\0\0\0", 3), RAW_OK); /* malformed: this connection ends */
    cr_assert_eq(raw_wait_eof(&server, RAW_LIMIT_MS), RAW_OK);
    raw_close(&server);
    wait_pipes(r.b, 0);
    join(&server, r.b, r.url_b, 1);
    send_text(client, "still there?");
    cr_assert_eq(raw_recv(&server, bytes, sizeof bytes, RAW_LIMIT_MS), 8 + 12);
    cr_assert_eq(raw_send(&server, bytes, 8 + 12), RAW_OK);
    expect_text(client, "still there?");
    raw_close(&server);
    finish();
}

ON_EVERY_TRANSPORT(device, gives_requests_that_waited_to_the_first_server_that_comes)
{
    enum { COUNT = 20 };
    struct relay r;
    spoke_socket *client[COUNT];
    int answered = 0;

    open_relay(&r, *t, SPOKE_REP, SPOKE_REQ);
    for (int i = 0; i < COUNT; i++) {
        client[i] = join_relay(SPOKE_REQ, r.a, r.url_a);
        send_text(client[i], "early");
    }
    spoke_socket *server = join_relay(SPOKE_REP, r.b, r.url_b);
    for (; answered < COUNT; answered++) {
        expect_text(server, "early");
        send_text(server, "late");
    }
    for (int i = 0; i < COUNT; i++)
        expect_text(client[i], "late");
    finish();
}

/* ---- hops ---- */

/* A chain of two devices: three links. */
static void
open_chain(struct relay r[2], enum transport t, int pattern_a, int pattern_b)
{
    open_relay(&r[0], t, pattern_a, pattern_b);
    open_relay(&r[1], t, pattern_a, pattern_b);
    connect_sockets(r[1].a, r[0].b, t);
}

ON_EVERY_TRANSPORT(device, adds_a_hop_that_counts_against_the_ttl_of_requests)
{
    struct relay r[2];

    open_chain(r, *t, SPOKE_REP, SPOKE_REQ);
    spoke_socket *client = join_relay(SPOKE_REQ, r[0].a, r[0].url_a);
    spoke_socket *server = join_relay(SPOKE_REP, r[1].b, r[1].url_b);
    send_text(client, "by default");
    expect_text(server, "by default");
    send_text(server, "yes");
    expect_text(client, "yes");
    cr_assert_eq(spoke_socket_set_int(server, SPOKE_OPT_TTL, 2), 0);
    send_text(client, "too far");
    wait_counter(server, dropped_ttl, 1);
    cr_assert_eq(spoke_socket_set_int(server, SPOKE_OPT_TTL, 3), 0);
    send_text(client, "just");
    expect_text(server, "just");
    finish();
}

static void
check_ttl_of(int pattern, enum transport t)
{
    struct relay r[2];

    open_chain(r, t, pattern, pattern);
    spoke_socket *from = join_relay(pattern, r[0].a, r[0].url_a),
                 *to = join_relay(pattern, r[1].b, r[1].url_b);
    send_text(from, "by default");
    expect_text(to, "by default");
    cr_assert_eq(spoke_socket_set_int(to, SPOKE_OPT_TTL, 2), 0);
    send_text(from, "too far");
    wait_counter(to, dropped_ttl, 1);
    cr_assert_eq(spoke_socket_set_int(to, SPOKE_OPT_TTL, 3), 0);
    send_text(from, "just");
    expect_text(to, "just");
    expect_recv_error(from, SPOKE_EAGAIN);
    finish();
}

ON_EVERY_TRANSPORT(device, adds_a_hop_that_counts_against_the_ttl_of_star)
{
    check_ttl_of(SPOKE_STAR, *t);
}

ON_EVERY_TRANSPORT(device, adds_a_hop_that_counts_against_the_ttl_of_pair1)
{
    check_ttl_of(SPOKE_PAIR1, *t);
}

/* Two devices, each of which has the other for its server. */
ON_EVERY_TRANSPORT(device, ends_the_rounds_of_a_request_in_a_ring)
{
    struct relay r[2];
    spoke_socket *client;

    open_chain(r, *t, SPOKE_REP, SPOKE_REQ);
    client = join_relay(SPOKE_REQ, r[0].a, r[0].url_a);
    dial(r[1].b, r[0].url_a);
    wait_pipes(r[0].a, 2);
    wait_pipes(r[1].b, 1);
    cr_assert_eq(spoke_socket_set_duration(client, SPOKE_OPT_RETRY_TIME, 0), 0);
    for (int i = 0; i < 10; i++) {
        uint64_t before = stats_of(r[0].a).dropped_ttl;

        send_text(client, "round and round");
        wait_counter(r[0].a, dropped_ttl, before + 1); /* 8 words, and it is its turn again */
    }
    cr_assert_eq(stats_of(r[1].a).dropped_ttl, 0);
    struct spoke_device_stats first = stop(r[0].d), second = stop(r[1].d);
    cr_assert_eq(first.there.messages, 40);
    cr_assert_eq(second.there.messages, 40);
    finish();
}

ON_EVERY_TRANSPORT(device, ends_the_rounds_of_star_messages_in_a_ring)
{
    struct relay r[2];
    uint64_t now = 0, before;

    open_chain(r, *t, SPOKE_STAR, SPOKE_STAR);
    spoke_socket *from = join_relay(SPOKE_STAR, r[0].a, r[0].url_a);
    dial(r[1].b, r[0].url_a);
    wait_pipes(r[0].a, 2);
    wait_pipes(r[1].b, 1);
    for (int i = 0; i < 10; i++)
        send_text(from, "round and round");
    for (int quiet = 0; quiet < 50; quiet++) {
        settle();
        before = now;
        now = stats_of(r[0].a).messages_received + stats_of(r[0].b).messages_received +
              stats_of(r[1].a).messages_received + stats_of(r[1].b).messages_received;
        quiet = now != before ? 0 : quiet;
    }
    cr_assert_gt(stats_of(r[0].a).dropped_ttl + stats_of(r[0].b).dropped_ttl +
                     stats_of(r[1].a).dropped_ttl + stats_of(r[1].b).dropped_ttl,
                 0);
    cr_assert_leq(now, 10 * 2 * 8);
    finish();
}

ON_EVERY_STREAM(device, drops_a_pair1_message_that_can_count_no_further)
{
    struct relay r;
    struct raw_peer p;
    uint32_t word = 255;

    open_relay(&r, *t, SPOKE_PAIR1, SPOKE_PAIR1);
    cr_assert_eq(spoke_socket_set_int(r.a, SPOKE_OPT_TTL, 255), 0);
    join(&p, r.a, r.url_a, 1);
    spoke_socket *to = join_relay(SPOKE_PAIR1, r.b, r.url_b);
    cr_assert_eq(spoke_socket_set_int(to, SPOKE_OPT_TTL, 255), 0);
    cr_assert_eq(raw_send_words(&p, &word, 1, "255"), RAW_OK);
    word = 254;
    cr_assert_eq(raw_send_words(&p, &word, 1, "254"), RAW_OK);
    expect_text(to, "254");
    struct spoke_device_stats stats = stop(r.d);
    cr_assert_eq(stats.there.dropped, 1);
    cr_assert_eq(stats.there.messages, 1);
    raw_close(&p);
    finish();
}

/* ---- both ways ---- */

static void
check_both_ways(int pattern, enum transport t)
{
    struct relay r;
    char text[32];

    open_relay(&r, t, pattern, pattern);
    spoke_socket *a = join_relay(pattern, r.a, r.url_a), *b = join_relay(pattern, r.b, r.url_b);
    for (int i = 0; i < 100; i++) {
        snprintf(text, sizeof text, "to b %d", i);
        send_text(a, text);
        expect_text(b, text);
        snprintf(text, sizeof text, "to a %d", i);
        send_text(b, text);
        expect_text(a, text);
    }
    expect_recv_error(a, SPOKE_EAGAIN);
    expect_recv_error(b, SPOKE_EAGAIN);
    struct spoke_device_stats stats = stop(r.d);
    cr_assert_eq(stats.there.messages, 100);
    cr_assert_eq(stats.back.messages, 100);
    finish();
}

ON_EVERY_TRANSPORT(device, passes_pair_both_ways)
{
    check_both_ways(SPOKE_PAIR, *t);
}

ON_EVERY_TRANSPORT(device, passes_pair1_both_ways)
{
    check_both_ways(SPOKE_PAIR1, *t);
}

ON_EVERY_TRANSPORT(device, passes_bus_both_ways)
{
    check_both_ways(SPOKE_BUS, *t);
}

ON_EVERY_TRANSPORT(device, passes_star_both_ways)
{
    check_both_ways(SPOKE_STAR, *t);
}

/* ---- one socket ---- */

ON_EVERY_TRANSPORT(device, on_one_pair_is_an_echo)
{
    spoke_socket *echo = open_socket(SPOKE_PAIR), *s = open_socket(SPOKE_PAIR);
    spoke_device *d = start(echo, NULL);
    char text[16];

    connect_sockets(echo, s, *t);
    for (int i = 0; i < 50; i++) {
        snprintf(text, sizeof text, "%d", i);
        send_text(s, text);
    }
    for (int i = 0; i < 50; i++) {
        snprintf(text, sizeof text, "%d", i);
        expect_text(s, text);
    }
    struct spoke_device_stats stats = stop(d);
    cr_assert_eq(stats.there.messages, 50);
    cr_assert_eq(stats.back.messages, 0);
    finish();
}

/* Goal: each gets each message of the others once, and none of its own. */
static void
check_hub(int pattern, enum transport t)
{
    enum { LEAVES = 4, ROUNDS = 25 };
    spoke_socket *hub = open_socket(pattern), *leaf[LEAVES];
    spoke_device *d = start(hub, hub);
    char url[ENDPOINT_MAX], text[16];

    listen_on(hub, t, url);
    for (int i = 0; i < LEAVES; i++)
        leaf[i] = join_relay(pattern, hub, url);
    for (int k = 0; k < ROUNDS; k++) {
        for (int i = 0; i < LEAVES; i++) {
            snprintf(text, sizeof text, "%d %d", i, k);
            send_text(leaf[i], text);
            for (int j = 0; j < LEAVES; j++)
                if (j != i)
                    expect_text(leaf[j], text);
        }
    }
    sleep_ms(20);
    for (int i = 0; i < LEAVES; i++)
        expect_recv_error(leaf[i], SPOKE_EAGAIN);
    stop_after(d, LEAVES * ROUNDS);
    finish();
}

ON_EVERY_TRANSPORT(device, on_one_bus_is_a_hub)
{
    check_hub(SPOKE_BUS, *t);
}

ON_EVERY_TRANSPORT(device, on_one_star_repeats_nothing)
{
    check_hub(SPOKE_STAR, *t);
}

/* Two hubs with a device in between are one. */
static void
check_bridge(int pattern, enum transport t)
{
    struct relay r;
    spoke_socket *s[4];

    open_relay(&r, t, pattern, pattern);
    for (int i = 0; i < 4; i++)
        s[i] = i < 2 ? join_relay(pattern, r.a, r.url_a) : join_relay(pattern, r.b, r.url_b);
    send_text(s[0], "from the left");
    expect_text(s[2], "from the left");
    expect_text(s[3], "from the left");
    if (pattern == SPOKE_STAR) /* which passes on by itself on its own side */
        expect_text(s[1], "from the left");
    sleep_ms(20);
    for (int i = 0; i < 4; i++)
        expect_recv_error(s[i], SPOKE_EAGAIN);
    finish();
}

ON_EVERY_TRANSPORT(device, bridges_two_buses)
{
    check_bridge(SPOKE_BUS, *t);
}

ON_EVERY_TRANSPORT(device, bridges_two_stars)
{
    check_bridge(SPOKE_STAR, *t);
}

/* ---- by reference ---- */

static void
note_done(void *data, size_t size, void *ctx)
{
    (void)data;
    (void)size;
    atomic_store((atomic_bool *)ctx, true);
}

/* Goal: no body is copied.  Method: it is memory of the test's, and that very memory arrives. */
static void
check_reference(int pattern_a, int pattern_b, int from_pattern, int to_pattern)
{
    static char body[100000];
    struct relay r;
    atomic_bool done = false;
    spoke_msg *m;

    open_relay(&r, INPROC, pattern_a, pattern_b);
    spoke_socket *from = join_relay(from_pattern, r.a, r.url_a);
    spoke_socket *to = join_relay(to_pattern, r.b, r.url_b);
    cr_assert_eq(spoke_msg_wrap(&m, body, sizeof body, note_done, &done), 0);
    cr_assert_eq(spoke_send(from, m, 0), 0);
    m = recv_message(to);
    cr_assert_eq(spoke_msg_body(m), body);
    cr_assert_eq(spoke_msg_size(m), sizeof body);
    cr_assert_not(done);
    spoke_msg_free(m);
    finish();
    cr_assert(done);
}

Test(device, passes_bodies_of_requests_by_reference)
{
    check_reference(SPOKE_REP, SPOKE_REQ, SPOKE_REQ, SPOKE_REP);
}

Test(device, passes_bodies_of_all_others_by_reference)
{
    check_reference(SPOKE_PAIR, SPOKE_PAIR, SPOKE_PAIR, SPOKE_PAIR);
    check_reference(SPOKE_PAIR1, SPOKE_PAIR1, SPOKE_PAIR1, SPOKE_PAIR1);
    check_reference(SPOKE_BUS, SPOKE_BUS, SPOKE_BUS, SPOKE_BUS);
    check_reference(SPOKE_STAR, SPOKE_STAR, SPOKE_STAR, SPOKE_STAR);
}

/* ---- back-pressure ---- */

/* Send numbered messages until for a while there is no room; returns how many were taken. */
static uint32_t
fill(spoke_socket *s, size_t size, uint32_t most)
{
    uint32_t sent = 0;

    for (int quiet = 0; quiet < 100 && sent < most; quiet++) {
        spoke_msg *m = pattern_message(size, sent);

        if (spoke_send(s, m, SPOKE_DONTWAIT) == 0) {
            sent++;
            quiet = 0;
            continue;
        }
        spoke_msg_free(m);
        settle();
    }
    return sent;
}

static void
empty(spoke_socket *s, size_t size, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        spoke_msg *m = recv_message(s);

        cr_assert_eq(spoke_msg_size(m), size);
        cr_assert(pattern_holds(spoke_msg_body(m), size, i), "message %u", i);
        spoke_msg_free(m);
    }
    expect_recv_error(s, SPOKE_EAGAIN);
}

/* Goal: a receiver that does not receive holds up its sender, in both directions at once, and loses
 * nothing. */
ON_EVERY_TRANSPORT(device, holds_up_the_sender_when_the_receiver_is_slow)
{
    enum { SIZE = 20000, MOST = 20000 };
    struct relay r;
    struct spoke_device_stats stats;

    open_relay(&r, *t, SPOKE_PAIR, SPOKE_PAIR);
    spoke_socket *a = join_relay(SPOKE_PAIR, r.a, r.url_a),
                 *b = join_relay(SPOKE_PAIR, r.b, r.url_b);
    uint32_t there = fill(a, SIZE, MOST), back = fill(b, SIZE, MOST);
    cr_assert_lt(there, MOST, "it is bounded");
    cr_assert_lt(back, MOST);
    cr_assert_eq(spoke_device_get_stats(r.d, &stats), 0);
    cr_assert_lt(stats.there.messages, there);
    cr_assert_gt(stats.there.messages, 0);
    empty(b, SIZE, there);
    empty(a, SIZE, back);
    stats = stop(r.d);
    cr_assert_eq(stats.there.messages, there);
    cr_assert_eq(stats.back.messages, back);
    cr_assert_eq(stats.there.dropped + stats.back.dropped, 0);
    finish();
}

/* Goal: nobody spins on a descriptor whose messages he cannot have.  Method: the other side is
 * slow, so that messages wait at the device. */
ON_EVERY_TRANSPORT(device, keeps_what_waits_from_the_descriptor)
{
    enum { SIZE = 20000, MOST = 20000 };
    struct relay r;
    spoke_msg *m;

    open_relay(&r, *t, SPOKE_PAIR, SPOKE_PAIR);
    spoke_socket *a = join_relay(SPOKE_PAIR, r.a, r.url_a),
                 *b = join_relay(SPOKE_PAIR, r.b, r.url_b);
    expect_fd(r.a, SPOKE_OPT_RECV_FD, false);
    (void)fill(a, SIZE, MOST);
    expect_fd(r.a, SPOKE_OPT_RECV_FD, false);
    cr_assert_eq(spoke_recv(r.a, &m, SPOKE_DONTWAIT), SPOKE_ESTATE);
    (void)stop(r.d);
    expect_fd(r.a, SPOKE_OPT_RECV_FD, true);
    r.d = start(r.a, r.b);
    expect_fd(r.a, SPOKE_OPT_RECV_FD, false);
    (void)b;
    finish();
}

/* ---- the end ---- */

ON_EVERY_TRANSPORT(device, gives_the_sockets_back_when_it_stops)
{
    struct relay r;

    open_relay(&r, *t, SPOKE_PAIR, SPOKE_PAIR);
    spoke_socket *a = join_relay(SPOKE_PAIR, r.a, r.url_a),
                 *b = join_relay(SPOKE_PAIR, r.b, r.url_b);
    for (int i = 0; i < 10; i++) {
        send_text(a, "through");
        expect_text(b, "through");
        expect_fd(r.a, SPOKE_OPT_RECV_FD, false);
        (void)stop(r.d);
        send_text(a, "not through");
        expect_text(r.a, "not through");
        expect_recv_error(b, SPOKE_EAGAIN);
        send_text(a, "waits");
        expect_fd(r.a, SPOKE_OPT_RECV_FD, true);
        r.d = start(r.b, r.a); /* what waits goes through now */
        expect_text(b, "waits");
    }
    finish();
}

ON_EVERY_TRANSPORT(device, ends_when_a_socket_closes_and_leaves_the_other_alone)
{
    for (int which = 0; which < 2; which++) {
        struct spoke_device_stats stats;
        struct relay r;

        open_relay(&r, *t, SPOKE_PAIR, SPOKE_PAIR);
        spoke_socket *a = join_relay(SPOKE_PAIR, r.a, r.url_a),
                     *b = join_relay(SPOKE_PAIR, r.b, r.url_b);
        send_text(a, "through");
        expect_text(b, "through");
        cr_assert_eq(spoke_socket_close(which == 0 ? r.a : r.b), 0);
        cr_assert_eq(spoke_device_get_stats(r.d, &stats), SPOKE_ECLOSED);
        cr_assert_eq(spoke_device_stop(r.d, NULL), SPOKE_ECLOSED);
        send_text(which == 0 ? b : a, "now yours");
        expect_text(which == 0 ? r.b : r.a, "now yours");
        r.d = start(which == 0 ? r.b : r.a, NULL);
        send_text(which == 0 ? b : a, "back");
        expect_text(which == 0 ? b : a, "back");
    }
    finish();
}

static int
stop_on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    _Atomic(spoke_device *) *d = ctx;

    (void)s;
    if (event->type == SPOKE_EVENT_DETACHED)
        (void)spoke_device_stop(atomic_exchange(d, NULL), NULL);
    return 0;
}

Test(device, can_be_stopped_in_a_callback)
{
    spoke_socket *echo = open_socket(SPOKE_PAIR), *s = open_socket(SPOKE_PAIR);
    _Atomic(spoke_device *) d = start(echo, NULL);

    cr_assert_eq(spoke_socket_on_event(echo, stop_on_event, (void *)&d), 0);
    connect_sockets(echo, s, INPROC);
    send_text(s, "hello");
    expect_text(s, "hello");
    cr_assert_eq(spoke_socket_close(s), 0);
    while (atomic_load(&d) != NULL)
        sleep_ms(1);
    while (spoke_device_start((spoke_device **)&d, echo, NULL) == SPOKE_EBUSY)
        sleep_ms(1);
    finish();
}

/* Goal: whatever goes on meanwhile, a device can start and stop, and nothing is lost in between.
 * Method: one thread sends, one receives, this one starts and stops. */
enum { NUMBERS = 20000 };

struct stream {
    spoke_socket *s;
    int rc;
    atomic_bool done;
};

static void *
send_numbers(void *ctx)
{
    struct stream *stream = ctx;

    for (uint32_t i = 0; i < NUMBERS && stream->rc == 0; i++)
        stream->rc = spoke_send_bytes(stream->s, &i, sizeof i, 0);
    return NULL;
}

static void *
receive_numbers(void *ctx)
{
    struct stream *stream = ctx;

    for (uint32_t i = 0, number = 0; i < NUMBERS && stream->rc == 0; i++) {
        size_t size = sizeof number;

        stream->rc = spoke_recv_bytes(stream->s, &number, &size, 0);
        if (stream->rc == 0 && number != i)
            stream->rc = SPOKE_EPROTO;
    }
    atomic_store(&stream->done, true);
    return NULL;
}

ON_EVERY_TRANSPORT(device, loses_nothing_when_it_starts_and_stops_in_the_middle_of_traffic)
{
    struct stream out = {.rc = 0}, in = {.rc = 0};
    pthread_t sender, receiver;
    struct relay r;
    uint64_t passed = 0;

    open_relay(&r, *t, SPOKE_PAIR, SPOKE_PAIR);
    out.s = join_relay(SPOKE_PAIR, r.a, r.url_a);
    in.s = join_relay(SPOKE_PAIR, r.b, r.url_b);
    cr_assert_eq(pthread_create(&sender, NULL, send_numbers, &out), 0);
    cr_assert_eq(pthread_create(&receiver, NULL, receive_numbers, &in), 0);
    while (!atomic_load(&in.done)) {
        struct spoke_device_stats stats = stop(r.d);

        cr_assert_eq(stats.there.dropped, 0);
        passed += stats.there.messages;
        r.d = start(r.a, r.b);
        sched_yield();
    }
    pthread_join(sender, NULL);
    pthread_join(receiver, NULL);
    cr_assert_eq(out.rc, 0, "%s", spoke_strerror(out.rc));
    cr_assert_eq(in.rc, 0, "%s", spoke_strerror(in.rc));
    cr_assert_eq(passed + stop(r.d).there.messages, NUMBERS);
    finish();
}

/* ---- engines ---- */

static spoke_socket *
open_on(spoke_engine *e, int pattern)
{
    spoke_socket *s;

    cr_assert_eq(spoke_socket_open(&s, pattern, e), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 0), 0);
    return s;
}

static spoke_engine *
open_engine(void)
{
    spoke_engine *e;

    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    return e;
}

static void
start_elsewhere(void *ctx)
{
    spoke_socket **sockets = ctx;
    spoke_device *d;

    cr_assert_eq(spoke_device_start(&d, sockets[0], sockets[1]), SPOKE_EWRONGTHREAD);
}

static void *
run_elsewhere(void *ctx)
{
    start_elsewhere(ctx);
    return NULL;
}

Test(device, is_for_who_may_call_both_sockets)
{
    spoke_engine *e = open_engine();
    spoke_socket *mine[2] = {open_on(e, SPOKE_PAIR), open_on(e, SPOKE_PAIR)};
    spoke_socket *mixed[2] = {open_on(NULL, SPOKE_PAIR), mine[0]};
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, run_elsewhere, mine), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(pthread_create(&thread, NULL, run_elsewhere, mixed), 0);
    pthread_join(thread, NULL);
    spoke_device *d = start(mixed[0], mixed[1]);
    cr_assert_eq(spoke_socket_close(mixed[0]), 0);
    cr_assert_eq(spoke_device_stop(d, NULL), SPOKE_ECLOSED);
    cr_assert_eq(spoke_engine_close(e), 0);
    finish();
}

/* Where the two sockets of a device are. */
enum place { ONE_ENGINE, TWO_ENGINES, OWNED_AND_SHARED, SHARED_AND_OWNED, PLACES };

struct engines {
    spoke_engine *e[2]; /* NULL: shared */
};

static struct engines
open_engines(enum place place)
{
    struct engines es = {{NULL, NULL}};

    if (place != SHARED_AND_OWNED)
        es.e[0] = open_engine();
    if (place == ONE_ENGINE)
        es.e[1] = es.e[0];
    else if (place != OWNED_AND_SHARED)
        es.e[1] = open_engine();
    return es;
}

static void
drive(const struct engines *es)
{
    for (int i = 0; i < 2; i++)
        if (es->e[i] != NULL)
            cr_assert_geq(spoke_engine_poll(es->e[i], 0), 0);
    if (es->e[0] == NULL || es->e[1] == NULL)
        sched_yield();
}

static void
close_engines(struct engines *es)
{
    if (es->e[1] != NULL && es->e[1] != es->e[0])
        cr_assert_eq(spoke_engine_close(es->e[1]), 0);
    if (es->e[0] != NULL)
        cr_assert_eq(spoke_engine_close(es->e[0]), 0);
}

struct place_case {
    enum transport transport;
    enum place place;
};

#define IN_EVERY_PLACE(Suite, Name)                                                                \
    ParameterizedTestParameters(Suite, Name)                                                       \
    {                                                                                              \
        static struct place_case cases[4 * PLACES];                                                \
        size_t count = 0;                                                                          \
        for (int i = 0; i < 4 * PLACES; i++)                                                       \
            if (transport_is_wanted((enum transport)(i % 4)))                                      \
                cases[count++] = (struct place_case){(enum transport)(i % 4),                      \
                                                     (enum place)(i / 4)};                         \
        return cr_make_param_array(struct place_case, cases, count);                               \
    }                                                                                              \
    ParameterizedTest(struct place_case *c, Suite, Name)

/* A device between two pairs, each with a mate on the shared engine. */
struct place_scene {
    struct engines es;
    spoke_socket *a, *b, *mate_a, *mate_b;
    spoke_device *d;
};

static void
set_place(struct place_scene *x, const struct place_case *c)
{
    char url[ENDPOINT_MAX];
    struct spoke_stats stats;

    x->es = open_engines(c->place);
    x->a = open_on(x->es.e[0], SPOKE_PAIR);
    x->b = open_on(x->es.e[1], SPOKE_PAIR);
    x->d = start(x->a, x->b);
    x->mate_a = open_socket(SPOKE_PAIR);
    x->mate_b = open_socket(SPOKE_PAIR);
    listen_on(x->mate_a, c->transport, url);
    dial(x->a, url);
    listen_on(x->mate_b, c->transport, url);
    dial(x->b, url);
    do {
        drive(&x->es);
        stats = stats_of(x->a);
        stats.pipes_current += stats_of(x->b).pipes_current;
    } while (stats.pipes_current < 2 || stats_of(x->mate_a).pipes_current < 1 ||
             stats_of(x->mate_b).pipes_current < 1);
}

static void
clear_place(struct place_scene *x)
{
    (void)spoke_socket_close(x->a);
    (void)spoke_socket_close(x->b);
    close_engines(&x->es);
    finish();
}

IN_EVERY_PLACE(device, passes_on_in_order_from_engine_to_engine)
{
    enum { COUNT = 20000, SIZE = 200 };
    struct place_scene x;
    uint32_t sent[2] = {0, 0}, received[2] = {0, 0};
    spoke_msg *m;

    set_place(&x, c);
    while (received[0] < COUNT || received[1] < COUNT) {
        for (int i = 0; i < 2; i++) {
            spoke_socket *from = i == 0 ? x.mate_a : x.mate_b, *to = i == 0 ? x.mate_b : x.mate_a;

            for (int k = 0; k < 100 && sent[i] < COUNT; k++, sent[i]++) {
                m = pattern_message(SIZE, sent[i]);
                if (spoke_send(from, m, SPOKE_DONTWAIT) != 0) {
                    spoke_msg_free(m);
                    break;
                }
            }
            while (spoke_recv(to, &m, SPOKE_DONTWAIT) == 0) {
                cr_assert(pattern_holds(spoke_msg_body(m), SIZE, received[i]), "message %u",
                          received[i]);
                received[i]++;
                spoke_msg_free(m);
            }
        }
        drive(&x.es);
    }
    struct spoke_device_stats stats = stop(x.d);
    cr_assert_eq(stats.there.messages, COUNT);
    cr_assert_eq(stats.there.bytes, COUNT * SIZE);
    cr_assert_eq(stats.back.messages, COUNT);
    cr_assert_eq(stats.there.dropped + stats.back.dropped, 0);
    clear_place(&x);
}

/* Goal: what is between two engines is bounded, and what is lost at the stop is counted. */
IN_EVERY_PLACE(device, is_bounded_between_engines_and_counts_what_it_loses)
{
    enum { SIZE = 20000, MOST = 20000 };
    struct place_scene x;
    uint32_t sent = 0, received = 0;
    spoke_msg *m;

    set_place(&x, c);
    for (int quiet = 0; quiet < 100 && sent < MOST; quiet++) {
        m = pattern_message(SIZE, sent);
        if (spoke_send(x.mate_a, m, SPOKE_DONTWAIT) == 0) {
            sent++;
            quiet = 0;
        } else {
            spoke_msg_free(m);
            drive(&x.es);
            settle();
        }
    }
    cr_assert_lt(sent, MOST);
    struct spoke_device_stats stats = stop(x.d);
    cr_assert_lt(stats.there.messages, sent);
    cr_assert_leq(stats.there.dropped, 64);
    if (c->place == ONE_ENGINE)
        cr_assert_eq(stats.there.dropped, 0);
    uint64_t passed = stats.there.messages;
    while (received < passed) { /* all that it has passed on arrives */
        if (spoke_recv(x.mate_b, &m, SPOKE_DONTWAIT) == 0) {
            cr_assert(pattern_holds(spoke_msg_body(m), SIZE, received));
            received++;
            spoke_msg_free(m);
        }
        drive(&x.es);
    }
    expect_recv_error(x.mate_b, SPOKE_EAGAIN);
    clear_place(&x);
}

/* Goal: whichever socket or engine goes first, in the middle of traffic, nothing is left. */
IN_EVERY_PLACE(device, ends_with_its_engine_or_socket_in_the_middle_of_traffic)
{
    for (int how = 0; how < 4; how++) {
        struct place_scene x;

        set_place(&x, c);
        for (uint32_t i = 0; i < 100; i++) {
            (void)spoke_send_bytes(x.mate_a, "there", 5, SPOKE_DONTWAIT);
            (void)spoke_send_bytes(x.mate_b, "back", 4, SPOKE_DONTWAIT);
            if (i % 10 == 0)
                drive(&x.es);
        }
        if (how < 2) {
            cr_assert_eq(spoke_socket_close(how == 0 ? x.a : x.b), 0);
            cr_assert_eq(spoke_device_stop(x.d, NULL), SPOKE_ECLOSED);
            drive(&x.es);
        } else if (how == 2 && x.es.e[0] != NULL) {
            cr_assert_eq(spoke_engine_close(x.es.e[0]), 0);
            cr_assert_eq(spoke_device_stop(x.d, NULL), SPOKE_ECLOSED);
            if (x.es.e[1] == x.es.e[0])
                x.es.e[1] = NULL;
            x.es.e[0] = NULL;
        }
        (void)spoke_socket_close(x.a);
        (void)spoke_socket_close(x.b);
        close_engines(&x.es);
        finish();
    }
}
