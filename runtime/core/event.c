/* SPDX-License-Identifier: MIT */
/* What the user is called for: messages, room to send, the life of connections.  All of it runs in
 * the loop, on the engine's thread, with the lock left; the socket is held in memory meanwhile, and
 * everything is looked at anew afterwards. */
#include <string.h>

#include "runtime/core/core.h"

#define MESSAGES_A_TURN 64
#define RETURNED_MOST   256u /* then sends wait for on_undelivered */

struct event {
    struct spk_link link;
    struct spoke_event event;
    struct spoke_pipe_stats stats; /* DETACHED */
    char url[];                    /* a copy: its endpoint may be gone by then */
};

/* Of one of the user's functions, by where it is kept. */
static void
begin(struct spk_socket *s, const void *function)
{
    s->callers++;
    spk_engine_call_begin(s->e, function);
}

/* Back again; false if the socket was closed meanwhile. */
static bool
end(struct spk_socket *s)
{
    spk_engine_call_end(s->e);
    s->callers--;
    if (s->state_now == SPK_SOCKET_CLOSING)
        spk_task_queue(s->e, &s->free_task);
    return s->state_now == SPK_SOCKET_OPEN;
}

static void
on_message_task(struct spk_task *task)
{
    struct spk_socket *s = SPK_OWNER(task, struct spk_socket, message_task);
    spoke_msg *m;

    for (int i = 0; i < MESSAGES_A_TURN; i++) {
        spoke_message_f *fn = s->on_message;
        void *ctx = s->on_message_ctx;

        if (s->state_now != SPK_SOCKET_OPEN || fn == NULL ||
            spk_socket_recv_some(&s->own, &m, 1) != 1)
            return;
        begin(s, &s->on_message);
        fn(s->handle, m, ctx);
        if (!end(s))
            return;
    }
    spk_socket_check_ready(s); /* the rest after the others have had their turn */
}

static void
on_writable_task(struct spk_task *task)
{
    struct spk_socket *s = SPK_OWNER(task, struct spk_socket, writable_task);
    spoke_writable_f *fn = s->on_writable;
    void *ctx = s->on_writable_ctx;

    if (s->state_now != SPK_SOCKET_OPEN || fn == NULL ||
        (s->protocol->ready(s) & SPK_WRITABLE) == 0 || spk_returned_full(s))
        return;
    s->writable_wanted = false;
    begin(s, &s->on_writable);
    fn(s->handle, ctx);
    end(s);
}

/* ---- what could not be delivered ---- */

bool
spk_returned_full(const struct spk_socket *s)
{
    return s->returned_count >= RETURNED_MOST;
}

/* Where sends wait for the callback, no more can come than what was accepted before. */
void
spk_give_back(struct spk_socket *s, spoke_msg *m, int reason)
{
    if (s->on_undelivered == NULL) {
        spoke_msg_free(m);
        return;
    }
    spk_msg_clear_header(m); /* the pattern's */
    m->expires = m->returns = false;
    m->priority = (uint8_t) - (s->state_now == SPK_SOCKET_CLOSING ? SPOKE_ECLOSED : reason);
    m->next = NULL;
    *s->returned_end = m;
    s->returned_end = &m->next;
    s->returned_count++;
    spk_task_queue_callback(s->e, &s->undelivered_task);
}

static spoke_msg *
take_returned(struct spk_socket *s)
{
    spoke_msg *m = s->returned;

    if (m == NULL)
        return NULL;
    if ((s->returned = m->next) == NULL)
        s->returned_end = &s->returned;
    s->returned_count--;
    return m;
}

static void
on_undelivered_task(struct spk_task *task)
{
    struct spk_socket *s = SPK_OWNER(task, struct spk_socket, undelivered_task);
    bool was_full = spk_returned_full(s);
    spoke_msg *m;

    s->callers++;
    for (int i = 0; i < MESSAGES_A_TURN && (m = take_returned(s)) != NULL; i++) {
        spoke_undelivered_f *fn = s->on_undelivered;
        void *ctx = s->on_undelivered_ctx;
        int reason = -(int)m->priority;

        if (fn == NULL) {
            spoke_msg_free(m);
            continue;
        }
        begin(s, &s->on_undelivered);
        fn(s->handle, m, reason, ctx);
        end(s);
    }
    if (s->returned != NULL)
        spk_task_queue_callback(s->e, &s->undelivered_task);
    if (was_full && !spk_returned_full(s) && s->state_now == SPK_SOCKET_OPEN)
        spk_socket_wake(s, SPK_WRITABLE | SPK_ALL);
    s->callers--;
    if (s->state_now == SPK_SOCKET_CLOSING)
        spk_task_queue(s->e, &s->free_task);
}

/* ---- the life of connections ---- */

/* The user has refused a pipe that is gone already: it is to hear no more of it. */
static void
forget_detached(struct spk_socket *s, spoke_pipe_id id)
{
    SPK_LIST_EACH(link, &s->events)
    {
        struct event *ev = SPK_OWNER(link, struct event, link);

        if (ev->event.type == SPOKE_EVENT_DETACHED && ev->event.pipe == id) {
            spk_list_remove(&ev->link);
            spk_free(ev);
            return;
        }
    }
}

/* Ask whether a peer is welcome.  From here on it counts as announced, whatever becomes of it while
 * the user thinks. */
static void
ask(struct spk_socket *s, struct event *ev)
{
    struct spk_pipe *p = spk_idmap_get(&s->by_id, ev->event.pipe);
    spoke_event_f *fn = s->on_event;
    void *ctx = s->on_event_ctx;
    int verdict = 0;

    if (p == NULL || p->state != SPK_PIPE_ATTACHING)
        return;
    p->announced = true;
    if (fn != NULL) {
        begin(s, &s->on_event);
        verdict = fn(s->handle, &ev->event, ctx);
        end(s);
    }
    p = spk_idmap_get(&s->by_id, ev->event.pipe);
    if (verdict != 0 && p != NULL)
        p->announced = false;
    else if (verdict != 0)
        forget_detached(s, ev->event.pipe);
    if (p != NULL)
        spk_pipe_attach(p, verdict);
}

static void
on_event_task(struct spk_task *task)
{
    struct spk_socket *s = SPK_OWNER(task, struct spk_socket, event_task);
    struct spk_link *link;

    s->callers++; /* what follows may lead to the end of the socket's last pipe */
    while ((link = spk_list_take(&s->events)) != NULL) {
        struct event *ev = SPK_OWNER(link, struct event, link);
        spoke_event_f *fn = s->on_event;
        void *ctx = s->on_event_ctx;

        if (ev->event.type == SPOKE_EVENT_ATTACHING) {
            ask(s, ev);
        } else if (fn != NULL) {
            begin(s, &s->on_event);
            fn(s->handle, &ev->event, ctx);
            end(s);
        }
        spk_free(ev);
    }
    s->callers--;
    if (s->state_now == SPK_SOCKET_CLOSING)
        spk_task_queue(s->e, &s->free_task);
}

static struct event *
new_event(const struct spk_endpoint *endpoint)
{
    size_t size = strlen(endpoint->url.text) + 1;
    struct event *ev = spk_zalloc(sizeof *ev + size);

    if (ev != NULL)
        memcpy(ev->url, endpoint->url.text, size);
    return ev;
}

void
spk_event(struct spk_socket *s, enum spoke_event_type type, int reason, struct spk_pipe *p,
          struct spk_endpoint *endpoint)
{
    struct event *ev = NULL;

    if (s->on_event == NULL)
        return;
    if (type == SPOKE_EVENT_DETACHED && p->farewell != NULL) {
        ev = p->farewell;
        p->farewell = NULL;
    } else {
        ev = new_event(endpoint);
    }
    /* Who hears of a peer shall hear of its end, whatever memory there is by then. */
    if (type == SPOKE_EVENT_ATTACHING &&
        (ev == NULL || (p->farewell = new_event(endpoint)) == NULL)) {
        spk_free(ev);
        spk_pipe_shut(p, SPOKE_ENOMEM);
        return;
    }
    if (ev == NULL)
        return;
    ev->event = (struct spoke_event){
        .type = type,
        .reason = reason,
        .pipe = p != NULL ? p->id : 0,
        .dialer = endpoint->is_dialer ? endpoint->handle : NULL,
        .listener = endpoint->is_dialer ? NULL : endpoint->handle,
        .url = ev->url,
    };
    if (type == SPOKE_EVENT_DETACHED) {
        ev->stats = p->stats;
        ev->event.stats = &ev->stats;
    }
    spk_list_append(&s->events, &ev->link);
    spk_task_queue_callback(s->e, &s->event_task);
}

void
spk_events_init(struct spk_socket *s)
{
    spk_list_init(&s->events);
    spk_task_init(&s->message_task, on_message_task);
    spk_task_init(&s->writable_task, on_writable_task);
    spk_task_init(&s->event_task, on_event_task);
    spk_task_init(&s->undelivered_task, on_undelivered_task);
    s->returned_end = &s->returned;
}

void
spk_events_fini(struct spk_socket *s)
{
    struct spk_link *link;

    spk_task_cancel(&s->message_task);
    spk_task_cancel(&s->writable_task);
    spk_task_cancel(&s->event_task);
    spk_task_cancel(&s->undelivered_task);
    while ((link = spk_list_take(&s->events)) != NULL)
        spk_free(SPK_OWNER(link, struct event, link));
}

/* ---- registration ---- */

static int
enter(spoke_socket *handle, struct spk_socket **s, struct spk_engine **e)
{
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, e);

    if (rc == 0)
        *s = object;
    return rc;
}

/* The one that was set before may lose what it uses then. */
static void
await_call(struct spk_socket *s, const void *function)
{
    s->callers++;
    spk_engine_await_call(s->e, function);
    s->callers--;
    if (s->state_now == SPK_SOCKET_CLOSING)
        spk_task_queue(s->e, &s->free_task);
}

int
spoke_socket_on_message(spoke_socket *handle, spoke_message_f *fn, void *ctx)
{
    struct spk_engine *e;
    struct spk_socket *s;
    int rc = enter(handle, &s, &e);

    if (rc != 0)
        return rc;
    if (s->device != NULL) {
        rc = SPOKE_ESTATE;
    } else if (s->protocol->receives) {
        s->on_message = fn;
        s->on_message_ctx = ctx;
        if (s->front != NULL)
            spk_front_shut_inbox(s->front);
        spk_engine_wake_all(e, &s->own.recv_waiters);
        spk_socket_look(s);
        spk_socket_check_ready(s);
    } else {
        rc = SPOKE_ENOTSUP;
    }
    await_call(s, &s->on_message);
    spk_engine_leave(e);
    return rc;
}

int
spoke_socket_on_writable(spoke_socket *handle, spoke_writable_f *fn, void *ctx)
{
    struct spk_engine *e;
    struct spk_socket *s;
    int rc = enter(handle, &s, &e);

    if (rc != 0)
        return rc;
    if (s->protocol->sends) {
        s->on_writable = fn;
        s->on_writable_ctx = ctx;
        spk_socket_check_ready(s);
    } else {
        rc = SPOKE_ENOTSUP;
    }
    await_call(s, &s->on_writable);
    spk_engine_leave(e);
    return rc;
}

int
spoke_socket_on_undelivered(spoke_socket *handle, spoke_undelivered_f *fn, void *ctx)
{
    struct spk_engine *e;
    struct spk_socket *s;
    int rc = enter(handle, &s, &e);

    if (rc != 0)
        return rc;
    if (s->protocol->sends && !s->protocol->copies) {
        s->on_undelivered = fn;
        s->on_undelivered_ctx = ctx;
        if (s->front != NULL && fn != NULL) {
            spk_front_shut_outbox(s->front);
            spk_front_empty_outbox(s->front);
        }
    } else {
        rc = SPOKE_ENOTSUP;
    }
    await_call(s, &s->on_undelivered);
    spk_engine_leave(e);
    return rc;
}

int
spoke_socket_on_event(spoke_socket *handle, spoke_event_f *fn, void *ctx)
{
    struct spk_engine *e;
    struct spk_socket *s;
    int rc = enter(handle, &s, &e);

    if (rc != 0)
        return rc;
    s->on_event = fn;
    s->on_event_ctx = ctx;
    await_call(s, &s->on_event);
    spk_engine_leave(e);
    return 0;
}
