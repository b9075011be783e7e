/* SPDX-License-Identifier: MIT */
/* The ring of records of one direction, and who is asleep.  Nothing here knows of engines, sockets
 * or messages; tests/unit/shmmodel.c walks through its interleavings. */
#include "runtime/core/shmring.h"

#include <string.h>

_Static_assert(sizeof(struct spk_shm_half) <= SPK_SHM_RETURNS, "it has a page of its own");

int
spk_shm_look(struct spk_shm_writer *w)
{
    uint64_t head = atomic_load_explicit(&w->theirs->head, memory_order_acquire);

    if (head - w->seen_head > w->at - w->seen_head) /* behind what it has read, or ahead of us */
        return SPOKE_EPROTO;
    w->seen_head = head;
    return 0;
}

void
spk_shm_fall_asleep(struct spk_shm_half *mine, uint32_t wants)
{
    uint32_t was = atomic_load_explicit(&mine->asleep, memory_order_relaxed);

    atomic_store_explicit(&mine->asleep, (was | SPK_SHM_WANTS) + 1 + wants, memory_order_relaxed);
    SPK_STOP_POINT(ASLEEP);
    /* Say so, then look; the other end writes, then looks at this (spk_shm_must_ring()): one of
     * the two sees the other. */
    atomic_thread_fence(memory_order_seq_cst);
}

void
spk_shm_wake_up(struct spk_shm_half *mine)
{
    uint32_t was = atomic_load_explicit(&mine->asleep, memory_order_relaxed);

    if ((was & SPK_SHM_WANTS) == 0)
        return;
    atomic_store_explicit(&mine->asleep, was & ~(uint32_t)SPK_SHM_WANTS, memory_order_relaxed);
    SPK_STOP_POINT(AWAKE);
}

bool
spk_shm_must_ring(const struct spk_shm_half *theirs, uint32_t what, uint32_t *rung)
{
    uint32_t asleep;

    atomic_thread_fence(memory_order_seq_cst); /* pairs with that of spk_shm_fall_asleep() */
    asleep = atomic_load_explicit(&theirs->asleep, memory_order_relaxed);
    if ((asleep & what) == 0 || asleep == *rung)
        return false;
    *rung = asleep;
    return true;
}
