/* SPDX-License-Identifier: MIT */
#include "protocols/channel/frame.h"

#include <string.h>

#include "runtime/memory/message.h"

#define ACCEPT_SIZE 12u
#define NUMBER_SIZE 8u
#define CODE_SIZE   4u

/* ---- writing ---- */

static void
put16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static uint16_t
get16(const uint8_t *from)
{
    return (uint16_t)(from[0] << 8 | from[1]);
}

/* Of what is no message.  Gives its size. */
static uint32_t
put_payload(uint8_t *to, const struct spk_frame *f)
{
    size_t size;

    switch (f->kind) {
    case SPK_FRAME_ACCEPT:
        spk_put64(to, f->number);
        spk_put32(to + 8, f->max_message);
        if (!f->has_layout)
            return ACCEPT_SIZE;
        memcpy(to + ACCEPT_SIZE, f->layout, sizeof f->layout);
        return ACCEPT_SIZE + (uint32_t)sizeof f->layout;
    case SPK_FRAME_REFUSE:
    case SPK_FRAME_ERROR:
        size = strlen(f->text);
        spk_put32(to, f->code);
        memcpy(to + CODE_SIZE, f->text, size);
        return CODE_SIZE + (uint32_t)size;
    default: spk_put64(to, f->number); return NUMBER_SIZE;
    }
}

size_t
spk_frame_encode(uint8_t *to, const struct spk_frame *f)
{
    bool is_message = f->kind == SPK_FRAME_MESSAGE;
    uint32_t size = is_message ? f->size : put_payload(to + SPK_FRAME_HEAD, f);

    to[0] = f->kind;
    to[1] = f->flags;
    put16(to + 2, f->attachments);
    spk_put32(to + 4, size);
    return SPK_FRAME_HEAD + (is_message ? 0 : size);
}

void
spk_frame_encode_attachment(uint8_t to[SPK_FRAME_ATTACHMENT], const struct spk_frame_attachment *a)
{
    to[0] = a->kind;
    to[1] = a->direction;
    put16(to + 2, a->index);
    spk_put64(to + 4, a->id);
}

/* ---- reading ---- */

void
spk_frame_decoder_init(struct spk_frame_decoder *d, uint32_t max_message)
{
    *d = (struct spk_frame_decoder){.max_message = max_message, .need = SPK_FRAME_HEAD};
}

bool
spk_frame_between(const struct spk_frame_decoder *d)
{
    return !d->in_message && d->have == 0;
}

static int
wrong(struct spk_frame_decoder *d, uint32_t code, const char *why)
{
    d->why = why;
    d->code = code;
    d->ended = true;
    return SPOKE_EPROTO;
}

/* Into `bytes`, until there are `need`.  True: there are. */
static bool
gather(struct spk_frame_decoder *d, const uint8_t **at, const uint8_t *end)
{
    size_t n = (size_t)(end - *at);

    if (n > d->need - d->have)
        n = d->need - d->have;
    memcpy(d->bytes + d->have, *at, n);
    d->have += n;
    *at += n;
    return d->have == d->need;
}

static void
next_frame(struct spk_frame_decoder *d)
{
    d->have = 0;
    d->need = SPK_FRAME_HEAD;
    d->in_message = false;
}

static bool
flags_are_known(const struct spk_frame *f)
{
    unsigned known = 0;

    if (f->kind == SPK_FRAME_MESSAGE)
        known = SPK_FRAME_ACK_SOON | SPK_FRAME_MAYBE_REPEATED | SPK_FRAME_LAYOUT;
    else if (f->kind == SPK_FRAME_CLOSE)
        known = SPK_FRAME_HANGUP;
    return (f->flags & ~known) == 0;
}

static bool
size_is_right(const struct spk_frame *f)
{
    switch (f->kind) {
    case SPK_FRAME_ACCEPT:
        return f->size == ACCEPT_SIZE || f->size == ACCEPT_SIZE + SPOKE_FINGERPRINT;
    case SPK_FRAME_REFUSE:
    case SPK_FRAME_ERROR: return f->size >= CODE_SIZE && f->size <= CODE_SIZE + SPK_FRAME_TEXT;
    default: return f->size == NUMBER_SIZE;
    }
}

static int
on_head(struct spk_frame_decoder *d)
{
    struct spk_frame *f = &d->frame;

    *f = (struct spk_frame){.kind = d->bytes[0],
                            .flags = d->bytes[1],
                            .attachments = get16(d->bytes + 2),
                            .size = spk_get32(d->bytes + 4)};
    if (f->kind == 0 || f->kind >= SPK_FRAME_KINDS)
        return wrong(d, SPOKE_MUX_PROTOCOL, "a frame of an unknown kind");
    if (!flags_are_known(f))
        return wrong(d, SPOKE_MUX_PROTOCOL, "a frame with an unknown flag");
    if (f->kind != SPK_FRAME_MESSAGE) {
        if (f->attachments != 0)
            return wrong(d, SPOKE_MUX_PROTOCOL, "attachments of what is no message");
        if (!size_is_right(f))
            return wrong(d, SPOKE_MUX_PROTOCOL, "a frame of a wrong length");
        d->need += f->size;
        return SPK_FRAME_NOTHING;
    }
    if (f->attachments > SPOKE_ATTACHMENTS_PER_MESSAGE)
        return wrong(d, SPOKE_MUX_LIMIT, "a message with too many attachments");
    if (f->size > d->max_message)
        return wrong(d, SPOKE_MUX_TOO_LARGE, "a message that is too large");
    d->in_message = true;
    d->left = f->size;
    d->attachments_left = f->attachments;
    d->have = 0;
    d->need = f->attachments > 0 ? SPK_FRAME_ATTACHMENT : 0;
    return SPK_FRAME_OF_MESSAGE;
}

static int
on_frame(struct spk_frame_decoder *d)
{
    const uint8_t *payload = d->bytes + SPK_FRAME_HEAD;
    struct spk_frame *f = &d->frame;

    switch (f->kind) {
    case SPK_FRAME_ACCEPT:
        f->number = spk_get64(payload);
        f->max_message = spk_get32(payload + 8);
        f->has_layout = f->size > ACCEPT_SIZE;
        if (f->has_layout)
            memcpy(f->layout, payload + ACCEPT_SIZE, sizeof f->layout);
        break;
    case SPK_FRAME_REFUSE:
    case SPK_FRAME_ERROR:
        f->code = spk_get32(payload);
        memcpy(f->text, payload + CODE_SIZE, f->size - CODE_SIZE);
        break;
    default: f->number = spk_get64(payload); break;
    }
    next_frame(d);
    return SPK_FRAME_WHOLE;
}

static int
on_attachment(struct spk_frame_decoder *d)
{
    struct spk_frame_attachment *a = &d->attachment;
    bool is_fd;

    *a = (struct spk_frame_attachment){.kind = d->bytes[0],
                                       .direction = d->bytes[1],
                                       .index = get16(d->bytes + 2),
                                       .id = spk_get64(d->bytes + 4)};
    is_fd = a->kind == SPOKE_ATTACHED_FD;
    if (a->kind < SPOKE_ATTACHED_CHANNEL || a->kind > SPOKE_ATTACHED_FD_PROXY)
        return wrong(d, SPOKE_MUX_PROTOCOL, "an attachment of an unknown kind");
    if (a->direction < SPOKE_ATTACHED_READS || a->direction > SPOKE_ATTACHED_BOTH ||
        (a->kind == SPOKE_ATTACHED_CHANNEL && a->direction == SPOKE_ATTACHED_BOTH))
        return wrong(d, SPOKE_MUX_PROTOCOL, "an attachment without a direction");
    if (is_fd ? a->id != 0 : a->index != 0)
        return wrong(d, SPOKE_MUX_PROTOCOL, "an attachment that is two");
    d->have = 0;
    if (--d->attachments_left == 0)
        d->need = 0;
    return SPK_FRAME_AN_ATTACHMENT;
}

static int
on_payload(struct spk_frame_decoder *d, const uint8_t **at, const uint8_t *end)
{
    size_t n = (size_t)(end - *at);

    if (n > d->left)
        n = d->left;
    if (n == 0 && d->left > 0)
        return SPK_FRAME_NOTHING;
    d->data = *at;
    d->piece = n;
    *at += n;
    d->left -= (uint32_t)n;
    d->last = d->left == 0;
    if (d->last)
        next_frame(d);
    return SPK_FRAME_PIECE;
}

int
spk_frame_decode(struct spk_frame_decoder *d, const uint8_t **at, const uint8_t *end)
{
    int event;

    if (d->ended)
        return SPOKE_EPROTO;
    if (d->in_message && d->attachments_left == 0)
        return on_payload(d, at, end);
    if (!gather(d, at, end))
        return SPK_FRAME_NOTHING;
    if (d->in_message)
        return on_attachment(d);
    if (d->have > SPK_FRAME_HEAD)
        return on_frame(d);
    event = on_head(d);
    return event != SPK_FRAME_NOTHING || !gather(d, at, end) ? event : on_frame(d);
}
