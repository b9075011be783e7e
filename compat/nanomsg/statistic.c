/* SPDX-License-Identifier: MIT */
/* nn_get_statistic(): spoke's counters under nanomsg's numbers. */
#include "internal.h"

#include <nanomsg/pipeline.h>
#include <nanomsg/reqrep.h>

static uint64_t
no_statistic(int error)
{
    errno = error;
    return UINT64_MAX;
}

/* Dialers whose last attempt failed. */
static uint64_t
endpoint_errors(struct compat_socket *c)
{
    uint64_t count = 0;
    int error = 0;

    for (size_t i = 0; i < c->endpoint_count; i++) {
        spoke_dialer *d = c->endpoints[i].dialer;

        if (d != NULL && spoke_dialer_get_int(d, SPOKE_OPT_LAST_ERROR, &error) == 0 && error != 0)
            count++;
    }
    return count;
}

/* Of those who balance their load: the first class of their endpoints; nobody there is -1, but 0
 * before anybody ever was. */
static uint64_t
send_priority(const struct compat_socket *c, const struct spoke_stats *stats)
{
    int protocol = atomic_load_explicit(&c->protocol, memory_order_relaxed), first = 16;

    if ((protocol != NN_PUSH && protocol != NN_REQ) || stats->pipes_attached == 0)
        return 0;
    for (size_t i = 0; i < c->endpoint_count; i++)
        if (c->endpoints[i].send_priority < first)
            first = c->endpoints[i].send_priority;
    return stats->pipes_current > 0 ? (uint64_t)first : UINT64_MAX;
}

/* A dialer that waits for an inproc name has failed once, and attaches without another attempt. */
static uint64_t
in_progress(const struct spoke_stats *stats)
{
    uint64_t over = stats->dials_failed + stats->dials_attached;

    return stats->dials > over ? stats->dials - over : 0;
}

/* What spoke does not count. */
static uint64_t
of_our_own(int s, int stat, const struct spoke_stats *stats)
{
    struct compat_socket *c = compat_lock(s);
    uint64_t value;

    if (c == NULL)
        return UINT64_MAX;
    switch (stat) {
    case NN_STAT_BIND_ERRORS: value = c->bind_errors; break;
    case NN_STAT_CURRENT_EP_ERRORS: value = endpoint_errors(c); break;
    default: value = send_priority(c, stats); break;
    }
    compat_unlock(c);
    return value;
}

uint64_t
nn_get_statistic(int s, int stat)
{
    spoke_socket *handle = compat_handle(s);
    struct spoke_stats stats;

    if (handle == NULL)
        return UINT64_MAX;
    if (spoke_socket_stats(handle, &stats) != 0)
        return no_statistic(EBADF);
    switch (stat) {
    case NN_STAT_ESTABLISHED_CONNECTIONS: return stats.dials_attached;
    case NN_STAT_ACCEPTED_CONNECTIONS: return stats.accepts;
    case NN_STAT_DROPPED_CONNECTIONS: return stats.pipes_closed;
    case NN_STAT_BROKEN_CONNECTIONS:
        return stats.pipes_attached - stats.pipes_current - stats.pipes_closed;
    case NN_STAT_CONNECT_ERRORS: return stats.dials_failed;
    case NN_STAT_ACCEPT_ERRORS: return stats.accepts_failed;
    case NN_STAT_CURRENT_CONNECTIONS: return stats.pipes_current;
    case NN_STAT_INPROGRESS_CONNECTIONS: return in_progress(&stats);
    case NN_STAT_BIND_ERRORS:
    case NN_STAT_CURRENT_EP_ERRORS:
    case NN_STAT_CURRENT_SND_PRIORITY: return of_our_own(s, stat, &stats);
    case NN_STAT_MESSAGES_SENT: return stats.messages_sent;
    case NN_STAT_MESSAGES_RECEIVED: return stats.messages_received;
    case NN_STAT_BYTES_SENT: return stats.bytes_sent;
    case NN_STAT_BYTES_RECEIVED: return stats.bytes_received;
    default: return no_statistic(EINVAL);
    }
}
