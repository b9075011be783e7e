/* SPDX-License-Identifier: MIT */
#include "tests/support/process.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

#ifdef __SANITIZE_ADDRESS__
#include <dirent.h>
#include <sanitizer/lsan_interface.h>
#include <string.h>
#endif

#include "tests/support/test.h"

#define ENTRY_VARIABLE    "SPOKE_TEST_ENTRY"
#define ARGUMENT_VARIABLE "SPOKE_TEST_ARGUMENT"

static void
die_with(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

static bool confined;

void
child_is_confined(void)
{
    confined = true;
}

/* What exit() would do and _exit() does not.  A leak is reported but does not end the child: its
 * parent's other threads are not there, and what only these knew of is reported too (OpenSSL keeps
 * a little for each thread).  scripts/sanitize tells the two apart, and fails for a leak of ours.
 */
static void
check_leaks(void)
{
#ifdef __SANITIZE_ADDRESS__
    if (!confined)
        __lsan_do_recoverable_leak_check();
#endif
}

#ifdef __SANITIZE_ADDRESS__
static bool
runs(const char *task)
{
    char path[64], line[512];
    const char *behind_name = NULL;
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%.20s/stat", task);
    file = fopen(path, "re");
    if (file == NULL)
        return false; /* it has ended */
    if (fgets(line, sizeof line, file) != NULL)
        behind_name = strrchr(line, ')');
    fclose(file);
    return behind_name != NULL && strncmp(behind_name, ") S", 3) != 0;
}

static int
count_running(void)
{
    struct dirent *task;
    int count = 0;
    DIR *tasks = opendir("/proc/self/task");

    cr_assert_not_null(tasks);
    while ((task = readdir(tasks)) != NULL)
        if (task->d_name[0] != '.' && atoi(task->d_name) != gettid())
            count += runs(task->d_name);
    closedir(tasks);
    return count;
}
#endif

/* AddressSanitizer's allocator has locks that a fork leaves as they are: a child of a process whose
 * other threads were in malloc() just then waits for them for ever.  Threads that sleep hold none.
 */
static void
await_a_moment_to_fork(void)
{
#ifdef __SANITIZE_ADDRESS__
    for (int i = 0; i < 1000 && count_running() > 0; i++)
        usleep(1000);
#endif
}

pid_t
child_start(int (*fn)(void *ctx), void *ctx)
{
    pid_t parent = getpid();

    fflush(NULL);
    await_a_moment_to_fork();
    pid_t pid = fork();
    cr_assert_geq(pid, 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        die_with(parent);
        int code = fn(ctx);
        fflush(NULL);
        if (code == 0)
            check_leaks();
        _exit(code);
    }
    return pid;
}

int
child_wait(pid_t pid, int limit_s)
{
    const struct timespec pause = {.tv_nsec = 1000 * 1000};
    int status = 0;

    for (long waited_ms = 0; waited_ms < 1000L * limit_s * SPOKE_TEST_SLOWDOWN; waited_ms++) {
        pid_t done = waitpid(pid, &status, WNOHANG);
        cr_assert(done == 0 || done == pid, "waitpid: %s", strerror(errno));
        if (done == pid)
            return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
        nanosleep(&pause, NULL);
    }
    child_kill(pid);
    return -2;
}

int
child_run(int (*fn)(void *ctx), void *ctx, int limit_s)
{
    return child_wait(child_start(fn, ctx), limit_s);
}

void
child_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {
    }
}

pid_t
program_start(const char *name, const char *argument)
{
    pid_t parent = getpid();

    fflush(NULL);
    pid_t pid = fork();
    cr_assert_geq(pid, 0, "fork: %s", strerror(errno));
    if (pid == 0) {
        die_with(parent);
        close_range(3, ~0u, 0);
        setenv(ENTRY_VARIABLE, name, 1);
        setenv(ARGUMENT_VARIABLE, argument, 1);
        execl("/proc/self/exe", name, (char *)NULL);
        _exit(127);
    }
    return pid;
}

void
program_entry(const struct program_entry *entry)
{
    const char *wanted = getenv(ENTRY_VARIABLE);
    const char *argument = getenv(ARGUMENT_VARIABLE);

    if (wanted == NULL || argument == NULL || strcmp(wanted, entry->name) != 0)
        return;
    unsetenv(ENTRY_VARIABLE);
    int code = entry->fn(argument);
    fflush(NULL);
    _exit(code);
}
