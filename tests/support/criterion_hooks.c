/* SPDX-License-Identifier: MIT */
/* Gives every Criterion test a time limit, and more time under a sanitizer (tests/support/test.h),
 * before the first test; and says which were skipped, and at the end how many: Criterion leaves
 * them out.  Runs in the runner's process.
 *
 * Criterion now and then forgets a time limit of a test that ended early: 48 bytes, in the runner's
 * process.  Its frames have no names, and the same library is in the stack of every leak of ours,
 * so a suppression would hide those too.  Instead leaks are looked for in the tests' processes
 * only: they start anew (fork and exec), and the hook below does not run there. */
#include "tests/support/test.h"

#ifndef SPOKE_TINY_RUNNER

#include <stdio.h>

#include <criterion/hooks.h>
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif

/* Criterion starts this library, which reads all certificates of the system, in the process of each
 * test: a quarter of the time that these take under AddressSanitizer.  It is for the differences
 * of strings in eq() and its like, words that our tests do not have. */
int git_libgit2_init(void);
int git_libgit2_shutdown(void);
int
git_libgit2_init(void)
{
    return 1;
}

int
git_libgit2_shutdown(void)
{
    return 0;
}

static int is_runner;

#ifdef __SANITIZE_ADDRESS__
/* LeakSanitizer asks at exit. */
int
__lsan_is_turned_off(void)
{
    return is_runner;
}
#endif

static void
limit(struct criterion_test_extra_data *data)
{
    if (data == NULL || data->timeout <= 0)
        return;
    if (data->timeout < TEST_TIMEOUT_S)
        data->timeout = TEST_TIMEOUT_S;
    data->timeout *= SPOKE_TEST_SLOWDOWN;
}

ReportHook(PRE_ALL)(struct criterion_test_set *set)
{
    is_runner = 1;
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

static unsigned skipped;

ReportHook(POST_TEST)(struct criterion_test_stats *stats)
{
    if (stats->test_status != CR_STATUS_SKIPPED)
        return;
    skipped++;
    fprintf(stderr, "[SKIP] %s::%s: %s\n", stats->test->category, stats->test->name,
            stats->message != NULL ? stats->message : "");
}

ReportHook(POST_ALL)(struct criterion_global_stats *stats)
{
    (void)stats;
    fprintf(stderr, "[====] Skipped: %u\n", skipped);
}

#endif
