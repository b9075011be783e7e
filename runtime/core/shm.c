/* SPDX-License-Identifier: MIT */
/* Messages through shared memory.
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
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/core/core.h"
#include "runtime/engine/probe.h"

#define INLINE_MOST                                                                                \
    ((size_t)16 * 1024) /* larger messages that are not lent come in pieces; and no                \
                           more than an eighth of the ring */
#define RING_STEP ((uint64_t)16 * 1024)
#define IDLE_NS   SPOKE_SECOND
#define LENT_MOST                                                                                  \
    ((size_t)4 << 20)  /* bytes that the other end has of ours; what is more is copied */
#define LENT_ALWAYS  4 /* loans, however large they are: the reader need not wait for the writer */
#define RUN_MOST     32
#define AHEAD        4    /* each is fetched into the cache so many before its turn */
#define TURN_MOST    1024 /* messages that one pipe may deliver in a turn */
#define RESERVE_STEP ((size_t)1024 * 1024) /* memory for a body that has only been announced */

/* What the user has of the other end's. */
struct loan_in {
    struct spk_shm *shm;
};

struct spk_shm {
    atomic_uint refs; /* the pipe's, and each loan's that somebody holds here */
    unsigned fork_generation;
    struct spk_pipe *pipe;
    struct spk_engine *e;
    struct spk_region half;
    struct spk_view their_half, their_segment;
    int bell, bell_out; /* ours: rung by the other end; the second is -1 once it has been passed */
    int their_bell;
    bool lends, sending_on, receiving;
    struct spk_task task; /* looks around */
    bool ended;           /* the other end is gone, or done: what is in its ring is all */
    uint32_t rung;

    struct spk_shm_writer w;
    size_t inline_most, lend_least;
    spoke_msg *sending; /* waits for room; `sent` bytes of it are out, in pieces, if it has begun */
    size_t sent;
    bool begun;
    struct spk_flush flush; /* to look at the other end after messages that were sent together */
    struct loans_out *out;  /* NULL: there never was one */

    struct spk_shm_reader r;
    spoke_msg *body; /* comes in pieces: size = what is here */
    size_t body_size;
    struct spk_timer timer; /* for the rest of it */
    struct spk_op watch, bell_op;
    void (*closed)(struct spk_pipe *p);

    pthread_mutex_t lock; /* of what follows: any thread gives loans back */
    struct loan_in *in;   /* NULL: there never was one */

    struct spk_shm_home *home;
    struct spk_link link; /* there: alive, or in its grave */
};

/* What the other end has of ours. */
struct loans_out {
    struct spk_chunk *chunks[SPK_SHM_LOANS];
    uint32_t free[SPK_SHM_LOANS], free_count;
    uint32_t seen; /* returned, so far */
    size_t sizes[SPK_SHM_LOANS], bytes;
};

struct spk_shm_home {
    struct spk_engine *e;
    struct spk_segment *segment; /* NULL: there is none to be had */
    struct spk_link live;        /* connections … */
    struct spk_link graves; /* … and those that are over, but for what the other end still has */
    struct spk_timer timer; /* looks whether it lies idle … */
    uint64_t allocs, seen;  /* chunks ever; at the last look */
    struct spk_flush flush; /* forgets … */
    spoke_msg *copied;      /* … the last message that was copied into the segment, as others hold
                               it too */
    struct spk_chunk *copy;
};

/* ---- both ends' memory ---- */

static uint8_t *
ring_of(struct spk_region *half)
{
    return half->base + SPK_SHM_RING;
}

static _Atomic uint32_t *
returns_of(uint8_t *half)
{
    return (_Atomic uint32_t *)(void *)(half + SPK_SHM_RETURNS);
}

/* Away with the memory, by whoever is the last to need it; nothing of the engine's here. */
static void
unref(struct spk_shm *shm)
{
    if (atomic_fetch_sub_explicit(&shm->refs, 1, memory_order_acq_rel) != 1)
        return;
    spk_region_close(&shm->half);
    spk_view_close(&shm->their_half);
    spk_view_close(&shm->their_segment);
    if (shm->bell_out >= 0)
        close(shm->bell_out);
    if (shm->their_bell >= 0)
        close(shm->their_bell);
    spk_free(shm->in);
    spk_free(shm->out);
    pthread_mutex_destroy(&shm->lock);
    spk_free(shm);
}

/* The engine may have waited for it, and has to forget it before there is another descriptor of its
 * number. */
static void
close_bell(struct spk_shm *shm)
{
    if (shm->bell >= 0)
        shm->e->backend->close_handle(shm->e, shm->bell);
    shm->bell = -1;
}

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

/* The other end has broken the rules, or there is no room for what it sends. */
static void
broken(struct spk_shm *shm, int reason)
{
    if (reason == SPOKE_EPROTO)
        spk_count_drops(shm->pipe->socket, shm->pipe, SPK_DROP_GARBLED, 1);
    spk_pipe_shut(shm->pipe, reason);
}

/* ---- loans, of ours ---- */

/* Take back what the other end has given back.  SPOKE_EPROTO: it never had that. */
static int
collect(struct spk_shm *shm)
{
    struct loans_out *out = shm->out;
    uint32_t returned;

    if (out == NULL)
        return 0;
    returned = atomic_load_explicit(&shm->r.theirs->returned, memory_order_acquire);
    if (returned - out->seen > SPK_SHM_LOANS)
        return SPOKE_EPROTO;
    while (out->seen != returned) {
        uint32_t number = atomic_load_explicit(
            &returns_of((uint8_t *)(uintptr_t)shm->their_half.base)[out->seen % SPK_SHM_LOANS],
            memory_order_relaxed);

        if (number >= SPK_SHM_LOANS || out->chunks[number] == NULL)
            return SPOKE_EPROTO;
        spk_chunk_unref(out->chunks[number]);
        out->chunks[number] = NULL;
        out->bytes -= out->sizes[number];
        out->free[out->free_count++] = number;
        out->seen++;
    }
    return 0;
}

static bool
has_loans_out(const struct spk_shm *shm)
{
    return shm->out != NULL && shm->out->free_count < SPK_SHM_LOANS;
}

static void
drop_loans(struct spk_shm *shm)
{
    for (uint32_t i = 0; shm->out != NULL && i < SPK_SHM_LOANS; i++)
        if (shm->out->chunks[i] != NULL)
            spk_chunk_unref(shm->out->chunks[i]);
    spk_free(shm->out);
    shm->out = NULL;
}

static bool
may_lend(struct spk_shm *shm)
{
    if (shm->out == NULL) {
        if ((shm->out = spk_zalloc(sizeof *shm->out)) == NULL)
            return false;
        for (uint32_t i = 0; i < SPK_SHM_LOANS; i++)
            shm->out->free[i] = SPK_SHM_LOANS - 1 - i;
        shm->out->free_count = SPK_SHM_LOANS;
    }
    return shm->out->free_count > 0 &&
           (shm->out->bytes < LENT_MOST || shm->out->free_count > SPK_SHM_LOANS - LENT_ALWAYS);
}

/* ---- a socket's home ---- */

static void look_later(struct spk_shm_home *home);
static void reap(struct spk_shm_home *home, bool all);

static void
forget_copy(struct spk_shm_home *home)
{
    spk_list_remove(&home->flush.link);
    spoke_msg_free(home->copied);
    if (home->copy != NULL)
        spk_chunk_unref(home->copy);
    home->copied = NULL;
    home->copy = NULL;
}

static void
on_home_flush(struct spk_flush *flush)
{
    forget_copy(SPK_OWNER(flush, struct spk_shm_home, flush));
}

/* Nothing has been put into the segment for a while: pages that are not in use are the system's
 * again. */
static void
on_home_time(struct spk_timer *timer)
{
    struct spk_shm_home *home = SPK_OWNER(timer, struct spk_shm_home, timer);

    if (home->allocs != home->seen) {
        look_later(home);
        return;
    }
    SPK_LIST_EACH(link, &home->live)
    {
        struct spk_shm *shm = SPK_OWNER(link, struct spk_shm, link);

        if (collect(shm) != 0)
            broken(shm, SPOKE_EPROTO);
    }
    reap(home, false);
    spk_segment_trim(home->segment);
}

static void
look_later(struct spk_shm_home *home)
{
    home->seen = home->allocs;
    /* No memory for a timer: the pages stay. */
    (void)spk_timer_set(home->e, &home->timer, spk_later(spk_engine_now(home->e), IDLE_NS));
}

/* At least a page. */
static size_t
power_of_two(size_t size)
{
    size_t power = SPK_PAGE;

    while (power < size)
        power *= 2;
    return power;
}

struct spk_shm_home *
spk_shm_home(struct spk_socket *s)
{
    struct spk_shm_home *home = s->shm;

    if (home != NULL || (home = spk_zalloc(sizeof *home)) == NULL)
        return home;
    home->e = s->e;
    spk_list_init(&home->live);
    spk_list_init(&home->graves);
    spk_list_init(&home->flush.link);
    home->flush.fn = on_home_flush;
    spk_timer_init(&home->timer, on_home_time);
    if (s->shm_segment > 0)
        (void)spk_segment_new(&home->segment, power_of_two(s->shm_segment), &s->shm_wish);
    return s->shm = home;
}

/* Those whose other end has given everything back, or is gone, rest in peace. */
static void
reap(struct spk_shm_home *home, bool all)
{
    struct spk_link *link = home->graves.next, *next;

    for (; link != &home->graves; link = next) {
        struct spk_shm *shm = SPK_OWNER(link, struct spk_shm, link);
        struct pollfd fd = {.fd = shm->bell, .events = 0};

        next = link->next;
        if (!all && collect(shm) == 0 && has_loans_out(shm) && poll(&fd, 1, 0) == 0)
            continue;
        spk_list_remove(link);
        close_bell(shm);
        drop_loans(shm);
        unref(shm);
    }
}

void
spk_shm_home_close(struct spk_shm_home *home)
{
    if (home == NULL)
        return;
    spk_timer_cancel(home->e, &home->timer);
    forget_copy(home);
    if (home->segment != NULL)
        spk_segment_retire(home->segment);
    reap(home, true); /* what is freed stays as it is, for those who still hold it */
    if (home->segment != NULL)
        spk_segment_unref(home->segment);
    spk_free(home);
}

/* What has been given back, and nobody has looked at it since.  One that never had what it gives
 * back is found out when it is its turn. */
static void
take_all_back(struct spk_shm_home *home)
{
    SPK_LIST_EACH(link, &home->live)
    (void)collect(SPK_OWNER(link, struct spk_shm, link));
    reap(home, false);
}

void
spk_shm_home_stats(struct spk_shm_home *home, struct spk_segment_stats *out)
{
    *out = (struct spk_segment_stats){0};
    if (home->segment == NULL)
        return;
    take_all_back(home);
    spk_segment_stats(home->segment, out);
}

static struct spk_chunk *
new_chunk(struct spk_shm_home *home, size_t size)
{
    struct spk_chunk *c;

    if (home->segment == NULL)
        return NULL;
    home->allocs++;
    if (!spk_timer_is_set(&home->timer))
        look_later(home);
    if ((c = spk_segment_alloc(home->segment, size)) != NULL)
        return c;
    take_all_back(home);
    return spk_segment_alloc(home->segment, size);
}

int
spoke_loan(spoke_socket *handle, size_t size, spoke_msg **out)
{
    struct spk_chunk *c = NULL;
    struct spk_shm_home *home;
    struct spk_engine *e;
    struct spk_socket *s;
    void *object;
    int rc;

    *out = NULL;
    if ((rc = spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, &e)) != 0)
        return rc;
    s = object;
    if (size > 0 && size >= s->defaults.lend_least && !e->backend->is_virtual &&
        (home = spk_shm_home(s)) != NULL)
        c = new_chunk(home, size);
    spk_engine_leave(e);
    if (c == NULL)
        return spoke_msg_new(out, size);
    if ((rc = spk_msg_slice(out, c, c->data, size)) != 0)
        spk_chunk_unref(c);
    return rc;
}

/* The body of `m` in the segment: where it lies, or a copy.  One reference; NULL: no room. */
static struct spk_chunk *
lendable(struct spk_shm_home *home, spoke_msg *m, uint64_t *offset)
{
    struct spk_chunk *c;

    if (m->chunk != NULL && spk_segment_holds(home->segment, m->body, m->size, offset))
        return spk_chunk_ref(m->chunk);
    if (m == home->copied) {
        (void)spk_segment_holds(home->segment, home->copy->data, m->size, offset);
        return spk_chunk_ref(home->copy);
    }
    if ((c = new_chunk(home, m->size)) == NULL)
        return NULL;
    memcpy(c->data, m->body, m->size);
    SPK_STOP_POINT(BODY);
    (void)spk_segment_holds(home->segment, c->data, m->size, offset);
    if (atomic_load_explicit(&m->refs, memory_order_relaxed) > 1) {
        forget_copy(home);
        home->copied = spoke_msg_dup(m);
        home->copy = spk_chunk_ref(c);
        spk_list_append(&home->e->flushes, &home->flush.link);
    }
    return c;
}

/* ---- out ---- */

/* In its first lap the ring gets its pages as they are needed: a connection of few messages stays
 * small. */
static bool
extend_ring(struct spk_shm *shm, uint64_t end)
{
    struct spk_shm_writer *w = &shm->w;

    while (w->exists < w->size && w->exists < end) {
        uint64_t left = w->size - w->exists, n = left < RING_STEP ? left : RING_STEP;

        if (spk_region_reserve(&shm->half, SPK_SHM_RING + (size_t)w->exists, (size_t)n) != 0)
            return false;
        w->exists += n;
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
        broken(shm, SPOKE_EPROTO);
        return NULL;
    }
    if (!extend_ring(shm, (shm->w.at & (shm->w.size - 1)) + spk_shm_whole((uint32_t)payload))) {
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
    struct spk_shm_loan loan = {.size = m->size};
    size_t size = sizeof loan + m->header_size;
    struct spk_chunk *c;
    uint8_t *room;

    if (collect(shm) != 0) {
        broken(shm, SPOKE_EPROTO);
        return false;
    }
    if (!may_lend(shm) || (room = reserve(shm, size)) == NULL ||
        (c = lendable(shm->pipe->socket->shm, m, &loan.offset)) == NULL)
        return false;
    loan.number = shm->out->free[--shm->out->free_count];
    shm->out->chunks[loan.number] = c;
    shm->out->sizes[loan.number] = m->size;
    shm->out->bytes += m->size;
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
    uint64_t head = atomic_load_explicit(&shm->r.theirs->head, memory_order_acquire);

    return shm->w.size - (shm->w.at - head) >= shm->w.size / 2;
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
        spoke_msg_free(m);
    } else {
        shm->sending = m; /* also if the pipe has just been shut: lost with it */
        spk_pipe_set_writable(shm->pipe, false);
    }
    after_put(shm);
    if (shm->sending != NULL)
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
    spk_msg_free_many(messages, done);
    after_put(shm);
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

/* A loan that was lent to us has no reader any more.  Any thread. */
static void
on_loan_gone(void *data, size_t size, void *ctx)
{
    struct loan_in *in = ctx;
    struct spk_shm *shm = in->shm;
    uint32_t at;

    (void)data;
    (void)size;
    if (shm->fork_generation !=
        atomic_load_explicit(
            &spk_fork_generation,
            memory_order_relaxed)) /* in a child of fork(): it is still its parent's */
        return;
    pthread_mutex_lock(&shm->lock);
    at = atomic_load_explicit(&shm->w.mine->returned, memory_order_relaxed);
    atomic_store_explicit(&returns_of(shm->half.base)[at % SPK_SHM_LOANS], (uint32_t)(in - shm->in),
                          memory_order_relaxed);
    SPK_STOP_POINT(RETURN);
    /* Pairs with the acquire in collect(): what was read of it was read before. */
    atomic_store_explicit(&shm->w.mine->returned, at + 1, memory_order_release);
    SPK_STOP_POINT(RETURNED);
    pthread_mutex_unlock(&shm->lock);
    unref(shm);
}

static bool
make_loans_in(struct spk_shm *shm)
{
    if (shm->in != NULL)
        return true;
    if ((shm->in = spk_zalloc(SPK_SHM_LOANS * sizeof *shm->in)) == NULL)
        return false;
    for (uint32_t i = 0; i < SPK_SHM_LOANS; i++)
        shm->in[i].shm = shm;
    return true;
}

/* What has been copied is not read again where it comes from, whatever the compiler thinks of it.
 */
static void
read_once(void)
{
    atomic_signal_fence(memory_order_seq_cst);
}

/* A message that is the sender's memory.  NULL: *rc says why. */
static spoke_msg *
borrow(struct spk_shm *shm, const struct spk_shm_record *record, int *rc)
{
    struct spk_shm_loan loan;
    size_t header_size = record->size - sizeof loan;
    struct spk_chunk *c;
    spoke_msg *m = NULL;

    *rc = SPOKE_EPROTO;
    if (record->size < sizeof loan || header_size > SPOKE_HEADER_MAX)
        return NULL;
    memcpy(&loan, record->data, sizeof loan);
    read_once();
    if (loan.number >= SPK_SHM_LOANS || shm->their_segment.base == NULL ||
        loan.offset > shm->their_segment.size || loan.size > shm->their_segment.size - loan.offset)
        return NULL;
    *rc = SPOKE_EMSGSIZE;
    if (!spk_pipe_length_is_fine(shm->pipe, header_size + loan.size))
        return NULL;
    *rc = SPOKE_ENOMEM;
    if (!make_loans_in(shm))
        return NULL;
    c = spk_chunk_wrap((void *)(uintptr_t)(shm->their_segment.base + loan.offset),
                       (size_t)loan.size, on_loan_gone, &shm->in[loan.number]);
    if (c == NULL)
        return NULL;
    c->read_only = true;
    atomic_fetch_add_explicit(&shm->refs, 1, memory_order_relaxed);
    if (spk_msg_slice(&m, c, c->data, (size_t)loan.size) != 0) {
        spk_chunk_unref(c);
        return NULL;
    }
    if (header_size > 0 &&
        spoke_msg_header_append(m, record->data + sizeof loan, header_size) != 0) {
        spoke_msg_free(m);
        return NULL;
    }
    return m;
}

static int
begin_body(struct spk_shm *shm, const struct spk_shm_record *record)
{
    uint64_t length;

    if (record->size != sizeof length || shm->body != NULL)
        return SPOKE_EPROTO;
    memcpy(&length, record->data, sizeof length);
    read_once();
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
    case SPK_SHM_LOAN: return (*m = borrow(shm, record, &rc)) != NULL ? 0 : rc;
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
        broken(shm, n);
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
    if (collect(shm) != 0) {
        broken(shm, SPOKE_EPROTO);
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
    size_t ring = power_of_two(p->endpoint->options.shm_ring);
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
                                     .ring = ring_of(&shm->half),
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
    spk_list_remove(&shm->link);
    if (shm->their_half.base != NULL && collect(shm) == 0 && has_loans_out(shm)) {
        spk_list_append(&shm->home->graves, &shm->link);
        reap(shm->home, false);
        return;
    }
    close_bell(shm);
    drop_loans(shm);
    unref(shm);
}
