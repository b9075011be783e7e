/* SPDX-License-Identifier: MIT */
/* The engine's timers: a heap of four children a node, the earliest at index 0.  Every timer knows
 * its index, so that it can be moved or taken out without a search.  The engine's thread only. */
#include <spoke/error.h>

#include "runtime/engine/engine.h"
#include "runtime/memory/pool.h"

#define CHILDREN 4u
#define ROOM_MIN 16u
#define NOT_SET  UINT32_MAX

static void
place(struct spk_timers *t, struct spk_timer *timer, uint32_t index)
{
    t->heap[index] = timer;
    timer->index = index;
}

/* Let `timer` rise from the free place `index` to where no parent is later. */
static void
rise(struct spk_timers *t, struct spk_timer *timer, uint32_t index)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / CHILDREN;
        if (t->heap[parent]->when <= timer->when)
            break;
        place(t, t->heap[parent], index);
        index = parent;
    }
    place(t, timer, index);
}

static uint32_t
earliest_child(const struct spk_timers *t, uint32_t first)
{
    uint32_t best = first;

    for (uint32_t i = first + 1; i < first + CHILDREN && i < t->count; i++)
        if (t->heap[i]->when < t->heap[best]->when)
            best = i;
    return best;
}

/* Let `timer` sink from the free place `index` to where no child is earlier. */
static void
sink(struct spk_timers *t, struct spk_timer *timer, uint32_t index)
{
    while (index * CHILDREN + 1 < t->count) {
        uint32_t child = earliest_child(t, index * CHILDREN + 1);
        if (timer->when <= t->heap[child]->when)
            break;
        place(t, t->heap[child], index);
        index = child;
    }
    place(t, timer, index);
}

static void
settle(struct spk_timers *t, struct spk_timer *timer, uint32_t index)
{
    if (index > 0 && timer->when < t->heap[(index - 1) / CHILDREN]->when)
        rise(t, timer, index);
    else
        sink(t, timer, index);
}

static int
make_room(struct spk_timers *t)
{
    if (t->count < t->room)
        return 0;
    if (t->room > UINT32_MAX / CHILDREN / 2) /* an index times CHILDREN must not overflow */
        return SPOKE_ENOMEM;
    uint32_t room = t->room > 0 ? t->room * 2 : ROOM_MIN;
    struct spk_timer **heap = spk_realloc(t->heap, room * sizeof *heap);
    if (heap == NULL)
        return SPOKE_ENOMEM;
    t->heap = heap;
    t->room = room;
    return 0;
}

void
spk_timers_fini(struct spk_timers *t)
{
    for (uint32_t i = 0; i < t->count; i++)
        t->heap[i]->index = NOT_SET;
    spk_free(t->heap);
    *t = (struct spk_timers){0};
}

spoke_ns
spk_timers_next(const struct spk_timers *t)
{
    return t->count > 0 ? t->heap[0]->when : SPOKE_FOREVER;
}

int
spk_timers_set(struct spk_timers *t, struct spk_timer *timer, spoke_ns when)
{
    if (spk_timer_is_set(timer)) {
        timer->when = when;
        settle(t, timer, timer->index);
        return 0;
    }
    int rc = make_room(t);
    if (rc != 0)
        return rc;
    timer->when = when;
    rise(t, timer, t->count++);
    return 0;
}

void
spk_timers_cancel(struct spk_timers *t, struct spk_timer *timer)
{
    uint32_t index = timer->index;

    if (!spk_timer_is_set(timer))
        return;
    timer->index = NOT_SET;
    struct spk_timer *last = t->heap[--t->count];
    if (last != timer)
        settle(t, last, index);
}

struct spk_timer *
spk_timers_due(struct spk_timers *t, spoke_ns now)
{
    if (t->count == 0 || t->heap[0]->when > now)
        return NULL;
    struct spk_timer *timer = t->heap[0];
    spk_timers_cancel(t, timer);
    return timer;
}
