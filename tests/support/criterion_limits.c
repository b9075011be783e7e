/* SPDX-License-Identifier: MIT */
/* Gives every Criterion test a time limit, and more time under a sanitizer (tests/support/test.h).
 * Runs in the runner's process, before the first test. */
#include "tests/support/test.h"

#ifndef SPOKE_TINY_RUNNER

#include <criterion/hooks.h>

static void
limit(struct criterion_test_extra_data *data)
{
    if (data != NULL && data->timeout > 0)
        data->timeout *= SPOKE_TEST_SLOWDOWN;
}

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
    FOREACH_SET(struct criterion_suite_set *suite, set->suites) {
        limit(suite->suite.data);
        FOREACH_SET(struct criterion_test *test, suite->tests) {
            bool suite_limits = suite->suite.data != NULL && suite->suite.data->timeout > 0;
            if (test->data->timeout <= 0 && !suite_limits)
                test->data->timeout = TEST_TIMEOUT_S;
            limit(test->data);
        }
    }
}

#endif
