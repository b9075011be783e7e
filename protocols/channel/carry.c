/* SPDX-License-Identifier: MIT */
/* What messages carry over a session.  Each end of a channel, and each stream, becomes a stream of
 * the session's mux, which is opened before the message leaves that names it; on the other side it
 * is claimed by that message, once.  Descriptors go with the first byte of the message, where the
 * session passes them, else streams in their places. */
#include <string.h>

#include "protocols/channel/session.h"

/* ---- streams that are joined to what was attached ---- */

struct carried {
    struct spk_link link; /* in the session's `carried`; alone when that has ended */
    struct spk_session *ss;
    struct spk_engine *e;
    spoke_stream *streams[2];
};

static void
on_joined(void *ctx, const struct spoke_stream_report *report)
{
    struct carried *c = ctx;

    (void)report;
    if (spk_engine_enter(c->e) != 0)
        return;
    spk_list_remove(&c->link);
    if (c->ss != NULL)
        c->ss->carried_count--;
    spk_engine_leave(c->e);
    for (int i = 0; i < 2; i++)
        (void)spoke_stream_close(c->streams[i]);
    spk_free(c);
}

/* They end as their streams do, which are the mux's. */
void
spk_carry_end(struct spk_session *ss)
{
    struct spk_link *link;

    while ((link = spk_list_take(&ss->carried)) != NULL)
        SPK_OWNER(link, struct carried, link)->ss = NULL;
    ss->carried_count = 0;
}

static int
join(struct spk_session *ss, struct spk_conn *outer, struct spk_conn *inner)
{
    struct spk_conn *const both[2] = {outer, inner};
    struct carried *c = spk_zalloc(sizeof *c);
    int rc;

    if (c == NULL)
        return SPOKE_ENOMEM;
    *c = (struct carried){.ss = ss, .e = ss->e, .streams = {outer->handle, inner->handle}};
    if ((rc = spk_join_start(both, on_joined, c)) != 0) {
        spk_free(c);
        return rc;
    }
    spk_list_append(&ss->carried, &c->link);
    ss->carried_count++;
    return 0;
}

/* ---- sending ---- */

static int
open_stream(struct spk_session *ss, const struct spk_meta *meta, struct spk_conn **conn,
            uint64_t *id)
{
    uint8_t bytes[SPOKE_MUX_META_MAX];
    size_t size = spk_meta_encode(bytes, sizeof bytes, meta);
    int rc = spk_mux_open_stream(ss->mux, bytes, size, conn, id);

    if (rc == 0) /* by the message */
        spk_mux_stream_of(*conn)->named = true;
    return rc;
}

static int
send_channel(struct spk_wire *w, struct spk_attachment *item, uint64_t *id)
{
    bool sends = item->direction == SPOKE_ATTACHED_READS;
    struct spk_channel *ch = spk_attachment_channel(item);
    struct spk_wire_config config = {.sends = sends, .is_ours = true, .is_carried = true};
    struct spk_conn *conn;
    struct spk_wire *inner;
    struct spk_meta meta;
    int rc;

    if (ch == NULL)
        return SPOKE_ECLOSED;
    meta = spk_end_meta(ch, SPK_ROLE_NESTED, sends, w->id);
    config.granted = meta.limit;
    if ((rc = open_stream(w->ss, &meta, &conn, id)) == 0 &&
        (rc = spk_end_open(&inner, w->ss, conn, *id, ch, &config)) == 0)
        return 0;
    spk_channel_close(ch, sends ? SPK_RECEIVES : SPK_SENDS, rc, true, 0, NULL);
    spk_channel_free_if_done(ch);
    return rc;
}

/* Takes `local` on success. */
static int
send_stream(struct spk_wire *w, struct spk_conn *local, uint8_t direction, uint64_t *id)
{
    const struct spk_meta meta = {
        .role = SPK_ROLE_ATTACHED_STREAM, .parent = w->id, .direction = direction};
    struct spk_conn *conn;
    int rc;

    if ((rc = open_stream(w->ss, &meta, &conn, id)) != 0)
        return rc;
    if ((rc = spk_conn_give_handle(conn)) == 0 && (rc = join(w->ss, conn, local)) == 0)
        return 0;
    spk_mux_reset_conn(conn, SPOKE_MUX_INTERNAL);
    spk_conn_give_up(conn);
    return rc;
}

static int
send_stream_of(struct spk_wire *w, struct spk_attachment *item, uint64_t *id)
{
    void *local;
    int rc = spk_handle_join(item->handle, SPK_HANDLE_STREAM, w->ss->e, &local);

    if (rc == 0 && (rc = send_stream(w, local, item->direction, id)) == 0)
        item->kind = 0;
    return rc;
}

static int
send_proxy(struct spk_wire *w, struct spk_attachment *item, uint64_t *id)
{
    struct spk_conn *local;
    int rc = spk_stand_in(&local, w->ss->e, item->fd, item->direction);

    if (rc != 0)
        return rc;
    item->kind = 0;
    if ((rc = send_stream(w, local, item->direction, id)) != 0)
        spk_conn_cancel(local, SPOKE_MUX_CANCELED);
    return rc;
}

enum spk_fds_way
spk_carry_way(const struct spk_session *ss)
{
    if (ss->mux->passes_fds)
        return SPK_FDS_PASS;
    return ss->config.proxy_fds ? SPK_FDS_PROXIES : SPK_FDS_NONE;
}

/* One that passes is the message's until its first byte has left. */
static int
send_fd(struct spk_wire *w, struct spk_attachment *item, struct spk_frame_attachment *said)
{
    switch (spk_carry_way(w->ss)) {
    case SPK_FDS_PASS:
        said->index = (uint16_t)w->fd_count;
        w->fds[w->fd_count++] = item->fd;
        return 0;
    case SPK_FDS_PROXIES:
        said->kind = SPOKE_ATTACHED_FD_PROXY;
        return send_proxy(w, item, &said->id);
    default: return SPOKE_ENOTSUP;
    }
}

static int
send_one(struct spk_wire *w, struct spk_attachment *item, struct spk_frame_attachment *said)
{
    *said = (struct spk_frame_attachment){.kind = item->kind, .direction = item->direction};
    switch (item->kind) {
    case SPOKE_ATTACHED_CHANNEL: return send_channel(w, item, &said->id);
    case SPOKE_ATTACHED_STREAM:
    case SPOKE_ATTACHED_FD_PROXY: return send_stream_of(w, item, &said->id);
    case SPOKE_ATTACHED_FD: return send_fd(w, item, said);
    default: return SPOKE_ESTATE; /* it was taken before the message was sent */
    }
}

int
spk_carry_out(struct spk_wire *w, spoke_msg *m)
{
    struct spk_attachments *a = spk_attachments_of(m);
    struct spk_frame_attachment said;
    int rc;

    for (uint32_t i = 0; i < a->count; i++) {
        if ((rc = send_one(w, &a->items[i], &said)) != 0)
            return rc;
        spk_frame_encode_attachment(w->out + w->out_size, &said);
        w->out_size += SPK_FRAME_ATTACHMENT;
    }
    return 0;
}

void
spk_carry_passed(struct spk_wire *w)
{
    struct spk_attachments *a = spk_attachments_of(w->body);

    for (uint32_t i = 0; i < a->count; i++) {
        if (a->items[i].kind == SPOKE_ATTACHED_FD)
            a->items[i].kind = 0;
    }
    w->ss->fds_out += (uint64_t)w->fd_count;
    w->fd_count = 0;
}

static int
check_fd(const struct spk_channel *ch, int fd, enum spk_fds_way way)
{
    if (way == SPK_FDS_PASS)
        return spk_fds_check(&fd, 1);
    if (way == SPK_FDS_NONE || ch->e->backend->is_virtual)
        return SPOKE_ENOTSUP;
    return spk_stand_in_check(fd);
}

int
spk_carry_check(const struct spk_channel *ch, const spoke_msg *m, enum spk_fds_way way)
{
    const struct spk_attachments *a = spk_attachments_of(m);

    if (a->e != NULL && a->e != ch->e)
        return SPOKE_ENOTSUP;
    for (uint32_t i = 0; i < a->count; i++) {
        const struct spk_attachment *item = &a->items[i];
        int rc;

        if (item->kind == 0)
            return SPOKE_ESTATE;
        if (item->kind == SPOKE_ATTACHED_FD && (rc = check_fd(ch, item->fd, way)) != 0)
            return rc;
    }
    return 0;
}

/* ---- receiving ---- */

static int
wrong(struct spk_wire *w, const char *text)
{
    return spk_wire_violation(w, SPOKE_MUX_PROTOCOL, text);
}

int
spk_carry_fds_came(struct spk_wire *w, struct spk_fds *set)
{
    if (!spk_frame_between(&w->in)) {
        spk_fds_close(set);
        return wrong(w, "descriptors inside a frame");
    }
    w->came = set;
    return 0;
}

int
spk_carry_begin(struct spk_wire *w)
{
    w->carried_count = 0;
    w->named = 0;
    if (w->came != NULL && w->came->count > w->in.frame.attachments)
        return wrong(w, "descriptors that are not attached");
    return 0;
}

static int
claim_fd(struct spk_wire *w, const struct spk_frame_attachment *a)
{
    uint64_t bit;

    if (w->came == NULL || a->index >= w->came->count)
        return wrong(w, "a descriptor that has not come");
    bit = (uint64_t)1 << a->index;
    if ((w->named & bit) != 0)
        return wrong(w, "a descriptor that is attached twice");
    w->named |= bit;
    return 0;
}

/* The peer may have opened it all the same. */
static int
not_there(struct spk_wire *w, uint64_t id)
{
    const struct spk_mux *m = w->ss->mux;

    if (w->lost_attachments == SPOKE_ELIMIT)
        return spk_wire_violation(w, SPOKE_MUX_LIMIT, "too many streams waited to be named");
    if (w->lost_attachments != 0) /* there was no memory */
        return w->lost_attachments;
    if (m->unasked == 0 || id > m->peer_last_id)
        return wrong(w, "an attachment that was not opened");
    if (!m->leaves)
        return SPOKE_ENOMEM;
    spk_wire_break(w, SPOKE_EMUXCLOSED, SPOKE_MUX_GOING_AWAY, "no more streams are taken");
    return SPOKE_EMUXCLOSED;
}

static int
claim_stream(struct spk_wire *w, const struct spk_frame_attachment *a)
{
    struct spk_arrival *arrival;
    enum spk_role role = a->kind == SPOKE_ATTACHED_CHANNEL ? SPK_ROLE_NESTED
                                                           : SPK_ROLE_ATTACHED_STREAM;

    if ((arrival = spk_session_claim(w->ss, a->id, w->id)) == NULL)
        return not_there(w, a->id);
    spk_list_append(&w->claimed, &arrival->link);
    if (arrival->meta.role != role || arrival->meta.direction != a->direction)
        return wrong(w, "an attachment that is something else");
    return 0;
}

int
spk_carry_claim(struct spk_wire *w, const struct spk_frame_attachment *a)
{
    int rc = a->kind == SPOKE_ATTACHED_FD ? claim_fd(w, a) : claim_stream(w, a);

    if (rc != 0)
        return rc;
    w->carried[w->carried_count++] = *a;
    if (w->carried_count == w->in.frame.attachments && w->came != NULL &&
        __builtin_popcountll(w->named) != w->came->count)
        return wrong(w, "descriptors that are not attached");
    return 0;
}

static int
receive_channel(struct spk_wire *w, struct spk_arrival *a, struct spk_attachment *item)
{
    bool sends = item->direction == SPOKE_ATTACHED_WRITES; /* then the wire does, too */
    enum spk_channel_side users = sends ? SPK_SENDS : SPK_RECEIVES;
    const struct spk_wire_config config = {.sends = sends, .meta = &a->meta};
    struct spk_channel *ch;
    struct spk_wire *inner;
    int rc;

    if ((rc = spk_channel_new(&ch, w->ss->e, &w->ss->config.channel)) != 0)
        return rc;
    if (ch->depth == 0) /* from process to process */
        ch->depth = 1;
    if (sends)
        spk_end_hold(ch);
    ch->has_fingerprint = a->meta.has_type;
    ch->has_layout = a->meta.has_layout;
    memcpy(ch->fingerprint, a->meta.type, sizeof ch->fingerprint);
    memcpy(ch->layout, a->meta.layout, sizeof ch->layout);
    if ((rc = spk_channel_give(ch, users, &item->handle)) == 0 &&
        (rc = spk_end_open(&inner, w->ss, a->conn, a->id, ch, &config)) == 0) {
        a->conn = NULL;
        return 0;
    }
    for (int side = SPK_SENDS; side <= SPK_RECEIVES; side++)
        spk_channel_close(ch, (enum spk_channel_side)side, rc, true, 0, NULL);
    spk_channel_free_if_done(ch);
    return rc;
}

static int
receive_stream(struct spk_arrival *a, struct spk_attachment *item)
{
    int rc = spk_conn_give_handle(a->conn);

    if (rc != 0)
        return rc;
    item->handle = a->conn->handle;
    if (item->direction == SPOKE_ATTACHED_READS)
        spk_conn_shut_write(a->conn);
    else if (item->direction == SPOKE_ATTACHED_WRITES)
        spk_conn_shut_read(a->conn);
    a->conn = NULL;
    return 0;
}

static void
receive_fd(struct spk_wire *w, uint16_t index, struct spk_attachment *item)
{
    item->fd = w->came->numbers[index];
    w->came->numbers[index] = -1;
    w->ss->fds_in++;
}

static int
receive_claimed(struct spk_wire *w, struct spk_attachment *item)
{
    struct spk_arrival *a = SPK_OWNER(w->claimed.next, struct spk_arrival, link);
    int rc = item->kind == SPOKE_ATTACHED_CHANNEL ? receive_channel(w, a, item)
                                                  : receive_stream(a, item);

    if (rc == 0)
        spk_arrival_free(a, SPOKE_MUX_NONE);
    return rc;
}

int
spk_carry_in(struct spk_wire *w)
{
    int rc = spk_attachments_reserve(w->message, w->carried_count, w->ss->e);

    for (uint16_t i = 0; rc == 0 && i < w->carried_count; i++) {
        const struct spk_frame_attachment *said = &w->carried[i];
        struct spk_attachment item = {.kind = said->kind, .direction = said->direction, .fd = -1};

        if (item.kind == SPOKE_ATTACHED_FD)
            receive_fd(w, said->index, &item);
        else if ((rc = receive_claimed(w, &item)) != 0)
            return rc;
        spk_attachments_add(w->message, item);
    }
    if (rc == 0) {
        spk_fds_close(w->came);
        w->came = NULL;
    }
    return rc;
}

void
spk_carry_drop(struct spk_wire *w)
{
    while (!spk_list_empty(&w->claimed))
        spk_arrival_free(SPK_OWNER(w->claimed.next, struct spk_arrival, link), SPOKE_MUX_CANCELED);
    spk_fds_close(w->came);
    w->came = NULL;
}
