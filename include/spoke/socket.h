/* SPDX-License-Identifier: MIT */
/* Sockets: open one for a pattern, dial and listen as often as you like, send and receive messages.
 *
 * Threads: on a shared engine (opened with engine NULL) every call may come from any thread at any
 * time.  On an owned engine every call must come from the owner's thread, else SPOKE_EWRONGTHREAD.
 * After fork() every handle of the parent gives SPOKE_EFORKED in the child, which may open its own,
 * whatever other threads were doing at the fork; the parent is unaffected.  A child of a callback
 * that forked may not return from it.
 *
 * Waiting: a call that waits returns SPOKE_ETIMEDOUT when its time is up, SPOKE_ECLOSED when the
 * socket is closed meanwhile, and SPOKE_EDEADLK if it would have to wait inside a callback of its
 * own engine.  A call that fails changes nothing.
 *
 * The patterns' rules are in docs/wire.md and spoke_socket(3); they follow mangos, nanomsg and NNG.
 */
#ifndef SPOKE_SOCKET_H
#define SPOKE_SOCKET_H

#include <spoke/engine.h>
#include <spoke/error.h>
#include <spoke/message.h>
#include <spoke/option.h>
#include <spoke/stats.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Patterns, by their numbers on the wire. */
#define SPOKE_PAIR 16
#define SPOKE_REQ  48
#define SPOKE_REP  49

/* Open a socket for `pattern` on `engine`, or on the library's shared engine if that is NULL.
 * Errors: SPOKE_ENOTSUP no such pattern; SPOKE_ELIMIT too many sockets (65 535 handles per
 * process); SPOKE_ENOMEM; SPOKE_EMFILE; those of the engine.  *out is NULL on failure. */
SPOKE_API int spoke_socket_open(spoke_socket **out, int pattern, spoke_engine *engine);

/* Close: stops accepting, waits at most SPOKE_OPT_LINGER for everything that was sent to be handed
 * to the kernel, releases everybody who waits on this socket with SPOKE_ECLOSED, closes all pipes.
 * Bounded by linger plus what cancelling takes. Returns 0 if all was written, SPOKE_ETIMEDOUT if
 * messages were left (the socket is closed all the same), SPOKE_ECLOSED if it was closed before.
 * From inside a callback of its engine it returns 0 at once and the close goes on in the
 * background. `report` (may be NULL): what was not delivered. */
struct spoke_close_report {
    uint64_t messages; /* accepted by send and never completely handed to the kernel */
    uint64_t bytes;
};
SPOKE_API int spoke_socket_close(spoke_socket *s);
SPOKE_API int spoke_socket_close_report(spoke_socket *s, struct spoke_close_report *report);

/* Reach out to `url`, now and again whenever the connection is lost, waiting between attempts as
 * SPOKE_OPT_RECONNECT says (doubled each time up to the maximum, with full jitter above the first).
 * Returns at once; only the URL can be wrong. `out` (may be NULL) gets the dialer, the socket's: it
 * lives until spoke_dialer_close() or the socket's close. Flags: SPOKE_WAIT_FIRST waits for the
 * first attempt and fails with its error, then nothing is left behind. Errors: SPOKE_EURL,
 * SPOKE_ESCHEME, SPOKE_ENAMETOOLONG, SPOKE_ENODEV, SPOKE_ECLOSED, SPOKE_ENOMEM, SPOKE_ELIMIT. */
#define SPOKE_WAIT_FIRST 2
SPOKE_API int spoke_dial(spoke_socket *s, const char *url, spoke_dialer **out, int flags);

/* Accept connections on `url`.  Returns when the address is bound; one that is in use is tried
 * again for a quarter of a second first (not from a callback), because the kernel takes that long
 * to clean up after a process that was killed. Errors: those of spoke_dial() and SPOKE_EADDRINUSE,
 * SPOKE_EADDRNOTAVAIL, SPOKE_EACCES, SPOKE_ENOENT (the directory), SPOKE_ENOTSOCK (a file that is
 * no socket is in the way; it is never touched), SPOKE_EHOST, SPOKE_EMFILE. */
SPOKE_API int spoke_listen(spoke_socket *s, const char *url, spoke_listener **out, int flags);

/* The same in two steps, to set options of the dialer or listener in between: create checks the
 * URL, start does the rest. */
SPOKE_API int spoke_dialer_create(spoke_dialer **out, spoke_socket *s, const char *url);
SPOKE_API int spoke_dialer_start(spoke_dialer *d, int flags);
SPOKE_API int spoke_listener_create(spoke_listener **out, spoke_socket *s, const char *url);
SPOKE_API int spoke_listener_start(spoke_listener *l, int flags);

/* Wait at most `timeout_ns` for the outcome of the first attempt of a dialer that has been started,
 * which goes on whatever that is.  Returns 0 if the attempt gave a pipe, however long ago, or its
 * error.  SPOKE_ETIMEDOUT: it has none yet, or timed out itself; with `timeout_ns` 0, which never
 * waits, the former is SPOKE_EAGAIN.  SPOKE_ESTATE: not started. */
SPOKE_API int spoke_dialer_wait(spoke_dialer *d, spoke_ns timeout_ns);

/* Stop dialing and close its pipe.  Errors: SPOKE_ECLOSED. */
SPOKE_API int spoke_dialer_close(spoke_dialer *d);
/* Stop accepting; pipes that it accepted live on.  The socket file is removed if it is still ours.
 */
SPOKE_API int spoke_listener_close(spoke_listener *l);

#define SPOKE_DONTWAIT 1 /* fail with SPOKE_EAGAIN instead of waiting */
#define SPOKE_MORE                                                                                 \
    4 /* more follows at once: the engine may hold this one for the next (until a send without it, \
         or the next wait) */

/* Send `m`.  Takes it on success; on failure it stays the caller's, unchanged, and the socket's
 * state is as before. Success means queued or written: later loss is counted, not reported. Errors:
 * SPOKE_EAGAIN (SPOKE_DONTWAIT), SPOKE_ETIMEDOUT (SPOKE_OPT_SEND_TIMEOUT), SPOKE_ESTATE,
 * SPOKE_ENOTSUP a receive-only pattern, SPOKE_EMSGSIZE, SPOKE_ECLOSED. */
SPOKE_API int spoke_send(spoke_socket *s, spoke_msg *m, int flags);

/* Receive: gives a message, the caller's.  Errors: SPOKE_EAGAIN, SPOKE_ETIMEDOUT, SPOKE_ESTATE,
 * SPOKE_ENOTSUP, SPOKE_ECANCELED (REQ: another request took this one's place), SPOKE_ECONNRESET
 * (REQ without retry: the peer is gone), SPOKE_ECLOSED. *out is NULL then. */
SPOKE_API int spoke_recv(spoke_socket *s, spoke_msg **out, int flags);

/* Send `count` messages in order.  Waits (unless SPOKE_DONTWAIT) until all are taken.  Returns how
 * many were taken, these are no longer the caller's, or, if none was, an error of spoke_send(). */
SPOKE_API int spoke_sendv(spoke_socket *s, spoke_msg **messages, int count, int flags);

/* Receive up to `count` messages: waits for the first as spoke_recv(), takes what else is there.
 * Returns how many, or an error. */
SPOKE_API int spoke_recvv(spoke_socket *s, spoke_msg **messages, int count, int flags);

/* Copying conveniences: bytes in, bytes out.  spoke_recv_bytes() copies at most *size bytes and
 * sets *size to the message's whole size; what does not fit is lost. */
SPOKE_API int spoke_send_bytes(spoke_socket *s, const void *data, size_t size, int flags);
SPOKE_API int spoke_recv_bytes(spoke_socket *s, void *buffer, size_t *size, int flags);

/* Callbacks run on the engine's thread, one at a time, with no lock held: they may call anything on
 * this or other sockets, also close this one; only a call that would have to wait is refused
 * (SPOKE_EDEADLK).  NULL takes a callback away; after that call returns it will not start again (it
 * may still be running on a shared engine's thread).
 *
 * on_message: each received message, given to the callback.  Blocking receives on the same socket
 * then return SPOKE_ESTATE. */
typedef void spoke_message_f(spoke_socket *s, spoke_msg *m, void *ctx);
SPOKE_API int spoke_socket_on_message(spoke_socket *s, spoke_message_f *fn, void *ctx);

/* on_writable: a send would now succeed, after one gave SPOKE_EAGAIN. */
typedef void spoke_writable_f(spoke_socket *s, void *ctx);
SPOKE_API int spoke_socket_on_writable(spoke_socket *s, spoke_writable_f *fn, void *ctx);

/* What happens to a socket's connections, in order. */
enum spoke_event_type {
    SPOKE_EVENT_ATTACHING = 1, /* a peer shook hands; on_event may refuse it by returning an error:
                                  then nothing else is said of it */
    SPOKE_EVENT_ATTACHED,      /* the protocol took it: messages flow */
    SPOKE_EVENT_DETACHED, /* gone, once for each ATTACHING that was not refused; `reason` says why
                           */
    SPOKE_EVENT_DIAL_FAILED,  /* one attempt of a dialer; it goes on */
    SPOKE_EVENT_ACCEPT_FAILED /* a listener could not accept, or a connection failed its handshake;
                                 it goes on */
};
struct spoke_event {
    enum spoke_event_type type;
    int reason;           /* 0 or a SPOKE_E… */
    spoke_pipe_id pipe;   /* 0 if there is none (yet) */
    spoke_dialer *dialer; /* whose it is: one of the two, or both NULL */
    spoke_listener *listener;
    const char *url; /* the dialer's or listener's; borrowed for the call */
};
typedef int spoke_event_f(spoke_socket *s, const struct spoke_event *event, void *ctx);
SPOKE_API int spoke_socket_on_event(spoke_socket *s, spoke_event_f *fn, void *ctx);

/* Close one pipe; its dialer, if it has one, dials again.  Errors: SPOKE_ENOENT. */
SPOKE_API int spoke_pipe_close(spoke_socket *s, spoke_pipe_id pipe);

/* Counters of a socket.  stats.h */
SPOKE_API int spoke_socket_stats(spoke_socket *s, struct spoke_stats *out);

#ifdef __cplusplus
}
#endif

#endif
