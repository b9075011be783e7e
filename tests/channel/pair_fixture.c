/* SPDX-License-Identifier: MIT */
#include "tests/channel/pair_fixture.h"

#include <dirent.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "protocols/channel/channel.h"

static struct criterion_test_params
list_ways(bool with_sim)
{
    static enum way list[] = {OWNED, SHARED, SIM};
    const char *backend = getenv("SPOKE_BACKEND");

    /* Simulated worlds do not depend on the backend: they run once. */
    if (backend != NULL && strcmp(backend, "poll") == 0)
        with_sim = false;
    return (struct criterion_test_params){
        .size = sizeof list[0], .params = list, .length = with_sim ? 3 : 2};
}

struct criterion_test_params
ways(void)
{
    return list_ways(true);
}

struct criterion_test_params
ways_real(void)
{
    return list_ways(false);
}

const char *
rc_name(int rc)
{
    return rc == 0 ? "0" : rc > 0 ? "a number" : spoke_error_name(rc);
}

/* ---- yards ---- */

void
yard_open(struct yard *y, enum way way)
{
    struct spoke_engine_info info;

    memset(y, 0, sizeof *y);
    y->way = way;
    if (way == SHARED)
        expect_rc(spoke_engine_get_info(NULL, &info), 0);
    resources_take(&y->before);
    if (way == OWNED)
        expect_rc(spoke_engine_open(&y->e, NULL), 0);
    if (way == SIM) {
        expect_rc(spoke_sim_open(&y->sim, NULL), 0);
        expect_rc(spoke_sim_engine(y->sim, &y->e), 0);
        (void)spoke_sim_run(y->sim, NULL, NULL, SPOKE_MS); /* so that there is a past */
    }
}

void
yard_close(struct yard *y)
{
    if (y->way == OWNED)
        expect_rc(spoke_engine_close(y->e), 0);
    if (y->way == SIM) {
        struct spoke_sim_report report;

        expect_rc(spoke_sim_close(y->sim, &report), 0);
        cr_expect_eq(report.ops_left, 0);
        cr_expect_eq(report.handles_left, 0);
    }
    resources_settle(&y->before);
}

spoke_ns
yard_in(const struct yard *y, spoke_ns duration)
{
    return spoke_engine_now(y->e) + duration;
}

void
yard_until(struct yard *y, bool (*done)(void *ctx), void *ctx)
{
    spoke_ns end = SOON(y);

    if (y->way == SIM) {
        cr_assert_eq(spoke_sim_run(y->sim, done, ctx, PATIENCE), 1, "it never happens");
        return;
    }
    while (!done(ctx)) {
        cr_assert_lt(spoke_engine_now(y->e), end, "it takes too long");
        if (y->way == OWNED)
            cr_assert_geq(spoke_engine_poll(y->e, SPOKE_MS), 0);
        else
            usleep(200);
    }
}

static void
count_post(void *ctx)
{
    atomic_fetch_add((atomic_int *)ctx, 1);
}

static bool
is_counted(void *ctx)
{
    return atomic_load((atomic_int *)ctx) > 0;
}

/* What was posted before comes before. */
void
yard_settle(struct yard *y)
{
    for (int i = 0; i < 2; i++) {
        static atomic_int count;
        struct spk_engine *e;

        atomic_store(&count, 0);
        if (y->way == SHARED) {
            cr_assert_eq(spk_engine_default(&e), 0);
            cr_assert_eq(spk_engine_post(e, count_post, &count, false), 0);
        } else {
            expect_rc(spoke_engine_post(y->e, count_post, &count), 0);
        }
        yard_until(y, is_counted, &count);
    }
}

/* ---- meanwhile ---- */

static enum spk_channel_side
side_of(const void *handle)
{
    return ((uintptr_t)handle >> 16 & 0xf) == SPK_HANDLE_SENDER ? SPK_SENDS : SPK_RECEIVES;
}

bool
await_calls(const void *handle, uint32_t count)
{
    for (int ms = 0; ms < 20000 * SPOKE_TEST_SLOWDOWN; ms++) {
        struct spk_channel *ch;
        uint32_t waiting = 0;

        if (spk_channel_enter(handle, side_of(handle), &ch) != 0)
            return false;
        struct spk_channel_end *end = &ch->ends[side_of(handle)];
        SPK_LIST_EACH(link, &end->waiters)
        {
            waiting++;
        }
        SPK_LIST_EACH(link, &end->syncs)
        {
            waiting++;
        }
        spk_channel_leave(ch);
        if (waiting >= count)
            return true;
        usleep(1000);
    }
    return false;
}

struct later {
    pthread_t thread;
    bool threaded;
    const void *awaited;
    void (*fn)(void *ctx);
    void *ctx;
};

static void *
later_main(void *argument)
{
    struct later *later = argument;

    if (later->awaited != NULL)
        (void)await_calls(later->awaited, 1);
    later->fn(later->ctx);
    return NULL;
}

struct later *
yard_later(struct yard *y, const void *awaited, void (*fn)(void *ctx), void *ctx)
{
    struct later *later = calloc(1, sizeof *later);

    cr_assert_not_null(later);
    *later = (struct later){.threaded = y->way == SHARED, .awaited = awaited, .fn = fn, .ctx = ctx};
    if (later->threaded)
        cr_assert_eq(pthread_create(&later->thread, NULL, later_main, later), 0);
    else
        expect_rc(spoke_engine_after(y->e, SPOKE_MS, fn, ctx, NULL), 0);
    return later;
}

void
yard_joined(struct later *later)
{
    if (later->threaded)
        pthread_join(later->thread, NULL);
    free(later);
}

/* ---- channels ---- */

void
pair(struct yard *y, size_t depth, spoke_sender **tx, spoke_receiver **rx)
{
    spoke_channel_config config;

    spoke_channel_config_init(&config);
    config.depth = depth;
    expect_rc(spoke_channel_pair(rx, tx, &config, y->e), 0);
}

void
close_pair(spoke_sender *tx, spoke_receiver *rx)
{
    expect_rc(spoke_sender_close(tx), 0);
    expect_rc(spoke_receiver_close(rx), 0);
}

spoke_msg *
message(const char *text)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, text, strlen(text)), 0);
    return m;
}

bool
is_text(const spoke_msg *m, const char *text)
{
    return spoke_msg_size(m) == strlen(text) && memcmp(spoke_msg_body(m), text, strlen(text)) == 0;
}

static int
send_bytes(spoke_sender *tx, const void *bytes, size_t size, spoke_ns deadline)
{
    spoke_msg *m;
    int rc = spoke_msg_from(&m, bytes, size);

    if (rc == 0 && (rc = spoke_sender_send(tx, m, deadline)) != 0)
        spoke_msg_free(m);
    return rc;
}

int
send_text(spoke_sender *tx, const char *text, spoke_ns deadline)
{
    return send_bytes(tx, text, strlen(text), deadline);
}

int
send_number(spoke_sender *tx, uint64_t number, spoke_ns deadline)
{
    return send_bytes(tx, &number, sizeof number, deadline);
}

int
recv_number(spoke_receiver *rx, uint64_t *number, spoke_ns deadline)
{
    spoke_msg *m;
    int rc = spoke_receiver_recv(rx, &m, deadline);

    if (rc != 0)
        return rc;
    if (spoke_msg_size(m) == sizeof *number)
        memcpy(number, spoke_msg_body(m), sizeof *number);
    else
        rc = SPOKE_EPROTO;
    spoke_msg_free(m);
    return rc;
}

void
expect_text(spoke_receiver *rx, const char *text)
{
    spoke_msg *m;

    expect_rc(spoke_receiver_recv(rx, &m, spoke_engine_now(NULL) + PATIENCE), 0);
    cr_assert(is_text(m, text), "\"%.*s\" is not \"%s\"", (int)spoke_msg_size(m),
              (const char *)spoke_msg_body(m), text);
    spoke_msg_free(m);
}

int
recv_nothing(spoke_receiver *rx, spoke_ns deadline)
{
    spoke_msg *m;
    int rc = spoke_receiver_recv(rx, &m, deadline);

    cr_assert_neq(rc, 0, "there is a message");
    cr_assert_null(m);
    return rc;
}

int
open_descriptors(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = -1; /* its own */

    cr_assert_not_null(dir);
    while (readdir(dir) != NULL)
        count++;
    closedir(dir);
    return count;
}
