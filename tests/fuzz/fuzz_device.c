/* SPDX-License-Identifier: MIT */
/* Fuzz target: a device between two sockets, of every pair of patterns, with a bare peer at each
 * side.  Both say any bytes.  What the other one hears, what is counted and what becomes of the
 * connections is compared with a second reading of the bytes.
 *
 * Input: flags (below), the hop limit, then messages: one byte (below), how many bytes (two,
 * big-endian), and the bytes. */
/* Covers: runtime/core/device.c */
#include <string.h>

#include <spoke/device.h>

#include "tests/fuzz/support/bare.h"

/* Of the flags: the lowest three bits are the pair of patterns; SWAPPED: the sockets are given to
 * the device in the other order. */
enum { PATTERNS = 7, SWAPPED = 8 };

/* Of a message: FROM_BACK: the peer of the second socket says it.  ROUTED: its first four bytes are
 * the number of the first socket's pipe. */
enum { FROM_BACK = 1, ROUTED = 2 };

#define HOPS_DEFAULT  8
#define COUNT_MOST    255
#define WORDS_MOST    257 /* SPOKE_HEADER_MAX */
#define MESSAGES_MOST 8

enum kind {
    PLAIN,     /* no words */
    COUNTED,   /* one word, which counts */
    QUESTIONS, /* words up to one with the highest bit; the device adds the number of the pipe */
};

static const struct pair {
    int front, back;
    enum kind kind;
    bool there, back_again; /* which ways messages go */
} pairs[PATTERNS + 1] = {
    {SPOKE_REP, SPOKE_REQ, QUESTIONS, true, true},
    {SPOKE_RESPONDENT, SPOKE_SURVEYOR, QUESTIONS, true, true},
    {SPOKE_PAIR1, SPOKE_PAIR1, COUNTED, true, true},
    {SPOKE_STAR, SPOKE_STAR, COUNTED, true, true},
    {SPOKE_BUS, SPOKE_BUS, PLAIN, true, true},
    {SPOKE_PAIR, SPOKE_PAIR, PLAIN, true, true},
    {SPOKE_PULL, SPOKE_PUSH, PLAIN, true, false},
    {SPOKE_SUB, SPOKE_PUB, PLAIN, true, false},
};

struct side {
    spoke_socket *s;
    struct bare peer;
    struct spoke_stats expected;
};

static struct scene {
    struct lab lab;
    spoke_device *device;
    const struct pair *pair;
    uint32_t hops, way; /* `way`: the number of the first socket's pipe */
    struct side front, back;
    uint64_t there, back_again, dropped; /* messages that the device passed on, or did not */
} x;

/* ---- life ---- */

static int
on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s, (void)ctx;
    if (event->type == SPOKE_EVENT_ATTACHED)
        x.way = event->pipe;
    return 0;
}

/* The protocol that a socket of this pattern talks to. */
static int
peer_of(int pattern)
{
    static const int halves[][2] = {{SPOKE_REP, SPOKE_REQ},
                                    {SPOKE_RESPONDENT, SPOKE_SURVEYOR},
                                    {SPOKE_PULL, SPOKE_PUSH},
                                    {SPOKE_SUB, SPOKE_PUB}};

    for (size_t i = 0; i < sizeof halves / sizeof halves[0]; i++) {
        if (pattern == halves[i][0])
            return halves[i][1];
        if (pattern == halves[i][1])
            return halves[i][0];
    }
    return pattern;
}

static bool
has_ttl(int pattern)
{
    return pattern == SPOKE_REP || pattern == SPOKE_RESPONDENT || pattern == SPOKE_PAIR1 ||
           pattern == SPOKE_STAR;
}

static void
open_side(struct side *side, int pattern)
{
    MUST(spoke_socket_open(&side->s, pattern, x.lab.engine) == 0);
    if (has_ttl(pattern))
        MUST(spoke_socket_set_int(side->s, SPOKE_OPT_TTL, (int)x.hops) == 0);
    if (pattern == SPOKE_SUB)
        MUST(spoke_socket_set(side->s, SPOKE_OPT_SUBSCRIBE, SPOKE_BYTES, "", 0) == 0);
}

static void
connect_side(struct side *side, int pattern, bool ipc)
{
    MUST(spoke_listen(side->s, lab_url(ipc), NULL, 0) == 0);
    bare_open(&side->peer, &x.lab, ipc, peer_of(pattern));
    side->expected.pipes_current = 1;
}

static void
open_all(bool swapped)
{
    spoke_sim_config config;

    lab_config(&config, 1, 0);
    lab_open(&x.lab, &config);
    open_side(&x.front, x.pair->front);
    open_side(&x.back, x.pair->back);
    MUST(spoke_socket_on_event(x.front.s, on_event, NULL) == 0);
    MUST(spoke_device_start(&x.device, swapped ? x.back.s : x.front.s,
                            swapped ? x.front.s : x.back.s) == 0);
    connect_side(&x.front, x.pair->front, false);
    connect_side(&x.back, x.pair->back, true);
    MUST(x.way != 0);
}

static void
close_all(bool swapped)
{
    struct spoke_device_stats stats;

    MUST(spoke_device_stop(x.device, &stats) == 0);
    MUST((swapped ? stats.back.messages : stats.there.messages) == x.there);
    MUST((swapped ? stats.there.messages : stats.back.messages) == x.back_again);
    MUST(stats.there.dropped + stats.back.dropped == x.dropped);
    MUST(spoke_socket_close(x.front.s) == 0);
    MUST(spoke_socket_close(x.back.s) == 0);
    bare_close(&x.front.peer);
    bare_close(&x.back.peer);
    lab_close(&x.lab);
}

/* ---- what the device makes of it ---- */

static void
expect_garbled(struct side *from)
{
    from->expected.garbled++;
    if (x.pair->kind == COUNTED && x.pair->front == SPOKE_STAR)
        return;
    from->expected.pipes_current--;
    MUST(bare_ended(&from->peer));
}

static void
try_counted(struct side *from, struct side *to, uint64_t *passed, const uint8_t *bytes, size_t size)
{
    uint32_t word = size >= 4 ? reference_get32(bytes) : COUNT_MOST + 1;
    bool is_star = x.pair->front == SPOKE_STAR;

    if (word > COUNT_MOST) {
        expect_garbled(from);
    } else if (is_star ? word >= x.hops : word > x.hops) {
        from->expected.dropped_ttl++;
    } else if (!is_star && word == COUNT_MOST) {
        x.dropped++; /* it cannot be counted any further */
    } else {
        word++;
        *passed += 1;
        bare_must_hear(&to->peer, &word, bytes + 4, size - 4);
    }
}

/* The number of its pipe goes in front, by which the answer finds back. */
static void
try_question(const uint8_t *bytes, size_t size)
{
    long end = words_end(bytes, size, x.hops);

    if (end == SPOKE_EPROTO) {
        expect_garbled(&x.front);
    } else if (end == SPOKE_ELIMIT) {
        x.front.expected.dropped_ttl++;
    } else {
        x.there++;
        bare_must_hear(&x.back.peer, &x.way, bytes, size);
    }
}

static void
try_answer(const uint8_t *bytes, size_t size)
{
    if (words_end(bytes, size, WORDS_MOST) < 0) {
        expect_garbled(&x.back);
        return;
    }
    x.back_again++;
    if (reference_get32(bytes) == x.way)
        bare_must_hear(&x.front.peer, NULL, bytes + 4, size - 4);
    else
        x.front.expected.dropped_no_peer++;
}

static void
try_message(bool from_back, const uint8_t *bytes, size_t size)
{
    struct side *from = from_back ? &x.back : &x.front, *to = from_back ? &x.front : &x.back;
    uint64_t *passed = from_back ? &x.back_again : &x.there;

    bare_say(&from->peer, bytes, size);
    if (from_back ? !x.pair->back_again : !x.pair->there) {
        from->expected.dropped_unwanted++;
    } else if (x.pair->kind == QUESTIONS) {
        (from_back ? try_answer : try_question)(bytes, size);
    } else if (x.pair->kind == COUNTED) {
        try_counted(from, to, passed, bytes, size);
    } else {
        *passed += 1;
        bare_must_hear(&to->peer, NULL, bytes, size);
    }
}

static void
check_side(struct side *side)
{
    struct spoke_stats stats;

    bare_must_hear_nothing(&side->peer);
    MUST(spoke_socket_stats(side->s, &stats) == 0);
    MUST(stats.garbled == side->expected.garbled);
    MUST(stats.dropped_ttl == side->expected.dropped_ttl);
    MUST(stats.dropped_no_peer == side->expected.dropped_no_peer);
    MUST(stats.dropped_unwanted == side->expected.dropped_unwanted);
    MUST(stats.pipes_current == side->expected.pipes_current);
    MUST(bare_ended(&side->peer) == (stats.pipes_current == 0));
}

/* Until one of them has been hung up on. */
static void
run(struct input *in)
{
    for (int i = 0; i < MESSAGES_MOST && in->left > 0; i++) {
        uint8_t how = input_byte(in);
        size_t size;
        const uint8_t *bytes = input_bytes(in, input_word(in), &size);
        uint8_t *said = malloc(size + 1);

        MUST(said != NULL);
        if (size > 0)
            memcpy(said, bytes, size);
        if ((how & ROUTED) != 0 && size >= 4)
            reference_put32(said, x.way);
        try_message((how & FROM_BACK) != 0, said, size);
        free(said);
        check_side(&x.front);
        check_side(&x.back);
        if (x.front.peer.ended || x.back.peer.ended)
            return;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};
    uint8_t flags = input_byte(&in);

    memset(&x, 0, sizeof x);
    x.pair = &pairs[flags & PATTERNS];
    x.hops = input_byte(&in);
    if (x.hops == 0)
        x.hops = HOPS_DEFAULT;
    open_all((flags & SWAPPED) != 0);
    run(&in);
    close_all((flags & SWAPPED) != 0);
    return 0;
}
