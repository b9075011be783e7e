/* SPDX-License-Identifier: MIT */
/* What each frame of the peer does.  What it may not say costs this stream, and no other. */
#include <string.h>

#include "protocols/channel/session.h"

static int
wrong(struct spk_wire *w, const char *text)
{
    return spk_wire_violation(w, SPOKE_MUX_PROTOCOL, text);
}

/* ---- memory of what has come ---- */

void
spk_wire_release(struct spk_wire *w, uint64_t popped)
{
    size_t size = 0;

    for (; w->released < popped; w->released++)
        size += w->sizes[w->released & w->mask];
    if (size > 0)
        spk_session_give_back(w->ss, size);
}

/* Of what has not become a message. */
static void
drop_message(struct spk_wire *w)
{
    if (w->message != NULL)
        spoke_msg_free(w->message);
    w->message = NULL;
    spk_carry_drop(w);
    if (w->reserved)
        spk_session_give_back(w->ss, w->in.frame.size);
    w->reserved = false;
}

void
spk_wire_drop_input(struct spk_wire *w)
{
    drop_message(w);
    if (w->piece != NULL)
        spoke_msg_free(w->piece);
    w->piece = NULL;
    if (!w->sends)
        spk_wire_release(w, w->received);
}

/* ---- messages ---- */

static int
on_message(struct spk_wire *w)
{
    const struct spk_frame *f = &w->in.frame;
    int rc;

    if (w->sends)
        return wrong(w, "a message from who receives");
    if (w->is_ours && !w->accepted)
        return wrong(w, "a message before the channel was accepted");
    if (w->peer_closed)
        return wrong(w, "a message after the end");
    if (w->received >= w->granted)
        return wrong(w, "more messages than were allowed");
    if ((rc = spk_carry_begin(w)) != 0)
        return rc;
    if (f->attachments > 0 && w->carried == NULL &&
        (w->carried = spk_zalloc(SPOKE_ATTACHMENTS_PER_MESSAGE * sizeof *w->carried)) == NULL)
        return SPOKE_ENOMEM;
    return 0;
}

static int
message_complete(struct spk_wire *w)
{
    const struct spk_frame *f = &w->in.frame;
    spoke_msg *m = w->message;
    int rc;

    if (f->attachments > 0 && (rc = spk_carry_in(w)) != 0)
        return rc;
    m->as_layout = (f->flags & SPK_FRAME_LAYOUT) != 0;
    m->repeated = (f->flags & SPK_FRAME_MAYBE_REPEATED) != 0;
    w->message = NULL;
    w->reserved = false;
    w->sizes[w->received & w->mask] = f->size;
    w->received++;
    w->ss->messages_in++;
    if ((f->flags & SPK_FRAME_ACK_SOON) != 0)
        w->ack_at = w->received;
    w->ops->deliver(w, m);
    return 0;
}

/* A slice keeps all of its memory, so it has to be a good part of it. */
static int
slice_or_copy(struct spk_wire *w, const struct spk_frame_decoder *d)
{
    struct spk_chunk *chunk = w->piece->chunk;
    int rc;

    if (chunk == NULL || d->piece <= SPK_BODY_INLINE || d->piece < chunk->size / 4)
        return spoke_msg_from(&w->message, d->data, d->piece);
    spk_chunk_ref(chunk);
    if ((rc = spk_msg_slice(&w->message, chunk, (uint8_t *)(uintptr_t)d->data, d->piece)) != 0)
        spk_chunk_unref(chunk);
    return rc;
}

static int
on_piece(struct spk_wire *w)
{
    const struct spk_frame_decoder *d = &w->in;
    spoke_msg *m = w->message;
    int rc;

    if (m == NULL && d->last) {
        rc = slice_or_copy(w, d);
    } else if (m == NULL) {
        if ((rc = spoke_msg_new(&w->message, d->frame.size)) == 0) {
            memcpy(w->message->body, d->data, d->piece);
            w->message->size = d->piece; /* grows as it comes */
        }
    } else {
        memcpy(m->body + m->size, d->data, d->piece);
        m->size += d->piece;
        rc = 0;
    }
    return rc == 0 && d->last ? message_complete(w) : rc;
}

/* ---- other frames ---- */

static int
on_accept(struct spk_wire *w)
{
    const struct spk_frame *f = &w->in.frame;

    if (!w->is_ours)
        return wrong(w, "it accepted a channel of its own");
    if (w->accepted)
        return wrong(w, "it accepted a channel twice");
    w->accepted = true;
    if (w->sends) {
        w->first_limit = w->limit = f->number;
        w->max_message = f->max_message;
    }
    w->same_layout = w->has_layout && f->has_layout &&
                     memcmp(f->layout, w->layout, sizeof w->layout) == 0;
    w->ops->changed(w);
    spk_wire_opened(w, 0, SPOKE_MUX_NONE);
    return 0;
}

static int
on_refuse(struct spk_wire *w)
{
    const struct spk_frame *f = &w->in.frame;

    if (!w->is_ours || w->accepted)
        return wrong(w, "it refused a channel that was accepted");
    spk_wire_end(w, spk_wire_reason(w, f->code), f->code, f->text);
    return 0;
}

static int
check_answer(struct spk_wire *w)
{
    return w->sends && w->accepted ? 0 : wrong(w, "an answer to nothing that was sent");
}

static int
on_credit(struct spk_wire *w)
{
    int rc = check_answer(w);

    if (rc == 0 && w->in.frame.number > w->limit) {
        w->limit = w->in.frame.number;
        w->ops->changed(w);
    }
    return rc;
}

static int
on_ack(struct spk_wire *w)
{
    uint64_t count = w->in.frame.number;
    int rc = check_answer(w);

    if (rc != 0)
        return rc;
    if (count > w->sent)
        return wrong(w, "it took more messages than were sent");
    if (count < w->acked)
        return wrong(w, "it took fewer messages than before");
    w->acked = count;
    w->ops->changed(w);
    return 0;
}

static int
check_sender(struct spk_wire *w)
{
    if (w->sends || !w->accepted)
        return wrong(w, "an end of what it does not send");
    return w->peer_closed ? wrong(w, "a second end") : 0;
}

static int
on_close(struct spk_wire *w)
{
    const struct spk_frame *f = &w->in.frame;
    int rc = check_sender(w);

    if (rc != 0)
        return rc;
    if (f->number != w->received)
        return wrong(w, "an end after another number of messages");
    w->peer_closed = true;
    w->hangup = (f->flags & SPK_FRAME_HANGUP) != 0;
    spk_wire_tell_end(w, SPOKE_EOF, w->hangup ? SPOKE_MUX_HANGUP : SPOKE_MUX_NONE, "");
    return 0;
}

static int
on_sync(struct spk_wire *w)
{
    int rc = check_sender(w);

    if (rc != 0)
        return rc;
    if (w->in.frame.number > w->received)
        return wrong(w, "it asks for more messages than it has sent");
    if (w->in.frame.number > w->ack_at)
        w->ack_at = w->in.frame.number;
    return 0;
}

static int
on_error(struct spk_wire *w)
{
    const struct spk_frame *f = &w->in.frame;

    spk_wire_end(w, spk_wire_reason(w, f->code), f->code, f->text);
    return 0;
}

static int
on_frame(struct spk_wire *w)
{
    if (w->came != NULL)
        return wrong(w, "descriptors with what is no message");
    switch (w->in.frame.kind) {
    case SPK_FRAME_ACCEPT: return on_accept(w);
    case SPK_FRAME_REFUSE: return on_refuse(w);
    case SPK_FRAME_CREDIT: return on_credit(w);
    case SPK_FRAME_ACK: return on_ack(w);
    case SPK_FRAME_CLOSE: return on_close(w);
    case SPK_FRAME_SYNC: return on_sync(w);
    default: return on_error(w);
    }
}

/* ---- reading ---- */

static int
on_event(struct spk_wire *w, int event)
{
    switch (event) {
    case SPK_FRAME_OF_MESSAGE: return on_message(w);
    case SPK_FRAME_AN_ATTACHMENT: return spk_carry_claim(w, &w->in.attachment);
    case SPK_FRAME_PIECE: return on_piece(w);
    default: return on_frame(w);
    }
}

/* Is there memory for the message that has begun? */
static bool
may_go_on(struct spk_wire *w)
{
    if (!w->in.in_message || w->reserved)
        return true;
    if (!spk_session_reserve(w->ss, w, w->in.frame.size))
        return false;
    return w->reserved = true;
}

/* All of the piece, or as far as memory goes: false. */
static bool
read_piece(struct spk_wire *w)
{
    while (!w->over) {
        const uint8_t *at = w->piece->body + w->piece_at, *end = w->piece->body + w->piece->size;
        int event, rc = 0;

        if (!may_go_on(w))
            return false;
        event = spk_frame_decode(&w->in, &at, end);
        w->piece_at = (size_t)(at - w->piece->body);
        if (event == SPK_FRAME_NOTHING)
            return true;
        if (event < 0)
            (void)spk_wire_violation(w, w->in.code, w->in.why);
        else
            rc = on_event(w, event);
        if (rc != 0 && !w->over)
            spk_wire_break(w, rc, SPOKE_MUX_INTERNAL, "no memory for what arrived");
    }
    return true;
}

/* It was the carrier that was aborted: nobody has said anything of this stream. */
static bool
went_with_session(const struct spk_wire *w)
{
    return w->ss->mux->ended && w->conn->info.abort_code == SPOKE_MUX_NONE;
}

/* The stream has ended, and everything on it has been read. */
static void
has_ended(struct spk_wire *w, int reason)
{
    uint64_t code = w->conn->info.abort_code;

    if (reason == SPOKE_EOF) {
        if (!spk_frame_between(&w->in))
            reason = SPOKE_EPROTO;
        else if (w->sends && w->closing)
            reason = SPOKE_EPEERCLOSED; /* nobody will say more of it */
        else if (!w->sends && w->peer_closed)
            return; /* until its last message is taken */
        else
            reason = SPOKE_ECONNRESET;
        code = 0;
    } else if (reason == SPOKE_EREJECTED || (reason == SPOKE_EABORTED && !went_with_session(w))) {
        reason = spk_wire_reason(w, code);
    } else {
        reason = spk_session_reason(w->ss, reason);
    }
    spk_wire_end(w, reason, code, "");
}

/* Its first byte may have brought descriptors. */
static bool
take_piece(struct spk_wire *w)
{
    struct spk_fds *set;

    if ((w->piece = spk_conn_take_input(w->conn, true)) == NULL)
        return false;
    w->piece_at = 0;
    if ((set = spk_conn_take_fds(w->conn)) != NULL)
        (void)spk_carry_fds_came(w, set);
    return true;
}

void
spk_wire_read(struct spk_wire *w)
{
    if (!w->sends)
        spk_wire_release(w, w->ops->popped(w, UINT64_MAX));
    while (!w->over) {
        if (w->piece == NULL && !take_piece(w))
            break;
        if (!read_piece(w))
            return;
        if (!w->over) {
            spoke_msg_free(w->piece);
            w->piece = NULL;
        }
    }
    if (!w->over && w->conn->read.end != 0)
        has_ended(w, w->conn->read.end);
}
