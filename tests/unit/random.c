/* SPDX-License-Identifier: MIT */
/* Bytes that nobody can foresee, wherever they come from: the first ones are the kernel's, those
 * behind 64 KiB OpenSSL's, those of a child the kernel's again. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/core/transport.h"
#include "tests/support/test.h"

enum { DRAWS = 20000 };

static int
compare(const void *a, const void *b)
{
    return memcmp(a, b, 8);
}

/* None comes twice, on the way through both sources; and no bit stays as it was. */
Test(random, draws_differ)
{
    static uint8_t draws[DRAWS][8];
    uint8_t ones[8] = {0}, zeros[8] = {0};

    for (int i = 0; i < DRAWS; i++) {
        spk_random(draws[i], 8);
        for (int k = 0; k < 8; k++) {
            ones[k] |= draws[i][k];
            zeros[k] |= (uint8_t)~draws[i][k];
        }
    }
    qsort(draws, DRAWS, 8, compare);
    for (int i = 1; i < DRAWS; i++)
        cr_assert_neq(memcmp(draws[i - 1], draws[i], 8), 0);
    for (int k = 0; k < 8; k++)
        cr_assert_eq(ones[k] & zeros[k], 0xff);
}

/* Each size is filled to its last byte, and nothing beside it; also what is more than is made at
 * once. */
Test(random, any_size_is_filled)
{
    static const size_t sizes[] = {0, 1, 3, 256, 4095, 4096, 4097, 100000};
    static uint8_t bytes[100001], seen[100000];

    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        memset(seen, 0, sizeof seen);
        for (int n = 0; n < 30; n++) { /* a byte is 0 in all of them once in 2^240 times */
            bytes[sizes[i]] = 0xa5;
            spk_random(bytes, sizes[i]);
            cr_assert_eq(bytes[sizes[i]], 0xa5, "%zu", sizes[i]);
            for (size_t k = 0; k < sizes[i]; k++)
                seen[k] |= bytes[k];
        }
        for (size_t k = 0; k < sizes[i]; k++)
            cr_assert_neq(seen[k], 0, "%zu of %zu", k, sizes[i]);
    }
}

static void *
draw_on(void *ctx)
{
    atomic_bool *stop = ctx;
    uint8_t bytes[64];

    while (!atomic_load(stop))
        spk_random(bytes, sizeof bytes);
    return NULL;
}

/* Whatever another thread is doing at the fork; and not what its parent draws. */
Test(random, a_child_draws_its_own)
{
    atomic_bool stop = false;
    uint8_t ours[8], theirs[8];
    pthread_t thread;
    int fds[2];

    cr_assert_eq(pthread_create(&thread, NULL, draw_on, &stop), 0);
    for (int i = 0; i < DRAWS; i++)
        spk_random(ours, sizeof ours);
    cr_assert_eq(pipe(fds), 0);
    for (int i = 0; i < 50; i++) {
        pid_t child = fork();
        int status;

        if (child == 0) {
            alarm(20);
            spk_random(theirs, sizeof theirs);
            _exit(write(fds[1], theirs, sizeof theirs) == sizeof theirs ? 0 : 1);
        }
        spk_random(ours, sizeof ours);
        cr_assert_eq(waitpid(child, &status, 0), child);
        cr_assert_eq(status, 0);
        cr_assert_eq(read(fds[0], theirs, sizeof theirs), (ssize_t)sizeof theirs);
        cr_assert_neq(memcmp(ours, theirs, sizeof ours), 0);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    close(fds[0]);
    close(fds[1]);
}
