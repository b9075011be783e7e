/* SPDX-License-Identifier: MIT */
/* The inside of the pools: as much of allocating and freeing as is worth being inline.  For pool.c,
 * chunk.c and message.c; everybody else uses pool.h.
 *
 * A thread's pool is touched by its thread alone, but for `returned`, `waiting`, `owned`
 * (anybody's) and the numbers that spoke_memory_stats() reads.  A thread without a pool has a
 * stand-in whose lists are always empty and full at once, so that the fast paths need not ask. */
#ifndef SPK_MEMORY_LOCAL_H
#define SPK_MEMORY_LOCAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Two size classes for each power of two: itself, and a quarter more for what a power of two with
 * its overhead needs. 64, 80, 128, 160, 256, 320, … 1 MiB, 1.25 MiB; the prefix is included. */
#define SPK_SIZE_CLASSES 30u
#define SPK_LIST_BLOCKS  256u
#define SPK_CACHE_LINE   64
#define SPK_BLOCKS_AHEAD                                                                           \
    8u /* a block is fetched into the cache so many allocations before its own */

struct spk_pool;

/* In front of every block's memory. */
struct spk_block {
    struct spk_pool *home; /* NULL: goes straight back to the allocator */
    uint32_t size_class;
    uint32_t reserved;
};
_Static_assert(sizeof(struct spk_block) == 16, "the memory behind the prefix stays aligned to 16");

/* Idle blocks of one home and class, many handled as one.  Lies in the memory of the first of them.
 */
struct spk_batch {
    struct spk_batch *next;
    uint32_t count; /* the first one included */
    uint32_t limit;
    void *others[];
};

/* The idle blocks at hand: a stack. */
struct spk_pool_list {
    atomic_uint count;
    uint32_t limit; /* then the oldest of them become a batch */
    void *blocks[SPK_LIST_BLOCKS];
};

/* Signed: what one thread counts up another may count down.  Only the sums over all pools mean
 * something. */
enum spk_count {
    SPK_COUNT_MESSAGES,
    SPK_COUNT_CHUNKS,
    SPK_COUNT_CHUNK_BYTES,
    SPK_COUNT_BATCHED_BYTES, /* idle in batches, wherever those are */
    SPK_COUNT_SYSTEM_ALLOCS,
    SPK_COUNT_FOREIGN_FREES,
    SPK_COUNT_OTHERS,
    SPK_COUNTS
};

struct spk_pool {
    /* The owner's. */
    atomic_llong counts[SPK_COUNTS];
    struct spk_pool *next; /* in the list of all pools; constant */
    bool stand_in;         /* not one thread's own: count with atomic additions */
    uint32_t gathering;    /* bit i: there is a batch in gathered[i] */
    struct spk_pool_list lists[SPK_SIZE_CLASSES];
    struct spk_batch *gathered[SPK_SIZE_CLASSES]; /* blocks of other pools, to be sent home */
    struct spk_batch *pending[SPK_SIZE_CLASSES];  /* our blocks, to be unpacked */

    uint8_t apart[SPK_CACHE_LINE]; /* so that writes from outside do not slow the owner down */

    /* Anybody's. */
    _Atomic(struct spk_batch *) returned[SPK_SIZE_CLASSES]; /* stacks of our blocks */
    atomic_uint waiting[SPK_SIZE_CLASSES];                  /* blocks in `returned` and `pending` */
    atomic_bool owned; /* false: its thread is gone, another may adopt it */
};

extern _Thread_local struct spk_pool *spk_pool_mine
    __attribute__((visibility("hidden"), tls_model("initial-exec")));
extern atomic_bool spk_memory_faults; /* some allocations are to fail */

void *spk_local_alloc_slow(uint32_t size_class, size_t size);
void spk_local_free_slow(void *memory);

static inline struct spk_block *
spk_block_of(void *memory)
{
    return (struct spk_block *)memory - 1;
}

/* Bytes of a whole block of this class. */
static inline size_t
spk_class_bytes(uint32_t size_class)
{
    return (size_t)(size_class % 2 == 0 ? 64 : 80) << size_class / 2;
}

/* The class for `size` usable bytes; SPK_SIZE_CLASSES: too large for any. */
static inline uint32_t
spk_size_class(size_t size)
{
    size_t total = size + sizeof(struct spk_block);

    if (size > spk_class_bytes(SPK_SIZE_CLASSES - 1) - sizeof(struct spk_block))
        return SPK_SIZE_CLASSES;
    if (total <= 64)
        return 0;
    /* 2^(bits-1) < total <= 2^bits, and the class between them is 5/4 of the smaller. */
    uint32_t bits = 64 - (uint32_t)__builtin_clzll(total - 1);
    return 2 * (bits - 7) + (total <= (size_t)5 << (bits - 3) ? 1 : 2);
}

/* Bytes behind the prefix of a block that was asked for with `size`. */
static inline size_t
spk_usable_bytes(uint32_t size_class, size_t size)
{
    if (size_class == SPK_SIZE_CLASSES)
        return size;
    return spk_class_bytes(size_class) - sizeof(struct spk_block);
}

/* Fetch its first two lines into the cache, to be written: whoever freed it may have been another
 * CPU. */
static inline void
spk_block_prefetch(void *memory)
{
    __builtin_prefetch(spk_block_of(memory), 1);
    __builtin_prefetch((uint8_t *)spk_block_of(memory) + SPK_CACHE_LINE, 1);
}

/* Take an idle block at hand; NULL: it needs spk_local_alloc_slow(). */
static inline void *
spk_local_take(struct spk_pool *pool, uint32_t size_class)
{
    struct spk_pool_list *list = &pool->lists[size_class];
    uint32_t count = atomic_load_explicit(&list->count, memory_order_relaxed);

    if (count == 0 || atomic_load_explicit(&spk_memory_faults, memory_order_relaxed))
        return NULL;
    atomic_store_explicit(&list->count, count - 1, memory_order_relaxed);
    if (count > SPK_BLOCKS_AHEAD)
        spk_block_prefetch(list->blocks[count - 1 - SPK_BLOCKS_AHEAD]);
    return list->blocks[count - 1];
}

/* The whole of spk_pool_alloc(), its class known. */
static inline void *
spk_local_alloc(uint32_t size_class, size_t size)
{
    void *memory = NULL;

    if (size_class < SPK_SIZE_CLASSES)
        memory = spk_local_take(spk_pool_mine, size_class);
    return memory != NULL ? memory : spk_local_alloc_slow(size_class, size);
}

/* Put a block of the pool's own back; false: it needs spk_local_free_slow(). */
static inline bool
spk_local_give(struct spk_pool *pool, void *memory)
{
    struct spk_block *block = spk_block_of(memory);

    if (block->home != pool)
        return false;
    struct spk_pool_list *list = &pool->lists[block->size_class];
    uint32_t count = atomic_load_explicit(&list->count, memory_order_relaxed);
    if (count >= list->limit)
        return false;
    list->blocks[count] = memory;
    atomic_store_explicit(&list->count, count + 1, memory_order_relaxed);
    return true;
}

/* The whole of spk_pool_free(). */
static inline void
spk_local_free(void *memory)
{
    if (!spk_local_give(spk_pool_mine, memory))
        spk_local_free_slow(memory);
}

/* For a pool that is known to be the thread's own: something was taken from it. */
static inline void
spk_count_own(struct spk_pool *pool, enum spk_count what, long long by)
{
    long long now = atomic_load_explicit(&pool->counts[what], memory_order_relaxed);

    atomic_store_explicit(&pool->counts[what], now + by, memory_order_relaxed);
}

static inline void
spk_count(enum spk_count what, long long by)
{
    struct spk_pool *pool = spk_pool_mine;

    if (pool->stand_in)
        atomic_fetch_add_explicit(&pool->counts[what], by, memory_order_relaxed);
    else
        spk_count_own(pool, what, by);
}

#endif
