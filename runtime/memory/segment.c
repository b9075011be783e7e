/* SPDX-License-Identifier: MIT */
/* Segments: blocks of 2^k pages out of one region, halved and joined again as they are asked for
 * and come back (a buddy system).  What it knows of the blocks lies in memory of this process: what
 * others read cannot lead it astray.
 *
 * Pages exist only where a chunk has been; they are kept for the next one, and given back to the
 * system when more than KEPT_MOST of them lie idle.
 *
 * Huge pages, if they are wished for, change nothing of that: ordinary pages are reserved first,
 * and then, where a huge page's place was empty before, made one huge page with the rest of that
 * place.  If that fails they stay what they are.  A huge page is given back as a whole. */
#include <pthread.h>
#include <string.h>

#include "runtime/engine/log.h"
#include "runtime/memory/pool.h"
#include "runtime/memory/shared.h"

#define ORDERS    32
#define KEPT_MOST ((size_t)32 << 20) /* idle bytes whose pages stay */
#define GIVE_BACK ((size_t)1 << 20)  /* smaller blocks keep theirs */
#define NONE      UINT32_MAX

enum { PART = 0, FREE = 0x40, USED = 0x80 }; /* | order, at the first page of a block */

enum { MISSING, ORDINARY, HUGE_PART };

struct page {
    uint32_t next, prev; /* the first of a free block: in the list of its order */
    uint8_t state;
    uint8_t exists; /* HUGE_PART: as a part of a huge page */
};

struct spk_segment {
    atomic_uint refs;
    unsigned fork_generation; /* a child of fork() changes nothing: the memory is its parent's */
    pthread_mutex_t lock;
    struct spk_region region;
    unsigned top;      /* order of the whole */
    uint32_t per_huge; /* pages of a huge page; 0: it is to have none */
    uint32_t first[ORDERS];
    size_t used, existing, huge;
    uint64_t failed, huge_failed;
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

/* The one place where the state of pages changes, and what is counted with it. */
static void
set_exist(struct spk_segment *s, uint32_t at, uint32_t count, uint8_t exists)
{
    for (uint32_t i = at; i < at + count; i++) {
        s->existing -= s->pages[i].exists != MISSING ? SPK_PAGE : 0;
        s->huge -= s->pages[i].exists == HUGE_PART ? SPK_PAGE : 0;
        s->pages[i].exists = exists;
    }
    s->existing += exists != MISSING ? count * SPK_PAGE : 0;
    s->huge += exists == HUGE_PART ? count * SPK_PAGE : 0;
}

static int
reserve(struct spk_segment *s, uint32_t at, uint32_t count)
{
    uint32_t i = 0;

    while (i < count) {
        uint32_t start = i, n;

        if (s->pages[at + i].exists != MISSING) {
            i++;
            continue;
        }
        while (i < count && s->pages[at + i].exists == MISSING)
            i++;
        n = i - start;
        if (spk_region_reserve(&s->region, (at + start) * SPK_PAGE, n * SPK_PAGE) != 0)
            return SPOKE_ENOMEM;
        set_exist(s, at + start, n, ORDINARY);
    }
    return 0;
}

static bool
has_pages(const struct spk_segment *s, uint32_t at, uint32_t count)
{
    for (uint32_t i = at; i < at + count; i++)
        if (s->pages[i].exists != MISSING)
            return true;
    return false;
}

/* Returns the errno of the first one that fails, 0: none, or it is not the first. */
static int
make_huge(struct spk_segment *s, uint32_t at)
{
    int error = spk_region_make_huge(&s->region, at * SPK_PAGE, s->per_huge * SPK_PAGE);

    if (error == 0)
        set_exist(s, at, s->per_huge, HUGE_PART);
    else if (s->huge_failed++ == 0)
        return error;
    return 0;
}

/* Have the first `count` pages of a block exist, in huge ones if that can be: tried once for each
 * place, so that it costs little where they are scarce.  *huge_error: as make_huge(). */
static int
make_exist(struct spk_segment *s, uint32_t at, uint32_t count, int *huge_error)
{
    uint32_t end = at + count, next;

    if (s->per_huge == 0)
        return reserve(s, at, count);
    for (; at < end; at = next) {
        uint32_t place = at & ~(s->per_huge - 1);
        bool empty = !has_pages(s, place, s->per_huge);
        int error;

        next = place + s->per_huge < end ? place + s->per_huge : end;
        if (reserve(s, at, next - at) != 0)
            return SPOKE_ENOMEM;
        if (empty && (error = make_huge(s, place)) != 0)
            *huge_error = error;
    }
    return 0;
}

/* Those of a free block, from its end on, as its start is what is used next; `most` bytes of them.
 */
static void
give_pages_back(struct spk_segment *s, uint32_t at, uint32_t count, size_t most)
{
    size_t before = s->existing;
    uint32_t from = at + count;

    while (from > at && before - s->existing < most) {
        uint32_t n = s->pages[from - 1].exists == HUGE_PART ? s->per_huge : 1;

        if (n > count) /* of a huge page whose other parts are somebody's */
            return;
        from -= n;
        set_exist(s, from, n, MISSING);
    }
    if (s->existing < before)
        spk_region_give_back(&s->region, from * SPK_PAGE, (at + count - from) * SPK_PAGE);
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

static void
tell_no_huge_pages(const char *why)
{
    spk_log(SPOKE_LOG_WARNING,
            "large messages lie in ordinary pages, there is no huge one to be had: %s (option "
            "shm-huge-pages)",
            why);
}

struct spk_chunk *
spk_segment_alloc(struct spk_segment *s, size_t size)
{
    struct spk_chunk *c = NULL;
    int huge_error = 0;
    uint32_t at = NONE;
    unsigned order;

    if (size > s->region.size)
        return NULL;
    order = order_for(size);
    pthread_mutex_lock(&s->lock);
    if ((at = get_block(s, order)) != NONE) {
        s->used += SPK_PAGE << order;
        if (make_exist(s, at, (uint32_t)((size + SPK_PAGE - 1) / SPK_PAGE), &huge_error) != 0) {
            free_block(s, at);
            at = NONE;
        }
    }
    s->failed += at == NONE;
    pthread_mutex_unlock(&s->lock);
    if (huge_error != 0)
        tell_no_huge_pages(strerror(huge_error));
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
    *out = (struct spk_segment_stats){.used = s->used,
                                      .pages = s->existing,
                                      .huge = s->huge,
                                      .failed = s->failed,
                                      .huge_failed = s->huge_failed};
    pthread_mutex_unlock(&s->lock);
}

/* ---- life ---- */

/* Of what was wished for, what can be had. */
static void
grant(struct spk_segment *s, const struct spk_segment_wish *wish)
{
    size_t huge = spk_huge_page();
    int rc;

    if (wish->huge_pages && huge > 0 && huge <= s->region.size) {
        s->per_huge = (uint32_t)(huge / SPK_PAGE);
    } else if (wish->huge_pages) {
        s->huge_failed = 1;
        tell_no_huge_pages(huge > 0 ? "shm-segment is less than one" : "the kernel makes none");
    }
    if (wish->node != SPK_ANY_NODE && (rc = spk_region_place(&s->region, wish->node)) != 0)
        spk_log(SPOKE_LOG_WARNING,
                "large messages lie in any node's memory, not in that of %d: %s (option "
                "shm-numa-node)",
                wish->node, spoke_strerror(rc));
}

int
spk_segment_new(struct spk_segment **out, size_t most, const struct spk_segment_wish *wish)
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
    grant(s, wish);
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
