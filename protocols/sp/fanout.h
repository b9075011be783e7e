/* SPDX-License-Identifier: MIT */
/* Sending to everybody: each peer gets the same message, shared, and has a queue of its own for
 * what its pipe cannot take.  What does not fit there is dropped for that peer alone and counted,
 * so that nobody waits for a slow one and memory is bounded. */
#ifndef SPK_SP_FANOUT_H
#define SPK_SP_FANOUT_H

#include "protocols/sp/sp.h"
#include "runtime/memory/list.h"

/* In the state of the socket. */
struct spk_fanout {
    struct spk_link peers; /* in the order of attachment */
    size_t count;
    size_t waiting; /* messages in all their queues */
    uint64_t waiting_bytes;
};

/* The state of each pipe, or the first thing in it. */
struct spk_fanout_peer {
    struct spk_link link;
    struct spk_pipe *pipe;
    struct spk_queue waiting;
};

void spk_fanout_init(struct spk_fanout *f);
/* From pipe_added(), pipe_removed() and writable(). */
void spk_fanout_add(struct spk_fanout *f, struct spk_pipe *p);
void spk_fanout_remove(struct spk_socket *s, struct spk_fanout *f, struct spk_pipe *p);
void spk_fanout_writable(struct spk_socket *s, struct spk_fanout *f, struct spk_pipe *p);

/* Send `m` as it is to every peer but `except` (may be NULL).  Takes it, whatever happens. */
void spk_fanout_send(struct spk_socket *s, struct spk_fanout *f, spoke_msg *m,
                     const struct spk_pipe *except);

/* What waits in the queues. */
size_t spk_fanout_pending(const struct spk_fanout *f, uint64_t *bytes);

#endif
