/* SPDX-License-Identifier: MIT */
/* REQ: one request out, its reply back.  The request is kept until then, and sent again when the
 * pipe that had it goes away or has said nothing for the retry time: a server may see it twice.
 *
 * Everything about one request is in a context; a socket has one of its own.
 *
 *          send            a pipe takes it         reply               recv
 *   IDLE ───────▶ UNSENT ─────────────────▶ SENT ───────▶ REPLIED ───────────▶ IDLE
 *                   ▲   pipe gone, or silent  │
 *                   ├─────────────────────────┤
 *   any ── send ────┘                         └── pipe gone, retry time 0 ──▶ LOST ── recv ──▶ IDLE
 *
 * A send puts its request in the place of the one before, whatever became of that: its reply will
 * be dropped, and those who wait for it get SPOKE_ECANCELED.  What a pipe has been handed cannot be
 * called back.
 *
 * Raw: headers are the user's business; messages go to one peer each, by turns, and wait in the
 * send queue while no peer can take one. */
#include "protocols/sp/sp.h"

#include "runtime/memory/list.h"

#define RETRY_TIME (60 * SPOKE_SECOND)

enum req_state { REQ_IDLE, REQ_UNSENT, REQ_SENT, REQ_REPLIED, REQ_LOST };

struct req_context {
    struct spk_socket *socket;
    enum req_state state;
    uint32_t id;            /* of its last request; the id bit is set */
    spoke_msg *request;     /* UNSENT, SENT: one reference, the header is the id */
    spoke_msg *reply;       /* REPLIED */
    struct spk_pipe *pipe;  /* SENT: which had it last */
    bool handed_over;       /* UNSENT, SENT: some pipe has had it, so there can be a reply */
    spoke_ns retry_ns;      /* 0: never again */
    struct spk_timer retry; /* set while SENT, unless retry_ns is 0 */
    struct spk_link unsent; /* in req->unsent while UNSENT */
};

struct req {
    struct req_context context; /* the socket's own */
    struct spk_link unsent;     /* contexts whose request waits for a pipe, oldest first */
    uint32_t last_id;
    spoke_ns retry_ns;        /* of the next request */
    struct spk_queue waiting; /* raw */
};

/* ---- one request ---- */

/* Forget everything about it. */
static void
reset(struct req_context *c)
{
    spk_socket_timer_cancel(c->socket, &c->retry);
    spk_list_remove(&c->unsent);
    spoke_msg_free(c->request);
    spoke_msg_free(c->reply);
    c->request = c->reply = NULL;
    c->pipe = NULL;
    c->handed_over = false;
    c->state = REQ_IDLE;
}

/* Hand `request` to a pipe, which shares it with us on success. */
static int
hand_over(struct spk_pipe *p, spoke_msg *request)
{
    int rc = spk_pipe_send(p, spoke_msg_dup(request));

    if (rc != 0)
        spoke_msg_free(request); /* the pipe's reference */
    return rc;
}

static void
become_unsent(struct req_context *c)
{
    struct req *req = spk_socket_state(c->socket);

    spk_socket_timer_cancel(c->socket, &c->retry);
    c->pipe = NULL;
    c->state = REQ_UNSENT;
    spk_list_append(&req->unsent, &c->unsent);
}

static void
become_sent(struct req_context *c, struct spk_pipe *p)
{
    spk_list_remove(&c->unsent);
    c->state = REQ_SENT;
    c->pipe = p;
    if (c->handed_over)
        spk_socket_counters(c->socket)->retries++;
    c->handed_over = true;
    if (c->retry_ns == 0)
        return;
    int rc = spk_socket_timer_set(c->socket, &c->retry, c->retry_ns);
    if (rc != 0) /* its end will do what the timer would have done */
        spk_pipe_shut(p, rc);
}

/* Send what waits, by turns to those who can take it. */
static void
send_unsent(struct spk_socket *s)
{
    struct req *req = spk_socket_state(s);
    struct spk_pipe *p;

    while (!spk_list_empty(&req->unsent) && (p = spk_socket_next_writable(s)) != NULL) {
        struct req_context *c = SPK_OWNER(req->unsent.next, struct req_context, unsent);
        int rc = hand_over(p, c->request);
        if (rc == 0)
            become_sent(c, p);
        else
            spk_pipe_shut(p, rc);
    }
}

/* The pipe has been silent for too long: it is the next one's turn. */
static void
on_retry(struct spk_timer *timer)
{
    struct req_context *c = SPK_OWNER(timer, struct req_context, retry);

    become_unsent(c);
    send_unsent(c->socket);
}

static void
on_pipe_lost(struct req_context *c)
{
    if (c->retry_ns > 0) {
        become_unsent(c);
        send_unsent(c->socket);
    } else {
        reset(c);
        c->state = REQ_LOST;
        spk_socket_wake(c->socket, SPK_READABLE | SPK_ALL);
    }
}

/* ---- life ---- */

static void
req_options_changed(struct spk_socket *s)
{
    struct req *req = spk_socket_state(s);

    spk_sp_bound_queue(s, &req->waiting);
}

static int
req_open(struct spk_socket *s)
{
    struct req *req = spk_socket_state(s);

    req->last_id = spk_socket_random(s);
    req->retry_ns = RETRY_TIME;
    req->context.socket = s;
    spk_list_init(&req->unsent);
    spk_list_init(&req->context.unsent);
    spk_timer_init(&req->context.retry, on_retry);
    req_options_changed(s);
    return 0;
}

static void
req_close(struct spk_socket *s)
{
    struct req *req = spk_socket_state(s);

    reset(&req->context);
    spk_queue_fini(&req->waiting);
}

static int
set_retry_time(void *owner, const void *value, size_t size)
{
    struct req *req = spk_socket_state(owner);
    const spoke_ns *retry_ns = value;

    (void)size;
    if (*retry_ns < 0)
        return SPOKE_ERANGE;
    req->retry_ns = *retry_ns;
    return 0;
}

static int
get_retry_time(void *owner, void *value, size_t *size)
{
    struct req *req = spk_socket_state(owner);
    spoke_ns *retry_ns = value;

    *retry_ns = req->retry_ns;
    *size = sizeof *retry_ns;
    return 0;
}

/* ---- peers ---- */

static void
req_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct req *req = spk_socket_state(s);

    if (req->context.state == REQ_SENT && req->context.pipe == p)
        on_pipe_lost(&req->context);
    spk_socket_wake(s, SPK_WRITABLE); /* raw: it may be writable no longer */
}

static void
req_writable(struct spk_socket *s, struct spk_pipe *p)
{
    struct req *req = spk_socket_state(s);

    send_unsent(s);
    while (req->waiting.count > 0 && (p = spk_socket_next_writable(s)) != NULL)
        spk_sp_send_next(s, &req->waiting, p);
    spk_socket_wake(s, SPK_WRITABLE | SPK_ALL);
}

static int
received_raw(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    int rc = spk_sp_parse(m, SPOKE_HEADER_MAX / SPK_SP_WORD);

    if (rc != 0)
        return spk_sp_reject(s, m, rc == SPOKE_ELIMIT ? SPOKE_EPROTO : rc);
    spk_socket_deliver(s, p, m);
    return 0;
}

/* The context that waits for this reply, from whichever pipe; NULL if none does (any more). */
static struct req_context *
context_of(struct req *req, uint32_t id)
{
    struct req_context *c = &req->context;

    return c->handed_over && c->id == id ? c : NULL;
}

static int
received_reply(struct spk_socket *s, spoke_msg *m)
{
    int rc = spk_msg_pull(m, SPK_SP_WORD);

    if (rc != 0)
        return spk_sp_reject(s, m, rc);
    struct req_context *c = context_of(spk_socket_state(s), spk_get32(m->header));
    if (c == NULL) {
        spk_socket_counters(s)->dropped_stale++;
        spoke_msg_free(m);
        return 0;
    }
    if ((rc = spk_sp_return_tail(m, SPK_SP_WORD)) != 0)
        return spk_sp_reject(s, m, rc);
    spk_msg_clear_header(m);
    reset(c);
    c->reply = m;
    c->state = REQ_REPLIED;
    spk_socket_wake(s, SPK_READABLE | SPK_ALL); /* one gets it, the others a state error */
    return 0;
}

static int
req_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    return spk_socket_raw(s) ? received_raw(s, p, m) : received_reply(s, m);
}

/* ---- the user ---- */

static int
send_raw(struct spk_socket *s, spoke_msg *m)
{
    struct req *req = spk_socket_state(s);
    struct spk_pipe *p = req->waiting.count == 0 ? spk_socket_next_writable(s) : NULL;

    return p != NULL ? spk_pipe_send(p, m) : spk_sp_enqueue(s, &req->waiting, m);
}

/* What can fail comes first; then the new request takes the old one's place. */
static int
send_request(struct spk_socket *s, struct req_context *c, spoke_msg *m)
{
    struct req *req = spk_socket_state(s);
    uint32_t id = (req->last_id + 1) | SPK_SP_ID_BIT;
    uint8_t word[SPK_SP_WORD];
    spoke_msg *request;

    spk_put32(word, id);
    int rc = spk_sp_put_header(&request, m, word, sizeof word);
    if (rc != 0)
        return rc;
    request->expires = false; /* else it could not be sent again */
    struct spk_pipe *p = spk_socket_next_writable(s);
    if (p != NULL && (rc = hand_over(p, request)) != 0)
        return spk_sp_settle(m, request, rc);
    reset(c);
    req->last_id = c->id = id;
    c->request = request;
    c->retry_ns = req->retry_ns;
    if (p != NULL)
        become_sent(c, p);
    else
        become_unsent(c);
    spk_socket_fail_recv(s, SPOKE_ECANCELED);
    return spk_sp_settle(m, request, 0);
}

static int
req_send(struct spk_socket *s, spoke_msg *m)
{
    struct req *req = spk_socket_state(s);

    return spk_socket_raw(s) ? send_raw(s, m) : send_request(s, &req->context, m);
}

static int
recv_reply(struct req_context *c, spoke_msg **m)
{
    switch (c->state) {
    case REQ_REPLIED:
        *m = c->reply;
        c->reply = NULL;
        c->state = REQ_IDLE;
        return 0;
    case REQ_LOST: c->state = REQ_IDLE; return SPOKE_ECONNRESET;
    case REQ_IDLE: return SPOKE_ESTATE;
    case REQ_UNSENT:
    case REQ_SENT: break;
    }
    return SPOKE_EAGAIN;
}

static int
req_recv(struct spk_socket *s, spoke_msg **m)
{
    struct req *req = spk_socket_state(s);

    return spk_socket_raw(s) ? spk_socket_take(s, m) : recv_reply(&req->context, m);
}

static unsigned
ready_raw(struct spk_socket *s)
{
    struct req *req = spk_socket_state(s);
    bool direct = req->waiting.count == 0 && spk_socket_can_send(s);
    unsigned ready = spk_socket_has_message(s) ? SPK_READABLE : 0;

    return direct || !spk_queue_full(&req->waiting) ? ready | SPK_WRITABLE : ready;
}

/* As nanomsg: not readable while idle, although a receive would say so at once. */
static unsigned
req_ready(struct spk_socket *s)
{
    struct req *req = spk_socket_state(s);
    enum req_state state = req->context.state;

    if (spk_socket_raw(s))
        return ready_raw(s);
    return state == REQ_REPLIED || state == REQ_LOST ? SPK_READABLE | SPK_WRITABLE : SPK_WRITABLE;
}

static size_t
req_pending(struct spk_socket *s, uint64_t *bytes)
{
    struct req *req = spk_socket_state(s);
    size_t count = spk_sp_queued(&req->waiting, bytes);

    SPK_LIST_EACH(link, &req->unsent)
    {
        struct req_context *c = SPK_OWNER(link, struct req_context, unsent);
        if (c->handed_over) /* a retry is nothing to wait for */
            continue;
        *bytes += c->request->size + c->request->header_size;
        count++;
    }
    return count;
}

static const struct spk_option req_options[] = {
    {SPOKE_OPT_RETRY_TIME, SPOKE_DURATION, false, set_retry_time, get_retry_time},
    {.name = NULL},
};

const struct spoke_protocol spoke_protocol_req = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 48,
    .peer = 49,
    .name = "req",
    .sends = true,
    .receives = true,
    .socket_size = sizeof(struct req),
    .open = req_open,
    .close = req_close,
    .options = req_options,
    .options_changed = req_options_changed,
    .pipe_removed = req_pipe_removed,
    .received = req_received,
    .writable = req_writable,
    .send = req_send,
    .recv = req_recv,
    .ready = req_ready,
    .pending = req_pending,
};
