/* SPDX-License-Identifier: MIT */
/* SURVEYOR: one survey to all peers that are there, then their answers, as many as come in time.
 *
 * Everything about one survey is in a context; a socket has one of its own, and any number more.
 *
 *          send               deadline, nobody waits               recv
 *   IDLE ───────▶ RUNNING ─────────────────────────▶ OVER ────────────────▶ IDLE
 *                    │  deadline, those who wait are told                    ▲
 *                    └───────────────────────────────────────────────────────┘
 *
 * A send puts its survey in the place of the one before; answers to that will be dropped, and those
 * who wait for them get SPOKE_ECANCELED.  At the deadline answers that nobody has received are
 * dropped too.  A survey is never sent again, and waits for a busy peer no longer than it lasts.
 *
 * The answers of a survey wait in a queue of its own, so that nobody who does not read holds up
 * others.  When it is full, a peer that has less than an equal share of it takes the place of the
 * newest of one that has more, and whoever else answers is dropped: one who answers without end
 * cannot keep the others out.
 *
 * Raw: headers are the user's business; messages go to all peers. */
#include <string.h>

#include "protocols/sp/sp.h"

#include "runtime/memory/list.h"

#define SURVEY_TIME SPOKE_SECOND

enum survey_state { SURVEY_IDLE, SURVEY_RUNNING, SURVEY_OVER };

struct surveyor_context {
    struct spk_context *context;
    struct spk_socket *socket;
    enum survey_state state;
    uint32_t id;             /* RUNNING; else 0 */
    spoke_ns next_survey_ns; /* 0: no deadline */
    struct spk_timer deadline;
    struct spk_queue answers; /* RUNNING */
    struct spk_idmap unread;  /* how many of these each pipe has sent, by its number */
};

struct surveyor {
    struct spk_sp_ids ids;
    struct spk_link pipes;
    int ttl; /* has no effect */
};

struct surveyor_pipe {
    struct spk_link link; /* in surveyor->pipes */
    struct spk_pipe *pipe;
    struct spk_queue waiting; /* surveys that it could not take yet */
};

/* ---- answers ---- */

static uint32_t
unread_of(const struct surveyor_context *c, spoke_pipe_id pipe)
{
    return (uint32_t)(uintptr_t)spk_idmap_get(&c->unread, pipe);
}

/* Fails only where the pipe had none. */
static int
set_unread(struct surveyor_context *c, spoke_pipe_id pipe, uint32_t count)
{
    if (count > 0)
        return spk_idmap_set(&c->unread, pipe, (void *)(uintptr_t)count); // NOLINT
    spk_idmap_remove(&c->unread, pipe);
    return 0;
}

static void
took_out(struct surveyor_context *c, const spoke_msg *m)
{
    (void)set_unread(c, m->pipe, unread_of(c, m->pipe) - 1);
}

static void
drop_newest_of_a_greater(struct surveyor_context *c, uint32_t share)
{
    for (uint32_t i = c->answers.count; i-- > 0;) {
        const spoke_msg *m = c->answers.slots[(c->answers.head + i) & c->answers.mask];

        if (unread_of(c, m->pipe) > share) {
            took_out(c, m);
            spk_drop(c->socket, spk_socket_pipe(c->socket, m->pipe),
                     spk_queue_remove(&c->answers, i), SPK_DROP_RECV_FULL);
            return;
        }
    }
}

/* True if there is room for another answer of this pipe. */
static bool
make_room(struct surveyor_context *c, spoke_pipe_id pipe)
{
    uint32_t mine = unread_of(c, pipe);

    while (spk_queue_full(&c->answers)) {
        uint32_t share = c->answers.count / (c->unread.count + (mine == 0));

        if (mine >= share)
            return false;
        drop_newest_of_a_greater(c, share); /* if all others had no more, the sum would be less */
    }
    return true;
}

static int
keep_answer(struct surveyor_context *c, spoke_msg *m)
{
    uint32_t mine = unread_of(c, m->pipe);

    if (!make_room(c, m->pipe))
        return SPOKE_EAGAIN;
    int rc = set_unread(c, m->pipe, mine + 1);
    if (rc == 0 && (rc = spk_queue_push(&c->answers, m)) != 0)
        (void)set_unread(c, m->pipe, mine);
    return rc;
}

/* ---- one survey ---- */

/* No answer to it counts any more. */
static void
end_survey(struct surveyor_context *c)
{
    struct surveyor *surveyor = spk_socket_state(c->socket);
    spoke_msg *m;

    spk_sp_ids_give(&surveyor->ids, c->id);
    c->id = 0;
    c->state = SURVEY_IDLE;
    while ((m = spk_queue_pop(&c->answers)) != NULL) {
        took_out(c, m);
        spoke_msg_free(m);
    }
}

static void
expire(struct surveyor_context *c)
{
    spk_socket_timer_cancel(c->socket, &c->deadline);
    end_survey(c);
    if (!spk_context_fail_recv(c->context, SPOKE_ETIMEDOUT))
        c->state = SURVEY_OVER;
    spk_context_wake(c->context);
}

static void
on_deadline(struct spk_timer *timer)
{
    expire(SPK_OWNER(timer, struct surveyor_context, deadline));
}

/* The deadline holds also where the timer has not run yet: on an owned engine that is when its
 * owner next waits. */
static bool
is_over(const struct surveyor_context *c)
{
    return spk_timer_is_set(&c->deadline) && spk_socket_now(c->socket) >= c->deadline.when;
}

static void
expire_in_time(struct surveyor_context *c)
{
    if (is_over(c))
        expire(c);
}

static void
bound_answers(struct surveyor_context *c)
{
    int most = spk_socket_recv_queue(c->socket, &c->answers.max_bytes);

    c->answers.max_messages = most > 0 ? (uint32_t)most : 1;
}

/* ---- life ---- */

static int
surveyor_open(struct spk_socket *s)
{
    struct surveyor *surveyor = spk_socket_state(s);

    spk_sp_ids_init(&surveyor->ids, s);
    spk_list_init(&surveyor->pipes);
    surveyor->ttl = SPK_SP_TTL_DEFAULT;
    return 0;
}

static void
surveyor_close(struct spk_socket *s)
{
    struct surveyor *surveyor = spk_socket_state(s);

    spk_sp_ids_fini(&surveyor->ids);
}

static struct surveyor_context *
own(struct spk_socket *s)
{
    return spk_context_state(spk_socket_context(s));
}

static int
surveyor_context_open(struct spk_context *context)
{
    struct surveyor_context *c = spk_context_state(context);

    c->context = context;
    c->socket = spk_context_socket(context);
    spk_timer_init(&c->deadline, on_deadline);
    c->next_survey_ns = c == own(c->socket) ? SURVEY_TIME : own(c->socket)->next_survey_ns;
    return 0;
}

static void
surveyor_context_close(struct spk_context *context)
{
    struct surveyor_context *c = spk_context_state(context);

    spk_socket_timer_cancel(c->socket, &c->deadline);
    end_survey(c);
    spk_queue_fini(&c->answers);
    spk_idmap_fini(&c->unread);
}

static int
set_survey_time(void *owner, const void *value, size_t size)
{
    struct surveyor_context *c = spk_context_state(owner);
    const spoke_ns *survey_ns = value;

    (void)size;
    if (*survey_ns < 0)
        return SPOKE_ERANGE;
    c->next_survey_ns = *survey_ns;
    return 0;
}

static int
get_survey_time(void *owner, void *value, size_t *size)
{
    struct surveyor_context *c = spk_context_state(owner);

    memcpy(value, &c->next_survey_ns, *size = sizeof c->next_survey_ns);
    return 0;
}

static int
set_ttl(void *owner, const void *value, size_t size)
{
    struct surveyor *surveyor = spk_socket_state(owner);

    (void)size;
    return spk_sp_set_ttl(&surveyor->ttl, value);
}

static int
get_ttl(void *owner, void *value, size_t *size)
{
    struct surveyor *surveyor = spk_socket_state(owner);

    memcpy(value, &surveyor->ttl, *size = sizeof surveyor->ttl);
    return 0;
}

/* ---- peers ---- */

static int
received_answer(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    struct surveyor *surveyor = spk_socket_state(s);
    struct spoke_stats *counters = spk_socket_counters(s);
    void *owner;
    int rc = spk_sp_ids_match(&surveyor->ids, s, p, m, &owner);

    if (rc != 0 || owner == NULL)
        return rc;
    struct surveyor_context *c = owner;
    expire_in_time(c);
    if (c->state != SURVEY_RUNNING || keep_answer(c, m) != 0) {
        spk_drop(s, p, m, c->state == SURVEY_RUNNING ? SPK_DROP_RECV_FULL : SPK_DROP_STALE);
        return 0;
    }
    if (c->answers.count > counters->recv_queue_high)
        counters->recv_queue_high = c->answers.count;
    spk_context_wake(c->context);
    return 0;
}

static int
surveyor_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    return spk_socket_raw(s) ? spk_sp_deliver_raw(s, p, m) : received_answer(s, p, m);
}

static int
surveyor_pipe_added(struct spk_socket *s, struct spk_pipe *p)
{
    struct surveyor *surveyor = spk_socket_state(s);
    struct surveyor_pipe *pipe = spk_pipe_state(p);

    pipe->pipe = p;
    spk_list_append(&surveyor->pipes, &pipe->link);
    return 0;
}

static void
surveyor_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct surveyor_pipe *pipe = spk_pipe_state(p);

    spk_list_remove(&pipe->link);
    spk_sp_end_queue(s, p, &pipe->waiting);
}

static void
surveyor_writable(struct spk_socket *s, struct spk_pipe *p)
{
    struct surveyor_pipe *pipe = spk_pipe_state(p);

    while (pipe->waiting.count > 0 && spk_pipe_can_send(p))
        spk_sp_send_next(s, &pipe->waiting, p);
    spk_socket_wake(s, SPK_WRITABLE); /* a lingering close may have waited for it */
}

/* ---- the user ---- */

/* One more reference for one pipe, which takes it now, or soon, or not at all. */
static void
send_copy(struct spk_socket *s, struct surveyor_pipe *pipe, spoke_msg *m)
{
    int rc = SPOKE_EAGAIN;

    spoke_msg_dup(m);
    if (pipe->waiting.count == 0)
        rc = spk_pipe_send(pipe->pipe, m);
    if (rc == SPOKE_EAGAIN) {
        spk_sp_bound_queue(s, &pipe->waiting);
        pipe->waiting.max_messages = SPK_SP_PIPE_QUEUE;
        rc = spk_sp_enqueue(s, &pipe->waiting, m);
    }
    if (rc != 0)
        spk_drop(s, pipe->pipe, m, SPK_DROP_PEER_FULL);
}

/* Takes m. */
static void
send_to_all(struct spk_socket *s, spoke_msg *m)
{
    struct surveyor *surveyor = spk_socket_state(s);

    SPK_LIST_EACH(link, &surveyor->pipes)
    send_copy(s, SPK_OWNER(link, struct surveyor_pipe, link), m);
    spoke_msg_free(m);
}

/* Whoever gets it later cannot answer in time. */
static void
let_expire(struct spk_socket *s, spoke_msg *survey, spoke_ns survey_ns)
{
    spoke_ns now = spk_socket_now(s);

    if (survey_ns == 0 || survey_ns > SPOKE_FOREVER - now ||
        (survey->expires && survey->expires_ns <= now + survey_ns))
        return;
    survey->expires = true;
    survey->expires_ns = now + survey_ns;
}

/* What can fail comes first; then the new survey takes the old one's place. */
static int
send_survey(struct spk_socket *s, struct surveyor_context *c, spoke_msg *m)
{
    struct surveyor *surveyor = spk_socket_state(s);
    uint8_t word[SPK_SP_WORD];
    spoke_msg *survey;
    uint32_t id;
    int rc = spk_sp_ids_take(&surveyor->ids, c, &id);

    if (rc != 0)
        return rc;
    spk_put32(word, id);
    if ((rc = spk_sp_put_header(&survey, m, word, sizeof word)) != 0)
        goto give_id;
    if (c->next_survey_ns > 0 &&
        (rc = spk_socket_timer_set(s, &c->deadline, c->next_survey_ns)) != 0) {
        spk_sp_settle(m, survey, rc);
        goto give_id;
    }
    if (c->next_survey_ns == 0)
        spk_socket_timer_cancel(s, &c->deadline);
    end_survey(c);
    c->id = id;
    c->state = SURVEY_RUNNING;
    bound_answers(c);
    spk_context_fail_recv(c->context, SPOKE_ECANCELED);
    let_expire(s, survey, c->next_survey_ns);
    spk_sp_settle(m, survey, 0);
    send_to_all(s, survey);
    return 0;
give_id:
    spk_sp_ids_give(&surveyor->ids, id);
    return rc;
}

static int
surveyor_context_send(struct spk_context *context, spoke_msg *m)
{
    return send_survey(spk_context_socket(context), spk_context_state(context), m);
}

static int
surveyor_send(struct spk_socket *s, spoke_msg *m)
{
    if (!spk_socket_raw(s))
        return send_survey(s, own(s), m);
    send_to_all(s, m);
    return 0;
}

static int
surveyor_context_recv(struct spk_context *context, spoke_msg **m)
{
    struct surveyor_context *c = spk_context_state(context);

    expire_in_time(c);
    switch (c->state) {
    case SURVEY_IDLE: return SPOKE_ESTATE;
    case SURVEY_OVER: c->state = SURVEY_IDLE; return SPOKE_ETIMEDOUT;
    case SURVEY_RUNNING: break;
    }
    if ((*m = spk_queue_pop(&c->answers)) == NULL)
        return SPOKE_EAGAIN;
    took_out(c, *m);
    return 0;
}

static int
surveyor_recv(struct spk_socket *s, spoke_msg **m)
{
    return spk_socket_raw(s) ? spk_socket_take(s, m)
                             : surveyor_context_recv(spk_socket_context(s), m);
}

/* As nanomsg: readable also while no survey runs, so that whoever polls learns of the deadline. */
static unsigned
surveyor_ready(struct spk_socket *s)
{
    const struct surveyor_context *c = own(s);
    bool readable = spk_socket_raw(s) ? spk_socket_has_message(s)
                                      : c->state != SURVEY_RUNNING || c->answers.count > 0;

    return readable ? SPK_READABLE | SPK_WRITABLE : SPK_WRITABLE;
}

static unsigned
surveyor_context_ready(struct spk_context *context)
{
    const struct surveyor_context *c = spk_context_state(context);
    bool waits = c->state == SURVEY_RUNNING && c->answers.count == 0 && !is_over(c);

    return waits ? SPK_WRITABLE : SPK_READABLE | SPK_WRITABLE;
}

static size_t
surveyor_pending(struct spk_socket *s, uint64_t *bytes)
{
    struct surveyor *surveyor = spk_socket_state(s);
    size_t count = 0;

    *bytes = 0;
    SPK_LIST_EACH(link, &surveyor->pipes)
    {
        uint64_t some;

        count += spk_sp_queued(&SPK_OWNER(link, struct surveyor_pipe, link)->waiting, &some);
        *bytes += some;
    }
    return count;
}

static const struct spk_option surveyor_options[] = {
    {SPOKE_OPT_TTL, SPOKE_INT, false, set_ttl, get_ttl},
    {.name = NULL},
};

static const struct spk_option surveyor_context_options[] = {
    {SPOKE_OPT_SURVEY_TIME, SPOKE_DURATION, false, set_survey_time, get_survey_time},
    {.name = NULL},
};

const struct spoke_protocol spoke_protocol_surveyor = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = 98,
    .peer = 99,
    .name = "surveyor",
    .sends = true,
    .copies = true,
    .receives = true,
    .socket_size = sizeof(struct surveyor),
    .pipe_size = sizeof(struct surveyor_pipe),
    .open = surveyor_open,
    .close = surveyor_close,
    .options = surveyor_options,
    .pipe_added = surveyor_pipe_added,
    .pipe_removed = surveyor_pipe_removed,
    .received = surveyor_received,
    .writable = surveyor_writable,
    .send = surveyor_send,
    .recv = surveyor_recv,
    .ready = surveyor_ready,
    .pending = surveyor_pending,
    .context_size = sizeof(struct surveyor_context),
    .context_open = surveyor_context_open,
    .context_close = surveyor_context_close,
    .context_send = surveyor_context_send,
    .context_recv = surveyor_context_recv,
    .context_ready = surveyor_context_ready,
    .context_options = surveyor_context_options,
};
