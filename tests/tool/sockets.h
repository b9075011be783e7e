/* SPDX-License-Identifier: MIT */
/* Plain sockets around a `spoke gateway` or `spoke mux`: the test is their client and their target.
 * No call on one waits longer than a test may. */
#ifndef TESTS_TOOL_SOCKETS_H
#define TESTS_TOOL_SOCKETS_H

#include "tests/support/test.h"
#include "tests/tool/program.h"

#define PATIENCE_MS (30000 * SPOKE_TEST_SLOWDOWN)
#define BULK        ((size_t)32 << 20)

enum scheme { TCP, IPC, SHM };

/* ---- sockets ---- */

int try_connect(const char *url); /* -1: errno says why not */
int connect_to(const char *url);  /* as soon as it listens */
void await_free(const char *url); /* nobody listens there any more */
/* A socket that listens; its URL is in `url`, ipc:// is "target" in the test's directory. */
int target_open(enum scheme scheme, char url[128]);
int accept_one(int listener);

void send_text(int fd, const char *text);
void expect_text(int fd, const char *text);
void expect_end(int fd);
void expect_broken(int fd); /* an end, or an error: not silence */
void expect_reset(int fd);  /* an error: no silent end */
void reset(int fd);         /* close it so */

/* Words both ways, and the end of each half, by either side first. */
void check_conversation(const char *front, int listener);
/* `total` bytes both ways at once, then both ends. */
void check_bulk(int client, int server, size_t total);

/* ---- programs ---- */

void wait_error(struct program *p, const char *text);
bool has_line(const char *text, const char *line); /* that begins so */
int count_of(const char *text, const char *word);
/* Ask for counters until those that come have this, at the beginning if it is their first number.
 */
void wait_counters(struct program *p, const char *text);
void wait_listening(struct program *p, char url[128]);
void any_url(enum scheme scheme, const char *name, char url[128]);
void terminate(struct program *p);
long memory_kib(const struct program *p, const char *name); /* a line of /proc/PID/status */

/* The file "rules". */
void write_rules(const char *text);
/* Send SIGHUP and wait for what it says then, for the `count`th time. */
void reload(struct program *p, const char *said, int count);

/* One that says what happens; the rest is its target, and perhaps options. */
#define gateway_start(P, Scheme, Name, Url, ...)                                                   \
    do {                                                                                           \
        any_url(Scheme, Name, Url);                                                                \
        program_start_argv(P, false, PROGRAM_ARGV(SPOKE_TOOL, "gateway", "-v", Url, __VA_ARGS__)); \
        wait_listening(P, Url);                                                                    \
    } while (0)

#endif
