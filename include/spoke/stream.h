/* SPDX-License-Identifier: MIT */
/* Streams: connections that carry bytes, in order, both ways, over any transport, with the same
 * calls. inproc:// and shm:// are made of messages underneath, which does not show; over tcp:// and
 * ipc:// a stream is the system's own byte stream, so that it talks to any program that speaks tcp
 * or listens on a unix socket.
 *
 * The semantics are those of TCP connections, as chanstream brought them into a process: a listener
 * that accepts, half-close, deadlines that may change while a call waits for them.
 *
 * Where a stream lives, and on which threads, is its engine's matter (engine.h): NULL is the shared
 * one, whose streams may be used from any thread; reads of one stream wait for each other, so do
 * writes, but a read never waits for a write.  Calls on an owned engine drive it while they wait.
 *
 * A call that waits ends at a deadline, a point of spoke_engine_now(): SPOKE_FOREVER waits without
 * limit, SPOKE_NOW does not wait (SPOKE_EAGAIN).  Other deadlines that are in the past give
 * SPOKE_ETIMEDOUT, even if there is something to read.
 *
 * Of several errors that apply a call reports the first of: SPOKE_ECLOSED (this handle is closed,
 * also by another thread while the call waits), SPOKE_ERDCLOSED or SPOKE_EWRCLOSED (this end has
 * closed that half), SPOKE_ETIMEDOUT, and then for reads, once everything that has arrived is read:
 * SPOKE_EOF (the peer has closed its half) or why the connection was lost; for writes: why it was
 * lost, SPOKE_EPEERCLOSED (the peer reads no more). Calls also give SPOKE_EINVAL, SPOKE_EFORKED,
 * SPOKE_EWRONGTHREAD, and SPOKE_EDEADLK in a callback that would have to wait.  *done, where there
 * is one, is always written, also with an error. */
#ifndef SPOKE_STREAM_H
#define SPOKE_STREAM_H

#include <sys/types.h>
#include <sys/uio.h>

#include <spoke/engine.h>
#include <spoke/message.h>
#include <spoke/option.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Deadlines, besides SPOKE_FOREVER. */
#define SPOKE_NOW ((spoke_ns)0)

/* How a wait on a stream looks for work before it sleeps: as its engine does. */
#define SPOKE_WAIT_AS_ENGINE ((spoke_ns)-2)

typedef struct spoke_stream_config {
    /* Bytes that may be on their way to this end, or wait there to be read, and that this end has
     * taken and not handed over yet.  Over tcp:// and ipc:// the kernel has buffers besides.  0: 64
     * KiB; where it has none, 1 MiB. */
    size_t window;
    int backlog; /* listener: connections that wait to be accepted; more wait outside (inproc://:
                    fail with SPOKE_EBACKLOG).  0: 32 */
    spoke_ns linger_ns; /* spoke_stream_close() waits so long for what has been written to be handed
                           over.  Default 1 s */
    spoke_ns busy_poll_ns; /* as in spoke_engine_config, for waits on this stream; default
                              SPOKE_WAIT_AS_ENGINE */
    bool tcp_nodelay,
        tcp_keepalive; /* as the socket options of these names (option.h); defaults as there */
    int ipc_mode;      /* listener: mode of the socket file, -1: as the umask has it */
    struct spoke_tls_config *tls; /* for schemes with TLS (tls.h); NULL: none.  A reference more is
                                     held while it is in use */

    /* ws:// and wss:// alone: as the options of these names (option.h).  Listener: strings are
     * copied; NULL is "" */
    bool ws_check_origin;     /* listener; default true */
    const char *ws_origins;   /* listener: pages of these may come in, too */
    const char *ws_directory; /* listener: whose files are served beside it */
    bool ws_below;            /* listener: paths below its own, too */
    bool ws_recv_text;        /* the payload of text is bytes, too, if it is UTF-8; else it ends the
                                 stream: SPOKE_EPROTO */
    size_t ws_frame_size;     /* most bytes of a frame that is sent, at least 8 KiB, of which 64 KiB
                                 count.  0: 64 KiB */
} spoke_stream_config;

/* The defaults, which a NULL config means everywhere. */
SPOKE_API void spoke_stream_config_init(spoke_stream_config *config);

/* ---- listening ---- */

/* Listen on an URL.  Streams that are accepted live on the listener's engine, with its config.
 * Errors: as spoke_listen(). */
SPOKE_API int spoke_stream_listen(spoke_stream_listener **out, const char *url,
                                  const spoke_stream_config *config, spoke_engine *engine);

/* The same on a socket that listens already, as systemd and other parents pass it on.  Takes `fd`
 * on success; the file of a unix socket stays when the listener is closed.  Errors: SPOKE_ENOTSOCK;
 * SPOKE_ENOTSUP it does not listen, another kind of socket, or a simulated engine. */
SPOKE_API int spoke_stream_listen_fd(spoke_stream_listener **out, int fd,
                                     const spoke_stream_config *config, spoke_engine *engine);

/* Take the connection that has waited longest.  Errors: SPOKE_EAGAIN, SPOKE_ETIMEDOUT,
 * SPOKE_ECLOSED. */
SPOKE_API int spoke_stream_accept(spoke_stream_listener *l, spoke_stream **out, spoke_ns deadline);

/* The listener's URL, with the port that the system chose, into `url` of `size` bytes.
 * SPOKE_ERANGE: it is longer. */
SPOKE_API int spoke_stream_listener_address(spoke_stream_listener *l, char *url, size_t size);

/* Stop listening: the address is free, who waits in accept gets SPOKE_ECLOSED, connections that
 * nobody has accepted end.  Streams that were accepted live on.  Waits until the address is free,
 * but not in a callback.  Closing it once more does nothing and returns 0. */
SPOKE_API int spoke_stream_listener_close(spoke_stream_listener *l);

/* ---- making streams ---- */

/* Connect to an URL: one attempt, until `deadline`.  With SPOKE_NOW the stream is given at once and
 * connects by itself: until it has, reads and writes give SPOKE_EAGAIN or wait; if it cannot, they
 * say why. Errors: SPOKE_ECONNREFUSED nobody listens there; SPOKE_EBACKLOG; those of spoke_dial();
 * SPOKE_ETIMEDOUT. */
SPOKE_API int spoke_stream_dial(spoke_stream **out, const char *url,
                                const spoke_stream_config *config, spoke_engine *engine,
                                spoke_ns deadline);

/* Two ends of a connection inside the process, on one engine. */
SPOKE_API int spoke_stream_pair(spoke_stream **a, spoke_stream **b,
                                const spoke_stream_config *config, spoke_engine *engine);

/* Make a stream of a connected stream socket.  Takes `fd` on success, and makes it non-blocking.
 * Errors: SPOKE_ENOTSOCK; SPOKE_ENOTSUP another kind of socket, or a simulated engine. */
SPOKE_API int spoke_stream_from_fd(spoke_stream **out, int fd, const spoke_stream_config *config,
                                   spoke_engine *engine);

/* ---- bytes ---- */

/* Read at least one byte, and what else is there, up to `size`.  A read of 0 bytes returns 0 at
 * once. */
SPOKE_API int spoke_stream_read(spoke_stream *s, void *buffer, size_t size, size_t *done);
/* Read until the buffer is full.  An end or error before that leaves *done < size. */
SPOKE_API int spoke_stream_read_full(spoke_stream *s, void *buffer, size_t size, size_t *done);
/* The same as spoke_stream_read() into several buffers, filled one after the other. */
SPOKE_API int spoke_stream_readv(spoke_stream *s, const struct iovec *buffers, int count,
                                 size_t *done);
/* Read without a copy: *out is a message with at least one byte, the next of the stream, in the
 * memory in which they arrived.  The caller's.  Where messages begin and end means nothing. */
SPOKE_API int spoke_stream_read_chunk(spoke_stream *s, spoke_msg **out);
/* Give bytes back to the stream: the next read gets them first.  Takes m on success. */
SPOKE_API int spoke_stream_unread(spoke_stream *s, spoke_msg *m);

/* Write everything; the buffer is the caller's again afterwards.  An error leaves *done bytes
 * written, which may still arrive.  With a write deadline of SPOKE_NOW what there is room for is
 * written: SPOKE_EAGAIN if that is nothing. */
SPOKE_API int spoke_stream_write(spoke_stream *s, const void *data, size_t size, size_t *done);
SPOKE_API int spoke_stream_writev(spoke_stream *s, const struct iovec *buffers, int count,
                                  size_t *done);
/* Give a message with a body of `size` bytes, contents undefined, where the peer of a stream over
 * shm:// can read it: spoke_stream_write_chunk() then copies nothing, if it is at most half of the
 * peer's window or there is room for it anyway.  Where that is not so it is an ordinary message.
 * As with spoke_loan(), nobody may write there after that.  Does not wait.  Errors: SPOKE_EMSGSIZE,
 * SPOKE_ENOMEM. */
SPOKE_API int spoke_stream_loan(spoke_stream *s, size_t size, spoke_msg **out);
/* Write the body of a message, without a copy where the transport can.  Takes m on success; after
 * an error it is the caller's, as it was, and *done bytes of it are written.  SPOKE_ENOTSUP: it has
 * attachments (channel.h). */
SPOKE_API int spoke_stream_write_chunk(spoke_stream *s, spoke_msg *m, size_t *done);

/* ---- deadlines ---- */

/* Of all reads and writes of the stream, those that wait now included.  SPOKE_FOREVER at first. */
SPOKE_API int spoke_stream_set_deadline(spoke_stream *s, spoke_ns deadline);
SPOKE_API int spoke_stream_set_read_deadline(spoke_stream *s, spoke_ns deadline);
SPOKE_API int spoke_stream_set_write_deadline(spoke_stream *s, spoke_ns deadline);

/* ---- the end ---- */

/* Write no more: the peer reads what has been written, then SPOKE_EOF.  Returns 0 also if that was
 * so already. */
SPOKE_API int spoke_stream_close_write(spoke_stream *s);
/* Read no more: what has arrived is thrown away.  The peer's writes give SPOKE_EPEERCLOSED, over
 * tcp:// only after this end is closed. */
SPOKE_API int spoke_stream_close_read(spoke_stream *s);
/* Both, and give the handle back.  What was written still arrives.  Whoever waits in a call on the
 * stream gets SPOKE_ECLOSED.  Waits at most linger_ns for what the transport has not taken yet:
 * SPOKE_ETIMEDOUT if some of it is lost.  Closing it once more does nothing and returns 0. */
SPOKE_API int spoke_stream_close(spoke_stream *s);
/* Both, at once: what is on its way may be lost.  Over inproc:// and shm:// the peer gets
 * SPOKE_EABORTED, and `code` from spoke_stream_get_info(); over tcp:// SPOKE_ECONNRESET; ipc://
 * cannot tell an abort from an end, if everything has been read.  The handle stays, to be closed.
 */
SPOKE_API int spoke_stream_abort(spoke_stream *s, uint64_t code);

/* ---- two of them ---- */

/* What became of each way: [0] from a to b, [1] from b to a. */
struct spoke_stream_report {
    uint64_t bytes[2]; /* that came from one and were written to the other */
    int result[2];     /* 0: it ended, and the other stream's writing half with it;
                          SPOKE_EPEERCLOSED: nobody reads there; else what broke both off */
};
/* Carry what comes from each of two streams of one engine over to the other, an end of a half to
 * that half's counterpart, also one of before; an error of one aborts the other, so does closing
 * one.  `done(ctx, report)` is called once, on the engine's thread, when both ways are over.  Until
 * then nothing else may read, write or set deadlines and callbacks; the streams stay the caller's
 * to close, also in `done`, and to abort.  Either may still be dialing.  Does not wait.  Errors:
 * SPOKE_EINVAL they are one, or on two engines; SPOKE_EBUSY one is joined already; SPOKE_ENOMEM. */
typedef void spoke_stream_done_f(void *ctx, const struct spoke_stream_report *report);
SPOKE_API int spoke_stream_join(spoke_stream *a, spoke_stream *b, spoke_stream_done_f *done,
                                void *ctx);
/* The same, and wait for it; an error tells that it was not begun, or (SPOKE_EDEADLK) that under
 * sim nothing is left that could go on. */
SPOKE_API int spoke_stream_copy(spoke_stream *a, spoke_stream *b,
                                struct spoke_stream_report *report);

/* ---- what is known of it ---- */

struct spoke_stream_info {
    uint64_t bytes_read, bytes_written; /* by calls on this handle */
    size_t unread;                      /* bytes that have arrived here; the kernel may have more */
    size_t unsent;                      /* bytes that were taken and not handed over yet */
    int read_end;                       /* 0, or what a read will give once everything is read */
    int write_end;                      /* 0, or what a write gives */
    uint64_t abort_code;                /* the peer's, with SPOKE_EABORTED */
    int pid, uid, gid; /* of the peer's process, when it connected; ipc://, shm://, else -1 */
};
SPOKE_API int spoke_stream_get_info(spoke_stream *s, struct spoke_stream_info *out);

/* The URL of this end or of the peer's, as far as it has one.  SPOKE_ERANGE: it is longer than
 * `size` allows. */
enum spoke_stream_end { SPOKE_LOCAL, SPOKE_REMOTE };
SPOKE_API int spoke_stream_address(spoke_stream *s, enum spoke_stream_end end, char *url,
                                   size_t size);

/* What its transport knows of the connection, read-only, by the names that the pipes of sockets
 * have for it (option.h): "tls-…" over tls+tcp:// and wss:// (who the peer is, what was agreed on),
 * "ws-target" and "ws-fields" over ws:// and wss://.  A mux's stream gives what its carrier knows.
 * As spoke_pipe_get(): into at most *size bytes of `value`; *size becomes the whole size.  Errors:
 * SPOKE_EOPTION it does not know that, SPOKE_ETYPE; SPOKE_EAGAIN it is not connected yet; why it
 * ended, if it has. */
SPOKE_API int spoke_stream_get(spoke_stream *s, const char *name, enum spoke_type type, void *value,
                               size_t *size);

/* ---- without waiting ---- */

/* A descriptor that is readable while a read would not give SPOKE_EAGAIN (SPOKE_STREAM_READABLE),
 * while a write would not (SPOKE_STREAM_WRITABLE), or while a connection waits to be accepted.  The
 * library's: do not read or close it. Returns it, or SPOKE_ENOTSUP on a simulated engine. */
enum { SPOKE_STREAM_READABLE = 1, SPOKE_STREAM_WRITABLE = 2 };
SPOKE_API int spoke_stream_fd(spoke_stream *s, unsigned what);
SPOKE_API int spoke_stream_listener_fd(spoke_stream_listener *l);

/* `fn(s, what, ctx)` is called on the engine's thread when a read or write need not wait any more:
 * once at first if that is so, and once each time after one gave SPOKE_EAGAIN.  An end or error is
 * something to read, too; that a dial with SPOKE_NOW has its outcome is something to write.  The
 * callback may make any call that does not wait, close the stream too.  NULL: no more of them
 * (engine.h, "Callbacks"). */
typedef void spoke_stream_ready_f(spoke_stream *s, unsigned what, void *ctx);
SPOKE_API int spoke_stream_on_ready(spoke_stream *s, spoke_stream_ready_f *fn, void *ctx);
/* The same for connections to accept: until an accept gave SPOKE_EAGAIN. */
typedef void spoke_stream_accept_f(spoke_stream_listener *l, void *ctx);
SPOKE_API int spoke_stream_listener_on_ready(spoke_stream_listener *l, spoke_stream_accept_f *fn,
                                             void *ctx);

#ifdef __cplusplus
}
#endif

#endif
