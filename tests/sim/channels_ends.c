/* SPDX-License-Identifier: MIT */
/* What is done with one channel, or stream, of a storm, and what must come of it. */
#include "tests/sim/channels.h"

#include <string.h>

struct model x;
struct seen seen;

uint32_t
chance(uint32_t below)
{
    return (uint32_t)storm_below(&x.storm, below);
}

void
expect_at(int line, int rc)
{
    switch (rc) {
    case 0:
    case SPOKE_EAGAIN: return;
    case SPOKE_ENOMEM:
    case SPOKE_EMUXCLOSED:
    case SPOKE_ECONNRESET:
    case SPOKE_EREJECTED:
    case SPOKE_EPEERDEAD: holds(x.breaks, "line %d: %s", line, spoke_error_name(rc)); return;
    default: holds(false, "line %d: %s", line, spoke_error_name(rc));
    }
}

spoke_engine *
engine_of(int machine)
{
    return x.storm.machines[x.machines[machine]];
}

/* ---- ends come, and go ---- */

void
lose_sender(struct channel *c)
{
    c->tx_lost |= c->tx_at != GONE;
    c->tx_at = GONE;
}

void
lose_receiver(struct channel *c)
{
    c->dropped |= c->rx_at != GONE && !c->ended;
    c->rx_at = GONE;
}

void
lose_end(struct stream *s, int end)
{
    s->at[end] = GONE;
}

/* It was closed in order, with its message if it was carried. */
static void
let_go(struct thing t)
{
    seen.dropped++;
    if (t.kind == A_SENDER)
        x.channels[t.number].tx_at = GONE;
    else if (t.kind == A_RECEIVER)
        lose_receiver(&x.channels[t.number]);
    else if (t.kind == A_STREAM)
        lose_end(&x.streams[t.number], 1);
}

/* The recipient's, from now on: each is so once. */
static void
take(spoke_msg *m, size_t i, struct thing t, int machine)
{
    struct channel *c = t.kind == A_STREAM ? NULL : &x.channels[t.number];
    struct stream *s = t.kind == A_STREAM ? &x.streams[t.number] : NULL;
    int *at = t.kind == A_SENDER ? &c->tx_at : t.kind == A_RECEIVER ? &c->rx_at : &s->at[1];
    int rc;

    holds(*at == AWAY, "%d %d comes twice", t.kind, t.number);
    if (t.kind == A_SENDER)
        rc = spoke_msg_take_sender(m, i, &c->tx);
    else if (t.kind == A_RECEIVER)
        rc = spoke_msg_take_receiver(m, i, &c->rx);
    else if ((rc = spoke_msg_take_stream(m, i, &s->ends[1])) == 0)
        cr_assert_eq(spoke_stream_set_deadline(s->ends[1], SPOKE_NOW), 0);
    if (rc != 0) {
        expect(rc);
        let_go(t);
        return;
    }
    *at = machine;
    if (t.kind == A_SENDER)
        c->sent_here = 0;
    seen.taken++;
}

static bool
attach(spoke_msg *m, struct thing t)
{
    struct channel *c = t.kind == A_STREAM ? NULL : &x.channels[t.number];
    struct stream *s = t.kind == A_STREAM ? &x.streams[t.number] : NULL;
    int rc = t.kind == A_SENDER     ? spoke_msg_attach_sender(m, c->tx)
             : t.kind == A_RECEIVER ? spoke_msg_attach_receiver(m, c->rx)
                                    : spoke_msg_attach_stream(m, s->ends[1], SPOKE_ATTACHED_BOTH);

    expect(rc);
    if (rc != 0)
        return false;
    *(t.kind == A_SENDER ? &c->tx_at : t.kind == A_RECEIVER ? &c->rx_at : &s->at[1]) = AWAY;
    return true;
}

/* Something that this machine has and that may go over channel `over`; none: kind 0. */
static struct thing
choose(int over, int machine)
{
    if (chance(4) == 0) {
        int i = x.stream_count > 0 ? (int)chance((uint32_t)x.stream_count) : 0;

        if (x.stream_count > 0 && x.streams[i].at[1] == machine && x.streams[i].at[0] != GONE)
            return (struct thing){A_STREAM, i};
    } else if (over + 1 < x.channel_count) {
        int i = over + 1 + (int)chance((uint32_t)(x.channel_count - over - 1));
        const struct channel *c = &x.channels[i];

        if (c->opened && !c->accepted)
            return (struct thing){0};
        if (chance(2) == 0 && c->tx_at == machine)
            return (struct thing){A_SENDER, i};
        if (c->rx_at == machine && !c->ended)
            return (struct thing){A_RECEIVER, i};
    }
    return (struct thing){0};
}

/* ---- opening ---- */

static struct channel *
new_channel(spoke_channel_config *config)
{
    struct channel *c = &x.channels[x.channel_count];

    memset(c, 0, sizeof *c);
    c->tx_at = c->rx_at = AWAY;
    c->depth = 1 + chance(12);
    spoke_channel_config_init(config);
    config->depth = c->depth;
    config->max_message = LARGEST + (size_t)x.channel_count;
    return c;
}

void
open_pair(int machine)
{
    spoke_channel_config config;
    struct channel *c;
    int rc;

    if (x.channel_count == CHANNELS || x.dead[machine])
        return;
    c = new_channel(&config);
    rc = spoke_channel_pair(&c->rx, &c->tx, &config, engine_of(machine));
    expect(rc);
    if (rc != 0)
        return;
    c->tx_at = c->rx_at = machine;
    x.channel_count++;
    seen.channels++;
}

void
open_over(spoke_session *ss, int machine)
{
    spoke_channel_config config;
    bool sends = chance(2) == 0;
    struct channel *c;
    int rc;

    if (x.channel_count == CHANNELS || ss == NULL)
        return;
    c = new_channel(&config);
    rc = sends ? spoke_session_open_sender(ss, &c->tx, &config, NULL, SPOKE_NOW)
               : spoke_session_open_receiver(ss, &c->rx, &config, NULL, SPOKE_NOW);
    expect(rc);
    if (rc != 0)
        return;
    *(sends ? &c->tx_at : &c->rx_at) = machine;
    c->opened = true;
    x.channel_count++;
    seen.channels++;
}

void
accept_sender(spoke_session *ss, int machine)
{
    struct spoke_channel_info info;
    struct channel *c;
    spoke_sender *tx;
    int rc = spoke_session_accept_sender(ss, &tx, NULL, SPOKE_NOW);

    expect(rc);
    if (rc != 0)
        return;
    cr_assert_eq(spoke_sender_get_info(tx, &info), 0);
    holds(info.max_message >= LARGEST && info.max_message < LARGEST + (size_t)x.channel_count,
          "of up to %zu bytes", info.max_message);
    c = &x.channels[info.max_message - LARGEST];
    holds(c->opened && !c->accepted && c->tx_at == AWAY, "a channel comes twice");
    c->accepted = true;
    c->tx = tx;
    c->tx_at = machine;
}

void
accept_receiver(spoke_session *ss, int machine)
{
    spoke_channel_config config;
    int i = 0, rc;

    while (i < UNKNOWN && x.unknown[i].rx != NULL)
        i++;
    if (i == UNKNOWN)
        return;
    spoke_channel_config_init(&config);
    config.max_message = 64 * 1024;
    x.unknown[i].depth = config.depth = 1 + chance(12);
    rc = spoke_session_accept_receiver(ss, &x.unknown[i].rx, &config, SPOKE_NOW);
    if (rc != 0)
        x.unknown[i].rx = NULL;
    expect(rc);
    x.unknown[i].at = machine;
}

void
open_stream(int machine)
{
    struct stream *s = &x.streams[x.stream_count];
    spoke_stream_config config;
    int rc;

    if (x.stream_count == STREAMS || x.dead[machine])
        return;
    memset(s, 0, sizeof *s);
    spoke_stream_config_init(&config);
    config.window = 1 + chance(20000);
    rc = spoke_stream_pair(&s->ends[0], &s->ends[1], &config, engine_of(machine));
    expect(rc);
    if (rc != 0)
        return;
    for (int end = 0; end < 2; end++) {
        cr_assert_eq(spoke_stream_set_deadline(s->ends[end], SPOKE_NOW), 0);
        s->at[end] = machine;
    }
    x.stream_count++;
}

/* ---- messages ---- */

/* Why nobody receives any more. */
static void
check_send(const struct channel *c, int rc)
{
    if (rc == SPOKE_EPEERCLOSED)
        holds(c->rx_at < 0 || x.breaks, "the receiver of %d is there", (int)(c - x.channels));
    else if (rc == SPOKE_EABORTED) /* … or went with a message */
        holds(x.breaks || c->rx_at == AWAY, "an abort of %d", (int)(c - x.channels));
    else
        expect(rc);
}

void
send_one(int number)
{
    struct channel *c = &x.channels[number];
    struct storm_label label = {(uint32_t)number, 0, c->sent + 1, storm_size(&x.storm)};
    struct thing with[2] = {{0}, {0}};
    size_t count = 0;
    spoke_msg *m;
    int at = c->tx_at, rc;

    if (at < 0 || c->sent == MESSAGES || (m = storm_message(label)) == NULL)
        return;
    for (int i = 0; i < 2 && chance(3) == 0; i++) {
        struct thing t = choose(number, at);

        if (t.kind != 0 && attach(m, t))
            with[count++] = t;
    }
    rc = spoke_sender_send(c->tx, m, SPOKE_NOW);
    check_send(c, rc);
    if (rc == 0) {
        memcpy(c->with[c->sent++], with, sizeof with);
        c->sent_here++;
        seen.messages++;
        seen.carried += count;
        if (!c->carried && (c->opened ? c->accepted : true))
            holds(c->sent - c->received <= c->depth + (c->opened ? (c->depth + 1) / 2 : 0),
                  "%u messages on their way in %zu", c->sent - c->received, c->depth);
        for (size_t i = 0; i < count; i++) {
            if (with[i].kind != A_STREAM)
                x.channels[with[i].number].carried = true;
        }
        return;
    }
    /* It is as it was. */
    holds(spoke_msg_attachments(m) == count, "%zu of %zu", spoke_msg_attachments(m), count);
    for (size_t i = 0; i < count; i++)
        take(m, i, with[i], at);
    spoke_msg_free(m);
}

static void
got(struct channel *c, spoke_msg *m, const struct storm_label *label)
{
    bool takes = x.closing || chance(5) > 0;
    const struct thing *with;
    size_t count = 0;

    c->received++;
    holds(label->number == c->received && c->received <= c->sent,
          "message %u of channel %u, not %u", label->number, label->kind, c->received);
    with = c->with[label->number - 1];
    while (count < 2 && with[count].kind != 0)
        count++;
    holds(spoke_msg_attachments(m) == count, "%zu of %zu", spoke_msg_attachments(m), count);
    for (size_t i = 0; i < count; i++) {
        if (takes)
            take(m, i, with[i], c->rx_at);
        else
            let_go(with[i]);
    }
    spoke_msg_free(m);
}

/* The peer, who is none of a liar, has done nothing that it may not. */
static void
expect_of(spoke_receiver *rx, int rc)
{
    struct spoke_channel_info info;

    cr_assert_eq(spoke_receiver_get_info(rx, &info), 0);
    holds(rc != SPOKE_EPROTO, "%s", info.text);
    expect(rc);
}

/* In order with all there was, or with an error that something has caused. */
static void
check_end(struct channel *c, int rc)
{
    c->ended = true;
    if (rc == SPOKE_EOF) {
        holds(c->received == c->sent && c->tx_at < 0 && !c->aborted && !c->tx_lost,
              "channel %d ends after %u of %u", (int)(c - x.channels), c->received, c->sent);
        seen.whole++;
    } else if (rc == SPOKE_EABORTED) {
        /* Or the sender went with a message that nobody received. */
        holds(c->aborted || c->tx_at == AWAY || x.breaks, "an abort of %d", (int)(c - x.channels));
    } else {
        expect_of(c->rx, rc);
    }
}

void
receive_one(int number)
{
    struct channel *c = &x.channels[number];
    struct storm_label label;
    spoke_msg *m;
    int rc;

    if (c->rx_at < 0 || c->ended)
        return;
    rc = spoke_receiver_recv(c->rx, &m, SPOKE_NOW);
    if (rc == 0) {
        label = storm_check(&x.storm, m);
        holds((int)label.kind == number, "a message of channel %u on %d", label.kind, number);
        got(c, m, &label);
    } else if (rc != SPOKE_EAGAIN) {
        check_end(c, rc);
    }
}

void
receive_unknown(int i)
{
    struct storm_label label;
    struct channel *c;
    spoke_msg *m;
    int rc;

    if (x.unknown[i].rx == NULL)
        return;
    if ((rc = spoke_receiver_recv(x.unknown[i].rx, &m, SPOKE_NOW)) == SPOKE_EAGAIN)
        return;
    if (rc != 0) { /* nobody closes what nothing was sent on */
        if (rc != SPOKE_EABORTED)
            expect_of(x.unknown[i].rx, rc);
        cr_assert_eq(spoke_receiver_close(x.unknown[i].rx), 0);
        x.unknown[i].rx = NULL;
        return;
    }
    label = storm_check(&x.storm, m);
    holds((int)label.kind < x.channel_count, "channel %u", label.kind);
    c = &x.channels[label.kind];
    holds(c->opened && !c->accepted && c->rx_at == AWAY, "a channel comes twice");
    c->accepted = true;
    c->rx = x.unknown[i].rx;
    c->rx_at = x.unknown[i].at;
    c->depth = x.unknown[i].depth;
    x.unknown[i].rx = NULL;
    got(c, m, &label);
}

void
sync_one(const struct channel *c)
{
    int rc;

    if (c->tx_at < 0)
        return;
    rc = spoke_sender_sync(c->tx, SPOKE_NOW);
    check_send(c, rc);
    if (rc == 0 && c->sent_here > 0)
        holds(c->received == c->sent, "%u of %u of channel %d are not there: receiver at %d%s%s%s",
              c->sent - c->received, c->sent, (int)(c - x.channels), c->rx_at,
              c->dropped ? ", dropped" : "", c->carried ? ", carried" : "",
              c->opened ? ", opened" : "");
}

/* ---- closing ---- */

void
close_sender(struct channel *c)
{
    /* Nobody would know which it was. */
    if (c->tx_at < 0 || (c->opened && !c->accepted && c->sent == 0 && !x.closing))
        return;
    if (c->opened && !c->accepted && c->sent == 0) {
        cr_assert_eq(spoke_sender_abort(c->tx, 1, NULL), 0);
        c->aborted = true;
    } else {
        cr_assert_eq(spoke_sender_close(c->tx), 0);
    }
    c->tx_at = GONE;
}

void
abort_sender(struct channel *c)
{
    if (c->tx_at < 0)
        return;
    cr_assert_eq(spoke_sender_abort(c->tx, 1, "enough"), 0);
    c->aborted = true;
    c->tx_at = GONE;
}

void
close_receiver(struct channel *c)
{
    if (c->rx_at < 0)
        return;
    cr_assert_eq(spoke_receiver_close(c->rx), 0);
    lose_receiver(c);
}

/* ---- byte streams ---- */

static uint8_t
byte_of(const struct stream *s, int from, uint64_t at)
{
    return (uint8_t)((s - x.streams) * 37 + from * 101 + (int)(at * 7 + (at >> 8)));
}

void
write_some(struct stream *s, int end)
{
    uint8_t bytes[3000];
    size_t size = 1 + chance(sizeof bytes), done;

    if (s->at[end] < 0 || s->ended[end])
        return;
    for (size_t i = 0; i < size; i++)
        bytes[i] = byte_of(s, end, s->written[end] + i);
    (void)spoke_stream_write(s->ends[end], bytes, size, &done);
    s->written[end] += done;
}

int
read_some(struct stream *s, int end)
{
    uint8_t bytes[3000];
    size_t done;
    int rc;

    if (s->at[end] < 0)
        return SPOKE_EOF;
    rc = spoke_stream_read(s->ends[end], bytes, 1 + chance(sizeof bytes), &done);
    for (size_t i = 0; i < done; i++)
        holds(bytes[i] == byte_of(s, !end, s->read[end] + i), "byte %d of stream %d is another",
              (int)(s->read[end] + i), (int)(s - x.streams));
    s->read[end] += done;
    seen.bytes += done;
    if (rc == SPOKE_EOF)
        holds(s->ended[!end] && s->read[end] == s->written[!end], "stream %d ends after %d of %d",
              (int)(s - x.streams), (int)s->read[end], (int)s->written[!end]);
    return rc;
}

void
end_half(struct stream *s, int end)
{
    if (s->at[end] >= 0 && spoke_stream_close_write(s->ends[end]) == 0)
        s->ended[end] = true;
}
