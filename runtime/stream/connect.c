/* SPDX-License-Identifier: MIT */
/* How streams come about.  Listeners and dialers are those of sockets (runtime/core/endpoint.c),
 * and so are the pipes that they bring: they belong to a socket of each engine that nobody sees,
 * whose protocol makes a stream of each pipe. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <spoke/tls.h>

#include "runtime/stream/conn.h"

/* What shm:// and inproc:// tell each other in the handshake; it is none of a Scalability Protocol.
 */
#define STREAM_PROTOCOL 0x7f01
#define BACKLOG         32
#define WINDOW          ((size_t)64 * 1024)
#define WINDOW_MEMORY   ((size_t)1024 * 1024) /* where nothing but the window holds bytes */

struct listener {
    spoke_stream_listener *handle;
    struct spk_link of_all;
    struct spk_engine *e;
    struct spk_endpoint *endpoint; /* NULL: it is closed */
    spoke_stream_config config;
    struct spk_link pending; /* streams that nobody has accepted */
    int count;
    struct spk_link waiters, selects;
    uint32_t callers;
    bool closed, awaited;
    spoke_stream_accept_f *on_ready;
    void *on_ready_ctx;
    struct spk_task ready_task;
    int fd; /* an eventfd, -1: nobody asked */
    bool fd_on;
};

/* Of the socket that nobody sees. */
struct streams {
    struct spk_link conns, listeners, layers;
};

/* ---- configuration ---- */

void
spoke_stream_config_init(spoke_stream_config *config)
{
    *config = (spoke_stream_config){.linger_ns = SPOKE_SECOND,
                                    .busy_poll_ns = SPOKE_WAIT_AS_ENGINE,
                                    .tcp_nodelay = true,
                                    .tcp_keepalive = true,
                                    .ipc_mode = -1,
                                    .ws_check_origin = true};
}

/* What was given, or the defaults. */
static int
read_config(spoke_stream_config *out, const spoke_stream_config *config, const struct spk_engine *e)
{
    if (config == NULL)
        spoke_stream_config_init(out);
    else
        *out = *config;
    if (out->busy_poll_ns == SPOKE_WAIT_AS_ENGINE)
        out->busy_poll_ns = e->busy_poll_ns;
    if (out->linger_ns < 0 || out->backlog < 0 || out->busy_poll_ns < SPOKE_WAIT_ADAPTIVE ||
        out->ipc_mode < -1 || out->ipc_mode > 0777)
        return SPOKE_ERANGE;
    if (out->tls != NULL && !spk_tls_is_config(out->tls))
        return SPOKE_EINVAL;
    if (out->backlog == 0)
        out->backlog = BACKLOG;
    return 0;
}

int
spk_stream_config_keep(spoke_stream_config *config)
{
    if (config->tls != NULL && !spk_tls_is_config(config->tls))
        return SPOKE_EINVAL;
    config->ws_origins = spk_strdup(config->ws_origins != NULL ? config->ws_origins : "");
    config->ws_directory = spk_strdup(config->ws_directory != NULL ? config->ws_directory : "");
    config->tls = spoke_tls_config_ref(config->tls);
    if (config->ws_origins != NULL && config->ws_directory != NULL)
        return 0;
    spk_stream_config_drop(config);
    return SPOKE_ENOMEM;
}

void
spk_stream_config_drop(spoke_stream_config *config)
{
    spk_free((char *)(uintptr_t)config->ws_origins);
    spk_free((char *)(uintptr_t)config->ws_directory);
    spoke_tls_config_free(config->tls);
    config->ws_origins = config->ws_directory = NULL;
    config->tls = NULL;
}

static size_t
window_of(const struct spk_endpoint *ep)
{
    return ep->transport->message_face || ep->transport->shared_memory == SPK_SHM_ALWAYS
               ? WINDOW_MEMORY
               : WINDOW;
}

/* ---- the protocol of the socket that nobody sees ---- */

static struct streams *
streams_of(struct spk_socket *s)
{
    return s->state;
}

static struct spk_conn **
conn_at(struct spk_pipe *p)
{
    return p->state_memory;
}

static int
streams_open(struct spk_socket *s)
{
    spk_list_init(&streams_of(s)->conns);
    spk_list_init(&streams_of(s)->listeners);
    spk_list_init(&streams_of(s)->layers);
    return 0;
}

static void
free_listener_if_done(struct listener *l)
{
    if (!l->closed || l->callers > 0)
        return;
    spk_task_cancel(&l->ready_task);
    spk_list_remove(&l->of_all);
    if (l->fd >= 0)
        close(l->fd);
    spk_free(l);
}

static void close_listener(struct listener *l);

/* The engine closes. */
static void
streams_closing(struct spk_socket *s)
{
    struct streams *all = streams_of(s);
    struct spk_link *link, *next;

    while (!spk_list_empty(&all->layers)) {
        struct spk_layer *l = SPK_OWNER(spk_list_take(&all->layers), struct spk_layer, link);

        l->closing(l);
    }
    s->e->streams = NULL;
    for (link = all->listeners.next; link != &all->listeners; link = next) {
        struct listener *l = SPK_OWNER(link, struct listener, of_all);

        next = link->next;
        close_listener(l);
        free_listener_if_done(l);
    }
    for (link = all->conns.next; link != &all->conns; link = next) {
        struct spk_conn *c = SPK_OWNER(link, struct spk_conn, of_all);

        next = link->next;
        c->linger_ns = 0;
        if (!c->closed)
            (void)spk_conn_let_go(c);
        spk_conn_free_if_done(c);
    }
}

static void
tell(struct listener *l)
{
    spk_engine_wake_one(l->e, &l->waiters);
    spk_select_tell(&l->selects);
    spk_set_ready_fd(l->fd, &l->fd_on, l->count > 0);
    if (l->on_ready != NULL && l->awaited && l->count > 0)
        spk_task_queue_callback(l->e, &l->ready_task);
}

static void
pause_if_full(struct listener *l)
{
    if (l->endpoint != NULL && l->endpoint->transport->listen_pause != NULL)
        l->endpoint->transport->listen_pause(l->endpoint, l->count >= l->config.backlog);
}

static int
bind_pipe(struct spk_conn *c, struct spk_pipe *p)
{
    struct spk_credentials peer;

    *conn_at(p) = c;
    if (p->ops->credentials != NULL && p->ops->credentials(p, &peer) == 0) {
        c->info.pid = peer.pid;
        c->info.uid = peer.uid;
        c->info.gid = peer.gid;
    }
    if (p->ops != &spk_bytes_pipe_ops)
        return spk_frames_open(c, p);
    spk_bytes_open(c, p);
    return 0;
}

static int
accept_pipe(struct spk_socket *s, struct listener *l, struct spk_pipe *p)
{
    struct spk_conn *c;
    int rc;

    if (l->closed)
        return SPOKE_ECLOSED;
    if (l->count >= l->config.backlog && l->endpoint->transport->listen_pause == NULL)
        return SPOKE_EBACKLOG;
    if ((c = spk_conn_new(s->e, &streams_of(s)->conns, &l->config, window_of(p->endpoint))) == NULL)
        return SPOKE_ENOMEM;
    if ((rc = bind_pipe(c, p)) != 0) {
        c->closed = true;
        *conn_at(p) = NULL;
        spk_conn_free_if_done(c);
        return rc;
    }
    spk_list_append(&l->pending, &c->link);
    l->count++;
    pause_if_full(l);
    tell(l);
    return 0;
}

static int
streams_pipe_added(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_endpoint *ep = p->endpoint;
    struct spk_conn *c;

    if (!ep->is_dialer)
        return ep->owner != NULL ? accept_pipe(s, ep->owner, p) : SPOKE_ECLOSED;
    c = ep->owner;
    return c != NULL && !c->closed ? bind_pipe(c, p) : SPOKE_ECLOSED;
}

/* Its dialer has given up before anybody accepted it, without a word. */
static void
forget(struct listener *l, struct spk_conn *c)
{
    spk_list_remove(&c->link);
    l->count--;
    pause_if_full(l);
    spk_set_ready_fd(l->fd, &l->fd_on, l->count > 0);
    c->closed = true;
    spk_conn_free_if_done(c);
}

static bool
says_nothing(const struct spk_conn *c)
{
    return c->input == NULL && c->read.end != SPOKE_EOF && c->read.end != SPOKE_EABORTED;
}

static void
streams_pipe_removed(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_conn *c = *conn_at(p);
    int reason = p->reason;
    bool is_pending;

    (void)s;
    if (c == NULL)
        return;
    is_pending = !spk_list_empty(&c->link); /* a mux's has no handle either */
    *conn_at(p) = NULL;
    if (p->ops == &spk_bytes_pipe_ops)
        spk_bytes_close(p);
    else
        reason = spk_frames_close(c, reason);
    c->open = false;
    spk_conn_stop_dialing(c);
    spk_conn_gone(c, reason);
    if (is_pending && says_nothing(c))
        forget(p->endpoint->owner, c);
}

static int
streams_received(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    struct spk_conn *c = *conn_at(p);

    (void)s;
    if (c != NULL)
        return spk_frames_received(c, m);
    spoke_msg_free(m);
    return 0;
}

static void
streams_writable(struct spk_socket *s, struct spk_pipe *p)
{
    struct spk_conn *c = *conn_at(p);

    (void)s;
    if (c != NULL && p->ops != &spk_bytes_pipe_ops)
        spk_frames_writable(c);
}

static unsigned
streams_ready(struct spk_socket *s)
{
    (void)s;
    return 0;
}

static const struct spoke_protocol streams_protocol = {
    .abi = SPOKE_PROTOCOL_ABI,
    .number = STREAM_PROTOCOL,
    .peer = STREAM_PROTOCOL,
    .name = "stream",
    .socket_size = sizeof(struct streams),
    .pipe_size = sizeof(struct spk_conn *),
    .open = streams_open,
    .closing = streams_closing,
    .pipe_added = streams_pipe_added,
    .pipe_removed = streams_pipe_removed,
    .received = streams_received,
    .writable = streams_writable,
    .ready = streams_ready,
};

/* ---- the engine's ---- */

/* Enter an engine, NULL: the shared one, and give its socket for streams. */
static int
enter_engine(spoke_engine *handle, struct spk_engine **e, struct spk_socket **s)
{
    void *object;
    int rc;

    if (handle != NULL)
        rc = spk_handle_enter(handle, SPK_HANDLE_ENGINE, &object, e);
    else if ((rc = spk_engine_default(e)) == 0)
        rc = spk_engine_enter(*e);
    if (rc != 0)
        return rc;
    if ((*e)->streams == NULL && (rc = spk_socket_new(s, &streams_protocol, *e)) == 0)
        (*e)->streams = *s;
    if (rc != 0)
        spk_engine_leave(*e);
    else
        *s = (*e)->streams;
    return rc;
}

int
spk_streams_enter(spoke_engine *handle, struct spk_engine **e)
{
    struct spk_socket *s;

    return enter_engine(handle, e, &s);
}

void
spk_layer_add(struct spk_engine *e, struct spk_layer *l)
{
    spk_list_append(&streams_of(e->streams)->layers, &l->link);
}

struct spk_link *
spk_streams_of(struct spk_engine *e)
{
    return &streams_of(e->streams)->conns;
}

static int
set_text(struct spk_endpoint *ep, const char *name, const char *text)
{
    return text == NULL ? 0 : spk_endpoint_set(ep, name, SPOKE_STRING, text, strlen(text));
}

/* What the transport has no use for is not looked at, as everywhere in a configuration. */
static int
set_ws(struct spk_endpoint *ep, const spoke_stream_config *config)
{
    size_t most = config->ws_frame_size;
    int rc = 0;

    if ((ep->transport->options & SPK_OPTIONS_WS) == 0)
        return 0;
    ep->options.ws_recv_text = config->ws_recv_text;
    ep->options.ws_check_origin = config->ws_check_origin;
    ep->options.ws_below = config->ws_below;
    if (most != 0)
        rc = spk_endpoint_set(ep, SPOKE_OPT_WS_FRAME_SIZE, SPOKE_SIZE, &most, sizeof most);
    if (rc != 0 || ep->is_dialer)
        return rc;
    if ((rc = set_text(ep, SPOKE_OPT_WS_ORIGINS, config->ws_origins)) == 0)
        rc = set_text(ep, SPOKE_OPT_WS_DIRECTORY, config->ws_directory);
    return rc;
}

static int
new_endpoint(struct spk_endpoint **out, struct spk_socket *s, const char *url, bool is_dialer,
             const spoke_stream_config *config, void *owner)
{
    struct spk_endpoint *ep;
    size_t window;
    int rc = spk_endpoint_new(&ep, s, url, is_dialer);

    if (rc != 0)
        return rc;
    window = config->window > 0 ? config->window : window_of(ep);
    if (ep->options.max_recv_size <= window) /* so much may come at once, and what it is in front */
        ep->options.max_recv_size = window + 1;
    ep->owner = owner;
    ep->options.tcp_nodelay = config->tcp_nodelay;
    ep->options.tcp_keepalive = config->tcp_keepalive;
    ep->options.ipc_mode = config->ipc_mode;
    ep->options.tls = spoke_tls_config_ref(config->tls);
    if ((rc = set_ws(ep, config)) != 0) {
        ep->owner = NULL;
        spk_endpoint_close(ep);
        return rc;
    }
    *out = ep;
    return 0;
}

/* ---- listening ---- */

static void
on_accept_task(struct spk_task *task)
{
    struct listener *l = SPK_OWNER(task, struct listener, ready_task);
    spoke_stream_accept_f *fn = l->on_ready;
    spoke_stream_listener *handle = l->handle;
    void *ctx = l->on_ready_ctx; /* another may be set once the lock is left */

    if (l->closed || fn == NULL || !l->awaited || l->count == 0)
        return;
    l->awaited = false;
    l->callers++;
    spk_engine_call_begin(l->e, l);
    fn(handle, ctx);
    spk_engine_call_end(l->e);
    l->callers--;
    free_listener_if_done(l);
}

static int
start_by_url(struct spk_endpoint *ep, int fd)
{
    (void)fd;
    return spk_listen_patiently(ep->e, ep);
}

/* It has been bound by others. */
static int
start_on_fd(struct spk_endpoint *ep, int fd)
{
    socklen_t size = sizeof ep->address;
    int rc;

    if ((ep->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0)
        return spk_error_from_errno(errno);
    if (getsockname(fd, (struct sockaddr *)&ep->address, &size) != 0 ||
        fcntl(ep->fd, F_SETFL, fcntl(ep->fd, F_GETFL) | O_NONBLOCK) != 0)
        rc = spk_error_from_errno(errno);
    else if ((rc = spk_fd_accept(ep)) == 0)
        spk_listener_started(ep);
    if (rc == 0)
        close(fd);
    else
        spk_fd_unbind(ep);
    return rc;
}

static int
new_listener(struct listener **out, struct spk_socket *s, const char *url,
             const spoke_stream_config *config)
{
    struct listener *l = spk_zalloc(sizeof *l);
    void *handle;
    int rc;

    if (l == NULL)
        return SPOKE_ENOMEM;
    l->e = s->e;
    l->fd = -1;
    spk_list_init(&l->pending);
    spk_list_init(&l->waiters);
    spk_list_init(&l->selects);
    spk_task_init(&l->ready_task, on_accept_task);
    spk_list_append(&streams_of(s)->listeners, &l->of_all);
    if ((rc = read_config(&l->config, config, s->e)) == 0 &&
        (rc = new_endpoint(&l->endpoint, s, url, false, &l->config, l)) == 0 &&
        (rc = spk_handle_new(SPK_HANDLE_STREAM_LISTENER, l, s->e, &handle)) == 0) {
        l->handle = handle;
        l->config.tls = NULL; /* what is pointed to is the caller's */
        l->config.ws_origins = l->config.ws_directory = NULL;
        *out = l;
        return 0;
    }
    if (l->endpoint != NULL)
        spk_endpoint_close(l->endpoint);
    l->closed = true;
    free_listener_if_done(l);
    return rc;
}

static int
listen_on(spoke_stream_listener **out, const char *url, int fd, const spoke_stream_config *config,
          spoke_engine *engine, int (*start)(struct spk_endpoint *ep, int fd))
{
    struct spk_engine *e;
    struct spk_socket *s;
    struct listener *l;
    int rc;

    if ((rc = enter_engine(engine, &e, &s)) != 0)
        return rc;
    if (fd >= 0 && e->backend->is_virtual)
        rc = SPOKE_ENOTSUP;
    else if ((rc = new_listener(&l, s, url, config)) == 0) {
        l->callers++;
        rc = start(l->endpoint, fd);
        l->callers--;
        if (rc == 0)
            *out = l->handle;
        else
            close_listener(l);
        free_listener_if_done(l);
    }
    spk_engine_leave(e);
    return rc;
}

int
spoke_stream_listen(spoke_stream_listener **out, const char *url, const spoke_stream_config *config,
                    spoke_engine *engine)
{
    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    return url == NULL ? SPOKE_EINVAL : listen_on(out, url, -1, config, engine, start_by_url);
}

static int
enter_listener(spoke_stream_listener *handle, struct listener **l)
{
    struct spk_engine *e;
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_STREAM_LISTENER, &object, &e);

    if (rc == 0)
        *l = object;
    return rc;
}

static void
leave_listener(struct listener *l)
{
    struct spk_engine *e = l->e;

    free_listener_if_done(l);
    spk_engine_leave(e);
}

/* The oldest. */
static struct spk_conn *
take_pending(struct listener *l)
{
    struct spk_conn *c;

    if (l->count == 0)
        return NULL;
    l->count--;
    c = SPK_OWNER(spk_list_take(&l->pending), struct spk_conn, link);
    pause_if_full(l);
    spk_set_ready_fd(l->fd, &l->fd_on, l->count > 0);
    return c;
}

static bool
has_passed(struct spk_engine *e, spoke_ns deadline)
{
    return deadline != SPOKE_NOW && deadline != SPOKE_FOREVER && spk_engine_now(e) >= deadline;
}

/* 0: look again. */
static int
wait_pending(struct listener *l, spoke_ns deadline)
{
    int rc;

    if (deadline == SPOKE_NOW)
        return SPOKE_EAGAIN;
    rc = spk_engine_wait(l->e, &l->waiters, deadline, l->config.busy_poll_ns);
    return rc == SPOKE_ETIMEDOUT ? 0 : rc;
}

int
spoke_stream_accept(spoke_stream_listener *handle, spoke_stream **out, spoke_ns deadline)
{
    struct spk_conn *c = NULL;
    struct listener *l;
    bool is_over = false;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = enter_listener(handle, &l)) != 0)
        return rc;
    l->callers++;
    while (!l->closed && !(is_over = has_passed(l->e, deadline)) && l->count == 0 &&
           (rc = wait_pending(l, deadline)) == 0) {
    }
    l->callers--;
    if (l->closed)
        rc = SPOKE_ECLOSED;
    else if (is_over)
        rc = SPOKE_ETIMEDOUT;
    else if (rc == SPOKE_EAGAIN)
        l->awaited = true;
    else if (rc == 0 && (c = take_pending(l)) != NULL && (rc = spk_conn_give_handle(c)) == 0)
        *out = c->handle;
    if (rc == SPOKE_ETIMEDOUT && l->count > 0) /* it may have been woken for one: another's turn */
        tell(l);
    if (rc == SPOKE_ELIMIT && c != NULL) { /* no handles: the stream cannot be had */
        (void)spk_conn_let_go(c);
        spk_conn_free_if_done(c);
    }
    leave_listener(l);
    return rc;
}

int
spoke_stream_listener_address(spoke_stream_listener *handle, char *url, size_t size)
{
    char text[SPK_URL_MAX + 1];
    struct listener *l;
    int rc;

    if (url == NULL || size == 0)
        return SPOKE_EINVAL;
    *url = '\0';
    if ((rc = enter_listener(handle, &l)) != 0)
        return rc;
    if ((rc = l->endpoint->transport->listen_address(l->endpoint, text, sizeof text)) == 0)
        rc = snprintf(url, size, "%s", text) < (int)size ? 0 : SPOKE_ERANGE;
    leave_listener(l);
    return rc;
}

static void
close_listener(struct listener *l)
{
    if (l->closed)
        return;
    l->closed = true;
    spk_handle_free(l->handle);
    spk_select_wake(&l->selects);
    l->on_ready = NULL;
    if (l->endpoint != NULL) {
        l->endpoint->owner = NULL;
        spk_endpoint_close(l->endpoint);
        l->endpoint = NULL;
    }
    while (!spk_list_empty(&l->pending)) {
        struct spk_conn *c = SPK_OWNER(spk_list_take(&l->pending), struct spk_conn, link);

        spk_conn_cancel(c, 0);
    }
    l->count = 0;
    spk_engine_wake_all(l->e, &l->waiters);
}

int
spoke_stream_listener_close(spoke_stream_listener *handle)
{
    struct spk_endpoint *ep;
    struct listener *l;
    int rc;

    if ((rc = enter_listener(handle, &l)) != 0)
        return rc == SPOKE_ECLOSED && handle != NULL ? 0 : rc;
    l->callers++;
    ep = l->endpoint;
    ep->refs++;
    close_listener(l);
    /* Until the address is free again; a callback cannot wait for that. */
    while (!ep->stopped && rc == 0)
        rc = spk_engine_wait(l->e, &ep->waiters, SPOKE_FOREVER, SPOKE_WAIT_BLOCK);
    spk_endpoint_unref(ep);
    spk_engine_await_call(l->e, l);
    l->callers--;
    leave_listener(l);
    return 0;
}

int
spoke_stream_listener_fd(spoke_stream_listener *handle)
{
    struct listener *l;
    int rc;

    if ((rc = enter_listener(handle, &l)) != 0)
        return rc;
    if ((rc = spk_new_ready_fd(l->e, &l->fd)) == 0) {
        spk_set_ready_fd(l->fd, &l->fd_on, l->count > 0);
        rc = l->fd;
    }
    leave_listener(l);
    return rc;
}

int
spoke_stream_listener_on_ready(spoke_stream_listener *handle, spoke_stream_accept_f *fn, void *ctx)
{
    struct listener *l;
    int rc;

    if ((rc = enter_listener(handle, &l)) != 0)
        return rc;
    l->on_ready = fn;
    l->on_ready_ctx = ctx;
    l->awaited = true;
    if (fn != NULL && l->count > 0)
        spk_task_queue_callback(l->e, &l->ready_task);
    l->callers++;
    spk_engine_await_call(l->e, l);
    l->callers--;
    leave_listener(l);
    return 0;
}

static bool
can_accept(void *object, spoke_ns *until)
{
    (void)until;
    return ((struct listener *)object)->count > 0;
}

static struct spk_link *
accepts_of(void *object)
{
    return &((struct listener *)object)->selects;
}

const struct spk_selectable spk_select_stream_accept = {
    .ready = can_accept,
    .selects = accepts_of,
};

/* ---- dialing ---- */

static void
on_dialed(struct spk_endpoint *d, int reason)
{
    struct spk_conn *c = d->owner;

    if (c == NULL || reason == 0) /* else pipe_added has opened it */
        return;
    spk_conn_ends(c, reason);
    spk_conn_stopped(c, reason);
    spk_engine_wake_all(c->e, &c->dial_waiters);
}

void
spk_conn_stop_dialing(struct spk_conn *c)
{
    struct spk_endpoint *d = c->dialer;

    if (d == NULL || c->open) /* it ends with the pipe */
        return;
    c->dialer = NULL;
    d->owner = NULL;
    spk_endpoint_close(d);
}

/* Wait for the outcome. */
int
spk_conn_wait_dialed(struct spk_conn *c, spoke_ns deadline)
{
    int rc = 0;

    c->callers++;
    while (rc == 0 && !c->closed && !c->open && c->read.end == 0)
        rc = spk_engine_wait(c->e, &c->dial_waiters, deadline, c->busy_poll_ns);
    c->callers--;
    if (c->closed)
        return SPOKE_ECLOSED;
    return c->carrier != NULL ? 0 : c->read.end != 0 ? c->read.end : rc;
}

int
spoke_stream_dial(spoke_stream **out, const char *url, const spoke_stream_config *config,
                  spoke_engine *engine, spoke_ns deadline)
{
    spoke_stream_config own;
    struct spk_engine *e;
    struct spk_socket *s;
    struct spk_conn *c;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (url == NULL || deadline < 0)
        return SPOKE_EINVAL;
    if ((rc = enter_engine(engine, &e, &s)) != 0)
        return rc;
    if ((rc = read_config(&own, config, e)) != 0)
        goto leave;
    rc = SPOKE_ETIMEDOUT;
    if (has_passed(e, deadline))
        goto leave;
    rc = SPOKE_ENOMEM;
    if ((c = spk_conn_new(e, &streams_of(s)->conns, &own, WINDOW)) == NULL)
        goto leave;
    if ((rc = new_endpoint(&c->dialer, s, url, true, &own, c)) != 0)
        goto close_stream;
    if (own.window == 0)
        c->window = window_of(c->dialer);
    c->dialer->dialed = on_dialed;
    /* The caller's deadline is the time limit of the attempt; without one it has the usual. */
    if (deadline != SPOKE_NOW && deadline != SPOKE_FOREVER)
        c->dialer->options.handshake_ns = deadline - spk_engine_now(e) > 0
                                              ? deadline - spk_engine_now(e)
                                              : 1;
    if ((rc = spk_conn_give_handle(c)) != 0 || (rc = spk_dialer_start(c->dialer)) != 0)
        goto close_stream;
    if (deadline != SPOKE_NOW && (rc = spk_conn_wait_dialed(c, deadline)) != 0)
        goto close_stream;
    *out = c->handle;
    goto leave;
close_stream:
    if (!c->closed)
        (void)spk_conn_let_go(c);
    spk_conn_free_if_done(c);
leave:
    spk_engine_leave(e);
    return rc;
}

/* ---- without an address ---- */

/* Of a stream that nobody has dialed or accepted: it and its handle. */
static int
new_conn(struct spk_conn **out, struct spk_socket *s, const spoke_stream_config *config)
{
    struct spk_conn *c = spk_conn_new(s->e, &streams_of(s)->conns, config, WINDOW);
    int rc;

    *out = NULL;
    if (c == NULL)
        return SPOKE_ENOMEM;
    if ((rc = spk_conn_give_handle(c)) == 0) {
        *out = c;
        return 0;
    }
    c->closed = true;
    spk_conn_free_if_done(c);
    return rc;
}

int
spoke_stream_pair(spoke_stream **a, spoke_stream **b, const spoke_stream_config *config,
                  spoke_engine *engine)
{
    spoke_stream_config own;
    struct spk_engine *e;
    struct spk_socket *s;
    struct spk_conn *ends[2];
    int rc;

    if (a == NULL || b == NULL)
        return SPOKE_EINVAL;
    *a = *b = NULL;
    if ((rc = enter_engine(engine, &e, &s)) != 0)
        return rc;
    if ((rc = read_config(&own, config, e)) != 0)
        goto leave;
    if (own.window == 0)
        own.window = WINDOW_MEMORY;
    if ((rc = new_conn(&ends[0], s, &own)) != 0)
        goto leave;
    if ((rc = new_conn(&ends[1], s, &own)) != 0) {
        (void)spk_conn_let_go(ends[0]);
        spk_conn_free_if_done(ends[0]);
        goto leave;
    }
    spk_pair_open(ends[0], ends[1]);
    *a = ends[0]->handle;
    *b = ends[1]->handle;
leave:
    spk_engine_leave(e);
    return rc;
}

/* Is it a stream socket of a kind that has a name here?  Gives that. */
static int
check_socket(int fd, const char **scheme)
{
    int type = 0, family = 0;
    socklen_t size = sizeof type;

    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) != 0)
        return errno == EBADF || errno == ENOTSOCK ? SPOKE_ENOTSOCK : spk_error_from_errno(errno);
    size = sizeof family;
    if (type != SOCK_STREAM || getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) != 0)
        return SPOKE_ENOTSUP;
    *scheme = family == AF_UNIX ? "ipc" : family == AF_INET || family == AF_INET6 ? "tcp" : NULL;
    return *scheme != NULL ? 0 : SPOKE_ENOTSUP;
}

/* An address for an endpoint that never uses it. */
static const char *
some_url(const char *scheme)
{
    return scheme != NULL && strcmp(scheme, "ipc") == 0 ? "ipc://@fd" : "tcp://[::1]:1";
}

int
spoke_stream_listen_fd(spoke_stream_listener **out, int fd, const spoke_stream_config *config,
                       spoke_engine *engine)
{
    const char *scheme = NULL;
    int listens = 0, rc;
    socklen_t size = sizeof listens;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = check_socket(fd, &scheme)) != 0)
        return rc;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size) != 0 || listens == 0)
        return SPOKE_ENOTSUP;
    return listen_on(out, some_url(scheme), fd, config, engine, start_on_fd);
}

/* As if it had been dialed.  Takes fd. */
static int
adopt(struct spk_conn *c, struct spk_socket *s, const spoke_stream_config *config,
      const char *scheme, int fd)
{
    struct spk_stream *st;
    int rc;

    if ((rc = new_endpoint(&c->dialer, s, some_url(scheme), true, config, c)) == 0 &&
        (rc = spk_fd_stream(&st, s->e, scheme, fd)) == 0) {
        c->dialer->dialed = on_dialed;
        c->dialer->state = SPK_CONNECTED;
        return spk_bytes_start(c->dialer, st);
    }
    close(fd);
    return rc;
}

static int
check_connected(int fd, const char **scheme)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof peer;
    int rc = check_socket(fd, scheme);

    if (rc == 0 && getpeername(fd, (struct sockaddr *)&peer, &size) != 0)
        rc = SPOKE_ENOTSUP;
    return rc;
}

int
spk_conn_from_fd(struct spk_conn **out, int fd, const spoke_stream_config *config,
                 struct spk_engine *e)
{
    spoke_stream_config own;
    const char *scheme = NULL;
    struct spk_conn *c;
    int own_fd, rc;

    if ((rc = check_connected(fd, &scheme)) != 0)
        return rc;
    if (e->backend->is_virtual)
        return SPOKE_ENOTSUP;
    if ((rc = read_config(&own, config, e)) != 0 || (rc = new_conn(&c, e->streams, &own)) != 0)
        return rc;
    /* What fails may have closed it, and it is still the caller's then. */
    if ((own_fd = fcntl(fd, F_DUPFD_CLOEXEC, 3)) < 0) {
        rc = spk_error_from_errno(errno);
    } else {
        /* Cannot fail on a socket. */
        (void)fcntl(own_fd, F_SETFL, fcntl(own_fd, F_GETFL) | O_NONBLOCK);
        rc = adopt(c, e->streams, &own, scheme, own_fd);
    }
    if (rc == 0) {
        close(fd);
        *out = c;
    } else {
        (void)spk_conn_let_go(c);
        spk_conn_free_if_done(c);
    }
    return rc;
}

int
spoke_stream_from_fd(spoke_stream **out, int fd, const spoke_stream_config *config,
                     spoke_engine *engine)
{
    const char *scheme;
    struct spk_engine *e;
    struct spk_socket *s;
    struct spk_conn *c;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = check_connected(fd, &scheme)) != 0 || (rc = enter_engine(engine, &e, &s)) != 0)
        return rc;
    if ((rc = spk_conn_from_fd(&c, fd, config, e)) == 0)
        *out = c->handle;
    spk_engine_leave(e);
    return rc;
}
