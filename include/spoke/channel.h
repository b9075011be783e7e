/* SPDX-License-Identifier: MIT */
/* Channels: messages one way, from a sender to a receiver, between threads, processes and machines.
 * A message may carry further channel ends, byte streams and descriptors, so that a request brings
 * the way of its answer with it, and who has a channel can be given others through it.
 *
 *     spoke_receiver *answers;
 *     rc = spoke_request(tx, m, &answers, SPOKE_FOREVER);      // sends m with a sender for answers
 *     rc = spoke_receiver_recv(answers, &reply, SPOKE_FOREVER);
 *     …
 *     spoke_msg_take_sender(m, 0, &answer);                    // … and this is the other side
 *     rc = spoke_sender_send(answer, reply, SPOKE_FOREVER);
 *
 * spoke_channel_pair() makes a channel inside the process.  One of its ends, attached to a message,
 * goes where the message goes: taken there in the same process it is what it was; sent over a
 * session the channel is a stream of that session's mux from then on, and what had been sent
 * already comes first.  An end that came over one session may be passed on over another.
 *
 * A session makes channels of a stream: both ends of a connection open one on it (or
 * spoke_session_dial() and a session listener do), and either may open channels to the other.
 *
 * A channel has room for `depth` messages on their way; who sends more waits.  So a receiver that
 * takes nothing holds up its own sender only.  A channel ends in one of two ways: its sender closes
 * it, and the receiver gets all that was sent, then SPOKE_EOF; or it breaks off, and both sides get
 * an error.  Nothing is lost without one of the two telling.
 *
 * Channels live on an engine, and calls are made on its threads (stream.h); any number of threads
 * may send on one sender of the shared engine, and receive from one receiver: each message goes to
 * one of them.  Deadlines are as in stream.h: SPOKE_NOW does not wait (SPOKE_EAGAIN), but a
 * deadline that is past does not keep a call from what it can do at once.
 *
 * Calls give SPOKE_ECLOSED for handles that are closed (also meanwhile, by another thread),
 * SPOKE_EINVAL, SPOKE_EFORKED, SPOKE_EWRONGTHREAD, and SPOKE_EDEADLK in a callback that would have
 * to wait.
 *
 * Semantics after libchan; what differs is in docs/channels.md. */
#ifndef SPOKE_CHANNEL_H
#define SPOKE_CHANNEL_H

#include <spoke/mux.h>
#include <spoke/type.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SPOKE_CHANNEL_DEPTH_MAX   ((size_t)65536)            /* messages */
#define SPOKE_CHANNEL_MESSAGE_MAX ((size_t)16 * 1024 * 1024) /* bytes, the default largest */

typedef struct spoke_channel_config {
    /* Messages that may have been sent and not received yet; from process to process up to half as
     * many more, as what has been received is told in batches.  0: a send waits until its message
     * is taken, and one that does not wait needs a receive that waits; from process to process that
     * is 1.  Default 64. */
    size_t depth;
    size_t max_message; /* bytes that a message may have.  Default SPOKE_CHANNEL_MESSAGE_MAX */
    /* What its messages are, for spoke_sender_send_value() and spoke_receiver_recv_value().  Both
     * ends must have the same, or one of them none: the rest gives SPOKE_ETYPE.  NULL: bytes. */
    const spoke_value_type *type;
} spoke_channel_config;

/* The defaults, which a NULL config means. */
SPOKE_API void spoke_channel_config_init(spoke_channel_config *config);

/* Make a channel inside the process.  Errors: SPOKE_ERANGE the configuration; SPOKE_EINVAL a type
 * that is not checked; SPOKE_ENOMEM; SPOKE_ELIMIT no handles left. */
SPOKE_API int spoke_channel_pair(spoke_receiver **rx, spoke_sender **tx,
                                 const spoke_channel_config *config, spoke_engine *engine);

/* ---- sending ---- */

/* Send a message.  Takes m on success, when there was room for it; after an error it is the
 * caller's, as it was.  Its header is not sent.
 * Errors: SPOKE_EAGAIN, SPOKE_ETIMEDOUT no room; SPOKE_EPEERCLOSED nobody receives any more;
 * SPOKE_EABORTED the receiver broke it off; SPOKE_EMSGSIZE more than either end allows;
 * SPOKE_ESHARED it has attachments, or a header, and further references; SPOKE_ENOTSUP something
 * attached cannot go this way; why the session has ended. */
SPOKE_API int spoke_sender_send(spoke_sender *tx, spoke_msg *m, spoke_ns deadline);

/* The same with a value of the channel's type, encoded as both ends understand it.  `attachments`
 * is a message whose attachments the value names, or NULL; taken on success.
 * Errors: those of spoke_value_encode(), too; SPOKE_ETYPE the channel has no type. */
SPOKE_API int spoke_sender_send_value(spoke_sender *tx, const void *value, spoke_msg *attachments,
                                      spoke_ns deadline);

/* Wait until the receiver has taken all that has been sent.  Errors as above. */
SPOKE_API int spoke_sender_sync(spoke_sender *tx, spoke_ns deadline);

/* Send no more, and give the handle back: the receiver gets what was sent, then SPOKE_EOF.  Does
 * not wait.  Closing it once more does nothing and returns 0. */
SPOKE_API int spoke_sender_close(spoke_sender *tx);
/* The same, but break it off: what has not been received may be lost, then the receiver gets
 * SPOKE_EABORTED, and `code` and `text` (at most 255 bytes; may be NULL) in its info.  Over a
 * session the text is lost, too, if a message is half-way or the peer has not accepted the channel
 * yet. */
SPOKE_API int spoke_sender_abort(spoke_sender *tx, uint64_t code, const char *text);

/* Send a request: attaches a sender on which the answer, or several, is expected, as the message's
 * last attachment, and gives the receiver of that.  SPOKE_EOF there: the other side has let the
 * sender go without an answer.  `config`: of the channel for answers. */
SPOKE_API int spoke_request(spoke_sender *tx, spoke_msg *m, spoke_receiver **answers,
                            const spoke_channel_config *config, spoke_ns deadline);

/* ---- receiving ---- */

/* Take the oldest message; it is the caller's.  Errors: SPOKE_EAGAIN, SPOKE_ETIMEDOUT; and once
 * everything is received: SPOKE_EOF its sender has closed it; SPOKE_EABORTED; SPOKE_EPROTO the peer
 * broke the protocol; SPOKE_ECONNRESET, SPOKE_EMUXCLOSED and others: the session has ended. */
SPOKE_API int spoke_receiver_recv(spoke_receiver *rx, spoke_msg **m, spoke_ns deadline);

/* The same as a value of the channel's type, into `value` and `backing` as spoke_value_decode()
 * does.  A message that is none ends the channel: SPOKE_EDECODE here, and at the other side
 * SPOKE_EABORTED with SPOKE_MUX_DECODE.  After SPOKE_ENOMEM and SPOKE_ELIMIT the message is lost,
 * and the channel goes on. */
SPOKE_API int spoke_receiver_recv_value(spoke_receiver *rx, void *value, spoke_backing *backing,
                                        spoke_ns deadline);

/* Receive no more, and give the handle back: what has not been taken is dropped, with all that is
 * attached to it, and sends give SPOKE_EPEERCLOSED.  Closing it once more does nothing. */
SPOKE_API int spoke_receiver_close(spoke_receiver *rx);

/* The type of a channel that came from elsewhere, for this end.  SPOKE_ETYPE: it is known to be
 * another, or its values are passed on as they lie in memory, and this C type has another layout;
 * SPOKE_EINVAL: the type is not checked. */
SPOKE_API int spoke_sender_set_type(spoke_sender *tx, const spoke_value_type *type);
SPOKE_API int spoke_receiver_set_type(spoke_receiver *rx, const spoke_value_type *type);

/* ---- without waiting ---- */

/* Readable while a receive would not give SPOKE_EAGAIN, or a send.  The library's: do not read or
 * close it.  SPOKE_ENOTSUP on a simulated engine. */
SPOKE_API int spoke_receiver_fd(spoke_receiver *rx);
SPOKE_API int spoke_sender_fd(spoke_sender *tx);

/* `fn` is called on the engine's thread when a receive, or a send, need not wait any more: once at
 * first if that is so, and once each time after one gave SPOKE_EAGAIN.  It may make any call that
 * does not wait.  NULL: no more (engine.h, "Callbacks"). */
typedef void spoke_receiver_ready_f(spoke_receiver *rx, void *ctx);
typedef void spoke_sender_ready_f(spoke_sender *tx, void *ctx);
SPOKE_API int spoke_receiver_on_ready(spoke_receiver *rx, spoke_receiver_ready_f *fn, void *ctx);
SPOKE_API int spoke_sender_on_ready(spoke_sender *tx, spoke_sender_ready_f *fn, void *ctx);

/* Move what comes from one channel to another, on one engine, with all that is attached, until the
 * first ends: 0 then, or why the second did.  *count messages were moved; none is lost in between.
 * Closes neither.  SPOKE_EMSGSIZE, SPOKE_ENOTSUP: the next one is too large for the second, or
 * carries what cannot go there, and stays; SPOKE_EBUSY: there is a copy from `rx` already;
 * SPOKE_EINVAL: it is one channel, or they live on two engines. */
SPOKE_API int spoke_channel_copy(spoke_sender *tx, spoke_receiver *rx, uint64_t *count,
                                 spoke_ns deadline);

/* ---- what is known ---- */

struct spoke_channel_info {
    uint64_t sent;    /* messages, by this end, or that have come to it */
    uint64_t taken;   /* … of them, by the receiver, as far as this end knows; not the dropped */
    uint64_t waiting; /* in this process */
    size_t depth, max_message;
    int end;             /* 0, or what the next call gives when nothing waits */
    uint64_t abort_code; /* with SPOKE_EABORTED */
    char text[256];      /* … and what was said */
};
SPOKE_API int spoke_sender_get_info(spoke_sender *tx, struct spoke_channel_info *out);
SPOKE_API int spoke_receiver_get_info(spoke_receiver *rx, struct spoke_channel_info *out);

/* ---- attachments ----
 * They belong to the message until they are taken, in the order in which they were attached; those
 * that are still there when the last reference goes are closed: a sender of answers ends with
 * SPOKE_EOF, a stream is aborted with SPOKE_MUX_CANCELED, a descriptor closed.  Messages with
 * attachments travel through channels only: sockets refuse them with SPOKE_ENOTSUP.
 *
 * Attaching takes the handle, or descriptor, on success: it is closed for the caller.  All that is
 * attached to one message lives on one engine.  Errors: SPOKE_ESHARED the message has further
 * references; SPOKE_ELIMIT there are SPOKE_ATTACHMENTS_PER_MESSAGE; SPOKE_EBUSY a call on it waits,
 * or it has a callback or a descriptor; SPOKE_EINVAL what is attached already lives on another
 * engine; SPOKE_ENOMEM.  A copy of the message, by spoke_msg_make_unique(), has no attachments. */
#define SPOKE_ATTACHMENTS_PER_MESSAGE 64

SPOKE_API int spoke_msg_attach_sender(spoke_msg *m, spoke_sender *tx);     /* who gets it sends */
SPOKE_API int spoke_msg_attach_receiver(spoke_msg *m, spoke_receiver *rx); /* … receives */
/* `direction`, SPOKE_ATTACHED_…: what the recipient does with it. */
SPOKE_API int spoke_msg_attach_stream(spoke_msg *m, spoke_stream *s, int direction);
/* Over ipc://, shm:// and in the process the descriptor itself arrives (session.h: take_fds).
 * Elsewhere a stream takes its place, if it is a stream socket, a pipe, a terminal or a regular
 * file (read from where it is); the send gives SPOKE_ENOTSUP for others, and SPOKE_EINVAL where it
 * is closed by then, or of io_uring.  SPOKE_EBADF: it is none. */
SPOKE_API int spoke_msg_attach_fd(spoke_msg *m, int fd, int direction);
/* Make a pipe (SPOKE_ATTACHED_BOTH: a pair of sockets), attach the recipient's end, and give the
 * other: the caller's to close. */
SPOKE_API int spoke_msg_attach_pipe(spoke_msg *m, int direction, int *fd);

/* How many there are, taken ones included. */
SPOKE_API size_t spoke_msg_attachments(const spoke_msg *m);
/* What the i-th is; kind 0: it has been taken.  SPOKE_ENOENT: there are not so many. */
SPOKE_API int spoke_msg_attachment(const spoke_msg *m, size_t i, spoke_attachment *out);

/* Take the i-th: the caller's from then on.  Errors: SPOKE_ENOENT; SPOKE_ESTATE it has been taken;
 * SPOKE_EDIR it is something else; SPOKE_ESHARED.  An end that came over a session has no type yet:
 * spoke_sender_set_type(), spoke_receiver_set_type(). */
SPOKE_API int spoke_msg_take_sender(spoke_msg *m, size_t i, spoke_sender **tx);
SPOKE_API int spoke_msg_take_receiver(spoke_msg *m, size_t i, spoke_receiver **rx);
SPOKE_API int spoke_msg_take_stream(spoke_msg *m, size_t i, spoke_stream **s);
/* A descriptor that had to come as a stream is one end of a pair of sockets, with the stream behind
 * it. */
SPOKE_API int spoke_msg_take_fd(spoke_msg *m, size_t i, int *fd);

#ifdef __cplusplus
}
#endif

#endif
