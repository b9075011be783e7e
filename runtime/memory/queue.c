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

int
spk_queue_reserve(struct spk_queue *q, uint32_t count)
{
    while (slot_count(q) - q->count < count) {
        int rc = grow(q);
        if (rc != 0)
            return rc;
    }
    return 0;
}

int
spk_queue_push_ranked(struct spk_queue *q, spoke_msg *m)
{
    int rc = spk_queue_push(q, m);
    uint32_t at = q->head + q->count - 1;

    if (rc != 0)
        return rc;
    for (uint32_t i = q->count - 1; i > 0; i--, at--) {
        spoke_msg **before = &q->slots[(at - 1) & q->mask];

        if ((*before)->priority <= m->priority)
            break;
        q->slots[at & q->mask] = *before;
        *before = m;
    }
    return 0;
}

void
spk_queue_force_many(struct spk_queue *q, spoke_msg **messages, uint32_t count)
{
    uint32_t tail = q->head + q->count;

    for (uint32_t i = 0; i < count; i++) {
        q->slots[(tail + i) & q->mask] = messages[i];
        q->bytes += spk_queue_cost(messages[i]);
    }
    q->count += count;
    if (q->count > q->high)
        q->high = q->count;
}

uint32_t
spk_queue_filter(struct spk_queue *q, bool (*keep)(void *ctx, const spoke_msg *m), void *ctx)
{
    uint32_t kept = 0, count = q->count;

    for (uint32_t i = 0; i < count; i++) {
        spoke_msg *m = q->slots[(q->head + i) & q->mask];

        if (keep(ctx, m)) {
            q->slots[(q->head + kept++) & q->mask] = m;
        } else {
            q->bytes -= spk_queue_cost(m);
            spoke_msg_free(m);
        }
    }
    q->count = kept;
    return count - kept;
}

spoke_msg *
spk_queue_pop(struct spk_queue *q)
{
    spoke_msg *m = NULL;

    spk_queue_pop_many(q, &m, 1);
    return m;
}

spoke_msg **
spk_queue_front(const struct spk_queue *q, uint32_t *run)
{
    uint32_t to_the_end = slot_count(q) - q->head;

    *run = q->count < to_the_end ? q->count : to_the_end;
    return q->slots + q->head;
}

void
spk_queue_drop(struct spk_queue *q, uint32_t count, size_t cost)
{
    q->bytes -= cost;
    q->head = (q->head + count) & q->mask;
    q->count -= count;
    if (q->count == 0 && q->mask >= SLOTS_KEPT) {
        spk_free(q->slots);
        q->slots = NULL;
        q->mask = q->head = 0;
    }
}

uint32_t
spk_queue_pop_many(struct spk_queue *q, spoke_msg **messages, uint32_t count)
{
    size_t cost = 0;

    if (count > q->count)
        count = q->count;
    for (uint32_t i = 0; i < count; i++) {
        if (q->count - i > AHEAD) /* whoever put it there may have been another CPU */
            spk_msg_prefetch(q->slots[(q->head + i + AHEAD) & q->mask]);
        messages[i] = q->slots[(q->head + i) & q->mask];
        cost += spk_queue_cost(messages[i]);
    }
    spk_queue_drop(q, count, cost);
    return count;
}

spoke_msg *
spk_queue_remove(struct spk_queue *q, uint32_t index)
{
    spoke_msg *m = q->slots[(q->head + index) & q->mask];

    for (uint32_t i = index; i + 1 < q->count; i++)
        q->slots[(q->head + i) & q->mask] = q->slots[(q->head + i + 1) & q->mask];
    q->count--;
    q->bytes -= spk_queue_cost(m);
    return m;
}
