/* SPDX-License-Identifier: MIT */
/* TCP sockets, version 4 and 6, for the transports that meet there (tcp, tls, ws, wss).  Names are
 * resolved at each attempt, aside, so that the engine never waits for a name server; the addresses
 * that come back are tried in order.  Engine's thread, except look_up(). */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/core/transport.h"

#define ADDRESSES 16

/* What is left to try.  Hangs on the endpoint as `private`. */
struct addresses {
    struct sockaddr_storage list[ADDRESSES];
    socklen_t size[ADDRESSES];
    int count, next;
    int family; /* of those that are wanted; 0: all */
    int error;  /* listener: what a name came to, if not to addresses */
    struct resolve *resolving;
};

/* A name that is to be looked up.  Shared by the thread that does it and the engine: the endpoint
 * may be gone when the answer comes, and so may the engine. */
struct resolve {
    struct spk_aside work;
    struct spk_engine *e;
    uint64_t number;         /* of that engine */
    struct spk_endpoint *ep; /* NULL: nobody wants to know any more */
    char host[256], port[8];
    int flags;
    struct addrinfo *found;
    int error;
    struct spk_post post;
};

static void
add_address(struct addresses *a, const void *address, socklen_t size)
{
    sa_family_t family = ((const struct sockaddr *)address)->sa_family;

    if (a->count == ADDRESSES || (a->family != 0 && family != a->family))
        return;
    memcpy(&a->list[a->count], address, size);
    a->size[a->count++] = size;
}

static struct addresses *
addresses_of(struct spk_endpoint *ep)
{
    struct addresses *a = ep->private;

    if (a == NULL && (a = ep->private = spk_zalloc(sizeof *a)) != NULL)
        a->family = ep->url.family;
    return a;
}

/* ---- literals ---- */

/* An interface by its name or number; 0: there is none. */
static uint32_t
scope_id(const char *text)
{
    char name[IF_NAMESIZE], *end;
    unsigned long number = if_nametoindex(text);

    if (number != 0)
        return (uint32_t)number;
    number = strtoul(text, &end, 10);
    if (*end != '\0' || number > UINT32_MAX || if_indextoname((unsigned)number, name) == NULL)
        return 0;
    return (uint32_t)number;
}

static socklen_t
v4_address(struct sockaddr_storage *out, const void *address, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};

    memcpy(&in.sin_addr, address, sizeof in.sin_addr);
    memcpy(out, &in, sizeof in);
    return sizeof in;
}

/* 127.0.0.1, ::1, fe80::1%eth0; ::ffff:127.0.0.1 is the first one.  SPOKE_EHOST: it is none of
 * these; SPOKE_ENODEV: there is no such interface. */
static int
literal(const char *host, uint16_t port, struct sockaddr_storage *out, socklen_t *size)
{
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    char name[INET6_ADDRSTRLEN];
    struct in_addr v4;
    size_t length = strcspn(host, "%");

    memset(out, 0, sizeof *out);
    *size = 0;
    if (inet_pton(AF_INET, host, &v4) == 1) {
        *size = v4_address(out, &v4, port);
        return 0;
    }
    if (length >= sizeof name)
        return SPOKE_EHOST;
    memcpy(name, host, length);
    name[length] = '\0';
    if (inet_pton(AF_INET6, name, &in6.sin6_addr) != 1)
        return SPOKE_EHOST;
    if (host[length] == '%' && (in6.sin6_scope_id = scope_id(host + length + 1)) == 0)
        return SPOKE_ENODEV;
    if (IN6_IS_ADDR_V4MAPPED(&in6.sin6_addr)) {
        *size = v4_address(out, &in6.sin6_addr.s6_addr[12], port);
        return 0;
    }
    memcpy(out, &in6, sizeof in6);
    *size = sizeof in6;
    return 0;
}

static int
add_literal(struct addresses *a, const char *host, uint16_t port)
{
    struct sockaddr_storage address;
    socklen_t size;
    int rc = literal(host, port, &address, &size);

    if (rc == 0)
        add_address(a, &address, size);
    return rc;
}

/* ---- the local end of a dialer: a literal or the name of an interface ---- */

static int
interface_address(const char *name, sa_family_t family, struct sockaddr_storage *out,
                  socklen_t *size)
{
    struct ifaddrs *all;
    int rc = SPOKE_ENODEV;

    if (getifaddrs(&all) != 0)
        return SPOKE_ENODEV;
    for (struct ifaddrs *i = all; i != NULL && rc != 0; i = i->ifa_next) {
        if (strcmp(i->ifa_name, name) != 0)
            continue;
        rc = SPOKE_EADDRNOTAVAIL; /* it is there, perhaps without an address of this version */
        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != family)
            continue;
        *size = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        memcpy(out, i->ifa_addr, *size);
        rc = 0;
    }
    freeifaddrs(all);
    return rc;
}

static int
local_address(const struct spk_endpoint *d, struct sockaddr_storage *out, socklen_t *size)
{
    int rc;

    *size = 0;
    if (d->url.local == NULL)
        return 0;
    if ((rc = literal(d->url.local, 0, out, size)) == SPOKE_EHOST)
        return interface_address(d->url.local, d->address.ss_family, out, size);
    if (rc == 0 && out->ss_family != d->address.ss_family)
        return SPOKE_EADDRNOTAVAIL;
    return rc;
}

/* Interfaces that the URL names must exist, those of scopes too. */
int
spk_tcp_check(const struct spk_url *url)
{
    struct sockaddr_storage address, ignored;
    socklen_t size;
    int rc = url->host == NULL ? SPOKE_EHOST : literal(url->host, 0, &address, &size);

    if (rc == SPOKE_ENODEV)
        return rc;
    if (rc == 0 && url->family != 0 && address.ss_family != url->family)
        return SPOKE_EURL;
    if (url->local == NULL)
        return 0;
    if ((rc = literal(url->local, 0, &ignored, &size)) == SPOKE_EHOST)
        return if_nametoindex(url->local) != 0 ? 0 : SPOKE_ENODEV;
    return rc;
}

/* ---- names ---- */

static void
free_resolve(struct resolve *r)
{
    if (r->error == 0)
        freeaddrinfo(r->found);
    spk_free(r);
}

static void
add_found(struct addresses *a, const struct resolve *r, int family)
{
    for (struct addrinfo *i = r->error == 0 ? r->found : NULL; i != NULL; i = i->ai_next)
        if (family == AF_UNSPEC || i->ai_family == family)
            add_address(a, i->ai_addr, i->ai_addrlen);
}

static void on_resolved(void *ctx);

static void
look_up(struct spk_aside *work)
{
    struct resolve *r = SPK_OWNER(work, struct resolve, work);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV | r->flags};

    r->error = getaddrinfo(r->host, r->port, &hints, &r->found);
    if (spk_engine_post_embedded(r->e, r->number, &r->post, on_resolved, r) != 0)
        free_resolve(r); /* the engine has closed, and waits for nobody */
}

static int
start_resolving(struct spk_endpoint *ep, struct addresses *a)
{
    struct resolve *r = spk_zalloc(sizeof *r);
    int rc;

    if (r == NULL)
        return SPOKE_ENOMEM;
    r->e = ep->e;
    r->number = ep->e->number;
    r->ep = ep;
    r->flags = ep->is_dialer ? AI_ADDRCONFIG : 0;
    snprintf(r->host, sizeof r->host, "%s", ep->url.host);
    snprintf(r->port, sizeof r->port, "%u", ep->url.port);
    if ((rc = spk_aside_start(&r->work, look_up)) != 0)
        spk_free(r);
    else
        a->resolving = r;
    return rc;
}

/* A look-up that has begun goes on by itself; its answer finds nobody.  False if there is none. */
static bool
stop_resolving(struct spk_endpoint *ep)
{
    struct addresses *a = ep->private;
    struct resolve *r = a == NULL ? NULL : a->resolving;

    if (r == NULL)
        return false;
    a->resolving = NULL;
    if (spk_aside_withdraw(&r->work))
        spk_free(r);
    else
        r->ep = NULL;
    return true;
}

/* ---- dialing ---- */

static bool
try_next(struct spk_endpoint *d, int *rc)
{
    struct addresses *a = d->private;
    struct sockaddr_storage local;
    socklen_t local_size;

    while (a != NULL && a->next < a->count) {
        d->address = a->list[a->next];
        d->address_size = a->size[a->next++];
        if ((*rc = local_address(d, &local, &local_size)) == 0 &&
            (*rc = spk_fd_dial(d, (const struct sockaddr *)&local, local_size)) == 0)
            return true;
    }
    return false;
}

bool
spk_tcp_dial_next(struct spk_endpoint *d)
{
    int rc;

    return try_next(d, &rc);
}

static void
dial_resolved(struct spk_endpoint *d, const struct resolve *r)
{
    int rc = r->error == EAI_MEMORY ? SPOKE_ENOMEM : SPOKE_EHOST;

    add_found(d->private, r, AF_UNSPEC);
    if (!try_next(d, &rc))
        spk_dialer_failed(d, rc);
}

/* A listener has one address: the first of version 4, if there is one, as most peers will try it.
 */
static void
listen_resolved(struct spk_endpoint *l, const struct resolve *r)
{
    struct addresses *a = l->private;

    add_found(a, r, AF_INET);
    add_found(a, r, AF_INET6);
    if (a->count == 0)
        a->error = r->error == EAI_MEMORY             ? SPOKE_ENOMEM
                   : if_nametoindex(l->url.host) != 0 ? SPOKE_ENODEV
                                                      : SPOKE_EHOST;
    spk_engine_wake_all(l->e, &l->waiters);
}

static void
on_resolved(void *ctx)
{
    struct resolve *r = ctx;
    struct spk_endpoint *ep = r->ep;

    if (ep != NULL) {
        ((struct addresses *)ep->private)->resolving = NULL;
        if (ep->is_dialer)
            dial_resolved(ep, r);
        else
            listen_resolved(ep, r);
    }
    free_resolve(r);
}

/* A simulated world has no names but one. */
static int
virtual_name(struct addresses *a, const struct spk_url *url)
{
    return strcmp(url->host, "localhost") == 0 ? add_literal(a, "127.0.0.1", url->port)
                                               : SPOKE_EHOST;
}

static int
start_dial(struct spk_endpoint *d)
{
    struct addresses *a = addresses_of(d);
    int rc;

    if (a == NULL)
        return SPOKE_ENOMEM;
    a->count = a->next = 0;
    if ((rc = add_literal(a, d->url.host, d->url.port)) == SPOKE_EHOST)
        rc = d->e->backend->is_virtual ? virtual_name(a, &d->url) : start_resolving(d, a);
    if (rc != 0 || a->resolving != NULL)
        return rc;
    rc = SPOKE_EADDRNOTAVAIL;
    return try_next(d, &rc) ? 0 : rc;
}

void
spk_tcp_dial(struct spk_endpoint *d)
{
    int rc = start_dial(d);

    if (rc != 0)
        spk_dialer_fail_later(d, rc);
}

void
spk_tcp_dial_cancel(struct spk_endpoint *d)
{
    if (stop_resolving(d))
        spk_dialer_fail_later(d, SPOKE_ECANCELED);
    else
        spk_fd_dial_cancel(d);
}

/* ---- listening ---- */

/* Find out what to bind to: SPOKE_EAGAIN while a name is being looked up. */
static int
listen_addresses(struct spk_endpoint *l, struct addresses *a)
{
    int rc;

    if (a->resolving != NULL)
        return SPOKE_EAGAIN;
    if (a->count > 0 || a->error != 0) { /* looked up meanwhile */
        rc = a->error;
        a->error = 0;
        return rc;
    }
    if (l->url.wildcard) {
        (void)add_literal(a, "::", l->url.port); /* both versions; where there is no 6, 4 alone */
        return add_literal(a, "0.0.0.0", l->url.port);
    }
    if ((rc = add_literal(a, l->url.host, l->url.port)) != SPOKE_EHOST)
        return rc;
    if (l->e->backend->is_virtual)
        return virtual_name(a, &l->url);
    return (rc = start_resolving(l, a)) == 0 ? SPOKE_EAGAIN : rc;
}

int
spk_tcp_listen(struct spk_endpoint *l)
{
    struct addresses *a = addresses_of(l);
    int rc;

    if (a == NULL)
        return SPOKE_ENOMEM;
    if ((rc = listen_addresses(l, a)) != 0)
        return rc;
    /* One that is not there makes way for the next; one that is taken does not. */
    rc = SPOKE_EADDRNOTAVAIL;
    for (int i = 0; i < a->count && rc == SPOKE_EADDRNOTAVAIL; i++) {
        l->address = a->list[i];
        l->address_size = a->size[i];
        rc = spk_fd_bind(l);
    }
    a->count = 0;
    if (rc == 0 && (rc = spk_fd_accept(l)) != 0)
        spk_fd_unbind(l);
    return rc;
}

void
spk_tcp_listen_cancel(struct spk_endpoint *l)
{
    (void)stop_resolving(l);
}

int
spk_tcp_listen_address(struct spk_endpoint *l, char *text, size_t size)
{
    return spk_fd_address_text(&l->address, l->address_size, l->transport->scheme, text, size);
}
