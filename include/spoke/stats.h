/* SPDX-License-Identifier: MIT */
/* Counters.  The lists with their explanations are stats.def and its kin. */
#ifndef SPOKE_STATS_H
#define SPOKE_STATS_H

#include <spoke/base.h>

#ifdef __cplusplus
extern "C" {
#endif

struct spoke_stats {
#define STAT(name, help) uint64_t name;
#include <spoke/stats.def>
#undef STAT
};

/* Of one pipe, while it lives. */
struct spoke_pipe_stats {
#define PIPE_STAT(name, help) uint64_t name;
#include <spoke/pipe_stats.def>
#undef PIPE_STAT
};

/* Of one dialer or listener, while it lives.  What has the name of a counter of the socket counts
 * the same, for this one alone. */
struct spoke_dialer_stats {
#define DIALER_STAT(type, name, help) type name;
#include <spoke/dialer_stats.def>
#undef DIALER_STAT
};
struct spoke_listener_stats {
#define LISTENER_STAT(type, name, help) type name;
#include <spoke/listener_stats.def>
#undef LISTENER_STAT
};

#ifdef __cplusplus
}
#endif

#endif
