/* SPDX-License-Identifier: MIT */
#include "tests/stream/fixture.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "tests/support/certs.h"
#include "tests/support/waiters.h"

/* ---- places ---- */

#define BIT(n) (1u << (n))

static struct criterion_test_params
list_places(unsigned overs, unsigned ways, unsigned ons)
{
    static struct place list[128];
    const char *backend = getenv("SPOKE_BACKEND");
    size_t count = 0;

    /* Simulated worlds do not depend on the backend: they run once. */
    if ((backend != NULL && strcmp(backend, "poll") == 0) || getenv("SPOKE_MASK_FEATURES") != NULL)
        ways &= ~BIT(SIM);
#ifdef __SANITIZE_THREAD__
    /* One thread does not race with itself. */
    if ((ways & (BIT(TWO) | BIT(SHARED))) != 0)
        ways &= BIT(TWO) | BIT(SHARED);
#endif
    for (int over = OVER_INPROC; over <= OVER_FD; over++) {
        if (over <= OVER_WSS && !transport_is_wanted((enum transport)over))
            continue;
        bool spared = over == OVER_WSS && !transport_is_named(WSS);
        for (int way = ONE; way <= TWO; way++) {
            if (((over == OVER_SHM || over >= OVER_TLS) && over != OVER_PAIR && way == SIM) ||
                (over == OVER_PAIR && way == TWO) || (spared && way == ONE))
                continue;
            for (int on = PLAIN; on <= ON_MUX_BACK; on++) {
                if ((overs & BIT(over)) != 0 && (ways & BIT(way)) != 0 && (ons & BIT(on)) != 0)
                    list[count++] = (struct place){(enum over)over, (enum way)way, (enum on)on};
            }
        }
    }
    return (struct criterion_test_params){.size = sizeof list[0], .params = list, .length = count};
}

#define ALL       (BIT(OVER_FD + 1) - 1)
#define ADDRESSES (BIT(OVER_WSS + 1) - 1)

struct criterion_test_params
places(void)
{
    return list_places(ALL, BIT(ONE) | BIT(SHARED) | BIT(SIM), BIT(PLAIN));
}

struct criterion_test_params
places_real(void)
{
    return list_places(ALL, BIT(ONE) | BIT(SHARED), BIT(PLAIN));
}

struct criterion_test_params
places_listening(void)
{
    return list_places(ADDRESSES, BIT(ONE) | BIT(SHARED) | BIT(SIM), BIT(PLAIN));
}

struct criterion_test_params
places_listening_real(void)
{
    return list_places(ADDRESSES, BIT(ONE) | BIT(SHARED), BIT(PLAIN));
}

struct criterion_test_params
places_shared(void)
{
    return list_places(ALL, BIT(SHARED), BIT(PLAIN));
}

struct criterion_test_params
places_tasks(void)
{
    return list_places(ALL, BIT(SHARED) | BIT(TWO), BIT(PLAIN));
}

#define ANY_ON (BIT(PLAIN) | BIT(ON_MUX) | BIT(ON_MUX_BACK))

struct criterion_test_params
conns(void)
{
    return list_places(ALL, BIT(ONE) | BIT(SHARED) | BIT(SIM), ANY_ON);
}

struct criterion_test_params
conns_shared(void)
{
    return list_places(ALL, BIT(SHARED), ANY_ON);
}

struct criterion_test_params
conns_tasks(void)
{
    return list_places(ALL, BIT(SHARED) | BIT(TWO), ANY_ON);
}

const char *
name_of(int rc)
{
    return rc == 0 ? "0" : spoke_error_name(rc);
}

/* ---- the stage ---- */

/* ---- muxes ---- */

static spoke_mux *muxes[8];
static int mux_count;
static pthread_mutex_t mux_lock = PTHREAD_MUTEX_INITIALIZER;

/* Put a mux on the carrier of one end. */
static int
mux_on(spoke_mux **m, enum on on, spoke_stream *carrier, const spoke_stream_config *config,
       int side)
{
    spoke_mux_config own;
    int rc;

    spoke_mux_config_init(&own);
    own.wire = on == ON_MUX ? SPOKE_MUX_NATIVE : SPOKE_MUX_COMPATIBLE;
    own.even = side == 1;
    own.window = config != NULL ? config->window : 0;
    own.peer_timeout_ns = 0;
    if ((rc = spoke_mux_open(m, carrier, &own)) != 0)
        return rc;
    pthread_mutex_lock(&mux_lock);
    muxes[mux_count++] = *m;
    pthread_mutex_unlock(&mux_lock);
    return 0;
}

static void
close_muxes(void)
{
    while (mux_count > 0)
        cr_expect_eq(spoke_mux_close(muxes[--mux_count], 0), 0);
}

static bool
is_opened(void *s)
{
    struct spoke_mux_stream_info info;

    return spoke_mux_get_stream_info(s, &info) == 0 && info.credit > 0;
}

/* From two carriers the ends of a stream. */
static void
connect_on_mux(struct stage *st, const spoke_stream_config *config, spoke_stream *end[2])
{
    int opener = st->p.on == ON_MUX ? 0 : 1;
    spoke_mux *m[2];

    for (int i = 0; i < 2; i++)
        expect_rc(mux_on(&m[i], st->p.on, end[i], config, i), 0);
    expect_rc(spoke_mux_dial(m[opener], &end[opener], NULL, 0, NULL, SPOKE_NOW), 0);
    expect_rc(spoke_mux_accept(m[!opener], &end[!opener], NULL, stage_in(st, PATIENCE)), 0);
    cr_assert(stage_until(st, is_opened, end[opener]));
}

/* What the shared engine makes once and keeps. */
static void
warm_up(const struct place *p)
{
    spoke_stream *end[2];
    struct stage st = {.p = *p};
    struct spoke_engine_info info;

    expect_rc(spoke_engine_get_info(NULL, &info), 0);
    connect_ends(&st, NULL, end);
    for (int i = 0; i < 2; i++) { /* the engine's own memory to receive into */
        cr_assert_geq(spoke_stream_fd(end[i], SPOKE_STREAM_READABLE), 0);
        stage_pass(&st, SPOKE_MS);
        write_text(end[!i], "to the engine");
        stage_pass(&st, SPOKE_MS);
        expect_text(end[i], "to the engine");
    }
    for (int i = 0; i < 4; i++) {
        write_bytes(end[i % 2], 0, 10000);
        read_bytes(end[(i + 1) % 2], 0, 10000);
    }
    expect_rc(spoke_stream_close(end[0]), 0);
    expect_rc(spoke_stream_close(end[1]), 0);
    close_muxes();
}

void
stage_open(struct stage *st, const struct place *p)
{
    memset(st, 0, sizeof *st);
    st->p = *p;
    scratch_dir();
    if (is_over_tls(p))
        test_tls();
    if (p->way == SHARED)
        warm_up(p);
    resources_take(&st->before);
    st->before.chunks += p->way == SHARED; /* the engine has memory to receive into, or not */
    switch (p->way) {
    case ONE:
        expect_rc(spoke_engine_open(&st->e[0], NULL), 0);
        st->e[1] = st->e[0];
        break;
    case SIM:
        expect_rc(spoke_sim_open(&st->sim, NULL), 0);
        expect_rc(spoke_sim_engine(st->sim, &st->e[0]), 0);
        if (p->over == OVER_PAIR)
            st->e[1] = st->e[0];
        else
            expect_rc(spoke_sim_engine(st->sim, &st->e[1]), 0);
        stage_pass(st, SPOKE_MS); /* so that there is a past */
        break;
    case SHARED:
    case TWO: break;
    }
}

void
stage_close(struct stage *st)
{
    close_muxes();
    if (st->p.way == ONE)
        expect_rc(spoke_engine_close(st->e[0]), 0);
    if (st->p.way == SIM) {
        struct spoke_sim_report report;

        expect_rc(spoke_sim_close(st->sim, &report), 0);
        cr_expect_eq(report.ops_left, 0);
        cr_expect_eq(report.handles_left, 0);
        cr_expect_eq(report.double_completions, 0);
    }
    resources_settle(&st->before);
}

spoke_ns
stage_now(const struct stage *st)
{
    struct timespec time;

    if (st->p.way == SIM)
        return spoke_engine_now(st->e[0]);
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (spoke_ns)time.tv_sec * SPOKE_SECOND + time.tv_nsec;
}

spoke_ns
stage_in(const struct stage *st, spoke_ns duration)
{
    return stage_now(st) + duration;
}

static bool
until(struct stage *st, bool (*done)(void *ctx), void *ctx, spoke_ns limit)
{
    const struct timespec pause = {.tv_nsec = 200 * 1000};
    spoke_ns end;

    if (st->p.way == SIM)
        return spoke_sim_run(st->sim, done, ctx, limit) == 1;
    end = stage_in(st, limit);
    while (done == NULL || !done(ctx)) {
        if (stage_now(st) >= end)
            return false;
        if (st->p.way == ONE)
            cr_assert_geq(spoke_engine_poll(st->e[0], SPOKE_MS), 0);
        else
            nanosleep(&pause, NULL);
    }
    return true;
}

bool
stage_until(struct stage *st, bool (*done)(void *ctx), void *ctx)
{
    return until(st, done, ctx, PATIENCE);
}

void
stage_pass(struct stage *st, spoke_ns duration)
{
    (void)until(st, NULL, NULL, duration);
}

void
stage_settle(struct stage *st)
{
    stage_pass(st, 3 * SPOKE_MS);
    if (st->p.way == SHARED)
        await_engine();
}

struct later {
    pthread_t thread;
    bool threaded;
    spoke_ns duration;
    void (*fn)(void *ctx);
    void *ctx;
};

static void *
later_main(void *argument)
{
    struct later *later = argument;
    const struct timespec pause = {.tv_sec = later->duration / SPOKE_SECOND,
                                   .tv_nsec = later->duration % SPOKE_SECOND};

    nanosleep(&pause, NULL);
    later->fn(later->ctx);
    return NULL;
}

struct later *
stage_after(struct stage *st, spoke_ns duration, void (*fn)(void *ctx), void *ctx)
{
    struct later *later = calloc(1, sizeof *later);

    cr_assert_not_null(later);
    *later = (struct later){
        .threaded = st->p.way == SHARED, .duration = duration, .fn = fn, .ctx = ctx};
    if (later->threaded)
        cr_assert_eq(pthread_create(&later->thread, NULL, later_main, later), 0);
    else
        expect_rc(spoke_engine_after(st->e[0], duration, fn, ctx, NULL), 0);
    return later;
}

void
stage_joined(struct later *later)
{
    if (later->threaded)
        pthread_join(later->thread, NULL);
    free(later);
}

/* ---- streams ---- */

void
fresh_url(const struct stage *st, char url[ENDPOINT_MAX])
{
    endpoint_fresh(url, (enum transport)st->p.over);
}

/* What was given, and what its scheme needs besides. */
static const spoke_stream_config *
config_for(const struct place *p, const spoke_stream_config *config, spoke_stream_config *own)
{
    if (!is_over_tls(p))
        return config;
    if (config != NULL)
        *own = *config;
    else
        spoke_stream_config_init(own);
    if (own->tls == NULL)
        own->tls = test_tls();
    return own;
}

const spoke_stream_config *
stage_config(struct stage *st, const spoke_stream_config *config)
{
    return config_for(&st->p, config, &st->config);
}

static void
connect_carriers(struct stage *st, const spoke_stream_config *config, spoke_stream *end[2])
{
    spoke_stream_listener *l;
    char url[ENDPOINT_MAX];
    int fds[2];

    if (st->p.over == OVER_PAIR) {
        expect_rc(spoke_stream_pair(&end[0], &end[1], config, st->e[0]), 0);
        return;
    }
    if (st->p.over == OVER_FD) {
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        for (int i = 0; i < 2; i++)
            expect_rc(spoke_stream_from_fd(&end[i], fds[i], config, st->e[i]), 0);
        return;
    }
    fresh_url(st, url);
    config = stage_config(st, config);
    expect_rc(spoke_stream_listen(&l, url, config, st->e[1]), 0);
    expect_rc(spoke_stream_dial(&end[0], url, config, st->e[0], stage_in(st, PATIENCE)), 0);
    expect_rc(spoke_stream_accept(l, &end[1], stage_in(st, PATIENCE)), 0);
    expect_rc(spoke_stream_listener_close(l), 0);
}

void
connect_ends(struct stage *st, const spoke_stream_config *config, spoke_stream *end[2])
{
    spoke_stream_config carrier;

    if (st->p.on == PLAIN) {
        connect_carriers(st, config, end);
        return;
    }
    spoke_stream_config_init(&carrier);
    carrier.tls = config != NULL ? config->tls : NULL;
    connect_carriers(st, &carrier, end);
    connect_on_mux(st, config, end);
}

void
ends_open(struct ends *d, const struct place *p, const spoke_stream_config *config)
{
    stage_open(&d->st, p);
    connect_ends(&d->st, config, d->end);
}

void
ends_close(struct ends *d)
{
    for (int i = 0; i < 2; i++)
        cr_expect_eq(spoke_stream_close(d->end[i]), 0);
    stage_close(&d->st);
}

/* ---- bytes ---- */

static uint8_t
byte_at(uint64_t place)
{
    return (uint8_t)(place * 7 + place / 251 + place / 65521);
}

void
bytes_fill(void *to, size_t size, uint64_t place)
{
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)to)[i] = byte_at(place + i);
}

bool
bytes_hold(const void *bytes, size_t size, uint64_t place)
{
    for (size_t i = 0; i < size; i++) {
        if (((const uint8_t *)bytes)[i] != byte_at(place + i))
            return false;
    }
    return true;
}

void
write_bytes(spoke_stream *s, uint64_t place, size_t size)
{
    uint8_t *bytes = malloc(size + 1);
    size_t done;

    cr_assert_not_null(bytes);
    bytes_fill(bytes, size, place);
    expect_rc(spoke_stream_write(s, bytes, size, &done), 0);
    cr_assert_eq(done, size);
    free(bytes);
}

void
read_bytes(spoke_stream *s, uint64_t place, size_t size)
{
    uint8_t *bytes = malloc(size + 1);
    size_t done;

    cr_assert_not_null(bytes);
    expect_rc(spoke_stream_read_full(s, bytes, size, &done), 0);
    cr_assert_eq(done, size);
    cr_assert(bytes_hold(bytes, size, place), "other bytes");
    free(bytes);
}

void
write_text(spoke_stream *s, const char *text)
{
    size_t done;

    expect_rc(spoke_stream_write(s, text, strlen(text), &done), 0);
    cr_assert_eq(done, strlen(text));
}

void
expect_text(spoke_stream *s, const char *text)
{
    char got[256];
    size_t done;

    cr_assert_lt(strlen(text), sizeof got);
    expect_rc(spoke_stream_read_full(s, got, strlen(text), &done), 0);
    cr_assert_eq(memcmp(got, text, strlen(text)), 0);
}

int
read_one(spoke_stream *s)
{
    char byte;
    size_t done = 99;
    int rc = spoke_stream_read(s, &byte, 1, &done);

    cr_assert_eq(done, rc == 0 ? 1 : 0, "%s, %zu bytes", name_of(rc), done);
    return rc;
}

int
write_one(spoke_stream *s)
{
    size_t done = 99;
    int rc = spoke_stream_write(s, "1", 1, &done);

    cr_assert_eq(done, rc == 0 ? 1 : 0, "%s, %zu bytes", name_of(rc), done);
    return rc;
}

int
read_now(spoke_stream *s)
{
    int rc;

    expect_rc(spoke_stream_set_read_deadline(s, SPOKE_NOW), 0);
    rc = read_one(s);
    expect_rc(spoke_stream_set_read_deadline(s, SPOKE_FOREVER), 0);
    return rc;
}

spoke_msg *
message_of(const void *data, size_t size)
{
    spoke_msg *m;

    expect_rc(spoke_msg_from(&m, data, size), 0);
    return m;
}

uint64_t
fill_up_from(struct stage *st, spoke_stream *s, uint64_t from)
{
    static uint8_t bytes[64 * 1024];
    uint64_t total = 0;
    size_t done;

    expect_rc(spoke_stream_set_write_deadline(s, SPOKE_NOW), 0);
    for (int quiet = 0; quiet < 5;) {
        bytes_fill(bytes, sizeof bytes, from + total);
        int rc = spoke_stream_write(s, bytes, sizeof bytes, &done);

        total += done;
        if (rc == 0) {
            quiet = 0;
            continue;
        }
        cr_assert_eq(rc, SPOKE_EAGAIN, "%s", name_of(rc));
        quiet++;
        stage_settle(st);
    }
    expect_rc(spoke_stream_set_write_deadline(s, SPOKE_FOREVER), 0);
    return total;
}

uint64_t
fill_up(struct stage *st, spoke_stream *s)
{
    return fill_up_from(st, s, 0);
}

/* ---- tasks ---- */

struct tasks {
    struct place p;
    const spoke_stream_config *config;
    task_f *fn[2];
    void *ctx;
    char url[ENDPOINT_MAX];
    int fds[2];
    spoke_stream *pair[2];
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int listening; /* 1, or it failed */
};

struct task_thread {
    struct tasks *all;
    int side;
    pthread_t thread;
    const char *wrong;
};

static void
say_listening(struct tasks *all, int what)
{
    pthread_mutex_lock(&all->lock);
    all->listening = what;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
}

static int
await_listening(struct tasks *all)
{
    int what;

    pthread_mutex_lock(&all->lock);
    while (all->listening == 0)
        pthread_cond_wait(&all->changed, &all->lock);
    what = all->listening;
    pthread_mutex_unlock(&all->lock);
    return what;
}

static int
have_stream(struct tasks *all, struct task_end *t)
{
    spoke_ns limit = spoke_engine_now(t->e) + PATIENCE;
    spoke_stream_listener *l = NULL;
    int rc;

    if (all->p.over == OVER_PAIR) {
        t->s = all->pair[t->side];
        return 0;
    }
    if (all->p.over == OVER_FD)
        return spoke_stream_from_fd(&t->s, all->fds[t->side], all->config, t->e);
    if (t->side == 0) {
        if ((rc = await_listening(all)) != 1)
            return rc;
        return spoke_stream_dial(&t->s, all->url, all->config, t->e, limit);
    }
    rc = spoke_stream_listen(&l, all->url, all->config, t->e);
    say_listening(all, rc == 0 ? 1 : rc);
    if (rc == 0)
        rc = spoke_stream_accept(l, &t->s, limit);
    if (l != NULL)
        spoke_stream_listener_close(l);
    return rc;
}

/* Of the carrier that it has, a stream of a mux. */
static int
put_on_mux(struct tasks *all, struct task_end *t, spoke_mux **m)
{
    spoke_ns limit = spoke_engine_now(t->e) + PATIENCE;
    int rc = mux_on(m, all->p.on, t->s, all->config, t->side);

    if (rc != 0)
        return rc;
    if (t->side == (all->p.on == ON_MUX ? 0 : 1))
        return spoke_mux_dial(*m, &t->s, NULL, 0, NULL, limit);
    return spoke_mux_accept(*m, &t->s, NULL, limit);
}

static const char *
task_with_engine(struct tasks *all, struct task_end *t)
{
    const char *wrong;
    spoke_mux *m = NULL;
    int rc = have_stream(all, t);

    if (rc == 0 && all->p.on != PLAIN)
        rc = put_on_mux(all, t, &m);
    if (rc != 0)
        return spoke_error_name(rc);
    wrong = all->fn[t->side](t);
    rc = spoke_stream_close(t->s);
    if (m != NULL && rc == 0) /* until the other end has everything */
        rc = spoke_mux_close(m, PATIENCE);
    return wrong != NULL ? wrong : rc != 0 ? "close" : NULL;
}

static void *
task_main(void *argument)
{
    struct task_thread *own = argument;
    struct task_end t = {.side = own->side, .ctx = own->all->ctx};

    if (own->all->p.way == TWO && spoke_engine_open(&t.e, NULL) != 0) {
        say_listening(own->all, SPOKE_ENOMEM);
        own->wrong = "no engine";
        return NULL;
    }
    own->wrong = task_with_engine(own->all, &t);
    if (t.e != NULL && spoke_engine_close(t.e) != 0)
        own->wrong = "engine close";
    return NULL;
}

void
run_tasks(const struct place *p, const spoke_stream_config *config, task_f *dialer,
          task_f *listener, void *ctx)
{
    spoke_stream_config own;
    struct tasks all = {
        .p = *p, .config = config_for(p, config, &own), .fn = {dialer, listener}, .ctx = ctx};
    struct task_thread threads[2];
    struct stage st;

    stage_open(&st, p);
    pthread_mutex_init(&all.lock, NULL);
    pthread_cond_init(&all.changed, NULL);
    if (p->over == OVER_PAIR)
        expect_rc(spoke_stream_pair(&all.pair[0], &all.pair[1], config, NULL), 0);
    else if (p->over == OVER_FD)
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, all.fds), 0);
    else
        fresh_url(&st, all.url);
    for (int i = 0; i < 2; i++) {
        threads[i] = (struct task_thread){.all = &all, .side = i};
        cr_assert_eq(pthread_create(&threads[i].thread, NULL, task_main, &threads[i]), 0);
    }
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i].thread, NULL);
    for (int i = 0; i < 2; i++)
        cr_assert(threads[i].wrong == NULL, "side %d: %s", i, threads[i].wrong);
    pthread_cond_destroy(&all.changed);
    pthread_mutex_destroy(&all.lock);
    stage_close(&st);
}
