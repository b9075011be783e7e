/* SPDX-License-Identifier: MIT */
/* Every allocation of the library fails once under a device and what it stands between: starting it
 * fails with a proper error or works, a message that is on its way may be lost, the next one gets
 * through, and nothing is left. */
#include <string.h>

#include <spoke/spoke.h>

#include "tests/fault/shortage.h"
#include "tests/support/endpoints.h"
#include "tests/support/resources.h"
#include "tests/support/test.h"

#define TOO_MANY 20000
#define HASTE    (100 * SPOKE_MS)
#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)

/* A device between `front` and `back`, or on `front`; whoever sends dials the one, whoever receives
 * the other. */
struct kind {
    int front, back; /* 0: one socket */
    int from, to;
    bool two_engines;
    enum transport transport;
};

struct rig {
    const struct kind *kind;
    spoke_engine *e[2];
    spoke_socket *front, *back, *from, *to;
    spoke_device *d;
    uint32_t number; /* of the last message */
};

static struct criterion_test_params
all_kinds(void)
{
    static struct kind kinds[] = {
        {SPOKE_REP, SPOKE_REQ, SPOKE_REQ, SPOKE_REP, false, IPC},
        {SPOKE_REP, SPOKE_REQ, SPOKE_REQ, SPOKE_REP, false, INPROC},
        {SPOKE_REP, SPOKE_REQ, SPOKE_REQ, SPOKE_REP, true, TCP},
        {SPOKE_PAIR1, SPOKE_PAIR1, SPOKE_PAIR1, SPOKE_PAIR1, false, IPC},
        {SPOKE_PAIR, SPOKE_PAIR, SPOKE_PAIR, SPOKE_PAIR, true, IPC},
        {SPOKE_BUS, 0, SPOKE_BUS, SPOKE_BUS, false, IPC},
        {SPOKE_BUS, SPOKE_BUS, SPOKE_BUS, SPOKE_BUS, false, INPROC},
        {SPOKE_STAR, 0, SPOKE_STAR, SPOKE_STAR, false, IPC},
        {SPOKE_STAR, SPOKE_STAR, SPOKE_STAR, SPOKE_STAR, true, INPROC},
    };

    return (struct criterion_test_params){
        .size = sizeof kinds[0], .params = kinds, .length = sizeof kinds / sizeof kinds[0]};
}

static void
drive(struct rig *r)
{
    (void)spoke_engine_poll(r->e[0], 0);
    if (r->e[1] != r->e[0])
        (void)spoke_engine_poll(r->e[1], 0);
}

static void
rig_close(struct rig *r)
{
    if (r->e[1] != NULL && r->e[1] != r->e[0])
        cr_assert_eq(spoke_engine_close(r->e[1]), 0);
    if (r->e[0] != NULL)
        cr_assert_eq(spoke_engine_close(r->e[0]), 0);
}

static int
open_socket(spoke_socket **s, int pattern, spoke_engine *e)
{
    int rc = spoke_socket_open(s, pattern, e);

    if (rc == 0)
        rc = spoke_socket_set_duration(*s, SPOKE_OPT_RECONNECT, SPOKE_MS);
    if (rc == 0 && pattern == SPOKE_REQ)
        rc = spoke_socket_set_duration(*s, SPOKE_OPT_RETRY_TIME, 50 * SPOKE_MS);
    return rc;
}

static int
try_open(struct rig *r, const char *front, const char *back)
{
    const struct kind *k = r->kind;
    int rc;

    if ((rc = spoke_engine_open(&r->e[0], NULL)) != 0)
        return rc;
    r->e[1] = r->e[0];
    if (k->two_engines && (rc = spoke_engine_open(&r->e[1], NULL)) != 0)
        return rc;
    if ((rc = open_socket(&r->front, k->front, r->e[0])) != 0 ||
        (k->back != 0 && (rc = open_socket(&r->back, k->back, r->e[1])) != 0) ||
        (rc = spoke_device_start(&r->d, r->front, r->back)) != 0)
        return rc;
    if ((rc = spoke_listen(r->front, front, NULL, 0)) != 0 ||
        (k->back != 0 && (rc = spoke_listen(r->back, back, NULL, 0)) != 0))
        return rc;
    if ((rc = open_socket(&r->from, k->from, r->e[0])) != 0 ||
        (rc = open_socket(&r->to, k->to, r->e[1])) != 0 ||
        (rc = spoke_dial(r->from, front, NULL, 0)) != 0)
        return rc;
    return spoke_dial(r->to, k->back != 0 ? back : front, NULL, 0);
}

/* On failure nothing is left. */
static int
rig_open(struct rig *r, const struct kind *kind, const char *front, const char *back)
{
    memset(r, 0, sizeof *r);
    r->kind = kind;
    int rc = try_open(r, front, back);
    if (rc != 0)
        rig_close(r);
    return rc;
}

/* Receive without waiting until the message with this number comes: true. */
static bool
has_come(spoke_socket *s, uint32_t number, size_t size, spoke_msg **m)
{
    while (spoke_recv(s, m, SPOKE_DONTWAIT) == 0) {
        uint32_t found;

        cr_assert_geq(spoke_msg_size(*m), sizeof found);
        memcpy(&found, spoke_msg_body(*m), sizeof found);
        cr_assert_leq(found, number);
        if (found == number) {
            cr_assert_eq(spoke_msg_size(*m), size);
            return true;
        }
        spoke_msg_free(*m); /* of an exchange that failed */
    }
    return false;
}

/* What may be lost is waited for a short time. */
static bool
arrives(struct rig *r, spoke_socket *s, size_t size, spoke_msg **m)
{
    spoke_ns start = spoke_engine_now(r->e[0]);

    while (spoke_engine_now(r->e[0]) - start < (shortage_fired ? HASTE : PATIENCE)) {
        if (has_come(s, r->number, size, m))
            return true;
        drive(r);
    }
    return false;
}

/* One message through the device, and its reply back.  False if one of them has not come. */
static bool
exchange(struct rig *r, size_t size)
{
    spoke_msg *m;

    r->number++;
    if (spoke_msg_new(&m, size) != 0)
        return false;
    memset(spoke_msg_body(m), 0, size);
    memcpy(spoke_msg_body(m), &r->number, sizeof r->number);
    if (spoke_send(r->from, m, SPOKE_DONTWAIT) != 0) {
        spoke_msg_free(m);
        return false;
    }
    if (!arrives(r, r->to, size, &m))
        return false;
    if (r->kind->to == SPOKE_REP) {
        if (spoke_send(r->to, m, SPOKE_DONTWAIT) != 0) {
            spoke_msg_free(m);
            return false;
        }
        if (!arrives(r, r->from, size, &m))
            return false;
    }
    spoke_msg_free(m);
    return true;
}

static void
recover(struct rig *r, size_t size, long n)
{
    spoke_ns end = spoke_engine_now(r->e[0]) + PATIENCE;
    bool fired = shortage_fired;

    shortage_fired = true; /* a BUS or STAR loses what it sends before it is connected */
    while (!exchange(r, size))
        cr_assert_lt(spoke_engine_now(r->e[0]), end, "after allocation %ld failed", n);
    shortage_fired = fired;
}

ParameterizedTestParameters(devices, a_failed_allocation_while_opening_leaves_nothing)
{
    return all_kinds();
}

ParameterizedTest(struct kind *k, devices, a_failed_allocation_while_opening_leaves_nothing)
{
    static struct resources before;
    char front[ENDPOINT_MAX], back[ENDPOINT_MAX];
    struct rig r;
    long failures = 0;

    endpoint_fresh(front, k->transport);
    endpoint_fresh(back, k->transport);
    resources_take(&before);
    shortage_fired = true;
    for (long n = 1; shortage_fired; n++) {
        cr_assert_lt(n, TOO_MANY);
        shortage_at(n);
        int rc = rig_open(&r, k, front, back);
        shortage_end();
        if (rc != 0) {
            cr_assert(shortage_fired && rc == SPOKE_ENOMEM, "allocation %ld: %s", n,
                      spoke_error_name(rc));
            failures++;
            cr_assert_eq(rig_open(&r, k, front, back), 0);
        }
        recover(&r, 100, n);
        rig_close(&r);
        resources_settle(&before);
    }
    cr_assert_gt(failures, 5, "it was not tried");
}

ParameterizedTestParameters(devices, a_failed_allocation_loses_at_most_what_is_on_its_way)
{
    return all_kinds();
}

ParameterizedTest(struct kind *k, devices, a_failed_allocation_loses_at_most_what_is_on_its_way)
{
    static const size_t sizes[] = {4, 130, 5000, 100000};
    static struct resources before;
    char front[ENDPOINT_MAX], back[ENDPOINT_MAX];
    struct rig r;
    long tried = 0;

    endpoint_fresh(front, k->transport);
    endpoint_fresh(back, k->transport);
    resources_take(&before);
    for (int i = 0; i < 4; i++) {
        cr_assert_eq(rig_open(&r, k, front, back), 0);
        recover(&r, sizes[i], 0);
        shortage_fired = true;
        for (long n = 1; shortage_fired; n++) {
            cr_assert_lt(n, TOO_MANY);
            shortage_at(n);
            bool came = exchange(&r, sizes[i]);
            shortage_end();
            tried += shortage_fired;
            cr_assert(came || shortage_fired,
                      "%zu bytes, allocation %ld: lost although none failed", sizes[i], n);
            recover(&r, sizes[i], n);
        }
        cr_assert_eq(spoke_device_stop(r.d, NULL), 0);
        rig_close(&r);
        resources_settle(&before);
    }
    cr_assert_geq(tried, 4, "it was not tried");
}
