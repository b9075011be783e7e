/* SPDX-License-Identifier: MIT */
/* Fuzz target: a stream over tls+tcp, listening or dialing, whose peer is OpenSSL: a conversation
 * in which any byte that the peer sends may be changed, lost, repeated or made up, and cut
 * anywhere.
 *
 * What the user reads is what the peer wrote, in its order, however much of the rest was forged; it
 * ends (SPOKE_EOF) only if the peer has said so.  With a peer that is left alone everything comes
 * about.  Nothing is left, and the next peer is welcome.
 *
 * Input: flags (below), the world's seed, then commands with their arguments, as the enum says;
 * words are big-endian.  Random numbers are the same in each run, so the same input means the same
 * bytes. */
/* Covers: runtime/core/tlsstream.c runtime/core/tlsbelow.c runtime/core/tlsrecords.c
 * runtime/core/tlshandshake.c */
#include <string.h>

#include <spoke/stream.h>
#include <spoke/tls.h>

#include "tests/fuzz/support/lab.h"
#include "tests/fuzz/support/tls_peer.h"

enum { DIALS = 1, OLD = 2, MUTUAL = 4, TORN = 8, NARROW = 16, TICKETS = 32 };

/* What happens next; above them the ways to forge what is kept back. */
enum command {
    TALK = FORGERIES, /* the peer reads what has come, goes on, and sends what that gives */
    THINK,            /* … and keeps it back */
    FLUSH,            /* word n: of what is kept back, n bytes are sent */
    WRITE,            /* n: the peer writes n × 67 bytes */
    NEW_KEYS, /* byte: … takes new keys, and wants some if that is odd; 1.2: shakes hands anew */
    FINISH,   /* … says that this is its end */
    READ,     /* n: the user reads at most n × 67 + 1 bytes */
    SEND,     /* n: … writes n × 67 */
    END,      /* … writes no more */
    WAIT,     /* n: n × 50 ms pass */
    HANG_UP,  /* the peer's connection ends */
    DIE,      /* … or is reset */
    COMMANDS
};

#define URL           "tls+tcp://127.0.0.1:7" /* where the lab's tcp is */
#define COMMANDS_MOST 120
#define KEYS_MOST     24 /* that a peer takes who is to be left in peace */

static struct scene {
    struct lab lab;
    uint8_t flags;
    spoke_stream_listener *listener;
    struct sim_handle *sim_listener, *h; /* the latter: the peer's end of the connection */
    spoke_stream *s;                     /* NULL: not yet */
    struct tls_peer peer;
    bool forged;   /* something else was sent than the peer said */
    bool tiresome; /* it has asked for more than anybody has to put up with */
    bool finished; /* it has said so, and that was sent … */
    bool ended;    /* … and no more comes */
    int keys;
    size_t flushed; /* bytes of TLS */
    spoke_ns waited;
    size_t written, read; /* by the peer, and by the user, of the same bytes */
    size_t sent, heard;   /* the other way */
    int broken;           /* what the user was told; 0: all is well, SPOKE_EOF: the end */
} x;
static uint8_t pattern[512 * 1024];

static bool
is(uint8_t flag)
{
    return (x.flags & flag) != 0;
}

/* ---- the peer ---- */

/* Say so many bytes of what is kept back, as far as the other side listens. */
static void
flush(size_t most)
{
    size_t n, done = 0;

    if (most > x.peer.says.size)
        most = x.peer.says.size;
    while (x.h != NULL && done < most &&
           (n = lab_write(x.h, x.peer.says.bytes + done, most - done)) > 0) {
        done += n;
        lab_settle(&x.lab);
    }
    words_drop(&x.peer.says, 0, done);
    x.flushed += done;
}

static void
hear(void)
{
    uint8_t bytes[4096];
    size_t n;

    lab_settle(&x.lab);
    while (x.h != NULL && (n = lab_read(x.h, bytes, sizeof bytes)) > 0 && n != LAB_ENDED) {
        tls_peer_hears(&x.peer, bytes, n);
        lab_settle(&x.lab);
    }
}

static void
think(void)
{
    uint8_t bytes[4096];
    size_t n;

    hear();
    while ((n = tls_peer_read(&x.peer, bytes, sizeof bytes)) > 0) {
        MUST(n <= x.sent - x.heard);
        MUST(memcmp(bytes, pattern + x.heard, n) == 0);
        x.heard += n;
    }
}

static void
peer_writes(size_t size)
{
    if (size <= sizeof pattern - x.written)
        x.written += tls_peer_write(&x.peer, pattern + x.written, size);
}

static void
new_keys(bool wants)
{
    if (tls_peer_new_keys(&x.peer, wants))
        x.keys++;
    if (x.keys > KEYS_MOST || is(OLD))
        x.tiresome = true;
}

static void
hang_up(bool dies)
{
    if (x.h == NULL)
        return;
    if (dies)
        spk_sim_die(x.h);
    lab_hang_up(x.h);
    x.h = NULL;
    x.ended = true;
    lab_settle(&x.lab);
}

/* ---- the user ---- */

/* What a peer may bring about at all. */
static void
must_be_an_end(int rc)
{
    switch (rc) {
    case SPOKE_EOF: MUST(x.finished); break;
    case SPOKE_ETRUNCATED: MUST(x.ended || x.forged); break;
    case SPOKE_ECONNRESET: MUST(x.ended || x.forged || x.finished || x.tiresome); break;
    case SPOKE_EPROTO: MUST(x.forged || x.tiresome); break;
    case SPOKE_ETLS: MUST(x.forged || (x.tiresome && is(OLD))); break; /* it breaks off, refused */
    case SPOKE_ECERT:
    case SPOKE_ECERTREFUSED:
    case SPOKE_ECERTEXPIRED:
    case SPOKE_ECERTEARLY:
    case SPOKE_ECERTNAME:
    case SPOKE_ECERTISSUER:
    case SPOKE_ECERTSELF:
    case SPOKE_ECERTUSAGE:
    case SPOKE_ECERTNONE: MUST(x.forged); break;
    case SPOKE_ETIMEDOUT: MUST(x.waited > 0); break; /* of the handshake */
    default: MUST(rc == 0);
    }
}

static bool
has_stream(void)
{
    if (x.s == NULL && x.listener != NULL && spoke_stream_accept(x.listener, &x.s, SPOKE_NOW) == 0)
        MUST(spoke_stream_set_deadline(x.s, SPOKE_NOW) == 0);
    return x.s != NULL;
}

/* Returns how many bytes. */
static size_t
user_reads(size_t most)
{
    static uint8_t bytes[256 * 67 + 1];
    struct spoke_stream_info info;
    size_t n = 0;
    int rc;

    if (!has_stream())
        return 0;
    rc = spoke_stream_read(x.s, bytes, most < sizeof bytes ? most : sizeof bytes, &n);
    MUST((rc == 0) == (n > 0));
    MUST(n <= x.written - x.read);
    MUST(memcmp(bytes, pattern + x.read, n) == 0);
    x.read += n;
    if (rc == 0)
        return n;
    MUST(spoke_stream_get_info(x.s, &info) == 0);
    MUST(info.read_end == 0 ? rc == SPOKE_EAGAIN : info.read_end == rc);
    MUST(x.broken == 0 || x.broken == info.read_end); /* it stays */
    x.broken = info.read_end;
    must_be_an_end(x.broken);
    return 0;
}

static void
user_writes(size_t size)
{
    size_t done = 0;

    if (!has_stream() || size > sizeof pattern - x.sent)
        return;
    (void)spoke_stream_write(x.s, pattern + x.sent, size, &done);
    MUST(done <= size);
    x.sent += done;
}

/* ---- the scene ---- */

static void
open_all(struct input *in)
{
    spoke_stream_config config;
    spoke_sim_config world;
    uint8_t seed;

    x.flags = input_byte(in);
    seed = input_byte(in);
    lab_config(&world, seed, is(NARROW) ? 700 : 0);
    world.short_read = world.short_write = is(TORN) ? 300 : 0;
    lab_open(&x.lab, &world);
    spoke_stream_config_init(&config);
    config.tls = tls_peer_config(is(DIALS), is(MUTUAL), is(TICKETS));
    if (is(DIALS)) {
        x.sim_listener = lab_listen(&x.lab, false);
        MUST(spoke_stream_dial(&x.s, URL, &config, x.lab.engine, SPOKE_NOW) == 0);
        MUST(spoke_stream_set_deadline(x.s, SPOKE_NOW) == 0);
        lab_settle(&x.lab);
        MUST((x.h = lab_accept(&x.lab, x.sim_listener)) != NULL);
    } else {
        MUST(spoke_stream_listen(&x.listener, URL, &config, x.lab.engine) == 0);
        x.h = lab_dial(&x.lab, false);
    }
    spoke_tls_config_free(config.tls);
    tls_peer_open(&x.peer, is(DIALS), is(OLD), is(MUTUAL));
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
    switch (what) {
    case TALK:
        think();
        flush(SIZE_MAX);
        break;
    case THINK: think(); break;
    case FLUSH: flush(input_word(in)); break;
    case WRITE: peer_writes((size_t)input_byte(in) * 67); break;
    case NEW_KEYS: new_keys((input_byte(in) & 1) != 0); break;
    case FINISH: x.finished = tls_peer_finish(&x.peer) || x.finished; break;
    case READ: (void)user_reads((size_t)input_byte(in) * 67 + 1); break;
    case SEND: user_writes((size_t)input_byte(in) * 67); break;
    case END:
        if (has_stream())
            (void)spoke_stream_close_write(x.s);
        break;
    case WAIT: wait_for(input_byte(in) * 50 * SPOKE_MS); break;
    case HANG_UP: hang_up(false); break;
    case DIE: hang_up(true); break;
    default: x.forged = words_forge(&x.peer.says, (enum forgery)what, in) || x.forged; break;
    }
    lab_settle(&x.lab);
}

/* A peer who only said what it had to say, and has not left, is understood. */
static void
check_outcome(void)
{
    size_t before, now = 0;

    do {
        before = now;
        for (int i = 0; i < 6; i++) { /* as many as hands are shaken in */
            think();
            flush(SIZE_MAX);
            (void)user_reads(SIZE_MAX);
        }
        now = x.read + x.heard + x.flushed;
    } while (now != before);
    if (x.forged || x.tiresome || x.ended || x.waited >= 10 * SPOKE_SECOND)
        return;
    MUST(tls_peer_is_open(&x.peer) && x.s != NULL);
    MUST(x.read == x.written);
    MUST(x.heard == x.sent);
    MUST(x.broken == (x.finished ? SPOKE_EOF : 0));
}

static void
close_all(void)
{
    if (x.s != NULL)
        MUST(spoke_stream_abort(x.s, 0) == 0);
    if (x.listener != NULL)
        MUST(spoke_stream_listener_close(x.listener) == 0);
    lab_hang_up(x.h);
    lab_hang_up(x.sim_listener);
    tls_peer_close(&x.peer);
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
    tls_peer_init();
    open_all(&in);
    for (int i = 0; i < COMMANDS_MOST && in.left > 0; i++)
        run(input_byte(&in) % COMMANDS, &in);
    check_outcome();
    close_all();
    return 0;
}
