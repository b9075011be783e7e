/* SPDX-License-Identifier: MIT */
/* The frame of every benchmark program: it owns main(), the work to be done and the result line; an
 * adapter tells it how one library, or the bare kernel, moves a message.
 *
 * All calls on one link come from one thread.  A link is a connection between exactly two sides,
 * the server listens. With role `both` the two sides are two threads of one process. */
#ifndef BENCH_PROGRAM_H
#define BENCH_PROGRAM_H

#include "buffers.h"
#include "options.h"
#include "payload.h"
#include "topic.h"

/* How long a survey waits for answers. */
enum { BENCH_SURVEY_MS = 10000 };

/* One side of a connection, as the frame sees it.  Adapters embed it first in their own struct. */
struct bench_link {
    const struct bench_options *options;
    enum bench_role side; /* BENCH_SERVER or BENCH_CLIENT, also in a process that is both */
    uint8_t *pattern;     /* a body to copy from */
    size_t size;          /* of a body */
    size_t topic_size;    /* in front of it, or 0 */
    bool misses;          /* what is sent is for nobody */
    /* Another link of this thread that was opened before and is closed later, to share an engine or
     * the like with, or NULL. */
    struct bench_link *sibling;
    /* What open() made to lend, or NULL; freed when both sides are closed, since one may hold
     * bodies of the other until then. */
    struct bench_buffers *buffers;
};

struct bench_adapter {
    const char *name;
    size_t link_size;

    /* Listen and call bench_ready(), or connect.  Need not wait for the peer.  0 or -1 (described
     * on stderr). */
    int (*open)(struct bench_link *l);
    void (*close)(struct bench_link *l);

    /* Send `count` messages numbered from `first`; blocks while the peer is behind.  May hold them
     * back. */
    int (*send)(struct bench_link *l, uint64_t first, enum bench_phase phase, unsigned count);

    /* Let go of what was held back; NULL if nothing ever is. */
    int (*flush)(struct bench_link *l);

    /* Wait for at least one message, check all that came. */
    int (*receive)(struct bench_link *l, struct bench_check *c);

    /* Wait for one message, check it, send the very same bytes back. */
    int (*echo)(struct bench_link *l, struct bench_check *c);

    /* Do the library's own work, and wait for that, or until `fd` can be read, at most `ms`.  NULL
     * if its own threads do the work. */
    int (*wait_input)(struct bench_link *l, int fd, int ms);

    /* The adapter for these options, which may be another one; NULL: this one for all. */
    const struct bench_adapter *(*choose)(const struct bench_options *o);

    /* Does work that is not of this frame; returns the exit status.  NULL if there is none. */
    int (*other)(const struct bench_options *o);
};

/* The whole program. */
int bench_program_main(int argc, char **argv, const struct bench_adapter *a);

/* For open(): the server can be dialled at `address` now. */
void bench_ready(const struct bench_link *l, const char *address);

/* In a process that is both: wait until its server has said that it can be dialled. */
void bench_wait_ready(void);

/* For close() of a library that does not wait until its last message has left: gives a server's
 * time to do so. */
void bench_settle(const struct bench_link *l);

/* What a message has in all. */
static inline size_t
bench_message_size(const struct bench_link *l)
{
    return l->topic_size + l->size;
}

/* Write a whole message: the topic, if there is one, and the body.  Greetings have the topic that
 * was subscribed to last. */
static inline void
bench_write_message(const struct bench_link *l, void *to, uint64_t number, enum bench_phase phase)
{
    unsigned count = l->options->subscriptions;

    if (__builtin_expect(l->topic_size != 0, 0))
        bench_topic_write(to, phase == BENCH_HELLO ? count - 1
                                                   : bench_topic_of(number, count, l->misses));
    bench_fill((uint8_t *)to + l->topic_size, l->pattern, l->size, number, phase);
}

/* Write a body into memory that has held one of this link's before. */
static inline void
bench_renew_body(const struct bench_link *l, void *body, uint64_t number, enum bench_phase phase)
{
    if (l->options->touches_all)
        bench_fill(body, l->pattern, l->size, number, phase);
    else
        bench_stamp(body, l->size, number, phase);
}

/* Check a whole message, as bench_check_message() does. */
static inline int
bench_read_message(const struct bench_link *l, struct bench_check *c, const void *m, size_t size)
{
    if (__builtin_expect(size < l->topic_size, 0))
        return bench_check_unexpected(c, 0);
    return bench_check_message(c, (const uint8_t *)m + l->topic_size, size - l->topic_size);
}

/* Whether the thread waits without sleeping. */
static inline bool
bench_spins(const struct bench_link *l)
{
    return l->options->wait == BENCH_POLL;
}

/* One turn of a wait that does not sleep.  Gives the CPU away now and then, for machines with fewer
 * CPUs than threads that spin: `*turns` counts up from 0 in every wait. */
void bench_spin(unsigned *turns);

#endif
