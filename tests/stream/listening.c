/* SPDX-License-Identifier: MIT */
/* How streams come about, or do not: backlogs, time limits, dials that are given up, and those that
 * go on by themselves. */
#include "tests/stream/fixture.h"

#include <poll.h>
#include <string.h>

struct place_of_dials {
    struct stage st;
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX];
};

static void
open_listener(struct place_of_dials *x, const struct place *p, const spoke_stream_config *config)
{
    stage_open(&x->st, p);
    fresh_url(&x->st, x->url);
    expect_rc(spoke_stream_listen(&x->l, x->url, stage_config(&x->st, config), x->st.e[1]), 0);
}

static int
dial(struct place_of_dials *x, spoke_stream **s, spoke_ns duration)
{
    return spoke_stream_dial(s, x->url, stage_config(&x->st, NULL), x->st.e[0],
                             duration == SPOKE_NOW ? SPOKE_NOW : stage_in(&x->st, duration));
}

static void
accept_one(struct place_of_dials *x, spoke_stream **s)
{
    expect_rc(spoke_stream_accept(x->l, s, stage_in(&x->st, PATIENCE)), 0);
}

/* ---- accepting ---- */

PLACE_TEST(stream_listening, time_limits_of_an_accept, places_listening)
{
    struct place_of_dials x;
    spoke_stream *a, *b;
    spoke_ns end;

    open_listener(&x, p, NULL);
    expect_rc(spoke_stream_accept(x.l, &b, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(spoke_stream_accept(x.l, &b, 1), SPOKE_ETIMEDOUT);
    end = stage_in(&x.st, 20 * SPOKE_MS);
    expect_rc(spoke_stream_accept(x.l, &b, end), SPOKE_ETIMEDOUT);
    cr_assert_geq(stage_now(&x.st), end);
    expect_rc(spoke_stream_accept(x.l, &b, -1), SPOKE_EINVAL);
    /* Time comes before what there is, and takes nothing away. */
    expect_rc(dial(&x, &a, PATIENCE), 0);
    stage_pass(&x.st, 5 * SPOKE_MS);
    expect_rc(spoke_stream_accept(x.l, &b, 1), SPOKE_ETIMEDOUT);
    cr_assert_null(b);
    accept_one(&x, &b);
    write_text(a, "x");
    expect_text(b, "x");
    expect_rc(spoke_stream_close(a), 0);
    expect_rc(spoke_stream_close(b), 0);
    expect_rc(spoke_stream_listener_close(x.l), 0);
    stage_close(&x.st);
}

static void
close_listener(void *ctx)
{
    (void)spoke_stream_listener_close(ctx);
}

PLACE_TEST(stream_listening, a_close_ends_who_accepts, places_listening)
{
    struct place_of_dials x;
    struct later *later;
    spoke_stream *s;

    open_listener(&x, p, NULL);
    if (p->way == SIM) /* from the listener's machine */
        x.st.e[0] = x.st.e[1];
    later = stage_after(&x.st, 10 * SPOKE_MS, close_listener, x.l);
    expect_rc(spoke_stream_accept(x.l, &s, SPOKE_FOREVER), SPOKE_ECLOSED);
    stage_joined(later);
    for (int i = 0; i < 3; i++)
        expect_rc(spoke_stream_listener_close(x.l), 0);
    expect_rc(spoke_stream_accept(x.l, &s, SPOKE_NOW), SPOKE_ECLOSED);
    expect_rc(spoke_stream_listener_address(x.l, x.url, sizeof x.url), SPOKE_ECLOSED);
    expect_rc(spoke_stream_listener_fd(x.l), SPOKE_ECLOSED);
    expect_rc(spoke_stream_listener_on_ready(x.l, NULL, NULL), SPOKE_ECLOSED);
    stage_close(&x.st);
}

/* One that waits to be accepted. */
static bool
has_one(void *ctx)
{
    struct pollfd ready = {.fd = *(int *)ctx, .events = POLLIN};

    return poll(&ready, 1, 0) == 1;
}

static bool
has_end(void *ctx)
{
    return read_now(ctx) != SPOKE_EAGAIN;
}

/* Streams that were accepted live on; those that were not end. */
PLACE_TEST(stream_listening, a_closed_listener_leaves_its_streams, places_listening)
{
    struct place_of_dials x;
    spoke_stream *a, *b, *waiting;
    int rc, fd;

    open_listener(&x, p, NULL);
    expect_rc(dial(&x, &a, PATIENCE), 0);
    accept_one(&x, &b);
    expect_rc(dial(&x, &waiting, PATIENCE), 0);
    if ((fd = spoke_stream_listener_fd(x.l)) >= 0) /* a dial may be over before an accept */
        cr_assert(stage_until(&x.st, has_one, &fd));
    else
        stage_pass(&x.st, 5 * SPOKE_MS);
    expect_rc(spoke_stream_listener_close(x.l), 0);
    cr_assert(stage_until(&x.st, has_end, waiting));
    rc = read_one(waiting);
    if (is_over_tcp(p))
        expect_rc(rc, SPOKE_ECONNRESET);
    cr_assert(rc == SPOKE_EABORTED || rc == SPOKE_ECONNRESET || rc == SPOKE_EOF, "%s", name_of(rc));
    write_text(a, "lives");
    expect_text(b, "lives");
    write_text(b, "on");
    expect_text(a, "on");
    expect_rc(spoke_stream_close(a), 0);
    expect_rc(spoke_stream_close(b), 0);
    expect_rc(spoke_stream_close(waiting), 0);
    stage_close(&x.st);
}

PLACE_TEST(stream_listening, the_one_that_has_waited_longest_is_the_first, places_listening)
{
    enum { COUNT = 5 };
    struct place_of_dials x;
    spoke_stream *a[COUNT], *b;
    char text[2] = "0";

    open_listener(&x, p, NULL);
    for (int i = 0; i < COUNT; i++) {
        expect_rc(dial(&x, &a[i], PATIENCE), 0);
        text[0] = (char)('0' + i);
        write_text(a[i], text);
        stage_pass(&x.st, 2 * SPOKE_MS);
    }
    for (int i = 0; i < COUNT; i++) {
        accept_one(&x, &b);
        text[0] = (char)('0' + i);
        expect_text(b, text);
        expect_rc(spoke_stream_close(b), 0);
        expect_rc(spoke_stream_close(a[i]), 0);
    }
    expect_rc(spoke_stream_listener_close(x.l), 0);
    stage_close(&x.st);
}

/* inproc has no outside to wait in; elsewhere everybody is accepted in the end. */
PLACE_TEST(stream_listening, a_backlog, places_listening)
{
    enum { BACKLOG = 3, COUNT = 8 };
    spoke_stream_config config;
    struct place_of_dials x;
    spoke_stream *a[COUNT], *b;
    bool seen[COUNT] = {false};
    int dialed = 0, rc;

    spoke_stream_config_init(&config);
    /* Over shm, ws and tls the dial itself waits. */
    bool outside = p->over == OVER_SHM || is_over_ws(p) || is_over_tls(p);
    config.backlog = BACKLOG;
    open_listener(&x, p, &config);
    for (; dialed < COUNT; dialed++) {
        rc = dial(&x, &a[dialed], outside ? SPOKE_NOW : PATIENCE);
        if (rc != 0)
            break;
        stage_pass(&x.st, 3 * SPOKE_MS);
    }
    if (p->over == OVER_INPROC) {
        cr_assert_eq(dialed, BACKLOG, "%d", dialed);
        expect_rc(dial(&x, &b, PATIENCE), SPOKE_EBACKLOG);
        /* One goes, and there is room again; also one that gives up. */
        accept_one(&x, &b);
        expect_rc(spoke_stream_close(b), 0);
        expect_rc(spoke_stream_close(a[0]), 0);
        expect_rc(dial(&x, &a[0], PATIENCE), 0);
        expect_rc(dial(&x, &b, PATIENCE), SPOKE_EBACKLOG);
    } else {
        cr_assert_eq(dialed, COUNT, "%d: %s", dialed, name_of(rc));
    }
    for (int i = 0; i < dialed; i++) {
        uint8_t number = (uint8_t)i;
        size_t done;

        expect_rc(spoke_stream_set_write_deadline(a[i], SPOKE_FOREVER), 0);
        if (!outside)
            expect_rc(spoke_stream_write(a[i], &number, 1, &done), 0);
    }
    for (int i = 0; i < dialed; i++) {
        uint8_t number;
        size_t done;

        accept_one(&x, &b);
        if (!outside) {
            expect_rc(spoke_stream_read_full(b, &number, 1, &done), 0);
            cr_assert(number < COUNT && !seen[number]);
            seen[number] = true;
        }
        expect_rc(spoke_stream_close(b), 0);
    }
    expect_rc(spoke_stream_accept(x.l, &b, SPOKE_NOW), SPOKE_EAGAIN);
    for (int i = 0; i < dialed; i++)
        expect_rc(spoke_stream_close(a[i]), 0);
    expect_rc(spoke_stream_listener_close(x.l), 0);
    stage_close(&x.st);
}

/* ---- dialing ---- */

static bool
can_write(void *ctx)
{
    size_t done;
    int rc;

    expect_rc(spoke_stream_set_write_deadline(ctx, SPOKE_NOW), 0);
    rc = spoke_stream_write(ctx, "hi", 2, &done);
    cr_assert(rc == 0 || rc == SPOKE_EAGAIN, "%s", name_of(rc));
    return rc == 0;
}

PLACE_TEST(stream_listening, a_dial_that_does_not_wait, places_listening)
{
    struct place_of_dials x;
    spoke_stream *a, *b;

    open_listener(&x, p, NULL);
    for (int waits = 0; waits < 2; waits++) {
        expect_rc(dial(&x, &a, SPOKE_NOW), 0);
        cr_assert_not_null(a);
        if (waits)
            write_text(a, "hi"); /* until it is connected */
        else
            cr_assert(stage_until(&x.st, can_write, a));
        accept_one(&x, &b);
        expect_text(b, "hi");
        write_text(b, "there");
        expect_text(a, "there");
        expect_rc(spoke_stream_close(a), 0);
        expect_rc(spoke_stream_close(b), 0);
    }
    expect_rc(spoke_stream_listener_close(x.l), 0);
    stage_close(&x.st);
}

PLACE_TEST(stream_listening, a_dial_that_does_not_wait_and_fails, places_listening)
{
    char url[ENDPOINT_MAX];
    struct stage st;
    spoke_stream *a;

    stage_open(&st, p);
    fresh_url(&st, url);
    for (int i = 0; i < 3; i++) {
        expect_rc(spoke_stream_dial(&a, url, stage_config(&st, NULL), st.e[0], SPOKE_NOW), 0);
        if (i == 0)
            expect_rc(read_one(a), SPOKE_ECONNREFUSED);
        if (i == 1)
            expect_rc(write_one(a), SPOKE_ECONNREFUSED);
        if (i < 2) {
            expect_rc(read_one(a), SPOKE_ECONNREFUSED);
            expect_rc(write_one(a), SPOKE_ECONNREFUSED);
        }
        expect_rc(spoke_stream_close(a), 0); /* the last one at once */
    }
    stage_close(&st);
}

/* What is closed while it is dialing is closed when it has dialed. */
PLACE_TEST(stream_listening, halves_that_are_closed_during_a_dial, places_listening)
{
    struct place_of_dials x;
    spoke_stream *a, *b;

    open_listener(&x, p, NULL);
    expect_rc(dial(&x, &a, SPOKE_NOW), 0);
    expect_rc(spoke_stream_close_write(a), 0);
    expect_rc(write_one(a), SPOKE_EWRCLOSED);
    accept_one(&x, &b);
    expect_rc(read_one(b), SPOKE_EOF);
    write_text(b, "one way");
    expect_text(a, "one way");
    expect_rc(spoke_stream_close(a), 0);
    expect_rc(spoke_stream_close(b), 0);

    expect_rc(dial(&x, &a, SPOKE_NOW), 0);
    expect_rc(spoke_stream_close_read(a), 0);
    expect_rc(read_one(a), SPOKE_ERDCLOSED);
    accept_one(&x, &b);
    write_text(a, "the other");
    expect_text(b, "the other");
    if (!is_over_tcp(p))
        expect_rc(write_one(b), SPOKE_EPEERCLOSED);
    expect_rc(spoke_stream_close(a), 0);
    expect_rc(spoke_stream_close(b), 0);

    expect_rc(dial(&x, &a, SPOKE_NOW), 0);
    expect_rc(spoke_stream_abort(a, 1), 0);
    expect_rc(write_one(a), SPOKE_EABORTED);
    expect_rc(read_one(a), SPOKE_EABORTED);
    stage_pass(&x.st, 5 * SPOKE_MS);
    expect_rc(write_one(a), SPOKE_EABORTED);
    expect_rc(spoke_stream_close(a), 0);
    expect_rc(spoke_stream_listener_close(x.l), 0);
    stage_close(&x.st);
}

/* S1: a dial whose time is up is no dial any more, for nobody.  The listener's engine does not run
 * meanwhile. */
Test(stream_listening, an_accept_skips_dials_that_were_given_up)
{
    static struct resources before;
    spoke_engine *here, *there;
    spoke_stream_listener *l;
    spoke_stream_config config;
    spoke_stream *a, *b, *c;

    resources_take(&before);
    spoke_stream_config_init(&config);
    config.backlog = 2;
    expect_rc(spoke_engine_open(&here, NULL), 0);
    expect_rc(spoke_engine_open(&there, NULL), 0);
    expect_rc(spoke_stream_listen(&l, "inproc://given-up", &config, there), 0);
    for (int i = 0; i < 3; i++) /* one more than the backlog */
        expect_rc(spoke_stream_dial(&a, "inproc://given-up", NULL, here,
                                    spoke_engine_now(here) + 5 * SPOKE_MS),
                  SPOKE_ETIMEDOUT);
    expect_rc(spoke_stream_dial(&c, "inproc://given-up", NULL, here, SPOKE_NOW), 0);
    expect_rc(spoke_stream_close(c), 0);
    for (int i = 0; i < 50; i++) { /* both hear of it */
        cr_assert_geq(spoke_engine_poll(there, 0), 0);
        cr_assert_geq(spoke_engine_poll(here, 0), 0);
    }
    expect_rc(spoke_stream_accept(l, &b, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(spoke_stream_dial(&a, "inproc://given-up", NULL, here, SPOKE_NOW), 0);
    expect_rc(spoke_stream_set_deadline(a, SPOKE_NOW), 0);
    for (int i = 0; i < 1000 && !can_write(a); i++) {
        cr_assert_geq(spoke_engine_poll(there, 0), 0);
        cr_assert_geq(spoke_engine_poll(here, 0), 0);
    }
    expect_rc(spoke_stream_accept(l, &b, SPOKE_NOW), 0);
    expect_text(b, "hi");
    expect_rc(spoke_engine_close(here), 0);
    expect_rc(read_one(b), SPOKE_EOF);
    expect_rc(spoke_engine_close(there), 0);
    resources_settle(&before);
}

/* S6: nobody accepts, and nobody waits for that. */
PLACE_TEST(stream_listening, a_dial_does_not_wait_for_an_accept, places_listening)
{
    struct place_of_dials x;
    spoke_stream *a, *b;

    open_listener(&x, p, NULL);
    expect_rc(dial(&x, &a, PATIENCE), 0);
    write_text(a, "already");
    expect_rc(spoke_stream_close(a), 0);
    stage_pass(&x.st, 3 * SPOKE_MS);
    accept_one(&x, &b); /* it has something to say */
    expect_text(b, "already");
    expect_rc(read_one(b), SPOKE_EOF);
    expect_rc(spoke_stream_close(b), 0);
    expect_rc(spoke_stream_listener_close(x.l), 0);
    stage_close(&x.st);
}

PLACE_TEST(stream_listening, a_dial_after_its_time, places_listening)
{
    struct place_of_dials x;
    spoke_stream *a;

    open_listener(&x, p, NULL);
    expect_rc(spoke_stream_dial(&a, x.url, stage_config(&x.st, NULL), x.st.e[0], 1),
              SPOKE_ETIMEDOUT);
    cr_assert_null(a);
    expect_rc(spoke_stream_accept(x.l, &a, stage_in(&x.st, 5 * SPOKE_MS)), SPOKE_ETIMEDOUT);
    expect_rc(spoke_stream_listener_close(x.l), 0);
    stage_close(&x.st);
}
