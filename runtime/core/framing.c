/* SPDX-License-Identifier: MIT */
/* A pipe over a byte stream: the SP handshake, then messages behind their lengths.  docs/wire.md
 * has the bytes.  Where both ends can the messages move into shared memory (shm.c) at some point of
 * the stream, each direction by itself: a byte MOVED where a message could begin says that what
 * follows is there, and is the last one.
 *
 * In: bytes arrive in the engine's chunks.  Small bodies are copied out, larger ones are slices of
 * the chunk, those that are larger than what has arrived get memory of their own and the rest is
 * received straight into it.  When the protocol has no room the pipe keeps the chunk and stops.
 *
 * Out: an idle pipe writes at once, on the caller's thread.  What is sent while that is not
 * possible, or in a burst, is gathered: small messages in a chunk, large bodies by reference, and
 * goes out together.  One write at a time is outstanding. */
#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/core/core.h"
#include "runtime/core/upgrade.h"
#include "runtime/engine/probe.h"

#define HANDSHAKE_SIZE 8u
#define MOVED          2u                    /* in place of a message's type */
#define HEAD_MOST      9u                    /* type byte and length */
#define SLICE_LEAST    ((size_t)8 * 1024)    /* smaller bodies are copied out of the chunk */
#define RESERVE_STEP   ((size_t)1024 * 1024) /* memory for a body that has only been announced */
#define DIRECT_LEAST                                                                               \
    ((size_t)16 * 1024) /* receive the rest of a body straight into it from here on */
#define GATHER_MOST  ((size_t)4 * 1024) /* larger bodies go out by reference */
#define SMALL_MOST   ((size_t)512)      /* written from the stack, header and body together */
#define GATHER_SIZE  ((size_t)64 * 1024)
#define FLUSH_BYTES  (GATHER_SIZE - GATHER_MOST) /* gathered bytes that are worth a write */
#define PENDING_MOST ((size_t)256 * 1024) /* bytes taken before the pipe says that it is full */
#define SEGMENTS     64
#define LATE_NS      (10 * SPOKE_MS) /* after an idle timeout: until what is there has been read */
#define RUN_MOST     64              /* small messages that are made together … */
#define AHEAD        4 /* … or written, each fetched into the cache so many before its turn */

/* What has to be let go when a segment is written, and which messages then are. */
struct segment_owner {
    spoke_msg *m;
    struct spk_chunk *chunk;
    uint8_t *start; /* gathered: where its first message began, NULL: it is the rest of one that has
                       begun to go out */
    uint32_t ends;  /* messages that end in it */
};

/* Exists only while there is something to write. */
struct out {
    struct msghdr msg;
    struct iovec iov[SEGMENTS];
    struct segment_owner owner[SEGMENTS];
    int count;
    struct spk_chunk *gather; /* where small messages are copied to … */
    size_t gather_used;
    size_t bytes; /* in all segments */
};

struct framing {
    struct spk_pipe pipe;
    struct spk_stream *st;
    struct spk_op recv_op, send_op;
    struct spk_timer timer; /* for the handshake, then for the rest of a message */
    spoke_ns idle_ns;       /* SPOKE_OPT_IDLE_TIMEOUT */
    bool is_late;           /* that has passed, but for what the engine may not have read yet */
    struct spk_flush flush;
    struct out *out;
    uint64_t burst; /* the engine's burst in which we last wrote at once */
    bool type_byte, closing;

    struct spk_upgrade upgrade;
    int unix_fd;              /* of the stream, if it can be upgraded; else -1 */
    struct spk_shm *shm;      /* NULL: not upgraded */
    bool moved_out, moved_in; /* messages go, come through there */
    bool may_move, same_user; /* the first: nobody has offered it yet, and we may */
    bool shm_closed;
    int not_shm; /* why there is none, 0: there is, or it has not been decided yet */

    uint8_t head[HEAD_MOST]; /* of the message that is arriving */
    uint8_t head_have;
    spoke_msg *body; /* … and its body so far: size = what has arrived */
    size_t body_size;
    struct spk_chunk *left; /* what arrived while we were held back */
    uint8_t *left_data;
    size_t left_size;
    uint8_t hello[HANDSHAKE_SIZE];
    uint8_t hello_have;
};

static struct framing *
framing_of(struct spk_pipe *p)
{
    return SPK_OWNER(p, struct framing, pipe);
}

static struct spk_engine *
engine_of(struct framing *f)
{
    return f->pipe.socket->e;
}

/* ---- out ---- */

static struct out *
get_out(struct framing *f)
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

static void
drop_out(struct framing *f)
{
    struct out *out = f->out;

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
consume(struct out *out, size_t n)
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

static void
write_more(struct framing *f)
{
    struct out *out = f->out;

    out->msg.msg_iov = out->iov;
    out->msg.msg_iovlen = (size_t)out->count;
    f->st->ops->send(f->st, &f->send_op, &out->msg);
}

/* The pipe can take more, or has nothing left: tell whom it concerns. */
static void
after_write(struct framing *f)
{
    if (f->out->bytes == 0) {
        drop_out(f);
        spk_socket_advance_close(f->pipe.socket);
    }
    if (f->moved_out)
        return;
    if (f->out == NULL || (f->out->bytes <= PENDING_MOST / 2 && f->out->count <= SEGMENTS / 2))
        spk_pipe_set_writable(&f->pipe, true);
}

/* Of the messages gathered in a segment, those that are written already. */
static uint32_t
written(const struct framing *f, const struct segment_owner *owner, const uint8_t *up_to)
{
    size_t type = f->type_byte ? 1 : 0;
    uint32_t count = 0;

    for (const uint8_t *at = owner->start; at != NULL && count < owner->ends; count++) {
        at += type + 8 + spk_get64(at + type);
        if (at > up_to)
            break;
    }
    return count;
}

/* Messages that are to be written, or written in part. */
static uint64_t
messages_in(const struct framing *f)
{
    const struct out *out = f->out;
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
write_failed(struct framing *f, int reason)
{
    if (f->moved_out && messages_in(f) == 0)
        drop_out(f);
    else
        spk_pipe_shut(&f->pipe, reason);
}

/* Write what is there as far as it goes without waiting, leave the rest to the ring. */
static void
flush_now(struct framing *f)
{
    spk_list_remove(&f->flush.link);
    if (f->out == NULL || f->closing || spk_op_busy(&f->send_op))
        return;
    while (f->out->bytes > 0) {
        int64_t n = f->st->ops->send_now(f->st, f->out->iov, f->out->count);

        if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS) {
            write_more(f);
            break;
        }
        if (n < 0) {
            write_failed(f, (int)n);
            return;
        }
        engine_of(f)->written += (uint64_t)n;
        consume(f->out, (size_t)n);
    }
    f->burst = engine_of(f)->burst;
    after_write(f);
}

static void
on_flush(struct spk_flush *flush)
{
    flush_now(SPK_OWNER(flush, struct framing, flush));
}

static void maybe_closed(struct framing *f);
static void begin_upgrade(struct framing *f);
static void consider_moving(struct framing *f);
static void await_end(struct framing *f);
static void move_in(struct framing *f, size_t rest);
static bool must_upgrade(const struct framing *f);
static void move_out(struct framing *f);

static void
on_sent(struct spk_op *op, int result)
{
    struct framing *f = SPK_OWNER(op, struct framing, send_op);

    if (f->closing) {
        if (result > 0 && f->out != NULL) /* that much is not lost */
            consume(f->out, (size_t)result);
        maybe_closed(f);
        return;
    }
    if (result == SPOKE_ENOBUFS || result == SPOKE_EAGAIN) {
        write_more(f);
        return;
    }
    if (result <= 0) {
        write_failed(f, result == 0 ? SPOKE_ECONNRESET : result);
        return;
    }
    if (f->out == NULL) /* it was the handshake */
        return;
    engine_of(f)->written += (uint64_t)result;
    consume(f->out, (size_t)result);
    if (f->out->bytes > 0)
        flush_now(f);
    else
        after_write(f);
}

static inline size_t
head_size_of(const struct framing *f)
{
    return f->type_byte ? 9 : 8;
}

/* The bytes in front of a message; returns how many there are. */
static inline size_t
put_head(const struct framing *f, uint8_t *head, size_t length)
{
    size_t at = 0;

    if (f->type_byte)
        head[at++] = 1;
    spk_put64(head + at, length);
    return at + 8;
}

static void
add_segment(struct out *out, const void *base, size_t size, spoke_msg *m, struct spk_chunk *chunk)
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
gather_room(struct out *out, size_t size)
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
gathered(struct out *out, uint8_t *data, size_t size)
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

/* Put a message behind what is to be written, less its first `skip` bytes, which are written
 * already.  Takes it, or fails and changes nothing. */
static int
queue_message(struct framing *f, spoke_msg *m, size_t skip)
{
    size_t length = m->header_size + m->size, head_size = head_size_of(f);
    bool small = m->size <= GATHER_MOST && !m->returns; /* else it would be gone */
    size_t front = head_size + m->header_size, copied = front + (small ? m->size : 0);
    struct out *out = get_out(f);
    uint8_t *room;

    if (out == NULL || (room = gather_room(out, copied)) == NULL)
        return SPOKE_ENOMEM;
    put_head(f, room, length);
    if (m->header_size > 0)
        memcpy(room + head_size, m->header, m->header_size);
    if (small)
        memcpy(room + front, m->body, m->size);
    if (skip < copied)
        gathered(out, room + skip, copied - skip);
    if (skip < copied)
        out->gather_used += skip;
    if (skip == 0 && out->owner[out->count - 1].start == NULL)
        out->owner[out->count - 1].start = room;
    if (small) {
        spoke_msg_free(m);
    } else {
        size_t gone = skip > copied ? skip - copied : 0;

        add_segment(out, m->body + gone, m->size - gone, m, NULL);
    }
    out->owner[out->count - 1].ends++;
    if (out->bytes >= PENDING_MOST || out->count >= SEGMENTS - 2)
        spk_pipe_set_writable(&f->pipe, false);
    return 0;
}

/* Gather the first of many that are small and have nothing but a body; returns how many. */
static int
gather_run(struct framing *f, spoke_msg **messages, int count, uint64_t *bytes)
{
    size_t head_size = head_size_of(f);
    spoke_msg *m = messages[0];
    struct out *out;
    uint8_t *start, *at, *end;
    int n = 0;

    if (m->size > GATHER_MOST || m->header_size > 0 || m->expires || m->returns ||
        (out = get_out(f)) == NULL)
        return 0;
    if ((at = start = gather_room(out, head_size + m->size)) == NULL)
        return 0;
    end = out->gather->data + out->gather->size;
    do {
        if (count - n > AHEAD)
            spk_msg_prefetch(messages[n + AHEAD]);
        SPK_PROBE(send, f->pipe.id, m->size);
        at += put_head(f, at, m->size);
        memcpy(at, m->body, m->size);
        at += m->size;
        *bytes += m->size;
    } while (++n < count && (m = messages[n])->size <= GATHER_MOST && m->header_size == 0 &&
             !m->expires && !m->returns && head_size + m->size <= (size_t)(end - at));
    gathered(out, start, (size_t)(at - start));
    if (out->owner[out->count - 1].start == NULL)
        out->owner[out->count - 1].start = start;
    out->owner[out->count - 1].ends += (uint32_t)n;
    spk_msg_free_many(messages, n);
    if (out->bytes >= PENDING_MOST || out->count >= SEGMENTS - 2)
        spk_pipe_set_writable(&f->pipe, false);
    return n;
}

static int
framing_send_many(struct spk_pipe *p, spoke_msg **messages, int count, uint64_t *bytes)
{
    struct framing *f = framing_of(p);
    struct spk_engine *e = engine_of(f);
    int done = 0, n = 1;

    if (f->moved_out)
        return spk_shm_send_many(f->shm, messages, count, bytes);
    if (f->may_move)
        consider_moving(f);
    while (n > 0 && done < count && spk_pipe_can_send(p)) {
        done += n = gather_run(f, messages + done, count - done, bytes);
        if (f->out != NULL && f->out->bytes >= FLUSH_BYTES)
            flush_now(f);
    }
    if (done == 0 || f->out == NULL || spk_op_busy(&f->send_op))
        return done;
    if (e->cork == 0 && !e->shared) /* nobody else would */
        flush_now(f);
    else if (spk_list_empty(&f->flush.link))
        spk_list_append(&e->flushes, &f->flush.link);
    return done;
}

/* The system call for one message: a small one from one place, which the kernel takes faster than
 * three. */
static int64_t
write_message(struct framing *f, const spoke_msg *m)
{
    uint8_t front[HEAD_MOST + SMALL_MOST];
    size_t size = put_head(f, front, m->header_size + m->size);
    struct iovec iov[3] = {{front, size}, {m->header, m->header_size}, {m->body, m->size}};

    if (m->header_size + m->size > SMALL_MOST)
        return f->st->ops->send_now(f->st, iov, 3);
    memcpy(front + size, m->header, m->header_size);
    memcpy(front + size + m->header_size, m->body, m->size);
    iov[0].iov_len += m->header_size + m->size;
    return f->st->ops->send_now(f->st, iov, 1);
}

/* A message that was taken dies with its connection. */
static void
lose(struct framing *f, spoke_msg *m, int reason)
{
    spk_pipe_shut(&f->pipe, reason);
    spk_drop(f->pipe.socket, &f->pipe, m, SPK_DROP_LOST);
}

/* Write one message at once, as far as it goes. */
static int
send_at_once(struct framing *f, spoke_msg *m)
{
    size_t all = head_size_of(f) + m->header_size + m->size;
    int64_t n = write_message(f, m);
    int rc;

    if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS)
        n = 0;
    if (n < 0) {
        lose(f, m, (int)n);
        return 0;
    }
    f->burst = engine_of(f)->burst;
    if ((size_t)n == all) {
        spoke_msg_free(m);
        return 0;
    }
    if ((rc = queue_message(f, m, (size_t)n)) != 0) {
        if (n == 0)
            return rc;
        lose(f, m, rc); /* half a message is out: this connection is of no use any more */
        return 0;
    }
    write_more(f);
    return 0;
}

static int
framing_send(struct spk_pipe *p, spoke_msg *m)
{
    struct framing *f = framing_of(p);
    struct spk_engine *e = engine_of(f);
    bool idle = f->out == NULL && !spk_op_busy(&f->send_op);
    int rc;

    if (f->moved_out)
        return spk_shm_send(f->shm, m);
    if (f->may_move)
        consider_moving(f);
    /* A second message in the same burst waits for the others; on a shared engine its thread, or
     * FLUSH_BYTES of them, write them. */
    if (idle && e->cork == 0 && !(e->shared && f->burst == e->burst))
        return send_at_once(f, m);
    if ((rc = queue_message(f, m, 0)) != 0)
        return rc;
    if (spk_op_busy(&f->send_op))
        return 0;
    if (f->out->bytes >= FLUSH_BYTES)
        flush_now(f);
    else if (spk_list_empty(&f->flush.link))
        spk_list_append(&e->flushes, &f->flush.link);
    return 0;
}

static uint64_t
framing_pending(struct spk_pipe *p, uint64_t *bytes)
{
    struct framing *f = framing_of(p);
    uint64_t messages = messages_in(f), there = 0;

    *bytes = f->out == NULL ? 0 : f->out->bytes;
    if (f->shm != NULL)
        messages += spk_shm_pending(f->shm, &there);
    *bytes += there;
    return messages;
}

static void
framing_give_back(struct spk_pipe *p)
{
    struct framing *f = framing_of(p);
    struct out *out = f->out;

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

/* ---- in ---- */

/* From now on it is the peer who keeps a message waiting that has begun. */
static void
await_rest(struct framing *f)
{
    struct spk_engine *e = engine_of(f);

    f->is_late = false;
    if ((f->body != NULL || f->head_have > 0) &&
        spk_timer_set(e, &f->timer, spk_later(spk_engine_now(e), f->idle_ns)) != 0)
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
}

static void
arm_recv(struct framing *f)
{
    struct spk_socket *s = f->pipe.socket;

    if (f->closing || f->moved_in || spk_op_busy(&f->recv_op) || f->pipe.state == SPK_PIPE_CLOSING)
        return;
    if (f->idle_ns > 0)
        await_rest(f);
    f->recv_op.awaited = s->awaited > 0 && f->pipe.state == SPK_PIPE_ATTACHED;
    s->awaited -= f->recv_op.awaited;
    if (f->body != NULL && f->body_size - f->body->size >= DIRECT_LEAST) {
        size_t room = f->body_size - f->body->size;

        if (spk_msg_reserve(f->body, f->body->size + (room < RESERVE_STEP ? room : RESERVE_STEP)) !=
            0) {
            spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
            return;
        }
        f->st->ops->recv(f->st, &f->recv_op, f->body->body + f->body->size,
                         room < RESERVE_STEP ? room : RESERVE_STEP);
        return;
    }
    f->st->ops->recv(f->st, &f->recv_op, NULL, 0);
}

/* Begin a body of which `have` bytes of `length` are at `data`. */
static bool
begin_body(struct framing *f, uint64_t length, const uint8_t *data, size_t have)
{
    size_t room = (size_t)length < have + RESERVE_STEP ? (size_t)length : have + RESERVE_STEP;

    if (spoke_msg_new(&f->body, 0) != 0 || spk_msg_reserve(f->body, room) != 0) {
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
        return false;
    }
    f->body_size = (size_t)length;
    memcpy(f->body->body, data, have);
    f->body->size = have;
    return true;
}

static spoke_msg *
whole_message(struct spk_chunk *chunk, uint8_t *data, size_t size)
{
    spoke_msg *m;

    if (size < SLICE_LEAST || chunk == NULL)
        return spoke_msg_from(&m, data, size) == 0 ? m : NULL;
    if (spk_msg_slice(&m, spk_chunk_ref(chunk), data, size) != 0) {
        spk_chunk_unref(chunk);
        return NULL;
    }
    return m;
}

/* The bytes in front of the next message: where they are, once they are complete, in `data` or put
 * together in f->head; NULL before that, or if they are bad.  *at moves behind them. */
static const uint8_t *
take_head(struct framing *f, const uint8_t *data, size_t size, size_t *at)
{
    size_t whole = head_size_of(f), n = whole - f->head_have;
    const uint8_t *head = data + *at;

    if (n > size - *at)
        n = size - *at;
    *at += n;
    if (n < whole) {
        memcpy(f->head + f->head_have, head, n);
        f->head_have = (uint8_t)(f->head_have + n);
        head = f->head;
    }
    if (f->type_byte && head[0] == MOVED && f->shm != NULL) {
        f->head_have = 0;
        move_in(f, n - 1 + (size - *at));
        return NULL;
    }
    if (f->type_byte && head[0] != 1) {
        spk_count_drops(f->pipe.socket, &f->pipe, SPK_DROP_GARBLED, 1);
        spk_pipe_shut(&f->pipe, SPOKE_EPROTO);
        return NULL;
    }
    return n == whole || f->head_have == whole ? head : NULL;
}

/* Continue a body with what has come. */
static size_t
continue_body(struct framing *f, const uint8_t *data, size_t size)
{
    size_t n = f->body_size - f->body->size;

    if (n > size)
        n = size;
    if (spk_msg_reserve(f->body, f->body->size + n) != 0) {
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
        return 0;
    }
    if (n > 0 && data != NULL)
        memcpy(f->body->body + f->body->size, data, n);
    f->body->size += n;
    return n;
}

static bool
deliver_body(struct framing *f)
{
    spoke_msg *m = f->body;

    f->body = NULL;
    return spk_pipe_received(&f->pipe, m);
}

/* Small messages that are there as a whole, at most `most` of them, delivered together.  Returns
 * how many; *at moves behind them.  Whatever is not as simple stops it and is for parse() to see.
 */
static int
parse_run(struct framing *f, const uint8_t *data, size_t size, size_t *at, int most, size_t cost)
{
    size_t limit = f->pipe.endpoint->options.max_recv_size, head_size = head_size_of(f), next = *at;
    struct iovec bodies[RUN_MOST];
    spoke_msg *messages[RUN_MOST];
    int count = 0, made;

    if (limit == 0 || limit > SPK_BODY_INLINE)
        limit = SPK_BODY_INLINE;
    if (most > RUN_MOST)
        most = RUN_MOST;
    while (count < most && size - next >= head_size) {
        const uint8_t *head = data + next;
        uint64_t length = spk_get64(head + (head_size - 8));
        if ((f->type_byte && head[0] != 1) || length > limit || length > size - next - head_size)
            break;
        bodies[count++] = (struct iovec){(void *)(uintptr_t)(data + next + head_size),
                                         (size_t)length};
        next += head_size + (size_t)length;
        if (length + sizeof(spoke_msg) >= cost)
            break;
        cost -= length + sizeof(spoke_msg);
    }
    if ((made = spk_msg_from_many(messages, bodies, count)) == 0)
        return 0;
    *at = (size_t)((uint8_t *)bodies[made - 1].iov_base + bodies[made - 1].iov_len - data);
    spk_pipe_received_many(&f->pipe, messages, made);
    return made;
}

/* From here on the peer's messages are in shared memory, and nothing more is in the stream. */
static void
move_in(struct framing *f, size_t rest)
{
    if (rest > 0 || !spk_shm_is_connected(f->shm)) {
        spk_pipe_shut(&f->pipe, SPOKE_EPROTO);
        return;
    }
    f->moved_in = true;
    SPK_STOP_POINT(MOVED_IN);
    await_end(f);
    spk_shm_start_receiving(f->shm);
}

static void
await_end(struct framing *f)
{
    f->recv_op.awaited = false;
    spk_op_readable(engine_of(f), &f->recv_op, f->unix_fd);
}

/* Whatever bells a peer has passed, and to whom: the end of its stream is its end. */
static void
on_end(struct framing *f)
{
    char byte;
    ssize_t n = recv(f->unix_fd, &byte, 1, MSG_DONTWAIT);

    if (n > 0)
        spk_pipe_shut(&f->pipe, SPOKE_EPROTO);
    else if (n < 0 && (errno == EAGAIN || errno == EINTR))
        await_end(f);
    else
        spk_shm_peer_gone(f->shm);
}

/* Turn bytes into messages, at most `most`.  Returns how many bytes were used; less than all when
 * the pipe is held back or closing. */
static size_t
parse(struct framing *f, struct spk_chunk *chunk, uint8_t *data, size_t size, int most)
{
    size_t at = 0;
    bool go_on = f->pipe.state == SPK_PIPE_ATTACHED;

    assert(data != NULL);
    while (at < size && go_on && most > 0) {
        const uint8_t *head;
        uint64_t length;
        size_t cost;
        int room = spk_pipe_room(&f->pipe, SPK_READ_AHEAD, &cost), n;

        if (room == 0)
            break;
        if (room != SPK_ONE_BY_ONE && f->body == NULL && f->head_have == 0 &&
            (n = parse_run(f, data, size, &at, room < most ? room : most, cost)) > 0) {
            most -= n;
            continue;
        }
        if (f->body != NULL) {
            at += continue_body(f, data + at, size - at);
            if (f->body->size < f->body_size) {
                go_on = f->pipe.state == SPK_PIPE_ATTACHED;
                continue;
            }
            go_on = deliver_body(f);
            most--;
            continue;
        }
        if ((head = take_head(f, data, size, &at)) == NULL ||
            !spk_pipe_length_is_fine(&f->pipe, length = spk_get64(head + (f->type_byte ? 1 : 0)))) {
            go_on = f->pipe.state == SPK_PIPE_ATTACHED;
            continue;
        }
        f->head_have = 0;
        if (length <= size - at) {
            spoke_msg *m = whole_message(chunk, data + at, (size_t)length);

            at += (size_t)length;
            if (m == NULL) {
                spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
                break;
            }
            go_on = spk_pipe_received(&f->pipe, m);
            most--;
        } else {
            go_on = begin_body(f, length, data + at, size - at);
            at = size;
        }
    }
    return at;
}

/* Keep what could not be delivered now. */
static void
keep_left(struct framing *f, struct spk_chunk *chunk, uint8_t *data, size_t size)
{
    f->left = spk_chunk_ref(chunk);
    f->left_data = data;
    f->left_size = size;
}

static void
forget_left(struct framing *f)
{
    if (f->left != NULL)
        spk_chunk_unref(f->left);
    f->left = NULL;
    f->left_size = 0;
}

/* Parse what is left over, then receive more if all of it is gone. */
static void
go_on_reading(struct framing *f, int most)
{
    if (f->moved_in && f->left == NULL) {
        spk_shm_read(f->shm, most);
        return;
    }
    if (f->left != NULL) {
        bool attached = f->pipe.state == SPK_PIPE_ATTACHED;
        size_t n = parse(f, f->left, f->left_data, f->left_size, most);

        f->left_data += n;
        f->left_size -= n;
        if (f->left_size == 0 || (attached && f->pipe.state != SPK_PIPE_ATTACHED))
            forget_left(f); /* behind what ended the connection there are no messages */
    }
    if (f->pipe.state != SPK_PIPE_ATTACHED || f->moved_in)
        return;
    if (f->left != NULL || f->pipe.held != NULL)
        spk_pipe_stall(&f->pipe); /* the rest when it is our turn again */
    else
        arm_recv(f);
}

static void
framing_resume(struct spk_pipe *p, int most)
{
    go_on_reading(framing_of(p), most);
}

/* Where there are no messages without shared memory, there is no pipe before it. */
static bool
framing_prepare(struct spk_pipe *p)
{
    struct framing *f = framing_of(p);

    if (!must_upgrade(f) || (f->shm != NULL && spk_shm_is_connected(f->shm)))
        return false;
    begin_upgrade(f);
    return true;
}

static void
framing_start(struct spk_pipe *p)
{
    struct framing *f = framing_of(p);

    if (must_upgrade(f))
        move_out(f);
    else
        begin_upgrade(f);
    go_on_reading(f, INT32_MAX);
}

/* Body bytes that were received straight into place. */
static void
on_body(struct framing *f, size_t n)
{
    f->body->size += n;
    if (f->body->size == f->body_size && !deliver_body(f) && f->pipe.held != NULL)
        return; /* held back: resume() goes on */
    arm_recv(f);
}

/* ---- into shared memory ---- */

static bool
may_upgrade(const struct spk_endpoint *ep)
{
    return ep->transport->shared_memory == SPK_SHM_ALWAYS ||
           (ep->transport->shared_memory == SPK_SHM_MAYBE && ep->options.upgrade);
}

static bool
must_upgrade(const struct framing *f)
{
    return f->pipe.endpoint->transport->shared_memory == SPK_SHM_ALWAYS;
}

/* Not only the side channel, but the whole peer is gone. */
static bool
stream_has_ended(struct framing *f)
{
    char byte;

    return f->unix_fd >= 0 && recv(f->unix_fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void
not_upgraded(struct framing *f, int reason)
{
    f->not_shm = reason;
    if (f->shm != NULL && !f->moved_in) {
        spk_shm_free(f->shm);
        f->shm = NULL;
    }
    if (!must_upgrade(f))
        return;
    if (reason == SPOKE_ENOTSUP && stream_has_ended(f))
        reason = SPOKE_ECONNRESET;
    else
        spk_log(SPOKE_LOG_WARNING,
                "%s: no shared memory with this peer (%s), its connection is closed; ipc:// does "
                "without",
                f->pipe.endpoint->url.text, spoke_strerror(reason));
    spk_pipe_shut(&f->pipe, reason);
}

/* Who reads the same memory of ours is of the same user; others get copies, and only where shared
 * memory was asked for. */
static bool
is_same_user(struct framing *f)
{
    struct spk_credentials c;

    return f->st->ops->credentials(f->st, &c) == 0 && c.uid == (int)geteuid();
}

static void
start_upgrade(struct framing *f)
{
    f->may_move = false;
    spk_upgrade_start(&f->upgrade, f->same_user, f->pipe.endpoint->options.handshake_ns);
}

/* A connection that is seldom used stays a socket, which needs less memory and fewer descriptors.
 */
static void
consider_moving(struct framing *f)
{
    const struct spoke_pipe_stats *stats = &f->pipe.stats;

    if (stats->messages_sent + stats->messages_received >= f->pipe.endpoint->options.upgrade_after)
        start_upgrade(f);
}

/* The handshake is done, and nobody has turned the peer away. */
static void
begin_upgrade(struct framing *f)
{
    bool same;

    if (!may_upgrade(f->pipe.endpoint)) {
        f->not_shm = SPOKE_ECANCELED;
        return;
    }
    same = f->unix_fd >= 0 && is_same_user(f);
    if (f->upgrade.side < 0) {
        not_upgraded(f, SPOKE_ENOTSUP);
    } else if (!same && !must_upgrade(f)) {
        spk_upgrade_stop(&f->upgrade);
        not_upgraded(f, SPOKE_EACCES);
    } else {
        f->same_user = same;
        f->may_move = f->upgrade.offers_first;
        if (must_upgrade(f) || !f->upgrade.offers_first)
            start_upgrade(f);
        else
            consider_moving(f);
    }
}

/* Tell the peer, in the stream, behind what it has got already.  A peer that is gone is none of our
 * business here: what it has sent before is yet to be read, and its end comes behind that. */
static void
say_moved(struct framing *f)
{
    static const uint8_t moved = MOVED;
    struct iovec iov = {(void *)(uintptr_t)&moved, 1};
    bool idle = f->out == NULL && !spk_op_busy(&f->send_op);
    int64_t n = idle ? f->st->ops->send_now(f->st, &iov, 1) : SPOKE_EAGAIN;
    struct out *out;
    uint8_t *room;

    if (n == 1)
        return;
    if (n != SPOKE_EAGAIN && n != SPOKE_ENOBUFS) {
        (void)shutdown(f->unix_fd, SHUT_RDWR); /* whatever it was: now it is the end */
        return;
    }
    if ((out = get_out(f)) == NULL || (room = gather_room(out, 1)) == NULL) {
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
        return;
    }
    *room = moved;
    gathered(out, room, 1);
    flush_now(f);
}

/* The messages that come from now on go there. */
static void
move_out(struct framing *f)
{
    f->moved_out = true;
    f->pipe.socket->stats.pipes_shared++;
    spk_event(f->pipe.socket, SPOKE_EVENT_MOVED, 0, &f->pipe, f->pipe.endpoint);
    SPK_STOP_POINT(MOVED);
    say_moved(f);
    SPK_STOP_POINT(MOVED_OUT);
    if (f->pipe.state != SPK_PIPE_ATTACHED)
        return;
    spk_shm_start_sending(f->shm);
    spk_pipe_set_writable(&f->pipe, true); /* the stream may have been full */
}

static void
on_upgraded(struct spk_upgrade *u, int result)
{
    struct framing *f = SPK_OWNER(u, struct framing, upgrade);

    if (f->closing) {
        maybe_closed(f);
        return;
    }
    if (f->pipe.state == SPK_PIPE_CLOSING)
        return;
    if (result != 0)
        not_upgraded(f, result);
    else if (must_upgrade(f))
        spk_pipe_attach(&f->pipe, 0);
    else
        move_out(f);
}

/* ---- handshake ---- */

static bool
hello_is_fine(struct framing *f)
{
    static const uint8_t magic[4] = {0, 'S', 'P', 0};
    const struct spoke_protocol *protocol = f->pipe.socket->protocol;
    int peer = f->hello[4] << 8 | f->hello[5];

    for (unsigned i = 0; i < 4 && i < f->hello_have; i++)
        if (f->hello[i] != magic[i])
            goto bad;
    if (f->hello_have < HANDSHAKE_SIZE)
        return true;
    if (f->hello[6] != 0 || f->hello[7] != 0)
        goto bad;
    if (peer == protocol->peer)
        return true;
    spk_log(SPOKE_LOG_WARNING, "%s: a peer speaks protocol %d, a %s socket talks to %d only",
            f->pipe.endpoint->url.text, peer, protocol->name, protocol->peer);
    spk_pipe_shut(&f->pipe, SPOKE_EPEER);
    return false;
bad:
    spk_pipe_shut(&f->pipe, SPOKE_EHANDSHAKE);
    return false;
}

static void
await_hello(struct framing *f)
{
    if (f->unix_fd >= 0 && f->upgrade.offers_first)
        spk_op_readable(engine_of(f), &f->recv_op, f->unix_fd);
    else
        arm_recv(f);
}

/* `data` NULL: they are in place. */
static void
on_hello(struct framing *f, struct spk_op *op, const uint8_t *data, size_t size)
{
    size_t n = HANDSHAKE_SIZE - f->hello_have;

    if (n > size)
        n = size;
    if (data != NULL)
        memcpy(f->hello + f->hello_have, data, n);
    f->hello_have = (uint8_t)(f->hello_have + n);
    if (!hello_is_fine(f))
        return;
    if (f->hello_have < HANDSHAKE_SIZE) {
        await_hello(f);
        return;
    }
    spk_timer_cancel(engine_of(f), &f->timer);
    if (size > n)
        keep_left(f, op->chunk, op->data + n, size - n);
    spk_pipe_shook_hands(&f->pipe);
}

static void
on_received(struct spk_op *op, int result)
{
    struct framing *f = SPK_OWNER(op, struct framing, recv_op);
    size_t used;

    if (f->closing) {
        maybe_closed(f);
        return;
    }
    if (f->pipe.state == SPK_PIPE_CLOSING)
        return;
    if (f->moved_in) {
        on_end(f);
        return;
    }
    if (op->kind == SPK_OP_READABLE && result >= 0)
        result = (int)spk_upgrade_hear_hello(&f->upgrade, f->unix_fd, f->hello + f->hello_have,
                                             HANDSHAKE_SIZE - f->hello_have);
    if (result == SPOKE_ENOBUFS || result == SPOKE_EAGAIN) {
        if (f->pipe.state == SPK_PIPE_STARTING)
            await_hello(f);
        else
            arm_recv(f);
        return;
    }
    if (result <= 0) {
        int end = f->pipe.state == SPK_PIPE_STARTING ? SPOKE_ECONNRESET : SPOKE_EOF;

        spk_pipe_shut(&f->pipe, result == 0 ? end : result);
        return;
    }
    if (f->pipe.state == SPK_PIPE_STARTING) {
        on_hello(f, op, op->kind == SPK_OP_READABLE ? NULL : op->data, (size_t)result);
        return;
    }
    if (f->idle_ns > 0)
        spk_timer_cancel(engine_of(f), &f->timer);
    if (op->u.recv.buffer != NULL) {
        on_body(f, (size_t)result);
        return;
    }
    used = parse(f, op->chunk, op->data, (size_t)result, INT32_MAX);
    if (used < (size_t)result && f->pipe.state == SPK_PIPE_ATTACHED)
        keep_left(f, op->chunk, op->data + used, (size_t)result - used);
    if (f->moved_in)
        return;
    if (f->may_move)
        consider_moving(f);
    if (f->left == NULL && f->pipe.held == NULL)
        arm_recv(f);
    else
        spk_pipe_stall(&f->pipe);
}

static void
on_time(struct spk_timer *timer)
{
    struct framing *f = SPK_OWNER(timer, struct framing, timer);
    struct spk_engine *e = engine_of(f);

    if (f->pipe.state == SPK_PIPE_STARTING) {
        spk_pipe_shut(&f->pipe, SPOKE_ETIMEDOUT);
        return;
    }
    /* Timers come before reads: if the engine was not driven for a while the rest may be there. */
    if (!f->is_late && spk_timer_set(e, timer, spk_engine_now(e) + LATE_NS) == 0) {
        f->is_late = true;
        return;
    }
    spk_pipe_fell_silent(&f->pipe);
}

/* ---- the end ---- */

static void
on_shm_closed(struct spk_pipe *p)
{
    struct framing *f = framing_of(p);

    f->shm_closed = true;
    maybe_closed(f);
}

static void
maybe_closed(struct framing *f)
{
    if (spk_op_busy(&f->recv_op) || spk_op_busy(&f->send_op) || spk_op_busy(&f->upgrade.op))
        return;
    if (f->shm != NULL && !f->shm_closed) {
        spk_shm_close(f->shm, on_shm_closed);
        return;
    }
    f->st->ops->close(f->st);
    spk_pipe_closed(&f->pipe);
}

/* What arrived whole is the user's, also if nobody has asked for it yet: as much as the queue
 * takes.  Where messages are taken one by one nothing is given any more: the pattern has parted
 * from this pipe.  That is no loss where the peer ended the connection, since its end is read
 * behind all that it sent; it is where we did, or a write failed. */
static void
deliver_left(struct framing *f)
{
    size_t at = 0, cost, head_size = head_size_of(f);
    int room;

    while (f->left != NULL && f->body == NULL && f->head_have == 0 &&
           f->left_size - at >= head_size &&
           (room = spk_pipe_room(&f->pipe, UINT32_MAX, &cost)) > 0) {
        const uint8_t *head = f->left_data + at;
        uint64_t length;
        spoke_msg *m;

        if (parse_run(f, f->left_data, f->left_size, &at, room, cost) > 0)
            continue;
        length = spk_get64(head + (head_size - 8));
        if ((f->type_byte && head[0] != 1) || length > f->left_size - at - head_size ||
            !spk_pipe_length_is_fine(&f->pipe, length) ||
            (m = whole_message(f->left, f->left_data + at + head_size, (size_t)length)) == NULL)
            break;
        spk_pipe_received(&f->pipe, m);
        at += head_size + (size_t)length;
    }
    forget_left(f);
}

static void
framing_close(struct spk_pipe *p)
{
    struct framing *f = framing_of(p);
    struct spk_engine *e = engine_of(f);

    if (p->added)
        deliver_left(f);
    if (p->reason != SPOKE_ECLOSED && (f->hello_have < HANDSHAKE_SIZE ||
                                       p->reason == SPOKE_EHANDSHAKE || p->reason == SPOKE_EPEER))
        spk_endpoint_count_bad_handshake(p->endpoint);
    f->closing = true;
    spk_timer_cancel(e, &f->timer);
    spk_list_remove(&f->flush.link);
    spk_op_cancel(e, &f->recv_op);
    spk_op_cancel(e, &f->send_op);
    if (f->unix_fd >= 0 && must_upgrade(f) && !f->moved_out)
        (void)shutdown(f->unix_fd, SHUT_RDWR); /* before the side channel: stream_has_ended() */
    spk_upgrade_stop(&f->upgrade);
    maybe_closed(f);
}

static void
framing_free(struct spk_pipe *p)
{
    struct framing *f = framing_of(p);

    drop_out(f);
    forget_left(f);
    spoke_msg_free(f->body);
    if (f->shm != NULL)
        spk_shm_free(f->shm);
    spk_free(f);
}

static int
framing_address(struct spk_pipe *p, bool local, char *text, size_t size)
{
    struct framing *f = framing_of(p);

    return f->st->ops->address(f->st, local, text, size);
}

static int
framing_credentials(struct spk_pipe *p, struct spk_credentials *out)
{
    struct framing *f = framing_of(p);

    return f->st->ops->credentials(f->st, out);
}

static int
framing_shared_memory(struct spk_pipe *p)
{
    const struct framing *f = framing_of(p);

    if (p->endpoint->transport->shared_memory == SPK_SHM_NEVER)
        return SPOKE_EOPTION;
    return f->moved_out ? 0 : f->not_shm != 0 ? f->not_shm : SPOKE_EAGAIN;
}

static void
framing_flush(struct spk_pipe *p)
{
    flush_now(framing_of(p));
}

static const struct spk_pipe_ops framing_ops = {
    .send = framing_send,
    .send_many = framing_send_many,
    .flush = framing_flush,
    .prepare = framing_prepare,
    .start = framing_start,
    .resume = framing_resume,
    .close = framing_close,
    .free = framing_free,
    .pending = framing_pending,
    .give_back = framing_give_back,
    .address = framing_address,
    .credentials = framing_credentials,
    .shared_memory = framing_shared_memory,
};

/* Our eight bytes go out at once, without waiting for the peer's.  A socket that has just connected
 * has room for them. */
static void
say_hello(struct framing *f)
{
    const struct spoke_protocol *protocol = f->pipe.socket->protocol;
    static _Thread_local uint8_t hello[HANDSHAKE_SIZE];
    struct iovec iov = {hello, HANDSHAKE_SIZE};
    int64_t n;

    hello[1] = 'S';
    hello[2] = 'P';
    hello[4] = (uint8_t)(protocol->number >> 8);
    hello[5] = (uint8_t)protocol->number;
    if (f->unix_fd >= 0 && !f->upgrade.offers_first)
        n = spk_upgrade_say_hello(&f->upgrade, f->unix_fd, hello, sizeof hello);
    else
        n = f->st->ops->send_now(f->st, &iov, 1);
    if (n == HANDSHAKE_SIZE)
        return;
    if (n >= 0 || n == SPOKE_EAGAIN ||
        n == SPOKE_ENOBUFS) { /* the rest goes out as if it were a message */
        size_t done = n > 0 ? (size_t)n : 0;
        struct out *out = get_out(f);
        uint8_t *room = out == NULL ? NULL : gather_room(out, HANDSHAKE_SIZE);

        if (room != NULL) {
            memcpy(room, hello, HANDSHAKE_SIZE);
            gathered(out, room + done, HANDSHAKE_SIZE - done);
            out->gather_used += done;
            write_more(f);
            return;
        }
        n = SPOKE_ENOMEM;
    }
    spk_pipe_shut(&f->pipe, (int)n);
}

int
spk_framing_start(struct spk_endpoint *endpoint, struct spk_stream *st)
{
    struct spk_socket *s = endpoint->socket;
    struct framing *f = spk_zalloc(sizeof *f);
    int rc = SPOKE_ENOMEM;

    if (f == NULL)
        goto close_stream;
    f->st = st;
    f->type_byte = endpoint->transport->message_type_byte;
    f->unix_fd = may_upgrade(endpoint) ? spk_stream_unix_fd(st) : -1;
    spk_upgrade_init(&f->upgrade, &f->pipe, &f->shm, !endpoint->is_dialer, on_upgraded);
    spk_op_init(&f->recv_op, on_received);
    spk_op_init(&f->send_op, on_sent);
    spk_timer_init(&f->timer, on_time);
    f->idle_ns = endpoint->options.idle_ns;
    spk_list_init(&f->flush.link);
    f->flush.fn = on_flush;
    if ((rc = spk_pipe_init(&f->pipe, endpoint, &framing_ops)) != 0)
        goto free_framing;
    if (endpoint->is_dialer)
        endpoint->pipe = &f->pipe;
    if (spk_timer_set(s->e, &f->timer,
                      spk_later(spk_engine_now(s->e), endpoint->options.handshake_ns)) != 0) {
        spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
        return 0;
    }
    say_hello(f);
    await_hello(f);
    return 0;
free_framing:
    spk_free(f);
close_stream:
    st->ops->close(st);
    return rc;
}
