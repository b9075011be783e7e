/* SPDX-License-Identifier: MIT */
/* run-suite [--backend uring|poll|denied] [--mask NUMBER] [--upgrade off|now] [--seconds N] PROGRAM
 * [ARGUMENT…]: runs a test program for ctest.
 *
 * With --backend it sets SPOKE_BACKEND; where this kernel denies io_uring, a run on "uring" is
 * reported as skipped (exit code 77), with the reason.  "denied" denies io_uring to the program, as
 * a container's filter does, and sets nothing: the library has to find out and do without.  With
 * --mask it sets SPOKE_MASK_FEATURES: the sum of the features of io_uring that the library shall do
 * without, with --upgrade SPOKE_UPGRADE: whether and when ipc moves into shared memory.  It adopts
 * every process that the tests leave behind: such a process is a failure and is
 * killed, and so is everything when the time is up.  Otherwise one forgotten child would hold
 * ctest's pipe open, and the run would hang instead of failing. */
#include <errno.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define EXIT_SKIPPED 77
#define GRACE_MS     20000 /* for processes that are dying already, on a machine with other work */

/* 0 if a ring can be made, else why not. */
static int
probe_uring(void)
{
    struct io_uring_params plainest = {0};
    long fd = syscall(SYS_io_uring_setup, 2, &plainest);

    if (fd < 0)
        return errno;
    close((int)fd);
    return 0;
}

static void
set_variable(const char *name, const char *value)
{
    if (setenv(name, value, 1) != 0) {
        perror("run-suite");
        exit(2);
    }
}

/* From now on, here and in all that is started: no ring, whatever the kernel has. */
static void
deny_uring(void)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {.len = sizeof filter / sizeof filter[0], .filter = filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("run-suite: no filter");
        exit(2);
    }
    if (probe_uring() != EPERM) {
        fprintf(stderr, "run-suite: io_uring is not denied\n");
        exit(2);
    }
    unsetenv("SPOKE_BACKEND");
}

static void
choose_backend(const char *backend)
{
    if (strcmp(backend, "denied") == 0) {
        deny_uring();
        return;
    }

    int error = strcmp(backend, "uring") == 0 ? probe_uring() : 0;

    if (error != 0) {
        fprintf(stderr, "skipped: io_uring is denied here: %s\n", strerror(error));
        exit(EXIT_SKIPPED);
    }
    set_variable("SPOKE_BACKEND", backend);
}

static int64_t
now_ms(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

/* Reap until `wanted` has ended (its status in *status; true), nobody is left, or the time is up.
 * `wanted` 0: until nobody is left, which is then true.  SIGCHLD is blocked, so none is missed. */
static bool
reap_until(pid_t wanted, int *status, int64_t deadline_ms)
{
    sigset_t children;

    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    for (;;) {
        int ended = 0;
        pid_t pid = waitpid(-1, &ended, WNOHANG);
        if (pid < 0)
            return wanted == 0;
        if (pid > 0 && pid == wanted) {
            *status = ended;
            return true;
        }
        int64_t left_ms = deadline_ms - now_ms();
        if (left_ms <= 0)
            return false;
        if (pid == 0) {
            struct timespec wait = {.tv_sec = left_ms / 1000, .tv_nsec = left_ms % 1000 * 1000000};
            sigtimedwait(&children, NULL, &wait);
        }
    }
}

static void
name_process(pid_t pid)
{
    char path[64], name[64] = "?";

    snprintf(path, sizeof path, "/proc/%d/comm", (int)pid);
    FILE *file = fopen(path, "r");
    if (file != NULL) {
        if (fgets(name, sizeof name, file) == NULL)
            name[0] = '\0';
        name[strcspn(name, "\n")] = '\0';
        fclose(file);
    }
    fprintf(stderr, "run-suite: still there: process %d (%s)\n", (int)pid, name);
}

/* Kill every child, and what those leave to us, until nobody is left. */
static void
kill_all(void)
{
    char path[64];
    int status = 0;

    snprintf(path, sizeof path, "/proc/self/task/%d/children", (int)getpid());
    for (int round = 0; round < 100; round++) {
        FILE *file = fopen(path, "r");
        int pid;
        while (file != NULL && fscanf(file, "%d", &pid) == 1) {
            if (round == 0)
                name_process(pid);
            kill(pid, SIGKILL);
        }
        if (file != NULL)
            fclose(file);
        if (reap_until(0, &status, now_ms() + 100))
            return;
    }
    fprintf(stderr, "run-suite: some processes cannot be killed\n");
}

static pid_t
start(char **arguments)
{
    sigset_t children;

    if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0) {
        perror("run-suite");
        exit(2);
    }
    sigemptyset(&children);
    sigaddset(&children, SIGCHLD);
    sigprocmask(SIG_BLOCK, &children, NULL);
    pid_t pid = fork();
    if (pid < 0) {
        perror("run-suite");
        exit(2);
    }
    if (pid == 0) {
        sigprocmask(SIG_UNBLOCK, &children, NULL);
        execv(arguments[0], arguments);
        perror(arguments[0]);
        _exit(2);
    }
    return pid;
}

int
main(int argc, char **argv)
{
    long seconds = 600;
    int next = 1, status = 0;

    for (; next + 1 < argc && strncmp(argv[next], "--", 2) == 0; next += 2) {
        if (strcmp(argv[next], "--backend") == 0)
            choose_backend(argv[next + 1]);
        else if (strcmp(argv[next], "--mask") == 0)
            set_variable("SPOKE_MASK_FEATURES", argv[next + 1]);
        else if (strcmp(argv[next], "--upgrade") == 0)
            set_variable("SPOKE_UPGRADE", argv[next + 1]);
        else if (strcmp(argv[next], "--seconds") == 0)
            seconds = strtol(argv[next + 1], NULL, 10);
        else
            break;
    }
    if (next >= argc || argv[next][0] == '-' || seconds <= 0) {
        fprintf(stderr, "usage: run-suite [--backend NAME] [--mask NUMBER] [--upgrade WHEN] "
                        "[--seconds N] PROGRAM [ARGUMENT...]\n");
        return 2;
    }
    pid_t pid = start(&argv[next]);
    if (!reap_until(pid, &status, now_ms() + seconds * 1000)) {
        fprintf(stderr, "run-suite: not finished after %ld s\n", seconds);
        kill_all();
        return 1;
    }
    if (!reap_until(0, &(int){0}, now_ms() + GRACE_MS)) {
        fprintf(stderr, "run-suite: the tests have left processes behind\n");
        kill_all();
        return 1;
    }
    if (WIFSIGNALED(status)) {
        fprintf(stderr, "run-suite: killed by signal %d\n", WTERMSIG(status));
        return 1;
    }
    return WEXITSTATUS(status);
}
