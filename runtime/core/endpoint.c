/* SPDX-License-Identifier: MIT */
/* Dialers and listeners: when to try, when to try again, and what becomes of what they bring.  How
 * a connection is made is the transport's.
 *
 * An endpoint is counted: once for itself until it is closed, once for an attempt or accept that is
 * outstanding, once for each of its pipes, once for each caller that waits for it. */
#include <string.h>

#include "runtime/core/core.h"

/* ---- both ---- */

static void on_dialer_timer(struct spk_timer *timer);
static void on_fail_task(struct spk_task *task);

int
spk_endpoint_new(struct spk_endpoint **out, struct spk_socket *s, const char *url, bool is_dialer)
{
    struct spk_endpoint *ep;
    int rc;

    *out = NULL;
    if ((ep = spk_zalloc(sizeof *ep)) == NULL)
        return SPOKE_ENOMEM;
    if ((rc = spk_url_parse(&ep->url, url, !is_dialer)) != 0)
        goto free_endpoint;
    ep->transport = ep->url.transport;
    if (ep->transport->check != NULL && (rc = ep->transport->check(&ep->url)) != 0)
        goto fini_url;
    if ((rc = spk_handle_new(is_dialer ? SPK_HANDLE_DIALER : SPK_HANDLE_LISTENER, ep, s->e,
                             &ep->handle)) != 0)
        goto fini_url;
    ep->socket = s;
    ep->e = s->e;
    ep->is_dialer = is_dialer;
    ep->state = SPK_CREATED;
    spk_endpoint_options_copy(&ep->options, &s->defaults);
    ep->refs = 1;
    ep->fd = -1;
    spk_timer_init(&ep->timer, on_dialer_timer);
    spk_task_init(&ep->fail_task, on_fail_task);
    spk_timer_init(&ep->accept_timer, NULL);
    spk_list_init(&ep->waiters);
    spk_list_append(&s->endpoints, &ep->link);
    *out = ep;
    return 0;
fini_url:
    spk_url_fini(&ep->url);
free_endpoint:
    spk_free(ep);
    return rc;
}

void
spk_endpoint_unref(struct spk_endpoint *ep)
{
    struct spk_socket *s = ep->socket;

    if (--ep->refs > 0)
        return;
    spk_list_remove(&ep->link);
    spk_timer_cancel(s->e, &ep->timer);
    spk_url_fini(&ep->url);
    spk_endpoint_options_fini(&ep->options);
    spk_free(ep->explanation);
    spk_free(ep->private);
    spk_free(ep);
    spk_socket_advance_close(s);
}

static void
shut_pipes(struct spk_endpoint *ep)
{
    SPK_LIST_EACH(link, &ep->socket->pipes)
    {
        struct spk_pipe *p = SPK_OWNER(link, struct spk_pipe, link);

        if (p->endpoint == ep)
            spk_pipe_shut(p, SPOKE_ECLOSED);
    }
}

void
spk_endpoint_close(struct spk_endpoint *ep)
{
    enum spk_endpoint_state state = ep->state;

    if (state == SPK_CLOSING)
        return;
    ep->state = SPK_CLOSING;
    spk_handle_free(ep->handle);
    spk_timer_cancel(ep->e, &ep->timer);
    spk_engine_wake_all(ep->e, &ep->waiters);
    if (state == SPK_DIALING)
        ep->transport->dial_cancel(ep);
    else if (state == SPK_LISTENING)
        ep->transport->listen_close(ep);
    if (ep->pipe != NULL)
        spk_pipe_shut(ep->pipe, SPOKE_ECLOSED);
    if (ep->options.close_pipes)
        shut_pipes(ep);
    spk_endpoint_unref(ep);
}

/* ---- dialer ---- */

static void
dial(struct spk_endpoint *d)
{
    struct spk_engine *e = d->e;

    d->state = SPK_DIALING;
    d->refs++; /* until it is answered */
    d->socket->stats.dials++;
    d->counts.dials++;
    d->dialed_ns = spk_engine_now(e);
    /* Without memory for the timer an attempt has the kernel's time limit only. */
    (void)spk_timer_set(e, &d->timer, spk_later(spk_engine_now(e), d->options.handshake_ns));
    d->transport->dial(d);
}

/* Attempts one after the other without any pause would take the whole engine, and could not grow
 * rarer. */
static spoke_ns
shortest_wait(const struct spk_endpoint *d)
{
    return d->options.reconnect_ns > SPOKE_MS ? d->options.reconnect_ns : SPOKE_MS;
}

static void
wait_and_dial(struct spk_endpoint *d)
{
    struct spk_engine *e = d->e;
    spoke_ns least = shortest_wait(d), most = d->options.reconnect_max_ns, wait = least;

    d->state = SPK_WAITING;
    if (d->dialed != NULL) /* that was the only attempt */
        return;
    if (most > least) {
        spoke_ns step = d->backoff_ns > least ? d->backoff_ns : least;
        d->backoff_ns = step > most / 2 ? most : step * 2;
        /* Not all who lost the same peer come back at once, not even the first time. */
        wait += (spoke_ns)(spk_engine_random(e) % (uint64_t)(d->backoff_ns - least + 1));
    }
    if (spk_timer_set(e, &d->timer, spk_later(spk_engine_now(e), wait)) != 0)
        dial(d);
}

static void
on_dialer_timer(struct spk_timer *timer)
{
    struct spk_endpoint *d = SPK_OWNER(timer, struct spk_endpoint, timer);

    if (d->state == SPK_WAITING) {
        dial(d);
    } else if (d->state == SPK_DIALING) {
        d->last_error = SPOKE_ETIMEDOUT;
        d->transport->dial_cancel(d);
    }
}

/* The first attempt that somebody may wait for has come to this. */
void
spk_dialer_attempt_over(struct spk_endpoint *d, int reason)
{
    if (reason == 0) {
        d->attached_ns = spk_engine_now(d->e);
        d->socket->stats.dials_attached++;
    } else {
        d->socket->stats.dials_failed++;
        d->counts.failed++;
    }
    d->last_error = reason;
    if (!d->first_done) {
        d->first_done = true;
        d->first_error = reason;
        spk_engine_wake_all(d->e, &d->waiters);
    }
    if (d->dialed != NULL)
        d->dialed(d, reason);
    if (reason != 0)
        spk_event(d->socket, SPOKE_EVENT_DIAL_FAILED, reason, NULL, d);
}

/* Make a pipe of a connection: it carries messages, or the bytes of a stream. */
static int
start_pipe(struct spk_endpoint *ep, struct spk_stream *st)
{
    int rc;

    if (ep->transport->wrap != NULL && (rc = ep->transport->wrap(ep, &st)) != 0)
        return rc;
    if (ep->transport->start_pipe != NULL)
        return ep->transport->start_pipe(ep, st);
    if (ep->owner != NULL && ep->transport->shared_memory != SPK_SHM_ALWAYS)
        return spk_bytes_start(ep, st);
    return spk_framing_start(ep, st);
}

void
spk_dialer_failed(struct spk_endpoint *d, int reason)
{
    spk_timer_cancel(d->e, &d->timer);
    if (d->state == SPK_DIALING) {
        if (reason == SPOKE_ECANCELED && d->last_error == SPOKE_ETIMEDOUT)
            reason = SPOKE_ETIMEDOUT;
        spk_dialer_attempt_over(d, reason);
        wait_and_dial(d);
    }
    spk_endpoint_unref(d);
}

static void
on_fail_task(struct spk_task *task)
{
    struct spk_endpoint *d = SPK_OWNER(task, struct spk_endpoint, fail_task);

    spk_dialer_failed(d, d->fail_reason);
}

void
spk_dialer_fail_later(struct spk_endpoint *d, int reason)
{
    d->fail_reason = reason;
    spk_task_queue(d->e, &d->fail_task);
}

void
spk_dialer_connected(struct spk_endpoint *d, struct spk_stream *st)
{
    int rc;

    spk_timer_cancel(d->e, &d->timer);
    if (d->state != SPK_DIALING) {
        st->ops->close(st);
    } else {
        spk_endpoint_count(d);
        d->state = SPK_CONNECTED;
        if ((rc = start_pipe(d, st)) != 0) {
            spk_dialer_attempt_over(d, rc);
            wait_and_dial(d);
        }
    }
    spk_endpoint_unref(d);
}

/* A pipe that ends at once, or was refused, counts as a failure: then the back-off goes on growing.
 */
static void
dialer_pipe_gone(struct spk_endpoint *d, int reason, bool was_attached)
{
    d->pipe = NULL;
    if (d->state != SPK_CONNECTED)
        return;
    if (!was_attached)
        spk_dialer_attempt_over(d, reason);
    else if (spk_engine_now(d->e) - d->attached_ns >= shortest_wait(d))
        d->backoff_ns = 0;
    wait_and_dial(d);
}

int
spk_dialer_start(struct spk_endpoint *d)
{
    if (d->state != SPK_CREATED)
        return SPOKE_ESTATE;
    d->socket->started = true;
    dial(d);
    return 0;
}

/* ---- listener ---- */

void
spk_listener_started(struct spk_endpoint *l)
{
    l->socket->started = true;
    l->state = SPK_LISTENING;
    l->refs++; /* until spk_listener_closed() */
}

int
spk_listener_start(struct spk_endpoint *l)
{
    int rc;

    if (l->state != SPK_CREATED)
        return SPOKE_ESTATE;
    if ((rc = l->transport->listen(l)) != 0)
        return rc;
    spk_listener_started(l);
    return 0;
}

void
spk_listener_accepted(struct spk_endpoint *l, struct spk_stream *st)
{
    int rc;

    spk_endpoint_count(l);
    if (!spk_listener_is_open(l)) {
        st->ops->close(st);
        return;
    }
    if ((rc = start_pipe(l, st)) != 0)
        spk_listener_failed(l, rc);
}

/* A listener got no pipe this time. */
static void
no_pipe(struct spk_endpoint *l, int reason)
{
    l->last_error = reason;
    spk_event(l->socket, SPOKE_EVENT_ACCEPT_FAILED, reason, NULL, l);
}

void
spk_listener_failed(struct spk_endpoint *l, int reason)
{
    l->socket->stats.accepts_failed++;
    l->counts.failed++;
    spk_log(SPOKE_LOG_WARNING, "%s: could not accept a connection: %s", l->url.text,
            spoke_strerror(reason));
    no_pipe(l, reason);
}

void
spk_listener_closed(struct spk_endpoint *l)
{
    l->stopped = true;
    spk_engine_wake_all(l->e, &l->waiters);
    spk_endpoint_unref(l);
}

bool
spk_listener_is_open(const struct spk_endpoint *l)
{
    return l->state == SPK_LISTENING && l->socket->state_now != SPK_SOCKET_CLOSING;
}

/* ---- of either, for transports and pipes ---- */

void
spk_endpoint_pipe_gone(struct spk_endpoint *ep, int reason, bool was_attached)
{
    if (ep->is_dialer)
        dialer_pipe_gone(ep, reason, was_attached);
    else if (!was_attached && reason != SPOKE_ECLOSED)
        no_pipe(ep, reason);
}

void
spk_endpoint_explain(struct spk_endpoint *ep, int reason, const char *text)
{
    spk_free(ep->explanation);
    if ((ep->explanation = spk_zalloc(strlen(text) + 1)) != NULL)
        strcpy(ep->explanation, text);
    ep->explained = reason;
}

void
spk_endpoint_count(struct spk_endpoint *ep)
{
    ep->counts.connects++;
    ep->socket->stats.accepts += !ep->is_dialer;
}

void
spk_endpoint_count_refused(struct spk_endpoint *ep)
{
    ep->counts.refused++;
    ep->socket->stats.refused++;
}

void
spk_endpoint_count_bad_handshake(struct spk_endpoint *ep)
{
    ep->counts.handshakes_failed++;
    ep->socket->stats.handshakes_failed++;
}

uint16_t
spk_endpoint_protocol(const struct spk_endpoint *ep)
{
    return ep->socket->protocol->number;
}

uint16_t
spk_endpoint_peer(const struct spk_endpoint *ep)
{
    return ep->socket->protocol->peer;
}

const char *
spk_endpoint_protocol_name(const struct spk_endpoint *ep)
{
    return ep->socket->protocol->name;
}

const char *
spk_endpoint_peer_name(const struct spk_endpoint *ep)
{
    const struct spoke_protocol *peer = spk_find_protocol(ep->socket->protocol->peer);

    return peer != NULL ? peer->name : NULL;
}

unsigned
spk_endpoint_recv_queue(const struct spk_endpoint *ep)
{
    return ep->socket->recv_queue.max_messages;
}

size_t
spk_endpoint_recv_queue_bytes(const struct spk_endpoint *ep)
{
    return ep->socket->recv_queue.max_bytes;
}

/* ---- public calls ---- */

static int
enter_socket(spoke_socket *handle, struct spk_socket **s, struct spk_engine **e)
{
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, e);

    if (rc == 0)
        *s = object;
    return rc;
}

static int
enter_endpoint(void *handle, bool is_dialer, struct spk_endpoint **ep, struct spk_engine **e)
{
    void *object;
    int rc = spk_handle_enter(handle, is_dialer ? SPK_HANDLE_DIALER : SPK_HANDLE_LISTENER, &object,
                              e);

    if (rc == 0)
        *ep = object;
    return rc;
}

/* Wait for the outcome of the first attempt; `keep`: the dialer goes on, whatever it is. */
static int
wait_first(struct spk_engine *e, struct spk_endpoint *d, spoke_ns deadline, bool keep)
{
    int rc = 0;

    d->refs++;
    d->socket->callers++;
    while (rc == 0 && !d->first_done && d->state != SPK_CLOSING &&
           d->socket->state_now == SPK_SOCKET_OPEN)
        rc = spk_engine_wait(e, &d->waiters, deadline, d->socket->busy_poll_ns);
    if (d->first_done)
        rc = d->first_error;
    else if (rc == 0)
        rc = SPOKE_ECLOSED;
    d->socket->callers--;
    if (d->socket->state_now == SPK_SOCKET_CLOSING)
        spk_task_queue(e, &d->socket->free_task);
    if (rc != 0 && !keep)
        spk_endpoint_close(d);
    spk_endpoint_unref(d);
    return rc;
}

/* Let the engine go on until somebody wakes those who wait for `l`, or until `deadline`: then
 * SPOKE_ETIMEDOUT.  Any other error: it is not to be started any more. */
static int
pause_listening(struct spk_engine *e, struct spk_endpoint *l, spoke_ns deadline)
{
    int rc = spk_engine_wait(e, &l->waiters, deadline, SPOKE_WAIT_BLOCK);

    if (rc == SPOKE_EDEADLK)
        return rc;
    return l->state == SPK_CLOSING || l->socket->state_now != SPK_SOCKET_OPEN ? SPOKE_ECLOSED : rc;
}

/* Start it, once its name is known. */
static int
listen_by_name(struct spk_engine *e, struct spk_endpoint *l)
{
    spoke_ns deadline = spk_later(spk_engine_now(e), l->options.handshake_ns);
    int rc, waited;

    while ((rc = spk_listener_start(l)) == SPOKE_EAGAIN) {
        if ((waited = pause_listening(e, l, deadline)) != 0) {
            l->transport->listen_cancel(l);
            return waited;
        }
    }
    return rc;
}

/* The ring of a process that was killed lets go of its sockets a little after the process is gone.
 * So who finds an address taken looks again for a quarter of a second, if it may wait. */
int
spk_listen_patiently(struct spk_engine *e, struct spk_endpoint *l)
{
    bool patient = !l->transport->message_face && !e->backend->is_virtual;
    int rc, waited;

    l->refs++;
    l->socket->callers++;
    rc = listen_by_name(e, l);
    for (spoke_ns pause = 2 * SPOKE_MS;
         patient && rc == SPOKE_EADDRINUSE && pause <= 128 * SPOKE_MS; pause *= 2) {
        waited = pause_listening(e, l, spk_engine_now(e) + pause);
        if (waited == SPOKE_EDEADLK)
            break;
        rc = waited == SPOKE_ECLOSED ? waited : listen_by_name(e, l);
    }
    l->socket->callers--;
    if (l->socket->state_now == SPK_SOCKET_CLOSING)
        spk_task_queue(e, &l->socket->free_task);
    spk_endpoint_unref(l);
    return rc;
}

static int
start(struct spk_engine *e, struct spk_endpoint *ep, int flags)
{
    int rc;

    if (!ep->is_dialer)
        return spk_listen_patiently(e, ep);
    if ((rc = spk_dialer_start(ep)) == 0 &&
        ((flags & SPOKE_WAIT_FIRST) != 0 || !ep->options.dial_async))
        rc = wait_first(e, ep, SPOKE_FOREVER, false);
    return rc;
}

static int
create(spoke_socket *handle, const char *url, bool is_dialer, void **out, bool now, int flags)
{
    struct spk_engine *e;
    struct spk_socket *s;
    struct spk_endpoint *ep;
    void *made;
    int rc;

    *out = NULL;
    if (url == NULL)
        return SPOKE_EINVAL;
    if ((flags & ~(is_dialer ? SPOKE_WAIT_FIRST : 0)) != 0)
        return SPOKE_EINVAL;
    if ((rc = enter_socket(handle, &s, &e)) != 0)
        return rc;
    if ((rc = spk_endpoint_new(&ep, s, url, is_dialer)) != 0)
        goto leave;
    made = ep->handle;
    if (now)
        rc = start(e, ep, flags);
    if (rc == 0)
        *out = made;
    else if (!is_dialer && rc != SPOKE_ECLOSED) /* a dialer that failed has closed itself */
        spk_endpoint_close(ep);
leave:
    spk_engine_leave(e);
    return rc;
}

int
spoke_dial(spoke_socket *s, const char *url, spoke_dialer **out, int flags)
{
    void *made;
    int rc = create(s, url, true, &made, true, flags);

    if (out != NULL)
        *out = made;
    return rc;
}

int
spoke_listen(spoke_socket *s, const char *url, spoke_listener **out, int flags)
{
    void *made;
    int rc = create(s, url, false, &made, true, flags);

    if (out != NULL)
        *out = made;
    return rc;
}

int
spoke_dialer_create(spoke_dialer **out, spoke_socket *s, const char *url)
{
    void *made;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    rc = create(s, url, true, &made, false, 0);
    *out = made;
    return rc;
}

int
spoke_listener_create(spoke_listener **out, spoke_socket *s, const char *url)
{
    void *made;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    rc = create(s, url, false, &made, false, 0);
    *out = made;
    return rc;
}

int
spoke_dialer_start(spoke_dialer *d, int flags)
{
    struct spk_endpoint *ep;
    struct spk_engine *e;
    int rc;

    if ((flags & ~SPOKE_WAIT_FIRST) != 0)
        return SPOKE_EINVAL;
    if ((rc = enter_endpoint(d, true, &ep, &e)) != 0)
        return rc;
    rc = start(e, ep, flags);
    spk_engine_leave(e);
    return rc;
}

int
spoke_listener_start(spoke_listener *l, int flags)
{
    struct spk_endpoint *ep;
    struct spk_engine *e;
    int rc;

    if (flags != 0)
        return SPOKE_EINVAL;
    if ((rc = enter_endpoint(l, false, &ep, &e)) != 0)
        return rc;
    rc = start(e, ep, flags);
    spk_engine_leave(e);
    return rc;
}

int
spoke_dialer_wait(spoke_dialer *handle, spoke_ns timeout_ns)
{
    struct spk_endpoint *d;
    struct spk_engine *e;
    spoke_ns now;
    int rc;

    if (timeout_ns < 0)
        return SPOKE_EINVAL;
    if ((rc = enter_endpoint(handle, true, &d, &e)) != 0)
        return rc;
    now = spk_engine_now(e);
    if (d->state == SPK_CREATED)
        rc = SPOKE_ESTATE;
    else if (!d->first_done && timeout_ns == 0)
        rc = SPOKE_EAGAIN;
    else
        rc = wait_first(e, d, timeout_ns > SPOKE_FOREVER - now ? SPOKE_FOREVER : now + timeout_ns,
                        true);
    spk_engine_leave(e);
    return rc;
}

static int
close_endpoint(void *handle, bool is_dialer)
{
    struct spk_endpoint *ep;
    struct spk_engine *e;
    int rc = enter_endpoint(handle, is_dialer, &ep, &e);
    bool listening;

    if (rc != 0)
        return rc;
    ep->refs++;
    listening = ep->state == SPK_LISTENING;
    spk_endpoint_close(ep);
    /* Until the address is free again; a callback cannot wait for that. */
    while (listening && !ep->stopped && rc == 0)
        rc = spk_engine_wait(e, &ep->waiters, SPOKE_FOREVER, SPOKE_WAIT_BLOCK);
    spk_endpoint_unref(ep);
    spk_engine_leave(e);
    return 0;
}

int
spoke_dialer_close(spoke_dialer *d)
{
    return close_endpoint(d, true);
}

int
spoke_listener_close(spoke_listener *l)
{
    return close_endpoint(l, false);
}

/* ---- statistics ---- */

/* What went through its pipes, those that are still there included; returns how many are attached.
 */
static uint64_t
sum_pipes(const struct spk_endpoint *ep, uint64_t *sent, uint64_t *received)
{
    uint64_t attached = 0;

    *sent = ep->counts.sent;
    *received = ep->counts.received;
    SPK_LIST_EACH(link, &ep->socket->pipes)
    {
        const struct spk_pipe *p = SPK_OWNER(link, struct spk_pipe, link);

        if (p->endpoint != ep)
            continue;
        *sent += p->stats.messages_sent;
        *received += p->stats.messages_received;
        attached += p->state == SPK_PIPE_ATTACHED;
    }
    return attached;
}

/* How soon the next attempt begins, -1 if none is waited for. */
static spoke_ns
until_dial(const struct spk_endpoint *d, spoke_ns now)
{
    if (d->state != SPK_WAITING)
        return -1;
    return d->timer.when > now ? d->timer.when - now : 0;
}

static void
read_dialer(const struct spk_endpoint *d, spoke_ns now, struct spoke_dialer_stats *out)
{
    const struct spk_endpoint_counts *counts = &d->counts;
    spoke_ns least = shortest_wait(d);
    bool has_pipe = d->pipe != NULL && d->pipe->state == SPK_PIPE_ATTACHED;

    *out = (struct spoke_dialer_stats){
        .dials = counts->dials,
        .dials_failed = counts->failed,
        .connects = counts->connects,
        .handshakes_failed = counts->handshakes_failed,
        .refused = counts->refused,
        .pipes_attached = counts->attached,
        .pipe = has_pipe ? d->pipe->id : 0,
        .last_error = d->last_error,
        .since_dial_ns = counts->dials > 0 ? now - d->dialed_ns : -1,
        .until_dial_ns = until_dial(d, now),
        .backoff_ns = d->backoff_ns > least ? d->backoff_ns : least,
    };
    sum_pipes(d, &out->messages_sent, &out->messages_received);
}

static void
read_listener(const struct spk_endpoint *l, struct spoke_listener_stats *out)
{
    const struct spk_endpoint_counts *counts = &l->counts;

    *out = (struct spoke_listener_stats){
        .accepts = counts->connects,
        .accepts_failed = counts->failed,
        .handshakes_failed = counts->handshakes_failed,
        .refused = counts->refused,
        .pipes_attached = counts->attached,
        .last_error = l->last_error,
    };
    out->pipes_current = sum_pipes(l, &out->messages_sent, &out->messages_received);
}

int
spoke_dialer_stats(spoke_dialer *handle, struct spoke_dialer_stats *out)
{
    struct spk_endpoint *d;
    struct spk_engine *e;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = enter_endpoint(handle, true, &d, &e)) != 0)
        return rc;
    read_dialer(d, spk_engine_now(e), out);
    spk_engine_leave(e);
    return 0;
}

int
spoke_listener_stats(spoke_listener *handle, struct spoke_listener_stats *out)
{
    struct spk_endpoint *l;
    struct spk_engine *e;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = enter_endpoint(handle, false, &l, &e)) != 0)
        return rc;
    read_listener(l, out);
    spk_engine_leave(e);
    return 0;
}
