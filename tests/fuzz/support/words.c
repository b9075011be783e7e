/* SPDX-License-Identifier: MIT */
/* Words that can be forged: words.h. */
#include "tests/fuzz/support/words.h"

#include <string.h>

void
words_free(struct words *w)
{
    free(w->bytes);
    *w = (struct words){0};
}

static void
insert(struct words *w, size_t at, const void *bytes, size_t size)
{
    MUST(at <= w->size);
    if (size == 0)
        return;
    if (w->room - w->size < size) {
        w->room = 2 * w->room + size;
        MUST((w->bytes = realloc(w->bytes, w->room)) != NULL);
    }
    memmove(w->bytes + at + size, w->bytes + at, w->size - at);
    memcpy(w->bytes + at, bytes, size);
    w->size += size;
}

void
words_add(struct words *w, const void *bytes, size_t size)
{
    insert(w, w->size, bytes, size);
}

void
words_drop(struct words *w, size_t at, size_t size)
{
    MUST(at <= w->size && size <= w->size - at);
    if (size > 0)
        memmove(w->bytes + at, w->bytes + at + size, w->size - at - size);
    w->size -= size;
}

bool
words_forge(struct words *w, enum forgery how, struct input *in)
{
    size_t at = input_word(in), size = input_byte(in);
    uint8_t copy[UINT8_MAX];
    const uint8_t *bytes;

    at %= w->size + (how == INVENT || w->size == 0);
    if (how == INVENT) {
        bytes = input_bytes(in, size, &size);
        insert(w, at, bytes, size);
        return size > 0;
    }
    if (how == CHANGE && w->size > 0) {
        w->bytes[at] ^= (uint8_t)(size | 1);
        return true;
    }
    if (size > w->size - at)
        size = w->size - at;
    if (size == 0 || how == CHANGE)
        return false;
    if (how == LOSE) {
        words_drop(w, at, size);
    } else {
        memcpy(copy, w->bytes + at, size);
        insert(w, at, copy, size);
    }
    return true;
}
