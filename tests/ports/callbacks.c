/* SPDX-License-Identifier: MIT */
/* What the functions of users may do to the exporter that calls them, and other threads meanwhile.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/ports/fixture.h"

/* ---- in a callback ---- */

enum act { CLOSES, LINGERS, HANGS_UP, ACTS };
enum where { IN_ALLOW = -1 }; /* or an event */

struct actor {
    struct market *x;
    enum act act;
    int where;
    atomic_int done;
    int rc;
};

static void
act(struct actor *a)
{
    if (atomic_load(&a->done) != 0)
        return;
    if (a->act == HANGS_UP)
        a->rc = spoke_exporter_hangup(a->x->ex, "out");
    else
        a->rc = spoke_exporter_close(a->x->ex, a->act == LINGERS ? SPOKE_SECOND : 0);
    atomic_store(&a->done, 1);
}

static void
act_on_event(void *ctx, const struct spoke_port_event *event)
{
    struct actor *a = ctx;

    events_note(&a->x->heard[0], event);
    if ((int)event->type == a->where)
        act(a);
}

static bool
act_when_asked(void *ctx, const char *name, enum spoke_direction direction,
               const struct spoke_session_info *peer)
{
    struct actor *a = ctx;

    (void)name;
    (void)direction;
    (void)peer;
    if (a->where == IN_ALLOW)
        act(a);
    return true;
}

static bool
has_acted(struct market *x, void *ctx)
{
    (void)x;
    return atomic_load(&((struct actor *)ctx)->done) != 0;
}

static void
act_in_a_callback(enum over over, enum act what, int where)
{
    struct market x;
    struct actor a = {.x = &x, .act = what, .where = where};
    spoke_exporter_config config;
    spoke_sender *out, *again;
    spoke_receiver *rx, *none;

    spoke_exporter_config_init(&config);
    config.allow = act_when_asked;
    config.on_event = act_on_event;
    config.ctx = &a;
    market_open(&x, over, &config, NULL);
    out = export_sender(&x, "out", 4, 0);
    (void)spoke_importer_import_receiver(x.im, "none", NULL, NULL, &none, soon(&x));
    if (spoke_importer_import_receiver(x.im, "out", NULL, NULL, &rx, soon(&x)) == 0) {
        if (where == SPOKE_PORT_UNBOUND)
            expect_rc(spoke_receiver_close(rx), 0);
        else
            cr_assert_lt(recv_number(rx, NULL, soon(&x)), 0);
    }
    cr_assert(market_until(&x, has_acted, &a));
    expect_rc(a.rc, 0);
    cr_assert_neq(send_number(out, 1, soon(&x)), 0);
    expect_rc(spoke_exporter_export_sender(x.ex, "out", NULL, NULL, &again),
              what == HANGS_UP ? 0 : SPOKE_ECLOSED);
    expect_rc(spoke_sender_close(out), 0);
    if (again != NULL)
        expect_rc(spoke_sender_close(again), 0);
    if (rx != NULL)
        expect_rc(spoke_receiver_close(rx), 0);
    market_close(&x);
}

Test(callbacks, the_exporter_is_closed_or_hung_up_in_one)
{
    static const int places[] = {IN_ALLOW, SPOKE_PORT_BOUND, SPOKE_PORT_REFUSED,
                                 SPOKE_PORT_UNBOUND};

    OVER_EVERYTHING(over)
    {
        for (int what = CLOSES; what < ACTS; what++) {
            for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
                /* "none" is refused before "out" is asked for. */
                if (what != HANGS_UP || places[i] != SPOKE_PORT_UNBOUND)
                    act_in_a_callback((enum over)over, (enum act)what, places[i]);
            }
        }
    }
}

struct doorman {
    struct market *x;
    int asked;
    atomic_int done;
};

static int
close_at_the_second(void *ctx, spoke_stream *carrier)
{
    struct doorman *d = ctx;

    (void)carrier;
    if (++d->asked == 2) {
        (void)spoke_exporter_close(d->x->ex, 0);
        atomic_store(&d->done, 1);
    }
    return 0;
}

static bool
has_closed(struct market *x, void *ctx)
{
    (void)x;
    return atomic_load(&((struct doorman *)ctx)->done) != 0;
}

Test(callbacks, the_exporter_is_closed_by_who_lets_in)
{
    OVER_ADDRESSES(over)
    {
        struct market x;
        struct doorman d = {.x = &x};
        spoke_exporter_config config;
        spoke_importer_config importer;
        spoke_importer *im;

        spoke_exporter_config_init(&config);
        config.session.authenticate = close_at_the_second;
        config.session.ctx = &d;
        market_open(&x, (enum over)over, &config, NULL);
        spoke_importer_config_init(&importer);
        market_secure(&x, &importer.session);
        if (spoke_importer_dial(&im, x.url, &importer, x.e[1], soon(&x)) == 0)
            expect_rc(spoke_importer_close(im, 0), 0);
        cr_assert(market_until(&x, has_closed, &d));
        market_close(&x);
    }
}

/* ---- closing while one runs ---- */

struct slow {
    atomic_int begun;
    bool ended; /* not atomic: who closes is behind it */
};

static void
take_long(void *ctx, const struct spoke_port_event *event)
{
    struct slow *s = ctx;

    if (event->type != SPOKE_PORT_BOUND)
        return;
    atomic_store(&s->begun, 1);
    usleep(20000);
    s->ended = true;
}

static bool
has_begun(struct market *x, void *ctx)
{
    (void)x;
    return atomic_load(&((struct slow *)ctx)->begun) != 0;
}

/* Their contexts may be freed then. */
Test(callbacks, no_callback_runs_when_a_close_has_returned)
{
    for (int side = 0; side < 2; side++) {
        struct market x;
        struct slow s = {.ended = false};
        spoke_exporter_config exporter;
        spoke_importer_config importer;
        spoke_sender *out;
        spoke_receiver *rx;

        spoke_exporter_config_init(&exporter);
        spoke_importer_config_init(&importer);
        if (side == 0) {
            exporter.on_event = take_long;
            exporter.ctx = &s;
        } else {
            importer.on_event = take_long;
            importer.ctx = &s;
        }
        market_open(&x, OVER_PAIR, &exporter, &importer);
        out = export_sender(&x, "out", 4, 0);
        expect_rc(spoke_importer_import_receiver(x.im, "out", NULL, NULL, &rx, SPOKE_NOW),
                  SPOKE_EAGAIN);
        rx = import_receiver(&x, x.im, "out", 4);
        cr_assert(market_until(&x, has_begun, &s));
        expect_rc(side == 0 ? spoke_exporter_close(x.ex, 0) : spoke_importer_close(x.im, 0), 0);
        cr_assert(s.ended);
        expect_rc(spoke_sender_close(out), 0);
        expect_rc(spoke_receiver_close(rx), 0);
        market_close(&x);
    }
}

/* ---- many threads ---- */

#define THREADS  4
#define MESSAGES 20

struct crowd {
    struct market *x;
    atomic_int bound, taken, failed, closed;
};
struct worker {
    struct crowd *crowd;
    int index;
};

#define CHECK(Condition)                                                                           \
    do {                                                                                           \
        if (!(Condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #Condition);                        \
            atomic_fetch_add(&w->crowd->failed, 1);                                                \
            return NULL;                                                                           \
        }                                                                                          \
    } while (0)

/* A name of its own, each time anew, and some of what all are sent. */
static void *
work(void *ctx)
{
    const struct worker *w = ctx;
    struct market *x = w->crowd->x;
    spoke_importer *im;
    spoke_receiver *common;
    char name[16];

    snprintf(name, sizeof name, "own %d", w->index);
    CHECK(spoke_importer_dial(&im, x->url, NULL, NULL, soon(x)) == 0);
    CHECK(spoke_importer_import_receiver(im, "common", NULL, NULL, &common, soon(x)) == 0);
    atomic_fetch_add(&w->crowd->bound, 1);
    for (int i = 0; i < TEST_REPEATS(20) + 1; i++) {
        spoke_sender *tx;
        spoke_receiver *rx;

        CHECK(spoke_exporter_export_receiver(x->ex, name, NULL, NULL, &rx) == 0);
        CHECK(spoke_importer_import_sender(im, name, NULL, NULL, &tx, soon(x)) == 0);
        for (uint64_t n = 0; n < 5; n++)
            CHECK(send_number(tx, n, soon(x)) == 0);
        for (int64_t n = 0; n < 5; n++)
            CHECK(recv_number(rx, NULL, soon(x)) == n);
        CHECK(spoke_importer_drain(im, soon(x)) == 0);
        (void)spoke_exporter_sync(x->ex, SPOKE_NOW);
        CHECK(spoke_exporter_hangup(x->ex, name) == 0);
        while (send_number(tx, 5, soon(x)) == 0) { /* until it has come here */
        }
        CHECK(spoke_sender_close(tx) == 0);
        CHECK(spoke_receiver_close(rx) == 0);
        (void)spoke_importer_hangup(im, name);
    }
    while (recv_number(common, NULL, soon(x)) >= 0)
        atomic_fetch_add(&w->crowd->taken, 1);
    CHECK(spoke_receiver_close(common) == 0);
    CHECK(spoke_importer_close(im, 0) == 0);
    return NULL;
}

static bool
all_are_bound(struct market *x, void *ctx)
{
    const struct crowd *crowd = ctx;

    (void)x;
    return atomic_load(&crowd->bound) == THREADS || atomic_load(&crowd->failed) > 0;
}

Test(callbacks, many_threads_use_one_exporter)
{
    static const enum over overs[] = {OVER_INPROC, OVER_IPC};

    for (int i = 0; i < 2; i++) {
        struct market x;
        struct crowd crowd = {.x = &x};
        struct worker workers[THREADS];
        pthread_t threads[THREADS];
        spoke_sender *common;

        market_open(&x, overs[i], NULL, NULL);
        common = export_sender(&x, "common", 4, 0);
        for (int n = 0; n < THREADS; n++) {
            workers[n] = (struct worker){&crowd, n};
            cr_assert_eq(pthread_create(&threads[n], NULL, work, &workers[n]), 0);
        }
        send_numbers(&x, common, 0, MESSAGES);
        cr_assert(market_until(&x, all_are_bound, &crowd));
        expect_rc(spoke_sender_close(common), 0); /* the end comes behind them */
        for (int n = 0; n < THREADS; n++)
            pthread_join(threads[n], NULL);
        cr_assert_eq(atomic_load(&crowd.failed), 0);
        cr_assert_eq(atomic_load(&crowd.taken), MESSAGES);
        market_close(&x);
    }
}

static void *
offer_until_closed(void *ctx)
{
    const struct worker *w = ctx;
    struct market *x = w->crowd->x;
    char name[16];
    int rc;

    snprintf(name, sizeof name, "own %d", w->index);
    do {
        spoke_sender *tx;

        if ((rc = spoke_exporter_export_sender(x->ex, name, NULL, NULL, &tx)) != 0)
            break;
        (void)send_number(tx, 1, SPOKE_NOW);
        rc = spoke_exporter_hangup(x->ex, name);
        CHECK(spoke_sender_close(tx) == 0);
    } while (rc == 0);
    CHECK(rc == SPOKE_ECLOSED || rc == SPOKE_ENOENT);
    (void)spoke_exporter_sync(x->ex, SPOKE_FOREVER);
    atomic_fetch_add(&w->crowd->closed, 1);
    return NULL;
}

Test(callbacks, the_exporter_is_closed_while_threads_use_it)
{
    for (int i = 0; i < 4; i++) {
        struct market x;
        struct crowd crowd = {.x = &x};
        struct worker workers[THREADS];
        pthread_t threads[THREADS];
        int rc;

        market_open(&x, OVER_INPROC, NULL, NULL);
        for (int n = 0; n < THREADS; n++) {
            workers[n] = (struct worker){&crowd, n};
            cr_assert_eq(pthread_create(&threads[n], NULL, offer_until_closed, &workers[n]), 0);
        }
        usleep(2000);
        rc = spoke_exporter_close(x.ex, i % 2 == 0 ? 0 : SPOKE_MS);
        cr_assert(rc == 0 || (rc == SPOKE_ETIMEDOUT && i % 2 != 0), "%s", spoke_error_name(rc));
        for (int n = 0; n < THREADS; n++)
            pthread_join(threads[n], NULL);
        cr_assert_eq(atomic_load(&crowd.failed), 0);
        cr_assert_eq(atomic_load(&crowd.closed), THREADS);
        market_close(&x);
    }
}
