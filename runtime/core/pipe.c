/* SPDX-License-Identifier: MIT */
/* Pipes: one connection to one peer, from the handshake to the last byte, whatever carries it. This
 * file is the part that all of them share: their number, their states, what the protocol and the
 * user are told, and when they are freed. */
#include <stddef.h>

#include "runtime/core/core.h"
#include "runtime/engine/probe.h"

/* ---- numbers: 31 bits, never 0, unique in the process among live pipes, the first one random,
 * then + 1 ---- */

static pthread_mutex_t ids_lock = PTHREAD_MUTEX_INITIALIZER;
SPK_FREE_AFTER_FORK(ids_lock)
static struct spk_idmap ids;
static uint32_t last_id;

static int
take_id(struct spk_engine *e, void *value, spoke_pipe_id *out)
{
    /* Drawn always: a simulated run does not depend on whether it is the first of the process. */
    uint32_t first = (uint32_t)spk_engine_random(e) & 0x7fffffff;
    int rc;

    pthread_mutex_lock(&ids_lock);
    if (last_id == 0)
        last_id = first;
    do
        last_id = (last_id + 1) & 0x7fffffff;
    while (last_id == 0 || spk_idmap_get(&ids, last_id) != NULL);
    rc = spk_idmap_set(&ids, last_id, value);
    *out = rc == 0 ? last_id : 0;
    pthread_mutex_unlock(&ids_lock);
    return rc;
}

static void
give_id(spoke_pipe_id id)
{
    pthread_mutex_lock(&ids_lock);
    spk_idmap_remove(&ids, id);
    if (ids.count == 0)
        spk_idmap_fini(&ids);
    pthread_mutex_unlock(&ids_lock);
}

/* ---- whose turn it is to send ---- */

static void
become_ready(struct spk_pipe *p)
{
    struct spk_socket *s = p->socket;

    spk_list_append(&s->ready[p->send_priority - 1], &p->ready);
    s->ready_priorities |= 1u << (p->send_priority - 1);
}

static void
cease_to_be_ready(struct spk_pipe *p)
{
    struct spk_socket *s = p->socket;

    spk_list_remove(&p->ready);
    if (spk_list_empty(&s->ready[p->send_priority - 1]))
        s->ready_priorities &= ~(1u << (p->send_priority - 1));
}

/* ---- life ---- */

static void on_close_task(struct spk_task *task);
static void on_writable_task(struct spk_task *task);

int
spk_pipe_init(struct spk_pipe *p, struct spk_endpoint *endpoint, const struct spk_pipe_ops *ops)
{
    struct spk_socket *s = endpoint->socket;
    int rc;

    p->socket = s;
    p->endpoint = endpoint;
    p->ops = ops;
    p->state = SPK_PIPE_STARTING;
    p->send_priority = (uint8_t)endpoint->options.send_priority;
    p->recv_priority = (uint8_t)endpoint->options.recv_priority;
    spk_list_init(&p->link);
    spk_list_init(&p->ready);
    spk_list_init(&p->stalled);
    spk_task_init(&p->close_task, on_close_task);
    spk_task_init(&p->writable_task, on_writable_task);
    if (s->protocol->pipe_size > 0 &&
        (p->state_memory = spk_zalloc(s->protocol->pipe_size)) == NULL)
        return SPOKE_ENOMEM;
    if ((rc = take_id(s->e, p, &p->id)) != 0)
        goto free_state;
    if ((rc = spk_idmap_set(&s->by_id, p->id, p)) != 0)
        goto give_id;
    spk_list_append(&s->pipes, &p->link);
    s->ranked |= p->recv_priority != SPK_PRIORITY_DEFAULT;
    s->pipe_count++;
    endpoint->refs++;
    return 0;
give_id:
    give_id(p->id);
free_state:
    spk_free(p->state_memory);
    p->state_memory = NULL;
    return rc;
}

static bool
has_enough_pipes(const struct spk_socket *s)
{
    return s->max_pipes > 0 && s->stats.pipes_current >= (uint64_t)s->max_pipes;
}

static void
refuse(struct spk_pipe *p, int reason)
{
    spk_endpoint_count_refused(p->endpoint);
    spk_pipe_shut(p, reason);
}

void
spk_pipe_shook_hands(struct spk_pipe *p)
{
    struct spk_socket *s = p->socket;

    if (p->state != SPK_PIPE_STARTING)
        return;
    p->state = SPK_PIPE_ATTACHING;
    if (s->state_now == SPK_SOCKET_CLOSING) {
        spk_pipe_shut(p, SPOKE_ECLOSED);
    } else if (has_enough_pipes(s)) {
        refuse(p, SPOKE_ELIMIT);
    } else if (s->on_event == NULL) {
        p->announced = true; /* to whoever asks to be told later */
        spk_pipe_attach(p, 0);
    } else {
        spk_event(s, SPOKE_EVENT_ATTACHING, 0, p, p->endpoint);
    }
}

void
spk_pipe_attach(struct spk_pipe *p, int verdict)
{
    struct spk_socket *s = p->socket;

    if (p->state != SPK_PIPE_ATTACHING)
        return;
    if (verdict != 0) {
        refuse(p, SPOKE_EREFUSED);
        return;
    }
    if (p->ops->prepare != NULL && p->ops->prepare(p))
        return;
    if (has_enough_pipes(s)) { /* others were quicker */
        refuse(p, SPOKE_ELIMIT);
        return;
    }
    if (s->protocol->pipe_added != NULL && (verdict = s->protocol->pipe_added(s, p)) != 0) {
        refuse(p, verdict);
        return;
    }
    p->added = true;
    p->state = SPK_PIPE_ATTACHED;
    s->stats.pipes_attached++;
    p->endpoint->counts.attached++;
    s->stats.pipes_current++;
    if (p->endpoint->is_dialer)
        spk_dialer_attempt_over(p->endpoint, 0);
    spk_event(s, SPOKE_EVENT_ATTACHED, 0, p, p->endpoint);
    p->want_writable = true;
    p->writable = false;
    s->full_pipes++;
    spk_pipe_set_writable(p, true);
    p->ops->start(p);
}

void
spk_pipe_shut(struct spk_pipe *p, int reason)
{
    if (p->state == SPK_PIPE_CLOSING || p->state == SPK_PIPE_CLOSED)
        return;
    if (p->socket->state_now == SPK_SOCKET_LINGERING)
        spk_socket_lost(p->socket, p);
    p->socket->full_pipes -= p->state == SPK_PIPE_ATTACHED && !p->writable;
    p->state = SPK_PIPE_CLOSING;
    p->reason = reason;
    cease_to_be_ready(p);
    spk_task_queue(p->socket->e, &p->close_task);
}

static void
on_close_task(struct spk_task *task)
{
    struct spk_pipe *p = SPK_OWNER(task, struct spk_pipe, close_task);
    struct spk_socket *s = p->socket;

    spk_task_cancel(&p->writable_task);
    spk_list_remove(&p->stalled);
    if (p->added) {
        s->stats.pipes_current--;
        s->stats.pipes_closed += p->reason == SPOKE_ECLOSED;
        if (s->protocol->pipe_removed != NULL)
            s->protocol->pipe_removed(s, p);
        if (s->fail_no_peers && s->stats.pipes_current == 0) {
            spk_context_wake_all(s);
            spk_socket_wake(s, SPK_WRITABLE | SPK_ALL);
        }
    }
    p->ops->close(p);
}

void
spk_pipe_closed(struct spk_pipe *p)
{
    struct spk_socket *s = p->socket;
    struct spk_endpoint *endpoint = p->endpoint;
    int reason = p->reason;
    bool was_added = p->added;
    uint64_t bytes;

    p->state = SPK_PIPE_CLOSED;
    /* Only now: a write may have been under way until a moment ago. */
    if (was_added) {
        spk_count_drops(s, p, SPK_DROP_LOST, p->ops->pending(p, &bytes));
        if (p->ops->give_back != NULL)
            p->ops->give_back(p);
    }
    if (p->announced)
        spk_event(s, SPOKE_EVENT_DETACHED, reason, p, endpoint);
    spoke_msg_free(p->held);
    spk_free(p->farewell);
    spk_list_remove(&p->link);
    spk_idmap_remove(&s->by_id, p->id);
    give_id(p->id);
    s->pipe_count--;
    endpoint->counts.sent += p->stats.messages_sent;
    endpoint->counts.received += p->stats.messages_received;
    spk_free(p->state_memory);
    p->ops->free(p);
    spk_endpoint_pipe_gone(endpoint, reason, was_added);
    spk_endpoint_unref(endpoint);
    spk_socket_advance_close(s);
}

/* ---- sending ---- */

static void
on_writable_task(struct spk_task *task)
{
    struct spk_pipe *p = SPK_OWNER(task, struct spk_pipe, writable_task);
    struct spk_socket *s = p->socket;

    if (p->state != SPK_PIPE_ATTACHED || !p->writable || !p->want_writable)
        return;
    p->want_writable = false;
    if (s->protocol->writable != NULL)
        s->protocol->writable(s, p);
}

void
spk_pipe_set_writable(struct spk_pipe *p, bool writable)
{
    if (p->writable == writable)
        return;
    p->writable = writable;
    if (p->state != SPK_PIPE_ATTACHED)
        return;
    if (!writable) {
        p->socket->full_pipes++;
        cease_to_be_ready(p);
        p->want_writable = true;
    } else {
        p->socket->full_pipes--;
        become_ready(p);
        spk_task_queue(p->socket->e, &p->writable_task);
    }
}

bool
spk_pipe_can_send(const struct spk_pipe *p)
{
    return p->writable && p->state == SPK_PIPE_ATTACHED;
}

int
spk_pipe_send(struct spk_pipe *p, spoke_msg *m)
{
    if (!spk_pipe_can_send(p)) {
        p->want_writable = true;
        return SPOKE_EAGAIN;
    }
    if (m->expires && spk_engine_now(p->socket->e) >= m->expires_ns) {
        spk_drop(p->socket, p, m, SPK_DROP_EXPIRED);
        return 0;
    }
    SPK_PROBE(send, p->id, m->size);
    int rc = p->ops->send(p, m);
    p->stats.messages_sent += rc == 0;
    return rc;
}

int
spk_pipe_send_many(struct spk_pipe *p, spoke_msg **messages, int count, uint64_t *bytes)
{
    if (!spk_pipe_can_send(p) || p->ops->send_many == NULL)
        return 0;
    int taken = p->ops->send_many(p, messages, count, bytes);
    p->stats.messages_sent += (uint64_t)(taken > 0 ? taken : 0);
    return taken;
}

bool
spk_socket_can_send(const struct spk_socket *s)
{
    return s->ready_priorities != 0;
}

struct spk_pipe *
spk_socket_next_writable(struct spk_socket *s)
{
    if (s->ready_priorities == 0)
        return NULL;
    struct spk_link *ready = &s->ready[__builtin_ctz(s->ready_priorities)], *first = ready->next;
    if (first->next != ready) { /* to the end: its turn is over */
        spk_list_remove(first);
        spk_list_append(ready, first);
    }
    return SPK_OWNER(first, struct spk_pipe, ready);
}

/* ---- receiving ---- */

/* Where there are several pipes, each gives one message and lets the others have their turn. */
static bool
takes_turns(const struct spk_socket *s)
{
    return s->stats.pipes_current > 1 && !s->protocol->drops;
}

/* The user gets what comes, in the order in which it comes, and from one peer only. */
static bool
is_plain(const struct spk_socket *s)
{
    return s->protocol->received == NULL && !takes_turns(s) && !s->ranked;
}

/* The limit counts the protocol's words. */
bool
spk_pipe_length_is_fine(struct spk_pipe *p, uint64_t length)
{
    size_t limit = p->endpoint->options.max_recv_size;

    if ((limit == 0 || length <= limit) && length <= SPOKE_MSG_MAX)
        return true;
    p->socket->stats.oversized++;
    spk_log(SPOKE_LOG_WARNING,
            "%s: a message of %llu bytes exceeds max-recv-size (%zu), its connection is closed; "
            "raise %s if such messages are meant to be",
            p->endpoint->url.text, (unsigned long long)length, limit, SPOKE_OPT_MAX_RECV_SIZE);
    spk_pipe_shut(p, SPOKE_EMSGSIZE);
    return false;
}

void
spk_pipe_fell_silent(struct spk_pipe *p)
{
    p->socket->stats.stalled++;
    spk_log(SPOKE_LOG_WARNING,
            "%s: a peer began a message and fell silent for %lld ms (%s), its connection is closed",
            p->endpoint->url.text, (long long)(p->endpoint->options.idle_ns / SPOKE_MS),
            SPOKE_OPT_IDLE_TIMEOUT);
    spk_pipe_shut(p, SPOKE_ETIMEDOUT);
}

int
spk_pipe_room(struct spk_pipe *p, uint32_t most, size_t *cost)
{
    struct spk_socket *s = p->socket;
    struct spk_queue *q = &s->recv_queue;

    if (most > q->max_messages)
        most = q->max_messages;
    if (!is_plain(s) || s->state_now != SPK_SOCKET_OPEN || p->held != NULL ||
        (q->count == 0 && spk_queue_full(q)))
        return SPK_ONE_BY_ONE;
    if (q->count >= most || spk_queue_full(q))
        return 0;
    *cost = q->max_bytes - q->bytes;
    most -= q->count;
    if (most > SPK_READ_AHEAD)
        most = SPK_READ_AHEAD;
    return spk_queue_reserve(q, most) == 0 ? (int)most : SPK_ONE_BY_ONE;
}

void
spk_pipe_received_many(struct spk_pipe *p, spoke_msg **messages, int count)
{
    for (int i = 0; i < count; i++) {
        messages[i]->pipe = p->id;
        messages[i]->priority = p->recv_priority;
        messages[i]->expires = messages[i]->returns = false;
        SPK_PROBE(deliver, p->id, messages[i]->size);
    }
    p->stats.messages_received += (uint64_t)count;
    spk_queue_force_many(&p->socket->recv_queue, messages, (uint32_t)count);
    spk_socket_wake(p->socket, SPK_READABLE);
}

/* What is left of a header is the user's. */
static int
received_as_it_is(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    int rc = m->header_size > 0 ? spk_msg_flatten(m) : 0;

    if (rc != 0)
        spoke_msg_free(m);
    else
        spk_socket_deliver(s, p, m);
    return rc;
}

int
spk_pipe_received(struct spk_pipe *p, spoke_msg *m)
{
    struct spk_socket *s = p->socket;
    uint32_t queued = s->recv_queue.count;
    int rc;

    if (s->state_now != SPK_SOCKET_OPEN) { /* nobody will ever ask for it */
        spoke_msg_free(m);
        return true;
    }
    m->pipe = p->id;
    m->priority = p->recv_priority;
    m->expires = m->returns = false; /* that was for the way here */
    p->stats.messages_received++;
    if (s->protocol->received == NULL)
        rc = received_as_it_is(s, p, m);
    else
        rc = s->protocol->received(s, p, m);
    if (rc != 0)
        spk_pipe_shut(p, rc);
    return p->state == SPK_PIPE_ATTACHED && p->held == NULL &&
           (p->keeps_reading || !takes_turns(s) || s->recv_queue.count <= queued);
}

/* Who stopped because the queue is full goes on at half of it, so that it is not run dry by the
 * time that the peer has been told; who only has not made messages of its bytes yet has time. */
void
spk_pipe_stall(struct spk_pipe *p)
{
    struct spk_socket *s = p->socket;
    struct spk_link *list = &s->stalled, *before = list->prev;
    uint32_t low = s->recv_queue.max_messages / 2;

    if (!spk_list_empty(&p->stalled) || p->state != SPK_PIPE_ATTACHED)
        return;
    if (is_plain(s) && p->held == NULL && !spk_queue_full(&s->recv_queue) &&
        low > SPK_READ_AHEAD / 2)
        low = SPK_READ_AHEAD / 2;
    if (spk_list_empty(&s->stalled) || low > s->low)
        s->low = low;
    while (before != list &&
           SPK_OWNER(before, struct spk_pipe, stalled)->recv_priority > p->recv_priority)
        before = before->prev;
    spk_list_append(before->next, &p->stalled); /* in front of whoever comes after */
}

void
spk_socket_deliver(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    SPK_PROBE(deliver, p->id, m->size);
    int rc = s->ranked ? spk_queue_push_ranked(&s->recv_queue, m)
                       : spk_queue_push(&s->recv_queue, m);
    if (rc != 0) {
        p->held = m;
        spk_pipe_stall(p);
    }
    spk_socket_wake(s, SPK_READABLE);
}

/* One round: everybody who was held back gives a message, or all that there is room for if nobody
 * else is there. */
void
spk_socket_refill(struct spk_socket *s)
{
    struct spk_link *last = s->stalled.prev, *link = NULL;

    while (link != last && !spk_queue_full(&s->recv_queue) &&
           (link = spk_list_take(&s->stalled)) != NULL) {
        struct spk_pipe *p = SPK_OWNER(link, struct spk_pipe, stalled);
        spoke_msg *m = p->held;

        p->held = NULL;
        if (m != NULL)
            spk_socket_deliver(s, p, m);
        if (p->held != NULL) /* no memory to queue it: whoever takes next gets it as it is */
            break;
        /* It stops by itself after a message that was queued; those that the pattern drops do not
         * count. */
        p->ops->resume(p, m != NULL && takes_turns(s) ? 0 : INT32_MAX);
        if (takes_turns(s) && spk_list_empty(&p->stalled))
            s->look = true;
    }
}

static int
take_held(struct spk_socket *s, spoke_msg **m)
{
    SPK_LIST_EACH(link, &s->stalled)
    {
        struct spk_pipe *p = SPK_OWNER(link, struct spk_pipe, stalled);

        if (p->held != NULL) {
            *m = p->held;
            p->held = NULL;
            spk_list_remove(&p->stalled);
            p->ops->resume(p, INT32_MAX); /* until the next one is held */
            return 0;
        }
    }
    return SPOKE_EAGAIN;
}

int
spk_socket_take_many(struct spk_socket *s, spoke_msg **messages, int count)
{
    uint32_t done = 0, most = (uint32_t)count, n;

    do {
        /* Those of the best priority that were held back overtake what is queued. */
        n = spk_queue_pop_many(&s->recv_queue, messages + done, s->ranked ? 1 : most - done);
        done += n;
        if (!spk_list_empty(&s->stalled) && (s->ranked || s->recv_queue.count <= s->low))
            spk_socket_refill(s);
    } while (done < most && s->recv_queue.count > 0);
    return (int)done;
}

int
spk_socket_take(struct spk_socket *s, spoke_msg **m)
{
    if (spk_socket_take_many(s, m, 1) == 1)
        return 0;
    return take_held(s, m); /* a queue of no length at all, or no memory for one */
}

bool
spk_socket_has_message(const struct spk_socket *s)
{
    return s->recv_queue.count > 0 || !spk_list_empty(&s->stalled) ||
           spk_front_has_message(s->front);
}

bool
spk_socket_recv_full(const struct spk_socket *s)
{
    return spk_queue_full(&s->recv_queue);
}

bool
spk_socket_drop_oldest(struct spk_socket *s)
{
    struct spk_queue *q = &s->recv_queue;
    spoke_msg *m;
    uint32_t at = 0;

    if (q->count == 0)
        return false;
    if (s->ranked)
        for (at = q->count - 1; at > 0; at--)
            if (q->slots[(q->head + at - 1) & q->mask]->priority !=
                q->slots[(q->head + at) & q->mask]->priority)
                break;
    m = at == 0 ? spk_queue_pop(q) : spk_queue_remove(q, at);
    spk_drop(s, spk_socket_pipe(s, m->pipe), m, SPK_DROP_RECV_FULL);
    return true;
}

void
spk_socket_filter(struct spk_socket *s, bool (*keep)(void *s, const spoke_msg *m))
{
    spk_queue_filter(&s->recv_queue, keep, s);
    if (s->front != NULL)
        spk_front_filter(s->front, keep, s);

    struct spk_link *last = s->stalled.prev, *link = NULL;

    /* Once around: who had to let its message go reads on, which may hold another one back. */
    while (link != last && (link = spk_list_take(&s->stalled)) != NULL) {
        struct spk_pipe *p = SPK_OWNER(link, struct spk_pipe, stalled);

        if (p->held == NULL || keep(s, p->held)) {
            spk_list_append(&s->stalled, link);
            continue;
        }
        spoke_msg_free(p->held);
        p->held = NULL;
        p->ops->resume(p, INT32_MAX);
    }
    spk_socket_refill(s);
}

/* ---- drops ---- */

#define NOWHERE SIZE_MAX

/* Where a reason is counted, and as what it is told to the user who sent the message. */
static const struct {
    size_t socket, pipe;
    int error;
} reasons[] = {
#define BOTH(name) offsetof(struct spoke_stats, name), offsetof(struct spoke_pipe_stats, name)
    [SPK_DROP_BEST_EFFORT] = {offsetof(struct spoke_stats, dropped_best_effort), NOWHERE,
                              SPOKE_EAGAIN},
    [SPK_DROP_NO_PEER] = {offsetof(struct spoke_stats, dropped_no_peer), NOWHERE, SPOKE_ENOPEER},
    [SPK_DROP_EXPIRED] = {BOTH(dropped_expired), SPOKE_ETIMEDOUT},
    [SPK_DROP_PEER_FULL] = {BOTH(dropped_peer_full), SPOKE_ELIMIT},
    [SPK_DROP_CONFLATED] = {BOTH(dropped_conflated), 0},
    [SPK_DROP_RECV_FULL] = {BOTH(dropped_recv_full), 0},
    [SPK_DROP_UNWANTED] = {BOTH(dropped_unwanted), 0},
    [SPK_DROP_STALE] = {BOTH(dropped_stale), 0},
    [SPK_DROP_TTL] = {BOTH(dropped_ttl), 0},
    [SPK_DROP_LOST] = {BOTH(dropped_lost), SPOKE_ECONNRESET},
    [SPK_DROP_GARBLED] = {BOTH(garbled), 0},
#undef BOTH
    [SPK_DROP_LEFT] = {NOWHERE, NOWHERE, SPOKE_ECLOSED},
};

static void
add(void *stats, size_t offset, uint64_t count)
{
    if (offset != NOWHERE)
        *(uint64_t *)(void *)((char *)stats + offset) += count;
}

void
spk_count_drops(struct spk_socket *s, struct spk_pipe *p, enum spk_drop why, uint64_t count)
{
    add(&s->stats, reasons[why].socket, count);
    if (p != NULL)
        add(&p->stats, reasons[why].pipe, count);
}

void
spk_drop(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m, enum spk_drop why)
{
    spk_count_drops(s, p, why, 1);
    if (why == SPK_DROP_LOST && s->state_now == SPK_SOCKET_LINGERING) {
        s->report.messages++;
        s->report.bytes += m->header_size + m->size;
    }
    if (m->returns)
        spk_give_back(s, m, reasons[why].error);
    else
        spoke_msg_free(m);
}

/* ---- small things for protocols ---- */

enum spoke_loss
spk_pipe_loss(const struct spk_pipe *p)
{
    return (enum spoke_loss)p->endpoint->options.loss;
}

struct spoke_pipe_stats *
spk_pipe_counters(struct spk_pipe *p)
{
    return &p->stats;
}

void
spk_pipe_keep_reading(struct spk_pipe *p)
{
    p->keeps_reading = true;
}

void *
spk_pipe_state(struct spk_pipe *p)
{
    return p->state_memory;
}

spoke_pipe_id
spk_pipe_id(const struct spk_pipe *p)
{
    return p->id;
}

struct spk_pipe *
spk_socket_pipe(struct spk_socket *s, spoke_pipe_id id)
{
    struct spk_pipe *p = spk_idmap_get(&s->by_id, id);

    return p != NULL && p->state == SPK_PIPE_ATTACHED ? p : NULL;
}
