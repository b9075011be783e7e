/* SPDX-License-Identifier: MIT */
/* The handshake of HTTP, as what a stream has to do before its first byte, and then the stream's
 * bytes in frames, whose borders mean nothing.  A pipe takes what is inside once the hands are
 * shaken (ws_stream_take()) and never uses the rest.
 *
 * Writing: what an unmasked end sends goes from where it is, behind a head; masked bytes are
 * copied. What the connection does not take of a frame that has begun waits here, at most one
 * frame, and is written before anything else.  Words of control wait likewise.  Payload is read
 * straight into the reader's memory, or taken out of a chunk, in place. */
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "transports/ws/http.h"
#include "transports/ws/ws.h"

#define FRAME_MOST   ((size_t)64 * 1024) /* bytes of payload that are sent together */
#define READ_SIZE    ((size_t)16 * 1024)
#define IOV_MOST     64
#define SUBPROTOCOL  "spoke-stream.1"
#define EMPTY_MOST   1000u /* frames that bring nothing */
#define REFUSAL_MOST 512u

struct ws_stream {
    struct spk_stream stream;
    struct spk_stream *st; /* what carries it; NULL: others have it */
    struct spk_endpoint *ep;
    struct ws_terms terms;
    struct ws_in in;
    struct spk_op in_op, out_op; /* of `st` */

    /* the handshake */
    struct spk_op *begin_op; /* the caller's, while it goes on */
    bool began;              /* `st` has */
    int begin_failed;
    size_t head_used, head_size; /* handed over by another listener; the latter 0: it was not */
    struct ws_http *http;
    char key[WS_KEY_SIZE + 1], protocol[64];

    /* reading */
    struct spk_op *recv_op;
    struct spk_task recv_task;
    struct spk_chunk *left; /* came behind the handshake */
    uint8_t *left_data;
    size_t left_size;
    unsigned empty;
    int end; /* SPOKE_EOF: nothing more comes, or why not */

    /* writing */
    struct spk_op *writable_op;
    struct spk_chunk *out; /* to be written … */
    size_t out_size, out_done;
    struct iovec iov;
    struct msghdr msg;
    bool open;     /* hands have been shaken */
    bool finished; /* this end sends no more */
    bool closed;   /* … nor anything else, behind its close frame */
    bool is_reset;
    bool closing; /* nobody has it any more */
    bool pong_due, end_due, close_due;
    unsigned code; /* of the close frame; 0: none */
    uint8_t pong[WS_CONTROL_MOST], pong_size;
    spoke_ns patience_ns; /* at the end */
};

static struct ws_stream *
ws_of(struct spk_stream *st)
{
    return SPK_OWNER(st, struct ws_stream, stream);
}

void
ws_terms_fini(struct ws_terms *t)
{
    spk_free(t->target);
    spk_free(t->fields);
}

const char *
ws_terms_text(const struct ws_terms *t, const char *name)
{
    if (strcmp(name, SPOKE_OPT_WS_TARGET) == 0)
        return t->target;
    return strcmp(name, SPOKE_OPT_WS_FIELDS) == 0 ? t->fields : NULL;
}

/* ---- what is to be written ---- */

/* Room for so many bytes behind what waits; NULL: there is no memory. */
static uint8_t *
out_room(struct ws_stream *w, size_t size)
{
    struct spk_chunk *chunk;
    size_t waits = w->out_size - w->out_done;

    if (w->out == NULL || w->out->size - w->out_size < size) {
        if ((chunk = spk_chunk_new(waits + size)) == NULL)
            return NULL;
        if (w->out != NULL) {
            memcpy(chunk->data, w->out->data + w->out_done, waits);
            spk_chunk_unref(w->out);
        }
        w->out = chunk;
        w->out_done = 0;
        w->out_size = waits;
    }
    return w->out->data + w->out_size;
}

static void
out_written(struct ws_stream *w, size_t n)
{
    w->out_done += n;
    if (w->out_done < w->out_size)
        return;
    if (w->out != NULL)
        spk_chunk_unref(w->out);
    w->out = NULL;
    w->out_size = w->out_done = 0;
}

static bool
put_word(struct ws_stream *w, unsigned opcode, const uint8_t *payload, size_t size)
{
    uint8_t *room = out_room(w, WS_CONTROL_MOST + 6);

    if (room == NULL)
        return false;
    w->out_size += ws_put_control(room, opcode, payload, size, w->terms.masks);
    return true;
}

/* Words that are due go behind what waits, while nobody reads there. */
static void
put_due(struct ws_stream *w)
{
    uint8_t code[2] = {(uint8_t)(w->code >> 8), (uint8_t)w->code};

    if (w->pong_due && put_word(w, WS_PONG, w->pong, w->pong_size))
        w->pong_due = false;
    if (w->end_due && put_word(w, WS_BINARY, NULL, 0))
        w->end_due = false;
    if (w->close_due && put_word(w, WS_CLOSE, code, w->code != 0 ? 2 : 0))
        w->close_due = false;
}

/* Write what waits: 0: it is written; SPOKE_EAGAIN; or an error. */
static int
write_out(struct ws_stream *w)
{
    if (spk_op_busy(&w->out_op))
        return SPOKE_EAGAIN;
    put_due(w);
    while (w->out != NULL) {
        struct iovec iov = {w->out->data + w->out_done, w->out_size - w->out_done};
        int64_t n = w->st->ops->send_now(w->st, &iov, 1);

        if (n == SPOKE_EAGAIN || n == SPOKE_ENOBUFS)
            return SPOKE_EAGAIN;
        if (n <= 0) {
            out_written(w, w->out_size - w->out_done); /* nobody will have it */
            return (int)n;
        }
        out_written(w, (size_t)n);
    }
    return 0;
}

/* Let the ring write it. */
static void
start_writing(struct ws_stream *w)
{
    if (spk_op_busy(&w->out_op))
        return;
    w->iov = (struct iovec){w->out->data + w->out_done, w->out_size - w->out_done};
    w->msg.msg_iov = &w->iov;
    w->msg.msg_iovlen = 1;
    w->st->ops->send(w->st, &w->out_op, &w->msg);
}

/* Somebody waits for the peer, not for room here: what is not written goes by itself. */
static void
write_soon(struct ws_stream *w)
{
    if (write_out(w) == SPOKE_EAGAIN && w->out != NULL)
        start_writing(w);
}

/* ---- the handshake ---- */

static void
end_begin(struct ws_stream *w, int result)
{
    struct spk_op *op = w->begin_op;

    w->begin_op = NULL;
    w->open = result == 0;
    ws_http_free(w->http);
    w->http = NULL;
    spk_op_complete(w->stream.e, op, result);
}

static bool
is_idle(const struct ws_stream *w)
{
    return !spk_op_busy(&w->in_op) && !spk_op_busy(&w->out_op);
}

/* It fails, once nothing goes on any more. */
static void
stop_begin(struct ws_stream *w, int reason)
{
    if (w->begin_failed == 0)
        w->begin_failed = reason;
    spk_op_cancel(w->stream.e, &w->in_op);
    spk_op_cancel(w->stream.e, &w->out_op);
    if (is_idle(w))
        end_begin(w, w->begin_failed);
}

/* Something is going on as long as it has not ended. */
static void
cancel_begin(struct spk_op *op)
{
    stop_begin(op->u.other.by, SPOKE_ECANCELED);
}

static void
read_head(struct ws_stream *w)
{
    w->st->ops->recv(w->st, &w->in_op, NULL, 0);
}

static bool
put_text(struct ws_stream *w, const char *text, size_t size)
{
    uint8_t *room = out_room(w, size);

    if (room == NULL)
        return false;
    memcpy(room, text, size);
    w->out_size += size;
    return true;
}

/* A dialer's host, as others write it. */
static void
put_host(const struct spk_endpoint *d, char *text, size_t room)
{
    bool brackets = strchr(d->url.host, ':') != NULL;
    int size = (int)strcspn(d->url.host, "%");

    snprintf(text, room, "%s%.*s%s:%u", brackets ? "[" : "", size, d->url.host, brackets ? "]" : "",
             d->url.port);
}

static const char *
path_of(const struct spk_endpoint *ep)
{
    return ep->url.path != NULL ? ep->url.path : "/";
}

static bool
ask(struct ws_stream *w)
{
    char text[SPK_URL_MAX + 1024], host[300];
    const char *path = path_of(w->ep);
    int size;

    ws_http_new_key(w->key);
    put_host(w->ep, host, sizeof host);
    size = snprintf(text, sizeof text,
                    "GET %s%s HTTP/1.1\r\n"
                    "Host: %s\r\n"
                    "Upgrade: websocket\r\n"
                    "Connection: Upgrade\r\n"
                    "Sec-WebSocket-Key: %s\r\n"
                    "Sec-WebSocket-Version: 13\r\n"
                    "Sec-WebSocket-Protocol: %s\r\n\r\n",
                    *path == '?' ? "/" : "", path, host, w->key, w->protocol);
    return size > 0 && (size_t)size < sizeof text && put_text(w, text, (size_t)size);
}

/* The other end of the same. */
static bool
agree(struct ws_stream *w, const char *key)
{
    char text[512], accept[WS_ACCEPT_SIZE + 1];
    int size;

    ws_http_accept(key, accept);
    size = snprintf(text, sizeof text,
                    "HTTP/1.1 101 Switching Protocols\r\n"
                    "Upgrade: websocket\r\n"
                    "Connection: Upgrade\r\n"
                    "Sec-WebSocket-Accept: %s\r\n"
                    "%s%s%s\r\n",
                    accept, w->terms.half_close ? "Sec-WebSocket-Protocol: " : "",
                    w->terms.half_close ? w->protocol : "", w->terms.half_close ? "\r\n" : "");
    return size > 0 && (size_t)size < sizeof text && put_text(w, text, (size_t)size);
}

static void
start_http(struct ws_stream *w)
{
    int rc = SPOKE_ENOMEM;

    w->began = true;
    if ((w->http = ws_http_new(!w->ep->is_dialer)) == NULL || (w->ep->is_dialer && !ask(w)) ||
        ((rc = write_out(w)) != 0 && rc != SPOKE_EAGAIN)) {
        stop_begin(w, rc);
        return;
    }
    if (rc == SPOKE_EAGAIN)
        start_writing(w);
    read_head(w);
}

/* An answer for who will not be a peer. */
static void
refuse(struct ws_stream *w, unsigned status, int reason)
{
    char text[REFUSAL_MOST];
    size_t size = ws_http_put_refusal(text, sizeof text, status,
                                      reason == SPOKE_EPEER ? w->protocol : NULL);

    spk_stream_part_with(w->st, text, size);
    w->st = NULL;
    end_begin(w, reason);
}

static bool
keep_left(struct ws_stream *w, size_t used, size_t size)
{
    if (used < size) {
        w->left = spk_chunk_ref(w->in_op.chunk);
        w->left_data = w->in_op.data + used;
        w->left_size = size - used;
    }
    w->terms.fields = ws_http_fields_text(w->http);
    w->terms.target = spk_strdup(w->ep->is_dialer ? path_of(w->ep) : ws_http_target(w->http));
    return w->terms.fields != NULL && w->terms.target != NULL;
}

/* Of another listener at the same address: it has the connection from now on. */
static void
hand_over(struct ws_stream *w, struct spk_endpoint *to, size_t used, size_t size)
{
    struct spk_stream *stream;
    struct ws_stream *theirs;
    int rc = ws_stream_new(&stream, to, w->st);

    w->st = NULL;
    if (rc == 0) {
        theirs = ws_of(stream);
        theirs->http = w->http;
        theirs->in_op.chunk = w->in_op.chunk; /* while we are in its callback */
        theirs->in_op.data = w->in_op.data;
        theirs->head_used = used;
        theirs->head_size = size;
        w->http = NULL;
        spk_endpoint_count(to);
        rc = ws_start_pipe(to, stream);
    }
    if (rc != 0)
        spk_listener_failed(to, rc);
    end_begin(w, SPOKE_ECLOSED);
}

/* A request for a file, or for another listener.  True: that was it. */
static bool
is_for_others(struct ws_stream *w, size_t used, size_t size)
{
    const char *directory = ws_place_directory(w->ep);
    char path[SPK_URL_MAX];
    struct spk_endpoint *to = NULL;
    struct spk_chunk *answer;

    if (directory[0] != '\0' && ws_http_asks_for_file(w->http)) {
        if ((answer = ws_file_answer(w->http, directory, &size)) == NULL) {
            refuse(w, 404, SPOKE_ECLOSED);
        } else {
            spk_stream_part(w->st, answer, size, w->patience_ns);
            w->st = NULL;
            end_begin(w, SPOKE_ECLOSED);
        }
        return true;
    }
    if (snprintf(path, sizeof path, "%s", ws_http_target(w->http)) < (int)sizeof path &&
        ws_http_path(path))
        to = ws_place_find(w->ep, path);
    if (to == NULL || to == w->ep || !spk_listener_is_open(to))
        return false;
    hand_over(w, to, used, size);
    return true;
}

static void
on_request(struct ws_stream *w, size_t used, size_t size)
{
    const char *url_path = path_of(w->ep);
    char *path = spk_strdup(*url_path == '?' ? "/" : url_path);
    struct ws_wanted wanted = {.path = path,
                               .protocol = w->protocol,
                               .protocol_may_lack = w->ep->owner != NULL,
                               .check_origin = w->ep->options.ws_check_origin,
                               .origins = spk_text_of(w->ep->options.ws_origins)};
    bool wrong_protocol;
    unsigned status, count;
    int rc = SPOKE_ENOMEM;

    if (w->head_size == 0 && is_for_others(w, used, size)) {
        spk_free(path);
        return;
    }
    if (path == NULL || !ws_http_path(path) || !keep_left(w, used, size)) {
        spk_free(path);
        stop_begin(w, rc);
        return;
    }
    status = ws_http_check_request(w->http, &wanted, &w->terms.half_close, &wrong_protocol);
    spk_free(path);
    if (status != 101) {
        refuse(w, status, wrong_protocol ? SPOKE_EPEER : SPOKE_EHANDSHAKE);
        return;
    }
    if (agree(w, ws_http_field(w->http, "Sec-WebSocket-Key", &count)))
        rc = write_out(w);
    if (rc == SPOKE_EAGAIN)
        start_writing(w); /* on_written() goes on */
    else if (rc == 0)
        end_begin(w, 0);
    else
        stop_begin(w, rc);
}

static void
on_response(struct ws_stream *w, size_t used, size_t size)
{
    bool wrong_protocol;
    const char *why = ws_http_check_response(w->http, w->key, w->protocol, w->ep->owner != NULL,
                                             &w->terms.half_close, &wrong_protocol);
    int rc;

    if (why != NULL) {
        char text[128];

        snprintf(text, sizeof text, "no WebSocket there: %s (status %u)", why,
                 ws_http_status(w->http));
        rc = wrong_protocol ? SPOKE_EPEER : SPOKE_EHANDSHAKE;
        spk_endpoint_explain(w->ep, rc, text);
        stop_begin(w, rc);
    } else if (w->out != NULL) { /* it answers before it can know */
        stop_begin(w, SPOKE_EHANDSHAKE);
    } else if (!keep_left(w, used, size)) {
        stop_begin(w, SPOKE_ENOMEM);
    } else {
        end_begin(w, 0);
    }
}

/* What came is no head. */
static void
on_garbage(struct ws_stream *w, unsigned status)
{
    if (w->ep->is_dialer)
        stop_begin(w, SPOKE_EHANDSHAKE);
    else
        refuse(w, status, SPOKE_EHANDSHAKE);
}

static void
on_head(struct ws_stream *w, size_t size)
{
    size_t used;

    switch (ws_http_feed(w->http, w->in_op.data, size, &used)) {
    case WS_HTTP_MORE: read_head(w); break;
    case WS_HTTP_BAD: on_garbage(w, 400); break;
    case WS_HTTP_TOO_BIG: on_garbage(w, 431); break;
    case WS_HTTP_MEMORY: stop_begin(w, SPOKE_ENOMEM); break;
    case WS_HTTP_WHOLE:
        if (w->ep->is_dialer)
            on_response(w, used, size);
        else
            on_request(w, used, size);
    }
}

static void
begin_went_on(struct ws_stream *w, int result)
{
    if (w->begin_failed != 0) {
        stop_begin(w, 0);
    } else if (!w->began) {
        if (result == 0)
            start_http(w);
        else
            stop_begin(w, result);
    } else if (result == SPOKE_EAGAIN || result == SPOKE_ENOBUFS) {
        read_head(w);
    } else if (result <= 0) {
        stop_begin(w, result == 0 ? SPOKE_ECONNRESET : result);
    } else {
        on_head(w, (size_t)result);
    }
}

static void
ws_begin(struct spk_stream *st, struct spk_op *op)
{
    struct ws_stream *w = ws_of(st);

    spk_op_by_other(op, w, cancel_begin);
    w->begin_op = op;
    if (w->http != NULL) {
        w->began = true;
        on_request(w, w->head_used, w->head_size);
    } else if (w->st->ops->begin != NULL)
        w->st->ops->begin(w->st, &w->in_op);
    else
        start_http(w);
}

/* ---- reading ---- */

static void
on_ping(struct ws_stream *w)
{
    w->pong_due = !w->closed;
    w->pong_size = w->in.control_size;
    memcpy(w->pong, w->in.control, w->in.control_size);
    write_soon(w);
}

/* The last word, which answers the peer's or ends a connection that has gone wrong. */
static void
say_close(struct ws_stream *w, unsigned code)
{
    if (w->closed)
        return;
    w->closed = w->finished = w->close_due = true;
    w->code = code;
    write_soon(w);
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

static void
forget_left(struct ws_stream *w)
{
    if (w->left != NULL)
        spk_chunk_unref(w->left);
    w->left = NULL;
    w->left_size = 0;
}

/* What the connection's end is to the reader. */
static int
end_of_connection(const struct ws_stream *w)
{
    return ws_in_is_between(&w->in) ? SPOKE_EOF : SPOKE_ECONNRESET;
}

static int64_t
take_left(struct ws_stream *w, uint8_t *buffer, size_t size)
{
    size_t used, n = unframe(w, buffer, size, w->left_data, w->left_size, &used);

    w->left_data += used;
    w->left_size -= used;
    if (w->left_size == 0 || w->end != 0)
        forget_left(w);
    return (int64_t)n;
}

/* 0 is the end, as everywhere. */
static int64_t
told(int end)
{
    return end == SPOKE_EOF ? 0 : end;
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

static int64_t
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
        if (n == 0 && w->end == 0)
            w->end = end_of_connection(w);
        n = 0;
    }
}

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

static void
recv_went_on(struct ws_stream *w, int result)
{
    if (result == 0 && w->end == 0)
        w->end = end_of_connection(w);
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
static void
on_recv_task(struct spk_task *task)
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

static void
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

static void
on_in(struct spk_op *op, int result)
{
    struct ws_stream *w = SPK_OWNER(op, struct ws_stream, in_op);

    if (w->begin_op != NULL)
        begin_went_on(w, result);
    else
        recv_went_on(w, result);
}

/* ---- writing ---- */

/* A frame of so many bytes of the user's, all of them copied.  Returns what was taken. */
static int64_t
send_masked(struct ws_stream *w, const struct iovec *iov, int count, size_t size)
{
    uint8_t *room = out_room(w, size + WS_HEAD_MOST), key[4];
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
    w->out_size = (size_t)(room + size - w->out->data);
    rc = write_out(w);
    return rc != 0 && rc != SPOKE_EAGAIN ? rc : (int64_t)size;
}

/* Keep what the connection has not taken of a frame whose first `n` bytes it has. */
static bool
keep_rest(struct ws_stream *w, const struct iovec *iov, int count, size_t n, size_t all)
{
    uint8_t *room = out_room(w, all - n);

    if (room == NULL)
        return false;
    for (int i = 0; i < count; i++) {
        size_t gone = n < iov[i].iov_len ? n : iov[i].iov_len, rest = iov[i].iov_len - gone;

        n -= gone;
        if (rest > 0)
            memcpy(room, (const uint8_t *)iov[i].iov_base + gone, rest);
        room += rest;
    }
    w->out_size = (size_t)(room - w->out->data);
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

static int64_t
ws_send_now(struct spk_stream *st, struct iovec *iov, int count)
{
    struct ws_stream *w = ws_of(st);
    size_t size = 0;
    int rc;

    if (w->finished)
        return SPOKE_ECONNRESET;
    if ((rc = write_out(w)) != 0)
        return rc;
    if (count > IOV_MOST)
        count = IOV_MOST;
    for (int i = 0; i < count; i++)
        size += iov[i].iov_len;
    if (size > FRAME_MOST)
        size = FRAME_MOST;
    if (size == 0) /* an empty frame says something else */
        return 0;
    return w->terms.masks ? send_masked(w, iov, count, size) : send_plain(w, iov, count, size);
}

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
    if (w->out != NULL)
        start_writing(w);
    else
        w->st->ops->writable(w->st, &w->out_op);
}

static void
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

static void
begin_wrote(struct ws_stream *w, int rc)
{
    if (w->begin_failed != 0 || (rc != 0 && rc != SPOKE_EAGAIN))
        stop_begin(w, rc);
    else if (rc == SPOKE_EAGAIN)
        start_writing(w);
    else if (!w->ep->is_dialer)
        end_begin(w, 0);
}

static void close_now(struct ws_stream *w);

static void
on_out(struct spk_op *op, int result)
{
    struct ws_stream *w = SPK_OWNER(op, struct ws_stream, out_op);
    int rc = result;

    if (result > 0 && w->out != NULL)
        out_written(w, (size_t)result);
    if (w->closing) {
        close_now(w);
        return;
    }
    if (result >= 0 || result == SPOKE_EAGAIN || result == SPOKE_ENOBUFS)
        rc = write_out(w);
    else if (result != SPOKE_ECANCELED)
        out_written(w, w->out_size - w->out_done); /* nobody will have it */
    if (w->begin_op != NULL)
        begin_wrote(w, rc);
    else if (rc == 0 && w->writable_op != NULL && !w->writable_op->cancelled &&
             spk_stream_unsent(w->st) > 0)
        w->st->ops->writable(w->st, &w->out_op);
    else if (rc == SPOKE_EAGAIN && w->out != NULL &&
             (w->writable_op == NULL || !w->writable_op->cancelled))
        start_writing(w);
    else
        end_writable(w, rc == SPOKE_EAGAIN ? 0 : rc);
}

/* ---- the rest ---- */

static int
ws_shutdown(struct spk_stream *st, bool reading)
{
    struct ws_stream *w = ws_of(st);

    if (reading || w->finished)
        return 0;
    w->finished = true;
    w->end_due = w->terms.half_close; /* else the peer learns of it when all is closed */
    write_soon(w);
    return 0;
}

static void
ws_reset(struct spk_stream *st)
{
    struct ws_stream *w = ws_of(st);

    w->is_reset = true;
    w->st->ops->reset(w->st);
}

/* What was taken is written still, and then that this is the end. */
static void
part(struct ws_stream *w)
{
    struct spk_chunk *chunk;
    size_t size;

    if (!w->closed) {
        w->close_due = true;
        w->code = WS_NORMAL;
    }
    put_due(w);
    chunk = w->out;
    size = w->out_size - w->out_done;
    if (chunk != NULL && w->out_done > 0)
        memmove(chunk->data, chunk->data + w->out_done, size);
    w->out = NULL;
    spk_stream_part(w->st, chunk, size, w->patience_ns);
    w->st = NULL;
}

static void
free_stream(struct ws_stream *w)
{
    spk_task_cancel(&w->recv_task);
    ws_http_free(w->http);
    ws_terms_fini(&w->terms);
    forget_left(w);
    if (w->out != NULL)
        spk_chunk_unref(w->out);
    if (w->st != NULL)
        w->st->ops->close(w->st);
    spk_free(w);
}

static void
close_now(struct ws_stream *w)
{
    if (w->open && !w->is_reset && w->st != NULL)
        part(w);
    free_stream(w);
}

/* A write of ours may be under way still. */
static void
ws_close(struct spk_stream *st)
{
    struct ws_stream *w = ws_of(st);

    w->closing = true;
    if (spk_op_busy(&w->out_op))
        spk_op_cancel(w->stream.e, &w->out_op);
    else
        close_now(w);
}

static int
ws_address(struct spk_stream *st, bool local, char *text, size_t size)
{
    struct ws_stream *w = ws_of(st);

    return w->st != NULL ? w->st->ops->address(w->st, local, text, size) : SPOKE_ECLOSED;
}

static int
ws_credentials(struct spk_stream *st, struct spk_credentials *out)
{
    struct ws_stream *w = ws_of(st);

    return w->st != NULL ? w->st->ops->credentials(w->st, out) : SPOKE_ECLOSED;
}

static size_t
ws_unsent(const struct spk_stream *st)
{
    const struct ws_stream *w = SPK_OWNER((void *)(uintptr_t)st, struct ws_stream, stream);

    return w->out_size - w->out_done + (w->st != NULL ? spk_stream_unsent(w->st) : 0);
}

static int
ws_property(struct spk_stream *st, const char *name, enum spoke_type type, void *value,
            size_t *size)
{
    struct ws_stream *w = ws_of(st);
    const char *text = ws_terms_text(&w->terms, name);

    if (text != NULL)
        return type != SPOKE_STRING ? SPOKE_ETYPE : spk_give_text(value, size, text);
    return w->st == NULL || w->st->ops->property == NULL
               ? SPOKE_EOPTION
               : w->st->ops->property(w->st, name, type, value, size);
}

static const struct spk_stream_ops ws_ops = {
    .begin = ws_begin,
    .send_now = ws_send_now,
    .recv_now = ws_recv_now,
    .recv = ws_recv,
    .writable = ws_writable,
    .shutdown = ws_shutdown,
    .reset = ws_reset,
    .close = ws_close,
    .address = ws_address,
    .credentials = ws_credentials,
    .unsent = ws_unsent,
    .property = ws_property,
};

struct spk_stream *
ws_stream_take(struct spk_stream *stream, struct ws_terms *terms, struct spk_chunk **left,
               uint8_t **data, size_t *size)
{
    struct ws_stream *w = ws_of(stream);
    struct spk_stream *st = w->st;

    *terms = w->terms;
    *left = w->left;
    *data = w->left_data;
    *size = w->left_size;
    w->terms = (struct ws_terms){0};
    w->left = NULL;
    w->st = NULL;
    free_stream(w);
    return st;
}

/* The name of what the listener's end speaks. */
static void
put_protocol(const struct spk_endpoint *ep, char *text, size_t room)
{
    if (ep->owner != NULL)
        snprintf(text, room, "%s", SUBPROTOCOL);
    else
        snprintf(text, room, "%s.sp.nanomsg.org",
                 ep->is_dialer ? spk_endpoint_peer_name(ep) : spk_endpoint_protocol_name(ep));
}

int
ws_stream_new(struct spk_stream **out, struct spk_endpoint *ep, struct spk_stream *st)
{
    struct ws_stream *w = spk_zalloc(sizeof *w);

    if (w == NULL) {
        st->ops->close(st);
        return SPOKE_ENOMEM;
    }
    w->stream.ops = &ws_ops;
    w->stream.e = st->e;
    w->st = st;
    w->ep = ep;
    w->patience_ns = ep->options.handshake_ns;
    w->terms.masks = ep->is_dialer;
    w->in.masked = !ep->is_dialer;
    w->in.takes_text = ep->options.ws_recv_text;
    put_protocol(ep, w->protocol, sizeof w->protocol);
    spk_op_init(&w->in_op, on_in);
    spk_op_init(&w->out_op, on_out);
    spk_task_init(&w->recv_task, on_recv_task);
    *out = &w->stream;
    return 0;
}
