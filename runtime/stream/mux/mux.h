/* SPDX-License-Identifier: MIT */
/* Multiplexers from the inside.
 *
 *   wire.c     the bytes, without I/O          in.c       what each message of the peer does
 *   out.c      what leaves next                streams.c  the streams' side: they are spk_conns
 *   window.c   windows, budgets, limits        mux.c      life, and the calls
 *   time.c     heartbeats, dead peers
 *
 * Everything runs with the engine entered.  A mux's work is one task: read what the carrier has,
 * and write what may leave.  Whatever changes something queues it (spk_mux_kick()), so that what is
 * done together leaves together, and nothing is nested.  Reading waits for nobody: what the peer
 * sends has room in its stream, by its window, or the peer has broken the protocol; what has to be
 * answered is state, not a queue. */
#ifndef SPK_STREAM_MUX_MUX_H
#define SPK_STREAM_MUX_MUX_H

#include <spoke/mux.h>

#include "runtime/stream/conn.h"
#include "runtime/stream/mux/wire.h"

#define SPK_MUX_PRIORITIES        8
#define SPK_MUX_LEAST_WINDOW      ((size_t)4096)
#define SPK_MUX_TURN_BYTES        ((size_t)16 * 1024)
#define SPK_MUX_COMPATIBLE_WINDOW ((size_t)65535)
#define SPK_MUX_PINGS             4               /* of the peer, not answered yet */
#define SPK_MUX_FDS_OUT           SPK_FDS_WAITING /* descriptors that the peer has not taken */
#define SPK_MUX_FDS_STEP          128u            /* … that it has, told together */

/* What a stream still has to say, in this order. */
enum spk_mux_due {
    SPK_MUX_DUE_OPEN = 1,
    SPK_MUX_DUE_ACCEPT = 2,
    SPK_MUX_DUE_CREDIT = 4,
    SPK_MUX_DUE_STOP = 8,
    /* … and these after its bytes */
    SPK_MUX_DUE_CLOSE_WRITE = 16,
    SPK_MUX_DUE_CLOSE = 32,
    SPK_MUX_DUE_RESET = 64,
    SPK_MUX_DUE_LAST = SPK_MUX_DUE_CLOSE_WRITE | SPK_MUX_DUE_CLOSE | SPK_MUX_DUE_RESET
};

/* Registered: messages with its id are for it.  It ends its registration when its user has closed
 * it, or either end has reset it, and lives on until what it has to say has left. */
struct spk_mux_stream {
    struct spk_mux *mux;
    struct spk_conn *conn; /* NULL: nobody has taken it, or has it any more */
    uint64_t id;
    struct spk_link of_all;  /* in mux->streams */
    struct spk_link pending; /* in mux->undecided or mux->pending */
    struct spk_link control; /* in mux->control, while something of `due` may leave */
    struct spk_link turn;    /* in mux->turns[priority], while it has bytes */
    struct spk_link room;    /* in mux->room: there was no room for its writer */
    unsigned due;
    uint8_t priority;
    bool is_ours, registered, established;
    bool named; /* what goes over another stream tells the peer of it: it is opened in any case */
    bool taken; /* does not wait to be accepted any more, perhaps for its answer */
    bool peer_ended, peer_closed, peer_stopped; /* it sends no more; is away; reads no more */
    bool write_ended;                           /* CLOSE_WRITE has left */
    bool data_lost;                             /* closed with something unread */
    bool finishing; /* closed by its user, who may wait until its bytes have left */
    bool writes;    /* counted in mux->writers */
    spoke_msg *meta;

    /* in: window = in_room + what is unread + owed */
    size_t window;
    uint64_t in_room; /* that the peer may send */
    size_t owed;      /* read, and not given back to the peer yet */
    size_t read;      /* … since `read_since`, to see whether the window should grow */
    spoke_ns read_since;
    size_t slack; /* of the memory that its unread bytes keep: see spk_mux_keep() */

    /* out */
    uint64_t credit; /* for bytes that are not in `out` yet */
    spoke_msg *out, **out_end;
    size_t out_size;
    struct spk_fds *out_fds, **out_fds_end; /* for those of `out` that are with them */
    struct spk_link fd_room;                /* in mux->fd_room: too many descriptors were out */
    size_t granted;     /* in a crowd: bytes that it may queue, as it was its turn; … */
    size_t had;         /* … those that it has queued since then, or before its first turn */
    uint64_t code;      /* of RESET and STOP */
    uint64_t last_code; /* of a RESET in place of the CLOSE; 0: none */

    uint64_t data_in, data_out, turns;
};

/* Bytes in `out` that leave in a message of their own, with descriptors: they have a header of one
 * byte. */
static inline bool
spk_mux_is_with_fds(const spoke_msg *m)
{
    return m->header_size > 0;
}

/* Streams by id: open addressing, half full at most. */
struct spk_mux_ids {
    struct spk_mux_stream **slots;
    size_t mask, count;
};

/* What is being written: pieces of memory, and whose they are. */
#define SPK_MUX_PIECES  64
#define SPK_MUX_SCRATCH (SPK_MUX_TURN_BYTES + SPK_MUX_HEAD_MOST) /* the rest of any message */
struct spk_mux_batch {
    struct spk_fds *fds; /* with its first byte; NULL: none */
    struct iovec pieces[SPK_MUX_PIECES];
    spoke_msg *owners[SPK_MUX_PIECES]; /* NULL: `scratch` */
    int count, at;
    size_t size, used;
    uint8_t scratch[SPK_MUX_SCRATCH];
};

/* A mux may be part of something else of the library's, which has it instead of a user with a
 * handle, and closes it before the engine does.  Called with the engine entered; none of these may
 * end the mux. */
struct spk_mux_user {
    /* The peer has introduced itself. */
    void (*heard)(struct spk_mux_user *u);
    /* The peer has opened a stream; st->meta is what it says of it.  SPOKE_MUX_NONE: it has been
     * accepted, or waits in mux->pending for spk_mux_accept_stream(); else why it is refused. */
    uint64_t (*opened)(struct spk_mux_user *u, struct spk_mux_stream *st);
    void (*ended)(struct spk_mux_user *u);
};

struct spk_mux {
    spoke_mux *handle; /* NULL: it is `user`'s */
    struct spk_mux_user *user;
    struct spk_engine *e;
    struct spk_layer layer;
    struct spk_conn *carrier;              /* NULL: it has ended */
    struct spk_task task, callback, again; /* again: to read, or tell, more */
    struct spk_flush flush;                /* what is held back, for more to go with it */
    uint64_t burst; /* the engine's, in which the carrier was last written to */
    struct spk_timer timer;
    spoke_mux_config config; /* without zeros */
    int depth;
    uint32_t callers;
    bool closed;  /* the handle is */
    bool awaited; /* callers have waited for what the carrier brings */

    /* the wire */
    bool known; /* which it is */
    bool native;
    bool preface_due, preface_heard;
    bool lets_fds, passes_fds; /* this end says so; both have */
    bool fds_next;             /* the next batch is one with descriptors */
    bool fds_limited;          /* … which the system has no room for */
    struct spk_mux_preface peer;
    struct spk_mux_decoder decoder;
    bool more; /* the carrier has more, which is read when readers had their turn */
    struct spk_mux_stream *into;    /* who gets the pieces that come now; NULL: nobody */
    struct spk_mux_stream *opening; /* … if they are its metadata */
    char *text;                     /* … or a goodbye's: in end.text */
    size_t text_size;

    /* streams */
    struct spk_mux_ids ids;
    struct spk_link streams, undecided, pending, control, room;
    struct spk_link turns[SPK_MUX_PRIORITIES];
    unsigned passed[SPK_MUX_PRIORITIES]; /* turns that went to others in front */
    uint64_t next_id, peer_last_id, accepted_id;
    uint64_t unasked; /* the peer's openings that were refused through no fault of its */
    bool exhausted;
    uint32_t waiting;       /* in undecided, pending, or opening */
    uint32_t ours, theirs;  /* registered */
    uint32_t objects;       /* in `streams`: those that are over and have something to say, too */
    uint32_t writers, busy; /* now; of late */
    size_t unsent;
    size_t granted; /* to the line, and not used yet, until all that were told have been called */
    size_t windows, slack;
    bool windows_short; /* some have less than their share of them, and none is left */
    const struct spk_mux_stream *kept_by; /* the last that keeps what is being read now */
    struct spk_link fd_room;
    uint32_t fds_queued;   /* descriptors that have not left */
    uint32_t fds_out;      /* … that have, and the peer has not given back */
    uint32_t fds_owed;     /* … of the peer's, that this end has not */
    unsigned credits_held; /* since the last write: those that wait for others */

    /* what the peer may do in 10 s, and what it has done in these */
    spoke_ns counted_since;
    uint64_t abandoned, control_bytes, data_bytes;
    uint32_t refused_in_a_row;

    /* the end */
    bool ended;
    bool leaves, peer_leaves; /* a goodbye was said: by this end, by the peer */
    bool go_away_due;
    bool shut; /* this end has ended the carrier's half */
    bool cut;  /* the linger was not enough */
    bool write_failed;
    uint64_t leave_code;
    char leave_text[256];
    spoke_ns linger_until; /* SPOKE_FOREVER: no limit */
    struct spoke_mux_end end;

    /* time */
    spoke_ns opened_ns, heard_ns, sent_ns, heartbeat_ns;
    spoke_ns doubt_ns; /* the peer seems dead, and is looked at then; SPOKE_FOREVER: it does not */
    spoke_ns doubted_ns; /* since when it has seemed so */
    int chances;         /* that it has left then */
    spoke_ns failed_ns;  /* when writing has */
    spoke_ns retry_ns;   /* to write, when there was no memory */
    spoke_ns stuck_ns;   /* since when the carrier takes nothing; SPOKE_FOREVER: it does */
    bool heartbeat_due;
    uint8_t pongs[SPK_MUX_PINGS][8];
    int pong_count;
    bool ping_due, ping_out;
    bool ping_again;        /* somebody asked while one was out */
    uint64_t pings, ponged; /* numbers of the last ones */
    uint64_t pinged_data;   /* info.data_in then */
    spoke_ns pinged_ns, rtt_ns, last_rtt_ns;

    struct spk_link accept_waiters, end_waiters, ping_waiters, selects;
    spoke_mux_open_f *on_open;
    spoke_mux_ready_f *on_ready;
    spoke_mux_closed_f *on_closed;
    void *on_open_ctx, *on_ready_ctx, *on_closed_ctx;
    bool ready_awaited;
    int fd;
    bool fd_on;
    struct spoke_mux_info info;
    struct spk_mux_batch batch;
};

/* ---- mux.c ---- */
static inline void
spk_mux_kick(struct spk_mux *m)
{
    if (!m->ended)
        spk_task_queue(m->e, &m->task);
}
/* What the task does, at once. */
void spk_mux_work(struct spk_mux *m);
/* It is over; the first reason wins.  `code` 0: in order.  Streams end, the carrier is closed. */
void spk_mux_end(struct spk_mux *m, int code, enum spoke_mux_origin origin, uint64_t wire_code,
                 const char *text);
/* The same, after telling a native peer why, if that can be done at once. */
void spk_mux_end_peer(struct spk_mux *m, int code, uint64_t wire_code, const char *text);
void spk_mux_tell_ready(struct spk_mux *m); /* a stream waits to be accepted */
void spk_mux_free_if_done(struct spk_mux *m);

/* ---- time.c ---- */
void spk_mux_set_timer(struct spk_mux *m); /* to what comes first now */
void spk_mux_on_time(struct spk_timer *timer);

/* For a struct spk_mux_user; all with the engine entered.  Makes a mux of a stream that can be
 * taken (spk_conn_check_take()).  Errors: as spoke_mux_open(). */
int spk_mux_new(struct spk_mux **out, struct spk_conn *carrier, const spoke_mux_config *config,
                struct spk_mux_user *user);
/* Streams without handles.  Errors: as spoke_mux_dial() and spoke_mux_accept(). */
int spk_mux_open_stream(struct spk_mux *m, const void *meta, size_t meta_size,
                        struct spk_conn **out, uint64_t *id);
/* What the peer makes of a stream that was opened and has a handle, until `deadline`: as
 * spoke_mux_dial().  After an error it is given up. */
int spk_mux_wait_opened(struct spk_mux *m, struct spk_conn *c, spoke_stream **out, uint64_t *code,
                        spoke_ns deadline);
int spk_mux_accept_stream(struct spk_mux_stream *st, struct spk_conn **out);
/* Reset a stream's mux end, or say that it is not wanted.  The conn is still to be given up. */
void spk_mux_reset_conn(struct spk_conn *c, uint64_t code);
/* The same once it is given up and its bytes have left. */
void spk_mux_reset_last(struct spk_conn *c, uint64_t code);
/* Somebody waits for what the peer says. */
void spk_mux_await(struct spk_mux *m);
/* Say goodbye; it ends when its streams have, or then. */
void spk_mux_leave(struct spk_mux *m, spoke_ns until);
/* It ends, if it has not.  And nobody has it any more. */
void spk_mux_close_now(struct spk_mux *m);
void spk_mux_let_go(struct spk_mux *m);
void spk_mux_fill_info(const struct spk_mux *m, struct spoke_mux_info *out);
/* Of a body with memory of its own, as much as there is room for, without a copy: as
 * spk_conn_try_write(). */
int64_t spk_mux_write_slice(struct spk_conn *c, const spoke_msg *m, size_t offset);

/* ---- in.c ---- */
void spk_mux_read(struct spk_mux *m);

/* ---- out.c ---- */
void spk_mux_write(struct spk_mux *m);
/* May it wait for what comes next, because somebody will write it soon? */
bool spk_mux_may_hold_back(const struct spk_mux *m);
void spk_mux_hold_back(struct spk_mux *m);
/* In a callback of one of a crowd: others that are called next are going to write too. */
bool spk_mux_others_follow(const struct spk_mux *m);
bool spk_mux_batch_empty(const struct spk_mux_batch *b);
void spk_mux_batch_drop(struct spk_mux_batch *b);
/* Its `due` or `out` has changed: it is among those that have something to say, and with schedule
 * somebody looks at them soon. */
void spk_mux_line_up(struct spk_mux_stream *st);
void spk_mux_schedule(struct spk_mux_stream *st);
/* Bytes that its writer may queue now. */
size_t spk_mux_room(struct spk_mux_stream *st);
void spk_mux_wait_for_room(struct spk_mux_stream *st);
void spk_mux_wait_no_more(struct spk_mux_stream *st);
void spk_mux_queue(struct spk_mux_stream *st, spoke_msg *m); /* takes m, within the room */
int spk_mux_queue_bytes(struct spk_mux_stream *st, size_t size, const struct iovec *buffers);
/* How many descriptors may be queued now.  And those that wait until there may be more are told. */
uint32_t spk_mux_fd_room(const struct spk_mux *m);
void spk_mux_tell_fd_room(struct spk_mux *m);
int spk_mux_queue_fds(struct spk_mux_stream *st, size_t size, const struct iovec *buffers,
                      const int *fds, int n);
/* Past the queue, if nothing else has to leave: bytes that were taken, 0: none, they are to be
 * queued. */
size_t spk_mux_write_through(struct spk_mux_stream *st, const struct iovec *buffers, int count);
void spk_mux_drop_out(struct spk_mux_stream *st);

/* ---- streams.c ---- */
struct spk_mux_stream *spk_mux_stream_new(struct spk_mux *m, uint64_t id, bool is_ours);
void spk_mux_unregister(struct spk_mux_stream *st);
void spk_mux_stream_free_if_done(struct spk_mux_stream *st);
/* Its user has it no more, or never will. */
void spk_mux_detach(struct spk_mux_stream *st, int reason);
/* End it from this end: Close on the compatible wire, else Reset. */
void spk_mux_reset(struct spk_mux_stream *st, uint64_t code);
void spk_mux_stream_opened(struct spk_mux_stream *st);
void spk_mux_undial(struct spk_conn *c, uint64_t code);
struct spk_mux_stream *spk_mux_stream_of(const struct spk_conn *c); /* NULL: none of a mux */
bool spk_mux_stream_is_finished(const struct spk_mux_stream *st);
struct spk_mux_stream *spk_mux_find(const struct spk_mux *m, uint64_t id);
void spk_mux_ids_fini(struct spk_mux_ids *ids);

/* ---- window.c ---- */
int spk_mux_window_open(struct spk_mux_stream *st); /* SPOKE_ELIMIT */
void spk_mux_window_close(struct spk_mux_stream *st);
void spk_mux_consumed(struct spk_mux_stream *st, size_t size);
/* May it keep memory that is `size` bytes more than what it needs of it, until its reader has read
 * all?  And it has. */
bool spk_mux_keep(struct spk_mux_stream *st, size_t size);
void spk_mux_keep_none(struct spk_mux_stream *st);
/* The peer's budgets: false, and the mux has ended. */
bool spk_mux_count_refused(struct spk_mux *m);
bool spk_mux_count_abandoned(struct spk_mux *m);
bool spk_mux_count_control(struct spk_mux *m, size_t size);

#endif
