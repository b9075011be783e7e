/* SPDX-License-Identifier: MIT */
/* tcp: version 4 and 6.  Names are resolved at each attempt, on a thread of their own, so that the
 * engine never waits for a name server; the addresses that come back are tried in order.  Engine's
 * thread, except resolve_thread(). */
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "runtime/core/transport.h"

#define ADDRESSES 16

/* What is left to try.  Hangs on the dialer as `private`. */
struct addresses {
    struct sockaddr_storage list[ADDRESSES];
    socklen_t size[ADDRESSES];
    int count, next;
    struct resolve *resolving;
};

/* A name that is being looked up.  Shared by the thread and the engine: the dialer may be gone when
 * the answer comes. */
struct resolve {
    struct spk_engine *e;
    struct spk_endpoint *d; /* NULL: nobody wants to know any more */
    char host[256], port[8];
    struct addrinfo *found;
    int error;
};

static void
add_address(struct addresses *a, const void *address, socklen_t size)
{
    if (a->count == ADDRESSES)
        return;
    memcpy(&a->list[a->count], address, size);
    a->size[a->count++] = size;
}

/* 127.0.0.1, ::1, fe80::1%eth0: true if `host` is such and was added. */
static bool
add_literal(struct addresses *a, const char *host, uint16_t port)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    char name[INET6_ADDRSTRLEN];
    const char *scope = strchr(host, '%');
    size_t length = scope != NULL ? (size_t)(scope - host) : strlen(host);

    if (inet_pton(AF_INET, host, &in.sin_addr) == 1) {
        add_address(a, &in, sizeof in);
        return true;
    }
    if (length >= sizeof name)
        return false;
    memcpy(name, host, length);
    name[length] = '\0';
    if (inet_pton(AF_INET6, name, &in6.sin6_addr) != 1)
        return false;
    if (scope != NULL)
        in6.sin6_scope_id = if_nametoindex(scope + 1);
    add_address(a, &in6, sizeof in6);
    return true;
}

/* ---- the local end: a literal or the name of an interface ---- */

static int
interface_address(const char *name, sa_family_t family, struct sockaddr_storage *out,
                  socklen_t *size)
{
    struct ifaddrs *all;
    int rc = SPOKE_ENODEV;

    if (getifaddrs(&all) != 0)
        return SPOKE_ENODEV;
    for (struct ifaddrs *i = all; i != NULL; i = i->ifa_next) {
        if (i->ifa_addr == NULL || i->ifa_addr->sa_family != family ||
            strcmp(i->ifa_name, name) != 0)
            continue;
        *size = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
        memcpy(out, i->ifa_addr, *size);
        rc = 0;
        break;
    }
    freeifaddrs(all);
    return rc;
}

static int
local_address(const struct spk_endpoint *d, struct sockaddr_storage *out, socklen_t *size)
{
    struct addresses *one;
    int rc = 0;

    *size = 0;
    if (d->url.local == NULL || strcmp(d->url.local, "*") == 0)
        return 0;
    if ((one = spk_zalloc(sizeof *one)) == NULL)
        return SPOKE_ENOMEM;
    if (add_literal(one, d->url.local, 0)) {
        *out = one->list[0];
        *size = one->size[0];
    } else {
        rc = interface_address(d->url.local, d->address.ss_family, out, size);
    }
    spk_free(one);
    return rc;
}

/* A local end must exist: an address, or an interface that is there now. */
static int
tcp_check(const struct spk_url *url)
{
    struct in6_addr any;
    const char *local = url->local;

    if (local == NULL || inet_pton(AF_INET, local, &any) == 1 || strchr(local, ':') != NULL)
        return 0;
    return if_nametoindex(local) != 0 ? 0 : SPOKE_ENODEV;
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

static bool
tcp_dial_next(struct spk_endpoint *d)
{
    int rc;

    return try_next(d, &rc);
}

static void
on_resolved(void *ctx)
{
    struct resolve *r = ctx;
    struct spk_endpoint *d = r->d;
    int rc = SPOKE_EHOST;

    if (d != NULL) {
        struct addresses *a = d->private;

        a->resolving = NULL;
        for (struct addrinfo *i = r->error == 0 ? r->found : NULL; i != NULL; i = i->ai_next)
            add_address(a, i->ai_addr, i->ai_addrlen);
        if (d->state != SPK_DIALING)
            spk_dialer_failed(d, SPOKE_ECANCELED);
        else if (!try_next(d, &rc))
            spk_dialer_failed(d, rc);
    }
    if (r->error == 0)
        freeaddrinfo(r->found);
    spk_free(r);
}

static void *
resolve_thread(void *argument)
{
    struct resolve *r = argument;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG};

    r->error = getaddrinfo(r->host, r->port, &hints, &r->found);
    if (spk_engine_post(r->e, on_resolved, r, false) !=
        0) { /* the engine has closed, and waits for nobody */
        if (r->error == 0)
            freeaddrinfo(r->found);
        spk_free(r);
    }
    return NULL;
}

static int
start_resolving(struct spk_endpoint *d, struct addresses *a)
{
    struct resolve *r = spk_zalloc(sizeof *r);
    pthread_attr_t attributes;
    pthread_t thread;
    int rc;

    if (r == NULL)
        return SPOKE_ENOMEM;
    r->e = d->e;
    r->d = d;
    snprintf(r->host, sizeof r->host, "%s", d->url.host);
    snprintf(r->port, sizeof r->port, "%u", d->url.port);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    rc = pthread_create(&thread, &attributes, resolve_thread, r);
    pthread_attr_destroy(&attributes);
    if (rc != 0) {
        spk_free(r);
        return SPOKE_ELIMIT;
    }
    a->resolving = r;
    return 0;
}

static int
start_dial(struct spk_endpoint *d)
{
    struct addresses *a = d->private;
    int rc = SPOKE_EHOST;

    if (a == NULL && (a = d->private = spk_zalloc(sizeof *a)) == NULL)
        return SPOKE_ENOMEM;
    a->count = a->next = 0;
    if (add_literal(a, d->url.host, d->url.port) ||
        (d->e->backend->is_virtual && strcmp(d->url.host, "localhost") == 0 &&
         add_literal(a, "127.0.0.1", d->url.port)))
        return try_next(d, &rc) ? 0 : rc;
    return d->e->backend->is_virtual ? SPOKE_EHOST : start_resolving(d, a);
}

static void
tcp_dial(struct spk_endpoint *d)
{
    int rc = start_dial(d);

    if (rc != 0)
        spk_dialer_fail_later(d, rc);
}

static void
tcp_dial_cancel(struct spk_endpoint *d)
{
    struct addresses *a = d->private;

    if (a != NULL &&
        a->resolving != NULL) { /* the thread goes on by itself; its answer finds nobody */
        a->resolving->d = NULL;
        a->resolving = NULL;
        spk_dialer_fail_later(d, SPOKE_ECANCELED);
        return;
    }
    spk_fd_dial_cancel(d);
}

/* ---- listening ---- */

static int
listen_addresses(struct spk_endpoint *l, struct addresses *a)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    char port[8];

    if (l->url.wildcard) {
        add_literal(a, "::", l->url.port); /* both versions; where there is no 6, 4 alone */
        add_literal(a, "0.0.0.0", l->url.port);
        return 0;
    }
    if (add_literal(a, l->url.host, l->url.port))
        return 0;
    if (l->e->backend->is_virtual)
        return SPOKE_EHOST;
    snprintf(port, sizeof port, "%u", l->url.port);
    if (getaddrinfo(l->url.host, port, &hints, &found) != 0)
        return if_nametoindex(l->url.host) != 0 ? SPOKE_ENODEV : SPOKE_EHOST;
    for (struct addrinfo *i = found; i != NULL; i = i->ai_next)
        add_address(a, i->ai_addr, i->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static int
tcp_listen(struct spk_endpoint *l)
{
    struct addresses *a = spk_zalloc(sizeof *a);
    int rc;

    if (a == NULL)
        return SPOKE_ENOMEM;
    if ((rc = listen_addresses(l, a)) != 0)
        goto free_addresses;
    rc = SPOKE_EHOST;
    for (int i = 0; i < a->count; i++) {
        l->address = a->list[i];
        l->address_size = a->size[i];
        if ((rc = spk_fd_bind(l)) == 0)
            break;
    }
    if (rc == 0 && (rc = spk_fd_accept(l)) != 0)
        spk_fd_unbind(l);
free_addresses:
    spk_free(a);
    return rc;
}

static int
tcp_listen_address(struct spk_endpoint *l, char *text, size_t size)
{
    return spk_fd_address_text(&l->address, l->address_size, text, size);
}

const struct spoke_transport spoke_transport_tcp = {
    .abi = SPOKE_TRANSPORT_ABI,
    .scheme = "tcp",
    .flush_bytes = 64 * 1024,
    .check = tcp_check,
    .dial = tcp_dial,
    .dial_cancel = tcp_dial_cancel,
    .dial_next = tcp_dial_next,
    .listen = tcp_listen,
    .listen_close = spk_fd_listen_close,
    .listen_address = tcp_listen_address,
};
