/* SPDX-License-Identifier: MIT */
/* For authors of protocols: what a pattern registers, and what the core offers it.
 *
 * A protocol is compiled into the library: one file, its vtable at the end, and one line in
 * runtime/core/modules.def.  It knows sockets, pipes and messages, never a transport or a backend.
 * All its functions run with the engine entered, one at a time for all sockets of the engine; they
 * never wait, and never call the user.  The core calls them from its own events or from the user's
 * calls, never from inside one another on the same socket, except that spk_socket_take() and
 * spk_socket_filter() may lead to received() for what had been held back. */
#ifndef SPOKE_PROTOCOL_H
#define SPOKE_PROTOCOL_H

#include <spoke/error.h>
#include <spoke/message.h>
#include <spoke/option.h>
#include <spoke/stats.h>
#include <spoke/timer.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPOKE_PROTOCOL_ABI 1u

struct spk_socket;  /* the core's side of a socket; its protocol's state hangs on it */
struct spk_pipe;    /* one attached peer */
struct spk_context; /* one conversation: a socket has its own, and whatever the user opens */

enum { SPK_READABLE = 1, SPK_WRITABLE = 2 };

/* An option that a protocol adds.  The core has checked the type; set() checks the range. */
struct spk_option {
    const char *name;
    enum spoke_type type;
    bool early; /* only before the first dial or listen: else SPOKE_ETOOLATE */
    int (*set)(void *owner, const void *value, size_t size); /* NULL: read-only */
    int (*get)(void *owner, void *value, size_t *size);      /* NULL: write-only */
};

struct spoke_protocol {
    uint32_t abi; /* SPOKE_PROTOCOL_ABI */
    uint16_t number, peer;
    const char *name;     /* "req" */
    bool sends, receives; /* else spoke_send / spoke_recv give SPOKE_ENOTSUP */
    bool drops;  /* received() drops what the receive queue has no room for: pipes never wait for
                    the user, so they do not take turns either */
    bool copies; /* a message that send() took goes to all peers: none of them has _the_ message,
                    and none comes back (spoke_socket_on_undelivered()) */
    int losses;  /* how many of enum spoke_loss it knows; 0: it has no SPOKE_OPT_LOSS */
    size_t socket_size, pipe_size; /* state, zeroed, allocated by the core */

    int (*open)(struct spk_socket *s); /* 0 or an error; may be NULL, like every slot below unless
                                          it says otherwise */
    void (*closing)(struct spk_socket *s); /* endpoints and pipes are about to end */
    void (*close)(struct spk_socket *s);   /* no pipes are left; frees what the state holds */

    int (*pipe_added)(struct spk_socket *s,
                      struct spk_pipe *p); /* an error refuses the peer: it is closed */
    void (*pipe_removed)(struct spk_socket *s, struct spk_pipe *p); /* once for each one added */

    /* A message arrived; takes it, whatever happens.  An error closes the pipe with that reason.
     * NULL: the user gets messages as they come (spk_socket_deliver(), what is left of a header in
     * front of the body), which the core then does for many at once; recv is NULL too. */
    int (*received)(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m);
    /* The pipe, whose spk_pipe_send() gave SPOKE_EAGAIN or which has just been added, can take a
     * message. */
    void (*writable)(struct spk_socket *s, struct spk_pipe *p);

    /* The user's calls, without waiting: 0 (send took m; recv gives *m), SPOKE_EAGAIN (the core
     * waits for spk_socket_wake() and tries again), or the user's error.  A failure changes
     * nothing. */
    int (*send)(struct spk_socket *s, spoke_msg *m);
    int (*recv)(struct spk_socket *s, spoke_msg **m); /* NULL: spk_socket_take() */

    /* The pipe that send() would give the next messages to, one after the other, as long as they
     * have no header and it can take them; the core then gives it many at once.  NULL: ask send()
     * for each, as it does if this slot is NULL. */
    struct spk_pipe *(*send_to)(struct spk_socket *s);

    bool passes_on;      /* what comes may go on to other peers, whether anybody receives or not */
    bool may_send_later; /* send() of a socket that is not raw only queues, whatever happens in
                            between: the core may have it done by another thread */

    /* SPK_READABLE | SPK_WRITABLE as far as recv() and send() would not give SPOKE_EAGAIN. */
    unsigned (*ready)(struct spk_socket *s); /* required */

    /* Messages that send() took and that are not yet given to a pipe: what a lingering close waits
     * for. */
    size_t (*pending)(struct spk_socket *s, uint64_t *bytes);

    const struct spk_option *options;              /* ends with a NULL name */
    void (*options_changed)(struct spk_socket *s); /* one of the socket's own: queue lengths, raw */

    /* Conversations, for patterns that can have several at a time.  The core opens the socket's own
     * one after open(), and closes it with the others before close(): then no pipes are left.  send
     * and recv above are about that one (or raw); these two are about any, and as those. */
    size_t context_size; /* state, zeroed, allocated by the core; 0: the pattern has no contexts,
                            and none of these slots */
    bool shares_recv;    /* any of them may receive what spk_socket_deliver() has queued */
    int (*context_open)(
        struct spk_context *c); /* 0 or an error; options are those of the own one */
    void (*context_close)(struct spk_context *c); /* also while the socket lives on */
    int (*context_send)(struct spk_context *c, spoke_msg *m);
    int (*context_recv)(struct spk_context *c, spoke_msg **m);
    /* SPK_READABLE | SPK_WRITABLE as far as these two would not give SPOKE_EAGAIN but something
     * else, be it an error.  (`ready` may say of errors what users of descriptors expect.) */
    unsigned (*context_ready)(struct spk_context *c);
    const struct spk_option *context_options; /* their owner is the context; the socket has them
                                                 too, for its own one and for those opened later */
};

/* ---- what the core offers ---- */

void *spk_socket_state(struct spk_socket *s);
struct spoke_stats *spk_socket_counters(struct spk_socket *s);
bool spk_socket_raw(const struct spk_socket *s);
int spk_socket_send_queue(const struct spk_socket *s,
                          size_t *bytes); /* SPOKE_OPT_SEND_QUEUE and …_BYTES */
int spk_socket_recv_queue(const struct spk_socket *s,
                          size_t *bytes); /* SPOKE_OPT_RECV_QUEUE and …_BYTES */
spoke_ns spk_socket_now(struct spk_socket *s);
uint32_t spk_socket_random(struct spk_socket *s);

void *spk_pipe_state(struct spk_pipe *p);
spoke_pipe_id spk_pipe_id(const struct spk_pipe *p);
struct spoke_pipe_stats *spk_pipe_counters(struct spk_pipe *p);
enum spoke_loss spk_pipe_loss(const struct spk_pipe *p); /* SPOKE_OPT_LOSS, now */
/* The live pipe of this socket with that number, or NULL. */
struct spk_pipe *spk_socket_pipe(struct spk_socket *s, spoke_pipe_id id);

/* The receive queue, bounded by SPOKE_OPT_RECV_QUEUE.  deliver() takes m always: if the queue is
 * full it holds m back together with the pipe, which reads no further until there is room.  take()
 * gives the oldest, fairly between pipes that were held back; SPOKE_EAGAIN if there is none. */
void spk_socket_deliver(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m);
int spk_socket_take(struct spk_socket *s, spoke_msg **m);
bool spk_socket_has_message(const struct spk_socket *s);
bool spk_socket_recv_full(const struct spk_socket *s);
/* Drop the oldest message of the receive queue, as SPK_DROP_RECV_FULL; false if there is none. */
bool spk_socket_drop_oldest(struct spk_socket *s);
/* Free what has arrived and keep(), which counts it, does not want (any more). */
void spk_socket_filter(struct spk_socket *s, bool (*keep)(void *s, const spoke_msg *m));
/* This pipe is read on whether or not others have had their turn: what there is no room for is
 * dropped. */
void spk_pipe_keep_reading(struct spk_pipe *p);

/* Sending.  A pipe takes messages while it can send; send() takes m on success, SPOKE_EAGAIN leaves
 * it. A message taken may still be lost with its pipe. */
bool spk_pipe_can_send(const struct spk_pipe *p);
int spk_pipe_send(struct spk_pipe *p, spoke_msg *m);
/* Takes the first of many as far as that is simple and returns how many, perhaps none: what stopped
 * it goes to spk_pipe_send().  Adds the size of the bodies that it took to *bytes. */
int spk_pipe_send_many(struct spk_pipe *p, spoke_msg **messages, int count, uint64_t *bytes);
/* The pipe whose turn it is among those of the best priority that can send, round robin in the
 * order of attachment; NULL if there is none. */
struct spk_pipe *spk_socket_next_writable(struct spk_socket *s);
/* Whether there is one; its turn stays as it is. */
bool spk_socket_can_send(const struct spk_socket *s);

/* Drops.  Each reason has a counter in struct spoke_stats and, but for the first two, one of the
 * same name in struct spoke_pipe_stats. */
enum spk_drop {
    SPK_DROP_BEST_EFFORT,
    SPK_DROP_NO_PEER,
    SPK_DROP_EXPIRED,
    SPK_DROP_PEER_FULL,
    SPK_DROP_CONFLATED,
    SPK_DROP_RECV_FULL,
    SPK_DROP_UNWANTED,
    SPK_DROP_STALE,
    SPK_DROP_TTL,
    SPK_DROP_LOST, /* taken, and kept for a pipe that ends: in the report of a close that lingers
                      too */
    SPK_DROP_GARBLED,
    SPK_DROP_LEFT /* taken, and still there when the socket or context closes: not counted here, the
                     close reports it */
};
/* Free m, or give it back to the user who sent it, and count it.  It came from `p` or was meant for
 * it; NULL: that is gone, or was none. */
void spk_drop(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m, enum spk_drop why);
/* Only count, what is not there or somebody else frees. */
void spk_count_drops(struct spk_socket *s, struct spk_pipe *p, enum spk_drop why, uint64_t count);

/* Close a pipe soon (pipe_removed follows later, not inside this call). */
void spk_pipe_shut(struct spk_pipe *p, int reason);

/* Something changed that send() (SPK_WRITABLE) or recv() (SPK_READABLE) depends on: those who wait
 * try again, descriptors and callbacks follow ready().  Waking for a state error wakes all: set
 * SPK_ALL. */
enum { SPK_ALL = 4 };
void spk_socket_wake(struct spk_socket *s, unsigned what);

/* Contexts.  Their state is there from context_open() to context_close(). */
void *spk_context_state(struct spk_context *c);
struct spk_socket *spk_context_socket(struct spk_context *c);
struct spk_context *spk_socket_context(struct spk_socket *s); /* its own */
/* What context_recv() depends on has changed in this one: those who wait in it try again, all of
 * them. */
void spk_context_wake(struct spk_context *c);
/* Those who wait in a receive now return `error` without another try: what they wait for will not
 * come, although a receive that starts later may wait for something else.  (REQ: another request
 * takes the place of theirs.  recv cannot tell the two apart.)  True if there is anybody. */
bool spk_context_fail_recv(struct spk_context *c, int error);

/* Timers of the protocol; embed one in the state.  SPOKE_ENOMEM: not set. */
int spk_socket_timer_set(struct spk_socket *s, struct spk_timer *timer, spoke_ns after_ns);
void spk_socket_timer_cancel(struct spk_socket *s, struct spk_timer *timer);

#ifdef __cplusplus
}
#endif

#endif
