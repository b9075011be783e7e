/* SPDX-License-Identifier: MIT */
/* What the call itself says: errors, deadlines, and what counts as ready. */
#include "tests/select/fixture.h"

#include <string.h>
#include <unistd.h>

#define WAY_TEST(Suite, Name)                                                                      \
    ParameterizedTestParameters(Suite, Name)                                                       \
    {                                                                                              \
        return ways();                                                                             \
    }                                                                                              \
    ParameterizedTest(enum way *way, Suite, Name)

/* ---- arguments ---- */

Test(calls, refuse_nonsense)
{
    spoke_select_case c = {.what = SPOKE_SELECT_TIME, .of.when = 1};
    static spoke_select_case many[SPOKE_SELECT_MAX + 1];
    size_t which = 7;

    expect_rc(spoke_select(&c, 1, NULL, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_select(NULL, 1, &which, NULL, SPOKE_NOW), SPOKE_EINVAL);
    cr_assert_eq(which, 1);
    expect_rc(spoke_select(&c, 1, &which, NULL, -1), SPOKE_EINVAL);
    c.of.when = -1;
    expect_rc(spoke_select(&c, 1, &which, NULL, SPOKE_NOW), SPOKE_EINVAL);
    cr_assert_eq(which, 0);
    c.what = (enum spoke_select_what)(SPOKE_SELECT_TIME + 1);
    expect_rc(spoke_select(&c, 1, &which, NULL, SPOKE_NOW), SPOKE_EINVAL);
    memset(&c.what, 0xff, sizeof c.what);
    expect_rc(spoke_select(&c, 1, &which, NULL, SPOKE_NOW), SPOKE_EINVAL);
    expect_rc(spoke_select(many, SPOKE_SELECT_MAX + 1, &which, NULL, SPOKE_NOW), SPOKE_ERANGE);
    cr_assert_eq(which, SPOKE_SELECT_MAX + 1);
    expect_rc(spoke_select(many, SPOKE_SELECT_MAX, &which, NULL, SPOKE_NOW), SPOKE_EAGAIN);
}

/* NULL, nonsense, a handle of another kind: closed, as everywhere. */
Test(calls, know_no_other_handles)
{
    for (int what = SPOKE_SELECT_RECEIVER; what <= SPOKE_SELECT_SESSION_ACCEPT_STREAM; what++) {
        spoke_select_case cases[2] = {{.what = SPOKE_SELECT_TIME, .of.when = 1},
                                      {.what = (enum spoke_select_what)what}};
        size_t which;

        expect_rc(spoke_select(cases, 2, &which, NULL, SPOKE_NOW), SPOKE_ECLOSED);
        cr_assert_eq(which, 1);
        cases[1].of.handle = cases;
        expect_rc(spoke_select(cases, 2, &which, NULL, SPOKE_FOREVER), SPOKE_ECLOSED);
        cr_assert_eq(which, 1);
    }
}

Test(calls, are_about_one_engine)
{
    spoke_engine *e[2];
    spoke_socket *s[3];
    spoke_select_case cases[2] = {{.what = SPOKE_SELECT_SOCKET_RECV},
                                  {.what = SPOKE_SELECT_SOCKET_RECV}};
    size_t which;

    for (int i = 0; i < 3; i++) {
        if (i < 2)
            expect_rc(spoke_engine_open(&e[i], NULL), 0);
        expect_rc(spoke_socket_open(&s[i], SPOKE_PULL, i < 2 ? e[i] : NULL), 0);
    }
    for (int i = 0; i < 3; i++) {
        cases[0].of.socket = s[i];
        cases[1].of.socket = s[(i + 1) % 3];
        expect_rc(spoke_select(cases, 2, &which, NULL, SPOKE_NOW), SPOKE_EINVAL);
        cr_assert_eq(which, 1);
        expect_rc(spoke_select(cases, 1, &which, e[0], SPOKE_NOW),
                  i == 0 ? SPOKE_EAGAIN : SPOKE_EINVAL);
        expect_rc(spoke_select(cases, 1, &which, NULL, SPOKE_NOW), SPOKE_EAGAIN);
    }
    expect_rc(spoke_socket_close(s[2]), 0);
    for (int i = 0; i < 2; i++)
        expect_rc(spoke_engine_close(e[i]), 0);
    expect_rc(spoke_select(NULL, 0, &which, e[0], SPOKE_NOW), SPOKE_ECLOSED);
}

/* ---- time ---- */

WAY_TEST(calls, without_cases_sleep_until_the_deadline)
{
    struct scene sc;
    spoke_select_case none[2] = {{.what = SPOKE_SELECT_NONE},
                                 {.what = SPOKE_SELECT_TIME, .of.when = SPOKE_FOREVER}};
    spoke_ns until;
    size_t which;

    scene_open(&sc, *way);
    expect_rc(spoke_select(NULL, 0, &which, sc.e, SPOKE_NOW), SPOKE_EAGAIN);
    for (size_t count = 0; count < 3; count++) {
        until = scene_in(&sc, 3 * SPOKE_MS);
        expect_rc(spoke_select(none, count, &which, sc.e, until), SPOKE_ETIMEDOUT);
        cr_assert_eq(which, count);
        cr_assert_geq(spoke_engine_now(sc.e), until);
    }
    scene_close(&sc);
}

WAY_TEST(calls, name_the_first_time_that_comes)
{
    struct scene sc;
    spoke_select_case cases[3];
    size_t which;
    spoke_ns now;

    scene_open(&sc, *way);
    now = spoke_engine_now(sc.e);
    for (int i = 0; i < 3; i++)
        cases[i] = (spoke_select_case){.what = SPOKE_SELECT_TIME,
                                       .of.when = now + (3 - i) * PATIENCE};
    cases[2].of.when = now + 2 * SPOKE_MS;
    expect_rc(spoke_select(cases, 3, &which, sc.e, SPOKE_FOREVER), 0);
    cr_assert_eq(which, 2);
    cr_assert_geq(spoke_engine_now(sc.e), cases[2].of.when);
    /* A deadline that is the same time: the case wins. */
    cases[2].of.when = scene_in(&sc, 2 * SPOKE_MS);
    expect_rc(spoke_select(&cases[2], 1, &which, sc.e, cases[2].of.when), 0);
    scene_close(&sc);
}

Test(calls, that_nothing_can_end_say_so_in_a_simulated_world)
{
    struct scene sc;
    struct thing t;
    size_t which;

    scene_open(&sc, SIM);
    thing_open(&t, &sc, kind_of("reader-pair"));
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), SPOKE_EDEADLK);
    cr_assert_eq(which, 1);
    thing_close(&t);
    scene_close(&sc);
}

/* ---- in callbacks ---- */

struct inner {
    spoke_engine *e;
    spoke_select_case c[2];
    int rc[4];
    size_t which;
    spoke_socket *s;
    bool done;
};

static void
select_inside(void *ctx)
{
    struct inner *in = ctx;

    in->rc[0] = spoke_select(in->c, 2, &in->which, in->e, SPOKE_FOREVER);
    in->rc[1] = spoke_select(in->c, 2, &in->which, in->e, SPOKE_NOW);
    in->rc[2] = spoke_select(in->c, 2, &in->which, in->e, spoke_engine_now(in->e) + SPOKE_SECOND);
    in->c[1] = (spoke_select_case){.what = SPOKE_SELECT_TIME, .of.when = 1};
    in->rc[3] = spoke_select(in->c, 2, &in->which, in->e, SPOKE_FOREVER);
    in->done = true;
}

Test(calls, in_a_callback_do_not_wait)
{
    for (int i = 0; i < 2; i++) {
        enum way way = i == 0 ? OWNED : SIM;
        struct scene sc;
        struct thing t;
        struct inner in = {0};
        spoke_ns limit;
        int fd[2];

        scene_open(&sc, way);
        thing_open(&t, &sc, kind_of("reader-pair"));
        cr_assert_eq(pipe(fd), 0);
        in.e = sc.e;
        in.c[0] = t.c;
        if (way == OWNED)
            in.c[1] = (spoke_select_case){.what = SPOKE_SELECT_FD_READ, .of.fd = fd[0]};
        expect_rc(spoke_engine_after(sc.e, SPOKE_MS, select_inside, &in, NULL), 0);
        limit = scene_in(&sc, PATIENCE);
        while (!in.done && spoke_engine_now(sc.e) < limit)
            (void)spoke_engine_poll(sc.e, SPOKE_MS);
        expect_rc(in.rc[0], SPOKE_EDEADLK);
        expect_rc(in.rc[1], SPOKE_EAGAIN);
        expect_rc(in.rc[2], SPOKE_EDEADLK);
        expect_rc(in.rc[3], 0);
        cr_assert_eq(in.which, 1);
        close(fd[0]);
        close(fd[1]);
        thing_close(&t);
        scene_close(&sc);
    }
}

static void
on_message(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct inner *in = ctx;

    (void)s;
    spoke_msg_free(m);
    in->rc[0] = spoke_select(in->c, 1, &in->which, NULL, SPOKE_FOREVER);
    in->rc[1] = spoke_select(in->c, 1, &in->which, NULL, SPOKE_NOW);
    (void)spoke_send_bytes(in->s, "done", 4, SPOKE_DONTWAIT);
}

Test(calls, in_a_callback_of_the_shared_engine_do_not_wait)
{
    struct scene sc;
    struct thing told, reader, answer;
    struct inner in = {0};
    size_t which;

    scene_open(&sc, SHARED);
    thing_open(&told, &sc, kind_of("socket-recv-inproc"));
    thing_open(&answer, &sc, kind_of("socket-recv-inproc"));
    thing_open(&reader, &sc, kind_of("reader-pair"));
    in.c[0] = reader.c;
    in.s = answer.s[1];
    expect_rc(spoke_socket_on_message(told.s[0], on_message, &in), 0);
    told.kind->make(&told);
    expect_rc(spoke_select(&answer.c, 1, &which, NULL, SPOKE_FOREVER), 0);
    expect_rc(answer.kind->use(&answer), 0);
    expect_rc(in.rc[0], SPOKE_EDEADLK);
    expect_rc(in.rc[1], SPOKE_EAGAIN);
    /* A receive of a socket with a callback is an error, at once. */
    expect_rc(spoke_select(&told.c, 1, &which, NULL, SPOKE_NOW), 0);
    expect_rc(told.kind->use(&told), SPOKE_ESTATE);
    thing_close(&told);
    thing_close(&answer);
    thing_close(&reader);
    scene_close(&sc);
}

/* ---- what counts as ready ---- */

static int
selects(spoke_engine *e, enum spoke_select_what what, void *handle)
{
    spoke_select_case c = {.what = what, .of.handle = handle};
    size_t which;

    return spoke_select(&c, 1, &which, e, SPOKE_NOW);
}

/* For every pattern, in the state in which it begins: exactly if the call would not have to wait.
 */
WAY_TEST(select, agrees_with_the_calls_of_all_patterns)
{
    static const int patterns[] = {SPOKE_PAIR, SPOKE_PAIR1,    SPOKE_REQ,        SPOKE_REP,
                                   SPOKE_PUSH, SPOKE_PULL,     SPOKE_PUB,        SPOKE_SUB,
                                   SPOKE_BUS,  SPOKE_SURVEYOR, SPOKE_RESPONDENT, SPOKE_STAR};
    struct scene sc;

    scene_open(&sc, *way);
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        for (int variant = 0; variant < 4; variant++) { /* raw; without a queue */
            spoke_socket *s;
            char text[16];
            size_t size = sizeof text;
            int recv, send, rc;

            expect_rc(spoke_socket_open(&s, patterns[i], sc.e), 0);
            (void)spoke_socket_set_bool(s, SPOKE_OPT_RAW, (variant & 1) != 0);
            (void)spoke_socket_set_int(s, SPOKE_OPT_SEND_QUEUE, (variant & 2) != 0 ? 0 : 2);
            for (int round = 0; round < 5; round++) {
                recv = selects(sc.e, SPOKE_SELECT_SOCKET_RECV, s);
                rc = spoke_recv_bytes(s, text, &size, SPOKE_DONTWAIT);
                cr_assert_eq(recv == 0, rc != SPOKE_EAGAIN, "%d/%d/%d: recv %s, select %s",
                             patterns[i], variant, round, spoke_error_name(rc),
                             spoke_error_name(recv));
                send = selects(sc.e, SPOKE_SELECT_SOCKET_SEND, s);
                rc = spoke_send_bytes(s, "x", 1, SPOKE_DONTWAIT);
                if (rc == SPOKE_EINVAL) /* raw, and that is no raw message: it was not tried */
                    continue;
                cr_assert_eq(send == 0, rc != SPOKE_EAGAIN, "%d/%d/%d: send %s, select %s",
                             patterns[i], variant, round, spoke_error_name(rc),
                             spoke_error_name(send));
            }
            (void)spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 0);
            (void)spoke_socket_close(s);
        }
    }
    scene_close(&sc);
}

/* A context is as ready as its call says, whatever the others of its socket are. */
WAY_TEST(select, tells_contexts_apart)
{
    struct scene sc;
    struct thing t;
    spoke_context *other;
    spoke_select_case cases[2] = {{.what = SPOKE_SELECT_CONTEXT_RECV},
                                  {.what = SPOKE_SELECT_CONTEXT_RECV}};
    size_t which;

    scene_open(&sc, *way);
    thing_open(&t, &sc, kind_of("context-req"));
    expect_rc(spoke_context_open(&other, t.s[0]), 0);
    /* The one waits for its answer, the other has asked nothing. */
    expect_rc(selects(sc.e, SPOKE_SELECT_CONTEXT_RECV, t.context), SPOKE_EAGAIN);
    expect_rc(selects(sc.e, SPOKE_SELECT_CONTEXT_RECV, other), 0);
    expect_rc(selects(sc.e, SPOKE_SELECT_CONTEXT_SEND, other), 0);
    expect_rc(spoke_context_send_bytes(other, "y", 1, 0), 0);
    cases[0].of.context = other;
    cases[1].of.context = t.context;
    expect_rc(spoke_select(cases, 2, &which, sc.e, SPOKE_NOW), SPOKE_EAGAIN);
    t.kind->make(&t);
    expect_rc(spoke_select(cases, 2, &which, sc.e, SPOKE_FOREVER), 0);
    cr_assert_eq(which, 1);
    expect_rc(t.kind->use(&t), 0);
    expect_rc(t.kind->use(&t), SPOKE_ESTATE);
    expect_rc(spoke_context_close(other), 0);
    thing_close(&t);
    scene_close(&sc);
}

/* A context that waits for answers of its own, not for what comes to its socket. */
static void
open_asker(struct thing *t, struct scene *sc, int pattern)
{
    *t = (struct thing){.sc = sc, .kind = kind_of("context-req")};
    expect_rc(spoke_socket_open(&t->s[0], pattern, sc->e), 0);
    expect_rc(
        spoke_socket_open(&t->s[1], pattern == SPOKE_REQ ? SPOKE_REP : SPOKE_RESPONDENT, sc->e), 0);
    expect_rc(spoke_listen(t->s[0], "inproc://asker", NULL, 0), 0);
    expect_rc(spoke_dial(t->s[1], "inproc://asker", NULL, SPOKE_WAIT_FIRST), 0);
    expect_rc(spoke_context_open(&t->context, t->s[0]), 0);
    if (pattern == SPOKE_SURVEYOR)
        expect_rc(spoke_context_set_duration(t->context, SPOKE_OPT_SURVEY_TIME, PATIENCE), 0);
    expect_rc(spoke_context_send_bytes(t->context, "x", 1, 0), 0);
    t->c = (spoke_select_case){.what = SPOKE_SELECT_CONTEXT_RECV, .of.context = t->context};
}

static void
close_own_socket(void *ctx)
{
    (void)spoke_socket_close(((struct thing *)ctx)->s[0]);
}

static void
close_peers_socket(void *ctx)
{
    (void)spoke_socket_close(((struct thing *)ctx)->s[1]);
}

WAY_TEST(select, wakes_with_the_socket_of_a_context)
{
    static const int patterns[] = {SPOKE_REQ, SPOKE_SURVEYOR};
    struct scene sc;

    scene_open(&sc, *way);
    for (int i = 0; i < 2; i++) {
        struct thing t;
        struct later *later;
        size_t which;

        open_asker(&t, &sc, patterns[i]);
        later = scene_later(&sc, close_own_socket, &t);
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), SPOKE_ECLOSED);
        scene_joined(later);
        cr_assert_eq(which, 0);
        thing_close(&t);
    }
    scene_close(&sc);
}

WAY_TEST(select, wakes_contexts_that_have_lost_the_last_peer)
{
    static const int patterns[] = {SPOKE_REQ, SPOKE_SURVEYOR};
    struct scene sc;

    scene_open(&sc, *way);
    for (int i = 0; i < 2; i++) {
        struct thing t;
        struct later *later;
        size_t which;

        open_asker(&t, &sc, patterns[i]);
        expect_rc(spoke_socket_set_bool(t.s[0], SPOKE_OPT_FAIL_NO_PEERS, true), 0);
        later = scene_later(&sc, close_peers_socket, &t);
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
        scene_joined(later);
        expect_rc(t.kind->use(&t), SPOKE_ENOPEER);
        thing_close(&t);
    }
    scene_close(&sc);
}

/* The end of a survey comes with time, and is an error of its receives. */
WAY_TEST(select, wakes_when_a_survey_is_over)
{
    struct scene sc;
    spoke_socket *s;
    spoke_context *c;
    spoke_msg *m;
    spoke_select_case cases[2];
    size_t which;

    scene_open(&sc, *way);
    expect_rc(spoke_socket_open(&s, SPOKE_SURVEYOR, sc.e), 0);
    expect_rc(spoke_context_open(&c, s), 0);
    expect_rc(spoke_context_set_duration(c, SPOKE_OPT_SURVEY_TIME, 20 * SPOKE_MS), 0);
    expect_rc(spoke_socket_set_duration(s, SPOKE_OPT_SURVEY_TIME, 10 * SPOKE_SECOND), 0);
    expect_rc(spoke_context_send_bytes(c, "x", 1, 0), 0);
    expect_rc(spoke_send_bytes(s, "x", 1, 0), 0);
    cases[0] = (spoke_select_case){.what = SPOKE_SELECT_SOCKET_RECV, .of.socket = s};
    cases[1] = (spoke_select_case){.what = SPOKE_SELECT_CONTEXT_RECV, .of.context = c};
    expect_rc(spoke_select(cases, 2, &which, sc.e, SPOKE_FOREVER), 0);
    cr_assert_eq(which, 1);
    expect_rc(spoke_context_recv(c, &m, SPOKE_DONTWAIT), SPOKE_ETIMEDOUT);
    expect_rc(spoke_socket_close(s), 0);
    scene_close(&sc);
}

static void
close_peer(void *ctx)
{
    struct thing *t = ctx;

    (void)spoke_stream_close(t->stream[1]);
}

/* The end of a stream is something to read; and who writes is told that nobody reads. */
WAY_TEST(select, counts_the_end_as_ready)
{
    static const char *const names[] = {"reader-pair", "reader-inproc", "reader-ipc"};

    for (size_t i = 0; i < 3; i++) {
        struct scene sc;
        struct thing t;
        size_t which;

        scene_open(&sc, *way);
        thing_open(&t, &sc, kind_of(names[i]));
        struct later *later = scene_later(&sc, close_peer, &t);
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
        scene_joined(later);
        expect_rc(t.kind->use(&t), SPOKE_EOF);
        expect_rc(selects(sc.e, SPOKE_SELECT_STREAM_READ, t.stream[0]), 0);
        expect_rc(spoke_stream_close_write(t.stream[0]), 0);
        expect_rc(selects(sc.e, SPOKE_SELECT_STREAM_WRITE, t.stream[0]), 0);
        thing_close(&t);
        scene_close(&sc);
    }
}

static void
shorten(void *ctx)
{
    struct thing *t = ctx;

    (void)spoke_stream_set_read_deadline(t->stream[0], spoke_engine_now(t->sc->e) + 2 * SPOKE_MS);
}

/* At the deadline of its reads a stream is ready: the read says SPOKE_ETIMEDOUT.  Also one that is
 * set meanwhile; and others are not. */
WAY_TEST(select, heeds_the_deadlines_of_streams)
{
    struct scene sc;
    struct thing t;
    struct later *later;
    char byte;
    size_t which, done;
    spoke_ns until;

    scene_open(&sc, *way);
    thing_open(&t, &sc, kind_of("reader-ipc"));
    until = scene_in(&sc, 5 * SPOKE_MS);
    expect_rc(spoke_stream_set_read_deadline(t.stream[0], until), 0);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    cr_assert_geq(spoke_engine_now(sc.e), until);
    expect_rc(spoke_stream_read(t.stream[0], &byte, 1, &done), SPOKE_ETIMEDOUT);
    expect_rc(spoke_stream_set_read_deadline(t.stream[0], SPOKE_FOREVER), 0);
    later = scene_later(&sc, shorten, &t);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    scene_joined(later);
    expect_rc(spoke_stream_read(t.stream[0], &byte, 1, &done), SPOKE_ETIMEDOUT);
    /* Not waiting is no deadline. */
    expect_rc(spoke_stream_set_read_deadline(t.stream[0], SPOKE_NOW), 0);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, scene_in(&sc, SPOKE_MS)), SPOKE_ETIMEDOUT);
    thing_close(&t);
    scene_close(&sc);
}

static void
shorten_write(void *ctx)
{
    struct thing *t = ctx;

    (void)spoke_stream_set_write_deadline(t->stream[0], spoke_engine_now(t->sc->e) + 2 * SPOKE_MS);
}

WAY_TEST(select, heeds_the_deadlines_of_writes)
{
    static const char *const names[] = {"writer-pair", "writer-ipc"};
    struct scene sc;

    scene_open(&sc, *way);
    for (int i = 0; i < 2; i++) {
        struct thing t;
        struct later *later;
        size_t which, done;

        thing_open(&t, &sc, kind_of(names[i]));
        expect_rc(spoke_stream_set_write_deadline(t.stream[0], SPOKE_FOREVER), 0);
        later = scene_later(&sc, shorten_write, &t);
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
        scene_joined(later);
        expect_rc(spoke_stream_write(t.stream[0], "x", 1, &done), SPOKE_ETIMEDOUT);
        thing_close(&t);
    }
    scene_close(&sc);
}

/* A call that waits has a half to itself: what it is about to get is nobody else's. */
struct beside {
    struct thing *t;
    enum spoke_select_what what;
    int rc;
};

static void
make_and_select(void *ctx)
{
    struct beside *b = ctx;
    spoke_select_case c = {.what = b->what, .of.stream = b->t->stream[0]};
    size_t which;

    b->t->kind->make(b->t);
    b->rc = spoke_select(&c, 1, &which, NULL, SPOKE_NOW);
}

Test(select, leaves_a_half_to_the_call_that_waits_in_it)
{
    static const char *const names[] = {"reader-pair", "writer-pair"};
    char bytes[4096] = {0};

    for (int way = OWNED; way <= SIM; way += SIM - OWNED) {
        for (int i = 0; i < 2; i++) {
            struct scene sc;
            struct thing t;
            size_t done;

            scene_open(&sc, (enum way)way);
            thing_open(&t, &sc, kind_of(names[i]));
            struct beside b = {.t = &t, .what = t.c.what};
            expect_rc(spoke_engine_after(sc.e, SPOKE_MS, make_and_select, &b, NULL), 0);
            expect_rc(spoke_stream_set_deadline(t.stream[0], SPOKE_FOREVER), 0);
            if (i == 0)
                expect_rc(spoke_stream_read(t.stream[0], bytes, sizeof bytes, &done), 0);
            else
                expect_rc(spoke_stream_write(t.stream[0], bytes, sizeof bytes, &done), 0);
            expect_rc(b.rc, SPOKE_EAGAIN);
            thing_close(&t);
            scene_close(&sc);
        }
    }
}

/* What the kernel has, a read would get at once: it is ready without a turn of any engine. */
Test(select, sees_what_lies_in_the_kernel)
{
    struct scene sc;
    struct thing t[20];
    spoke_select_case cases[20];
    size_t which;

    for (int way = OWNED; way <= SHARED; way++) {
        scene_open(&sc, (enum way)way);
        for (int i = 0; i < 20; i++) {
            thing_open(&t[i], &sc, kind_of("reader-ipc"));
            cases[i] = t[i].c;
        }
        for (int i = 0; i < 20; i++) {
            t[i].kind->make(&t[i]);
            expect_rc(spoke_select(cases, 20, &which, sc.e, SPOKE_NOW), 0);
            cr_assert_eq(which, (size_t)i);
            while (t[i].kind->use(&t[i]) == 0) {
            }
        }
        for (int i = 0; i < 20; i++)
            thing_close(&t[i]);
        scene_close(&sc);
    }
}

/* It looks at bytes without losing any, and however they are read. */
Test(select, leaves_all_bytes_to_the_reads)
{
    struct scene sc;
    struct thing t;
    uint8_t bytes[100000], got[100000] = {0};
    size_t done, which, have = 0;
    struct spoke_stream_info info;

    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (uint8_t)(i * 31 >> 3);
    scene_open(&sc, OWNED);
    thing_open(&t, &sc, kind_of("reader-ipc"));
    expect_rc(spoke_stream_write(t.stream[1], bytes, sizeof bytes, &done), 0);
    expect_rc(spoke_stream_close_write(t.stream[1]), 0);
    while (have < sizeof bytes) {
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
        expect_rc(spoke_stream_read(t.stream[0], got + have, 7001, &done), 0);
        have += done;
        expect_rc(spoke_stream_get_info(t.stream[0], &info), 0);
        cr_assert_eq(info.bytes_read, have);
    }
    cr_assert_eq(memcmp(bytes, got, sizeof bytes), 0);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    expect_rc(spoke_stream_read(t.stream[0], got, 1, &done), SPOKE_EOF);
    thing_close(&t);
    scene_close(&sc);
}

/* SPOKE_OPT_FAIL_NO_PEERS makes a socket ready when its last peer goes: SPOKE_ENOPEER. */
WAY_TEST(select, counts_the_loss_of_the_last_peer)
{
    struct scene sc;
    struct thing t;
    size_t which;

    scene_open(&sc, *way);
    thing_open(&t, &sc, kind_of("socket-recv-inproc"));
    expect_rc(spoke_socket_set_bool(t.s[0], SPOKE_OPT_FAIL_NO_PEERS, true), 0);
    t.kind->make(&t);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    expect_rc(t.kind->use(&t), 0);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_NOW), SPOKE_EAGAIN);
    expect_rc(spoke_socket_close(t.s[1]), 0);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    expect_rc(t.kind->use(&t), SPOKE_ENOPEER);
    thing_close(&t);
    scene_close(&sc);
}

static void
close_sender(void *ctx)
{
    (void)spoke_sender_close(((struct thing *)ctx)->tx);
}

static void
close_receiver(void *ctx)
{
    (void)spoke_receiver_close(((struct thing *)ctx)->rx);
}

WAY_TEST(select, counts_the_ends_of_channels_as_ready)
{
    struct scene sc;
    struct thing t;
    struct later *later;
    size_t which;

    scene_open(&sc, *way);
    thing_open(&t, &sc, kind_of("receiver"));
    later = scene_later(&sc, close_sender, &t);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    scene_joined(later);
    expect_rc(t.kind->use(&t), SPOKE_EOF);
    thing_close(&t);
    thing_open(&t, &sc, kind_of("sender"));
    later = scene_later(&sc, close_receiver, &t);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    scene_joined(later);
    expect_rc(t.kind->use(&t), SPOKE_EPEERCLOSED);
    thing_close(&t);
    scene_close(&sc);
}

/* ---- sessions ---- */

/* What the peer opens is ready for its own accept alone, and what it gives up for none. */
WAY_TEST(select, tells_the_accepts_of_a_session_apart)
{
    static const char *const names[] = {"session-receiver-pair", "session-sender-pair",
                                        "session-stream-pair"};
    struct scene sc;

    scene_open(&sc, *way);
    for (int i = 0; i < 3; i++) {
        spoke_select_case cases[3];
        struct thing t;
        size_t which;

        thing_open(&t, &sc, kind_of(names[i]));
        for (int n = 0; n < 3; n++)
            cases[n] = (spoke_select_case){
                .what = (enum spoke_select_what)(SPOKE_SELECT_SESSION_ACCEPT_RECEIVER + n),
                .of.session = t.session[0]};
        t.kind->make(&t);
        for (int n = 0; n < 20; n++) {
            expect_rc(spoke_select(cases, 3, &which, sc.e, SPOKE_FOREVER), 0);
            cr_assert_eq(which, (size_t)i);
        }
        expect_rc(t.kind->use(&t), 0);
        expect_rc(spoke_select(cases, 3, &which, sc.e, SPOKE_NOW), SPOKE_EAGAIN);
        thing_close(&t);
    }
    scene_close(&sc);
}

WAY_TEST(select, passes_over_channels_that_were_given_up)
{
    struct scene sc;
    struct thing t;
    spoke_sender *tx;
    size_t which;

    scene_open(&sc, *way);
    thing_open(&t, &sc, kind_of("session-receiver-pair"));
    expect_rc(spoke_session_open_sender(t.session[1], &tx, NULL, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    expect_rc(spoke_sender_abort(tx, 1, "no"), 0);
    while (spoke_select(&t.c, 1, &which, sc.e, SPOKE_NOW) == 0)
        (void)spoke_select(NULL, 0, &which, sc.e, scene_in(&sc, SPOKE_MS));
    expect_rc(t.kind->use(&t), SPOKE_EAGAIN);
    t.kind->make(&t);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    expect_rc(t.kind->use(&t), 0);
    thing_close(&t);
    scene_close(&sc);
}

static void
close_peers_session(void *ctx)
{
    (void)spoke_session_close(((struct thing *)ctx)->session[1], 0);
}

/* All of its accepts say that it has ended. */
WAY_TEST(select, counts_the_end_of_a_session_as_ready)
{
    static const char *const names[] = {"session-receiver-pair", "session-sender-pair",
                                        "session-stream-pair"};
    struct scene sc;

    scene_open(&sc, *way);
    for (int i = 0; i < 3; i++) {
        struct thing t;
        struct later *later;
        size_t which;

        thing_open(&t, &sc, kind_of(names[i]));
        later = scene_later(&sc, close_peers_session, &t);
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
        scene_joined(later);
        expect_rc(t.kind->use(&t), SPOKE_EMUXCLOSED);
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_NOW), 0);
        thing_close(&t);
    }
    scene_close(&sc);
}

static void
close_slowly(void *ctx)
{
    (void)spoke_session_close(((struct thing *)ctx)->session[0], SPOKE_MS);
}

/* Whoever closes a session with a time, its handle is closed at once. */
Test(select, wakes_with_a_session_that_lingers)
{
    struct scene sc;
    struct thing t;
    struct later *later;
    size_t which;

    scene_open(&sc, SHARED);
    thing_open(&t, &sc, kind_of("session-receiver-ipc"));
    later = scene_later(&sc, close_slowly, &t);
    expect_rc(spoke_select(&t.c, 1, &which, NULL, SPOKE_FOREVER), SPOKE_ECLOSED);
    scene_joined(later);
    thing_close(&t);
    scene_close(&sc);
}

/* A session that has ended before anybody accepted it is none. */
WAY_TEST(select, passes_over_sessions_that_have_ended)
{
    struct scene sc;
    struct thing t;
    size_t which;

    scene_open(&sc, *way);
    thing_open(&t, &sc, kind_of("session-listener-inproc"));
    t.kind->make(&t);
    expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    expect_rc(spoke_session_close(t.session[1], 0), 0);
    while (spoke_select(&t.c, 1, &which, sc.e, SPOKE_NOW) == 0)
        (void)spoke_select(NULL, 0, &which, sc.e, scene_in(&sc, SPOKE_MS));
    expect_rc(t.kind->use(&t), SPOKE_EAGAIN);
    thing_close(&t);
    scene_close(&sc);
}

/* ---- what is attached ---- */

struct attaching {
    struct thing *t;
    spoke_msg *m;
};

static void
attach(void *ctx)
{
    struct attaching *a = ctx;

    (void)(a->t->rx != NULL ? spoke_msg_attach_receiver(a->m, a->t->rx)
                            : spoke_msg_attach_stream(a->m, a->t->stream[0], SPOKE_ATTACHED_BOTH));
}

/* What is attached to a message is closed for who had it. */
WAY_TEST(select, wakes_with_what_is_attached)
{
    static const char *const names[] = {"receiver", "reader-pair"};

    for (int i = 0; i < 2; i++) {
        struct scene sc;
        struct thing t;
        struct attaching a = {&t, NULL};
        struct later *later;
        size_t which;

        scene_open(&sc, *way);
        thing_open(&t, &sc, kind_of(names[i]));
        expect_rc(spoke_msg_new(&a.m, 0), 0);
        later = scene_later(&sc, attach, &a);
        expect_rc(spoke_select(&t.c, 1, &which, sc.e, SPOKE_FOREVER), SPOKE_ECLOSED);
        scene_joined(later);
        cr_assert_eq(which, 0);
        cr_assert_eq(spoke_msg_attachments(a.m), 1);
        spoke_msg_free(a.m);
        thing_close(&t);
        scene_close(&sc);
    }
}

/* ---- memory ---- */

Test(select, of_few_cases_takes_no_memory)
{
    static spoke_select_case cases[17];
    spoke_sim_config config;
    struct scene sc;
    struct thing t;
    size_t which;

    scene_open(&sc, SIM);
    thing_open(&t, &sc, kind_of("reader-pair"));
    cases[3] = t.c;
    spoke_sim_config_init(&config);
    config.enomem = 1000;
    spoke_sim_set_faults(sc.w, &config);
    expect_rc(spoke_select(cases, 16, &which, sc.e, scene_in(&sc, SPOKE_MS)), SPOKE_ETIMEDOUT);
    expect_rc(spoke_select(cases, 17, &which, sc.e, scene_in(&sc, SPOKE_MS)), SPOKE_ENOMEM);
    cr_assert_eq(which, 17);
    config.enomem = 0;
    spoke_sim_set_faults(sc.w, &config);
    cases[16] = (spoke_select_case){.what = SPOKE_SELECT_TIME, .of.when = 1};
    expect_rc(spoke_select(cases, 17, &which, sc.e, SPOKE_FOREVER), 0);
    cr_assert_eq(which, 16);
    thing_close(&t);
    scene_close(&sc);
}
