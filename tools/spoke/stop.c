/* SPDX-License-Identifier: MIT */
/* Signals that ask the program to end.  The handler may run in any thread: it stores the signal and
 * writes to an eventfd, and nothing else. */
#include "stop.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
#define SIGNAL_COUNT (sizeof signals / sizeof *signals)

static volatile sig_atomic_t arrived;
static int stop_fd = -1;
static sigset_t before_hold;

void
stop_with(int signal)
{
    uint64_t one = 1;
    int saved = errno;
    ssize_t ignored;

    if (arrived == 0)
        arrived = signal;
    ignored = write(stop_fd, &one, sizeof one);
    (void)ignored;
    errno = saved;
}

int
stop_init(void)
{
    struct sigaction action = {.sa_handler = stop_with, .sa_flags = (int)SA_RESETHAND};
    struct sigaction inherited;

    if ((stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0)
        return -1;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < SIGNAL_COUNT; i++) {
        /* What whoever started us ignores (nohup, a shell's background) stays ignored. */
        if (sigaction(signals[i], NULL, &inherited) == 0 && inherited.sa_handler != SIG_IGN)
            sigaction(signals[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN);
    return stop_fd;
}

void
stop_hold(void)
{
    sigset_t set;

    sigemptyset(&set);
    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        sigaddset(&set, signals[i]);
    sigaddset(&set, SIGUSR1); /* for those who have a use for it */
    pthread_sigmask(SIG_BLOCK, &set, &before_hold);
}

void
stop_release(void)
{
    pthread_sigmask(SIG_SETMASK, &before_hold, NULL);
}

int
stop_signal(void)
{
    return arrived;
}

void
stop_finish(void)
{
    if (arrived == 0)
        return;
    signal(arrived, SIG_DFL);
    raise(arrived);
}
