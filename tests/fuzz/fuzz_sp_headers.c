/* SPDX-License-Identifier: MIT */
/* Fuzz target: REQ and REP, cooked and raw, on messages with any words in front.  The protocols are
 * the real ones; the core around them is the small one below: one socket, one pipe that takes
 * everything. Each result is compared with that of a second parser, which looks at the bytes in one
 * piece.
 *
 * Input: flags (1 REP, 2 raw, 4 begin the message with the outstanding request's id), the hop
 * limit, how many bytes lie in the header already (two bytes, big-endian), and the bytes of the
 * message. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <spoke/protocol.h>

#include "runtime/memory/message.h"

#define PREAMBLE 4u
#define PIPE_ID  0x12345678u
#define ID_BIT   0x80000000u

extern const struct spoke_protocol spoke_protocol_req, spoke_protocol_rep;

struct spk_pipe {
    void *state;
};

struct spk_socket {
    const struct spoke_protocol *protocol;
    void *state;
    bool raw;
    struct spoke_stats stats;
    struct spk_pipe pipe;
    spoke_msg *delivered; /* by the protocol, for the user */
    spoke_msg *sent;      /* by the protocol, to the pipe */
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void
must(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "fuzz_sp_headers: not so: %s\n", what);
    abort();
}
#define MUST(Holds) must(Holds, #Holds)

/* ---- a core ---- */

void *
spk_socket_state(struct spk_socket *s)
{
    return s->state;
}

struct spoke_stats *
spk_socket_counters(struct spk_socket *s)
{
    return &s->stats;
}

bool
spk_socket_raw(const struct spk_socket *s)
{
    return s->raw;
}

int
spk_socket_send_queue(const struct spk_socket *s, size_t *bytes)
{
    (void)s;
    *bytes = 1 << 20;
    return 4;
}

spoke_ns
spk_socket_now(struct spk_socket *s)
{
    (void)s;
    return 1;
}

uint32_t
spk_socket_random(struct spk_socket *s)
{
    (void)s;
    return 0x7ffffffe;
}

void *
spk_pipe_state(struct spk_pipe *p)
{
    return p->state;
}

spoke_pipe_id
spk_pipe_id(const struct spk_pipe *p)
{
    (void)p;
    return PIPE_ID;
}

struct spk_pipe *
spk_socket_pipe(struct spk_socket *s, spoke_pipe_id id)
{
    return id == PIPE_ID ? &s->pipe : NULL;
}

void
spk_socket_deliver(struct spk_socket *s, struct spk_pipe *p, spoke_msg *m)
{
    MUST(p == &s->pipe);
    MUST(s->delivered == NULL);
    s->delivered = m;
}

int
spk_socket_take(struct spk_socket *s, spoke_msg **m)
{
    *m = s->delivered;
    s->delivered = NULL;
    return *m == NULL ? SPOKE_EAGAIN : 0;
}

bool
spk_socket_has_message(const struct spk_socket *s)
{
    return s->delivered != NULL;
}

bool
spk_socket_can_send(const struct spk_socket *s)
{
    (void)s;
    return true;
}

bool
spk_pipe_can_send(const struct spk_pipe *p)
{
    (void)p;
    return true;
}

int
spk_pipe_send(struct spk_pipe *p, spoke_msg *m)
{
    struct spk_socket *s = (struct spk_socket *)(void *)((char *)p -
                                                         offsetof(struct spk_socket, pipe));

    spoke_msg_free(s->sent);
    s->sent = m;
    return 0;
}

struct spk_pipe *
spk_socket_next_writable(struct spk_socket *s)
{
    return &s->pipe;
}

void
spk_pipe_shut(struct spk_pipe *p, int reason)
{
    (void)p, (void)reason;
    must(false, "nothing here shuts a pipe by itself");
}

void
spk_socket_wake(struct spk_socket *s, unsigned what)
{
    (void)s, (void)what;
}

void
spk_socket_fail_recv(struct spk_socket *s, int error)
{
    (void)s, (void)error;
}

void
spk_timer_init(struct spk_timer *timer, void (*fn)(struct spk_timer *timer))
{
    *timer = (struct spk_timer){.fn = fn, .index = UINT32_MAX};
}

int
spk_socket_timer_set(struct spk_socket *s, struct spk_timer *timer, spoke_ns after_ns)
{
    (void)s, (void)after_ns;
    timer->index = 0;
    return 0;
}

void
spk_socket_timer_cancel(struct spk_socket *s, struct spk_timer *timer)
{
    (void)s;
    timer->index = UINT32_MAX;
}

/* ---- what is expected ---- */

/* Bytes up to and including the first word with bit 31; SPOKE_EPROTO there is none, SPOKE_ELIMIT
 * not among the first `most` words. */
static long
words_end(const uint8_t *bytes, size_t size, size_t most)
{
    for (size_t word = 0; word < most; word++) {
        if (size < 4 * (word + 1))
            return SPOKE_EPROTO;
        if ((bytes[4 * word] & 0x80) != 0)
            return (long)(4 * (word + 1));
    }
    return SPOKE_ELIMIT;
}

static void
body_must_be(const spoke_msg *m, const uint8_t *bytes, size_t size)
{
    MUST(spoke_msg_size(m) == size);
    MUST(size == 0 || memcmp(spoke_msg_body(m), bytes, size) == 0);
}

static void
header_must_be(const spoke_msg *m, const uint8_t *bytes, size_t size)
{
    MUST(spoke_msg_header_size(m) == size);
    MUST(size == 0 || memcmp(spoke_msg_header(m), bytes, size) == 0);
}

/* The user sends the message back, and the pipe gets these words and this body. */
static void
answer(struct spk_socket *s, spoke_msg *m, const uint8_t *bytes, size_t end, size_t size)
{
    MUST(s->protocol->send(s, m) == 0);
    MUST(s->sent != NULL);
    header_must_be(s->sent, bytes, end);
    body_must_be(s->sent, bytes + end, size - end);
}

static void
check_rep(struct spk_socket *s, int rc, const uint8_t *bytes, size_t size, size_t ttl)
{
    long end = words_end(bytes, size, ttl);
    spoke_msg *m = NULL;

    MUST(rc == (end == SPOKE_EPROTO ? SPOKE_EPROTO : 0));
    MUST(s->stats.garbled == (end == SPOKE_EPROTO));
    MUST(s->stats.dropped_ttl == (end == SPOKE_ELIMIT));
    MUST(s->protocol->recv(s, &m) == (end > 0 ? 0 : SPOKE_EAGAIN));
    if (end < 0)
        return;
    if (s->raw) {
        MUST(spoke_msg_header_size(m) == (size_t)end + 4);
        MUST(spk_get32(spoke_msg_header(m)) == PIPE_ID);
        MUST(memcmp((uint8_t *)spoke_msg_header(m) + 4, bytes, (size_t)end) == 0);
    } else {
        header_must_be(m, NULL, 0);
    }
    body_must_be(m, bytes + end, size - (size_t)end);
    answer(s, m, bytes, (size_t)end, size);
}

static void
check_raw_req(struct spk_socket *s, int rc, const uint8_t *bytes, size_t size)
{
    long end = words_end(bytes, size, SPOKE_HEADER_MAX / 4);
    spoke_msg *m = NULL;

    MUST(rc == (end > 0 ? 0 : SPOKE_EPROTO));
    MUST(s->stats.garbled == (end < 0));
    MUST(s->protocol->recv(s, &m) == (end > 0 ? 0 : SPOKE_EAGAIN));
    if (end < 0)
        return;
    header_must_be(m, bytes, (size_t)end);
    body_must_be(m, bytes + end, size - (size_t)end);
    answer(s, m, bytes, (size_t)end, size);
}

static void
check_req(struct spk_socket *s, int rc, const uint8_t *bytes, size_t size, uint32_t id)
{
    bool matches = size >= 4 && spk_get32(bytes) == id;
    spoke_msg *m = NULL;

    MUST(rc == (size < 4 ? SPOKE_EPROTO : 0));
    MUST(s->stats.garbled == (size < 4));
    MUST(s->stats.dropped_stale == (size >= 4 && !matches));
    MUST(s->protocol->recv(s, &m) == (matches ? 0 : SPOKE_EAGAIN));
    if (!matches)
        return;
    header_must_be(m, NULL, 0);
    body_must_be(m, bytes + 4, size - 4);
    spoke_msg_free(m);
    MUST(s->protocol->recv(s, &m) == SPOKE_ESTATE);
}

/* ---- one input ---- */

static void
open_socket(struct spk_socket *s, const struct spoke_protocol *protocol, bool raw, int ttl)
{
    *s = (struct spk_socket){.protocol = protocol, .raw = raw};
    s->state = calloc(1, protocol->socket_size);
    s->pipe.state = calloc(1, protocol->pipe_size + 1);
    MUST(s->state != NULL);
    MUST(s->pipe.state != NULL);
    MUST(protocol->open(s) == 0);
    if (protocol == &spoke_protocol_rep)
        MUST(protocol->options[0].set(s, &ttl, sizeof ttl) == (ttl > 0 ? 0 : SPOKE_ERANGE));
}

static void
close_socket(struct spk_socket *s)
{
    s->protocol->pipe_removed(s, &s->pipe);
    if (s->protocol->close != NULL)
        s->protocol->close(s);
    spoke_msg_free(s->sent);
    free(s->pipe.state);
    free(s->state);
}

/* Returns the id that it got. */
static uint32_t
send_request(struct spk_socket *s)
{
    spoke_msg *m;

    MUST(spoke_msg_from(&m, "request", 7) == 0);
    MUST(s->protocol->send(s, m) == 0);
    MUST(spoke_msg_header_size(s->sent) == 4);
    return spk_get32(spoke_msg_header(s->sent));
}

static int
receive(struct spk_socket *s, const uint8_t *bytes, size_t size, size_t split)
{
    spoke_msg *m;

    if (split > size)
        split = size;
    if (split > SPOKE_HEADER_MAX)
        split = SPOKE_HEADER_MAX;
    MUST(spoke_msg_from(&m, bytes + split, size - split) == 0);
    MUST(spoke_msg_header_append(m, bytes, split) == 0);
    m->pipe = PIPE_ID;
    return s->protocol->received(s, &s->pipe, m);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct spoke_memory_stats before, after;
    struct spk_socket s;

    if (size < PREAMBLE)
        return 0;
    bool is_rep = (data[0] & 1) != 0, raw = (data[0] & 2) != 0, patch = (data[0] & 4) != 0;
    int ttl = data[1];
    size_t split = (size_t)data[2] << 8 | data[3], length = size - PREAMBLE;
    uint8_t *bytes = malloc(length + 1);
    MUST(bytes != NULL);
    memcpy(bytes, data + PREAMBLE, length);

    spoke_memory_stats(&before);
    open_socket(&s, is_rep ? &spoke_protocol_rep : &spoke_protocol_req, raw, ttl);
    uint32_t id = is_rep || raw ? 0 : send_request(&s);
    if (patch && length >= 4)
        spk_put32(bytes, id != 0 ? id : ID_BIT);
    int rc = receive(&s, bytes, length, split);
    if (is_rep)
        check_rep(&s, rc, bytes, length, ttl > 0 ? (size_t)ttl : 8);
    else if (raw)
        check_raw_req(&s, rc, bytes, length);
    else
        check_req(&s, rc, bytes, length, id);
    close_socket(&s);
    spoke_memory_stats(&after);
    MUST(after.messages == before.messages);
    MUST(after.chunks == before.chunks);
    free(bytes);
    return 0;
}
