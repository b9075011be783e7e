/* SPDX-License-Identifier: MIT */
/* Streams in the simulated world: two machines that write and read as chance has it, in every
 * weather.  What must hold: bytes come in order and once, a stream that says EOF has given all of
 * them, every stream ends, and where nothing is lost nothing fails. */
#include "tests/stream/fixture.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEEDS      TEST_REPEATS(400)
#define PIECE_MOST ((size_t)20000)

struct half {
    uint64_t total, sent, received;
    bool said_all;
    int write_error, read_end;
};

struct run {
    uint64_t seed, random;
    spoke_sim *w;
    spoke_engine *e[2];
    spoke_stream *s[2];
    struct half half[2];
    bool harmless;
};

static uint64_t
below(struct run *x, uint64_t bound)
{
    x->random ^= x->random << 13;
    x->random ^= x->random >> 7;
    x->random ^= x->random << 17;
    return x->random % bound;
}

#define holds(x, Condition) cr_assert(Condition, "%s", describe(x))

static const char *
describe(const struct run *x)
{
    static char text[512];
    int used = snprintf(text, sizeof text, "SPOKE_SIM_SEED=%" PRIu64, x->seed);

    for (int i = 0; i < 2; i++) {
        const struct half *h = &x->half[i];

        used += snprintf(text + used, sizeof text - (size_t)used,
                         "; sent %" PRIu64 " of %" PRIu64 "%s %s, received %" PRIu64 " %s", h->sent,
                         h->total, h->said_all ? ", all" : "", name_of(h->write_error), h->received,
                         name_of(h->read_end));
    }
    return text;
}

static spoke_sim_config
weather(struct run *x)
{
    spoke_sim_config config;

    spoke_sim_config_init(&config);
    config.seed = x->seed;
    if (below(x, 2) != 0)
        config.buffer_bytes = (uint32_t)(1 + below(x, 5000));
    config.short_read = (uint32_t)below(x, 500);
    config.short_write = (uint32_t)below(x, 500);
    config.delay = (uint32_t)below(x, 100);
    config.enobufs = (uint32_t)below(x, 100);
    config.overflow = (uint32_t)below(x, 50);
    config.cancel_race = (uint32_t)below(x, 300);
    x->harmless = below(x, 3) == 0;
    if (!x->harmless) {
        config.reset = (uint32_t)below(x, 8);
        config.enomem = (uint32_t)below(x, 20);
    }
    return config;
}

/* ---- one end ---- */

static int
write_somehow(struct run *x, spoke_stream *s, uint8_t *bytes, size_t size, size_t *done)
{
    struct iovec v[3];
    size_t cut = (size_t)below(x, size + 1);
    spoke_msg *m;
    int rc;

    switch (below(x, 3)) {
    case 0: return spoke_stream_write(s, bytes, size, done);
    case 1:
        v[0] = (struct iovec){bytes, cut};
        v[1] = (struct iovec){NULL, 0};
        v[2] = (struct iovec){bytes + cut, size - cut};
        return spoke_stream_writev(s, v, 3, done);
    default: break;
    }
    *done = 0;
    if ((rc = spoke_msg_from(&m, bytes, size)) == 0 &&
        (rc = spoke_stream_write_chunk(s, m, done)) != 0)
        spoke_msg_free(m);
    return rc;
}

static void
write_some(struct run *x, int side)
{
    static uint8_t bytes[PIECE_MOST];
    struct half *h = &x->half[side];
    size_t size = (size_t)(1 + below(x, PIECE_MOST)), done = 0;
    int rc;

    if (h->said_all || h->write_error != 0)
        return;
    if (size > h->total - h->sent)
        size = (size_t)(h->total - h->sent);
    if (size > 0) {
        bytes_fill(bytes, size, h->sent);
        rc = write_somehow(x, x->s[side], bytes, size, &done);
        holds(x, done <= size && (rc != 0 || done > 0));
        h->sent += done;
        if (rc != 0 && rc != SPOKE_EAGAIN && rc != SPOKE_ENOMEM)
            h->write_error = rc;
    }
    if (h->sent < h->total && h->write_error == 0)
        return;
    rc = spoke_stream_close_write(x->s[side]);
    holds(x, rc == 0 || !x->harmless);
    h->said_all = rc == 0 && h->write_error == 0;
    if (rc != 0 && h->write_error == 0)
        h->write_error = rc;
}

static int
read_somehow(struct run *x, spoke_stream *s, uint8_t *bytes, size_t size, size_t *done)
{
    struct iovec v[2] = {{bytes, size / 2}, {bytes + size / 2, size - size / 2}};
    spoke_msg *m;
    int rc;

    *done = 0;
    switch (below(x, 4)) {
    case 0: return spoke_stream_read(s, bytes, size, done);
    case 1: return spoke_stream_readv(s, v, 2, done);
    case 2: return spoke_stream_read_full(s, bytes, size, done);
    default: break;
    }
    if ((rc = spoke_stream_read_chunk(s, &m)) != 0)
        return rc;
    if (below(x, 3) == 0) { /* changes its mind */
        if (spoke_stream_unread(s, m) == 0)
            return SPOKE_EAGAIN;
    }
    if (spoke_msg_size(m) > 1 << 20)
        abort();
    memcpy(bytes, spoke_msg_body(m), spoke_msg_size(m));
    *done = spoke_msg_size(m);
    spoke_msg_free(m);
    return 0;
}

static void
read_some(struct run *x, int side)
{
    static uint8_t bytes[1 << 20];
    struct half *h = &x->half[side];
    struct spoke_stream_info info;
    size_t done;
    int rc;

    if (h->read_end != 0)
        return;
    rc = read_somehow(x, x->s[side], bytes, (size_t)(1 + below(x, PIECE_MOST)), &done);
    holds(x, bytes_hold(bytes, done, h->received));
    h->received += done;
    holds(x, h->received <= x->half[!side].sent);
    expect_rc(spoke_stream_get_info(x->s[side], &info), 0);
    if (rc == SPOKE_EAGAIN || (rc == SPOKE_ENOMEM && info.read_end == 0))
        return;
    h->read_end = rc;
}

/* ---- both ---- */

static void
connect_both(struct run *x, const struct place *p)
{
    struct stage st = {.p = *p, .sim = x->w, .e = {x->e[0], x->e[1]}};
    spoke_stream_config config;

    spoke_stream_config_init(&config);
    if (below(x, 2) != 0)
        config.window = (size_t)(1 + below(x, 5000));
    connect_ends(&st, &config, x->s);
    for (int i = 0; i < 2; i++)
        expect_rc(spoke_stream_set_deadline(x->s[i], SPOKE_NOW), 0);
}

static bool
is_finished(const struct run *x)
{
    return x->half[0].read_end != 0 && x->half[1].read_end != 0;
}

static void
go_on(struct run *x)
{
    uint64_t idle = 0;

    while (!is_finished(x)) {
        uint64_t before = x->half[0].sent + x->half[0].received + x->half[1].sent +
                          x->half[1].received;
        int side = (int)below(x, 2), more;

        if (below(x, 2) != 0)
            write_some(x, side);
        else
            read_some(x, side);
        more = spoke_sim_step(x->w);
        if (before !=
                x->half[0].sent + x->half[0].received + x->half[1].sent + x->half[1].received ||
            more != 0)
            idle = 0;
        holds(x, ++idle < 500); /* it hangs */
    }
}

static void
check_end(struct run *x, int side)
{
    const struct half *reader = &x->half[side], *writer = &x->half[!side];

    if (reader->read_end == SPOKE_EOF) {
        holds(x, writer->said_all || writer->write_error != 0);
        holds(x, !writer->said_all || reader->received == writer->sent);
    } else {
        holds(x, !x->harmless);
    }
}

static void
run_once(const struct place *p, uint64_t seed)
{
    struct run x = {.seed = seed, .random = seed * 0x9e3779b97f4a7c15u + 1};
    spoke_sim_config config = weather(&x), calm;
    struct spoke_sim_report report;
    static struct resources before;

    scratch_dir();
    resources_take(&before);
    spoke_sim_config_init(&calm);
    calm.seed = seed;
    calm.buffer_bytes = config.buffer_bytes;
    expect_rc(spoke_sim_open(&x.w, &calm), 0);
    expect_rc(spoke_sim_engine(x.w, &x.e[0]), 0);
    if (p->over == OVER_PAIR)
        x.e[1] = x.e[0];
    else
        expect_rc(spoke_sim_engine(x.w, &x.e[1]), 0);
    connect_both(&x, p);
    for (int i = 0; i < 2; i++)
        x.half[i].total = below(&x, 2) != 0 ? below(&x, 100000) : below(&x, 10);
    spoke_sim_set_faults(x.w, &config);
    go_on(&x);
    for (int i = 0; i < 2; i++)
        check_end(&x, i);
    for (int i = 0; i < 2; i++) {
        int rc = below(&x, 3) != 0 ? spoke_stream_close(x.s[i]) : 0; /* or with its engine */

        holds(&x, rc == 0 || !x.harmless);
    }
    if (spoke_sim_close(x.w, &report) != 0)
        cr_assert(false, "seed %" PRIu64 ": left %" PRIu64 " operations, %" PRIu64 " handles", seed,
                  report.ops_left, report.handles_left);
    cr_assert_eq(report.double_completions, 0, "seed %" PRIu64, seed);
    resources_settle(&before);
}

static struct criterion_test_params
simulated(void)
{
    static struct place list[] = {{OVER_INPROC, SIM, PLAIN},
                                  {OVER_IPC, SIM, PLAIN},
                                  {OVER_TCP, SIM, PLAIN},
                                  {OVER_PAIR, SIM, PLAIN}};
    const char *backend = getenv("SPOKE_BACKEND");
    bool elsewhere = (backend != NULL && strcmp(backend, "poll") == 0) ||
                     getenv("SPOKE_MASK_FEATURES") != NULL;

    return (struct criterion_test_params){.size = sizeof list[0],
                                          .params = list,
                                          .length = elsewhere ? 0 : sizeof list / sizeof list[0]};
}

PLACE_TEST(stream_world, every_byte_once_and_in_order, simulated)
{
    const char *seed = getenv("SPOKE_SIM_SEED");

    if (seed != NULL)
        run_once(p, strtoull(seed, NULL, 10));
    for (uint64_t i = 1; seed == NULL && i <= SEEDS; i++)
        run_once(p, i);
}

/* Dials and accepts in bad weather: each has an outcome, and nothing is left. */
static void
dial_once(const struct place *p, uint64_t seed)
{
    static struct resources before;
    struct run x = {.seed = seed, .random = seed * 0x9e3779b97f4a7c15u + 1};
    spoke_sim_config config = weather(&x);
    spoke_stream_listener *l;
    spoke_stream *a, *b;
    struct stage st = {.p = *p};
    char url[ENDPOINT_MAX];
    int rc;

    scratch_dir();
    resources_take(&before);
    config.refuse = 200;
    config.emfile = 100;
    config.enomem = 30;
    config.reset = 50;
    expect_rc(spoke_sim_open(&x.w, NULL), 0);
    expect_rc(spoke_sim_engine(x.w, &x.e[0]), 0);
    expect_rc(spoke_sim_engine(x.w, &x.e[1]), 0);
    fresh_url(&st, url);
    expect_rc(spoke_stream_listen(&l, url, NULL, x.e[1]), 0);
    spoke_sim_set_faults(x.w, &config);
    for (int i = 0; i < 6; i++) {
        bool waits = below(&x, 2) != 0;

        rc = spoke_stream_dial(&a, url, NULL, x.e[0],
                               waits ? spoke_engine_now(x.e[0]) + SPOKE_SECOND : SPOKE_NOW);
        holds(&x, (rc == 0) == (a != NULL));
        rc = spoke_stream_accept(
            l, &b, below(&x, 2) != 0 ? spoke_engine_now(x.e[1]) + SPOKE_MS : SPOKE_NOW);
        holds(&x, (rc == 0) == (b != NULL));
        holds(&x, rc == 0 || rc == SPOKE_EAGAIN || rc == SPOKE_ETIMEDOUT || rc == SPOKE_ENOMEM);
        if (a != NULL && below(&x, 3) != 0)
            (void)spoke_stream_close(a);
        if (b != NULL && below(&x, 3) != 0)
            (void)spoke_stream_close(b);
    }
    cr_assert_eq(spoke_sim_close(x.w, NULL), 0, "seed %" PRIu64, seed);
    resources_settle(&before);
}

PLACE_TEST(stream_world, every_dial_has_an_outcome, simulated)
{
    for (uint64_t i = 1; p->over != OVER_PAIR && i <= SEEDS; i++)
        dial_once(p, i);
}
