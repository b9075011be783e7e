/* SPDX-License-Identifier: MIT */
/* Contexts: the conversations of a socket, its own and those that the user opens.  What one is
 * about is the protocol's; here is their life, and who waits where. */
#include <spoke/context.h>

#include <string.h>

#include "runtime/core/core.h"

/* ---- life ---- */

int
spk_context_init(struct spk_context *c, struct spk_socket *s)
{
    const struct spoke_protocol *protocol = s->protocol;
    int rc;

    c->socket = s;
    spk_list_init(&c->link);
    spk_list_init(&c->recv_waiters);
    spk_list_init(&c->selects);
    c->recv_timeout_ns = c == &s->own ? SPOKE_FOREVER : s->own.recv_timeout_ns;
    c->send_timeout_ns = c == &s->own ? SPOKE_FOREVER : s->own.send_timeout_ns;
    if (protocol->context_size == 0)
        return 0;
    if ((c->state = spk_zalloc(protocol->context_size)) == NULL)
        return SPOKE_ENOMEM;
    if (protocol->context_open != NULL && (rc = protocol->context_open(c)) != 0) {
        spk_free(c->state);
        c->state = NULL;
        return rc;
    }
    return 0;
}

void
spk_context_fini(struct spk_context *c)
{
    const struct spoke_protocol *protocol = c->socket->protocol;

    if (protocol->context_close != NULL)
        protocol->context_close(c);
    spk_free(c->state);
    c->state = NULL;
}

static int
new_context(struct spk_context **out, struct spk_socket *s)
{
    struct spk_context *c;
    void *handle;
    int rc;

    if (s->protocol->context_size == 0 || s->raw)
        return SPOKE_ENOTSUP;
    if ((c = spk_zalloc(sizeof *c)) == NULL)
        return SPOKE_ENOMEM;
    if ((rc = spk_handle_new(SPK_HANDLE_CONTEXT, c, s->e, &handle)) != 0)
        goto free_context;
    c->handle = handle;
    if ((rc = spk_context_init(c, s)) != 0)
        goto free_handle;
    spk_list_append(&s->contexts, &c->link);
    *out = c;
    return 0;
free_handle:
    spk_handle_free(handle);
free_context:
    spk_free(c);
    return rc;
}

int
spoke_context_open(spoke_context **out, spoke_socket *socket)
{
    struct spk_context *c;
    struct spk_engine *e;
    void *object;
    int rc;

    if (out == NULL)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = spk_handle_enter(socket, SPK_HANDLE_SOCKET, &object, &e)) != 0)
        return rc;
    if ((rc = new_context(&c, object)) == 0)
        *out = c->handle;
    spk_engine_leave(e);
    return rc;
}

static int
enter(spoke_context *handle, struct spk_context **c, struct spk_engine **e)
{
    void *object;
    int rc = spk_handle_enter(handle, SPK_HANDLE_CONTEXT, &object, e);

    if (rc == 0)
        *c = object;
    return rc;
}

int
spoke_context_close(spoke_context *handle)
{
    struct spk_context *c;
    struct spk_engine *e;
    int rc;

    if ((rc = enter(handle, &c, &e)) != 0)
        return rc;
    spk_handle_free(handle);
    spk_list_remove(&c->link);
    c->closed = true;
    /* Who waits elsewhere in the same list tries again in vain, unless one of those who leave was
     * chosen for a message. */
    spk_engine_wake_all(e, spk_context_recv_waiters(c));
    spk_engine_wake_all(e, &c->socket->send_waiters);
    spk_select_wake(&c->selects);
    spk_select_wake(&c->socket->own.selects); /* it may be among these */
    spk_context_fini(c);
    if (c->callers == 0)
        spk_free(c);
    spk_engine_leave(e);
    return 0;
}

/* ---- waiting ---- */

struct spk_link *
spk_context_recv_waiters(struct spk_context *c)
{
    return c->socket->protocol->shares_recv ? &c->socket->own.recv_waiters : &c->recv_waiters;
}

unsigned
spk_context_ready(struct spk_context *c)
{
    const struct spoke_protocol *protocol = c->socket->protocol;

    return protocol->context_size > 0 && !c->socket->raw ? protocol->context_ready(c)
                                                         : protocol->ready(c->socket);
}

void
spk_context_wake_all(struct spk_socket *s)
{
    spk_engine_wake_all(s->e, &s->own.recv_waiters);
    SPK_LIST_EACH(link, &s->contexts)
    {
        struct spk_context *c = SPK_OWNER(link, struct spk_context, link);

        spk_engine_wake_all(s->e, &c->recv_waiters);
        spk_select_tell(&c->selects);
    }
}

void
spk_context_wake(struct spk_context *c)
{
    spk_engine_wake_all(c->socket->e, &c->recv_waiters);
    if (c == &c->socket->own)
        spk_socket_check_ready(c->socket);
    else
        spk_select_tell(&c->selects);
}

bool
spk_context_fail_recv(struct spk_context *c, int error)
{
    bool anybody = c->callers > 0; /* also one that has been woken and will look in vain */

    c->recv_epoch++;
    c->recv_error = error;
    spk_engine_wake_all(c->socket->e, &c->recv_waiters);
    return anybody;
}

/* ---- send and receive ---- */

int
spoke_context_send(spoke_context *handle, spoke_msg *m, int flags)
{
    struct spk_context *c;
    struct spk_engine *e;
    int rc;

    if (m == NULL || (flags & ~(SPOKE_DONTWAIT | SPOKE_MORE)) != 0)
        return SPOKE_EINVAL;
    if ((rc = enter(handle, &c, &e)) != 0)
        return rc;
    rc = c->socket->raw ? SPOKE_ENOTSUP : spk_socket_send(c, m, flags);
    spk_engine_leave(e);
    return rc;
}

int
spoke_context_recv(spoke_context *handle, spoke_msg **out, int flags)
{
    struct spk_context *c;
    struct spk_engine *e;
    int rc;

    if (out == NULL || (flags & ~SPOKE_DONTWAIT) != 0)
        return SPOKE_EINVAL;
    *out = NULL;
    if ((rc = enter(handle, &c, &e)) != 0)
        return rc;
    rc = c->socket->raw ? SPOKE_ENOTSUP : spk_socket_recv(c, out, flags);
    spk_engine_leave(e);
    return rc;
}

int
spk_send_bytes(void *handle, enum spk_handle_kind kind, const void *data, size_t size, int flags)
{
    spoke_msg *m;
    int rc;

    if ((rc = spoke_msg_from(&m, data, size)) != 0)
        return rc;
    rc = kind == SPK_HANDLE_SOCKET ? spoke_send(handle, m, flags)
                                   : spoke_context_send(handle, m, flags);
    if (rc != 0)
        spoke_msg_free(m);
    return rc;
}

int
spk_recv_bytes(void *handle, enum spk_handle_kind kind, void *buffer, size_t *size, int flags)
{
    spoke_msg *m = NULL;
    size_t room;
    int rc;

    if (size == NULL || (buffer == NULL && *size > 0))
        return SPOKE_EINVAL;
    rc = kind == SPK_HANDLE_SOCKET ? spoke_recv(handle, &m, flags)
                                   : spoke_context_recv(handle, &m, flags);
    if (rc != 0 || m == NULL)
        return rc;
    room = *size < m->size ? *size : m->size;
    *size = m->size;
    if (room > 0)
        memcpy(buffer, m->body, room);
    spoke_msg_free(m);
    return 0;
}

int
spoke_context_send_bytes(spoke_context *handle, const void *data, size_t size, int flags)
{
    return spk_send_bytes(handle, SPK_HANDLE_CONTEXT, data, size, flags);
}

int
spoke_context_recv_bytes(spoke_context *handle, void *buffer, size_t *size, int flags)
{
    return spk_recv_bytes(handle, SPK_HANDLE_CONTEXT, buffer, size, flags);
}

/* ---- for protocols ---- */

void *
spk_context_state(struct spk_context *c)
{
    return c->state;
}

struct spk_socket *
spk_context_socket(struct spk_context *c)
{
    return c->socket;
}

struct spk_context *
spk_socket_context(struct spk_socket *s)
{
    return &s->own;
}
