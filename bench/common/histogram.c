/* SPDX-License-Identifier: MIT */
/* Buckets: values below 128 have one each; above, a value with its top bit at b lands in row b - 6,
 * and its next seven bits choose the column. */
#include "histogram.h"

#include <string.h>

static unsigned
bucket_of(uint64_t ns)
{
    unsigned top, shift;

    if (ns < BENCH_HISTOGRAM_SUB)
        return (unsigned)ns;
    top = 63U - (unsigned)__builtin_clzll(ns);
    if (top >= BENCH_HISTOGRAM_MAX_BITS)
        return BENCH_HISTOGRAM_BUCKETS - 1;
    shift = top - BENCH_HISTOGRAM_SUB_BITS;
    return (shift + 1) * BENCH_HISTOGRAM_SUB +
           (unsigned)((ns >> shift) & (BENCH_HISTOGRAM_SUB - 1));
}

/* The largest value that lands in bucket `i`. */
static uint64_t
bucket_end(unsigned i)
{
    unsigned row = i / BENCH_HISTOGRAM_SUB, column = i % BENCH_HISTOGRAM_SUB;

    if (row == 0)
        return column;
    return ((uint64_t)(BENCH_HISTOGRAM_SUB + column + 1) << (row - 1)) - 1;
}

void
bench_histogram_init(struct bench_histogram *h)
{
    memset(h, 0, sizeof *h);
    h->min = UINT64_MAX;
}

void
bench_histogram_add(struct bench_histogram *h, uint64_t ns)
{
    h->buckets[bucket_of(ns)]++;
    h->count++;
    h->sum += ns;
    if (ns < h->min)
        h->min = ns;
    if (ns > h->max)
        h->max = ns;
}

uint64_t
bench_histogram_quantile(const struct bench_histogram *h, double fraction)
{
    uint64_t rank = (uint64_t)(fraction * (double)h->count + 0.5), seen = 0;

    if (h->count == 0)
        return 0;
    if (rank == 0)
        rank = 1;
    for (unsigned i = 0; i < BENCH_HISTOGRAM_BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen >= rank)
            return bucket_end(i) < h->max ? bucket_end(i) : h->max;
    }
    return h->max;
}

double
bench_histogram_mean(const struct bench_histogram *h)
{
    return h->count == 0 ? 0 : (double)h->sum / (double)h->count;
}
