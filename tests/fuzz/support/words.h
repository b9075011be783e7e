/* SPDX-License-Identifier: MIT */
/* What a peer is about to say, as bytes that can be forged before they leave. */
#ifndef TESTS_FUZZ_SUPPORT_WORDS_H
#define TESTS_FUZZ_SUPPORT_WORDS_H

#include "tests/fuzz/support/lab.h"

struct words {
    uint8_t *bytes;
    size_t size, room;
};

void words_free(struct words *w);
void words_add(struct words *w, const void *bytes, size_t size);
void words_drop(struct words *w, size_t at, size_t size);

/* Ways to forge, and what each takes from the input after a word for the place. */
enum forgery {
    CHANGE, /* byte: one byte there */
    LOSE,   /* byte n: n bytes are lost */
    REPEAT, /* byte n: n bytes come twice */
    INVENT, /* byte n, n bytes: these come in between */
    FORGERIES
};
/* False: nothing has become different. */
bool words_forge(struct words *w, enum forgery how, struct input *in);

#endif
