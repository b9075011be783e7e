/* SPDX-License-Identifier: MIT */
/* What goes to the peer of a stream.  What an unmasked end sends goes from where it is, behind a
 * head; masked bytes are copied. */
#include <string.h>

#include "transports/ws/stream.h"

#define IOV_MOST 64

/* ---- what waits ---- */

static bool
put_word(struct ws_stream *w, unsigned opcode, const uint8_t *payload, size_t size)
{
    uint8_t *room = spk_unsent_room(&w->out, WS_CONTROL_MOST + 6);

    if (room == NULL)
        return false;
    w->out.to += ws_put_control(room, opcode, payload, size, w->terms.masks);
    return true;
}

void
ws_put_due(struct ws_stream *w)
{
    uint8_t code[2] = {(uint8_t)(w->code >> 8), (uint8_t)w->code};

    if (w->pong_due && put_word(w, WS_PONG, w->pong, w->pong_size))
        w->pong_due = false;
    if (w->end_due && put_word(w, WS_BINARY, NULL, 0))
        w->end_due = false;
    if (w->close_due && put_word(w, WS_CLOSE, code, w->code != 0 ? 2 : 0))
        w->close_due = false;
}

int
ws_write_out(struct ws_stream *w)
{
    if (spk_op_busy(&w->out_op))
        return SPOKE_EAGAIN;
    ws_put_due(w);
    return spk_unsent_write(&w->out, w->st);
}

void
ws_start_writing(struct ws_stream *w)
{
    if (!spk_op_busy(&w->out_op))
        spk_unsent_send(&w->out, w->st, &w->out_op);
}

void
ws_write_soon(struct ws_stream *w)
{
    if (ws_write_out(w) == SPOKE_EAGAIN && w->out.chunk != NULL)
        ws_start_writing(w);
}

/* ---- frames ---- */

/* A frame of so many bytes of the user's, all of them copied.  Returns what was taken. */
static int64_t
send_masked(struct ws_stream *w, const struct iovec *iov, int count, size_t size)
{
    uint8_t *room = spk_unsent_room(&w->out, size + WS_HEAD_MOST), key[4];
    size_t at = 0;
    int rc;

    if (room == NULL)
        return SPOKE_ENOMEM;
    ws_new_key(key);
    room += ws_put_head(room, WS_BINARY, true, size, key);
    for (int i = 0; i < count && at < size; i++) {
        size_t n = iov[i].iov_len < size - at ? iov[i].iov_len : size - at;

        ws_mask(room + at, iov[i].iov_base, n, key, at);
        at += n;
    }
    w->out.to = (size_t)(room + size - w->out.chunk->data);
    rc = ws_write_out(w);
    return rc != 0 && rc != SPOKE_EAGAIN ? rc : (int64_t)size;
}

/* Keep what the connection has not taken of a frame whose first `n` bytes it has. */
static bool
keep_rest(struct ws_stream *w, const struct iovec *iov, int count, size_t n, size_t all)
{
    uint8_t *room = spk_unsent_room(&w->out, all - n);

    if (room == NULL)
        return false;
    for (int i = 0; i < count; i++) {
        size_t gone = n < iov[i].iov_len ? n : iov[i].iov_len, rest = iov[i].iov_len - gone;

        n -= gone;
        if (rest > 0)
            memcpy(room, (const uint8_t *)iov[i].iov_base + gone, rest);
        room += rest;
    }
    w->out.to = (size_t)(room - w->out.chunk->data);
    return true;
}

/* The same from where they are. */
static int64_t
send_plain(struct ws_stream *w, const struct iovec *iov, int count, size_t size)
{
    struct iovec parts[IOV_MOST + 1];
    uint8_t head[WS_HEAD_MOST];
    size_t left = size, all;
    int used = 1;
    int64_t n;

    parts[0] = (struct iovec){head, ws_put_head(head, WS_BINARY, true, size, NULL)};
    all = parts[0].iov_len + size;
    for (int i = 0; i < count && left > 0; i++) {
        parts[used] = iov[i];
        if (parts[used].iov_len > left)
            parts[used].iov_len = left;
        left -= parts[used++].iov_len;
    }
    if ((n = w->st->ops->send_now(w->st, parts, used)) <= 0)
        return n;
    return (size_t)n == all || keep_rest(w, parts, used, (size_t)n, all) ? (int64_t)size
                                                                         : SPOKE_ENOMEM;
}

int64_t
ws_send_now(struct spk_stream *st, struct iovec *iov, int count)
{
    struct ws_stream *w = ws_of(st);
    size_t size = 0;
    int rc;

    if (w->finished)
        return SPOKE_ECONNRESET;
    if ((rc = ws_write_out(w)) != 0)
        return rc;
    if (count > IOV_MOST)
        count = IOV_MOST;
    for (int i = 0; i < count; i++)
        size += iov[i].iov_len;
    if (size > w->frame_most)
        size = w->frame_most;
    if (size == 0) /* an empty frame says something else */
        return 0;
    return w->terms.masks ? send_masked(w, iov, count, size) : send_plain(w, iov, count, size);
}

/* ---- room ---- */

static void
cancel_writable(struct spk_op *op)
{
    struct ws_stream *w = op->u.other.by;

    spk_op_cancel(w->stream.e, &w->out_op);
}

static void
wait_writable(struct ws_stream *w)
{
    if (spk_op_busy(&w->out_op))
        return;
    if (w->out.chunk != NULL)
        ws_start_writing(w);
    else
        w->st->ops->writable(w->st, &w->out_op);
}

void
ws_writable(struct spk_stream *st, struct spk_op *op)
{
    struct ws_stream *w = ws_of(st);

    spk_op_by_other(op, w, cancel_writable);
    w->writable_op = op;
    wait_writable(w);
}

static void
end_writable(struct ws_stream *w, int result)
{
    struct spk_op *op = w->writable_op;

    w->writable_op = NULL;
    if (op != NULL)
        spk_op_complete(w->stream.e, op, result);
}

void
ws_went_out(struct ws_stream *w, int rc)
{
    if (rc == 0 && w->writable_op != NULL && !w->writable_op->cancelled &&
        spk_stream_unsent(w->st) > 0)
        w->st->ops->writable(w->st, &w->out_op);
    else if (rc == SPOKE_EAGAIN && w->out.chunk != NULL &&
             (w->writable_op == NULL || !w->writable_op->cancelled))
        ws_start_writing(w);
    else
        end_writable(w, rc == SPOKE_EAGAIN ? 0 : rc);
}
