/* SPDX-License-Identifier: MIT */
/* What a fork leaves the child: a number that tells it which engines are the parent's, and the
 * library's global locks free, with what they guard in one piece.  The child has no thread but the
 * one that forked; what another one was in the middle of would stay so for ever.  So a fork waits
 * until nobody holds one of these locks.  They are held for a few instructions, or while a thread
 * starts, and never while the user is called. */
#include <stdlib.h>

#include "runtime/engine/engine.h"
#include "runtime/memory/pool.h"

#define LOCKS_MOST 16u

atomic_uint spk_fork_generation;

static pthread_mutex_t *locks[LOCKS_MOST]; /* filled before main() */
static unsigned lock_count;

static void
take_locks(void)
{
    for (unsigned i = 0; i < lock_count; i++)
        pthread_mutex_lock(locks[i]);
}

static void
give_locks(void)
{
    for (unsigned i = lock_count; i > 0; i--)
        pthread_mutex_unlock(locks[i - 1]);
}

static void
in_child(void)
{
    give_locks();
    atomic_fetch_add_explicit(&spk_fork_generation, 1, memory_order_relaxed);
}

/* Before the program's own, also where the library is linked into it: handlers that lock run in the
 * opposite order.  Before there is a thread that could fork meanwhile, yet later than the
 * allocator, which does the same when it is first used: its locks are then taken after ours, as
 * everywhere else. */
__attribute__((constructor(101))) static void
watch(void)
{
    spk_free(spk_zalloc(1));
    (void)pthread_atfork(take_locks, give_locks, in_child);
}

void
spk_fork_add_lock(pthread_mutex_t *lock)
{
    if (lock_count == LOCKS_MOST) /* before main(): the first run of the build that has one more */
        abort();
    locks[lock_count++] = lock;
}
