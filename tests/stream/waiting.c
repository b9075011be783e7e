/* SPDX-License-Identifier: MIT */
/* The ways not to wait: descriptors, callbacks, and what callbacks may do. */
#include "tests/stream/fixture.h"

#include <poll.h>
#include <stdatomic.h>
#include <string.h>

/* ---- descriptors ---- */

static bool
is_ready(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};

    return poll(&one, 1, 0) == 1;
}

static bool
fd_is_ready(void *ctx)
{
    return is_ready(*(int *)ctx);
}

static bool
fd_is_quiet(void *ctx)
{
    return !is_ready(*(int *)ctx);
}

PLACE_TEST(stream_waiting, a_descriptor_for_reading, places)
{
    struct ends d;
    int fd;

    ends_open(&d, p, NULL);
    fd = spoke_stream_fd(d.end[1], SPOKE_STREAM_READABLE);
    if (p->way == SIM) {
        cr_assert_eq(fd, SPOKE_ENOTSUP, "%s", name_of(fd));
        ends_close(&d);
        return;
    }
    cr_assert_geq(fd, 0, "%s", name_of(fd));
    cr_assert_eq(spoke_stream_fd(d.end[1], SPOKE_STREAM_READABLE), fd);
    stage_pass(&d.st, 5 * SPOKE_MS);
    cr_assert(!is_ready(fd));
    for (int round = 0; round < 3; round++) {
        write_text(d.end[0], "abc");
        cr_assert(stage_until(&d.st, fd_is_ready, &fd));
        /* As long as there is something. */
        expect_text(d.end[1], "a");
        cr_assert(is_ready(fd));
        expect_text(d.end[1], "bc");
        cr_assert(stage_until(&d.st, fd_is_quiet, &fd));
        expect_rc(read_now(d.end[1]), SPOKE_EAGAIN);
    }
    expect_rc(spoke_stream_unread(d.end[1], message_of("x", 1)), 0);
    cr_assert(is_ready(fd));
    expect_text(d.end[1], "x");
    cr_assert(!is_ready(fd));
    /* The end is something to read, for ever. */
    expect_rc(spoke_stream_close_write(d.end[0]), 0);
    cr_assert(stage_until(&d.st, fd_is_ready, &fd));
    expect_rc(read_one(d.end[1]), SPOKE_EOF);
    cr_assert(is_ready(fd));
    expect_rc(spoke_stream_close_read(d.end[1]), 0);
    cr_assert(is_ready(fd));
    ends_close(&d);
}

/* Until the descriptor says so, too: the other end's thread reads ahead when it comes to run, and
 * then there is room, or the descriptor lied. */
static uint64_t
fill_up_until_quiet(struct ends *d, int fd)
{
    uint64_t total = 0, more;

    do {
        more = fill_up_from(&d->st, d->end[0], total);
        cr_assert_gt(more, 0);
        total += more;
    } while (is_ready(fd));
    return total;
}

PLACE_TEST(stream_waiting, a_descriptor_for_writing, places_real)
{
    static uint8_t bytes[64 * 1024];
    struct ends d;
    uint64_t sent, got = 0;
    size_t done;
    int fd;

    ends_open(&d, p, NULL);
    fd = spoke_stream_fd(d.end[0], SPOKE_STREAM_WRITABLE);
    cr_assert_geq(fd, 0, "%s", name_of(fd));
    cr_assert(stage_until(&d.st, fd_is_ready, &fd));
    sent = fill_up_until_quiet(&d, fd);
    expect_rc(spoke_stream_set_read_deadline(d.end[1], SPOKE_NOW), 0);
    for (bool before_end = true; got < sent || before_end;) {
        int rc = spoke_stream_read(d.end[1], bytes, sizeof bytes, &done);

        cr_assert(rc == 0 || rc == SPOKE_EAGAIN, "%s", name_of(rc));
        cr_assert(bytes_hold(bytes, done, got));
        got += done;
        if (rc == SPOKE_EAGAIN)
            stage_pass(&d.st, SPOKE_MS);
        before_end = got < sent;
        if (got > 64 * 1024 * 1024)
            break;
    }
    cr_assert(stage_until(&d.st, fd_is_ready, &fd));
    cr_assert_eq(got, sent);
    expect_rc(write_one(d.end[0]), 0);
    /* An end is, too. */
    (void)fill_up_until_quiet(&d, fd);
    expect_rc(spoke_stream_abort(d.end[1], 0), 0);
    cr_assert(stage_until(&d.st, fd_is_ready, &fd));
    (void)spoke_stream_close(d.end[0]);
    ends_close(&d);
}

PLACE_TEST(stream_waiting, a_descriptor_of_a_listener, places_listening)
{
    struct stage st;
    spoke_stream_listener *l;
    spoke_stream *a, *b;
    char url[ENDPOINT_MAX];
    int fd;

    stage_open(&st, p);
    fresh_url(&st, url);
    expect_rc(spoke_stream_listen(&l, url, stage_config(&st, NULL), st.e[1]), 0);
    fd = spoke_stream_listener_fd(l);
    if (p->way == SIM) {
        cr_assert_eq(fd, SPOKE_ENOTSUP);
    } else {
        cr_assert_geq(fd, 0);
        cr_assert(!is_ready(fd));
        expect_rc(
            spoke_stream_dial(&a, url, stage_config(&st, NULL), st.e[0], stage_in(&st, PATIENCE)),
            0);
        cr_assert(stage_until(&st, fd_is_ready, &fd));
        expect_rc(spoke_stream_accept(l, &b, SPOKE_NOW), 0);
        cr_assert(!is_ready(fd));
        expect_rc(spoke_stream_close(a), 0);
        expect_rc(spoke_stream_close(b), 0);
    }
    expect_rc(spoke_stream_listener_close(l), 0);
    stage_close(&st);
}

/* ---- callbacks ---- */

struct listens {
    spoke_stream *s;
    atomic_int calls, readable, writable, rc;
    char text[64];
    atomic_size_t size; /* of the text, written before */
    bool closes;
    atomic_bool ended;
};

static void
read_all(spoke_stream *s, unsigned what, void *ctx)
{
    struct listens *x = ctx;
    size_t done;
    int rc = SPOKE_EAGAIN;

    x->calls++;
    x->writable += (what & SPOKE_STREAM_WRITABLE) != 0;
    if ((what & SPOKE_STREAM_READABLE) == 0)
        return;
    x->readable++;
    if (x->closes) {
        x->rc = spoke_stream_close(s);
        x->ended = true;
        return;
    }
    while ((rc = spoke_stream_read(s, x->text + x->size, sizeof x->text - x->size, &done)) == 0)
        x->size += done;
    x->rc = rc;
    x->ended = rc != SPOKE_EAGAIN;
}

static bool
has_abc(void *ctx)
{
    struct listens *x = ctx;

    return x->size >= 3 && x->rc == SPOKE_EAGAIN;
}

static bool
has_abcdef(void *ctx)
{
    struct listens *x = ctx;

    return x->size >= 6 && x->rc == SPOKE_EAGAIN;
}

static bool
is_over(void *ctx)
{
    return ((struct listens *)ctx)->ended;
}

PLACE_TEST(stream_waiting, a_callback, places)
{
    struct listens x = {0};
    struct ends d;

    ends_open(&d, p, NULL);
    expect_rc(spoke_stream_set_deadline(d.end[1], SPOKE_NOW), 0);
    expect_rc(spoke_stream_on_ready(d.end[1], read_all, &x), 0);
    write_text(d.end[0], "abc");
    cr_assert(stage_until(&d.st, has_abc, &x));
    cr_assert_eq(x.writable, 1, "once at first: %d", x.writable);
    write_text(d.end[0], "def");
    cr_assert(stage_until(&d.st, has_abcdef, &x));
    cr_assert_eq(memcmp(x.text, "abcdef", 6), 0);
    cr_assert_leq(x.readable, 7);
    /* No more of them. */
    expect_rc(spoke_stream_on_ready(d.end[1], NULL, NULL), 0);
    int calls = x.calls;
    write_text(d.end[0], "g");
    stage_pass(&d.st, 5 * SPOKE_MS);
    cr_assert_eq(x.calls, calls);
    /* Set again, it is told of what there is. */
    expect_rc(spoke_stream_on_ready(d.end[1], read_all, &x), 0);
    expect_rc(spoke_stream_close(d.end[0]), 0);
    cr_assert(stage_until(&d.st, is_over, &x));
    cr_assert_eq(x.rc, SPOKE_EOF, "%s", name_of(x.rc));
    cr_assert_eq(x.size, 7);
    ends_close(&d);
}

PLACE_TEST(stream_waiting, a_callback_that_closes, places)
{
    struct listens x = {.closes = true};
    struct ends d;

    ends_open(&d, p, NULL);
    write_text(d.end[1], "before");
    expect_rc(spoke_stream_on_ready(d.end[1], read_all, &x), 0);
    write_text(d.end[0], "close");
    cr_assert(stage_until(&d.st, is_over, &x));
    expect_rc(x.rc, 0);
    expect_text(d.end[0], "before");
    expect_rc(read_one(d.end[0]), SPOKE_EOF);
    stage_pass(&d.st, 3 * SPOKE_MS);
    cr_assert_eq(x.readable, 1);
    ends_close(&d);
}

struct deadlock {
    spoke_stream *s;
    spoke_engine *e;
    int read, write, dial, accept;
    spoke_stream_listener *l;
    atomic_bool done;
};

static void
wait_in_a_callback(spoke_stream *s, unsigned what, void *ctx)
{
    static const uint8_t bytes[1 << 20];
    struct deadlock *x = ctx;
    spoke_stream *other;
    size_t done;
    char byte;

    if ((what & SPOKE_STREAM_WRITABLE) == 0 || x->done)
        return;
    x->read = spoke_stream_read(s, &byte, 1, &done);
    for (int i = 0; i < 100 && (x->write = spoke_stream_write(s, bytes, sizeof bytes, &done)) == 0;
         i++) {
    }
    if (x->l != NULL)
        x->accept = spoke_stream_accept(x->l, &other, SPOKE_FOREVER);
    x->done = true;
}

static bool
was_tried(void *ctx)
{
    return ((struct deadlock *)ctx)->done;
}

PLACE_TEST(stream_waiting, a_callback_cannot_wait, places)
{
    struct deadlock x = {0};
    struct ends d;
    char url[ENDPOINT_MAX];

    ends_open(&d, p, &(spoke_stream_config){.linger_ns = SPOKE_MS, .ipc_mode = -1});
    if (p->over <= OVER_WSS) {
        fresh_url(&d.st, url);
        expect_rc(spoke_stream_listen(&x.l, url, stage_config(&d.st, NULL), d.st.e[0]), 0);
    }
    expect_rc(spoke_stream_on_ready(d.end[0], wait_in_a_callback, &x), 0);
    cr_assert(stage_until(&d.st, was_tried, &x));
    expect_rc(x.read, SPOKE_EDEADLK);
    expect_rc(x.write, SPOKE_EDEADLK);
    if (x.l != NULL) {
        expect_rc(x.accept, SPOKE_EDEADLK);
        expect_rc(spoke_stream_listener_close(x.l), 0);
    }
    (void)spoke_stream_close(d.end[0]);
    ends_close(&d);
}

struct accepts {
    spoke_stream_listener *l;
    spoke_stream *got[8];
    atomic_int count, calls;
};

static void
accept_all(spoke_stream_listener *l, void *ctx)
{
    struct accepts *x = ctx;

    x->calls++;
    while (spoke_stream_accept(l, &x->got[x->count], SPOKE_NOW) == 0)
        x->count++;
    if (x->count == 4) /* the last one */
        (void)spoke_stream_listener_close(l);
}

static bool
has_three(void *ctx)
{
    return ((struct accepts *)ctx)->count == 3;
}

static bool
has_four(void *ctx)
{
    return ((struct accepts *)ctx)->count == 4;
}

PLACE_TEST(stream_waiting, a_callback_that_accepts, places_listening)
{
    struct accepts x = {0};
    struct stage st;
    spoke_stream *a[4];
    char url[ENDPOINT_MAX];

    stage_open(&st, p);
    fresh_url(&st, url);
    expect_rc(spoke_stream_listen(&x.l, url, stage_config(&st, NULL), st.e[1]), 0);
    expect_rc(
        spoke_stream_dial(&a[0], url, stage_config(&st, NULL), st.e[0], stage_in(&st, PATIENCE)),
        0);
    expect_rc(spoke_stream_listener_on_ready(x.l, accept_all, &x), 0);
    for (int i = 1; i < 3; i++)
        expect_rc(spoke_stream_dial(&a[i], url, stage_config(&st, NULL), st.e[0],
                                    stage_in(&st, PATIENCE)),
                  0);
    cr_assert(stage_until(&st, has_three, &x));
    cr_assert_leq(x.calls, 3);
    expect_rc(
        spoke_stream_dial(&a[3], url, stage_config(&st, NULL), st.e[0], stage_in(&st, PATIENCE)),
        0);
    cr_assert(stage_until(&st, has_four, &x));
    stage_pass(&st, 3 * SPOKE_MS);
    expect_rc(spoke_stream_listener_address(x.l, url, sizeof url), SPOKE_ECLOSED);
    for (int i = 0; i < 4; i++) {
        write_text(a[i], "x");
        expect_rc(spoke_stream_close(a[i]), 0);
        expect_rc(spoke_stream_set_read_deadline(x.got[i], stage_in(&st, PATIENCE)), 0);
        expect_text(x.got[i], "x");
        expect_rc(spoke_stream_close(x.got[i]), 0);
    }
    stage_close(&st);
}

/* A dial that does not wait tells by the same callback. */
static void
note_outcome(spoke_stream *s, unsigned what, void *ctx)
{
    struct listens *x = ctx;

    if ((what & SPOKE_STREAM_WRITABLE) == 0)
        return;
    x->rc = write_one(s);
    x->ended = true;
}

PLACE_TEST(stream_waiting, a_callback_tells_how_a_dial_went, places_listening)
{
    struct stage st;
    spoke_stream_listener *l = NULL;
    spoke_stream *a;
    char url[ENDPOINT_MAX];

    stage_open(&st, p);
    fresh_url(&st, url);
    for (int listens = 0; listens < 2; listens++) {
        struct listens outcome = {.rc = 0}, *x = &outcome;

        if (listens)
            expect_rc(spoke_stream_listen(&l, url, stage_config(&st, NULL), st.e[1]), 0);
        expect_rc(spoke_stream_dial(&a, url, stage_config(&st, NULL), st.e[0], SPOKE_NOW), 0);
        expect_rc(spoke_stream_set_deadline(a, SPOKE_NOW), 0);
        expect_rc(spoke_stream_on_ready(a, note_outcome, x), 0);
        cr_assert(stage_until(&st, is_over, x));
        cr_assert(listens ? x->rc == 0 || x->rc == SPOKE_EAGAIN : x->rc == SPOKE_ECONNREFUSED, "%s",
                  name_of(x->rc));
        expect_rc(spoke_stream_on_ready(a, NULL, NULL), 0);
        expect_rc(spoke_stream_close(a), 0);
    }
    expect_rc(spoke_stream_listener_close(l), 0);
    stage_close(&st);
}
