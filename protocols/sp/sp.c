/* SPDX-License-Identifier: MIT */
/* Words, ids and queues: see sp.h. */
#include "protocols/sp/sp.h"

/* ---- words ---- */

int
spk_sp_return_tail(spoke_msg *m, size_t size)
{
    size_t tail = m->header_size - size;

    if (tail == 0)
        return 0;
    int rc = spoke_msg_prepend(m, m->header + size, tail);
    return rc != 0 ? rc : spoke_msg_header_trim_back(m, tail);
}

int
spk_sp_parse(spoke_msg *m, size_t words_most)
{
    for (size_t end = SPK_SP_WORD; end <= words_most * SPK_SP_WORD; end += SPK_SP_WORD) {
        int rc = spk_msg_pull(m, end);
        if (rc != 0)
            return rc;
        if ((spk_get32(m->header + end - SPK_SP_WORD) & SPK_SP_ID_BIT) != 0)
            return spk_sp_return_tail(m, end);
    }
    return SPOKE_ELIMIT;
}

int
spk_sp_reject(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m, int error)
{
    if (error == SPOKE_EPROTO)
        spk_drop(s, p, m, SPK_DROP_GARBLED);
    else
        spoke_msg_free(m);
    return error;
}

/* A queue of no length gives what one pipe holds to who takes it; all else is dropped. */
void
spk_sp_deliver_or_drop(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    if (spk_socket_recv_full(s) && spk_socket_has_message(s))
        spk_drop(s, p, m, SPK_DROP_RECV_FULL);
    else
        spk_socket_deliver(s, p, m);
}

/* ---- options ---- */

int
spk_sp_set_ttl(int *ttl, const void *value)
{
    const int *wanted = value;

    if (*wanted < 1 || *wanted > SPK_SP_TTL_MOST)
        return SPOKE_ERANGE;
    *ttl = *wanted;
    return 0;
}

int
spk_sp_get_ttl(int ttl, void *value, size_t *size)
{
    int *out = value;

    *out = ttl;
    *size = sizeof ttl;
    return 0;
}

int
spk_sp_deliver_raw(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    int rc = spk_sp_parse(m, SPOKE_HEADER_MAX / SPK_SP_WORD);

    if (rc != 0)
        return spk_sp_reject(s, p, m, rc == SPOKE_ELIMIT ? SPOKE_EPROTO : rc);
    spk_socket_deliver(s, p, m);
    return 0;
}

/* ---- what does not belong here ---- */

int
spk_sp_discard(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    spk_drop(s, p, m, SPK_DROP_UNWANTED);
    return 0;
}

/* ---- ids ---- */

static uint32_t
key_of(uint32_t id)
{
    return id & ~SPK_SP_ID_BIT;
}

void
spk_sp_ids_init(struct spk_sp_ids *ids, struct spk_socket *s)
{
    ids->last = spk_socket_random(s);
}

void
spk_sp_ids_fini(struct spk_sp_ids *ids)
{
    spk_idmap_fini(&ids->live);
}

int
spk_sp_ids_take(struct spk_sp_ids *ids, void *owner, uint32_t *id)
{
    uint32_t next = ids->last;
    int rc;

    do
        next = (next + 1) | SPK_SP_ID_BIT;
    while (key_of(next) == 0 || spk_idmap_get(&ids->live, key_of(next)) != NULL);
    if ((rc = spk_idmap_set(&ids->live, key_of(next), owner)) != 0)
        return rc;
    *id = ids->last = next;
    return 0;
}

void
spk_sp_ids_give(struct spk_sp_ids *ids, uint32_t id)
{
    if (id != 0)
        spk_idmap_remove(&ids->live, key_of(id));
}

int
spk_sp_ids_match(struct spk_sp_ids *ids, struct spk_socket *s, struct spk_pipe *p, spoke_msg *m,
                 void **owner)
{
    int rc = spk_msg_pull(m, SPK_SP_WORD);

    *owner = NULL;
    if (rc != 0)
        return spk_sp_reject(s, p, m, rc);
    uint32_t id = spk_get32(m->header);
    void *found = (id & SPK_SP_ID_BIT) != 0 ? spk_idmap_get(&ids->live, key_of(id)) : NULL;
    if (found == NULL) {
        spk_drop(s, p, m, SPK_DROP_STALE);
        return 0;
    }
    if ((rc = spk_sp_return_tail(m, SPK_SP_WORD)) != 0)
        return spk_sp_reject(s, p, m, rc);
    spk_msg_clear_header(m);
    *owner = found;
    return 0;
}

/* ---- the user's messages ---- */

static bool
is_ours_alone(const spoke_msg *m)
{
    return atomic_load_explicit(&m->refs, memory_order_acquire) == 1;
}

int
spk_sp_put_header(spoke_msg **out, spoke_msg *m, const void *words, size_t size)
{
    *out = m;
    if (is_ours_alone(m) && m->header_size == 0)
        return spoke_msg_header_append(m, words, size);
    int rc = spk_msg_clone(out, m);
    if (rc != 0)
        return rc;
    spk_msg_clear_header(*out);
    if ((rc = spoke_msg_header_append(*out, words, size)) != 0)
        spoke_msg_free(*out);
    return rc;
}

int
spk_sp_settle(spoke_msg *m, spoke_msg *out, int result)
{
    if (m != out)
        spoke_msg_free(result == 0 ? m : out);
    else if (result != 0)
        spk_msg_clear_header(m);
    return result;
}

/* ---- queues ---- */

void
spk_sp_bound_queue(struct spk_socket *s, struct spk_queue *q)
{
    q->max_messages = (uint32_t)spk_socket_send_queue(s, &q->max_bytes);
}

int
spk_sp_enqueue(struct spk_socket *s, struct spk_queue *q, spoke_msg *m)
{
    struct spoke_stats *counters = spk_socket_counters(s);
    int rc = spk_queue_push(q, m);

    if (rc == 0 && q->count > counters->send_queue_high)
        counters->send_queue_high = q->count;
    return rc;
}

void
spk_sp_end_queue(struct spk_socket *s, struct spk_pipe *p, struct spk_queue *q)
{
    spoke_msg *m;

    while ((m = spk_queue_pop(q)) != NULL)
        spk_drop(s, p, m, p != NULL ? SPK_DROP_LOST : SPK_DROP_LEFT);
    spk_queue_fini(q);
}

size_t
spk_sp_queued(const struct spk_queue *q, uint64_t *bytes)
{
    *bytes = q->bytes - q->count * sizeof(spoke_msg); /* without the queue's share for the object */
    return q->count;
}

void
spk_sp_send_next(struct spk_socket *s, struct spk_queue *q, struct spk_pipe *p)
{
    spoke_msg *m = spk_queue_pop(q);
    int rc = spk_pipe_send(p, m);

    if (rc == 0)
        return;
    spk_drop(s, p, m, SPK_DROP_LOST);
    spk_pipe_shut(p, rc);
}

void
spk_sp_send_waiting(struct spk_socket *s, struct spk_queue *q, struct spk_pipe *p)
{
    while (q->count > 0 && spk_pipe_can_send(p)) {
        uint32_t run;
        uint64_t bytes = 0;
        spoke_msg **messages = spk_queue_front(q, &run);
        int n = spk_pipe_send_many(p, messages, (int)run, &bytes);

        if (n > 0)
            spk_queue_drop(q, (uint32_t)n, bytes + (uint64_t)n * sizeof(spoke_msg));
        else
            spk_sp_send_next(s, q, p);
    }
}
