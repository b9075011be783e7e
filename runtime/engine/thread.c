/* SPDX-License-Identifier: MIT */
/* How a thread of the library's starts. */
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
