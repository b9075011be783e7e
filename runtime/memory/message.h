/* SPDX-License-Identifier: MIT */
/* The inside of a message.  Public face: <spoke/message.h>. */
#ifndef SPK_MEMORY_MESSAGE_H
#define SPK_MEMORY_MESSAGE_H

#include <stdatomic.h>
#include <sys/uio.h>

#include <spoke/message.h>

#include "runtime/memory/chunk.h"

#define SPK_HEADER_INLINE 64u  /* a backtrace of 15 hops and the id */
#define SPK_BODY_INLINE   128u /* bodies up to this lie in the message itself … */
#define SPK_BODY_SPARE    48u  /* … with so much room behind them */

/* Laid out by cache lines: with its pool's prefix in front, everything up to `inline_body` is in
 * the first, a body of 64 bytes in the second, and most messages touch no other. */
struct spoke_msg {
    atomic_uint refs;
    spoke_pipe_id pipe;
    uint16_t magic;
    uint16_t header_size;
    uint8_t priority;   /* of the pipe it came through */
    bool expires;       /* at `expires_ns`, which means nothing otherwise */
    bool returns;       /* to its sender, if it cannot be delivered; one reference */
    bool carries   : 1; /* `attached`, which means nothing otherwise */
    bool as_layout : 1; /* a value in SPOKE_FORM_LAYOUT, of a channel */
    bool repeated  : 1; /* somebody may have got it before: ports */
    uint8_t *body;      /* into inline_body or the chunk */
    size_t size;
    struct spk_chunk *chunk; /* NULL: the body is inline */
    uint8_t
        *header; /* inline_header, or a pooled block of SPOKE_HEADER_MAX when it has grown longer */
    uint8_t inline_body[SPK_BODY_INLINE + SPK_BODY_SPARE];
    uint8_t inline_header[SPK_HEADER_INLINE];
    struct spk_attached *attached;
    union {
        int64_t expires_ns;
        spoke_msg *next; /* of those that came back; `priority` says why */
    };
};

/* What is attached to a message; `drop` is called when the last reference goes, on any thread,
 * perhaps inside of an engine. */
struct spk_attached {
    void (*drop)(struct spk_attached *attached);
};

/* Give a message whose body is `size` bytes at `data` in `chunk`; takes the caller's reference on
 * the chunk on success. */
int spk_msg_slice(spoke_msg **out, struct spk_chunk *chunk, uint8_t *data, size_t size);

/* Give a message with an empty header and body whose chunk has room for `capacity` bytes, for a
 * body that arrives in pieces: grow it with spk_msg_reserve(). */
int spk_msg_reserve(
    spoke_msg *m,
    size_t capacity); /* body may then grow in place to `capacity`; errors: ENOMEM, EMSGSIZE */

/* Words of the header: big-endian, from wherever they are.  A received message may still have all
 * its words in the body (from a wire) or already in the header (inproc).  Make sure that the header
 * holds at least `end` bytes, moving bytes from the front of the body; SPOKE_EPROTO if there are
 * not enough, SPOKE_EMSGSIZE above SPOKE_HEADER_MAX. */
int spk_msg_pull(spoke_msg *m, size_t end);

/* Put what is left of the header in front of the body (the receiver has no use for a header). */
int spk_msg_flatten(spoke_msg *m);

void spk_msg_clear_header(spoke_msg *m);

/* Many small messages at once: one for each body of at most SPK_BODY_INLINE bytes, which is copied,
 * or (new) which the caller then writes.  Returns how many were made; fewer: there is no memory.
 * And away with many: as spoke_msg_free() on each. */
int spk_msg_from_many(spoke_msg **out, const struct iovec *bodies, int count);
int spk_msg_new_many(spoke_msg **out, const struct iovec *bodies, int count);
void spk_msg_free_many(spoke_msg **messages, int count);

/* Bring what most messages are into the cache: soon it will be read. */
static inline void
spk_msg_prefetch(const spoke_msg *m)
{
    __builtin_prefetch(m);
    __builtin_prefetch(m->inline_body);
}

static inline uint32_t
spk_get32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline void
spk_put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static inline uint64_t
spk_get64(const uint8_t *p)
{
    return (uint64_t)spk_get32(p) << 32 | spk_get32(p + 4);
}

static inline void
spk_put64(uint8_t *p, uint64_t v)
{
    spk_put32(p, (uint32_t)(v >> 32));
    spk_put32(p + 4, (uint32_t)v);
}

/* One more reference holder of the same bytes with a header of its own: for inproc.  Copies an
 * inline body, shares a chunk. */
int spk_msg_clone(spoke_msg **out, const spoke_msg *m);

#endif
