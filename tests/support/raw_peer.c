/* SPDX-License-Identifier: MIT */
/* The plain-socket peer: non-blocking descriptors and poll(), one deadline for each call. */
#include "tests/support/raw_peer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define IN_BAND     1u
#define URL_MAX     150u
#define BACKLOG     128
#define PAYLOAD_MAX 65536u /* of raw_send_words() */

static void (*idle_fn)(void *ctx);
static void *idle_ctx;

void
raw_set_idle(void (*fn)(void *ctx), void *ctx)
{
    idle_fn = fn;
    idle_ctx = ctx;
}

static int64_t
now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Wait for `events` on `fd` until `deadline`, letting the test's engine run meanwhile. */
static int
wait_for(int fd, short events, int64_t deadline)
{
    for (;;) {
        int64_t left = deadline - now_ms();
        struct pollfd ready = {.fd = fd, .events = events};
        int step = left < 0 ? 0 : (int)left;

        if (idle_fn != NULL) {
            idle_fn(idle_ctx);
            step = step > 1 ? 1 : step;
        }
        int count = poll(&ready, 1, step);
        if (count > 0)
            return RAW_OK;
        if (count < 0 && errno != EINTR)
            return RAW_FAILED;
        if (left <= 0)
            return RAW_TIMEOUT;
    }
}

/* Returns the time afterwards. */
static int64_t
pause_ms(int duration_ms)
{
    (void)wait_for(-1, 0, now_ms() + duration_ms);
    return now_ms();
}

/* ---- addresses ---- */

struct address {
    bool ipc;
    socklen_t size;
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    } to;
};

static int
parse_ipc(struct address *a, const char *path)
{
    size_t length = strlen(path);

    if (length == 0 || length >= sizeof a->to.un.sun_path)
        return RAW_FAILED;
    a->ipc = true;
    a->to.un.sun_family = AF_UNIX;
    memcpy(a->to.un.sun_path, path, length);
    a->size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    if (path[0] == '@')
        a->to.un.sun_path[0] = '\0'; /* abstract: the name has no end but the size */
    else
        a->size++;
    return RAW_OK;
}

static int
parse_tcp(struct address *a, const char *text)
{
    char host[INET_ADDRSTRLEN];
    const char *colon = strrchr(text, ':');

    if (colon == NULL || (size_t)(colon - text) >= sizeof host)
        return RAW_FAILED;
    memcpy(host, text, (size_t)(colon - text));
    host[colon - text] = '\0';
    unsigned long port = strtoul(colon + 1, NULL, 10);
    if (port > UINT16_MAX)
        return RAW_FAILED;
    a->to.in.sin_family = AF_INET;
    a->to.in.sin_port = htons((uint16_t)port);
    a->size = sizeof a->to.in;
    return inet_pton(AF_INET, host, &a->to.in.sin_addr) == 1 ? RAW_OK : RAW_FAILED;
}

static int
parse(struct address *a, const char *url)
{
    memset(a, 0, sizeof *a);
    errno = EINVAL;
    if (strlen(url) > URL_MAX)
        return RAW_FAILED;
    if (strncmp(url, "ipc://", 6) == 0 || strncmp(url, "shm://", 6) == 0)
        return parse_ipc(a, url + 6);
    if (strncmp(url, "tls+", 4) == 0) /* what is below is tcp */
        url += 4;
    if (strncmp(url, "tcp://", 6) == 0)
        return parse_tcp(a, url + 6);
    return RAW_FAILED;
}

static int
open_socket(const struct address *a)
{
    return socket(a->to.any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

/* Messages go out at once: a test that sends a byte at a time means it. */
static void
set_nodelay(const struct raw_peer *p)
{
    int on = 1;

    if (!p->ipc)
        (void)setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

/* ---- listeners ---- */

static void
name_listener(struct raw_listener *l, const char *url)
{
    struct sockaddr_in in = {0};
    socklen_t size = sizeof in;
    char host[INET_ADDRSTRLEN];

    snprintf(l->url, sizeof l->url, "%s", url);
    if (l->ipc || getsockname(l->fd, (struct sockaddr *)&in, &size) != 0)
        return;
    inet_ntop(AF_INET, &in.sin_addr, host, sizeof host);
    snprintf(l->url, sizeof l->url, "tcp://%s:%u", host, (unsigned)ntohs(in.sin_port));
}

int
raw_listen(struct raw_listener *l, const char *url)
{
    struct address a;
    int on = 1;

    *l = (struct raw_listener){.fd = -1};
    if (parse(&a, url) != RAW_OK)
        return RAW_FAILED;
    l->ipc = a.ipc;
    l->fd = open_socket(&a);
    if (l->fd < 0)
        return RAW_FAILED;
    if (!l->ipc)
        (void)setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(l->fd, &a.to.any, a.size) != 0 || listen(l->fd, BACKLOG) != 0) {
        close(l->fd);
        l->fd = -1;
        return RAW_FAILED;
    }
    name_listener(l, url);
    return RAW_OK;
}

int
raw_accept(struct raw_listener *l, struct raw_peer *p, int limit_ms)
{
    int64_t deadline = now_ms() + limit_ms;

    *p = (struct raw_peer){.fd = -1, .ipc = l->ipc};
    for (;;) {
        int rc = wait_for(l->fd, POLLIN, deadline);
        if (rc != RAW_OK)
            return rc;
        p->fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (p->fd >= 0)
            break;
        if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR)
            return RAW_FAILED;
    }
    set_nodelay(p);
    return RAW_OK;
}

void
raw_listener_close(struct raw_listener *l)
{
    if (l->fd < 0)
        return;
    close(l->fd);
    l->fd = -1;
    if (l->ipc && l->url[6] != '@')
        unlink(l->url + 6);
}

/* ---- connections ---- */

static int
finish_connect(struct raw_peer *p, int64_t deadline)
{
    int error = 0;
    socklen_t size = sizeof error;
    int rc = wait_for(p->fd, POLLOUT, deadline);

    if (rc != RAW_OK)
        return rc;
    if (getsockopt(p->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        return RAW_FAILED;
    errno = error;
    return error == 0 ? RAW_OK : RAW_FAILED;
}

int
raw_connect(struct raw_peer *p, const char *url, int limit_ms)
{
    struct address a;
    int64_t deadline = now_ms() + limit_ms;
    int rc = RAW_OK;

    *p = (struct raw_peer){.fd = -1};
    if (parse(&a, url) != RAW_OK)
        return RAW_FAILED;
    p->ipc = a.ipc;
    p->fd = open_socket(&a);
    if (p->fd < 0)
        return RAW_FAILED;
    set_nodelay(p);
    while (connect(p->fd, &a.to.any, a.size) != 0) {
        if (errno == EISCONN)
            break;
        if (errno == EAGAIN) /* ipc: the backlog is full, which poll() cannot wait for */
            rc = pause_ms(1) < deadline ? RAW_OK : RAW_TIMEOUT;
        else
            rc = errno == EINPROGRESS ? finish_connect(p, deadline) : RAW_FAILED;
        if (rc != RAW_OK)
            break;
    }
    if (rc != RAW_OK)
        raw_close(p);
    return rc;
}

void
raw_close(struct raw_peer *p)
{
    int error = errno;

    if (p->fd >= 0)
        close(p->fd);
    p->fd = -1;
    errno = error;
}

void
raw_reset(struct raw_peer *p)
{
    struct linger at_once = {.l_onoff = 1};

    if (p->fd >= 0)
        (void)setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
    raw_close(p);
}

int
raw_end(struct raw_peer *p)
{
    return shutdown(p->fd, SHUT_WR) == 0 ? RAW_OK : RAW_FAILED;
}

/* ---- bytes ---- */

static bool
connection_is_gone(void)
{
    return errno == ECONNRESET || errno == EPIPE || errno == ENOTCONN;
}

int
raw_send_bytes(struct raw_peer *p, const void *data, size_t size, int limit_ms)
{
    const uint8_t *at = data;
    int64_t deadline = now_ms() + limit_ms;

    while (size > 0) {
        ssize_t sent = send(p->fd, at, size, MSG_NOSIGNAL);
        if (sent >= 0) {
            at += sent;
            size -= (size_t)sent;
            continue;
        }
        if (connection_is_gone())
            return RAW_EOF;
        if (errno != EAGAIN && errno != EINTR)
            return RAW_FAILED;
        int rc = wait_for(p->fd, POLLOUT, deadline);
        if (rc != RAW_OK)
            return rc;
    }
    return RAW_OK;
}

/* At least one byte, at most `size`; how many, or a result. */
static long
recv_some(struct raw_peer *p, void *data, size_t size, int64_t deadline)
{
    for (;;) {
        ssize_t got = recv(p->fd, data, size, 0);
        if (got > 0)
            return got;
        if (got == 0 || connection_is_gone())
            return RAW_EOF;
        if (errno != EAGAIN && errno != EINTR)
            return RAW_FAILED;
        int rc = wait_for(p->fd, POLLIN, deadline);
        if (rc != RAW_OK)
            return rc;
    }
}

int
raw_recv_bytes(struct raw_peer *p, void *data, size_t size, int limit_ms)
{
    uint8_t *at = data;
    int64_t deadline = now_ms() + limit_ms;

    while (size > 0) {
        long got = recv_some(p, at, size, deadline);
        if (got < 0)
            return (int)got;
        at += got;
        size -= (size_t)got;
    }
    return RAW_OK;
}

int
raw_wait_eof(struct raw_peer *p, int limit_ms)
{
    uint8_t waste[4096];
    int64_t deadline = now_ms() + limit_ms;
    long got;

    do
        got = recv_some(p, waste, sizeof waste, deadline);
    while (got > 0);
    return got == RAW_EOF ? RAW_OK : (int)got;
}

bool
raw_is_quiet(struct raw_peer *p, int limit_ms)
{
    return wait_for(p->fd, POLLIN, now_ms() + limit_ms) == RAW_TIMEOUT;
}

/* ---- SP ---- */

uint32_t
raw_get32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

void
raw_put32(uint8_t *bytes, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(word >> (24 - 8 * i));
}

void
raw_header(uint8_t header[RAW_HANDSHAKE_BYTES], uint16_t protocol)
{
    const uint8_t bytes[] = {0, 'S', 'P', 0, (uint8_t)(protocol >> 8), (uint8_t)protocol, 0, 0};

    memcpy(header, bytes, sizeof bytes);
}

int
raw_handshake(struct raw_peer *p, uint16_t ours, uint16_t theirs, int limit_ms)
{
    uint8_t header[RAW_HANDSHAKE_BYTES], wanted[RAW_HANDSHAKE_BYTES];
    int rc;

    raw_header(header, ours);
    raw_header(wanted, theirs);
    if ((rc = raw_send_bytes(p, header, sizeof header, limit_ms)) != RAW_OK)
        return rc;
    if ((rc = raw_recv_bytes(p, header, sizeof header, limit_ms)) != RAW_OK)
        return rc;
    return memcmp(header, wanted, sizeof header) == 0 ? RAW_OK : RAW_BAD;
}

static int
shake_or_close(struct raw_peer *p, uint16_t ours, uint16_t theirs)
{
    int rc = raw_handshake(p, ours, theirs, RAW_LIMIT_MS);

    if (rc != RAW_OK)
        raw_close(p);
    return rc;
}

int
raw_dial_sp(struct raw_peer *p, const char *url, uint16_t ours, uint16_t theirs)
{
    int rc = raw_connect(p, url, RAW_LIMIT_MS);

    return rc != RAW_OK ? rc : shake_or_close(p, ours, theirs);
}

int
raw_accept_sp(struct raw_listener *l, struct raw_peer *p, uint16_t ours, uint16_t theirs)
{
    int rc = raw_accept(l, p, RAW_LIMIT_MS);

    return rc != RAW_OK ? rc : shake_or_close(p, ours, theirs);
}

size_t
raw_prefix(const struct raw_peer *p, uint8_t prefix[RAW_IPC_PREFIX_BYTES], uint64_t length)
{
    uint8_t *at = prefix;

    if (p->ipc)
        *at++ = IN_BAND;
    raw_put32(at, (uint32_t)(length >> 32));
    raw_put32(at + 4, (uint32_t)length);
    return p->ipc ? RAW_IPC_PREFIX_BYTES : RAW_TCP_PREFIX_BYTES;
}

/* In one piece, as far as the kernel has room: who refuses a length must not see it alone. */
int
raw_send(struct raw_peer *p, const void *data, size_t size)
{
    uint8_t prefix[RAW_IPC_PREFIX_BYTES];
    size_t prefix_size = raw_prefix(p, prefix, size);
    struct iovec parts[] = {{prefix, prefix_size}, {(void *)(uintptr_t)data, size}};
    struct msghdr all = {.msg_iov = parts, .msg_iovlen = 2};
    ssize_t sent = sendmsg(p->fd, &all, MSG_NOSIGNAL);
    size_t done = sent > 0 ? (size_t)sent : 0;

    if (done < prefix_size) {
        int rc = raw_send_bytes(p, prefix + done, prefix_size - done, RAW_LIMIT_MS);
        return rc != RAW_OK ? rc : raw_send_bytes(p, data, size, RAW_LIMIT_MS);
    }
    done -= prefix_size;
    return raw_send_bytes(p, (const uint8_t *)data + done, size - done, RAW_LIMIT_MS);
}

int
raw_send_words(struct raw_peer *p, const uint32_t *words, size_t count, const char *text)
{
    uint8_t payload[PAYLOAD_MAX];
    size_t length = strlen(text);

    errno = EMSGSIZE;
    if (count > sizeof payload / 4 || length > sizeof payload - 4 * count)
        return RAW_FAILED;
    for (size_t i = 0; i < count; i++)
        raw_put32(payload + 4 * i, words[i]);
    memcpy(payload + 4 * count, text, length);
    return raw_send(p, payload, 4 * count + length);
}

long
raw_recv(struct raw_peer *p, void *data, size_t capacity, int limit_ms)
{
    uint8_t prefix[RAW_IPC_PREFIX_BYTES] = {0};
    size_t prefix_size = p->ipc ? RAW_IPC_PREFIX_BYTES : RAW_TCP_PREFIX_BYTES;
    const uint8_t *length = prefix + prefix_size - RAW_TCP_PREFIX_BYTES;
    int rc = raw_recv_bytes(p, prefix, prefix_size, limit_ms);

    if (rc != RAW_OK)
        return rc;
    uint64_t size = (uint64_t)raw_get32(length) << 32 | raw_get32(length + 4);
    if ((p->ipc && prefix[0] != IN_BAND) || size > capacity)
        return RAW_BAD;
    rc = raw_recv_bytes(p, data, (size_t)size, limit_ms);
    return rc != RAW_OK ? rc : (long)size;
}
