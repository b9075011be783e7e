/* SPDX-License-Identifier: MIT */
/* Messages that a send took and that nobody will get: which come back, why, and when.  Method: a
 * callback notes the beginning and the reason of each; finish() shows that none of them leaks. */
#include <stdatomic.h>
#include <stdio.h>

#include "tests/protocols/scene.h"

#define NOTES_MAX 1024

struct note {
    int reason;
    size_t size;
    char text[16];
    bool bare; /* no header, nobody else has it */
};

struct notes {
    atomic_int count;
    struct note all[NOTES_MAX];
    bool (*then)(spoke_socket *s, spoke_msg *m, struct notes *notes); /* true: it took m */
    spoke_socket *other;
    int rc;
};

static struct notes notes;

static void
on_undelivered(spoke_socket *s, spoke_msg *m, int reason, void *ctx)
{
    int count = notes.count;
    struct note *n = &notes.all[count % NOTES_MAX];
    size_t size = spoke_msg_size(m);

    *n = (struct note){.reason = reason, .size = size};
    if (size > 0)
        memcpy(n->text, spoke_msg_body(m), size < sizeof n->text ? size : sizeof n->text - 1);
    n->bare = spoke_msg_header_size(m) == 0 && spoke_msg_is_unique(m);
    if (ctx != &notes)
        n->reason = 1;
    if (notes.then == NULL || !notes.then(s, m, &notes))
        spoke_msg_free(m);
    notes.count = count + 1;
}

static spoke_socket *
open_noting(int pattern)
{
    spoke_socket *s = open_socket(pattern);

    cr_assert_eq(spoke_socket_on_undelivered(s, on_undelivered, &notes), 0);
    return s;
}

static void
wait_notes(int count)
{
    for (int i = 0; i < 10000 * SPOKE_TEST_SLOWDOWN && notes.count < count; i++)
        sleep_ms(1);
    cr_assert_eq(notes.count, count);
}

static void
expect_note(int index, int reason, const char *text)
{
    const struct note *n = &notes.all[index];

    cr_assert_lt(index, notes.count);
    cr_assert_eq(n->reason, reason, "%s", spoke_error_name(n->reason));
    cr_assert_str_eq(n->text, text);
    cr_assert(n->bare);
}

/* Its number, then anything. */
static int
send_number(spoke_socket *s, int number, size_t size, int flags)
{
    char text[16];
    spoke_msg *m = new_text("");
    int rc;

    snprintf(text, sizeof text, "%06d", number);
    cr_assert_eq(spoke_msg_append(m, text, 6), 0);
    cr_assert_eq(spoke_msg_append(m, NULL, size - 6), 0);
    memset((char *)spoke_msg_body(m) + 6, 0, size - 6);
    if ((rc = spoke_send(s, m, flags)) != 0)
        spoke_msg_free(m);
    return rc;
}

static void
expect_numbers(int from, int to, int reason)
{
    char text[16];

    for (int i = from; i < to; i++) {
        snprintf(text, sizeof text, "%06d", i);
        expect_note(i - from, reason, text);
    }
}

/* Both kinds of engine. */
#define ON_BOTH_ENGINES(Name)                                                                      \
    static void Name(void);                                                                        \
    Test(undelivered, Name)                                                                        \
    {                                                                                              \
        Name();                                                                                    \
    }                                                                                              \
    Test(undelivered, Name##_owned)                                                                \
    {                                                                                              \
        own_engine();                                                                              \
        Name();                                                                                    \
    }                                                                                              \
    static void Name(void)

/* ---- expired ---- */

static void
expired(enum transport t)
{
    spoke_socket *push = open_noting(SPOKE_PUSH), *pull = open_socket(SPOKE_PULL);

    send_text(push, "stays");
    cr_assert_eq(spoke_socket_set_duration(push, SPOKE_OPT_SEND_EXPIRY, 1), 0);
    send_text(push, "expires");
    spoke_msg *m = new_text("shared"), *mine = spoke_msg_dup(m);
    cr_assert_eq(spoke_send(push, m, 0), 0);
    cr_assert_eq(spoke_socket_set_duration(push, SPOKE_OPT_SEND_EXPIRY, 0), 0);
    send_text(push, "stays too");
    connect_sockets(push, pull, t);
    expect_text(pull, "stays");
    expect_text(pull, "stays too");
    wait_notes(2);
    expect_note(0, SPOKE_ETIMEDOUT, "expires");
    expect_note(1, SPOKE_ETIMEDOUT, "shared");
    cr_assert(text_is(mine, "shared"));
    spoke_msg_free(mine);
    cr_assert_eq(stats_of(push).dropped_expired, 2);
    cr_assert_eq(spoke_socket_close(push), 0);
    finish();
    cr_assert_eq(notes.count, 2);
}

ON_EVERY_TRANSPORT(undelivered, what_has_expired_comes_back)
{
    expired(*t);
}

ON_EVERY_TRANSPORT(undelivered, what_has_expired_comes_back_owned)
{
    own_engine();
    expired(*t);
}

/* ---- no room ---- */

static void
answers_without_room(int pattern, enum transport t)
{
    enum { SIZE = 60000, MOST = 4000 };
    struct scene scene;
    int sent = 0;

    set_scene(&scene, watch_pipes(open_noting(pattern)), t, 1);
    for (; sent < MOST && stats_of(scene.s).dropped_peer_full < 20; sent++) {
        raw_send_word(&scene.peers[0], ID, "more");
        expect_text(scene.s, "more");
        cr_assert_eq(send_number(scene.s, sent, SIZE, 0), 0);
    }
    cr_assert_lt(sent, MOST, "nothing was dropped");
    wait_notes(20);
    expect_numbers(sent - 20, sent, SPOKE_ELIMIT);
    cr_assert_eq(notes.all[0].size, SIZE);
    /* And so does what the queue and the connection still have, when that ends. */
    raw_reset(&scene.peers[0]);
    int gone = (int)last_stats_of(0).dropped_lost;
    cr_assert_gt(gone, 64, "the queue, and what the connection had taken");
    wait_notes(20 + gone);
    for (int i = 20; i < notes.count; i++)
        cr_assert_eq(notes.all[i].reason, SPOKE_ECONNRESET);
    finish();
}
SAME_ON_EVERY_STREAM(rep, what_its_peer_has_no_room_for_comes_back, answers_without_room)
SAME_ON_EVERY_STREAM(respondent, what_its_peer_has_no_room_for_comes_back, answers_without_room)

ON_BOTH_ENGINES(what_best_effort_drops_comes_back)
{
    spoke_socket *s = open_noting(SPOKE_PUSH);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 1), 0);
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_BEST_EFFORT, true), 0);
    send_text(s, "waits");
    send_text(s, "dropped");
    wait_notes(1);
    expect_note(0, SPOKE_EAGAIN, "dropped");
    finish();
    cr_assert_eq(notes.count, 2);
    expect_note(1, SPOKE_ECLOSED, "waits");
}

/* Goal: whoever does not run the callback does not gather messages without end. */
Test(undelivered, no_more_wait_for_the_callback_than_there_may)
{
    enum { MOST = 256 };
    own_engine();
    spoke_socket *s = open_noting(SPOKE_PUSH), *pull = open_socket(SPOKE_PULL);
    struct spoke_memory_stats memory;

    connect_sockets(s, pull, INPROC);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SEND_EXPIRY, 1), 0);
    for (int i = 0; i < MOST; i++)
        cr_assert_eq(send_number(s, i, 6, SPOKE_DONTWAIT), 0);
    cr_assert_eq(send_number(s, MOST, 6, SPOKE_DONTWAIT), SPOKE_EAGAIN);
    expect_fd(s, SPOKE_OPT_SEND_FD, false);
    cr_assert_eq(notes.count, 0);
    cr_assert_eq(send_number(s, MOST, 6, 0), 0, "the wait runs the callback");
    cr_assert_gt(notes.count, 0);
    expect_fd(s, SPOKE_OPT_SEND_FD, true);
    wait_notes(MOST + 1);
    expect_numbers(0, MOST + 1, SPOKE_ETIMEDOUT);
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_BEST_EFFORT, true), 0);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(send_number(s, i, 6, 0), 0, "it does not wait, whatever is lost");
    spoke_memory_stats(&memory);
    cr_assert_leq(memory.messages, MOST);
    wait_notes(MOST + 1 + MOST);
    cr_assert_eq(stats_of(s).dropped_best_effort, 1000 - MOST);
    finish();
}

/* ---- lost ---- */

ON_BOTH_ENGINES(an_answer_to_who_is_gone_comes_back)
{
    struct scene scene;

    set_scene(&scene, open_noting(SPOKE_REP), TCP, 1);
    raw_send_word(&scene.peers[0], ID, "and gone");
    expect_text(scene.s, "and gone");
    raw_close(&scene.peers[0]);
    wait_pipes(scene.s, 0);
    send_text(scene.s, "anybody?");
    wait_notes(1);
    expect_note(0, SPOKE_ENOPEER, "anybody?");
    finish();
}

/* What the kernel has not taken whole comes back, all of it, in order; what waits for the next peer
 * goes to that. */
static void
lost(enum transport t, size_t size, int flags)
{
    enum { QUEUE = 8, MOST = 1000000 };
    static uint8_t bytes[60000];
    spoke_socket *s = open_noting(SPOKE_PAIR);
    char url[ENDPOINT_MAX], text[16];
    struct raw_peer idle, next;
    int sent = 0;

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, QUEUE), 0);
    listen_on(s, t, url);
    join(&idle, s, url, 1);
    for (int quiet = 0; quiet < 20; settle(), quiet++) /* until the kernel takes no more */
        for (; send_number(s, sent, size, SPOKE_DONTWAIT | flags) == 0; quiet = 0)
            cr_assert_lt(sent++, MOST);
    raw_reset(&idle);
    wait_pipes(s, 0);
    wait_lost(s, 1);
    int gone = (int)stats_of(s).dropped_lost;
    wait_notes(gone);
    expect_numbers(sent - QUEUE - gone, sent - QUEUE, SPOKE_ECONNRESET);
    cr_assert_eq(notes.all[0].size, size);
    join(&next, s, url, 1);
    for (int i = sent - QUEUE; i < sent; i++) {
        snprintf(text, sizeof text, "%06d", i);
        cr_assert_eq(raw_recv(&next, bytes, sizeof bytes, RAW_LIMIT_MS), (long)size);
        cr_assert_arr_eq(bytes, text, 6);
    }
    raw_close(&next);
    finish();
    cr_assert_eq(notes.count, gone);
}

ON_EVERY_STREAM(undelivered, small_ones_that_are_lost_come_back)
{
    lost(*t, 100, 0);
}

ON_EVERY_STREAM(undelivered, large_ones_that_are_lost_come_back)
{
    lost(*t, 60000, 0);
}

ON_EVERY_STREAM(undelivered, what_is_lost_comes_back_owned)
{
    own_engine();
    lost(*t, 3000, SPOKE_MORE);
}

/* ---- left at the close ---- */

static bool
is_closed(spoke_socket *s, spoke_msg *m, struct notes *n)
{
    int rc = spoke_send(s, m, SPOKE_DONTWAIT);

    if (rc != SPOKE_ECLOSED)
        n->rc = 1;
    return rc == 0;
}

ON_BOTH_ENGINES(what_is_left_comes_back_before_the_close_returns)
{
    struct spoke_close_report report;
    spoke_socket *s = open_noting(SPOKE_PUSH);

    for (int i = 0; i < 100; i++) /* more than are told together */
        cr_assert_eq(send_number(s, i, 10, 0), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 10 * SPOKE_MS), 0);
    notes.then = is_closed;
    cr_assert_eq(spoke_socket_close_report(s, &report), SPOKE_ETIMEDOUT);
    cr_assert_eq(notes.count, 100);
    cr_assert_eq(report.messages, 100);
    expect_numbers(0, 100, SPOKE_ECLOSED);
    cr_assert_eq(notes.rc, 0);
    finish();
}

/* In the connection too. */
ON_EVERY_STREAM(undelivered, all_that_the_report_counts_has_come_back)
{
    struct spoke_close_report report;
    spoke_socket *s = open_noting(SPOKE_PUSH);
    char url[ENDPOINT_MAX];
    struct raw_peer idle;
    int sent = 0;

    listen_on(s, *t, url);
    join(&idle, s, url, 1);
    while (send_number(s, sent, 60000, SPOKE_DONTWAIT) == 0)
        sent++;
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 10 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_close_report(s, &report), SPOKE_ETIMEDOUT);
    cr_assert_gt(report.messages, 128);
    cr_assert_eq(notes.count, (int)report.messages);
    for (int i = 0; i < notes.count; i++)
        cr_assert_eq(notes.all[i].reason, SPOKE_ECLOSED);
    raw_close(&idle);
    finish();
}

Test(undelivered, what_is_left_comes_back_when_the_engine_closes)
{
    own_engine();
    spoke_engine *e;
    spoke_socket *s;

    cr_assert_eq(spoke_engine_open(&e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, e), 0);
    cr_assert_eq(spoke_socket_on_undelivered(s, on_undelivered, &notes), 0);
    cr_assert_eq(spoke_send_bytes(s, "left", 4, 0), 0);
    cr_assert_eq(spoke_engine_close(e), 0);
    cr_assert_eq(notes.count, 1);
    expect_note(0, SPOKE_ECLOSED, "left");
    finish();
}

ON_BOTH_ENGINES(a_request_that_never_went_out_comes_back_at_the_close)
{
    spoke_socket *s = open_noting(SPOKE_REQ);
    spoke_context *c = open_context(s);

    send_text(s, "replaced");
    send_text(s, "unsent");
    context_send_text(c, "in a context");
    cr_assert_eq(spoke_context_close(c), 0);
    wait_notes(1);
    expect_note(0, SPOKE_ECLOSED, "in a context");
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 0), 0);
    cr_assert_eq(spoke_socket_close(s), SPOKE_ETIMEDOUT);
    cr_assert_eq(notes.count, 2);
    expect_note(1, SPOKE_ECLOSED, "unsent");
    finish();
}

ON_BOTH_ENGINES(a_request_that_went_out_does_not_come_back)
{
    struct scene scene;

    set_scene(&scene, open_noting(SPOKE_REQ), TCP, 1);
    send_text(scene.s, "seen");
    (void)raw_expect_request(&scene.peers[0], "seen");
    raw_reset(&scene.peers[0]);
    wait_pipes(scene.s, 0);
    finish();
    cr_assert_eq(notes.count, 0);
}

/* ---- the callback ---- */

/* What came back before, and the callback has not had yet, is told during the close. */
Test(undelivered, a_close_does_not_outrun_the_callback)
{
    own_engine();
    spoke_socket *s = open_noting(SPOKE_PUSH);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 1), 0);
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_BEST_EFFORT, true), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(send_number(s, i, 6, 0), 0);
    cr_assert_eq(notes.count, 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 0), 0);
    cr_assert_eq(spoke_socket_close(s), SPOKE_ETIMEDOUT);
    cr_assert_eq(notes.count, 3);
    expect_note(0, SPOKE_EAGAIN, "000001");
    expect_note(1, SPOKE_EAGAIN, "000002");
    expect_note(2, SPOKE_ECLOSED, "000000");
    finish();
}

/* As if there had been none: also what came back already is freed. */
Test(undelivered, a_callback_can_be_taken_away)
{
    own_engine();
    spoke_socket *s = open_noting(SPOKE_PUSH);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 1), 0);
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_BEST_EFFORT, true), 0);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(send_number(s, i, 6, 0), 0);
    cr_assert_eq(spoke_socket_on_undelivered(s, NULL, NULL), 0);
    finish();
    cr_assert_eq(notes.count, 0);
}

static bool
close_it(spoke_socket *s, spoke_msg *m, struct notes *n)
{
    (void)m;
    n->then = NULL;
    n->rc = spoke_socket_close(s);
    return false;
}

ON_BOTH_ENGINES(the_callback_may_close_the_socket)
{
    spoke_socket *s = open_noting(SPOKE_PUSH);

    notes.then = close_it;
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 1), 0);
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_BEST_EFFORT, true), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 0), 0);
    send_text(s, "left");
    send_text(s, "dropped");
    wait_notes(2);
    cr_assert_eq(notes.rc, 0);
    expect_note(0, SPOKE_EAGAIN, "dropped");
    expect_note(1, SPOKE_ECLOSED, "left");
    finish();
}

static bool
send_on_other(spoke_socket *s, spoke_msg *m, struct notes *n)
{
    (void)s;
    return (n->rc = spoke_send(n->other, m, SPOKE_DONTWAIT)) == 0;
}

ON_BOTH_ENGINES(the_callback_may_send_it_elsewhere)
{
    spoke_socket *s = open_noting(SPOKE_PUSH), *other = open_socket(SPOKE_PUSH),
                 *pull = open_socket(SPOKE_PULL);

    notes.then = send_on_other;
    notes.other = other;
    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, 0), 0);
    cr_assert_eq(spoke_socket_set_bool(s, SPOKE_OPT_BEST_EFFORT, true), 0);
    connect_sockets(other, pull, INPROC);
    for (int i = 0; i < 3; i++) {
        send_text(s, "the long way");
        expect_text(pull, "the long way");
    }
    finish();
}

/* ---- who has it ---- */

Test(undelivered, is_for_those_that_send_to_one)
{
    static const int none[] = {SPOKE_PUB, SPOKE_SUB,  SPOKE_PULL,
                               SPOKE_BUS, SPOKE_STAR, SPOKE_SURVEYOR};
    static const int some[] = {SPOKE_PAIR, SPOKE_PAIR1, SPOKE_REQ,
                               SPOKE_REP,  SPOKE_PUSH,  SPOKE_RESPONDENT};

    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        cr_assert_eq(spoke_socket_on_undelivered(open_socket(none[i]), on_undelivered, &notes),
                     SPOKE_ENOTSUP);
    for (size_t i = 0; i < sizeof some / sizeof *some; i++)
        cr_assert_eq(spoke_socket_on_undelivered(open_socket(some[i]), on_undelivered, &notes), 0);
    finish();
}

Test(undelivered, nothing_comes_back_from_a_raw_socket)
{
    spoke_socket *s = open_raw(SPOKE_PUSH);

    cr_assert_eq(spoke_socket_on_undelivered(s, on_undelivered, &notes), 0);
    send_text(s, "left");
    finish();
    cr_assert_eq(notes.count, 0);
}

/* Goal: messages that are delivered never come back, whichever way they went, and neither does one
 * that the receiver drops. */
ON_EVERY_TRANSPORT(undelivered, what_is_delivered_does_not_come_back)
{
    enum { COUNT = 500 };
    spoke_socket *a = open_noting(SPOKE_PAIR), *b = open_noting(SPOKE_PAIR);
    spoke_msg *messages[COUNT];

    connect_sockets(a, b, *t);
    for (int round = 0; round < 3; round++) {
        int sent = 0;
        for (int i = 0; i < COUNT; i++)
            messages[i] = new_text("there");
        while (sent < COUNT) {
            int n = spoke_sendv(a, messages + sent, COUNT - sent < 100 ? COUNT - sent : 100, 0);
            cr_assert_gt(n, 0);
            for (int i = 0; i < n; i++) { /* the same message goes back where it may */
                spoke_msg *m = recv_message(b);
                cr_assert(text_is(m, "there"));
                cr_assert_eq(spoke_send(b, m, 0), 0);
                expect_text(a, "there");
            }
            sent += n;
        }
    }
    cr_assert_eq(spoke_socket_close(a), 0);
    cr_assert_eq(spoke_socket_close(b), 0);
    finish();
    cr_assert_eq(notes.count, 0);
}
