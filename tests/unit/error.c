/* SPDX-License-Identifier: MIT */
/* Errors, their texts and names, the translation from errno, and the log. */
#include <spoke/error.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/engine/engine.h"
#include "runtime/engine/log.h"
#include "tests/support/test.h"

struct row {
    int value, number;
    const char *name, *text;
};

static const struct row rows[] = {
#define ERROR(name, number, text) {SPOKE_##name, number, "SPOKE_" #name, text},
#include <spoke/errors.def>
#undef ERROR
};
#define ROWS (sizeof rows / sizeof rows[0])

Test(error, every_error_has_its_number_name_and_text)
{
    for (size_t i = 0; i < ROWS; i++) {
        cr_expect_eq(rows[i].value, -rows[i].number);
        cr_expect_str_eq(spoke_error_name(rows[i].value), rows[i].name);
        cr_expect_str_eq(spoke_strerror(rows[i].value), rows[i].text);
    }
}

Test(error, numbers_names_and_texts_are_unique_and_texts_have_no_full_stop)
{
    for (size_t i = 0; i < ROWS; i++) {
        size_t size = strlen(rows[i].text);
        cr_expect_gt(rows[i].number, 0);
        cr_assert_gt(size, 0);
        cr_expect_neq(rows[i].text[size - 1], '.');
        for (size_t j = 0; j < i; j++) {
            cr_expect_neq(rows[i].number, rows[j].number);
            cr_expect_str_neq(rows[i].name, rows[j].name);
            cr_expect_str_neq(rows[i].text, rows[j].text);
        }
    }
}

Test(error, success_and_foreign_numbers_have_a_text_too)
{
    static const int foreign[] = {1, 7, INT32_MAX, INT32_MIN, -((int)ROWS + 1000)};

    cr_expect_str_eq(spoke_error_name(0), "SPOKE_OK");
    cr_expect_str_not_empty(spoke_strerror(0));
    for (size_t i = 0; i < sizeof foreign / sizeof foreign[0]; i++) {
        cr_expect_str_eq(spoke_strerror(foreign[i]), "unknown error");
        cr_expect_str_not_empty(spoke_error_name(foreign[i]));
    }
}

Test(error, the_version_is_the_headers)
{
    char text[32];

    snprintf(text, sizeof text, "%d.%d.%d", SPOKE_VERSION_MAJOR, SPOKE_VERSION_MINOR,
             SPOKE_VERSION_PATCH);
    cr_expect_str_eq(spoke_version(), text);
    cr_expect_str_eq(SPOKE_VERSION, text);
}

Test(error, errno_is_translated)
{
    static const struct {
        int from, to;
    } pairs[] = {
        {0, 0},
        {EPIPE, SPOKE_ECONNRESET},
        {ECONNRESET, SPOKE_ECONNRESET},
        {ECONNABORTED, SPOKE_ECONNRESET},
        {ECONNREFUSED, SPOKE_ECONNREFUSED},
        {ETIMEDOUT, SPOKE_ETIMEDOUT},
        {EHOSTUNREACH, SPOKE_ENETUNREACH},
        {ENETUNREACH, SPOKE_ENETUNREACH},
        {ENETDOWN, SPOKE_ENETUNREACH},
        {EADDRINUSE, SPOKE_EADDRINUSE},
        {EADDRNOTAVAIL, SPOKE_EADDRNOTAVAIL},
        {EAFNOSUPPORT, SPOKE_EADDRNOTAVAIL},
        {ENODEV, SPOKE_ENODEV},
        {ENOENT, SPOKE_ENOENT},
        {ENOTDIR, SPOKE_ENOENT},
        {ENAMETOOLONG, SPOKE_ENAMETOOLONG},
        {ENOTSOCK, SPOKE_ENOTSOCK},
        {EISDIR, SPOKE_ENOTSOCK},
        {EACCES, SPOKE_EACCES},
        {EPERM, SPOKE_EPERM},
        {EMFILE, SPOKE_EMFILE},
        {ENFILE, SPOKE_EMFILE},
        {ENOMEM, SPOKE_ENOMEM},
        {ENOBUFS, SPOKE_ENOBUFS},
        {EAGAIN, SPOKE_EAGAIN},
        {EWOULDBLOCK, SPOKE_EAGAIN},
        {EINVAL, SPOKE_EINVAL},
        {EMSGSIZE, SPOKE_EMSGSIZE},
        {ECANCELED, SPOKE_ECANCELED},
        {EDQUOT, SPOKE_EIO},
    };

    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        cr_expect_eq(spk_error_from_errno(pairs[i].from), pairs[i].to, "errno %d", pairs[i].from);
    for (int i = 1; i < 4096; i++)
        cr_assert_lt(spk_error_from_errno(i), 0, "errno %d is a failure", i);
}

/* ---- the log ---- */

struct listener {
    int calls;
    enum spoke_log_level level;
    char text[2048];
};

static void
listen_to(void *ctx, enum spoke_log_level level, const char *text)
{
    struct listener *l = ctx;

    l->calls++;
    l->level = level;
    snprintf(l->text, sizeof l->text, "%s", text);
}

Test(log, nobody_listens_at_first)
{
    struct listener l = {0};

    spk_log(SPOKE_LOG_ERROR, "lost");
    spoke_set_log(NULL, &l, SPOKE_LOG_DEBUG);
    spk_log(SPOKE_LOG_ERROR, "lost");
    cr_expect_eq(l.calls, 0);
}

Test(log, the_listener_gets_sentences_up_to_its_level)
{
    struct listener l = {0};

    spoke_set_log(listen_to, &l, SPOKE_LOG_WARNING);
    spk_log(SPOKE_LOG_ERROR, "pipe %d of %s", 3, "tcp://*:1");
    cr_expect_eq(l.calls, 1);
    cr_expect_eq(l.level, SPOKE_LOG_ERROR);
    cr_expect_str_eq(l.text, "pipe 3 of tcp://*:1");
    spk_log(SPOKE_LOG_WARNING, "100%%");
    cr_expect_eq(l.calls, 2);
    cr_expect_str_eq(l.text, "100%");
    spk_log(SPOKE_LOG_INFO, "too much");
    spk_log(SPOKE_LOG_DEBUG, "too much");
    cr_expect_eq(l.calls, 2);
    spoke_set_log(NULL, NULL, SPOKE_LOG_DEBUG);
    spk_log(SPOKE_LOG_ERROR, "lost");
    cr_expect_eq(l.calls, 2);
}

Test(log, long_sentences_are_cut)
{
    struct listener l = {0};
    char longer[3000];

    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    spoke_set_log(listen_to, &l, SPOKE_LOG_ERROR);
    spk_log(SPOKE_LOG_ERROR, "%s", longer);
    cr_expect_eq(strlen(l.text), 1023);
    spoke_set_log(NULL, NULL, SPOKE_LOG_ERROR);
}

struct tally {
    atomic_int calls;
    atomic_bool over; /* the listener was taken away */
    atomic_int late;
};

static void
count_call(void *ctx, enum spoke_log_level level, const char *text)
{
    struct tally *t = ctx;

    (void)level;
    atomic_fetch_add(&t->calls, strcmp(text, "a sentence, number 7") == 0);
    atomic_fetch_add(&t->late, atomic_load(&t->over));
}

static atomic_bool log_stop;

static void *
log_on(void *unused)
{
    (void)unused;
    while (!atomic_load(&log_stop))
        spk_log(SPOKE_LOG_INFO, "a sentence, number %d", 7);
    return NULL;
}

/* Goal: once spoke_set_log() has returned, the old listener's memory may be freed. */
Test(log, a_listener_that_was_replaced_is_never_called_again)
{
    static struct tally tallies[20];
    pthread_t threads[3];

    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_create(&threads[i], NULL, log_on, NULL), 0);
    for (int i = 0; i < 20; i++) {
        spoke_set_log(count_call, &tallies[i], SPOKE_LOG_INFO);
        while (atomic_load(&tallies[i].calls) < 10)
            sched_yield();
        spoke_set_log(NULL, NULL, SPOKE_LOG_INFO);
        atomic_store(&tallies[i].over, true);
    }
    atomic_store(&log_stop, true);
    for (int i = 0; i < 3; i++)
        cr_assert_eq(pthread_join(threads[i], NULL), 0);
    for (int i = 0; i < 20; i++)
        cr_expect_eq(atomic_load(&tallies[i].late), 0);
}

static void
listen_slowly(void *ctx, enum spoke_log_level level, const char *text)
{
    (void)level;
    (void)text;
    atomic_fetch_add((atomic_int *)ctx, 1);
    usleep(200);
}

/* Goal: a child of a fork that happened while another thread was in the listener can use the log.
 */
Test(log, a_forked_child_may_log_and_change_the_listener)
{
    static atomic_int calls;
    pthread_t thread;

    spoke_set_log(listen_slowly, &calls, SPOKE_LOG_INFO);
    cr_assert_eq(pthread_create(&thread, NULL, log_on, NULL), 0);
    while (atomic_load(&calls) == 0)
        sched_yield();
    for (int i = 0; i < 10; i++) {
        int status;
        pid_t child = fork();
        if (child == 0) {
            struct listener l = {0};
            alarm(20);
            spoke_set_log(listen_to, &l, SPOKE_LOG_INFO);
            spk_log(SPOKE_LOG_INFO, "from the child");
            _exit(l.calls == 1 ? 0 : 1);
        }
        cr_assert_gt(child, 0);
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "child %d: status %x", i, status);
    }
    atomic_store(&log_stop, true);
    cr_assert_eq(pthread_join(thread, NULL), 0);
    spoke_set_log(NULL, NULL, SPOKE_LOG_INFO);
}
