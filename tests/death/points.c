/* SPDX-License-Identifier: MIT */
/* A peer dies (SIGKILL) at each point of runtime/core/stops.def, as listener and as dialer, as
 * sender and as receiver: whoever is left notices, serves others meanwhile, gets back what it had
 * lent, still reads what it was lent, and keeps nothing. */
#include "tests/support/test.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "runtime/core/core.h"
#include "runtime/core/shm.h"
#include "runtime/core/stop.h"
#include "tests/support/endpoints.h"
#include "tests/support/process.h"
#include "tests/support/resources.h"

#define PATIENCE (20 * SPOKE_SECOND * SPOKE_TEST_SLOWDOWN)
#define HELD     3   /* messages that each receiver keeps for a while */
#define LIVES    400 /* … of a peer, in which it must come to its point */

struct spk_stops *spk_stops;

enum { LISTENER = 1, DIALER = 2, SENDER = 4, RECEIVER = 8, EITHER = 15, STREAMER = 16 };

static const struct point {
    const char *name;
    int ends;
} points[] = {
#define SPK_STOP(Name, Ends) {#Name, Ends},
#include "runtime/core/stops.def"
#undef SPK_STOP
};

/* ---- messages that can be checked ---- */

struct stamp {
    uint32_t from, serial;
};

/* Small ones, in runs; one that is lent; one in pieces, as the segments here have no room for it.
 */
static const size_t sizes[] = {24, 25, 26, 1500, 6000, 40, 90000, 3000, 30000, 1000};
#define SIZES   ((uint32_t)(sizeof sizes / sizeof sizes[0]))
#define SEGMENT ((size_t)64 * 1024)

static spoke_msg *
new_message(uint32_t from, uint32_t serial)
{
    size_t size = sizes[serial % SIZES];
    struct stamp stamp = {from, serial};
    spoke_msg *m;

    if (spoke_msg_new(&m, size) != 0)
        return NULL;
    uint8_t *body = spoke_msg_body(m);
    memset(body, (int)(serial * 7 + from), size);
    memcpy(body, &stamp, sizeof stamp);
    return m;
}

static bool
is_sound(const spoke_msg *m, struct stamp *stamp)
{
    const uint8_t *body = spoke_msg_body(m);
    size_t size = spoke_msg_size(m);

    if (size < sizeof *stamp)
        return false;
    memcpy(stamp, body, sizeof *stamp);
    if (size != sizes[stamp->serial % SIZES])
        return false;
    for (size_t i = sizeof *stamp; i < size; i++)
        if (body[i] != (uint8_t)(stamp->serial * 7 + stamp->from))
            return false;
    return true;
}

static int
make_small(spoke_socket *s)
{
    int rc = spoke_socket_set_size(s, SPOKE_OPT_SHM_SEGMENT, SEGMENT);

    if (rc == 0)
        rc = spoke_socket_set_size(s, SPOKE_OPT_SHM_RING, 16 * 1024);
    if (rc == 0)
        rc = spoke_socket_set_duration(s, SPOKE_OPT_RECONNECT, SPOKE_MS);
    if (rc == 0)
        rc = spoke_socket_set_duration(s, SPOKE_OPT_LINGER, 20 * SPOKE_MS);
    return rc;
}

static void
nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
}

/* ---- the mortal peer ---- */

enum { HEALTHY = 1, MORTAL };

struct role {
    bool listens, sends, streams; /* the last: as PAIR, not PUSH */
};

struct job {
    struct role role;
    struct spk_stops *stops; /* memory of both processes */
    char url[ENDPOINT_MAX];
};

/* The peer is this program started anew, not a fork of it: that would have the locks of threads
 * which it lacks.  So its job is told in words; the memory is a file of its parent's. */
#define WORDS_MAX (ENDPOINT_MAX + 64)

static void
tell(char *words, const struct job *job, int stops_fd)
{
    int length = snprintf(words, WORDS_MAX, "%d %d %d /proc/%d/fd/%d %s", job->role.listens,
                          job->role.sends, job->role.streams, (int)getpid(), stops_fd, job->url);

    cr_assert(length > 0 && length < WORDS_MAX);
}

static struct spk_stops *
map_stops(int fd)
{
    void *memory = mmap(NULL, sizeof(struct spk_stops), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static void
understand(struct job *job, const char *words)
{
    int listens, sends, streams, start = 0;
    char path[64];

    CHILD_CHECK(sscanf(words, "%d %d %d %63s %n", &listens, &sends, &streams, path, &start) == 4);
    int length = snprintf(job->url, sizeof job->url, "%s", words + start);
    CHILD_CHECK(length > 0 && (size_t)length < sizeof job->url);
    job->role = (struct role){.listens = listens, .sends = sends, .streams = streams};
    int fd = open(path, O_RDWR | O_CLOEXEC);
    CHILD_CHECK(fd >= 0 && (job->stops = map_stops(fd)) != NULL);
    close(fd);
}

static void
speak(spoke_engine *e, spoke_socket *s, uint32_t *serial)
{
    struct spoke_stats stats;

    /* Some of it in shared memory, however long the other end takes to move there. */
    for (int round = 0, there = 0; round < 200 && there < 8; round++) {
        spoke_msg *some[SIZES];
        uint32_t sent = 0;

        CHILD_CHECK(spoke_socket_stats(s, &stats) == 0);
        there += stats.pipes_shared > 0;

        for (uint32_t i = 0; i < SIZES; i++)
            CHILD_CHECK((some[i] = new_message(MORTAL, (*serial)++)) != NULL);
        while (sent < SIZES) {
            int n = spoke_sendv(s, some + sent, (int)(SIZES - sent), 0);
            if (n <= 0)
                break;
            sent += (uint32_t)n;
        }
        for (; sent < SIZES; sent++)
            spoke_msg_free(some[sent]);
        CHILD_CHECK(spoke_engine_poll(e, SPOKE_MS) >= 0);
        nap(); /* the other end falls asleep */
    }
}

static void
hear(spoke_socket *s)
{
    spoke_msg *held[HELD] = {NULL};
    struct stamp stamp;

    for (int i = 0; i < 60; i++) {
        spoke_msg *m = NULL;
        if (spoke_recv(s, &m, 0) != 0)
            break;
        CHILD_CHECK(is_sound(m, &stamp));
        spoke_msg_free(held[i % HELD]);
        held[i % HELD] = m;
        if (i % 20 == 0)
            nap();
    }
    for (int i = 0; i < HELD; i++)
        spoke_msg_free(held[i]);
}

/* The kernel may still be taking apart who was killed on the same address a moment ago. */
static int
begin(spoke_socket *s, const struct job *job)
{
    int rc;

    if (!job->role.listens)
        return spoke_dial(s, job->url, NULL, 0);
    for (spoke_ns waited = 0;
         (rc = spoke_listen(s, job->url, NULL, 0)) == SPOKE_EADDRINUSE && waited < PATIENCE;
         waited += SPOKE_MS)
        nap();
    return rc;
}

static int
live_until_killed(const char *words)
{
    struct job job = {.stops = NULL};
    uint32_t serial = 0;
    spoke_engine *e;
    spoke_socket *s;

    understand(&job, words);
    spk_stops = job.stops;
    for (int life = 0; life < LIVES; life++) {
        CHILD_CHECK(spoke_engine_open(&e, NULL) == 0);
        CHILD_CHECK(spoke_socket_open(&s,
                                      job.role.streams ? SPOKE_PAIR
                                      : job.role.sends ? SPOKE_PUSH
                                                       : SPOKE_PULL,
                                      e) == 0);
        CHILD_CHECK(make_small(s) == 0);
        CHILD_CHECK(spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, SPOKE_SECOND) == 0);
        CHILD_CHECK(spoke_socket_set_duration(s, SPOKE_OPT_RECV_TIMEOUT, 200 * SPOKE_MS) == 0);
        CHILD_CHECK(begin(s, &job) == 0);
        if (job.role.sends)
            speak(e, s, &serial);
        else
            hear(s);
        (void)spoke_socket_close(s);
        CHILD_CHECK(spoke_engine_close(e) == 0);
    }
    return 0;
}

PROGRAM_ENTRY(mortal, live_until_killed)

/* ---- the survivor, and its healthy peer ---- */

struct survivor {
    struct role peer;
    spoke_socket *s, *healthy;
    spoke_socket *pair;     /* whom a streamer has, NULL: that is s too */
    char url[ENDPOINT_MAX]; /* where the healthy one dials */
    uint32_t serial;        /* of the sender among the two */
    pthread_mutex_t lock;   /* of what the callbacks write: */
    uint32_t heard;         /* whole, in order, from the healthy one; or by it */
    uint32_t last;
    int unsound, attached, detached;
    spoke_msg *held[HELD]; /* of the mortal one's */
};

static int
on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct survivor *v = ctx;

    (void)s;
    pthread_mutex_lock(&v->lock);
    /* Not ATTACHED: PAIR may refuse one who comes before the one before him is gone. */
    v->attached += event->type == SPOKE_EVENT_ATTACHING;
    v->detached += event->type == SPOKE_EVENT_DETACHED;
    pthread_mutex_unlock(&v->lock);
    return 0;
}

static void
on_message(spoke_socket *s, spoke_msg *m, void *ctx)
{
    struct survivor *v = ctx;
    struct stamp stamp;

    (void)s;
    pthread_mutex_lock(&v->lock);
    if (!is_sound(m, &stamp)) {
        v->unsound++;
    } else if (stamp.from == HEALTHY) {
        /* What a receiver gets of a sender who has others too has gaps. */
        v->unsound += v->peer.sends ? stamp.serial != v->last : stamp.serial < v->last;
        v->last = stamp.serial + 1;
        v->heard++;
    } else {
        spoke_msg **place = &v->held[stamp.serial % HELD];
        spoke_msg_free(*place);
        *place = m;
        m = NULL;
    }
    pthread_mutex_unlock(&v->lock);
    spoke_msg_free(m);
}

static void
survivor_open(struct survivor *v, struct role peer, const char *peer_url)
{
    memset(v, 0, sizeof *v);
    v->peer = peer;
    pthread_mutex_init(&v->lock, NULL);
    endpoint_fresh(v->url, IPC);
    cr_assert_eq(spoke_socket_open(&v->s, peer.sends ? SPOKE_PULL : SPOKE_PUSH, NULL), 0);
    cr_assert_eq(spoke_socket_open(&v->healthy, peer.sends ? SPOKE_PUSH : SPOKE_PULL, NULL), 0);
    for (int i = 0; i < 2; i++) {
        spoke_socket *s = i == 0 ? v->s : v->healthy;
        cr_assert_eq(make_small(s), 0);
        cr_assert_eq(spoke_socket_set_duration(s, SPOKE_OPT_SEND_TIMEOUT, PATIENCE), 0);
    }
    cr_assert_eq(spoke_socket_set_duration(v->healthy, SPOKE_OPT_LINGER, PATIENCE), 0);
    cr_assert_eq(spoke_socket_on_event(v->s, on_event, v), 0);
    cr_assert_eq(spoke_socket_on_message(peer.sends ? v->s : v->healthy, on_message, v), 0);
    cr_assert_eq(spoke_listen(v->s, v->url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(v->healthy, v->url, NULL, SPOKE_WAIT_FIRST), 0);
    if (peer.streams) {
        cr_assert_eq(spoke_socket_open(&v->pair, SPOKE_PAIR, NULL), 0);
        cr_assert_eq(make_small(v->pair), 0);
        cr_assert_eq(spoke_socket_on_event(v->pair, on_event, v), 0);
        cr_assert_eq(spoke_socket_on_message(v->pair, on_message, v), 0);
    }
    spoke_socket *meets = peer.streams ? v->pair : v->s;
    int rc = peer.listens ? spoke_dial(meets, peer_url, NULL, 0)
                          : spoke_listen(meets, peer_url, NULL, 0);
    cr_assert_eq(rc, 0, "%s", spoke_error_name(rc));
}

static uint32_t
heard(struct survivor *v)
{
    pthread_mutex_lock(&v->lock);
    uint32_t n = v->heard;
    int unsound = v->unsound;
    pthread_mutex_unlock(&v->lock);
    cr_assert_eq(unsound, 0, "a message was damaged, or is missing");
    return n;
}

/* A few messages between the two that live. */
static void
exchange(struct survivor *v)
{
    spoke_socket *from = v->peer.sends ? v->healthy : v->s;

    for (uint32_t i = 0; i < SIZES; i++) {
        spoke_msg *m = new_message(HEALTHY, v->serial++);
        cr_assert_not_null(m);
        int rc = spoke_send(from, m, 0);
        cr_assert_eq(rc, 0, "the healthy peer is not served: %s", spoke_error_name(rc));
    }
}

/* … and some that must have come. */
static void
check_served(struct survivor *v)
{
    uint32_t before = heard(v);

    for (spoke_ns waited = 0; heard(v) - before < SIZES; waited += SPOKE_MS) {
        cr_assert_lt(waited, PATIENCE, "the healthy peer is not served");
        if (v->peer.sends ? waited == 0 : v->serial < 2000000)
            exchange(v);
        nap();
    }
}

static struct spoke_stats
stats_of(spoke_socket *s)
{
    struct spoke_stats stats;

    cr_assert_eq(spoke_socket_stats(s, &stats), 0);
    return stats;
}

static size_t
lent_by(spoke_socket *handle)
{
    struct spk_segment_stats stats = {0};
    struct spk_engine *e;
    void *object;

    cr_assert_eq(spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, &e), 0);
    if (((struct spk_socket *)object)->shm != NULL)
        spk_shm_home_stats(((struct spk_socket *)object)->shm, &stats);
    spk_engine_leave(e);
    return stats.used;
}

static void
await_alone(struct survivor *v, const char *where)
{
    bool alone = false;

    for (spoke_ns waited = 0; !alone; waited += SPOKE_MS) {
        cr_assert_lt(waited, PATIENCE, "%s: the dead one is still there", where);
        pthread_mutex_lock(&v->lock);
        alone = v->attached == v->detached + 1;
        pthread_mutex_unlock(&v->lock);
        alone = alone && stats_of(v->s).pipes_current == 1 &&
                (v->pair == NULL || stats_of(v->pair).pipes_current == 0);
        if (!alone)
            nap();
    }
}

static int
drop_held(struct survivor *v)
{
    struct stamp stamp;
    int unsound = 0;

    pthread_mutex_lock(&v->lock);
    for (int i = 0; i < HELD; i++) {
        unsound += v->held[i] != NULL && !is_sound(v->held[i], &stamp);
        spoke_msg_free(v->held[i]);
        v->held[i] = NULL;
    }
    pthread_mutex_unlock(&v->lock);
    return unsound;
}

static void
check_nothing_lent(struct survivor *v, const char *where)
{
    for (spoke_ns waited = 0; lent_by(v->s) + lent_by(v->healthy) > 0; waited += SPOKE_MS) {
        cr_assert_lt(waited, PATIENCE, "%s: %zu and %zu bytes are still lent", where, lent_by(v->s),
                     lent_by(v->healthy));
        nap();
    }
}

static void
survivor_close(struct survivor *v)
{
    cr_assert_eq(drop_held(v), 0);
    cr_assert_eq(spoke_socket_close(v->healthy), 0);
    if (v->pair != NULL)
        cr_assert_eq(spoke_socket_close(v->pair), 0);
    (void)spoke_socket_close(v->s); /* what the dead one was to have may be left */
    cr_assert_eq(drop_held(v), 0);
    pthread_mutex_destroy(&v->lock);
}

static int
count_mappings(void)
{
    char line[512];
    int count = 0;
    FILE *maps = fopen("/proc/self/maps", "re");

    cr_assert_not_null(maps);
    while (fgets(line, sizeof line, maps) != NULL)
        count += strstr(line, "memfd:spoke") != NULL;
    fclose(maps);
    return count;
}

/* ---- all of them ---- */

static bool
gets_there(const struct point *point, struct role role)
{
    if (role.streams)
        return point->ends == STREAMER;
    return (point->ends & (role.listens ? LISTENER : DIALER)) != 0 ||
           (point->ends & (role.sends ? SENDER : RECEIVER)) != 0;
}

static const char *
what_it_does(struct role role)
{
    return role.streams ? "streamer" : role.sends ? "sender" : "receiver";
}

/* One death. */
static void
die_at(struct survivor *v, const struct job *job, const char *telling, unsigned point, unsigned hit)
{
    char where[80];
    int status = 0;
    pid_t child, done;

    snprintf(where, sizeof where, "%s, %s, at %s, time %u",
             job->role.listens ? "listener" : "dialer", what_it_does(job->role), points[point].name,
             hit);
    memset(job->stops, 0, sizeof *job->stops);
    job->stops->point = point;
    job->stops->at = hit;
    child = program_start("mortal", telling);
    for (spoke_ns waited = 0; (done = waitpid(child, &status, WNOHANG)) == 0; waited += SPOKE_MS) {
        if (waited >= PATIENCE)
            child_kill(child);
        cr_assert_lt(waited, PATIENCE, "%s: it never got there", where);
        if (!job->role.sends || waited % (16 * SPOKE_MS) == 0)
            exchange(v);
        nap();
    }
    cr_assert(done == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL,
              "%s: it never got there", where);
    cr_assert_eq(atomic_load(&job->stops->hits[point]), hit);
    await_alone(v, where);
    check_served(v);
    cr_assert_eq(drop_held(v), 0, "%s: what it had lent has changed", where);
    check_nothing_lent(v, where);
    heard(v);
}

ParameterizedTestParameters(death, at_every_point)
{
    static struct role all[] = {{.sends = false},
                                {.sends = true},
                                {.listens = true, .sends = false},
                                {.listens = true, .sends = true},
                                {.sends = true, .streams = true},
                                {.listens = true, .sends = true, .streams = true}};

    return (struct criterion_test_params){
        .size = sizeof all[0], .params = all, .length = sizeof all / sizeof all[0]};
}

ParameterizedTest(struct role *role, death, at_every_point)
{
    static const unsigned hits[] = {1, 2, 5};
    static struct resources before;
    struct survivor v;
    struct job job = {.role = *role};
    char telling[WORDS_MAX];
    int kills = 0, reached = 0, stops_fd;

    endpoint_fresh(job.url, IPC);
    stops_fd = memfd_create("stops", MFD_CLOEXEC);
    cr_assert(stops_fd >= 0 && ftruncate(stops_fd, sizeof *job.stops) == 0);
    cr_assert_not_null((job.stops = map_stops(stops_fd)));
    tell(telling, &job, stops_fd);
    for (int round = 0; round < 2; round++) { /* the first is only to get warm */
        resources_take(&before);
        survivor_open(&v, *role, job.url);
        check_served(&v);
        for (unsigned point = 0; point < SPK_STOPS; point++) {
            if (!gets_there(&points[point], *role))
                continue;
            reached += round;
            for (unsigned i = 0; i < sizeof hits / sizeof hits[0]; i++, kills += round)
                die_at(&v, &job, telling, point, hits[i]);
            if (round == 0)
                break;
        }
        survivor_close(&v);
        unlink(endpoint_path(job.url)); /* the dead left it */
    }
    resources_settle(&before);
    cr_assert_eq(count_mappings(), 0);
    munmap(job.stops, sizeof *job.stops);
    close(stops_fd);
    fprintf(stderr, "death: %s, %s: %d points of %d, %d kills\n",
            role->listens ? "listener" : "dialer", what_it_does(*role), reached, SPK_STOPS, kills);
}
