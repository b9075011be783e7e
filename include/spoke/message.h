/* SPDX-License-Identifier: MIT */
/* Messages: a body, which is a slice of counted, pooled memory, and a short header that belongs to
 * the protocol.
 *
 * Whoever holds a message holds one reference and gives it back with spoke_msg_free(), or passes it
 * on to a call that takes it.  A message may move between threads; two threads must not change one
 * message at the same time.
 *
 * A message with one reference may be changed.  spoke_msg_dup() adds a reference and copies
 * nothing; from then on the calls that change a message refuse with SPOKE_ESHARED until
 * spoke_msg_make_unique().  The bytes of a received body may be shared, with the process that sent
 * it (inproc) or with what is passed on to others (STAR): write to them after
 * spoke_msg_make_unique() only.
 *
 * Any thread may make any of these calls; none waits.  A message argument is never NULL (but for
 * spoke_msg_free()), nor is `out`, and *out is NULL after an error.
 *
 * Semantics after the messages of mangos and NNG; differences are said at each call. */
#ifndef SPOKE_MESSAGE_H
#define SPOKE_MESSAGE_H

#include <spoke/error.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Bodies are limited to what every supported protocol and its length arithmetic can carry. */
#define SPOKE_MSG_MAX ((size_t)0xffffffff) /* bytes: 4 GiB - 1; more gives SPOKE_EMSGSIZE */

/* The longest header: 255 backtrace words and one id. */
#define SPOKE_HEADER_MAX ((size_t)1028) /* bytes */

/* Give a message with a body of `size` bytes, contents undefined, header empty.  There is spare
 * room around the body, so that a short append or prepend copies nothing (a prepend to a body of up
 * to 128 bytes: nothing but, once, that body).  Errors: SPOKE_EMSGSIZE, SPOKE_ENOMEM; then *out is
 * NULL.  Any thread. */
SPOKE_API int spoke_msg_new(spoke_msg **out, size_t size);

/* The same, filled with a copy of `data`.  SPOKE_EINVAL: `data` is NULL and `size` is not 0. */
SPOKE_API int spoke_msg_from(spoke_msg **out, const void *data, size_t size);

/* Give a message whose body is the caller's memory, not copied.  `done` (may be NULL) is called
 * exactly once, from any thread, when the last reference goes; it must not call the library.  On
 * failure `done` is not called and the memory stays the caller's.  The library never writes to it,
 * unless the caller does through this message.  Errors: SPOKE_EINVAL as above, SPOKE_EMSGSIZE,
 * SPOKE_ENOMEM. */
typedef void spoke_msg_done_f(void *data, size_t size, void *ctx);
SPOKE_API int spoke_msg_wrap(spoke_msg **out, void *data, size_t size, spoke_msg_done_f *done,
                             void *ctx);

/* Add a reference; returns `m`.  Never fails, copies nothing.  Each reference is freed or passed on
 * by itself. */
SPOKE_API spoke_msg *spoke_msg_dup(spoke_msg *m);

/* Give one reference back; the last one frees.  NULL is allowed.  Any thread. */
SPOKE_API void spoke_msg_free(spoke_msg *m);

/* True if nobody else can see this message or its bytes. */
SPOKE_API bool spoke_msg_is_unique(const spoke_msg *m);

/* Make *m a message that the caller alone sees, header and body: nothing happens if it is already,
 * else the caller's reference is exchanged for a copy.  On SPOKE_ENOMEM *m is unchanged. */
SPOKE_API int spoke_msg_make_unique(spoke_msg **m);

/* The body.  The pointer is valid until the message is changed or freed. */
SPOKE_API void *spoke_msg_body(const spoke_msg *m);
SPOKE_API size_t spoke_msg_size(const spoke_msg *m);

/* Change the body of a message with one reference.  Append and prepend copy `size` bytes from
 * `data` (which must not lie in this message; NULL: leave them undefined) and may move the body;
 * trims only move its ends. Errors: SPOKE_ESHARED; SPOKE_EMSGSIZE; SPOKE_ENOMEM; SPOKE_EINVAL a
 * trim of more than there is. On error the message is unchanged. */
SPOKE_API int spoke_msg_append(spoke_msg *m, const void *data, size_t size);
SPOKE_API int spoke_msg_prepend(spoke_msg *m, const void *data, size_t size);
SPOKE_API int spoke_msg_trim_front(spoke_msg *m, size_t size);
SPOKE_API int spoke_msg_trim_back(spoke_msg *m, size_t size);

/* The header: always empty after a receive on a cooked socket and ignored by a send on one.  On a
 * raw socket it holds the protocol's words (docs/wire.md) and is sent in front of the body.  Errors
 * as for the body; SPOKE_EMSGSIZE above SPOKE_HEADER_MAX. */
SPOKE_API void *spoke_msg_header(const spoke_msg *m);
SPOKE_API size_t spoke_msg_header_size(const spoke_msg *m);
SPOKE_API int spoke_msg_header_append(spoke_msg *m, const void *data, size_t size);
SPOKE_API int spoke_msg_header_prepend(spoke_msg *m, const void *data, size_t size);
SPOKE_API int spoke_msg_header_trim_front(spoke_msg *m, size_t size);
SPOKE_API int spoke_msg_header_trim_back(spoke_msg *m, size_t size);

/* The pipe that a received message came through, 0 if it did not come through one. */
SPOKE_API spoke_pipe_id spoke_msg_pipe(const spoke_msg *m);

/* What the pools of the process hold right now.  Counted exactly when no other thread is inside the
 * library. */
struct spoke_memory_stats {
    uint64_t messages; /* message objects in use */
    uint64_t chunks; /* body chunks in use: bodies too large to lie in their message object, receive
                        buffers */
    uint64_t chunk_bytes;   /* their size */
    uint64_t idle_bytes;    /* memory that the pools keep for reuse */
    uint64_t system_allocs; /* times that the pools had to ask the allocator for memory, ever */
    uint64_t foreign_frees; /* blocks freed by another thread than the one whose pool they came
                               from, ever */
    uint64_t others;        /* further blocks in use: headers too long for their message object, a
                               pipe's list of what it has to write */
};
/* Any thread, never fails, never waits. */
SPOKE_API void spoke_memory_stats(struct spoke_memory_stats *out);

#ifdef __cplusplus
}
#endif

#endif
