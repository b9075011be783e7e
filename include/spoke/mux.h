/* SPDX-License-Identifier: MIT */
/* Multiplexers: many streams over one.  Both ends of a connection make a mux of it, and either may
 * open streams to the other, which are streams as those of stream.h: every call there works on
 * them, and one may itself carry a mux (SPOKE_MUX_DEPTH deep).
 *
 * A stream that nobody reads holds up its own writer only: each has a window, bytes that its peer
 * may send before some have been read.  Bytes of several streams leave by turns of 16 KiB; what is
 * short and urgent (openings, windows, ends) goes in front of them.
 *
 * One end has the odd stream numbers, the other the even ones (`even` in the configuration),
 * usually the one that connected and the one that accepted.  There are two wires (docs/wire.md).
 * The native one also carries metadata, resets with a reason, pings and a goodbye.  The compatible
 * one is, byte for byte, that of the Go multiplexer in Mutagen; what it cannot say is told at each
 * call.
 *
 * A mux lives on its carrier's engine, and calls are made on the same threads.  It gives its peer
 * no more memory than its configuration says: a peer that asks for more, or breaks the protocol,
 * loses the connection.
 *
 * A call that waits ends at a deadline, as in stream.h.  Calls give SPOKE_ECLOSED if the handle is
 * closed, SPOKE_EMUXCLOSED if the mux has ended (spoke_mux_status() says why), SPOKE_EINVAL,
 * SPOKE_EFORKED, SPOKE_EWRONGTHREAD, and SPOKE_EDEADLK in a callback that would have to wait.
 *
 * When a mux ends, its streams do: what has arrived can still be read, then reads and writes give
 *   SPOKE_EMUXCLOSED   it was closed here
 *   SPOKE_ECONNRESET   the carrier ended
 *   SPOKE_EPEERDEAD    nothing was heard from the peer for peer_timeout_ns
 *   SPOKE_EPROTO       the peer broke the protocol
 *   SPOKE_ELIMIT       the peer asked for too much
 *   or what the carrier says. */
#ifndef SPOKE_MUX_H
#define SPOKE_MUX_H

#include <spoke/stream.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPOKE_MUX_DEPTH    4    /* of muxes that carry each other */
#define SPOKE_MUX_META_MAX 4096 /* bytes of metadata */

/* Why a stream was refused or reset, or a mux went away.  Numbers from 256 on are the
 * application's. */
enum spoke_mux_code {
    SPOKE_MUX_NONE,
    SPOKE_MUX_BACKLOG, /* too many wait to be accepted */
    SPOKE_MUX_REFUSED,
    SPOKE_MUX_GOING_AWAY, /* not looked at: may be tried elsewhere */
    SPOKE_MUX_LIMIT,
    SPOKE_MUX_UNSUPPORTED,
    SPOKE_MUX_NO_SUCH_NAME,
    SPOKE_MUX_WRONG_DIRECTION,
    SPOKE_MUX_TYPE,
    SPOKE_MUX_NOT_PERMITTED,
    SPOKE_MUX_DECODE,
    SPOKE_MUX_TOO_LARGE,
    SPOKE_MUX_DATA_LOST, /* the stream was closed with something unread */
    SPOKE_MUX_HANGUP,
    SPOKE_MUX_CANCELED,
    SPOKE_MUX_TIMEOUT,
    SPOKE_MUX_CONNECT_FAILED,
    SPOKE_MUX_PROTOCOL,
    SPOKE_MUX_INTERNAL,
    SPOKE_MUX_PEER_GONE,
    SPOKE_MUX_APPLICATION = 256
};

enum spoke_mux_wire {
    SPOKE_MUX_NATIVE,
    SPOKE_MUX_COMPATIBLE,
    SPOKE_MUX_DETECT /* what the peer speaks: this end says nothing before it has */
};

#define SPOKE_MUX_NO_INPUT ((size_t)-1) /* as a window: the peer may send nothing, ever */

typedef struct spoke_mux_config {
    enum spoke_mux_wire wire;
    bool even;             /* this end's streams have even numbers; the peer's must be odd */
    size_t window;         /* bytes of a new stream that may be on their way or unread.  0: 256 KiB,
                              compatible 65 535; less if session_budget / max_streams - 4 KiB is less */
    size_t max_window;     /* to which it grows, as the round trip asks for, native.  0: 16 MiB */
    size_t session_budget; /* all windows together.  At least 8 KiB for each of max_streams.  While
                              nothing of it is left for a stream with less than an equal share,
                              windows above that share shrink, as they are read.  0: 65 MiB */
    size_t send_queue_bytes;  /* what was written and waits for the carrier; or 16 KiB for each
                                 stream  that is writing, if that is more.  0: 327 740 */
    int backlog;              /* streams that wait to be accepted; more are refused.  0: 10 */
    int max_streams;          /* that the peer may have open here.  0: 256 */
    spoke_ns heartbeat_ns;    /* native: after so long without a word; compatible: always.  0: none.
                                 Default 5 s */
    spoke_ns peer_timeout_ns; /* not a byte for so long, or none taken of what waits: the peer is
                                 dead.  At least 3 heartbeats, if there are any; 0: never.  Default
                                 15 s */
    spoke_ns handshake_ns;    /* native: for the peer's first 16 bytes.  Default 5 s */
    bool pass_fds; /* native: let descriptors come with the bytes of its streams, if the peer does,
                      for channels.  The carrier must be able to: unix sockets, shm, inproc and
                      pairs are; others are used without.  Default: no */
    bool eager_credit; /* give a window back at each read, as the Go program does.  Default: when
                          half of it is read, or the peer may be waiting for it */
} spoke_mux_config;

/* The defaults, which a NULL config means. */
SPOKE_API void spoke_mux_config_init(spoke_mux_config *config);

/* What the windows of all muxes of the process may hold together, and the memory around what has
 * arrived that is held with it; 1 GiB at first.  Streams beyond that are refused, windows stop to
 * grow, and what arrives is copied.  Any thread, at any time. */
SPOKE_API void spoke_mux_set_memory_limit(size_t bytes);

/* ---- life ---- */

/* Make a mux of a stream, which it takes on success: its handle is closed from then on.  Bytes that
 * were read too far go back with spoke_stream_unread() before.  The peer's preface is not waited
 * for.
 * Errors: SPOKE_ERANGE the configuration; SPOKE_EBUSY a call on the carrier is waiting;
 * SPOKE_ESTATE the carrier has closed a half, or is not connected yet; SPOKE_ELIMIT too many inside
 * each other; why the carrier has ended. */
SPOKE_API int spoke_mux_open(spoke_mux **out, spoke_stream *carrier,
                             const spoke_mux_config *config);

/* Close it and give the handle back.  With `linger_ns` above 0 the peer is told, streams that wait
 * to be accepted are refused, and those that are in use go on until both ends have closed them, at
 * most so long; then the carrier is closed.  This waits for it, but not in a callback, where it
 * goes on by itself.  With 0 the carrier is closed at once; what was written and has not been
 * handed to it is lost.  Streams give SPOKE_EMUXCLOSED from then on, and have to be closed all the
 * same. SPOKE_ETIMEDOUT: the time was not enough.  Closing it once more does nothing and returns 0.
 */
SPOKE_API int spoke_mux_close(spoke_mux *m, spoke_ns linger_ns);

/* Tell the peer that no more streams are opened or accepted; those in use go on.  `text`, at most
 * 255 bytes, may be NULL.  SPOKE_ENOTSUP on the compatible wire. */
SPOKE_API int spoke_mux_go_away(spoke_mux *m, uint64_t code, const char *text);

/* Wait until the mux has ended: 0 then, or SPOKE_EAGAIN, SPOKE_ETIMEDOUT, SPOKE_ECLOSED. */
SPOKE_API int spoke_mux_wait(spoke_mux *m, spoke_ns deadline);

enum spoke_mux_origin { SPOKE_MUX_LOCAL, SPOKE_MUX_PEER, SPOKE_MUX_CARRIER };
struct spoke_mux_end {
    int code;           /* 0: in order.  Else as the streams got it */
    uint64_t wire_code; /* what the peer said with its goodbye, or was told */
    enum spoke_mux_origin origin;
    char text[256]; /* one sentence, or the peer's own */
};
/* Why it has ended; SPOKE_EAGAIN if it has not. */
SPOKE_API int spoke_mux_status(spoke_mux *m, struct spoke_mux_end *out);

/* `fn` is called once on the engine's thread when the mux has ended, unless it was closed here.  It
 * may make any call that does not wait, also close the mux.  NULL: not any more. */
typedef void spoke_mux_closed_f(spoke_mux *m, const struct spoke_mux_end *why, void *ctx);
SPOKE_API int spoke_mux_on_closed(spoke_mux *m, spoke_mux_closed_f *fn, void *ctx);

/* ---- streams ---- */

/* Open a stream, with up to SPOKE_MUX_META_MAX bytes that tell the peer what it is for (native;
 * `meta` may be NULL).  Waits until the peer has accepted it; with SPOKE_NOW it is given at once,
 * and reads and writes tell the outcome, as with spoke_stream_dial().
 * `code`, if not NULL, gets the peer's reason with SPOKE_EREJECTED (compatible: 0).
 * Errors: SPOKE_EREJECTED; SPOKE_ETIMEDOUT; SPOKE_EEXHAUSTED no numbers left; SPOKE_ELIMIT the peer
 * or session_budget allows no more; SPOKE_EMSGSIZE too much metadata; SPOKE_ENOTSUP metadata on the
 * compatible wire; SPOKE_EMUXCLOSED also after a goodbye of either end. */
SPOKE_API int spoke_mux_dial(spoke_mux *m, spoke_stream **out, const void *meta, size_t meta_size,
                             uint64_t *code, spoke_ns deadline);

/* Take the stream that has waited longest.  `meta`, if not NULL, gets what its opener said of it, a
 * message of the caller's, or NULL if there was nothing.  A call that gives up leaves the stream
 * where it is.  Errors: SPOKE_EAGAIN, SPOKE_ETIMEDOUT. */
SPOKE_API int spoke_mux_accept(spoke_mux *m, spoke_stream **out, spoke_msg **meta,
                               spoke_ns deadline);

/* The same, and answer its opener later: when it is known whether what it is for can be had.  Until
 * then the stream is as one that is dialing; its reads and writes end if the opener gives it up
 * (SPOKE_EABORTED).  It does not count as one that waits, but as one of max_streams. */
SPOKE_API int spoke_mux_take(spoke_mux *m, spoke_stream **out, spoke_msg **meta, spoke_ns deadline);

/* The answer: it is accepted.  spoke_stream_abort(s, code), before this, is the other one: the
 * opener gets SPOKE_EREJECTED and this reason, SPOKE_MUX_REFUSED if it is 0 or the stream is
 * closed.  Does not wait.  Errors: SPOKE_ESTATE it has its answer, or was opened here; why it has
 * ended; SPOKE_ENOTSUP not a stream of a mux. */
SPOKE_API int spoke_mux_confirm(spoke_stream *s);

/* Decide who may wait to be accepted.  `fn` is called on the engine's thread for each stream that
 * the peer opens, and returns SPOKE_MUX_NONE, or why it is refused.  `meta` is borrowed.  NULL: all
 * may, again. */
typedef uint64_t spoke_mux_open_f(spoke_mux *m, const void *meta, size_t meta_size, void *ctx);
SPOKE_API int spoke_mux_on_open(spoke_mux *m, spoke_mux_open_f *fn, void *ctx);

/* As spoke_stream_listener_fd() and spoke_stream_listener_on_ready(): readable, and called, while a
 * stream waits to be accepted or the mux has ended. */
SPOKE_API int spoke_mux_fd(spoke_mux *m);
typedef void spoke_mux_ready_f(spoke_mux *m, void *ctx);
SPOKE_API int spoke_mux_on_ready(spoke_mux *m, spoke_mux_ready_f *fn, void *ctx);

/* Whose bytes go first: 0 to 7, 3 at first.  Streams of a higher priority leave before those of a
 * lower one, which get every eighth turn all the same.  SPOKE_ENOTSUP: not a stream of a mux. */
SPOKE_API int spoke_mux_set_priority(spoke_stream *s, int priority);

/* ---- what is known ---- */

/* Ask the peer for an answer: the time until it came.  SPOKE_ENOTSUP on the compatible wire;
 * SPOKE_EAGAIN with SPOKE_NOW, if none came yet (what was measured before is in spoke_mux_info). */
SPOKE_API int spoke_mux_ping(spoke_mux *m, spoke_ns *rtt_ns, spoke_ns deadline);

/* "mux+" and the carrier's own URL, then "#even" or "#odd".  Addresses of streams end with the
 * stream's number instead.  SPOKE_ERANGE: longer than `size` allows. */
SPOKE_API int spoke_mux_address(spoke_mux *m, char *url, size_t size);

struct spoke_mux_info {
    enum spoke_mux_wire wire; /* SPOKE_MUX_DETECT: not known yet */
    bool is_open, peer_leaves, leaves;
    uint32_t streams;                   /* in use, both ends' */
    uint32_t waiting;                   /* … of them, to be accepted */
    uint32_t peer_max_streams;          /* what the peer allows; UINT32_MAX: not known, no limit */
    uint64_t opened, accepted;          /* streams, ever: by this end, by the peer and taken here */
    uint64_t refused, reset;            /* the peer's that were refused; all that were reset */
    uint64_t bytes_in, bytes_out;       /* of the carrier */
    uint64_t data_in, data_out;         /* … of them, what streams carried */
    uint64_t messages_in, messages_out; /* of the mux */
    uint64_t writes;                    /* to the carrier */
    uint64_t dropped;                   /* bytes that came for streams that were closed */
    bool passes_fds;                    /* both ends have said so: pass_fds */
    uint64_t fds_in, fds_out;           /* descriptors */
    uint32_t fds_unread;                /* … of fds_in, that are here and nobody has taken */
    size_t windows;                     /* bytes that the peer may make this end hold */
    size_t unsent;                      /* bytes that wait for the carrier */
    spoke_ns rtt_ns;                    /* the shortest of late; 0: not known */
    spoke_ns heard_ns;                  /* when the peer's last byte came */
};
SPOKE_API int spoke_mux_get_info(spoke_mux *m, struct spoke_mux_info *out);

struct spoke_mux_stream_info {
    uint64_t id;
    bool opened_here;
    int priority;
    size_t window;              /* of this end, as it is now */
    uint64_t credit;            /* bytes that may be written until the peer gives more */
    size_t unread, unsent;      /* bytes */
    uint64_t data_in, data_out; /* bytes that the wire carried */
    uint64_t turns;             /* that its data took to leave */
};
/* SPOKE_ENOTSUP: not a stream of a mux, or of one that has ended. */
SPOKE_API int spoke_mux_get_stream_info(spoke_stream *s, struct spoke_mux_stream_info *out);

#ifdef __cplusplus
}
#endif

#endif
