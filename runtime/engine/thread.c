/* SPDX-License-Identifier: MIT */
/* How a thread of the library's starts, and the few that do what would block an engine: there are
 * some only while there is work. */
#include <signal.h>

#include "runtime/engine/engine.h"

int
spk_thread_start(void *(*fn)(void *argument), void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, old;
    int rc;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old); /* signals are the application's */
    rc = pthread_create(&thread, &attributes, fn, argument);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attributes);
    return rc == 0 ? 0 : SPOKE_ELIMIT;
}

/* ---- work aside ---- */

static pthread_mutex_t aside_lock = PTHREAD_MUTEX_INITIALIZER;
SPK_FREE_AFTER_FORK(aside_lock)
static struct {
    struct spk_link waiting;
    unsigned threads;
    unsigned fork_generation; /* both above are of this process, and not of its parent */
} aside = {.waiting = {&aside.waiting, &aside.waiting}};

/* In a child the parent's work is left where it is: it has neither its engines nor its threads. */
static void
lock_aside(void)
{
    unsigned generation = atomic_load_explicit(&spk_fork_generation, memory_order_relaxed);

    pthread_mutex_lock(&aside_lock);
    if (aside.fork_generation == generation)
        return;
    spk_list_init(&aside.waiting);
    aside.threads = 0;
    aside.fork_generation = generation;
}

static void *
work_aside(void *nothing)
{
    struct spk_link *link;

    pthread_setname_np(pthread_self(), "spoke-aside");
    lock_aside();
    while ((link = spk_list_take(&aside.waiting)) != NULL) {
        struct spk_aside *work = SPK_OWNER(link, struct spk_aside, link);
        pthread_mutex_unlock(&aside_lock);
        work->fn(work);
        lock_aside();
    }
    aside.threads--;
    pthread_mutex_unlock(&aside_lock);
    return nothing;
}

int
spk_aside_start(struct spk_aside *work, void (*fn)(struct spk_aside *work))
{
    int rc = 0;

    work->fn = fn;
    lock_aside();
    spk_list_append(&aside.waiting, &work->link);
    if (aside.threads < SPK_ASIDE_THREADS && (rc = spk_thread_start(work_aside, NULL)) == 0)
        aside.threads++;
    if (aside.threads > 0)
        rc = 0; /* it waits for one of these */
    else
        spk_list_remove(&work->link);
    pthread_mutex_unlock(&aside_lock);
    return rc;
}

bool
spk_aside_withdraw(struct spk_aside *work)
{
    bool waits;

    lock_aside();
    waits = !spk_list_empty(&work->link);
    spk_list_remove(&work->link);
    pthread_mutex_unlock(&aside_lock);
    return waits;
}
