/* SPDX-License-Identifier: MIT */
/* What a mux does by the clock: heartbeats, a peer that has died, and how long it waits for what.
 * One timer, set to whatever comes first. */
#include "runtime/stream/mux/mux.h"

#define DOUBT      (15 * SPOKE_MS)
#define CHANCES    4
#define LAST_WORDS SPOKE_SECOND /* to read what is left, when writing has failed */

static void
earlier(spoke_ns *next, spoke_ns when)
{
    if (when < *next)
        *next = when;
}

static spoke_ns
heartbeat_at(const struct spk_mux *m)
{
    /* The Go program hears nothing but heartbeats. */
    spoke_ns last = m->native && m->sent_ns > m->heartbeat_ns ? m->sent_ns : m->heartbeat_ns;

    return m->known && m->config.heartbeat_ns > 0 ? spk_later(last, m->config.heartbeat_ns)
                                                  : SPOKE_FOREVER;
}

static spoke_ns
silent_until(const struct spk_mux *m)
{
    spoke_ns since = m->stuck_ns < m->heard_ns ? m->stuck_ns : m->heard_ns;

    return m->config.peer_timeout_ns > 0 ? spk_later(since, m->config.peer_timeout_ns)
                                         : SPOKE_FOREVER;
}

static spoke_ns
dead_at(const struct spk_mux *m)
{
    return m->doubt_ns != SPOKE_FOREVER ? m->doubt_ns : silent_until(m);
}

/* What has come may not have been read yet, if nobody drove the engine for so long, and he may do
 * so seldom: each silence has some last chances, in each of which the engine reads. */
static bool
is_dead(struct spk_mux *m, spoke_ns now)
{
    spoke_ns until = silent_until(m);

    if (until > now) {
        m->doubt_ns = SPOKE_FOREVER;
        return false;
    }
    if (m->doubt_ns == SPOKE_FOREVER || m->doubted_ns != until) {
        m->doubted_ns = until;
        m->chances = CHANCES;
    } else if (m->doubt_ns > now) {
        return false;
    } else if (--m->chances == 0) {
        return true;
    }
    m->doubt_ns = spk_later(now, DOUBT);
    return false;
}

static spoke_ns
handshake_until(const struct spk_mux *m)
{
    return m->known && !m->preface_heard ? spk_later(m->opened_ns, m->config.handshake_ns)
                                         : SPOKE_FOREVER;
}

static spoke_ns
last_words_until(const struct spk_mux *m)
{
    return m->write_failed ? spk_later(m->failed_ns, LAST_WORDS) : SPOKE_FOREVER;
}

void
spk_mux_set_timer(struct spk_mux *m)
{
    spoke_ns next = m->linger_until;

    if (m->ended)
        return;
    earlier(&next, heartbeat_at(m));
    earlier(&next, dead_at(m));
    earlier(&next, handshake_until(m));
    earlier(&next, last_words_until(m));
    earlier(&next, m->retry_ns);
    if (next == SPOKE_FOREVER)
        spk_timer_cancel(m->e, &m->timer);
    else if (spk_timer_set(m->e, &m->timer, next) != 0)
        spk_mux_end(m, SPOKE_ENOMEM, SPOKE_MUX_LOCAL, SPOKE_MUX_INTERNAL, "no memory");
}

void
spk_mux_on_time(struct spk_timer *timer)
{
    struct spk_mux *m = SPK_OWNER(timer, struct spk_mux, timer);
    spoke_ns now = spk_engine_now(m->e);

    m->callers++;
    if (m->linger_until <= now) {
        spk_mux_end(m, SPOKE_EMUXCLOSED, SPOKE_MUX_LOCAL, m->leave_code, "it was closed here");
    } else if (handshake_until(m) <= now) {
        spk_mux_end_peer(m, SPOKE_EPROTO, SPOKE_MUX_PROTOCOL, "the peer has not introduced itself");
    } else if (is_dead(m, now)) {
        if (m->fds_limited)
            spk_mux_end(m, SPOKE_ELIMIT, SPOKE_MUX_LOCAL, SPOKE_MUX_LIMIT,
                        "too many descriptors of this user are on their way");
        else
            spk_mux_end(m, SPOKE_EPEERDEAD, SPOKE_MUX_PEER, SPOKE_MUX_PEER_GONE,
                        "nothing was heard from the peer");
    } else if (last_words_until(m) <= now) {
        spk_mux_end(m, m->carrier->write.end != 0 ? m->carrier->write.end : SPOKE_ECONNRESET,
                    SPOKE_MUX_CARRIER, 0, "the carrier takes no more");
    } else {
        if (heartbeat_at(m) <= now) {
            m->heartbeat_due = true;
            m->heartbeat_ns = now;
            spk_mux_kick(m);
        }
        if (m->retry_ns <= now) {
            m->retry_ns = SPOKE_FOREVER;
            spk_mux_kick(m);
        }
    }
    spk_mux_set_timer(m);
    m->callers--;
    spk_mux_free_if_done(m);
}
