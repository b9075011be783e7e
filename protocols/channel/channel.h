/* SPDX-License-Identifier: MIT */
/* Channels from the inside.
 *
 *   channel.c   a bounded queue of messages with two ends, and who is told of what
 *   ends.c      the users' calls on senders and receivers
 *   attach.c    what messages carry
 *   frame.c     the wire, without I/O            wire.c      a channel on a stream of a session
 *   meta.c      what openings say                session.c   streams, roles, limits, the calls
 *
 * A channel is a ring of messages.  At each of its ends is a user with a handle, a message to which
 * that end is attached, or a taker: a task of the library's, which is queued when there is
 * something to do for it.  So a channel inside the process has two users, one that leads to a
 * session a user and a wire, and one that came over a session and went on over another two wires.
 *
 * Pushing and popping need no engine, only the lock of that side, which is held for a few
 * instructions and is the innermost one.  Everything else runs with the engine entered: waiting,
 * takers, the end.  Who waits says so under the *other* side's lock, so that the next one there
 * sees it and has the engine look.  A channel's memory is never given back to the allocator:
 * whoever comes late with a handle may look at it safely. */
#ifndef SPK_CHANNEL_CHANNEL_H
#define SPK_CHANNEL_CHANNEL_H

#include <pthread.h>
#include <stdatomic.h>

#include <spoke/channel.h>

#include "runtime/engine/engine.h"
#include "runtime/engine/handle.h"
#include "runtime/engine/select.h"
#include "runtime/memory/local.h"
#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"
#include "runtime/stream/conn.h"

#define SPK_CHANNEL_TEXT 256u

enum spk_channel_side { SPK_SENDS, SPK_RECEIVES };

/* With the engine. */
struct spk_channel_end {
    void *handle;            /* a user's or a message's; NULL: a taker's, or nobody is there */
    struct spk_task *taker;  /* NULL: none */
    struct spk_link waiters; /* calls that wait for messages, or for room */
    struct spk_link syncs;   /* sender: for messages to be taken */
    struct spk_link selects;
    struct spk_link *also; /* receiver: who copies from it waits there; NULL: nobody does */
    uint32_t callers;      /* inside a call that waits */
    uint32_t copiers;      /* sender: calls that copy to it */
    uint32_t awaiting;     /* receiver: calls that take the next message, if they find one */
    bool closed;           /* nobody is there, or will be */
    bool watched, awaited; /* there is a callback; it is to be called */
    void *on_ready_ctx;
    struct spk_task ready_task;
    int fd; /* eventfd; -1: nobody asked */
    bool fd_on;
    const spoke_value_type *type; /* its user's; NULL: not known */
};

struct spk_channel {
    struct spk_link link; /* among the spare ones */
    struct spk_layer layer;
    struct spk_engine *e;
    unsigned fork_generation;
    bool live;
    spoke_msg **slots;
    uint32_t mask;
    size_t depth, max_message;
    spoke_ns busy_poll_ns; /* of calls that wait: the engine's, or its carrier's */
    bool has_fingerprint;  /* it is known what the type is */
    uint8_t fingerprint[SPOKE_FINGERPRINT];
    enum spoke_form form; /* of values that are sent from now on */
    bool has_layout;      /* what those in SPOKE_FORM_LAYOUT have */
    uint8_t layout[SPOKE_FINGERPRINT];
    /* May this leave?  Asked of messages that carry something, under the lock.  NULL: all may. */
    int (*admit)(const struct spk_channel *ch, const spoke_msg *m);
    /* A message, that came with this number as its pipe, is no value.  NULL: that ends the channel.
     */
    void (*blame)(struct spk_channel *ch, spoke_pipe_id pipe);
    uint64_t taken;           /* by the receiver, as far as a taker there knows */
    uint64_t sync_to;         /* … and how many somebody waits for */
    uint64_t dropped_at;      /* who received had so many when the rest was dropped */
    uint64_t handing;         /* without depth: the message that a send waits with; 0: none */
    struct spk_errand errand; /* to look */
    struct spk_channel_end ends[2];
    spoke_sender_ready_f *on_sender_ready;
    spoke_receiver_ready_f *on_receiver_ready;
    uint64_t abort_code;
    char text[SPK_CHANNEL_TEXT];

    /* Who sends. */
    uint8_t apart[SPK_CACHE_LINE]; /* allocated memory is aligned for less */
    pthread_mutex_t tx_lock;
    void *tx_handle; /* of the user who may; NULL: not without the engine */
    _Atomic uint64_t tail;
    uint64_t limit_seen;
    int tx_end;    /* 0, or what a receive gives when all is taken */
    int rx_end;    /* 0, or what a send gives */
    bool rx_waits; /* for messages or the end: to be told */

    /* Who receives. */
    uint8_t apart_too[SPK_CACHE_LINE];
    pthread_mutex_t rx_lock;
    void *rx_handle;
    _Atomic uint64_t head;
    uint64_t tail_seen;
    _Atomic uint64_t limit; /* the number of messages that may have been pushed */
    bool limit_is_takers;   /* else it is `depth` more than have been popped */
    bool tx_waits;          /* for room: to be told */
    uint64_t tell_at;       /* … or when so many have been popped */
};

/* ---- channel.c ---- */
/* Make one, with no one at its ends.  SPOKE_ENOMEM. */
int spk_channel_new(struct spk_channel **out, struct spk_engine *e,
                    const spoke_channel_config *config);
int spk_channel_check_config(const spoke_channel_config *config);
/* Give it back, if nobody is left at its ends. */
void spk_channel_free_if_done(struct spk_channel *ch);

/* Any thread.  Push: 0 and m is taken; SPOKE_EAGAIN there is no room; or why nobody receives.  Pop:
 * NULL, there is none.  `handle` NULL: with the engine.  *tell: the engine is to look, by
 * spk_channel_tell(). */
int spk_channel_push(struct spk_channel *ch, const void *handle, spoke_msg *m, bool *tell);
/* With the engine, of what has come from elsewhere: nobody has it who could be told that it cannot
 * leave, so what takes it breaks off. */
int spk_channel_forward(struct spk_channel *ch, spoke_msg *m, bool *tell);
spoke_msg *spk_channel_pop(struct spk_channel *ch, const void *handle, bool *tell);
void spk_channel_tell(struct spk_channel *ch); /* without the engine, shared ones only */
/* With the engine: who waits, or has asked to be told, is. */
void spk_channel_look(struct spk_channel *ch);
void spk_channel_look_at(struct spk_channel *ch, enum spk_channel_side side);

/* Take the last one back, if it has this number and has not been popped. */
bool spk_channel_withdraw(struct spk_channel *ch, uint64_t number);
/* With the engine.  May the one that is popped next, if there is one, go into `to`?  As a send. */
int spk_channel_check_next(struct spk_channel *ch, const struct spk_channel *to);

/* With the engine: be told when there is a message or the end.  1: there is a message; 0: not yet;
 * or the end. */
int spk_channel_await_message(struct spk_channel *ch);
/* … when so many, ever, have been popped.  True: they have. */
bool spk_channel_await_popped(struct spk_channel *ch, uint64_t count);
/* … when there is room.  True: there is.  Always true of a channel whose receiver is gone. */
bool spk_channel_await_room(struct spk_channel *ch);
/* … when a taker that receives allows so many. */
void spk_channel_await_allowed(struct spk_channel *ch, uint64_t count);
uint64_t spk_channel_pushed(const struct spk_channel *ch);
uint64_t spk_channel_popped(const struct spk_channel *ch);
/* … and how many of them the receiver has got, as far as is known. */
uint64_t spk_channel_received(const struct spk_channel *ch);
/* A taker that receives says how many, ever, may be pushed, and how many the receiver has taken;
 * never less than before. */
void spk_channel_allow(struct spk_channel *ch, uint64_t count);
/* The peer takes no larger messages. */
void spk_channel_limit_size(struct spk_channel *ch, uint64_t most);
void spk_channel_taken(struct spk_channel *ch, uint64_t count);

/* What is known of the type by who uses it in this process; NULL: nothing. */
static inline const spoke_value_type *
spk_channel_type(const struct spk_channel *ch)
{
    const spoke_value_type *type = ch->ends[SPK_SENDS].type;

    return type != NULL ? type : ch->ends[SPK_RECEIVES].type;
}

/* A taker, in place of who is there, whose handle is closed.  It is queued at once, and whenever
 * what it waits for has come; a sender's syncs too. */
void spk_channel_take(struct spk_channel *ch, enum spk_channel_side side, struct spk_task *taker);
/* That side is over.  Sender: `reason` SPOKE_EOF or an error is what receives give in the end; with
 * `drops`, what has not been popped is dropped.  Receiver: what sends give; what is there is
 * dropped.  The first reason stays.  `text` may be NULL. */
void spk_channel_close(struct spk_channel *ch, enum spk_channel_side side, int reason, bool drops,
                       uint64_t code, const char *text);
/* Its sender, a taker, sends no more, and stays there to be told of what is taken. */
void spk_channel_stop(struct spk_channel *ch, int reason, uint64_t code, const char *text);
/* Its receiver has broken it off, and stays there to be told: receives give `reason` from now on,
 * sends SPOKE_EABORTED. */
void spk_channel_break(struct spk_channel *ch, int reason, uint64_t code, const char *text);

/* ---- ends.c ---- */
/* A handle for the user at that end, as spk_handle_new(). */
int spk_channel_give(struct spk_channel *ch, enum spk_channel_side side, void **handle);
/* Another handle for that end; the old one is closed. */
void *spk_channel_renew(struct spk_channel *ch, enum spk_channel_side side);
/* Find the channel of a handle and enter its engine. */
int spk_channel_enter(const void *handle, enum spk_channel_side side, struct spk_channel **ch);
void spk_channel_leave(struct spk_channel *ch);

/* ---- attach.c ---- */
#define SPK_ATTACHED_MOST SPOKE_ATTACHMENTS_PER_MESSAGE
struct spk_attachment {
    uint8_t kind, direction; /* SPOKE_ATTACHED_…, for the recipient; kind 0: taken */
    int fd;                  /* SPOKE_ATTACHED_FD */
    void *handle;            /* the others': a hidden one */
};
struct spk_attachments {
    struct spk_attached face;
    struct spk_engine *e; /* of the handles; NULL: there are none */
    uint64_t engine_number;
    unsigned fork_generation;
    struct spk_post post; /* to close them there */
    uint32_t count, room;
    struct spk_attachment items[];
};
/* Of a message; NULL: none. */
static inline struct spk_attachments *
spk_attachments_of(const spoke_msg *m)
{
    return m->carries ? SPK_OWNER(m->attached, struct spk_attachments, face) : NULL;
}
/* For who makes a message from the wire: room for so many, and add one, whose handle or descriptor
 * is taken. */
int spk_attachments_reserve(spoke_msg *m, uint32_t count, struct spk_engine *e);
void spk_attachments_add(spoke_msg *m, struct spk_attachment item);
/* Close what was attached last, and forget it. */
void spk_attachments_drop_last(spoke_msg *m);
/* With the engine: the channel at that handle, whose end is the caller's from then on, to take or
 * to close.  NULL: it has ended with its engine. */
struct spk_channel *spk_attachment_channel(struct spk_attachment *item);

#endif
