/* SPDX-License-Identifier: MIT */
/* Queues of messages: order, bounds, growth. */
#include <string.h>

#include "runtime/memory/message.h"
#include "runtime/memory/pool.h"
#include "runtime/memory/queue.h"
#include "tests/support/random.h"
#include "tests/support/test.h"

static void
expect_nothing_left(void)
{
    struct spoke_memory_stats stats;

    spoke_memory_stats(&stats);
    cr_expect_eq(stats.messages, 0);
    cr_expect_eq(stats.chunks, 0);
}

TestSuite(queue, .fini = expect_nothing_left);

static spoke_msg *
numbered(uint32_t number)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, &number, sizeof number), 0);
    return m;
}

static uint32_t
number_of(spoke_msg *m)
{
    uint32_t number;

    cr_assert_not_null(m);
    cr_assert_eq(spoke_msg_size(m), sizeof number);
    memcpy(&number, spoke_msg_body(m), sizeof number);
    spoke_msg_free(m);
    return number;
}

Test(queue, an_empty_queue_gives_nothing)
{
    struct spk_queue q;

    spk_queue_init(&q, 4, 4096);
    cr_expect_null(spk_queue_pop(&q));
    cr_expect_not(spk_queue_full(&q));
    spk_queue_fini(&q);
}

/* Method: a random walk that wraps the ring at every size that it grows through. */
Test(queue, messages_come_out_in_the_order_they_went_in)
{
    struct spk_queue q;
    uint32_t in = 0, out = 0;
    uint64_t random = 1;

    spk_queue_init(&q, UINT32_MAX, SIZE_MAX);
    while (in < 100000) {
        for (uint32_t n = random_below(&random, 100); n > 0; n--)
            cr_assert_eq(spk_queue_push(&q, numbered(in++)), 0);
        for (uint32_t n = random_below(&random, 97); n > 0 && out < in; n--)
            cr_assert_eq(number_of(spk_queue_pop(&q)), out++);
        cr_assert_eq(q.count, in - out);
    }
    while (out < in)
        cr_assert_eq(number_of(spk_queue_pop(&q)), out++);
    cr_expect_null(spk_queue_pop(&q));
    cr_expect_eq(q.bytes, 0);
    spk_queue_fini(&q);
}

/* Goal: one can be taken from anywhere, also where the ring has come round. */
Test(queue, one_in_the_middle_can_be_taken)
{
    struct spk_queue q;

    spk_queue_init(&q, UINT32_MAX, SIZE_MAX);
    for (uint32_t start = 0; start < 8; start++) {
        for (uint32_t index = 0; index < 5; index++) {
            for (uint32_t i = 0; i < 5; i++)
                cr_assert_eq(spk_queue_push(&q, numbered(i)), 0);
            cr_assert_eq(number_of(spk_queue_remove(&q, index)), index);
            for (uint32_t i = 0; i < 5; i++)
                if (i != index)
                    cr_assert_eq(number_of(spk_queue_pop(&q)), i);
            cr_expect_eq(q.count, 0);
            cr_expect_eq(q.bytes, 0);
        }
        cr_assert_eq(spk_queue_push(&q, numbered(0)), 0); /* from another place next time */
        cr_assert_eq(number_of(spk_queue_pop(&q)), 0);
    }
    spk_queue_fini(&q);
}

Test(queue, it_holds_as_many_messages_as_its_bound)
{
    struct spk_queue q;
    spoke_msg *extra = numbered(9);

    spk_queue_init(&q, 3, SIZE_MAX);
    for (uint32_t i = 0; i < 3; i++) {
        cr_expect_not(spk_queue_full(&q));
        cr_assert_eq(spk_queue_push(&q, numbered(i)), 0);
    }
    cr_expect(spk_queue_full(&q));
    cr_expect_eq(spk_queue_push(&q, extra), SPOKE_EAGAIN);
    cr_expect_eq(number_of(spk_queue_pop(&q)), 0);
    cr_expect_not(spk_queue_full(&q));
    cr_expect_eq(spk_queue_push(&q, extra), 0);
    cr_expect_eq(q.high, 3);
    spk_queue_fini(&q); /* with what is in it */
}

Test(queue, the_bound_in_bytes_lets_one_message_of_any_size_in)
{
    struct spk_queue q;
    spoke_msg *large, *small = numbered(1);

    cr_assert_eq(spoke_msg_new(&large, 100000), 0);
    spk_queue_init(&q, 10, 1);
    cr_expect_eq(spk_queue_push(&q, large), 0);
    cr_expect(spk_queue_full(&q));
    cr_expect_eq(spk_queue_push(&q, small), SPOKE_EAGAIN);
    cr_expect_eq(spk_queue_pop(&q), large);
    cr_expect_eq(spk_queue_push(&q, small), 0);
    spoke_msg_free(large);
    spk_queue_fini(&q);
}

Test(queue, bytes_are_counted_for_body_header_and_object)
{
    struct spk_queue q;
    spoke_msg *m = numbered(1);

    cr_assert_eq(spoke_msg_header_append(m, "12345678", 8), 0);
    cr_expect_eq(spk_queue_cost(m), 4 + 8 + sizeof(struct spoke_msg));
    spk_queue_init(&q, 10, 2 * spk_queue_cost(m));
    cr_assert_eq(spk_queue_push(&q, m), 0);
    cr_expect_eq(q.bytes, spk_queue_cost(m));
    cr_expect_not(spk_queue_full(&q));
    cr_assert_eq(spk_queue_push(&q, spoke_msg_dup(m)), 0);
    cr_expect(spk_queue_full(&q));
    spk_queue_fini(&q);
    cr_expect_eq(q.bytes, 0);
}

Test(queue, a_bound_of_0_holds_nothing)
{
    struct spk_queue q;
    spoke_msg *m = numbered(1);

    spk_queue_init(&q, 0, SIZE_MAX);
    cr_expect(spk_queue_full(&q));
    cr_expect_eq(spk_queue_push(&q, m), SPOKE_EAGAIN);
    spk_queue_fini(&q);
    spk_queue_init(&q, 1, 0);
    cr_expect_eq(spk_queue_push(&q, m), SPOKE_EAGAIN);
    spk_queue_fini(&q);
    spoke_msg_free(m);
}

Test(queue, force_goes_over_the_bounds)
{
    struct spk_queue q;

    spk_queue_init(&q, 1, 1);
    for (uint32_t i = 0; i < 100; i++)
        cr_assert_eq(spk_queue_force(&q, numbered(i)), 0);
    cr_expect(spk_queue_full(&q));
    for (uint32_t i = 0; i < 100; i++)
        cr_expect_eq(number_of(spk_queue_pop(&q)), i);
    spk_queue_fini(&q);
}

Test(queue, without_memory_the_message_stays_the_callers_and_the_queue_works_on)
{
    struct spk_queue q;
    uint32_t in = 0, out = 0;

    spk_queue_init(&q, UINT32_MAX, SIZE_MAX);
    for (int i = 0; i < 1000; i++) {
        spoke_msg *m = numbered(in);
        spk_memory_fail_after(1);
        int rc = spk_queue_push(&q, m);
        spk_memory_fail_after(0);
        cr_assert(rc == 0 || rc == SPOKE_ENOMEM);
        if (rc != 0)
            cr_assert_eq(spk_queue_push(&q, m), 0);
        in++;
    }
    while (out < in)
        cr_assert_eq(number_of(spk_queue_pop(&q)), out++);
    spk_queue_fini(&q);
}

/* Against one at a time, at every place of a ring that wraps. */
Test(queue, many_at_once_are_as_one_after_the_other)
{
    struct spk_queue q;
    uint32_t in = 0, out = 0;

    spk_queue_init(&q, 1000, SIZE_MAX);
    for (uint32_t round = 0; round < 200; round++) {
        spoke_msg *messages[16];
        uint32_t more = round * 7 % 16, fewer = round * 5 % 16, taken;

        for (uint32_t i = 0; i < more; i++)
            messages[i] = numbered(in++);
        cr_assert_eq(spk_queue_reserve(&q, more), 0);
        spk_queue_force_many(&q, messages, more);
        cr_assert_eq(q.count, in - out);
        cr_assert_geq(q.high, q.count);
        taken = spk_queue_pop_many(&q, messages, fewer);
        cr_assert_eq(taken, fewer < in - out ? fewer : in - out);
        for (uint32_t i = 0; i < taken; i++)
            cr_assert_eq(number_of(messages[i]), out++);
        cr_assert_eq(q.bytes, (size_t)q.count * (sizeof(uint32_t) + sizeof(spoke_msg)));
    }
    cr_assert_gt(out, 1000);
    spk_queue_fini(&q);
}

Test(queue, the_oldest_can_be_taken_where_they_lie)
{
    struct spk_queue q;
    uint32_t in = 0, out = 0, runs = 0;

    spk_queue_init(&q, 1000, SIZE_MAX);
    while (out < 1000) {
        uint32_t run;

        for (int i = 0; i < 5; i++)
            cr_assert_eq(spk_queue_push(&q, numbered(in++)), 0);
        spoke_msg **messages = spk_queue_front(&q, &run);
        cr_assert_gt(run, 0);
        cr_assert_leq(run, q.count);
        if (run > 3) /* leave some, so that the ring wraps */
            run -= 2;
        for (uint32_t i = 0; i < run; i++)
            cr_assert_eq(number_of(messages[i]), out++);
        spk_queue_drop(&q, run, run * (sizeof(uint32_t) + sizeof(spoke_msg)));
        cr_assert_eq(q.count, in - out);
        runs++;
    }
    cr_assert_gt(runs, 100);
    spk_queue_fini(&q);
    cr_assert_eq(q.bytes, 0);
}

Test(queue, a_large_ring_is_given_back_when_it_runs_empty)
{
    struct spk_queue q;

    spk_queue_init(&q, UINT32_MAX, SIZE_MAX);
    for (uint32_t i = 0; i < 10000; i++)
        cr_assert_eq(spk_queue_push(&q, numbered(i)), 0);
    cr_expect_not_null(q.slots);
    for (uint32_t i = 0; i < 10000; i++)
        cr_assert_eq(number_of(spk_queue_pop(&q)), i);
    cr_expect_null(q.slots);
    cr_assert_eq(spk_queue_push(&q, numbered(5)), 0);
    cr_expect_eq(number_of(spk_queue_pop(&q)), 5);
    spk_queue_fini(&q);
}

/* ---- priorities ---- */

/* Method: the number is priority * 1000 + place; what comes out is sorted by it. */
Test(queue, a_ranked_push_goes_in_front_of_lower_priorities_only)
{
    struct spk_queue q;
    uint32_t before = 0, places[17] = {0};
    uint64_t random = 1;

    spk_queue_init(&q, UINT32_MAX, SIZE_MAX);
    for (uint32_t i = 0; i < 5; i++) { /* so that the ring wraps */
        cr_assert_eq(spk_queue_push(&q, numbered(0)), 0);
        number_of(spk_queue_pop(&q));
    }
    for (uint32_t i = 0; i < 500; i++) {
        uint32_t priority = 1 + random_below(&random, 16);
        spoke_msg *m = numbered(priority * 1000 + places[priority]++);
        m->priority = (uint8_t)priority;
        cr_assert_eq(spk_queue_push_ranked(&q, m), 0);
    }
    for (uint32_t i = 0; i < 500; i++) {
        uint32_t number = number_of(spk_queue_pop(&q));
        cr_assert_gt(number, before);
        before = number;
    }
    spk_queue_fini(&q);
}

static bool
is_odd(void *ctx, const spoke_msg *m)
{
    uint32_t number;

    (void)ctx;
    memcpy(&number, spoke_msg_body(m), sizeof number);
    return number % 2 == 1;
}

Test(queue, a_filter_keeps_the_order_of_what_it_keeps)
{
    struct spk_queue q;

    spk_queue_init(&q, 100, SIZE_MAX);
    cr_assert_eq(spk_queue_filter(&q, is_odd, NULL), 0);
    for (uint32_t i = 0; i < 70; i++)
        cr_assert_eq(spk_queue_push(&q, numbered(i)), 0);
    for (uint32_t i = 0; i < 60; i++)
        cr_assert_eq(number_of(spk_queue_pop(&q)), i);
    for (uint32_t i = 70; i < 121; i++) /* round the end of the ring */
        cr_assert_eq(spk_queue_push(&q, numbered(i)), 0);
    cr_assert_eq(spk_queue_filter(&q, is_odd, NULL), 31);
    for (uint32_t i = 61; i < 121; i += 2)
        cr_assert_eq(number_of(spk_queue_pop(&q)), i);
    cr_expect_eq(q.count, 0);
    cr_expect_eq(q.bytes, 0);
    spk_queue_fini(&q);
}
