/* SPDX-License-Identifier: MIT */
/* REP: a request in, its reply back to where it came from.
 *
 *   IDLE ── recv ──▶ HAS A REQUEST ── send ──▶ IDLE        a further recv abandons the request
 *
 * A request's backtrace, words ending in the id, is saved when the user receives it, in a context;
 * a socket has one of its own.  The reply carries it back.  A reply that its pipe cannot take
 * waits, a few per pipe; beyond that, or when the pipe is gone, it is dropped: whoever asked will
 * ask again, and one peer that does not read cannot hold up the others.
 *
 * Raw: the header of a received message is the number of its pipe and the backtrace; a message to
 * send has the same. */
#include <string.h>

#include "protocols/sp/sp.h"

#define TTL_DEFAULT  8
#define TTL_MOST     255
#define REPLIES_MOST 2u  /* that wait for a pipe */
#define RAW_MOST     64u /* the same in raw mode: a device answers for many */

_Static_assert((TTL_MOST + 1) * SPK_SP_WORD <= SPOKE_HEADER_MAX, "a pipe number and a backtrace");

struct rep_context {
    spoke_pipe_id pipe; /* where the request came from; 0: there is none */
    size_t size;
    uint8_t backtrace[TTL_MOST * SPK_SP_WORD];
};

struct rep {
    struct rep_context context; /* the socket's own */
    int ttl;
    size_t waiting; /* in all pipes' queues */
    uint64_t waiting_bytes;
};

struct rep_pipe {
    struct spk_queue waiting;
};

/* ---- life ---- */

static int
rep_open(struct spk_socket *s)
{
    struct rep *rep = spk_socket_state(s);

    rep->ttl = TTL_DEFAULT;
    return 0;
}

static int
set_ttl(void *owner, const void *value, size_t size)
{
    struct rep *rep = spk_socket_state(owner);
    const int *ttl = value;

    (void)size;
    if (*ttl < 1 || *ttl > TTL_MOST)
        return SPOKE_ERANGE;
    rep->ttl = *ttl;
    return 0;
}

static int
get_ttl(void *owner, void *value, size_t *size)
{
    struct rep *rep = spk_socket_state(owner);
    int *ttl = value;

    *ttl = rep->ttl;
    *size = sizeof *ttl;
    return 0;
}

/* ---- replies on their way ---- */

static size_t
cost(const spoke_msg *m)
{
    return m->size + m->header_size;
}

static void
drop(spoke_msg *m, uint64_t *counter)
{
    *counter += 1;
    spoke_msg_free(m);
}

static int
enqueue(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    struct rep *rep = spk_socket_state(s);
    struct spk_queue *q = &((struct rep_pipe *)spk_pipe_state(p))->waiting;
    size_t size = cost(m);

    spk_sp_bound_queue(s, q);
    q->max_messages = spk_socket_raw(s) ? RAW_MOST : REPLIES_MOST;
    int rc = spk_sp_enqueue(s, q, m);
    if (rc == SPOKE_EAGAIN) {
        drop(m, &spk_socket_counters(s)->dropped_peer_full);
        return 0;
    }
    if (rc == 0) {
        rep->waiting++;
        rep->waiting_bytes += size;
    }
    return rc;
}

/* Takes m on success, which being dropped is too. */
static int
send_to(struct spk_socket *s, spoke_pipe_id id, spoke_msg *m)
{
    struct spk_pipe *p = spk_socket_pipe(s, id);

    if (p == NULL) {
        drop(m, &spk_socket_counters(s)->dropped_no_peer);
        return 0;
    }
    struct rep_pipe *state = spk_pipe_state(p);
    if (state->waiting.count == 0) {
        int rc = spk_pipe_send(p, m);
        if (rc != SPOKE_EAGAIN)
            return rc;
    }
    return enqueue(s, p, m);
}

static void
rep_writable(struct spk_socket *s, struct spk_pipe *p)
{
    struct rep *rep = spk_socket_state(s);
    struct spk_queue *q = &((struct rep_pipe *)spk_pipe_state(p))->waiting;

    if (q->count == 0)
        return;
    while (q->count > 0 && spk_pipe_can_send(p)) {
        rep->waiting--;
        rep->waiting_bytes -= cost(q->slots[q->head]);
        spk_sp_send_next(s, q, p);
    }
    spk_socket_wake(s, SPK_WRITABLE); /* a lingering close may have waited for it */
}

static void
rep_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct rep *rep = spk_socket_state(s);
    struct spk_queue *q = &((struct rep_pipe *)spk_pipe_state(p))->waiting;
    uint64_t bytes;

    rep->waiting -= spk_sp_queued(q, &bytes);
    rep->waiting_bytes -= bytes;
    spk_socket_counters(s)->dropped_lost += q->count;
    spk_queue_fini(q);
}

/* ---- requests ---- */

static int
rep_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    struct rep *rep = spk_socket_state(s);
    uint8_t word[SPK_SP_WORD];
    int rc = spk_sp_parse(m, (size_t)rep->ttl);

    if (rc == SPOKE_ELIMIT) { /* no fault of the peer's */
        drop(m, &spk_socket_counters(s)->dropped_ttl);
        return 0;
    }
    spk_put32(word, spk_pipe_id(p));
    if (rc == 0 && spk_socket_raw(s))
        rc = spoke_msg_header_prepend(m, word, sizeof word);
    if (rc != 0)
        return spk_sp_reject(s, m, rc);
    spk_socket_deliver(s, p, m);
    return 0;
}

/* ---- the user ---- */

static int
rep_recv(struct spk_socket *s, spoke_msg **m)
{
    struct rep *rep = spk_socket_state(s);
    struct rep_context *c = &rep->context;
    int rc = spk_socket_take(s, m);

    if (rc != 0 || spk_socket_raw(s))
        return rc;
    c->pipe = (*m)->pipe;
    c->size = (*m)->header_size;
    memcpy(c->backtrace, (*m)->header, c->size);
    spk_msg_clear_header(*m);
    return 0;
}

static int
send_reply(struct spk_socket *s, struct rep_context *c, spoke_msg *m)
{
    spoke_msg *reply;

    if (c->pipe == 0)
        return SPOKE_ESTATE;
    int rc = spk_sp_put_header(&reply, m, c->backtrace, c->size);
    if (rc != 0)
        return rc;
    rc = spk_sp_settle(m, reply, send_to(s, c->pipe, reply));
    if (rc == 0)
        c->pipe = 0;
    return rc;
}

/* The first word of the header names the pipe and stays here. */
static int
send_raw(struct spk_socket *s, spoke_msg *m)
{
    spoke_msg *routed;

    if (m->header_size < SPK_SP_WORD) {
        drop(m, &spk_socket_counters(s)->dropped_no_peer);
        return 0;
    }
    spoke_pipe_id id = spk_get32(m->header);
    int rc = spk_msg_clone(&routed, m);
    if (rc != 0)
        return rc;
    if ((rc = spoke_msg_header_trim_front(routed, SPK_SP_WORD)) == 0)
        rc = send_to(s, id, routed);
    return spk_sp_settle(m, routed, rc);
}

static int
rep_send(struct spk_socket *s, spoke_msg *m)
{
    struct rep *rep = spk_socket_state(s);

    return spk_socket_raw(s) ? send_raw(s, m) : send_reply(s, &rep->context, m);
}

static unsigned
rep_ready(struct spk_socket *s)
{
    struct rep *rep = spk_socket_state(s);
    unsigned ready = spk_socket_has_message(s) ? SPK_READABLE : 0;

    return rep->context.pipe != 0 || spk_socket_raw(s) ? ready | SPK_WRITABLE : ready;
}

static size_t
rep_pending(struct spk_socket *s, uint64_t *bytes)
{
    struct rep *rep = spk_socket_state(s);

    *bytes = rep->waiting_bytes;
    return rep->waiting;
}

static const struct spk_option rep_options[] = {
    {SPOKE_OPT_TTL, SPOKE_INT, false, set_ttl, get_ttl},
    {.name = NULL},
};

const struct spoke_protocol spoke_protocol_rep = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 49,
    .peer = 48,
    .name = "rep",
    .sends = true,
    .receives = true,
    .socket_size = sizeof(struct rep),
    .pipe_size = sizeof(struct rep_pipe),
    .open = rep_open,
    .options = rep_options,
    .pipe_removed = rep_pipe_removed,
    .received = rep_received,
    .writable = rep_writable,
    .send = rep_send,
    .recv = rep_recv,
    .ready = rep_ready,
    .pending = rep_pending,
};
