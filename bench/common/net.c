/* SPDX-License-Identifier: MIT */
/* Only loopback and socket files: a benchmark talks to nobody else. */
#include "net.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

struct address {
    socklen_t len;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } u;
};

static int
complain(const char *what, const char *url)
{
    fprintf(stderr, "bench: cannot %s %s: %s\n", what, url, strerror(errno));
    return -1;
}

static bool
parse_ipc(struct address *a, const char *path)
{
    size_t len = strlen(path);

    a->u.un.sun_family = AF_UNIX;
    a->len = sizeof a->u.un;
    if (len == 0 || len >= sizeof a->u.un.sun_path)
        return false;
    memcpy(a->u.un.sun_path, path, len + 1);
    return true;
}

static bool
parse_port(struct address *a, const char *host)
{
    const char *prefix = "127.0.0.1:";
    unsigned long port;
    char *end;

    if (strncmp(host, prefix, strlen(prefix)) != 0)
        return false;
    port = strtoul(host + strlen(prefix), &end, 10);
    if ((*end != '\0' && *end != '/') || port > 65535)
        return false;
    a->u.in.sin_family = AF_INET;
    a->u.in.sin_port = htons((uint16_t)port);
    a->u.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    a->len = sizeof a->u.in;
    return true;
}

static int
parse(struct address *a, const char *url)
{
    const char *host = strstr(url, "://");
    bool ok = false;

    memset(a, 0, sizeof *a);
    if (host != NULL && strncmp(url, "ipc://", 6) == 0)
        ok = parse_ipc(a, host + 3);
    else if (host != NULL)
        ok = parse_port(a, host + 3);
    if (ok)
        return 0;
    errno = EINVAL;
    return complain("use", url);
}

static void
no_delay(int fd)
{
    int one = 1;

    /* Fails on a unix socket, which has no delay to switch off. */
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* A socket bound to `url`, not yet listening. */
static int
bind_to(const char *url, char actual[BENCH_ADDRESS_MAX])
{
    struct address a;
    int fd, one = 1;

    if (parse(&a, url) != 0)
        return -1;
    fd = socket(a.u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return complain("open", url);
    if (a.u.any.sa_family == AF_INET)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, &a.u.any, a.len) != 0 || getsockname(fd, &a.u.any, &a.len) != 0) {
        complain("listen at", url);
        close(fd);
        return -1;
    }
    if (a.u.any.sa_family == AF_INET)
        snprintf(actual, BENCH_ADDRESS_MAX, "%.*s://127.0.0.1:%u", (int)(strstr(url, "://") - url),
                 url, ntohs(a.u.in.sin_port));
    else
        snprintf(actual, BENCH_ADDRESS_MAX, "%s", url);
    return fd;
}

int
bench_net_listen(const char *url, char actual[BENCH_ADDRESS_MAX])
{
    int fd = bind_to(url, actual);

    if (fd >= 0 && listen(fd, 1024) != 0) {
        complain("listen at", url);
        close(fd);
        return -1;
    }
    return fd;
}

int
bench_net_choose_port(const char *url, char actual[BENCH_ADDRESS_MAX])
{
    int fd = bind_to(url, actual);

    if (fd < 0)
        return -1;
    close(fd);
    return 0;
}

int
bench_net_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return complain("accept from", "the listener");
    no_delay(fd);
    return fd;
}

int
bench_net_connect(const char *url)
{
    struct address a;
    int fd;

    if (parse(&a, url) != 0)
        return -1;
    fd = socket(a.u.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return complain("open", url);
    if (connect(fd, &a.u.any, a.len) != 0) {
        complain("connect to", url);
        close(fd);
        return -1;
    }
    no_delay(fd);
    return fd;
}
