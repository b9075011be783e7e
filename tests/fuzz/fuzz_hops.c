/* SPDX-License-Identifier: MIT */
/* Fuzz target: PAIR1, STAR and BUS, cooked and raw, whose messages have one word in front that
 * counts, or none.  Two bare peers (PAIR1: one) say any bytes.  What the user gets, what is passed
 * on to the other peer, what goes back, what is counted and what becomes of the connection is
 * compared with a second reading of the bytes.
 *
 * Input: flags (below), the hop limit, then messages: who says it (one byte: its lowest bit), how
 * many bytes (two, big-endian), and the bytes. */
/* Covers: protocols/sp/sp.c protocols/sp/pair1.c protocols/sp/star.c protocols/sp/bus.c */
#include <string.h>

#include "tests/fuzz/support/bare.h"

/* The lowest two bits: PAIR1, STAR, BUS, STAR. */
enum { PATTERN = 3, RAW = 4, IPC = 8 };

#define HOPS_DEFAULT  8
#define COUNT_MOST    255
#define MESSAGES_MOST 8

static struct scene {
    struct lab lab;
    spoke_socket *s;
    int pattern, peer_count;
    bool raw;
    uint32_t hops;
    struct bare peers[2];
    struct spoke_stats expected;
} x;

static void
open_all(bool ipc)
{
    spoke_sim_config config;

    lab_config(&config, 1, 0);
    lab_open(&x.lab, &config);
    MUST(spoke_socket_open(&x.s, x.pattern, x.lab.engine) == 0);
    MUST(spoke_socket_set_bool(x.s, SPOKE_OPT_RAW, x.raw) == 0);
    if (x.pattern != SPOKE_BUS)
        MUST(spoke_socket_set_int(x.s, SPOKE_OPT_TTL, (int)x.hops) ==
             (x.hops > 0 ? 0 : SPOKE_ERANGE));
    if (x.hops == 0)
        x.hops = HOPS_DEFAULT;
    MUST(spoke_listen(x.s, lab_url(ipc), NULL, 0) == 0);
    for (int i = 0; i < x.peer_count; i++)
        bare_open(&x.peers[i], &x.lab, ipc, x.pattern);
}

static void
close_all(void)
{
    MUST(spoke_socket_close(x.s) == 0);
    for (int i = 0; i < x.peer_count; i++)
        bare_close(&x.peers[i]);
    lab_close(&x.lab);
}

/* ---- what comes of a message ---- */

enum fate { ARRIVES, GARBLED, TOO_FAR };

/* `word`: as the user of a raw socket sees it. */
static enum fate
fate_of(const uint8_t *bytes, size_t size, uint32_t *word)
{
    if (x.pattern == SPOKE_BUS)
        return ARRIVES;
    if (size < 4 || reference_get32(bytes) > COUNT_MOST)
        return GARBLED;
    *word = reference_get32(bytes);
    if (x.pattern == SPOKE_PAIR1)
        return *word > x.hops ? TOO_FAR : ARRIVES;
    return (*word)++ >= x.hops ? TOO_FAR : ARRIVES;
}

/* A raw user sends what came as it came.  A BUS and a STAR send it to all but whoever it is from.
 */
static void
send_back(spoke_msg *m, struct bare *from, struct bare *other, uint32_t word, const uint8_t *body,
          size_t size)
{
    int rc = spoke_send(x.s, m, SPOKE_DONTWAIT);

    if (x.pattern == SPOKE_PAIR1 && word == COUNT_MOST) {
        MUST(rc == SPOKE_EINVAL);
        spoke_msg_free(m);
        return;
    }
    MUST(rc == 0);
    word += x.pattern == SPOKE_PAIR1;
    if (x.pattern == SPOKE_PAIR1)
        bare_must_hear(from, &word, body, size);
    else if (!bare_ended(other))
        bare_must_hear(other, x.pattern == SPOKE_BUS ? NULL : &word, body, size);
}

static void
check_arrived(struct bare *from, struct bare *other, uint32_t word, const uint8_t *body,
              size_t size)
{
    spoke_msg *m;

    if (x.pattern == SPOKE_STAR && !bare_ended(other))
        bare_must_hear(other, &word, body, size);
    MUST(spoke_recv(x.s, &m, SPOKE_DONTWAIT) == 0);
    MUST(spoke_msg_size(m) == size);
    MUST(size == 0 || memcmp(spoke_msg_body(m), body, size) == 0);
    MUST(spoke_msg_header_size(m) == (x.raw ? 4 : 0));
    if (!x.raw) {
        spoke_msg_free(m);
        return;
    }
    MUST(reference_get32(spoke_msg_header(m)) ==
         (x.pattern == SPOKE_BUS ? spoke_msg_pipe(m) : word));
    send_back(m, from, other, word, body, size);
}

static void
check_counters(void)
{
    struct spoke_stats stats;

    MUST(spoke_socket_stats(x.s, &stats) == 0);
    MUST(stats.garbled == x.expected.garbled);
    MUST(stats.dropped_ttl == x.expected.dropped_ttl);
    MUST(stats.pipes_current == x.expected.pipes_current);
}

static void
try_message(struct bare *from, struct bare *other, const uint8_t *bytes, size_t size)
{
    size_t front = x.pattern == SPOKE_BUS ? 0 : 4;
    uint32_t word = 0;
    enum fate fate = fate_of(bytes, size, &word);
    spoke_msg *m;

    bare_say(from, bytes, size);
    x.expected.garbled += fate == GARBLED;
    x.expected.dropped_ttl += fate == TOO_FAR;
    x.expected.pipes_current -= fate == GARBLED && x.pattern != SPOKE_STAR;
    if (fate == ARRIVES)
        check_arrived(from, other, word, bytes + front, size - front);
    MUST(spoke_recv(x.s, &m, SPOKE_DONTWAIT) == SPOKE_EAGAIN);
    MUST(bare_ended(from) == (fate == GARBLED && x.pattern != SPOKE_STAR));
    for (int i = 0; i < x.peer_count; i++)
        bare_must_hear_nothing(&x.peers[i]);
    check_counters();
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const int patterns[] = {SPOKE_PAIR1, SPOKE_STAR, SPOKE_BUS, SPOKE_STAR};
    struct input in = {data, size};
    uint8_t flags = input_byte(&in);

    memset(&x, 0, sizeof x);
    x.pattern = patterns[flags & PATTERN];
    x.raw = (flags & RAW) != 0;
    x.hops = input_byte(&in);
    x.peer_count = x.pattern == SPOKE_PAIR1 ? 1 : 2;
    x.expected.pipes_current = (uint64_t)x.peer_count;
    open_all((flags & IPC) != 0);
    for (int i = 0; i < MESSAGES_MOST && in.left > 0; i++) {
        int who = input_byte(&in) % x.peer_count;
        size_t most = input_word(&in);
        const uint8_t *bytes = input_bytes(&in, most, &size);

        if (!x.peers[who].ended)
            try_message(&x.peers[who], &x.peers[x.peer_count - 1 - who], bytes, size);
    }
    close_all();
    return 0;
}
