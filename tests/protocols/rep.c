/* SPDX-License-Identifier: MIT */
/* REP: its states, the way back of a reply, how far it counts hops, and what it does with requests
 * and peers of every kind. */
#include <stdatomic.h>
#include <stdio.h>

#include "tests/protocols/fixture.h"

#include "runtime/memory/pool.h"
#include "tests/support/process.h"

#define REQ_NUMBER 48
#define REP_NUMBER 49
#define ID_BIT     0x80000000
#define ID         (ID_BIT | 1)

/* A REP socket that listens, and so many plain requesters, attached in order. */
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
    set_scene_with(scene, open_socket(SPOKE_REP), t, peers);
}

static void
clear_scene(struct scene *scene, int peers)
{
    for (int i = 0; i < peers; i++)
        raw_close(&scene->peers[i]);
    finish();
}

static void
raw_ask(struct raw_peer *p, uint32_t id, const char *text)
{
    cr_assert_eq(raw_send_words(p, &id, 1, text), RAW_OK);
}

/* `hops` words, counting the id; each hop has a number of its own. */
static void
raw_ask_from_afar(struct raw_peer *p, size_t hops, const char *text)
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

    raw_ask(p, id, "service?");
    expect_text(scene->s, "service?");
    send_text(scene->s, "always");
    raw_expect(p, &id, 1, "always");
}

/* ---- the wire ---- */

ON_EVERY_STREAM(rep, speaks_the_bytes_of_the_specification)
{
    static const uint8_t request[] = {1,    0, 0, 0, 0,   0,   0,   0,   9,
                                      0x80, 0, 0, 1, 'h', 'e', 'l', 'l', 'o'};
    static const uint8_t reply[] = {1,    0, 0, 0, 0,   0,   0,   0,   9,
                                    0x80, 0, 0, 1, 'W', 'O', 'R', 'L', 'D'};
    static const uint8_t req[] = {0, 'S', 'P', 0, 0, 0x30, 0, 0};
    static const uint8_t rep[] = {0, 'S', 'P', 0, 0, 0x31, 0, 0};
    spoke_socket *s = open_socket(SPOKE_REP);
    size_t skip = *t == IPC ? 0 : 1; /* the type byte */
    char url[ENDPOINT_MAX];
    uint8_t bytes[sizeof reply];
    struct raw_peer p;

    listen_on(s, *t, url);
    cr_assert_eq(raw_connect(&p, url, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_send_bytes(&p, req, sizeof req, RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(raw_recv_bytes(&p, bytes, sizeof rep, RAW_LIMIT_MS), RAW_OK);
    cr_assert_arr_eq(bytes, rep, sizeof rep);
    cr_assert_eq(raw_send_bytes(&p, request + skip, sizeof request - skip, RAW_LIMIT_MS), RAW_OK);
    expect_text(s, "hello");
    send_text(s, "WORLD");
    cr_assert_eq(raw_recv_bytes(&p, bytes, sizeof reply - skip, RAW_LIMIT_MS), RAW_OK);
    cr_assert_arr_eq(bytes, reply + skip, sizeof reply - skip);
    raw_close(&p);
    finish();
}

ON_EVERY_STREAM(rep, carries_the_backtrace_back)
{
    const uint32_t words[] = {0x12345678, ID_BIT | 0x42};
    struct scene scene;

    set_scene(&scene, *t, 1);
    cr_assert_eq(raw_send_words(&scene.peers[0], words, 2, "from behind a device"), RAW_OK);
    expect_text(scene.s, "from behind a device");
    send_text(scene.s, "back");
    raw_expect(&scene.peers[0], words, 2, "back");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(rep, takes_empty_requests_and_gives_empty_replies)
{
    const uint32_t id = ID;
    struct scene scene;

    set_scene(&scene, *t, 1);
    raw_ask(&scene.peers[0], id, "");
    expect_text(scene.s, "");
    send_text(scene.s, "");
    raw_expect(&scene.peers[0], &id, 1, "");
    clear_scene(&scene, 1);
}

/* ---- states ---- */

ON_EVERY_STREAM(rep, refuses_to_send_without_a_request)
{
    struct scene scene;

    set_scene(&scene, *t, 1);
    expect_send_error(scene.s, SPOKE_ESTATE);
    raw_ask(&scene.peers[0], ID, "arrived, not received");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_text(scene.s, "arrived, not received");
    send_text(scene.s, "reply");
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(rep, a_further_receive_abandons_the_request)
{
    const uint32_t second = ID + 1;
    struct scene scene;

    set_scene(&scene, *t, 1);
    raw_ask(&scene.peers[0], ID, "first");
    raw_ask(&scene.peers[0], second, "second");
    expect_text(scene.s, "first");
    expect_text(scene.s, "second");
    send_text(scene.s, "reply");
    raw_expect(&scene.peers[0], &second, 1, "reply");
    expect_send_error(scene.s, SPOKE_ESTATE);
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(rep, a_receive_that_fails_keeps_the_request)
{
    const uint32_t id = ID;
    struct scene scene;

    set_scene(&scene, *t, 1);
    raw_ask(&scene.peers[0], id, "request");
    expect_text(scene.s, "request");
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    send_text(scene.s, "reply");
    raw_expect(&scene.peers[0], &id, 1, "reply");
    clear_scene(&scene, 1);
}

/* Goal: the way back is that of the request received, not of the last one that arrived. */
ON_EVERY_STREAM(rep, answers_the_request_that_it_received)
{
    const uint32_t ids[] = {ID, ID + 1};
    struct scene scene;

    set_scene(&scene, *t, 2);
    raw_ask(&scene.peers[0], ids[0], "first");
    expect_text(scene.s, "first");
    raw_ask(&scene.peers[1], ids[1], "second");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    send_text(scene.s, "to the first");
    raw_expect(&scene.peers[0], &ids[0], 1, "to the first");
    expect_text(scene.s, "second");
    send_text(scene.s, "to the second");
    raw_expect(&scene.peers[1], &ids[1], 1, "to the second");
    clear_scene(&scene, 2);
}

/* Send with the first, second … allocation failing, until none does; returns how many times it
 * failed. */
static int
send_until_it_works(spoke_socket *s, spoke_msg *m, int flags)
{
    for (int failures = 0;; failures++) {
        spk_memory_fail_after((uint64_t)failures + 1);
        int rc = spoke_send(s, m, flags);
        spk_memory_fail_after(0);
        if (rc == 0)
            return failures;
        cr_assert_eq(rc, SPOKE_ENOMEM, "%s", spoke_error_name(rc));
        cr_assert_eq(spoke_msg_header_size(m), 0);
        cr_assert(text_is(m, "reply"));
    }
}

/* Goal: a send that fails keeps the request.  Method: a backtrace too long to lie in a message;
 * first a message that must be cloned, then one that the pipe has to make room for. */
ON_EVERY_STREAM(rep, a_send_that_fails_can_be_tried_again)
{
    struct scene scene;
    uint8_t bytes[256];

    own_engine();
    set_scene(&scene, *t, 1);
    set_ttl(scene.s, 20);
    for (int i = 0; i < 2; i++) {
        raw_ask_from_afar(&scene.peers[0], 20, "request");
        expect_text(scene.s, "request");
        spoke_msg *m = new_text("reply"), *other = i == 0 ? spoke_msg_dup(m) : NULL;
        int failures = send_until_it_works(scene.s, m, i == 0 ? 0 : SPOKE_MORE);
        cr_assert_geq(failures, 2, "%d", failures);
        cr_assert_eq(raw_recv(&scene.peers[0], bytes, sizeof bytes, RAW_LIMIT_MS), 20 * 4 + 5);
        cr_assert_eq(raw_get32(bytes + 19 * 4), ID);
        expect_send_error(scene.s, SPOKE_ESTATE);
        spoke_msg_free(other);
    }
    clear_scene(&scene, 1);
}

/* ---- hops ---- */

ON_EVERY_STREAM(rep, takes_as_many_words_as_its_limit_says)
{
    static const int limits[] = {8, 1, 2, 15, 16, 255}; /* the first is the default */
    struct scene scene;
    struct raw_peer *p = scene.peers;
    uint8_t bytes[2048];

    set_scene(&scene, *t, 1);
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

Test(rep, checks_its_hop_limit)
{
    static const int wrong[] = {0, -1, 256, 1 << 20};
    spoke_socket *s = open_socket(SPOKE_REP);
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

/* Each is dropped, however far it comes from, and neither its peer nor the others notice. */
ON_EVERY_STREAM(rep, drops_requests_from_too_far_and_keeps_their_pipe)
{
    static const size_t hops[] = {9, 15, 16, 17, 255, 256, 257, 1000, 10000};
    enum { COUNT = sizeof hops / sizeof *hops };
    struct scene scene;

    set_scene(&scene, *t, 2);
    for (uint64_t i = 0; i < COUNT; i++) {
        raw_ask_from_afar(&scene.peers[0], hops[i], "too far");
        wait_counter(scene.s, dropped_ttl, i + 1);
        expect_service(&scene, &scene.peers[0]);
        expect_service(&scene, &scene.peers[1]);
    }
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    cr_assert_eq(stats_of(scene.s).pipes_attached, 2);
    clear_scene(&scene, 2);
}

ON_EVERY_STREAM(rep, drops_words_without_end_and_keeps_the_pipe)
{
    static uint8_t zeros[1 << 20];
    struct scene scene;

    set_scene(&scene, *t, 1);
    for (int i = 0; i < 5; i++)
        cr_assert_eq(raw_send(&scene.peers[0], zeros, sizeof zeros), RAW_OK);
    expect_service(&scene, &scene.peers[0]);
    cr_assert_eq(stats_of(scene.s).dropped_ttl, 5);
    clear_scene(&scene, 1);
}

/* ---- requests that are none ---- */

ON_EVERY_STREAM(rep, closes_the_pipe_of_a_request_without_an_id)
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

ON_EVERY_STREAM(rep, is_not_led_astray_by_pipe_numbers_in_a_backtrace)
{
    struct scene scene;
    spoke_msg *m;

    set_scene(&scene, *t, 2);
    raw_ask(&scene.peers[0], ID, "who am I");
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

/* ---- peers ---- */

ON_EVERY_TRANSPORT(rep, serves_many_requesters)
{
    enum { COUNT = 8 };
    spoke_socket *rep = open_socket(SPOKE_REP), *req[COUNT];
    char url[ENDPOINT_MAX], text[COUNT][16];
    spoke_msg *m;

    listen_on(rep, *t, url);
    for (int i = 0; i < COUNT; i++) {
        req[i] = open_socket(SPOKE_REQ);
        dial(req[i], url);
        snprintf(text[i], sizeof text[i], "from %d", i);
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < COUNT; i++)
            send_text(req[i], text[i]);
        for (int i = 0; i < COUNT; i++) {
            cr_assert_eq(spoke_recv(rep, &m, 0), 0);
            cr_assert_eq(spoke_msg_header_size(m), 0);
            cr_assert_eq(spoke_send(rep, m, 0), 0);
        }
        for (int i = 0; i < COUNT; i++)
            expect_text(req[i], text[i]);
    }
    finish();
}

ON_EVERY_STREAM(rep, drops_the_reply_to_a_peer_that_is_gone)
{
    struct scene scene;

    set_scene(&scene, *t, 2);
    raw_ask(&scene.peers[0], ID, "goodbye");
    expect_text(scene.s, "goodbye");
    raw_close(&scene.peers[0]);
    wait_pipes(scene.s, 1);
    send_text(scene.s, "too late");
    cr_assert_eq(stats_of(scene.s).dropped_no_peer, 1);
    expect_send_error(scene.s, SPOKE_ESTATE);
    expect_service(&scene, &scene.peers[1]);
    clear_scene(&scene, 2);
}

/* Goal: who asks and never reads loses replies, and only he does. */
ON_EVERY_STREAM(rep, drops_replies_to_a_peer_that_does_not_read)
{
    enum { SIZE = 60000, MOST = 4000 };
    struct spoke_memory_stats memory;
    struct scene scene;
    int sent = 0;

    set_scene(&scene, *t, 2);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full < 20; sent++) {
        spoke_msg *m;
        raw_ask(&scene.peers[0], ID, "more");
        expect_text(scene.s, "more");
        cr_assert_eq(spoke_msg_new(&m, SIZE), 0);
        memset(spoke_msg_body(m), 0, SIZE);
        cr_assert_eq(spoke_send(scene.s, m, 0), 0);
        if (sent % 50 == 0)
            expect_service(&scene, &scene.peers[1]);
    }
    cr_assert_lt(sent, MOST, "nothing was dropped");
    expect_service(&scene, &scene.peers[1]);
    cr_assert_eq(stats_of(scene.s).pipes_current, 2);
    spoke_memory_stats(&memory);
    cr_assert_lt(memory.messages, 200);
    clear_scene(&scene, 2);
}

/* Goal: what waits for a slow peer arrives when it reads at last. */
ON_EVERY_STREAM(rep, keeps_some_replies_for_a_slow_peer)
{
    enum { SIZE = 60000, MOST = 4000 };
    static uint8_t bytes[SIZE + 4];
    struct scene scene;
    int sent = 0, arrived = 0;

    set_scene(&scene, *t, 1);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full == 0; sent++) {
        spoke_msg *m;
        raw_ask(&scene.peers[0], ID, "more");
        expect_text(scene.s, "more");
        cr_assert_eq(spoke_msg_new(&m, SIZE), 0);
        memset(spoke_msg_body(m), 0, SIZE);
        cr_assert_eq(spoke_send(scene.s, m, 0), 0);
    }
    cr_assert_eq(stats_of(scene.s).send_queue_high, 64);
    while (arrived < sent - 1) {
        cr_assert_eq(raw_recv(&scene.peers[0], bytes, sizeof bytes, RAW_LIMIT_MS), SIZE + 4);
        arrived++;
    }
    cr_assert(raw_is_quiet(&scene.peers[0], RAW_QUIET_MS));
    expect_service(&scene, &scene.peers[0]);
    cr_assert_eq(spoke_socket_set_duration(scene.s, SPOKE_OPT_LINGER, PATIENCE), 0);
    cr_assert_eq(spoke_socket_close(scene.s), 0, "nothing waits any more");
    clear_scene(&scene, 1);
}

struct flood {
    struct raw_peer *p;
    _Atomic bool stop;
    pthread_t thread;
};

static void *
run_flood(void *ctx)
{
    static uint8_t request[16 * 1024] = {0x80};
    struct flood *flood = ctx;

    while (!flood->stop && raw_send(flood->p, request, sizeof request) == RAW_OK) {
    }
    return NULL;
}

/* Goal: one peer that floods does not keep another waiting.  Method: the queue is full of the flood
 * when a single request arrives from elsewhere; it is among the next few. */
ON_EVERY_STREAM(rep, takes_turns_between_a_flood_and_a_single_request)
{
    spoke_socket *s = open_socket(SPOKE_REP);
    struct scene scene;
    spoke_msg *m;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 4), 0);
    set_scene_with(&scene, s, *t, 2);
    struct flood flood = {.p = &scene.peers[0]};
    cr_assert_eq(pthread_create(&flood.thread, NULL, run_flood, &flood), 0);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 50; i++) {
            cr_assert_eq(spoke_recv(s, &m, 0), 0);
            spoke_msg_free(m);
        }
        raw_ask(&scene.peers[1], ID, "single");
        sleep_ms(50); /* it has been read, and waits for its turn */
        int before = 0;
        for (bool found = false; !found; before += !found) {
            cr_assert_lt(before, 20, "round %d", round);
            cr_assert_eq(spoke_recv(s, &m, 0), 0);
            found = text_is(m, "single");
            spoke_msg_free(m);
        }
    }
    flood.stop = true;
    while (pthread_tryjoin_np(flood.thread, NULL) != 0) { /* it may wait for room */
        (void)spoke_recv(s, &m, SPOKE_DONTWAIT);
        spoke_msg_free(m);
    }
    clear_scene(&scene, 2);
}

static void
expect_equal_shares(const int *received, int peers, int after)
{
    for (int i = 0; i < peers; i++)
        for (int k = 0; k < peers; k++)
            cr_assert_leq(received[i], received[k] + 2, "after %d: %d and %d", after, received[i],
                          received[k]);
}

/* Goal: as long as several have something to say, each says one thing at a time.  Method: what they
 * have said waits before the first receive, in more than one read's worth; an engine that only runs
 * inside calls. */
ON_EVERY_STREAM(rep, takes_one_message_from_each_peer_at_a_time)
{
    enum { PEERS = 3, EACH = 20, SIZE = 6000 };
    static uint8_t request[SIZE] = {0x80};
    struct scene scene;
    int received[PEERS] = {0};
    spoke_msg *m;

    own_engine();
    set_scene(&scene, *t, PEERS);
    for (int i = 0; i < PEERS; i++) {
        request[4] = (uint8_t)i;
        for (int k = 0; k < EACH; k++)
            cr_assert_eq(raw_send(&scene.peers[i], request, SIZE), RAW_OK);
    }
    for (int n = 0; n < PEERS * EACH; n++) {
        cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
        received[*(uint8_t *)spoke_msg_body(m)]++;
        spoke_msg_free(m);
        expect_equal_shares(received, PEERS, n + 1);
    }
    clear_scene(&scene, PEERS);
}

/* What is dropped is nobody's turn: what follows it in the same read comes at the next. */
static void
expect_to_go_on(struct scene *scene, int peers)
{
    raw_ask(&scene->peers[0], ID, "one");
    raw_ask_from_afar(&scene->peers[0], 9, "too far");
    raw_ask_from_afar(&scene->peers[0], 9, "too far");
    raw_ask_from_afar(&scene->peers[0], 9, "too far");
    raw_ask(&scene->peers[0], ID, "two");
    sleep_ms(5);
    expect_text(scene->s, "one");
    expect_text(scene->s, "two");
    expect_service(scene, &scene->peers[0]);
    clear_scene(scene, peers);
}

ON_EVERY_STREAM(rep, goes_on_behind_what_it_drops_where_peers_take_turns)
{
    struct scene scene;

    own_engine();
    set_scene(&scene, *t, 2);
    expect_to_go_on(&scene, 2);
}

ON_EVERY_STREAM(rep, goes_on_behind_what_it_drops_without_a_queue)
{
    struct scene scene;

    own_engine();
    spoke_socket *s = open_socket(SPOKE_REP);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 0), 0);
    set_scene_with(&scene, s, *t, 1);
    expect_to_go_on(&scene, 1);
}

/* Goal: who was told of room and found none asks again.  Method: one neighbour's second message
 * fills the ring with its bytes; it can send once that is taken. */
Test(rep, takes_more_from_a_neighbour_whose_large_message_waited_its_turn)
{
    enum { LARGE = 2 << 20 };
    spoke_socket *rep, *req[2];
    const uint32_t id = ID;
    char url[ENDPOINT_MAX];
    spoke_msg *m;

    own_engine();
    rep = open_socket(SPOKE_REP);
    listen_on(rep, INPROC, url);
    for (int i = 0; i < 2; i++) {
        req[i] = open_raw(SPOKE_REQ);
        cr_assert_eq(spoke_socket_set_int(req[i], SPOKE_OPT_SEND_QUEUE, 0), 0);
        dial(req[i], url);
    }
    wait_pipes(rep, 2);
    for (int round = 0; round < 3; round++) {
        spoke_msg *both[2];

        for (int k = 0; k < 2; k++) {
            cr_assert_eq(spoke_msg_new(&both[k], k == 0 ? 1 : LARGE), 0);
            uint8_t words[4] = {id >> 24, id >> 16 & 0xff, id >> 8 & 0xff, id & 0xff};
            cr_assert_eq(spoke_msg_header_append(both[k], words, sizeof words), 0);
        }
        cr_assert_eq(spoke_sendv(req[0], both, 2, 0), 2, "round %d", round);
        for (int k = 0; k < 2; k++) {
            cr_assert_eq(spoke_recv(rep, &m, 0), 0, "round %d, message %d", round, k);
            spoke_msg_free(m);
        }
    }
    finish();
}

/* The same inside the process, where a ring takes the place of the kernel's buffers: two engines of
 * one thread, so that what one says waits until the other looks. */
Test(rep, takes_one_message_from_each_neighbour_at_a_time)
{
    enum { PEERS = 3, EACH = 20 };
    spoke_socket *rep, *req[PEERS];
    static const char *const names[PEERS] = {"0", "1", "2"};
    const uint32_t id = ID;
    int received[PEERS] = {0};
    char url[ENDPOINT_MAX];
    spoke_engine *there;
    spoke_msg *m;

    own_engine();
    rep = open_socket(SPOKE_REP);
    listen_on(rep, INPROC, url);
    cr_assert_eq(spoke_engine_open(&there, NULL), 0);
    for (int i = 0; i < PEERS; i++) {
        cr_assert_eq(spoke_socket_open(&req[i], SPOKE_REQ, there), 0);
        cr_assert_eq(spoke_socket_set_bool(req[i], SPOKE_OPT_RAW, true), 0);
        dial(req[i], url);
        while (stats_of(req[i]).pipes_current == 0) {
            sleep_ms(0);
            cr_assert_geq(spoke_engine_poll(there, 0), 0);
        }
    }
    for (int i = 0; i < PEERS; i++)
        for (int k = 0; k < EACH; k++)
            cr_assert_eq(spoke_send(req[i], new_with_words(&id, 1, names[i]), 0), 0);
    for (int n = 0; n < PEERS * EACH; n++) {
        cr_assert_eq(spoke_recv(rep, &m, 0), 0);
        received[*(char *)spoke_msg_body(m) - '0']++;
        spoke_msg_free(m);
        expect_equal_shares(received, PEERS, n + 1);
    }
    cr_assert_eq(spoke_engine_close(there), 0);
    finish();
}

/* Every reply is accounted for: it arrives, or was dropped, or is in the report. */
ON_EVERY_STREAM(rep, says_at_the_close_which_replies_were_not_delivered)
{
    enum { SIZE = 60000, MOST = 4000 };
    static uint8_t bytes[SIZE + 4];
    struct spoke_close_report report;
    struct scene scene;
    uint64_t sent = 0, arrived = 0;

    set_scene(&scene, *t, 1);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full == 0; sent++) {
        spoke_msg *m;
        raw_ask(&scene.peers[0], ID, "more");
        expect_text(scene.s, "more");
        cr_assert_eq(spoke_msg_new(&m, SIZE), 0);
        memset(spoke_msg_body(m), 0, SIZE);
        cr_assert_eq(spoke_send(scene.s, m, 0), 0);
    }
    cr_assert_eq(spoke_socket_set_duration(scene.s, SPOKE_OPT_LINGER, 50 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_close_report(scene.s, &report), SPOKE_ETIMEDOUT);
    cr_assert_geq(report.messages, 3); /* two that wait, one or more being written */
    cr_assert_geq(report.bytes, 2 * SIZE);
    while (raw_recv(&scene.peers[0], bytes, sizeof bytes, RAW_LIMIT_MS) == SIZE + 4)
        arrived++;
    cr_assert_eq(arrived + report.messages, sent - 1);
    clear_scene(&scene, 1);
}

/* ---- headers ---- */

ON_EVERY_STREAM(rep, replaces_a_header_that_the_user_left)
{
    const uint32_t words[] = {0x01020304, 0x85060708}, id = ID;
    struct scene scene;

    set_scene(&scene, *t, 1);
    raw_ask(&scene.peers[0], id, "request");
    expect_text(scene.s, "request");
    cr_assert_eq(spoke_send(scene.s, new_with_words(words, 2, "reply"), 0), 0);
    raw_expect(&scene.peers[0], &id, 1, "reply");
    clear_scene(&scene, 1);
}

ON_EVERY_TRANSPORT(rep, leaves_a_shared_message_to_its_other_holders)
{
    spoke_socket *rep = open_socket(SPOKE_REP), *req = open_socket(SPOKE_REQ);
    spoke_msg *m = new_text("same for all");

    connect_sockets(rep, req, *t);
    for (int i = 0; i < 3; i++) {
        send_text(req, "request");
        expect_text(rep, "request");
        cr_assert_eq(spoke_send(rep, spoke_msg_dup(m), 0), 0);
        expect_text(req, "same for all");
    }
    cr_assert(text_is(m, "same for all"));
    cr_assert_eq(spoke_msg_header_size(m), 0);
    spoke_msg_free(m);
    finish();
}

/* ---- descriptors ---- */

ON_EVERY_STREAM(rep, descriptors_say_what_its_state_allows)
{
    struct scene scene;

    set_scene(&scene, *t, 1);
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, false);
    raw_ask(&scene.peers[0], ID, "request");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, true);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, false);
    expect_text(scene.s, "request");
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    send_text(scene.s, "reply");
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, false);
    clear_scene(&scene, 1);
}

/* ---- numbers of pipes ---- */

ON_EVERY_STREAM(rep, numbers_pipes_one_after_the_other)
{
    struct scene scene;
    uint32_t last = 0;
    spoke_msg *m;

    set_scene(&scene, *t, 4);
    for (int i = 0; i < 4; i++) {
        raw_ask(&scene.peers[i], ID, "number");
        cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
        uint32_t number = spoke_msg_pipe(m), next = last == 0x7fffffff ? 1 : last + 1;
        spoke_msg_free(m);
        cr_assert(number != 0 && (number & ID_BIT) == 0, "%x", number);
        cr_assert(i == 0 || number == next, "%x after %x", number, last);
        last = number;
    }
    clear_scene(&scene, 4);
}

static int
low_bits_of_the_first_pipe(void *ctx)
{
    spoke_socket *a, *b;
    spoke_engine *e;
    spoke_msg *m;

    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&a, SPOKE_PAIR, e) == 0);
    CHILD_CHECK(spoke_socket_open(&b, SPOKE_PAIR, e) == 0);
    CHILD_CHECK(spoke_listen(a, ctx, NULL, 0) == 0);
    CHILD_CHECK(spoke_dial(b, ctx, NULL, 0) == 0);
    CHILD_CHECK(spoke_send_bytes(b, "x", 1, 0) == 0);
    CHILD_CHECK(spoke_recv(a, &m, 0) == 0);
    int bits = (int)(spoke_msg_pipe(m) >> 8 & 0x7f);
    spoke_msg_free(m);
    CHILD_CHECK(spoke_engine_close(e) == 0);
    return bits;
}

/* So that a reply to a former life finds nobody.  Five that begin alike are no accident. */
Test(rep, numbers_pipes_from_another_start_in_every_process)
{
    int first = child_run(low_bits_of_the_first_pipe, "inproc://numbers", 10), alike = 0;

    cr_assert_geq(first, 0);
    for (int i = 0; i < 4; i++)
        alike += child_run(low_bits_of_the_first_pipe, "inproc://numbers", 10) == first;
    cr_assert_lt(alike, 4);
}

/* ---- raw ---- */

ON_EVERY_STREAM(rep, raw_puts_its_pipe_in_front_of_the_backtrace)
{
    const uint32_t words[] = {0x12345678, ID};
    struct scene scene;
    spoke_msg *m;

    set_scene_with(&scene, open_raw(SPOKE_REP), *t, 1);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, true);
    cr_assert_eq(raw_send_words(&scene.peers[0], words, 2, "request"), RAW_OK);
    cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
    cr_assert_eq(spoke_msg_header_size(m), 12);
    cr_assert_eq(header_word(m, 0), spoke_msg_pipe(m));
    cr_assert_eq(header_word(m, 0) & ID_BIT, 0);
    cr_assert_eq(header_word(m, 1), words[0]);
    cr_assert_eq(header_word(m, 2), words[1]);
    cr_assert(text_is(m, "request"));
    cr_assert_eq(spoke_send(scene.s, spoke_msg_dup(m), 0), 0);
    raw_expect(&scene.peers[0], words, 2, "request");
    cr_assert_eq(spoke_msg_header_size(m), 12, "the other reference is as it was");
    cr_assert_eq(spoke_send(scene.s, m, 0), 0); /* no states: twice is fine */
    raw_expect(&scene.peers[0], words, 2, "request");
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(rep, raw_drops_what_has_no_way_back)
{
    static const size_t sizes[] = {0, 1, 3, 4, 5, 64, 1024, 1028};
    static uint8_t header[SPOKE_HEADER_MAX];
    struct scene scene;
    uint64_t dropped = 0;

    set_scene_with(&scene, open_raw(SPOKE_REP), *t, 1);
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

/* Whatever follows the pipe's number is sent as it is. */
ON_EVERY_STREAM(rep, raw_sends_any_header_behind_the_pipe)
{
    static const size_t sizes[] = {0, 1, 4, 5, 60, 61, 1020, 1024};
    static uint8_t header[SPOKE_HEADER_MAX], bytes[SPOKE_HEADER_MAX];
    struct scene scene;
    spoke_msg *m;

    set_scene_with(&scene, open_raw(SPOKE_REP), *t, 1);
    raw_ask(&scene.peers[0], ID, "request");
    cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
    raw_put32(header, header_word(m, 0));
    spoke_msg_free(m);
    for (size_t i = 4; i < sizeof header; i++)
        header[i] = (uint8_t)(i * 7);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        m = new_text("body");
        cr_assert_eq(spoke_msg_header_append(m, header, 4 + sizes[i]), 0);
        cr_assert_eq(spoke_send(scene.s, m, 0), 0);
        long size = raw_recv(&scene.peers[0], bytes, sizeof bytes, RAW_LIMIT_MS);
        cr_assert_eq(size, (long)sizes[i] + 4);
        cr_assert_arr_eq(bytes, header + 4, sizes[i]);
        cr_assert_arr_eq(bytes + sizes[i], "body", 4);
    }
    clear_scene(&scene, 1);
}

ON_EVERY_STREAM(rep, raw_checks_requests_as_the_cooked_one_does)
{
    struct scene scene;
    spoke_msg *m;

    set_scene_with(&scene, open_raw(SPOKE_REP), *t, 1);
    set_ttl(scene.s, 255);
    raw_ask_from_afar(&scene.peers[0], 256, "too far");
    raw_ask_from_afar(&scene.peers[0], 255, "far");
    cr_assert_eq(spoke_recv(scene.s, &m, 0), 0);
    cr_assert_eq(spoke_msg_header_size(m), 1024);
    cr_assert_eq(header_word(m, 255), ID);
    cr_assert(text_is(m, "far"));
    spoke_msg_free(m);
    cr_assert_eq(stats_of(scene.s).dropped_ttl, 1);
    raw_send_text(&scene.peers[0], "abc");
    cr_assert_eq(raw_wait_eof(&scene.peers[0], RAW_LIMIT_MS), RAW_OK);
    cr_assert_eq(stats_of(scene.s).garbled, 1);
    clear_scene(&scene, 1);
}

/* Goal: a device's replies do not drop as soon as a plain one's would. */
ON_EVERY_STREAM(rep, raw_keeps_more_replies_for_a_slow_peer)
{
    enum { SIZE = 60000, MOST = 4000 };
    struct scene scene;
    spoke_msg *request, *m;

    set_scene_with(&scene, open_raw(SPOKE_REP), *t, 1);
    raw_ask(&scene.peers[0], ID, "request");
    cr_assert_eq(spoke_recv(scene.s, &request, 0), 0);
    for (int i = 0; i < MOST && stats_of(scene.s).dropped_peer_full == 0; i++) {
        cr_assert_eq(spoke_msg_new(&m, SIZE), 0);
        memset(spoke_msg_body(m), 0, SIZE);
        cr_assert_eq(spoke_msg_header_append(m, spoke_msg_header(request), 8), 0);
        cr_assert_eq(spoke_send(scene.s, m, 0), 0);
    }
    cr_assert_eq(stats_of(scene.s).dropped_peer_full, 1);
    cr_assert_eq(stats_of(scene.s).send_queue_high, 64);
    spoke_msg_free(request);
    clear_scene(&scene, 1);
}

/* Inproc hands over header and body as they were sent: where a raw requester splits must not
 * matter. */
Test(rep, finds_the_body_wherever_the_sender_split)
{
    static const uint8_t words[] = {0, 0, 0, 9, 0x80, 0, 0, 5, 'b', 'o', 'd', 'y'};
    spoke_socket *rep = open_socket(SPOKE_REP), *req = open_raw(SPOKE_REQ);
    spoke_msg *m;

    connect_sockets(rep, req, INPROC);
    for (size_t split = 0; split <= sizeof words; split++) {
        cr_assert_eq(spoke_msg_from(&m, words + split, sizeof words - split), 0);
        cr_assert_eq(spoke_msg_header_append(m, words, split), 0);
        cr_assert_eq(spoke_send(req, m, 0), 0);
        expect_text(rep, "body");
        send_text(rep, "reply");
        cr_assert_eq(spoke_recv(req, &m, 0), 0);
        cr_assert_eq(spoke_msg_header_size(m), 8);
        cr_assert_arr_eq(spoke_msg_header(m), words, 8);
        cr_assert(text_is(m, "reply"));
        spoke_msg_free(m);
    }
    finish();
}

/* ---- devices, by hand: raw sockets back to back ---- */

struct device {
    spoke_socket *front, *back; /* REP, REQ */
};

static void
pass(spoke_socket *from, spoke_socket *to)
{
    spoke_msg *m;
    int rc = spoke_recv(from, &m, 0);

    cr_assert_eq(rc, 0, "%s", spoke_strerror(rc));
    cr_assert_eq(spoke_send(to, m, 0), 0);
}

/* Goal: two devices are two hops more.  Method: client, two devices, server. */
ON_EVERY_TRANSPORT(rep, answers_through_two_devices)
{
    spoke_socket *req = open_socket(SPOKE_REQ), *rep = open_socket(SPOKE_REP);
    struct device devices[2];

    for (int i = 0; i < 2; i++)
        devices[i] = (struct device){open_raw(SPOKE_REP), open_raw(SPOKE_REQ)};
    connect_sockets(devices[0].front, req, *t);
    connect_sockets(devices[1].front, devices[0].back, *t);
    connect_sockets(rep, devices[1].back, *t);
    for (int i = 0; i < 3; i++) {
        send_text(req, "ping");
        pass(devices[0].front, devices[0].back);
        pass(devices[1].front, devices[1].back);
        expect_text(rep, "ping");
        send_text(rep, "pong");
        pass(devices[1].back, devices[1].front);
        pass(devices[0].back, devices[0].front);
        expect_text(req, "pong");
    }
    set_ttl(rep, 3);
    send_text(req, "three words");
    pass(devices[0].front, devices[0].back);
    pass(devices[1].front, devices[1].back);
    expect_text(rep, "three words");
    set_ttl(rep, 2);
    send_text(req, "one too many");
    pass(devices[0].front, devices[0].back);
    pass(devices[1].front, devices[1].back);
    wait_counter(rep, dropped_ttl, 1);
    finish();
}

ON_EVERY_TRANSPORT(rep, a_device_drops_replies_for_those_who_left_and_goes_on)
{
    struct device d = {open_raw(SPOKE_REP), open_raw(SPOKE_REQ)};
    spoke_socket *rep = open_socket(SPOKE_REP), *first = open_socket(SPOKE_REQ);
    spoke_socket *second = open_socket(SPOKE_REQ);

    connect_sockets(rep, d.back, *t);
    connect_sockets(d.front, first, *t);
    connect_sockets(d.front, second, *t);
    send_text(first, "and away");
    pass(d.front, d.back);
    expect_text(rep, "and away");
    cr_assert_eq(spoke_socket_close(first), 0);
    wait_pipes(d.front, 1);
    send_text(rep, "where are you");
    pass(d.back, d.front);
    wait_counter(d.front, dropped_no_peer, 1);
    send_text(second, "me too");
    pass(d.front, d.back);
    expect_text(rep, "me too");
    send_text(rep, "fine");
    pass(d.back, d.front);
    expect_text(second, "fine");
    finish();
}
