/* SPDX-License-Identifier: MIT */
/* Who may use a gateway, how many at a time, and how long without a byte: from the command line and
 * from a file. */
#ifndef TOOLS_SPOKE_GATEWAY_RULES_H
#define TOOLS_SPOKE_GATEWAY_RULES_H

#include "tool.h"

#define GATEWAY_IDS_MOST     32
#define GATEWAY_STREAMS_MOST 65536

struct gateway_rules {
    int uids[GATEWAY_IDS_MOST], gids[GATEWAY_IDS_MOST];
    int uid_count, gid_count;
    uint64_t most;     /* connections; 0: no limit */
    uint64_t carriers; /* that are accepted, the same */
    uint64_t streams;  /* of each carrier */
    spoke_ns idle_ns;  /* 0: for ever */
};

#define GATEWAY_RULES_DEFAULT                                                                      \
    {                                                                                              \
        .carriers = 64, .streams = 1024                                                            \
    }

/* "allow-uid", "allow-gid", "max-connections", "max-carriers", "max-streams" or "idle".  False
 * after an error, which has been printed. */
bool gateway_rule_set(struct gateway_rules *r, const char *name, const char *value);

/* Add what a file says, one rule a line; # begins a comment.  False, and *r is as it was, after an
 * error, which has been printed. */
bool gateway_rules_read(struct gateway_rules *r, const char *path);

/* May a process of this user and group?  -1: that is not known, so only if nobody is listed. */
bool gateway_rules_allow(const struct gateway_rules *r, int uid, int gid);

#endif
