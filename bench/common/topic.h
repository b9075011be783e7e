/* SPDX-License-Identifier: MIT */
/* Topics: what stands in front of the body where subscriptions are measured.  All begin alike and
 * then differ at once, as names in one tree do. */
#ifndef BENCH_TOPIC_H
#define BENCH_TOPIC_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { BENCH_TOPIC_SIZE = 16 };

/* Topic number `index`; different numbers give different topics. */
static inline void
bench_topic_write(void *to, uint64_t index)
{
    uint64_t word = (index + 1) * UINT64_C(0x9e3779b97f4a7c15); /* odd: no two are the same */

    memcpy(to, "topics: ", 8);
    memcpy((uint8_t *)to + 8, &word, 8);
}

/* Which topic message `number` has.  Of `count` that are subscribed to, in no order; or, if
 * `misses`, one that is not. */
static inline uint64_t
bench_topic_of(uint64_t number, unsigned count, bool misses)
{
    uint64_t mixed = (number * UINT64_C(0xc2b2ae3d27d4eb4f)) >> 32;

    return misses ? count + mixed % (1U << 20) : mixed % count;
}

#endif
