/* SPDX-License-Identifier: MIT */
/* The streams' side: how their ends are called by stream.c, and how they come and go. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "runtime/stream/mux/mux.h"

#define WITH_FDS_MOST ((size_t)1024) /* bytes in one message with descriptors */

/* ---- by id ---- */

#define IDS_LEAST 16u

static size_t
place_of(const struct spk_mux_ids *ids, uint64_t id)
{
    return (size_t)((id * 0x9e3779b97f4a7c15u) >> 32) & ids->mask;
}

static size_t
slot_of(const struct spk_mux_ids *ids, uint64_t id)
{
    size_t i = place_of(ids, id);

    while (ids->slots[i] != NULL && ids->slots[i]->id != id)
        i = (i + 1) & ids->mask;
    return i;
}

struct spk_mux_stream *
spk_mux_find(const struct spk_mux *m, uint64_t id)
{
    return m->ids.count == 0 ? NULL : m->ids.slots[slot_of(&m->ids, id)];
}

static bool
ids_grow(struct spk_mux_ids *ids)
{
    struct spk_mux_ids wider = {.mask = ids->slots == NULL ? IDS_LEAST - 1 : 2 * ids->mask + 1,
                                .count = ids->count};

    if ((wider.slots = spk_zalloc((wider.mask + 1) * sizeof(struct spk_mux_stream *))) == NULL)
        return false;
    for (size_t i = 0; ids->slots != NULL && i <= ids->mask; i++) {
        if (ids->slots[i] != NULL)
            wider.slots[slot_of(&wider, ids->slots[i]->id)] = ids->slots[i];
    }
    spk_free(ids->slots);
    *ids = wider;
    return true;
}

static bool
ids_add(struct spk_mux_ids *ids, struct spk_mux_stream *st)
{
    if ((ids->slots == NULL || 2 * ids->count > ids->mask) && !ids_grow(ids))
        return false;
    ids->slots[slot_of(ids, st->id)] = st;
    ids->count++;
    return true;
}

static void
ids_remove(struct spk_mux_ids *ids, uint64_t id)
{
    size_t hole = slot_of(ids, id);

    ids->count--;
    /* Those behind it move up, unless they would come in front of their place. */
    for (size_t i = (hole + 1) & ids->mask; ids->slots[i] != NULL; i = (i + 1) & ids->mask) {
        size_t place = place_of(ids, ids->slots[i]->id);

        if (((i - place) & ids->mask) >= ((i - hole) & ids->mask)) {
            ids->slots[hole] = ids->slots[i];
            hole = i;
        }
    }
    ids->slots[hole] = NULL;
}

void
spk_mux_ids_fini(struct spk_mux_ids *ids)
{
    spk_free(ids->slots);
    *ids = (struct spk_mux_ids){0};
}

/* ---- life ---- */

struct spk_mux_stream *
spk_mux_stream_new(struct spk_mux *m, uint64_t id, bool is_ours)
{
    struct spk_mux_stream *st = spk_zalloc(sizeof *st);

    if (st == NULL)
        return NULL;
    st->mux = m;
    st->id = id;
    st->is_ours = is_ours;
    st->priority = SPK_MUX_PRIORITIES / 2 - 1;
    st->out_end = &st->out;
    st->out_fds_end = &st->out_fds;
    spk_list_init(&st->fd_room);
    spk_list_init(&st->pending);
    spk_list_init(&st->control);
    spk_list_init(&st->turn);
    spk_list_init(&st->room);
    if (!ids_add(&m->ids, st)) {
        spk_free(st);
        return NULL;
    }
    spk_list_append(&m->streams, &st->of_all);
    st->registered = true;
    m->objects++;
    m->ours += is_ours;
    m->theirs += !is_ours;
    return st;
}

void
spk_mux_unregister(struct spk_mux_stream *st)
{
    struct spk_mux *m = st->mux;

    if (!st->registered)
        return;
    st->registered = false;
    ids_remove(&m->ids, st->id);
    m->ours -= st->is_ours;
    m->theirs -= !st->is_ours;
    spk_mux_window_close(st);
    spk_mux_wait_no_more(st);
    spk_list_remove(&st->fd_room);
    st->due &= ~(unsigned)(SPK_MUX_DUE_CREDIT | SPK_MUX_DUE_STOP);
    if (!st->is_ours && !st->taken) {
        m->waiting--;
        spk_list_remove(&st->pending);
        spk_mux_tell_ready(m);
    }
    if (m->into == st)
        m->into = NULL;
    if (m->opening == st)
        m->opening = NULL;
}

void
spk_mux_stream_free_if_done(struct spk_mux_stream *st)
{
    if (st->registered || st->conn != NULL || st->due != 0 || st->out_size > 0)
        return;
    st->mux->objects--;
    spk_list_remove(&st->of_all);
    spk_list_remove(&st->control);
    if (st->meta != NULL)
        spoke_msg_free(st->meta);
    spk_free(st);
}

void
spk_mux_detach(struct spk_mux_stream *st, int reason)
{
    struct spk_conn *c = st->conn;

    if (c == NULL)
        return;
    st->conn = NULL;
    st->finishing = false;
    c->state = NULL;
    c->undial = NULL;
    spk_conn_gone(c, reason);
}

void
spk_mux_reset(struct spk_mux_stream *st, uint64_t code)
{
    unsigned opening = st->due & SPK_MUX_DUE_OPEN; /* the peer does not know it yet … */
    bool is_known = opening == 0 || st->named;     /* … and need not, or will */

    if (!st->registered)
        return;
    spk_mux_drop_out(st);
    spk_mux_unregister(st);
    st->code = code;
    st->mux->info.reset++;
    st->due = !is_known ? 0 : st->mux->native ? opening | SPK_MUX_DUE_RESET : SPK_MUX_DUE_CLOSE;
    if ((st->due & SPK_MUX_DUE_OPEN) == 0) /* which keeps its place: they go by their numbers */
        spk_list_remove(&st->control);
    spk_mux_schedule(st);
}

bool
spk_mux_stream_is_finished(const struct spk_mux_stream *st)
{
    if (!st->registered) /* a peer that has closed it needs no word of it */
        return (st->due == 0 || st->peer_closed) && st->out_size == 0;
    return st->established && (st->peer_ended || st->peer_closed) &&
           (st->write_ended || st->peer_closed) && st->out_size == 0;
}

/* ---- as stream.c calls it ---- */

static struct spk_mux_stream *
state_of(const struct spk_conn *c)
{
    return c->state;
}

static void
want_input(struct spk_conn *c, bool awaited)
{
    struct spk_mux *m = state_of(c)->mux;

    if (!awaited || m->ended)
        return;
    m->awaited = true;
    if (!m->more)
        spk_conn_want_input(m->carrier, true);
    else /* now the reader has had its turn */
        spk_mux_work(m);
}

static void
consumed(struct spk_conn *c, size_t size)
{
    struct spk_mux_stream *st = state_of(c);

    if (c->input_size == 0)
        spk_mux_keep_none(st);
    if (c->closed)
        st->data_lost = true;
    else if (!c->read.shut || !st->mux->native)
        spk_mux_consumed(st, size);
}

static int64_t
write_bytes(struct spk_conn *c, const struct iovec *buffers, int count)
{
    struct spk_mux_stream *st = state_of(c);
    size_t size = spk_mux_write_through(st, buffers, count);
    int rc;

    if (size > 0)
        return (int64_t)size;
    size = spk_piece(buffers, count, spk_mux_room(st));
    if (size == 0) {
        spk_mux_wait_for_room(st);
        return SPOKE_EAGAIN;
    }
    rc = spk_mux_queue_bytes(st, size, buffers);
    return rc == 0 ? (int64_t)size : rc;
}

/* Whole, if there is room now. */
static int
write_message(struct spk_conn *c, spoke_msg *m)
{
    struct spk_mux_stream *st = state_of(c);
    spoke_msg *mine;
    int rc;

    if (m->size == 0 || m->size > spk_mux_room(st))
        return SPOKE_ENOTSUP;
    if ((rc = spk_own_message(&mine, m)) != 0)
        return rc;
    spk_mux_queue(st, mine);
    spoke_msg_free(m);
    return 0;
}

static bool
passes_fds(struct spk_conn *c)
{
    return state_of(c)->mux->passes_fds;
}

/* What fits into one message. */
static int64_t
write_fds(struct spk_conn *c, const struct iovec *buffers, int count, const int *fds, int n)
{
    struct spk_mux_stream *st = state_of(c);
    struct spk_mux *m = st->mux;
    size_t most = spk_mux_room(st), size;
    int rc = spk_fds_check(fds, n);

    if (rc != 0)
        return rc;
    if ((uint32_t)n > spk_mux_fd_room(m)) {
        if (spk_list_empty(&st->fd_room))
            spk_list_append(&m->fd_room, &st->fd_room);
        return SPOKE_EAGAIN;
    }
    if ((size = spk_piece(buffers, count, most < WITH_FDS_MOST ? most : WITH_FDS_MOST)) == 0) {
        spk_mux_wait_for_room(st);
        return SPOKE_EAGAIN;
    }
    rc = spk_mux_queue_fds(st, size, buffers, fds, n);
    return rc == 0 ? (int64_t)size : rc;
}

static void
consumed_fds(struct spk_conn *c, int n)
{
    struct spk_mux *m = state_of(c)->mux;

    m->info.fds_unread -= (uint32_t)n;
    m->fds_owed += (uint32_t)n;
    if (m->fds_owed >= SPK_MUX_FDS_STEP)
        spk_mux_kick(m);
}

int64_t
spk_mux_write_slice(struct spk_conn *c, const spoke_msg *m, size_t offset)
{
    struct spk_mux_stream *st = state_of(c);
    const struct iovec all = {m->body + offset, m->size - offset};
    spoke_msg *slice;
    size_t size;
    int rc;

    if (!c->open || c->write.end != 0 || c->write.shut || c->write_full || m->chunk == NULL ||
        (size = spk_piece(&all, 1, spk_mux_room(st))) == 0)
        return spk_conn_try_write(c, &all, 1);
    spk_chunk_ref(m->chunk);
    if ((rc = spk_msg_slice(&slice, m->chunk, m->body + offset, size)) != 0) {
        spk_chunk_unref(m->chunk);
        return rc;
    }
    spk_mux_queue(st, slice);
    c->info.bytes_written += size;
    return (int64_t)size;
}

static int
close_write(struct spk_conn *c)
{
    struct spk_mux_stream *st = state_of(c);

    if (st->registered) {
        st->due |= SPK_MUX_DUE_CLOSE_WRITE;
        spk_mux_schedule(st);
    }
    return 0;
}

static void
close_read(struct spk_conn *c)
{
    struct spk_mux_stream *st = state_of(c);

    if (!st->registered || !st->mux->native || st->peer_ended)
        return;
    st->due |= SPK_MUX_DUE_STOP;
    spk_mux_schedule(st);
}

static void
abort_stream(struct spk_conn *c, uint64_t code)
{
    spk_mux_reset(state_of(c), code);
}

/* Its user has closed it: what was written leaves, then the news. */
static void
finish(struct spk_conn *c, spoke_ns deadline)
{
    struct spk_mux_stream *st = state_of(c);
    bool resets = (st->data_lost || st->last_code != 0) && st->mux->native;

    (void)deadline; /* whoever waits looks at it */
    if (st->registered) {
        spk_mux_unregister(st);
        st->code = st->last_code != 0 ? st->last_code : SPOKE_MUX_DATA_LOST;
        st->mux->info.reset += resets;
        st->due &= ~(unsigned)SPK_MUX_DUE_CLOSE_WRITE;
        st->due |= resets ? SPK_MUX_DUE_RESET : SPK_MUX_DUE_CLOSE;
    }
    st->finishing = true;
    spk_mux_schedule(st);
    spk_mux_stream_free_if_done(st);
}

/* One of ours that is given up, or one of the peer's that is refused after it was taken. */
void
spk_mux_undial(struct spk_conn *c, uint64_t code)
{
    struct spk_mux_stream *st = state_of(c);

    c->state = NULL;
    st->conn = NULL;
    if (!st->is_ours) {
        st->mux->info.refused++;
        st->mux->info.reset--; /* it never was one */
        spk_mux_reset(st, code != SPOKE_MUX_NONE ? code : SPOKE_MUX_REFUSED);
    } else {
        spk_mux_reset(st, SPOKE_MUX_CANCELED);
    }
    spk_mux_stream_free_if_done(st);
}

static int
address(struct spk_conn *c, bool local, char *text, size_t size)
{
    const struct spk_mux_stream *st = state_of(c);
    struct spk_conn *carrier = st->mux->carrier;
    char url[1024];
    int rc = carrier->carrier->address(carrier, local, url, sizeof url);

    if (rc != 0)
        return rc;
    return snprintf(text, size, "mux+%s#%" PRIu64, url, st->id) < (int)size ? 0 : SPOKE_ERANGE;
}

static size_t
unsent(const struct spk_conn *c)
{
    return state_of(c)->out_size;
}

static int
property(struct spk_conn *c, const char *name, enum spoke_type type, void *value, size_t *size)
{
    return spk_conn_property(state_of(c)->mux->carrier, name, type, value, size);
}

static const struct spk_carrier stream_carrier = {
    .want_input = want_input,
    .consumed = consumed,
    .write = write_bytes,
    .write_message = write_message,
    .close_write = close_write,
    .close_read = close_read,
    .abort = abort_stream,
    .finish = finish,
    .address = address,
    .unsent = unsent,
    .property = property,
    .passes_fds = passes_fds,
    .write_fds = write_fds,
    .consumed_fds = consumed_fds,
};

void
spk_mux_stream_opened(struct spk_mux_stream *st)
{
    struct spk_conn *c = st->conn;

    st->established = true;
    c->undial = NULL;
    spk_conn_opened(c, &stream_carrier, st);
    (void)spk_conn_passes_fds(c); /* they may come from now on */
    if (st->peer_ended)
        spk_conn_ends(c, SPOKE_EOF);
    if (st->peer_stopped)
        spk_conn_stopped(c, SPOKE_EPEERCLOSED);
}

void
spk_mux_reset_conn(struct spk_conn *c, uint64_t code)
{
    struct spk_mux_stream *st = spk_mux_stream_of(c);

    if (st != NULL)
        spk_mux_reset(st, code);
}

void
spk_mux_reset_last(struct spk_conn *c, uint64_t code)
{
    struct spk_mux_stream *st = spk_mux_stream_of(c);

    if (st != NULL)
        st->last_code = code;
}

struct spk_mux_stream *
spk_mux_stream_of(const struct spk_conn *c)
{
    bool is_one = c->undial == spk_mux_undial || (c->open && c->carrier == &stream_carrier);

    return is_one ? c->state : NULL;
}
