/* SPDX-License-Identifier: MIT */
/* How much memory the rings of a connection over shared memory take: little for few messages, and
 * more of what `shm-ring` allows only for many that are read at once. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <spoke/spoke.h>

#include "tests/support/endpoints.h"
#include "tests/support/test.h"

#define KIB     ((size_t)1024)
#define SHORT   (128 * KIB) /* the lap of a calm connection, and its page of positions */
#define MESSAGE ((size_t)2000)
#define TRIES   2000

struct pair {
    spoke_engine *engine;
    spoke_socket *from, *to;
};

static void
open_pair(struct pair *p, size_t ring)
{
    char url[ENDPOINT_MAX];

    endpoint_fresh(url, SHM);
    cr_assert_eq(spoke_engine_open(&p->engine, NULL), 0);
    cr_assert_eq(spoke_socket_open(&p->from, SPOKE_PAIR, p->engine), 0);
    cr_assert_eq(spoke_socket_open(&p->to, SPOKE_PAIR, p->engine), 0);
    cr_assert_eq(spoke_socket_set_int(p->to, SPOKE_OPT_RECV_QUEUE, 1), 0);
    if (ring > 0)
        cr_assert_eq(spoke_socket_set_size(p->from, SPOKE_OPT_SHM_RING, ring), 0);
    cr_assert_eq(spoke_listen(p->from, url, NULL, 0), 0);
    cr_assert_eq(spoke_dial(p->to, url, NULL, SPOKE_WAIT_FIRST), 0);
}

static void
close_pair(struct pair *p)
{
    cr_assert_eq(spoke_socket_close(p->from), 0);
    cr_assert_eq(spoke_socket_close(p->to), 0);
    cr_assert_eq(spoke_engine_close(p->engine), 0);
}

/* Bytes that exist of the largest ring in this process. */
static size_t
largest_ring(void)
{
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    size_t most = 0;

    cr_assert_not_null(directory);
    while ((entry = readdir(directory)) != NULL) {
        char text[64] = {0};
        struct stat st;

        if (readlinkat(dirfd(directory), entry->d_name, text, sizeof text - 1) > 0 &&
            strstr(text, "memfd:spoke-ring") != NULL &&
            fstatat(dirfd(directory), entry->d_name, &st, 0) == 0 &&
            (size_t)st.st_blocks * 512 > most)
            most = (size_t)st.st_blocks * 512;
    }
    closedir(directory);
    return most;
}

/* So many bytes, each message read before the next, and numbered. */
static void
carry(struct pair *p, size_t bytes)
{
    static uint8_t body[MESSAGE];
    static unsigned number;

    for (size_t done = 0; done < bytes; done += MESSAGE) {
        spoke_msg *m;

        number++;
        memcpy(body, &number, sizeof number);
        memcpy(body + MESSAGE - sizeof number, &number, sizeof number);
        cr_assert_eq(spoke_send_bytes(p->from, body, MESSAGE, 0), 0);
        cr_assert_eq(spoke_recv(p->to, &m, 0), 0);
        cr_assert_eq(spoke_msg_size(m), MESSAGE);
        cr_assert_eq(memcmp(spoke_msg_body(m), body, MESSAGE), 0);
        spoke_msg_free(m);
    }
}

Test(rings, stay_short_for_few_messages)
{
    static const struct timespec nap = {.tv_nsec = 20000000};
    struct pair p;

    open_pair(&p, 0);
    carry(&p, 2 * MESSAGE);
    cr_expect_leq(largest_ring(), 28 * KIB);
    /* 3 MiB, each lap slower than 100 MB/s. */
    for (int i = 0; i < 32; i++) {
        carry(&p, SHORT - 16 * KIB);
        nanosleep(&nap, NULL);
    }
    cr_expect_leq(largest_ring(), SHORT + 28 * KIB, "%zu KiB", largest_ring() / KIB);
    close_pair(&p);
}

Test(rings, become_longer_for_many)
{
    time_t end = time(NULL) + 20;
    struct pair p;

    open_pair(&p, 0);
    for (int i = 0; i < TRIES && largest_ring() < 2048 * KIB && time(NULL) < end; i++)
        carry(&p, 1024 * KIB);
#ifdef __SANITIZE_THREAD__
    if (largest_ring() < 2048 * KIB) {
        close_pair(&p);
        cr_skip(
            "a ring becomes longer for speed, which this sanitizer leaves only to a calm machine");
    }
#endif
    cr_expect_geq(largest_ring(), 2048 * KIB, "%zu KiB", largest_ring() / KIB);
    carry(&p, 8192 * KIB);
    close_pair(&p);
}

/* Nobody reads: there is no reason for more memory. */
Test(rings, stay_short_while_nobody_reads)
{
    static uint8_t body[MESSAGE];
    struct pair p;
    spoke_msg *m;
    unsigned sent = 0, got = 0;

    open_pair(&p, 0);
    carry(&p, SHORT);
    while (spoke_send_bytes(p.from, body, MESSAGE, SPOKE_DONTWAIT) == 0)
        sent++;
    cr_expect_gt(sent, SHORT / MESSAGE / 2);
    cr_expect_leq(largest_ring(), SHORT + 28 * KIB, "%zu KiB", largest_ring() / KIB);
    while (got < sent && spoke_recv(p.to, &m, 0) == 0) {
        spoke_msg_free(m);
        got++;
    }
    cr_expect_eq(got, sent);
    close_pair(&p);
}

Test(rings, no_longer_than_allowed)
{
    struct pair p;

    open_pair(&p, 64 * KIB);
    carry(&p, 8192 * KIB);
    cr_expect_leq(largest_ring(), 64 * KIB + 8 * KIB);
    close_pair(&p);
}
