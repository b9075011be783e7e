/* SPDX-License-Identifier: MIT */
/* What sockets of the shared engine have in front of its lock: messages received ahead, and
 * messages left for whoever has the lock.  Nobody may notice. */
#include "tests/protocols/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/core/core.h"

static void
send_numbers(spoke_socket *s, int first, int count)
{
    char text[16];

    for (int i = first; i < first + count; i++) {
        snprintf(text, sizeof text, "%d", i);
        send_text(s, text);
    }
}

static void
expect_numbers(spoke_socket *s, int first, int count)
{
    char text[16];

    for (int i = first; i < first + count; i++) {
        snprintf(text, sizeof text, "%d", i);
        expect_text(s, text);
    }
}

/* Twenty messages that have arrived, of which the first has been received: and with it some more,
 * ahead. */
static void
open_with_twenty(int sends, int receives, spoke_socket *s[2])
{
    s[0] = open_socket(sends);
    s[1] = open_socket(receives);
    if (receives == SPOKE_SUB)
        cr_assert_eq(spoke_socket_set_string(s[1], SPOKE_OPT_SUBSCRIBE, ""), 0);
    connect_sockets(s[0], s[1], INPROC);
    send_numbers(s[0], 0, 20);
    expect_numbers(s[1], 0, 1);
}

/* ---- received ahead ---- */

Test(front, messages_received_ahead_are_counted_when_they_are_taken)
{
    spoke_socket *s[2];

    open_with_twenty(SPOKE_PAIR, SPOKE_PAIR, s);
    cr_assert_eq(stats_of(s[1]).messages_received, 1);
    cr_assert_eq(stats_of(s[1]).bytes_received, 1);
    expect_numbers(s[1], 1, 11);
    cr_assert_eq(stats_of(s[1]).messages_received, 12);
    cr_assert_eq(stats_of(s[1]).bytes_received, 14);
    expect_numbers(s[1], 12, 8);
    expect_recv_error(s[1], SPOKE_EAGAIN);
    cr_assert_eq(stats_of(s[1]).messages_received, 20);
    finish();
}

Test(front, a_batch_begins_with_what_was_received_ahead)
{
    spoke_socket *s[2];
    spoke_msg *messages[64];
    char text[16];
    int n = 0;

    open_with_twenty(SPOKE_PUSH, SPOKE_PULL, s);
    while (n < 19) {
        int rc = spoke_recvv(s[1], messages + n, 64 - n, 0);

        cr_assert_gt(rc, 0);
        n += rc;
    }
    for (int i = 0; i < n; i++) {
        snprintf(text, sizeof text, "%d", i + 1);
        cr_assert(text_is(messages[i], text), "%d", i);
        spoke_msg_free(messages[i]);
    }
    cr_assert_eq(stats_of(s[1]).messages_received, 20);
    finish();
}

Test(front, a_descriptor_tells_of_what_was_received_ahead)
{
    spoke_socket *s[2];

    open_with_twenty(SPOKE_PAIR, SPOKE_PAIR, s);
    expect_fd(s[1], SPOKE_OPT_RECV_FD, true);
    expect_numbers(s[1], 1, 18);
    expect_fd(s[1], SPOKE_OPT_RECV_FD, true);
    expect_numbers(s[1], 19, 1);
    expect_fd(s[1], SPOKE_OPT_RECV_FD, false);
    send_numbers(s[0], 20, 20);
    expect_fd(s[1], SPOKE_OPT_RECV_FD, true);
    expect_numbers(s[1], 20, 20);
    expect_fd(s[1], SPOKE_OPT_RECV_FD, false);
    finish();
}

static void
count_up(spoke_socket *s, spoke_msg *m, void *ctx)
{
    atomic_int *next = ctx;
    char text[16];

    (void)s;
    snprintf(text, sizeof text, "%d", atomic_load(next));
    if (text_is(m, text))
        atomic_fetch_add(next, 1);
    spoke_msg_free(m);
}

Test(front, a_callback_gets_what_was_received_ahead)
{
    static atomic_int next = 1;
    spoke_socket *s[2];
    spoke_msg *m;

    open_with_twenty(SPOKE_PAIR, SPOKE_PAIR, s);
    cr_assert_eq(spoke_socket_on_message(s[1], count_up, &next), 0);
    cr_assert_eq(spoke_recv(s[1], &m, SPOKE_DONTWAIT), SPOKE_ESTATE);
    while (atomic_load(&next) < 20)
        sleep_ms(1);
    cr_assert_eq(spoke_socket_on_message(s[1], NULL, NULL), 0);
    send_numbers(s[0], 20, 20);
    expect_numbers(s[1], 20, 20);
    finish();
}

Test(front, who_unsubscribes_gets_nothing_that_was_received_ahead)
{
    spoke_socket *s[2];

    open_with_twenty(SPOKE_PUB, SPOKE_SUB, s);
    cr_assert_eq(spoke_socket_set_string(s[1], SPOKE_OPT_SUBSCRIBE, "1"), 0);
    cr_assert_eq(spoke_socket_set_string(s[1], SPOKE_OPT_UNSUBSCRIBE, ""), 0);
    expect_numbers(s[1], 1, 1);
    expect_numbers(s[1], 10, 10);
    expect_recv_error(s[1], SPOKE_EAGAIN);
    cr_assert_eq(stats_of(s[1]).messages_received, 12);
    finish();
}

Test(front, a_short_queue_is_not_made_longer)
{
    spoke_socket *s = open_socket(SPOKE_PULL), *push = open_socket(SPOKE_PUSH);

    cr_assert_eq(spoke_socket_set_int(s, SPOKE_OPT_RECV_QUEUE, 8), 0);
    cr_assert_eq(spoke_socket_set_int(push, SPOKE_OPT_SEND_QUEUE, 0), 0);
    connect_sockets(s, push, INPROC);
    int most = 0;
    while (spoke_send_bytes(push, "x", 1, SPOKE_DONTWAIT) == 0)
        most++;
    expect_text(s, "x");
    /* One has been received: one or two can follow, not a whole inbox. */
    int more = 0;
    for (int i = 0; i < 20; i++, sleep_ms(1))
        while (spoke_send_bytes(push, "x", 1, SPOKE_DONTWAIT) == 0)
            more++;
    cr_assert_leq(more, 8, "after %d", most);
    for (int i = 1; i < most + more; i++)
        expect_text(s, "x");
    finish();
}

/* ---- left for whoever has the lock ---- */

struct sender {
    spoke_socket *s;
    int first, count;
    _Atomic(pid_t) tid;
    pthread_t thread;
};

static void *
run_sender(void *argument)
{
    struct sender *sender = argument;
    char text[16];

    for (int i = sender->first; i < sender->first + sender->count; i++) {
        int size = snprintf(text, sizeof text, "%d", i);

        if (spoke_send_bytes(sender->s, text, (size_t)size, 0) != 0)
            return sender;
    }
    return NULL;
}

static void
send_while_the_lock_is_held(struct sender *sender)
{
    struct spk_engine *e;
    void *failed;

    cr_assert_eq(spk_engine_default(&e), 0);
    cr_assert_eq(spk_engine_enter(e), 0);
    cr_assert_eq(pthread_create(&sender->thread, NULL, run_sender, sender), 0);
    cr_assert_eq(pthread_join(sender->thread, &failed), 0); /* it does not wait for us */
    cr_assert_null(failed);
    spk_engine_leave(e);
}

static void
open_pair(spoke_socket *s[2], enum transport t)
{
    s[0] = open_socket(SPOKE_PAIR);
    s[1] = open_socket(SPOKE_PAIR);
    connect_sockets(s[0], s[1], t);
    send_numbers(s[0], 0, 1); /* from now on messages may be left */
    expect_numbers(s[1], 0, 1);
}

ON_EVERY_TRANSPORT(front, a_send_does_not_wait_for_the_lock)
{
    spoke_socket *s[2];
    struct sender sender = {.first = 1, .count = 50};

    open_pair(s, *t);
    sender.s = s[0];
    send_while_the_lock_is_held(&sender);
    cr_assert_eq(stats_of(s[0]).messages_sent, 51);
    send_numbers(s[0], 51, 10); /* these do not overtake them */
    expect_numbers(s[1], 1, 60);
    finish();
}

static void *
run_known_sender(void *argument)
{
    struct sender *sender = argument;

    atomic_store(&sender->tid, (pid_t)syscall(SYS_gettid));
    return run_sender(argument);
}

Test(front, what_may_be_left_is_bounded_in_bytes_too)
{
    spoke_socket *s[2];
    struct sender sender = {.first = 100, .count = 200};
    struct spk_engine *e;
    uint64_t count, bytes;
    int slept = 0;
    void *failed;

    open_pair(s, IPC);
    sender.s = s[0];
    cr_assert_eq(spoke_socket_set_size(s[0], SPOKE_OPT_SEND_QUEUE_BYTES, 20), 0);
    send_numbers(s[0], 99, 1);
    cr_assert_eq(spk_engine_default(&e), 0);
    cr_assert_eq(spk_engine_enter(e), 0);
    cr_assert_eq(pthread_create(&sender.thread, NULL, run_known_sender, &sender), 0);
    while (atomic_load(&sender.tid) == 0)
        sleep_ms(1);
    do { /* until it waits for the lock: it may have slept elsewhere */
        cr_assert(await_sleep(atomic_load(&sender.tid)));
        count = spk_front_pending(spk_handle_front(s[0], SPK_HANDLE_SOCKET), &bytes);
    } while (count < 6 && ++slept < 1000);
    spk_engine_leave(e);
    cr_assert_eq(count, 6);
    cr_assert_eq(bytes, 18);
    expect_numbers(s[1], 99, 201);
    cr_assert_eq(pthread_join(sender.thread, &failed), 0);
    cr_assert_null(failed);
    finish();
}

Test(front, a_close_takes_along_what_was_left)
{
    spoke_socket *s[2];
    struct sender sender = {.first = 1, .count = 100};
    struct spoke_close_report report;

    open_pair(s, IPC);
    sender.s = s[0];
    send_while_the_lock_is_held(&sender);
    cr_assert_eq(spoke_socket_close_report(s[0], &report), 0);
    cr_assert_eq(report.messages, 0);
    expect_numbers(s[1], 1, 100);
    finish();
}

/* A peer that takes nothing, and so many messages that most of the last fifty, which were left,
 * could not be sent. */
static void
open_with_stuck(spoke_socket *s[2])
{
    struct sender sender = {.first = 51, .count = 50};

    s[0] = sender.s = open_socket(SPOKE_PUSH);
    s[1] = open_socket(SPOKE_PULL);
    cr_assert_eq(spoke_socket_set_int(s[0], SPOKE_OPT_SEND_QUEUE, 50), 0);
    cr_assert_eq(spoke_socket_set_int(s[1], SPOKE_OPT_RECV_QUEUE, 4), 0);
    connect_sockets(s[0], s[1], INPROC);
    send_numbers(s[0], 0, 51);
    send_while_the_lock_is_held(&sender);
}

/* Nothing overtakes it, and no more is left behind it. */
Test(front, what_cannot_be_sent_waits_in_its_place)
{
    spoke_socket *s[2];

    open_with_stuck(s);
    expect_send_error(s[0], SPOKE_EAGAIN);
    expect_fd(s[0], SPOKE_OPT_SEND_FD, false);
    cr_assert_eq(stats_of(s[0]).messages_sent, 101);
    expect_numbers(s[1], 0, 50);
    expect_numbers(s[1], 50, 51);
    expect_fd(s[0], SPOKE_OPT_SEND_FD, true);
    send_numbers(s[0], 101, 2);
    expect_numbers(s[1], 101, 2);
    cr_assert_eq(stats_of(s[0]).messages_sent, 103);
    cr_assert_eq(stats_of(s[0]).bytes_sent, 10 + 90 * 2 + 3 * 3);
    finish();
}

Test(front, what_cannot_be_sent_is_told_of_by_close)
{
    struct spoke_close_report report;
    spoke_socket *s[2];

    open_with_stuck(s);
    cr_assert_eq(spoke_socket_set_duration(s[0], SPOKE_OPT_LINGER, 10 * SPOKE_MS), 0);
    cr_assert_eq(spoke_socket_close_report(s[0], &report), SPOKE_ETIMEDOUT);
    cr_assert_gt(report.messages, 80, "%llu", (unsigned long long)report.messages);
    finish();
}

static void *
close_socket(void *argument)
{
    spoke_socket_close(argument);
    return NULL;
}

Test(front, a_lingering_close_delivers_what_had_to_wait)
{
    spoke_socket *s[2];
    pthread_t thread;

    open_with_stuck(s);
    cr_assert_eq(spoke_socket_set_duration(s[0], SPOKE_OPT_LINGER, PATIENCE), 0);
    cr_assert_eq(pthread_create(&thread, NULL, close_socket, s[0]), 0);
    expect_numbers(s[1], 0, 101);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    finish();
}

/* The library's thread looks for work without end and without sleep. */
Test(front, a_polling_engine_sends_what_was_left)
{
    char url[ENDPOINT_MAX];
    struct raw_peer peer;
    spoke_socket *s;

    cr_assert_eq(setenv("SPOKE_WAIT", "poll", 1), 0);
    s = open_socket(SPOKE_PAIR);
    listen_on(s, IPC, url);
    join(&peer, s, url, 1);
    for (int i = 0; i < 1000; i++) {
        send_text(s, "first");
        send_text(s, "second");
        raw_expect(&peer, NULL, 0, "first");
        raw_expect(&peer, NULL, 0, "second");
    }
    raw_close(&peer);
    finish();
}

static atomic_bool in_callback, leave_callback;

static void
stay(spoke_socket *s, spoke_msg *m, void *ctx)
{
    (void)s;
    (void)ctx;
    spoke_msg_free(m);
    atomic_store(&in_callback, true);
    while (!atomic_load(&leave_callback))
        sleep_ms(1);
}

/* The callback may be waiting for the answer to it. */
Test(front, what_was_left_does_not_wait_for_the_end_of_a_callback)
{
    struct sender sender = {.first = 1, .count = 3};
    char url[ENDPOINT_MAX];
    struct raw_peer peer;
    spoke_socket *s = open_socket(SPOKE_PAIR);

    listen_on(s, IPC, url);
    join(&peer, s, url, 1);
    send_numbers(s, 0, 1);
    raw_expect(&peer, NULL, 0, "0");
    cr_assert_eq(spoke_socket_on_message(s, stay, NULL), 0);
    raw_send_text(&peer, "stay");
    while (!atomic_load(&in_callback))
        sleep_ms(1);
    sender.s = s;
    send_while_the_lock_is_held(&sender);
    raw_expect(&peer, NULL, 0, "1");
    raw_expect(&peer, NULL, 0, "2");
    raw_expect(&peer, NULL, 0, "3");
    atomic_store(&leave_callback, true);
    raw_close(&peer);
    finish();
}

/* ---- many threads ---- */

enum { SENDERS = 4, EACH = 20000 };

struct numbered {
    uint32_t sender, number;
};

static void *
send_numbered(void *argument)
{
    struct sender *sender = argument;

    for (int i = 0; i < EACH; i++) {
        struct numbered n = {(uint32_t)sender->first, (uint32_t)i};

        if (spoke_send_bytes(sender->s, &n, sizeof n, 0) != 0)
            return sender;
    }
    return NULL;
}

ON_EVERY_TRANSPORT(front, each_thread_s_messages_keep_their_order)
{
    spoke_socket *push = open_socket(SPOKE_PUSH), *pull = open_socket(SPOKE_PULL);
    struct sender senders[SENDERS];
    uint32_t next[SENDERS] = {0};
    void *failed;

    connect_sockets(push, pull, *t);
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.s = push, .first = i};
        cr_assert_eq(pthread_create(&senders[i].thread, NULL, send_numbered, &senders[i]), 0);
    }
    for (int i = 0; i < SENDERS * EACH; i++) {
        struct numbered n;
        size_t size = sizeof n;

        cr_assert_eq(spoke_recv_bytes(pull, &n, &size, 0), 0);
        cr_assert_eq(size, sizeof n);
        cr_assert_eq(n.number, next[n.sender]++);
    }
    for (int i = 0; i < SENDERS; i++) {
        pthread_join(senders[i].thread, &failed);
        cr_assert_null(failed);
    }
    cr_assert_eq(stats_of(push).messages_sent, SENDERS * EACH);
    cr_assert_eq(stats_of(pull).messages_received, SENDERS * EACH);
    finish();
}

static atomic_int received;

static void *
receive_until_closed(void *argument)
{
    spoke_msg *m;
    int rc;

    while ((rc = spoke_recv(argument, &m, 0)) == 0) {
        spoke_msg_free(m);
        atomic_fetch_add(&received, 1);
    }
    return rc == SPOKE_ECLOSED ? NULL : argument;
}

Test(front, several_threads_receive_each_message_once)
{
    spoke_socket *push = open_socket(SPOKE_PUSH), *pull = open_socket(SPOKE_PULL);
    struct sender sender = {.s = push};
    pthread_t threads[3];
    void *failed;

    cr_assert_eq(spoke_socket_set_duration(pull, SPOKE_OPT_RECV_TIMEOUT, SPOKE_FOREVER), 0);
    connect_sockets(push, pull, INPROC);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, receive_until_closed, pull), 0);
    cr_assert_null(send_numbered(&sender));
    while (atomic_load(&received) < EACH)
        sleep_ms(1);
    cr_assert_eq(spoke_socket_close(pull), 0);
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], &failed);
        cr_assert_null(failed);
    }
    cr_assert_eq(atomic_load(&received), EACH);
    finish();
}

static void *
send_until_closed(void *argument)
{
    int rc;

    while ((rc = spoke_send_bytes(argument, "x", 1, 0)) == 0)
        continue;
    return rc == SPOKE_ECLOSED ? NULL : argument;
}

Test(front, a_close_ends_senders_and_receivers)
{
    for (int round = 0; round < 50; round++) {
        spoke_socket *push, *pull;
        pthread_t threads[4];
        void *failed;

        cr_assert_eq(spoke_socket_open(&push, SPOKE_PUSH, NULL), 0);
        cr_assert_eq(spoke_socket_open(&pull, SPOKE_PULL, NULL), 0);
        cr_assert_eq(spoke_socket_set_duration(push, SPOKE_OPT_LINGER, 0), 0);
        connect_sockets(push, pull, INPROC);
        for (int i = 0; i < 4; i++)
            cr_assert_eq(pthread_create(&threads[i], NULL,
                                        i % 2 == 0 ? send_until_closed : receive_until_closed,
                                        i % 2 == 0 ? push : pull),
                         0);
        while (stats_of(pull).messages_received < 100)
            sleep_ms(0);
        spoke_socket_close(round % 2 == 0 ? push : pull);
        spoke_socket_close(round % 2 == 0 ? pull : push);
        for (int i = 0; i < 4; i++) {
            pthread_join(threads[i], &failed);
            cr_assert_null(failed);
        }
    }
    finish();
}
