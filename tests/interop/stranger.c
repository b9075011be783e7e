/* SPDX-License-Identifier: MIT */
#include "tests/interop/stranger.h"

#include <stdio.h>

#include "tests/support/process.h"
#include "tests/support/test.h"

static int
run_stranger(const char *argument)
{
    struct errand e;
    int library, deed, listens, raw, many, over_ours, over_theirs, demands;

    if (sscanf(argument, "%d %d %d %d %d %d %d %u %159s %95s %95s %d", &library, &deed, &listens,
               &raw, &many, &over_ours, &over_theirs, &e.count, e.url, e.ca, e.cert,
               &demands) != 12)
        return 2;
    e.library = (enum library)library;
    e.deed = (enum deed)deed;
    e.listens = listens != 0;
    e.raw = raw != 0;
    e.many = many != 0;
    e.over_ours = over_ours != 0;
    e.over_theirs = over_theirs != 0;
    e.demands = demands != 0;
    return e.library == NANOMSG ? nanomsg_run(&e) : nng_run(&e);
}

PROGRAM_ENTRY(stranger, run_stranger)

pid_t
stranger_send_on(const struct errand *e)
{
    char argument[512];

    snprintf(argument, sizeof argument, "%d %d %d %d %d %d %d %u %s %s %s %d", (int)e->library,
             (int)e->deed, e->listens, e->raw, e->many, e->over_ours, e->over_theirs, e->count,
             e->url, e->ca[0] != '\0' ? e->ca : "-", e->cert[0] != '\0' ? e->cert : "-",
             e->demands);
    return program_start("stranger", argument);
}

const char *
stranger_name(enum library library)
{
    return library == NANOMSG ? "nanomsg" : "NNG";
}

bool
stranger_is_here(enum library library)
{
#ifdef SPOKE_HAVE_NANOMSG
    if (library == NANOMSG)
        return true;
#endif
#ifdef SPOKE_HAVE_NNG
    if (library == NNG)
        return true;
#endif
    (void)library;
    return false;
}

size_t
stranger_size(bool many, uint32_t i)
{
    static const size_t sizes[ALL_SIZES] = {0, 1, 64, 4096, 1024 * 1024};

    return many ? 8 + i % 90 : sizes[i % ALL_SIZES];
}
