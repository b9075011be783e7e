/* SPDX-License-Identifier: MIT */
/* Fuzz target: what a stranger says first, in pieces of any size, to a socket of each protocol that
 * listens or dials over tcp or ipc.  Whether and why the connection ends, what the user is told and
 * what he receives is compared with a second reading of the same bytes; the next peer, who behaves,
 * must be welcome.
 *
 * Input: flags (below), sizes (the world's buffers, the hop limit), a seed; then pieces: their
 * length and their bytes, length 0 for a tenth of a second in which nothing is said. */
/* Covers: runtime/core/framing.c:handshake */
#include <string.h>

#include "tests/fuzz/support/lab.h"
#include "tests/fuzz/support/reference.h"

/* The flags, beside the protocol in the lowest two bits. */
enum { RAW = 4, IPC = 8, DIALS = 16, TORN = 32, ENDS = 64, DIES = 128 };

#define SAID_MOST     ((size_t)1 << 16)
#define SILENCES_MOST 50
#define HEADER_WORDS  257 /* SPOKE_HEADER_MAX */

static struct scene {
    struct lab lab;
    spoke_socket *s;
    struct sim_handle *listener, *peer;
    const struct pattern {
        int number, peer;
    } * pattern;
    uint8_t flags;
    int ttl, silences;
    uint8_t said[SAID_MOST];
    size_t size;
    struct stream messages; /* … behind the first eight */

    /* what the user was told */
    uint32_t attached, detached, failed;
    int detach_reason, fail_reason;
    uint64_t received;

    /* what should come of it */
    int verdict; /* on the messages so far */
    uint64_t delivered, too_far, stale;
} x;

static int
on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s, (void)ctx;
    switch (event->type) {
    case SPOKE_EVENT_ATTACHED: x.attached++; break;
    case SPOKE_EVENT_DETACHED:
        x.detached++;
        x.detach_reason = event->reason;
        break;
    case SPOKE_EVENT_DIAL_FAILED:
    case SPOKE_EVENT_ACCEPT_FAILED:
        x.failed++;
        x.fail_reason = event->reason;
        break;
    default: break;
    }
    return 0;
}

static bool
is(uint8_t flag)
{
    return (x.flags & flag) != 0;
}

static void
choose(struct input *in)
{
    static const struct pattern patterns[] = {{SPOKE_PAIR, SPOKE_PAIR},
                                              {SPOKE_REQ, SPOKE_REP},
                                              {SPOKE_REP, SPOKE_REQ},
                                              {SPOKE_REP, SPOKE_REQ}};
    static const uint32_t buffers[] = {0, 1, 3, 8, 20, 100};
    static const int ttls[] = {8, 1, 2, 255};
    spoke_sim_config config;

    x.flags = input_byte(in);
    x.pattern = &patterns[x.flags & 3];
    uint8_t sizes = input_byte(in);
    lab_config(&config, input_byte(in), buffers[(sizes & 7) % 6]);
    config.short_read = config.short_write = is(TORN) ? 500 : 0;
    x.ttl = ttls[sizes >> 3 & 3];

    lab_open(&x.lab, &config);
    MUST(spoke_socket_open(&x.s, x.pattern->number, x.lab.engine) == 0);
    MUST(spoke_socket_on_event(x.s, on_event, NULL) == 0);
    MUST(spoke_socket_set_bool(x.s, SPOKE_OPT_RAW, is(RAW)) == 0);
    MUST(spoke_socket_set_duration(x.s, SPOKE_OPT_LINGER, 0) == 0);
    if (x.pattern->number == SPOKE_REP)
        MUST(spoke_socket_set_int(x.s, SPOKE_OPT_TTL, x.ttl) == 0);
    x.messages = (struct stream){.bytes = x.said + HELLO_SIZE, .ipc = is(IPC), .limit = 1 << 20};
}

static struct sim_handle *
next_peer(void)
{
    struct sim_handle *h;

    if (!is(DIALS))
        return lab_dial(&x.lab, is(IPC));
    h = lab_accept(&x.lab, x.listener);
    MUST(h != NULL);
    return h;
}

static void
begin(void)
{
    if (is(DIALS)) {
        x.listener = lab_listen(&x.lab, is(IPC));
        MUST(spoke_dial(x.s, lab_url(is(IPC)), NULL, 0) == 0);
        lab_settle(&x.lab);
    } else {
        MUST(spoke_listen(x.s, lab_url(is(IPC)), NULL, 0) == 0);
    }
    x.peer = next_peer();
}

/* ---- what is received ---- */

/* The next message that the user should get, by the rules of the protocol. */
static bool
next_delivery(const uint8_t **bytes, size_t *size, size_t *header)
{
    while (x.verdict == 0 && (x.verdict = stream_next(&x.messages, bytes, size)) == 1) {
        bool rep = x.pattern->number == SPOKE_REP;
        long end = 0;

        x.verdict = 0;
        if (rep || is(RAW))
            end = words_end(*bytes, *size, rep ? (size_t)x.ttl : HEADER_WORDS);
        if (x.pattern->number == SPOKE_PAIR)
            end = 0;
        else if (x.pattern->number == SPOKE_REQ && !is(RAW))
            end = *size < 4 ? SPOKE_EPROTO : SPOKE_ESTATE; /* nobody has asked anything */
        if (end == SPOKE_ELIMIT && rep) {
            x.too_far++;
        } else if (end == SPOKE_ESTATE) {
            x.stale++;
        } else if (end < 0) {
            x.verdict = SPOKE_EPROTO;
        } else {
            *header = (size_t)end;
            x.delivered++;
            return true;
        }
    }
    return false;
}

static void
must_be(const spoke_msg *m, const uint8_t *bytes, size_t size, size_t words)
{
    const uint8_t *header = spoke_msg_header(m);
    size_t header_size = spoke_msg_header_size(m);

    if (is(RAW) && x.pattern->number == SPOKE_REP) { /* and whom the answer goes to */
        MUST(header_size >= 4 && reference_get32(header) == spoke_msg_pipe(m));
        header += 4;
        header_size -= 4;
    }
    MUST(header_size == (is(RAW) ? words : 0));
    MUST(header_size == 0 || memcmp(header, bytes, words) == 0);
    MUST(spoke_msg_size(m) == size - words);
    MUST(size == words || memcmp(spoke_msg_body(m), bytes + words, size - words) == 0);
}

static void
receive_all(void)
{
    spoke_msg *m;
    int rc;

    while ((rc = spoke_recv(x.s, &m, SPOKE_DONTWAIT)) == 0) {
        const uint8_t *bytes = NULL;
        size_t size = 0, words = 0;

        MUST(next_delivery(&bytes, &size, &words));
        must_be(m, bytes, size, words);
        spoke_msg_free(m);
        x.received++;
    }
    MUST(rc == (x.pattern->number == SPOKE_REQ && !is(RAW) ? SPOKE_ESTATE : SPOKE_EAGAIN));
}

/* ---- what is said ---- */

/* Say it as far as the other side listens. */
static void
say(const uint8_t *bytes, size_t size)
{
    size_t n;

    if (size > SAID_MOST - x.size)
        return;
    do {
        n = lab_write(x.peer, bytes, size);
        memcpy(x.said + x.size, bytes, n);
        x.size += n;
        bytes += n;
        size -= n;
        lab_settle(&x.lab);
        x.messages.size = x.size > HELLO_SIZE ? x.size - HELLO_SIZE : 0;
        receive_all();
        lab_settle(&x.lab);
    } while (n > 0 && size > 0);
}

static void
say_piece(struct input *in)
{
    size_t size;
    const uint8_t *bytes = input_bytes(in, input_byte(in), &size);

    if (size > 0)
        say(bytes, size);
    else if (x.silences++ < SILENCES_MOST)
        lab_pass(&x.lab, 100 * SPOKE_MS);
}

/* ---- what comes of it ---- */

/* Our eight bytes are all that the stranger gets; half of them if it is thrown out before. */
static void
read_hello(bool open)
{
    uint8_t hello[HELLO_SIZE], theirs[HELLO_SIZE + 1];
    size_t done = 0, n;

    lab_hello(hello, x.pattern->number);
    while ((n = lab_read(x.peer, theirs + done, sizeof theirs - done)) > 0 && n != LAB_ENDED) {
        done += n;
        MUST(done <= HELLO_SIZE);
        lab_settle(&x.lab);
    }
    MUST(memcmp(hello, theirs, done) == 0);
    MUST(!open || (done == HELLO_SIZE && n == 0));
}

static void
leave(void)
{
    if (is(DIES)) {
        spk_sim_die(x.peer);
    } else if (is(ENDS)) {
        lab_hang_up(x.peer);
        x.peer = NULL;
    }
    lab_settle(&x.lab);
}

/* How it should have ended by now: 0 not at all. */
static int
expected_end(int hello)
{
    if (hello != 0)
        return hello;
    if (x.size < HELLO_SIZE)
        return is(ENDS) || is(DIES) ? SPOKE_ECONNRESET : 0;
    if (x.verdict != 0)
        return x.verdict;
    return is(DIES) ? SPOKE_ECONNRESET : is(ENDS) ? SPOKE_EOF : 0;
}

static void
check(int hello)
{
    bool attached = hello == 0 && x.size >= HELLO_SIZE;
    int end = expected_end(hello);
    struct spoke_stats stats;

    MUST(spoke_socket_stats(x.s, &stats) == 0);
    MUST(x.received == x.delivered && stats.messages_received == x.received);
    MUST(stats.garbled == (x.verdict == SPOKE_EPROTO));
    MUST(stats.oversized == (x.verdict == SPOKE_EMSGSIZE));
    MUST(stats.dropped_ttl == x.too_far);
    MUST(stats.dropped_stale == x.stale);
    MUST(x.attached == attached && stats.pipes_attached == attached);
    MUST(stats.pipes_current == (attached && end == 0));
    MUST(x.detached == (attached && end != 0));
    MUST(x.detached == 0 || x.detach_reason == end);
    MUST(x.failed == (!attached && end != 0) && stats.handshakes_failed == x.failed);
    MUST(x.failed == 0 || x.fail_reason == end);
}

/* A stranger who never finishes his greeting is sent away. */
static void
wait_for_end(void)
{
    lab_pass(&x.lab, 11 * SPOKE_SECOND);
    MUST(x.failed == 1 && x.fail_reason == SPOKE_ETIMEDOUT);
}

static void
welcome_next(void)
{
    uint32_t attached = x.attached;
    struct sim_handle *next;
    uint8_t hello[HELLO_SIZE];

    lab_pass(&x.lab, 200 * SPOKE_MS); /* a dialer tries again after half of that */
    next = next_peer();
    lab_hello(hello, x.pattern->peer);
    for (size_t done = 0; done < sizeof hello;) {
        size_t n = lab_write(next, hello + done, sizeof hello - done);
        MUST(n > 0);
        done += n;
        lab_settle(&x.lab);
    }
    MUST(x.attached == attached + 1);
    lab_hang_up(next);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    int hello, end;

    memset(&x, 0, offsetof(struct scene, said));
    memset(&x.size, 0, sizeof x - offsetof(struct scene, size));
    choose(&in);
    begin();
    while (in.left > 0)
        say_piece(&in);
    hello = hello_verdict(x.said, x.size, x.pattern->peer);
    if (hello == 0 && x.size >= HELLO_SIZE) {
        const uint8_t *bytes;
        size_t words;
        MUST(!next_delivery(&bytes, &size, &words));
    }
    read_hello(hello == 0 && x.verdict == 0);
    leave();
    check(hello);
    end = expected_end(hello);
    if (end == 0 && x.size < HELLO_SIZE)
        wait_for_end();
    if (end != 0 || x.size < HELLO_SIZE)
        welcome_next();
    MUST(spoke_socket_close(x.s) == 0);
    lab_hang_up(x.peer);
    lab_hang_up(x.listener);
    lab_close(&x.lab);
    return 0;
}
