/* SPDX-License-Identifier: MIT */
/* Sessions: connections whose two ends give each other channels (channel.h).  A session is a native
 * mux (mux.h) on a stream, which is its own, and each channel and attached stream is one stream of
 * that: docs/wire.md, "Channels".
 *
 * Engines, threads, deadlines and the errors that every call may give are as in channel.h.  Calls
 * that wait on channels of a session do so as its stream does: `busy_poll_ns` in
 * spoke_stream_config.  When a session ends, its channels do: what has arrived can still be
 * received, then calls give
 *   SPOKE_EMUXCLOSED it was closed here, or at the other side with channels in use
 *   SPOKE_ECONNRESET, SPOKE_EPEERDEAD, SPOKE_EPROTO, SPOKE_ELIMIT   as in mux.h
 *
 * A peer is given memory for what it may send: the windows of its streams (config.mux), and
 * messages up to `memory` that nobody has received yet; half of it is for channels of which none is
 * waiting.  A channel whose message does not fit waits, without holding up the others. */
#ifndef SPOKE_SESSION_H
#define SPOKE_SESSION_H

#include <spoke/channel.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct spoke_session_config {
    spoke_mux_config mux;         /* of it, `wire` and `pass_fds` are not looked at; `even` only by
                                     spoke_session_open() */
    spoke_stream_config stream;   /* of the connections that are dialed and accepted here: TLS, …;
                                     not of streams that are given */
    spoke_channel_config channel; /* of those that the peer opens, and of ends that come attached */
    int backlog;       /* top-level channels and streams that wait to be accepted; more are refused.
                          Default 64 */
    size_t memory;     /* bytes of messages that have arrived and wait.  At least 2 of
                          channel.max_message.     Default 64 MiB */
    int unclaimed_max; /* streams that no message has named yet.  Default 256 */
    spoke_ns unclaimed_ns; /* … and for how long.  Default 30 s */
    bool take_fds;  /* descriptors pass in messages, both ways, if the peer says so too and the
                       carrier can: ipc, shm, inproc, pairs, unix sockets.  Else those of a peer
                       that sends any are closed, and the session ends.  Default true */
    bool proxy_fds; /* where descriptors cannot pass, streams may take their place.  Default true */
    /* Called on the engine's thread with each stream that a session listener has accepted, before
     * anything is said on it: 0, or the session is not made.  May ask what is known of it
     * (spoke_stream_get_info(), spoke_stream_get()); reads and writes nothing.  NULL: all may. */
    int (*authenticate)(void *ctx, spoke_stream *carrier);
    void *ctx;
} spoke_session_config;

/* The defaults, which a NULL config means.  Of `mux` differ: 4096 streams, a backlog of 64. */
SPOKE_API void spoke_session_config_init(spoke_session_config *config);

/* ---- life ---- */

/* Make a session of a stream, which it takes on success.  One side has config.mux.even true, the
 * other false.  The peer is not waited for.  Errors: as spoke_mux_open(). */
SPOKE_API int spoke_session_open(spoke_session **out, spoke_stream *carrier,
                                 const spoke_session_config *config);

/* Connect, and make a session of it; waits until the peer has shown that it speaks this (SPOKE_NOW:
 * SPOKE_EAGAIN).  Its streams have odd numbers.  Errors: as spoke_stream_dial(), SPOKE_EPROTO. */
SPOKE_API int spoke_session_dial(spoke_session **out, const char *url,
                                 const spoke_session_config *config, spoke_engine *engine,
                                 spoke_ns deadline);

/* Listen for sessions.  Each connection makes its beginning beside the others; only those whose
 * peers speak this, within config.mux.handshake_ns, and whom config.authenticate lets in, come out
 * of spoke_session_accept().  Errors: as spoke_stream_listen(). */
SPOKE_API int spoke_session_listen(spoke_session_listener **out, const char *url,
                                   const spoke_session_config *config, spoke_engine *engine);
SPOKE_API int spoke_session_accept(spoke_session_listener *l, spoke_session **out,
                                   spoke_ns deadline);
SPOKE_API int spoke_session_listener_address(spoke_session_listener *l, char *url, size_t size);
/* Readable, and called, while a session waits to be accepted: until an accept has given
 * SPOKE_EAGAIN.  As spoke_stream_listener_fd() and spoke_stream_listener_on_ready(). */
SPOKE_API int spoke_session_listener_fd(spoke_session_listener *l);
typedef void spoke_session_accept_f(spoke_session_listener *l, void *ctx);
SPOKE_API int spoke_session_listener_on_ready(spoke_session_listener *l, spoke_session_accept_f *fn,
                                              void *ctx);
SPOKE_API int spoke_session_listener_close(spoke_session_listener *l);

/* Close it and give the handle back.  With `linger_ns` above 0 the peer is told and channels and
 * streams in use go on, until they have ended or the time is over (SPOKE_ETIMEDOUT); with 0 they
 * end at once, and what was sent and has not been handed over is lost.  Waits, but not in a
 * callback.  Closing it once more does nothing and returns 0. */
SPOKE_API int spoke_session_close(spoke_session *ss, spoke_ns linger_ns);

/* Wait until it has ended, and why it has: as spoke_mux_wait() and spoke_mux_status(). */
SPOKE_API int spoke_session_wait(spoke_session *ss, spoke_ns deadline);
SPOKE_API int spoke_session_status(spoke_session *ss, struct spoke_mux_end *out);

/* ---- top-level channels and streams ---- */

/* Open a channel to the peer.  Waits until the peer has accepted it, with SPOKE_NOW not at all:
 * sends wait then, and tell if it was refused.  `code`, if not NULL, gets the reason of
 * SPOKE_EREJECTED.  Errors: SPOKE_EREJECTED; SPOKE_ETYPE; SPOKE_ELIMIT; SPOKE_EMUXCLOSED … */
SPOKE_API int spoke_session_open_sender(spoke_session *ss, spoke_sender **out,
                                        const spoke_channel_config *config, uint64_t *code,
                                        spoke_ns deadline);
SPOKE_API int spoke_session_open_receiver(spoke_session *ss, spoke_receiver **out,
                                          const spoke_channel_config *config, uint64_t *code,
                                          spoke_ns deadline);
/* Take the channel that the peer opened and that has waited longest, of those that it sends on, or
 * receives on.  `config` NULL: that of the session.  A type that is not the opener's refuses the
 * channel, and the call goes on. */
SPOKE_API int spoke_session_accept_receiver(spoke_session *ss, spoke_receiver **out,
                                            const spoke_channel_config *config, spoke_ns deadline);
SPOKE_API int spoke_session_accept_sender(spoke_session *ss, spoke_sender **out,
                                          const spoke_channel_config *config, spoke_ns deadline);
/* Byte streams, without channels: as spoke_mux_dial() and spoke_mux_accept(). */
SPOKE_API int spoke_session_open_stream(spoke_session *ss, spoke_stream **out, uint64_t *code,
                                        spoke_ns deadline);
SPOKE_API int spoke_session_accept_stream(spoke_session *ss, spoke_stream **out, spoke_ns deadline);

/* Readable, and called, while something waits to be accepted or the session has ended: until each
 * of the accepts has given SPOKE_EAGAIN. */
SPOKE_API int spoke_session_fd(spoke_session *ss);
typedef void spoke_session_ready_f(spoke_session *ss, void *ctx);
SPOKE_API int spoke_session_on_ready(spoke_session *ss, spoke_session_ready_f *fn, void *ctx);

/* ---- what is known ---- */

struct spoke_session_info {
    struct spoke_mux_info mux;
    uint32_t channels, streams; /* in use, attached ones too */
    uint32_t waiting;           /* to be accepted */
    uint32_t unclaimed;         /* opened for a message that has not come yet */
    size_t memory;              /* bytes of messages that wait here */
    uint64_t refused;           /* the peer's channels and streams that were */
    uint64_t messages_in, messages_out;
    uint64_t fds_in, fds_out; /* descriptors that came, and went, with messages; no streams in
                                 their places */
    int pid, uid, gid;        /* of the peer's process; ipc://, shm://, else -1 */
};
SPOKE_API int spoke_session_get_info(spoke_session *ss, struct spoke_session_info *out);

#ifdef __cplusplus
}
#endif

#endif
