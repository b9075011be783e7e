/* SPDX-License-Identifier: MIT */
/* Chunks: a pooled block that starts with struct spk_chunk.  The memory follows, or, around memory
 * from outside, the way to give that back. */
#include "runtime/memory/chunk.h"

#include <assert.h>

#include "runtime/memory/local.h"
#include "runtime/memory/pool.h"

_Static_assert(sizeof(struct spk_chunk) == 32, "the memory behind it is aligned to 16");

struct outside {
    spoke_msg_done_f *done; /* may be NULL */
    void *ctx;
    void *data;
};

struct spk_chunk *
spk_chunk_new(size_t size)
{
    if (size > PTRDIFF_MAX - sizeof(struct spk_chunk))
        return NULL;
    size_t wanted = sizeof(struct spk_chunk) + size;
    uint32_t size_class = spk_size_class(wanted);
    struct spk_chunk *c = spk_local_alloc(size_class, wanted);
    if (c == NULL)
        return NULL;
    atomic_init(&c->refs, 1);
    c->size = spk_usable_bytes(size_class, wanted) - sizeof *c;
    c->data = (uint8_t *)(c + 1);
    c->outside = NULL;
    c->read_only = false;
    spk_count(SPK_COUNT_CHUNKS, 1);
    spk_count(SPK_COUNT_CHUNK_BYTES, (long long)c->size);
    return c;
}

/* Its bytes are not the pools', so they are not counted. */
struct spk_chunk *
spk_chunk_wrap(void *data, size_t size, spoke_msg_done_f *done, void *ctx)
{
    struct spk_chunk *c = spk_pool_alloc(sizeof *c + sizeof(struct outside));

    if (c == NULL)
        return NULL;
    struct outside *outside = (struct outside *)(c + 1);
    *outside = (struct outside){.done = done, .ctx = ctx, .data = data};
    atomic_init(&c->refs, 1);
    c->size = size;
    c->data = data != NULL ? data : (uint8_t *)outside; /* so that pointer arithmetic is sound */
    c->outside = outside;
    c->read_only = false;
    spk_count(SPK_COUNT_CHUNKS, 1);
    return c;
}

bool
spk_chunk_wraps(const struct spk_chunk *c, spoke_msg_done_f *done)
{
    const struct outside *outside = c->outside;

    return outside != NULL && outside->done == done;
}

void
spk_chunk_free_last(struct spk_chunk *c)
{
    struct outside *outside = c->outside;

    assert(atomic_load_explicit(&c->refs, memory_order_relaxed) <= 1);
    spk_count(SPK_COUNT_CHUNKS, -1);
    if (outside == NULL)
        spk_count(SPK_COUNT_CHUNK_BYTES, -(long long)c->size);
    else if (outside->done != NULL)
        outside->done(outside->data, c->size, outside->ctx);
    spk_local_free(c);
}
