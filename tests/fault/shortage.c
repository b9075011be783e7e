/* SPDX-License-Identifier: MIT */
#include "tests/fault/shortage.h"

#include <stddef.h>

#include "runtime/memory/pool.h"

atomic_bool shortage_fired;
static atomic_long count, first;

static bool
fail_once(void *ctx)
{
    (void)ctx;
    if (atomic_fetch_add(&count, 1) + 1 != first)
        return false;
    shortage_fired = true;
    return true;
}

static bool
fail_from_there_on(void *ctx)
{
    (void)ctx;
    if (atomic_fetch_add(&count, 1) + 1 < first)
        return false;
    shortage_fired = true;
    return true;
}

static void
arm(long n, bool (*fault)(void *ctx))
{
    count = 0;
    shortage_fired = false;
    first = n;
    spk_memory_set_fault(fault, NULL);
}

void
shortage_at(long n)
{
    arm(n, fail_once);
}

void
shortage_from(long n)
{
    arm(n, fail_from_there_on);
}

void
shortage_end(void)
{
    spk_memory_set_fault(NULL, NULL);
}
