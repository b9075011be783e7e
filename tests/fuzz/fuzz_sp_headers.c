/* SPDX-License-Identifier: MIT */
/* Fuzz target: REQ and REP, SURVEYOR and RESPONDENT, cooked and raw, on messages with any words in
 * front.  Their peer is a raw socket of the other protocol, beside it (inproc: the words arrive in
 * the header as far as they were put there) or behind a connection (all in one piece).  What the
 * user gets, what is counted, what becomes of the pipe and what goes back is compared with a second
 * reading of the bytes.
 *
 * Input: flags (below), the hop limit, how many bytes lie in the header already (two bytes,
 * big-endian), and the bytes of the message. */
/* Covers: protocols/sp/sp.c protocols/sp/req.c protocols/sp/answer.c protocols/sp/surveyor.c */
#include <string.h>

#include "tests/fuzz/support/lab.h"
#include "tests/fuzz/support/reference.h"

/* IS_REP: it answers.  SURVEYS: SURVEYOR for REQ, RESPONDENT for REP.  BEGINS_WITH_ID: the message
 * begins with the outstanding request's id; ALMOST: or one that is a bit beside it. */
enum { IS_REP = 1, RAW = 2, BEGINS_WITH_ID = 4, FAR = 8, ALMOST = 16, SURVEYS = 32 };

#define HOPS_DEFAULT 8
#define HOPS_MOST    255 /* that the peer accepts */
#define WORDS_MOST   257 /* SPOKE_HEADER_MAX */
#define ID_BIT       0x80000000u

static struct scene {
    struct lab lab;
    spoke_socket *s, *peer;
    spoke_pipe_id way; /* the peer's pipe to us */
    bool is_rep, raw, surveys;
    int hops;
} x;

static int
on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s, (void)ctx;
    if (event->type == SPOKE_EVENT_ATTACHED)
        x.way = event->pipe;
    return 0;
}

static void
open_both(bool far)
{
    const char *url = far ? lab_url(false) : "inproc://lab";
    spoke_sim_config config;

    lab_config(&config, 1, 0);
    lab_open(&x.lab, &config);
    const int asks = x.surveys ? SPOKE_SURVEYOR : SPOKE_REQ;
    const int answers = x.surveys ? SPOKE_RESPONDENT : SPOKE_REP;
    MUST(spoke_socket_open(&x.s, x.is_rep ? answers : asks, x.lab.engine) == 0);
    MUST(spoke_socket_open(&x.peer, x.is_rep ? asks : answers, x.lab.engine) == 0);
    if (x.surveys)
        MUST(spoke_socket_set_duration(x.is_rep ? x.peer : x.s, SPOKE_OPT_SURVEY_TIME, 0) == 0);
    MUST(spoke_socket_set_bool(x.s, SPOKE_OPT_RAW, x.raw) == 0);
    MUST(spoke_socket_set_bool(x.peer, SPOKE_OPT_RAW, true) == 0);
    MUST(spoke_socket_on_event(x.peer, on_event, NULL) == 0);
    if (x.is_rep)
        MUST(spoke_socket_set_int(x.s, SPOKE_OPT_TTL, x.hops) == (x.hops > 0 ? 0 : SPOKE_ERANGE));
    else
        MUST(spoke_socket_set_int(x.peer, SPOKE_OPT_TTL, HOPS_MOST) == 0);
    if (x.hops == 0)
        x.hops = HOPS_DEFAULT;
    MUST(spoke_listen(x.s, url, NULL, 0) == 0);
    MUST(spoke_dial(x.peer, url, NULL, 0) == 0);
    lab_settle(&x.lab);
    MUST(x.way != 0);
}

static void
close_both(void)
{
    MUST(spoke_socket_close(x.s) == 0);
    MUST(spoke_socket_close(x.peer) == 0);
    lab_close(&x.lab);
}

/* ---- the peer ---- */

/* Send the bytes, the first `split` of them in the header. */
static void
peer_sends(const uint8_t *bytes, size_t size, size_t split)
{
    uint8_t way[4];
    spoke_msg *m;

    reference_put32(way, x.way);
    if (split > size)
        split = size;
    if (split > SPOKE_HEADER_MAX - sizeof way)
        split = SPOKE_HEADER_MAX - sizeof way;
    MUST(spoke_msg_from(&m, bytes + split, size - split) == 0);
    MUST(spoke_msg_header_append(m, bytes, split) == 0);
    if (!x.is_rep)
        MUST(spoke_msg_header_prepend(m, way, sizeof way) == 0);
    MUST(spoke_send(x.peer, m, SPOKE_DONTWAIT) == 0);
    lab_settle(&x.lab);
}

/* The next message that the peer got has these words and this body. */
static void
peer_has(const uint8_t *words, size_t end, const uint8_t *body, size_t size)
{
    size_t way = x.is_rep ? 0 : 4;
    spoke_msg *m;

    lab_settle(&x.lab);
    MUST(spoke_recv(x.peer, &m, SPOKE_DONTWAIT) == 0);
    MUST(spoke_msg_header_size(m) == way + end);
    MUST(way == 0 || reference_get32(spoke_msg_header(m)) == x.way);
    MUST(memcmp((uint8_t *)spoke_msg_header(m) + way, words, end) == 0);
    MUST(spoke_msg_size(m) == size);
    MUST(size == 0 || memcmp(spoke_msg_body(m), body, size) == 0);
    spoke_msg_free(m);
}

/* Send a request; returns the id that it got. */
static uint32_t
send_request(void)
{
    spoke_msg *m;
    uint32_t id;

    MUST(spoke_send_bytes(x.s, "request", 7, SPOKE_DONTWAIT) == 0);
    lab_settle(&x.lab);
    MUST(spoke_recv(x.peer, &m, SPOKE_DONTWAIT) == 0);
    MUST(spoke_msg_header_size(m) == 8);
    id = reference_get32((uint8_t *)spoke_msg_header(m) + 4);
    MUST((id & ID_BIT) != 0);
    spoke_msg_free(m);
    return id;
}

/* ---- what comes of it ---- */

struct outcome {
    bool garbled, too_far, stale; /* dropped because of that */
    size_t end;                   /* else: of the words */
};

static struct outcome
expect(const uint8_t *bytes, size_t size, uint32_t id)
{
    struct outcome o = {.end = 4};
    long end;

    if (!x.is_rep && !x.raw) {
        o.garbled = size < 4;
        o.stale = size >= 4 && reference_get32(bytes) != id;
        return o;
    }
    end = words_end(bytes, size, x.is_rep ? (size_t)x.hops : WORDS_MOST);
    o.garbled = end == SPOKE_EPROTO || (end == SPOKE_ELIMIT && !x.is_rep);
    o.too_far = end == SPOKE_ELIMIT && x.is_rep;
    o.end = end > 0 ? (size_t)end : 0;
    return o;
}

static void
check_counters(const struct outcome *o)
{
    struct spoke_stats stats;

    MUST(spoke_socket_stats(x.s, &stats) == 0);
    MUST(stats.garbled == o->garbled);
    MUST(stats.dropped_ttl == o->too_far);
    MUST(stats.dropped_stale == o->stale);
    MUST(stats.pipes_current == !o->garbled);
}

static void
header_must_be(const spoke_msg *m, const uint8_t *words, size_t end)
{
    const uint8_t *header = spoke_msg_header(m);
    size_t size = spoke_msg_header_size(m);

    if (x.raw && x.is_rep) {
        MUST(size >= 4 && reference_get32(header) == spoke_msg_pipe(m));
        header += 4;
        size -= 4;
    }
    MUST(size == (x.raw ? end : 0));
    MUST(size == 0 || memcmp(header, words, end) == 0);
}

static void
check_received(const uint8_t *bytes, size_t size, const struct outcome *o)
{
    bool waits = x.is_rep || x.raw || x.surveys || o->stale || o->garbled;
    spoke_msg *m = NULL;
    int rc = spoke_recv(x.s, &m, SPOKE_DONTWAIT);

    if (o->garbled || o->too_far || o->stale) {
        MUST(rc == SPOKE_EAGAIN);
        return;
    }
    MUST(rc == 0);
    header_must_be(m, bytes, o->end);
    MUST(spoke_msg_size(m) == size - o->end);
    MUST(size == o->end || memcmp(spoke_msg_body(m), bytes + o->end, size - o->end) == 0);
    if (!x.is_rep && !x.raw) {
        spoke_msg_free(m);
    } else { /* as it came, it goes back */
        MUST(spoke_send(x.s, m, SPOKE_DONTWAIT) == 0);
        if (o->end <= 4 * (size_t)HOPS_MOST)
            peer_has(bytes, o->end, bytes + o->end, size - o->end);
    }
    MUST(spoke_recv(x.s, &m, SPOKE_DONTWAIT) == (waits ? SPOKE_EAGAIN : SPOKE_ESTATE));
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint8_t flags = input_byte(&in), *bytes;
    struct outcome outcome;
    uint32_t id = ID_BIT;

    memset(&x, 0, sizeof x);
    x.is_rep = (flags & IS_REP) != 0;
    x.raw = (flags & RAW) != 0;
    x.surveys = (flags & SURVEYS) != 0;
    x.hops = input_byte(&in);
    size_t split = input_word(&in);
    bytes = malloc(in.left + 1);
    size = in.left;
    MUST(bytes != NULL);
    memcpy(bytes, in.at, size);

    open_both((flags & FAR) != 0);
    if (!x.is_rep && !x.raw)
        id = send_request();
    if ((flags & BEGINS_WITH_ID) != 0 && size >= 4)
        reference_put32(bytes, id);
    else if ((flags & ALMOST) != 0 && size >= 4)
        reference_put32(bytes, id ^ 0x100);
    peer_sends(bytes, size, split);
    outcome = expect(bytes, size, id);
    check_counters(&outcome);
    check_received(bytes, size, &outcome);
    close_both();
    free(bytes);
    return 0;
}
