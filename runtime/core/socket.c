/* SPDX-License-Identifier: MIT */
/* Sockets: open, send, receive, close, and what the protocol is offered.  The patterns themselves
 * are in protocols/; here is only what all of them share: waiting, queues' bounds, wake-ups, the
 * end. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/core/core.h"
#include "runtime/core/shm.h"

#define LOOK_EVERY    64 /* messages sent into a queue between two looks for room */
#define READS_AWAITED 8  /* after a receive that waited, see struct spk_op */
#define AHEAD         4 /* in a batch, a message is fetched into the cache so many before its turn */

/* ---- readiness ---- */

static void
set_fd(int fd, bool *on, bool want)
{
    uint64_t value = 1;

    if (fd < 0 || *on == want)
        return;
    *on = want;
    /* Neither can fail on a non-blocking eventfd whose state we know. */
    if ((want ? write(fd, &value, sizeof value) : read(fd, &value, sizeof value)) < 0)
        *on = !want;
}

void
spk_socket_check_ready(struct spk_socket *s)
{
    unsigned ready;

    if (s->device != NULL)
        spk_device_look(s->device);
    spk_select_tell(&s->own.selects);
    if (s->on_message == NULL && s->on_writable == NULL && s->recv_fd < 0 && s->send_fd < 0)
        return;
    if (s->state_now != SPK_SOCKET_OPEN)
        return;
    ready = s->protocol->ready(s);
    if (s->device != NULL) /* what comes is not for whoever waits on the descriptor */
        ready &= ~(unsigned)SPK_READABLE;
    if (spk_front_is_stuck(s->front) || spk_returned_full(s))
        ready &= ~(unsigned)SPK_WRITABLE;
    set_fd(s->recv_fd, &s->recv_fd_on, (ready & SPK_READABLE) != 0);
    set_fd(s->send_fd, &s->send_fd_on, (ready & SPK_WRITABLE) != 0);
    if (s->on_message != NULL && (ready & SPK_READABLE) != 0)
        spk_task_queue_callback(s->e, &s->message_task);
    if (s->on_writable != NULL && s->writable_wanted && (ready & SPK_WRITABLE) != 0)
        spk_task_queue_callback(s->e, &s->writable_task);
}

void
spk_socket_wake(struct spk_socket *s, unsigned what)
{
    if ((what & SPK_READABLE) != 0 && !spk_list_empty(&s->own.recv_waiters)) {
        if ((what & SPK_ALL) != 0)
            spk_engine_wake_all(s->e, &s->own.recv_waiters);
        else
            spk_engine_wake_one(s->e, &s->own.recv_waiters);
    }
    if ((what & SPK_WRITABLE) != 0)
        spk_front_try_again(s->front);
    if ((what & SPK_WRITABLE) != 0 && !spk_list_empty(&s->send_waiters)) {
        if ((what & SPK_ALL) != 0)
            spk_engine_wake_all(s->e, &s->send_waiters);
        else
            spk_engine_wake_one(s->e, &s->send_waiters);
    }
    spk_socket_check_ready(s);
    if (s->state_now == SPK_SOCKET_LINGERING)
        spk_socket_advance_close(s);
}

/* ---- open ---- */

static void on_linger_time(struct spk_timer *timer);
static void on_free(struct spk_task *task);

static void
init_options(struct spk_socket *s)
{
    s->linger_ns = SPOKE_SECOND;
    s->busy_poll_ns = s->e->busy_poll_ns;
    s->send_queue = s->recv_queue_most = 128;
    s->send_queue_bytes = s->recv_queue_bytes = (size_t)8 << 20;
    s->shm_segment = (size_t)256 << 20;
    s->shm_wish.node = SPK_ANY_NODE;
    spk_endpoint_options_init(&s->defaults);
}

/* An engine that closes takes its sockets with it, without linger. */
static void
close_all(struct spk_engine *e)
{
    while (!spk_list_empty(&e->sockets)) {
        struct spk_socket *s = SPK_OWNER(e->sockets.next, struct spk_socket, link);

        s->linger_ns = 0;
        spk_socket_start_close(s);
        spk_engine_turn(e, spk_engine_now(e) + SPOKE_MS);
    }
    spk_partings_close(e);
}

int
spk_socket_new(struct spk_socket **out, const struct spoke_protocol *protocol, struct spk_engine *e)
{
    struct spk_socket *s;
    void *handle;
    int rc;

    if ((s = spk_zalloc(sizeof *s)) == NULL)
        return SPOKE_ENOMEM;
    s->e = e;
    s->protocol = protocol;
    s->recv_fd = s->send_fd = -1;
    spk_list_init(&s->endpoints);
    spk_list_init(&s->pipes);
    for (int i = 0; i < SPK_PRIORITIES; i++)
        spk_list_init(&s->ready[i]);
    spk_list_init(&s->stalled);
    spk_list_init(&s->contexts);
    spk_list_init(&s->send_waiters);
    spk_list_init(&s->link);
    spk_timer_init(&s->linger_timer, on_linger_time);
    spk_task_init(&s->free_task, on_free);
    spk_events_init(s);
    init_options(s);
    spk_queue_init(&s->recv_queue, (uint32_t)s->recv_queue_most, s->recv_queue_bytes);
    rc = SPOKE_ENOMEM;
    if (protocol->socket_size > 0 && (s->state = spk_zalloc(protocol->socket_size)) == NULL)
        goto free_socket;
    if ((rc = spk_handle_new(SPK_HANDLE_SOCKET, s, e, &handle)) != 0)
        goto free_state;
    s->handle = handle;
    snprintf(s->name, sizeof s->name, "%s-%u", protocol->name,
             (unsigned)((uintptr_t)handle & 0xffff));
    if (protocol->open != NULL && (rc = protocol->open(s)) != 0)
        goto free_handle;
    if ((rc = spk_context_init(&s->own, s)) != 0)
        goto close_protocol;
    if ((rc = spk_front_open(s)) != 0)
        goto end_context;
    e->on_close = close_all;
    spk_list_append(&e->sockets, &s->link);
    *out = s;
    return 0;
end_context:
    spk_context_fini(&s->own);
close_protocol:
    if (protocol->close != NULL)
        protocol->close(s);
free_handle:
    spk_handle_free(handle);
free_state:
    spk_free(s->state);
free_socket:
    spk_queue_fini(&s->recv_queue);
    spk_free(s);
    return rc;
}

int
spoke_socket_open(spoke_socket **out, int pattern, spoke_engine *engine)
{
    const struct spoke_protocol *protocol = spk_find_protocol(pattern);
    struct spk_engine *e;
    struct spk_socket *s = NULL;
    void *object;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if (protocol == NULL)
        return SPOKE_ENOTSUP;
    if (engine != NULL) {
        rc = spk_handle_enter(engine, SPK_HANDLE_ENGINE, &object, &e);
    } else if ((rc = spk_engine_default(&e)) == 0) {
        rc = spk_engine_enter(e);
    }
    if (rc != 0)
        return rc;
    if ((rc = spk_socket_new(&s, protocol, e)) == 0)
        *out = s->handle;
    spk_engine_leave(e);
    return rc;
}

/* ---- close ---- */

static uint64_t
undelivered(struct spk_socket *s, uint64_t *bytes)
{
    uint64_t messages = 0, some;

    *bytes = 0;
    if (s->protocol->pending != NULL)
        messages = s->protocol->pending(s, bytes);
    if (s->front != NULL) {
        messages += spk_front_pending(s->front, &some);
        *bytes += some;
    }
    SPK_LIST_EACH(link, &s->pipes)
    {
        struct spk_pipe *p = SPK_OWNER(link, struct spk_pipe, link);

        if (p->state >= SPK_PIPE_CLOSING) /* what it had is lost */
            continue;
        some = 0;
        messages += p->ops->pending(p, &some);
        *bytes += some;
    }
    return messages;
}

void
spk_socket_lost(struct spk_socket *s, struct spk_pipe *p)
{
    uint64_t bytes = 0;

    s->report.messages += p->ops->pending(p, &bytes);
    s->report.bytes += bytes;
}

/* Who waits in close().  On its stack; the socket points to it as long as both live. */
struct spk_close_wait {
    struct spk_link waiters;
    struct spoke_close_report report;
    int result;
    bool done;
};

/* What the protocol still has may go back to the user. */
static void
end_protocol(struct spk_socket *s)
{
    struct spk_link *link;

    s->ended = true;
    while ((link = spk_list_take(&s->contexts)) != NULL) {
        struct spk_context *c = SPK_OWNER(link, struct spk_context, link);

        spk_context_fini(c);
        spk_free(c);
    }
    spk_context_fini(&s->own);
    spk_front_close(s->front); /* it sends no more */
    s->front = NULL;
    if (s->protocol->close != NULL)
        s->protocol->close(s);
}

static void
finish_close(struct spk_socket *s)
{
    struct spk_close_wait *wait = s->close_wait;

    spk_events_fini(s);
    spk_queue_fini(&s->recv_queue);
    spk_idmap_fini(&s->by_id);
    if (s->recv_fd >= 0)
        close(s->recv_fd);
    if (s->send_fd >= 0)
        close(s->send_fd);
    if (wait != NULL) {
        wait->report = s->report;
        wait->result = s->close_result;
        wait->done = true;
        spk_engine_wake_all(s->e, &wait->waiters);
    }
    spk_list_remove(&s->link);
    spk_shm_home_close(s->shm);
    spk_endpoint_options_fini(&s->defaults);
    spk_free(s->state);
    spk_free(s);
}

static void
on_free(struct spk_task *task)
{
    struct spk_socket *s = SPK_OWNER(task, struct spk_socket, free_task);

    if (s->callers > 0 || s->pipe_count > 0 || !spk_list_empty(&s->endpoints) ||
        !spk_list_empty(&s->events))
        return;
    if (!s->ended)
        end_protocol(s);
    if (s->returned == NULL)
        finish_close(s);
}

static void
end_everything(struct spk_socket *s)
{
    uint64_t bytes;

    s->state_now = SPK_SOCKET_CLOSING;
    spk_timer_cancel(s->e, &s->linger_timer);
    if (s->protocol->closing != NULL)
        s->protocol->closing(s);
    s->report.messages += undelivered(s, &bytes);
    s->report.bytes += bytes;
    s->close_result = s->report.messages > 0 ? SPOKE_ETIMEDOUT : 0;
    for (struct spk_link *link = s->endpoints.next, *next; link != &s->endpoints; link = next) {
        next = link->next;
        spk_endpoint_close(SPK_OWNER(link, struct spk_endpoint, link));
    }
    SPK_LIST_EACH(link, &s->pipes)
    spk_pipe_shut(SPK_OWNER(link, struct spk_pipe, link), SPOKE_ECLOSED);
    spk_task_queue(s->e, &s->free_task);
}

void
spk_socket_advance_close(struct spk_socket *s)
{
    uint64_t bytes;

    if (s->state_now == SPK_SOCKET_LINGERING && undelivered(s, &bytes) == 0)
        end_everything(s);
    else if (s->state_now == SPK_SOCKET_CLOSING)
        spk_task_queue(s->e, &s->free_task);
}

static void
on_linger_time(struct spk_timer *timer)
{
    end_everything(SPK_OWNER(timer, struct spk_socket, linger_timer));
}

void
spk_socket_start_close(struct spk_socket *s)
{
    uint64_t bytes;

    if (s->state_now != SPK_SOCKET_OPEN) {
        if (s->state_now == SPK_SOCKET_LINGERING && s->linger_ns == 0)
            end_everything(s);
        return;
    }
    if (s->device != NULL)
        spk_device_end(s->device);
    spk_handle_free(s->handle);
    if (s->front != NULL) {
        spk_front_shut_inbox(s->front);
        spk_front_shut_outbox(s->front);
        spk_front_empty_outbox(s->front);
    }
    s->state_now = SPK_SOCKET_LINGERING;
    SPK_LIST_EACH(link, &s->contexts)
    {
        struct spk_context *c = SPK_OWNER(link, struct spk_context, link);

        spk_handle_free(c->handle);
        spk_select_wake(&c->selects);
    }
    spk_select_wake(&s->own.selects);
    spk_context_wake_all(s);
    spk_engine_wake_all(s->e, &s->send_waiters);
    SPK_LIST_EACH(link, &s->endpoints)
    {
        struct spk_endpoint *ep = SPK_OWNER(link, struct spk_endpoint, link);

        spk_engine_wake_all(s->e, &ep->waiters);
    }
    SPK_LIST_EACH(link, &s->pipes)
    {
        struct spk_pipe *p = SPK_OWNER(link, struct spk_pipe, link);

        if (p->ops->flush != NULL)
            p->ops->flush(p);
    }
    if (s->linger_ns == 0 || undelivered(s, &bytes) == 0 ||
        spk_timer_set(s->e, &s->linger_timer, spk_later(spk_engine_now(s->e), s->linger_ns)) != 0)
        end_everything(s);
}

int
spoke_socket_close_report(spoke_socket *handle, struct spoke_close_report *report)
{
    struct spk_close_wait wait = {.done = false};
    struct spk_engine *e;
    struct spk_socket *s;
    void *object;
    int rc;

    if (report != NULL)
        memset(report, 0, sizeof *report);
    if ((rc = spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, &e)) != 0)
        return rc;
    s = object;
    spk_list_init(&wait.waiters);
    s->close_wait = &wait;
    spk_socket_start_close(s);
    while (!wait.done) {
        /* The socket's own limit is the linger time; this wait has none. */
        rc = spk_engine_wait(e, &wait.waiters, SPOKE_FOREVER, SPOKE_WAIT_BLOCK);
        if (rc == SPOKE_EDEADLK && !wait.done) { /* in a callback: the loop goes on with it */
            s->close_wait = NULL;
            spk_engine_leave(e);
            return 0;
        }
    }
    spk_engine_leave(e);
    if (report != NULL)
        *report = wait.report;
    return wait.result;
}

int
spoke_socket_close(spoke_socket *handle)
{
    return spoke_socket_close_report(handle, NULL);
}

/* ---- send and receive ---- */

/* A call that may wait holds the socket in memory until it is over. */
static int
enter(spoke_socket *handle, struct spk_socket **s)
{
    struct spk_engine *e;
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, &e);

    if (rc == 0)
        *s = object;
    return rc;
}

/* Others are about to be at work: the socket and the conversation stay in memory. */
static void
hold(struct spk_context *c)
{
    c->socket->callers++;
    c->callers++;
}

/* They have been. */
static bool
still_open(struct spk_context *c)
{
    struct spk_socket *s = c->socket;
    bool open = s->state_now == SPK_SOCKET_OPEN && !c->closed;

    s->callers--;
    c->callers--;
    if (c->closed && c->callers == 0)
        spk_free(c);
    if (s->state_now == SPK_SOCKET_CLOSING)
        spk_task_queue(s->e, &s->free_task);
    return open;
}

/* One try. */
static int
try_send(struct spk_context *c, spoke_msg *m)
{
    const struct spoke_protocol *protocol = c->socket->protocol;

    if (!spk_front_lets_pass(c->socket->front) || spk_returned_full(c->socket))
        return SPOKE_EAGAIN;
    return c == &c->socket->own ? protocol->send(c->socket, m) : protocol->context_send(c, m);
}

static int
try_recv(struct spk_context *c, spoke_msg **m)
{
    const struct spoke_protocol *protocol = c->socket->protocol;

    if (c != &c->socket->own)
        return protocol->context_recv(c, m);
    return protocol->recv == NULL ? spk_socket_take(c->socket, m) : protocol->recv(c->socket, m);
}

/* SPOKE_OPT_FAIL_NO_PEERS */
static bool
has_nobody(const struct spk_socket *s)
{
    return s->fail_no_peers && s->stats.pipes_current == 0;
}

static int
wait_for(struct spk_context *c, struct spk_link *list, spoke_ns *deadline, spoke_ns timeout_ns,
         int flags)
{
    struct spk_socket *s = c->socket;
    int rc;

    if ((flags & SPOKE_DONTWAIT) != 0)
        return SPOKE_EAGAIN;
    if (timeout_ns == 0)
        return SPOKE_ETIMEDOUT;
    if (*deadline == 0)
        *deadline = timeout_ns == SPOKE_FOREVER ? SPOKE_FOREVER
                                                : spk_later(spk_engine_now(s->e), timeout_ns);
    hold(c);
    rc = (s->interruptible ? spk_engine_wait_interruptibly : spk_engine_wait)(s->e, list, *deadline,
                                                                              s->busy_poll_ns);
    return still_open(c) ? rc : SPOKE_ECLOSED;
}

static int
send_as_it_is(struct spk_context *c, spoke_msg *m, int flags, spoke_ns *deadline)
{
    struct spk_socket *s = c->socket;
    size_t size = m->size;
    int rc;

    while ((rc = try_send(c, m)) == SPOKE_EAGAIN) {
        s->writable_wanted = true;
        if (s->front != NULL) /* nobody else's will go through either */
            spk_front_shut_outbox(s->front);
        if (has_nobody(s)) /* any more */
            return SPOKE_ENOPEER;
        if (s->best_effort) {
            m->returns = m->returns && !spk_returned_full(s);
            spk_drop(s, NULL, m, SPK_DROP_BEST_EFFORT);
            rc = 0;
            break;
        }
        if ((rc = wait_for(c, &s->send_waiters, deadline, c->send_timeout_ns, flags)) != 0)
            return rc;
    }
    if (rc == 0) {
        s->stats.messages_sent++;
        s->stats.bytes_sent += size;
    }
    return rc;
}

/* With an expiry, or without the one that it has had, and the same for the mark of those that come
 * back; a message that others hold too stays as it is, and another goes out with the same bytes. */
static int
send_one(struct spk_context *c, spoke_msg *m, int flags, spoke_ns *deadline)
{
    struct spk_socket *s = c->socket;
    bool returns = s->on_undelivered != NULL && !s->raw;
    spoke_msg *own = m;
    int rc;

    if (m->carries) /* what is attached has no way over pipes */
        return SPOKE_ENOTSUP;
    if (has_nobody(s))
        return SPOKE_ENOPEER;
    if (s->send_expiry_ns == 0 && !m->expires && !m->returns && !returns)
        return send_as_it_is(c, m, flags, deadline);
    if (atomic_load_explicit(&m->refs, memory_order_acquire) > 1 &&
        (rc = spk_msg_clone(&own, m)) != 0)
        return rc;
    own->returns = returns;
    own->expires = s->send_expiry_ns > 0;
    own->expires_ns = spk_later(spk_engine_now(s->e), s->send_expiry_ns);
    rc = send_as_it_is(c, own, flags, deadline);
    if (own != m)
        spoke_msg_free(rc == 0 ? m : own);
    return rc;
}

/* What a pipe has no room for waits in the send queue.  On an owned engine nothing would tell of
 * room before the queue is full and a send waits: it looks now and then. */
static int
look_for_room(struct spk_context *c, int flags, int count)
{
    struct spk_socket *s = c->socket;
    struct spk_engine *e = s->e;

    if (e->shared || e->in_callback > 0 || e->turning > 0 || s->full_pipes == 0)
        return 0;
    s->unlooked += (uint32_t)count;
    if (s->unlooked < LOOK_EVERY || (flags & SPOKE_DONTWAIT) != 0 || c->send_timeout_ns == 0)
        return 0;
    s->unlooked = 0;
    hold(c);
    spk_engine_turn(e, 0);
    return still_open(c) ? 0 : SPOKE_ECLOSED;
}

/* The first of many, as far as they need no care of their own. */
static int
send_plain(struct spk_socket *s, spoke_msg **messages, int count, uint64_t *bytes)
{
    struct spk_pipe *p = NULL;
    uint64_t sent = 0;
    int n;

    if (s->protocol->send_to != NULL && s->send_expiry_ns == 0 && s->on_undelivered == NULL)
        p = s->protocol->send_to(s);
    n = p == NULL || count == 0 ? 0 : spk_pipe_send_many(p, messages, count, &sent);
    s->stats.messages_sent += (uint64_t)n;
    s->stats.bytes_sent += sent;
    *bytes += sent;
    return n;
}

int
spk_socket_send_some(struct spk_socket *s, spoke_msg **messages, int count, uint64_t *bytes)
{
    int n = send_plain(s, messages, count, bytes), rc;
    size_t size;

    if (n > 0)
        return n;
    size = messages[0]->size;
    if ((rc = s->protocol->send(s, messages[0])) == SPOKE_EAGAIN)
        return 0;
    *bytes += size;
    if (rc != 0) {
        spk_drop(s, NULL, messages[0], SPK_DROP_LOST);
        return 1;
    }
    s->stats.messages_sent++;
    s->stats.bytes_sent += size;
    return 1;
}

/* Those at the beginning to which nothing is attached. */
static int
plain_ones(spoke_msg *const *messages, int count)
{
    int n = 0;

    while (n < count && !messages[n]->carries)
        n++;
    return n;
}

int
spoke_sendv(spoke_socket *handle, spoke_msg **messages, int count, int flags)
{
    struct spk_socket *s;
    struct spk_engine *e;
    spoke_ns deadline = 0;
    uint64_t bytes = 0;
    int rc, done = 0;

    if (messages == NULL || count < 0 || (flags & ~(SPOKE_DONTWAIT | SPOKE_MORE)) != 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &s)) != 0)
        return rc;
    e = s->e;
    if (!s->protocol->sends) {
        rc = SPOKE_ENOTSUP;
        goto leave;
    }
    if ((rc = look_for_room(&s->own, flags, count)) != 0)
        goto leave;
    e->cork++;
    while (done < count) {
        if (spk_front_lets_pass(s->front))
            done += send_plain(s, messages + done, plain_ones(messages + done, count - done),
                               &bytes);
        if (done == count)
            break;
        if (count - done > AHEAD)
            spk_msg_prefetch(messages[done + AHEAD]);
        if ((rc = send_one(&s->own, messages[done], flags, &deadline)) != 0)
            break;
        done++;
    }
    e->cork--;
    if (rc != SPOKE_ECLOSED)
        spk_socket_check_ready(s);
    if (e->cork == 0 && (flags & SPOKE_MORE) == 0)
        spk_engine_flush(e);
leave:
    spk_engine_leave(e);
    return done > 0 ? done : rc;
}

int
spk_socket_send(struct spk_context *c, spoke_msg *m, int flags)
{
    struct spk_socket *s = c->socket;
    struct spk_engine *e = s->e;
    spoke_ns deadline = 0;
    int rc;

    if (!s->protocol->sends)
        return SPOKE_ENOTSUP;
    if ((rc = look_for_room(c, flags, 1)) != 0)
        return rc;
    e->cork += (flags & SPOKE_MORE) != 0;
    rc = send_one(c, m, flags, &deadline);
    e->cork -= (flags & SPOKE_MORE) != 0;
    if (rc != SPOKE_ECLOSED)
        spk_socket_check_ready(s);
    if (!e->shared && (flags & SPOKE_MORE) == 0)
        spk_engine_flush(e); /* also what earlier ones with SPOKE_MORE left */
    return rc;
}

int
spoke_send(spoke_socket *handle, spoke_msg *m, int flags)
{
    struct spk_socket *s;
    struct spk_engine *e;
    void *object;
    int rc;

    if (m == NULL || (flags & ~(SPOKE_DONTWAIT | SPOKE_MORE)) != 0)
        return SPOKE_EINVAL;
    if ((rc = spk_handle_try_enter(handle, SPK_HANDLE_SOCKET, &object, &e)) == SPOKE_EAGAIN) {
        if (spk_front_send(handle, m))
            return 0;
        rc = spk_handle_enter(handle, SPK_HANDLE_SOCKET, &object, &e);
    }
    if (rc != 0)
        return rc;
    s = object;
    rc = spk_socket_send(&s->own, m, flags);
    if (rc == 0 && s->front != NULL)
        spk_front_open_outbox(s->front);
    spk_engine_leave(e);
    return rc;
}

/* Without waiting: how many, or why none. */
int
spk_socket_recv_some(struct spk_context *c, spoke_msg **messages, int count)
{
    struct spk_socket *s = c->socket;
    int rc = 0, done = 0, counted = 0;

    *messages = NULL;
    if (s->front != NULL && c == &s->own)
        done = counted = (int)spk_front_take(s->front, messages, (uint32_t)count);
    if (s->protocol->recv == NULL)
        done += spk_socket_take_many(s, messages + done, count - done);
    while (done < count && (rc = try_recv(c, messages + done)) == 0)
        done++;
    for (int i = counted; i < done; i++)
        s->stats.bytes_received += messages[i]->size;
    s->stats.messages_received += (uint64_t)(done - counted);
    return done > 0 ? done : rc;
}

bool
spk_socket_look(struct spk_socket *s)
{
    s->awaited = 0;
    return spk_engine_look(s->e);
}

/* Waits for the first. */
static int
recv_many(struct spk_context *c, spoke_msg **messages, int count, int flags)
{
    struct spk_link *waiters = spk_context_recv_waiters(c);
    struct spk_socket *s = c->socket;
    uint64_t epoch = c->recv_epoch;
    spoke_ns deadline = 0;
    bool waits = (flags & SPOKE_DONTWAIT) == 0 && c->recv_timeout_ns != 0, looked = false;
    int rc;

    while ((rc = spk_socket_recv_some(c, messages, count)) == SPOKE_EAGAIN) {
        if (has_nobody(s))
            return SPOKE_ENOPEER;
        if (!waits && !looked) {
            looked = true;
            if (spk_socket_look(s))
                continue;
        }
        if (waits && !s->protocol->passes_on)
            s->awaited = READS_AWAITED;
        if ((rc = wait_for(c, waiters, &deadline, c->recv_timeout_ns, flags)) != 0)
            return rc;
        if (c->recv_epoch != epoch)
            return c->recv_error;
    }
    return rc;
}

/* While others still have messages, a receive does not wait and so would not turn the loop: that
 * pipe would have to wait until they have none. */
static int
look_for_more(struct spk_context *c, int flags)
{
    struct spk_socket *s = c->socket;
    struct spk_engine *e = s->e;

    if (!s->look || (flags & SPOKE_DONTWAIT) != 0 || e->shared || e->in_callback > 0 ||
        e->turning > 0)
        return 0;
    s->look = false;
    hold(c);
    spk_engine_turn(e, 0);
    return still_open(c) ? 0 : SPOKE_ECLOSED;
}

/* Up to `count` messages; how many, or an error. */
static int
recv_in(struct spk_context *c, spoke_msg **messages, int count, int flags)
{
    struct spk_socket *s = c->socket;
    int rc;

    if ((rc = look_for_more(c, flags)) == 0)
        rc = recv_many(c, messages, count, flags);
    if (rc != SPOKE_ECLOSED)
        spk_socket_check_ready(s);
    if (rc > 0 && spk_socket_has_message(s)) /* whoever else waits was woken for what we took */
        spk_socket_wake(s, SPK_READABLE);
    return rc;
}

int
spk_socket_recv(struct spk_context *c, spoke_msg **m, int flags)
{
    int rc = recv_in(c, m, 1, flags);

    return rc == 1 ? 0 : rc;
}

int
spoke_recvv(spoke_socket *handle, spoke_msg **messages, int count, int flags)
{
    struct spk_socket *s;
    struct spk_engine *e;
    int rc;

    if (messages == NULL || count <= 0 || (flags & ~SPOKE_DONTWAIT) != 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &s)) != 0)
        return rc;
    e = s->e;
    if (!s->protocol->receives)
        rc = SPOKE_ENOTSUP;
    else if (s->on_message != NULL || s->device != NULL)
        rc = SPOKE_ESTATE;
    else
        rc = recv_in(&s->own, messages, count, flags);
    if (rc > 0 && count == 1 && s->front != NULL)
        spk_front_fill(s->front);
    spk_engine_leave(e);
    return rc;
}

int
spk_socket_try_send(struct spk_socket *s, spoke_msg *m)
{
    spoke_ns deadline = 0;

    return send_one(&s->own, m, SPOKE_DONTWAIT, &deadline);
}

int
spoke_recv(spoke_socket *handle, spoke_msg **out, int flags)
{
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    if ((flags & ~SPOKE_DONTWAIT) == 0 && spk_front_recv(handle, out))
        return 0;
    rc = spoke_recvv(handle, out, 1, flags);
    if (rc != 1)
        *out = NULL;
    return rc == 1 ? 0 : rc;
}

int
spoke_send_bytes(spoke_socket *handle, const void *data, size_t size, int flags)
{
    return spk_send_bytes(handle, SPK_HANDLE_SOCKET, data, size, flags);
}

int
spoke_recv_bytes(spoke_socket *handle, void *buffer, size_t *size, int flags)
{
    return spk_recv_bytes(handle, SPK_HANDLE_SOCKET, buffer, size, flags);
}

/* ---- select ---- */

static bool
can_recv(void *object, spoke_ns *until)
{
    struct spk_socket *s = object;

    (void)until;
    return !s->protocol->receives || s->on_message != NULL || s->device != NULL || has_nobody(s) ||
           (spk_context_ready(&s->own) & SPK_READABLE) != 0;
}

static bool
can_send(void *object, spoke_ns *until)
{
    struct spk_socket *s = object;

    (void)until;
    if (!s->protocol->sends || s->best_effort || has_nobody(s))
        return true;
    return !spk_front_is_stuck(s->front) && !spk_returned_full(s) &&
           (spk_context_ready(&s->own) & SPK_WRITABLE) != 0;
}

static bool
context_can_recv(void *object, spoke_ns *until)
{
    struct spk_context *c = object;

    (void)until;
    return c->socket->raw || has_nobody(c->socket) || (spk_context_ready(c) & SPK_READABLE) != 0;
}

static bool
context_can_send(void *object, spoke_ns *until)
{
    struct spk_context *c = object;

    return c->socket->raw || can_send(c->socket, until);
}

static struct spk_link *
selects_of(void *object)
{
    return &((struct spk_socket *)object)->own.selects;
}

static struct spk_link *
context_sends(void *object)
{
    return &((struct spk_context *)object)->socket->own.selects;
}

static struct spk_link *
context_recvs(void *object)
{
    struct spk_context *c = object;

    return c->socket->protocol->shares_recv ? &c->socket->own.selects : &c->selects;
}

/* Who waits looks after what comes itself. */
static void
arm_recv(void *object)
{
    struct spk_socket *s = object;

    if (!s->protocol->passes_on)
        s->awaited = READS_AWAITED;
}

static void
context_arm_recv(void *object)
{
    arm_recv(((struct spk_context *)object)->socket);
}

const struct spk_selectable spk_select_socket_recv = {
    .ready = can_recv,
    .selects = selects_of,
    .arm = arm_recv,
};
const struct spk_selectable spk_select_socket_send = {
    .ready = can_send,
    .selects = selects_of,
};
const struct spk_selectable spk_select_context_recv = {
    .ready = context_can_recv,
    .selects = context_recvs,
    .arm = context_arm_recv,
};
const struct spk_selectable spk_select_context_send = {
    .ready = context_can_send,
    .selects = context_sends,
};

int
spoke_pipe_close(spoke_socket *handle, spoke_pipe_id id)
{
    struct spk_socket *s;
    struct spk_engine *e;
    struct spk_pipe *p;
    int rc;

    if ((rc = enter(handle, &s)) != 0)
        return rc;
    e = s->e;
    if ((p = spk_idmap_get(&s->by_id, id)) == NULL)
        rc = SPOKE_ENOENT;
    else
        spk_pipe_shut(p, SPOKE_ECLOSED);
    spk_engine_leave(e);
    return rc;
}

int
spoke_pipe_stats(spoke_socket *handle, spoke_pipe_id id, struct spoke_pipe_stats *out)
{
    struct spk_socket *s;
    struct spk_pipe *p;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = enter(handle, &s)) != 0)
        return rc;
    if ((p = spk_idmap_get(&s->by_id, id)) == NULL)
        rc = SPOKE_ENOENT;
    else
        *out = p->stats;
    spk_engine_leave(s->e);
    return rc;
}

static void
count_segment(const struct spk_socket *s, struct spoke_stats *out)
{
    struct spk_segment_stats segment;

    if (s->shm == NULL)
        return;
    spk_shm_home_stats(s->shm, &segment);
    out->shm_bytes = segment.pages;
    out->shm_huge_bytes = segment.huge;
    out->shm_huge_failed = segment.huge_failed;
}

int
spoke_socket_stats(spoke_socket *handle, struct spoke_stats *out)
{
    struct spk_socket *s;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    memset(out, 0, sizeof *out);
    if ((rc = enter(handle, &s)) != 0)
        return rc;
    if (s->recv_queue.high > s->stats.recv_queue_high) /* else a queue of the protocol's */
        s->stats.recv_queue_high = s->recv_queue.high;
    *out = s->stats;
    count_segment(s, out);
    if (s->front != NULL)
        spk_front_correct(s->front, out);
    spk_engine_leave(s->e);
    return 0;
}

/* ---- for protocols ---- */

void *
spk_socket_state(struct spk_socket *s)
{
    return s->state;
}

struct spoke_stats *
spk_socket_counters(struct spk_socket *s)
{
    return &s->stats;
}

bool
spk_socket_raw(const struct spk_socket *s)
{
    return s->raw;
}

int
spk_socket_send_queue(const struct spk_socket *s, size_t *bytes)
{
    *bytes = s->send_queue_bytes;
    return s->send_queue;
}

int
spk_socket_recv_queue(const struct spk_socket *s, size_t *bytes)
{
    *bytes = s->recv_queue_bytes;
    return s->recv_queue_most;
}

spoke_ns
spk_socket_now(struct spk_socket *s)
{
    return spk_engine_now(s->e);
}

uint32_t
spk_socket_random(struct spk_socket *s)
{
    return (uint32_t)(spk_engine_random(s->e) >> 16);
}

int
spk_socket_timer_set(struct spk_socket *s, struct spk_timer *timer, spoke_ns after_ns)
{
    return spk_timer_set(s->e, timer, spk_later(spk_engine_now(s->e), after_ns));
}

void
spk_socket_timer_cancel(struct spk_socket *s, struct spk_timer *timer)
{
    spk_timer_cancel(s->e, timer);
}
