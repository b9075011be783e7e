/* SPDX-License-Identifier: MIT */
/* Answering, for REP and RESPONDENT: see answer.h. */
#include <string.h>

#include "protocols/sp/answer.h"

/* ---- life ---- */

int
spk_answer_open(struct spk_socket *s)
{
    struct spk_answerer *a = spk_socket_state(s);

    a->ttl = SPK_SP_TTL_DEFAULT;
    return 0;
}

static int
set_ttl(void *owner, const void *value, size_t size)
{
    struct spk_answerer *a = spk_socket_state(owner);

    (void)size;
    return spk_sp_set_ttl(&a->ttl, value);
}

static int
get_ttl(void *owner, void *value, size_t *size)
{
    struct spk_answerer *a = spk_socket_state(owner);

    memcpy(value, &a->ttl, *size = sizeof a->ttl);
    return 0;
}

/* ---- answers on their way ---- */

static size_t
cost(const spoke_msg *m)
{
    return m->size + m->header_size;
}

static int
enqueue(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    struct spk_answerer *a = spk_socket_state(s);
    struct spk_queue *q = &((struct spk_answer_pipe *)spk_pipe_state(p))->waiting;
    size_t size = cost(m);

    spk_sp_bound_queue(s, q);
    q->max_messages = SPK_SP_PIPE_QUEUE;
    int rc = spk_sp_enqueue(s, q, m);
    if (rc == SPOKE_EAGAIN) {
        spk_drop(s, p, m, SPK_DROP_PEER_FULL);
        return 0;
    }
    if (rc == 0) {
        a->waiting++;
        a->waiting_bytes += size;
    }
    return rc;
}

/* Takes m on success, which being dropped is too. */
static int
send_to(struct spk_socket *s, spoke_pipe_id id, spoke_msg *m)
{
    struct spk_pipe *p = spk_socket_pipe(s, id);

    if (p == NULL) {
        spk_drop(s, NULL, m, SPK_DROP_NO_PEER);
        return 0;
    }
    struct spk_answer_pipe *state = spk_pipe_state(p);
    if (state->waiting.count == 0) {
        int rc = spk_pipe_send(p, m);
        if (rc != SPOKE_EAGAIN)
            return rc;
    }
    return enqueue(s, p, m);
}

void
spk_answer_writable(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_answerer *a = spk_socket_state(s);
    struct spk_queue *q = &((struct spk_answer_pipe *)spk_pipe_state(p))->waiting;

    if (q->count == 0)
        return;
    while (q->count > 0 && spk_pipe_can_send(p)) {
        a->waiting--;
        a->waiting_bytes -= cost(q->slots[q->head]);
        spk_sp_send_next(s, q, p);
    }
    spk_socket_wake(s, SPK_WRITABLE); /* a lingering close may have waited for it */
}

void
spk_answer_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_answerer *a = spk_socket_state(s);
    struct spk_queue *q = &((struct spk_answer_pipe *)spk_pipe_state(p))->waiting;
    uint64_t bytes;
    size_t count = spk_sp_queued(q, &bytes);

    a->waiting -= count;
    a->waiting_bytes -= bytes;
    spk_sp_end_queue(s, p, q);
}

/* ---- questions ---- */

int
spk_answer_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    struct spk_answerer *a = spk_socket_state(s);
    uint8_t word[SPK_SP_WORD];
    int rc = spk_sp_parse(m, (size_t)a->ttl);

    if (rc == SPOKE_ELIMIT) { /* no fault of the peer's */
        spk_drop(s, p, m, SPK_DROP_TTL);
        return 0;
    }
    spk_put32(word, spk_pipe_id(p));
    if (rc == 0 && spk_socket_raw(s))
        rc = spoke_msg_header_prepend(m, word, sizeof word);
    if (rc != 0)
        return spk_sp_reject(s, p, m, rc);
    spk_socket_deliver(s, p, m);
    return 0;
}

/* ---- the user ---- */

static int
recv_question(struct spk_socket *s, struct spk_answer_context *c, spoke_msg **m)
{
    int rc = spk_socket_take(s, m);

    if (rc != 0)
        return rc;
    c->pipe = (*m)->pipe;
    c->size = (*m)->header_size;
    memcpy(c->backtrace, (*m)->header, c->size);
    spk_msg_clear_header(*m);
    return 0;
}

static int
send_answer(struct spk_socket *s, struct spk_answer_context *c, spoke_msg *m)
{
    spoke_msg *answer;

    if (c->pipe == 0)
        return SPOKE_ESTATE;
    int rc = spk_sp_put_header(&answer, m, c->backtrace, c->size);
    if (rc != 0)
        return rc;
    rc = spk_sp_settle(m, answer, send_to(s, c->pipe, answer));
    if (rc == 0)
        c->pipe = 0;
    return rc;
}

int
spk_answer_context_recv(struct spk_context *c, spoke_msg **m)
{
    return recv_question(spk_context_socket(c), spk_context_state(c), m);
}

int
spk_answer_context_send(struct spk_context *c, spoke_msg *m)
{
    return send_answer(spk_context_socket(c), spk_context_state(c), m);
}

int
spk_answer_recv(struct spk_socket *s, spoke_msg **m)
{
    return spk_socket_raw(s) ? spk_socket_take(s, m)
                             : spk_answer_context_recv(spk_socket_context(s), m);
}

/* The first word of the header names the pipe and stays here. */
static int
send_raw(struct spk_socket *s, spoke_msg *m)
{
    spoke_msg *routed;

    if (m->header_size < SPK_SP_WORD) {
        spk_drop(s, NULL, m, SPK_DROP_NO_PEER);
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

int
spk_answer_send(struct spk_socket *s, spoke_msg *m)
{
    return spk_socket_raw(s) ? send_raw(s, m) : spk_answer_context_send(spk_socket_context(s), m);
}

unsigned
spk_answer_ready(struct spk_socket *s)
{
    struct spk_answer_context *own = spk_context_state(spk_socket_context(s));
    unsigned ready = spk_socket_has_message(s) ? SPK_READABLE : 0;

    return own->pipe != 0 || spk_socket_raw(s) ? ready | SPK_WRITABLE : ready;
}

/* A send without a question says so at once. */
unsigned
spk_answer_context_ready(struct spk_context *c)
{
    return spk_socket_has_message(spk_context_socket(c)) ? SPK_READABLE | SPK_WRITABLE
                                                         : SPK_WRITABLE;
}

size_t
spk_answer_pending(struct spk_socket *s, uint64_t *bytes)
{
    struct spk_answerer *a = spk_socket_state(s);

    *bytes = a->waiting_bytes;
    return a->waiting;
}

const struct spk_option spk_answer_options[] = {
    {SPOKE_OPT_TTL, SPOKE_INT, false, set_ttl, get_ttl},
    {.name = NULL},
};
