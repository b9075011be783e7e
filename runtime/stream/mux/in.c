/* SPDX-License-Identifier: MIT */
/* What each message of the peer does.  Whatever the peer may not say ends the mux: V1 … V18 are the
 * names that docs/wire.md has for these rules. */
#include "runtime/stream/mux/mux.h"

#include <string.h>

/* A message for a stream that is not known any more is read and dropped. */
#define DROPPED NULL

#define SLICE_LEAST ((size_t)4096) /* smaller pieces are copied */
#define READS_MOST  4              /* of much, before readers have their turn */

static int
violation(struct spk_mux *m, const char *text)
{
    spk_mux_end_peer(m, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL, text);
    return SPOKE_EPROTO;
}

static bool
is_ours(const struct spk_mux *m, uint64_t id)
{
    return (id & 1) == (m->config.even ? 0 : 1);
}

/* Whose message is it?  V7, V8; V10 and V18 for all but data, which is checked by itself. */
static int
find(struct spk_mux *m, uint64_t id, struct spk_mux_stream **st)
{
    if (is_ours(m, id) ? !m->exhausted && id >= m->next_id : id > m->peer_last_id)
        return violation(m, "a message for a stream that was never opened");
    *st = spk_mux_find(m, id);
    if (*st == DROPPED)
        return 0;
    if ((*st)->peer_closed)
        return violation(m, "a message for a stream that it has closed");
    if ((*st)->due & SPK_MUX_DUE_OPEN)
        return violation(m, "a message for a stream before it was opened");
    return 0;
}

/* … when it has to be one that was accepted, if we opened it: V16. */
static int
find_accepted(struct spk_mux *m, uint64_t id, struct spk_mux_stream **st)
{
    int rc = find(m, id, st);

    if (rc == 0 && *st != DROPPED && (*st)->is_ours && !(*st)->established)
        return violation(m, "a message for a stream that it has not accepted");
    return rc;
}

/* ---- opening ---- */

/* Nothing is kept of it but the answer. */
static void
refuse(struct spk_mux *m, uint64_t id, uint64_t code)
{
    struct spk_mux_stream *st = spk_mux_stream_new(m, id, false);

    if (st == NULL) {
        spk_mux_end(m, SPOKE_ENOMEM, SPOKE_MUX_LOCAL, SPOKE_MUX_INTERNAL, "no memory");
        return;
    }
    m->waiting++; /* until it is reset */
    m->unasked += code == SPOKE_MUX_GOING_AWAY || code == SPOKE_MUX_INTERNAL;
    spk_mux_reset(st, code);
    m->info.reset--; /* it never was one */
    (void)spk_mux_count_refused(m);
}

/* Why a stream cannot be opened now, SPOKE_MUX_NONE: it can. */
static uint64_t
reason_to_refuse(const struct spk_mux *m)
{
    if (m->leaves || m->closed)
        return SPOKE_MUX_GOING_AWAY;
    if (m->theirs >= (uint32_t)m->config.max_streams)
        return SPOKE_MUX_LIMIT;
    return m->waiting >= (uint32_t)m->config.backlog ? SPOKE_MUX_BACKLOG : SPOKE_MUX_NONE;
}

/* Streams that are over, but for what has to be said of them. */
static uint32_t
answers_most(const struct spk_mux *m)
{
    return 4 * (uint32_t)m->config.max_streams + 1024;
}

/* What the mux is part of decides at once. */
static void
ask_user(struct spk_mux_stream *st)
{
    struct spk_mux *m = st->mux;
    uint64_t code;

    spk_list_append(&m->pending, &st->pending);
    if ((code = m->user->opened(m->user, st)) == SPOKE_MUX_NONE)
        return;
    spk_mux_reset(st, code);
    spk_mux_stream_free_if_done(st);
    (void)spk_mux_count_refused(m);
}

static void
wait_to_be_accepted(struct spk_mux_stream *st)
{
    struct spk_mux *m = st->mux;

    if (m->user != NULL) {
        ask_user(st);
        return;
    }
    spk_list_append(m->on_open != NULL ? &m->undecided : &m->pending, &st->pending);
    spk_mux_tell_ready(m);
}

static int
on_open(struct spk_mux *m, const struct spk_mux_word *w)
{
    struct spk_mux_stream *st;
    uint64_t code;

    if (is_ours(m, w->id)) /* V4 */
        return violation(m, "a stream was opened with a number of ours");
    if (w->id <= m->peer_last_id) /* V5 */
        return violation(m, "a stream was opened with a number that was used");
    if (m->peer_leaves)
        return violation(m, "a stream was opened after its goodbye");
    m->peer_last_id = w->id;
    if (m->stuck_ns != SPOKE_FOREVER && m->objects - m->ours - m->theirs > answers_most(m)) {
        spk_mux_end_peer(m, SPOKE_ELIMIT, SPOKE_MUX_LIMIT, "the peer does not read the answers");
        return SPOKE_ELIMIT;
    }
    if ((code = reason_to_refuse(m)) != SPOKE_MUX_NONE) {
        refuse(m, w->id, code);
        return m->ended ? SPOKE_ELIMIT : 0;
    }
    if ((st = spk_mux_stream_new(m, w->id, false)) == NULL) {
        spk_mux_end(m, SPOKE_ENOMEM, SPOKE_MUX_LOCAL, SPOKE_MUX_INTERNAL, "no memory");
        return SPOKE_ENOMEM;
    }
    st->credit = w->number;
    m->waiting++;
    if (w->length == 0) {
        wait_to_be_accepted(st);
    } else if (spoke_msg_new(&st->meta, w->length) == 0) {
        st->meta->size = 0; /* grows as it comes */
        m->opening = st;
    } else {
        m->unasked++;
        spk_mux_reset(st, SPOKE_MUX_INTERNAL);
    }
    return 0;
}

static int
on_accept(struct spk_mux *m, const struct spk_mux_word *w)
{
    struct spk_mux_stream *st;
    int rc;

    if (!is_ours(m, w->id)) /* V6 */
        return violation(m, "it accepted a stream of its own");
    if ((rc = find(m, w->id, &st)) != 0 || st == DROPPED)
        return rc;
    if (st->established) /* V9 */
        return violation(m, "it accepted a stream twice");
    st->credit = w->number;
    spk_mux_stream_opened(st);
    return 0;
}

/* ---- data ---- */

static int
on_data(struct spk_mux *m, const struct spk_mux_word *w)
{
    struct spk_mux_stream *st;
    int rc = find(m, w->id, &st);

    m->into = NULL;
    if (rc != 0 || st == DROPPED)
        return rc;
    if (!st->established) /* V12 */
        return violation(m, "data for a stream that was not accepted");
    if (st->peer_ended) /* V13 */
        return violation(m, "data after its end");
    if (w->length > st->in_room) /* V14 */
        return violation(m, "more data than the window allows");
    st->in_room -= w->length;
    m->into = st;
    return 0;
}

/* With the descriptors that have come along. */
static int
on_data_fd(struct spk_mux *m, const struct spk_mux_word *w)
{
    struct spk_fds *set = spk_conn_take_fds(m->carrier);
    uint32_t n = (uint32_t)w->number;
    int rc = SPOKE_EPROTO;

    if (!m->passes_fds) /* V19 */
        rc = violation(m, "descriptors were not agreed on");
    else if (set == NULL || set->count != (int)n) /* V20 */
        rc = violation(m, "other descriptors than it says");
    else if (n > SPK_MUX_FDS_OUT - m->info.fds_unread - m->fds_owed) { /* V21 */
        rc = SPOKE_ELIMIT;
        spk_mux_end_peer(m, rc, SPOKE_MUX_LIMIT, "more descriptors than may be out");
    } else if ((rc = on_data(m, w)) == 0) {
        m->info.fds_in += n;
        if (m->into != NULL) {
            m->info.fds_unread += n;
            spk_conn_input_fds(m->into->conn, set);
            return 0;
        }
        m->fds_owed += n; /* nobody will take them */
    }
    spk_fds_close(set);
    return rc;
}

static int
on_fd_credit(struct spk_mux *m, const struct spk_mux_word *w)
{
    if (!m->passes_fds || w->number > m->fds_out) /* V22 */
        return violation(m, "it gives back descriptors that it did not have");
    m->fds_out -= (uint32_t)w->number;
    spk_mux_tell_fd_room(m);
    return 0;
}

/* Is it better to keep the memory that a piece lies in than to copy it?  All of it is kept: so it
 * has to be a good part of it, or what else is kept must be within bounds. */
static bool
may_keep(struct spk_mux_stream *st, const struct spk_chunk *chunk, size_t size)
{
    return size >= chunk->size / 4 || (size >= SLICE_LEAST && spk_mux_keep(st, chunk->size - size));
}

/* Can the stream have the message itself?  It has to end with the piece; small ones are gathered,
 * if they wait. */
static bool
is_whole(struct spk_mux_stream *st, const spoke_msg *from, const struct spk_mux_word *w)
{
    if (w->data + w->size != from->body + from->size)
        return false;
    return from->chunk == NULL ? st->conn->input == NULL : may_keep(st, from->chunk, w->size);
}

/* `from`: the message that the piece lies in, NULL afterwards if the stream has it. */
static int
deliver(struct spk_mux_stream *st, const struct spk_mux_word *w, spoke_msg **whole)
{
    spoke_msg *from = *whole;
    struct spk_conn *c = st->conn;
    spoke_msg *m;
    int rc;

    st->data_in += w->size;
    if (c->read.shut) { /* as if it had been read: it is thrown away */
        if (!st->mux->native)
            spk_mux_consumed(st, w->size);
        return 0;
    }
    if (is_whole(st, from, w)) {
        from->body += from->size - w->size;
        from->size = w->size;
        *whole = NULL;
        spk_conn_input(c, from);
        return 0;
    }
    if (from->chunk == NULL || w->size <= SPK_BODY_INLINE || !may_keep(st, from->chunk, w->size))
        return spk_conn_input_bytes(c, w->data, w->size);
    spk_chunk_ref(from->chunk);
    if ((rc = spk_msg_slice(&m, from->chunk, (uint8_t *)(uintptr_t)w->data, w->size)) != 0) {
        spk_chunk_unref(from->chunk);
        return rc;
    }
    spk_conn_input(c, m);
    return 0;
}

static int
on_piece(struct spk_mux *m, const struct spk_mux_word *w, spoke_msg **from)
{
    struct spk_mux_stream *st = m->opening;
    int rc = 0;

    if (m->text != NULL) {
        memcpy(m->text, w->data, w->size);
        m->text += w->size;
        if (w->last)
            m->text = NULL;
    } else if (st != NULL) {
        memcpy(st->meta->body + st->meta->size, w->data, w->size);
        st->meta->size += w->size;
        if (w->last) {
            m->opening = NULL;
            wait_to_be_accepted(st);
        }
    } else if (m->into != NULL) {
        m->info.data_in += w->size;
        m->data_bytes += w->size;
        rc = deliver(m->into, w, from);
    } else {
        m->info.dropped += w->size;
    }
    if (w->last)
        m->into = NULL;
    if (rc != 0)
        spk_mux_end(m, rc, SPOKE_MUX_LOCAL, SPOKE_MUX_INTERNAL, "no memory for what arrived");
    return rc;
}

/* ---- windows and ends ---- */

static int
on_credit(struct spk_mux *m, const struct spk_mux_word *w)
{
    struct spk_mux_stream *st;
    int rc = find_accepted(m, w->id, &st);

    if (rc != 0 || st == DROPPED)
        return rc;
    if (w->number > UINT64_MAX - st->credit) /* V17 */
        return violation(m, "a window beyond all bounds");
    st->credit += w->number;
    if (st->conn == NULL || !st->conn->write_full)
        return 0;
    if (spk_mux_room(st) > 0)
        spk_conn_writable(st->conn);
    else
        spk_mux_wait_for_room(st);
    return 0;
}

static int
on_close_write(struct spk_mux *m, const struct spk_mux_word *w)
{
    struct spk_mux_stream *st;
    int rc = find_accepted(m, w->id, &st);

    if (rc != 0 || st == DROPPED)
        return rc;
    if (st->peer_ended) /* V13 */
        return violation(m, "it ended a stream twice");
    st->peer_ended = true;
    if (st->conn != NULL)
        spk_conn_ends(st->conn, SPOKE_EOF);
    return 0;
}

/* The peer does not want what we opened. */
static void
rejected(struct spk_mux_stream *st, uint64_t code)
{
    st->conn->info.abort_code = code;
    spk_mux_unregister(st);
    spk_mux_detach(st, SPOKE_EREJECTED);
    spk_mux_stream_free_if_done(st);
}

/* The peer does not want any more what it opened, before anybody has accepted it. */
static int
abandoned(struct spk_mux_stream *st, uint64_t code)
{
    struct spk_mux *m = st->mux;

    if (st->conn != NULL)
        st->conn->info.abort_code = code;
    spk_mux_unregister(st);
    spk_mux_detach(st, SPOKE_EABORTED);
    spk_mux_stream_free_if_done(st);
    return spk_mux_count_abandoned(m) ? 0 : SPOKE_ELIMIT;
}

static int
on_close(struct spk_mux *m, const struct spk_mux_word *w)
{
    struct spk_mux_stream *st;
    int rc = find(m, w->id, &st);

    if (rc != 0 || st == DROPPED)
        return rc;
    if (!st->established) {
        if (!st->is_ours)
            return abandoned(st, SPOKE_MUX_NONE);
        /* On the compatible wire nothing else says so; the Go program answers with a Close. */
        if (!m->native) {
            st->due |= SPK_MUX_DUE_CLOSE;
            spk_mux_schedule(st);
        }
        rejected(st, SPOKE_MUX_NONE);
        return 0;
    }
    st->peer_closed = st->peer_ended = true;
    spk_mux_drop_out(st);
    spk_conn_ends(st->conn, SPOKE_EOF);
    spk_conn_stopped(st->conn, SPOKE_EPEERCLOSED);
    spk_mux_schedule(st); /* its own end may leave now */
    return 0;
}

static int
on_reset(struct spk_mux *m, const struct spk_mux_word *w)
{
    struct spk_mux_stream *st;
    struct spk_conn *c;
    bool was_theirs;
    int rc = find(m, w->id, &st);

    if (rc != 0 || st == DROPPED)
        return rc;
    m->info.reset++;
    if (!st->established) {
        if (!st->is_ours)
            return abandoned(st, w->number);
        rejected(st, w->number);
        return 0;
    }
    was_theirs = !st->is_ours;
    c = st->conn;
    c->info.abort_code = w->number;
    spk_mux_drop_out(st);
    spk_mux_unregister(st);
    st->due = 0;
    spk_list_remove(&st->control);
    spk_conn_ends(c, SPOKE_EABORTED);
    spk_conn_stopped(c, SPOKE_EABORTED);
    return was_theirs && !spk_mux_count_abandoned(m) ? SPOKE_ELIMIT : 0;
}

static int
on_stop_reading(struct spk_mux *m, const struct spk_mux_word *w)
{
    struct spk_mux_stream *st;
    int rc = find_accepted(m, w->id, &st);

    if (rc != 0 || st == DROPPED)
        return rc;
    if (st->peer_stopped)
        return violation(m, "it stopped to read twice");
    st->peer_stopped = true;
    spk_mux_drop_out(st);
    if (st->conn != NULL)
        spk_conn_stopped(st->conn, SPOKE_EPEERCLOSED);
    spk_mux_schedule(st);
    return 0;
}

/* ---- the mux itself ---- */

static int
on_preface(struct spk_mux *m, const struct spk_mux_word *w)
{
    if (spk_mux_read_preface(&m->peer, w->bytes) != 0)
        return violation(m, "its preface is not one");
    if (m->peer.even == m->config.even)
        return violation(m, "both ends have the same numbers");
    m->preface_heard = true;
    m->passes_fds = m->lets_fds && m->peer.has_fds;
    m->ping_due = true; /* how far is it? */
    if (m->user != NULL)
        m->user->heard(m->user);
    return 0;
}

static int
on_ping(struct spk_mux *m, const struct spk_mux_word *w)
{
    int at = m->pong_count < SPK_MUX_PINGS ? m->pong_count++ : SPK_MUX_PINGS - 1;

    memcpy(m->pongs[at], w->bytes, sizeof m->pongs[at]);
    return 0;
}

static int
on_pong(struct spk_mux *m, const struct spk_mux_word *w)
{
    spoke_ns rtt = spk_engine_now(m->e) - m->pinged_ns;

    if (!m->ping_out || spk_get64(w->bytes) != m->pings)
        return violation(m, "an answer that nobody asked for");
    m->ping_out = false;
    m->ponged = m->pings;
    m->last_rtt_ns = rtt > 0 ? rtt : 1;
    /* The shortest, but a way that has become longer is seen in time. */
    if (m->rtt_ns == 0 || m->last_rtt_ns < m->rtt_ns)
        m->rtt_ns = m->last_rtt_ns;
    else
        m->rtt_ns += (m->last_rtt_ns - m->rtt_ns) / 8;
    m->ping_due = m->ping_again;
    m->ping_again = false;
    spk_engine_wake_all(m->e, &m->ping_waiters);
    return 0;
}

/* Those that the peer will never look at. */
static void
reject_above(struct spk_mux *m, uint64_t last)
{
    struct spk_link *link, *next;

    for (link = m->streams.next; link != &m->streams; link = next) {
        struct spk_mux_stream *st = SPK_OWNER(link, struct spk_mux_stream, of_all);

        next = link->next;
        if (st->registered && st->is_ours && !st->established && st->id > last) {
            st->due = 0;
            rejected(st, SPOKE_MUX_GOING_AWAY);
        }
    }
}

static int
on_go_away(struct spk_mux *m, const struct spk_mux_word *w)
{
    m->peer_leaves = true;
    m->end.wire_code = w->number;
    memset(m->end.text, 0, sizeof m->end.text);
    m->text = w->length > 0 ? m->end.text : NULL;
    reject_above(m, w->id);
    return 0;
}

static int
on_word(struct spk_mux *m, const struct spk_mux_word *w, spoke_msg **from)
{
    switch (w->kind) {
    case SPK_MUX_HEARTBEAT: return spk_mux_count_control(m, 1) ? 0 : SPOKE_ELIMIT;
    case SPK_MUX_OPEN:
    case SPK_MUX_OPEN_META: return on_open(m, w);
    case SPK_MUX_ACCEPT: return on_accept(m, w);
    case SPK_MUX_DATA: return on_data(m, w);
    case SPK_MUX_DATA_FD: return on_data_fd(m, w);
    case SPK_MUX_FD_CREDIT: return spk_mux_count_control(m, 2) ? on_fd_credit(m, w) : SPOKE_ELIMIT;
    case SPK_MUX_CREDIT: return spk_mux_count_control(m, 3) ? on_credit(m, w) : SPOKE_ELIMIT;
    case SPK_MUX_CLOSE_WRITE: return on_close_write(m, w);
    case SPK_MUX_CLOSE: return on_close(m, w);
    case SPK_MUX_RESET: return on_reset(m, w);
    case SPK_MUX_STOP_READING: return on_stop_reading(m, w);
    case SPK_MUX_GO_AWAY: return on_go_away(m, w);
    case SPK_MUX_PING: return spk_mux_count_control(m, 9) ? on_ping(m, w) : SPOKE_ELIMIT;
    case SPK_MUX_PONG: return on_pong(m, w);
    case SPK_MUX_PREFACE: return on_preface(m, w);
    default: return on_piece(m, w, from);
    }
}

/* ---- reading ---- */

/* The compatible wire has none. */
static void
reject_those_with_metadata(struct spk_mux *m)
{
    struct spk_link *link, *next;

    for (link = m->streams.next; link != &m->streams; link = next) {
        struct spk_mux_stream *st = SPK_OWNER(link, struct spk_mux_stream, of_all);

        next = link->next;
        if (st->registered && st->meta != NULL) {
            st->due = 0;
            rejected(st, SPOKE_MUX_UNSUPPORTED);
        }
    }
}

/* The first byte tells which wire the peer speaks. */
static void
detect(struct spk_mux *m, uint8_t first)
{
    m->known = true;
    m->native = first >= SPK_MUX_COMPATIBLE_KINDS;
    m->preface_due = m->native;
    m->preface_heard = !m->native;
    if (!m->native && m->config.window > SPK_MUX_COMPATIBLE_WINDOW)
        m->config.window = SPK_MUX_COMPATIBLE_WINDOW;
    if (!m->native)
        reject_those_with_metadata(m);
    spk_mux_decoder_init(&m->decoder, m->native);
    m->opened_ns = spk_engine_now(m->e);
    spk_mux_set_timer(m);
}

/* Takes `from`. */
static void
read_message(struct spk_mux *m, spoke_msg *from)
{
    const uint8_t *at = from->body, *end = at + from->size;
    struct spk_mux_word w;
    bool failed = false;
    int rc = 0;

    m->info.bytes_in += from->size;
    m->kept_by = NULL;
    if (!m->known)
        detect(m, *at);
    while (!m->ended && (rc = spk_mux_decode(&m->decoder, &at, end, &w)) > 0) {
        m->info.messages_in += w.kind < SPK_MUX_KINDS;
        if ((failed = on_word(m, &w, &from) != 0))
            break;
    }
    if (from != NULL)
        spoke_msg_free(from);
    if (rc < 0 && !failed) /* V1, V2, V3, V11, V15 */
        (void)violation(m,
                        m->decoder.has_begun ? "a message that is none" : "its preface is not one");
}

/* What has come with the bytes so far and has found no message is that of one that goes on, which
 * has begun with its first byte. */
static void
check_fds(struct spk_mux *m)
{
    bool awaits = m->passes_fds && spk_mux_decoder_awaits_fds(&m->decoder);

    if (!m->ended && (awaits || m->carrier->sets != NULL) &&
        spk_conn_count_fds(m->carrier) != awaits)
        (void)violation(m, "other descriptors than it says"); /* V20 */
}

/* The carrier has ended: in order, if nothing was under way. */
static void
carrier_ended(struct spk_mux *m, int reason)
{
    bool said = m->peer_leaves || (m->leaves && m->shut);

    SPK_LIST_EACH(link, &m->streams)
    {
        if (!spk_mux_stream_is_finished(SPK_OWNER(link, struct spk_mux_stream, of_all))) {
            if (reason == SPOKE_EOF)
                reason = SPOKE_ECONNRESET;
            said = false;
            break;
        }
    }
    if (reason == SPOKE_EOF && said && m->end.wire_code == SPOKE_MUX_NONE)
        spk_mux_end(m, 0, SPOKE_MUX_PEER, 0, "it was closed in order");
    else if (reason == SPOKE_EOF && m->native)
        spk_mux_end(m, SPOKE_ECONNRESET, SPOKE_MUX_PEER, m->end.wire_code,
                    "the carrier ended without a goodbye");
    else
        spk_mux_end(m, reason, reason == SPOKE_EOF ? SPOKE_MUX_PEER : SPOKE_MUX_CARRIER,
                    m->end.wire_code, "the carrier ended");
}

/* Windows grow by the round trip: it is measured while data comes. */
static void
measure_again(struct spk_mux *m)
{
    if (!m->native || !m->preface_heard || m->ping_out || m->info.data_in == m->pinged_data ||
        m->heard_ns - m->pinged_ns < SPOKE_SECOND)
        return;
    m->pinged_data = m->info.data_in;
    m->ping_due = true;
}

/* After much has come more is there, as a rule: a plain read into memory that has just been used is
 * faster than to wait for what the carrier brings. */
static spoke_msg *
read_more(struct spk_mux *m)
{
    spoke_msg *from = spk_conn_read_now(m->carrier);

    m->more = from != NULL && from->size >= SPK_MUX_TURN_BYTES;
    return from;
}

static spoke_msg *
next_input(struct spk_mux *m)
{
    spoke_msg *from = NULL;

    if (m->more)
        from = read_more(m);
    if (from == NULL && (from = spk_conn_take_input(m->carrier, m->awaited)) != NULL)
        m->more = from->size >= SPK_MUX_TURN_BYTES;
    return from;
}

void
spk_mux_read(struct spk_mux *m)
{
    spoke_msg *from;
    bool any = false;
    int reads = 0;

    while (!m->ended && reads < READS_MOST && (from = next_input(m)) != NULL) {
        read_message(m, from);
        reads += m->more;
        check_fds(m);
        any = true;
    }
    if (m->ended)
        return;
    if (any) {
        m->heard_ns = spk_engine_now(m->e);
        measure_again(m);
    }
    if (reads == READS_MOST)
        spk_task_queue_callback(m->e, &m->again);
    else if (m->carrier->read.end != 0 && m->carrier->input == NULL)
        carrier_ended(m, m->carrier->read.end);
}
