/* SPDX-License-Identifier: MIT */
/* Streams from the inside: struct spk_conn is what a spoke_stream is.
 *
 *   stream.c   the calls: reading, writing, waiting, deadlines, the end
 *   connect.c  how streams come about: listeners, dialing, the hidden socket whose pipes carry them
 *   bytes.c    over a transport that carries bytes: they are moved by plain calls
 *   frames.c   over pipes, which carry messages: with windows, and words for what TCP says with
 * flags
 *   pair.c     both ends on one engine
 *   mux/       many over one
 *
 * Everything runs with the engine entered. */
#ifndef SPK_STREAM_CONN_H
#define SPK_STREAM_CONN_H

#include <spoke/stream.h>

#include "runtime/core/core.h"
#include "runtime/engine/fds.h"

struct spk_conn;

/* What carries a stream's bytes.  None of these waits. */
struct spk_carrier {
    /* Straight into the reader's memory, while c->input is empty: bytes, SPOKE_EAGAIN, or another
     * error, which is the end (SPOKE_EOF).  NULL: everything comes through spk_conn_input(). */
    int64_t (*read)(struct spk_conn *c, void *buffer, size_t size);
    /* There was nothing: see that spk_conn_input() or spk_conn_ends() is called when there is.
     * `awaited`: a caller waits.  May be NULL, too. */
    void (*want_input)(struct spk_conn *c, bool awaited);
    /* So many bytes of c->input have been read, or thrown away.  May be NULL. */
    void (*consumed)(struct spk_conn *c, size_t size);
    /* A message whose body of `size` bytes write_message hands over as it is; NULL: none.  May be
     * NULL. */
    spoke_msg *(*loan)(struct spk_conn *c, size_t size);
    /* Bytes that were taken, at least one; SPOKE_EAGAIN: spk_conn_writable() will be called; or
     * another error, which is the end of writing. */
    int64_t (*write)(struct spk_conn *c, const struct iovec *buffers, int count);
    /* The same for a whole message: takes it and returns 0.  SPOKE_ENOTSUP: as it is not, or not
     * now, its bytes are written instead.  May be NULL. */
    int (*write_message)(struct spk_conn *c, spoke_msg *m);
    int (*close_write)(struct spk_conn *c);
    void (*close_read)(struct spk_conn *c);
    void (*abort)(struct spk_conn *c, uint64_t code);
    /* Nobody uses the stream any more; both halves are closed.  What was taken is handed over, at
     * most until `deadline`, then spk_conn_gone() is called, perhaps at once. */
    void (*finish)(struct spk_conn *c, spoke_ns deadline);
    int (*address)(struct spk_conn *c, bool local, char *text, size_t size);
    size_t (*unsent)(const struct spk_conn *c); /* bytes; may be NULL */
    /* spoke_stream_get().  NULL: it knows nothing. */
    int (*property)(struct spk_conn *c, const char *name, enum spoke_type type, void *value,
                    size_t *size);

    /* Descriptors.  NULL: it passes none.  See spk_conn_passes_fds() and spk_conn_try_write_fds();
     * all that came with a byte are given to spk_conn_input_fds() before the byte. */
    bool (*passes_fds)(struct spk_conn *c);
    int64_t (*write_fds)(struct spk_conn *c, const struct iovec *buffers, int count, const int *fds,
                         int n);
    /* So many that came have been taken, or closed.  May be NULL. */
    void (*consumed_fds)(struct spk_conn *c, int n);
};

struct spk_half {
    struct spk_link waiters, selects;
    spoke_ns deadline;
    bool busy; /* a call is at it: others wait for their turn */
    bool shut; /* by this end */
    int end;   /* 0, or what its calls give, reads when c->input is empty */
};

struct spk_conn {
    struct spk_link link;   /* in its listener's `pending` until it is accepted */
    struct spk_link of_all; /* streams of the engine */
    spoke_stream *handle;   /* NULL until somebody has it */
    struct spk_engine *e;
    struct spk_endpoint *dialer; /* who is to bring it, or has; its own only */
    /* The same of a mux: nobody wants it any more, for this reason.  NULL: no mux dials. */
    void (*undial)(struct spk_conn *c, uint64_t code);
    struct spk_task *taker; /* of what has taken it over from its user: queued when anything has
                               changed */
    const struct spk_carrier *carrier; /* NULL while it is dialing */
    void *state;                       /* the carrier's */
    struct spk_half read, write;
    spoke_msg *input, **input_end; /* what has arrived */
    size_t input_size;
    size_t given_back; /* of it, by spoke_stream_unread(): the carrier knows nothing of them */
    struct spk_fds *sets, **sets_end; /* of descriptors that have come, too */
    size_t window;
    spoke_ns linger_ns, busy_poll_ns;
    struct spk_link dial_waiters, close_waiters;
    bool open; /* the carrier can be asked: not before spk_conn_opened(), nor after spk_conn_gone()
                */
    bool write_full;  /* the carrier took nothing, spk_conn_writable() follows */
    bool lets_fds;    /* … come: spk_conn_passes_fds() was true */
    bool fds_due;     /* descriptors would still be lost: spk_conn_writable() follows */
    bool closed;      /* the handle is gone */
    bool lost;        /* not everything that was written has been handed over */
    uint32_t callers; /* inside a call: the last one frees it */
    uint32_t holds;   /* the same, of calls that only wait for a callback's end */
    struct spoke_stream_info info;

    struct spk_join *join; /* it is part of; NULL: of none */

    /* for those who do not wait */
    spoke_stream_ready_f *on_ready;
    void *on_ready_ctx;
    unsigned awaited; /* SPOKE_STREAM_…: to be told */
    bool telling;     /* inside on_ready, one of `callers` */
    struct spk_task ready_task;
    int fds[2]; /* eventfds, readable and writable; -1: nobody asked */
    bool fds_on[2];
};

/* What is known of it besides, by the carrier. */
static inline int
spk_conn_property(struct spk_conn *c, const char *name, enum spoke_type type, void *value,
                  size_t *size)
{
    return c->carrier->property != NULL ? c->carrier->property(c, name, type, value, size)
                                        : SPOKE_EOPTION;
}

/* ---- connect.c ---- */
/* Of a configuration that is used later: what it points to is ours, until it is dropped. */
int spk_stream_config_keep(spoke_stream_config *config);
void spk_stream_config_drop(spoke_stream_config *config);
void spk_conn_stop_dialing(struct spk_conn *c);
int spk_conn_wait_dialed(struct spk_conn *c, spoke_ns deadline);

/* As spoke_stream_from_fd(), with the engine entered, which has streams. */
int spk_conn_from_fd(struct spk_conn **out, int fd, const spoke_stream_config *config,
                     struct spk_engine *e);

/* Something that is made of streams, and closes before them when their engine does. */
struct spk_layer {
    struct spk_link link;
    void (*closing)(struct spk_layer *l);
};
void spk_layer_add(struct spk_engine *e, struct spk_layer *l);
/* Enter an engine, NULL: the shared one, that can have streams, and layers, from then on. */
int spk_streams_enter(spoke_engine *handle, struct spk_engine **e);
/* The list of the engine's streams, for spk_conn_new(). */
struct spk_link *spk_streams_of(struct spk_engine *e);

/* ---- stream.c ---- */
struct spk_conn *spk_conn_new(struct spk_engine *e, struct spk_link *all,
                              const spoke_stream_config *config, size_t window);
/* As spoke_stream_on_ready(). */
void spk_conn_watch(struct spk_conn *c, spoke_stream_ready_f *fn, void *ctx);
void spk_set_ready_fd(int fd, bool *on, bool want);
int spk_new_ready_fd(struct spk_engine *e, int *fd);
int spk_conn_give_handle(struct spk_conn *c);
void spk_conn_free_if_done(struct spk_conn *c);
#define SPK_PIECE ((size_t)64 * 1024) /* of what is written, in one message */
/* How much of some buffers goes at once, if so much is allowed.  And its bytes, into one place. */
size_t spk_piece(const struct iovec *buffers, int count, uint64_t most);
void spk_gather(uint8_t *to, size_t size, const struct iovec *buffers);
/* The body of a message that others may hold, and whose header is the user's, as one that may be
 * queued. */
int spk_own_message(spoke_msg **mine, const spoke_msg *m);
/* The user has it no more, or never had it; it ends by itself.  Returns until when it may take. */
spoke_ns spk_conn_let_go(struct spk_conn *c);
/* Of carriers and connect.c: what has happened. */
void spk_conn_opened(struct spk_conn *c, const struct spk_carrier *carrier, void *state);
void spk_conn_input(struct spk_conn *c, spoke_msg *m); /* takes m */
/* A set that came with the byte that is given next.  Takes it. */
void spk_conn_input_fds(struct spk_conn *c, struct spk_fds *set);
void spk_conn_ends(struct spk_conn *c, int reason);    /* nothing more comes */
void spk_conn_stopped(struct spk_conn *c, int reason); /* nothing more can be written */
void spk_conn_writable(struct spk_conn *c);
void spk_conn_gone(struct spk_conn *c,
                   int reason); /* the pipe is: both, unless it had ended already */

/* Where `size` bytes can be added to a message, in memory of ours that nobody else sees; NULL: not.
 */
uint8_t *spk_room_behind(const spoke_msg *m, size_t size);
/* The same for small pieces, which are copied together.  SPOKE_ENOMEM: they are lost. */
int spk_conn_input_bytes(struct spk_conn *c, const uint8_t *data, size_t size);

/* ---- stream.c, for what takes a stream over ---- */

/* Find the stream of a handle and enter its engine; the caller leaves it. */
int spk_conn_enter(spoke_stream *handle, struct spk_conn **c);
/* Wait until their callbacks that run have returned, where that is possible.  False: one was closed
 * or taken meanwhile, and may be gone. */
bool spk_conn_await_calls(struct spk_conn *const *conns, int count);
/* May it be taken, once its callback does not run?  SPOKE_EBUSY: some call waits on it;
 * SPOKE_ESTATE; SPOKE_ECLOSED, also meanwhile: it may be gone; why it has ended. */
int spk_conn_check_take(struct spk_conn *c);
/* Take it: the handle is closed.  From now on `taker` is queued when there is something to read or
 * room to write, or when either has ended. */
void spk_conn_take(struct spk_conn *c, struct spk_task *taker);
/* Without waiting: the next piece of what has arrived, NULL if there is none now: c->read.end, if
 * not 0, is the end.  `awaited`: as in want_input. */
spoke_msg *spk_conn_take_input(struct spk_conn *c, bool awaited);
/* The same by a read that is made now, for who has just had much and expects more.  NULL: there is
 * nothing, or the carrier brings what it has by itself. */
spoke_msg *spk_conn_read_now(struct spk_conn *c);
void spk_conn_want_input(struct spk_conn *c, bool awaited);
/* Bytes that were taken, SPOKE_EAGAIN, or another error, which is the end of writing. */
int64_t spk_conn_try_write(struct spk_conn *c, const struct iovec *buffers, int count);
void spk_conn_shut_write(struct spk_conn *c);
void spk_conn_shut_read(struct spk_conn *c);

/* Descriptors go along with the bytes of some streams: those of a mux that has agreed on it with
 * its peer (pass_fds in its configuration), and those that can carry such a mux: over unix sockets,
 * shm, inproc and pairs, but not in a simulated world.  A set of them belongs to one byte.
 *
 * Does this one pass any?  A stream that is none of a mux lets them in from the first such call on,
 * and no sooner than c->fds_due is false: what reads it otherwise takes the bytes and closes what
 * came with them. */
bool spk_conn_passes_fds(struct spk_conn *c);
/* As spk_conn_try_write(), with n (1 … SPK_FDS_MOST) descriptors at the first byte.  Takes them if
 * it takes any bytes, be it fewer than there are; the rest is written by spk_conn_try_write().
 * SPOKE_EAGAIN also while too many are on their way: spk_conn_writable() follows.
 * SPOKE_ELIMIT: of this user's, in the whole system; for a while.  SPOKE_EINVAL: one is none, or
 * one of io_uring, which cannot be passed.  After both the stream goes on.  SPOKE_ENOTSUP. */
int64_t spk_conn_try_write_fds(struct spk_conn *c, const struct iovec *buffers, int count,
                               const int *fds, int n);
/* The set that came with what spk_conn_take_input() has given, the oldest one; NULL: there is none
 * (any more).  The caller's.
 *
 * The byte that a set came with begins a piece, so that after each piece this gives the set of its
 * first byte, or none.  (Only over unix sockets it may lie further back in the piece, by what the
 * reader has left of the one before: see docs/wire.md.)  What is not taken by the end of the stream
 * is closed. */
struct spk_fds *spk_conn_take_fds(struct spk_conn *c);
int spk_conn_count_fds(const struct spk_conn *c); /* sets that it would give now */

/* Close it.  What was written still leaves, at most for its linger_ns. */
void spk_conn_give_up(struct spk_conn *c);

/* ---- stream.c, for messages that carry streams ---- */

/* Nobody waits in a call on it, and nobody is to be told anything. */
bool spk_conn_is_idle(const struct spk_conn *c);
/* Another handle for it; the old one is closed. */
spoke_stream *spk_conn_renew(struct spk_conn *c);
/* Abort and close it. */
void spk_conn_cancel(struct spk_conn *c, uint64_t code);

/* ---- bytes.c and frames.c ---- */
extern const struct spk_pipe_ops spk_bytes_pipe_ops;
/* Let a pipe of these operations carry the stream. */
void spk_bytes_open(struct spk_conn *c, struct spk_pipe *p);
void spk_bytes_close(struct spk_pipe *p); /* the pipe ends */
/* Let the messages of `p` carry it. */
int spk_frames_open(struct spk_conn *c, struct spk_pipe *p);
int spk_frames_close(struct spk_conn *c,
                     int reason); /* the pipe ends, for this reason; gives the stream's */
int spk_frames_received(struct spk_conn *c, spoke_msg *m); /* takes m */
void spk_frames_writable(struct spk_conn *c);

/* ---- join.c ---- */
struct spk_join;
void spk_join_closed(struct spk_join *j, const struct spk_conn *c);
/* As spoke_stream_join(), of two that have handles and are not joined, with the engine entered. */
int spk_join_start(struct spk_conn *const *conns, spoke_stream_done_f *done, void *ctx);

/* ---- pair.c ---- */
void spk_pair_open(struct spk_conn *a, struct spk_conn *b);

#endif
