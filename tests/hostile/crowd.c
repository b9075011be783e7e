/* SPDX-License-Identifier: MIT */
/* Many connections at once, and more than there are descriptors. */
#include "tests/hostile/victim.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/echo.h"
#include "tests/support/process.h"

#define PATIENCE_MS (10000 * SPOKE_TEST_SLOWDOWN)

/* How many connections this process can hold with both ends in it. */
static int
crowd_size(void)
{
    struct rlimit limit;

    cr_assert_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    long fits = ((long)limit.rlim_cur - 500) / 2;
    return fits < 10000 ? (int)fits : 10000;
}

/* 10 000 that connect and say nothing, as many at a time as there are descriptors for. */
HOSTILE_TEST(crowd, ten_thousand_silent_connections_are_in_nobodys_way)
{
    enum { ALL = 10000 };
    struct victim v;
    int batch = crowd_size();
    struct raw_peer *silent = calloc((size_t)batch, sizeof *silent);
    int done = 0;

    if (batch > ALL / 2)
        batch = ALL / 2;
    victim_open(&v, *t);
    while (done < ALL) {
        int count = ALL - done < batch ? ALL - done : batch;
        for (int i = 0; i < count; i++) {
            int rc = raw_connect(&silent[i], v.url, RAW_LIMIT_MS);
            cr_assert_eq(rc, RAW_OK, "connection %d: %d, %s", done + i, rc, strerror(errno));
            if (i % 500 == 0)
                victim_check(&v);
        }
        victim_await(&v, accepts, (uint64_t)(done + count + 1));
        for (int i = 0; i < 20; i++)
            victim_check(&v);
        for (int i = 0; i < count; i++)
            raw_close(&silent[i]);
        done += count;
    }
    cr_assert_eq(victim_stats(&v).pipes_attached, 1);
    victim_close(&v);
    free(silent);
}

HOSTILE_TEST(crowd, idle_peers_cost_little_memory)
{
    enum { PEERS = 1000 };
    struct victim v;
    static struct raw_peer peers[PEERS];

    victim_open(&v, *t);
    if (crowd_size() < PEERS)
        cr_skip("too few descriptors");
    long resident = resources_resident_kib();
    for (uint32_t i = 0; i < PEERS; i++)
        victim_meet(&v, &peers[i]);
    victim_await(&v, pipes_current, PEERS + 1);
    victim_check(&v);
    long each = (resources_resident_kib() - resident) * 1024 / PEERS;
    cr_assert_lt(each, 16 * 1024 * SPOKE_TEST_SLOWDOWN, "%ld bytes per idle peer", each);
    for (uint32_t i = 0; i < PEERS; i += 50)
        victim_ask(&peers[i], i);
    for (uint32_t i = 0; i < PEERS; i++)
        raw_close(&peers[i]);
    victim_close(&v);
}

HOSTILE_TEST(crowd, a_storm_of_short_connections_leaves_nothing)
{
    struct victim v;

    victim_open(&v, *t);
    for (uint32_t i = 0; i < 2000; i++) {
        struct raw_peer p;
        if (i % 4 == 0) {
            victim_meet(&v, &p);
            victim_ask(&p, i);
        } else {
            cr_assert_eq(raw_connect(&p, v.url, RAW_LIMIT_MS), RAW_OK);
        }
        if (i % 2 == 0)
            raw_reset(&p);
        else
            raw_close(&p);
        if (i % 200 == 0)
            victim_check(&v);
    }
    victim_close(&v);
}

HOSTILE_TEST(crowd, max_pipes_is_a_bound_that_holds)
{
    enum { ALLOWED = 10, ASKING = 50 };
    struct victim v;
    struct raw_peer peers[ASKING];
    int alive = 0;

    victim_open(&v, *t);
    cr_assert_eq(spoke_socket_set_int(v.rep, SPOKE_OPT_MAX_PIPES, ALLOWED + 1), 0);
    for (int i = 0; i < ASKING; i++) {
        cr_assert_eq(raw_connect(&peers[i], v.url, RAW_LIMIT_MS), RAW_OK);
        (void)raw_handshake(&peers[i], SPOKE_REQ, SPOKE_REP, RAW_LIMIT_MS);
    }
    victim_await(&v, refused, ASKING - ALLOWED);
    for (int tries = 0; tries == 0 || (tries < 1000 && alive > ALLOWED); tries++) {
        alive = 0; /* that somebody was refused is counted before it is seen */
        for (int i = 0; i < ASKING; i++)
            alive += raw_is_quiet(&peers[i], 1);
    }
    cr_assert_eq(alive, ALLOWED, "%d", alive);
    cr_assert_eq(victim_stats(&v).pipes_current, ALLOWED + 1);
    for (int i = 0; i < ASKING; i++)
        raw_close(&peers[i]);
    victim_close(&v);
}

/* ---- no descriptors left: in a child, whose limit is low ---- */

static void
nap(long ms)
{
    const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};

    nanosleep(&pause, NULL);
}

static int
count_no_descriptors(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s;
    if (event->type == SPOKE_EVENT_ACCEPT_FAILED && event->reason == SPOKE_EMFILE)
        atomic_fetch_add((atomic_int *)ctx, 1);
    return 0;
}

static bool
is_answered(spoke_socket *req)
{
    char buffer[8];
    size_t size = sizeof buffer;

    return spoke_send_bytes(req, "hello", 5, 0) == 0 &&
           spoke_recv_bytes(req, buffer, &size, 0) == 0 && size == 5;
}

static long
cpu_ms(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000 +
           (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1000;
}

/* Fill all descriptors but one, let a peer knock, and give the descriptors back. */
static int
run_out_of_descriptors(void *ctx)
{
    const char *url = ctx;
    const struct rlimit few = {.rlim_cur = 100, .rlim_max = 100};
    spoke_socket *rep, *req, *late = NULL;
    struct spoke_stats stats = {0};
    struct spoke_listener_stats of_listener;
    spoke_listener *l;
    int fillers[100], count = 0;
    struct raw_peer guest;
    atomic_int told = 0;

    CHILD_CHECK(close_range(20, ~0u, 0) == 0);
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    CHILD_CHECK(spoke_socket_open(&rep, SPOKE_REP, NULL) == 0);
    CHILD_CHECK(spoke_socket_open(&req, SPOKE_REQ, NULL) == 0);
    CHILD_CHECK(spoke_socket_set_duration(req, SPOKE_OPT_RECV_TIMEOUT, 10 * SPOKE_SECOND) == 0);
    CHILD_CHECK(spoke_socket_on_message(rep, echo, NULL) == 0);
    CHILD_CHECK(spoke_socket_on_event(rep, count_no_descriptors, &told) == 0);
    CHILD_CHECK(spoke_listen(rep, url, &l, 0) == 0);
    CHILD_CHECK(spoke_dial(req, url, NULL, SPOKE_WAIT_FIRST) == 0);
    CHILD_CHECK(is_answered(req));

    int spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    CHILD_CHECK(spare >= 0);
    while ((fillers[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        count++;
    CHILD_CHECK(errno == EMFILE);
    close(spare);
    CHILD_CHECK(raw_connect(&guest, url, RAW_LIMIT_MS) == RAW_OK); /* our end is the last one */

    /* The library cannot accept: it says so, does not spin, and serves who is there. */
    for (int ms = 0; ms < PATIENCE_MS && stats.accepts_failed == 0; ms++) {
        CHILD_CHECK(spoke_socket_stats(rep, &stats) == 0);
        nap(1);
    }
    CHILD_CHECK(stats.accepts_failed > 0);
    CHILD_CHECK(spoke_listener_stats(l, &of_listener) == 0);
    CHILD_CHECK(of_listener.accepts_failed >= stats.accepts_failed);
    CHILD_CHECK(of_listener.last_error == SPOKE_EMFILE);
    CHILD_CHECK(is_answered(req));
    long before = cpu_ms();
    nap(300);
    CHILD_CHECK(cpu_ms() - before < 150);
    for (int ms = 0; ms < PATIENCE_MS && atomic_load(&told) == 0; ms++)
        nap(1);
    CHILD_CHECK(atomic_load(&told) > 0);
    CHILD_CHECK(is_answered(req));

    /* What needs a descriptor fails with a clear error, and leaves nothing. */
    CHILD_CHECK(spoke_socket_open(&late, SPOKE_REP, NULL) == 0 || late == NULL);
    if (late != NULL) {
        int rc = spoke_listen(late, "tcp://127.0.0.1:0", NULL, 0);
        CHILD_CHECK(rc == SPOKE_EMFILE);
        CHILD_CHECK(spoke_socket_close(late) == 0);
    }
    for (int i = 0; i < count; i++)
        close(fillers[i]);
    CHILD_CHECK(raw_handshake(&guest, SPOKE_REQ, SPOKE_REP, RAW_LIMIT_MS) == RAW_OK);
    CHILD_CHECK(is_answered(req));
    raw_close(&guest);
    CHILD_CHECK(spoke_socket_close(req) == 0);
    CHILD_CHECK(spoke_socket_close(rep) == 0);
    return 0;
}

HOSTILE_TEST(crowd, a_server_without_descriptors_recovers_when_there_are_some)
{
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, *t);
    cr_assert_eq(child_run(run_out_of_descriptors, url, 40), 0);
}

/* Each number of free descriptors from none on: opening things fails cleanly or works. */
static int
open_with_few_descriptors(void *ctx)
{
    for (rlim_t allowed = 3; allowed < 30; allowed++) {
        spoke_engine *e = NULL;
        spoke_socket *a = NULL, *b = NULL;
        const struct rlimit few = {.rlim_cur = allowed, .rlim_max = 1000};
        CHILD_CHECK(close_range(3, ~0u, 0) == 0);
        CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
        int rc = spoke_engine_open(&e, NULL);
        if (rc == 0)
            rc = spoke_socket_open(&a, SPOKE_PAIR, e);
        if (rc == 0)
            rc = spoke_socket_open(&b, SPOKE_PAIR, e);
        if (rc == 0) /* who cannot accept lets a dialer wait for nothing */
            rc = spoke_socket_set_duration(b, SPOKE_OPT_HANDSHAKE_TIME,
                                           allowed < 29 ? 200 * SPOKE_MS : 20 * SPOKE_SECOND);
        if (rc == 0)
            rc = spoke_listen(a, ctx, NULL, 0);
        if (rc == 0)
            rc = spoke_dial(b, ctx, NULL, SPOKE_WAIT_FIRST);
        CHILD_CHECK(rc == 0 || rc == SPOKE_EMFILE || rc == SPOKE_ETIMEDOUT ||
                    rc == SPOKE_ECONNRESET);
        CHILD_CHECK(allowed < 29 || rc == 0);
        CHILD_CHECK(e == NULL || spoke_engine_close(e) == 0);
        /* Whatever was opened is closed again. */
        for (int fd = 3; fd < 40; fd++)
            CHILD_CHECK(fcntl(fd, F_GETFD) == -1);
    }
    return 0;
}

HOSTILE_TEST(crowd, with_few_descriptors_things_fail_cleanly)
{
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, *t);
    cr_assert_eq(child_run(open_with_few_descriptors, url, 40), 0);
}
