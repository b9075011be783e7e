/* SPDX-License-Identifier: MIT */
/* One channel on one stream of a session (docs/wire.md, "Channels").
 *
 *   wire.c      life, the end            wire_in.c   what each frame of the peer does
 *   wire_out.c  what is said next        end.c       the ring of a channel at this end of it
 *   carry.c     what messages carry      fds.c       descriptors that go as streams
 *
 * A wire's work is one task, queued by its stream and by its owner: read what the stream has, then
 * write what may leave.  Frames that answer are state, not a queue, so reading waits for nobody.
 * Messages are numbered from 1; counts are of all messages ever. */
#ifndef SPK_CHANNEL_WIRE_H
#define SPK_CHANNEL_WIRE_H

#include "protocols/channel/channel.h"
#include "protocols/channel/frame.h"
#include "protocols/channel/meta.h"

struct spk_session;
struct spk_wire;
struct spk_arrival;

/* Who has the messages: a channel's ring (end.c), or a port.  Each may queue w->task at any time.
 * With the engine, from inside the task. */
struct spk_wire_ops {
    /* Of wires that send.  The next message, whose owner the wire is, and its flags; NULL: there is
     * none now, and the task is queued when there is. */
    spoke_msg *(*next)(struct spk_wire *w, uint8_t *flags);
    /* There is none, and will be none: SPOKE_EOF, or another reason with *code and *text; 0: there
     * is, or may be.  May ask for a sync. */
    int (*end)(struct spk_wire *w, uint64_t *code, const char **text);
    /* A message has left; takes it.  NULL: it is freed. */
    void (*sent)(struct spk_wire *w, spoke_msg *m);
    /* The peer has accepted it, or allows more, or its application has taken more: w->limit,
     * w->acked. */
    void (*changed)(struct spk_wire *w);

    /* Of wires that receive.  Takes m; within what was granted. */
    void (*deliver)(struct spk_wire *w, spoke_msg *m);
    /* How many may be delivered, ever; how many of those that were have gone on; and how many the
     * application has taken.  `tell`: the task is to be queued when it is so many. */
    uint64_t (*room)(struct spk_wire *w, uint64_t tell);
    uint64_t (*popped)(struct spk_wire *w, uint64_t tell);
    uint64_t (*taken)(struct spk_wire *w, uint64_t tell);
    /* Does nobody receive any more?  0, or the error, with *code and *text for the peer. */
    int (*gone)(struct spk_wire *w, uint64_t *code, const char **text);

    /* It is over, once.  Sends: what sends give.  Receives: what receives do in the end. */
    void (*ended)(struct spk_wire *w, int reason, uint64_t code, const char *text);
    /* The wire goes, after that. */
    void (*released)(struct spk_wire *w);
};

/* Somebody waits for the outcome of an opening. */
struct spk_opening {
    struct spk_link waiters;
    bool done;
    int rc;
    uint64_t code;
};

enum spk_wire_due { SPK_WIRE_DUE_ACCEPT = 1, SPK_WIRE_DUE_SYNC = 2 };

struct spk_wire {
    struct spk_link link;    /* the session's */
    struct spk_link stalled; /* … of those that wait for memory */
    struct spk_session *ss;
    struct spk_conn *conn; /* NULL: it is over */
    uint64_t id;
    struct spk_task task;
    const struct spk_wire_ops *ops;
    void *owner;
    uint64_t base; /* the owner's: messages of before */
    struct spk_opening *opening;
    bool sends, is_ours, is_carried, has_layout;
    bool accepted; /* Accept has come, or been said */
    bool running, over;
    bool told;                         /* the owner, of the end */
    int lost_attachments;              /* why some that the peer opened could not wait; 0: none */
    uint8_t layout[SPOKE_FINGERPRINT]; /* of the messages' type here */
    uint8_t peer_layout[SPOKE_FINGERPRINT];
    bool same_layout;
    unsigned due;

    /* in */
    struct spk_frame_decoder in;
    spoke_msg *piece;        /* of the stream, … */
    size_t piece_at;         /* … decoded so far */
    spoke_msg *message;      /* as far as it has come */
    struct spk_link claimed; /* what it carries */
    struct spk_frame_attachment *carried;
    uint16_t carried_count;
    struct spk_fds *came; /* descriptors, with the head of the message that has begun */
    uint64_t named;       /* … which of them, by index */
    bool reserved;        /* its size is counted in the session's memory */
    uint64_t received;
    bool peer_closed, hangup; /* all have come; it says that there were more */
    /* … of a wire that receives */
    size_t depth;
    uint64_t granted, ack_told, ack_at, released;
    uint32_t *sizes; /* of those that are counted, by number */
    uint32_t mask;

    /* out */
    uint64_t sent, first_limit, limit, acked, sync_at;
    uint64_t max_message; /* of the peer */
    bool closing;         /* Close has been said */
    int failed;           /* why it cannot go on: there was no memory … */
    uint8_t out[SPK_FRAME_MOST];
    size_t out_size, out_at;
    spoke_msg *body; /* behind that */
    size_t body_at;
    int fds[SPOKE_ATTACHMENTS_PER_MESSAGE]; /* the body's, which go with the first byte */
    int fd_count;
};

/* ---- wire.c ---- */
struct spk_wire_config {
    const struct spk_wire_ops *ops;
    void *owner;
    bool sends, is_ours;
    bool is_carried;           /* opened for a message: nobody is asked whether it is wanted */
    size_t depth, max_message; /* of a wire that receives … */
    uint64_t granted;          /* … and what its peer may send at first */
    const spoke_value_type *type;
    const struct spk_meta *meta; /* the opener's; NULL: it is ours */
};
/* Takes `conn` on success, and says Accept if the peer has opened it. */
int spk_wire_new(struct spk_wire **out, struct spk_session *ss, struct spk_conn *conn, uint64_t id,
                 const struct spk_wire_config *config);
void spk_wire_kick(struct spk_wire *w);
/* The receiver is to say at once when its application has taken so many. */
void spk_wire_sync(struct spk_wire *w, uint64_t count);
/* What its owner has to know of the end, before it is over: the first time counts. */
void spk_wire_tell_end(struct spk_wire *w, int reason, uint64_t code, const char *text);
/* It is over: all has been said.  May free it. */
void spk_wire_end(struct spk_wire *w, int reason, uint64_t code, const char *text);
/* The same, after telling the peer why. */
void spk_wire_break(struct spk_wire *w, int reason, uint64_t code, const char *text);
/* Its session ends: what has arrived is delivered first.  Not from inside its task. */
void spk_wire_close(struct spk_wire *w);
/* The one that has the stream, NULL: none has. */
struct spk_wire *spk_wire_of(const struct spk_conn *c);
/* … who has broken the protocol, on this stream.  Gives SPOKE_EPROTO. */
int spk_wire_violation(struct spk_wire *w, uint64_t code, const char *text);
/* What a code says of the other end, for who sends or receives here. */
int spk_wire_reason(const struct spk_wire *w, uint64_t code);
/* `o` is told how its opening ends, and forgotten then.  NULL: nobody waits. */
void spk_wire_await(struct spk_wire *w, struct spk_opening *o);
void spk_wire_opened(struct spk_wire *w, int rc, uint64_t code);

/* ---- wire_in.c ---- */
void spk_wire_read(struct spk_wire *w);
void spk_wire_release(struct spk_wire *w, uint64_t popped);
void spk_wire_drop_input(struct spk_wire *w);

/* ---- wire_out.c ---- */
void spk_wire_write(struct spk_wire *w);
/* At once, if the stream takes it whole now. */
bool spk_wire_say_last(struct spk_wire *w, uint64_t code, const char *text);

/* ---- carry.c ---- */
/* What becomes of descriptors: nothing, streams in their places, or themselves. */
enum spk_fds_way { SPK_FDS_NONE, SPK_FDS_PROXIES, SPK_FDS_PASS };
/* Once the peer is known. */
enum spk_fds_way spk_carry_way(const struct spk_session *ss);
/* Open what m carries to the peer, and describe it behind w->out.  Errors: it cannot be sent. */
int spk_carry_out(struct spk_wire *w, spoke_msg *m);
/* The descriptors of w->body have left. */
void spk_carry_passed(struct spk_wire *w);
/* A set of descriptors has come with the byte that is read next; takes it. */
int spk_carry_fds_came(struct spk_wire *w, struct spk_fds *set);
/* … and this is the head of their message. */
int spk_carry_begin(struct spk_wire *w);
/* The peer has named something: the wire's from now on. */
int spk_carry_claim(struct spk_wire *w, const struct spk_frame_attachment *a);
/* Attach what was named to w->message. */
int spk_carry_in(struct spk_wire *w);
void spk_carry_drop(struct spk_wire *w);
/* Could it leave over a session? */
int spk_carry_check(const struct spk_channel *ch, const spoke_msg *m, enum spk_fds_way way);

/* ---- end.c ---- */
/* A wire at this side of a channel, which has nobody there, or whose user it replaces.  `config`
 * without ops and owner.  Takes `conn` on success. */
int spk_end_open(struct spk_wire **out, struct spk_session *ss, struct spk_conn *conn, uint64_t id,
                 struct spk_channel *ch, const struct spk_wire_config *config);
/* What the opening of such a wire says. */
struct spk_meta spk_end_meta(const struct spk_channel *ch, enum spk_role role, bool sends,
                             uint64_t parent);
/* Nothing is taken from who sends before the peer allows it: of a new channel, before its handle is
 * given. */
void spk_end_hold(struct spk_channel *ch);
/* How many messages may come into it. */
uint64_t spk_end_room(const struct spk_channel *ch);

/* ---- fds.c ---- */
/* A stream in place of a descriptor, which it takes on success.  SPOKE_ENOTSUP: none can be. */
int spk_stand_in(struct spk_conn **out, struct spk_engine *e, int fd, int direction);
int spk_stand_in_check(int fd);

#endif
