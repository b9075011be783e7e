/* SPDX-License-Identifier: MIT */
/* Points at which tests/death/ kills a process.  In the library they are nothing: only what that
 * test program is made of is compiled with SPOKE_STOP_POINTS. */
#ifndef SPK_CORE_STOP_H
#define SPK_CORE_STOP_H

#ifdef SPOKE_STOP_POINTS
#include <signal.h>
#include <stdatomic.h>

enum spk_stop {
#define SPK_STOP(Name, Ends) SPK_STOP_##Name,
#include "runtime/core/stops.def"
#undef SPK_STOP
    SPK_STOPS
};

struct spk_stops {
    atomic_uint hits[SPK_STOPS];
    unsigned point, at; /* the process dies at this hit of this point, from 1; 0: never */
};

extern struct spk_stops *spk_stops; /* the test program has it; NULL: nothing is counted */

static inline void
spk_stop_at(enum spk_stop point)
{
    if (spk_stops != NULL && atomic_fetch_add(&spk_stops->hits[point], 1) + 1 == spk_stops->at &&
        spk_stops->point == point)
        raise(SIGKILL);
}

#define SPK_STOP_POINT(Name) spk_stop_at(SPK_STOP_##Name)
#else
#define SPK_STOP_POINT(Name) ((void)0)
#endif

#endif
