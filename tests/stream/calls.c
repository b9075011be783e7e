/* SPDX-License-Identifier: MIT */
/* What each call says, to whom, and which of several errors comes first. */
#include "tests/stream/fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/process.h"

PLACE_TEST(stream_calls, listen_and_accept, places_listening)
{
    struct stage st;
    spoke_stream_listener *l;
    spoke_stream *a, *b;
    char url[ENDPOINT_MAX], got[ENDPOINT_MAX];

    stage_open(&st, p);
    fresh_url(&st, url);
    expect_rc(spoke_stream_listen(&l, url, stage_config(&st, NULL), st.e[1]), 0);
    expect_rc(spoke_stream_accept(l, &a, SPOKE_NOW), SPOKE_EAGAIN);
    cr_assert_null(a);
    expect_rc(spoke_stream_listener_address(l, got, sizeof got), 0);
    cr_assert_str_eq(got, url);
    expect_rc(spoke_stream_dial(&a, url, stage_config(&st, NULL), st.e[0], stage_in(&st, PATIENCE)),
              0);
    expect_rc(spoke_stream_accept(l, &b, stage_in(&st, PATIENCE)), 0);
    if (is_over_ws(p)) /* connections have no path */
        *strstr(url, "/a/path") = '\0';
    expect_rc(spoke_stream_address(a, SPOKE_REMOTE, got, sizeof got), 0);
    cr_assert_str_eq(got, url);
    expect_rc(spoke_stream_address(b, SPOKE_LOCAL, got, sizeof got), 0);
    cr_assert_str_eq(got, url);
    expect_rc(spoke_stream_address(a, SPOKE_LOCAL, got, sizeof got), 0);
    expect_rc(spoke_stream_address(b, SPOKE_REMOTE, got, sizeof got), 0);
    expect_rc(spoke_stream_address(a, SPOKE_REMOTE, got, 4), SPOKE_ERANGE);
    expect_rc(spoke_stream_listener_address(l, got, 4), SPOKE_ERANGE);
    write_text(a, "hello");
    expect_text(b, "hello");
    expect_rc(spoke_stream_close(a), 0);
    expect_rc(spoke_stream_close(b), 0);
    expect_rc(spoke_stream_listener_close(l), 0);
    stage_close(&st);
}

PLACE_TEST(stream_calls, a_chosen_port_is_in_the_address, places_listening_real)
{
    struct stage st;
    spoke_stream_listener *l;
    spoke_stream *a;
    char url[ENDPOINT_MAX];

    stage_open(&st, p);
    if (is_over_tcp(p)) {
        expect_rc(spoke_stream_listen(&l, "tcp://127.0.0.1:0", NULL, st.e[1]), 0);
        expect_rc(spoke_stream_listener_address(l, url, sizeof url), 0);
        cr_assert_str_neq(url, "tcp://127.0.0.1:0");
        expect_rc(
            spoke_stream_dial(&a, url, stage_config(&st, NULL), st.e[0], stage_in(&st, PATIENCE)),
            0);
        expect_rc(spoke_stream_close(a), 0);
        expect_rc(spoke_stream_listener_close(l), 0);
    }
    stage_close(&st);
}

PLACE_TEST(stream_calls, duplicate_listen, places_listening)
{
    struct stage st;
    spoke_stream_listener *l, *other;
    char url[ENDPOINT_MAX];

    stage_open(&st, p);
    fresh_url(&st, url);
    for (int round = 0; round < 2; round++) { /* the name is free again at once */
        expect_rc(spoke_stream_listen(&l, url, stage_config(&st, NULL), st.e[1]), 0);
        expect_rc(spoke_stream_listen(&other, url, stage_config(&st, NULL), st.e[1]),
                  SPOKE_EADDRINUSE);
        cr_assert_null(other);
        expect_rc(spoke_stream_listener_close(l), 0);
    }
    stage_close(&st);
}

PLACE_TEST(stream_calls, connection_refused, places_listening)
{
    struct stage st;
    spoke_stream_listener *l;
    spoke_stream *a;
    char url[ENDPOINT_MAX];

    stage_open(&st, p);
    fresh_url(&st, url);
    for (int round = 0; round < 2; round++) {
        expect_rc(
            spoke_stream_dial(&a, url, stage_config(&st, NULL), st.e[0], stage_in(&st, PATIENCE)),
            SPOKE_ECONNREFUSED);
        cr_assert_null(a);
        expect_rc(spoke_stream_listen(&l, url, stage_config(&st, NULL), st.e[1]), 0);
        expect_rc(spoke_stream_listener_close(l), 0);
    }
    stage_close(&st);
}

/* The writer changes its memory right after the write. */
PLACE_TEST(stream_calls, echo, places)
{
    struct ends d;
    uint8_t bytes[1024];
    size_t done;

    ends_open(&d, p, NULL);
    bytes_fill(bytes, sizeof bytes, 0);
    expect_rc(spoke_stream_write(d.end[0], bytes, sizeof bytes, &done), 0);
    memset(bytes, 0, sizeof bytes);
    expect_rc(spoke_stream_read_full(d.end[1], bytes, sizeof bytes, &done), 0);
    cr_assert(bytes_hold(bytes, sizeof bytes, 0));
    expect_rc(spoke_stream_write(d.end[1], bytes, sizeof bytes, &done), 0);
    memset(bytes, 0, sizeof bytes);
    read_bytes(d.end[0], 0, sizeof bytes);
    ends_close(&d);
}

PLACE_TEST(stream_calls, nothing_is_nothing, places)
{
    struct iovec none[2] = {{NULL, 0}, {NULL, 0}};
    struct ends d;
    spoke_msg *m;
    size_t done;
    char byte;

    ends_open(&d, p, NULL);
    /* A write of nothing takes no place of anything (S3), so that there is still room. */
    for (int i = 0; i < 2000; i++) {
        expect_rc(spoke_stream_write(d.end[0], NULL, 0, &done), 0);
        cr_assert_eq(done, 0);
        expect_rc(spoke_stream_writev(d.end[0], none, 2, &done), 0);
        expect_rc(spoke_msg_new(&m, 0), 0);
        done = 99;
        expect_rc(spoke_stream_write_chunk(d.end[0], m, &done), 0);
        cr_assert_eq(done, 0);
    }
    stage_pass(&d.st, 3 * SPOKE_MS);
    expect_rc(read_now(d.end[1]), SPOKE_EAGAIN);
    /* Reads of nothing neither wait nor mind deadlines. */
    for (int past = 0; past < 2; past++) {
        done = 99;
        expect_rc(spoke_stream_read(d.end[1], &byte, 0, &done), 0);
        cr_assert_eq(done, 0);
        done = 99;
        expect_rc(spoke_stream_read_full(d.end[1], NULL, 0, &done), 0);
        cr_assert_eq(done, 0);
        expect_rc(spoke_stream_readv(d.end[1], none, 2, &done), 0);
        expect_rc(spoke_stream_readv(d.end[1], none, 0, &done), 0);
        expect_rc(spoke_stream_set_deadline(d.end[1], 1), 0);
    }
    expect_rc(spoke_stream_set_deadline(d.end[1], SPOKE_FOREVER), 0);
    write_text(d.end[0], "x");
    expect_text(d.end[1], "x");
    ends_close(&d);
}

PLACE_TEST(stream_calls, the_first_of_several_errors, places)
{
    struct ends d;

    ends_open(&d, p, NULL);
    write_text(d.end[1], "unread");
    stage_pass(&d.st, 3 * SPOKE_MS);
    /* Time before data; time before a peer that has gone. */
    expect_rc(spoke_stream_set_deadline(d.end[0], 1), 0);
    expect_rc(read_one(d.end[0]), SPOKE_ETIMEDOUT);
    expect_rc(write_one(d.end[0]), SPOKE_ETIMEDOUT);
    expect_rc(spoke_stream_close_read(d.end[1]), 0);
    expect_rc(spoke_stream_close_write(d.end[1]), 0);
    stage_pass(&d.st, 3 * SPOKE_MS);
    expect_rc(read_one(d.end[0]), SPOKE_ETIMEDOUT);
    expect_rc(write_one(d.end[0]), SPOKE_ETIMEDOUT);
    /* Data before the end, the end after them, always. */
    expect_rc(spoke_stream_set_deadline(d.end[0], SPOKE_FOREVER), 0);
    expect_text(d.end[0], "unread");
    for (int i = 0; i < 3; i++)
        expect_rc(read_one(d.end[0]), SPOKE_EOF);
    /* Our own half before time. */
    expect_rc(spoke_stream_set_deadline(d.end[0], 1), 0);
    expect_rc(spoke_stream_close_write(d.end[0]), 0);
    expect_rc(write_one(d.end[0]), SPOKE_EWRCLOSED);
    expect_rc(read_one(d.end[0]), SPOKE_ETIMEDOUT);
    expect_rc(spoke_stream_close_read(d.end[0]), 0);
    expect_rc(read_one(d.end[0]), SPOKE_ERDCLOSED);
    /* The handle before everything. */
    expect_rc(spoke_stream_close(d.end[0]), 0);
    expect_rc(read_one(d.end[0]), SPOKE_ECLOSED);
    expect_rc(write_one(d.end[0]), SPOKE_ECLOSED);
    ends_close(&d);
}

static bool
peer_is_closed(void *ctx)
{
    return write_one(ctx) == SPOKE_EPEERCLOSED;
}

/* S4: what does not depend on chance is the same a hundred times. */
PLACE_TEST(stream_calls, a_closed_reader_comes_before_room, places)
{
    struct ends d;

    ends_open(&d, p, NULL);
    if (!is_over_tcp(p)) { /* which learns it only from the end */
        expect_rc(spoke_stream_close_read(d.end[1]), 0);
        cr_assert(stage_until(&d.st, peer_is_closed, d.end[0]));
        for (int i = 0; i < 100; i++)
            expect_rc(write_one(d.end[0]), SPOKE_EPEERCLOSED);
    }
    ends_close(&d);
}

/* S5 */
PLACE_TEST(stream_calls, closing_twice_does_nothing, places)
{
    struct ends d;
    spoke_msg *m = message_of("m", 1), *got;
    struct spoke_stream_info info;
    char text[ENDPOINT_MAX];
    size_t done = 99;

    ends_open(&d, p, NULL);
    for (int i = 0; i < 3; i++) {
        expect_rc(spoke_stream_close_write(d.end[0]), 0);
        expect_rc(write_one(d.end[0]), SPOKE_EWRCLOSED);
        expect_rc(spoke_stream_close_read(d.end[0]), 0);
        expect_rc(read_one(d.end[0]), SPOKE_ERDCLOSED);
    }
    for (int i = 0; i < 3; i++)
        expect_rc(spoke_stream_close(d.end[0]), 0);
    /* Everything says so. */
    expect_rc(spoke_stream_read_chunk(d.end[0], &got), SPOKE_ECLOSED);
    cr_assert_null(got);
    expect_rc(spoke_stream_read_full(d.end[0], text, 1, &done), SPOKE_ECLOSED);
    cr_assert_eq(done, 0);
    expect_rc(spoke_stream_unread(d.end[0], m), SPOKE_ECLOSED);
    expect_rc(spoke_stream_write_chunk(d.end[0], m, &done), SPOKE_ECLOSED);
    spoke_msg_free(m);
    expect_rc(spoke_stream_set_deadline(d.end[0], SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_stream_set_read_deadline(d.end[0], SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_stream_set_write_deadline(d.end[0], SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_stream_close_read(d.end[0]), SPOKE_ECLOSED);
    expect_rc(spoke_stream_close_write(d.end[0]), SPOKE_ECLOSED);
    expect_rc(spoke_stream_abort(d.end[0], 1), SPOKE_ECLOSED);
    expect_rc(spoke_stream_get_info(d.end[0], &info), SPOKE_ECLOSED);
    expect_rc(spoke_stream_address(d.end[0], SPOKE_LOCAL, text, sizeof text), SPOKE_ECLOSED);
    expect_rc(spoke_stream_fd(d.end[0], SPOKE_STREAM_READABLE), SPOKE_ECLOSED);
    expect_rc(spoke_stream_on_ready(d.end[0], NULL, NULL), SPOKE_ECLOSED);
    ends_close(&d);
}

Test(stream_calls, nonsense_is_refused)
{
    static struct resources before;
    spoke_stream_config config;
    struct iovec v = {NULL, 0};
    spoke_engine *e;
    spoke_stream *a, *b;
    spoke_stream_listener *l;
    spoke_msg *m;
    char c[8];
    size_t done = 99;

    resources_take(&before);
    expect_rc(spoke_engine_open(&e, NULL), 0);
    expect_rc(spoke_stream_pair(NULL, &b, NULL, e), SPOKE_EINVAL);
    expect_rc(spoke_stream_pair(&a, NULL, NULL, e), SPOKE_EINVAL);
    expect_rc(spoke_stream_listen(NULL, "inproc://n", NULL, e), SPOKE_EINVAL);
    expect_rc(spoke_stream_listen(&l, NULL, NULL, e), SPOKE_EINVAL);
    expect_rc(spoke_stream_listen(&l, "nothing", NULL, e), SPOKE_EURL);
    expect_rc(spoke_stream_listen(&l, "no://where", NULL, e), SPOKE_ESCHEME);
    cr_assert_null(l);
    expect_rc(spoke_stream_dial(NULL, "inproc://n", NULL, e, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_stream_dial(&a, NULL, NULL, e, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_stream_dial(&a, "inproc://n", NULL, e, -1), SPOKE_EINVAL);
    expect_rc(spoke_stream_dial(&a, "no://where", NULL, e, SPOKE_NOW), SPOKE_ESCHEME);
    cr_assert_null(a);
    expect_rc(spoke_stream_from_fd(NULL, 0, NULL, e), SPOKE_EINVAL);
    expect_rc(spoke_stream_from_fd(&a, -1, NULL, e), SPOKE_ENOTSOCK);
    expect_rc(spoke_stream_accept(NULL, &a, SPOKE_NOW), SPOKE_ECLOSED);
    for (int i = 0; i < 5; i++) {
        spoke_stream_config_init(&config);
        if (i == 0)
            config.linger_ns = -1;
        else if (i == 1)
            config.backlog = -1;
        else if (i == 2)
            config.busy_poll_ns = -3;
        else if (i == 3)
            config.ipc_mode = -2;
        else
            config.ipc_mode = 01000;
        expect_rc(spoke_stream_pair(&a, &b, &config, e), SPOKE_ERANGE);
        expect_rc(spoke_stream_listen(&l, "inproc://n", &config, e), SPOKE_ERANGE);
        expect_rc(spoke_stream_dial(&a, "inproc://n", &config, e, SPOKE_FOREVER), SPOKE_ERANGE);
    }
    expect_rc(spoke_stream_pair(&a, &b, NULL, e), 0);
    expect_rc(spoke_stream_read(a, NULL, 1, &done), SPOKE_EINVAL);
    cr_assert_eq(done, 0);
    expect_rc(spoke_stream_read(a, c, 1, NULL), SPOKE_EINVAL);
    expect_rc(spoke_stream_read_full(a, NULL, 1, &done), SPOKE_EINVAL);
    expect_rc(spoke_stream_readv(a, NULL, 1, &done), SPOKE_EINVAL);
    expect_rc(spoke_stream_readv(a, &v, -1, &done), SPOKE_EINVAL);
    expect_rc(spoke_stream_read_chunk(a, NULL), SPOKE_EINVAL);
    expect_rc(spoke_stream_unread(a, NULL), SPOKE_EINVAL);
    expect_rc(spoke_stream_write(a, NULL, 1, &done), SPOKE_EINVAL);
    expect_rc(spoke_stream_write(a, c, 1, NULL), SPOKE_EINVAL);
    expect_rc(spoke_stream_writev(a, NULL, 1, &done), SPOKE_EINVAL);
    expect_rc(spoke_stream_writev(a, &v, -1, &done), SPOKE_EINVAL);
    expect_rc(spoke_stream_write_chunk(a, NULL, &done), SPOKE_EINVAL);
    m = message_of("m", 1);
    expect_rc(spoke_stream_write_chunk(a, m, NULL), SPOKE_EINVAL);
    spoke_msg_free(m);
    expect_rc(spoke_stream_set_deadline(a, -1), SPOKE_EINVAL);
    expect_rc(spoke_stream_get_info(a, NULL), SPOKE_EINVAL);
    expect_rc(spoke_stream_address(a, SPOKE_LOCAL, NULL, 1), SPOKE_EINVAL);
    expect_rc(spoke_stream_address(a, (enum spoke_stream_end)7, c, 1), SPOKE_EINVAL);
    expect_rc(spoke_stream_fd(a, 0), SPOKE_EINVAL);
    expect_rc(spoke_stream_fd(a, 3), SPOKE_EINVAL);
    expect_rc(read_now(b), SPOKE_EAGAIN);
    /* A socket of a pattern that speaks SP is no stream. */
    spoke_socket *s;
    expect_rc(spoke_socket_open(&s, SPOKE_PAIR, e), 0);
    expect_rc(spoke_listen(s, "inproc://a-pair", NULL, 0), 0);
    spoke_stream *c2;
    expect_rc(spoke_stream_dial(&c2, "inproc://a-pair", NULL, e, SPOKE_FOREVER), SPOKE_EPEER);
    expect_rc(spoke_engine_close(e), 0);
    expect_rc(spoke_stream_close(a), 0);
    expect_rc(spoke_stream_close(NULL), SPOKE_ECLOSED);
    resources_settle(&before);
}

PLACE_TEST(stream_calls, what_is_known_of_it, places)
{
    struct spoke_stream_info info;
    struct ends d;
    bool local = p->over == OVER_IPC || p->over == OVER_SHM || p->over == OVER_FD;

    ends_open(&d, p, NULL);
    write_text(d.end[0], "12345");
    expect_text(d.end[1], "12");
    expect_rc(spoke_stream_get_info(d.end[0], &info), 0);
    cr_assert_eq(info.bytes_written, 5);
    cr_assert_eq(info.bytes_read, 0);
    cr_assert_eq(info.read_end, 0);
    cr_assert_eq(info.write_end, 0);
    if (p->way != SIM) {
        cr_assert_eq(info.pid, local ? getpid() : -1, "%d", info.pid);
        cr_assert_eq(info.uid, local ? (int)getuid() : -1);
        cr_assert_eq(info.gid, local ? (int)getgid() : -1);
    }
    expect_rc(spoke_stream_get_info(d.end[1], &info), 0);
    cr_assert_eq(info.bytes_read, 2);
    cr_assert_leq(info.unread, 3);
    expect_rc(spoke_stream_close_write(d.end[0]), 0);
    expect_rc(spoke_stream_get_info(d.end[0], &info), 0);
    cr_assert_eq(info.write_end, SPOKE_EWRCLOSED);
    expect_text(d.end[1], "345");
    expect_rc(read_one(d.end[1]), SPOKE_EOF);
    expect_rc(spoke_stream_get_info(d.end[1], &info), 0);
    cr_assert_eq(info.read_end, SPOKE_EOF);
    cr_assert_eq(info.write_end, 0);
    ends_close(&d);
}

/* ---- threads and processes ---- */

struct stranger {
    spoke_engine *e;
    spoke_stream *s;
    spoke_stream_listener *l;
    int read, close, accept, listen, pair;
};

static void *
call_as_a_stranger(void *ctx)
{
    struct stranger *x = ctx;
    spoke_stream *a, *b;
    spoke_stream_listener *l;
    size_t done;
    char byte;

    x->read = spoke_stream_read(x->s, &byte, 1, &done);
    x->close = spoke_stream_close(x->s);
    x->accept = spoke_stream_accept(x->l, &a, SPOKE_NOW);
    x->listen = spoke_stream_listen(&l, "inproc://stranger", NULL, x->e);
    x->pair = spoke_stream_pair(&a, &b, NULL, x->e);
    return NULL;
}

Test(stream_calls, another_thread_is_refused)
{
    struct stranger x = {0};
    spoke_stream *b;
    pthread_t thread;

    expect_rc(spoke_engine_open(&x.e, NULL), 0);
    expect_rc(spoke_stream_pair(&x.s, &b, NULL, x.e), 0);
    expect_rc(spoke_stream_listen(&x.l, "inproc://mine", NULL, x.e), 0);
    cr_assert_eq(pthread_create(&thread, NULL, call_as_a_stranger, &x), 0);
    pthread_join(thread, NULL);
    cr_assert_eq(x.read, SPOKE_EWRONGTHREAD);
    cr_assert_eq(x.close, SPOKE_EWRONGTHREAD);
    cr_assert_eq(x.accept, SPOKE_EWRONGTHREAD);
    cr_assert_eq(x.listen, SPOKE_EWRONGTHREAD);
    cr_assert_eq(x.pair, SPOKE_EWRONGTHREAD);
    write_text(b, "still");
    expect_text(x.s, "still");
    expect_rc(spoke_engine_close(x.e), 0);
}

static int
use_in_child(void *ctx)
{
    struct ends *d = ctx;
    spoke_stream *a, *b;
    size_t done;

    CHILD_CHECK(spoke_stream_write(d->end[0], "child", 5, &done) == SPOKE_EFORKED);
    CHILD_CHECK(done == 0);
    CHILD_CHECK(spoke_stream_close(d->end[0]) == SPOKE_EFORKED);
    CHILD_CHECK(spoke_stream_pair(&a, &b, NULL, NULL) == 0);
    CHILD_CHECK(spoke_stream_write(a, "child", 5, &done) == 0);
    CHILD_CHECK(spoke_stream_close(a) == 0 && spoke_stream_close(b) == 0);
    child_is_confined(); /* it has its parent's memory */
    return 0;
}

PLACE_TEST(stream_calls, a_child_has_none_of_its_parents_streams, places_real)
{
    struct ends d;

    ends_open(&d, p, NULL);
    write_text(d.end[0], "before");
    cr_assert_eq(child_run(use_in_child, &d, 20), 0);
    write_text(d.end[0], "after");
    expect_text(d.end[1], "beforeafter");
    ends_close(&d);
}

/* ---- the engine closes ---- */

PLACE_TEST(stream_calls, the_engine_closes_under_everything, places)
{
    struct ends d;
    spoke_stream_listener *l;
    spoke_stream *waits, *dials = NULL;
    char url[ENDPOINT_MAX];
    size_t done;

    if (p->way == SHARED) /* which nobody closes */
        return;
    ends_open(&d, p, NULL);
    write_text(d.end[0], "unread");
    if (p->over <= OVER_WSS) {
        fresh_url(&d.st, url);
        expect_rc(spoke_stream_listen(&l, url, stage_config(&d.st, NULL), d.st.e[1]), 0);
        expect_rc(spoke_stream_dial(&waits, url, stage_config(&d.st, NULL), d.st.e[0],
                                    stage_in(&d.st, PATIENCE)),
                  0);
        expect_rc(spoke_stream_write(waits, "unaccepted", 10, &done), 0);
        expect_rc(spoke_stream_dial(&dials, url, stage_config(&d.st, NULL), d.st.e[0], SPOKE_NOW),
                  0);
    }
    stage_close(&d.st);
    expect_rc(write_one(d.end[0]), SPOKE_ECLOSED);
    expect_rc(spoke_stream_close(d.end[1]), 0);
    if (p->over <= OVER_WSS) {
        expect_rc(spoke_stream_accept(l, &waits, SPOKE_NOW), SPOKE_ECLOSED);
        expect_rc(spoke_stream_listener_close(l), 0);
    }
}
