/* SPDX-License-Identifier: MIT */
#include "tests/interop/stranger.h"

#include <stdio.h>

#include "tests/support/process.h"
#include "tests/support/test.h"

static int
run_stranger(const char *argument)
{
    struct errand e;
    int library, deed, listens, raw, many, exceeds;

    if (sscanf(argument, "%d %d %d %d %d %d %u %159s", &library, &deed, &listens, &raw, &many,
               &exceeds, &e.count, e.url) != 8)
        return 2;
    e.library = (enum library)library;
    e.deed = (enum deed)deed;
    e.listens = listens != 0;
    e.raw = raw != 0;
    e.many = many != 0;
    e.exceeds = exceeds != 0;
    return e.library == NANOMSG ? nanomsg_run(&e) : nng_run(&e);
}

PROGRAM_ENTRY(stranger, run_stranger)

pid_t
stranger_send_on(const struct errand *e)
{
    char argument[256];

    snprintf(argument, sizeof argument, "%d %d %d %d %d %d %u %s", (int)e->library, (int)e->deed,
             e->listens, e->raw, e->many, e->exceeds, e->count, e->url);
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
