/* SPDX-License-Identifier: MIT */
#include "tests/tool/sockets.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- sockets ---- */

struct address {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_un un;
    };
    socklen_t size;
};

static struct address
address_of(const char *url)
{
    struct address a;

    memset(&a, 0, sizeof a);
    if (strncmp(url, "tcp://", 6) == 0) {
        a.in.sin_family = AF_INET;
        a.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        a.in.sin_port = htons((uint16_t)atoi(strrchr(url, ':') + 1));
        a.size = sizeof a.in;
    } else {
        a.un.sun_family = AF_UNIX;
        snprintf(a.un.sun_path, sizeof a.un.sun_path, "%s", url + 6);
        a.size = sizeof a.un;
    }
    return a;
}

/* No call on it waits longer than a test may. */
static int
new_socket(int family)
{
    struct timeval limit = {.tv_sec = PATIENCE_MS / 1000};
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    cr_assert(fd >= 0);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit), 0);
    return fd;
}

int
try_connect(const char *url)
{
    struct address a = address_of(url);
    int fd = new_socket(a.any.sa_family);

    if (connect(fd, &a.any, a.size) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

/* A socket file is there before it listens. */
int
connect_to(const char *url)
{
    int fd = try_connect(url);

    for (int i = 0; i < PATIENCE_MS && fd < 0 && errno == ECONNREFUSED; i++) {
        usleep(1000);
        fd = try_connect(url);
    }
    cr_assert(fd >= 0, "%s: %s", url, strerror(errno));
    return fd;
}

/* The kernel takes a moment to close what a killed process had in an io_uring. */
void
await_free(const char *url)
{
    int fd;

    for (int i = 0; (fd = try_connect(url)) >= 0; i++) {
        close(fd);
        cr_assert_lt(i, PATIENCE_MS, "%s: somebody listens still", url);
        usleep(1000);
    }
}

/* A socket that listens; its URL is in `url`. */
int
target_open(enum scheme scheme, char url[128])
{
    struct sockaddr_in in = {.sin_port = 0};
    socklen_t size = sizeof in;
    struct address a;
    int fd;

    if (scheme == TCP)
        strcpy(url, "tcp://127.0.0.1:0");
    else
        snprintf(url, 128, "ipc://%s/target", test_directory);
    a = address_of(url);
    fd = new_socket(a.any.sa_family);
    cr_assert_eq(bind(fd, &a.any, a.size), 0);
    cr_assert_eq(listen(fd, 4096), 0);
    if (scheme == TCP) {
        cr_assert_eq(getsockname(fd, (struct sockaddr *)&in, &size), 0);
        sprintf(url, "tcp://127.0.0.1:%d", ntohs(in.sin_port));
    }
    return fd;
}

int
accept_one(int listener)
{
    struct timeval limit = {.tv_sec = PATIENCE_MS / 1000};
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

    cr_assert(fd >= 0, "nobody came: %s", strerror(errno));
    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
    return fd;
}

void
send_text(int fd, const char *text)
{
    cr_assert_eq(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

void
expect_text(int fd, const char *text)
{
    char got[64] = "";
    size_t size = strlen(text);

    cr_assert_eq(recv(fd, got, size, MSG_WAITALL), (ssize_t)size, "%s", strerror(errno));
    cr_assert_str_eq(got, text);
}

void
expect_end(int fd)
{
    char byte;

    cr_assert_eq(recv(fd, &byte, 1, 0), 0);
}

/* An end, or an error: not silence. */
void
expect_broken(int fd)
{
    char byte;
    ssize_t got = recv(fd, &byte, 1, 0);

    cr_assert(got == 0 || (got < 0 && (errno == ECONNRESET || errno == EPIPE)), "%zd, %s", got,
              strerror(errno));
}

void
expect_reset(int fd)
{
    char byte;

    cr_assert_eq(recv(fd, &byte, 1, 0), -1);
    cr_assert_eq(errno, ECONNRESET, "%s: no silent end", strerror(errno));
}

void
reset(int fd)
{
    struct linger now = {.l_onoff = 1};

    cr_assert_eq(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(fd);
}

/* ---- programs ---- */

void
wait_error(struct program *p, const char *text)
{
    for (int i = 0; i < PATIENCE_MS; i++) {
        program_look(p);
        if (strstr(p->err, text) != NULL)
            return;
        usleep(1000);
    }
    cr_assert_fail("no \"%s\" in: %s%s", text, p->out, p->err);
}

/* A line that begins so. */
bool
has_line(const char *text, const char *line)
{
    const char *at = text;

    while ((at = strstr(at, line)) != NULL && at != text && at[-1] != '\n')
        at++;
    return at != NULL;
}

void
wait_counters(struct program *p, const char *text)
{
    size_t seen;

    program_look(p);
    seen = p->out_size;
    for (int i = 0; i < PATIENCE_MS / 10; i++) {
        cr_assert_eq(kill(p->pid, SIGUSR1), 0);
        usleep(10000);
        program_look(p);
        if (isdigit(*text) ? has_line(p->out + seen, text) : strstr(p->out + seen, text) != NULL)
            return;
    }
    cr_assert_fail("no \"%s\" in: %s%s", text, p->out, p->err);
}

/* Where it listens, into `url`: a whole line. */
void
wait_listening(struct program *p, char url[128])
{
    const char *at = NULL, *end = NULL;

    for (int i = 0; i < PATIENCE_MS && end == NULL; i++) {
        usleep(1000);
        program_look(p);
        at = strstr(p->err, "listening on ");
        end = at != NULL ? strchr(at, '\n') : NULL;
    }
    cr_assert_not_null(end, "it does not listen: %s", p->err);
    at += strlen("listening on ");
    snprintf(url, 128, "%.*s", (int)(end - at), at);
}

void
any_url(enum scheme scheme, const char *name, char url[128])
{
    if (scheme == TCP)
        strcpy(url, "tcp://127.0.0.1:0");
    else
        snprintf(url, 128, "%s://%s/%s", scheme == IPC ? "ipc" : "shm", test_directory, name);
}

void
terminate(struct program *p)
{
    cr_assert_eq(kill(p->pid, SIGTERM), 0);
    cr_assert_eq(program_wait(p, 30), 0, "exit code %d; it said: %s", p->status, p->err);
}

void
check_conversation(const char *front, int listener)
{
    int client = connect_to(front), server = accept_one(listener);

    send_text(client, "there");
    expect_text(server, "there");
    send_text(server, "and back");
    expect_text(client, "and back");
    cr_assert_eq(shutdown(client, SHUT_WR), 0);
    expect_end(server);
    send_text(server, "the rest"); /* the other half lives on */
    expect_text(client, "the rest");
    close(server);
    expect_end(client);
    close(client);
    /* The same with the target as the first to end. */
    client = connect_to(front), server = accept_one(listener);
    cr_assert_eq(shutdown(server, SHUT_WR), 0);
    expect_end(client);
    send_text(client, "more");
    expect_text(server, "more");
    close(client);
    expect_end(server);
    close(server);
}

/* What one direction of a long conversation carries: at each place something else. */
static uint8_t
byte_at(size_t at, int way)
{
    return (uint8_t)((at * 2654435761u >> 16) + at / 65537 + (size_t)way * 101);
}

struct flow {
    int from, to, way;
    size_t sent, received;
};

static void
flow_send(struct flow *f, size_t total)
{
    static uint8_t block[100000];
    size_t size = total - f->sent < sizeof block ? total - f->sent : sizeof block;
    ssize_t n;

    for (size_t i = 0; i < size; i++)
        block[i] = byte_at(f->sent + i, f->way);
    n = send(f->from, block, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    cr_assert(n > 0 || errno == EAGAIN, "%s", strerror(errno));
    f->sent += n > 0 ? (size_t)n : 0;
    if (f->sent == total)
        cr_assert_eq(shutdown(f->from, SHUT_WR), 0);
}

static void
flow_receive(struct flow *f)
{
    static uint8_t block[100000];
    ssize_t n = recv(f->to, block, sizeof block, MSG_DONTWAIT);

    cr_assert(n > 0 || (n < 0 && errno == EAGAIN), "it ended after %zu bytes: %s", f->received,
              strerror(errno));
    for (ssize_t i = 0; i < n; i++)
        cr_assert_eq(block[i], byte_at(f->received + (size_t)i, f->way), "byte %zu",
                     f->received + (size_t)i);
    f->received += n > 0 ? (size_t)n : 0;
}

/* Both ways at once. */
void
check_bulk(int client, int server, size_t total)
{
    struct flow flows[2] = {{.from = client, .to = server, .way = 0},
                            {.from = server, .to = client, .way = 1}};

    while (flows[0].received < total || flows[1].received < total) {
        struct pollfd fds[2] = {{.fd = client}, {.fd = server}};

        for (int i = 0; i < 2; i++) {
            fds[i].events |= flows[i].sent < total ? POLLOUT : 0;
            fds[1 - i].events |= flows[i].received < total ? POLLIN : 0;
        }
        cr_assert_gt(poll(fds, 2, PATIENCE_MS), 0, "nothing moves");
        for (int i = 0; i < 2; i++) {
            if ((fds[i].revents & POLLOUT) != 0 && flows[i].sent < total)
                flow_send(&flows[i], total);
            if ((fds[1 - i].revents & (POLLIN | POLLHUP)) != 0 && flows[i].received < total)
                flow_receive(&flows[i]);
        }
    }
    expect_end(server);
    expect_end(client);
}

int
count_of(const char *text, const char *word)
{
    int count = 0;

    for (; (text = strstr(text, word)) != NULL; text += strlen(word))
        count++;
    return count;
}

/* A line of /proc/PID/status. */
long
memory_kib(const struct program *p, const char *name)
{
    char path[64], line[128];
    size_t size = strlen(name);
    long kib = -1;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%d/status", (int)p->pid);
    cr_assert_not_null(file = fopen(path, "re"));
    while (kib < 0 && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, name, size) == 0)
            kib = strtol(line + size, NULL, 10);
    }
    fclose(file);
    cr_assert_gt(kib, 0);
    return kib;
}

void
write_rules(const char *text)
{
    FILE *file = fopen(in_directory("rules"), "we");

    cr_assert_not_null(file);
    cr_assert_geq(fputs(text, file), 0);
    cr_assert_eq(fclose(file), 0);
}

/* Send SIGHUP and wait for what it says then, for the `count`th time. */
void
reload(struct program *p, const char *said, int count)
{
    cr_assert_eq(kill(p->pid, SIGHUP), 0);
    for (int i = 0; i < PATIENCE_MS; i++) {
        program_look(p);
        if (count_of(p->err, said) == count)
            return;
        usleep(1000);
    }
    cr_assert_fail("not %d times \"%s\" in: %s", count, said, p->err);
}
