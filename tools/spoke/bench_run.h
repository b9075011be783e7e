/* SPDX-License-Identifier: MIT */
/* Runs benchmark programs in pairs of processes and brings their result lines home.  One thread,
 * one pair at a time. */
#ifndef TOOL_BENCH_RUN_H
#define TOOL_BENCH_RUN_H

#include <stdbool.h>
#include <stddef.h>

enum { BENCH_LINE_MAX = 1024, BENCH_ARGS_MAX = 40 };

/* Where the programs are, and a directory for socket files that lives as long as this. */
struct bench_runner {
    char program_dir[4096];
    char stand_in_dir[4096 + 64]; /* of our libnanomsg.so.5; empty if there is none */
    char socket_dir[64];
    char identity[96]; /* there: of the servers that speak TLS; empty until there is one */
    unsigned next_socket;
};

/* What the two sides printed: one flat JSON object each.  In a process that is both, that process's
 * two lines. */
struct bench_lines {
    char server[BENCH_LINE_MAX];
    char client[BENCH_LINE_MAX];
};

/* Find the programs, make the directory, catch the signals that end the tool.  0 or -1 (described
 * on stderr). */
int bench_runner_init(struct bench_runner *r);
void bench_runner_fini(struct bench_runner *r);

/* Whether TLS is spoken over `transport`, and whether it is one of those that reach beyond the
 * machine: tls+tcp, ws, wss. */
bool bench_transport_has_tls(const char *transport);
bool bench_transport_is_edge(const char *transport);

/* Whether a program is installed. */
bool bench_runner_has(const struct bench_runner *r, const char *program);

/* Run `program` as server and client over `transport` ("inproc": once, as both) with the same
 * `args` (NULL at the end) and the environment `env` ("NAME=VALUE", NULL at the end; NULL: ours
 * unchanged) besides ours, in at most `limit_s` seconds.  0; or -1 after saying which command
 * failed and how; nothing is left running in either case. */
int bench_runner_run(struct bench_runner *r, const char *program, const char *transport,
                     const char *const *args, const char *const *env, unsigned limit_s,
                     struct bench_lines *lines);

/* The signal that asked the tool to end, or 0. */
int bench_runner_signal(void);

/* The number that belongs to `key` in a result line, or NAN. */
double bench_line_number(const char *line, const char *key);

#endif
