/* SPDX-License-Identifier: MIT */
/* Listeners of sessions.  Each connection begins by itself: it comes out of an accept once its peer
 * has introduced itself. */
#include <unistd.h>

#include "protocols/channel/session.h"

struct spk_session_listener {
    void *handle;
    struct spk_engine *e;
    struct spk_layer layer;
    spoke_stream_listener *streams;
    spoke_session_config config;
    struct spk_link beginning, ready; /* sessions */
    int count;
    struct spk_task task, accept_task, ready_task;
    struct spk_link waiters, selects;
    spoke_session_accept_f *on_ready;
    void *on_ready_ctx;
    bool awaited;
    int fd; /* an eventfd, -1: nobody asked */
    bool fd_on;
    uint32_t callers;
    bool closed;
    bool full; /* connections wait outside */
};

static void
free_if_done(struct spk_session_listener *l)
{
    if (!l->closed || l->callers > 0)
        return;
    spk_task_cancel(&l->task);
    spk_task_cancel(&l->accept_task);
    spk_task_cancel(&l->ready_task);
    spk_list_remove(&l->layer.link);
    if (l->fd >= 0)
        close(l->fd);
    spk_free(l);
}

static int
enter(const void *handle, struct spk_session_listener **l)
{
    struct spk_engine *e;
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_SESSION_LISTENER, &object, &e);

    if (rc == 0)
        *l = object;
    return rc;
}

static void
leave(struct spk_session_listener *l)
{
    struct spk_engine *e = l->e;

    free_if_done(l);
    spk_engine_leave(e);
}

/* Of one of the user's functions, by where it is kept. */
static void
await_call(struct spk_session_listener *l, const void *function)
{
    l->callers++;
    spk_engine_await_call(l->e, function);
    l->callers--;
}

/* ---- who is told ---- */

static bool
has_ready(const struct spk_session_listener *l)
{
    SPK_LIST_EACH(link, &l->ready)
    {
        if (!SPK_OWNER(link, struct spk_session, of_listener)->ended)
            return true;
    }
    return false;
}

static void
tell(struct spk_session_listener *l)
{
    bool ready = has_ready(l);

    spk_select_tell(&l->selects);
    spk_set_ready_fd(l->fd, &l->fd_on, ready);
    if (!l->closed && l->on_ready != NULL && l->awaited && ready)
        spk_task_queue_callback(l->e, &l->ready_task);
}

static void
on_ready_task(struct spk_task *task)
{
    struct spk_session_listener *l = SPK_OWNER(task, struct spk_session_listener, ready_task);
    spoke_session_accept_f *fn = l->on_ready;
    spoke_session_listener *handle = l->handle;
    void *ctx = l->on_ready_ctx; /* another may be set once the lock is left */

    if (l->closed || fn == NULL || !l->awaited || !has_ready(l))
        return;
    l->awaited = false;
    l->callers++;
    spk_engine_call_begin(l->e, &l->on_ready);
    fn(handle, ctx);
    spk_engine_call_end(l->e);
    l->callers--;
    free_if_done(l);
}

/* ---- beginning ---- */

/* Nobody waits for it here any more. */
static void
forget(struct spk_session_listener *l, struct spk_session *ss)
{
    spk_list_remove(&ss->of_listener);
    ss->listener = NULL;
    l->count--;
    if (l->full && !l->closed)
        spk_task_queue_callback(l->e, &l->accept_task);
    l->full = false;
}

/* Those that have ended keep no place. */
static void
drop_ended(struct spk_session_listener *l, struct spk_link *list)
{
    struct spk_link *link, *next;

    for (link = list->next; link != list; link = next) {
        struct spk_session *ss = SPK_OWNER(link, struct spk_session, of_listener);

        next = link->next;
        if (!ss->ended)
            continue;
        forget(l, ss);
        spk_session_let_go(ss);
    }
}

static void
on_task(struct spk_task *task)
{
    struct spk_session_listener *l = SPK_OWNER(task, struct spk_session_listener, task);
    struct spk_link *link, *next;

    drop_ended(l, &l->beginning);
    drop_ended(l, &l->ready);
    for (link = l->beginning.next; link != &l->beginning; link = next) {
        struct spk_session *ss = SPK_OWNER(link, struct spk_session, of_listener);

        next = link->next;
        if (!ss->heard)
            continue;
        spk_list_remove(&ss->of_listener);
        spk_list_append(&l->ready, &ss->of_listener);
        spk_engine_wake_one(l->e, &l->waiters);
    }
    tell(l);
}

void
spk_listener_heard(struct spk_session *ss)
{
    spk_task_queue(ss->e, &ss->listener->task);
}

/* Begin with the next connection.  False: there is none, or none may. */
static bool
begin_next(const void *handle)
{
    struct spk_session_listener *l;
    int (*authenticate)(void *ctx, spoke_stream *carrier);
    struct spk_session *ss;
    spoke_stream *carrier;
    spoke_stream_listener *streams;
    struct spk_conn *c;
    void *ctx;

    if (enter(handle, &l) != 0)
        return false;
    l->full = l->count >= l->config.backlog;
    if (l->full) {
        leave(l);
        return false;
    }
    authenticate = l->config.authenticate;
    ctx = l->config.ctx;
    streams = l->streams;
    leave(l);
    if (spoke_stream_accept(streams, &carrier, SPOKE_NOW) != 0)
        return false;
    if (authenticate != NULL && authenticate(ctx, carrier) != 0) {
        (void)spoke_stream_close(carrier);
        return true;
    }
    if (enter(handle, &l) == 0) {
        void *object;

        if (spk_handle_join(carrier, SPK_HANDLE_STREAM, l->e, &object) == 0 &&
            spk_conn_check_take(c = object) == 0 && spk_session_new(&ss, c, &l->config) == 0) {
            ss->listener = l;
            spk_list_append(&l->beginning, &ss->of_listener);
            l->count++;
            carrier = NULL;
        }
        leave(l);
    }
    if (carrier != NULL)
        (void)spoke_stream_close(carrier);
    return true;
}

static void
on_streams(spoke_stream_listener *streams, void *ctx)
{
    (void)streams;
    while (begin_next(ctx)) {
    }
}

static void
on_accept_task(struct spk_task *task)
{
    struct spk_session_listener *l = SPK_OWNER(task, struct spk_session_listener, accept_task);
    const void *handle = l->handle;

    if (l->closed)
        return;
    l->callers++;
    spk_engine_call_begin(l->e, &l->config.authenticate);
    while (begin_next(handle)) {
    }
    spk_engine_call_end(l->e);
    l->callers--;
    free_if_done(l);
}

/* ---- the calls ---- */

static void
close_listener(struct spk_session_listener *l)
{
    struct spk_link *lists[2] = {&l->beginning, &l->ready};

    spk_handle_free(l->handle);
    l->closed = true;
    spk_select_wake(&l->selects);
    for (int i = 0; i < 2; i++) {
        while (!spk_list_empty(lists[i])) {
            struct spk_session *ss = SPK_OWNER(lists[i]->next, struct spk_session, of_listener);

            forget(l, ss);
            spk_session_let_go(ss);
        }
    }
    spk_engine_wake_all(l->e, &l->waiters);
}

/* Its streams' listener closes with the engine. */
static void
on_engine_closing(struct spk_layer *layer)
{
    struct spk_session_listener *l = SPK_OWNER(layer, struct spk_session_listener, layer);

    close_listener(l);
    free_if_done(l);
}

static int
new_listener(struct spk_session_listener **out, const spoke_session_config *config,
             spoke_engine *engine)
{
    struct spk_session_listener *l;
    struct spk_engine *e;
    int rc;

    if ((rc = spk_streams_enter(engine, &e)) != 0)
        return rc;
    rc = SPOKE_ENOMEM;
    if ((l = spk_zalloc(sizeof *l)) != NULL) {
        l->e = e;
        l->config = *config;
        l->config.mux.even = true;
        l->layer.closing = on_engine_closing;
        spk_list_init(&l->beginning);
        spk_list_init(&l->ready);
        spk_list_init(&l->waiters);
        spk_list_init(&l->selects);
        l->fd = -1;
        spk_task_init(&l->task, on_task);
        spk_task_init(&l->accept_task, on_accept_task);
        spk_task_init(&l->ready_task, on_ready_task);
        if ((rc = spk_handle_new(SPK_HANDLE_SESSION_LISTENER, l, e, &l->handle)) == 0)
            spk_layer_add(e, &l->layer);
        else
            spk_free(l);
    }
    *out = l;
    spk_engine_leave(e);
    return rc;
}

int
spoke_session_listen(spoke_session_listener **out, const char *url,
                     const spoke_session_config *config, spoke_engine *engine)
{
    spoke_session_config own;
    struct spk_session_listener *l;
    spoke_stream_listener *streams;
    void *handle;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (url == NULL)
        return SPOKE_EINVAL;
    if ((rc = spk_session_read_config(&own, config)) != 0 ||
        (rc = spoke_stream_listen(&streams, url, &own.stream, engine)) != 0)
        return rc;
    if ((rc = new_listener(&l, &own, engine)) != 0) {
        (void)spoke_stream_listener_close(streams);
        return rc;
    }
    l->streams = streams; /* nobody else has the handle yet */
    handle = l->handle;
    if ((rc = spoke_stream_listener_on_ready(streams, on_streams, handle)) != 0)
        (void)spoke_session_listener_close(handle);
    else
        *out = handle;
    return rc;
}

/* The one that has waited longest. */
static struct spk_session *
next_ready(struct spk_session_listener *l)
{
    while (!spk_list_empty(&l->ready)) {
        struct spk_session *ss = SPK_OWNER(l->ready.next, struct spk_session, of_listener);

        forget(l, ss);
        if (!ss->ended)
            return ss;
        spk_session_let_go(ss);
    }
    return NULL;
}

static int
accept_now(struct spk_session_listener *l, spoke_session **out)
{
    struct spk_session *ss = next_ready(l);
    int rc;

    if (ss == NULL)
        return SPOKE_EAGAIN;
    if ((rc = spk_handle_new(SPK_HANDLE_SESSION, ss, ss->e, &ss->handle)) == 0)
        *out = ss->handle;
    else
        spk_session_let_go(ss);
    return rc;
}

static int
wait_on(struct spk_session_listener *l, spoke_ns deadline)
{
    int rc;

    if (deadline == SPOKE_NOW)
        return SPOKE_EAGAIN;
    if (deadline != SPOKE_FOREVER && spk_engine_now(l->e) >= deadline)
        return SPOKE_ETIMEDOUT;
    rc = spk_engine_wait(l->e, &l->waiters, deadline, l->e->busy_poll_ns);
    return rc == SPOKE_ETIMEDOUT ? 0 : rc;
}

int
spoke_session_accept(spoke_session_listener *handle, spoke_session **out, spoke_ns deadline)
{
    struct spk_session_listener *l;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &l)) != 0)
        return rc;
    l->callers++;
    for (;;) {
        if (l->closed)
            rc = SPOKE_ECLOSED;
        else if ((rc = accept_now(l, out)) == SPOKE_EAGAIN && (rc = wait_on(l, deadline)) == 0)
            continue;
        break;
    }
    l->awaited |= rc == SPOKE_EAGAIN;
    tell(l);
    l->callers--;
    leave(l);
    return rc;
}

static int
streams_of(spoke_session_listener *handle, spoke_stream_listener **streams)
{
    struct spk_session_listener *l;
    int rc;

    if ((rc = enter(handle, &l)) != 0)
        return rc;
    *streams = l->streams;
    leave(l);
    return 0;
}

int
spoke_session_listener_address(spoke_session_listener *handle, char *url, size_t size)
{
    spoke_stream_listener *streams;
    int rc = streams_of(handle, &streams);

    if (rc != 0) {
        if (url != NULL && size > 0)
            *url = '\0';
        return rc;
    }
    return spoke_stream_listener_address(streams, url, size);
}

int
spoke_session_listener_close(spoke_session_listener *handle)
{
    spoke_stream_listener *streams;
    struct spk_session_listener *l;
    int rc;

    if ((rc = enter(handle, &l)) != 0)
        return rc == SPOKE_ECLOSED && handle != NULL ? 0 : rc;
    streams = l->streams;
    close_listener(l);
    l->callers++;
    await_call(l, &l->on_ready);
    await_call(l, &l->config.authenticate);
    l->callers--;
    leave(l);
    return spoke_stream_listener_close(streams);
}

/* ---- without waiting ---- */

int
spoke_session_listener_fd(spoke_session_listener *handle)
{
    struct spk_session_listener *l;
    int rc;

    if ((rc = enter(handle, &l)) != 0)
        return rc;
    if ((rc = spk_new_ready_fd(l->e, &l->fd)) == 0) {
        tell(l);
        rc = l->fd;
    }
    leave(l);
    return rc;
}

int
spoke_session_listener_on_ready(spoke_session_listener *handle, spoke_session_accept_f *fn,
                                void *ctx)
{
    struct spk_session_listener *l;
    int rc;

    if ((rc = enter(handle, &l)) != 0)
        return rc;
    l->on_ready = fn;
    l->on_ready_ctx = ctx;
    l->awaited = true;
    tell(l);
    await_call(l, &l->on_ready);
    leave(l);
    return 0;
}

static bool
can_accept(void *object, spoke_ns *until)
{
    (void)until;
    return has_ready(object);
}

static struct spk_link *
accepts_of(void *object)
{
    return &((struct spk_session_listener *)object)->selects;
}

const struct spk_selectable spk_select_session_accept = {
    .ready = can_accept,
    .selects = accepts_of,
};
