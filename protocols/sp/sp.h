/* SPDX-License-Identifier: MIT */
/* What the Scalability Protocols have in common: words in front of a body, and messages that wait
 * to be sent.  Bytes: docs/wire.md.  Runs, as everything in this folder, with the engine entered.
 */
#ifndef SPK_SP_SP_H
#define SPK_SP_SP_H

#include <spoke/protocol.h>

#include "runtime/memory/idmap.h"
#include "runtime/memory/message.h"
#include "runtime/memory/queue.h"

#define SPK_SP_WORD   4u                   /* bytes of one */
#define SPK_SP_ID_BIT UINT32_C(0x80000000) /* set in the last word of a backtrace only: the id */

#define SPK_SP_TTL_DEFAULT 8
#define SPK_SP_TTL_MOST    255
#define SPK_SP_PIPE_QUEUE                                                                          \
    64u /* messages that wait for one pipe: it may be that of a device, or of a                    \
           socket with many contexts */

/* Move the words of a received message, up to and including the id, into its header; whatever else
 * was there is body afterwards.  Looks at `words_most` words and no more.
 * Errors: SPOKE_EPROTO it ends before the id; SPOKE_ELIMIT more words; SPOKE_ENOMEM. */
int spk_sp_parse(spoke_msg *m, size_t words_most);

/* Make all of the header but its first `size` bytes a part of the body again. */
int spk_sp_return_tail(spoke_msg *m, size_t size);

/* SPOKE_OPT_TTL, where a protocol has it: value of the option, from and to the user. */
#define SPK_SP_TTL_DEFAULT 8
#define SPK_SP_TTL_MOST    255
int spk_sp_set_ttl(int *ttl, const void *value); /* SPOKE_ERANGE */
int spk_sp_get_ttl(int ttl, void *value, size_t *size);

/* For those who never hold a peer up: deliver m, or drop and count it if the receive queue is full.
 * Takes m. */
void spk_sp_deliver_or_drop(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m);

/* Free a message that cannot be used, and give `error` back; SPOKE_EPROTO counts as garbled. */
int spk_sp_reject(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m, int error);

/* For those that put no words in front: make all that has come the body. */
static inline int
spk_sp_no_words(spoke_msg *m)
{
    return m->header_size > 0 ? spk_msg_flatten(m) : 0;
}

/* For those that only send: what a peer says all the same. */
int spk_sp_discard(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m);

/* Raw REQ and SURVEYOR: deliver a message with all its words in the header. */
int spk_sp_deliver_raw(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m);

/* The ids of what waits for answers: the id bit is set, the start is random, each is one more than
 * the one before, and none is in use twice. */
struct spk_sp_ids {
    uint32_t last;
    struct spk_idmap live;
};
void spk_sp_ids_init(struct spk_sp_ids *ids, struct spk_socket *s);
void spk_sp_ids_fini(struct spk_sp_ids *ids);
int spk_sp_ids_take(struct spk_sp_ids *ids, void *owner, uint32_t *id); /* SPOKE_ENOMEM */
void spk_sp_ids_give(struct spk_sp_ids *ids, uint32_t id); /* harmless if it is not in use */
/* Take the id off an answer that arrived, and give its owner.  *owner is NULL if it has none (any
 * more): then m has been freed and counted as stale.  On error too it has been freed. */
int spk_sp_ids_match(struct spk_sp_ids *ids, struct spk_socket *s, struct spk_pipe *p, spoke_msg *m,
                     void **owner);

/* A user's message in two steps, so that a send that fails leaves it as it was.  First give a
 * message with the same body and these words as its only header: `m` itself, or a clone where
 * others see `m`. Then say how it went: 0 = *out was taken. */
int spk_sp_put_header(spoke_msg **out, spoke_msg *m, const void *words, size_t size);
int spk_sp_settle(spoke_msg *m, spoke_msg *out, int result);

/* The socket's send queue, where a protocol has one: bounded as the options say. */
void spk_sp_bound_queue(struct spk_socket *s, struct spk_queue *q);
int spk_sp_enqueue(struct spk_socket *s, struct spk_queue *q, spoke_msg *m);
size_t spk_sp_queued(const struct spk_queue *q, uint64_t *bytes);
/* The end of a queue: what waits in it is lost with its pipe, or, without one, left at the close.
 */
void spk_sp_end_queue(struct spk_socket *s, struct spk_pipe *p, struct spk_queue *q);

/* Give a pipe the next message of a queue that is not empty; a pipe that fails to take it is
 * closed, and the message is lost with it.  And all that it takes. */
void spk_sp_send_next(struct spk_socket *s, struct spk_queue *q, struct spk_pipe *p);
void spk_sp_send_waiting(struct spk_socket *s, struct spk_queue *q, struct spk_pipe *p);

#endif
