/* SPDX-License-Identifier: MIT */
#include "tests/ports/fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/certs.h"
#include "tests/support/endpoints.h"

#define LATE (30 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

const char *
name_of(int64_t rc)
{
    return rc >= 0 ? "success" : spoke_error_name((int)rc);
}

spoke_ns
in(struct market *x, spoke_ns duration)
{
    return spoke_engine_now(x->e[0]) + duration;
}

spoke_ns
soon(struct market *x)
{
    return in(x, LATE);
}

/* ---- events ---- */

static pthread_mutex_t events_lock = PTHREAD_MUTEX_INITIALIZER;

void
events_note(void *ctx, const struct spoke_port_event *event)
{
    struct events *all = ctx;

    pthread_mutex_lock(&events_lock);
    if (all->count < EVENTS_MAX)
        all->all[all->count++] = *event;
    pthread_mutex_unlock(&events_lock);
}

struct awaited {
    int side, count;
    enum spoke_port_event_type type;
    struct spoke_port_event last;
};

static bool
have_heard(struct market *x, void *ctx)
{
    struct awaited *a = ctx;
    const struct events *all = &x->heard[a->side];
    int count = 0;

    pthread_mutex_lock(&events_lock);
    for (int i = 0; i < all->count; i++) {
        if (all->all[i].type != a->type)
            continue;
        count++;
        a->last = all->all[i];
    }
    pthread_mutex_unlock(&events_lock);
    return count >= a->count;
}

void
market_await(struct market *x, int side, enum spoke_port_event_type type, int count)
{
    struct awaited a = {.side = side, .count = count, .type = type};

    cr_assert(market_until(x, have_heard, &a), "side %d: no %d events %d", side, count, (int)type);
}

struct spoke_port_event
market_event(struct market *x, int side, enum spoke_port_event_type type)
{
    struct awaited a = {.side = side, .count = 1, .type = type};

    cr_assert(market_until(x, have_heard, &a), "side %d: no event %d", side, (int)type);
    return a.last;
}

/* ---- time ---- */

void
market_pass(struct market *x, spoke_ns duration)
{
    if (x->world != NULL)
        (void)spoke_sim_run(x->world, NULL, NULL, duration);
    else if (x->e[0] != NULL)
        for (spoke_ns until = in(x, duration); spoke_engine_now(x->e[0]) < until;)
            (void)spoke_engine_poll(x->e[0], SPOKE_MS / 2);
    else
        usleep((useconds_t)(duration / 1000));
}

bool
market_until(struct market *x, bool (*done)(struct market *x, void *ctx), void *ctx)
{
    for (spoke_ns until = soon(x); !done(x, ctx);) {
        if (spoke_engine_now(x->e[0]) >= until)
            return false;
        market_pass(x, SPOKE_MS);
    }
    return true;
}

/* ---- life ---- */

static void
make_url(struct market *x)
{
    static int count;
    const char *scheme = x->over == OVER_SHM ? "shm" : "ipc";

    count++;
    switch (x->over) {
    case OVER_IPC:
    case OVER_SHM:
        snprintf(x->url, sizeof x->url, "%s:///tmp/spoke-ports-%d-%d", scheme, (int)getpid(),
                 count);
        break;
    case OVER_TCP: endpoint_fresh(x->url, TCP); break; /* nobody else's when it is closed */
    case OVER_TLS: endpoint_fresh(x->url, TLS); break;
    case OVER_WS: endpoint_fresh(x->url, WS); break;
    case OVER_WSS: endpoint_fresh(x->url, WSS); break;
    case OVER_SIM: snprintf(x->url, sizeof x->url, "tcp://127.0.0.1:4000"); break;
    default: snprintf(x->url, sizeof x->url, "inproc://ports-%d", count); break;
    }
}

void
market_secure(const struct market *x, spoke_session_config *config)
{
    if (x->over == OVER_TLS || x->over == OVER_WSS)
        config->stream.tls = test_tls();
}

static bool
has_address(const struct market *x)
{
    return x->over >= OVER_IPC;
}

spoke_importer *
market_join(struct market *x, const spoke_importer_config *config)
{
    spoke_importer_config own;
    spoke_importer *im;
    spoke_stream *a, *b;

    if (config == NULL)
        spoke_importer_config_init(&own);
    else
        own = *config;
    if (own.on_event == NULL) {
        own.on_event = events_note;
        own.ctx = &x->heard[1];
    }
    market_secure(x, &own.session);
    if (has_address(x)) {
        expect_rc(spoke_importer_dial(&im, x->url, &own, x->e[1], soon(x)), 0);
        return im;
    }
    expect_rc(spoke_stream_pair(&a, &b, NULL, x->e[0]), 0);
    expect_rc(spoke_exporter_serve_stream(x->ex, a), 0);
    expect_rc(spoke_importer_open(&im, b, &own), 0);
    return im;
}

static void
open_market(struct market *x, enum over over, const spoke_exporter_config *ex,
            const spoke_importer_config *im)
{
    spoke_exporter_config own;

    if (over == OVER_SIM) {
        expect_rc(spoke_sim_open(&x->world, NULL), 0);
        expect_rc(spoke_sim_engine(x->world, &x->e[0]), 0);
        expect_rc(spoke_sim_engine(x->world, &x->e[1]), 0);
    } else if (over == OVER_OWNED) {
        expect_rc(spoke_engine_open(&x->e[0], NULL), 0);
        x->e[1] = x->e[0];
    }
    make_url(x);
    if (ex == NULL)
        spoke_exporter_config_init(&own);
    else
        own = *ex;
    if (own.on_event == NULL)
        own.on_event = events_note;
    if (own.ctx == NULL)
        own.ctx = &x->heard[0];
    market_secure(x, &own.session);
    expect_rc(spoke_exporter_open(&x->ex, &own, x->e[0]), 0);
    if (has_address(x)) {
        char bound[256];

        expect_rc(spoke_exporter_listen(x->ex, x->url, bound), 0);
        strcpy(x->url, bound);
    }
    x->im = market_join(x, im);
}

static void
close_market(struct market *x)
{
    if (x->im != NULL)
        expect_rc(spoke_importer_close(x->im, 0), 0);
    if (x->ex != NULL)
        expect_rc(spoke_exporter_close(x->ex, 0), 0);
    if (x->over == OVER_SIM) {
        struct spoke_sim_report report;

        expect_rc(spoke_sim_close(x->world, &report), 0);
    } else if (x->over == OVER_OWNED) {
        expect_rc(spoke_engine_close(x->e[0]), 0);
    }
}

/* What the library keeps for the next time is there before anything is counted. */
static void
warm_up(enum over over)
{
    static bool done[OVER_KINDS];
    struct market x = {.over = over};
    spoke_sender *tx;
    spoke_receiver *rx;

    if (done[over] || over == OVER_SIM || over == OVER_OWNED)
        return;
    done[over] = true;
    open_market(&x, over, NULL, NULL);
    tx = export_sender(&x, "warm", 64, 0);
    rx = import_receiver(&x, x.im, "warm", 64);
    for (int i = 0; i < 64; i++) {
        spoke_msg *m;

        expect_rc(spoke_msg_new(&m, 10000), 0);
        expect_rc(spoke_sender_send(tx, m, soon(&x)), 0);
        expect_rc(spoke_receiver_recv(rx, &m, soon(&x)), 0);
        spoke_msg_free(m);
    }
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_receiver_close(rx), 0);
    close_market(&x);
    usleep(20000);
}

void
market_open(struct market *x, enum over over, const spoke_exporter_config *ex,
            const spoke_importer_config *im)
{
    warm_up(over);
    memset(x, 0, sizeof *x);
    x->over = over;
    resources_take(&x->before);
    open_market(x, over, ex, im);
}

void
market_close(struct market *x)
{
    close_market(x);
    resources_settle(&x->before);
}

/* ---- names ---- */

static spoke_port_config
config_of(size_t size, unsigned flags)
{
    spoke_port_config config;

    spoke_port_config_init(&config);
    config.size = size;
    config.flags = flags;
    return config;
}

spoke_sender *
export_sender(struct market *x, const char *name, size_t size, unsigned flags)
{
    spoke_port_config config = config_of(size, flags);
    spoke_sender *tx;

    expect_rc(spoke_exporter_export_sender(x->ex, name, NULL, &config, &tx), 0);
    return tx;
}

spoke_receiver *
export_receiver(struct market *x, const char *name, size_t size, unsigned flags)
{
    spoke_port_config config = config_of(size, flags);
    spoke_receiver *rx;

    expect_rc(spoke_exporter_export_receiver(x->ex, name, NULL, &config, &rx), 0);
    return rx;
}

spoke_sender *
import_sender(struct market *x, spoke_importer *im, const char *name, size_t size)
{
    spoke_port_config config = config_of(size, 0);
    spoke_sender *tx;

    expect_rc(spoke_importer_import_sender(im, name, NULL, &config, &tx, soon(x)), 0);
    return tx;
}

spoke_receiver *
import_receiver(struct market *x, spoke_importer *im, const char *name, size_t size)
{
    spoke_port_config config = config_of(size, 0);
    spoke_receiver *rx;

    expect_rc(spoke_importer_import_receiver(im, name, NULL, &config, &rx, soon(x)), 0);
    return rx;
}

struct waiting {
    spoke_receiver *rx;
    uint64_t count;
};

static bool
so_many_wait(struct market *x, void *ctx)
{
    const struct waiting *w = ctx;
    struct spoke_channel_info info;

    (void)x;
    expect_rc(spoke_receiver_get_info(w->rx, &info), 0);
    return info.waiting >= w->count;
}

void
await_waiting(struct market *x, spoke_receiver *rx, uint64_t count)
{
    struct waiting w = {rx, count};

    cr_assert(market_until(x, so_many_wait, &w), "no %d messages wait", (int)count);
}

/* ---- numbers ---- */

spoke_msg *
number(uint64_t n)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, &n, sizeof n), 0);
    return m;
}

int
send_number(spoke_sender *tx, uint64_t n, spoke_ns deadline)
{
    spoke_msg *m = number(n);
    int rc = spoke_sender_send(tx, m, deadline);

    if (rc != 0)
        spoke_msg_free(m);
    return rc;
}

int64_t
recv_number(spoke_receiver *rx, bool *repeated, spoke_ns deadline)
{
    spoke_msg *m;
    uint64_t n;
    int rc = spoke_receiver_recv(rx, &m, deadline);

    if (rc != 0)
        return rc;
    cr_assert_eq(spoke_msg_size(m), sizeof n);
    memcpy(&n, spoke_msg_body(m), sizeof n);
    if (repeated != NULL)
        *repeated = spoke_port_is_repeated(m);
    spoke_msg_free(m);
    return (int64_t)n;
}

void
send_numbers(struct market *x, spoke_sender *tx, uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n < to; n++)
        expect_rc(send_number(tx, n, soon(x)), 0);
}

void
expect_numbers(struct market *x, spoke_receiver *rx, uint64_t from, uint64_t to)
{
    for (uint64_t n = from; n < to; n++) {
        int64_t got = recv_number(rx, NULL, soon(x));

        cr_assert_eq(got, (int64_t)n, "%lld (%s) instead of %llu", (long long)got, name_of(got),
                     (unsigned long long)n);
    }
}
