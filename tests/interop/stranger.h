/* SPDX-License-Identifier: MIT */
/* A peer that is not ours: a process of its own that runs libnanomsg or NNG.  Main thread of a
 * test. */
#ifndef TESTS_INTEROP_STRANGER_H
#define TESTS_INTEROP_STRANGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum library { NANOMSG, NNG };

/* What it does. */
enum deed {
    ECHO_REP,     /* answers every request with itself, until it is killed */
    ECHO_RAW_REP, /* the same on a raw socket */
    ECHO_PAIR,
    ECHO_PAIR1, /* NNG alone has it */
    ECHO_BUS,
    ASK,                 /* REQ: so many requests, each answer must be the request; exits with 0 */
    ASK_RAW,             /* the same on a raw socket */
    ASK_BUS,             /* BUS: waits for a message, then as ASK */
    ECHO_RESPONDENT,     /* answers every survey with itself, until it is killed */
    ECHO_RAW_RESPONDENT, /* the same on a raw socket */
    SURVEY,     /* SURVEYOR: so many surveys, each answer must be the survey, and one must come;
                   exits with 0 */
    SURVEY_RAW, /* the same on a raw socket */
    SOURCE,     /* PAIR: sends so many messages, and waits for one; exits with 0 */
    SINK,       /* PAIR: receives so many, checks them, sends "good" or "bad", until it is killed */
    PUSHES,     /* sends so many messages, then waits until it is killed */
    PULLS,      /* receives so many, each must be the right one; exits with 0 */
    PUBLISHES,  /* sends so many, a millisecond between two, and again from the first one, until it
                   is killed */
    SUBSCRIBES, /* to everything; then as PULLS */
};

struct errand {
    enum library library;
    enum deed deed;
    bool listens;
    bool many; /* small messages only; else all sizes in turn */
    uint32_t count;
    char url[160];
};

const char *stranger_name(enum library library);
bool stranger_is_here(enum library library);
pid_t stranger_send_on(const struct errand *errand);

/* The size of the i-th message of an errand; its content is pattern_fill() with seed i. */
size_t stranger_size(bool many, uint32_t i);

/* The strangers: what runs in the other process, one for each library.  Result: the exit code. */
int nanomsg_run(const struct errand *errand);
int nng_run(const struct errand *errand);

#endif
