/* SPDX-License-Identifier: MIT */
/* What `spoke cat` tells about connections.  Runs on the library's threads: it prints, sets bits
 * and writes to an eventfd, and calls nothing of the library but spoke_strerror(); but for the
 * counters, which are the caller's. */
#include "watcher.h"

#include <stdio.h>
#include <unistd.h>

#include "tool.h"

static void
on_log(void *ctx, enum spoke_log_level level, const char *text)
{
    (void)ctx;
    (void)level;
    tool_error("%s", text);
}

/* Problems that no call reports: the connection simply does not come, or goes. */
static bool
is_problem(int reason)
{
    switch (reason) {
    case SPOKE_EPEER:
    case SPOKE_EHANDSHAKE:
    case SPOKE_EMSGSIZE:
    case SPOKE_EACCES:
    case SPOKE_EHOST:
    case SPOKE_EPROTO:
    case SPOKE_ETLS:
    case SPOKE_ETRUNCATED: return true;
    default: return reason <= SPOKE_ECERT && reason >= SPOKE_ECERTREFUSED;
    }
}

/* True once for each reason. */
static bool
first_time(struct watcher *w, int reason)
{
    uint64_t bit = UINT64_C(1) << (-reason & 63);

    return (atomic_fetch_or(&w->told[-reason / 64 & 1], bit) & bit) == 0;
}

static void
tell_reason(const char *what, const struct spoke_event *event)
{
    const char *advice = tool_advice(event->reason, event->url);

    tool_error("%s %s: %s%s%s", what, event->url != NULL ? event->url : "",
               spoke_strerror(event->reason), advice != NULL ? ": " : "",
               advice != NULL ? advice : "");
}

static void
tell_failure(struct watcher *w, const char *what, const struct spoke_event *event)
{
    if (w->verbosity > 0 || (is_problem(event->reason) && first_time(w, event->reason)))
        tell_reason(what, event);
    else if (w->impatient && event->type == SPOKE_EVENT_DIAL_FAILED && first_time(w, 0))
        tool_error("nobody answers at %s yet (%s): trying again until somebody does", event->url,
                   spoke_strerror(event->reason));
}

int
watcher_on_event(spoke_socket *s, const struct spoke_event *event, void *ctx)
{
    struct watcher *w = ctx;
    uint64_t one = 1;
    ssize_t ignored;

    (void)s;
    switch (event->type) {
    case SPOKE_EVENT_ATTACHED:
        ignored = write(w->attached_fd, &one, sizeof one);
        (void)ignored;
        if (w->verbosity > 0)
            tool_error("%s %s", event->dialer != NULL ? "connected to" : "accepted a connection on",
                       event->url);
        break;
    case SPOKE_EVENT_DETACHED:
        if (event->reason == SPOKE_ECLOSED)
            break; /* we close it ourselves */
        if (event->reason == SPOKE_ECONNRESET || event->reason == SPOKE_EOF) {
            if (w->verbosity > 0)
                tool_error("the peer at %s has gone", event->url);
        } else {
            tell_failure(w, "lost the connection at", event);
        }
        break;
    case SPOKE_EVENT_MOVED:
        if (w->verbosity > 0)
            tool_error("what is sent at %s goes through shared memory now", event->url);
        break;
    case SPOKE_EVENT_DIAL_FAILED: tell_failure(w, "cannot connect to", event); break;
    case SPOKE_EVENT_ACCEPT_FAILED: tell_failure(w, "turned a connection away at", event); break;
    default: break;
    }
    return 0;
}

void
watcher_tell_counters(spoke_socket *s)
{
    struct spoke_stats stats;

    if (spoke_socket_stats(s, &stats) != 0)
        return;
#define STAT(name, help)                                                                           \
    if (stats.name > 0)                                                                            \
        tool_error("%s: %llu %s", #name, (unsigned long long)stats.name, help);
#include <spoke/stats.def>
#undef STAT
}

void
watcher_init(struct watcher *w, int attached_fd, int verbosity)
{
    *w = (struct watcher){
        .attached_fd = attached_fd,
        .verbosity = verbosity,
        .impatient = isatty(STDERR_FILENO) == 1,
    };
    spoke_set_log(on_log, NULL,
                  verbosity <= 0   ? SPOKE_LOG_ERROR
                  : verbosity == 1 ? SPOKE_LOG_INFO
                                   : SPOKE_LOG_DEBUG);
}

void
watcher_fini(void)
{
    spoke_set_log(NULL, NULL, SPOKE_LOG_ERROR);
}
