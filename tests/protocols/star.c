/* SPDX-License-Identifier: MIT */
/* STAR: to everybody in the tree, each message once to each, its hops counted. */
#include <stdio.h>

#include <unistd.h>

#include "tests/protocols/fixture.h"

#include "tests/support/world.h"

#define TTL_DEFAULT 8

/* A star socket that listens, and plain peers that have joined it. */
#define PEERS_MOST 3
struct scene {
    spoke_socket *s;
    char url[ENDPOINT_MAX];
    struct raw_peer peers[PEERS_MOST];
    int count;
};

static void
set_scene(struct scene *scene, enum transport t, spoke_socket *s, int count)
{
    scene->s = s;
    scene->count = count;
    listen_on(s, t, scene->url);
    for (int i = 0; i < count; i++)
        join(&scene->peers[i], s, scene->url, (uint64_t)i + 1);
}

static void
clear_scene(struct scene *scene)
{
    for (int i = 0; i < scene->count; i++)
        raw_close(&scene->peers[i]);
    finish();
}

static void
raw_expect_word(struct raw_peer *p, uint32_t word, const char *text)
{
    uint8_t bytes[4096];
    long size = raw_recv(p, bytes, sizeof bytes, RAW_LIMIT_MS);

    cr_assert_eq(size, (long)(4 + strlen(text)), "\"%s\": %ld", text, size);
    cr_assert_eq(raw_get32(bytes), word, "%x instead of %x", raw_get32(bytes), word);
    cr_assert_arr_eq(bytes + 4, text, strlen(text));
}

static void
set_ttl(spoke_socket *s, int ttl)
{
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, ttl), 0);
}

/* Sockets in a row, each connected to the next. */
static void
open_chain(spoke_socket **s, int count, enum transport t)
{
    for (int i = 0; i < count; i++) {
        s[i] = open_socket(SPOKE_STAR);
        if (i > 0)
            connect_sockets(s[i - 1], s[i], t);
    }
}

/* ---- the wire ---- */

ON_EVERY_STREAM(star, speaks_the_bytes_of_the_specification)
{
    static const uint8_t hello[] = {0, 'S', 'P', 0, 6, 0x40, 0, 0};
    static const uint8_t hi[] = {1, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 'h', 'i'};
    spoke_socket *s = open_socket(SPOKE_STAR);
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    raw_expect_bytes(&p, hello, sizeof hello);
    cr_assert_eq(raw_send_bytes(&p, hello, sizeof hello, RAW_LIMIT_MS), RAW_OK);
    wait_pipes(s, 1);
    send_text(s, "hi");
    raw_expect_bytes(&p, hi + skip, sizeof hi - skip);
    cr_assert_eq(raw_send_bytes(&p, hi + skip, sizeof hi - skip, RAW_LIMIT_MS), RAW_OK);
    expect_text(s, "hi");
    raw_send_word(&p, 0, "");
    expect_text(s, "");
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(star, passes_on_to_every_other_peer_with_one_more_hop)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, *t, open_socket(SPOKE_STAR), 3);
    raw_send_word(&p[0], 0, "first");
    raw_expect_word(&p[1], 1, "first");
    raw_expect_word(&p[2], 1, "first");
    expect_text(scene.s, "first");
    raw_send_word(&p[1], 5, "second");
    raw_expect_word(&p[0], 6, "second"); /* and nothing before it: its own did not come back */
    raw_expect_word(&p[2], 6, "second");
    expect_text(scene.s, "second");
    raw_send_word(&p[2], 7, "");
    raw_expect_word(&p[0], 8, "");
    raw_expect_word(&p[1], 8, "");
    expect_text(scene.s, "");
    for (int i = 0; i < 3; i++)
        cr_assert(raw_is_quiet(&p[i], RAW_QUIET_MS));
    clear_scene(&scene);
}

ON_EVERY_STREAM(star, drops_what_is_malformed_and_keeps_the_pipe)
{
    static const uint32_t bad[] = {0x01000000, 0x00010000, 0x00000100, 0x80000000, 0xffffffff};
    struct scene scene;
    uint64_t garbled = 0;

    set_scene(&scene, *t, watch_pipes(open_socket(SPOKE_STAR)), 2);
    for (size_t size = 0; size < 4; size++) {
        cr_assert_eq(raw_send(&scene.peers[0], "\0\0\0", size), RAW_OK);
        garbled++;
        wait_counter(scene.s, garbled, garbled);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        raw_send_word(&scene.peers[0], bad[i], "bad");
        garbled++;
        wait_counter(scene.s, garbled, garbled);
    }
    raw_send_word(&scene.peers[0], 0, "good");
    expect_text(scene.s, "good");
    raw_expect_word(&scene.peers[1], 1, "good"); /* and nothing before it */
    cr_assert_eq(stats_of(scene.s).pipes_current, 2);
    cr_assert_eq(pipe_stats_of(scene.s, 0).garbled, garbled);
    cr_assert_eq(pipe_stats_of(scene.s, 1).garbled, 0);
    clear_scene(&scene);
}

ON_EVERY_STREAM(star, drops_what_has_come_too_far)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, *t, watch_pipes(open_socket(SPOKE_STAR)), 2);
    raw_send_word(&p[0], TTL_DEFAULT, "too far");
    raw_send_word(&p[0], 255, "too far");
    wait_counter(scene.s, dropped_ttl, 2);
    raw_send_word(&p[0], TTL_DEFAULT - 1, "just");
    raw_expect_word(&p[1], TTL_DEFAULT, "just");
    expect_text(scene.s, "just");
    set_ttl(scene.s, 1); /* from now on */
    raw_send_word(&p[0], 1, "too far");
    raw_send_word(&p[0], 0, "direct");
    raw_expect_word(&p[1], 1, "direct");
    expect_text(scene.s, "direct");
    cr_assert_eq(stats_of(scene.s).dropped_ttl, 3);
    cr_assert_eq(pipe_stats_of(scene.s, 0).dropped_ttl, 3);
    cr_assert_eq(pipe_stats_of(scene.s, 1).dropped_ttl, 0);
    cr_assert_eq(stats_of(scene.s).garbled, 0);
    clear_scene(&scene);
}

/* Goal: the last byte never wraps to 0. */
ON_EVERY_STREAM(star, does_not_count_beyond_a_byte)
{
    struct scene scene;

    set_scene(&scene, *t, open_socket(SPOKE_STAR), 2);
    set_ttl(scene.s, 255);
    raw_send_word(&scene.peers[0], 255, "once more");
    wait_counter(scene.s, dropped_ttl, 1);
    raw_send_word(&scene.peers[0], 254, "the last");
    raw_expect_word(&scene.peers[1], 255, "the last");
    expect_text(scene.s, "the last");
    clear_scene(&scene);
}

Test(star, checks_the_range_of_its_ttl)
{
    static const int wrong[] = {0, -1, 256};
    spoke_socket *s = open_socket(SPOKE_STAR);
    int ttl;

    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, TTL_DEFAULT);
    for (size_t i = 0; i < 3; i++)
        cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, wrong[i]), SPOKE_ERANGE);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_TTL, 3), SPOKE_ETYPE);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_TTL, 255), 0);
    cr_assert_eq(spoke_socket_get_int(s, SPOKE_OPT_TTL, &ttl), 0);
    cr_assert_eq(ttl, 255);
    finish();
}

/* ---- topologies ---- */

/* Five around one in the middle of them; each sends seven. */
ON_EVERY_TRANSPORT(star, gives_everybody_all_of_the_others_in_order_and_never_its_own)
{
    enum { NODES = 5, EACH = 7 };
    spoke_socket *s[NODES];
    int next[NODES][NODES] = {{0}};
    char url[ENDPOINT_MAX], text[16];

    for (int i = 0; i < NODES; i++)
        s[i] = open_socket(SPOKE_STAR);
    listen_on(s[0], *t, url);
    for (int i = 1; i < NODES; i++) {
        dial(s[i], url);
        wait_pipes(s[i], 1);
    }
    wait_pipes(s[0], NODES - 1);
    for (int k = 0; k < EACH; k++) {
        for (int i = 0; i < NODES; i++) {
            snprintf(text, sizeof text, "%d %d", i, k);
            send_text(s[i], text);
        }
    }
    for (int i = 0; i < NODES; i++) {
        for (int k = 0; k < EACH * (NODES - 1); k++) {
            spoke_msg *m = recv_message(s[i]);
            int from, number;

            snprintf(text, sizeof text, "%.*s", (int)spoke_msg_size(m),
                     (const char *)spoke_msg_body(m));
            cr_assert_eq(sscanf(text, "%d %d", &from, &number), 2, "\"%s\"", text);
            cr_assert_neq(from, i, "its own");
            cr_assert_eq(number, next[i][from]++, "%d of %d", number, from);
            spoke_msg_free(m);
        }
    }
    sleep_ms(20);
    for (int i = 0; i < NODES; i++)
        expect_recv_error(s[i], SPOKE_EAGAIN);
    finish();
}

ON_EVERY_TRANSPORT(star, reaches_as_far_as_the_ttl_and_no_further)
{
    enum { NODES = TTL_DEFAULT + 2 };
    spoke_socket *s[NODES];

    open_chain(s, NODES, *t);
    send_text(s[0], "along");
    for (int i = 1; i <= TTL_DEFAULT; i++)
        expect_text(s[i], "along");
    wait_counter(s[NODES - 1], dropped_ttl, 1);
    expect_recv_error(s[NODES - 1], SPOKE_EAGAIN);
    set_ttl(s[NODES - 1], TTL_DEFAULT + 1);
    send_text(s[0], "again");
    expect_text(s[NODES - 1], "again");
    finish();
}

/* Goal: a ring does not go round for ever.  Method: three that are all connected; a message goes
 * round both ways until the ttl ends it, and each node receives it each time. */
ON_EVERY_TRANSPORT(star, ends_the_rounds_in_a_ring_by_the_ttl)
{
    spoke_socket *s[3];
    uint64_t received = 0, dropped = 0;

    open_chain(s, 3, *t);
    connect_sockets(s[0], s[2], *t);
    send_text(s[0], "round");
    for (int quiet = 0; quiet < 100 || dropped < 2; quiet++) {
        spoke_msg *m;

        cr_assert_lt(quiet, 10000 * SPOKE_TEST_SLOWDOWN);
        for (int i = 0; i < 3; i++) {
            if (spoke_recv(s[i], &m, SPOKE_DONTWAIT) != 0)
                continue;
            cr_assert(text_is(m, "round"));
            spoke_msg_free(m);
            received++;
            quiet = 0;
        }
        dropped = stats_of(s[0]).dropped_ttl + stats_of(s[1]).dropped_ttl +
                  stats_of(s[2]).dropped_ttl;
        sleep_ms(1);
    }
    cr_assert_eq(received, 2 * TTL_DEFAULT);
    cr_assert_eq(dropped, 2);
    finish();
}

/* Goal: two that are connected twice cannot make a storm that is not bounded.  Method: messages
 * multiply at each hop; whatever is too much is dropped, then it is over. */
ON_EVERY_TRANSPORT(star, bounds_a_storm)
{
    enum { LINKS = 4, TTL = 6 };
    spoke_socket *a = open_socket(SPOKE_STAR), *b = open_socket(SPOKE_STAR);
    struct spoke_stats now = {0}, before;

    set_ttl(a, TTL);
    set_ttl(b, TTL);
    for (int i = 0; i < LINKS; i++)
        connect_sockets(a, b, *t);
    for (int i = 0; i < 100; i++)
        send_text(a, "storm");
    for (int quiet = 0; quiet < 50; quiet++) {
        settle();
        before = now;
        now = stats_of(a);
        if (now.dropped_ttl != before.dropped_ttl ||
            now.dropped_recv_full != before.dropped_recv_full)
            quiet = 0;
    }
    cr_assert_gt(now.dropped_recv_full, 0);
    cr_assert_leq(now.recv_queue_high, 128);
    cr_assert_leq(now.send_queue_high, 128);
    for (int i = 0; i < 128; i++)
        expect_text(a, "storm");
    expect_recv_error(a, SPOKE_EAGAIN);
    finish();
}

Test(star, sends_without_any_peer_and_does_not_wait)
{
    spoke_socket *s = open_socket(SPOKE_STAR);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 0), 0);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(spoke_send_bytes(s, "gone", 4, SPOKE_DONTWAIT), 0);
    expect_fd(s, SPOKE_OPT_SEND_FD, true);
    cr_assert_eq(spoke_socket_close(s), 0);
    finish();
}

/* ---- what there is no room for ---- */

ON_EVERY_STREAM(star, drops_here_and_passes_on_all_the_same)
{
    struct scene scene;
    spoke_socket *s = open_socket(SPOKE_STAR);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 1), 0);
    set_scene(&scene, *t, watch_pipes(s), 2);
    for (int i = 0; i < 200; i++) {
        raw_send_word(&scene.peers[0], 0, "on");
        raw_expect_word(&scene.peers[1], 1, "on");
    }
    cr_assert_eq(stats_of(s).dropped_recv_full, 199);
    cr_assert_eq(pipe_stats_of(s, 0).dropped_recv_full, 199);
    cr_assert_eq(pipe_stats_of(s, 1).dropped_recv_full, 0);
    expect_text(s, "on");
    expect_recv_error(s, SPOKE_EAGAIN);
    clear_scene(&scene);
}

ON_EVERY_STREAM(star, passes_on_to_the_quick_what_the_slow_has_no_room_for)
{
    enum { SIZE = 50000, COUNT = 400, LENGTH = 4 };
    static uint8_t bytes[SIZE];
    struct scene scene;
    spoke_socket *s = open_socket(SPOKE_STAR);
    uint64_t dropped;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, LENGTH), 0);
    set_scene(&scene, *t, watch_pipes(s), 3); /* 0 sends, 1 reads, 2 does not */
    memset(bytes, 0, sizeof bytes);
    for (uint32_t i = 0; i < COUNT; i++) {
        raw_put32(bytes, 0);
        raw_put32(bytes + 4, i);
        cr_assert_eq(raw_send(&scene.peers[0], bytes, SIZE), RAW_OK);
        cr_assert_eq(raw_recv(&scene.peers[1], bytes, SIZE, RAW_LIMIT_MS), SIZE);
        cr_assert_eq(raw_get32(bytes), 1);
        cr_assert_eq(raw_get32(bytes + 4), i);
        spoke_msg_free(recv_message(s));
    }
    cr_assert_gt(dropped = stats_of(s).dropped_peer_full, 0);
    cr_assert_eq(pipe_stats_of(s, 1).dropped_peer_full, 0);
    cr_assert_eq(pipe_stats_of(s, 2).dropped_peer_full, dropped);
    for (uint32_t i = 0; i < COUNT - dropped; i++) {
        cr_assert_eq(raw_recv(&scene.peers[2], bytes, SIZE, RAW_LIMIT_MS), SIZE);
        cr_assert_eq(raw_get32(bytes + 4), i);
    }
    clear_scene(&scene);
}

/* ---- headers and bodies ---- */

/* mangos leaves the word in a received message, and sends it a second time with it. */
ON_EVERY_STREAM(star, sends_a_received_message_as_a_new_one)
{
    struct scene scene;

    set_scene(&scene, *t, open_socket(SPOKE_STAR), 2);
    raw_send_word(&scene.peers[0], 3, "back");
    raw_expect_word(&scene.peers[1], 4, "back");
    spoke_msg *m = recv_message(scene.s);
    cr_assert_eq(spoke_msg_header_size(m), 0);
    cr_assert_eq(spoke_send(scene.s, m, 0), 0);
    raw_expect_word(&scene.peers[0], 0, "back");
    raw_expect_word(&scene.peers[1], 0, "back");
    uint32_t words[] = {7, 8};
    cr_assert_eq(spoke_send(scene.s, new_with_words(words, 2, "own words"), 0), 0);
    raw_expect_word(&scene.peers[0], 0, "own words");
    clear_scene(&scene);
}

/* Goal: who changes what it received changes nobody else's. */
ON_EVERY_TRANSPORT(star, gives_everybody_bytes_of_its_own_to_change)
{
    static const size_t sizes[] = {10, 1000, 100000};
    spoke_socket *s[3];

    open_chain(s, 3, *t);
    for (uint32_t i = 0; i < 3; i++) {
        cr_assert_eq(spoke_send(s[0], pattern_message(sizes[i], i), 0), 0);
        for (int j = 1; j < 3; j++) {
            spoke_msg *m = recv_message(s[j]);

            cr_assert_eq(spoke_msg_size(m), sizes[i]);
            cr_assert(pattern_holds(spoke_msg_body(m), sizes[i], i), "node %d", j);
            cr_assert_eq(spoke_msg_make_unique(&m), 0);
            memset(spoke_msg_body(m), 0, sizes[i]);
            spoke_msg_free(m);
        }
    }
    finish();
}

/* mangos v1's raw STAR passes nothing on, and sends to where a message came from as well. */
ON_EVERY_STREAM(star, raw_passes_on_by_itself_and_does_not_echo)
{
    struct scene scene;
    struct raw_peer *p = scene.peers;

    set_scene(&scene, *t, open_raw(SPOKE_STAR), 3);
    raw_send_word(&p[0], 2, "on");
    raw_expect_word(&p[1], 3, "on");
    raw_expect_word(&p[2], 3, "on");
    spoke_msg *m = recv_message(scene.s);
    cr_assert_eq(spoke_msg_header_size(m), 4);
    cr_assert_eq(header_word(m, 0), 3);
    cr_assert(text_is(m, "on"));
    cr_assert_eq(spoke_send(scene.s, m, 0), 0);
    raw_expect_word(&p[1], 3, "on");
    raw_expect_word(&p[2], 3, "on");
    cr_assert(raw_is_quiet(&p[0], RAW_QUIET_MS));
    uint32_t word = 6;
    cr_assert_eq(spoke_send(scene.s, new_with_words(&word, 1, "mine"), 0), 0);
    for (int i = 0; i < 3; i++)
        raw_expect_word(&p[i], 6, "mine");
    clear_scene(&scene);
}

ON_EVERY_STREAM(star, raw_refuses_what_has_no_word)
{
    static const size_t sizes[] = {0, 1, 3, 5, 8, 1024};
    struct scene scene;
    uint32_t word = 1;

    set_scene(&scene, *t, open_raw(SPOKE_STAR), 1);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        spoke_msg *m = new_text("no");

        for (size_t j = 0; j < sizes[i]; j++)
            cr_assert_eq(spoke_msg_header_append(m, "\0", 1), 0);
        cr_assert_eq(spoke_send(scene.s, m, 0), SPOKE_EINVAL);
        cr_assert_eq(spoke_msg_header_size(m), sizes[i]);
        spoke_msg_free(m);
    }
    cr_assert_eq(spoke_send(scene.s, new_with_words(&word, 1, "yes"), 0), 0);
    raw_expect_word(&scene.peers[0], 1, "yes");
    clear_scene(&scene);
}

/* An expiry was for the way here, not for the way on. */
Test(star, passes_on_what_would_have_expired_at_its_sender)
{
    spoke_socket *from = open_socket(SPOKE_STAR), *to = open_socket(SPOKE_STAR);
    spoke_engine *e;
    spoke_socket *middle;
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, INPROC);
    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&middle, SPOKE_STAR, e), 0);
    cr_assert_eq(spoke_socket_set_duration(from, SPOKE_OPT_SEND_EXPIRY, SPOKE_SECOND), 0);
    cr_assert_eq(spoke_listen(middle, url, NULL, 0), 0);
    dial(from, url);
    dial(to, url);
    for (struct spoke_stats stats = {0}; stats.pipes_current < 2;) {
        cr_assert_geq(spoke_engine_poll(e, SPOKE_MS), 0);
        cr_assert_eq(spoke_socket_stats(middle, &stats), 0);
    }
    wait_pipes(from, 1);
    wait_pipes(to, 1);
    send_text(from, "on");
    usleep(1100000); /* the one in the middle does nothing meanwhile */
    for (int i = 0; i < 1000 * SPOKE_TEST_SLOWDOWN && stats_of(to).recv_queue_high == 0; i++)
        cr_assert_geq(spoke_engine_poll(e, 10 * SPOKE_MS), 0);
    expect_text(to, "on");
    cr_assert_eq(spoke_engine_close(e), 0);
    finish();
}
