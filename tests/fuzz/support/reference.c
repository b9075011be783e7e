/* SPDX-License-Identifier: MIT */
/* The second reading: reference.h. */
#include "tests/fuzz/support/reference.h"

#include <spoke/error.h>
#include <spoke/message.h>

int
stream_next(struct stream *s, const uint8_t **message, size_t *size)
{
    const uint8_t *head = s->bytes + s->at;
    size_t left = s->size - s->at, type = s->ipc ? 1 : 0;
    uint64_t length = 0;

    if (s->ipc && left > 0 && head[0] != 1)
        return SPOKE_EPROTO;
    if (left < type + 8)
        return 0;
    for (int i = 0; i < 8; i++)
        length = length * 256 + head[type + (size_t)i];
    if ((s->limit > 0 && length > s->limit) || length > UINT32_MAX)
        return SPOKE_EMSGSIZE;
    if (length > left - type - 8)
        return 0;
    *message = head + type + 8;
    *size = (size_t)length;
    s->at += type + 8 + *size;
    return 1;
}

size_t
stream_head(uint8_t *to, bool ipc, uint64_t length)
{
    size_t at = 0;

    if (ipc)
        to[at++] = 1;
    for (int shift = 56; shift >= 0; shift -= 8)
        to[at++] = (uint8_t)(length >> shift);
    return at;
}

long
words_end(const uint8_t *bytes, size_t size, size_t most)
{
    for (size_t word = 0; word < most; word++) {
        if (size < 4 * (word + 1))
            return SPOKE_EPROTO;
        if ((bytes[4 * word] & 0x80) != 0)
            return (long)(4 * (word + 1));
    }
    return SPOKE_ELIMIT;
}

int
hello_verdict(const uint8_t *bytes, size_t size, int protocol)
{
    static const uint8_t start[4] = {0, 'S', 'P', 0};

    for (size_t i = 0; i < 4 && i < size; i++)
        if (bytes[i] != start[i])
            return SPOKE_EHANDSHAKE;
    if (size < 8)
        return 0;
    if (bytes[6] != 0 || bytes[7] != 0)
        return SPOKE_EHANDSHAKE;
    return bytes[4] * 256 + bytes[5] == protocol ? 0 : SPOKE_EPEER;
}

uint32_t
reference_get32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

void
reference_put32(uint8_t *bytes, uint32_t word)
{
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(word >> (24 - 8 * i));
}
