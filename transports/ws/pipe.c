/* SPDX-License-Identifier: MIT */
/* Messages in frames: each is one message of WebSocket.  How they are gathered and written, how
 * they arrive and wait for room, how the pipe lives and ends is the core's (framing*.c); here is
 * what stands around them.  docs/wire.md has the bytes. */
#include <string.h>

#include "transports/ws/ws.h"

#define LAST_WORD_MOST (WS_CONTROL_MOST + 6u)

struct ws_pipe {
    struct ws_in in;
    struct ws_terms terms;
    size_t frame_most; /* bytes of payload in a frame of ours; 0: any */
    uint8_t opcode;
    bool pong_due; /* for the latest ping, when what is in front of it has been written */
    bool peer_closed;
    uint8_t pong_size, close_size;
    uint8_t pong[WS_CONTROL_MOST], close[WS_CONTROL_MOST];
    unsigned code; /* why it is closed; 0: the pipe's reason says it */
};

static struct ws_pipe *
pipe_of(const struct spk_framing *f)
{
    return f->wire_state;
}

/* ---- out ---- */

static size_t
frame_of(const struct ws_pipe *w, size_t left)
{
    return w->frame_most > 0 && left > w->frame_most ? w->frame_most : left;
}

static size_t
whole_size(const struct spk_framing *f, size_t length)
{
    const struct ws_pipe *w = pipe_of(f);
    size_t size = 0, left = length, n;

    do {
        n = frame_of(w, left);
        size += ws_head_size(n, w->terms.masks) + n;
        left -= n;
    } while (left > 0);
    return size;
}

/* `size` bytes from the `at`-th of a message on: its header, then its body. */
static void
copy_part(uint8_t *to, const spoke_msg *m, size_t at, size_t size, const uint8_t *key)
{
    size_t front = at < m->header_size ? m->header_size - at : 0;

    if (front > size)
        front = size;
    if (front > 0)
        memcpy(to, m->header + at, front);
    if (key == NULL) {
        memcpy(to + front, m->body + (at + front - m->header_size), size - front);
        return;
    }
    if (front > 0)
        ws_mask(to, to, front, key, 0);
    ws_mask(to + front, m->body + (at + front - m->header_size), size - front, key, front);
}

static __attribute__((noinline)) size_t
put_frames(const struct ws_pipe *w, uint8_t *to, const spoke_msg *m)
{
    size_t length = m->header_size + m->size, at = 0;
    unsigned opcode = w->opcode;
    uint8_t *next = to, key[4];

    do {
        size_t n = frame_of(w, length - at);

        if (w->terms.masks)
            ws_new_key(key);
        next += ws_put_head(next, opcode, at + n == length, n, w->terms.masks ? key : NULL);
        copy_part(next, m, at, n, w->terms.masks ? key : NULL);
        next += n;
        at += n;
        opcode = WS_CONTINUATION;
    } while (at < length);
    return (size_t)(next - to);
}

/* What most are is one frame, with a key and the shortest head. */
static size_t
put_whole(struct spk_framing *f, uint8_t *to, const spoke_msg *m)
{
    const struct ws_pipe *w = pipe_of(f);

    if (!w->terms.masks || m->header_size > 0 || m->size > WS_SHORT_MOST)
        return put_frames(w, to, m);
    to[0] = (uint8_t)(WS_FIN | w->opcode);
    to[1] = (uint8_t)(WS_MASKED | m->size);
    ws_new_key(to + 2);
    ws_mask(to + 6, m->body, m->size, to + 2, 0);
    return 6 + m->size;
}

static bool
goes_as_it_is(const struct spk_framing *f, size_t length)
{
    return !pipe_of(f)->terms.masks && frame_of(pipe_of(f), length) == length;
}

static size_t
put_head(const struct spk_framing *f, uint8_t *head, size_t length)
{
    return ws_put_head(head, pipe_of(f)->opcode, true, length, NULL);
}

static const uint8_t *
end_of(const uint8_t *at)
{
    struct ws_head head;

    do {
        at += ws_get_head(&head, at, WS_HEAD_MOST, (at[1] & WS_MASKED) != 0);
        at += head.length;
    } while (head.opcode >= WS_CLOSE || !head.fin);
    return at;
}

/* Between messages, as far as they have been gathered. */
static void
send_pong(struct spk_framing *f)
{
    struct ws_pipe *w = pipe_of(f);
    uint8_t frame[LAST_WORD_MOST];
    size_t size = ws_put_control(frame, WS_PONG, w->pong, w->pong_size, w->terms.masks);

    if (f->pipe.state != SPK_PIPE_ATTACHED || !spk_framing_put(f, frame, size))
        return; /* it is due still */
    w->pong_due = false;
    spk_framing_flush(&f->pipe);
}

static void
wrote(struct spk_framing *f)
{
    if (pipe_of(f)->pong_due)
        send_pong(f);
}

/* Only the latest ping is answered while we cannot write: nothing grows. */
static void
on_ping(struct spk_framing *f)
{
    struct ws_pipe *w = pipe_of(f);

    w->pong_due = true;
    w->pong_size = w->in.control_size;
    memcpy(w->pong, w->in.control, w->in.control_size);
    if (spk_framing_is_written(f))
        send_pong(f);
}

/* ---- in ---- */

static bool
fail(struct spk_framing *f, unsigned code)
{
    pipe_of(f)->code = code;
    spk_count_drops(f->pipe.socket, &f->pipe, SPK_DROP_GARBLED, 1);
    spk_pipe_shut(&f->pipe, SPOKE_EPROTO);
    return false;
}

static bool
on_close(struct spk_framing *f)
{
    struct ws_pipe *w = pipe_of(f);

    w->peer_closed = true;
    w->close_size = w->in.control_size;
    memcpy(w->close, w->in.control, w->in.control_size);
    spk_pipe_shut(&f->pipe, SPOKE_EOF);
    return false;
}

static bool
deliver(struct spk_framing *f, spoke_msg *m)
{
    if (m != NULL)
        return spk_pipe_received(&f->pipe, m);
    spk_pipe_shut(&f->pipe, SPOKE_ENOMEM);
    return false;
}

/* Small messages that are there as a whole, delivered together: see framing_in.c. */
static int
parse_run(struct spk_framing *f, const uint8_t *data, size_t size, size_t *at, int most,
          size_t cost)
{
    size_t limit = f->pipe.endpoint->options.max_recv_size, next = *at;
    bool masked = pipe_of(f)->in.masked;
    const size_t head = ws_head_size(0, masked);
    const unsigned mask_bit = masked ? WS_MASKED : 0;
    struct iovec bodies[SPK_RUN_MOST];
    spoke_msg *messages[SPK_RUN_MOST];
    int count = 0, made;

    if (limit == 0 || limit > WS_SHORT_MOST)
        limit = WS_SHORT_MOST;
    if (most > SPK_RUN_MOST)
        most = SPK_RUN_MOST;
    while (count < most && size - next >= head) {
        const uint8_t *body = data + next + head;
        size_t length = data[next + 1] ^ mask_bit; /* without the bit, if it is as it should be */

        if (data[next] != (WS_FIN | WS_BINARY) || length > limit || length > size - next - head)
            break;
        bodies[count++] = (struct iovec){(void *)(uintptr_t)body, length};
        next += head + length;
        if (length + sizeof(spoke_msg) >= cost)
            break;
        cost -= length + sizeof(spoke_msg);
    }
    made = masked ? spk_msg_new_many(messages, bodies, count)
                  : spk_msg_from_many(messages, bodies, count);
    if (made == 0)
        return 0;
    for (int i = 0; i < count && i < made; i++) { /* for the rest there is no memory */
        const uint8_t *body = bodies[i].iov_base;

        if (masked)
            ws_mask(messages[i]->body, body, bodies[i].iov_len, body - 4, 0);
        *at = (size_t)(body + bodies[i].iov_len - data);
    }
    spk_pipe_received_many(&f->pipe, messages, made);
    return made;
}

/* The head of a data frame has been read.  Returns whether to go on. */
static bool
begin_frame(struct spk_framing *f, struct spk_chunk *chunk, uint8_t *data, size_t size, size_t *at,
            int *most)
{
    struct ws_pipe *w = pipe_of(f);
    uint64_t length = w->in.left, before = f->body != NULL ? f->body->size : 0;
    spoke_msg *m;

    if (!spk_pipe_length_is_fine(&f->pipe, before + length))
        return false;
    if (f->body == NULL && w->in.head.fin && length <= size - *at) {
        uint8_t *body = data + *at;

        *at += (size_t)length;
        if (length > 0 && !ws_in_take(&w->in, body, body, (size_t)length))
            return fail(f, w->in.code);
        m = spk_framing_whole_message(chunk, body, (size_t)length);
        --*most;
        return deliver(f, m);
    }
    if (f->body == NULL && !spk_framing_begin_body(f, length, data, 0))
        return false;
    f->body_size = (size_t)(before + length);
    if (length > 0 || !w->in.head.fin)
        return true;
    --*most;
    return spk_framing_deliver_body(f);
}

/* More of the payload. */
static bool
continue_frame(struct spk_framing *f, uint8_t *data, size_t size, size_t *at, int *most)
{
    struct ws_pipe *w = pipe_of(f);
    size_t n = w->in.left < size - *at ? (size_t)w->in.left : size - *at;
    uint8_t *from = data + *at;

    *at += n;
    if (!ws_in_take(&w->in, from, from, n))
        return fail(f, w->in.code);
    spk_framing_continue_body(f, from, n);
    if (f->pipe.state != SPK_PIPE_ATTACHED)
        return false;
    if (w->in.in_message)
        return true;
    --*most;
    return spk_framing_deliver_body(f);
}

static bool
next_frame(struct spk_framing *f, struct spk_chunk *chunk, uint8_t *data, size_t size, size_t *at,
           int *most)
{
    struct ws_pipe *w = pipe_of(f);

    switch (ws_in_next(&w->in, data, size, at)) {
    case WS_IN_FRAME: return begin_frame(f, chunk, data, size, at, most);
    case WS_IN_PING: on_ping(f); break;
    case WS_IN_CLOSE: return on_close(f);
    case WS_IN_BAD: return fail(f, w->in.code);
    case WS_IN_MORE:
    case WS_IN_PONG: break;
    }
    return f->pipe.state == SPK_PIPE_ATTACHED;
}

static size_t
parse(struct spk_framing *f, struct spk_chunk *chunk, uint8_t *data, size_t size, int most)
{
    struct ws_pipe *w = pipe_of(f);
    size_t at = 0, cost;
    bool go_on = f->pipe.state == SPK_PIPE_ATTACHED;

    while (at < size && go_on && most > 0) {
        int room = spk_pipe_room(&f->pipe, SPK_READ_AHEAD, &cost), n;

        if (room == 0)
            break;
        if (room != SPK_ONE_BY_ONE && ws_in_is_between(&w->in) &&
            (n = parse_run(f, data, size, &at, room < most ? room : most, cost)) > 0)
            most -= n;
        else if (w->in.left > 0)
            go_on = continue_frame(f, data, size, &at, &most);
        else
            go_on = next_frame(f, chunk, data, size, &at, &most);
    }
    f->head_have = !ws_in_is_between(&w->in);
    return at;
}

static bool
arrived(struct spk_framing *f, size_t n)
{
    struct ws_pipe *w = pipe_of(f);
    uint8_t *at = f->body->body + f->body->size;

    if (!ws_in_take(&w->in, at, at, n))
        return fail(f, w->in.code);
    f->body->size += n;
    f->head_have = !ws_in_is_between(&w->in);
    return !w->in.in_message;
}

static void
deliver_left(struct spk_framing *f)
{
    struct ws_pipe *w = pipe_of(f);
    size_t at = 0, cost;
    int room;

    while (ws_in_is_between(&w->in) && at < f->left_size &&
           (room = spk_pipe_room(&f->pipe, UINT32_MAX, &cost)) > 0) {
        uint8_t *body;
        spoke_msg *m;

        if (parse_run(f, f->left_data, f->left_size, &at, room, cost) > 0)
            continue;
        switch (ws_in_next(&w->in, f->left_data, f->left_size, &at)) {
        case WS_IN_PING:
        case WS_IN_PONG: continue;
        case WS_IN_FRAME: break;
        default: return;
        }
        body = f->left_data + at;
        if (!w->in.head.fin || w->in.left > f->left_size - at ||
            !spk_pipe_length_is_fine(&f->pipe, w->in.head.length) ||
            (w->in.left > 0 && !ws_in_take(&w->in, body, body, (size_t)w->in.left)) ||
            (m = spk_framing_whole_message(f->left, body, (size_t)w->in.head.length)) == NULL)
            return;
        at += (size_t)w->in.head.length;
        spk_pipe_received(&f->pipe, m);
    }
}

/* ---- life ---- */

static void
greet(struct spk_framing *f)
{
    struct ws_pipe *w = pipe_of(f);

    f->st = ws_stream_take(f->st, &w->terms, &f->left, &f->left_data, &f->left_size);
    w->in.masked = !w->terms.masks;
    spk_framing_greeted(f);
}

/* What a close frame is to say; 0: nobody would hear it. */
static unsigned
code_of(const struct spk_framing *f)
{
    const struct spk_endpoint *ep = f->pipe.endpoint;

    if (pipe_of(f)->code != 0)
        return pipe_of(f)->code;
    switch (f->pipe.reason) {
    case SPOKE_ECLOSED:
        return ep->is_dialer || spk_listener_is_open(ep) ? WS_NORMAL : WS_GOING_AWAY;
    case SPOKE_EMSGSIZE: return WS_TOO_BIG;
    case SPOKE_EPROTO: return WS_PROTOCOL_ERROR;
    case SPOKE_ENOMEM: return WS_FAILED;
    case SPOKE_ETIMEDOUT:
    case SPOKE_EREFUSED: return WS_POLICY;
    case SPOKE_EBUSY:
    case SPOKE_ELIMIT: return WS_TRY_LATER;
    default: return 0;
    }
}

/* A close frame, if a frame can begin here. */
static void
part(struct spk_framing *f)
{
    struct ws_pipe *w = pipe_of(f);
    uint8_t frame[LAST_WORD_MOST];
    unsigned code = code_of(f);

    if (!f->greeted || !spk_framing_is_written(f) || (code == 0 && !w->peer_closed)) {
        f->st->ops->close(f->st);
    } else if (w->peer_closed) {
        size_t size = ws_put_control(frame, WS_CLOSE, w->close, w->close_size < 2 ? 0u : 2u,
                                     w->terms.masks);
        spk_stream_part_with(f->st, frame, size);
    } else {
        spk_stream_part_with(f->st, frame, ws_put_close(frame, code, w->terms.masks));
    }
}

static void
free_pipe(struct spk_framing *f)
{
    struct ws_pipe *w = pipe_of(f);

    ws_terms_fini(&w->terms);
    spk_free(w);
}

static const char *
text(const struct spk_framing *f, const char *name)
{
    return ws_terms_text(&pipe_of(f)->terms, name);
}

static const struct spk_wire wire = {
    .greet = greet,
    .whole_size = whole_size,
    .put_whole = put_whole,
    .goes_as_it_is = goes_as_it_is,
    .put_head = put_head,
    .end_of = end_of,
    .wrote = wrote,
    .parse = parse,
    .deliver_left = deliver_left,
    .arrived = arrived,
    .part = part,
    .free = free_pipe,
    .text = text,
};

int
ws_pipe_start(struct spk_endpoint *ep, struct spk_stream *st)
{
    struct ws_pipe *w = spk_zalloc(sizeof *w);
    int rc;

    if (w == NULL) {
        st->ops->close(st);
        return SPOKE_ENOMEM;
    }
    w->in.takes_text = ep->options.ws_recv_text;
    w->opcode = ep->options.ws_send_text ? WS_TEXT : WS_BINARY;
    w->frame_most = ep->options.ws_frame_size;
    if ((rc = spk_framing_start_with(ep, st, &wire, w)) != 0)
        spk_free(w);
    return rc;
}
