/* SPDX-License-Identifier: MIT */
/* What streams of a carrier may be connected to.  See target.h. */
#include "target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fnmatch.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#define HOST_MOST      253
#define ADDRESSES_MOST 8
#define THREADS_MOST   8
#define URL_MOST       (PATH_MAX + 8)

/* An address of the internet; one of version 4 looks like ::ffff:1.2.3.4. */
struct ip {
    uint8_t bytes[16];
};

enum scheme { SCHEME_TCP, SCHEME_IPC, SCHEME_SHM };

/* What an URL is, cut up. */
struct parts {
    enum scheme scheme;
    char host[HOST_MOST + 1]; /* tcp */
    int port;                 /* tcp; -1: any, in a pattern */
    bool is_ip;
    struct ip ip;
    int length;       /* bits of it that count */
    const char *path; /* ipc, shm: of the URL */
};

struct target_rule {
    struct target_rule *next;
    struct parts parts;
    bool has_star;
    struct ip pinned[ADDRESSES_MOST]; /* of a name */
    int pinned_count;
    char text[]; /* parts.path is in it */
};

struct target_lookup {
    TAILQ_ENTRY(target_lookup) of_queue; /* while it waits for a thread */
    const struct target_list *list;
    spoke_engine *e;
    target_found_f *fn; /* NULL: nobody wants to know any more */
    void *ctx;
    struct parts parts;
    struct ip found[ADDRESSES_MOST]; /* by the thread, then: what is allowed of that */
    int count, at, error;
    bool is_queued;
    bool is_out; /* with a thread, or posted: it comes back */
    char url[URL_MOST];
    char text[]; /* parts.path is in it */
};

/* Main thread's. */
static TAILQ_HEAD(lookup_list, target_lookup) queue = TAILQ_HEAD_INITIALIZER(queue);
static int threads;

/* ---- addresses ---- */

static struct ip
ip_of_v4(const void *address)
{
    struct ip ip = {.bytes = {[10] = 0xff, [11] = 0xff}};

    memcpy(ip.bytes + 12, address, 4);
    return ip;
}

static bool
is_v4(const struct ip *ip)
{
    static const uint8_t front[12] = {[10] = 0xff, [11] = 0xff};

    return memcmp(ip->bytes, front, sizeof front) == 0;
}

/* A literal as inet_pton(3) has it: nothing like 127.1, and no scope. */
static bool
read_ip(const char *text, struct ip *out)
{
    struct in_addr v4;

    if (inet_pton(AF_INET, text, &v4) == 1) {
        *out = ip_of_v4(&v4);
        return true;
    }
    return inet_pton(AF_INET6, text, out->bytes) == 1;
}

static bool
is_within(const struct ip *ip, const struct ip *net, int length)
{
    int whole = length / 8, rest = length % 8;
    uint8_t mask = (uint8_t)(0xff00u >> rest);

    return memcmp(ip->bytes, net->bytes, (size_t)whole) == 0 &&
           (rest == 0 || ((ip->bytes[whole] ^ net->bytes[whole]) & mask) == 0);
}

static void
write_url(char *out, size_t size, const struct ip *ip, int port)
{
    char text[INET6_ADDRSTRLEN] = "";

    if (is_v4(ip)) {
        (void)inet_ntop(AF_INET, ip->bytes + 12, text, sizeof text);
        snprintf(out, size, "tcp://%s:%d", text, port);
    } else {
        (void)inet_ntop(AF_INET6, ip->bytes, text, sizeof text);
        snprintf(out, size, "tcp://[%s]:%d", text, port);
    }
}

/* ---- URLs and patterns ---- */

static bool
read_port(const char *text, bool pattern, int *out)
{
    char *end;
    unsigned long port;

    if (pattern && strcmp(text, "*") == 0) {
        *out = -1;
        return true;
    }
    port = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || port > 65535)
        return false;
    *out = (int)port;
    return true;
}

/* "/8" behind an address; its number is of version 4's 32 or version 6's 128. */
static bool
read_length(const char *text, const struct ip *ip, int *out)
{
    int most = is_v4(ip) ? 32 : 128;
    char *end;
    unsigned long length = strtoul(text, &end, 10);

    if (*text < '0' || *text > '9' || *end != '\0' || length > (unsigned long)most)
        return false;
    *out = (int)length + 128 - most;
    return true;
}

/* Letters, digits and what is between them. */
static bool
is_name(const char *text, bool pattern)
{
    static const char all[] = "*abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._";

    return *text != '\0' && *text != '-' && text[strspn(text, pattern ? all : all + 1)] == '\0';
}

static bool
read_host(char *host, bool pattern, struct parts *out)
{
    size_t size = strlen(host);
    char *slash = pattern ? strchr(host, '/') : NULL;
    bool bracket = *host == '[';

    if (slash != NULL) {
        *slash = '\0';
        size = (size_t)(slash - host);
    }
    if (bracket && host[size - 1] != ']')
        return false;
    if (bracket) {
        host[size - 1] = '\0';
        memmove(host, host + 1, size - 1);
    } else if (size > 1 && host[size - 1] == '.') {
        host[size - 1] = '\0';
    }
    out->length = 128;
    out->is_ip = read_ip(host, &out->ip);
    if (slash != NULL)
        return out->is_ip && read_length(slash + 1, &out->ip, &out->length);
    return out->is_ip || (!bracket && is_name(host, pattern));
}

/* tcp://HOST:PORT, without anything else that a dialer may be told. */
static bool
read_tcp(const char *rest, bool pattern, struct parts *out)
{
    const char *colon = strrchr(rest, ':');
    size_t size = colon == NULL ? 0 : (size_t)(colon - rest);

    if (size == 0 || size > HOST_MOST || !read_port(colon + 1, pattern, &out->port))
        return false;
    memcpy(out->host, rest, size);
    out->host[size] = '\0';
    return read_host(out->host, pattern, out);
}

static bool
read_parts(const char *url, bool pattern, struct parts *out)
{
    memset(out, 0, sizeof *out);
    if (strncmp(url, "tcp://", 6) == 0) {
        out->scheme = SCHEME_TCP;
        return read_tcp(url + 6, pattern, out);
    }
    if (strncmp(url, "ipc://", 6) == 0)
        out->scheme = SCHEME_IPC;
    else if (strncmp(url, "shm://", 6) == 0)
        out->scheme = SCHEME_SHM;
    else
        return false;
    out->path = url + 6;
    return *out->path != '\0' && strlen(out->path) < PATH_MAX;
}

/* ---- what is allowed ---- */

static bool
fits_port(const struct target_rule *r, int port)
{
    return r->parts.port < 0 || r->parts.port == port;
}

static bool
fits_ip(const struct target_rule *r, const struct ip *ip, int port)
{
    if (r->parts.scheme != SCHEME_TCP || !fits_port(r, port))
        return false;
    return r->parts.is_ip ? is_within(ip, &r->parts.ip, r->parts.length)
                          : strcmp(r->parts.host, "*") == 0;
}

static bool
fits_path(const struct target_rule *r, enum scheme scheme, const char *path)
{
    if (r->parts.scheme != scheme)
        return false;
    return strcmp(r->parts.path, path) == 0 ||
           (r->has_star && fnmatch(r->parts.path, path, FNM_PATHNAME | FNM_PERIOD) == 0);
}

/* As it is written. */
static bool
fits(const struct target_rule *r, const struct parts *p)
{
    if (p->scheme != SCHEME_TCP)
        return fits_path(r, p->scheme, p->path);
    if (p->is_ip)
        return fits_ip(r, &p->ip, p->port);
    return r->parts.scheme == SCHEME_TCP && !r->parts.is_ip && fits_port(r, p->port) &&
           fnmatch(r->parts.host, p->host, FNM_CASEFOLD) == 0;
}

static bool
is_pinned(const struct target_rule *r, const struct ip *ip)
{
    for (int i = 0; i < r->pinned_count; i++) {
        if (memcmp(&r->pinned[i], ip, sizeof *ip) == 0)
            return true;
    }
    return false;
}

/* May this address be dialled for this target, which is listed? */
static bool
may_be(const struct target_list *list, const struct parts *p, const struct ip *ip)
{
    for (const struct target_rule *r = list->rules; r != NULL; r = r->next) {
        if (fits_ip(r, ip, p->port) || (fits(r, p) && is_pinned(r, ip)))
            return true;
    }
    return false;
}

static bool
is_listed(const struct target_list *list, const struct parts *p)
{
    for (const struct target_rule *r = list->rules; r != NULL; r = r->next) {
        if (fits(r, p))
            return true;
    }
    return false;
}

bool
target_is_listed(const struct target_list *list, const char *url)
{
    struct parts p;

    return read_parts(url, false, &p) && is_listed(list, &p);
}

bool
target_may_listen(const struct target_list *list, const char *url, char *out, size_t size)
{
    struct parts p;

    if (!read_parts(url, false, &p) || !is_listed(list, &p) || (p.scheme == SCHEME_TCP && !p.is_ip))
        return false;
    if (p.scheme == SCHEME_TCP)
        write_url(out, size, &p.ip, p.port);
    else
        snprintf(out, size, "%s", url);
    return true;
}

/* The addresses of a name; false: it has none. */
static bool
resolve(const char *host, struct ip found[ADDRESSES_MOST], int *count)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all;

    *count = 0;
    if (getaddrinfo(host, NULL, &hints, &all) != 0)
        return false;
    for (struct addrinfo *a = all; a != NULL && *count < ADDRESSES_MOST; a = a->ai_next) {
        if (a->ai_family == AF_INET)
            found[(*count)++] = ip_of_v4(
                &((const struct sockaddr_in *)(const void *)a->ai_addr)->sin_addr);
        else if (a->ai_family == AF_INET6)
            memcpy(&found[(*count)++],
                   &((const struct sockaddr_in6 *)(const void *)a->ai_addr)->sin6_addr,
                   sizeof(struct ip));
    }
    freeaddrinfo(all);
    return *count > 0;
}

bool
target_allow(struct target_list *list, const char *pattern)
{
    size_t size = strlen(pattern) + 1;
    struct target_rule *r;

    if ((r = calloc(1, sizeof *r + size)) == NULL) {
        (void)tool_api_error("start", NULL, SPOKE_ENOMEM);
        return false;
    }
    memcpy(r->text, pattern, size);
    r->has_star = strchr(pattern, '*') != NULL;
    if (!read_parts(r->text, true, &r->parts)) {
        tool_error("\"%s\" is nothing that can be allowed: write it as tcp://HOST:PORT or "
                   "ipc://PATH, perhaps with *",
                   pattern);
        free(r);
        return false;
    }
    if (r->parts.scheme == SCHEME_TCP && !r->parts.is_ip && strchr(r->parts.host, '*') == NULL &&
        !resolve(r->parts.host, r->pinned, &r->pinned_count)) {
        tool_error("cannot allow %s: there is no address of that name: check it", pattern);
        free(r);
        return false;
    }
    r->next = list->rules;
    list->rules = r;
    return true;
}

/* ---- looking up ---- */

static void on_found(void *ctx);

static void *
look_up_aside(void *ctx)
{
    struct target_lookup *l = ctx;

    if (!resolve(l->parts.host, l->found, &l->count))
        l->error = SPOKE_EHOST;
    if (spoke_engine_post(l->e, on_found, l) != 0)
        free(l); /* the engine is closed */
    return NULL;
}

static void
start_threads(void)
{
    while (!TAILQ_EMPTY(&queue) && threads < THREADS_MOST) {
        struct target_lookup *l = TAILQ_FIRST(&queue);
        pthread_t thread;

        TAILQ_REMOVE(&queue, l, of_queue);
        l->is_queued = false;
        l->is_out = true;
        threads++;
        if (pthread_create(&thread, NULL, look_up_aside, l) == 0) {
            (void)pthread_detach(thread);
            continue;
        }
        l->error = SPOKE_ELIMIT;
        if (spoke_engine_post(l->e, on_found, l) != 0)
            free(l);
    }
}

/* Only those that are allowed stay. */
static uint64_t
judge_addresses(struct target_lookup *l)
{
    int fine = 0;

    for (int i = 0; i < l->count; i++) {
        if (may_be(l->list, &l->parts, &l->found[i]))
            l->found[fine++] = l->found[i];
    }
    l->count = fine;
    if (fine == 0)
        return SPOKE_MUX_NOT_PERMITTED;
    write_url(l->url, sizeof l->url, &l->found[0], l->parts.port);
    return SPOKE_MUX_NONE;
}

/* A pattern lets in what is there, not what a link there leads to; a path that is listed as it is
 * may be one. */
static uint64_t
judge_path(struct target_lookup *l)
{
    char path[PATH_MAX];

    snprintf(l->url, sizeof l->url, "%s", l->text);
    for (const struct target_rule *r = l->list->rules; r != NULL; r = r->next) {
        if (!r->has_star && fits(r, &l->parts))
            return SPOKE_MUX_NONE;
    }
    if (*l->parts.path == '@')
        return SPOKE_MUX_NONE;
    if (realpath(l->parts.path, path) == NULL) {
        l->error = errno == EACCES ? SPOKE_EACCES : SPOKE_ENOENT;
        return SPOKE_MUX_NONE;
    }
    snprintf(l->url, sizeof l->url, "%.6s%s", l->text, path);
    l->parts.path = path;
    bool listed = is_listed(l->list, &l->parts);
    l->parts.path = NULL;
    return listed ? SPOKE_MUX_NONE : SPOKE_MUX_NOT_PERMITTED;
}

static uint64_t
judge(struct target_lookup *l)
{
    if (l->error != 0)
        return SPOKE_MUX_NONE;
    if (!is_listed(l->list, &l->parts))
        return SPOKE_MUX_NOT_PERMITTED;
    return l->parts.scheme == SCHEME_TCP ? judge_addresses(l) : judge_path(l);
}

static bool
is_looked_up_aside(const struct target_lookup *l)
{
    return l->parts.scheme == SCHEME_TCP && !l->parts.is_ip;
}

static void
on_found(void *ctx)
{
    struct target_lookup *l = ctx;
    uint64_t code;

    if (is_looked_up_aside(l)) {
        threads--;
        start_threads();
    }
    l->is_out = false;
    if (l->fn == NULL) {
        free(l);
        return;
    }
    code = judge(l);
    l->fn(l->ctx, l->error, code);
}

struct target_lookup *
target_look_up(const struct target_list *list, const char *url, spoke_engine *e, target_found_f *fn,
               void *ctx)
{
    size_t size = strlen(url) + 1;
    struct target_lookup *l = calloc(1, sizeof *l + size);

    if (l == NULL)
        return NULL;
    memcpy(l->text, url, size);
    l->list = list;
    l->e = e;
    l->fn = fn;
    l->ctx = ctx;
    if (!read_parts(l->text, false, &l->parts))
        l->error = SPOKE_EURL;
    if (l->error == 0 && is_looked_up_aside(l)) {
        TAILQ_INSERT_TAIL(&queue, l, of_queue);
        l->is_queued = true;
        start_threads();
        return l;
    }
    l->found[0] = l->parts.ip;
    l->count = 1;
    l->is_out = true;
    if (spoke_engine_post(e, on_found, l) == 0)
        return l;
    free(l);
    return NULL;
}

const char *
target_lookup_url(const struct target_lookup *l)
{
    return l->url;
}

bool
target_lookup_next(struct target_lookup *l)
{
    if (l->at + 1 >= l->count)
        return false;
    write_url(l->url, sizeof l->url, &l->found[++l->at], l->parts.port);
    return true;
}

void
target_lookup_drop(struct target_lookup *l)
{
    if (l->is_queued)
        TAILQ_REMOVE(&queue, l, of_queue);
    if (l->is_out)
        l->fn = NULL;
    else
        free(l);
}
