/* SPDX-License-Identifier: MIT */
/* A pipe over a byte stream, for the three files that make it: framing.c is its life, framing_out.c
 * and framing_in.c are its messages.  What happens for each message stays within one of them. */
#ifndef SPK_CORE_FRAMING_H
#define SPK_CORE_FRAMING_H

#include "runtime/core/core.h"
#include "runtime/core/upgrade.h"

#define SPK_HANDSHAKE_SIZE 8u
#define SPK_HEAD_MOST      14u /* type byte and length: 9; a frame's of WebSocket: 14 */

/* The type byte of a message, where there is one. */
enum { SPK_TYPE_MESSAGE = 1, SPK_TYPE_MOVED = 2 };

struct spk_framing_out;
struct spk_framing;

/* Another way to greet, and other bytes around the messages (ws).  All of them are asked with the
 * engine entered. */
struct spk_wire {
    /* The stream has begun: spk_pipe_shook_hands() once the peer is known, or spk_pipe_shut(). */
    void (*greet)(struct spk_framing *f);
    /* A message as it leaves, put together in one place: how many bytes it has with this length,
     * at most SPK_HEAD_MOST more if it is small; and write them, returning how many. */
    size_t (*whole_size)(const struct spk_framing *f, size_t length);
    size_t (*put_whole)(struct spk_framing *f, uint8_t *to, const spoke_msg *m);
    /* May a large one of this length leave where it is, behind a head?  And write that, returning
     * how many bytes it has. */
    bool (*goes_as_it_is)(const struct spk_framing *f, size_t length);
    size_t (*put_head)(const struct spk_framing *f, uint8_t *head, size_t length);
    /* Where the message ends of which the first byte is at `at`. */
    const uint8_t *(*end_of)(const uint8_t *at);
    void (*wrote)(struct spk_framing *f); /* something; there is room for spk_framing_put() */
    /* As parse() and spk_framing_deliver_left() in framing_in.c. */
    size_t (*parse)(struct spk_framing *f, struct spk_chunk *chunk, uint8_t *data, size_t size,
                    int most);
    void (*deliver_left)(struct spk_framing *f);
    /* Bytes of a body have been received into their place: true if the message is whole. */
    bool (*arrived)(struct spk_framing *f, size_t n);
    void (*part)(struct spk_framing *f); /* close the stream, with the last word if there is one */
    void (*free)(struct spk_framing *f); /* f->wire_state */
    const char *(*text)(const struct spk_framing *f, const char *name); /* a property, or NULL */
};

struct spk_framing {
    struct spk_pipe pipe;
    struct spk_stream *st;       /* NULL: closed */
    const struct spk_wire *wire; /* NULL: that of SP over streams */
    void *wire_state;
    bool type_byte, closing;
    bool beginning;         /* the stream has to do something before the handshake */
    bool greeted;           /* the handshake is done */
    struct spk_timer timer; /* for the handshake, then for the rest of a message */
    uint8_t hello[SPK_HANDSHAKE_SIZE];
    uint8_t hello_have;

    /* into shared memory */
    struct spk_upgrade upgrade;
    int unix_fd;              /* of the stream, if it can be upgraded; else -1 */
    struct spk_shm *shm;      /* NULL: not upgraded */
    bool moved_out, moved_in; /* messages go, come through there */
    bool may_move, same_user; /* the first: nobody has offered it yet, and we may */
    bool shm_closed;
    int not_shm;   /* why there is none, 0: there is, or it has not been decided yet */
    bool lets_fds; /* sets of descriptors may come through the socket */
    struct spk_fds *fds, **fds_end;
    int fds_count;

    /* framing_out.c */
    struct spk_op send_op;
    bool awaits_room;   /* it writes nothing: the stream has something that is unsent */
    size_t left_behind; /* by the stream, when it was closed */
    struct spk_flush flush;
    struct spk_framing_out *out; /* NULL: nothing is to be written */
    uint64_t burst;              /* the engine's burst in which we last wrote at once */

    /* framing_in.c */
    struct spk_op recv_op;
    spoke_ns idle_ns; /* SPOKE_OPT_IDLE_TIMEOUT */
    bool is_late;     /* that has passed, but for what the engine may not have read yet */
    uint8_t head[SPK_HEAD_MOST]; /* of the message that is arriving */
    uint8_t head_have;
    spoke_msg *body; /* … and its body so far: size = what has arrived */
    size_t body_size;
    struct spk_chunk *left; /* what arrived while we were held back */
    uint8_t *left_data;
    size_t left_size;
};

static inline struct spk_framing *
spk_framing_of(struct spk_pipe *p)
{
    return SPK_OWNER(p, struct spk_framing, pipe);
}

static inline struct spk_engine *
spk_framing_engine(struct spk_framing *f)
{
    return f->pipe.socket->e;
}

/* Of the bytes in front of a message. */
static inline size_t
spk_framing_head_size(const struct spk_framing *f)
{
    return f->type_byte ? 9 : 8;
}

/* A pipe of a stream, which speaks like this.  Takes st. */
int spk_framing_start_with(struct spk_endpoint *endpoint, struct spk_stream *st,
                           const struct spk_wire *wire, void *wire_state);

/* ---- framing.c ---- */

/* The stream has begun, or a read has ended, while the pipe is STARTING. */
void spk_framing_on_hello(struct spk_framing *f, int result);
void spk_framing_greeted(struct spk_framing *f); /* by a good peer */
void spk_framing_start_upgrade(struct spk_framing *f);
/* The peer's messages come through shared memory from here on; `rest` bytes are behind that. */
void spk_framing_move_in(struct spk_framing *f, size_t rest);
void spk_framing_on_end(struct spk_framing *f); /* the stream is readable once they do */
/* While f->closing: an operation has ended, it may have been the last one. */
void spk_framing_maybe_closed(struct spk_framing *f);

/* Before a message goes and after a read, while f->may_move.  A connection that is seldom used
 * stays a socket, which needs less memory and fewer descriptors. */
static inline void
spk_framing_consider_moving(struct spk_framing *f)
{
    const struct spoke_pipe_stats *stats = &f->pipe.stats;

    if (stats->messages_sent + stats->messages_received >= f->pipe.endpoint->options.upgrade_after)
        spk_framing_start_upgrade(f);
}

/* ---- framing_out.c ---- */

void spk_framing_out_init(struct spk_framing *f);
void spk_framing_drop_out(struct spk_framing *f); /* whatever is still to be written */
/* Put bytes that are no message behind what is to be written.  False: no memory. */
bool spk_framing_put(struct spk_framing *f, const uint8_t *bytes, size_t size);
/* Let the ring write what is there; no write is outstanding. */
void spk_framing_write_more(struct spk_framing *f);

bool spk_framing_is_written(const struct spk_framing *f); /* all that was to be */

/* Those of struct spk_pipe_ops. */
int spk_framing_send(struct spk_pipe *p, spoke_msg *m);
int spk_framing_send_many(struct spk_pipe *p, spoke_msg **messages, int count, uint64_t *bytes);
void spk_framing_flush(struct spk_pipe *p);
uint64_t spk_framing_pending(struct spk_pipe *p, uint64_t *bytes);
void spk_framing_give_back(struct spk_pipe *p);

/* ---- framing_in.c ---- */

void spk_framing_in_init(struct spk_framing *f);
void spk_framing_drop_in(struct spk_framing *f); /* whatever has not been delivered */
/* Keep bytes of `chunk` that cannot be delivered now; there are no others. */
void spk_framing_keep_left(struct spk_framing *f, struct spk_chunk *chunk, uint8_t *data,
                           size_t size);
/* At the end: deliver what arrived whole, as far as the queue takes it. */
void spk_framing_deliver_left(struct spk_framing *f);
/* For wires: begin a body that is to have `length` bytes, of which `have` are at `data`; add bytes
 * to it, as many as it still wants, and return how many; a message of so many bytes, whose chunk is
 * at hand.  The first two shut the pipe if there is no memory. */
bool spk_framing_begin_body(struct spk_framing *f, uint64_t length, const uint8_t *data,
                            size_t have);
size_t spk_framing_continue_body(struct spk_framing *f, const uint8_t *data, size_t size);
bool spk_framing_deliver_body(struct spk_framing *f); /* false: deliver no more for now */
spoke_msg *spk_framing_whole_message(struct spk_chunk *chunk, uint8_t *data, size_t size);
enum { SPK_RUN_MOST = 64 }; /* small messages that are made together */
/* Of struct spk_pipe_ops; also begins to deliver. */
void spk_framing_resume(struct spk_pipe *p, int most);

#endif
