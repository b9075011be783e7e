/* SPDX-License-Identifier: MIT */
/* The pools: what they keep, what they give back, and what happens when threads come, go and free
 * each other's memory.  Under a sanitizer the pools keep nothing; what is left of the promises is
 * tested there too. */
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/memory/local.h"
#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"
#include "tests/support/test.h"

#define MIB ((size_t)1 << 20)

/* What one class of one pool may keep, and a little for the other classes that a test touches. */
#define KEPT_BYTES_MAX (4 * MIB)

#ifdef SPOKE_SYSTEM_POOLS
static const bool pooling = false;
#else
static const bool pooling = true;
#endif

static struct spoke_memory_stats
stats_now(void)
{
    struct spoke_memory_stats stats;

    spoke_memory_stats(&stats);
    return stats;
}

static void
run_thread(void *(*fn)(void *), void *ctx)
{
    pthread_t thread;

    cr_assert_eq(pthread_create(&thread, NULL, fn, ctx), 0);
    cr_assert_eq(pthread_join(thread, NULL), 0);
}

/* ---- one thread ---- */

Test(pool, blocks_are_aligned_and_as_large_as_promised)
{
    for (size_t size = 0; size < 3 * MIB; size = size * 9 / 8 + 1) {
        size_t usable = spk_pool_size(size);
        uint8_t *block = spk_pool_alloc(size);
        cr_assert_not_null(block);
        cr_expect_geq(usable, size);
        cr_expect_eq((uintptr_t)block % 16, 0);
        memset(block, 0x5a, usable);
        spk_pool_free(block);
    }
}

Test(pool, classes_are_tight)
{
    for (size_t size = 1; size < 2 * MIB; size += size / 100 + 1) {
        size_t total = size + sizeof(struct spk_block);
        size_t block = spk_pool_size(size) + sizeof(struct spk_block);
        cr_assert_leq(block, total <= 64 ? 64 : total * 8 / 5, "%zu bytes", size);
        uint32_t size_class = spk_size_class(size);
        if (size_class > 0 && size_class < SPK_SIZE_CLASSES)
            cr_assert_gt(total, spk_class_bytes(size_class - 1), "%zu bytes", size);
    }
    cr_expect_eq(spk_size_class(SIZE_MAX), SPK_SIZE_CLASSES);
}

Test(pool, impossible_sizes_are_refused)
{
    cr_expect_null(spk_pool_alloc(SIZE_MAX));
    cr_expect_null(spk_pool_alloc(SIZE_MAX - 20));
    cr_expect_null(spk_chunk_new(SIZE_MAX));
    cr_expect_null(spk_chunk_new(SIZE_MAX - 40));
    cr_expect_eq(stats_now().chunks, 0);
}

Test(pool, long_lived_memory_is_zeroed_grows_and_copies_text)
{
    uint8_t *bytes = spk_zalloc(1000);

    cr_assert_not_null(bytes);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(bytes[i], 0);
    memset(bytes, 7, 1000);
    bytes = spk_realloc(bytes, 100000);
    cr_assert_not_null(bytes);
    for (int i = 0; i < 1000; i++)
        cr_assert_eq(bytes[i], 7);
    spk_free(bytes);
    bytes = spk_realloc(NULL, 10);
    cr_assert_not_null(bytes);
    spk_free(bytes);
    bytes = spk_zalloc(0);
    cr_assert_not_null(bytes);
    spk_free(bytes);
    char *text = spk_strdup("text");
    cr_assert_str_eq(text, "text");
    spk_free(text);
    spk_free(NULL);
    spk_pool_free(NULL);
}

Test(pool, after_warming_up_nothing_more_is_asked_from_the_allocator)
{
    static const size_t sizes[] = {16, 200, 280, 1100, 70000};
    void *blocks[5][30];
    uint64_t warm = 0;

    for (int round = 0; round < 2000; round++) {
        for (int i = 0; i < 5 * 30; i++)
            cr_assert_not_null(blocks[i / 30][i % 30] = spk_pool_alloc(sizes[i / 30]));
        for (int i = 0; i < 5 * 30; i++)
            spk_pool_free(blocks[i / 30][i % 30]);
        if (round == 0)
            warm = stats_now().system_allocs;
    }
    cr_expect_eq(warm, 5 * 30);
    if (pooling)
        cr_expect_eq(stats_now().system_allocs, warm);
}

Test(pool, a_burst_is_kept_only_up_to_a_bound)
{
    enum { COUNT = 60000 };
    void **blocks = calloc(COUNT, sizeof *blocks);

    cr_assert_not_null(blocks);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < COUNT; i++)
            cr_assert_not_null(blocks[i] = spk_pool_alloc(300));
        for (int i = 0; i < COUNT; i++)
            spk_pool_free(blocks[i]);
        uint64_t idle = stats_now().idle_bytes;
        cr_expect_leq(idle, KEPT_BYTES_MAX);
        if (pooling)
            cr_expect_geq(idle, MIB);
        else
            cr_expect_eq(idle, 0);
    }
    free(blocks);
}

Test(pool, every_class_is_bounded)
{
    void *blocks[2000];

    for (size_t size = 1; size < 2 * MIB; size = size * 5 / 4 + 1) {
        uint64_t before = stats_now().idle_bytes;
        size_t count = 16 * MIB / size < 2000 ? 16 * MIB / size : 2000;
        for (size_t i = 0; i < count; i++)
            cr_assert_not_null(blocks[i] = spk_pool_alloc(size));
        for (size_t i = 0; i < count; i++)
            spk_pool_free(blocks[i]);
        cr_expect_leq(stats_now().idle_bytes, before + 5 * MIB, "%zu bytes", size);
    }
}

Test(pool, blocks_above_the_largest_class_are_not_kept)
{
    void *block = spk_pool_alloc(4 * MIB);

    cr_assert_not_null(block);
    spk_pool_free(block);
    cr_expect_eq(stats_now().idle_bytes, 0);
}

Test(pool, counts_follow_messages_and_chunks)
{
    spoke_msg *small, *large;
    struct spk_chunk *chunk = spk_chunk_new(1000), *wrapped = spk_chunk_wrap(&small, 8, NULL, NULL);

    cr_assert_eq(spoke_msg_new(&small, 10), 0);
    cr_assert_eq(spoke_msg_new(&large, 100000), 0);
    cr_assert_not_null(chunk);
    cr_assert_not_null(wrapped);
    struct spoke_memory_stats stats = stats_now();
    cr_expect_eq(stats.messages, 2);
    cr_expect_eq(stats.chunks, 3);
    cr_expect_eq(stats.chunk_bytes, chunk->size + large->chunk->size, "not the caller's own bytes");
    cr_expect_eq(stats.system_allocs, 5);
    spoke_msg_free(small);
    spoke_msg_free(large);
    spk_chunk_unref(chunk);
    spk_chunk_unref(wrapped);
    stats = stats_now();
    cr_expect_eq(stats.messages, 0);
    cr_expect_eq(stats.chunks, 0);
    cr_expect_eq(stats.chunk_bytes, 0);
    cr_expect_eq(stats.foreign_frees, 0);
}

Test(pool, long_headers_are_counted_too)
{
    static const char zeros[SPOKE_HEADER_MAX];
    spoke_msg *m, *copy;

    cr_assert_eq(spoke_msg_new(&m, 10), 0);
    cr_assert_eq(spoke_msg_header_append(m, zeros, 64), 0);
    cr_expect_eq(stats_now().others, 0, "it lies in the message");
    cr_assert_eq(spoke_msg_header_append(m, zeros, 4), 0);
    cr_expect_eq(stats_now().others, 1);
    copy = spoke_msg_dup(m);
    cr_assert_eq(spoke_msg_make_unique(&copy), 0);
    cr_expect_eq(stats_now().others, 2);
    spoke_msg_free(copy);
    spoke_msg_free(m);
    cr_expect_eq(stats_now().others, 0);
}

/* ---- failing on purpose ---- */

static bool
allocate(int how)
{
    void *memory;

    switch (how) {
    case 0: memory = spk_zalloc(10); break;
    case 1: memory = spk_realloc(NULL, 10); break;
    case 2: memory = spk_strdup("text"); break;
    default: memory = spk_pool_alloc(how == 3 ? 10 : 5 * MIB);
    }
    if (how < 3)
        spk_free(memory);
    else
        spk_pool_free(memory);
    return memory != NULL;
}

Test(pool, the_nth_allocation_fails_of_whatever_kind_and_then_all_work)
{
    for (int how = 0; how < 5; how++) {
        for (int n = 1; n < 50; n++) {
            cr_assert(allocate(how)); /* so that a free block is at hand, which must not matter */
            spk_memory_fail_after((uint64_t)n);
            for (int i = 1; i < 60; i++)
                cr_assert_eq(allocate(how), i != n, "allocation %d of %d", i, n);
        }
    }
}

Test(pool, the_failure_can_be_called_off)
{
    spk_memory_fail_after(1);
    spk_memory_fail_after(0);
    for (int how = 0; how < 5; how++)
        cr_expect(allocate(how));
}

static bool
every_third(void *ctx)
{
    return ++*(int *)ctx % 3 == 0;
}

Test(pool, the_fault_function_decides_about_every_allocation)
{
    int asked = 0;

    spk_memory_set_fault(every_third, &asked);
    for (int i = 1; i <= 300; i++)
        cr_assert_eq(allocate(i % 5), i % 3 != 0);
    cr_expect_eq(asked, 300);
    spk_memory_set_fault(NULL, NULL);
    for (int i = 0; i < 300; i++)
        cr_assert(allocate(i % 5));
    cr_expect_eq(asked, 300);
}

Test(pool, a_failed_realloc_leaves_the_memory)
{
    char *text = spk_strdup("text");

    spk_memory_fail_after(1);
    cr_expect_null(spk_realloc(text, 100000));
    cr_expect_str_eq(text, "text");
    spk_free(text);
}

/* ---- two threads ---- */

#define TRAIN 1000

static void *train[TRAIN];

static void
allocate_train(size_t size)
{
    for (int i = 0; i < TRAIN; i++) {
        cr_assert_not_null(train[i] = spk_pool_alloc(size));
        memset(train[i], i, size);
    }
}

/* Without a flush: the end of the thread must do. */
static void *
free_train(void *unused)
{
    (void)unused;
    for (int i = 0; i < TRAIN; i++)
        spk_pool_free(train[i]);
    return NULL;
}

Test(pool, blocks_freed_by_another_thread_come_home)
{
    static const size_t sizes[] = {1, 280, 1000, 3000};

    for (int i = 0; i < 4; i++) {
        uint64_t system_allocs = 0, foreign = stats_now().foreign_frees;
        for (int round = 0; round < 20; round++) {
            allocate_train(sizes[i]);
            if (round == 0)
                system_allocs = stats_now().system_allocs;
            run_thread(free_train, NULL);
        }
        if (!pooling)
            continue;
        /* What exceeds the bound was given back: the largest of these are 4 MB. */
        if (TRAIN * sizes[i] < MIB)
            cr_expect_eq(stats_now().system_allocs, system_allocs, "%zu bytes", sizes[i]);
        cr_expect_eq(stats_now().foreign_frees, foreign + 20 * TRAIN);
    }
}

static void *
free_train_and_wait(void *barrier)
{
    free_train(NULL);
    spk_pool_flush();
    pthread_barrier_wait(barrier); /* freed … */
    pthread_barrier_wait(barrier); /* … and looked at */
    return NULL;
}

Test(pool, flush_sends_home_what_was_gathered)
{
    pthread_barrier_t barrier;
    pthread_t thread;

    cr_assert_eq(pthread_barrier_init(&barrier, NULL, 2), 0);
    allocate_train(280);
    uint64_t system_allocs = stats_now().system_allocs;
    cr_assert_eq(pthread_create(&thread, NULL, free_train_and_wait, &barrier), 0);
    pthread_barrier_wait(&barrier);
    allocate_train(280);
    if (pooling)
        cr_expect_eq(stats_now().system_allocs, system_allocs);
    pthread_barrier_wait(&barrier);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    free_train(NULL);
    pthread_barrier_destroy(&barrier);
}

/* Goal: a thread that only allocates and one that only frees do not make the first one's pool grow.
 */
Test(pool, what_comes_home_is_bounded)
{
    for (int i = 0; i < 60; i++) {
        allocate_train(280);
        run_thread(free_train, NULL);
    }
    cr_expect_leq(stats_now().idle_bytes, KEPT_BYTES_MAX);
    void *held[200][8];
    for (int i = 0; i < 200; i++) { /* never allocates from what comes home */
        for (int j = 0; j < 8; j++)
            cr_assert_not_null(held[i][j] = spk_pool_alloc(9000));
    }
    for (int i = 0; i < 200; i++) {
        for (int j = 0; j < 8; j++)
            train[(i * 8 + j) % TRAIN] = held[i][j];
        if ((i + 1) % 125 == 0)
            run_thread(free_train, NULL);
    }
    for (int i = 125; i < 200; i++)
        for (int j = 0; j < 8; j++)
            spk_pool_free(held[i][j]);
    cr_expect_leq(stats_now().idle_bytes, 2 * KEPT_BYTES_MAX);
}

static void *
allocate_and_end(void *unused)
{
    (void)unused;
    for (int i = 0; i < TRAIN; i++) {
        train[i] = spk_pool_alloc(500);
        if (train[i] != NULL)
            memset(train[i], i, 500);
    }
    for (int i = 0; i < 100; i++) /* something idle, too */
        spk_pool_free(spk_pool_alloc((size_t)i * 100));
    return NULL;
}

Test(pool, blocks_outlive_their_thread_and_nothing_is_left_of_it)
{
    spk_pool_free(spk_pool_alloc(1)); /* so that this thread has a pool and adopts none */
    uint64_t idle = stats_now().idle_bytes;

    for (int round = 0; round < 10; round++) {
        run_thread(allocate_and_end, NULL);
        cr_expect_eq(stats_now().idle_bytes, idle);
        for (int i = 0; i < TRAIN; i++) {
            cr_assert_not_null(train[i]);
            for (int j = 0; j < 500; j++)
                cr_assert_eq(((uint8_t *)train[i])[j], (uint8_t)i);
            spk_pool_free(train[i]);
        }
        spk_pool_flush();
        cr_expect_eq(stats_now().idle_bytes, idle);
    }
}

static void *
report_pool(void *out)
{
    spk_pool_free(spk_pool_alloc(100));
    *(struct spk_pool **)out = spk_pool_mine;
    return NULL;
}

Test(pool, the_pool_of_a_thread_that_ended_is_adopted)
{
    struct spk_pool *first, *next, *mine;

    report_pool(&mine);
    run_thread(report_pool, &first);
    for (int i = 0; i < 100; i++) {
        run_thread(report_pool, &next);
        cr_assert_eq(next, first);
    }
    if (pooling)
        cr_expect_neq(first, mine);
}

/* Goal: other libraries' destructors may use ours after our own has run, and nothing stays behind.
 */
static pthread_key_t late_key;

/* Once in the thread, and in every round of destructors.  ThreadSanitizer takes the thread apart in
 * the last round. */
#ifdef SPOKE_TINY_RUNNER
#define LATE_ROUNDS 2
#else
#define LATE_ROUNDS (1 + PTHREAD_DESTRUCTOR_ITERATIONS)
#endif

static void
use_late(void *rounds)
{
    int *left = rounds;
    spoke_msg *m;

    --*left;
    if (spoke_msg_new(&m, 1000) == 0)
        spoke_msg_free(m);
    for (int i = 0; i < 50; i++)
        spk_pool_free(train[*left * 50 + i]); /* the main thread's */
    if (*left > 0)
        pthread_setspecific(late_key, rounds);
}

static void *
use_late_thread(void *rounds)
{
    use_late(rounds);
    return NULL;
}

Test(pool, destructors_of_a_thread_may_still_allocate_and_free)
{
    int rounds = LATE_ROUNDS;
    struct spk_pool *before, *after;

    allocate_train(280);
    cr_assert_eq(pthread_key_create(&late_key, use_late), 0);
    run_thread(report_pool, &before);
    run_thread(use_late_thread, &rounds);
    run_thread(report_pool, &after);
    cr_expect_eq(rounds, 0);
    cr_expect_eq(after, before, "the thread left its pool to the next one");
    for (int i = 50 * LATE_ROUNDS; i < TRAIN; i++)
        spk_pool_free(train[i]);
    cr_expect_eq(stats_now().messages, 0);
    cr_expect_eq(stats_now().chunks, 0);
    cr_expect_leq(stats_now().idle_bytes, KEPT_BYTES_MAX);
    pthread_key_delete(late_key);
}

/* ---- many threads ---- */

#define THREADS     4
#define GENERATIONS 6
#define STEPS       TEST_REPEATS(12000)
#define PLACES      64

struct parcel { /* what every block of the storm starts with */
    size_t size;
    spoke_msg *m;
};

static _Atomic(struct parcel *) places[PLACES];
static atomic_uint damaged;

static struct parcel *
pack(uint32_t random)
{
    size_t size = sizeof(struct parcel) + 1 + (random % 16 == 0 ? random % 70000 : random % 600);
    struct parcel *parcel = spk_pool_alloc(size);

    if (parcel == NULL || spoke_msg_new(&parcel->m, random % 3000) != 0)
        abort();
    struct spk_pool *home = spk_block_of(parcel)->home;
    if (home != NULL && home != spk_pool_mine) /* it came home to the wrong one */
        atomic_fetch_add(&damaged, 1);
    parcel->size = size;
    memset(parcel + 1, (uint8_t)size, size - sizeof *parcel);
    memset(spoke_msg_body(parcel->m), (uint8_t)size, spoke_msg_size(parcel->m));
    return parcel;
}

static void
unpack(struct parcel *parcel)
{
    const uint8_t *bytes = (const uint8_t *)(parcel + 1), *body = spoke_msg_body(parcel->m);
    bool whole = true;

    for (size_t i = 0; i < parcel->size - sizeof *parcel; i++)
        whole = whole && bytes[i] == (uint8_t)parcel->size;
    for (size_t i = 0; i < spoke_msg_size(parcel->m); i++)
        whole = whole && body[i] == (uint8_t)parcel->size;
    if (!whole)
        atomic_fetch_add(&damaged, 1);
    spoke_msg_free(parcel->m);
    spk_pool_free(parcel);
}

static void *
trade(void *seed)
{
    uint32_t random = *(uint32_t *)seed;

    for (int i = 0; i < STEPS; i++) {
        random = random * 1664525 + 1013904223;
        struct parcel *parcel = random % 4 == 0 ? NULL : pack(random >> 8);
        parcel = atomic_exchange(&places[(random >> 20) % PLACES], parcel);
        if (parcel != NULL)
            unpack(parcel);
        if (i % 1000 == 0)
            spk_pool_flush();
        if (i % 5000 == 0) /* another thread may look at any time */
            (void)stats_now();
    }
    return NULL;
}

/* Goal: blocks travel between threads that end and begin, nothing is lost, doubled or overwritten.
 * Method: threads exchange blocks of all sizes through a few places and check what they get. */
Test(pool, a_storm_of_threads_loses_nothing)
{
    for (uint32_t generation = 0; generation < GENERATIONS; generation++) {
        pthread_t threads[THREADS];
        uint32_t seeds[THREADS];
        for (uint32_t i = 0; i < THREADS; i++) {
            seeds[i] = generation * THREADS + i + 1;
            cr_assert_eq(pthread_create(&threads[i], NULL, trade, &seeds[i]), 0);
        }
        for (uint32_t i = 0; i < THREADS; i++)
            cr_assert_eq(pthread_join(threads[i], NULL), 0);
    }
    for (int i = 0; i < PLACES; i++) {
        struct parcel *parcel = atomic_exchange(&places[i], NULL);
        if (parcel != NULL)
            unpack(parcel);
    }
    spk_pool_flush();
    struct spoke_memory_stats stats = stats_now();
    cr_expect_eq(atomic_load(&damaged), 0);
    cr_expect_eq(stats.messages, 0);
    cr_expect_eq(stats.chunks, 0);
    cr_expect_eq(stats.chunk_bytes, 0);
    if (pooling)
        cr_expect_gt(stats.foreign_frees, 0);
    cr_expect_leq(stats.idle_bytes, 64 * MIB);
}

/* ---- fork ---- */

static atomic_bool stop;

static void *
keep_busy(void *unused)
{
    (void)unused;
    while (!atomic_load(&stop)) {
        for (int i = 0; i < PLACES; i++) {
            struct parcel *parcel = atomic_exchange(&places[i], pack((uint32_t)i * 77));
            if (parcel != NULL)
                unpack(parcel);
        }
        spk_pool_flush();
    }
    return NULL;
}

/* The child has one thread; the pools of the others, caught in the middle of anything, must not
 * disturb it. */
static void
live_in_the_child(void)
{
    alarm(20 *
          SPOKE_TEST_SLOWDOWN); /* a lock that nobody opens must not last longer than the test */
    for (int i = 0; i < PLACES; i++) {
        struct parcel *parcel = atomic_exchange(&places[i], NULL);
        if (parcel != NULL)
            unpack(parcel);
    }
    for (int i = 0; i < 500; i++)
        unpack(pack((uint32_t)i * 12345));
    spk_pool_flush();
    (void)stats_now();
    _exit(atomic_load(&damaged) == 0 ? 0 : 1);
}

Test(pool, a_forked_child_may_allocate_and_free)
{
    /* A sanitizer's own allocator does not survive the fork of a process with several threads. */
    const int busy = pooling ? 2 : 0;
    pthread_t threads[2];

    unpack(pack(1));
    for (int i = 0; i < busy; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, keep_busy, NULL), 0);
    for (int i = 0; i < 10; i++) {
        int status;
        pid_t child = fork();
        if (child == 0)
            live_in_the_child();
        cr_assert_gt(child, 0);
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d: status %x", i, status);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < busy; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < PLACES; i++) {
        struct parcel *parcel = atomic_exchange(&places[i], NULL);
        if (parcel != NULL)
            unpack(parcel);
    }
    cr_expect_eq(atomic_load(&damaged), 0);
}
