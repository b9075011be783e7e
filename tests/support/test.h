/* SPDX-License-Identifier: MIT */
/* What every test file includes.  Normally it is Criterion; where Criterion cannot start (under
 * ThreadSanitizer: -DSPOKE_TINY_RUNNER) it is a runner of our own that understands the same words,
 * as far as tiny_runner.h lists them.  Write tests with those words only, and they run under both.
 *
 * Each test is a process of its own.  Its time limit is for what hangs: TEST_TIMEOUT_S, or a longer
 * .timeout, as a busy machine may take long over anything; all limits are multiplied by
 * SPOKE_TEST_SLOWDOWN, which is more than 1 under a sanitizer.  Assert on the test's main thread
 * only: other threads report to it. */
#ifndef TESTS_SUPPORT_TEST_H
#define TESTS_SUPPORT_TEST_H

#ifdef SPOKE_TINY_RUNNER
#include "tests/support/tiny_runner.h"
#else
#include <criterion/criterion.h>
#include <criterion/parameterized.h>
#endif

#ifndef SPOKE_TEST_SLOWDOWN
#define SPOKE_TEST_SLOWDOWN 1
#endif

#define TEST_TIMEOUT_S 120.0

/* How often to do what is done many times because once shows little: fewer times under a sanitizer.
 */
#define TEST_REPEATS(Count) ((Count) / SPOKE_TEST_SLOWDOWN)

#endif
