/* SPDX-License-Identifier: MIT */
/* Programs run from the outside: arguments and input in; output, errors and exit code back.
 * Output goes to memory, so a program never waits for the test to read it.  Nothing outlives the
 * test. */
#ifndef TESTS_TOOL_PROGRAM_H
#define TESTS_TOOL_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct program {
    pid_t pid;
    int in; /* its standard input: write, then program_end_input(); /dev/null if it has none */
    int out_fd, err_fd;
    char *out,
        *err; /* what it has printed, with a NUL behind: after program_wait() or program_look() */
    size_t out_size;
    int status; /* after program_wait(): its exit code, 128 + a signal, or -1: killed, it took too
                   long */
};

/* Start argv[0] (NULL-terminated list); the test fails if that is not possible. */
void program_start_argv(struct program *p, bool with_input, const char *const *argv);
#define PROGRAM_ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

/* Wait for its end, kill it after `limit_s`; returns p->status. */
int program_wait(struct program *p, double limit_s);

/* Read what it has printed so far. */
void program_look(struct program *p);

void program_end_input(struct program *p);

/* Send it a signal. */
void program_signal(struct program *p, int signal);

/* Kill it if it still runs; free everything. */
void program_clear(struct program *p);

/* Start, wait at most 60 s. */
int program_run_argv(struct program *p, const char *const *argv);

/* `spoke cat …`, and any command line of sh, in which $SPOKE is the tool, $CAT `spoke cat`, and
 * $DIR the test's directory.  Each `spoke cat` gives what it has sent more time to leave than it
 * does by itself, however busy the machine. */
#define SPOKE_CAT_ARGV(...)     PROGRAM_ARGV(SPOKE_TOOL, "cat", "--linger", "30", __VA_ARGS__)
#define spoke_cat_start(P, ...) program_start_argv(P, false, SPOKE_CAT_ARGV(__VA_ARGS__))
#define spoke_cat(P, ...)       program_run_argv(P, SPOKE_CAT_ARGV(__VA_ARGS__))
#define shell(P, Text)          program_run_argv(P, PROGRAM_ARGV("/bin/sh", "-c", Text))

/* A directory for this test, made and emptied by a suite's .init and .fini. */
extern char test_directory[64];
void test_directory_make(void);
void test_directory_remove(void);

/* DIR/name, in one of a few static buffers; ipc:// in front. */
const char *in_directory(const char *name);
const char *ipc_in_directory(const char *name);

/* Wait until somebody listens at a path, at most 30 s; false if nobody does. */
bool appears(const char *path);

/* A tcp port on 127.0.0.1 that is free, and stays so for listeners of this test, as text in a
 * static buffer. */
const char *free_port(void);

bool is_installed(const char *program);

#endif
