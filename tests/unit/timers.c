/* SPDX-License-Identifier: MIT */
/* The heap of timers, against a model that is too simple to be wrong. */
#include <stdlib.h>

#include <spoke/error.h>

#include "runtime/engine/engine.h"
#include "runtime/memory/pool.h"
#include "tests/support/random.h"
#include "tests/support/test.h"

#define MANY 100000

static uint64_t dice = 88172645463325252u;

static struct spk_timer *
new_timers(uint32_t count)
{
    struct spk_timer *timers = calloc(count, sizeof *timers);

    cr_assert_not_null(timers);
    for (uint32_t i = 0; i < count; i++)
        timers[i].index = UINT32_MAX;
    return timers;
}

Test(timers, none_is_due_when_none_is_set)
{
    struct spk_timers t = {0};

    cr_expect_eq(spk_timers_next(&t), SPOKE_FOREVER);
    cr_expect_null(spk_timers_due(&t, SPOKE_FOREVER));
    spk_timers_fini(&t);
}

Test(timers, one_is_due_at_its_time_and_once)
{
    struct spk_timers t = {0};
    struct spk_timer timer = {.index = UINT32_MAX};

    cr_assert_eq(spk_timers_set(&t, &timer, 1000), 0);
    cr_expect(spk_timer_is_set(&timer));
    cr_expect_eq(spk_timers_next(&t), 1000);
    cr_expect_null(spk_timers_due(&t, 999));
    cr_expect_eq(spk_timers_due(&t, 1000), &timer);
    cr_expect_not(spk_timer_is_set(&timer));
    cr_expect_null(spk_timers_due(&t, 1000));
    spk_timers_fini(&t);
}

Test(timers, canceling_one_that_is_not_set_is_harmless)
{
    struct spk_timers t = {0};
    struct spk_timer timer = {.index = UINT32_MAX};

    spk_timers_cancel(&t, &timer);
    cr_assert_eq(spk_timers_set(&t, &timer, 5), 0);
    spk_timers_cancel(&t, &timer);
    spk_timers_cancel(&t, &timer);
    cr_expect_eq(spk_timers_next(&t), SPOKE_FOREVER);
    spk_timers_fini(&t);
}

/* Method: after every random step the earliest timer is the one that a search through all of them
 * finds. */
Test(timers, every_step_agrees_with_a_search_through_all)
{
    enum { COUNT = 120 };
    struct spk_timers t = {0};
    struct spk_timer *timers = new_timers(COUNT);

    for (int step = 0; step < 50000; step++) {
        struct spk_timer *timer = &timers[random_below(&dice, COUNT)];
        if (random_below(&dice, 3) == 0)
            spk_timers_cancel(&t, timer);
        else
            cr_assert_eq(spk_timers_set(&t, timer, random_below(&dice, 500)), 0);
        spoke_ns earliest = SPOKE_FOREVER;
        uint32_t count = 0;
        for (int i = 0; i < COUNT; i++) {
            if (!spk_timer_is_set(&timers[i]))
                continue;
            count++;
            cr_assert_eq(t.heap[timers[i].index], &timers[i]);
            earliest = timers[i].when < earliest ? timers[i].when : earliest;
        }
        cr_assert_eq(t.count, count);
        cr_assert_eq(spk_timers_next(&t), earliest);
    }
    spk_timers_fini(&t);
    free(timers);
}

Test(timers, a_hundred_thousand_fire_in_order_each_once_except_the_canceled)
{
    struct spk_timers t = {0};
    struct spk_timer *timers = new_timers(MANY), *timer;
    spoke_ns last = 0;
    uint32_t expected = 0, fired = 0;

    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(spk_timers_set(&t, &timers[i], random_below(&dice, 1000000)), 0);
    for (uint32_t i = 0; i < MANY; i++) { /* a third is moved, a third canceled */
        timer = &timers[random_below(&dice, MANY)];
        if (i % 3 == 0)
            cr_assert_eq(spk_timers_set(&t, timer, random_below(&dice, 2000000)), 0);
        else if (i % 3 == 1)
            spk_timers_cancel(&t, timer);
    }
    for (uint32_t i = 0; i < MANY; i++)
        expected += spk_timer_is_set(&timers[i]);
    cr_assert_eq(t.count, expected);
    for (spoke_ns now = 0; t.count > 0; now += 1000) {
        while ((timer = spk_timers_due(&t, now)) != NULL) {
            cr_assert_leq(timer->when, now);
            cr_assert_geq(timer->when, last);
            cr_assert_not(spk_timer_is_set(timer));
            last = timer->when;
            fired++;
        }
        cr_assert_gt(spk_timers_next(&t), now);
    }
    cr_expect_eq(fired, expected);
    spk_timers_fini(&t);
    free(timers);
}

Test(timers, a_timer_may_set_itself_again_when_it_fires)
{
    struct spk_timers t = {0};
    struct spk_timer *timers = new_timers(50), *timer;
    uint32_t fired[50] = {0};

    for (uint32_t i = 0; i < 50; i++)
        cr_assert_eq(spk_timers_set(&t, &timers[i], i), 0);
    for (spoke_ns now = 0; now < 1000; now++) {
        while ((timer = spk_timers_due(&t, now)) != NULL) {
            fired[timer - timers]++;
            cr_assert_eq(spk_timers_set(&t, timer, now + 50), 0);
        }
    }
    for (uint32_t i = 0; i < 50; i++)
        cr_expect_eq(fired[i], 20);
    spk_timers_fini(&t);
    free(timers);
}

Test(timers, without_memory_a_timer_is_not_set_and_the_others_stay)
{
    struct spk_timers t = {0};
    struct spk_timer *timers = new_timers(1000);
    uint32_t refused = 0;

    for (uint32_t i = 0; i < 1000; i++) {
        spk_memory_fail_after(1);
        int rc = spk_timers_set(&t, &timers[i], 1000 - i);
        spk_memory_fail_after(0);
        cr_assert(rc == 0 || rc == SPOKE_ENOMEM);
        cr_assert_eq(spk_timer_is_set(&timers[i]), rc == 0);
        if (rc == 0)
            continue;
        refused++;
        spk_memory_fail_after(1); /* moving a timer that is set needs no memory */
        if (i > 0)
            cr_assert_eq(spk_timers_set(&t, &timers[i - 1], 1001 - i), 0);
        spk_memory_fail_after(0);
        cr_assert_eq(spk_timers_set(&t, &timers[i], 1000 - i), 0);
    }
    cr_expect_gt(refused, 0);
    for (uint32_t i = 1000; i-- > 0;)
        cr_assert_eq(spk_timers_due(&t, 1000), &timers[i]);
    spk_timers_fini(&t);
    free(timers);
}

Test(timers, fini_unsets_what_was_set)
{
    struct spk_timers t = {0};
    struct spk_timer *timers = new_timers(10);

    for (uint32_t i = 0; i < 10; i++)
        cr_assert_eq(spk_timers_set(&t, &timers[i], i), 0);
    spk_timers_fini(&t);
    for (uint32_t i = 0; i < 10; i++)
        cr_expect_not(spk_timer_is_set(&timers[i]));
    free(timers);
}

/* How many places of the heap hold another timer than before; remembers what they hold now. */
static uint32_t
count_moves(const struct spk_timers *t, struct spk_timer **before)
{
    uint32_t moves = 0;

    for (uint32_t i = 0; i < t->count; i++) {
        moves += before[i] != t->heap[i];
        before[i] = t->heap[i];
    }
    return moves;
}

/* Goal: with a hundred thousand timers, setting, moving, cancelling and firing one touches only a
 * path through the heap: nine levels of four children each.  Method: count what has moved. */
Test(timers, one_among_a_hundred_thousand_moves_no_more_than_its_path)
{
    enum { LEVELS = 9, OPERATIONS = 1000 };
    struct spk_timers t = {0};
    struct spk_timer *timers = new_timers(MANY);
    struct spk_timer **before = calloc(MANY, sizeof(struct spk_timer *));
    uint32_t most = 0;

    for (uint32_t i = 0; i < MANY; i++)
        cr_assert_eq(spk_timers_set(&t, &timers[i], random_below(&dice, 1000000)), 0);
    count_moves(&t, before);
    for (uint32_t i = 0; i < OPERATIONS; i++) {
        struct spk_timer *timer = &timers[random_below(&dice, MANY)];
        uint32_t moves;

        if (i % 3 == 0)
            spk_timers_cancel(&t, timer);
        else if (i % 3 == 1)
            cr_assert_eq(spk_timers_set(&t, timer, random_below(&dice, 1000000)), 0);
        else
            cr_assert_not_null(spk_timers_due(&t, SPOKE_FOREVER));
        moves = count_moves(&t, before);
        most = moves > most ? moves : most;
    }
    cr_assert_gt(most, 1);
    cr_assert_leq(most, LEVELS + 1, "%u moves", most);
    spk_timers_fini(&t);
    free(before);
    free(timers);
}
