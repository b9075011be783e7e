/* SPDX-License-Identifier: MIT */
/* Windows: how much a peer may make this end hold, for each stream, each mux, and all of them
 * together; and how often it may do what costs us something and is of no use. */
#include "runtime/stream/mux/mux.h"

#include <stdatomic.h>

#define PERIOD        (10 * SPOKE_SECOND)
#define REFUSED_MOST  1000u               /* openings in a row, none of them accepted */
#define ABANDON_TIMES 4u                  /* max_streams may be opened for nothing in a period */
#define CONTROL_FREE  ((uint64_t)1 << 20) /* bytes of it in a period, then … */
#define CONTROL_TIMES 64u                 /* … so many for each of data */
#define CREDITS_MANY  16u
#define SLACK_SHARE   16               /* of session_budget, besides the windows */
#define WINDOW_TRIPS  2                /* a window read in so few round trips is too small … */
#define WINDOW_TIME   (500 * SPOKE_US) /* … or so soon: to be woken takes longer at times */

static atomic_size_t held, limit = (size_t)1 << 30;

void
spoke_mux_set_memory_limit(size_t bytes)
{
    atomic_store(&limit, bytes);
}

/* ---- memory ---- */

static bool
hold(size_t size)
{
    size_t now = atomic_load(&held), most = atomic_load(&limit);

    do {
        if (now > most || size > most - now)
            return false;
    } while (!atomic_compare_exchange_weak(&held, &now, now + size));
    return true;
}

static bool
reserve(struct spk_mux *m, size_t size)
{
    if (size > m->config.session_budget - m->windows || !hold(size))
        return false;
    m->windows += size;
    return true;
}

/* What streams that are still to come must be able to have. */
static size_t
kept_back(const struct spk_mux *m)
{
    size_t most = 2 * (size_t)m->config.max_streams, now = m->ours + m->theirs;

    return now < most ? (most - now) * SPK_MUX_LEAST_WINDOW : 0;
}

/* Without taking it from those. */
static bool
reserve_more(struct spk_mux *m, size_t size)
{
    size_t kept = kept_back(m), budget = m->config.session_budget;

    return m->windows + kept <= budget && size <= budget - m->windows - kept && reserve(m, size);
}

/* What each of the streams that there are could have, if all had the same. */
static size_t
equal_share(const struct spk_mux *m)
{
    size_t share = (m->config.session_budget - kept_back(m)) / (m->ours + m->theirs);

    return share > SPK_MUX_LEAST_WINDOW ? share : SPK_MUX_LEAST_WINDOW;
}

int
spk_mux_window_open(struct spk_mux_stream *st)
{
    size_t window = st->mux->config.window;

    if (window <= SPK_MUX_LEAST_WINDOW || !reserve_more(st->mux, window)) {
        if (window > SPK_MUX_LEAST_WINDOW) {
            window = SPK_MUX_LEAST_WINDOW;
            st->mux->windows_short = true;
        }
        if (!reserve(st->mux, window))
            return SPOKE_ELIMIT;
    }
    st->window = window;
    st->in_room = window;
    st->read_since = spk_engine_now(st->mux->e);
    return 0;
}

void
spk_mux_window_close(struct spk_mux_stream *st)
{
    atomic_fetch_sub(&held, st->window);
    st->mux->windows -= st->window;
    if (st->window > 0)
        st->mux->windows_short = false; /* who still lacks something says so again */
    spk_mux_keep_none(st);
    st->window = 0;
    st->in_room = 0;
    st->owed = 0;
}

bool
spk_mux_keep(struct spk_mux_stream *st, size_t size)
{
    struct spk_mux *m = st->mux;

    if (m->kept_by == st) /* it has it already */
        return true;
    if (size > m->config.session_budget / SLACK_SHARE - m->slack || !hold(size))
        return false;
    m->kept_by = st;
    m->slack += size;
    st->slack += size;
    return true;
}

void
spk_mux_keep_none(struct spk_mux_stream *st)
{
    if (st->slack == 0)
        return;
    atomic_fetch_sub(&held, st->slack);
    st->mux->slack -= st->slack;
    st->slack = 0;
    if (st->mux->kept_by == st)
        st->mux->kept_by = NULL;
}

/* The window has been read once.  How much larger should it be?  As the others', if it was opened
 * when these had everything; else twice as large, if the reader takes more than it lets through. */
static size_t
growth(struct spk_mux_stream *st, size_t share)
{
    const struct spk_mux *m = st->mux;
    size_t usual = m->config.window < share ? m->config.window : share;
    spoke_ns now = spk_engine_now(m->e), took = now - st->read_since;

    st->read = 0;
    st->read_since = now;
    if (st->window < usual)
        return usual - st->window;
    return took <= WINDOW_TRIPS * m->rtt_ns + WINDOW_TIME && st->window <= m->config.max_window / 2
               ? st->window
               : 0;
}

/* What is left is for whoever asks.  If nothing is, and this one has less than an equal share,
 * those with more give back what is read until it is there. */
static void
grow(struct spk_mux_stream *st)
{
    struct spk_mux *m = st->mux;
    size_t share, more;
    bool is_due, is_there;

    if (!m->native || m->rtt_ns == 0 || st->read < st->window)
        return;
    share = equal_share(m);
    if ((more = growth(st, share)) == 0)
        return;
    is_due = st->window + more <= share;
    is_there = reserve_more(m, more);
    if (is_due)
        m->windows_short = !is_there;
    if (is_there) {
        st->window += more;
        st->owed += more;
    }
}

static void
give_back(struct spk_mux_stream *st)
{
    struct spk_mux *m = st->mux;
    size_t share, size;

    if (!m->windows_short)
        return;
    share = equal_share(m);
    size = st->window > share ? st->window - share : 0;
    if (size > st->owed)
        size = st->owed;
    st->owed -= size;
    st->window -= size;
    m->windows -= size;
    atomic_fetch_sub(&held, size);
}

/* ---- credit ---- */

static bool
is_time(const struct spk_mux_stream *st)
{
    if (st->mux->config.eager_credit || st->owed >= st->window - st->owed)
        return true;
    /* The peer can send nothing: it may wait. */
    return st->in_room == 0 && (st->owed >= st->window / 8 || st->conn->input_size == 0);
}

/* Among many streams credit waits for that of others, unless the peer may soon need it: each write
 * wakes somebody there. */
static bool
may_wait(const struct spk_mux_stream *st)
{
    struct spk_mux *m = st->mux;

    return !m->config.eager_credit && m->ours + m->theirs >= CREDITS_MANY &&
           st->in_room >= st->window / 4 && ++m->credits_held < CREDITS_MANY;
}

void
spk_mux_consumed(struct spk_mux_stream *st, size_t size)
{
    if (!st->registered || st->peer_ended || st->peer_closed)
        return;
    st->owed += size;
    st->read += size;
    grow(st);
    give_back(st);
    if (!is_time(st))
        return;
    if ((st->due & SPK_MUX_DUE_CREDIT) != 0 && st->in_room >= st->window / 4)
        return;
    st->due |= SPK_MUX_DUE_CREDIT;
    spk_mux_line_up(st);
    if (may_wait(st))
        return;
    if (st->mux->e->in_callback > 0) /* those of the other readers of this turn go with it */
        spk_mux_hold_back(st->mux);
    else
        spk_mux_kick(st->mux);
}

/* ---- what a peer may do ---- */

static void
count_anew(struct spk_mux *m)
{
    spoke_ns now = spk_engine_now(m->e);

    if (now - m->counted_since < PERIOD)
        return;
    m->counted_since = now;
    m->abandoned = m->control_bytes = 0;
    m->data_bytes = 0;
}

bool
spk_mux_count_refused(struct spk_mux *m)
{
    m->info.refused++;
    if (++m->refused_in_a_row <= REFUSED_MOST)
        return true;
    spk_mux_end_peer(m, SPOKE_ELIMIT, SPOKE_MUX_LIMIT, "the peer opens streams that are refused");
    return false;
}

bool
spk_mux_count_abandoned(struct spk_mux *m)
{
    count_anew(m);
    if (++m->abandoned <= ABANDON_TIMES * (uint64_t)m->config.max_streams)
        return true;
    spk_mux_end_peer(m, SPOKE_ELIMIT, SPOKE_MUX_LIMIT, "the peer opens streams for nothing");
    return false;
}

bool
spk_mux_count_control(struct spk_mux *m, size_t size)
{
    m->control_bytes += size;
    if (m->control_bytes <= CONTROL_FREE)
        return true;
    count_anew(m);
    if (m->control_bytes <= CONTROL_FREE || m->control_bytes / CONTROL_TIMES <= m->data_bytes)
        return true;
    spk_mux_end_peer(m, SPOKE_ELIMIT, SPOKE_MUX_LIMIT, "the peer sends nothing but control");
    return false;
}
