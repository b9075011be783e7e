/* SPDX-License-Identifier: MIT */
/* The queue that keeps the latest of each topic: against a list, its bounds, without memory. */
#include <string.h>

#include "protocols/sp/latest.h"
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
    cr_expect_eq(stats.others, 0);
}

TestSuite(latest, .fini = expect_nothing_left);

#define TOPIC 2u /* bytes */

/* A message of a topic, with a number behind it. */
static spoke_msg *
note(uint16_t topic, uint32_t number)
{
    spoke_msg *m;

    cr_assert_eq(spoke_msg_from(&m, &topic, TOPIC), 0);
    cr_assert_eq(spoke_msg_append(m, &number, sizeof number), 0);
    return m;
}

static uint32_t
number_of(const spoke_msg *m)
{
    uint32_t number;

    cr_assert_not_null(m);
    memcpy(&number, (const uint8_t *)spoke_msg_body(m) + TOPIC, sizeof number);
    return number;
}

static void
put(struct spk_latest *l, uint16_t topic, uint32_t number)
{
    spoke_msg *m = note(topic, number);

    spoke_msg_free(spk_latest_replace(l, m, TOPIC));
    cr_assert_eq(spk_latest_push(l, m, TOPIC), 0);
}

Test(latest, gives_the_latest_of_each_topic_in_the_order_of_arrival)
{
    enum { TOPICS = 500, STEPS = 20000 };
    static uint32_t last[TOPICS]; /* 0: none waits */
    struct spk_latest l;
    uint32_t waiting = 0, given = 0;
    uint64_t random = 1;

    spk_latest_init(&l, UINT32_MAX, SIZE_MAX);
    for (uint32_t i = 1; i <= STEPS; i++) {
        uint16_t topic = (uint16_t)random_below(&random, TOPICS);
        if (random_below(&random, 2) == 0) {
            waiting += last[topic] == 0;
            last[topic] = i;
            put(&l, topic, i);
        } else if (waiting > 0) {
            spoke_msg *m = spk_latest_pop(&l);
            uint32_t number = number_of(m), oldest = UINT32_MAX, *owner = NULL;
            for (int t = 0; t < TOPICS; t++)
                if (last[t] != 0 && last[t] < oldest)
                    oldest = *(owner = &last[t]);
            cr_assert_eq(number, oldest);
            *owner = 0;
            waiting--;
            given++;
            spoke_msg_free(m);
        }
        cr_assert_eq(l.count, waiting);
    }
    cr_assert_gt(given, 1000);
    spk_latest_fini(&l); /* with what is in it */
}

Test(latest, knows_its_bounds)
{
    struct spk_latest l;

    spk_latest_init(&l, 2, SIZE_MAX);
    cr_expect_null(spk_latest_pop(&l));
    put(&l, 1, 1);
    cr_expect_not(spk_latest_full(&l));
    put(&l, 2, 2);
    cr_expect(spk_latest_full(&l));
    put(&l, 1, 3); /* instead of the first */
    cr_expect_eq(l.count, 2);
    spk_latest_fini(&l);
    spk_latest_init(&l, 10, 1);
    put(&l, 1, 1);
    cr_expect(spk_latest_full(&l));
    spoke_msg_free(spk_latest_pop(&l));
    cr_expect_eq(l.bytes, 0);
    spk_latest_fini(&l);
}

Test(latest, tells_topics_apart_that_begin_alike)
{
    struct spk_latest l;
    spoke_msg *a, *b, *none;

    spk_latest_init(&l, 10, SIZE_MAX);
    cr_assert_eq(spoke_msg_from(&a, "ab", 2), 0);
    cr_assert_eq(spoke_msg_from(&b, "abc", 3), 0);
    cr_assert_eq(spoke_msg_new(&none, 0), 0);
    cr_assert_eq(spk_latest_push(&l, a, 2), 0);
    cr_expect_null(spk_latest_replace(&l, b, 3));
    cr_expect_null(spk_latest_replace(&l, none, 0));
    cr_assert_eq(spk_latest_push(&l, none, 0), 0);
    cr_expect_eq(spk_latest_replace(&l, b, 2), a);
    cr_expect_eq(spk_latest_replace(&l, b, 0), none);
    spoke_msg_free(a);
    spoke_msg_free(b);
    spoke_msg_free(none);
    spk_latest_fini(&l);
}

Test(latest, a_push_without_memory_changes_nothing)
{
    struct spk_latest l;
    uint32_t pushed = 0;
    int failures = 0;

    spk_latest_init(&l, UINT32_MAX, SIZE_MAX);
    for (uint32_t i = 0; i < 2000; i++) {
        spoke_msg *m = note((uint16_t)i, i);
        spk_memory_fail_after(1 + i % 2);
        int rc = spk_latest_push(&l, m, TOPIC);
        spk_memory_fail_after(0);
        if (rc != 0) {
            cr_assert_eq(rc, SPOKE_ENOMEM);
            spoke_msg_free(m);
            failures++;
        } else {
            pushed++;
        }
        cr_assert_eq(l.count, pushed);
    }
    cr_assert_gt(failures, 0);
    cr_assert_gt(pushed, 0);
    for (uint32_t i = 0, before = 0; i < pushed; i++) {
        spoke_msg *m = spk_latest_pop(&l);
        cr_assert(i == 0 || number_of(m) > before);
        before = number_of(m);
        spoke_msg_free(m);
    }
    spk_latest_fini(&l);
}
