/* SPDX-License-Identifier: MIT */
/* Numbers that look like chance, and are the same again for whoever starts with the same state,
 * which must not be 0.  Any thread that has its own. */
#ifndef TESTS_SUPPORT_RANDOM_H
#define TESTS_SUPPORT_RANDOM_H

#include <stdint.h>

static inline uint64_t
random_next(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1d;
}

static inline uint32_t
random_below(uint64_t *state, uint32_t limit)
{
    return (uint32_t)(random_next(state) >> 32) % limit;
}

#endif
