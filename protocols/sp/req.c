/* SPDX-License-Identifier: MIT */
/* REQ: one request out, its reply back.  The request is kept until then, and sent again when the
 * pipe that had it goes away or has said nothing for the retry time: a server may see it twice.
 *
 * Everything about one request is in a context; a socket has one of its own, and any number more.
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
    struct spk_context *context;
    struct spk_socket *socket;
    enum req_state state;
    uint32_t id;            /* of the request; 0: there is none */
    spoke_msg *request;     /* UNSENT, SENT: one reference, the header is the id */
    spoke_msg *reply;       /* REPLIED */
    bool handed_over;       /* UNSENT, SENT: some pipe has had it, so there can be a reply */
    bool returns;           /* UNSENT: as the message's, which here is shared with pipes */
    spoke_ns retry_ns;      /* 0: never again */
    spoke_ns next_retry_ns; /* of the next request */
    struct spk_timer retry; /* set while SENT, unless retry_ns is 0 */
    struct spk_link place;  /* in req->unsent while UNSENT; among those of its pipe while SENT */
};

struct req {
    struct spk_link unsent; /* contexts whose request waits for a pipe, oldest first */
    struct spk_sp_ids ids;
    struct spk_queue waiting; /* raw */
};

struct req_pipe {
    struct spk_link sent; /* contexts whose request it had last */
};

/* ---- one request ---- */

/* Forget everything about it. */
static void
reset(struct req_context *c)
{
    struct req *req = spk_socket_state(c->socket);

    spk_socket_timer_cancel(c->socket, &c->retry);
    spk_list_remove(&c->place);
    spk_sp_ids_give(&req->ids, c->id);
    c->id = 0;
    spoke_msg_free(c->request);
    spoke_msg_free(c->reply);
    c->request = c->reply = NULL;
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
    spk_list_remove(&c->place);
    c->state = REQ_UNSENT;
    spk_list_append(&req->unsent, &c->place);
}

static void
become_sent(struct req_context *c, struct spk_pipe *p)
{
    struct req_pipe *pipe = spk_pipe_state(p);

    spk_list_remove(&c->place);
    c->state = REQ_SENT;
    spk_list_append(&pipe->sent, &c->place);
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
        struct req_context *c = SPK_OWNER(req->unsent.next, struct req_context, place);
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
    } else {
        reset(c);
        c->state = REQ_LOST;
        spk_context_wake(c->context);
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

    spk_sp_ids_init(&req->ids, s);
    spk_list_init(&req->unsent);
    req_options_changed(s);
    return 0;
}

static void
req_close(struct spk_socket *s)
{
    struct req *req = spk_socket_state(s);

    spk_sp_ids_fini(&req->ids);
    spk_sp_end_queue(s, NULL, &req->waiting);
}

static struct req_context *
own(struct spk_socket *s)
{
    return spk_context_state(spk_socket_context(s));
}

static int
req_context_open(struct spk_context *context)
{
    struct req_context *c = spk_context_state(context);

    c->context = context;
    c->socket = spk_context_socket(context);
    spk_list_init(&c->place);
    spk_timer_init(&c->retry, on_retry);
    c->next_retry_ns = c == own(c->socket) ? RETRY_TIME : own(c->socket)->next_retry_ns;
    return 0;
}

/* A request that has never gone out is the user's again. */
static void
req_context_close(struct spk_context *context)
{
    struct req_context *c = spk_context_state(context);

    if (c->state == REQ_UNSENT && !c->handed_over) {
        c->request->returns = c->returns;
        spk_drop(c->socket, NULL, c->request, SPK_DROP_LEFT);
        c->request = NULL;
    }
    reset(c);
}

static int
set_retry_time(void *owner, const void *value, size_t size)
{
    struct req_context *c = spk_context_state(owner);
    const spoke_ns *retry_ns = value;

    (void)size;
    if (*retry_ns < 0)
        return SPOKE_ERANGE;
    c->next_retry_ns = *retry_ns;
    return 0;
}

static int
get_retry_time(void *owner, void *value, size_t *size)
{
    struct req_context *c = spk_context_state(owner);
    spoke_ns *retry_ns = value;

    *retry_ns = c->next_retry_ns;
    *size = sizeof *retry_ns;
    return 0;
}

/* ---- peers ---- */

static int
req_pipe_added(struct spk_socket *s, struct spk_pipe *p)
{
    struct req_pipe *pipe = spk_pipe_state(p);

    (void)s;
    spk_list_init(&pipe->sent);
    return 0;
}

static void
req_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct req_pipe *pipe = spk_pipe_state(p);
    struct spk_link *link;

    while ((link = spk_list_take(&pipe->sent)) != NULL)
        on_pipe_lost(SPK_OWNER(link, struct req_context, place));
    send_unsent(s);
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
received_reply(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    struct req *req = spk_socket_state(s);
    void *owner;
    int rc = spk_sp_ids_match(&req->ids, s, p, m, &owner);

    if (rc != 0 || owner == NULL)
        return rc;
    struct req_context *c = owner;
    if (!c->handed_over) { /* nobody can know this id but by guessing */
        spk_drop(s, p, m, SPK_DROP_STALE);
        return 0;
    }
    reset(c);
    c->reply = m;
    c->state = REQ_REPLIED;
    spk_context_wake(c->context); /* one gets it, the others a state error */
    return 0;
}

static int
req_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    return spk_socket_raw(s) ? spk_sp_deliver_raw(s, p, m) : received_reply(s, p, m);
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
    uint8_t word[SPK_SP_WORD];
    spoke_msg *request;
    uint32_t id;
    int rc = spk_sp_ids_take(&req->ids, c, &id);

    if (rc != 0)
        return rc;
    spk_put32(word, id);
    if ((rc = spk_sp_put_header(&request, m, word, sizeof word)) != 0)
        goto give_id;
    request->expires = false; /* else it could not be sent again */
    bool returns = request->returns;
    request->returns = false;
    struct spk_pipe *p = spk_socket_next_writable(s);
    if (p != NULL && (rc = hand_over(p, request)) != 0) {
        spk_sp_settle(m, request, rc);
        goto give_id;
    }
    reset(c);
    c->id = id;
    c->request = request;
    c->returns = returns;
    c->retry_ns = c->next_retry_ns;
    if (p != NULL)
        become_sent(c, p);
    else
        become_unsent(c);
    spk_context_fail_recv(c->context, SPOKE_ECANCELED);
    return spk_sp_settle(m, request, 0);
give_id:
    spk_sp_ids_give(&req->ids, id);
    return rc;
}

static int
req_send(struct spk_socket *s, spoke_msg *m)
{
    return spk_socket_raw(s) ? send_raw(s, m) : send_request(s, own(s), m);
}

static int
req_context_send(struct spk_context *context, spoke_msg *m)
{
    return send_request(spk_context_socket(context), spk_context_state(context), m);
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
    return spk_socket_raw(s) ? spk_socket_take(s, m) : recv_reply(own(s), m);
}

static int
req_context_recv(struct spk_context *context, spoke_msg **m)
{
    return recv_reply(spk_context_state(context), m);
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
    enum req_state state = own(s)->state;

    if (spk_socket_raw(s))
        return ready_raw(s);
    return state == REQ_REPLIED || state == REQ_LOST ? SPK_READABLE | SPK_WRITABLE : SPK_WRITABLE;
}

static unsigned
req_context_ready(struct spk_context *context)
{
    const struct req_context *c = spk_context_state(context);
    bool waits = c->state == REQ_UNSENT || c->state == REQ_SENT;

    return waits ? SPK_WRITABLE : SPK_READABLE | SPK_WRITABLE;
}

static size_t
req_pending(struct spk_socket *s, uint64_t *bytes)
{
    struct req *req = spk_socket_state(s);
    size_t count = spk_sp_queued(&req->waiting, bytes);

    SPK_LIST_EACH(link, &req->unsent)
    {
        struct req_context *c = SPK_OWNER(link, struct req_context, place);
        if (c->handed_over) /* a retry is nothing to wait for */
            continue;
        *bytes += c->request->size + c->request->header_size;
        count++;
    }
    return count;
}

static const struct spk_option req_context_options[] = {
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
    .pipe_size = sizeof(struct req_pipe),
    .open = req_open,
    .close = req_close,
    .options_changed = req_options_changed,
    .pipe_added = req_pipe_added,
    .pipe_removed = req_pipe_removed,
    .received = req_received,
    .writable = req_writable,
    .send = req_send,
    .recv = req_recv,
    .ready = req_ready,
    .pending = req_pending,
    .context_size = sizeof(struct req_context),
    .context_open = req_context_open,
    .context_close = req_context_close,
    .context_send = req_context_send,
    .context_recv = req_context_recv,
    .context_ready = req_context_ready,
    .context_options = req_context_options,
};
