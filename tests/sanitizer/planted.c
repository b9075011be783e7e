/* SPDX-License-Identifier: MIT */
/* Faults on purpose.  Each of these tests says "passed" unless a sanitizer sees what it does;
 * scripts/sanitize runs every one of them first and believes nothing if one is not reported. */
#include <limits.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "tests/support/process.h"
#include "tests/support/test.h"

/* Volatile, so that the compiler knows nothing about the values. */
static void *volatile hidden;
static volatile int number = INT_MAX;

#ifdef SPOKE_TINY_RUNNER

static int shared_count; /* two threads, no lock */

static void *
count_up(void *argument)
{
    (void)argument;
    for (int i = 0; i < 1000; i++)
        shared_count++;
    return NULL;
}

Test(planted, race)
{
    pthread_t threads[2];

    for (int i = 0; i < 2; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, count_up, NULL), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    hidden = &shared_count;
    number = shared_count;
}

#else

Test(planted, leak)
{
    hidden = malloc(100);
    cr_assert_not_null(hidden);
    hidden = NULL;
}

static int
leak_in_child(void *ctx)
{
    (void)ctx;
    hidden = malloc(100);
    hidden = NULL;
    return 0;
}

Test(planted, leak_in_child)
{
    (void)child_run(leak_in_child, NULL, 10);
}

Test(planted, overflow)
{
    unsigned char *block = malloc(8);

    cr_assert_not_null(block);
    hidden = block;
    ((volatile unsigned char *)hidden)[8] = 1;
    free(block);
}

Test(planted, undefined)
{
    number = number + 1;
}

#endif
