/* SPDX-License-Identifier: MIT */
/* Segments: blocks of 2^k pages out of one region, halved and joined again as they are asked for
 * and come back (a buddy system).  What it knows of the blocks lies in memory of this process: what
 * others read cannot lead it astray.
 *
 * Pages exist only where a chunk has been; they are kept for the next one, and given back to the
 * system when more than KEPT_MOST of them lie idle. */
#include <pthread.h>
#include <string.h>

#include "runtime/memory/pool.h"
#include "runtime/memory/shared.h"

#define ORDERS    32
#define KEPT_MOST ((size_t)32 << 20) /* idle bytes whose pages stay */
#define GIVE_BACK ((size_t)1 << 20)  /* smaller blocks keep theirs */
#define NONE      UINT32_MAX

enum { PART = 0, FREE = 0x40, USED = 0x80 }; /* | order, at the first page of a block */

struct page {
    uint32_t next, prev; /* the first of a free block: in the list of its order */
    uint8_t state;
    bool exists;
};

struct spk_segment {
    atomic_uint refs;
    unsigned fork_generation; /* a child of fork() changes nothing: the memory is its parent's */
    pthread_mutex_t lock;
    struct spk_region region;
    unsigned top; /* order of the whole */
    uint32_t first[ORDERS];
    size_t used, existing;
    uint64_t failed;
    bool retired; /* its pages stay */
    struct page pages[];
};

/* ---- lists of free blocks; the latest one freed is the next one used ---- */

static void
put(struct spk_segment *s, uint32_t at, unsigned order)
{
    s->pages[at].state = (uint8_t)(FREE | order);
    s->pages[at].prev = NONE;
    s->pages[at].next = s->first[order];
    if (s->first[order] != NONE)
        s->pages[s->first[order]].prev = at;
    s->first[order] = at;
}

static void
take(struct spk_segment *s, uint32_t at, unsigned order)
{
    struct page *p = &s->pages[at];

    if (p->prev != NONE)
        s->pages[p->prev].next = p->next;
    else
        s->first[order] = p->next;
    if (p->next != NONE)
        s->pages[p->next].prev = p->prev;
    p->state = PART;
}

/* ---- pages ---- */

/* Have the first `count` pages of a block exist. */
static int
make_exist(struct spk_segment *s, uint32_t at, uint32_t count)
{
    uint32_t i = 0;

    while (i < count) {
        uint32_t start = i, n;

        if (s->pages[at + i].exists) {
            i++;
            continue;
        }
        while (i < count && !s->pages[at + i].exists)
            i++;
        n = i - start;
        if (spk_region_reserve(&s->region, (at + start) * SPK_PAGE, n * SPK_PAGE) != 0)
            return SPOKE_ENOMEM;
        for (uint32_t page = at + start; page < at + i; page++)
            s->pages[page].exists = true;
        s->existing += n * SPK_PAGE;
    }
    return 0;
}

/* Those of a free block, from its end on, as its start is what is used next; `most` bytes of them.
 */
static void
give_pages_back(struct spk_segment *s, uint32_t at, uint32_t count, size_t most)
{
    uint32_t from = at + count;
    size_t given = 0;

    while (from > at && given < most) {
        from--;
        given += s->pages[from].exists ? SPK_PAGE : 0;
        s->pages[from].exists = false;
    }
    if (given > 0)
        spk_region_give_back(&s->region, from * SPK_PAGE, (at + count - from) * SPK_PAGE);
    s->existing -= given;
}

/* ---- blocks ---- */

static uint32_t
get_block(struct spk_segment *s, unsigned order)
{
    unsigned from = order;
    uint32_t at;

    while (from <= s->top && s->first[from] == NONE)
        from++;
    if (from > s->top)
        return NONE;
    at = s->first[from];
    take(s, at, from);
    while (from > order) { /* the second half is free */
        from--;
        put(s, at + (1u << from), from);
    }
    s->pages[at].state = (uint8_t)(USED | order);
    return at;
}

static void
free_block(struct spk_segment *s, uint32_t at)
{
    unsigned order = s->pages[at].state & 0x3f;

    s->used -= SPK_PAGE << order;
    s->pages[at].state = PART;
    while (order < s->top && s->pages[at ^ (1u << order)].state == (FREE | order)) {
        take(s, at ^ (1u << order), order);
        at &= ~(1u << order);
        order++;
    }
    if (SPK_PAGE << order >= GIVE_BACK && s->existing > s->used + KEPT_MOST && !s->retired) {
        size_t excess = s->existing - s->used - KEPT_MOST;

        /* A little more than there is too much, so that it is not done for every page. */
        give_pages_back(s, at, 1u << order, excess > GIVE_BACK ? excess : GIVE_BACK);
    }
    put(s, at, order);
}

/* ---- chunks ---- */

static void
on_chunk_gone(void *data, size_t size, void *ctx)
{
    struct spk_segment *s = ctx;

    (void)size;
    if (s->fork_generation != atomic_load_explicit(&spk_fork_generation, memory_order_relaxed))
        return;
    pthread_mutex_lock(&s->lock);
    free_block(s, (uint32_t)((size_t)((uint8_t *)data - s->region.base) / SPK_PAGE));
    pthread_mutex_unlock(&s->lock);
    spk_segment_unref(s);
}

static unsigned
order_for(size_t size)
{
    unsigned order = 0;

    while (SPK_PAGE << order < size)
        order++;
    return order;
}

struct spk_chunk *
spk_segment_alloc(struct spk_segment *s, size_t size)
{
    struct spk_chunk *c = NULL;
    uint32_t at = NONE;
    unsigned order;

    if (size > s->region.size)
        return NULL;
    order = order_for(size);
    pthread_mutex_lock(&s->lock);
    if ((at = get_block(s, order)) != NONE) {
        s->used += SPK_PAGE << order;
        if (make_exist(s, at, (uint32_t)((size + SPK_PAGE - 1) / SPK_PAGE)) != 0) {
            free_block(s, at);
            at = NONE;
        }
    }
    s->failed += at == NONE;
    pthread_mutex_unlock(&s->lock);
    if (at == NONE)
        return NULL;
    spk_segment_ref(s);
    c = spk_chunk_wrap(s->region.base + at * SPK_PAGE, (size + SPK_PAGE - 1) & ~(SPK_PAGE - 1),
                       on_chunk_gone, s);
    if (c == NULL)
        on_chunk_gone(s->region.base + at * SPK_PAGE, 0, s);
    return c;
}

bool
spk_segment_holds(const struct spk_segment *s, const void *data, size_t size, uint64_t *offset)
{
    uintptr_t base = (uintptr_t)s->region.base, at = (uintptr_t)data;

    if (at < base || at - base > s->region.size || size > s->region.size - (at - base))
        return false;
    *offset = at - base;
    return true;
}

void
spk_segment_retire(struct spk_segment *s)
{
    pthread_mutex_lock(&s->lock);
    s->retired = true;
    pthread_mutex_unlock(&s->lock);
}

int
spk_segment_fd(const struct spk_segment *s)
{
    return s->region.fd_out;
}

size_t
spk_segment_size(const struct spk_segment *s)
{
    return s->region.size;
}

void
spk_segment_trim(struct spk_segment *s)
{
    pthread_mutex_lock(&s->lock);
    for (unsigned order = 0; order <= s->top && s->existing > s->used; order++)
        for (uint32_t at = s->first[order]; at != NONE; at = s->pages[at].next)
            give_pages_back(s, at, 1u << order, SIZE_MAX);
    pthread_mutex_unlock(&s->lock);
}

void
spk_segment_stats(struct spk_segment *s, struct spk_segment_stats *out)
{
    pthread_mutex_lock(&s->lock);
    *out = (struct spk_segment_stats){.used = s->used, .pages = s->existing, .failed = s->failed};
    pthread_mutex_unlock(&s->lock);
}

/* ---- life ---- */

int
spk_segment_new(struct spk_segment **out, size_t most)
{
    size_t pages = most / SPK_PAGE;
    struct spk_segment *s;
    int rc;

    *out = NULL;
    if (most < SPK_PAGE || (most & (most - 1)) != 0 || pages > 1u << (ORDERS - 2))
        return SPOKE_EINVAL;
    if ((s = spk_zalloc(sizeof *s + pages * sizeof s->pages[0])) == NULL)
        return SPOKE_ENOMEM;
    if ((rc = spk_region_open(&s->region, "spoke-messages", most)) != 0) {
        spk_free(s);
        return rc;
    }
    atomic_init(&s->refs, 1);
    s->fork_generation = atomic_load_explicit(&spk_fork_generation, memory_order_relaxed);
    pthread_mutex_init(&s->lock, NULL);
    s->top = order_for(most);
    for (unsigned i = 0; i < ORDERS; i++)
        s->first[i] = NONE;
    put(s, 0, s->top);
    *out = s;
    return 0;
}

struct spk_segment *
spk_segment_ref(struct spk_segment *s)
{
    atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed);
    return s;
}

void
spk_segment_unref(struct spk_segment *s)
{
    if (atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    spk_region_close(&s->region);
    pthread_mutex_destroy(&s->lock);
    spk_free(s);
}
