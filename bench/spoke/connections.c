/* SPDX-License-Identifier: MIT */
/* How a REP socket grows with its connections.
 *
 * connections: round trips on one connection while it is alone, then with many idle ones beside it,
 * then alone again; the server notes its memory at each step.
 *
 * pipes: requests round robin over 1 to thousands of busy connections; the cost is the server's
 * CPU time per request.  As REQ sockets do, each connection waits for its answer before it asks
 * again (REP may drop answers that queue up behind others), so with few connections fewer requests
 * arrive together and each pays more of the server's waking up.
 *
 * The server is spoke.  The client is plain sockets that speak the wire format, so that it can hold
 * many connections cheaply and is the same whatever is measured; in shared memory (shm, and ipc
 * with SPOKE_UPGRADE=now) and where more is spoken than that (tls+tcp, ws, wss) it is REQ sockets
 * on one owned engine, whatever the mode.  One thread each. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../common/histogram.h"
#include "../common/meter.h"
#include "../common/net.h"
#include "../common/payload.h"
#include "../common/program.h"
#include "link.h"

enum {
    IN_FLIGHT = 64, /* requests of the work pipes, at most one per connection */
    FRAME_MAX = 16 + 4096,
    SAMPLES_MAX = 4,
    HANDSHAKE_SIZE = 8,
    FDS_SHM = 8, /* descriptors of a connection, at each end */
};

/* Whether the connections are in shared memory. */
static bool
in_shared_memory(const struct bench_options *o)
{
    const char *upgrade = getenv("SPOKE_UPGRADE");

    return o->transport == BENCH_SHM ||
           (o->transport == BENCH_IPC && upgrade != NULL && strcmp(upgrade, "now") == 0);
}

/* Whether the client is our own sockets. */
static bool
has_our_client(const struct bench_options *o)
{
    return in_shared_memory(o) || o->transport >= BENCH_TLS;
}

/* ---- server ---- */

struct server {
    spoke_engine *engine;
    spoke_socket *socket;
    uint64_t memory[SAMPLES_MAX]; /* bytes, when the client asked */
    unsigned samples;
    uint64_t requests; /* measured ones */
    uint64_t cpu_us;   /* spent on them */
    uint64_t moved;    /* connections that have been in shared memory */
};

/* Look at one request. */
static enum bench_phase
note_request(struct server *s, const spoke_msg *m)
{
    uint64_t word0 = 0;
    enum bench_phase phase;

    if (spoke_msg_size(m) >= 8)
        memcpy(&word0, spoke_msg_body(m), 8);
    phase = (enum bench_phase)(word0 >> BENCH_PHASE_SHIFT);
    if (phase == BENCH_SAMPLE && s->samples < SAMPLES_MAX)
        s->memory[s->samples++] = bench_private_bytes() + bench_ring_bytes();
    if (phase == BENCH_MEASURE && s->requests++ == 0)
        s->cpu_us = bench_cpu_us();
    if (phase == BENCH_LAST)
        s->cpu_us = bench_cpu_us() - s->cpu_us;
    return phase;
}

static int
count_moved(struct server *s)
{
    struct spoke_stats stats;
    int rc = spoke_socket_stats(s->socket, &stats);

    s->moved = stats.pipes_shared;
    return rc == 0 ? 0 : spoke_bench_complain("spoke_socket_stats", rc);
}

/* Answer requests with their own bytes until the last one. */
static int
serve(struct server *s)
{
    enum bench_phase phase = BENCH_HELLO;

    while (phase != BENCH_LAST) {
        spoke_msg *m;
        int rc = spoke_recv(s->socket, &m, 0);
        if (rc != 0)
            return spoke_bench_complain("spoke_recv", rc);
        phase = note_request(s, m);
        if ((rc = spoke_send(s->socket, m, 0)) != 0) {
            spoke_msg_free(m);
            return spoke_bench_complain("spoke_send", rc);
        }
    }
    return 0;
}

static int
run_server(const struct bench_options *o)
{
    struct bench_link link = {.options = o, .side = BENCH_SERVER};
    struct server s = {0};
    char actual[BENCH_ADDRESS_MAX];
    int rc = -1;

    if (spoke_bench_open(&s.engine, &s.socket, SPOKE_REP, o) != 0)
        return 1;
    if (spoke_bench_listen(s.socket, o, actual, sizeof actual) == 0) {
        bench_ready(&link, actual);
        if ((rc = serve(&s)) == 0)
            rc = count_moved(&s);
    }
    spoke_bench_close(s.engine, s.socket);
    if (rc != 0)
        return 1;
    printf("{\"bench\":\"%s\",\"impl\":\"spoke\",\"role\":\"server\",\"messages\":%" PRIu64
           ",\"cpu_us\":%" PRIu64 ",\"memory_one\":%" PRIu64 ",\"memory_many\":%" PRIu64
           ",\"moved\":%" PRIu64 ",\"errors\":0}\n",
           bench_work_name(o->work), s.requests, s.cpu_us, s.memory[0], s.memory[1], s.moved);
    return 0;
}

/* ---- client ---- */

struct client {
    const struct bench_options *o;
    uint8_t *pattern;
    size_t header_size; /* of a frame, with the request id */
    size_t frame_size;
    uint64_t next;          /* number and id of the next request */
    int *fds;               /* plain sockets, or */
    spoke_socket **sockets; /* ours, on */
    spoke_engine *engine;
    unsigned open; /* of them */
    uint8_t out[FRAME_MAX];
    uint8_t in[FRAME_MAX];
};

static int
complain(const char *what)
{
    fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
    return -1;
}

static int
write_all(int fd, const uint8_t *p, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, p, size, MSG_NOSIGNAL);
        if (n < 0 && errno != EINTR)
            return complain("send");
        if (n > 0) {
            p += n;
            size -= (size_t)n;
        }
    }
    return 0;
}

static int
read_all(const struct client *c, int fd, uint8_t *p, size_t size)
{
    int flags = c->o->wait == BENCH_BLOCK ? 0 : MSG_DONTWAIT;
    unsigned turns = 0;

    while (size > 0) {
        ssize_t n = recv(fd, p, size, flags);
        if (n > 0) {
            p += n;
            size -= (size_t)n;
        } else if (n < 0 && errno == EAGAIN) {
            bench_spin(&turns);
        } else if (n == 0 || errno != EINTR) {
            errno = n == 0 ? ECONNRESET : errno;
            return complain("recv");
        }
    }
    return 0;
}

static void
put_be(uint8_t *p, uint64_t value, unsigned bytes)
{
    while (bytes-- > 0) {
        p[bytes] = (uint8_t)value;
        value >>= 8;
    }
}

static int
send_message(struct client *c, unsigned index)
{
    spoke_msg *m;
    int rc = spoke_msg_new(&m, c->o->size);

    if (rc != 0)
        return spoke_bench_complain("spoke_msg_new", rc);
    memcpy(spoke_msg_body(m), c->out + c->header_size, c->o->size);
    if ((rc = spoke_send(c->sockets[index], m, 0)) == 0)
        return 0;
    spoke_msg_free(m);
    return spoke_bench_complain("spoke_send", rc);
}

/* Ask on connection `index`. */
static int
send_request(struct client *c, unsigned index, enum bench_phase phase)
{
    size_t lead = c->header_size - 12;

    c->out[0] = 1; /* ipc's leading byte; overwritten for tcp */
    put_be(c->out + lead, c->o->size + 4, 8);
    put_be(c->out + lead + 8, UINT64_C(0x80000000) | (c->next & 0x7fffffff), 4);
    bench_fill(c->out + c->header_size, c->pattern, c->o->size, c->next, phase);
    c->next++;
    return c->sockets != NULL ? send_message(c, index)
                              : write_all(c->fds[index], c->out, c->frame_size);
}

/* Receive on connection `index` the body that is in c->out. */
static int
receive_body(struct client *c, unsigned index)
{
    spoke_msg *m;
    int rc = spoke_recv(c->sockets[index], &m, 0);
    bool is_it;

    if (rc != 0)
        return spoke_bench_complain("spoke_recv", rc);
    is_it = spoke_msg_size(m) == c->o->size &&
            memcmp(spoke_msg_body(m), c->out + c->header_size, c->o->size) == 0;
    spoke_msg_free(m);
    if (is_it)
        return 0;
    errno = EBADMSG;
    return complain("reply");
}

/* Read the answer to request `number`, which must be it in every byte. */
static int
read_reply(struct client *c, unsigned index, uint64_t number, enum bench_phase phase)
{
    uint32_t id;

    put_be((uint8_t *)&id, UINT64_C(0x80000000) | (number & 0x7fffffff), 4);
    bench_fill(c->out + c->header_size, c->pattern, c->o->size, number, phase);
    if (c->sockets != NULL)
        return receive_body(c, index);
    if (read_all(c, c->fds[index], c->in, c->frame_size) != 0)
        return -1;
    if (memcmp(c->in + c->header_size - 4, &id, 4) == 0 &&
        memcmp(c->in + c->header_size, c->out + c->header_size, c->o->size) == 0)
        return 0;
    errno = EBADMSG;
    return complain("reply");
}

static int
ask(struct client *c, unsigned index, enum bench_phase phase)
{
    uint64_t number = c->next;

    return send_request(c, index, phase) == 0 ? read_reply(c, index, number, phase) : -1;
}

/* Ask until what we send goes through shared memory (over shm it does from the start), and once
 * more. */
static int
await_move(struct client *c, unsigned index)
{
    struct spoke_stats stats;
    int rc;

    do {
        if (ask(c, index, BENCH_WARM) != 0)
            return -1;
        if ((rc = spoke_socket_stats(c->sockets[index], &stats)) != 0)
            return spoke_bench_complain("spoke_socket_stats", rc);
    } while (stats.pipes_shared == 0);
    return ask(c, index, BENCH_WARM); /* there, so that both rings have been used */
}

/* One more connection of our own, at work. */
static int
open_socket(struct client *c)
{
    struct bench_options o = *c->o;
    spoke_socket *s;
    int rc;

    o.mode = BENCH_OWNED;
    if (spoke_bench_open(&c->engine, &s, SPOKE_REQ, &o) != 0)
        return -1;
    c->sockets[c->open++] = s;
    rc = spoke_dial(s, c->o->address, NULL, 0);
    if (rc != 0)
        return spoke_bench_complain("spoke_dial", rc);
    return in_shared_memory(c->o) ? await_move(c, c->open - 1) : ask(c, c->open - 1, BENCH_WARM);
}

/* One more connection: connect, shake hands as a REQ. */
static int
open_connection(struct client *c)
{
    static const uint8_t ours[HANDSHAKE_SIZE] = {0, 'S', 'P', 0, 0, 48, 0, 0};
    static const uint8_t theirs[HANDSHAKE_SIZE] = {0, 'S', 'P', 0, 0, 49, 0, 0};
    uint8_t got[HANDSHAKE_SIZE];
    int fd = bench_net_connect(c->o->address);

    if (fd < 0)
        return -1;
    c->fds[c->open++] = fd;
    if (write_all(fd, ours, sizeof ours) != 0 || read_all(c, fd, got, sizeof got) != 0)
        return -1;
    if (memcmp(got, theirs, sizeof got) == 0)
        return 0;
    errno = EPROTO;
    return complain("handshake");
}

static int
open_connections(struct client *c, unsigned total)
{
    while (c->open < total)
        if ((c->sockets != NULL ? open_socket(c) : open_connection(c)) != 0)
            return -1;
    return 0;
}

/* Round trips on connection `index` for `seconds`; those of the first quarter do not count. */
static int
measure_round_trips(struct client *c, unsigned index, double seconds, struct bench_histogram *h)
{
    uint64_t begin = bench_now_ns(), warm = begin + (uint64_t)(seconds * 0.25e9),
             until = begin + (uint64_t)(seconds * 1e9);
    uint64_t last = begin, now;

    do {
        if (ask(c, index, BENCH_MEASURE) != 0)
            return -1;
        now = bench_now_ns();
        if (now >= warm)
            bench_histogram_add(h, now - last);
        last = now;
    } while (now < until);
    return 0;
}

static void
close_connections(struct client *c, unsigned from)
{
    while (c->open > from) {
        c->open--;
        if (c->sockets != NULL)
            spoke_socket_close(c->sockets[c->open]);
        else
            close(c->fds[c->open]);
    }
}

static int
run_connections(struct client *c, struct bench_histogram *one, struct bench_histogram *many)
{
    double seconds = c->o->seconds / 3;
    uint64_t rings;
    unsigned total = c->o->connections + 1;

    /* One round of everything first, so that what is allocated once is not blamed on the idle
     * connections. */
    if (open_connections(c, 1) != 0 || measure_round_trips(c, 0, seconds, one) != 0 ||
        ask(c, 0, BENCH_SAMPLE) != 0)
        return -1;
    rings = bench_ring_bytes();
    if (open_connections(c, total) != 0 || ask(c, total / 2, BENCH_SAMPLE) != 0)
        return -1;
    rings = bench_ring_bytes() - rings;
    if (measure_round_trips(c, total / 2, seconds, many) != 0)
        return -1;
    close_connections(c, 1);
    if (measure_round_trips(c, 0, seconds, one) != 0 || ask(c, 0, BENCH_LAST) != 0)
        return -1;
    printf("{\"bench\":\"connections\",\"impl\":\"spoke\",\"role\":\"client\",\"transport\":\"%s\","
           "\"mode\":\"%s\","
           "\"wait\":\"%s\",\"size\":%zu,\"connections\":%u,\"rings\":%" PRIu64
           ",\"p50_one_ns\":%" PRIu64 ",\"p99_one_ns\":%" PRIu64 ",\"p50_many_ns\":%" PRIu64
           ",\"p99_many_ns\":%" PRIu64 ",\"errors\":0}\n",
           bench_transport_name(c->o->transport), bench_mode_name(c->o->mode),
           bench_wait_name(c->o->wait), c->o->size, c->o->connections, rings,
           bench_histogram_quantile(one, 0.5), bench_histogram_quantile(one, 0.99),
           bench_histogram_quantile(many, 0.5), bench_histogram_quantile(many, 0.99));
    return 0;
}

/* Ask once on each of `count` connections from `first` on, then read the answers in that order. */
static int
one_turn(struct client *c, unsigned first, unsigned count, enum bench_phase phase)
{
    unsigned open = c->open > 0 ? c->open : 1;
    uint64_t number = c->next;

    for (unsigned i = 0; i < count; i++)
        if (send_request(c, (first + i) % open, phase) != 0)
            return -1;
    for (unsigned i = 0; i < count; i++)
        if (read_reply(c, (first + i) % open, number + i, phase) != 0)
            return -1;
    return 0;
}

static int
run_pipes(struct client *c)
{
    uint64_t begin, until, messages = 0;
    unsigned first = 0, count = c->o->connections;

    count = count < IN_FLIGHT ? count : IN_FLIGHT;
    if (open_connections(c, c->o->connections) != 0)
        return -1;
    /* Every pipe once, and a while. */
    for (until = bench_now_ns() + (uint64_t)(c->o->seconds * 0.25e9);
         bench_now_ns() < until || first < c->open; first += count)
        if (one_turn(c, first, count, BENCH_WARM) != 0)
            return -1;
    begin = bench_now_ns();
    for (until = begin + (uint64_t)(c->o->seconds * 1e9); bench_now_ns() < until; first += count) {
        if (one_turn(c, first, count, BENCH_MEASURE) != 0)
            return -1;
        messages += count;
    }
    until = bench_now_ns();
    if (ask(c, 0, BENCH_LAST) != 0)
        return -1;
    printf("{\"bench\":\"pipes\",\"impl\":\"spoke\",\"role\":\"client\",\"transport\":\"%s\","
           "\"mode\":\"%s\","
           "\"wait\":\"%s\",\"size\":%zu,\"connections\":%u,\"messages\":%" PRIu64
           ",\"rate\":%.1f,\"errors\":0}\n",
           bench_transport_name(c->o->transport), bench_mode_name(c->o->mode),
           bench_wait_name(c->o->wait), c->o->size, c->o->connections, messages,
           (double)messages * 1e9 / (double)(until - begin));
    return 0;
}

static int
run_client(const struct bench_options *o)
{
    static struct bench_histogram one, many;
    struct client c = {.o = o};
    int rc = -1;

    c.header_size = (o->transport == BENCH_IPC ? 9U : 8U) + 4U;
    c.frame_size = c.header_size + o->size;
    if (c.frame_size > FRAME_MAX) {
        fprintf(stderr, "bench: %s takes bodies up to 4096 bytes\n", bench_work_name(o->work));
        return 2;
    }
    c.pattern = bench_pattern_new(o->size);
    if (has_our_client(o))
        c.sockets = calloc((size_t)o->connections + 1, sizeof(spoke_socket *));
    else
        c.fds = calloc((size_t)o->connections + 1, sizeof *c.fds);
    bench_histogram_init(&one);
    bench_histogram_init(&many);
    if (c.fds != NULL || c.sockets != NULL)
        rc = o->work == BENCH_PIPES ? run_pipes(&c) : run_connections(&c, &one, &many);
    close_connections(&c, 0);
    if (c.engine != NULL)
        spoke_engine_close(c.engine);
    free(c.sockets);
    free(c.fds);
    free(c.pattern);
    return rc == 0 ? 0 : 1;
}

int
spoke_bench_connections(const struct bench_options *o)
{
    rlim_t each = in_shared_memory(o) ? FDS_SHM : 1;
    struct rlimit files;

    if (o->transport == BENCH_INPROC) {
        fputs("bench: connections and pipes need two processes: not inproc\n", stderr);
        return 2;
    }
    /* One descriptor per connection, or several, and a few more. */
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
        if (files.rlim_max < o->connections * each + 64) {
            fprintf(stderr,
                    "bench: %u connections need a limit of descriptors (ulimit -Hn) above %ju\n",
                    o->connections, (uintmax_t)files.rlim_max);
            return 1;
        }
    }
    return o->role == BENCH_SERVER ? run_server(o) : run_client(o);
}
