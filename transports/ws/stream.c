/* SPDX-License-Identifier: MIT */
/* A WebSocket connection as a stream: what it is made of, the answers of the connection that
 * carries it, and how it ends.  stream.h has the map. */
#include <stdio.h>
#include <string.h>

#include "transports/ws/stream.h"

#define SUBPROTOCOL "spoke-stream.1"
#define FRAME_MOST  ((size_t)64 * 1024)

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

/* ---- the end ---- */

static int
ws_shutdown(struct spk_stream *st, bool reading)
{
    struct ws_stream *w = ws_of(st);

    if (reading || w->finished)
        return 0;
    w->finished = true;
    w->end_due = w->terms.half_close; /* else the peer learns of it when all is closed */
    ws_write_soon(w);
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
    if (!w->closed) {
        w->close_due = true;
        w->code = WS_NORMAL;
    }
    ws_put_due(w);
    spk_stream_part(w->st, w->out, w->patience_ns);
    w->out.chunk = NULL;
    w->st = NULL;
}

static void
free_stream(struct ws_stream *w)
{
    spk_task_cancel(&w->recv_task);
    ws_http_free(w->http);
    ws_terms_fini(&w->terms);
    ws_forget_left(w);
    spk_unsent_drop(&w->out);
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

/* ---- answers of the connection ---- */

static void
on_in(struct spk_op *op, int result)
{
    struct ws_stream *w = SPK_OWNER(op, struct ws_stream, in_op);

    if (w->begin_op != NULL)
        ws_begin_read(w, result);
    else
        ws_recv_went_on(w, result);
}

static void
on_out(struct spk_op *op, int result)
{
    struct ws_stream *w = SPK_OWNER(op, struct ws_stream, out_op);
    int rc = result;

    if (result > 0 && w->out.chunk != NULL)
        spk_unsent_wrote(&w->out, (size_t)result);
    if (w->closing) {
        close_now(w);
        return;
    }
    if (result >= 0 || result == SPOKE_EAGAIN || result == SPOKE_ENOBUFS)
        rc = ws_write_out(w);
    else if (result != SPOKE_ECANCELED)
        spk_unsent_drop(&w->out); /* nobody will have it */
    if (w->begin_op != NULL)
        ws_begin_wrote(w, rc);
    else
        ws_went_out(w, rc);
}

/* ---- what is known of it ---- */

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

    return spk_unsent_size(&w->out) + (w->st != NULL ? spk_stream_unsent(w->st) : 0);
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

/* ---- making one, and taking it apart ---- */

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
    w->frame_most = ep->options.ws_frame_size < FRAME_MOST ? ep->options.ws_frame_size : FRAME_MOST;
    put_protocol(ep, w->protocol, sizeof w->protocol);
    spk_op_init(&w->in_op, on_in);
    spk_op_init(&w->out_op, on_out);
    spk_task_init(&w->recv_task, ws_on_recv_task);
    *out = &w->stream;
    return 0;
}
