/* SPDX-License-Identifier: MIT */
/* BUS: to every direct peer, never back, never waiting. */
#include <stdio.h>

#include "tests/protocols/fixture.h"

#include "tests/support/world.h"

#define BUS_NUMBER 112

static void
set_recv_queue(spoke_socket *s, int length)
{
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, length), 0);
}

/* A hub that listens and leaves that dial it. */
#define LEAVES 4
struct hub {
    spoke_socket *s, *leaf[LEAVES];
    char url[ENDPOINT_MAX];
};

static void
open_hub(struct hub *hub, enum transport t)
{
    hub->s = open_socket(SPOKE_BUS);
    listen_on(hub->s, t, hub->url);
    for (int i = 0; i < LEAVES; i++) {
        hub->leaf[i] = open_socket(SPOKE_BUS);
        dial(hub->leaf[i], hub->url);
        wait_pipes(hub->leaf[i], 1);
    }
    wait_pipes(hub->s, LEAVES);
}

/* ---- the wire ---- */

ON_EVERY_STREAM(bus, speaks_the_bytes_of_the_specification)
{
    static const uint8_t tick[] = {1, 0, 0, 0, 0, 0, 0, 0, 4, 't', 'i', 'c', 'k'};
    static const uint8_t hello[] = {0, 'S', 'P', 0, 0, 0x70, 0, 0};
    spoke_socket *s = open_socket(SPOKE_BUS);
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, hello, sizeof hello);
    cr_assert_eq(raw_send_bytes(&p, hello, sizeof hello, RAW_LIMIT_MS), RAW_OK);
    wait_pipes(s, 1);
    send_text(s, "tick");
    raw_expect_bytes(&p, tick + skip, sizeof tick - skip);
    raw_send_text(&p, "tock");
    raw_send_text(&p, "");
    expect_text(s, "tock");
    expect_text(s, "");
    send_text(s, "");
    raw_expect(&p, NULL, 0, "");
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(bus, takes_a_message_of_the_limit_and_closes_above_it)
{
    spoke_socket *s = open_socket(SPOKE_BUS);
    char url[ENDPOINT_MAX], bytes[101] = {0};
    struct raw_peer p;

    cr_assert_eq(spoke_socket_set_size(s, SPOKE_OPT_MAX_RECV_SIZE, 100), 0);
    listen_on(s, *t, url);
    join(&p, s, url, 1);
    cr_assert_eq(raw_send(&p, bytes, 100), RAW_OK);
    spoke_msg *m = recv_message(s);
    cr_assert_eq(spoke_msg_size(m), 100);
    spoke_msg_free(m);
    cr_assert_eq(raw_send(&p, bytes, 101), RAW_OK);
    cr_assert_eq(raw_wait_eof(&p, RAW_LIMIT_MS), RAW_OK);
    wait_counter(s, oversized, 1);
    raw_close(&p);
    finish();
}

/* ---- who receives what ---- */

ON_EVERY_TRANSPORT(bus, reaches_every_direct_peer_and_nobody_else)
{
    struct hub hub;
    char text[32];

    open_hub(&hub, *t);
    for (int i = 0; i < 7; i++) {
        snprintf(text, sizeof text, "from the hub %d", i);
        send_text(hub.s, text);
        for (int j = 0; j < LEAVES; j++)
            expect_text(hub.leaf[j], text);
    }
    for (int i = 0; i < LEAVES; i++) {
        snprintf(text, sizeof text, "from leaf %d", i);
        send_text(hub.leaf[i], text);
        expect_text(hub.s, text);
    }
    sleep_ms(20);
    expect_recv_error(hub.s, SPOKE_EAGAIN);
    for (int i = 0; i < LEAVES; i++) /* neither its own nor, without a device, another leaf's */
        expect_recv_error(hub.leaf[i], SPOKE_EAGAIN);
    finish();
}

ON_EVERY_TRANSPORT(bus, gives_each_member_of_a_mesh_all_of_the_others_in_order)
{
    enum { MEMBERS = 5, EACH = 7 };
    spoke_socket *s[MEMBERS];
    int next[MEMBERS][MEMBERS] = {{0}};
    char url[ENDPOINT_MAX], text[16];

    for (int i = 0; i < MEMBERS; i++) {
        s[i] = open_socket(SPOKE_BUS);
        listen_on(s[i], *t, url);
        for (int j = 0; j < i; j++)
            dial(s[j], url);
    }
    for (int i = 0; i < MEMBERS; i++)
        wait_pipes(s[i], MEMBERS - 1);
    for (int k = 0; k < EACH; k++) {
        for (int i = 0; i < MEMBERS; i++) {
            snprintf(text, sizeof text, "%d %d", i, k);
            send_text(s[i], text);
        }
    }
    for (int i = 0; i < MEMBERS; i++) {
        for (int k = 0; k < EACH * (MEMBERS - 1); k++) {
            spoke_msg *m = recv_message(s[i]);
            int from, number;

            snprintf(text, sizeof text, "%.*s", (int)spoke_msg_size(m),
                     (const char *)spoke_msg_body(m));
            cr_assert_eq(sscanf(text, "%d %d", &from, &number), 2);
            cr_assert_neq(from, i, "its own");
            cr_assert_eq(number, next[i][from], "%d instead of %d of %d", number, next[i][from],
                         from);
            next[i][from]++;
            spoke_msg_free(m);
        }
        expect_recv_error(s[i], SPOKE_EAGAIN);
    }
    finish();
}

Test(bus, sends_without_any_peer_and_does_not_wait)
{
    spoke_socket *s = open_socket(SPOKE_BUS);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 0), 0);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(spoke_send_bytes(s, "gone", 4, SPOKE_DONTWAIT), 0);
    expect_fd(s, SPOKE_OPT_SEND_FD, true);
    expect_fd(s, SPOKE_OPT_RECV_FD, false);
    cr_assert_eq(spoke_socket_close(s), 0);
    finish();
}

Test(bus, does_not_talk_to_other_patterns)
{
    spoke_socket *bus = open_socket(SPOKE_BUS), *pair = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    int ttl;

    listen_on(bus, INPROC, url);
    cr_assert_eq(spoke_dial(pair, url, NULL, SPOKE_WAIT_FIRST), SPOKE_EPEER);
    cr_assert_eq(spoke_socket_get_int(bus, SPOKE_OPT_TTL, &ttl), SPOKE_EOPTION);
    finish();
}

/* ---- what there is no room for ---- */

/* Goal: who does not read loses the newest, whatever it costs nobody else anything.  Method: two
 * plain peers; one reads each message before the next is sent, the other none at all. */
ON_EVERY_STREAM(bus, drops_for_a_slow_peer_alone)
{
    enum { LENGTH = 4, SIZE = 50000, COUNT = 400 };
    static uint8_t bytes[SIZE];
    spoke_socket *s = open_socket(SPOKE_BUS);
    char url[ENDPOINT_MAX];
    struct raw_peer slow, quick;
    uint32_t i;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, LENGTH), 0);
    listen_on(s, *t, url);
    join(&slow, s, url, 1);
    join(&quick, s, url, 2);
    for (i = 0; i < COUNT; i++) {
        raw_put32(bytes, i);
        cr_assert_eq(spoke_send_bytes(s, bytes, SIZE, SPOKE_DONTWAIT), 0);
        cr_assert_eq(raw_recv(&quick, bytes, SIZE, RAW_LIMIT_MS), SIZE);
        cr_assert_eq(raw_get32(bytes), i);
    }
    uint64_t dropped = stats_of(s).dropped_peer_full;
    cr_assert_gt(dropped, 0);
    cr_assert_leq(stats_of(s).send_queue_high, LENGTH);
    for (i = 0; i < COUNT - dropped; i++) { /* the oldest, without a gap */
        cr_assert_eq(raw_recv(&slow, bytes, SIZE, RAW_LIMIT_MS), SIZE);
        cr_assert_eq(raw_get32(bytes), i);
    }
    send_text(s, "room again");
    raw_expect(&slow, NULL, 0, "room again");
    raw_close(&slow);
    raw_close(&quick);
    finish();
}

ON_EVERY_STREAM(bus, bounds_what_waits_for_a_peer_in_bytes)
{
    enum { SIZE = 100000 };
    spoke_socket *s = open_socket(SPOKE_BUS);
    struct spoke_close_report report;
    char url[ENDPOINT_MAX];
    struct raw_peer idle;

    cr_assert_eq(spoke_socket_set_size(s, SPOKE_OPT_SEND_QUEUE_BYTES, 3 * SIZE), 0);
    listen_on(s, *t, url);
    join(&idle, s, url, 1);
    for (uint32_t i = 0; stats_of(s).dropped_peer_full < 100; i++)
        cr_assert_eq(spoke_send(s, pattern_message(SIZE, i), SPOKE_DONTWAIT), 0);
    cr_assert_leq(stats_of(s).send_queue_high, 4);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 20 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_close_report(s, &report), SPOKE_ETIMEDOUT);
    cr_assert_geq(report.messages, 3);
    cr_assert_leq(report.messages, 12, "the queue, and what the pipe had taken");
    raw_close(&idle);
    finish();
}

ON_EVERY_TRANSPORT(bus, drops_the_newest_when_nobody_receives)
{
    enum { LENGTH = 8, COUNT = 300 };
    spoke_socket *a = open_socket(SPOKE_BUS), *b = open_socket(SPOKE_BUS);
    char text[16];

    set_recv_queue(b, LENGTH);
    watch_pipes(b);
    connect_sockets(a, b, *t);
    for (int i = 0; i < COUNT; i++) {
        snprintf(text, sizeof text, "%d", i);
        send_text(a, text);
        if (i >= LENGTH)
            wait_counter(b, dropped_recv_full, (uint64_t)(i - LENGTH + 1));
    }
    for (int i = 0; i < 10; i++) { /* its own sends are not affected */
        send_text(b, "from b");
        expect_text(a, "from b");
    }
    for (int i = 0; i < LENGTH; i++) {
        snprintf(text, sizeof text, "%d", i);
        expect_text(b, text);
    }
    expect_recv_error(b, SPOKE_EAGAIN);
    cr_assert_eq(stats_of(b).dropped_recv_full, COUNT - LENGTH);
    cr_assert_eq(pipe_stats_of(b, 0).dropped_recv_full, COUNT - LENGTH);
    cr_assert_eq(stats_of(a).dropped_peer_full, 0);
    finish();
}

ON_EVERY_TRANSPORT(bus, gives_to_who_waits_when_the_queue_has_no_length)
{
    spoke_socket *a = open_socket(SPOKE_BUS), *b = open_socket(SPOKE_BUS);
    struct waiting_call call;

    set_recv_queue(b, 0);
    connect_sockets(a, b, *t);
    for (int i = 0; i < 20; i++) {
        start_call(&call, b, NULL);
        send_text(a, "here");
        cr_assert_eq(end_call(&call), 0);
        cr_assert_str_eq(call.received, "here");
    }
    finish();
}

/* Goal: a flood from one peer holds up neither the others nor the engine.  Method: a peer on
 * another thread's engine sends as fast as it can to a socket that nobody reads; beside it, on the
 * same engine, two others talk. */
struct flood {
    const char *url;
    atomic_bool stop;
    int rc;
};

static void *
flood(void *ctx)
{
    struct flood *f = ctx;
    spoke_engine *e;
    spoke_socket *s;

    if ((f->rc = spoke_engine_open(&e, NULL)) != 0)
        return NULL;
    if ((f->rc = spoke_socket_open(&s, SPOKE_BUS, e)) == 0)
        f->rc = spoke_dial(s, f->url, NULL, 0);
    while (f->rc == 0 && !atomic_load(&f->stop)) {
        for (int i = 0; i < 1000 && f->rc == 0; i++)
            f->rc = spoke_send_bytes(s, "flood", 5, 0);
        (void)spoke_engine_poll(e, 0);
    }
    (void)spoke_engine_close(e);
    return NULL;
}

ON_EVERY_TRANSPORT(bus, is_not_held_up_by_a_flood_that_nobody_reads)
{
    spoke_socket *s = open_socket(SPOKE_BUS), *a = open_socket(SPOKE_PAIR),
                 *b = open_socket(SPOKE_PAIR);
    char url[ENDPOINT_MAX];
    struct flood f = {.url = url};
    pthread_t thread;

    connect_sockets(a, b, *t);
    listen_on(s, *t, url);
    cr_assert_eq(pthread_create(&thread, NULL, flood, &f), 0);
    while (stats_of(s).dropped_recv_full < 20000 / SPOKE_TEST_SLOWDOWN) {
        send_text(a, "ping");
        expect_text(b, "ping");
        send_text(b, "pong");
        expect_text(a, "pong");
    }
    send_text(s, "enough");
    expect_text(s, "flood");
    atomic_store(&f.stop, true);
    pthread_join(thread, NULL);
    cr_assert_eq(f.rc, 0, "%s", spoke_strerror(f.rc));
    cr_assert_leq(stats_of(s).recv_queue_high, 128);
    finish();
}

/* ---- headers ---- */

/* mangos takes four bytes of a cooked message's header for a pipe to leave out. */
ON_EVERY_TRANSPORT(bus, ignores_the_header_of_a_message_when_it_is_cooked)
{
    spoke_socket *a = open_socket(SPOKE_BUS), *b = open_socket(SPOKE_BUS);

    connect_sockets(a, b, *t);
    send_text(b, "who am I");
    spoke_msg *m = recv_message(a);
    uint32_t word = spoke_msg_pipe(m);
    cr_assert_neq(word, 0);
    cr_assert_eq(spoke_msg_header_size(m), 0);
    spoke_msg_free(m);
    cr_assert_eq(spoke_send(a, new_with_words(&word, 1, "not left out"), 0), 0);
    expect_text(b, "not left out");
    m = new_with_words(&word, 1, "shared");
    cr_assert_eq(spoke_send(a, spoke_msg_dup(m), 0), 0);
    cr_assert_eq(header_word(m, 0), word, "what others hold stays as it is");
    spoke_msg_free(m);
    expect_text(b, "shared");
    finish();
}

ON_EVERY_TRANSPORT(bus, raw_says_where_a_message_came_from_and_leaves_that_pipe_out)
{
    spoke_socket *hub = open_raw(SPOKE_BUS);
    spoke_socket *leaf[3];
    char url[ENDPOINT_MAX];
    spoke_msg *m;

    listen_on(hub, *t, url);
    for (int i = 0; i < 3; i++) {
        leaf[i] = open_socket(SPOKE_BUS);
        dial(leaf[i], url);
        wait_pipes(hub, (uint64_t)i + 1);
        wait_pipes(leaf[i], 1);
    }
    send_text(leaf[1], "to the others");
    m = recv_message(hub);
    cr_assert_eq(spoke_msg_header_size(m), 4);
    cr_assert_eq(header_word(m, 0), spoke_msg_pipe(m));
    spoke_msg *kept = spoke_msg_dup(m);
    cr_assert_eq(spoke_send(hub, m, 0), 0); /* as a device does, but shared */
    cr_assert_eq(spoke_msg_header_size(kept), 4);
    expect_text(leaf[0], "to the others");
    expect_text(leaf[2], "to the others");
    cr_assert_eq(spoke_send(hub, kept, 0), 0); /* and alone */
    expect_text(leaf[0], "to the others");
    expect_text(leaf[2], "to the others");
    send_text(hub, "to all");
    for (int i = 0; i < 3; i++) /* nothing was there before it */
        expect_text(leaf[i], "to all");
    m = new_with_words(&(uint32_t){0x80000001}, 1, "to all but nobody");
    cr_assert_eq(spoke_send(hub, m, 0), 0);
    for (int i = 0; i < 3; i++)
        expect_text(leaf[i], "to all but nobody");
    finish();
}

ON_EVERY_TRANSPORT(bus, raw_refuses_a_header_that_is_no_pipe_number)
{
    spoke_socket *hub = open_raw(SPOKE_BUS), *leaf = open_socket(SPOKE_BUS);
    static const size_t sizes[] = {1, 3, 5, 8, 1024};

    connect_sockets(hub, leaf, *t);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        spoke_msg *m = new_text("no");

        for (size_t j = 0; j < sizes[i]; j++)
            cr_assert_eq(spoke_msg_header_append(m, "\1", 1), 0);
        cr_assert_eq(spoke_send(hub, m, 0), SPOKE_EINVAL);
        cr_assert_eq(spoke_msg_header_size(m), sizes[i]);
        cr_assert(text_is(m, "no"));
        spoke_msg_free(m);
    }
    send_text(hub, "yes");
    expect_text(leaf, "yes");
    finish();
}

/* ---- the end ---- */

static void *
close_socket(void *s)
{
    return spoke_socket_close(s) == 0 ? s : NULL;
}

ON_EVERY_STREAM(bus, writes_at_the_close_what_waits_for_a_peer)
{
    enum { SIZE = 60000, COUNT = 40 };
    static uint8_t bytes[SIZE];
    spoke_socket *s = open_socket(SPOKE_BUS);
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    pthread_t thread;
    void *closed;

    listen_on(s, *t, url);
    join(&p, s, url, 1);
    for (uint32_t i = 0; i < COUNT; i++)
        cr_assert_eq(spoke_send(s, pattern_message(SIZE, i), 0), 0);
    cr_assert_eq(stats_of(s).dropped_peer_full, 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, PATIENCE), 0);
    cr_assert_eq(pthread_create(&thread, NULL, close_socket, s), 0);
    for (uint32_t i = 0; i < COUNT; i++) {
        cr_assert_eq(raw_recv(&p, bytes, SIZE, RAW_LIMIT_MS), SIZE);
        cr_assert(pattern_holds(bytes, SIZE, i));
    }
    pthread_join(thread, &closed);
    cr_assert_eq(closed, s, "all was written");
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(bus, counts_what_is_lost_with_a_peer)
{
    enum { SIZE = 60000 };
    spoke_socket *s = watch_pipes(open_socket(SPOKE_BUS));
    char url[ENDPOINT_MAX];
    struct raw_peer idle;

    listen_on(s, *t, url);
    join(&idle, s, url, 1);
    for (uint32_t i = 0; stats_of(s).dropped_peer_full < 1; i++)
        cr_assert_eq(spoke_send(s, pattern_message(SIZE, i), SPOKE_DONTWAIT), 0);
    raw_reset(&idle);
    wait_pipes(s, 0);
    wait_lost(s, 100);
    uint64_t lost = last_stats_of(0).dropped_lost; /* it has ended, and nothing more is counted */
    cr_assert_eq(lost, stats_of(s).dropped_lost);
    cr_assert_eq(last_stats_of(0).dropped_peer_full, 1);
    cr_assert_eq(spoke_socket_close(s), 0, "nothing is left to deliver");
    finish();
}
