/* SPDX-License-Identifier: MIT */
/* What a peer sends into a stream, after the handshake.  Payload is read straight into the reader's
 * memory, or taken out of a chunk, in place. */
#include <assert.h>
#include <string.h>

#include "transports/ws/stream.h"

#define READ_SIZE  ((size_t)16 * 1024)
#define EMPTY_MOST 1000u /* frames that bring nothing */

/* ---- frames ---- */

static void
on_ping(struct ws_stream *w)
{
    w->pong_due = !w->closed;
    w->pong_size = w->in.control_size;
    memcpy(w->pong, w->in.control, w->in.control_size);
    ws_write_soon(w);
}

/* The last word, which answers the peer's or ends a connection that has gone wrong. */
static void
say_close(struct ws_stream *w, unsigned code)
{
    if (w->closed)
        return;
    w->closed = w->finished = w->close_due = true;
    w->code = code;
    ws_write_soon(w);
}

static void
end_reading(struct ws_stream *w, int reason, unsigned code)
{
    w->end = reason;
    say_close(w, code);
}

static void
on_frame(struct ws_stream *w)
{
    if (w->in.left > 0) {
        w->empty = 0;
    } else if (w->terms.half_close && w->in.head.fin && w->in.head.opcode != WS_CONTINUATION) {
        w->end = SPOKE_EOF;
    } else if (++w->empty > EMPTY_MOST) {
        end_reading(w, SPOKE_EPROTO, WS_POLICY);
    }
}

static void
on_close_frame(struct ws_stream *w)
{
    const uint8_t *payload = w->in.control;

    end_reading(w, SPOKE_EOF, w->in.control_size < 2 ? 0 : (unsigned)payload[0] << 8 | payload[1]);
}

/* Take the payload out of what was read: it moves to `to`, which is at `data` or before it.
 * Returns how many bytes it has.  *used: of `data`; less than size if there was no room. */
static size_t
unframe(struct ws_stream *w, uint8_t *to, size_t room, uint8_t *data, size_t size, size_t *used)
{
    size_t at = 0, done = 0;

    while (at < size && w->end == 0) {
        if (w->in.left > 0) {
            size_t n = w->in.left < size - at ? (size_t)w->in.left : size - at;

            if (n > room - done)
                n = room - done;
            if (n == 0)
                break;
            if (!ws_in_take(&w->in, to + done, data + at, n)) {
                end_reading(w, SPOKE_EPROTO, w->in.code);
                break;
            }
            at += n;
            done += n;
            continue;
        }
        switch (ws_in_next(&w->in, data, size, &at)) {
        case WS_IN_FRAME: on_frame(w); break;
        case WS_IN_PING: on_ping(w); break;
        case WS_IN_CLOSE: on_close_frame(w); break;
        case WS_IN_BAD: end_reading(w, SPOKE_EPROTO, w->in.code); break;
        case WS_IN_MORE:
        case WS_IN_PONG: break;
        }
    }
    *used = at;
    return done;
}

void
ws_forget_left(struct ws_stream *w)
{
    if (w->left != NULL)
        spk_chunk_unref(w->left);
    w->left = NULL;
    w->left_size = 0;
}

/* The connection has ended, and nobody has said that the stream has. */
static void
is_cut_off(struct ws_stream *w)
{
    if (w->end == 0)
        w->end = SPOKE_ETRUNCATED;
}

/* 0 is the end, as everywhere. */
static int64_t
told(int end)
{
    return end == SPOKE_EOF ? 0 : end;
}

/* ---- at once ---- */

static int64_t
take_left(struct ws_stream *w, uint8_t *buffer, size_t size)
{
    size_t used, n = unframe(w, buffer, size, w->left_data, w->left_size, &used);

    w->left_data += used;
    w->left_size -= used;
    if (w->left_size == 0 || w->end != 0)
        ws_forget_left(w);
    return (int64_t)n;
}

/* Within a frame, straight into place. */
static int64_t
read_payload(struct ws_stream *w, uint8_t *buffer, size_t size)
{
    size_t most = w->in.left < size ? (size_t)w->in.left : size;
    int64_t n = w->st->ops->recv_now(w->st, buffer, most);

    if (n > 0 && !ws_in_take(&w->in, buffer, buffer, (size_t)n)) {
        end_reading(w, SPOKE_EPROTO, w->in.code);
        return 0;
    }
    return n;
}

/* Where a head comes first, and others may follow: aside, which keeps what the reader has no room
 * for.  (Not in the engine's scratch: what is inside may use that.) */
static int64_t
read_frames(struct ws_stream *w)
{
    struct spk_chunk *chunk = spk_chunk_new(READ_SIZE);
    int64_t n;

    if (chunk == NULL)
        return SPOKE_ENOBUFS;
    if ((n = w->st->ops->recv_now(w->st, chunk->data, chunk->size)) <= 0) {
        spk_chunk_unref(chunk);
        return n;
    }
    w->left = chunk;
    w->left_data = chunk->data;
    w->left_size = (size_t)n;
    return n;
}

int64_t
ws_recv_now(struct spk_stream *st, void *buffer, size_t size)
{
    struct ws_stream *w = ws_of(st);
    int64_t n = 0;

    for (;;) {
        while (w->left != NULL && n == 0)
            n = take_left(w, buffer, size);
        if (n > 0 || w->end != 0)
            return n > 0 ? n : told(w->end);
        if (w->in.left > 0) {
            if ((n = read_payload(w, buffer, size)) > 0 || n < 0)
                return n;
        } else if ((n = read_frames(w)) < 0) {
            return n;
        }
        if (n == 0)
            is_cut_off(w);
        n = 0;
    }
}

/* ---- as an operation ---- */

static void
recv_more(struct ws_stream *w)
{
    w->in_op.awaited = w->recv_op->awaited;
    w->st->ops->recv(w->st, &w->in_op, NULL, 0);
}

static void
end_recv(struct ws_stream *w, int64_t result)
{
    struct spk_op *op = w->recv_op;

    w->recv_op = NULL;
    spk_op_complete(w->stream.e, op, (int)result);
}

/* Give what is left of these bytes without the heads.  False: nothing, and more is to come. */
static bool
give(struct ws_stream *w, struct spk_chunk *chunk, uint8_t *data, size_t size)
{
    size_t used, n = w->end == 0 ? unframe(w, data, size, data, size, &used) : 0;

    if (n == 0 && w->end == 0)
        return false;
    w->recv_op->chunk = chunk;
    w->recv_op->data = data;
    end_recv(w, n > 0 ? (int64_t)n : told(w->end));
    return true;
}

void
ws_recv_went_on(struct ws_stream *w, int result)
{
    if (result == 0)
        is_cut_off(w);
    if (result < 0) {
        end_recv(w, result);
        return;
    }
    if (give(w, w->in_op.chunk, w->in_op.data, (size_t)result))
        return; /* its owner may have closed it */
    if (w->recv_op->cancelled)
        end_recv(w, SPOKE_ECANCELED);
    else
        recv_more(w);
}

/* What is known already is told as if it had just come. */
void
ws_on_recv_task(struct spk_task *task)
{
    struct ws_stream *w = SPK_OWNER(task, struct ws_stream, recv_task);
    struct spk_chunk *chunk = w->left;
    uint8_t *data = w->left_data;
    size_t size = w->left_size;

    w->left = NULL;
    w->left_size = 0;
    if (w->recv_op->cancelled)
        end_recv(w, SPOKE_ECANCELED);
    else if (!give(w, chunk, data, size))
        recv_more(w);
    if (chunk != NULL)
        spk_chunk_unref(chunk);
}

static void
cancel_recv(struct spk_op *op)
{
    struct ws_stream *w = op->u.other.by;

    if (spk_op_busy(&w->in_op))
        spk_op_cancel(w->stream.e, &w->in_op); /* else the task is on its way */
}

void
ws_recv(struct spk_stream *st, struct spk_op *op, void *buffer, size_t size)
{
    struct ws_stream *w = ws_of(st);

    (void)buffer, (void)size; /* none: streams have it come in the engine's memory */
    assert(buffer == NULL);
    spk_op_by_other(op, w, cancel_recv);
    w->recv_op = op;
    if (w->left != NULL || w->end != 0)
        spk_task_queue(w->stream.e, &w->recv_task);
    else
        recv_more(w);
}
