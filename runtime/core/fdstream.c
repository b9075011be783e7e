/* SPDX-License-Identifier: MIT */
/* Streams that are one descriptor (a unix or TCP socket): the stream itself, how to connect one,
 * how to accept them. */
#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/un.h>

#include "runtime/core/transport.h"

#define BACKLOG                                                                                    \
    4096 /* connections that the kernel holds for us; it cuts this to net.core.somaxconn */
#define ACCEPT_BACKOFF (100 * SPOKE_MS)

/* ---- the stream ---- */

struct fd_stream {
    struct spk_stream stream;
    int fd;
    const char *scheme;
};

static struct fd_stream *
fd_of(struct spk_stream *st)
{
    return SPK_OWNER(st, struct fd_stream, stream);
}

static int64_t
fd_send_now(struct spk_stream *st, struct iovec *iov, int count)
{
    return spk_send_now(st->e, fd_of(st)->fd, iov, count);
}

static void
fd_send(struct spk_stream *st, struct spk_op *op, struct msghdr *msg)
{
    spk_op_send(st->e, op, fd_of(st)->fd, msg);
}

static void
fd_recv(struct spk_stream *st, struct spk_op *op, void *buffer, size_t size)
{
    spk_op_recv(st->e, op, fd_of(st)->fd, buffer, size);
}

static int64_t
fd_recv_now(struct spk_stream *st, void *buffer, size_t size)
{
    return st->e->backend->recv_now(st->e, fd_of(st)->fd, buffer, size);
}

static void
fd_writable(struct spk_stream *st, struct spk_op *op)
{
    spk_op_writable(st->e, op, fd_of(st)->fd);
}

static int
fd_shutdown(struct spk_stream *st, bool reading)
{
    return st->e->backend->shutdown(st->e, fd_of(st)->fd, reading);
}

static void
fd_reset(struct spk_stream *st)
{
    (void)st->e->backend->set_option(st->e, fd_of(st)->fd, SPK_RESET_ON_CLOSE, 1);
}

static void
fd_close(struct spk_stream *st)
{
    st->e->backend->close_handle(st->e, fd_of(st)->fd);
    spk_free(fd_of(st));
}

/* A name in the abstract namespace may hold any byte: those that ipc://@ cannot carry are escaped.
 */
static void
abstract_text(const char *name, size_t size, const char *scheme, char *text, size_t room)
{
    size_t used;

    if (memchr(name, '\0', size) == NULL) {
        snprintf(text, room, "%s://@%.*s", scheme, (int)size, name);
        return;
    }
    used = (size_t)snprintf(text, room, "abstract://");
    for (size_t i = 0; i < size && used < room; i++)
        used += (size_t)snprintf(text + used, room - used,
                                 name[i] == '\0' || name[i] == '%' ? "%%%02x" : "%c", name[i]);
}

static void
unix_text(const struct sockaddr_un *un, size_t size, const char *scheme, char *text, size_t room)
{
    size_t path = size > offsetof(struct sockaddr_un, sun_path)
                      ? size - offsetof(struct sockaddr_un, sun_path)
                      : 0;

    if (path == 0) /* a dialer's end has no name */
        snprintf(text, room, "%s://", scheme);
    else if (un->sun_path[0] == '\0')
        abstract_text(un->sun_path + 1, path - 1, scheme, text, room);
    else
        snprintf(text, room, "%s://%.*s", scheme, (int)strnlen(un->sun_path, path), un->sun_path);
}

static void
v4_text(const void *address, in_port_t port, const char *scheme, char *text, size_t room)
{
    char name[INET_ADDRSTRLEN];

    inet_ntop(AF_INET, address, name, sizeof name);
    snprintf(text, room, "%s://%s:%u", scheme, name, ntohs(port));
}

/* A peer of version 4 that came to an address of both versions is told as what it is. */
static void
v6_text(const struct sockaddr_in6 *in, const char *scheme, char *text, size_t room)
{
    char name[INET6_ADDRSTRLEN], scope[IF_NAMESIZE + 1] = "", interface[IF_NAMESIZE];

    if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr)) {
        v4_text(&in->sin6_addr.s6_addr[12], in->sin6_port, scheme, text, room);
        return;
    }
    inet_ntop(AF_INET6, &in->sin6_addr, name, sizeof name);
    if (in->sin6_scope_id != 0 && if_indextoname(in->sin6_scope_id, interface) != NULL)
        snprintf(scope, sizeof scope, "%%%s", interface);
    snprintf(text, room, "%s://[%s%s]:%u", scheme, name, scope, ntohs(in->sin6_port));
}

int
spk_fd_address_text(const struct sockaddr_storage *address, socklen_t size, const char *scheme,
                    char *text, size_t room)
{
    const struct sockaddr_in *in = (const void *)address;

    switch (address->ss_family) {
    case AF_UNIX: unix_text((const void *)address, size, scheme, text, room); return 0;
    case AF_INET: v4_text(&in->sin_addr, in->sin_port, scheme, text, room); return 0;
    case AF_INET6: v6_text((const void *)address, scheme, text, room); return 0;
    default: return SPOKE_ENOTSUP;
    }
}

static int
fd_address(struct spk_stream *st, bool local, char *text, size_t size)
{
    const struct spk_backend *backend = st->e->backend;
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    int rc;

    memset(&address, 0, sizeof address);
    rc = (local ? backend->local_address : backend->peer_address)(st->e, fd_of(st)->fd, &address,
                                                                  &length);
    return rc != 0 ? rc : spk_fd_address_text(&address, length, fd_of(st)->scheme, text, size);
}

static int
fd_credentials(struct spk_stream *st, struct spk_credentials *out)
{
    return st->e->backend->credentials(st->e, fd_of(st)->fd, out);
}

static int
fd_unix_fd(struct spk_stream *st)
{
    struct sockaddr_storage address;
    socklen_t size = sizeof address;

    if (st->e->backend->is_virtual ||
        st->e->backend->local_address(st->e, fd_of(st)->fd, &address, &size) != 0)
        return -1;
    return address.ss_family == AF_UNIX ? fd_of(st)->fd : -1;
}

static const struct spk_stream_ops fd_ops = {
    .send_now = fd_send_now,
    .send = fd_send,
    .recv_now = fd_recv_now,
    .recv = fd_recv,
    .writable = fd_writable,
    .shutdown = fd_shutdown,
    .reset = fd_reset,
    .close = fd_close,
    .address = fd_address,
    .credentials = fd_credentials,
    .unix_fd = fd_unix_fd,
};

int
spk_fd_stream(struct spk_stream **out, struct spk_engine *e, const char *scheme, int fd)
{
    struct fd_stream *st = spk_zalloc(sizeof *st);

    if (st == NULL)
        return SPOKE_ENOMEM;
    st->stream.ops = &fd_ops;
    st->stream.e = e;
    st->fd = fd;
    st->scheme = scheme;
    *out = &st->stream;
    return 0;
}

/* In whole units, rounded up: 1 ns is not 0, which means something else. */
static int
whole(spoke_ns ns, spoke_ns unit)
{
    return (int)(ns / unit + (ns % unit != 0));
}

/* A connection without these still works. */
static void
tune_tcp(struct spk_endpoint *ep, int fd)
{
    const struct spk_endpoint_options *o = &ep->options;
    struct spk_engine *e = ep->e;
    int seconds = whole(o->tcp_keepalive_ns, SPOKE_SECOND);

    (void)e->backend->set_option(e, fd, SPK_TCP_NODELAY, o->tcp_nodelay);
    (void)e->backend->set_option(e, fd, SPK_TCP_KEEPALIVE, o->tcp_keepalive);
    if (o->tcp_keepalive && seconds > 0) {
        (void)e->backend->set_option(e, fd, SPK_TCP_KEEPALIVE_IDLE, seconds);
        (void)e->backend->set_option(e, fd, SPK_TCP_KEEPALIVE_INTERVAL, seconds);
    }
    if (o->tcp_user_timeout_ns > 0)
        (void)e->backend->set_option(e, fd, SPK_TCP_USER_TIMEOUT,
                                     whole(o->tcp_user_timeout_ns, SPOKE_MS));
}

/* A connection that has just been made or accepted: tune it, make a stream of it.  Takes fd. */
static int
make_stream(struct spk_stream **out, struct spk_endpoint *ep, int fd)
{
    struct spk_engine *e = ep->e;
    int rc;

    if (ep->address.ss_family != AF_UNIX)
        tune_tcp(ep, fd);
    if ((rc = spk_fd_stream(out, e, ep->transport->scheme, fd)) != 0)
        e->backend->close_handle(e, fd);
    return rc;
}

/* ---- dialing ---- */

static void
on_connected(struct spk_op *op, int result)
{
    struct spk_endpoint *d = SPK_OWNER(op, struct spk_endpoint, op);
    struct spk_engine *e = d->e;
    struct spk_stream *st;
    int fd = d->fd;

    d->fd = -1;
    if (result == SPOKE_ENOENT) /* no socket file: nobody listens there (yet) */
        result = SPOKE_ECONNREFUSED;
    if (result != 0) {
        e->backend->close_handle(e, fd);
    } else if ((result = make_stream(&st, d, fd)) == 0) {
        spk_dialer_connected(d, st);
        return;
    }
    if (d->state == SPK_DIALING && result != SPOKE_ECANCELED && d->transport->dial_next != NULL &&
        d->transport->dial_next(d))
        return;
    spk_dialer_failed(d, result);
}

int
spk_fd_dial(struct spk_endpoint *d, const struct sockaddr *local, socklen_t local_size)
{
    struct spk_engine *e = d->e;
    int rc;

    if ((rc = e->backend->socket(e, d->address.ss_family, &d->fd)) != 0) {
        d->fd = -1;
        return rc;
    }
    if (local_size > 0 && (rc = e->backend->bind(e, d->fd, local, local_size)) != 0) {
        e->backend->close_handle(e, d->fd);
        d->fd = -1;
        return rc;
    }
    spk_op_init(&d->op, on_connected);
    spk_op_connect(e, &d->op, d->fd, (const struct sockaddr *)&d->address, d->address_size);
    return 0;
}

void
spk_fd_dial_cancel(struct spk_endpoint *d)
{
    spk_op_cancel(d->e, &d->op);
}

/* ---- listening ---- */

int
spk_fd_bind(struct spk_endpoint *l)
{
    struct spk_engine *e = l->e;
    int rc;

    if ((rc = e->backend->socket(e, l->address.ss_family, &l->fd)) != 0) {
        l->fd = -1;
        return rc;
    }
    if (l->address.ss_family != AF_UNIX)
        (void)e->backend->set_option(e, l->fd, SPK_REUSEADDR, 1);
    if (l->address.ss_family == AF_INET6)
        (void)e->backend->set_option(e, l->fd, SPK_V6ONLY, l->url.family == AF_INET6);
    if ((rc = e->backend->bind(e, l->fd, (const struct sockaddr *)&l->address, l->address_size)) !=
        0)
        spk_fd_unbind(l);
    return rc;
}

void
spk_fd_unbind(struct spk_endpoint *l)
{
    l->e->backend->close_handle(l->e, l->fd);
    l->fd = -1;
}

static void
accept_more(struct spk_endpoint *l)
{
    if (!spk_op_busy(&l->op) && !l->paused)
        spk_op_accept(l->e, &l->op, l->fd);
}

/* Those that are on their way already still come. */
void
spk_fd_listen_pause(struct spk_endpoint *l, bool pause)
{
    if (l->paused == pause)
        return;
    l->paused = pause;
    if (pause)
        spk_op_cancel(l->e, &l->op);
    else if (!spk_timer_is_set(&l->accept_timer))
        accept_more(l);
}

static void
on_accept_timer(struct spk_timer *timer)
{
    accept_more(SPK_OWNER(timer, struct spk_endpoint, accept_timer));
}

static void
end_listening(struct spk_endpoint *l)
{
    spk_timer_cancel(l->e, &l->accept_timer);
    spk_fd_unbind(l);
    spk_listener_closed(l);
}

/* Half as long to half as long again: of several listeners not always the same one is the first. */
static spoke_ns
accept_wait(struct spk_engine *e)
{
    return ACCEPT_BACKOFF / 2 + (spoke_ns)(spk_engine_random(e) % (ACCEPT_BACKOFF + 1));
}

static void
on_accepted(struct spk_op *op, int result)
{
    struct spk_endpoint *l = SPK_OWNER(op, struct spk_endpoint, op);
    struct spk_engine *e = l->e;
    struct spk_stream *st;

    if (l->state == SPK_CLOSING) {
        if (result >= 0)
            e->backend->close_handle(e, result);
        if (!spk_op_busy(op))
            end_listening(l);
        return;
    }
    if (result >= 0) {
        if ((result = make_stream(&st, l, result)) == 0)
            spk_listener_accepted(l, st);
        else
            spk_listener_failed(l, result);
        accept_more(l);
        return;
    }
    if (result == SPOKE_ECONNRESET || result == SPOKE_EAGAIN ||
        result == SPOKE_ECANCELED) { /* it went away while it waited */
        accept_more(l);
        return;
    }
    /* No descriptors, no memory: others may give some back.  Trying again at once would only burn
     * time. */
    spk_listener_failed(l, result);
    if (!spk_op_busy(op) &&
        spk_timer_set(e, &l->accept_timer, spk_engine_now(e) + accept_wait(e)) != 0)
        accept_more(l);
}

int
spk_fd_accept(struct spk_endpoint *l)
{
    struct spk_engine *e = l->e;
    int rc;

    if ((rc = e->backend->listen(e, l->fd, BACKLOG)) != 0)
        return rc;
    l->address_size = sizeof l->address;
    (void)e->backend->local_address(e, l->fd, &l->address,
                                    &l->address_size); /* with the port that was chosen */
    l->accept_timer.fn = on_accept_timer;
    spk_op_init(&l->op, on_accepted);
    accept_more(l);
    return 0;
}

void
spk_fd_listen_close(struct spk_endpoint *l)
{
    if (spk_op_busy(&l->op))
        spk_op_cancel(l->e, &l->op);
    else
        end_listening(l);
}
