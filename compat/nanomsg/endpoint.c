/* SPDX-License-Identifier: MIT */
/* Endpoints by number: nn_bind(), nn_connect(), nn_shutdown().
 *
 * An endpoint is made and listed under its slot's lock, so no change of an option passes it by, and
 * started without, because a listener waits for an address that is in use. */
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

static void
count_bind_error(struct compat_socket *c, int rc)
{
    if (rc != 0 && rc != SPOKE_ESCHEME)
        c->bind_errors++;
}

static int
create(struct compat_socket *c, struct compat_endpoint *ep, const char *url, bool bind)
{
    spoke_socket *handle = compat_locked_handle(c);
    int rc;

    if (!bind)
        return spoke_dialer_create(&ep->dialer, handle, url);
    rc = spoke_listener_create(&ep->listener, handle, url);
    count_bind_error(c, rc);
    return rc;
}

/* Make one and list it. */
static int
add(struct compat_socket *c, const char *address, bool bind, struct compat_endpoint *ep)
{
    char url[COMPAT_URL_MAX];
    int rc = compat_address(url, address, bind, c->values[VALUE_IPV4ONLY] != 0);

    *ep = (struct compat_endpoint){.id = 0, .send_priority = c->values[VALUE_SNDPRIO]};
    if (rc != 0)
        return compat_fail(rc);
    if (!reserve(c))
        return compat_fail(ENOMEM);
    if ((rc = create(c, ep, url, bind)) != 0)
        return compat_fail_as(rc);
    c->endpoints[c->endpoint_count++] = *ep;
    return 0;
}

static int
start(const struct compat_endpoint *ep)
{
    return ep->dialer != NULL ? spoke_dialer_start(ep->dialer, 0)
                              : spoke_listener_start(ep->listener, 0);
}

static void
close_endpoint(const struct compat_endpoint *ep)
{
    if (ep->dialer != NULL)
        spoke_dialer_close(ep->dialer);
    else
        spoke_listener_close(ep->listener);
}

static void
take_out(struct compat_socket *c, struct compat_endpoint *ep)
{
    size_t after = (size_t)(c->endpoints + c->endpoint_count - (ep + 1));

    memmove(ep, ep + 1, after * sizeof *ep);
    c->endpoint_count--;
}

/* It was started, or not: `rc`.  Give its id, or -1 and errno. */
static int
settle(struct compat_socket *c, const struct compat_endpoint *started, int rc)
{
    struct compat_endpoint *ep = c->endpoints, *end = ep + c->endpoint_count;

    while (ep < end && (ep->dialer != started->dialer || ep->listener != started->listener))
        ep++;
    if (ep == end)
        return compat_fail(EBADF); /* its socket was closed, and another one opened */
    if (rc == 0)
        return ep->id = ++c->last_id;
    if (ep->listener != NULL)
        count_bind_error(c, rc);
    take_out(c, ep);
    close_endpoint(started);
    return compat_fail_as(rc);
}

static int
add_and_start(int s, const char *address, bool bind)
{
    struct compat_socket *c = compat_lock(s);
    struct compat_endpoint ep;
    int rc, id;

    if (c == NULL)
        return -1;
    rc = add(c, address, bind, &ep);
    compat_unlock(c);
    if (rc != 0)
        return -1;
    rc = start(&ep);
    if ((c = compat_lock(s)) == NULL)
        return -1; /* closed, and with it what was started */
    id = settle(c, &ep, rc);
    compat_unlock(c);
    return id;
}

int
nn_bind(int s, const char *addr)
{
    return add_and_start(s, addr, true);
}

int
nn_connect(int s, const char *addr)
{
    return add_and_start(s, addr, false);
}

int
nn_shutdown(int s, int how)
{
    struct compat_socket *c = compat_lock(s);
    size_t i = 0;
    bool found;

    if (c == NULL)
        return -1;
    while (i < c->endpoint_count && c->endpoints[i].id != how)
        i++;
    found = how > 0 && i < c->endpoint_count; /* 0: not started yet */
    if (found) {
        struct compat_endpoint ep = c->endpoints[i];

        take_out(c, &c->endpoints[i]);
        close_endpoint(&ep);
    }
    compat_unlock(c);
    return found ? 0 : compat_fail(EINVAL);
}
