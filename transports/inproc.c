/* SPDX-License-Identifier: MIT */
/* inproc: messages pass from socket to socket inside the process, themselves, without a copy.
 *
 * A connection is a `link` with two ends.  Each end has a ring of messages towards it, filled by
 * the other end and emptied by its own engine; the two may be different threads.  Who finds its
 * ring empty says so (`armed`) and is then told of the next message; who finds the other's ring
 * full says so
 * (`want_room`) and is told of room.  Pipes and endpoints are touched by their own engine only; to
 * reach the other one, work is posted there.
 *
 * Names are global.  A dialer that finds nobody waits in the table and is connected the moment that
 * somebody listens. */
#include <stdio.h>
#include <string.h>

#include "runtime/core/transport.h"
#include "runtime/engine/probe.h"

#define LENGTH_MOST                                                                                \
    4096u /* messages on their way, each direction, and no more than the receiver's queue is long  \
             … */
#define TURN_MOST    256               /* of one connection, before others have their turn */
#define STALLED_MOST 4u                /* … while that has room; else so many */
#define BYTES_MOST   ((size_t)8 << 20) /* … or bytes, the same */
#define AHEAD        8u /* a message comes from the other CPU's cache so many before it is needed */
#define RUN_MOST     32u /* messages that are put into the ring, or taken from it, together */

/* One writer, one reader.  Positions only grow.  Each side looks at the other's only when what it
 * has seen of them is used up, so that the two seldom touch the same memory. */
struct ring {
    _Alignas(64) atomic_uint head; /* the reader's */
    atomic_size_t bytes_out;
    unsigned seen_tail;
    _Alignas(64) atomic_uint tail; /* the writer's */
    atomic_size_t bytes_in;
    unsigned seen_head;
    size_t seen_bytes_out;
    _Alignas(64) spoke_msg **slots; /* make_ring() */
    unsigned mask;
};

struct inproc_pipe;

struct end {
    struct spk_engine *e;
    uint64_t number;         /* of that engine: it may close before we know */
    struct spk_endpoint *ep; /* the dialer, or the listener, until its pipe is made; its engine's */
    struct inproc_pipe *pipe; /* its engine's; NULL before and after */
    atomic_bool closed;
    _Alignas(64) atomic_bool armed; /* its engine wants to be told of a message */
    atomic_bool want_room;          /* the other end wants to be told of room in `ring` */
    atomic_bool stalled;            /* its socket's receive queue is full */
    atomic_uint length;             /* of that queue, as far as `ring` is concerned */
    size_t bytes;                   /* … and how many bytes, both set with the ring */
    atomic_bool noticed;            /* `notice` is posted */
    struct spk_post notice;
    struct ring ring;
};

enum { DIALER = 0, LISTENER = 1 };

struct link {
    atomic_uint refs;
    struct end end[2];
    struct name *name;    /* whom it dials, until the listener's pipe is made */
    struct spk_task task; /* the next step, when both ends are on one engine … */
    struct spk_post post; /* … or not */
    void (*step)(struct link *link);
    int refused; /* why the listener's side came to nothing */
};

struct inproc_pipe {
    struct spk_pipe pipe;
    struct link *link;
    int side;
    struct spk_op watch; /* of the ring, while the engine looks for work anyway */
    struct spk_task drain_task;
    struct spk_flush flush; /* to tell the other end of messages that were sent together */
};

/* ---- names ---- */

struct name {
    struct spk_link link;
    uint32_t refs; /* the table's and the links'; names_lock */
    struct spk_engine *e;
    uint64_t number;        /* of that engine */
    struct spk_endpoint *l; /* NULL once it has stopped listening */
    uint16_t protocol;
    char text[];
};

/* A dialer that waits for a name. */
struct wait {
    struct spk_link link;
    struct spk_engine *e;
    uint64_t number; /* of that engine */
    struct spk_endpoint *d;
    bool called; /* somebody listens: try again, `post` is on its way */
    struct spk_post post;
};

static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
SPK_FREE_AFTER_FORK(names_lock)
/* In a child of fork() also the parent's, who is not there: passed over. */
static struct spk_link names = {&names, &names}, waits = {&waits, &waits};

static struct name *
find_name(const char *text)
{
    SPK_LIST_EACH(link, &names)
    {
        struct name *n = SPK_OWNER(link, struct name, link);

        if (spk_engine_is_ours(n->e) && strcmp(n->text, text) == 0)
            return n;
    }
    return NULL;
}

static void
unref_name(struct name *n)
{
    bool last;

    pthread_mutex_lock(&names_lock);
    last = --n->refs == 0;
    pthread_mutex_unlock(&names_lock);
    if (last)
        spk_free(n);
}

/* ---- links ---- */

static struct link *
ref_link(struct link *link)
{
    atomic_fetch_add_explicit(&link->refs, 1, memory_order_relaxed);
    return link;
}

/* Messages that the reader can take. */
static unsigned
ring_waiting(struct ring *r)
{
    unsigned head = atomic_load_explicit(&r->head, memory_order_relaxed);

    if (head == r->seen_tail)
        /* Pairs with the release in ring_push_many(): the messages before their position. */
        r->seen_tail = atomic_load_explicit(&r->tail, memory_order_acquire);
    return r->seen_tail - head;
}

/* Take up to `most` of those that wait, no more after the one that makes their cost reach `cost`;
 * one with a header comes alone. */
static unsigned
ring_pop_many(struct ring *r, spoke_msg **messages, unsigned most, size_t cost)
{
    unsigned head = atomic_load_explicit(&r->head, memory_order_relaxed), count = 0;
    size_t bytes = atomic_load_explicit(&r->bytes_out, memory_order_relaxed);

    while (count < most && cost > 0) {
        spoke_msg *m = r->slots[(head + count) & r->mask];
        if (m->header_size > 0 && count > 0)
            break;
        if (m->header_size > 0)
            most = 1;
        if (r->seen_tail - (head + count) > AHEAD)
            spk_msg_prefetch(r->slots[(head + count + AHEAD) & r->mask]);
        bytes += m->size;
        cost -= spk_queue_cost(m) < cost ? spk_queue_cost(m) : cost;
        messages[count++] = m;
    }
    atomic_store_explicit(&r->bytes_out, bytes, memory_order_relaxed);
    /* Pairs with the acquire in ring_count(): read before the slots are given back. */
    atomic_store_explicit(&r->head, head + count, memory_order_release);
    return count;
}

static spoke_msg *
ring_pop(struct ring *r)
{
    spoke_msg *m;

    if (ring_waiting(r) == 0)
        return NULL;
    ring_pop_many(r, &m, 1, SIZE_MAX);
    return m;
}

static unsigned
ring_count(struct ring *r)
{
    /* Either side may ask; the other's position is as new as the acquire makes it. */
    return atomic_load_explicit(&r->tail, memory_order_acquire) -
           atomic_load_explicit(&r->head, memory_order_acquire);
}

static void
ring_push_many(struct ring *r, spoke_msg **messages, unsigned count, size_t bytes)
{
    unsigned tail = atomic_load_explicit(&r->tail, memory_order_relaxed);

    for (unsigned i = 0; i < count; i++)
        r->slots[(tail + i) & r->mask] = messages[i];
    atomic_store_explicit(&r->bytes_in,
                          atomic_load_explicit(&r->bytes_in, memory_order_relaxed) + bytes,
                          memory_order_relaxed);
    atomic_store_explicit(&r->tail, tail + count, memory_order_release);
}

static void
unref_link(struct link *link)
{
    if (atomic_fetch_sub_explicit(&link->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (int side = 0; side < 2; side++) {
        spoke_msg *m;

        while ((m = ring_pop(&link->end[side].ring)) != NULL)
            spoke_msg_free(m);
        spk_free(link->end[side].ring.slots);
    }
    if (link->name != NULL)
        unref_name(link->name);
    spk_free(link);
}

/* ---- moving messages ---- */

static void notify(struct link *link, int side);

static struct inproc_pipe *
inproc_of(struct spk_pipe *p)
{
    return SPK_OWNER(p, struct inproc_pipe, pipe);
}

/* Room for how many messages, by what the writer has seen of the reader?  There may be more.  The
 * last of them is the one whose bytes reach *bytes. */
static unsigned
room_as_seen(const struct end *end, size_t *bytes)
{
    const struct ring *r = &end->ring;
    unsigned most = atomic_load_explicit(&end->length, memory_order_relaxed),
             count = atomic_load_explicit(&r->tail, memory_order_relaxed) - r->seen_head;
    size_t used = atomic_load_explicit(&r->bytes_in, memory_order_relaxed) - r->seen_bytes_out;

    if (most > STALLED_MOST && atomic_load(&end->stalled))
        most = STALLED_MOST;
    if (count >= most || (count > 0 && used >= end->bytes))
        return 0;
    *bytes = used >= end->bytes ? 1 : end->bytes - used;
    return most - count;
}

static bool
has_room_as_seen(const struct end *end)
{
    size_t bytes;

    return room_as_seen(end, &bytes) > 0;
}

/* May the other end, whose engine we are on, put another message into the ring of `end`? */
static bool
has_room(struct end *end)
{
    struct ring *r = &end->ring;

    /* Pairs with the release in ring_pop(). */
    r->seen_head = atomic_load(&r->head);
    r->seen_bytes_out = atomic_load_explicit(&r->bytes_out, memory_order_relaxed);
    return has_room_as_seen(end);
}

/* The end `side`, whose engine we are on, goes on writing, or asks to be told of room. */
static void
look_for_room(struct link *link, int side)
{
    struct inproc_pipe *ip = link->end[side].pipe;
    struct end *theirs = &link->end[!side];

    if (ip == NULL || ip->pipe.writable)
        return;
    if (has_room(theirs)) {
        spk_pipe_set_writable(&ip->pipe, true);
        return;
    }
    /* Ask, then look once more: the reader takes first and looks at `want_room` then. */
    atomic_store(&theirs->want_room, true);
    if (has_room(theirs) && atomic_exchange(&theirs->want_room, false))
        spk_pipe_set_writable(&ip->pipe, true);
}

/* Tell the other end when there is room again, and enough of it to be worth the call. */
static void
tell_of_room(struct link *link, struct end *mine, int side)
{
    unsigned length = atomic_load_explicit(&mine->length, memory_order_relaxed);
    unsigned enough = atomic_load_explicit(&mine->stalled, memory_order_relaxed) ? 0 : length / 2;

    if (atomic_load(&mine->want_room) && ring_count(&mine->ring) <= enough &&
        atomic_exchange(&mine->want_room, false))
        notify(link, !side);
}

/* Take messages from the ring and deliver them, together if the core takes them so.  Returns how
 * many, 0: there are none; TURN_OVER: the pipe has to stop; BEHIND: … as the reader has enough. */
enum { BEHIND = -1, TURN_OVER = INT32_MAX };

static int
take_run(struct inproc_pipe *ip, int most)
{
    struct ring *r = &ip->link->end[ip->side].ring;
    spoke_msg *messages[RUN_MOST];
    unsigned count = ring_waiting(r);
    size_t cost = SIZE_MAX;
    int room;

    if (ip->pipe.state != SPK_PIPE_ATTACHED || ip->pipe.held != NULL)
        return TURN_OVER;
    if (count == 0)
        return 0;
    if ((room = spk_pipe_room(&ip->pipe, UINT32_MAX, &cost)) == 0)
        return BEHIND;
    if (count > RUN_MOST)
        count = RUN_MOST;
    if (count > (unsigned)most)
        count = (unsigned)most;
    if (room == SPK_ONE_BY_ONE)
        count = 1;
    else if (count > (unsigned)room)
        count = (unsigned)room;
    if ((count = ring_pop_many(r, messages, count, cost)) == 0)
        return 0;
    if (room == SPK_ONE_BY_ONE || messages[0]->header_size > 0)
        return spk_pipe_received(&ip->pipe, messages[0]) ? 1 : TURN_OVER;
    spk_pipe_received_many(&ip->pipe, messages, (int)count);
    return (int)count;
}

/* Is there a message, or the end, for who watches? */
static bool
something_came(struct spk_op *op)
{
    struct inproc_pipe *ip = SPK_OWNER(op, struct inproc_pipe, watch);
    struct ring *r = &ip->link->end[ip->side].ring;

    /* Sequentially consistent, as the store before it in ask_to_be_told() and the fence of
     * tell_of_message(). */
    return atomic_load(&r->tail) != atomic_load_explicit(&r->head, memory_order_relaxed) ||
           atomic_load(&ip->link->end[!ip->side].closed);
}

/* The ring is empty.  Say so, look once more: the writer pushes first and looks at `armed` then.
 * False: something has come, and nobody will tell. */
static bool
ask_to_be_told(struct spk_op *op)
{
    struct inproc_pipe *ip = SPK_OWNER(op, struct inproc_pipe, watch);
    struct end *mine = &ip->link->end[ip->side];

    atomic_store(&mine->armed, true);
    if (!something_came(op))
        return true;
    return !atomic_exchange(&mine->armed, false); /* taken: it saw us, a notice is on its way */
}

/* Take what has come, at most `most` messages; in a turn no more than the ring holds where the
 * other end is on another engine, which may fill it all the while. */
static void
drain(struct inproc_pipe *ip, int most)
{
    struct link *link = ip->link;
    struct end *mine = &link->end[ip->side], *theirs = &link->end[!ip->side];
    bool bounded = mine->e != theirs->e && most > TURN_MOST;
    int n = 0;

    if (bounded)
        most = TURN_MOST;
    for (;;) {
        bool behind;
        bool last_words = atomic_load(
            &theirs->closed); /* looked at first: what was pushed before it is seen below */

        while (most > 0 && (n = take_run(ip, most)) > 0)
            most = n <= most ? most - n : 0;
        behind = ip->pipe.held != NULL || n == BEHIND;
        /* Always, and in this order: take, store, then look at `want_room`.  Pairs with ask, then
         * look, in look_for_room(). */
        atomic_store(&mine->stalled, behind);
        tell_of_room(link, mine, ip->side);
        if (ip->pipe.state != SPK_PIPE_ATTACHED)
            return;
        if (behind || (most <= 0 && ring_count(&mine->ring) > 0)) {
            if (bounded && !behind && n != TURN_OVER)
                notify(link, ip->side); /* ourselves, for the next turn */
            else
                spk_pipe_stall(&ip->pipe);
            return;
        }
        if (last_words) {
            spk_pipe_shut(&ip->pipe, SPOKE_EOF);
            return;
        }
        if (spk_op_busy(&ip->watch) ||
            (mine->e != theirs->e &&
             spk_op_watch(mine->e, &ip->watch, something_came, ask_to_be_told)))
            return;
        if (ask_to_be_told(&ip->watch))
            return;
    }
}

static void
on_drain_task(struct spk_task *task)
{
    struct inproc_pipe *ip = SPK_OWNER(task, struct inproc_pipe, drain_task);

    if (spk_list_empty(&ip->pipe.stalled)) /* else it waits for its turn */
        drain(ip, INT32_MAX);
}

static void
on_watch(struct spk_op *op, int result)
{
    struct inproc_pipe *ip = SPK_OWNER(op, struct inproc_pipe, watch);

    (void)result;
    if (spk_list_empty(&ip->pipe.stalled))
        drain(ip, INT32_MAX);
}

/* Something has changed for the end `side`; we are on its engine. */
static void
on_notice(struct link *link, int side)
{
    struct inproc_pipe *ip = link->end[side].pipe;

    if (ip == NULL)
        return;
    look_for_room(link, side);
    if (ip->pipe.state == SPK_PIPE_ATTACHED && spk_list_empty(&ip->pipe.stalled))
        drain(ip, INT32_MAX);
}

static void
on_posted_notice(struct link *link, int side)
{
    atomic_store(&link->end[side].noticed, false); /* first: what comes now is told again */
    on_notice(link, side);
    unref_link(link);
}

static void
on_notice_dialer(void *ctx)
{
    on_posted_notice(ctx, DIALER);
}

static void
on_notice_listener(void *ctx)
{
    on_posted_notice(ctx, LISTENER);
}

static void
notify(struct link *link, int side)
{
    struct end *end = &link->end[side];

    if (end->e == link->end[!side].e) {
        look_for_room(link, side);
        if (end->pipe != NULL)
            spk_task_queue(end->e, &end->pipe->drain_task);
    } else if (!atomic_exchange(&end->noticed, true) &&
               spk_engine_post_embedded(end->e, end->number, &end->notice,
                                        side == DIALER ? on_notice_dialer : on_notice_listener,
                                        ref_link(link)) != 0) {
        unref_link(link); /* the other engine is gone */
    }
}

/* Wake the other end if it has found its ring empty. */
static void
tell_of_message(struct inproc_pipe *ip)
{
    struct end *theirs = &ip->link->end[!ip->side];

    /* Push, then look: pairs with arm, then look, in drain(). */
    atomic_thread_fence(memory_order_seq_cst);
    if (atomic_load_explicit(&theirs->armed, memory_order_relaxed) &&
        atomic_exchange(&theirs->armed, false))
        notify(ip->link, !ip->side);
}

static void
on_flush(struct spk_flush *flush)
{
    tell_of_message(SPK_OWNER(flush, struct inproc_pipe, flush));
}

/* Something is in the ring that was not there before. */
static void
after_push(struct inproc_pipe *ip)
{
    struct end *theirs = &ip->link->end[!ip->side];
    struct spk_engine *e = ip->link->end[ip->side].e;

    if (theirs->e == e) {
        if (theirs->pipe != NULL)
            spk_task_queue(theirs->e, &theirs->pipe->drain_task);
    } else if (spk_list_empty(&ip->flush.link)) {
        /* Of several that are sent together the first, so that the other end is awake by the time
         * of the last. */
        tell_of_message(ip);
        if (e->cork > 0)
            spk_list_append(&e->flushes, &ip->flush.link);
    }
    if (!has_room_as_seen(theirs) && !has_room(theirs)) {
        spk_pipe_set_writable(&ip->pipe, false);
        look_for_room(ip->link, ip->side);
    }
}

static int
inproc_send(struct spk_pipe *p, spoke_msg *m)
{
    struct inproc_pipe *ip = inproc_of(p);
    struct end *theirs = &ip->link->end[!ip->side];
    int rc;

    if (atomic_load_explicit(&m->refs, memory_order_acquire) >
        1) { /* the sender keeps it: the receiver gets its own, with the same bytes */
        spoke_msg *copy;

        if ((rc = spk_msg_clone(&copy, m)) != 0)
            return rc;
        spoke_msg_free(m);
        m = copy;
    }
    ring_push_many(&theirs->ring, &m, 1, m->size);
    after_push(ip);
    return 0;
}

/* Those that only the sender holds, as they are. */
static int
inproc_send_many(struct spk_pipe *p, spoke_msg **messages, int count, uint64_t *bytes)
{
    struct inproc_pipe *ip = inproc_of(p);
    struct end *theirs = &ip->link->end[!ip->side];
    int done = 0;

    while (done < count && spk_pipe_can_send(p)) {
        unsigned n = 0, most;
        size_t size = 0, room;

        if ((most = room_as_seen(theirs, &room)) == 0) /* look_for_room() saw some */
            (void)(has_room(theirs) && (most = room_as_seen(theirs, &room)));
        if (most > RUN_MOST)
            most = RUN_MOST;
        if (most > (unsigned)(count - done))
            most = (unsigned)(count - done);
        while (n < most && size < room) {
            spoke_msg *m = messages[done + (int)n];
            if (m->header_size > 0 || m->expires ||
                atomic_load_explicit(&m->refs, memory_order_acquire) > 1)
                break;
            SPK_PROBE(send, p->id, m->size);
            size += m->size;
            n++;
        }
        if (n == 0)
            break;
        ring_push_many(&theirs->ring, messages + done, n, size);
        done += (int)n;
        *bytes += size;
        after_push(ip);
    }
    return done;
}

/* ---- pipes ---- */

static void
inproc_start(struct spk_pipe *p)
{
    drain(inproc_of(p), INT32_MAX);
}

static void
inproc_resume(struct spk_pipe *p, int most)
{
    drain(inproc_of(p), most);
}

static void
inproc_close(struct spk_pipe *p)
{
    struct inproc_pipe *ip = inproc_of(p);

    spk_task_cancel(&ip->drain_task);
    spk_op_unwatch(ip->link->end[ip->side].e, &ip->watch);
    spk_list_remove(&ip->flush.link);
    ip->link->end[ip->side].pipe = NULL;
    atomic_store(&ip->link->end[ip->side].closed, true);
    notify(ip->link, !ip->side);
    spk_pipe_closed(p);
}

static void
inproc_free(struct spk_pipe *p)
{
    unref_link(inproc_of(p)->link);
    spk_free(inproc_of(p));
}

static uint64_t
inproc_pending(struct spk_pipe *p, uint64_t *bytes)
{
    (void)p;
    *bytes = 0; /* what is in the ring is the peer's */
    return 0;
}

static int
inproc_address(struct spk_pipe *p, bool local, char *text, size_t size)
{
    (void)local;
    return snprintf(text, size, "%s", p->endpoint->url.text) < 0 ? SPOKE_EIO : 0;
}

static const struct spk_pipe_ops inproc_pipe_ops = {
    .send = inproc_send,
    .send_many = inproc_send_many,
    .start = inproc_start,
    .resume = inproc_resume,
    .close = inproc_close,
    .free = inproc_free,
    .pending = inproc_pending,
    .address = inproc_address,
};

/* The ring towards one end, whose queue is known: before the other end can write to it. */
static int
make_ring(struct end *end, const struct spk_endpoint *ep)
{
    unsigned length = spk_endpoint_recv_queue(ep), slots = 1;

    length = length < 1 ? 1 : length > LENGTH_MOST ? LENGTH_MOST : length;
    while (slots < length)
        slots *= 2;
    if ((end->ring.slots = spk_zalloc(slots * sizeof *end->ring.slots)) == NULL)
        return SPOKE_ENOMEM;
    end->ring.mask = slots - 1;
    end->bytes = spk_endpoint_recv_queue_bytes(ep);
    if (end->bytes > BYTES_MOST)
        end->bytes = BYTES_MOST;
    atomic_init(&end->length, length);
    return 0;
}

/* Make the pipe of one end.  On its engine. */
static int
make_pipe(struct link *link, int side, struct spk_endpoint *ep)
{
    struct inproc_pipe *ip = spk_zalloc(sizeof *ip);
    int rc;

    if (ip == NULL)
        return SPOKE_ENOMEM;
    if (side == LISTENER && (rc = make_ring(&link->end[side], ep)) != 0) {
        spk_free(ip);
        return rc;
    }
    ip->side = side;
    ip->link = link;
    spk_op_init(&ip->watch, on_watch);
    spk_task_init(&ip->drain_task, on_drain_task);
    spk_list_init(&ip->flush.link);
    ip->flush.fn = on_flush;
    if ((rc = spk_pipe_init(&ip->pipe, ep, &inproc_pipe_ops)) != 0) {
        spk_free(ip);
        return rc;
    }
    ref_link(link);
    link->end[side].pipe = ip;
    if (ep->is_dialer)
        ep->pipe = &ip->pipe;
    spk_pipe_shook_hands(&ip->pipe);
    return 0;
}

/* ---- connecting: first the listener's side, then the dialer's ---- */

static void
run_step(void *ctx)
{
    struct link *link = ctx;

    link->step(link);
    unref_link(link);
}

static void
run_step_task(struct spk_task *task)
{
    run_step(SPK_OWNER(task, struct link, task));
}

/* Go on at the end `side`.  False if its engine is gone. */
static bool
go_to(struct link *link, int side, void (*step)(struct link *link), struct spk_engine *here)
{
    link->step = step;
    ref_link(link);
    if (link->end[side].e == here) {
        spk_task_init(&link->task, run_step_task);
        spk_task_queue(here, &link->task);
    } else if (spk_engine_post_embedded(link->end[side].e, link->end[side].number, &link->post,
                                        run_step, link) != 0) {
        unref_link(link);
        return false;
    }
    return true;
}

static void
dialer_step(struct link *link)
{
    struct end *mine = &link->end[DIALER];
    struct spk_endpoint *d = mine->ep;
    int rc = link->refused;

    mine->ep = NULL;
    if (d == NULL) {
        rc = SPOKE_ECANCELED;
    } else {
        d->private = NULL;
        if (rc == 0 && d->state == SPK_DIALING) {
            spk_timer_cancel(mine->e, &d->timer);
            d->state = SPK_CONNECTED;
            spk_endpoint_count(d);
            if ((rc = make_pipe(link, DIALER, d)) != 0)
                d->state = SPK_DIALING;
        } else if (rc == 0) {
            rc = SPOKE_ECANCELED;
        }
        if (rc == 0)
            spk_endpoint_unref(d);
        else
            spk_dialer_failed(d, rc);
    }
    if (rc != 0) { /* the listener's pipe, if there is one, ends */
        atomic_store(&mine->closed, true);
        notify(link, LISTENER);
    }
    unref_link(link); /* the attempt's own reference */
}

static void
listener_step(struct link *link)
{
    struct end *mine = &link->end[LISTENER];
    struct spk_endpoint *l;

    pthread_mutex_lock(&names_lock);
    l = link->name->l;
    pthread_mutex_unlock(&names_lock);
    if (l == NULL || !spk_listener_is_open(l)) {
        link->refused = SPOKE_ECONNREFUSED;
    } else if ((link->refused = make_pipe(link, LISTENER, l)) != 0) {
        spk_listener_failed(l, link->refused);
    } else {
        spk_endpoint_count(l);
        if (l->owner != NULL && mine->pipe->pipe.state == SPK_PIPE_CLOSING) /* its dialer waits */
            link->refused = mine->pipe->pipe.reason;
    }
    if (link->refused != 0)
        atomic_store(&mine->closed, true);
    if (!go_to(link, DIALER, dialer_step, mine->e)) { /* it will never know */
        atomic_store(&link->end[DIALER].closed, true);
        on_notice(link, LISTENER);
        unref_link(link);
    }
}

/* Takes a reference on `n`. */
static int
connect_to(struct spk_endpoint *d, struct name *n)
{
    struct link *link = spk_zalloc(sizeof *link);

    if (link == NULL || make_ring(&link->end[DIALER], d) != 0) {
        spk_free(link);
        unref_name(n);
        return SPOKE_ENOMEM;
    }
    atomic_init(&link->refs, 1);
    link->name = n;
    link->end[DIALER].e = d->e;
    link->end[DIALER].number = d->e->number;
    link->end[DIALER].ep = d;
    link->end[LISTENER].e = n->e;
    link->end[LISTENER].number = n->number;
    d->private = link;
    if (!go_to(link, LISTENER, listener_step, d->e)) {
        link->refused = SPOKE_ECONNREFUSED;
        go_to(link, DIALER, dialer_step, d->e);
    }
    return 0;
}

/* ---- dialing ---- */

static int
wait_for_name(struct spk_endpoint *d)
{
    struct wait *w = spk_zalloc(sizeof *w);

    if (w == NULL)
        return SPOKE_ENOMEM;
    w->e = d->e;
    w->number = d->e->number;
    w->d = d;
    spk_list_append(&waits, &w->link);
    return 0;
}

static void
inproc_dial(struct spk_endpoint *d)
{
    struct name *n;
    int rc = 0;

    pthread_mutex_lock(&names_lock);
    if ((n = find_name(d->url.path)) == NULL) {
        rc = d->owner != NULL ? SPOKE_ECONNREFUSED : wait_for_name(d);
    } else if (n->protocol != spk_endpoint_peer(d)) {
        n = NULL;
        rc = SPOKE_EPEER;
    } else {
        n->refs++;
    }
    pthread_mutex_unlock(&names_lock);
    if (n != NULL)
        rc = connect_to(d, n);
    if (rc != 0) {
        spk_dialer_fail_later(d, rc);
    } else if (n == NULL) { /* as long as it takes */
        spk_timer_cancel(d->e, &d->timer);
        if (!d->first_done)
            spk_dialer_attempt_over(d, SPOKE_ECONNREFUSED);
    }
}

/* Stop waiting for a name; false if `d` did not. */
static bool
stop_waiting(struct spk_endpoint *d)
{
    struct wait *found = NULL;

    pthread_mutex_lock(&names_lock);
    SPK_LIST_EACH(link, &waits)
    {
        struct wait *w = SPK_OWNER(link, struct wait, link);

        if (w->d == d) {
            found = w;
            break;
        }
    }
    if (found != NULL && found->called)
        found->d = NULL; /* the post that is on its way frees it */
    else if (found != NULL)
        spk_list_remove(&found->link);
    pthread_mutex_unlock(&names_lock);
    if (found != NULL && found->d != NULL)
        spk_free(found);
    return found != NULL;
}

static void
inproc_dial_cancel(struct spk_endpoint *d)
{
    struct link *link = d->private;

    if (link != NULL) { /* the answer finds nobody */
        link->end[DIALER].ep = NULL;
        d->private = NULL;
        spk_dialer_fail_later(d, SPOKE_ECANCELED);
    } else if (stop_waiting(d)) {
        spk_dialer_fail_later(d, SPOKE_ECANCELED);
    }
}

/* ---- listening ---- */

static void
on_called(void *ctx)
{
    struct wait *w = ctx;
    struct spk_endpoint *d;

    pthread_mutex_lock(&names_lock);
    d = w->d;
    spk_list_remove(&w->link);
    pthread_mutex_unlock(&names_lock);
    spk_free(w);
    if (d != NULL)
        inproc_dial(d);
}

/* Those that have been waiting for this name try again, each on its engine.  Under names_lock. */
static void
call_waiting(const char *text)
{
    SPK_LIST_EACH(link, &waits)
    {
        struct wait *w = SPK_OWNER(link, struct wait, link);

        if (spk_engine_is_ours(w->e) && !w->called && w->d != NULL &&
            strcmp(w->d->url.path, text) == 0)
            w->called = spk_engine_post_embedded(w->e, w->number, &w->post, on_called, w) == 0;
    }
}

static int
inproc_listen(struct spk_endpoint *l)
{
    size_t size = strlen(l->url.path) + 1;
    struct name *n = spk_zalloc(sizeof *n + size);

    if (n == NULL)
        return SPOKE_ENOMEM;
    memcpy(n->text, l->url.path, size);
    n->refs = 1;
    n->e = l->e;
    n->number = l->e->number;
    n->l = l;
    n->protocol = spk_endpoint_protocol(l);
    pthread_mutex_lock(&names_lock);
    if (find_name(n->text) != NULL) {
        pthread_mutex_unlock(&names_lock);
        spk_free(n);
        return SPOKE_EADDRINUSE;
    }
    spk_list_append(&names, &n->link);
    call_waiting(n->text);
    pthread_mutex_unlock(&names_lock);
    l->private = n;
    return 0;
}

static void
inproc_listen_close(struct spk_endpoint *l)
{
    struct name *n = l->private;

    l->private = NULL;
    pthread_mutex_lock(&names_lock);
    spk_list_remove(&n->link);
    n->l = NULL;
    pthread_mutex_unlock(&names_lock);
    unref_name(n);
    spk_listener_closed(l);
}

static int
inproc_listen_address(struct spk_endpoint *l, char *text, size_t size)
{
    return snprintf(text, size, "%s", l->url.text) < 0 ? SPOKE_EIO : 0;
}

const struct spoke_transport spoke_transport_inproc = {
    .abi = SPOKE_TRANSPORT_ABI,
    .scheme = "inproc",
    .addresses = {{.prefix = "inproc", .parse = spk_url_any_name}},
    .message_face = true,
    .dial = inproc_dial,
    .dial_cancel = inproc_dial_cancel,
    .listen = inproc_listen,
    .listen_close = inproc_listen_close,
    .listen_address = inproc_listen_address,
};
