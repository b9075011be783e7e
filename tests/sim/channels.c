/* SPDX-License-Identifier: MIT */
/* Goal: whatever is done with channels over sessions, and whatever happens to these, each channel
 * brings its messages in order and once; it ends with all of them and SPOKE_EOF, or with an error;
 * each end that a message carried is taken once, or dropped with its message; windows of messages
 * and memory hold; and in the end nothing is left.  Method: two or three machines in a storm
 * (storm.h), in a row, with a session between two neighbours; users who open, send, carry ends
 * about, receive, drop and close by chance, and a model that knows where every end is.  In some
 * runs a machine is killed, or a session or an engine closed in the middle.
 *
 * An end is carried only over channels that are older than its own: else two receivers might carry
 * each other, and nobody would ever find them. */
#include "tests/sim/channels.h"

#include <stdio.h>
#include <string.h>

#define ACTIONS 500

/* ---- what happens to them ---- */

static void
lose_machine(int machine)
{
    x.dead[machine] = true;
    for (int i = 0; i < x.channel_count; i++) {
        if (x.channels[i].tx_at == machine)
            lose_sender(&x.channels[i]);
        if (x.channels[i].rx_at == machine)
            lose_receiver(&x.channels[i]);
    }
    for (int i = 0; i < x.stream_count; i++) {
        for (int end = 0; end < 2; end++) {
            if (x.streams[i].at[end] == machine)
                lose_end(&x.streams[i], end);
        }
    }
    for (int i = 0; i < UNKNOWN; i++) {
        if (x.unknown[i].rx != NULL && x.unknown[i].at == machine)
            x.unknown[i].rx = NULL;
    }
    for (int i = 0; i < x.count - 1; i++) {
        if (i == machine)
            x.sessions[i][0] = NULL;
        if (i + 1 == machine)
            x.sessions[i][1] = NULL;
    }
}

/* Once in a run: a process dies, an engine closes under all of it, or a session does. */
static void
disturb(void)
{
    int machine = (int)chance((uint32_t)x.count), i = (int)chance((uint32_t)x.count - 1);
    int side = (int)chance(2);

    switch (chance(3)) {
    case 0:
        lose_machine(machine);
        storm_kill(&x.storm, x.machines[machine]);
        break;
    case 1:
        lose_machine(machine);
        cr_assert_eq(spoke_engine_close(engine_of(machine)), 0);
        x.storm.machines[x.machines[machine]] = NULL;
        break;
    default:
        cr_assert_eq(spoke_session_close(x.sessions[i][side], 0), 0);
        x.sessions[i][side] = NULL;
    }
}

static void
act_on_session(int i, int side)
{
    spoke_session *ss = x.sessions[i][side];

    if (ss == NULL)
        return;
    switch (chance(4)) {
    case 0: open_over(ss, i + side); break;
    case 1: accept_sender(ss, i + side); break;
    default: accept_receiver(ss, i + side); break;
    }
}

static void
act_on_stream(struct stream *s, int end)
{
    switch (chance(20)) {
    case 0: end_half(s, end); break;
    case 1:
    case 2:
    case 3: (void)read_some(s, end); break;
    default: write_some(s, end);
    }
}

static void
act_on_channel(int i)
{
    switch (chance(100)) {
    case 0: abort_sender(&x.channels[i]); break;
    case 1:
    case 2: close_sender(&x.channels[i]); break;
    case 3: close_receiver(&x.channels[i]); break;
    case 4: sync_one(&x.channels[i]); break;
    default:
        if (chance(2) == 0)
            send_one(i);
        else
            receive_one(i);
    }
}

static void
act(void)
{
    int machine = (int)chance((uint32_t)x.count);

    switch (chance(20)) {
    case 0: open_pair(machine); break;
    case 1: open_stream(machine); break;
    case 2:
    case 3: act_on_session((int)chance((uint32_t)x.count - 1), (int)chance(2)); break;
    case 4: receive_unknown((int)chance(UNKNOWN)); break;
    case 5:
    case 6:
        if (x.stream_count > 0)
            act_on_stream(&x.streams[chance((uint32_t)x.stream_count)], (int)chance(2));
        break;
    default:
        if (x.channel_count > 0)
            act_on_channel((int)chance((uint32_t)x.channel_count));
    }
}

/* ---- what must always be so ---- */

static void
check_session(spoke_session *ss)
{
    struct spoke_session_info info;

    if (ss == NULL)
        return;
    cr_assert_eq(spoke_session_get_info(ss, &info), 0);
    holds(info.memory <= x.config.memory, "%zu bytes wait", info.memory);
    holds(info.waiting <= (uint32_t)x.config.backlog, "%u wait", info.waiting);
    holds(info.unclaimed <= (uint32_t)x.config.unclaimed_max, "%u unclaimed", info.unclaimed);
}

static void
check_sessions(void)
{
    for (int i = 0; i < x.count - 1; i++) {
        for (int side = 0; side < 2; side++)
            check_session(x.sessions[i][side]);
    }
}

/* ---- a run ---- */

static void
connect_two(int i)
{
    spoke_engine *a = engine_of(i), *b = engine_of(i + 1);
    spoke_stream *ends[2];
    spoke_stream_listener *l;
    char url[80];

    snprintf(url, sizeof url, "%s%s", x.storm.url, i == 0 ? "" : "1");
    cr_assert_eq(spoke_stream_listen(&l, url, NULL, b), 0);
    cr_assert_eq(spoke_stream_dial(&ends[0], url, NULL, a, SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_accept(l, &ends[1], SPOKE_FOREVER), 0);
    cr_assert_eq(spoke_stream_listener_close(l), 0);
    for (int side = 0; side < 2; side++) {
        x.config.mux.even = side == 1;
        cr_assert_eq(spoke_session_open(&x.sessions[i][side], ends[side], &x.config), 0);
    }
}

static void
open_all(void)
{
    x.count = 2 + (int)chance(SESSIONS);
    for (int i = 0; i < x.count; i++)
        x.machines[i] = storm_machine(&x.storm);
    storm_end(&x.storm); /* there would be nothing to be seen of those that are not connected */
    spoke_session_config_init(&x.config);
    x.config.mux.peer_timeout_ns = 0;
    x.config.channel.max_message = 64 * 1024;
    x.config.channel.depth = 1 + chance(12);
    x.config.memory = (size_t)128 * 1024 << chance(4);
    for (int i = 0; i < x.count - 1; i++)
        connect_two(i);
    storm_again(&x.storm);
    x.storm.calm = false;
}

/* All that can be received is, and taken. */
static void
drain(void)
{
    for (int i = 0; i < x.count - 1; i++) {
        for (int side = 0; side < 2; side++) {
            if (x.sessions[i][side] != NULL) {
                accept_sender(x.sessions[i][side], i + side);
                accept_receiver(x.sessions[i][side], i + side);
            }
        }
    }
    for (int i = 0; i < UNKNOWN; i++)
        receive_unknown(i);
    for (int i = 0; i < x.channel_count; i++) {
        for (int n = 0; n < 4; n++)
            receive_one(i);
        close_sender(&x.channels[i]);
        if (x.channels[i].ended)
            close_receiver(&x.channels[i]);
    }
}

/* Both ends of a stream end their halves, and read until the other one has. */
static bool
drain_streams(void)
{
    bool all = true;

    for (int i = 0; i < x.stream_count; i++) {
        struct stream *s = &x.streams[i];

        for (int end = 0; end < 2; end++) {
            int rc;

            end_half(s, end);
            while ((rc = read_some(s, end)) == 0) {
            }
            all &= rc != SPOKE_EAGAIN;
        }
    }
    return all;
}

static bool
all_have_ended(void)
{
    for (int i = 0; i < x.count - 1; i++) {
        for (int side = 0; side < 2; side++) {
            struct spoke_session_info info = {.waiting = 0};

            if (x.sessions[i][side] != NULL)
                cr_assert_eq(spoke_session_get_info(x.sessions[i][side], &info), 0);
            if (info.waiting > 0)
                return false;
        }
    }
    for (int i = 0; i < UNKNOWN; i++) {
        if (x.unknown[i].rx != NULL)
            return false;
    }
    for (int i = 0; i < x.channel_count; i++) {
        const struct channel *c = &x.channels[i];

        if (c->tx_at >= 0 || (c->rx_at >= 0 && !c->ended))
            return false;
    }
    return true;
}

/* Nothing is held for anybody; else `last`: the time for it is over. */
static bool
is_settled(bool last)
{
    for (int i = 0; i < x.count - 1; i++) {
        for (int side = 0; side < 2; side++) {
            struct spoke_session_info info;
            bool empty;

            if (x.sessions[i][side] == NULL)
                continue;
            cr_assert_eq(spoke_session_get_info(x.sessions[i][side], &info), 0);
            empty = info.memory == 0 && info.channels == 0 && info.streams == 0 &&
                    info.unclaimed == 0 && info.waiting == 0;
            holds(empty || !last,
                  "session %d side %d has %u channels, %u streams, %u unclaimed, %u waiting, %zu "
                  "bytes",
                  i, side, info.channels, info.streams, info.unclaimed, info.waiting, info.memory);
            if (!empty)
                return false;
        }
    }
    return true;
}

static void
close_streams(void)
{
    for (int i = 0; i < x.stream_count; i++) {
        for (int end = 0; end < 2; end++) {
            if (x.streams[i].at[end] >= 0)
                (void)spoke_stream_close(x.streams[i].ends[end]);
            x.streams[i].at[end] = GONE;
        }
    }
}

static void
finish_all(void)
{
    bool over = false;

    storm_end(&x.storm);
    x.closing = true;
    for (int round = 0; round < 20000 && !over; round++) {
        storm_pass(&x.storm, SPOKE_MS);
        drain();
        check_sessions();
        over = drain_streams() && all_have_ended();
    }
    holds(over, "a channel does not come to its end");
    /* What was opened last may still be on its way. */
    for (int round = 0; round < 1000 && (round < 100 || !is_settled(false)); round++) {
        storm_pass(&x.storm, SPOKE_MS);
        drain();
        close_streams();
    }
    (void)is_settled(true);
}

/* A message that nobody received has it. */
static bool
went_with_a_message(enum carried kind, int number)
{
    for (int i = 0; i < x.channel_count; i++) {
        const struct channel *c = &x.channels[i];

        for (uint32_t n = c->received; n < c->sent; n++) {
            for (int k = 0; k < 2; k++) {
                if (c->with[n][k].kind == kind && c->with[n][k].number == number)
                    return true;
            }
        }
    }
    return false;
}

/* Nothing is lost but with what was dropped. */
static void
check_carried(void)
{
    for (int i = 0; i < x.channel_count && !x.breaks; i++) {
        const struct channel *c = &x.channels[i];
        bool never_there = c->opened && !c->accepted;

        holds(c->received == c->sent || c->aborted || c->dropped || c->rx_at == AWAY,
              "%u of %u of channel %d", c->received, c->sent, i);
        holds(c->tx_at != AWAY || never_there || went_with_a_message(A_SENDER, i),
              "the sender of %d is lost", i);
        holds(c->rx_at != AWAY || never_there || went_with_a_message(A_RECEIVER, i),
              "the receiver of %d is lost", i);
    }
    for (int i = 0; i < x.stream_count && !x.breaks; i++)
        holds(x.streams[i].at[1] != AWAY || went_with_a_message(A_STREAM, i), "stream %d is lost",
              i);
}

/* Nobody has broken the protocol, and nothing has ended for no reason. */
static void
check_status(spoke_session *ss)
{
    struct spoke_mux_end why;
    int rc = spoke_session_status(ss, &why);

    seen.broken += rc == 0;
    holds(rc == SPOKE_EAGAIN || x.breaks, "%s", why.text);
    holds(rc != 0 || why.code != SPOKE_EPROTO, "%s", why.text);
}

static void
close_all(void)
{
    for (int i = 0; i < x.count - 1; i++) {
        for (int side = 0; side < 2; side++) {
            if (x.sessions[i][side] != NULL)
                check_status(x.sessions[i][side]);
        }
        for (int side = 0; side < 2; side++) {
            spoke_session *ss = x.sessions[i][side];
            int rc = ss == NULL ? 0 : spoke_session_close(ss, side == 0 ? SPOKE_SECOND : 0);

            holds(rc == 0 || (rc == SPOKE_ETIMEDOUT && x.breaks), "%s", spoke_error_name(rc));
        }
    }
}

static uint64_t
run(const char *test, uint64_t seed)
{
    uint32_t when;

    memset(&x, 0, sizeof x);
    storm_open(&x.storm, test, seed);
    if (chance(2) == 0) /* most would be lost before they have done much */
        x.storm.config.reset = x.storm.config.enomem = 0;
    x.breaks = x.storm.config.reset > 0 || x.storm.config.enomem > 0 || x.storm.kills;
    open_all();
    when = chance(ACTIONS);
    for (uint32_t i = 0; i < ACTIONS; i++) {
        if (i == when && x.storm.kills)
            disturb();
        act();
        if (chance(3) == 0)
            storm_pass(&x.storm, (spoke_ns)chance(400) * SPOKE_US);
        check_sessions();
    }
    finish_all();
    check_carried();
    storm_again(&x.storm);
    close_all();
    return storm_close(&x.storm);
}

Test(sim_channels, messages_come_once_and_every_end_is_closed_once)
{
    storm_for_each_seed_connected("messages_come_once_and_every_end_is_closed_once", run);
    cr_log_info("%d channels, %d messages, %d KiB of streams; %d ends were carried, %d taken, %d "
                "let go; %d channels ended in order; %d sessions were lost",
                (int)seen.channels, (int)seen.messages, (int)(seen.bytes / 1024), (int)seen.carried,
                (int)seen.taken, (int)seen.dropped, (int)seen.whole, (int)seen.broken);
}
