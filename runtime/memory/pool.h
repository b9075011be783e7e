/* SPDX-License-Identifier: MIT */
/* The allocator behind everything: per-thread free lists by size class, and plain zeroed memory for
 * long-lived things.
 *
 * All allocation of the library goes through here, so that one switch makes the n-th allocation
 * fail (tests) and one set of counters tells what is held. */
#ifndef SPK_MEMORY_POOL_H
#define SPK_MEMORY_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Long-lived, zeroed; NULL when there is no memory. */
void *spk_zalloc(size_t size);
void *spk_realloc(void *memory, size_t size);
char *spk_strdup(const char *text);
void spk_free(void *memory);

/* Pooled, not zeroed, aligned to 16.  spk_pool_size(size) bytes are usable.  Blocks above the
 * largest class come from the allocator. */
void *spk_pool_alloc(size_t size);
void spk_pool_free(void *block);
size_t spk_pool_size(size_t size);
/* The same for what is neither a message nor a chunk, counted as such; the block is not NULL. */
void *spk_pool_alloc_other(size_t size);
void spk_pool_free_other(void *block);

/* Hand back what this thread gathered for other threads' pools.  Called by engines before they
 * sleep. */
void spk_pool_flush(void);

/* +1 in every child of fork(), which shares with its parent what is mapped so.  engine/fork.c */
extern atomic_uint spk_fork_generation;

/* For tests: let the `count`-th allocation from now on fail (1: the next), then all work again; 0
 * switches off.  Counts in every thread. */
void spk_memory_fail_after(uint64_t count);
/* For the simulated world: asked before each allocation; true = fail.  NULL: off. */
void spk_memory_set_fault(bool (*fault)(void *ctx), void *ctx);

#endif
