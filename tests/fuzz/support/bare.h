/* SPDX-License-Identifier: MIT */
/* A bare peer that has shaken hands: it says whole messages of any bytes and keeps what it hears.
 */
#ifndef TESTS_FUZZ_SUPPORT_BARE_H
#define TESTS_FUZZ_SUPPORT_BARE_H

#include "tests/fuzz/support/lab.h"
#include "tests/fuzz/support/reference.h"

#define BARES_MOST 2                   /* at once */
#define BARE_MOST  ((size_t)256 << 10) /* bytes that each can hear */

struct bare {
    struct lab *lab;
    struct sim_handle *h;
    struct stream heard;
    uint8_t *bytes;
    bool ended; /* the other end closed the connection */
};

/* Connect to the socket that listens at lab_url(), and claim to speak this protocol. */
void bare_open(struct bare *b, struct lab *lab, bool ipc, int protocol);
void bare_close(struct bare *b);

void bare_say(struct bare *b, const uint8_t *bytes, size_t size);

/* The next message has this word in front (NULL: none) and these bytes … */
void bare_must_hear(struct bare *b, const uint32_t *word, const uint8_t *bytes, size_t size);
/* … or there is none. */
void bare_must_hear_nothing(struct bare *b);

/* Has it been hung up on? */
bool bare_ended(struct bare *b);

#endif
