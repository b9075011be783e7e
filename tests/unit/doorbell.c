/* SPDX-License-Identifier: MIT */
/* Goal: no wake-up is ever lost, and no end is woken twice for one sleep.
 * Method: the real ring, as small as makes both ends sleep all the time, and a pipe as the bell,
 * used as runtime/core/shm.c does; between two threads, then between two processes, with pauses of
 * random length.  A wake-up that is lost shows as an end that waits for as long as only a failure
 * can take.
 *
 * SPOKE_SHM_WAKES=N sets the number of sleeps that end in a wait, and prints how long it took from
 * the ring of the bell to the first step of who was woken. */
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/core/shmring.h"
#include "tests/support/random.h"
#include "tests/support/test.h"

#define RING    1024u
#define LARGEST (RING / 4 - 8)
#define WAKES   50000 /* of each pair */
#define LOST_MS (60 * 1000 * SPOKE_TEST_SLOWDOWN)
#define LONG_NS 1000000 /* a delay that the machine's scheduler has to explain */
#define FOREVER 86400.0

TestSuite(doorbell, .timeout = 600);

/* What an end has done.  Only that end writes it. */
struct tally {
    _Atomic uint64_t waits; /* sleeps that ended in a wait for the bell */
    uint64_t sleeps, bells; /* bells that it has rung for the other end */
    uint64_t records, bytes;
    int64_t worst_ns;
    uint64_t long_waits, unexplained;
    const char *failure;
};

enum { WRITER, READER };

struct shared {
    struct spk_shm_half half[2];
    struct tally tally[2];
    _Atomic int64_t rung_at[2]; /* when that end's bell was rung last */
    _Atomic pid_t thread[2];
    uint8_t ring[RING];
};

struct end {
    struct shared *s;
    int me;
    int bell, their_bell;
    uint32_t rung;
    uint64_t wanted; /* waits of both */
    uint64_t random;
    bool measures;
    int runs_late[2]; /* descriptors, by end: how long the system let that thread wait for a CPU */
    struct spk_shm_writer w;
    struct spk_shm_reader r;
};

static int64_t
now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Mostly a few instructions; sometimes the CPU is left to others. */
static void
pause_a_little(struct end *e)
{
    uint64_t n = random_next(&e->random);

    if (n % 64 == 0)
        sched_yield();
    for (uint64_t i = (n >> 8) % (n % 8 == 0 ? 4000 : 100); i > 0; i--)
        __asm__ volatile("" ::: "memory");
}

/* Each end on a CPU of its own, if there are two: on one they would hardly ever meet. */
static void
take_cpu(const struct end *e)
{
    cpu_set_t allowed, mine;
    int nth = 0;

    CPU_ZERO(&mine);
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2)
        return;
    for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++)
        if (CPU_ISSET(cpu, &allowed) && nth++ == e->me)
            CPU_SET(cpu, &mine);
    (void)sched_setaffinity(0, sizeof mine, &mine);
}

/* ---- what the scheduler has to answer for ---- */

static int64_t
late_ns(struct end *e)
{
    int64_t sum = 0;

    for (int i = 0; e->measures && i < 2; i++) {
        char path[64], text[128];
        long long runs, late;
        ssize_t n;

        if (e->runs_late[i] < 0 && atomic_load(&e->s->thread[i]) != 0) {
            snprintf(path, sizeof path, "/proc/%d/schedstat", (int)atomic_load(&e->s->thread[i]));
            e->runs_late[i] = open(path, O_RDONLY | O_CLOEXEC);
        }
        if (e->runs_late[i] >= 0 && (n = pread(e->runs_late[i], text, sizeof text - 1, 0)) > 0) {
            text[n] = '\0';
            if (sscanf(text, "%lld %lld", &runs, &late) == 2)
                sum += late;
        }
    }
    return sum;
}

/* `since`: a bell that was rung before is of an earlier sleep, which ended without it. */
static void
note_delay(struct end *e, int64_t since, int64_t late_before)
{
    struct tally *t = &e->s->tally[e->me];
    int64_t rung_at = atomic_load_explicit(&e->s->rung_at[e->me], memory_order_relaxed);
    int64_t delay = now_ns() - (rung_at > since ? rung_at : since);

    if (delay > t->worst_ns)
        t->worst_ns = delay;
    if (delay < LONG_NS)
        return;
    t->long_waits++;
    t->unexplained += delay - (late_ns(e) - late_before) >= LONG_NS;
}

/* ---- sleeping and waking, as in runtime/core/shm.c ---- */

static void
ring_bell(struct end *e, uint32_t what)
{
    if (!spk_shm_must_ring(&e->s->half[!e->me], what, &e->rung))
        return;
    e->s->tally[e->me].bells++;
    atomic_store_explicit(&e->s->rung_at[!e->me], now_ns(), memory_order_relaxed);
    if (write(e->their_bell, "", 1) != 1)
        e->s->tally[e->me].failure = "the bell is full: it was rung far too often";
}

static bool
has_room(const struct end *e)
{
    uint64_t head = atomic_load_explicit(&e->s->half[READER].head, memory_order_acquire);

    return e->w.size - (e->w.at - head) >= e->w.size / 2;
}

static bool
something_came(const struct end *e)
{
    return spk_shm_has_record(&e->r) ||
           atomic_load_explicit(&e->s->half[WRITER].closed, memory_order_acquire) != 0;
}

/* False: the wake-up was lost. */
static bool
wait_for_bell(struct end *e)
{
    struct tally *t = &e->s->tally[e->me];
    struct pollfd fd = {.fd = e->bell, .events = POLLIN};
    char rings[256];

    if (poll(&fd, 1, LOST_MS) != 1 || read(e->bell, rings, sizeof rings) < 1) {
        t->failure = e->me == WRITER ? "the writer was not woken" : "the reader was not woken";
        return false;
    }
    atomic_store_explicit(&t->waits, t->waits + 1, memory_order_relaxed);
    return true;
}

static bool
sleep_until(struct end *e, uint32_t wants, bool (*came)(const struct end *))
{
    int64_t late_before = late_ns(e), since = now_ns();
    bool fine = true;

    pause_a_little(e); /* the other end is to act between any two of the next steps */
    e->s->tally[e->me].sleeps++;
    spk_shm_fall_asleep(&e->s->half[e->me], wants);
    if (!came(e) && (fine = wait_for_bell(e)))
        note_delay(e, since, late_before);
    spk_shm_wake_up(&e->s->half[e->me]);
    return fine;
}

/* ---- the two ends; what is in a record follows from its number ---- */

static uint32_t
size_of(uint64_t number)
{
    uint64_t state = number * 0x9e3779b97f4a7c15 + 1;

    return random_below(&state, number % 16 == 0 ? LARGEST + 1 : 48);
}

static bool
put(struct end *e, uint64_t number)
{
    uint32_t size = size_of(number);
    uint8_t *room = spk_shm_reserve(&e->w, size);

    if (room == NULL && spk_shm_look(&e->w) == 0)
        room = spk_shm_reserve(&e->w, size);
    if (room == NULL)
        return false;
    memset(room, (int)(number & 0xff), size);
    spk_shm_commit(&e->w, 1 + (uint32_t)(number & 0xffff), size);
    return true;
}

static void *
write_all(void *ctx)
{
    struct end *e = ctx;
    struct shared *s = e->s;

    atomic_store(&s->thread[WRITER], gettid());
    take_cpu(e);
    for (uint64_t number = 0; s->tally[WRITER].failure == NULL; number++) {
        if (number % 16 == 0 &&
            atomic_load_explicit(&s->tally[WRITER].waits, memory_order_relaxed) +
                    atomic_load_explicit(&s->tally[READER].waits, memory_order_relaxed) >=
                e->wanted)
            break;
        while (!put(e, number))
            if (!sleep_until(e, SPK_SHM_ROOM, has_room))
                break;
        spk_shm_publish(&e->w);
        ring_bell(e, SPK_SHM_RECORDS);
        s->tally[WRITER].records = number + 1;
        pause_a_little(e);
    }
    atomic_store_explicit(&s->half[WRITER].closed, 1, memory_order_release);
    ring_bell(e, SPK_SHM_RECORDS);
    return NULL;
}

static bool
is_record(const struct spk_shm_record *record, uint64_t number)
{
    if (record->size != size_of(number) || record->kind != 1 + (number & 0xffff))
        return false;
    for (uint32_t i = 0; i < record->size; i++)
        if (record->data[i] != (number & 0xff))
            return false;
    return true;
}

static void
take_all(struct end *e)
{
    struct tally *t = &e->s->tally[READER];
    struct spk_shm_record record;
    int rc;

    while ((rc = spk_shm_next(&e->r, &record)) == 1) {
        if (!is_record(&record, t->records))
            t->failure = "a record is not what was written";
        t->records++;
        t->bytes += record.size;
        spk_shm_take(&e->r, &record);
        pause_a_little(e);
        if (t->records % 8 == 0)
            break;
    }
    if (rc < 0)
        t->failure = "the ring is broken";
    spk_shm_release(&e->r);
    if (e->r.seen_tail - e->r.at <= e->r.size / 2)
        ring_bell(e, SPK_SHM_ROOM);
}

static void *
read_all(void *ctx)
{
    struct end *e = ctx;
    struct shared *s = e->s;

    atomic_store(&s->thread[READER], gettid());
    take_cpu(e);
    while (s->tally[READER].failure == NULL) {
        bool last = atomic_load_explicit(&s->half[WRITER].closed, memory_order_acquire) != 0;

        take_all(e);
        if (spk_shm_has_record(&e->r))
            continue;
        if (last)
            break;
        sleep_until(e, SPK_SHM_RECORDS, something_came);
    }
    return NULL;
}

/* ---- the tests ---- */

static struct shared *
open_ends(struct end ends[2])
{
    const char *text = getenv("SPOKE_SHM_WAKES");
    uint64_t wanted = text != NULL ? strtoull(text, NULL, 10) : TEST_REPEATS(WAKES);
    struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                            0);
    int bells[2][2];

    cr_assert_neq(s, MAP_FAILED);
    cr_assert_gt(wanted, 0);
    for (int i = 0; i < 2; i++)
        cr_assert_eq(pipe2(bells[i], O_CLOEXEC | O_NONBLOCK), 0);
    for (int i = 0; i < 2; i++)
        ends[i] = (struct end){.s = s,
                               .me = i,
                               .bell = bells[i][0],
                               .their_bell = bells[!i][1],
                               .wanted = wanted,
                               .random = 4711 + (uint64_t)i,
                               .measures = text != NULL,
                               .runs_late = {-1, -1}};
    ends[WRITER].w = (struct spk_shm_writer){.mine = &s->half[WRITER],
                                             .theirs = &s->half[READER],
                                             .ring = s->ring,
                                             .size = RING,
                                             .exists = RING};
    ends[READER].r = (struct spk_shm_reader){
        .mine = &s->half[READER], .theirs = &s->half[WRITER], .ring = s->ring, .size = RING};
    return s;
}

static void
check(const struct end *ends, int64_t started)
{
    struct tally *t = ends[0].s->tally;
    double seconds = (double)(now_ns() - started) / 1e9;

    for (int i = 0; i < 2; i++) {
        cr_expect_null(t[i].failure, "%s", t[i].failure);
        cr_expect_leq(t[i].bells, t[!i].sleeps);
        cr_expect_gt(t[i].waits, 0); /* both had to wait, or little was tested */
    }
    cr_expect_eq(t[READER].records, t[WRITER].records);
    cr_expect_geq(t[WRITER].waits + t[READER].waits, ends[0].wanted);
    for (int i = 0; ends[0].measures && i < 2; i++)
        fprintf(stderr,
                "%s: %llu waits, %llu sleeps, %llu bells for them, %llu records, %.0f s; longest "
                "delay %.3f ms, %llu of 1 ms or more, %llu of these not the scheduler's\n",
                i == WRITER ? "writer" : "reader", (unsigned long long)t[i].waits,
                (unsigned long long)t[i].sleeps, (unsigned long long)t[!i].bells,
                (unsigned long long)t[i].records, seconds, (double)t[i].worst_ns / 1e6,
                (unsigned long long)t[i].long_waits, (unsigned long long)t[i].unexplained);
}

Test(doorbell, wakes_a_thread_for_each_sleep, .timeout = FOREVER)
{
    struct end ends[2];
    int64_t started = now_ns();
    pthread_t reader;

    open_ends(ends);
    cr_assert_eq(pthread_create(&reader, NULL, read_all, &ends[READER]), 0);
    write_all(&ends[WRITER]);
    cr_assert_eq(pthread_join(reader, NULL), 0);
    check(ends, started);
}

Test(doorbell, wakes_a_process_for_each_sleep, .timeout = FOREVER)
{
    struct end ends[2];
    int64_t started = now_ns();
    int status;
    pid_t child;

    open_ends(ends);
    cr_assert_geq(child = fork(), 0);
    if (child == 0) {
        read_all(&ends[READER]);
        _exit(0);
    }
    write_all(&ends[WRITER]);
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert_eq(status, 0);
    check(ends, started);
}
