/* SPDX-License-Identifier: MIT */
/* What the peer opens, by role: top-level channels and streams wait to be accepted, what a message
 * will carry waits to be named, and others may be asked of the rest. */
#include <string.h>

#include "protocols/channel/session.h"

/* ---- those that wait ---- */

int
spk_arrival_new(struct spk_arrival **out, struct spk_session *ss, struct spk_mux_stream *st,
                const struct spk_meta *meta)
{
    struct spk_arrival *a = spk_zalloc(sizeof *a);
    int rc;

    (void)ss;
    *out = NULL;
    if (a == NULL)
        return SPOKE_ENOMEM;
    a->id = st->id;
    a->meta = *meta;
    a->text = st->meta;
    if ((rc = spk_mux_accept_stream(st, &a->conn)) != 0) {
        spk_free(a);
        return rc;
    }
    st->meta = NULL;
    spk_list_init(&a->link);
    *out = a;
    return 0;
}

void
spk_arrival_free(struct spk_arrival *a, uint64_t code)
{
    spk_list_remove(&a->link);
    if (a->conn != NULL) {
        spk_mux_reset_conn(a->conn, code);
        spk_conn_give_up(a->conn);
    }
    if (a->text != NULL)
        spoke_msg_free(a->text);
    spk_free(a);
}

void
spk_arrival_refuse(struct spk_session *ss, struct spk_arrival *a, uint64_t code, const char *text)
{
    struct spk_frame f = {.kind = SPK_FRAME_REFUSE, .code = (uint32_t)code};
    uint8_t bytes[SPK_FRAME_MOST];
    struct iovec all = {.iov_base = bytes};

    memcpy(f.text, text, strlen(text));
    all.iov_len = spk_frame_encode(bytes, &f);
    ss->refused++;
    if (spk_conn_try_write(a->conn, &all, 1) == (int64_t)all.iov_len) {
        spk_conn_give_up(a->conn);
        a->conn = NULL;
    }
    spk_arrival_free(a, code);
}

static uint64_t
code_of(int error)
{
    return error == SPOKE_ELIMIT ? SPOKE_MUX_LIMIT : SPOKE_MUX_INTERNAL;
}

/* ---- top-level channels ---- */

static bool
is_over(const struct spk_arrival *a)
{
    return a->conn->read.end != 0 && a->conn->input == NULL && a->conn->read.end != SPOKE_EOF;
}

/* Those that the peer does not want any more. */
static void
forget_dead(struct spk_session *ss, enum spk_channel_side side)
{
    struct spk_link *link, *next;

    for (link = ss->waiting[side].next; link != &ss->waiting[side]; link = next) {
        struct spk_arrival *a = SPK_OWNER(link, struct spk_arrival, link);

        next = link->next;
        if (!is_over(a))
            continue;
        ss->waiting_count--;
        spk_arrival_free(a, SPOKE_MUX_CANCELED);
    }
}

bool
spk_session_has_waiting(const struct spk_session *ss, enum spk_channel_side side)
{
    SPK_LIST_EACH(link, &ss->waiting[side])
    {
        if (!is_over(SPK_OWNER(link, struct spk_arrival, link)))
            return true;
    }
    return false;
}

struct spk_arrival *
spk_session_next_waiting(struct spk_session *ss, enum spk_channel_side side)
{
    forget_dead(ss, side);
    if (spk_list_empty(&ss->waiting[side]))
        return NULL;
    ss->waiting_count--;
    return SPK_OWNER(spk_list_take(&ss->waiting[side]), struct spk_arrival, link);
}

void
spk_session_drop_waiting(struct spk_session *ss, uint64_t code)
{
    struct spk_arrival *a;

    for (int side = SPK_SENDS; side <= SPK_RECEIVES; side++) {
        while ((a = spk_session_next_waiting(ss, (enum spk_channel_side)side)) != NULL)
            spk_arrival_free(a, code);
    }
}

static uint64_t
channel_opened(struct spk_session *ss, struct spk_mux_stream *st, const struct spk_meta *meta)
{
    enum spk_channel_side side = meta->direction == SPK_META_OPENER_SENDS ? SPK_RECEIVES
                                                                          : SPK_SENDS;
    struct spk_arrival *a;
    int rc;

    if (ss->waiting_count >= (uint32_t)ss->config.backlog) {
        forget_dead(ss, SPK_SENDS);
        forget_dead(ss, SPK_RECEIVES);
    }
    if (ss->waiting_count >= (uint32_t)ss->config.backlog)
        return SPOKE_MUX_BACKLOG;
    if ((rc = spk_arrival_new(&a, ss, st, meta)) != 0)
        return code_of(rc);
    spk_list_append(&ss->waiting[side], &a->link);
    ss->waiting_count++;
    spk_session_tell(ss);
    return SPOKE_MUX_NONE;
}

/* ---- what a message will carry ---- */

static struct spk_wire *
find_wire(const struct spk_session *ss, uint64_t id)
{
    const struct spk_mux_stream *st = spk_mux_find(ss->mux, id);

    return st != NULL && st->conn != NULL ? spk_wire_of(st->conn) : NULL;
}

/* Has there ever been a stream with this number? */
static bool
was_opened(const struct spk_session *ss, uint64_t id)
{
    bool is_ours = (id & 1) == (ss->config.mux.even ? 0 : 1);

    return is_ours ? id < ss->mux->next_id : id <= ss->mux->peer_last_id;
}

static void
set_timer(struct spk_session *ss)
{
    if (spk_list_empty(&ss->unclaimed))
        spk_timer_cancel(ss->e, &ss->timer);
    else
        (void)spk_timer_set(ss->e, &ss->timer,
                            SPK_OWNER(ss->unclaimed.next, struct spk_arrival, link)->until);
}

static uint64_t
attachment_opened(struct spk_session *ss, struct spk_mux_stream *st, const struct spk_meta *meta)
{
    struct spk_wire *parent = find_wire(ss, meta->parent);
    struct spk_arrival *a;
    int rc;

    if (parent == NULL) /* it may have ended meanwhile */
        return was_opened(ss, meta->parent) ? SPOKE_MUX_CANCELED : SPOKE_MUX_PROTOCOL;
    if (parent->sends)
        return SPOKE_MUX_PROTOCOL;
    if (ss->unclaimed_count >= (uint32_t)ss->config.unclaimed_max) {
        parent->lost_attachments = SPOKE_ELIMIT;
        return SPOKE_MUX_LIMIT;
    }
    if ((rc = spk_arrival_new(&a, ss, st, meta)) != 0) {
        parent->lost_attachments = rc;
        return code_of(rc);
    }
    a->until = spk_later(spk_engine_now(ss->e), ss->config.unclaimed_ns);
    spk_list_append(&ss->unclaimed, &a->link);
    ss->unclaimed_count++;
    set_timer(ss);
    return SPOKE_MUX_NONE;
}

struct spk_arrival *
spk_session_claim(struct spk_session *ss, uint64_t id, uint64_t parent)
{
    SPK_LIST_EACH(link, &ss->unclaimed)
    {
        struct spk_arrival *a = SPK_OWNER(link, struct spk_arrival, link);

        if (a->id != id)
            continue;
        if (a->meta.parent != parent)
            return NULL;
        spk_list_remove(&a->link);
        ss->unclaimed_count--;
        set_timer(ss);
        return a;
    }
    return NULL;
}

void
spk_session_drop_unclaimed(struct spk_session *ss, uint64_t parent)
{
    struct spk_link *link, *next;

    for (link = ss->unclaimed.next; link != &ss->unclaimed; link = next) {
        struct spk_arrival *a = SPK_OWNER(link, struct spk_arrival, link);

        next = link->next;
        if (parent != 0 && a->meta.parent != parent)
            continue;
        ss->unclaimed_count--;
        spk_arrival_free(a, SPOKE_MUX_CANCELED);
    }
    set_timer(ss);
}

void
spk_session_on_time(struct spk_timer *timer)
{
    struct spk_session *ss = SPK_OWNER(timer, struct spk_session, timer);
    spoke_ns now = spk_engine_now(ss->e);

    while (!spk_list_empty(&ss->unclaimed)) {
        struct spk_arrival *a = SPK_OWNER(ss->unclaimed.next, struct spk_arrival, link);
        struct spk_wire *parent;

        if (a->until > now)
            break;
        if ((parent = find_wire(ss, a->meta.parent)) != NULL)
            parent->lost_attachments = SPOKE_ELIMIT;
        ss->unclaimed_count--;
        spk_arrival_free(a, SPOKE_MUX_CANCELED);
    }
    set_timer(ss);
}

/* ---- all of them ---- */

void
spk_session_on_role(struct spk_session *ss, enum spk_role role, spk_session_opened_f *fn, void *ctx)
{
    ss->hooks[role] = (struct spk_role_hook){fn, ctx};
}

static uint64_t
ask_hook(struct spk_session *ss, struct spk_mux_stream *st, const struct spk_meta *meta)
{
    const struct spk_role_hook *hook = &ss->hooks[meta->role];

    if (hook->fn != NULL)
        return hook->fn(ss, st, meta, hook->ctx);
    return meta->role == SPK_ROLE_PORT ? SPOKE_MUX_NO_SUCH_NAME : SPOKE_MUX_UNSUPPORTED;
}

struct spk_mux_stream *
spk_session_next_stream(const struct spk_session *ss)
{
    return ss->ended || spk_list_empty(&ss->mux->pending)
               ? NULL
               : SPK_OWNER(ss->mux->pending.next, struct spk_mux_stream, pending);
}

static uint64_t
decide(struct spk_session *ss, struct spk_mux_stream *st)
{
    struct spk_meta meta;
    uint64_t code;

    if (st->meta == NULL)
        return SPOKE_MUX_PROTOCOL;
    if ((code = spk_meta_decode(st->meta->body, st->meta->size, &meta)) != SPOKE_MUX_NONE)
        return code;
    switch (meta.role) {
    case SPK_ROLE_CHANNEL: return channel_opened(ss, st, &meta);
    case SPK_ROLE_NESTED:
    case SPK_ROLE_ATTACHED_STREAM: return attachment_opened(ss, st, &meta);
    case SPK_ROLE_STREAM: spk_session_tell(ss); return SPOKE_MUX_NONE;
    default: return ask_hook(ss, st, &meta);
    }
}

uint64_t
spk_session_opened(struct spk_mux_user *u, struct spk_mux_stream *st)
{
    struct spk_session *ss = SPK_OWNER(u, struct spk_session, user);
    uint64_t code = decide(ss, st);

    ss->refused += code != SPOKE_MUX_NONE;
    return code;
}
