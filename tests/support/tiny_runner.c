/* SPDX-License-Identifier: MIT */
/* The runner behind tiny_runner.h: every test in a process of its own, a few at a time, each with a
 * time limit and in a process group of its own, which is killed with a test that fails.  The runner
 * itself has one thread and forks before any test starts others.  Its last line has Criterion's
 * shape. */
#include "tests/support/test.h"

#ifdef SPOKE_TINY_RUNNER

#include <errno.h>
#include <fnmatch.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* How a test's process says more than pass: codes that no test expects of itself. */
#define EXIT_FAILED  253
#define EXIT_SKIPPED 254
#define JOBS_MAX     16

enum verdict { PASSED, FAILED, CRASHED, SKIPPED };

struct job {
    const struct tiny_test *test;
    pid_t pid;
    int pidfd;
    bool timed_out;
    int64_t start_ns, deadline_ns;
};

static struct {
    struct tiny_suite *suites;
    struct tiny_test *tests, **last;
    const char *filter;
    bool verbose;
    int jobs_max;
    struct job jobs[JOBS_MAX];
    int jobs_count;
    unsigned tested, passed, failed, crashed, skipped, disabled;
} runner = {.last = &runner.tests, .jobs_max = 1};

/* Of the process that runs a test. */
static const struct tiny_test *current;
static bool check_failed, in_fini;

void
tiny_register_suite(struct tiny_suite *suite)
{
    suite->next = runner.suites;
    runner.suites = suite;
}

void
tiny_register_test(struct tiny_test *test)
{
    *runner.last = test;
    runner.last = &test->next;
}

static const struct tiny_suite *
suite_of(const struct tiny_test *test)
{
    for (const struct tiny_suite *suite = runner.suites; suite != NULL; suite = suite->next) {
        if (strcmp(suite->name, test->suite) == 0)
            return suite;
    }
    return NULL;
}

/* ---- In the test's process ---- */

static void
run_init(void)
{
    const struct tiny_suite *suite = suite_of(current);

    if (suite != NULL && suite->options.init != NULL)
        suite->options.init();
    if (current->options.init != NULL)
        current->options.init();
}

static void
run_fini(void)
{
    const struct tiny_suite *suite = suite_of(current);

    in_fini = true;
    if (current->options.fini != NULL)
        current->options.fini();
    if (suite != NULL && suite->options.fini != NULL)
        suite->options.fini();
}

static void
report(const char *file, int line, const char *what, const char *format, va_list arguments)
{
    char text[1024] = "";

    if (format != NULL && format[0] != '\0')
        vsnprintf(text, sizeof text, format, arguments);
    fprintf(stderr, "[----] %s:%d: %s/%s: %s%s%s\n", file, line, current->suite, current->name,
            what, text[0] != '\0' ? ": " : "", text);
    check_failed = true;
}

void
tiny_failed(const char *file, int line, const char *what, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    report(file, line, what, format, arguments);
    va_end(arguments);
}

void
tiny_fatal(const char *file, int line, const char *what, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    report(file, line, what, format, arguments);
    va_end(arguments);
    if (!in_fini)
        run_fini();
    fflush(NULL);
    _exit(EXIT_FAILED);
}

void
tiny_skip(const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "[SKIP] %s/%s: ", current->suite, current->name);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    run_fini();
    fflush(NULL);
    _exit(EXIT_SKIPPED);
}

void
tiny_log(const char *level, const char *format, ...)
{
    va_list arguments;

    fprintf(stderr, "[%s] ", level);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
}

/* A good test leaves by exit(), where the sanitizer has its last word and its own exit code. */
static _Noreturn void
run_body(const struct tiny_test *test, void *parameter)
{
    current = test;
    run_init();
    test->body(parameter);
    run_fini();
    fflush(NULL);
    if (check_failed)
        _exit(EXIT_FAILED);
    exit(0);
}

/* ---- In the runner's process ---- */

static int64_t
now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

static int64_t
limit_ns(const struct tiny_test *test)
{
    const struct tiny_suite *suite = suite_of(test);
    double limit_s = test->options.timeout;

    if (limit_s <= 0 && suite != NULL)
        limit_s = suite->options.timeout;
    if (limit_s < TEST_TIMEOUT_S)
        limit_s = TEST_TIMEOUT_S;
    return (int64_t)(limit_s * SPOKE_TEST_SLOWDOWN * 1e9);
}

static _Noreturn void
give_up(const char *what)
{
    perror(what);
    for (int i = 0; i < runner.jobs_count; i++)
        kill(-runner.jobs[i].pid, SIGKILL);
    exit(2);
}

static void
start_job(const struct tiny_test *test, void *parameter)
{
    struct job *job = &runner.jobs[runner.jobs_count];

    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        give_up("fork");
    if (pid == 0) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        run_body(test, parameter);
    }
    setpgid(pid, pid);
    job->test = test;
    job->pid = pid;
    job->timed_out = false;
    job->start_ns = now_ns();
    job->deadline_ns = job->start_ns + limit_ns(test);
    runner.jobs_count++;
    job->pidfd = pidfd_open(pid, 0);
    if (job->pidfd < 0)
        give_up("pidfd_open");
}

static enum verdict
judge(const struct job *job, int status)
{
    const struct tiny_options *wanted = &job->test->options;

    if (job->timed_out)
        return FAILED;
    if (WIFSIGNALED(status))
        return WTERMSIG(status) == wanted->signal ? PASSED : CRASHED;
    if (WEXITSTATUS(status) == EXIT_SKIPPED)
        return SKIPPED;
    if (wanted->signal != 0)
        return FAILED;
    return WEXITSTATUS(status) == wanted->exit_code ? PASSED : FAILED;
}

static void
tell(const struct job *job, enum verdict verdict, int status)
{
    static const char *const words[] = {"PASS", "FAIL", "FAIL"};
    double took_s = (double)(now_ns() - job->start_ns) / 1e9;
    char why[64] = "";

    if (verdict == SKIPPED || (verdict == PASSED && !runner.verbose))
        return; /* tiny_skip() has said why */
    if (job->timed_out)
        snprintf(why, sizeof why, ": timed out");
    else if (verdict == CRASHED)
        snprintf(why, sizeof why, ": killed by signal %d", WTERMSIG(status));
    else if (verdict == FAILED && WIFEXITED(status) && WEXITSTATUS(status) != EXIT_FAILED)
        snprintf(why, sizeof why, ": exit code %d", WEXITSTATUS(status));
    fprintf(stderr, "[%s] %s/%s: (%.2fs)%s\n", words[verdict], job->test->suite, job->test->name,
            took_s, why);
}

/* What a test that did not end well has left in its group dies before the leader is reaped, while
 * the number is still its own.  What a good test leaves is for run-suite to find. */
static void
finish_job(struct job *job)
{
    siginfo_t info;
    int status = 0;

    while (waitid(P_PID, (id_t)job->pid, &info, WEXITED | WNOWAIT) != 0) {
        if (errno != EINTR)
            give_up("waitid");
    }
    if (info.si_code != CLD_EXITED || info.si_status == EXIT_FAILED)
        kill(-job->pid, SIGKILL);
    while (waitpid(job->pid, &status, 0) < 0) {
        if (errno != EINTR)
            give_up("waitpid");
    }
    close(job->pidfd);

    enum verdict verdict = judge(job, status);
    runner.tested += verdict != SKIPPED;
    runner.passed += verdict == PASSED;
    runner.failed += verdict == FAILED || verdict == CRASHED;
    runner.crashed += verdict == CRASHED;
    runner.skipped += verdict == SKIPPED;
    tell(job, verdict, status);
    *job = runner.jobs[--runner.jobs_count];
}

/* Wait until at least one job has ended or is overdue, and finish all such. */
static void
wait_for_jobs(void)
{
    struct pollfd waits[JOBS_MAX];
    int64_t nearest_ns = INT64_MAX;

    for (int i = 0; i < runner.jobs_count; i++) {
        waits[i] = (struct pollfd){.fd = runner.jobs[i].pidfd, .events = POLLIN};
        if (runner.jobs[i].deadline_ns < nearest_ns)
            nearest_ns = runner.jobs[i].deadline_ns;
    }
    int64_t wait_ms = (nearest_ns - now_ns()) / 1000000 + 1;
    if (poll(waits, (nfds_t)runner.jobs_count, wait_ms > 0 ? (int)wait_ms : 0) < 0 &&
        errno != EINTR)
        give_up("poll");

    for (int i = runner.jobs_count - 1; i >= 0; i--) {
        struct job *job = &runner.jobs[i];
        if (waits[i].revents == 0 && now_ns() >= job->deadline_ns) {
            job->timed_out = true;
            kill(-job->pid, SIGKILL);
        }
        if (waits[i].revents != 0 || job->timed_out)
            finish_job(job);
    }
}

static void
run_one(const struct tiny_test *test, void *parameter)
{
    while (runner.jobs_count == runner.jobs_max)
        wait_for_jobs();
    start_job(test, parameter);
}

static void
run_test(const struct tiny_test *test)
{
    if (test->options.disabled) {
        runner.disabled++;
        return;
    }
    if (test->parameters == NULL) {
        run_one(test, NULL);
        return;
    }
    struct criterion_test_params parameters = test->parameters();
    for (size_t i = 0; i < parameters.length; i++)
        run_one(test, (char *)parameters.params + i * parameters.size);
    while (parameters.cleanup != NULL && runner.jobs_count > 0)
        wait_for_jobs();
    if (parameters.cleanup != NULL)
        parameters.cleanup(&parameters);
}

static bool
is_wanted(const struct tiny_test *test)
{
    char name[512];

    if (runner.filter == NULL)
        return true;
    snprintf(name, sizeof name, "%s/%s", test->suite, test->name);
    return fnmatch(runner.filter, name, FNM_EXTMATCH) == 0;
}

static void
list_tests(void)
{
    for (const struct tiny_test *test = runner.tests; test != NULL; test = test->next) {
        if (is_wanted(test))
            printf("%s/%s\n", test->suite, test->name);
    }
}

/* Returns true if the tests are to run. */
static bool
read_options(int argc, char **argv)
{
    static const struct option options[] = {
        {"filter", required_argument, NULL, 'f'},
        {"jobs", required_argument, NULL, 'j'},
        {"list", no_argument, NULL, 'l'},
        {"verbose", no_argument, NULL, 'v'},
        {NULL, 0, NULL, 0},
    };
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    bool list = false;
    int option;

    runner.jobs_max = cpus > 1 ? (int)cpus : 1;
    while ((option = getopt_long(argc, argv, "f:j:lv", options, NULL)) != -1) {
        switch (option) {
        case 'f': runner.filter = optarg; break;
        case 'j': runner.jobs_max = atoi(optarg); break;
        case 'l': list = true; break;
        case 'v': runner.verbose = true; break;
        default:
            fprintf(stderr, "usage: %s [--filter SUITE/NAME] [--jobs N] [--list] [--verbose]\n",
                    argv[0]);
            exit(2);
        }
    }
    if (runner.jobs_max < 1 || runner.jobs_max > JOBS_MAX)
        runner.jobs_max = runner.jobs_max < 1 ? 1 : JOBS_MAX;
    if (list)
        list_tests();
    return !list;
}

int
main(int argc, char **argv)
{
    if (!read_options(argc, argv))
        return 0;
    for (const struct tiny_test *test = runner.tests; test != NULL; test = test->next) {
        if (is_wanted(test))
            run_test(test);
    }
    while (runner.jobs_count > 0)
        wait_for_jobs();
    fprintf(stderr, "[====] Skipped: %u\n", runner.skipped);
    fprintf(stderr, "[====] Synthesis: Tested: %u | Passing: %u | Failing: %u | Crashing: %u\n",
            runner.tested, runner.passed, runner.failed, runner.crashed);
    if (runner.tested + runner.skipped + runner.disabled == 0) {
        fprintf(stderr, "no test matches%s%s\n", runner.filter != NULL ? " " : "",
                runner.filter != NULL ? runner.filter : "");
        return 2;
    }
    return runner.failed > 0;
}

#endif
