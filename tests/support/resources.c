/* SPDX-License-Identifier: MIT */
#include "tests/support/resources.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <spoke/message.h>

#include "tests/support/test.h"

#define PATIENCE_MS (5000 * SPOKE_TEST_SLOWDOWN)

/* The kernel's own workers for a ring are none of ours, and live for some seconds more than it. */
static bool
is_the_kernels(const char *task)
{
    char path[64], name[32] = "";
    FILE *file;

    snprintf(path, sizeof path, "/proc/self/task/%.20s/comm", task);
    if ((file = fopen(path, "re")) == NULL)
        return true; /* it has ended */
    if (fgets(name, sizeof name, file) == NULL)
        name[0] = '\0';
    fclose(file);
    return strncmp(name, "iou-", 4) == 0;
}

static int
count_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    int count = 0;

    cr_assert_not_null(tasks);
    for (struct dirent *entry; (entry = readdir(tasks)) != NULL;)
        count += entry->d_name[0] != '.' && !is_the_kernels(entry->d_name);
    closedir(tasks);
    return count;
}

static void
list_fds(struct resources *r)
{
    DIR *fds = opendir("/proc/self/fd");

    cr_assert_not_null(fds);
    memset(r->fds, 0, sizeof r->fds);
    r->fds_count = 0;
    for (struct dirent *entry; (entry = readdir(fds)) != NULL;) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(fds) || fd >= RESOURCES_FDS_MAX)
            continue;
        r->fds[fd] = true;
        r->fds_count++;
    }
    closedir(fds);
}

static void *
do_nothing(void *argument)
{
    return argument;
}

/* ThreadSanitizer adds a thread of its own to the first one that a program starts: let it. */
static void
start_a_first_thread(void)
{
    static bool started;
    pthread_t thread;

    if (!started)
        cr_assert_eq(pthread_create(&thread, NULL, do_nothing, NULL), 0);
    if (!started)
        pthread_join(thread, NULL);
    started = true;
}

void
resources_take(struct resources *r)
{
    struct spoke_memory_stats memory;

    start_a_first_thread();
    spoke_memory_stats(&memory);
    r->messages = memory.messages;
    r->chunks = memory.chunks;
    r->others = memory.others;
    r->threads = count_threads();
    list_fds(r);
}

static bool
more_than(const struct resources *now, const struct resources *before)
{
    return now->messages > before->messages || now->chunks > before->chunks ||
           now->others > before->others || now->threads > before->threads ||
           now->fds_count > before->fds_count;
}

static void
tell_new_fds(const struct resources *now, const struct resources *before)
{
    int told = 0;

    for (int fd = 0; fd < RESOURCES_FDS_MAX && told < 20; fd++) {
        char link[64], target[128] = "";
        if (!now->fds[fd] || before->fds[fd])
            continue;
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        if (readlink(link, target, sizeof target - 1) < 0)
            continue;
        cr_log_warn("new descriptor %d: %s", fd, target);
        told++;
    }
}

void
resources_settle(const struct resources *before)
{
    static struct resources now;
    const struct timespec pause = {.tv_nsec = 2 * 1000 * 1000};

    resources_take(&now);
    for (int waited_ms = 0; more_than(&now, before) && waited_ms < PATIENCE_MS; waited_ms += 2) {
        nanosleep(&pause, NULL);
        resources_take(&now);
    }
    if (now.fds_count > before->fds_count)
        tell_new_fds(&now, before);
    cr_expect_leq(now.fds_count, before->fds_count, "descriptors: %d, before %d", now.fds_count,
                  before->fds_count);
    cr_expect_leq(now.threads, before->threads, "threads: %d, before %d", now.threads,
                  before->threads);
    cr_expect_leq(now.messages, before->messages, "messages: %llu, before %llu",
                  (unsigned long long)now.messages, (unsigned long long)before->messages);
    cr_expect_leq(now.chunks, before->chunks, "chunks: %llu, before %llu",
                  (unsigned long long)now.chunks, (unsigned long long)before->chunks);
    cr_expect_leq(now.others, before->others, "other blocks: %llu, before %llu",
                  (unsigned long long)now.others, (unsigned long long)before->others);
}

static long
status_kib(const char *name)
{
    char line[256];
    long kib = -1;
    FILE *status = fopen("/proc/self/status", "re");

    cr_assert_not_null(status);
    while (fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, name, strlen(name)) == 0)
            kib = atol(line + strlen(name));
    }
    fclose(status);
    cr_assert_geq(kib, 0);
    return kib;
}

long
resources_resident_kib(void)
{
    return status_kib("VmRSS:");
}

long
resources_virtual_kib(void)
{
    return status_kib("VmSize:");
}
