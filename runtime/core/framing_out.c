/* SPDX-License-Identifier: MIT */
/* What a pipe over a byte stream writes.  An idle pipe writes at once, on the caller's thread. What
 * is sent while that is not possible, or in a burst, is gathered: small messages in a chunk, large
 * bodies by reference, and goes out together.  One write at a time is outstanding. */
#include <string.h>
#include <sys/socket.h>

#include "runtime/core/framing.h"
#include "runtime/engine/probe.h"

#define GATHER_MOST  ((size_t)4 * 1024) /* larger bodies go out by reference */
#define SMALL_MOST   ((size_t)512)      /* written from the stack, header and body together */
#define GATHER_SIZE  ((size_t)64 * 1024)
#define FLUSH_BYTES  (GATHER_SIZE - GATHER_MOST) /* gathered bytes that are worth a write */
#define PENDING_MOST ((size_t)256 * 1024) /* bytes taken before the pipe says that it is full */
#define SEGMENTS     64
#define AHEAD        4 /* messages are fetched into the cache so many before their turn */

/* What has to be let go when a segment is written, and which messages then are. */
struct segment_owner {
    spoke_msg *m;
    struct spk_chunk *chunk;
    uint8_t *start; /* gathered: where its first message began, NULL: it is the rest of one that has
                       begun to go out */
    uint32_t ends;  /* messages that end in it */
};

/* Exists only while there is something to write. */
struct spk_framing_out {
    struct msghdr msg;
    struct iovec iov[SEGMENTS];
    struct segment_owner owner[SEGMENTS];
    int count;
    struct spk_chunk *gather; /* where small messages are copied to … */
    size_t gather_used;
    size_t bytes; /* in all segments */
};

/* ---- writing ---- */

static struct spk_framing_out *
get_out(struct spk_framing *f)
{
    if (f->out == NULL && (f->out = spk_pool_alloc_other(sizeof *f->out)) != NULL) {
        f->out->count = 0;
        f->out->gather = NULL;
        f->out->gather_used = f->out->bytes = 0;
        memset(&f->out->msg, 0, sizeof f->out->msg);
    }
    return f->out;
}

static void
let_go(struct segment_owner *owner)
{
    spoke_msg_free(owner->m);
    if (owner->chunk != NULL)
        spk_chunk_unref(owner->chunk);
}

void
spk_framing_drop_out(struct spk_framing *f)
{
    struct spk_framing_out *out = f->out;

    if (out == NULL)
        return;
    for (int i = 0; i < out->count; i++)
        let_go(&out->owner[i]);
    if (out->gather != NULL)
        spk_chunk_unref(out->gather);
    spk_pool_free_other(out);
    f->out = NULL;
}

/* Forget the first `n` bytes.  No write is outstanding. */
static void
consume(struct spk_framing_out *out, size_t n)
{
    int done = 0;

    out->bytes -= n;
    while (done < out->count && n >= out->iov[done].iov_len) {
        n -= out->iov[done].iov_len;
        let_go(&out->owner[done++]);
    }
    if (n > 0) {
        out->iov[done].iov_base = (uint8_t *)out->iov[done].iov_base + n;
        out->iov[done].iov_len -= n;
    }
    out->count -= done;
    memmove(out->iov, out->iov + done, (size_t)out->count * sizeof *out->iov);
    memmove(out->owner, out->owner + done, (size_t)out->count * sizeof *out->owner);
    if (out->count == 0 && out->gather != NULL && spk_chunk_alone(out->gather))
        out->gather_used = 0;
}

void
spk_framing_write_more(struct spk_framing *f)
{
    struct spk_framing_out *out = f->out;

    out->msg.msg_iov = out->iov;
    out->msg.msg_iovlen = (size_t)out->count;
    f->st->ops->send(f->st, &f->send_op, &out->msg);
}

/* Nothing is left here; the stream may have something, which it hands over while we wait for room.
 */
static void
all_taken(struct spk_framing *f)
{
    if (spk_stream_unsent(f->st) == 0)
        spk_socket_advance_close(f->pipe.socket);
    else if (!spk_op_busy(&f->send_op)) {
        f->awaits_room = true;
        f->st->ops->writable(f->st, &f->send_op);
    }
}

/* The pipe can take more, or has nothing left: tell whom it concerns. */
static void
after_write(struct spk_framing *f)
{
    if (f->out->bytes == 0) {
        spk_framing_drop_out(f);
        all_taken(f);
    }
    if (f->moved_out)
        return;
    if (f->out == NULL || (f->out->bytes <= PENDING_MOST / 2 && f->out->count <= SEGMENTS / 2)) {
        spk_pipe_set_writable(&f->pipe, true);
        if (f->wire != NULL)
            f->wire->wrote(f);
    }
}

/* Of the messages gathered in a segment, those that are written already. */
static uint32_t
written(const struct spk_framing *f, const struct segment_owner *owner, const uint8_t *up_to)
{
    size_t type = f->type_byte ? 1 : 0;
    uint32_t count = 0;

    for (const uint8_t *at = owner->start; at != NULL && count < owner->ends; count++) {
        at = f->wire != NULL ? f->wire->end_of(at) : at + type + 8 + spk_get64(at + type);
        if (at > up_to)
            break;
    }
    return count;
}

/* Messages that are to be written, or written in part. */
static uint64_t
messages_in(const struct spk_framing *f)
{
    const struct spk_framing_out *out = f->out;
    uint64_t messages = 0;

    for (int i = 0; out != NULL && i < out->count; i++)
        messages += out->owner[i].ends;
    if (out != NULL && out->count > 0 && out->owner[0].start != NULL)
        messages -= written(f, &out->owner[0], out->iov[0].iov_base);
    return messages;
}

/* Nobody reads there any more.  A connection that is moving did not need to write: what its peer
 * sent before it left is read first, and then its end. */
static void
write_failed(struct spk_framing *f, int reason)
{
    if (f->moved_out && messages_in(f) == 0)
        spk_framing_drop_out(f);
    else
        spk_pipe_shut(&f->pipe, reason);
}

/* Write what is there as far as it goes without waiting, leave the rest to the ring. */
static void
flush_now(struct spk_framing *f)
{
    spk_list_remove(&f->flush.link);
    if (f->out == NULL || f->closing || spk_op_busy(&f->send_op))
        return;
    while (f->out->bytes > 0) {
        int64_t n = f->st->ops->send_now(f->st, f->out->iov, f->out->count);

        if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS) {
            spk_framing_write_more(f);
            break;
        }
        if (n < 0) {
            write_failed(f, (int)n);
            return;
        }
        spk_framing_engine(f)->written += (uint64_t)n;
        consume(f->out, (size_t)n);
    }
    f->burst = spk_framing_engine(f)->burst;
    after_write(f);
}

void
spk_framing_flush(struct spk_pipe *p)
{
    flush_now(spk_framing_of(p));
}

static void
flush_later(struct spk_framing *f)
{
    if (spk_list_empty(&f->flush.link))
        spk_list_append(&spk_framing_engine(f)->flushes, &f->flush.link);
}

static void
on_flush(struct spk_flush *flush)
{
    flush_now(SPK_OWNER(flush, struct spk_framing, flush));
}

static void
on_room(struct spk_framing *f, int result)
{
    f->awaits_room = false;
    if (result < 0)
        write_failed(f, result);
    else if (f->out != NULL)
        flush_now(f);
    else
        all_taken(f);
}

static void
on_sent(struct spk_op *op, int result)
{
    struct spk_framing *f = SPK_OWNER(op, struct spk_framing, send_op);

    if (f->closing) {
        if (result > 0 && f->out != NULL) /* that much is not lost */
            consume(f->out, (size_t)result);
        spk_framing_maybe_closed(f);
        return;
    }
    if (f->awaits_room) {
        on_room(f, result);
        return;
    }
    if (result == SPOKE_ENOBUFS || result == SPOKE_EAGAIN) {
        spk_framing_write_more(f);
        return;
    }
    if (result <= 0) {
        write_failed(f, result == 0 ? SPOKE_ECONNRESET : result);
        return;
    }
    spk_framing_engine(f)->written += (uint64_t)result;
    consume(f->out, (size_t)result);
    if (f->out->bytes > 0)
        flush_now(f);
    else
        after_write(f);
}

/* ---- gathering ---- */

/* The bytes in front of a message; returns how many there are. */
static inline size_t
put_head(const struct spk_framing *f, uint8_t *head, size_t length)
{
    size_t at = 0;

    if (f->wire != NULL)
        return f->wire->put_head(f, head, length);
    if (f->type_byte)
        head[at++] = SPK_TYPE_MESSAGE;
    spk_put64(head + at, length);
    return at + 8;
}

/* All of a message, whose header has so many bytes; returns how many there are. */
static inline size_t
put_whole(struct spk_framing *f, uint8_t *to, const spoke_msg *m, size_t header_size)
{
    size_t at;

    if (f->wire != NULL)
        return f->wire->put_whole(f, to, m);
    at = put_head(f, to, header_size + m->size);
    if (header_size > 0)
        memcpy(to + at, m->header, header_size);
    memcpy(to + at + header_size, m->body, m->size);
    return at + header_size + m->size;
}

static void
add_segment(struct spk_framing_out *out, const void *base, size_t size, spoke_msg *m,
            struct spk_chunk *chunk)
{
    out->iov[out->count].iov_base = (void *)(uintptr_t)base;
    out->iov[out->count].iov_len = size;
    out->owner[out->count] = (struct segment_owner){.m = m, .chunk = chunk};
    out->count++;
    out->bytes += size;
}

/* Room for `size` bytes at the end of what is gathered, NULL when there is no memory.  Bytes that
 * follow each other in the same chunk share a segment. */
static uint8_t *
gather_room(struct spk_framing_out *out, size_t size)
{
    if (out->gather != NULL && out->gather->size - out->gather_used < size) {
        spk_chunk_unref(out->gather);
        out->gather = NULL;
    }
    if (out->gather == NULL) {
        if ((out->gather = spk_chunk_new(GATHER_SIZE)) == NULL)
            return NULL;
        out->gather_used = 0;
    }
    return out->gather->data + out->gather_used;
}

static void
gathered(struct spk_framing_out *out, uint8_t *data, size_t size)
{
    struct iovec *last = out->count > 0 ? &out->iov[out->count - 1] : NULL;

    if (last != NULL && (uint8_t *)last->iov_base + last->iov_len == data &&
        out->owner[out->count - 1].chunk == out->gather &&
        out->owner[out->count - 1].start != NULL) {
        last->iov_len += size;
        out->bytes += size;
    } else {
        add_segment(out, data, size, NULL, spk_chunk_ref(out->gather));
    }
    out->gather_used += size;
}

bool
spk_framing_put(struct spk_framing *f, const uint8_t *bytes, size_t size)
{
    struct spk_framing_out *out = get_out(f);
    uint8_t *room = out == NULL ? NULL : gather_room(out, size);

    if (room == NULL)
        return false;
    memcpy(room, bytes, size);
    gathered(out, room, size);
    return true;
}

/* Whoever sends is to wait where there is this much to be written. */
static void
check_full(struct spk_framing *f)
{
    if (f->out->bytes >= PENDING_MOST || f->out->count >= SEGMENTS - 2)
        spk_pipe_set_writable(&f->pipe, false);
}

bool
spk_framing_is_written(const struct spk_framing *f)
{
    return f->out == NULL && !spk_op_busy(&f->send_op);
}

/* A message that cannot leave as it is, in memory of its own.  Takes it, or changes nothing. */
static int
queue_whole(struct spk_framing *f, spoke_msg *m)
{
    size_t size = f->wire->whole_size(f, m->header_size + m->size);
    struct spk_framing_out *out = get_out(f);
    struct spk_chunk *chunk = out == NULL ? NULL : spk_chunk_new(size);

    if (chunk == NULL)
        return SPOKE_ENOMEM;
    f->wire->put_whole(f, chunk->data, m);
    if (!m->returns) { /* else it is kept until then */
        spoke_msg_free(m);
        m = NULL;
    }
    add_segment(out, chunk->data, size, m, chunk);
    out->owner[out->count - 1].ends = 1;
    check_full(f);
    return 0;
}

/* Put a message behind what is to be written, less its first `skip` bytes, which are written
 * already.  Takes it, or fails and changes nothing. */
static int
queue_message(struct spk_framing *f, spoke_msg *m, size_t skip)
{
    size_t length = m->header_size + m->size, copied;
    bool small = m->size <= GATHER_MOST && !m->returns; /* else it would be gone */
    struct spk_framing_out *out = get_out(f);
    uint8_t *room;

    if (!small && f->wire != NULL && !f->wire->goes_as_it_is(f, length))
        return queue_whole(f, m);
    copied = SPK_HEAD_MOST + m->header_size + (small ? m->size : 0);
    if (out == NULL || (room = gather_room(out, copied)) == NULL)
        return SPOKE_ENOMEM;
    if (small) {
        copied = put_whole(f, room, m, m->header_size);
    } else {
        copied = put_head(f, room, length);
        memcpy(room + copied, m->header, m->header_size);
        copied += m->header_size;
    }
    if (skip < copied) {
        gathered(out, room + skip, copied - skip);
        out->gather_used += skip;
    }
    if (skip == 0 && out->owner[out->count - 1].start == NULL)
        out->owner[out->count - 1].start = room;
    if (small) {
        spoke_msg_free(m);
    } else {
        size_t gone = skip > copied ? skip - copied : 0;

        add_segment(out, m->body + gone, m->size - gone, m, NULL);
    }
    out->owner[out->count - 1].ends++;
    check_full(f);
    return 0;
}

/* Gather the first of many that are small and have nothing but a body; returns how many. */
static int
gather_run(struct spk_framing *f, spoke_msg **messages, int count, uint64_t *bytes)
{
    spoke_msg *m = messages[0];
    struct spk_framing_out *out;
    uint8_t *start, *at, *end;
    int n = 0;

    if (m->size > GATHER_MOST || m->header_size > 0 || m->expires || m->returns ||
        (out = get_out(f)) == NULL)
        return 0;
    if ((at = start = gather_room(out, SPK_HEAD_MOST + m->size)) == NULL)
        return 0;
    end = out->gather->data + out->gather->size;
    do {
        if (count - n > AHEAD)
            spk_msg_prefetch(messages[n + AHEAD]);
        SPK_PROBE(send, f->pipe.id, m->size);
        at += put_whole(f, at, m, 0);
        *bytes += m->size;
    } while (++n < count && (m = messages[n])->size <= GATHER_MOST && m->header_size == 0 &&
             !m->expires && !m->returns && SPK_HEAD_MOST + m->size <= (size_t)(end - at));
    gathered(out, start, (size_t)(at - start));
    if (out->owner[out->count - 1].start == NULL)
        out->owner[out->count - 1].start = start;
    out->owner[out->count - 1].ends += (uint32_t)n;
    spk_msg_free_many(messages, n);
    check_full(f);
    return n;
}

/* ---- what the core calls ---- */

int
spk_framing_send_many(struct spk_pipe *p, spoke_msg **messages, int count, uint64_t *bytes)
{
    struct spk_framing *f = spk_framing_of(p);
    struct spk_engine *e = spk_framing_engine(f);
    int done = 0, n = 1;

    if (f->moved_out)
        return spk_shm_send_many(f->shm, messages, count, bytes);
    if (f->may_move)
        spk_framing_consider_moving(f);
    while (n > 0 && done < count && spk_pipe_can_send(p)) {
        done += n = gather_run(f, messages + done, count - done, bytes);
        if (f->out != NULL && f->out->bytes >= FLUSH_BYTES)
            flush_now(f);
    }
    if (done == 0 || f->out == NULL || spk_op_busy(&f->send_op))
        return done;
    if (e->cork == 0 && !e->shared) /* nobody else would */
        flush_now(f);
    else
        flush_later(f);
    return done;
}

/* A message that was taken dies with its connection. */
static void
lose(struct spk_framing *f, spoke_msg *m, int reason)
{
    spk_pipe_shut(&f->pipe, reason);
    spk_drop(f->pipe.socket, &f->pipe, m, SPK_DROP_LOST);
}

/* As a wire has it: a small one from one place; what is larger is gathered, and written from
 * there. */
static int
send_covered(struct spk_framing *f, spoke_msg *m)
{
    uint8_t front[SPK_HEAD_MOST + SMALL_MOST];
    struct iovec iov = {front, 0};
    int64_t n;
    int rc;

    if (m->header_size + m->size > SMALL_MOST) {
        if ((rc = queue_message(f, m, 0)) == 0)
            flush_now(f);
        return rc;
    }
    iov.iov_len = put_whole(f, front, m, m->header_size);
    n = f->st->ops->send_now(f->st, &iov, 1);
    if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS)
        n = 0;
    f->burst = spk_framing_engine(f)->burst;
    if (n < 0 || ((size_t)n < iov.iov_len && n > 0 &&
                  !spk_framing_put(f, front + n, iov.iov_len - (size_t)n))) {
        lose(f, m, n < 0 ? (int)n : SPOKE_ENOMEM);
        return 0;
    }
    if (n == 0) {
        if ((rc = queue_message(f, m, 0)) == 0)
            spk_framing_write_more(f);
        return rc;
    }
    if (f->out != NULL) {
        f->out->owner[f->out->count - 1].ends = 1;
        spk_framing_write_more(f);
    }
    spoke_msg_free(m);
    return 0;
}

/* The system call for one message: a small one from one place, which the kernel takes faster than
 * three. */
static int64_t
write_message(struct spk_framing *f, const spoke_msg *m)
{
    uint8_t front[SPK_HEAD_MOST + SMALL_MOST];
    struct iovec iov[3] = {{front, 0}, {m->header, m->header_size}, {m->body, m->size}};

    if (m->header_size + m->size > SMALL_MOST) {
        iov[0].iov_len = put_head(f, front, m->header_size + m->size);
        return f->st->ops->send_now(f->st, iov, 3);
    }
    iov[0].iov_len = put_whole(f, front, m, m->header_size);
    return f->st->ops->send_now(f->st, iov, 1);
}

/* Write one message at once, as far as it goes. */
static int
send_at_once(struct spk_framing *f, spoke_msg *m)
{
    size_t all = spk_framing_head_size(f) + m->header_size + m->size;
    int64_t n = write_message(f, m);
    int rc;

    if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS)
        n = 0;
    if (n < 0) {
        lose(f, m, (int)n);
        return 0;
    }
    f->burst = spk_framing_engine(f)->burst;
    if ((size_t)n == all) {
        spoke_msg_free(m);
        if (f->st->ops->unsent != NULL)
            all_taken(f);
        return 0;
    }
    if ((rc = queue_message(f, m, (size_t)n)) != 0) {
        if (n == 0)
            return rc;
        lose(f, m, rc); /* half a message is out: this connection is of no use any more */
        return 0;
    }
    spk_framing_write_more(f);
    return 0;
}

int
spk_framing_send(struct spk_pipe *p, spoke_msg *m)
{
    struct spk_framing *f = spk_framing_of(p);
    struct spk_engine *e = spk_framing_engine(f);
    bool idle = f->out == NULL && !spk_op_busy(&f->send_op);
    int rc;

    if (f->moved_out)
        return spk_shm_send(f->shm, m);
    if (f->may_move)
        spk_framing_consider_moving(f);
    /* A second message in the same burst waits for the others; on a shared engine its thread, or
     * FLUSH_BYTES of them, write them. */
    if (idle && e->cork == 0 && !(e->shared && f->burst == e->burst))
        return f->wire != NULL ? send_covered(f, m) : send_at_once(f, m);
    if ((rc = queue_message(f, m, 0)) != 0)
        return rc;
    if (spk_op_busy(&f->send_op))
        return 0;
    if (f->out->bytes >= FLUSH_BYTES)
        flush_now(f);
    else
        flush_later(f);
    return 0;
}

uint64_t
spk_framing_pending(struct spk_pipe *p, uint64_t *bytes)
{
    struct spk_framing *f = spk_framing_of(p);
    uint64_t messages = messages_in(f), there = 0;

    size_t taken = f->st != NULL ? spk_stream_unsent(f->st) : f->left_behind;

    *bytes = (f->out == NULL ? 0 : f->out->bytes) + taken;
    messages += messages == 0 && taken > 0 && p->added; /* a part of one, at least */
    if (f->shm != NULL)
        messages += spk_shm_pending(f->shm, &there);
    *bytes += there;
    return messages;
}

void
spk_framing_give_back(struct spk_pipe *p)
{
    struct spk_framing *f = spk_framing_of(p);
    struct spk_framing_out *out = f->out;

    if (f->shm != NULL)
        spk_shm_give_back(f->shm);
    for (int i = 0; out != NULL && i < out->count; i++) {
        spoke_msg *m = out->owner[i].m;

        if (m == NULL || !m->returns)
            continue;
        out->owner[i].m = NULL;
        spk_give_back(p->socket, m, SPOKE_ECONNRESET);
    }
}

void
spk_framing_out_init(struct spk_framing *f)
{
    spk_op_init(&f->send_op, on_sent);
    spk_list_init(&f->flush.link);
    f->flush.fn = on_flush;
}
