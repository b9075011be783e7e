/* SPDX-License-Identifier: MIT */
/* What programs that use connections take for granted: the eleven tests of a connection, over
 * everything that carries a stream, and on a mux over each. */
#include "tests/stream/fixture.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TOTAL ((size_t)1024 * 1024)
#define BIG   ((size_t)64 * 1024 * 1024) /* more than can be on its way anywhere */

/* ---- BasicIO ---- */

static const char *
write_total(struct task_end *t)
{
    uint8_t bytes[1024];
    size_t done;

    for (uint64_t place = 0; place < TOTAL; place += sizeof bytes) {
        bytes_fill(bytes, sizeof bytes, place);
        TASK_CHECK(spoke_stream_write(t->s, bytes, sizeof bytes, &done) == 0);
        TASK_CHECK(done == sizeof bytes);
    }
    return NULL;
}

static const char *
read_total(struct task_end *t)
{
    uint8_t bytes[1500];
    uint64_t place = 0;
    size_t done;
    int rc;

    while ((rc = spoke_stream_read(t->s, bytes, sizeof bytes, &done)) == 0) {
        TASK_CHECK(done > 0 && bytes_hold(bytes, done, place));
        place += done;
    }
    TASK_CHECK(rc == SPOKE_EOF && done == 0);
    TASK_CHECK(place == TOTAL);
    return NULL;
}

PLACE_TEST(stream_conn, basic_io, conns_tasks)
{
    run_tasks(p, NULL, write_total, read_total, NULL);
    run_tasks(p, NULL, read_total, write_total, NULL);
}

/* ---- PingPong ---- */

static const char *
play(struct task_end *t)
{
    uint64_t count = 0;
    size_t done;
    int rc;

    if (t->side == 0)
        TASK_CHECK(spoke_stream_write(t->s, &count, sizeof count, &done) == 0);
    while ((rc = spoke_stream_read_full(t->s, &count, sizeof count, &done)) == 0) {
        if (++count == 1000)
            return NULL; /* its close ends the other one */
        TASK_CHECK(spoke_stream_write(t->s, &count, sizeof count, &done) == 0);
    }
    TASK_CHECK(rc == SPOKE_EOF && done == 0 && count == 999);
    return NULL;
}

PLACE_TEST(stream_conn, ping_pong, conns_tasks)
{
    run_tasks(p, NULL, play, play, NULL);
}

/* ---- RacyRead, RacyWrite ---- */

enum { RACERS = 10, RACES = 100 / (SPOKE_TEST_SLOWDOWN > 1 ? 4 : 1) };

struct race {
    spoke_stream *s;
    atomic_int wrong, timeouts;
};

static void
judge(struct race *r, int rc)
{
    if (rc == SPOKE_ETIMEDOUT) {
        r->timeouts++;
        (void)spoke_stream_set_deadline(r->s, spoke_engine_now(NULL) + SPOKE_MS);
    } else if (rc != 0) {
        r->wrong = rc;
    }
}

static void *
race_to_read(void *ctx)
{
    struct race *r = ctx;
    uint8_t bytes[1024];
    size_t done;

    (void)spoke_stream_set_read_deadline(r->s, spoke_engine_now(NULL) + SPOKE_MS);
    for (int i = 0; i < RACES; i++) {
        judge(r, spoke_stream_read(r->s, bytes, sizeof bytes, &done));
        memset(bytes, i, sizeof bytes);
    }
    return NULL;
}

static void *
race_to_write(void *ctx)
{
    struct race *r = ctx;
    uint8_t bytes[1024];
    size_t done;

    (void)spoke_stream_set_write_deadline(r->s, spoke_engine_now(NULL) + SPOKE_MS);
    for (int i = 0; i < RACES; i++) {
        memset(bytes, i, sizeof bytes);
        judge(r, spoke_stream_write(r->s, bytes, sizeof bytes, &done));
        memset(bytes, 0xee, sizeof bytes);
    }
    return NULL;
}

/* The other side: writes until it is told to stop, or reads. */
static void *
write_on(void *ctx)
{
    static const uint8_t bytes[4096];
    size_t done;

    while (spoke_stream_write(ctx, bytes, sizeof bytes, &done) == 0) {
    }
    return NULL;
}

static void *
read_on(void *ctx)
{
    uint8_t bytes[4096];
    size_t done;

    while (spoke_stream_read(ctx, bytes, sizeof bytes, &done) == 0) {
        for (size_t i = 0; i < done; i++) {
            if (bytes[i] == 0xee) /* the writer's memory after its call */
                return (void *)1;
        }
    }
    return NULL;
}

static void
race(const struct place *p, void *(*racer)(void *ctx), void *(*other)(void *ctx))
{
    pthread_t racers[RACERS], opposite;
    struct race r = {0};
    struct ends d;
    void *wrong;

    ends_open(&d, p, NULL);
    r.s = d.end[0];
    cr_assert_eq(pthread_create(&opposite, NULL, other, d.end[1]), 0);
    for (int i = 0; i < RACERS; i++)
        cr_assert_eq(pthread_create(&racers[i], NULL, racer, &r), 0);
    for (int i = 0; i < RACERS; i++)
        pthread_join(racers[i], NULL);
    cr_assert_eq(r.wrong, 0, "%s", name_of(r.wrong));
    expect_rc(spoke_stream_close(d.end[0]), 0);
    pthread_join(opposite, &wrong);
    cr_assert_null(wrong, "bytes that were changed after the write");
    ends_close(&d);
}

PLACE_TEST(stream_conn, racy_read, conns_shared)
{
    race(p, race_to_read, write_on);
}

PLACE_TEST(stream_conn, racy_write, conns_shared)
{
    race(p, race_to_write, read_on);
}

/* ---- ReadTimeout, WriteTimeout ---- */

PLACE_TEST(stream_conn, a_read_deadline_is_none_of_writes, conns)
{
    struct ends d;

    ends_open(&d, p, NULL);
    expect_rc(spoke_stream_set_read_deadline(d.end[0], 1), 0);
    for (int i = 0; i < 10; i++) {
        write_bytes(d.end[0], 0, 1000);
        read_bytes(d.end[1], 0, 1000);
        expect_rc(read_one(d.end[0]), SPOKE_ETIMEDOUT);
    }
    ends_close(&d);
}

PLACE_TEST(stream_conn, a_write_deadline_is_none_of_reads, conns)
{
    struct ends d;

    ends_open(&d, p, NULL);
    expect_rc(spoke_stream_set_write_deadline(d.end[0], 1), 0);
    for (int i = 0; i < 10; i++) {
        write_bytes(d.end[1], 0, 1000);
        read_bytes(d.end[0], 0, 1000);
        expect_rc(write_one(d.end[0]), SPOKE_ETIMEDOUT);
    }
    ends_close(&d);
}

/* ---- PastTimeout ---- */

PLACE_TEST(stream_conn, a_deadline_in_the_past_and_none_again, conns)
{
    struct ends d;
    spoke_msg *m;

    ends_open(&d, p, NULL);
    write_text(d.end[1], "there");
    stage_pass(&d.st, SPOKE_MS);
    expect_rc(spoke_stream_set_deadline(d.end[0], stage_now(&d.st) > 1 ? stage_now(&d.st) - 1 : 1),
              0);
    for (int i = 0; i < 3; i++) {
        expect_rc(read_one(d.end[0]), SPOKE_ETIMEDOUT);
        expect_rc(write_one(d.end[0]), SPOKE_ETIMEDOUT);
        expect_rc(spoke_stream_read_chunk(d.end[0], &m), SPOKE_ETIMEDOUT);
    }
    expect_rc(spoke_stream_set_deadline(d.end[0], SPOKE_FOREVER), 0);
    expect_text(d.end[0], "there");
    write_text(d.end[0], "here");
    expect_text(d.end[1], "here");
    ends_close(&d);
}

/* ---- PresentTimeout, FutureTimeout, CloseTimeout ---- */

static void
set_past(void *ctx)
{
    (void)spoke_stream_set_deadline(ctx, 1);
}

static void
close_it(void *ctx)
{
    (void)spoke_stream_close(ctx);
}

/* A write that nobody takes. */
static int
write_big(spoke_stream *s, size_t *done)
{
    void *bytes = calloc(1, BIG);
    int rc = bytes != NULL ? spoke_stream_write(s, bytes, BIG, done) : SPOKE_ENOMEM;

    free(bytes);
    return rc;
}

PLACE_TEST(stream_conn, a_deadline_that_is_set_while_calls_wait, conns)
{
    struct later *later;
    struct ends d;
    spoke_ns begin;
    size_t done;

    ends_open(&d, p, NULL);
    begin = stage_now(&d.st);
    later = stage_after(&d.st, 20 * SPOKE_MS, set_past, d.end[0]);
    expect_rc(read_one(d.end[0]), SPOKE_ETIMEDOUT);
    cr_assert_geq(stage_now(&d.st) - begin, 20 * SPOKE_MS, "before it was set");
    stage_joined(later);
    expect_rc(spoke_stream_set_deadline(d.end[0], SPOKE_FOREVER), 0);
    begin = stage_now(&d.st);
    later = stage_after(&d.st, 20 * SPOKE_MS, set_past, d.end[0]);
    expect_rc(write_big(d.end[0], &done), SPOKE_ETIMEDOUT);
    cr_assert_lt(done, BIG);
    cr_assert_geq(stage_now(&d.st) - begin, 20 * SPOKE_MS, "before it was set");
    stage_joined(later);
    expect_rc(spoke_stream_abort(d.end[1], 0), 0);
    (void)spoke_stream_close(d.end[0]); /* not all of it arrives */
    ends_close(&d);
}

struct removal {
    struct stage *st;
    spoke_stream *s;
    spoke_ns done; /* when the deadline had been taken away */
};

static void
take_away(void *ctx)
{
    struct removal *x = ctx;

    (void)spoke_stream_set_deadline(x->s, SPOKE_FOREVER);
    x->done = stage_now(x->st);
}

static bool
was_taken_away(void *ctx)
{
    return ((struct removal *)ctx)->done != 0;
}

static void
write_a_byte(void *ctx)
{
    size_t done;

    (void)spoke_stream_set_write_deadline(ctx, SPOKE_NOW);
    (void)spoke_stream_write(ctx, "1", 1, &done);
}

/* A deadline that is near is taken away, while a read waits for it.  Where that comes too late it
 * says nothing, and is tried again with a later one. */
PLACE_TEST(stream_conn, a_deadline_that_is_taken_away_while_a_call_waits, conns)
{
    struct ends d;

    ends_open(&d, p, NULL);
    for (spoke_ns wait = 300 * SPOKE_MS;; wait *= 2) {
        struct removal x = {.st = &d.st, .s = d.end[0]};
        spoke_ns deadline = stage_in(&d.st, wait);
        struct later *one, *other;
        int rc;

        cr_assert_lt(wait, PATIENCE);
        expect_rc(spoke_stream_set_read_deadline(d.end[0], deadline), 0);
        one = stage_after(&d.st, 10 * SPOKE_MS, take_away, &x);
        other = stage_after(&d.st, wait + 200 * SPOKE_MS, write_a_byte, d.end[1]);
        rc = read_one(d.end[0]);
        stage_joined(one);
        stage_joined(other);
        cr_assert(stage_until(&d.st, was_taken_away, &x));
        if (rc == 0)
            break;
        expect_rc(rc, SPOKE_ETIMEDOUT);
        cr_assert_geq(x.done, deadline, "it was taken away in time");
        expect_rc(spoke_stream_set_deadline(d.end[0], SPOKE_FOREVER), 0);
        expect_rc(read_one(d.end[0]), 0); /* the byte of this time */
    }
    ends_close(&d);
}

PLACE_TEST(stream_conn, a_deadline_in_the_future, conns)
{
    struct ends d;
    spoke_ns end;
    size_t done;

    ends_open(&d, p, NULL);
    for (int i = 0; i < 3; i++) {
        end = stage_in(&d.st, 20 * SPOKE_MS);
        expect_rc(spoke_stream_set_deadline(d.end[0], end), 0);
        expect_rc(read_one(d.end[0]), SPOKE_ETIMEDOUT);
        cr_assert_geq(stage_now(&d.st), end);
    }
    /* It is as usable as before. */
    expect_rc(spoke_stream_set_deadline(d.end[0], SPOKE_FOREVER), 0);
    write_text(d.end[0], "more");
    expect_text(d.end[1], "more");
    write_text(d.end[1], "too");
    expect_text(d.end[0], "too");
    end = stage_in(&d.st, 20 * SPOKE_MS);
    expect_rc(spoke_stream_set_deadline(d.end[0], end), 0);
    expect_rc(write_big(d.end[0], &done), SPOKE_ETIMEDOUT);
    cr_assert_geq(stage_now(&d.st), end);
    expect_rc(spoke_stream_abort(d.end[1], 0), 0);
    (void)spoke_stream_close(d.end[0]);
    ends_close(&d);
}

PLACE_TEST(stream_conn, a_close_ends_who_waits, conns)
{
    struct later *later;
    struct ends d;
    size_t done;

    for (int writes = 0; writes < 2; writes++) {
        ends_open(&d, p, &(spoke_stream_config){.linger_ns = SPOKE_MS, .ipc_mode = -1});
        later = stage_after(&d.st, 10 * SPOKE_MS, close_it, d.end[0]);
        if (writes)
            expect_rc(write_big(d.end[0], &done), SPOKE_ECLOSED);
        else
            expect_rc(read_one(d.end[0]), SPOKE_ECLOSED);
        stage_joined(later);
        ends_close(&d);
    }
}

/* ---- ConcurrentMethods ---- */

static void *
call_everything(void *ctx)
{
    spoke_stream *s = ctx;
    struct spoke_stream_info info;
    uint8_t bytes[1024];
    char url[ENDPOINT_MAX];
    size_t done;

    memset(bytes, 1, sizeof bytes);
    (void)spoke_stream_set_read_deadline(s, spoke_engine_now(NULL) + 10 * SPOKE_MS);
    (void)spoke_stream_read(s, bytes, sizeof bytes, &done);
    (void)spoke_stream_write(s, bytes, sizeof bytes, &done);
    (void)spoke_stream_set_deadline(s, spoke_engine_now(NULL) + 10 * SPOKE_MS);
    (void)spoke_stream_set_read_deadline(s, spoke_engine_now(NULL) + 10 * SPOKE_MS);
    (void)spoke_stream_set_write_deadline(s, spoke_engine_now(NULL) + 10 * SPOKE_MS);
    (void)spoke_stream_address(s, SPOKE_LOCAL, url, sizeof url);
    (void)spoke_stream_address(s, SPOKE_REMOTE, url, sizeof url);
    (void)spoke_stream_get_info(s, &info);
    (void)spoke_stream_fd(s, SPOKE_STREAM_READABLE);
    return NULL;
}

/* Gives back what it gets. */
static void *
echo_on(void *ctx)
{
    uint8_t bytes[4096];
    size_t done;

    while (spoke_stream_read(ctx, bytes, sizeof bytes, &done) == 0 &&
           spoke_stream_write(ctx, bytes, done, &done) == 0) {
    }
    return NULL;
}

static void *
bounce(void *ctx)
{
    uint8_t out[4096], in[4096];
    size_t done;

    for (int i = 0; i < 50; i++) {
        memset(out, i, sizeof out);
        if (spoke_stream_write(ctx, out, sizeof out, &done) != 0 ||
            spoke_stream_read_full(ctx, in, sizeof in, &done) != 0 ||
            memcmp(in, out, sizeof in) != 0)
            return (void *)1;
    }
    return NULL;
}

PLACE_TEST(stream_conn, all_calls_at_once, conns_shared)
{
    enum { CALLERS = 50 };
    pthread_t callers[CALLERS], echo;
    struct ends d;

    ends_open(&d, p, NULL);
    cr_assert_eq(pthread_create(&echo, NULL, echo_on, d.end[1]), 0);
    for (int i = 0; i < CALLERS; i++)
        cr_assert_eq(pthread_create(&callers[i], NULL, call_everything, d.end[0]), 0);
    for (int i = 0; i < CALLERS; i++)
        pthread_join(callers[i], NULL);
    /* What is still on its way comes back; then it works as at first. */
    expect_rc(spoke_stream_set_deadline(d.end[0], SPOKE_FOREVER), 0);
    for (struct spoke_stream_info info;;) {
        uint8_t bytes[4096];
        size_t done;

        expect_rc(spoke_stream_get_info(d.end[0], &info), 0);
        if (info.bytes_read == info.bytes_written)
            break;
        expect_rc(spoke_stream_read(d.end[0], bytes, sizeof bytes, &done), 0);
    }
    cr_assert_null(bounce(d.end[0]));
    expect_rc(spoke_stream_close(d.end[0]), 0);
    pthread_join(echo, NULL);
    ends_close(&d);
}
