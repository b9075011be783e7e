/* SPDX-License-Identifier: MIT */
/* Endpoints by number: nn_bind(), nn_connect(), nn_shutdown(). */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

/* Room for one more. */
static bool
reserve(struct compat_socket *c)
{
    size_t room = c->endpoint_room == 0 ? 4 : c->endpoint_room * 2;
    struct compat_endpoint *more;

    if (c->endpoint_count < c->endpoint_room)
        return true;
    if ((more = realloc(c->endpoints, room * sizeof *more)) == NULL)
        return false;
    c->endpoints = more;
    c->endpoint_room = room;
    return true;
}

static int
open_endpoint(struct compat_socket *c, struct compat_endpoint *ep, const char *url, bool bind)
{
    spoke_socket *handle = compat_locked_handle(c);
    int rc;

    if (!bind)
        return spoke_dial(handle, url, &ep->dialer, 0);
    rc = spoke_listen(handle, url, &ep->listener, 0);
    if (rc != 0 && rc != SPOKE_ESCHEME)
        c->bind_errors++;
    return rc;
}

static int
add(struct compat_socket *c, const char *address, bool bind)
{
    struct compat_endpoint ep = {.id = c->last_id + 1, .send_priority = c->values[VALUE_SNDPRIO]};
    char url[COMPAT_URL_MAX];
    int rc = compat_address(url, address, bind, c->values[VALUE_IPV4ONLY] != 0);

    if (rc != 0)
        return compat_fail(rc);
    if (!reserve(c))
        return compat_fail(ENOMEM);
    if ((rc = open_endpoint(c, &ep, url, bind)) != 0)
        return compat_fail_as(rc);
    c->endpoints[c->endpoint_count++] = ep;
    c->last_id = ep.id;
    return ep.id;
}

static int
lock_and_add(int s, const char *address, bool bind)
{
    struct compat_socket *c = compat_lock(s);
    int id;

    if (c == NULL)
        return -1;
    id = add(c, address, bind);
    compat_unlock(c);
    return id;
}

int
nn_bind(int s, const char *addr)
{
    return lock_and_add(s, addr, true);
}

int
nn_connect(int s, const char *addr)
{
    return lock_and_add(s, addr, false);
}

/* Take endpoint `id` out of the list. */
static bool
remove_endpoint(struct compat_socket *c, int id, struct compat_endpoint *out)
{
    for (size_t i = 0; i < c->endpoint_count; i++) {
        if (c->endpoints[i].id != id)
            continue;
        *out = c->endpoints[i];
        c->endpoint_count--;
        memmove(&c->endpoints[i], &c->endpoints[i + 1],
                (c->endpoint_count - i) * sizeof *c->endpoints);
        return true;
    }
    return false;
}

int
nn_shutdown(int s, int how)
{
    struct compat_socket *c = compat_lock(s);
    struct compat_endpoint ep;
    bool found;

    if (c == NULL)
        return -1;
    found = remove_endpoint(c, how, &ep);
    if (found && ep.dialer != NULL)
        spoke_dialer_close(ep.dialer);
    else if (found)
        spoke_listener_close(ep.listener);
    compat_unlock(c);
    return found ? 0 : compat_fail(EINVAL);
}
