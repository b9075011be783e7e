/* SPDX-License-Identifier: MIT */
/* For authors of transports: what a scheme registers, and what the core offers it.
 *
 * A transport knows the engine and its own endpoints, streams and pipes; never a protocol, and of a
 * socket only that it exists.  It has one of two faces: byte streams, of which the core makes pipes
 * (framing.c), or pipes of its own (inproc).  All its functions run with the engine entered.  Calls
 * down (dial, send, close) submit or queue and return; answers come from the loop or a task, never
 * from inside the call.  One file or folder in transports/ and one line in modules.def make a new
 * one. */
#ifndef SPK_CORE_TRANSPORT_H
#define SPK_CORE_TRANSPORT_H

#include <spoke/protocol.h>

#include "runtime/core/url.h"
#include "runtime/engine/backend.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/fds.h"
#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"
#include "runtime/memory/queue.h"

struct spk_socket;
struct spk_endpoint;
struct spk_pipe;

/* ---- streams: the byte-stream face of a transport ---- */

struct spk_stream;
struct spk_stream_ops {
    /* What has to happen before the first byte of the user's (a TLS handshake): completes with 0,
     * or why it cannot be.  Before that none of the others is called but close, reset, address and
     * credentials.  NULL: nothing has to. */
    void (*begin)(struct spk_stream *st, struct spk_op *op);
    int64_t (*send_now)(struct spk_stream *st, struct iovec *iov,
                        int count); /* bytes or SPOKE_E…, SPOKE_EAGAIN */
    void (*send)(struct spk_stream *st, struct spk_op *op, struct msghdr *msg);
    int64_t (*recv_now)(struct spk_stream *st, void *buffer, size_t size); /* bytes, 0 the end, or
                                                                              SPOKE_E… */
    void (*recv)(struct spk_stream *st, struct spk_op *op, void *buffer, size_t size);
    void (*writable)(struct spk_stream *st, struct spk_op *op); /* completes when there is room */
    /* Bytes that are neither the kernel's nor the user's: a send has taken them, and the next one,
     * or writable(), hands them over first.  Close loses them.  NULL: never any. */
    size_t (*unsent)(const struct spk_stream *st);
    int (*shutdown)(struct spk_stream *st, bool reading);
    void (*reset)(struct spk_stream *st); /* its close will lose what is on its way */
    void (*close)(struct spk_stream *st); /* no operation is busy; frees st */
    int (*address)(struct spk_stream *st, bool local, char *text, size_t size);
    int (*credentials)(struct spk_stream *st, struct spk_credentials *out);
    int (*unix_fd)(struct spk_stream *st); /* if it is a unix socket of the kernel's, else -1; NULL:
                                              never */
    /* What a pipe of it can tell besides (spoke_pipe_get()); SPOKE_EOPTION: not that.  NULL:
     * nothing. */
    int (*property)(struct spk_stream *st, const char *name, enum spoke_type type, void *value,
                    size_t *size);
};
struct spk_stream {
    const struct spk_stream_ops *ops;
    struct spk_engine *e;
};

/* ---- transports ---- */

enum {
    SPK_OPTIONS_TCP = 1,
    SPK_OPTIONS_UNIX = 2,
    SPK_OPTIONS_UPGRADE = 4,
    SPK_OPTIONS_TLS = 8,
    SPK_OPTIONS_WS = 16
};
/* Do its connections move into shared memory? */
enum { SPK_SHM_NEVER, SPK_SHM_MAYBE, SPK_SHM_ALWAYS };

#define SPOKE_TRANSPORT_ABI 1u

enum { SPK_ADDRESS_FORMS = 4 };

struct spoke_transport {
    uint32_t abi;
    const char *scheme;                               /* what the user is told */
    struct spk_url_form addresses[SPK_ADDRESS_FORMS]; /* the first ones; at least one */
    bool message_type_byte; /* stream face: each message starts with a 0x01 (ipc) */
    bool message_face;      /* makes pipes by itself (inproc) instead of streams */
    unsigned options;       /* SPK_OPTIONS_…: of its endpoints, besides those that all have */
    unsigned shared_memory; /* SPK_SHM_…: needs a unix socket, and a type byte */

    /* Stream face.  What carries the bytes in place of the connection *st, which it takes (tls): 0,
     * or an error, and then it is closed.  NULL: the connection does. */
    int (*wrap)(struct spk_endpoint *ep, struct spk_stream **st);
    /* Make a pipe of it, in place of framing.c (ws): takes st, also if it fails.  Those of streams,
     * too.  NULL: framing.c. */
    int (*start_pipe)(struct spk_endpoint *ep, struct spk_stream *st);

    int (*check)(const struct spk_url *url); /* beyond its syntax; NULL: nothing to check */
    /* One attempt.  Answers later, always, with spk_dialer_connected() or spk_dialer_failed();
     * after cancel with a failure as well. */
    void (*dial)(struct spk_endpoint *d);
    void (*dial_cancel)(struct spk_endpoint *d);
    bool (*dial_next)(struct spk_endpoint *d); /* descriptors: the attempt failed; true: another
                                                  address is being tried.  May be NULL */
    /* Bind and start accepting: 0 or an error.  Each connection: spk_listener_accepted().
     * SPOKE_EAGAIN: not yet; l->waiters are woken when it is worth another call. */
    int (*listen)(struct spk_endpoint *l);
    void (*listen_cancel)(struct spk_endpoint *l); /* nobody waits for that any more.  NULL: there
                                                      is no SPOKE_EAGAIN either */
    void (*listen_close)(struct spk_endpoint *l);  /* stop; later spk_listener_closed() */
    /* Leave further connections outside, or take them in again.  NULL: they cannot wait there. */
    void (*listen_pause)(struct spk_endpoint *l, bool pause);
    int (*listen_address)(struct spk_endpoint *l, char *text, size_t size);
};

/* ---- endpoints ---- */

/* The value of an option that is a text, of several owners on one engine. */
struct spk_text {
    unsigned refs;
    char text[];
};
static inline const char *
spk_text_of(const struct spk_text *t)
{
    return t != NULL ? t->text : "";
}

/* What a dialer or listener can have of its own; the socket holds the defaults. */
struct spk_endpoint_options {
    size_t max_recv_size;
    spoke_ns reconnect_ns, reconnect_max_ns, handshake_ns, idle_ns;
    bool dial_async, close_pipes, tcp_nodelay, tcp_keepalive, upgrade;
    size_t shm_ring, lend_least;
    uint64_t upgrade_after;           /* messages */
    int send_priority, recv_priority; /* 1 (best) to 16 */
    int loss;                         /* enum spoke_loss */
    spoke_ns tcp_keepalive_ns, tcp_user_timeout_ns;
    int ipc_mode, ipc_owner, ipc_group;
    bool ws_send_text, ws_recv_text, ws_check_origin, ws_below;
    size_t ws_frame_size;
    struct spk_text *ws_origins, *ws_directory;
    struct spoke_tls_config *tls; /* a reference, NULL: none.  See spk_endpoint_options_copy() */
};

/* What dialer and listener statistics are made of. */
struct spk_endpoint_counts {
    uint64_t dials;    /* dialer */
    uint64_t connects; /* dialer: of those; listener: accepts */
    uint64_t failed;   /* dialer: dials; listener: accepts */
    uint64_t handshakes_failed, refused, attached;
    uint64_t sent, received; /* messages, through its pipes that are gone */
};

/* Dialer:   CREATED ─▶ DIALING ─▶ CONNECTED (has a pipe) ─▶ WAITING ─▶ DIALING …     any ─▶ CLOSING
 * ─▶ freed Listener: CREATED ─▶ LISTENING                                                     any
 * ─▶ CLOSING ─▶ freed */
enum spk_endpoint_state {
    SPK_CREATED,
    SPK_DIALING,
    SPK_CONNECTED,
    SPK_WAITING,
    SPK_LISTENING,
    SPK_CLOSING
};

struct spk_endpoint {
    struct spk_link link; /* in socket->endpoints */
    void *handle;
    struct spk_socket *socket;
    struct spk_engine *e;
    bool is_dialer;
    enum spk_endpoint_state state;
    struct spk_url url;
    const struct spoke_transport *transport;
    struct spk_endpoint_options options;
    uint32_t refs; /* its pipes, and itself while it is not closed */
    struct spk_endpoint_counts counts;
    int last_error;    /* dialer: of the last attempt; listener: why it got no pipe last */
    char *explanation; /* … of `explained`, with what else is known; NULL: there is none */
    int explained;

    /* dialer */
    /* Of streams (runtime/stream/connect.c), not of a pattern's socket: */
    void *owner;                                        /* NULL: it is a socket's */
    void (*dialed)(struct spk_endpoint *d, int reason); /* the only attempt has an outcome */

    struct spk_timer timer; /* WAITING, or the time limit of an attempt */
    struct spk_pipe *pipe;  /* CONNECTED */
    spoke_ns backoff_ns;
    spoke_ns dialed_ns;   /* when the last attempt began */
    spoke_ns attached_ns; /* when its pipe was attached */
    int first_error;
    struct spk_task fail_task; /* spk_dialer_fail_later() */
    int fail_reason;
    bool first_done;         /* the first attempt has an outcome: first_error */
    struct spk_link waiters; /* for that */

    /* The transport's: for those made of descriptors, the attempt or the listening one. */
    struct spk_op op;
    int fd; /* -1: none */
    struct sockaddr_storage address;
    socklen_t address_size;
    uint64_t device, inode;        /* ipc listener: the socket file that is ours */
    struct spk_timer accept_timer; /* back-off after a failed accept */
    bool stopped;                  /* listener: the address is free again */
    bool paused;                   /* … or does not accept just now */
    void *private; /* tcp: addresses left to try; ipc: where the socket file lies; inproc: the
                      name's entry */
};

/* ---- pipes ---- */

struct spk_pipe_ops {
    int (*send)(struct spk_pipe *p,
                spoke_msg *m); /* takes m; called while p->writable only; an error leaves m */
    /* The same for the first of many, as far as that is simple: messages without header or expiry,
     * and while p->writable.  Takes them and returns how many; what stops it goes to send().  Adds
     * the size of their bodies to *bytes.  May be NULL. */
    int (*send_many)(struct spk_pipe *p, spoke_msg **messages, int count, uint64_t *bytes);
    /* A message with `size` bytes of body where the peer reads them; NULL: not of this size, or not
     * now.  May be NULL. */
    spoke_msg *(*loan)(struct spk_pipe *p, size_t size);
    void (*flush)(struct spk_pipe *p); /* write what is held back */
    /* The peer is welcome.  True: the pipe is not ready yet, and calls spk_pipe_attach() once more
     * when it is, or spk_pipe_shut().  NULL: always ready. */
    bool (*prepare)(struct spk_pipe *p);
    void (*start)(struct spk_pipe *p); /* the pipe is attached: deliver */
    void (*resume)(
        struct spk_pipe *p,
        int most); /* deliver again after having been held back, at most so many messages */
    void (*close)(
        struct spk_pipe *p); /* stop everything, then spk_pipe_closed().  What is whole and
                                has room may be delivered still, unless p->held is there */
    void (*free)(struct spk_pipe *p);
    uint64_t (*pending)(struct spk_pipe *p,
                        uint64_t *bytes);  /* messages not completely handed over */
    void (*give_back)(struct spk_pipe *p); /* those of them that return: spk_give_back().  NULL: it
                                              never has any */
    int (*address)(struct spk_pipe *p, bool local, char *text, size_t size);
    int (*credentials)(struct spk_pipe *p, struct spk_credentials *out);
    int (*property)(struct spk_pipe *p, const char *name, enum spoke_type type, void *value,
                    size_t *size);            /* as a stream's */
    int (*shared_memory)(struct spk_pipe *p); /* SPOKE_OPT_SHARED_MEMORY.  NULL: there is no such
                                                 question */
    /* Descriptors beside the messages, in sets, in the order in which they were sent; which message
     * a set is for is the protocol's matter.  NULL, all three: messages pass as they are, with all
     * that they hold.
     * lets_fds: may sets come from now on?  0; SPOKE_EAGAIN: ask again; or never.  send_fds: copies
     * of them, before the message, or SPOKE_EAGAIN.  take_fds: the next set, which came before the
     * message did, or there is none and the peer has broken the protocol: SPOKE_EPROTO. */
    int (*lets_fds)(struct spk_pipe *p);
    int (*send_fds)(struct spk_pipe *p, const int *fds, int n);
    int (*take_fds)(struct spk_pipe *p, struct spk_fds **out);
};

/* STARTING (handshake) ─▶ ATTACHING (the user is asked) ─▶ ATTACHED ─▶ CLOSING ─▶ CLOSED (freed).
 * Any state ─▶ CLOSING. */
enum spk_pipe_state {
    SPK_PIPE_STARTING,
    SPK_PIPE_ATTACHING,
    SPK_PIPE_ATTACHED,
    SPK_PIPE_CLOSING,
    SPK_PIPE_CLOSED
};

struct spk_pipe {
    struct spk_link link;    /* in socket->pipes */
    struct spk_link ready;   /* in socket->ready while attached and writable */
    struct spk_link stalled; /* in socket->stalled while held back */
    uint8_t send_priority, recv_priority;
    bool keeps_reading; /* spk_pipe_keep_reading() */
    struct spk_socket *socket;
    struct spk_endpoint *endpoint;
    const struct spk_pipe_ops *ops;
    void *state_memory; /* the protocol's */
    spoke_msg *held;    /* received when the queue was full */
    spoke_pipe_id id;
    enum spk_pipe_state state;
    int reason; /* why it left ATTACHED: the first one */
    bool writable;
    bool announced;     /* ATTACHING was said and not refused: DETACHED must follow */
    void *farewell;     /* event.c's: memory to tell that in */
    bool added;         /* the protocol has it */
    bool want_writable; /* the protocol is to be told when it becomes writable */
    struct spk_task close_task, writable_task;
    struct spoke_pipe_stats stats;
};

/* ---- what the core offers ---- */

/* Pipes, for transports with a message face. */
/* Prepare the common part.  On success the pipe counts for the socket and the endpoint until
 * spk_pipe_closed(). */
int spk_pipe_init(struct spk_pipe *p, struct spk_endpoint *endpoint,
                  const struct spk_pipe_ops *ops);
void spk_pipe_shook_hands(struct spk_pipe *p); /* STARTING ─▶ ATTACHING */
void spk_pipe_set_writable(struct spk_pipe *p, bool writable);
int spk_pipe_received(struct spk_pipe *p,
                      spoke_msg *m); /* takes m.  False: the pipe is to stop delivering */
/* How many messages the pipe may deliver together, so that no more than `most` wait to be taken.
 * SPK_ONE_BY_ONE: each by spk_pipe_received(); 0: none now, the reader is behind; else so many by
 * spk_pipe_received_many(), the last of which is the one whose spk_queue_cost() makes the sum reach
 * *cost, after which it asks again.  SPK_READ_AHEAD are few enough to be in the cache still when
 * somebody takes them: a transport that makes messages of bytes, which take less memory, asks for
 * so many. */
enum { SPK_ONE_BY_ONE = -1, SPK_READ_AHEAD = 64 };
int spk_pipe_room(struct spk_pipe *p, uint32_t most, size_t *cost);
/* Is a message of this length welcome?  If not the pipe is shut. */
bool spk_pipe_length_is_fine(struct spk_pipe *p, uint64_t length);
void spk_pipe_fell_silent(struct spk_pipe *p); /* SPOKE_OPT_IDLE_TIMEOUT: it is shut */
void spk_pipe_received_many(struct spk_pipe *p, spoke_msg **messages, int count);
void spk_give_back(struct spk_socket *s, spoke_msg *m, int reason); /* takes m, which returns */
void spk_pipe_closed(struct spk_pipe *p); /* nothing is outstanding: frees it */
void spk_pipe_stall(struct spk_pipe *p);

/* Endpoints: the outcome of an attempt, connections, the end of a listener. */
void spk_dialer_connected(struct spk_endpoint *d, struct spk_stream *st); /* takes st */
void spk_dialer_failed(struct spk_endpoint *d, int reason);
void spk_dialer_fail_later(struct spk_endpoint *d,
                           int reason); /* the same, for those that know it inside dial() */
void spk_listener_accepted(struct spk_endpoint *l, struct spk_stream *st); /* takes st */
void spk_listener_failed(struct spk_endpoint *l, int reason); /* one accept; it goes on */
void spk_listener_closed(struct spk_endpoint *l);
bool spk_listener_is_open(const struct spk_endpoint *l); /* connections are welcome */
/* One more connection accepted or made, for transports with a message face. */
void spk_endpoint_count(struct spk_endpoint *ep);
/* A connection was turned away, or did not shake hands. */
void spk_endpoint_count_refused(struct spk_endpoint *ep);
void spk_endpoint_count_bad_handshake(struct spk_endpoint *ep);
void spk_dialer_attempt_over(struct spk_endpoint *d, int reason);
/* More about what is going to be its last error.  The text is copied. */
void spk_endpoint_explain(struct spk_endpoint *ep, int reason, const char *text);
void spk_endpoint_unref(struct spk_endpoint *ep);
/* The numbers of the protocol that speaks here, and of the only one that it talks to. */
uint16_t spk_endpoint_protocol(const struct spk_endpoint *ep);
uint16_t spk_endpoint_peer(const struct spk_endpoint *ep);
/* Their names: "rep".  NULL: the peer is none of a pattern. */
const char *spk_endpoint_protocol_name(const struct spk_endpoint *ep);
const char *spk_endpoint_peer_name(const struct spk_endpoint *ep);
unsigned spk_endpoint_recv_queue(const struct spk_endpoint *ep);     /* SPOKE_OPT_RECV_QUEUE … */
size_t spk_endpoint_recv_queue_bytes(const struct spk_endpoint *ep); /* … and its bytes */

/* Give the value of a property, as spoke_pipe_get() wants it. */
int spk_give(void *value, size_t *size, const void *from, size_t length);
int spk_give_text(void *value, size_t *size, const char *text);

static inline size_t
spk_stream_unsent(const struct spk_stream *st)
{
    return st->ops->unsent != NULL ? st->ops->unsent(st) : 0;
}

static inline int
spk_stream_unix_fd(struct spk_stream *st)
{
    return st->ops->unix_fd != NULL ? st->ops->unix_fd(st) : -1;
}

/* Bytes that go to a stream before anything else does, gathered in one chunk and written as far as
 * it takes them, again and again.  All zero: none.  unsent.c */
struct spk_unsent {
    struct spk_chunk *chunk; /* NULL: nothing waits */
    size_t from, to;
    struct iovec iov; /* while an operation writes it */
    struct msghdr msg;
};
static inline size_t
spk_unsent_size(const struct spk_unsent *u)
{
    return u->to - u->from;
}
void spk_unsent_drop(struct spk_unsent *u);
/* Room for so many bytes behind what waits, which may move, so nothing writes it; NULL: there is no
 * memory.  They count once they are added to u->to. */
uint8_t *spk_unsent_room(struct spk_unsent *u, size_t size);
/* 0: nothing waits any more; SPOKE_EAGAIN; or why the stream takes no more, and then it is lost. */
int spk_unsent_write(struct spk_unsent *u, struct spk_stream *st);
/* Something waits: have an operation write of it, whose owner then says how much that was. */
void spk_unsent_send(struct spk_unsent *u, struct spk_stream *st, struct spk_op *op);
void spk_unsent_wrote(struct spk_unsent *u, size_t n);

/* The last words of a connection that nobody holds any more.  They are written, for `most` at the
 * longest, then the stream is closed once its peer has ended, a second later at the latest.  Takes
 * st, which has begun and has no operation busy, and the words.  parting.c */
void spk_stream_part(struct spk_stream *st, struct spk_unsent words, spoke_ns most);
void spk_stream_part_with(struct spk_stream *st, const void *bytes, size_t size); /* a second */

/* Make a stream of `st`, for listeners and dialers of streams.  Takes it.  runtime/stream/bytes.c
 */
int spk_bytes_start(struct spk_endpoint *ep, struct spk_stream *st);

/* Streams that are one descriptor.  fdstream.c */
int spk_fd_stream(struct spk_stream **out, struct spk_engine *e, const char *scheme, int fd);
int spk_fd_dial(struct spk_endpoint *d, const struct sockaddr *local,
                socklen_t local_size); /* to d->address; answers later, or an error at once */
void spk_fd_dial_cancel(struct spk_endpoint *d);
void spk_fd_listen_close(struct spk_endpoint *l);
void spk_fd_listen_pause(struct spk_endpoint *l, bool pause);
int spk_fd_bind(struct spk_endpoint *l);    /* a socket on l->address: l->fd */
int spk_fd_accept(struct spk_endpoint *l);  /* listen on l->fd, start accepting */
void spk_fd_unbind(struct spk_endpoint *l); /* give l->fd back, nothing is outstanding */
int spk_fd_address_text(const struct sockaddr_storage *address, socklen_t size, const char *scheme,
                        char *text, size_t room); /* as an URL */

/* TCP sockets, and the names of hosts.  tcpsocket.c */
int spk_tcp_check(const struct spk_url *url);
void spk_tcp_dial(struct spk_endpoint *d);
void spk_tcp_dial_cancel(struct spk_endpoint *d);
bool spk_tcp_dial_next(struct spk_endpoint *d);
int spk_tcp_listen(struct spk_endpoint *l);
void spk_tcp_listen_cancel(struct spk_endpoint *l);
int spk_tcp_listen_address(struct spk_endpoint *l, char *text, size_t size);

/* TLS around a connection's bytes, as the endpoint's SPOKE_OPT_TLS_CONFIG says: for `wrap`, where
 * the transport has SPK_OPTIONS_TLS; and what its listen() asks first, which gives why it cannot.
 * tlsstream.c */
int spk_tls_wrap(struct spk_endpoint *ep, struct spk_stream **st);
int spk_tls_check_listener(const struct spk_endpoint *l);

/* Bytes that nobody can foresee.  Any thread.  tlsrandom.c */
void spk_random(uint8_t *to, size_t size);

/* Unix sockets and their files.  unixsocket.c */
void spk_unix_dial(struct spk_endpoint *d);
int spk_unix_listen(struct spk_endpoint *l);
void spk_unix_listen_close(struct spk_endpoint *l);
int spk_unix_listen_address(struct spk_endpoint *l, char *text, size_t size);

#endif
