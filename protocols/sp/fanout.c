/* SPDX-License-Identifier: MIT */
/* fanout.h.  A message goes to its pipe directly only while nothing waits for that, so each pipe
 * gets its messages in the order of the sends. */
#include "protocols/sp/fanout.h"

#include <string.h>

int
spk_fanout_open(struct spk_socket *s)
{
    struct spk_fanout *f = spk_socket_state(s);

    spk_list_init(&f->targets);
    f->topic_end = -1;
    return 0;
}

int
spk_fanout_pipe_added(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_fanout *f = spk_socket_state(s);
    struct spk_target *t = spk_pipe_state(p);

    t->pipe = p;
    t->loss = spk_pipe_loss(p);
    spk_sp_bound_queue(s, &t->waiting);
    spk_latest_init(&t->latest, t->waiting.max_messages, t->waiting.max_bytes);
    f->blocking += t->loss == SPOKE_LOSS_BLOCK;
    spk_list_append(&f->targets, &t->link);
    f->count++;
    return 0;
}

static size_t
queued(const struct spk_target *t, uint64_t *bytes)
{
    size_t count = spk_sp_queued(&t->waiting, bytes) + t->latest.count;

    *bytes += t->latest.bytes - t->latest.count * sizeof(spoke_msg);
    return count;
}

void
spk_fanout_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_fanout *f = spk_socket_state(s);
    struct spk_target *t = spk_pipe_state(p);
    spoke_msg *m;

    f->blocking -= t->loss == SPOKE_LOSS_BLOCK;
    spk_list_remove(&t->link);
    f->count--;
    spk_sp_end_queue(s, p, &t->waiting);
    while ((m = spk_latest_pop(&t->latest)) != NULL)
        spk_drop(s, p, m, SPK_DROP_LOST);
    spk_latest_fini(&t->latest);
}

/* ---- losses ---- */

static void
drop_full(struct spk_socket *s, struct spk_target *t, spoke_msg *m)
{
    spk_drop(s, t->pipe, m, SPK_DROP_PEER_FULL);
}

static void
drop_conflated(struct spk_socket *s, struct spk_target *t, spoke_msg *m)
{
    if (m != NULL)
        spk_drop(s, t->pipe, m, SPK_DROP_CONFLATED);
}

/* What it misses cannot be made good: the connection ends, as it does when a message is lost on its
 * way. */
static void
fail(struct spk_socket *s, struct spk_target *t, spoke_msg *m, int error)
{
    spk_drop(s, t->pipe, m, SPK_DROP_LOST);
    spk_pipe_shut(t->pipe, error);
}

static uint64_t
losses(struct spk_target *t)
{
    const struct spoke_pipe_stats *stats = spk_pipe_counters(t->pipe);

    return stats->dropped_peer_full + stats->dropped_conflated + stats->dropped_expired;
}

/* Make the message that tells of losses: the topic, how many since the last one, how many ever.
 * NULL: there is nothing to tell, or no memory for it now. */
static spoke_msg *
make_receipt(struct spk_fanout *f, struct spk_target *t)
{
    uint8_t bytes[SPK_LOSS_TOPIC_MOST + 16];
    uint64_t ever = losses(t);
    spoke_msg *m;

    if (f->loss_topic_size == 0 || ever == t->told)
        return NULL;
    memcpy(bytes, f->loss_topic, f->loss_topic_size);
    spk_put64(bytes + f->loss_topic_size, ever - t->told);
    spk_put64(bytes + f->loss_topic_size + 8, ever);
    return spoke_msg_from(&m, bytes, f->loss_topic_size + 16u) == 0 ? m : NULL;
}

/* ---- what waits ---- */

static size_t
topic_of(const struct spk_fanout *f, const spoke_msg *m)
{
    size_t size = m->size < f->topic_size ? m->size : f->topic_size;
    const uint8_t *end = f->topic_end >= 0 && size > 0 ? memchr(m->body, f->topic_end, size) : NULL;

    return end != NULL ? (size_t)(end - m->body) : size;
}

static void
conflate(struct spk_socket *s, struct spk_fanout *f, struct spk_target *t, spoke_msg *m)
{
    size_t topic = topic_of(f, m);
    spoke_msg *oldest;
    int rc;

    drop_conflated(s, t, spk_latest_replace(&t->latest, m, topic));
    while (spk_latest_full(&t->latest) && (oldest = spk_latest_pop(&t->latest)) != NULL)
        drop_full(s, t, oldest);
    if (spk_latest_full(&t->latest)) /* it has no length */
        drop_full(s, t, m);
    else if ((rc = spk_latest_push(&t->latest, m, topic)) != 0)
        fail(s, t, m, rc);
}

static void
enqueue(struct spk_socket *s, struct spk_fanout *f, struct spk_target *t, spoke_msg *m)
{
    spoke_msg *other;
    int rc;

    if (t->loss == SPOKE_LOSS_CONFLATE) {
        conflate(s, f, t, m);
        return;
    }
    while (t->loss == SPOKE_LOSS_OLDEST && spk_queue_full(&t->waiting) &&
           (other = spk_queue_pop(&t->waiting)) != NULL)
        drop_full(s, t, other);
    if (spk_queue_full(&t->waiting)) {
        if (t->loss == SPOKE_LOSS_DISCONNECT) {
            /* Who is gone already, and only not removed yet, was not too slow. */
            spk_socket_counters(s)->disconnected_slow += spk_socket_pipe(s, spk_pipe_id(t->pipe)) !=
                                                         NULL;
            spk_pipe_shut(t->pipe, SPOKE_ELIMIT);
            t->loss = SPOKE_LOSS_NEWEST; /* once is enough */
        }
        drop_full(s, t, m);
        return;
    }
    /* Newest lost: that was behind what waits, and in front of this one.  What expires while it
     * waits is told of here too, although it was in front of others: a receipt that waits says how
     * many there were ever, so none may overtake it. */
    if (t->loss == SPOKE_LOSS_NEWEST && (other = make_receipt(f, t)) != NULL) {
        if (spk_queue_force(&t->waiting, other) == 0)
            t->told = losses(t);
        else
            spoke_msg_free(other);
    }
    if ((rc = spk_sp_enqueue(s, &t->waiting, m)) == SPOKE_EAGAIN)
        rc = spk_queue_force(&t->waiting, m); /* the receipt took the last place */
    if (rc != 0)
        fail(s, t, m, rc);
}

static bool
has_waiting(const struct spk_target *t)
{
    return t->waiting.count + t->latest.count > 0;
}

/* Tell of losses that were in front of what comes next.  False: the pipe can take no more. */
static bool
send_receipt(struct spk_fanout *f, struct spk_target *t)
{
    spoke_msg *m = make_receipt(f, t);

    if (m == NULL)
        return true;
    if (spk_pipe_send(t->pipe, m) == 0)
        t->told = losses(t);
    else
        spoke_msg_free(m);
    return spk_pipe_can_send(t->pipe);
}

/* ---- sending ---- */

/* Can it take a message, or else lose one? */
static bool
is_blocked(const struct spk_target *t)
{
    return t->loss == SPOKE_LOSS_BLOCK && spk_queue_full(&t->waiting) &&
           (t->waiting.count > 0 || !spk_pipe_can_send(t->pipe));
}

bool
spk_fanout_can_send(const struct spk_fanout *f)
{
    if (f->blocking == 0)
        return true;
    SPK_LIST_EACH(link, &f->targets)
    if (is_blocked(SPK_OWNER(link, struct spk_target, link)))
        return false;
    return true;
}

static void
send_to(struct spk_socket *s, struct spk_fanout *f, struct spk_target *t, spoke_msg *m)
{
    int rc = SPOKE_EAGAIN;

    if (!has_waiting(t) && send_receipt(f, t))
        rc = spk_pipe_send(t->pipe, m);
    if (rc == SPOKE_EAGAIN)
        enqueue(s, f, t, m);
    else if (rc != 0)
        fail(s, t, m, rc);
}

/* The last one gets our own reference: with one target nothing is shared at all. */
void
spk_fanout_send(struct spk_socket *s, spoke_msg *m, const struct spk_pipe *except)
{
    struct spk_fanout *f = spk_socket_state(s);
    struct spk_target *last = NULL;

    SPK_LIST_EACH(link, &f->targets)
    {
        struct spk_target *t = SPK_OWNER(link, struct spk_target, link);

        if (t->pipe == except)
            continue;
        if (last != NULL)
            send_to(s, f, last, spoke_msg_dup(m));
        last = t;
    }
    if (last != NULL)
        send_to(s, f, last, m);
    else
        spoke_msg_free(m);
}

void
spk_fanout_miss(struct spk_socket *s, const struct spk_pipe *except)
{
    struct spk_fanout *f = spk_socket_state(s);

    SPK_LIST_EACH(link, &f->targets)
    {
        struct spk_target *t = SPK_OWNER(link, struct spk_target, link);

        if (t->pipe != except)
            spk_count_drops(s, t->pipe, SPK_DROP_PEER_FULL, 1);
    }
}

static void
send_waiting(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_target *t = spk_pipe_state(p);
    spoke_msg *m;
    int rc;

    while (has_waiting(t) && spk_pipe_can_send(p)) {
        if (t->loss != SPOKE_LOSS_NEWEST && !send_receipt(spk_socket_state(s), t))
            return;
        m = t->latest.count > 0 ? spk_latest_pop(&t->latest) : spk_queue_pop(&t->waiting);
        if ((rc = spk_pipe_send(p, m)) != 0)
            fail(s, t, m, rc);
    }
}

void
spk_fanout_writable(struct spk_socket *s, struct spk_pipe *p)
{
    send_waiting(s, p);
    spk_socket_wake(s, SPK_WRITABLE | SPK_ALL); /* a lingering close may have waited for it too */
}

unsigned
spk_fanout_ready(struct spk_socket *s)
{
    unsigned ready = spk_socket_has_message(s) ? SPK_READABLE : 0;

    return spk_fanout_can_send(spk_socket_state(s)) ? ready | SPK_WRITABLE : ready;
}

size_t
spk_fanout_pending(struct spk_socket *s, uint64_t *bytes)
{
    const struct spk_fanout *f = spk_socket_state(s);
    size_t count = 0;
    uint64_t some;

    *bytes = 0;
    SPK_LIST_EACH(link, &f->targets)
    {
        count += queued(SPK_OWNER(link, struct spk_target, link), &some);
        *bytes += some;
    }
    return count;
}
