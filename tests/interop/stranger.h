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
    ECHO_REP, /* answers every request with itself, until it is killed */
    ECHO_RESPONDENT,
    ECHO_PAIR,
    ECHO_PAIR1, /* NNG alone has it */
    ECHO_BUS,
    ASK_REQ, /* so many requests, each answer must be the request; exits with 0 */
    ASK_SURVEYOR,
    ASK_PAIR,
    ASK_PAIR1,
    ASK_BUS,
    SOURCE,     /* PAIR: sends so many messages, and waits for one; exits with 0 */
    SINK,       /* PAIR: receives so many, checks them, sends "good" or "bad", until it is killed */
    PUSHES,     /* sends so many, and again from the first one, until it is killed */
    PULLS,      /* receives so many, each must be the right one; exits with 0 */
    PUBLISHES,  /* as PUSHES, with a millisecond between two */
    SUBSCRIBES, /* to everything; then as PULLS */
};

struct errand {
    enum library library;
    enum deed deed;
    bool listens;
    bool raw;
    bool many;      /* small messages only; else all sizes in turn */
    bool over_ours; /* ASK_…: when that is done, sends what is over our limit, and all of it again.
                       PUSHES, PUBLISHES: now and then such a message between the others */
    bool over_theirs; /* ASK_…: then provokes an answer that is over its own, and all of it again */
    uint32_t count;
    char url[160];
    /* With TLS: files of the authority that it trusts, and of its own certificate and key, "-":
     * none; whether it asks us for one (a dialer always looks at ours). */
    char ca[96], cert[96];
    bool demands;
};

static inline bool
errand_exceeds(const struct errand *e)
{
    return e->over_ours || e->over_theirs;
}

/* The sizes of messages, unless many: so many in all, so many that a limit of ours lets through. */
#define ALL_SIZES   5u
#define SMALL_SIZES 4u

/* Ours is low for the sake of NNG 1.5, which hangs for ever if its connection ends between two
 * parts of a message that does not fit into the kernel's buffer. */
#define OUR_LIMIT   (16u * 1024u)
#define OVER_OURS   (OUR_LIMIT + 64u)
#define THEIR_LIMIT (2u * 1024u * 1024u)
#define OVER_THEIRS (THEIR_LIMIT + 64u)

/* What has one of these sizes asks for OVER_THEIRS bytes, once; for any answer. */
#define PROVOCATION 4097u
#define PING        2u

/* The name in our certificate, as a dialer with TLS expects it. */
#define STRANGER_KNOWS_US_AS "spoke.test"

/* The longest wait of a stranger for the answer to a ping. */
#define LONGEST_PATIENCE_MS (20000 * SPOKE_TEST_SLOWDOWN)

const char *stranger_name(enum library library);
bool stranger_is_here(enum library library);
pid_t stranger_send_on(const struct errand *errand);

/* The size of the i-th message of an errand; its content is pattern_fill() with seed i. */
size_t stranger_size(bool many, uint32_t i);

/* The strangers: what runs in the other process, one for each library.  Result: the exit code. */
int nanomsg_run(const struct errand *errand);
int nng_run(const struct errand *errand);

#endif
