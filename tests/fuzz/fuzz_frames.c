/* SPDX-License-Identifier: MIT */
/* Fuzz target: frames, both ways, over tcp and ipc, on a PAIR socket whose peer says what it likes
 * in pieces of any size and reads when it likes.  What the user receives, what the peer reads and
 * how the connection ends is compared with a second reading of the same bytes.
 *
 * Input: four bytes that choose the scene (see choose()), then commands with their arguments, as
 * the enum below says; words are big-endian. */
/* Covers: runtime/core/framing_in.c */
#include <string.h>

#include "tests/fuzz/support/lab.h"
#include "tests/fuzz/support/reference.h"

/* What happens next. */
enum command {
    SAY,       /* n, n bytes: the peer wants to say these bytes */
    SAY_FRAME, /* word n: … a message of n bytes */
    SAY_LARGE, /* n: … one of n KiB */
    SAY_HEAD,  /* 8 bytes: … the beginning of a message of that length */
    SAY_BODY,  /* word n: … n bytes of one */
    SAY_MUCH,  /* n: … n KiB of one */
    FLUSH,     /* what it wants to say goes out in one piece */
    TRICKLE,   /* n: … in pieces of n + 1 bytes */
    RECEIVE,   /* n: the user receives at most n + 1 messages */
    SEND,      /* word n: the user sends n bytes */
    SEND_MUCH, /* n: … n KiB */
    SENDV,     /* n, word: n % 16 + 1 messages at once, the first of them of so many bytes */
    SEND_MORE, /* word: with SPOKE_MORE */
    READ,      /* word: the peer reads at most so many bytes */
    END,       /* the peer closes the connection */
    BREAK,     /* … or its process dies */
    SHORTAGE,  /* n: from now on n of 250 allocations fail, if the scene is short of memory */
    COMMANDS
};

#define COMMANDS_MOST 200
#define BYTES_MOST    ((size_t)3 << 20)
#define PIECES_MOST   300
#define PATTERN_SIZE  ((size_t)256 * 1024)

static struct scene {
    struct lab lab;
    spoke_sim_config config;
    spoke_socket *s;
    struct sim_handle *listener, *peer;
    bool ipc, dials, raw, abrupt;
    bool short_of_memory;
    bool lost;  /* the connection ended under unread bytes: what was on its way may be lost */
    bool ended; /* by the peer */
    uint32_t attached, detached;
    int reason;
    uint8_t serial; /* of the bodies: no two in a row are alike */

    struct stream said; /* all that the peer wants to have said, as the reference reads it */
    size_t flushed;     /* … and has */
    size_t most;        /* of both: small buffers are not to take for ever */
    size_t sent, read;  /* what the user sent, as it must come out; and has */
    uint64_t sent_messages, received_messages;
} x;
static uint8_t said[BYTES_MOST], sent[BYTES_MOST], pattern[PATTERN_SIZE + 256], taken[BYTES_MOST];
static size_t ends[COMMANDS_MOST * 16]; /* of the messages in `sent` */

/* ---- the scene ---- */

static int
on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    (void)s, (void)ctx;
    if (event->type == SPOKE_EVENT_ATTACHED)
        x.attached++;
    if (event->type == SPOKE_EVENT_DETACHED) {
        x.detached++;
        x.reason = event->reason;
    }
    return 0;
}

static void
choose(struct input *in, spoke_sim_config *config)
{
    static const size_t limits[] = {1 << 20, 0, 1, 8, 100, 5000, 20000, 70000};
    static const uint32_t buffers[] = {0, 1, 7, 13, 100, 1000, 4097, 300000};
    static const int queues[] = {128, 0, 1, 3};
    uint8_t flags = input_byte(in), sizes = input_byte(in), queue = input_byte(in),
            seed = input_byte(in);

    lab_config(config, seed, buffers[sizes >> 3 & 7]);
    x.most = config->buffer_bytes > 0 ? config->buffer_bytes * (size_t)1000 : BYTES_MOST;
    if (x.most > BYTES_MOST)
        x.most = BYTES_MOST;
    x.ipc = (flags & 1) != 0;
    x.dials = (flags & 2) != 0;
    x.raw = (flags & 4) != 0;
    x.abrupt = (flags & 8) != 0;
    x.short_of_memory = (flags & 16) != 0;
    config->short_read = config->short_write = (flags & 32) != 0 ? 400 : 0;
    config->enobufs = (flags & 64) != 0 ? 200 : 0;
    x.said = (struct stream){.bytes = said, .ipc = x.ipc, .limit = limits[sizes & 7]};

    lab_open(&x.lab, config);
    MUST(spoke_socket_open(&x.s, SPOKE_PAIR, x.lab.engine) == 0);
    MUST(spoke_socket_on_event(x.s, on_event, NULL) == 0);
    MUST(spoke_socket_set_size(x.s, SPOKE_OPT_MAX_RECV_SIZE, x.said.limit) == 0);
    MUST(spoke_socket_set_int(x.s, SPOKE_OPT_RECV_QUEUE, queues[queue & 3]) == 0);
    MUST(spoke_socket_set_int(x.s, SPOKE_OPT_SEND_QUEUE, queues[queue >> 2 & 3]) == 0);
    MUST(spoke_socket_set_bool(x.s, SPOKE_OPT_RAW, x.raw) == 0);
    MUST(spoke_socket_set_duration(x.s, SPOKE_OPT_LINGER, 0) == 0);
}

/* Both have shaken hands. */
static void
meet(void)
{
    uint8_t hello[HELLO_SIZE], theirs[HELLO_SIZE];

    if (x.dials) {
        x.listener = lab_listen(&x.lab, x.ipc);
        MUST(spoke_dial(x.s, lab_url(x.ipc), NULL, 0) == 0);
        lab_settle(&x.lab);
        x.peer = lab_accept(&x.lab, x.listener);
        MUST(x.peer != NULL);
    } else {
        MUST(spoke_listen(x.s, lab_url(x.ipc), NULL, 0) == 0);
        x.peer = lab_dial(&x.lab, x.ipc);
    }
    lab_hello(hello, SPOKE_PAIR);
    for (size_t done = 0; done < HELLO_SIZE;) {
        done += lab_write(x.peer, hello + done, HELLO_SIZE - done);
        lab_settle(&x.lab);
    }
    for (size_t done = 0; done < HELLO_SIZE;) {
        size_t n = lab_read(x.peer, theirs + done, HELLO_SIZE - done);
        MUST(n > 0 && n != LAB_ENDED);
        done += n;
        lab_settle(&x.lab);
    }
    MUST(memcmp(hello, theirs, HELLO_SIZE) == 0);
    MUST(x.attached == 1);
}

/* ---- the peer speaks ---- */

static void
say(const void *bytes, size_t size)
{
    if (x.ended || size > x.most - x.said.size)
        return;
    if (size > 0)
        memcpy(said + x.said.size, bytes, size);
    x.said.size += size;
}

static void
say_body(size_t size)
{
    say(pattern + x.serial++, size);
}

static void
say_head(uint64_t length)
{
    uint8_t head[9];

    say(head, stream_head(head, x.ipc, length));
}

static void
say_frame(size_t size)
{
    if (x.ended || size + 9 > x.most - x.said.size)
        return;
    say_head(size);
    say_body(size);
}

static void
say_any_head(struct input *in)
{
    uint64_t length = 0;

    for (int i = 0; i < 8; i++)
        length = length << 8 | input_byte(in);
    say_head(length);
}

/* Returns true if anything went out. */
static bool
flush(size_t piece)
{
    size_t before = x.flushed, n;

    if (x.ended)
        return false;
    for (int i = 0; x.flushed < x.said.size; i++) {
        size_t size = x.said.size - x.flushed;
        n = lab_write(x.peer, said + x.flushed, size < piece || i > PIECES_MOST ? size : piece);
        x.flushed += n;
        lab_settle(&x.lab);
        if (n == 0)
            break;
    }
    return x.flushed > before;
}

/* ---- the user receives ---- */

static void
must_be_next(const spoke_msg *m)
{
    const uint8_t *bytes = NULL;
    size_t size = 0;

    MUST(stream_next(&x.said, &bytes, &size) == 1);
    MUST(x.said.at <= x.flushed);
    MUST(spoke_msg_size(m) == size);
    MUST(size == 0 || memcmp(spoke_msg_body(m), bytes, size) == 0);
    MUST(spoke_msg_header_size(m) == 0);
    MUST(spoke_msg_pipe(m) != 0);
}

static bool
receive(int most)
{
    spoke_msg *m = NULL;
    int rc = SPOKE_EAGAIN, count = 0;

    while (count < most && (rc = spoke_recv(x.s, &m, SPOKE_DONTWAIT)) == 0) {
        must_be_next(m);
        spoke_msg_free(m);
        x.received_messages++;
        count++;
    }
    MUST(count == most || rc == SPOKE_EAGAIN);
    lab_settle(&x.lab);
    return count > 0;
}

/* ---- the user sends ---- */

static bool
room_to_send(size_t size, uint64_t messages)
{
    return size < x.most / 2 && x.sent + (size + 9) * messages <= x.most &&
           x.sent_messages + messages <= sizeof ends / sizeof ends[0];
}

/* A raw socket's header goes out in front of the body. */
static spoke_msg *
new_message(size_t size)
{
    size_t header = x.raw ? size % 40 : 0;
    const uint8_t *bytes = pattern + x.serial++;
    spoke_msg *m;

    if (spoke_msg_from(&m, bytes + header, size - header) != 0)
        return NULL;
    if (spoke_msg_header_append(m, bytes, header) != 0) {
        spoke_msg_free(m);
        return NULL;
    }
    return m;
}

/* It was taken: this must come out. */
static void
note_sent(uint8_t serial, size_t size)
{
    x.sent += stream_head(sent + x.sent, x.ipc, size);
    memcpy(sent + x.sent, pattern + serial, size);
    x.sent += size;
    ends[x.sent_messages++] = x.sent;
    x.lost |= x.ended;
}

static void
send_one(size_t size, int flags)
{
    uint8_t serial = x.serial;
    spoke_msg *m;
    int rc;

    if (!room_to_send(size, 1) || (m = new_message(size)) == NULL)
        return;
    rc = spoke_send(x.s, m, SPOKE_DONTWAIT | flags);
    if (rc == 0) {
        note_sent(serial, size);
    } else {
        MUST(rc == SPOKE_EAGAIN || (x.short_of_memory && rc == SPOKE_ENOMEM));
        MUST(spoke_msg_size(m) + spoke_msg_header_size(m) == size);
        spoke_msg_free(m);
    }
    if (flags == 0)
        lab_settle(&x.lab);
}

static void
send_many(int count, size_t size)
{
    spoke_msg *messages[16];
    uint8_t serial = x.serial;
    int made = 0, rc;

    if (!room_to_send(size + 16 * 37, (uint64_t)count))
        return;
    while (made < count && (messages[made] = new_message(size + (size_t)made * 37)) != NULL)
        made++;
    rc = spoke_sendv(x.s, messages, made, SPOKE_DONTWAIT);
    MUST(rc >= 0 || rc == SPOKE_EAGAIN || (x.short_of_memory && rc == SPOKE_ENOMEM));
    for (int i = 0; i < made; i++) {
        if (i < rc)
            note_sent((uint8_t)(serial + i), size + (size_t)i * 37);
        else
            spoke_msg_free(messages[i]);
    }
    lab_settle(&x.lab);
}

/* ---- the peer reads ---- */

static bool
read_some(size_t most)
{
    size_t n = x.ended ? 0 : lab_read(x.peer, taken, most < sizeof taken ? most : sizeof taken);

    if (n == 0 || n == LAB_ENDED)
        return false;
    MUST(n <= x.sent - x.read);
    MUST(memcmp(taken, sent + x.read, n) == 0);
    x.read += n;
    lab_settle(&x.lab);
    return true;
}

/* ---- the end ---- */

static void
end_by_peer(bool dies)
{
    if (x.ended)
        return;
    x.ended = true;
    x.lost |= dies || x.read < x.sent;
    x.said.size = x.flushed;
    if (dies) {
        spk_sim_die(x.peer);
    } else {
        lab_hang_up(x.peer);
        x.peer = NULL;
    }
    lab_settle(&x.lab);
}

/* Everybody takes what there is for him. */
static void
drain(void)
{
    bool more = true;

    while (more) {
        more = flush(SIZE_MAX);
        more |= receive(INT32_MAX);
        more |= read_some(SIZE_MAX);
    }
}

static void
check_outcome(void)
{
    struct spoke_stats stats;
    const uint8_t *bytes;
    size_t size;
    int verdict = stream_next(&x.said, &bytes, &size);

    MUST(spoke_socket_stats(x.s, &stats) == 0);
    MUST(stats.messages_received == x.received_messages);
    MUST(stats.messages_sent == x.sent_messages);
    if (x.short_of_memory) /* an event needs memory too */
        return;
    MUST(stats.pipes_current == x.attached - x.detached);
    if (x.lost)
        return;
    MUST(verdict <= 0); /* all of them were received */
    MUST(stats.garbled == (verdict == SPOKE_EPROTO));
    MUST(stats.oversized == (verdict == SPOKE_EMSGSIZE));
    MUST(x.detached == (verdict < 0 || x.ended));
    if (verdict < 0)
        MUST(x.reason == verdict);
    else if (x.ended)
        MUST(x.reason == SPOKE_EOF);
    else
        MUST(x.read == x.sent && x.flushed == x.said.size);
}

/* What close() says was not delivered is what the peer will never be able to read. */
static void
check_report(const struct spoke_close_report *report, bool open)
{
    size_t handed_over;
    uint64_t left = 0;

    if (!open || x.peer == NULL || x.short_of_memory || x.lost)
        return;
    handed_over = x.read + x.peer->in.held;
    for (uint64_t i = 0; i < x.sent_messages; i++)
        left += ends[i] > handed_over;
    MUST(report->messages == left);
}

static void
close_all(void)
{
    struct spoke_close_report report;
    bool open = x.detached == 0;
    int rc = spoke_socket_close_report(x.s, &report);

    MUST(rc == (report.messages > 0 ? SPOKE_ETIMEDOUT : 0));
    check_report(&report, open);
    lab_hang_up(x.peer);
    lab_hang_up(x.listener);
    lab_close(&x.lab);
}

static void
fail_allocations(uint32_t of_250)
{
    if (!x.short_of_memory)
        return;
    x.config.enomem = (of_250 < 250 ? of_250 : 250) * 4;
    spoke_sim_set_faults(x.lab.w, &x.config);
}

static void
run(enum command command, struct input *in)
{
    const uint8_t *bytes;
    size_t size;

    switch (command) {
    case SAY:
        bytes = input_bytes(in, input_byte(in), &size);
        say(bytes, size);
        break;
    case SAY_FRAME: say_frame(input_word(in)); break;
    case SAY_LARGE: say_frame(input_byte(in) * (size_t)1024); break;
    case SAY_HEAD: say_any_head(in); break;
    case SAY_BODY: say_body(input_word(in)); break;
    case SAY_MUCH: say_body(input_byte(in) * (size_t)1024); break;
    case FLUSH: flush(SIZE_MAX); break;
    case TRICKLE: flush((size_t)input_byte(in) + 1); break;
    case RECEIVE: receive(input_byte(in) + 1); break;
    case SEND: send_one(input_word(in), 0); break;
    case SEND_MUCH: send_one(input_byte(in) * (size_t)1024, 0); break;
    case SENDV:
        size = input_byte(in) % 16 + 1u;
        send_many((int)size, input_word(in));
        break;
    case SEND_MORE: send_one(input_word(in), SPOKE_MORE); break;
    case READ: read_some(input_word(in)); break;
    case END: end_by_peer(false); break;
    case BREAK: end_by_peer(true); break;
    case SHORTAGE: fail_allocations(input_byte(in)); break;
    case COMMANDS: break;
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    if (pattern[1] == 0)
        for (size_t i = 0; i < sizeof pattern; i++)
            pattern[i] = (uint8_t)(i * 7 + i / 251 + 1);
    memset(&x, 0, sizeof x);
    choose(&in, &x.config);
    meet();
    fail_allocations(25);
    for (int i = 0; i < COMMANDS_MOST && in.left > 0; i++)
        run((enum command)(input_byte(&in) % COMMANDS), &in);
    lab_settle(&x.lab);
    if (!x.abrupt) {
        drain();
        check_outcome();
    }
    close_all();
    return 0;
}
