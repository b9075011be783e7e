/* SPDX-License-Identifier: MIT */
/* Chunks: counted, pooled memory that message bodies are slices of.
 *
 * Every thread has a pool: free lists by size class on top of the allocator (jemalloc, or the
 * system's when built so). A block remembers the pool it came from; freed by another thread it is
 * gathered and goes home through a lock-free list. Everything here may be called from any thread.
 */
#ifndef SPK_MEMORY_CHUNK_H
#define SPK_MEMORY_CHUNK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <spoke/message.h>

/* 32 bytes in front of the memory, which is thus aligned to 16. */
struct spk_chunk {
    atomic_uint refs;
    bool read_only; /* writing there is not possible: another process's */
    size_t size;    /* usable bytes at `data` */
    uint8_t *data;
    void *outside; /* NULL, or the struct that says how to give foreign memory back */
};

/* Give a chunk with at least `size` usable bytes and one reference; NULL when there is no memory.
 * The real size (rounded up to the class) is in chunk->size. */
struct spk_chunk *spk_chunk_new(size_t size);

/* Give a chunk around the caller's memory. */
struct spk_chunk *spk_chunk_wrap(void *data, size_t size, spoke_msg_done_f *done, void *ctx);

/* Is it one of those that `done` gives back? */
bool spk_chunk_wraps(const struct spk_chunk *c, spoke_msg_done_f *done);

void spk_chunk_free_last(struct spk_chunk *c); /* the last reference is gone */

static inline struct spk_chunk *
spk_chunk_ref(struct spk_chunk *c)
{
    atomic_fetch_add_explicit(&c->refs, 1, memory_order_relaxed);
    return c;
}

static inline void
spk_chunk_unref(struct spk_chunk *c)
{
    /* Alone?  Then nobody can add a reference, and no atomic write is needed.  The acquire pairs
     * with the release of whoever let go before. */
    if (atomic_load_explicit(&c->refs, memory_order_acquire) == 1 ||
        atomic_fetch_sub_explicit(&c->refs, 1, memory_order_acq_rel) == 1)
        spk_chunk_free_last(c);
}

static inline bool
spk_chunk_alone(struct spk_chunk *c)
{
    return atomic_load_explicit(&c->refs, memory_order_acquire) == 1;
}

/* Nobody else sees what is written there. */
static inline bool
spk_chunk_is_ours(struct spk_chunk *c)
{
    return !c->read_only && spk_chunk_alone(c);
}

#endif
