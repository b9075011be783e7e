/* SPDX-License-Identifier: MIT */
/* Waiting for the first of several things: messages on sockets, contexts and channels, room to
 * send, bytes of streams, connections, streams, sessions and channels to accept, descriptors, and
 * times.
 *
 *     spoke_select_case cases[] = {
 *         {.what = SPOKE_SELECT_RECEIVER, .of.receiver = rx},
 *         {.what = SPOKE_SELECT_SOCKET_RECV, .of.socket = s},
 *         {.what = SPOKE_SELECT_TIME, .of.when = spoke_engine_now(e) + SPOKE_SECOND},
 *     };
 *     rc = spoke_select(cases, 3, &which, e, SPOKE_FOREVER);
 *
 * It only says which; the caller then makes the call, without waiting, since another thread may
 * have been quicker.
 *
 * A case is ready when its call would not give SPOKE_EAGAIN if it did not wait: so also when it
 * would give an error, or the end.  (A REQ without a request is ready to receive, SPOKE_ESTATE; a
 * stream is ready to read at the deadline of its reads, SPOKE_ETIMEDOUT.)  Over tcp:// and ipc://
 * a write may find out only then that the kernel has no room.  The sender of a channel without
 * depth is ready while a receive waits at the other end; a select there is none.  An accept with a
 * type refuses channels of another, which make it ready all the same.  If several are ready, chance
 * decides: none is passed over for ever. */
#ifndef SPOKE_SELECT_H
#define SPOKE_SELECT_H

#include <spoke/engine.h>
#include <spoke/session.h>
#include <spoke/stream.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPOKE_SELECT_MAX 1024 /* cases of a call; up to 16 take no memory */

enum spoke_select_what {
    SPOKE_SELECT_NONE = 0,       /* never ready: keeps the place of a case that is not wanted now */
    SPOKE_SELECT_RECEIVER,       /* spoke_receiver_recv() */
    SPOKE_SELECT_SENDER,         /* spoke_sender_send() */
    SPOKE_SELECT_SOCKET_RECV,    /* spoke_recv() */
    SPOKE_SELECT_SOCKET_SEND,    /* spoke_send() */
    SPOKE_SELECT_CONTEXT_RECV,   /* spoke_context_recv() */
    SPOKE_SELECT_CONTEXT_SEND,   /* spoke_context_send() */
    SPOKE_SELECT_STREAM_READ,    /* spoke_stream_read() */
    SPOKE_SELECT_STREAM_WRITE,   /* spoke_stream_write() */
    SPOKE_SELECT_STREAM_ACCEPT,  /* spoke_stream_accept() */
    SPOKE_SELECT_MUX_ACCEPT,     /* spoke_mux_accept() */
    SPOKE_SELECT_SESSION_ACCEPT, /* spoke_session_accept() */
    SPOKE_SELECT_SESSION_ACCEPT_RECEIVER, /* spoke_session_accept_receiver() */
    SPOKE_SELECT_SESSION_ACCEPT_SENDER,   /* spoke_session_accept_sender() */
    SPOKE_SELECT_SESSION_ACCEPT_STREAM,   /* spoke_session_accept_stream() */
    SPOKE_SELECT_FD_READ,                 /* a descriptor is readable; not on simulated engines */
    SPOKE_SELECT_FD_WRITE,                /* … or writable */
    SPOKE_SELECT_TIME                     /* a point of spoke_engine_now() has come */
};

typedef struct spoke_select_case {
    enum spoke_select_what what;
    union {
        void *handle; /* any of the next ones */
        spoke_receiver *receiver;
        spoke_sender *sender;
        spoke_socket *socket;
        spoke_context *context;
        spoke_stream *stream;
        spoke_stream_listener *listener;
        spoke_mux *mux;
        spoke_session_listener *session_listener;
        spoke_session *session;
        int fd; /* the caller's, who keeps it open meanwhile */
        spoke_ns when;
    } of;
} spoke_select_case;

/* Wait until one of the cases is ready; *which is its index.  Without cases: until the deadline.
 * What is ready at once wins over a deadline that is past.  SPOKE_NOW: do not wait.
 *
 * All that has a handle lives on `engine`; NULL: on one engine, whichever, and if nothing has a
 * handle the shared one is meant.  On an owned engine a call drives it, as any that waits; with
 * SPOKE_NOW by one turn, if nothing is ready.  Several threads may select on the same things of the
 * shared engine; all of them are told, and may find that another has taken what there was.
 *
 * Errors: SPOKE_EAGAIN nothing is ready now; SPOKE_ETIMEDOUT; SPOKE_EINVAL also for handles of
 * different engines; SPOKE_ERANGE more cases than SPOKE_SELECT_MAX; SPOKE_ECLOSED the handle of
 * case *which is closed, also meanwhile; SPOKE_EBADF the descriptor of case *which is not open;
 * SPOKE_ENOTSUP it is a descriptor, and the engine a simulated one; SPOKE_EDEADLK in a callback
 * that would have to wait, or nothing can ever happen in a simulated world; SPOKE_EMFILE,
 * SPOKE_ENOMEM; SPOKE_EFORKED, SPOKE_EWRONGTHREAD.  If an error is not about one case *which is
 * `count`. */
SPOKE_API int spoke_select(const spoke_select_case *cases, size_t count, size_t *which,
                           spoke_engine *engine, spoke_ns deadline);

#ifdef __cplusplus
}
#endif

#endif
