/* SPDX-License-Identifier: MIT */
/* What is said next: what is short first, then messages, then the end. */
#include <string.h>

#include "protocols/channel/session.h"

#define COPY_BYTES ((size_t)4096) /* bodies up to this are copied behind their head */

/* ---- what has been begun ---- */

static void
body_has_left(struct spk_wire *w)
{
    spoke_msg *m = w->body;

    w->body = NULL;
    w->ss->messages_out++;
    if (w->ops->sent != NULL)
        w->ops->sent(w, m);
    else
        spoke_msg_free(m);
}

static void
advance(struct spk_wire *w, size_t size)
{
    size_t head = w->out_size - w->out_at;

    if (head > size)
        head = size;
    w->out_at += head;
    w->body_at += size - head;
    if (w->out_at < w->out_size)
        return;
    w->out_at = w->out_size = 0;
    if (w->body != NULL && w->body_at == w->body->size)
        body_has_left(w);
}

static int64_t
write_some(struct spk_wire *w)
{
    struct iovec pieces[2] = {{w->out + w->out_at, w->out_size - w->out_at}};
    int count = 1;
    int64_t n;

    if (w->out_at == w->out_size)
        return spk_mux_write_slice(w->conn, w->body, w->body_at);
    if (w->body != NULL && w->body->size <= COPY_BYTES)
        pieces[count++] = (struct iovec){w->body->body, w->body->size};
    if (w->fd_count == 0)
        return spk_conn_try_write(w->conn, pieces, count);
    n = spk_conn_try_write_fds(w->conn, pieces, count, w->fds, w->fd_count);
    if (n > 0)
        spk_carry_passed(w);
    return n;
}

/* True: all of it has left. */
static bool
flush(struct spk_wire *w)
{
    while (w->out_size > 0 || w->body != NULL) {
        int64_t n = write_some(w);

        if (n == SPOKE_ENOMEM || n == SPOKE_EINVAL)
            w->failed = (int)n;
        if (n < 0) /* later, or never: the stream's end says why */
            return false;
        advance(w, (size_t)n);
    }
    return true;
}

static void
say(struct spk_wire *w, const struct spk_frame *f)
{
    w->out_size = spk_frame_encode(w->out, f);
    w->out_at = 0;
}

static void
say_number(struct spk_wire *w, enum spk_frame_kind kind, uint64_t number)
{
    const struct spk_frame f = {.kind = (uint8_t)kind, .number = number};

    say(w, &f);
}

/* ---- what is short ---- */

static void
say_accept(struct spk_wire *w)
{
    struct spk_frame f = {.kind = SPK_FRAME_ACCEPT, .has_layout = w->has_layout};

    if (!w->sends) {
        f.number = w->granted;
        f.max_message = w->in.max_message;
    }
    memcpy(f.layout, w->layout, sizeof f.layout);
    say(w, &f);
    w->due &= ~(unsigned)SPK_WIRE_DUE_ACCEPT;
    w->accepted = true;
    w->ops->changed(w);
}

/* After how many more there is something to say of them. */
static uint64_t
step(const struct spk_wire *w)
{
    return w->depth > 1 ? w->depth / 2 : 1;
}

/* How many the application has taken: said if somebody waits for it, or there are many.  `tell` is
 * when to look again. */
static bool
say_taken(struct spk_wire *w)
{
    uint64_t at = w->ack_told + step(w), taken;

    if (w->ack_at > w->ack_told && w->ack_at < at)
        at = w->ack_at;
    if (w->peer_closed && w->received < at)
        at = w->received;
    if (at <= w->ack_told || (taken = w->ops->taken(w, at)) < at)
        return false;
    w->ack_told = taken;
    say_number(w, SPK_FRAME_ACK, taken);
    return true;
}

static bool
say_room(struct spk_wire *w)
{
    uint64_t at = w->granted + step(w), room;

    if (w->peer_closed || (room = w->ops->room(w, at)) < at)
        return false;
    w->granted = room;
    say_number(w, SPK_FRAME_CREDIT, room);
    return true;
}

/* ---- messages ---- */

static void
say_message(struct spk_wire *w, spoke_msg *m, uint8_t flags)
{
    struct spk_frame f = {.kind = SPK_FRAME_MESSAGE, .flags = flags, .size = (uint32_t)m->size};
    int rc;

    f.attachments = m->carries ? (uint16_t)spk_attachments_of(m)->count : 0;
    f.flags |= m->as_layout ? SPK_FRAME_LAYOUT : 0;
    if (m->size > w->max_message) { /* it was sent before that was known */
        spoke_msg_free(m);
        spk_wire_break(w, SPOKE_EMSGSIZE, SPOKE_MUX_TOO_LARGE, "a message is too large for it");
        return;
    }
    say(w, &f);
    if (f.attachments > 0 && (rc = spk_carry_out(w, m)) != 0) {
        spoke_msg_free(m);
        w->out_size = 0;
        w->fd_count = 0;
        spk_wire_break(w, rc, SPOKE_MUX_UNSUPPORTED, "what a message carries cannot be sent");
        return;
    }
    w->sent++;
    w->body = m;
    w->body_at = 0;
}

static void
say_end(struct spk_wire *w, int end, uint64_t code, const char *text)
{
    struct spk_frame f = {.kind = SPK_FRAME_CLOSE, .number = w->sent};

    if (end != SPOKE_EOF) {
        spk_wire_break(w, end, code, text);
        return;
    }
    if (code == SPOKE_MUX_HANGUP)
        f.flags = SPK_FRAME_HANGUP;
    say(w, &f);
    w->closing = true;
}

static bool
say_next_of_sender(struct spk_wire *w)
{
    const char *text = "";
    uint64_t code = 0;
    uint8_t flags = 0;
    spoke_msg *m;
    int end;

    if (w->closing)
        return false;
    if (w->accepted && w->sent < w->limit && (m = w->ops->next(w, &flags)) != NULL) {
        say_message(w, m, flags);
        return true;
    }
    end = w->ops->end(w, &code, &text);
    if (w->accepted && (w->due & SPK_WIRE_DUE_SYNC) != 0 && w->sent >= w->sync_at) {
        w->due &= ~(unsigned)SPK_WIRE_DUE_SYNC;
        say_number(w, SPK_FRAME_SYNC, w->sync_at);
    } else if (end != 0 && (w->accepted || end != SPOKE_EOF)) {
        say_end(w, end, code, text);
    } else {
        return false;
    }
    return true;
}

/* Before it says that nobody receives any more: what somebody has. */
static bool
say_last_taken(struct spk_wire *w)
{
    uint64_t taken = w->ops->taken(w, w->received);

    if (!w->accepted || taken <= w->ack_told)
        return false;
    w->ack_told = taken;
    say_number(w, SPK_FRAME_ACK, taken);
    return true;
}

static bool
say_next_of_receiver(struct spk_wire *w)
{
    const char *text = "";
    uint64_t code = 0;
    int reason;

    if (w->peer_closed && w->ack_told == w->received) {
        spk_wire_end(w, SPOKE_EOF, 0, "");
        return true;
    }
    reason = w->ops->gone(w, &code, &text);
    if (w->peer_closed && w->ops->taken(w, w->received) == w->received)
        reason = 0; /* it has all */
    if (reason != 0) {
        if (!say_last_taken(w))
            spk_wire_break(w, reason, code, text);
        return true;
    }
    /* Others wait for the memory of what is here. */
    if (!spk_list_empty(&w->ss->stalled))
        spk_wire_release(w, w->ops->popped(w, w->released + 1));
    return w->accepted && (say_room(w) || say_taken(w));
}

/* One frame, or the end.  False: there is nothing to say now. */
static bool
say_next(struct spk_wire *w)
{
    if ((w->due & SPK_WIRE_DUE_ACCEPT) != 0) {
        say_accept(w);
        return true;
    }
    return w->sends ? say_next_of_sender(w) : say_next_of_receiver(w);
}

/* Something is under way that the stream does not take: has it been broken off? */
static void
look_for_break(struct spk_wire *w)
{
    const char *text = "";
    uint64_t code = 0;
    int reason = w->sends ? w->ops->end(w, &code, &text) : w->ops->gone(w, &code, &text);

    if (w->failed != 0) {
        spk_mux_reset_conn(w->conn, SPOKE_MUX_INTERNAL);
        spk_wire_end(w, w->failed, SPOKE_MUX_INTERNAL,
                     w->failed == SPOKE_ENOMEM ? "no memory for what is sent"
                                               : "a descriptor that is none any more");
    } else if (reason != 0 && reason != SPOKE_EOF) {
        spk_wire_break(w, reason, code, text);
    }
}

void
spk_wire_write(struct spk_wire *w)
{
    while (!w->over) {
        if (!flush(w)) {
            look_for_break(w);
            return;
        }
        if (w->closing)
            spk_conn_shut_write(w->conn);
        if (!say_next(w))
            return;
    }
}

bool
spk_wire_say_last(struct spk_wire *w, uint64_t code, const char *text)
{
    struct spk_frame f = {.kind = SPK_FRAME_ERROR, .code = (uint32_t)code};
    size_t size = strlen(text);

    if (!w->conn->open || (w->is_ours && !w->accepted) || !flush(w))
        return false;
    if ((w->due & SPK_WIRE_DUE_ACCEPT) != 0) {
        say_accept(w);
        if (!flush(w))
            return false;
    }
    memcpy(f.text, text, size < SPK_FRAME_TEXT ? size : SPK_FRAME_TEXT);
    say(w, &f);
    return flush(w);
}
