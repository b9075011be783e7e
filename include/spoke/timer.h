/* SPDX-License-Identifier: MIT */
/* Timers of the engine, as modules embed them. */
#ifndef SPOKE_TIMER_H
#define SPOKE_TIMER_H

#include <spoke/base.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Embedded in its owner; `fn` runs in the engine's loop, once for each time that it was set. */
struct spk_timer {
    void (*fn)(struct spk_timer *timer);
    spoke_ns when;
    uint32_t index; /* in the heap; UINT32_MAX: not set */
};

/* Prepare one that is not set. */
void spk_timer_init(struct spk_timer *timer, void (*fn)(struct spk_timer *timer));

static inline bool
spk_timer_is_set(const struct spk_timer *timer)
{
    return timer->index != UINT32_MAX;
}

#ifdef __cplusplus
}
#endif

#endif
