/* SPDX-License-Identifier: MIT */
/* Bare peers: bare.h. */
#include "tests/fuzz/support/bare.h"

#include <string.h>

/* Not allocated: a sanitizer takes long for that much. */
static uint8_t rooms[BARES_MOST][BARE_MOST];
static bool taken[BARES_MOST];

static uint8_t *
take_room(void)
{
    for (int i = 0; i < BARES_MOST; i++) {
        if (!taken[i]) {
            taken[i] = true;
            return rooms[i];
        }
    }
    MUST(false);
    return NULL;
}

static void
take_in(struct bare *b)
{
    size_t n = 1;

    lab_settle(b->lab);
    while (!b->ended && n > 0) {
        MUST(b->heard.size < BARE_MOST);
        n = lab_read(b->h, b->bytes + b->heard.size, BARE_MOST - b->heard.size);
        if (n == LAB_ENDED)
            b->ended = true;
        else
            b->heard.size += n;
        lab_settle(b->lab);
    }
}

void
bare_open(struct bare *b, struct lab *lab, bool ipc, int protocol)
{
    uint8_t hello[HELLO_SIZE];

    *b = (struct bare){.lab = lab, .h = lab_dial(lab, ipc), .bytes = take_room()};
    lab_hello(hello, protocol);
    MUST(lab_write(b->h, hello, sizeof hello) == sizeof hello);
    take_in(b);
    MUST(b->heard.size == HELLO_SIZE);
    b->heard = (struct stream){.bytes = b->bytes, .ipc = ipc};
}

void
bare_close(struct bare *b)
{
    lab_hang_up(b->h);
    taken[(size_t)(b->bytes - rooms[0]) / BARE_MOST] = false;
}

void
bare_say(struct bare *b, const uint8_t *bytes, size_t size)
{
    uint8_t head[9];
    size_t head_size = stream_head(head, b->heard.ipc, size);

    if (b->ended)
        return;
    (void)lab_write(b->h, head, head_size);
    (void)lab_write(b->h, bytes, size);
    take_in(b);
}

void
bare_must_hear(struct bare *b, const uint32_t *word, const uint8_t *bytes, size_t size)
{
    size_t front = word != NULL ? 4 : 0, heard_size;
    const uint8_t *heard;

    take_in(b);
    MUST(stream_next(&b->heard, &heard, &heard_size) == 1);
    MUST(heard_size == front + size);
    MUST(word == NULL || reference_get32(heard) == *word);
    MUST(size == 0 || memcmp(heard + front, bytes, size) == 0);
}

void
bare_must_hear_nothing(struct bare *b)
{
    const uint8_t *heard;
    size_t size;

    take_in(b);
    MUST(stream_next(&b->heard, &heard, &size) == 0);
    MUST(b->heard.at == b->heard.size);
}

bool
bare_ended(struct bare *b)
{
    take_in(b);
    return b->ended;
}
