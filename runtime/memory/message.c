/* SPDX-License-Identifier: MIT */
/* Messages.  A small body lies in the message itself, a larger one in a chunk, with room on both
 * sides.
 *
 * The struct may be changed by the holder of its only reference; the bytes of the body only if the
 * chunk is not shared either (slices of one receive buffer, clones).  Where they are, a change
 * first moves the body. */
#include "runtime/memory/message.h"

#include <assert.h>
#include <string.h>

#include "runtime/memory/local.h"
#include "runtime/memory/pool.h"

#define MAGIC           0x4d67
#define MAGIC_FREED     0x6465
#define CHUNK_HEADROOM  ((size_t)64)
#define CHUNK_TAILROOM  ((size_t)32)
#define INLINE_HEADROOM ((size_t)32) /* of a small body that had to move */

_Static_assert(sizeof(struct spk_block) + offsetof(struct spoke_msg, inline_body) == SPK_CACHE_LINE,
               "a small body begins on a cache line of its own");

static void
copy_bytes(uint8_t *to, const void *from, size_t size)
{
    if (from != NULL && size > 0)
        memcpy(to, from, size);
}

static inline bool
one_reference(const spoke_msg *m)
{
    assert(m->magic == MAGIC);
    return atomic_load_explicit(&m->refs, memory_order_acquire) == 1;
}

/* ---- the life of a message ---- */

static inline void
init_message(spoke_msg *m, size_t size)
{
    atomic_init(&m->refs, 1);
    m->magic = MAGIC;
    m->body = m->inline_body;
    m->size = size;
    m->chunk = NULL;
    m->header = m->inline_header;
    m->header_size = 0;
    m->pipe = 0;
    m->expires = m->returns = m->carries = m->as_layout = m->repeated = false;
}

/* Give a message with an empty header and the body inline. */
static spoke_msg *
new_message(size_t size)
{
    spoke_msg *m = spk_pool_alloc(sizeof *m);

    if (m == NULL)
        return NULL;
    spk_count(SPK_COUNT_MESSAGES, 1);
    init_message(m, size);
    return m;
}

static __attribute__((noinline)) int
new_small(spoke_msg **out, size_t size)
{
    *out = new_message(size);
    return *out == NULL ? SPOKE_ENOMEM : 0;
}

static __attribute__((noinline)) int
new_large(spoke_msg **out, size_t size)
{
    *out = NULL;
    if (size > SPOKE_MSG_MAX)
        return SPOKE_EMSGSIZE;
    struct spk_chunk *c = spk_chunk_new(CHUNK_HEADROOM + size + CHUNK_TAILROOM);
    if (c == NULL)
        return SPOKE_ENOMEM;
    int rc = spk_msg_slice(out, c, c->data + CHUNK_HEADROOM, size);
    if (rc != 0)
        spk_chunk_unref(c);
    return rc;
}

int
spoke_msg_new(spoke_msg **out, size_t size)
{
    struct spk_pool *pool = spk_pool_mine;
    spoke_msg *m;

    if (size > SPK_BODY_INLINE)
        return new_large(out, size);
    /* new_small() would do, but this is the one allocation for each message. */
    if ((m = spk_local_take(pool, spk_size_class(sizeof *m))) == NULL)
        return new_small(out, size);
    spk_count_own(pool, SPK_COUNT_MESSAGES, 1);
    init_message(m, size);
    *out = m;
    return 0;
}

int
spoke_msg_from(spoke_msg **out, const void *data, size_t size)
{
    *out = NULL;
    if (data == NULL && size > 0)
        return SPOKE_EINVAL;
    int rc = spoke_msg_new(out, size);
    if (rc == 0)
        copy_bytes((*out)->body, data, size);
    return rc;
}

int
spoke_msg_wrap(spoke_msg **out, void *data, size_t size, spoke_msg_done_f *done, void *ctx)
{
    *out = NULL;
    if (data == NULL && size > 0)
        return SPOKE_EINVAL;
    if (size > SPOKE_MSG_MAX)
        return SPOKE_EMSGSIZE;
    spoke_msg *m = new_message(size);
    if (m == NULL)
        return SPOKE_ENOMEM;
    m->chunk = spk_chunk_wrap(data, size, done, ctx);
    if (m->chunk == NULL) {
        spoke_msg_free(m);
        return SPOKE_ENOMEM;
    }
    m->body = m->chunk->data;
    *out = m;
    return 0;
}

int
spk_msg_slice(spoke_msg **out, struct spk_chunk *chunk, uint8_t *data, size_t size)
{
    *out = NULL;
    if (size > SPOKE_MSG_MAX)
        return SPOKE_EMSGSIZE;
    spoke_msg *m = new_message(size);
    if (m == NULL)
        return SPOKE_ENOMEM;
    m->chunk = chunk;
    m->body = data;
    *out = m;
    return 0;
}

spoke_msg *
spoke_msg_dup(spoke_msg *m)
{
    assert(m->magic == MAGIC);
    atomic_fetch_add_explicit(&m->refs, 1, memory_order_relaxed);
    return m;
}

void
spk_msg_clear_header(spoke_msg *m)
{
    if (m->header != m->inline_header) {
        spk_pool_free_other(m->header);
        m->header = m->inline_header;
    }
    m->header_size = 0;
}

/* Away with the message and what it holds: the last reference is gone. */
static __attribute__((noinline)) void
destroy(spoke_msg *m)
{
    if (m->carries)
        m->attached->drop(m->attached);
    if (m->chunk != NULL)
        spk_chunk_unref(m->chunk);
    spk_msg_clear_header(m);
    m->magic = MAGIC_FREED;
    spk_count(SPK_COUNT_MESSAGES, -1);
    spk_pool_free(m);
}

void
spoke_msg_free(spoke_msg *m)
{
    struct spk_pool *pool = spk_pool_mine;

    if (m == NULL)
        return;
    assert(m->magic == MAGIC);
    /* As in spk_chunk_unref(): who is alone needs no atomic write. */
    if (!one_reference(m) && atomic_fetch_sub_explicit(&m->refs, 1, memory_order_acq_rel) != 1)
        return;
    /* destroy() would do, but this is the end of most messages. */
    bool plain = m->chunk == NULL && m->header == m->inline_header && !m->carries;
    if (!plain || !spk_local_give(pool, m)) {
        destroy(m);
        return;
    }
    m->magic = MAGIC_FREED;
    spk_count_own(pool, SPK_COUNT_MESSAGES, -1);
}

/* ---- many at once: what is above in loops, and counted together ---- */

static inline int
make_many(spoke_msg **out, const struct iovec *bodies, int count, bool copies)
{
    struct spk_pool *pool = spk_pool_mine;
    uint32_t size_class = spk_size_class(sizeof **out);
    int taken = 0, made = 0;

    for (; made < count; made++) {
        spoke_msg *m = spk_local_take(pool, size_class);
        if (m != NULL) {
            taken++;
        } else if ((m = new_message(0)) == NULL) {
            break;
        } else {
            pool = spk_pool_mine; /* the first one that it ever took may have given it its own */
        }
        init_message(m, bodies[made].iov_len);
        if (copies)
            memcpy(m->inline_body, bodies[made].iov_base, bodies[made].iov_len);
        out[made] = m;
    }
    if (taken > 0)
        spk_count_own(pool, SPK_COUNT_MESSAGES, taken);
    return made;
}

int
spk_msg_from_many(spoke_msg **out, const struct iovec *bodies, int count)
{
    return make_many(out, bodies, count, true);
}

int
spk_msg_new_many(spoke_msg **out, const struct iovec *bodies, int count)
{
    return make_many(out, bodies, count, false);
}

void
spk_msg_free_many(spoke_msg **messages, int count)
{
    struct spk_pool *pool = spk_pool_mine;
    int gone = 0;

    for (int i = 0; i < count; i++) {
        spoke_msg *m = messages[i];
        if (one_reference(m) && m->chunk == NULL && m->header == m->inline_header && !m->carries &&
            spk_local_give(pool, m)) {
            m->magic = MAGIC_FREED;
            gone++;
        } else {
            spoke_msg_free(m);
        }
    }
    if (gone > 0)
        spk_count_own(pool, SPK_COUNT_MESSAGES, -gone);
}

/* ---- the body's place ---- */

/* The bytes around the body may be written: nobody else can see them. */
static bool
owns_storage(const spoke_msg *m)
{
    return m->chunk == NULL || spk_chunk_is_ours(m->chunk);
}

static size_t
room_before(const spoke_msg *m)
{
    return (size_t)(m->body - (m->chunk != NULL ? m->chunk->data : m->inline_body));
}

static size_t
room_behind(const spoke_msg *m)
{
    size_t all = m->chunk != NULL ? m->chunk->size : sizeof m->inline_body;

    return all - room_before(m) - m->size;
}

static void
move_body_inline(spoke_msg *m, size_t front, size_t back)
{
    size_t start = sizeof m->inline_body - m->size - back; /* as far back as it can be … */
    struct spk_chunk *old = m->chunk;

    if (start > INLINE_HEADROOM) /* … but not farther than is of use */
        start = front > INLINE_HEADROOM ? front : INLINE_HEADROOM;
    if (m->size > 0)
        memmove(m->inline_body + start, m->body, m->size);
    m->body = m->inline_body + start;
    m->chunk = NULL;
    if (old != NULL)
        spk_chunk_unref(old);
}

/* Move the body to where nobody else sees it, with at least this much room in front and behind.
 * `slack` more on both sides of a chunk makes a series of prepends or appends cost little. */
static int
move_body(spoke_msg *m, size_t front, size_t back, size_t slack)
{
    if (front + m->size + back <= sizeof m->inline_body) {
        move_body_inline(m, front, back);
        return 0;
    }
    front += CHUNK_HEADROOM + slack;
    back += CHUNK_TAILROOM + slack;
    struct spk_chunk *c = spk_chunk_new(front + m->size + back);
    if (c == NULL)
        return SPOKE_ENOMEM;
    copy_bytes(c->data + front, m->body, m->size);
    if (m->chunk != NULL)
        spk_chunk_unref(m->chunk);
    m->chunk = c;
    m->body = c->data + front;
    return 0;
}

/* Make the bytes before and behind the body writable, this many. */
static int
make_room(spoke_msg *m, size_t front, size_t back)
{
    if (front + back > SPOKE_MSG_MAX - m->size)
        return SPOKE_EMSGSIZE;
    if (front + back == 0)
        return 0;
    if (owns_storage(m) && front <= room_before(m) && back <= room_behind(m))
        return 0;
    return move_body(m, front, back, (m->size + front + back) / 4);
}

int
spk_msg_reserve(spoke_msg *m, size_t capacity)
{
    size_t back = capacity > m->size ? capacity - m->size : 0;

    if (capacity > SPOKE_MSG_MAX)
        return SPOKE_EMSGSIZE;
    if (!one_reference(m))
        return SPOKE_ESHARED;
    if (owns_storage(m) && back <= room_behind(m))
        return 0;
    return move_body(m, 0, back + m->size / 2,
                     0); /* more than asked, if there are bytes to copy again */
}

/* ---- copies ---- */

static int
grow_header(spoke_msg *m)
{
    uint8_t *block = spk_pool_alloc_other(SPOKE_HEADER_MAX);

    if (block == NULL)
        return SPOKE_ENOMEM;
    copy_bytes(block, m->header, m->header_size);
    m->header = block;
    return 0;
}

/* Everything but the body. */
static int
copy_rest(spoke_msg *to, const spoke_msg *from)
{
    if (from->header_size > SPK_HEADER_INLINE) {
        int rc = grow_header(to);
        if (rc != 0)
            return rc;
    }
    copy_bytes(to->header, from->header, from->header_size);
    to->header_size = from->header_size;
    to->pipe = from->pipe;
    to->expires = from->expires;
    to->returns = from->returns;
    to->as_layout = from->as_layout;
    to->repeated = from->repeated;
    if (from->expires)
        to->expires_ns = from->expires_ns;
    return 0;
}

int
spk_msg_clone(spoke_msg **out, const spoke_msg *m)
{
    *out = NULL;
    spoke_msg *clone = new_message(m->size);
    if (clone == NULL)
        return SPOKE_ENOMEM;
    int rc = copy_rest(clone, m);
    if (rc != 0) {
        spoke_msg_free(clone);
        return rc;
    }
    if (m->chunk != NULL) {
        clone->chunk = spk_chunk_ref(m->chunk);
        clone->body = m->body;
    } else {
        clone->body = clone->inline_body + room_before(m);
        copy_bytes(clone->body, m->body, m->size);
    }
    *out = clone;
    return 0;
}

bool
spoke_msg_is_unique(const spoke_msg *m)
{
    return one_reference(m) && owns_storage(m);
}

int
spoke_msg_make_unique(spoke_msg **m)
{
    spoke_msg *copy;

    if (spoke_msg_is_unique(*m))
        return 0;
    if (one_reference(*m))
        return move_body(*m, 0, 0, 0);
    int rc = spoke_msg_from(&copy, (*m)->body, (*m)->size);
    if (rc != 0)
        return rc;
    rc = copy_rest(copy, *m);
    if (rc != 0) {
        spoke_msg_free(copy);
        return rc;
    }
    spoke_msg_free(*m);
    *m = copy;
    return 0;
}

/* ---- the body ---- */

void *
spoke_msg_body(const spoke_msg *m)
{
    return m->body;
}

size_t
spoke_msg_size(const spoke_msg *m)
{
    return m->size;
}

int
spoke_msg_append(spoke_msg *m, const void *data, size_t size)
{
    if (!one_reference(m))
        return SPOKE_ESHARED;
    if (size > SPOKE_MSG_MAX)
        return SPOKE_EMSGSIZE;
    int rc = make_room(m, 0, size);
    if (rc != 0)
        return rc;
    copy_bytes(m->body + m->size, data, size);
    m->size += size;
    return 0;
}

int
spoke_msg_prepend(spoke_msg *m, const void *data, size_t size)
{
    if (!one_reference(m))
        return SPOKE_ESHARED;
    if (size > SPOKE_MSG_MAX)
        return SPOKE_EMSGSIZE;
    int rc = make_room(m, size, 0);
    if (rc != 0)
        return rc;
    m->body -= size;
    m->size += size;
    copy_bytes(m->body, data, size);
    return 0;
}

int
spoke_msg_trim_front(spoke_msg *m, size_t size)
{
    if (!one_reference(m))
        return SPOKE_ESHARED;
    if (size > m->size)
        return SPOKE_EINVAL;
    m->body += size;
    m->size -= size;
    return 0;
}

int
spoke_msg_trim_back(spoke_msg *m, size_t size)
{
    if (!one_reference(m))
        return SPOKE_ESHARED;
    if (size > m->size)
        return SPOKE_EINVAL;
    m->size -= size;
    return 0;
}

/* ---- the header: always begins where its memory does ---- */

static int
make_header_room(spoke_msg *m, size_t size)
{
    if (!one_reference(m))
        return SPOKE_ESHARED;
    if (size > SPOKE_HEADER_MAX - m->header_size)
        return SPOKE_EMSGSIZE;
    if (m->header != m->inline_header || m->header_size + size <= SPK_HEADER_INLINE)
        return 0;
    return grow_header(m);
}

void *
spoke_msg_header(const spoke_msg *m)
{
    return m->header;
}

size_t
spoke_msg_header_size(const spoke_msg *m)
{
    return m->header_size;
}

int
spoke_msg_header_append(spoke_msg *m, const void *data, size_t size)
{
    int rc = make_header_room(m, size);

    if (rc != 0)
        return rc;
    copy_bytes(m->header + m->header_size, data, size);
    m->header_size = (uint16_t)(m->header_size + size);
    return 0;
}

int
spoke_msg_header_prepend(spoke_msg *m, const void *data, size_t size)
{
    int rc = make_header_room(m, size);

    if (rc != 0)
        return rc;
    memmove(m->header + size, m->header, m->header_size);
    copy_bytes(m->header, data, size);
    m->header_size = (uint16_t)(m->header_size + size);
    return 0;
}

int
spoke_msg_header_trim_front(spoke_msg *m, size_t size)
{
    if (!one_reference(m))
        return SPOKE_ESHARED;
    if (size > m->header_size)
        return SPOKE_EINVAL;
    m->header_size = (uint16_t)(m->header_size - size);
    memmove(m->header, m->header + size, m->header_size);
    return 0;
}

int
spoke_msg_header_trim_back(spoke_msg *m, size_t size)
{
    if (!one_reference(m))
        return SPOKE_ESHARED;
    if (size > m->header_size)
        return SPOKE_EINVAL;
    m->header_size = (uint16_t)(m->header_size - size);
    return 0;
}

int
spk_msg_pull(spoke_msg *m, size_t end)
{
    if (end <= m->header_size)
        return 0;
    if (end > SPOKE_HEADER_MAX)
        return SPOKE_EMSGSIZE;
    size_t size = end - m->header_size;
    if (size > m->size)
        return SPOKE_EPROTO;
    int rc = spoke_msg_header_append(m, m->body, size);
    return rc != 0 ? rc : spoke_msg_trim_front(m, size);
}

int
spk_msg_flatten(spoke_msg *m)
{
    if (m->header_size == 0)
        return 0;
    int rc = spoke_msg_prepend(m, m->header, m->header_size);
    if (rc == 0)
        spk_msg_clear_header(m);
    return rc;
}

/* ---- the rest ---- */

spoke_pipe_id
spoke_msg_pipe(const spoke_msg *m)
{
    return m->pipe;
}
