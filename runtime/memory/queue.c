/* SPDX-License-Identifier: MIT */
/* The queue: a ring that doubles when it is full.  A ring that was large gives its memory back when
 * it runs empty. */
#include "runtime/memory/queue.h"

#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"

#define SLOTS_MIN  8u
#define SLOTS_KEPT 1024u /* while empty */
#define SLOTS_MAX  (1u << 31)
#define AHEAD      4u /* a message is fetched into the cache so many before its turn */

size_t
spk_queue_cost(const spoke_msg *m)
{
    return m->size + m->header_size + sizeof *m;
}

void
spk_queue_init(struct spk_queue *q, uint32_t max_messages, size_t max_bytes)
{
    *q = (struct spk_queue){.max_messages = max_messages, .max_bytes = max_bytes};
}

void
spk_queue_fini(struct spk_queue *q)
{
    for (spoke_msg *m; (m = spk_queue_pop(q)) != NULL;)
        spoke_msg_free(m);
    spk_free(q->slots);
    q->slots = NULL;
}

/* The last message may reach over the bound in bytes, so that a queue that is not full takes any
 * message. */
bool
spk_queue_full(const struct spk_queue *q)
{
    return q->count >= q->max_messages || q->bytes >= q->max_bytes;
}

static uint32_t
slot_count(const struct spk_queue *q)
{
    return q->slots == NULL ? 0 : q->mask + 1;
}

static int
grow(struct spk_queue *q)
{
    uint32_t old = slot_count(q), slots = old > 0 ? old * 2 : SLOTS_MIN;

    if (old == SLOTS_MAX)
        return SPOKE_ENOMEM;
    spoke_msg **ring = spk_zalloc(slots * sizeof *ring);
    if (ring == NULL)
        return SPOKE_ENOMEM;
    for (uint32_t i = 0; i < q->count; i++)
        ring[i] = q->slots[(q->head + i) & q->mask];
    spk_free(q->slots);
    q->slots = ring;
    q->mask = slots - 1;
    q->head = 0;
    return 0;
}

int
spk_queue_force(struct spk_queue *q, spoke_msg *m)
{
    if (q->count == slot_count(q)) {
        int rc = grow(q);
        if (rc != 0)
            return rc;
    }
    q->slots[(q->head + q->count) & q->mask] = m;
    q->count++;
    q->bytes += spk_queue_cost(m);
    if (q->count > q->high)
        q->high = q->count;
    return 0;
}

int
spk_queue_push(struct spk_queue *q, spoke_msg *m)
{
    return spk_queue_full(q) ? SPOKE_EAGAIN : spk_queue_force(q, m);
}

spoke_msg *
spk_queue_pop(struct spk_queue *q)
{
    if (q->count == 0)
        return NULL;
    spoke_msg *m = q->slots[q->head];
    if (q->count > AHEAD) /* whoever put it there may have been another CPU */
        spk_msg_prefetch(q->slots[(q->head + AHEAD) & q->mask]);
    q->head = (q->head + 1) & q->mask;
    q->count--;
    q->bytes -= spk_queue_cost(m);
    if (q->count == 0 && q->mask >= SLOTS_KEPT) {
        spk_free(q->slots);
        q->slots = NULL;
        q->mask = q->head = 0;
    }
    return m;
}
