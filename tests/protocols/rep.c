/* SPDX-License-Identifier: MIT */
/* REP: what it does with requests and peers of every kind, beside what it shares with RESPONDENT
 * (answer.c). */
#include <stdio.h>

#include "tests/protocols/scene.h"

#include "runtime/memory/pool.h"
#include "tests/support/process.h"

/* ---- states ---- */

ON_EVERY_STREAM(rep, a_receive_that_fails_keeps_the_request)
{
    const uint32_t id = ID;
    struct scene scene;

    set_scene(&scene, open_socket(SPOKE_REP), *t, 1);
    raw_send_word(&scene.peers[0], id, "request");
    expect_text(scene.s, "request");
    expect_recv_error(scene.s, SPOKE_EAGAIN);
    send_text(scene.s, "reply");
    raw_expect(&scene.peers[0], &id, 1, "reply");
    clear_scene(&scene, 1);
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
    set_scene(&scene, open_socket(SPOKE_REP), *t, 1);
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

/* Each is dropped, however far it comes from, and neither its peer nor the others notice. */
ON_EVERY_STREAM(rep, drops_requests_from_too_far_and_keeps_their_pipe)
{
    static const size_t hops[] = {9, 15, 16, 17, 255, 256, 257, 1000, 10000};
    enum { COUNT = sizeof hops / sizeof *hops };
    struct scene scene;

    set_scene(&scene, open_socket(SPOKE_REP), *t, 2);
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

/* Goal: what waits for a slow peer arrives when it reads at last. */
ON_EVERY_STREAM(rep, keeps_some_replies_for_a_slow_peer)
{
    enum { SIZE = 60000, MOST = 4000 };
    static uint8_t bytes[SIZE + 4];
    struct scene scene;
    int sent = 0, arrived = 0;

    set_scene(&scene, open_socket(SPOKE_REP), *t, 1);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full == 0; sent++) {
        spoke_msg *m;
        raw_send_word(&scene.peers[0], ID, "more");
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
    watch_pipes(s);
    set_scene(&scene, s, *t, 2);
    struct flood flood = {.p = &scene.peers[0]};
    cr_assert_eq(pthread_create(&flood.thread, NULL, run_flood, &flood), 0);
    for (int round = 0; round < 5; round++) {
        for (int i = 0; i < 50; i++) {
            cr_assert_eq(spoke_recv(s, &m, 0), 0);
            spoke_msg_free(m);
        }
        raw_send_word(&scene.peers[1], ID, "single");
        wait_arrived(s, 1, (uint64_t)round + 1); /* it waits for its turn */
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
    set_scene(&scene, watch_pipes(open_socket(SPOKE_REP)), *t, PEERS);
    for (int i = 0; i < PEERS; i++) {
        request[4] = (uint8_t)i;
        for (int k = 0; k < EACH; k++)
            cr_assert_eq(raw_send(&scene.peers[i], request, SIZE), RAW_OK);
    }
    for (size_t i = 0; i < PEERS; i++)
        wait_arrived(scene.s, i, 1);
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
    raw_send_word(&scene->peers[0], ID, "one");
    raw_ask_from_afar(&scene->peers[0], 9, "too far");
    raw_ask_from_afar(&scene->peers[0], 9, "too far");
    raw_ask_from_afar(&scene->peers[0], 9, "too far");
    raw_send_word(&scene->peers[0], ID, "two");
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
    set_scene(&scene, open_socket(SPOKE_REP), *t, 2);
    expect_to_go_on(&scene, 2);
}

ON_EVERY_STREAM(rep, goes_on_behind_what_it_drops_without_a_queue)
{
    struct scene scene;

    own_engine();
    spoke_socket *s = open_socket(SPOKE_REP);
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 0), 0);
    set_scene(&scene, s, *t, 1);
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

    set_scene(&scene, open_socket(SPOKE_REP), *t, 1);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full == 0; sent++) {
        spoke_msg *m;
        raw_send_word(&scene.peers[0], ID, "more");
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

    set_scene(&scene, open_socket(SPOKE_REP), *t, 1);
    raw_send_word(&scene.peers[0], id, "request");
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

    set_scene(&scene, open_socket(SPOKE_REP), *t, 1);
    expect_fd(scene.s, SPOKE_OPT_RECV_FD, false);
    expect_fd(scene.s, SPOKE_OPT_SEND_FD, false);
    raw_send_word(&scene.peers[0], ID, "request");
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

    set_scene(&scene, open_socket(SPOKE_REP), *t, 4);
    for (int i = 0; i < 4; i++) {
        raw_send_word(&scene.peers[i], ID, "number");
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

/* Whatever follows the pipe's number is sent as it is. */
ON_EVERY_STREAM(rep, raw_sends_any_header_behind_the_pipe)
{
    static const size_t sizes[] = {0, 1, 4, 5, 60, 61, 1020, 1024};
    static uint8_t header[SPOKE_HEADER_MAX], bytes[SPOKE_HEADER_MAX];
    struct scene scene;
    spoke_msg *m;

    set_scene(&scene, open_raw(SPOKE_REP), *t, 1);
    raw_send_word(&scene.peers[0], ID, "request");
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

    set_scene(&scene, open_raw(SPOKE_REP), *t, 1);
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
    wait_counter(scene.s, garbled, 1);
    clear_scene(&scene, 1);
}

/* Goal: a device's replies do not drop as soon as a plain one's would. */
ON_EVERY_STREAM(rep, raw_keeps_more_replies_for_a_slow_peer)
{
    enum { SIZE = 60000, MOST = 4000 };
    struct scene scene;
    spoke_msg *request, *m;

    set_scene(&scene, open_raw(SPOKE_REP), *t, 1);
    raw_send_word(&scene.peers[0], ID, "request");
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
