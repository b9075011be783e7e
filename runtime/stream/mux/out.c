/* SPDX-License-Identifier: MIT */
/* What leaves next.  A batch is made of what may leave now, and given to the carrier in one write;
 * when it has taken all of it, there is a next one.  In a batch what is short goes first, then
 * streams with bytes have their turns. */
#include "runtime/stream/mux/mux.h"

#include <string.h>

#define BATCH_BYTES SPK_PIECE      /* what any carrier takes in one piece */
#define LEAST_TURN  ((size_t)4096) /* the rest of a batch that is worth one */
#define COPY_BYTES  ((size_t)1024) /* smaller pieces are copied together */
#define JOIN_BYTES  ((size_t)4096) /* small writes of a stream wait in one piece of memory */
#define FEW_BYTES   ((size_t)4096)
#define RETRY       SPOKE_MS /* after there was no memory */
#define PASSED_MOST 7u       /* turns that may go in front of a lower priority's */

/* ---- the batch ---- */

bool
spk_mux_batch_empty(const struct spk_mux_batch *b)
{
    return b->at == b->count;
}

static void
reset(struct spk_mux_batch *b)
{
    b->count = b->at = 0;
    b->size = b->used = 0;
}

void
spk_mux_batch_drop(struct spk_mux_batch *b)
{
    for (int i = b->at; i < b->count; i++) {
        if (b->owners[i] != NULL)
            spoke_msg_free(b->owners[i]);
    }
    reset(b);
    spk_fds_close(b->fds);
    b->fds = NULL;
}

static uint8_t *
scratch(struct spk_mux_batch *b)
{
    return b->scratch + b->used;
}

static size_t
scratch_left(const struct spk_mux_batch *b)
{
    return sizeof b->scratch - b->used;
}

static void
add_piece(struct spk_mux_batch *b, void *data, size_t size, spoke_msg *owner)
{
    b->pieces[b->count] = (struct iovec){data, size};
    b->owners[b->count++] = owner;
    b->size += size;
}

/* `size` bytes were put at scratch(). */
static void
add_scratch(struct spk_mux_batch *b, size_t size)
{
    uint8_t *data = scratch(b);

    b->used += size;
    if (b->count > b->at &&
        b->owners[b->count - 1] == NULL) { /* goes on where the last one ended */
        b->pieces[b->count - 1].iov_len += size;
        b->size += size;
    } else {
        add_piece(b, data, size, NULL);
    }
}

/* Is there room for any short message and a piece? */
static bool
has_room(const struct spk_mux_batch *b)
{
    return b->fds == NULL && b->count + 2 < SPK_MUX_PIECES && b->size + LEAST_TURN < BATCH_BYTES &&
           scratch_left(b) >= 2 * SPK_MUX_HEAD_MOST + 256;
}

static void
advance(struct spk_mux_batch *b, size_t size)
{
    while (size > 0) {
        struct iovec *piece = &b->pieces[b->at];
        size_t n = size < piece->iov_len ? size : piece->iov_len;

        piece->iov_base = (uint8_t *)piece->iov_base + n;
        piece->iov_len -= n;
        size -= n;
        if (piece->iov_len == 0) {
            if (b->owners[b->at] != NULL)
                spoke_msg_free(b->owners[b->at]);
            b->at++;
        }
    }
    if (spk_mux_batch_empty(b))
        reset(b);
}

/* ---- what is short ---- */

static void
say(struct spk_mux *m, enum spk_mux_kind kind, uint64_t id, uint64_t number, uint32_t length)
{
    add_scratch(&m->batch, spk_mux_encode(scratch(&m->batch), kind, id, number, length));
    m->info.messages_out++;
}

static void
say_echo(struct spk_mux *m, enum spk_mux_kind kind, const uint8_t bytes[8])
{
    add_scratch(&m->batch, spk_mux_encode_echo(scratch(&m->batch), kind, bytes));
    m->info.messages_out++;
}

static void
say_text(struct spk_mux *m, const char *text, size_t size)
{
    memcpy(scratch(&m->batch), text, size);
    add_scratch(&m->batch, size);
}

static void
say_preface(struct spk_mux *m)
{
    const struct spk_mux_preface mine = {.even = m->config.even,
                                         .has_fds = m->lets_fds,
                                         .data_most = SPK_MUX_DATA_MOST,
                                         .max_streams = (uint32_t)m->config.max_streams};

    spk_mux_write_preface(scratch(&m->batch), &mine);
    add_scratch(&m->batch, SPK_MUX_PREFACE_BYTES);
    m->preface_due = false;
}

static void
say_ping(struct spk_mux *m)
{
    uint8_t number[8];

    spk_put64(number, ++m->pings);
    say_echo(m, SPK_MUX_PING, number);
    m->pinged_ns = spk_engine_now(m->e);
    m->ping_due = false;
    m->ping_out = true;
}

/* Has the mux itself anything to say? */
static bool
says_own(const struct spk_mux *m)
{
    return m->preface_due || m->pong_count > 0 || m->ping_due || m->go_away_due ||
           m->heartbeat_due || m->fds_owed >= SPK_MUX_FDS_STEP;
}

/* One message of the mux itself.  False: there is none. */
static bool
say_own(struct spk_mux *m)
{
    if (m->preface_due) {
        say_preface(m);
    } else if (m->pong_count > 0) {
        say_echo(m, SPK_MUX_PONG, m->pongs[0]);
        memmove(m->pongs[0], m->pongs[1], sizeof m->pongs[0] * (size_t)--m->pong_count);
    } else if (m->ping_due) {
        say_ping(m);
    } else if (m->fds_owed >= SPK_MUX_FDS_STEP) {
        say(m, SPK_MUX_FD_CREDIT, 0, m->fds_owed, 0);
        m->fds_owed = 0;
    } else if (m->go_away_due) {
        size_t size = strlen(m->leave_text);

        say(m, SPK_MUX_GO_AWAY, m->accepted_id, m->leave_code, (uint32_t)size);
        say_text(m, m->leave_text, size);
        m->go_away_due = false;
    } else if (m->heartbeat_due) {
        say(m, SPK_MUX_HEARTBEAT, 0, 0, 0);
        m->heartbeat_due = false;
    } else {
        return false;
    }
    return true;
}

static void
say_open(struct spk_mux_stream *st)
{
    struct spk_mux *m = st->mux;
    spoke_msg *meta = st->meta;

    st->meta = NULL;
    if (meta == NULL) {
        say(m, SPK_MUX_OPEN, st->id, st->window, 0);
        return;
    }
    say(m, SPK_MUX_OPEN_META, st->id, st->window, (uint32_t)meta->size);
    if (meta->size > 0)
        add_piece(&m->batch, meta->body, meta->size, meta);
    else
        spoke_msg_free(meta);
}

static void
say_credit(struct spk_mux_stream *st)
{
    if (st->owed > 0)
        say(st->mux, SPK_MUX_CREDIT, st->id, st->owed, 0);
    st->in_room += st->owed;
    st->owed = 0;
}

/* What may leave: the end waits for the bytes before it. */
static unsigned
may_leave(const struct spk_mux_stream *st)
{
    return st->out_size > 0 ? st->due & ~(unsigned)SPK_MUX_DUE_LAST : st->due;
}

/* The first thing that it has to say. */
static void
say_due(struct spk_mux_stream *st)
{
    struct spk_mux *m = st->mux;
    unsigned due = may_leave(st), first = due & -due;

    st->due &= ~first;
    switch (first) {
    case SPK_MUX_DUE_OPEN: say_open(st); break;
    case SPK_MUX_DUE_ACCEPT:
        say(m, SPK_MUX_ACCEPT, st->id, st->window, 0);
        m->refused_in_a_row = 0;
        break;
    case SPK_MUX_DUE_CREDIT: say_credit(st); break;
    case SPK_MUX_DUE_STOP: say(m, SPK_MUX_STOP_READING, st->id, SPOKE_MUX_NONE, 0); break;
    case SPK_MUX_DUE_CLOSE_WRITE:
        say(m, SPK_MUX_CLOSE_WRITE, st->id, 0, 0);
        st->write_ended = true;
        break;
    case SPK_MUX_DUE_CLOSE: say(m, SPK_MUX_CLOSE, st->id, 0, 0); break;
    case SPK_MUX_DUE_RESET: say(m, SPK_MUX_RESET, st->id, st->code, 0); break;
    default: break;
    }
}

static bool
say_next(struct spk_mux *m)
{
    struct spk_mux_stream *st;

    if (say_own(m))
        return true;
    if (spk_list_empty(&m->control))
        return false;
    st = SPK_OWNER(m->control.next, struct spk_mux_stream, control);
    say_due(st);
    if (may_leave(st) == 0)
        spk_list_remove(&st->control);
    spk_mux_stream_free_if_done(st);
    return true;
}

/* ---- turns ---- */

/* Whose turn it is: the highest priority's, but a lower one has not been passed too often. */
static struct spk_mux_stream *
next_turn(struct spk_mux *m)
{
    int chosen = -1;

    if (m->unsent == 0) /* as most often, when streams come and go */
        return NULL;
    for (int p = 0; p < SPK_MUX_PRIORITIES; p++) {
        if (spk_list_empty(&m->turns[p])) {
            m->passed[p] = 0;
            continue;
        }
        chosen = p;
        if (m->passed[p] >= PASSED_MOST)
            break;
    }
    if (chosen < 0)
        return NULL;
    for (int p = 0; p < chosen; p++)
        m->passed[p] += !spk_list_empty(&m->turns[p]);
    m->passed[chosen] = 0;
    return SPK_OWNER(m->turns[chosen].next, struct spk_mux_stream, turn);
}

static size_t
turn_most(const struct spk_mux *m)
{
    return m->peer.data_most < SPK_MUX_TURN_BYTES ? m->peer.data_most : SPK_MUX_TURN_BYTES;
}

/* How many of its bytes fit into one message now. */
static size_t
turn_size(const struct spk_mux *m, const struct spk_mux_stream *st)
{
    size_t left = BATCH_BYTES - m->batch.size - SPK_MUX_HEAD_MOST;
    size_t most = turn_most(m) < left ? turn_most(m) : left, size = 0;
    int pieces = m->batch.count + 1;

    for (spoke_msg *part = st->out; part != NULL && size < most && pieces < SPK_MUX_PIECES;
         part = part->next, pieces++) {
        if (spk_mux_is_with_fds(part))
            break;
        size += part->size;
    }
    return size < most ? size : most;
}

/* The first `size` bytes of its first part, at most. */
static size_t
add_part(struct spk_mux *m, struct spk_mux_stream *st, size_t size)
{
    struct spk_mux_batch *b = &m->batch;
    spoke_msg *part = st->out;
    size_t n = size < part->size ? size : part->size;
    bool copies = n <= COPY_BYTES && n + SPK_MUX_HEAD_MOST <= scratch_left(b);
    bool whole = n == part->size;

    if (copies) {
        memcpy(scratch(b), part->body, n);
        add_scratch(b, n);
    } else {
        add_piece(b, part->body, n, whole ? part : spoke_msg_dup(part));
    }
    if (!whole) {
        part->body += n;
        part->size -= n;
        return n;
    }
    if ((st->out = part->next) == NULL)
        st->out_end = &st->out;
    if (copies)
        spoke_msg_free(part);
    return n;
}

static void
count_writer(struct spk_mux_stream *st)
{
    bool writes = st->out_size > 0 || !spk_list_empty(&st->room);

    if (writes != st->writes)
        st->mux->writers += writes ? 1 : (uint32_t)-1;
    st->writes = writes;
}

/* The head of what is with descriptors, in a batch of its own. */
static size_t
begin_with_fds(struct spk_mux_stream *st)
{
    struct spk_fds *set = st->out_fds;
    struct spk_mux *m = st->mux;

    if ((st->out_fds = set->next) == NULL)
        st->out_fds_end = &st->out_fds;
    m->batch.fds = set;
    m->fds_queued -= (uint32_t)set->count;
    m->fds_out += (uint32_t)set->count;
    m->info.fds_out += (uint64_t)set->count;
    say(m, SPK_MUX_DATA_FD, st->id, (uint64_t)set->count, (uint32_t)st->out->size);
    return st->out->size;
}

static bool
take_turn(struct spk_mux *m)
{
    struct spk_mux_stream *st = next_turn(m);
    size_t size;

    if (st == NULL)
        return false;
    if (!spk_mux_is_with_fds(st->out)) {
        size = turn_size(m, st);
        say(m, SPK_MUX_DATA, st->id, 0, (uint32_t)size);
    } else if (spk_mux_batch_empty(&m->batch)) {
        size = begin_with_fds(st);
    } else {
        m->fds_next = true;
        m->passed[st->priority] = PASSED_MOST; /* it is still its turn */
        return false;
    }
    st->out_size -= size;
    m->unsent -= size;
    m->info.data_out += size;
    m->data_bytes += size;
    st->data_out += size;
    st->turns++;
    while (size > 0)
        size -= add_part(m, st, size);
    spk_list_remove(&st->turn);
    count_writer(st);
    spk_mux_schedule(st); /* at the end of its line, if it has more */
    spk_mux_stream_free_if_done(st);
    return true;
}

/* ---- writing ---- */

/* How many write, for their shares: those that have just been told that there is room again are
 * still of them, and are forgotten slowly. */
static void
count_busy(struct spk_mux *m)
{
    m->busy -= (m->busy + 7) / 8;
    if (m->busy < m->writers)
        m->busy = m->writers;
}

static bool
fill(struct spk_mux *m)
{
    count_busy(m);
    if (m->preface_due && m->carrier->fds_due) /* what it promises is not so yet */
        return false;
    if (m->fds_next) {
        m->fds_next = false;
        (void)take_turn(m);
    }
    while (m->known && has_room(&m->batch) && (say_next(m) || take_turn(m))) {
    }
    return !spk_mux_batch_empty(&m->batch);
}

/* What each that writes can have of the send queue. */
static size_t
share_of(const struct spk_mux *m, uint32_t writers)
{
    uint32_t most = m->busy > writers ? m->busy : writers;

    return m->config.send_queue_bytes / (most > 0 ? most : 1);
}

/* More of them than have a turn in it: they wait in a line, for a turn each. */
static bool
is_crowd(const struct spk_mux *m, uint32_t writers)
{
    return writers > 0 && share_of(m, writers) < SPK_MUX_TURN_BYTES;
}

static size_t
queue_left(const struct spk_mux *m)
{
    size_t queue = m->config.send_queue_bytes;

    return m->unsent < queue ? queue - m->unsent : 0;
}

static void
tell_writer(struct spk_mux_stream *st)
{
    spk_mux_wait_no_more(st);
    if (st->conn != NULL)
        spk_conn_writable(st->conn);
}

/* A message costs less than to copy what is in it; a system call does not. */
static bool
takes_messages(const struct spk_mux *m)
{
    return m->carrier->carrier != NULL && m->carrier->carrier->read == NULL;
}

static bool
wants_to_write(const struct spk_mux_stream *st)
{
    return st->conn != NULL && st->conn->write_full;
}

/* As many as there is room for, and more when these have been called, whether they write or not.
 * Where bytes go past the queue there is no room while the carrier is full.  Some are only in the
 * line because they have had something, and some cannot use their turn before they have credit. */
static void
tell_line(struct spk_mux *m)
{
    size_t left = queue_left(m);

    if (!m->e->shared && takes_messages(m) && !spk_mux_batch_empty(&m->batch))
        return;
    while (m->granted < left && !spk_list_empty(&m->room)) {
        struct spk_mux_stream *st = SPK_OWNER(m->room.next, struct spk_mux_stream, room);

        spk_mux_wait_no_more(st);
        st->had = 0;
        if (!wants_to_write(st))
            continue;
        st->granted = SPK_MUX_TURN_BYTES;
        if (st->credit == 0)
            continue;
        m->granted += SPK_MUX_TURN_BYTES;
        tell_writer(st);
        spk_task_queue_callback(m->e, &m->again);
    }
}

/* Those whose writers have found no room and have some now. */
static void
tell_writers(struct spk_mux *m)
{
    struct spk_link *link, *next;

    if (is_crowd(m, m->writers)) {
        tell_line(m);
        return;
    }
    for (link = m->room.next; link != &m->room; link = next) {
        struct spk_mux_stream *st = SPK_OWNER(link, struct spk_mux_stream, room);
        size_t room = spk_mux_room(st);

        next = link->next;
        if (room >= SPK_MUX_TURN_BYTES / 2 || room >= st->credit)
            tell_writer(st);
    }
}

static void
has_written(struct spk_mux *m, size_t size)
{
    m->stuck_ns = SPOKE_FOREVER;
    m->sent_ns = spk_engine_now(m->e);
    m->burst = m->e->burst;
    m->e->written += size;
    m->info.writes++;
    m->info.bytes_out += size;
}

static void
write_failed(struct spk_mux *m)
{
    m->write_failed = true; /* what has arrived is still read */
    m->failed_ns = spk_engine_now(m->e);
    m->stuck_ns = SPOKE_FOREVER;
    spk_mux_batch_drop(&m->batch);
    spk_mux_set_timer(m);
}

static int64_t
write_batch(struct spk_mux *m)
{
    struct spk_mux_batch *b = &m->batch;
    const struct iovec *pieces = b->pieces + b->at;
    int64_t n;

    if (b->fds == NULL)
        return spk_conn_try_write(m->carrier, pieces, b->count - b->at);
    n = spk_conn_try_write_fds(m->carrier, pieces, b->count - b->at, b->fds->numbers,
                               b->fds->count);
    m->fds_limited = n == SPOKE_ELIMIT;
    if (n > 0) {
        spk_fds_free(b->fds); /* the carrier has them */
        b->fds = NULL;
    }
    return m->fds_limited ? SPOKE_ENOMEM : n; /* others may take theirs */
}

bool
spk_mux_may_hold_back(const struct spk_mux *m)
{
    const struct spk_engine *e = m->e;

    /* The end of the turn in which the user is called; on a shared engine whoever waits, or its
     * thread. */
    return m->burst == e->burst && (e->shared || e->in_callback > 0) &&
           m->unsent < (e->in_callback > 0 ? BATCH_BYTES : SPK_MUX_TURN_BYTES) &&
           spk_mux_batch_empty(&m->batch);
}

void
spk_mux_hold_back(struct spk_mux *m)
{
    if (spk_list_empty(&m->flush.link))
        spk_list_append(&m->e->flushes, &m->flush.link);
}

bool
spk_mux_others_follow(const struct spk_mux *m)
{
    return m->e->in_callback > 0 && !spk_engine_may_wait(m->e) && m->granted > 0 &&
           m->unsent < BATCH_BYTES && spk_mux_batch_empty(&m->batch);
}

void
spk_mux_write(struct spk_mux *m)
{
    struct spk_mux_batch *b = &m->batch;

    spk_list_remove(&m->flush.link);
    m->credits_held = 0;

    while (!m->write_failed && !m->shut && (!spk_mux_batch_empty(b) || fill(m))) {
        int64_t n = write_batch(m);

        if (n == SPOKE_EAGAIN || n == SPOKE_ENOMEM) {
            if (m->stuck_ns == SPOKE_FOREVER)
                m->stuck_ns = spk_engine_now(m->e);
            if (n == SPOKE_ENOMEM) {
                m->retry_ns = spk_engine_now(m->e) + RETRY;
                spk_mux_set_timer(m);
            }
            break;
        }
        if (n < 0) {
            write_failed(m);
            break;
        }
        has_written(m, (size_t)n);
        advance(b, (size_t)n);
    }
    tell_writers(m);
}

/* ---- what streams have ---- */

void
spk_mux_line_up(struct spk_mux_stream *st)
{
    struct spk_mux *m = st->mux;

    if (may_leave(st) != 0 && spk_list_empty(&st->control))
        spk_list_append(&m->control, &st->control);
    if (st->out_size > 0 && spk_list_empty(&st->turn))
        spk_list_append(&m->turns[st->priority], &st->turn);
}

void
spk_mux_schedule(struct spk_mux_stream *st)
{
    spk_mux_line_up(st);
    spk_mux_kick(st->mux);
    if (st->finishing && st->out_size == 0)
        spk_mux_detach(st, SPOKE_ECLOSED);
}

/* The carrier is full, and whoever has to wait for it may as well do so now as copy ahead: he goes
 * on himself when there is room.  On a shared engine that is another thread, which has to be woken
 * first. */
static bool
waits_with_carrier(const struct spk_mux_stream *st)
{
    return !spk_mux_batch_empty(&st->mux->batch) && !st->mux->e->shared && st->conn != NULL &&
           st->conn->write.deadline != SPOKE_NOW;
}

/* Its share of the send queue, which all that write have in equal parts.  In a crowd a turn, when
 * it is told; and a few bytes in advance of it: it may have had nothing to say so far. */
size_t
spk_mux_room(struct spk_mux_stream *st)
{
    const struct spk_mux *m = st->mux;
    uint32_t writers = m->writers + !st->writes;
    size_t share, room;

    if (is_crowd(m, writers)) {
        room = st->granted > 0 ? st->granted : st->had < FEW_BYTES ? FEW_BYTES - st->had : 0;
    } else {
        share = waits_with_carrier(st) ? 0 : share_of(m, writers);
        if (share > st->out_size + queue_left(m))
            share = st->out_size + queue_left(m);
        if (share < SPK_MUX_TURN_BYTES)
            share = SPK_MUX_TURN_BYTES;
        room = st->out_size < share ? share - st->out_size : 0;
    }
    return st->credit < room ? (size_t)st->credit : room;
}

void
spk_mux_wait_for_room(struct spk_mux_stream *st)
{
    if (st->credit == 0) /* it is told when there is some */
        return;
    if (spk_list_empty(&st->room))
        spk_list_append(&st->mux->room, &st->room);
    count_writer(st);
    if (queue_left(st->mux) > 0) /* perhaps nobody else would tell it */
        spk_mux_kick(st->mux);
}

void
spk_mux_wait_no_more(struct spk_mux_stream *st)
{
    spk_list_remove(&st->room);
    count_writer(st);
}

/* Whoever has had his turn, or something in advance of it, stands behind those that wait, whether
 * he has more to say or not: else he could have something in advance each time. */
static void
use_grant(struct spk_mux_stream *st, size_t size)
{
    struct spk_mux *m = st->mux;
    size_t used = size < st->granted ? size : st->granted;

    st->granted -= used;
    m->granted -= used < m->granted ? used : m->granted;
    if (m->writers == st->writes || !is_crowd(m, m->writers))
        return;
    st->had += size;
    if (st->granted == 0 && spk_list_empty(&st->room))
        spk_list_append(&m->room, &st->room);
}

static void
queued(struct spk_mux_stream *st, size_t size)
{
    st->out_size += size;
    use_grant(st, size);
    st->credit -= size;
    st->mux->unsent += size;
    count_writer(st);
    spk_mux_schedule(st);
}

void
spk_mux_queue(struct spk_mux_stream *st, spoke_msg *m)
{
    m->next = NULL;
    *st->out_end = m;
    st->out_end = &m->next;
    queued(st, m->size);
}

int
spk_mux_queue_bytes(struct spk_mux_stream *st, size_t size, const struct iovec *buffers)
{
    spoke_msg *m;
    uint8_t *to;
    int rc;

    if (st->out != NULL) {
        m = SPK_OWNER(st->out_end, spoke_msg, next);
        if (!spk_mux_is_with_fds(m) && (to = spk_room_behind(m, size)) != NULL) {
            spk_gather(to, size, buffers);
            m->size += size;
            queued(st, size);
            return 0;
        }
    }
    /* What comes on top of something is small writes that others will follow. */
    if ((rc = spoke_msg_new(&m, st->out == NULL || size >= JOIN_BYTES ? size : 0)) != 0)
        return rc;
    if (m->size == 0) {
        if ((rc = spk_msg_reserve(m, JOIN_BYTES)) != 0 ||
            (rc = spoke_msg_append(m, NULL, size)) != 0) {
            spoke_msg_free(m);
            return rc;
        }
    }
    spk_gather(m->body, size, buffers);
    spk_mux_queue(st, m);
    return 0;
}

uint32_t
spk_mux_fd_room(const struct spk_mux *m)
{
    return SPK_MUX_FDS_OUT - m->fds_out - m->fds_queued;
}

void
spk_mux_tell_fd_room(struct spk_mux *m)
{
    while (!spk_list_empty(&m->fd_room)) {
        struct spk_mux_stream *st = SPK_OWNER(spk_list_take(&m->fd_room), struct spk_mux_stream,
                                              fd_room);

        if (st->conn != NULL)
            spk_conn_writable(st->conn);
    }
}

int
spk_mux_queue_fds(struct spk_mux_stream *st, size_t size, const struct iovec *buffers,
                  const int *fds, int n)
{
    const uint8_t mark = SPK_MUX_DATA_FD;
    struct spk_fds *set;
    spoke_msg *m;
    int rc = spoke_msg_new(&m, size);

    if (rc != 0)
        return rc;
    if (spoke_msg_header_append(m, &mark, sizeof mark) != 0 ||
        (set = spk_fds_new(fds, n)) == NULL) {
        spoke_msg_free(m);
        return SPOKE_ENOMEM;
    }
    spk_gather(m->body, size, buffers);
    *st->out_fds_end = set;
    st->out_fds_end = &set->next;
    st->mux->fds_queued += (uint32_t)n;
    spk_mux_queue(st, m);
    return 0;
}

static void
drop_fds(struct spk_mux_stream *st)
{
    spk_list_remove(&st->fd_room);
    if (st->out_fds == NULL)
        return;
    for (const struct spk_fds *set = st->out_fds; set != NULL; set = set->next)
        st->mux->fds_queued -= (uint32_t)set->count;
    spk_fds_close_queue(&st->out_fds);
    st->out_fds_end = &st->out_fds;
    spk_mux_tell_fd_room(st->mux);
}

/* ---- past the queue ---- */

#define THROUGH_MESSAGES 16
#define THROUGH_PIECES   40

/* Messages of data whose bytes are where the user has them. */
struct through {
    uint8_t heads[THROUGH_MESSAGES][SPK_MUX_HEAD_MOST];
    size_t head_sizes[THROUGH_MESSAGES], sizes[THROUGH_MESSAGES];
    struct iovec pieces[THROUGH_PIECES];
    int messages, count;
    size_t all; /* heads too */
};

/* Does nothing wait to leave, and is this worth a write by itself? */
static bool
may_pass(const struct spk_mux_stream *st, size_t size)
{
    const struct spk_mux *m = st->mux;
    bool is_turn = m->writers == 0 || (st->granted > 0 && takes_messages(m));

    return is_turn && m->unsent == 0 && spk_mux_batch_empty(&m->batch) && m->known &&
           st->credit > 0 && spk_list_empty(&m->control) && !says_own(m) && !m->write_failed &&
           !m->shut && (size >= SPK_MUX_TURN_BYTES || !spk_mux_may_hold_back(m));
}

/* One more message, of what the buffers have from *offset of the first on. */
static bool
add_through(struct through *t, const struct spk_mux_stream *st, uint64_t most,
            const struct iovec **buffers, int *count, size_t *offset)
{
    int left = THROUGH_PIECES - t->count - 1;
    size_t size = 0;
    struct iovec *first;
    uint8_t *head;

    if (t->messages == THROUGH_MESSAGES || left <= 0)
        return false;
    head = t->heads[t->messages];
    first = &t->pieces[t->count];
    while (left > 0 && *count > 0 && size < most) {
        size_t n = (*buffers)->iov_len - *offset;

        if (n > most - size)
            n = (size_t)(most - size);
        t->pieces[++t->count] = (struct iovec){(uint8_t *)(*buffers)->iov_base + *offset, n};
        size += n;
        *offset += n;
        left--;
        if (*offset == (*buffers)->iov_len) {
            ++*buffers;
            --*count;
            *offset = 0;
        }
    }
    if (size == 0)
        return false;
    t->count++;
    t->head_sizes[t->messages] = spk_mux_encode(head, SPK_MUX_DATA, st->id, 0, (uint32_t)size);
    *first = (struct iovec){head, t->head_sizes[t->messages]};
    t->sizes[t->messages] = size;
    t->all += size + t->head_sizes[t->messages++];
    return true;
}

static void
count_through(struct spk_mux_stream *st, size_t size)
{
    struct spk_mux *m = st->mux;

    use_grant(st, size);
    count_writer(st);
    st->credit -= size;
    st->data_out += size;
    st->turns++;
    m->info.data_out += size;
    m->data_bytes += size;
    m->info.messages_out++;
}

/* The carrier took `n` bytes of it: the message that it has begun with has to be the next thing
 * there, the user has his memory back. */
static size_t
end_through(struct through *t, struct spk_mux_stream *st, size_t n)
{
    struct spk_mux_batch *b = &st->mux->batch;
    struct iovec *piece = t->pieces;
    size_t done = 0;

    for (int i = 0; i < t->messages && n > 0; i++) {
        size_t left = t->head_sizes[i] + t->sizes[i];

        for (; left > 0; piece++) {
            size_t taken = n < piece->iov_len ? n : piece->iov_len, rest = piece->iov_len - taken;

            if (rest > 0) {
                memcpy(scratch(b), (uint8_t *)piece->iov_base + taken, rest);
                add_scratch(b, rest);
            }
            n -= taken;
            left -= piece->iov_len;
        }
        count_through(st, t->sizes[i]);
        done += t->sizes[i];
    }
    return done;
}

size_t
spk_mux_write_through(struct spk_mux_stream *st, const struct iovec *buffers, int count)
{
    struct spk_mux *m = st->mux;
    uint64_t left = m->writers > 0 && st->granted < st->credit ? st->granted : st->credit;
    size_t most = takes_messages(m) ? SPK_PIECE : THROUGH_MESSAGES * SPK_MUX_TURN_BYTES;
    struct through t;
    size_t offset = 0, done;
    int64_t n;

    if (!may_pass(st, spk_piece(buffers, count, left)))
        return 0;
    t.messages = t.count = 0;
    t.all = 0;
    while (left > 0 && t.all + LEAST_TURN < most) {
        uint64_t turn = most - t.all - SPK_MUX_HEAD_MOST;

        turn = turn < turn_most(m) ? turn : turn_most(m);
        if (!add_through(&t, st, left < turn ? left : turn, &buffers, &count, &offset))
            break;
        left -= t.sizes[t.messages - 1];
    }
    n = spk_conn_try_write(m->carrier, t.pieces, t.count);
    if (n <= 0) /* the queue's matter, whatever it is */
        return 0;
    has_written(m, (size_t)n);
    done = end_through(&t, st, (size_t)n);
    if (!spk_mux_batch_empty(&m->batch))
        spk_mux_kick(m);
    return done;
}

void
spk_mux_drop_out(struct spk_mux_stream *st)
{
    drop_fds(st);
    while (st->out != NULL) {
        spoke_msg *m = st->out;

        st->out = m->next;
        spoke_msg_free(m);
    }
    st->out_end = &st->out;
    st->mux->unsent -= st->out_size;
    st->out_size = 0;
    spk_list_remove(&st->turn);
    spk_list_remove(&st->room);
    count_writer(st);
}
