/* SPDX-License-Identifier: MIT */
/* The ring of a channel as what a wire sends from, or delivers to.  The wire is the taker of one
 * side; `base` is how many messages that side had seen before. */
#include <string.h>

#include "protocols/channel/session.h"

static struct spk_channel *
channel_of(const struct spk_wire *w)
{
    return w->owner;
}

static enum spk_channel_side
side_of(const struct spk_wire *w)
{
    return w->sends ? SPK_RECEIVES : SPK_SENDS;
}

static uint64_t
since(uint64_t base, uint64_t count)
{
    return count > base ? count - base : 0;
}

/* What the peer is told of an end that came from elsewhere. */
static uint64_t
code_of(const struct spk_channel *ch, int reason)
{
    switch (reason) {
    case SPOKE_EOF: return SPOKE_MUX_NONE;
    case SPOKE_EREJECTED:
    case SPOKE_EABORTED: return ch->abort_code;
    case SPOKE_EPEERCLOSED: return SPOKE_MUX_CANCELED;
    case SPOKE_EDECODE: return SPOKE_MUX_DECODE;
    case SPOKE_EMSGSIZE: return SPOKE_MUX_TOO_LARGE;
    case SPOKE_ELIMIT: return SPOKE_MUX_LIMIT;
    case SPOKE_ENOTSUP: return SPOKE_MUX_UNSUPPORTED;
    case SPOKE_ENOMEM: return SPOKE_MUX_INTERNAL;
    default: return SPOKE_MUX_PEER_GONE;
    }
}

static void
say_why(const struct spk_channel *ch, int reason, uint64_t *code, const char **text)
{
    *code = code_of(ch, reason);
    *text = reason == SPOKE_EABORTED ? ch->text : "";
}

/* ---- sending ---- */

static int
admit_no_fds(const struct spk_channel *ch, const spoke_msg *m)
{
    return spk_carry_check(ch, m, SPK_FDS_NONE);
}

static int
admit_proxies(const struct spk_channel *ch, const spoke_msg *m)
{
    return spk_carry_check(ch, m, SPK_FDS_PROXIES);
}

static int
admit_fds(const struct spk_channel *ch, const spoke_msg *m)
{
    return spk_carry_check(ch, m, SPK_FDS_PASS);
}

/* Before the peer is known nothing leaves, so nothing is asked. */
static void
set_admit(struct spk_channel *ch, const struct spk_session *ss)
{
    int (*const ways[])(const struct spk_channel *ch,
                        const spoke_msg *m) = {[SPK_FDS_NONE] = admit_no_fds,
                                               [SPK_FDS_PROXIES] = admit_proxies,
                                               [SPK_FDS_PASS] = admit_fds};
    int (*fn)(const struct spk_channel *ch, const spoke_msg *m) = ways[spk_carry_way(ss)];

    if (!ss->heard || ch->admit == fn)
        return;
    if (ch->e->shared)
        pthread_mutex_lock(&ch->tx_lock);
    ch->admit = fn;
    if (ch->e->shared)
        pthread_mutex_unlock(&ch->tx_lock);
}

/* As many as the peer allows, and no more on their way here than the channel has room for.  The
 * peer says that it has room again when half of it is free, so until then the rest waits here:
 * whoever counts on `depth` sends that do not wait gets them. */
static void
allow(struct spk_wire *w)
{
    struct spk_channel *ch = channel_of(w);
    uint64_t most = since(w->base, spk_channel_popped(ch)) + ch->depth;
    uint64_t depth = w->first_limit < ch->depth ? w->first_limit : ch->depth;
    uint64_t allowed = w->limit;

    if (allowed > w->first_limit && depth > 1)
        allowed += depth / 2 - 1;
    spk_channel_allow(ch, w->base + (allowed < most ? allowed : most));
}

static spoke_msg *
next(struct spk_wire *w, uint8_t *flags)
{
    struct spk_channel *ch = channel_of(w);
    spoke_msg *m;
    bool tell;

    (void)flags;
    while ((m = spk_channel_pop(ch, NULL, &tell)) == NULL) {
        if (spk_channel_await_message(ch) != 1)
            return NULL;
    }
    if (tell)
        spk_channel_look(ch);
    allow(w);
    return m;
}

static int
end(struct spk_wire *w, uint64_t *code, const char **text)
{
    struct spk_channel *ch = channel_of(w);
    int rc = spk_channel_await_message(ch);

    spk_wire_sync(w, since(w->base, ch->sync_to));
    if (rc == 1 || rc == 0)
        return 0;
    say_why(ch, rc, code, text);
    return rc;
}

static void
changed(struct spk_wire *w)
{
    struct spk_channel *ch = channel_of(w);

    if (!w->sends)
        return;
    if (w->accepted) {
        ch->form = w->same_layout ? SPOKE_FORM_LAYOUT : SPOKE_FORM_EXACT;
        spk_channel_limit_size(ch, w->max_message);
        set_admit(ch, w->ss);
        allow(w);
    }
    spk_channel_taken(ch, w->base + w->acked);
}

/* ---- receiving ---- */

static void
deliver(struct spk_wire *w, spoke_msg *m)
{
    struct spk_channel *ch = channel_of(w);
    bool tell = false;

    if (spk_channel_forward(ch, m, &tell) != 0)
        spoke_msg_free(m); /* nobody receives any more, which is noticed next */
    if (tell)
        spk_channel_look(ch);
}

uint64_t
spk_end_room(const struct spk_channel *ch)
{
    return atomic_load_explicit(&ch->limit, memory_order_acquire) - spk_channel_pushed(ch);
}

static uint64_t
room(struct spk_wire *w, uint64_t tell)
{
    struct spk_channel *ch = channel_of(w);

    if (!ch->limit_is_takers) {
        uint64_t depth = ch->depth > 0 ? ch->depth : 1;

        if (w->base + tell > depth)
            (void)spk_channel_await_popped(ch, w->base + tell - depth);
    } else {
        spk_channel_await_allowed(ch, w->base + tell);
    }
    return atomic_load_explicit(&ch->limit, memory_order_acquire) - w->base;
}

static uint64_t
popped(struct spk_wire *w, uint64_t tell)
{
    struct spk_channel *ch = channel_of(w);

    if (tell != UINT64_MAX)
        (void)spk_channel_await_popped(ch, w->base + tell);
    return since(w->base, spk_channel_popped(ch));
}

static uint64_t
taken(struct spk_wire *w, uint64_t tell)
{
    struct spk_channel *ch = channel_of(w);

    if (!ch->limit_is_takers) {
        (void)popped(w, tell);
        return since(w->base, spk_channel_received(ch)); /* what was dropped is not taken */
    }
    /* It goes on from here, and is asked for there. */
    if (w->ack_at > since(w->base, ch->sync_to) && ch->ends[SPK_RECEIVES].taker != NULL) {
        ch->sync_to = w->base + w->ack_at;
        spk_task_queue(ch->e, ch->ends[SPK_RECEIVES].taker);
    }
    return since(w->base, ch->taken);
}

static int
gone(struct spk_wire *w, uint64_t *code, const char **text)
{
    const struct spk_channel *ch = channel_of(w);

    if (ch->rx_end != 0)
        say_why(ch, ch->rx_end, code, text);
    return ch->rx_end;
}

/* ---- the end ---- */

static void
ended(struct spk_wire *w, int reason, uint64_t code, const char *text)
{
    struct spk_channel *ch = channel_of(w);

    if (w->sends)
        spk_channel_close(ch, SPK_RECEIVES, reason, true, code, text);
    else
        spk_channel_stop(ch, reason, code, text);
}

static void
released(struct spk_wire *w)
{
    struct spk_channel *ch = channel_of(w);

    spk_channel_close(ch, side_of(w), SPOKE_ECONNRESET, false, 0, NULL);
    ch->ends[side_of(w)].callers--;
    spk_channel_free_if_done(ch);
}

static const struct spk_wire_ops of_channels = {.next = next,
                                                .end = end,
                                                .changed = changed,
                                                .deliver = deliver,
                                                .room = room,
                                                .popped = popped,
                                                .taken = taken,
                                                .gone = gone,
                                                .ended = ended,
                                                .released = released};

/* ---- beginning ---- */

int
spk_end_open(struct spk_wire **out, struct spk_session *ss, struct spk_conn *conn, uint64_t id,
             struct spk_channel *ch, const struct spk_wire_config *config)
{
    struct spk_wire_config own = *config;
    int rc;

    own.ops = &of_channels;
    own.owner = ch;
    own.depth = ch->depth;
    own.max_message = ch->max_message;
    own.type = spk_channel_type(ch);
    if (!own.is_ours)
        own.granted = spk_end_room(ch);
    if ((rc = spk_wire_new(out, ss, conn, id, &own)) != 0)
        return rc;
    ch->ends[side_of(*out)].callers++; /* until it is released */
    ch->busy_poll_ns = conn->busy_poll_ns;
    spk_channel_take(ch, side_of(*out), &(*out)->task);
    if (!own.sends) {
        (*out)->base = spk_channel_pushed(ch);
        return 0;
    }
    (*out)->base = spk_channel_popped(ch);
    ch->form = (*out)->same_layout ? SPOKE_FORM_LAYOUT : SPOKE_FORM_EXACT;
    spk_channel_limit_size(ch, (*out)->max_message);
    set_admit(ch, ss);
    allow(*out);
    return 0;
}

void
spk_end_hold(struct spk_channel *ch)
{
    ch->limit_is_takers = true;
    atomic_store_explicit(&ch->limit, 0, memory_order_relaxed);
}

struct spk_meta
spk_end_meta(const struct spk_channel *ch, enum spk_role role, bool sends, uint64_t parent)
{
    struct spk_meta meta = {.role = role,
                            .parent = parent,
                            .direction = sends ? SPK_META_OPENER_SENDS : SPK_META_OPENER_RECEIVES,
                            .has_type = ch->has_fingerprint,
                            .has_layout = ch->has_layout,
                            .limit = spk_end_room(ch),
                            .max_message = ch->max_message};

    memcpy(meta.type, ch->fingerprint, sizeof meta.type);
    memcpy(meta.layout, ch->layout, sizeof meta.layout);
    return meta;
}
