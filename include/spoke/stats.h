/* SPDX-License-Identifier: MIT */
/* Counters.  The list with its explanations is stats.def. */
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

#ifdef __cplusplus
}
#endif

#endif
