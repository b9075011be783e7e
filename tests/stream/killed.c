/* SPDX-License-Identifier: MIT */
/* The peer's process is killed, at whatever it is just then: what had arrived is read, in order,
 * and then the stream ends. */
#include "tests/stream/fixture.h"

#include <signal.h>
#include <stdlib.h>
#include <time.h>

#include "tests/support/process.h"

struct child {
    const char *url;
    struct stage *st;
    bool writes;
};

static int
live(void *ctx)
{
    const struct child *child = ctx;
    static uint8_t bytes[30000];
    spoke_engine *e;
    spoke_stream *s;
    size_t done;

    child_is_confined(); /* it is killed, or its parent has gone */
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_stream_dial(&s, child->url, stage_config(child->st, NULL), e,
                                  spoke_engine_now(e) + PATIENCE) == 0);
    for (uint64_t place = 0;;) {
        if (child->writes) {
            size_t size = 1 + (size_t)(place * 31 % sizeof bytes);

            bytes_fill(bytes, size, place);
            if (spoke_stream_write(s, bytes, size, &done) != 0)
                return 0;
            place += size;
        } else if (spoke_stream_read(s, bytes, 1 + (size_t)(place % 5000), &done) != 0) {
            return 0;
        } else {
            place += done;
        }
    }
}

static struct criterion_test_params
between_processes(void)
{
    static struct place list[2 * (LAST_TRANSPORT + 1)];
    size_t count = 0;

    for (int over = OVER_IPC; over <= OVER_WSS; over++) {
        if (!transport_is_wanted((enum transport)over))
            continue;
        list[count++] = (struct place){(enum over)over, ONE, PLAIN};
        list[count++] = (struct place){(enum over)over, SHARED, PLAIN};
    }
    return (struct criterion_test_params){.size = sizeof list[0], .params = list, .length = count};
}

/* Of a peer that could not say anything: where there are words for an end it is none. */
static bool
is_end(const struct place *p, int rc)
{
    bool has_words = is_over_tls(p) || is_over_ws(p);

    return rc == (has_words ? SPOKE_ETRUNCATED : SPOKE_EOF) || rc == SPOKE_ECONNRESET ||
           rc == SPOKE_EPEERCLOSED;
}

PLACE_TEST(stream_killed, a_writer, between_processes)
{
    static uint8_t bytes[50000];
    struct stage st;
    spoke_stream_listener *l;
    spoke_stream *s;
    char url[ENDPOINT_MAX];
    struct child child = {.url = url, .st = &st, .writes = true};
    size_t done;
    int rc;

    stage_open(&st, p);
    fresh_url(&st, url);
    expect_rc(spoke_stream_listen(&l, url, stage_config(&st, NULL), st.e[1]), 0);
    for (int round = 0; round < 6; round++) {
        pid_t pid = child_start(live, &child);
        uint64_t place = 0, limit = (uint64_t)(round * round) * 40000;

        expect_rc(spoke_stream_accept(l, &s, stage_in(&st, PATIENCE)), 0);
        expect_rc(spoke_stream_set_read_deadline(s, stage_in(&st, PATIENCE)), 0);
        while (place < limit) {
            expect_rc(spoke_stream_read(s, bytes, sizeof bytes, &done), 0);
            cr_assert(bytes_hold(bytes, done, place));
            place += done;
        }
        if (round % 2 == 1)
            stage_pass(&st, 2 * SPOKE_MS); /* it fills the window */
        child_kill(pid);
        while ((rc = spoke_stream_read(s, bytes, sizeof bytes, &done)) == 0) {
            cr_assert(bytes_hold(bytes, done, place));
            place += done;
        }
        cr_assert(is_end(p, rc), "%s", name_of(rc));
        expect_rc(read_one(s), rc);
        (void)spoke_stream_close(s);
    }
    expect_rc(spoke_stream_listener_close(l), 0);
    stage_close(&st);
}

PLACE_TEST(stream_killed, a_reader, between_processes)
{
    static uint8_t bytes[50000];
    struct stage st;
    spoke_stream_listener *l;
    spoke_stream *s;
    char url[ENDPOINT_MAX];
    struct child child = {.url = url, .st = &st, .writes = false};
    const spoke_stream_config *config;
    size_t done;
    int rc;

    stage_open(&st, p);
    fresh_url(&st, url);
    config = stage_config(&st, &(spoke_stream_config){.linger_ns = SPOKE_MS, .ipc_mode = -1});
    expect_rc(spoke_stream_listen(&l, url, config, st.e[1]), 0);
    for (int round = 0; round < 4; round++) {
        pid_t pid = child_start(live, &child);

        expect_rc(spoke_stream_accept(l, &s, stage_in(&st, PATIENCE)), 0);
        expect_rc(spoke_stream_set_deadline(s, stage_in(&st, PATIENCE)), 0);
        for (int i = 0; i < round * 20; i++)
            expect_rc(spoke_stream_write(s, bytes, sizeof bytes, &done), 0);
        child_kill(pid);
        while ((rc = spoke_stream_write(s, bytes, sizeof bytes, &done)) == 0) {
        }
        cr_assert(is_end(p, rc) && rc != SPOKE_EOF, "%s", name_of(rc));
        rc = read_one(s);
        cr_assert(is_end(p, rc), "%s", name_of(rc));
        (void)spoke_stream_close(s);
    }
    expect_rc(spoke_stream_listener_close(l), 0);
    stage_close(&st);
}

/* ---- not killed, but stopped ---- */

static bool
write_now(spoke_stream *s)
{
    size_t done;

    return spoke_stream_write(s, "!", 1, &done) == 0;
}

static int
stop(void *ctx)
{
    const struct child *child = ctx;
    spoke_stream_config config;
    spoke_engine *e;
    spoke_stream *s;

    child_is_confined();
    spoke_stream_config_init(&config);
    config.window = 64 << 20;
    CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
    CHILD_CHECK(spoke_stream_dial(&s, child->url, stage_config(child->st, &config), e,
                                  spoke_engine_now(e) + PATIENCE) == 0);
    CHILD_CHECK(write_now(s));
    raise(SIGSTOP);
    return 0;
}

/* A close ends in time, and tells that not everything was taken. */
PLACE_TEST(stream_killed, a_peer_that_stands_still, between_processes)
{
    spoke_stream_config config;
    struct stage st;
    spoke_stream_listener *l;
    spoke_stream *s;
    char url[ENDPOINT_MAX];
    struct child child = {.url = url, .st = &st};
    spoke_ns begin;
    int rc;

    spoke_stream_config_init(&config);
    config.linger_ns = 50 * SPOKE_MS;
    stage_open(&st, p);
    fresh_url(&st, url);
    expect_rc(spoke_stream_listen(&l, url, stage_config(&st, &config), st.e[1]), 0);
    pid_t pid = child_start(stop, &child);
    expect_rc(spoke_stream_accept(l, &s, stage_in(&st, PATIENCE)), 0);
    expect_text(s, "!");
    stage_pass(&st, 20 * SPOKE_MS);
    (void)fill_up(&st, s);
    begin = stage_now(&st);
    rc = spoke_stream_close(s);
    cr_assert_lt(stage_now(&st) - begin, PATIENCE / 2);
    /* Elsewhere the kernel has all that was taken. */
    expect_rc(rc, p->over == OVER_SHM || is_over_tls(p) || is_over_ws(p) ? SPOKE_ETIMEDOUT : 0);
    child_kill(pid);
    expect_rc(spoke_stream_listener_close(l), 0);
    stage_close(&st);
}
