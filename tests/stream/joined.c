/* SPDX-License-Identifier: MIT */
/* Two streams joined: what comes from one goes to the other, with its ends: over everything that
 * carries a stream. */
#include "tests/stream/fixture.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* near[0] = near[1] joined far[0] = far[1] */
struct chain {
    struct ends near;
    spoke_stream *far[2];
    atomic_int over;
    struct spoke_stream_report report;
};

static void
note_over(void *ctx, const struct spoke_stream_report *report)
{
    struct chain *x = ctx;

    x->report = *report;
    x->over++;
}

static bool
is_over(void *ctx)
{
    return ((struct chain *)ctx)->over > 0;
}

/* The middle is on one engine. */
static void
connect_chain(struct chain *x, const struct place *p)
{
    struct stage other;

    memset(x, 0, sizeof *x);
    ends_open(&x->near, p, NULL);
    other = x->near.st;
    other.e[0] = x->near.st.e[1];
    other.e[1] = x->near.st.e[0];
    connect_ends(&other, NULL, x->far);
}

static void
join_chain(struct chain *x)
{
    expect_rc(spoke_stream_join(x->near.end[1], x->far[0], note_over, x), 0);
}

static void
open_chain(struct chain *x, const struct place *p)
{
    connect_chain(x, p);
    join_chain(x);
}

static void
close_chain(struct chain *x)
{
    stage_pass(&x->near.st, 3 * SPOKE_MS);
    cr_assert_eq(x->over, 1, "over %d times", x->over);
    for (int i = 0; i < 2; i++)
        (void)spoke_stream_close(x->far[i]);
    ends_close(&x->near);
}

PLACE_TEST(stream_joined, both_ways_and_their_ends, places)
{
    struct chain x;

    open_chain(&x, p);
    write_bytes(x.near.end[0], 0, 30000);
    read_bytes(x.far[1], 0, 30000);
    write_bytes(x.far[1], 5, 20000);
    read_bytes(x.near.end[0], 5, 20000);
    expect_rc(spoke_stream_close_write(x.near.end[0]), 0);
    expect_rc(read_one(x.far[1]), SPOKE_EOF);
    cr_assert_eq(x.over, 0);
    write_text(x.far[1], "still");
    expect_text(x.near.end[0], "still");
    expect_rc(spoke_stream_close_write(x.far[1]), 0);
    expect_rc(read_one(x.near.end[0]), SPOKE_EOF);
    cr_assert(stage_until(&x.near.st, is_over, &x));
    cr_assert_eq(x.report.bytes[0], 30000);
    cr_assert_eq(x.report.bytes[1], 20005);
    expect_rc(x.report.result[0], 0);
    expect_rc(x.report.result[1], 0);
    close_chain(&x);
}

/* Nobody reads at the other end: the writer has to wait, and nothing is lost. */
PLACE_TEST(stream_joined, a_slow_reader_holds_the_writer, places)
{
    struct chain x;
    uint64_t sent;

    open_chain(&x, p);
    sent = fill_up(&x.near.st, x.near.end[0]);
    expect_rc(spoke_stream_set_deadline(x.far[1], stage_in(&x.near.st, PATIENCE)), 0);
    read_bytes(x.far[1], 0, sent);
    expect_rc(spoke_stream_close_write(x.near.end[0]), 0);
    expect_rc(read_one(x.far[1]), SPOKE_EOF);
    expect_rc(spoke_stream_close(x.far[1]), 0);
    cr_assert(stage_until(&x.near.st, is_over, &x));
    cr_assert_eq(x.report.bytes[0], sent);
    close_chain(&x);
}

/* Nothing was to be read from one of the two already: the other way is carried all the same. */
PLACE_TEST(stream_joined, a_half_that_was_not_to_be_read, places)
{
    struct chain x;

    connect_chain(&x, p);
    expect_rc(spoke_stream_close_read(x.near.end[1]), 0);
    join_chain(&x);
    expect_rc(read_one(x.far[1]), SPOKE_EOF);
    write_text(x.far[1], "still");
    expect_text(x.near.end[0], "still");
    expect_rc(spoke_stream_close_write(x.far[1]), 0);
    expect_rc(read_one(x.near.end[0]), SPOKE_EOF);
    cr_assert(stage_until(&x.near.st, is_over, &x));
    cr_assert_eq(x.report.bytes[1], 5);
    expect_rc(x.report.result[0], 0);
    expect_rc(x.report.result[1], 0);
    close_chain(&x);
}

/* … or nothing to be written. */
PLACE_TEST(stream_joined, a_half_that_was_not_to_be_written, places)
{
    struct chain x;

    connect_chain(&x, p);
    expect_rc(spoke_stream_close_write(x.near.end[1]), 0);
    expect_rc(read_one(x.near.end[0]), SPOKE_EOF);
    join_chain(&x);
    write_text(x.far[1], "for nobody");
    write_text(x.near.end[0], "still");
    expect_text(x.far[1], "still");
    expect_rc(spoke_stream_close_write(x.near.end[0]), 0);
    expect_rc(read_one(x.far[1]), SPOKE_EOF);
    cr_assert(stage_until(&x.near.st, is_over, &x));
    cr_assert_eq(x.report.bytes[0], 5);
    cr_assert_eq(x.report.bytes[1], 0);
    expect_rc(x.report.result[0], 0);
    expect_rc(x.report.result[1], SPOKE_EPEERCLOSED);
    close_chain(&x);
}
