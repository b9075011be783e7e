/* SPDX-License-Identifier: MIT */
/* One message for many: see fanout.h. */
#include "protocols/sp/fanout.h"

void
spk_fanout_init(struct spk_fanout *f)
{
    spk_list_init(&f->peers);
}

void
spk_fanout_add(struct spk_fanout *f, struct spk_pipe *p)
{
    struct spk_fanout_peer *peer = spk_pipe_state(p);

    peer->pipe = p;
    spk_list_append(&f->peers, &peer->link);
    f->count++;
}

void
spk_fanout_remove(struct spk_socket *s, struct spk_fanout *f, struct spk_pipe *p)
{
    struct spk_fanout_peer *peer = spk_pipe_state(p);
    uint64_t bytes;

    f->waiting -= spk_sp_queued(&peer->waiting, &bytes);
    f->waiting_bytes -= bytes;
    spk_socket_counters(s)->dropped_lost += peer->waiting.count;
    spk_queue_fini(&peer->waiting);
    spk_list_remove(&peer->link);
    f->count--;
}

static size_t
cost(const spoke_msg *m)
{
    return m->size + m->header_size;
}

void
spk_fanout_writable(struct spk_socket *s, struct spk_fanout *f, struct spk_pipe *p)
{
    struct spk_queue *q = &((struct spk_fanout_peer *)spk_pipe_state(p))->waiting;

    if (q->count == 0)
        return;
    while (q->count > 0 && spk_pipe_can_send(p)) {
        f->waiting--;
        f->waiting_bytes -= cost(q->slots[q->head]);
        spk_sp_send_next(s, q, p);
    }
    spk_socket_wake(s, SPK_WRITABLE); /* a lingering close may have waited for it */
}

static int
enqueue(struct spk_socket *s, struct spk_fanout *f, struct spk_queue *q, spoke_msg *m)
{
    size_t size = cost(m);

    spk_sp_bound_queue(s, q);
    int rc = spk_sp_enqueue(s, q, m);
    if (rc == 0) {
        f->waiting++;
        f->waiting_bytes += size;
    }
    return rc;
}

/* Takes m. */
static void
give(struct spk_socket *s, struct spk_fanout *f, struct spk_fanout_peer *peer, spoke_msg *m)
{
    int rc = peer->waiting.count == 0 ? spk_pipe_send(peer->pipe, m) : SPOKE_EAGAIN;

    if (rc == SPOKE_EAGAIN)
        rc = enqueue(s, f, &peer->waiting, m);
    if (rc != 0) {
        spk_socket_counters(s)->dropped_peer_full++;
        spoke_msg_free(m);
    }
}

/* The last one gets our own reference: a message for one peer is not shared at all. */
void
spk_fanout_send(struct spk_socket *s, struct spk_fanout *f, spoke_msg *m,
                const struct spk_pipe *except)
{
    struct spk_fanout_peer *last = NULL;

    SPK_LIST_EACH(link, &f->peers)
    {
        struct spk_fanout_peer *peer = SPK_OWNER(link, struct spk_fanout_peer, link);

        if (peer->pipe == except)
            continue;
        if (last != NULL)
            give(s, f, last, spoke_msg_dup(m));
        last = peer;
    }
    if (last != NULL)
        give(s, f, last, m);
    else
        spoke_msg_free(m);
}

size_t
spk_fanout_pending(const struct spk_fanout *f, uint64_t *bytes)
{
    *bytes = f->waiting_bytes;
    return f->waiting;
}
