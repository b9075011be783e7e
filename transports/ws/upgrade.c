/* SPDX-License-Identifier: MIT */
/* The handshake of HTTP: both ends begin, read a head and stop the same way.  A dialer's request,
 * and what it makes of the response; answer.c has the listener's side. */
#include <stdio.h>
#include <string.h>

#include "transports/ws/stream.h"

/* ---- both ends ---- */

void
ws_end_begin(struct ws_stream *w, int result)
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

void
ws_stop_begin(struct ws_stream *w, int reason)
{
    if (w->begin_failed == 0)
        w->begin_failed = reason;
    spk_op_cancel(w->stream.e, &w->in_op);
    spk_op_cancel(w->stream.e, &w->out_op);
    if (is_idle(w))
        ws_end_begin(w, w->begin_failed);
}

/* Something is going on as long as it has not ended. */
static void
cancel_begin(struct spk_op *op)
{
    ws_stop_begin(op->u.other.by, SPOKE_ECANCELED);
}

static void
read_head(struct ws_stream *w)
{
    w->st->ops->recv(w->st, &w->in_op, NULL, 0);
}

bool
ws_put_text(struct ws_stream *w, const char *text, size_t size)
{
    uint8_t *room = spk_unsent_room(&w->out, size);

    if (room == NULL)
        return false;
    memcpy(room, text, size);
    w->out.to += size;
    return true;
}

static const char *
path_of(const struct spk_endpoint *ep)
{
    return ep->url.path != NULL ? ep->url.path : "/";
}

bool
ws_keep_head(struct ws_stream *w, size_t used, size_t size)
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

/* ---- dialers ---- */

/* A dialer's host, as others write it. */
static void
put_host(const struct spk_endpoint *d, char *text, size_t room)
{
    bool brackets = strchr(d->url.host, ':') != NULL;
    int size = (int)strcspn(d->url.host, "%");

    snprintf(text, room, "%s%.*s%s:%u", brackets ? "[" : "", size, d->url.host, brackets ? "]" : "",
             d->url.port);
}

static bool
ask(struct ws_stream *w)
{
    char text[SPK_URL_MAX + 1024], host[300];
    const char *path = path_of(w->ep);
    int size;

    ws_handshake_key(w->key);
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
    return size > 0 && (size_t)size < sizeof text && ws_put_text(w, text, (size_t)size);
}

static void
on_response(struct ws_stream *w, size_t used, size_t size)
{
    bool wrong_protocol;
    const char *why = ws_check_response(w->http, w->key, w->protocol, w->ep->owner != NULL,
                                        &w->terms.half_close, &wrong_protocol);
    int rc;

    if (why != NULL) {
        char text[128];

        snprintf(text, sizeof text, "no WebSocket there: %s (status %u)", why,
                 ws_http_status(w->http));
        rc = wrong_protocol ? SPOKE_EPEER : SPOKE_EHANDSHAKE;
        spk_endpoint_explain(w->ep, rc, text);
        ws_stop_begin(w, rc);
    } else if (w->out.chunk != NULL) { /* it answers before it can know */
        ws_stop_begin(w, SPOKE_EHANDSHAKE);
    } else if (!ws_keep_head(w, used, size)) {
        ws_stop_begin(w, SPOKE_ENOMEM);
    } else {
        ws_end_begin(w, 0);
    }
}

/* ---- heads ---- */

static void
start_http(struct ws_stream *w)
{
    int rc = SPOKE_ENOMEM;

    w->began = true;
    if ((w->http = ws_http_new(!w->ep->is_dialer)) == NULL || (w->ep->is_dialer && !ask(w)) ||
        ((rc = ws_write_out(w)) != 0 && rc != SPOKE_EAGAIN)) {
        ws_stop_begin(w, rc);
        return;
    }
    if (rc == SPOKE_EAGAIN)
        ws_start_writing(w);
    read_head(w);
}

/* What came is no head. */
static void
on_garbage(struct ws_stream *w, unsigned status)
{
    if (w->ep->is_dialer)
        ws_stop_begin(w, SPOKE_EHANDSHAKE);
    else
        ws_refuse(w, status, SPOKE_EHANDSHAKE);
}

static void
on_head(struct ws_stream *w, size_t size)
{
    size_t used;

    switch (ws_http_feed(w->http, w->in_op.data, size, &used)) {
    case WS_HTTP_MORE: read_head(w); break;
    case WS_HTTP_BAD: on_garbage(w, 400); break;
    case WS_HTTP_TOO_BIG: on_garbage(w, 431); break;
    case WS_HTTP_MEMORY: ws_stop_begin(w, SPOKE_ENOMEM); break;
    case WS_HTTP_WHOLE:
        if (w->ep->is_dialer)
            on_response(w, used, size);
        else
            ws_on_request(w, used, size);
    }
}

void
ws_begin_read(struct ws_stream *w, int result)
{
    if (w->begin_failed != 0) {
        ws_stop_begin(w, 0);
    } else if (!w->began) {
        if (result == 0)
            start_http(w);
        else
            ws_stop_begin(w, result);
    } else if (result == SPOKE_EAGAIN || result == SPOKE_ENOBUFS) {
        read_head(w);
    } else if (result <= 0) {
        ws_stop_begin(w, result == 0 ? SPOKE_ECONNRESET : result);
    } else {
        on_head(w, (size_t)result);
    }
}

void
ws_begin_wrote(struct ws_stream *w, int rc)
{
    if (w->begin_failed != 0 || (rc != 0 && rc != SPOKE_EAGAIN))
        ws_stop_begin(w, rc);
    else if (rc == SPOKE_EAGAIN)
        ws_start_writing(w);
    else if (!w->ep->is_dialer)
        ws_end_begin(w, 0);
}

void
ws_begin(struct spk_stream *st, struct spk_op *op)
{
    struct ws_stream *w = ws_of(st);

    spk_op_by_other(op, w, cancel_begin);
    w->begin_op = op;
    if (w->http != NULL) {
        w->began = true;
        ws_on_request(w, w->head_used, w->head_size);
    } else if (w->st->ops->begin != NULL)
        w->st->ops->begin(w->st, &w->in_op);
    else
        start_http(w);
}
