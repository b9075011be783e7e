/* SPDX-License-Identifier: MIT */
/* The pools.  Every block knows its home, the pool it was made for.  A thread frees into its own
 * pool's lists; a foreign block it gathers, with others of the same home and class, into a batch
 * that goes home by one compare-and-swap. A list that is full puts blocks into batches too; one
 * that has run dry unpacks a batch.
 *
 * Everything kept is bounded, per class: a list by LIST_BYTES, the batches that wait for it by
 * WAITING_BYTES (at least KEEP_BLOCKS each), a batch by BATCH_BYTES.  What would exceed that goes
 * back to the allocator.
 *
 * Pools are never destroyed.  When a thread ends, its pool gives all idle memory back and waits for
 * a new thread to adopt it; blocks that are still in use go straight to the allocator when they are
 * freed.  The list of pools and their stacks are lock-free, so a child process finds them usable
 * after fork(); pools of threads that it does not have stay unused. */
#include "runtime/memory/pool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/message.h>

#include "runtime/memory/local.h"

#ifdef SPOKE_USE_JEMALLOC
#include <jemalloc/jemalloc.h>
#endif

#define LIST_BYTES    ((size_t)1 << 20)
#define WAITING_BYTES ((size_t)2 << 20)
#define KEEP_BLOCKS   2u
#define BATCH_BLOCKS  32u
#define BATCH_BYTES   ((size_t)64 << 10)
_Static_assert(BATCH_BLOCKS <= SPK_LIST_BLOCKS && BATCH_BYTES <= LIST_BYTES,
               "a batch fits into an empty list");

/* Sanitizers see wrong uses of memory only if every block comes from the allocator and goes back
 * there. */
#ifdef SPOKE_SYSTEM_POOLS
static const bool pooling = false;
#else
static const bool pooling = true;
#endif

static struct spk_pool no_pool = {.stand_in = true};   /* of a thread that has not needed one yet */
static struct spk_pool past_pool = {.stand_in = true}; /* of a thread that ends */
_Thread_local struct spk_pool *spk_pool_mine = &no_pool;

static _Atomic(struct spk_pool *) all_pools; /* a stack that only grows */
static atomic_uint orphans;
static pthread_once_t key_once = PTHREAD_ONCE_INIT;
static pthread_key_t key; /* its destructor tells us that a thread ends */
static bool key_works;

/* ---- the allocator below ---- */

#ifdef SPOKE_USE_JEMALLOC

static void *
system_alloc(size_t size)
{
    return mallocx(size, 0);
}

static void *
system_zalloc(size_t size)
{
    return mallocx(size, MALLOCX_ZERO);
}

static void *
system_realloc(void *memory, size_t size)
{
    return memory == NULL ? mallocx(size, 0) : rallocx(memory, size, 0);
}

static void
system_free(void *memory)
{
    dallocx(memory, 0);
}

#else

static void *
system_alloc(size_t size)
{
    return malloc(size);
}

static void *
system_zalloc(size_t size)
{
    return calloc(1, size);
}

static void *
system_realloc(void *memory, size_t size)
{
    return realloc(memory, size);
}

static void
system_free(void *memory)
{
    free(memory);
}

#endif

/* ---- failing on purpose ---- */

atomic_bool spk_memory_faults;
static atomic_ullong fail_in; /* the how-manieth allocation from now on fails; 0: none */
static _Atomic(bool (*)(void *)) fault_fn;
static _Atomic(void *) fault_ctx;

static void
arm_faults(void)
{
    bool armed = atomic_load(&fail_in) != 0 || atomic_load(&fault_fn) != NULL;

    atomic_store(&spk_memory_faults, armed);
}

void
spk_memory_fail_after(uint64_t count)
{
    atomic_store(&fail_in, count);
    arm_faults();
}

void
spk_memory_set_fault(bool (*fault)(void *ctx), void *ctx)
{
    atomic_store(&fault_fn, NULL); /* so that nobody meets the old function with the new context */
    atomic_store(&fault_ctx, ctx);
    atomic_store(&fault_fn, fault);
    arm_faults();
}

static bool
count_down(void)
{
    unsigned long long left = atomic_load(&fail_in);

    while (left != 0) {
        if (!atomic_compare_exchange_weak(&fail_in, &left, left - 1))
            continue;
        if (left > 1)
            return false;
        arm_faults();
        return true;
    }
    return false;
}

/* Every allocation asks exactly once. */
static bool
must_fail(void)
{
    if (!atomic_load_explicit(&spk_memory_faults, memory_order_relaxed))
        return false;
    if (count_down())
        return true;
    bool (*fault)(void *) = atomic_load(&fault_fn);
    return fault != NULL && fault(atomic_load(&fault_ctx));
}

/* ---- long-lived memory ---- */

void *
spk_zalloc(size_t size)
{
    if (must_fail())
        return NULL;
    return system_zalloc(size > 0 ? size : 1);
}

void *
spk_realloc(void *memory, size_t size)
{
    if (must_fail())
        return NULL;
    return system_realloc(memory, size > 0 ? size : 1);
}

char *
spk_strdup(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = must_fail() ? NULL : system_alloc(size);

    return copy == NULL ? NULL : memcpy(copy, text, size);
}

void
spk_free(void *memory)
{
    if (memory != NULL)
        system_free(memory);
}

/* ---- blocks and batches ---- */

/* How many blocks of this class `bytes` hold, and at least KEEP_BLOCKS. */
static uint32_t
blocks_in(size_t bytes, uint32_t size_class)
{
    uint32_t blocks = (uint32_t)(bytes / spk_class_bytes(size_class));

    return blocks > KEEP_BLOCKS ? blocks : KEEP_BLOCKS;
}

static uint32_t
list_limit(uint32_t size_class)
{
    uint32_t limit = blocks_in(LIST_BYTES, size_class);

    return limit < SPK_LIST_BLOCKS ? limit : SPK_LIST_BLOCKS;
}

/* How many blocks of this class make a batch: as many as the first has room to name. */
static uint32_t
batch_limit(uint32_t size_class)
{
    size_t bytes = spk_class_bytes(size_class);
    size_t names = (bytes - sizeof(struct spk_block) - sizeof(struct spk_batch)) / sizeof(void *);
    size_t limit = BATCH_BYTES / bytes;

    if (limit > BATCH_BLOCKS)
        limit = BATCH_BLOCKS;
    if (limit > names + 1)
        limit = names + 1;
    return limit > 0 ? (uint32_t)limit : 1;
}

static void *
new_block(struct spk_pool *home, uint32_t size_class, size_t bytes)
{
    struct spk_block *block = system_alloc(bytes);

    if (block == NULL)
        return NULL;
    spk_count(SPK_COUNT_SYSTEM_ALLOCS, 1);
    *block = (struct spk_block){.home = home, .size_class = size_class};
    return block + 1;
}

static void *
list_take(struct spk_pool_list *list)
{
    uint32_t count = atomic_load_explicit(&list->count, memory_order_relaxed);

    if (count == 0)
        return NULL;
    atomic_store_explicit(&list->count, count - 1, memory_order_relaxed);
    return list->blocks[count - 1];
}

/* `blocks` more, or fewer, lie in batches. */
static void
count_batched(uint32_t size_class, int blocks)
{
    spk_count(SPK_COUNT_BATCHED_BYTES, blocks * (long long)spk_class_bytes(size_class));
}

static struct spk_batch *
new_batch(void *memory, uint32_t size_class)
{
    struct spk_batch *batch = memory;

    batch->count = 1;
    batch->limit = batch_limit(size_class);
    return batch;
}

static void
release_batch(struct spk_batch *batch, uint32_t size_class)
{
    count_batched(size_class, -(int)batch->count);
    for (uint32_t i = 0; i + 1 < batch->count; i++)
        system_free(spk_block_of(batch->others[i]));
    system_free(spk_block_of(batch));
}

static void
push_batch(struct spk_pool *home, struct spk_batch *batch, uint32_t size_class)
{
    _Atomic(struct spk_batch *) *stack = &home->returned[size_class];
    struct spk_batch *top = atomic_load_explicit(stack, memory_order_relaxed);

    atomic_fetch_add_explicit(&home->waiting[size_class], batch->count, memory_order_relaxed);
    do
        batch->next = top;
    /* R1: what the batch says before the batch itself.  Pairs with R2 in next_batch(). */
    while (!atomic_compare_exchange_weak_explicit(stack, &top, batch, memory_order_release,
                                                  memory_order_relaxed));
}

/* A pool that nobody owns, or that has enough already, would only hoard. */
static bool
wants_batch(struct spk_pool *home, uint32_t size_class)
{
    return atomic_load_explicit(&home->owned, memory_order_relaxed) &&
           atomic_load_explicit(&home->waiting[size_class], memory_order_relaxed) <
               blocks_in(WAITING_BYTES, size_class);
}

static void
send_batch(struct spk_pool *pool, uint32_t size_class)
{
    struct spk_batch *batch = pool->gathered[size_class];
    struct spk_pool *home = spk_block_of(batch)->home;

    pool->gathered[size_class] = NULL;
    pool->gathering &= ~(UINT32_C(1) << size_class);
    if (wants_batch(home, size_class))
        push_batch(home, batch, size_class);
    else
        release_batch(batch, size_class);
}

static void
gather(struct spk_pool *pool, void *memory)
{
    struct spk_pool *home = spk_block_of(memory)->home;
    uint32_t size_class = spk_block_of(memory)->size_class;
    struct spk_batch *batch = pool->gathered[size_class];

    if (batch != NULL && spk_block_of(batch)->home != home) {
        send_batch(pool, size_class);
        batch = NULL;
    }
    if (batch == NULL) {
        pool->gathered[size_class] = batch = new_batch(memory, size_class);
        pool->gathering |= UINT32_C(1) << size_class;
    } else {
        batch->others[batch->count++ - 1] = memory;
    }
    count_batched(size_class, 1);
    if (batch->count >= batch->limit)
        send_batch(pool, size_class);
}

/* Take one batch of our own blocks, NULL if none has come home. */
static struct spk_batch *
next_batch(struct spk_pool *pool, uint32_t size_class)
{
    struct spk_batch *batch = pool->pending[size_class];

    if (batch == NULL) {
        if (atomic_load_explicit(&pool->returned[size_class], memory_order_relaxed) == NULL)
            return NULL;
        /* R2: pairs with R1 in push_batch(). */
        batch = atomic_exchange_explicit(&pool->returned[size_class], NULL, memory_order_acquire);
    }
    pool->pending[size_class] = batch->next;
    atomic_fetch_sub_explicit(&pool->waiting[size_class], batch->count, memory_order_relaxed);
    return batch;
}

/* Unpack batches into the empty list: as many as leave room for what this thread frees. */
static void
refill(struct spk_pool *pool, uint32_t size_class)
{
    struct spk_pool_list *list = &pool->lists[size_class];
    struct spk_batch *batch;
    uint32_t count = 0, first;

    do {
        if ((batch = next_batch(pool, size_class)) == NULL)
            break;
        uint32_t more = batch->count;
        count_batched(size_class, -(int)more);
        memcpy(list->blocks + count, batch->others, (more - 1) * sizeof batch->others[0]);
        count += more;
        list->blocks[count - 1] = batch;
    } while (count <= list->limit / 4);
    atomic_store_explicit(&list->count, count, memory_order_relaxed);
    /* spk_local_take() fetches those below. */
    first = count > SPK_BLOCKS_AHEAD ? count - SPK_BLOCKS_AHEAD : 0;
    for (uint32_t i = first; i < count; i++)
        spk_block_prefetch(list->blocks[i]);
}

/* Pack the oldest blocks of the full list into a batch. */
static void
spill(struct spk_pool *pool, uint32_t size_class)
{
    struct spk_pool_list *list = &pool->lists[size_class];
    struct spk_batch *batch = new_batch(list->blocks[0], size_class);
    uint32_t count = batch->limit, rest = list->limit - count;

    memcpy(batch->others, list->blocks + 1, (count - 1) * sizeof list->blocks[0]);
    memmove(list->blocks, list->blocks + count, rest * sizeof list->blocks[0]);
    atomic_store_explicit(&list->count, rest, memory_order_relaxed);
    batch->count = count;
    batch->next = pool->pending[size_class];
    pool->pending[size_class] = batch;
    atomic_fetch_add_explicit(&pool->waiting[size_class], count, memory_order_relaxed);
    count_batched(size_class, (int)count);
}

/* Keep an own block, if there is room or room can be made. */
static bool
keep(struct spk_pool *pool, void *memory, uint32_t size_class)
{
    struct spk_pool_list *list = &pool->lists[size_class];

    if (atomic_load_explicit(&list->count, memory_order_relaxed) == list->limit) {
        if (!wants_batch(pool, size_class))
            return false;
        spill(pool, size_class);
    }
    uint32_t count = atomic_load_explicit(&list->count, memory_order_relaxed);
    list->blocks[count] = memory;
    atomic_store_explicit(&list->count, count + 1, memory_order_relaxed);
    return true;
}

void
spk_pool_flush(void)
{
    struct spk_pool *pool = spk_pool_mine;

    while (pool->gathering != 0)
        send_batch(pool, (uint32_t)__builtin_ctz(pool->gathering));
}

/* ---- threads come and go ---- */

static void
release_idle(struct spk_pool *pool)
{
    for (uint32_t i = 0; i < SPK_SIZE_CLASSES; i++) {
        void *memory;
        while ((memory = list_take(&pool->lists[i])) != NULL)
            system_free(spk_block_of(memory));
        struct spk_batch *batch;
        while ((batch = next_batch(pool, i)) != NULL)
            release_batch(batch, i);
    }
}

static void
disown(struct spk_pool *pool)
{
    /* O1: all that was done to the pool before it is up for adoption.  Pairs with O2 in adopt(). */
    atomic_store_explicit(&pool->owned, false, memory_order_release);
    atomic_fetch_add_explicit(&orphans, 1, memory_order_release);
}

static void
on_thread_end(void *pool)
{
    spk_pool_flush();
    release_idle(pool);
    spk_pool_mine = &past_pool; /* other destructors may still come here */
    disown(pool);
}

static struct spk_pool *
adopt(void)
{
    if (atomic_load_explicit(&orphans, memory_order_acquire) == 0)
        return NULL;
    struct spk_pool *pool = atomic_load_explicit(&all_pools, memory_order_acquire);
    for (; pool != NULL; pool = pool->next) {
        bool owned = false;
        /* O2: pairs with O1 in disown(). */
        if (atomic_compare_exchange_strong_explicit(&pool->owned, &owned, true,
                                                    memory_order_acquire, memory_order_relaxed)) {
            atomic_fetch_sub_explicit(&orphans, 1, memory_order_relaxed);
            return pool;
        }
    }
    return NULL;
}

static struct spk_pool *
create(void)
{
    struct spk_pool *pool = system_zalloc(sizeof *pool);

    if (pool == NULL)
        return NULL;
    for (uint32_t i = 0; i < SPK_SIZE_CLASSES; i++)
        pool->lists[i].limit = list_limit(i);
    atomic_init(&pool->owned, true);
    pool->next = atomic_load_explicit(&all_pools, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(&all_pools, &pool->next, pool,
                                                  memory_order_release, memory_order_relaxed))
        ;
    return pool;
}

static void
make_key(void)
{
    key_works = pthread_key_create(&key, on_thread_end) == 0;
}

/* The thread's pool, from now on if it had none; a stand-in if it cannot have one. */
static struct spk_pool *
my_pool(void)
{
    if (!pooling || spk_pool_mine != &no_pool)
        return spk_pool_mine;
    pthread_once(&key_once, make_key);
    if (!key_works)
        return &no_pool;
    struct spk_pool *pool = adopt();
    if (pool == NULL)
        pool = create();
    if (pool == NULL)
        return &no_pool;
    if (pthread_setspecific(key, pool) != 0) { /* we would not learn of the thread's end */
        disown(pool);
        return &no_pool;
    }
    return spk_pool_mine = pool;
}

/* ---- allocating and freeing ---- */

static void *
new_large_block(size_t size)
{
    if (size > PTRDIFF_MAX - sizeof(struct spk_block))
        return NULL;
    return new_block(NULL, SPK_SIZE_CLASSES, sizeof(struct spk_block) + size);
}

void *
spk_local_alloc_slow(uint32_t size_class, size_t size)
{
    if (must_fail())
        return NULL;
    if (size_class == SPK_SIZE_CLASSES)
        return new_large_block(size);
    struct spk_pool *pool = my_pool();
    if (pool->stand_in)
        return new_block(NULL, size_class, spk_class_bytes(size_class));
    if (atomic_load_explicit(&pool->lists[size_class].count, memory_order_relaxed) == 0)
        refill(pool, size_class);
    void *memory = list_take(&pool->lists[size_class]);
    return memory != NULL ? memory : new_block(pool, size_class, spk_class_bytes(size_class));
}

void
spk_local_free_slow(void *memory)
{
    struct spk_block *block = spk_block_of(memory);

    if (block->home == NULL) {
        system_free(block);
        return;
    }
    struct spk_pool *pool = my_pool();
    if (block->home == pool) {
        if (!keep(pool, memory, block->size_class))
            system_free(block);
        return;
    }
    spk_count(SPK_COUNT_FOREIGN_FREES, 1);
    if (pool->stand_in)
        system_free(block);
    else
        gather(pool, memory);
}

void *
spk_pool_alloc(size_t size)
{
    return spk_local_alloc(spk_size_class(size), size);
}

void
spk_pool_free(void *block)
{
    if (block != NULL)
        spk_local_free(block);
}

void *
spk_pool_alloc_other(size_t size)
{
    void *block = spk_pool_alloc(size);

    if (block != NULL)
        spk_count(SPK_COUNT_OTHERS, 1);
    return block;
}

void
spk_pool_free_other(void *block)
{
    spk_count(SPK_COUNT_OTHERS, -1);
    spk_pool_free(block);
}

size_t
spk_pool_size(size_t size)
{
    return spk_usable_bytes(spk_size_class(size), size);
}

/* ---- statistics ---- */

static void
add_counts(struct spk_pool *pool, long long sums[SPK_COUNTS])
{
    for (unsigned i = 0; i < SPK_COUNTS; i++)
        sums[i] += atomic_load_explicit(&pool->counts[i], memory_order_relaxed);
}

static uint64_t
listed_bytes(struct spk_pool *pool)
{
    uint64_t bytes = 0;

    for (uint32_t i = 0; i < SPK_SIZE_CLASSES; i++) {
        uint64_t count = atomic_load_explicit(&pool->lists[i].count, memory_order_relaxed);
        bytes += count * spk_class_bytes(i);
    }
    return bytes;
}

/* A sum can be below 0 for a moment, while others count. */
static uint64_t
at_least_0(long long sum)
{
    return sum > 0 ? (uint64_t)sum : 0;
}

void
spoke_memory_stats(struct spoke_memory_stats *out)
{
    long long sums[SPK_COUNTS] = {0};
    uint64_t listed = 0;

    add_counts(&no_pool, sums);
    add_counts(&past_pool, sums);
    struct spk_pool *pool = atomic_load_explicit(&all_pools, memory_order_acquire);
    for (; pool != NULL; pool = pool->next) {
        add_counts(pool, sums);
        listed += listed_bytes(pool);
    }
    *out = (struct spoke_memory_stats){
        .messages = at_least_0(sums[SPK_COUNT_MESSAGES]),
        .chunks = at_least_0(sums[SPK_COUNT_CHUNKS]),
        .chunk_bytes = at_least_0(sums[SPK_COUNT_CHUNK_BYTES]),
        .idle_bytes = listed + at_least_0(sums[SPK_COUNT_BATCHED_BYTES]),
        .system_allocs = at_least_0(sums[SPK_COUNT_SYSTEM_ALLOCS]),
        .foreign_frees = at_least_0(sums[SPK_COUNT_FOREIGN_FREES]),
        .others = at_least_0(sums[SPK_COUNT_OTHERS]),
    };
}
