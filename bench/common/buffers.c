/* SPDX-License-Identifier: MIT */
/* A stack of free bodies, linked by their indices.  Many threads push and one pops, so an index
 * that comes back between the popper's look and its exchange does no harm: nobody else can have
 * changed what lies under it. */
#include "buffers.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFERS_MIN = 64, BUFFERS_MAX = 4096, POOL_BYTES = 64 << 20, NONE = -1 };

/* In front of each body, so that a body knows its place; keeps the body aligned to 64 bytes. */
struct place {
    _Alignas(64) int index;
    int below; /* the next free one, or NONE; written by who pushes */
};

struct bench_buffers {
    unsigned count;
    size_t stride; /* bytes from one place to the next */
    uint8_t *memory;
    atomic_int top; /* index, or NONE */
};

static struct place *
place_at(const struct bench_buffers *b, int index)
{
    return (struct place *)(void *)(b->memory + (size_t)index * b->stride);
}

static void
push(struct bench_buffers *b, struct place *p)
{
    int top = atomic_load_explicit(&b->top, memory_order_relaxed);

    /* Pairs with the acquire in bench_buffers_take: `below`, and all that the library read, before
     * the body is free. */
    do {
        p->below = top;
    } while (!atomic_compare_exchange_weak_explicit(&b->top, &top, p->index, memory_order_release,
                                                    memory_order_relaxed));
}

static unsigned
choose_count(size_t size)
{
    size_t count = POOL_BYTES / size;

    if (count < BUFFERS_MIN)
        return BUFFERS_MIN;
    return count > BUFFERS_MAX ? BUFFERS_MAX : (unsigned)count;
}

struct bench_buffers *
bench_buffers_new(size_t size, const uint8_t *pattern)
{
    struct bench_buffers *b = calloc(1, sizeof *b);

    if (b == NULL)
        goto no_memory;
    b->count = choose_count(size);
    b->stride = sizeof(struct place) + (size + 63) / 64 * 64;
    b->memory = aligned_alloc(64, b->count * b->stride);
    if (b->memory == NULL)
        goto no_memory;
    atomic_init(&b->top, NONE);
    for (unsigned i = b->count; i-- > 0;) {
        struct place *p = place_at(b, (int)i);
        p->index = (int)i;
        memcpy(p + 1, pattern, size);
        push(b, p);
    }
    return b;
no_memory:
    fprintf(stderr, "bench: no memory to lend messages of %zu bytes\n", size);
    exit(1);
}

void
bench_buffers_free(struct bench_buffers *b)
{
    if (b == NULL)
        return;
    free(b->memory);
    free(b);
}

unsigned
bench_buffers_count(const struct bench_buffers *b)
{
    return b->count;
}

void *
bench_buffers_take(struct bench_buffers *b)
{
    int top = atomic_load_explicit(&b->top, memory_order_acquire);

    while (top != NONE) {
        struct place *p = place_at(b, top);
        if (atomic_compare_exchange_weak_explicit(&b->top, &top, p->below, memory_order_acquire,
                                                  memory_order_acquire))
            return p + 1;
    }
    return NULL;
}

void
bench_buffers_give(void *body, void *hint)
{
    push(hint, (struct place *)body - 1);
}
