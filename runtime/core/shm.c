/* SPDX-License-Identifier: MIT */
/* Messages through shared memory.  shmloan.c has the bodies that lie there.
 *
 * Out: what is small is copied into the ring; the body of what is large lies in the socket's
 * segment already, or is copied there, once for all pipes, and only a loan goes through the ring.
 * What finds no place there goes through the ring in pieces.
 *
 * In: small messages are copied out; a loan becomes a message whose body is the sender's memory,
 * read-only, and goes home when that is freed, on whatever thread.
 *
 * Who finds nothing says that it is asleep, and the other end rings its bell, a pipe.  That one's
 * other end also tells when the peer is gone, or has given its last loan back. */
#include "runtime/core/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/core/shmend.h"
#include "runtime/engine/probe.h"

#define INLINE_MOST                                                                                \
    ((size_t)16 * 1024) /* larger messages that are not lent come in pieces; and no                \
                           more than an eighth of the ring */
#define RING_STEP ((uint64_t)16 * 1024)
#define LAP_LEAST ((uint64_t)128 * 1024) /* of the ring, before it goes on at its start */
#define LAP_FAST(lap)                                                                              \
    ((spoke_ns)(lap)*10) /* ns: a lap in less time makes the next one longer: 100 MB/s */
#define RUN_MOST     32
#define AHEAD        4    /* each is fetched into the cache so many before its turn */
#define TURN_MOST    1024 /* messages that one pipe may deliver in a turn */
#define RESERVE_STEP ((size_t)1024 * 1024) /* memory for a body that has only been announced */

/* ---- the other end ---- */

static void
ring_bell(struct spk_shm *shm)
{
    ssize_t n;

    do
        n = write(shm->their_bell, "", 1); /* full: it has been rung often enough */
    while (n < 0 && errno == EINTR);
    SPK_STOP_POINT(BELL);
}

/* The other end may sleep and care for what we have just written. */
static void
announce(struct spk_shm *shm)
{
    if (spk_shm_must_ring(shm->r.theirs, SPK_SHM_RECORDS, &shm->rung))
        ring_bell(shm);
}

void
spk_shm_broken(struct spk_shm *shm, int reason)
{
    if (reason == SPOKE_EPROTO)
        spk_count_drops(shm->pipe->socket, shm->pipe, SPK_DROP_GARBLED, 1);
    spk_pipe_shut(shm->pipe, reason);
}

/* ---- out ---- */

static bool
extend_ring(struct spk_shm *shm, uint64_t end)
{
    struct spk_shm_writer *w = &shm->w;
    uint64_t more = (end - w->exists + RING_STEP - 1) & ~(RING_STEP - 1);

    if (spk_region_reserve(&shm->half, SPK_SHM_RING + (size_t)w->exists, (size_t)more) != 0)
        return false;
    w->exists += more;
    return true;
}

/* The end of what exists of the ring is reached.  A connection of few messages stays small.  One
 * that carries much, to a reader that keeps up, gets more of the ring: where the writer writes what
 * the reader has read long ago it need not wait for the reader's cache.  For all others the ring is
 * as long as it is.  False: there is no memory. */
static bool
lengthen(struct spk_shm *shm, uint64_t whole)
{
    struct spk_shm_writer *w = &shm->w;
    uint64_t unread = w->at - w->seen_head, offset = w->at & (w->size - 1);
    spoke_ns now;
    bool grows;

    if (spk_shm_end(w, whole) <= w->exists)
        return true;
    if (w->exists < LAP_LEAST)
        return extend_ring(shm, spk_shm_end(w, whole));
    now = spk_engine_now(shm->e);
    grows = now - shm->lap_ns < LAP_FAST(w->exists) && unread <= w->exists / 2;
    if (grows && extend_ring(shm, 2 * w->exists < w->size ? 2 * w->exists : w->size)) {
        shm->lap_ns = now;
    } else if (unread + whole <= offset) {
        shm->lap_ns = now;
        spk_shm_wrap(w);
    }
    return true;
}

static uint8_t *
reserve(struct spk_shm *shm, size_t payload)
{
    uint8_t *room = spk_shm_reserve(&shm->w, (uint32_t)payload);

    if (room != NULL)
        return room;
    if (spk_shm_look(&shm->w) != 0) {
        spk_shm_broken(shm, SPOKE_EPROTO);
        return NULL;
    }
    if (!lengthen(shm, spk_shm_whole((uint32_t)payload))) {
        spk_pipe_shut(shm->pipe, SPOKE_ENOMEM);
        return NULL;
    }
    return spk_shm_reserve(&shm->w, (uint32_t)payload);
}

static void
copy_message(uint8_t *to, const spoke_msg *m)
{
    if (m->header_size > 0)
        memcpy(to, m->header, m->header_size);
    if (m->size > 0)
        memcpy(to + m->header_size, m->body, m->size);
}

static bool
put_inline(struct spk_shm *shm, const spoke_msg *m)
{
    size_t size = m->header_size + m->size;
    uint8_t *room = reserve(shm, size);

    if (room == NULL)
        return false;
    copy_message(room, m);
    SPK_STOP_POINT(INLINE);
    spk_shm_commit(&shm->w, SPK_SHM_MESSAGE, (uint32_t)size);
    return true;
}

static bool
put_loan(struct spk_shm *shm, spoke_msg *m)
{
    struct spk_shm_loan loan;
    size_t size = sizeof loan + m->header_size;
    uint8_t *room;

    if (spk_shm_collect(shm) != 0) {
        spk_shm_broken(shm, SPOKE_EPROTO);
        return false;
    }
    if (!spk_shm_may_lend(shm) || (room = reserve(shm, size)) == NULL ||
        !spk_shm_lend(shm, m, &loan))
        return false;
    memcpy(room, &loan, sizeof loan);
    if (m->header_size > 0)
        memcpy(room + sizeof loan, m->header, m->header_size);
    SPK_STOP_POINT(LOAN);
    spk_shm_commit(&shm->w, SPK_SHM_LOAN, (uint32_t)size);
    return true;
}

/* The bytes from `at` on of header and body. */
static void
copy_piece(uint8_t *to, const spoke_msg *m, size_t at, size_t size)
{
    size_t head = at < m->header_size ? m->header_size - at : 0;

    if (head > size)
        head = size;
    if (head > 0)
        memcpy(to, m->header + at, head);
    if (size > head)
        memcpy(to + head, m->body + (at + head - m->header_size), size - head);
}

/* As far as there is room.  True: the whole is out. */
static bool
put_pieces(struct spk_shm *shm, const spoke_msg *m)
{
    uint64_t all = m->header_size + m->size;
    uint8_t *room;

    if (!shm->begun) {
        if ((room = reserve(shm, sizeof all)) == NULL)
            return false;
        memcpy(room, &all, sizeof all);
        SPK_STOP_POINT(BEGIN);
        spk_shm_commit(&shm->w, SPK_SHM_BEGIN, sizeof all);
        shm->begun = true;
        shm->sent = 0;
    }
    while (shm->sent < all) {
        size_t n = (size_t)all - shm->sent < shm->inline_most ? (size_t)all - shm->sent
                                                              : shm->inline_most;

        if ((room = reserve(shm, n)) == NULL)
            return false;
        copy_piece(room, m, shm->sent, n);
        SPK_STOP_POINT(PIECE);
        spk_shm_commit(&shm->w, SPK_SHM_PIECE, (uint32_t)n);
        spk_shm_publish(&shm->w);
        shm->sent += n;
    }
    shm->begun = false;
    return true;
}

static bool
put(struct spk_shm *shm, spoke_msg *m)
{
    size_t size = m->header_size + m->size;

    if (shm->begun)
        return put_pieces(shm, m);
    if (m->size >= shm->lend_least && m->size > 0 && shm->lends && put_loan(shm, m))
        return true;
    if (shm->pipe->state != SPK_PIPE_ATTACHED)
        return false;
    return size <= shm->inline_most ? put_inline(shm, m) : put_pieces(shm, m);
}

/* Room for what waits, or for whatever comes next? */
static bool
has_room(const struct spk_shm *shm)
{
    const struct spk_shm_writer *w = &shm->w;
    uint64_t head = atomic_load_explicit(&shm->r.theirs->head, memory_order_acquire);
    uint64_t lap = w->exists > LAP_LEAST ? w->exists : LAP_LEAST;

    return w->at - head <= (lap < w->size ? lap : w->size) / 2;
}

static void
after_put(struct spk_shm *shm)
{
    spk_shm_publish(&shm->w);
    if (spk_list_empty(&shm->flush.link)) {
        announce(shm);
        if (shm->e->cork > 0)
            spk_list_append(&shm->e->flushes, &shm->flush.link);
    }
}

static void
on_flush(struct spk_flush *flush)
{
    announce(SPK_OWNER(flush, struct spk_shm, flush));
}

static void look_for_more(struct spk_shm *shm);
static void look_around(struct spk_shm *shm);

int
spk_shm_send(struct spk_shm *shm, spoke_msg *m)
{
    if (put(shm, m)) {
        after_put(shm); /* first: the other end may be looking */
        spoke_msg_free(m);
        return 0;
    }
    shm->sending = m; /* also if the pipe has just been shut: lost with it */
    spk_pipe_set_writable(shm->pipe, false);
    after_put(shm);
    look_for_more(shm);
    return 0;
}

int
spk_shm_send_many(struct spk_shm *shm, spoke_msg **messages, int count, uint64_t *bytes)
{
    int done = 0;

    while (done < count && spk_pipe_can_send(shm->pipe)) {
        spoke_msg *m = messages[done];
        uint8_t *room;

        if (count - done > AHEAD)
            spk_msg_prefetch(messages[done + AHEAD]);
        if (m->size > SPK_BODY_INLINE || m->size >= shm->lend_least || m->header_size > 0 ||
            m->expires || m->returns || (room = reserve(shm, m->size)) == NULL)
            break;
        memcpy(room, m->body, m->size);
        SPK_STOP_POINT(RUN);
        spk_shm_commit(&shm->w, SPK_SHM_MESSAGE, (uint32_t)m->size);
        SPK_PROBE(send, shm->pipe->id, m->size);
        *bytes += m->size;
        done++;
    }
    if (done == 0)
        return 0;
    after_put(shm);
    spk_msg_free_many(messages, done);
    return done;
}

/* What waits goes on. */
static void
go_on_sending(struct spk_shm *shm)
{
    spoke_msg *m = shm->sending;

    if (shm->pipe->writable || shm->pipe->state != SPK_PIPE_ATTACHED || !shm->sending_on)
        return;
    if (m != NULL && !put(shm, m)) {
        after_put(shm);
        return;
    }
    if (m != NULL) {
        shm->sending = NULL;
        spoke_msg_free(m);
        after_put(shm);
    }
    spk_pipe_set_writable(shm->pipe, true);
    spk_socket_advance_close(shm->pipe->socket);
}

uint64_t
spk_shm_pending(const struct spk_shm *shm, uint64_t *bytes)
{
    const spoke_msg *m = shm->sending;

    *bytes = m == NULL ? 0 : m->header_size + m->size - (shm->begun ? shm->sent : 0);
    return m != NULL;
}

void
spk_shm_give_back(struct spk_shm *shm)
{
    spoke_msg *m = shm->sending;

    if (m == NULL || !m->returns)
        return;
    shm->sending = NULL;
    spk_give_back(shm->pipe->socket, m, SPOKE_ECONNRESET);
}

/* ---- in ---- */

static int
begin_body(struct spk_shm *shm, const struct spk_shm_record *record)
{
    uint64_t length;

    if (record->size != sizeof length || shm->body != NULL)
        return SPOKE_EPROTO;
    memcpy(&length, record->data, sizeof length);
    spk_shm_read_once();
    if (length == 0)
        return SPOKE_EPROTO;
    if (!spk_pipe_length_is_fine(shm->pipe, length))
        return SPOKE_EMSGSIZE;
    if (spoke_msg_new(&shm->body, 0) != 0 ||
        spk_msg_reserve(shm->body, length < RESERVE_STEP ? (size_t)length : RESERVE_STEP) != 0)
        return SPOKE_ENOMEM;
    shm->body_size = (size_t)length;
    return 0;
}

static int
continue_body(struct spk_shm *shm, const struct spk_shm_record *record)
{
    spoke_msg *m = shm->body;

    if (m == NULL || record->size == 0 || record->size > shm->body_size - m->size)
        return SPOKE_EPROTO;
    if (spk_msg_reserve(m, m->size + record->size) != 0)
        return SPOKE_ENOMEM;
    memcpy(m->body + m->size, record->data, record->size);
    m->size += record->size;
    return 0;
}

/* What a record makes of it: *m is a whole message, or NULL if it was only a part of one. */
static int
read_record(struct spk_shm *shm, const struct spk_shm_record *record, spoke_msg **m)
{
    int rc = SPOKE_EPROTO;

    *m = NULL;
    switch (shm->body != NULL && record->kind != SPK_SHM_PIECE ? SPK_SHM_SKIP : record->kind) {
    case SPK_SHM_MESSAGE:
        if (!spk_pipe_length_is_fine(shm->pipe, record->size))
            return SPOKE_EMSGSIZE;
        return spoke_msg_from(m, record->data, record->size);
    case SPK_SHM_LOAN: return (*m = spk_shm_borrow(shm, record, &rc)) != NULL ? 0 : rc;
    case SPK_SHM_BEGIN: return begin_body(shm, record);
    case SPK_SHM_PIECE:
        if ((rc = continue_body(shm, record)) == 0 && shm->body->size == shm->body_size) {
            *m = shm->body;
            shm->body = NULL;
        }
        return rc;
    default: return SPOKE_EPROTO;
    }
}

/* Small messages, delivered together.  Returns how many, 0: the next one is not as simple. */
static int
take_small(struct spk_shm *shm, int most, size_t cost)
{
    size_t limit = shm->pipe->endpoint->options.max_recv_size;
    struct iovec bodies[RUN_MOST];
    spoke_msg *messages[RUN_MOST];
    struct spk_shm_reader ahead = shm->r;
    struct spk_shm_record record;
    uint64_t ends[RUN_MOST];
    int count = 0, made;

    if (limit == 0 || limit > SPK_BODY_INLINE)
        limit = SPK_BODY_INLINE;
    if (most > RUN_MOST)
        most = RUN_MOST;
    while (count < most && cost > 0 && spk_shm_next(&ahead, &record) == 1 &&
           record.kind == SPK_SHM_MESSAGE && record.size <= limit) {
        size_t c = record.size + sizeof(spoke_msg);

        bodies[count] = (struct iovec){(void *)(uintptr_t)record.data, record.size};
        spk_shm_take(&ahead, &record);
        ends[count++] = ahead.at;
        cost -= c < cost ? c : cost;
    }
    if (count == 0 || (made = spk_msg_from_many(messages, bodies, count)) == 0)
        return 0;
    shm->r.seen_tail = ahead.seen_tail;
    shm->r.at = ends[made - 1];
    spk_pipe_received_many(shm->pipe, messages, made);
    return made;
}

/* Returns how many messages, or pieces of one, were taken, 0: there are none; TURN_OVER: the pipe
 * has to stop; BEHIND: … as the reader has enough. */
enum { BEHIND = -1, TURN_OVER = INT32_MAX };

static int
take_some(struct spk_shm *shm, int most)
{
    struct spk_pipe *p = shm->pipe;
    struct spk_shm_record record;
    spoke_msg *m = NULL;
    size_t cost;
    int room, n;

    if (p->state != SPK_PIPE_ATTACHED || p->held != NULL)
        return TURN_OVER;
    if ((room = spk_pipe_room(p, SPK_READ_AHEAD, &cost)) == 0)
        return BEHIND;
    if (room != SPK_ONE_BY_ONE && shm->body == NULL &&
        (n = take_small(shm, room < most ? room : most, cost)) > 0)
        return n;
    if ((n = spk_shm_next(&shm->r, &record)) == 0)
        return 0;
    if (n < 0 || (n = read_record(shm, &record, &m)) != 0) {
        spk_shm_broken(shm, n);
        return TURN_OVER;
    }
    spk_shm_take(&shm->r, &record);
    if (m == NULL) {
        spk_shm_release(&shm->r);
        return 1;
    }
    return spk_pipe_received(p, m) ? 1 : TURN_OVER;
}

/* The other end may go on writing when half of its ring is free. */
static void
tell_of_room(struct spk_shm *shm)
{
    spk_shm_release(&shm->r);
    if (shm->r.seen_tail - shm->r.at <= shm->r.size / 2 &&
        spk_shm_must_ring(shm->r.theirs, SPK_SHM_ROOM, &shm->rung))
        ring_bell(shm);
}

/* What we can do something with. */
static uint32_t
wanted(const struct spk_shm *shm)
{
    bool reads = shm->receiving && spk_list_empty(&shm->pipe->stalled);
    bool writes = shm->sending_on && !shm->pipe->writable;

    return (reads ? SPK_SHM_RECORDS : 0u) | (writes ? SPK_SHM_ROOM : 0u);
}

/* Is there something to do? */
static bool
something_came(struct spk_op *op)
{
    struct spk_shm *shm = SPK_OWNER(op, struct spk_shm, watch);
    uint32_t wants = wanted(shm);

    return ((wants & SPK_SHM_RECORDS) != 0 &&
            (spk_shm_has_record(&shm->r) ||
             atomic_load_explicit(&shm->r.theirs->closed, memory_order_acquire) != 0)) ||
           ((wants & SPK_SHM_ROOM) != 0 && has_room(shm));
}

/* From here on the bell wakes us. */
static bool
ask_to_be_told(struct spk_op *op)
{
    struct spk_shm *shm = SPK_OWNER(op, struct spk_shm, watch);

    spk_shm_fall_asleep(shm->w.mine, wanted(shm));
    if (!something_came(op))
        return true;
    spk_shm_wake_up(shm->w.mine);
    return false;
}

/* It is the other end who keeps a message waiting that has begun.  Timers come before memory is
 * looked at: if the engine was not driven for a while the rest may be there. */
static void
on_time(struct spk_timer *timer)
{
    struct spk_shm *shm = SPK_OWNER(timer, struct spk_shm, timer);

    if (spk_shm_has_record(&shm->r))
        look_around(shm);
    else
        spk_pipe_fell_silent(shm->pipe);
}

static void
await_rest(struct spk_shm *shm)
{
    spoke_ns idle = shm->pipe->endpoint->options.idle_ns;

    spk_timer_cancel(shm->e, &shm->timer);
    if (shm->body != NULL && idle > 0 &&
        spk_timer_set(shm->e, &shm->timer, spk_later(spk_engine_now(shm->e), idle)) != 0)
        spk_pipe_shut(shm->pipe, SPOKE_ENOMEM);
}

/* Wait for the other end; it may have done something already. */
static void
look_for_more(struct spk_shm *shm)
{
    if (!shm->ended && !spk_op_busy(&shm->bell_op)) {
        struct spk_socket *s = shm->pipe->socket;

        shm->bell_op.awaited = s->awaited > 0;
        s->awaited -= shm->bell_op.awaited;
        spk_op_readable(shm->e, &shm->bell_op, shm->bell);
    }
    if (spk_op_busy(&shm->watch) ||
        spk_op_watch(shm->e, &shm->watch, something_came, ask_to_be_told))
        return;
    if (!ask_to_be_told(&shm->watch))
        spk_task_queue(shm->e, &shm->task);
}

void
spk_shm_read(struct spk_shm *shm, int most)
{
    struct spk_pipe *p = shm->pipe;
    bool bounded = most > TURN_MOST;
    int n = 0;

    if (bounded) /* the other end may write all the while */
        most = TURN_MOST;
    spk_shm_wake_up(shm->w.mine);
    /* Looked at first: what was written before it is seen below. */
    bool last_words = shm->ended ||
                      atomic_load_explicit(&shm->r.theirs->closed, memory_order_acquire) != 0;

    while (most > 0 && (n = take_some(shm, most)) > 0)
        most = n <= most ? most - n : 0;
    tell_of_room(shm);
    if (shm->body != NULL || spk_timer_is_set(&shm->timer))
        await_rest(shm);
    if (p->state != SPK_PIPE_ATTACHED)
        return;
    if (p->held != NULL || n == BEHIND || (most <= 0 && spk_shm_has_record(&shm->r))) {
        if (bounded && p->held == NULL && n != BEHIND && n != TURN_OVER)
            spk_task_queue(shm->e, &shm->task); /* for the next turn */
        else
            spk_pipe_stall(p);
        look_for_more(shm); /* there may be room to write */
        return;
    }
    if (last_words) {
        spk_pipe_shut(p, shm->body != NULL ? SPOKE_ECONNRESET : SPOKE_EOF);
        return;
    }
    look_for_more(shm);
}

/* The other end has done something, or we can do something again. */
static void
look_around(struct spk_shm *shm)
{
    struct spk_pipe *p = shm->pipe;

    if (p->state != SPK_PIPE_ATTACHED)
        return;
    spk_shm_wake_up(shm->w.mine);
    if (spk_shm_collect(shm) != 0) {
        spk_shm_broken(shm, SPOKE_EPROTO);
        return;
    }
    if (!p->writable && has_room(shm))
        go_on_sending(shm);
    if (shm->receiving && spk_list_empty(&p->stalled))
        spk_shm_read(shm, INT32_MAX);
    else
        look_for_more(shm);
}

static void
on_watch(struct spk_op *op, int result)
{
    (void)result;
    look_around(SPK_OWNER(op, struct spk_shm, watch));
}

static void
on_task(struct spk_task *task)
{
    look_around(SPK_OWNER(task, struct spk_shm, task));
}

static void
maybe_closed(struct spk_shm *shm)
{
    if (!spk_op_busy(&shm->bell_op))
        shm->closed(shm->pipe);
}

static void
on_bell(struct spk_op *op, int result)
{
    struct spk_shm *shm = SPK_OWNER(op, struct spk_shm, bell_op);
    char rings[256];
    ssize_t n;

    if (shm->closed != NULL) {
        maybe_closed(shm);
        return;
    }
    if (result < 0)
        return;
    n = read(shm->bell, rings, sizeof rings);
    shm->ended |= n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR);
    look_around(shm);
}

void
spk_shm_peer_gone(struct spk_shm *shm)
{
    shm->ended = true;
    look_around(shm);
}

/* ---- life ---- */

int
spk_shm_new(struct spk_shm **out, struct spk_pipe *p, bool lends)
{
    struct spk_shm_home *home = spk_shm_home(p->socket);
    struct spk_shm *shm = spk_zalloc(sizeof *shm);
    size_t ring = spk_shm_power_of_two(p->endpoint->options.shm_ring);
    int ends[2], rc;

    *out = NULL;
    if (shm == NULL || home == NULL) {
        spk_free(shm);
        return SPOKE_ENOMEM;
    }
    atomic_init(&shm->refs, 1);
    shm->fork_generation = p->socket->e->fork_generation;
    shm->pipe = p;
    shm->home = home;
    shm->e = p->socket->e;
    shm->lends = lends && home->segment != NULL;
    shm->half.fd = shm->half.fd_out = shm->bell = shm->bell_out = shm->their_bell = -1;
    pthread_mutex_init(&shm->lock, NULL);
    spk_timer_init(&shm->timer, on_time);
    spk_op_init(&shm->watch, on_watch);
    spk_op_init(&shm->bell_op, on_bell);
    spk_task_init(&shm->task, on_task);
    spk_list_init(&shm->flush.link);
    shm->flush.fn = on_flush;
    spk_list_append(&home->live, &shm->link);
    if ((rc = spk_region_open(&shm->half, "spoke-ring", SPK_SHM_HALF(ring))) != 0 ||
        (rc = spk_region_reserve(&shm->half, 0, SPK_SHM_RING)) != 0)
        goto fail;
    SPK_STOP_POINT(HALF_MADE);
    if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) {
        rc = spk_error_from_errno(errno);
        goto fail;
    }
    SPK_STOP_POINT(BELL_MADE);
    shm->bell = ends[0];
    shm->bell_out = ends[1];
    /* Others open it anew (take_bell()); whether they may connect has been decided elsewhere. */
    if (fchmod(shm->bell_out, 0666) != 0) {
        rc = SPOKE_ENOTSUP;
        goto fail;
    }
    shm->w = (struct spk_shm_writer){.mine = (struct spk_shm_half *)(void *)shm->half.base,
                                     .ring = shm->half.base + SPK_SHM_RING,
                                     .size = ring};
    shm->inline_most = ring / 8 < INLINE_MOST ? ring / 8 : INLINE_MOST;
    shm->lend_least = p->endpoint->options.lend_least;
    shm->r.mine = shm->w.mine;
    *out = shm;
    return 0;
fail:
    spk_shm_free(shm);
    return rc;
}

int
spk_shm_offer(struct spk_shm *shm, struct spk_shm_offer *out, int fds[SPK_SHM_FDS])
{
    *out = (struct spk_shm_offer){.ring_size = (uint32_t)shm->w.size, .has_segment = shm->lends};
    fds[0] = shm->half.fd_out;
    fds[1] = shm->bell_out;
    if (!shm->lends)
        return 2;
    out->segment_size = spk_segment_size(shm->home->segment);
    fds[2] = spk_segment_fd(shm->home->segment);
    return 3;
}

void
spk_shm_offered(struct spk_shm *shm)
{
    close(shm->bell_out);
    close(shm->half.fd_out);
    shm->bell_out = shm->half.fd_out = -1;
}

/* A descriptor of our own, which the other end cannot make wait; open for reading as well, so that
 * a bell that nobody hears raises no SIGPIPE. */
static int
take_bell(int fd)
{
    struct stat st;
    char path[64];

    if (fstat(fd, &st) != 0 || !S_ISFIFO(st.st_mode))
        return -1;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    return open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
}

int
spk_shm_connect(struct spk_shm *shm, const struct spk_shm_offer *offer, const int *fds, int count)
{
    size_t ring = offer->ring_size;
    int rc;

    if (count != (offer->has_segment ? 3 : 2) || ring < SPK_SHM_RING_LEAST ||
        ring > SPK_SHM_RING_MOST || (ring & (ring - 1)) != 0)
        return SPOKE_EPROTO;
    if ((rc = spk_view_open(&shm->their_half, fds[0], SPK_SHM_HALF(ring), SPK_SHM_HALF(ring))) != 0)
        return rc;
    SPK_STOP_POINT(HALF_MAPPED);
    if ((shm->their_bell = take_bell(fds[1])) < 0)
        return SPOKE_EPROTO;
    SPK_STOP_POINT(BELL_TAKEN);
    if (offer->has_segment && (rc = spk_view_open(&shm->their_segment, fds[2], SPK_PAGE,
                                                  (size_t)offer->segment_size)) != 0)
        return rc;
    SPK_STOP_POINT(SEGMENT_MAPPED);
    shm->r.theirs = (const struct spk_shm_half *)(const void *)shm->their_half.base;
    shm->r.ring = shm->their_half.base + SPK_SHM_RING;
    shm->r.size = ring;
    shm->w.theirs = shm->r.theirs;
    return 0;
}

bool
spk_shm_is_connected(const struct spk_shm *shm)
{
    return shm->r.ring != NULL;
}

void
spk_shm_start_sending(struct spk_shm *shm)
{
    shm->sending_on = true;
    look_for_more(shm);
}

void
spk_shm_start_receiving(struct spk_shm *shm)
{
    shm->receiving = true;
    spk_shm_read(shm, INT32_MAX);
}

void
spk_shm_close(struct spk_shm *shm, void (*done)(struct spk_pipe *p))
{
    shm->closed = done;
    atomic_store_explicit(&shm->w.mine->closed, 1, memory_order_release);
    SPK_STOP_POINT(CLOSED);
    if (spk_shm_is_connected(shm))
        announce(shm);
    spk_task_cancel(&shm->task);
    spk_timer_cancel(shm->e, &shm->timer);
    spk_op_unwatch(shm->e, &shm->watch);
    spk_list_remove(&shm->flush.link);
    spk_op_cancel(shm->e, &shm->bell_op);
    maybe_closed(shm);
}

void
spk_shm_free(struct spk_shm *shm)
{
    spoke_msg_free(shm->sending);
    spoke_msg_free(shm->body);
    shm->sending = shm->body = NULL;
    shm->pipe = NULL;
    spk_shm_bury(shm);
}
