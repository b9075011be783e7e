/* SPDX-License-Identifier: MIT */
/* Every system call that the engine makes fails once, with each error that it can give: the call of
 * ours that needed it gives a proper error or works all the same, nothing is left, and the next
 * attempt works. Each in a child, whose system calls inject.h can catch. */
#include "tests/fault/duo.h"
#include "tests/fault/inject.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "tests/support/endpoints.h"
#include "tests/support/process.h"
#include "tests/support/test.h"

/* A case is more than this many failures of one call with one error: enough. */
#define TRIES_MAX 40

struct failure {
    int number;
    char name[20];
    int errors[6];
};

static const struct failure failures[] = {
    {SYS_socket, "socket", {EMFILE, ENFILE, ENOBUFS, ENOMEM}},
    {SYS_socketpair, "socketpair", {EMFILE, ENOMEM}},
    {SYS_memfd_create, "memfd_create", {EMFILE, ENOMEM, ENOSYS}},
    {SYS_ftruncate, "ftruncate", {ENOMEM, EINVAL}},
    {SYS_fallocate, "fallocate", {ENOSPC, EINTR, ENOMEM}},
    {SYS_fchmod, "fchmod", {EPERM}},
    {SYS_pipe2, "pipe2", {EMFILE, ENFILE}},
    {SYS_openat, "openat", {EMFILE, EACCES, ENOENT}},
    {SYS_newfstatat, "newfstatat", {ENOMEM}},
#if !defined __SANITIZE_ADDRESS__ &&                                                               \
    !defined __SANITIZE_THREAD__ /* which map memory for themselves */
    {SYS_mmap, "mmap", {ENOMEM}},
#endif
    {SYS_bind, "bind", {EACCES, ENOMEM, EADDRNOTAVAIL}},
    {SYS_listen, "listen", {EADDRINUSE, ENOBUFS}},
    {SYS_connect, "connect", {ECONNREFUSED, ENETUNREACH, EAGAIN, ETIMEDOUT, EINTR, ENOMEM}},
    {SYS_accept4, "accept4", {EMFILE, ENFILE, ECONNABORTED, ENOMEM, EINTR, EPROTO}},
    {SYS_recvfrom, "recvfrom", {ECONNRESET, ENOMEM, EINTR, EAGAIN, ETIMEDOUT}},
    {SYS_recvmsg, "recvmsg", {ECONNRESET, ENOMEM, EINTR, EAGAIN}},
    {SYS_sendto, "sendto", {EPIPE, ECONNRESET, ENOMEM, ENOBUFS, EINTR, EAGAIN}},
    {SYS_sendmsg, "sendmsg", {EPIPE, ECONNRESET, ENOMEM, ENOBUFS, EINTR, EAGAIN}},
    {SYS_read, "read", {EINTR, EAGAIN}},
    {SYS_write, "write", {EINTR, EAGAIN}},
    {SYS_getsockopt, "getsockopt", {ENOBUFS}},
    {SYS_setsockopt, "setsockopt", {ENOBUFS, ENOMEM}},
    {SYS_getsockname, "getsockname", {ENOBUFS}},
    {SYS_getpeername, "getpeername", {ENOTCONN, ENOBUFS}},
    {SYS_shutdown, "shutdown", {ENOTCONN}},
    {SYS_fcntl, "fcntl", {ENOMEM}},
    {SYS_eventfd2, "eventfd2", {EMFILE, ENOMEM}},
    {SYS_timerfd_create, "timerfd_create", {EMFILE}},
    {SYS_timerfd_settime, "timerfd_settime", {EINVAL}},
    {SYS_epoll_create1, "epoll_create1", {EMFILE, ENOMEM}},
    {SYS_epoll_ctl, "epoll_ctl", {ENOMEM, ENOSPC}},
    {SYS_epoll_wait, "epoll_wait", {EINTR}},
    {SYS_epoll_pwait, "epoll_pwait", {EINTR}},
    {SYS_epoll_pwait2, "epoll_pwait2", {EINTR, ENOSYS}},
    {SYS_poll, "poll", {EINTR}},
    {SYS_io_uring_setup, "io_uring_setup", {ENOMEM, EMFILE, EPERM, ENOSYS, EINVAL}},
    {SYS_io_uring_enter, "io_uring_enter", {EINTR, EAGAIN, EBUSY, ENOMEM}},
    {SYS_io_uring_register, "io_uring_register", {ENOMEM, EINVAL, EPERM}},
};
enum { FAILURES = sizeof failures / sizeof failures[0] };

/* Nobody makes these but who moves into shared memory: ipc does without.  (fallocate() is made
 * later, too, and then ends the connection.) */
static bool
is_of_moving(int number)
{
    static const int numbers[] = {SYS_socketpair, SYS_memfd_create, SYS_ftruncate, SYS_fchmod,
                                  SYS_pipe2,      SYS_openat,       SYS_newfstatat};

    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        if (numbers[i] == number)
            return true;
    return false;
}

/* The last one moves into shared memory at once; the first one never comes so far. */
enum { PLACES = 4 };
static const enum transport places[PLACES] = {IPC, TCP, SHM, IPC};

struct job {
    const struct failure *failure;
    char urls[PLACES][ENDPOINT_MAX];
};

static void
go_to(int place)
{
    CHILD_CHECK(place == PLACES - 1 ? setenv("SPOKE_UPGRADE", "now", 1) == 0
                                    : unsetenv("SPOKE_UPGRADE") == 0);
}

static int
count_fds(void)
{
    DIR *fds = opendir("/proc/self/fd");
    int count = 0;

    CHILD_CHECK(fds != NULL);
    while (readdir(fds) != NULL)
        count++;
    closedir(fds);
    return count;
}

static void
check_nothing_left(int fds_before, uint64_t messages_before, uint64_t chunks_before)
{
    struct spoke_memory_stats memory;

    spoke_memory_stats(&memory);
    CHILD_CHECK(memory.messages == messages_before);
    CHILD_CHECK(memory.chunks == chunks_before);
    CHILD_CHECK(count_fds() == fds_before);
}

static void
complain(const struct failure *failure, int error, int when, const char *what, int rc)
{
    fprintf(stderr, "%s: %s, time %d: %s: %s\n", failure->name, strerrorname_np(error), when, what,
            spoke_error_name(rc));
    fflush(stderr);
    _exit(1);
}

/* One life of a duo in which the `when`-th call fails; returns whether there was such a call. */
static bool
live_once(const struct failure *failure, int error, int when, const char *url)
{
    static const size_t sizes[] = {4, 300, 200000};
    struct spoke_memory_stats memory;
    struct duo d;

    spoke_memory_stats(&memory);
    int fds = count_fds();
    inject_arm(failure->number, when, error);
    int rc = duo_open(&d, url);
    if (rc != 0 &&
        (!inject_fired() || (is_of_moving(failure->number) && strncmp(url, "ipc", 3) == 0)))
        complain(failure, error, when, "open failed for no reason", rc);
    if (rc != 0 && (rc = duo_open(&d, url)) != 0)
        complain(failure, error, when, "the second open", rc);
    for (int i = 0; i < 3; i++) {
        bool fired_before = inject_fired();
        rc = duo_exchange(&d, sizes[i]);
        if (rc != 0 && (!inject_fired() || rc == SPOKE_EPROTO))
            complain(failure, error, when, "an exchange", rc);
        if (rc != 0 && is_of_moving(failure->number) && strncmp(url, "ipc", 3) == 0)
            complain(failure, error, when, "an exchange without shared memory", rc);
        if (rc != 0 && fired_before)
            complain(failure, error, when, "an exchange after a good one", rc);
        if (rc != 0 && (rc = duo_recover(&d, sizes[i])) != 0)
            complain(failure, error, when, "an exchange after the failure", rc);
    }
    rc = duo_close(&d);
    bool fired = inject_fired();
    inject_disarm();
    if (rc != 0 && !fired)
        complain(failure, error, when, "close", rc);
    check_nothing_left(fds, memory.messages, memory.chunks);
    return fired;
}

static int
fail_each_time(void *ctx)
{
    const struct job *job = ctx;
    const struct failure *failure = job->failure;
    struct duo warm;

    duo_watch(inject_fired);
    for (int u = 0; u < PLACES; u++) {
        go_to(u);
        CHILD_CHECK(duo_open(&warm, job->urls[u]) == 0);
        CHILD_CHECK(duo_close(&warm) == 0);
    }
    CHILD_CHECK(inject_only(&failure->number, 1));
    for (int u = 0; u < PLACES; u++) {
        go_to(u);
        for (int i = 0; i < 6 && failure->errors[i] != 0; i++) {
            int when = 1;
            while (when <= TRIES_MAX && live_once(failure, failure->errors[i], when, job->urls[u]))
                when++;
        }
    }
    return 0;
}

ParameterizedTestParameters(syscalls, each_may_fail_once_at_any_time)
{
    return (struct criterion_test_params){
        .size = sizeof failures[0], .params = (void *)(uintptr_t)failures, .length = FAILURES};
}

ParameterizedTest(struct failure *failure, syscalls, each_may_fail_once_at_any_time)
{
    struct job job = {.failure = failure};

    if (!inject_is_supported())
        cr_skip("not on this processor");
    for (int i = 0; i < PLACES; i++)
        endpoint_fresh(job.urls[i], places[i]);
    int code = child_run(fail_each_time, &job, 100);
    cr_assert_eq(code, 0, "%s: %d", failure->name, code);
}

/* The method itself: what is armed fails, once, and is counted. */
static int
try_it_out(void *ctx)
{
    const int numbers[] = {SYS_getppid, SYS_dup};
    int last = 0;

    (void)ctx;
    CHILD_CHECK(inject_only(numbers, 2));
    CHILD_CHECK(getppid() > 0);
    CHILD_CHECK(inject_caught(&last) == 1 && last == SYS_getppid);
    inject_arm(SYS_dup, 2, EMFILE);
    int fd = dup(2);
    CHILD_CHECK(fd >= 0 && !inject_fired());
    errno = 0;
    CHILD_CHECK(dup(2) == -1 && errno == EMFILE && inject_fired());
    CHILD_CHECK(close(fd) == 0);
    fd = dup(2);
    CHILD_CHECK(fd >= 0 && close(fd) == 0);
    CHILD_CHECK(inject_caught(NULL) == 4);
    return 0;
}

Test(syscalls, can_be_made_to_fail_at_all)
{
    if (!inject_is_supported())
        cr_skip("not on this processor");
    cr_assert_eq(child_run(try_it_out, NULL, 10), 0);
}
