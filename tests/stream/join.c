/* SPDX-License-Identifier: MIT */
/* Two streams joined: what comes in at one goes out at the other, ends and errors too.  Everything
 * lives on one engine of the test's thread: client -- a (joined) b -- server. */
#include <stdlib.h>
#include <string.h>

#include <spoke/sim.h>
#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/resources.h"
#include "tests/support/test.h"

#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

struct play {
    spoke_engine *e;
    struct resources before;
    spoke_stream *client, *a, *b, *server;
    struct spoke_stream_report report;
    int done; /* times */
};

static spoke_ns
soon(const struct play *p)
{
    return spoke_engine_now(p->e) + PATIENCE;
}

static void
connect_over(struct play *p, enum transport over, spoke_stream **dialed, spoke_stream **accepted)
{
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, over);
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, p->e), 0);
    cr_assert_eq(spoke_stream_dial(dialed, url, NULL, p->e, soon(p)), 0);
    cr_assert_eq(spoke_stream_accept(l, accepted, soon(p)), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
}

static void
play_open(struct play *p)
{
    memset(p, 0, sizeof *p);
    (void)scratch_dir();
    resources_take(&p->before);
    cr_assert_eq(spoke_engine_open(&p->e, NULL), 0);
}

static void
play_connect(struct play *p, enum transport over)
{
    play_open(p);
    connect_over(p, over, &p->client, &p->a);
    connect_over(p, over, &p->b, &p->server);
    cr_assert_eq(spoke_stream_set_deadline(p->client, soon(p)), 0);
    cr_assert_eq(spoke_stream_set_deadline(p->server, soon(p)), 0);
}

static void
play_close(struct play *p)
{
    cr_assert_eq(spoke_engine_close(p->e), 0);
    resources_settle(&p->before);
}

static void
on_done(void *ctx, const struct spoke_stream_report *report)
{
    struct play *p = ctx;

    p->report = *report;
    p->done++;
}

static void
join(struct play *p)
{
    cr_assert_eq(spoke_stream_join(p->a, p->b, on_done, p), 0);
}

static void
await_done(struct play *p)
{
    for (spoke_ns limit = soon(p); p->done == 0 && spoke_engine_now(p->e) < limit;)
        cr_assert_geq(spoke_engine_poll(p->e, SPOKE_SECOND), 0);
    cr_assert_eq(p->done, 1);
}

static void
send_text(spoke_stream *s, const char *text)
{
    size_t done;

    cr_assert_eq(spoke_stream_write(s, text, strlen(text), &done), 0);
}

static void
expect_text(spoke_stream *s, const char *text)
{
    char got[64] = "";
    size_t done;

    cr_assert_eq(spoke_stream_read_full(s, got, strlen(text), &done), 0);
    cr_assert_str_eq(got, text);
}

static int
read_result(spoke_stream *s)
{
    char byte;
    size_t done;

    return spoke_stream_read(s, &byte, 1, &done);
}

static enum transport transports[] = {INPROC, IPC, TCP, SHM};

ParameterizedTestParameters(join, carries_both_ways_and_each_way_has_its_end)
{
    return cr_make_param_array(enum transport, transports, 4, NULL);
}

ParameterizedTest(enum transport *over, join, carries_both_ways_and_each_way_has_its_end)
{
    struct play p;

    play_connect(&p, *over);
    join(&p);
    send_text(p.client, "there");
    expect_text(p.server, "there");
    cr_assert_eq(spoke_stream_close_write(p.client), 0);
    cr_assert_eq(read_result(p.server), SPOKE_EOF);
    send_text(p.server, "and back"); /* the other half lives on */
    expect_text(p.client, "and back");
    cr_assert_eq(p.done, 0);
    cr_assert_eq(spoke_stream_close(p.server), 0);
    cr_assert_eq(read_result(p.client), SPOKE_EOF);
    await_done(&p);
    cr_assert_eq(p.report.result[0], 0);
    cr_assert_eq(p.report.result[1], 0);
    cr_assert_eq(p.report.bytes[0], 5);
    cr_assert_eq(p.report.bytes[1], 8);
    play_close(&p);
}

/* A client that has nothing to say, before the other side is there. */
ParameterizedTestParameters(join, an_end_waits_for_a_dial)
{
    return cr_make_param_array(enum transport, transports, 4, NULL);
}

ParameterizedTest(enum transport *over, join, an_end_waits_for_a_dial)
{
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX];
    struct play p;

    play_open(&p);
    endpoint_fresh(url, *over);
    cr_assert_eq(spoke_stream_pair(&p.client, &p.a, NULL, p.e), 0);
    cr_assert_eq(spoke_stream_close_write(p.client), 0);
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, p.e), 0);
    cr_assert_eq(spoke_stream_dial(&p.b, url, NULL, p.e, SPOKE_NOW), 0);
    join(&p);
    cr_assert_eq(spoke_stream_accept(l, &p.server, soon(&p)), 0);
    cr_assert_eq(spoke_stream_set_deadline(p.server, soon(&p)), 0);
    cr_assert_eq(read_result(p.server), SPOKE_EOF);
    cr_assert_eq(spoke_stream_close(p.server), 0);
    await_done(&p);
    cr_assert_eq(p.report.result[0], 0);
    cr_assert_eq(p.report.result[1], 0);
    play_close(&p);
}

Test(join, a_dial_that_fails_breaks_it_off)
{
    char url[ENDPOINT_MAX];
    struct play p;

    play_open(&p);
    endpoint_fresh(url, IPC);
    cr_assert_eq(spoke_stream_pair(&p.client, &p.a, NULL, p.e), 0);
    cr_assert_eq(spoke_stream_set_deadline(p.client, soon(&p)), 0);
    cr_assert_eq(spoke_stream_dial(&p.b, url, NULL, p.e, SPOKE_NOW), 0);
    join(&p);
    cr_assert_eq(read_result(p.client), SPOKE_EABORTED);
    await_done(&p);
    cr_assert_eq(p.report.result[0], SPOKE_ECONNREFUSED);
    cr_assert_eq(p.report.result[1], SPOKE_ECONNREFUSED);
    play_close(&p);
}

/* Also an error of a way whose counterpart has ended well: it must not look like an end. */
Test(join, an_error_reaches_both_peers)
{
    for (int i = 0; i < 2; i++) {
        struct play p;

        play_connect(&p, INPROC);
        join(&p);
        if (i == 1) {
            cr_assert_eq(spoke_stream_close_write(p.client), 0);
            cr_assert_eq(read_result(p.server), SPOKE_EOF);
        }
        cr_assert_eq(spoke_stream_abort(p.server, 7), 0);
        cr_assert_eq(read_result(p.client), SPOKE_EABORTED);
        await_done(&p);
        cr_assert_eq(p.report.result[0], i == 1 ? 0 : SPOKE_EABORTED);
        cr_assert_eq(p.report.result[1], SPOKE_EABORTED);
        play_close(&p);
    }
}

Test(join, who_reads_no_more_ends_one_way_only)
{
    struct play p;
    char byte = 'x';
    size_t done;
    int rc;

    play_connect(&p, INPROC);
    join(&p);
    cr_assert_eq(spoke_stream_close_read(p.server), 0);
    while ((rc = spoke_stream_write(p.client, &byte, 1, &done)) == 0) {
    }
    cr_assert_eq(rc, SPOKE_EPEERCLOSED);
    send_text(p.server, "still here");
    expect_text(p.client, "still here");
    cr_assert_eq(spoke_stream_close_write(p.server), 0);
    await_done(&p);
    cr_assert_eq(p.report.result[0], SPOKE_EPEERCLOSED);
    cr_assert_eq(p.report.result[1], 0);
    play_close(&p);
}

Test(join, closing_one_breaks_off_the_other)
{
    for (int i = 0; i < 2; i++) {
        struct play p;

        play_connect(&p, INPROC);
        join(&p);
        send_text(p.client, "abc");
        expect_text(p.server, "abc");
        cr_assert_eq(spoke_stream_close(i == 0 ? p.a : p.b), 0);
        await_done(&p);
        cr_assert_eq(p.report.result[0], SPOKE_ECLOSED);
        cr_assert_eq(p.report.result[1], SPOKE_ECLOSED);
        cr_assert_eq(p.report.bytes[0], 3);
        cr_assert_eq(read_result(i == 0 ? p.server : p.client), SPOKE_EABORTED);
        play_close(&p);
    }
}

/* In the middle, with bytes that are held. */
ParameterizedTestParameters(join, is_done_when_the_engine_closes)
{
    return cr_make_param_array(enum transport, transports, 4, NULL);
}

ParameterizedTest(enum transport *over, join, is_done_when_the_engine_closes)
{
    static char block[65536];
    struct play p;
    size_t done;

    play_connect(&p, *over);
    join(&p);
    cr_assert_eq(spoke_stream_set_write_deadline(p.client, SPOKE_NOW), 0);
    for (int quiet = 0; quiet < 3;) { /* until nothing moves: nobody reads */
        quiet = spoke_stream_write(p.client, block, sizeof block, &done) == 0 ? 0 : quiet + 1;
        cr_assert_geq(spoke_engine_poll(p.e, 5 * SPOKE_MS), 0);
    }
    cr_assert_eq(p.done, 0);
    play_close(&p);
    cr_assert_eq(p.done, 1);
    cr_assert_eq(p.report.result[0], SPOKE_ECLOSED);
    cr_assert_eq(p.report.result[1], SPOKE_ECLOSED);
}

Test(join, takes_only_two_that_are_free)
{
    spoke_engine *other;
    spoke_stream *far[2];
    struct play p;

    play_connect(&p, INPROC);
    cr_assert_eq(spoke_engine_open(&other, NULL), 0);
    cr_assert_eq(spoke_stream_pair(&far[0], &far[1], NULL, other), 0);
    cr_assert_eq(spoke_stream_join(p.a, p.a, on_done, &p), SPOKE_EINVAL);
    cr_assert_eq(spoke_stream_join(p.a, far[0], on_done, &p), SPOKE_EINVAL);
    cr_assert_eq(spoke_stream_join(p.a, p.b, NULL, &p), SPOKE_EINVAL);
    cr_assert_eq(spoke_stream_join(p.a, NULL, on_done, &p), SPOKE_ECLOSED);
    join(&p);
    cr_assert_eq(spoke_stream_join(p.client, p.a, on_done, &p), SPOKE_EBUSY);
    cr_assert_eq(spoke_stream_join(p.b, p.server, on_done, &p), SPOKE_EBUSY);
    cr_assert_eq(spoke_engine_close(other), 0);
    play_close(&p);
}

Test(join, copy_waits_for_it)
{
    struct spoke_stream_report report;
    struct play p;

    play_connect(&p, TCP);
    send_text(p.client, "there");
    send_text(p.server, "and back");
    cr_assert_eq(spoke_stream_close_write(p.client), 0);
    cr_assert_eq(spoke_stream_close_write(p.server), 0);
    cr_assert_eq(spoke_stream_copy(p.a, p.b, &report), 0);
    cr_assert_eq(report.result[0], 0);
    cr_assert_eq(report.result[1], 0);
    cr_assert_eq(report.bytes[0], 5);
    cr_assert_eq(report.bytes[1], 8);
    expect_text(p.server, "there");
    expect_text(p.client, "and back");
    play_close(&p);
}

/* In a world where nothing else will ever happen. */
Test(join, copy_says_that_nothing_can_go_on)
{
    spoke_stream *client, *a, *b, *server;
    struct spoke_stream_report report;
    spoke_engine *e;
    spoke_sim *sim;
    size_t done;

    cr_assert_eq(spoke_sim_open(&sim, NULL), 0);
    cr_assert_eq(spoke_sim_engine(sim, &e), 0);
    cr_assert_eq(spoke_stream_pair(&client, &a, NULL, e), 0);
    cr_assert_eq(spoke_stream_pair(&b, &server, NULL, e), 0);
    cr_assert_eq(spoke_stream_write(client, "abc", 3, &done), 0);
    cr_assert_eq(spoke_stream_copy(a, b, &report), SPOKE_EDEADLK);
    cr_assert_eq(report.bytes[0], 3);
    expect_text(server, "abc");
    cr_assert_eq(spoke_sim_close(sim, NULL), 0);
}
