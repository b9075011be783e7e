/* SPDX-License-Identifier: MIT */
/* The parts of the benchmark programs whose mistakes nobody would see: the histogram and the check
 * of payloads; and topics. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/test.h"

/* The real thing, not a library of its own. */
#include "bench/common/buffers.c"
#include "bench/common/histogram.c"
#include "bench/common/meter.c"
#include "bench/common/payload.c"
#include "bench/common/topic.h"

/* ---- histogram ---- */

static struct bench_histogram histogram;

Test(bench_histogram, is_exact_for_small_values)
{
    bench_histogram_init(&histogram);
    for (uint64_t ns = 1; ns <= 100; ns++)
        bench_histogram_add(&histogram, ns);
    cr_assert_eq(bench_histogram_quantile(&histogram, 0.5), 50);
    cr_assert_eq(bench_histogram_quantile(&histogram, 0.99), 99);
    cr_assert_eq(bench_histogram_quantile(&histogram, 1), 100);
    cr_assert_eq(histogram.min, 1);
    cr_assert_eq(histogram.max, 100);
    cr_assert(bench_histogram_mean(&histogram) == 50.5);
}

/* Every power of two and its neighbours: the answer is never below the value and at most 1 % above
 * it. */
Test(bench_histogram, is_within_one_percent_everywhere)
{
    for (unsigned bit = 0; bit < 42; bit++) {
        for (int off = -1; off <= 1; off++) {
            uint64_t ns = (UINT64_C(1) << bit) + (uint64_t)off, answer;
            bench_histogram_init(&histogram);
            bench_histogram_add(&histogram, ns);
            bench_histogram_add(&histogram, UINT64_C(1)
                                                << 45); /* so that the maximum does not help */
            answer = bench_histogram_quantile(&histogram, 0.5);
            cr_assert(answer >= ns && answer - ns <= ns / 100, "%llu gave %llu",
                      (unsigned long long)ns, (unsigned long long)answer);
        }
    }
}

Test(bench_histogram, says_nothing_when_empty)
{
    bench_histogram_init(&histogram);
    cr_assert_eq(bench_histogram_quantile(&histogram, 0.5), 0);
    cr_assert(bench_histogram_mean(&histogram) == 0);
}

/* ---- payload ---- */

/* Check HELLO and then `count` measured messages of `size` bytes; in the last one byte `damage` is
 * flipped, unless it is SIZE_MAX.  Returns what checking the last one gave. */
static int
check_stream(size_t size, uint64_t count, size_t damage, uint64_t *errors)
{
    uint8_t *pattern = bench_pattern_new(size), *body = malloc(size);
    struct bench_check c;
    int rc = 0;

    bench_check_init(&c, size, pattern, true);
    for (uint64_t i = 0; i <= count; i++) {
        cr_assert_eq(rc, 0);
        bench_fill(body, pattern, size, i, i == 0 ? BENCH_HELLO : BENCH_MEASURE);
        if (i == count && damage != SIZE_MAX)
            body[damage] ^= 0x10;
        rc = bench_check_message(&c, body, size);
    }
    *errors = c.errors;
    if (rc == 0)
        cr_assert_eq(c.measured, count);
    free(body);
    free(pattern);
    return rc;
}

Test(bench_payload, accepts_what_was_sent)
{
    static const size_t sizes[] = {8, 9, 15, 16, 17, 24, 31, 64, 100, 4096, 4097};
    uint64_t errors;

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        cr_assert_eq(check_stream(sizes[i], 1000, SIZE_MAX, &errors), 0, "%zu bytes", sizes[i]);
        cr_assert_eq(errors, 0);
    }
}

Test(bench_payload, sees_every_flipped_byte_of_a_message_that_is_scanned)
{
    static const size_t sizes[] = {8, 17, 31, 64, 100};
    uint64_t errors;

    cr_assert_not_null(freopen("/dev/null", "w", stderr)); /* It says so each time. */
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (size_t at = 0; at < sizes[i]; at++) {
            cr_assert_eq(check_stream(sizes[i], 256, at, &errors), -1, "byte %zu of %zu", at,
                         sizes[i]);
            cr_assert_eq(errors, 1);
        }
}

Test(bench_payload, sees_a_wrong_number_in_every_message)
{
    uint64_t errors;

    cr_assert_not_null(freopen("/dev/null", "w", stderr));
    for (uint64_t n = 1; n < 40; n++)
        cr_assert_eq(check_stream(64, n, 0, &errors), -1);
}

/* A body that was sent before, with the right number written over its own. */
Test(bench_payload, sees_a_stale_body)
{
    uint8_t *pattern = bench_pattern_new(64), body[64];
    struct bench_check c;

    bench_check_init(&c, 64, pattern, true);
    for (uint64_t i = 0; i <= 16; i++) {
        uint64_t word0 = bench_word0(i, i == 0 ? BENCH_HELLO : BENCH_MEASURE);
        bench_fill(body, pattern, 64, i == 16 ? 15 : i, BENCH_MEASURE);
        memcpy(body, &word0, 8);
        cr_assert_eq(bench_check_message(&c, body, 64), i == 16 ? -1 : 0);
    }
    free(pattern);
}

/* A subscriber that joins late, and is not read from while the others join, may miss greetings, but
 * nothing after them. */
Test(bench_payload, lets_only_greetings_be_missed)
{
    uint8_t *pattern = bench_pattern_new(64), body[64];
    struct bench_check c;

    cr_assert_not_null(freopen("/dev/null", "w", stderr));
    bench_check_init(&c, 64, pattern, true);
    c.joins_late = true;
    bench_fill(body, pattern, 64, 7, BENCH_MEASURE);
    cr_assert_eq(bench_check_message(&c, body, 64), -1, "no greeting");
    bench_fill(body, pattern, 64, 7, BENCH_HELLO);
    cr_assert_eq(bench_check_message(&c, body, 64), 0);
    bench_fill(body, pattern, 64, 9, BENCH_HELLO);
    cr_assert_eq(bench_check_message(&c, body, 64), 0);
    bench_fill(body, pattern, 64, 9, BENCH_HELLO);
    cr_assert_eq(bench_check_message(&c, body, 64), -1, "repeated");
    bench_fill(body, pattern, 64, 11, BENCH_WARM);
    cr_assert_eq(bench_check_message(&c, body, 64), -1, "lost");
    bench_fill(body, pattern, 64, 10, BENCH_WARM);
    cr_assert_eq(bench_check_message(&c, body, 64), 0);
    bench_fill(body, pattern, 64, 11, BENCH_HELLO);
    cr_assert_eq(bench_check_message(&c, body, 64), -1, "no more greetings");
    cr_assert_eq(c.verified, 3);
    free(pattern);
}

Test(bench_payload, sees_a_lost_a_repeated_and_a_short_message)
{
    uint8_t *pattern = bench_pattern_new(64), body[64];
    struct bench_check c;

    bench_check_init(&c, 64, pattern, true);
    bench_fill(body, pattern, 64, 0, BENCH_HELLO);
    cr_assert_eq(bench_check_message(&c, body, 64), 0);
    cr_assert_eq(bench_check_message(&c, body, 64), -1, "repeated");
    bench_fill(body, pattern, 64, 2, BENCH_HELLO);
    cr_assert_eq(bench_check_message(&c, body, 64), -1, "lost");
    bench_fill(body, pattern, 64, 1, BENCH_HELLO);
    cr_assert_eq(bench_check_message(&c, body, 63), -1, "short");
    cr_assert_eq(c.errors, 3);
    cr_assert_eq(bench_check_message(&c, body, 64), 0, "the right one after all");
    free(pattern);
}

/* Check bodies that arrive as a stream, `cut` bytes at a time; in the last of messages 0 to `last`
 * byte `damage` is flipped, unless it is SIZE_MAX.  Returns what the check gave at the end. */
static int
check_cut(size_t size, size_t cut, uint64_t last, size_t damage, struct bench_check *c)
{
    uint8_t *pattern = bench_pattern_new(size), *bytes = malloc(size * (last + 1));
    struct bench_cursor k = {0};
    size_t total = size * (last + 1);
    int rc = 0;

    bench_check_init(c, size, pattern, true);
    c->touches_all = true;
    for (uint64_t i = 0; i <= last; i++)
        bench_fill(bytes + i * size, pattern, size, i, i == 0 ? BENCH_HELLO : BENCH_MEASURE);
    if (damage != SIZE_MAX)
        bytes[last * size + damage] ^= 0x10;
    for (size_t at = 0; at < total && rc == 0; at += cut)
        rc = bench_check_bytes(c, &k, bytes + at, cut < total - at ? cut : total - at);
    if (rc == 0)
        cr_assert_eq(k.at, 0);
    free(bytes);
    free(pattern);
    return rc;
}

static const size_t cut_sizes[] = {8, 17, 64, 100}, cuts[] = {1, 3, 8, 13, 64, 65, 250, 4096};

Test(bench_payload, accepts_a_stream_wherever_it_is_cut)
{
    struct bench_check c;

    for (size_t i = 0; i < sizeof cut_sizes / sizeof *cut_sizes; i++)
        for (size_t j = 0; j < sizeof cuts / sizeof *cuts; j++) {
            cr_assert_eq(check_cut(cut_sizes[i], cuts[j], 600, SIZE_MAX, &c), 0,
                         "%zu bytes, %zu at a time", cut_sizes[i], cuts[j]);
            cr_assert_eq(c.measured, 600);
            cr_assert_eq(c.verified, 601);
            cr_assert_eq(c.errors, 0);
        }
}

/* A mixed word that is cut in two is not looked at; cuts at words and at whole bodies show all. */
Test(bench_payload, sees_every_flipped_byte_of_a_stream)
{
    static const size_t at_words[] = {8, 64, 4096};
    struct bench_check c;

    cr_assert_not_null(freopen("/dev/null", "w", stderr));
    for (size_t j = 0; j < sizeof at_words / sizeof *at_words; j++)
        for (size_t at = 0; at < 64; at++) {
            cr_assert_eq(check_cut(64, at_words[j], 256, at, &c), -1, "byte %zu, %zu at a time", at,
                         at_words[j]);
            cr_assert_eq(c.errors, 1);
        }
    for (size_t j = 0; j < sizeof cuts / sizeof *cuts; j++)
        for (size_t at = 0; at < 8; at++)
            cr_assert_eq(check_cut(100, cuts[j], 7, at, &c), -1, "a number, %zu at a time",
                         cuts[j]);
}

/* What is read in full has the same checks, and is read. */
Test(bench_payload, reads_every_byte_if_asked)
{
    static const size_t sizes[] = {8, 31, 32, 33, 100};

    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        uint8_t *pattern = bench_pattern_new(sizes[i]), body[100];
        struct bench_check c;
        uint64_t sum;
        bench_check_init(&c, sizes[i], pattern, true);
        bench_fill(body, pattern, sizes[i], 0, BENCH_HELLO);
        c.touches_all = true;
        cr_assert_eq(bench_check_message(&c, body, sizes[i]), 0);
        for (size_t at = 0; at < sizes[i]; at++) {
            c.sum = 0;
            bench_check_touch(&c, body, sizes[i]);
            sum = c.sum;
            body[at] ^= 1;
            c.sum = 0;
            bench_check_touch(&c, body, sizes[i]);
            cr_assert_neq(c.sum, sum, "byte %zu of %zu is not read", at, sizes[i]);
        }
        free(pattern);
    }
}

/* ---- buffers ---- */

Test(bench_buffers, lends_each_once_and_takes_them_back)
{
    uint8_t *pattern = bench_pattern_new(1 << 20);
    struct bench_buffers *b = bench_buffers_new(1 << 20, pattern);
    void *bodies[64];

    cr_assert_eq(bench_buffers_count(b), 64);
    for (int i = 0; i < 64; i++) {
        bodies[i] = bench_buffers_take(b);
        cr_assert_not_null(bodies[i]);
        cr_assert_eq((uintptr_t)bodies[i] % 64, 0);
        for (int j = 0; j < i; j++)
            cr_assert_neq(bodies[i], bodies[j]);
    }
    cr_assert_null(bench_buffers_take(b));
    bench_buffers_give(bodies[7], b);
    cr_assert_eq(bench_buffers_take(b), bodies[7]);
    cr_assert_null(bench_buffers_take(b));
    bench_buffers_free(b);
    free(pattern);
}

/* ---- topics ---- */

Test(bench_topic, differ_and_those_for_nobody_are_none_of_the_others)
{
    enum { COUNT = 1000 };
    uint8_t topics[COUNT][BENCH_TOPIC_SIZE];
    bool is_used[COUNT] = {false};
    int used = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        bench_topic_write(topics[i], i);
        for (unsigned j = 0; j < i; j++)
            cr_assert_neq(memcmp(topics[i], topics[j], BENCH_TOPIC_SIZE), 0, "%u and %u", i, j);
    }
    for (uint64_t number = 0; number < 100000; number++) {
        uint64_t wanted = bench_topic_of(number, COUNT, false);
        cr_assert_lt(wanted, COUNT);
        used += !is_used[wanted];
        is_used[wanted] = true;
        cr_assert_geq(bench_topic_of(number, COUNT, true), COUNT);
    }
    cr_assert_eq(used, COUNT, "all of them are sent");
}
