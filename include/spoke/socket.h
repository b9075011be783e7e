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
 * own engine.  On an owned engine it drives the engine meanwhile, callbacks included; a send or
 * receive that may wait does so now and then also when it need not.  A call that is not said to
 * wait never does (but for a callback that runs: engine.h).  A call that fails changes nothing.
 *
 * Every call may give SPOKE_ECLOSED, SPOKE_EWRONGTHREAD, SPOKE_EFORKED, and SPOKE_EINVAL for a NULL
 * that is not allowed or an unknown flag; they are not repeated below.
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
#define SPOKE_PAIR       16
#define SPOKE_PAIR1      17 /* what NNG calls a pair */
#define SPOKE_PUB        32
#define SPOKE_SUB        33
#define SPOKE_REQ        48
#define SPOKE_REP        49
#define SPOKE_PUSH       80
#define SPOKE_PULL       81
#define SPOKE_SURVEYOR   98
#define SPOKE_RESPONDENT 99
#define SPOKE_BUS        112
#define SPOKE_STAR       1600

/* Open a socket for `pattern` on `engine`, or on the library's shared engine, whose thread the
 * first such call starts, if that is NULL.  It lives until spoke_socket_close() or, on an owned
 * engine, spoke_engine_close(). Errors: SPOKE_ENOTSUP no such pattern; SPOKE_ELIMIT no handles left
 * (65 535 engines, sockets, dialers and listeners in a process) or no threads; SPOKE_ENOMEM;
 * SPOKE_EMFILE; those of spoke_engine_open() for the shared engine.  *out is NULL then. */
SPOKE_API int spoke_socket_open(spoke_socket **out, int pattern, spoke_engine *engine);

/* Close: stops accepting, waits at most SPOKE_OPT_LINGER for everything that was sent to be handed
 * to the kernel (inproc: to the peer's queue), while dialers go on dialing for it, releases
 * everybody who waits on this socket with SPOKE_ECLOSED, closes all dialers, listeners and pipes,
 * whose handles and numbers are closed from then on.  Bounded by linger plus what cancelling takes.
 * Returns 0 if all was written, SPOKE_ETIMEDOUT if messages were left, also because their peer went
 * away meanwhile (the socket is closed all the same), SPOKE_ECLOSED if it was closed before or is
 * being closed by another thread.  From inside a callback of its engine it returns 0 at once, with
 * an empty report, and the close goes on in the background: in the library's thread, or whenever
 * the owner drives its engine.  `report` (may be NULL): what was not delivered. */
struct spoke_close_report {
    uint64_t messages; /* accepted by send and never completely handed to the kernel */
    uint64_t bytes;
};
SPOKE_API int spoke_socket_close(spoke_socket *s);
SPOKE_API int spoke_socket_close_report(spoke_socket *s, struct spoke_close_report *report);

/* Reach out to `url`, now and again whenever the connection is lost, waiting between attempts as
 * SPOKE_OPT_RECONNECT says (at least 1 ms; if SPOKE_OPT_RECONNECT_MAX is more: random between that
 * and twice as long, a limit that doubles with each failure up to SPOKE_OPT_RECONNECT_MAX).  An
 * attempt fails as well if the pipe is refused, by whichever end, or ends sooner than the first
 * wait; names are looked up anew at each attempt, aside, at most eight at a time in a process.
 * Returns at once; only the URL can be wrong.  `out` (may be NULL) gets the dialer, the socket's:
 * it lives until spoke_dialer_close() or the socket's close. Flags: SPOKE_WAIT_FIRST, or
 * SPOKE_OPT_DIAL_ASYNC set to false, waits for the first attempt (at most SPOKE_OPT_HANDSHAKE_TIME
 * to connect and as long again to shake hands) and fails with its error: then nothing is left
 * behind.  That can be any reason of SPOKE_EVENT_DIAL_FAILED. Errors: SPOKE_EURL, SPOKE_ESCHEME,
 * SPOKE_ENAMETOOLONG (4 096 bytes; 107 of an ipc path), SPOKE_ENODEV no such interface,
 * SPOKE_ENOMEM, SPOKE_ELIMIT no handles.  *out is NULL then. */
#define SPOKE_WAIT_FIRST 2
SPOKE_API int spoke_dial(spoke_socket *s, const char *url, spoke_dialer **out, int flags);

/* Accept connections on `url`.  Returns when the address is bound, and waits twice for that: for a
 * host name to be looked up, aside, at most SPOKE_OPT_HANDSHAKE_TIME (SPOKE_ETIMEDOUT; from a
 * callback SPOKE_EDEADLK), and for an address that is in use, which is tried again for a quarter of
 * a second (not from a callback), because the kernel takes that long to clean up after a process
 * that was killed.  Flags: none, 0.  `out` (may be NULL): as in spoke_dial().
 * Errors: those of spoke_dial() and SPOKE_EADDRINUSE, SPOKE_EADDRNOTAVAIL not an address of this
 * machine, SPOKE_EACCES, SPOKE_EPERM (SPOKE_OPT_IPC_OWNER), SPOKE_ENOENT (the directory),
 * SPOKE_ENOTSOCK (a file that is no socket is in the way; it is never touched), SPOKE_EHOST,
 * SPOKE_EMFILE. */
SPOKE_API int spoke_listen(spoke_socket *s, const char *url, spoke_listener **out, int flags);

/* The same in two steps, to set options of the dialer or listener in between: create checks the URL
 * and never waits, start does the rest, once (SPOKE_ESTATE).  A listener that could not be started
 * may be started again; a dialer that waited for its first attempt in vain is closed. */
SPOKE_API int spoke_dialer_create(spoke_dialer **out, spoke_socket *s, const char *url);
SPOKE_API int spoke_dialer_start(spoke_dialer *d, int flags);
SPOKE_API int spoke_listener_create(spoke_listener **out, spoke_socket *s, const char *url);
SPOKE_API int spoke_listener_start(spoke_listener *l, int flags);

/* Wait at most `timeout_ns` for the outcome of the first attempt of a dialer that has been started,
 * which goes on whatever that is.  Returns 0 if the attempt gave a pipe, however long ago, or its
 * error.  SPOKE_ETIMEDOUT: it has none yet, or timed out itself; with `timeout_ns` 0, which never
 * waits, the former is SPOKE_EAGAIN.  SPOKE_ESTATE: not started. */
SPOKE_API int spoke_dialer_wait(spoke_dialer *d, spoke_ns timeout_ns);

/* Stop dialing and close its pipe, of which SPOKE_EVENT_DETACHED tells.  Does not wait for that. */
SPOKE_API int spoke_dialer_close(spoke_dialer *d);
/* Stop accepting; pipes that it accepted live on (but for SPOKE_OPT_CLOSE_PIPES).  Waits, except in
 * a callback, until the address is free again, which takes no longer than to cancel an accept.  The
 * socket file is removed if it is still ours. */
SPOKE_API int spoke_listener_close(spoke_listener *l);

#define SPOKE_DONTWAIT 1 /* fail with SPOKE_EAGAIN instead of waiting */
#define SPOKE_MORE                                                                                 \
    4 /* more follows at once: the engine may hold this one for the next (until a send without it, \
         or the next wait) */

/* Send `m`.  Takes it on success; on failure it stays the caller's, unchanged, and the socket's
 * state is as before.  Success means queued or written: later loss is counted, and reported to
 * on_undelivered if that is set.  Waits
 * for room at most SPOKE_OPT_SEND_TIMEOUT.
 * Errors: SPOKE_EAGAIN (SPOKE_DONTWAIT), SPOKE_ETIMEDOUT, SPOKE_ESTATE (REP: there is no request to
 * answer; RESPONDENT: no survey), SPOKE_ENOTSUP a receive-only pattern, SPOKE_EMSGSIZE,
 * SPOKE_ENOPEER (SPOKE_OPT_FAIL_NO_PEERS), SPOKE_EINTR (SPOKE_OPT_INTERRUPTIBLE), SPOKE_EINVAL (raw
 * BUS, STAR, PAIR1: the header is not the word that it must be), SPOKE_ENOMEM. */
SPOKE_API int spoke_send(spoke_socket *s, spoke_msg *m, int flags);

/* Receive: gives a message, the caller's.  Waits for one at most SPOKE_OPT_RECV_TIMEOUT.
 * Errors: SPOKE_EAGAIN (SPOKE_DONTWAIT), SPOKE_ETIMEDOUT (SURVEYOR: also, once, that the survey is
 * over), SPOKE_ESTATE (REQ: there is no request; SURVEYOR: no survey; there is an on_message
 * callback, or the socket is in a device), SPOKE_ENOTSUP a send-only pattern, SPOKE_ECANCELED (REQ,
 * SURVEYOR: another request or survey took this one's place), SPOKE_ECONNRESET (REQ without retry:
 * the peer is gone), SPOKE_ENOPEER (SPOKE_OPT_FAIL_NO_PEERS), SPOKE_EINTR
 * (SPOKE_OPT_INTERRUPTIBLE).  *out is NULL then. */
SPOKE_API int spoke_recv(spoke_socket *s, spoke_msg **out, int flags);

/* Send `count` messages, none of them NULL, in order.  Waits (unless SPOKE_DONTWAIT) until all are
 * taken, at most SPOKE_OPT_SEND_TIMEOUT in all.  Returns how many were taken, these are no longer
 * the caller's, or, if none was, an error of spoke_send(). */
SPOKE_API int spoke_sendv(spoke_socket *s, spoke_msg **messages, int count, int flags);

/* Receive up to `count` (at least 1) messages: waits for the first as spoke_recv(), takes what else
 * is there.  Returns how many, all of them the caller's, or an error of spoke_recv(). */
SPOKE_API int spoke_recvv(spoke_socket *s, spoke_msg **messages, int count, int flags);

/* Give a message with a body of `size` bytes, contents undefined, where the socket's peers in
 * shared memory can read it: what is written there is not copied on its way to them.  It may be
 * sent through any socket, and is freed, as any other.  Where there is no shared memory, no room in
 * it (SPOKE_OPT_SHM_SEGMENT), or less to carry than is worth a loan (SPOKE_OPT_LEND_LEAST), it is
 * an ordinary message.  From the send on the receivers read the very memory: whoever keeps a
 * reference must not write there (spoke_msg_make_unique()).  Does not wait.  Errors:
 * SPOKE_EMSGSIZE, SPOKE_ENOMEM. */
SPOKE_API int spoke_loan(spoke_socket *s, size_t size, spoke_msg **out);

/* Copying conveniences: bytes in, bytes out, with the errors of spoke_send() and spoke_recv().
 * spoke_recv_bytes() copies at most *size bytes into `buffer` (may be NULL if that is 0) and sets
 * *size to the message's whole size; what does not fit is lost.  After an error *size is as before.
 */
SPOKE_API int spoke_send_bytes(spoke_socket *s, const void *data, size_t size, int flags);
SPOKE_API int spoke_recv_bytes(spoke_socket *s, void *buffer, size_t *size, int flags);

/* Callbacks run on the engine's thread, one at a time, with no lock held: they may call anything on
 * this or other sockets, also close this one; only a call that would have to wait is refused
 * (SPOKE_EDEADLK).  A socket has one of each kind; setting another replaces it, NULL takes it away:
 * what the old one uses may be freed when that call, or spoke_socket_close() outside of callbacks,
 * has returned (engine.h, "Callbacks").  A callback that takes long holds up everything on its
 * engine.
 *
 * on_message: each received message, given to the callback, which frees it or passes it on.
 * Receives on the same socket then return SPOKE_ESTATE.  Errors: SPOKE_ENOTSUP a send-only pattern.
 */
typedef void spoke_message_f(spoke_socket *s, spoke_msg *m, void *ctx);
SPOKE_API int spoke_socket_on_message(spoke_socket *s, spoke_message_f *fn, void *ctx);

/* on_writable: a send would now succeed, after one gave SPOKE_EAGAIN; once for each time.  Errors:
 * SPOKE_ENOTSUP a receive-only pattern. */
typedef void spoke_writable_f(spoke_socket *s, void *ctx);
SPOKE_API int spoke_socket_on_writable(spoke_socket *s, spoke_writable_f *fn, void *ctx);

/* on_undelivered: a message that a send took after this call and of which it is known now that
 * nobody will get it, given back to the callback, which frees it or sends it again.  `reason`:
 * SPOKE_ETIMEDOUT it had expired when its turn came (SPOKE_OPT_SEND_EXPIRY); SPOKE_ELIMIT the
 * peer's queue was full (REP, RESPONDENT); SPOKE_EAGAIN there was no room (SPOKE_OPT_BEST_EFFORT);
 * SPOKE_ENOPEER it answers somebody who is gone; SPOKE_ECONNRESET its connection ended before all
 * of it had been handed to the kernel; SPOKE_ECLOSED it was left when its socket (after linger) or
 * context was closed: then the callback has run when spoke_socket_close() returns, but for a close
 * from inside a callback, and the handle that it gets is closed.  Each comes back once, in the
 * order in which that became known, with an empty header.
 *
 * What the kernel, or an inproc peer's queue, has taken does not come back, nor does a request that
 * has been sent and may be sent again (SPOKE_ECONNRESET of a receive tells of the others) or that
 * another one replaced, nor anything from a raw socket.  While 256 have not been given to the
 * callback yet, a send waits for room; one with SPOKE_OPT_BEST_EFFORT drops its message for good.
 * Sends cost a little more with the callback: messages are kept until they are written, and never
 * left to another thread.  Errors: SPOKE_ENOTSUP a receive-only pattern, or one that sends copies
 * to all (PUB, SURVEYOR, BUS, STAR). */
typedef void spoke_undelivered_f(spoke_socket *s, spoke_msg *m, int reason, void *ctx);
SPOKE_API int spoke_socket_on_undelivered(spoke_socket *s, spoke_undelivered_f *fn, void *ctx);

/* What happens to a socket's connections, in order.  DETACHED follows each ATTACHING exactly once
 * unless that was refused, whoever was listening then.  When an event is told its pipe may be gone
 * already, and its dialer or listener closed; their handles and the number still say whose it was.
 * Where there is no memory to tell, ATTACHING refuses the peer, DETACHED is told all the same, and
 * the others are left out. */
enum spoke_event_type {
    SPOKE_EVENT_ATTACHING = 1, /* a peer shook hands; on_event may refuse it by returning an error:
                                  then nothing else is said of it */
    SPOKE_EVENT_ATTACHED,      /* the protocol took it: messages flow */
    SPOKE_EVENT_DETACHED, /* gone, once for each ATTACHING that was not refused; `reason` says why
                           */
    SPOKE_EVENT_DIAL_FAILED,   /* one attempt of a dialer; it goes on */
    SPOKE_EVENT_ACCEPT_FAILED, /* a listener could not accept, or a connection failed its handshake;
                                  it goes on */
    SPOKE_EVENT_MOVED          /* from now on what is sent on this pipe goes through shared memory
                                  (SPOKE_OPT_UPGRADE; SPOKE_OPT_SHARED_MEMORY says why not) */
};
struct spoke_event {
    enum spoke_event_type type;
    int reason;           /* 0 or a SPOKE_E…: SPOKE_EOF the peer ended it, SPOKE_ECLOSED we did,
                             SPOKE_EREFUSED, SPOKE_ELIMIT (SPOKE_OPT_MAX_PIPES, or a subscriber was
                             too slow: SPOKE_OPT_LOSS), SPOKE_EMSGSIZE, SPOKE_EPROTO, SPOKE_EHANDSHAKE,
                             SPOKE_EPEER, SPOKE_ETIMEDOUT, … */
    spoke_pipe_id pipe;   /* 0 if there is none (yet) */
    spoke_dialer *dialer; /* whose it is: one of the two, or both NULL */
    spoke_listener *listener;
    const char *url; /* the dialer's or listener's; borrowed for the call */
    const struct spoke_pipe_stats
        *stats; /* DETACHED: the pipe's at its end, borrowed for the call; else NULL */
};
/* The result counts for ATTACHING only. */
typedef int spoke_event_f(spoke_socket *s, const struct spoke_event *event, void *ctx);
SPOKE_API int spoke_socket_on_event(spoke_socket *s, spoke_event_f *fn, void *ctx);

/* Close one pipe, soon; what it has not written is lost.  Its dialer, if it has one, dials again.
 * Errors: SPOKE_ENOENT no such pipe on this socket (any more). */
SPOKE_API int spoke_pipe_close(spoke_socket *s, spoke_pipe_id pipe);

/* A snapshot of the counters of a socket, which only grow, but for pipes_current.  stats.h */
SPOKE_API int spoke_socket_stats(spoke_socket *s, struct spoke_stats *out);
/* The same for one pipe: SPOKE_ENOENT when it is gone.  On error *out is all 0. */
SPOKE_API int spoke_pipe_stats(spoke_socket *s, spoke_pipe_id pipe, struct spoke_pipe_stats *out);
/* The same for one dialer or listener, with how it is doing: numbers that only grow, and the state
 * of the moment.  Also before it is started; SPOKE_ECLOSED when it, or its socket, is closed, or it
 * is of the other kind.  Looks at each pipe of the socket.  An inproc attempt that finds no
 * listener counts as failed, once, and goes on until there is one.  On error *out is all 0. */
SPOKE_API int spoke_dialer_stats(spoke_dialer *d, struct spoke_dialer_stats *out);
SPOKE_API int spoke_listener_stats(spoke_listener *l, struct spoke_listener_stats *out);

#ifdef __cplusplus
}
#endif

#endif
