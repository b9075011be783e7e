/* SPDX-License-Identifier: MIT */
/* The map from numbers to pointers: what was set is found, what was removed is not, and neither
 * takes longer because there are many. */
#include "runtime/memory/idmap.h"

#include <stdlib.h>
#include <time.h>

#include "tests/support/random.h"
#include "tests/support/test.h"

/* Against an array, in steps of all sizes: consecutive numbers, and far apart ones that share their
 * lower halves. */
static void
check_against_an_array(uint32_t stride)
{
    enum { NUMBERS = 500 };
    static char things[NUMBERS];
    struct spk_idmap map = {0};
    bool is_in[NUMBERS] = {false};
    uint64_t random = 20250607;
    uint32_t count = 0;

    for (int step = 0; step < 20000; step++) {
        uint32_t n = random_below(&random, NUMBERS), id = 1 + n * stride;

        if (random_below(&random, step / 2000 % 2 == 0 ? 3 : 2) > 0) {
            cr_assert_eq(spk_idmap_set(&map, id, &things[n]), 0);
            count += !is_in[n];
            is_in[n] = true;
        } else {
            spk_idmap_remove(&map, id);
            count -= is_in[n];
            is_in[n] = false;
        }
        cr_assert_eq(map.count, count);
        for (uint32_t k = 0; step % 100 == 0 && k < NUMBERS; k++)
            cr_assert_eq(spk_idmap_get(&map, 1 + k * stride), is_in[k] ? &things[k] : NULL,
                         "step %d, number %u", step, 1 + k * stride);
    }
    spk_idmap_fini(&map);
}

Test(idmap, holds_what_was_set_and_nothing_that_was_removed)
{
    static const uint32_t strides[] = {1, 2, 3, 64, 1000, 65536, 1u << 22};

    for (size_t i = 0; i < sizeof strides / sizeof *strides; i++)
        check_against_an_array(strides[i]);
}

Test(idmap, has_nothing_under_number_zero)
{
    struct spk_idmap map = {0};
    int thing;

    cr_assert_null(spk_idmap_get(&map, 0));
    spk_idmap_remove(&map, 1);
    cr_assert_eq(spk_idmap_set(&map, 1, &thing), 0);
    cr_assert_null(spk_idmap_get(&map, 0));
    cr_assert_null(spk_idmap_get(&map, 2));
    spk_idmap_fini(&map);
}

static double
cpu_seconds(void)
{
    struct timespec time;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* Goal: the oldest of very many goes as quickly as the only one.  Method: a removal that looks at
 * all that were set after it takes a millisecond here, one that does not less than one of its
 * thousandths.  Processor time, so that a busy machine changes nothing. */
Test(idmap, removes_the_oldest_of_many_at_once)
{
    enum { MANY = 1000000, REMOVED = 3000 };
    struct spk_idmap map = {0};
    int thing;

    for (uint32_t id = 1; id <= MANY; id++)
        cr_assert_eq(spk_idmap_set(&map, id, &thing), 0);
    double begin = cpu_seconds();
    for (uint32_t id = 1; id <= REMOVED; id++)
        spk_idmap_remove(&map, id);
    cr_assert_lt(cpu_seconds() - begin, 0.5 * SPOKE_TEST_SLOWDOWN);
    cr_assert_eq(map.count, MANY - REMOVED);
    for (uint32_t id = 1; id <= MANY; id++)
        cr_assert_eq(spk_idmap_get(&map, id), id <= REMOVED ? NULL : &thing);
    spk_idmap_fini(&map);
}
