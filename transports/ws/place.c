/* SPDX-License-Identifier: MIT */
/* Listeners that share an address and differ in their path.  The first one on an engine has the
 * listening socket, and hands what is for others over to them; when it closes the next one takes
 * the socket.  Listeners on other engines find the address in use, as with tcp. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "transports/ws/http.h"
#include "transports/ws/ws.h"

struct place {
    struct spk_link link;
    struct spk_endpoint *l;
    bool is_guest; /* another one has the socket */
    char path[];
};

static pthread_mutex_t places_lock = PTHREAD_MUTEX_INITIALIZER;
SPK_FREE_AFTER_FORK(places_lock)
static struct spk_link places = {&places, &places};

/* The port that it has if it asked for any. */
static uint16_t
port_of(const struct spk_endpoint *l)
{
    const struct sockaddr_in *bound = (const struct sockaddr_in *)&l->address; /* or of version 6 */

    return l->url.port != 0 ? l->url.port : ntohs(bound->sin_port);
}

static bool
is_same_host(const struct spk_endpoint *one, const struct spk_endpoint *other)
{
    const struct spk_url *a = &one->url, *b = &other->url;

    if (a->transport != b->transport || a->family != b->family || a->wildcard != b->wildcard)
        return false;
    return port_of(one) == port_of(other) && (a->wildcard || strcmp(a->host, b->host) == 0);
}

/* Of the same engine, so nobody else touches what is found. */
static bool
is_beside(const struct place *p, const struct spk_endpoint *l)
{
    return p->l != l && p->l->e == l->e && spk_engine_is_ours(l->e) && is_same_host(p->l, l);
}

static struct place *
place_of(const struct spk_endpoint *l)
{
    SPK_LIST_EACH(link, &places)
    {
        struct place *p = SPK_OWNER(link, struct place, link);

        if (p->l == l)
            return p;
    }
    return NULL;
}

static struct place *
place_beside(const struct spk_endpoint *l, const char *path, bool host_only)
{
    SPK_LIST_EACH(link, &places)
    {
        struct place *p = SPK_OWNER(link, struct place, link);

        if (is_beside(p, l) && (path == NULL || strcmp(p->path, path) == 0) &&
            !(host_only && p->is_guest))
            return p;
    }
    return NULL;
}

static int
new_place(struct place **out, struct spk_endpoint *l)
{
    const char *path = l->url.path == NULL || *l->url.path == '?' ? "/" : l->url.path;
    struct place *p = spk_zalloc(sizeof *p + strlen(path) + 1);

    if ((*out = p) == NULL)
        return SPOKE_ENOMEM;
    p->l = l;
    strcpy(p->path, path);
    return ws_http_path(p->path) ? 0 : SPOKE_EURL;
}

/* At the address of one that listens: with it.  Else by `listen`. */
int
ws_place_listen(struct spk_endpoint *l, int (*listen)(struct spk_endpoint *l))
{
    struct place *p, *host;
    bool taken;
    int rc = new_place(&p, l);

    if (rc == 0) {
        pthread_mutex_lock(&places_lock);
        host = l->url.port == 0 ? NULL : place_beside(l, NULL, true);
        taken = host != NULL && place_beside(l, p->path, false) != NULL;
        pthread_mutex_unlock(&places_lock);
        if (host == NULL) {
            rc = listen(l);
        } else {
            l->address = host->l->address;
            l->address_size = host->l->address_size;
            p->is_guest = true;
            rc = taken ? SPOKE_EADDRINUSE : 0;
        }
    }
    if (rc != 0) {
        spk_free(p);
        return rc;
    }
    pthread_mutex_lock(&places_lock);
    spk_list_append(&places, &p->link);
    pthread_mutex_unlock(&places_lock);
    return 0;
}

/* Take the socket over, and go on accepting. */
static bool
inherit(struct place *heir, const struct spk_endpoint *l)
{
    heir->l->fd = fcntl(l->fd, F_DUPFD_CLOEXEC, 3);
    if (heir->l->fd < 0)
        return false;
    heir->is_guest = spk_fd_accept(heir->l) != 0;
    if (heir->is_guest)
        spk_fd_unbind(heir->l);
    return !heir->is_guest;
}

void
ws_place_close(struct spk_endpoint *l)
{
    struct place *p, *heir = NULL;
    bool is_guest;

    pthread_mutex_lock(&places_lock);
    p = place_of(l);
    is_guest = p->is_guest;
    spk_list_remove(&p->link);
    if (!is_guest && !l->e->backend->is_virtual)
        heir = place_beside(l, NULL, false);
    pthread_mutex_unlock(&places_lock);
    spk_free(p);
    if (heir != NULL && !inherit(heir, l))
        spk_listener_failed(heir->l, SPOKE_ELIMIT);
    if (is_guest)
        spk_listener_closed(l);
    else
        spk_fd_listen_close(l);
}

void
ws_place_pause(struct spk_endpoint *l, bool pause)
{
    if (l->fd >= 0)
        spk_fd_listen_pause(l, pause);
}

/* How much of `path` is the listener's own, and one more if that is all of it; 0: it is not for it.
 */
static size_t
closeness(const struct place *p, const char *path)
{
    size_t size = strlen(p->path);

    if (strcmp(p->path, path) == 0)
        return size + 1;
    if (!p->l->options.ws_below || strncmp(p->path, path, size) != 0)
        return 0;
    return p->path[size - 1] == '/' || path[size] == '/' ? size : 0;
}

struct spk_endpoint *
ws_place_find(struct spk_endpoint *l, const char *path)
{
    struct spk_endpoint *found = NULL;
    size_t best = 0;

    pthread_mutex_lock(&places_lock);
    SPK_LIST_EACH(link, &places)
    {
        const struct place *p = SPK_OWNER(link, struct place, link);
        size_t here = p->l == l || is_beside(p, l) ? closeness(p, path) : 0;

        if (here > best) {
            best = here;
            found = p->l;
        }
    }
    pthread_mutex_unlock(&places_lock);
    return found;
}

const char *
ws_place_directory(struct spk_endpoint *l)
{
    const char *directory = spk_text_of(l->options.ws_directory);

    pthread_mutex_lock(&places_lock);
    SPK_LIST_EACH(link, &places)
    {
        struct place *p = SPK_OWNER(link, struct place, link);

        if (directory[0] == '\0' && is_beside(p, l))
            directory = spk_text_of(p->l->options.ws_directory);
    }
    pthread_mutex_unlock(&places_lock);
    return directory;
}
