/* SPDX-License-Identifier: MIT */
/* Every allocation fails once: each call then gives a proper error or works all the same, and
 * nothing is left. */
#include "tests/stream/fixture.h"

#include <stdatomic.h>
#include <string.h>

#include "runtime/memory/pool.h"

#define TOO_MANY 5000

static struct {
    atomic_long count, fail_at; /* from 1 */
    atomic_bool fired;
} fault;

static bool
fail_this_one(void *ctx)
{
    (void)ctx;
    if (atomic_fetch_add(&fault.count, 1) + 1 != fault.fail_at)
        return false;
    fault.fired = true;
    return true;
}

static void
arm(long fail_at)
{
    fault.count = 0;
    fault.fail_at = fail_at;
    fault.fired = false;
    spk_memory_set_fault(fail_this_one, NULL);
}

static void
disarm(void)
{
    spk_memory_set_fault(NULL, NULL);
}

static struct criterion_test_params
owned(void)
{
    static struct place list[] = {{OVER_INPROC, ONE, PLAIN}, {OVER_IPC, ONE, PLAIN},
                                  {OVER_TCP, ONE, PLAIN},    {OVER_SHM, ONE, PLAIN},
                                  {OVER_PAIR, ONE, PLAIN},   {OVER_FD, ONE, PLAIN}};

    return (struct criterion_test_params){
        .size = sizeof list[0], .params = list, .length = sizeof list / sizeof list[0]};
}

/* ---- coming about ---- */

/* Where the failure makes it hang, `patience` is how long that is watched. */
static int
connect_once(struct stage *st, const char *url, spoke_ns patience, spoke_stream_listener **l,
             spoke_stream *s[2])
{
    spoke_ns limit = stage_in(st, patience);
    int rc;

    if (st->p.over == OVER_PAIR)
        return spoke_stream_pair(&s[0], &s[1], NULL, st->e[0]);
    if ((rc = spoke_stream_listen(l, url, NULL, st->e[1])) != 0 ||
        (rc = spoke_stream_dial(&s[0], url, NULL, st->e[0], limit)) != 0)
        return rc;
    return spoke_stream_accept(*l, &s[1], limit);
}

PLACE_TEST(stream_memory, an_allocation_fails_while_a_stream_comes_about, owned)
{
    const spoke_ns usual = 300 * SPOKE_MS * SPOKE_TEST_SLOWDOWN;
    spoke_ns patience = usual;
    char url[ENDPOINT_MAX];
    long failures = 0;

    if (p->over == OVER_FD)
        return; /* below */
    endpoint_fresh(url, (enum transport)(p->over == OVER_PAIR ? INPROC : p->over));
    fault.fired = true;
    for (long n = 1; fault.fired; n++) {
        spoke_stream_listener *l = NULL;
        spoke_stream *s[2] = {NULL, NULL};
        struct stage st;
        int rc;

        cr_assert_lt(n, TOO_MANY);
        stage_open(&st, p);
        arm(n);
        rc = connect_once(&st, url, patience, &l, s);
        disarm();
        bool again = rc == SPOKE_ETIMEDOUT && !fault.fired && patience < PATIENCE; /* it was slow */
        cr_assert(rc == 0 || fault.fired || again, "allocation %ld: %s although none failed", n,
                  name_of(rc));
        cr_assert(
            rc == 0 || rc == SPOKE_ENOMEM || rc == SPOKE_ETIMEDOUT || rc == SPOKE_ECONNRESET ||
                rc == SPOKE_EOF ||
                (rc == SPOKE_ENOTSUP && p->over == OVER_SHM), /* there is no memory to share */
            "allocation %ld: %s", n, name_of(rc));
        failures += rc != 0 && !again;
        if (rc == 0) {
            spoke_ns end = stage_in(&st, fault.fired ? SPOKE_SECOND : PATIENCE);
            size_t done;

            expect_rc(spoke_stream_set_deadline(s[0], end), 0);
            expect_rc(spoke_stream_set_deadline(s[1], end), 0);
            (void)spoke_stream_write(s[0], "works", 5, &done);
            char text[5];
            rc = spoke_stream_read_full(s[1], text, 5, &done);
            cr_assert(rc == 0 || fault.fired, "%s", name_of(rc));
        }
        for (int i = 0; i < 2; i++)
            cr_assert(s[i] == NULL || spoke_stream_close(s[i]) == 0);
        if (l != NULL)
            expect_rc(spoke_stream_listener_close(l), 0);
        stage_close(&st);
        patience = again ? PATIENCE : usual;
        if (again) {
            n--;
            fault.fired = true;
        }
    }
    cr_assert_gt(failures, 1, "it was not tried");
}

/* ---- carrying ---- */

static int
exchange(struct stage *st, spoke_stream *s[2], size_t size)
{
    static uint8_t bytes[20000], in[20000];
    spoke_msg *m = NULL;
    size_t done, got = 0;
    int rc;

    bytes_fill(bytes, size, 1);
    if ((rc = spoke_stream_write(s[0], bytes, size, &done)) != 0 ||
        (rc = spoke_stream_read_full(s[1], in, size, &done)) != 0)
        return rc;
    cr_assert(bytes_hold(in, size, 1));
    if ((rc = spoke_msg_from(&m, bytes, size)) != 0)
        return rc;
    if ((rc = spoke_stream_write_chunk(s[1], m, &done)) != 0) {
        cr_assert_eq(spoke_msg_size(m), size); /* the caller's, as it was */
        cr_assert(bytes_hold(spoke_msg_body(m), size, 1));
        spoke_msg_free(m);
        return rc;
    }
    while (got < size) {
        if ((rc = spoke_stream_read_chunk(s[0], &m)) != 0)
            return rc;
        cr_assert(bytes_hold(spoke_msg_body(m), spoke_msg_size(m), 1 + got));
        got += spoke_msg_size(m);
        if ((rc = spoke_stream_unread(s[0], m)) != 0) {
            spoke_msg_free(m);
            return rc;
        }
        if ((rc = spoke_stream_read_chunk(s[0], &m)) != 0)
            return rc;
        spoke_msg_free(m);
    }
    (void)st;
    return 0;
}

PLACE_TEST(stream_memory, an_allocation_fails_while_bytes_are_carried, owned)
{
    static const size_t sizes[] = {10, 5000, 20000};
    long tried = 0;

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        fault.fired = true;
        for (long n = 1; fault.fired; n++) {
            struct ends d;
            int rc;

            cr_assert_lt(n, TOO_MANY);
            ends_open(&d, p, NULL);
            for (int side = 0; side < 2; side++)
                expect_rc(spoke_stream_set_deadline(d.end[side], stage_in(&d.st, PATIENCE)), 0);
            arm(n);
            rc = exchange(&d.st, d.end, sizes[i]);
            disarm();
            tried += fault.fired;
            cr_assert(rc == 0 || fault.fired, "%zu bytes, allocation %ld: %s although none failed",
                      sizes[i], n, name_of(rc));
            cr_assert(rc == 0 || rc == SPOKE_ENOMEM || rc == SPOKE_ECONNRESET ||
                          rc == SPOKE_EPEERCLOSED || rc == SPOKE_EOF,
                      "%zu bytes, allocation %ld: %s", sizes[i], n, name_of(rc));
            ends_close(&d);
        }
    }
    cr_assert_gt(tried, 5, "it was not tried");
}

/* ---- ending ---- */

static bool
fail_from_here_on(void *ctx)
{
    (void)ctx;
    fault.fired = true;
    return true;
}

PLACE_TEST(stream_memory, a_close_needs_none, owned)
{
    struct ends d;

    ends_open(&d, p, NULL);
    write_text(d.end[0], "before");
    stage_pass(&d.st, 3 * SPOKE_MS);
    spk_memory_set_fault(fail_from_here_on, NULL);
    int first = spoke_stream_close_write(d.end[0]);
    int rc = spoke_stream_close(d.end[1]), other = spoke_stream_close(d.end[0]);
    disarm();
    expect_rc(first, 0);
    cr_assert(rc == 0 || rc == SPOKE_ETIMEDOUT, "%s", name_of(rc)); /* its last words are lost */
    cr_assert(other == 0 || other == SPOKE_ETIMEDOUT, "%s", name_of(other));
    stage_close(&d.st);
}

/* The end is said when there is memory again. */
PLACE_TEST(stream_memory, an_end_that_could_not_be_said, owned)
{
    struct ends d;

    ends_open(&d, p, NULL);
    write_text(d.end[0], "before");
    stage_pass(&d.st, 3 * SPOKE_MS);
    spk_memory_set_fault(fail_from_here_on, NULL);
    int rc = spoke_stream_close_write(d.end[0]);
    stage_pass(&d.st, 3 * SPOKE_MS);
    disarm();
    expect_rc(rc, 0);
    expect_text(d.end[1], "before");
    expect_rc(spoke_stream_set_read_deadline(d.end[1], stage_in(&d.st, PATIENCE)), 0);
    expect_rc(read_one(d.end[1]), SPOKE_EOF);
    ends_close(&d);
}
