/* SPDX-License-Identifier: MIT */
#include "tests/support/waiters.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/core/core.h"
#include "runtime/engine/engine.h"
#include "runtime/engine/handle.h"
#include "tests/support/test.h"

#define LIMIT_MS (10000 * SPOKE_TEST_SLOWDOWN)

/* ---- calls ---- */

enum list { RECEIVERS, SENDERS };

static struct spk_link *
list_of(void *object, enum spk_handle_kind kind, enum list list)
{
    struct spk_socket *s = object;

    if (kind == SPK_HANDLE_CONTEXT)
        return spk_context_recv_waiters(object);
    return list == RECEIVERS ? &s->own.recv_waiters : &s->send_waiters;
}

static int
length_of(const void *handle, enum spk_handle_kind kind, enum list list)
{
    struct spk_engine *e;
    void *object;
    int length = 0;

    cr_assert_eq(spk_handle_enter(handle, kind, &object, &e), 0);
    SPK_LIST_EACH(link, list_of(object, kind, list))
    {
        length++;
    }
    spk_engine_leave(e);
    return length;
}

static void
await_length(const void *handle, enum spk_handle_kind kind, enum list list, int count)
{
    int length = 0;

    for (int ms = 0; ms < LIMIT_MS; ms++) {
        if ((length = length_of(handle, kind, list)) >= count)
            return;
        usleep(1000);
    }
    cr_assert_fail("%d wait, not %d", length, count);
}

void
await_receivers(spoke_socket *s, int count)
{
    await_length(s, SPK_HANDLE_SOCKET, RECEIVERS, count);
}

void
await_context_receivers(spoke_context *c, int count)
{
    await_length(c, SPK_HANDLE_CONTEXT, RECEIVERS, count);
}

void
await_senders(spoke_socket *s, int count)
{
    await_length(s, SPK_HANDLE_SOCKET, SENDERS, count);
}

/* ---- the engine ---- */

static atomic_int posts_run;

static void
count_post(void *ctx)
{
    (void)ctx;
    atomic_fetch_add(&posts_run, 1);
}

static uint64_t
turns_of_shared(void)
{
    struct spoke_engine_info info;

    cr_assert_eq(spoke_engine_get_info(NULL, &info), 0);
    return info.turns;
}

/* A turn that has begun may have looked already, so the next one counts. */
void
await_engine(void)
{
    struct spk_engine *e;
    uint64_t end = turns_of_shared() + 2;

    cr_assert_eq(spk_engine_default(&e), 0);
    for (int ms = 0; ms < LIMIT_MS; ms++) {
        int wanted = atomic_load(&posts_run) + 1;

        cr_assert_eq(spk_engine_post(e, count_post, NULL, false), 0);
        for (; ms < LIMIT_MS && atomic_load(&posts_run) < wanted; ms++)
            usleep(1000);
        if (turns_of_shared() >= end)
            return;
    }
    cr_assert_fail("the engine is stuck");
}

/* ---- threads ---- */

static char
state_of(pid_t tid)
{
    char path[64], line[512];
    const char *end = NULL;

    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
    FILE *stat = fopen(path, "re");
    if (stat == NULL)
        return '?';
    if (fgets(line, sizeof line, stat) != NULL)
        end = strrchr(line, ')');
    fclose(stat);
    return end != NULL ? end[2] : '?';
}

/* Asleep for some milliseconds: not only at a lock. */
bool
await_sleep(pid_t tid)
{
    int asleep = 0;

    for (int ms = 0; ms < LIMIT_MS && asleep < 5; ms++) {
        asleep = state_of(tid) == 'S' ? asleep + 1 : 0;
        usleep(1000);
    }
    return asleep == 5;
}
