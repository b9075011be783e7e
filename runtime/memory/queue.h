/* SPDX-License-Identifier: MIT */
/* A queue of messages with a bound in messages and one in bytes.  One message always fits into an
 * empty queue of a bound above 0. Used by one thread at a time (the engine's, or whoever holds its
 * lock). */
#ifndef SPK_MEMORY_QUEUE_H
#define SPK_MEMORY_QUEUE_H

#include <spoke/message.h>

struct spk_queue {
    spoke_msg **slots; /* a ring, its size a power of two; grows up to the bound */
    uint32_t mask, head, count;
    uint32_t max_messages;
    size_t bytes, max_bytes;
    uint32_t high; /* most that it ever held */
};

void spk_queue_init(struct spk_queue *q, uint32_t max_messages, size_t max_bytes);
void spk_queue_fini(struct spk_queue *q); /* frees what is in it */

bool spk_queue_full(const struct spk_queue *q);
int spk_queue_push(struct spk_queue *q,
                   spoke_msg *m); /* takes m; SPOKE_EAGAIN when full, SPOKE_ENOMEM */
int spk_queue_force(struct spk_queue *q, spoke_msg *m); /* the same without regard to the bounds */
spoke_msg *spk_queue_pop(struct spk_queue *q);          /* NULL when empty */

/* The same for several: memory for `count` more, then put them in, whatever the bounds say; take up
 * to `count` of the oldest, returns how many. */
int spk_queue_reserve(struct spk_queue *q, uint32_t count);
void spk_queue_force_many(struct spk_queue *q, spoke_msg **messages, uint32_t count);
uint32_t spk_queue_pop_many(struct spk_queue *q, spoke_msg **messages, uint32_t count);

/* The oldest where they lie, the first *run of them next to each other; and away with `count` of
 * these, which somebody has taken and which counted for `cost`. */
spoke_msg **spk_queue_front(const struct spk_queue *q, uint32_t *run);
void spk_queue_drop(struct spk_queue *q, uint32_t count, size_t cost);
spoke_msg *spk_queue_remove(struct spk_queue *q, uint32_t index); /* from the oldest, which is 0 */

/* The same as push, in front of those of a lower priority.  Takes time in proportion to their
 * number. */
int spk_queue_push_ranked(struct spk_queue *q, spoke_msg *m);
/* Free those that keep() does not want; returns how many. */
uint32_t spk_queue_filter(struct spk_queue *q, bool (*keep)(void *ctx, const spoke_msg *m),
                          void *ctx);

/* What a message counts for: body, header and a share for the object itself. */
size_t spk_queue_cost(const spoke_msg *m);

#endif
