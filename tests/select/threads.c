/* SPDX-License-Identifier: MIT */
/* Several threads that select on the same things of the shared engine. */
#include "tests/select/fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#define THREADS 4
#define SOCKETS 3

/* ---- who is late goes on waiting ---- */

struct many {
    spoke_socket *pull[SOCKETS];
    atomic_int taken, late, closed;
};

static void *
take_until_closed(void *ctx)
{
    struct many *m = ctx;
    spoke_select_case cases[SOCKETS];
    size_t which;
    int rc;

    for (int i = 0; i < SOCKETS; i++)
        cases[i] = (spoke_select_case){.what = SPOKE_SELECT_SOCKET_RECV, .of.socket = m->pull[i]};
    while ((rc = spoke_select(cases, SOCKETS, &which, NULL, SPOKE_FOREVER)) == 0) {
        char text[16];
        size_t size = sizeof text;

        rc = spoke_recv_bytes(m->pull[which], text, &size, SPOKE_DONTWAIT);
        if (rc == 0)
            atomic_fetch_add(&m->taken, 1);
        else if (rc == SPOKE_EAGAIN)
            atomic_fetch_add(&m->late, 1);
    }
    if (rc == SPOKE_ECLOSED)
        atomic_fetch_add(&m->closed, 1);
    return NULL;
}

/* Every message is taken by one of them, whoever is told; closing one of the sockets ends them all.
 */
static void
share(const char *prefix)
{
    const int messages = TEST_REPEATS(4000);
    struct scene sc;
    struct many m = {0};
    spoke_socket *push[SOCKETS];
    pthread_t threads[THREADS];
    spoke_ns limit;

    scene_open(&sc, SHARED);
    for (int i = 0; i < SOCKETS; i++) {
        char url[64];

        snprintf(url, sizeof url, "%sthreads-%d-%d", prefix, (int)getpid(), i);
        expect_rc(spoke_socket_open(&m.pull[i], SPOKE_PULL, NULL), 0);
        expect_rc(spoke_socket_open(&push[i], SPOKE_PUSH, NULL), 0);
        expect_rc(spoke_listen(m.pull[i], url, NULL, 0), 0);
        expect_rc(spoke_dial(push[i], url, NULL, SPOKE_WAIT_FIRST), 0);
    }
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, take_until_closed, &m), 0);
    for (int i = 0; i < messages; i++) {
        expect_rc(spoke_send_bytes(push[i % SOCKETS], "x", 1, 0), 0);
        if (i % 100 == 0)
            usleep(100); /* so that they sleep sometimes */
    }
    limit = scene_in(&sc, PATIENCE);
    while (atomic_load(&m.taken) < messages && spoke_engine_now(NULL) < limit)
        usleep(1000);
    cr_assert_eq(atomic_load(&m.taken), messages);
    expect_rc(spoke_socket_close(m.pull[1]), 0);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    cr_assert_eq(atomic_load(&m.closed), THREADS);
    for (int i = 0; i < SOCKETS; i++) {
        (void)spoke_socket_close(m.pull[i]);
        expect_rc(spoke_socket_close(push[i]), 0);
    }
    scene_close(&sc);
}

Test(threads, share_messages_inproc)
{
    share("inproc://");
}

Test(threads, share_messages_ipc)
{
    share("ipc://@");
}

/* ---- a stream that somebody else reads ---- */

static void *
read_one(void *ctx)
{
    char byte;
    size_t done;

    return (void *)(intptr_t)spoke_stream_read(ctx, &byte, 1, &done);
}

static void *
select_read(void *ctx)
{
    spoke_select_case c = {.what = SPOKE_SELECT_STREAM_READ, .of.stream = ctx};
    size_t which;

    return (void *)(intptr_t)spoke_select(&c, 1, &which, NULL, SPOKE_FOREVER);
}

/* The read was first and has the byte; the select goes on, until there is another. */
Test(threads, a_reader_goes_before_who_selects)
{
    for (int i = 0; i < TEST_REPEATS(40) + 1; i++) {
        struct scene sc;
        spoke_stream *a, *b;
        pthread_t reader, selector;
        void *rc[2];
        size_t done;

        scene_open(&sc, SHARED);
        expect_rc(spoke_stream_pair(&a, &b, NULL, NULL), 0);
        cr_assert_eq(pthread_create(&reader, NULL, read_one, a), 0);
        usleep(500);
        cr_assert_eq(pthread_create(&selector, NULL, select_read, a), 0);
        usleep(500);
        expect_rc(spoke_stream_write(b, "x", 1, &done), 0);
        pthread_join(reader, &rc[0]);
        expect_rc((int)(intptr_t)rc[0], 0);
        expect_rc(spoke_stream_write(b, "y", 1, &done), 0);
        pthread_join(selector, &rc[1]);
        expect_rc((int)(intptr_t)rc[1], 0);
        expect_rc(spoke_stream_close(a), 0);
        expect_rc(spoke_stream_close(b), 0);
        scene_close(&sc);
    }
}

/* ---- channels without depth ---- */

static void *
receive_one(void *ctx)
{
    spoke_msg *m;
    int rc = spoke_receiver_recv(ctx, &m, SPOKE_FOREVER);

    if (rc == 0)
        spoke_msg_free(m);
    return (void *)(intptr_t)rc;
}

/* The sender is ready while a receive waits, and then a send need not. */
Test(threads, who_receives_makes_a_sender_without_depth_ready)
{
    struct scene sc;
    spoke_channel_config config;
    spoke_select_case c = {.what = SPOKE_SELECT_SENDER};
    spoke_receiver *rx;
    spoke_sender *tx;

    scene_open(&sc, SHARED);
    spoke_channel_config_init(&config);
    config.depth = 0;
    expect_rc(spoke_channel_pair(&rx, &tx, &config, NULL), 0);
    c.of.sender = tx;
    for (int i = 0; i < TEST_REPEATS(200) + 1; i++) {
        pthread_t thread;
        spoke_msg *m;
        size_t which;
        void *result;
        int rc;

        expect_rc(spoke_select(&c, 1, &which, NULL, SPOKE_NOW), SPOKE_EAGAIN);
        cr_assert_eq(pthread_create(&thread, NULL, receive_one, rx), 0);
        expect_rc(spoke_msg_new(&m, 0), 0);
        do
            expect_rc(spoke_select(&c, 1, &which, NULL, SPOKE_FOREVER), 0);
        while ((rc = spoke_sender_send(tx, m, SPOKE_NOW)) == SPOKE_EAGAIN);
        expect_rc(rc, 0);
        pthread_join(thread, &result);
        expect_rc((int)(intptr_t)result, 0);
    }
    expect_rc(spoke_receiver_close(rx), 0);
    expect_rc(spoke_sender_close(tx), 0);
    scene_close(&sc);
}

static void *
send_one(void *ctx)
{
    spoke_msg *m;
    int rc;

    if (spoke_msg_new(&m, 0) != 0)
        return (void *)(intptr_t)SPOKE_ENOMEM;
    if ((rc = spoke_sender_send(ctx, m, SPOKE_FOREVER)) != 0)
        spoke_msg_free(m);
    return (void *)(intptr_t)rc;
}

Test(threads, who_sends_makes_a_receiver_without_depth_ready)
{
    struct scene sc;
    spoke_channel_config config;
    spoke_select_case c = {.what = SPOKE_SELECT_RECEIVER};
    spoke_receiver *rx;
    spoke_sender *tx;

    scene_open(&sc, SHARED);
    spoke_channel_config_init(&config);
    config.depth = 0;
    expect_rc(spoke_channel_pair(&rx, &tx, &config, NULL), 0);
    c.of.receiver = rx;
    for (int i = 0; i < TEST_REPEATS(200) + 1; i++) {
        pthread_t thread;
        spoke_msg *m;
        size_t which;
        void *result;

        expect_rc(spoke_select(&c, 1, &which, NULL, SPOKE_NOW), SPOKE_EAGAIN);
        cr_assert_eq(pthread_create(&thread, NULL, send_one, tx), 0);
        expect_rc(spoke_select(&c, 1, &which, NULL, SPOKE_FOREVER), 0);
        expect_rc(spoke_receiver_recv(rx, &m, SPOKE_NOW), 0);
        spoke_msg_free(m);
        pthread_join(thread, &result);
        expect_rc((int)(intptr_t)result, 0);
    }
    expect_rc(spoke_receiver_close(rx), 0);
    expect_rc(spoke_sender_close(tx), 0);
    scene_close(&sc);
}

/* ---- a storm ---- */

struct storm {
    spoke_socket *pull;
    spoke_stream *stream;
    spoke_receiver *rx;
    int fd;
    atomic_int messages, bytes, fd_bytes, received;
    atomic_bool stop;
};

static void *
take_anything(void *ctx)
{
    struct storm *st = ctx;
    spoke_select_case cases[] = {
        {.what = SPOKE_SELECT_SOCKET_RECV, .of.socket = st->pull},
        {.what = SPOKE_SELECT_STREAM_READ, .of.stream = st->stream},
        {.what = SPOKE_SELECT_FD_READ, .of.fd = st->fd},
        {.what = SPOKE_SELECT_TIME},
        {.what = SPOKE_SELECT_RECEIVER, .of.receiver = st->rx},
    };
    char bytes[64];
    spoke_msg *m;

    while (!atomic_load(&st->stop)) {
        size_t which, size = sizeof bytes;

        cases[3].of.when = spoke_engine_now(NULL) + 50 * SPOKE_MS;
        if (spoke_select(cases, 5, &which, NULL, SPOKE_FOREVER) != 0)
            return "select failed";
        if (which == 0 && spoke_recv_bytes(st->pull, bytes, &size, SPOKE_DONTWAIT) == 0)
            atomic_fetch_add(&st->messages, 1);
        if (which == 1 && spoke_stream_read(st->stream, bytes, sizeof bytes, &size) == 0)
            atomic_fetch_add(&st->bytes, (int)size);
        if (which == 2) {
            ssize_t n = read(st->fd, bytes, sizeof bytes);

            atomic_fetch_add(&st->fd_bytes, n > 0 ? (int)n : 0);
        }
        if (which == 4 && spoke_receiver_recv(st->rx, &m, SPOKE_NOW) == 0) {
            atomic_fetch_add(&st->received, 1);
            spoke_msg_free(m);
        }
    }
    return NULL;
}

/* Different sources at once, through which nothing is lost, and nobody sleeps on. */
Test(threads, take_all_of_what_comes_from_anywhere)
{
    const int rounds = TEST_REPEATS(3000);
    struct scene sc;
    struct storm st = {0};
    struct thing pull, reader, fds, channel;
    pthread_t threads[THREADS];
    spoke_ns limit;

    scene_open(&sc, SHARED);
    thing_open(&pull, &sc, kind_of("socket-recv-ipc"));
    thing_open(&reader, &sc, kind_of("reader-ipc"));
    thing_open(&fds, &sc, kind_of("fd-read"));
    thing_open(&channel, &sc, kind_of("receiver"));
    st.rx = channel.rx;
    st.pull = pull.s[0];
    st.stream = reader.stream[0];
    st.fd = fds.fd[0];
    expect_rc(spoke_stream_set_read_deadline(st.stream, SPOKE_NOW), 0);
    for (int i = 0; i < THREADS; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, take_anything, &st), 0);
    for (int i = 0; i < rounds; i++) {
        size_t done;

        expect_rc(spoke_send_bytes(pull.s[1], "x", 1, 0), 0);
        expect_rc(spoke_stream_write(reader.stream[1], "x", 1, &done), 0);
        while (write(fds.fd[1], "x", 1) != 1)
            usleep(100);
        expect_rc((int)(intptr_t)send_one(channel.tx), 0);
        if (i % 64 == 0)
            usleep(200);
    }
    limit = scene_in(&sc, PATIENCE);
    while ((atomic_load(&st.messages) < rounds || atomic_load(&st.bytes) < rounds ||
            atomic_load(&st.fd_bytes) < rounds || atomic_load(&st.received) < rounds) &&
           spoke_engine_now(NULL) < limit)
        usleep(1000);
    cr_assert_eq(atomic_load(&st.messages), rounds);
    cr_assert_eq(atomic_load(&st.bytes), rounds);
    cr_assert_eq(atomic_load(&st.fd_bytes), rounds);
    cr_assert_eq(atomic_load(&st.received), rounds);
    atomic_store(&st.stop, true);
    for (int i = 0; i < THREADS; i++) {
        void *wrong;

        pthread_join(threads[i], &wrong);
        cr_assert_null(wrong);
    }
    thing_close(&pull);
    thing_close(&reader);
    thing_close(&fds);
    thing_close(&channel);
    scene_close(&sc);
}
