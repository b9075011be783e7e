/* SPDX-License-Identifier: MIT */
/* Descriptors of the caller's. */
#include "tests/select/fixture.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/socket.h>
#include <unistd.h>

static spoke_select_case
reads(int fd)
{
    return (spoke_select_case){.what = SPOKE_SELECT_FD_READ, .of.fd = fd};
}

static spoke_select_case
writes(int fd)
{
    return (spoke_select_case){.what = SPOKE_SELECT_FD_WRITE, .of.fd = fd};
}

static void
write_one(void *ctx)
{
    (void)!write(*(int *)ctx, "x", 1);
}

Test(fds, are_not_of_a_simulated_world)
{
    struct scene sc;
    spoke_select_case cases[2] = {{.what = SPOKE_SELECT_TIME, .of.when = 1}, reads(0)};
    size_t which;

    scene_open(&sc, SIM);
    expect_rc(spoke_select(cases, 2, &which, sc.e, SPOKE_NOW), SPOKE_ENOTSUP);
    cr_assert_eq(which, 1);
    scene_close(&sc);
}

Test(fds, that_are_not_open_are_named)
{
    spoke_select_case cases[2] = {{.what = SPOKE_SELECT_NONE}};
    struct scene sc;
    size_t which;
    int fd[2];

    for (int way = OWNED; way <= SHARED; way++) {
        scene_open(&sc, (enum way)way);
        cr_assert_eq(pipe(fd), 0);
        close(fd[0]);
        close(fd[1]);
        cases[1] = reads(fd[0]);
        expect_rc(spoke_select(cases, 2, &which, sc.e, SPOKE_FOREVER), SPOKE_EBADF);
        cr_assert_eq(which, 1);
        cases[1] = writes(-1);
        expect_rc(spoke_select(cases, 2, &which, sc.e, SPOKE_NOW), SPOKE_EBADF);
        cr_assert_eq(which, 1);
        scene_close(&sc);
    }
}

/* Both directions of one socket, as two cases and as the same one twice. */
Test(fds, may_be_in_several_cases)
{
    static char zeros[65536];
    struct scene sc;
    size_t which;
    int fd[2];

    for (int way = OWNED; way <= SHARED; way++) {
        scene_open(&sc, (enum way)way);
        cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
        while (write(fd[0], zeros, sizeof zeros) > 0) {
        }
        spoke_select_case cases[3] = {reads(fd[0]), writes(fd[0]), reads(fd[0])};
        expect_rc(spoke_select(cases, 3, &which, sc.e, scene_in(&sc, SPOKE_MS)), SPOKE_ETIMEDOUT);
        struct later *later = scene_later(&sc, write_one, &fd[1]);
        expect_rc(spoke_select(cases, 3, &which, sc.e, SPOKE_FOREVER), 0);
        scene_joined(later);
        cr_assert_neq(which, 1);
        cr_assert_eq(read(fd[0], zeros, 1), 1);
        while (read(fd[1], zeros, sizeof zeros) > 0) {
        }
        expect_rc(spoke_select(cases, 3, &which, sc.e, SPOKE_FOREVER), 0);
        cr_assert_eq(which, 1);
        close(fd[1]); /* both, now */
        expect_rc(spoke_select(cases, 1, &which, sc.e, SPOKE_FOREVER), 0);
        close(fd[0]);
        scene_close(&sc);
    }
}

/* Its number may be another file's when the next call comes. */
Test(fds, leave_no_trace_in_the_engine)
{
    struct scene sc;
    size_t which;
    int fd[2];

    for (int way = OWNED; way <= SHARED; way++) {
        scene_open(&sc, (enum way)way);
        for (int i = 0; i < 50; i++) {
            cr_assert_eq(i % 2 ? pipe(fd) : socketpair(AF_UNIX, SOCK_STREAM, 0, fd), 0);
            spoke_select_case c = reads(fd[0]);
            if (i % 3 == 0) {
                expect_rc(spoke_select(&c, 1, &which, sc.e, scene_in(&sc, SPOKE_US)),
                          SPOKE_ETIMEDOUT);
            } else {
                struct later *later = scene_later(&sc, write_one, &fd[1]);

                expect_rc(spoke_select(&c, 1, &which, sc.e, SPOKE_FOREVER), 0);
                scene_joined(later);
            }
            close(fd[0]);
            close(fd[1]);
        }
        scene_close(&sc);
    }
}

Test(fds, of_files_are_always_ready)
{
    struct scene sc;
    size_t which;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    spoke_select_case c = reads(fd);

    cr_assert_geq(fd, 0);
    scene_open(&sc, OWNED);
    expect_rc(spoke_select(&c, 1, &which, sc.e, SPOKE_FOREVER), 0);
    scene_close(&sc);
    close(fd);
}

struct reader {
    int fd, go;
    int rc;
};

static void *
wait_for_it(void *ctx)
{
    struct reader *r = ctx;
    spoke_select_case cases[2] = {reads(r->go), reads(r->fd)};
    size_t which;

    r->rc = spoke_select(cases, 2, &which, NULL, SPOKE_FOREVER);
    return (void *)(uintptr_t)which;
}

/* Threads on one descriptor: all are told. */
Test(fds, may_be_selected_on_by_several_threads)
{
    struct reader r[4];
    pthread_t threads[4];
    struct scene sc;
    int fd[2], quiet[2];

    scene_open(&sc, SHARED);
    cr_assert_eq(pipe(fd), 0);
    cr_assert_eq(pipe(quiet), 0);
    for (int i = 0; i < 4; i++) {
        r[i] = (struct reader){.fd = fd[0], .go = quiet[0]};
        cr_assert_eq(pthread_create(&threads[i], NULL, wait_for_it, &r[i]), 0);
    }
    usleep(10000);
    cr_assert_eq(write(fd[1], "x", 1), 1);
    for (int i = 0; i < 4; i++) {
        void *which;

        pthread_join(threads[i], &which);
        expect_rc(r[i].rc, 0);
        cr_assert_eq((uintptr_t)which, 1);
    }
    for (int i = 0; i < 2; i++) {
        close(fd[i]);
        close(quiet[i]);
    }
    scene_close(&sc);
}
