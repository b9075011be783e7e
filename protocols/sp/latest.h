/* SPDX-License-Identifier: MIT */
/* A queue of messages that holds one of each topic at most: a later one takes the place of the
 * earlier, at the end of the queue, so that what comes out is in the order in which it came in.
 * Its cost does not depend on how many topics there are.  Bounded as struct spk_queue is.  One
 * thread at a time. */
#ifndef SPK_SP_LATEST_H
#define SPK_SP_LATEST_H

#include <spoke/message.h>

#include "runtime/memory/list.h"

struct spk_latest {
    struct spk_link order;        /* of its notes, oldest first */
    struct spk_latest_note **map; /* by topic; a power of two of chains; NULL: nothing yet */
    uint32_t mask, count, max_messages;
    size_t bytes, max_bytes;
};

void spk_latest_init(struct spk_latest *l, uint32_t max_messages, size_t max_bytes);
void spk_latest_fini(struct spk_latest *l); /* frees what is in it */

bool spk_latest_full(const struct spk_latest *l);
/* Take out the waiting message whose topic is that of `m`, which is its first `topic` bytes; NULL:
 * none waits. */
spoke_msg *spk_latest_replace(struct spk_latest *l, const spoke_msg *m, size_t topic);
/* Takes m, whose topic is not there.  SPOKE_ENOMEM. */
int spk_latest_push(struct spk_latest *l, spoke_msg *m, size_t topic);
spoke_msg *spk_latest_pop(struct spk_latest *l); /* NULL when empty */

#endif
