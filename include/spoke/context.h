/* SPDX-License-Identifier: MIT */
/* Contexts: several independent conversations on one REQ, REP, SURVEYOR or RESPONDENT socket.
 *
 * A context is what a socket of its pattern is to its user: a REQ context has one request and waits
 * for its reply, a REP context has the request that it received, a SURVEYOR context one survey and
 * its answers, a RESPONDENT context the survey that it answers.  All contexts of a socket share its
 * connections, its options but the few that are theirs (option.h), and its counters.  The socket's
 * own calls are about a context of its own, which is not affected by the others.
 *
 * REP and RESPONDENT: each request is received once, by whichever context, or the socket itself,
 * receives next; so many threads with a context each serve one socket.
 *
 * Threads, waiting, and the errors that every call may give: as for sockets (socket.h).  A context
 * is meant for one thread at a time, but nothing breaks if more use it.  A socket's callbacks and
 * the descriptors of SPOKE_OPT_RECV_FD and SPOKE_OPT_SEND_FD are about its own context only. */
#ifndef SPOKE_CONTEXT_H
#define SPOKE_CONTEXT_H

#include <spoke/socket.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Open a context of `s`.  It lives until spoke_context_close() or the socket's close, and begins
 * with the socket's present options.
 * Errors: SPOKE_ENOTSUP another pattern, or a raw socket, which has no conversations; SPOKE_ELIMIT
 * no handles left (65 535 in a process); SPOKE_ENOMEM.  *out is NULL then. */
SPOKE_API int spoke_context_open(spoke_context **out, spoke_socket *s);

/* Close it, at once: its request or survey is given up, its unread answers are dropped, what it has
 * received can be answered no longer; replies that it has sent are on their way.  Whoever waits in
 * it gets SPOKE_ECLOSED.  Other contexts do not notice. */
SPOKE_API int spoke_context_close(spoke_context *c);

/* Send and receive as spoke_send() and spoke_recv() do, in this conversation, with its own
 * SPOKE_OPT_SEND_TIMEOUT and SPOKE_OPT_RECV_TIMEOUT.
 * Errors: those of spoke_send() and spoke_recv(); SPOKE_ENOTSUP the socket has become raw. */
SPOKE_API int spoke_context_send(spoke_context *c, spoke_msg *m, int flags);
SPOKE_API int spoke_context_recv(spoke_context *c, spoke_msg **out, int flags);

/* Copying conveniences, as spoke_send_bytes() and spoke_recv_bytes(). */
SPOKE_API int spoke_context_send_bytes(spoke_context *c, const void *data, size_t size, int flags);
SPOKE_API int spoke_context_recv_bytes(spoke_context *c, void *buffer, size_t *size, int flags);

#ifdef __cplusplus
}
#endif

#endif
