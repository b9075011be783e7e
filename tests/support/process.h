/* SPDX-License-Identifier: MIT */
/* Other processes of a test: children that run a function, or this program once more as something
 * else. They die with the thread that started them. */
#ifndef TESTS_SUPPORT_PROCESS_H
#define TESTS_SUPPORT_PROCESS_H

#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>

/* In a child there are no assertions: a check that fails says so and ends the child. */
#define CHILD_CHECK(Holds)                                                                         \
    do {                                                                                           \
        if (!(Holds)) {                                                                            \
            fprintf(stderr, "child: %s:%d: %s\n", __FILE__, __LINE__, #Holds);                     \
            _exit(1);                                                                              \
        }                                                                                          \
    } while (0)

/* Fork; the child runs fn(ctx) and exits with what it returns.  Under AddressSanitizer it looks for
 * leaks before. */
pid_t child_start(int (*fn)(void *ctx), void *ctx);
/* To be called in a child that may not do so: some system calls are caught, it has become another
 * user, or it has memory of threads that only its parent has. */
void child_is_confined(void);

/* Wait for a child and give its exit code, -1 if it died of a signal; one that needs longer than
 * `limit_s` is killed: -2. */
int child_wait(pid_t pid, int limit_s);

/* Both in one. */
int child_run(int (*fn)(void *ctx), void *ctx, int limit_s);

/* Kill a child and reap it. */
void child_kill(pid_t pid);

/* Start this program again, with nothing of what this process has.  There, before main(), the
 * function that PROGRAM_ENTRY registered under `name` runs with `argument`, and its result is the
 * exit code. For libraries that do not survive a fork. */
pid_t program_start(const char *name, const char *argument);

struct program_entry {
    const char *name;
    int (*fn)(const char *argument);
};
/* To be called from a constructor; does not return in the process that program_start() started. */
void program_entry(const struct program_entry *entry);
#define PROGRAM_ENTRY(Name, Function)                                                              \
    __attribute__((constructor)) static void program_entry_##Name(void)                            \
    {                                                                                              \
        program_entry(&(struct program_entry){#Name, Function});                                   \
    }

#endif
