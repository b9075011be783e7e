/* SPDX-License-Identifier: MIT */
/* Every allocation of the library fails once: each call then gives a proper error or works all the
 * same, nothing is left, and the next attempt works. */
#include "tests/fault/duo.h"

#include <string.h>

#include "runtime/core/core.h"
#include "runtime/memory/pool.h"
#include "tests/fault/shortage.h"
#include "tests/support/endpoints.h"
#include "tests/support/raw_peer.h"
#include "tests/support/resources.h"
#include "tests/support/test.h"

#define TOO_MANY 20000

static bool
has_fired(void)
{
    return shortage_fired;
}

static void
watch_it(void)
{
    duo_watch(has_fired);
}

TestSuite(memory, .init = watch_it);

static const size_t sizes[] = {4, 100, 130, 5000, 200000};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

/* Where a duo lives. */
struct place {
    enum transport transport;
    bool shared;
};

static struct criterion_test_params
all_places(void)
{
    static struct place places[] = {{INPROC, false}, {IPC, false}, {TCP, false},
                                    {INPROC, true},  {IPC, true},  {TCP, true}};

    return (struct criterion_test_params){
        .size = sizeof places[0], .params = places, .length = sizeof places / sizeof places[0]};
}

static int
open_at(const struct place *p, struct duo *d, const char *url)
{
    return p->shared ? duo_open_shared(d, url) : duo_open(d, url);
}

/* The shared engine makes what it keeps. */
static void
warm_up(const struct place *p, const char *url)
{
    struct duo d;

    if (!p->shared)
        return;
    cr_assert_eq(duo_open_shared(&d, url), 0);
    cr_assert_eq(duo_recover(&d, 100), 0);
    cr_assert_eq(duo_close(&d), 0);
}

ParameterizedTestParameters(memory, a_failed_allocation_while_opening_leaves_nothing)
{
    return all_places();
}

ParameterizedTest(struct place *p, memory, a_failed_allocation_while_opening_leaves_nothing)
{
    static struct resources before;
    char url[ENDPOINT_MAX];
    struct duo d;
    long failures = 0;

    endpoint_fresh(url, p->transport);
    warm_up(p, url);
    resources_take(&before);
    shortage_fired = true;
    for (long n = 1; shortage_fired; n++) {
        cr_assert_lt(n, TOO_MANY);
        shortage_at(n);
        int rc = open_at(p, &d, url);
        shortage_end();
        if (rc != 0) {
            cr_assert(shortage_fired, "allocation %ld: %s although none failed", n,
                      spoke_error_name(rc));
            cr_assert(rc == SPOKE_ENOMEM || rc == SPOKE_ECONNRESET || rc == SPOKE_ETIMEDOUT ||
                          rc == SPOKE_EOF,
                      "allocation %ld: %s", n, spoke_error_name(rc));
            failures++;
            cr_assert_eq(open_at(p, &d, url), 0, "after allocation %ld failed", n);
        }
        for (int i = 0; i < SIZES; i++)
            cr_assert_eq(duo_recover(&d, sizes[i]), 0, "after allocation %ld failed", n);
        cr_assert_eq(duo_close(&d), 0);
        resources_settle(&before);
    }
    cr_assert_gt(failures, 5, "it was not tried");
}

ParameterizedTestParameters(memory, a_failed_allocation_in_an_exchange_loses_at_most_this_one)
{
    return all_places();
}

ParameterizedTest(struct place *p, memory,
                  a_failed_allocation_in_an_exchange_loses_at_most_this_one)
{
    static struct resources before;
    char url[ENDPOINT_MAX];
    struct duo d;
    long tried = 0;

    endpoint_fresh(url, p->transport);
    warm_up(p, url);
    resources_take(&before);
    for (int i = 0; i < SIZES; i++) {
        cr_assert_eq(open_at(p, &d, url), 0);
        cr_assert_eq(duo_recover(&d, sizes[i]), 0);
        shortage_fired = true;
        for (long n = 1; shortage_fired; n++) {
            cr_assert_lt(n, TOO_MANY);
            shortage_at(n);
            int rc = duo_exchange(&d, sizes[i]);
            shortage_end();
            tried += shortage_fired;
            cr_assert(rc == 0 || shortage_fired,
                      "%zu bytes, allocation %ld: %s although none failed", sizes[i], n,
                      spoke_error_name(rc));
            cr_assert(rc == 0 || rc == SPOKE_ENOMEM || rc == SPOKE_ETIMEDOUT ||
                          rc == SPOKE_ECONNRESET,
                      "%zu bytes, allocation %ld: %s", sizes[i], n, spoke_error_name(rc));
            rc = duo_recover(&d, sizes[i]);
            cr_assert_eq(rc, 0, "%zu bytes, after allocation %ld failed: %s", sizes[i], n,
                         spoke_error_name(rc));
        }
        cr_assert_eq(duo_close(&d), 0);
        resources_settle(&before);
    }
    cr_assert_gt(tried, 10, "it was not tried");
}

/* What has arrived and cannot be queued is held back, and given as it is. */
Test(memory, a_receive_ends_although_there_is_none_any_more)
{
    static struct resources before;
    const uint32_t number = 0;
    char url[ENDPOINT_MAX];
    struct duo d;
    long tried = 0;

    endpoint_fresh(url, IPC);
    resources_take(&before);
    shortage_fired = true;
    for (long n = 1; shortage_fired; n++) {
        spoke_msg *m = NULL;
        cr_assert_eq(duo_open(&d, url), 0);
        cr_assert_eq(spoke_send_bytes(d.req, &number, sizeof number, 0), 0);
        shortage_from(n);
        int rc = spoke_recv(d.rep, &m, 0);
        shortage_end();
        tried += shortage_fired;
        cr_assert(rc == 0 || (shortage_fired && (rc == SPOKE_ENOMEM || rc == SPOKE_ETIMEDOUT)),
                  "none from allocation %ld on: %s", n, spoke_error_name(rc));
        spoke_msg_free(m);
        cr_assert_eq(duo_recover(&d, 10), 0, "after allocation %ld", n);
        cr_assert_eq(duo_close(&d), 0);
        resources_settle(&before);
    }
    cr_assert_gt(tried, 1, "it was not tried");
}

Test(memory, a_close_needs_none)
{
    static struct resources before;
    char url[ENDPOINT_MAX];
    struct duo d;

    endpoint_fresh(url, IPC);
    resources_take(&before);
    shortage_fired = true;
    for (long n = 1; n < 20; n++) {
        cr_assert_eq(duo_open(&d, url), 0);
        cr_assert_eq(duo_exchange(&d, 100), 0);
        shortage_at(n);
        int rc = duo_close(&d);
        shortage_end();
        cr_assert_eq(rc, 0, "allocation %ld: %s", n, spoke_error_name(rc));
        resources_settle(&before);
    }
}

static int
count_ends(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    int *open = ctx;

    (void)s;
    if (event->type == SPOKE_EVENT_ATTACHING)
        ++*open;
    else if (event->type == SPOKE_EVENT_DETACHED)
        --*open;
    return 0;
}

/* Goal: who has heard of a peer hears of its end.  Method: from the moment that the peer's socket
 * closes there is no memory at all. */
Test(memory, the_end_of_a_pipe_is_told_without_any)
{
    static struct resources before;
    char url[ENDPOINT_MAX];
    int open = 0;
    struct duo d;

    endpoint_fresh(url, IPC);
    resources_take(&before);
    memset(&d, 0, sizeof d);
    cr_assert_eq(spoke_engine_open(&d.e, NULL), 0);
    cr_assert_eq(spoke_socket_open(&d.rep, SPOKE_REP, d.e), 0);
    cr_assert_eq(spoke_socket_open(&d.req, SPOKE_REQ, d.e), 0);
    cr_assert_eq(spoke_socket_on_event(d.rep, count_ends, &open), 0);
    cr_assert_eq(spoke_listen(d.rep, url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(d.req, url, NULL, SPOKE_WAIT_FIRST), 0);
    cr_assert_eq(duo_exchange(&d, 100), 0);
    cr_assert_eq(open, 1);
    shortage_from(1);
    int rc = spoke_socket_close(d.req);
    for (int i = 0; i < 1000 && open > 0; i++)
        spoke_engine_poll(d.e, SPOKE_MS);
    shortage_end();
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
    cr_assert_eq(open, 0, "DETACHED was not told");
    cr_assert_eq(spoke_socket_close(d.rep), 0);
    cr_assert_eq(spoke_engine_close(d.e), 0);
    resources_settle(&before);
}

/* ---- the timer of SPOKE_OPT_IDLE_TIMEOUT ---- */

static int
note_reason(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s;
    if (event->type == SPOKE_EVENT_DETACHED)
        *(int *)ctx = event->reason;
    return 0;
}

/* Set timers until the next one needs memory. */
static int
fill_timers(spoke_engine *handle, struct spk_timer *timers, int most)
{
    struct spk_engine *e;
    void *object;
    int count = 0;

    cr_assert_eq(spk_handle_enter(handle, SPK_HANDLE_ENGINE, &object, &e), 0);
    while (count < most && (count == 0 || e->timers.count < e->timers.room)) {
        spk_timer_init(&timers[count], NULL);
        cr_assert_eq(spk_timer_set(e, &timers[count++], SPOKE_FOREVER - 1), 0);
    }
    cr_assert_eq(e->timers.count, e->timers.room);
    spk_engine_leave(e);
    return count;
}

static void
cancel_timers(spoke_engine *handle, struct spk_timer *timers, int count)
{
    struct spk_engine *e;
    void *object;

    cr_assert_eq(spk_handle_enter(handle, SPK_HANDLE_ENGINE, &object, &e), 0);
    for (int i = 0; i < count; i++)
        spk_timer_cancel(e, &timers[i]);
    spk_engine_leave(e);
}

static spoke_engine *driven;

static void
drive(void *ctx)
{
    (void)ctx;
    spoke_engine_poll(driven, 0);
}

static void
await_reason(const int *reason)
{
    for (int i = 0; i < 10000 && *reason == 0; i++)
        spoke_engine_poll(driven, SPOKE_MS);
}

/* Goal: who cannot be watched is not kept.  Method: a peer says half of a prefix when there is no
 * memory for the timer that would limit its silence. */
Test(memory, a_peer_that_cannot_be_timed_is_let_go)
{
    static struct spk_timer timers[64];
    static const uint8_t half[4] = {1};
    static struct resources before;
    char url[ENDPOINT_MAX];
    struct raw_peer p;
    int reason = 0;
    spoke_socket *s;
    spoke_msg *m;

    endpoint_fresh(url, IPC);
    resources_take(&before);
    cr_assert_eq(spoke_engine_open(&driven, NULL), 0);
    raw_set_idle(drive, NULL);
    cr_assert_eq(spoke_socket_open(&s, SPOKE_PAIR, driven), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_IDLE_TIMEOUT, 3600 * SPOKE_SECOND), 0);
    cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 10 * SPOKE_SECOND), 0);
    cr_assert_eq(spoke_socket_on_event(s, note_reason, &reason), 0);
    cr_assert_eq(spoke_listen(s, url, NULL, 0), 0);
    for (int scarce = 1; scarce >= 0; scarce--) {
        int count = 0;

        cr_assert_eq(raw_dial_sp(&p, url, SPOKE_PAIR, SPOKE_PAIR), RAW_OK);
        cr_assert_eq(raw_send(&p, "hello", 5), RAW_OK);
        cr_assert_eq(spoke_recv(s, &m, 0), 0);
        spoke_msg_free(m);
        if (scarce) {
            count = fill_timers(driven, timers, 64);
            shortage_from(1);
        }
        reason = 0;
        cr_assert_eq(raw_send_bytes(&p, half, sizeof half, RAW_LIMIT_MS), RAW_OK);
        if (scarce) {
            int rc = raw_wait_eof(&p, RAW_LIMIT_MS);
            await_reason(&reason);
            shortage_end();
            cr_assert_eq(rc, RAW_OK, "the peer stays");
            cr_assert(shortage_fired);
            cr_assert_eq(reason, SPOKE_ENOMEM, "%s", spoke_error_name(reason));
            cancel_timers(driven, timers, count);
        } else {
            cr_assert(raw_is_quiet(&p, RAW_QUIET_MS));
            cr_assert_eq(reason, 0);
        }
        raw_close(&p);
        await_reason(&reason);
        cr_assert_neq(reason, 0, "the end was not told");
    }
    raw_set_idle(NULL, NULL);
    cr_assert_eq(spoke_socket_close(s), 0);
    cr_assert_eq(spoke_engine_close(driven), 0);
    resources_settle(&before);
}

/* The other switch, which counts by itself. */
Test(memory, messages_and_options_survive_it)
{
    struct spoke_memory_stats stats;
    spoke_msg *m;

    spoke_memory_stats(&stats);
    uint64_t messages = stats.messages;
    for (uint64_t n = 1; n < 4; n++) {
        for (size_t size = 1; size < 1000 * 1000; size *= 10) {
            spk_memory_fail_after(n);
            int rc = spoke_msg_new(&m, size);
            cr_assert(rc == 0 || (rc == SPOKE_ENOMEM && m == NULL));
            cr_assert(n > 1 || rc == SPOKE_ENOMEM, "%zu bytes: the first one fails", size);
            int grown = rc == 0 ? spoke_msg_append(m, NULL, 200000) : SPOKE_ENOMEM;
            spk_memory_fail_after(0);
            cr_assert(grown == 0 || grown == SPOKE_ENOMEM);
            if (rc == 0) {
                cr_assert_eq(spoke_msg_size(m), grown == 0 ? size + 200000 : size);
                spoke_msg_free(m);
            }
        }
    }
    spoke_memory_stats(&stats);
    cr_assert_eq(stats.messages, messages);
}
