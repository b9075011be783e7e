/* SPDX-License-Identifier: MIT */
/* Fuzz target: a PAIR socket or a stream over ws, listening or dialing, whose peer shakes hands and
 * sends frames, any byte of which may be changed, lost, repeated or made up, and cut anywhere.
 *
 * Whatever the peer does, what we send is heads and frames as they should be, masked if we have
 * dialed, and carries what the user sent, in its order; behind a close frame there is nothing.
 * What the user receives of a peer that is left alone is what the peer sent.  Nothing is left.
 *
 * Input: flags (below), the world's seed, then commands with their arguments, as the enum says;
 * words are big-endian. */
/* Covers: transports/ws/upgrade.c transports/ws/answer.c transports/ws/stream.c
 * transports/ws/stream_in.c transports/ws/stream_out.c transports/ws/pipe.c transports/ws/in.c */
#include <stdio.h>
#include <string.h>

#include <spoke/stream.h>

#include "tests/fuzz/support/words.h"
#include "transports/ws/handshake.h"

enum { DIALS = 1, MESSAGES = 2, TORN = 4, NARROW = 8, TEXT = 16, STRANGER = 32, NEIGHBOUR = 64 };

/* What happens next; above them the ways to forge what is kept back. */
enum command {
    HEAD = FORGERIES, /* the peer wants to say the head of a request, or of an answer */
    FRAME,            /* first byte, word n: … a frame of n bytes */
    WORD,             /* first byte, n, n bytes: … one of these bytes */
    FLUSH,            /* all of it is sent */
    DRIP,             /* n: … n bytes of it */
    READ,             /* n: the user reads at most n × 67 + 1 bytes, or receives n messages */
    SEND,             /* word n: … sends n bytes */
    END,              /* … writes no more */
    WAIT,             /* n: n × 50 ms pass */
    HANG_UP,          /* the peer's connection ends */
    DIE,              /* … or is reset */
    COMMANDS
};

#define URL           "ws://127.0.0.1:7/path" /* where the lab's tcp is */
#define COMMANDS_MOST 120
#define BYTES_MOST    ((size_t)512 * 1024)
#define HEAD_MOST     2048
#define LIMIT         ((size_t)40000) /* of a message */

static struct scene {
    struct lab lab;
    uint8_t flags;
    spoke_socket *socket, *neighbour;
    spoke_stream_listener *listener;
    spoke_stream *s; /* NULL: not yet, or it is a socket */
    struct sim_handle *sim_listener, *h;
    struct words says, heard; /* of the peer's: not sent yet; and not read by it yet */
    bool forged, ended, told_head;
    bool head_read; /* ours */
    bool closed;    /* we have said so */
    bool odd;       /* frames were said that are against the rules, or no data */
    char key[WS_KEY_SIZE + 1];
    spoke_ns waited;

    size_t written, read; /* by the peer, in frames of data, and by the user, of the same bytes */
    size_t sent, taken;   /* the other way */
    size_t flushed;
    bool within; /* a message of ours whose end has not come */
} x;
static uint8_t pattern[BYTES_MOST];

static bool
is(uint8_t flag)
{
    return (x.flags & flag) != 0;
}

/* ---- what we say ---- */

static const char *
protocol(void)
{
    return is(MESSAGES) ? "pair.sp.nanomsg.org" : "spoke-stream.1";
}

/* The value of a field in a head of ours. */
static bool
field(const char *head, const char *name, char *value, size_t room)
{
    const char *at = strstr(head, name);
    size_t size;

    if (at == NULL)
        return false;
    at += strlen(name);
    size = strcspn(at, "\r");
    MUST(size < room);
    memcpy(value, at, size);
    value[size] = '\0';
    return true;
}

/* True: there was one. */
static bool
hear_head(void)
{
    char head[HEAD_MOST + 1];
    size_t size = x.heard.size < HEAD_MOST ? x.heard.size : HEAD_MOST;
    char *end;

    memcpy(head, x.heard.bytes, size);
    head[size] = '\0';
    if ((end = strstr(head, "\r\n\r\n")) == NULL)
        return false;
    end[4] = '\0';
    if (is(DIALS)) {
        MUST(strncmp(head, "GET /path HTTP/1.1\r\n", 20) == 0);
        MUST(field(head, "Sec-WebSocket-Key: ", x.key, sizeof x.key));
    } else if (strncmp(head, "HTTP/1.1 101 ", 13) != 0) { /* an answer that refuses */
        MUST(strncmp(head, "HTTP/1.1 4", 10) == 0);
        x.closed = true;
    }
    words_drop(&x.heard, 0, strlen(head));
    x.head_read = true;
    return true;
}

static void
hear_payload(const uint8_t *bytes, size_t size, const uint8_t *key)
{
    MUST(size <= x.sent - x.taken);
    for (size_t i = 0; i < size; i++)
        MUST((bytes[i] ^ (key != NULL ? key[i % 4] : 0)) == pattern[x.taken + i]);
    x.taken += size;
}

static bool
hear_frame(void)
{
    const uint8_t *b = x.heard.bytes;
    size_t size = x.heard.size, head = 2, length;
    unsigned opcode;

    if (size < 2)
        return false;
    opcode = b[0] & 15u;
    length = b[1] & 127u;
    MUST((b[0] & 0x70) == 0 && (b[1] >> 7 != 0) == is(DIALS));
    if (length >= 126)
        head += length == 126 ? 2 : 8;
    if (size < head + (is(DIALS) ? 4 : 0))
        return false;
    if (length >= 126) {
        bool longest = length == 127;
        length = 0;
        for (size_t i = 2; i < head; i++)
            length = length << 8 | b[i];
        MUST(length >= (longest ? 65536u : 126u));
    }
    if (is(DIALS))
        head += 4;
    if (size - head < length)
        return false;
    if (opcode >= 8) {
        MUST(opcode <= 10 && (b[0] & 0x80) != 0 && length <= 125);
        x.closed = opcode == 8;
    } else {
        MUST(opcode == (x.within ? 0 : 2));
        x.within = (b[0] & 0x80) == 0;
        hear_payload(b + head, length, is(DIALS) ? b + head - 4 : NULL);
    }
    words_drop(&x.heard, 0, head + length);
    return true;
}

static void
hear(void)
{
    uint8_t bytes[4096];
    size_t n;

    lab_settle(&x.lab);
    while (x.h != NULL && (n = lab_read(x.h, bytes, sizeof bytes)) > 0 && n != LAB_ENDED) {
        words_add(&x.heard, bytes, n);
        lab_settle(&x.lab);
    }
    if (!x.head_read && (x.heard.size == 0 || !hear_head()))
        return;
    while (!x.closed && hear_frame()) {
    }
    if (x.closed && is(DIALS))
        MUST(x.heard.size == 0);
}

/* ---- what the peer says ---- */

static void
say_head(void)
{
    char text[1024], accept[WS_ACCEPT_SIZE + 1];
    int size;

    if (is(DIALS)) {
        hear();
        if (x.key[0] == '\0')
            return;
        ws_accept_key(x.key, accept);
        size = snprintf(text, sizeof text,
                        "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Accept: %s\r\n%s%s%s\r\n",
                        accept, is(STRANGER) ? "" : "Sec-WebSocket-Protocol: ",
                        is(STRANGER) ? "" : protocol(), is(STRANGER) ? "" : "\r\n");
    } else {
        size = snprintf(text, sizeof text,
                        "GET /path%s HTTP/1.1\r\nHost: 127.0.0.1:7\r\nUpgrade: websocket\r\n"
                        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                        "Sec-WebSocket-Version: 13\r\n%s%s%s\r\n",
                        is(NEIGHBOUR) ? "/next" : "",
                        is(STRANGER) ? "" : "Sec-WebSocket-Protocol: ",
                        is(STRANGER) ? "" : protocol(), is(STRANGER) ? "" : "\r\n");
    }
    x.odd = x.odd || x.told_head || (is(STRANGER) && is(MESSAGES));
    x.told_head = true;
    words_add(&x.says, text, (size_t)size);
}

static void
say_frame(uint8_t first, const uint8_t *bytes, size_t size)
{
    const uint8_t key[4] = {first, 1, 2, (uint8_t)size};
    uint8_t head[14] = {first}, *copy;
    size_t at = 2;

    head[1] = size > 65535 ? 127 : size > 125 ? 126 : (uint8_t)size;
    if (size > 125)
        for (int shift = size > 65535 ? 56 : 8; shift >= 0; shift -= 8)
            head[at++] = (uint8_t)((uint64_t)size >> shift);
    MUST((copy = malloc(size + 1)) != NULL);
    memcpy(copy, bytes, size);
    if (!is(DIALS)) {
        head[1] |= 0x80;
        memcpy(head + at, key, 4);
        at += 4;
        for (size_t i = 0; i < size; i++)
            copy[i] ^= key[i % 4];
    }
    words_add(&x.says, head, at);
    words_add(&x.says, copy, size);
    free(copy);
}

/* One whole message each, or what is none. */
static void
say_data(uint8_t first, size_t size)
{
    if (size > BYTES_MOST - x.written)
        return;
    say_frame(first, pattern + x.written, size);
    x.written += size;
    if (first != 0x82 || !x.told_head || size == 0 || (is(MESSAGES) && size > LIMIT))
        x.odd = true;
}

static void
flush(size_t most)
{
    size_t n, done = 0;

    if (most > x.says.size)
        most = x.says.size;
    while (x.h != NULL && done < most &&
           (n = lab_write(x.h, x.says.bytes + done, most - done)) > 0) {
        done += n;
        lab_settle(&x.lab);
    }
    words_drop(&x.says, 0, done);
    x.flushed += done;
}

static void
hang_up(bool dies)
{
    if (x.h == NULL)
        return;
    hear();
    if (dies)
        spk_sim_die(x.h);
    lab_hang_up(x.h);
    x.h = NULL;
    x.ended = true;
}

/* ---- the user ---- */

static bool
is_alone(void)
{
    return !x.forged && !x.odd && !is(NEIGHBOUR);
}

static void
user_got(const uint8_t *bytes, size_t size)
{
    MUST(!is(MESSAGES) || size <= LIMIT);
    if (!is_alone())
        return;
    MUST(size <= x.written - x.read);
    MUST(memcmp(bytes, pattern + x.read, size) == 0);
    x.read += size;
}

static bool
has_stream(void)
{
    if (x.s == NULL && x.listener != NULL && spoke_stream_accept(x.listener, &x.s, SPOKE_NOW) == 0)
        MUST(spoke_stream_set_deadline(x.s, SPOKE_NOW) == 0);
    return x.s != NULL;
}

static bool
user_reads(size_t n)
{
    static uint8_t bytes[256 * 67 + 1];
    size_t most = n * 67 + 1, done = 0;
    spoke_msg *m;

    if (is(MESSAGES)) {
        if (spoke_recv(x.socket, &m, SPOKE_DONTWAIT) != 0)
            return false;
        user_got(spoke_msg_body(m), spoke_msg_size(m));
        spoke_msg_free(m);
        return true;
    }
    if (!has_stream() || spoke_stream_read(x.s, bytes, most, &done) != 0)
        return false;
    MUST(done > 0 && done <= most);
    user_got(bytes, done);
    return true;
}

static void
user_sends(size_t size)
{
    size_t done = 0;

    if (size > BYTES_MOST - x.sent)
        return;
    if (is(MESSAGES))
        done = spoke_send_bytes(x.socket, pattern + x.sent, size, SPOKE_DONTWAIT) == 0 ? size : 0;
    else if (has_stream())
        (void)spoke_stream_write(x.s, pattern + x.sent, size, &done);
    x.sent += done;
}

/* ---- the scene ---- */

static void
open_socket(void)
{
    MUST(spoke_socket_open(&x.socket, SPOKE_PAIR, x.lab.engine) == 0);
    MUST(spoke_socket_set_duration(x.socket, SPOKE_OPT_LINGER, 0) == 0);
    MUST(spoke_socket_set_duration(x.socket, SPOKE_OPT_RECONNECT, 600 * SPOKE_SECOND) == 0);
    MUST(spoke_socket_set_size(x.socket, SPOKE_OPT_MAX_RECV_SIZE, LIMIT) == 0);
    MUST(spoke_socket_set_size(x.socket, SPOKE_OPT_WS_FRAME_SIZE, 8192) == 0);
    MUST(spoke_socket_set_bool(x.socket, SPOKE_OPT_WS_RECV_TEXT, is(TEXT)) == 0);
    if (is(DIALS))
        MUST(spoke_dial(x.socket, URL, NULL, 0) == 0);
    else
        MUST(spoke_listen(x.socket, URL, NULL, 0) == 0);
}

static void
open_stream(void)
{
    if (!is(DIALS)) {
        MUST(spoke_stream_listen(&x.listener, URL, NULL, x.lab.engine) == 0);
        return;
    }
    MUST(spoke_stream_dial(&x.s, URL, NULL, x.lab.engine, SPOKE_NOW) == 0);
    MUST(spoke_stream_set_deadline(x.s, SPOKE_NOW) == 0);
}

static void
open_all(struct input *in)
{
    spoke_sim_config world;
    uint8_t seed;

    x.flags = input_byte(in);
    seed = input_byte(in);
    lab_config(&world, seed, is(NARROW) ? 300 : 0);
    world.short_read = world.short_write = is(TORN) ? 300 : 0;
    lab_open(&x.lab, &world);
    if (is(DIALS))
        x.sim_listener = lab_listen(&x.lab, false);
    if (is(MESSAGES))
        open_socket();
    else
        open_stream();
    if (is(NEIGHBOUR)) {
        MUST(spoke_socket_open(&x.neighbour, SPOKE_PAIR, x.lab.engine) == 0);
        MUST(is(DIALS) || spoke_listen(x.neighbour, URL "/next", NULL, 0) == 0);
    }
    lab_settle(&x.lab);
    if (is(DIALS))
        MUST((x.h = lab_accept(&x.lab, x.sim_listener)) != NULL);
    else
        x.h = lab_dial(&x.lab, false);
}

static void
wait_for(spoke_ns time)
{
    lab_pass(&x.lab, time);
    x.waited += time;
}

static void
run(unsigned what, struct input *in)
{
    const uint8_t *bytes;
    size_t size;
    uint8_t n;

    switch (what) {
    case HEAD: say_head(); break;
    case FRAME:
        n = input_byte(in);
        say_data(n, input_word(in));
        break;
    case WORD:
        n = input_byte(in);
        bytes = input_bytes(in, input_byte(in), &size);
        say_frame(n, bytes, size);
        x.odd = true;
        break;
    case FLUSH: flush(SIZE_MAX); break;
    case DRIP: flush(input_byte(in)); break;
    case READ: (void)user_reads(input_byte(in)); break;
    case SEND: user_sends(input_word(in)); break;
    case END:
        if (!is(MESSAGES) && has_stream())
            (void)spoke_stream_close_write(x.s);
        break;
    case WAIT: wait_for(input_byte(in) * 50 * SPOKE_MS); break;
    case HANG_UP: hang_up(false); break;
    case DIE: hang_up(true); break;
    default: x.forged = words_forge(&x.says, (enum forgery)what, in) || x.forged; break;
    }
    hear();
}

/* A peer who only said what it had to say, and has not left, is understood. */
static void
check_outcome(void)
{
    size_t before, now = 0;

    do {
        before = now;
        flush(SIZE_MAX);
        while (user_reads(255))
            hear();
        hear();
        now = x.read + x.taken + x.flushed;
    } while (now != before);
    if (!is_alone() || x.ended || !x.told_head || x.waited >= 10 * SPOKE_SECOND)
        return;
    MUST(x.head_read && !x.closed);
    MUST(x.read == x.written);
    MUST(x.taken == x.sent);
}

/* What was sent may be lost, where nobody listens. */
static void
must_close(int rc)
{
    MUST(rc == 0 || rc == SPOKE_ETIMEDOUT);
}

static void
close_all(void)
{
    if (x.s != NULL)
        must_close(spoke_stream_close(x.s));
    if (x.listener != NULL)
        must_close(spoke_stream_listener_close(x.listener));
    if (x.socket != NULL)
        must_close(spoke_socket_close(x.socket));
    if (x.neighbour != NULL)
        must_close(spoke_socket_close(x.neighbour));
    hear(); /* the last word */
    lab_hang_up(x.h);
    lab_hang_up(x.sim_listener);
    lab_pass(&x.lab, 2 * SPOKE_SECOND);
    words_free(&x.says);
    words_free(&x.heard);
    lab_close(&x.lab);
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    if (pattern[1] == 0)
        for (size_t i = 0; i < sizeof pattern; i++)
            pattern[i] = (uint8_t)(i * 7 + i / 251 + 1);
    memset(&x, 0, sizeof x);
    open_all(&in);
    for (int i = 0; i < COMMANDS_MOST && in.left > 0; i++)
        run(input_byte(&in) % COMMANDS, &in);
    check_outcome();
    close_all();
    return 0;
}
